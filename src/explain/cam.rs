//! CAM, Grad-CAM and Ablation-CAM, as graphs on a host network.
//!
//! All weigh the maps A that a network's `features` give (behind the ReLU that directly follows them, where there is one)
//! by channel: CAM by the row of a linear classifier behind a global average pool, Grad-CAM by the mean gradient of a logit,
//! Ablation-CAM by what the answer loses without the channel. The logit is chosen by a seed, a row of `classes` numbers an image,
//! 1 at the label and 0 elsewhere ([`one_hot`]); no map is normalised or resized. Used by [`super::Explainer`] and `validate`.

use super::method::Sign;
use crate::graph::op::Op;
use crate::graph::vjp::vjp;
use crate::graph::{Graph, GraphError, NodeId};

use crate::model::Model;
use crate::model::autoencoder::Lists;

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
    let sum = signed_grad_cam(graph, at, seed)?;
    graph.push("grad-cam", Op::Relu, &[sum])
}

/// Adds Grad-CAM without its ReLU: what speaks against the class is below 0. Rows 1xHxW.
///
/// # Errors
/// As [`grad_cam`].
pub fn signed_grad_cam(graph: &mut Graph, at: Maps, seed: NodeId) -> Result<NodeId, GraphError> {
    let gradient = vjp(graph, at.logits, seed, &[at.maps])?[0];
    let alpha = graph.push("grad-cam.alpha", Op::GlobalAvgPool, &[gradient])?;
    graph.push("grad-cam.sum", Op::ChannelSum, &[at.maps, alpha])
}

/// Adds the logits of maps A with some channels zeroed (Ablation-CAM; Desai and Ramaswamy, WACV 2020): rows of images grow to
/// rows of `lists`.
///
/// # Errors
/// [`GraphError`] when the lists do not fit the maps.
pub fn ablated(model: &Model, graph: &mut Graph, maps: NodeId, lists: Lists) -> Result<NodeId, GraphError> {
    let inputs = [maps, lists.images, lists.sets, lists.keep];
    let changed = graph.push("ablation-cam.do", Op::Intervene, &inputs)?;
    // a ReLU in front of the pool changes nothing in maps that are one's output
    model.head(graph, changed)
}

/// The weights of Ablation-CAM, a channel each, from what the class's answer is with all channels and what it loses without
/// each: as published the part of the answer, (y - y_k) / y, else the drop y - y_k.
pub fn ablation_weights(sign: Sign, answer: f64, drops: &[f64]) -> Vec<f64> {
    match sign {
        // without a drop nothing is lost, whatever the answer
        Sign::Published => drops.iter().map(|&drop| if drop == 0.0 { 0.0 } else { drop / answer }).collect(),
        Sign::Signed => drops.to_vec(),
    }
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
