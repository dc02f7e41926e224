//! `kernels/pool.cu`: max-pooling, averages of cells, global averages, channel maxima, weighted sums of channels, and the
//! gradients of the first three.

use super::conv::{Pixels, window_len};
use super::{Floats, FloatsMut, Queue, THREADS, blocks, column_block, expect, lanes, narrow};
use crate::backend::BackendError;
use crate::backend::layout::{PoolShape, len};
use crate::graph::op::Spans;

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
    pixel: u32,
    unused: u32,
}
const _: () = assert!(size_of::<PoolArguments>() == 72, "as in pool.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct SpansArgument {
    advance: u32,
    over: u32,
    reach: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct AverageArguments {
    x: u64,
    y: u64,
    items: u32,
    lanes: u32,
    groups: u32,
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
    down: SpansArgument,
    right: SpansArgument,
    pixel: u32,
}
const _: () = assert!(size_of::<AverageArguments>() == 72, "as in pool.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct ChannelSumArguments {
    x: u64,
    weight: u64,
    y: u64,
    positions: u32,
    channels: u32,
    items: u32,
    unused: u32,
}
const _: () = assert!(size_of::<ChannelSumArguments>() == 40, "as in pool.cu");

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

/// y (rows, OH, OW, C) = maxima of x (rows, H, W, C). y may be a window of wider pixels.
pub(in crate::backend::cuda) fn max_pool(
    q: &Queue,
    shape: &PoolShape,
    rows: usize,
    x: Floats<'_>,
    y: Pixels<FloatsMut<'_>>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "max_pool";
    let Pixels { floats: y, pixel } = y;
    let pixels = len(&[rows, shape.oh(), shape.ow()]);
    expect(KERNEL, "x", x.len(), len(&[rows, shape.h, shape.w, shape.c]))?;
    expect(KERNEL, "y", y.len(), window_len(pixels, shape.c, pixel))?;
    let pointers = [x.pointer(), y.pointer()];
    let lanes = lanes(shape.c, &pointers).min(lanes(pixel, &pointers));
    let items = pixels * shape.c / lanes;
    let pixel = narrow(KERNEL, "a pixel", pixel)?;
    let [x, y] = pointers;
    let arguments = PoolArguments { x, y, pixel, ..pool_arguments(KERNEL, shape, lanes, items)? };
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(KERNEL, blocks(items), [THREADS as u32, 1], 0, arguments) }
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
        pixel: 0,
        unused: 0,
    })
}

/// y (rows, OH, OW, C) = means of x (rows, H, W, C) under each position down and right. y may be a window of wider pixels.
pub(in crate::backend::cuda) fn average(
    q: &Queue,
    spans: [Spans; 2],
    channels: usize,
    rows: usize,
    x: Floats<'_>,
    y: Pixels<FloatsMut<'_>>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "average_cells";
    let Pixels { floats: y, pixel } = y;
    let [down, right] = spans;
    let pixels = len(&[rows, down.count, right.count]);
    expect(KERNEL, "x", x.len(), len(&[rows, down.cells, right.cells, channels]))?;
    expect(KERNEL, "y", y.len(), window_len(pixels, channels, pixel))?;
    let pointers = [x.pointer(), y.pointer()];
    let lanes = lanes(channels, &pointers).min(lanes(pixel, &pointers));
    let arguments = average_arguments(KERNEL, spans, pointers, channels / lanes, lanes, [pixels, pixel])?;
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(KERNEL, blocks(arguments.items as usize), [THREADS as u32, 1], 0, arguments) }
}

/// gx (rows, H, W, C) from gy (rows, OH, OW, C).
pub(in crate::backend::cuda) fn average_grad(
    q: &Queue,
    spans: [Spans; 2],
    channels: usize,
    rows: usize,
    gy: Floats<'_>,
    gx: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "average_cells_grad";
    let [down, right] = spans;
    let pixels = len(&[rows, down.cells, right.cells]);
    expect(KERNEL, "gy", gy.len(), len(&[rows, down.count, right.count, channels]))?;
    expect(KERNEL, "gx", gx.len(), pixels * channels)?;
    let pointers = [gy.pointer(), gx.pointer()];
    let lanes = lanes(channels, &pointers);
    let arguments = average_arguments(KERNEL, spans, pointers, channels / lanes, lanes, [pixels, channels])?;
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(KERNEL, blocks(arguments.items as usize), [THREADS as u32, 1], 0, arguments) }
}

/// `pixels` of what is written, in groups of `lanes` channels each, `pixel` floats apart.
fn average_arguments(
    kernel: &'static str,
    [down, right]: [Spans; 2],
    [x, y]: [u64; 2],
    groups: usize,
    lanes: usize,
    [pixels, pixel]: [usize; 2],
) -> Result<AverageArguments, BackendError> {
    let spans = |s: &Spans| {
        // the kernel multiplies a position by `advance` and a cell by `over`
        narrow(kernel, "an averaged line", (s.count + 2) * s.advance + s.reach + s.over)?;
        narrow(kernel, "an averaged line", (s.cells + 2) * s.over + s.advance)?;
        Ok(SpansArgument { advance: s.advance as u32, over: s.over as u32, reach: s.reach as u32 })
    };
    narrow(kernel, "a map", down.cells * right.cells)?;
    narrow(kernel, "a map", down.count * right.count)?;
    Ok(AverageArguments {
        x,
        y,
        items: narrow(kernel, "a value", pixels * groups)?,
        lanes: lanes as u32,
        groups: groups as u32,
        height: down.cells as u32,
        width: right.cells as u32,
        out_height: down.count as u32,
        out_width: right.count as u32,
        down: spans(&down)?,
        right: spans(&right)?,
        pixel: narrow(kernel, "a pixel", pixel)?,
    })
}

/// y (rows, positions) = the sum over channels of `weight` (rows, C) times x (rows, positions, C).
pub(in crate::backend::cuda) fn channel_sum(
    q: &Queue,
    [rows, positions, channels]: [usize; 3],
    x: Floats<'_>,
    weight: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "channel_sum";
    expect(KERNEL, "x", x.len(), len(&[rows, positions, channels]))?;
    expect(KERNEL, "the weights", weight.len(), rows * channels)?;
    expect(KERNEL, "y", y.len(), rows * positions)?;
    let arguments = ChannelSumArguments {
        x: x.pointer(),
        weight: weight.pointer(),
        y: y.pointer(),
        positions: narrow(KERNEL, "a number of positions", positions)?,
        channels: narrow(KERNEL, "a number of channels", channels)?,
        items: narrow(KERNEL, "a value", y.len())?,
        unused: 0,
    };
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(KERNEL, blocks(32 * y.len()), [THREADS as u32, 1], 0, arguments) }
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
