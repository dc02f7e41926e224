//! `kernels/conv_wgrad.cu` and its kin on tensor cores: the gradient of a convolution's or linear layer's weight, a sum over
//! all pixels of a batch. The pixels are cut into parts, each part's sums are written, and then added in order.

use super::{OFFSET_MAX, mma};
use crate::backend::BackendError;
use crate::backend::cuda::Precision;
use crate::backend::cuda::launch::{Floats, FloatsMut, Queue, expect};
use crate::backend::layout::ConvShape;

#[repr(C)]
#[derive(Clone, Copy)]
struct WeightArguments {
    x: u64,
    gy: u64,
    sums: u64,
    pixels: u32,
    part: u32,
    h: i32,
    w: i32,
    c: i32,
    p: i32,
    q: i32,
    o: i32,
    kh: i32,
    kw: i32,
    stride: i32,
    pad: i32,
    tiles_o: u32,
    tiles_j: u32,
    options: u32,
}
const _: () = assert!(size_of::<WeightArguments>() == 88, "as in conv_wgrad.cu");

/// A value of `WeightArguments::options`.
const WEIGHT_STORE_QUADS: u32 = 1;

#[repr(C)]
#[derive(Clone, Copy)]
struct WeightSumArguments {
    sums: u64,
    gw: u64,
    parts: u32,
    o: u32,
    c: u32,
    taps: u32,
}
const _: () = assert!(size_of::<WeightSumArguments>() == 32, "as in conv_wgrad.cu");

/// A tile of `conv_wgrad.cu`; tensor cores have the same ones but for the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend::cuda::launch) enum WeightTile {
    Wide,
    Narrow,
    Small,
}

impl WeightTile {
    pub fn new(s: &ConvShape) -> WeightTile {
        if s.kh * s.kw * s.c <= 64 {
            WeightTile::Small
        } else if s.o <= 32 {
            WeightTile::Narrow
        } else {
            WeightTile::Wide
        }
    }

    /// Output channels and columns.
    pub fn size(self) -> [usize; 2] {
        match self {
            WeightTile::Wide => [64, 128],
            WeightTile::Narrow => [32, 128],
            WeightTile::Small => [32, 32],
        }
    }

    /// The kernel for pixels whose channels are whole quads, or for any.
    pub fn kernel(self, quads: bool) -> &'static str {
        match (self, quads) {
            (WeightTile::Wide, true) => "conv_wgrad_wide",
            (WeightTile::Wide, false) => "conv_wgrad_wide_scalar",
            (WeightTile::Narrow, true) => "conv_wgrad_narrow",
            (WeightTile::Narrow, false) => "conv_wgrad_narrow_scalar",
            (WeightTile::Small, true) => "conv_wgrad_small",
            (WeightTile::Small, false) => "conv_wgrad_small_scalar",
        }
    }
}

/// How a weight gradient is divided: its tile, tiles of the result, parts of the pixels.
pub(super) struct Division {
    pub tile: WeightTile,
    tiles: [usize; 2],
    /// Pixels of a part: whole tiles.
    part: usize,
    pub parts: usize,
    /// At least `parts`, of as many rows or fewer.
    parts_max: usize,
}

impl Division {
    pub fn new(s: &ConvShape, rows: usize) -> Division {
        /// Blocks that fill a large GPU a few times over.
        const BLOCKS: usize = 512;
        /// More parts cost more traffic than they bring blocks.
        const PARTS_MAX: usize = 64;
        /// Floats of all parts: 64 MB.
        const SUMS_MAX: usize = 16 << 20;
        /// Pixels that are worth a block.
        const PART_MIN: usize = 64;
        let tile = WeightTile::new(s);
        let [down, across] = tile.size();
        let tiles = [s.o.div_ceil(down), (s.kh * s.kw * s.c).div_ceil(across)];
        let pixels = rows * s.oh() * s.ow();
        let most = PARTS_MAX.min(SUMS_MAX / s.w_len().max(1)).min(pixels / PART_MIN);
        let parts_max = (BLOCKS / (tiles[0] * tiles[1]).max(1)).min(most).max(1);
        let part = pixels.div_ceil(parts_max).next_multiple_of(32);
        Division { tile, tiles, part, parts: pixels.div_ceil(part.max(1)), parts_max }
    }
}

/// Floats of workspace that [`grad_weight`] needs for up to `rows` rows.
pub(in crate::backend::cuda) fn grad_weight_workspace(shape: &ConvShape, rows: usize) -> usize {
    match Division::new(shape, rows).parts_max {
        1 if shape.kh * shape.kw == 1 => 0,
        parts => parts * shape.w_len(),
    }
}

/// gw (O,C,KH,KW) from x (rows,H,W,C) and gy (rows,OH,OW,O), summed over rows and positions; on tensor cores where the precision
/// allows and the shape fits them.
#[allow(clippy::too_many_arguments, reason = "a convolution's operands")]
pub(in crate::backend::cuda) fn grad_weight(
    q: &Queue,
    precision: Precision,
    shape: &ConvShape,
    rows: usize,
    x: Floats<'_>,
    gy: Floats<'_>,
    workspace: FloatsMut<'_>,
    gw: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const WHAT: &str = "gradient of a convolution's weight";
    const SUM: &str = "conv_wgrad_sum";
    let s = shape;
    let Division { tile, tiles, part, parts, .. } = Division::new(s, rows);
    expect(WHAT, "x", x.len(), rows * s.x_len())?;
    expect(WHAT, "gy", gy.len(), rows * s.y_len())?;
    expect(WHAT, "gw", gw.len(), s.w_len())?;
    // One part's sums of a linear layer already are gw.
    let direct = parts == 1 && s.kh * s.kw == 1;
    let sums = if direct { gw.pointer() } else { workspace.pointer() };
    let needed = if direct { 0 } else { parts * s.w_len() };
    expect(WHAT, "the workspace", workspace.len().min(needed), needed)?;
    let pixels = rows * s.oh() * s.ow();
    // Within a part's images, offsets have 32 bits; from part to part, 64.
    let images = part / (s.oh() * s.ow()).max(1) + 2;
    if pixels.max(images.saturating_mul(s.x_len())).max(s.w_len()) > OFFSET_MAX {
        let reason = format!("{pixels} pixels of images of {} floats are too many: use a smaller batch", s.x_len());
        return Err(BackendError::Device { what: WHAT.into(), reason });
    }
    let store_quads = (s.kh * s.kw * s.c).is_multiple_of(4) && sums.is_multiple_of(16);
    let arguments = WeightArguments {
        x: x.pointer(),
        gy: gy.pointer(),
        sums,
        pixels: pixels as u32,
        part: part as u32,
        h: s.h as i32,
        w: s.w as i32,
        c: s.c as i32,
        p: s.oh() as i32,
        q: s.ow() as i32,
        o: s.o as i32,
        kh: s.kh as i32,
        kw: s.kw as i32,
        stride: s.stride as i32,
        pad: s.pad as i32,
        tiles_o: tiles[0] as u32,
        tiles_j: tiles[1] as u32,
        options: u32::from(store_quads) * WEIGHT_STORE_QUADS,
    };
    let aligned = [x.pointer(), gy.pointer()].iter().all(|p| p.is_multiple_of(16));
    let quads = s.c.is_multiple_of(4) && s.o.is_multiple_of(4) && aligned;
    let (kernel, shared_bytes) = match mma::weight_kernel(precision, s, tile) {
        Some(_) if !quads => {
            let reason = "x or gy is not at a multiple of 16 bytes (please report this)".into();
            return Err(BackendError::Device { what: WHAT.into(), reason });
        }
        Some(tensor) => tensor,
        None => (tile.kernel(quads), 0),
    };
    let grid = [parts * tiles[0] * tiles[1], 1, 1];
    // SAFETY: the argument is the kernel's; lengths and the range of all indices were checked above.
    unsafe { q.launch(kernel, grid, [128, 1], shared_bytes, arguments)? }
    if direct {
        return Ok(());
    }
    let arguments = WeightSumArguments {
        sums,
        gw: gw.pointer(),
        parts: parts as u32,
        o: s.o as u32,
        c: s.c as u32,
        taps: (s.kh * s.kw) as u32,
    };
    // SAFETY: the argument is the kernel's; the workspace holds `parts` results, which the launch before wrote.
    unsafe { q.launch(SUM, [s.w_len().div_ceil(256), 1, 1], [256, 1], 0, arguments) }
}
