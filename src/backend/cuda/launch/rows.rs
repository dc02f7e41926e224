//! `kernels/rows.cu`: sums over rows and pixels, and the broadcast that is their gradient.

use super::{Floats, FloatsMut, Queue, THREADS, column_block, expect, narrow};
use crate::backend::BackendError;

#[repr(C)]
#[derive(Clone, Copy)]
struct ColumnArguments {
    x: u64,
    y: u64,
    divisor: f64,
    height: u32,
    width: u32,
    chunk: u32,
    positions: u32,
}
const _: () = assert!(size_of::<ColumnArguments>() == 40, "as in rows.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct BroadcastArguments {
    x: u64,
    y: u64,
    divisor: f64,
    rows: u32,
    width: u32,
    positions: u32,
    unused: u32,
}
const _: () = assert!(size_of::<BroadcastArguments>() == 40, "as in rows.cu");

/// Lines that a block adds at least: with 32 columns each of its threads has 32 of them.
const CHUNK_MIN: usize = 256;
/// Chunks of the height at most, so that their sums are a small second step: about four blocks a multiprocessor of a large chip.
const CHUNKS_MAX: usize = 512;

/// Lines of a chunk. A sum's order follows from it, so it knows nothing but the height.
pub(super) fn chunk(height: usize) -> usize {
    height.div_ceil(CHUNKS_MAX).max(CHUNK_MIN)
}

/// Chunks at most of a height or any below it: a height beyond the most chunks may have fewer than a smaller one.
pub(super) fn chunks_most(height: usize) -> usize {
    height.div_ceil(CHUNK_MIN).min(CHUNKS_MAX)
}

/// Floats of scratch memory for the f64 sums of the chunks.
fn column_workspace(height: usize, width: usize) -> usize {
    match chunks_most(height) {
        0 | 1 => 0,
        chunks => 2 * chunks * width,
    }
}

pub(in crate::backend::cuda) fn sum_to_channels_workspace(pixels: usize, channels: usize) -> usize {
    column_workspace(pixels, channels)
}

/// y (channels) = sum of x (pixels, channels).
pub(in crate::backend::cuda) fn sum_to_channels(
    q: &Queue,
    pixels: usize,
    channels: usize,
    x: Floats<'_>,
    workspace: FloatsMut<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    column_sums(q, pixels, [channels, 1], 1.0, x, workspace, y)
}

pub(in crate::backend::cuda) fn sum_rows_workspace(rows: usize, len: usize) -> usize {
    column_workspace(rows, len)
}

/// y (channels, positions) = sum of x (rows, positions, channels) over rows, over `divisor`.
pub(in crate::backend::cuda) fn sum_rows(
    q: &Queue,
    rows: usize,
    plane: [usize; 2],
    divisor: f64,
    x: Floats<'_>,
    workspace: FloatsMut<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    column_sums(q, rows, plane, divisor, x, workspace, y)
}

fn column_sums(
    q: &Queue,
    height: usize,
    [channels, positions]: [usize; 2],
    divisor: f64,
    x: Floats<'_>,
    workspace: FloatsMut<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "column_sums";
    let width = channels * positions;
    expect(KERNEL, "x", x.len(), height * width)?;
    expect(KERNEL, "y", y.len(), width)?;
    let (chunk, block) = (chunk(height), column_block(width));
    let (chunks, tiles) = (height.div_ceil(chunk), width.div_ceil(block[0] as usize));
    let whole = ColumnArguments {
        x: x.pointer(),
        y: y.pointer(),
        divisor,
        height: narrow(KERNEL, "a height", height)?,
        width: narrow(KERNEL, "a width", width)?,
        chunk: chunk as u32,
        positions: positions as u32,
    };
    if chunks == 1 {
        // SAFETY: the argument is the kernel's; x is (height, width) and y has `width` elements.
        return unsafe { q.launch(KERNEL, [tiles, 1, 1], block, 0, whole) };
    }
    let needed = column_workspace(height, width);
    let workspace = workspace.first(needed);
    expect(KERNEL, "the workspace", workspace.len(), needed)?;
    let parts = ColumnArguments { y: workspace.pointer(), ..whole };
    let total = ColumnArguments { x: workspace.pointer(), height: chunks as u32, chunk: chunks as u32, ..whole };
    // SAFETY: the arguments are the kernels'; x is (height, width), the workspace has `chunks` f64 a column and begins at a
    // multiple of their size (it is an allocation), y has `width` elements.
    unsafe {
        q.launch("column_chunks", [tiles, chunks, 1], block, 0, parts)?;
        q.launch("column_sums_of_chunks", [tiles, 1, 1], block, 0, total)
    }
}

/// y (channels) = sum of f64 sums (chunks, channels) that another kernel left in the workspace, as pairs of floats.
pub(super) fn sum_of_chunks(
    q: &Queue,
    chunks: usize,
    channels: usize,
    sums: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "column_sums_of_chunks";
    expect(KERNEL, "the sums", sums.len(), 2 * chunks * channels)?;
    expect(KERNEL, "y", y.len(), channels)?;
    let block = column_block(channels);
    let arguments = ColumnArguments {
        x: sums.pointer(),
        y: y.pointer(),
        divisor: 1.0,
        height: narrow(KERNEL, "a height", chunks)?,
        width: narrow(KERNEL, "a width", channels)?,
        chunk: narrow(KERNEL, "a chunk", chunks)?,
        positions: 1,
    };
    // SAFETY: the argument is the kernel's; the sums are (chunks, channels) f64 at a multiple of their size, y has `channels`
    // elements.
    unsafe { q.launch(KERNEL, [channels.div_ceil(block[0] as usize), 1, 1], block, 0, arguments) }
}

/// y (rows, positions, channels) = x (channels, positions) over `divisor` in every row.
pub(in crate::backend::cuda) fn broadcast_rows(
    q: &Queue,
    rows: usize,
    [channels, positions]: [usize; 2],
    divisor: f64,
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "broadcast_rows";
    let width = channels * positions;
    expect(KERNEL, "x", x.len(), width)?;
    expect(KERNEL, "y", y.len(), rows * width)?;
    let arguments = BroadcastArguments {
        x: x.pointer(),
        y: y.pointer(),
        divisor,
        rows: narrow(KERNEL, "a number of rows", rows)?,
        width: narrow(KERNEL, "a width", width)?,
        positions: positions as u32,
        unused: 0,
    };
    // with more blocks along the rows a thread would divide for fewer of them
    let grid = [width.div_ceil(THREADS), rows.min(64), 1];
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(KERNEL, grid, [THREADS as u32, 1], 0, arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn sums_over_one_chunk_and_over_many_are_those_of_f64() {
        let q = Queue::for_tests();
        let stream = Stream::new(5, "columns");
        // one line, one chunk and its end, several chunks, chunks beyond the least
        let sizes = [(1, 1, 1), (7, 5, 3), (256, 3, 1), (257, 33, 1), (1000, 5, 7), (3001, 1, 1), (600, 64, 2)];
        for (height, channels, positions) in sizes.into_iter().chain([(CHUNK_MIN * CHUNKS_MAX + 300, 2, 1)]) {
            let width = channels * positions;
            let x: Vec<f32> = (0..(height * width) as u32).map(|i| stream.uniform(height as u64, i) - 0.25).collect();
            let there = q.upload(&x);
            let mut workspace = q.upload(&vec![f32::NAN; sum_rows_workspace(height, width).max(1)]);
            let mut y = q.upload(&vec![f32::NAN; width]);
            let divisor = height as f64;
            let plane = [channels, positions];
            let (from, to) = (q.floats(&there), q.floats_mut(&mut y));
            sum_rows(&q, height, plane, divisor, from, q.floats_mut(&mut workspace), to).unwrap();
            for (at, got) in q.download(&y).into_iter().enumerate() {
                let column = at % positions * channels + at / positions;
                let sum: f64 = x.iter().skip(column).step_by(width).map(|&v| f64::from(v)).sum();
                let want = (sum / divisor) as f32;
                // sums of f64 differ far below a rounding to f32, which can still fall to either side
                assert!((got - want).abs() <= f32::EPSILON * want.abs(), "{height} x {plane:?}: {got} for {want}");
            }
        }
    }
}
