//! The codes of several autoencoders at one tap: the host's front once, then every encoder behind it. Nothing behind the code is
//! loaded, so that any number of them fit beside each other.

use crate::backend::{Backend, BackendError, Completed, Parameters, Program};
use crate::causal::sweep::SweepError;
use crate::graph::plan::{Entry, EntryId, plan};
use crate::graph::{Graph, GraphError, NodeId};
use crate::model::autoencoder::Autoencoder;
use crate::model::{Model, Tap};
use crate::tensor::{Shape, TensorMut, TensorRef};

/// A host's front and the encoders behind it, on a device.
pub struct Encoders {
    front: Piece,
    encoders: Vec<Piece>,
    rows: usize,
}

/// A graph of one input and one output.
struct Piece {
    program: Box<dyn Program>,
    given: NodeId,
    want: NodeId,
    /// Numbers a row of either.
    sizes: [usize; 2],
}

impl Piece {
    fn new(
        (input, rows): (Shape, usize),
        backend: &dyn Backend,
        weights: &dyn Parameters,
        build: impl FnOnce(&mut Graph, NodeId) -> Result<NodeId, GraphError>,
    ) -> Result<Piece, SweepError> {
        let mut graph = Graph::new();
        let given = graph.input("in", input.clone());
        let want = build(&mut graph, given)?;
        let sizes = [input.len(), graph.node(want).shape.len()];
        let entry = Entry { name: "piece", given: &[given], want: &[want], updates: &[], capacity: rows };
        let program = backend.load(plan(&graph, &[entry])?, weights)?;
        Ok(Piece { program, given, want, sizes })
    }

    fn run(&mut self, x: &[f32]) -> Result<Vec<f32>, BackendError> {
        let rows = x.len() / self.sizes[0].max(1);
        self.program.write(self.given, TensorRef::F32(x))?;
        self.program.run(EntryId(0), rows)?;
        let mut out = vec![0.0; rows * self.sizes[1]];
        self.program.read(self.want, TensorMut::F32(&mut out))?;
        Ok(out)
    }
}

impl Encoders {
    /// Loads the front of `model` to `tap` with the weights `host`, and the encoders of these autoencoders with their weights;
    /// `rows` images at once, or as many as the device has memory for, on which codes do not depend.
    ///
    /// # Errors
    /// [`SweepError`] when weights do not fit, or the device has no memory for a single image.
    pub fn new(
        subject: (&Model, &Tap),
        host: &dyn Parameters,
        autoencoders: &[(&Autoencoder, &dyn Parameters)],
        rows: usize,
        backend: &dyn Backend,
    ) -> Result<Encoders, SweepError> {
        let mut rows = rows.max(1);
        loop {
            match Encoders::load(subject, host, autoencoders, rows, backend) {
                Err(SweepError::Backend(BackendError::OutOfMemory { .. })) if rows > 1 => rows = rows.div_ceil(2),
                loaded => return loaded,
            }
        }
    }

    fn load(
        (model, tap): (&Model, &Tap),
        host: &dyn Parameters,
        autoencoders: &[(&Autoencoder, &dyn Parameters)],
        rows: usize,
        backend: &dyn Backend,
    ) -> Result<Encoders, SweepError> {
        let constants = model.constants();
        let whole = Completed { weights: host, derived: &constants };
        let front = Piece::new((Shape::from(model.input), rows), backend, &whole, |graph, x| {
            let normalised = model.normalise(graph, x)?;
            model.front(graph, normalised, 0, tap.number)
        })?;
        let shape = Shape::from(tap.shape);
        let encoder = |&(autoencoder, weights): &(&Autoencoder, &dyn Parameters)| {
            Piece::new((shape.clone(), rows), backend, weights, |graph, x| autoencoder.encode(graph, x))
        };
        Ok(Encoders { front, encoders: autoencoders.iter().map(encoder).collect::<Result<_, _>>()?, rows })
    }

    /// The codes of `x` (images x C·H·W pixels in [0, 1]), one an autoencoder: images x nodes x height x width of the tap.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn codes(&mut self, x: &[f32]) -> Result<Vec<Vec<f32>>, BackendError> {
        let mut codes: Vec<Vec<f32>> = vec![Vec::new(); self.encoders.len()];
        for block in x.chunks(self.rows * self.front.sizes[0].max(1)) {
            let tap = self.front.run(block)?;
            for (codes, encoder) in codes.iter_mut().zip(&mut self.encoders) {
                codes.extend(encoder.run(&tap)?);
            }
        }
        Ok(codes)
    }
}
