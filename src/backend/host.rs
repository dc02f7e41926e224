//! What the two devices in host memory (`cpu`, `reference`) share: slots and their moves. They differ in element type,
//! layout and arithmetic, which is the [`Engine`].
//!
//! In debug builds (tests) every slot starts as NaN and is filled with NaN again before it is written, so a value that nobody
//! wrote is seen, and carries a canary behind its last element, so a short or long write is seen at the step that made it. In
//! others a slot starts as the system's zero pages, which take no memory until something is written: an artifact holds entries that
//! a program may never run.
//!
//! All threads share a step, and then the next; or each takes a stretch of steps alone, some rows after the others
//! (`stretch.rs`), where the engine says so.

use super::layout::dims3;
use super::ledger::{Ledger, Move, Place, inconsistent};
use super::memory::{Shared, Zeroed};
use super::problems::Cost;
use super::profile::{Profile, Recorder, Task};
use super::stretch::{Stretch, row_stride, stretches};
use super::threads;
use super::{BackendError, Parameters, Program, load_sources};
use crate::graph::op::{Element, Op};
use crate::graph::plan::{Artifact, EntryId, View};
use crate::graph::{Extent, Node, NodeId};
use crate::tensor::{TensorMut, TensorRef};
use crate::weights::Held;
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

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

/// One input of a step: the step's rows, or all valid ones if it is looked up in by a row list.
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
    /// Rows that are computed.
    pub rows: usize,
    /// Rows of the run that they are of.
    pub all_rows: usize,
    /// Channels from one pixel of the result to the next.
    pub pixel: usize,
}

impl<'a, T> Step<'a, T> {
    /// The pixels of input `i`, which may be a view: from its first float to its last, and the channels from one pixel to the
    /// next.
    pub fn pixels(&self, i: usize) -> (&'a [T], usize) {
        let operand = &self.inputs[i];
        let rows = if self.nodes[i].extent == Extent::Rows { self.rows } else { 1 };
        (&operand.floats[..extent(self.nodes[i], rows, operand.pixel)], operand.pixel)
    }

    /// The floats of input `i`, cut to the step's rows.
    pub fn floats(&self, i: usize) -> &'a [T] {
        let operand = &self.inputs[i];
        match self.nodes[i].extent {
            Extent::Rows => &operand.floats[..self.rows * operand.row],
            Extent::Whole => operand.floats,
        }
    }

    /// The indices of input `i`, one a row.
    pub fn indices(&self, i: usize) -> &'a [u32] {
        self.inputs[i].indices
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
pub(super) trait Engine: Send + Sync {
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
    /// Whether a thread had better take such a step alone, on rows of its own, than all threads every step.
    fn alone(&self, _node: &Node, _inputs: &[&Node]) -> bool {
        false
    }
    /// Elements of values between steps that a thread has in its caches.
    fn near(&self) -> usize {
        0
    }
    /// Packs what the step reads packed. Called before a step on any rows of a run.
    fn prepare(&mut self, _step: &Step<'_, Self::Float>) -> Result<(), BackendError> {
        Ok(())
    }
    /// Computes one step into `out` (exactly `rows` rows of the node, or its whole).
    fn step(&self, step: &Step<'_, Self::Float>, out: &mut [Self::Float]) -> Result<(), BackendError>;
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
    /// Of each entry.
    stretches: Vec<Vec<Stretch>>,
    /// Threads' own memory, while none uses it.
    own: Mutex<Vec<Zeroed<E::Float>>>,
    recorder: Recorder,
}

/// Rows of a run, and where their floats lie, slot by slot.
struct Piece<'a, T> {
    rows: Range<usize>,
    all_rows: usize,
    cells: &'a [Shared<T>],
    /// Whether a slot holds no rows but these.
    own: &'a [bool],
}

impl<T> Piece<'_, T> {
    /// The first of these rows in a slot.
    fn first(&self, slot: usize) -> usize {
        if self.own[slot] { 0 } else { self.rows.start }
    }
}

fn allocate<T: Float>(what: &str, elements: usize) -> Result<Zeroed<T>, BackendError> {
    let with_canary = elements.saturating_add(CANARY);
    let data = Zeroed::new(with_canary);
    let requested = with_canary.saturating_mul(size_of::<T>());
    let mut data = data.ok_or_else(|| BackendError::OutOfMemory { what: what.into(), requested })?;
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
                Element::Float if !without[i] => allocate(&format!("slot {i}"), slot.elements)?,
                Element::Float | Element::Index => Zeroed::default(),
            });
        }
        let inputs = |id: NodeId| artifact.graph().node(id).inputs.iter().map(|&input| artifact.graph().node(input));
        let alone = |id| engine.alone(artifact.graph().node(id), &inputs(id).collect::<Vec<_>>());
        let stretches = artifact.entries().iter().map(|entry| stretches(&artifact, entry, alone)).collect();
        let (ledger, own, recorder) = (Ledger::new(artifact), Mutex::default(), Recorder::default());
        let mut program = HostProgram { ledger, engine, slots, places, stretches, own, recorder };
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
                    self.slots[slot] = allocate(&format!("slot {slot}"), logical.len())?;
                }
            }
        }
        self.engine.store(node, rows, &logical, &mut self.slots[slot][..logical.len()]);
        if node.op == Op::Parameter {
            self.engine.parameter_changed(id);
        }
        Ok(())
    }

    /// The step of `id` on the rows of `piece`, and which elements of its slot it writes.
    ///
    /// # Safety
    /// Nobody writes what the step reads while it lives.
    unsafe fn ready<'a>(
        ledger: &'a Ledger,
        places: &'a [Lies],
        id: NodeId,
        piece: &Piece<'_, E::Float>,
    ) -> Result<(Step<'a, E::Float>, Range<usize>), BackendError> {
        let (artifact, node) = (ledger.artifact(), ledger.node(id));
        let own = |node: &Node| View { first: 0, pixel: dims3(&node.shape)[0] };
        let rows = piece.rows.len();
        // where the piece's part of a value begins, and how long it is
        let part = |id: NodeId, slot: usize| {
            let (node, view) = (ledger.node(id), artifact.view_of(id));
            let View { first, pixel } = view.unwrap_or(own(node));
            match node.extent {
                Extent::Whole => (first, node.shape.len()),
                Extent::Rows => {
                    let start = piece.first(slot) * row_stride(node, view.map(|view| view.pixel));
                    (start + first, extent(node, rows, pixel))
                }
            }
        };
        let to = artifact.view_of(id).unwrap_or(own(node));
        let nothing = Operand { floats: &[][..], indices: &[], row: 0, pixel: 0, held: None };
        let (nodes, inputs) = ([node; INPUTS_MAX], [nothing; INPUTS_MAX]);
        let mut step = Step { node, nodes, inputs, rows, all_rows: piece.all_rows, pixel: to.pixel };
        for (i, &input) in node.inputs.iter().enumerate() {
            let (source, from) = (ledger.node(input), ledger.slot(input)?);
            let row = source.shape.len();
            step.nodes[i] = source;
            let place = &places[input.index()];
            // what lies in place already is in the slot that is written; the engine has what it keeps
            if artifact.lies_in_place(id, i) || matches!(place, Lies::Kept) {
                continue;
            }
            let pixel = artifact.view_of(input).unwrap_or(own(source)).pixel;
            let held = place.held().and_then(|held| E::Float::as_held(held));
            step.inputs[i] = match (source.element(), held) {
                (Element::Index, _) => Operand { indices: &ledger.list(from)[piece.rows.clone()], row, ..nothing },
                (Element::Float, Some(floats)) => Operand { floats, row, pixel, held: place.held(), ..nothing },
                (Element::Float, None) => {
                    let gathered = (0, ledger.rows(from) * row);
                    let (start, len) = if node.op.gathers(i) { gathered } else { part(input, from) };
                    // SAFETY: the caller's promise; the ledger says that so many rows are there.
                    Operand { floats: unsafe { piece.cells[from].read(start, len) }, row, pixel, ..nothing }
                }
            };
        }
        let (start, len) = part(id, ledger.slot(id)?);
        Ok((step, start..start + len))
    }

    /// Computes the step of `id` on the rows of `piece`.
    ///
    /// # Safety
    /// As [`HostProgram::ready`]; and nobody else uses what the step writes.
    unsafe fn step(&self, id: NodeId, piece: &Piece<'_, E::Float>) -> Result<(), BackendError> {
        let artifact = self.ledger.artifact();
        if artifact.is_done_in_place(id) {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        let (step, written) = unsafe { HostProgram::<E>::ready(&self.ledger, &self.places, id, piece) }?;
        let (node, cells) = (step.node, piece.cells[self.ledger.slot(id)?]);
        // SAFETY: the caller's promise; no step reads the slot that it writes, says the ledger.
        let out = unsafe { cells.slice(written.start, written.len()) };
        // the inputs of a concat that lie in place are part of its result
        if cfg!(debug_assertions) && node.op != Op::Concat {
            let channels = dims3(&node.shape)[0];
            out.chunks_mut(step.pixel).for_each(|p| p[..channels].fill(E::Float::NAN));
        }
        let start = self.recorder.start();
        let result = self.engine.step(&step, out);
        self.recorder.add(start, || {
            let read = (0..node.inputs.len()).filter(|&i| !artifact.lies_in_place(id, i));
            let read: Vec<&Node> = read.map(|i| step.nodes[i]).collect();
            let task = Task::step(node, &step.nodes[..node.inputs.len()], step.rows, self.engine.way(&step));
            (task, Cost::of(node, &read, step.rows))
        });
        // SAFETY: no step writes there.
        let canary = unsafe { cells.read(cells.len() - CANARY, CANARY) };
        if cfg!(debug_assertions) && canary.iter().any(|&x| x != E::Float::GUARD) {
            return Err(inconsistent(node, "the step wrote behind its slot".into()));
        }
        result
    }

    /// Computes the steps of an entry on so many rows.
    fn steps(&mut self, entry: usize, steps: &[NodeId], rows: usize) -> Result<(), BackendError> {
        let cells: Vec<Shared<E::Float>> = self.slots.iter_mut().map(|slot| Shared::new(slot)).collect();
        let none = vec![false; cells.len()];
        let all = Piece { rows: 0..rows, all_rows: rows, cells: &cells, own: &none };
        let mut at = 0;
        while at < steps.len() {
            let stretch = self.stretches[entry].iter().find(|stretch| stretch.steps.start == at);
            let now = stretch.map_or(at..at + 1, |stretch| stretch.steps.clone());
            at = now.end;
            for &id in &steps[now.clone()] {
                self.ledger.step(id, rows)?;
                if self.ledger.artifact().is_done_in_place(id) {
                    continue;
                }
                // SAFETY: nobody else is here.
                let (step, _) = unsafe { HostProgram::<E>::ready(&self.ledger, &self.places, id, &all) }?;
                self.engine.prepare(&step)?;
            }
            match stretch {
                // SAFETY: nobody else is here.
                None => unsafe { self.step(steps[now.start], &all) }?,
                Some(stretch) => self.stretch(stretch, &steps[now], &all)?,
            }
        }
        Ok(())
    }

    /// Computes a stretch, piece by piece of its rows, the thread that takes one alone with it.
    fn stretch(&self, stretch: &Stretch, steps: &[NodeId], all: &Piece<'_, E::Float>) -> Result<(), BackendError> {
        let (threads, rows) = (threads::count(), all.all_rows);
        // rows that the threads cannot share evenly come last, and are shared step by step
        let even = if rows < 8 * threads { rows - rows % threads } else { rows };
        let most = (self.engine.near() / stretch.row().max(1)).max(1);
        let pieces = even.div_ceil(most).next_multiple_of(threads).min(even);
        let run = |rows: Range<usize>| self.piece(stretch, steps, &Piece { rows, ..*all });
        (0..pieces)
            .into_par_iter()
            .with_max_len(1)
            .try_for_each(|k| threads::alone(|| run(threads::piece(even, pieces, k))))?;
        if even < rows { run(even..rows) } else { Ok(()) }
    }

    /// Computes a stretch on the rows of `piece`.
    fn piece(&self, stretch: &Stretch, steps: &[NodeId], piece: &Piece<'_, E::Float>) -> Result<(), BackendError> {
        let rows = piece.rows.len();
        let lines = |row: usize| (rows * row).next_multiple_of(CANARY) + CANARY;
        let need: usize = stretch.own.iter().map(|&(_, row)| lines(row)).sum();
        let kept = self.own.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let mut memory = if kept.len() < need { allocate("a thread's own", need)? } else { kept };
        let mut left = &mut memory[..];
        let (mut cells, mut own) = (piece.cells.to_vec(), piece.own.to_vec());
        for &(slot, row) in &stretch.own {
            let (of_slot, rest) = left.split_at_mut(lines(row));
            if cfg!(debug_assertions) {
                of_slot[lines(row) - CANARY..].fill(E::Float::GUARD);
            }
            (cells[slot], own[slot], left) = (Shared::new(of_slot), true, rest);
        }
        let piece = Piece { rows: piece.rows.clone(), cells: &cells, own: &own, ..*piece };
        // SAFETY: other threads have other rows of the slots, which hold no rows of another length, and memory of their own.
        let done = steps.iter().try_for_each(|&id| unsafe { self.step(id, &piece) });
        self.own.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        done
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
        // copied so that steps may borrow the program
        let planned = self.ledger.entry(entry, rows)?;
        let (steps, updates) = (planned.steps.clone(), planned.updates.clone());
        // on a thread of the pool: from any other, every step would wake one and wait for it
        let (done, ()) = rayon::join(|| self.steps(entry.0, &steps, rows), || ());
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
