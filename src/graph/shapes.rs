//! The shape rules of [`Op`]: what a node takes, and shape and extent of what it gives. Called by the graph's builder.

use super::op::{Averaging, Element, Op, Prologue, Window, window_positions};
use super::{Extent, Node};
use crate::tensor::Shape;

/// Why a node cannot be built: what was expected and what was given.
pub(super) struct Mismatch {
    pub expected: String,
    pub got: String,
}

fn mismatch(expected: impl Into<String>, got: impl Into<String>) -> Mismatch {
    Mismatch { expected: expected.into(), got: got.into() }
}

impl Op {
    /// Shape and extent of the result, or what is wrong with the inputs.
    pub(super) fn infer(&self, inputs: &[&Node]) -> Result<(Shape, Extent), Mismatch> {
        let check = Check { inputs };
        match self {
            Op::Input(_) | Op::Parameter | Op::State => Err(mismatch("a declaration", "an op with inputs")),
            Op::Conv2d { window, prologue, .. } => {
                check.count(2..=5)?;
                let [c, h, w] = check.image(0)?;
                let [o, i, k, l] = check.kernel(1)?;
                check.same("input channels", i, c)?;
                match prologue {
                    Prologue::None => {
                        check.count(2..=3)?;
                        check.channels_if_present(2, o)?;
                    }
                    Prologue::AffineRelu => {
                        check.count(4..=5)?;
                        let scale = inputs.len() - 2;
                        if scale == 3 {
                            check.channels_if_present(2, o)?;
                        }
                        check.channels_if_present(scale, c)?;
                        check.channels_if_present(scale + 1, c)?;
                    }
                }
                Ok((Shape::from([o, fits(h, k, *window)?, fits(w, l, *window)?]), Extent::Rows))
            }
            Op::Conv2dGradInput { window, height, width } => {
                check.count(2..=2)?;
                let [o, p, q] = check.image(0)?;
                let [wo, c, k, l] = check.kernel(1)?;
                check.same("output channels", wo, o)?;
                check.same("height", fits(*height, k, *window)?, p)?;
                check.same("width", fits(*width, l, *window)?, q)?;
                Ok((Shape::from([c, *height, *width]), Extent::Rows))
            }
            Op::Conv2dGradWeight { window, kernel } => {
                check.count(2..=2)?;
                let [c, h, w] = check.image(0)?;
                let [o, p, q] = check.image(1)?;
                check.same("height", fits(h, kernel.0, *window)?, p)?;
                check.same("width", fits(w, kernel.1, *window)?, q)?;
                Ok((Shape::from([o, c, kernel.0, kernel.1]), Extent::Whole))
            }
            Op::Linear { .. } => {
                check.count(2..=3)?;
                let [i] = check.vector(0)?;
                let [o, wi] = check.matrix(1)?;
                check.same("input features", wi, i)?;
                check.channels_if_present(2, o)?;
                Ok((Shape::from([o]), Extent::Rows))
            }
            Op::LinearGradInput => {
                check.count(2..=2)?;
                let [o] = check.vector(0)?;
                let [wo, i] = check.matrix(1)?;
                check.same("output features", wo, o)?;
                Ok((Shape::from([i]), Extent::Rows))
            }
            Op::LinearGradWeight => {
                check.count(2..=2)?;
                let ([i], [o]) = (check.vector(0)?, check.vector(1)?);
                Ok((Shape::from([o, i]), Extent::Whole))
            }
            Op::SumToChannels => {
                check.count(1..=1)?;
                let c = check.leading(0)?;
                Ok((Shape::from([c]), Extent::Whole))
            }
            Op::Affine { .. } => {
                check.count(2..=3)?;
                let c = check.leading(0)?;
                check.channels_if_present(1, c)?;
                check.channels_if_present(2, c)?;
                Ok((check.shape(0), Extent::Rows))
            }
            Op::BatchMoments => {
                check.count(1..=1)?;
                Ok((Shape::from([2, check.leading(0)?]), Extent::Whole))
            }
            Op::Moments => {
                check.count(2..=2)?;
                let [c] = check.dims(0, Extent::Whole, "a mean a channel")?;
                check.whole(1, &Shape::from([c]))?;
                Ok((Shape::from([2, c]), Extent::Whole))
            }
            Op::Normalise { .. } => {
                check.count(4..=4)?;
                let c = check.normalised(0)?;
                check.whole(2, &Shape::from([c]))?;
                check.whole(3, &Shape::from([c]))?;
                Ok((check.shape(0), Extent::Rows))
            }
            Op::NormaliseGradWeight { .. } => {
                check.count(3..=3)?;
                let c = check.normalised(0)?;
                check.alike(&[0, 2])?;
                Ok((Shape::from([c]), Extent::Whole))
            }
            Op::NormaliseGradInput { .. } => {
                check.count(6..=6)?;
                let c = check.normalised(0)?;
                check.alike(&[0, 3])?;
                for i in [2, 4, 5] {
                    check.whole(i, &Shape::from([c]))?;
                }
                Ok((check.shape(0), Extent::Rows))
            }
            Op::Running { .. } => {
                check.count(2..=2)?;
                let [c] = check.dims(0, Extent::Whole, "a value a channel")?;
                check.whole(1, &Shape::from([2, c]))?;
                Ok((check.shape(0), Extent::Whole))
            }
            Op::Relu | Op::Scale(_) | Op::Sqrt { .. } => {
                check.count(1..=1)?;
                check.floats(0)?;
                Ok((check.shape(0), inputs[0].extent))
            }
            Op::ReluGrad | Op::Binary(_) => {
                check.count(2..=2)?;
                check.floats(0)?;
                check.alike(&[0, 1])?;
                Ok((check.shape(0), inputs[0].extent))
            }
            Op::MaxPool { size, window } => {
                check.count(1..=1)?;
                Ok((check.pooled(0, *size, *window)?, Extent::Rows))
            }
            Op::MaxPoolGrad { size, window } => {
                check.count(2..=2)?;
                let want = check.pooled(0, *size, *window)?;
                check.image(1)?;
                if inputs[1].shape != want {
                    return Err(mismatch(format!("a gradient of {want}"), inputs[1].shape.to_string()));
                }
                Ok((check.shape(0), Extent::Rows))
            }
            Op::AvgPool(averaging) => {
                check.count(1..=1)?;
                let [c, h, w] = check.image(0)?;
                let [p, q] = averaged(*averaging, h, w)?;
                Ok((Shape::from([c, p, q]), Extent::Rows))
            }
            Op::AvgPoolGrad { averaging, height, width } => {
                check.count(1..=1)?;
                let [c, p, q] = check.image(0)?;
                let want = averaged(*averaging, *height, *width)?;
                check.same("height", p, want[0])?;
                check.same("width", q, want[1])?;
                Ok((Shape::from([c, *height, *width]), Extent::Rows))
            }
            Op::Concat => {
                check.count(2..=2)?;
                let ([c, h, w], [d, h2, w2]) = (check.image(0)?, check.image(1)?);
                check.same("height", h2, h)?;
                check.same("width", w2, w)?;
                let channels = c.checked_add(d).ok_or_else(|| mismatch("fewer channels", format!("{c} + {d}")))?;
                Ok((Shape::from([channels, h, w]), Extent::Rows))
            }
            Op::Slice { first, channels } => {
                check.count(1..=1)?;
                let [c, h, w] = check.image(0)?;
                if first.checked_add(*channels).is_none_or(|end| end > c) {
                    return Err(mismatch(format!("channels below {c}"), format!("{first} and {channels} more")));
                }
                Ok((Shape::from([*channels, h, w]), Extent::Rows))
            }
            Op::ChannelSum => {
                check.count(2..=2)?;
                let ([c, h, w], [weights]) = (check.image(0)?, check.vector(1)?);
                check.same("weights", weights, c)?;
                Ok((Shape::from([1, h, w]), Extent::Rows))
            }
            Op::GlobalAvgPool | Op::ChannelMax => {
                check.count(1..=1)?;
                let [c, _, _] = check.image(0)?;
                Ok((Shape::from([c]), Extent::Rows))
            }
            Op::GlobalAvgPoolGrad { height, width } => {
                check.count(1..=1)?;
                let [c] = check.vector(0)?;
                Ok((Shape::from([c, *height, *width]), Extent::Rows))
            }
            Op::Reshape(shape) => {
                check.count(1..=1)?;
                check.floats(0)?;
                if shape.checked_len() != inputs[0].shape.checked_len() {
                    return Err(mismatch(format!("{} elements", inputs[0].shape.len()), format!("{shape}")));
                }
                Ok((shape.clone(), inputs[0].extent))
            }
            Op::ReduceRows(_) => {
                check.count(1..=1)?;
                check.extent(0, Extent::Rows)?;
                Ok((check.shape(0), Extent::Whole))
            }
            Op::BroadcastRows(_) => {
                check.count(1..=1)?;
                check.extent(0, Extent::Whole)?;
                Ok((check.shape(0), Extent::Rows))
            }
            Op::CrossEntropy => {
                check.count(2..=2)?;
                check.vector(0)?;
                check.index_rows(1)?;
                Ok((Shape::from([1]), Extent::Rows))
            }
            Op::CrossEntropyGrad => {
                check.count(3..=3)?;
                check.vector(0)?;
                check.index_rows(1)?;
                check.row_scalar(2)?;
                Ok((check.shape(0), Extent::Rows))
            }
            Op::BinaryCrossEntropy => {
                check.count(2..=3)?;
                let [k] = check.vector(0)?;
                check.alike(&[0, 1])?;
                check.whole_if_present(2, &Shape::from([2, k]))?;
                Ok((Shape::from([1]), Extent::Rows))
            }
            Op::BinaryCrossEntropyGrad => {
                check.count(3..=4)?;
                let [k] = check.vector(0)?;
                check.alike(&[0, 1])?;
                check.row_scalar(2)?;
                check.whole_if_present(3, &Shape::from([2, k]))?;
                Ok((check.shape(0), Extent::Rows))
            }
            Op::Kl(_) => {
                check.count(2..=2)?;
                check.vector(0)?;
                check.alike(&[0, 1])?;
                Ok((Shape::from([1]), Extent::Rows))
            }
            Op::KlGrad(_) => {
                check.count(3..=3)?;
                check.vector(0)?;
                check.alike(&[0, 1])?;
                check.row_scalar(2)?;
                Ok((check.shape(0), Extent::Rows))
            }
            Op::MeanAbs | Op::MeanSquare => {
                check.count(1..=1)?;
                check.extent(0, Extent::Rows)?;
                Ok((Shape::from([1]), Extent::Rows))
            }
            Op::TotalVariation => {
                check.count(1..=1)?;
                check.image(0)?;
                Ok((Shape::from([1]), Extent::Rows))
            }
            Op::MeanAbsGrad | Op::MeanSquareGrad => {
                check.count(2..=2)?;
                check.extent(0, Extent::Rows)?;
                check.row_scalar(1)?;
                Ok((check.shape(0), Extent::Rows))
            }
            Op::TotalVariationGrad => {
                check.count(2..=2)?;
                check.image(0)?;
                check.row_scalar(1)?;
                Ok((check.shape(0), Extent::Rows))
            }
            Op::Intervene => {
                check.count(4..=4)?;
                let [k, _, _] = check.image(0)?;
                check.index_rows(1)?;
                check.index_rows(2)?;
                let [_, kept] = check.matrix(3)?;
                check.same("channels in `keep`", kept, k)?;
                Ok((check.shape(0), Extent::Rows))
            }
            Op::InterveneConv { pad, .. } => {
                check.count(6..=6)?;
                let [o, h, w] = check.image(0)?;
                let [k, zh, zw] = check.image(1)?;
                let [wo, wk, kh, kw] = check.kernel(2)?;
                check.same("output channels", wo, o)?;
                check.same("code channels", wk, k)?;
                let window = Window { stride: 1, pad: *pad };
                check.same("height", fits(zh, kh, window)?, h)?;
                check.same("width", fits(zw, kw, window)?, w)?;
                check.index_rows(3)?;
                check.index_rows(4)?;
                let [_, kept] = check.matrix(5)?;
                check.same("channels in `keep`", kept, k)?;
                Ok((check.shape(0), Extent::Rows))
            }
            Op::Effects(_) | Op::WeightedEffect(_) => {
                check.count(3..=3)?;
                let [k] = check.vector(0)?;
                let [idle] = check.vector(1)?;
                check.same("idle logits", idle, k)?;
                check.index_rows(2)?;
                let classes = if matches!(self, Op::Effects(_)) { k } else { 1 };
                Ok((Shape::from([classes]), Extent::Rows))
            }
            Op::SignStep => {
                check.count(4..=4)?;
                check.extent(0, Extent::Rows)?;
                check.alike(&[0, 1, 2])?;
                check.whole(3, &Shape::from([2]))?;
                Ok((check.shape(0), Extent::Rows))
            }
            Op::AdamMean { .. } | Op::AdamSquare { .. } => {
                check.count(2..=2)?;
                check.extent(0, Extent::Whole)?;
                check.alike(&[0, 1])?;
                Ok((check.shape(0), Extent::Whole))
            }
            Op::AdamStep { .. } => {
                check.count(4..=4)?;
                check.extent(0, Extent::Whole)?;
                check.alike(&[0, 1, 2])?;
                check.whole(3, &Shape::from([3]))?;
                Ok((check.shape(0), Extent::Whole))
            }
        }
    }
}

fn fits(n: usize, size: usize, window: Window) -> Result<usize, Mismatch> {
    window_positions(n, size, window).ok_or_else(|| {
        mismatch(
            format!("at least {size} cells under a window of {size}, stride {}, pad {}", window.stride, window.pad),
            n.to_string(),
        )
    })
}

fn averaged(averaging: Averaging, h: usize, w: usize) -> Result<[usize; 2], Mismatch> {
    let spans = averaging.spans(h, w).ok_or_else(|| match averaging {
        Averaging::Windows { size, .. } => mismatch(format!("at least {size} cells"), format!("{h}x{w}")),
        Averaging::Adaptive { height, width } => mismatch("at least one cell each way", format!("{height}x{width}")),
    })?;
    Ok(spans.map(|s| s.count))
}

/// The inputs of a node under construction, with the questions that the shape rules ask of them.
struct Check<'a> {
    inputs: &'a [&'a Node],
}

impl Check<'_> {
    fn count(&self, range: std::ops::RangeInclusive<usize>) -> Result<(), Mismatch> {
        if range.contains(&self.inputs.len()) {
            return Ok(());
        }
        Err(mismatch(format!("{} to {} inputs", range.start(), range.end()), self.inputs.len().to_string()))
    }

    fn shape(&self, i: usize) -> Shape {
        self.inputs[i].shape.clone()
    }

    fn extent(&self, i: usize, extent: Extent) -> Result<(), Mismatch> {
        let node = self.inputs[i];
        if node.extent == extent && node.element() == Element::Float {
            return Ok(());
        }
        Err(mismatch(format!("{} floats as input {i}", extent.name()), format!("{} {}", node.extent.name(), node.name)))
    }

    fn floats(&self, i: usize) -> Result<(), Mismatch> {
        self.extent(i, self.inputs[i].extent)
    }

    /// Shape of a max-pool of input `i`. The padding stays below the window's side, so that no window lies in it whole.
    fn pooled(&self, i: usize, size: usize, window: Window) -> Result<Shape, Mismatch> {
        let [c, h, w] = self.image(i)?;
        if window.pad >= size {
            return Err(mismatch(format!("padding below the window's {size}"), window.pad.to_string()));
        }
        Ok(Shape::from([c, fits(h, size, window)?, fits(w, size, window)?]))
    }

    fn dims<const N: usize>(&self, i: usize, extent: Extent, what: &str) -> Result<[usize; N], Mismatch> {
        self.extent(i, extent)?;
        let shape = &self.inputs[i].shape;
        shape.dims().try_into().map_err(|_| mismatch(format!("{what} as input {i}"), shape.to_string()))
    }

    fn image(&self, i: usize) -> Result<[usize; 3], Mismatch> {
        self.dims(i, Extent::Rows, "channels x height x width")
    }

    fn vector(&self, i: usize) -> Result<[usize; 1], Mismatch> {
        self.dims(i, Extent::Rows, "a row of features")
    }

    fn kernel(&self, i: usize) -> Result<[usize; 4], Mismatch> {
        self.dims(i, Extent::Whole, "a kernel of four dimensions")
    }

    fn matrix(&self, i: usize) -> Result<[usize; 2], Mismatch> {
        self.dims(i, Extent::Whole, "a matrix")
    }

    fn row_scalar(&self, i: usize) -> Result<(), Mismatch> {
        let [n] = self.vector(i)?;
        self.same("elements in a per-row gradient", n, 1)
    }

    fn leading(&self, i: usize) -> Result<usize, Mismatch> {
        self.extent(i, Extent::Rows)?;
        let shape = &self.inputs[i].shape;
        shape.dims().first().copied().ok_or_else(|| mismatch("a channel dimension", "scalar rows"))
    }

    /// Channels of input `i`, whose moments are the next input.
    fn normalised(&self, i: usize) -> Result<usize, Mismatch> {
        let c = self.leading(i)?;
        self.whole(i + 1, &Shape::from([2, c]))?;
        Ok(c)
    }

    fn whole(&self, i: usize, want: &Shape) -> Result<(), Mismatch> {
        self.extent(i, Extent::Whole)?;
        if self.inputs[i].shape == *want {
            return Ok(());
        }
        Err(mismatch(format!("{want} as input {i}"), self.inputs[i].shape.to_string()))
    }

    fn channels_if_present(&self, i: usize, channels: usize) -> Result<(), Mismatch> {
        self.whole_if_present(i, &Shape::from([channels]))
    }

    fn whole_if_present(&self, i: usize, want: &Shape) -> Result<(), Mismatch> {
        if i < self.inputs.len() { self.whole(i, want) } else { Ok(()) }
    }

    fn index_rows(&self, i: usize) -> Result<(), Mismatch> {
        let node = self.inputs[i];
        if node.element() == Element::Index && node.extent == Extent::Rows && node.shape.rank() == 0 {
            return Ok(());
        }
        Err(mismatch(format!("one index a row as input {i}"), format!("{} ({})", node.name, node.shape)))
    }

    fn alike(&self, which: &[usize]) -> Result<(), Mismatch> {
        let first = self.inputs[which[0]];
        for &i in &which[1..] {
            let node = self.inputs[i];
            if node.shape != first.shape || node.extent != first.extent || node.element() != Element::Float {
                return Err(mismatch(
                    format!("{} {} as input {i}, like input {}", first.extent.name(), first.shape, which[0]),
                    format!("{} {}", node.extent.name(), node.shape),
                ));
            }
        }
        Ok(())
    }

    fn same(&self, what: &str, got: usize, want: usize) -> Result<(), Mismatch> {
        if got == want { Ok(()) } else { Err(mismatch(format!("{want} {what}"), got.to_string())) }
    }
}
