//! The input gradient of a first layer (under 8 input channels): the image's gradient, which every attack step takes.
//!
//! gx (N,H,W,C) from gy (N,OH,OW,O). Output channels are the lanes of the register tile, so one or three of them would
//! leave 13 to 15 of 16 lanes idle (1->32 3x3 28x28: 10 GFLOP/s). Instead the taps join the lanes: a linear layer over
//! the pixels of gy gives `t[p,q][tap,c] = sum_o gy[p,q,o] w[o,c,tap]`, and gx gathers
//! `gx[y,x,c] = sum over taps, ascending, of t[(y+P-i)/S,(x+P-j)/S][tap,c]`, where that is a pixel. A stride costs
//! nothing, and each term is one chain in a fixed order, so an image's bits depend on nothing else.
//! Called by `conv.rs` where `path.rs` says so.

use std::ops::Range;

use super::gemm;
use super::isa::{Isa, compiled};
use super::packed::Packed;
use super::scratch::{self, Shared, parallel, piece};
use crate::backend::layout::ConvShape;
use crate::backend::threads;
use crate::graph::op::Activation;

/// Bytes of a band's t: it is written and read once, so it should stay in L2.
const TERMS: usize = 256 << 10;

/// Packs w (O,C,KH,KW) as a linear layer from O to (tap, C).
pub(super) fn pack(isa: Isa, s: &ConvShape, w: &[f32]) -> Packed {
    let taps = s.kh * s.kw;
    Packed::new(isa, 1, s.o, taps * s.c, |term, _, o| w[(o * s.c + term % s.c) * taps + term / s.c])
}

/// The indices 0..n of gy's rows (or columns) with which tap `i` reaches a cell of `cells`.
fn sources(cells: &Range<usize>, i: usize, s: &ConvShape, n: usize) -> Range<usize> {
    let low = (cells.start + s.pad).saturating_sub(i).div_ceil(s.stride).min(n);
    low..(cells.end + s.pad).saturating_sub(i).div_ceil(s.stride).clamp(low, n)
}

/// gx (rows,H,W,C) from gy (rows,OH,OW,O).
pub(super) fn grad_input(s: &ConvShape, rows: usize, gy: &[f32], packed: &Packed, gx: &mut [f32]) {
    let (oh, ow, terms) = (s.oh(), s.ow(), packed.outputs());
    assert_eq!((packed.taps(), packed.channels(), terms), (1, s.o, s.kh * s.kw * s.c));
    let isa = packed.isa();
    // A band of gx rows needs their share of gy's rows and a halo.
    let fit = ((TERMS / (4 * ow * terms)).saturating_sub(s.kh) * s.stride).max(4);
    let want = (4 * threads::count()).div_ceil(rows.max(1));
    let bands = s.h.div_ceil(fit).max(want.min(s.h.div_ceil(8)));
    let out = Shared::new(gx);
    parallel(rows * bands, |task| {
        let (image, cells) = (task / bands, piece(s.h, bands, task % bands));
        let first = sources(&cells, s.kh - 1, s, oh).start;
        let own = first..sources(&cells, 0, s, oh).end.max(first);
        let pixels = own.len() * ow;
        // SAFETY: one task per band of rows of an image.
        let gx = unsafe { out.slice((image * s.h + cells.start) * s.w * s.c, cells.len() * s.w * s.c) };
        scratch::with(pixels * terms, |t| {
            let gy = &gy[image * s.y_len() + own.start * ow * s.o..][..pixels * s.o];
            let (gy, to) = (gemm::Source::dense(gy, s.o), (Shared::new(t), terms));
            // SAFETY: the whole of `t`, which is this task's.
            unsafe { gemm::product(0..pixels, 0..packed.blocks(), gy, packed, None, Activation::None, to) };
            compiled!(
                isa,
                match s.c {
                    1 => gather::<1>(s, &cells, own.start, t, gx),
                    3 => gather::<3>(s, &cells, own.start, t, gx),
                    _ => gather::<0>(s, &cells, own.start, t, gx),
                }
            );
        });
    });
}

/// Sums the terms of rows `cells` of gx; `t` begins at gy's row `first`. C = 0 where the channels are not known when compiled.
///
/// A tap goes over all columns that it reaches before the next tap does: no division in the inner loop, and each cell of gx
/// still adds its taps in ascending order.
#[inline(always)]
fn gather<const C: usize>(s: &ConvShape, cells: &Range<usize>, first: usize, t: &[f32], gx: &mut [f32]) {
    let c = if C == 0 { s.c } else { C };
    let (kw, ow) = (s.kw, s.ow());
    let terms = s.kh * kw * c;
    gx.fill(0.0);
    for (y, gx) in cells.clone().zip(gx.chunks_exact_mut(s.w * c)) {
        for i in 0..s.kh {
            for p in sources(&(y..y + 1), i, s, s.oh()) {
                let t = &t[(p - first) * ow * terms..][..ow * terms];
                for j in 0..kw {
                    let columns = sources(&(0..s.w), j, s, ow);
                    // the column that tap j of the first of them is
                    let x = (columns.start * s.stride + j).saturating_sub(s.pad);
                    let cells = gx[(x * c).min(s.w * c)..].chunks_mut(s.stride * c);
                    let terms = t[columns.start * terms..columns.end * terms].chunks_exact(terms);
                    for (gx, t) in cells.zip(terms) {
                        let t = &t[(i * kw + j) * c..][..c];
                        for k in 0..c {
                            gx[k] += t[k];
                        }
                    }
                }
            }
        }
    }
}
