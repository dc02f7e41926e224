//! Max-pooling, averages of cells and global average pooling over x (N,H,W,C), and their gradients.
//!
//! The maximum of a window is its first in row-major order, as in PyTorch; NaN counts as a maximum (of several NaNs
//! the last, also as there). Padding never wins. The gradient is a gather: each band of gx's rows recomputes who won the
//! windows that meet it, in row-major order of the windows; no index buffer, no atomics, any split over threads.
//! Called by the CPU backend's pooling nodes.

#![allow(clippy::needless_range_loop)] // one index into several slices of a pixel's channels

use super::gemm::view_fits;
use super::isa::{Isa, compiled};
use super::scratch::{Shared, parallel, piece};
use crate::backend::layout::{PoolShape, len};
use crate::graph::op::Spans;
use std::ops::Range;

/// Input rows of a task of a max-pool's gradient: a window that two tasks share is searched twice.
const BAND: usize = 8;

/// Whether `v` replaces the maximum so far.
#[inline(always)]
fn wins(v: f32, max: f32) -> bool {
    // Not short-circuiting, so that the loop vectorises.
    (v > max) | v.is_nan()
}

/// y (rows,OH,OW,C) = maxima of x (rows,H,W,C). y's pixels lie `pixel` floats apart.
pub fn max_pool(isa: Isa, s: &PoolShape, rows: usize, x: &[f32], y: &mut [f32], pixel: usize) {
    let (oh, ow, c) = (s.oh(), s.ow(), s.c);
    assert_eq!(x.len(), len(&[rows, s.h, s.w, c]));
    assert!(view_fits(y.len(), len(&[rows, oh, ow]), c, pixel));
    let out = Shared::new(y);
    parallel(rows * oh, |task| {
        let (image, p) = (task / oh, task % oh);
        let x = &x[image * s.h * s.w * c..][..s.h * s.w * c];
        // SAFETY: one task per output row.
        let y = unsafe { out.slice(task * ow * pixel, (ow - 1) * pixel + c) };
        compiled!(isa, {
            for (q, y) in y.chunks_mut(pixel).enumerate() {
                let y = &mut y[..c];
                if s.is_halving() {
                    let at = (2 * p * s.w + 2 * q) * c;
                    let (top, low) = (&x[at..][..2 * c], &x[at + s.w * c..][..2 * c]);
                    let (cells, y) = ((top.split_at(c), low.split_at(c)), &mut y[..c]);
                    for k in 0..c {
                        let mut max = cells.0.0[k];
                        for v in [cells.0.1[k], cells.1.0[k], cells.1.1[k]] {
                            max = if wins(v, max) { v } else { max };
                        }
                        y[k] = max;
                    }
                    continue;
                }
                y.fill(f32::NEG_INFINITY);
                for i in s.window(p, s.h) {
                    for j in s.window(q, s.w) {
                        let cell = &x[(i * s.w + j) * c..][..c];
                        y.iter_mut().zip(cell).for_each(|(y, v)| *y = if wins(*v, *y) { *v } else { *y });
                    }
                }
            }
        });
    });
}

/// gx (rows,H,W,C) from x and gy (rows,OH,OW,C).
pub fn max_pool_grad(isa: Isa, s: &PoolShape, rows: usize, x: &[f32], gy: &[f32], gx: &mut [f32]) {
    let (oh, ow, c) = (s.oh(), s.ow(), s.c);
    let x_len = len(&[s.h, s.w, c]);
    let all = len(&[rows, x_len]);
    assert_eq!((x.len(), gy.len(), gx.len()), (all, len(&[rows, oh, ow, c]), all));
    let out = Shared::new(gx);
    if s.is_halving() {
        let pairs = s.h.div_ceil(2);
        return parallel(rows * pairs, |task| {
            let (image, p) = (task / pairs, task % pairs);
            let height = 2.min(s.h - 2 * p);
            let at = image * x_len + 2 * p * s.w * c;
            // SAFETY: one task per pair of input rows.
            let gx = unsafe { out.slice(at, height * s.w * c) };
            if p >= oh {
                return gx.fill(0.0); // the odd last row, in no window
            }
            let gy = &gy[(image * oh + p) * ow * c..][..ow * c];
            compiled!(isa, halve_grad(s, &x[at..][..2 * s.w * c], gy, gx));
        });
    }
    let bands = s.h.div_ceil(BAND);
    parallel(rows * bands, |task| {
        let (image, own) = (task / bands, piece(s.h, bands, task % bands));
        // SAFETY: one task per band of input rows.
        let gx = unsafe { out.slice(image * x_len + own.start * s.w * c, own.len() * s.w * c) };
        let (x, gy) = (&x[image * x_len..][..x_len], &gy[image * oh * ow * c..][..oh * ow * c]);
        compiled!(isa, {
            gx.fill(0.0);
            for p in s.windows(own.start, oh).start..s.windows(own.end - 1, oh).end {
                for q in 0..ow {
                    gather(s, x, &own, (p, q), &gy[(p * ow + q) * c..][..c], gx);
                }
            }
        });
    });
}

/// Adds window (p, q)'s gradient to those cells of input rows `own` that hold a channel's maximum.
#[inline(always)]
fn gather(s: &PoolShape, x: &[f32], own: &Range<usize>, (p, q): (usize, usize), gy: &[f32], gx: &mut [f32]) {
    let (whole, rest) = gy.as_chunks::<16>();
    let down = s.window(p, s.h);
    let rows = down.start.max(own.start)..down.end.min(own.end);
    for (block, gy) in whole.iter().enumerate() {
        let winner = winners::<16>(s, x, (p, q), 16 * block);
        for i in rows.clone() {
            for j in s.window(q, s.w) {
                let (cell, at) = ((i * s.w + j) as u32, ((i - own.start) * s.w + j) * s.c + 16 * block);
                if let Some(gx) = gx[at..].first_chunk_mut::<16>() {
                    for k in 0..16 {
                        gx[k] += if winner[k] == cell { gy[k] } else { 0.0 };
                    }
                }
            }
        }
    }
    for (k, gy) in rest.iter().enumerate().map(|(k, gy)| (16 * whole.len() + k, gy)) {
        let winner = winners::<1>(s, x, (p, q), k)[0];
        for i in rows.clone() {
            for j in s.window(q, s.w) {
                let won = winner == (i * s.w + j) as u32;
                gx[((i - own.start) * s.w + j) * s.c + k] += if won { *gy } else { 0.0 };
            }
        }
    }
}

/// The cells of window (p, q) that hold the maxima of channels `first .. first + N`.
#[inline(always)]
fn winners<const N: usize>(s: &PoolShape, x: &[f32], (p, q): (usize, usize), first: usize) -> [u32; N] {
    let (mut max, mut winner) = ([f32::NEG_INFINITY; N], [u32::MAX; N]);
    for i in s.window(p, s.h) {
        for j in s.window(q, s.w) {
            let at = i * s.w + j;
            let Some(values) = x[at * s.c + first..].first_chunk::<N>() else { continue };
            for k in 0..N {
                // The first cell wins over nothing, even with -inf.
                let take = wins(values[k], max[k]) | (winner[k] == u32::MAX);
                max[k] = if take { values[k] } else { max[k] };
                winner[k] = if take { at as u32 } else { winner[k] };
            }
        }
    }
    winner
}

/// Two input rows of non-overlapping 2x2 windows.
#[inline(always)]
fn halve_grad(s: &PoolShape, x: &[f32], gy: &[f32], gx: &mut [f32]) {
    let c = s.c;
    let row = s.w * c;
    let (x_top, x_low) = x.split_at(row);
    let (top, low) = gx.split_at_mut(row);
    top[s.ow() * 2 * c..].fill(0.0); // the odd last column
    low[s.ow() * 2 * c..].fill(0.0);
    for (q, gy) in gy.chunks_exact(c).enumerate() {
        let at = 2 * q * c;
        let cells = [&x_top[at..][..c], &x_top[at + c..][..c], &x_low[at..][..c], &x_low[at + c..][..c]];
        let (g0, g1) = top[at..at + 2 * c].split_at_mut(c);
        let (g2, g3) = low[at..at + 2 * c].split_at_mut(c);
        for k in 0..c {
            let (mut max, mut winner) = (cells[0][k], 0u32);
            for cell in 1..4u32 {
                let v = cells[cell as usize][k];
                let take = wins(v, max);
                max = if take { v } else { max };
                winner = if take { cell } else { winner };
            }
            let g = gy[k];
            g0[k] = if winner == 0 { g } else { 0.0 };
            g1[k] = if winner == 1 { g } else { 0.0 };
            g2[k] = if winner == 2 { g } else { 0.0 };
            g3[k] = if winner == 3 { g } else { 0.0 };
        }
    }
}

/// y (rows,OH,OW,C) = means of the cells of x (rows,H,W,C) under each position down and right, summed in f32 in row-major
/// order: a window has few cells. y's pixels lie `pixel` floats apart.
pub fn average(isa: Isa, [down, right]: [Spans; 2], c: usize, rows: usize, x: &[f32], y: &mut [f32], pixel: usize) {
    let (h, w, oh, ow) = (down.cells, right.cells, down.count, right.count);
    assert_eq!(x.len(), len(&[rows, h, w, c]));
    assert!(view_fits(y.len(), len(&[rows, oh, ow]), c, pixel));
    let out = Shared::new(y);
    parallel(rows * oh, |task| {
        let (image, p) = (task / oh, task % oh);
        let x = &x[image * h * w * c..][..h * w * c];
        // SAFETY: one task per output row.
        let y = unsafe { out.slice(task * ow * pixel, (ow - 1) * pixel + c) };
        compiled!(isa, {
            for (q, y) in y.chunks_mut(pixel).enumerate() {
                let y = &mut y[..c];
                y.fill(0.0);
                for i in down.cells(p) {
                    for j in right.cells(q) {
                        y.iter_mut().zip(&x[(i * w + j) * c..][..c]).for_each(|(y, v)| *y += *v);
                    }
                }
                let cells = (down.cells(p).len() * right.cells(q).len()) as f32;
                y.iter_mut().for_each(|y| *y /= cells);
            }
        });
    });
}

/// gx (rows,H,W,C) from gy (rows,OH,OW,C): a gather over the positions that hold a cell, in row-major order.
pub fn average_grad(isa: Isa, [down, right]: [Spans; 2], c: usize, rows: usize, gy: &[f32], gx: &mut [f32]) {
    let (h, w, oh, ow) = (down.cells, right.cells, down.count, right.count);
    assert_eq!((gy.len(), gx.len()), (len(&[rows, oh, ow, c]), len(&[rows, h, w, c])));
    let out = Shared::new(gx);
    parallel(rows * h, |task| {
        let (image, i) = (task / h, task % h);
        let gy = &gy[image * oh * ow * c..][..oh * ow * c];
        // SAFETY: one task per input row.
        let gx = unsafe { out.slice(task * w * c, w * c) };
        compiled!(isa, {
            gx.fill(0.0);
            for (j, gx) in gx.chunks_exact_mut(c).enumerate() {
                for p in down.positions(i) {
                    for q in right.positions(j) {
                        let cells = (down.cells(p).len() * right.cells(q).len()) as f32;
                        gx.iter_mut().zip(&gy[(p * ow + q) * c..][..c]).for_each(|(gx, g)| *gx += *g / cells);
                    }
                }
            }
        });
    });
}

/// y (rows, C) = mean of x (rows, pixels, C), summed in f64 in pixel order.
pub fn global_average(isa: Isa, rows: usize, pixels: usize, c: usize, x: &[f32], y: &mut [f32]) {
    assert_eq!((x.len(), y.len()), (len(&[rows, pixels, c]), len(&[rows, c])));
    let out = Shared::new(y);
    parallel(rows, |row| {
        // SAFETY: one task per image.
        let y = unsafe { out.slice(row * c, c) };
        let x = &x[row * pixels * c..][..pixels * c];
        compiled!(isa, {
            for (block, y) in y.chunks_mut(16).enumerate() {
                let mut sum = [0.0f64; 16];
                for pixel in x.chunks_exact(c) {
                    sum.iter_mut().zip(&pixel[16 * block..][..y.len()]).for_each(|(sum, v)| *sum += f64::from(*v));
                }
                y.iter_mut().zip(sum).for_each(|(y, sum)| *y = (sum / pixels as f64) as f32);
            }
        });
    });
}

/// gx (rows, pixels, C) = gy (rows, C) / pixels.
pub fn global_average_grad(isa: Isa, rows: usize, pixels: usize, c: usize, gy: &[f32], gx: &mut [f32]) {
    assert_eq!((gy.len(), gx.len()), (len(&[rows, c]), len(&[rows, pixels, c])));
    let out = Shared::new(gx);
    parallel(rows, |row| {
        // SAFETY: one task per image.
        let gx = unsafe { out.slice(row * pixels * c, pixels * c) };
        let gy = &gy[row * c..][..c];
        compiled!(isa, {
            for gx in gx.chunks_exact_mut(c.max(1)) {
                gx.iter_mut().zip(gy).for_each(|(gx, gy)| *gx = *gy / pixels as f32);
            }
        });
    });
}
