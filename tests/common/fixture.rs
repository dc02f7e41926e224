//! Reads what PyTorch computed: `fixtures/golden.safetensors`, made by `fixtures/make_golden.py`.

use intervene::graph::op::Window;
use safetensors::{Dtype, SafeTensors};

/// The fixture's tensors.
pub struct Golden(Vec<u8>);

impl Golden {
    /// Reads it.
    pub fn open() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden.safetensors");
        Golden(std::fs::read(path).expect("the fixture is committed"))
    }

    fn raw(&self, key: &str) -> (Dtype, Vec<usize>, Vec<u64>) {
        let file = SafeTensors::deserialize(&self.0).expect("a valid file");
        let view = file.tensor(key).unwrap_or_else(|e| panic!("{key}: {e}"));
        let words = view.data().chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().expect("8 bytes")));
        (view.dtype(), view.shape().to_vec(), words.collect())
    }

    /// Shape and elements of a float64 tensor.
    pub fn floats(&self, key: &str) -> (Vec<usize>, Vec<f64>) {
        let (dtype, shape, words) = self.raw(key);
        assert_eq!(dtype, Dtype::F64, "{key}");
        (shape, words.into_iter().map(f64::from_bits).collect())
    }

    /// Elements of an int64 tensor.
    pub fn integers(&self, key: &str) -> Vec<u32> {
        let (dtype, _, words) = self.raw(key);
        assert_eq!(dtype, Dtype::I64, "{key}");
        words.into_iter().map(|w| u32::try_from(w).expect("small")).collect()
    }

    /// Stride and padding of a case.
    pub fn window(&self, case: &str) -> Window {
        let pair = self.integers(&format!("{case}/window"));
        Window { stride: pair[0] as usize, pad: pair[1] as usize }
    }

    /// The names of the cases of one kind: `conv2d.0`, `conv2d.1`, …
    pub fn cases(&self, kind: &str) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.0).expect("a valid file");
        let mut names: Vec<String> = file
            .names()
            .iter()
            .filter_map(|n| n.split('/').next())
            .filter(|n| n.split('.').next() == Some(kind))
            .map(String::from)
            .collect();
        names.sort();
        names.dedup();
        assert!(!names.is_empty(), "{kind}");
        names
    }
}
