//! `kernels/layout.cu`: between logical order and channels-last.

use super::{Floats, FloatsMut, Queue, expect, narrow};
use crate::backend::BackendError;
use crate::backend::cuda::device::device_error;

#[repr(C)]
#[derive(Clone, Copy)]
struct TransposeArguments {
    x: u64,
    y: u64,
    height: u32,
    width: u32,
}
const _: () = assert!(size_of::<TransposeArguments>() == 24, "as in layout.cu");

/// (rows, channels, positions) to (rows, positions, channels).
pub(in crate::backend::cuda) fn to_channels_last(
    q: &Queue,
    rows: usize,
    [channels, positions]: [usize; 2],
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    transpose(q, rows, [channels, positions], x, y)
}

/// (rows, positions, channels) to (rows, channels, positions).
pub(in crate::backend::cuda) fn to_logical(
    q: &Queue,
    rows: usize,
    [channels, positions]: [usize; 2],
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    transpose(q, rows, [positions, channels], x, y)
}

fn transpose(
    q: &Queue,
    rows: usize,
    [height, width]: [usize; 2],
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "transpose";
    let n = rows * height * width;
    expect(KERNEL, "x", x.len(), n)?;
    expect(KERNEL, "y", y.len(), n)?;
    // a tile of one channel would leave 31 of 32 threads idle, and there is nothing to transpose
    if height == 1 || width == 1 {
        return copy(q, x, y);
    }
    let arguments = TransposeArguments {
        x: x.pointer(),
        y: y.pointer(),
        height: narrow(KERNEL, "a height", height)?,
        width: narrow(KERNEL, "a width", width)?,
    };
    let grid = [rows * width.div_ceil(32), height.div_ceil(32), 1];
    // SAFETY: the argument is the kernel's; x and y have rows · height · width elements each.
    unsafe { q.launch(KERNEL, grid, [32, 8], 0, arguments) }
}

/// The same elements.
pub(in crate::backend::cuda) fn copy(q: &Queue, x: Floats<'_>, y: FloatsMut<'_>) -> Result<(), BackendError> {
    const COPY: &str = "copy";
    expect(COPY, "y", y.len(), x.len())?;
    // SAFETY: both have that many elements, and a step's result is not its input.
    let copied = unsafe {
        cudarc::driver::result::memcpy_dtod_async(y.pointer(), x.pointer(), 4 * x.len(), q.stream.cu_stream())
    };
    copied.map_err(|e| device_error("copying a value", e))
}
