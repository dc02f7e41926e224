//! The weight and bias gradients of a convolution:
//! `dw[o,c,i,j] = sum over n,p,q of gy[n,p,q,o] x[n,pS-P+i,qS-P+j,c]`.
//!
//! x (N,H,W,C), gy (N,OH,OW,O), dw (O,C,KH,KW). A register tile holds up to 14 input channels x 32 output channels of
//! one tap and sums over the pixels of a band of output rows; a tap's runs cover only the pixels it really reads, so
//! padding costs nothing (and gy's NaN beside a padded cell stays out). Before that the band is copied into panels
//! x `[channel tile][pixel][P]` and gy `[output block][pixel][32]`: the kernel then streams two dense arrays, where
//! NHWC would give it strides of 4C bytes, which for C = 512 hit two sets of the L1 cache.
//! First layers (under 8 channels) take the taps as channels: a band's im2col (never a whole image's) and a 1x1 kernel.
//! Order: bands within a group, then groups, the number of groups a function of shape and rows only; so threads do
//! not change a bit. Called by the CPU backend's convolution nodes; `gemm.rs` uses the two copies.

use rayon::prelude::*;

use super::conv::ConvShape;
use super::isa::Isa;
use super::scratch::{self, Shared, len, parallel, piece};
use super::tile::{Weight, weight_kernel};

/// Bytes of all partial sums together, and groups times output blocks (the tasks a large machine can share).
const PARTIALS: usize = 32 << 20;
const GROUPS: usize = 32;
/// Pixels of a band: x and gy tiles of 200 bytes a pixel beside the L1 cache, accumulators loaded once per band.
const PIXELS: usize = 512;
/// Bytes of a band's panels in L2.
const PANEL: usize = 1 << 20;

/// The sizes that decide the order of summation: they depend on shape, rows and instruction set only.
struct Plan {
    isa: Isa,
    /// Channels and taps as the kernel sees them: im2col turns (C, KH x KW) into (KH x KW x C, 1).
    depth: usize,
    taps: usize,
    gather: bool,
    tiles: usize,
    /// Output rows of a band and bands of an image.
    band: usize,
    bands: usize,
    groups: usize,
}

impl Plan {
    fn new(isa: Isa, s: &ConvShape, rows: usize) -> Plan {
        let gather = s.c < 8 && s.kh * s.kw > 1;
        let (depth, taps) = if gather { (s.c * s.kh * s.kw, 1) } else { (s.c, s.kh * s.kw) };
        let pixels = PIXELS.min(PANEL / (4 * (s.c + s.o)));
        let bands = s.oh().div_ceil((pixels / s.ow()).max(1));
        let partial = 4 * depth * taps * s.o.next_multiple_of(isa.lanes());
        Plan {
            isa,
            depth,
            taps,
            gather,
            tiles: depth.div_ceil(isa.pixels()),
            band: s.oh().div_ceil(bands),
            bands: s.oh().div_ceil(s.oh().div_ceil(bands)),
            // Groups and output blocks together make the tasks; more groups than that only cost reductions.
            groups: (PARTIALS / partial.max(1)).clamp(1, GROUPS.div_ceil(s.o.div_ceil(isa.block()))).min(rows * bands),
        }
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
    let partial = plan.depth * plan.taps * s.o.next_multiple_of(isa.lanes());
    scratch::with(partial * plan.groups, |partials| {
        let blocks = s.o.div_ceil(isa.block());
        let threads = rayon::current_num_threads();
        let splits = if threads == 1 { 1 } else { (4 * threads).div_ceil(plan.groups).min(blocks) };
        let out = Shared::new(partials);
        parallel(plan.groups * splits, |task| {
            let (group, split) = (task / splits, task % splits);
            let sum = out.at(group * partial);
            let units = piece(rows * plan.bands, plan.groups, group);
            for unit in units.clone() {
                band(&plan, s, x, gy, unit, piece(blocks, splits, split), sum, unit > units.start);
            }
        });
        reduce(&plan, s, partials, dw);
    });
}

/// Adds one band's share of the output blocks `blocks` to `sum`, laid out
/// `[output block][channel][tap][lanes of block]`.
#[allow(clippy::too_many_arguments)]
fn band(
    plan: &Plan,
    s: &ConvShape,
    x: &[f32],
    gy: &[f32],
    unit: usize,
    blocks: std::ops::Range<usize>,
    sum: *mut f32,
    carry: bool,
) {
    let isa = plan.isa;
    let (oh, ow) = (s.oh(), s.ow());
    let (image, top) = (unit / plan.bands, unit % plan.bands * plan.band);
    let height = plan.band.min(oh - top);
    // The input rows that the band's taps read.
    let low = (top * s.stride).saturating_sub(s.pad).min(s.h);
    let high = ((top + height - 1) * s.stride + s.kh).saturating_sub(s.pad).clamp(low, s.h);
    let x_pixels = if plan.gather { height * ow } else { (high - low) * s.w };
    let g_pixels = height * ow;
    let image_x = &x[image * s.x_len()..][..s.x_len()];
    let image_g = &gy[image * s.y_len() + top * ow * s.o..][..g_pixels * s.o];
    let matrix = if plan.gather { x_pixels * plan.depth } else { 0 };
    let g_len = (g_pixels * blocks.len() * isa.block()).next_multiple_of(16);
    scratch::with(g_len + x_pixels * plan.depth + matrix, |panel| {
        let (g_panel, rest) = panel.split_at_mut(g_len);
        let (x_panel, matrix) = rest.split_at_mut(x_pixels * plan.depth);
        let pixels: &[f32] = if plan.gather {
            isa.run(|| match s.kw * s.c {
                3 => gather::<3>(s, image_x, top, height, matrix),
                9 => gather::<9>(s, image_x, top, height, matrix),
                _ => gather::<0>(s, image_x, top, height, matrix),
            });
            matrix
        } else {
            &image_x[low * s.w * s.c..high * s.w * s.c]
        };
        let x_panel = if plan.tiles == 1 {
            pixels // already [pixel][P]
        } else {
            for t in 0..plan.tiles {
                let tile = piece(plan.depth, plan.tiles, t);
                let to = &mut x_panel[tile.start * x_pixels..];
                pack_pixels(isa, pixels.get(tile.start..).unwrap_or(&[]), plan.depth, x_pixels, tile.len(), to);
            }
            x_panel
        };
        for b in blocks {
            let first = b * isa.block();
            let width = isa.block().min(s.o - first);
            let vectors = width.div_ceil(isa.lanes());
            let lanes = vectors * isa.lanes();
            // gy that is one block wide already has the panel's order. Nine taps would pay for its lack of alignment.
            let g = if s.o == lanes && (plan.taps == 1 || image_g.as_ptr().align_offset(64) == 0) {
                image_g
            } else {
                pack_lanes(isa, &image_g[first..], s.o, g_pixels, width, lanes, g_panel);
                &*g_panel
            };
            for t in 0..plan.tiles {
                let tile = piece(plan.depth, plan.tiles, t);
                let kernel = weight_kernel(isa, tile.len(), vectors);
                for tap in 0..plan.taps {
                    let (rows, columns) = if plan.gather {
                        (top..top + height, 0..ow)
                    } else {
                        (valid(tap / s.kw, s, s.h, top..top + height), valid(tap % s.kw, s, s.w, 0..ow))
                    };
                    let (x_at, x_row, x_step) = if plan.gather {
                        (0, ow, 1)
                    } else if rows.is_empty() || columns.is_empty() {
                        (0, 0, 0)
                    } else {
                        let y = rows.start * s.stride + tap / s.kw - s.pad - low;
                        let x = columns.start * s.stride + tap % s.kw - s.pad;
                        (y * s.w + x, s.stride * s.w, s.stride)
                    };
                    let p = tile.len();
                    let call = Weight {
                        x: x_panel[tile.start * x_pixels..].as_ptr().wrapping_add(x_at * p),
                        x_step: x_step * p,
                        x_row: x_row * p,
                        g: g.as_ptr().wrapping_add((rows.start.saturating_sub(top) * ow + columns.start) * lanes),
                        g_row: ow * lanes,
                        // An empty range still runs: the first band must clear the sums.
                        rows: if columns.is_empty() { 0 } else { rows.len() },
                        len: columns.len(),
                        y: sum.wrapping_add(first * plan.depth * plan.taps + (tile.start * plan.taps + tap) * lanes),
                        y_stride: plan.taps * lanes,
                        width: lanes,
                        carry,
                    };
                    // SAFETY: the runs lie inside both panels by `valid`, and this task alone owns the sums of its
                    // group and output blocks.
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

/// The im2col rows of a band: `[pixel][tap][channel]`, zeros for padding. RUN is KW x C, or 0 if unknown.
#[inline(always)]
fn gather<const RUN: usize>(s: &ConvShape, x: &[f32], top: usize, height: usize, matrix: &mut [f32]) {
    let run = if RUN == 0 { s.kw * s.c } else { RUN };
    let (depth, ow) = (s.kh * run, s.ow());
    let pixels = (top..top + height).flat_map(|p| (0..ow).map(move |q| (p * s.stride, q * s.stride)));
    for (out, (y, q)) in matrix.chunks_exact_mut(depth).zip(pixels) {
        for (i, out) in out.chunks_exact_mut(run).enumerate() {
            if y + i < s.pad || y + i - s.pad >= s.h {
                out.fill(0.0);
                continue;
            }
            let row = &x[(y + i - s.pad) * s.w * s.c..][..s.w * s.c];
            if q >= s.pad && q + s.kw <= s.w + s.pad {
                let from = &row[(q - s.pad) * s.c..][..run];
                out.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            } else {
                for (j, out) in out.chunks_exact_mut(s.c).enumerate() {
                    match (q + j).checked_sub(s.pad) {
                        Some(column) if column < s.w => out.copy_from_slice(&row[column * s.c..][..s.c]),
                        _ => out.fill(0.0),
                    }
                }
            }
        }
    }
}

/// Sums the groups in order and turns `[output block][channel][tap][lane]` into OIHW.
fn reduce(plan: &Plan, s: &ConvShape, partials: &[f32], dw: &mut [f32]) {
    let isa = plan.isa;
    let depth = s.c * s.kh * s.kw;
    let partial = depth * s.o.next_multiple_of(isa.lanes());
    dw.par_chunks_mut(isa.block() * depth).enumerate().for_each(|(b, out)| {
        let first = b * isa.block();
        let lanes = isa.block().min(s.o - first).next_multiple_of(isa.lanes());
        // 128 rows of 32 lanes: 16 KB, read by columns out of L1.
        for top in (0..depth).step_by(128) {
            let at = (first * depth) + top * lanes;
            let len = 128.min(depth - top) * lanes;
            if plan.groups == 1 {
                isa.run(|| turn(plan, s, &partials[at..][..len], lanes, top, out));
                continue;
            }
            scratch::with(len, |sum| {
                isa.run(|| {
                    sum.copy_from_slice(&partials[at..][..len]);
                    for group in 1..plan.groups {
                        let part = &partials[group * partial + at..][..len];
                        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                    }
                    turn(plan, s, sum, lanes, top, out);
                });
            });
        }
    });
}

/// `sum` (rows from `top`, lanes) -> out (lanes, depth), whose rows are OIHW's.
#[inline(always)]
fn turn(plan: &Plan, s: &ConvShape, sum: &[f32], lanes: usize, top: usize, out: &mut [f32]) {
    let taps = s.kh * s.kw;
    let depth = s.c * taps;
    let rows = sum.len() / lanes;
    if plan.gather {
        for (o, out) in out.chunks_exact_mut(depth).enumerate() {
            for row in 0..rows {
                out[(top + row) % s.c * taps + (top + row) / s.c] = sum[row * lanes + o];
            }
        }
        return;
    }
    let squares = rows / 8 * 8;
    for (block, out) in out.chunks_mut(8 * depth).enumerate() {
        for row in (0..squares).step_by(8) {
            // Eight rows by eight lanes in registers; the scalar loop below costs several times as much.
            let square: [[f32; 8]; 8] = std::array::from_fn(|r| {
                let from = &sum[(row + r) * lanes + 8 * block..];
                std::array::from_fn(|o| from[..8][o])
            });
            for (o, out) in out.chunks_exact_mut(depth).enumerate().take(8) {
                let column: [f32; 8] = std::array::from_fn(|r| square[r][o]);
                out[top + row..][..8].copy_from_slice(&column);
            }
        }
        for (o, out) in out.chunks_exact_mut(depth).enumerate() {
            for row in squares..rows {
                out[top + row] = sum[row * lanes + 8 * block + o];
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
            isa.run(|| {
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
    isa.run(|| match p {
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
    });
}

/// `n` pixels of `width` floats, `stride` apart in `from`, padded with zeros to `lanes` (8, 16 or 32).
pub(super) fn pack_lanes(isa: Isa, from: &[f32], stride: usize, n: usize, width: usize, lanes: usize, to: &mut [f32]) {
    if width == lanes {
        return isa.run(|| {
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
