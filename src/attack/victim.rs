//! What attacks add to a network's graph, and a network under attack.

use super::jsma::{Jsma, Progress};
use super::{Aim, AttackError, Goal, Norm, Steps, Targets, l2_step};
use crate::backend::{Backend, BackendError, Completed, Parameters, Program, load_fitting};
use crate::graph::op::Op;
use crate::graph::plan::{Artifact, Entry, EntryId, Footprint, plan};
use crate::graph::vjp::vjp;
use crate::graph::{Graph, GraphError, NodeId};
use crate::model::autoencoder::Autoencoder;
use crate::model::{Head, Model, Tap};
use crate::tensor::{TensorMut, TensorRef, argmax};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The nodes of a whole network that attacks go through, and the entries of a program that run them.
#[derive(Clone, Debug)]
pub struct Nodes {
    x: NodeId,
    x0: NodeId,
    /// Labels of a softmax head, rows of findings of a sigmoid one.
    target: NodeId,
    one: NodeId,
    limits: NodeId,
    logits: NodeId,
    gradient: NodeId,
    /// What the logits are weighed with, and the gradient of their weighed sum.
    cotangent: NodeId,
    pulled: NodeId,
    entries: [Spec; 4],
}

/// An entry without its rows.
#[derive(Clone, Debug)]
struct Spec {
    name: &'static str,
    given: Vec<NodeId>,
    want: Vec<NodeId>,
    updates: Vec<(NodeId, NodeId)>,
}

/// Numbers of the entries behind the first.
const STEP: usize = 0;
const GRADIENT: usize = 1;
const FORWARD: usize = 2;
const PULL: usize = 3;

/// What an attack on an autoencoder-inserted network goes through.
#[derive(Clone, Copy, Debug)]
pub struct Insert<'a> {
    /// Where it is spliced in.
    pub tap: &'a Tap,
    /// Its shape.
    pub autoencoder: &'a Autoencoder,
}

impl Nodes {
    /// Adds `model` as one piece to `graph`, from its pixels `x` and these `normalised`, and with the autoencoder where one is
    /// inserted; with the gradient of its loss (cross entropy, or binary cross-entropy summed over findings) and of its logits
    /// for the pixels.
    ///
    /// # Errors
    /// [`GraphError`] when `x` does not fit.
    pub fn add(
        graph: &mut Graph,
        model: &Model,
        insert: Option<Insert<'_>>,
        (x, normalised): (NodeId, NodeId),
    ) -> Result<Nodes, GraphError> {
        let x0 = graph.input("x0", model.input);
        let one = graph.whole_input("one", [1]);
        let limits = graph.whole_input("limits", [2]);
        let logits = match insert {
            None => model.tail(graph, normalised, 0)?,
            Some(Insert { tap, autoencoder }) => {
                let front = model.front(graph, normalised, 0, tap.number)?;
                let code = autoencoder.encode(graph, front)?;
                let pre = autoencoder.pre(graph, code)?;
                let decoded = autoencoder.decode(graph, pre)?;
                model.tail(graph, decoded, tap.number)?
            }
        };
        let (target, loss) = match model.head {
            Head::Softmax => (graph.index_input("label"), Op::CrossEntropy),
            Head::Sigmoid => (graph.input("findings", [model.classes]), Op::BinaryCrossEntropy),
        };
        let row_loss = graph.push("attack.loss", loss, &[logits, target])?;
        let loss = graph.sum_rows("attack.loss.sum", row_loss)?;
        let gradient = vjp(graph, loss, one, &[x])?[0];
        let stepped = graph.push("attack.step", Op::SignStep, &[x, gradient, x0, limits])?;
        let cotangent = graph.input("cotangent", [model.classes]);
        let pulled = vjp(graph, logits, cotangent, &[x])?[0];
        let spec = |name, given: &[NodeId], want: &[NodeId], updates: &[(NodeId, NodeId)]| Spec {
            name,
            given: given.to_vec(),
            want: want.to_vec(),
            updates: updates.to_vec(),
        };
        let entries = [
            spec("attack step", &[x, x0, target, one, limits], &[], &[(x, stepped)]),
            spec("input gradient", &[x, target, one], &[gradient], &[]),
            spec("forward", &[x], &[logits], &[]),
            spec("logits and their gradient", &[x, cotangent], &[logits, pulled], &[]),
        ];
        Ok(Nodes { x, x0, target, one, limits, logits, gradient, cotangent, pulled, entries })
    }

    /// The entries, for batches of `rows` images.
    pub fn entries(&self, rows: usize) -> impl Iterator<Item = Entry<'_>> {
        self.entries.iter().map(move |spec| Entry {
            name: spec.name,
            given: &spec.given,
            want: &spec.want,
            updates: &spec.updates,
            capacity: rows,
        })
    }

    /// The node that pixels are written to.
    pub fn pixels(&self) -> NodeId {
        self.x
    }

    /// Writes what is the same for every attack.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn prepare(&self, program: &mut dyn Program) -> Result<(), BackendError> {
        program.write(self.one, TensorRef::F32(&[1.0]))
    }
}

/// Number of images of `pixels` in `x`.
///
/// # Errors
/// [`BackendError::Transfer`] unless it is a whole one.
pub fn images(x: &[f32], pixels: usize) -> Result<usize, BackendError> {
    if x.len().is_multiple_of(pixels) {
        return Ok(x.len() / pixels);
    }
    let reason = format!("{} elements are no whole number of images of {pixels}", x.len());
    Err(BackendError::Transfer { node: "x".into(), reason })
}

/// A network under attack: a loaded program with the entries of [`Nodes::entries`].
pub struct Victim<'a> {
    program: &'a mut dyn Program,
    nodes: &'a Nodes,
    /// Number of the first of those entries.
    first: usize,
    /// Images a batch.
    rows: usize,
    /// Of an image.
    pixels: usize,
    classes: usize,
    stop: Option<Arc<AtomicBool>>,
}

impl<'a> Victim<'a> {
    /// The network of `program`, where the entries of `nodes`, for `rows` images, begin with number `first`.
    pub fn new(program: &'a mut dyn Program, nodes: &'a Nodes, first: usize, rows: usize) -> Victim<'a> {
        let len = |node: NodeId| program.artifact().graph().node(node).shape.len();
        let (pixels, classes) = (len(nodes.x), len(nodes.logits));
        Victim { program, nodes, first, rows, pixels, classes, stop: None }
    }

    /// The same, whose attacks end with [`AttackError::Stopped`] soon after `stop` is set: one may take hours.
    pub fn until(self, stop: Option<Arc<AtomicBool>>) -> Victim<'a> {
        Victim { stop, ..self }
    }

    /// Answers of the network.
    pub fn classes(&self) -> usize {
        self.classes
    }

    fn goes_on(&self) -> Result<(), AttackError> {
        let stopped = self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed));
        if stopped { Err(AttackError::Stopped) } else { Ok(()) }
    }

    fn images(&self, x: &[f32]) -> Result<usize, BackendError> {
        images(x, self.pixels)
    }

    fn run(&mut self, entry: usize, rows: usize) -> Result<(), BackendError> {
        self.program.run(EntryId(self.first + entry), rows)
    }

    /// The targets of each block of images; one for every image in `x`: an image without one would keep the zeros of its
    /// room, which look like an answer.
    fn targets<'t>(&self, x: &[f32], targets: Targets<'t>) -> Result<Vec<Targets<'t>>, BackendError> {
        let images = self.images(x)?;
        let block = self.rows;
        let (given, cut): (_, Vec<Targets<'t>>) = match targets {
            Targets::Classes(labels) => (labels.len(), labels.chunks(block).map(Targets::Classes).collect()),
            Targets::Findings(f) => {
                (f.len() / self.classes, f.chunks(block * self.classes).map(Targets::Findings).collect())
            }
        };
        let whole = !matches!(targets, Targets::Findings(f) if !f.len().is_multiple_of(self.classes));
        if images == given && whole {
            return Ok(cut);
        }
        Err(BackendError::Transfer { node: "label".into(), reason: format!("{given} labels for {images} images") })
    }

    /// The host's logits alone, in one piece: images x classes.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn forward(&mut self, x: &[f32]) -> Result<Vec<f32>, BackendError> {
        let mut out = Vec::with_capacity(self.images(x)? * self.classes);
        for block in x.chunks(self.rows * self.pixels) {
            let rows = block.len() / self.pixels;
            self.program.write(self.nodes.x, TensorRef::F32(block))?;
            self.run(FORWARD, rows)?;
            let mut logits = vec![0.0; rows * self.classes];
            self.program.read(self.nodes.logits, TensorMut::F32(&mut logits))?;
            out.extend(logits);
        }
        Ok(out)
    }

    /// Steps in a ball around `x` and from `start` on (`x` itself where it is None). In an L-infinity ball each goes to
    /// clip(x' ± step·sign(gradient of the loss at the targets), max(0, x - eps), min(1, x + eps)), + away from the targets and -
    /// towards them, and a pixel whose gradient is exactly 0 stays; on the device. In an L2 ball it goes by the gradient over
    /// its length and back into the ball, and then to [0, 1]; the gradient is the device's, the step f64 on the host. See
    /// [`super`].
    ///
    /// # Errors
    /// [`AttackError::Backend`], with [`BackendError::Transfer`] unless there is one target an image, of the host's head, and
    /// `start` has as many pixels as `x`; [`AttackError::Stopped`].
    pub fn steps<'t>(
        &mut self,
        x: &[f32],
        start: Option<&[f32]>,
        goal: impl Into<Goal<'t>>,
        steps: Steps,
    ) -> Result<Vec<f32>, AttackError> {
        let Goal { targets, aim } = goal.into();
        let targets = self.targets(x, targets)?;
        let start = start.unwrap_or(x);
        if start.len() != x.len() {
            let reason = format!("an attack on {} pixels cannot start from {}", x.len(), start.len());
            return Err(BackendError::Transfer { node: "x".into(), reason }.into());
        }
        let step = if aim == Aim::Away { steps.step } else { -steps.step };
        self.program.write(self.nodes.limits, TensorRef::F32(&[step, steps.eps]))?;
        let mut out = start.to_vec();
        let size = self.rows * self.pixels;
        for ((block, out), targets) in x.chunks(size).zip(out.chunks_mut(size)).zip(targets) {
            match steps.norm {
                Norm::Linf => {
                    self.program.write(self.nodes.x, TensorRef::F32(out))?;
                    self.program.write(self.nodes.x0, TensorRef::F32(block))?;
                    self.program.write(self.nodes.target, targets.write())?;
                    for _ in 0..steps.steps {
                        self.goes_on()?;
                        self.run(STEP, block.len() / self.pixels)?;
                    }
                    self.program.read(self.nodes.x, TensorMut::F32(out))?;
                }
                Norm::L2 => {
                    for _ in 0..steps.steps {
                        self.goes_on()?;
                        let gradient = self.input_gradient(out, targets)?;
                        let images = out.chunks_exact_mut(self.pixels).zip(block.chunks_exact(self.pixels));
                        for ((x, x0), g) in images.zip(gradient.chunks_exact(self.pixels)) {
                            l2_step(x, x0, g, (step, steps.eps));
                        }
                    }
                }
            }
        }
        Ok(out)
    }

    /// Saliency map attacks, each image towards the class of `targets`; see [`super::jsma`].
    ///
    /// # Errors
    /// [`AttackError::Backend`], with [`BackendError::Transfer`] unless there is one class an image that the host has;
    /// [`AttackError::Stopped`].
    pub fn jsma(&mut self, x: &[f32], targets: &[u32], attack: Jsma) -> Result<Vec<f32>, AttackError> {
        let (images, classes, pixels) = (self.images(x)?, self.classes, self.pixels);
        if targets.len() != images || targets.iter().any(|&t| t as usize >= classes) {
            let reason = format!("{} targets of {classes} classes for {images} images", targets.len());
            return Err(BackendError::Transfer { node: "cotangent".into(), reason }.into());
        }
        let mut out = x.to_vec();
        let each = x.chunks_exact(pixels.max(1)).zip(targets);
        let mut attacks: Vec<Progress> = each.map(|(x, &t)| Progress::new(attack, t, x)).collect();
        let mut active: Vec<usize> = (0..images).collect();
        while !active.is_empty() {
            self.goes_on()?;
            // the target's logit and the sum of all, as rows of a batch
            let (mut rows, mut cotangents) = (Vec::new(), Vec::new());
            for &i in &active {
                let own = (0..classes).map(|c| f32::from(u8::from(c == attacks[i].target() as usize)));
                cotangents.extend(own.chain(std::iter::repeat_n(1.0, classes)));
                rows.extend_from_slice(&out[i * pixels..(i + 1) * pixels]);
                rows.extend_from_slice(&out[i * pixels..(i + 1) * pixels]);
            }
            let (logits, gradients) = self.pull(&rows, &cotangents)?;
            let answers = logits.chunks_exact(2 * classes).zip(gradients.chunks_exact(2 * pixels));
            let going = active.iter().zip(answers).filter_map(|(&i, (logits, gradients))| {
                let (own, all) = gradients.split_at(pixels);
                let goes_on = attacks[i].goes_on(argmax(&logits[..classes]));
                (goes_on && attacks[i].step(own, all, &mut out[i * pixels..(i + 1) * pixels])).then_some(i)
            });
            active = going.collect();
        }
        Ok(out)
    }

    /// The host's logits, images x classes, and the gradient of every image's logits weighed with `cotangents`, images x
    /// classes too, for its pixels.
    fn pull(&mut self, x: &[f32], cotangents: &[f32]) -> Result<(Vec<f32>, Vec<f32>), BackendError> {
        let images = self.images(x)?;
        let (mut logits, mut gradients) = (vec![0.0; images * self.classes], vec![0.0; x.len()]);
        let rows = self.rows;
        let parts = x.chunks(rows * self.pixels).zip(cotangents.chunks(rows * self.classes));
        let outs = logits.chunks_mut(rows * self.classes).zip(gradients.chunks_mut(rows * self.pixels));
        for ((x, cotangents), (logits, gradients)) in parts.zip(outs) {
            self.program.write(self.nodes.x, TensorRef::F32(x))?;
            self.program.write(self.nodes.cotangent, TensorRef::F32(cotangents))?;
            self.run(PULL, x.len() / self.pixels)?;
            self.program.read(self.nodes.logits, TensorMut::F32(logits))?;
            self.program.read(self.nodes.pulled, TensorMut::F32(gradients))?;
        }
        Ok((logits, gradients))
    }

    /// One step to the edge of the L-infinity ball: FGSM.
    ///
    /// # Errors
    /// As [`Victim::steps`].
    pub fn fgsm<'t>(&mut self, x: &[f32], goal: impl Into<Goal<'t>>, eps: f32) -> Result<Vec<f32>, AttackError> {
        self.steps(x, None, goal, Steps::single(eps, Norm::Linf))
    }

    /// Gradient of the host's cross-entropy (binary, summed over labels, of a sigmoid head), summed over images, with
    /// respect to the pixels.
    ///
    /// # Errors
    /// [`BackendError`]; [`BackendError::Transfer`] unless there is one target an image, of the host's head.
    pub fn input_gradient(&mut self, x: &[f32], targets: Targets<'_>) -> Result<Vec<f32>, BackendError> {
        let targets = self.targets(x, targets)?;
        let mut out = vec![0.0; x.len()];
        let step = self.rows;
        let blocks = x.chunks(step * self.pixels).zip(out.chunks_mut(step * self.pixels));
        for ((block, out), targets) in blocks.zip(targets) {
            self.program.write(self.nodes.x, TensorRef::F32(block))?;
            self.program.write(self.nodes.target, targets.write())?;
            self.run(GRADIENT, block.len() / self.pixels)?;
            self.program.read(self.nodes.gradient, TensorMut::F32(out))?;
        }
        Ok(out)
    }
}

/// A network on a device that is there to be attacked, and for nothing else.
pub struct Alone {
    program: Box<dyn Program>,
    nodes: Nodes,
    rows: usize,
}

/// What an attack works on.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The network.
    pub model: &'a Model,
    /// The autoencoder in it, where the attack goes through one.
    pub insert: Option<Insert<'a>>,
    /// Weights of both.
    pub weights: &'a dyn Parameters,
}

impl Subject<'_> {
    fn graph(&self) -> Result<(Graph, Nodes), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", self.model.input);
        let normalised = self.model.normalise(&mut graph, x)?;
        let nodes = Nodes::add(&mut graph, self.model, self.insert, (x, normalised))?;
        Ok((graph, nodes))
    }

    /// As many images a batch as suit the device, 1 to 512; results do not depend on it.
    ///
    /// # Errors
    /// [`GraphError`] when the graph cannot be built.
    pub fn rows(&self, backend: &dyn Backend) -> Result<usize, GraphError> {
        let (graph, nodes) = self.graph()?;
        Ok(backend.batch_rows(Footprint::of(|rows| planned(&graph, &nodes, rows))?).min(512))
    }
}

fn planned(graph: &Graph, nodes: &Nodes, rows: usize) -> Result<Artifact, GraphError> {
    plan(graph, &nodes.entries(rows).collect::<Vec<_>>())
}

impl Alone {
    /// Loads `subject` for batches of `rows` images, or of half as many as often as the device has no memory for them.
    ///
    /// # Errors
    /// [`LoadError`] when the graph cannot be built or the weights do not fit.
    pub fn load(subject: Subject<'_>, rows: usize, backend: &dyn Backend) -> Result<Alone, LoadError> {
        let (graph, nodes) = subject.graph()?;
        let constants = subject.model.constants();
        let weights = Completed { weights: subject.weights, derived: &constants };
        let plan = |rows| planned(&graph, &nodes, rows);
        let (mut program, rows) = load_fitting::<LoadError>(backend, &weights, rows, plan)?;
        nodes.prepare(&mut *program)?;
        Ok(Alone { program, nodes, rows })
    }

    /// Images a batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The program, for dumps and checks.
    pub fn program(&self) -> &dyn Program {
        &*self.program
    }

    /// The node of the program that pixels are written to.
    pub fn pixels(&self) -> NodeId {
        self.nodes.x
    }

    /// The network, to attack it.
    pub fn victim(&mut self) -> Victim<'_> {
        Victim::new(&mut *self.program, &self.nodes, 0, self.rows)
    }
}

/// Why a network cannot be attacked.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its graph cannot be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The device cannot take it.
    #[error(transparent)]
    Backend(#[from] BackendError),
}
