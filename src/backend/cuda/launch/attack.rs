//! `kernels/attack.cu`: one step of a sign attack.

use super::{Elements, Floats, FloatsMut, Queue, THREADS, expect};
use crate::backend::BackendError;

#[repr(C)]
#[derive(Clone, Copy)]
struct SignStepArguments {
    x: u64,
    g: u64,
    x0: u64,
    limits: u64,
    y: u64,
    quads: u32,
    tail: u32,
}
const _: () = assert!(size_of::<SignStepArguments>() == 48, "as in attack.cu");

/// y = clip(x + step · sign(g), max(0, x0 - eps), min(1, x0 + eps)), `limits` = (step, eps).
pub(in crate::backend::cuda) fn sign_step(
    q: &Queue,
    x: Floats<'_>,
    g: Floats<'_>,
    x0: Floats<'_>,
    limits: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "sign_step";
    expect(KERNEL, "g", g.len(), x.len())?;
    expect(KERNEL, "x0", x0.len(), x.len())?;
    expect(KERNEL, "limits", limits.len(), 2)?;
    expect(KERNEL, "y", y.len(), x.len())?;
    let elements = Elements::new(KERNEL, x.len(), &[x.pointer(), g.pointer(), x0.pointer(), y.pointer()])?;
    let arguments = SignStepArguments {
        x: x.pointer(),
        g: g.pointer(),
        x0: x0.pointer(),
        limits: limits.pointer(),
        y: y.pointer(),
        quads: elements.quads,
        tail: elements.tail,
    };
    // SAFETY: the argument is the kernel's; x, g, x0 and y have 4 · quads + tail elements, the limits 2.
    unsafe { q.launch(KERNEL, elements.grid(), [THREADS as u32, 1], 0, arguments) }
}
