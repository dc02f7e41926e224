//! The reference's gradients, as `vjp` builds them, against central differences in f64: every differentiable case of the
//! shared list and composed networks; what `vjp` builds and refuses.
//!
//! Four points at ±h and ±2h: the truncation error is h⁴/30 times a fifth derivative, 3e-18 at h = 1e-4; rounding is
//! about 1.5·2^-52·|L|·sqrt(terms)/h, some 1e-11 for |L| of 10. The bound of 1e-8 of a tensor's largest gradient leaves
//! three decades for badly scaled cases, and a wrong term is far above it.

mod common;

use common::{Build, Data, Kinks, ROWS, Subject, cases, read, write};
use intervene::answer::Head;
use intervene::backend::reference::Reference;
use intervene::graph::op::{Activation, Binary, Op, Window};
use intervene::graph::plan::EntryId;
use intervene::graph::vjp::vjp;
use intervene::graph::{Extent, Graph, GraphError, NodeId};

const H: f64 = 1e-4;
/// Allowed |gradient - difference| as a part of the tensor's largest gradient.
const BOUND: f64 = 1e-8;
/// Elements tried of each tensor, spread evenly.
const TRIED: usize = 24;

/// Compares every gradient of `forward` at `rows` rows with central differences of sum(seed · output).
fn check(name: &str, forward: &Subject, rows: usize) -> Result<f64, String> {
    let subject = forward.clone().differentiated();
    let seed_id = subject.seed.expect("differentiated");
    let values = |id: NodeId| {
        subject.data.iter().find_map(|(i, d)| match d {
            Data::Floats(v) if *i == id => Some(v.clone()),
            Data::Floats(_) | Data::Indices(_) => None,
        })
    };
    let seed = values(seed_id).expect("a seed");
    let gradients = subject.run(subject.load(&Reference).as_mut(), rows);
    let mut program = forward.load(&Reference);
    let mut worst = 0.0f64;
    for ((wrt, _), gradient) in subject.gradients.iter().zip(&gradients[1..]) {
        let node = subject.graph.node(*wrt);
        let mut data = values(*wrt).expect("floats");
        let n = node.shape.len() * if node.extent == Extent::Rows { rows } else { 1 };
        assert_eq!(gradient.len(), n, "{name}: d/{}", node.name);
        let largest = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        let mut loss_at = |data: &mut Vec<f64>, at: usize, value: f64| {
            let before = std::mem::replace(&mut data[at], value);
            write(program.as_mut(), *wrt, &Data::Floats(data.clone()));
            data[at] = before;
            program.run(EntryId(0), rows).unwrap_or_else(|e| panic!("{name}: {e}"));
            let y = read(program.as_mut(), forward.output, rows);
            y.iter().zip(&seed).map(|(y, s)| y * s).sum::<f64>()
        };
        for t in 0..TRIED.min(n) {
            let at = t * n / TRIED.min(n);
            let x = data[at];
            let mut near = |steps: f64| loss_at(&mut data, at, x + steps * H);
            let difference = (8.0 * (near(1.0) - near(-1.0)) - (near(2.0) - near(-2.0))) / (12.0 * H);
            let error = (gradient[at] - difference).abs() / largest.max(1e-300);
            if !(error <= BOUND) {
                return Err(format!(
                    "{name}: d/{}[{at}] is {}, differences say {difference} ({error:.1e} of the largest)",
                    node.name, gradient[at]
                ));
            }
            worst = worst.max(error);
        }
        write(program.as_mut(), *wrt, &Data::Floats(data));
    }
    println!("{name}: {:.2} % of the bound", 100.0 * worst / BOUND);
    Ok(worst)
}

#[test]
fn every_differentiable_case_agrees_with_central_differences() {
    let mut failures = Vec::new();
    let mut checked = 0;
    for case in cases().iter().filter(|c| c.kinks == Kinks::Avoided) {
        let subject = case.subject();
        if !subject.wrt.is_empty() {
            checked += 1;
            failures.extend(check(&case.name, &subject, 2).err());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(checked >= 45, "{checked} cases");
}

fn finish(b: Build, output: NodeId) -> Subject {
    Subject { graph: b.graph, data: b.data, output, seed: None, gradients: vec![], selectors: b.selectors, wrt: b.wrt }
}

fn conv(b: &mut Build, name: &str, x: NodeId, [o, c, k]: [usize; 3], pad: usize) -> Result<NodeId, GraphError> {
    let w = b.weight(&format!("{name}.weight"), [o, c, k, k]);
    let bias = b.weight(&format!("{name}.bias"), [o]);
    b.graph.conv2d(name, x, w, bias, Window { stride: 1, pad })
}

fn conv_relu(b: &mut Build, name: &str, x: NodeId, ock: [usize; 3], pad: usize) -> Result<NodeId, GraphError> {
    let y = conv(b, name, x, ock, pad)?;
    b.graph.push(&format!("{name}.relu"), Op::Relu, &[y])
}

fn linear(b: &mut Build, name: &str, x: NodeId, [o, i]: [usize; 2]) -> Result<NodeId, GraphError> {
    let w = b.weight(&format!("{name}.weight"), [o, i]);
    let bias = b.weight(&format!("{name}.bias"), [o]);
    b.graph.linear(name, x, w, bias)
}

/// conv relu pool conv relu pool flatten linear relu linear, to the logits.
fn classifier(b: &mut Build, x: NodeId) -> Result<NodeId, GraphError> {
    let pool = Op::MaxPool { size: 2, window: Window { stride: 2, pad: 0 } };
    let y = conv_relu(b, "conv1", x, [4, 1, 3], 0)?;
    let y = b.graph.push("pool1", pool.clone(), &[y])?;
    let y = conv_relu(b, "conv2", y, [6, 4, 3], 1)?;
    let y = b.graph.push("pool2", pool, &[y])?;
    let y = b.graph.push("flatten", Op::Reshape([24].into()), &[y])?;
    let y = linear(b, "linear1", y, [8, 24])?;
    let y = b.graph.push("linear1.relu", Op::Relu, &[y])?;
    linear(b, "linear2", y, [3, 8])
}

#[test]
fn a_whole_classifier_under_cross_entropy_agrees_with_central_differences() -> Result<(), GraphError> {
    let mut b = Build::new("classifier", ROWS);
    let x = b.x("x", [1, 12, 12]);
    let logits = classifier(&mut b, x)?;
    let label = b.labels(3);
    let ce = b.graph.push("ce", Op::CrossEntropy, &[logits, label])?;
    let loss = b.graph.mean_rows("loss", ce)?;
    check("classifier", &finish(b, loss), 3).map(|_| ()).unwrap_or_else(|e| panic!("{e}"));
    Ok(())
}

/// A frozen front, an autoencoder behind it and the frozen tail with and without it; the losses of its training.
fn spliced(b: &mut Build) -> Result<NodeId, GraphError> {
    let x = b.x("x", [2, 6, 6]);
    let tap = conv_relu(b, "front", x, [3, 2, 3], 1)?;
    let head = (b.weight("head.weight", [4, 108]), b.weight("head.bias", [4]));
    // what is frozen gets no gradient
    b.wrt.clear();
    let hidden = conv_relu(b, "enc", tap, [5, 3, 3], 1)?;
    let code = conv_relu(b, "code", hidden, [4, 5, 1], 0)?;
    let pre = conv_relu(b, "dec", code, [5, 4, 3], 1)?;
    let out = conv(b, "out", pre, [3, 5, 3], 1)?;
    let mut logits = |name: &str, at: NodeId| {
        let flat = b.graph.push("flat", Op::Reshape([108].into()), &[at])?;
        b.graph.linear(name, flat, head.0, head.1)
    };
    let (original, changed) = (logits("original", tap)?, logits("spliced", out)?);
    let g = &mut b.graph;
    let difference = g.sub("difference", out, tap)?;
    let shallow = g.push("l1", Op::MeanAbs, &[difference])?;
    let deep = g.push("kl", Op::Kl(Head::Softmax), &[original, changed])?;
    let smooth = g.push("tv", Op::TotalVariation, &[code])?;
    let sparse = g.push("sparsity", Op::MeanAbs, &[code])?;
    let interpretable = g.add("tv + sparsity", smooth, sparse)?;
    // free of the code's scale, so that shrinking it wins nothing
    let square = g.push("z²", Op::MeanSquare, &[code])?;
    let root = g.push("|z|", Op::Sqrt { epsilon: 1e-12 }, &[square])?;
    let quotient = g.push("quotient", Op::Binary(Binary::Div), &[interpretable, root])?;
    let weighted = g.scale("weighted", quotient, 0.3)?;
    let both = g.add("shallow + deep", shallow, deep)?;
    let all = g.add("all", both, weighted)?;
    g.mean_rows("loss", all)
}

#[test]
fn an_autoencoders_losses_agree_with_central_differences() -> Result<(), GraphError> {
    let mut b = Build::new("spliced autoencoder", ROWS);
    let loss = spliced(&mut b)?;
    check("spliced autoencoder", &finish(b, loss), 2).map(|_| ()).unwrap_or_else(|e| panic!("{e}"));
    Ok(())
}

#[test]
fn a_target_of_kl_and_a_choice_of_nodes_have_no_gradient_and_say_so() -> Result<(), GraphError> {
    let mut b = Build::new("spliced autoencoder", ROWS);
    let loss = spliced(&mut b)?;
    let seed = b.graph.whole_input("seed", [1]);
    let x = b.data[0].0;
    let error = vjp(&mut b.graph, loss, seed, &[x]).unwrap_err();
    assert!(
        matches!(&error, GraphError::NotDifferentiable { node, op: "softmax-kl", input } if node == "kl" && input == "original"),
        "{error}"
    );

    let mut g = Graph::new();
    let z = g.input("z", [3, 2, 2]);
    let (image, set, keep) = (g.index_input("image"), g.index_input("set"), g.whole_input("keep", [1, 3]));
    let done = g.push("do", Op::Intervene, &[z, image, set, keep])?;
    let seed = g.input("seed", [3, 2, 2]);
    let error = vjp(&mut g, done, seed, &[z]).unwrap_err();
    assert!(matches!(&error, GraphError::NotDifferentiable { op: "intervene", .. }), "{error}");

    let (scale, shift) = (g.parameter("scale", [3])?, g.parameter("shift", [3])?);
    let affine = g.push("bn", Op::Affine { activation: Activation::None }, &[z, scale, shift])?;
    assert!(vjp(&mut g, affine, seed, &[z]).is_ok());
    let error = vjp(&mut g, affine, seed, &[scale]).unwrap_err();
    assert_eq!(error.to_string(), "node \"bn\" (affine) has no gradient for its input \"scale\"");
    Ok(())
}

#[test]
fn a_fused_epilogue_is_refused_by_vjp_for_its_input_is_gone() -> Result<(), GraphError> {
    let mut g = Graph::new();
    let (x, w, seed) = (g.input("x", [3]), g.parameter("w", [2, 3])?, g.input("seed", [2]));
    let y = g.push("fused", Op::Linear { activation: Activation::Relu }, &[x, w])?;
    assert!(matches!(vjp(&mut g, y, seed, &[x]), Err(GraphError::NotDifferentiable { .. })));
    Ok(())
}

#[test]
fn a_gradient_without_a_path_is_refused_by_name() -> Result<(), GraphError> {
    let mut g = Graph::new();
    let (x, w) = (g.input("x", [3]), g.parameter("w", [2, 3])?);
    let apart = g.parameter("apart", [2])?;
    let y = g.push("y", Op::Linear { activation: Activation::None }, &[x, w])?;
    let seed = g.input("seed", [2]);
    let later = g.push("later", Op::Relu, &[y])?;
    for (wrt, name) in [(apart, "apart"), (later, "later")] {
        let error = vjp(&mut g, y, seed, &[x, wrt]).unwrap_err();
        assert_eq!(error, GraphError::NoPath { wrt: name.into() });
    }
    let error = vjp(&mut g, y, x, &[w]).unwrap_err();
    assert!(matches!(error, GraphError::Shape { op: "vjp seed", .. }), "{error}");
    Ok(())
}

#[test]
fn a_parameter_used_twice_gets_the_sum_of_both_gradients() -> Result<(), GraphError> {
    let build = |names: [&str; 2]| -> Result<Subject, GraphError> {
        let mut b = Build::new("twice", ROWS);
        let x = b.x("x", [5]);
        let values = b.away_from_zero(25);
        let mut y = x;
        for name in names {
            let known = b.graph.parameter_named(name);
            let w = match known {
                Some(w) => w,
                None => b.weight(name, [5, 5]),
            };
            b.set(w, Data::Floats(values.clone()));
            y = b.graph.push("y", Op::Linear { activation: Activation::None }, &[y, w])?;
            y = b.graph.push("relu", Op::Relu, &[y])?;
        }
        Ok(finish(b, y))
    };
    let shared = build(["w", "w"])?;
    check("shared weight", &shared, 2).map(|_| ()).unwrap_or_else(|e| panic!("{e}"));
    let run = |s: Subject| {
        let s = s.differentiated();
        s.run(s.load(&Reference).as_mut(), ROWS)
    };
    let (shared, apart) = (run(shared), run(build(["w1", "w2"])?));
    assert_eq!((shared.len(), apart.len()), (3, 4), "output, x and one weight against two");
    for i in 0..25 {
        let sum = apart[2][i] + apart[3][i];
        assert!((shared[2][i] - sum).abs() <= 1e-14 * sum.abs().max(1.0));
    }
    Ok(())
}

/// x used twice by one op, and by two.
#[test]
fn an_input_used_twice_by_one_op_gets_both_gradients() -> Result<(), GraphError> {
    for binary in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div] {
        let mut b = Build::new("square", ROWS);
        let x = b.x("x", [5]);
        let y = b.graph.push("y", Op::Binary(binary), &[x, x])?;
        let half = b.graph.scale("half", x, 0.5)?;
        let y = b.graph.add("sum", y, half)?;
        check(Op::Binary(binary).name(), &finish(b, y), 2).map(|_| ()).unwrap_or_else(|e| panic!("{e}"));
    }
    Ok(())
}

#[test]
fn what_is_not_asked_for_is_not_built() -> Result<(), GraphError> {
    let built = |wrt: &[&str]| -> Result<Vec<&'static str>, GraphError> {
        let mut b = Build::new("classifier", ROWS);
        let x = b.x("x", [1, 12, 12]);
        let logits = classifier(&mut b, x)?;
        let before = b.graph.nodes().len();
        let seed = b.graph.input("seed", [3]);
        let named = |name: &&str| b.graph.parameter_named(name).unwrap_or(x);
        let wrt: Vec<NodeId> = wrt.iter().map(named).collect();
        vjp(&mut b.graph, logits, seed, &wrt)?;
        Ok(b.graph.nodes()[before + 1..].iter().map(|n| n.op.name()).collect())
    };
    assert_eq!(built(&["linear2.bias"])?, ["sum-to-channels"]);
    assert_eq!(built(&["linear2.weight"])?, ["linear-grad-weight"]);
    let for_input = built(&["x"])?;
    assert!(for_input.iter().all(|op| !op.ends_with("grad-weight") && *op != "sum-to-channels"), "{for_input:?}");
    let for_weights = built(&["conv1.weight", "conv2.weight"])?;
    let count = |op: &str| for_weights.iter().filter(|o| **o == op).count();
    assert_eq!((count("conv2d-grad-weight"), count("conv2d-grad-input"), count("linear-grad-weight")), (2, 1, 0));
    Ok(())
}

#[test]
fn the_gradient_at_a_tap_equals_the_tails_gradient_for_its_input() -> Result<(), GraphError> {
    let mut b = Build::new("tap", ROWS);
    let x = b.x("x", [2, 5, 5]);
    let tap = conv_relu(&mut b, "front", x, [3, 2, 3], 1)?;
    let flat = b.graph.push("flat", Op::Reshape([75].into()), &[tap])?;
    let y = linear(&mut b, "tail", flat, [4, 75])?;
    b.wrt = vec![tap];
    let whole = finish(b, y).differentiated();
    let whole_run = whole.run(whole.load(&Reference).as_mut(), ROWS);

    let mut b = Build::new("tail", ROWS);
    let values = Subject { output: tap, gradients: vec![], ..whole.clone() };
    let values = values.run(values.load(&Reference).as_mut(), ROWS).remove(0);
    let at = b.rows("tap", [3, 5, 5], |_, _| values);
    let flat = b.graph.push("flat", Op::Reshape([75].into()), &[at])?;
    let y = linear(&mut b, "tail", flat, [4, 75])?;
    for name in ["tail.weight", "tail.bias"] {
        let from = whole.graph.parameter_named(name).expect("declared");
        let data = whole.data.iter().find(|d| d.0 == from).expect("written").1.clone();
        let to = b.graph.parameter_named(name).expect("declared");
        b.set(to, data);
    }
    b.wrt = vec![at];
    let mut tail = finish(b, y).differentiated();
    let seed = whole.data.iter().find(|d| Some(d.0) == whole.seed).expect("a seed").1.clone();
    let to = tail.seed.expect("a seed");
    tail.data.iter_mut().find(|d| d.0 == to).expect("a seed").1 = seed;
    assert_eq!(whole_run, tail.run(tail.load(&Reference).as_mut(), ROWS));
    Ok(())
}
