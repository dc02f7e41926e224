//! `kernels/pointwise.cu`: affine maps of channels, ReLU, scaling, square root, arithmetic.

use super::{Elements, Floats, FloatsMut, Queue, THREADS, blocks, expect, lanes, narrow};
use crate::backend::BackendError;
use crate::graph::op::Binary;

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
}
const _: () = assert!(size_of::<AffineArguments>() == 48, "as in pointwise.cu");

/// y (pixels, channels) = x · scale + shift, a channel.
pub(in crate::backend::cuda) fn affine(
    q: &Queue,
    channels: usize,
    x: Floats<'_>,
    scale: Floats<'_>,
    shift: Option<Floats<'_>>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "affine";
    let shift_at = shift.map_or(0, |s| s.pointer());
    expect(KERNEL, "y", y.len(), x.len())?;
    expect(KERNEL, "x", x.len() % channels.max(1), 0)?;
    expect(KERNEL, "scale", scale.len(), channels)?;
    expect(KERNEL, "shift", shift.map_or(channels, |s| s.len()), channels)?;
    let lanes = lanes(channels, &[x.pointer(), scale.pointer(), shift_at, y.pointer()]);
    let groups = channels / lanes;
    // the kernel multiplies a number below `groups` by the block's threads
    narrow(KERNEL, "channels times threads", groups * THREADS + THREADS)?;
    let arguments = AffineArguments {
        x: x.pointer(),
        scale: scale.pointer(),
        shift: shift_at,
        y: y.pointer(),
        items: (x.len() / lanes) as u64,
        lanes: lanes as u32,
        groups: groups as u32,
    };
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(KERNEL, blocks(x.len() / lanes), [THREADS as u32, 1], 0, arguments) }
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
