//! Maps of where an answer comes from: CAM and Grad-CAM, as graphs on a host network.
//!
//! Both weigh the maps A that a network's `features` give (behind the ReLU that directly follows them, where there is one)
//! by channel: CAM by the row of a linear classifier behind a global average pool, Grad-CAM by the mean gradient of a logit.
//! The logit is chosen by a seed, a row of `classes` numbers an image, 1 at the label and 0 elsewhere ([`one_hot`]); neither
//! map is normalised or resized. Used by `validate`.

use crate::graph::op::Op;
use crate::graph::vjp::vjp;
use crate::graph::{Graph, GraphError, NodeId};
use crate::model::Model;

/// Where a network's maps are, and what it makes of them.
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    /// A: rows CxHxW.
    pub maps: NodeId,
    /// The host's logits, computed from them.
    pub logits: NodeId,
}

/// Adds everything behind tap number `tap` (0: the normalised input), up to the maps and from there to the logits.
///
/// # Errors
/// [`GraphError`] when `x` does not fit.
pub fn maps(model: &Model, graph: &mut Graph, x: NodeId, tap: usize) -> Result<Maps, GraphError> {
    let features = model.front(graph, x, tap, model.features.len())?;
    let (maps, logits) = model.maps_and_logits(graph, features)?;
    Ok(Maps { maps, logits })
}

/// Adds Grad-CAM (Selvaraju et al., arXiv 1610.02391): relu(sum_k alpha_k A_k), alpha_k the mean over positions of the
/// gradient that the logits, weighted by `seed`, have for A_k. Rows 1xHxW.
///
/// # Errors
/// [`GraphError`] when the seed does not fit the logits, or they do not depend on the maps.
pub fn grad_cam(graph: &mut Graph, at: Maps, seed: NodeId) -> Result<NodeId, GraphError> {
    let gradient = vjp(graph, at.logits, seed, &[at.maps])?[0];
    let alpha = graph.push("grad-cam.alpha", Op::GlobalAvgPool, &[gradient])?;
    let sum = graph.push("grad-cam.sum", Op::ChannelSum, &[at.maps, alpha])?;
    graph.push("grad-cam", Op::Relu, &[sum])
}

/// Adds CAM (Zhou et al., arXiv 1512.04150): sum_k w_ck A_k, signed, without the bias, w the `weight` (classes x channels) of
/// the one linear layer behind a global average of the maps ([`Model::linear_head`]). Rows 1xHxW.
///
/// # Errors
/// [`GraphError`] when weight, maps and seed do not fit each other.
pub fn cam(graph: &mut Graph, maps: NodeId, weight: NodeId, seed: NodeId) -> Result<NodeId, GraphError> {
    let row = graph.push("cam.weights", Op::LinearGradInput, &[seed, weight])?;
    graph.push("cam", Op::ChannelSum, &[maps, row])
}

/// The seed that chooses `labels` out of `classes` logits: a row each.
pub fn one_hot(labels: &[u32], classes: usize) -> Vec<f32> {
    let row = |&label: &u32| (0..classes).map(move |c| if c == label as usize { 1.0 } else { 0.0 });
    labels.iter().flat_map(row).collect()
}
