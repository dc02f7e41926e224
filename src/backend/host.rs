//! What the two devices in host memory (`cpu`, `reference`) share: slots and their moves. They differ in element type,
//! layout and arithmetic, which is the [`Engine`].
//!
//! Every slot starts as NaN, so a value that nobody wrote is seen; in debug builds a slot is also filled with NaN before
//! it is written and carries a canary behind its last element, so a short or long write is seen at the step that made it.

use super::ledger::{Ledger, Move, Place, inconsistent};
use super::{BackendError, Parameters, Program, load_sources};
use crate::graph::op::{Element, Op};
use crate::graph::plan::{Artifact, EntryId};
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

/// A program in host memory.
pub(super) struct HostProgram<E: Engine> {
    ledger: Ledger,
    engine: E,
    /// Floats of each slot; nothing for slots of indices, which the ledger holds.
    slots: Vec<Vec<E::Float>>,
}

fn allocate<T: Float>(what: &str, elements: usize) -> Result<Vec<T>, BackendError> {
    let bytes = elements.saturating_add(CANARY).saturating_mul(size_of::<T>());
    let mut data = Vec::new();
    let reserved = data.try_reserve_exact(elements.saturating_add(CANARY));
    reserved.map_err(|_| BackendError::OutOfMemory { what: what.into(), requested: bytes })?;
    data.resize(elements, T::NAN);
    data.resize(elements + CANARY, T::GUARD);
    Ok(data)
}

impl<E: Engine> HostProgram<E> {
    pub fn load(artifact: Artifact, weights: &dyn Parameters, engine: E) -> Result<Self, BackendError> {
        let mut slots = Vec::with_capacity(artifact.slots().len());
        for (i, slot) in artifact.slots().iter().enumerate() {
            slots.push(match slot.element {
                Element::Float => allocate(&format!("slot {i}"), slot.elements)?,
                Element::Index => Vec::new(),
            });
        }
        let mut program = HostProgram { ledger: Ledger::new(artifact), engine, slots };
        load_sources(&mut program, weights)?;
        Ok(program)
    }

    fn step(&mut self, id: NodeId, rows: usize) -> Result<(), BackendError> {
        let Place { slot, rows: written } = self.ledger.step(id, rows)?;
        // the slot is taken out while its step runs, so that a step reading it would find nothing (invariant 4)
        let mut out = std::mem::take(&mut self.slots[slot]);
        let node = self.ledger.node(id);
        let used = written * node.shape.len();
        let mut step = Step {
            node,
            nodes: [node; INPUTS_MAX],
            inputs: [Operand { floats: &[], indices: &[], row: 0 }; INPUTS_MAX],
            rows,
        };
        for (i, &input) in node.inputs.iter().enumerate() {
            let (source, from) = (self.ledger.node(input), self.ledger.slot(input)?);
            let row = source.shape.len();
            step.nodes[i] = source;
            step.inputs[i] = match source.element() {
                Element::Float => {
                    Operand { floats: &self.slots[from][..self.ledger.rows(from) * row], indices: &[], row }
                }
                Element::Index => Operand { floats: &[], indices: self.ledger.list(from), row },
            };
        }
        if cfg!(debug_assertions) {
            out[..used].fill(E::Float::NAN);
        }
        let mut result = self.engine.step(&step, &mut out[..used]);
        let elements = out.len() - CANARY;
        if cfg!(debug_assertions) && out[elements..].iter().any(|&x| x != E::Float::GUARD) {
            result = Err(inconsistent(node, "the step wrote behind its slot".into()));
        }
        self.slots[slot] = out;
        result
    }
}

impl<E: Engine> Program for HostProgram<E> {
    fn artifact(&self) -> &Artifact {
        self.ledger.artifact()
    }

    fn write(&mut self, id: NodeId, data: TensorRef<'_>) -> Result<(), BackendError> {
        let Place { slot, rows } = self.ledger.write(id, data)?;
        let node = self.ledger.node(id);
        let logical: Vec<E::Float> = match data {
            TensorRef::F32(d) => d.iter().map(|&x| E::Float::from_f64(f64::from(x))).collect(),
            TensorRef::F64(d) => d.iter().map(|&x| E::Float::from_f64(x)).collect(),
            TensorRef::U32(_) => return Ok(()),
        };
        self.engine.store(node, rows, &logical, &mut self.slots[slot][..logical.len()]);
        if node.op == Op::Parameter {
            self.engine.parameter_changed(id);
        }
        Ok(())
    }

    fn run(&mut self, entry: EntryId, rows: usize) -> Result<(), BackendError> {
        // copied so that `step` may borrow the program
        let planned = self.ledger.entry(entry, rows)?;
        let (steps, updates) = (planned.steps.clone(), planned.updates.clone());
        for &id in &steps {
            if let Err(error) = self.step(id, rows) {
                self.ledger.forget(&steps);
                return Err(error);
            }
        }
        for (to, from, how) in updates {
            match self.ledger.update(to, from, how, rows)? {
                Move::Swap(a, b) => self.slots.swap(a, b),
                Move::Copy { from, to, elements } => {
                    let source = std::mem::take(&mut self.slots[from]);
                    // a list is the ledger's
                    if !source.is_empty() {
                        self.slots[to][..elements].copy_from_slice(&source[..elements]);
                    }
                    self.slots[from] = source;
                }
            }
            if self.ledger.node(to).op == Op::Parameter {
                self.engine.parameter_changed(to);
            }
        }
        Ok(())
    }

    fn read(&mut self, id: NodeId, out: TensorMut<'_>) -> Result<(), BackendError> {
        let Place { slot, rows } = self.ledger.read(id, &out)?;
        let mut logical = vec![E::Float::NAN; out.len()];
        self.engine.fetch(self.ledger.node(id), rows, &self.slots[slot][..out.len()], &mut logical);
        match out {
            TensorMut::F32(o) => o.iter_mut().zip(&logical).for_each(|(o, x)| *o = x.to_f64() as f32),
            TensorMut::F64(o) => o.iter_mut().zip(&logical).for_each(|(o, x)| *o = x.to_f64()),
        }
        Ok(())
    }
}
