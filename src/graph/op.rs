//! The closed set of operations; their shape rules are in `shapes.rs`. Shapes are per row and logical (C, H, W); a row is
//! an image or a node variant of an image. Adding an op makes the compiler list every place to fill: there is no wildcard arm
//! on `Op`.

use crate::answer::Head;
use crate::tensor::Shape;

/// What happens to a convolution's or linear layer's result before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    None,
    /// max(0, x).
    Relu,
}

/// Stride and zero padding of a window, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Distance between windows, at least 1.
    pub stride: usize,
    /// Cells added on every side.
    pub pad: usize,
}

/// Which cells an average is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Averaging {
    /// Square windows without padding; what no whole window holds is left out.
    Windows {
        /// Side of a window.
        size: usize,
        /// Distance between windows, at least 1.
        stride: usize,
    },
    /// That many cells whatever the input's size: cell p of P averages floor(pH/P) to ceil((p+1)H/P), as PyTorch's
    /// adaptive pool; it repeats cells where the input is smaller.
    Adaptive {
        /// Output height.
        height: usize,
        /// Output width.
        width: usize,
    },
}

impl Averaging {
    /// The cells of each output position along (height, width) of an input; `None` where a window does not fit.
    pub fn spans(self, h: usize, w: usize) -> Option<[Spans; 2]> {
        let along = |n: usize, adaptive: usize| match self {
            Averaging::Windows { size, stride } => {
                let count = window_positions(n, size, Window { stride, pad: 0 })?;
                Some(Spans { count, cells: n, advance: stride, over: 1, reach: size })
            }
            Averaging::Adaptive { .. } => (adaptive > 0 && n > 0).then_some(Spans {
                count: adaptive,
                cells: n,
                advance: n,
                over: adaptive,
                reach: n,
            }),
        };
        let (height, width) = match self {
            Averaging::Windows { .. } => (0, 0),
            Averaging::Adaptive { height, width } => (height, width),
        };
        Some([along(h, height)?, along(w, width)?])
    }
}

/// Cells under each output position along one axis: position p has floor(p·advance/over) to
/// ceil((p·advance + reach)/over).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// Output positions.
    pub count: usize,
    /// Input cells.
    pub cells: usize,
    /// See above.
    pub advance: usize,
    /// See above.
    pub over: usize,
    /// See above.
    pub reach: usize,
}

impl Spans {
    /// The cells of position `p`.
    pub fn cells(&self, p: usize) -> std::ops::Range<usize> {
        p * self.advance / self.over..(p * self.advance + self.reach).div_ceil(self.over).min(self.cells)
    }

    /// The positions whose cells hold `i`.
    pub fn positions(&self, i: usize) -> std::ops::Range<usize> {
        let low = (i * self.over).checked_sub(self.reach).map_or(0, |d| d / self.advance + 1);
        let high = ((i + 1) * self.over).div_ceil(self.advance).min(self.count);
        low.min(high)..high
    }
}

/// What a convolution does to a pixel before it multiplies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prologue {
    /// Nothing.
    None,
    /// max(0, x·scale + shift) a channel: a batch norm in inference and its ReLU. Padding comes after it: a padded cell
    /// is 0, never relu(shift).
    AffineRelu,
}

/// Type of an input's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// Floats (f32 on devices, f64 in the reference).
    Float,
    /// Labels and row lists.
    Index,
}

/// How rows become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Sum over rows.
    Sum,
    /// Sum over rows, divided by their number.
    Mean,
}

/// Which statistic of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Line 0 of moments: the mean.
    Mean,
    /// Line 1: the variance, the mean of the squared distances from the mean.
    Variance {
        /// Positions of a row: with the rows of a run they say how many values a batch's variance was taken over.
        positions: usize,
    },
}

impl Moment {
    /// Its line of the moments, and what a batch of `rows` rows has there times this factor is the unbiased estimate.
    pub fn value(self, rows: usize) -> (usize, f64) {
        match self {
            Moment::Mean => (0, 1.0),
            Moment::Variance { positions } => match rows.saturating_mul(positions) {
                0 | 1 => (1, f64::NAN),
                n => (1, n as f64 / (n - 1) as f64),
            },
        }
    }
}

/// Element-wise functions of two equal shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
}

/// One operation. Inputs are listed in the order in which the graph holds them; `rows` marks a value that has a row per
/// image or variant, `whole` one that has no rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Written by the host before a run: rows or whole.
    Input(Element),
    /// A named weight, whole; read from the weights at load.
    Parameter,
    /// Optimiser state, whole; starts as zeros.
    State,
    /// (x rows CxHxW, w OxCxKxL, [b O], [scale C, shift C of the prologue]) to rows OxPxQ: cross-correlation, as PyTorch's
    /// `conv2d`.
    Conv2d {
        /// Stride and padding.
        window: Window,
        /// What is done to x first; fused by [`super::fold`], so it has no gradient.
        prologue: Prologue,
        /// Epilogue.
        activation: Activation,
    },
    /// (gy rows OxPxQ, w OxCxKxL) to rows CxHxW.
    Conv2dGradInput {
        /// Stride and padding of the forward convolution.
        window: Window,
        /// Height H of the forward input.
        height: usize,
        /// Width W of the forward input.
        width: usize,
    },
    /// (x rows CxHxW, gy rows OxPxQ) to whole OxCxKxL, summed over rows.
    Conv2dGradWeight {
        /// Stride and padding of the forward convolution.
        window: Window,
        /// Kernel height K and width L.
        kernel: (usize, usize),
    },
    /// (x rows I, w OxI, [b O]) to rows O: x wᵀ + b.
    Linear {
        /// Epilogue.
        activation: Activation,
    },
    /// (gy rows O, w OxI) to rows I.
    LinearGradInput,
    /// (x rows I, gy rows O) to whole OxI, summed over rows.
    LinearGradWeight,
    /// (gy rows Cx…) to whole C: the gradient of a bias, summed over rows and positions.
    SumToChannels,
    /// (x rows Cx…, scale C, [shift C]) to rows: x·scale + shift a channel. Batch norm in inference; input normalisation.
    Affine {
        /// Epilogue.
        activation: Activation,
    },
    /// (x rows Cx…) to whole 2xC: mean and variance of each channel over rows and positions. Its gradient is part of that
    /// of the [`Op::Normalise`] that reads it.
    BatchMoments,
    /// (mean whole C, variance whole C) to whole 2xC: moments that are known.
    Moments,
    /// (x rows Cx…, moments whole 2xC, weight C, bias C) to rows: (x - mean)/sqrt(variance + epsilon)·weight + bias a
    /// channel. Batch norm under training, with the moments of the batch; rows are then not independent.
    Normalise {
        /// Added to the variance.
        epsilon: f64,
        /// Epilogue.
        activation: Activation,
    },
    /// (x rows Cx…, moments whole 2xC, gy rows Cx…) to whole C: sum of gy·(x - mean)/sqrt(variance + epsilon) over rows and
    /// positions, the gradient for the weight of `Normalise`.
    NormaliseGradWeight {
        /// Added to the variance.
        epsilon: f64,
    },
    /// (x rows Cx…, moments whole 2xC, weight C, gy rows Cx…, gw C, gb C) to rows: the gradient for x of `Normalise` with the
    /// moments of x itself: weight/sqrt(variance + epsilon)·(gy - gb/n - x̂·gw/n), where gw and gb are the gradients for
    /// weight and bias, x̂ is x normalised and n the number of values of a channel.
    NormaliseGradInput {
        /// Added to the variance.
        epsilon: f64,
    },
    /// (running whole C, moments whole 2xC) to whole C: (1-momentum)·running + momentum·value. The value of a variance is
    /// unbiased: n/(n-1) of the batch's, n its rows times positions; of a single value there is none (NaN).
    Running {
        /// Which line of the moments.
        moment: Moment,
        /// Share of the new value.
        momentum: f64,
    },
    /// (x) to rows or whole: max(0, x).
    Relu,
    /// (y, gy): gy where y > 0, else 0.
    ReluGrad,
    /// (x rows CxHxW): the first maximum of each window wins; a NaN counts as a maximum; padding never wins.
    MaxPool {
        /// Side of the square window.
        size: usize,
        /// Stride and padding.
        window: Window,
    },
    /// (x rows CxHxW, gy rows CxPxQ) to rows CxHxW: each window's gradient goes to its first maximum.
    MaxPoolGrad {
        /// Side of the square window.
        size: usize,
        /// Stride and padding.
        window: Window,
    },
    /// (x rows CxHxW) to rows CxPxQ: means of cells.
    AvgPool(Averaging),
    /// (gy rows CxPxQ) to rows CxHxW: each mean's gradient over its cells, in equal shares.
    AvgPoolGrad {
        /// The forward pool's cells.
        averaging: Averaging,
        /// Height H of the forward input.
        height: usize,
        /// Width W of the forward input.
        width: usize,
    },
    /// (a rows CxHxW, b rows DxHxW) to rows (C+D)xHxW: b's channels behind a's. Where the plan gives both a window of its
    /// slot, nothing is copied.
    Concat,
    /// (x rows CxHxW) to rows NxHxW: channels `first` to `first + channels`. The gradient of a concat; a view where all
    /// readers can take one.
    Slice {
        /// First channel.
        first: usize,
        /// Number N of channels.
        channels: usize,
    },
    /// (x rows CxHxW, weight rows C) to rows 1xHxW: the sum over channels of weight times map (class activation maps).
    ChannelSum,
    /// (x rows CxHxW) to rows C: mean over positions.
    GlobalAvgPool,
    /// (gy rows C) to rows CxHxW: gy / (H·W) everywhere.
    GlobalAvgPoolGrad {
        /// H.
        height: usize,
        /// W.
        width: usize,
    },
    /// (x rows CxHxW) to rows C: max |x| over positions, NaN if one is. 0 exactly when a channel is all zero: a dead node.
    ChannelMax,
    /// (x): the same elements in C, H, W order under another shape.
    Reshape(Shape),
    /// (x): factor · x.
    Scale(f64),
    /// (x): sqrt(x + epsilon).
    Sqrt {
        /// Added under the root, so that its gradient is finite at 0.
        epsilon: f64,
    },
    /// (a, b) of equal shape and extent.
    Binary(Binary),
    /// (x rows S) to whole S.
    ReduceRows(Reduction),
    /// (g whole S) to rows S: g, or g / rows. The gradient of `ReduceRows`.
    BroadcastRows(Reduction),
    /// (logits rows K, label rows index) to rows 1: -log softmax(logits)\[label\].
    CrossEntropy,
    /// (logits rows K, label rows index, g rows 1) to rows K. The label's entry is -g times the sum of the other
    /// probabilities, never p - 1: where p rounds to 1 the latter loses the sign of every pixel's gradient.
    CrossEntropyGrad,
    /// (logits rows K, target rows K, [weight 2xK]) to rows 1: binary cross-entropy, summed over labels:
    /// -sum(w₁·t·log σ + w₀·(1-t)·log(1-σ)); line 0 of `weight` is w₀ (of absent findings), line 1 is w₁.
    BinaryCrossEntropy,
    /// (logits rows K, target rows K, g rows 1, [weight 2xK]) to rows K: g·(w₀·(1-t)·σ(x) - w₁·t·σ(-x)).
    BinaryCrossEntropyGrad,
    /// (target logits rows K, logits rows K) to rows 1: the divergence of the target's answer p from the logits' q. Softmax:
    /// sum p log(p/q). Sigmoid: sum p log(p/q) + (1-p) log((1-p)/(1-q)).
    Kl(Head),
    /// (target logits, logits, g rows 1) to rows K: the gradient for `logits`, g·(q - p) with either head.
    KlGrad(Head),
    /// (x rows) to rows 1: mean |x| over a row.
    MeanAbs,
    /// (x rows, g rows 1) to rows: g·sign(x)/n, 0 at 0.
    MeanAbsGrad,
    /// (x rows) to rows 1: mean x² over a row.
    MeanSquare,
    /// (x rows, g rows 1) to rows: 2·g·x/n.
    MeanSquareGrad,
    /// (x rows KxHxW) to rows 1: (sum |down - here| + sum |right - here|) / (K·H·W).
    TotalVariation,
    /// (x rows KxHxW, g rows 1) to rows KxHxW; the subgradient of |.| at 0 is 0.
    TotalVariationGrad,
    /// (z rows KxHxW, image rows index, set rows index, keep whole SxK) to rows KxHxW:
    /// out\[r\] = z\[image_r\] with every channel k whose keep\[set_r, k\] is 0 set to 0. The only op where rows grow.
    Intervene,
    /// (pre rows OxHxW, z rows KxHxW, w OxKxKhxKw, image rows index, set rows index, keep whole SxK) to rows OxHxW:
    /// the decoder's first convolution of `Intervene`'s result, as pre\[image_r\] minus the changed channels' share; a row
    /// whose code does not change copies `pre` bit for bit. `pre` has its bias and no activation.
    InterveneConv {
        /// Padding (stride 1).
        pad: usize,
        /// Epilogue.
        activation: Activation,
    },
    /// (do logits rows K, idle logits rows K, image rows index) to rows K: the effects q_c - p_c of an intervention, q from
    /// the row and p from idle\[image_r\], computed in f64 without cancellation ([`crate::answer::difference`]).
    Effects(Head),
    /// (do logits rows K, idle logits rows K, image rows index) to rows 1: the class-weighted effect (E1 for a softmax, the
    /// Bernoulli form for a sigmoid), computed and summed in f64.
    WeightedEffect(Head),
    /// (x rows, g rows, x0 rows, limits whole 2 = step, eps): clip(x + step·sign(g), max(0, x0-eps), min(1, x0+eps)).
    SignStep,
    /// (m whole, g whole) to whole: beta·m + (1-beta)·g.
    AdamMean {
        /// Decay.
        beta: f64,
    },
    /// (v whole, g whole) to whole: beta·v + (1-beta)·g².
    AdamSquare {
        /// Decay.
        beta: f64,
    },
    /// (p, m, v whole, rate whole 3 = learning rate, 1-beta1^t, 1-beta2^t): p - lr·(m/c1)/(sqrt(v/c2)+epsilon).
    AdamStep {
        /// Added to the root.
        epsilon: f64,
    },
}

/// Output positions of a window of `size` over `n` cells; `None` when it does not fit.
pub fn window_positions(n: usize, size: usize, window: Window) -> Option<usize> {
    let padded = n.checked_add(window.pad.checked_mul(2)?)?;
    (size > 0 && window.stride > 0 && padded >= size).then(|| (padded - size) / window.stride + 1)
}

impl Op {
    /// The op's name in dumps and errors.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input(_) => "input",
            Op::Parameter => "parameter",
            Op::State => "state",
            Op::Conv2d { .. } => "conv2d",
            Op::Conv2dGradInput { .. } => "conv2d-grad-input",
            Op::Conv2dGradWeight { .. } => "conv2d-grad-weight",
            Op::Linear { .. } => "linear",
            Op::LinearGradInput => "linear-grad-input",
            Op::LinearGradWeight => "linear-grad-weight",
            Op::SumToChannels => "sum-to-channels",
            Op::Affine { .. } => "affine",
            Op::BatchMoments => "batch-moments",
            Op::Moments => "moments",
            Op::Normalise { .. } => "normalise",
            Op::NormaliseGradWeight { .. } => "normalise-grad-weight",
            Op::NormaliseGradInput { .. } => "normalise-grad-input",
            Op::Running { moment: Moment::Mean, .. } => "running-mean",
            Op::Running { moment: Moment::Variance { .. }, .. } => "running-variance",
            Op::Relu => "relu",
            Op::ReluGrad => "relu-grad",
            Op::MaxPool { .. } => "max-pool",
            Op::MaxPoolGrad { .. } => "max-pool-grad",
            Op::AvgPool(_) => "avg-pool",
            Op::AvgPoolGrad { .. } => "avg-pool-grad",
            Op::Concat => "concat",
            Op::Slice { .. } => "slice",
            Op::ChannelSum => "channel-sum",
            Op::GlobalAvgPool => "global-avg-pool",
            Op::GlobalAvgPoolGrad { .. } => "global-avg-pool-grad",
            Op::ChannelMax => "channel-max",
            Op::Reshape(_) => "reshape",
            Op::Scale(_) => "scale",
            Op::Sqrt { .. } => "sqrt",
            Op::Binary(Binary::Add) => "add",
            Op::Binary(Binary::Sub) => "sub",
            Op::Binary(Binary::Mul) => "mul",
            Op::Binary(Binary::Div) => "div",
            Op::ReduceRows(Reduction::Sum) => "sum-rows",
            Op::ReduceRows(Reduction::Mean) => "mean-rows",
            Op::BroadcastRows(_) => "broadcast-rows",
            Op::CrossEntropy => "cross-entropy",
            Op::CrossEntropyGrad => "cross-entropy-grad",
            Op::BinaryCrossEntropy => "binary-cross-entropy",
            Op::BinaryCrossEntropyGrad => "binary-cross-entropy-grad",
            Op::Kl(Head::Softmax) => "softmax-kl",
            Op::Kl(Head::Sigmoid) => "sigmoid-kl",
            Op::KlGrad(Head::Softmax) => "softmax-kl-grad",
            Op::KlGrad(Head::Sigmoid) => "sigmoid-kl-grad",
            Op::MeanAbs => "mean-abs",
            Op::MeanAbsGrad => "mean-abs-grad",
            Op::MeanSquare => "mean-square",
            Op::MeanSquareGrad => "mean-square-grad",
            Op::TotalVariation => "total-variation",
            Op::TotalVariationGrad => "total-variation-grad",
            Op::Intervene => "intervene",
            Op::InterveneConv { .. } => "intervene-conv",
            Op::Effects(_) => "effects",
            Op::WeightedEffect(_) => "weighted-effect",
            Op::SignStep => "sign-step",
            Op::AdamMean { .. } => "adam-mean",
            Op::AdamSquare { .. } => "adam-square",
            Op::AdamStep { .. } => "adam-step",
        }
    }

    /// Which of a convolution's `inputs` is its prologue's scale; the shift follows it.
    pub fn prologue_input(&self, inputs: usize) -> Option<usize> {
        match self {
            Op::Conv2d { prologue: Prologue::AffineRelu, .. } => inputs.checked_sub(2),
            _ => None,
        }
    }

    /// Whether input number `input` is read through a row list: its rows are those of the images listed, not the run's.
    pub fn gathers(&self, input: usize) -> bool {
        match self {
            Op::Intervene => input == 0,
            Op::InterveneConv { .. } => input <= 1,
            Op::Effects(_) | Op::WeightedEffect(_) => input == 1,
            // the only ops that take a row list
            _ => false,
        }
    }

    /// The attributes as they appear in a dump: ` stride 1 pad 0 relu`.
    pub fn attributes(&self) -> String {
        let activation = |a: &Activation| if *a == Activation::Relu { " relu" } else { "" };
        match self {
            Op::Conv2d { window, prologue, activation: a } => {
                let prologue = if *prologue == Prologue::AffineRelu { " of affine relu" } else { "" };
                format!(" stride {} pad {}{prologue}{}", window.stride, window.pad, activation(a))
            }
            Op::Conv2dGradInput { window, .. } | Op::Conv2dGradWeight { window, .. } => {
                format!(" stride {} pad {}", window.stride, window.pad)
            }
            Op::Linear { activation: a } | Op::Affine { activation: a } | Op::Normalise { activation: a, .. } => {
                activation(a).to_string()
            }
            Op::AvgPool(averaging) | Op::AvgPoolGrad { averaging, .. } => match averaging {
                Averaging::Windows { size, stride } => format!(" size {size} stride {stride}"),
                Averaging::Adaptive { height, width } => format!(" to {height}x{width}"),
            },
            Op::Slice { first, channels } => format!(" {first} to {}", first + channels),
            Op::MaxPool { size, window } | Op::MaxPoolGrad { size, window } => {
                format!(" size {size} stride {} pad {}", window.stride, window.pad)
            }
            Op::Scale(factor) => format!(" {factor}"),
            Op::InterveneConv { pad, activation: a } => format!(" pad {pad}{}", activation(a)),
            Op::BroadcastRows(Reduction::Mean) => " / rows".into(),
            Op::AdamMean { beta } | Op::AdamSquare { beta } => format!(" beta {beta}"),
            Op::Running { momentum, .. } => format!(" momentum {momentum}"),
            Op::Effects(Head::Softmax) | Op::WeightedEffect(Head::Softmax) => " softmax".into(),
            Op::Effects(Head::Sigmoid) | Op::WeightedEffect(Head::Sigmoid) => " sigmoid".into(),
            Op::Input(_)
            | Op::Parameter
            | Op::State
            | Op::LinearGradInput
            | Op::LinearGradWeight
            | Op::SumToChannels
            | Op::BatchMoments
            | Op::Moments
            | Op::NormaliseGradWeight { .. }
            | Op::NormaliseGradInput { .. }
            | Op::Relu
            | Op::ReluGrad
            | Op::Concat
            | Op::ChannelSum
            | Op::GlobalAvgPool
            | Op::GlobalAvgPoolGrad { .. }
            | Op::ChannelMax
            | Op::Reshape(_)
            | Op::Sqrt { .. }
            | Op::Binary(_)
            | Op::ReduceRows(_)
            | Op::BroadcastRows(Reduction::Sum)
            | Op::CrossEntropy
            | Op::CrossEntropyGrad
            | Op::BinaryCrossEntropy
            | Op::BinaryCrossEntropyGrad
            | Op::Kl(_)
            | Op::KlGrad(_)
            | Op::MeanAbs
            | Op::MeanAbsGrad
            | Op::MeanSquare
            | Op::MeanSquareGrad
            | Op::TotalVariation
            | Op::TotalVariationGrad
            | Op::Intervene
            | Op::SignStep
            | Op::AdamStep { .. } => String::new(),
        }
    }
}
