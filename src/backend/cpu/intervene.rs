//! Node interventions: switching channels of a concept layer off, and the decoder's first convolution kept up to date.
//!
//! z (images,H,W,K), keep (masks,K) of 0 and 1; output row r takes image `images[r]` and mask `masks[r]`.
//! `intervene` writes z with the channels of keep = 0 at zero. `intervene_conv` computes the stride-1 convolution of
//! that masked z from the unmasked one's result `pre` (images,OH,OW,O): it runs the forward micro-kernel over the
//! switched-off channels alone, with -z as input and `pre` as the sums' start, so a row costs the share of switched-off
//! channels. Tiles that no active switched-off cell reaches are skipped, and single such pixels keep `pre`'s bits.
//! (Subtracting cell by cell, which skips every zero, moves each output through memory nine times per channel: at
//! 26x26x32, one thread, 15 us per half-active channel where this takes 2.1 beside 7 us to read and write the row.)
//! Called by the CPU backend's intervention nodes.

use super::isa::{Isa, compiled};
use super::scratch::{self, Line, Shared, lines, parallel, piece};
use super::tile::{Forward, forward_kernel};
use crate::backend::layout::len;
use crate::backend::memory::Zeroed;
use crate::graph::op::{Activation, Window, window_positions};

/// Which image and which mask each output row takes.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Image of each output row.
    pub images: &'a [u32],
    /// Mask (row of `keep`) of each output row.
    pub masks: &'a [u32],
}

/// `out[r]` (pixels, K) = `z[images[r]]` where `keep[masks[r]]` is not 0, else 0 (a select: NaN is switched off too).
pub fn intervene(isa: Isa, pixels: usize, k: usize, z: &[f32], keep: &[u8], rows: Rows, out: &mut [f32]) {
    let row = len(&[pixels, k]);
    assert_eq!((rows.masks.len(), out.len()), (rows.images.len(), len(&[rows.images.len(), row])));
    let shared = Shared::new(out);
    parallel(rows.images.len(), |r| {
        let z = &z[rows.images[r] as usize * row..][..row];
        let keep = &keep[rows.masks[r] as usize * k..][..k];
        // SAFETY: one task per row.
        let out = unsafe { shared.slice(r * row, row) };
        compiled!(isa, {
            for (out, z) in out.chunks_exact_mut(k.max(1)).zip(z.chunks_exact(k.max(1))) {
                for ((out, z), keep) in out.iter_mut().zip(z).zip(keep) {
                    *out = if *keep != 0 { *z } else { 0.0 };
                }
            }
        });
    });
}

/// The decoder's first convolution: K x H x W in, O out, stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderShape {
    /// Code channels.
    pub k: usize,
    /// Code rows.
    pub h: usize,
    /// Code columns.
    pub w: usize,
    /// Output channels.
    pub o: usize,
    /// Kernel rows.
    pub kh: usize,
    /// Kernel columns.
    pub kw: usize,
    /// Zero cells on every side.
    pub pad: usize,
}

impl DecoderShape {
    /// Output rows; 0 where the kernel does not fit.
    pub fn oh(&self) -> usize {
        window_positions(self.h, self.kh, Window { stride: 1, pad: self.pad }).unwrap_or(0)
    }

    /// Output columns; 0 where the kernel does not fit.
    pub fn ow(&self) -> usize {
        window_positions(self.w, self.kw, Window { stride: 1, pad: self.pad }).unwrap_or(0)
    }
}

/// The decoder's weights as `[output block][channel][tap][lanes of block]`, from which a row takes its channels.
pub struct ChannelWeights {
    isa: Isa,
    data: Zeroed<Line>,
}

/// Packs w (O,K,KH,KW).
pub fn pack_channels(isa: Isa, s: &DecoderShape, w: &[f32]) -> ChannelWeights {
    let depth = s.k * s.kh * s.kw;
    assert_eq!(w.len(), len(&[s.o, depth]));
    let mut data = lines(depth * s.o.next_multiple_of(isa.lanes()));
    let floats: &mut [f32] = bytemuck::cast_slice_mut(&mut data);
    for first in (0..s.o).step_by(isa.block()) {
        let width = isa.block().min(s.o - first);
        let lanes = width.next_multiple_of(isa.lanes());
        for (row, out) in floats[first * depth..].chunks_exact_mut(lanes).take(depth).enumerate() {
            for (o, out) in out[..width].iter_mut().enumerate() {
                *out = w[(first + o) * depth + row];
            }
        }
    }
    ChannelWeights { isa, data }
}

/// `out[r]` (OH,OW,O) = `activation(pre[images[r]] - conv(W, switched-off channels of z[images[r]]))`; `pre` has bias, no
/// activation.
#[allow(clippy::too_many_arguments)]
pub fn intervene_conv(
    s: &DecoderShape,
    z: &[f32],
    pre: &[f32],
    weights: &ChannelWeights,
    keep: &[u8],
    rows: Rows,
    activation: Activation,
    out: &mut [f32],
) {
    let (z_len, y_len) = (len(&[s.h, s.w, s.k]), len(&[s.oh(), s.ow(), s.o]));
    assert_eq!((rows.masks.len(), out.len()), (rows.images.len(), len(&[rows.images.len(), y_len])));
    let shared = Shared::new(out);
    let taps: Vec<(usize, usize)> =
        (0..s.kh * s.kw).map(|tap| (16 * (tap / s.kw * s.line() + tap % s.kw), tap)).collect();
    parallel(rows.images.len(), |r| {
        let image = rows.images[r] as usize;
        let (z, pre) = (&z[image * z_len..][..z_len], &pre[image * y_len..][..y_len]);
        let keep = &keep[rows.masks[r] as usize * s.k..][..s.k];
        let off: Vec<usize> = (0..s.k).filter(|k| keep[*k] == 0).collect();
        // SAFETY: one task per row.
        let out = unsafe { shared.slice(r * y_len, y_len) };
        if off.is_empty() {
            return compiled!(weights.isa, copy(pre, activation, out));
        }
        update(s, z, pre, weights, &off, &taps, activation, out);
    });
}

/// out = act(pre).
#[inline(always)]
fn copy(pre: &[f32], activation: Activation, out: &mut [f32]) {
    match activation {
        Activation::None => out.copy_from_slice(pre),
        Activation::Relu => out.iter_mut().zip(pre).for_each(|(y, x)| *y = if *x < 0.0 { 0.0 } else { *x }),
    }
}

impl DecoderShape {
    /// Pixels of a padded row.
    fn line(&self) -> usize {
        self.w + 2 * self.pad
    }
}

/// One row of `intervene_conv` with the channels `off` switched off.
#[allow(clippy::too_many_arguments)]
fn update(
    s: &DecoderShape,
    z: &[f32],
    pre: &[f32],
    weights: &ChannelWeights,
    off: &[usize],
    taps: &[(usize, usize)],
    activation: Activation,
    out: &mut [f32],
) {
    let (isa, all, ow) = (weights.isa, s.kh * s.kw, s.ow());
    let cells = s.line() * (s.h + 2 * s.pad);
    let depth = off.len() * all;
    let floats: &[f32] = bytemuck::cast_slice(&weights.data);
    let panel_len = cells * 16 * off.len().div_ceil(16);
    scratch::with(panel_len + depth * isa.block() + 2 * cells, |buffer| {
        let (panel, rest) = buffer.split_at_mut(panel_len);
        let (w, flags) = rest.split_at_mut(depth * isa.block());
        let (active, reached) = flags.split_at_mut(cells);
        compiled!(isa, {
            fill(s, z, off, panel, active);
            reach(s, active, reached);
        });
        for first in (0..s.o).step_by(isa.block()) {
            let width = isa.block().min(s.o - first);
            let vectors = width.div_ceil(isa.lanes());
            let lanes = vectors * isa.lanes();
            // [channel block][tap][channel][lanes], as the kernel reads it.
            let mut to = w.chunks_exact_mut(lanes);
            for block in off.chunks(16) {
                for (tap, channel) in (0..all).flat_map(|tap| block.iter().map(move |channel| (tap, channel))) {
                    if let Some(to) = to.next() {
                        let row = channel * all + tap;
                        to.copy_from_slice(&floats[first * s.k * all + row * lanes..][..lanes]);
                    }
                }
            }
            let tiles = ow.div_ceil(isa.pixels());
            for (p, t) in (0..s.oh()).flat_map(|p| (0..tiles).map(move |t| (p, t))) {
                let tile = piece(ow, tiles, t);
                let at = p * s.line() + tile.start;
                let reached = &reached[at..][..tile.len()];
                let some = reached.iter().any(|flag| *flag != 0.0);
                if some {
                    let y = (p * ow + tile.start) * s.o + first;
                    let call = Forward {
                        x: panel[16 * at..].as_ptr(),
                        taps,
                        all_taps: all,
                        channels: off.len(),
                        panel: cells * 16,
                        w: w.as_ptr(),
                        y: out[y..].as_mut_ptr(),
                        y_stride: s.o,
                        width,
                        from: pre[y..].as_ptr(),
                        add: std::ptr::null(),
                        bias: std::ptr::null(),
                        relu: activation == Activation::Relu,
                    };
                    // SAFETY: the panel is padded for every tap of these pixels; pre and out hold them.
                    unsafe { forward_kernel(isa, tile.len(), vectors)(&call) }
                }
                for (q, _) in reached.iter().enumerate().filter(|(_, flag)| **flag == 0.0) {
                    let y = (p * ow + tile.start + q) * s.o + first;
                    copy(&pre[y..][..width], activation, &mut out[y..][..width]);
                }
            }
        }
    });
}

/// panel `[block of 16 switched-off channels][padded pixel][16]` = -z; `active[padded pixel]` = 1 where any is not 0.
#[inline(always)]
fn fill(s: &DecoderShape, z: &[f32], off: &[usize], panel: &mut [f32], active: &mut [f32]) {
    let line = s.line();
    active.fill(0.0);
    for (b, block) in off.chunks(16).enumerate() {
        let cells = &mut panel[b * active.len() * 16..].as_chunks_mut::<16>().0[..active.len()];
        let rows = cells.chunks_exact_mut(line).zip(active.chunks_exact_mut(line));
        for (y, (cells, active)) in rows.enumerate().map(|(y, row)| (y.wrapping_sub(s.pad), row)) {
            if y >= s.h {
                cells.fill([0.0; 16]);
                continue;
            }
            cells[..s.pad].fill([0.0; 16]);
            cells[s.pad + s.w..].fill([0.0; 16]);
            let cells = cells[s.pad..].iter_mut().zip(&mut active[s.pad..]);
            for ((cell, active), z) in cells.zip(z[y * s.w * s.k..].chunks_exact(s.k).take(s.w)) {
                let mut bits = 0;
                for (to, channel) in cell.iter_mut().zip(block) {
                    *to = -z[*channel];
                    bits |= to.to_bits() << 1; // all but the sign: not 0 for NaN too
                }
                // A select: at 10 % active cells a branch here took longer than the convolution.
                *active = if bits != 0 { 1.0 } else { *active };
            }
        }
    }
}

/// `reached[p * line + q]` = the greatest of `active` in the window of output (p, q).
#[inline(always)]
fn reach(s: &DecoderShape, active: &mut [f32], reached: &mut [f32]) {
    let line = s.line();
    reached.fill(0.0);
    for row in active.chunks_exact_mut(line) {
        for q in 0..s.ow() {
            row[q] = row[q..][..s.kw].iter().fold(0.0, |a, b| if *b > a { *b } else { a });
        }
    }
    for p in 0..s.oh() {
        for i in 0..s.kh {
            let (to, from) = (&mut reached[p * line..][..line], &active[(p + i) * line..][..line]);
            to.iter_mut().zip(from).for_each(|(to, from)| *to = if *from > *to { *from } else { *to });
        }
    }
}
