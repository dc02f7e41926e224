//! `kernels/effect.cu`: what an intervention changed, from logits to effects in f64.

use super::{Floats, FloatsMut, Indices, Queue, expect, narrow};
use crate::answer::Head;
use crate::backend::BackendError;

#[repr(C)]
#[derive(Clone, Copy)]
struct EffectArguments {
    done: u64,
    idle: u64,
    images: u64,
    y: u64,
    rows: u64,
    classes: u32,
    sigmoid: u32,
}
const _: () = assert!(size_of::<EffectArguments>() == 48, "as in effect.cu");

/// Warps, and so rows, of a block.
const ROWS: usize = 4;

/// Effects per class: q - p of each row of `done` against the row of `idle` that `images` names.
pub(in crate::backend::cuda) fn effects(
    q: &Queue,
    head: Head,
    classes: usize,
    done: Floats<'_>,
    idle: Floats<'_>,
    images: Indices<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    launch(q, "effects", head, classes, done, idle, images, classes, y)
}

/// The class-weighted effect of each row.
pub(in crate::backend::cuda) fn weighted_effect(
    q: &Queue,
    head: Head,
    classes: usize,
    done: Floats<'_>,
    idle: Floats<'_>,
    images: Indices<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    launch(q, "weighted_effect", head, classes, done, idle, images, 1, y)
}

#[allow(clippy::too_many_arguments, reason = "two kernels of one signature")]
fn launch(
    q: &Queue,
    kernel: &'static str,
    head: Head,
    classes: usize,
    done: Floats<'_>,
    idle: Floats<'_>,
    images: Indices<'_>,
    results: usize,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    let rows = images.len();
    expect(kernel, "the do logits", done.len(), rows * classes)?;
    expect(kernel, "the idle logits", idle.len() % classes, 0)?;
    expect(kernel, "y", y.len(), rows * results)?;
    let arguments = EffectArguments {
        done: done.pointer(),
        idle: idle.pointer(),
        images: images.pointer(),
        y: y.pointer(),
        rows: rows as u64,
        classes: narrow(kernel, "a number of classes", classes)?,
        sigmoid: u32::from(head == Head::Sigmoid),
    };
    // SAFETY: the argument is the kernel's; the lengths were checked, and the ledger checked that every image is a row of
    // `idle`.
    unsafe { q.launch(kernel, [rows.div_ceil(ROWS), 1, 1], [32, ROWS as u32], 0, arguments) }
}
