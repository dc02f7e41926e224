//! `kernels/conv_gemm.cu`, `conv_wgrad.cu`, `conv_pack.cu`: convolutions, linear layers and their gradients. Those on tensor
//! cores, `conv_mma.cu`, are in `conv_mma`, those by Winograd's tiles in `winograd`; a weight's gradient is in `grad_weight`.
//!
//! Which tile serves a layer is decided here, from the layer's shape alone: every tile of one layer adds in one order, so an
//! image's result has the same bits in any batch.

mod grad_weight;

use super::conv_mma as mma;
use super::winograd as tiles;
use super::{Floats, FloatsMut, Queue, expect, narrow};
use crate::backend::BackendError;
use crate::backend::cuda::{Arithmetic, Precision};
use crate::backend::layout::ConvShape;
use crate::backend::problems::Pass;
use crate::backend::winograd::Winograd;
use crate::graph::op::Activation;
use grad_weight::Division;

pub(super) use grad_weight::WeightTile;
pub(in crate::backend::cuda) use grad_weight::{grad_weight, grad_weight_workspace};

/// What a weight is packed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::backend::cuda) enum Order {
    /// `packed[(r·KW + s)·C + c][o]`.
    Forward,
    /// The same of the transposed convolution, for each residue of a tap's place modulo the stride.
    GradInput,
}

/// How a weight is packed, and with that which kernels read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::backend::cuda) struct Layout {
    pub order: Order,
    /// None: f32 in the order's lines, from the first float on; a line is [`packed_line`] floats long.
    format: Option<mma::Format>,
    /// Transformed for these tiles, in fp32; forward only.
    pub winograd: Option<Winograd>,
}

impl Layout {
    /// In fp32, for all kernels but those on tensor cores and those of `winograd.cu`.
    pub const fn exact(order: Order) -> Layout {
        Layout { order, format: None, winograd: None }
    }

    /// For the kernels of `winograd.cu`.
    pub const fn winograd(tiles: Winograd) -> Layout {
        Layout { order: Order::Forward, format: None, winograd: Some(tiles) }
    }

    /// For the forward pass of a convolution, which may go by Winograd's tiles.
    pub fn forward(shape: &ConvShape, arithmetic: Arithmetic) -> Layout {
        match Winograd::of(shape) {
            Some(tiles) if arithmetic == Arithmetic::Winograd => Layout::winograd(tiles),
            _ => Layout::new(shape, Order::Forward, arithmetic.precision()),
        }
    }

    /// For a layer of that shape: on tensor cores where the precision allows and the shape fits them.
    pub fn new(shape: &ConvShape, order: Order, precision: Precision) -> Layout {
        let gemm = Gemm::new(shape, order);
        let format = mma::Format::new(precision, order, [gemm.channels, gemm.columns, gemm.k]);
        Layout { order, format, winograd: None }
    }
}

/// A packed weight.
#[derive(Clone, Copy)]
pub(in crate::backend::cuda) struct Packed<'a> {
    pub floats: Floats<'a>,
    pub layout: Layout,
}

/// Where a weight is packed to.
pub(in crate::backend::cuda) struct PackedMut<'a> {
    pub floats: FloatsMut<'a>,
    pub layout: Layout,
}

/// A layer as matrix products.
#[derive(Clone, Copy)]
struct Gemm {
    /// Of the pixels on the left.
    channels: usize,
    columns: usize,
    /// Rows an image.
    positions: usize,
    k: usize,
    /// Products, each with a weight of its own.
    problems: usize,
}

impl Gemm {
    fn new(s: &ConvShape, order: Order) -> Gemm {
        match order {
            Order::Forward => {
                let (k, positions) = (s.kh * s.kw * s.c, s.oh() * s.ow());
                Gemm { channels: s.c, columns: s.o, positions, k, problems: 1 }
            }
            Order::GradInput => {
                let taps = s.kh.div_ceil(s.stride) * s.kw.div_ceil(s.stride);
                let positions = s.h.div_ceil(s.stride) * s.w.div_ceil(s.stride);
                let problems = s.kh.min(s.stride) * s.kw.min(s.stride);
                Gemm { channels: s.o, columns: s.c, positions, k: taps * s.o, problems }
            }
        }
    }
}

/// A kernel's tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnyTile {
    Exact(Tile),
    Tensor(mma::Tile),
}

impl AnyTile {
    /// Rows, columns and depth.
    fn size(self) -> [usize; 3] {
        match self {
            AnyTile::Exact(tile) => tile.size(),
            AnyTile::Tensor(tile) => tile.size(),
        }
    }

    fn threads(self) -> u32 {
        match self {
            AnyTile::Exact(tile) => tile.threads(),
            AnyTile::Tensor(_) => mma::Tile::THREADS,
        }
    }

    /// Dynamic shared memory.
    fn shared_bytes(self) -> usize {
        match self {
            AnyTile::Exact(_) => 0,
            AnyTile::Tensor(tile) => tile.shared_bytes(),
        }
    }

    /// The kernel for pixels whose channels are whole quads, or for any; if there is one.
    fn kernel(self, quads: bool, prologue: bool) -> Option<&'static str> {
        match self {
            AnyTile::Exact(tile) => tile.kernel(quads, prologue),
            AnyTile::Tensor(tile) => (quads && !prologue).then(|| tile.kernel()),
        }
    }
}

/// A tile of `conv_gemm.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tile {
    Wide,
    Narrow,
    Thin,
    Deep,
}

impl Tile {
    /// For `columns` output channels at `positions` an image, each a sum over `k`.
    fn new(columns: usize, positions: usize, k: usize) -> Tile {
        // Few pixels an image make few tiles, and a long sum keeps each busy for long: smaller tiles, the sum over eight warps.
        // All linear layers with 256 inputs or more are among these.
        if positions <= 64 && k >= 256 {
            Tile::Deep
        } else if columns <= 4 {
            Tile::Thin
        } else if columns <= 32 {
            Tile::Narrow
        } else {
            Tile::Wide
        }
    }

    /// Rows, columns and depth, as in conv_gemm.cu.
    fn size(self) -> [usize; 3] {
        match self {
            Tile::Wide => [128, 64, 16],
            Tile::Narrow => [128, 32, 16],
            Tile::Thin => [256, 4, 16],
            Tile::Deep => [32, 32, 64],
        }
    }

    fn threads(self) -> u32 {
        match self {
            Tile::Wide | Tile::Narrow | Tile::Thin => 128,
            Tile::Deep => 256,
        }
    }

    /// The kernel for pixels whose channels are whole quads, or for any. There is none with a prologue for odd channels or for
    /// at most four outputs: no network has such a layer.
    fn kernel(self, quads: bool, prologue: bool) -> Option<&'static str> {
        match (self, quads, prologue) {
            (Tile::Wide, true, false) => Some("conv_wide"),
            (Tile::Wide, false, false) => Some("conv_wide_scalar"),
            (Tile::Wide, true, true) => Some("conv_wide_prologue"),
            (Tile::Narrow, true, false) => Some("conv_narrow"),
            (Tile::Narrow, false, false) => Some("conv_narrow_scalar"),
            (Tile::Narrow, true, true) => Some("conv_narrow_prologue"),
            (Tile::Thin, true, false) => Some("conv_thin"),
            (Tile::Thin, false, false) => Some("conv_thin_scalar"),
            (Tile::Deep, true, false) => Some("conv_deep"),
            (Tile::Deep, false, false) => Some("conv_deep_scalar"),
            (Tile::Deep, true, true) => Some("conv_deep_prologue"),
            (Tile::Wide | Tile::Narrow | Tile::Deep, false, true) | (Tile::Thin, _, true) => None,
        }
    }
}

/// The packed weights of a layer: `problems` matrices of k x n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packing {
    tile: AnyTile,
    problems: usize,
    pub k: usize,
    pub n: usize,
    /// Floats of a matrix.
    floats: usize,
}

impl Packing {
    fn new(s: &ConvShape, layout: Layout) -> Packing {
        let Gemm { columns, positions, k, problems, .. } = Gemm::new(s, layout.order);
        let tile = match layout.format {
            None => AnyTile::Exact(Tile::new(columns, positions, k)),
            Some(format) => AnyTile::Tensor(mma::Tile::new(format, columns, positions, k)),
        };
        let [_, across, depth] = tile.size();
        let (k, n) = (k.next_multiple_of(depth), columns.next_multiple_of(across));
        Packing { tile, problems, k, n, floats: k * n * layout.format.map_or(4, mma::Format::bytes) / 4 }
    }
}

/// Floats from one line of a weight that is packed exactly for [`Order::Forward`] to the next: O and some zeros.
pub(in crate::backend::cuda) fn packed_line(shape: &ConvShape) -> usize {
    Packing::new(shape, Layout::exact(Order::Forward)).n
}

/// Floats of memory of a packed weight.
pub(in crate::backend::cuda) fn packed_len(shape: &ConvShape, layout: Layout) -> usize {
    if let Some(winograd) = layout.winograd {
        return tiles::packed_len(shape, winograd);
    }
    let Packing { problems, floats, .. } = Packing::new(shape, layout);
    problems * floats
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct PackArguments {
    weight: u64,
    packed: u64,
    o: u32,
    c: u32,
    kh: u32,
    kw: u32,
    k_padded: u32,
    n_padded: u32,
    step: u32,
    units: u32,
}
const _: () = assert!(size_of::<PackArguments>() == 48, "as in conv_pack.cuh");

impl PackArguments {
    pub fn new(
        kernel: &'static str,
        s: &ConvShape,
        packing: Packing,
        weight: Floats<'_>,
        packed: &PackedMut<'_>,
        units: usize,
    ) -> Result<PackArguments, BackendError> {
        let size = |what, size| narrow(kernel, what, size);
        Ok(PackArguments {
            weight: weight.pointer(),
            packed: packed.floats.pointer(),
            o: size("a number of outputs", s.o)?,
            c: size("a number of inputs", s.c)?,
            kh: size("a height", s.kh)?,
            kw: size("a width", s.kw)?,
            k_padded: size("a sum", packing.k)?,
            n_padded: size("a number of outputs", packing.n)?,
            step: size("a stride", s.stride)?,
            units: size("a weight", units)?,
        })
    }
}

/// The kernel that packs a weight for the kernels of `conv_gemm.cu` or `conv_mma.cu`.
fn pack_kernel(layout: Layout) -> &'static str {
    match (layout.format, layout.order) {
        (None, Order::Forward) => "conv_pack_forward",
        (None, Order::GradInput) => "conv_pack_grad_input",
        (Some(format), order) => mma::pack_kernel(order, format),
    }
}

/// w (O,C,KH,KW) into the layout that `forward`, `winograd::forward` or `grad_input` reads.
pub(in crate::backend::cuda) fn pack(
    q: &Queue,
    shape: &ConvShape,
    weight: Floats<'_>,
    packed: PackedMut<'_>,
) -> Result<(), BackendError> {
    let s = shape;
    let kernel = packed.layout.winograd.map_or_else(|| pack_kernel(packed.layout), tiles::pack_kernel);
    expect(kernel, "the weight", weight.len(), s.w_len())?;
    expect(kernel, "the packed weight", packed.floats.len(), packed_len(s, packed.layout))?;
    if let Some(winograd) = packed.layout.winograd {
        return tiles::pack(q, s, winograd, weight, &packed);
    }
    let packing = Packing::new(s, packed.layout);
    let Packing { problems, k, n, .. } = packing;
    if let Some(format) = packed.layout.format {
        return mma::pack(q, s, format, packing, weight, &packed);
    }
    // the kernels number the lines of all problems
    narrow(kernel, "a number of lines", problems * k)?;
    let arguments = PackArguments::new(kernel, s, packing, weight, &packed, k.div_ceil(32))?;
    let (grid, block) = match packed.layout.order {
        Order::Forward => (k.div_ceil(32) * n.div_ceil(32), [32, 8]),
        Order::GradInput => (problems * k * n.div_ceil(128), [128, 1]),
    };
    // SAFETY: the argument is the kernel's; the weight has O·C·KH·KW elements and `packed` problems · k · n.
    unsafe { q.launch(kernel, [grid, 1, 1], block, 0, arguments) }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ConvArguments {
    x: u64,
    weight: u64,
    bias: u64,
    scale: u64,
    shift: u64,
    y: u64,
    pixels: u32,
    h: i32,
    w: i32,
    c: i32,
    x_pixel: i32,
    x_image: i32,
    p: i32,
    q: i32,
    n: i32,
    n_padded: i32,
    y_pixel: i32,
    y_line: i32,
    y_image: i32,
    kh: i32,
    kw: i32,
    k_tiles: i32,
    stride: i32,
    top: i32,
    left: i32,
    options: u32,
}
const _: () = assert!(size_of::<ConvArguments>() == 128, "as in conv.cuh");

/// Values of `ConvArguments::options`.
const RELU: u32 = 1;
const STORE_QUADS: u32 = 2;
const STORE_PAIRS: u32 = 4;

/// The greatest offset that a kernel computes in 32 bits.
const OFFSET_MAX: usize = i32::MAX as usize;

/// An image's pixels as they lie in memory, `pixel` floats from one to the next: more than it has channels where it is a window
/// of a wider one.
#[derive(Clone, Copy)]
pub(in crate::backend::cuda) struct Pixels<P> {
    /// From the first channel of the window on.
    pub floats: P,
    /// Floats from one pixel to the next.
    pub pixel: usize,
}

/// What happens to a convolution's input before it is padded: relu(x · scale + shift), a channel each.
#[derive(Clone, Copy)]
pub(in crate::backend::cuda) struct Prologue<'a> {
    pub scale: Floats<'a>,
    pub shift: Floats<'a>,
}

/// y (rows,OH,OW,O) from x (rows,H,W,C); `weight` packed for [`Order::Forward`].
#[allow(clippy::too_many_arguments, reason = "a convolution's operands")]
pub(in crate::backend::cuda) fn forward(
    q: &Queue,
    shape: &ConvShape,
    rows: usize,
    x: Floats<'_>,
    weight: Packed<'_>,
    bias: Option<Floats<'_>>,
    activation: Activation,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    let (x, y) = (Pixels { floats: x, pixel: shape.c }, Pixels { floats: y, pixel: shape.o });
    forward_with_prologue(q, shape, rows, x, None, weight, bias, activation, y)
}

/// As [`forward`], from and to windows of channels, and with a prologue, which wants the weight packed exactly.
#[allow(clippy::too_many_arguments, reason = "a convolution's operands")]
pub(in crate::backend::cuda) fn forward_with_prologue(
    q: &Queue,
    shape: &ConvShape,
    rows: usize,
    x: Pixels<Floats<'_>>,
    prologue: Option<Prologue<'_>>,
    weight: Packed<'_>,
    bias: Option<Floats<'_>>,
    activation: Activation,
    y: Pixels<FloatsMut<'_>>,
) -> Result<(), BackendError> {
    const WHAT: &str = "convolution";
    let s = shape;
    let packing = Packing::new(s, weight.layout);
    expect_order(WHAT, weight, Order::Forward)?;
    expect(WHAT, "x", x.floats.len(), window_len(rows * s.h * s.w, s.c, x.pixel))?;
    expect(WHAT, "y", y.floats.len(), window_len(rows * s.oh() * s.ow(), s.o, y.pixel))?;
    expect(WHAT, "the packed weight", weight.floats.len(), packing.floats)?;
    expect(WHAT, "the bias", bias.map_or(s.o, |b| b.len()), s.o)?;
    for (what, values) in prologue.iter().flat_map(|p| [("the scale", p.scale), ("the shift", p.shift)]) {
        expect(WHAT, what, values.len(), s.c)?;
    }
    let problem = Problem {
        tile: packing.tile,
        rows,
        source: [s.h, s.w, s.c],
        x_pixel: x.pixel,
        target: [s.oh(), s.ow(), s.o],
        y_pixel: y.pixel,
        y_line: s.ow() * y.pixel,
        y_image: s.oh() * s.ow() * y.pixel,
        n_padded: packing.n,
        taps: [s.kh, s.kw],
        stride: s.stride,
        top: s.pad as isize,
        left: s.pad as isize,
        relu: activation == Activation::Relu,
    };
    let operands = Operands {
        x: x.floats.pointer(),
        weight: weight.floats.pointer(),
        bias: bias.map_or(0, |b| b.pointer()),
        prologue: prologue.map(|p| [p.scale.pointer(), p.shift.pointer()]),
        y: y.floats.pointer(),
    };
    // SAFETY: the lengths were checked above.
    unsafe { problem.launch(q, operands) }
}

fn expect_order(kernel: &'static str, weight: Packed<'_>, order: Order) -> Result<(), BackendError> {
    if weight.layout.order == order && weight.layout.winograd.is_none() {
        return Ok(());
    }
    let reason = "the weight is packed for another (please report this)".into();
    Err(BackendError::Device { what: format!("kernel {kernel}"), reason })
}

/// Floats from the first to the last of `pixels` windows of `channels` that lie `pixel` floats apart.
pub(in crate::backend::cuda) fn window_len(pixels: usize, channels: usize, pixel: usize) -> usize {
    pixels.checked_sub(1).map_or(0, |before| before * pixel + channels)
}

/// gx (rows,H,W,C) from gy (rows,OH,OW,O); `weight` packed for [`Order::GradInput`].
pub(in crate::backend::cuda) fn grad_input(
    q: &Queue,
    shape: &ConvShape,
    rows: usize,
    gy: Floats<'_>,
    weight: Packed<'_>,
    gx: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const WHAT: &str = "gradient of a convolution's input";
    let s = shape;
    let packing = Packing::new(s, weight.layout);
    expect_order(WHAT, weight, Order::GradInput)?;
    expect(WHAT, "gy", gy.len(), rows * s.y_len())?;
    expect(WHAT, "gx", gx.len(), rows * s.x_len())?;
    expect(WHAT, "the packed weight", weight.floats.len(), packing.problems * packing.floats)?;
    // The cells of row a, a + S, a + 2S ... are hit by taps r with r = a + P modulo S: as a convolution of stride 1 over gy,
    // with the taps turned round. The same holds for columns.
    for (a, b) in (0..s.stride.min(s.h)).flat_map(|a| (0..s.stride.min(s.w)).map(move |b| (a, b))) {
        let (down, across) = (Residue::new(a, s.kh, s), Residue::new(b, s.kw, s));
        let number = down.first * s.kw.min(s.stride) + across.first;
        let taps = [down.taps, across.taps];
        let problem = Problem {
            tile: packing.tile,
            rows,
            source: [s.oh(), s.ow(), s.o],
            x_pixel: s.o,
            target: [(s.h - a).div_ceil(s.stride), (s.w - b).div_ceil(s.stride), s.c],
            y_pixel: s.stride * s.c,
            y_line: s.stride * s.w * s.c,
            y_image: s.x_len(),
            n_padded: packing.n,
            taps,
            stride: 1,
            top: down.pad,
            left: across.pad,
            relu: false,
        };
        // a residue that no tap hits has no weights, and its cells become 0
        let weights = if taps.contains(&0) { 0 } else { number * packing.floats };
        let operands = Operands {
            x: gy.pointer(),
            weight: weight.floats.pointer() + 4 * weights as u64,
            bias: 0,
            prologue: None,
            y: gx.pointer() + 4 * ((a * s.w + b) * s.c) as u64,
        };
        // SAFETY: the lengths were checked above, and the cells of all residues are those of gx.
        unsafe { problem.launch(q, operands)? }
    }
    Ok(())
}

/// The taps that hit the cells of one residue modulo the stride, in one direction.
struct Residue {
    /// The first tap; the others follow a stride apart.
    first: usize,
    taps: usize,
    /// Cells of padding in front of gy.
    pad: isize,
}

impl Residue {
    fn new(residue: usize, kernel: usize, s: &ConvShape) -> Residue {
        let first = (residue + s.pad) % s.stride;
        let taps = kernel.saturating_sub(first).div_ceil(s.stride);
        let pad = taps as isize - 1 - ((residue + s.pad) / s.stride) as isize;
        Residue { first, taps, pad }
    }
}

/// Addresses of what a launch reads and writes.
struct Operands {
    x: u64,
    weight: u64,
    bias: u64,
    prologue: Option<[u64; 2]>,
    y: u64,
}

/// One implicit GEMM.
struct Problem {
    tile: AnyTile,
    rows: usize,
    /// Height, width, channels.
    source: [usize; 3],
    x_pixel: usize,
    target: [usize; 3],
    y_pixel: usize,
    y_line: usize,
    y_image: usize,
    n_padded: usize,
    taps: [usize; 2],
    stride: usize,
    top: isize,
    left: isize,
    relu: bool,
}

impl Problem {
    /// # Safety
    /// The operands must be as long as the problem says.
    unsafe fn launch(self, q: &Queue, operands: Operands) -> Result<(), BackendError> {
        let ([h, w, c], [p, columns, n], [kh, kw]) = (self.source, self.target, self.taps);
        let [tile_pixels, tile_columns, depth] = self.tile.size();
        let aligned = |pointer: u64, pixel: usize| pointer.is_multiple_of(16) && pixel.is_multiple_of(4);
        let quads = c.is_multiple_of(4) && aligned(operands.x, self.x_pixel);
        let refuse = |reason: String| BackendError::Device { what: "a convolution".into(), reason };
        let kernel = self.tile.kernel(quads, operands.prologue.is_some()).ok_or_else(|| {
            refuse(format!("no kernel applies scale, shift and ReLU to {c} channels on the way to {n}"))
        })?;
        // Within a tile's images, offsets have 32 bits; from image to image, 64.
        let images = tile_pixels.div_ceil((p * columns).max(1)) + 1;
        let x_image = h * w * self.x_pixel;
        if images.saturating_mul(x_image.max(self.y_image)) > OFFSET_MAX {
            return Err(refuse(format!("images of {x_image} and {} floats are too large", self.y_image)));
        }
        let pixels = self.rows * p * columns;
        if pixels > OFFSET_MAX {
            return Err(refuse(format!("{pixels} pixels in a launch are too many: use a smaller batch")));
        }
        let store_quads = n.is_multiple_of(4) && aligned(operands.y, self.y_pixel);
        let store_pairs = [n, self.y_pixel].iter().all(|n| n.is_multiple_of(2)) && operands.y.is_multiple_of(8);
        let [scale, shift] = operands.prologue.unwrap_or_default();
        let arguments = ConvArguments {
            x: operands.x,
            weight: operands.weight,
            bias: operands.bias,
            scale,
            shift,
            y: operands.y,
            pixels: pixels as u32,
            h: h as i32,
            w: w as i32,
            c: c as i32,
            x_pixel: self.x_pixel as i32,
            x_image: x_image as i32,
            p: p as i32,
            q: columns as i32,
            n: n as i32,
            n_padded: self.n_padded as i32,
            y_pixel: self.y_pixel as i32,
            y_line: self.y_line as i32,
            y_image: self.y_image as i32,
            kh: kh as i32,
            kw: kw.max(1) as i32,
            k_tiles: (kh * kw * c).div_ceil(depth) as i32,
            stride: self.stride as i32,
            top: self.top as i32,
            left: self.left as i32,
            options: u32::from(self.relu) * RELU
                + u32::from(store_quads) * STORE_QUADS
                + u32::from(store_pairs) * STORE_PAIRS,
        };
        let grid = [pixels.div_ceil(tile_pixels) * (self.n_padded / tile_columns), 1, 1];
        // SAFETY: the argument is the kernel's, and its memory the caller's promise; all indices fit their type, see above.
        unsafe { q.launch(kernel, grid, [self.tile.threads(), 1], self.tile.shared_bytes(), arguments) }
    }
}

/// The kernel that serves a pass over images whose values begin at multiples of 16 bytes, the main one of several. There is none for
/// some prologues, and by Winograd's tiles in fp32 alone.
pub(in crate::backend::cuda) fn kernel_of(s: &ConvShape, pass: Pass, precision: Precision) -> Option<&'static str> {
    let quads = |channels: usize| channels.is_multiple_of(4);
    let tiles_of = |s| Winograd::of(s).filter(|_| precision == Precision::Fp32);
    let gemm = |layout, channels, prologue| Packing::new(s, layout).tile.kernel(quads(channels), prologue);
    match pass {
        Pass::Forward => gemm(Layout::new(s, Order::Forward, precision), s.c, false),
        Pass::Prologue => gemm(Layout::exact(Order::Forward), s.c, true),
        Pass::GradInput => gemm(Layout::new(s, Order::GradInput, precision), s.o, false),
        Pass::Winograd => tiles_of(s).map(|_| tiles::kernel(s)),
        Pass::PackWinograd => tiles_of(s).map(tiles::pack_kernel),
        Pass::GradWeight => {
            let tile = Division::new(s, 1).tile;
            let tensor = mma::weight_kernel(precision, s, tile).map(|(kernel, _)| kernel);
            tensor.or(Some(tile.kernel(quads(s.c) && quads(s.o))))
        }
        Pass::PackForward => Some(pack_kernel(Layout::new(s, Order::Forward, precision))),
        Pass::PackGradInput => Some(pack_kernel(Layout::new(s, Order::GradInput, precision))),
    }
}

#[cfg(test)]
mod tests;
