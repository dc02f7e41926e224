//! Fusing epilogues: a ReLU whose only producer-consumer edge is a convolution or linear layer rides on it.
//!
//! Decided once on the whole graph and by the graph alone, so every entry runs the same arithmetic. It never crosses a
//! node that some entry reads, writes or wants (a tap): those keep their own value.

use super::op::{Activation, Op};
use super::{Graph, NodeId};

/// `graph` with epilogues fused; ids stay valid, and a fused producer is simply no longer used. `kept` are the nodes
/// whose own value somebody needs.
pub fn epilogues(graph: &Graph, kept: &[NodeId]) -> Graph {
    let mut folded = graph.clone();
    let consumers = graph.consumers();
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        if node.op != Op::Relu {
            continue;
        }
        let producer = node.inputs[0];
        if consumers[producer.index()] != 1 || kept.contains(&producer) {
            continue;
        }
        let source = graph.node(producer);
        let fused = match source.op {
            Op::Conv2d { window, activation: Activation::None } => Op::Conv2d { window, activation: Activation::Relu },
            Op::Linear { activation: Activation::None } => Op::Linear { activation: Activation::Relu },
            Op::InterveneConv { pad, activation: Activation::None } => {
                Op::InterveneConv { pad, activation: Activation::Relu }
            }
            _ => continue,
        };
        folded.nodes[index].op = fused;
        folded.nodes[index].inputs = source.inputs.clone();
    }
    folded
}
