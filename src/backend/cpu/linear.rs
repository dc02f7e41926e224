//! Linear layers: `y[r][o] = sum_i x[r][i] W[o][i]` (+ bias, ReLU), and their gradients.
//!
//! x (rows, I), y (rows, O), W (O, I), all dense. W is read as it lies, be it in a mapped file: VGG's half a gigabyte took longer
//! to pack than to multiply with, and few rows stream it once at the speed of memory either way. Both directions have their lanes
//! along I. The sums are cut, so that each lane adds up pieces of 32 products (64 with 8 lanes) forward, of 64 outputs in the
//! input gradient: VGG's 25088 terms come out twice as exact as in pieces of 512.
//! Called by the CPU backend's linear nodes.

use std::ops::Range;

use super::isa::{Isa, compiled};
use super::scratch::{self, Shared, parallel, piece};
use super::tile::{DOT_ROWS, Dot, TURNED_VECTORS, Turned, Weight, dot_kernel, turned_kernel, weight_kernel};
use super::{conv_weight, gemm};
use crate::backend::layout::len;
use crate::backend::threads;
use crate::graph::op::Activation;

/// Inputs of a piece of a sum over them: a tile's weights and rows of it take 20 KB of the L1 cache.
const DEPTH: usize = 512;

/// Outputs of a piece of a sum over them: their weights under a tile, 16 KB, stay in the caches for all rows.
const OUTPUTS: usize = 64;

/// The most rows that pass over the weights at once: of 25088 floats, 6.4 MB.
const ROWS: usize = 64;

/// A linear layer for one instruction set.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    /// The instruction set.
    pub isa: Isa,
    /// Length of a row of y.
    pub outputs: usize,
    /// Length of a row of x.
    pub inputs: usize,
    /// W (O, I).
    pub w: &'a [f32],
}

/// y (rows, O) = x (rows, I) W^T + bias, then `act`.
pub fn forward(layer: Layer<'_>, rows: usize, x: &[f32], bias: Option<&[f32]>, act: Activation, y: &mut [f32]) {
    let Layer { isa, outputs, inputs, w } = layer;
    assert_eq!((x.len(), w.len()), (len(&[rows, inputs]), len(&[outputs, inputs])));
    assert!(y.len() == len(&[rows, outputs]) && bias.is_none_or(|bias| bias.len() == outputs));
    let tasks = outputs.div_ceil(isa.dots()).min(4 * threads::count());
    let passes = rows.div_ceil(ROWS);
    let out = Shared::new(y);
    for pass in 0..passes {
        let rows = piece(rows, passes, pass);
        in_panel(isa, inputs, &x[rows.start * inputs..rows.end * inputs], rows.len(), |panel| {
            parallel(tasks, |task| {
                let own = piece(outputs, tasks, task);
                let tiles = own.len().div_ceil(isa.dots());
                for t in 0..tiles {
                    let tile = piece(own.len(), tiles, t);
                    let tile = own.start + tile.start..own.start + tile.end;
                    // SAFETY: tasks and their tiles differ in their outputs.
                    unsafe { dots(layer, panel, rows.clone(), tile, bias, act, out) }
                }
            });
        });
    }
}

/// Calls `f` with x (rows, I) as `[tile of rows][block of 16][row][16]`.
fn in_panel(isa: Isa, inputs: usize, x: &[f32], rows: usize, f: impl FnOnce(&[f32])) {
    let (padded, tiles) = (inputs.next_multiple_of(16), rows.div_ceil(DOT_ROWS));
    scratch::with(rows * padded, |panel| {
        let to = Shared::new(panel);
        parallel(tiles, |t| {
            let tile = piece(rows, tiles, t);
            // SAFETY: tiles differ in their rows.
            let to = unsafe { to.slice(tile.start * padded, tile.len() * padded) };
            let from = gemm::Source::dense(&x[tile.start * inputs..], inputs);
            compiled!(isa, gemm::fill(from, inputs, tile.len(), to));
        });
        f(panel);
    });
}

/// A tile of outputs of `rows`, which lie in `panel`, into `out`, on this thread.
///
/// # Safety
/// Nobody else uses these outputs meanwhile.
unsafe fn dots(
    Layer { isa, outputs, inputs, w }: Layer<'_>,
    panel: &[f32],
    rows: Range<usize>,
    own: Range<usize>,
    bias: Option<&[f32]>,
    act: Activation,
    out: Shared,
) {
    let (padded, tiles) = (inputs.next_multiple_of(16), rows.len().div_ceil(DOT_ROWS));
    scratch::with(own.len() * rows.len() * isa.lanes(), |sums| {
        // one empty piece where there are no inputs: the bias alone
        for first in (0..inputs.max(1)).step_by(DEPTH) {
            let depth = DEPTH.min(inputs - first);
            let last = first + depth == inputs;
            let weights = w[own.start * inputs + first..].as_ptr();
            // the same outputs', or the next's first
            let next = if last { w.as_ptr().wrapping_add(own.end * inputs) } else { weights.wrapping_add(DEPTH) };
            for t in 0..tiles {
                let tile = piece(rows.len(), tiles, t);
                let call = Dot {
                    x: panel[tile.start * padded + first * tile.len()..].as_ptr(),
                    w: weights,
                    w_row: inputs,
                    depth,
                    next,
                    sums: sums[tile.start * own.len() * isa.lanes()..].as_mut_ptr(),
                    first: first == 0,
                    y: out.at((rows.start + tile.start) * outputs + own.start),
                    y_row: outputs,
                    last,
                    bias: bias.map_or(std::ptr::null(), |bias| bias[own.start..].as_ptr()),
                    relu: act == Activation::Relu,
                };
                // SAFETY: the panel holds the tile's rows, W its outputs, which are ours by this function's contract.
                unsafe { dot_kernel(isa, own.len(), tile.len())(&call) }
            }
        }
    });
}

/// gx (rows, I) = gy (rows, O) W.
pub fn grad_input(layer: Layer<'_>, rows: usize, gy: &[f32], gx: &mut [f32]) {
    let Layer { isa, outputs, inputs, w } = layer;
    assert_eq!((gy.len(), w.len()), (len(&[rows, outputs]), len(&[outputs, inputs])));
    assert_eq!(gx.len(), len(&[rows, inputs]));
    if outputs == 0 {
        return gx.fill(0.0);
    }
    let wide = TURNED_VECTORS * isa.lanes();
    let (blocks, tiles) = (inputs.div_ceil(wide), rows.div_ceil(isa.dots()));
    let tasks = blocks.min(4 * threads::count());
    let out = Shared::new(gx);
    scratch::with(rows * outputs, |panel| {
        for t in 0..tiles {
            let tile = piece(rows, tiles, t);
            let to = panel[tile.start * outputs..tile.end * outputs].chunks_exact_mut(tile.len());
            for (o, to) in to.enumerate() {
                to.iter_mut().zip(tile.clone()).for_each(|(to, row)| *to = gy[row * outputs + o]);
            }
        }
        let panel = &*panel;
        parallel(tasks, |task| {
            let own = piece(blocks, tasks, task);
            let own = own.start * wide..inputs.min(own.end * wide);
            for first in (0..outputs).step_by(OUTPUTS) {
                let mut at = own.start;
                while at < own.end {
                    let all = own.end - at >= wide;
                    let width = if all { wide } else { isa.lanes().min(own.end - at) };
                    for t in 0..tiles {
                        let tile = piece(rows, tiles, t);
                        let call = Turned {
                            g: panel[tile.start * outputs + first * tile.len()..].as_ptr(),
                            w: w[first * inputs + at..].as_ptr(),
                            w_row: inputs,
                            outputs: OUTPUTS.min(outputs - first),
                            y: out.at(tile.start * inputs + at),
                            y_row: inputs,
                            width,
                            add: first > 0,
                        };
                        // SAFETY: the panel, W and gx hold what is named, and this task alone writes these inputs.
                        unsafe { turned_kernel(isa, tile.len(), all)(&call) }
                    }
                    at += width;
                }
            }
        });
    });
}

/// dW (O, I) = `sum over rows of gy[r][o] x[r][i]`: one chain over the rows, whatever the threads.
pub fn grad_weight(isa: Isa, rows: usize, o: usize, i: usize, x: &[f32], gy: &[f32], dw: &mut [f32]) {
    assert_eq!((x.len(), gy.len(), dw.len()), (len(&[rows, i]), len(&[rows, o]), len(&[o, i])));
    if rows == 0 {
        dw.fill(0.0);
        return;
    }
    let (block, most) = (isa.block(), isa.pixels());
    let blocks = i.div_ceil(block);
    let tiles = o.div_ceil(most);
    // 256 rows: 128 B of x and up to 56 B of gy per row and register tile stay near L1.
    let chunk = rows.min(256);
    let tasks = blocks.min(4 * threads::count());
    let out = Shared::new(dw);
    parallel(tasks, |task| {
        scratch::with(chunk * (o.next_multiple_of(16) + block), |panel| {
            let (g, xs) = panel.split_at_mut(chunk * o.next_multiple_of(16));
            for first in (0..rows).step_by(chunk) {
                let n = chunk.min(rows - first);
                for t in 0..tiles {
                    let tile = piece(o, tiles, t);
                    let to = &mut g[tile.start * n..];
                    conv_weight::pack_pixels(isa, &gy[first * o + tile.start..], o, n, tile.len(), to);
                }
                for b in piece(blocks, tasks, task) {
                    let width = block.min(i - b * block);
                    let vectors = width.div_ceil(isa.lanes());
                    let to = vectors * isa.lanes();
                    conv_weight::pack_lanes(isa, &x[first * i + b * block..], i, n, width, to, xs);
                    for t in 0..tiles {
                        let tile = piece(o, tiles, t);
                        let call = Weight {
                            x: g[tile.start * n..].as_ptr(),
                            x_step: tile.len(),
                            x_row: 0,
                            g: xs.as_ptr(),
                            g_row: 0,
                            rows: 1,
                            len: n,
                            y: out.at(tile.start * i + b * block),
                            y_stride: i,
                            width,
                            carry: first > 0,
                        };
                        // SAFETY: both panels hold n rows, and the task alone writes these columns of dW.
                        unsafe { weight_kernel(isa, tile.len(), vectors)(&call) }
                    }
                }
            }
        });
    });
}
