//! What the two devices in host memory (`cpu`, `reference`) share: slots, row counts, checks, updates. They differ in
//! element type, layout and arithmetic, which is the [`Engine`].
//!
//! Every slot starts as NaN, so a value that nobody wrote is seen; in debug builds a slot is also filled with NaN before
//! it is written and carries a canary behind its last element, so a short or long write is seen at the step that made it.

use super::{BackendError, Parameters, Program};
use crate::graph::op::{Element, Op};
use crate::graph::plan::{Artifact, EntryId, Handover};
use crate::graph::{Extent, Node, NodeId};
use crate::tensor::{TensorMut, TensorRef};

/// Most inputs an op has (`intervene-conv`).
pub(super) const INPUTS_MAX: usize = 6;
/// Elements behind each slot that no step may touch.
const CANARY: usize = 16;

/// Elements that an engine computes with.
pub(super) trait Float: Copy + Send + Sync + PartialEq + 'static {
    /// The fill of unwritten slots.
    const NAN: Self;
    /// A value that is no result: recognised by its bits.
    const GUARD: Self;
    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
}

impl Float for f32 {
    const NAN: f32 = f32::NAN;
    const GUARD: f32 = -1.618_034e-33;
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Float for f64 {
    const NAN: f64 = f64::NAN;
    const GUARD: f64 = -1.618_034e-33;
    fn from_f64(x: f64) -> f64 {
        x
    }
    fn to_f64(self) -> f64 {
        self
    }
}

/// One input of a step: all valid rows of its slot (a gathering op reads more rows than the run has).
#[derive(Clone, Copy)]
pub(super) struct Operand<'a, T> {
    pub floats: &'a [T],
    pub indices: &'a [u32],
    /// Elements of a row (of the whole, for values without rows).
    pub row: usize,
}

impl<T> Operand<'_, T> {
    /// Valid rows.
    pub fn rows(&self) -> usize {
        self.floats.len().checked_div(self.row).unwrap_or(0)
    }
}

/// One step of an entry, ready to compute.
pub(super) struct Step<'a, T> {
    pub node: &'a Node,
    /// Nodes of the inputs, for their shapes.
    pub nodes: [&'a Node; INPUTS_MAX],
    pub inputs: [Operand<'a, T>; INPUTS_MAX],
    /// Rows of this run.
    pub rows: usize,
}

impl<'a, T> Step<'a, T> {
    /// The floats of input `i`, cut to this run's rows.
    pub fn floats(&self, i: usize) -> &'a [T] {
        let operand = &self.inputs[i];
        match self.nodes[i].extent {
            Extent::Rows => &operand.floats[..self.rows * operand.row],
            Extent::Whole => operand.floats,
        }
    }

    /// The indices of input `i`, cut to this run's rows.
    pub fn indices(&self, i: usize) -> &'a [u32] {
        &self.inputs[i].indices[..self.rows]
    }

    /// The floats of input `i` if the node has that many inputs.
    pub fn optional(&self, i: usize) -> Option<&'a [T]> {
        (i < self.node.inputs.len()).then(|| self.floats(i))
    }

    /// Checks that a row list of input `i` stays below `count`.
    pub fn check_indices(&self, i: usize, count: usize) -> Result<(), BackendError> {
        match self.indices(i).iter().enumerate().find(|(_, index)| **index as usize >= count) {
            None => Ok(()),
            Some((row, &index)) => Err(BackendError::RowIndex { node: self.node.name.clone(), row, index, count }),
        }
    }
}

/// The arithmetic of a host device.
pub(super) trait Engine: Send {
    type Float: Float;
    /// Logical order to the engine's own, for `rows` rows of `node`.
    fn store(&self, node: &Node, rows: usize, logical: &[Self::Float], physical: &mut [Self::Float]);
    /// The engine's order back to logical.
    fn fetch(&self, node: &Node, rows: usize, physical: &[Self::Float], logical: &mut [Self::Float]);
    /// A parameter has new elements: forget what was packed from it.
    fn parameter_changed(&mut self, node: NodeId);
    /// Computes one step into `out` (exactly `rows` rows of the node, or its whole).
    fn step(&mut self, step: &Step<'_, Self::Float>, out: &mut [Self::Float]) -> Result<(), BackendError>;
}

enum Storage<T> {
    Floats(Vec<T>),
    Indices(Vec<u32>),
}

/// A program in host memory.
pub(super) struct HostProgram<E: Engine> {
    artifact: Artifact,
    engine: E,
    slots: Vec<Storage<E::Float>>,
    /// Valid rows of each slot (1 when whole and written, 0 before).
    rows: Vec<usize>,
    /// Slot of each node now: updates swap entries.
    slot_of: Vec<Option<usize>>,
}

fn allocate<T: Clone>(what: &str, elements: usize, fill: T) -> Result<Vec<T>, BackendError> {
    let bytes = elements.saturating_mul(size_of::<T>());
    let mut data = Vec::new();
    data.try_reserve_exact(elements).map_err(|_| BackendError::OutOfMemory { what: what.into(), requested: bytes })?;
    data.resize(elements, fill);
    Ok(data)
}

impl<E: Engine> HostProgram<E> {
    pub fn load(artifact: Artifact, weights: &dyn Parameters, engine: E) -> Result<Self, BackendError> {
        let mut slots = Vec::with_capacity(artifact.slots().len());
        for (i, slot) in artifact.slots().iter().enumerate() {
            let what = format!("slot {i}");
            slots.push(match slot.element {
                Element::Float => {
                    let mut data = allocate(&what, slot.elements.saturating_add(CANARY), E::Float::NAN)?;
                    data[slot.elements..].fill(E::Float::GUARD);
                    Storage::Floats(data)
                }
                Element::Index => Storage::Indices(allocate(&what, slot.elements, u32::MAX)?),
            });
        }
        let slot_of = artifact.graph().iter().map(|(id, _)| artifact.slot_of(id)).collect();
        let rows = vec![0; slots.len()];
        let mut program = HostProgram { artifact, engine, slots, rows, slot_of };
        let sources: Vec<(NodeId, Op)> = program.artifact.graph().iter().map(|(id, n)| (id, n.op.clone())).collect();
        for (id, op) in sources {
            if program.slot_of[id.index()].is_none() {
                continue;
            }
            match op {
                Op::Parameter => {
                    let node = program.artifact.graph().node(id);
                    let bad = |got: String| BackendError::Parameter {
                        name: node.name.clone(),
                        expected: node.shape.clone(),
                        got,
                    };
                    let (shape, data) = weights.parameter(&node.name).ok_or_else(|| bad("nothing".into()))?;
                    if *shape != node.shape || data.len() != shape.len() {
                        return Err(bad(shape.to_string()));
                    }
                    program.write(id, TensorRef::F32(data))?;
                }
                Op::State => {
                    let zeros = vec![0.0f32; program.artifact.graph().node(id).shape.len()];
                    program.write(id, TensorRef::F32(&zeros))?;
                }
                _ => {}
            }
        }
        Ok(program)
    }

    fn slot(&self, id: NodeId, node: &Node) -> Result<usize, BackendError> {
        self.slot_of[id.index()].ok_or_else(|| BackendError::Transfer {
            node: node.name.clone(),
            reason: "no entry of this program uses it".into(),
        })
    }

    fn step(&mut self, id: NodeId, rows: usize) -> Result<(), BackendError> {
        let graph = self.artifact.graph();
        let node = graph.node(id);
        let inconsistent = |reason: &str| BackendError::Inconsistent { node: node.name.clone(), reason: reason.into() };
        let slot = self.slot_of[id.index()].ok_or_else(|| inconsistent("a step without a slot"))?;
        // the slot is taken out while its step runs, so that a step reading it would find nothing (invariant 4)
        let mut out = match std::mem::replace(&mut self.slots[slot], Storage::Indices(Vec::new())) {
            Storage::Floats(data) => data,
            Storage::Indices(_) => return Err(inconsistent("a step writes an index slot")),
        };
        let written = if node.extent == Extent::Rows { rows } else { 1 };
        let used = written * node.shape.len();
        let mut step = Step {
            node,
            nodes: [node; INPUTS_MAX],
            inputs: [Operand { floats: &[], indices: &[], row: 0 }; INPUTS_MAX],
            rows,
        };
        let mut result = Ok(());
        for (i, &input) in node.inputs.iter().enumerate() {
            let source = graph.node(input);
            let row = source.shape.len();
            step.nodes[i] = source;
            let Some(s) = self.slot_of[input.index()] else {
                result = Err(inconsistent("an input without a slot"));
                break;
            };
            let valid = self.rows[s];
            if valid < if source.extent == Extent::Rows && !node.op.gathers(i) { rows } else { 1 } {
                result = Err(inconsistent(&format!("\"{}\" holds {valid} rows", source.name)));
                break;
            }
            match &self.slots[s] {
                Storage::Floats(data) => {
                    step.inputs[i] = Operand { floats: &data[..valid * row], indices: &[], row };
                }
                Storage::Indices(data) if s != slot => {
                    step.inputs[i] = Operand { floats: &[], indices: &data[..valid], row };
                }
                Storage::Indices(_) => {
                    result = Err(inconsistent("it reads the slot it writes"));
                    break;
                }
            }
        }
        if result.is_ok() {
            if cfg!(debug_assertions) {
                out[..used].fill(E::Float::NAN);
            }
            result = self.engine.step(&step, &mut out[..used]);
            let elements = out.len() - CANARY;
            if cfg!(debug_assertions) && out[elements..].iter().any(|&x| x != E::Float::GUARD) {
                result = Err(inconsistent("the step wrote behind its slot"));
            }
        }
        self.slots[slot] = Storage::Floats(out);
        self.rows[slot] = written;
        result
    }
}

impl<E: Engine> Program for HostProgram<E> {
    fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    fn write(&mut self, id: NodeId, data: TensorRef<'_>) -> Result<(), BackendError> {
        let node = self.artifact.graph().node(id).clone();
        let slot = self.slot(id, &node)?;
        let fail = |reason: String| BackendError::Transfer { node: node.name.clone(), reason };
        if !matches!(node.op, Op::Input(_) | Op::Parameter | Op::State) {
            return Err(fail(format!("it is computed ({}), so it cannot be written", node.op.name())));
        }
        let row = node.shape.len();
        let rows = data.len().checked_div(row).unwrap_or(0);
        let limit = if node.extent == Extent::Rows { self.artifact.slots()[slot].elements / row.max(1) } else { 1 };
        if rows == 0 || rows * row != data.len() || rows > limit {
            return Err(fail(format!("{} elements written to at most {limit} rows of {}", data.len(), node.shape)));
        }
        match (&mut self.slots[slot], data) {
            (Storage::Floats(out), TensorRef::F32(d)) => {
                let logical: Vec<E::Float> = d.iter().map(|&x| E::Float::from_f64(f64::from(x))).collect();
                self.engine.store(&node, rows, &logical, &mut out[..rows * row]);
            }
            (Storage::Floats(out), TensorRef::F64(d)) => {
                let logical: Vec<E::Float> = d.iter().map(|&x| E::Float::from_f64(x)).collect();
                self.engine.store(&node, rows, &logical, &mut out[..rows * row]);
            }
            (Storage::Indices(out), TensorRef::U32(d)) => out[..rows].copy_from_slice(d),
            (Storage::Floats(_), TensorRef::U32(_)) => return Err(fail("indices written to floats".into())),
            (Storage::Indices(_), _) => return Err(fail("floats written to indices".into())),
        }
        self.rows[slot] = rows;
        if node.op == Op::Parameter {
            self.engine.parameter_changed(id);
        }
        Ok(())
    }

    fn run(&mut self, entry: EntryId, rows: usize) -> Result<(), BackendError> {
        let Some(planned) = self.artifact.entries().get(entry.0) else {
            return Err(BackendError::Rows {
                entry: format!("number {}", entry.0),
                rows,
                limit: format!("the program has {} entries", self.artifact.entries().len()),
            });
        };
        let fail = |limit: String| BackendError::Rows { entry: planned.name.into(), rows, limit };
        if rows == 0 || rows > planned.capacity {
            return Err(fail(format!("it takes 1 to {}", planned.capacity)));
        }
        // a node that is only gathered from need not have the run's rows
        let by_row = |id: NodeId| {
            let readers = planned.steps.iter().map(|&s| self.artifact.graph().node(s));
            let uses = readers.flat_map(|n| n.inputs.iter().enumerate().map(|(i, &input)| (input, n.op.gathers(i))));
            let gathered: Vec<bool> = uses.filter(|u| u.0 == id).map(|u| u.1).collect();
            gathered.is_empty() || gathered.contains(&false)
        };
        for &id in &planned.given {
            let node = self.artifact.graph().node(id);
            let held = self.slot_of[id.index()].map_or(0, |s| self.rows[s]);
            let needed = if node.extent == Extent::Rows && by_row(id) { rows } else { 1 };
            if held < needed {
                return Err(fail(format!("\"{}\" holds {held}", node.name)));
            }
        }
        // copied so that `step` may borrow the program
        let steps = planned.steps.clone();
        let updates = planned.updates.clone();
        for &id in &steps {
            if let Err(error) = self.step(id, rows) {
                // what is half done or left from the run before must not be read as this run's
                for slot in steps.iter().filter_map(|s| self.slot_of[s.index()]) {
                    self.rows[slot] = 0;
                }
                return Err(error);
            }
        }
        for (to, from, how) in updates {
            self.update(to, from, how, rows)?;
        }
        Ok(())
    }

    fn read(&mut self, id: NodeId, out: TensorMut<'_>) -> Result<(), BackendError> {
        let node = self.artifact.graph().node(id);
        let slot = self.slot(id, node)?;
        let fail = |reason: String| BackendError::Transfer { node: node.name.clone(), reason };
        if !self.artifact.slots()[slot].pinned {
            return Err(fail("no entry wants it, so its slot is shared; add it to an entry's `want`".into()));
        }
        let row = node.shape.len();
        let rows = out.len().checked_div(row).unwrap_or(0);
        if rows * row != out.len() || rows > self.rows[slot] {
            return Err(fail(format!("{} elements asked for, {} rows of {} held", out.len(), self.rows[slot], row)));
        }
        let Storage::Floats(data) = &self.slots[slot] else {
            return Err(fail("row lists are written, not read".into()));
        };
        let mut logical = vec![E::Float::NAN; rows * row];
        self.engine.fetch(node, rows, &data[..rows * row], &mut logical);
        match out {
            TensorMut::F32(o) => o.iter_mut().zip(&logical).for_each(|(o, x)| *o = x.to_f64() as f32),
            TensorMut::F64(o) => o.iter_mut().zip(&logical).for_each(|(o, x)| *o = x.to_f64()),
        }
        Ok(())
    }
}

impl<E: Engine> HostProgram<E> {
    fn update(&mut self, to: NodeId, from: NodeId, how: Handover, rows: usize) -> Result<(), BackendError> {
        let (Some(a), Some(b)) = (self.slot_of[to.index()], self.slot_of[from.index()]) else {
            let node = self.artifact.graph().node(to).name.clone();
            return Err(BackendError::Inconsistent { node, reason: "an update without slots".into() });
        };
        match how {
            Handover::Swap => {
                self.slots.swap(a, b);
                self.rows[a] = self.rows[b];
                // the destination's old content is not the value
                self.rows[b] = 0;
            }
            Handover::Copy => {
                // a value that was given may hold more rows than this run has, and than the destination has room for
                let rows = self.rows[b].min(rows);
                let elements = rows * self.artifact.graph().node(from).shape.len();
                let source = std::mem::replace(&mut self.slots[b], Storage::Indices(Vec::new()));
                match (&mut self.slots[a], &source) {
                    (Storage::Floats(d), Storage::Floats(s)) => d[..elements].copy_from_slice(&s[..elements]),
                    (Storage::Indices(d), Storage::Indices(s)) => d[..elements].copy_from_slice(&s[..elements]),
                    (Storage::Floats(_), Storage::Indices(_)) | (Storage::Indices(_), Storage::Floats(_)) => {}
                }
                self.slots[b] = source;
                self.rows[a] = rows;
            }
        }
        if self.artifact.graph().node(to).op == Op::Parameter {
            self.engine.parameter_changed(to);
        }
        Ok(())
    }
}
