//! The judge: every op as the plainest loop in f64, logical (N, C, H, W) order, one thread. Never fast.
//!
//! Each op is written here first, from its definition; `cpu` (and later `cuda`) is compared with it. Its own witnesses
//! are central differences and values that PyTorch computed (tests/gradcheck.rs, tests/golden.rs).

use super::host::{Engine, HostProgram, Step};
use super::ledger::inconsistent;
use super::{Backend, BackendError, Parameters, Program};
use crate::answer::{Head, bernoulli_kl, difference, sigmoid, softplus};
use crate::graph::op::{Activation, Averaging, Binary, Op, Reduction, Spans, Window};
use crate::graph::plan::{Artifact, Footprint};
use crate::graph::{Node, NodeId};

/// The f64 reference device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Backend for Reference {
    fn name(&self) -> String {
        "reference (f64, naive)".into()
    }

    /// Never fast, so never large.
    fn batch_rows(&self, footprint: Footprint) -> usize {
        ((1 << 20) / footprint.row.max(1)).max(1)
    }

    fn load(&self, plan: Artifact, weights: &dyn Parameters) -> Result<Box<dyn Program>, BackendError> {
        Ok(Box::new(HostProgram::load(plan.dense(), weights, Naive)?))
    }
}

struct Naive;

impl Engine for Naive {
    type Float = f64;

    fn store(&self, _: &Node, _: usize, logical: &[f64], physical: &mut [f64]) {
        physical.copy_from_slice(logical);
    }

    fn fetch(&self, _: &Node, _: usize, physical: &[f64], logical: &mut [f64]) {
        logical.copy_from_slice(physical);
    }

    fn parameter_changed(&mut self, _: NodeId) {}

    fn step(&self, step: &Step<'_, f64>, out: &mut [f64]) -> Result<(), BackendError> {
        compute(step, out)
    }
}

fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Relu => relu(x),
    }
}

/// max(0, x) that lets a NaN through.
fn relu(x: f64) -> f64 {
    if x <= 0.0 { 0.0 } else { x }
}

/// -1, 0 or 1; NaN stays NaN.
fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else if x == 0.0 {
        0.0
    } else {
        x
    }
}

/// The cell that output position `p` reads at kernel position `k`, if it is not padding.
fn cell(p: usize, k: usize, n: usize, window: Window) -> Option<usize> {
    (p * window.stride + k).checked_sub(window.pad).filter(|&i| i < n)
}

/// Channels, height, width; a row of any other rank is its leading dimension as channels of one column.
fn dims3(node: &Node) -> [usize; 3] {
    match *node.shape.dims() {
        [c, h, w] => [c, h, w],
        [c, ref rest @ ..] => [c, rest.iter().product(), 1],
        [] => [1, 1, 1],
    }
}

fn dims4(node: &Node) -> [usize; 4] {
    match *node.shape.dims() {
        [o, c, k, l] => [o, c, k, l],
        _ => [0; 4],
    }
}

fn log_softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = x.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
    x.iter().map(|v| v - max - log_sum).collect()
}

fn spans(node: &Node, averaging: Averaging, h: usize, w: usize) -> Result<[Spans; 2], BackendError> {
    averaging.spans(h, w).ok_or_else(|| inconsistent(node, "its cells do not fit".into()))
}

fn compute(s: &Step<'_, f64>, out: &mut [f64]) -> Result<(), BackendError> {
    let rows = s.rows;
    match &s.node.op {
        Op::Input(_) | Op::Parameter | Op::State => {
            let reason = "a declaration is not a step".to_string();
            return Err(BackendError::Inconsistent { node: s.node.name.clone(), reason });
        }
        Op::Conv2d { window, activation, .. } => {
            let (x, w) = (s.floats(0), s.floats(1));
            let affine = s.prologue();
            let b = s.conv_bias();
            let ([c, h, wd], [o, _, kh, kw], [_, p, q]) = (dims3(s.nodes[0]), dims4(s.nodes[1]), dims3(s.node));
            for_each([rows, o, p, q], |at, [n, o, p, q]| {
                let mut sum = b.map_or(0.0, |b| b[o]);
                for_each([c, kh, kw, 1], |_, [ic, k, l, _]| {
                    if let (Some(i), Some(j)) = (cell(p, k, h, *window), cell(q, l, wd, *window)) {
                        let x = x[((n * c + ic) * h + i) * wd + j];
                        let x = affine.map_or(x, |(scale, shift)| relu(x * scale[ic] + shift[ic]));
                        sum += x * w[((o * c + ic) * kh + k) * kw + l];
                    }
                });
                out[at] = activate(sum, *activation);
            });
        }
        Op::Conv2dGradInput { window, .. } => {
            let (gy, w) = (s.floats(0), s.floats(1));
            let ([o, p, q], [_, c, kh, kw], [_, h, wd]) = (dims3(s.nodes[0]), dims4(s.nodes[1]), dims3(s.node));
            out.fill(0.0);
            for_each([rows, o, p, q], |at, [n, o, p, q]| {
                for_each([c, kh, kw, 1], |_, [ic, k, l, _]| {
                    if let (Some(i), Some(j)) = (cell(p, k, h, *window), cell(q, l, wd, *window)) {
                        out[((n * c + ic) * h + i) * wd + j] += gy[at] * w[((o * c + ic) * kh + k) * kw + l];
                    }
                });
            });
        }
        Op::Conv2dGradWeight { window, .. } => {
            let (x, gy) = (s.floats(0), s.floats(1));
            let ([c, h, wd], [_, p, q], [o, _, kh, kw]) = (dims3(s.nodes[0]), dims3(s.nodes[1]), dims4(s.node));
            out.fill(0.0);
            for_each([rows, o, p, q], |at, [n, o, p, q]| {
                for_each([c, kh, kw, 1], |_, [ic, k, l, _]| {
                    if let (Some(i), Some(j)) = (cell(p, k, h, *window), cell(q, l, wd, *window)) {
                        out[((o * c + ic) * kh + k) * kw + l] += gy[at] * x[((n * c + ic) * h + i) * wd + j];
                    }
                });
            });
        }
        Op::Linear { activation } => {
            let (x, w, b) = (s.floats(0), s.floats(1), s.optional(2));
            let (i, o) = (s.nodes[0].shape.len(), s.node.shape.len());
            for_each([rows, o, 1, 1], |at, [n, o, _, _]| {
                let dot: f64 = (0..i).map(|k| x[n * i + k] * w[o * i + k]).sum();
                out[at] = activate(dot + b.map_or(0.0, |b| b[o]), *activation);
            });
        }
        Op::LinearGradInput => {
            let (gy, w) = (s.floats(0), s.floats(1));
            let (o, i) = (s.nodes[0].shape.len(), s.node.shape.len());
            for_each([rows, i, 1, 1], |at, [n, k, _, _]| {
                out[at] = (0..o).map(|j| gy[n * o + j] * w[j * i + k]).sum();
            });
        }
        Op::LinearGradWeight => {
            let (x, gy) = (s.floats(0), s.floats(1));
            let (i, o) = (s.nodes[0].shape.len(), s.nodes[1].shape.len());
            for_each([o, i, 1, 1], |at, [j, k, _, _]| {
                out[at] = (0..rows).map(|n| gy[n * o + j] * x[n * i + k]).sum();
            });
        }
        Op::SumToChannels => {
            let gy = s.floats(0);
            let [c, h, w] = dims3(s.nodes[0]);
            out.fill(0.0);
            for_each([rows, c, h, w], |at, [_, c, _, _]| out[c] += gy[at]);
        }
        Op::Affine { activation } => {
            let (x, scale, shift) = (s.floats(0), s.floats(1), s.optional(2));
            let [c, h, w] = dims3(s.node);
            for_each([rows, c, h, w], |at, [_, c, _, _]| {
                out[at] = activate(x[at] * scale[c] + shift.map_or(0.0, |b| b[c]), *activation);
            });
        }
        Op::BatchMoments => {
            let x = s.floats(0);
            let [c, h, w] = dims3(s.nodes[0]);
            let n = (rows * h * w) as f64;
            out.fill(0.0);
            for_each([rows, c, h, w], |at, [_, k, _, _]| out[k] += x[at] / n);
            for_each([rows, c, h, w], |at, [_, k, _, _]| out[c + k] += (x[at] - out[k]).powi(2) / n);
        }
        Op::Moments => {
            let (mean, variance) = out.split_at_mut(s.floats(0).len());
            mean.copy_from_slice(s.floats(0));
            variance.copy_from_slice(s.floats(1));
        }
        Op::Normalise { epsilon, activation } => {
            let (x, moments, weight, bias) = (s.floats(0), s.floats(1), s.floats(2), s.floats(3));
            let [c, h, w] = dims3(s.node);
            for_each([rows, c, h, w], |at, [_, k, _, _]| {
                let unit = (x[at] - moments[k]) / (moments[c + k] + epsilon).sqrt();
                out[at] = activate(unit * weight[k] + bias[k], *activation);
            });
        }
        Op::NormaliseGradWeight { epsilon } => {
            let (x, moments, gy) = (s.floats(0), s.floats(1), s.floats(2));
            let [c, h, w] = dims3(s.nodes[0]);
            out.fill(0.0);
            for_each([rows, c, h, w], |at, [_, k, _, _]| {
                out[k] += gy[at] * (x[at] - moments[k]) / (moments[c + k] + epsilon).sqrt();
            });
        }
        Op::NormaliseGradInput { epsilon } => {
            let (x, moments, weight) = (s.floats(0), s.floats(1), s.floats(2));
            let (gy, gw, gb) = (s.floats(3), s.floats(4), s.floats(5));
            let [c, h, w] = dims3(s.node);
            let n = (rows * h * w) as f64;
            for_each([rows, c, h, w], |at, [_, k, _, _]| {
                let root = (moments[c + k] + epsilon).sqrt();
                let unit = (x[at] - moments[k]) / root;
                out[at] = weight[k] / root * (gy[at] - gb[k] / n - unit * gw[k] / n);
            });
        }
        Op::Running { moment, momentum } => {
            let (running, moments, c) = (s.floats(0), s.floats(1), s.node.shape.len());
            let (line, factor) = moment.value(rows);
            each(out, |k| (1.0 - momentum) * running[k] + momentum * factor * moments[line * c + k]);
        }
        Op::Relu => each(out, |i| relu(s.floats(0)[i])),
        Op::ReluGrad => each(out, |i| if s.floats(0)[i] <= 0.0 { 0.0 } else { s.floats(1)[i] }),
        Op::MaxPool { size, window } => {
            let x = s.floats(0);
            let ([_, h, w], [c, p, q]) = (dims3(s.nodes[0]), dims3(s.node));
            for_each([rows, c, p, q], |at, [n, c, p, q]| {
                let plane = (s.node.shape.dims()[0] * n + c) * h * w;
                out[at] = first_maximum(&x[plane..plane + h * w], [h, w], [p, q], *size, *window)
                    .map_or(f64::NEG_INFINITY, |i| x[plane + i]);
            });
        }
        Op::MaxPoolGrad { size, window } => {
            let (x, gy) = (s.floats(0), s.floats(1));
            let ([c, h, w], [_, p, q]) = (dims3(s.nodes[0]), dims3(s.nodes[1]));
            out.fill(0.0);
            for_each([rows, c, p, q], |at, [n, ch, p, q]| {
                let plane = (c * n + ch) * h * w;
                if let Some(i) = first_maximum(&x[plane..plane + h * w], [h, w], [p, q], *size, *window) {
                    out[plane + i] += gy[at];
                }
            });
        }
        Op::AvgPool(averaging) => {
            let (x, [c, h, w]) = (s.floats(0), dims3(s.nodes[0]));
            let [down, right] = spans(s.node, *averaging, h, w)?;
            for_each([rows, c, down.count, right.count], |at, [n, c2, p, q]| {
                let cells = down.cells(p).flat_map(|i| right.cells(q).map(move |j| (i, j)));
                let sum: f64 = cells.map(|(i, j)| x[((n * c + c2) * h + i) * w + j]).sum();
                out[at] = sum / (down.cells(p).len() * right.cells(q).len()) as f64;
            });
        }
        Op::AvgPoolGrad { averaging, height: h, width: w } => {
            let (gy, c) = (s.floats(0), dims3(s.node)[0]);
            let [down, right] = spans(s.node, *averaging, *h, *w)?;
            out.fill(0.0);
            for_each([rows, c, down.count, right.count], |at, [n, c2, p, q]| {
                let share = gy[at] / (down.cells(p).len() * right.cells(q).len()) as f64;
                for i in down.cells(p) {
                    right.cells(q).for_each(|j| out[((n * c + c2) * h + i) * w + j] += share);
                }
            });
        }
        Op::Concat => {
            let (a, b) = (s.floats(0), s.floats(1));
            let (own, others) = (s.nodes[0].shape.len(), s.nodes[1].shape.len());
            for (n, row) in out.chunks_exact_mut(own + others).enumerate() {
                row[..own].copy_from_slice(&a[n * own..][..own]);
                row[own..].copy_from_slice(&b[n * others..][..others]);
            }
        }
        Op::Slice { first, .. } => {
            let (x, [c, h, w], n) = (s.floats(0), dims3(s.nodes[0]), s.node.shape.len());
            each(out, |i| x[(i / n * c + first) * h * w + i % n]);
        }
        Op::ChannelSum => {
            let (x, weight, [c, h, w]) = (s.floats(0), s.floats(1), dims3(s.nodes[0]));
            let area = h * w;
            each(out, |i| {
                let (n, at) = (i / area, i % area);
                (0..c).map(|k| weight[n * c + k] * x[(n * c + k) * area + at]).sum()
            });
        }
        Op::GlobalAvgPool => {
            let area = s.nodes[0].shape.len() / s.node.shape.len().max(1);
            each(out, |i| s.floats(0)[i * area..(i + 1) * area].iter().sum::<f64>() / area as f64);
        }
        Op::GlobalAvgPoolGrad { height, width } => {
            let area = height * width;
            each(out, |i| s.floats(0)[i / area] / area as f64);
        }
        Op::ChannelMax => {
            let area = s.nodes[0].shape.len() / s.node.shape.len().max(1);
            let larger = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
            each(out, |i| s.floats(0)[i * area..(i + 1) * area].iter().map(|v| v.abs()).fold(0.0, larger));
        }
        Op::Reshape(_) => out.copy_from_slice(s.floats(0)),
        Op::Scale(factor) => each(out, |i| factor * s.floats(0)[i]),
        Op::Sqrt { epsilon } => each(out, |i| (s.floats(0)[i] + epsilon).sqrt()),
        Op::Binary(binary) => {
            let (a, b) = (s.floats(0), s.floats(1));
            each(out, |i| match binary {
                Binary::Add => a[i] + b[i],
                Binary::Sub => a[i] - b[i],
                Binary::Mul => a[i] * b[i],
                Binary::Div => a[i] / b[i],
            });
        }
        Op::ReduceRows(reduction) => {
            let (x, n) = (s.floats(0), s.node.shape.len());
            let over = if *reduction == Reduction::Mean { rows as f64 } else { 1.0 };
            each(out, |i| (0..rows).map(|r| x[r * n + i]).sum::<f64>() / over);
        }
        Op::BroadcastRows(reduction) => {
            let (g, n) = (s.floats(0), s.node.shape.len());
            let over = if *reduction == Reduction::Mean { rows as f64 } else { 1.0 };
            each(out, |i| g[i % n] / over);
        }
        Op::CrossEntropy => {
            let k = s.nodes[0].shape.len();
            each(out, |n| -log_softmax(&s.floats(0)[n * k..(n + 1) * k])[s.indices(1)[n] as usize]);
        }
        Op::CrossEntropyGrad => {
            let k = s.node.shape.len();
            for n in 0..rows {
                let p: Vec<f64> = log_softmax(&s.floats(0)[n * k..(n + 1) * k]).iter().map(|l| l.exp()).collect();
                let (label, g) = (s.indices(1)[n] as usize, s.floats(2)[n]);
                for c in 0..k {
                    let others: f64 = p.iter().enumerate().filter(|(j, _)| *j != label).map(|(_, v)| v).sum();
                    out[n * k + c] = g * if c == label { -others } else { p[c] };
                }
            }
        }
        Op::BinaryCrossEntropy => {
            let (x, t, weight, k) = (s.floats(0), s.floats(1), s.optional(2), s.nodes[0].shape.len());
            each(out, |n| {
                let term = |c: usize| {
                    let (x, t) = (x[n * k + c], t[n * k + c]);
                    let [absent, present] = weight.map_or([1.0; 2], |w| [w[c], w[k + c]]);
                    present * t * softplus(-x) + absent * (1.0 - t) * softplus(x)
                };
                (0..k).map(term).sum()
            });
        }
        Op::BinaryCrossEntropyGrad => {
            let (x, t, g, weight, k) = (s.floats(0), s.floats(1), s.floats(2), s.optional(3), s.node.shape.len());
            each(out, |i| {
                let [absent, present] = weight.map_or([1.0; 2], |w| [w[i % k], w[k + i % k]]);
                g[i / k] * (absent * (1.0 - t[i]) * sigmoid(x[i]) - present * t[i] * sigmoid(-x[i]))
            });
        }
        Op::Kl(Head::Sigmoid) => {
            let (p, q, k) = (s.floats(0), s.floats(1), s.nodes[0].shape.len());
            each(out, |n| (n * k..(n + 1) * k).map(|i| bernoulli_kl(p[i], q[i])).sum());
        }
        Op::KlGrad(Head::Sigmoid) => {
            let (p, q, g, k) = (s.floats(0), s.floats(1), s.floats(2), s.node.shape.len());
            each(out, |i| g[i / k] * (sigmoid(q[i]) - sigmoid(p[i])));
        }
        Op::Kl(Head::Softmax) => {
            let k = s.nodes[0].shape.len();
            each(out, |n| {
                let row = n * k..(n + 1) * k;
                let (p, q) = (log_softmax(&s.floats(0)[row.clone()]), log_softmax(&s.floats(1)[row]));
                p.iter().zip(&q).map(|(p, q)| if p.exp() == 0.0 { 0.0 } else { p.exp() * (p - q) }).sum()
            });
        }
        Op::KlGrad(Head::Softmax) => {
            let k = s.node.shape.len();
            for n in 0..rows {
                let row = n * k..(n + 1) * k;
                let (p, q) = (log_softmax(&s.floats(0)[row.clone()]), log_softmax(&s.floats(1)[row.clone()]));
                each(&mut out[row], |c| s.floats(2)[n] * (q[c].exp() - p[c].exp()));
            }
        }
        Op::MeanAbs | Op::MeanSquare => {
            let (x, n) = (s.floats(0), s.nodes[0].shape.len());
            let term = |v: f64| if s.node.op == Op::MeanAbs { v.abs() } else { v * v };
            each(out, |r| x[r * n..(r + 1) * n].iter().map(|&v| term(v)).sum::<f64>() / n as f64);
        }
        Op::MeanAbsGrad => {
            let n = s.node.shape.len();
            each(out, |i| s.floats(1)[i / n] * sign(s.floats(0)[i]) / n as f64);
        }
        Op::MeanSquareGrad => {
            let n = s.node.shape.len();
            each(out, |i| s.floats(1)[i / n] * 2.0 * s.floats(0)[i] / n as f64);
        }
        Op::TotalVariation => {
            let x = s.floats(0);
            let [k, h, w] = dims3(s.nodes[0]);
            out.fill(0.0);
            for_each([rows, k, h, w], |at, [n, _, i, j]| {
                let down = if i + 1 < h { (x[at + w] - x[at]).abs() } else { 0.0 };
                let right = if j + 1 < w { (x[at + 1] - x[at]).abs() } else { 0.0 };
                out[n] += (down + right) / (k * h * w) as f64;
            });
        }
        Op::TotalVariationGrad => {
            let (x, g) = (s.floats(0), s.floats(1));
            let [k, h, w] = dims3(s.node);
            out.fill(0.0);
            for_each([rows, k, h, w], |at, [n, _, i, j]| {
                let unit = g[n] / (k * h * w) as f64;
                for (exists, next) in [(i + 1 < h, at + w), (j + 1 < w, at + 1)] {
                    if exists {
                        let d = sign(x[next] - x[at]) * unit;
                        out[next] += d;
                        out[at] -= d;
                    }
                }
            });
        }
        Op::Intervene => {
            let [k, h, w] = dims3(s.node);
            let (z, keep, area) = (s.inputs[0].floats, s.floats(3), h * w);
            for_each([rows, k, area, 1], |at, [r, c, i, _]| {
                let kept = keep[s.indices(2)[r] as usize * k + c] != 0.0;
                out[at] = if kept { z[(s.indices(1)[r] as usize * k + c) * area + i] } else { 0.0 };
            });
        }
        Op::InterveneConv { pad, activation } => {
            let ([o, h, w], [k, zh, zw], [_, _, kh, kw]) = (dims3(s.node), dims3(s.nodes[1]), dims4(s.nodes[2]));
            let (pre, z, weight, keep) = (s.inputs[0].floats, s.inputs[1].floats, s.floats(2), s.floats(5));
            let window = Window { stride: 1, pad: *pad };
            for_each([rows, o, h, w], |at, [r, oc, p, q]| {
                let (image, set) = (s.indices(3)[r] as usize, s.indices(4)[r] as usize);
                let mut sum = pre[((image * o + oc) * h + p) * w + q];
                for_each([k, kh, kw, 1], |_, [c, a, b, _]| {
                    if keep[set * k + c] == 0.0
                        && let (Some(i), Some(j)) = (cell(p, a, zh, window), cell(q, b, zw, window))
                    {
                        sum -= z[((image * k + c) * zh + i) * zw + j] * weight[((oc * k + c) * kh + a) * kw + b];
                    }
                });
                out[at] = activate(sum, *activation);
            });
        }
        Op::Effects(head) | Op::WeightedEffect(head) => {
            let (done, idle, k) = (s.floats(0), s.inputs[1].floats, s.nodes[0].shape.len());
            for (r, &image) in s.indices(2).iter().enumerate() {
                let idle = &idle[image as usize * k..][..k];
                let p = head.of(idle);
                let effects = difference(*head, &p, idle, &done[r * k..][..k]);
                match s.node.op {
                    Op::Effects(_) => out[r * k..][..k].copy_from_slice(&effects),
                    _ => out[r] = head.weighted(&p, &effects),
                }
            }
        }
        Op::SignStep => {
            let (x, g, x0, limits) = (s.floats(0), s.floats(1), s.floats(2), s.floats(3));
            let (step, eps) = (limits[0], limits[1]);
            each(out, |i| {
                let (low, high) = ((x0[i] - eps).max(0.0), (x0[i] + eps).min(1.0));
                let moved = x[i] + step * sign(g[i]);
                // `max` and `min` drop a NaN
                if (x0[i] + eps).is_nan() {
                    f64::NAN
                } else if moved < low {
                    low
                } else if moved > high {
                    high
                } else {
                    moved
                }
            });
        }
        Op::AdamMean { beta } => each(out, |i| beta * s.floats(0)[i] + (1.0 - beta) * s.floats(1)[i]),
        Op::AdamSquare { beta } => each(out, |i| beta * s.floats(0)[i] + (1.0 - beta) * s.floats(1)[i].powi(2)),
        Op::AdamStep { epsilon } => {
            let (p, m, v, rate) = (s.floats(0), s.floats(1), s.floats(2), s.floats(3));
            each(out, |i| p[i] - rate[0] * (m[i] / rate[1]) / ((v[i] / rate[2]).sqrt() + epsilon));
        }
    }
    Ok(())
}

fn each(out: &mut [f64], f: impl Fn(usize) -> f64) {
    out.iter_mut().enumerate().for_each(|(i, o)| *o = f(i));
}

/// Calls `f(flat index, [i, j, k, l])` over a row-major index space.
fn for_each(n: [usize; 4], mut f: impl FnMut(usize, [usize; 4])) {
    let mut at = 0;
    for i in 0..n[0] {
        for j in 0..n[1] {
            for k in 0..n[2] {
                for l in 0..n[3] {
                    f(at, [i, j, k, l]);
                    at += 1;
                }
            }
        }
    }
}

/// Flat index of the first maximum of the window at output position (p, q), row-major; a NaN is a maximum.
fn first_maximum(plane: &[f64], [h, w]: [usize; 2], [p, q]: [usize; 2], size: usize, window: Window) -> Option<usize> {
    let mut best: Option<usize> = None;
    for k in 0..size {
        for l in 0..size {
            if let (Some(i), Some(j)) = (cell(p, k, h, window), cell(q, l, w, window)) {
                let v = plane[i * w + j];
                if best.is_none_or(|b| v > plane[b] || (v.is_nan() && !plane[b].is_nan())) {
                    best = Some(i * w + j);
                }
            }
        }
    }
    best
}
