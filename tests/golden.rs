//! The reference against values that PyTorch computed in float64 (`fixtures/make_golden.py` made them and says how):
//! single ops with all their gradients, pooling ties, losses, Adam, a whole net and three steps of its training.

mod common;

use common::fixture::Golden;
use common::{Build, Data, Subject, Tol, Weights, compare, read, write};
use intervene::answer::Head;
use intervene::backend::Backend;
use intervene::backend::reference::Reference;
use intervene::graph::op::{Activation, Moment, Op, Prologue, Window};
use intervene::graph::plan::{Entry, EntryId, plan};
use intervene::graph::vjp::vjp;
use intervene::graph::{Graph, GraphError, NodeId};
use intervene::model::small::fashion;
use intervene::model::{Child, Layer, Model};
use intervene::tensor::Shape;
use intervene::train::Schedule;

/// f64 on both sides, sums in another order: a few hundred roundings of 1.1e-16.
const TOL: Tol = Tol::Close(1e-13);

/// A graph that is filled from one golden case.
struct Filled<'a> {
    golden: &'a Golden,
    case: &'a str,
    b: Build,
    rows: usize,
}

impl<'a> Filled<'a> {
    fn new(golden: &'a Golden, case: &'a str) -> Self {
        Filled { golden, case, b: Build::new(case, 0), rows: 0 }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.case)
    }

    fn rows(&mut self, name: &str) -> NodeId {
        let (shape, values) = self.golden.floats(&self.key(name));
        self.rows = shape[0];
        let id = self.b.graph.input(name, &shape[1..]);
        self.b.data.push((id, Data::Floats(values)));
        id
    }

    fn whole(&mut self, name: &str) -> NodeId {
        let (shape, values) = self.golden.floats(&self.key(name));
        let id = self.b.graph.parameter(name, shape).expect("declared once");
        self.b.data.push((id, Data::Floats(values)));
        id
    }

    fn labels(&mut self, name: &str) -> NodeId {
        let labels = self.golden.integers(&self.key(name));
        self.b.indices(name, labels)
    }

    /// Seed 1 for a loss without rows.
    fn one(&mut self) -> NodeId {
        self.b.whole("one", [1], vec![1.0])
    }

    /// Runs and compares each node with the golden value of that name.
    fn check(self, output: (NodeId, &str), others: &[(NodeId, &str)]) {
        let subject = Subject {
            graph: self.b.graph,
            data: self.b.data,
            output: output.0,
            seed: None,
            gradients: others.iter().map(|o| (o.0, o.0)).collect(),
            selectors: vec![],
            wrt: vec![],
        };
        let run = subject.run(subject.load(&Reference).as_mut(), self.rows);
        for ((_, name), got) in std::iter::once(&output).chain(others).zip(&run) {
            let key = format!("{}/{name}", self.case);
            let (_, want) = self.golden.floats(&key);
            match compare(got, &want, TOL) {
                Ok(w) => println!("{key}: {:.1} % of {TOL:?}", 100.0 * w.used),
                Err(w) => panic!("{key}: {} for {} at {}, {w:?}", got[w.at], want[w.at], w.at),
            }
        }
    }
}

fn layer(kind: &str, op: impl Fn(&Golden, &str) -> Op) -> Result<(), GraphError> {
    let golden = Golden::open();
    for case in golden.cases(kind) {
        let mut f = Filled::new(&golden, &case);
        let inputs = [f.rows("x"), f.whole("w"), f.whole("b")];
        let y = f.b.graph.push("y", op(&golden, &case), &inputs)?;
        let gy = f.rows("gy");
        let g = vjp(&mut f.b.graph, y, gy, &inputs)?;
        f.check((y, "y"), &[(g[0], "gx"), (g[1], "gw"), (g[2], "gb")]);
    }
    Ok(())
}

#[test]
fn convolution_and_its_three_gradients_equal_pytorchs() -> Result<(), GraphError> {
    layer("conv2d", |golden, case| Op::Conv2d {
        window: golden.window(case),
        prologue: Prologue::None,
        activation: Activation::None,
    })
}

#[test]
fn linear_and_its_three_gradients_equal_pytorchs() -> Result<(), GraphError> {
    layer("linear", |_, _| Op::Linear { activation: Activation::None })
}

#[test]
fn max_pooling_and_its_gradient_equal_pytorchs_with_ties_and_overlaps() -> Result<(), GraphError> {
    let golden = Golden::open();
    for case in golden.cases("max-pool") {
        let mut f = Filled::new(&golden, &case);
        let size = golden.integers(&format!("{case}/size"))[0] as usize;
        let (x, gy) = (f.rows("x"), f.rows("gy"));
        let y = f.b.graph.push("y", Op::MaxPool { size, window: golden.window(&case) }, &[x])?;
        let g = vjp(&mut f.b.graph, y, gy, &[x])?;
        f.check((y, "y"), &[(g[0], "gx")]);
    }
    Ok(())
}

#[test]
fn batch_norm_its_three_gradients_and_its_running_statistics_equal_pytorchs() -> Result<(), GraphError> {
    let golden = Golden::open();
    for case in golden.cases("batch-norm") {
        let mut f = Filled::new(&golden, &case);
        let (x, gy) = (f.rows("x"), f.rows("gy"));
        let (w, b, mean, variance) = (f.whole("w"), f.whole("b"), f.whole("mean"), f.whole("var"));
        let g = &mut f.b.graph;
        let moments = g.push("moments", Op::BatchMoments, &[x])?;
        let op = Op::Normalise { epsilon: 1e-5, activation: Activation::None };
        let y = g.push("y", op, &[x, moments, w, b])?;
        let positions = g.node(x).shape.dims()[1..].iter().product();
        let running = |moment| Op::Running { moment, momentum: 0.1 };
        let mean = g.push("mean'", running(Moment::Mean), &[mean, moments])?;
        let variance = g.push("var'", running(Moment::Variance { positions }), &[variance, moments])?;
        let d = vjp(g, y, gy, &[x, w, b])?;
        f.check((y, "y"), &[(d[0], "gx"), (d[1], "gw"), (d[2], "gb"), (mean, "mean_after"), (variance, "var_after")]);
    }
    Ok(())
}

#[test]
fn a_plateaus_rates_equal_pytorchs() {
    let golden = Golden::open();
    let (figures, rates) = (golden.floats("plateau/figures").1, golden.floats("plateau/rates").1);
    let schedule = Schedule::Plateau { factor: 0.1, patience: 2 };
    for (epoch, want) in rates.iter().enumerate() {
        let got = schedule.rate(1e-3, 0, 1, figures[..epoch].iter().copied());
        assert_eq!(got.to_bits(), want.to_bits(), "epoch {epoch}: {got} for {want}");
    }
    assert!(rates[0] > 500.0 * rates[rates.len() - 1], "{rates:?}");
}

#[test]
fn cross_entropy_and_its_gradient_equal_pytorchs() -> Result<(), GraphError> {
    let golden = Golden::open();
    for case in golden.cases("cross-entropy") {
        let mut f = Filled::new(&golden, &case);
        let (x, label, one) = (f.rows("x"), f.labels("label"), f.one());
        let y = f.b.graph.push("y", Op::CrossEntropy, &[x, label])?;
        let mean = f.b.graph.mean_rows("mean", y)?;
        let g = vjp(&mut f.b.graph, mean, one, &[x])?;
        f.check((y, "y"), &[(mean, "mean"), (g[0], "gx")]);
    }
    Ok(())
}

/// `batchmean`: the sum over classes, averaged over rows only.
#[test]
fn kl_of_softmaxes_is_pytorchs_batchmean() -> Result<(), GraphError> {
    let golden = Golden::open();
    for case in golden.cases("kl") {
        let mut f = Filled::new(&golden, &case);
        let (target, x, one) = (f.rows("target"), f.rows("x"), f.one());
        let y = f.b.graph.push("y", Op::Kl(Head::Softmax), &[target, x])?;
        let mean = f.b.graph.mean_rows("mean", y)?;
        let g = vjp(&mut f.b.graph, mean, one, &[x])?;
        f.check((mean, "mean"), &[(g[0], "gx")]);
    }
    Ok(())
}

#[test]
fn l1_and_total_variation_equal_their_formulas_in_pytorch() -> Result<(), GraphError> {
    let golden = Golden::open();
    let mut f = Filled::new(&golden, "l1.0");
    let (x, target, one) = (f.rows("x"), f.rows("target"), f.one());
    let difference = f.b.graph.sub("difference", x, target)?;
    let y = f.b.graph.push("y", Op::MeanAbs, &[difference])?;
    let mean = f.b.graph.mean_rows("mean", y)?;
    let g = vjp(&mut f.b.graph, mean, one, &[x])?;
    f.check((mean, "mean"), &[(g[0], "gx")]);
    for case in golden.cases("tv") {
        let mut f = Filled::new(&golden, &case);
        let (x, one) = (f.rows("x"), f.one());
        let y = f.b.graph.push("y", Op::TotalVariation, &[x])?;
        let mean = f.b.graph.mean_rows("mean", y)?;
        let g = vjp(&mut f.b.graph, mean, one, &[x])?;
        f.check((y, "y"), &[(mean, "mean"), (g[0], "gx")]);
    }
    Ok(())
}

/// Moments and step of Adam for `p`, as (destination, value) pairs.
fn adam(graph: &mut Graph, p: NodeId, gradient: NodeId, rate: NodeId) -> Result<Vec<(NodeId, NodeId)>, GraphError> {
    let (name, shape) = (graph.node(p).name.clone(), graph.node(p).shape.clone());
    let (m, v) = (graph.state(&format!("{name}.m"), shape.clone()), graph.state(&format!("{name}.v"), shape));
    let m_next = graph.push("m'", Op::AdamMean { beta: 0.9 }, &[m, gradient])?;
    let v_next = graph.push("v'", Op::AdamSquare { beta: 0.999 }, &[v, gradient])?;
    let p_next = graph.push("p'", Op::AdamStep { epsilon: 1e-8 }, &[p, m_next, v_next, rate])?;
    Ok(vec![(p, p_next), (m, m_next), (v, v_next)])
}

/// Learning rate and bias corrections of step `t`.
fn rate(t: i32) -> Data {
    Data::Floats(vec![1e-3, 1.0 - 0.9f64.powi(t), 1.0 - 0.999f64.powi(t)])
}

/// Compares how far `now` moved from `before`, so that a wrong step of 1e-3 cannot hide behind a large weight.
fn moved_alike(what: &str, before: &[f64], now: &[f64], want: &[f64]) {
    let step = |after: &[f64]| -> Vec<f64> { after.iter().zip(before).map(|(a, b)| a - b).collect() };
    let worst = compare(&step(now), &step(want), Tol::Close(1e-10));
    assert!(worst.is_ok(), "{what}: {worst:?}");
}

#[test]
fn three_steps_of_adam_equal_pytorchs_moments_and_all() -> Result<(), GraphError> {
    let golden = Golden::open();
    let (shape, p0) = golden.floats("adam/p0");
    let mut g = Graph::new();
    let p = g.parameter("p", shape.clone())?;
    let (gradient, rates) = (g.whole_input("g", shape.clone()), g.whole_input("rate", [3]));
    let updates = adam(&mut g, p, gradient, rates)?;
    let entry = Entry { name: "step", given: &[gradient, rates], want: &[], updates: &updates, capacity: 1 };
    let mut weights = Weights::default();
    weights.insert("p", Shape::from(shape), p0.iter().map(|&v| v as f32).collect());
    let mut program = Reference.load(plan(&g, &[entry])?, &weights).unwrap();
    let mut before = p0;
    for t in 1..=3 {
        write(program.as_mut(), gradient, &Data::Floats(golden.floats(&format!("adam/g{t}")).1));
        write(program.as_mut(), rates, &rate(t));
        program.run(EntryId(0), 1).unwrap();
        for ((to, _), name) in updates.iter().zip(["p", "m", "v"]) {
            let got = read(program.as_mut(), *to, 1);
            let (_, want) = golden.floats(&format!("adam/{name}{t}"));
            let worst = compare(&got, &want, TOL);
            assert!(worst.is_ok(), "{name} after step {t}: {worst:?}");
            if name == "p" {
                moved_alike("p", &before, &got, &want);
                before = want;
            }
        }
    }
    Ok(())
}

/// The Fashion network's layers at a size that fits a fixture.
fn small_net() -> Model {
    let conv = |channels| Layer::Conv { channels, kernel: 3, window: Window { stride: 1, pad: 0 }, bias: true };
    let mut model = Model { input: [1, 14, 14], classes: 3, ..fashion() };
    let resize = |child: &mut Child| match (child.name.as_str(), &mut child.layer) {
        ("features.0", layer) => *layer = conv(3),
        ("features.3", layer) => *layer = conv(4),
        ("classifier.0", layer) => *layer = Layer::Linear { features: 6 },
        ("classifier.2", layer) => *layer = Layer::Linear { features: 3 },
        _ => {}
    };
    model.features.iter_mut().chain(&mut model.classifier).for_each(resize);
    model
}

#[test]
fn a_fashion_net_and_three_steps_of_its_training_equal_pytorchs() -> Result<(), GraphError> {
    let golden = Golden::open();
    let model = small_net();
    let mut g = Graph::new();
    let (x, label) = (g.input("x", [1, 14, 14]), g.index_input("label"));
    let (one, rates) = (g.whole_input("one", [1]), g.whole_input("rate", [3]));
    let logits = model.tail(&mut g, x, 0)?;
    let ce = g.push("ce", Op::CrossEntropy, &[logits, label])?;
    let loss = g.mean_rows("loss", ce)?;
    let keys: Vec<String> = model.parameters().into_iter().map(|p| p.0).collect();
    let parameters: Vec<NodeId> = keys.iter().map(|k| g.parameter_named(k).expect("declared")).collect();
    let wrt: Vec<NodeId> = std::iter::once(x).chain(parameters.iter().copied()).collect();
    let gradients = vjp(&mut g, loss, one, &wrt)?;
    let mut updates = Vec::new();
    for (&p, &gradient) in parameters.iter().zip(&gradients[1..]) {
        updates.extend(adam(&mut g, p, gradient, rates)?);
    }
    let looked_at: Vec<NodeId> = [logits, loss].into_iter().chain(gradients.iter().copied()).collect();
    let look = Entry { name: "look", given: &[x, label, one], want: &looked_at, updates: &[], capacity: 8 };
    let given = [x, label, one, rates];
    let train = Entry { name: "train", given: &given, want: &[loss], updates: &updates, capacity: 5 };
    let mut weights = Weights::default();
    for key in &keys {
        let (shape, values) = golden.floats(&format!("net/before/{key}"));
        weights.insert(key, shape, values.iter().map(|&v| v as f32).collect());
    }
    let mut program = Reference.load(plan(&g, &[look, train])?, &weights).unwrap();
    let program = program.as_mut();
    let (shape, images) = golden.floats("net/x");
    write(program, x, &Data::Floats(images));
    write(program, label, &Data::Indices(golden.integers("net/label")));
    write(program, one, &Data::Floats(vec![1.0]));

    program.run(EntryId(0), shape[0]).unwrap();
    let named = ["logits".into(), "loss".into(), "gx".into()].into_iter();
    let names = named.chain(keys.iter().map(|k| format!("gradient/{k}")));
    for (id, name) in looked_at.iter().zip(names) {
        let (_, want) = golden.floats(&format!("net/{name}"));
        let worst = compare(&read(program, *id, shape[0]), &want, Tol::Close(1e-12));
        assert!(worst.is_ok(), "{name}: {worst:?}");
    }

    let (_, losses) = golden.floats("net/losses");
    for (t, want) in (1..).zip(&losses) {
        write(program, rates, &rate(t));
        program.run(EntryId(1), shape[0]).unwrap();
        let got = read(program, loss, 1)[0];
        assert!((got - want).abs() <= 1e-12 * want, "loss {t}: {got} for {want}");
    }
    for (key, &p) in keys.iter().zip(&parameters) {
        let (_, before) = golden.floats(&format!("net/before/{key}"));
        let (_, want) = golden.floats(&format!("net/after/{key}"));
        moved_alike(key, &before, &read(program, p, 1), &want);
    }
    Ok(())
}
