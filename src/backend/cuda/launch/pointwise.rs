//! `kernels/pointwise.cu`: affine maps of channels, copies and sums of windows of channels, ReLU, scaling, square root, arithmetic.

use super::conv::{Pixels, window_len};
use super::{Elements, Floats, FloatsMut, Queue, THREADS, blocks, expect, lanes, narrow};
use crate::backend::BackendError;
use crate::graph::op::{Activation, Binary};

#[repr(C)]
#[derive(Clone, Copy)]
struct UnaryArguments {
    x: u64,
    y: u64,
    quads: u32,
    tail: u32,
    number: f32,
    unused: u32,
}
const _: () = assert!(size_of::<UnaryArguments>() == 32, "as in pointwise.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct BinaryArguments {
    a: u64,
    b: u64,
    y: u64,
    quads: u32,
    tail: u32,
    operation: u32,
    unused: u32,
}
const _: () = assert!(size_of::<BinaryArguments>() == 40, "as in pointwise.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct AffineArguments {
    x: u64,
    scale: u64,
    shift: u64,
    y: u64,
    items: u64,
    lanes: u32,
    groups: u32,
    pixel: u32,
    relu: u32,
}
const _: () = assert!(size_of::<AffineArguments>() == 56, "as in pointwise.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct ViewsArguments {
    a: u64,
    b: u64,
    y: u64,
    items: u32,
    lanes: u32,
    groups: u32,
    a_pixel: u32,
    b_pixel: u32,
    y_pixel: u32,
}
const _: () = assert!(size_of::<ViewsArguments>() == 48, "as in pointwise.cu");

/// y (pixels, channels) = x · scale + shift, a channel, then `activation`. x may be a window of wider pixels.
pub(in crate::backend::cuda) fn affine(
    q: &Queue,
    channels: usize,
    x: Pixels<Floats<'_>>,
    scale: Floats<'_>,
    shift: Option<Floats<'_>>,
    activation: Activation,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "affine";
    let Pixels { floats: x, pixel } = x;
    let shift_at = shift.map_or(0, |s| s.pointer());
    expect(KERNEL, "y", y.len() % channels.max(1), 0)?;
    expect(KERNEL, "x", x.len(), window_len(y.len() / channels.max(1), channels, pixel))?;
    expect(KERNEL, "scale", scale.len(), channels)?;
    expect(KERNEL, "shift", shift.map_or(channels, |s| s.len()), channels)?;
    let lanes = lanes_of([channels, pixel], &[x.pointer(), scale.pointer(), shift_at, y.pointer()]);
    if pixel != channels {
        narrow(KERNEL, "a value", y.len())?;
    }
    let groups = channels / lanes;
    // the kernel multiplies a number below `groups` by the block's threads
    narrow(KERNEL, "channels times threads", groups * THREADS + THREADS)?;
    let arguments = AffineArguments {
        x: x.pointer(),
        scale: scale.pointer(),
        shift: shift_at,
        y: y.pointer(),
        items: (y.len() / lanes) as u64,
        lanes: lanes as u32,
        groups: groups as u32,
        pixel: if pixel == channels { 0 } else { narrow(KERNEL, "a pixel", pixel)? },
        relu: u32::from(activation == Activation::Relu),
    };
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(KERNEL, blocks(y.len() / lanes), [THREADS as u32, 1], 0, arguments) }
}

/// Channels that a thread takes of pixels of `sizes` channels or floats: 4 where all of them are whole quads.
fn lanes_of<const N: usize>(sizes: [usize; N], pointers: &[u64]) -> usize {
    sizes.iter().map(|&size| lanes(size, pointers)).min().unwrap_or(1)
}

/// y = a, or a + b: `pixels` windows of `channels`.
pub(in crate::backend::cuda) fn views(
    q: &Queue,
    [pixels, channels]: [usize; 2],
    a: Pixels<Floats<'_>>,
    b: Option<Pixels<Floats<'_>>>,
    y: Pixels<FloatsMut<'_>>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "views";
    let b_pixel = b.map_or(channels, |b| b.pixel);
    expect(KERNEL, "the first input", a.floats.len(), window_len(pixels, channels, a.pixel))?;
    let b_len = window_len(pixels, channels, b_pixel);
    expect(KERNEL, "the second input", b.map_or(b_len, |b| b.floats.len()), b_len)?;
    expect(KERNEL, "y", y.floats.len(), window_len(pixels, channels, y.pixel))?;
    let (a_at, b_at, y_at) = (a.floats.pointer(), b.map_or(0, |b| b.floats.pointer()), y.floats.pointer());
    let lanes = lanes_of([channels, a.pixel, b_pixel, y.pixel], &[a_at, b_at, y_at]);
    let items = pixels * channels / lanes;
    let arguments = ViewsArguments {
        a: a_at,
        b: b_at,
        y: y_at,
        items: narrow(KERNEL, "a value", items)?,
        lanes: lanes as u32,
        groups: (channels / lanes) as u32,
        a_pixel: narrow(KERNEL, "a pixel", a.pixel)?,
        b_pixel: narrow(KERNEL, "a pixel", b_pixel)?,
        y_pixel: narrow(KERNEL, "a pixel", y.pixel)?,
    };
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(KERNEL, blocks(items), [THREADS as u32, 1], 0, arguments) }
}

/// y = max(0, x); NaN stays NaN.
pub(in crate::backend::cuda) fn relu(q: &Queue, x: Floats<'_>, y: FloatsMut<'_>) -> Result<(), BackendError> {
    unary(q, "relu_forward", 0.0, x, y)
}

/// gx = gy where y > 0, else 0.
pub(in crate::backend::cuda) fn relu_grad(
    q: &Queue,
    y: Floats<'_>,
    gy: Floats<'_>,
    gx: FloatsMut<'_>,
) -> Result<(), BackendError> {
    pairwise(q, "relu_grad", 0, y, gy, gx)
}

/// y = factor · x.
pub(in crate::backend::cuda) fn scale(
    q: &Queue,
    factor: f32,
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    unary(q, "scale", factor, x, y)
}

/// y = sqrt(x + epsilon).
pub(in crate::backend::cuda) fn sqrt(
    q: &Queue,
    epsilon: f32,
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    unary(q, "square_root", epsilon, x, y)
}

/// y = a `binary` b.
pub(in crate::backend::cuda) fn binary(
    q: &Queue,
    binary: Binary,
    a: Floats<'_>,
    b: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    // as `Operation` in pointwise.cu
    let operation = match binary {
        Binary::Add => 0,
        Binary::Sub => 1,
        Binary::Mul => 2,
        Binary::Div => 3,
    };
    pairwise(q, "binary", operation, a, b, y)
}

fn unary(q: &Queue, kernel: &'static str, number: f32, x: Floats<'_>, y: FloatsMut<'_>) -> Result<(), BackendError> {
    expect(kernel, "y", y.len(), x.len())?;
    let elements = Elements::new(kernel, x.len(), &[x.pointer(), y.pointer()])?;
    let Elements { quads, tail } = elements;
    let arguments = UnaryArguments { x: x.pointer(), y: y.pointer(), quads, tail, number, unused: 0 };
    // SAFETY: the argument is the kernel's; both values have 4 · quads + tail elements.
    unsafe { q.launch(kernel, elements.grid(), [THREADS as u32, 1], 0, arguments) }
}

fn pairwise(
    q: &Queue,
    kernel: &'static str,
    operation: u32,
    a: Floats<'_>,
    b: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    expect(kernel, "the second input", b.len(), a.len())?;
    expect(kernel, "y", y.len(), a.len())?;
    let elements = Elements::new(kernel, a.len(), &[a.pointer(), b.pointer(), y.pointer()])?;
    let Elements { quads, tail } = elements;
    let (a, b, y) = (a.pointer(), b.pointer(), y.pointer());
    let arguments = BinaryArguments { a, b, y, quads, tail, operation, unused: 0 };
    // SAFETY: the argument is the kernel's; the three values have 4 · quads + tail elements.
    unsafe { q.launch(kernel, elements.grid(), [THREADS as u32, 1], 0, arguments) }
}
