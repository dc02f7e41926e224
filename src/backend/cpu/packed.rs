//! Weights in the order in which the forward micro-kernel reads them:
//! `[output block][channel block of 16][tap][channel of block][lanes of output block]`.
//!
//! A block holds `isa.block()` output channels (32 with AVX-512), the last one or two vectors, zero-padded; the
//! kernel streams a block from first to last float once per register tile. Made by `conv.rs` and `gemm.rs`.

use rayon::prelude::*;

use super::isa::Isa;
use super::scratch::{Line, lines};
use crate::backend::memory::Zeroed;

/// Packed weights of one layer and direction (forward or input gradient), for one instruction set.
pub struct Packed {
    isa: Isa,
    taps: usize,
    channels: usize,
    outputs: usize,
    data: Zeroed<Line>,
}

/// One output block.
pub(super) struct Block {
    /// The block's weights.
    pub w: *const f32,
    /// Its vectors: 1 or 2.
    pub vectors: usize,
    /// Its first output channel and their number.
    pub first: usize,
    pub width: usize,
}

impl Packed {
    /// Packs `weight(output, tap, channel)`.
    pub(super) fn new(
        isa: Isa,
        taps: usize,
        channels: usize,
        outputs: usize,
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Packed {
        let (block, lanes) = (isa.block(), isa.lanes());
        let depth = taps * channels;
        let padded = outputs.next_multiple_of(lanes);
        let mut data = lines(depth * padded);
        let floats: &mut [f32] = &mut bytemuck::cast_slice_mut(&mut data)[..depth * padded];
        let one = (depth * block).max(1);
        let pack = |b: usize, out: &mut [f32]| {
            let first = b * block;
            let width = block.min(padded - first);
            let valid = block.min(outputs - first);
            for (k, lane) in out.chunks_exact_mut(width).enumerate() {
                let above = k / (16 * taps) * 16;
                let deep = 16.min(channels - above);
                let within = k - above * taps;
                let (tap, channel) = (within / deep, above + within % deep);
                for (o, value) in lane[..valid].iter_mut().enumerate() {
                    *value = weight(first + o, tap, channel);
                }
            }
        };
        floats.par_chunks_mut(one).enumerate().for_each(|(b, out)| pack(b, out));
        Packed { isa, taps, channels, outputs, data }
    }

    /// The instruction set the order is made for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Kernel positions per channel.
    pub fn taps(&self) -> usize {
        self.taps
    }

    /// Channels read.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Channels written.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The weight of an output, a tap and a channel, which was packed.
    pub fn weight(&self, output: usize, tap: usize, channel: usize) -> f32 {
        let (block, depth) = (self.isa.block(), self.taps * self.channels);
        let first = output / block * block;
        let width = block.min(self.outputs.next_multiple_of(self.isa.lanes()) - first);
        let above = channel / 16 * 16;
        let deep = 16.min(self.channels - above);
        let k = above * self.taps + tap * deep + channel - above;
        bytemuck::cast_slice::<Line, f32>(&self.data)[first * depth + k * width + output - first]
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data)
    }

    /// Output blocks.
    pub(super) fn blocks(&self) -> usize {
        self.outputs.div_ceil(self.isa.block())
    }

    pub(super) fn block(&self, b: usize) -> Block {
        let first = b * self.isa.block();
        let width = self.isa.block().min(self.outputs - first);
        let floats: &[f32] = bytemuck::cast_slice(&self.data);
        Block {
            w: floats[first * self.taps * self.channels..].as_ptr(),
            vectors: width.div_ceil(self.isa.lanes()),
            first,
            width,
        }
    }
}
