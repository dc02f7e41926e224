//! Every tile against loops in f64, at sizes of real layers and at odd ones. The device is the environment's, simulated or real.

mod tensor;
mod winograd;

use super::*;
use crate::random::Stream;
use cudarc::driver::CudaSlice;

/// A packed weight in memory of its own.
struct Owned {
    data: CudaSlice<f32>,
    layout: Layout,
}

impl Queue {
    fn pack(&self, s: &ConvShape, layout: Layout, w: &[f32]) -> Owned {
        let mut data = self.unwritten(packed_len(s, layout));
        let packed = PackedMut { floats: self.floats_mut(&mut data), layout };
        pack(self, s, self.floats(&self.upload(w)), packed).unwrap();
        Owned { data, layout }
    }

    fn packed<'a>(&self, owned: &'a Owned) -> Packed<'a> {
        Packed { floats: self.floats(&owned.data), layout: owned.layout }
    }
}

/// `n` numbers in [-1, 1).
fn random(name: &str, n: usize) -> Vec<f32> {
    let stream = Stream::new(20_190_922, name);
    (0..n as u32).map(|i| 2.0 * stream.uniform(0, i) - 1.0).collect()
}

fn conv([c, h, w]: [usize; 3], o: usize, [kh, kw]: [usize; 2], stride: usize, pad: usize) -> ConvShape {
    ConvShape { c, h, w, o, kh, kw, stride, pad }
}

fn linear(c: usize, o: usize) -> ConvShape {
    conv([c, 1, 1], o, [1, 1], 1, 0)
}

/// Layers of the Fashion network, of its autoencoder, of VGG and DenseNet at reduced width, and odd ones; with rows.
fn layers() -> Vec<(ConvShape, usize)> {
    vec![
        (conv([1, 28, 28], 32, [3, 3], 1, 0), 2),
        (conv([32, 13, 13], 64, [3, 3], 1, 0), 3),
        (linear(1600, 256), 9),
        (linear(256, 10), 40),
        (conv([32, 26, 26], 32, [3, 3], 1, 1), 1),
        (conv([32, 26, 26], 16, [1, 1], 1, 0), 1),
        (conv([16, 26, 26], 32, [3, 3], 1, 1), 1),
        (conv([64, 20, 20], 64, [3, 3], 1, 1), 1),
        (conv([3, 32, 32], 64, [7, 7], 2, 3), 1),
        (conv([128, 14, 14], 32, [1, 1], 1, 0), 2),
        (conv([128, 7, 7], 32, [3, 3], 1, 1), 2),
        (conv([64, 8, 8], 68, [3, 3], 2, 1), 3),
        (conv([4, 9, 7], 12, [3, 5], 3, 2), 5),
        (conv([8, 7, 6], 5, [1, 1], 2, 0), 3),
        (conv([5, 6, 9], 4, [2, 3], 4, 0), 3),
        (conv([33, 5, 4], 17, [5, 5], 1, 2), 4),
        (conv([3, 6, 6], 65, [3, 3], 1, 4), 4),
        (linear(300, 65), 33),
        (linear(17, 3), 5),
    ]
}

/// All (row, output position, tap) with the cells that meet: (output, input, tap) indices of positions.
fn meetings(s: &ConvShape, rows: usize, mut f: impl FnMut(usize, usize, usize)) {
    for (n, p, q) in (0..rows * s.oh() * s.ow()).map(|m| (m / (s.oh() * s.ow()), m / s.ow() % s.oh(), m % s.ow())) {
        for (r, t) in (0..s.kh * s.kw).map(|tap| (tap / s.kw, tap % s.kw)) {
            let (i, j) = ((p * s.stride + r).wrapping_sub(s.pad), (q * s.stride + t).wrapping_sub(s.pad));
            if i < s.h && j < s.w {
                f((n * s.oh() + p) * s.ow() + q, (n * s.h + i) * s.w + j, r * s.kw + t);
            }
        }
    }
}

fn reference_forward(s: &ConvShape, rows: usize, x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f64> {
    let mut y: Vec<f64> = bias.iter().map(|&b| f64::from(b)).cycle().take(rows * s.y_len()).collect();
    meetings(s, rows, |to, from, tap| {
        for o in 0..s.o {
            let weights = w[o * s.c * s.kh * s.kw + tap..].iter().step_by(s.kh * s.kw);
            let products = x[from * s.c..][..s.c].iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w));
            y[to * s.o + o] += products.sum::<f64>();
        }
    });
    y
}

fn reference_grad_input(s: &ConvShape, rows: usize, gy: &[f32], w: &[f32]) -> Vec<f64> {
    let mut gx = vec![0.0; rows * s.x_len()];
    meetings(s, rows, |from, to, tap| {
        for (o, g) in gy[from * s.o..][..s.o].iter().enumerate() {
            let weights = w[o * s.c * s.kh * s.kw + tap..].iter().step_by(s.kh * s.kw);
            for (gx, w) in gx[to * s.c..][..s.c].iter_mut().zip(weights) {
                *gx += f64::from(*g) * f64::from(*w);
            }
        }
    });
    gx
}

fn reference_grad_weight(s: &ConvShape, rows: usize, x: &[f32], gy: &[f32]) -> Vec<f64> {
    let mut gw = vec![0.0; s.w_len()];
    meetings(s, rows, |g, from, tap| {
        for (o, g) in gy[g * s.o..][..s.o].iter().enumerate() {
            for (c, x) in x[from * s.c..][..s.c].iter().enumerate() {
                gw[(o * s.c + c) * s.kh * s.kw + tap] += f64::from(*g) * f64::from(*x);
            }
        }
    });
    gw
}

/// Sums of k products of numbers in [-1, 1): rounding errors walk at random.
fn close(what: &str, got: &[f32], want: &[f64], k: usize) {
    let magnitude = want.iter().fold((k as f64).sqrt() / 3.0, |m, w| m.max(w.abs()));
    let allowed = 4.0 * (k as f64).sqrt() * f64::from(f32::EPSILON) * magnitude;
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&g, w)) in got.iter().zip(want).enumerate() {
        let difference = (f64::from(g) - w).abs();
        assert!(difference <= allowed, "{what}: {g} for {w} at {i}, off by {difference:.3e}, {allowed:.3e} allowed");
    }
}

fn run_forward(q: &Queue, s: &ConvShape, rows: usize, x: &[f32], packed: &Owned, bias: &[f32]) -> Vec<f32> {
    let mut y = q.unwritten(rows * s.y_len());
    let (x, bias) = (q.upload(x), q.upload(bias));
    let (x, bias, none) = (q.floats(&x), Some(q.floats(&bias)), Activation::None);
    forward(q, s, rows, x, q.packed(packed), bias, none, q.floats_mut(&mut y)).unwrap();
    q.download(&y)
}

fn run_grad_input(q: &Queue, s: &ConvShape, rows: usize, gy: &[f32], packed: &Owned) -> Vec<f32> {
    let mut gx = q.unwritten(rows * s.x_len());
    grad_input(q, s, rows, q.floats(&q.upload(gy)), q.packed(packed), q.floats_mut(&mut gx)).unwrap();
    q.download(&gx)
}

#[test]
fn forward_agrees_with_a_loop_and_rows_do_not_hear_of_each_other() {
    let q = Queue::for_tests();
    for (s, rows) in layers() {
        let what = format!("{s:?}");
        let (x, w) = (random(&what, rows * s.x_len()), random("w", s.w_len()));
        let bias = random("bias", s.o);
        let packed = q.pack(&s, Layout::exact(Order::Forward), &w);
        let y = run_forward(&q, &s, rows, &x, &packed, &bias);
        close(&what, &y, &reference_forward(&s, rows, &x, &w, &bias), s.c * s.kh * s.kw + 1);
        let last = run_forward(&q, &s, 1, &x[(rows - 1) * s.x_len()..], &packed, &bias);
        assert!(last.iter().zip(&y[(rows - 1) * s.y_len()..]).all(|(a, b)| a.to_bits() == b.to_bits()), "{what}");
    }
}

#[test]
fn grad_input_agrees_with_a_loop_and_rows_do_not_hear_of_each_other() {
    let q = Queue::for_tests();
    for (s, rows) in layers() {
        let what = format!("{s:?}");
        let (gy, w) = (random(&what, rows * s.y_len()), random("w", s.w_len()));
        let packed = q.pack(&s, Layout::exact(Order::GradInput), &w);
        let gx = run_grad_input(&q, &s, rows, &gy, &packed);
        close(&what, &gx, &reference_grad_input(&s, rows, &gy, &w), s.o * s.kh * s.kw);
        let last = run_grad_input(&q, &s, 1, &gy[(rows - 1) * s.y_len()..], &packed);
        assert!(last.iter().zip(&gx[(rows - 1) * s.x_len()..]).all(|(a, b)| a.to_bits() == b.to_bits()), "{what}");
    }
}

/// What a thread, or the `groups` of a deep tile, make of a sum's terms: one chain of fused multiply-adds of up to 576 a
/// thread (whole tiles are counted), or else pieces of 192, each a chain, added in order.
fn in_pieces([depth, groups]: [usize; 2], bias: f32, x: &[f32], w: &[f32]) -> f32 {
    let slice = depth / groups;
    let piece = if x.len().next_multiple_of(depth) <= 576 * groups { 576 * groups } else { 192 * groups };
    let chain = |first: bool, group: usize, x: &[f32], w: &[f32]| {
        let terms = x.iter().zip(w).enumerate().filter(|(k, _)| k % depth / slice == group);
        terms.fold(if first && group == 0 { bias } else { 0.0 }, |sum, (_, (x, w))| x.mul_add(*w, sum))
    };
    let pieces = x.chunks(piece).zip(w.chunks(piece)).enumerate().map(|(number, (x, w))| {
        let of_group = |group| chain(number == 0, group, x, w);
        (1..groups).fold(of_group(0), |sum, group| sum + of_group(group))
    });
    pieces.reduce(|before, piece| piece + before).unwrap_or(bias)
}

#[test]
fn a_long_sum_is_the_sum_of_its_pieces_in_order() {
    let q = Queue::for_tests();
    let (sheet, deep) = ([16, 1], [64, 8]);
    for (s, rows, tile) in [
        (conv([1300, 9, 9], 33, [1, 1], 1, 0), 1, sheet),
        (conv([1153, 9, 9], 34, [1, 1], 1, 0), 1, sheet),
        (conv([576, 9, 9], 32, [1, 1], 1, 0), 1, sheet),
        (conv([577, 9, 9], 32, [1, 1], 1, 0), 1, sheet),
        (conv([580, 9, 9], 30, [1, 1], 1, 0), 2, sheet),
        (conv([580, 17, 9], 4, [1, 1], 1, 0), 2, sheet),
        (conv([579, 9, 9], 3, [1, 1], 1, 0), 1, sheet),
        (linear(4608, 9), 5, deep),
        (linear(9300, 9), 5, deep),
        (linear(4611, 8), 2, deep),
    ] {
        let what = format!("{s:?}");
        let (x, w, bias) = (random(&what, rows * s.x_len()), random("w", s.w_len()), random("bias", s.o));
        let packed = q.pack(&s, Layout::exact(Order::Forward), &w);
        let mut y = q.unwritten(rows * s.y_len());
        let (dx, dbias) = (q.upload(&x), q.upload(&bias));
        let (weight, bias_there, to) = (q.packed(&packed), Some(q.floats(&dbias)), q.floats_mut(&mut y));
        forward(&q, &s, rows, q.floats(&dx), weight, bias_there, Activation::Relu, to).unwrap();
        for (i, y) in q.download(&y).into_iter().enumerate() {
            let (at, o) = (i / s.o, i % s.o);
            let want = in_pieces(tile, bias[o], &x[at * s.c..][..s.c], &w[o * s.c..][..s.c]).max(0.0);
            assert_eq!(y, want, "{what}: {i}");
        }
    }
}

fn run_grad_weight(q: &Queue, precision: Precision, s: &ConvShape, rows: usize, x: &[f32], gy: &[f32]) -> Vec<f32> {
    let mut workspace = q.unwritten(grad_weight_workspace(s, rows));
    let mut gw = q.unwritten(s.w_len());
    let (x, gy) = (q.upload(x), q.upload(gy));
    let (work, out) = (q.floats_mut(&mut workspace), q.floats_mut(&mut gw));
    grad_weight(q, precision, s, rows, q.floats(&x), q.floats(&gy), work, out).unwrap();
    q.download(&gw)
}

#[test]
fn grad_weight_agrees_with_a_loop() {
    let q = Queue::for_tests();
    for (s, rows) in layers() {
        let what = format!("{s:?}");
        let (x, gy) = (random(&what, rows * s.x_len()), random("gy", rows * s.y_len()));
        let want = reference_grad_weight(&s, rows, &x, &gy);
        close(&what, &run_grad_weight(&q, Precision::Fp32, &s, rows, &x, &gy), &want, rows * s.oh() * s.ow());
    }
}

/// Windows of channels in wider pixels, a scale and shift and ReLU before the padding, and a ReLU behind.
#[test]
fn a_prologue_comes_before_the_padding_and_windows_leave_their_neighbours_alone() {
    let q = Queue::for_tests();
    for (s, rows, [before, behind]) in [
        (conv([32, 9, 9], 32, [3, 3], 1, 1), 2, [8, 4]),
        (conv([64, 9, 9], 128, [1, 1], 1, 0), 2, [0, 64]),
        (conv([64, 5, 6], 20, [3, 3], 1, 2), 3, [4, 0]),
        (conv([8, 9, 9], 7, [3, 3], 2, 1), 3, [12, 4]),
        (conv([72, 9, 9], 36, [3, 3], 1, 1), 1, [4, 8]),
        (conv([1160, 9, 9], 7, [1, 1], 1, 0), 1, [4, 8]),
        (conv([4612, 1, 1], 12, [1, 1], 1, 0), 3, [4, 0]),
    ] {
        let what = format!("{s:?}");
        let (wide_x, wide_y) = (before + s.c + behind, before + s.o + behind);
        let (x, w) = (random(&what, rows * s.h * s.w * wide_x), random("w", s.w_len()));
        let (bias, scale, shift) = (random("bias", s.o), random("scale", s.c), random("shift", s.c));
        let y = random("y", rows * s.oh() * s.ow() * wide_y);
        let packed = q.pack(&s, Layout::exact(Order::Forward), &w);
        let (dx, dbias, dscale, dshift) = (q.upload(&x), q.upload(&bias), q.upload(&scale), q.upload(&shift));
        let mut dy = q.upload(&y);
        // from the first channel of the first pixel's window to the last of the last one's
        let window = |pointer: u64, len: usize| (pointer + 4 * before as u64, len - before - behind);
        let (pointer, len) = window(q.floats(&dx).pointer(), dx.len());
        let source = Floats { pointer, len, life: std::marker::PhantomData };
        let len = dy.len();
        let (pointer, len) = window(q.floats_mut(&mut dy).pointer(), len);
        let target = FloatsMut { pointer, len, life: std::marker::PhantomData };
        let prologue = Prologue { scale: q.floats(&dscale), shift: q.floats(&dshift) };
        forward_with_prologue(
            &q,
            &s,
            rows,
            Pixels { floats: source, pixel: wide_x },
            Some(prologue),
            q.packed(&packed),
            Some(q.floats(&dbias)),
            Activation::Relu,
            Pixels { floats: target, pixel: wide_y },
        )
        .unwrap();

        let seen: Vec<f32> = x
            .chunks_exact(wide_x)
            .flat_map(|pixel| pixel[before..][..s.c].iter().zip(&scale).zip(&shift))
            .map(|((x, scale), shift)| x.mul_add(*scale, *shift).max(0.0))
            .collect();
        let want = reference_forward(&s, rows, &seen, &w, &bias);
        let got = q.download(&dy);
        let inner: Vec<f32> = got.chunks_exact(wide_y).flat_map(|pixel| &pixel[before..][..s.o]).copied().collect();
        let relu: Vec<f64> = want.iter().map(|w| w.max(0.0)).collect();
        close(&what, &inner, &relu, s.c * s.kh * s.kw + 1);
        for (i, (got, was)) in got.iter().zip(&y).enumerate() {
            let outside = !(before..before + s.o).contains(&(i % wide_y));
            assert!(!outside || got == was, "{what}: the neighbours of a window changed at {i}");
        }
    }
}

#[test]
fn a_nan_passes_the_relu_in_front_and_behind() {
    let q = Queue::for_tests();
    let s = conv([8, 5, 5], 8, [3, 3], 1, 1);
    let mut x = random("x", s.x_len());
    x[(2 * 5 + 2) * 8 + 3] = f32::NAN;
    let packed = q.pack(&s, Layout::exact(Order::Forward), &random("w", s.w_len()));
    let (dx, scale, shift) = (q.upload(&x), q.upload(&[1.0; 8]), q.upload(&[0.5; 8]));
    let mut y = q.unwritten(s.y_len());
    let prologue = Prologue { scale: q.floats(&scale), shift: q.floats(&shift) };
    let (source, target) =
        (Pixels { floats: q.floats(&dx), pixel: 8 }, Pixels { floats: q.floats_mut(&mut y), pixel: 8 });
    let (weight, relu) = (q.packed(&packed), Activation::Relu);
    forward_with_prologue(&q, &s, 1, source, Some(prologue), weight, None, relu, target).unwrap();
    for (i, y) in q.download(&y).iter().enumerate() {
        let reached = (1..4).contains(&(i / 8 / 5)) && (1..4).contains(&(i / 8 % 5));
        assert_eq!(y.is_nan(), reached, "{i}");
    }
}

#[test]
fn the_workspace_of_more_rows_is_enough_for_fewer() {
    for (s, _) in layers() {
        let needed: Vec<usize> = (1..200).map(|rows| Division::new(&s, rows).parts).collect();
        for (i, parts) in needed.iter().enumerate() {
            let room = grad_weight_workspace(&s, i + 1);
            let direct = *parts == 1 && s.kh * s.kw == 1;
            assert!(direct || parts * s.w_len() <= room, "{s:?}");
            assert!(i == 0 || grad_weight_workspace(&s, i) <= room, "{s:?}");
            assert!(*parts <= 64, "{s:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_launched() {
    let q = Queue::for_tests();
    let s = conv([4, 5, 5], 8, [3, 3], 1, 1);
    let (x, packed) =
        (q.upload(&random("x", s.x_len())), q.pack(&s, Layout::exact(Order::Forward), &random("w", s.w_len())));
    let mut y = q.unwritten(2 * s.y_len());
    let short = Packed { floats: q.floats(&packed.data).first(8), ..q.packed(&packed) };
    let turned = Packed { layout: Layout::exact(Order::GradInput), ..q.packed(&packed) };
    for (rows, weight) in [(2, q.packed(&packed)), (1, short), (1, turned)] {
        let y = q.floats_mut(&mut y).first(rows * s.y_len());
        let refused = forward(&q, &s, rows, q.floats(&x), weight, None, Activation::None, y).unwrap_err();
        assert!(matches!(refused, BackendError::Device { .. }), "{refused}");
    }
    assert!(Tile::Thin.kernel(true, true).is_none());
}
