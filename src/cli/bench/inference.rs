//! Plain inference: a network with nothing beside it, so that its layers fuse as they do where no gradient is ever asked for.

use crate::backend::{Backend, BackendError, Completed, Program, load_fitting};
use crate::error::Error;
use crate::graph::plan::{Artifact, Entry, EntryId, Footprint, plan};
use crate::graph::{Graph, GraphError, NodeId};
use crate::model::Model;
use crate::tensor::{TensorMut, TensorRef};
use crate::weights::Weights;

/// A network on a device, for its logits.
pub struct Inference {
    program: Box<dyn Program>,
    x: NodeId,
    logits: NodeId,
    rows: usize,
    pixels: usize,
    classes: usize,
}

impl Inference {
    /// Loads `model` for batches of at most `images` rows: `batch`, or as many as suit the device.
    ///
    /// # Errors
    /// [`Error`] where the weights do not fit or the device has no memory for one row.
    pub fn load(
        model: &Model,
        weights: &Weights,
        images: usize,
        batch: Option<usize>,
        backend: &dyn Backend,
    ) -> Result<Inference, Error> {
        let mut graph = Graph::new();
        let x = graph.input("x", model.input);
        let normalised = model.normalise(&mut graph, x)?;
        let logits = model.tail(&mut graph, normalised, 0)?;
        let planned = |rows: usize| -> Result<Artifact, GraphError> {
            let forward = Entry { name: "forward", given: &[x], want: &[logits], updates: &[], capacity: rows };
            plan(&graph, &[forward])
        };
        let most = match batch {
            Some(rows) => rows,
            None => backend.batch_rows(Footprint::of(planned)?),
        };
        let constants = model.constants();
        let weights = Completed { weights, derived: &constants };
        let (program, rows) = load_fitting::<Error>(backend, &weights, most.min(images), planned)?;
        let (pixels, classes) = (model.input.iter().product(), model.classes);
        Ok(Inference { program, x, logits, rows, pixels, classes })
    }

    /// The logits of images `x`, one row of `classes` each.
    ///
    /// # Errors
    /// The device's.
    pub fn run(&mut self, x: &[f32]) -> Result<Vec<f32>, BackendError> {
        let mut logits = vec![0.0; x.len() / self.pixels * self.classes];
        let blocks = x.chunks(self.rows * self.pixels).zip(logits.chunks_mut(self.rows * self.classes));
        for (x, logits) in blocks {
            self.program.write(self.x, TensorRef::F32(x))?;
            self.program.run(EntryId(0), x.len() / self.pixels)?;
            self.program.read(self.logits, TensorMut::F32(logits))?;
        }
        Ok(logits)
    }
}
