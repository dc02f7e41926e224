//! Layers into graph nodes, in one of three modes: what batch norms and dropouts do differs between a network that is used,
//! one that learns, and one that is judged while it learns. Called by `Model`'s builders.

use super::{Child, Layer, channels, folds};
use crate::graph::op::{Activation, Moment, Op, Prologue};
use crate::graph::{Graph, GraphError, NodeId};
use crate::random::Stream;
use crate::tensor::Shape;
use crate::weights::derived::NORM_EPSILON;

/// Share of a batch's value in a running statistic, as PyTorch's default.
const MOMENTUM: f64 = 0.1;

/// What a network's layers do.
#[derive(Debug)]
pub enum Mode<'a> {
    /// It is used: norms are constants made of its weights at load, folded where a convolution can take them in; dropout
    /// does nothing.
    Inference,
    /// It learns: norms normalise with a batch's statistics and follow them, dropout multiplies with a mask. What that adds
    /// is put into the given list.
    Training(&'a mut Learnt),
    /// It is judged while it learns: as in inference, of the weights as they are now.
    Evaluation,
}

/// What training a part of a network reads and changes.
#[derive(Clone, Debug, Default)]
pub struct Learnt {
    /// Weights to train, in layer order.
    pub parameters: Vec<NodeId>,
    /// Masks to write before each step.
    pub dropouts: Vec<Dropout>,
    /// Running statistics, with what a step makes of them.
    pub statistics: Vec<Statistic>,
}

/// A dropout's mask: a row an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// The layer's path.
    pub layer: String,
    /// The input that holds the masks.
    pub mask: NodeId,
    /// Elements of a row.
    pub len: usize,
    /// Share of the elements that are set to 0.
    pub share: f64,
}

impl Dropout {
    /// The mask of image `image` in epoch `epoch` (from 0): 0 with probability `share`, else 1/(1 - share), so that the mean
    /// stays. It is drawn from the Philox stream `dropout/<layer>`, element i as number epoch·len + i of the image, and so
    /// does not depend on the batch.
    pub fn row(&self, seed: u64, image: u64, epoch: u64) -> impl Iterator<Item = f32> {
        let stream = Stream::new(seed, &format!("dropout/{}", self.layer));
        let first = (epoch as u32).wrapping_mul(self.len as u32);
        let (share, kept) = (self.share, (1.0 / (1.0 - self.share)) as f32);
        let draw = move |i: usize| f64::from(stream.uniform(image, first.wrapping_add(i as u32)));
        (0..self.len).map(move |i| if draw(i) < share { 0.0 } else { kept })
    }
}

/// A running statistic of a norm.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistic {
    /// The norm's path.
    pub norm: String,
    /// The weight that holds it.
    pub parameter: NodeId,
    /// Its value after a step.
    pub next: NodeId,
    /// Values of a channel that a row gives: a variance needs two in a batch.
    pub positions: usize,
}

/// Adds `children` one after the other.
pub(super) fn chain(
    graph: &mut Graph,
    mut x: NodeId,
    children: &[Child],
    mode: &mut Mode<'_>,
) -> Result<NodeId, GraphError> {
    let (mut folded, mut pooled) = (false, false);
    for (i, Child { name, layer }) in children.iter().enumerate() {
        // a mean of pixels and a sum over channels commute: pooled first, DenseNet's transitions are a quarter of the work
        if let (Mode::Inference, true, Some(Child { name, layer: Layer::AvgPool(averaging) })) =
            (&*mode, layer.is_pointwise(), children.get(i + 1))
        {
            x = graph.push(name, Op::AvgPool(*averaging), &[x])?;
            pooled = true;
        }
        let inputs = channels(&graph.node(x).shape);
        x = match layer {
            Layer::Conv { channels, kernel, window, bias } => {
                folded = matches!(mode, Mode::Inference) && folds(&children[i], children.get(i + 1));
                let shape = Shape::from([*channels, inputs, *kernel, *kernel]);
                let mut operands = vec![x];
                if folded {
                    operands.push(graph.parameter(&format!("{name}.folded.weight"), shape)?);
                    operands.push(graph.parameter(&format!("{}.shift", children[i + 1].name), [*channels])?);
                } else {
                    operands.push(learnt(graph, mode, &format!("{name}.weight"), shape)?);
                    if *bias {
                        operands.push(learnt(graph, mode, &format!("{name}.bias"), Shape::from([*channels]))?);
                    }
                }
                let (prologue, activation) = (Prologue::None, Activation::None);
                graph.push(name, Op::Conv2d { window: *window, prologue, activation }, &operands)?
            }
            // done by the convolution in front of it
            Layer::BatchNorm if std::mem::take(&mut folded) => x,
            Layer::BatchNorm => norm(graph, x, name, mode)?,
            Layer::Linear { features } => {
                let weight = learnt(graph, mode, &format!("{name}.weight"), Shape::from([*features, inputs]))?;
                let bias = learnt(graph, mode, &format!("{name}.bias"), Shape::from([*features]))?;
                graph.linear(name, x, weight, bias)?
            }
            Layer::Relu => graph.push(name, Op::Relu, &[x])?,
            Layer::MaxPool { size, window } => graph.push(name, Op::MaxPool { size: *size, window: *window }, &[x])?,
            // done in front of the convolution in front of it
            Layer::AvgPool(_) if std::mem::take(&mut pooled) => x,
            Layer::AvgPool(averaging) => graph.push(name, Op::AvgPool(*averaging), &[x])?,
            Layer::GlobalAvgPool => graph.push(name, Op::GlobalAvgPool, &[x])?,
            Layer::Flatten => {
                let len = graph.node(x).shape.len();
                graph.push(name, Op::Reshape(Shape::from([len])), &[x])?
            }
            Layer::Dropout { share } => match mode {
                Mode::Inference | Mode::Evaluation => x,
                Mode::Training(added) => dropout(graph, x, name, *share, added)?,
            },
            Layer::Sequence(inner) => chain(graph, x, inner, mode)?,
            Layer::Dense(inner) => {
                let fresh = chain(graph, x, inner, mode)?;
                graph.push(name, Op::Concat, &[x, fresh])?
            }
        };
    }
    Ok(x)
}

/// A weight; one to train where the network learns.
fn learnt(graph: &mut Graph, mode: &mut Mode<'_>, key: &str, shape: Shape) -> Result<NodeId, GraphError> {
    let id = graph.parameter(key, shape)?;
    if let Mode::Training(added) = mode {
        added.parameters.push(id);
    }
    Ok(id)
}

fn norm(graph: &mut Graph, x: NodeId, name: &str, mode: &mut Mode<'_>) -> Result<NodeId, GraphError> {
    let c = [channels(&graph.node(x).shape)];
    if matches!(mode, Mode::Inference) {
        let scale = graph.parameter(&format!("{name}.scale"), c)?;
        let shift = graph.parameter(&format!("{name}.shift"), c)?;
        return graph.push(name, Op::Affine { activation: Activation::None }, &[x, scale, shift]);
    }
    let weight = learnt(graph, mode, &format!("{name}.weight"), c.into())?;
    let bias = learnt(graph, mode, &format!("{name}.bias"), c.into())?;
    let mean = graph.parameter(&format!("{name}.running_mean"), c)?;
    let variance = graph.parameter(&format!("{name}.running_var"), c)?;
    let label = format!("{name}.moments");
    let moments = match mode {
        Mode::Training(added) => {
            let moments = graph.push(&label, Op::BatchMoments, &[x])?;
            let positions = graph.node(x).shape.len() / c[0];
            for (parameter, moment) in [(mean, Moment::Mean), (variance, Moment::Variance { positions })] {
                let after = format!("{}'", graph.node(parameter).name);
                let next = graph.push(&after, Op::Running { moment, momentum: MOMENTUM }, &[parameter, moments])?;
                added.statistics.push(Statistic { norm: name.into(), parameter, next, positions });
            }
            moments
        }
        Mode::Inference | Mode::Evaluation => graph.push(&label, Op::Moments, &[mean, variance])?,
    };
    let op = Op::Normalise { epsilon: NORM_EPSILON, activation: Activation::None };
    graph.push(name, op, &[x, moments, weight, bias])
}

/// The result times a mask that the host draws.
fn dropout(graph: &mut Graph, x: NodeId, name: &str, share: f64, added: &mut Learnt) -> Result<NodeId, GraphError> {
    let shape = graph.node(x).shape.clone();
    let (len, mask) = (shape.len(), graph.input(&format!("{name}.mask"), shape));
    added.dropouts.push(Dropout { layer: name.into(), mask, len, share });
    graph.push(name, Op::Binary(crate::graph::op::Binary::Mul), &[x, mask])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropout_mask_has_its_share_of_zeros_keeps_the_mean_and_knows_seed_image_and_epoch_alone() {
        let mut graph = Graph::new();
        let mask = graph.input("mask", [4096]);
        for share in [0.5, 0.2] {
            let layer = Dropout { layer: "classifier.2".into(), mask, len: 4096, share };
            let row = |seed, image, epoch| layer.row(seed, image, epoch).collect::<Vec<f32>>();
            assert_eq!(row(1, 2, 3), row(1, 2, 3));
            for other in [row(2, 2, 3), row(1, 3, 3), row(1, 2, 4)] {
                assert_ne!(other, row(1, 2, 3));
            }
            let elsewhere = Dropout { layer: "classifier.5".into(), ..layer.clone() };
            assert_ne!(elsewhere.row(1, 2, 3).collect::<Vec<_>>(), row(1, 2, 3));
            let kept = (1.0 / (1.0 - share)) as f32;
            let all: Vec<f32> = (0..50).flat_map(|image| row(0, image, 0)).collect();
            assert!(all.iter().all(|&v| v == 0.0 || v == kept));
            let (n, zeros) = (all.len() as f64, all.iter().filter(|v| **v == 0.0).count() as f64);
            // a binomial of 204,800 draws: four standard deviations
            let allowed = 4.0 * (share * (1.0 - share) / n).sqrt();
            assert!((zeros / n - share).abs() <= allowed, "{} of {share}", zeros / n);
        }
    }
}
