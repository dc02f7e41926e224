//! 1x1 convolutions, and other products of pixels and packed weights: `y[r][o] = sum_i x[r][i] W[o][i]` (+ bias, ReLU).
//!
//! x (rows, I), y (rows, O), W (O, I), all dense. Rows are the pixels of the forward micro-kernel: they are copied
//! into panels `[tile of rows][channel block][row][16]`, and a long sum is cut into pieces of 512 channels (64 KB of
//! weights, which stay in L2 while all tiles of a row group use them). The sum stays one chain through `from` up to 2048 terms;
//! a longer one is the sum of its pieces, which rounds less.
//! Called by `conv.rs`, `conv_narrow.rs` and `winograd.rs`. Linear layers read their weights as they lie: see `linear.rs`.

use std::ops::Range;

use super::isa::compiled;
use super::packed::Packed;
use super::scratch::{self, Shared, parallel, piece};
use super::tile::{Forward, forward_kernel};
use crate::backend::layout::len;
use crate::backend::threads;
use crate::graph::op::Activation;

/// Channels per piece of a long sum.
const DEPTH: usize = 512;

/// Pixels to read: their first channel and how many floats lie between two of them, and what is done to them first.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// From the first pixel's first channel on.
    pub x: &'a [f32],
    /// Floats from one pixel to the next.
    pub pixel: usize,
    /// Scale and shift a channel, and then ReLU.
    pub affine_relu: Option<(&'a [f32], &'a [f32])>,
}

impl<'a> Source<'a> {
    /// Pixels of `channels` floats without gaps, as they are.
    pub fn dense(x: &'a [f32], channels: usize) -> Self {
        Source { x, pixel: channels, affine_relu: None }
    }

    /// Whether it holds `pixels` pixels of `channels`.
    pub(super) fn fits(&self, pixels: usize, channels: usize) -> bool {
        let affine = self.affine_relu.is_none_or(|(a, b)| a.len() == channels && b.len() == channels);
        affine && view_fits(self.x.len(), pixels, channels, self.pixel)
    }
}

/// Whether `floats` hold `pixels` pixels of `channels` that lie `pixel` floats apart.
pub(super) fn view_fits(floats: usize, pixels: usize, channels: usize, pixel: usize) -> bool {
    match pixels.checked_sub(1) {
        None => true,
        Some(others) => pixel >= channels && floats >= len(&[others, pixel]).saturating_add(channels),
    }
}

/// The longest sum that is one chain; a longer one is the sum of its pieces.
const CHAIN_MAX: usize = 2048;

/// y (rows, O) = x (rows, I) W^T + bias, then `act`.
pub fn forward(rows: usize, x: &[f32], packed: &Packed, bias: Option<&[f32]>, act: Activation, y: &mut [f32]) {
    let (depth, outputs) = (packed.channels(), packed.outputs());
    assert_eq!((x.len(), y.len()), (len(&[rows, depth]), len(&[rows, outputs])));
    forward_views(rows, Source::dense(x, depth), packed, bias, act, y, outputs);
}

/// As [`forward`], from pixels that may lie apart to pixels that lie `y_pixel` floats apart.
pub fn forward_views(
    rows: usize,
    x: Source<'_>,
    packed: &Packed,
    bias: Option<&[f32]>,
    act: Activation,
    y: &mut [f32],
    y_pixel: usize,
) {
    let (depth, outputs) = (packed.channels(), packed.outputs());
    assert!(packed.taps() == 1 && x.fits(rows, depth) && view_fits(y.len(), rows, outputs, y_pixel));
    assert!(bias.is_none_or(|bias| bias.len() == outputs));
    if rows == 0 || outputs == 0 {
        return;
    }
    let isa = packed.isa();
    let most = isa.pixels();
    let padded = depth.next_multiple_of(16);
    // Row groups of 256 KB, but never under 8 tiles: weights that come from memory must serve many rows.
    let group = (65_536 / padded.max(1)).max(8 * most);
    let (groups, splits) =
        divide(rows.div_ceil(group), rows.div_ceil(most), packed.blocks(), rows * depth, outputs * depth);
    let out = Shared::new(y);
    parallel(groups * splits, |task| {
        let blocks = piece(packed.blocks(), splits, task % splits);
        // SAFETY: tasks differ in their rows or in their output blocks.
        unsafe { product(piece(rows, groups, task / splits), blocks, x, packed, bias, act, (out, y_pixel)) }
    });
}

/// Rows `own` and output blocks `blocks` of `forward`, on this thread.
///
/// # Safety
/// Nobody else uses those outputs meanwhile, all rows of `own` lie within `x` and `out` (whose pixels lie that many
/// floats apart), `packed` has one tap, and `bias` has a float an output.
pub(super) unsafe fn product(
    own: Range<usize>,
    blocks: Range<usize>,
    x: Source<'_>,
    packed: &Packed,
    bias: Option<&[f32]>,
    act: Activation,
    (out, y_pixel): (Shared, usize),
) {
    let (isa, depth) = (packed.isa(), packed.channels());
    let padded = depth.next_multiple_of(16);
    let tiles = own.len().div_ceil(isa.pixels());
    scratch::with(own.len() * padded, |panel| {
        compiled!(isa, {
            for t in 0..tiles {
                let tile = piece(own.len(), tiles, t);
                let first = Source { x: &x.x[(own.start + tile.start) * x.pixel..], ..x };
                fill(first, depth, tile.len(), &mut panel[tile.start * padded..]);
            }
        });
        for b in blocks {
            let block = packed.block(b);
            let bias = bias.map_or(std::ptr::null(), |bias| bias[block.first..].as_ptr());
            let stride = block.vectors * isa.lanes();
            // One empty piece where there are no channels: the bias alone.
            for part in 0..depth.div_ceil(DEPTH).max(1) {
                let from = part * DEPTH;
                let to = depth.min(from + DEPTH);
                let last = to == depth;
                for t in 0..tiles {
                    let tile = piece(own.len(), tiles, t);
                    let y = out.at((own.start + tile.start) * y_pixel + block.first);
                    let call = Forward {
                        x: panel[tile.start * padded + from * tile.len()..].as_ptr(),
                        taps: &[(0, 0)],
                        all_taps: 1,
                        channels: to - from,
                        panel: tile.len() * 16,
                        w: block.w.wrapping_add(from * stride),
                        y,
                        y_stride: y_pixel,
                        width: block.width,
                        from: if from > 0 && depth <= CHAIN_MAX { y } else { std::ptr::null() },
                        add: if from > 0 && depth > CHAIN_MAX { y } else { std::ptr::null() },
                        bias: if last { bias } else { std::ptr::null() },
                        relu: last && act == Activation::Relu,
                    };
                    // SAFETY: the panel holds tile.len() rows of `to` channels at this offset, the block its
                    // weights; the outputs are ours by this function's contract.
                    unsafe { forward_kernel(isa, tile.len(), block.vectors)(&call) }
                }
            }
        }
    });
}

/// (groups, splits): how many row groups and ranges of output blocks make enough tasks at the least traffic. Each
/// group streams all weights (`w` floats) and each split copies all inputs (`x` floats). Bits do not depend on it.
pub(super) fn divide(least: usize, most: usize, blocks: usize, x: usize, w: usize) -> (usize, usize) {
    let threads = threads::count();
    let want = if threads == 1 { 1 } else { 4 * threads };
    (1..=blocks.min(want))
        .map(|splits| (want.div_ceil(splits).clamp(least, most.max(least)), splits))
        // Fewer tasks than wanted cost more than any traffic.
        .min_by_key(|&(groups, splits)| {
            let idle = want.saturating_sub(groups * splits);
            (idle, groups * w + splits * x)
        })
        .unwrap_or((least, 1))
}

/// One tile: rows of `depth` floats -> `[channel block][row][16]`.
#[inline(always)]
pub(super) fn fill(source: Source<'_>, depth: usize, rows: usize, panel: &mut [f32]) {
    let x = source.x;
    for (b, block) in panel[..rows * depth.next_multiple_of(16)].chunks_exact_mut(rows * 16).enumerate() {
        let of_block = |values: &[f32]| {
            let mut padded = [0.0; 16];
            copy16(&mut padded, &values[16 * b..], depth - 16 * b);
            padded
        };
        let affine = source.affine_relu.map(|(scale, shift)| (of_block(scale), of_block(shift)));
        for (r, to) in block.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            copy16(to, &x[r * source.pixel + 16 * b..], depth - 16 * b);
            if let Some((scale, shift)) = &affine {
                for k in 0..16 {
                    // as `pointwise::affine`: two roundings, and a NaN stays
                    let v = to[k] * scale[k] + shift[k];
                    to[k] = if v < 0.0 { 0.0 } else { v };
                }
            }
        }
    }
}

/// Copies up to 16 floats; where `from` has 16 it copies them all in one move, as the kernel never reads past the
/// channels and a variable length would be a call per pixel.
#[inline(always)]
pub(super) fn copy16(to: &mut [f32; 16], from: &[f32], channels: usize) {
    match from.first_chunk::<16>() {
        Some(from) => *to = *from,
        None => to.iter_mut().zip(&from[..channels.min(from.len())]).for_each(|(to, from)| *to = *from),
    }
}
