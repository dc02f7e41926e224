//! Trained parameters: [`Weights`], an ordered map from torchvision's names to f32 tensors, owned or still in a mapped
//! file, with hash, checks and key repairs. Called by models (build and judge), training (save) and the command line.
//! The container is in [`safetensors`], the names' business in [`names`].

pub mod derived;
pub mod names;
pub mod safetensors;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use self::names::Repair;
use self::safetensors::{Bytes, Elements, TensorFile};
use crate::atomic::WriteError;
use crate::digest::hex;
use crate::tensor::{Shape, Tensor};
use crate::text::nearest;

/// What can be wrong with weights: each names the file, the tensor, the numbers and the next step.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The network needs a tensor that the file lacks.
    #[error("{file}: no tensor {tensor}{}", or_nearest(.nearest))]
    Missing {
        /// Name of the tensor.
        tensor: String,
        /// The file.
        file: String,
        /// The most similar name in the file.
        nearest: Option<String>,
    },
    /// The file holds a tensor that the network does not know.
    #[error("{file}: tensor {tensor} belongs to no layer{}", or_nearest(.nearest))]
    Unexpected {
        /// Name of the tensor.
        tensor: String,
        /// The file.
        file: String,
        /// The most similar name that is missing, else that is known.
        nearest: Option<String>,
    },
    /// A tensor has another shape than its layer.
    #[error(
        "{file}: tensor {tensor} has shape {got}, but {expected} is needed; is it for another architecture or number of classes?"
    )]
    Shape {
        /// Name of the tensor.
        tensor: String,
        /// The file.
        file: String,
        /// What the layer needs.
        expected: Shape,
        /// What the file holds.
        got: Shape,
    },
    /// Several of the three above.
    #[error("{file}: {} tensors do not fit the network:{}", .problems.len(), first_lines(.problems))]
    Several {
        /// The file.
        file: String,
        /// All of them: missing, then misshapen, then unexpected, each by name.
        problems: Vec<WeightsError>,
    },
    /// A parameter is NaN or infinite.
    #[error(
        "{file}: tensor {tensor} is {value} at element {index}; the training that made it went wrong: take an earlier checkpoint"
    )]
    NotFinite {
        /// Name of the tensor.
        tensor: String,
        /// The file.
        file: String,
        /// First such element, row-major from 0.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A tensor has an element type that is not read there.
    #[error("{file}: tensor {tensor} has elements of type {got}, but {want} is needed; {hint}")]
    Dtype {
        /// Name of the tensor.
        tensor: String,
        /// The file.
        file: String,
        /// The file's element type.
        got: String,
        /// What is read.
        want: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// The file ends early.
    #[error("{file}: {what} need {want} bytes, but the file has {got}; it is cut short: fetch or save it again")]
    Truncated {
        /// The file.
        file: String,
        /// Bytes the file should have at least.
        want: u64,
        /// Bytes it has.
        got: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// The header makes no sense.
    #[error("{file}: {reason}; {hint}")]
    Header {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
        /// What the file seems to be instead, and what to do.
        hint: &'static str,
    },
    /// Two tensors have, or would get, the same name.
    #[error("{file}: two tensors are named {tensor}; remove one")]
    Duplicate {
        /// The file.
        file: String,
        /// The name.
        tensor: String,
    },
    /// A name that the format keeps for itself.
    #[error("{file}: no tensor can be named {tensor}, the format keeps that name for itself; rename it")]
    Name {
        /// The file.
        file: String,
        /// The name.
        tensor: String,
    },
    /// An autoencoder was trained in another host network.
    #[error(
        "{file}: this autoencoder was trained in the network with weights {want}, but the network given has {got}; give that network or train an autoencoder for this one"
    )]
    HostMismatch {
        /// File of the autoencoder.
        file: String,
        /// `host_sha256` in its metadata.
        want: String,
        /// Hash of the network given.
        got: String,
    },
    /// The system refused a read.
    #[error("{file}: cannot read it: {reason}")]
    Io {
        /// The file.
        file: String,
        /// The system's own reason.
        reason: std::io::Error,
    },
    /// An output could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn or_nearest(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |n| format!("; the nearest name is {n}"))
}

/// Eight problems, one a line, and how many more there are: a wrong file would fill screens.
fn first_lines(problems: &[WeightsError]) -> String {
    const SHOWN: usize = 8;
    let mut text: String = problems.iter().take(SHOWN).map(|p| format!("\n  {p}")).collect();
    if problems.len() > SHOWN {
        text += &format!("\n  and {} more", problems.len() - SHOWN);
    }
    text
}

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
    Owned(Vec<f32>),
    /// Aligned for f32, checked by the reader.
    Mapped {
        bytes: Arc<Bytes>,
        range: Range<usize>,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    shape: Shape,
    storage: Storage,
}

impl Entry {
    fn data(&self) -> &[f32] {
        match &self.storage {
            Storage::Owned(data) => data,
            Storage::Mapped { bytes, range } => bytemuck::cast_slice(&bytes[range.clone()]),
        }
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
}

impl Weights {
    /// No tensors yet; `file` is what errors call them.
    pub fn new(file: &str) -> Self {
        Weights { file: file.to_owned(), tensors: BTreeMap::new(), metadata: BTreeMap::new() }
    }

    /// All of a safetensors file, memory-mapped. A file that holds more than parameters (labels, other networks) is
    /// read with [`TensorFile::weights`].
    ///
    /// # Errors
    /// As [`TensorFile::open`] and [`TensorFile::weights`].
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        TensorFile::open(path)?.weights("", PrefixIs::Kept)
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
        self.tensors.insert(name.into(), Entry { shape, storage: Storage::Owned(tensor.into_data()) });
    }

    /// Takes out all tensors whose names begin with `prefix`; what stays is the other consumers'. Metadata is copied.
    pub fn take_prefix(&mut self, prefix: &str, prefix_is: PrefixIs) -> Weights {
        let mut taken = Weights { file: self.file.clone(), tensors: BTreeMap::new(), metadata: self.metadata.clone() };
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
                Err(WeightsError::Several { file: file(), problems })
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
