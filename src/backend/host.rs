//! What the two devices in host memory (`cpu`, `reference`) share: slots and their moves. They differ in element type,
//! layout and arithmetic, which is the [`Engine`].
//!
//! In debug builds (tests) every slot starts as NaN and is filled with NaN again before it is written, so a value that nobody
//! wrote is seen, and carries a canary behind its last element, so a short or long write is seen at the step that made it. In
//! others a slot starts as the system's zero pages, which take no memory until something is written: an artifact holds entries that
//! a program may never run.

use super::layout::dims3;
use super::ledger::{Ledger, Move, Place, inconsistent};
use super::memory::Zeroed;
use super::problems::Cost;
use super::profile::{Profile, Recorder, Task};
use super::{BackendError, Parameters, Program, load_sources};
use crate::graph::op::{Element, Op};
use crate::graph::plan::{Artifact, EntryId, View};
use crate::graph::{Extent, Node, NodeId};
use crate::tensor::{TensorMut, TensorRef};
use crate::weights::Held;
use std::borrow::Cow;
use std::sync::Arc;

/// Most inputs an op has (`intervene-conv`).
pub(super) const INPUTS_MAX: usize = 6;
/// Elements behind each slot that no step may touch.
const CANARY: usize = 16;

/// Elements that an engine computes with.
pub(super) trait Float: bytemuck::Pod + Send + Sync + PartialEq {
    /// The fill of unwritten slots.
    const NAN: Self;
    /// A value that is no result: recognised by its bits.
    const GUARD: Self;
    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    /// The same numbers, borrowed where they are of this type.
    fn from_f32(x: &[f32]) -> Cow<'_, [Self]>;
    /// The same as they lie, if they are of this type.
    fn as_held(x: &[f32]) -> Option<&[Self]>;
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
    fn from_f32(x: &[f32]) -> Cow<'_, [f32]> {
        Cow::Borrowed(x)
    }
    fn as_held(x: &[f32]) -> Option<&[f32]> {
        Some(x)
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
    fn from_f32(x: &[f32]) -> Cow<'_, [f64]> {
        x.iter().map(|&x| f64::from(x)).collect()
    }
    fn as_held(_: &[f32]) -> Option<&[f64]> {
        None
    }
}

/// One input of a step: all valid rows of its slot (a gathering op reads more rows than the run has).
#[derive(Clone, Copy)]
pub(super) struct Operand<'a, T> {
    pub floats: &'a [T],
    pub indices: &'a [u32],
    /// Elements of a row (of the whole, for values without rows).
    pub row: usize,
    /// Channels from one pixel to the next: more than the value's own where it is a view.
    pub pixel: usize,
    /// Where the floats lie, if that is in no slot but with the weights: whoever has packed them may release their memory.
    pub held: Option<&'a Held>,
}

/// One step of an entry, ready to compute.
pub(super) struct Step<'a, T> {
    pub node: &'a Node,
    /// Nodes of the inputs, for their shapes.
    pub nodes: [&'a Node; INPUTS_MAX],
    pub inputs: [Operand<'a, T>; INPUTS_MAX],
    /// Rows of this run.
    pub rows: usize,
    /// Channels from one pixel of the result to the next.
    pub pixel: usize,
}

impl<'a, T> Step<'a, T> {
    /// The pixels of input `i`, which may be a view: from its first float to its last of this run, and the channels from
    /// one pixel to the next.
    pub fn pixels(&self, i: usize) -> (&'a [T], usize) {
        let operand = &self.inputs[i];
        let rows = if self.nodes[i].extent == Extent::Rows { self.rows } else { 1 };
        (&operand.floats[..extent(self.nodes[i], rows, operand.pixel)], operand.pixel)
    }

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

impl<'a, T> Step<'a, T> {
    /// Scale and shift of a convolution's prologue.
    pub fn prologue(&self) -> Option<(&'a [T], &'a [T])> {
        let scale = self.node.op.prologue_input(self.node.inputs.len())?;
        Some((self.floats(scale), self.floats(scale + 1)))
    }

    /// The bias of a convolution.
    pub fn conv_bias(&self) -> Option<&'a [T]> {
        let end = self.node.op.prologue_input(self.node.inputs.len()).unwrap_or(self.node.inputs.len());
        (end == 3).then(|| self.floats(2))
    }
}

/// Floats from the first to the last of `rows` rows of `node` whose pixels lie `pixel` channels apart.
fn extent(node: &Node, rows: usize, pixel: usize) -> usize {
    let [c, h, w] = dims3(&node.shape);
    if pixel == c { rows * node.shape.len() } else { ((rows * h * w).max(1) - 1) * pixel + c }
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
    /// Whether no step reads the parameter as it lies in a slot, so that it needs none: [`Engine::keep`] gets it. Asked of those
    /// that no entry changes.
    fn keeps(&self, _artifact: &Artifact, _parameter: NodeId) -> bool {
        false
    }
    /// Keeps what steps need of such a parameter.
    fn keep(&mut self, _artifact: &Artifact, _parameter: NodeId, _logical: &[Self::Float]) {}
    /// Such a parameter's elements, in logical order.
    fn kept(&self, _parameter: NodeId, _logical: &mut [Self::Float]) {}
    /// By which of several ways it computes a step, for a profile.
    fn way(&self, _step: &Step<'_, Self::Float>) -> Option<&'static str> {
        None
    }
    /// Computes one step into `out` (exactly `rows` rows of the node, or its whole).
    fn step(&mut self, step: &Step<'_, Self::Float>, out: &mut [Self::Float]) -> Result<(), BackendError>;
}

/// Where a node's floats lie.
enum Lies {
    /// In its slot.
    InSlot,
    /// As the engine keeps them.
    Kept,
    /// With the weights that the program was loaded from: no entry changes them. In a slot if they lie nowhere that lasts, or
    /// once others are written.
    Held(Option<Held>),
}

impl Lies {
    fn held(&self) -> Option<&Held> {
        if let Lies::Held(held) = self { held.as_ref() } else { None }
    }

    /// The floats, which may be those of the node's slot.
    fn floats<'a, T: Float>(&'a self, slot: &'a [T]) -> &'a [T] {
        self.held().and_then(|held| T::as_held(held)).unwrap_or(slot)
    }
}

/// A program in host memory.
pub(super) struct HostProgram<E: Engine> {
    ledger: Ledger,
    engine: E,
    /// Floats of each slot; nothing for slots of indices, which the ledger holds, and of parameters that lie elsewhere.
    slots: Vec<Zeroed<E::Float>>,
    /// Where parameters lie, by the node's number.
    places: Vec<Lies>,
    recorder: Recorder,
}

fn allocate<T: Float>(slot: usize, elements: usize) -> Result<Zeroed<T>, BackendError> {
    let with_canary = elements.saturating_add(CANARY);
    let data = Zeroed::new(with_canary);
    let requested = with_canary.saturating_mul(size_of::<T>());
    let mut data = data.ok_or_else(|| BackendError::OutOfMemory { what: format!("slot {slot}"), requested })?;
    if cfg!(debug_assertions) {
        let (own, canary) = data.split_at_mut(elements);
        own.fill(T::NAN);
        canary.fill(T::GUARD);
    }
    Ok(data)
}

impl<E: Engine> HostProgram<E> {
    pub fn load(artifact: Artifact, weights: &dyn Parameters, engine: E) -> Result<Self, BackendError> {
        let mut places: Vec<Lies> = artifact.graph().nodes().iter().map(|_| Lies::InSlot).collect();
        let mut without = vec![false; artifact.slots().len()];
        for id in artifact.parameters() {
            let mut updates = artifact.entries().iter().flat_map(|entry| &entry.updates);
            if updates.any(|&(to, from, _)| to == id || from == id) {
                continue;
            }
            places[id.index()] = if engine.keeps(&artifact, id) { Lies::Kept } else { Lies::Held(None) };
            artifact.slot_of(id).into_iter().for_each(|slot| without[slot] = true);
        }
        let mut slots = Vec::with_capacity(artifact.slots().len());
        for (i, slot) in artifact.slots().iter().enumerate() {
            slots.push(match slot.element {
                Element::Float if !without[i] => allocate(i, slot.elements)?,
                Element::Float | Element::Index => Zeroed::default(),
            });
        }
        let mut program =
            HostProgram { ledger: Ledger::new(artifact), engine, slots, places, recorder: Recorder::default() };
        load_sources(&mut program, weights, HostProgram::hold)?;
        Ok(program)
    }

    /// Reads a parameter where it lies with the weights, if it can: says whether it does.
    fn hold(&mut self, id: NodeId, held: Option<Held>) -> bool {
        let (Lies::Held(place), Some(held)) = (&mut self.places[id.index()], held) else { return false };
        let holds = E::Float::as_held(&held).is_some() && self.ledger.write(id, TensorRef::F32(&held)).is_ok();
        *place = holds.then_some(held);
        holds
    }

    /// From now on steps and moves are added to `profile`, if there is one.
    pub fn profiled(self, profile: Option<Arc<Profile>>) -> Self {
        HostProgram { recorder: Recorder(profile), ..self }
    }

    fn put(&mut self, id: NodeId, data: TensorRef<'_>) -> Result<(), BackendError> {
        let Place { slot, rows } = self.ledger.write(id, data)?;
        let node = self.ledger.node(id);
        let logical: Cow<'_, [E::Float]> = match data {
            TensorRef::F32(d) => E::Float::from_f32(d),
            TensorRef::F64(d) => d.iter().map(|&x| E::Float::from_f64(x)).collect(),
            TensorRef::U32(_) => return Ok(()),
        };
        match &mut self.places[id.index()] {
            Lies::InSlot => {}
            Lies::Kept => {
                self.engine.keep(self.ledger.artifact(), id, &logical);
                return Ok(());
            }
            Lies::Held(held) => {
                *held = None;
                if self.slots[slot].is_empty() {
                    self.slots[slot] = allocate(slot, logical.len())?;
                }
            }
        }
        self.engine.store(node, rows, &logical, &mut self.slots[slot][..logical.len()]);
        if node.op == Op::Parameter {
            self.engine.parameter_changed(id);
        }
        Ok(())
    }

    fn step(&mut self, id: NodeId, rows: usize) -> Result<(), BackendError> {
        let Place { slot, rows: written } = self.ledger.step(id, rows)?;
        if self.ledger.artifact().is_done_in_place(id) {
            return Ok(());
        }
        // the slot is taken out while its step runs, so that a step reading it would find nothing (invariant 4)
        let mut out = std::mem::take(&mut self.slots[slot]);
        let artifact = self.ledger.artifact();
        let node = self.ledger.node(id);
        let own = |node: &Node| View { first: 0, pixel: dims3(&node.shape)[0] };
        let to = artifact.view_of(id).unwrap_or(own(node));
        let used = to.first..to.first + extent(node, written, to.pixel);
        let nothing = Operand { floats: &[][..], indices: &[], row: 0, pixel: 0, held: None };
        let mut step = Step { node, nodes: [node; INPUTS_MAX], inputs: [nothing; INPUTS_MAX], rows, pixel: to.pixel };
        for (i, &input) in node.inputs.iter().enumerate() {
            let (source, from) = (self.ledger.node(input), self.ledger.slot(input)?);
            let (row, rows) = (source.shape.len(), self.ledger.rows(from));
            step.nodes[i] = source;
            // what lies in place already is in the slot that was taken out; the engine has what it keeps
            if artifact.lies_in_place(id, i) || matches!(self.places[input.index()], Lies::Kept) {
                continue;
            }
            step.inputs[i] = match (source.element(), artifact.view_of(input)) {
                (Element::Index, _) => Operand { indices: self.ledger.list(from), row, ..nothing },
                (Element::Float, None) => {
                    let place = &self.places[input.index()];
                    let floats = &place.floats(&self.slots[from])[..rows * row];
                    Operand { floats, row, pixel: own(source).pixel, held: place.held(), ..nothing }
                }
                (Element::Float, Some(View { first, pixel })) => {
                    let floats = &self.slots[from][first..first + extent(source, rows, pixel)];
                    Operand { floats, row, pixel, ..nothing }
                }
            };
        }
        // the inputs of a concat that lie in place are part of its result
        if cfg!(debug_assertions) && node.op != Op::Concat {
            let channels = own(node).pixel;
            out[used.clone()].chunks_mut(to.pixel).for_each(|p| p[..channels].fill(E::Float::NAN));
        }
        let start = self.recorder.start();
        let mut result = self.engine.step(&step, &mut out[used]);
        self.recorder.add(start, || {
            let read = (0..node.inputs.len()).filter(|&i| !artifact.lies_in_place(id, i));
            let read: Vec<&Node> = read.map(|i| step.nodes[i]).collect();
            let task = Task::step(node, &step.nodes[..node.inputs.len()], rows, self.engine.way(&step));
            (task, Cost::of(node, &read, rows))
        });
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
        let start = self.recorder.start();
        self.put(id, data)?;
        self.recorder.add(start, || Task::moved("write", self.ledger.node(id), data.len()));
        Ok(())
    }

    fn run(&mut self, entry: EntryId, rows: usize) -> Result<(), BackendError> {
        // copied so that `step` may borrow the program
        let planned = self.ledger.entry(entry, rows)?;
        let (steps, updates) = (planned.steps.clone(), planned.updates.clone());
        // on a thread of the pool: from any other, every step would wake one and wait for it
        let (done, ()) = rayon::join(|| steps.iter().try_for_each(|&id| self.step(id, rows)), || ());
        if let Err(error) = done {
            self.ledger.forget(&steps);
            return Err(error);
        }
        for (to, from, how) in updates {
            let start = self.recorder.start();
            let mut moved = 0;
            match self.ledger.update(to, from, how, rows)? {
                Move::Swap(a, b) => self.slots.swap(a, b),
                Move::Copy { from, to, elements } => {
                    moved = elements;
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
            self.recorder.add(start, || Task::moved("update", self.ledger.node(to), moved));
        }
        Ok(())
    }

    fn read(&mut self, id: NodeId, out: TensorMut<'_>) -> Result<(), BackendError> {
        let start = self.recorder.start();
        let Place { slot, rows } = self.ledger.read(id, &out)?;
        let mut logical = vec![E::Float::NAN; out.len()];
        if matches!(self.places[id.index()], Lies::Kept) {
            self.engine.kept(id, &mut logical);
        } else {
            let floats = self.places[id.index()].floats(&self.slots[slot]);
            self.engine.fetch(self.ledger.node(id), rows, &floats[..out.len()], &mut logical);
        }
        match out {
            TensorMut::F32(o) => o.iter_mut().zip(&logical).for_each(|(o, x)| *o = x.to_f64() as f32),
            TensorMut::F64(o) => o.iter_mut().zip(&logical).for_each(|(o, x)| *o = x.to_f64()),
        }
        self.recorder.add(start, || Task::moved("read", self.ledger.node(id), logical.len()));
        Ok(())
    }
}
