//! Training the autoencoder at a tap: the host frozen and in evaluation mode, three losses.
//!
//! L = li·L_interp + ls·L_shallow + ld·L_deep (ICIP 2019, the equation numbered 7, after Harradon et al. 2018):
//! shallow = mean |F(x) - D(E(F(x)))|; deep = KL(p_orig || p_ae), mean over images; interp = mean |z| + TV(z), plain or
//! divided by rms(z). The plain form can be lowered without any change of the map by shrinking z and growing the
//! decoder; dividing by rms(z) closes that way.

use super::{Adam, Fit, Optimizer, TrainError};
use crate::backend::{Backend, BackendError, Completed, Parameters, Program};
use crate::data::Dataset;
use crate::graph::op::{Binary, Op};
use crate::graph::plan::{Entry, EntryId, plan};
use crate::graph::vjp::vjp;
use crate::graph::{Graph, GraphError, NodeId};
use crate::model::autoencoder::Autoencoder;
use crate::model::{Head, Model, Tap};
use crate::tensor::{TensorMut, TensorRef, argmax};
use serde::{Deserialize, Serialize};

/// The form of L_interp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpretability {
    /// mean |z| + TV(z).
    Plain,
    /// (mean |z| + TV(z)) / rms(z).
    ScaleFree,
}

/// Weights of the three losses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossWeights {
    /// li.
    pub interpretability: f64,
    /// ls.
    pub shallow: f64,
    /// ld.
    pub deep: f64,
}

impl Default for LossWeights {
    fn default() -> Self {
        LossWeights { interpretability: 0.1, shallow: 0.5, deep: 0.4 }
    }
}

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// The form of L_interp.
    pub form: Interpretability,
    /// Weights of the three losses.
    pub weights: LossWeights,
    /// What the tap's values are divided by in front of the encoder and multiplied by behind the decoder ([`super::unit`]):
    /// a function of host and images.
    #[serde(default = "one", skip)]
    pub unit: f64,
}

fn one() -> f64 {
    1.0
}

impl Default for Objective {
    fn default() -> Self {
        Objective { form: Interpretability::Plain, weights: LossWeights::default(), unit: one() }
    }
}

/// Names of the losses, in the order in which a step reports them.
pub const LOSSES: [&str; 4] = ["total", "interpretability", "shallow", "deep"];
/// Most rows of an evaluation run.
const EVALUATE_ROWS: usize = 50;
/// Keeps the square root's gradient finite for a code that is all zero.
const RMS_EPSILON: f64 = 1e-12;

const STEP: EntryId = EntryId(0);
const EVALUATE: EntryId = EntryId(1);
const GRADIENTS: EntryId = EntryId(2);

/// An autoencoder in its host on a device, ready to train or to evaluate.
pub struct Trainer {
    program: Box<dyn Program>,
    optimizer: Optimizer,
    nodes: Nodes,
    losses: Vec<(String, NodeId)>,
    batch: usize,
}

/// The nodes that data goes through.
#[derive(Clone, Debug)]
pub struct Nodes {
    x: NodeId,
    logits_orig: NodeId,
    logits_ae: NodeId,
    /// Per row: shallow, KL, interpretability terms mean |z| and TV, mean z², mean |F|, max of each channel.
    shallow: NodeId,
    deep: NodeId,
    mean_abs: NodeId,
    variation: NodeId,
    mean_square: NodeId,
    scale: NodeId,
    channel_max: NodeId,
    /// Gradients of interpretability, shallow and deep for every weight.
    gradients: [Vec<NodeId>; 3],
    classes: usize,
    code_channels: usize,
    /// Rows of an evaluation run: a function of the network alone.
    evaluate_rows: usize,
    objective: Objective,
}

impl Nodes {
    /// Writes pixels: rows of C x H x W in [0, 1].
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn write(&self, program: &mut dyn Program, pixels: TensorRef<'_>) -> Result<(), BackendError> {
        program.write(self.x, pixels)
    }
}

/// What an evaluation finds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Weighted sum of the three losses.
    pub loss: f64,
    /// L_interp in the form trained.
    pub interpretability: f64,
    /// Mean |F - D(E(F))|, in units of the objective.
    pub shallow: f64,
    /// Mean KL(p_orig || p_ae), nats.
    pub deep: f64,
    /// Share of images where both nets name the same class.
    pub agreement: f64,
    /// Accuracy of the network with the autoencoder inserted.
    pub accuracy_ae: f64,
    /// Accuracy of the network alone.
    pub accuracy_orig: f64,
    /// shallow over the mean magnitude of what it reconstructs.
    pub relative_l1: f64,
    /// Mean of |z|.
    pub code_mean: f64,
    /// Root mean square of z.
    pub code_rms: f64,
    /// Channels that are 0 on every image: their effect is exactly 0.
    pub dead: Vec<usize>,
    /// Images on which each channel is not all zero, as a share.
    pub live_share: Vec<f64>,
}

impl Trainer {
    /// Loads host and autoencoder; `weights` holds both.
    ///
    /// # Errors
    /// [`TrainError`] when the graph cannot be built or weights do not fit.
    pub fn new(
        model: &Model,
        tap: &Tap,
        autoencoder: &Autoencoder,
        weights: &dyn Parameters,
        backend: &dyn Backend,
        batch: usize,
        objective: Objective,
    ) -> Result<Trainer, TrainError> {
        let mut g = Graph::new();
        let x = g.input("x", model.input);
        let normalised = model.normalise(&mut g, x)?;
        let front = model.front(&mut g, normalised, 0, tap.number)?;
        let logits_orig = model.tail(&mut g, front, tap.number)?;
        // exact: a unit is a power of two
        let in_units = |g: &mut Graph, name, values, factor| match factor {
            1.0 => Ok(values),
            factor => g.scale(name, values, factor),
        };
        let seen = in_units(&mut g, "tap.in-units", front, 1.0 / objective.unit)?;
        let code = autoencoder.encode(&mut g, seen)?;
        let pre = autoencoder.pre(&mut g, code)?;
        let decoded = autoencoder.decode(&mut g, pre)?;
        let given_back = in_units(&mut g, "decoded.whole", decoded, objective.unit)?;
        let logits_ae = model.tail(&mut g, given_back, tap.number)?;

        let made = add_losses(&mut g, model.head, [seen, decoded], code, [logits_orig, logits_ae], objective)?;
        let LossNodes { total, weighted, shallow, deep, mean_abs, variation, mean_square, .. } = made;
        let scale = g.push("tap.mean-abs", Op::MeanAbs, &[seen])?;
        let channel_max = g.push("code.channel-max", Op::ChannelMax, &[code])?;

        let trained: Vec<NodeId> =
            autoencoder.parameters().iter().filter_map(|(name, _)| g.parameter_named(name)).collect();
        let one = g.whole_input("one", [1]);
        let gradients = vjp(&mut g, total, one, &trained)?;
        let optimizer = Optimizer::adam(&mut g, &trained, &gradients, Adam::default())?;
        // the encoder alone moves L_interp; the decoder's gradient of it is 0 and has no path
        let encoder = &trained[..trained.len().min(6)];
        let gradients = [
            vjp(&mut g, weighted[0], one, encoder)?,
            vjp(&mut g, weighted[1], one, &trained)?,
            vjp(&mut g, weighted[2], one, &trained)?,
        ];
        let losses: Vec<(String, NodeId)> = LOSSES.iter().map(|n| n.to_string()).zip(made.reported()).collect();
        let step_wants: Vec<NodeId> = losses.iter().map(|(_, id)| *id).collect();
        let evaluate_wants =
            [logits_orig, logits_ae, shallow, deep, mean_abs, variation, mean_square, scale, channel_max];
        let gradient_wants: Vec<NodeId> = gradients.iter().flatten().copied().collect();
        let (images, with_seed) = ([x], [x, one]);
        let evaluations = |capacity: usize| {
            let entry = |name, given, want| Entry { name, given, want, updates: &[], capacity };
            [
                entry("evaluate", &images[..], &evaluate_wants[..]),
                entry("loss gradients", &with_seed[..], &gradient_wants[..]),
            ]
        };
        let evaluate_rows = super::rows_within(EVALUATE_ROWS, |rows| plan(&g, &evaluations(rows)))?;
        let [evaluate, gradients_entry] = evaluations(evaluate_rows);
        let step = Entry {
            name: "autoencoder step",
            given: &[x, one, optimizer.rate],
            want: &step_wants,
            updates: &optimizer.updates,
            capacity: batch,
        };
        let artifact = plan(&g, &[step, evaluate, gradients_entry])?;
        let constants = model.constants();
        let mut program = backend.load(artifact, &Completed { weights, derived: &constants })?;
        program.write(one, TensorRef::F32(&[1.0]))?;
        let nodes = Nodes {
            x,
            logits_orig,
            logits_ae,
            shallow,
            deep,
            mean_abs,
            variation,
            mean_square,
            scale,
            channel_max,
            gradients,
            classes: model.classes,
            code_channels: autoencoder.nodes,
            evaluate_rows,
            objective,
        };
        Ok(Trainer { program, optimizer, nodes, losses, batch })
    }

    /// The training job over `images` images; its losses are [`LOSSES`].
    pub fn fit(&mut self, settings: &super::Settings, images: usize) -> Fit<'_> {
        Fit {
            program: &mut *self.program,
            step: STEP,
            optimizer: &self.optimizer,
            losses: self.losses.clone(),
            learning_rate: settings.learning_rate,
            schedule: settings.schedule,
            epochs: settings.epochs,
            batch: self.batch,
            images,
        }
    }

    /// The nodes that [`feed`] and [`evaluate`] use.
    pub fn nodes(&self) -> Nodes {
        self.nodes.clone()
    }

    /// Quality over a data set.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn evaluate(&mut self, data: &Dataset) -> Result<Quality, TrainError> {
        evaluate(&mut *self.program, &self.nodes, data)
    }
}

/// The nodes of L and of what it is made of.
#[derive(Clone, Copy, Debug)]
pub struct LossNodes {
    /// L.
    pub total: NodeId,
    /// L_interp, L_shallow and L_deep, each times its weight.
    pub weighted: [NodeId; 3],
    /// The same without.
    means: [NodeId; 3],
    /// Per row: mean |F - D(E(F))|.
    shallow: NodeId,
    /// Per row: KL.
    deep: NodeId,
    /// Per row: mean |z|, TV(z), mean z².
    mean_abs: NodeId,
    variation: NodeId,
    mean_square: NodeId,
}

impl LossNodes {
    /// The losses in the order of [`LOSSES`].
    pub fn reported(&self) -> [NodeId; 4] {
        let [interpretability, shallow, deep] = self.means;
        [self.total, interpretability, shallow, deep]
    }
}

/// Adds the losses: the tap's values and what is decoded of its code, the code, the logits that follow from both.
///
/// # Errors
/// [`GraphError`] when they do not fit each other.
pub fn add_losses(
    g: &mut Graph,
    head: Head,
    [front, decoded]: [NodeId; 2],
    code: NodeId,
    [logits_orig, logits_ae]: [NodeId; 2],
    objective: Objective,
) -> Result<LossNodes, GraphError> {
    let difference = g.sub("shallow.difference", front, decoded)?;
    let shallow = g.push("shallow", Op::MeanAbs, &[difference])?;
    let deep = g.push("deep", Op::Kl(head), &[logits_orig, logits_ae])?;
    let mean_abs = g.push("code.mean-abs", Op::MeanAbs, &[code])?;
    let variation = g.push("code.variation", Op::TotalVariation, &[code])?;
    let mean_square = g.push("code.mean-square", Op::MeanSquare, &[code])?;

    let plain = g.add("interp.rows", mean_abs, variation)?;
    let mut interp = g.mean_rows("interp", plain)?;
    if objective.form == Interpretability::ScaleFree {
        let square = g.mean_rows("interp.mean-square", mean_square)?;
        let rms = g.push("interp.rms", Op::Sqrt { epsilon: RMS_EPSILON }, &[square])?;
        interp = g.push("interp.scale-free", Op::Binary(Binary::Div), &[interp, rms])?;
    }
    let shallow_mean = g.mean_rows("shallow.mean", shallow)?;
    let deep_mean = g.mean_rows("deep.mean", deep)?;
    let weighted = [
        g.scale("interp.weighted", interp, objective.weights.interpretability)?,
        g.scale("shallow.weighted", shallow_mean, objective.weights.shallow)?,
        g.scale("deep.weighted", deep_mean, objective.weights.deep)?,
    ];
    let two = g.add("total.part", weighted[0], weighted[1])?;
    let total = g.add("total", two, weighted[2])?;
    Ok(LossNodes {
        total,
        weighted,
        means: [interp, shallow_mean, deep_mean],
        shallow,
        deep,
        mean_abs,
        variation,
        mean_square,
    })
}

/// Writes the images of a batch.
///
/// # Errors
/// [`TrainError`].
pub fn feed(program: &mut dyn Program, nodes: &Nodes, data: &Dataset, which: &[u32]) -> Result<(), TrainError> {
    super::write_images(program, nodes.x, data, which)
}

/// L2 norms of the weighted losses' gradients (interpretability, shallow, deep) on the first images of `data`.
///
/// # Errors
/// [`TrainError`].
pub fn gradient_norms(program: &mut dyn Program, nodes: &Nodes, data: &Dataset) -> Result<[f64; 3], TrainError> {
    let which: Vec<u32> = (0..data.len().min(nodes.evaluate_rows) as u32).collect();
    feed(program, nodes, data, &which)?;
    program.run(GRADIENTS, which.len())?;
    let mut norms = [0.0; 3];
    for (norm, gradients) in norms.iter_mut().zip(&nodes.gradients) {
        for &node in gradients {
            let mut values = vec![0.0f64; program.artifact().graph().node(node).shape.len()];
            program.read(node, TensorMut::F64(&mut values))?;
            *norm += values.iter().map(|v| v * v).sum::<f64>();
        }
        *norm = norm.sqrt();
    }
    Ok(norms)
}

/// Quality over a data set, sums in f64 in image order.
///
/// # Errors
/// [`TrainError`].
pub fn evaluate(program: &mut dyn Program, nodes: &Nodes, data: &Dataset) -> Result<Quality, TrainError> {
    let k = nodes.code_channels;
    let mut sums = [0.0f64; 6];
    let (mut agree, mut right_ae, mut right_orig) = (0usize, 0usize, 0usize);
    let mut live = vec![0usize; k];
    let all: Vec<u32> = (0..data.len() as u32).collect();
    for block in all.chunks(nodes.evaluate_rows) {
        feed(program, nodes, data, block)?;
        program.run(EVALUATE, block.len())?;
        let mut row = vec![0.0f64; block.len()];
        let scalars = [nodes.shallow, nodes.deep, nodes.mean_abs, nodes.variation, nodes.mean_square, nodes.scale];
        for (sum, node) in sums.iter_mut().zip(scalars) {
            program.read(node, TensorMut::F64(&mut row))?;
            *sum += row.iter().sum::<f64>();
        }
        let mut orig = vec![0.0f32; block.len() * nodes.classes];
        let mut ae = orig.clone();
        let mut maxima = vec![0.0f32; block.len() * k];
        program.read(nodes.logits_orig, TensorMut::F32(&mut orig))?;
        program.read(nodes.logits_ae, TensorMut::F32(&mut ae))?;
        program.read(nodes.channel_max, TensorMut::F32(&mut maxima))?;
        for ((o, a), &i) in orig.chunks_exact(nodes.classes).zip(ae.chunks_exact(nodes.classes)).zip(block) {
            let label = data.label(i as usize).map(|label| label as usize);
            // a row without a largest logit (NaN) neither agrees nor is right, nor is one without a label
            let (o, a) = (argmax(o), argmax(a));
            agree += usize::from(o.is_some() && o == a);
            right_ae += usize::from(a.is_some() && a == label);
            right_orig += usize::from(o.is_some() && o == label);
        }
        for row in maxima.chunks_exact(k) {
            live.iter_mut().zip(row).for_each(|(count, &max)| *count += usize::from(max != 0.0));
        }
    }
    let n = data.len().max(1) as f64;
    let [shallow, deep, mean_abs, variation, mean_square, scale] = sums.map(|s| s / n);
    let plain = mean_abs + variation;
    let code_rms = (mean_square + RMS_EPSILON).sqrt();
    let interpretability = match nodes.objective.form {
        Interpretability::Plain => plain,
        Interpretability::ScaleFree => plain / code_rms,
    };
    let w = nodes.objective.weights;
    Ok(Quality {
        loss: w.interpretability * interpretability + w.shallow * shallow + w.deep * deep,
        interpretability,
        shallow,
        deep,
        agreement: agree as f64 / n,
        accuracy_ae: right_ae as f64 / n,
        accuracy_orig: right_orig as f64 / n,
        relative_l1: shallow / scale,
        code_mean: mean_abs,
        code_rms,
        dead: live.iter().enumerate().filter(|(_, c)| **c == 0).map(|(i, _)| i).collect(),
        live_share: live.iter().map(|&c| c as f64 / n).collect(),
    })
}
