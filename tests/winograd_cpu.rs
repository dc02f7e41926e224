//! Winograd's tiles on the CPU: the kernels against naive f64 loops on every instruction set, bit for bit against themselves
//! in other batches, on other threads and by the other schedule, true zeros that stay zeros, NaNs that are not swallowed.
//! Whole networks are in `winograd.rs`.

#![allow(clippy::neg_cmp_op_on_partial_ord)] // `!(diff <= tol)` fails on NaN, `diff > tol` does not

mod common;

use common::hosts::largest;
use intervene::backend::cpu::gemm::Source;
use intervene::backend::cpu::isa::Isa;
use intervene::backend::cpu::winograd::{self, Transformed};
use intervene::backend::layout::ConvShape;
use intervene::backend::winograd::Winograd;
use intervene::graph::op::Activation;
use intervene::random::Stream;

/// Of the largest output, as on CUDA: F(2x2) errs as a plain sum, F(4x4) by 1 to 4e-6 on all layers of VGG and DenseNet.
const F2: f64 = 1.5e-6;
const F4: f64 = 1e-5;

fn tolerance(tiles: Winograd) -> f64 {
    match tiles {
        Winograd::F2 => F2,
        Winograd::F4 => F4,
    }
}

fn values(n: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, "tiles");
    (0..n as u32).map(|i| stream.uniform(1, i) * 2.0 - 1.0).collect()
}

fn shape([c, h, w, o, pad]: [usize; 5]) -> ConvShape {
    ConvShape { c, h, w, o, kh: 3, kw: 3, stride: 1, pad }
}

/// Channels, height, width, outputs, padding: borders inside of tiles, channels and outputs inside of vectors, one pixel.
#[rustfmt::skip]
const SHAPES: &[[usize; 5]] = &[
    [1, 1, 1, 1, 1], [5, 1, 1, 17, 2], [17, 2, 3, 32, 1], [33, 3, 3, 33, 0], [40, 5, 4, 100, 1], [64, 4, 6, 1, 0],
    [1, 7, 9, 100, 2], [5, 8, 5, 33, 0], [17, 6, 11, 17, 1], [33, 9, 9, 32, 1], [40, 15, 15, 17, 1], [64, 13, 7, 33, 2],
    [5, 15, 2, 1, 2], [64, 10, 15, 100, 0], [32, 13, 13, 64, 0], [16, 1, 15, 32, 1],
];

fn shapes() -> impl Iterator<Item = ConvShape> {
    SHAPES.iter().copied().map(shape)
}

/// Every shape by both tiles on every instruction set.
fn trials() -> Vec<(ConvShape, Winograd, Isa)> {
    let on = |s: ConvShape| {
        Winograd::ALL.into_iter().flat_map(move |t| Isa::available().into_iter().map(move |i| (s, t, i)))
    };
    shapes().flat_map(on).collect()
}

/// Calls `f(x index, w index, y index)` for every product of one image, x and y NHWC, w OIHW.
fn products(s: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    for (p, q) in (0..s.oh()).flat_map(|p| (0..s.ow()).map(move |q| (p, q))) {
        for (i, j) in (0..3).flat_map(|i| (0..3).map(move |j| (i, j))) {
            let (Some(y), Some(x)) = ((p + i).checked_sub(s.pad), (q + j).checked_sub(s.pad)) else { continue };
            if y >= s.h || x >= s.w {
                continue;
            }
            for (o, c) in (0..s.o).flat_map(|o| (0..s.c).map(move |c| (o, c))) {
                f((y * s.w + x) * s.c + c, ((o * s.c + c) * 3 + i) * 3 + j, (p * s.ow() + q) * s.o + o);
            }
        }
    }
}

/// y without bias and gx, in f64.
fn naive(s: &ConvShape, rows: usize, x: &[f32], w: &[f32], gy: &[f32]) -> [Vec<f64>; 2] {
    let (mut y, mut gx) = (vec![0.0; rows * s.y_len()], vec![0.0; rows * s.x_len()]);
    for row in 0..rows {
        let (x0, y0) = (row * s.x_len(), row * s.y_len());
        products(s, |xi, wi, yi| {
            y[y0 + yi] += f64::from(x[x0 + xi]) * f64::from(w[wi]);
            gx[x0 + xi] += f64::from(gy[y0 + yi]) * f64::from(w[wi]);
        });
    }
    [y, gx]
}

/// The worst |difference| as a part of the tolerance.
#[track_caller]
fn check(what: &str, got: &[f32], want: &[f64], tolerance: f64) -> f64 {
    assert_eq!(got.len(), want.len(), "{what}");
    let allowed = tolerance * largest(want);
    let mut worst: f64 = 0.0;
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let difference = (f64::from(*got) - want).abs();
        if !(difference <= allowed) {
            panic!("{what}: element {i}: {got} for {want}, off by {difference:e} where {allowed:e} is allowed");
        }
        worst = worst.max(difference / allowed);
    }
    worst
}

#[track_caller]
fn same(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "{what}: element {i}: {a} and {b}");
    }
}

/// y of dense pixels, over NaNs.
fn y_of(s: &ConvShape, x: &[f32], w: &[f32], u: &Transformed, bias: Option<&[f32]>, act: Activation) -> Vec<f32> {
    let rows = x.len() / s.x_len();
    let mut y = vec![f32::NAN; rows * s.y_len()];
    winograd::forward_views(s, rows, Source::dense(x, s.c), w, u, bias, act, &mut y, s.o);
    y
}

fn gx_of(s: &ConvShape, gy: &[f32], u: &Transformed) -> Vec<f32> {
    let rows = gy.len() / s.y_len();
    let mut gx = vec![f32::NAN; rows * s.x_len()];
    winograd::grad_input(s, rows, gy, u, &mut gx);
    gx
}

/// `x` with `gap` floats of `fill` behind each pixel.
fn spread(x: &[f32], channels: usize, gap: usize, fill: f32) -> Vec<f32> {
    x.chunks(channels).flat_map(|pixel| pixel.iter().copied().chain(std::iter::repeat_n(fill, gap))).collect()
}

#[test]
fn forward_and_input_gradient_equal_the_naive_sums_by_both_tiles() {
    const ROWS: usize = 2;
    let mut worst = [0.0f64; 2];
    for s in shapes() {
        let (x, w, gy) = (values(ROWS * s.x_len(), 1), values(s.w_len(), 2), values(ROWS * s.y_len(), 3));
        let bias = values(s.o, 4);
        let [want_y, want_gx] = naive(&s, ROWS, &x, &w, &gy);
        let active: Vec<f64> =
            want_y.iter().enumerate().map(|(i, y)| (y + f64::from(bias[i % s.o])).max(0.0)).collect();
        for tiles in Winograd::ALL {
            for isa in Isa::available() {
                let what = |of: &str| format!("{of} {tiles:?} {s:?} {isa:?}");
                let (u, back) = (Transformed::forward(isa, tiles, &s, &w), Transformed::grad_input(isa, tiles, &s, &w));
                let y = y_of(&s, &x, &w, &u, None, Activation::None);
                let used = [
                    check(&what("forward"), &y, &want_y, tolerance(tiles)),
                    check(&what("grad_input"), &gx_of(&s, &gy, &back), &want_gx, tolerance(tiles)),
                    check(&what("grad_input, turned"), &gx_of(&s, &gy, &u), &want_gx, tolerance(tiles)),
                ];
                worst[usize::from(tiles == Winograd::F4)] =
                    used.into_iter().fold(worst[usize::from(tiles == Winograd::F4)], f64::max);
                let y = y_of(&s, &x, &w, &u, Some(&bias), Activation::Relu);
                // of the largest sum: a ReLU may leave nothing
                let allowed = tolerance(tiles) * largest(&want_y).max(1.0);
                for (got, want) in y.iter().zip(&active) {
                    assert!((f64::from(*got) - want).abs() <= allowed && *got >= 0.0, "{}", what("bias and relu"));
                }
                // windows of wider pixels: nothing between pixels is read or written
                let (x_gap, y_gap) = (3, 5);
                let wide = spread(&x, s.c, x_gap, f32::NAN);
                let mut wide_y = vec![7.0; ROWS * s.oh() * s.ow() * (s.o + y_gap)];
                let source = Source { x: &wide, pixel: s.c + x_gap, affine_relu: None };
                winograd::forward_views(
                    &s,
                    ROWS,
                    source,
                    &w,
                    &u,
                    Some(&bias),
                    Activation::Relu,
                    &mut wide_y,
                    s.o + y_gap,
                );
                same(&what("views"), &wide_y, &spread(&y, s.o, y_gap, 7.0));
            }
        }
    }
    println!("F2 uses {:.2} of its tolerance, F4 {:.2}", worst[0], worst[1]);
}

/// VGG's last layers, whose transformed weights no cache holds: errors grow with the channels.
#[test]
fn the_widest_layers_stay_within_the_tolerance() {
    for s in [shape([512, 7, 7, 512, 1]), shape([256, 6, 6, 512, 1])] {
        // what a layer sees behind a ReLU
        let x: Vec<f32> = values(s.x_len(), 5).iter().map(|v| v.max(0.0)).collect();
        let (w, gy) = (values(s.w_len(), 6), values(s.y_len(), 7));
        let [want_y, want_gx] = naive(&s, 1, &x, &w, &gy);
        for tiles in Winograd::ALL {
            for isa in Isa::available() {
                let what = format!("{tiles:?} {s:?} {isa:?}");
                let u = Transformed::forward(isa, tiles, &s, &w);
                let y = y_of(&s, &x, &w, &u, None, Activation::None);
                let back = Transformed::grad_input(isa, tiles, &s, &w);
                let [gx, turned] = [&back, &u].map(|u| gx_of(&s, &gy, u));
                let used = [(&y, &want_y), (&gx, &want_gx), (&turned, &want_gx)]
                    .map(|(got, want)| check(&what, got, want, tolerance(tiles)));
                println!("{what}: {used:.2?} of the tolerance");
            }
        }
    }
}

fn pools() -> Vec<rayon::ThreadPool> {
    [1, 2, 3].iter().map(|n| rayon::ThreadPoolBuilder::new().num_threads(*n).build().unwrap()).collect()
}

/// Images 0 to 8 in one batch, the first three, one alone, and one among NaNs, on 1, 2 and 3 threads.
fn bits_do_not_depend_on_the_batch(s: &ConvShape, tiles: Winograd, isa: Isa, pools: &[rayon::ThreadPool]) {
    const ROWS: usize = 8;
    let (x, gy) = (values(ROWS * s.x_len(), 8), values(ROWS * s.y_len(), 9));
    let (w, bias) = (values(s.w_len(), 10), values(s.o, 11));
    let (u, back) = (Transformed::forward(isa, tiles, s, &w), Transformed::grad_input(isa, tiles, s, &w));
    let run = |x: &[f32], gy: &[f32]| {
        (y_of(s, x, &w, &u, Some(&bias), Activation::None), [gx_of(s, gy, &back), gx_of(s, gy, &u)])
    };
    let (y, gx) = pools[0].install(|| run(&x, &gy));
    for pool in pools {
        for (first, rows) in [(0, ROWS), (0, 1), (0, 3), (ROWS - 1, 1)] {
            let of = |all: &[f32], len: usize| all[first * len..][..rows * len].to_vec();
            let (part, part_gx) = pool.install(|| run(&of(&x, s.x_len()), &of(&gy, s.y_len())));
            let what =
                format!("{rows} rows from {first} on {} threads, {tiles:?} {s:?} {isa:?}", pool.current_num_threads());
            same(&what, &part, &of(&y, s.y_len()));
            for (part, all) in part_gx.iter().zip(&gx) {
                same(&what, part, &of(all, s.x_len()));
            }
        }
        let among = |all: &[f32], len: usize| {
            let mut others = vec![f32::NAN; 3 * len];
            others[len..2 * len].copy_from_slice(&all[5 * len..][..len]);
            others
        };
        let (part, part_gx) = pool.install(|| run(&among(&x, s.x_len()), &among(&gy, s.y_len())));
        let what = format!("among NaNs, {tiles:?} {s:?} {isa:?}");
        same(&what, &part[s.y_len()..2 * s.y_len()], &y[5 * s.y_len()..][..s.y_len()]);
        for (part, all) in part_gx.iter().zip(&gx) {
            same(&what, &part[s.x_len()..2 * s.x_len()], &all[5 * s.x_len()..][..s.x_len()]);
        }
    }
}

#[test]
fn an_image_has_the_same_bits_in_any_batch_beside_any_neighbours_on_any_number_of_threads() {
    let pools = pools();
    for (s, tiles, isa) in trials() {
        bits_do_not_depend_on_the_batch(&s, tiles, isa, &pools);
    }
}

/// Large transformed weights: tasks share chunks of tiles, one image makes less than one of them, eight several.
#[test]
fn an_image_has_the_same_bits_where_tasks_share_chunks() {
    let pools = pools();
    for s in [shape([512, 7, 7, 512, 1]), shape([512, 14, 14, 512, 1])] {
        bits_do_not_depend_on_the_batch(&s, Winograd::F4, Isa::detect(), &pools);
    }
    bits_do_not_depend_on_the_batch(&shape([256, 6, 6, 300, 1]), Winograd::F2, Isa::detect(), &pools);
}

/// Weights between small and large: whether chunks are shared may depend on how many tiles there are for each thread.
#[test]
fn both_schedules_of_one_layer_give_the_same_bits() {
    let s = shape([128, 56, 56, 256, 1]);
    let (x, w) = (values(4 * s.x_len(), 12), values(s.w_len(), 13));
    let u = Transformed::forward(Isa::detect(), Winograd::F4, &s, &w);
    let pools = pools();
    let all = pools[0].install(|| y_of(&s, &x, &w, &u, None, Activation::None));
    for pool in &pools {
        for rows in [1, 4] {
            let part = pool.install(|| y_of(&s, &x[..rows * s.x_len()], &w, &u, None, Activation::None));
            same(&format!("{rows} rows on {} threads", pool.current_num_threads()), &part, &all[..part.len()]);
        }
    }
}

/// Maps of which one pixel in `one_in` has one or all channels, and which of them: corners, borders and the last channel
/// among them.
fn sparse(n: usize, channels: usize, one_in: u32, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, "sparse");
    let mut x = vec![0.0f32; n * channels];
    for (at, pixel) in x.chunks_mut(channels).enumerate() {
        let draw = |i: u32| stream.below(at as u64, i, u32::MAX);
        if draw(0) % one_in != 0 {
            // a zero of either sign is one
            pixel.fill(if draw(1) % 2 == 0 { 0.0 } else { -0.0 });
        } else if draw(1) % 2 == 0 {
            pixel[[0, channels - 1, draw(2) as usize % channels][draw(3) as usize % 3]] =
                0.5 + stream.uniform(at as u64, 9);
        } else {
            pixel.copy_from_slice(&values(channels, u64::from(draw(4))));
        }
    }
    x
}

/// Which outputs of one image see something that is not zero, for maps of `x_len` and `y_len` elements.
fn seen(x: &[f32], y_len: usize, walk: impl FnOnce(&mut dyn FnMut(usize, usize))) -> Vec<bool> {
    let mut seen = vec![false; y_len];
    walk(&mut |xi, yi| seen[yi] |= x[xi] != 0.0);
    seen
}

#[test]
fn an_output_whose_window_is_zero_is_exactly_its_bias_and_a_gradient_exactly_0() {
    let mut zeros = [0; 2];
    for (s, tiles, isa) in trials() {
        let (w, bias) = (values(s.w_len(), 14), values(s.o, 15));
        let (u, back) = (Transformed::forward(isa, tiles, &s, &w), Transformed::grad_input(isa, tiles, &s, &w));
        for one_in in [4, 16, 1000] {
            let x = sparse(s.h * s.w, s.c, one_in, 16);
            let reached = seen(&x, s.y_len(), |f| products(&s, |xi, _, yi| f(xi, yi)));
            for (act, bias) in
                [(Activation::None, Some(&bias)), (Activation::Relu, Some(&bias)), (Activation::None, None)]
            {
                let y = y_of(&s, &x, &w, &u, bias.map(Vec::as_slice), act);
                for (i, (y, reached)) in y.iter().zip(&reached).enumerate() {
                    let plain = bias.map_or(0.0, |bias| bias[i % s.o]);
                    let want = if act == Activation::Relu { plain.max(0.0) } else { plain };
                    let what = format!("output {i}, {act:?} {tiles:?} {s:?} {isa:?}");
                    assert!(*reached || y.to_bits() == want.to_bits(), "{what}: {y} for {want}");
                    zeros[0] += usize::from(!reached);
                }
            }
            let gy = sparse(s.oh() * s.ow(), s.o, one_in, 17);
            let reached = seen(&gy, s.x_len(), |f| products(&s, |xi, _, yi| f(yi, xi)));
            for u in [&back, &u] {
                for (i, (g, reached)) in gx_of(&s, &gy, u).iter().zip(&reached).enumerate() {
                    assert!(*reached || g.to_bits() == 0, "gradient {i} {tiles:?} {s:?} {isa:?}: {g} for 0");
                    zeros[1] += usize::from(!reached);
                }
            }
        }
    }
    assert!(zeros[0] > 100_000 && zeros[1] > 100_000, "{zeros:?} tried");
}

#[test]
fn a_nan_reaches_every_output_whose_window_holds_it_and_an_infinity_leaves_no_number() {
    for (s, tiles, isa) in trials() {
        let w: Vec<f32> = values(s.w_len(), 18).iter().map(|w| if *w == 0.0 { 1.0 } else { *w }).collect();
        let (u, back) = (Transformed::forward(isa, tiles, &s, &w), Transformed::grad_input(isa, tiles, &s, &w));
        // among numbers, and alone among zeros; in the first, the last and a middle element
        for (dense, value) in [(true, f32::NAN), (false, f32::NAN), (true, f32::INFINITY), (false, f32::NEG_INFINITY)] {
            let of = |n: usize, seed| if dense { values(n, seed) } else { vec![0.0; n] };
            for part in [0, 1, 2] {
                let (mut x, mut gy) = (of(s.x_len(), 19), of(s.y_len(), 20));
                let [at, planted] = [x.len() - 1, gy.len() - 1].map(|last| last * part / 2);
                (x[at], gy[planted]) = (value, value);
                let (mut reached, mut reached_gx) = (vec![false; gy.len()], vec![false; x.len()]);
                products(&s, |xi, _, yi| {
                    reached[yi] |= xi == at;
                    reached_gx[xi] |= yi == planted;
                });
                let swallowed = |got: &[f32], reached: &[bool]| {
                    got.iter().zip(reached).any(|(y, r)| *r && if value.is_nan() { !y.is_nan() } else { y.is_finite() })
                };
                let what = format!("{value} {tiles:?} {s:?} {isa:?}");
                assert!(!swallowed(&y_of(&s, &x, &w, &u, None, Activation::None), &reached), "forward {what}");
                for u in [&back, &u] {
                    assert!(!swallowed(&gx_of(&s, &gy, u), &reached_gx), "grad_input {what}");
                }
                if value.is_nan() {
                    assert!(!swallowed(&y_of(&s, &x, &w, &u, None, Activation::Relu), &reached), "with relu {what}");
                }
            }
        }
    }
}

/// Images of areas of one colour each, as clothes on black are, and of lines: their cells, and one cell of noise among them.
fn flat_images(s: &ConvShape) -> Vec<f32> {
    let colours: Vec<Vec<f32>> = (0..3).map(|k| values(s.c, 23 + k)).collect();
    let halves = |i: usize, j: usize| usize::from(j >= s.w / 2) + usize::from(i >= s.h / 2 && j >= s.w / 2);
    let patterns: [&dyn Fn(usize, usize) -> usize; 5] =
        [&|_, _| 0, &halves, &|i, _| i % 3, &|_, j| j % 2, &|i, j| usize::from(i % 5 == 4) + usize::from(j % 7 == 6)];
    let cells = (0..s.h).flat_map(|i| (0..s.w).map(move |j| (i, j)));
    let mut x: Vec<f32> =
        patterns.iter().flat_map(|of| cells.clone().flat_map(|(i, j)| colours[of(i, j)].clone())).collect();
    let noisy = ((s.h / 2) * s.w + s.w / 3) * s.c;
    x[noisy..noisy + s.c].copy_from_slice(&values(s.c, 26));
    x
}

/// A max-pool's gradient goes to the first of its largest values: outputs that are the same sum must be the same float, wherever
/// tiles begin. So are those of windows that are their neighbours', a row or a column on: in flat areas, along their borders and
/// the map's, in stripes.
#[test]
fn outputs_of_like_windows_are_the_same_to_the_bit() {
    let mut pairs = 0;
    for (s, tiles, isa) in trials() {
        let (x, w, bias) = (flat_images(&s), values(s.w_len(), 24), values(s.o, 25));
        let rows = x.len() / s.x_len();
        let u = Transformed::forward(isa, tiles, &s, &w);
        let y = y_of(&s, &x, &w, &u, Some(&bias), Activation::None);
        // cells of the window of output (p, q), with the padding
        let window = |row: usize, p: usize, q: usize| -> Vec<&[f32]> {
            let inside = |at: usize, size: usize| at.checked_sub(s.pad).filter(|at| *at < size);
            let cell = |t: usize| Some((inside(p + t / 3, s.h)?, inside(q + t % 3, s.w)?));
            (0..9).map(|t| cell(t).map_or(&[][..], |(i, j)| &x[((row * s.h + i) * s.w + j) * s.c..][..s.c])).collect()
        };
        let output = |row: usize, p: usize, q: usize| &y[((row * s.oh() + p) * s.ow() + q) * s.o..][..s.o];
        for (row, p, q) in (0..rows).flat_map(|r| (0..s.oh()).flat_map(move |p| (0..s.ow()).map(move |q| (r, p, q)))) {
            for (p2, q2) in [(p, q + 1), (p + 1, q)] {
                if p2 < s.oh() && q2 < s.ow() && window(row, p, q) == window(row, p2, q2) {
                    let what = format!("image {row}, ({p}, {q}) and ({p2}, {q2}), {tiles:?} {s:?} {isa:?}");
                    same(&what, output(row, p, q), output(row, p2, q2));
                    pairs += 1;
                }
            }
        }
        let [want, _] = naive(&s, rows, &x, &w, &vec![0.0; y.len()]);
        let want: Vec<f64> = want.iter().enumerate().map(|(i, y)| y + f64::from(bias[i % s.o])).collect();
        check(&format!("flat {tiles:?} {s:?} {isa:?}"), &y, &want, tolerance(tiles));
    }
    assert!(pairs > 5_000, "{pairs} pairs");
}

/// A weight that is not a number makes none of the outputs of its kernel one.
#[test]
fn a_nan_among_the_weights_shows_in_its_output_and_in_no_other() {
    let s = shape([40, 9, 6, 33, 1]);
    let x = values(s.x_len(), 21);
    let mut w = values(s.w_len(), 22);
    let bad = 17;
    w[(bad * s.c + 39) * 9 + 4] = f32::NAN;
    for tiles in Winograd::ALL {
        for isa in Isa::available() {
            let y = y_of(&s, &x, &w, &Transformed::forward(isa, tiles, &s, &w), None, Activation::None);
            let wrong = y.iter().enumerate().find(|(i, y)| y.is_nan() != (i % s.o == bad));
            assert!(wrong.is_none(), "{wrong:?} {tiles:?} {isa:?}");
        }
    }
}
