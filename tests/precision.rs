//! Precisions below fp32 on the CUDA device: every case of the shared list, layers that fit tensor cores beside them, and what
//! an older chip is told. Which operands are rounded how is tested beside the kernels (`launch/conv/tests/tensor.rs`).

mod common;

use common::{Case, Data, ROWS, ROWS_TRIED, Subject, Tol, cases, compare, cuda, read, write};
use intervene::backend::cuda::{Cuda, Precision, compile, sources};
use intervene::backend::reference::Reference;
use intervene::backend::{Backend, BackendError};
use intervene::graph::op::{Activation, Element, Op, Prologue, Window};
use intervene::graph::plan::{Entry, EntryId, plan};
use intervene::graph::{Extent, Graph, NodeId};
use rayon::prelude::*;
use std::collections::HashMap;

const REDUCED: [Precision; 3] = [Precision::Tf32, Precision::Fp16, Precision::Bf16];

/// The environment's device in that precision; none where it lacks tensor cores, which it then says.
fn open(precision: Precision) -> Option<Cuda> {
    match Cuda::open_with(0, precision) {
        Ok(cuda) => Some(cuda),
        Err(BackendError::Unavailable { reason, hint, .. }) => {
            assert!(reason.contains("sm_75") && reason.contains(precision.name()), "{reason}");
            assert_eq!(hint, "use --precision fp32");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// Results of a layer whose operands are rounded, u being the format's unit roundoff. A product is off by at most 2u of itself,
/// in the mean of squares by u · sqrt(2/3), and products of either sign and their errors add up alike: 4u of the largest
/// result are five standard deviations and more.
fn rounded(precision: Precision) -> Tol {
    let unit: f64 = match precision {
        Precision::Fp32 => f64::EPSILON,
        Precision::Tf32 | Precision::Fp16 => 2f64.powi(-11),
        Precision::Bf16 => 2f64.powi(-8),
    };
    Tol::Close(4.0 * unit)
}

/// Whether tensor cores may compute it: a convolution or a linear layer, forward or backward.
fn is_layer(op: &Op) -> bool {
    matches!(op, Op::Conv2d { .. } | Op::Conv2dGradInput { .. } | Op::Linear { .. } | Op::LinearGradInput)
        || is_weight_gradient(op)
}

fn is_weight_gradient(op: &Op) -> bool {
    matches!(op, Op::Conv2dGradWeight { .. } | Op::LinearGradWeight)
}

fn subjects(case: &Case) -> Vec<Subject> {
    std::iter::once(case.subject()).chain(case.with_gradient()).collect()
}

/// The results of `case` on `backend` against the reference's.
fn failures(case: &Case, backend: &Cuda, precision: Precision) -> Vec<String> {
    let mut failures = Vec::new();
    for subject in subjects(case) {
        let want = subject.run(subject.load(&Reference).as_mut(), ROWS);
        let got = subject.run(subject.load(backend).as_mut(), ROWS);
        for (i, (&id, (got, want))) in subject.wanted().iter().zip(got.iter().zip(&want)).enumerate() {
            let node = subject.graph.node(id);
            let exact = if i == 0 { case.forward } else { case.gradient };
            let tol = if is_layer(&node.op) { rounded(precision) } else { exact };
            if let Err(w) = compare(got, want, tol) {
                let what = format!("{}, {}: {}", case.name, node.name, backend.name());
                failures
                    .push(format!("{what}: {} for {} at {}, {:.1} times {tol:?}", got[w.at], want[w.at], w.at, w.used));
            }
        }
    }
    failures
}

/// Whether several layers on tensor cores follow one another. What one rounds flips switches of ReLUs and maxima behind the
/// next, which no bound of one layer's rounding covers: each of their steps is held to it by itself.
fn is_chain(case: &Case) -> bool {
    let subject = case.subject();
    let graph = &subject.graph;
    let wide = |weight: NodeId| graph.node(weight).shape.dims().iter().take(2).all(|&channels| channels >= 16);
    graph.iter().filter(|(_, node)| is_layer(&node.op) && wide(node.inputs[1])).count() > 1
}

#[test]
fn every_case_agrees_with_the_reference_within_what_its_precision_allows() {
    let mut wrong = Vec::new();
    for precision in REDUCED {
        let Some(cuda) = open(precision) else { continue };
        wrong.extend(cases().iter().filter(|case| !is_chain(case)).flat_map(|case| failures(case, &cuda, precision)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One op in fp32 on f32 operands, against f64: a sum rounds by its square root, a norm divides by a spread of some 1/2.
const STEP: Tol = Tol::Close(1e-5);

/// What the reference makes of node `id` from the values that its inputs had.
fn alone(subject: &Subject, id: NodeId, values: &HashMap<NodeId, Data>) -> Vec<f64> {
    let node = subject.graph.node(id);
    let mut step = Subject { graph: Graph::new(), data: vec![], wrt: vec![], gradients: vec![], ..subject.clone() };
    let mut declared: HashMap<NodeId, NodeId> = HashMap::new();
    let inputs: Vec<NodeId> = node
        .inputs
        .iter()
        .map(|&input| {
            let source = subject.graph.node(input);
            *declared.entry(input).or_insert_with(|| {
                let here = match (source.element(), source.extent) {
                    (Element::Index, _) => step.graph.index_input(&source.name),
                    (Element::Float, Extent::Rows) => step.graph.input(&source.name, source.shape.clone()),
                    (Element::Float, Extent::Whole) => step.graph.whole_input(&source.name, source.shape.clone()),
                };
                step.data.push((here, values[&input].clone()));
                here
            })
        })
        .collect();
    step.output = step.graph.push(&node.name, node.op.clone(), &inputs).expect("it was built before");
    step.run(step.load(&Reference).as_mut(), ROWS).remove(0)
}

/// Every step of a chain against the reference on the values that the device itself had in front of it.
#[test]
fn every_step_of_a_chain_of_layers_agrees_with_the_reference_on_what_it_was_given() {
    let chains: Vec<Case> = cases().into_iter().filter(is_chain).collect();
    assert!(!chains.is_empty(), "DenseNet's blocks are chains");
    let mut wrong = Vec::new();
    for precision in REDUCED {
        let Some(cuda) = open(precision) else { continue };
        for subject in chains.iter().flat_map(subjects) {
            let computed: Vec<NodeId> =
                subject.graph.iter().filter(|(_, n)| !n.inputs.is_empty()).map(|(id, _)| id).collect();
            let is_parameter = |id: NodeId| subject.graph.parameter_named(&subject.graph.node(id).name) == Some(id);
            let given: Vec<NodeId> = subject.data.iter().map(|d| d.0).filter(|&id| !is_parameter(id)).collect();
            let entry = Entry { name: "steps", given: &given, want: &computed, updates: &[], capacity: ROWS };
            let artifact = plan(&subject.graph, &[entry]).expect("every value by itself");
            let mut program = cuda.load(artifact, &subject.weights()).expect("it loads");
            let mut values: HashMap<NodeId, Data> = subject.data.iter().cloned().collect();
            for (id, data) in &subject.data {
                write(program.as_mut(), *id, data);
            }
            program.run(EntryId(0), ROWS).expect("it runs");
            for &id in &computed {
                values.insert(id, Data::Floats(read(program.as_mut(), id, ROWS)));
            }
            for &id in &computed {
                let node = subject.graph.node(id);
                let Data::Floats(got) = &values[&id] else { continue };
                let tol = if is_layer(&node.op) { rounded(precision) } else { STEP };
                if let Err(w) = compare(got, &alone(&subject, id, &values), tol) {
                    let what = format!("{} ({}) on {}", node.name, node.op.name(), cuda.name());
                    wrong.push(format!("{what}: {} at {}, {:.1} times {tol:?}", got[w.at], w.at, w.used));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Layers that fit in both directions.
fn layers() -> Vec<Case> {
    let mut list = Vec::new();
    for (c, o, [h, w], kernel, stride, pad) in [
        (16, 32, [7, 9], 3, 1, 1),
        (32, 16, [6, 5], 1, 1, 0),
        (20, 36, [9, 8], 3, 2, 1),
        (64, 68, [4, 4], 2, 3, 2),
        (16, 160, [5, 5], 3, 1, 0),
    ] {
        let name = format!("conv2d {kernel}x{kernel} stride {stride} pad {pad}, {c} channels of {h}x{w} to {o}");
        // of the bias
        let sum = Tol::Dot { k: ROWS * h * w };
        list.push(Case::new(name, (Tol::Exact, sum), move |b| {
            let (x, weight) = (b.x("x", [c, h, w]), b.weight("w", [o, c, kernel, kernel]));
            let bias = b.weight("b", [o]);
            let window = Window { stride, pad };
            b.graph.push(
                "conv",
                Op::Conv2d { window, prologue: Prologue::None, activation: Activation::None },
                &[x, weight, bias],
            )
        }));
    }
    for (i, o) in [(16, 16), (300, 64), (1024, 48)] {
        list.push(Case::new(format!("linear {i} to {o}"), (Tol::Exact, Tol::Dot { k: ROWS }), move |b| {
            let (x, weight) = (b.x("x", [i]), b.weight("w", [o, i]));
            let bias = b.weight("b", [o]);
            b.graph.linear("linear", x, weight, bias)
        }));
    }
    list
}

#[test]
fn layers_on_tensor_cores_agree_with_the_reference_and_differ_from_fp32() {
    for precision in REDUCED {
        let Some(reduced) = open(precision) else { continue };
        for case in layers() {
            let wrong = failures(&case, &reduced, precision);
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));
            let subject = case.with_gradient().expect("a layer has one");
            let run = |backend: &Cuda| subject.run(subject.load(backend).as_mut(), ROWS);
            for (&id, (a, b)) in subject.wanted().iter().zip(run(&reduced).iter().zip(&run(&cuda()))) {
                let node = subject.graph.node(id);
                // a small weight's gradient is bound by memory and stays in fp32
                let small = is_weight_gradient(&node.op) && node.shape.len() / node.shape.dims()[0] <= 64;
                let differs = is_layer(&node.op) && !small;
                assert_eq!(a != b, differs, "{}, {}: {}", case.name, node.name, reduced.name());
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_a_run_of_1_2_7_and_all_rows_in_every_precision() {
    for cuda in REDUCED.into_iter().filter_map(open) {
        for subject in layers().iter().flat_map(subjects) {
            let mut program = subject.load(&cuda);
            let full = subject.run(program.as_mut(), ROWS);
            for rows in ROWS_TRIED {
                let part = subject.run(program.as_mut(), rows);
                for ((&id, part), full) in subject.wanted().iter().zip(&part).zip(&full) {
                    let independent = subject.rows_are_independent(id);
                    let same = part.iter().zip(full).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same || !independent, "{} at {rows} rows on {}", subject.graph.node(id).name, cuda.name());
                }
            }
        }
    }
}

#[test]
fn the_devices_name_and_details_say_the_precision() {
    for precision in Precision::ALL {
        let Some(cuda) = open(precision) else { continue };
        let named = cuda.name().contains(&format!(", {}", precision.name()));
        assert_eq!(named, precision != Precision::Fp32, "{}", cuda.name());
        assert!(cuda.details().notes.contains(&("precision", precision.name().into())), "{:?}", cuda.details());
    }
}

/// The PTX of an entry, from its name to the next.
fn entry<'a>(ptx: &'a str, kernel: &str) -> Option<&'a str> {
    let from = ptx.find(&format!(".entry {kernel}("))?;
    let rest = &ptx[from + 1..];
    Some(&rest[..rest.find(".entry").unwrap_or(rest.len())])
}

#[test]
fn the_kernels_multiply_on_tensor_cores_and_copy_16_bytes_asynchronously() {
    let formats = ["tf32", "f16", "bf16"];
    let on_tensor_cores = |k: &&str| !k.contains("_pack_") && k.split('_').any(|part| formats.contains(&part));
    let jobs = sources().iter().filter(|s| ["conv_mma.cu", "conv_wgrad.cu"].contains(&s.file));
    let jobs: Vec<_> = jobs.flat_map(|source| [75, 80, 90].map(|sm| (source, sm))).collect();
    let compiled: Vec<_> = jobs.par_iter().map(|(source, sm)| compile(source, *sm)).collect();
    let mut seen = 0;
    for ((source, sm), compiled) in jobs.iter().zip(compiled) {
        let compiled = compiled.unwrap_or_else(|e| panic!("{e}"));
        for kernel in source.kernels.iter().copied().filter(on_tensor_cores) {
            let text = entry(&compiled.ptx, kernel);
            assert_eq!(text.is_some(), *sm >= 80, "{kernel} on sm_{sm}");
            let Some(text) = text else { continue };
            seen += 1;
            let multiply = match kernel {
                k if k.contains("_tf32") => "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
                k if k.contains("_bf16") => "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
                _ => "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
            };
            let load = match source.file {
                "conv_mma.cu" => "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
                _ => "ld.shared.v4.f32",
            };
            for wanted in [multiply, load, "cp.async.wait_group"] {
                assert!(text.contains(wanted), "{kernel} on sm_{sm} without {wanted}");
            }
            let copies: Vec<&str> =
                text.lines().filter(|l| l.trim().starts_with("cp.async.c")).filter(|l| l.contains("global")).collect();
            assert!(!copies.is_empty() && copies.iter().all(|l| l.contains("], 16")), "{kernel}: {copies:?}");
        }
    }
    assert_eq!(seen, 2 * (12 + 4));
}
