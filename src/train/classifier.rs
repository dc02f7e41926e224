//! Training a classifier: what of it learns (everything, or the head behind a frozen trunk), on which loss (cross-entropy of
//! classes, binary cross-entropy of findings), on which views of the images; lowest validation loss kept.
//!
//! What learns is in training mode (batch statistics, dropout) and is judged in evaluation mode; a frozen trunk is in inference
//! mode, its weights and statistics are never written.

use super::evaluation::Answers;
use super::evaluation::auroc::area;
use super::{Adam, EVALUATE_ROWS, Fit, Optimizer, TrainError, rows_within, write_images};
use crate::answer::{Head, sigmoid};
use crate::backend::{Backend, BackendError, Completed, Parameters, Program, takes_images};
use crate::data::augment::Augment;
use crate::data::{Dataset, Labels};
use crate::graph::op::Op;
use crate::graph::plan::{Entry, EntryId, plan};
use crate::graph::vjp::vjp;
use crate::graph::{Graph, GraphError, NodeId};
use crate::model::{Dropout, Learnt, Mode, Model};
use crate::tensor::{Tensor, TensorMut, TensorRef, argmax};
use serde::{Deserialize, Serialize};

/// What is trained, and how: a part of a run's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What learns.
    pub scope: Scope,
    /// What it learns from.
    pub loss: Loss,
    /// How it sees the training images.
    pub views: Views,
}

/// Which part of a network learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// All of it.
    #[default]
    Whole,
    /// What follows `features`. Those are frozen: bit-unchanged, statistics of norms too.
    Head,
}

/// A loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Of the softmax at the label.
    #[default]
    CrossEntropy,
    /// Of the sigmoids at the findings, mean over findings.
    BinaryCrossEntropy(Findings),
}

/// How absent and present findings count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Findings {
    /// Each term once.
    #[default]
    Alike,
    /// Present ones |N|/(|P|+|N|) times, absent ones |P|/(|P|+|N|) times, as CheXNet does it; P are the training images with
    /// the finding, N those without.
    Balanced,
}

/// How training sees an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Views {
    /// As evaluation does.
    #[default]
    Plain,
    /// A random part at the whole size, mirrored half of the times; another in each epoch.
    CropsAndFlips,
}

/// What the labels are written to.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// One class an image.
    Class(NodeId),
    /// A row of findings an image.
    Findings(NodeId),
}

/// A classifier on a device, ready to train or to evaluate.
pub struct Classifier {
    program: Box<dyn Program>,
    optimizer: Optimizer,
    dropouts: Vec<Dropout>,
    views: Views,
    loss: NodeId,
    nodes: Nodes,
    batch: usize,
}

/// Entries of the artifact.
const STEP: EntryId = EntryId(0);
const EVALUATE: EntryId = EntryId(1);

/// What an evaluation of classes finds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Mean cross-entropy, nats.
    pub loss: f64,
    /// Share of images whose most likely class is their label.
    pub accuracy: f64,
}

/// What an evaluation of findings finds.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Mean binary cross-entropy over images and findings, nats; weighted as in training.
    pub loss: f64,
    /// The area under the ROC curve of each finding; none where all images have it or none has.
    pub auroc: Vec<Option<f64>>,
}

impl Detection {
    /// The mean area over the findings that have one.
    pub fn mean_auroc(&self) -> Option<f64> {
        let known: Vec<f64> = self.auroc.iter().flatten().copied().collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }
}

/// A network in a graph, ready for a loss.
struct Networks {
    /// Its answers while it learns.
    trained: NodeId,
    /// Its answers when it is judged.
    judged: NodeId,
    learnt: Learnt,
}

impl Networks {
    fn new(graph: &mut Graph, model: &Model, x: NodeId, scope: Scope) -> Result<Networks, GraphError> {
        let normalised = model.normalise(graph, x)?;
        let mut learnt = Learnt::default();
        let trunk = match scope {
            Scope::Whole => model.features_in(graph, normalised, &mut Mode::Training(&mut learnt))?,
            Scope::Head => model.features_in(graph, normalised, &mut Mode::Inference)?,
        };
        let trained = model.head_in(graph, trunk, &mut Mode::Training(&mut learnt))?;
        // without norms and dropouts both modes are one
        if learnt.dropouts.is_empty() && learnt.statistics.is_empty() {
            return Ok(Networks { trained, judged: trained, learnt });
        }
        let trunk = match scope {
            Scope::Whole => model.features_in(graph, normalised, &mut Mode::Evaluation)?,
            Scope::Head => trunk,
        };
        let judged = model.head_in(graph, trunk, &mut Mode::Evaluation)?;
        Ok(Networks { trained, judged, learnt })
    }
}

impl Classifier {
    /// Loads `model` with `weights` for steps of `batch` images: all of it, on cross-entropy.
    ///
    /// # Errors
    /// [`TrainError`] when the graph cannot be built or the weights do not fit.
    pub fn new(
        model: &Model,
        weights: &dyn Parameters,
        backend: &dyn Backend,
        batch: usize,
    ) -> Result<Classifier, TrainError> {
        Classifier::build(model, weights, backend, batch, Task::default(), None)
    }

    /// Loads `model` with `weights` for steps of `batch` images of `train` at a task.
    ///
    /// # Errors
    /// [`TrainError`] when the graph cannot be built, the weights do not fit, or the loss does not fit the network or the
    /// images' labels.
    pub fn for_task(
        model: &Model,
        weights: &dyn Parameters,
        backend: &dyn Backend,
        batch: usize,
        task: Task,
        train: &Dataset,
    ) -> Result<Classifier, TrainError> {
        let finding_weights = match task.loss {
            Loss::BinaryCrossEntropy(Findings::Balanced) => Some(finding_weights(train, model.classes)?),
            Loss::BinaryCrossEntropy(Findings::Alike) | Loss::CrossEntropy => None,
        };
        Classifier::build(model, weights, backend, batch, task, finding_weights)
    }

    fn build(
        model: &Model,
        weights: &dyn Parameters,
        backend: &dyn Backend,
        batch: usize,
        task: Task,
        finding_weights: Option<Tensor>,
    ) -> Result<Classifier, TrainError> {
        let fits = match task.loss {
            Loss::CrossEntropy => model.head == Head::Softmax,
            Loss::BinaryCrossEntropy(_) => model.head == Head::Sigmoid,
        };
        if !fits {
            let (loss, needed) = match task.loss {
                Loss::CrossEntropy => ("cross-entropy", Head::Softmax),
                Loss::BinaryCrossEntropy(_) => ("binary cross-entropy", Head::Sigmoid),
            };
            let reason = format!("{loss} trains a {needed} head, but {} has a {} head", model.arch, model.head);
            return Err(TrainError::Task(reason));
        }
        let mut graph = Graph::new();
        let x = graph.input("x", model.input);
        let target = match task.loss {
            Loss::CrossEntropy => Target::Class(graph.index_input("label")),
            Loss::BinaryCrossEntropy(_) => Target::Findings(graph.input("findings", [model.classes])),
        };
        let Networks { trained, judged, learnt } = Networks::new(&mut graph, model, x, task.scope)?;
        if let Some(lone) = learnt.statistics.iter().find(|s| s.positions * batch < 2) {
            return Err(TrainError::SingleValue { norm: lone.norm.clone() });
        }
        let shape = finding_weights.as_ref().map(|tensor| tensor.shape().clone());
        let counts = shape.map(|shape| graph.whole_input("finding weights", shape));
        let loss_of = |graph: &mut Graph, logits: NodeId| match target {
            Target::Class(label) => graph.push("loss", Op::CrossEntropy, &[logits, label]),
            Target::Findings(findings) => {
                let mut inputs = vec![logits, findings];
                inputs.extend(counts);
                let sum = graph.push("loss.sum", Op::BinaryCrossEntropy, &inputs)?;
                graph.scale("loss", sum, 1.0 / model.classes as f64)
            }
        };
        let trained_loss = loss_of(&mut graph, trained)?;
        let row_loss = if judged == trained { trained_loss } else { loss_of(&mut graph, judged)? };
        let loss = graph.mean_rows("loss.mean", trained_loss)?;
        let one = graph.whole_input("one", [1]);
        let gradients = vjp(&mut graph, loss, one, &learnt.parameters)?;
        let mut optimizer = Optimizer::adam(&mut graph, &learnt.parameters, &gradients, Adam::default())?;
        optimizer.carry(&graph, &learnt.statistics);
        let (Target::Class(labels) | Target::Findings(labels)) = target;
        let mut given = vec![x, labels, one, optimizer.rate];
        given.extend(learnt.dropouts.iter().map(|d| d.mask));
        let mut judged_from = vec![x, labels];
        if let Some(counts) = counts {
            given.push(counts);
            judged_from.push(counts);
        }
        let evaluate = Entry {
            name: "evaluate",
            given: &judged_from,
            want: &[judged, row_loss],
            updates: &[],
            capacity: EVALUATE_ROWS,
        };
        let rows = rows_within(EVALUATE_ROWS, |capacity| plan(&graph, &[Entry { capacity, ..evaluate }]))?;
        let step =
            Entry { name: "train step", given: &given, want: &[loss], updates: &optimizer.updates, capacity: batch };
        let artifact = plan(&graph, &[step, Entry { capacity: rows, ..evaluate }])?;
        let constants = model.constants();
        let mut program = backend.load(artifact, &Completed { weights, derived: &constants })?;
        program.write(one, TensorRef::F32(&[1.0]))?;
        if let (Some(counts), Some(tensor)) = (counts, &finding_weights) {
            program.write(counts, TensorRef::F32(tensor.data()))?;
        }
        let nodes = Nodes { x, target, row_loss, logits: judged, classes: model.classes, rows };
        Ok(Classifier { program, optimizer, dropouts: learnt.dropouts, views: task.views, loss, nodes, batch })
    }

    /// The training job over `images` images; its one loss is called `loss`.
    pub fn fit(&mut self, settings: &super::Settings, images: usize) -> Fit<'_> {
        Fit {
            program: &mut *self.program,
            step: STEP,
            optimizer: &self.optimizer,
            losses: vec![("loss".into(), self.loss)],
            learning_rate: settings.learning_rate,
            schedule: settings.schedule,
            epochs: settings.epochs,
            batch: self.batch,
            images,
        }
    }

    /// Lets every unit pass, in steps whose masks no [`Feeder`] writes: a step that is timed or compared draws nothing.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn without_dropout(&mut self) -> Result<(), BackendError> {
        for dropout in &self.dropouts {
            self.program.write(dropout.mask, TensorRef::F32(&vec![1.0; self.batch * dropout.len]))?;
        }
        Ok(())
    }

    /// What writes the training batches of `data` under a seed, for surroundings that hold the program through [`Fit`].
    pub fn feeder<'a>(&self, data: &'a Dataset, seed: u64) -> Feeder<'a> {
        Feeder { nodes: self.nodes, dropouts: self.dropouts.clone(), views: self.views, data, seed }
    }

    /// The nodes that [`feed`] and [`evaluate`] use, for surroundings that hold the program through [`Fit`].
    pub fn nodes(&self) -> Nodes {
        self.nodes
    }

    /// Loss and accuracy over a data set.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn evaluate(&mut self, data: &Dataset) -> Result<Accuracy, TrainError> {
        evaluate(&mut *self.program, self.nodes, data)
    }

    /// Loss over a data set, and all answers to it.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn answers<'a>(&mut self, data: &'a Dataset) -> Result<(f64, Answers<'a>), TrainError> {
        let head = match self.nodes.target {
            Target::Class(_) => Head::Softmax,
            Target::Findings(_) => Head::Sigmoid,
        };
        let mut all = Vec::with_capacity(data.len() * self.nodes.classes);
        let loss = judge(&mut *self.program, self.nodes, data, |_, logits| all.extend_from_slice(logits))?;
        Ok((loss, Answers::new(data, head, self.nodes.classes, all)?))
    }

    /// Loss and areas under the ROC curves over a data set with findings.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn detect(&mut self, data: &Dataset) -> Result<Detection, TrainError> {
        detect(&mut *self.program, self.nodes, data)
    }
}

/// Lines of absent and of present findings' weights: |P|/(|P|+|N|) and |N|/(|P|+|N|).
///
/// # Errors
/// [`crate::data::DataError::Unlabelled`] where the images have no `count` findings.
pub fn finding_weights(train: &Dataset, count: usize) -> Result<Tensor, TrainError> {
    let all: Vec<u32> = (0..train.len() as u32).collect();
    let findings = train.findings_of(&all, count, "training on findings")?;
    let present = |k: usize| findings.iter().skip(k).step_by(count.max(1)).filter(|f| **f != 0.0).count() as f64;
    let share: Vec<f64> = (0..count).map(|k| present(k) / train.len().max(1) as f64).collect();
    let weight = |i: usize| if i < count { share[i] as f32 } else { (1.0 - share[i - count]) as f32 };
    Ok(Tensor::from_fn([2, count], weight))
}

/// All weights of `model` in its order: what was trained, and the others from where training began.
///
/// # Errors
/// [`BackendError::Parameter`] for one that neither has.
pub fn complete(
    model: &Model,
    trained: &[(String, Tensor)],
    initial: &dyn Parameters,
) -> Result<Vec<(String, Tensor)>, BackendError> {
    let one = |(key, expected): (String, crate::tensor::Shape)| {
        let kept = || trained.iter().find(|(name, _)| *name == key).map(|(_, tensor)| tensor.clone());
        let found = kept().or_else(|| {
            let (shape, data) = initial.parameter(&key)?;
            Tensor::new(shape, data.into_owned())
        });
        let tensor =
            found.ok_or_else(|| BackendError::Parameter { name: key.clone(), expected, got: "nothing".into() })?;
        Ok((key, tensor))
    };
    model.parameters().into_iter().map(one).collect()
}

/// Writes the training batches of a data set: images as training sees them, labels, masks of dropouts. An image's view and
/// masks depend on seed, image number and epoch alone.
pub struct Feeder<'a> {
    nodes: Nodes,
    dropouts: Vec<Dropout>,
    views: Views,
    data: &'a Dataset,
    seed: u64,
}

impl Feeder<'_> {
    fn augment(&self, epoch: u64) -> Option<Augment> {
        match self.views {
            Views::Plain => None,
            Views::CropsAndFlips => Some(Augment { seed: self.seed, epoch: epoch as u32 }),
        }
    }

    /// Says which images an epoch (0-based) will feed, so that they are read meanwhile.
    pub fn upcoming(&self, epoch: u64, which: &[u32]) {
        match self.augment(epoch) {
            None => self.data.announce(which),
            Some(augment) => self.data.announce_augmented(which, augment),
        }
    }

    /// Writes a batch of an epoch (0-based).
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn feed(&self, program: &mut dyn Program, epoch: u64, which: &[u32]) -> Result<(), TrainError> {
        write_labels(program, self.nodes, self.data, which)?;
        match self.augment(epoch) {
            None => write_images(program, self.nodes.x, self.data, which)?,
            Some(augment) => {
                takes_images(program, self.nodes.x, self.data.shape())?;
                program.write(self.nodes.x, TensorRef::F32(&self.data.augmented(which, augment)?))?;
            }
        }
        for dropout in &self.dropouts {
            let ids = which.iter().map(|&i| self.data.ids()[i as usize]);
            let masks: Vec<f32> = ids.flat_map(|id| dropout.row(self.seed, id, epoch)).collect();
            program.write(dropout.mask, TensorRef::F32(&masks))?;
        }
        Ok(())
    }
}

/// The classifier's nodes that data goes through.
#[derive(Clone, Copy, Debug)]
pub struct Nodes {
    x: NodeId,
    target: Target,
    row_loss: NodeId,
    logits: NodeId,
    classes: usize,
    /// Rows of an evaluation.
    rows: usize,
}

impl Nodes {
    /// Writes pixels (rows of C x H x W in [0, 1]) and their labels.
    ///
    /// # Errors
    /// [`BackendError`], also where it is findings that the network learns.
    pub fn write(&self, program: &mut dyn Program, pixels: TensorRef<'_>, labels: &[u32]) -> Result<(), BackendError> {
        let (Target::Class(target) | Target::Findings(target)) = self.target;
        program.write(self.x, pixels)?;
        program.write(target, TensorRef::U32(labels))
    }

    /// Rows of an evaluation run.
    pub fn evaluation_rows(&self) -> usize {
        self.rows
    }
}

fn write_labels(program: &mut dyn Program, nodes: Nodes, data: &Dataset, which: &[u32]) -> Result<(), TrainError> {
    match nodes.target {
        Target::Class(label) => {
            let labels = data.labels_of(which, "training a classifier")?;
            Ok(program.write(label, TensorRef::U32(&labels))?)
        }
        Target::Findings(node) => {
            let findings = data.findings_of(which, nodes.classes, "training on findings")?;
            Ok(program.write(node, TensorRef::F32(&findings))?)
        }
    }
}

/// Writes images and labels of a batch, without what training alone needs.
///
/// # Errors
/// [`TrainError`].
pub fn feed(program: &mut dyn Program, nodes: Nodes, data: &Dataset, which: &[u32]) -> Result<(), TrainError> {
    write_labels(program, nodes, data, which)?;
    write_images(program, nodes.x, data, which)
}

/// Mean loss over a data set, sums in f64 in image order; `take` is told each run's images and their logits.
fn judge(
    program: &mut dyn Program,
    nodes: Nodes,
    data: &Dataset,
    mut take: impl FnMut(&[u32], &[f32]),
) -> Result<f64, TrainError> {
    let mut loss = 0.0;
    let all: Vec<u32> = (0..data.len() as u32).collect();
    data.announce(&all);
    for block in all.chunks(nodes.rows) {
        feed(program, nodes, data, block)?;
        program.run(EVALUATE, block.len())?;
        let mut losses = vec![0.0f64; block.len()];
        let mut logits = vec![0.0f32; block.len() * nodes.classes];
        program.read(nodes.row_loss, TensorMut::F64(&mut losses))?;
        program.read(nodes.logits, TensorMut::F32(&mut logits))?;
        loss += losses.iter().sum::<f64>();
        take(block, &logits);
    }
    Ok(loss / data.len().max(1) as f64)
}

/// Loss and accuracy over a data set.
///
/// # Errors
/// [`TrainError`].
pub fn evaluate(program: &mut dyn Program, nodes: Nodes, data: &Dataset) -> Result<Accuracy, TrainError> {
    let mut right = 0usize;
    let loss = judge(program, nodes, data, |block, logits| {
        let rows = logits.chunks_exact(nodes.classes).zip(block);
        right += rows.filter(|(row, i)| argmax(row) == Some(data.labels()[**i as usize] as usize)).count();
    })?;
    Ok(Accuracy { loss, accuracy: right as f64 / data.len().max(1) as f64 })
}

/// Loss and areas under the ROC curves over a data set with findings.
///
/// # Errors
/// [`TrainError`].
pub fn detect(program: &mut dyn Program, nodes: Nodes, data: &Dataset) -> Result<Detection, TrainError> {
    let mut scores: Vec<Vec<f64>> = vec![Vec::with_capacity(data.len()); nodes.classes];
    let loss = judge(program, nodes, data, |_, logits| {
        for row in logits.chunks_exact(nodes.classes) {
            scores.iter_mut().zip(row).for_each(|(scores, &logit)| scores.push(sigmoid(f64::from(logit))));
        }
    })?;
    let has = |finding: usize| -> Vec<bool> {
        match data.targets() {
            Labels::Findings(all) => all.iter().map(|f| f.contains(finding)).collect(),
            Labels::Classes(_) => Vec::new(),
        }
    };
    let auroc = scores.iter().enumerate().map(|(k, scores)| area(scores, &has(k))).collect();
    Ok(Detection { loss, auroc })
}

/// The validation figures of either task by name: `loss`, and `accuracy` of classes or the mean `auroc` of findings (left out
/// where no finding is both present and absent).
///
/// # Errors
/// [`TrainError`].
pub fn figures(program: &mut dyn Program, nodes: Nodes, data: &Dataset) -> Result<Vec<(String, f64)>, TrainError> {
    match nodes.target {
        Target::Class(_) => {
            let found = evaluate(program, nodes, data)?;
            Ok(vec![("loss".into(), found.loss), ("accuracy".into(), found.accuracy)])
        }
        Target::Findings(_) => {
            let found = detect(program, nodes, data)?;
            let mut figures = vec![("loss".into(), found.loss)];
            figures.extend(found.mean_auroc().map(|mean| ("auroc".into(), mean)));
            Ok(figures)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(model: &Model) -> Result<usize, TrainError> {
        let mut graph = Graph::new();
        let x = graph.input("x", model.input);
        let networks = Networks::new(&mut graph, model, x, Scope::Whole)?;
        let (given, want) = ([x], [networks.judged]);
        let entry = |capacity| Entry { name: "evaluate", given: &given, want: &want, updates: &[], capacity };
        Ok(rows_within(EVALUATE_ROWS, |capacity| plan(&graph, &[entry(capacity)]))?)
    }

    #[test]
    fn an_evaluation_takes_a_hundred_small_images_and_as_many_large_ones_as_fit_a_gigabyte() -> Result<(), TrainError> {
        let of = |name: &str| Model::named(name).map_err(|e| TrainError::Task(e.to_string())).and_then(|m| rows(&m));
        assert_eq!(of("fashion")?, 100);
        let vgg = of("vgg16")?;
        // two maps of 64 x 224 x 224 at once are 25.7 MB, and the image with its normalised form 1.2 MB
        assert!((36..=41).contains(&vgg), "{vgg}");
        let dense = of("densenet121")?;
        assert!((20..=100).contains(&dense), "{dense}");
        Ok(())
    }

    #[test]
    fn a_task_is_written_in_words_and_read_back() {
        let task = Task {
            scope: Scope::Head,
            loss: Loss::BinaryCrossEntropy(Findings::Balanced),
            views: Views::CropsAndFlips,
        };
        let text = r#"{"scope":"head","loss":{"binary-cross-entropy":"balanced"},"views":"crops-and-flips"}"#;
        assert_eq!(serde_json::to_string(&task).ok().as_deref(), Some(text));
        assert_eq!(serde_json::from_str::<Task>(text).ok(), Some(task));
        let plain = r#"{"scope":"whole","loss":"cross-entropy","views":"plain"}"#;
        assert_eq!(serde_json::to_string(&Task::default()).ok().as_deref(), Some(plain));
    }
}
