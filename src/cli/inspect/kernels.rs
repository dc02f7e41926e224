//! `inspect --kernels`: by which way each layer of a network and of its autoencoder runs, forward and in its gradients, on the
//! CPU and on CUDA devices, and why. Read off the planned networks, so that what is fused is shown as it runs.

use crate::backend::ConvPath;
use crate::backend::cpu::path::{self, Path};
use crate::backend::cuda::{Precision, kernel_of, on_tensor_cores};
use crate::backend::layout::{ConvShape, PoolShape};
use crate::backend::problems::{Map, Pass, Problem, Work};
use crate::backend::winograd::Winograd;
use crate::error::Error;
use crate::graph::op::{Activation, Op, Prologue, Window};
use crate::graph::plan::{Artifact, Entry, plan};
use crate::graph::{Graph, GraphError, Node};
use crate::model::autoencoder::{Autoencoder, Lists};
use crate::model::{Model, ModelError, Tap};
use crate::tensor::Shape;
use serde_json::{Value, json};
use std::fmt::Write;

/// A layer and how it runs.
struct Row {
    name: String,
    layer: String,
    /// Forward, input gradient, weight gradient.
    cpu: [Cell; 3],
    /// The same.
    cuda: [Option<&'static str>; 3],
    /// On CUDA by Winograd's tiles, where they are asked for and serve.
    winograd: Option<(Winograd, &'static str)>,
}

/// What the CPU does.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    /// A layer without weights has no gradient for them.
    None,
    /// The only way of its op.
    Op(&'static str),
    /// The path of exact convolution, and that by Winograd's tiles.
    Path([Path; 2]),
}

impl Cell {
    fn by(of: impl Fn(ConvPath) -> Path) -> Cell {
        Cell::Path([ConvPath::Exact, ConvPath::Winograd].map(of))
    }

    fn text(self) -> String {
        match self {
            Cell::None => "-".into(),
            Cell::Op(name) => name.into(),
            Cell::Path([exact, winograd]) if exact == winograd => exact.name().into(),
            Cell::Path([exact, winograd]) => format!("{} (exact: {})", winograd.name(), exact.name()),
        }
    }

    fn json(self) -> Value {
        let of = |path: Path| json!({ "path": path.name(), "why": path.why() });
        match self {
            Cell::None => Value::Null,
            Cell::Op(name) => json!({ "exact": { "path": name }, "winograd": { "path": name } }),
            Cell::Path([exact, winograd]) => json!({ "exact": of(exact), "winograd": of(winograd) }),
        }
    }

    fn paths(self) -> Vec<Path> {
        if let Cell::Path(both) = self { both.to_vec() } else { Vec::new() }
    }
}

/// How a network's layers run.
pub struct Table {
    arch: &'static str,
    input: [usize; 3],
    tap: usize,
    precision: Precision,
    /// With what each part is.
    parts: [(String, Vec<Row>); 2],
}

impl Table {
    /// Of `model`, and of the autoencoder at `tap`.
    ///
    /// # Errors
    /// [`Error::Model`] where the network cannot be built.
    pub fn new(model: &Model, tap: &Tap, ae: &Autoencoder, precision: Precision) -> Result<Table, Error> {
        let host = rows(&host(model).map_err(ModelError::from)?, precision);
        let spliced = rows(&spliced(tap, ae).map_err(ModelError::from)?, precision);
        let title = format!("{} on images of {}", model.arch, Shape::from(model.input));
        let below = format!("the autoencoder of {} nodes behind {} (tap {})", ae.nodes, tap.name, tap.number);
        let parts = [(title, host), (below, spliced)];
        Ok(Table { arch: model.arch, input: model.input, tap: tap.number, precision, parts })
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let [host, spliced] = self.parts.each_ref().map(|(_, rows)| rows.iter().map(Row::json).collect::<Vec<_>>());
        json!({ "schema_version": 1, "arch": self.arch, "input": self.input, "tap": self.tap,
            "precision": self.precision.name(), "layers": host, "autoencoder": spliced })
    }

    /// As a table, with the rules below it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // writing to a String cannot fail
        for (title, rows) in &self.parts {
            let _ = writeln!(text, "{title}\n");
            let lines: Vec<[String; 9]> =
                [HEAD.map(String::from)].into_iter().chain(rows.iter().map(Row::cells)).collect();
            let widths: [usize; 9] = std::array::from_fn(|i| lines.iter().map(|l| l[i].len()).max().unwrap_or(0) + 2);
            for line in &lines {
                let cells: String = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
                let _ = writeln!(text, "{}", cells.trim_end());
            }
            text.push('\n');
        }
        text += CPU_RULES;
        let mut paths: Vec<Path> = Vec::new();
        for path in self.parts.iter().flat_map(|(_, rows)| rows).flat_map(|row| row.cpu).flat_map(Cell::paths) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        for path in paths {
            let _ = writeln!(text, "  {:<17}{}", path.name(), path.why());
        }
        let _ = writeln!(text, "\nCUDA kernels, in {}, {CUDA_RULES}", self.precision.name());
        text += FUSED;
        text
    }
}

const HEAD: [&str; 9] =
    ["layer", "", "CPU: forward", "grad x", "grad w", "CUDA: forward", "--conv winograd", "grad x", "grad w"];

const CPU_RULES: &str = "CPU paths, by a layer's shape, never by rows or threads (exact: with --conv exact):\n";

const CUDA_RULES: &str = "of images whose channels begin at multiples of 16 bytes: their tiles, by the layer's shape.
Winograd's (F2: 2x2 outputs, F4: 4x4), by choice, are for layers of 3x3, stride 1 and whole quads of channels, where they are
estimated to be faster by a tenth; gradients are convolved exactly there.";

const FUSED: &str = "The network is fused as in inference. Where gradients are taken, ReLUs, and norms in front of 1x1 layers, are steps of their own.
";

/// The network in inference, as it is fused.
fn host(model: &Model) -> Result<Artifact, GraphError> {
    let mut graph = Graph::new();
    let image = graph.input("image", model.input);
    let x = model.normalise(&mut graph, image)?;
    let logits = model.tail(&mut graph, x, 0)?;
    plan(&graph, &[Entry { name: "forward", given: &[image], want: &[logits], updates: &[], capacity: 1 }])
}

/// The autoencoder on images, and its decoder on variants, as in a sweep.
fn spliced(tap: &Tap, ae: &Autoencoder) -> Result<Artifact, GraphError> {
    let mut graph = Graph::new();
    let x = graph.input("tap", tap.shape);
    let code = ae.encode(&mut graph, x)?;
    let pre = ae.pre(&mut graph, code)?;
    let (images, sets) = (graph.index_input("images"), graph.index_input("sets"));
    let keep = graph.whole_input("keep", [1, ae.nodes]);
    let cleared = ae.intervened_pre(&mut graph, pre, code, Lists { images, sets, keep })?;
    let out = ae.decode(&mut graph, cleared)?;
    let entry = |name, given, want| Entry { name, given, want, updates: &[], capacity: 1 };
    plan(&graph, &[entry("images", &[x], &[code, pre]), entry("variants", &[pre, code, images, sets, keep], &[out])])
}

/// Every step, in order.
fn rows(artifact: &Artifact, precision: Precision) -> Vec<Row> {
    let steps = artifact.entries().iter().flat_map(|entry| &entry.steps);
    let graph = artifact.graph();
    let row = |&id| {
        let node = graph.node(id);
        let inputs: Vec<&Node> = node.inputs.iter().map(|&input| graph.node(input)).collect();
        Row::of(node, &inputs, precision)
    };
    steps.filter(|&&id| !artifact.is_done_in_place(id)).map(row).collect()
}

impl Row {
    fn of(node: &Node, inputs: &[&Node], precision: Precision) -> Row {
        let kernel = |work| kernel_of(&Problem::new("", 1, work), precision);
        let conv = |s: ConvShape, front: Pass| {
            [front, Pass::GradInput, Pass::GradWeight].map(|pass| kernel(Work::Conv(pass, s)))
        };
        let map = |map, shape: &Shape| kernel(Work::Map(map, dims3(shape)));
        let relu = |activation: &Activation| if *activation == Activation::Relu { " + relu" } else { "" };
        // a fused step has the name of its last layer; its weight knows the first
        let weight = |n: &Node| n.name.trim_end_matches(".weight").trim_end_matches(".folded").to_string();
        let (name, op) = (node.name.clone(), node.op.name());
        let x = inputs.first().map_or(&node.shape, |x| &x.shape);
        let plain = |layer, cpu, cuda| Row { name: name.clone(), layer, cpu, cuda, winograd: None };
        let changed = || {
            let to = if *x == node.shape { String::new() } else { format!(" to {}", node.shape) };
            format!("{op} {x}{to}{}", node.op.attributes())
        };
        match (&node.op, inputs) {
            (Op::Conv2d { window, prologue, activation }, [x, w, ..]) => {
                let s = ConvShape::new(&x.shape, &w.shape, *window);
                let norm = if w.name.ends_with(".folded.weight") { " + norm" } else { "" };
                // by tensor cores, and by odd channels, the norm is a step in front
                let (before, front) = match prologue {
                    Prologue::None => ("", Pass::Forward),
                    Prologue::AffineRelu if precision == Precision::Fp32 && s.c.is_multiple_of(4) => {
                        ("norm + relu + ", Pass::Prologue)
                    }
                    Prologue::AffineRelu => ("norm + relu + ", Pass::Forward),
                };
                let tiles = Winograd::of(&s).filter(|_| *prologue == Prologue::None);
                Row {
                    name: weight(w),
                    layer: format!("{before}conv {s}{norm}{}", relu(activation)),
                    cpu: [
                        Cell::by(|conv| path::forward(&s, conv)),
                        Cell::by(|conv| path::grad_input(&s, conv)),
                        Cell::by(|_| path::grad_weight(&s)),
                    ],
                    cuda: conv(s, front),
                    winograd: tiles.zip(kernel(Work::Conv(Pass::Winograd, s))),
                }
            }
            (Op::InterveneConv { pad, activation }, [_, z, w, ..]) => {
                let s = ConvShape::new(&z.shape, &w.shape, Window { stride: 1, pad: *pad });
                let layer = format!("conv {s}{}", relu(activation));
                let name = format!("{}, a variant", weight(w));
                let cuda = [kernel(Work::InterveneConv(s)), None, None];
                Row { name, ..plain(layer, [Cell::by(|_| Path::Update), Cell::None, Cell::None], cuda) }
            }
            (Op::Linear { activation }, [x, w, ..]) => {
                let s = ConvShape::linear(x.shape.len(), node.shape.len());
                let layer = format!("linear {}->{}{}", s.c, s.o, relu(activation));
                Row { name: weight(w), ..plain(layer, [Cell::by(|_| Path::Linear); 3], conv(s, Pass::Forward)) }
            }
            (Op::MaxPool { size, window }, _) => {
                let [c, h, w] = dims3(x);
                let s = PoolShape { c, h, w, k: *size, stride: window.stride, pad: window.pad };
                let cuda = [kernel(Work::MaxPool(s)), kernel(Work::MaxPoolGrad(s)), None];
                plain(changed(), [Cell::Op(op), Cell::Op("max-pool-grad"), Cell::None], cuda)
            }
            (Op::AvgPool(_), _) => {
                let cuda = [map(Map::Average, x), map(Map::AverageGrad, x), None];
                plain(changed(), [Cell::Op(op), Cell::Op("avg-pool-grad"), Cell::None], cuda)
            }
            (Op::GlobalAvgPool, _) => {
                let cuda = [map(Map::GlobalAverage, x), map(Map::GlobalAverageGrad, x), None];
                plain(changed(), [Cell::Op(op), Cell::Op("grad"), Cell::None], cuda)
            }
            (Op::Affine { activation }, _) => {
                let cuda = [map(Map::Affine, x), map(Map::Affine, x), None];
                let layer = format!("norm {x}{}", relu(activation));
                plain(layer, [Cell::Op(op), Cell::Op(op), Cell::None], cuda)
            }
            // layers without weights that are fused in every network; what is left moves values
            _ => plain(changed(), [Cell::Op(op), Cell::Op(op), Cell::None], [None; 3]),
        }
    }

    fn cells(&self) -> [String; 9] {
        let [forward, grad_input, grad_weight] = self.cpu.map(Cell::text);
        let [y, gx, gw] = self.cuda.map(|kernel| kernel.unwrap_or("-").to_string());
        let tiles = self.winograd.map_or("-".into(), |(tiles, kernel)| format!("{kernel} {tiles:?}"));
        [self.name.clone(), self.layer.clone(), forward, grad_input, grad_weight, y, tiles, gx, gw]
    }

    fn json(&self) -> Value {
        let [y, gx, gw] = self.cpu.map(Cell::json);
        let [forward, grad_input, grad_weight] = self.cuda;
        let tiles = self.winograd.map(|(tiles, kernel)| json!({ "kernel": kernel, "tiles": format!("{tiles:?}") }));
        json!({ "name": self.name, "layer": self.layer,
            "cpu": { "forward": y, "grad_input": gx, "grad_weight": gw },
            "cuda": { "forward": forward, "winograd": tiles, "grad_input": grad_input, "grad_weight": grad_weight,
                "tensor_cores": forward.is_some_and(on_tensor_cores) } })
    }
}

/// Channels, height, width.
fn dims3(shape: &Shape) -> [usize; 3] {
    match *shape.dims() {
        [c, h, w] => [c, h, w],
        ref dims => [dims.iter().product(), 1, 1],
    }
}
