//! U: a layer's weights, transformed once, for one direction or both.

#![allow(clippy::needless_range_loop)] // as in the kernels

use super::super::isa::{Isa, compiled};
use super::super::scratch::{Line, Shared, lines};
use super::LARGE;
use super::tiles::{SIDE, Turn, kernels};
use crate::backend::layout::{ConvShape, len};
use crate::backend::memory::Zeroed;
use crate::backend::winograd::Winograd;
use rayon::prelude::*;

/// Transformed weights of one layer, for one instruction set, as one of its two directions reads them.
pub struct Transformed {
    pub(super) isa: Isa,
    pub(super) tiles: Winograd,
    pub(super) channels: usize,
    pub(super) outputs: usize,
    /// Made for the way back.
    pub(super) back: bool,
    pub(super) data: Zeroed<Line>,
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
                compiled!(isa, {
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
    pub(super) fn at(&self, block: usize, position: usize) -> *const f32 {
        let floats: &[f32] = bytemuck::cast_slice(&self.data);
        let size = self.channels * self.isa.block();
        floats[(block * self.tiles.products() + position) * size..].as_ptr()
    }

    /// As [`Transformed::at`], `[output][lanes]`, of weights that were made for the way back: channels change places with
    /// outputs, and backwards weights are at a point what forward ones are at its inverse, where the points of F(4x4) have theirs,
    /// times a power of two.
    pub(super) fn turned(&self, block: usize, position: usize, to: &mut [f32]) {
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
