//! `kernels/conv_mma.cu`, and what `conv_wgrad.cu` has for tensor cores: convolutions, linear layers and their gradients with
//! operands rounded to less than fp32.

use super::conv::{Order, PackArguments, PackedMut, Packing, WeightTile};
use super::{Floats, Queue, narrow};
use crate::backend::BackendError;
use crate::backend::cuda::Precision;
use crate::backend::layout::ConvShape;

/// What operands are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Format {
    Tf32,
    F16,
    Bf16,
}

/// Fewer outputs leave more than half of the narrowest tile empty, and a shorter sum its K tile.
const MIN: usize = 16;

impl Format {
    /// For a layer whose input has `channels` channels, with `columns` outputs that are sums over `k`; none where the tiles do
    /// not fit it, which stays in fp32.
    pub fn new(precision: Precision, order: Order, [channels, columns, k]: [usize; 3]) -> Option<Format> {
        let format = match (precision, order) {
            (Precision::Fp32, _) => return None,
            (Precision::Tf32, _) | (Precision::Fp16, Order::GradInput) => Format::Tf32,
            (Precision::Fp16, Order::Forward) => Format::F16,
            (Precision::Bf16, _) => Format::Bf16,
        };
        (channels.is_multiple_of(4) && columns >= MIN && k >= MIN).then_some(format)
    }

    /// Bytes of a weight.
    pub fn bytes(self) -> usize {
        match self {
            Format::Tf32 => 4,
            Format::F16 | Format::Bf16 => 2,
        }
    }

    /// Depth of one multiplication.
    fn step(self) -> usize {
        match self {
            Format::Tf32 => 8,
            Format::F16 | Format::Bf16 => 16,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Large,
    Wide,
    Narrow,
    Deep,
}

/// A tile of `conv_mma.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    format: Format,
    size: Size,
}

impl Tile {
    /// For `columns` output channels at `positions` an image, each a sum over `k`.
    pub fn new(format: Format, columns: usize, positions: usize, k: usize) -> Tile {
        // Few pixels an image make few tiles, and a long sum keeps each busy for long: smaller tiles, the sum over four warps.
        // All linear layers with 256 inputs or more are among these.
        let size = if positions <= 16 && k >= 256 {
            Size::Deep
        } else if columns <= 32 {
            Size::Narrow
        } else if columns.div_ceil(64).is_multiple_of(2) {
            Size::Large
        } else {
            Size::Wide
        };
        Tile { format, size }
    }

    /// Rows, columns and depth, as in conv_mma.cu.
    pub fn size(self) -> [usize; 3] {
        let depth = 2 * self.format.step();
        match self.size {
            Size::Large => [128, 128, depth],
            Size::Wide => [128, 64, depth],
            Size::Narrow => [128, 32, depth],
            Size::Deep => [32, 32, 64],
        }
    }

    /// Threads of a block.
    pub const THREADS: u32 = 128;

    /// Dynamic shared memory of a block.
    pub fn shared_bytes(self) -> usize {
        let [rows, columns, depth] = self.size();
        let stages = match (self.size, self.format) {
            (Size::Deep, _) | (_, Format::Tf32) => 4,
            (Size::Large | Size::Wide | Size::Narrow, Format::F16 | Format::Bf16) => 3,
        };
        stages * depth * (4 * rows + self.format.bytes() * columns)
    }

    pub fn kernel(self) -> &'static str {
        match (self.format, self.size) {
            (Format::Tf32, Size::Large) => "conv_mma_tf32_large",
            (Format::Tf32, Size::Wide) => "conv_mma_tf32_wide",
            (Format::Tf32, Size::Narrow) => "conv_mma_tf32_narrow",
            (Format::Tf32, Size::Deep) => "conv_mma_tf32_deep",
            (Format::F16, Size::Large) => "conv_mma_f16_large",
            (Format::F16, Size::Wide) => "conv_mma_f16_wide",
            (Format::F16, Size::Narrow) => "conv_mma_f16_narrow",
            (Format::F16, Size::Deep) => "conv_mma_f16_deep",
            (Format::Bf16, Size::Large) => "conv_mma_bf16_large",
            (Format::Bf16, Size::Wide) => "conv_mma_bf16_wide",
            (Format::Bf16, Size::Narrow) => "conv_mma_bf16_narrow",
            (Format::Bf16, Size::Deep) => "conv_mma_bf16_deep",
        }
    }
}

/// The kernel that packs for the order.
pub(super) fn pack_kernel(order: Order, format: Format) -> &'static str {
    match (order, format) {
        (Order::Forward, Format::Tf32) => "conv_mma_pack_forward_tf32",
        (Order::Forward, Format::F16) => "conv_mma_pack_forward_f16",
        (Order::Forward, Format::Bf16) => "conv_mma_pack_forward_bf16",
        (Order::GradInput, Format::Bf16) => "conv_mma_pack_grad_input_bf16",
        // there is none in f16, see `Format::new`
        (Order::GradInput, Format::Tf32 | Format::F16) => "conv_mma_pack_grad_input_tf32",
    }
}

/// w (O,C,KH,KW), whose length the caller has checked, in the order of the fragments.
pub(super) fn pack(
    q: &Queue,
    s: &ConvShape,
    format: Format,
    packing: Packing,
    weight: Floats<'_>,
    packed: &PackedMut<'_>,
) -> Result<(), BackendError> {
    let kernel = pack_kernel(packed.layout.order, format);
    let quads = packed.floats.len() / 4;
    // the kernel's threads are numbered in 32 bits, up to the end of a block
    narrow(kernel, "a weight", quads + 255)?;
    let arguments = PackArguments::new(kernel, s, packing, weight, packed, quads)?;
    // SAFETY: the argument is the kernel's; the weight has O·C·KH·KW elements and `packed` is `quads` times 16 bytes.
    unsafe { q.launch(kernel, [quads.div_ceil(256), 1, 1], [256, 1], 0, arguments) }
}

/// Bytes of dynamic shared memory that a kernel is launched with; 0 for those that are not on tensor cores.
pub(in crate::backend::cuda) fn dynamic_shared(kernel: &str) -> usize {
    let formats = [Format::Tf32, Format::F16, Format::Bf16];
    let sizes = [Size::Large, Size::Wide, Size::Narrow, Size::Deep];
    let tiles = formats.into_iter().flat_map(|format| sizes.map(|size| Tile { format, size }));
    let forward = tiles.map(|tile| (tile.kernel(), tile.shared_bytes()));
    let weights = [Precision::Tf32, Precision::Bf16].into_iter().flat_map(|precision| {
        [WeightTile::Wide, WeightTile::Narrow].into_iter().filter_map(move |tile| weight_tile(precision, tile))
    });
    forward.chain(weights).find(|(name, _)| *name == kernel).map_or(0, |(_, bytes)| bytes)
}

/// The kernel for a weight's gradient and its dynamic shared memory; none where the layer stays in fp32.
pub(super) fn weight_kernel(precision: Precision, s: &ConvShape, tile: WeightTile) -> Option<(&'static str, usize)> {
    let fits = s.c.is_multiple_of(4) && s.o.is_multiple_of(4) && s.o >= MIN;
    weight_tile(precision, tile).filter(|_| fits)
}

fn weight_tile(precision: Precision, tile: WeightTile) -> Option<(&'static str, usize)> {
    let kernel = match (precision, tile) {
        (Precision::Fp32, _) | (_, WeightTile::Small) => return None,
        (Precision::Tf32 | Precision::Fp16, WeightTile::Wide) => "conv_wgrad_wide_tf32",
        (Precision::Tf32 | Precision::Fp16, WeightTile::Narrow) => "conv_wgrad_narrow_tf32",
        (Precision::Bf16, WeightTile::Wide) => "conv_wgrad_wide_bf16",
        (Precision::Bf16, WeightTile::Narrow) => "conv_wgrad_narrow_bf16",
    };
    // three tiles of 16 pixels, rows with a pad of 8 floats
    let [channels, columns] = tile.size();
    Some((kernel, 3 * 16 * (channels + 8 + columns + 8) * size_of::<f32>()))
}
