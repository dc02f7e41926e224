//! Networks as lists of named layers, built into graphs; taps; the autoencoder that is spliced in at one.
//!
//! A model follows torchvision: `features` is a list of children, the head comes after it. A tap is a place behind a
//! child of `features`, told by the number of children kept in front of it or by the name of the last of them. Names of
//! weights are torchvision's. Used by training, sweeps, attacks and `inspect`; knows no backend.

pub mod autoencoder;
pub mod small;

pub use crate::answer::Head;
use crate::graph::op::{Op, Window, window_positions};
use crate::graph::{Graph, GraphError, NodeId};
use crate::random::Stream;
use crate::tensor::{Shape, Tensor};
use crate::text::closest;

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Square convolution with bias.
    Conv {
        /// Output channels.
        channels: usize,
        /// Side of the kernel.
        kernel: usize,
        /// Stride and padding.
        window: Window,
    },
    /// max(0, x).
    Relu,
    /// Square max-pool.
    MaxPool {
        /// Side of the window.
        size: usize,
        /// Stride and padding.
        window: Window,
    },
    /// C, H, W order into one row.
    Flatten,
    /// Fully connected with bias.
    Linear {
        /// Output features.
        features: usize,
    },
}

impl Layer {
    /// `conv 3x3, 32 channels`, as `inspect` prints it.
    pub fn describe(&self) -> String {
        match self {
            Layer::Conv { channels, kernel, window } => {
                format!("conv {kernel}x{kernel} to {channels}, stride {}, pad {}", window.stride, window.pad)
            }
            Layer::Relu => "relu".into(),
            Layer::MaxPool { size, window } => format!("max-pool {size}x{size}, stride {}", window.stride),
            Layer::Flatten => "flatten".into(),
            Layer::Linear { features } => format!("linear to {features}"),
        }
    }
}

/// A layer with its torchvision path (`features.0`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its path; weights are `<name>.weight` and `<name>.bias`.
    pub name: String,
    /// What it does.
    pub layer: Layer,
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
    /// The graph could not be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Names of all networks.
pub const ARCHITECTURES: [&str; 1] = ["fashion"];

impl Model {
    /// The network of that name with its usual input size and classes.
    ///
    /// # Errors
    /// [`ModelError::Arch`] with the nearest name.
    pub fn named(name: &str) -> Result<Model, ModelError> {
        match name {
            "fashion" => Ok(small::fashion()),
            _ => Err(ModelError::Arch {
                asked: name.into(),
                nearest: closest(name, &ARCHITECTURES).into(),
                known: ARCHITECTURES.join(", "),
            }),
        }
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

    /// Key and shape of every weight, in layer order.
    pub fn parameters(&self) -> Vec<(String, Shape)> {
        let mut shape = Shape::from(self.input);
        let mut list = Vec::new();
        for child in self.layers() {
            let inputs = shape.dims().first().copied().unwrap_or(1);
            match child.layer {
                Layer::Conv { channels, kernel, .. } => {
                    list.push((format!("{}.weight", child.name), Shape::from([channels, inputs, kernel, kernel])));
                    list.push((format!("{}.bias", child.name), Shape::from([channels])));
                }
                Layer::Linear { features } => {
                    list.push((format!("{}.weight", child.name), Shape::from([features, inputs])));
                    list.push((format!("{}.bias", child.name), Shape::from([features])));
                }
                Layer::Relu | Layer::MaxPool { .. } | Layer::Flatten => {}
            }
            shape = output_shape(&child.layer, &shape);
        }
        list
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
        graph.push("input.normalised", Op::Affine, &[x, scale, shift])
    }

    /// The normalisation's two constants: 1/std and -mean/std a channel.
    pub fn constants(&self) -> Vec<(String, Tensor)> {
        let channels = Shape::from([self.input[0]]);
        let scale = |i: usize| 1.0 / self.std[i];
        let shift = |i: usize| (-f64::from(self.mean[i]) / f64::from(self.std[i])) as f32;
        vec![
            ("input.scale".into(), Tensor::from_fn(channels.clone(), scale)),
            ("input.shift".into(), Tensor::from_fn(channels, shift)),
        ]
    }

    /// Adds the children of `features` from number `from` up to (not including) number `to`.
    ///
    /// # Errors
    /// [`GraphError`] when `x` does not fit.
    pub fn front(&self, graph: &mut Graph, x: NodeId, from: usize, to: usize) -> Result<NodeId, GraphError> {
        chain(graph, x, &self.features[from.min(self.features.len())..to.min(self.features.len())])
    }

    /// Adds everything behind tap number `tap`, to the logits.
    ///
    /// # Errors
    /// [`GraphError`] when `x` does not fit.
    pub fn tail(&self, graph: &mut Graph, x: NodeId, tap: usize) -> Result<NodeId, GraphError> {
        let behind = self.front(graph, x, tap, self.features.len())?;
        chain(graph, behind, &self.classifier)
    }

    /// Fresh weights as PyTorch initialises them: U(-1/sqrt(fan in), 1/sqrt(fan in)) for weight and bias, from the
    /// Philox stream `init/<key>`.
    pub fn initial_weights(&self, seed: u64) -> Vec<(String, Tensor)> {
        initial(&self.parameters(), seed)
    }
}

fn output_shape(layer: &Layer, input: &Shape) -> Shape {
    let window_shape = |channels: usize, size: usize, window: Window| {
        let side = |i: usize| window_positions(input.dims().get(i).copied().unwrap_or(0), size, window).unwrap_or(0);
        Shape::from([channels, side(1), side(2)])
    };
    match *layer {
        Layer::Conv { channels, kernel, window } => window_shape(channels, kernel, window),
        Layer::MaxPool { size, window } => window_shape(input.dims().first().copied().unwrap_or(0), size, window),
        Layer::Relu => input.clone(),
        Layer::Flatten => Shape::from([input.len()]),
        Layer::Linear { features } => Shape::from([features]),
    }
}

/// Adds `children` one after the other.
fn chain(graph: &mut Graph, mut x: NodeId, children: &[Child]) -> Result<NodeId, GraphError> {
    for Child { name, layer } in children {
        let inputs = graph.node(x).shape.dims().first().copied().unwrap_or(1);
        x = match *layer {
            Layer::Conv { channels, kernel, window } => {
                let weight = graph.parameter(&format!("{name}.weight"), [channels, inputs, kernel, kernel])?;
                let bias = graph.parameter(&format!("{name}.bias"), [channels])?;
                graph.conv2d(name, x, weight, bias, window)?
            }
            Layer::Linear { features } => {
                let weight = graph.parameter(&format!("{name}.weight"), [features, inputs])?;
                let bias = graph.parameter(&format!("{name}.bias"), [features])?;
                graph.linear(name, x, weight, bias)?
            }
            Layer::Relu => graph.push(name, Op::Relu, &[x])?,
            Layer::MaxPool { size, window } => graph.push(name, Op::MaxPool { size, window }, &[x])?,
            Layer::Flatten => {
                let len = graph.node(x).shape.len();
                graph.push(name, Op::Reshape(Shape::from([len])), &[x])?
            }
        };
    }
    Ok(x)
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
