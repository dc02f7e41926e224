//! What the numerical tests share: the one list of cases ([`cases`]), named tolerances ([`Tol`]) and a way to run a case
//! on a backend ([`Subject`]); whole networks with planted weights are in [`hosts`].
//!
//! A case is a sentence and a closure that builds a small graph and its seeded data. `conformance` runs every case on
//! every backend against the reference, forward and gradient; `gradcheck` holds the reference itself to central
//! differences. A new op gets its cases here, and nowhere else. All data is representable in f32, so that every device
//! sees the same numbers.
#![allow(dead_code, reason = "each test binary uses its own part")]

mod cases;
pub mod fixture;
pub mod hosts;

#[allow(unused_imports, reason = "each test binary uses its own part")]
pub use cases::{OPS, cases, number};

use intervene::backend::cpu::Cpu;
use intervene::backend::cpu::isa::Isa;
use intervene::backend::cpu::path::{self, Path as ConvWay};
use intervene::backend::cuda::Cuda;
use intervene::backend::layout::ConvShape;
use intervene::backend::reference::Reference;
use intervene::backend::winograd::Winograd;
use intervene::backend::{Backend, ConvPath, Parameters, Program};
use intervene::graph::op::{Op, Reduction};
use intervene::graph::plan::{Artifact, Entry, EntryId, plan};
use intervene::graph::vjp::vjp;
use intervene::graph::{Extent, Graph, GraphError, NodeId};
use intervene::random::Stream;
use intervene::tensor::{Shape, TensorMut, TensorRef};
use intervene::weights::derived::Elements;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Rows that every case is built with; row-independence is tested at [`ROWS_TRIED`].
pub const ROWS: usize = 9;
/// Row counts whose results must agree bit for bit, row by row.
pub const ROWS_TRIED: [usize; 4] = [1, 2, 7, ROWS];

/// How far a device in f32 may be from the reference in f64. `magnitude` is the largest |reference| of the tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tol {
    /// The reference rounded to f32, bit for bit (the sign of zero aside).
    Exact,
    /// So many spacings of f32 at the reference's element.
    Ulp(u32),
    /// This fraction of the magnitude.
    Close(f64),
    /// Sums of k products: 4·sqrt(k)·2^-23 of the magnitude. Rounding errors of a dot product walk at random, so they
    /// grow as sqrt(k); 4 standard deviations cover tensors of some 10^4 elements.
    Dot {
        /// Length of the longest sum.
        k: usize,
    },
}

impl Tol {
    /// The greatest |got - reference| it lets pass.
    pub fn allowed(self, reference: f64, magnitude: f64) -> f64 {
        let eps = f64::from(f32::EPSILON);
        match self {
            Tol::Exact => 0.0,
            Tol::Ulp(n) => f64::from(n) * (eps * reference.abs()).max(f64::from(f32::MIN_POSITIVE) * eps),
            Tol::Close(part) => part * magnitude,
            Tol::Dot { k } => 4.0 * (k as f64).sqrt() * eps * magnitude,
        }
    }
}

/// Of the largest output, by Winograd's tiles: F(2x2) errs as a plain sum, F(4x4) by 1 to 4e-6 on all layers of VGG and
/// DenseNet.
pub fn tiles_tolerance(tiles: Winograd) -> Tol {
    match tiles {
        Winograd::F2 => Tol::Close(1.5e-6),
        Winograd::F4 => Tol::Close(1e-5),
    }
}

/// The worst element of a comparison.
#[derive(Debug)]
pub struct Worst {
    /// Its flat index.
    pub at: usize,
    /// |got - reference| there.
    pub difference: f64,
    /// Part of the tolerance it used; at most 1 when it passed, NaN or infinite where it did not.
    pub used: f64,
}

/// Compares element by element; the worst element, or the first that is outside of the tolerance. A NaN never passes.
pub fn compare(got: &[f64], reference: &[f64], tol: Tol) -> Result<Worst, Worst> {
    assert_eq!(got.len(), reference.len(), "lengths");
    let largest = reference.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    // A small tensor's sums can all cancel; their rounding errors are still those of k products of rms 1/3 (factors
    // uniform in [-1, 1]), whose sum has rms sqrt(k)/3.
    let magnitude = match tol {
        Tol::Dot { k } => largest.max((k as f64).sqrt() / 3.0),
        Tol::Exact | Tol::Ulp(_) | Tol::Close(_) => largest,
    };
    let mut worst = Worst { at: 0, difference: 0.0, used: 0.0 };
    for (at, (&g, &r)) in got.iter().zip(reference).enumerate() {
        let (g, r) = if tol == Tol::Exact { (f64::from(g as f32), f64::from(r as f32)) } else { (g, r) };
        let (difference, allowed) = ((g - r).abs(), tol.allowed(r, magnitude));
        let used = if difference == 0.0 { 0.0 } else { difference / allowed };
        if !(difference <= allowed) {
            return Err(Worst { at, difference, used });
        }
        if used > worst.used {
            worst = Worst { at, difference, used };
        }
    }
    Ok(worst)
}

/// What the host writes to a node.
#[derive(Clone, Debug)]
pub enum Data {
    /// Floats, each representable in f32.
    Floats(Vec<f64>),
    /// Labels and row lists.
    Indices(Vec<u32>),
}

/// Whether the case's data keeps its distance from points where a gradient jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinks {
    /// No kink within the reach of a central difference.
    Avoided,
    /// Ties and zeros are what the case is about.
    OnPurpose,
}

/// A graph under construction with its data; the vocabulary of the case list.
pub struct Build {
    /// The graph.
    pub graph: Graph,
    /// Data of inputs, parameters and states.
    pub data: Vec<(NodeId, Data)>,
    /// Nodes whose gradient the case asks for.
    pub wrt: Vec<NodeId>,
    /// Nodes that choose and carry no value: a NaN in them need not show.
    pub selectors: Vec<NodeId>,
    /// Rows of the case.
    pub rows: usize,
    stream: Stream,
}

impl Build {
    /// An empty one whose data is drawn from the stream `name`.
    pub fn new(name: &str, rows: usize) -> Self {
        let stream = Stream::new(20_190_922, name);
        Build { graph: Graph::new(), data: vec![], wrt: vec![], selectors: vec![], rows, stream }
    }

    /// `n` numbers of either sign with 0.1 <= |v| < 1: away from the kinks of ReLU and |.|, safe to divide by.
    pub fn away_from_zero(&self, n: usize) -> Vec<f64> {
        let id = self.data.len() as u64;
        (0..n as u32)
            .map(|i| {
                let sign = if self.stream.word(id, 2 * i) & 1 == 0 { 1.0 } else { -1.0 };
                sign * (0.1 + 0.9 * self.stream.uniform(id, 2 * i + 1))
            })
            .map(f64::from)
            .collect()
    }

    /// `n` different numbers in (-1, 1), no two nearer than 1/n: no ties in a window, no flat neighbours.
    pub fn all_different(&self, n: usize) -> Vec<f64> {
        let order = self.stream.permutation(self.data.len() as u64, n as u32);
        order.iter().map(|&i| f64::from((2.0 * i as f32 + 1.0) / n as f32 - 1.0)).collect()
    }

    /// Rows of an input, its gradient asked for.
    pub fn rows(
        &mut self,
        name: &str,
        shape: impl Into<Shape>,
        values: impl FnOnce(&Self, usize) -> Vec<f64>,
    ) -> NodeId {
        let shape = shape.into();
        let values = values(self, self.rows * shape.len());
        let id = self.graph.input(name, shape);
        self.wrt.push(id);
        self.data.push((id, Data::Floats(values)));
        id
    }

    /// Rows of an input away from zero, its gradient asked for.
    pub fn x(&mut self, name: &str, shape: impl Into<Shape>) -> NodeId {
        self.rows(name, shape, |b, n| b.away_from_zero(n))
    }

    /// Rows of an input, all elements different, its gradient asked for.
    pub fn x_different(&mut self, name: &str, shape: impl Into<Shape>) -> NodeId {
        self.rows(name, shape, |b, n| b.all_different(n))
    }

    /// A parameter, its gradient asked for; scaled so that a layer keeps its input's magnitude.
    pub fn weight(&mut self, name: &str, shape: impl Into<Shape>) -> NodeId {
        let shape = shape.into();
        let fan_in: usize = shape.dims().iter().skip(1).product();
        let scale = 1.0 / (fan_in as f64).sqrt();
        let values = self.away_from_zero(shape.len()).iter().map(|v| f64::from((v * scale) as f32)).collect();
        let id = self.graph.parameter(name, shape).expect("declared once");
        self.wrt.push(id);
        self.data.push((id, Data::Floats(values)));
        id
    }

    /// An input without rows; its gradient is not asked for.
    pub fn whole(&mut self, name: &str, shape: impl Into<Shape>, values: Vec<f64>) -> NodeId {
        let id = self.graph.whole_input(name, shape);
        let values = values.iter().map(|&v| f64::from(v as f32)).collect();
        self.data.push((id, Data::Floats(values)));
        id
    }

    /// A row list or labels.
    pub fn indices(&mut self, name: &str, values: Vec<u32>) -> NodeId {
        let id = self.graph.index_input(name);
        self.data.push((id, Data::Indices(values)));
        id
    }

    /// One label below `classes` a row.
    pub fn labels(&mut self, classes: u32) -> NodeId {
        let id = self.data.len() as u64;
        let labels = (0..self.rows as u32).map(|i| self.stream.below(id, i, classes)).collect();
        self.indices("label", labels)
    }

    /// `values` in place of the data of `id`.
    pub fn set(&mut self, id: NodeId, values: Data) {
        if let Some(slot) = self.data.iter_mut().find(|d| d.0 == id) {
            slot.1 = values;
        }
    }
}

type Make = Box<dyn Fn(&mut Build) -> Result<NodeId, GraphError> + Send + Sync>;

/// One case: a sentence, tolerances, and how to build it.
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Tolerance of the output.
    pub forward: Tol,
    /// Tolerance of each gradient.
    pub gradient: Tol,
    /// Whether central differences apply.
    pub kinks: Kinks,
    /// Of a convolution, which may go by tiles.
    conv: Option<ConvShape>,
    make: Make,
}

impl Case {
    /// A case away from kinks.
    pub fn new(
        name: impl Into<String>,
        (forward, gradient): (Tol, Tol),
        make: impl Fn(&mut Build) -> Result<NodeId, GraphError> + Send + Sync + 'static,
    ) -> Self {
        Case { name: name.into(), forward, gradient, kinks: Kinks::Avoided, conv: None, make: Box::new(make) }
    }

    /// The same on ties or zeros, where central differences say nothing.
    pub fn on_kinks(mut self) -> Self {
        self.kinks = Kinks::OnPurpose;
        self
    }

    /// A convolution of that shape.
    pub fn of_conv(mut self, shape: ConvShape) -> Self {
        self.conv = Some(shape);
        self
    }

    /// By which tiles the CPU takes it, forward and towards the input, where Winograd's are the default.
    pub fn tiles(&self) -> [Option<Winograd>; 2] {
        let of = |path| if let ConvWay::Winograd(tiles) = path { Some(tiles) } else { None };
        let conv = self.conv.as_ref();
        [path::forward, path::grad_input].map(|path| conv.and_then(|s| of(path(s, ConvPath::Winograd))))
    }

    /// How far `backend` may be off, forward (`None`) or in the gradient of the node of that name.
    pub fn tolerance(&self, backend: &dyn Backend, gradient_of: Option<&str>) -> Tol {
        let by_tiles = backend.name().starts_with("cpu") && backend.details().conv == ConvPath::Winograd;
        let (exact, tiles) = match gradient_of {
            None => (self.forward, self.tiles()[0]),
            Some("x") => (self.gradient, self.tiles()[1]),
            Some(_) => (self.gradient, None),
        };
        tiles.filter(|_| by_tiles).map_or(exact, tiles_tolerance)
    }

    /// The forward graph alone.
    pub fn subject(&self) -> Subject {
        let mut b = Build::new(&self.name, ROWS);
        let output = (self.make)(&mut b).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        Subject {
            graph: b.graph,
            data: b.data,
            output,
            seed: None,
            gradients: vec![],
            selectors: b.selectors,
            wrt: b.wrt,
        }
    }

    /// Forward and the gradient of every node that the case asks it for; `None` where it asks for none.
    pub fn with_gradient(&self) -> Option<Subject> {
        let subject = self.subject();
        (!subject.wrt.is_empty()).then(|| subject.differentiated())
    }
}

/// A graph with its data, ready to run.
#[derive(Clone)]
pub struct Subject {
    /// The graph.
    pub graph: Graph,
    /// Data of its inputs, parameters and states.
    pub data: Vec<(NodeId, Data)>,
    /// The forward result.
    pub output: NodeId,
    /// The output's gradient, an input.
    pub seed: Option<NodeId>,
    /// (node, its gradient).
    pub gradients: Vec<(NodeId, NodeId)>,
    /// Nodes that choose and carry no value.
    pub selectors: Vec<NodeId>,
    /// Nodes whose gradient is asked for.
    pub wrt: Vec<NodeId>,
}

impl Subject {
    /// Adds a seed of the output's shape and the gradients of `wrt`.
    pub fn differentiated(mut self) -> Subject {
        let (shape, extent) = (self.graph.node(self.output).shape.clone(), self.graph.node(self.output).extent);
        let b = Build::new("seed", ROWS);
        let (seed, n) = match extent {
            Extent::Rows => (self.graph.input("seed", shape.clone()), ROWS * shape.len()),
            Extent::Whole => (self.graph.whole_input("seed", shape.clone()), shape.len()),
        };
        self.data.push((seed, Data::Floats(b.away_from_zero(n))));
        let gradients = vjp(&mut self.graph, self.output, seed, &self.wrt).unwrap_or_else(|e| panic!("{e}"));
        self.gradients = self.wrt.iter().copied().zip(gradients).collect();
        self.seed = Some(seed);
        self
    }

    /// Everything that is read: the output, then the gradients.
    pub fn wanted(&self) -> Vec<NodeId> {
        std::iter::once(self.output).chain(self.gradients.iter().map(|g| g.1)).collect()
    }

    /// One entry over all data, wanting the output and the gradients.
    pub fn plan(&self) -> Artifact {
        let is_parameter = |id: NodeId| self.graph.parameter_named(&self.graph.node(id).name) == Some(id);
        let given: Vec<NodeId> = self.data.iter().map(|d| d.0).filter(|&id| !is_parameter(id)).collect();
        let want = self.wanted();
        let entry = Entry { name: "case", given: &given, want: &want, updates: &[], capacity: ROWS };
        plan(&self.graph, &[entry]).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Loads it on `backend` and writes its data.
    pub fn load(&self, backend: &dyn Backend) -> Box<dyn Program> {
        let mut program = backend.load(self.plan(), &self.weights()).unwrap_or_else(|e| panic!("{e}"));
        for (id, data) in &self.data {
            // an input that the gradient does not need has no slot
            if program.artifact().slot_of(*id).is_some() {
                write(program.as_mut(), *id, data);
            }
        }
        program
    }

    /// Its parameters, rounded to f32 (they are f32 already).
    pub fn weights(&self) -> Weights {
        let mut weights = Weights::default();
        for (id, data) in &self.data {
            if let Data::Floats(v) = data {
                let node = self.graph.node(*id);
                weights.insert(&node.name, node.shape.clone(), v.iter().map(|&v| v as f32).collect());
            }
        }
        weights
    }

    /// Runs the first `rows` rows and reads everything wanted.
    pub fn run(&self, program: &mut dyn Program, rows: usize) -> Vec<Vec<f64>> {
        program.run(EntryId(0), rows).unwrap_or_else(|e| panic!("{e}"));
        self.wanted().iter().map(|&id| read(program, id, rows)).collect()
    }

    /// True when `id` has rows and none of them hears of another: nothing on its way sums over rows or counts them.
    pub fn rows_are_independent(&self, id: NodeId) -> bool {
        let node = self.graph.node(id);
        let sums = |id: NodeId| {
            let n = self.graph.node(id);
            let reads_rows = n.inputs.iter().any(|&i| self.graph.node(i).extent == Extent::Rows);
            (n.extent == Extent::Whole && reads_rows) || matches!(n.op, Op::BroadcastRows(Reduction::Mean))
        };
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            if sums(id) {
                return false;
            }
            stack.extend(&self.graph.node(id).inputs);
        }
        node.extent == Extent::Rows
    }
}

/// Writes `data` to `id`.
pub fn write(program: &mut dyn Program, id: NodeId, data: &Data) {
    let data = match data {
        Data::Floats(v) => TensorRef::F64(v),
        Data::Indices(v) => TensorRef::U32(v),
    };
    program.write(id, data).unwrap_or_else(|e| panic!("{e}"));
}

/// Reads `rows` rows of `id`, or its whole.
pub fn read(program: &mut dyn Program, id: NodeId, rows: usize) -> Vec<f64> {
    let node = program.artifact().graph().node(id);
    let n = node.shape.len() * if node.extent == Extent::Rows { rows } else { 1 };
    let mut out = vec![0.0; n];
    program.read(id, TensorMut::F64(&mut out)).unwrap_or_else(|e| panic!("{e}"));
    out
}

/// The backends under test. A new one is one line.
pub fn backends() -> Vec<Box<dyn Backend>> {
    let mut all: Vec<Box<dyn Backend>> = vec![Box::new(Reference)];
    all.extend(Isa::available().into_iter().map(|isa| Box::new(Cpu::with_isa(isa)) as Box<dyn Backend>));
    all.push(Box::new(Cpu::new().with_conv(ConvPath::Exact)));
    all.push(Box::new(cuda()));
    all
}

/// The first CUDA device of the environment, opened once: the simulated one, or a GPU.
pub fn cuda() -> Cuda {
    static DEVICE: OnceLock<Cuda> = OnceLock::new();
    let open = || Cuda::open(0).unwrap_or_else(|e| panic!("{e}\nfirst do `. tests/cuda-sim/env.sh` in this shell"));
    DEVICE.get_or_init(open).clone()
}

/// Named weights in memory.
#[derive(Clone, Debug, Default)]
pub struct Weights(HashMap<String, (Shape, Vec<f32>)>);

impl Weights {
    /// Adds one.
    pub fn insert(&mut self, name: &str, shape: impl Into<Shape>, values: Vec<f32>) {
        self.0.insert(name.into(), (shape.into(), values));
    }
}

impl Parameters for Weights {
    fn parameter(&self, name: &str) -> Option<Elements<'_>> {
        self.0.get(name).map(|(shape, values)| (shape.clone(), Cow::Borrowed(values.as_slice())))
    }
}

/// The published weights, fetched once into the build directory; where they cannot be had, that is said.
pub fn published(name: &str) -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fetched");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_intervene"))
        .args(["fetch", name, "--quiet"])
        .env("XDG_DATA_HOME", &data)
        .output()
        .unwrap();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("could not be had"), "{said}");
        // past the capture of test output, so that it is seen
        let _ = writeln!(std::io::stderr(), "SKIPPED what needs {name}: {said}");
        return None;
    }
    Some(data.join("intervene").join(name))
}
