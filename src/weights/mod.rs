//! Trained parameters: [`Weights`], an ordered map from torchvision's names to f32 tensors, owned or still in a mapped
//! file, with hash, checks and key repairs. Called by models (build and judge), training (save) and the command line.
//! [`Source`] opens a file of any format; our own is in [`safetensors`], the names' business in [`names`].

mod bytes;
pub mod derived;
mod error;
mod format;
mod layers;
pub mod names;
mod onnx;
mod pickle;
mod protobuf;
pub mod safetensors;
pub mod signature;
mod state;
mod torch;

pub use self::error::WeightsError;
pub use self::format::{Format, Part, Source};
pub use self::onnx::OnnxFile;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use self::bytes::{Bytes, Float};
use self::names::Repair;
use self::safetensors::Elements;
use crate::digest::hex;
use crate::tensor::{Shape, Tensor};
use crate::text::nearest;

/// What becomes of a prefix when the tensors that have it are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixIs {
    /// `ae.enc1.weight` stays so.
    Kept,
    /// `weights.features.0.bias` becomes `features.0.bias`.
    Stripped,
}

/// Whether an autoencoder's file says which network it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// It names the network given.
    Matches,
    /// It names none: worth a line in the log.
    NotRecorded,
}

#[derive(Clone, Debug)]
enum Storage {
    /// Shared, so that a copy of weights costs nothing.
    Owned(Arc<Vec<f32>>),
    /// Aligned for f32, checked by the reader.
    Mapped { bytes: Arc<Bytes>, range: Range<usize> },
}

#[derive(Clone, Debug)]
struct Entry {
    shape: Shape,
    storage: Storage,
}

impl Entry {
    fn data(&self) -> &[f32] {
        self.storage.floats()
    }
}

impl Storage {
    fn floats(&self) -> &[f32] {
        match self {
            Storage::Owned(data) => data,
            Storage::Mapped { bytes, range } => bytemuck::cast_slice(&bytes[range.clone()]),
        }
    }

    fn release(&self) {
        if let Storage::Mapped { bytes, range } = self {
            bytes.release(range.clone());
        }
    }
}

/// A tensor's elements, held beside the weights that they are of: a device reads them where they lie. A file that they lie in
/// must not be shortened while they are held.
#[derive(Clone, Debug)]
pub struct Held(Storage);

impl Held {
    /// As [`Weights::release`].
    pub fn release(&self) {
        self.0.release();
    }
}

impl std::ops::Deref for Held {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.0.floats()
    }
}

/// A borrowed f32 tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorView<'a> {
    /// Its shape.
    pub shape: &'a Shape,
    /// Its elements, row-major.
    pub data: &'a [f32],
}

/// f32 tensors by name, in order of the names, and the metadata that came with them.
#[derive(Clone, Debug)]
pub struct Weights {
    file: String,
    tensors: BTreeMap<String, Entry>,
    /// `arch`, `classes`, `host_sha256` and so on; all strings.
    pub metadata: BTreeMap<String, String>,
    /// What the reader of a foreign format did, a line each, for the log.
    pub notes: Vec<String>,
}

impl Weights {
    /// No tensors yet; `file` is what errors call them.
    pub fn new(file: &str) -> Self {
        Weights { file: file.to_owned(), tensors: BTreeMap::new(), metadata: BTreeMap::new(), notes: Vec::new() }
    }

    /// These tensors; `file` is what errors call them.
    pub fn of(file: &str, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        let mut weights = Weights::new(file);
        tensors.into_iter().for_each(|(name, tensor)| weights.insert(name, tensor));
        weights
    }

    /// All float tensors of a file of any format that is read (see [`Source`]), under the names that it has for them;
    /// memory-mapped where the format allows. A safetensors file that holds more than parameters (labels, other
    /// networks) is read with [`safetensors::TensorFile::weights`].
    ///
    /// # Errors
    /// As [`Source::open`] and [`Source::weights`].
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        Source::open(path)?.weights()
    }

    /// The tensors of the network whose parameters, in layer order, are `expected`, from a file of any format that is
    /// read: names repaired, all of them there and of the right shape. What was done is in [`Weights::notes`].
    ///
    /// # Errors
    /// As [`Source::open`] and [`Source::fit`].
    pub fn open_as(path: &Path, expected: &[(String, Shape)], part: Part) -> Result<Self, WeightsError> {
        Source::open(path)?.fit(expected, part)
    }

    /// Gives the memory of a tensor that lies in a mapped file back to the system, after it was packed for a device; it
    /// is read from the file again when somebody looks. Tensors in memory of their own stay.
    pub fn release(&self, name: &str) {
        if let Some(entry) = self.tensors.get(name) {
            entry.storage.release();
        }
    }

    /// The elements of a tensor, held without a copy.
    pub fn hold(&self, name: &str) -> Option<Held> {
        self.tensors.get(name).map(|entry| Held(entry.storage.clone()))
    }

    /// Saves tensors and metadata as safetensors, whole or not at all; the same content gives the same bytes.
    ///
    /// # Errors
    /// [`WeightsError::Write`].
    pub fn save(&self, path: &Path) -> Result<(), WeightsError> {
        let tensors: Vec<_> = self.iter().map(|(name, t)| (name, t.shape, Elements::from(t.data))).collect();
        safetensors::write(path, &tensors, &self.metadata)
    }

    /// What errors call these weights: the file's path.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Number of parameters in all tensors.
    pub fn parameters(&self) -> usize {
        self.tensors.values().map(|e| e.shape.len()).sum()
    }

    /// The tensor `name`.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.get(name).map(|e| TensorView { shape: &e.shape, data: e.data() })
    }

    /// The tensor `name`, or an error with the nearest name there is.
    ///
    /// # Errors
    /// [`WeightsError::Missing`].
    pub fn require(&self, name: &str) -> Result<TensorView<'_>, WeightsError> {
        self.get(name).ok_or_else(|| WeightsError::Missing {
            tensor: name.to_owned(),
            file: self.file.clone(),
            nearest: nearest(name, self.names()).map(str::to_owned),
        })
    }

    /// Names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Tensors by name, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.tensors.iter().map(|(name, e)| (name.as_str(), TensorView { shape: &e.shape, data: e.data() }))
    }

    /// Puts a tensor in, in place of one of the same name.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        let shape = tensor.shape().clone();
        self.tensors.insert(name.into(), Entry { shape, storage: Storage::Owned(tensor.into_data().into()) });
    }

    /// Notes what a reader made of tensors that are not f32.
    fn note_conversions(&mut self, converted: &BTreeMap<Float, usize>, skipped: &[String]) {
        for (float, count) in converted {
            self.notes.push(format!("{count} tensors of {} are read as f32", float.name()));
        }
        if !skipped.is_empty() {
            self.notes.push(format!("not read, as they are whole numbers: {}", some_of(skipped)));
        }
    }

    /// Puts all tensors of `other` in, in place of those of the same names.
    pub fn absorb(&mut self, other: Weights) {
        self.tensors.extend(other.tensors);
    }

    /// Takes out all tensors whose names begin with `prefix`; what stays is the other consumers'. Metadata is copied.
    pub fn take_prefix(&mut self, prefix: &str, prefix_is: PrefixIs) -> Weights {
        let mut taken = Weights::new(&self.file);
        taken.metadata = self.metadata.clone();
        let (ours, rest) =
            std::mem::take(&mut self.tensors).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.tensors = rest;
        let ours: BTreeMap<String, Entry> = ours;
        taken.tensors = match prefix_is {
            PrefixIs::Kept => ours,
            PrefixIs::Stripped => ours.into_iter().map(|(name, e)| (name[prefix.len()..].to_owned(), e)).collect(),
        };
        taken
    }

    /// Renames tensors to the names that `expected` uses, where a known difference explains them ([`names::repair`]);
    /// returns what was done, for the log.
    ///
    /// # Errors
    /// [`WeightsError::Duplicate`] when two tensors would get one name; nothing is renamed then.
    pub fn repair(&mut self, expected: &[(String, Shape)]) -> Result<Vec<Repair>, WeightsError> {
        let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let repairs = names::repair(&self.file, self.names(), &|name| known.contains(name))?;
        // All out before any goes in: one repair's target may be another's source.
        let moved: Vec<_> = repairs.iter().filter_map(|r| Some((&r.to, self.tensors.remove(&r.from)?))).collect();
        for (to, entry) in moved {
            self.tensors.insert(to.clone(), entry);
        }
        Ok(repairs)
    }

    /// SHA-256 (hex) over the tensors sorted by name: name bytes, dimensions as u64 little-endian, elements as f32
    /// little-endian. Neither metadata nor the order in a file are part of it.
    pub fn hash(&self) -> String {
        let mut sha = Sha256::new();
        for (name, tensor) in self.iter() {
            sha.update(name.as_bytes());
            for &dim in tensor.shape.dims() {
                sha.update((dim as u64).to_le_bytes());
            }
            sha.update(bytemuck::cast_slice::<f32, u8>(tensor.data)); // little-endian hosts only, see `safetensors`
        }
        hex(&sha.finalize())
    }

    /// The first 8 digits of [`Weights::hash`], as node names carry them.
    pub fn hash8(&self) -> String {
        let mut hash = self.hash();
        hash.truncate(8);
        hash
    }

    /// Compares names and shapes with those a network needs. Batch-norm's counters (`num_batches_tracked`) are not
    /// looked at.
    ///
    /// # Errors
    /// The one [`WeightsError::Missing`], [`WeightsError::Shape`] or [`WeightsError::Unexpected`] there is, or
    /// [`WeightsError::Several`] with all of them. The first 16 of a kind carry the nearest name.
    pub fn check(&self, expected: &[(String, Shape)]) -> Result<(), WeightsError> {
        // 16 x 10,000 comparisons of names of 60 characters take half a second at most; a hostile file can hold millions.
        const NAMED: usize = 16;
        const COMPARED: usize = 10_000;
        let known: BTreeMap<&str, &Shape> = expected.iter().map(|(name, shape)| (name.as_str(), shape)).collect();
        let missing: Vec<&str> = known.keys().copied().filter(|name| !self.tensors.contains_key(*name)).collect();
        let unexpected: Vec<&str> =
            self.names().filter(|name| !known.contains_key(name) && !name.ends_with("num_batches_tracked")).collect();
        let file = || self.file.clone();
        // A missing name is most likely one of the unexpected ones, spelt otherwise, and the other way round.
        let suggest = |name: &str, likely: &[&str], other: &mut dyn Iterator<Item = &str>| {
            nearest(name, likely.iter().copied().take(COMPARED))
                .map(str::to_owned)
                .or_else(|| nearest(name, other.take(COMPARED).collect::<Vec<_>>()).map(str::to_owned))
        };
        let mut problems = Vec::new();
        for (i, tensor) in missing.iter().enumerate() {
            let nearest = (i < NAMED).then(|| suggest(tensor, &unexpected, &mut self.names())).flatten();
            problems.push(WeightsError::Missing { tensor: (*tensor).to_owned(), file: file(), nearest });
        }
        for (tensor, shape) in &known {
            if let Some(found) = self.tensors.get(*tensor)
                && found.shape != **shape
            {
                let (expected, got) = ((*shape).clone(), found.shape.clone());
                problems.push(WeightsError::Shape { tensor: (*tensor).to_owned(), file: file(), expected, got });
            }
        }
        for (i, tensor) in unexpected.iter().enumerate() {
            let nearest = (i < NAMED).then(|| suggest(tensor, &missing, &mut known.keys().copied())).flatten();
            problems.push(WeightsError::Unexpected { tensor: (*tensor).to_owned(), file: file(), nearest });
        }
        match (problems.pop(), problems.is_empty()) {
            (None, _) => Ok(()),
            (Some(only), true) => Err(only),
            (Some(last), false) => {
                problems.push(last);
                let shapes = self.tensors.iter().map(|(name, e)| (name.as_str(), &e.shape)).collect();
                let (is, asked) = (signature::of_shapes(&shapes), signature::of_shapes(&known));
                let looks_like = is.filter(|is| asked.as_ref() != Some(is)).map(|is| is.to_string());
                Err(WeightsError::Several { file: file(), looks_like, problems })
            }
        }
    }

    /// Looks for NaN and infinities.
    ///
    /// # Errors
    /// [`WeightsError::NotFinite`] with the first of them.
    pub fn check_finite(&self) -> Result<(), WeightsError> {
        for (name, tensor) in self.iter() {
            if let Some(index) = tensor.data.iter().position(|v| !v.is_finite()) {
                let value = tensor.data[index];
                return Err(WeightsError::NotFinite { tensor: name.to_owned(), file: self.file.clone(), index, value });
            }
        }
        Ok(())
    }

    /// Compares the network these autoencoder weights were trained in (`host_sha256` of the metadata) with the one
    /// given by its [`Weights::hash`].
    ///
    /// # Errors
    /// [`WeightsError::HostMismatch`].
    pub fn check_host(&self, host_hash: &str) -> Result<Host, WeightsError> {
        match self.metadata.get("host_sha256") {
            None => Ok(Host::NotRecorded),
            Some(want) if want.eq_ignore_ascii_case(host_hash) => Ok(Host::Matches),
            Some(want) => Err(WeightsError::HostMismatch {
                file: self.file.clone(),
                want: want.clone(),
                got: host_hash.to_owned(),
            }),
        }
    }
}

/// Six names at most, and how many more there are.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{shown} and {more} more"),
        _ => shown,
    }
}
