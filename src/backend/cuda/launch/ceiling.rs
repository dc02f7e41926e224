//! `kernels/ceiling.cu`: the arithmetic and the copy that nothing on a device is faster than.

use super::{Floats, FloatsMut, Queue, THREADS, aligned, expect};
use crate::backend::BackendError;

#[repr(C)]
#[derive(Clone, Copy)]
struct CeilingFmaArguments {
    y: u64,
    factor: f32,
    addend: f32,
    rounds: u32,
    unused: u32,
}
const _: () = assert!(size_of::<CeilingFmaArguments>() == 24, "as in ceiling.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct CeilingCopyArguments {
    x: u64,
    y: u64,
    quads: u64,
}
const _: () = assert!(size_of::<CeilingCopyArguments>() == 24, "as in ceiling.cu");

/// 128 multiply-adds a round for each float of y, of which there are whole blocks.
pub(in crate::backend::cuda) fn fma(q: &Queue, rounds: u32, y: FloatsMut<'_>) -> Result<(), BackendError> {
    const KERNEL: &str = "ceiling_fma";
    expect(KERNEL, "y", y.len() % THREADS, 0)?;
    let arguments = CeilingFmaArguments { y: y.pointer(), factor: 0.999, addend: 0.001, rounds, unused: 0 };
    // SAFETY: the argument is the kernel's; y has a float for each thread.
    unsafe { q.launch(KERNEL, [y.len() / THREADS, 1, 1], [THREADS as u32, 1], 0, arguments) }
}

/// y = x, whole quads.
pub(in crate::backend::cuda) fn copy(q: &Queue, x: Floats<'_>, y: FloatsMut<'_>) -> Result<(), BackendError> {
    const KERNEL: &str = "ceiling_copy";
    expect(KERNEL, "y", y.len(), x.len())?;
    expect(KERNEL, "x", x.len() % 4, 0)?;
    expect(KERNEL, "x off a multiple of 16 bytes", usize::from(!aligned(&[x.pointer(), y.pointer()])), 0)?;
    let quads = x.len() / 4;
    let arguments = CeilingCopyArguments { x: x.pointer(), y: y.pointer(), quads: quads as u64 };
    // SAFETY: the argument is the kernel's; x and y have 4 · quads elements and begin at multiples of 16 bytes.
    unsafe { q.launch(KERNEL, [quads.div_ceil(4 * THREADS), 1, 1], [THREADS as u32, 1], 0, arguments) }
}
