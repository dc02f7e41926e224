//! Layers of neural networks in FP32, against f64.
//!
//! Tolerances: `U` is one rounding. Sums of n terms are allowed n of them, relative to the sum of the absolute terms;
//! `expf`, `tanhf` and their kin two units in the last place, which is what the CUDA manual promises, `__expf` thirty (2 +
//! 1.173 |x| for |x| < 23).

mod common;

use common::{Random, args, close, compile, same};

/// Half a unit in the last place of 1.
const U: f64 = 1.0 / (1 << 24) as f64;

fn scaled(n: usize, seed: u64, by: f32) -> Vec<f32> {
    Random::new(seed).units(n).into_iter().map(|x| x * by).collect()
}

fn softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x as f64));
    let exp: Vec<f64> = row.iter().map(|&x| (x as f64 - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|e| e / sum).collect()
}

#[test]
fn softmax_four_ways() {
    for (n, c) in [(5, 77), (3, 1), (4, 130)] {
        let data = scaled(n * c, 1, 10.0);
        for kernel in ["softmax_naive", "softmax_online", "softmax_warp", "softmax_block"] {
            let got = same(&compile("network.cu"), |gpu| {
                let (out, input) = (gpu.empty::<f32>(n * c), gpu.upload(&data));
                let grid = if kernel == "softmax_block" { n } else { 2 };
                gpu.launch(kernel, grid, 96, 24, args![&out, &input, n as i32, c as i32]);
                gpu.read(&out)
            });
            // The online form multiplies the sum by another exponential whenever the maximum grows.
            let tolerance = (3 * c + 80) as f64 * U;
            close(kernel, &got, data.chunks(c).flat_map(softmax).map(|p| (p, tolerance * p + 1e-38)));
        }
    }
}

#[test]
fn layer_normalisation_and_its_gradient() {
    let (n, c) = (11, 70);
    let (x, weight, bias, dout) = (scaled(n * c, 2, 3.0), scaled(c, 3, 1.0), scaled(c, 4, 1.0), scaled(n * c, 5, 1.0));
    let mut want = [vec![], vec![], vec![]]; // out, mean, rstd
    let (mut dx, mut dw, mut db) = (vec![], vec![0f64; c], vec![0f64; c]);
    for row in 0..n {
        let at = |v: &[f32], i: usize| v[row * c + i] as f64;
        let mean = (0..c).map(|i| at(&x, i)).sum::<f64>() / c as f64;
        let variance = (0..c).map(|i| (at(&x, i) - mean).powi(2)).sum::<f64>() / c as f64;
        let rstd = 1.0 / (variance + 1e-5f32 as f64).sqrt();
        let norm: Vec<f64> = (0..c).map(|i| (at(&x, i) - mean) * rstd).collect();
        want[0].extend((0..c).map(|i| norm[i] * weight[i] as f64 + bias[i] as f64));
        want[1].push(mean);
        want[2].push(rstd);
        let dnorm: Vec<f64> = (0..c).map(|i| weight[i] as f64 * at(&dout, i)).collect();
        let a = dnorm.iter().sum::<f64>() / c as f64;
        let b = dnorm.iter().zip(&norm).map(|(d, n)| d * n).sum::<f64>() / c as f64;
        dx.extend((0..c).map(|i| (dnorm[i] - a - norm[i] * b) * rstd));
        for i in 0..c {
            dw[i] += norm[i] * at(&dout, i);
            db[i] += at(&dout, i);
        }
    }
    // All values are below 4: a hundred roundings of that size cover every sum here.
    let within = |want: &[f64]| want.iter().map(|&w| (w, 400.0 * U)).collect::<Vec<_>>();
    let (out, dinp) = same(&compile("network.cu"), |gpu| {
        let (inp, w, b, d) = (gpu.upload(&x), gpu.upload(&weight), gpu.upload(&bias), gpu.upload(&dout));
        let (out, mean, rstd) = (gpu.empty::<f32>(n * c), gpu.empty::<f32>(n), gpu.empty::<f32>(n));
        let (ni, ci) = (n as i32, c as i32);
        gpu.launch("layernorm_forward", 3, 128, 0, args![&out, &mean, &rstd, &inp, &w, &b, ni, ci]);
        close("mean", &gpu.read(&mean), within(&want[1]).into_iter());
        close("rstd", &gpu.read(&rstd), within(&want[2]).into_iter());
        let (dinp, dweight, dbias) = (gpu.zeros::<f32>(n * c), gpu.zeros::<f32>(c), gpu.zeros::<f32>(c));
        let args = args![&dinp, &dweight, &dbias, &d, &inp, &w, &mean, &rstd, ni, ci];
        gpu.launch("layernorm_backward", 3, 128, 2 * c * 4, args);
        // Atomic additions come in any order, so these bits may differ from run to run.
        close("dweight", &gpu.read(&dweight), within(&dw).into_iter());
        close("dbias", &gpu.read(&dbias), within(&db).into_iter());
        // Statistics that nobody asked for are not written.
        let none = 0u64;
        gpu.launch("layernorm_forward", 3, 128, 0, args![&out, none, none, &inp, &w, &b, ni, ci]);
        (gpu.read(&out), gpu.read(&dinp))
    });
    close("layernorm_forward", &out, within(&want[0]).into_iter());
    close("layernorm_backward", &dinp, within(&dx).into_iter());
}

/// The error function, by its series below 3 and its continued fraction above.
fn erf(x: f64) -> f64 {
    let z = x.abs();
    let value = if z < 3.0 {
        let (mut term, mut sum, mut n) = (z, z, 0.0);
        while term.abs() > 1e-18 {
            n += 1.0;
            term *= -z * z / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut f = 0.0;
        for k in (1..=60).rev() {
            f = k as f64 / 2.0 / (z + f);
        }
        1.0 - (-z * z).exp() / std::f64::consts::PI.sqrt() / (z + f)
    };
    value.copysign(x)
}

#[test]
fn activations() {
    let n = 300;
    let (x, dout) = (scaled(n, 6, 6.0), scaled(n, 7, 1.0));
    let (forward, backward, four) = same(&compile("network.cu"), |gpu| {
        let (inp, d) = (gpu.upload(&x), gpu.upload(&dout));
        let (a, b, c) = (gpu.empty::<f32>(n), gpu.empty::<f32>(n), gpu.empty::<f32>(n));
        gpu.launch("gelu_forward", 3, 128, 0, args![&a, &inp, n as i32]);
        gpu.launch("gelu_backward", 3, 128, 0, args![&b, &inp, &d, n as i32]);
        gpu.launch("gelu_erf", 2, 64, 0, args![&c, &inp, n as i32 / 4]);
        (gpu.read(&a), gpu.read(&b), gpu.read(&c))
    });
    let s = (2.0 / std::f64::consts::PI).sqrt();
    let argument = |x: f64| s * (x + 0.044715 * x * x * x);
    // The argument of tanh reaches 13, with six roundings: its error times the derivative (below 1) times |x| / 2.
    let tolerance = |x: f64| 20.0 * U * (1.0 + x.abs());
    let gelu = |x: f64| 0.5 * x * (1.0 + argument(x).tanh());
    close("gelu_forward", &forward, x.iter().map(|&x| (gelu(x as f64), tolerance(x as f64))));
    let gradient = |x: f64| {
        let t = argument(x).tanh();
        let sech = 1.0 / argument(x).cosh().powi(2);
        0.5 * (1.0 + t) + 0.5 * x * sech * s * (1.0 + 3.0 * 0.044715 * x * x)
    };
    // Here the derivative in the argument is below 2 |x|, and the last factor below 6.
    let want = x.iter().zip(&dout).map(|(&x, &d)| (gradient(x as f64) * d as f64, 100.0 * U * (1.0 + x.abs() as f64)));
    close("gelu_backward", &backward, want);
    let want = x.iter().enumerate().map(|(i, &x)| {
        let x = x as f64;
        let y = match i % 4 {
            0 | 1 => x * 0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            2 => x.max(0.0),
            _ => x / (1.0 + (-x).exp()),
        };
        (y, 20.0 * U * x.abs())
    });
    close("gelu_erf", &four, want);
}

/// Attention for `heads` heads of `t` positions and `d` channels.
fn attention([q, k, v]: &[Vec<f32>; 3], [heads, t, d]: [usize; 3], scale: f64, causal: bool) -> Vec<f64> {
    let mut out = Vec::new();
    for h in 0..heads {
        let at = |x: &[f32], s: usize, c: usize| x[(h * t + s) * d + c] as f64;
        for i in 0..t {
            let end = if causal { i + 1 } else { t };
            let score: Vec<f64> =
                (0..end).map(|s| scale * (0..d).map(|c| at(q, i, c) * at(k, s, c)).sum::<f64>()).collect();
            let max = score.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
            let p: Vec<f64> = score.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = p.iter().sum();
            out.extend((0..d).map(|c| (0..end).map(|s| p[s] * at(v, s, c)).sum::<f64>() / sum));
        }
    }
    out
}

#[test]
fn attention_naive_and_in_tiles() {
    let [b, h, t, d] = [2, 2, 45, 20];
    let qkv: [Vec<f32>; 3] = std::array::from_fn(|i| scaled(b * h * t * d, 8 + i as u64, 2.0));
    let scale = 1.0 / (d as f32).sqrt();
    let (naive, flash) = same(&compile("network.cu"), |gpu| {
        let [q, k, v] = [0, 1, 2].map(|i| gpu.upload(&qkv[i]));
        let out = gpu.empty::<f32>(b * h * t * d);
        gpu.launch("attention_naive", [t, b * h], 32, 4 * t, args![&out, &q, &k, &v, t as i32, d as i32, scale]);
        let naive = gpu.read(&out);
        let (l, m) = (gpu.zeros::<f32>(b * h * t), gpu.upload(&vec![f32::NEG_INFINITY; b * h * t]));
        let o = gpu.zeros::<f32>(b * h * t * d);
        let tiles = t.div_ceil(32) as i32;
        let shared = (3 * 32 * d + 32 * 32) * 4;
        let args = args![&q, &k, &v, t as i32, d as i32, tiles, tiles, scale, &l, &m, &o];
        gpu.launch("flash_attention", [b, h], 32, shared, args);
        (naive, gpu.read(&o))
    });
    // Scores stay below 18 with 20 products: about 400 roundings of 1 in the exponent, and values below 2.
    let within = |causal| attention(&qkv, [b * h, t, d], scale as f64, causal).into_iter().map(|x| (x, 1000.0 * U));
    close("attention_naive", &naive, within(true));
    close("flash_attention", &flash, within(false));
}

#[test]
fn embeddings() {
    let [b, t, c, vocabulary] = [3, 5, 12, 7];
    let (wte, wpe) = (scaled(vocabulary * c, 11, 1.0), scaled(t * c, 12, 1.0));
    let mut random = Random::new(13);
    let tokens: Vec<i32> = (0..b * t).map(|_| random.below(vocabulary as u64) as i32).collect();
    // Small integers: their sums are exact in any order.
    let dout: Vec<f32> = (0..b * t * c).map(|_| random.below(100) as f32 - 50.0).collect();
    let (out, dwte, dwpe) = same(&compile("network.cu"), |gpu| {
        let (i, e, p, d) = (gpu.upload(&tokens), gpu.upload(&wte), gpu.upload(&wpe), gpu.upload(&dout));
        let (out, de, dp) = (gpu.empty::<f32>(b * t * c), gpu.zeros::<f32>(vocabulary * c), gpu.zeros::<f32>(t * c));
        let size = [b as i32, t as i32, c as i32];
        gpu.launch("encoder_forward", 2, 32, 0, args![&out, &i, &e, &p, size[0], size[1], size[2] / 4]);
        gpu.launch("encoder_backward", 3, 64, 0, args![&de, &dp, &d, &i, size[0], size[1], size[2]]);
        (gpu.read(&out), gpu.read(&de), gpu.read(&dp))
    });
    let (mut want, mut we, mut wp) = (vec![], vec![0f32; vocabulary * c], vec![0f32; t * c]);
    for i in 0..b * t * c {
        let (token, position) = (tokens[i / c] as usize, i / c % t);
        want.push(wte[token * c + i % c] + wpe[position * c + i % c]);
        we[token * c + i % c] += dout[i];
        wp[position * c + i % c] += dout[i];
    }
    common::equal("encoder_forward", &out, &want);
    common::equal("dwte", &dwte, &we);
    common::equal("dwpe", &dwpe, &wp);
}

#[test]
fn cross_entropy() {
    let (rows, v) = (6, 101);
    let logits = scaled(rows * v, 14, 8.0);
    let targets: Vec<i32> = (0..rows).map(|i| (i * 19 % v) as i32).collect();
    let (losses, gradient) = same(&compile("network.cu"), |gpu| {
        let (x, t) = (gpu.upload(&logits), gpu.upload(&targets));
        let (l, d) = (gpu.empty::<f32>(rows), gpu.empty::<f32>(rows * v));
        gpu.launch("crossentropy_forward_backward", rows, 128, 0, args![&l, &d, &x, &t, v as i32]);
        (gpu.read(&l), gpu.read(&d))
    });
    let p: Vec<Vec<f64>> = logits.chunks(v).map(softmax).collect();
    let loss = (0..rows).map(|i| (-p[i][targets[i] as usize].ln(), 300.0 * U));
    close("losses", &losses, loss);
    let want = (0..rows * v).map(|i| {
        let (row, j) = (i / v, i % v);
        (p[row][j] - if j == targets[row] as usize { 1.0 } else { 0.0 }, (2 * v + 40) as f64 * U)
    });
    close("dlogits", &gradient, want);
}

#[test]
fn adamw_step() {
    let n = 1000;
    let (p, g, m) = (scaled(n, 15, 1.0), scaled(n, 16, 1.0), scaled(n, 17, 0.1));
    let v: Vec<f32> = scaled(n, 18, 0.1).into_iter().map(|x| x * x).collect();
    let [rate, beta1, beta2, c1, c2, eps, decay] = [1e-3f32, 0.9, 0.999, 0.19, 0.002, 1e-8, 0.01];
    let (gp, gm, gv) = same(&compile("network.cu"), |gpu| {
        let (p, g, m, v) = (gpu.upload(&p), gpu.upload(&g), gpu.upload(&m), gpu.upload(&v));
        let args = args![&p, &g, &m, &v, n as i64, rate, beta1, beta2, c1, c2, eps, decay];
        gpu.launch("adamw", 8, 128, 0, args);
        (gpu.read(&p), gpu.read(&m), gpu.read(&v))
    });
    let lerp = |a: f64, b: f64, w: f32| a + w as f64 * (b - a);
    let state = |i: usize| {
        let g = g[i] as f64;
        (lerp(g, m[i] as f64, beta1), lerp(g * g, v[i] as f64, beta2))
    };
    close("m", &gm, (0..n).map(|i| (state(i).0, 4.0 * U)));
    close("v", &gv, (0..n).map(|i| (state(i).1, 4.0 * U)));
    let want = (0..n).map(|i| {
        let (m, v) = state(i);
        let step = m / c1 as f64 / ((v / c2 as f64).sqrt() + eps as f64) + decay as f64 * p[i] as f64;
        // m has an absolute error of up to 4 U, which the division by a small root of v magnifies.
        let root = (v / c2 as f64).sqrt();
        let error = 8.0 * U * (1.0 + step.abs()) + 4.0 * U / c1 as f64 / root + step.abs() * 4.0 * U / v;
        (p[i] as f64 - rate as f64 * step, 2.0 * U + rate as f64 * error)
    });
    close("params", &gp, want);
}

#[test]
fn convolutions_with_constant_filters() {
    let (width, rows, radius) = (300, 3, 4);
    let (x, filter) = (scaled(width * rows, 19, 1.0), scaled(2 * radius + 1, 20, 1.0));
    let (channels, taps) = (3, 6);
    let (row, depthwise) = same(&compile("network.cu"), |gpu| {
        let (address, bytes) = gpu.variable("filter");
        assert_eq!(bytes, 36);
        gpu.write(address, &filter);
        let (input, a, b) = (gpu.upload(&x), gpu.empty::<f32>(width * rows), gpu.empty::<f32>(width * channels));
        gpu.launch("convolution_row", [3, rows], 128, 0, args![&a, &input, width as i32]);
        let args = args![&b, &input, channels as i32, taps, width as i32];
        gpu.launch("depthwise", [10, 2], [32, 2], 0, args);
        (gpu.read(&a), gpu.read(&b))
    });
    let at = |row: usize, i: isize| if i < 0 || i >= width as isize { 0.0 } else { x[row * width + i as usize] as f64 };
    let want = (0..width * rows).map(|i| {
        let sum = (0..9).map(|j| filter[j] as f64 * at(i / width, (i % width + j) as isize - radius as isize)).sum();
        (sum, 90.0 * U)
    });
    close("convolution_row", &row, want);
    let want = (0..width * channels).map(|i| {
        let sum = (0..taps as usize)
            .map(|t| filter[(i / width + t) % 9] as f64 * at(i / width, (i % width + t) as isize))
            .sum();
        (sum, 50.0 * U)
    });
    close("depthwise", &depthwise, want);
}

#[test]
fn stencil_in_three_dimensions() {
    let [nx, ny, nz] = [19usize, 7, 5];
    let x = scaled(nx * ny * nz, 21, 1.0);
    let got = same(&compile("network.cu"), |gpu| {
        let (input, out) = (gpu.upload(&x), gpu.empty::<f32>(nx * ny * nz));
        let args = args![&out, &input, nx as i32, ny as i32, nz as i32];
        gpu.launch("stencil3d", [3, 2, 3], [8, 4, 2], 0, args);
        gpu.read(&out)
    });
    let want = (0..nx * ny * nz).map(|i| {
        let [a, b, c] = [i % nx, i / nx % ny, i / nx / ny].map(|v| v as isize);
        let at = |i: isize, j: isize, k: isize| {
            let clamp = |v: isize, n: usize| v.clamp(0, n as isize - 1) as usize;
            x[(clamp(k, nz) * ny + clamp(j, ny)) * nx + clamp(i, nx)] as f64
        };
        let around = [(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)];
        let sum = around.iter().map(|&(i, j, k)| at(a + i, b + j, c + k)).sum::<f64>();
        (sum - 6.0 * at(a, b, c), 7.0 * 12.0 * U)
    });
    close("stencil3d", &got, want);
}
