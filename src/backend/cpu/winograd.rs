//! 3x3 convolutions of stride 1 by Winograd's F(M x M, 3 x 3), forward and towards the input:
//! `Y = A^T [ sum over c of (G g_c G^T) * (B^T d_c B) ] A`, element by element inside the brackets.
//!
//! M x M outputs come from a tile of T x T inputs, T = M + 2, by T * T multiplications for each pair of channels where the
//! sum over nine taps has 9 M * M: F(4x4) a quarter of them. Points 0, ±1/sqrt2, ±sqrt2 and infinity, whose matrices
//! (written out in kernels/winograd.cu) err by 1 to 4e-6 of the largest output, the usual 0, ±1, ±2 by four times as much.
//!
//! Three stages, over a chunk of tiles:
//! - input: V = B^T d B, as `[T * T][channel block][tile][16]`;
//! - product: M = V U, as `[T * T][tile][output]`, one block of outputs after another, by the forward register tile;
//! - output: A^T M A, plus bias, then ReLU, while M is still in the L2 cache.
//!
//! U = G g G^T, as `[output block][T * T][channel][lanes]`, is made once, in f64, rounded once. Where U is small every
//! task takes a chunk through all three; where it is large (VGG's 512 channels: 38 MB) all tasks share one larger chunk of
//! V, each with output blocks of its own, so that U is read from memory once a chunk.
//!
//! A tile's numbers depend on the tile alone, each product is one chain over the channels, and chunks are cut anywhere:
//! an image has the same bits in any batch. An output whose window is zero in all channels is exactly its bias: a true zero
//! of a gradient must stay one, for the sign of a gradient is the attack (without that, a seventh of FGSM's pixels differ
//! from PyTorch's). Windows that are each other's neighbours and the same, as in flat areas, have the same sum: a tile finds
//! them, and theirs is made plainly, for else rounding would choose where a max-pool's gradient goes (without that, 8 % of
//! FGSM's signs were turned for clothes on black, up to 26 % of VGG16's on black borders). Like windows that lie askew are not looked for.
//! A NaN may reach its whole tile, and infinity become NaN there: more than in a plain sum, never less.
//! Here a layer is walked, chunk after chunk; `tiles` has the vector kernels, `weights` makes U.
//! Called by the CPU backend's convolution nodes where `path.rs` says so.

mod tiles;
mod weights;

pub use weights::{Transformed, serves_both};

use super::gemm::{Source, view_fits};
use super::scratch::{self, Shared, parallel, piece};
use super::tile::{Forward, forward_kernel};
use crate::backend::layout::{ConvShape, len};
use crate::backend::threads;
use crate::backend::winograd::Winograd;
use crate::graph::op::Activation;
use std::ops::Range;
use tiles::{InputTile, MARKS, Marks, OutputTile, PlainSums, kernels};

/// Tiles of a task's chunk: two register tiles of AVX-512. Their V and M are within the L2 cache up to 256 channels.
const CHUNK: usize = 28;
/// Tiles of a chunk that all tasks share.
const SHARED_CHUNK: usize = 196;
/// Floats of U from which a chunk is shared: what then stays in no cache beside V.
const LARGE: usize = 1 << 20;
/// Windows whose plain sums a task keeps: those of a flat area and of its borders.
const RECENT: usize = 4;
/// Floats between the positions of V and M: without them their distance would be a power of two, and all in one cache set.
const GAP: usize = 48;

/// A convolution as the tiles see it.
struct Walk<'a> {
    tiles: Winograd,
    u: &'a Transformed,
    /// Whether `u` is of the other direction.
    turned: bool,
    c: usize,
    o: usize,
    h: usize,
    w: usize,
    oh: usize,
    ow: usize,
    pad: usize,
    x: &'a [f32],
    x_pixel: usize,
    y: Shared,
    y_pixel: usize,
    bias: Option<&'a [f32]>,
    relu: bool,
    /// (O,C,3,3), for outputs whose window is like a neighbour's; none where ties do not matter.
    weights: Option<&'a [f32]>,
}

/// y (rows,OH,OW,O) from x (rows,H,W,C), whose pixels may lie apart, plus bias, then `act`; y's pixels lie `y_pixel` floats
/// apart. `w` (O,C,3,3) is what `u` was made of.
#[allow(clippy::too_many_arguments)] // as `conv::forward_views`
pub fn forward_views(
    s: &ConvShape,
    rows: usize,
    x: Source<'_>,
    w: &[f32],
    u: &Transformed,
    bias: Option<&[f32]>,
    act: Activation,
    y: &mut [f32],
    y_pixel: usize,
) {
    assert_eq!((u.channels, u.outputs, s.kh, s.kw, s.stride), (s.c, s.o, 3, 3, 1));
    assert!(!u.back && w.len() == s.w_len());
    assert!(bias.is_none_or(|bias| bias.len() == s.o));
    assert!(x.affine_relu.is_none() && x.fits(len(&[rows, s.h, s.w]), s.c));
    assert!(view_fits(y.len(), len(&[rows, s.oh(), s.ow()]), s.o, y_pixel));
    let walk = Walk {
        tiles: u.tiles,
        u,
        turned: false,
        c: s.c,
        o: s.o,
        h: s.h,
        w: s.w,
        oh: s.oh(),
        ow: s.ow(),
        pad: s.pad,
        x: x.x,
        x_pixel: x.pixel,
        y: Shared::new(y),
        y_pixel,
        bias,
        relu: act == Activation::Relu,
        weights: Some(w),
    };
    walk.run(rows);
}

/// gx (rows,H,W,C) from gy (rows,OH,OW,O), by weights made for either direction. The padding is at most 2.
pub fn grad_input(s: &ConvShape, rows: usize, gy: &[f32], u: &Transformed, gx: &mut [f32]) {
    assert_eq!((s.kh, s.kw, s.stride), (3, 3, 1));
    assert_eq!([u.channels, u.outputs], if u.back { [s.o, s.c] } else { [s.c, s.o] });
    assert!(s.pad <= 2);
    assert_eq!((gy.len(), gx.len()), (len(&[rows, s.y_len()]), len(&[rows, s.x_len()])));
    let walk = Walk {
        tiles: u.tiles,
        u,
        turned: !u.back,
        c: s.o,
        o: s.c,
        h: s.oh(),
        w: s.ow(),
        oh: s.h,
        ow: s.w,
        pad: 2 - s.pad,
        x: gy,
        x_pixel: s.o,
        y: Shared::new(gx),
        y_pixel: s.c,
        bias: None,
        relu: false,
        weights: None,
    };
    walk.run(rows);
}

/// V of a chunk of tiles, and what is known of their outputs.
#[derive(Clone, Copy)]
struct Chunk {
    /// The first tile of all images, and their number.
    first: usize,
    tiles: usize,
    v: Shared,
    /// [`MARKS`] floats a tile.
    marks: Shared,
}

impl Chunk {
    /// Marks of tile `t` of the chunk.
    fn marks(self, t: usize) -> *mut Marks {
        self.marks.at(MARKS * t).cast()
    }
}

impl Walk<'_> {
    fn run(&self, rows: usize) {
        let across = self.ow.div_ceil(self.tiles.outputs());
        let image = self.oh.div_ceil(self.tiles.outputs()) * across;
        let all = rows * image;
        if all == 0 || self.o == 0 {
            return;
        }
        let threads = threads::count();
        let blocks = self.o.div_ceil(self.u.isa.block());
        let room = |tiles: usize| self.position(tiles) * self.tiles.products();
        // with many tiles, U of up to four times that size is worth reading again for every chunk: nobody waits for anybody
        let large = if all >= 4 * threads * SHARED_CHUNK { 4 * LARGE } else { LARGE };
        if 16 * self.u.data.len() < large && !self.turned {
            let chunks = all.div_ceil(CHUNK).next_multiple_of(threads).min(all);
            // few tiles: each thread takes all of them, and some of the outputs
            let splits = if chunks < threads { threads.min(blocks) } else { 1 };
            return parallel(chunks * splits, |task| {
                let own = piece(all, chunks, task / splits);
                scratch::with(room(own.len()) + MARKS * own.len(), |buffer| {
                    // V first: on the boundary of a cache line
                    let (v, marks) = buffer.split_at_mut(room(own.len()));
                    let [v, marks] = [v, marks].map(Shared::new);
                    let chunk = Chunk { first: own.start, tiles: own.len(), v, marks };
                    self.input(chunk, 0..own.len(), (image, across));
                    self.outputs(chunk, 0..own.len(), piece(blocks, splits, task % splits), (image, across));
                });
            });
        }
        let chunks = all.div_ceil(SHARED_CHUNK);
        let largest = all.div_ceil(chunks);
        scratch::with(room(largest) + MARKS * largest, |buffer| {
            let (v, marks) = buffer.split_at_mut(room(largest));
            let [v, marks] = [v, marks].map(Shared::new);
            for k in 0..chunks {
                let own = piece(all, chunks, k);
                let chunk = Chunk { first: own.start, tiles: own.len(), v, marks };
                let parts = own.len().min(4 * threads);
                parallel(parts, |part| self.input(chunk, piece(own.len(), parts, part), (image, across)));
                // a part turns U for itself: few parts then, but some for every thread
                let part = if self.turned { 4 * CHUNK } else { 2 * CHUNK };
                let parts = own.len().div_ceil(part).max(own.len().min((2 * threads).div_ceil(blocks)));
                parallel(blocks * parts, |task| {
                    let block = task / parts;
                    self.outputs(chunk, piece(own.len(), parts, task % parts), block..block + 1, (image, across));
                });
            }
        });
    }

    /// Floats from one position of V to the next, in a chunk of that many tiles.
    fn position(&self, tiles: usize) -> usize {
        self.c.div_ceil(16) * tiles * 16 + GAP
    }

    /// Transforms tiles `own` of the chunk.
    fn input(&self, chunk: Chunk, own: Range<usize>, (image, across): (usize, usize)) {
        let (step, side) = (self.tiles.outputs(), self.tiles.outputs() + 2);
        let kernels = kernels(self.u.isa);
        let inside = |first: isize, n: usize| {
            let low = (-first).clamp(0, side as isize) as usize;
            (low, (n as isize - first).clamp(low as isize, side as isize) as usize)
        };
        for t in own {
            let (row, tile) = ((chunk.first + t) / image, (chunk.first + t) % image);
            let [i, j] = [tile / across, tile % across].map(|at| (at * step) as isize - self.pad as isize);
            let cells = [inside(i, self.h), inside(j, self.w)];
            let corner = ((row * self.h) as isize + i) * self.w as isize + j;
            let call = InputTile {
                x: self.x.as_ptr().wrapping_offset(corner * self.x_pixel as isize),
                row: self.w * self.x_pixel,
                pixel: self.x_pixel,
                inside: cells,
                channels: self.c,
                ties: self.weights.is_some(),
                v: chunk.v.at(t * 16),
                position: self.position(chunk.tiles),
                block: chunk.tiles * 16,
            };
            // SAFETY: cells inside the map are read, and this task alone writes the tile's V and bits.
            unsafe {
                *chunk.marks(t) = (kernels.input)(self.tiles, cells == [(0, side); 2], &call);
            }
        }
    }

    /// Output blocks `blocks` of tiles `own` of the chunk, whose V is there.
    fn outputs(&self, chunk: Chunk, own: Range<usize>, blocks: Range<usize>, (image, across): (usize, usize)) {
        let (isa, step) = (self.u.isa, self.tiles.outputs());
        let (block, position) = (isa.block(), self.position(chunk.tiles));
        let m_position = own.len() * block + GAP;
        let kernels = kernels(isa);
        let pieces = own.len().div_ceil(isa.pixels());
        let turned = if self.turned { self.c * block } else { 0 };
        scratch::with(m_position * self.tiles.products() + turned, |buffer| {
            let (m, turned) = buffer.split_at_mut(m_position * self.tiles.products());
            let m = m.as_mut_ptr();
            for b in blocks.clone() {
                // beyond the outputs U is zero
                let width = block.min(self.o - b * block);
                for p in 0..self.tiles.products() {
                    let w = if self.turned {
                        self.u.turned(b, p, turned);
                        turned.as_ptr()
                    } else {
                        self.u.at(b, p)
                    };
                    for part in 0..pieces {
                        let tile = piece(own.len(), pieces, part);
                        let call = Forward {
                            x: chunk.v.at(p * position + (own.start + tile.start) * 16),
                            taps: &[(0, 0)],
                            all_taps: 1,
                            channels: self.c,
                            panel: chunk.tiles * 16,
                            w,
                            y: m.wrapping_add(p * m_position + tile.start * block),
                            y_stride: block,
                            width: block,
                            from: std::ptr::null(),
                            add: std::ptr::null(),
                            bias: std::ptr::null(),
                            relu: false,
                        };
                        // SAFETY: V and U hold this position, and M is this task's.
                        unsafe { forward_kernel(isa, tile.len(), 2)(&call) }
                    }
                }
                for (k, t) in own.clone().enumerate() {
                    let (row, tile) = ((chunk.first + t) / image, (chunk.first + t) % image);
                    let (i, j) = (tile / across * step, tile % across * step);
                    let pixel = (row * self.oh + i) * self.ow + j;
                    let call = OutputTile {
                        m: m.wrapping_add(k * block),
                        position: m_position,
                        y: self.y.at(pixel * self.y_pixel + b * block),
                        row: self.ow * self.y_pixel,
                        pixel: self.y_pixel,
                        inside: [self.oh - i, self.ow - j],
                        width,
                        bias: self.bias.map_or(std::ptr::null(), |bias| bias[b * block..].as_ptr()),
                        relu: self.relu,
                        // SAFETY: written by `input`, whose tasks have ended.
                        live: unsafe { (*chunk.marks(t)).live },
                    };
                    // SAFETY: this task alone writes these outputs, all inside the map.
                    unsafe { (kernels.output)(self.tiles, &call) }
                }
            }
        });
        // SAFETY: as above.
        let ties = |t: usize| unsafe { (*chunk.marks(t)).level | (*chunk.marks(t)).plumb } != 0;
        if let Some(weights) = self.weights
            && own.clone().any(ties)
        {
            let outputs = blocks.start * block..self.o.min(blocks.end * block);
            self.plain(weights, chunk, own.filter(|&t| ties(t)), outputs, (image, across));
        }
    }

    /// Outputs `outputs` of tiles `own` again, where the window is like a neighbour's, as plain sums.
    fn plain(
        &self,
        weights: &[f32],
        chunk: Chunk,
        own: impl Iterator<Item = usize>,
        outputs: Range<usize>,
        (image, across): (usize, usize),
    ) {
        let (step, c) = (self.tiles.outputs(), self.c);
        let kernels = kernels(self.u.isa);
        let weights = &weights[9 * c * outputs.start..9 * c * outputs.end];
        let bias = self.bias.map(|bias| &bias[outputs.clone()]);
        scratch::with(RECENT * (9 * c + outputs.len()) + 18 * c, |buffer| {
            let (window, rest) = buffer.split_at_mut(9 * c);
            let (by_channel, rest) = rest.split_at_mut(9 * c);
            let (windows, sums) = rest.split_at_mut(RECENT * 9 * c);
            // how many windows had their sums made: those of the last few are kept
            let mut made = 0;
            for t in own {
                let (row, tile) = ((chunk.first + t) / image, (chunk.first + t) % image);
                let (i0, j0) = (tile / across * step, tile % across * step);
                // SAFETY: written by `input`, whose tasks have ended.
                let marks = unsafe { *chunk.marks(t) };
                let is = |bits: u16, i: usize, j: usize| bits >> (4 * i + j) & 1 == 1;
                for (i, j) in (0..step.min(self.oh - i0)).flat_map(|i| (0..step.min(self.ow - j0)).map(move |j| (i, j)))
                {
                    if !is(marks.live & (marks.level | marks.plumb), i, j) {
                        continue;
                    }
                    let y = |i: usize, j: usize| {
                        let pixel = (row * self.oh + i0 + i) * self.ow + j0 + j;
                        // SAFETY: this task alone uses these outputs, all inside the map.
                        unsafe { self.y.slice(pixel * self.y_pixel + outputs.start, outputs.len()) }
                    };
                    // one window moved along itself
                    if j > 0 && is(marks.level, i, j) && is(marks.level, i, j - 1) {
                        y(i, j).copy_from_slice(y(i, j - 1));
                        continue;
                    }
                    if i > 0 && is(marks.plumb, i, j) && is(marks.plumb, i - 1, j) {
                        y(i, j).copy_from_slice(y(i - 1, j));
                        continue;
                    }
                    self.window(row, i0 + i, j0 + j, window);
                    let known = (0..made.min(RECENT)).find(|k| same_bits(&windows[k * 9 * c..][..9 * c], window));
                    let slot = known.unwrap_or_else(|| {
                        let slot = made % RECENT;
                        made += 1;
                        windows[slot * 9 * c..][..9 * c].copy_from_slice(window);
                        for (k, to) in by_channel.as_chunks_mut::<9>().0.iter_mut().enumerate() {
                            *to = std::array::from_fn(|tap| window[tap * c + k]);
                        }
                        let y = sums[slot * outputs.len()..][..outputs.len()].as_mut_ptr();
                        let (x, w) = (by_channel.as_ptr(), weights.as_ptr());
                        // SAFETY: a window, as many rows of weights, and as many sums.
                        unsafe { (kernels.plain)(&PlainSums { x, len: 9 * c, w, y, outputs: outputs.len() }) }
                        slot
                    });
                    let sums = &sums[slot * outputs.len()..][..outputs.len()];
                    for (o, (y, sum)) in y(i, j).iter_mut().zip(sums).enumerate() {
                        let value = sum + bias.map_or(0.0, |bias| bias[o]);
                        *y = if self.relu && value < 0.0 { 0.0 } else { value };
                    }
                }
            }
        });
    }

    /// The window of output (i, j) as `[tap][channel]`, with the padding's zeros.
    fn window(&self, row: usize, i: usize, j: usize, window: &mut [f32]) {
        for (tap, to) in window.chunks_exact_mut(self.c).enumerate() {
            let at =
                |first: usize, tap: usize, size: usize| (first + tap).checked_sub(self.pad).filter(|at| *at < size);
            match (at(i, tap / 3, self.h), at(j, tap % 3, self.w)) {
                (Some(i), Some(j)) => {
                    to.copy_from_slice(&self.x[((row * self.h + i) * self.w + j) * self.x_pixel..][..self.c]);
                }
                _ => to.fill(0.0),
            }
        }
    }
}

/// Whether two windows are the same to the bit, as those that tiles find alike are.
fn same_bits(a: &[f32], b: &[f32]) -> bool {
    bytemuck::cast_slice::<f32, u32>(a) == bytemuck::cast_slice::<f32, u32>(b)
}
