//! Devices: a backend loads a planned graph and returns a program; what happens inside (layout, packing, memory,
//! fusion, threads) is its own business. Shapes at this boundary are logical (N, C, H, W).

pub mod cpu;
mod host;
pub mod reference;

use crate::graph::NodeId;
use crate::graph::plan::{Artifact, EntryId};
use crate::tensor::{Shape, Tensor, TensorMut, TensorRef};
use crate::weights::Weights;

/// Where a program's parameters come from at load.
pub trait Parameters: Sync {
    /// Shape and elements (logical order) of the weight of that key.
    fn parameter(&self, name: &str) -> Option<(&Shape, &[f32])>;
}

impl Parameters for [(String, Tensor)] {
    fn parameter(&self, name: &str) -> Option<(&Shape, &[f32])> {
        self.iter().find(|(n, _)| n == name).map(|(_, t)| (t.shape(), t.data()))
    }
}

impl Parameters for Vec<(String, Tensor)> {
    fn parameter(&self, name: &str) -> Option<(&Shape, &[f32])> {
        self.as_slice().parameter(name)
    }
}

impl Parameters for Weights {
    fn parameter(&self, name: &str) -> Option<(&Shape, &[f32])> {
        self.get(name).map(|t| (t.shape, t.data))
    }
}

/// Several sources, asked in order: a host's weights, an autoencoder's, a model's constants.
pub struct Layered<'a>(pub &'a [&'a dyn Parameters]);

impl Parameters for Layered<'_> {
    fn parameter(&self, name: &str) -> Option<(&Shape, &[f32])> {
        self.0.iter().find_map(|source| source.parameter(name))
    }
}

/// A device kind.
pub trait Backend: Send + Sync {
    /// Its name in manifests: `cpu (avx512)`.
    fn name(&self) -> String;
    /// Packs the weights and allocates the slots of `plan`.
    ///
    /// # Errors
    /// [`BackendError::Parameter`] when a weight is missing or misshapen, [`BackendError::OutOfMemory`].
    fn load(&self, plan: Artifact, weights: &dyn Parameters) -> Result<Box<dyn Program>, BackendError>;
}

/// One artifact on one device.
pub trait Program: Send {
    /// The plan it was loaded from.
    fn artifact(&self) -> &Artifact;
    /// Writes rows of an input, or the whole of a parameter, state or whole input. The number of rows is the number of
    /// elements over the row's.
    ///
    /// # Errors
    /// [`BackendError::Transfer`] when the node has no slot, is computed, or the elements do not fit.
    fn write(&mut self, node: NodeId, data: TensorRef<'_>) -> Result<(), BackendError>;
    /// Runs an entry on the first `rows` rows of its given nodes.
    ///
    /// # Errors
    /// [`BackendError::Rows`] when rows exceed the capacity or a given node holds fewer, [`BackendError::RowIndex`] when
    /// a row list points outside.
    fn run(&mut self, entry: EntryId, rows: usize) -> Result<(), BackendError>;
    /// Reads the first rows of a node (as many as `out` holds), or the whole of one without rows.
    ///
    /// # Errors
    /// [`BackendError::Transfer`] when the node is not readable or holds fewer rows.
    fn read(&mut self, node: NodeId, out: TensorMut<'_>) -> Result<(), BackendError>;
}

/// Checks that input `x` of `program` takes images of `shape`. Elements travel without their shape, so images of another
/// size would be cut at the wrong places.
///
/// # Errors
/// [`BackendError::Transfer`] with both shapes.
pub fn takes_images(program: &dyn Program, x: NodeId, shape: &Shape) -> Result<(), BackendError> {
    let node = program.artifact().graph().node(x);
    if node.shape == *shape {
        return Ok(());
    }
    let reason = format!("the data's images are {shape}, but the network takes {}", node.shape);
    Err(BackendError::Transfer { node: node.name.clone(), reason })
}

/// What can go wrong on a device.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BackendError {
    /// The device is not there.
    #[error("device {device} is not available: {reason}")]
    Unavailable {
        /// As asked for.
        device: String,
        /// What is missing.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// A weight is missing or has another shape.
    #[error("parameter \"{name}\": expected {expected}, got {got}")]
    Parameter {
        /// Its key.
        name: String,
        /// The graph's shape.
        expected: Shape,
        /// The weights' shape, or `nothing`.
        got: String,
    },
    /// Data cannot be moved in or out.
    #[error("node \"{node}\": {reason}")]
    Transfer {
        /// The node's name.
        node: String,
        /// What is wrong.
        reason: String,
    },
    /// Too many or too few rows.
    #[error("entry \"{entry}\": {rows} rows asked for, but {limit}")]
    Rows {
        /// The entry's name.
        entry: String,
        /// Rows of the run.
        rows: usize,
        /// Which limit they break.
        limit: String,
    },
    /// A row list points outside of what it indexes.
    #[error("node \"{node}\": row {row} takes number {index}, but there are only {count}")]
    RowIndex {
        /// The node that reads the list.
        node: String,
        /// Position in the list.
        row: usize,
        /// The offending entry.
        index: u32,
        /// How many there are.
        count: usize,
    },
    /// Memory for a slot cannot be had.
    #[error("out of memory: {requested} bytes for \"{what}\"")]
    OutOfMemory {
        /// The slot or weight.
        what: String,
        /// Bytes asked for.
        requested: usize,
    },
    /// A plan that breaks an invariant of its own; a defect of this crate.
    #[error("the plan is inconsistent at \"{node}\": {reason} (please report this)")]
    Inconsistent {
        /// The node's name.
        node: String,
        /// What does not hold.
        reason: String,
    },
}
