//! Two-dimensional convolution and its input gradient:
//! `y[n,p,q,o] = sum over c,i,j of x[n,pS-P+i,qS-P+j,c] w[o,c,i,j]` (+ bias, ReLU).
//!
//! x (N,H,W,C), y (N,OH,OW,O), weights packed from OIHW. A task is an image's group of output rows and a range of
//! output blocks: it copies the input rows it needs, with their zero padding, into a panel `[channel block][pixel][16]`
//! that stays in L2 (at most 512 KB beside up to 590 KB of weights) and runs every tile of the range over it. For
//! stride S the columns of a row lie in S phases, so that neighbouring outputs still read neighbouring pixels.
//! First layers (1 or 3 channels) need no path of their own: a tap then has 1 or 3 steps of 28 FMAs (14 cycles each),
//! which hide the tap's few scalar instructions; measured, they reach half the peak, and 32 or 64 outputs per pixel
//! must be written to memory for 9 or 27 inputs read.
//! The input gradient is the same code on gy with rotated, transposed weights; a stride inserts zeros into the panel.
//! Towards an image of 1 or 3 channels that would fill 1 or 3 of 16 lanes: see `conv_narrow.rs`.
//! 1x1 convolutions are a linear layer over pixels (`gemm.rs`), so tiles there run across rows.
//! Called by the CPU backend's convolution nodes. The weight gradient is in `conv_weight.rs`.

use super::conv_narrow;
use super::gemm::{self, Source, copy16, divide, view_fits};
use super::isa::{Isa, compiled};
use super::packed::Packed;
use super::path::{self, Path};
use super::scratch::{self, Shared, parallel, piece};
use super::tile::{Forward, forward_kernel};
use crate::backend::ConvPath;
use crate::backend::layout::ConvShape;
use crate::backend::layout::len;
use crate::graph::op::Activation;

/// The longest sum that is one chain: 64 channels under 9 taps.
const CHAIN_MAX: usize = 576;

/// Terms of a piece of a longer one: a block of channels under 9 taps. A sum of K terms in pieces of b is wrong by some
/// sqrt(b / 2 + K / 2b) roundings of it: by that, 5 times less than one chain of VGG's 4608, and half as much as in pieces of
/// 576. Measured, VGG16's logits err by a fifth less than with pieces of 576, which take 2 % less time.
const PIECE: usize = 144;

/// Bytes of a task's panel.
const PANEL: usize = 512 << 10;

/// Packs w (O,C,KH,KW) for `forward`.
pub fn pack_forward(isa: Isa, s: &ConvShape, w: &[f32]) -> Packed {
    assert_eq!(w.len(), s.w_len());
    let taps = s.kh * s.kw;
    Packed::new(isa, taps, s.c, s.o, |o, tap, c| w[(o * s.c + c) * taps + tap])
}

/// Packs w (O,C,KH,KW), rotated by half a turn and transposed, for `grad_input`.
pub fn pack_grad_input(isa: Isa, s: &ConvShape, w: &[f32]) -> Packed {
    assert_eq!(w.len(), s.w_len());
    if path::grad_input(s, ConvPath::Exact) == Path::Narrow {
        return conv_narrow::pack(isa, s, w);
    }
    let taps = s.kh * s.kw;
    Packed::new(isa, taps, s.o, s.c, |c, tap, o| w[(o * s.c + c) * taps + (taps - 1 - tap)])
}

/// y (rows,OH,OW,O) from x (rows,H,W,C); `packed` by `pack_forward`.
pub fn forward(
    s: &ConvShape,
    rows: usize,
    x: &[f32],
    packed: &Packed,
    bias: Option<&[f32]>,
    act: Activation,
    y: &mut [f32],
) {
    assert_eq!((x.len(), y.len()), (len(&[rows, s.x_len()]), len(&[rows, s.y_len()])));
    forward_views(s, rows, Source::dense(x, s.c), packed, bias, act, y, s.o);
}

/// As [`forward`], to pixels that lie `y_pixel` floats apart; a 1x1 convolution also from pixels that lie apart, and with
/// an affine map and ReLU in front of it.
#[allow(clippy::too_many_arguments)] // one more than `forward`
pub fn forward_views(
    s: &ConvShape,
    rows: usize,
    x: Source<'_>,
    packed: &Packed,
    bias: Option<&[f32]>,
    act: Activation,
    y: &mut [f32],
    y_pixel: usize,
) {
    assert_eq!((packed.taps(), packed.channels(), packed.outputs()), (s.kh * s.kw, s.c, s.o));
    assert!(bias.is_none_or(|bias| bias.len() == s.o));
    if path::forward(s, ConvPath::Exact) == Path::Product {
        return gemm::forward_views(rows * s.h * s.w, x, packed, bias, act, y, y_pixel);
    }
    assert!(x.affine_relu.is_none() && x.pixel == s.c && x.x.len() == len(&[rows, s.x_len()]));
    assert!(view_fits(y.len(), len(&[rows, s.oh(), s.ow()]), s.o, y_pixel));
    let pad = s.pad as isize;
    let walk = Walk {
        c: s.c,
        h: s.h,
        w: s.w,
        oh: s.oh(),
        ow: s.ow(),
        kh: s.kh,
        kw: s.kw,
        stride: s.stride,
        dilation: 1,
        top: pad,
        left: pad,
    };
    walk.run(rows, x.x, packed, bias, act, (y, y_pixel));
}

/// gx (rows,H,W,C) from gy (rows,OH,OW,O); `packed` by `pack_grad_input`.
pub fn grad_input(s: &ConvShape, rows: usize, gy: &[f32], packed: &Packed, gx: &mut [f32]) {
    assert_eq!((gy.len(), gx.len()), (len(&[rows, s.y_len()]), len(&[rows, s.x_len()])));
    match path::grad_input(s, ConvPath::Exact) {
        Path::Product => return gemm::forward(rows * s.h * s.w, gy, packed, None, Activation::None, gx),
        Path::Narrow => return conv_narrow::grad_input(s, rows, gy, packed, gx),
        _ => {}
    }
    assert_eq!((packed.taps(), packed.channels(), packed.outputs()), (s.kh * s.kw, s.o, s.c));
    let walk = Walk {
        c: s.o,
        h: s.oh(),
        w: s.ow(),
        oh: s.h,
        ow: s.w,
        kh: s.kh,
        kw: s.kw,
        stride: 1,
        dilation: s.stride,
        // Negative where the padding exceeds the kernel: outer outputs then saw padding only.
        top: s.kh as isize - 1 - s.pad as isize,
        left: s.kw as isize - 1 - s.pad as isize,
    };
    walk.run(rows, gy, packed, None, Activation::None, (gx, s.c));
}

/// A convolution as the panel sees it: `dilation - 1` zeros between source cells, `top`/`left` rows of padding.
struct Walk {
    c: usize,
    h: usize,
    w: usize,
    oh: usize,
    ow: usize,
    kh: usize,
    kw: usize,
    stride: usize,
    dilation: usize,
    top: isize,
    left: isize,
}

/// The panel's columns: which source column goes where, and which positions are zero.
struct Columns {
    copies: Vec<(usize, usize)>,
    zeros: Vec<usize>,
    /// Pixels of a panel row: `stride` phases of `phase` pixels.
    line: usize,
    phase: usize,
}

/// The source index at padded position `t`, or None in padding and between dilated cells.
fn source(t: usize, pad: isize, dilation: usize, n: usize) -> Option<usize> {
    let at = usize::try_from(t as isize - pad).ok()?;
    (at % dilation == 0 && at / dilation < n).then_some(at / dilation)
}

impl Walk {
    fn columns(&self) -> Columns {
        let used = (self.ow - 1) * self.stride + self.kw;
        let phase = used.div_ceil(self.stride);
        let (mut copies, mut zeros) = (Vec::with_capacity(used), Vec::new());
        for t in 0..used {
            let to = (t % self.stride) * phase + t / self.stride;
            match source(t, self.left, self.dilation, self.w) {
                Some(from) => copies.push((to, from)),
                None => zeros.push(to),
            }
        }
        Columns { copies, zeros, line: phase * self.stride, phase }
    }

    /// y's pixels lie `y_pixel` floats apart.
    fn run(
        &self,
        rows: usize,
        x: &[f32],
        packed: &Packed,
        bias: Option<&[f32]>,
        act: Activation,
        (y, y_pixel): (&mut [f32], usize),
    ) {
        if rows == 0 || y.is_empty() {
            return;
        }
        let isa = packed.isa();
        let columns = self.columns();
        let line = columns.line;
        let taps: Vec<Vec<(usize, usize)>> = (0..self.oh).map(|p| self.taps(p, &columns)).collect();
        let row_bytes = 4 * line * self.c.next_multiple_of(16);
        let fit = ((PANEL / row_bytes).saturating_sub(self.kh) / self.stride + 1).min(self.oh);
        let least = rows * self.oh.div_ceil(fit);
        let (groups, splits) = divide(
            least,
            // Under 4 output rows the copied halo outweighs the gain.
            rows * self.oh.div_ceil(fit.min(4)),
            packed.blocks(),
            rows * self.h * self.w * self.c,
            packed.bytes() / 4,
        );
        let groups = groups.div_ceil(rows); // per image
        let (x_len, y_len) = (self.h * self.w * self.c, self.oh * self.ow * y_pixel);
        let tiles = self.ow.div_ceil(isa.pixels());
        let taps_all = self.kh * self.kw;
        // channels of a piece of the sum: whole blocks
        let chain = if self.c * taps_all <= CHAIN_MAX { self.c } else { (PIECE / taps_all / 16).max(1) * 16 };
        let out = Shared::new(y);
        parallel(rows * groups * splits, |task| {
            let (image, group, split) = (task / (groups * splits), task / splits % groups, task % splits);
            let own = piece(self.oh, groups, group);
            let height = (own.len() - 1) * self.stride + self.kh;
            let panel_stride = height * line * 16;
            scratch::with(panel_stride * self.c.div_ceil(16), |panel| {
                let image_x = &x[image * x_len..][..x_len];
                compiled!(isa, self.fill(image_x, own.start * self.stride, height, &columns, panel));
                for b in piece(packed.blocks(), splits, split) {
                    let block = packed.block(b);
                    let bias = bias.map_or(std::ptr::null(), |bias| bias[block.first..].as_ptr());
                    for (r, taps) in taps[own.clone()].iter().enumerate() {
                        for t in 0..tiles {
                            let tile = piece(self.ow, tiles, t);
                            let pixel = (own.start + r) * self.ow + tile.start;
                            let y = out.at(image * y_len + pixel * y_pixel + block.first);
                            for first in (0..self.c).step_by(chain) {
                                let last = first + chain >= self.c;
                                let call = Forward {
                                    x: panel[16 * (r * self.stride * line + tile.start) + first / 16 * panel_stride..]
                                        .as_ptr(),
                                    taps,
                                    all_taps: self.kh * self.kw,
                                    channels: chain.min(self.c - first),
                                    panel: panel_stride,
                                    w: block.w.wrapping_add(first * self.kh * self.kw * block.vectors * isa.lanes()),
                                    y,
                                    y_stride: y_pixel,
                                    width: block.width,
                                    from: std::ptr::null(),
                                    add: if first > 0 { y } else { std::ptr::null() },
                                    bias: if last { bias } else { std::ptr::null() },
                                    relu: last && act == Activation::Relu,
                                };
                                // SAFETY: the panel holds the rows and columns of every tap of these outputs, and the
                                // task alone writes these pixels of these output channels.
                                unsafe { forward_kernel(isa, tile.len(), block.vectors)(&call) }
                            }
                        }
                    }
                }
            });
        });
    }

    /// The taps of output row `p` that read a real row: panel offset from the pixel, and index. A padding row (or a
    /// zero row between dilated ones) would only add zeros: at 11x11 -> 13x13 a sixth of the work.
    fn taps(&self, p: usize, columns: &Columns) -> Vec<(usize, usize)> {
        (0..self.kh)
            .filter(|i| source(p * self.stride + i, self.top, self.dilation, self.h).is_some())
            .flat_map(|i| (0..self.kw).map(move |j| (i, j)))
            .map(|(i, j)| {
                let column = (j % self.stride) * columns.phase + j / self.stride;
                (16 * (i * columns.line + column), i * self.kw + j)
            })
            .collect()
    }

    /// Copies `height` rows from padded row `first` on: x (H,W,C) -> `[channel block][row][line][16]`.
    #[inline(always)]
    fn fill(&self, x: &[f32], first: usize, height: usize, columns: &Columns, panel: &mut [f32]) {
        let row_len = columns.line * 16;
        for r in 0..height {
            let Some(y) = source(first + r, self.top, self.dilation, self.h) else {
                continue; // no tap reads it
            };
            let row = y * self.w * self.c;
            for (b, c) in (0..self.c).step_by(16).enumerate() {
                let to = panel[(b * height + r) * row_len..][..row_len].as_chunks_mut::<16>().0;
                for &zero in &columns.zeros {
                    to[zero] = [0.0; 16];
                }
                for &(at, from) in &columns.copies {
                    copy16(&mut to[at], &x[row + from * self.c + c..], self.c - c);
                }
            }
        }
    }
}
