//! `kernels/mask.cu`: pixel masks and random signs, drawn and applied on the device.

use super::{Floats, FloatsMut, Indices, Queue, THREADS, aligned, blocks, expect, narrow};
use crate::backend::BackendError;
use crate::backend::layout::len;
use crate::random::fnv1a_32;

#[repr(C)]
#[derive(Clone, Copy)]
struct Draw {
    key: [u32; 2],
    name: u32,
    first: u32,
}
const _: () = assert!(size_of::<Draw>() == 16, "as in mask.cu");

impl Draw {
    /// Draws from `first` on of the stream `name` (`crate::random::Stream`).
    fn new(seed: u64, name: &str, first: u32) -> Draw {
        Draw { key: [seed as u32, (seed >> 32) as u32], name: fnv1a_32(name), first }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct MaskArguments {
    x: u64,
    y: u64,
    images: u64,
    draw: Draw,
    fill: f32,
    channels: u32,
    height: u32,
    width: u32,
    row: u32,
    row_blocks: u32,
    lanes: u32,
    unused: u32,
}
const _: () = assert!(size_of::<MaskArguments>() == 72, "as in mask.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct SignsArguments {
    x: u64,
    y: u64,
    images: u64,
    draw: Draw,
    eps: f32,
    channels: u32,
    positions: u32,
    items: u32,
}
const _: () = assert!(size_of::<SignsArguments>() == 56, "as in mask.cu");

/// Elements that a block of `grid_mask` fills.
const BLOCK_ELEMENTS: usize = 4096;

/// Draws set aside for one mask, as in the host's `GridMask`.
const DRAWS: u32 = 128;

/// Which masks to draw, one for each image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Masks {
    /// Seed of the draws.
    pub seed: u64,
    /// Number of the mask, below 2^25: an image can have many.
    pub number: u32,
    /// What masked pixels become.
    pub fill: f32,
}

/// y (rows, H, W, C) = x with `fill` in each image's ten of 100 cells; `images` has two words a row, the low one first.
pub(in crate::backend::cuda) fn grid_mask(
    q: &Queue,
    masks: Masks,
    images: Indices<'_>,
    [c, h, w]: [usize; 3],
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "grid_mask";
    let (rows, row) = (images.len() / 2, len(&[c, h, w]));
    expect(KERNEL, "images", images.len(), 2 * rows)?;
    expect(KERNEL, "x", x.len(), rows * row)?;
    expect(KERNEL, "y", y.len(), x.len())?;
    let first = narrow(KERNEL, "a mask's first draw", masks.number as usize * DRAWS as usize)?;
    // ten times a side is a number in the kernel
    narrow(KERNEL, "an image", row.saturating_add(10 * (h + w) + BLOCK_ELEMENTS))?;
    let row_blocks = row.div_ceil(BLOCK_ELEMENTS);
    let arguments = MaskArguments {
        x: x.pointer(),
        y: y.pointer(),
        images: images.pointer(),
        draw: Draw::new(masks.seed, "pwm", first),
        fill: masks.fill,
        channels: c as u32,
        height: h as u32,
        width: w as u32,
        row: row as u32,
        row_blocks: row_blocks as u32,
        lanes: if row.is_multiple_of(4) && aligned(&[x.pointer(), y.pointer()]) { 4 } else { 1 },
        unused: 0,
    };
    // SAFETY: the argument is the kernel's; x and y have rows · row elements, the images two words a row.
    unsafe { q.launch(KERNEL, [rows * row_blocks, 1, 1], [THREADS as u32, 1], 0, arguments) }
}

/// y (rows, positions, C) = clip(x + eps · s, 0, 1), s the random signs of each image; `images` as in [`grid_mask`].
pub(in crate::backend::cuda) fn random_signs(
    q: &Queue,
    seed: u64,
    eps: f32,
    images: Indices<'_>,
    [c, h, w]: [usize; 3],
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "random_signs";
    let rows = images.len() / 2;
    expect(KERNEL, "images", images.len(), 2 * rows)?;
    expect(KERNEL, "x", x.len(), len(&[rows, c, h, w]))?;
    expect(KERNEL, "y", y.len(), x.len())?;
    let arguments = SignsArguments {
        x: x.pointer(),
        y: y.pointer(),
        images: images.pointer(),
        draw: Draw::new(seed, "noise", 0),
        eps,
        channels: c as u32,
        positions: (h * w) as u32,
        items: narrow(KERNEL, "a value", x.len())?,
    };
    // SAFETY: the argument is the kernel's; x and y have `items` elements, the images two words a row.
    unsafe { q.launch(KERNEL, blocks(x.len()), [THREADS as u32, 1], 0, arguments) }
}
