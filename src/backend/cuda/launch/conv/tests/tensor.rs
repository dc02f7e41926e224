//! Tensor cores against loops in f64: once on the operands as they are, where rounding them is the error, and once on rounded
//! operands, where only the sums are left, so that one element in a wrong place shows.

use super::*;

const REDUCED: [Precision; 3] = [Precision::Tf32, Precision::Fp16, Precision::Bf16];

/// Layers that fit: every tile, every K from one step to many tiles, taps within a tile, strides, and ends that are no tile's.
fn layers() -> Vec<(ConvShape, usize)> {
    vec![
        (conv([64, 20, 20], 64, [3, 3], 1, 1), 1),
        (conv([32, 26, 26], 32, [3, 3], 1, 1), 1),
        (conv([128, 14, 14], 32, [1, 1], 1, 0), 2),
        (conv([32, 13, 13], 128, [3, 3], 1, 0), 2),
        (conv([16, 5, 7], 200, [3, 3], 1, 1), 3),
        (linear(1600, 256), 9),
        (linear(1600, 256), 2),
        (linear(300, 65), 33),
        (linear(16, 17), 3),
        (conv([4, 32, 32], 64, [7, 7], 2, 3), 1),
        (conv([32, 9, 7], 33, [3, 5], 3, 2), 5),
        (conv([20, 7, 9], 17, [3, 3], 1, 2), 3),
        (conv([36, 6, 9], 20, [2, 3], 4, 0), 3),
        (conv([16, 4, 4], 40, [5, 5], 2, 2), 4),
    ]
}

/// The device, where it has tensor cores. On an older one every reduced precision is refused with what to do.
fn queue() -> Option<Queue> {
    match Queue::with_tensor_cores() {
        Ok(q) => Some(q),
        Err(BackendError::Unavailable { reason, hint, .. }) => {
            assert!(reason.contains("sm_75") && hint.contains("fp32"), "{reason}; {hint}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// To `bits` of significand. At a tie the last bit becomes 0, or (`away`) the magnitude greater.
fn rounded(x: f32, bits: u32, away: bool) -> f32 {
    let cut = 24 - bits;
    let half = 1 << (cut - 1);
    let add = if away { half } else { half - 1 + (x.to_bits() >> cut & 1) };
    f32::from_bits((x.to_bits() + add) >> cut << cut)
}

/// As the format of an operand has it. The numbers here are far from the ends of the formats' ranges, but for f16's small ones.
fn in_format(format: mma::Format, x: f32) -> f32 {
    match format {
        mma::Format::Tf32 => rounded(x, 11, true),
        mma::Format::Bf16 => rounded(x, 8, false),
        // below its normal numbers f16 has a fixed spacing
        mma::Format::F16 if x.abs() < 2f32.powi(-14) => (x * 2f32.powi(24)).round_ties_even() * 2f32.powi(-24),
        mma::Format::F16 => rounded(x, 11, false),
    }
}

/// Unit roundoff: half a spacing, relative.
fn unit(format: mma::Format) -> f64 {
    match format {
        mma::Format::Tf32 | mma::Format::F16 => 2f64.powi(-11),
        mma::Format::Bf16 => 2f64.powi(-8),
    }
}

/// Rounded operands: a product is off by at most 2u of itself, of rms u · sqrt(2/3) / 3 for factors uniform in [-1, 1) (both
/// errors uniform in a spacing), so that k of them walk to u · sqrt(k) · 0.27; five times that covers some 10^6 elements.
fn close_to_unrounded(what: &str, got: &[f32], want: &[f64], k: usize, unit: f64) {
    let allowed = 5.0 * 0.27 * unit * (k as f64).sqrt() + 4.0 * (k as f64).sqrt() * f64::from(f32::EPSILON);
    for (i, (&g, w)) in got.iter().zip(want).enumerate() {
        let difference = (f64::from(g) - w).abs();
        assert!(difference <= allowed, "{what}: {g} for {w} at {i}, off by {difference:.3e}, {allowed:.3e} allowed");
    }
}

fn all_rounded(format: mma::Format, x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| in_format(format, x)).collect()
}

/// Every row alone, and a few counts between, have the bits that they have among `rows`.
fn rows_do_not_hear_of_each_other(what: &str, rows: usize, all: &[f32], run: impl Fn(usize, usize) -> Vec<f32>) {
    let row = all.len() / rows;
    for (first, count) in [(0, 1), (rows - 1, 1), (0, 2), (1, 7)] {
        if first + count <= rows {
            let part = run(first, count);
            let same = part.iter().zip(&all[first * row..]).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same && part.len() == count * row, "{what}: rows {first} to {}", first + count);
        }
    }
}

#[test]
fn forward_agrees_with_loops_over_operands_as_they_are_and_rounded() {
    let Some(q) = queue() else { return };
    for ((s, rows), precision) in layers().into_iter().flat_map(|l| REDUCED.map(|p| (l, p))) {
        let layout = Layout::new(&s, Order::Forward, precision);
        let what = format!("{s:?}, {rows} rows, {layout:?}");
        let format = layout.format.expect("fits");
        let (x, w) = (random(&what, rows * s.x_len()), random("w", s.w_len()));
        let bias = random("bias", s.o);
        let packed = q.pack(&s, layout, &w);
        let y = run_forward(&q, &s, rows, &x, &packed, &bias);
        let k = s.c * s.kh * s.kw + 1;
        let (rx, rw) = (all_rounded(format, &x), all_rounded(format, &w));
        close(&what, &y, &reference_forward(&s, rows, &rx, &rw, &bias), k);
        close_to_unrounded(&what, &y, &reference_forward(&s, rows, &x, &w, &bias), k, unit(format));
        rows_do_not_hear_of_each_other(&what, rows, &y, |first, n| {
            run_forward(&q, &s, n, &x[first * s.x_len()..][..n * s.x_len()], &packed, &bias)
        });
    }
}

#[test]
fn grad_input_agrees_with_loops_over_operands_as_they_are_and_rounded() {
    let Some(q) = queue() else { return };
    let mut seen = 0;
    for ((s, rows), precision) in layers().into_iter().flat_map(|l| REDUCED.map(|p| (l, p))) {
        let layout = Layout::new(&s, Order::GradInput, precision);
        let what = format!("{s:?}, {rows} rows, {layout:?}");
        // fewer than 16 inputs, or outputs that are no quads, stay in fp32
        let Some(format) = layout.format else { continue };
        assert!(format != mma::Format::F16, "the least gradients would vanish");
        seen += 1;
        let (gy, w) = (random(&what, rows * s.y_len()), random("w", s.w_len()));
        let packed = q.pack(&s, layout, &w);
        let gx = run_grad_input(&q, &s, rows, &gy, &packed);
        let k = s.o * s.kh * s.kw;
        let (rgy, rw) = (all_rounded(format, &gy), all_rounded(format, &w));
        close(&what, &gx, &reference_grad_input(&s, rows, &rgy, &rw), k);
        close_to_unrounded(&what, &gx, &reference_grad_input(&s, rows, &gy, &w), k, unit(format));
        rows_do_not_hear_of_each_other(&what, rows, &gx, |first, n| {
            run_grad_input(&q, &s, n, &gy[first * s.y_len()..][..n * s.y_len()], &packed)
        });
    }
    assert!(seen >= 24, "{seen} layers fit");
}

#[test]
fn grad_weight_agrees_with_loops_over_operands_as_they_are_and_rounded() {
    let Some(q) = queue() else { return };
    let mut seen = 0;
    for ((s, rows), precision) in layers().into_iter().flat_map(|l| REDUCED.map(|p| (l, p))) {
        let what = format!("{s:?}, {rows} rows, {precision:?}");
        let Some((kernel, _)) = mma::weight_kernel(precision, &s, WeightTile::new(&s)) else { continue };
        let bf16 = precision == Precision::Bf16;
        assert_eq!(kernel.ends_with("bf16"), bf16, "{what}");
        let format = if bf16 { mma::Format::Bf16 } else { mma::Format::Tf32 };
        seen += 1;
        let (x, gy) = (random(&what, rows * s.x_len()), random("gy", rows * s.y_len()));
        let gw = run_grad_weight(&q, precision, &s, rows, &x, &gy);
        let k = rows * s.oh() * s.ow();
        let (rx, rgy) = (all_rounded(format, &x), all_rounded(format, &gy));
        close(&what, &gw, &reference_grad_weight(&s, rows, &rx, &rgy), k);
        close_to_unrounded(&what, &gw, &reference_grad_weight(&s, rows, &x, &gy), k, unit(format));
        let again = run_grad_weight(&q, precision, &s, rows, &x, &gy);
        assert!(gw.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "{what}");
    }
    assert!(seen >= 21, "{seen} layers fit");
}

#[test]
fn which_layers_fit_follows_from_their_shape() {
    let fits = |s: &ConvShape, order| REDUCED.map(|p| Layout::new(s, order, p).format);
    let (tf32, f16, bf16) = (Some(mma::Format::Tf32), Some(mma::Format::F16), Some(mma::Format::Bf16));
    let s = conv([32, 13, 13], 64, [3, 3], 1, 0);
    assert_eq!(fits(&s, Order::Forward), [tf32, f16, bf16]);
    assert_eq!(fits(&s, Order::GradInput), [tf32, tf32, bf16]);
    for (s, order) in [
        (conv([3, 32, 32], 64, [7, 7], 2, 3), Order::Forward),
        (conv([1, 28, 28], 32, [3, 3], 1, 0), Order::Forward),
        (conv([1, 28, 28], 32, [3, 3], 1, 0), Order::GradInput),
        (linear(256, 10), Order::Forward),
        (linear(256, 10), Order::GradInput),
        (conv([33, 5, 5], 32, [3, 3], 1, 1), Order::Forward),
        (conv([4, 5, 5], 32, [1, 1], 1, 0), Order::Forward),
    ] {
        assert_eq!(fits(&s, order), [None; 3], "{s:?}, {order:?}");
        assert_eq!(Layout::new(&s, order, Precision::Fp32), Layout::exact(order));
    }
}

/// What nothing but a conversion decides: ties, f16's subnormal numbers and overflow, infinities, NaNs. A layer of one product
/// an output lays them bare, on the left and on the right.
#[test]
fn operands_are_rounded_to_nearest_on_both_sides() {
    let Some(q) = queue() else { return };
    let s = linear(16, 16);
    let up = f32::from_bits(0x3f80_1000); // 1 + 2^-11: a tie for tf32 and f16
    let odd = f32::from_bits(0x3f80_3000); // 1 + 3 · 2^-11: a tie whose lower neighbour is odd
    let values = [
        up,
        -up,
        odd,
        -odd,
        f32::from_bits(0x3f80_8000),
        f32::from_bits(0x3f81_8000),
        6e-8,
        1e-7,
        1e5,
        -1e5,
        f32::INFINITY,
        f32::NAN,
        0.0,
        -0.0,
    ];
    for precision in REDUCED {
        let layout = Layout::new(&s, Order::Forward, precision);
        let format = layout.format.expect("fits");
        for (at, &value) in values.iter().enumerate() {
            let mut want = f64::from(in_format(format, value));
            if format == mma::Format::F16 && value.abs() > 65504.0 {
                want = f64::from(value) * f64::INFINITY;
            }
            if !value.is_finite() {
                want = f64::from(value);
            }
            for left in [true, false] {
                // one row; input 5 and output 3 meet
                let (mut x, mut w) = (vec![0.0; 16], vec![0.0; 256]);
                (x[5], w[3 * 16 + 5]) = if left { (value, 1.0) } else { (1.0, value) };
                let y = run_forward(&q, &s, 1, &x, &q.pack(&s, layout, &w), &[0.0; 16]);
                let got = f64::from(y[3]);
                let same = got == want || got.is_nan() && want.is_nan();
                assert!(same, "{format:?}, value {at} ({value:e}), left {left}: {got:e} for {want:e}");
            }
        }
    }
}

#[test]
fn a_layer_that_writes_into_wider_pixels_leaves_their_other_channels_alone() {
    let Some(q) = queue() else { return };
    for (s, rows, [before, behind]) in [
        (conv([32, 9, 9], 32, [3, 3], 1, 1), 2, [8, 4]),
        (conv([64, 9, 9], 128, [1, 1], 1, 0), 2, [0, 64]),
        (conv([20, 9, 9], 17, [3, 3], 2, 1), 3, [12, 4]),
        (linear(256, 30), 5, [4, 8]),
    ] {
        let layout = Layout::new(&s, Order::Forward, Precision::Tf32);
        let what = format!("{s:?}");
        let (wide_x, wide_y) = ((before + s.c + behind).next_multiple_of(4), before + s.o + behind);
        let (x, w) = (random(&what, rows * s.h * s.w * wide_x), random("w", s.w_len()));
        let (bias, y) = (random("bias", s.o), random("y", rows * s.oh() * s.ow() * wide_y));
        let packed = q.pack(&s, layout, &w);
        let (dx, dbias, mut dy) = (q.upload(&x), q.upload(&bias), q.upload(&y));
        let source = Floats {
            pointer: q.floats(&dx).pointer() + 4 * before as u64,
            len: window_len(rows * s.h * s.w, s.c, wide_x),
            life: std::marker::PhantomData,
        };
        let target = FloatsMut {
            pointer: q.floats_mut(&mut dy).pointer() + 4 * before as u64,
            len: window_len(rows * s.oh() * s.ow(), s.o, wide_y),
            life: std::marker::PhantomData,
        };
        let (source, target) = (Pixels { floats: source, pixel: wide_x }, Pixels { floats: target, pixel: wide_y });
        let (bias_there, relu) = (Some(q.floats(&dbias)), Activation::Relu);
        forward_with_prologue(&q, &s, rows, source, None, q.packed(&packed), bias_there, relu, target).unwrap();
        let seen: Vec<f32> = x.chunks_exact(wide_x).flat_map(|pixel| &pixel[before..][..s.c]).copied().collect();
        let (seen, w) = (all_rounded(mma::Format::Tf32, &seen), all_rounded(mma::Format::Tf32, &w));
        let want: Vec<f64> = reference_forward(&s, rows, &seen, &w, &bias).iter().map(|w| w.max(0.0)).collect();
        let got = q.download(&dy);
        let inner: Vec<f32> = got.chunks_exact(wide_y).flat_map(|pixel| &pixel[before..][..s.o]).copied().collect();
        close(&what, &inner, &want, s.c * s.kh * s.kw + 1);
        for (i, (got, was)) in got.iter().zip(&y).enumerate() {
            let outside = !(before..before + s.o).contains(&(i % wide_y));
            assert!(!outside || got == was, "{what}: the neighbours of a window changed at {i}");
        }
    }
}

#[test]
fn a_weight_packed_for_tensor_cores_is_refused_where_a_prologue_is_wanted() {
    let Some(q) = queue() else { return };
    let s = conv([32, 5, 5], 32, [3, 3], 1, 1);
    let packed = q.pack(&s, Layout::new(&s, Order::Forward, Precision::Bf16), &random("w", s.w_len()));
    let (x, channels) = (q.upload(&random("x", s.x_len())), q.upload(&[1.0; 32]));
    let mut y = q.unwritten(s.y_len());
    let prologue = Prologue { scale: q.floats(&channels), shift: q.floats(&channels) };
    let (x, y) = (Pixels { floats: q.floats(&x), pixel: 32 }, Pixels { floats: q.floats_mut(&mut y), pixel: 32 });
    let none = Activation::None;
    let refused = forward_with_prologue(&q, &s, 1, x, Some(prologue), q.packed(&packed), None, none, y).unwrap_err();
    assert!(matches!(refused, BackendError::Device { .. }), "{refused}");
}
