//! The one list of cases: every op, at the sizes where kernels go wrong (odd extents, tail channels, windows larger than
//! the image, ties, constant patches, idle and total interventions).

mod blocks;

use super::{Build, Case, Data, ROWS, Tol};
use intervene::answer::Head;
use intervene::backend::layout::ConvShape;
use intervene::graph::NodeId;
use intervene::graph::op::{Activation, Averaging, Binary, Element, Moment, Op, Prologue, Reduction, Window};

const EXACT: (Tol, Tol) = (Tol::Exact, Tol::Exact);
/// One rounding a result.
const ROUNDED: (Tol, Tol) = (Tol::Ulp(1), Tol::Ulp(1));
/// A few roundings and an `exp`, `ln` or `sqrt` of the platform's library.
const CLOSE: (Tol, Tol) = (Tol::Close(2e-6), Tol::Close(2e-6));

/// Every case.
pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    convolutions(&mut list);
    dense(&mut list);
    pools(&mut list);
    blocks::concats(&mut list);
    blocks::norms(&mut list);
    pointwise(&mut list);
    rows(&mut list);
    losses(&mut list);
    interventions(&mut list);
    effects(&mut list);
    steps(&mut list);
    list
}

fn dot(k: usize) -> Tol {
    Tol::Dot { k }
}

struct Conv {
    c: usize,
    o: usize,
    hw: (usize, usize),
    kernel: (usize, usize),
    stride: usize,
    pad: usize,
}

impl Conv {
    fn case(self, name: &str, with: fn(&mut Build, NodeId, &Conv) -> Vec<NodeId>, activation: Activation) -> Case {
        let window = Window { stride: self.stride, pad: self.pad };
        let k = self.c * self.kernel.0 * self.kernel.1;
        let longest = (self.o * self.kernel.0 * self.kernel.1).max(ROWS * self.hw.0 * self.hw.1);
        let relu = activation == Activation::Relu;
        let (h, w) = self.hw;
        let (kh, kw) = self.kernel;
        let shape = ConvShape { c: self.c, h, w, o: self.o, kh, kw, stride: self.stride, pad: self.pad };
        let case = Case::new(name, (dot(k + 1), dot(longest)), move |b| {
            let x = b.x("x", [self.c, self.hw.0, self.hw.1]);
            let inputs = with(b, x, &self);
            // written as two nodes: the planner fuses the second into the first where the gradient allows it
            let y = b.graph.push(
                "conv",
                Op::Conv2d { window, prologue: Prologue::None, activation: Activation::None },
                &inputs,
            )?;
            if relu { b.graph.push("relu", Op::Relu, &[y]) } else { Ok(y) }
        });
        case.of_conv(shape)
    }
}

fn with_bias(b: &mut Build, x: NodeId, conv: &Conv) -> Vec<NodeId> {
    let w = b.weight("w", [conv.o, conv.c, conv.kernel.0, conv.kernel.1]);
    let bias = b.weight("b", [conv.o]);
    vec![x, w, bias]
}

fn without_bias(b: &mut Build, x: NodeId, conv: &Conv) -> Vec<NodeId> {
    let w = b.weight("w", [conv.o, conv.c, conv.kernel.0, conv.kernel.1]);
    vec![x, w]
}

fn convolutions(list: &mut Vec<Case>) {
    for (c, o, h, w, k, stride, pad) in [
        (16, 17, 5, 5, 1, 1, 0),
        (5, 3, 7, 9, 1, 2, 0),
        (33, 1, 4, 3, 1, 1, 0),
        (5, 6, 7, 9, 3, 1, 1),
        (3, 16, 9, 7, 3, 2, 1),
        (1, 5, 11, 11, 3, 1, 0),
        (17, 33, 5, 5, 3, 1, 1),
        (33, 16, 3, 3, 3, 1, 1),
        (3, 5, 4, 5, 3, 1, 2),
        (1, 16, 13, 13, 3, 1, 1),
        (3, 1, 7, 9, 5, 1, 2),
        (16, 3, 8, 8, 5, 2, 2),
        (3, 8, 17, 15, 7, 2, 3),
        (1, 3, 5, 5, 7, 1, 3),
        (2, 3, 1, 1, 3, 1, 1),
        (5, 3, 6, 4, 3, 2, 0),
        // by Winograd's tiles on the CPU, of 4x4 outputs and of 2x2, with borders that are no tile's
        (33, 130, 4, 8, 3, 1, 1),
        (130, 32, 6, 9, 3, 1, 0),
        (65, 64, 6, 6, 3, 1, 1),
        (32, 129, 2, 4, 3, 1, 2),
    ] {
        let name = format!("conv2d {k}x{k} stride {stride} pad {pad}, {c} channels of {h}x{w} to {o}");
        let conv = Conv { c, o, hw: (h, w), kernel: (k, k), stride, pad };
        list.push(conv.case(&name, with_bias, Activation::None));
    }
    let plain = |kernel| Conv { c: 3, o: 5, hw: (7, 6), kernel, stride: 1, pad: 1 };
    list.push(plain((3, 3)).case("conv2d without bias", without_bias, Activation::None));
    list.push(plain((3, 3)).case("conv2d with bias and relu", with_bias, Activation::Relu));
    list.push(plain((3, 3)).case("conv2d without bias, with relu", without_bias, Activation::Relu));
    list.push(plain((3, 5)).case(
        "conv2d with a kernel higher than wide is not transposed",
        with_bias,
        Activation::None,
    ));
    list.push(plain((1, 3)).case("conv2d with a kernel of one line", with_bias, Activation::None));
}

fn dense(list: &mut Vec<Case>) {
    for (i, o) in [(1, 1), (5, 3), (16, 10), (33, 17), (257, 10), (3, 65)] {
        list.push(Case::new(format!("linear {i} to {o}"), (dot(i + 1), dot(o.max(ROWS))), move |b| {
            let (x, w) = (b.x("x", [i]), b.weight("w", [o, i]));
            let bias = b.weight("b", [o]);
            b.graph.linear("linear", x, w, bias)
        }));
    }
    list.push(Case::new("linear without bias, with relu", (dot(9), dot(9)), |b| {
        let (x, w) = (b.x("x", [9]), b.weight("w", [7, 9]));
        let y = b.graph.push("linear", Op::Linear { activation: Activation::None }, &[x, w])?;
        b.graph.push("relu", Op::Relu, &[y])
    }));
}

fn pool(name: &str, chw: [usize; 3], (size, stride, pad): (usize, usize, usize), patch: Patch) -> Case {
    let case = Case::new(name, (Tol::Exact, dot(size * size)), move |b| {
        let x = match patch {
            Patch::Different => b.x_different("x", chw),
            Patch::Constant => b.rows("x", chw, |_, n| vec![0.5; n]),
            Patch::Masked => b.rows("x", chw, |b, n| {
                // two different values and a constant patch, as a masked image has
                b.all_different(n).iter().enumerate().map(|(i, v)| if i % 3 == 0 { *v } else { 0.25 }).collect()
            }),
        };
        b.graph.push("pool", Op::MaxPool { size, window: Window { stride, pad } }, &[x])
    });
    if matches!(patch, Patch::Different) { case } else { case.on_kinks() }
}

#[derive(Clone, Copy)]
enum Patch {
    Different,
    Constant,
    Masked,
}

fn pools(list: &mut Vec<Case>) {
    list.push(pool("max-pool 2/2", [5, 6, 8], (2, 2, 0), Patch::Different));
    list.push(pool("max-pool 2/2 leaves an odd last line out", [3, 7, 5], (2, 2, 0), Patch::Different));
    list.push(pool("max-pool 3/2 pad 1, overlapping", [4, 9, 7], (3, 2, 1), Patch::Different));
    list.push(pool("max-pool 3/1 pad 1, each cell in nine windows", [2, 5, 5], (3, 1, 1), Patch::Different));
    list.push(pool("max-pool 2/2 on a constant patch: the first index wins", [3, 6, 6], (2, 2, 0), Patch::Constant));
    list.push(pool("max-pool 3/2 pad 1 on a constant patch", [17, 7, 7], (3, 2, 1), Patch::Constant));
    list.push(pool("max-pool 3/2 pad 1 on a masked image", [3, 9, 9], (3, 2, 1), Patch::Masked));
    list.push(Case::new("global-avg-pool of 5x7", (dot(35), Tol::Ulp(2)), |b| {
        let x = b.x("x", [17, 5, 7]);
        b.graph.push("gap", Op::GlobalAvgPool, &[x])
    }));
    for (hw, averaging, longest) in [
        ((6, 8), Averaging::Windows { size: 2, stride: 2 }, 4),
        ((7, 5), Averaging::Windows { size: 2, stride: 2 }, 4),
        ((7, 7), Averaging::Windows { size: 3, stride: 2 }, 9),
        ((7, 7), Averaging::Adaptive { height: 7, width: 7 }, 1),
        ((14, 8), Averaging::Adaptive { height: 7, width: 4 }, 4),
        ((5, 9), Averaging::Adaptive { height: 3, width: 4 }, 9),
        ((2, 1), Averaging::Adaptive { height: 7, width: 7 }, 49),
        ((3, 10), Averaging::Adaptive { height: 7, width: 3 }, 25),
    ] {
        for channels in [5, 16] {
            let name = format!("avg-pool of {channels} maps of {}x{}, {averaging:?}", hw.0, hw.1);
            list.push(Case::new(name, (dot(longest), dot(longest)), move |b| {
                let x = b.x("x", [channels, hw.0, hw.1]);
                b.graph.push("average", Op::AvgPool(averaging), &[x])
            }));
        }
    }
    for channels in [3, 16] {
        list.push(Case::new(format!("channel-sum of {channels} maps"), (dot(channels), Tol::Exact), move |b| {
            let (x, weight) = (b.x("x", [channels, 5, 3]), b.x("weight", [channels]));
            b.wrt.clear();
            b.graph.push("map", Op::ChannelSum, &[x, weight])
        }));
    }
    list.push(Case::new("channel-max of signed maps, a dead channel among them", EXACT, |b| {
        let x = b.rows("x", [5, 3, 3], |b, n| {
            let v = b.away_from_zero(n);
            v.iter().enumerate().map(|(i, v)| if i / 9 % 5 == 3 { 0.0 } else { *v }).collect()
        });
        b.wrt.clear();
        b.graph.push("max", Op::ChannelMax, &[x])
    }));
}

fn pointwise(list: &mut Vec<Case>) {
    list.push(Case::new("affine of images", (Tol::Close(5e-7), dot(1)), |b| {
        let (x, scale) = (b.x("x", [17, 3, 5]), b.weight("scale", [17]));
        let shift = b.weight("shift", [17]);
        b.wrt = vec![x];
        b.graph.push("affine", Op::Affine { activation: Activation::None }, &[x, scale, shift])
    }));
    list.push(Case::new("affine without shift", ROUNDED, |b| {
        let (x, scale) = (b.x("x", [3, 4, 4]), b.weight("scale", [3]));
        b.wrt = vec![x];
        b.graph.push("affine", Op::Affine { activation: Activation::None }, &[x, scale])
    }));
    list.push(Case::new("affine of feature rows and of channels x positions", (Tol::Close(1e-6), dot(4)), |b| {
        let (x, scale) = (b.x("x", [6]), b.weight("scale", [6]));
        let y = b.graph.push("features", Op::Affine { activation: Activation::None }, &[x, scale])?;
        let y = b.graph.push("fold", Op::Reshape([2, 3].into()), &[y])?;
        let (scale, shift) = (b.weight("scale2", [2]), b.weight("shift2", [2]));
        b.wrt = vec![x];
        b.graph.push("positions", Op::Affine { activation: Activation::None }, &[y, scale, shift])
    }));
    list.push(Case::new("relu of rows", EXACT, |b| {
        let x = b.x("x", [5, 3, 3]);
        b.graph.push("relu", Op::Relu, &[x])
    }));
    list.push(Case::new("relu of a whole value", EXACT, |b| {
        let w = b.weight("w", [7, 3]);
        b.graph.push("relu", Op::Relu, &[w])
    }));
    list.push(
        Case::new("relu passes no gradient at exactly zero", EXACT, |b| {
            let x = b.rows("x", [3], |_, n| (0..n).map(|i| [0.0, 0.5, -0.5][i % 3]).collect());
            b.graph.push("relu", Op::Relu, &[x])
        })
        .on_kinks(),
    );
    list.push(Case::new("reshape keeps the order of channels, lines, columns", EXACT, |b| {
        let x = b.x_different("x", [3, 4, 5]);
        let flat = b.graph.push("flat", Op::Reshape([60].into()), &[x])?;
        b.graph.push("again", Op::Reshape([5, 2, 6].into()), &[flat])
    }));
    list.push(Case::new("scale", ROUNDED, |b| {
        let x = b.x("x", [33]);
        b.graph.scale("scale", x, 0.3)
    }));
    list.push(Case::new("sqrt of squares", CLOSE, |b| {
        let x = b.x("x", [17]);
        let square = b.graph.push("square", Op::Binary(Binary::Mul), &[x, x])?;
        b.graph.push("sqrt", Op::Sqrt { epsilon: 1e-6 }, &[square])
    }));
    for binary in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div] {
        let name = format!("{} of two rows", Op::Binary(binary).name());
        list.push(Case::new(name, (Tol::Ulp(1), Tol::Close(1e-6)), move |b| {
            let (x, y) = (b.x("x", [5, 3]), b.x("y", [5, 3]));
            b.graph.push("z", Op::Binary(binary), &[x, y])
        }));
    }
    for binary in [Binary::Add, Binary::Sub] {
        list.push(Case::new(format!("{} of two whole values", Op::Binary(binary).name()), ROUNDED, move |b| {
            let (x, y) = (b.weight("x", [5]), b.weight("y", [5]));
            b.graph.push("z", Op::Binary(binary), &[x, y])
        }));
    }
}

fn rows(list: &mut Vec<Case>) {
    for reduction in [Reduction::Sum, Reduction::Mean] {
        list.push(Case::new(Op::ReduceRows(reduction).name(), (dot(ROWS), Tol::Ulp(1)), move |b| {
            let x = b.x("x", [2, 3]);
            b.graph.push("reduced", Op::ReduceRows(reduction), &[x])
        }));
        let name = format!("broadcast-rows, the gradient of {}", Op::ReduceRows(reduction).name());
        list.push(Case::new(name, (Tol::Ulp(1), dot(ROWS)), move |b| {
            let x = b.weight("x", [5]);
            b.graph.push("rows", Op::BroadcastRows(reduction), &[x])
        }));
    }
}

fn losses(list: &mut Vec<Case>) {
    for k in [2, 10, 33] {
        list.push(Case::new(format!("cross-entropy of {k} classes"), CLOSE, move |b| {
            let x = b.x("logits", [k]);
            let label = b.labels(k as u32);
            b.graph.push("ce", Op::CrossEntropy, &[x, label])
        }));
    }
    list.push(
        Case::new(
            "cross-entropy of a certain and of a certainly wrong answer",
            (Tol::Close(2e-6), Tol::Ulp(64)),
            |b| {
                // 60 logits apart: p rounds to 1, yet the label's gradient keeps its sign
                let x = b.rows("logits", [3], |_, n| (0..n).map(|i| [60.0, 0.0, -3.0][i % 3]).collect());
                let label = b.indices("label", (0..ROWS as u32).map(|i| i % 3).collect());
                b.graph.push("ce", Op::CrossEntropy, &[x, label])
            },
        )
        .on_kinks(),
    );
    list.push(Case::new("softmax-kl, its gradient for the second input", CLOSE, |b| {
        let (target, x) = (b.x("target", [10]), b.x("logits", [10]));
        b.wrt = vec![x];
        b.graph.push("kl", Op::Kl(Head::Softmax), &[target, x])
    }));
    list.push(
        Case::new("softmax-kl of equal logits has gradient exactly zero", EXACT, |b| {
            let (target, x) = (b.x("target", [10]), b.x("logits", [10]));
            b.wrt = vec![x];
            let same = b.data[0].1.clone();
            b.set(x, same);
            b.graph.push("kl", Op::Kl(Head::Softmax), &[target, x])
        })
        .on_kinks(),
    );
    for classes in [1, 14, 40] {
        let loss = move |b: &mut Build, weight: Option<NodeId>| {
            let x = b.x("logits", [classes]);
            let target = b.graph.input("target", [classes]);
            let values = b.away_from_zero(ROWS * classes);
            // soft targets among hard ones
            let targets = values.iter().map(|v| if v.abs() < 0.4 { v.abs() } else { f64::from(*v > 0.0) }).collect();
            b.data.push((target, Data::Floats(targets)));
            b.wrt = vec![x];
            let mut inputs = vec![x, target];
            inputs.extend(weight);
            b.graph.push("bce", Op::BinaryCrossEntropy, &inputs)
        };
        let name = format!("binary cross-entropy of {classes} labels");
        list.push(Case::new(name.clone(), CLOSE, move |b| loss(b, None)));
        list.push(Case::new(format!("{name}, weighted"), CLOSE, move |b| {
            let values = b.away_from_zero(2 * classes).iter().map(|v| v.abs()).collect();
            let weight = b.whole("weight", [2, classes], values);
            loss(b, Some(weight))
        }));
    }
    list.push(
        Case::new("binary cross-entropy of certain answers keeps its sign", (Tol::Close(2e-6), Tol::Ulp(64)), |b| {
            let x = b.rows("logits", [4], |_, n| (0..n).map(|i| [90.0, -90.0, 40.0, -800.0][i % 4]).collect());
            let target = b.graph.input("target", [4]);
            b.data.push((target, Data::Floats((0..4 * ROWS).map(|i| [1.0, 0.0, 0.0, 1.0][i % 4]).collect())));
            b.graph.push("bce", Op::BinaryCrossEntropy, &[x, target])
        })
        .on_kinks(),
    );
    list.push(Case::new("sigmoid-kl, its gradient for the second input", CLOSE, |b| {
        let (target, x) = (b.x("target", [14]), b.x("logits", [14]));
        b.wrt = vec![x];
        b.graph.push("kl", Op::Kl(Head::Sigmoid), &[target, x])
    }));
    list.push(
        Case::new("sigmoid-kl of equal logits has gradient exactly zero", EXACT, |b| {
            let (target, x) = (b.x("target", [14]), b.x("logits", [14]));
            b.wrt = vec![x];
            let same = b.data[0].1.clone();
            b.set(x, same);
            b.graph.push("kl", Op::Kl(Head::Sigmoid), &[target, x])
        })
        .on_kinks(),
    );
    list.push(Case::new("mean-abs", (dot(45), Tol::Ulp(2)), |b| {
        let x = b.x("x", [5, 3, 3]);
        b.graph.push("l1", Op::MeanAbs, &[x])
    }));
    list.push(
        Case::new("mean-abs of zeros has gradient zero", EXACT, |b| {
            let x = b.rows("x", [4], |_, n| vec![0.0; n]);
            b.graph.push("l1", Op::MeanAbs, &[x])
        })
        .on_kinks(),
    );
    list.push(Case::new("mean-square", (dot(45), Tol::Ulp(3)), |b| {
        let x = b.x("x", [5, 3, 3]);
        b.graph.push("l2", Op::MeanSquare, &[x])
    }));
    for [c, h, w] in [[3, 5, 7], [1, 1, 6], [2, 6, 1], [16, 3, 3]] {
        let name = format!("total-variation of {c}x{h}x{w}");
        list.push(Case::new(name, (dot(2 * c * h * w), dot(8)), move |b| {
            let x = b.x_different("x", [c, h, w]);
            b.graph.push("tv", Op::TotalVariation, &[x])
        }));
    }
    list.push(
        Case::new("total-variation of a constant is 0, and so is its gradient", EXACT, |b| {
            let x = b.rows("x", [3, 4, 5], |_, n| vec![0.7f32.into(); n]);
            b.graph.push("tv", Op::TotalVariation, &[x])
        })
        .on_kinks(),
    );
}

/// Sets of channels kept: all (idle), none, one severed, two severed. One line a set.
fn keep(channels: usize) -> Vec<f64> {
    let all = vec![1.0; channels];
    let none = vec![0.0; channels];
    let (mut one, mut two) = (all.clone(), all.clone());
    one[channels / 2] = 0.0;
    two[0] = 0.0;
    two[channels - 1] = 0.0;
    [all, none, one, two].concat()
}

/// (image, set) of each row: an image twice, out of order, every set.
fn pairs(b: &mut Build, images: u32) -> (NodeId, NodeId) {
    let image = b.indices("image", (0..ROWS as u32).map(|r| (r * 5 + 1) % images).collect());
    let set = b.indices("set", (0..ROWS as u32).map(|r| (r * 3 + 2) % 4).collect());
    (image, set)
}

fn interventions(list: &mut Vec<Case>) {
    for (k, h, w) in [(16, 5, 3), (3, 4, 4), (1, 7, 7), (17, 1, 1)] {
        list.push(Case::new(format!("intervene on {k} channels of {h}x{w}"), EXACT, move |b| {
            let z = b.x("z", [k, h, w]);
            b.wrt.clear();
            let (image, set) = pairs(b, ROWS as u32);
            let keep = b.whole("keep", [4, k], keep(k));
            b.selectors = vec![keep];
            b.graph.push("do", Op::Intervene, &[z, image, set, keep])
        }));
    }
    list.push(Case::new("intervene grows three images to nine rows", EXACT, |b| {
        let z = b.x("z", [5, 3, 3]);
        b.wrt.clear();
        let three = b.away_from_zero(3 * 45);
        b.set(z, Data::Floats(three));
        let (image, set) = pairs(b, 3);
        let keep = b.whole("keep", [4, 5], keep(5));
        b.selectors = vec![keep];
        b.graph.push("do", Op::Intervene, &[z, image, set, keep])
    }));
    for (k, o, h, w, kernel, pad, relu) in [
        (16, 5, 5, 7, 3, 1, false),
        (3, 17, 4, 4, 3, 1, true),
        (5, 3, 6, 6, 1, 0, true),
        (2, 3, 7, 5, 5, 2, false),
        (1, 33, 5, 5, 3, 0, true),
    ] {
        let name = format!(
            "intervene-conv {kernel}x{kernel} pad {pad}, {k} channels to {o}{}",
            if relu { ", relu" } else { "" }
        );
        list.push(Case::new(name, (dot(k * kernel * kernel + 1), Tol::Exact), move |b| {
            let (ph, pw) = (h + 2 * pad - kernel + 1, w + 2 * pad - kernel + 1);
            let (pre, z) = (b.x("pre", [o, ph, pw]), b.x("z", [k, h, w]));
            let weight = b.weight("w", [o, k, kernel, kernel]);
            b.wrt.clear();
            let (image, set) = pairs(b, ROWS as u32);
            let keep = b.whole("keep", [4, k], keep(k));
            b.selectors = vec![keep];
            let op = Op::InterveneConv { pad, activation: Activation::None };
            let y = b.graph.push("do", op, &[pre, z, weight, image, set, keep])?;
            if relu { b.graph.push("relu", Op::Relu, &[y]) } else { Ok(y) }
        }));
    }
}

/// Effects of logit changes from nothing to certainty overturned, of images listed twice and out of order.
fn effects(list: &mut Vec<Case>) {
    for head in [Head::Softmax, Head::Sigmoid] {
        for classes in [2, 10, 14, 33] {
            for (op, of) in [(Op::Effects(head), "effects"), (Op::WeightedEffect(head), "weighted effect")] {
                let name = format!("{of} of a {head} head of {classes}");
                // one rounding to f32 of what f64 computed; near-equal terms of the sum cancel to some 1e-16 of them
                list.push(Case::new(name, (Tol::Close(1e-7), Tol::Exact), move |b| {
                    let sizes = [0.0, 1e-6, 1e-3, 0.3, 4.0, 30.0, 700.0];
                    let idle = b.x("idle", [classes]);
                    let rows: Vec<f64> =
                        b.away_from_zero(3 * classes).iter().map(|v| f64::from((3.0 * v) as f32)).collect();
                    b.set(idle, Data::Floats(rows.clone()));
                    let images: Vec<u32> = (0..ROWS as u32).map(|r| (r * 5 + 1) % 3).collect();
                    let changes = b.away_from_zero(ROWS * classes);
                    let done = (0..ROWS * classes).map(|i| {
                        let base = rows[images[i / classes] as usize * classes + i % classes];
                        f64::from((base + sizes[i / classes % sizes.len()] * changes[i]) as f32)
                    });
                    let done: Vec<f64> = done.collect();
                    let x = b.x("done", [classes]);
                    b.set(x, Data::Floats(done));
                    b.wrt.clear();
                    let image = b.indices("image", images);
                    b.graph.push("effect", op.clone(), &[x, idle, image])
                }));
            }
        }
    }
}

fn steps(list: &mut Vec<Case>) {
    let sign_step = |name: &str, step: f64, eps: f64, gradient: fn(usize, f64) -> f64| {
        Case::new(name, (Tol::Ulp(2), Tol::Exact), move |b| {
            let unit = |b: &Build, n: usize| -> Vec<f64> { b.all_different(n).iter().map(|v| v.abs()).collect() };
            let x = b.rows("x", [3, 5, 5], unit);
            let x0 = b.graph.input("x0", [3, 5, 5]);
            let near = b.data[0].1.clone();
            b.data.push((x0, near));
            let g = b.rows("g", [3, 5, 5], |b, n| {
                b.away_from_zero(n).iter().enumerate().map(|(i, v)| gradient(i, *v)).collect()
            });
            b.wrt.clear();
            let limits = b.whole("limits", [2], vec![step, eps]);
            b.graph.push("step", Op::SignStep, &[x, g, x0, limits])
        })
    };
    list.push(sign_step("sign-step to the edge of the ball (FGSM)", 0.03, 0.03, |_, g| g));
    list.push(sign_step("sign-step inside of the ball (BIM)", 0.004, 0.03, |_, g| g));
    list.push(sign_step("sign-step is cut back to the ball and to [0, 1]", 0.5, 0.25, |_, g| g));
    list.push(sign_step("sign-step leaves a cell without gradient where it is", 0.03, 0.03, |i, g| {
        if i % 2 == 0 { 0.0 } else { g }
    }));
    list.push(Case::new("adam-mean", (Tol::Close(1e-6), Tol::Exact), |b| {
        let (m, g) = (b.weight("m", [5, 3]), b.weight("g", [5, 3]));
        b.wrt.clear();
        b.graph.push("m'", Op::AdamMean { beta: 0.9 }, &[m, g])
    }));
    list.push(Case::new("adam-square", (Tol::Close(1e-6), Tol::Exact), |b| {
        let v = squares(b, "v", 15);
        let g = b.weight("g", [15]);
        b.wrt.clear();
        b.graph.push("v'", Op::AdamSquare { beta: 0.999 }, &[v, g])
    }));
    list.push(Case::new("adam-step, third of a run", (Tol::Close(1e-6), Tol::Exact), |b| {
        let (p, m) = (b.weight("p", [15]), b.weight("m", [15]));
        let v = squares(b, "v", 15);
        b.wrt.clear();
        let rate = vec![1e-3, 1.0 - 0.9f64.powi(3), 1.0 - 0.999f64.powi(3)];
        let rate = b.whole("rate", [3], rate);
        b.graph.push("p'", Op::AdamStep { epsilon: 1e-8 }, &[p, m, v, rate])
    }));
    list.push(Case::new("a state takes part in arithmetic", ROUNDED, |b| {
        let s = b.graph.state("s", [4]);
        let values = b.away_from_zero(4);
        b.data.push((s, Data::Floats(values)));
        b.graph.scale("half", s, 0.5)
    }));
}

fn squares(b: &mut Build, name: &str, n: usize) -> NodeId {
    let values: Vec<f64> = b.away_from_zero(n).iter().map(|v| v * v).collect();
    b.whole(name, [n], values)
}

/// Ops that a case must hold: all but declarations.
pub const OPS: usize = 69;

/// A number below [`OPS`] for each op that needs a case. No wildcard, so that a new op is noticed here.
pub fn number(op: &Op) -> Option<usize> {
    let number = match op {
        Op::Input(Element::Float | Element::Index) | Op::Parameter | Op::State => return None,
        Op::Conv2d { prologue: Prologue::None, activation: Activation::None, .. } => 0,
        Op::Conv2d { prologue: Prologue::None, activation: Activation::Relu, .. } => 1,
        Op::Conv2d { prologue: Prologue::AffineRelu, activation: Activation::None, .. } => 47,
        Op::Conv2d { prologue: Prologue::AffineRelu, activation: Activation::Relu, .. } => 48,
        Op::Conv2dGradInput { .. } => 2,
        Op::Conv2dGradWeight { .. } => 3,
        Op::Linear { activation: Activation::None, .. } => 4,
        Op::Linear { activation: Activation::Relu, .. } => 5,
        Op::LinearGradInput => 6,
        Op::LinearGradWeight => 7,
        Op::SumToChannels => 8,
        Op::Affine { activation: Activation::None } => 9,
        Op::Affine { activation: Activation::Relu } => 49,
        Op::Relu => 10,
        Op::ReluGrad => 11,
        Op::MaxPool { .. } => 12,
        Op::MaxPoolGrad { .. } => 13,
        Op::GlobalAvgPool => 14,
        Op::GlobalAvgPoolGrad { .. } => 15,
        Op::ChannelMax => 16,
        Op::Reshape(_) => 17,
        Op::Scale(_) => 18,
        Op::Sqrt { .. } => 19,
        Op::Binary(Binary::Add) => 20,
        Op::Binary(Binary::Sub) => 21,
        Op::Binary(Binary::Mul) => 22,
        Op::Binary(Binary::Div) => 23,
        Op::ReduceRows(Reduction::Sum) => 24,
        Op::ReduceRows(Reduction::Mean) => 25,
        Op::BroadcastRows(Reduction::Sum) => 26,
        Op::BroadcastRows(Reduction::Mean) => 27,
        Op::CrossEntropy => 28,
        Op::CrossEntropyGrad => 29,
        Op::Kl(Head::Softmax) => 30,
        Op::KlGrad(Head::Softmax) => 31,
        Op::MeanAbs => 32,
        Op::MeanAbsGrad => 33,
        Op::MeanSquare => 34,
        Op::MeanSquareGrad => 35,
        Op::TotalVariation => 36,
        Op::TotalVariationGrad => 37,
        Op::Intervene => 38,
        Op::InterveneConv { activation: Activation::None, .. } => 39,
        Op::InterveneConv { activation: Activation::Relu, .. } => 40,
        Op::SignStep => 41,
        Op::AdamMean { .. } => 42,
        Op::AdamSquare { .. } => 43,
        Op::AdamStep { .. } => 44,
        Op::Effects(_) => 45,
        Op::WeightedEffect(_) => 46,
        Op::AvgPool(Averaging::Windows { .. }) => 50,
        Op::AvgPool(Averaging::Adaptive { .. }) => 51,
        Op::AvgPoolGrad { averaging: Averaging::Windows { .. }, .. } => 52,
        Op::AvgPoolGrad { averaging: Averaging::Adaptive { .. }, .. } => 53,
        Op::Concat => 54,
        Op::Slice { .. } => 55,
        Op::ChannelSum => 56,
        Op::BinaryCrossEntropy => 57,
        Op::BinaryCrossEntropyGrad => 58,
        Op::Kl(Head::Sigmoid) => 59,
        Op::KlGrad(Head::Sigmoid) => 60,
        Op::BatchMoments => 61,
        Op::Moments => 62,
        Op::Normalise { activation: Activation::None, .. } => 63,
        Op::Normalise { activation: Activation::Relu, .. } => 64,
        Op::NormaliseGradWeight { .. } => 65,
        Op::NormaliseGradInput { .. } => 66,
        Op::Running { moment: Moment::Mean, .. } => 67,
        Op::Running { moment: Moment::Variance { .. }, .. } => 68,
    };
    Some(number)
}
