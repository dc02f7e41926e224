//! Which constants of an ONNX graph are which layer's parameters. Called by [`super::format`] when an ONNX model is read as
//! a known network.
//!
//! Exporters name tensors as they like, but a graph lists its nodes in the order of computation, and so does a network its
//! parameters: the n-th convolution, linear layer or batch norm of one is the n-th of the other, or some shape differs.
//! Known ways of writing a layer: `Conv`; `Gemm`; `MatMul` (weight in x out, turned) and `Add`; a 1x1 or whole-window `Conv`
//! as linear layer; `BatchNormalization`, also followed by a `Mul` and an `Add` (Caffe's scale layer, folded into it). Where a
//! linear layer's input was flattened as H, W, C (Keras), its columns are put into the order C, H, W.

use std::collections::HashMap;

use super::onnx::{Constant, Data, Node, OnnxFile};
use super::{Entry, Part, Storage, Weights, WeightsError, names, some_of};
use crate::tensor::Shape;

/// Batch norm's constant in every network of torchvision's.
const EPSILON: f32 = 1e-5;

/// Why layers are not there that should be.
const FOLDED: &str = "; where the exporter folded batch norms into convolutions, export with them kept \
    (PyTorch: training=TrainingMode.PRESERVE, do_constant_folding=False)";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Conv,
    Linear,
    Norm,
}

impl Kind {
    fn describe(self) -> &'static str {
        match self {
            Kind::Conv => "a convolution",
            Kind::Linear => "a linear layer",
            Kind::Norm => "a batch norm",
        }
    }
}

/// A layer of the graph.
struct Layer<'a> {
    kind: Kind,
    node: &'a Node,
    /// `weight` (as torchvision has it: out x in), `bias`, `running_mean`, `running_var`.
    parts: Vec<(&'static str, String, Constant)>,
    /// Scale and shift behind a batch norm.
    scale: Option<(String, Constant)>,
    shift: Option<(String, Constant)>,
    /// A linear layer whose columns are in the order H, W, C: the number of channels.
    channels_last: Option<usize>,
    /// Something that changes its output and that is not read.
    foreign: Option<&'a Node>,
}

impl Layer<'_> {
    fn part(&self, role: &str) -> Option<&(&'static str, String, Constant)> {
        self.parts.iter().find(|(r, _, _)| *r == role)
    }

    /// Number of output channels.
    fn outputs(&self) -> usize {
        self.part("weight").and_then(|(_, _, c)| c.dims.first().copied()).unwrap_or(0)
    }
}

/// A layer of the network: path, kind, and its parameters' leaves and shapes.
struct Wanted<'e> {
    path: &'e str,
    kind: Kind,
    leaves: Vec<(&'e str, &'e Shape)>,
}

fn wanted(expected: &[(String, Shape)]) -> Vec<Wanted<'_>> {
    let mut list: Vec<Wanted<'_>> = Vec::new();
    for (name, shape) in expected {
        let (path, leaf) = name.rsplit_once('.').unwrap_or(("", name));
        match list.last_mut().filter(|last| last.path == path) {
            Some(last) => last.leaves.push((leaf, shape)),
            None => list.push(Wanted { path, kind: Kind::Linear, leaves: vec![(leaf, shape)] }),
        }
    }
    for layer in &mut list {
        let weight = layer.leaves.iter().find(|(leaf, _)| *leaf == "weight");
        layer.kind = match weight.map_or(0, |(_, shape)| shape.rank()) {
            1 => Kind::Norm,
            4 => Kind::Conv,
            _ => Kind::Linear,
        };
    }
    list
}

impl OnnxFile {
    /// The parameters `expected` (in layer order): by name where the model has torchvision's names, else by the order of
    /// its graph. Those of the trunk only are given and asked for with [`Part::Trunk`]; layers behind it are left out.
    pub(super) fn fit(&self, expected: &[(String, Shape)], part: Part) -> Result<Weights, WeightsError> {
        let layers = self.layers()?;
        if let Some(weights) = self.by_name(expected, &layers)? {
            return match layers.get(wanted(expected).len()).filter(|_| part == Part::Whole) {
                None => Ok(weights),
                Some(extra) => Err(self.graph(extra, "belongs to no layer of the network, which has fewer".into())),
            };
        }
        let wanted = wanted(expected);
        let mut weights = Weights::new(&self.file);
        let mut layers_left = layers.iter();
        for want in &wanted {
            let Some(layer) = layers_left.next() else {
                let tensor = first_name(want);
                return Err(WeightsError::Missing { tensor, file: self.file.clone(), nearest: None });
            };
            self.take(layer, want, &mut weights)?;
        }
        let rest: Vec<&Layer> = layers_left.collect();
        match part {
            Part::Trunk => {
                if let Some(conv) = rest.iter().find(|l| l.kind == Kind::Conv && l.parts[0].2.dims[2..] != [1, 1]) {
                    return Err(self.graph(conv, "comes after the last layer of the trunk".into()));
                }
                if !rest.is_empty() {
                    let left: Vec<String> = rest.iter().map(|l| l.node.shown()).collect();
                    weights.notes.push(format!("left out, as only the trunk is asked for: {}", some_of(&left)));
                }
            }
            Part::Whole => {
                if let Some(layer) = rest.first() {
                    return Err(self.graph(layer, format!("comes after the last of {} layers", wanted.len())));
                }
            }
        }
        let folded = layers.iter().filter(|l| l.kind == Kind::Norm && (l.scale.is_some() || l.shift.is_some())).count();
        if folded > 0 {
            weights.notes.push(format!("scale and shift behind {folded} batch norms are folded into them"));
        }
        weights.notes.insert(0, format!("{} layers are told by the order of the graph", wanted.len()));
        Ok(weights)
    }

    /// Rows of the last layer's weight: the number of classes of a classifier.
    ///
    /// # Errors
    /// [`WeightsError::Graph`] where layers cannot be told.
    pub fn outputs(&self) -> Result<Option<usize>, WeightsError> {
        Ok(self.layers()?.last().map(Layer::outputs))
    }

    /// The weights by their own names, where these are what is expected, perhaps after repairs. How a layer uses a tensor
    /// still counts: a square weight that is turned looks like one that is not.
    fn by_name(&self, expected: &[(String, Shape)], layers: &[Layer<'_>]) -> Result<Option<Weights>, WeightsError> {
        let known: HashMap<&str, &Shape> = expected.iter().map(|(n, s)| (n.as_str(), s)).collect();
        let own = self.constants.iter().filter(|(_, c)| !matches!(c.data, Data::Whole(_)));
        let own: Vec<&str> = own.map(|(name, _)| name.as_str()).collect();
        let repairs = names::repair(&self.file, own.iter().copied(), &|n| known.contains_key(n)).unwrap_or_default();
        let renamed: HashMap<&str, &str> = repairs.iter().map(|r| (r.to.as_str(), r.from.as_str())).collect();
        let used: HashMap<&str, (&Layer<'_>, &'static str, &Constant)> = layers
            .iter()
            .flat_map(|layer| layer.parts.iter().map(move |(role, name, part)| (name.as_str(), (layer, *role, part))))
            .collect();
        let mut weights = Weights::new(&self.file);
        for (name, shape) in expected {
            let own_name = self.constants.contains_key(name).then_some(name.as_str());
            let from = own_name.or_else(|| renamed.get(name.as_str()).copied());
            let Some((from, constant)) = from.and_then(|f| Some((f, self.constants.get(f)?))) else { return Ok(None) };
            let user = used.get(from);
            let constant = user.map_or(constant, |(_, _, part)| part);
            if constant.dims != shape.dims() {
                return Ok(None); // the graph tells whether that can be right, or where it goes wrong
            }
            let mut entry = self.entry(from, constant)?;
            if let Some((layer, role, _)) = user {
                if name.rsplit('.').next() != Some(role) {
                    return Ok(None); // names that mislead
                }
                self.check_foreign(layer)?;
                self.adjust(layer, role, &mut entry)?;
            }
            weights.tensors.insert(name.clone(), entry);
        }
        weights.notes.extend(names::summary(&repairs));
        Ok(Some(weights))
    }

    /// Refuses a layer with something behind it that changes its output.
    fn check_foreign(&self, layer: &Layer<'_>) -> Result<(), WeightsError> {
        match layer.foreign {
            None => Ok(()),
            Some(node) => {
                let what = format!("is followed by {}, which changes its output and is not read", node.shown());
                Err(self.graph(layer, what))
            }
        }
    }

    fn graph(&self, layer: &Layer<'_>, what: String) -> WeightsError {
        WeightsError::Graph { file: self.file.clone(), node: layer.node.shown(), what }
    }

    /// Every layer with parameters, in the order of the graph.
    fn layers(&self) -> Result<Vec<Layer<'_>>, WeightsError> {
        let mut layers: Vec<Layer<'_>> = Vec::new();
        // which layer's output, with nothing else done to it, a value is
        let mut output_of: HashMap<&str, usize> = HashMap::new();
        let mut channels_last = false;
        for node in &self.nodes {
            let constant = |i: usize| {
                let name = node.inputs.get(i).filter(|n| !n.is_empty())?;
                Some((name.clone(), self.constants.get(name)?.clone()))
            };
            let missing = |role: &str| WeightsError::Graph {
                file: self.file.clone(),
                node: node.shown(),
                what: format!("has a {role} that is no constant of the file"),
            };
            let start = layers.len();
            let mut layer = |kind: Kind, parts: Vec<(&'static str, String, Constant)>| {
                layers.push(Layer { kind, node, parts, scale: None, shift: None, channels_last: None, foreign: None });
            };
            match node.op.as_str() {
                "Conv" => {
                    let (name, weight) = constant(1).ok_or_else(|| missing("weight"))?;
                    if weight.dims.len() != 4 {
                        let what = format!("has a weight of {} dimensions; images have 4", weight.dims.len());
                        return Err(WeightsError::Graph { file: self.file.clone(), node: node.shown(), what });
                    }
                    let mut parts = vec![("weight", name, weight)];
                    if node.inputs.get(2).is_some_and(|n| !n.is_empty()) {
                        let (name, bias) = constant(2).ok_or_else(|| missing("bias"))?;
                        parts.push(("bias", name, bias));
                    }
                    layer(Kind::Conv, parts);
                    channels_last = false;
                }
                "Gemm" => {
                    let (name, weight) = constant(1).ok_or_else(|| missing("weight"))?;
                    let plain =
                        node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0 && node.int("transA", 0) == 0;
                    let weight = if node.int("transB", 0) == 0 { weight.permuted(&[1, 0]) } else { Some(weight) };
                    let Some(weight) = weight.filter(|w| plain && w.dims.len() == 2) else {
                        let what = "scales or turns its operands in a way that is not read".into();
                        return Err(WeightsError::Graph { file: self.file.clone(), node: node.shown(), what });
                    };
                    let mut parts = vec![("weight", name, weight)];
                    parts.extend(constant(2).map(|(name, bias)| ("bias", name, bias)));
                    layer(Kind::Linear, parts);
                }
                "MatMul" => {
                    // two activations are multiplied in attention, not in these networks
                    if let Some((name, weight)) = constant(1)
                        && let Some(turned) = weight.permuted(&[1, 0])
                    {
                        layer(Kind::Linear, vec![("weight", name, turned)]);
                    }
                }
                "BatchNormalization" => {
                    let mut parts = Vec::new();
                    for (i, role) in ["weight", "bias", "running_mean", "running_var"].into_iter().enumerate() {
                        let (name, part) = constant(i + 1).ok_or_else(|| missing(role))?;
                        parts.push((role, name, part));
                    }
                    layer(Kind::Norm, parts);
                }
                "Add" | "Mul" | "Sub" | "Div" => {
                    let operand =
                        (0..2).find_map(|i| Some((*output_of.get(node.inputs.get(i)?.as_str())?, constant(1 - i)?)));
                    if let Some((index, constant)) = operand {
                        absorb(&mut layers[index], node, constant);
                        output_of.extend(node.outputs.first().map(|o| (o.as_str(), index)));
                    }
                }
                "Transpose" => match node.ints("perm") {
                    [0, 2, 3, 1] => channels_last = true,
                    [0, 3, 1, 2] => channels_last = false,
                    _ => {}
                },
                op if op.starts_with("QLinear")
                    || op.ends_with("Integer")
                    || matches!(op, "DequantizeLinear" | "QGemm") =>
                {
                    let what = "belongs to a quantised network; export it before it is quantised".into();
                    return Err(WeightsError::Graph { file: self.file.clone(), node: node.shown(), what });
                }
                _ => {}
            }
            if layers.len() > start {
                output_of.extend(node.outputs.first().map(|o| (o.as_str(), start)));
                let before = start.checked_sub(1).map_or(0, |b| layers[b].outputs());
                if layers[start].kind == Kind::Linear && std::mem::take(&mut channels_last) {
                    layers[start].channels_last = Some(before);
                }
            }
        }
        Ok(layers)
    }

    /// Puts the parameters of `layer` where the network has `want`.
    fn take(&self, layer: &Layer<'_>, want: &Wanted<'_>, weights: &mut Weights) -> Result<(), WeightsError> {
        self.check_foreign(layer)?;
        let as_linear = want.kind == Kind::Linear && layer.kind == Kind::Conv;
        if layer.kind != want.kind && !as_linear {
            let folded = match (want.kind, layer.kind) {
                (Kind::Norm, Kind::Conv | Kind::Linear) => FOLDED,
                _ => "",
            };
            let (is, needed) = (layer.kind.describe(), want.kind.describe());
            return Err(
                self.graph(layer, format!("is {is}, but the network has {needed} there, {}{folded}", want.path))
            );
        }
        for (role, source, _) in &layer.parts {
            if !want.leaves.iter().any(|(leaf, _)| leaf == role) {
                let hint = if *role == "bias" { FOLDED } else { "" };
                let what = format!("has a {role} ({source}), but the network has none in {}{hint}", want.path);
                return Err(self.graph(layer, what));
            }
        }
        for &(leaf, shape) in &want.leaves {
            let tensor = format!("{}.{leaf}", want.path);
            if leaf == "num_batches_tracked" {
                continue;
            }
            let Some((_, source, constant)) = layer.part(leaf) else {
                return Err(self.graph(layer, format!("has no {leaf}, but the network needs {tensor} {shape}")));
            };
            // a convolution over all of its input, and a bias with axes of length 1, are the same numbers in order
            let fits = constant.dims == shape.dims();
            let may_differ = !fits && (as_linear || leaf != "weight");
            let reshaped = may_differ.then(|| constant.reshaped(shape.dims().to_vec())).flatten();
            let constant = reshaped.unwrap_or_else(|| constant.clone());
            if constant.dims != shape.dims() {
                let (expected, got) = (shape.clone(), Shape::from(constant.dims.as_slice()));
                return Err(WeightsError::Shape { tensor, file: self.file.clone(), expected, got });
            }
            let mut entry = self.entry(source, &constant)?;
            self.adjust(layer, leaf, &mut entry)?;
            weights.tensors.insert(tensor, entry);
        }
        if layer.channels_last.is_some_and(|c| c > 0 && layer.parts[0].2.dims[1] > c) {
            weights.notes.push(format!("{}.weight: columns put from the order H, W, C into C, H, W", want.path));
        }
        Ok(())
    }

    /// What the graph does to a parameter outside of its layer.
    fn adjust(&self, layer: &Layer<'_>, leaf: &str, entry: &mut Entry) -> Result<(), WeightsError> {
        let length = entry.shape.len();
        let vector = |of: &Option<(String, Constant)>| match of {
            Some((name, constant)) if constant.dims == [length] => self.entry(name, constant).map(Some),
            Some((name, _)) => Err(self.graph(layer, format!("has {length} channels, but {name} behind it has not"))),
            None => Ok(None),
        };
        let replace = |entry: &mut Entry, data: Vec<f32>| entry.storage = Storage::Owned(data.into());
        match (layer.kind, leaf) {
            (Kind::Linear, "weight") => {
                let columns = entry.shape.dims().get(1).copied().unwrap_or(0);
                let channels = layer.channels_last.filter(|&c| c > 0 && columns > 0);
                let Some(channels) = channels else { return Ok(()) };
                if !columns.is_multiple_of(channels) {
                    let what = format!("has {columns} columns, which {channels} channels do not divide");
                    return Err(self.graph(layer, what));
                }
                let places = columns / channels;
                let data = entry.data();
                let turned = data
                    .chunks_exact(columns)
                    .flat_map(|row| (0..columns).map(move |i| row[i % places * channels + i / places]));
                let turned = turned.collect();
                replace(entry, turned);
            }
            (Kind::Norm, "weight") => {
                if let Some(scale) = vector(&layer.scale)? {
                    let data = entry.data().iter().zip(scale.data()).map(|(a, b)| a * b).collect();
                    replace(entry, data);
                }
            }
            (Kind::Norm, "bias") => {
                let (scale, shift) = (vector(&layer.scale)?, vector(&layer.shift)?);
                if scale.is_some() || shift.is_some() {
                    let of = |e: &Option<Entry>, i: usize, none: f32| e.as_ref().map_or(none, |e| e.data()[i]);
                    let bias = entry.data().iter().enumerate();
                    let data = bias.map(|(i, b)| b * of(&scale, i, 1.0) + of(&shift, i, 0.0)).collect();
                    replace(entry, data);
                }
            }
            (Kind::Norm, "running_var") => {
                let epsilon = layer.node.float("epsilon", EPSILON);
                if (epsilon - EPSILON).abs() > 1e-9 {
                    let data: Vec<f32> = entry.data().iter().map(|v| v + (epsilon - EPSILON)).collect();
                    if data.iter().any(|&v| !(v + EPSILON > 0.0)) {
                        return Err(
                            self.graph(layer, format!("has epsilon {epsilon}, which {EPSILON} cannot stand for"))
                        );
                    }
                    replace(entry, data);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Makes an addition or multiplication behind a layer part of it, or marks the layer as not understood.
fn absorb<'a>(layer: &mut Layer<'a>, node: &'a Node, (name, constant): (String, Constant)) {
    let outputs = layer.outputs();
    let vector = constant.reshaped(vec![outputs]);
    match (layer.kind, node.op.as_str(), vector) {
        (Kind::Conv | Kind::Linear, "Add", Some(vector)) if layer.part("bias").is_none() => {
            layer.parts.push(("bias", name, vector));
        }
        (Kind::Norm, "Mul", Some(vector)) if layer.scale.is_none() && layer.shift.is_none() => {
            layer.scale = Some((name, vector));
        }
        (Kind::Norm, "Add", Some(vector)) if layer.shift.is_none() => layer.shift = Some((name, vector)),
        _ => layer.foreign = Some(node),
    }
}

fn first_name(want: &Wanted<'_>) -> String {
    want.leaves.first().map_or_else(String::new, |(leaf, _)| format!("{}.{leaf}", want.path))
}
