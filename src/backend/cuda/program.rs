//! A planned graph in device memory: slots allocated once, weights packed on the device, each step a launch or two.
//!
//! Values with a C x H x W row are dense NHWC in their slot, the rest as they are. One stream computes, a second one uploads:
//! a write goes through pinned memory to a staging buffer and is put into its slot, channels-last, behind the launches that
//! still use the slot; so the host prepares the next batch while this one runs. A read is the only wait.

use super::device::{Device, device_error};
use super::launch::conv::{self, Layout, PackedMut, Pixels, window_len};
use super::launch::optimizer::{AdamTensor, adam_fused};
use super::launch::{Queue, layout};
use super::step::{Action, Adam, Memory, Packed, Step, actions, packing, workspace_len};
use crate::backend::layout::{ConvShape, dims3, is_map};
use crate::backend::ledger::{Ledger, Move, Place, inconsistent};
use crate::backend::{BackendError, Parameters, Program, load_sources};
use crate::graph::op::{Element, Op};
use crate::graph::plan::{Artifact, EntryId, PlannedEntry, View};
use crate::graph::{Node, NodeId};
use crate::tensor::{TensorMut, TensorRef};
use cudarc::driver::result as driver;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode};
use cudarc::driver::{CudaEvent, CudaGraph, CudaSlice, CudaStream, DeviceRepr, DriverError, PinnedHostSlice};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// A buffer that an upload passes through, with the events after which its two sides may be used again.
struct Staging {
    pinned: PinnedHostSlice<f32>,
    device: CudaSlice<f32>,
    /// `pinned` has been read.
    uploaded: CudaEvent,
    /// `device` has been read.
    emptied: CudaEvent,
}

/// Launches of a full entry, recorded once and replayed as one call.
enum Recorded {
    /// Run once: worth recording the next time.
    Seen,
    Graph(Replay),
}

/// A graph that only its program uses.
struct Replay(CudaGraph);

// SAFETY: a graph must not be used by two threads at once. It is private to its program, and a program is used through
// `&mut self` alone.
unsafe impl Send for Replay {}

/// Fewer steps are not worth recording.
const RECORDED_STEPS_MIN: usize = 3;
/// Recordings that a program keeps. Swaps exchange the memory of slots, so that an entry has a recording for each
/// arrangement: two for a training step, up to six for a sweep's tail.
const RECORDINGS_MAX: usize = 64;

pub(super) struct CudaProgram {
    /// Used only by this program's stream; freed first.
    recorded: HashMap<(EntryId, Vec<u32>), Recorded>,
    ledger: Ledger,
    queue: Queue,
    uploads: Arc<CudaStream>,
    slots: Vec<Memory>,
    /// Which memory each slot has now, by the slot that it began with.
    arrangement: Vec<u32>,
    /// What each entry does, in order.
    actions: Vec<Arc<[Action]>>,
    packed: HashMap<(NodeId, Layout), Packed>,
    workspace: CudaSlice<f32>,
    /// Used in turn.
    staging: [Option<Staging>; 2],
    turn: usize,
    /// Where reads of maps are put into logical order; grows to the largest.
    unpacked: Option<CudaSlice<f32>>,
}

impl CudaProgram {
    pub fn load(device: Arc<Device>, artifact: Artifact, weights: &dyn Parameters) -> Result<Self, BackendError> {
        let fail = |e| device_error("making a stream", e);
        let queue = Queue { stream: device.context.new_stream().map_err(fail)?, device };
        let uploads = queue.device.context.new_stream().map_err(fail)?;
        let mut slots = Vec::with_capacity(artifact.slots().len());
        for (i, slot) in artifact.slots().iter().enumerate() {
            let what = format!("slot {i}");
            slots.push(match slot.element {
                Element::Float => {
                    let mut data = allocate::<f32>(&queue, &what, slot.elements)?;
                    if !queue.device.is_simulated() {
                        fill_with_nan(&queue, &mut data)?;
                    }
                    Memory::Floats(data)
                }
                Element::Index => Memory::Indices(allocate(&queue, &what, slot.elements)?),
            });
        }
        let arithmetic = queue.device.arithmetic();
        let mut packed = HashMap::new();
        let mut workspace = 0;
        for entry in artifact.entries() {
            for &id in &entry.steps {
                let node = artifact.graph().node(id);
                let inputs: Vec<&Node> = node.inputs.iter().map(|&i| artifact.graph().node(i)).collect();
                let view = node.inputs.first().and_then(|&x| artifact.view_of(x));
                workspace = workspace.max(workspace_len(node, &inputs, view, entry.capacity, arithmetic));
                if let Some((input, layout, shape)) = packing(node, &inputs, view, arithmetic) {
                    let key = (node.inputs[input], layout);
                    if let Entry::Vacant(place) = packed.entry(key) {
                        let what = format!("packed \"{}\"", inputs[input].name);
                        let data = allocate(&queue, &what, conv::packed_len(&shape, layout))?;
                        place.insert(Packed { data, fresh: false });
                    }
                }
            }
        }
        let workspace = allocate(&queue, "the workspace", workspace.max(1))?;
        let actions = artifact.entries().iter().map(|e| actions(artifact.graph(), &e.steps).into()).collect();
        let ledger = Ledger::new(artifact);
        let staging = [None, None];
        let mut program = CudaProgram {
            recorded: HashMap::new(),
            actions,
            arrangement: (0..slots.len() as u32).collect(),
            ledger,
            queue,
            uploads,
            slots,
            packed,
            workspace,
            staging,
            turn: 0,
            unpacked: None,
        };
        load_sources(&mut program, weights, |_, _, _| false)?;
        Ok(program)
    }
}

impl CudaProgram {
    /// Packs a weight again if it changed, or if it is computed and no parameter.
    fn pack(&mut self, weight: NodeId, layout: Layout, shape: &ConvShape) -> Result<(), BackendError> {
        let (node, slot) = (self.ledger.node(weight), self.ledger.slot(weight)?);
        let (Some(packed), Memory::Floats(data)) = (self.packed.get_mut(&(weight, layout)), &self.slots[slot]) else {
            return Err(inconsistent(node, "a weight without memory".into()));
        };
        if packed.fresh && node.op == Op::Parameter {
            return Ok(());
        }
        let from = self.queue.floats(data).first(node.shape.len());
        let to = PackedMut { floats: self.queue.floats_mut(&mut packed.data), layout };
        conv::pack(&self.queue, shape, from, to)?;
        packed.fresh = true;
        Ok(())
    }

    fn changed(&mut self, weight: NodeId) {
        self.packed.iter_mut().filter(|(key, _)| key.0 == weight).for_each(|(_, packed)| packed.fresh = false);
    }

    /// Packs the weight of a step, if its kernel wants one and it is one of those that `wanted` names.
    fn pack_for(&mut self, id: NodeId, wanted: impl Fn(&Node) -> bool) -> Result<(), BackendError> {
        let node = self.ledger.node(id);
        let inputs: Vec<&Node> = node.inputs.iter().map(|&i| self.ledger.node(i)).collect();
        let view = node.inputs.first().and_then(|&x| self.ledger.artifact().view_of(x));
        match packing(node, &inputs, view, self.queue.device.arithmetic()) {
            Some((input, layout, shape)) if wanted(inputs[input]) => self.pack(node.inputs[input], layout, &shape),
            _ => Ok(()),
        }
    }

    /// Puts the launches of a step that the ledger has booked into the stream.
    fn launch(&mut self, id: NodeId, rows: usize) -> Result<(), BackendError> {
        if self.ledger.artifact().is_done_in_place(id) {
            return Ok(());
        }
        let slot = self.ledger.slot(id)?;
        let CudaProgram { ledger, queue, slots, packed, workspace, .. } = self;
        let node = ledger.node(id);
        // lent, so that a step reading its own slot would find nothing (invariant 4)
        let mut out = match std::mem::replace(&mut slots[slot], Memory::Lent) {
            Memory::Floats(data) => data,
            other => {
                slots[slot] = other;
                return Err(inconsistent(node, "its slot holds no floats".into()));
            }
        };
        let [c, h, w] = dims3(&node.shape);
        let y = queue.floats_mut(&mut out);
        let to = match ledger.artifact().view_of(id) {
            None => Pixels { floats: y.first(ledger.rows(slot) * node.shape.len()), pixel: c },
            Some(View { first, pixel }) => {
                Pixels { floats: y.behind(first).first(window_len(rows * h * w, c, pixel)), pixel }
            }
        };
        let step = Step { ledger, queue, slots, packed, node, rows };
        let result = step.launch(id, to, queue.floats_mut(workspace));
        slots[slot] = Memory::Floats(out);
        result
    }

    /// Books and launches everything that an entry does.
    fn launch_all(&mut self, entry: EntryId, rows: usize) -> Result<(), BackendError> {
        for action in self.actions[entry.0].clone().iter() {
            match action {
                Action::Step(id) => {
                    self.ledger.step(*id, rows)?;
                    self.pack_for(*id, |_| true)?;
                    self.launch(*id, rows)?;
                }
                Action::Adam(adam) => self.launch_adam(adam, rows)?,
            }
        }
        Ok(())
    }

    /// Books an optimiser's steps and launches them together.
    fn launch_adam(&mut self, adam: &Adam, rows: usize) -> Result<(), BackendError> {
        let mut slots = Vec::with_capacity(3 * adam.tensors.len());
        for id in adam.tensors.iter().flat_map(|t| [t.mean, t.square, t.step]) {
            slots.push(self.ledger.step(id, rows)?.slot);
        }
        // lent, as the slots of single steps
        let mut lent = Vec::with_capacity(slots.len());
        for &slot in &slots {
            match std::mem::replace(&mut self.slots[slot], Memory::Lent) {
                Memory::Floats(data) => lent.push(data),
                other => {
                    self.slots[slot] = other;
                    break;
                }
            }
        }
        let whole = lent.len() == slots.len();
        let result = if whole { self.launch_adam_into(adam, &mut lent) } else { Ok(()) };
        for (&slot, data) in slots.iter().zip(lent) {
            self.slots[slot] = Memory::Floats(data);
        }
        match whole {
            true => result,
            false => Err(inconsistent(self.ledger.node(adam.rate), "an optimiser's slot holds no floats".into())),
        }
    }

    /// `outputs`: next mean, next square and next parameter of each tensor.
    fn launch_adam_into(&self, adam: &Adam, outputs: &mut [CudaSlice<f32>]) -> Result<(), BackendError> {
        let floats = |id: NodeId| {
            let node = self.ledger.node(id);
            match &self.slots[self.ledger.slot(id)?] {
                Memory::Floats(data) => Ok(self.queue.floats(data).first(node.shape.len())),
                Memory::Indices(_) | Memory::Lent => Err(inconsistent(node, "it has no floats to read".into())),
            }
        };
        let input = |id: NodeId, i: usize| floats(self.ledger.node(id).inputs[i]);
        let mut table = Vec::with_capacity(adam.tensors.len());
        for (t, outputs) in adam.tensors.iter().zip(outputs.chunks_exact_mut(3)) {
            let n = self.ledger.node(t.step).shape.len();
            let mut next = outputs.iter_mut().map(|data| self.queue.floats_mut(data).first(n));
            let (Some(next_m), Some(next_v), Some(next_p)) = (next.next(), next.next(), next.next()) else { continue };
            let (p, m, v, g) = (input(t.step, 0)?, input(t.mean, 0)?, input(t.square, 0)?, input(t.mean, 1)?);
            table.push(AdamTensor { p, m, v, g, next_p, next_m, next_v });
        }
        adam_fused(&self.queue, &table, adam.beta1, adam.beta2, adam.epsilon, floats(adam.rate)?)
    }

    /// Runs the steps: a full entry is recorded as a graph when it comes again, and replayed from then on.
    fn run_steps(&mut self, entry: EntryId, planned: &PlannedEntry, rows: usize) -> Result<(), BackendError> {
        let steps = &planned.steps;
        let key = (entry, self.arrangement.clone());
        let known = self.recorded.contains_key(&key);
        let worth = rows == planned.capacity && steps.len() >= RECORDED_STEPS_MIN;
        if !worth || (!known && self.recorded.len() >= RECORDINGS_MAX) {
            return self.launch_all(entry, rows);
        }
        if !known {
            // the first time, kernels may have to be loaded, which no recording can
            self.recorded.insert(key, Recorded::Seen);
            return self.launch_all(entry, rows);
        }
        // whether a weight must be packed again is no part of the recording
        for &id in steps {
            self.pack_for(id, |weight| weight.op == Op::Parameter)?;
        }
        let fail = |e| device_error("recording launches", e);
        if let Some(Recorded::Seen) = self.recorded.get(&key) {
            let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
            self.queue.stream.begin_capture(mode).map_err(fail)?;
            let launched = self.launch_all(entry, rows);
            // the capture is ended whatever happened in it
            let graph = self.queue.stream.end_capture(CUgraphInstantiate_flags(0));
            launched?;
            let Some(graph) = graph.map_err(fail)? else {
                return Err(fail(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)));
            };
            self.recorded.insert(key.clone(), Recorded::Graph(Replay(graph)));
        } else {
            for &id in steps {
                self.ledger.step(id, rows)?;
            }
        }
        match self.recorded.get(&key) {
            Some(Recorded::Graph(Replay(graph))) => {
                graph.launch().map_err(|e| device_error(&format!("the launches of \"{}\"", planned.name), e))
            }
            _ => Ok(()),
        }
    }

    /// Makes room for `elements` in the staging buffer whose turn it is.
    fn grow_staging(&mut self, elements: usize) -> Result<(), BackendError> {
        let place = &mut self.staging[self.turn];
        if place.as_ref().is_none_or(|s| s.device.len() < elements) {
            // what is in flight through the old one must be over before it is freed
            self.queue.stream.synchronize().map_err(|e| device_error("waiting for uploads", e))?;
            *place = None;
            let context = &self.queue.device.context;
            // SAFETY: every element is written before it is read.
            let pinned = unsafe { context.alloc_pinned(elements) };
            let pinned = pinned.map_err(|e| memory_error("pinned memory for uploads", 4 * elements, e))?;
            let device = allocate(&self.queue, "a buffer for uploads", elements)?;
            let event = || context.new_event(None).map_err(|e| device_error("making an event", e));
            let (uploaded, emptied) = (event()?, event()?);
            // memory is allocated in the order of one stream: the other may use it from here on
            emptied.record(&self.queue.stream).map_err(|e| device_error("recording an event", e))?;
            *place = Some(Staging { pinned, device, uploaded, emptied });
        }
        Ok(())
    }

    /// Logical rows of a map into its slot, channels-last.
    fn upload_map(&mut self, node: &Node, place: Place, data: TensorRef<'_>) -> Result<(), BackendError> {
        let fail = |e| device_error(&format!("uploading \"{}\"", node.name), e);
        let n = data.len();
        self.turn = 1 - self.turn;
        self.grow_staging(n)?;
        let CudaProgram { queue, uploads, slots, staging, turn, .. } = self;
        let (Some(staging), Memory::Floats(out)) = (&mut staging[*turn], &mut slots[place.slot]) else {
            return Err(inconsistent(node, "its slot holds no floats".into()));
        };
        staging.uploaded.synchronize().map_err(fail)?;
        fill(&mut staging.pinned.as_mut_slice().map_err(fail)?[..n], data);
        uploads.wait(&staging.emptied).map_err(fail)?;
        let pinned = &staging.pinned.as_slice().map_err(fail)?[..n];
        uploads.memcpy_htod(pinned, &mut staging.device.slice_mut(..n)).map_err(fail)?;
        staging.uploaded.record(uploads).map_err(fail)?;
        queue.stream.wait(&staging.uploaded).map_err(fail)?;
        let [c, h, w] = dims3(&node.shape);
        let y = queue.floats_mut(out).first(n);
        layout::to_channels_last(queue, place.rows, [c, h * w], queue.floats(&staging.device).first(n), y)?;
        staging.emptied.record(&queue.stream).map_err(fail)
    }
}

impl Program for CudaProgram {
    fn artifact(&self) -> &Artifact {
        self.ledger.artifact()
    }

    fn write(&mut self, id: NodeId, data: TensorRef<'_>) -> Result<(), BackendError> {
        let place = self.ledger.write(id, data)?;
        let node = self.ledger.node(id).clone();
        if is_map(&node, &node.shape) {
            return self.upload_map(&node, place, data);
        }
        let fail = |e| device_error(&format!("uploading \"{}\"", node.name), e);
        let stream = &self.queue.stream;
        match (&mut self.slots[place.slot], data) {
            // the driver has copied pageable memory when the call returns
            (Memory::Floats(out), TensorRef::F32(d)) => stream.memcpy_htod(d, out).map_err(fail)?,
            (Memory::Floats(out), TensorRef::F64(d)) => {
                let d: Vec<f32> = d.iter().map(|&x| x as f32).collect();
                stream.memcpy_htod(&d, out).map_err(fail)?;
            }
            (Memory::Indices(out), TensorRef::U32(d)) => stream.memcpy_htod(d, out).map_err(fail)?,
            _ => return Err(inconsistent(&node, "its slot is of another type".into())),
        }
        if node.op == Op::Parameter {
            self.changed(id);
        }
        Ok(())
    }

    fn run(&mut self, entry: EntryId, rows: usize) -> Result<(), BackendError> {
        let planned = self.ledger.entry(entry, rows)?;
        // copied so that steps may borrow the program
        let planned = planned.clone();
        if let Err(error) = self.run_steps(entry, &planned, rows) {
            self.ledger.forget(&planned.steps);
            return Err(error);
        }
        for (to, from, how) in planned.updates {
            match self.ledger.update(to, from, how, rows)? {
                Move::Swap(a, b) => {
                    self.slots.swap(a, b);
                    self.arrangement.swap(a, b);
                }
                Move::Copy { from, to, elements } => self.copy_slot(from, to, elements)?,
            }
            if self.ledger.node(to).op == Op::Parameter {
                self.changed(to);
            }
        }
        Ok(())
    }

    fn read(&mut self, id: NodeId, out: TensorMut<'_>) -> Result<(), BackendError> {
        let place = self.ledger.read(id, &out)?;
        let node = self.ledger.node(id).clone();
        let fail = |e| device_error(&format!("reading \"{}\"", node.name), e);
        let n = out.len();
        if is_map(&node, &node.shape) {
            if self.unpacked.as_ref().is_none_or(|u| u.len() < n) {
                self.unpacked = None;
                self.unpacked = Some(allocate(&self.queue, "a buffer for reads", n)?);
            }
            let (Some(unpacked), Memory::Floats(data)) = (&mut self.unpacked, &self.slots[place.slot]) else {
                return Err(inconsistent(&node, "its slot holds no floats".into()));
            };
            let [c, h, w] = dims3(&node.shape);
            let y = self.queue.floats_mut(unpacked).first(n);
            layout::to_logical(&self.queue, place.rows, [c, h * w], self.queue.floats(data).first(n), y)?;
        }
        let source = match (&self.unpacked, &self.slots[place.slot]) {
            (Some(unpacked), _) if is_map(&node, &node.shape) => unpacked,
            (_, Memory::Floats(data)) => data,
            _ => return Err(inconsistent(&node, "its slot holds no floats".into())),
        };
        let stream = &self.queue.stream;
        match out {
            TensorMut::F32(out) => {
                stream.memcpy_dtoh(&source.slice(..n), out).map_err(fail)?;
                stream.synchronize().map_err(fail)
            }
            TensorMut::F64(out) => {
                let mut narrow = vec![0.0f32; n];
                stream.memcpy_dtoh(&source.slice(..n), &mut narrow).map_err(fail)?;
                stream.synchronize().map_err(fail)?;
                out.iter_mut().zip(narrow).for_each(|(o, x)| *o = f64::from(x));
                Ok(())
            }
        }
    }
}

impl CudaProgram {
    fn copy_slot(&mut self, from: usize, to: usize, elements: usize) -> Result<(), BackendError> {
        let fail = |e| device_error("copying a value", e);
        let source = std::mem::replace(&mut self.slots[from], Memory::Lent);
        let stream = &self.queue.stream;
        let copied = match (&source, &mut self.slots[to]) {
            (Memory::Floats(s), Memory::Floats(d)) => stream.memcpy_dtod(&s.slice(..elements), d).map_err(fail),
            (Memory::Indices(s), Memory::Indices(d)) => stream.memcpy_dtod(&s.slice(..elements), d).map_err(fail),
            _ => {
                Err(BackendError::Device { what: "copying a value".into(), reason: "its slots differ in type".into() })
            }
        };
        self.slots[from] = source;
        copied
    }
}

impl Drop for CudaProgram {
    /// Memory is freed in the order of one stream; what the other still does with it must be over.
    fn drop(&mut self) {
        let _ = self.uploads.synchronize();
        let _ = self.queue.stream.synchronize();
    }
}

pub(super) fn allocate<T: DeviceRepr>(
    queue: &Queue,
    what: &str,
    elements: usize,
) -> Result<CudaSlice<T>, BackendError> {
    let bytes = elements.saturating_mul(size_of::<T>());
    // cudarc multiplies without a check
    if bytes > isize::MAX as usize {
        return Err(BackendError::OutOfMemory { what: what.into(), requested: bytes });
    }
    // SAFETY: slots are written before they are read; the ledger sees to it.
    unsafe { queue.stream.alloc(elements) }.map_err(|e| memory_error(what, bytes, e))
}

fn memory_error(what: &str, bytes: usize, error: DriverError) -> BackendError {
    match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => BackendError::OutOfMemory { what: what.into(), requested: bytes },
        _ => device_error(&format!("allocating {bytes} bytes for {what}"), error),
    }
}

/// Every bit set: a NaN that is no result.
fn fill_with_nan(queue: &Queue, data: &mut CudaSlice<f32>) -> Result<(), BackendError> {
    let (pointer, bytes) = (queue.floats(data).pointer(), size_of::<f32>() * data.len());
    // SAFETY: the memory is `data`'s, and all bit patterns are floats.
    let filled = unsafe { driver::memset_d8_async(pointer, 0xff, bytes, queue.stream.cu_stream()) };
    filled.map_err(|e| device_error("filling a slot", e))
}

fn fill(out: &mut [f32], data: TensorRef<'_>) {
    match data {
        TensorRef::F32(d) => out.copy_from_slice(d),
        TensorRef::F64(d) => out.iter_mut().zip(d).for_each(|(o, &x)| *o = x as f32),
        // the ledger let floats through only
        TensorRef::U32(_) => {}
    }
}
