//! The three micro-kernels: a register tile of P x V vectors, accumulated by broadcast-FMA.
//!
//! `forward`: P pixels x V vectors of output channels; serves convolutions, their input gradients and linear layers.
//! `turned`: P input channels by R rows, each a vector of partial sums over the outputs: the gradient of a linear layer's input
//! from the weights as `forward` reads them, so that half a gigabyte of VGG's is not held twice.
//! `weight`: P input channels x V vectors of output channels, summed over pixels; serves both weight gradients.
//! Every element is ONE chain of FMAs in a fixed order, so its bits do not depend on P, V or the cut into tiles.
//! AVX-512: P <= 14, V <= 2 (28 accumulators, 2 weights, 1 broadcast: 31 of 32 registers, no spill; 28 FMAs need 16
//! loads, so the FMA ports and not the load ports bind). A step holds P*V independent chains; 8 hide the FMA latency.
//! Called by `conv.rs`, `conv_weight.rs`, `gemm.rs` and `intervene.rs`.

#![allow(clippy::needless_range_loop)] // indices into register arrays, unrolled; iterators read worse

use super::isa::{Isa, Level};
use super::vector::{Array8, Vector};

/// One call of the forward kernel.
///
/// Input panel: `[channel block][pixel][16]`; the pixel stride is the constant 16, so that every broadcast is a
/// register plus a constant displacement. Weights: `[channel block][tap][channel of block][V * LANES]`, zero-padded to
/// whole vectors. Channel blocks are the outer loop: a block's pixels, read by every tap, then stay in L1.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a> {
    /// The panel at the tile's first pixel and tap offset 0.
    pub x: *const f32,
    /// Per tap: where its pixels begin, in floats from `x`, and its index in the packed weights. Taps left out are
    /// those that read padding only.
    pub taps: &'a [(usize, usize)],
    /// Taps of the packed weights.
    pub all_taps: usize,
    pub channels: usize,
    /// Floats from one channel block of the panel to the next.
    pub panel: usize,
    pub w: *const f32,
    /// The first output; pixels lie `y_stride` floats apart, and `width` of the V * LANES channels are stored.
    pub y: *mut f32,
    pub y_stride: usize,
    pub width: usize,
    /// Where the sums start: null for zero, or values laid out as `y` (`y` itself: a long sum cut in two stays one
    /// chain).
    pub from: *const f32,
    /// Added to the finished sum: null, or values laid out as `y` (`y` itself: a sum of sums). In f32 a chain of n products
    /// is wrong by some sqrt(n) roundings of it: as one chain, VGG's 4608 and 25088 terms came out 3 to 4 times as coarse as
    /// PyTorch's.
    pub add: *const f32,
    /// `width` floats added at the end, or null.
    pub bias: *const f32,
    pub relu: bool,
}

/// One call of the weight kernel: `y[j][o] (+)= sum over pixels of x[pixel][j] g[pixel][o]`, `rows` x `len` pixels.
#[derive(Clone, Copy)]
pub(super) struct Weight {
    /// P floats per pixel, pixels `x_step` apart (P, or a stride of them), rows `x_row` apart.
    pub x: *const f32,
    pub x_step: usize,
    pub x_row: usize,
    /// V * LANES floats per pixel, pixels adjacent, rows `g_row` apart.
    pub g: *const f32,
    pub g_row: usize,
    pub rows: usize,
    pub len: usize,
    /// P rows `y_stride` apart, of which `width` floats are stored.
    pub y: *mut f32,
    pub y_stride: usize,
    pub width: usize,
    /// Start from what `y` holds.
    pub carry: bool,
}

/// One call of the turned kernel: `y[r][i] = sum over blocks and lanes of g[r][block * lanes + lane] w[block][i][lane]`.
#[derive(Clone, Copy)]
pub(super) struct Turned {
    /// R rows of `outputs` floats, `outputs` apart.
    pub g: *const f32,
    pub outputs: usize,
    /// The first of P inputs in the first block of outputs; the lanes of an input are adjacent, those of a block `lanes` but for the
    /// last, which has as many whole vectors as it needs.
    pub w: *const f32,
    pub lanes: usize,
    /// Inputs of the layer.
    pub depth: usize,
    /// Number of the first of the P inputs.
    pub first: usize,
    /// R rows, `depth` apart, from the first of the P inputs on.
    pub y: *mut f32,
}

/// Blocks of outputs that are asked for ahead: from one to the next the weights lie megabytes apart.
const AHEAD: usize = 8;

#[inline(always)]
unsafe fn turned<S: Vector, const P: usize, const R: usize>(t: &Turned) {
    // SAFETY: the pointers of `t` cover the extents its fields state; prefetches may point anywhere.
    unsafe {
        let mut acc = [[S::zero(); P]; R];
        let mut first = 0;
        while first < t.outputs {
            let lanes = t.lanes.min((t.outputs - first).next_multiple_of(S::LANES));
            let w = t.w.add(first * t.depth + t.first * lanes);
            for line in 0..P * lanes / 16 {
                S::prefetch(w.wrapping_add(AHEAD * t.lanes * t.depth + 16 * line));
            }
            let mut lane = 0;
            while lane < lanes {
                let mut g = [S::zero(); R];
                for r in 0..R {
                    g[r] = S::load_first(t.g.add(r * t.outputs + first + lane), t.outputs - first - lane);
                }
                for p in 0..P {
                    let weights = S::load(w.add(p * lanes + lane));
                    for r in 0..R {
                        acc[r][p] = g[r].fma(weights, acc[r][p]);
                    }
                }
                lane += S::LANES;
            }
            first += t.lanes;
        }
        for r in 0..R {
            for p in 0..P {
                *t.y.add(r * t.depth + p) = acc[r][p].sum();
            }
        }
    }
}

pub(super) type TurnedFn = unsafe fn(&Turned);
pub(super) type ForwardFn = unsafe fn(&Forward);
pub(super) type WeightFn = unsafe fn(&Weight);

/// `acc[p][v] += x[p * STRIDE] * w[v]`.
#[inline(always)]
unsafe fn step<S: Vector, const P: usize, const V: usize, const STRIDE: usize>(
    acc: &mut [[S; V]; P],
    x: *const f32,
    w: *const f32,
) {
    // SAFETY: the callers pass pointers to P pixels and V vectors.
    unsafe {
        let mut weights = [S::zero(); V];
        for v in 0..V {
            weights[v] = S::load(w.add(v * S::LANES));
        }
        for p in 0..P {
            let b = S::splat(x.add(p * STRIDE));
            for v in 0..V {
                acc[p][v] = b.fma(weights[v], acc[p][v]);
            }
        }
    }
}

#[inline(always)]
unsafe fn start<S: Vector, const P: usize, const V: usize>(
    from: *const f32,
    stride: usize,
    width: usize,
) -> [[S; V]; P] {
    // SAFETY: from is null or holds P rows of `width` floats, `stride` apart.
    unsafe {
        let mut acc = [[S::zero(); V]; P];
        if !from.is_null() {
            for p in 0..P {
                for v in 0..V {
                    acc[p][v] =
                        S::load_first(from.wrapping_add(p * stride + v * S::LANES), width.saturating_sub(v * S::LANES));
                }
            }
        }
        acc
    }
}

#[inline(always)]
unsafe fn forward<S: Vector, const P: usize, const V: usize>(t: &Forward) {
    // SAFETY: the pointers of `t` cover the extents its fields state.
    unsafe {
        // a store that misses the L1 cache holds up those behind it; lines asked for here are there when the sums are stored
        for p in 0..P {
            for v in 0..V {
                S::prefetch(t.y.wrapping_add(p * t.y_stride + v * S::LANES));
            }
        }
        let mut acc = start::<S, P, V>(t.from, t.y_stride, t.width);
        let mut w = t.w;
        let block = V * S::LANES;
        let mut panel = t.x;
        let mut left = t.channels;
        while left >= 16 {
            for &(x, tap) in t.taps {
                let (x, w) = (panel.add(x), w.add(16 * tap * block));
                for u in 0..4 {
                    let (x, w) = (x.add(4 * u), w.add(4 * u * block));
                    step::<S, P, V, 16>(&mut acc, x, w);
                    step::<S, P, V, 16>(&mut acc, x.add(1), w.add(block));
                    step::<S, P, V, 16>(&mut acc, x.add(2), w.add(2 * block));
                    step::<S, P, V, 16>(&mut acc, x.add(3), w.add(3 * block));
                }
            }
            panel = panel.wrapping_add(t.panel); // the last block has no successor
            w = w.wrapping_add(16 * t.all_taps * block);
            left -= 16;
        }
        if left > 0 {
            for &(x, tap) in t.taps {
                let (mut x, mut w) = (panel.add(x), w.add(left * tap * block));
                for _ in 0..left {
                    step::<S, P, V, 16>(&mut acc, x, w);
                    x = x.add(1);
                    w = w.add(block);
                }
            }
        }
        // one loop a thing: as one, it was too long to be unrolled for 14 x 2, and the compiler then kept the sums in memory
        // through every step, at 40 % of the speed
        let rest = |v: usize| t.width.saturating_sub(v * S::LANES);
        if !t.add.is_null() {
            for p in 0..P {
                for v in 0..V {
                    let before = S::load_first(t.add.wrapping_add(p * t.y_stride + v * S::LANES), rest(v));
                    acc[p][v] = before.add(acc[p][v]);
                }
            }
        }
        if !t.bias.is_null() {
            for v in 0..V {
                let bias = S::load_first(t.bias.wrapping_add(v * S::LANES), rest(v));
                for p in 0..P {
                    acc[p][v] = acc[p][v].add(bias);
                }
            }
        }
        if t.relu {
            for p in 0..P {
                for v in 0..V {
                    acc[p][v] = acc[p][v].relu();
                }
            }
        }
        for p in 0..P {
            for v in 0..V {
                acc[p][v].store_first(t.y.wrapping_add(p * t.y_stride + v * S::LANES), rest(v));
            }
        }
    }
}

#[inline(always)]
unsafe fn weight<S: Vector, const P: usize, const V: usize>(t: &Weight) {
    // SAFETY: the pointers of `t` cover the extents its fields state.
    unsafe {
        let from = if t.carry { t.y } else { std::ptr::null_mut() };
        let mut acc = start::<S, P, V>(from, t.y_stride, t.width);
        let block = V * S::LANES;
        for row in 0..t.rows {
            let mut x = t.x.add(row * t.x_row);
            let mut g = t.g.add(row * t.g_row);
            let mut left = t.len;
            while left >= 2 {
                step::<S, P, V, 1>(&mut acc, x, g);
                step::<S, P, V, 1>(&mut acc, x.add(t.x_step), g.add(block));
                x = x.wrapping_add(2 * t.x_step);
                g = g.wrapping_add(2 * block);
                left -= 2;
            }
            if left > 0 {
                step::<S, P, V, 1>(&mut acc, x, g);
            }
        }
        for p in 0..P {
            for v in 0..V {
                acc[p][v]
                    .store_first(t.y.wrapping_add(p * t.y_stride + v * S::LANES), t.width.saturating_sub(v * S::LANES));
            }
        }
    }
}

/// The kernels of one instruction set: a wrapper per kernel and tables over (V, P).
macro_rules! kernels {
    ($name:ident, $vector:ty, [$($p:literal)*] $(, $feature:literal)?) => {
        mod $name {
            use super::*;
            #[allow(unused_imports)]
            #[cfg(target_arch = "x86_64")]
            use std::arch::x86_64::{__m256, __m512};

            $(#[target_feature(enable = $feature)])?
            unsafe fn forward_<const P: usize, const V: usize>(t: &Forward) {
                // SAFETY: the caller's promise about `t`; the features are this function's own.
                unsafe { forward::<$vector, P, V>(t) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn weight_<const P: usize, const V: usize>(t: &Weight) {
                // SAFETY: as above.
                unsafe { weight::<$vector, P, V>(t) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn turned_<const P: usize, const R: usize>(t: &Turned) {
                // SAFETY: as above.
                unsafe { turned::<$vector, P, R>(t) }
            }

            /// For 1 and for `TURNED` inputs, by rows.
            pub(super) static TURNED: [[TurnedFn; 3]; 2] =
                [[turned_::<1, 1>, turned_::<1, 2>, turned_::<1, 3>], [turned_::<8, 1>, turned_::<8, 2>, turned_::<8, 3>]];
            pub(super) static FORWARD: [&[ForwardFn]; 2] = [&[$(forward_::<$p, 1>),*], &[$(forward_::<$p, 2>),*]];
            pub(super) static WEIGHT: [&[WeightFn]; 2] = [&[$(weight_::<$p, 1>),*], &[$(weight_::<$p, 2>),*]];
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(avx512, __m512, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], "avx512f");
#[cfg(target_arch = "x86_64")]
kernels!(avx2, __m256, [1 2 3 4 5 6], "avx2,fma");
kernels!(portable, Array8, [1 2 3 4]);

/// The forward kernel for `p` pixels (1..=isa.pixels()) and `v` vectors (1 or 2). The Isa vouches for the features.
pub(super) fn forward_kernel(isa: Isa, p: usize, v: usize) -> ForwardFn {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::FORWARD[v - 1][p - 1],
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::FORWARD[v - 1][p - 1],
        _ => portable::FORWARD[v - 1][p - 1],
    }
}

/// Inputs and rows of the largest turned kernel.
pub(super) const TURNED: [usize; 2] = [8, 3];

/// The turned kernel for one input or [`TURNED`] of them, and 1 to 3 rows.
pub(super) fn turned_kernel(isa: Isa, all: bool, rows: usize) -> TurnedFn {
    let kernels = match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::TURNED,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::TURNED,
        _ => portable::TURNED,
    };
    kernels[usize::from(all)][rows - 1]
}

/// The weight kernel for `p` input channels and `v` vectors.
pub(super) fn weight_kernel(isa: Isa, p: usize, v: usize) -> WeightFn {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::WEIGHT[v - 1][p - 1],
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::WEIGHT[v - 1][p - 1],
        _ => portable::WEIGHT[v - 1][p - 1],
    }
}
