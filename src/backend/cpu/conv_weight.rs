//! The weight and bias gradients of a convolution:
//! `dw[o,c,i,j] = sum over n,p,q of gy[n,p,q,o] x[n,pS-P+i,qS-P+j,c]`.
//!
//! x (N,H,W,C), gy (N,OH,OW,O), dw (O,C,KH,KW). A register tile holds up to 14 input channels x 32 output channels of
//! one tap and sums over the pixels of a band of output rows; a tap's runs cover only the pixels it really reads, so
//! padding costs nothing (and gy's NaN beside a padded cell stays out). Before that the band is copied into panels
//! x `[channel tile][pixel][P]` and gy `[pixel][32]`: the kernel then streams two dense arrays, where NHWC would give
//! it strides of 4C bytes, which for C = 512 hit two sets of the L1 cache.
//! First layers (under 8 channels) take a tap row's KW x C neighbouring floats as channels, and KH taps: the windows of
//! neighbouring pixels then overlap in one padded copy of the rows, and there is no im2col.
//! A task is an area of dw, up to 56 input x 128 output channels, whose sums stay in L2 over all bands until they are
//! turned into OIHW. Only where areas are few do groups of bands make more tasks, through partial sums in memory.
//! Order: bands within a group, then groups, the number of groups a function of shape and rows only; so threads do
//! not change a bit. Called by the CPU backend's convolution nodes; `gemm.rs` uses the two copies.

use std::ops::Range;

use rayon::prelude::*;

use super::isa::{Isa, compiled};
use super::path::{self, Path};
use super::scratch::{self, Shared, parallel, piece};
use super::tile::{Weight, weight_kernel};
use crate::backend::layout::ConvShape;
use crate::backend::layout::len;
use crate::backend::threads;

/// Bytes of all partial sums together.
const PARTIALS: usize = 32 << 20;
/// Groups times areas of one output block: the tasks a large machine can share.
const TASKS: usize = 32;
/// Tiles of input channels and blocks of output channels of an area: x is copied once for 128 outputs, gy once for 56
/// inputs, under 2 % of the multiplications; for 3x3 the sums take 258 KB.
const TILES: usize = 4;
const BLOCKS: usize = 4;
/// Pixels of a band: x and gy tiles of 200 bytes a pixel beside the L1 cache, accumulators loaded once per band.
const PIXELS: usize = 512;

/// The sizes that decide the order of summation: they depend on shape, rows and instruction set only.
struct Plan {
    isa: Isa,
    /// Channels and taps as the kernel sees them: a first layer turns (C, KH x KW) into (KW x C, KH).
    depth: usize,
    taps: usize,
    first_layer: bool,
    tiles: usize,
    /// Ranges of tiles, one to an area.
    ranges: usize,
    /// Output rows of a band and bands of an image.
    band: usize,
    bands: usize,
    groups: usize,
}

impl Plan {
    fn new(isa: Isa, s: &ConvShape, rows: usize) -> Plan {
        let first_layer = path::grad_weight(s) == Path::TapRows;
        let (depth, taps) = if first_layer { (s.c * s.kw, s.kh) } else { (s.c, s.kh * s.kw) };
        let bands = s.oh().div_ceil((PIXELS / s.ow()).max(1));
        let band = s.oh().div_ceil(bands);
        let bands = s.oh().div_ceil(band);
        let tiles = depth.div_ceil(isa.pixels());
        // A first layer's area is all its channels: OIHW has them side by side.
        let ranges = if first_layer { 1 } else { tiles.div_ceil(TILES) };
        let partial = 4 * depth * taps * s.o.next_multiple_of(isa.lanes());
        let groups = TASKS.div_ceil(s.o.div_ceil(isa.block()) * ranges);
        let groups = groups.min(PARTIALS / partial).clamp(1, rows * bands);
        Plan { isa, depth, taps, first_layer, tiles, ranges, band, bands, groups }
    }

    /// The channels of tile `t`.
    fn tile(&self, t: usize) -> Range<usize> {
        piece(self.depth, self.tiles, t)
    }
}

/// A part of dw, and where its sums `[output block][channel][tap][lanes of block]` lie among a group's.
struct Area {
    blocks: Range<usize>,
    tiles: Range<usize>,
    channels: Range<usize>,
    sums: Range<usize>,
}

impl Area {
    /// Area `i` of `splits` ranges of output blocks times the plan's ranges of tiles.
    fn new(plan: &Plan, s: &ConvShape, splits: usize, i: usize) -> Area {
        let (isa, (split, range)) = (plan.isa, (i / plan.ranges, i % plan.ranges));
        let blocks = piece(s.o.div_ceil(isa.block()), splits, split);
        let tiles = piece(plan.tiles, plan.ranges, range);
        let channels = plan.tile(tiles.start).start..plan.tile(tiles.end - 1).end;
        let first = blocks.start * isa.block();
        let lanes = (blocks.end * isa.block()).min(s.o.next_multiple_of(isa.lanes())) - first;
        let start = (first * plan.depth + lanes * channels.start) * plan.taps;
        let sums = start..start + lanes * channels.len() * plan.taps;
        Area { blocks, tiles, channels, sums }
    }
}

/// dw (O,C,KH,KW) from x (rows,H,W,C) and gy (rows,OH,OW,O).
pub fn grad_weight(isa: Isa, s: &ConvShape, rows: usize, x: &[f32], gy: &[f32], dw: &mut [f32]) {
    assert_eq!((x.len(), gy.len(), dw.len()), (len(&[rows, s.x_len()]), len(&[rows, s.y_len()]), s.w_len()));
    if rows == 0 || dw.is_empty() {
        dw.fill(0.0);
        return;
    }
    let plan = Plan::new(isa, s, rows);
    let blocks = s.o.div_ceil(isa.block());
    let threads = threads::count();
    let want = if threads == 1 { 1 } else { (4 * threads).div_ceil(plan.groups * plan.ranges) };
    let splits = want.clamp(blocks.div_ceil(BLOCKS), blocks);
    let areas = splits * plan.ranges;
    let out = Shared::new(dw);
    // `sums` over a group's bands.
    let add = |group: usize, area: &Area, sums: &mut [f32]| {
        let units = piece(rows * plan.bands, plan.groups, group);
        for unit in units.clone() {
            band(&plan, s, x, gy, unit, area, sums, unit > units.start);
        }
    };
    if plan.groups == 1 {
        return parallel(areas, |i| {
            let area = Area::new(&plan, s, splits, i);
            scratch::with(area.sums.len(), |sums| {
                add(0, &area, sums);
                compiled!(isa, turn(&plan, s, &area, sums, out));
            });
        });
    }
    let partial = plan.depth * plan.taps * s.o.next_multiple_of(isa.lanes());
    scratch::with(partial * plan.groups, |partials| {
        let partials = Shared::new(partials);
        // SAFETY: in both loops each task has an area of its own, in the first also a group of its own.
        let sums =
            |group: usize, area: &Area| unsafe { partials.slice(group * partial + area.sums.start, area.sums.len()) };
        parallel(plan.groups * areas, |task| {
            let area = Area::new(&plan, s, splits, task % areas);
            add(task / areas, &area, sums(task / areas, &area));
        });
        parallel(areas, |i| {
            let area = Area::new(&plan, s, splits, i);
            let total = sums(0, &area);
            compiled!(isa, {
                for group in 1..plan.groups {
                    total.iter_mut().zip(&*sums(group, &area)).for_each(|(total, part)| *total += part);
                }
                turn(&plan, s, &area, total, out);
            });
        });
    });
}

/// Adds one band's share to the sums of an area.
#[allow(clippy::too_many_arguments)]
fn band(plan: &Plan, s: &ConvShape, x: &[f32], gy: &[f32], unit: usize, area: &Area, sums: &mut [f32], carry: bool) {
    let isa = plan.isa;
    let (oh, ow) = (s.oh(), s.ow());
    let (image, top) = (unit / plan.bands, unit % plan.bands * plan.band);
    let height = plan.band.min(oh - top);
    // The input rows that the band's taps read.
    let low = (top * s.stride).saturating_sub(s.pad).min(s.h);
    let high = ((top + height - 1) * s.stride + s.kh).saturating_sub(s.pad).clamp(low, s.h);
    let g_pixels = height * ow;
    let image_x = &x[image * s.x_len()..][low * s.w * s.c..high * s.w * s.c];
    let image_g = &gy[image * s.y_len() + top * ow * s.o..][..g_pixels * s.o];
    // Pixels of a panel row: a first layer's include the padding.
    let line = if plan.first_layer { s.w + 2 * s.pad } else { s.w };
    let x_pixels = (high - low) * line;
    let x_len = if plan.first_layer { x_pixels * s.c } else { x_pixels * area.channels.len() };
    let g_len = g_pixels * isa.block();
    scratch::with(g_len + x_len, |panel| {
        let (g_panel, x_panel) = panel.split_at_mut(g_len);
        let x_panel = if plan.first_layer {
            let edge = s.pad * s.c;
            for (to, from) in x_panel.chunks_exact_mut(line * s.c).zip(image_x.chunks_exact(s.w * s.c)) {
                to[..edge].fill(0.0);
                to[edge..][..from.len()].copy_from_slice(from);
                to[edge + from.len()..].fill(0.0);
            }
            x_panel
        } else if plan.tiles == 1 {
            image_x // already [pixel][P]
        } else {
            for tile in area.tiles.clone().map(|t| plan.tile(t)) {
                let to = &mut x_panel[(tile.start - area.channels.start) * x_pixels..];
                pack_pixels(isa, image_x.get(tile.start..).unwrap_or(&[]), plan.depth, x_pixels, tile.len(), to);
            }
            x_panel
        };
        let mut sums = sums;
        for b in area.blocks.clone() {
            let first = b * isa.block();
            let width = isa.block().min(s.o - first);
            let vectors = width.div_ceil(isa.lanes());
            let lanes = vectors * isa.lanes();
            let (own, rest) = sums.split_at_mut(area.channels.len() * plan.taps * lanes);
            sums = rest;
            // gy that is one block wide already has the panel's order. Nine taps would pay for its lack of alignment.
            let g = if s.o == lanes && (plan.taps == 1 || image_g.as_ptr().align_offset(64) == 0) {
                image_g
            } else {
                pack_lanes(isa, &image_g[first..], s.o, g_pixels, width, lanes, g_panel);
                &*g_panel
            };
            for tile in area.tiles.clone().map(|t| plan.tile(t)) {
                let kernel = weight_kernel(isa, tile.len(), vectors);
                let at = tile.start - area.channels.start;
                // Where the tile's floats of pixel 0 begin, and from one pixel to the next.
                let (x, step) = if plan.first_layer { (at, s.c) } else { (at * x_pixels, tile.len()) };
                for tap in 0..plan.taps {
                    let (i, j) = if plan.first_layer { (tap, 0) } else { (tap / s.kw, tap % s.kw) };
                    let rows = valid(i, s, s.h, top..top + height);
                    let columns = if plan.first_layer { 0..ow } else { valid(j, s, s.w, 0..ow) };
                    let empty = rows.is_empty() || columns.is_empty();
                    let pixel = if empty {
                        0
                    } else {
                        let left = if plan.first_layer { 0 } else { s.pad };
                        (rows.start * s.stride + i - s.pad - low) * line + columns.start * s.stride + j - left
                    };
                    let call = Weight {
                        x: x_panel.as_ptr().wrapping_add(x + pixel * step),
                        x_step: s.stride * step,
                        x_row: s.stride * line * step,
                        g: g.as_ptr().wrapping_add((rows.start.saturating_sub(top) * ow + columns.start) * lanes),
                        g_row: ow * lanes,
                        // An empty range still runs: the first band must clear the sums.
                        rows: if empty { 0 } else { rows.len() },
                        len: columns.len(),
                        y: own[(at * plan.taps + tap) * lanes..].as_mut_ptr(),
                        y_stride: plan.taps * lanes,
                        width: lanes,
                        carry,
                    };
                    // SAFETY: the runs lie inside both panels by `valid`, and the tile's sums inside `own`.
                    unsafe { kernel(&call) }
                }
            }
        }
    });
}

/// The outputs of `range` for which tap `i` reads a real cell of 0..n, not padding.
fn valid(i: usize, s: &ConvShape, n: usize, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let low = s.pad.saturating_sub(i).div_ceil(s.stride);
    let high = (n + s.pad).saturating_sub(i).div_ceil(s.stride);
    let start = range.start.max(low).min(range.end);
    start..range.end.min(high).max(start)
}

/// The sums of an area -> dw, OIHW.
#[inline(always)]
fn turn(plan: &Plan, s: &ConvShape, area: &Area, sums: &[f32], out: Shared) {
    let taps = s.kh * s.kw;
    let rows = area.channels.len() * plan.taps;
    let mut sums = sums;
    for first in area.blocks.clone().map(|b| b * plan.isa.block()) {
        let width = plan.isa.block().min(s.o - first);
        let lanes = width.next_multiple_of(plan.isa.lanes());
        let (own, rest) = sums.split_at(rows * lanes);
        sums = rest;
        if plan.first_layer {
            for o in 0..width {
                // SAFETY: this task alone writes the area's outputs and channels, here all of them.
                let out = unsafe { out.slice((first + o) * rows, rows) };
                for (row, sum) in own.iter().skip(o).step_by(lanes).enumerate() {
                    let (channel, i) = (row / s.kh, row % s.kh);
                    out[channel % s.c * taps + i * s.kw + channel / s.c] = *sum;
                }
            }
            continue;
        }
        // 128 rows of 32 lanes: 16 KB, read by columns out of L1.
        for (part, own) in own.chunks(128 * lanes).enumerate() {
            let rows = own.len() / lanes;
            for lane in (0..width).step_by(8) {
                let columns = 8.min(width - lane);
                // SAFETY: as above; the rows of up to 8 outputs do not overlap.
                let row = |o: usize| unsafe {
                    let channel = ((first + lane + o) * s.c + area.channels.start) * taps;
                    out.slice(channel + 128 * part, rows)
                };
                for top in (0..rows / 8 * 8).step_by(8) {
                    // Eight rows by eight lanes in registers; the scalar loop below costs several times as much.
                    let square: [[f32; 8]; 8] = std::array::from_fn(|r| {
                        let from = &own[(top + r) * lanes + lane..];
                        std::array::from_fn(|o| from[..8][o])
                    });
                    // All eight and then `take`: indices known when compiled keep the square in registers.
                    let turned: [[f32; 8]; 8] = std::array::from_fn(|o| square.map(|row| row[o]));
                    for (o, column) in turned.iter().enumerate().take(columns) {
                        row(o)[top..][..8].copy_from_slice(column);
                    }
                }
                for o in 0..columns {
                    for r in rows / 8 * 8..rows {
                        row(o)[r] = own[r * lanes + lane + o];
                    }
                }
            }
        }
    }
}

/// db (O) = sum over `pixels` rows of gy (pixels, O), in f64: at most 64 groups of pixels, reduced in order.
pub fn grad_bias(isa: Isa, pixels: usize, gy: &[f32], db: &mut [f32]) {
    let o = db.len();
    assert_eq!(gy.len(), len(&[pixels, o]));
    if o == 0 {
        return;
    }
    let groups = pixels.div_ceil(1024).clamp(1, 64);
    let sums: Vec<Vec<f64>> = (0..groups)
        .into_par_iter()
        .map(|group| {
            let own = piece(pixels, groups, group);
            let mut sum = vec![0.0f64; o];
            compiled!(isa, {
                for row in gy[own.start * o..own.end * o].chunks_exact(o) {
                    sum.iter_mut().zip(row).for_each(|(sum, g)| *sum += f64::from(*g));
                }
            });
            sum
        })
        .collect();
    for (channel, db) in db.iter_mut().enumerate() {
        *db = sums.iter().map(|sum| sum[channel]).sum::<f64>() as f32;
    }
}

/// `n` pixels of `p` floats, `stride` apart in `from`, made dense.
pub(super) fn pack_pixels(isa: Isa, from: &[f32], stride: usize, n: usize, p: usize, to: &mut [f32]) {
    /// A constant length compiles to two or four moves instead of a call.
    #[inline(always)]
    fn dense<const P: usize>(from: &[f32], stride: usize, to: &mut [f32]) {
        for (pixel, to) in to.as_chunks_mut::<P>().0.iter_mut().enumerate() {
            if let Some(from) = from[pixel * stride..].first_chunk::<P>() {
                *to = *from;
            }
        }
    }
    let to = &mut to[..n * p];
    compiled!(
        isa,
        match p {
            1 => dense::<1>(from, stride, to),
            2 => dense::<2>(from, stride, to),
            3 => dense::<3>(from, stride, to),
            4 => dense::<4>(from, stride, to),
            5 => dense::<5>(from, stride, to),
            6 => dense::<6>(from, stride, to),
            7 => dense::<7>(from, stride, to),
            8 => dense::<8>(from, stride, to),
            9 => dense::<9>(from, stride, to),
            10 => dense::<10>(from, stride, to),
            11 => dense::<11>(from, stride, to),
            12 => dense::<12>(from, stride, to),
            13 => dense::<13>(from, stride, to),
            _ => dense::<14>(from, stride, to),
        }
    );
}

/// `n` pixels of `width` floats, `stride` apart in `from`, padded with zeros to `lanes` (8, 16 or 32).
pub(super) fn pack_lanes(isa: Isa, from: &[f32], stride: usize, n: usize, width: usize, lanes: usize, to: &mut [f32]) {
    if width == lanes {
        return compiled!(isa, {
            for (pixel, to) in to[..n * lanes].as_chunks_mut::<8>().0.chunks_exact_mut(lanes / 8).enumerate() {
                for (to, from) in to.iter_mut().zip(from[pixel * stride..].as_chunks::<8>().0) {
                    *to = *from;
                }
            }
        });
    }
    for (pixel, to) in to[..n * lanes].chunks_exact_mut(lanes).enumerate() {
        to[..width].copy_from_slice(&from[pixel * stride..][..width]);
        to[width..].fill(0.0);
    }
}
