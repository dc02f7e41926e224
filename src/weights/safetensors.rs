//! safetensors files: a memory-mapped reader that trusts nothing, and a writer whose bytes depend only on the tensors
//! and the metadata. Called by [`Weights`], checkpoints and reference folders.
//!
//! Layout: u64 little-endian header length, JSON header (name to dtype, shape, offsets; `__metadata__` of strings),
//! data. The writer sorts tensors by alignment, then name, and pads the header to 8 bytes, so its files can be read in
//! place.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{Dtype, Metadata};

use super::bytes::{Bytes, Float, aligned};
use super::{PrefixIs, Storage, Weights, WeightsError};
use crate::atomic::write_atomic;
use crate::tensor::Shape;

#[cfg(target_endian = "big")]
compile_error!("tensor files are little-endian and read in place");

/// Most bytes of a header; torchvision's largest has 0.1 MB.
const HEADER_LEN_MAX: u64 = 100_000_000;

/// Elements of a tensor, row-major, of the types that files of ours hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements<'a> {
    /// Bytes.
    U8(Cow<'a, [u8]>),
    /// Unsigned 32-bit: row lists, Philox words.
    U32(Cow<'a, [u32]>),
    /// Signed 64-bit: labels, counters.
    I64(Cow<'a, [i64]>),
    /// Floats: parameters, activations.
    F32(Cow<'a, [f32]>),
    /// Doubles: sums that are carried on.
    F64(Cow<'a, [f64]>),
}

impl Elements<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Elements::U8(d) => d.len(),
            Elements::U32(d) => d.len(),
            Elements::I64(d) => d.len(),
            Elements::F32(d) => d.len(),
            Elements::F64(d) => d.len(),
        }
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as they lie in a file.
    fn bytes(&self) -> &[u8] {
        match self {
            Elements::U8(d) => d,
            Elements::U32(d) => bytemuck::cast_slice(d),
            Elements::I64(d) => bytemuck::cast_slice(d),
            Elements::F32(d) => bytemuck::cast_slice(d),
            Elements::F64(d) => bytemuck::cast_slice(d),
        }
    }

    /// The format's name of the type, and its alignment in bytes.
    fn dtype(&self) -> (&'static str, usize) {
        match self {
            Elements::U8(_) => ("U8", 1),
            Elements::U32(_) => ("U32", 4),
            Elements::I64(_) => ("I64", 8),
            Elements::F32(_) => ("F32", 4),
            Elements::F64(_) => ("F64", 8),
        }
    }
}

macro_rules! elements_from {
    ($($variant:ident $type:ty),*) => {$(
        impl<'a> From<&'a [$type]> for Elements<'a> {
            fn from(data: &'a [$type]) -> Self {
                Elements::$variant(Cow::Borrowed(data))
            }
        }
        impl From<Vec<$type>> for Elements<'_> {
            fn from(data: Vec<$type>) -> Self {
                Elements::$variant(Cow::Owned(data))
            }
        }
    )*};
}
elements_from!(U8 u8, U32 u32, I64 i64, F32 f32, F64 f64);

#[derive(Clone, Debug)]
struct Entry {
    dtype: Dtype,
    shape: Shape,
    /// Position in the file; lies inside it and has the shape's length, checked at opening.
    range: Range<usize>,
}

/// An open safetensors file: header checked, tensors still on disk.
#[derive(Clone, Debug)]
pub struct TensorFile {
    file: String,
    bytes: Arc<Bytes>,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Maps a file and checks its header: sizes, offsets, overlaps, overflow.
    ///
    /// The file must not be shortened while it is open; our own writers never do that, they replace files whole.
    ///
    /// # Errors
    /// [`WeightsError::Io`], [`WeightsError::Header`], [`WeightsError::Truncated`].
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        Self::parse(path.display().to_string(), Arc::new(Bytes::open(path)?))
    }

    /// A file already in memory; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`TensorFile::open`].
    pub fn from_vec(name: &str, bytes: Vec<u8>) -> Result<Self, WeightsError> {
        Self::parse(name.to_owned(), Arc::new(Bytes::Owned(bytes)))
    }

    /// A file compiled into the binary; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`TensorFile::open`].
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self, WeightsError> {
        Self::parse(name.to_owned(), Arc::new(Bytes::Static(bytes)))
    }

    pub(super) fn parse(file: String, bytes: Arc<Bytes>) -> Result<Self, WeightsError> {
        let hint = hint(&bytes);
        let header = |reason: String| WeightsError::Header { file: file.clone(), reason, hint };
        let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(header(format!("the file has {} bytes, fewer than the 8 of a header length", bytes.len())));
        };
        let length = u64::from_le_bytes(*length);
        if length > HEADER_LEN_MAX {
            return Err(header(format!("the header length is {length} bytes, above the limit of {HEADER_LEN_MAX}")));
        }
        let length = length as usize; // at most 10^8
        let Some(json) = rest.get(..length) else {
            return Err(WeightsError::Truncated {
                file,
                want: 8 + length as u64,
                got: bytes.len() as u64,
                what: "its header",
            });
        };
        // Deserialising checks offsets, sizes and overflow of every tensor. The crate's own whole-file reader is not
        // used: it adds the last offset to the header length unchecked, which a crafted file makes overflow.
        let parsed: Metadata = serde_json::from_slice(json).map_err(|e| header(format!("the header is wrong: {e}")))?;
        let start = 8 + length;
        let want = (start as u64).saturating_add(parsed.data_len() as u64);
        let got = bytes.len() as u64;
        if want > got {
            return Err(WeightsError::Truncated { file, want, got, what: "the tensors its header lists" });
        }
        if want < got {
            return Err(header(format!("the header accounts for {want} bytes, but the file has {got}")));
        }
        let entries = parsed
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let range = start + info.data_offsets.0..start + info.data_offsets.1;
                (name, Entry { dtype: info.dtype, shape: Shape::new(info.shape.clone()), range })
            })
            .collect();
        let metadata = parsed.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        Ok(TensorFile { file, bytes, entries, metadata })
    }

    /// What errors call this file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&Shape> {
        self.entries.get(name).map(|e| &e.shape)
    }

    /// Elements of a tensor, in place where they lie aligned, else copied. `None` where there is no such tensor.
    ///
    /// # Errors
    /// [`WeightsError::Dtype`] for a type that [`Elements`] does not know.
    pub fn elements(&self, name: &str) -> Result<Option<Elements<'_>>, WeightsError> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let bytes = &self.bytes[entry.range.clone()];
        Ok(Some(match entry.dtype {
            Dtype::U8 => Elements::U8(Cow::Borrowed(bytes)),
            Dtype::U32 => Elements::U32(aligned(bytes)),
            Dtype::I64 => Elements::I64(aligned(bytes)),
            Dtype::F32 => Elements::F32(aligned(bytes)),
            Dtype::F64 => Elements::F64(aligned(bytes)),
            other => return Err(self.dtype_error(name, other, "F32, F64, I64, U32 or U8")),
        }))
    }

    /// The f32 tensors whose names begin with `prefix` (all with ""), as weights that share this file's memory.
    /// Batch-norm's counters (`num_batches_tracked`) are left out; tensors of other prefixes are not judged.
    ///
    /// # Errors
    /// [`WeightsError::Dtype`] for a parameter that is not f32; [`WeightsError::Duplicate`] cannot arise here.
    pub fn weights(&self, prefix: &str, prefix_is: PrefixIs) -> Result<Weights, WeightsError> {
        let mut weights = Weights::new(&self.file);
        weights.metadata = self.metadata.clone();
        for (name, entry) in &self.entries {
            let Some(rest) = name.strip_prefix(prefix) else { continue };
            if name.ends_with("num_batches_tracked") {
                continue;
            }
            if entry.dtype != Dtype::F32 {
                return Err(self.dtype_error(name, entry.dtype, "F32"));
            }
            let bytes = &self.bytes[entry.range.clone()];
            let storage = match aligned::<f32>(bytes) {
                Cow::Borrowed(_) => Storage::Mapped { bytes: self.bytes.clone(), range: entry.range.clone() },
                Cow::Owned(copy) => Storage::Owned(copy.into()),
            };
            let name = match prefix_is {
                PrefixIs::Kept => name,
                PrefixIs::Stripped => rest,
            };
            weights.tensors.insert(name.to_owned(), super::Entry { shape: entry.shape.clone(), storage });
        }
        Ok(weights)
    }

    /// All tensors of floats, those of 16 and 64 bits converted, as [`Weights::notes`] say; whole numbers are left out.
    ///
    /// # Errors
    /// [`WeightsError::Dtype`] for floats of 8 bits and less.
    pub(super) fn imported(&self) -> Result<Weights, WeightsError> {
        let mut weights = Weights::new(&self.file);
        weights.metadata = self.metadata.clone();
        let (mut converted, mut skipped) = (BTreeMap::<Float, usize>::new(), Vec::new());
        for (name, entry) in &self.entries {
            let bytes = &self.bytes[entry.range.clone()];
            let float = match entry.dtype {
                Dtype::F32 => Float::F32,
                Dtype::F16 => Float::F16,
                Dtype::BF16 => Float::Bf16,
                Dtype::F64 => Float::F64,
                Dtype::BOOL
                | Dtype::U8
                | Dtype::I8
                | Dtype::U16
                | Dtype::I16
                | Dtype::U32
                | Dtype::I32
                | Dtype::U64
                | Dtype::I64 => {
                    if !name.ends_with("num_batches_tracked") {
                        skipped.push(name.clone());
                    }
                    continue;
                }
                other => return Err(self.dtype_error(name, other, "F32, F16, BF16 or F64")),
            };
            let storage = match (float, bytemuck::try_cast_slice::<u8, f32>(bytes)) {
                (Float::F32, Ok(_)) => Storage::Mapped { bytes: self.bytes.clone(), range: entry.range.clone() },
                _ => Storage::Owned(float.all(bytes).into()),
            };
            if float != Float::F32 {
                *converted.entry(float).or_default() += 1;
            }
            weights.tensors.insert(name.clone(), super::Entry { shape: entry.shape.clone(), storage });
        }
        weights.note_conversions(&converted, &skipped);
        Ok(weights)
    }

    fn dtype_error(&self, name: &str, got: Dtype, want: &'static str) -> WeightsError {
        let hint = match got {
            Dtype::F16 | Dtype::BF16 | Dtype::F64 => "convert it first, in PyTorch with `tensor.float()`",
            _ => "is it a parameter?",
        };
        WeightsError::Dtype { tensor: name.to_owned(), file: self.file.clone(), got: format!("{got:?}"), want, hint }
    }
}

/// What a file that is no safetensors file most likely is.
fn hint(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' ', ..] if bytes.starts_with(b"version https://git-lfs") => {
            "it is a git-LFS pointer, not the file: run `git lfs pull` where it came from"
        }
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => {
            "it looks like a PyTorch file: convert it with `intervene convert`"
        }
        [0x89, b'H', b'D', b'F', ..] => "it is an HDF5 file (Keras), which is not read",
        [b'<', b'!' | b'h' | b'H', ..] => "it is a web page: fetch the file again",
        _ => "is it a safetensors file? fetch it again",
    }
}

/// Writes tensors and metadata to `path`, whole or not at all. The same tensors and metadata give the same bytes, in
/// whatever order they come.
///
/// # Errors
/// [`WeightsError::Shape`], [`WeightsError::Duplicate`] and [`WeightsError::Name`] before anything is written;
/// [`WeightsError::Write`] from the system.
pub fn write(
    path: &Path,
    tensors: &[(&str, &Shape, Elements<'_>)],
    metadata: &BTreeMap<String, String>,
) -> Result<(), WeightsError> {
    let file = path.display().to_string();
    let (header, order) = header(&file, tensors, metadata)?;
    Ok(write_atomic(path, |out| {
        out.write_all(&header)?;
        order.iter().try_for_each(|&i| out.write_all(tensors[i].2.bytes()))
    })?)
}

/// The bytes that [`write()`] would put into a file; `name` is what errors call it.
///
/// # Errors
/// As [`write()`], without the system's.
pub fn to_vec(
    name: &str,
    tensors: &[(&str, &Shape, Elements<'_>)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, WeightsError> {
    let (mut bytes, order) = header(name, tensors, metadata)?;
    for i in order {
        bytes.extend_from_slice(tensors[i].2.bytes());
    }
    Ok(bytes)
}

/// Length, padded JSON, and the order in which the tensors' bytes follow.
fn header(
    file: &str,
    tensors: &[(&str, &Shape, Elements<'_>)],
    metadata: &BTreeMap<String, String>,
) -> Result<(Vec<u8>, Vec<usize>), WeightsError> {
    let mut names = BTreeSet::new();
    for (name, shape, data) in tensors {
        if *name == "__metadata__" {
            return Err(WeightsError::Name { file: file.to_owned(), tensor: (*name).to_owned() });
        }
        if !names.insert(*name) {
            return Err(WeightsError::Duplicate { file: file.to_owned(), tensor: (*name).to_owned() });
        }
        if shape.checked_len() != Some(data.len()) {
            return Err(WeightsError::Shape {
                tensor: (*name).to_owned(),
                file: file.to_owned(),
                expected: (*shape).clone(),
                got: [data.len()].into(),
            });
        }
    }
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    // Widest alignment first, so that every tensor is aligned without gaps, which the format forbids.
    order.sort_by_key(|&i| (std::cmp::Reverse(tensors[i].2.dtype().1), tensors[i].0));
    let mut json = serde_json::Map::new(); // keeps the order of insertion
    if !metadata.is_empty() {
        let sorted = metadata.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
        json.insert("__metadata__".to_owned(), serde_json::Value::Object(sorted));
    }
    let mut offset = 0;
    for &i in &order {
        let (name, shape, data) = &tensors[i];
        let end = offset + data.bytes().len();
        let info = serde_json::json!({
            "dtype": data.dtype().0, "shape": shape.dims(), "data_offsets": [offset, end]
        });
        json.insert((*name).to_owned(), info);
        offset = end;
    }
    let mut text = serde_json::Value::Object(json).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    Ok((bytes, order))
}
