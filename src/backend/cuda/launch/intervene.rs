//! `kernels/intervene.cu`: cleared code channels, and the decoder's first convolution kept up to date.

use super::{Floats, FloatsMut, Indices, Queue, THREADS, blocks, conv, expect, lanes, narrow};
use crate::backend::BackendError;
use crate::backend::layout::{ConvShape, len};
use crate::graph::op::Activation;

/// Which image and which set of kept channels each row takes.
#[derive(Clone, Copy)]
pub(in crate::backend::cuda) struct Lists<'a> {
    pub images: Indices<'a>,
    pub sets: Indices<'a>,
    /// (sets, channels); 0 clears.
    pub keep: Floats<'a>,
}

impl Lists<'_> {
    /// That there is an image and a set for each of `rows`. Where they point to was checked by the ledger.
    fn check(&self, kernel: &'static str, rows: usize, channels: usize) -> Result<(), BackendError> {
        expect(kernel, "the list of images", self.images.len(), rows)?;
        expect(kernel, "the list of sets", self.sets.len(), rows)?;
        expect(kernel, "keep", self.keep.len() % channels.max(1), 0)
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct InterveneArguments {
    z: u64,
    images: u64,
    sets: u64,
    keep: u64,
    y: u64,
    items: u32,
    lanes: u32,
    groups: u32,
    positions: u32,
}
const _: () = assert!(size_of::<InterveneArguments>() == 56, "as in intervene.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct InterveneConvArguments {
    pre: u64,
    z: u64,
    weight: u64,
    images: u64,
    sets: u64,
    keep: u64,
    y: u64,
    channels: u32,
    height: u32,
    width: u32,
    outputs: u32,
    out_height: u32,
    out_width: u32,
    kernel_height: u32,
    kernel_width: u32,
    pad: u32,
    weight_stride: u32,
    lanes: u32,
    groups: u32,
    segments: u32,
    row_blocks: u32,
    activation: u32,
    unused: u32,
}
const _: () = assert!(size_of::<InterveneConvArguments>() == 120, "as in intervene.cu");

/// y (rows, positions, channels): row r is z\[images\[r\]\] with the channels that its set does not keep at zero.
pub(in crate::backend::cuda) fn intervene(
    q: &Queue,
    rows: usize,
    positions: usize,
    channels: usize,
    z: Floats<'_>,
    lists: Lists<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "intervene";
    lists.check(KERNEL, rows, channels)?;
    expect(KERNEL, "z", z.len() % (positions * channels).max(1), 0)?;
    expect(KERNEL, "y", y.len(), len(&[rows, positions, channels]))?;
    let lanes = lanes(channels, &[z.pointer(), lists.keep.pointer(), y.pointer()]);
    let items = y.len() / lanes;
    let arguments = InterveneArguments {
        z: z.pointer(),
        images: lists.images.pointer(),
        sets: lists.sets.pointer(),
        keep: lists.keep.pointer(),
        y: y.pointer(),
        items: narrow(KERNEL, "a value", items)?,
        lanes: lanes as u32,
        groups: (channels / lanes) as u32,
        positions: positions as u32,
    };
    // SAFETY: the argument is the kernel's; the lengths were compared above, images and sets by the ledger.
    unsafe { q.launch(KERNEL, blocks(items), [THREADS as u32, 1], 0, arguments) }
}

/// Threads of a block of `intervene_conv`: a 26 x 26 map of 32 channels is then 12 blocks, 5 % of them idle.
const CONV_THREADS: usize = 128;

/// Columns that a thread of `intervene_conv` has.
const SEGMENT: usize = 4;

/// y (rows, OH, OW, O) = activation(pre\[images\[r\]\] - the cleared channels' share). `weight` is packed in the forward order:
/// (kernel row, kernel column, C, O) with lines as long as `conv` makes them.
#[allow(clippy::too_many_arguments, reason = "the op's operands")]
pub(in crate::backend::cuda) fn intervene_conv(
    q: &Queue,
    shape: &ConvShape,
    rows: usize,
    pre: Floats<'_>,
    z: Floats<'_>,
    weight: Floats<'_>,
    lists: Lists<'_>,
    activation: Activation,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "intervene_conv";
    let kernel = if shape.kw.is_multiple_of(3) { "intervene_conv_3" } else { KERNEL };
    let (oh, ow) = (shape.oh(), shape.ow());
    let (weight_lines, weight_stride) = (len(&[shape.kh, shape.kw, shape.c]), conv::packed_line(shape));
    let weight = weight.first(weight_lines * weight_stride); // zeros may follow
    lists.check(KERNEL, rows, shape.c)?;
    expect(KERNEL, "the stride", shape.stride, 1)?;
    expect(KERNEL, "pre", pre.len() % shape.y_len().max(1), 0)?;
    expect(KERNEL, "z", z.len() % shape.x_len().max(1), 0)?;
    expect(KERNEL, "the packed weight", weight.len(), weight_lines * weight_stride)?;
    expect(KERNEL, "y", y.len(), rows * shape.y_len())?;
    let lanes = lanes(shape.o, &[pre.pointer(), weight.pointer(), y.pointer()]);
    let (groups, segments) = (shape.o / lanes, ow.div_ceil(SEGMENT));
    let row_blocks = len(&[oh, segments, groups]).div_ceil(CONV_THREADS);
    // the kernel's numbers within a row and from tap to tap are 32 bits
    narrow(KERNEL, "a map", shape.y_len().max(shape.x_len()).saturating_add(CONV_THREADS + SEGMENT))?;
    narrow(KERNEL, "a weight", weight_lines * weight_stride)?;
    let arguments = InterveneConvArguments {
        pre: pre.pointer(),
        z: z.pointer(),
        weight: weight.pointer(),
        images: lists.images.pointer(),
        sets: lists.sets.pointer(),
        keep: lists.keep.pointer(),
        y: y.pointer(),
        channels: shape.c as u32,
        height: shape.h as u32,
        width: shape.w as u32,
        outputs: shape.o as u32,
        out_height: oh as u32,
        out_width: ow as u32,
        kernel_height: shape.kh as u32,
        kernel_width: shape.kw as u32,
        pad: narrow(KERNEL, "a padding", shape.pad)?,
        weight_stride: narrow(KERNEL, "a line of the weight", weight_stride)?,
        lanes: lanes as u32,
        groups: groups as u32,
        segments: segments as u32,
        row_blocks: row_blocks as u32,
        activation: match activation {
            Activation::None => 0,
            Activation::Relu => 1,
        },
        unused: 0,
    };
    // SAFETY: the argument is the kernel's; the lengths were compared above, images and sets by the ledger.
    unsafe { q.launch(kernel, [rows * row_blocks, 1, 1], [CONV_THREADS as u32, 1], 0, arguments) }
}
