//! Reverse mode, graph to graph: adds the nodes of a vector-Jacobian product. There is no tape and no `requires_grad`:
//! only the paths from `wrt` to the output get gradients, the rest is never built.

use super::op::{Activation, Binary, Op, Prologue, Reduction};
use super::{Graph, GraphError, Node, NodeId};

/// Adds the gradients of `output`, weighted by `seed` (a node of the same shape and extent), with respect to each of
/// `wrt`, and returns their nodes in that order.
///
/// # Errors
/// [`GraphError::NoPath`] when the output does not depend on one of them, [`GraphError::NotDifferentiable`] when a path
/// leads through an op without gradient, [`GraphError::Shape`] when the seed does not fit.
pub fn vjp(graph: &mut Graph, output: NodeId, seed: NodeId, wrt: &[NodeId]) -> Result<Vec<NodeId>, GraphError> {
    let (out, given) = (graph.node(output), graph.node(seed));
    if out.shape != given.shape || out.extent != given.extent {
        return Err(GraphError::Shape {
            node: format!("d/{}", out.name),
            op: "vjp seed",
            expected: format!("{} {}", out.extent.name(), out.shape),
            got: format!("{} {}", given.extent.name(), given.shape),
        });
    }
    let last = output.index();
    // a node is active when some wrt reaches it
    let mut active = vec![false; last + 1];
    for &w in wrt {
        if w.index() <= last {
            active[w.index()] = true;
        }
    }
    for i in 0..=last {
        active[i] = active[i] || graph.nodes[i].inputs.iter().any(|input| active[input.index()]);
    }
    let mut gradient: Vec<Option<NodeId>> = vec![None; last + 1];
    gradient[last] = Some(seed);
    for i in (0..=last).rev() {
        let Some(gy) = gradient[i] else { continue };
        if !active[i] {
            continue;
        }
        let node = graph.nodes[i].clone();
        for (position, &input) in node.inputs.iter().enumerate() {
            // what reaches the output through the batch's moments is in the gradient that the norm has for its x
            let in_norm = position == 1 && is_norm_of_batch(graph, &node);
            if !active[input.index()] || in_norm {
                continue;
            }
            let part = input_gradient(graph, NodeId(i as u32), position, gy)?;
            gradient[input.index()] = Some(match gradient[input.index()] {
                None => part,
                Some(sum) => {
                    let name = format!("d/{}", graph.node(input).name);
                    graph.add(&name, sum, part)?
                }
            });
        }
    }
    wrt.iter()
        .map(|&w| {
            let found = gradient.get(w.index()).copied().flatten();
            found.ok_or_else(|| GraphError::NoPath { wrt: graph.node(w).name.clone() })
        })
        .collect()
}

/// Whether a norm uses the moments of the very rows that it normalises.
fn is_norm_of_batch(graph: &Graph, node: &Node) -> bool {
    let [x, moments, ..] = node.inputs[..] else { return false };
    let moments = graph.node(moments);
    matches!(node.op, Op::Normalise { .. }) && moments.op == Op::BatchMoments && moments.inputs[0] == x
}

/// The node that does `op` on `inputs`, added where there is none: what two gradients of one node share is computed once.
fn once(graph: &mut Graph, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
    let found = graph.iter().find(|(_, n)| n.op == op && n.inputs == inputs).map(|(id, _)| id);
    found.map_or_else(|| graph.push(name, op, inputs), Ok)
}

/// Adds the gradient that reaches input number `position` of `at` from its output's gradient `gy`.
fn input_gradient(graph: &mut Graph, at: NodeId, position: usize, gy: NodeId) -> Result<NodeId, GraphError> {
    let node = graph.node(at).clone();
    let x = node.inputs[position];
    let input = graph.node(x).clone();
    let name = format!("d/{}", input.name);
    let none = || {
        Err(GraphError::NotDifferentiable { node: node.name.clone(), op: node.op.name(), input: input.name.clone() })
    };
    let first = node.inputs[0];
    match (&node.op, position) {
        // what is fused is fused after differentiation, never before: its own input is gone
        (
            Op::Conv2d { activation: Activation::Relu, .. }
            | Op::Conv2d { prologue: Prologue::AffineRelu, .. }
            | Op::Linear { activation: Activation::Relu }
            | Op::Affine { activation: Activation::Relu }
            | Op::Normalise { activation: Activation::Relu, .. },
            _,
        ) => none(),
        (Op::Conv2d { window, .. }, 0) => {
            let dims = input.shape.dims();
            let op = Op::Conv2dGradInput { window: *window, height: dims[1], width: dims[2] };
            graph.push(&name, op, &[gy, node.inputs[1]])
        }
        (Op::Conv2d { window, .. }, 1) => {
            let dims = input.shape.dims();
            let op = Op::Conv2dGradWeight { window: *window, kernel: (dims[2], dims[3]) };
            graph.push(&name, op, &[first, gy])
        }
        (Op::Linear { .. }, 0) => graph.push(&name, Op::LinearGradInput, &[gy, node.inputs[1]]),
        (Op::Linear { .. }, 1) => graph.push(&name, Op::LinearGradWeight, &[first, gy]),
        (Op::Conv2d { .. } | Op::Linear { .. }, _) => graph.push(&name, Op::SumToChannels, &[gy]),
        (Op::Affine { activation }, 0) => {
            graph.push(&name, Op::Affine { activation: *activation }, &[gy, node.inputs[1]])
        }
        (Op::Normalise { epsilon, .. }, 0) if is_norm_of_batch(graph, &node) => {
            let (moments, weight, bias) = (node.inputs[1], node.inputs[2], node.inputs[3]);
            let of = |graph: &Graph, id: NodeId| format!("d/{}", graph.node(id).name);
            let (for_weight, for_bias) = (of(graph, weight), of(graph, bias));
            let op = Op::NormaliseGradWeight { epsilon: *epsilon };
            let gw = once(graph, &for_weight, op, &[first, moments, gy])?;
            let gb = once(graph, &for_bias, Op::SumToChannels, &[gy])?;
            let op = Op::NormaliseGradInput { epsilon: *epsilon };
            graph.push(&name, op, &[first, moments, weight, gy, gw, gb])
        }
        (Op::Normalise { epsilon, .. }, 2) => {
            let op = Op::NormaliseGradWeight { epsilon: *epsilon };
            once(graph, &name, op, &[first, node.inputs[1], gy])
        }
        (Op::Normalise { .. }, 3) => once(graph, &name, Op::SumToChannels, &[gy]),
        (Op::Relu, _) => graph.push(&name, Op::ReluGrad, &[at, gy]),
        (Op::MaxPool { size, window }, _) => {
            graph.push(&name, Op::MaxPoolGrad { size: *size, window: *window }, &[x, gy])
        }
        (Op::AvgPool(averaging), _) => {
            let dims = input.shape.dims();
            let op = Op::AvgPoolGrad { averaging: *averaging, height: dims[1], width: dims[2] };
            graph.push(&name, op, &[gy])
        }
        (Op::Concat, _) => {
            let (before, channels) = (graph.node(first).shape.dims()[0], input.shape.dims()[0]);
            let op = Op::Slice { first: if position == 0 { 0 } else { before }, channels };
            graph.push(&name, op, &[gy])
        }
        (Op::GlobalAvgPool, _) => {
            let dims = input.shape.dims();
            graph.push(&name, Op::GlobalAvgPoolGrad { height: dims[1], width: dims[2] }, &[gy])
        }
        (Op::Reshape(_), _) => graph.push(&name, Op::Reshape(input.shape.clone()), &[gy]),
        (Op::Scale(factor), _) => graph.scale(&name, gy, *factor),
        // d sqrt(x+e) = g / (2 sqrt(x+e))
        (Op::Sqrt { .. }, _) => {
            let double = graph.scale(&name, at, 2.0)?;
            graph.push(&name, Op::Binary(Binary::Div), &[gy, double])
        }
        (Op::Binary(Binary::Add), _) | (Op::Binary(Binary::Sub), 0) => Ok(gy),
        (Op::Binary(Binary::Sub), _) => graph.scale(&name, gy, -1.0),
        (Op::Binary(Binary::Mul), _) => graph.push(&name, Op::Binary(Binary::Mul), &[gy, node.inputs[1 - position]]),
        (Op::Binary(Binary::Div), 0) => graph.push(&name, Op::Binary(Binary::Div), &[gy, node.inputs[1]]),
        // d (a/b) / db = -y/b
        (Op::Binary(Binary::Div), _) => {
            let weighted = graph.push(&name, Op::Binary(Binary::Mul), &[gy, at])?;
            let over = graph.push(&name, Op::Binary(Binary::Div), &[weighted, x])?;
            graph.scale(&name, over, -1.0)
        }
        (Op::ReduceRows(reduction), _) => graph.push(&name, Op::BroadcastRows(*reduction), &[gy]),
        (Op::BroadcastRows(reduction), _) => match reduction {
            Reduction::Sum => graph.sum_rows(&name, gy),
            Reduction::Mean => graph.mean_rows(&name, gy),
        },
        (Op::CrossEntropy, 0) => graph.push(&name, Op::CrossEntropyGrad, &[first, node.inputs[1], gy]),
        (Op::BinaryCrossEntropy, 0) => {
            let mut inputs = vec![x, node.inputs[1], gy];
            inputs.extend(node.inputs.get(2));
            graph.push(&name, Op::BinaryCrossEntropyGrad, &inputs)
        }
        (Op::Kl(head), 1) => graph.push(&name, Op::KlGrad(*head), &[first, x, gy]),
        (Op::MeanAbs, _) => graph.push(&name, Op::MeanAbsGrad, &[x, gy]),
        (Op::MeanSquare, _) => graph.push(&name, Op::MeanSquareGrad, &[x, gy]),
        (Op::TotalVariation, _) => graph.push(&name, Op::TotalVariationGrad, &[x, gy]),
        // Scale and shift of an affine are constants of the trained net, and so are moments that are known; labels and targets
        // are data; the rest is arithmetic that nobody differentiates twice.
        (Op::Affine { .. }, _)
        | (Op::Normalise { .. }, _)
        | (Op::BatchMoments, _)
        | (Op::Moments, _)
        | (Op::NormaliseGradWeight { .. }, _)
        | (Op::NormaliseGradInput { .. }, _)
        | (Op::Running { .. }, _)
        | (Op::CrossEntropy, _)
        | (Op::BinaryCrossEntropy, _)
        | (Op::Kl(_), _)
        | (Op::Input(_), _)
        | (Op::Parameter, _)
        | (Op::State, _)
        | (Op::Conv2dGradInput { .. }, _)
        | (Op::Conv2dGradWeight { .. }, _)
        | (Op::LinearGradInput, _)
        | (Op::LinearGradWeight, _)
        | (Op::SumToChannels, _)
        | (Op::ReluGrad, _)
        | (Op::MaxPoolGrad { .. }, _)
        | (Op::GlobalAvgPoolGrad { .. }, _)
        | (Op::ChannelMax, _)
        | (Op::CrossEntropyGrad, _)
        | (Op::BinaryCrossEntropyGrad, _)
        | (Op::KlGrad(_), _)
        | (Op::Slice { .. }, _)
        | (Op::ChannelSum, _)
        | (Op::AvgPoolGrad { .. }, _)
        | (Op::MeanAbsGrad, _)
        | (Op::MeanSquareGrad, _)
        | (Op::TotalVariationGrad, _)
        | (Op::Intervene, _)
        | (Op::InterveneConv { .. }, _)
        | (Op::Effects(_), _)
        | (Op::WeightedEffect(_), _)
        | (Op::SignStep, _)
        | (Op::AdamMean { .. }, _)
        | (Op::AdamSquare { .. }, _)
        | (Op::AdamStep { .. }, _) => none(),
    }
}
