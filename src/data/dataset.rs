//! Labelled images of one shape, [`Dataset`]: bytes in memory, or files that are decoded when they are asked for. Called by
//! training, sweeps and the command line.

use std::borrow::Cow;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::DataError;
use super::augment::{Augment, seen};
use super::files::{Files, Marked, Part, Record};
use super::findings::Findings;
use super::image::{Channels, Image};
use crate::digest::hex;
use crate::tensor::Shape;

/// What [`Dataset::labels`] has where an image has no class: none was given, or a chest X-ray has no finding. No class has
/// that number, so whatever needs one refuses it. [`Dataset::label`] says it as `None`.
pub const NO_LABEL: u32 = u32::MAX;

/// What the images of a set are labelled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels<'a> {
    /// One class each; [`NO_LABEL`] where there is none.
    Classes(&'a [u32]),
    /// Any of the fourteen findings each.
    Findings(&'a [Findings]),
}

/// Where the pixels are.
#[derive(Clone, Debug)]
enum Source {
    /// Here: N x C x H x W.
    Bytes(Vec<u8>),
    /// In these rows of a set of files.
    Files { files: Arc<Files>, rows: Vec<u32> },
}

/// Two sets are equal when they hold the same bytes, or the same rows of one set of files.
impl PartialEq for Source {
    fn eq(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::Bytes(a), Source::Bytes(b)) => a == b,
            (Source::Files { files: a, rows }, Source::Files { files: b, rows: others }) => {
                Arc::ptr_eq(a, b) && rows == others
            }
            _ => false,
        }
    }
}

impl Eq for Source {}

/// Labelled images of one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    source: Source,
    labels: Vec<u32>,
    /// One an image, or none at all.
    findings: Vec<Findings>,
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
        Ok(Dataset { source: Source::Bytes(images), labels, findings: Vec::new(), ids, shape, classes })
    }

    /// A data set of files, with the names of its classes (or findings).
    pub fn of_files(files: Files, classes: Vec<String>) -> Dataset {
        let records = || (0..files.len() as u32).filter_map(|row| files.record(row));
        let first = |record: &Record| record.findings.and_then(|f| f.iter().next()).map(|f| f as u32);
        let labels = records().map(|r| r.class.or_else(|| first(r)).unwrap_or(NO_LABEL)).collect();
        let findings: Vec<Findings> = records().filter_map(|r| r.findings).collect();
        let findings = if findings.len() == files.len() { findings } else { Vec::new() };
        let ids = records().map(Record::id).collect();
        let (shape, rows) = (files.transform().shape(), (0..files.len() as u32).collect());
        Dataset { source: Source::Files { files: Arc::new(files), rows }, labels, findings, ids, shape, classes }
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

    /// The labels, one an image: its class, or of findings the first in CheXNet's order; [`NO_LABEL`] where there is none.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The label of image `i`; none where it has none, or does not exist.
    pub fn label(&self, i: usize) -> Option<u32> {
        self.labels.get(i).copied().filter(|&label| label != NO_LABEL)
    }

    /// The labels of `which`, for what cannot do without.
    ///
    /// # Errors
    /// [`DataError::Unlabelled`] names the first image without one, and `what` needs it.
    pub fn labels_of(&self, which: &[u32], what: &'static str) -> Result<Vec<u32>, DataError> {
        self.check(which)?;
        let label =
            |&i: &u32| self.label(i as usize).ok_or_else(|| DataError::Unlabelled { image: self.name(i), what });
        which.iter().map(label).collect()
    }

    /// Rows of `count` findings, 1 or 0 each, for what cannot do without.
    ///
    /// # Errors
    /// [`DataError::Unlabelled`] where the set has classes and no findings, or another number of them.
    pub fn findings_of(&self, which: &[u32], count: usize, what: &'static str) -> Result<Vec<f32>, DataError> {
        self.check(which)?;
        let mut rows = Vec::with_capacity(which.len() * count);
        for &i in which {
            match self.findings.get(i as usize).map(|f| f.targets()) {
                Some(targets) if targets.len() == count => rows.extend(targets),
                _ => return Err(DataError::Unlabelled { image: self.name(i), what }),
            }
        }
        Ok(rows)
    }

    /// The same images without labels: those they had are numbers of other classes.
    pub fn without_labels(self) -> Dataset {
        let labels = vec![NO_LABEL; self.labels.len()];
        Dataset { labels, findings: Vec::new(), classes: Vec::new(), ..self }
    }

    /// The same images labelled with groups of their classes: class `c` becomes `group[c]`, called `names[group[c]]`.
    ///
    /// # Errors
    /// [`DataError::Parts`] when there is not a group for each class, or one without a name.
    pub fn grouped(self, group: &[u32], names: Vec<String>) -> Result<Dataset, DataError> {
        let last = group.iter().copied().max().unwrap_or(0);
        if group.len() != self.classes.len() || (!group.is_empty() && last as usize >= names.len()) {
            let (want, got, labels) = (self.classes.len(), group.len(), self.labels.len());
            let (shape, classes) = (self.shape, names.len());
            return Err(DataError::Parts { want, got, labels, ids: labels, label_max: last, classes, shape });
        }
        let labels = self.labels.iter().map(|&l| group.get(l as usize).copied().unwrap_or(NO_LABEL)).collect();
        Ok(Dataset { labels, classes: names, ..self })
    }

    /// All that the images are labelled with.
    pub fn targets(&self) -> Labels<'_> {
        if self.findings.is_empty() { Labels::Classes(&self.labels) } else { Labels::Findings(&self.findings) }
    }

    /// The number of each image: its place in the file it was read from, or FNV-1a-64 of its path. Random streams are keyed
    /// by it, so that a subset gets the masks and starts that the whole set would.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// What is known of the file of image `i`; none for a set in memory.
    pub fn record(&self, i: usize) -> Option<&Record> {
        match &self.source {
            Source::Bytes(_) => None,
            Source::Files { files, rows } => rows.get(i).and_then(|&row| files.record(row)),
        }
    }

    /// Path of image `i` below the set's directory.
    pub fn path(&self, i: usize) -> Option<&str> {
        self.record(i).map(|r| &*r.path)
    }

    /// Whose image `i` is.
    pub fn patient(&self, i: usize) -> Option<&str> {
        self.record(i).and_then(|r| r.patient.as_deref())
    }

    /// The part that image `i` was put into.
    pub fn part(&self, i: usize) -> Option<Part> {
        self.record(i).and_then(|r| r.part)
    }

    /// Positions of the images in `part`.
    pub fn of_part(&self, part: Part) -> Vec<u32> {
        (0..self.len() as u32).filter(|&i| self.part(i as usize) == Some(part)).collect()
    }

    /// The marked places of image `i`, in pixels of what the network sees.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn placed(&self, i: usize) -> Result<Vec<Marked>, DataError> {
        match &self.source {
            Source::Files { files, rows } => rows.get(i).map_or(Ok(Vec::new()), |&row| files.placed(row)),
            Source::Bytes(_) => Ok(Vec::new()),
        }
    }

    /// What to call image `i` in a message.
    fn name(&self, i: u32) -> String {
        self.path(i as usize).map_or_else(|| format!("image {i}"), str::to_owned)
    }

    fn check(&self, which: &[u32]) -> Result<(), DataError> {
        match which.iter().find(|&&i| i as usize >= self.len()) {
            Some(&index) => Err(DataError::Index { index, len: self.len() }),
            None => Ok(()),
        }
    }

    /// The bytes of image `i`, C x H x W.
    ///
    /// # Errors
    /// [`DataError::Index`], or what is wrong with its file.
    pub fn image(&self, i: usize) -> Result<Cow<'_, [u8]>, DataError> {
        let size = self.shape.len();
        let missing = || DataError::Index { index: i.try_into().unwrap_or(u32::MAX), len: self.len() };
        match &self.source {
            Source::Bytes(images) => {
                let bytes = (i < self.len()).then(|| &images[i * size..(i + 1) * size]);
                bytes.map(Cow::Borrowed).ok_or_else(missing)
            }
            Source::Files { files, rows } => {
                let row = *rows.get(i).ok_or_else(missing)?;
                let mut bytes = Vec::new();
                files.take(&[row], None, |_, image| bytes = image.to_vec())?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Says which images will be asked for, in order, so that files are decoded meanwhile. Replaces what was announced
    /// before; of images in memory nothing needs to be known. Asking for others is allowed, and slower.
    pub fn announce(&self, which: &[u32]) {
        self.announce_seen(which, None);
    }

    /// As [`Dataset::announce`], of [`Dataset::augmented`].
    pub fn announce_augmented(&self, which: &[u32], augment: Augment) {
        self.announce_seen(which, Some(augment));
    }

    fn announce_seen(&self, which: &[u32], augment: Option<Augment>) {
        if let Source::Files { files, rows } = &self.source {
            files.announce(which.iter().filter_map(|&i| rows.get(i as usize).copied()), augment);
        }
    }

    /// The pixels of images `which` in \[0, 1\]: rows of (C, H, W). Byte / 255 in f32, to the bit what PyTorch's `ToTensor`
    /// gives; normalisation is part of the model.
    ///
    /// # Errors
    /// [`DataError::Index`], or what is wrong with a file.
    pub fn pixels(&self, which: &[u32]) -> Result<Vec<f32>, DataError> {
        self.floats(which, None)
    }

    /// The same as training sees them in an epoch: a random part at the whole size, perhaps mirrored.
    ///
    /// # Errors
    /// As [`Dataset::pixels`].
    pub fn augmented(&self, which: &[u32], augment: Augment) -> Result<Vec<f32>, DataError> {
        self.floats(which, Some(augment))
    }

    fn floats(&self, which: &[u32], augment: Option<Augment>) -> Result<Vec<f32>, DataError> {
        self.check(which)?;
        let row = self.shape.len();
        let mut pixels = vec![0.0; which.len() * row];
        let mut write = |i: usize, bytes: &[u8]| {
            for (o, &byte) in pixels[i * row..(i + 1) * row].iter_mut().zip(bytes) {
                *o = f32::from(byte) / 255.0;
            }
        };
        match &self.source {
            Source::Bytes(images) => {
                for (i, &at) in which.iter().enumerate() {
                    let bytes = &images[at as usize * row..(at as usize + 1) * row];
                    match augment {
                        None => write(i, bytes),
                        Some(augment) => write(i, &self.seen(bytes, self.ids[at as usize], augment)),
                    }
                }
            }
            Source::Files { files, rows } => {
                let rows: Vec<u32> = which.iter().map(|&i| rows[i as usize]).collect();
                files.take(&rows, augment, write)?;
            }
        }
        Ok(pixels)
    }

    /// An image in memory as an epoch of training sees it; one plane after the other, for its channels may be any number.
    fn seen(&self, bytes: &[u8], id: u64, augment: Augment) -> Vec<u8> {
        let [.., height, width] = self.shape.dims() else { return bytes.to_vec() };
        let (height, width) = (*height, *width);
        let view = augment.view(id, [width, height]);
        let planes = bytes.chunks_exact((height * width).max(1));
        planes
            .flat_map(|plane| {
                let image = Image { width, height, channels: Channels::Grey, pixels: plane.to_vec() };
                seen(&image, view, [width, height]).pixels
            })
            .collect()
    }

    /// SHA-256 (hex) of what the images are, for manifests. In memory: N, C, H, W as u64 little-endian, the pixels, the
    /// labels as u32 little-endian; class names and image numbers are not part of it. Of files: see [`Files::hash`].
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn hash(&self) -> Result<String, DataError> {
        let images = match &self.source {
            Source::Bytes(images) => images,
            Source::Files { files, rows } => return Ok(hex(&files.hash(rows)?)),
        };
        let mut sha = Sha256::new();
        for &dim in self.shape.with_rows(self.len()).dims() {
            sha.update((dim as u64).to_le_bytes());
        }
        sha.update(images);
        for label in &self.labels {
            sha.update(label.to_le_bytes());
        }
        Ok(hex(&sha.finalize()))
    }

    /// The images at `indices`, in that order, with their labels and numbers. Files are shared, not copied.
    ///
    /// # Errors
    /// [`DataError::Index`] for an index beyond the data set.
    pub fn subset(&self, indices: &[u32]) -> Result<Dataset, DataError> {
        self.check(indices)?;
        let size = self.shape.len();
        let source = match &self.source {
            Source::Bytes(images) => {
                let mut some = Vec::with_capacity(indices.len() * size);
                for &i in indices {
                    some.extend_from_slice(&images[i as usize * size..(i as usize + 1) * size]);
                }
                Source::Bytes(some)
            }
            Source::Files { files, rows } => {
                Source::Files { files: files.clone(), rows: indices.iter().map(|&i| rows[i as usize]).collect() }
            }
        };
        Ok(Dataset {
            source,
            labels: indices.iter().map(|&i| self.labels[i as usize]).collect(),
            findings: indices.iter().filter_map(|&i| self.findings.get(i as usize).copied()).collect(),
            ids: indices.iter().map(|&i| self.ids[i as usize]).collect(),
            shape: self.shape.clone(),
            classes: self.classes.clone(),
        })
    }
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
        let out = set.pixels(&[0]).unwrap();
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
        assert_eq!((sub.image(0).unwrap(), sub.image(1).unwrap()), (set.image(2).unwrap(), set.image(0).unwrap()));
        assert_eq!(sub.subset(&[1]).unwrap().ids(), [0]);
        assert!(set.subset(&[]).unwrap().is_empty());
        assert!(matches!(set.subset(&[0, 3]), Err(DataError::Index { index: 3, len: 3 })));
        assert!(matches!(set.pixels(&[3]), Err(DataError::Index { index: 3, len: 3 })));
        assert!(set.image(3).is_err() && set.label(3).is_none() && set.path(0).is_none());
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
        let hash_of = |set: &Dataset| set.hash().unwrap();
        let hash = hash_of(&set);
        assert_eq!(hash.len(), 64);
        assert_eq!(hash_of(&set.subset(&[0, 1, 2]).unwrap()), hash);
        let renamed = Dataset { classes: vec!["x".into(), "y".into()], ..set.clone() };
        assert_eq!(hash_of(&renamed), hash);
        let reshaped = Dataset { shape: [1, 4, 1].into(), ..set.clone() };
        let mut bytes: Vec<u8> = (0..12).map(|i| i * 20).collect();
        bytes[3] ^= 1;
        let pixel = Dataset { source: Source::Bytes(bytes), ..set.clone() };
        let relabelled = Dataset { labels: vec![1, 1, 1], ..set.clone() };
        let others = [reshaped, pixel, relabelled, set.subset(&[0]).unwrap()];
        let mut seen: Vec<String> = others.iter().map(hash_of).chain([hash]).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn images_in_memory_can_be_seen_as_training_sees_them() {
        let set = three();
        let augment = Augment { seed: 0, epoch: 1 };
        let seen = set.augmented(&[2, 1], augment).unwrap();
        assert_eq!(seen.len(), 8);
        // by its number, not by where it stands
        assert_eq!(set.subset(&[2]).unwrap().augmented(&[0], augment).unwrap(), seen[..4]);
        assert!(set.augmented(&[3], augment).is_err());
    }
}
