//! The CPU device: each step of a planned graph onto a kernel, convolutions' weights packed once and again when they change.
//!
//! Values with a C x H x W row are dense NHWC in their slot, the rest as they are. Threads are rayon's current pool.

use super::gemm::Source;
use super::intervene::{ChannelWeights, DecoderShape, Rows};
use super::isa::Isa;
use super::linear::Layer;
use super::packed::Packed;
use super::path::{self, Path};
use super::pointwise::AdamRate;
use super::rows::Map;
use super::winograd::{self, Transformed};
use super::{conv, conv_weight, intervene, linear, norm, pointwise, pool, rows};
use crate::answer::Head;
use crate::backend::host::{Engine, HostProgram, Step};
use crate::backend::layout::{ConvShape, PoolShape, dims3, divisor, is_map};
use crate::backend::ledger::inconsistent;
use crate::backend::winograd::Winograd;
use crate::backend::{Backend, BackendError, ConvPath, Details, Parameters, Profile, Program};
use crate::graph::op::{Averaging, Binary, Op, Spans, Window};
use crate::graph::plan::{Artifact, Footprint};
use crate::graph::{Extent, Node, NodeId};
use crate::tensor::Shape;
use crate::weights::Held;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// The CPU backend with the best instruction set of this machine.
#[derive(Clone, Debug)]
pub struct Cpu {
    isa: Isa,
    conv: ConvPath,
    profile: Option<Arc<Profile>>,
}

impl Cpu {
    /// The best instruction set that the machine has.
    pub fn new() -> Cpu {
        Cpu::with_isa(Isa::detect())
    }

    /// A given instruction set (tests run all of them).
    pub fn with_isa(isa: Isa) -> Cpu {
        Cpu { isa, conv: ConvPath::Winograd, profile: None }
    }

    /// With 3x3 convolutions along that path, forward and towards the input; by Winograd's tiles where nothing is said.
    pub fn with_conv(self, conv: ConvPath) -> Cpu {
        Cpu { conv, ..self }
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for Cpu {
    fn name(&self) -> String {
        match self.conv {
            // as on CUDA, and as runs are named that were made before there were tiles
            ConvPath::Exact => format!("cpu ({})", self.isa.name()),
            ConvPath::Winograd => format!("cpu ({}, {})", self.isa.name(), self.conv.name()),
        }
    }

    fn details(&self) -> Details {
        Details { conv: self.conv, ..Details::default() }
    }

    fn profiled(&self, profile: Arc<Profile>) -> Option<Box<dyn Backend>> {
        Some(Box::new(Cpu { profile: Some(profile), ..self.clone() }))
    }

    /// As many as stay within the caches: of the Fashion net at tap 2, 64 variants in 32 MB. A row of a large network never does;
    /// there rows share one reading of the weights, until a reading takes no more than a row does, and as far as 256 MB go: 10 of
    /// VGG's with its half a gigabyte. But 16 of them, of which threads take some each, for they meet at a batch's end: of
    /// DenseNet-121, whose sweep of 2 images took .219 s so, .222 at 8 variants a batch, .228 at 4 and .26 at 2.
    fn batch_rows(&self, footprint: Footprint) -> usize {
        let row = footprint.row.max(1);
        let sharing = footprint.weights.div_ceil(row).max(16).min((256 << 20) / row).min(32);
        ((32 << 20) / row).max(sharing).max(1)
    }

    fn load(&self, plan: Artifact, weights: &dyn Parameters) -> Result<Box<dyn Program>, BackendError> {
        let simd = Simd { isa: self.isa, conv: self.conv, packed: HashMap::new() };
        Ok(Box::new(HostProgram::load(plan, weights, simd)?.profiled(self.profile.clone())))
    }
}

/// Floats of weights, 4 MB, up to which a thread takes a step alone.
const ALONE: usize = 1 << 20;

/// Floats between steps of a stretch, 8 MB: an image of DenseNet-121.
const NEAR: usize = 2 << 20;

/// Which order a weight is packed in.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Order {
    Forward,
    GradInput,
    Channels,
}

/// Which of `node`'s inputs is a weight that it reads packed, and in which order.
fn weight_of(node: &Node) -> Option<(usize, Order)> {
    match node.op {
        Op::Conv2d { .. } => Some((1, Order::Forward)),
        Op::Conv2dGradInput { .. } => Some((1, Order::GradInput)),
        Op::InterveneConv { .. } => Some((2, Order::Channels)),
        _ => None,
    }
}

/// The shape of a convolution or its input gradient at `node`, whose inputs are `nodes`, and its path.
fn conv_path(node: &Node, nodes: &[&Node], conv: ConvPath) -> Option<(ConvShape, Path)> {
    match node.op {
        Op::Conv2d { window, .. } => {
            let shape = ConvShape::new(&nodes[0].shape, &nodes[1].shape, window);
            Some((shape, path::forward(&shape, conv)))
        }
        Op::Conv2dGradInput { window, .. } => {
            let shape = ConvShape::new(&node.shape, &nodes[1].shape, window);
            Some((shape, path::grad_input(&shape, conv)))
        }
        _ => None,
    }
}

/// Whether an input gradient by these tiles reads the weights of the forward pass.
fn reads_forward(shape: &ConvShape, tiles: Winograd, conv: ConvPath) -> bool {
    winograd::serves_both(tiles, shape) && path::forward(shape, conv) == Path::Winograd(tiles)
}

fn decoder_shape(nodes: &[&Node], pad: usize) -> DecoderShape {
    let c = ConvShape::new(&nodes[1].shape, &nodes[2].shape, Window { stride: 1, pad });
    DecoderShape { k: c.c, h: c.h, w: c.w, o: c.o, kh: c.kh, kw: c.kw, pad }
}

enum Pack {
    Tiles(Packed),
    Transformed(Transformed),
    Channels(ChannelWeights),
}

struct Simd {
    isa: Isa,
    conv: ConvPath,
    packed: HashMap<(NodeId, Order), Pack>,
}

fn map(shape: &Shape) -> Map {
    let [c, h, w] = dims3(shape);
    Map { h, w, c }
}

impl Simd {
    /// Packs the weight of `node`, whose inputs are `nodes`.
    fn pack(&self, node: &Node, nodes: &[&Node], w: &[f32]) -> Option<Pack> {
        let isa = self.isa;
        Some(match (&node.op, conv_path(node, nodes, self.conv)) {
            (op, Some((shape, Path::Winograd(tiles))))
                if matches!(op, Op::Conv2d { .. }) || reads_forward(&shape, tiles, self.conv) =>
            {
                Pack::Transformed(Transformed::forward(isa, tiles, &shape, w))
            }
            (Op::Conv2d { .. }, Some((shape, _))) => Pack::Tiles(conv::pack_forward(isa, &shape, w)),
            (Op::Conv2dGradInput { .. }, Some((shape, Path::Winograd(tiles)))) => {
                Pack::Transformed(Transformed::grad_input(isa, tiles, &shape, w))
            }
            (Op::Conv2dGradInput { .. }, Some((shape, _))) => Pack::Tiles(conv::pack_grad_input(isa, &shape, w)),
            (Op::InterveneConv { pad, .. }, _) => {
                let shape = decoder_shape(nodes, *pad);
                Pack::Channels(intervene::pack_channels(isa, &shape, w))
            }
            _ => return None,
        })
    }

    /// Where the step's weight is packed.
    fn key(&self, s: &Step<'_, f32>) -> Option<(usize, (NodeId, Order))> {
        let (i, mut order) = weight_of(s.node)?;
        if let Some((shape, Path::Winograd(tiles))) = conv_path(s.node, &s.nodes, self.conv)
            && reads_forward(&shape, tiles, self.conv)
        {
            order = Order::Forward;
        }
        Some((i, (s.node.inputs[i], order)))
    }

    /// The step's weight.
    fn packed(&self, s: &Step<'_, f32>) -> Result<&Pack, BackendError> {
        self.key(s).and_then(|(_, key)| self.packed.get(&key)).ok_or_else(|| wrong_pack(s.node))
    }
}

fn wrong_pack(node: &Node) -> BackendError {
    BackendError::Inconsistent { node: node.name.clone(), reason: "its weight is packed for another op".into() }
}

/// `keep` as the kernels take it.
fn mask(keep: &[f32]) -> Vec<u8> {
    keep.iter().map(|&k| u8::from(k != 0.0)).collect()
}

impl Engine for Simd {
    type Float = f32;

    fn store(&self, node: &Node, rows: usize, logical: &[f32], physical: &mut [f32]) {
        if !is_map(node, &node.shape) {
            return physical.copy_from_slice(logical);
        }
        let [c, h, w] = dims3(&node.shape);
        pointwise::nchw_to_nhwc(rows, c, h * w, logical, physical);
    }

    fn fetch(&self, node: &Node, rows: usize, physical: &[f32], logical: &mut [f32]) {
        if !is_map(node, &node.shape) {
            return logical.copy_from_slice(physical);
        }
        let [c, h, w] = dims3(&node.shape);
        pointwise::nhwc_to_nchw(rows, c, h * w, physical, logical);
    }

    /// What every step reads packed and nothing else looks at.
    fn keeps(&self, artifact: &Artifact, parameter: NodeId) -> bool {
        let graph = artifact.graph();
        let packed_by = |id: NodeId| {
            let node = graph.node(id);
            let weight = weight_of(node).map(|(i, _)| i);
            node.inputs.iter().enumerate().all(|(i, &input)| input != parameter || Some(i) == weight)
        };
        let steps = || artifact.entries().iter().flat_map(|entry| &entry.steps);
        // from that order it can be read again
        let forward = |&id: &NodeId| {
            let node = graph.node(id);
            let nodes: Vec<&Node> = node.inputs.iter().map(|&input| graph.node(input)).collect();
            // transformed weights cannot be turned back
            let transformed = matches!(conv_path(node, &nodes, self.conv), Some((_, Path::Winograd(_))));
            !transformed
                && weight_of(node).is_some_and(|(i, order)| order == Order::Forward && node.inputs[i] == parameter)
        };
        steps().any(forward)
            && artifact
                .entries()
                .iter()
                .all(|entry| !entry.want.contains(&parameter) && entry.steps.iter().all(|&id| packed_by(id)))
    }

    /// In the order of the forward pass; an input gradient's is made of it when one is asked for.
    fn keep(&mut self, artifact: &Artifact, parameter: NodeId, logical: &[f32]) {
        self.parameter_changed(parameter);
        let graph = artifact.graph();
        let reader = artifact.entries().iter().flat_map(|entry| &entry.steps).map(|&id| graph.node(id)).find(|node| {
            weight_of(node).is_some_and(|(i, order)| order == Order::Forward && node.inputs[i] == parameter)
        });
        let made = reader.and_then(|node| {
            let nodes: Vec<&Node> = node.inputs.iter().map(|&input| graph.node(input)).collect();
            self.pack(node, &nodes, logical)
        });
        self.packed.extend(made.map(|made| ((parameter, Order::Forward), made)));
    }

    fn kept(&self, parameter: NodeId, logical: &mut [f32]) {
        let Some(Pack::Tiles(packed)) = self.packed.get(&(parameter, Order::Forward)) else { return };
        let (taps, channels) = (packed.taps(), packed.channels());
        logical.par_iter_mut().enumerate().for_each(|(i, value)| {
            *value = packed.weight(i / taps / channels, i % taps, i / taps % channels);
        });
    }

    fn parameter_changed(&mut self, node: NodeId) {
        for order in [Order::Forward, Order::GradInput, Order::Channels] {
            self.packed.remove(&(node, order));
        }
    }

    fn way(&self, s: &Step<'_, f32>) -> Option<&'static str> {
        let path = match &s.node.op {
            Op::Conv2d { .. } | Op::Conv2dGradInput { .. } => conv_path(s.node, &s.nodes, self.conv)?.1,
            Op::Conv2dGradWeight { window, .. } => {
                path::grad_weight(&ConvShape::new(&s.nodes[0].shape, &s.node.shape, *window))
            }
            Op::Linear { .. } | Op::LinearGradInput | Op::LinearGradWeight => Path::Linear,
            Op::InterveneConv { .. } => Path::Update,
            _ => return None,
        };
        Some(path.name())
    }

    /// Rows of their own where threads share little: weights that stay in a core's L2 cache while a few images pass.
    fn alone(&self, node: &Node, inputs: &[&Node]) -> bool {
        let weights = inputs.iter().filter(|input| input.extent == Extent::Whole).map(|input| input.shape.len());
        let factor = match conv_path(node, inputs, self.conv) {
            Some((_, Path::Winograd(tiles))) => tiles.products().div_ceil(9),
            _ => 1,
        };
        factor * weights.sum::<usize>() <= ALONE
    }

    fn near(&self) -> usize {
        NEAR
    }

    /// Packs the step's weight; parameters are packed once, other nodes each time.
    fn prepare(&mut self, s: &Step<'_, f32>) -> Result<(), BackendError> {
        let Some((i, key)) = self.key(s) else { return Ok(()) };
        if s.nodes[i].op != Op::Parameter {
            self.packed.remove(&key);
        }
        if !self.packed.contains_key(&key) {
            // a weight that no slot holds is kept in another order
            let kept = s.floats(i).is_empty().then(|| {
                let mut logical = vec![0.0; s.nodes[i].shape.len()];
                self.kept(key.0, &mut logical);
                logical
            });
            let made = self.pack(s.node, &s.nodes, kept.as_deref().unwrap_or(s.floats(i)));
            self.packed.extend(made.map(|made| (key, made)));
            s.inputs[i].held.into_iter().for_each(Held::release);
        }
        Ok(())
    }

    fn step(&self, s: &Step<'_, f32>, out: &mut [f32]) -> Result<(), BackendError> {
        let isa = self.isa;
        let n = s.rows;
        match &s.node.op {
            Op::Input(_) | Op::Parameter | Op::State => {
                let reason = "a declaration is not a step".to_string();
                return Err(BackendError::Inconsistent { node: s.node.name.clone(), reason });
            }
            Op::Conv2d { window, activation, .. } => {
                let shape = ConvShape::new(&s.nodes[0].shape, &s.nodes[1].shape, *window);
                let (x, pixel) = s.pixels(0);
                let source = Source { x, pixel, affine_relu: s.prologue() };
                match self.packed(s)? {
                    Pack::Tiles(w) => {
                        conv::forward_views(&shape, n, source, w, s.conv_bias(), *activation, out, s.pixel);
                    }
                    Pack::Transformed(u) => {
                        winograd::forward_views(
                            &shape,
                            n,
                            source,
                            s.floats(1),
                            u,
                            s.conv_bias(),
                            *activation,
                            out,
                            s.pixel,
                        );
                    }
                    Pack::Channels(_) => return Err(wrong_pack(s.node)),
                }
            }
            Op::Conv2dGradInput { window, .. } => {
                let shape = ConvShape::new(&s.node.shape, &s.nodes[1].shape, *window);
                match self.packed(s)? {
                    Pack::Tiles(w) => conv::grad_input(&shape, n, s.floats(0), w, out),
                    Pack::Transformed(u) => winograd::grad_input(&shape, n, s.floats(0), u, out),
                    Pack::Channels(_) => return Err(wrong_pack(s.node)),
                }
            }
            Op::Conv2dGradWeight { window, .. } => {
                let shape = ConvShape::new(&s.nodes[0].shape, &s.node.shape, *window);
                conv_weight::grad_weight(isa, &shape, n, s.floats(0), s.floats(1), out);
            }
            Op::Linear { activation } => {
                let (inputs, outputs) = (s.nodes[0].shape.len(), s.node.shape.len());
                let layer = Layer { isa, outputs, inputs, w: s.floats(1) };
                linear::forward(layer, n, s.floats(0), s.optional(2), *activation, out);
            }
            Op::LinearGradInput => {
                let (inputs, outputs) = (s.node.shape.len(), s.nodes[0].shape.len());
                linear::grad_input(Layer { isa, outputs, inputs, w: s.floats(1) }, n, s.floats(0), out);
            }
            Op::LinearGradWeight => {
                let (i, o) = (s.nodes[0].shape.len(), s.nodes[1].shape.len());
                linear::grad_weight(isa, n, o, i, s.floats(0), s.floats(1), out);
            }
            Op::SumToChannels => {
                let [_, h, w] = dims3(&s.nodes[0].shape);
                conv_weight::grad_bias(isa, n * h * w, s.floats(0), out);
            }
            Op::Affine { activation } => {
                pointwise::affine(isa, s.pixels(0), s.floats(1), s.optional(2), *activation, out);
            }
            Op::BatchMoments => {
                let [_, h, w] = dims3(&s.nodes[0].shape);
                norm::moments(isa, n * h * w, s.pixels(0), out);
            }
            Op::Moments => {
                let (mean, variance) = out.split_at_mut(s.floats(0).len());
                mean.copy_from_slice(s.floats(0));
                variance.copy_from_slice(s.floats(1));
            }
            Op::Normalise { epsilon, activation } => {
                let (moments, affine) = (s.floats(1), [s.floats(2), s.floats(3)]);
                norm::normalise(isa, s.pixels(0), moments, *epsilon as f32, affine, *activation, out);
            }
            Op::NormaliseGradWeight { epsilon } => {
                norm::grad_weight(isa, s.pixels(0), s.floats(1), *epsilon as f32, s.floats(2), out);
            }
            Op::NormaliseGradInput { epsilon } => {
                let (moments, gy) = (s.floats(1), s.floats(3));
                let channels = [s.floats(2), s.floats(4), s.floats(5)];
                norm::grad_input(isa, s.pixels(0), moments, *epsilon as f32, gy, channels, out);
            }
            Op::Running { moment, momentum } => {
                let (line, factor) = moment.value(n);
                let c = s.node.shape.len();
                norm::running(*momentum, factor, s.floats(0), &s.floats(1)[line * c..][..c], out);
            }
            Op::Relu => pointwise::relu(isa, s.floats(0), out),
            Op::ReluGrad => pointwise::relu_grad(isa, s.floats(0), s.floats(1), out),
            Op::MaxPool { size, window } => {
                let shape = pool_shape(&s.nodes[0].shape, *size, *window);
                pool::max_pool(isa, &shape, n, s.floats(0), out, s.pixel);
            }
            Op::MaxPoolGrad { size, window } => {
                let shape = pool_shape(&s.nodes[0].shape, *size, *window);
                pool::max_pool_grad(isa, &shape, n, s.floats(0), s.floats(1), out);
            }
            Op::AvgPool(averaging) => {
                let [c, h, w] = dims3(&s.nodes[0].shape);
                pool::average(isa, spans(s.node, *averaging, h, w)?, c, n, s.floats(0), out, s.pixel);
            }
            Op::AvgPoolGrad { averaging, height, width } => {
                let [c, _, _] = dims3(&s.node.shape);
                pool::average_grad(isa, spans(s.node, *averaging, *height, *width)?, c, n, s.floats(0), out);
            }
            Op::Concat => {
                let mut first = 0;
                for (i, source) in s.nodes[..2].iter().enumerate() {
                    let channels = dims3(&source.shape)[0];
                    // nothing where it lies in place
                    if s.inputs[i].row > 0 {
                        pointwise::copy_views(isa, channels, s.pixels(i), (&mut out[first..], s.pixel));
                    }
                    first += channels;
                }
            }
            Op::Slice { first, channels } => {
                let (x, pixel) = s.pixels(0);
                pointwise::copy_views(isa, *channels, (&x[*first..], pixel), (out, s.pixel));
            }
            Op::ChannelSum => {
                let [c, _, _] = dims3(&s.nodes[0].shape);
                rows::channel_sum(isa, c, s.floats(0), s.floats(1), out);
            }
            Op::GlobalAvgPool => {
                let [c, h, w] = dims3(&s.nodes[0].shape);
                pool::global_average(isa, n, h * w, c, s.floats(0), out);
            }
            Op::GlobalAvgPoolGrad { height, width } => {
                pool::global_average_grad(isa, n, height * width, s.nodes[0].shape.len(), s.floats(0), out);
            }
            Op::ChannelMax => rows::channel_max(isa, map(&s.nodes[0].shape), s.floats(0), out),
            Op::Reshape(_) => reshape(s, out),
            Op::Scale(factor) => pointwise::scale(isa, s.floats(0), *factor as f32, out),
            Op::Sqrt { epsilon } => {
                let epsilon = *epsilon as f32;
                out.iter_mut().zip(s.floats(0)).for_each(|(o, &x)| *o = (x + epsilon).sqrt());
            }
            Op::Binary(Binary::Add) => {
                let [c, _, _] = dims3(&s.node.shape);
                pointwise::add_views(isa, c, s.pixels(0), s.pixels(1), out);
            }
            Op::Binary(binary) => {
                let (a, b) = (s.floats(0), s.floats(1));
                match binary {
                    Binary::Add => pointwise::add(isa, a, b, out),
                    Binary::Sub => pointwise::sub(isa, a, b, out),
                    Binary::Mul => pointwise::mul(isa, a, b, out),
                    Binary::Div => pointwise::div(isa, a, b, out),
                }
            }
            // what has no rows lies in logical order, so a sum over maps is transposed once
            Op::ReduceRows(r) => {
                let [c, h, w] = dims3(&s.node.shape);
                let mut sum = vec![0.0; out.len()];
                rows::reduce_rows(out.len(), divisor(*r, n), s.floats(0), &mut sum);
                pointwise::nhwc_to_nchw(1, c, h * w, &sum, out);
            }
            Op::BroadcastRows(r) => {
                let [c, h, w] = dims3(&s.node.shape);
                let mut row = vec![0.0; s.node.shape.len()];
                pointwise::nchw_to_nhwc(1, c, h * w, s.floats(0), &mut row);
                rows::broadcast_rows(divisor(*r, s.all_rows), &row, out);
            }
            Op::CrossEntropy => {
                let k = s.nodes[0].shape.len();
                rows::cross_entropy(k, s.floats(0), s.indices(1), out);
            }
            Op::CrossEntropyGrad => {
                let k = s.node.shape.len();
                rows::cross_entropy_grad(k, s.floats(0), s.indices(1), s.floats(2), out);
            }
            Op::BinaryCrossEntropy => {
                rows::binary_cross_entropy(s.nodes[0].shape.len(), s.floats(0), s.floats(1), s.optional(2), out);
            }
            Op::BinaryCrossEntropyGrad => {
                let (x, target, g) = (s.floats(0), s.floats(1), s.floats(2));
                rows::binary_cross_entropy_grad(s.node.shape.len(), x, target, g, s.optional(3), out);
            }
            Op::Kl(head) => {
                let kl = if *head == Head::Softmax { rows::softmax_kl } else { rows::sigmoid_kl };
                kl(s.nodes[0].shape.len(), s.floats(0), s.floats(1), out);
            }
            Op::KlGrad(head) => {
                let grad = if *head == Head::Softmax { rows::softmax_kl_grad } else { rows::sigmoid_kl_grad };
                grad(s.node.shape.len(), s.floats(0), s.floats(1), s.floats(2), out);
            }
            Op::MeanAbs => rows::mean_abs(isa, s.nodes[0].shape.len(), s.floats(0), out),
            Op::MeanSquare => rows::mean_square(isa, s.nodes[0].shape.len(), s.floats(0), out),
            Op::MeanAbsGrad => rows::mean_abs_grad(isa, s.node.shape.len(), s.floats(0), s.floats(1), out),
            Op::MeanSquareGrad => rows::mean_square_grad(isa, s.node.shape.len(), s.floats(0), s.floats(1), out),
            Op::TotalVariation => rows::total_variation(isa, map(&s.nodes[0].shape), s.floats(0), out),
            Op::TotalVariationGrad => {
                rows::total_variation_grad(isa, map(&s.node.shape), s.floats(0), s.floats(1), out);
            }
            Op::Intervene => {
                let [k, h, w] = dims3(&s.node.shape);
                let list = Rows { images: s.indices(1), masks: s.indices(2) };
                intervene::intervene(isa, h * w, k, s.inputs[0].floats, &mask(s.floats(3)), list, out);
            }
            Op::InterveneConv { pad, activation } => {
                let shape = decoder_shape(&s.nodes, *pad);
                let list = Rows { images: s.indices(3), masks: s.indices(4) };
                let Pack::Channels(weights) = self.packed(s)? else {
                    return Err(wrong_pack(s.node));
                };
                let (pre, z, keep) = (s.inputs[0].floats, s.inputs[1].floats, mask(s.floats(5)));
                intervene::intervene_conv(&shape, z, pre, weights, &keep, list, *activation, out);
            }
            Op::Effects(head) => {
                rows::effects(*head, s.nodes[0].shape.len(), s.floats(0), s.inputs[1].floats, s.indices(2), out)
            }
            Op::WeightedEffect(head) => {
                rows::weighted_effect(
                    *head,
                    s.nodes[0].shape.len(),
                    s.floats(0),
                    s.inputs[1].floats,
                    s.indices(2),
                    out,
                );
            }
            Op::SignStep => {
                let limits = s.floats(3);
                pointwise::sign_step(isa, s.floats(0), s.floats(1), s.floats(2), limits[0], limits[1], out);
            }
            Op::AdamMean { beta } => pointwise::adam_mean(isa, *beta, s.floats(0), s.floats(1), out),
            Op::AdamSquare { beta } => pointwise::adam_square(isa, *beta, s.floats(0), s.floats(1), out),
            Op::AdamStep { epsilon } => {
                let rate = s.floats(3);
                let rate = AdamRate {
                    learning_rate: rate[0],
                    correction_mean: rate[1],
                    correction_square: rate[2],
                    epsilon: *epsilon as f32,
                };
                pointwise::adam_step(isa, rate, s.floats(0), s.floats(1), s.floats(2), out);
            }
        }
        Ok(())
    }
}

fn spans(node: &Node, averaging: Averaging, h: usize, w: usize) -> Result<[Spans; 2], BackendError> {
    averaging.spans(h, w).ok_or_else(|| inconsistent(node, "its cells do not fit".into()))
}

fn pool_shape(x: &Shape, size: usize, window: Window) -> PoolShape {
    let [c, h, w] = dims3(x);
    PoolShape { c, h, w, k: size, stride: window.stride, pad: window.pad }
}

/// The logical order is C, H, W; in memory maps are H, W, C, so a map that becomes a row (or the reverse) is transposed.
fn reshape(s: &Step<'_, f32>, out: &mut [f32]) {
    let (from, to) = (&s.nodes[0].shape, &s.node.shape);
    match (is_map(s.node, from), is_map(s.node, to)) {
        (true, false) => {
            let [c, h, w] = dims3(from);
            pointwise::nhwc_to_nchw(s.rows, c, h * w, s.floats(0), out);
        }
        (false, true) => {
            let [c, h, w] = dims3(to);
            pointwise::nchw_to_nhwc(s.rows, c, h * w, s.floats(0), out);
        }
        (true, true) if from != to => {
            let ([c, h, w], [c2, h2, w2]) = (dims3(from), dims3(to));
            let mut logical = vec![0.0; out.len()];
            pointwise::nhwc_to_nchw(s.rows, c, h * w, s.floats(0), &mut logical);
            pointwise::nchw_to_nhwc(s.rows, c2, h2 * w2, &logical, out);
        }
        (true, true) | (false, false) => out.copy_from_slice(s.floats(0)),
    }
}
