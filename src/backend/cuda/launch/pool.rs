//! `kernels/pool.cu`: max-pooling, global averages, channel maxima, and the gradients of the first two.

use super::{Floats, FloatsMut, Queue, THREADS, blocks, column_block, expect, lanes, narrow};
use crate::backend::BackendError;
use crate::backend::layout::{PoolShape, len};

#[repr(C)]
#[derive(Clone, Copy)]
struct PoolArguments {
    x: u64,
    gy: u64,
    y: u64,
    items: u32,
    lanes: u32,
    groups: u32,
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
    size: u32,
    stride: u32,
    pad: u32,
}
const _: () = assert!(size_of::<PoolArguments>() == 64, "as in pool.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct PositionsArguments {
    x: u64,
    y: u64,
    positions: u32,
    channels: u32,
    tiles: u32,
    lanes: u32,
    items: u32,
    unused: u32,
}
const _: () = assert!(size_of::<PositionsArguments>() == 40, "as in pool.cu");

/// y (rows, OH, OW, C) = maxima of x (rows, H, W, C).
pub(in crate::backend::cuda) fn max_pool(
    q: &Queue,
    shape: &PoolShape,
    rows: usize,
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "max_pool";
    expect(KERNEL, "x", x.len(), len(&[rows, shape.h, shape.w, shape.c]))?;
    expect(KERNEL, "y", y.len(), len(&[rows, shape.oh(), shape.ow(), shape.c]))?;
    let lanes = lanes(shape.c, &[x.pointer(), y.pointer()]);
    let arguments =
        PoolArguments { x: x.pointer(), y: y.pointer(), ..pool_arguments(KERNEL, shape, lanes, y.len() / lanes)? };
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(KERNEL, blocks(y.len() / lanes), [THREADS as u32, 1], 0, arguments) }
}

/// gx (rows, H, W, C): each window's gradient at its first maximum.
pub(in crate::backend::cuda) fn max_pool_grad(
    q: &Queue,
    shape: &PoolShape,
    rows: usize,
    x: Floats<'_>,
    gy: Floats<'_>,
    gx: FloatsMut<'_>,
) -> Result<(), BackendError> {
    // where no windows overlap, a thread a window reads everything once
    let halving = shape.is_halving();
    let kernel = if halving { "max_pool_halving_grad" } else { "max_pool_grad" };
    expect(kernel, "x", x.len(), len(&[rows, shape.h, shape.w, shape.c]))?;
    expect(kernel, "gy", gy.len(), len(&[rows, shape.oh(), shape.ow(), shape.c]))?;
    expect(kernel, "gx", gx.len(), x.len())?;
    let lanes = lanes(shape.c, &[x.pointer(), gy.pointer(), gx.pointer()]);
    let (h, w) = if halving { (shape.h.div_ceil(2), shape.w.div_ceil(2)) } else { (shape.h, shape.w) };
    let items = rows * h * w * (shape.c / lanes);
    let arguments = PoolArguments {
        x: x.pointer(),
        gy: gy.pointer(),
        y: gx.pointer(),
        ..pool_arguments(kernel, shape, lanes, items)?
    };
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(kernel, blocks(items), [THREADS as u32, 1], 0, arguments) }
}

/// All but the pointers.
fn pool_arguments(
    kernel: &'static str,
    shape: &PoolShape,
    lanes: usize,
    items: usize,
) -> Result<PoolArguments, BackendError> {
    // a row's cells are below the items, which are checked, or below the cells of x that an item stands for
    narrow(kernel, "a padded map", (shape.h + 2 * shape.pad + shape.k) * (shape.w + 2 * shape.pad + shape.k))?;
    Ok(PoolArguments {
        x: 0,
        gy: 0,
        y: 0,
        items: narrow(kernel, "a value", items)?,
        lanes: lanes as u32,
        groups: (shape.c / lanes) as u32,
        height: shape.h as u32,
        width: shape.w as u32,
        out_height: shape.oh() as u32,
        out_width: shape.ow() as u32,
        size: shape.k as u32,
        stride: narrow(kernel, "a stride", shape.stride)?,
        pad: shape.pad as u32,
    })
}

/// y (rows, C) = mean of x (rows, positions, C).
pub(in crate::backend::cuda) fn global_average(
    q: &Queue,
    rows: usize,
    positions: usize,
    channels: usize,
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    over_positions(q, "global_average", [rows, positions, channels], x, y)
}

/// gx (rows, positions, C) = gy (rows, C) over positions.
pub(in crate::backend::cuda) fn global_average_grad(
    q: &Queue,
    rows: usize,
    positions: usize,
    channels: usize,
    gy: Floats<'_>,
    gx: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "global_average_grad";
    expect(KERNEL, "gy", gy.len(), rows * channels)?;
    expect(KERNEL, "gx", gx.len(), len(&[rows, positions, channels]))?;
    let lanes = lanes(channels, &[gy.pointer(), gx.pointer()]);
    let items = gx.len() / lanes;
    let arguments = PositionsArguments {
        x: gy.pointer(),
        y: gx.pointer(),
        positions: positions as u32,
        channels: channels as u32,
        tiles: 0,
        lanes: lanes as u32,
        items: narrow(KERNEL, "a value", items)?,
        unused: 0,
    };
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(KERNEL, blocks(items), [THREADS as u32, 1], 0, arguments) }
}

/// y (rows, C) = max |x (rows, positions, C)|, NaN if one is.
pub(in crate::backend::cuda) fn channel_max(
    q: &Queue,
    rows: usize,
    positions: usize,
    channels: usize,
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    over_positions(q, "channel_max", [rows, positions, channels], x, y)
}

fn over_positions(
    q: &Queue,
    kernel: &'static str,
    [rows, positions, channels]: [usize; 3],
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    expect(kernel, "x", x.len(), len(&[rows, positions, channels]))?;
    expect(kernel, "y", y.len(), rows * channels)?;
    let block = column_block(channels);
    let tiles = channels.div_ceil(block[0] as usize);
    let arguments = PositionsArguments {
        x: x.pointer(),
        y: y.pointer(),
        positions: narrow(kernel, "a number of positions", positions)?,
        channels: narrow(kernel, "a number of channels", channels)?,
        tiles: tiles as u32,
        lanes: 1,
        items: 0,
        unused: 0,
    };
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(kernel, [rows * tiles, 1, 1], block, 0, arguments) }
}
