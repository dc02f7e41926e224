//! The net with its autoencoder, cut at the code: pixels to code, and a code that is given to logits and, weighed, back. What
//! [`super::screen`] and [`super::pull`] differentiate.

use crate::causal::sweep::Subject;
use crate::graph::vjp::vjp;
use crate::graph::{Graph, GraphError, NodeId};

/// The nodes on both sides of the cut.
pub(super) struct Cut {
    pub x: NodeId,
    /// The code of `x`.
    pub code: NodeId,
    /// A code that is given.
    pub given: NodeId,
    /// Its logits.
    pub logits: NodeId,
    /// What its logits are weighed with.
    pub weights: NodeId,
    /// The gradient of their weighed sum for it.
    pub of_code: NodeId,
}

/// The graph of `subject`, cut.
///
/// # Errors
/// [`GraphError`] when it cannot be built.
pub(super) fn cut(subject: Subject<'_>) -> Result<(Graph, Cut), GraphError> {
    let Subject { model, tap, autoencoder, .. } = subject;
    let mut g = Graph::new();
    let x = g.input("x", model.input);
    let normalised = model.normalise(&mut g, x)?;
    let front = model.front(&mut g, normalised, 0, tap.number)?;
    let code = autoencoder.encode(&mut g, front)?;
    let given = g.input("code", g.node(code).shape.clone());
    let pre = autoencoder.pre(&mut g, given)?;
    let decoded = autoencoder.decode(&mut g, pre)?;
    let logits = model.tail(&mut g, decoded, tap.number)?;
    let weights = g.input("weights", [model.classes]);
    let of_code = vjp(&mut g, logits, weights, &[given])?[0];
    Ok((g, Cut { x, code, given, logits, weights, of_code }))
}
