//! Per-row figures and losses with their gradients, sums over rows: small or memory-bound work beside the kernels.
//!
//! Sums run in f64 in a fixed order (sixteen lanes, then the lanes in order), a row by itself, so a row's result knows
//! neither its neighbours nor the thread count. Softmaxes are f64: with K classes they cost nothing beside the network.
//! Called by `program.rs`; layouts are dense NHWC.

use super::isa::{Isa, compiled};
use crate::answer::{Head, bernoulli_kl, difference, sigmoid, softplus, widen};
use rayon::prelude::*;

/// Lanes of an ordered sum: what a 512-bit register pair of f64 holds.
const LANES: usize = 16;

/// Sum of `term` over `x` in f64, in an order fixed by the length alone.
#[inline(always)]
fn ordered_sum(x: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(term(v));
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(term(v));
    }
    lanes.iter().sum()
}

/// As [`ordered_sum`] over pairs.
#[inline(always)]
fn ordered_sum_pairs(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (ca, cb) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (ra, rb) = (ca.remainder(), cb.remainder());
    for (a, b) in ca.zip(cb) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f64::from(term(a, b));
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(ra).zip(rb) {
        *lane += f64::from(term(a, b));
    }
    lanes.iter().sum()
}

/// -1, 0 or 1; NaN stays NaN.
#[inline(always)]
fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x * 0.0
    }
}

/// out\[r\] = mean |x| over row r of `n` elements.
pub fn mean_abs(isa: Isa, n: usize, x: &[f32], out: &mut [f32]) {
    let rows = out.par_iter_mut().zip(x.par_chunks_exact(n.max(1)));
    rows.for_each(|(o, x)| *o = compiled!(isa, (ordered_sum(x, f32::abs) / n as f64) as f32));
}

/// out\[r\] = mean x² over row r.
pub fn mean_square(isa: Isa, n: usize, x: &[f32], out: &mut [f32]) {
    let rows = out.par_iter_mut().zip(x.par_chunks_exact(n.max(1)));
    rows.for_each(|(o, x)| *o = compiled!(isa, (ordered_sum(x, |v| v * v) / n as f64) as f32));
}

/// out = g\[r\]·sign(x)/n.
pub fn mean_abs_grad(isa: Isa, n: usize, x: &[f32], g: &[f32], out: &mut [f32]) {
    let rows = out.par_chunks_exact_mut(n.max(1)).zip(x.par_chunks_exact(n.max(1))).zip(g);
    rows.for_each(|((out, x), &g)| {
        let unit = g / n as f32;
        compiled!(isa, out.iter_mut().zip(x).for_each(|(o, &x)| *o = unit * sign(x)));
    });
}

/// out = 2·g\[r\]·x/n.
pub fn mean_square_grad(isa: Isa, n: usize, x: &[f32], g: &[f32], out: &mut [f32]) {
    let rows = out.par_chunks_exact_mut(n.max(1)).zip(x.par_chunks_exact(n.max(1))).zip(g);
    rows.for_each(|((out, x), &g)| {
        let unit = 2.0 * g / n as f32;
        compiled!(isa, out.iter_mut().zip(x).for_each(|(o, &x)| *o = unit * x));
    });
}

/// Effects q - p of each row of `done` (rows, k) against the row of `idle` that `images` names, in f64.
pub fn effects(head: Head, k: usize, done: &[f32], idle: &[f32], images: &[u32], out: &mut [f32]) {
    for ((done, &image), out) in done.chunks_exact(k).zip(images).zip(out.chunks_exact_mut(k)) {
        let idle = widen(&idle[image as usize * k..][..k]);
        let effects = difference(head, &head.of(&idle), &idle, &widen(done));
        out.iter_mut().zip(effects).for_each(|(o, e)| *o = e as f32);
    }
}

/// The class-weighted effect of each row, in f64.
pub fn weighted_effect(head: Head, k: usize, done: &[f32], idle: &[f32], images: &[u32], out: &mut [f32]) {
    for ((done, &image), out) in done.chunks_exact(k).zip(images).zip(out) {
        let idle = widen(&idle[image as usize * k..][..k]);
        let p = head.of(&idle);
        *out = head.weighted(&p, &difference(head, &p, &idle, &widen(done))) as f32;
    }
}

/// A map: height, width, channels.
#[derive(Clone, Copy)]
pub struct Map {
    pub h: usize,
    pub w: usize,
    pub c: usize,
}

impl Map {
    fn len(self) -> usize {
        self.h * self.w * self.c
    }
}

/// out\[r\] = (sum |down - here| + sum |right - here|) / (C·H·W).
pub fn total_variation(isa: Isa, s: Map, x: &[f32], out: &mut [f32]) {
    let line = s.w * s.c;
    out.par_iter_mut().zip(x.par_chunks_exact(s.len().max(1))).for_each(|(o, x)| {
        let difference = |a: f32, b: f32| (b - a).abs();
        let sum = compiled!(isa, {
            let down = ordered_sum_pairs(&x[..s.len() - line], &x[line..], difference);
            let right = |row: &[f32]| ordered_sum_pairs(&row[..line - s.c], &row[s.c..], difference);
            down + x.chunks_exact(line).map(right).sum::<f64>()
        });
        *o = (sum / s.len() as f64) as f32;
    });
}

/// Its gradient, gathered: each cell collects from its four neighbours.
pub fn total_variation_grad(isa: Isa, s: Map, x: &[f32], g: &[f32], out: &mut [f32]) {
    let line = s.w * s.c;
    let images = out.par_chunks_exact_mut(s.len().max(1)).zip(x.par_chunks_exact(s.len().max(1))).zip(g);
    images.for_each(|((out, x), &g)| {
        let unit = g / s.len() as f32;
        compiled!(isa, {
            out.fill(0.0);
            let pair = |out: &mut [f32], offset: usize, from: usize, to: usize| {
                // here = x[i], next = x[i + offset]
                for i in from..to {
                    out[i] -= unit * sign(x[i + offset] - x[i]);
                }
                for i in from..to {
                    out[i + offset] += unit * sign(x[i + offset] - x[i]);
                }
            };
            for row in 0..s.h {
                let start = row * line;
                if row + 1 < s.h {
                    pair(out, line, start, start + line);
                }
                pair(out, s.c, start, start + line - s.c);
            }
        });
    });
}

/// out (rows, C) = max |x| over positions, NaN if one is.
pub fn channel_max(isa: Isa, s: Map, x: &[f32], out: &mut [f32]) {
    let rows = out.par_chunks_exact_mut(s.c.max(1)).zip(x.par_chunks_exact(s.len().max(1)));
    rows.for_each(|(out, x)| {
        compiled!(isa, {
            out.fill(0.0);
            for pixel in x.chunks_exact(s.c) {
                for (o, &v) in out.iter_mut().zip(pixel) {
                    // |v| below or equal keeps; a NaN is neither and stays once it is there
                    *o = if v.abs() <= *o || o.is_nan() { *o } else { v.abs() };
                }
            }
        });
    });
}

/// log softmax in f64.
fn log_softmax(x: &[f32], out: &mut Vec<f64>) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    out.clear();
    out.extend(x.iter().map(|&v| f64::from(v) - f64::from(max)));
    let log_sum = out.iter().map(|v| v.exp()).sum::<f64>().ln();
    out.iter_mut().for_each(|v| *v -= log_sum);
}

/// out\[r\] = -log softmax(logits\[r\])\[label\[r\]\].
pub fn cross_entropy(k: usize, logits: &[f32], label: &[u32], out: &mut [f32]) {
    let mut l = Vec::with_capacity(k);
    for ((o, x), &y) in out.iter_mut().zip(logits.chunks_exact(k)).zip(label) {
        log_softmax(x, &mut l);
        *o = -l[y as usize] as f32;
    }
}

/// Its gradient; the label's entry is minus the sum of the others.
pub fn cross_entropy_grad(k: usize, logits: &[f32], label: &[u32], g: &[f32], out: &mut [f32]) {
    let mut l = Vec::with_capacity(k);
    for (((o, x), &y), &g) in out.chunks_exact_mut(k).zip(logits.chunks_exact(k)).zip(label).zip(g) {
        log_softmax(x, &mut l);
        let mut others = 0.0;
        for (c, (o, l)) in o.iter_mut().zip(&l).enumerate() {
            if c != y as usize {
                let p = l.exp();
                others += p;
                *o = (f64::from(g) * p) as f32;
            }
        }
        o[y as usize] = (-f64::from(g) * others) as f32;
    }
}

/// out\[r\] = sum p log(p/q), p and q the softmaxes of `target` and `logits`.
pub fn softmax_kl(k: usize, target: &[f32], logits: &[f32], out: &mut [f32]) {
    let (mut p, mut q) = (Vec::with_capacity(k), Vec::with_capacity(k));
    for ((o, t), x) in out.iter_mut().zip(target.chunks_exact(k)).zip(logits.chunks_exact(k)) {
        log_softmax(t, &mut p);
        log_softmax(x, &mut q);
        let term = |(p, q): (&f64, &f64)| if p.exp() == 0.0 { 0.0 } else { p.exp() * (p - q) };
        *o = p.iter().zip(&q).map(term).sum::<f64>() as f32;
    }
}

/// The gradient for `logits`: g·(q - p).
pub fn softmax_kl_grad(k: usize, target: &[f32], logits: &[f32], g: &[f32], out: &mut [f32]) {
    let (mut p, mut q) = (Vec::with_capacity(k), Vec::with_capacity(k));
    let rows = out.chunks_exact_mut(k).zip(target.chunks_exact(k)).zip(logits.chunks_exact(k)).zip(g);
    for (((o, t), x), &g) in rows {
        log_softmax(t, &mut p);
        log_softmax(x, &mut q);
        o.iter_mut().zip(p.iter().zip(&q)).for_each(|(o, (p, q))| *o = (f64::from(g) * (q.exp() - p.exp())) as f32);
    }
}

/// out\[r\] = binary cross-entropy summed over labels; `weight` (2, k) of absent and present findings.
pub fn binary_cross_entropy(k: usize, logits: &[f32], target: &[f32], weight: Option<&[f32]>, out: &mut [f32]) {
    for ((o, x), t) in out.iter_mut().zip(logits.chunks_exact(k)).zip(target.chunks_exact(k)) {
        let term = |c: usize| {
            let ([absent, present], x, t) = (finding(weight, k, c), f64::from(x[c]), f64::from(t[c]));
            present * t * softplus(-x) + absent * (1.0 - t) * softplus(x)
        };
        *o = (0..k).map(term).sum::<f64>() as f32;
    }
}

/// Its gradient.
pub fn binary_cross_entropy_grad(
    k: usize,
    logits: &[f32],
    target: &[f32],
    g: &[f32],
    weight: Option<&[f32]>,
    out: &mut [f32],
) {
    let rows = out.chunks_exact_mut(k).zip(logits.chunks_exact(k)).zip(target.chunks_exact(k)).zip(g);
    for (((o, x), t), &g) in rows {
        for (c, o) in o.iter_mut().enumerate() {
            let ([absent, present], x, t) = (finding(weight, k, c), f64::from(x[c]), f64::from(t[c]));
            *o = (f64::from(g) * (absent * (1.0 - t) * sigmoid(x) - present * t * sigmoid(-x))) as f32;
        }
    }
}

/// Weights of label `c`, absent and present.
fn finding(weight: Option<&[f32]>, k: usize, c: usize) -> [f64; 2] {
    weight.map_or([1.0; 2], |w| [f64::from(w[c]), f64::from(w[k + c])])
}

/// out\[r\] = the sum over labels of the divergence between the sigmoids of `target` and `logits`.
pub fn sigmoid_kl(k: usize, target: &[f32], logits: &[f32], out: &mut [f32]) {
    for ((o, t), x) in out.iter_mut().zip(target.chunks_exact(k)).zip(logits.chunks_exact(k)) {
        *o = t.iter().zip(x).map(|(&t, &x)| bernoulli_kl(t.into(), x.into())).sum::<f64>() as f32;
    }
}

/// The gradient for `logits`: g·(q - p).
pub fn sigmoid_kl_grad(k: usize, target: &[f32], logits: &[f32], g: &[f32], out: &mut [f32]) {
    let rows = out.chunks_exact_mut(k).zip(target.chunks_exact(k)).zip(logits.chunks_exact(k)).zip(g);
    for (((o, t), x), &g) in rows {
        let term = |t: f32, x: f32| (f64::from(g) * (sigmoid(x.into()) - sigmoid(t.into()))) as f32;
        o.iter_mut().zip(t.iter().zip(x)).for_each(|(o, (&t, &x))| *o = term(t, x));
    }
}

/// out (rows, positions) = the sum over channels of `weight` (rows, C) times x (rows, positions, C), in f64.
pub fn channel_sum(isa: Isa, c: usize, x: &[f32], weight: &[f32], out: &mut [f32]) {
    let positions = (out.len() * c / weight.len().max(1)).max(1);
    let rows = out.par_chunks_exact_mut(positions).zip(x.par_chunks_exact(positions * c));
    rows.zip(weight.par_chunks_exact(c)).for_each(|((out, x), weight)| {
        for (o, pixel) in out.iter_mut().zip(x.chunks_exact(c)) {
            // the product of two f32 is exact in f64
            *o = compiled!(isa, {
                let mut lanes = [0.0f64; LANES];
                for (x, w) in pixel.chunks(LANES).zip(weight.chunks(LANES)) {
                    lanes.iter_mut().zip(x.iter().zip(w)).for_each(|(l, (&x, &w))| *l += f64::from(x) * f64::from(w));
                }
                lanes.iter().sum::<f64>() as f32
            });
        }
    });
}

/// Whole S from rows S: the sum over rows in order, over `divisor`.
pub fn reduce_rows(n: usize, divisor: f64, x: &[f32], out: &mut [f32]) {
    out.par_iter_mut().enumerate().for_each(|(i, o)| {
        *o = (x.iter().skip(i).step_by(n.max(1)).map(|&v| f64::from(v)).sum::<f64>() / divisor) as f32;
    });
}

/// Rows S from whole S: g over `divisor`.
pub fn broadcast_rows(divisor: f64, g: &[f32], out: &mut [f32]) {
    for row in out.chunks_exact_mut(g.len().max(1)) {
        row.iter_mut().zip(g).for_each(|(o, &g)| *o = (f64::from(g) / divisor) as f32);
    }
}
