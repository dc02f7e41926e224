//! What can be wrong with weights: each error names the file, the tensor, the numbers and the next step.

use crate::atomic::WriteError;
use crate::tensor::Shape;

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
    #[error("{file}: {} tensors do not fit the network{}:{}", .problems.len(), or_else_it_is(.looks_like), first_lines(.problems))]
    Several {
        /// The file.
        file: String,
        /// What the file holds (`vgg16 with 4 classes`), where that is another network than was asked for.
        looks_like: Option<String>,
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
    /// A pickle asks Python to run a program.
    #[error(
        "{file}: the pickle in it asks for {global}, which runs programs; nothing of it was run and nothing is read; do not open it with Python"
    )]
    Harmful {
        /// The file.
        file: String,
        /// `os.system` and the like.
        global: String,
    },
    /// A tensor would have to be made by code that is not run.
    #[error(
        "{file}: tensor {tensor} is made by calling {global}, and nothing in a file is called; load it in PyTorch and save its `state_dict()`, with plain tensors"
    )]
    NotCalled {
        /// The file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// What would have to be called.
        global: String,
    },
    /// A node of an ONNX graph is not what the network has there.
    #[error("{file}: node {node} {what}")]
    Graph {
        /// The file.
        file: String,
        /// Operator and name.
        node: String,
        /// What does not fit.
        what: String,
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
        "{file}: this autoencoder was trained in the network with weights {want}, but the network given has {got}; give that network, or an autoencoder of this one with --ae (`train-ae --weights ...` trains one)"
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

fn or_else_it_is(looks_like: &Option<String>) -> String {
    looks_like.as_ref().map_or_else(String::new, |what| format!("; the file looks like {what}"))
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
