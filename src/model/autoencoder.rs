//! The autoencoder that is spliced in at a tap: its middle layer's channels are the nodes (concepts) of a study.
//!
//! `conv5`: 3x3 C to hidden, ReLU | 3x3 hidden to hidden, ReLU | 1x1 hidden to K, ReLU = code | 3x3 K to hidden, ReLU |
//! 3x3 hidden to C, then ReLU exactly when the last child in front of the tap is one. Stride 1 and "same" padding: the
//! tap's spatial size is kept. The ReLU on the code makes do(node = 0) mean "concept absent", a value inside the code's
//! own support.

use super::{Tap, initial};
use crate::graph::op::{Activation, Op, Window};
use crate::graph::{Graph, GraphError, NodeId};
use crate::tensor::{Shape, Tensor};

/// Shape of an autoencoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autoencoder {
    /// Channels C of the tap.
    pub channels: usize,
    /// Width of the two hidden layers.
    pub hidden: usize,
    /// Code channels K: the nodes.
    pub nodes: usize,
    /// Whether the output ends in a ReLU.
    pub relu_out: bool,
}

/// Saturates: sizes may come from the command line or a file.
fn product(sizes: &[u64]) -> u64 {
    sizes.iter().fold(1, |n, &size| n.saturating_mul(size))
}

/// Stride 1, padding that keeps the size under a 3x3 kernel.
const SAME: Window = Window { stride: 1, pad: 1 };

/// Default width of the hidden layers.
pub const HIDDEN: usize = 32;
/// Default number of nodes.
pub const NODES: usize = 16;

/// The weight of the decoder that reads the code: hidden x nodes x 3 x 3.
pub const READS_CODE: &str = "ae.dec1.weight";

/// The nodes of the graph that a row-growing intervention reads.
#[derive(Clone, Copy, Debug)]
pub struct Lists {
    /// Per variant row: which image's code.
    pub images: NodeId,
    /// Per variant row: which set of `keep`.
    pub sets: NodeId,
    /// Sets x nodes: 0 where a node is set to 0.
    pub keep: NodeId,
}

impl Autoencoder {
    /// The default autoencoder for a tap.
    pub fn at(tap: &Tap, hidden: usize, nodes: usize) -> Self {
        Autoencoder { channels: tap.shape[0], hidden, nodes, relu_out: tap.after_relu }
    }

    /// The shape of an autoencoder whose weights are these, or `None` when they are no `conv5`.
    pub fn from_shapes<'a>(tap: &Tap, shape_of: impl Fn(&str) -> Option<&'a Shape>) -> Option<Self> {
        let hidden = *shape_of("ae.enc1.weight")?.dims().first()?;
        let nodes = *shape_of("ae.code.weight")?.dims().first()?;
        Some(Self::at(tap, hidden, nodes))
    }

    /// Key and shape of every weight.
    pub fn parameters(&self) -> Vec<(String, Shape)> {
        let (c, h, k) = (self.channels, self.hidden, self.nodes);
        [("enc1", h, c, 3), ("enc2", h, h, 3), ("code", k, h, 1), ("dec1", h, k, 3), ("dec2", c, h, 3)]
            .into_iter()
            .flat_map(|(name, o, i, side)| {
                [
                    (format!("ae.{name}.weight"), Shape::from([o, i, side, side])),
                    (format!("ae.{name}.bias"), Shape::from([o])),
                ]
            })
            .collect()
    }

    /// Multiply-adds of encoder and decoder on one image.
    pub fn macs(&self, tap: &Tap) -> u64 {
        let parameters = self.parameters();
        let weights = parameters.iter().filter(|(_, s)| s.rank() > 1).map(|(_, s)| s.len() as u64);
        product(&[weights.fold(0, u64::saturating_add), tap.shape[1] as u64, tap.shape[2] as u64])
    }

    /// Multiply-adds of one node's variant: one channel through the decoder's first convolution, all of its second.
    pub fn variant_macs(&self, tap: &Tap) -> u64 {
        let channels = (self.channels as u64).saturating_add(1);
        product(&[9, self.hidden as u64, channels, tap.shape[1] as u64, tap.shape[2] as u64])
    }

    /// Fresh weights, as [`super::Model::initial_weights`].
    pub fn initial_weights(&self, seed: u64) -> Vec<(String, Tensor)> {
        initial(&self.parameters(), seed)
    }

    /// Adds the encoder: tap rows CxHxW to the code, rows KxHxW.
    ///
    /// # Errors
    /// [`GraphError`] when the tap does not fit.
    pub fn encode(&self, graph: &mut Graph, tap: NodeId) -> Result<NodeId, GraphError> {
        let first = self.conv(graph, "enc1", tap, (self.hidden, self.channels, 3))?;
        let first = graph.push("ae.enc1.relu", Op::Relu, &[first])?;
        let second = self.conv(graph, "enc2", first, (self.hidden, self.hidden, 3))?;
        let second = graph.push("ae.enc2.relu", Op::Relu, &[second])?;
        let code = self.conv(graph, "code", second, (self.nodes, self.hidden, 1))?;
        graph.push("ae.code.relu", Op::Relu, &[code])
    }

    /// Adds the decoder's first convolution, before its ReLU: code to rows hidden x H x W. It is linear in the code.
    ///
    /// # Errors
    /// [`GraphError`].
    pub fn pre(&self, graph: &mut Graph, code: NodeId) -> Result<NodeId, GraphError> {
        self.conv(graph, "dec1", code, (self.hidden, self.nodes, 3))
    }

    /// Adds the rest of the decoder behind [`Self::pre`] or [`Self::intervened_pre`]: to rows CxHxW.
    ///
    /// # Errors
    /// [`GraphError`].
    pub fn decode(&self, graph: &mut Graph, pre: NodeId) -> Result<NodeId, GraphError> {
        let hidden = graph.push("ae.dec1.relu", Op::Relu, &[pre])?;
        let out = self.conv(graph, "dec2", hidden, (self.channels, self.hidden, 3))?;
        if self.relu_out { graph.push("ae.dec2.relu", Op::Relu, &[out]) } else { Ok(out) }
    }

    /// Adds the decoder's first convolution under interventions, as an update of `pre` ([`Op::InterveneConv`]): rows of
    /// images grow to rows of variants.
    ///
    /// # Errors
    /// [`GraphError`].
    pub fn intervened_pre(
        &self,
        graph: &mut Graph,
        pre: NodeId,
        code: NodeId,
        lists: Lists,
    ) -> Result<NodeId, GraphError> {
        let weight = graph.parameter(READS_CODE, [self.hidden, self.nodes, 3, 3])?;
        let op = Op::InterveneConv { pad: 1, activation: Activation::None };
        graph.push("ae.dec1.do", op, &[pre, code, weight, lists.images, lists.sets, lists.keep])
    }

    fn conv(
        &self,
        graph: &mut Graph,
        name: &str,
        x: NodeId,
        (o, i, side): (usize, usize, usize),
    ) -> Result<NodeId, GraphError> {
        let weight = graph.parameter(&format!("ae.{name}.weight"), [o, i, side, side])?;
        let bias = graph.parameter(&format!("ae.{name}.bias"), [o])?;
        let window = if side == 1 { Window { stride: 1, pad: 0 } } else { SAME };
        graph.conv2d(&format!("ae.{name}"), x, weight, bias, window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of the conv5 autoencoder at the taps of VGG16 and DenseNet-121.
    #[test]
    fn parameter_counts_are_those_of_the_method() {
        for (channels, count) in [(64, 51_376), (128, 88_304), (256, 162_160), (512, 309_872)] {
            let ae = Autoencoder { channels, hidden: HIDDEN, nodes: NODES, relu_out: false };
            assert_eq!(ae.parameters().iter().map(|(_, s)| s.len()).sum::<usize>(), count);
        }
    }
}
