//! The sweep: potential outcomes of every node on every image, from one pass of the prefix.
//!
//! For a block of images: front once (tap, code, the decoder's first convolution `pre`), then variants (image, set of
//! nodes) in batches: `pre` updated for the zeroed channels, the rest of the decoder, the tail. p_orig, p_idle and p_do
//! are runs of the same tail entry, so equal inputs give equal bits. A set that touches no live channel of an image is
//! never a row: its outcome is the idle one, and its effect exactly 0. Attacks run in the same artifact and
//! share its weights.
//!
//! Cost of one variant on the Fashion net at tap 2: 0.2 M multiply-adds for `pre` (9·32·676), 6.2 M for the decoder's
//! second convolution, 2.2 M + 0.4 M for the tail.

use crate::attack::victim as attack;
use crate::attack::{Attacked, Victim};
use crate::backend::{Backend, BackendError, Completed, Parameters, Program};
use crate::causal::intervention::NodeSet;
use crate::graph::op::Op;
use crate::graph::plan::{Artifact, Entry, EntryId, Footprint, plan};
use crate::graph::{Graph, GraphError, NodeId};
use crate::model::autoencoder::{Autoencoder, Lists};
use crate::model::{Head, Model, Tap};
use crate::tensor::{TensorMut, TensorRef};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use crate::attack::victim::LoadError as SweepError;

/// Rows of the device's batches, each at least 1; results do not depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Images a block: rows of the front and of attacks.
    pub images: usize,
    /// Variants a batch: rows of decoder and tail.
    pub variants: usize,
}

impl Batch {
    /// As many rows as suit the device (see [`Backend::batch_rows`]), at least 2 variants; results do not depend on it.
    ///
    /// # Errors
    /// [`GraphError`] when the subject's graph cannot be built.
    pub fn auto(subject: Subject<'_>, sets: usize, backend: &dyn Backend) -> Result<Batch, GraphError> {
        let built = build(subject, sets)?;
        let variant = Footprint::of(|rows| built.plan(Batch { images: 1, variants: 3 + rows }))?;
        let image = Footprint::of(|rows| built.plan(Batch { images: rows, variants: 4 }))?;
        let variants = backend.batch_rows(variant).clamp(2, 1024);
        Ok(Batch { images: backend.batch_rows(image).min(variants.div_ceil(2)), variants })
    }

    /// Half as many rows, `None` when there are no fewer.
    fn halved(self) -> Option<Batch> {
        let smaller = Batch { images: self.images.div_ceil(2), variants: self.variants.div_ceil(2) };
        (smaller != self).then_some(smaller)
    }
}

const FRONT: EntryId = EntryId(0);
const DECODE: EntryId = EntryId(1);
const TAIL: EntryId = EntryId(2);
const IDLE: EntryId = EntryId(3);
const EFFECT: EntryId = EntryId(4);
/// The first of an attack's.
const ATTACK: usize = 5;

/// Elements that logits are read as: f32, or f64 where the device is the reference.
pub trait Logit: Copy + Default {
    /// Room for a program to write into.
    fn room(out: &mut [Self]) -> TensorMut<'_>;
}

impl Logit for f32 {
    fn room(out: &mut [f32]) -> TensorMut<'_> {
        TensorMut::F32(out)
    }
}

impl Logit for f64 {
    fn room(out: &mut [f64]) -> TensorMut<'_> {
        TensorMut::F64(out)
    }
}

/// What a do sets its nodes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// 0: the concept is absent.
    Zero,
    /// What they are, times this; 1 changes nothing.
    Scaled(f32),
    /// These maps of every node (nodes x height x width), the same for all images: the mean over a data set.
    Maps(&'a [f32]),
    /// Codes that are not theirs: images x nodes x height x width.
    Others(&'a [f32]),
}

impl<'a> Value<'a> {
    /// That of images `from..to`, whose codes have `code` numbers each.
    fn of_images(self, from: usize, to: usize, code: usize) -> Result<Value<'a>, BackendError> {
        let wrong = |got: usize, want: usize| BackendError::Transfer {
            node: "code.difference".into(),
            reason: format!("values of {got} numbers where {want} are needed"),
        };
        match self {
            Value::Maps(maps) if maps.len() != code => Err(wrong(maps.len(), code)),
            Value::Others(codes) => {
                let rows = codes.get(from * code..to * code);
                rows.map(Value::Others).ok_or_else(|| wrong(codes.len(), to * code))
            }
            other => Ok(other),
        }
    }
}

/// Potential outcomes of some images under one input, as logits: rows of `classes`.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits<T = f32> {
    /// The host alone: images x classes.
    pub orig: Vec<T>,
    /// Autoencoder inserted, nothing changed: images x classes.
    pub idle: Vec<T>,
    /// Autoencoder inserted, a set of nodes zeroed: images x sets x classes.
    pub done: Vec<T>,
    /// Whether the set touched a channel that it changes (a live one, where it sets to 0): images x sets. Where it did not, `done` is
    /// a copy of `idle`.
    pub live: Vec<bool>,
}

/// Says what is taken away of an image's code: which image of those that are run, which of the times, its code, and room for what is
/// taken (0 where nothing is), both nodes x height x width.
pub type Take<'a> = dyn FnMut(usize, usize, &[f32], &mut [f32]) + 'a;

/// Class-weighted effects of every set on some images, made where the logits are.
#[derive(Clone, Debug, PartialEq)]
pub struct Effects {
    /// Images x sets: E1, or the Bernoulli form for a sigmoid head.
    pub weighted: Vec<f32>,
    /// Whether the set touched a live channel: images x sets. Where it did not, the effect is exactly 0.
    pub live: Vec<bool>,
}

/// A host with its autoencoder on a device.
pub struct Sweep {
    program: Box<dyn Program>,
    nodes: Nodes,
    batch: Batch,
    classes: usize,
    head: Head,
    channels: usize,
    pixels: usize,
    sets: Vec<NodeSet>,
    stop: Option<Arc<AtomicBool>>,
}

/// The nodes that entries and data go through.
struct Nodes {
    x: NodeId,
    code: NodeId,
    /// What a do takes away of the code: all of it, where nodes are set to 0.
    difference: NodeId,
    channel_max: NodeId,
    pre: NodeId,
    images: NodeId,
    which: NodeId,
    keep: NodeId,
    front: NodeId,
    decoded: NodeId,
    tail_in: NodeId,
    logits: NodeId,
    idle: NodeId,
    effect: NodeId,
    /// The host once more as one piece, with or without the autoencoder, which attacks go through; it shares every weight.
    attack: attack::Nodes,
}

struct Built {
    graph: Graph,
    nodes: Nodes,
}

/// The graph of host, autoencoder and attack; `sets` sets of nodes beside idle.
fn build(subject: Subject<'_>, sets: usize) -> Result<Built, GraphError> {
    let Subject { model, tap, autoencoder, attacked, .. } = subject;
    let k = autoencoder.nodes;
    let mut g = Graph::new();
    let x = g.input("x", model.input);
    let normalised = model.normalise(&mut g, x)?;
    let front = model.front(&mut g, normalised, 0, tap.number)?;
    let code = autoencoder.encode(&mut g, front)?;
    let channel_max = g.push("code.channel-max", Op::ChannelMax, &[code])?;
    let difference = g.input("code.difference", g.node(code).shape.clone());
    let pre = autoencoder.pre(&mut g, code)?;

    let images = g.index_input("variant.image");
    let which = g.index_input("variant.set");
    // set 0 is idle
    let keep = g.whole_input("keep", [sets + 1, k]);
    let changed = autoencoder.intervened_pre(&mut g, pre, difference, Lists { images, sets: which, keep })?;
    let decoded = autoencoder.decode(&mut g, changed)?;

    let tail_in = g.input("tail.in", tap.shape);
    let logits = model.tail(&mut g, tail_in, tap.number)?;
    let idle = g.input("idle", [model.classes]);
    let effect = g.push("effect", Op::WeightedEffect(model.head), &[logits, idle, images])?;

    let insert = (attacked == Attacked::Inserted).then_some(attack::Insert { tap, autoencoder });
    let attack = attack::Nodes::add(&mut g, model, insert, (x, normalised))?;

    let nodes = Nodes {
        x,
        code,
        difference,
        channel_max,
        pre,
        images,
        which,
        keep,
        front,
        decoded,
        tail_in,
        logits,
        idle,
        effect,
        attack,
    };
    Ok(Built { graph: g, nodes })
}

impl Built {
    /// The artifact for batches of that many rows.
    fn plan(&self, batch: Batch) -> Result<Artifact, GraphError> {
        let Built { graph, nodes: n } = self;
        let entry = |name, given, want, updates, capacity| Entry { name, given, want, updates, capacity };
        let Batch { images, variants } = batch;
        let sweep = |entries: &[Entry<'_>]| {
            let all: Vec<Entry<'_>> = entries.iter().cloned().chain(n.attack.entries(images)).collect();
            plan(graph, &all)
        };
        sweep(&[
            entry(
                "front",
                &[n.x],
                &[n.code, n.pre, n.channel_max],
                &[(n.tail_in, n.front), (n.difference, n.code)],
                images,
            ),
            entry(
                "decode",
                &[n.pre, n.difference, n.images, n.which, n.keep],
                &[],
                &[(n.tail_in, n.decoded)],
                variants,
            ),
            entry("tail", &[n.tail_in], &[n.logits], &[], variants.max(images)),
            entry("tail of idle", &[n.tail_in], &[n.logits], &[(n.idle, n.logits)], variants),
            entry("tail and effect", &[n.tail_in, n.idle, n.images], &[n.effect], &[], variants),
        ])
    }
}

/// What a sweep is built from.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The host.
    pub model: &'a Model,
    /// Where the autoencoder sits.
    pub tap: &'a Tap,
    /// Its shape.
    pub autoencoder: &'a Autoencoder,
    /// Weights of both.
    pub weights: &'a dyn Parameters,
    /// Which of the two networks attacks work on.
    pub attacked: Attacked,
}

impl Sweep {
    /// Loads the subject for interventions on `sets`.
    ///
    /// # Errors
    /// [`SweepError`] when the graph cannot be built or the weights do not fit.
    pub fn new(
        subject: Subject<'_>,
        sets: &[NodeSet],
        batch: Batch,
        backend: &dyn Backend,
    ) -> Result<Sweep, SweepError> {
        let Subject { model, autoencoder, weights, .. } = subject;
        let built = build(subject, sets.len())?;
        let artifact = built.plan(batch)?;
        let nodes = built.nodes;
        let constants = model.constants();
        let mut program = backend.load(artifact, &Completed { weights, derived: &constants })?;
        nodes.attack.prepare(&mut *program)?;
        let k = autoencoder.nodes;
        let mut table = vec![1.0f32; k];
        for set in sets {
            table.extend((0..k).map(|n| if set.contains(n) { 0.0 } else { 1.0 }));
        }
        program.write(nodes.keep, TensorRef::F32(&table))?;
        let pixels = model.input.iter().product();
        let (classes, head) = (model.classes, model.head);
        Ok(Sweep { program, nodes, batch, classes, head, channels: k, pixels, sets: sets.to_vec(), stop: None })
    }

    /// As [`Sweep::new`], with half the rows, and half of those, as long as the device has no memory for them; results do
    /// not depend on it. [`Sweep::batch`] tells what it came to.
    ///
    /// # Errors
    /// [`SweepError`]; out of memory when a single row does not fit.
    pub fn fitting(
        subject: Subject<'_>,
        sets: &[NodeSet],
        batch: Batch,
        backend: &dyn Backend,
    ) -> Result<Sweep, SweepError> {
        match (Sweep::new(subject, sets, batch, backend), batch.halved()) {
            (Err(SweepError::Backend(BackendError::OutOfMemory { .. })), Some(smaller)) => {
                Sweep::fitting(subject, sets, smaller, backend)
            }
            (result, _) => result,
        }
    }

    /// Rows of its batches.
    pub fn batch(&self) -> Batch {
        self.batch
    }

    /// The sets of nodes, in the order of [`Logits::done`].
    pub fn sets(&self) -> &[NodeSet] {
        &self.sets
    }

    /// Classes of the host.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How the host's logits become probabilities.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The node of the program that pixels are written to.
    pub fn pixels(&self) -> NodeId {
        self.nodes.x
    }

    /// Number of images in `x`.
    fn images(&self, x: &[f32]) -> Result<usize, BackendError> {
        attack::images(x, self.pixels)
    }

    /// The network that attacks work on, in one piece.
    pub fn victim(&mut self) -> Victim<'_> {
        Victim::new(&mut *self.program, &self.nodes.attack, ATTACK, self.batch.images).until(self.stop.clone())
    }

    /// Attacks end early once `stop` is set: [`Victim::until`].
    pub fn stop_by(&mut self, stop: Arc<AtomicBool>) {
        self.stop = Some(stop);
    }

    /// The program, for dumps and checks.
    pub fn program(&self) -> &dyn Program {
        &*self.program
    }

    /// Potential outcomes of `x` (images x C·H·W pixels in [0, 1]), with sets of nodes at 0.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn outcomes<T: Logit>(&mut self, x: &[f32]) -> Result<Logits<T>, BackendError> {
        self.outcomes_at(x, Value::Zero)
    }

    /// Potential outcomes of `x` (images x C·H·W pixels in [0, 1]), with sets of nodes at `value`.
    ///
    /// # Errors
    /// [`BackendError`]; [`BackendError::Transfer`] when the value is not one for these images and codes.
    pub fn outcomes_at<T: Logit>(&mut self, x: &[f32], value: Value<'_>) -> Result<Logits<T>, BackendError> {
        self.images(x)?;
        let code: usize = self.code().iter().product();
        let mut all = Logits { orig: Vec::new(), idle: Vec::new(), done: Vec::new(), live: Vec::new() };
        for (b, block) in x.chunks(self.batch.images * self.pixels).enumerate() {
            let first = b * self.batch.images;
            self.block(block, value.of_images(first, first + block.len() / self.pixels, code)?, &mut all)?;
        }
        Ok(all)
    }

    /// Nodes, height and width of a code.
    pub fn code(&self) -> [usize; 3] {
        match self.program.artifact().graph().node(self.nodes.code).shape.dims() {
            &[nodes, height, width] => [nodes, height, width],
            // a code is rows of maps by construction
            _ => [self.channels, 0, 0],
        }
    }

    /// The code of `x` (images x C·H·W pixels in [0, 1]): images x nodes x height x width of the tap.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn codes(&mut self, x: &[f32]) -> Result<Vec<f32>, BackendError> {
        let images = self.images(x)?;
        let code = self.program.artifact().graph().node(self.nodes.code).shape.len();
        let mut codes = vec![0.0; images * code];
        let blocks = x.chunks(self.batch.images * self.pixels).zip(codes.chunks_mut(self.batch.images * code));
        for (x, codes) in blocks {
            self.front(x, Value::Zero)?;
            self.program.read(self.nodes.code, TensorMut::F32(codes))?;
        }
        Ok(codes)
    }

    /// Logits of `x` (images x C·H·W pixels in [0, 1]) with anything taken away of the code, `times` an image: images x times x
    /// classes. A do takes away what its nodes are beyond their value; this is for what is no do on nodes, such as a direction
    /// across all of them. The set of all nodes is one of the sweep's sets.
    ///
    /// # Errors
    /// [`BackendError`]; [`BackendError::Transfer`] when no set holds all nodes.
    pub fn outcomes_without<T: Logit>(
        &mut self,
        x: &[f32],
        times: usize,
        take: &mut Take<'_>,
    ) -> Result<Vec<T>, BackendError> {
        let (images, classes) = (self.images(x)?, self.classes);
        let Some(all) = self.sets.iter().position(|set| set.len() == self.channels) else {
            let reason = "what is taken away of all nodes needs the set of all nodes".into();
            return Err(BackendError::Transfer { node: "code.difference".into(), reason });
        };
        let size = self.code().iter().product::<usize>().max(1);
        let mut logits = vec![T::default(); images * times * classes];
        for (b, block) in x.chunks(self.batch.images * self.pixels).enumerate() {
            let (first, rows) = (b * self.batch.images, block.len() / self.pixels);
            self.front(block, Value::Zero)?;
            let mut codes = vec![0.0f32; rows * size];
            self.program.read(self.nodes.code, TensorMut::F32(&mut codes))?;
            let variants: Vec<(u32, u32)> = (0..rows as u32).map(|row| (row, all as u32 + 1)).collect();
            for time in 0..times {
                let mut away = vec![0.0f32; rows * size];
                for (row, (code, away)) in codes.chunks_exact(size).zip(away.chunks_exact_mut(size)).enumerate() {
                    take(first + row, time, code, away);
                }
                self.program.write(self.nodes.difference, TensorRef::F32(&away))?;
                for batch in variants.chunks(self.batch.variants) {
                    self.decode(batch)?;
                    let made: Vec<T> = self.tail(batch.len())?;
                    for (&(row, _), made) in batch.iter().zip(made.chunks_exact(classes)) {
                        let at = ((first + row as usize) * times + time) * classes;
                        logits[at..at + classes].copy_from_slice(made);
                    }
                }
            }
        }
        Ok(logits)
    }

    fn tail<T: Logit>(&mut self, rows: usize) -> Result<Vec<T>, BackendError> {
        self.program.run(TAIL, rows)?;
        let mut logits = vec![T::default(); rows * self.classes];
        self.program.read(self.nodes.logits, T::room(&mut logits))?;
        Ok(logits)
    }

    /// Runs the front, and says what a do takes away; whether each set touches a channel that it changes: images x sets.
    fn front(&mut self, x: &[f32], value: Value<'_>) -> Result<Vec<bool>, BackendError> {
        let rows = x.len() / self.pixels;
        self.program.write(self.nodes.x, TensorRef::F32(x))?;
        self.program.run(FRONT, rows)?;
        let changes = match value {
            Value::Zero => {
                let mut maxima = vec![0.0f32; rows * self.channels];
                self.program.read(self.nodes.channel_max, TensorMut::F32(&mut maxima))?;
                maxima
            }
            other => self.replace(rows, other)?,
        };
        // a NaN is not 0: it must be seen
        let live = |changes: &[f32], set: &NodeSet| set.iter().any(|n| changes[n] != 0.0);
        let images = changes.chunks_exact(self.channels);
        Ok(images.flat_map(|maxima| self.sets.iter().map(move |set| live(maxima, set))).collect())
    }

    /// Writes code less value, which a do takes away; the largest change of each channel: images x channels.
    fn replace(&mut self, rows: usize, value: Value<'_>) -> Result<Vec<f32>, BackendError> {
        let area = self.code()[1..].iter().product::<usize>().max(1);
        let size = self.channels * area;
        let mut difference = vec![0.0f32; rows * size];
        self.program.read(self.nodes.code, TensorMut::F32(&mut difference))?;
        match value {
            Value::Zero => {}
            Value::Scaled(factor) => difference.iter_mut().for_each(|z| *z *= 1.0 - factor),
            Value::Maps(maps) => {
                difference.chunks_exact_mut(size).for_each(|z| z.iter_mut().zip(maps).for_each(|(z, v)| *z -= v));
            }
            Value::Others(codes) => difference.iter_mut().zip(codes).for_each(|(z, v)| *z -= v),
        }
        self.program.write(self.nodes.difference, TensorRef::F32(&difference))?;
        // max would swallow a NaN
        let largest = |z: &[f32]| z.iter().fold(0.0f32, |m, z| if z.abs() > m || z.is_nan() { z.abs() } else { m });
        Ok(difference.chunks_exact(area).map(largest).collect())
    }

    /// Runs the decoder on variants: (image, set number with 0 = idle).
    fn decode(&mut self, variants: &[(u32, u32)]) -> Result<(), BackendError> {
        let (images, which): (Vec<u32>, Vec<u32>) = variants.iter().copied().unzip();
        self.program.write(self.nodes.images, TensorRef::U32(&images))?;
        self.program.write(self.nodes.which, TensorRef::U32(&which))?;
        self.program.run(DECODE, variants.len())
    }

    /// Class-weighted effects of every set on `x` (images x C·H·W pixels in [0, 1]), made on the device: one number for an
    /// image and a set leaves it. As those made of [`Sweep::outcomes`], up to their rounding to f32.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn effects(&mut self, x: &[f32]) -> Result<Effects, BackendError> {
        let (images, sets) = (self.images(x)?, self.sets.len());
        let mut all = Effects { weighted: vec![0.0; images * sets], live: Vec::with_capacity(images * sets) };
        // the idle logits of a block are one run's
        let block = self.batch.images.min(self.batch.variants);
        for (b, x) in x.chunks(block * self.pixels).enumerate() {
            let live = self.front(x, Value::Zero)?;
            let idle: Vec<(u32, u32)> = (0..(x.len() / self.pixels) as u32).map(|image| (image, 0)).collect();
            self.decode(&idle)?;
            self.program.run(IDLE, idle.len())?;
            let pairs = live.iter().enumerate().filter(|(_, live)| **live);
            let variants: Vec<(u32, u32)> = pairs.map(|(i, _)| ((i / sets) as u32, (i % sets) as u32 + 1)).collect();
            for batch in variants.chunks(self.batch.variants) {
                self.decode(batch)?;
                self.program.run(EFFECT, batch.len())?;
                let mut effects = vec![0.0f32; batch.len()];
                self.program.read(self.nodes.effect, TensorMut::F32(&mut effects))?;
                for (&(image, set), effect) in batch.iter().zip(effects) {
                    all.weighted[(b * block + image as usize) * sets + set as usize - 1] = effect;
                }
            }
            all.live.extend(live);
        }
        Ok(all)
    }

    fn block<T: Logit>(&mut self, x: &[f32], value: Value<'_>, all: &mut Logits<T>) -> Result<(), BackendError> {
        let (rows, sets, classes) = (x.len() / self.pixels, self.sets.len(), self.classes);
        let live = self.front(x, value)?;
        all.orig.extend(self.tail::<T>(rows)?);

        let mut variants: Vec<(u32, u32)> = Vec::with_capacity(rows * (sets + 1));
        for image in 0..rows {
            variants.push((image as u32, 0));
            let sets = (0..sets).filter(|s| live[image * sets + s]);
            variants.extend(sets.map(|s| (image as u32, s as u32 + 1)));
        }
        let mut idle = vec![T::default(); rows * classes];
        let mut done: Vec<Option<Vec<T>>> = vec![None; rows * sets];
        for batch in variants.chunks(self.batch.variants) {
            self.decode(batch)?;
            let logits: Vec<T> = self.tail(batch.len())?;
            for (&(image, set), row) in batch.iter().zip(logits.chunks_exact(classes)) {
                let image = image as usize;
                match set as usize {
                    0 => idle[image * classes..(image + 1) * classes].copy_from_slice(row),
                    s => done[image * sets + s - 1] = Some(row.to_vec()),
                }
            }
        }
        for (i, row) in done.into_iter().enumerate() {
            let image = i / sets;
            match row {
                Some(row) => all.done.extend(row),
                None => all.done.extend_from_slice(&idle[image * classes..(image + 1) * classes]),
            }
        }
        all.idle.extend(idle);
        all.live.extend(live);
        Ok(())
    }
}
