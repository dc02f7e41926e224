//! The paper's networks on every device against the f64 reference: tap, logits and the input's gradient at odd sizes, a
//! tail from a tap's maps bit for bit, and what the plan makes of DenseNet (no concat copies, norms folded).

mod common;

use common::{Tol, backends, compare};
use intervene::backend::reference::Reference;
use intervene::backend::{Backend, Completed, Program};
use intervene::graph::op::{Activation, Op, Prologue};
use intervene::graph::plan::{Artifact, Entry, EntryId, plan};
use intervene::graph::vjp::vjp;
use intervene::graph::{Graph, NodeId};
use intervene::model::{Layer, Learnt, Mode, Model};
use intervene::random::Stream;
use intervene::tensor::{Tensor, TensorMut, TensorRef};

/// The f64 reference takes some seconds an image.
const ROWS: usize = 1;

/// The network at a size that a naive loop can take, VGG's hidden classifier layers narrowed: their width is no shape of
/// its own, and 120 M weights are.
fn network(arch: &str, classes: usize, (height, width): (usize, usize)) -> Model {
    let mut model = Model::named(arch).and_then(|m| m.with_classes(classes)).unwrap();
    for child in &mut model.classifier {
        if let Layer::Linear { features } = &mut child.layer
            && *features == 4096
        {
            *features = 40;
        }
    }
    model.with_input(height, width).unwrap()
}

/// Weights that keep signals alive; norms that are no identities.
fn weights(model: &Model) -> Vec<(String, Tensor)> {
    let norm = |key: &str, tensor: Tensor| {
        let stream = Stream::new(7, key);
        let value = |low: f32| Tensor::from_fn(tensor.shape().clone(), |i| low + stream.uniform(0, i as u32));
        match key.rsplit('.').next() {
            Some("running_mean") => value(-0.5),
            Some("running_var") => value(0.5),
            Some("weight") if tensor.shape().rank() == 1 => value(0.5),
            Some("bias") if tensor.data().iter().all(|&b| b == 0.0) => value(-0.5),
            _ => tensor,
        }
    };
    model.initial_weights(3).into_iter().map(|(key, tensor)| (key.clone(), norm(&key, tensor))).collect()
}

struct Net {
    artifact: Artifact,
    x: NodeId,
    seed: NodeId,
    tap: NodeId,
    logits: NodeId,
    gradient: NodeId,
}

/// Entries: everything at once with the gradient; the front; the tail of the front's maps.
fn net(model: &Model, tap: &str) -> Net {
    let number = model.tap(tap).unwrap().number;
    let mut g = Graph::new();
    let x = g.input("x", model.input);
    let normalised = model.normalise(&mut g, x).unwrap();
    let tap = model.front(&mut g, normalised, 0, number).unwrap();
    let logits = model.tail(&mut g, tap, number).unwrap();
    let seed = g.input("seed", [model.classes]);
    let gradient = vjp(&mut g, logits, seed, &[x]).unwrap()[0];
    let entry = |name, given, want| Entry { name, given, want, updates: &[], capacity: ROWS };
    let (all, end, ends) = ([tap, logits, gradient], [tap], [logits]);
    let (given, from, cut) = ([x, seed], [x], [tap]);
    let artifact = plan(&g, &[entry("all", &given, &all), entry("front", &from, &end), entry("tail", &cut, &ends)]);
    Net { artifact: artifact.unwrap(), x, seed, tap, logits, gradient }
}

impl Net {
    fn load(&self, model: &Model, weights: &Vec<(String, Tensor)>, backend: &dyn Backend) -> Box<dyn Program> {
        let mut program =
            backend.load(self.artifact.clone(), &Completed { weights, derived: &model.constants() }).unwrap();
        let stream = Stream::new(1, "pixels");
        let pixels: Vec<f32> =
            (0..ROWS * model.input.iter().product::<usize>()).map(|i| stream.uniform(0, i as u32)).collect();
        let seed: Vec<f32> = (0..ROWS * model.classes).map(|i| stream.uniform(1, i as u32) - 0.5).collect();
        program.write(self.x, TensorRef::F32(&pixels)).unwrap();
        program.write(self.seed, TensorRef::F32(&seed)).unwrap();
        program
    }

    fn read(&self, program: &mut dyn Program, node: NodeId) -> Vec<f64> {
        let mut out = vec![0.0; ROWS * program.artifact().graph().node(node).shape.len()];
        program.read(node, TensorMut::F64(&mut out)).unwrap();
        out
    }
}

#[test]
fn every_network_gives_the_references_answers_on_every_device() {
    for (arch, classes, size, tap) in [
        // one of the two VGGs: they differ in numbers of layers
        ("vgg16", 5, (33, 40), "features.12"),
        ("densenet121", 14, (37, 44), "features.transition2"),
    ] {
        let model = network(arch, classes, size);
        let (net, weights) = (net(&model, tap), weights(&model));
        let mut reference = net.load(&model, &weights, &Reference);
        reference.run(EntryId(0), ROWS).unwrap();
        let nodes = [(net.tap, "tap", 1e-5), (net.logits, "logits", 1e-5), (net.gradient, "gradient", 1e-4)];
        let want = nodes.map(|(node, ..)| net.read(reference.as_mut(), node));
        assert!(want[1].iter().any(|v| v.abs() > 1e-3), "{arch}: signals fade: {:?}", want[1]);
        for backend in backends().iter().skip(1) {
            let mut program = net.load(&model, &weights, backend.as_ref());
            program.run(EntryId(0), ROWS).unwrap();
            for ((node, what, share), want) in nodes.iter().zip(&want) {
                let got = net.read(program.as_mut(), *node);
                let found = compare(&got, want, Tol::Close(*share));
                let line = format!("{arch} {what} on {}: {found:?}", backend.name());
                println!("{line}");
                assert!(found.is_ok(), "{line}");
            }
            let whole = net.read(program.as_mut(), net.logits);
            program.run(EntryId(1), ROWS).unwrap();
            program.run(EntryId(2), ROWS).unwrap();
            let tail = net.read(program.as_mut(), net.logits);
            let same = tail.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{arch}: the tail of a tap's maps on {}", backend.name());
        }
    }
}

/// The steps of a forward run through DenseNet-121 and its dump on failure.
#[test]
fn no_concat_of_densenet_copies_and_a_dense_layers_norms_are_fused() {
    let model = network("densenet121", 14, (64, 64));
    let mut g = Graph::new();
    let x = g.input("x", model.input);
    let normalised = model.normalise(&mut g, x).unwrap();
    let tap = model.front(&mut g, normalised, 0, 8).unwrap();
    let logits = model.tail(&mut g, tap, 8).unwrap();
    let (given, want, from) = ([x], [tap], [tap]);
    let wants = [logits];
    let entry = |name, given, want| Entry { name, given, want, updates: &[], capacity: 4 };
    let artifact = plan(&g, &[entry("front", &given, &want), entry("tail", &from, &wants)]).unwrap();
    let graph = artifact.graph();
    let steps: Vec<NodeId> = artifact.entries().iter().flat_map(|e| e.steps.clone()).collect();
    let count = |of: &dyn Fn(&Op) -> bool| steps.iter().filter(|&&id| of(&graph.node(id).op)).count();
    assert_eq!(count(&|op| *op == Op::Concat), 58);
    let copying: Vec<&str> = steps
        .iter()
        .filter(|&&id| graph.node(id).op == Op::Concat && !artifact.is_done_in_place(id))
        .map(|&id| graph.node(id).name.as_str())
        .collect();
    // the tap's maps are kept for every tail, so the first layer behind it copies them into its block's slot
    assert_eq!(copying, ["features.denseblock3.denselayer1"]);
    // input, norm5, and those of the three transitions, whose pixels are pooled before they are convolved; every other norm rides
    // on a convolution
    assert_eq!(count(&|op| matches!(op, Op::Affine { .. })), 5);
    assert_eq!(count(&|op| matches!(op, Op::Relu)), 0);
    let fused = |op: &Op| matches!(op, Op::Conv2d { prologue: Prologue::AffineRelu, .. });
    assert_eq!(count(&fused), 58);
    assert_eq!(count(&|op| matches!(op, Op::Conv2d { activation: Activation::Relu, .. })), 58 + 1);
}

/// A step of training keeps what every layer read for its gradient: DenseNet's maps would be there once for each layer that
/// reads them, were they copied.
#[test]
fn no_concat_of_densenet_copies_while_it_learns_and_every_norm_takes_in_its_relu() {
    let model = network("densenet121", 14, (64, 64));
    let mut g = Graph::new();
    let x = g.input("x", model.input);
    let normalised = model.normalise(&mut g, x).unwrap();
    let mut learnt = Learnt::default();
    let maps = model.features_in(&mut g, normalised, &mut Mode::Training(&mut learnt)).unwrap();
    let logits = model.head_in(&mut g, maps, &mut Mode::Training(&mut learnt)).unwrap();
    assert_eq!((learnt.parameters.len(), learnt.statistics.len()), (120 + 2 * 121 + 2, 2 * 121));
    let seed = g.input("seed", [model.classes]);
    let want = vjp(&mut g, logits, seed, &learnt.parameters).unwrap();
    let given = [x, seed];
    let entry = Entry { name: "step", given: &given, want: &want, updates: &[], capacity: 4 };
    let artifact = plan(&g, &[entry]).unwrap();
    let graph = artifact.graph();
    let steps = &artifact.entries()[0].steps;
    let count = |of: &dyn Fn(&Op) -> bool| steps.iter().filter(|&&id| of(&graph.node(id).op)).count();
    let concats: Vec<NodeId> = steps.iter().copied().filter(|&id| graph.node(id).op == Op::Concat).collect();
    let copying = concats.iter().filter(|&&id| !artifact.is_done_in_place(id)).count();
    assert_eq!((concats.len(), copying), (58, 0));
    assert_eq!(count(&|op| matches!(op, Op::Normalise { activation: Activation::Relu, .. })), 121);
    assert_eq!(count(&|op| *op == Op::BatchMoments), 121);
    // what the gradients for x, weight and bias share is computed once
    assert_eq!(count(&|op| matches!(op, Op::NormaliseGradWeight { .. })), 121);
    assert_eq!(count(&|op| *op == Op::SumToChannels), 121 + 1);
}
