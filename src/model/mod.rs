//! Networks as lists of named layers, built into graphs; taps; the autoencoder that is spliced in at one.
//!
//! A model follows torchvision: `features` is a list of children, the head comes after it. A tap is a place behind a
//! child of `features`, told by the number of children kept in front of it or by the name of the last of them. Names of
//! weights are torchvision's. Used by training, sweeps, attacks and `inspect`; knows no backend.

pub mod autoencoder;
mod chain;
pub mod densenet;
pub mod small;
pub mod vgg;

pub use crate::answer::Head;
pub use chain::{Dropout, Learnt, Mode, Statistic};

use crate::graph::op::{Activation, Averaging, Op, Window, window_positions};
use crate::graph::{Graph, GraphError, NodeId};
use crate::random::Stream;
use crate::tensor::{Shape, Tensor};
use crate::text::closest;
use crate::weights::derived::{Derived, Recipe};
use chain::chain;

/// One layer.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    /// Square convolution.
    Conv {
        /// Output channels.
        channels: usize,
        /// Side of the kernel.
        kernel: usize,
        /// Stride and padding.
        window: Window,
        /// Whether it has one.
        bias: bool,
    },
    /// Batch norm a channel. In inference its statistics are constants.
    BatchNorm,
    /// max(0, x).
    Relu,
    /// Square max-pool.
    MaxPool {
        /// Side of the window.
        size: usize,
        /// Stride and padding.
        window: Window,
    },
    /// Means of windows or, adaptively, of as many cells as are wanted.
    AvgPool(Averaging),
    /// The mean of each map: C, H, W to a row of C.
    GlobalAvgPool,
    /// C, H, W order into one row.
    Flatten,
    /// Sets that share of the elements to 0 in training and nothing in inference.
    Dropout {
        /// Share.
        share: f64,
    },
    /// Fully connected with bias.
    Linear {
        /// Output features.
        features: usize,
    },
    /// Children one after the other, as one child of `features`.
    Sequence(Vec<Child>),
    /// A dense layer: what comes in, and behind its channels what the children make of it.
    Dense(Vec<Child>),
}

impl Layer {
    /// Whether it is a convolution that looks at one pixel at a time.
    fn is_pointwise(&self) -> bool {
        matches!(self, Layer::Conv { kernel: 1, window: Window { stride: 1, pad: 0 }, .. })
    }

    /// `conv 3x3, 32 channels`, as `inspect` prints it.
    pub fn describe(&self) -> String {
        match self {
            Layer::Conv { channels, kernel, window, .. } => {
                format!("conv {kernel}x{kernel} to {channels}, stride {}, pad {}", window.stride, window.pad)
            }
            Layer::BatchNorm => "batch norm".into(),
            Layer::Relu => "relu".into(),
            Layer::MaxPool { size, window } => format!("max-pool {size}x{size}, stride {}", window.stride),
            Layer::AvgPool(Averaging::Windows { size, stride }) => format!("avg-pool {size}x{size}, stride {stride}"),
            Layer::AvgPool(Averaging::Adaptive { height, width }) => format!("adaptive avg-pool to {height}x{width}"),
            Layer::GlobalAvgPool => "global avg-pool".into(),
            Layer::Flatten => "flatten".into(),
            Layer::Dropout { share } => format!("dropout {share}"),
            Layer::Linear { features } => format!("linear to {features}"),
            Layer::Sequence(children) => {
                let dense = children.iter().filter(|c| matches!(c.layer, Layer::Dense(_))).count();
                match dense {
                    0 => children.iter().map(|c| c.layer.kind()).collect::<Vec<_>>().join(", "),
                    _ => format!("{dense} dense layers"),
                }
            }
            Layer::Dense(children) => children.iter().map(|c| c.layer.kind()).collect::<Vec<_>>().join(", "),
        }
    }

    /// The first word of its description.
    fn kind(&self) -> &'static str {
        match self {
            Layer::Conv { .. } => "conv",
            Layer::BatchNorm => "norm",
            Layer::Relu => "relu",
            Layer::MaxPool { .. } => "max-pool",
            Layer::AvgPool(_) | Layer::GlobalAvgPool => "avg-pool",
            Layer::Flatten => "flatten",
            Layer::Dropout { .. } => "dropout",
            Layer::Linear { .. } => "linear",
            Layer::Sequence(_) => "sequence",
            Layer::Dense(_) => "dense layer",
        }
    }
}

/// A layer with its torchvision path (`features.0`).
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its path; weights are `<name>.weight` and so on.
    pub name: String,
    /// What it does.
    pub layer: Layer,
}

impl Child {
    /// A child of that path.
    pub fn new(name: impl Into<String>, layer: Layer) -> Child {
        Child { name: name.into(), layer }
    }
}

/// Layers as children `<prefix>.0`, `<prefix>.1` and so on.
fn named(prefix: &str, layers: Vec<Layer>) -> Vec<Child> {
    layers.into_iter().enumerate().map(|(i, layer)| Child::new(format!("{prefix}.{i}"), layer)).collect()
}

/// A layer that holds no others, where it stands in a network.
#[derive(Clone, Debug)]
pub struct Leaf<'a> {
    /// Its path and what it does.
    pub child: &'a Child,
    /// Shape of a row of its input.
    pub input: Shape,
    /// Shape of a row of its output.
    pub output: Shape,
}

impl Leaf<'_> {
    /// Multiply-adds on one image.
    pub fn macs(&self) -> u64 {
        let of = |sizes: &[usize]| sizes.iter().fold(1u64, |n, &size| n.saturating_mul(size as u64));
        match self.child.layer {
            Layer::Conv { kernel, .. } => of(&[self.output.len(), channels(&self.input), kernel, kernel]),
            Layer::Linear { features } => of(&[self.input.len(), features]),
            _ => 0,
        }
    }

    /// Key and shape of every weight, in torchvision's order.
    pub fn parameters(&self) -> Vec<(String, Shape)> {
        let named = |leaf: &str, shape: Shape| (format!("{}.{leaf}", self.child.name), shape);
        let inputs = channels(&self.input);
        match self.child.layer {
            Layer::Conv { channels, kernel, bias, .. } => {
                let mut list = vec![named("weight", Shape::from([channels, inputs, kernel, kernel]))];
                list.extend(bias.then(|| named("bias", Shape::from([channels]))));
                list
            }
            Layer::BatchNorm => {
                ["weight", "bias", "running_mean", "running_var"].map(|leaf| named(leaf, Shape::from([inputs]))).into()
            }
            Layer::Linear { features } => {
                vec![named("weight", Shape::from([features, inputs])), named("bias", Shape::from([features]))]
            }
            _ => Vec::new(),
        }
    }
}

/// The leading dimension of a row.
fn channels(shape: &Shape) -> usize {
    shape.dims().first().copied().unwrap_or(1)
}

/// A network.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// `fashion`.
    pub arch: &'static str,
    /// Channels, height, width of an image.
    pub input: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// How logits become probabilities.
    pub head: Head,
    /// Channel means in pixel units [0, 1].
    pub mean: Vec<f32>,
    /// Channel standard deviations in pixel units.
    pub std: Vec<f32>,
    /// Children of `features`: taps lie behind these.
    pub features: Vec<Child>,
    /// What follows them.
    pub classifier: Vec<Child>,
}

/// A place behind a child of `features`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Children of `features` in front of it.
    pub number: usize,
    /// Path of the last of them.
    pub name: String,
    /// Channels, height, width there.
    pub shape: [usize; 3],
    /// Whether that child is a ReLU (then an autoencoder ends in one too).
    pub after_relu: bool,
}

/// What can be wrong with a request to a model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// No such tap.
    #[error("{arch} has no tap \"{asked}\"; taps are 1 to {last} or a name such as \"{nearest}\"")]
    Tap {
        /// The network.
        arch: &'static str,
        /// What was asked for.
        asked: String,
        /// The largest number.
        last: usize,
        /// The nearest name.
        nearest: String,
    },
    /// No such network.
    #[error("there is no model \"{asked}\"; did you mean \"{nearest}\"? (known: {known})")]
    Arch {
        /// What was asked for.
        asked: String,
        /// The nearest name.
        nearest: String,
        /// All names.
        known: String,
    },
    /// Images of that size vanish on the way.
    #[error("{arch} takes no images of {height}x{width}: nothing is left of them at {layer}; the least is {least}")]
    Input {
        /// The network.
        arch: &'static str,
        /// Height asked for.
        height: usize,
        /// Width asked for.
        width: usize,
        /// Where nothing is left.
        layer: String,
        /// The least side.
        least: usize,
    },
    /// No output would be left.
    #[error("{arch} with {classes} classes has no answer to give; it takes 1 to {CLASSES_MAX}")]
    Classes {
        /// The network.
        arch: &'static str,
        /// Classes asked for.
        classes: usize,
    },
    /// The graph could not be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Names of all networks.
pub const ARCHITECTURES: [&str; 4] = ["fashion", "vgg16", "vgg19", "densenet121"];

/// Channel means of ImageNet's training images in pixel units.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Channel standard deviations.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Most classes of a network; the largest published heads have some 20,000.
const CLASSES_MAX: usize = 1 << 20;

impl Model {
    /// The network of that name with its usual input size and classes.
    ///
    /// # Errors
    /// [`ModelError::Arch`] with the nearest name.
    pub fn named(name: &str) -> Result<Model, ModelError> {
        match name {
            "fashion" => Ok(small::fashion()),
            "vgg16" => Ok(vgg::vgg16()),
            "vgg19" => Ok(vgg::vgg19()),
            "densenet121" => Ok(densenet::densenet121()),
            _ => Err(ModelError::Arch {
                asked: name.into(),
                nearest: closest(name, &ARCHITECTURES).into(),
                known: ARCHITECTURES.join(", "),
            }),
        }
    }

    /// The same network for `classes` answers.
    ///
    /// # Errors
    /// [`ModelError::Classes`].
    pub fn with_classes(mut self, classes: usize) -> Result<Model, ModelError> {
        if !(1..=CLASSES_MAX).contains(&classes) {
            return Err(ModelError::Classes { arch: self.arch, classes });
        }
        if let Some(Child { layer: Layer::Linear { features }, .. }) = self.classifier.last_mut() {
            *features = classes;
        }
        self.classes = classes;
        Ok(self)
    }

    /// The same network for images of `height` x `width`.
    ///
    /// # Errors
    /// [`ModelError::Input`] when nothing is left of such an image somewhere, or the classifier takes one size alone.
    pub fn with_input(mut self, height: usize, width: usize) -> Result<Model, ModelError> {
        let usual = self.flattened();
        let fails = |model: &Model| {
            let leaves = model.leaves();
            let empty = leaves.iter().find(|leaf| leaf.output.is_empty()).map(|leaf| leaf.child.name.clone());
            empty.or_else(|| (model.flattened() != usual).then(|| "flatten".to_string()))
        };
        self.input = [self.input[0], height, width];
        let Some(layer) = fails(&self) else { return Ok(self) };
        let arch = self.arch;
        let square = |side: usize| Model { input: [self.input[0], side, side], ..self.clone() };
        let least = (1..=1024).find(|&side| fails(&square(side)).is_none()).unwrap_or(0);
        Err(ModelError::Input { arch, height, width, layer, least })
    }

    /// Elements of the row that the classifier's first linear layer takes.
    fn flattened(&self) -> usize {
        self.leaves().iter().find(|leaf| leaf.child.layer == Layer::Flatten).map_or(0, |leaf| leaf.output.len())
    }

    /// All layers in order: `features`, then the classifier.
    pub fn layers(&self) -> impl Iterator<Item = &Child> {
        self.features.iter().chain(&self.classifier)
    }

    /// The output shape (a row's) of every layer, in order.
    pub fn shapes(&self) -> Vec<Shape> {
        let mut shape = Shape::from(self.input);
        self.layers()
            .map(|child| {
                shape = output_shape(&child.layer, &shape);
                shape.clone()
            })
            .collect()
    }

    /// Every layer that holds no others, in order.
    pub fn leaves(&self) -> Vec<Leaf<'_>> {
        let mut list = Vec::new();
        let mut shape = Shape::from(self.input);
        for child in self.layers() {
            shape = leaves(child, shape, &mut list);
        }
        list
    }

    /// Key and shape of every weight, in layer order.
    pub fn parameters(&self) -> Vec<(String, Shape)> {
        self.leaves().iter().flat_map(Leaf::parameters).collect()
    }

    /// Multiply-adds of each layer (a child of `features` or of the classifier) on one image.
    pub fn macs(&self) -> Vec<u64> {
        let mut shape = Shape::from(self.input);
        self.layers()
            .map(|child| {
                let mut list = Vec::new();
                shape = leaves(child, shape.clone(), &mut list);
                list.iter().map(Leaf::macs).sum()
            })
            .collect()
    }

    /// Every tap, in order.
    pub fn taps(&self) -> Vec<Tap> {
        let shapes = self.shapes();
        self.features
            .iter()
            .zip(&shapes)
            .enumerate()
            .filter_map(|(i, (child, shape))| {
                let shape = shape.dims().try_into().ok()?;
                let after_relu = child.layer == Layer::Relu;
                Some(Tap { number: i + 1, name: child.name.clone(), shape, after_relu })
            })
            .collect()
    }

    /// The tap of that number or name.
    ///
    /// # Errors
    /// [`ModelError::Tap`] with the nearest name.
    pub fn tap(&self, text: &str) -> Result<Tap, ModelError> {
        let taps = self.taps();
        let number = text.parse::<usize>().ok();
        if let Some(tap) = taps.iter().find(|t| t.name == text || Some(t.number) == number) {
            return Ok(tap.clone());
        }
        Err(ModelError::Tap {
            arch: self.arch,
            asked: text.into(),
            last: taps.len(),
            nearest: closest(text, &taps.iter().map(|t| t.name.as_str()).collect::<Vec<_>>()).into(),
        })
    }

    /// Adds the normalisation (pixels in [0, 1] to network input). It is part of the model, so that attacks and masks
    /// live in pixel space. Its two constants are the parameters `input.scale` and `input.shift`
    /// ([`Model::constants`] has their values).
    ///
    /// # Errors
    /// [`GraphError`] when `x` has another shape.
    pub fn normalise(&self, graph: &mut Graph, x: NodeId) -> Result<NodeId, GraphError> {
        let channels = [self.input[0]];
        let scale = graph.parameter("input.scale", channels)?;
        let shift = graph.parameter("input.shift", channels)?;
        graph.push("input.normalised", Op::Affine { activation: Activation::None }, &[x, scale, shift])
    }

    /// What its graph reads beside weights: the normalisation's 1/std and -mean/std a channel, and what its batch norms
    /// come to in inference.
    pub fn constants(&self) -> Derived {
        let channels = Shape::from([self.input[0]]);
        let scale = |i: usize| 1.0 / self.std[i];
        let shift = |i: usize| (-f64::from(self.mean[i]) / f64::from(self.std[i])) as f32;
        let mut derived = Derived::default();
        derived.insert("input.scale", Recipe::Given(Tensor::from_fn(channels.clone(), scale)));
        derived.insert("input.shift", Recipe::Given(Tensor::from_fn(channels, shift)));
        norms(&self.features, &mut derived);
        norms(&self.classifier, &mut derived);
        derived
    }

    /// Adds the children of `features` from number `from` up to (not including) number `to`.
    ///
    /// # Errors
    /// [`GraphError`] when `x` does not fit.
    pub fn front(&self, graph: &mut Graph, x: NodeId, from: usize, to: usize) -> Result<NodeId, GraphError> {
        let children = &self.features[from.min(self.features.len())..to.min(self.features.len())];
        chain(graph, x, children, &mut Mode::Inference)
    }

    /// Adds all children of `features`, in `mode`.
    ///
    /// # Errors
    /// [`GraphError`] when `x` does not fit.
    pub fn features_in(&self, graph: &mut Graph, x: NodeId, mode: &mut Mode<'_>) -> Result<NodeId, GraphError> {
        chain(graph, x, &self.features, mode)
    }

    /// Adds everything behind tap number `tap`, to the logits.
    ///
    /// # Errors
    /// [`GraphError`] when `x` does not fit.
    pub fn tail(&self, graph: &mut Graph, x: NodeId, tap: usize) -> Result<NodeId, GraphError> {
        let behind = self.front(graph, x, tap, self.features.len())?;
        self.head(graph, behind)
    }

    /// Adds what follows `features`, to the logits.
    ///
    /// # Errors
    /// [`GraphError`] when `x` does not fit.
    pub fn head(&self, graph: &mut Graph, x: NodeId) -> Result<NodeId, GraphError> {
        self.head_in(graph, x, &mut Mode::Inference)
    }

    /// The same in `mode`.
    ///
    /// # Errors
    /// [`GraphError`] when `x` does not fit.
    pub fn head_in(&self, graph: &mut Graph, x: NodeId, mode: &mut Mode<'_>) -> Result<NodeId, GraphError> {
        chain(graph, x, &self.classifier, mode)
    }

    /// Adds what follows `features` (at `x`): the maps A that explanations weigh, which are the features' own values, or
    /// those of the ReLU that directly follows them; and the logits.
    ///
    /// # Errors
    /// [`GraphError`] when `x` does not fit.
    pub fn maps_and_logits(&self, graph: &mut Graph, x: NodeId) -> Result<(NodeId, NodeId), GraphError> {
        let relu = usize::from(self.classifier.first().is_some_and(|child| child.layer == Layer::Relu));
        let (before, behind) = self.classifier.split_at(relu);
        let maps = chain(graph, x, before, &mut Mode::Inference)?;
        Ok((maps, chain(graph, maps, behind, &mut Mode::Inference)?))
    }

    /// The key of the one linear layer's weight, where it is all that lies behind a global average of the maps.
    pub fn linear_head(&self) -> Option<String> {
        let behind = self.classifier.iter().skip_while(|child| child.layer == Layer::Relu);
        match behind.collect::<Vec<_>>().as_slice() {
            [pool, linear] if pool.layer == Layer::GlobalAvgPool && matches!(linear.layer, Layer::Linear { .. }) => {
                Some(format!("{}.weight", linear.name))
            }
            _ => None,
        }
    }

    /// Fresh weights from the Philox stream `init/<key>`: as PyTorch initialises layers, U(-1/sqrt(fan in),
    /// 1/sqrt(fan in)) for weight and bias; norms are the identity. In a network of ten convolutions or more, signals would
    /// fade on their way: its convolutions are uniform with He's variance, U(-sqrt(6/fan in), sqrt(6/fan in)), biases 0.
    pub fn initial_weights(&self, seed: u64) -> Vec<(String, Tensor)> {
        let leaves = self.leaves();
        let deep = leaves.iter().filter(|leaf| matches!(leaf.child.layer, Layer::Conv { .. })).count() >= 10;
        let norms = leaves.iter().filter(|leaf| leaf.child.layer == Layer::BatchNorm).flat_map(Leaf::parameters);
        let norms: Vec<String> = norms.map(|(key, _)| key).collect();
        let one = |(key, tensor): (String, Tensor)| {
            if deep || norms.contains(&key) { deep_initial(key, tensor) } else { (key, tensor) }
        };
        initial(&self.parameters(), seed).into_iter().map(one).collect()
    }
}

/// Adds `child`'s leaves to `list` and returns the shape behind it.
fn leaves<'a>(child: &'a Child, input: Shape, list: &mut Vec<Leaf<'a>>) -> Shape {
    let output = output_shape(&child.layer, &input);
    match &child.layer {
        Layer::Sequence(children) | Layer::Dense(children) => {
            children.iter().fold(input, |shape, child| leaves(child, shape, list));
        }
        _ => list.push(Leaf { child, input, output: output.clone() }),
    }
    output
}

/// The recipes of every batch norm among `children`: alone, and folded into the convolution in front of it.
fn norms(children: &[Child], derived: &mut Derived) {
    for (i, child) in children.iter().enumerate() {
        match &child.layer {
            Layer::Sequence(inner) | Layer::Dense(inner) => norms(inner, derived),
            Layer::BatchNorm => {
                let norm = || child.name.clone();
                derived.insert(format!("{}.scale", child.name), Recipe::Scale { norm: norm() });
                derived.insert(format!("{}.shift", child.name), Recipe::Shift { norm: norm() });
                if let Some(conv) = i.checked_sub(1).map(|i| &children[i]).filter(|c| folds(c, Some(child))) {
                    let recipe = Recipe::Folded { conv: conv.name.clone(), norm: norm() };
                    derived.insert(format!("{}.folded.weight", conv.name), recipe);
                }
            }
            _ => {}
        }
    }
}

/// Whether `next` is a batch norm that a convolution in front of it can take in.
fn folds(conv: &Child, next: Option<&Child>) -> bool {
    matches!(conv.layer, Layer::Conv { bias: false, .. }) && next.is_some_and(|n| n.layer == Layer::BatchNorm)
}

/// The shape of a row behind `layer`; with a 0 in it where nothing is left.
fn output_shape(layer: &Layer, input: &Shape) -> Shape {
    let side = |i: usize| input.dims().get(i).copied().unwrap_or(0);
    let window_shape = |channels: usize, size: usize, window: Window| {
        let left = |i: usize| window_positions(side(i), size, window).unwrap_or(0);
        Shape::from([channels, left(1), left(2)])
    };
    match layer {
        Layer::Conv { channels, kernel, window, .. } => window_shape(*channels, *kernel, *window),
        Layer::MaxPool { size, window } => window_shape(channels(input), *size, *window),
        Layer::AvgPool(averaging) => {
            let [h, w] = averaging.spans(side(1), side(2)).map_or([0, 0], |spans| spans.map(|s| s.count));
            Shape::from([channels(input), h, w])
        }
        Layer::BatchNorm | Layer::Relu | Layer::Dropout { .. } => input.clone(),
        Layer::GlobalAvgPool if input.is_empty() => Shape::from([0]),
        Layer::GlobalAvgPool => Shape::from([channels(input)]),
        Layer::Flatten => Shape::from([input.len()]),
        Layer::Linear { features } => Shape::from([*features]),
        Layer::Sequence(children) => children.iter().fold(input.clone(), |shape, c| output_shape(&c.layer, &shape)),
        Layer::Dense(children) => {
            let fresh = children.iter().fold(input.clone(), |shape, c| output_shape(&c.layer, &shape));
            let mut dims = fresh.dims().to_vec();
            if let Some(first) = dims.first_mut() {
                *first += channels(input);
            }
            Shape::new(dims)
        }
    }
}

/// A deep network's or a norm's initial value in place of a shallow one's: see [`Model::initial_weights`].
fn deep_initial(key: String, tensor: Tensor) -> (String, Tensor) {
    let shape = tensor.shape().clone();
    let constant = |value: f32| Tensor::from_fn(shape.clone(), |_| value);
    let leaf = key.rsplit('.').next().unwrap_or_default();
    let tensor = match (leaf, shape.rank()) {
        // U(-1, 1)/sqrt(fan in) to U(-1, 1)·sqrt(6/fan in)
        ("weight", 4) => Tensor::from_fn(shape, |i| tensor.data()[i] * 6f32.sqrt()),
        ("weight", 1) | ("running_var", _) => constant(1.0),
        ("bias" | "running_mean", _) => constant(0.0),
        _ => tensor,
    };
    (key, tensor)
}

/// Initial values for parameters that come as pairs `<path>.weight`, `<path>.bias`.
fn initial(parameters: &[(String, Shape)], seed: u64) -> Vec<(String, Tensor)> {
    let mut fan_in = 1;
    parameters
        .iter()
        .map(|(key, shape)| {
            if shape.rank() > 1 {
                fan_in = shape.dims()[1..].iter().product();
            }
            let bound = 1.0 / (fan_in as f32).sqrt();
            let stream = Stream::new(seed, &format!("init/{key}"));
            let value = |i: usize| (2.0 * stream.uniform(0, i as u32) - 1.0) * bound;
            (key.clone(), Tensor::from_fn(shape.clone(), value))
        })
        .collect()
}
