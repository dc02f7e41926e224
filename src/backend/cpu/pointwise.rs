//! Elementwise kernels: activations, affine maps, arithmetic, layout changes, the attack's sign step, Adam.
//!
//! Each is one pass over dense slices, limited by memory; the loop body is compiled for every instruction set
//! (`Isa::run`) and cut into tasks of 32 Ki floats, which no result depends on. NaN always stays visible.
//! Called by the CPU backend's elementwise nodes, attack and optimiser steps included.

use rayon::prelude::*;

use super::gemm::view_fits;
use super::isa::{Isa, compiled};
use super::scratch::{Shared, parallel};
use crate::backend::layout::len;
use crate::graph::op::Activation;

/// Floats of a task: 128 KB per operand; a task of a few microseconds hides rayon's hand-over.
const CHUNK: usize = 32_768;

/// y = f(a).
#[inline(always)]
fn map1(isa: Isa, a: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    assert_eq!(a.len(), y.len());
    let body = |(a, y): (&[f32], &mut [f32])| compiled!(isa, a.iter().zip(y).for_each(|(a, y)| *y = f(*a)));
    if y.len() <= CHUNK {
        return body((a, y));
    }
    a.par_chunks(CHUNK).zip(y.par_chunks_mut(CHUNK)).for_each(body);
}

/// y = f(a, b).
#[inline(always)]
fn map2(isa: Isa, a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    assert_eq!((a.len(), b.len()), (y.len(), y.len()));
    let body = |((a, b), y): ((&[f32], &[f32]), &mut [f32])| {
        compiled!(isa, a.iter().zip(b).zip(y).for_each(|((a, b), y)| *y = f(*a, *b)))
    };
    if y.len() <= CHUNK {
        return body(((a, b), y));
    }
    a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)).zip(y.par_chunks_mut(CHUNK)).for_each(body);
}

/// y = max(0, x); NaN stays NaN.
pub fn relu(isa: Isa, x: &[f32], y: &mut [f32]) {
    map1(isa, x, y, |x| if x < 0.0 { 0.0 } else { x });
}

/// gx = gy where y > 0, else 0 (so 0 at 0). Where y is NaN, gy passes, as in PyTorch.
pub fn relu_grad(isa: Isa, y: &[f32], gy: &[f32], gx: &mut [f32]) {
    map2(isa, y, gy, gx, |y, g| if y <= 0.0 { 0.0 } else { g });
}

/// y = a + b.
pub fn add(isa: Isa, a: &[f32], b: &[f32], y: &mut [f32]) {
    map2(isa, a, b, y, |a, b| a + b);
}

/// y = a - b.
pub fn sub(isa: Isa, a: &[f32], b: &[f32], y: &mut [f32]) {
    map2(isa, a, b, y, |a, b| a - b);
}

/// y = a * b.
pub fn mul(isa: Isa, a: &[f32], b: &[f32], y: &mut [f32]) {
    map2(isa, a, b, y, |a, b| a * b);
}

/// y = a / b.
pub fn div(isa: Isa, a: &[f32], b: &[f32], y: &mut [f32]) {
    map2(isa, a, b, y, |a, b| a / b);
}

/// y = factor * x.
pub fn scale(isa: Isa, x: &[f32], factor: f32, y: &mut [f32]) {
    map1(isa, x, y, |x| x * factor);
}

/// y (pixels, C) = `x * scale[c] + shift[c]`, then `act`; with None as the shift, the gradient: gx = gy * `scale[c]`.
/// x's pixels lie `x_pixel` floats apart.
pub fn affine(
    isa: Isa,
    (x, x_pixel): (&[f32], usize),
    scale: &[f32],
    shift: Option<&[f32]>,
    act: Activation,
    y: &mut [f32],
) {
    let c = scale.len();
    assert!(y.len().is_multiple_of(c.max(1)) && view_fits(x.len(), y.len() / c.max(1), c, x_pixel));
    if c == 0 {
        return;
    }
    // an image's few channels would leave lanes idle: sixteen pixels are one
    if c < 16 && x_pixel == c && y.len() >= 16 * c {
        let whole = y.len() - y.len() % (16 * c);
        let (scales, shifts) = (scale.repeat(16), shift.map(|shift| shift.repeat(16)));
        let ((x, rest), (y, y_rest)) = (x.split_at(whole), y.split_at_mut(whole));
        affine(isa, (x, 16 * c), &scales, shifts.as_deref(), act, y);
        return affine(isa, (rest, c), scale, shift, act, y_rest);
    }
    let rows = (CHUNK / c).max(1);
    x.par_chunks(rows * x_pixel).zip(y.par_chunks_mut(rows * c)).for_each(|(x, y)| {
        compiled!(isa, {
            for (x, y) in x.chunks(x_pixel).zip(y.chunks_exact_mut(c)) {
                match shift {
                    // Two roundings, not an FMA: all instruction sets and PyTorch's batch norm then agree.
                    Some(shift) => {
                        x.iter().zip(scale).zip(shift).zip(&mut *y).for_each(|(((x, a), b), y)| *y = x * a + b);
                    }
                    None => x.iter().zip(scale).zip(&mut *y).for_each(|((x, a), y)| *y = x * a),
                }
                if act == Activation::Relu {
                    y.iter_mut().for_each(|y| *y = if *y < 0.0 { 0.0 } else { *y });
                }
            }
        });
    });
}

/// y (pixels, C) = a + b, whose pixels lie apart.
pub fn add_views(isa: Isa, c: usize, (a, a_pixel): (&[f32], usize), (b, b_pixel): (&[f32], usize), y: &mut [f32]) {
    if (a_pixel, b_pixel) == (c, c) {
        return add(isa, a, b, y);
    }
    let pixels = y.len() / c;
    assert!(
        y.len().is_multiple_of(c) && view_fits(a.len(), pixels, c, a_pixel) && view_fits(b.len(), pixels, c, b_pixel)
    );
    let rows = (CHUNK / c).max(1);
    let operands = a.par_chunks(rows * a_pixel).zip(b.par_chunks(rows * b_pixel));
    operands.zip(y.par_chunks_mut(rows * c)).for_each(|((a, b), y)| {
        compiled!(isa, {
            for ((a, b), y) in a.chunks(a_pixel).zip(b.chunks(b_pixel)).zip(y.chunks_exact_mut(c)) {
                a.iter().zip(b).zip(y).for_each(|((a, b), y)| *y = a + b);
            }
        });
    });
}

/// The `c` channels of x's pixels into y's; both lie apart. What lies between them stays.
pub fn copy_views(isa: Isa, c: usize, (x, x_pixel): (&[f32], usize), (y, y_pixel): (&mut [f32], usize)) {
    let rows = (CHUNK / c.max(1)).max(1);
    x.par_chunks(rows * x_pixel).zip(y.par_chunks_mut(rows * y_pixel)).for_each(|(x, y)| {
        compiled!(isa, {
            for (x, y) in x.chunks(x_pixel).zip(y.chunks_mut(y_pixel)) {
                y[..c].copy_from_slice(&x[..c]);
            }
        });
    });
}

/// y (rows, C, pixels) from x (rows, pixels, C).
pub fn nhwc_to_nchw(rows: usize, c: usize, pixels: usize, x: &[f32], y: &mut [f32]) {
    transpose(rows, pixels, c, x, y);
}

/// y (rows, pixels, C) from x (rows, C, pixels).
pub fn nchw_to_nhwc(rows: usize, c: usize, pixels: usize, x: &[f32], y: &mut [f32]) {
    transpose(rows, c, pixels, x, y);
}

/// y (rows, b, a) from x (rows, a, b), in squares of 16 x 16: both sides then use whole cache lines.
fn transpose(rows: usize, a: usize, b: usize, x: &[f32], y: &mut [f32]) {
    let all = len(&[rows, a, b]);
    assert_eq!((x.len(), y.len()), (all, all));
    if a == 1 || b == 1 {
        return y.copy_from_slice(x);
    }
    // a task has 16 KB at least
    let band = (4096 / a).next_multiple_of(16).max(16);
    let bands = b.div_ceil(band);
    let out = Shared::new(y);
    parallel(rows * bands, |task| {
        let row = task / bands;
        let from = &x[row * a * b..][..a * b];
        let own = task % bands * band..b.min((task % bands + 1) * band);
        for left in own.clone().step_by(16) {
            let columns = left..own.end.min(left + 16);
            // SAFETY: this task alone writes rows `columns` of the transposed image `row`.
            let to = unsafe { out.slice((row * b + columns.start) * a, columns.len() * a) };
            for top in (0..a).step_by(16) {
                for (j, to) in to.chunks_exact_mut(a).enumerate() {
                    for (i, to) in to[top..a.min(top + 16)].iter_mut().enumerate() {
                        *to = from[(top + i) * b + columns.start + j];
                    }
                }
            }
        }
    });
}

/// One step of a sign attack: out = clip(x + a * sign(g), max(0, x0 - eps), min(1, x0 + eps)).
///
/// sign(0) = 0; a NaN gradient gives NaN: it must be seen, not mistaken for "no direction".
pub fn sign_step(isa: Isa, x: &[f32], g: &[f32], x0: &[f32], a: f32, eps: f32, out: &mut [f32]) {
    assert_eq!((x.len(), g.len(), x0.len()), (out.len(), out.len(), out.len()));
    let step = x.par_chunks(CHUNK).zip(g.par_chunks(CHUNK)).zip(x0.par_chunks(CHUNK));
    step.zip(out.par_chunks_mut(CHUNK)).for_each(|(((x, g), x0), out)| {
        compiled!(isa, {
            for (((x, g), x0), out) in x.iter().zip(g).zip(x0).zip(out) {
                let sign = if *g > 0.0 {
                    1.0
                } else if *g < 0.0 {
                    -1.0
                } else {
                    *g
                };
                // Comparisons, not f32::max: that would turn NaN into the bound.
                let (low, high) = (x0 - eps, x0 + eps);
                let low = if low < 0.0 { 0.0 } else { low };
                let high = if high > 1.0 { 1.0 } else { high };
                let moved = x + a * sign;
                let moved = if moved < low { low } else { moved };
                let moved = if moved > high { high } else { moved };
                // A NaN bound clips nothing; the products carry it over (0 wherever x0 and eps are finite).
                *out = moved + (x0 * 0.0 + eps * 0.0);
            }
        });
    });
}

/// Adam's running mean: m + (1 - beta)(g - m), PyTorch's form of beta m + (1 - beta) g.
pub fn adam_mean(isa: Isa, beta: f64, m: &[f32], g: &[f32], out: &mut [f32]) {
    let mix = (1.0 - beta) as f32;
    map2(isa, m, g, out, |m, g| m + (g - m) * mix);
}

/// Adam's running square: beta v + (1 - beta) g^2.
pub fn adam_square(isa: Isa, beta: f64, v: &[f32], g: &[f32], out: &mut [f32]) {
    let (keep, fresh) = (beta as f32, (1.0 - beta) as f32);
    map2(isa, v, g, out, |v, g| v * keep + fresh * g * g);
}

/// Learning rate, bias corrections 1 - beta^t and epsilon of an Adam step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamRate {
    /// Learning rate.
    pub learning_rate: f32,
    /// 1 - beta1^t.
    pub correction_mean: f32,
    /// 1 - beta2^t.
    pub correction_square: f32,
    /// Added to the root.
    pub epsilon: f32,
}

/// out = p - lr / c1 * m / (sqrt(v) / sqrt(c2) + epsilon), PyTorch's order of operations.
pub fn adam_step(isa: Isa, rate: AdamRate, p: &[f32], m: &[f32], v: &[f32], out: &mut [f32]) {
    assert_eq!((p.len(), m.len(), v.len()), (out.len(), out.len(), out.len()));
    let step = rate.learning_rate / rate.correction_mean;
    let root = rate.correction_square.sqrt();
    let chunks = out.par_chunks_mut(CHUNK).zip(p.par_chunks(CHUNK)).zip(m.par_chunks(CHUNK)).zip(v.par_chunks(CHUNK));
    chunks.for_each(|(((o, p), m), v)| {
        compiled!(isa, {
            for (((o, &p), &m), &v) in o.iter_mut().zip(p).zip(m).zip(v) {
                *o = p - step * (m / (v.sqrt() / root + rate.epsilon));
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u64) -> Vec<f32> {
        let stream = crate::random::Stream::new(seed, "pointwise");
        (0..n as u32).map(|i| stream.uniform(0, i) * 2.0 - 1.0).collect()
    }

    #[test]
    fn relu_keeps_nan_and_its_gradient_is_zero_at_zero() {
        for isa in Isa::available() {
            let x = [-1.0, 0.0, 2.0, f32::NAN];
            let mut y = [9.0; 4];
            relu(isa, &x, &mut y);
            assert_eq!(y[..3], [0.0, 0.0, 2.0]);
            assert!(y[3].is_nan());
            let mut gx = [9.0; 4];
            relu_grad(isa, &y, &[1.0, 2.0, 3.0, 4.0], &mut gx);
            assert_eq!(gx, [0.0, 0.0, 3.0, 4.0]);
        }
    }

    #[test]
    fn arithmetic_is_exact_on_every_instruction_set_and_beyond_one_chunk() {
        let n = CHUNK + 77;
        let (a, b) = (values(n, 1), values(n, 2));
        let mut y = vec![0.0; n];
        type Op = (fn(Isa, &[f32], &[f32], &mut [f32]), fn(f32, f32) -> f32);
        let ops: [Op; 4] = [(add, |a, b| a + b), (sub, |a, b| a - b), (mul, |a, b| a * b), (div, |a, b| a / b)];
        for isa in Isa::available() {
            for (op, want) in ops {
                op(isa, &a, &b, &mut y);
                assert!((0..n).all(|i| y[i].to_bits() == want(a[i], b[i]).to_bits()));
            }
            scale(isa, &a, 3.0, &mut y);
            assert!((0..n).all(|i| y[i] == a[i] * 3.0));
        }
    }

    #[test]
    fn affine_and_its_gradient_work_per_channel() {
        let (c, n) = (5, 5 * 1001);
        let (x, s, t) = (values(n, 3), values(c, 4), values(c, 5));
        let mut y = vec![0.0; n];
        for isa in Isa::available() {
            affine(isa, (&x, s.len()), &s, Some(&t), Activation::None, &mut y);
            assert!((0..n).all(|i| y[i] == x[i] * s[i % c] + t[i % c]));
            affine(isa, (&x, s.len()), &s, None, Activation::None, &mut y);
            assert!((0..n).all(|i| y[i] == x[i] * s[i % c]));
        }
    }

    #[test]
    fn layouts_turn_into_each_other() {
        for (rows, c, pixels) in [(1, 1, 7), (3, 5, 35), (2, 33, 49), (2, 64, 1), (1, 16, 16)] {
            let x = values(rows * c * pixels, 6);
            let (mut y, mut back) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            nhwc_to_nchw(rows, c, pixels, &x, &mut y);
            for (r, k, p) in (0..rows).flat_map(|r| (0..c).flat_map(move |k| (0..pixels).map(move |p| (r, k, p)))) {
                assert_eq!(y[(r * c + k) * pixels + p], x[(r * pixels + p) * c + k]);
            }
            nchw_to_nhwc(rows, c, pixels, &y, &mut back);
            assert_eq!(back, x);
        }
    }

    #[test]
    fn the_sign_step_clips_and_shows_nan() {
        let x = [0.5, 0.5, 0.5, 0.02, 0.99, 0.5];
        let g = [3.0, -0.1, 0.0, -1.0, 1.0, f32::NAN];
        for isa in Isa::available() {
            let mut out = [9.0; 6];
            sign_step(isa, &x, &g, &x, 0.25, 0.125, &mut out);
            assert_eq!(out[..5], [0.625, 0.375, 0.5, 0.0, 1.0]);
            assert!(out[5].is_nan());
        }
    }

    #[test]
    fn adam_follows_the_formula() {
        let (lr, beta1, beta2, epsilon) = (1e-3f64, 0.9f64, 0.999f64, 1e-8f64);
        for isa in Isa::available() {
            let n = 37;
            let (mut p, mut m, mut v) = (values(n, 7), vec![0.0; n], vec![0.0; n]);
            let mut want: Vec<[f64; 3]> = p.iter().map(|p| [f64::from(*p), 0.0, 0.0]).collect();
            for t in 1..=5 {
                let g = values(n, 10 + t as u64);
                let (bc1, bc2) = (1.0 - beta1.powi(t), 1.0 - beta2.powi(t));
                let (mut next_p, mut next_m, mut next_v) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
                adam_mean(isa, beta1, &m, &g, &mut next_m);
                adam_square(isa, beta2, &v, &g, &mut next_v);
                let rate = AdamRate {
                    learning_rate: lr as f32,
                    correction_mean: bc1 as f32,
                    correction_square: bc2 as f32,
                    epsilon: epsilon as f32,
                };
                adam_step(isa, rate, &p, &next_m, &next_v, &mut next_p);
                (p, m, v) = (next_p, next_m, next_v);
                for (w, g) in want.iter_mut().zip(&g) {
                    let g = f64::from(*g);
                    w[1] = beta1 * w[1] + (1.0 - beta1) * g;
                    w[2] = beta2 * w[2] + (1.0 - beta2) * g * g;
                    w[0] -= lr * (w[1] / bc1) / ((w[2] / bc2).sqrt() + epsilon);
                }
            }
            for (p, w) in p.iter().zip(&want) {
                let diff = (f64::from(*p) - w[0]).abs();
                assert!(diff <= 1e-6, "{isa:?}: {p} against {}", w[0]);
            }
        }
    }
}
