//! Which format a file of weights is in, by its content, and the one entry for all of them. Called by the command line
//! and by whoever loads a network.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use super::bytes::Bytes;
use super::onnx::OnnxFile;
use super::safetensors::TensorFile;
use super::{PrefixIs, Weights, WeightsError, names, some_of, torch};
use crate::tensor::Shape;

/// How much of a network a file has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// Its `features`; what else the file holds is left out.
    Trunk,
}

/// A format of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The one that is written.
    Safetensors,
    /// PyTorch, a zip archive (1.6 and later).
    TorchZip,
    /// PyTorch, pickles and raw storages (before 1.6).
    TorchLegacy,
    /// Python's own pickle of something that holds PyTorch's tensors.
    Pickle,
    /// An ONNX model.
    Onnx,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::Safetensors => "safetensors",
            Format::TorchZip => "PyTorch (zip)",
            Format::TorchLegacy => "PyTorch (legacy)",
            Format::Pickle => "pickle",
            Format::Onnx => "ONNX",
        })
    }
}

/// An open file of weights, its tensors still on disk where the format allows.
#[derive(Clone, Debug)]
pub struct Source {
    format: Format,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Named(Weights),
    Graph(OnnxFile),
}

impl Source {
    /// Opens a file of any format that is read, told by its content. Tensors are not read unless they have to be
    /// converted.
    ///
    /// # Errors
    /// [`WeightsError`], of the format, or that says what the file seems to be.
    pub fn open(path: &Path) -> Result<Source, WeightsError> {
        Source::read(&path.display().to_string(), Bytes::open(path)?)
    }

    /// As [`Source::open`], of a file already in memory; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn from_vec(name: &str, bytes: Vec<u8>) -> Result<Source, WeightsError> {
        Source::read(name, Bytes::Owned(bytes))
    }

    fn read(file: &str, bytes: Bytes) -> Result<Source, WeightsError> {
        let format = recognise(file, &bytes)?;
        let bytes = Arc::new(bytes);
        let content = match format {
            Format::Safetensors => Content::Named(TensorFile::parse(file.to_owned(), bytes)?.imported()?),
            Format::TorchZip => Content::Named(torch::read_zip(file, bytes)?),
            Format::TorchLegacy => Content::Named(torch::read_legacy(file, bytes)?),
            Format::Pickle => Content::Named(torch::read_pickle(file, bytes)?),
            Format::Onnx => Content::Graph(OnnxFile::parse(file, bytes)?),
        };
        Ok(Source { format, content })
    }

    /// Its format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The ONNX model in it.
    pub fn onnx(&self) -> Option<&OnnxFile> {
        match &self.content {
            Content::Named(_) => None,
            Content::Graph(onnx) => Some(onnx),
        }
    }

    /// All float tensors under the names that the file has for them.
    ///
    /// # Errors
    /// [`WeightsError`] of an ONNX model whose tensors cannot be read.
    pub fn weights(self) -> Result<Weights, WeightsError> {
        match self.content {
            Content::Named(weights) => Ok(weights),
            Content::Graph(onnx) => onnx.weights(),
        }
    }

    /// The tensors of the network whose parameters, in layer order, are `expected`: names repaired, those of an ONNX
    /// model told by the graph, all of them there and of the right shape. An autoencoder's (`ae.`) are left out unless
    /// they are expected. What was done is in [`Weights::notes`].
    ///
    /// # Errors
    /// [`WeightsError`] as of [`Weights::check`].
    pub fn fit(self, expected: &[(String, Shape)], part: Part) -> Result<Weights, WeightsError> {
        match self.content {
            Content::Named(weights) => weights.fit(expected, part),
            // only the trunk's layers are asked of the graph
            Content::Graph(onnx) => onnx.fit(&of_part(expected, part), part)?.fit(expected, part),
        }
    }
}

/// The parameters that a part of the network has.
fn of_part(expected: &[(String, Shape)], part: Part) -> Cow<'_, [(String, Shape)]> {
    match part {
        Part::Whole => Cow::Borrowed(expected),
        Part::Trunk => expected.iter().filter(|(name, _)| name.starts_with("features.")).cloned().collect(),
    }
}

impl Weights {
    /// As [`Source::fit`], of weights that were read already.
    ///
    /// # Errors
    /// As [`Weights::check`].
    pub fn fit(mut self, expected: &[(String, Shape)], part: Part) -> Result<Weights, WeightsError> {
        let expected = of_part(expected, part);
        if !expected.iter().any(|(name, _)| name.starts_with("ae.")) {
            self.take_prefix("ae.", PrefixIs::Kept);
        }
        let repairs = self.repair(&expected)?;
        self.notes.extend(names::summary(&repairs));
        if part == Part::Trunk {
            let mut trunk = self.take_prefix("features.", PrefixIs::Kept);
            trunk.notes = std::mem::take(&mut self.notes);
            if !self.is_empty() {
                let rest: Vec<String> = self.names().map(str::to_owned).collect();
                trunk.notes.push(format!("left out, as only the trunk is asked for: {}", some_of(&rest)));
            }
            self = trunk;
        }
        self.check(&expected)?;
        Ok(self)
    }
}

/// What a file is, by its first bytes.
fn recognise(file: &str, bytes: &[u8]) -> Result<Format, WeightsError> {
    let not_read = |reason: &str, hint: &'static str| {
        Err(WeightsError::Header { file: file.to_owned(), reason: reason.to_owned(), hint })
    };
    let visible = bytes.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(0).min(256);
    match bytes {
        [] => not_read("the file is empty", "fetch or save it again"),
        [b'P', b'K', 3, 4, ..] => Ok(Format::TorchZip),
        [b'P', b'K', 5, 6, ..] => not_read("it is an empty zip archive", "fetch or save it again"),
        [0x80, 2..=5, ..] if bytes.starts_with(&torch::LEGACY_MAGIC) => Ok(Format::TorchLegacy),
        [0x80, 2..=5, ..] => Ok(Format::Pickle),
        [0x1f, 0x8b, ..] => not_read("it is compressed with gzip", "decompress it first: `gunzip FILE`"),
        [b'B', b'Z', b'h', ..] => not_read("it is compressed with bzip2", "decompress it first: `bunzip2 FILE`"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => not_read("it is compressed with xz", "decompress it first: `unxz FILE`"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => not_read("it is compressed with zstd", "decompress it first: `unzstd FILE`"),
        [0x89, b'H', b'D', b'F', ..] => {
            not_read("it is an HDF5 file (Keras), which is not read", "export the network to ONNX, with tf2onnx")
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => {
            not_read("it is an array of NumPy's, without names", "save the weights as safetensors")
        }
        _ if bytes.starts_with(b"version https://git-lfs") => not_read(
            "it is a git-LFS pointer, not the file",
            "run `git lfs pull` where it came from, or download the file itself",
        ),
        _ if bytes.get(257..262) == Some(b"ustar") => not_read(
            "it is a tar archive, which is not read (PyTorch before 0.2 wrote such files)",
            "unpack it, or load it in PyTorch and save its `state_dict()`",
        ),
        _ if bytes[visible] == b'<' => not_read("it is a web page or XML", "the download failed: fetch the file again"),
        // a length in 8 bytes, then JSON
        _ if bytes.get(8) == Some(&b'{') || bytes.len() < 9 => Ok(Format::Safetensors),
        _ if bytes[visible] == b'{' => not_read("it is a JSON text", "the download failed: fetch the file again"),
        _ if OnnxFile::recognise(bytes) => Ok(Format::Onnx),
        _ => not_read(
            "it is in no format that is read",
            "give safetensors, PyTorch's .pth or .pt, or ONNX; if it is one of these, it is damaged: fetch it again",
        ),
    }
}
