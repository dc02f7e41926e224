//! A screen: what zeroing every node would do, to first order, from one pass back through the network (attribution patching, Nanda
//! 2023; Syed et al., arXiv 2310.10348). The class-weighted effect of z_N -> (1 - t) z_N at t = 0 is -<gradient, z_N>; where the
//! network is straight enough up to t = 1, that is the effect. How far it is to be trusted is said by its rank correlation with
//! exact effects, which are there where there are few nodes.

use super::cut::{Cut, cut};
use crate::answer::Head;
use crate::backend::{Backend, BackendError, Completed, Program, load_fitting};
use crate::causal::sweep::{Subject, SweepError};
use crate::graph::plan::{Artifact, Entry, EntryId, plan};
use crate::graph::{Graph, GraphError};
use crate::tensor::{TensorMut, TensorRef};

const CODE: EntryId = EntryId(0);
const FORWARD: EntryId = EntryId(1);
const BACK: EntryId = EntryId(2);

/// The autoencoder-inserted net with the gradient of its answer for the code.
pub struct Screen {
    program: Box<dyn Program>,
    nodes: Cut,
    rows: usize,
    head: Head,
    pixels: usize,
    classes: usize,
    channels: usize,
    area: usize,
}

fn plan_of(cut: &Cut, graph: &Graph, rows: usize) -> Result<Artifact, GraphError> {
    let entry = |name, given, want| Entry { name, given, want, updates: &[], capacity: rows };
    plan(
        graph,
        &[
            entry("code", &[cut.x], &[cut.code]),
            entry("answer", &[cut.given], &[cut.logits]),
            entry("answer's gradient for the code", &[cut.given, cut.weights], &[cut.of_code]),
        ],
    )
}

impl Screen {
    /// Loads the subject for batches of `rows` images, or of half as many as often as the device has no memory for them.
    ///
    /// # Errors
    /// [`SweepError`].
    pub fn new(subject: Subject<'_>, rows: usize, backend: &dyn Backend) -> Result<Screen, SweepError> {
        let (graph, nodes) = cut(subject)?;
        let Subject { model, tap, autoencoder, weights, .. } = subject;
        let constants = model.constants();
        let weights = Completed { weights, derived: &constants };
        let (program, rows) =
            load_fitting::<SweepError>(backend, &weights, rows, |rows| plan_of(&nodes, &graph, rows))?;
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
            self.program.write(self.nodes.weights, TensorRef::F32(&cotangents))?;
            self.program.run(BACK, rows)?;
            let mut gradient = vec![0.0f32; code.len()];
            self.program.read(self.nodes.of_code, TensorMut::F32(&mut gradient))?;
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
