//! The static graph: nodes in topological order, built with shape checks, no backend in sight.
//!
//! `op` holds the operations, `shapes` what they take and give, `vjp` adds reverse-mode gradients as nodes, `fold` fuses
//! epilogues, `plan` turns a graph and its entries into an [`plan::Artifact`], `dump` prints one. Nodes are only ever appended,
//! so a node's inputs always have smaller ids and ids stay valid.

pub mod dump;
pub mod fold;
pub mod op;
pub mod plan;
mod shapes;
pub mod vjp;

use crate::tensor::Shape;
use op::{Activation, Binary, Element, Op, Prologue, Reduction, Window};
use std::collections::HashMap;

/// A node of one graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// Its position in the graph.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whether a value has a row per image (or variant) or exists once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Extent {
    /// One row per image or node variant.
    Rows,
    /// No rows: weights, states, sums over a batch.
    Whole,
}

impl Extent {
    /// `rows` or `whole`.
    pub fn name(self) -> &'static str {
        match self {
            Extent::Rows => "rows",
            Extent::Whole => "whole",
        }
    }
}

/// One node: an operation on earlier nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// The nodes it reads, in the op's order.
    pub inputs: Vec<NodeId>,
    /// Shape of a row (or of the whole), logical.
    pub shape: Shape,
    /// Rows or whole.
    pub extent: Extent,
    /// Where it comes from: a layer's path (`features.3`), a weight's key, a gradient of one.
    pub name: String,
}

impl Node {
    /// Floats, or indices for an index input.
    pub fn element(&self) -> Element {
        if self.op == Op::Input(Element::Index) { Element::Index } else { Element::Float }
    }
}

/// What can be wrong with a graph under construction.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// Inputs do not fit the op.
    #[error("node \"{node}\" ({op}): expected {expected}, got {got}")]
    Shape {
        /// The node's name.
        node: String,
        /// The op's name.
        op: &'static str,
        /// What the op takes.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// A parameter was declared twice with different shapes.
    #[error("parameter \"{name}\" is declared as {first} and again as {second}")]
    Redeclared {
        /// The weight's key.
        name: String,
        /// First shape.
        first: Shape,
        /// Second shape.
        second: Shape,
    },
    /// A gradient was asked for through an op that has none.
    #[error("node \"{node}\" ({op}) has no gradient for its input \"{input}\"")]
    NotDifferentiable {
        /// The node's name.
        node: String,
        /// The op's name.
        op: &'static str,
        /// The input's name.
        input: String,
    },
    /// A gradient was asked for something that the output does not depend on.
    #[error("the output does not depend on \"{wrt}\": its gradient would be 0 everywhere; is the splice in place?")]
    NoPath {
        /// The node's name.
        wrt: String,
    },
    /// An entry cannot be planned.
    #[error("entry \"{entry}\": {reason}")]
    Entry {
        /// The entry's name.
        entry: String,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// A network and its gradients, as a list of nodes in topological order.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    parameters: HashMap<String, NodeId>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// The node `id`.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// All nodes, in topological order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Ids and nodes, in topological order.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(i, n)| (NodeId(i as u32), n))
    }

    /// The parameter of that key, if declared.
    pub fn parameter_named(&self, name: &str) -> Option<NodeId> {
        self.parameters.get(name).copied()
    }

    fn append(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId((self.nodes.len() - 1) as u32)
    }

    /// A float input with a row per image: `shape` is one row's.
    pub fn input(&mut self, name: &str, shape: impl Into<Shape>) -> NodeId {
        self.declare(Op::Input(Element::Float), name, shape.into(), Extent::Rows)
    }

    /// An input of one index (label, image number) per row.
    pub fn index_input(&mut self, name: &str) -> NodeId {
        self.declare(Op::Input(Element::Index), name, Shape::default(), Extent::Rows)
    }

    /// A float input without rows: learning rates, tables.
    pub fn whole_input(&mut self, name: &str, shape: impl Into<Shape>) -> NodeId {
        self.declare(Op::Input(Element::Float), name, shape.into(), Extent::Whole)
    }

    /// Optimiser state, zero at load.
    pub fn state(&mut self, name: &str, shape: impl Into<Shape>) -> NodeId {
        self.declare(Op::State, name, shape.into(), Extent::Whole)
    }

    /// The weight of that key; the same node when it is declared again, so that two uses of a layer share its weights.
    ///
    /// # Errors
    /// [`GraphError::Redeclared`] when the shapes differ.
    pub fn parameter(&mut self, name: &str, shape: impl Into<Shape>) -> Result<NodeId, GraphError> {
        let shape = shape.into();
        if let Some(&id) = self.parameters.get(name) {
            let first = self.node(id).shape.clone();
            if first != shape {
                return Err(GraphError::Redeclared { name: name.into(), first, second: shape });
            }
            return Ok(id);
        }
        let id = self.declare(Op::Parameter, name, shape, Extent::Whole);
        self.parameters.insert(name.into(), id);
        Ok(id)
    }

    fn declare(&mut self, op: Op, name: &str, shape: Shape, extent: Extent) -> NodeId {
        self.append(Node { op, inputs: vec![], shape, extent, name: name.into() })
    }

    /// Appends `op` on `inputs`, its shape inferred and checked. No value is empty.
    ///
    /// # Errors
    /// [`GraphError::Shape`] naming the node, what was expected and what was given.
    pub fn push(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
        let nodes: Vec<&Node> = inputs.iter().map(|&i| self.node(i)).collect();
        let (shape, extent) = op.infer(&nodes).map_err(|m| GraphError::Shape {
            node: name.into(),
            op: op.name(),
            expected: m.expected,
            got: m.got,
        })?;
        // so that no kernel has to ask; a shape too large to count is refused by the device that cannot hold it
        if let Some(bad) = nodes.iter().map(|n| &n.shape).chain([&shape]).find(|s| s.is_empty()) {
            let expected = "values of at least one element".into();
            return Err(GraphError::Shape { node: name.into(), op: op.name(), expected, got: bad.to_string() });
        }
        Ok(self.append(Node { op, inputs: inputs.to_vec(), shape, extent, name: name.into() }))
    }

    /// Convolution with bias, no activation.
    ///
    /// # Errors
    /// [`GraphError::Shape`].
    pub fn conv2d(
        &mut self,
        name: &str,
        x: NodeId,
        weight: NodeId,
        bias: NodeId,
        window: Window,
    ) -> Result<NodeId, GraphError> {
        self.push(
            name,
            Op::Conv2d { window, prologue: Prologue::None, activation: Activation::None },
            &[x, weight, bias],
        )
    }

    /// Linear layer with bias, no activation.
    ///
    /// # Errors
    /// [`GraphError::Shape`].
    pub fn linear(&mut self, name: &str, x: NodeId, weight: NodeId, bias: NodeId) -> Result<NodeId, GraphError> {
        self.push(name, Op::Linear { activation: Activation::None }, &[x, weight, bias])
    }

    /// a + b.
    ///
    /// # Errors
    /// [`GraphError::Shape`].
    pub fn add(&mut self, name: &str, a: NodeId, b: NodeId) -> Result<NodeId, GraphError> {
        self.push(name, Op::Binary(Binary::Add), &[a, b])
    }

    /// a - b.
    ///
    /// # Errors
    /// [`GraphError::Shape`].
    pub fn sub(&mut self, name: &str, a: NodeId, b: NodeId) -> Result<NodeId, GraphError> {
        self.push(name, Op::Binary(Binary::Sub), &[a, b])
    }

    /// factor · x.
    ///
    /// # Errors
    /// [`GraphError::Shape`].
    pub fn scale(&mut self, name: &str, x: NodeId, factor: f64) -> Result<NodeId, GraphError> {
        self.push(name, Op::Scale(factor), &[x])
    }

    /// Mean over rows.
    ///
    /// # Errors
    /// [`GraphError::Shape`].
    pub fn mean_rows(&mut self, name: &str, x: NodeId) -> Result<NodeId, GraphError> {
        self.push(name, Op::ReduceRows(Reduction::Mean), &[x])
    }

    /// Sum over rows.
    ///
    /// # Errors
    /// [`GraphError::Shape`].
    pub fn sum_rows(&mut self, name: &str, x: NodeId) -> Result<NodeId, GraphError> {
        self.push(name, Op::ReduceRows(Reduction::Sum), &[x])
    }

    /// Nodes that use `id` as an input, with multiplicity.
    pub fn consumers(&self) -> Vec<u32> {
        let mut count = vec![0; self.nodes.len()];
        for node in &self.nodes {
            for input in &node.inputs {
                count[input.index()] += 1;
            }
        }
        count
    }
}
