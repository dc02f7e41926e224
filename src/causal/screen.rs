//! A screen: what zeroing every node would do, to first order, from one pass back through the network (attribution patching, Nanda
//! 2023; Syed et al., arXiv 2310.10348). The class-weighted effect of z_N -> (1 - t) z_N at t = 0 is -<gradient, z_N>; where the
//! network is straight enough up to t = 1, that is the effect. How far it is to be trusted is said by its rank correlation with
//! exact effects, which are there where there are few nodes.

use crate::answer::Head;
use crate::backend::{Backend, BackendError, Completed, Program};
use crate::causal::sweep::{Subject, SweepError};
use crate::graph::plan::{Artifact, Entry, EntryId, plan};
use crate::graph::vjp::vjp;
use crate::graph::{Graph, GraphError, NodeId};
use crate::tensor::{TensorMut, TensorRef};

const CODE: EntryId = EntryId(0);
const FORWARD: EntryId = EntryId(1);
const BACK: EntryId = EntryId(2);

/// The autoencoder-inserted net with the gradient of its answer for the code.
pub struct Screen {
    program: Box<dyn Program>,
    nodes: Nodes,
    rows: usize,
    head: Head,
    pixels: usize,
    classes: usize,
    channels: usize,
    area: usize,
}

struct Nodes {
    x: NodeId,
    code: NodeId,
    given: NodeId,
    logits: NodeId,
    cotangent: NodeId,
    gradient: NodeId,
}

fn build(subject: Subject<'_>) -> Result<(Graph, Nodes), GraphError> {
    let Subject { model, tap, autoencoder, .. } = subject;
    let mut g = Graph::new();
    let x = g.input("x", model.input);
    let normalised = model.normalise(&mut g, x)?;
    let front = model.front(&mut g, normalised, 0, tap.number)?;
    let code = autoencoder.encode(&mut g, front)?;
    let [_, height, width] = tap.shape;
    let given = g.input("code", [autoencoder.nodes, height, width]);
    let pre = autoencoder.pre(&mut g, given)?;
    let decoded = autoencoder.decode(&mut g, pre)?;
    let logits = model.tail(&mut g, decoded, tap.number)?;
    let cotangent = g.input("cotangent", [model.classes]);
    let gradient = vjp(&mut g, logits, cotangent, &[given])?[0];
    Ok((g, Nodes { x, code, given, logits, cotangent, gradient }))
}

impl Nodes {
    fn plan(&self, graph: &Graph, rows: usize) -> Result<Artifact, GraphError> {
        let entry = |name, given, want| Entry { name, given, want, updates: &[], capacity: rows };
        plan(
            graph,
            &[
                entry("code", &[self.x], &[self.code]),
                entry("answer", &[self.given], &[self.logits]),
                entry("answer's gradient for the code", &[self.given, self.cotangent], &[self.gradient]),
            ],
        )
    }
}

impl Screen {
    /// Loads the subject for batches of `rows` images, or of half as many as often as the device has no memory for them.
    ///
    /// # Errors
    /// [`SweepError`].
    pub fn new(subject: Subject<'_>, rows: usize, backend: &dyn Backend) -> Result<Screen, SweepError> {
        let (graph, nodes) = build(subject)?;
        let Subject { model, tap, autoencoder, weights, .. } = subject;
        let constants = model.constants();
        let weights = Completed { weights, derived: &constants };
        let mut rows = rows.max(1);
        let program = loop {
            match backend.load(nodes.plan(&graph, rows)?, &weights) {
                Err(BackendError::OutOfMemory { .. }) if rows > 1 => rows = rows.div_ceil(2),
                loaded => break loaded?,
            }
        };
        let pixels = model.input.iter().product();
        let area = tap.shape[1] * tap.shape[2];
        let (head, classes, channels) = (model.head, model.classes, autoencoder.nodes);
        Ok(Screen { program, nodes, rows, head, pixels, classes, channels, area })
    }

    /// First-order class-weighted effects of zeroing each node on `x` (images x C·H·W pixels in [0, 1]): images x nodes.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn effects(&mut self, x: &[f32]) -> Result<Vec<f64>, BackendError> {
        let images = crate::attack::victim::images(x, self.pixels)?;
        let mut all = Vec::with_capacity(images * self.channels);
        for block in x.chunks(self.rows * self.pixels) {
            let rows = block.len() / self.pixels;
            let mut code = vec![0.0f32; rows * self.channels * self.area];
            self.program.write(self.nodes.x, TensorRef::F32(block))?;
            self.program.run(CODE, rows)?;
            self.program.read(self.nodes.code, TensorMut::F32(&mut code))?;
            self.program.write(self.nodes.given, TensorRef::F32(&code))?;
            self.program.run(FORWARD, rows)?;
            let mut logits = vec![0.0f32; rows * self.classes];
            self.program.read(self.nodes.logits, TensorMut::F32(&mut logits))?;
            let cotangents: Vec<f32> =
                logits.chunks_exact(self.classes).flat_map(|row| cotangent(self.head, row)).collect();
            self.program.write(self.nodes.cotangent, TensorRef::F32(&cotangents))?;
            self.program.run(BACK, rows)?;
            let mut gradient = vec![0.0f32; code.len()];
            self.program.read(self.nodes.gradient, TensorMut::F32(&mut gradient))?;
            let maps = code.chunks_exact(self.area.max(1)).zip(gradient.chunks_exact(self.area.max(1)));
            all.extend(maps.map(|(z, g)| -z.iter().zip(g).map(|(z, g)| f64::from(*z) * f64::from(*g)).sum::<f64>()));
        }
        Ok(all)
    }
}

/// The gradient of the class-weighted effect for the logits, at the idle answer p: of sum_c p_c (q_c - p_c) for a softmax it is
/// p_j (p_j - |p|^2), of mean_j (2 p_j - 1)(q_j - p_j) for a sigmoid (2 p_j - 1) p_j (1 - p_j) / L.
fn cotangent(head: Head, logits: &[f32]) -> Vec<f32> {
    let p = head.probabilities(logits);
    match head {
        Head::Softmax => {
            let norm: f64 = p.iter().map(|p| p * p).sum();
            p.iter().map(|p| (p * (p - norm)) as f32).collect()
        }
        Head::Sigmoid => {
            let labels = p.len() as f64;
            p.iter().map(|p| ((2.0 * p - 1.0) * p * (1.0 - p) / labels) as f32).collect()
        }
    }
}
