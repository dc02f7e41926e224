//! How values lie in a device's memory: a value with rows and with positions behind its channels lies channels-last (NHWC),
//! everything else in logical order. A 1x1 convolution is then a plain product, and a pixel's channels are one run.

use crate::graph::op::{Reduction, Window, window_positions};
use crate::graph::{Extent, Node};
use crate::tensor::Shape;
use std::fmt;

/// Channels, height, width; other ranks are channels x 1 x the rest.
pub(super) fn dims3(shape: &Shape) -> [usize; 3] {
    match *shape.dims() {
        [c, h, w] => [c, h, w],
        [c, ref rest @ ..] => [c, 1, rest.iter().product()],
        [] => [1, 1, 1],
    }
}

/// Whether a value of that shape lies channels-last at `node`.
pub(super) fn is_map(node: &Node, shape: &Shape) -> bool {
    node.extent == Extent::Rows && shape.rank() > 1
}

/// What a reduction over rows divides by.
pub(super) fn divisor(reduction: Reduction, rows: usize) -> f64 {
    match reduction {
        Reduction::Sum => 1.0,
        Reduction::Mean => rows as f64,
    }
}

impl ConvShape {
    /// From the shapes of a checked graph: x CxHxW, weight OxCxKhxKw.
    pub fn new(x: &Shape, weight: &Shape, window: Window) -> ConvShape {
        let [c, h, w] = dims3(x);
        let (o, kh, kw) = match *weight.dims() {
            [o, _, kh, kw] => (o, kh, kw),
            _ => (0, 1, 1),
        };
        ConvShape { c, h, w, o, kh, kw, stride: window.stride, pad: window.pad }
    }
}

/// One convolution: C x H x W in, O channels out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Input channels.
    pub c: usize,
    /// Input rows.
    pub h: usize,
    /// Input columns.
    pub w: usize,
    /// Output channels.
    pub o: usize,
    /// Kernel rows.
    pub kh: usize,
    /// Kernel columns.
    pub kw: usize,
    /// Distance between windows, both ways.
    pub stride: usize,
    /// Zero cells on every side.
    pub pad: usize,
}

/// `64->128 56x56 3x3 stride 1 pad 1`.
impl fmt::Display for ConvShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConvShape { c, h, w, o, kh, kw, stride, pad } = self;
        write!(f, "{c}->{o} {h}x{w} {kh}x{kw} stride {stride} pad {pad}")
    }
}

impl ConvShape {
    /// Output rows; 0 where the kernel does not fit.
    pub fn oh(&self) -> usize {
        window_positions(self.h, self.kh, self.window()).unwrap_or(0)
    }

    /// Output columns; 0 where the kernel does not fit.
    pub fn ow(&self) -> usize {
        window_positions(self.w, self.kw, self.window()).unwrap_or(0)
    }

    /// Stride and padding.
    pub fn window(&self) -> Window {
        Window { stride: self.stride, pad: self.pad }
    }

    /// Floats of an input image.
    pub fn x_len(&self) -> usize {
        len(&[self.c, self.h, self.w])
    }

    /// Floats of an output image.
    pub fn y_len(&self) -> usize {
        len(&[self.o, self.oh(), self.ow()])
    }

    /// Floats of the weight.
    pub fn w_len(&self) -> usize {
        len(&[self.o, self.c, self.kh, self.kw])
    }

    /// Floating point operations of one image, padding counted as work.
    pub fn flops(&self) -> usize {
        2 * self.w_len() * self.oh() * self.ow()
    }

    /// A linear layer, as a 1x1 convolution of an image of one pixel.
    pub fn linear(c: usize, o: usize) -> ConvShape {
        ConvShape { c, h: 1, w: 1, o, kh: 1, kw: 1, stride: 1, pad: 0 }
    }

    /// A linear layer over pixels.
    pub fn is_linear(&self) -> bool {
        self.kh == 1 && self.kw == 1 && self.stride == 1 && self.pad == 0
    }
}

/// The product of sizes: the length that a slice must have. Saturates, so that an absurd shape fits no slice.
pub(super) fn len(sizes: &[usize]) -> usize {
    sizes.iter().fold(1, |product, &size| product.saturating_mul(size))
}

/// Max-pooling with square windows; `pad` below `k` (PyTorch: at most k / 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// Channels.
    pub c: usize,
    /// Input rows.
    pub h: usize,
    /// Input columns.
    pub w: usize,
    /// Side of the window.
    pub k: usize,
    /// Distance between windows, both ways.
    pub stride: usize,
    /// Cells on every side that never win.
    pub pad: usize,
}

impl PoolShape {
    /// Output rows; 0 where the window does not fit.
    pub fn oh(&self) -> usize {
        window_positions(self.h, self.k, Window { stride: self.stride, pad: self.pad }).unwrap_or(0)
    }

    /// Output columns; 0 where the window does not fit.
    pub fn ow(&self) -> usize {
        window_positions(self.w, self.k, Window { stride: self.stride, pad: self.pad }).unwrap_or(0)
    }

    /// Whether it halves both sides: windows of 2x2 side by side.
    pub fn is_halving(&self) -> bool {
        (self.k, self.stride, self.pad) == (2, 2, 0)
    }

    /// The real cells 0..n of window `o`.
    pub(super) fn window(&self, o: usize, n: usize) -> std::ops::Range<usize> {
        let low = (o * self.stride).saturating_sub(self.pad).min(n);
        low..(o * self.stride + self.k).saturating_sub(self.pad).clamp(low, n)
    }

    /// The windows 0..n that hold cell `i`.
    pub(super) fn windows(&self, i: usize, n: usize) -> std::ops::Range<usize> {
        let low = (i + self.pad + 1).saturating_sub(self.k).div_ceil(self.stride).min(n);
        low..((i + self.pad) / self.stride + 1).clamp(low, n)
    }
}
