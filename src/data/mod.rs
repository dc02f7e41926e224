//! Labelled images in memory: [`Dataset`] (u8 pixels, N x C x H x W), the fixed validation split, the training order,
//! and the error type of everything that reads data. Called by training, sweeps and the command line; the readers are
//! in [`idx`] (IDX files) and [`fetch`] (finding and downloading Fashion-MNIST).

pub mod augment;
pub mod decode;
mod error;
pub mod fetch;
pub mod idx;
pub mod image;
pub mod jpeg;
pub mod resize;
pub mod transform;

pub use error::DataError;

use sha2::{Digest, Sha256};

use crate::digest::hex;
use crate::random::Stream;
use crate::tensor::Shape;

/// Labelled images of one shape, with one label each, held as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    images: Vec<u8>,
    labels: Vec<u32>,
    ids: Vec<u64>,
    shape: Shape,
    classes: Vec<String>,
}

impl Dataset {
    /// A data set from its parts: `images` N x C x H x W bytes, `labels` N, `shape` C x H x W, one name a class.
    /// Image `i` gets the number `i`.
    ///
    /// # Errors
    /// [`DataError::Parts`] when the numbers do not fit or a label has no class.
    pub fn new(
        images: Vec<u8>,
        labels: Vec<u32>,
        shape: impl Into<Shape>,
        classes: Vec<String>,
    ) -> Result<Self, DataError> {
        let shape = shape.into();
        let want = shape.with_rows(labels.len()).len();
        let label_max = labels.iter().copied().max().unwrap_or(0);
        if want != images.len() || (!labels.is_empty() && label_max as usize >= classes.len()) {
            return Err(DataError::Parts {
                want,
                got: images.len(),
                labels: labels.len(),
                ids: labels.len(),
                label_max,
                classes: classes.len(),
                shape,
            });
        }
        let ids = (0..labels.len() as u64).collect();
        Ok(Dataset { images, labels, ids, shape, classes })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True when there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Shape of one image: C x H x W.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Names of the classes; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The labels, one an image.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The number of each image in the data set it was first read from: what random streams are keyed by, so that a
    /// subset gets the masks and starts that the whole set would.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// The bytes of image `i`, C x H x W.
    ///
    /// # Panics
    /// When `i >= self.len()`.
    pub fn image(&self, i: usize) -> &[u8] {
        let size = self.shape.len();
        &self.images[i * size..(i + 1) * size]
    }

    /// Writes image `i` as floats in [0, 1] into `out` (C x H x W elements): byte / 255 in f32, to the bit what
    /// PyTorch's `ToTensor` gives. Normalisation is part of the model.
    ///
    /// # Panics
    /// When `i >= self.len()` or `out` has another length than one image.
    pub fn image_f32(&self, i: usize, out: &mut [f32]) {
        let image = self.image(i);
        assert_eq!(out.len(), image.len(), "room for one image of shape {}", self.shape);
        for (o, &byte) in out.iter_mut().zip(image) {
            *o = f32::from(byte) / 255.0;
        }
    }

    /// The pixels of images `which` in \[0, 1\]: rows of (C, H, W).
    ///
    /// # Panics
    /// As [`Dataset::image`], when a number is not below [`Dataset::len`].
    pub fn pixels(&self, which: &[u32]) -> Vec<f32> {
        let row = self.shape.len();
        let mut pixels = vec![0.0; which.len() * row];
        for (out, &i) in pixels.chunks_exact_mut(row.max(1)).zip(which) {
            self.image_f32(i as usize, out);
        }
        pixels
    }

    /// SHA-256 (hex) of what the images are: N, C, H, W as u64 little-endian, the pixels, the labels as u32
    /// little-endian. For manifests; class names and image numbers are not part of it.
    pub fn hash(&self) -> String {
        let mut sha = Sha256::new();
        for &dim in self.shape.with_rows(self.len()).dims() {
            sha.update((dim as u64).to_le_bytes());
        }
        sha.update(&self.images);
        for label in &self.labels {
            sha.update(label.to_le_bytes());
        }
        hex(&sha.finalize())
    }

    /// The images at `indices`, in that order, with their labels and numbers.
    ///
    /// # Errors
    /// [`DataError::Index`] for an index beyond the data set.
    pub fn subset(&self, indices: &[u32]) -> Result<Dataset, DataError> {
        if let Some(&index) = indices.iter().find(|&&i| i as usize >= self.len()) {
            return Err(DataError::Index { index, len: self.len() });
        }
        let mut images = Vec::with_capacity(indices.len() * self.shape.len());
        for &i in indices {
            images.extend_from_slice(self.image(i as usize));
        }
        Ok(Dataset {
            images,
            labels: indices.iter().map(|&i| self.labels[i as usize]).collect(),
            ids: indices.iter().map(|&i| self.ids[i as usize]).collect(),
            shape: self.shape.clone(),
            classes: self.classes.clone(),
        })
    }
}

/// A training set cut in two; both lists ascend and together hold every index once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Indices to train on.
    pub train: Vec<u32>,
    /// Indices to validate on.
    pub validation: Vec<u32>,
}

/// Images of Fashion-MNIST's training file.
pub const FASHION_TRAIN: u32 = 60_000;
/// How many of them are the validation set.
pub const FASHION_VALIDATION: u32 = 5_000;

impl Split {
    /// The first `validation` positions of a permutation of `0..n` (stream `name`, seed 0) against the rest. The seed
    /// is fixed, not the run's: results of different seeds must be validated on the same images.
    pub fn new(name: &str, n: u32, validation: u32) -> Split {
        let mut validation_list = Stream::new(0, name).permutation(0, n);
        let mut train = validation_list.split_off(validation.min(n) as usize);
        validation_list.sort_unstable();
        train.sort_unstable();
        Split { train, validation: validation_list }
    }

    /// Fashion-MNIST's: 55,000 to train on, 5,000 to validate on.
    pub fn fashion() -> Split {
        Split::new("fashion/validation", FASHION_TRAIN, FASHION_VALIDATION)
    }
}

/// The order in which epoch `epoch` of a training run with `seed` visits `n` images.
pub fn epoch_order(seed: u64, epoch: u64, n: u32) -> Vec<u32> {
    Stream::new(seed, "order").permutation(epoch, n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Dataset {
        let classes = vec!["a".to_owned(), "b".to_owned()];
        Dataset::new((0..12).map(|i| i * 20).collect(), vec![1, 0, 1], [1, 2, 2], classes).unwrap()
    }

    #[test]
    fn every_byte_becomes_byte_over_255_in_f32() {
        let set = Dataset::new((0..=255).collect(), vec![0], [1, 16, 16], vec!["a".into()]).unwrap();
        let mut out = [0.0; 256];
        set.image_f32(0, &mut out);
        for (byte, &value) in out.iter().enumerate() {
            assert_eq!(value.to_bits(), (byte as f32 / 255.0).to_bits());
        }
        // torch.tensor([1, 7, 128, 254], dtype=torch.uint8).float().div(255) to the last digit
        for (byte, value) in [(1, 0.003921569), (7, 0.02745098), (128, 0.5019608), (254, 0.99607843_f32)] {
            assert_eq!(out[byte], value);
        }
    }

    #[test]
    fn a_subset_keeps_order_labels_and_image_numbers() {
        let set = three();
        let sub = set.subset(&[2, 0, 2]).unwrap();
        assert_eq!((sub.len(), sub.labels(), sub.ids()), (3, &[1, 1, 1][..], &[2, 0, 2][..]));
        assert_eq!((sub.image(0), sub.image(1)), (set.image(2), set.image(0)));
        assert_eq!(sub.subset(&[1]).unwrap().ids(), [0]);
        assert!(set.subset(&[]).unwrap().is_empty());
        assert!(matches!(set.subset(&[0, 3]), Err(DataError::Index { index: 3, len: 3 })));
    }

    #[test]
    fn parts_that_do_not_fit_are_refused_with_their_numbers() {
        let classes = || vec!["a".to_owned()];
        let short = Dataset::new(vec![0; 7], vec![0, 0], [1, 2, 2], classes()).unwrap_err();
        assert!(matches!(short, DataError::Parts { want: 8, got: 7, .. }), "{short}");
        let label = Dataset::new(vec![0; 8], vec![0, 1], [1, 2, 2], classes()).unwrap_err();
        assert!(matches!(label, DataError::Parts { label_max: 1, classes: 1, .. }), "{label}");
        let huge = Dataset::new(vec![0; 8], vec![0, 1], [usize::MAX, 2, 2], classes());
        assert!(huge.is_err());
        assert!(Dataset::new(vec![], vec![], [1, 2, 2], vec![]).unwrap().is_empty());
    }

    #[test]
    fn the_hash_sees_pixels_labels_and_shape_and_nothing_else() {
        let set = three();
        let hash = set.hash();
        assert_eq!(hash.len(), 64);
        assert_eq!(set.subset(&[0, 1, 2]).unwrap().hash(), hash);
        let renamed = Dataset { classes: vec!["x".into(), "y".into()], ..set.clone() };
        assert_eq!(renamed.hash(), hash);
        let reshaped = Dataset { shape: [1, 4, 1].into(), ..set.clone() };
        let mut pixel = set.clone();
        pixel.images[3] ^= 1;
        let relabelled = Dataset { labels: vec![1, 1, 1], ..set.clone() };
        let mut seen = vec![hash, reshaped.hash(), pixel.hash(), relabelled.hash(), set.subset(&[0]).unwrap().hash()];
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn fashions_split_is_fixed_disjoint_sorted_and_complete() {
        let split = Split::fashion();
        assert_eq!((split.train.len(), split.validation.len()), (55_000, 5_000));
        assert!(split.train.is_sorted() && split.validation.is_sorted());
        let mut all = [split.train.clone(), split.validation.clone()].concat();
        all.sort_unstable();
        assert!(all.iter().enumerate().all(|(i, &v)| i == v as usize));
        assert_eq!(split, Split::fashion());
        let first = &Stream::new(0, "fashion/validation").permutation(0, 60_000)[..5000];
        assert!(first.iter().all(|i| split.validation.binary_search(i).is_ok()));
        assert!(Split::new("tiny", 3, 5).train.is_empty());
    }

    #[test]
    fn the_training_order_changes_with_seed_and_epoch_only() {
        let order = epoch_order(0, 0, 100);
        assert_eq!(order, epoch_order(0, 0, 100));
        assert_ne!(order, epoch_order(0, 1, 100));
        assert_ne!(order, epoch_order(1, 0, 100));
    }
}
