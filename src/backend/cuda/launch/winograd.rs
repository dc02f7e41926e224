//! `kernels/winograd.cu`: 3x3 convolutions of stride 1 forward, by Winograd's tiles. Which layers, which tiles and
//! which chunks follow from the shape, in `backend::winograd`.

use super::conv::{Packed, PackedMut, Pixels, window_len};
use super::{Floats, FloatsMut, Queue, expect, narrow};
use crate::backend::BackendError;
use crate::backend::layout::ConvShape;
use crate::backend::winograd::Winograd;
use crate::graph::op::Activation;

/// A tile of the product.
#[derive(Clone, Copy)]
enum Tile {
    Wide,
    Narrow,
}

impl Tile {
    fn new(s: &ConvShape) -> Tile {
        if s.o <= 32 { Tile::Narrow } else { Tile::Wide }
    }

    /// Rows, columns and depth, as in winograd.cu.
    fn size(self) -> [usize; 3] {
        match self {
            Tile::Wide => [128, 64, 16],
            Tile::Narrow => [128, 32, 16],
        }
    }

    fn kernel(self) -> &'static str {
        match self {
            Tile::Wide => "winograd_product_wide",
            Tile::Narrow => "winograd_product_narrow",
        }
    }
}

/// Lines and columns of a transformed weight: whole tiles of the product.
fn padded(s: &ConvShape) -> [usize; 2] {
    let [_, across, depth] = Tile::new(s).size();
    [s.c.next_multiple_of(depth), s.o.next_multiple_of(across)]
}

/// The kernel that does most of a layer's work.
pub(super) fn kernel(s: &ConvShape) -> &'static str {
    Tile::new(s).kernel()
}

/// The kernel that transforms a weight.
pub(super) fn pack_kernel(winograd: Winograd) -> &'static str {
    match winograd {
        Winograd::F2 => "winograd_pack_2",
        Winograd::F4 => "winograd_pack_4",
    }
}

/// Floats of memory of a transformed weight.
pub(super) fn packed_len(s: &ConvShape, winograd: Winograd) -> usize {
    winograd.products() * padded(s).iter().product::<usize>()
}

fn refuse(reason: String) -> BackendError {
    BackendError::Device { what: "a convolution by Winograd's tiles".into(), reason }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct WinogradPackArguments {
    weight: u64,
    packed: u64,
    o: u32,
    c: u32,
    c_padded: u32,
    o_padded: u32,
}
const _: () = assert!(size_of::<WinogradPackArguments>() == 32, "as in winograd.cu");

/// Channels and outputs of a block of the kernel.
const PACK_BLOCK: [usize; 2] = [8, 32];

/// w (O,C,3,3), whose length and whose packed length the caller has checked, transformed.
pub(super) fn pack(
    q: &Queue,
    s: &ConvShape,
    winograd: Winograd,
    weight: Floats<'_>,
    packed: &PackedMut<'_>,
) -> Result<(), BackendError> {
    let kernel = pack_kernel(winograd);
    if !Winograd::fits(s) {
        return Err(refuse(format!("{s:?} is no layer for it (please report this)")));
    }
    let size = |what, size| narrow(kernel, what, size);
    // the kernel numbers the taps of a line
    size("a number of taps", 9 * s.c.next_multiple_of(16))?;
    let [c_padded, o_padded] = padded(s);
    let arguments = WinogradPackArguments {
        weight: weight.pointer(),
        packed: packed.floats.pointer(),
        o: size("a number of outputs", s.o)?,
        c: size("a number of inputs", s.c)?,
        c_padded: size("a number of inputs", c_padded)?,
        o_padded: size("a number of outputs", o_padded)?,
    };
    let grid = (c_padded / PACK_BLOCK[0]) * (o_padded / PACK_BLOCK[1]);
    // SAFETY: the argument is the kernel's; the weight has O·C·9 elements and `packed` those of T·T padded matrices.
    unsafe { q.launch(kernel, [grid, 1, 1], [256, 1], 0, arguments) }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct WinogradInputArguments {
    x: u64,
    v: u64,
    first: u32,
    tiles: u32,
    h: i32,
    w: i32,
    c: i32,
    x_pixel: i32,
    x_image: i32,
    across: i32,
    plane: i32,
    pad: i32,
}
const _: () = assert!(size_of::<WinogradInputArguments>() == 56, "as in winograd.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct WinogradProductArguments {
    v: u64,
    u: u64,
    m: u64,
    tiles: u32,
    c: i32,
    c_padded: i32,
    line: i32,
    o_padded: i32,
}
const _: () = assert!(size_of::<WinogradProductArguments>() == 48, "as in winograd.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct WinogradOutputArguments {
    m: u64,
    bias: u64,
    y: u64,
    first: u32,
    tiles: u32,
    line: i32,
    n: i32,
    p: i32,
    q: i32,
    y_pixel: i32,
    y_image: i32,
    across: i32,
    plane: i32,
    options: u32,
}
const _: () = assert!(size_of::<WinogradOutputArguments>() == 72, "as in winograd.cu");

/// Values of `WinogradOutputArguments::options`.
const RELU: u32 = 1;
const STORE_QUADS: u32 = 2;

/// Lanes that transform: as many pairs of a tile and a quad of channels a block.
const PAIRS: usize = 32;

/// y (rows,OH,OW,O) from x (rows,H,W,C), windows of channels or whole; the weight transformed for these tiles. Of the
/// workspace, [`Winograd::workspace`] of as many rows is enough; whatever its size is, results are the same.
#[allow(clippy::too_many_arguments, reason = "a convolution's operands")]
pub(in crate::backend::cuda) fn forward(
    q: &Queue,
    winograd: Winograd,
    shape: &ConvShape,
    rows: usize,
    x: Pixels<Floats<'_>>,
    weight: Packed<'_>,
    bias: Option<Floats<'_>>,
    activation: Activation,
    workspace: FloatsMut<'_>,
    y: Pixels<FloatsMut<'_>>,
) -> Result<(), BackendError> {
    const WHAT: &str = "convolution by Winograd's tiles";
    let s = shape;
    if !Winograd::fits(s) || weight.layout.winograd != Some(winograd) {
        return Err(refuse(format!("{s:?} or its weight are not made for it (please report this)")));
    }
    expect(WHAT, "x", x.floats.len(), window_len(rows * s.h * s.w, s.c, x.pixel))?;
    expect(WHAT, "y", y.floats.len(), window_len(rows * s.oh() * s.ow(), s.o, y.pixel))?;
    expect(WHAT, "the transformed weight", weight.floats.len(), packed_len(s, winograd))?;
    expect(WHAT, "the bias", bias.map_or(s.o, |b| b.len()), s.o)?;
    let needed = winograd.workspace(s, rows);
    expect(WHAT, "the workspace", workspace.len().min(needed), needed)?;
    let aligned = |pointer: u64, pixel: usize| pointer.is_multiple_of(16) && pixel.is_multiple_of(4);
    if !aligned(x.floats.pointer(), x.pixel) || !workspace.pointer().is_multiple_of(16) {
        return Err(refuse("its operands are not at multiples of 16 bytes (please report this)".into()));
    }
    let (x_image, y_image) = (s.h * s.w * x.pixel, s.oh() * s.ow() * y.pixel);
    let (line, [c_padded, o_padded]) = (Winograd::line(s), padded(s));
    let ([_, across], plane) = (winograd.tiles(s), winograd.image(s));
    let (tiles, chunk) = (rows * plane, winograd.chunk(s));
    // what the kernels compute in 32 bits: a place in an image or in one matrix of a chunk, and a tile's number
    let largest = [x_image, y_image, tiles + chunk, chunk * c_padded, chunk * o_padded, c_padded * o_padded];
    if let Some(large) = largest.into_iter().find(|&n| n > i32::MAX as usize) {
        return Err(refuse(format!("{large} floats or tiles at once are too many: use a smaller batch")));
    }
    let bias = bias.map_or(0, |b| b.pointer());
    let store_quads = s.o.is_multiple_of(4) && aligned(y.floats.pointer(), y.pixel) && bias.is_multiple_of(16);
    let options = u32::from(activation == Activation::Relu) * RELU + u32::from(store_quads) * STORE_QUADS;
    let (input, output) = match winograd {
        Winograd::F2 => ("winograd_input_2", "winograd_output_2"),
        Winograd::F4 => ("winograd_input_4", "winograd_output_4"),
    };
    let block = [(PAIRS * (winograd.outputs() + 2)) as u32, 1];
    let tile = Tile::new(s);
    let [tile_rows, tile_columns, _] = tile.size();
    for first in (0..tiles).step_by(chunk) {
        let count = chunk.min(tiles - first);
        let v = workspace.pointer();
        let m = v + 4 * (winograd.products() * count * s.c) as u64;
        let (first, tiles) = (first as u32, count as u32);
        let arguments = WinogradInputArguments {
            x: x.floats.pointer(),
            v,
            first,
            tiles,
            h: s.h as i32,
            w: s.w as i32,
            c: s.c as i32,
            x_pixel: x.pixel as i32,
            x_image: x_image as i32,
            across: across as i32,
            plane: plane as i32,
            pad: s.pad as i32,
        };
        let grid = (count * (s.c / 4)).div_ceil(PAIRS);
        // SAFETY: the argument is the kernel's; lengths were checked above, and V has T·T · tiles · C floats of the
        // workspace.
        unsafe { q.launch(input, [grid, 1, 1], block, 0, arguments)? }
        let arguments = WinogradProductArguments {
            v,
            u: weight.floats.pointer(),
            m,
            tiles,
            c: s.c as i32,
            c_padded: c_padded as i32,
            line: line as i32,
            o_padded: o_padded as i32,
        };
        let grid = [count.div_ceil(tile_rows) * (o_padded / tile_columns), winograd.products(), 1];
        // SAFETY: as above; V has just been written, and M has T·T · tiles · `line` floats behind it.
        unsafe { q.launch(tile.kernel(), grid, [128, 1], 0, arguments)? }
        let arguments = WinogradOutputArguments {
            m,
            bias,
            y: y.floats.pointer(),
            first,
            tiles,
            line: line as i32,
            n: s.o as i32,
            p: s.oh() as i32,
            q: s.ow() as i32,
            y_pixel: y.pixel as i32,
            y_image: y_image as i32,
            across: across as i32,
            plane: plane as i32,
            options,
        };
        let grid = (count * (line / 4)).div_ceil(PAIRS);
        // SAFETY: as above; M has just been written, and the next chunk's launches come behind this one.
        unsafe { q.launch(output, [grid, 1, 1], block, 0, arguments)? }
    }
    Ok(())
}
