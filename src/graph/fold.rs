//! Fusing what is cheap into what is dear: a ReLU rides on the convolution, linear layer, affine map or norm in front of
//! it, and an affine map with its ReLU (a batch norm in inference) on the 1x1 convolution behind it.
//!
//! Decided once on the whole graph and by the graph alone, so every entry runs the same arithmetic. It never crosses a
//! node that some entry reads, writes or wants (a tap): those keep their own value. Only between nodes that nothing else
//! reads: with a gradient in the graph less is fused, to the same bits.

use super::op::{Activation, Op, Prologue, Window};
use super::{Graph, Node, NodeId};

/// `graph` with everything fused that can be; ids stay valid, and a fused producer is simply no longer used. `kept` are
/// the nodes whose own value somebody needs.
pub fn fuse(graph: &Graph, kept: &[NodeId]) -> Graph {
    let consumers = graph.consumers();
    let mut folded = graph.clone();
    let alone = |id: NodeId| consumers[id.index()] == 1 && !kept.contains(&id);
    for index in 0..graph.nodes.len() {
        epilogue(&mut folded, index, &alone);
        prologue(&mut folded, index, &alone);
    }
    folded
}

/// A ReLU into its producer.
fn epilogue(graph: &mut Graph, index: usize, alone: &dyn Fn(NodeId) -> bool) {
    let node = &graph.nodes[index];
    if node.op != Op::Relu || !alone(node.inputs[0]) {
        return;
    }
    let source = graph.node(node.inputs[0]);
    let activation = Activation::Relu;
    let fused = match source.op {
        Op::Conv2d { window, prologue, activation: Activation::None } => Op::Conv2d { window, prologue, activation },
        Op::Linear { activation: Activation::None } => Op::Linear { activation },
        Op::Affine { activation: Activation::None } => Op::Affine { activation },
        Op::Normalise { epsilon, activation: Activation::None } => Op::Normalise { epsilon, activation },
        Op::InterveneConv { pad, activation: Activation::None } => Op::InterveneConv { pad, activation },
        _ => return,
    };
    let inputs = source.inputs.clone();
    (graph.nodes[index].op, graph.nodes[index].inputs) = (fused, inputs);
}

/// An affine map with ReLU into the convolution that reads it; a wider window would compute it again for every tap.
fn prologue(graph: &mut Graph, index: usize, alone: &dyn Fn(NodeId) -> bool) {
    let node = &graph.nodes[index];
    let Op::Conv2d { window, prologue: Prologue::None, activation } = node.op else { return };
    let source = graph.node(node.inputs[0]);
    let whole = source.op == (Op::Affine { activation: Activation::Relu }) && source.inputs.len() == 3;
    if !whole || !alone(node.inputs[0]) || !is_linear(graph, node, window) {
        return;
    }
    let mut inputs = node.inputs.clone();
    inputs[0] = source.inputs[0];
    inputs.extend(&source.inputs[1..]);
    graph.nodes[index].op = Op::Conv2d { window, prologue: Prologue::AffineRelu, activation };
    graph.nodes[index].inputs = inputs;
}

/// A convolution of single pixels.
pub(super) fn is_linear(graph: &Graph, conv: &Node, window: Window) -> bool {
    window == Window { stride: 1, pad: 0 } && graph.node(conv.inputs[1]).shape.dims()[2..] == [1, 1]
}
