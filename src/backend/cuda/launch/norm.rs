//! `kernels/norm.cu`: batch norm under training: moments, the norm, its gradients, running statistics.

use super::conv::{Pixels, window_len};
use super::rows::{chunk, chunks_most, sum_of_chunks};
use super::{Floats, FloatsMut, Queue, THREADS, blocks, column_block, expect, lanes, narrow};
use crate::backend::BackendError;
use crate::graph::op::Activation;

#[repr(C)]
#[derive(Clone, Copy)]
struct MomentArguments {
    x: u64,
    gy: u64,
    moments: u64,
    sums: u64,
    y: u64,
    pixels: u32,
    channels: u32,
    pixel: u32,
    chunk: u32,
    chunks: u32,
    epsilon: f32,
}
const _: () = assert!(size_of::<MomentArguments>() == 64, "as in norm.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct NormaliseArguments {
    x: u64,
    gy: u64,
    moments: u64,
    weight: u64,
    bias: u64,
    weight_grad: u64,
    bias_grad: u64,
    y: u64,
    pixels: u32,
    lanes: u32,
    groups: u32,
    pixel: u32,
    chunk: u32,
    relu: u32,
    epsilon: f32,
    count: f32,
}
const _: () = assert!(size_of::<NormaliseArguments>() == 96, "as in norm.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct RunningArguments {
    running: u64,
    value: u64,
    y: u64,
    keep: f64,
    mix: f64,
    channels: u32,
    unused: u32,
}
const _: () = assert!(size_of::<RunningArguments>() == 48, "as in norm.cu");

/// Blocks that fill a large chip: a thread takes more pixels, and so reads its channels' numbers less often, only beyond.
const BLOCKS: usize = 1024;
/// Pixels of a thread at most: its channels' numbers are then little beside them.
const PIXELS_MAX: usize = 32;

/// Floats of scratch memory for `numbers` f64 sums a channel of each chunk.
fn workspace_len(pixels: usize, channels: usize, numbers: usize) -> usize {
    2 * numbers * chunks_most(pixels) * channels
}

pub(in crate::backend::cuda) fn moments_workspace(pixels: usize, channels: usize) -> usize {
    workspace_len(pixels, channels, 2)
}

pub(in crate::backend::cuda) fn grad_weight_workspace(pixels: usize, channels: usize) -> usize {
    workspace_len(pixels, channels, 1)
}

/// Grid and block of the sums of chunks, and their arguments without pointers.
fn over_chunks(
    kernel: &'static str,
    [pixels, channels]: [usize; 2],
    x: Pixels<Floats<'_>>,
) -> Result<([usize; 3], [u32; 2], MomentArguments), BackendError> {
    expect(kernel, "x", x.floats.len(), window_len(pixels, channels, x.pixel))?;
    // a thread's next pixel is at most a block behind the last
    narrow(kernel, "a number of pixels", pixels.saturating_add(THREADS))?;
    let (chunk, block) = (chunk(pixels), column_block(channels));
    let chunks = pixels.div_ceil(chunk);
    let arguments = MomentArguments {
        x: x.floats.pointer(),
        gy: 0,
        moments: 0,
        sums: 0,
        y: 0,
        pixels: narrow(kernel, "a number of pixels", pixels)?,
        channels: narrow(kernel, "a number of channels", channels)?,
        pixel: narrow(kernel, "a pixel", x.pixel)?,
        chunk: chunk as u32,
        chunks: chunks as u32,
        epsilon: 0.0,
    };
    Ok(([channels.div_ceil(block[0] as usize), chunks, 1], block, arguments))
}

/// y (2, channels) = mean and variance of x (pixels, channels), which may be a window of wider pixels.
pub(in crate::backend::cuda) fn moments(
    q: &Queue,
    [pixels, channels]: [usize; 2],
    x: Pixels<Floats<'_>>,
    workspace: FloatsMut<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "moment_chunks";
    let (grid, block, arguments) = over_chunks(KERNEL, [pixels, channels], x)?;
    let needed = moments_workspace(pixels, channels);
    let workspace = workspace.first(needed);
    expect(KERNEL, "the workspace", workspace.len(), needed)?;
    expect(KERNEL, "y", y.len(), 2 * channels)?;
    let arguments = MomentArguments { sums: workspace.pointer(), y: y.pointer(), ..arguments };
    // SAFETY: the arguments are the kernels'; x has its pixels, the workspace two f64 a channel of each chunk and begins at a
    // multiple of their size (it is an allocation), y has two numbers a channel.
    unsafe {
        q.launch(KERNEL, grid, block, 0, arguments)?;
        q.launch("moments_of_chunks", [grid[0], 1, 1], block, 0, arguments)
    }
}

/// gw (channels) = sum of gy · (x - mean) / sqrt(variance + epsilon). x may be a window of wider pixels.
pub(in crate::backend::cuda) fn grad_weight(
    q: &Queue,
    channels: usize,
    x: Pixels<Floats<'_>>,
    [moments, gy]: [Floats<'_>; 2],
    epsilon: f32,
    mut workspace: FloatsMut<'_>,
    gw: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "normalise_weight_chunks";
    expect(KERNEL, "gy", gy.len() % channels.max(1), 0)?;
    let pixels = gy.len() / channels.max(1);
    let (grid, block, arguments) = over_chunks(KERNEL, [pixels, channels], x)?;
    let needed = grad_weight_workspace(pixels, channels);
    let sums = workspace.reborrow().first(needed);
    expect(KERNEL, "the workspace", sums.len(), needed)?;
    expect(KERNEL, "the moments", moments.len(), 2 * channels)?;
    let (gy, moments, sums) = (gy.pointer(), moments.pointer(), sums.pointer());
    let arguments = MomentArguments { gy, moments, sums, epsilon, ..arguments };
    // SAFETY: the argument is the kernel's; x and gy have their pixels, the workspace one f64 a channel of each chunk and
    // begins at a multiple of its size (it is an allocation), the moments are two numbers a channel.
    unsafe { q.launch(KERNEL, grid, block, 0, arguments)? };
    sum_of_chunks(q, grid[1], channels, workspace.as_floats().first(2 * grid[1] * channels), gw)
}

/// What a channel is normalised with.
#[derive(Clone, Copy)]
pub(in crate::backend::cuda) struct Norm<'a> {
    pub moments: Floats<'a>,
    pub weight: Floats<'a>,
    pub epsilon: f32,
}

/// Grid and block of what is done a pixel at a time, and its arguments.
fn over_pixels(
    kernel: &'static str,
    norm: Norm<'_>,
    x: Pixels<Floats<'_>>,
    others: &[Floats<'_>],
    y: &FloatsMut<'_>,
) -> Result<([usize; 3], [u32; 2], NormaliseArguments), BackendError> {
    let channels = norm.weight.len();
    expect(kernel, "y", y.len() % channels.max(1), 0)?;
    let pixels = y.len() / channels.max(1);
    expect(kernel, "x", x.floats.len(), window_len(pixels, channels, x.pixel))?;
    narrow(kernel, "a number of pixels", pixels.saturating_add(THREADS))?;
    expect(kernel, "the moments", norm.moments.len(), 2 * channels)?;
    let mut pointers = vec![x.floats.pointer(), y.pointer(), norm.moments.pointer(), norm.weight.pointer()];
    pointers.extend(others.iter().map(Floats::pointer));
    let lanes = lanes(channels, &pointers).min(lanes(x.pixel, &pointers));
    let groups = channels / lanes;
    let block = column_block(groups);
    let (tiles, high) = (groups.div_ceil(block[0] as usize), block[1] as usize);
    // no result depends on it
    let each = (pixels * tiles).div_ceil(high * BLOCKS).clamp(4, PIXELS_MAX).max(pixels.div_ceil(high * 65_535));
    let arguments = NormaliseArguments {
        x: x.floats.pointer(),
        gy: 0,
        moments: norm.moments.pointer(),
        weight: norm.weight.pointer(),
        bias: 0,
        weight_grad: 0,
        bias_grad: 0,
        y: y.pointer(),
        pixels: narrow(kernel, "a number of pixels", pixels)?,
        lanes: lanes as u32,
        groups: narrow(kernel, "a number of channels", channels)? / lanes as u32,
        pixel: narrow(kernel, "a pixel", x.pixel)?,
        chunk: narrow(kernel, "a chunk", each * high)?,
        relu: 0,
        epsilon: norm.epsilon,
        count: pixels as f32,
    };
    Ok(([tiles, pixels.div_ceil(each * high), 1], block, arguments))
}

/// y (pixels, channels) = (x - mean) / sqrt(variance + epsilon) · weight + bias, then `activation`. x may be a window of wider
/// pixels.
pub(in crate::backend::cuda) fn normalise(
    q: &Queue,
    norm: Norm<'_>,
    x: Pixels<Floats<'_>>,
    bias: Floats<'_>,
    activation: Activation,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "normalise";
    let (grid, block, arguments) = over_pixels(KERNEL, norm, x, &[bias], &y)?;
    expect(KERNEL, "the bias", bias.len(), norm.weight.len())?;
    let relu = u32::from(activation == Activation::Relu);
    let arguments = NormaliseArguments { bias: bias.pointer(), relu, ..arguments };
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(KERNEL, grid, block, 0, arguments) }
}

/// gx (pixels, channels) from gy, with the gradients for weight and bias. x may be a window of wider pixels.
pub(in crate::backend::cuda) fn grad_input(
    q: &Queue,
    norm: Norm<'_>,
    x: Pixels<Floats<'_>>,
    gy: Floats<'_>,
    [gw, gb]: [Floats<'_>; 2],
    gx: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "normalise_grad_input";
    let (grid, block, arguments) = over_pixels(KERNEL, norm, x, &[gy, gw, gb], &gx)?;
    expect(KERNEL, "gy", gy.len(), gx.len())?;
    expect(KERNEL, "the weight's gradient", gw.len(), norm.weight.len())?;
    expect(KERNEL, "the bias's gradient", gb.len(), norm.weight.len())?;
    let (gy, weight_grad, bias_grad) = (gy.pointer(), gw.pointer(), gb.pointer());
    let arguments = NormaliseArguments { gy, weight_grad, bias_grad, ..arguments };
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(KERNEL, grid, block, 0, arguments) }
}

/// y = (1 - momentum) · running + momentum · factor · value.
pub(in crate::backend::cuda) fn running(
    q: &Queue,
    [momentum, factor]: [f64; 2],
    running: Floats<'_>,
    value: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "running_statistic";
    expect(KERNEL, "the running statistic", running.len(), y.len())?;
    expect(KERNEL, "the value", value.len(), y.len())?;
    let arguments = RunningArguments {
        running: running.pointer(),
        value: value.pointer(),
        y: y.pointer(),
        keep: 1.0 - momentum,
        mix: momentum * factor,
        channels: narrow(KERNEL, "a number of channels", y.len())?,
        unused: 0,
    };
    // SAFETY: the argument is the kernel's; the lengths were compared above.
    unsafe { q.launch(KERNEL, blocks(y.len()), [THREADS as u32, 1], 0, arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_over_one_chunk_and_over_many_and_in_windows_are_those_of_f64() {
        let q = Queue::for_tests();
        let stream = crate::random::Stream::new(8, "norm");
        for (pixels, channels, pixel) in [(2, 3, 3), (256, 33, 40), (257, 4, 4), (3000, 5, 9)] {
            let len = window_len(pixels, channels, pixel);
            let x: Vec<f32> = (0..len as u32).map(|i| 20.0 + stream.uniform(pixels as u64, i)).collect();
            let there = q.upload(&x);
            let mut workspace = q.upload(&vec![f32::NAN; moments_workspace(pixels, channels)]);
            let mut y = q.upload(&vec![f32::NAN; 2 * channels]);
            let window = Pixels { floats: q.floats(&there), pixel };
            let (scratch, to) = (q.floats_mut(&mut workspace), q.floats_mut(&mut y));
            moments(&q, [pixels, channels], window, scratch, to).unwrap();
            let got = q.download(&y);
            for c in 0..channels {
                let values: Vec<f64> = (0..pixels).map(|p| f64::from(x[p * pixel + c])).collect();
                let mean = values.iter().sum::<f64>() / pixels as f64;
                let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / pixels as f64;
                for (got, want) in [(got[c], mean), (got[channels + c], variance)] {
                    // one rounding of what f64 computed
                    assert!((f64::from(got) - want).abs() <= 1e-7 * want, "{pixels} x {channels}: {got} for {want}");
                }
            }
        }
    }

    #[test]
    fn the_workspace_of_more_pixels_is_enough_for_fewer() {
        // beyond 512 chunks of 256 pixels, chunks grow and may become fewer
        for pixels in [131_071usize, 131_072, 131_073, 200_000, 262_145] {
            let chunks = pixels.div_ceil(chunk(pixels));
            for more in [pixels, pixels + 1, pixels + 5000, 2 * pixels] {
                assert!(moments_workspace(more, 3) >= 4 * chunks * 3, "{pixels} in the workspace of {more}");
            }
        }
    }
}
