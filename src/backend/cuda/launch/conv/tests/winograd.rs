//! Winograd's tiles against loops in f64: both sizes on every shape, ends that are no tile's, windows, chunks, and
//! weights that are too large for a sum in f32.

use super::*;
use crate::backend::winograd::Winograd;

/// Ragged images, every padding, channels in whole quads and not in whole tiles of K, outputs that are no tile's; with
/// rows.
fn layers() -> Vec<(ConvShape, usize)> {
    vec![
        (conv([4, 5, 7], 8, [3, 3], 1, 0), 5),
        (conv([4, 5, 7], 3, [3, 3], 1, 1), 4),
        (conv([12, 5, 7], 33, [3, 3], 1, 2), 3),
        (conv([20, 7, 7], 30, [3, 3], 1, 0), 2),
        (conv([36, 7, 7], 65, [3, 3], 1, 1), 2),
        (conv([16, 7, 7], 32, [3, 3], 1, 2), 5),
        (conv([8, 13, 13], 20, [3, 3], 1, 0), 3),
        (conv([32, 13, 13], 64, [3, 3], 1, 1), 1),
        (conv([4, 13, 13], 5, [3, 3], 1, 2), 1),
        (conv([28, 14, 14], 100, [3, 3], 1, 0), 1),
        (conv([64, 14, 14], 32, [3, 3], 1, 1), 2),
        (conv([4, 14, 14], 17, [3, 3], 1, 2), 1),
        // one output, one tile; and one row of them
        (conv([8, 3, 3], 4, [3, 3], 1, 0), 7),
        (conv([8, 1, 9], 4, [3, 3], 1, 1), 2),
    ]
}

/// Weights of the size that a training begins with and inputs behind a ReLU: half of them 0.
fn operands(s: &ConvShape, rows: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let scale = (2.0 / (9.0 * s.c as f32)).sqrt() * 3f32.sqrt();
    let x = random(&format!("{s:?}"), rows * s.x_len()).iter().map(|x| x.max(0.0)).collect();
    let w = random("w", s.w_len()).iter().map(|w| w * scale).collect();
    (x, w, random("bias", s.o))
}

/// Of the largest output. F(2x2) adds up to four inputs and outputs around a sum whose factors are 1 and 1/2: as a
/// plain sum, 2 to 9e-7 were seen over all layers of VGG and DenseNet. F(4x4) has factors from 1/6 to 2.8, which
/// amplify what the sum rounds: 1 to 4e-6 were seen there in 60 sampled pixels by all channels. Few
/// outputs of few channels vary more.
fn allowed(tiles: Winograd) -> f64 {
    match tiles {
        Winograd::F2 => 1.5e-6,
        Winograd::F4 => 1e-5,
    }
}

/// The largest error over the largest output; NaN where one is.
fn error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0f64, |m, w| m.max(w.abs()));
    let worst = got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).abs());
    worst.fold(0.0, |m: f64, e| if m.is_nan() || e <= m { m } else { e }) / largest
}

fn run(q: &Queue, s: &ConvShape, rows: usize, x: &[f32], packed: &Owned, bias: &[f32]) -> Vec<f32> {
    let tiles = packed.layout.winograd.expect("a transformed weight");
    let mut y = q.unwritten(rows * s.y_len());
    let mut workspace = q.unwritten(tiles.workspace(s, rows));
    let (x, bias) = (q.upload(x), q.upload(bias));
    let (from, to) = (Pixels { floats: q.floats(&x), pixel: s.c }, Pixels { floats: q.floats_mut(&mut y), pixel: s.o });
    let (bias, work, none) = (Some(q.floats(&bias)), q.floats_mut(&mut workspace), Activation::None);
    super::tiles::forward(q, tiles, s, rows, from, q.packed(packed), bias, none, work, to).unwrap();
    q.download(&y)
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[test]
fn both_sizes_of_tiles_agree_with_a_loop_and_rows_do_not_hear_of_each_other() {
    let q = Queue::for_tests();
    let mut wrong = Vec::new();
    for (s, rows) in layers() {
        let (x, w, bias) = operands(&s, rows);
        let want = reference_forward(&s, rows, &x, &w, &bias);
        let plain = q.pack(&s, Layout::exact(Order::Forward), &w);
        let plain = error(&run_forward(&q, &s, rows, &x, &plain, &bias), &want);
        for tiles in Winograd::ALL {
            let packed = q.pack(&s, Layout::winograd(tiles), &w);
            let y = run(&q, &s, rows, &x, &packed, &bias);
            let off = error(&y, &want);
            println!("{tiles:?} {s:?}: off by {off:.2e} of the largest, the plain sum by {plain:.2e}");
            // a NaN is none either
            if !(off <= allowed(tiles)) {
                wrong.push(format!("{tiles:?} {s:?}: {off:.2e}"));
            }
            let last = run(&q, &s, 1, &x[(rows - 1) * s.x_len()..], &packed, &bias);
            assert!(same_bits(&last, &y[(rows - 1) * s.y_len()..]), "{tiles:?} {s:?}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// As wide as VGG's: 512 channels, where the error is the largest.
#[test]
fn many_channels_err_as_little_as_was_seen_elsewhere() {
    let q = Queue::for_tests();
    let s = conv([512, 6, 6], 64, [3, 3], 1, 1);
    let (x, w, bias) = operands(&s, 1);
    let want = reference_forward(&s, 1, &x, &w, &bias);
    let plain = q.pack(&s, Layout::exact(Order::Forward), &w);
    println!("the plain sum {:.2e}", error(&run_forward(&q, &s, 1, &x, &plain, &bias), &want));
    for tiles in Winograd::ALL {
        let packed = q.pack(&s, Layout::winograd(tiles), &w);
        let off = error(&run(&q, &s, 1, &x, &packed, &bias), &want);
        println!("{tiles:?} {off:.2e}");
        assert!(off <= allowed(tiles), "{tiles:?}: {off:.2e}");
    }
}

/// An output's tile lies in a chunk of its own numbers, and every image on both sides of a border.
#[test]
fn an_image_has_the_same_bits_in_any_chunk() {
    let q = Queue::for_tests();
    // 3 x 3 tiles an image; of 1820 channels and more a chunk is 128 tiles, 14 images and a part
    let s = conv([4, 11, 11], 1820, [3, 3], 1, 1);
    let tiles = Winograd::F4;
    assert_eq!((tiles.image(&s), tiles.chunk(&s)), (9, 128));
    let rows = 15;
    let (x, w, bias) = operands(&s, rows);
    let packed = q.pack(&s, Layout::winograd(tiles), &w);
    let y = run(&q, &s, rows, &x, &packed, &bias);
    for image in [0, 13, 14] {
        let alone = run(&q, &s, 1, &x[image * s.x_len()..][..s.x_len()], &packed, &bias);
        assert!(same_bits(&alone, &y[image * s.y_len()..][..s.y_len()]), "image {image}");
    }
}

#[test]
fn windows_of_channels_bias_and_relu_are_as_those_of_the_plain_sum() {
    let q = Queue::for_tests();
    for (s, before, wide_x, wide_y) in [
        (conv([16, 6, 9], 32, [3, 3], 1, 1), 4, 24, 40),
        (conv([8, 7, 5], 5, [3, 3], 1, 0), 8, 16, 14),
        (conv([8, 7, 5], 6, [3, 3], 1, 2), 0, 8, 6),
    ] {
        for tiles in Winograd::ALL {
            let rows = 2;
            let (seen, w, bias) = operands(&s, rows);
            let mut x = random("around", rows * s.h * s.w * wide_x);
            for (pixel, values) in x.chunks_exact_mut(wide_x).zip(seen.chunks_exact(s.c)) {
                pixel[before..][..s.c].copy_from_slice(values);
            }
            let was = random("y", rows * s.oh() * s.ow() * wide_y);
            let packed = q.pack(&s, Layout::winograd(tiles), &w);
            let (dx, mut dy, dbias) = (q.upload(&x), q.upload(&was), q.upload(&bias));
            let mut workspace = q.unwritten(tiles.workspace(&s, rows));
            let source = Floats { pointer: q.floats(&dx).pointer() + 4 * before as u64, ..q.floats(&dx) };
            let source = source.first(window_len(rows * s.h * s.w, s.c, wide_x));
            let target = q.floats_mut(&mut dy);
            let target = FloatsMut { pointer: target.pointer() + 4 * before as u64, ..target };
            let target = target.first(window_len(rows * s.oh() * s.ow(), s.o, wide_y));
            let (from, to) = (Pixels { floats: source, pixel: wide_x }, Pixels { floats: target, pixel: wide_y });
            let (weight, bias_there, work) = (q.packed(&packed), Some(q.floats(&dbias)), q.floats_mut(&mut workspace));
            super::tiles::forward(&q, tiles, &s, rows, from, weight, bias_there, Activation::Relu, work, to).unwrap();
            let got = q.download(&dy);
            let inner: Vec<f32> = got.chunks_exact(wide_y).flat_map(|pixel| &pixel[before..][..s.o]).copied().collect();
            let want: Vec<f64> = reference_forward(&s, rows, &seen, &w, &bias).iter().map(|w| w.max(0.0)).collect();
            let off = error(&inner, &want);
            assert!(off <= allowed(tiles), "{tiles:?} {s:?}: {off:.2e}");
            for (i, (got, was)) in got.iter().zip(&was).enumerate() {
                let outside = !(before..before + s.o).contains(&(i % wide_y));
                assert!(!outside || got == was, "{s:?}: the neighbours of a window changed at {i}");
            }
        }
    }
}

/// It reaches its tile at least where the plain sum has it, and no tile of another image.
#[test]
fn a_nan_is_not_swallowed_and_stays_in_its_image() {
    let q = Queue::for_tests();
    let s = conv([8, 7, 9], 8, [3, 3], 1, 1);
    for tiles in Winograd::ALL {
        let (mut x, w, bias) = operands(&s, 3);
        x[s.x_len() + (3 * 9 + 4) * 8 + 5] = f32::NAN;
        let packed = q.pack(&s, Layout::winograd(tiles), &w);
        let y = run(&q, &s, 3, &x, &packed, &bias);
        for (i, y) in y.iter().enumerate() {
            let (image, p, c) = (i / s.y_len(), i % s.y_len() / 8 / 9, i / 8 % 9);
            let reached = image == 1 && (2..=4).contains(&p) && (3..=5).contains(&c);
            assert!(y.is_nan() || !reached, "{tiles:?}: swallowed at {i}");
            assert!(!y.is_nan() || image == 1, "{tiles:?}: in another image at {i}");
        }
    }
}

/// The transformed weight of a single tap is the matrices' own: U = (G e)(G e)^T, rounded once.
#[test]
fn weights_are_transformed_in_f64_and_rounded_once() {
    let q = Queue::for_tests();
    let (a, b) = (0.5f64.sqrt(), 2f64.sqrt());
    let f2: Vec<[f64; 3]> = vec![[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
    let point = |p: f64, norm: f64| [1.0 / norm, p / norm, p * p / norm];
    let f4: Vec<[f64; 3]> =
        vec![[1.0, 0.0, 0.0], point(a, -1.5), point(-a, -1.5), point(b, 6.0), point(-b, 6.0), [0.0, 0.0, 1.0]];
    let s = conv([12, 4, 4], 40, [3, 3], 1, 1);
    let w = random("w", s.w_len());
    for (tiles, g) in [(Winograd::F2, f2), (Winograd::F4, f4)] {
        let packed = q.pack(&s, Layout::winograd(tiles), &w);
        let u = q.download(&packed.data);
        let (lines, columns) = (16, 64);
        assert_eq!(u.len(), tiles.products() * lines * columns);
        for (at, &got) in u.iter().enumerate() {
            let (problem, c, o) = (at / columns / lines, at / columns % lines, at % columns);
            let (i, j) = (problem / g.len(), problem % g.len());
            let tap = |r: usize, t: usize| f64::from(w[(o * s.c + c) * 9 + 3 * r + t]);
            let want = match c < s.c && o < s.o {
                true => (0..9).map(|n| g[i][n / 3] * g[j][n % 3] * tap(n / 3, n % 3)).sum::<f64>(),
                false => 0.0,
            };
            // half a spacing, and what f64 itself rounds of sums that may cancel
            let allowed = 0.5000001 * f64::from(f32::EPSILON) * want.abs() + 1e-15;
            assert!((f64::from(got) - want).abs() <= allowed, "{tiles:?} {i} {j} {c} {o}: {got} for {want}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_launched() {
    let q = Queue::for_tests();
    let s = conv([4, 5, 5], 8, [3, 3], 1, 1);
    let tiles = Winograd::F4;
    let packed = q.pack(&s, Layout::winograd(tiles), &random("w", s.w_len()));
    let exact = q.pack(&s, Layout::exact(Order::Forward), &random("w", s.w_len()));
    let x = q.upload(&random("x", 2 * s.x_len()));
    let mut y = q.unwritten(2 * s.y_len());
    let room = tiles.workspace(&s, 1);
    let mut workspace = q.unwritten(room);
    let strided = ConvShape { stride: 2, ..s };
    let odd = ConvShape { c: 3, ..s };
    for (shape, rows, weight, room) in [
        (s, 2, q.packed(&packed), room),
        (s, 1, q.packed(&exact), room),
        (s, 1, Packed { floats: q.floats(&packed.data).first(8), ..q.packed(&packed) }, room),
        (s, 1, Packed { layout: Layout::winograd(Winograd::F2), ..q.packed(&packed) }, room),
        (s, 1, q.packed(&packed), room - 1),
        (strided, 1, q.packed(&packed), room),
        (odd, 1, q.packed(&packed), room),
    ] {
        let from = Pixels { floats: q.floats(&x).first(shape.x_len()), pixel: shape.c };
        let to = Pixels { floats: q.floats_mut(&mut y).first(rows * shape.y_len()), pixel: shape.o };
        let work = q.floats_mut(&mut workspace).first(room);
        let refused = super::tiles::forward(&q, tiles, &shape, rows, from, weight, None, Activation::None, work, to);
        assert!(matches!(refused, Err(BackendError::Device { .. })), "{refused:?}");
    }
    // nor does the plain sum take a transformed weight
    let (from, to) = (q.floats(&x).first(s.x_len()), q.floats_mut(&mut y).first(s.y_len()));
    assert!(forward(&q, &s, 1, from, q.packed(&packed), None, Activation::None, to).is_err());
}

/// A layer goes by tiles where they are asked for, serve it, and nothing else is asked for.
#[test]
fn a_layer_is_packed_for_tiles_by_choice_and_in_fp32_alone() {
    let served = conv([64, 14, 14], 64, [3, 3], 1, 1);
    let exact = conv([64, 14, 14], 64, [1, 1], 1, 0);
    let layout = |s, arithmetic| Layout::forward(s, arithmetic).winograd;
    assert_eq!(layout(&served, Arithmetic::Winograd), Some(Winograd::F4));
    assert_eq!(layout(&exact, Arithmetic::Winograd), None);
    for precision in Precision::ALL {
        assert_eq!(layout(&served, Arithmetic::In(precision)), None, "{precision:?}");
    }
}
