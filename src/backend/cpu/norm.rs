//! Batch norm under training: a batch's moments, the norm by moments, its gradients, running statistics.
//!
//! Maps are (pixels, C); x's pixels may lie apart. Sums run in f64 over groups of pixels whose number follows from the pixels
//! alone, then over the groups in order, so threads do not change a bit. Each channel's values are summed as distances from
//! its first, so that a mean far from zero costs the variance no digits. What is done a pixel at a time is rounded as on the
//! CUDA device, to the same bits for the same moments. Called by the CPU backend's norm nodes.

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::view_fits;
use super::isa::{Isa, compiled};
use super::scratch::piece;
use crate::graph::op::Activation;

/// Floats of a task, as in `pointwise.rs`.
const CHUNK: usize = 32_768;

/// A map that may be a window of wider pixels: floats, and how many lie from one pixel to the next.
pub type Pixels<'a> = (&'a [f32], usize);

/// `sums` f64 of each channel over all pixels; `add` puts a range of pixels into them.
fn sums(pixels: usize, sums: usize, add: impl Fn(Range<usize>, &mut [f64]) + Sync) -> Vec<f64> {
    let groups = pixels.div_ceil(1024).clamp(1, 64);
    let one = |group: usize| {
        let mut part = vec![0.0f64; sums];
        add(piece(pixels, groups, group), &mut part);
        part
    };
    let parts: Vec<Vec<f64>> = (0..groups).into_par_iter().map(one).collect();
    let mut total = vec![0.0f64; sums];
    for part in &parts {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    total
}

/// out (2, C): mean and variance of each channel.
pub fn moments(isa: Isa, pixels: usize, (x, x_pixel): Pixels<'_>, out: &mut [f32]) {
    let c = out.len() / 2;
    assert!(c > 0 && pixels > 0 && view_fits(x.len(), pixels, c, x_pixel));
    let origin = &x[..c];
    let total = sums(pixels, 2 * c, |own, both| {
        let (sum, square) = both.split_at_mut(c);
        compiled!(isa, {
            for pixel in own {
                let values = x[pixel * x_pixel..][..c].iter().zip(origin);
                for ((&x, &origin), (sum, square)) in values.zip(sum.iter_mut().zip(&mut *square)) {
                    let distance = f64::from(x) - f64::from(origin);
                    *sum += distance;
                    *square += distance * distance;
                }
            }
        });
    });
    let n = pixels as f64;
    let (mean, variance) = out.split_at_mut(c);
    for k in 0..c {
        let (shift, square) = (total[k] / n, total[c + k] / n);
        mean[k] = (f64::from(origin[k]) + shift) as f32;
        // rounding may leave a little below 0; a NaN stays
        let spread = square - shift * shift;
        variance[k] = if spread < 0.0 { 0.0 } else { spread as f32 };
    }
}

/// 1/sqrt(variance + epsilon) a channel.
fn units(variance: &[f32], epsilon: f32) -> Vec<f32> {
    variance.iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect()
}

/// y (pixels, C) = (x - mean)/sqrt(variance + epsilon)·weight + bias, then `act`.
pub fn normalise(
    isa: Isa,
    (x, x_pixel): Pixels<'_>,
    moments: &[f32],
    epsilon: f32,
    [weight, bias]: [&[f32]; 2],
    act: Activation,
    y: &mut [f32],
) {
    let c = weight.len();
    assert!(c > 0 && y.len().is_multiple_of(c) && moments.len() == 2 * c && bias.len() == c);
    assert!(view_fits(x.len(), y.len() / c, c, x_pixel));
    let (mean, variance) = moments.split_at(c);
    let scale: Vec<f32> = units(variance, epsilon).iter().zip(weight).map(|(unit, w)| unit * w).collect();
    let rows = (CHUNK / c).max(1);
    x.par_chunks(rows * x_pixel).zip(y.par_chunks_mut(rows * c)).for_each(|(x, y)| {
        compiled!(isa, {
            for (x, y) in x.chunks(x_pixel).zip(y.chunks_exact_mut(c)) {
                let channels = mean.iter().zip(&scale).zip(bias);
                for ((x, y), ((mean, scale), bias)) in x.iter().zip(&mut *y).zip(channels) {
                    *y = (x - mean) * scale + bias;
                }
                if act == Activation::Relu {
                    y.iter_mut().for_each(|y| *y = if *y < 0.0 { 0.0 } else { *y });
                }
            }
        });
    });
}

/// gw (C) = sum of gy·(x - mean)/sqrt(variance + epsilon).
pub fn grad_weight(isa: Isa, (x, x_pixel): Pixels<'_>, moments: &[f32], epsilon: f32, gy: &[f32], gw: &mut [f32]) {
    let c = gw.len();
    assert!(c > 0 && gy.len().is_multiple_of(c) && moments.len() == 2 * c);
    let pixels = gy.len() / c;
    assert!(view_fits(x.len(), pixels, c, x_pixel));
    let (mean, variance) = moments.split_at(c);
    let total = sums(pixels, c, |own, sum| {
        compiled!(isa, {
            for pixel in own {
                let values = x[pixel * x_pixel..][..c].iter().zip(&gy[pixel * c..][..c]);
                for ((&x, &gy), (sum, &mean)) in values.zip(sum.iter_mut().zip(mean)) {
                    *sum += f64::from(gy) * (f64::from(x) - f64::from(mean));
                }
            }
        });
    });
    let unit = units(variance, epsilon);
    gw.iter_mut().zip(&total).zip(unit).for_each(|((gw, sum), unit)| *gw = (sum * f64::from(unit)) as f32);
}

/// gx (pixels, C) = weight·unit·(gy - gb/n - (x - mean)·unit·gw/n), unit = 1/sqrt(variance + epsilon), n the pixels.
pub fn grad_input(
    isa: Isa,
    (x, x_pixel): Pixels<'_>,
    moments: &[f32],
    epsilon: f32,
    gy: &[f32],
    [weight, gw, gb]: [&[f32]; 3],
    gx: &mut [f32],
) {
    let c = weight.len();
    assert!(c > 0 && gx.len().is_multiple_of(c) && gy.len() == gx.len() && moments.len() == 2 * c);
    assert!(gw.len() == c && gb.len() == c && view_fits(x.len(), gx.len() / c, c, x_pixel));
    let (mean, variance) = moments.split_at(c);
    let n = (gx.len() / c) as f32;
    let unit = units(variance, epsilon);
    // what a channel's pixels share
    let scale: Vec<f32> = unit.iter().zip(weight).map(|(unit, w)| unit * w).collect();
    let slope: Vec<f32> = unit.iter().zip(gw).map(|(unit, gw)| unit * (gw / n)).collect();
    let level: Vec<f32> = gb.iter().map(|gb| gb / n).collect();
    let rows = (CHUNK / c).max(1);
    let operands = x.par_chunks(rows * x_pixel).zip(gy.par_chunks(rows * c));
    operands.zip(gx.par_chunks_mut(rows * c)).for_each(|((x, gy), gx)| {
        compiled!(isa, {
            for ((x, gy), gx) in x.chunks(x_pixel).zip(gy.chunks_exact(c)).zip(gx.chunks_exact_mut(c)) {
                let channels = mean.iter().zip(&scale).zip(slope.iter().zip(&level));
                for (((x, gy), gx), ((mean, scale), (slope, level))) in x.iter().zip(gy).zip(gx).zip(channels) {
                    *gx = (gy - level - (x - mean) * slope) * scale;
                }
            }
        });
    });
}

/// out = (1 - momentum)·running + momentum·factor·value, rounded once.
pub fn running(momentum: f64, factor: f64, running: &[f32], value: &[f32], out: &mut [f32]) {
    assert_eq!((running.len(), value.len()), (out.len(), out.len()));
    for ((out, &running), &value) in out.iter_mut().zip(running).zip(value) {
        *out = ((1.0 - momentum) * f64::from(running) + momentum * factor * f64::from(value)) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_far_from_zero_costs_the_variance_no_digits_and_a_constant_has_none() {
        for isa in Isa::available() {
            // 1000 and 1000.5 in turn, and a constant
            let x: Vec<f32> = (0..4000).flat_map(|i| [1000.0 + 0.5 * (i % 2) as f32, 0.1]).collect();
            let mut out = [f32::NAN; 4];
            moments(isa, 4000, (&x, 2), &mut out);
            assert_eq!(out, [1000.25, 0.1, 0.0625, 0.0]);
        }
    }

    #[test]
    fn a_window_of_wider_pixels_has_the_bits_of_its_copy_on_any_number_of_threads() {
        let (c, pixel, pixels) = (5, 8, 2500);
        let stream = crate::random::Stream::new(3, "norm");
        let wide: Vec<f32> = (0..(pixels * pixel) as u32).map(|i| stream.uniform(0, i) - 0.3).collect();
        let dense: Vec<f32> = wide.chunks(pixel).flat_map(|p| p[2..2 + c].to_vec()).collect();
        let view = &wide[2..2 + (pixels - 1) * pixel + c];
        let weight = [0.5, -1.0, 2.0, 1.0, 0.25];
        for isa in Isa::available() {
            let of = |x: Pixels<'_>| -> Vec<u32> {
                let (mut found, mut y, mut gw) = (vec![0.0; 2 * c], vec![0.0; pixels * c], vec![0.0; c]);
                moments(isa, pixels, x, &mut found);
                normalise(isa, x, &found, 1e-5, [&weight, &weight], Activation::Relu, &mut y);
                grad_weight(isa, x, &found, 1e-5, &dense, &mut gw);
                let mut gx = vec![0.0; pixels * c];
                grad_input(isa, x, &found, 1e-5, &dense, [&weight, &gw, &weight], &mut gx);
                [found, y, gw, gx].concat().iter().map(|v| v.to_bits()).collect()
            };
            let on = |threads, x| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.map(|pool| pool.install(|| of(x))).unwrap_or_else(|e| panic!("{e}"))
            };
            for threads in [1, 2, 3] {
                assert_eq!(on(threads, (view, pixel)), on(1, (&dense, c)), "{threads} threads");
            }
        }
    }
}
