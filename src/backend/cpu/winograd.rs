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
//! Called by the CPU backend's convolution nodes where `path.rs` says so.

#![allow(clippy::needless_range_loop)] // rows and columns of register arrays, unrolled; iterators read worse

use super::gemm::{Source, view_fits};
use super::isa::{Isa, Level};
use super::scratch::{self, Line, Shared, lines, parallel, piece};
use super::tile::{Forward, forward_kernel};
use super::vector::{Array8, Vector};
use crate::backend::layout::{ConvShape, len};
use crate::backend::memory::Zeroed;
use crate::backend::threads;
use crate::backend::winograd::Winograd;
use crate::graph::op::Activation;
use rayon::prelude::*;
use std::ops::Range;

/// The longest side of a tile.
const SIDE: usize = 6;
/// Tiles of a task's chunk: two register tiles of AVX-512. Their V and M are within the L2 cache up to 256 channels.
const CHUNK: usize = 28;
/// Tiles of a chunk that all tasks share.
const SHARED_CHUNK: usize = 196;
/// Floats of U from which a chunk is shared: what then stays in no cache beside V.
const LARGE: usize = 1 << 20;
/// The points of F(4x4).
const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;
/// Windows whose plain sums a task keeps: those of a flat area and of its borders.
const RECENT: usize = 4;
/// Floats between the positions of V and M: without them their distance would be a power of two, and all in one cache set.
const GAP: usize = 48;

/// Transformed weights of one layer, for one instruction set, as one of its two directions reads them.
pub struct Transformed {
    isa: Isa,
    tiles: Winograd,
    channels: usize,
    outputs: usize,
    /// Made for the way back.
    back: bool,
    data: Zeroed<Line>,
}

/// Whether U of that many floats serves both directions: it is not held twice, and what turning it takes is little beside the
/// many tiles of a chunk that tasks share.
pub fn serves_both(tiles: Winograd, s: &ConvShape) -> bool {
    len(&[tiles.products(), s.c, s.o]) >= LARGE
}

impl Transformed {
    /// Transforms w (O,C,3,3) for `forward_views`; `grad_input` takes it, too.
    pub fn forward(isa: Isa, tiles: Winograd, s: &ConvShape, w: &[f32]) -> Transformed {
        assert_eq!((w.len(), s.kh, s.kw), (s.w_len(), 3, 3));
        Transformed::new(isa, tiles, [s.c, s.o], false, |o, c| &w[(o * s.c + c) * 9..][..9])
    }

    /// Transforms w (O,C,3,3), turned and transposed, for `grad_input` alone.
    pub fn grad_input(isa: Isa, tiles: Winograd, s: &ConvShape, w: &[f32]) -> Transformed {
        assert_eq!((w.len(), s.kh, s.kw), (s.w_len(), 3, 3));
        Transformed::new(isa, tiles, [s.o, s.c], true, |c, o| &w[(o * s.c + c) * 9..][..9])
    }

    /// `kernel(output, channel)` are nine weights, which on the way `back` are read backwards.
    fn new<'a>(
        isa: Isa,
        tiles: Winograd,
        [channels, outputs]: [usize; 2],
        back: bool,
        kernel: impl Fn(usize, usize) -> &'a [f32] + Sync,
    ) -> Transformed {
        let (block, products) = (isa.block(), tiles.products());
        let one = (products * channels * block).max(1);
        let mut data = lines(one * outputs.div_ceil(block));
        let floats: &mut [f32] = bytemuck::cast_slice_mut(&mut data);
        // a task is a block of outputs and 16 channels
        let cells = Shared::new(floats);
        let parts = channels.div_ceil(16);
        (0..outputs.div_ceil(block) * parts).into_par_iter().for_each(|task| {
            let (first, own) = (task / parts * block, task % parts * 16..channels.min(task % parts * 16 + 16));
            for c in own {
                let mut g = [[0.0f64; 32]; 9];
                for o in 0..block.min(outputs - first) {
                    let weights = kernel(first + o, c);
                    for t in 0..9 {
                        g[t][o] = f64::from(weights[if back { 8 - t } else { t }]);
                    }
                }
                super::isa::compiled!(isa, {
                    transform_weights(tiles, &g, |position, u| {
                        let at = task / parts * one + (position * channels + c) * block;
                        // SAFETY: one task per block of outputs and channel.
                        let to = unsafe { cells.slice(at, block) };
                        to.iter_mut().zip(u).for_each(|(to, u)| *to = *u as f32);
                    });
                });
            }
        });
        Transformed { isa, tiles, channels, outputs, back, data }
    }

    /// The weights of a block of outputs at a position.
    fn at(&self, block: usize, position: usize) -> *const f32 {
        let floats: &[f32] = bytemuck::cast_slice(&self.data);
        let size = self.channels * self.isa.block();
        floats[(block * self.tiles.products() + position) * size..].as_ptr()
    }

    /// As [`Transformed::at`], `[output][lanes]`, of weights that were made for the way back: channels change places with
    /// outputs, and backwards weights are at a point what forward ones are at its inverse, where the points of F(4x4) have theirs,
    /// times a power of two.
    fn turned(&self, block: usize, position: usize, to: &mut [f32]) {
        let (size, side) = (self.isa.block(), self.tiles.outputs() + 2);
        assert!(!self.back && to.len() == self.outputs * size);
        let ((i, down), (j, across)) = (inverse(self.tiles, position / side), inverse(self.tiles, position % side));
        let first = block * size;
        let (kernels, next) = (kernels(self.isa), self.tiles.products() * self.channels * size);
        for (b, to) in to.chunks_mut(size * size).enumerate() {
            let call = Turn {
                u: self.at(b, i * side + j).wrapping_add(first * size),
                rows: size.min(self.channels - first),
                next,
                factor: down * across,
                to: to.as_mut_ptr(),
                columns: to.len() / size,
            };
            // SAFETY: so many channels and outputs are in U at that position, and `to` has a line for each output.
            unsafe { (kernels.turn)(&call) }
        }
    }
}

/// The point at which forward weights are what backwards ones are at `point`, and by what factor these are larger.
fn inverse(tiles: Winograd, point: usize) -> (usize, f32) {
    match (tiles, point) {
        (Winograd::F2, 1 | 2) => (point, 1.0),
        (Winograd::F2, _) => (3 - point, 1.0),
        (Winograd::F4, 0 | 5) => (5 - point, 1.0),
        (Winograd::F4, 1 | 2) => (point + 2, -2.0),
        (Winograd::F4, _) => (point - 2, -0.5),
    }
}

/// Calls `put(position, values of 32 outputs)` with G g G^T.
#[inline(always)]
fn transform_weights(tiles: Winograd, g: &[[f64; 32]; 9], mut put: impl FnMut(usize, &[f64; 32])) {
    let side = tiles.outputs() + 2;
    let mut half = [[[0.0f64; 32]; 3]; SIDE];
    for j in 0..3 {
        let column = points(tiles, [&g[j], &g[3 + j], &g[6 + j]]);
        for i in 0..side {
            half[i][j] = column[i];
        }
    }
    for (i, row) in half[..side].iter().enumerate() {
        let row = points(tiles, [&row[0], &row[1], &row[2]]);
        for (j, u) in row[..side].iter().enumerate() {
            put(i * side + j, u);
        }
    }
}

/// G times three lines.
#[inline(always)]
fn points(tiles: Winograd, g: [&[f64; 32]; 3]) -> [[f64; 32]; SIDE] {
    let of = |f: &dyn Fn(usize) -> f64| std::array::from_fn(f);
    let b = std::f64::consts::SQRT_2;
    let zero = [0.0; 32];
    match tiles {
        Winograd::F2 => [
            *g[0],
            of(&|k| 0.5 * (g[0][k] + g[2][k]) + 0.5 * g[1][k]),
            of(&|k| 0.5 * (g[0][k] + g[2][k]) - 0.5 * g[1][k]),
            *g[2],
            zero,
            zero,
        ],
        // a = b / 2
        Winograd::F4 => [
            *g[0],
            of(&|k| -(2.0 * g[0][k] + b * g[1][k] + g[2][k]) / 3.0),
            of(&|k| -(2.0 * g[0][k] - b * g[1][k] + g[2][k]) / 3.0),
            of(&|k| (g[0][k] + b * g[1][k] + 2.0 * g[2][k]) / 6.0),
            of(&|k| (g[0][k] - b * g[1][k] + 2.0 * g[2][k]) / 6.0),
            *g[2],
        ],
    }
}

/// B^T times a line of a tile; the last two are unused by F(2x2).
#[inline(always)]
unsafe fn input_line<S: Vector>(tiles: Winograd, d: [S; SIDE]) -> [S; SIDE] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        match tiles {
            Winograd::F2 => [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3]), d[4], d[5]],
            Winograd::F4 => {
                let (a, b) = (S::of(A), S::of(B));
                let (minus_a, minus_b) = (S::of(-A), S::of(-B));
                let (two, half, sum) = (S::of(-2.0), S::of(-0.5), S::of(-2.5));
                let (even, odd) = (two.fma(d[2], d[4]), two.fma(d[1], d[3]));
                let (even2, odd2) = (half.fma(d[2], d[4]), half.fma(d[1], d[3]));
                [
                    sum.fma(d[2], d[4]).add(d[0]),
                    a.fma(odd, even),
                    minus_a.fma(odd, even),
                    b.fma(odd2, even2),
                    minus_b.fma(odd2, even2),
                    sum.fma(d[3], d[5]).add(d[1]),
                ]
            }
        }
    }
}

/// A^T times a line; the last two are unused by F(2x2).
#[inline(always)]
unsafe fn output_line<S: Vector>(tiles: Winograd, m: [S; SIDE]) -> [S; 4] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        match tiles {
            Winograd::F2 => [m[0].add(m[1]).add(m[2]), m[1].sub(m[2]).sub(m[3]), m[4], m[5]],
            Winograd::F4 => {
                let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
                let (sum2, difference2) = (m[3].add(m[4]), m[3].sub(m[4]));
                [
                    m[0].add(sum).add(sum2),
                    S::of(A).fma(difference, S::of(B).mul(difference2)),
                    S::of(0.5).fma(sum, S::of(2.0).mul(sum2)),
                    S::of(2.0 * B).fma(difference2, S::of(0.5 * A).fma(difference, m[5])),
                ]
            }
        }
    }
}

/// One tile's inputs: 16 channels of its cells, and where V of them goes.
struct InputTile {
    /// The cell in the upper left corner, of the first channel; it may lie outside of the map.
    x: *const f32,
    /// Floats from one row of cells to the next, and from one cell to the next.
    row: usize,
    pixel: usize,
    /// Cells inside the map, down and across; all of them where the tile is whole.
    inside: [(usize, usize); 2],
    channels: usize,
    /// Whether like windows are looked for.
    ties: bool,
    v: *mut f32,
    /// Floats from one position of V to the next, and from one channel block to the next.
    position: usize,
    block: usize,
}

/// What is known of a tile's outputs: a bit for each, row by row, four bits a row.
#[derive(Clone, Copy)]
#[repr(C)]
struct Marks {
    /// The window is not zero in all channels.
    live: u16,
    /// Each row of the window is three times the same pixel.
    level: u16,
    /// Each column of it is.
    plumb: u16,
}

/// Floats that hold [`Marks`].
const MARKS: usize = size_of::<Marks>().div_ceil(size_of::<f32>());

/// Two lines of B^T d that share inputs: the second and third, the fourth and fifth (of F(4x4) alone), the first and last.
const PAIRS: [[usize; 2]; 3] = [[1, 2], [3, 4], [0, SIDE - 1]];

// Methods and no closures: the compiler leaves a long closure a call, compiled for the baseline.
impl InputTile {
    #[inline(always)]
    fn is_inside<const EDGE: bool>(&self, i: usize, j: usize) -> bool {
        let [down, across] = self.inside;
        !EDGE || (i >= down.0 && i < down.1 && j >= across.0 && j < across.1)
    }

    /// Cell (i, j) of the channels from `first` on; 0 outside of the map.
    #[inline(always)]
    unsafe fn load<S: Vector, const EDGE: bool>(&self, first: usize, i: usize, j: usize) -> S {
        let at = self.x.wrapping_add(i * self.row + j * self.pixel + first);
        let left = self.channels - first;
        // SAFETY: cells inside the map hold so many channels.
        unsafe {
            match (self.is_inside::<EDGE>(i, j), left >= S::LANES) {
                (false, _) => S::zero(),
                (true, true) => S::load(at),
                (true, false) => S::load_first(at, left),
            }
        }
    }

    /// Strikes out pairs of cells that differ in the channels from `first` on: all pairs, or those of the two middle rows and
    /// columns, of which every window has one.
    #[inline(always)]
    unsafe fn compare<S: Vector, const EDGE: bool, const ALL: bool>(
        &self,
        tiles: Winograd,
        first: usize,
        pairs: &mut Pairs,
    ) {
        let side = tiles.outputs() + 2;
        let counts = |k: usize| ALL || k == side / 2 - 1 || k == side / 2;
        // SAFETY: as `load`.
        unsafe {
            for i in 0..side {
                for j in 0..side {
                    let bit = i * SIDE + j;
                    if j + 1 < side && counts(i) {
                        let [a, b] = [self.load::<S, EDGE>(first, i, j), self.load::<S, EDGE>(first, i, j + 1)];
                        pairs.level &= !(u64::from(a.differs(b)) << bit);
                    }
                    if i + 1 < side && counts(j) {
                        let [a, b] = [self.load::<S, EDGE>(first, i, j), self.load::<S, EDGE>(first, i + 1, j)];
                        pairs.plumb &= !(u64::from(a.differs(b)) << bit);
                    }
                }
            }
        }
    }

    /// V of pair number `PAIR` of lines: two at a time, for all lines are more than there are registers.
    #[inline(always)]
    unsafe fn pair<S: Vector, const EDGE: bool, const PAIR: usize>(&self, tiles: Winograd, first: usize) {
        let side = tiles.outputs() + 2;
        // SAFETY: as `load`; V has room for every position.
        unsafe {
            let mut pair = [[S::zero(); SIDE]; 2];
            for j in 0..side {
                let (d1, d2) = (self.load::<S, EDGE>(first, 1, j), self.load::<S, EDGE>(first, 2, j));
                let d3 = self.load::<S, EDGE>(first, 3, j);
                [pair[0][j], pair[1][j]] = match (tiles, PAIR) {
                    (Winograd::F2, 0) => [d1.add(d2), d2.sub(d1)],
                    (Winograd::F2, _) => [self.load::<S, EDGE>(first, 0, j).sub(d2), d1.sub(d3)],
                    (Winograd::F4, 0 | 1) => {
                        let d4 = self.load::<S, EDGE>(first, 4, j);
                        let (factor, point) = if PAIR == 0 { (-2.0, A) } else { (-0.5, B) };
                        let (even, odd) = (S::of(factor).fma(d2, d4), S::of(factor).fma(d1, d3));
                        [S::of(point).fma(odd, even), S::of(-point).fma(odd, even)]
                    }
                    (Winograd::F4, _) => {
                        let (d0, d4) = (self.load::<S, EDGE>(first, 0, j), self.load::<S, EDGE>(first, 4, j));
                        let d5 = self.load::<S, EDGE>(first, 5, j);
                        [S::of(-2.5).fma(d2, d4).add(d0), S::of(-2.5).fma(d3, d5).add(d1)]
                    }
                };
            }
            let v = self.v.wrapping_add(first / 16 * self.block + first % 16);
            for k in 0..2 {
                let d = input_line(tiles, pair[k]);
                let i = PAIRS[PAIR][k].min(side - 1);
                for j in 0..side {
                    d[j].store(v.wrapping_add((i * side + j) * self.position));
                }
            }
        }
    }
}

/// Transforms a tile.
#[inline(always)]
unsafe fn input_tile<S: Vector, const EDGE: bool>(tiles: Winograd, t: &InputTile) -> Marks {
    let side = tiles.outputs() + 2;
    let (mut nonzero, mut reached) = (0u64, 0u64);
    for (i, j) in (0..side).flat_map(|i| (0..side).map(move |j| (i, j))) {
        reached |= u64::from(t.is_inside::<EDGE>(i, j)) << (i * SIDE + j);
    }
    let mut pairs = Pairs { level: if t.ties { u64::MAX } else { 0 }, plumb: if t.ties { u64::MAX } else { 0 } };
    // SAFETY: cells inside the map are read, and V written, as the fields say.
    unsafe {
        for first in (0..t.channels).step_by(S::LANES) {
            // rarely more than once: some channel of 16 of every cell is not zero
            if nonzero != reached {
                for i in 0..side {
                    for j in 0..side {
                        nonzero |= u64::from(t.load::<S, EDGE>(first, i, j).any()) << (i * SIDE + j);
                    }
                }
            }
            // rarely further than the middle of the first 16 channels, which every window meets
            if pairs.any(tiles) {
                t.compare::<S, EDGE, false>(tiles, first, &mut pairs);
                if pairs.any(tiles) {
                    t.compare::<S, EDGE, true>(tiles, first, &mut pairs);
                }
            }
            // the lines that come next, of the next 16 channels or of the next tile: a store that misses the L1 cache holds up
            // those behind it
            if first % 16 == 0 {
                let next = if t.channels - first > 16 { (first / 16 + 1) * t.block } else { 16 };
                for p in 0..side * side {
                    S::prefetch(t.v.wrapping_add(next + p * t.position));
                }
            }
            t.pair::<S, EDGE, 0>(tiles, first);
            if tiles == Winograd::F4 {
                t.pair::<S, EDGE, 1>(tiles, first);
            }
            t.pair::<S, EDGE, 2>(tiles, first);
        }
    }
    Marks {
        live: live(nonzero, tiles.outputs()),
        level: by_output(pairs.level(), tiles.outputs()),
        plumb: by_output(pairs.plumb(), tiles.outputs()),
    }
}

/// Which neighbouring cells are alike, to the bit, in the channels seen so far: bit `6 i + j` is of cell (i, j).
struct Pairs {
    /// And the one to its right.
    level: u64,
    /// And the one below.
    plumb: u64,
}

impl Pairs {
    /// Windows, by their upper left cell, of level rows.
    #[inline(always)]
    fn level(&self) -> u64 {
        let three = self.level & self.level >> 1;
        three & three >> SIDE & three >> (2 * SIDE)
    }

    /// Windows of plumb columns.
    #[inline(always)]
    fn plumb(&self) -> u64 {
        let three = self.plumb & self.plumb >> SIDE;
        three & three >> 1 & three >> 2
    }

    /// Whether a window may still be one of them.
    #[inline(always)]
    fn any(&self, tiles: Winograd) -> bool {
        by_output(self.level() | self.plumb(), tiles.outputs()) != 0
    }
}

/// The outputs whose 3x3 window meets one of `cells`, bit `6 i + j` of each, as bits `4 i + j`.
#[inline(always)]
fn live(cells: u64, outputs: usize) -> u16 {
    let across = cells | cells >> 1 | cells >> 2;
    by_output(across | across >> SIDE | across >> (2 * SIDE), outputs)
}

/// Bits `6 i + j` of the outputs as bits `4 i + j`.
#[inline(always)]
fn by_output(cells: u64, outputs: usize) -> u16 {
    let row = (1u64 << outputs) - 1;
    (0..outputs).fold(0, |bits, i| bits | ((cells >> (SIDE * i) & row) << (4 * i)) as u16)
}

/// One tile's outputs of one block.
struct OutputTile {
    m: *const f32,
    /// Floats from one position of M to the next.
    position: usize,
    y: *mut f32,
    /// Floats from one row of outputs to the next, and from one output to the next.
    row: usize,
    pixel: usize,
    /// Outputs inside the map, down and across.
    inside: [usize; 2],
    /// Channels of the block.
    width: usize,
    /// `width` floats, or null.
    bias: *const f32,
    relu: bool,
    /// By [`input_tile`].
    live: u16,
}

#[inline(always)]
unsafe fn output_tile<S: Vector>(tiles: Winograd, t: &OutputTile) {
    let (outputs, side) = (tiles.outputs(), tiles.outputs() + 2);
    let whole = t.live == live(u64::MAX, outputs);
    // SAFETY: M holds every position, y the outputs inside the map, and bias `width` floats.
    unsafe {
        // the next tile's outputs, most often to the right of these: as in `input_tile`
        for i in 0..outputs {
            for j in outputs..2 * outputs {
                for v in 0..t.width.div_ceil(16) {
                    S::prefetch(t.y.wrapping_add(i * t.row + j * t.pixel + 16 * v));
                }
            }
        }
        for first in (0..t.width).step_by(S::LANES) {
            let width = t.width - first;
            let bias = if t.bias.is_null() { S::zero() } else { S::load_first(t.bias.add(first), width) };
            let mut rows = [[S::zero(); SIDE]; 4];
            for j in 0..side {
                let mut m = [S::zero(); SIDE];
                for i in 0..side {
                    m[i] = S::load(t.m.add((i * side + j) * t.position + first));
                }
                let m = output_line(tiles, m);
                for i in 0..outputs {
                    rows[i][j] = m[i];
                }
            }
            for i in 0..outputs.min(t.inside[0]) {
                let m = output_line(tiles, rows[i]);
                for j in 0..outputs {
                    if j >= t.inside[1] {
                        break;
                    }
                    let sum = if whole || t.live >> (4 * i + j) & 1 == 1 { m[j] } else { S::zero() };
                    let mut value = sum.add(bias);
                    if t.relu {
                        value = value.relu();
                    }
                    let y = t.y.add(i * t.row + j * t.pixel + first);
                    if width >= S::LANES { value.store(y) } else { value.store_first(y, width) }
                }
            }
        }
    }
}

/// A block of U that is turned: channels become lanes.
struct Turn {
    /// The first of so many rows, one a channel, of a block's lanes.
    u: *const f32,
    rows: usize,
    /// Floats from here to what is turned next.
    next: usize,
    factor: f32,
    /// As many rows as columns are wanted, of a block's lanes each.
    to: *mut f32,
    columns: usize,
}

#[inline(always)]
unsafe fn turn<S: Vector>(t: &Turn) {
    let block = 2 * S::LANES;
    // SAFETY: the pointers of `t` cover the extents its fields state; prefetches may point anywhere.
    unsafe {
        for (row, column) in [(0, 0), (0, S::LANES), (S::LANES, 0), (S::LANES, S::LANES)] {
            let mut lines = [S::zero(); 16];
            for k in 0..S::LANES {
                let from = t.u.wrapping_add((row + k) * block + column);
                S::prefetch(from.wrapping_add(t.next));
                if row + k < t.rows {
                    lines[k] = S::load(from).mul(S::of(t.factor));
                }
            }
            // a line meets the one that lies half of all behind it, until each has met all
            let mut met = 1;
            while met < S::LANES {
                let mut zipped = lines;
                for k in 0..S::LANES / 2 {
                    [zipped[2 * k], zipped[2 * k + 1]] = lines[k].zip(lines[S::LANES / 2 + k]);
                }
                (lines, met) = (zipped, 2 * met);
            }
            for k in 0..S::LANES {
                if column + k < t.columns {
                    lines[k].store(t.to.wrapping_add((column + k) * block + row));
                }
            }
        }
    }
}

/// One window's plain sums.
struct PlainSums {
    /// The window, as `[channel][tap]`, and its floats.
    x: *const f32,
    len: usize,
    /// A row of so many weights an output.
    w: *const f32,
    y: *mut f32,
    outputs: usize,
}

/// Each sum is of two vectors of partial sums.
#[inline(always)]
unsafe fn plain_sums<S: Vector>(t: &PlainSums) {
    // SAFETY: the pointers of `t` cover the extents its fields state.
    unsafe {
        for o in 0..t.outputs {
            let w = t.w.add(o * t.len);
            let mut sums = [S::zero(); 2];
            for first in (0..t.len).step_by(2 * S::LANES) {
                for k in 0..2 {
                    let at = first + k * S::LANES;
                    let left = t.len.saturating_sub(at);
                    let [x, w] = [t.x, w].map(|p| S::load_first(p.wrapping_add(at), left));
                    sums[k] = x.fma(w, sums[k]);
                }
            }
            *t.y.add(o) = sums[0].add(sums[1]).sum();
        }
    }
}

/// The transforms of one instruction set.
macro_rules! transforms {
    ($name:ident, $vector:ty $(, $feature:literal)?) => {
        mod $name {
            use super::*;
            #[allow(unused_imports)]
            #[cfg(target_arch = "x86_64")]
            use std::arch::x86_64::{__m256, __m512};

            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn input(tiles: Winograd, whole: bool, t: &InputTile) -> Marks {
                // SAFETY: the caller's promise about `t`; the features are this function's own.
                unsafe {
                    match (tiles, whole) {
                        (Winograd::F2, true) => input_tile::<$vector, false>(Winograd::F2, t),
                        (Winograd::F2, false) => input_tile::<$vector, true>(Winograd::F2, t),
                        (Winograd::F4, true) => input_tile::<$vector, false>(Winograd::F4, t),
                        (Winograd::F4, false) => input_tile::<$vector, true>(Winograd::F4, t),
                    }
                }
            }

            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn output(tiles: Winograd, t: &OutputTile) {
                // SAFETY: as above.
                unsafe {
                    match tiles {
                        Winograd::F2 => output_tile::<$vector>(Winograd::F2, t),
                        Winograd::F4 => output_tile::<$vector>(Winograd::F4, t),
                    }
                }
            }

            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn plain(t: &PlainSums) {
                // SAFETY: as above.
                unsafe { plain_sums::<$vector>(t) }
            }

            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn turn_(t: &Turn) {
                // SAFETY: as above.
                unsafe { turn::<$vector>(t) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
transforms!(avx512, __m512, "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma");
#[cfg(target_arch = "x86_64")]
transforms!(avx2, __m256, "avx2,fma");
transforms!(portable, Array8);

/// The kernels of one instruction set.
struct Kernels {
    input: unsafe fn(Winograd, bool, &InputTile) -> Marks,
    output: unsafe fn(Winograd, &OutputTile),
    plain: unsafe fn(&PlainSums),
    turn: unsafe fn(&Turn),
}

/// The kernels of `isa`, which vouches for the features.
fn kernels(isa: Isa) -> Kernels {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            Kernels { input: avx512::input, output: avx512::output, plain: avx512::plain, turn: avx512::turn_ }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Kernels { input: avx2::input, output: avx2::output, plain: avx2::plain, turn: avx2::turn_ },
        _ => {
            Kernels { input: portable::input, output: portable::output, plain: portable::plain, turn: portable::turn_ }
        }
    }
}

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
