//! Training a classifier: cross-entropy on labelled images, whole network, lowest validation loss kept.

use super::{Adam, Fit, Optimizer, TrainError};
use crate::backend::{Backend, BackendError, Completed, Parameters, Program};
use crate::data::Dataset;
use crate::graph::op::Op;
use crate::graph::plan::{Entry, EntryId, plan};
use crate::graph::vjp::vjp;
use crate::graph::{Graph, NodeId};
use crate::model::Model;
use crate::tensor::{TensorMut, TensorRef, argmax};

/// Rows of an evaluation run; no result depends on it.
const EVALUATE_ROWS: usize = 100;

/// A classifier on a device, ready to train or to evaluate.
pub struct Classifier {
    program: Box<dyn Program>,
    optimizer: Optimizer,
    x: NodeId,
    label: NodeId,
    loss: NodeId,
    row_loss: NodeId,
    logits: NodeId,
    classes: usize,
    batch: usize,
}

/// Entries of the artifact.
const STEP: EntryId = EntryId(0);
const EVALUATE: EntryId = EntryId(1);

/// What an evaluation finds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Mean cross-entropy, nats.
    pub loss: f64,
    /// Share of images whose most likely class is their label.
    pub accuracy: f64,
}

impl Classifier {
    /// Loads `model` with `weights` for steps of `batch` images.
    ///
    /// # Errors
    /// [`TrainError`] when the graph cannot be built or the weights do not fit.
    pub fn new(
        model: &Model,
        weights: &dyn Parameters,
        backend: &dyn Backend,
        batch: usize,
    ) -> Result<Classifier, TrainError> {
        let mut graph = Graph::new();
        let x = graph.input("x", model.input);
        let label = graph.index_input("label");
        let normalised = model.normalise(&mut graph, x)?;
        let logits = model.tail(&mut graph, normalised, 0)?;
        let row_loss = graph.push("loss", Op::CrossEntropy, &[logits, label])?;
        let loss = graph.mean_rows("loss.mean", row_loss)?;
        let parameters: Vec<NodeId> = model.parameters().iter().filter_map(|(n, _)| graph.parameter_named(n)).collect();
        let one = graph.whole_input("one", [1]);
        let gradients = vjp(&mut graph, loss, one, &parameters)?;
        let optimizer = Optimizer::adam(&mut graph, &parameters, &gradients, Adam::default())?;
        let artifact = plan(
            &graph,
            &[
                Entry {
                    name: "train step",
                    given: &[x, label, one, optimizer.rate],
                    want: &[loss],
                    updates: &optimizer.updates,
                    capacity: batch,
                },
                Entry {
                    name: "evaluate",
                    given: &[x, label],
                    want: &[logits, row_loss],
                    updates: &[],
                    capacity: EVALUATE_ROWS,
                },
            ],
        )?;
        let constants = model.constants();
        let mut program = backend.load(artifact, &Completed { weights, derived: &constants })?;
        program.write(one, TensorRef::F32(&[1.0]))?;
        Ok(Classifier { program, optimizer, x, label, loss, row_loss, logits, classes: model.classes, batch })
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

    /// The nodes that [`feed`] and [`evaluate`] use, for surroundings that hold the program through [`Fit`].
    pub fn nodes(&self) -> Nodes {
        Nodes { x: self.x, label: self.label, row_loss: self.row_loss, logits: self.logits, classes: self.classes }
    }

    /// Loss and accuracy over a data set.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn evaluate(&mut self, data: &Dataset) -> Result<Accuracy, TrainError> {
        let nodes = self.nodes();
        evaluate(&mut *self.program, nodes, data)
    }
}

/// The classifier's nodes that data goes through.
#[derive(Clone, Copy, Debug)]
pub struct Nodes {
    x: NodeId,
    label: NodeId,
    row_loss: NodeId,
    logits: NodeId,
    classes: usize,
}

impl Nodes {
    /// Writes pixels (rows of C x H x W in [0, 1]) and their labels.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn write(&self, program: &mut dyn Program, pixels: TensorRef<'_>, labels: &[u32]) -> Result<(), BackendError> {
        program.write(self.x, pixels)?;
        program.write(self.label, TensorRef::U32(labels))
    }
}

/// Writes images and labels of a batch.
///
/// # Errors
/// [`TrainError`].
pub fn feed(program: &mut dyn Program, nodes: Nodes, data: &Dataset, which: &[u32]) -> Result<(), TrainError> {
    let labels = data.labels_of(which, "training a classifier")?;
    super::write_images(program, nodes.x, data, which)?;
    Ok(program.write(nodes.label, TensorRef::U32(&labels))?)
}

/// Loss and accuracy over a data set, sums in f64 in image order.
///
/// # Errors
/// [`TrainError`].
pub fn evaluate(program: &mut dyn Program, nodes: Nodes, data: &Dataset) -> Result<Accuracy, TrainError> {
    let (mut loss, mut right) = (0.0, 0usize);
    let all: Vec<u32> = (0..data.len() as u32).collect();
    for block in all.chunks(EVALUATE_ROWS) {
        feed(program, nodes, data, block)?;
        program.run(EVALUATE, block.len())?;
        let mut losses = vec![0.0f64; block.len()];
        let mut logits = vec![0.0f32; block.len() * nodes.classes];
        program.read(nodes.row_loss, TensorMut::F64(&mut losses))?;
        program.read(nodes.logits, TensorMut::F32(&mut logits))?;
        loss += losses.iter().sum::<f64>();
        let rows = logits.chunks_exact(nodes.classes).zip(block);
        right += rows.filter(|(row, i)| argmax(row) == Some(data.labels()[**i as usize] as usize)).count();
    }
    let n = data.len().max(1) as f64;
    Ok(Accuracy { loss: loss / n, accuracy: right as f64 / n })
}
