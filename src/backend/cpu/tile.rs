//! The four micro-kernels: register tiles of vectors, accumulated by FMA.
//!
//! `forward`: P pixels x V vectors of output channels; serves convolutions and their input gradients.
//! `weight`: P input channels x V vectors of output channels, summed over pixels; serves both weight gradients.
//! `dot`: O outputs x R rows, each a vector of partial sums over the inputs: a linear layer from its weights as they lie.
//! `turned`: P rows x V vectors of inputs, summed over outputs: the gradient towards its input, from the same.
//! Every lane is ONE chain of FMAs in a fixed order, so its bits do not depend on P, V, O, R or the cut into tiles.
//! AVX-512: P <= 14, V <= 2 (28 accumulators, 2 weights, 1 broadcast: 31 of 32 registers, no spill; 28 FMAs need 16
//! loads, so the FMA ports and not the load ports bind). A step holds P*V independent chains; 8 hide the FMA latency.
//! Called by `conv.rs`, `conv_weight.rs`, `gemm.rs`, `intervene.rs` and `linear.rs`.

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

/// One call of the dot kernel: `y[r][o] = sum over i of x[r][i] w[o][i]`, lanes along i: a sum of lanes at the end.
///
/// The weights are read as they lie. A long sum is cut into pieces, and each lane adds these up.
#[derive(Clone, Copy)]
pub(super) struct Dot {
    /// R rows of `depth` floats: `[block of 16][row][16]`.
    pub x: *const f32,
    /// O rows of `depth` weights, `w_row` apart.
    pub w: *const f32,
    pub w_row: usize,
    pub depth: usize,
    /// What the next piece has for `w`, at whatever address: it is asked for meanwhile.
    pub next: *const f32,
    /// O x R vectors: the pieces so far, unless this is the `first`.
    pub sums: *mut f32,
    pub first: bool,
    /// R rows of O outputs, `y_row` apart, which the `last` piece writes.
    pub y: *mut f32,
    pub y_row: usize,
    pub last: bool,
    /// O floats added at the end, or null.
    pub bias: *const f32,
    pub relu: bool,
}

/// One call of the turned kernel: `y[r][i] (+)= sum over o of g[o][r] w[o][i]`, lanes along i.
#[derive(Clone, Copy)]
pub(super) struct Turned {
    /// P floats an output.
    pub g: *const f32,
    /// `outputs` rows of `width` weights, `w_row` apart.
    pub w: *const f32,
    pub w_row: usize,
    pub outputs: usize,
    /// P rows `y_row` apart, of which `width` floats are stored: V vectors, or a part of one.
    pub y: *mut f32,
    pub y_row: usize,
    pub width: usize,
    /// Add the sums to what `y` holds.
    pub add: bool,
}

#[inline(always)]
unsafe fn dot<S: Vector, const O: usize, const R: usize>(t: &Dot) {
    // SAFETY: the pointers of `t` cover the extents its fields state; prefetches may point anywhere.
    unsafe {
        let mut acc = [[S::zero(); R]; O];
        let (mut x, mut w, mut next) = (t.x, t.w, t.next);
        let mut left = t.depth;
        while left >= 16 {
            for o in 0..O {
                S::prefetch_far(next.wrapping_add(o * t.w_row));
            }
            for u in 0..16 / S::LANES {
                for o in 0..O {
                    let weights = S::load(w.add(o * t.w_row + u * S::LANES));
                    for r in 0..R {
                        acc[o][r] = weights.fma(S::load(x.add(r * 16 + u * S::LANES)), acc[o][r]);
                    }
                }
            }
            x = x.wrapping_add(R * 16); // the last block has no successor
            w = w.wrapping_add(16);
            next = next.wrapping_add(16);
            left -= 16;
        }
        let mut lane = 0;
        while lane < left {
            for o in 0..O {
                let weights = S::load_first(w.add(o * t.w_row + lane), left - lane);
                for r in 0..R {
                    acc[o][r] = weights.fma(S::load_first(x.add(r * 16 + lane), left - lane), acc[o][r]);
                }
            }
            lane += S::LANES;
        }
        if !t.first {
            for o in 0..O {
                for r in 0..R {
                    acc[o][r] = S::load(t.sums.add((o * R + r) * S::LANES)).add(acc[o][r]);
                }
            }
        }
        for o in 0..O {
            for r in 0..R {
                acc[o][r].store(t.sums.add((o * R + r) * S::LANES));
            }
        }
        if t.last {
            // from memory: summed up in registers they were too much to be unrolled, and lay in memory through every step
            for k in 0..O * R {
                let (o, r) = (k / R, k % R);
                let mut sum = S::load(t.sums.add(k * S::LANES)).sum();
                if !t.bias.is_null() {
                    sum += *t.bias.add(o);
                }
                // a NaN stays
                *t.y.add(r * t.y_row + o) = if t.relu && sum < 0.0 { 0.0 } else { sum };
            }
        }
    }
}

#[inline(always)]
unsafe fn turned<S: Vector, const P: usize, const V: usize>(t: &Turned) {
    // SAFETY: the pointers of `t` cover the extents its fields state; prefetches may point anywhere.
    unsafe {
        let mut acc = [[S::zero(); V]; P];
        for o in 0..t.outputs {
            let (g, w) = (t.g.add(o * P), t.w.add(o * t.w_row));
            let mut weights = [S::zero(); V];
            for v in 0..V {
                // of the tile after the next
                S::prefetch_far(w.wrapping_add((2 * V + v) * S::LANES));
                weights[v] = if V > 1 { S::load(w.add(v * S::LANES)) } else { S::load_first(w, t.width) };
            }
            for p in 0..P {
                let b = S::splat(g.add(p));
                for v in 0..V {
                    acc[p][v] = b.fma(weights[v], acc[p][v]);
                }
            }
        }
        for p in 0..P {
            for v in 0..V {
                let (y, rest) = (t.y.wrapping_add(p * t.y_row + v * S::LANES), t.width.saturating_sub(v * S::LANES));
                let sum = if t.add { S::load_first(y, rest).add(acc[p][v]) } else { acc[p][v] };
                sum.store_first(y, rest);
            }
        }
    }
}

/// The most rows of a dot kernel.
pub(super) const DOT_ROWS: usize = 4;
/// Vectors of a turned kernel, but for the last inputs.
pub(super) const TURNED_VECTORS: usize = 4;

pub(super) type DotFn = unsafe fn(&Dot);
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

/// The kernels of one instruction set.
struct Tables {
    /// By vectors, then pixels.
    forward: [&'static [ForwardFn]; 2],
    /// By vectors, then input channels.
    weight: [&'static [WeightFn]; 2],
    /// By rows, then outputs.
    dot: [&'static [DotFn]; DOT_ROWS],
    /// For one vector and for all, by rows.
    turned: [&'static [TurnedFn]; 2],
}

/// A wrapper per kernel, and the tables of them.
macro_rules! kernels {
    ($name:ident, $vector:ty, [$($p:literal)*], [$($o:literal)*] $(, $feature:literal)?) => {
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
            unsafe fn dot_<const O: usize, const R: usize>(t: &Dot) {
                // SAFETY: as above.
                unsafe { dot::<$vector, O, R>(t) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn turned_<const P: usize, const V: usize>(t: &Turned) {
                // SAFETY: as above.
                unsafe { turned::<$vector, P, V>(t) }
            }

            pub(super) static TABLES: Tables = Tables {
                forward: [&[$(forward_::<$p, 1>),*], &[$(forward_::<$p, 2>),*]],
                weight: [&[$(weight_::<$p, 1>),*], &[$(weight_::<$p, 2>),*]],
                dot: [&[$(dot_::<$o, 1>),*], &[$(dot_::<$o, 2>),*], &[$(dot_::<$o, 3>),*], &[$(dot_::<$o, 4>),*]],
                turned: [&[$(turned_::<$o, 1>),*], &[$(turned_::<$o, TURNED_VECTORS>),*]],
            };
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(avx512, __m512, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], [1 2 3 4 5 6], "avx512f");
#[cfg(target_arch = "x86_64")]
kernels!(avx2, __m256, [1 2 3 4 5 6], [1 2 3], "avx2,fma");
kernels!(portable, Array8, [1 2 3 4], [1 2]);

/// The tables of `isa`, which vouches for the features.
fn tables(isa: Isa) -> &'static Tables {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => &avx512::TABLES,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => &avx2::TABLES,
        _ => &portable::TABLES,
    }
}

/// The forward kernel for `p` pixels (1..=isa.pixels()) and `v` vectors (1 or 2).
pub(super) fn forward_kernel(isa: Isa, p: usize, v: usize) -> ForwardFn {
    tables(isa).forward[v - 1][p - 1]
}

/// The weight kernel for `p` input channels and `v` vectors.
pub(super) fn weight_kernel(isa: Isa, p: usize, v: usize) -> WeightFn {
    tables(isa).weight[v - 1][p - 1]
}

/// The dot kernel for `o` outputs (1..=isa.dots()) and `r` rows (1..=`DOT_ROWS`).
pub(super) fn dot_kernel(isa: Isa, o: usize, r: usize) -> DotFn {
    tables(isa).dot[r - 1][o - 1]
}

/// The turned kernel for `p` rows (1..=isa.dots()) and `all` (`TURNED_VECTORS`) vectors, or one.
pub(super) fn turned_kernel(isa: Isa, p: usize, all: bool) -> TurnedFn {
    tables(isa).turned[usize::from(all)][p - 1]
}
