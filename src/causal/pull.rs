//! The gradient, for the pixels, of any sum of potential outcomes: of idle's logits and those of every intervention, each weighed.
//! Whatever is made of a sweep's logits (a dispersion of effects, say) has its gradient for the pixels by it, where its derivatives
//! for the logits are the weights. Called by [`crate::detect::adversary`].
//!
//! Front and encoder once an image; back from the logits to the code once a variant, a row of its own whose code has its nodes at 0;
//! there, what reaches a node that is set is dropped (the do cuts it off), and the rest is summed over an image's variants, in f64
//! and in their order; then back to the pixels once an image. A variant is a plain row of codes here, not an update of the decoder's
//! first convolution as in [`super::sweep`]: that one is not differentiated.

use super::cut::{Cut, cut};
use crate::attack::victim::images;
use crate::backend::{Backend, BackendError, Completed, Program, load_fitting};
use crate::causal::intervention::NodeSet;
use crate::causal::sweep::{Subject, SweepError};
use crate::graph::plan::{Artifact, Entry, EntryId, plan};
use crate::graph::vjp::vjp;
use crate::graph::{Graph, GraphError, NodeId};
use crate::tensor::{TensorMut, TensorRef};

const CODE: EntryId = EntryId(0);
const TO_CODE: EntryId = EntryId(1);
const TO_PIXELS: EntryId = EntryId(2);

/// The autoencoder-inserted net with its gradients from logits to code and from code to pixels.
pub struct Pull {
    program: Box<dyn Program>,
    nodes: Nodes,
    rows: usize,
    pixels: usize,
    classes: usize,
    channels: usize,
    area: usize,
    sets: Vec<NodeSet>,
}

struct Nodes {
    cut: Cut,
    /// What the codes of images are weighed with.
    code_weights: NodeId,
    of_pixels: NodeId,
}

fn build(subject: Subject<'_>) -> Result<(Graph, Nodes), GraphError> {
    let (mut g, cut) = cut(subject)?;
    let code_weights = g.input("code.weights", g.node(cut.code).shape.clone());
    let of_pixels = vjp(&mut g, cut.code, code_weights, &[cut.x])?[0];
    Ok((g, Nodes { cut, code_weights, of_pixels }))
}

impl Nodes {
    fn plan(&self, graph: &Graph, rows: usize) -> Result<Artifact, GraphError> {
        let cut = &self.cut;
        let entry = |name, given, want| Entry { name, given, want, updates: &[], capacity: rows };
        plan(
            graph,
            &[
                entry("code", &[cut.x], &[cut.code]),
                entry("logits' gradient for the code", &[cut.given, cut.weights], &[cut.of_code]),
                entry("the code's gradient for the pixels", &[cut.x, self.code_weights], &[self.of_pixels]),
            ],
        )
    }
}

impl Pull {
    /// Loads the subject for interventions on `sets`, in batches of `rows` images or variants, or of half as many as often as the
    /// device has no memory for them; results do not depend on it.
    ///
    /// # Errors
    /// [`SweepError`].
    pub fn new(subject: Subject<'_>, sets: &[NodeSet], rows: usize, backend: &dyn Backend) -> Result<Pull, SweepError> {
        let (graph, nodes) = build(subject)?;
        let Subject { model, tap, autoencoder, weights, .. } = subject;
        let constants = model.constants();
        let weights = Completed { weights, derived: &constants };
        let (program, rows) = load_fitting::<SweepError>(backend, &weights, rows, |rows| nodes.plan(&graph, rows))?;
        let pixels = model.input.iter().product();
        let area = tap.shape[1] * tap.shape[2];
        let (classes, channels) = (model.classes, autoencoder.nodes);
        Ok(Pull { program, nodes, rows, pixels, classes, channels, area, sets: sets.to_vec() })
    }

    /// The gradient of each image's weighed sum for its pixels: images x C·H·W, as `x` (in [0, 1]). `weights`: images x (1 + sets) x
    /// classes, of idle's logits and then of each set's; a row of zeros costs nothing.
    ///
    /// # Errors
    /// [`BackendError`]; [`BackendError::Transfer`] unless there is a weight for each logit.
    pub fn gradient(&mut self, x: &[f32], weights: &[f32]) -> Result<Vec<f32>, BackendError> {
        let count = images(x, self.pixels)?;
        let each = (self.sets.len() + 1) * self.classes;
        if weights.len() != count * each {
            let reason = format!("{} weights for {count} images of {each} logits", weights.len());
            return Err(BackendError::Transfer { node: "weights".into(), reason });
        }
        let mut out = vec![0.0; x.len()];
        let (pixels, code) = (self.rows * self.pixels, self.channels * self.area);
        let blocks = x.chunks(pixels).zip(weights.chunks(self.rows * each)).zip(out.chunks_mut(pixels));
        for ((x, weights), out) in blocks {
            let rows = x.len() / self.pixels;
            let mut codes = vec![0.0f32; rows * code];
            self.program.write(self.nodes.cut.x, TensorRef::F32(x))?;
            self.program.run(CODE, rows)?;
            self.program.read(self.nodes.cut.code, TensorMut::F32(&mut codes))?;
            let of_codes = self.of_codes(&codes, weights)?;
            self.program.write(self.nodes.cut.x, TensorRef::F32(x))?;
            self.program.write(self.nodes.code_weights, TensorRef::F32(&of_codes))?;
            self.program.run(TO_PIXELS, rows)?;
            self.program.read(self.nodes.of_pixels, TensorMut::F32(out))?;
        }
        Ok(out)
    }

    /// The gradient of the weighed sums for the codes.
    fn of_codes(&mut self, codes: &[f32], weights: &[f32]) -> Result<Vec<f32>, BackendError> {
        let (size, variants) = (self.channels * self.area, self.sets.len() + 1);
        let all = weights.chunks_exact(self.classes).enumerate();
        let weighed: Vec<(usize, &[f32])> = all.filter(|(_, row)| row.iter().any(|w| *w != 0.0)).collect();
        let mut sums = vec![0.0f64; codes.len()];
        for batch in weighed.chunks(self.rows) {
            let mut given = Vec::with_capacity(batch.len() * size);
            for &(variant, _) in batch {
                let image = variant / variants;
                given.extend_from_slice(&codes[image * size..(image + 1) * size]);
                let from = given.len() - size;
                for node in self.set(variant) {
                    given[from + node * self.area..from + (node + 1) * self.area].fill(0.0);
                }
            }
            self.program.write(self.nodes.cut.given, TensorRef::F32(&given))?;
            let rows: Vec<f32> = batch.iter().flat_map(|(_, row)| row.iter().copied()).collect();
            self.program.write(self.nodes.cut.weights, TensorRef::F32(&rows))?;
            self.program.run(TO_CODE, batch.len())?;
            self.program.read(self.nodes.cut.of_code, TensorMut::F32(&mut given))?;
            for (&(variant, _), row) in batch.iter().zip(given.chunks_exact_mut(size)) {
                for node in self.set(variant) {
                    row[node * self.area..(node + 1) * self.area].fill(0.0);
                }
                let image = variant / variants;
                let sums = &mut sums[image * size..(image + 1) * size];
                sums.iter_mut().zip(row).for_each(|(sum, g)| *sum += f64::from(*g));
            }
        }
        Ok(sums.into_iter().map(|sum| sum as f32).collect())
    }

    /// The nodes that a variant sets, idle's being none; variants are numbered image by image.
    fn set(&self, variant: usize) -> impl Iterator<Item = usize> + use<> {
        let number = variant % (self.sets.len() + 1);
        let set = number.checked_sub(1).and_then(|s| self.sets.get(s)).copied();
        set.into_iter().flat_map(|set| set.iter())
    }
}
