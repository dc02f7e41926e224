//! Whole subjects for the causal tests: small hosts, autoencoders that are seeded or the identity by construction, images,
//! and a program of any piece of them. Weights are plain vectors, so that a test can plant what it wants to find.

use super::{Data, read, write};
use intervene::attack::Attacked;
use intervene::backend::reference::Reference;
use intervene::backend::{Backend, Completed, Program};
use intervene::causal::intervention::NodeSet;
use intervene::causal::sweep::{Batch, Logits, Subject, Sweep};
use intervene::data::Dataset;
use intervene::graph::op::Window;
use intervene::graph::plan::{Entry, EntryId, plan};
use intervene::graph::{Graph, GraphError, NodeId};
use intervene::model::autoencoder::{Autoencoder, HIDDEN, NODES};
use intervene::model::small::fashion;
use intervene::model::{Child, Head, Layer, Model, Tap};
use intervene::random::Stream;
use intervene::tensor::Tensor;
use intervene::weights::Weights;
use std::path::Path;

/// A 3x3 convolution that keeps the size.
pub const fn conv3(channels: usize) -> Layer {
    Layer::Conv { channels, kernel: 3, window: Window { stride: 1, pad: 1 }, bias: true }
}

/// A model of `features` and a classifier, children named as torchvision does.
pub fn model(input: [usize; 3], classes: usize, features: &[Layer], classifier: &[Layer]) -> Model {
    let named = |prefix: &str, layers: &[Layer]| {
        let child = |(i, layer): (usize, &Layer)| Child { name: format!("{prefix}.{i}"), layer: layer.clone() };
        layers.iter().enumerate().map(child).collect::<Vec<_>>()
    };
    Model {
        arch: "test",
        input,
        classes,
        head: Head::Softmax,
        mean: vec![0.4; input[0]],
        std: vec![0.3; input[0]],
        features: named("features", features),
        classifier: named("classifier", classifier),
    }
}

/// Two convolutions with a pool between them, two linear layers; odd sizes, so that no vector width divides them.
pub fn small(classes: usize) -> Model {
    let pool = Layer::MaxPool { size: 2, window: Window { stride: 2, pad: 0 } };
    let valid = Layer::Conv { channels: 7, kernel: 3, window: Window { stride: 1, pad: 0 }, bias: true };
    let linear = |features| Layer::Linear { features };
    let features = [conv3(5), Layer::Relu, pool, valid, Layer::Relu];
    model([2, 9, 11], classes, &features, &[Layer::Flatten, linear(13), Layer::Relu, linear(classes)])
}

/// One convolution with ReLU, then a linear head on its maps: [`maps_head`] makes it read their means.
pub fn maps(channels: usize, classes: usize) -> Model {
    model([1, 4, 8], classes, &[conv3(channels), Layer::Relu], &[Layer::Flatten, Layer::Linear { features: classes }])
}

/// Positions of a map of [`maps`]: a power of two, so that a weight divided by it is exact.
pub const MAP: usize = 32;

/// A host with an autoencoder at a tap, and the weights of both.
#[derive(Clone)]
pub struct Host {
    pub model: Model,
    pub tap: Tap,
    pub autoencoder: Autoencoder,
    pub weights: Vec<(String, Tensor)>,
}

impl Host {
    /// Seeded weights, twice as large as a training would start from, so that signals do not fade on their way.
    pub fn new(model: Model, tap: usize, (hidden, nodes): (usize, usize), seed: u64) -> Host {
        let tap = model.tap(&tap.to_string()).expect("a tap");
        let autoencoder = Autoencoder::at(&tap, hidden, nodes);
        let mut weights = model.initial_weights(seed);
        weights.extend(autoencoder.initial_weights(seed));
        for (_, tensor) in weights.iter_mut().filter(|(_, t)| t.shape().rank() > 1) {
            tensor.data_mut().iter_mut().for_each(|w| *w *= 2.0);
        }
        Host { model, tap, autoencoder, weights }
    }

    /// [`small`] at a tap, a small autoencoder.
    pub fn small(tap: usize) -> Host {
        Host::new(small(4), tap, (9, 6), 3)
    }

    /// A small VGG: two stages of two 3x3 layers, of which all but the first go by Winograd's tiles where these are chosen,
    /// with an autoencoder of 64 nodes whose layers do so, too, the decoder's first among them.
    pub fn wide() -> Host {
        let pool = Layer::MaxPool { size: 2, window: Window { stride: 2, pad: 0 } };
        let (a, b) = ([conv3(64), Layer::Relu], [conv3(128), Layer::Relu]);
        let features = [&a[..], &a, std::slice::from_ref(&pool), &b, &b, std::slice::from_ref(&pool)].concat();
        let classifier = [Layer::Flatten, Layer::Linear { features: 5 }];
        Host::new(model([3, 12, 12], 5, &features, &classifier), 2, (64, 64), 7)
    }

    /// The Fashion net at tap 2, seeded.
    pub fn fashion_seeded() -> Host {
        Host::new(fashion(), 2, (HIDDEN, NODES), 5)
    }

    /// The Fashion net at tap 2 with the weights that come with this crate.
    pub fn fashion_trained() -> Host {
        let mut host = Host::fashion_seeded();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights");
        let open = |file| Weights::open(&folder.join(file)).unwrap_or_else(|e| panic!("{e}"));
        let files = [open("fashion.safetensors"), open("fashion-ae.safetensors")];
        for (name, tensor) in &mut host.weights {
            let found = files.iter().find_map(|f| f.get(name)).unwrap_or_else(|| panic!("no {name}"));
            *tensor = Tensor::new(found.shape.clone(), found.data.to_vec()).expect("a whole tensor");
        }
        host
    }

    /// With an autoencoder that is the identity on what is not negative: Dirac kernels, no bias. Needs hidden layers and
    /// a code as wide as the tap.
    pub fn with_identity(mut self) -> Host {
        for (name, tensor) in self.weights.iter_mut().filter(|(name, _)| name.starts_with("ae.")) {
            let dims = tensor.shape().dims().to_vec();
            tensor.data_mut().fill(0.0);
            let [o, i, side, _] = dims[..] else { continue };
            assert!(name.ends_with("weight") && o.min(i) >= self.tap.shape[0]);
            for k in 0..o.min(i) {
                tensor.data_mut()[(k * i + k) * side * side + side * side / 2] = 1.0;
            }
        }
        self
    }

    /// The elements of a weight.
    pub fn weight(&mut self, name: &str) -> &mut [f32] {
        let found = self.weights.iter_mut().find(|(n, _)| n == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.data_mut()
    }

    /// The elements of a weight that belong to code channel `node` (`dec1`, which reads the code).
    pub fn decoder_weights_of(&mut self, node: usize) -> impl Iterator<Item = &mut f32> {
        let nodes = self.autoencoder.nodes;
        self.weight("ae.dec1.weight").iter_mut().enumerate().filter(move |(i, _)| i / 9 % nodes == node).map(|(_, w)| w)
    }

    /// Makes `node` 0 on every image: a bias that no code reaches over.
    pub fn with_dead(mut self, node: usize) -> Host {
        self.weight("ae.code.bias")[node] = -1e4;
        self
    }

    /// One set a node.
    pub fn singles(&self) -> Vec<NodeSet> {
        (0..self.autoencoder.nodes).map(|n| self.set(&[n])).collect()
    }

    /// A set of nodes.
    pub fn set(&self, nodes: &[usize]) -> NodeSet {
        NodeSet::of(nodes, self.autoencoder.nodes).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Host and autoencoder, as a sweep takes them.
    pub fn subject(&self) -> Subject<'_> {
        let Host { model, tap, autoencoder, weights } = self;
        Subject { model, tap, autoencoder, weights, attacked: Attacked::Host }
    }

    /// The sweep over `sets` with `images` images and `variants` variants a batch.
    pub fn sweep(&self, sets: &[NodeSet], (images, variants): (usize, usize), backend: &dyn Backend) -> Sweep {
        Sweep::new(self.subject(), sets, Batch { images, variants }, backend).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Potential outcomes of every node, in f64 (exact from every device).
    pub fn outcomes(&self, x: &[f32], backend: &dyn Backend) -> Logits<f64> {
        let rows = x.len() / self.pixels();
        self.sweep(&self.singles(), (rows, 7), backend).outcomes(x).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Pixels of an image.
    pub fn pixels(&self) -> usize {
        self.model.input.iter().product()
    }

    /// `n` images of noise on the grid k/256 with 1/8 <= k/256 < 7/8: sums with powers of two below 1/8 are exact.
    pub fn images(&self, n: usize, seed: u64) -> Vec<f32> {
        let stream = Stream::new(seed, "images");
        let pixel = |i: usize| (32 + stream.below(0, i as u32, 192)) as f32 / 256.0;
        (0..n * self.pixels()).map(pixel).collect()
    }

    /// A program of one entry that is given the images and wants what `build` makes of their normalised pixels.
    pub fn piece(&self, backend: &dyn Backend, rows: usize, build: impl Fn(&mut Piece<'_>) -> Built) -> Loaded {
        let mut graph = Graph::new();
        let x = graph.input("x", self.model.input);
        let normalised = self.model.normalise(&mut graph, x).unwrap_or_else(|e| panic!("{e}"));
        let mut piece = Piece { host: self, graph: &mut graph, normalised, given: vec![x] };
        let want = build(&mut piece).unwrap_or_else(|e| panic!("{e}"));
        let given = piece.given;
        let entry = Entry { name: "piece", given: &given, want: &want, updates: &[], capacity: rows };
        let artifact = plan(&graph, &[entry]).unwrap_or_else(|e| panic!("{e}"));
        let constants = self.model.constants();
        let program = backend
            .load(artifact, &Completed { weights: &self.weights, derived: &constants })
            .unwrap_or_else(|e| panic!("{e}"));
        Loaded { program, given, want }
    }

    /// p_orig's and p_idle's logits as one graph with one entry: the oracle of the sweep's cached prefix.
    pub fn whole(&self, x: &[f32], backend: &dyn Backend) -> [Vec<f64>; 2] {
        let rows = x.len() / self.pixels();
        let mut loaded = self.piece(backend, rows, |p| {
            let orig = self.model.tail(p.graph, p.normalised, 0)?;
            let code = p.code()?;
            let pre = self.autoencoder.pre(p.graph, code)?;
            Ok(vec![orig, p.behind(pre)?])
        });
        let both = loaded.run(&[Data::Floats(widen(x))], rows);
        both.try_into().expect("two wanted nodes")
    }
}

/// What `build` of [`Host::piece`] returns: the wanted nodes.
pub type Built = Result<Vec<NodeId>, GraphError>;

/// A graph that begins with a host's normalised images.
pub struct Piece<'a> {
    pub host: &'a Host,
    pub graph: &'a mut Graph,
    pub normalised: NodeId,
    /// Nodes that the caller writes, the images first.
    pub given: Vec<NodeId>,
}

impl Piece<'_> {
    /// The tap's maps.
    pub fn front(&mut self) -> Result<NodeId, GraphError> {
        self.host.model.front(self.graph, self.normalised, 0, self.host.tap.number)
    }

    /// The code.
    pub fn code(&mut self) -> Result<NodeId, GraphError> {
        let front = self.front()?;
        self.host.autoencoder.encode(self.graph, front)
    }

    /// From the decoder's first convolution to the logits.
    pub fn behind(&mut self, pre: NodeId) -> Result<NodeId, GraphError> {
        let decoded = self.host.autoencoder.decode(self.graph, pre)?;
        self.host.model.tail(self.graph, decoded, self.host.tap.number)
    }

    /// A row list that the caller writes.
    pub fn list(&mut self, name: &str) -> NodeId {
        self.given.push(self.graph.index_input(name));
        self.given[self.given.len() - 1]
    }
}

/// A loaded piece.
pub struct Loaded {
    pub program: Box<dyn Program>,
    given: Vec<NodeId>,
    want: Vec<NodeId>,
}

impl Loaded {
    /// Writes the given nodes in order, runs and reads what is wanted.
    pub fn run(&mut self, data: &[Data], rows: usize) -> Vec<Vec<f64>> {
        assert_eq!(data.len(), self.given.len());
        for (id, data) in self.given.iter().zip(data) {
            write(self.program.as_mut(), *id, data);
        }
        self.program.run(EntryId(0), rows).unwrap_or_else(|e| panic!("{e}"));
        self.want.iter().map(|&id| read(self.program.as_mut(), id, rows)).collect()
    }
}

/// Every output class of [`maps`] reads the mean of each map: `weights` is classes x channels.
pub fn maps_head(host: &mut Host, weights: &[f32]) {
    let row = host.weight("classifier.1.weight");
    assert_eq!(row.len(), weights.len() * MAP);
    row.chunks_exact_mut(MAP).zip(weights).for_each(|(w, a)| w.fill(a / MAP as f32));
}

/// Exact.
pub fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// The bits of every number, so that NaN equals itself and -0 is not 0.
pub fn bits<T: Copy + Into<f64>>(x: &[T]) -> Vec<u64> {
    x.iter().map(|&v| v.into().to_bits()).collect()
}

/// Largest |a - b|; NaN when one is.
pub fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |m: f64, d| if m.is_nan() || d <= m { m } else { d })
}

/// Largest |x|.
pub fn largest(x: &[f64]) -> f64 {
    largest_difference(x, &vec![0.0; x.len()])
}

/// f64 throughout: some hundred roundings of 1.1e-16.
pub const F64: f64 = 1e-13;

/// f32 on the way: sums of k products round at random, 4 standard deviations of them (as `Tol::Dot`).
pub fn f32_sum(k: usize) -> f64 {
    4.0 * (k as f64).sqrt() * f64::from(f32::EPSILON)
}

/// What `backend` may be off by, as a part of the largest value, after sums of `k` products.
pub fn tolerance(backend: &dyn Backend, k: usize) -> f64 {
    if backend.name() == Reference.name() { F64 } else { f32_sum(k) }
}

/// The value, or a panic with what went wrong.
pub fn e<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|e| panic!("{e}"))
}

/// Row `i` of `classes` values.
pub fn row(data: &[f64], i: usize, classes: usize) -> &[f64] {
    &data[i * classes..(i + 1) * classes]
}

pub fn dataset(host: &Host, n: usize, byte: impl Fn(usize) -> u8) -> Dataset {
    let bytes = (0..n * host.pixels()).map(byte).collect();
    let labels = (0..n).map(|i| (i % host.model.classes) as u32).collect();
    let classes = (0..host.model.classes).map(|c| c.to_string()).collect();
    e(Dataset::new(bytes, labels, host.model.input, classes))
}

/// Grey rectangles on black with some noise: what the Fashion net takes for clothes.
pub fn garments(n: usize) -> Vec<f32> {
    let stream = Stream::new(1, "garments");
    let mut x = Vec::new();
    for image in 0..n as u64 {
        let below = |i, bound| stream.below(image, i, bound) as usize;
        let (top, left) = (1 + below(0, 8), 2 + below(1, 8));
        let (height, width, grey) = (10 + below(2, 9), 7 + below(3, 11), 0.3 + 0.6 * stream.uniform(image, 4));
        for at in 0..784 {
            let inside = (top..top + height).contains(&(at / 28)) && (left..left + width).contains(&(at % 28));
            let texture = 0.2 * (stream.uniform(image, 100 + at as u32) - 0.5);
            x.push(if inside { (grey + texture).clamp(0.0, 1.0) } else { 0.0 });
        }
    }
    x
}

pub fn softmax(o: &[f64]) -> Vec<f64> {
    let max = o.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = o.iter().map(|v| (v - max).exp()).sum();
    o.iter().map(|v| (v - max).exp() / sum).collect()
}
