//! Devices: a backend loads a planned graph and returns a program; what happens inside (layout, packing, memory,
//! fusion, threads) is its own business. Shapes at this boundary are logical (N, C, H, W).

pub mod cpu;
pub mod cuda;
mod host;
pub mod layout;
mod ledger;
mod memory;
pub mod problems;
pub mod profile;
pub mod reference;
mod stretch;
mod threads;
pub mod winograd;

use crate::graph::op::Op;
use crate::graph::plan::{Artifact, EntryId, Footprint};
use crate::graph::{GraphError, NodeId};
use crate::tensor::{Shape, Tensor, TensorMut, TensorRef};
use crate::weights::derived::{Derived, Elements};
use crate::weights::{Held, Weights};
use std::borrow::Cow;
use std::sync::Arc;

pub use profile::Profile;
pub use winograd::ConvPath;

/// Where a program's parameters come from at load.
pub trait Parameters: Sync {
    /// Shape and elements (logical order) of the weight of that key.
    fn parameter(&self, name: &str) -> Option<Elements<'_>>;
    /// The same elements, if they lie where a device may go on reading them, without a copy.
    fn hold(&self, _name: &str) -> Option<Held> {
        None
    }
    /// Called when a device has taken what it needs of that weight: a mapped file's pages may go.
    fn release(&self, _name: &str) {}
}

impl Parameters for [(String, Tensor)] {
    fn parameter(&self, name: &str) -> Option<Elements<'_>> {
        self.iter().find(|(n, _)| n == name).map(|(_, t)| (t.shape().clone(), Cow::Borrowed(t.data())))
    }
}

impl Parameters for Vec<(String, Tensor)> {
    fn parameter(&self, name: &str) -> Option<Elements<'_>> {
        self.as_slice().parameter(name)
    }
}

impl Parameters for Weights {
    fn parameter(&self, name: &str) -> Option<Elements<'_>> {
        self.get(name).map(|t| (t.shape.clone(), Cow::Borrowed(t.data)))
    }

    fn hold(&self, name: &str) -> Option<Held> {
        Weights::hold(self, name)
    }

    fn release(&self, name: &str) {
        Weights::release(self, name);
    }
}

/// Several sources, asked in order: a host's weights, an autoencoder's.
pub struct Layered<'a>(pub &'a [&'a dyn Parameters]);

impl Parameters for Layered<'_> {
    fn parameter(&self, name: &str) -> Option<Elements<'_>> {
        self.0.iter().find_map(|source| source.parameter(name))
    }

    fn hold(&self, name: &str) -> Option<Held> {
        self.0.iter().find(|source| source.parameter(name).is_some())?.hold(name)
    }

    fn release(&self, name: &str) {
        self.0.iter().for_each(|source| source.release(name));
    }
}

/// Weights, and what a model's graph reads beside them ([`crate::model::Model::constants`]).
pub struct Completed<'a> {
    /// What files hold.
    pub weights: &'a dyn Parameters,
    /// What is made from it.
    pub derived: &'a Derived,
}

impl Parameters for Completed<'_> {
    fn parameter(&self, name: &str) -> Option<Elements<'_>> {
        let weight = |key: &str| self.weights.parameter(key);
        weight(name).or_else(|| self.derived.make(name, &weight))
    }

    fn hold(&self, name: &str) -> Option<Held> {
        self.weights.hold(name)
    }

    fn release(&self, name: &str) {
        self.weights.release(name);
    }
}

/// What a manifest says of a device beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Whether it is a simulated device: results are the kernels', times say nothing.
    pub simulated: bool,
    /// How 3x3 convolutions run forward.
    pub conv: ConvPath,
    /// Hash of the kernels' sources, where they are compiled as the program runs.
    pub kernels_sha256: Option<String>,
    /// Driver, compiler and what else decides how it computes.
    pub notes: Vec<(&'static str, String)>,
}

/// A device kind.
pub trait Backend: Send + Sync {
    /// Its name in manifests: `cpu (avx512)`.
    fn name(&self) -> String;
    /// What else a manifest says of it.
    fn details(&self) -> Details {
        Details::default()
    }
    /// The same device, whose programs add to `profile` from now on; none where a device cannot time its steps.
    fn profiled(&self, _profile: Arc<Profile>) -> Option<Box<dyn Backend>> {
        None
    }
    /// Rows of a batch that suit it; at least 1, and no result depends on it.
    fn batch_rows(&self, footprint: Footprint) -> usize;
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

/// Loads what `plan` makes for `rows` rows, or for half as many as often as `backend` has no memory for them; the program, and the rows
/// that it came to, on which no result depends.
///
/// # Errors
/// What `plan` or the device says; out of memory where a single row does not fit.
pub fn load_fitting<E: From<GraphError> + From<BackendError>>(
    backend: &dyn Backend,
    weights: &dyn Parameters,
    rows: usize,
    plan: impl Fn(usize) -> Result<Artifact, GraphError>,
) -> Result<(Box<dyn Program>, usize), E> {
    let mut rows = rows.max(1);
    loop {
        match backend.load(plan(rows)?, weights) {
            Err(BackendError::OutOfMemory { .. }) if rows > 1 => rows = rows.div_ceil(2),
            loaded => return Ok((loaded?, rows)),
        }
    }
}

/// Writes the parameters that `program` uses from `weights`, and zeros to its states. `hold` says whether the program goes on
/// reading a parameter where it lies, in place of having it written.
fn load_sources<P: Program + ?Sized>(
    program: &mut P,
    weights: &dyn Parameters,
    hold: impl Fn(&mut P, NodeId, Option<Held>) -> bool,
) -> Result<(), BackendError> {
    let used = |(id, node): (NodeId, &crate::graph::Node)| {
        let source = matches!(node.op, Op::Parameter | Op::State) && program.artifact().slot_of(id).is_some();
        source.then(|| (id, node.clone()))
    };
    let sources: Vec<_> = program.artifact().graph().iter().filter_map(used).collect();
    for (id, node) in sources {
        if node.op == Op::State {
            program.write(id, TensorRef::F32(&vec![0.0; node.shape.len()]))?;
            continue;
        }
        let bad = |got: String| BackendError::Parameter { name: node.name.clone(), expected: node.shape.clone(), got };
        let (shape, data) = weights.parameter(&node.name).ok_or_else(|| bad("nothing".into()))?;
        if shape != node.shape || data.len() != shape.len() {
            return Err(bad(shape.to_string()));
        }
        if !hold(program, id, weights.hold(&node.name)) {
            program.write(id, TensorRef::F32(&data))?;
            drop(data);
            weights.release(&node.name);
        }
    }
    Ok(())
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
    /// A kernel file does not compile.
    #[error("{file} does not compile{for_target}:\n{log}", for_target = for_target(.target))]
    Compile {
        /// The file.
        file: String,
        /// The architecture it was compiled for.
        target: String,
        /// What the compiler said.
        log: String,
    },
    /// A call to the device failed: the device is lost, a kernel failed, the driver refused.
    #[error("the device failed at {what}: {reason}")]
    Device {
        /// The call or kernel.
        what: String,
        /// The driver's own words.
        reason: String,
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

fn for_target(target: &str) -> String {
    if target.is_empty() { String::new() } else { format!(" for {target}") }
}
