//! One step of a plan as kernel launches: which launcher an op takes, with what.

use super::launch::conv::{self, Layout, Order, Pixels, window_len};
use super::launch::{
    Floats, FloatsMut, Indices, Queue, attack, effect, intervene, layout, loss, norm, optimizer, pointwise, pool, rows,
    winograd,
};
use super::precision::{Arithmetic, Precision};
use crate::backend::BackendError;
use crate::backend::layout::{ConvShape, PoolShape, dims3, divisor, is_map};
use crate::backend::ledger::{Ledger, inconsistent};
use crate::graph::op::{Activation, Averaging, Binary, Op, Prologue, Spans, Window};
use crate::graph::plan::View;
use crate::graph::{Extent, Graph, Node, NodeId};
use cudarc::driver::CudaSlice;
use std::collections::HashMap;

/// What a slot is made of.
pub(super) enum Memory {
    Floats(CudaSlice<f32>),
    Indices(CudaSlice<u32>),
    /// Lent to the step that writes it.
    Lent,
}

/// A weight in the order in which a kernel reads it.
pub(super) struct Packed {
    pub data: CudaSlice<f32>,
    /// Whether it is packed from what the weight holds now.
    pub fresh: bool,
}

/// A step about to be launched: everything it reads.
pub(super) struct Step<'a> {
    pub ledger: &'a Ledger,
    pub queue: &'a Queue,
    pub slots: &'a [Memory],
    pub packed: &'a HashMap<(NodeId, Layout), Packed>,
    pub node: &'a Node,
    /// Rows of this run.
    pub rows: usize,
}

impl<'a> Step<'a> {
    fn source(&self, i: usize) -> &'a Node {
        self.ledger.node(self.node.inputs[i])
    }

    /// Input `i`, cut to this run's rows.
    fn floats(&self, i: usize) -> Result<Floats<'a>, BackendError> {
        let source = self.source(i);
        let rows = if source.extent == Extent::Rows { self.rows } else { 1 };
        Ok(self.all(i)?.first(rows * source.shape.len()))
    }

    /// Input `i`, cut to this run's rows, which may be a window of wider pixels.
    fn pixels(&self, i: usize) -> Result<Pixels<Floats<'a>>, BackendError> {
        let (id, source) = (self.node.inputs[i], self.source(i));
        let [c, h, w] = dims3(&source.shape);
        let Some(View { first, pixel }) = self.ledger.artifact().view_of(id) else {
            return Ok(Pixels { floats: self.floats(i)?, pixel: c });
        };
        match &self.slots[self.ledger.slot(id)?] {
            Memory::Floats(data) => {
                let floats = self.queue.floats(data).behind(first).first(window_len(self.rows * h * w, c, pixel));
                Ok(Pixels { floats, pixel })
            }
            Memory::Indices(_) | Memory::Lent => {
                Err(inconsistent(self.node, format!("input {i} has no floats to read")))
            }
        }
    }

    /// A convolution's scale and shift, and its bias.
    #[allow(clippy::type_complexity, reason = "two optional operands")]
    fn conv_operands(&self) -> Result<(Option<conv::Prologue<'a>>, Option<Floats<'a>>), BackendError> {
        let inputs = self.node.inputs.len();
        let scale = self.node.op.prologue_input(inputs);
        let prologue = match scale {
            Some(at) => Some(conv::Prologue { scale: self.floats(at)?, shift: self.floats(at + 1)? }),
            None => None,
        };
        let bias = if scale.unwrap_or(inputs) == 3 { Some(self.floats(2)?) } else { None };
        Ok((prologue, bias))
    }

    /// All valid rows of input `i`, for an op that gathers.
    fn all(&self, i: usize) -> Result<Floats<'a>, BackendError> {
        let slot = self.ledger.slot(self.node.inputs[i])?;
        match &self.slots[slot] {
            Memory::Floats(data) => {
                Ok(self.queue.floats(data).first(self.ledger.rows(slot) * self.source(i).shape.len()))
            }
            Memory::Indices(_) | Memory::Lent => {
                Err(inconsistent(self.node, format!("input {i} has no floats to read")))
            }
        }
    }

    fn optional(&self, i: usize) -> Result<Option<Floats<'a>>, BackendError> {
        if i < self.node.inputs.len() { self.floats(i).map(Some) } else { Ok(None) }
    }

    /// The row list in input `i`, cut to this run's rows.
    fn indices(&self, i: usize) -> Result<Indices<'a>, BackendError> {
        match &self.slots[self.ledger.slot(self.node.inputs[i])?] {
            Memory::Indices(data) => Ok(self.queue.indices(data).first(self.rows)),
            Memory::Floats(_) | Memory::Lent => Err(inconsistent(self.node, format!("input {i} is no row list"))),
        }
    }

    fn packed(&self, i: usize, layout: Layout) -> Result<conv::Packed<'a>, BackendError> {
        let found = self.packed.get(&(self.node.inputs[i], layout)).filter(|p| p.fresh);
        let packed = found.ok_or_else(|| inconsistent(self.node, format!("the weight in input {i} is not packed")))?;
        Ok(conv::Packed { floats: self.queue.floats(&packed.data), layout })
    }

    /// The weight of a layer of that shape, in input 1.
    fn weight(&self, shape: &ConvShape, order: Order) -> Result<conv::Packed<'a>, BackendError> {
        self.packed(1, Layout::new(shape, order, self.queue.device.precision()))
    }

    fn convolution(
        &self,
        window: Window,
        activation: Activation,
        y: Pixels<FloatsMut<'_>>,
        mut workspace: FloatsMut<'_>,
    ) -> Result<(), BackendError> {
        let (q, n) = (self.queue, self.rows);
        let shape = ConvShape::new(&self.source(0).shape, &self.source(1).shape, window);
        let (prologue, bias) = self.conv_operands()?;
        let x = self.pixels(0)?;
        let arithmetic = q.device.arithmetic();
        let fused = prologue.is_none() || fuses_prologue(&shape, self.view(0), arithmetic);
        let weight = self.packed(1, conv_layout(&shape, prologue.is_some() && fused, arithmetic))?;
        // no kernel has this prologue: it is done first
        if let (Some(conv::Prologue { scale, shift }), false) = (prologue, fused) {
            let done = workspace.reborrow().first(n * shape.x_len());
            pointwise::affine(q, shape.c, x, scale, Some(shift), Activation::Relu, done)?;
            let x = Pixels { floats: workspace.as_floats().first(n * shape.x_len()), pixel: shape.c };
            return conv::forward_with_prologue(q, &shape, n, x, None, weight, bias, activation, y);
        }
        match weight.layout.winograd {
            Some(tiles) => winograd::forward(q, tiles, &shape, n, x, weight, bias, activation, workspace, y),
            None => conv::forward_with_prologue(q, &shape, n, x, prologue, weight, bias, activation, y),
        }
    }

    /// Moments and weight of a norm, in inputs 1 and 2.
    fn norm(&self, epsilon: f64) -> Result<norm::Norm<'a>, BackendError> {
        Ok(norm::Norm { moments: self.floats(1)?, weight: self.floats(2)?, epsilon: epsilon as f32 })
    }

    fn view(&self, i: usize) -> Option<View> {
        self.ledger.artifact().view_of(self.node.inputs[i])
    }

    /// Copies the inputs that do not lie in the result's slot yet.
    fn concat(&self, id: NodeId, mut y: Pixels<FloatsMut<'_>>) -> Result<(), BackendError> {
        let mut first = 0;
        for i in 0..2 {
            let [c, h, w] = dims3(&self.source(i).shape);
            if !self.ledger.artifact().lies_in_place(id, i) {
                let pixels = self.rows * h * w;
                let to = y.floats.reborrow().behind(first).first(window_len(pixels, c, y.pixel));
                pointwise::views(
                    self.queue,
                    [pixels, c],
                    self.pixels(i)?,
                    None,
                    Pixels { floats: to, pixel: y.pixel },
                )?;
            }
            first += c;
        }
        Ok(())
    }

    /// Puts the step's launches into the stream; `to` is where its result goes.
    pub fn launch(&self, id: NodeId, to: Pixels<FloatsMut<'_>>, workspace: FloatsMut<'_>) -> Result<(), BackendError> {
        let (q, n, node) = (self.queue, self.rows, self.node);
        let dims = |i: usize| dims3(&self.source(i).shape);
        let features = |i: usize| self.source(i).shape.len();
        // what may be a window of wider pixels; everything else has its slot's pixels to itself
        match &node.op {
            Op::Conv2d { window, activation, .. } => return self.convolution(*window, *activation, to, workspace),
            Op::MaxPool { size, window } => {
                return pool::max_pool(q, &pool_shape(self.source(0), *size, *window), n, self.floats(0)?, to);
            }
            Op::AvgPool(averaging) => {
                let [c, h, w] = dims(0);
                return pool::average(q, spans(node, *averaging, h, w)?, c, n, self.floats(0)?, to);
            }
            Op::Concat => return self.concat(id, to),
            _ => {}
        }
        let y = to.floats;
        match &node.op {
            Op::Input(_) | Op::Parameter | Op::State => Err(inconsistent(node, "a declaration is not a step".into())),
            Op::Conv2d { .. } | Op::MaxPool { .. } | Op::AvgPool(_) | Op::Concat => {
                Err(inconsistent(node, "it was to be launched above".into()))
            }
            Op::Conv2dGradInput { window, .. } => {
                let shape = ConvShape::new(&node.shape, &self.source(1).shape, *window);
                conv::grad_input(q, &shape, n, self.floats(0)?, self.weight(&shape, Order::GradInput)?, y)
            }
            Op::Conv2dGradWeight { window, .. } => {
                let shape = ConvShape::new(&self.source(0).shape, &node.shape, *window);
                conv::grad_weight(q, q.device.precision(), &shape, n, self.floats(0)?, self.floats(1)?, workspace, y)
            }
            Op::Linear { activation } => {
                let shape = linear_shape(features(0), node.shape.len());
                let weight = self.weight(&shape, Order::Forward)?;
                conv::forward(q, &shape, n, self.floats(0)?, weight, self.optional(2)?, *activation, y)
            }
            Op::LinearGradInput => {
                let shape = linear_shape(node.shape.len(), features(0));
                conv::grad_input(q, &shape, n, self.floats(0)?, self.weight(&shape, Order::GradInput)?, y)
            }
            Op::LinearGradWeight => {
                let shape = linear_shape(features(0), features(1));
                conv::grad_weight(q, q.device.precision(), &shape, n, self.floats(0)?, self.floats(1)?, workspace, y)
            }
            Op::SumToChannels => {
                let [c, h, w] = dims(0);
                rows::sum_to_channels(q, n * h * w, c, self.floats(0)?, workspace, y)
            }
            Op::Affine { activation } => {
                let [c, _, _] = dims(0);
                pointwise::affine(q, c, self.pixels(0)?, self.floats(1)?, self.optional(2)?, *activation, y)
            }
            Op::AvgPoolGrad { averaging, height, width } => {
                let spans = spans(node, *averaging, *height, *width)?;
                pool::average_grad(q, spans, dims(0)[0], n, self.floats(0)?, y)
            }
            Op::Slice { first, channels } => {
                let [_, h, w] = dims(0);
                let Pixels { floats, pixel } = self.pixels(0)?;
                let pixels = n * h * w;
                let floats = floats.behind(*first).first(window_len(pixels, *channels, pixel));
                let y = Pixels { floats: y, pixel: *channels };
                pointwise::views(q, [pixels, *channels], Pixels { floats, pixel }, None, y)
            }
            Op::ChannelSum => {
                let [c, h, w] = dims(0);
                pool::channel_sum(q, [n, h * w, c], self.floats(0)?, self.floats(1)?, y)
            }
            Op::BatchMoments => {
                let [c, h, w] = dims(0);
                norm::moments(q, [n * h * w, c], self.pixels(0)?, workspace, y)
            }
            Op::Moments => {
                let (mut y, c) = (y, features(0));
                layout::copy(q, self.floats(0)?, y.reborrow().first(c))?;
                layout::copy(q, self.floats(1)?, y.behind(c))
            }
            Op::Normalise { epsilon, activation } => {
                norm::normalise(q, self.norm(*epsilon)?, self.pixels(0)?, self.floats(3)?, *activation, y)
            }
            Op::NormaliseGradWeight { epsilon } => {
                let operands = [self.floats(1)?, self.floats(2)?];
                norm::grad_weight(q, dims(0)[0], self.pixels(0)?, operands, *epsilon as f32, workspace, y)
            }
            Op::NormaliseGradInput { epsilon } => {
                let sums = [self.floats(4)?, self.floats(5)?];
                norm::grad_input(q, self.norm(*epsilon)?, self.pixels(0)?, self.floats(3)?, sums, y)
            }
            Op::Running { moment, momentum } => {
                let ((line, factor), c) = (moment.value(n), node.shape.len());
                let value = self.floats(1)?.behind(line * c).first(c);
                norm::running(q, [*momentum, factor], self.floats(0)?, value, y)
            }
            Op::Relu => pointwise::relu(q, self.floats(0)?, y),
            Op::ReluGrad => pointwise::relu_grad(q, self.floats(0)?, self.floats(1)?, y),
            Op::MaxPoolGrad { size, window } => {
                let shape = pool_shape(self.source(0), *size, *window);
                pool::max_pool_grad(q, &shape, n, self.floats(0)?, self.floats(1)?, y)
            }
            Op::GlobalAvgPool => {
                let [c, h, w] = dims(0);
                pool::global_average(q, n, h * w, c, self.floats(0)?, y)
            }
            Op::GlobalAvgPoolGrad { height, width } => {
                pool::global_average_grad(q, n, height * width, features(0), self.floats(0)?, y)
            }
            Op::ChannelMax => {
                let [c, h, w] = dims(0);
                pool::channel_max(q, n, h * w, c, self.floats(0)?, y)
            }
            Op::Reshape(_) => self.reshape(y, workspace),
            Op::Scale(factor) => pointwise::scale(q, *factor as f32, self.floats(0)?, y),
            Op::Sqrt { epsilon } => pointwise::sqrt(q, *epsilon as f32, self.floats(0)?, y),
            Op::Binary(Binary::Add) if self.view(0).is_some() || self.view(1).is_some() => {
                let [c, h, w] = dims3(&node.shape);
                let y = Pixels { floats: y, pixel: c };
                pointwise::views(q, [n * h * w, c], self.pixels(0)?, Some(self.pixels(1)?), y)
            }
            Op::Binary(binary) => pointwise::binary(q, *binary, self.floats(0)?, self.floats(1)?, y),
            Op::ReduceRows(reduction) => {
                let [c, h, w] = dims3(&node.shape);
                rows::sum_rows(q, n, [c, h * w], divisor(*reduction, n), self.floats(0)?, workspace, y)
            }
            Op::BroadcastRows(reduction) => {
                let [c, h, w] = dims3(&node.shape);
                rows::broadcast_rows(q, n, [c, h * w], divisor(*reduction, n), self.floats(0)?, y)
            }
            Op::CrossEntropy => loss::cross_entropy(q, features(0), self.floats(0)?, self.indices(1)?, y),
            Op::CrossEntropyGrad => {
                let (x, label, g) = (self.floats(0)?, self.indices(1)?, self.floats(2)?);
                loss::cross_entropy_grad(q, features(0), x, label, g, y)
            }
            Op::BinaryCrossEntropy => {
                let (x, target) = (self.floats(0)?, self.floats(1)?);
                loss::binary_cross_entropy(q, features(0), x, target, self.optional(2)?, y)
            }
            Op::BinaryCrossEntropyGrad => {
                let operands = [self.floats(0)?, self.floats(1)?, self.floats(2)?];
                loss::binary_cross_entropy_grad(q, features(0), operands, self.optional(3)?, y)
            }
            Op::Kl(head) => loss::kl(q, *head, features(0), self.floats(0)?, self.floats(1)?, y),
            Op::KlGrad(head) => {
                let operands = [self.floats(0)?, self.floats(1)?, self.floats(2)?];
                loss::kl_grad(q, *head, features(0), operands, y)
            }
            Op::MeanAbs => loss::mean_abs(q, features(0), self.floats(0)?, y),
            Op::MeanSquare => loss::mean_square(q, features(0), self.floats(0)?, y),
            Op::MeanAbsGrad => loss::mean_abs_grad(q, features(0), self.floats(0)?, self.floats(1)?, y),
            Op::MeanSquareGrad => loss::mean_square_grad(q, features(0), self.floats(0)?, self.floats(1)?, y),
            Op::TotalVariation => loss::total_variation(q, dims(0), self.floats(0)?, y),
            Op::TotalVariationGrad => loss::total_variation_grad(q, dims(0), self.floats(0)?, self.floats(1)?, y),
            Op::Intervene => {
                let [k, h, w] = dims(0);
                let list = intervene::Lists { images: self.indices(1)?, sets: self.indices(2)?, keep: self.floats(3)? };
                intervene::intervene(q, n, h * w, k, self.all(0)?, list, y)
            }
            Op::InterveneConv { pad, activation } => {
                let window = Window { stride: 1, pad: *pad };
                let shape = ConvShape::new(&self.source(1).shape, &self.source(2).shape, window);
                let list = intervene::Lists { images: self.indices(3)?, sets: self.indices(4)?, keep: self.floats(5)? };
                let weight = self.packed(2, Layout::exact(Order::Forward))?.floats;
                intervene::intervene_conv(q, &shape, n, self.all(0)?, self.all(1)?, weight, list, *activation, y)
            }
            Op::Effects(head) => {
                effect::effects(q, *head, features(0), self.floats(0)?, self.all(1)?, self.indices(2)?, y)
            }
            Op::WeightedEffect(head) => {
                effect::weighted_effect(q, *head, features(0), self.floats(0)?, self.all(1)?, self.indices(2)?, y)
            }
            Op::SignStep => {
                let (x, g, x0, limits) = (self.floats(0)?, self.floats(1)?, self.floats(2)?, self.floats(3)?);
                attack::sign_step(q, x, g, x0, limits, y)
            }
            Op::AdamMean { beta } => optimizer::adam_mean(q, *beta, self.floats(0)?, self.floats(1)?, y),
            Op::AdamSquare { beta } => optimizer::adam_square(q, *beta, self.floats(0)?, self.floats(1)?, y),
            Op::AdamStep { epsilon } => {
                let (p, m, v, rate) = (self.floats(0)?, self.floats(1)?, self.floats(2)?, self.floats(3)?);
                optimizer::adam_step(q, *epsilon, p, m, v, rate, y)
            }
        }
    }

    /// The logical order is C, H, W; in memory maps are H, W, C, so a map that becomes a row (or the reverse) is transposed.
    fn reshape(&self, y: FloatsMut<'_>, mut workspace: FloatsMut<'_>) -> Result<(), BackendError> {
        let (q, n, x) = (self.queue, self.rows, self.floats(0)?);
        let (from, to) = (&self.source(0).shape, &self.node.shape);
        let plane = |shape| {
            let [c, h, w] = dims3(shape);
            [c, h * w]
        };
        match (is_map(self.node, from), is_map(self.node, to)) {
            (true, false) => layout::to_logical(q, n, plane(from), x, y),
            (false, true) => layout::to_channels_last(q, n, plane(to), x, y),
            (true, true) if from != to => {
                layout::to_logical(q, n, plane(from), x, workspace.reborrow().first(x.len()))?;
                layout::to_channels_last(q, n, plane(to), workspace.as_floats().first(x.len()), y)
            }
            (true, true) | (false, false) => layout::copy(q, x, y),
        }
    }
}

/// What one call of a launcher does.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// A step.
    Step(NodeId),
    /// All of an optimiser's steps that stand together.
    Adam(Adam),
}

/// Adam on several parameters.
#[derive(Clone, Debug)]
pub(super) struct Adam {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub rate: NodeId,
    pub tensors: Vec<AdamSteps>,
}

/// The three steps of one parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdamSteps {
    pub mean: NodeId,
    pub square: NodeId,
    pub step: NodeId,
}

/// The steps of an entry as actions: runs of Adam's steps become one.
pub(super) fn actions(graph: &Graph, steps: &[NodeId]) -> Vec<Action> {
    let is_adam =
        |id: &NodeId| matches!(graph.node(*id).op, Op::AdamMean { .. } | Op::AdamSquare { .. } | Op::AdamStep { .. });
    let mut actions = Vec::with_capacity(steps.len());
    for run in steps.chunk_by(|a, b| is_adam(a) == is_adam(b)) {
        match run.first().filter(|id| is_adam(id)).and_then(|_| adam(graph, run)) {
            Some(adam) => actions.push(Action::Adam(adam)),
            None => actions.extend(run.iter().map(|&id| Action::Step(id))),
        }
    }
    actions
}

/// A run of Adam's steps as whole triples with the same constants; `None` for anything else, which is run step by step.
/// Nothing stands between them, so no slot that the first reads is taken before the last.
fn adam(graph: &Graph, run: &[NodeId]) -> Option<Adam> {
    let mut found: Option<Adam> = None;
    let mut taken = 0;
    for &step in run {
        let Op::AdamStep { epsilon } = graph.node(step).op else { continue };
        let [_, mean, square, rate] = graph.node(step).inputs[..] else { return None };
        let (Op::AdamMean { beta: beta1 }, Op::AdamSquare { beta: beta2 }) =
            (&graph.node(mean).op, &graph.node(square).op)
        else {
            return None;
        };
        let one = Adam { beta1: *beta1, beta2: *beta2, epsilon, rate, tensors: Vec::new() };
        let all = found.get_or_insert(one);
        let alike = (all.beta1, all.beta2, all.epsilon, all.rate) == (*beta1, *beta2, epsilon, rate);
        let same_gradient = graph.node(mean).inputs[1] == graph.node(square).inputs[1];
        if !alike || !same_gradient || !run.contains(&mean) || !run.contains(&square) {
            return None;
        }
        all.tensors.push(AdamSteps { mean, square, step });
        taken += 3;
    }
    found.filter(|_| taken == run.len())
}

/// A linear layer is a 1x1 convolution of an image of one pixel.
fn linear_shape(inputs: usize, outputs: usize) -> ConvShape {
    ConvShape { c: inputs, h: 1, w: 1, o: outputs, kh: 1, kw: 1, stride: 1, pad: 0 }
}

fn spans(node: &Node, averaging: Averaging, h: usize, w: usize) -> Result<[Spans; 2], BackendError> {
    averaging.spans(h, w).ok_or_else(|| inconsistent(node, "its cells do not fit".into()))
}

/// Whether some kernel does this prologue as it reads: only those in fp32 that take whole quads of channels.
fn fuses_prologue(shape: &ConvShape, x: Option<View>, arithmetic: Arithmetic) -> bool {
    let quads = |v: View| v.first.is_multiple_of(4) && v.pixel.is_multiple_of(4);
    arithmetic.precision() == Precision::Fp32 && shape.c.is_multiple_of(4) && x.is_none_or(quads)
}

/// How a convolution's weight is packed; `prologue` where one is done as the kernel reads.
fn conv_layout(shape: &ConvShape, prologue: bool, arithmetic: Arithmetic) -> Layout {
    if prologue { Layout::exact(Order::Forward) } else { Layout::forward(shape, arithmetic) }
}

/// A convolution's shape, and whether its prologue is done as its kernel reads or before, if it has one.
fn prologue_of(
    node: &Node,
    inputs: &[&Node],
    x: Option<View>,
    arithmetic: Arithmetic,
) -> Option<(ConvShape, Option<Fusion>)> {
    let Op::Conv2d { window, prologue, .. } = node.op else { return None };
    let shape = ConvShape::new(&inputs[0].shape, &inputs[1].shape, window);
    let fusion = match prologue {
        Prologue::None => None,
        Prologue::AffineRelu if fuses_prologue(&shape, x, arithmetic) => Some(Fusion::AsRead),
        Prologue::AffineRelu => Some(Fusion::Before),
    };
    Some((shape, fusion))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fusion {
    AsRead,
    Before,
}

fn pool_shape(x: &Node, size: usize, window: Window) -> PoolShape {
    let [c, h, w] = dims3(&x.shape);
    PoolShape { c, h, w, k: size, stride: window.stride, pad: window.pad }
}

/// Which input of `node` is a weight that its kernel wants packed, how, for which convolution.
/// `x` is the window in which the first input lies.
pub(super) fn packing(
    node: &Node,
    inputs: &[&Node],
    x: Option<View>,
    arithmetic: Arithmetic,
) -> Option<(usize, Layout, ConvShape)> {
    if let Some((shape, fusion)) = prologue_of(node, inputs, x, arithmetic) {
        return Some((1, conv_layout(&shape, fusion == Some(Fusion::AsRead), arithmetic), shape));
    }
    let layer = |order, shape: ConvShape| Some((1, Layout::new(&shape, order, arithmetic.precision()), shape));
    let linear = |w: &Node| linear_shape(w.shape.len() / w.shape.dims()[0].max(1), w.shape.dims()[0]);
    match &node.op {
        Op::Conv2dGradInput { window, .. } => {
            layer(Order::GradInput, ConvShape::new(&node.shape, &inputs[1].shape, *window))
        }
        Op::Linear { .. } => layer(Order::Forward, linear(inputs[1])),
        Op::LinearGradInput => layer(Order::GradInput, linear(inputs[1])),
        Op::InterveneConv { pad, .. } => {
            let window = Window { stride: 1, pad: *pad };
            let shape = ConvShape::new(&inputs[1].shape, &inputs[2].shape, window);
            Some((2, Layout::exact(Order::Forward), shape))
        }
        // no other kernel reads a weight in an order of its own
        _ => None,
    }
}

/// Floats of scratch memory that a step needs for so many rows.
pub(super) fn workspace_len(
    node: &Node,
    inputs: &[&Node],
    x: Option<View>,
    rows: usize,
    arithmetic: Arithmetic,
) -> usize {
    if let Some((shape, fusion)) = prologue_of(node, inputs, x, arithmetic) {
        let layout = conv_layout(&shape, fusion == Some(Fusion::AsRead), arithmetic);
        let tiles = layout.winograd.map_or(0, |tiles| tiles.workspace(&shape, rows));
        return if fusion == Some(Fusion::Before) { tiles.max(rows.saturating_mul(shape.x_len())) } else { tiles };
    }
    match &node.op {
        Op::Conv2dGradWeight { window, .. } => {
            conv::grad_weight_workspace(&ConvShape::new(&inputs[0].shape, &node.shape, *window), rows)
        }
        Op::LinearGradWeight => {
            conv::grad_weight_workspace(&linear_shape(inputs[0].shape.len(), inputs[1].shape.len()), rows)
        }
        Op::SumToChannels => {
            let [c, h, w] = dims3(&inputs[0].shape);
            rows::sum_to_channels_workspace(rows * h * w, c)
        }
        Op::BatchMoments => {
            let [c, h, w] = dims3(&inputs[0].shape);
            norm::moments_workspace(rows * h * w, c)
        }
        Op::NormaliseGradWeight { .. } => {
            let [c, h, w] = dims3(&inputs[0].shape);
            norm::grad_weight_workspace(rows * h * w, c)
        }
        Op::ReduceRows(_) => rows::sum_rows_workspace(rows, node.shape.len()),
        Op::Reshape(_) => rows * node.shape.len(),
        // no other step uses any
        _ => 0,
    }
}
