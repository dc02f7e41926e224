//! Cases of concats, slices, batch norms and dense blocks, in inference and under training.

use super::{EXACT, ROUNDED, dot, squares};
use crate::common::{Build, Case, ROWS, Tol};
use intervene::graph::op::{Activation, Averaging, Moment, Op, Prologue, Window};
use intervene::graph::{GraphError, NodeId};

/// A batch norm in inference, perhaps with its ReLU.
fn norm(b: &mut Build, name: &str, x: NodeId, relu: bool) -> Result<NodeId, GraphError> {
    let channels = b.graph.node(x).shape.dims()[0];
    let (scale, shift) =
        (b.weight(&format!("{name}.scale"), [channels]), b.weight(&format!("{name}.shift"), [channels]));
    b.wrt.retain(|&w| w != scale && w != shift);
    let y = b.graph.push(name, Op::Affine { activation: Activation::None }, &[x, scale, shift])?;
    if relu { b.graph.push(&format!("{name}.relu"), Op::Relu, &[y]) } else { Ok(y) }
}

fn conv_of(b: &mut Build, name: &str, x: NodeId, channels: usize, kernel: usize) -> Result<NodeId, GraphError> {
    let inputs = b.graph.node(x).shape.dims()[0];
    let w = b.weight(name, [channels, inputs, kernel, kernel]);
    let window = Window { stride: 1, pad: kernel / 2 };
    b.graph.push(name, Op::Conv2d { window, prologue: Prologue::None, activation: Activation::None }, &[x, w])
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Block {
    /// As DenseNet's.
    Plain,
    /// With a reader that cannot step over other channels: a concat has to copy.
    LookedInto,
    /// Without ReLU and maxima, for central differences.
    Smooth,
}

/// A dense block of three layers and a transition, whose concats lie in one slot where nobody looks.
fn dense_block(name: &str, width: usize, growth: usize, block: Block) -> Case {
    let k = 9 * 2 * width.max(growth) * 4;
    let case = Case::new(name, (dot(k), dot(4 * k)), move |b| {
        let relu = block != Block::Smooth;
        let x = b.x("x", [3, 8, 6]);
        let stem = conv_of(b, "stem", x, width, 3)?;
        let pool = match relu {
            true => Op::MaxPool { size: 3, window: Window { stride: 2, pad: 1 } },
            false => Op::AvgPool(Averaging::Windows { size: 3, stride: 2 }),
        };
        let mut all = b.graph.push("pool0", pool, &[stem])?;
        for layer in 0..3 {
            let hidden = norm(b, &format!("norm1.{layer}"), all, relu)?;
            let mut hidden = conv_of(b, &format!("conv1.{layer}"), hidden, 2 * growth, 1)?;
            if relu {
                hidden = b.graph.push(&format!("relu2.{layer}"), Op::Relu, &[hidden])?;
            }
            let fresh = conv_of(b, &format!("conv2.{layer}"), hidden, growth, 3)?;
            all = b.graph.push(&format!("concat.{layer}"), Op::Concat, &[all, fresh])?;
            if block == Block::LookedInto && layer == 1 {
                let seen = b.graph.scale("seen", all, 0.5)?;
                all = b.graph.add("both", all, seen)?;
            }
        }
        let hidden = norm(b, "transition", all, relu)?;
        let hidden = conv_of(b, "transition.conv", hidden, width, 1)?;
        b.graph.push("transition.pool", Op::AvgPool(Averaging::Windows { size: 2, stride: 2 }), &[hidden])
    });
    if block == Block::Smooth { case } else { case.on_kinks() }
}

pub fn concats(list: &mut Vec<Case>) {
    for (a, b2) in [(5, 3), (16, 16), (1, 7)] {
        list.push(Case::new(format!("concat of {a} and {b2} maps"), EXACT, move |b| {
            let (x, y) = (b.x("x", [a, 3, 5]), b.x("y", [b2, 3, 5]));
            b.graph.push("both", Op::Concat, &[x, y])
        }));
    }
    list.push(Case::new("concat of a map with itself", (Tol::Exact, Tol::Ulp(1)), |b| {
        let x = b.x("x", [4, 3, 3]);
        let y = b.graph.push("relu", Op::Relu, &[x])?;
        b.graph.push("twice", Op::Concat, &[y, y])
    }));
    list.push(Case::new("slice of channels, copied and as a view", ROUNDED, |b| {
        let x = b.x("x", [9, 4, 3]);
        b.wrt.clear();
        let some = b.graph.push("some", Op::Slice { first: 3, channels: 4 }, &[x])?;
        let others = b.graph.push("others", Op::Slice { first: 0, channels: 4 }, &[x])?;
        let sum = b.graph.add("sum", some, others)?;
        let copied = b.graph.push("copied", Op::Slice { first: 1, channels: 2 }, &[sum])?;
        b.graph.push("relu", Op::Relu, &[copied])
    }));
    list.push(Case::new("affine and relu of a view", (Tol::Close(5e-7), Tol::Exact), |b| {
        let x = b.x("x", [12, 3, 5]);
        let some = b.graph.push("some", Op::Slice { first: 4, channels: 8 }, &[x])?;
        let y = norm(b, "norm", some, true)?;
        b.wrt.clear();
        Ok(y)
    }));
    list.push(dense_block("dense block of whole quads", 8, 4, Block::Plain));
    list.push(dense_block("dense block of odd widths", 5, 3, Block::Plain));
    list.push(dense_block("dense block that is looked into", 8, 4, Block::LookedInto));
    list.push(dense_block("dense block as wide as DenseNet's", 64, 32, Block::Plain));
    list.push(dense_block("dense block without kinks", 5, 3, Block::Smooth));
}

/// A batch norm under training, with the moments of what it normalises.
fn batch_norm(b: &mut Build, name: &str, x: NodeId) -> Result<NodeId, GraphError> {
    let channels = b.graph.node(x).shape.dims()[0];
    let (weight, bias) =
        (b.weight(&format!("{name}.weight"), [channels]), b.weight(&format!("{name}.bias"), [channels]));
    let moments = b.graph.push(&format!("{name}.moments"), Op::BatchMoments, &[x])?;
    let op = Op::Normalise { epsilon: 1e-5, activation: Activation::None };
    b.graph.push(name, op, &[x, moments, weight, bias])
}

pub fn norms(list: &mut Vec<Case>) {
    // values of spread 1/2, so that a normalised value, and a gradient's sums, are those of x and gy within a factor of some 2
    for (c, h, w) in [(1, 3, 5), (3, 7, 5), (16, 4, 4), (17, 5, 3), (64, 6, 6), (33, 12, 11)] {
        let longest = dot(ROWS * h * w);
        list.push(Case::new(
            format!("batch moments of {c} maps of {h}x{w}"),
            (Tol::Close(1e-6), Tol::Exact),
            move |b| {
                let x = b.x("x", [c, h, w]);
                b.wrt.clear();
                b.graph.push("moments", Op::BatchMoments, &[x])
            },
        ));
        list.push(Case::new(format!("batch norm of {c} maps of {h}x{w}"), (Tol::Close(1e-6), longest), move |b| {
            let x = b.x("x", [c, h, w]);
            batch_norm(b, "norm", x)
        }));
    }
    list.push(Case::new("batch norm of feature rows", (Tol::Close(1e-6), dot(4 * ROWS)), |b| {
        let x = b.x("x", [6]);
        batch_norm(b, "norm", x)
    }));
    list.push(Case::new("batch norm with its relu", (Tol::Close(1e-6), Tol::Exact), |b| {
        let x = b.x("x", [5, 4, 3]);
        b.wrt.clear();
        let y = batch_norm(b, "norm", x)?;
        b.wrt.clear();
        b.graph.push("relu", Op::Relu, &[y])
    }));
    list.push(Case::new("batch norm of a constant channel gives the bias", (Tol::Close(1e-6), dot(9 * ROWS)), |b| {
        let x = b.rows("x", [2, 3, 3], |b, n| {
            let v = b.away_from_zero(n);
            v.iter().enumerate().map(|(i, v)| if i / 9 % 2 == 1 { 0.75 } else { *v }).collect()
        });
        b.wrt.clear();
        let y = batch_norm(b, "norm", x)?;
        b.wrt.retain(|&w| w != x);
        Ok(y)
    }));
    list.push(Case::new("batch moments of maps far from zero", (Tol::Ulp(2), Tol::Exact), |b| {
        let x =
            b.rows("x", [5, 4, 4], |b, n| b.away_from_zero(n).iter().map(|v| f64::from((1000.0 + v) as f32)).collect());
        b.wrt.clear();
        b.graph.push("moments", Op::BatchMoments, &[x])
    }));
    list.push(Case::new("normalise by moments that are known", (Tol::Close(1e-6), Tol::Exact), |b| {
        let x = b.x("x", [5, 4, 3]);
        let mean = b.weight("mean", [5]);
        let variance = squares(b, "variance", 5);
        let (weight, bias) = (b.weight("weight", [5]), b.weight("bias", [5]));
        b.wrt.clear();
        let moments = b.graph.push("moments", Op::Moments, &[mean, variance])?;
        let op = Op::Normalise { epsilon: 1e-5, activation: Activation::None };
        b.graph.push("norm", op, &[x, moments, weight, bias])
    }));
    for (name, moment) in [("mean", Moment::Mean), ("variance", Moment::Variance { positions: 12 })] {
        list.push(Case::new(format!("running {name}"), (Tol::Close(1e-6), Tol::Exact), move |b| {
            let x = b.x("x", [5, 4, 3]);
            let running = squares(b, "running", 5);
            b.wrt.clear();
            let moments = b.graph.push("moments", Op::BatchMoments, &[x])?;
            b.graph.push("running'", Op::Running { moment, momentum: 0.1 }, &[running, moments])
        }));
    }
    for (width, growth, block) in [(8, 4, Block::Plain), (5, 3, Block::Smooth), (64, 32, Block::Plain)] {
        list.push(trained_block(width, growth, block));
    }
}

/// Two dense layers under training: norms read windows of a concat that is made in place.
fn trained_block(width: usize, growth: usize, block: Block) -> Case {
    // a norm divides by a spread of some 1/2, and each passes its input's error on
    let k = 9 * 2 * width.max(growth) * 16;
    let name = format!("dense block under training, {width} maps and {growth} more a layer, {block:?}");
    let case = Case::new(name, (dot(k), dot(16 * k)), move |b| {
        let relu = |b: &mut Build, x: NodeId| match block {
            Block::Smooth => Ok(x),
            Block::Plain | Block::LookedInto => b.graph.push("relu", Op::Relu, &[x]),
        };
        let x = b.x("x", [3, 6, 6]);
        let mut all = conv_of(b, "stem", x, width, 3)?;
        for layer in 0..2 {
            let hidden = batch_norm(b, &format!("norm1.{layer}"), all)?;
            if block == Block::Smooth {
                // the next norm takes it away: its gradient is 0 and rounding
                b.wrt.retain(|&w| b.graph.node(w).name != format!("norm1.{layer}.bias"));
            }
            let hidden = relu(b, hidden)?;
            let hidden = conv_of(b, &format!("conv1.{layer}"), hidden, 2 * growth, 1)?;
            let hidden = batch_norm(b, &format!("norm2.{layer}"), hidden)?;
            let hidden = relu(b, hidden)?;
            let fresh = conv_of(b, &format!("conv2.{layer}"), hidden, growth, 3)?;
            all = b.graph.push(&format!("concat.{layer}"), Op::Concat, &[all, fresh])?;
        }
        let y = batch_norm(b, "last", all)?;
        relu(b, y)
    });
    if block == Block::Smooth { case } else { case.on_kinks() }
}
