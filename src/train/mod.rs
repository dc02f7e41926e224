//! Training: Adam on a planned graph, a schedule, the lowest validation loss kept, and checkpoints that resume to the
//! same bits as an uninterrupted run on every device that computes in f32.
//!
//! Everything that decides a step is in the checkpoint (weights, both moments, position, running sums) or a function of
//! the seed (data order, initial weights), so a run that stops anywhere and goes on is the run that never stopped.

pub mod autoencoder;
pub mod checkpoint;
pub mod classifier;
pub mod evaluation;
pub mod unit;

use crate::backend::{BackendError, Program, takes_images};
use crate::data::{DataError, Dataset};
use crate::graph::op::Op;
use crate::graph::plan::{Artifact, EntryId, Footprint};
use crate::graph::{Graph, GraphError, NodeId};
use crate::model::Statistic;
use crate::tensor::{Shape, Tensor, TensorMut, TensorRef};
use serde::{Deserialize, Serialize};

/// What a user sets of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Base learning rate.
    pub learning_rate: f64,
    /// Its course.
    pub schedule: Schedule,
    /// Passes over the training images.
    pub epochs: u64,
    /// Images a step; what fills no whole batch is left out of an epoch.
    pub batch: usize,
    /// Seed of initial weights and data order.
    pub seed: u64,
}

/// Learning rate over a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Half a cosine from the base rate to 0.
    Cosine,
    /// The paper's: one rate throughout.
    Constant,
    /// CheXNet's: `factor` times the rate whenever more than `patience` epochs in a row have not lowered the validation loss.
    Plateau {
        /// What the rate is multiplied with.
        factor: f64,
        /// Epochs without a lower loss that are let pass.
        patience: u64,
    },
}

/// A loss counts as lower when it is below this much of the lowest; PyTorch's default.
const PLATEAU_LOWER: f64 = 1.0 - 1e-4;
/// A rate stays as it is when it would change by no more than this; PyTorch's default.
const PLATEAU_LEAST_CHANGE: f64 = 1e-8;

impl Schedule {
    /// A tenth after more than five epochs without a lower loss.
    pub const PLATEAU: Schedule = Schedule::Plateau { factor: 0.1, patience: 5 };

    /// The rate of step `step` (0-based) of `total`, after epochs with the validation losses `losses`. All that a plateau
    /// depends on is in them, and they are in every checkpoint.
    pub fn rate(self, base: f64, step: u64, total: u64, losses: impl IntoIterator<Item = f64>) -> f64 {
        match self {
            Schedule::Constant => base,
            Schedule::Cosine => 0.5 * base * (1.0 + (std::f64::consts::PI * step as f64 / total.max(1) as f64).cos()),
            Schedule::Plateau { factor, patience } => {
                let (mut rate, mut lowest, mut waited) = (base, f64::INFINITY, 0);
                for loss in losses {
                    if loss < lowest * PLATEAU_LOWER {
                        (lowest, waited) = (loss, 0);
                    } else {
                        waited += 1;
                    }
                    if waited > patience {
                        waited = 0;
                        let next = rate * factor;
                        if rate - next > PLATEAU_LEAST_CHANGE {
                            rate = next;
                        }
                    }
                }
                rate
            }
        }
    }
}

/// Adam's constants, PyTorch's defaults (Kingma and Ba, arXiv 1412.6980).
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    /// Decay of the mean.
    pub beta1: f64,
    /// Decay of the square.
    pub beta2: f64,
    /// Added to the root.
    pub epsilon: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// A parameter under training with its moments.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The weight's key.
    pub name: String,
    /// The weight.
    pub parameter: NodeId,
    /// Running mean of its gradient.
    pub mean: NodeId,
    /// Running mean of the squared gradient.
    pub square: NodeId,
}

/// The nodes of an optimiser.
#[derive(Clone, Debug)]
pub struct Optimizer {
    /// Whole input of 3: learning rate, 1 - beta1^t, 1 - beta2^t.
    pub rate: NodeId,
    /// What it trains.
    pub trained: Vec<Trained>,
    /// Weights that a step changes without a gradient: norms' running statistics.
    pub carried: Vec<(String, NodeId)>,
    /// Updates of a training entry.
    pub updates: Vec<(NodeId, NodeId)>,
    adam: Adam,
}

impl Optimizer {
    /// Adds Adam's nodes for `parameters` with gradients `gradients`.
    ///
    /// # Errors
    /// [`GraphError`] when a gradient has another shape than its parameter.
    pub fn adam(
        graph: &mut Graph,
        parameters: &[NodeId],
        gradients: &[NodeId],
        adam: Adam,
    ) -> Result<Optimizer, GraphError> {
        let rate = graph.whole_input("adam.rate", [3]);
        let mut trained = Vec::new();
        let mut updates = Vec::new();
        for (&parameter, &gradient) in parameters.iter().zip(gradients) {
            let (name, shape) = (graph.node(parameter).name.clone(), graph.node(parameter).shape.clone());
            let mean = graph.state(&format!("m/{name}"), shape.clone());
            let square = graph.state(&format!("v/{name}"), shape);
            let next_mean = graph.push(&format!("m'/{name}"), Op::AdamMean { beta: adam.beta1 }, &[mean, gradient])?;
            let next_square =
                graph.push(&format!("v'/{name}"), Op::AdamSquare { beta: adam.beta2 }, &[square, gradient])?;
            let op = Op::AdamStep { epsilon: adam.epsilon };
            let next = graph.push(&format!("{name}'"), op, &[parameter, next_mean, next_square, rate])?;
            updates.extend([(mean, next_mean), (square, next_square), (parameter, next)]);
            trained.push(Trained { name, parameter, mean, square });
        }
        Ok(Optimizer { rate, trained, carried: Vec::new(), updates, adam })
    }

    /// Makes a step change these running statistics, too.
    pub fn carry(&mut self, graph: &Graph, statistics: &[Statistic]) {
        for s in statistics {
            self.carried.push((graph.node(s.parameter).name.clone(), s.parameter));
            self.updates.push((s.parameter, s.next));
        }
    }

    /// What `rate` holds at step `t` (1-based) under the learning rate `lr`.
    fn rates(&self, lr: f64, t: u64) -> [f64; 3] {
        let t = t.min(i32::MAX as u64) as i32;
        [lr, 1.0 - self.adam.beta1.powi(t), 1.0 - self.adam.beta2.powi(t)]
    }
}

/// Where a run stands, between two steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Epochs completed.
    pub epoch: u64,
    /// Batches completed in this epoch.
    pub batch: u64,
    /// Sums of this epoch's losses so far, one per loss.
    pub sums: Vec<f64>,
    /// Lowest validation loss so far and its epoch (1-based).
    pub best: Option<(f64, u64)>,
    /// One record per finished epoch.
    pub history: Vec<EpochRecord>,
}

/// What an epoch reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// 1-based.
    pub epoch: u64,
    /// Mean training losses by name, in the order of [`Fit::losses`].
    pub train: Vec<(String, f64)>,
    /// Named validation figures; the one called `loss` decides which weights are kept.
    pub validation: Vec<(String, f64)>,
}

impl EpochRecord {
    /// The validation figure of that name.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.validation.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }
}

/// All that a stopped run needs to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Where it stands.
    pub position: Position,
    /// Weights and moments: `p/<key>`, `m/<key>`, `v/<key>`, and the kept weights `best/<key>`. They are f32, as on every
    /// device but the reference; that one holds f64, so a resumed run of it differs in the eighth digit.
    pub tensors: Vec<(String, Tensor)>,
}

/// A training job: a program with its entries, fed by the caller's closures.
pub struct Fit<'a> {
    /// Program that holds the step entry.
    pub program: &'a mut dyn Program,
    /// The training entry.
    pub step: EntryId,
    /// Its optimiser.
    pub optimizer: &'a Optimizer,
    /// Whole scalars that the step entry wants, with their names.
    pub losses: Vec<(String, NodeId)>,
    /// Base learning rate.
    pub learning_rate: f64,
    /// Its course.
    pub schedule: Schedule,
    /// Epochs in all.
    pub epochs: u64,
    /// Rows a step.
    pub batch: usize,
    /// Training images.
    pub images: usize,
}

/// What a training run asks of its surroundings.
pub trait Surroundings {
    /// Writes the inputs of a batch in an epoch (0-based); `which` are training image numbers.
    ///
    /// # Errors
    /// Whatever the program or the data say.
    fn feed(&mut self, program: &mut dyn Program, epoch: u64, which: &[u32]) -> Result<(), TrainError>;
    /// Told which images the rest of an epoch (0-based) will feed, in order, so that they can be read meanwhile.
    fn upcoming(&mut self, _epoch: u64, _which: &[u32]) {}
    /// The order of an epoch (0-based): a permutation of the training images.
    fn order(&mut self, epoch: u64) -> Vec<u32>;
    /// Evaluates on validation data; the figure called `loss` decides which weights are kept.
    ///
    /// # Errors
    /// Whatever the program or the data say.
    fn validate(&mut self, program: &mut dyn Program) -> Result<Vec<(String, f64)>, TrainError>;
    /// Told after each step: batches done of all, and the step's losses.
    fn progress(&mut self, done: u64, total: u64, losses: &[f64]);
    /// Told after each epoch, with a checkpoint to save.
    ///
    /// # Errors
    /// When the checkpoint cannot be saved.
    fn epoch_done(&mut self, record: &EpochRecord, checkpoint: &Checkpoint) -> Result<(), TrainError>;
    /// True when the run should stop at the next step boundary.
    fn interrupted(&self) -> bool;
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// All epochs done; the weights of the lowest validation loss.
    Done {
        /// Weights by key.
        weights: Vec<(String, Tensor)>,
        /// Where it stood at the end.
        position: Position,
    },
    /// Stopped between two steps.
    Interrupted(Box<Checkpoint>),
}

/// What can go wrong in training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// An image cannot be read, or has no label.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The graph could not be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A loss became NaN or infinite.
    #[error("epoch {epoch}, batch {batch}: the loss \"{loss}\" is {value}; try a lower learning rate")]
    Diverged {
        /// Epoch, 1-based.
        epoch: u64,
        /// Batch, 1-based.
        batch: u64,
        /// Which loss.
        loss: String,
        /// Its value.
        value: f64,
    },
    /// No whole batch.
    #[error("{images} training images are fewer than one batch of {batch}; choose a smaller batch")]
    TooFewImages {
        /// Training images.
        images: usize,
        /// Images a step.
        batch: usize,
    },
    /// A batch norm would see one value of a channel, and one value has no spread.
    #[error("the norm \"{norm}\" sees one value of each channel in a batch of one image; choose a batch of at least 2")]
    SingleValue {
        /// Its path.
        norm: String,
    },
    /// A loss that the network's answers are not made for, or labels that are not its outputs.
    #[error("{0}")]
    Task(String),
    /// A checkpoint does not belong to this run, or is damaged.
    #[error("the checkpoint does not fit this run: {0}")]
    Checkpoint(String),
    /// A checkpoint could not be saved.
    #[error("{0}")]
    Save(String),
}

impl Fit<'_> {
    /// Runs from the start, or from `resume`, to the end or an interruption. Images that fill no whole batch at the end of
    /// an epoch's order are left out of that epoch.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn run(
        &mut self,
        resume: Option<Checkpoint>,
        surroundings: &mut dyn Surroundings,
    ) -> Result<Outcome, TrainError> {
        let losses = self.losses.len();
        let fresh = Position { epoch: 0, batch: 0, sums: vec![0.0; losses], best: None, history: Vec::new() };
        let mut best: Vec<(String, Tensor)> = Vec::new();
        let mut at = fresh;
        if let Some(checkpoint) = resume {
            best = self.restore(&checkpoint)?;
            at = checkpoint.position;
        }
        let batches = (self.images / self.batch.max(1)) as u64;
        if batches == 0 {
            return Err(TrainError::TooFewImages { images: self.images, batch: self.batch });
        }
        let total = batches.saturating_mul(self.epochs);
        while at.epoch < self.epochs {
            let order = surroundings.order(at.epoch);
            let rest = at.batch as usize * self.batch..batches as usize * self.batch;
            surroundings.upcoming(at.epoch, order.get(rest).unwrap_or(&[]));
            while at.batch < batches {
                if surroundings.interrupted() {
                    return Ok(Outcome::Interrupted(Box::new(self.checkpoint(&at, &best)?)));
                }
                let step = at.epoch * batches + at.batch;
                let start = at.batch as usize * self.batch;
                surroundings.feed(self.program, at.epoch, &order[start..start + self.batch])?;
                let losses_so_far = at.history.iter().filter_map(|record| record.figure("loss"));
                let lr = self.schedule.rate(self.learning_rate, step, total, losses_so_far);
                self.step_once(step + 1, lr)?;
                let mut values = vec![0.0; losses];
                for ((value, sum), (name, node)) in values.iter_mut().zip(&mut at.sums).zip(&self.losses) {
                    self.program.read(*node, TensorMut::F64(std::slice::from_mut(value)))?;
                    if !value.is_finite() {
                        let (epoch, batch) = (at.epoch + 1, at.batch + 1);
                        return Err(TrainError::Diverged { epoch, batch, loss: name.clone(), value: *value });
                    }
                    *sum += *value;
                }
                at.batch += 1;
                surroundings.progress(step + 1, total, &values);
            }
            let validation = surroundings.validate(self.program)?;
            let means = at.sums.iter().map(|s| s / batches as f64);
            let train = self.losses.iter().map(|(name, _)| name.clone()).zip(means).collect();
            let record = EpochRecord { epoch: at.epoch + 1, train, validation };
            let loss = record.figure("loss").unwrap_or(f64::NAN);
            if !loss.is_finite() {
                let (epoch, loss_name) = (record.epoch, "validation loss".to_string());
                return Err(TrainError::Diverged { epoch, batch: batches, loss: loss_name, value: loss });
            }
            if at.best.is_none_or(|(lowest, _)| loss < lowest) {
                at.best = Some((loss, record.epoch));
                best = self.weights()?;
            }
            at.history.push(record.clone());
            at.epoch += 1;
            at.batch = 0;
            at.sums.fill(0.0);
            surroundings.epoch_done(&record, &self.checkpoint(&at, &best)?)?;
        }
        Ok(Outcome::Done { weights: best, position: at })
    }

    /// One step (number `t`, from 1) on the rows that were fed.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn step_once(&mut self, t: u64, learning_rate: f64) -> Result<(), BackendError> {
        self.program.write(self.optimizer.rate, TensorRef::F64(&self.optimizer.rates(learning_rate, t)))?;
        self.program.run(self.step, self.batch)
    }

    fn read(&mut self, node: NodeId) -> Result<Tensor, BackendError> {
        let shape: Shape = self.program.artifact().graph().node(node).shape.clone();
        let mut tensor = Tensor::zeros(shape);
        self.program.read(node, TensorMut::F32(tensor.data_mut()))?;
        Ok(tensor)
    }

    fn weights(&mut self) -> Result<Vec<(String, Tensor)>, BackendError> {
        let optimizer = self.optimizer;
        let trained = optimizer.trained.iter().map(|t| (&t.name, t.parameter));
        let all = trained.chain(optimizer.carried.iter().map(|(name, parameter)| (name, *parameter)));
        all.map(|(name, parameter)| Ok((name.clone(), self.read(parameter)?))).collect()
    }

    fn checkpoint(&mut self, at: &Position, best: &[(String, Tensor)]) -> Result<Checkpoint, BackendError> {
        let mut tensors = Vec::new();
        for t in &self.optimizer.trained {
            for (kind, node) in [("p", t.parameter), ("m", t.mean), ("v", t.square)] {
                tensors.push((format!("{kind}/{}", t.name), self.read(node)?));
            }
        }
        for (name, parameter) in &self.optimizer.carried {
            tensors.push((format!("p/{name}"), self.read(*parameter)?));
        }
        tensors.extend(best.iter().map(|(name, tensor)| (format!("best/{name}"), tensor.clone())));
        Ok(Checkpoint { position: at.clone(), tensors })
    }

    /// Puts a checkpoint's weights and moments into the program; returns the kept weights.
    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<Vec<(String, Tensor)>, TrainError> {
        let find = |key: String, shape: &Shape| match checkpoint.tensors.iter().find(|(name, _)| *name == key) {
            None => Err(TrainError::Checkpoint(format!("it lacks \"{key}\""))),
            Some((_, t)) if t.shape() != shape => {
                Err(TrainError::Checkpoint(format!("\"{key}\" is {} there and {shape} here", t.shape())))
            }
            Some((_, t)) => Ok(t),
        };
        if checkpoint.position.sums.len() != self.losses.len() || checkpoint.position.epoch > self.epochs {
            return Err(TrainError::Checkpoint("its losses or epochs are those of another configuration".into()));
        }
        let mut best = Vec::new();
        for t in &self.optimizer.trained {
            let shape = self.program.artifact().graph().node(t.parameter).shape.clone();
            for (kind, node) in [("p", t.parameter), ("m", t.mean), ("v", t.square)] {
                let tensor = find(format!("{kind}/{}", t.name), &shape)?;
                self.program.write(node, TensorRef::F32(tensor.data()))?;
            }
            if checkpoint.position.best.is_some() {
                best.push((t.name.clone(), find(format!("best/{}", t.name), &shape)?.clone()));
            }
        }
        for (name, parameter) in &self.optimizer.carried {
            let shape = self.program.artifact().graph().node(*parameter).shape.clone();
            let tensor = find(format!("p/{name}"), &shape)?;
            self.program.write(*parameter, TensorRef::F32(tensor.data()))?;
            if checkpoint.position.best.is_some() {
                best.push((name.clone(), find(format!("best/{name}"), &shape)?.clone()));
            }
        }
        Ok(best)
    }
}

/// Memory that an evaluation's values should take at most, beside the weights. The same for every device, so that sums over
/// images are cut alike.
const EVALUATION_BYTES: usize = 1 << 30;

/// Most rows of a classifier's evaluation run; no image's answer depends on it.
const EVALUATE_ROWS: usize = 100;

/// Rows of an evaluation: `most`, or as many as keep what `plan` plans for them within a budget; at least 1. Figures are
/// sums over rows in order, so none depends on it beyond its last digits.
fn rows_within(most: usize, plan: impl Fn(usize) -> Result<Artifact, GraphError>) -> Result<usize, GraphError> {
    Ok((EVALUATION_BYTES / Footprint::of(plan)?.row.max(1)).clamp(1, most))
}

/// Writes images `which` of `data` to input `x`.
fn write_images(program: &mut dyn Program, x: NodeId, data: &Dataset, which: &[u32]) -> Result<(), TrainError> {
    takes_images(program, x, data.shape())?;
    Ok(program.write(x, TensorRef::F32(&data.pixels(which)?))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_schedule_starts_at_the_base_rate_and_ends_near_zero() {
        let rate = |schedule: Schedule, step| schedule.rate(1e-3, step, 100, []);
        assert_eq!(rate(Schedule::Cosine, 0), 1e-3);
        assert!((rate(Schedule::Cosine, 50) - 5e-4).abs() < 1e-18);
        assert!(rate(Schedule::Cosine, 99) < 1e-6);
        assert_eq!(rate(Schedule::Constant, 99), 1e-3);
    }

    #[test]
    fn a_plateau_lowers_the_rate_after_more_than_its_patience_and_waits_anew() {
        let schedule = Schedule::Plateau { factor: 0.5, patience: 2 };
        let rates = |losses: &[f64]| -> Vec<f64> {
            (0..=losses.len()).map(|n| schedule.rate(8.0, 0, 1, losses[..n].iter().copied())).collect()
        };
        // two epochs without a lower loss pass, the third does not; then three more
        assert_eq!(rates(&[1.0, 1.0, 1.1, 1.0, 1.0, 1.0, 1.0]), [8.0, 8.0, 8.0, 8.0, 4.0, 4.0, 4.0, 2.0]);
        // a loss within a ten thousandth of the lowest is not lower
        assert_eq!(rates(&[1.0, 0.99995, 0.99995, 0.99995]), [8.0, 8.0, 8.0, 8.0, 4.0]);
        assert_eq!(rates(&[1.0, 1.0, 1.0, 0.9, 1.0, 1.0, 0.8]), [8.0; 8]);
    }

    #[test]
    fn schedules_are_written_by_name_and_read_back() {
        for (schedule, text) in [
            (Schedule::Cosine, r#""cosine""#),
            (Schedule::Constant, r#""constant""#),
            (Schedule::PLATEAU, r#"{"plateau":{"factor":0.1,"patience":5}}"#),
        ] {
            assert_eq!(serde_json::to_string(&schedule).ok().as_deref(), Some(text));
            assert_eq!(serde_json::from_str::<Schedule>(text).ok(), Some(schedule));
        }
    }
}
