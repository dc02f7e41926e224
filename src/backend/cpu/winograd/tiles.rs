//! The vector kernels of a tile: its inputs' transform, its outputs', what of it is zero or like its neighbour, plain sums, and
//! weights that are turned for the way back. Written once over a trait of vectors, compiled for each instruction set.

#![allow(clippy::needless_range_loop)] // rows and columns of register arrays, unrolled; iterators read worse

use super::super::isa::{Isa, Level};
use super::super::vector::{Array8, Vector};
use crate::backend::winograd::Winograd;

/// The longest side of a tile.
pub(super) const SIDE: usize = 6;
/// The points of F(4x4).
const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;

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
pub(super) struct InputTile {
    /// The cell in the upper left corner, of the first channel; it may lie outside of the map.
    pub x: *const f32,
    /// Floats from one row of cells to the next, and from one cell to the next.
    pub row: usize,
    pub pixel: usize,
    /// Cells inside the map, down and across; all of them where the tile is whole.
    pub inside: [(usize, usize); 2],
    pub channels: usize,
    /// Whether like windows are looked for.
    pub ties: bool,
    pub v: *mut f32,
    /// Floats from one position of V to the next, and from one channel block to the next.
    pub position: usize,
    pub block: usize,
}

/// What is known of a tile's outputs: a bit for each, row by row, four bits a row.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Marks {
    /// The window is not zero in all channels.
    pub live: u16,
    /// Each row of the window is three times the same pixel.
    pub level: u16,
    /// Each column of it is.
    pub plumb: u16,
}

/// Floats that hold [`Marks`].
pub(super) const MARKS: usize = size_of::<Marks>().div_ceil(size_of::<f32>());

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
pub(super) struct OutputTile {
    pub m: *const f32,
    /// Floats from one position of M to the next.
    pub position: usize,
    pub y: *mut f32,
    /// Floats from one row of outputs to the next, and from one output to the next.
    pub row: usize,
    pub pixel: usize,
    /// Outputs inside the map, down and across.
    pub inside: [usize; 2],
    /// Channels of the block.
    pub width: usize,
    /// `width` floats, or null.
    pub bias: *const f32,
    pub relu: bool,
    /// By [`input_tile`].
    pub live: u16,
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
pub(super) struct Turn {
    /// The first of so many rows, one a channel, of a block's lanes.
    pub u: *const f32,
    pub rows: usize,
    /// Floats from here to what is turned next.
    pub next: usize,
    pub factor: f32,
    /// As many rows as columns are wanted, of a block's lanes each.
    pub to: *mut f32,
    pub columns: usize,
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
pub(super) struct PlainSums {
    /// The window, as `[channel][tap]`, and its floats.
    pub x: *const f32,
    pub len: usize,
    /// A row of so many weights an output.
    pub w: *const f32,
    pub y: *mut f32,
    pub outputs: usize,
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
pub(super) struct Kernels {
    pub input: unsafe fn(Winograd, bool, &InputTile) -> Marks,
    pub output: unsafe fn(Winograd, &OutputTile),
    pub plain: unsafe fn(&PlainSums),
    pub turn: unsafe fn(&Turn),
}

/// The kernels of `isa`, which vouches for the features.
pub(super) fn kernels(isa: Isa) -> Kernels {
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
