//! The CPU kernels against naive f64 loops, on every instruction set of this machine, and bit for bit against
//! themselves under other batch sizes and thread counts.
//!
//! Tolerance of a sum of k products: |error| <= c * sqrt(k + 2) * eps * sum |products|, c = 2. A chain of k FMAs errs
//! by at most k * eps/2 * sum |products|; with roundings of random sign about sqrt(k) * eps/2 * sum, so c = 2 leaves a factor
//! of four for luck, and stays far below the O(1) error of a wrong index. A planted NaN fails `!(diff <= tol)`.

#![allow(clippy::neg_cmp_op_on_partial_ord)] // `!(diff <= tol)` fails on NaN, `diff > tol` does not

use intervene::backend::cpu::conv;
use intervene::backend::cpu::conv_weight;
use intervene::backend::cpu::intervene::{
    DecoderShape, Rows, intervene as mask_channels, intervene_conv, pack_channels,
};
use intervene::backend::cpu::isa::Isa;
use intervene::backend::cpu::linear::{self, Layer};
use intervene::backend::cpu::pool;
use intervene::backend::layout::{ConvShape, PoolShape};
use intervene::graph::op::Activation;
use intervene::random::Stream;

fn values(n: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, "kernels");
    (0..n as u32).map(|i| stream.uniform(1, i) * 2.0 - 1.0).collect()
}

/// A result and the sum of the magnitudes of its terms.
#[derive(Clone, Copy, Default)]
struct Exact {
    sum: f64,
    size: f64,
}

impl Exact {
    fn add(&mut self, term: f64) {
        self.sum += term;
        self.size += term.abs();
    }
}

#[track_caller]
fn check(what: &str, got: &[f32], want: &[Exact], k: usize) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let tol = 2.0 * ((k + 2) as f64).sqrt() * f64::from(f32::EPSILON) * want.size + 1e-30;
        let diff = (f64::from(*got) - want.sum).abs();
        if !(diff <= tol) {
            panic!("{what}: element {i}: {got} against {}, |diff| {diff:e} > {tol:e}", want.sum);
        }
    }
}

#[track_caller]
fn same_bits(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "{what}: element {i}: {a} against {b}");
    }
}

/// c, h, w, o, kh, kw, stride, pad.
#[rustfmt::skip]
const CONVS: &[[usize; 8]] = &[
    [1, 28, 28, 32, 3, 3, 1, 0], [3, 11, 11, 64, 3, 3, 1, 1], [32, 13, 13, 64, 3, 3, 1, 0],
    [32, 26, 26, 32, 3, 3, 1, 1], [16, 26, 26, 32, 3, 3, 1, 1], [32, 26, 26, 16, 1, 1, 1, 0],
    [5, 5, 7, 10, 3, 3, 1, 1], [10, 7, 7, 17, 3, 3, 2, 1], [17, 7, 5, 33, 3, 3, 1, 2], [33, 7, 7, 5, 5, 5, 1, 2],
    [3, 26, 26, 16, 7, 7, 2, 3], [16, 11, 11, 3, 7, 7, 1, 3], [1, 5, 7, 1, 5, 5, 1, 2], [64, 7, 7, 64, 3, 3, 1, 1],
    [17, 11, 11, 1, 1, 1, 2, 0], [10, 5, 7, 33, 1, 1, 1, 1], [5, 11, 11, 10, 5, 3, 2, 0], [33, 11, 7, 16, 3, 5, 1, 1],
    [3, 7, 7, 5, 3, 3, 3, 1], [1, 5, 7, 3, 1, 1, 1, 3], [8, 26, 5, 65, 3, 3, 2, 3], [64, 40, 56, 31, 3, 3, 1, 1],
    [300, 9, 9, 40, 3, 3, 1, 1],
];

fn convs() -> impl Iterator<Item = ConvShape> {
    CONVS.iter().map(|&[c, h, w, o, kh, kw, stride, pad]| ConvShape { c, h, w, o, kh, kw, stride, pad })
}

/// Calls `f(x index, w index, y index)` for every product of one image, x and y NHWC, w OIHW.
fn products(s: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    for (p, q) in (0..s.oh()).flat_map(|p| (0..s.ow()).map(move |q| (p, q))) {
        for (i, j) in (0..s.kh).flat_map(|i| (0..s.kw).map(move |j| (i, j))) {
            let (Some(y), Some(x)) = ((p * s.stride + i).checked_sub(s.pad), (q * s.stride + j).checked_sub(s.pad))
            else {
                continue;
            };
            if y >= s.h || x >= s.w {
                continue;
            }
            for (o, c) in (0..s.o).flat_map(|o| (0..s.c).map(move |c| (o, c))) {
                f((y * s.w + x) * s.c + c, ((o * s.c + c) * s.kh + i) * s.kw + j, (p * s.ow() + q) * s.o + o);
            }
        }
    }
}

#[test]
fn convolutions_and_both_gradients_equal_the_naive_sums() {
    for s in convs() {
        let rows = if s.flops() > 20_000_000 { 1 } else { 3 };
        let (x, w) = (values(rows * s.x_len(), 1), values(s.w_len(), 2));
        let (bias, gy) = (values(s.o, 3), values(rows * s.y_len(), 4));
        let mut y = vec![Exact::default(); gy.len()];
        let mut gx = vec![Exact::default(); x.len()];
        let mut dw = vec![Exact::default(); w.len()];
        for r in 0..rows {
            let (x0, y0) = (r * s.x_len(), r * s.y_len());
            products(&s, |xi, wi, yi| {
                let (xv, wv, gv) = (f64::from(x[x0 + xi]), f64::from(w[wi]), f64::from(gy[y0 + yi]));
                y[y0 + yi].add(xv * wv);
                gx[x0 + xi].add(gv * wv);
                dw[wi].add(gv * xv);
            });
        }
        let mut active = y.clone();
        for (i, v) in active.iter_mut().enumerate() {
            v.add(f64::from(bias[i % s.o]));
            v.sum = v.sum.max(0.0);
        }
        for isa in Isa::available() {
            let name = |what: &str| format!("{what} {s:?} {isa:?}");
            let taps = s.kh * s.kw;
            let packed = conv::pack_forward(isa, &s, &w);
            let unpacked = (0..w.len()).map(|i| packed.weight(i / taps / s.c, i % taps, i / taps % s.c));
            assert!(unpacked.eq(w.iter().copied()), "{}", name("unpacked weights"));
            let mut got = vec![f32::NAN; gy.len()];
            conv::forward(&s, rows, &x, &packed, None, Activation::None, &mut got);
            check(&name("forward"), &got, &y, s.c * taps);
            conv::forward(&s, rows, &x, &packed, Some(&bias), Activation::Relu, &mut got);
            check(&name("forward + bias + relu"), &got, &active, s.c * taps + 1);
            let packed = conv::pack_grad_input(isa, &s, &w);
            let mut got = vec![f32::NAN; x.len()];
            conv::grad_input(&s, rows, &gy, &packed, &mut got);
            check(&name("grad_input"), &got, &gx, s.o * taps);
            let mut got = vec![f32::NAN; w.len()];
            conv_weight::grad_weight(isa, &s, rows, &x, &gy, &mut got);
            check(&name("grad_weight"), &got, &dw, rows * s.oh() * s.ow());
        }
    }
}

fn pools() -> Vec<rayon::ThreadPool> {
    [1, 2, 3].iter().map(|n| rayon::ThreadPoolBuilder::new().num_threads(*n).build().unwrap()).collect()
}

#[test]
fn an_image_has_the_same_bits_in_any_batch_at_any_place_on_any_number_of_threads() {
    let pools = pools();
    for s in convs().filter(|s| s.flops() < 20_000_000) {
        let full = 9;
        let (x, w, gy) = (values(full * s.x_len(), 5), values(s.w_len(), 6), values(full * s.y_len(), 7));
        for isa in Isa::available() {
            let packed = conv::pack_forward(isa, &s, &w);
            let back = conv::pack_grad_input(isa, &s, &w);
            let run = |first: usize, rows: usize| {
                let (mut y, mut gx) = (vec![f32::NAN; rows * s.y_len()], vec![f32::NAN; rows * s.x_len()]);
                let x = &x[first * s.x_len()..][..rows * s.x_len()];
                conv::forward(&s, rows, x, &packed, None, Activation::None, &mut y);
                conv::grad_input(&s, rows, &gy[first * s.y_len()..][..rows * s.y_len()], &back, &mut gx);
                (y, gx)
            };
            let (y, gx) = pools[0].install(|| run(0, full));
            for pool in &pools {
                for (first, rows) in [(0, full), (0, 1), (1, 2), (2, 7), (8, 1)] {
                    let (part, part_gx) = pool.install(|| run(first, rows));
                    same_bits(&format!("{s:?} {isa:?} {rows}"), &part, &y[first * s.y_len()..][..rows * s.y_len()]);
                    same_bits(
                        &format!("gx {s:?} {isa:?} {rows}"),
                        &part_gx,
                        &gx[first * s.x_len()..][..rows * s.x_len()],
                    );
                }
            }
        }
    }
}

#[test]
fn weight_and_bias_gradients_have_the_same_bits_on_any_number_of_threads() {
    let pools = pools();
    for s in convs() {
        let rows = if s.flops() > 20_000_000 { 2 } else { 40 };
        let (x, gy) = (values(rows * s.x_len(), 8), values(rows * s.y_len(), 9));
        for isa in Isa::available() {
            let run = || {
                let (mut dw, mut db) = (vec![f32::NAN; s.w_len()], vec![f32::NAN; s.o]);
                conv_weight::grad_weight(isa, &s, rows, &x, &gy, &mut dw);
                conv_weight::grad_bias(isa, rows * s.oh() * s.ow(), &gy, &mut db);
                (dw, db)
            };
            let (dw, db) = pools[0].install(run);
            for pool in &pools[1..] {
                let (other_dw, other_db) = pool.install(run);
                same_bits(&format!("dw {s:?} {isa:?}"), &other_dw, &dw);
                same_bits(&format!("db {s:?} {isa:?}"), &other_db, &db);
            }
        }
    }
}

#[test]
fn the_bias_gradient_is_the_exact_sum_rounded_once() {
    for (pixels, o) in [(1, 1), (7, 5), (2500, 33), (100_000, 3)] {
        let gy = values(pixels * o, 10);
        for isa in Isa::available() {
            let mut db = vec![f32::NAN; o];
            conv_weight::grad_bias(isa, pixels, &gy, &mut db);
            for (c, db) in db.iter().enumerate() {
                let want: f64 = (0..pixels).map(|p| f64::from(gy[p * o + c])).sum();
                let diff = (f64::from(*db) - want).abs();
                assert!(diff <= f64::from(f32::EPSILON) * want.abs() + 1e-9, "{db} against {want}");
            }
        }
    }
}

#[test]
fn a_nan_in_an_input_reaches_exactly_the_outputs_whose_windows_hold_it() {
    for s in convs().filter(|s| s.flops() < 20_000_000) {
        let (w, at) = (values(s.w_len(), 11), s.x_len() / 2);
        let mut x = values(s.x_len(), 12);
        x[at] = f32::NAN;
        let mut reached = vec![false; s.y_len()];
        products(&s, |xi, _, yi| reached[yi] |= xi == at);
        let mut gy = values(s.y_len(), 13);
        let planted = s.y_len() / 2;
        gy[planted] = f32::NAN;
        let (mut reached_gx, mut reached_dw) = (vec![false; s.x_len()], vec![false; s.w_len()]);
        products(&s, |xi, wi, yi| {
            reached_gx[xi] |= yi == planted;
            reached_dw[wi] |= yi == planted || xi == at;
        });
        for isa in Isa::available() {
            let mut y = vec![0.0; s.y_len()];
            let packed = conv::pack_forward(isa, &s, &w);
            conv::forward(&s, 1, &x, &packed, None, Activation::Relu, &mut y);
            assert!(y.iter().zip(&reached).all(|(y, reached)| y.is_nan() == *reached), "forward {s:?} {isa:?}");
            let mut gx = vec![0.0; s.x_len()];
            conv::grad_input(&s, 1, &gy, &conv::pack_grad_input(isa, &s, &w), &mut gx);
            assert!(gx.iter().zip(&reached_gx).all(|(g, reached)| g.is_nan() == *reached), "grad {s:?} {isa:?}");
            let mut dw = vec![0.0; s.w_len()];
            conv_weight::grad_weight(isa, &s, 1, &x, &gy, &mut dw);
            assert!(dw.iter().zip(&reached_dw).all(|(d, reached)| d.is_nan() || !reached), "dw {s:?} {isa:?}");
        }
    }
}

#[test]
fn linear_layers_and_their_gradients_equal_the_naive_sums() {
    let pools = pools();
    for (rows, i, o) in
        [(1, 1, 1), (1, 1600, 10), (3, 17, 33), (4, 600, 64), (7, 16, 5), (100, 64, 17), (33, 1500, 3), (300, 5, 100)]
    {
        let (x, w, b, gy) = (values(rows * i, 14), values(o * i, 15), values(o, 16), values(rows * o, 17));
        let mut y = vec![Exact::default(); rows * o];
        let mut gx = vec![Exact::default(); rows * i];
        let mut dw = vec![Exact::default(); o * i];
        for r in 0..rows {
            for (out, input) in (0..o).flat_map(|out| (0..i).map(move |input| (out, input))) {
                let (xv, wv, gv) =
                    (f64::from(x[r * i + input]), f64::from(w[out * i + input]), f64::from(gy[r * o + out]));
                y[r * o + out].add(xv * wv);
                gx[r * i + input].add(gv * wv);
                dw[out * i + input].add(gv * xv);
            }
        }
        y.iter_mut().enumerate().for_each(|(at, y)| y.add(f64::from(b[at % o])));
        for isa in Isa::available() {
            let layer = Layer { isa, outputs: o, inputs: i, w: &w };
            let run = |rows: usize| {
                let (mut y, mut gx) = (vec![f32::NAN; rows * o], vec![f32::NAN; rows * i]);
                let mut dw = vec![f32::NAN; o * i];
                linear::forward(layer, rows, &x[..rows * i], Some(&b), Activation::None, &mut y);
                linear::grad_input(layer, rows, &gy[..rows * o], &mut gx);
                linear::grad_weight(isa, rows, o, i, &x[..rows * i], &gy[..rows * o], &mut dw);
                (y, gx, dw)
            };
            let name = format!("linear {rows} x {i} -> {o} {isa:?}");
            let (got_y, got_gx, got_dw) = pools[0].install(|| run(rows));
            check(&name, &got_y, &y, i + 1);
            check(&name, &got_gx, &gx, o);
            check(&name, &got_dw, &dw, rows);
            for pool in &pools {
                let (other_y, other_gx, other_dw) = pool.install(|| run(rows));
                same_bits(&name, &other_y, &got_y);
                same_bits(&name, &other_gx, &got_gx);
                same_bits(&name, &other_dw, &got_dw);
                let (one_y, one_gx, _) = pool.install(|| run(1));
                same_bits(&name, &one_y, &got_y[..o]);
                same_bits(&name, &one_gx, &got_gx[..i]);
            }
        }
    }
}

/// (maximum, winning cell or None in pure padding) of each window, per channel; rules of `pool.rs`.
fn maxima(s: &PoolShape, x: &[f32]) -> Vec<(f32, usize)> {
    let mut out = vec![];
    for (p, q) in (0..s.oh()).flat_map(|p| (0..s.ow()).map(move |q| (p, q))) {
        for c in 0..s.c {
            let mut best: Option<(f32, usize)> = None;
            for (i, j) in (0..s.k).flat_map(|i| (0..s.k).map(move |j| (i, j))) {
                let (y, x_) = (p * s.stride + i, q * s.stride + j);
                if y < s.pad || x_ < s.pad || y - s.pad >= s.h || x_ - s.pad >= s.w {
                    continue;
                }
                let at = ((y - s.pad) * s.w + x_ - s.pad) * s.c + c;
                if best.is_none_or(|(max, _)| x[at] > max || x[at].is_nan()) {
                    best = Some((x[at], at));
                }
            }
            out.push(best.unwrap());
        }
    }
    out
}

#[test]
fn max_pooling_takes_the_first_maximum_and_gathers_its_gradient() {
    for [c, h, w, k, stride, pad] in [
        [16, 8, 8, 2, 2, 0],
        [5, 7, 7, 2, 2, 0],
        [33, 7, 9, 2, 2, 0],
        [1, 2, 2, 2, 2, 0],
        [3, 11, 11, 3, 2, 1],
        [17, 5, 7, 3, 1, 1],
        [64, 26, 26, 3, 3, 0],
        [2, 6, 6, 3, 2, 0],
    ] {
        let s = PoolShape { c, h, w, k, stride, pad };
        let (rows, x_len, y_len) = (2, h * w * c, s.oh() * s.ow() * c);
        let gy = values(rows * y_len, 19);
        // Ties everywhere (three values), a constant patch, -inf only, and one NaN.
        let ties: Vec<f32> = values(rows * x_len, 18).iter().map(|v| (v * 1.5).round()).collect();
        let mut nan = values(rows * x_len, 20);
        nan[x_len / 2] = f32::NAN;
        for x in [values(rows * x_len, 18), ties, vec![0.7; rows * x_len], vec![f32::NEG_INFINITY; rows * x_len], nan] {
            let mut want_gx = vec![0.0f32; rows * x_len];
            let mut want_y = vec![];
            for r in 0..rows {
                for (i, (max, at)) in maxima(&s, &x[r * x_len..][..x_len]).into_iter().enumerate() {
                    want_y.push(max);
                    want_gx[r * x_len + at] += gy[r * y_len + i];
                }
            }
            for isa in Isa::available() {
                let (mut y, mut gx) = (vec![f32::NAN; rows * y_len], vec![f32::NAN; rows * x_len]);
                pool::max_pool(isa, &s, rows, &x, &mut y, s.c);
                same_bits(&format!("max_pool {s:?} {isa:?}"), &y, &want_y);
                pool::max_pool_grad(isa, &s, rows, &x, &gy, &mut gx);
                same_bits(&format!("max_pool_grad {s:?} {isa:?}"), &gx, &want_gx);
            }
        }
    }
}

#[test]
fn the_global_average_and_its_gradient_are_means_over_pixels() {
    let (rows, pixels, c) = (3, 49, 37);
    let (x, gy) = (values(rows * pixels * c, 21), values(rows * c, 22));
    for isa in Isa::available() {
        let (mut y, mut gx) = (vec![f32::NAN; rows * c], vec![f32::NAN; rows * pixels * c]);
        pool::global_average(isa, rows, pixels, c, &x, &mut y);
        pool::global_average_grad(isa, rows, pixels, c, &gy, &mut gx);
        for (r, k) in (0..rows).flat_map(|r| (0..c).map(move |k| (r, k))) {
            let sum: f64 = (0..pixels).map(|p| f64::from(x[(r * pixels + p) * c + k])).sum();
            assert_eq!(y[r * c + k], (sum / pixels as f64) as f32);
            assert!((0..pixels).all(|p| gx[(r * pixels + p) * c + k] == gy[r * c + k] / pixels as f32));
        }
    }
}

#[test]
fn switched_off_channels_are_zero_and_the_updated_convolution_equals_that_of_the_masked_concepts() {
    for [k, h, w, o, kh, kw, pad] in
        [[16, 26, 26, 32, 3, 3, 1], [5, 7, 5, 33, 3, 5, 1], [3, 11, 11, 10, 5, 5, 0], [17, 7, 7, 16, 1, 1, 0]]
    {
        let d = DecoderShape { k, h, w, o, kh, kw, pad };
        let s = ConvShape { c: k, h, w, o, kh, kw, stride: 1, pad };
        let images = 3;
        // Half of the cells are zero, as after ReLU, and the first channel is silent.
        let mut z: Vec<f32> = values(images * s.x_len(), 23).iter().map(|v| v.max(0.0)).collect();
        z.iter_mut().step_by(k).for_each(|z| *z = 0.0);
        let (weights, bias) = (values(s.w_len(), 24), values(o, 25));
        let mut keep = vec![1u8; 4 * k];
        keep[k] = 0; // mask 1: the silent channel
        keep[2 * k + k / 2] = 0; // mask 2: one channel
        keep[3 * k..].fill(0); // mask 3: all
        let (rows_images, masks) = ([0, 2, 1, 1, 2, 0], [0, 1, 2, 3, 3, 2]);
        let rows = Rows { images: &rows_images, masks: &masks };
        for isa in Isa::available() {
            let packed = conv::pack_forward(isa, &s, &weights);
            let channels = pack_channels(isa, &d, &weights);
            let mut pre = vec![f32::NAN; images * s.y_len()];
            conv::forward(&s, images, &z, &packed, Some(&bias), Activation::None, &mut pre);
            let mut masked = vec![f32::NAN; 6 * s.x_len()];
            mask_channels(isa, h * w, k, &z, &keep, rows, &mut masked);
            let mut out = vec![f32::NAN; 6 * s.y_len()];
            intervene_conv(&d, &z, &pre, &channels, &keep, rows, Activation::None, &mut out);
            for r in 0..6 {
                let (image, mask) = (rows_images[r] as usize, masks[r] as usize);
                let (x, y) = (&masked[r * s.x_len()..][..s.x_len()], &out[r * s.y_len()..][..s.y_len()]);
                for (i, x) in x.iter().enumerate() {
                    let want = if keep[mask * k + i % k] == 0 { 0.0 } else { z[image * s.x_len() + i] };
                    assert_eq!(x.to_bits(), want.to_bits());
                }
                let mut want = vec![Exact::default(); s.y_len()];
                let mut touched = vec![false; s.y_len()];
                want.iter_mut().enumerate().for_each(|(i, v)| v.add(f64::from(bias[i % o])));
                products(&s, |xi, wi, yi| {
                    let full = f64::from(z[image * s.x_len() + xi]) * f64::from(weights[wi]);
                    want[yi].sum += f64::from(x[xi]) * f64::from(weights[wi]);
                    // Subtracted terms were first added: both count.
                    want[yi].size += 2.0 * full.abs();
                    touched[yi] |= keep[mask * k + xi % k] == 0 && z[image * s.x_len() + xi] != 0.0;
                });
                check(&format!("{d:?} {isa:?} row {r}"), y, &want, 2 * k * kh * kw);
                let pre = &pre[image * s.y_len()..][..s.y_len()];
                for ((y, pre), touched) in y.iter().zip(pre).zip(&touched) {
                    assert!(*touched || y.to_bits() == pre.to_bits());
                }
                assert!(mask > 1 || touched.iter().all(|touched| !touched));
            }
            let mut active = vec![f32::NAN; out.len()];
            intervene_conv(&d, &z, &pre, &channels, &keep, rows, Activation::Relu, &mut active);
            assert!(active.iter().zip(&out).all(|(a, y)| *a == y.max(0.0)));
            let mut planted = z.clone();
            planted[s.x_len() + k / 2] = f32::NAN;
            intervene_conv(&d, &planted, &pre, &channels, &keep, rows, Activation::Relu, &mut active);
            let nan = |r: usize| active[r * s.y_len()..][..s.y_len()].iter().any(|v| v.is_nan());
            assert!(nan(2) && nan(3) && !nan(0) && !nan(5), "a switched-off NaN is subtracted, others are not read");
        }
    }
}
