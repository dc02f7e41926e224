//! Precisions below fp32 on the CUDA device: every case of the shared list, layers that fit tensor cores beside them, and what
//! an older chip is told. Which operands are rounded how is tested beside the kernels (`launch/conv/tests/tensor.rs`).

mod common;

use common::{Case, ROWS, ROWS_TRIED, Subject, Tol, cases, compare, cuda};
use intervene::backend::cuda::{Cuda, Precision, compile, sources};
use intervene::backend::reference::Reference;
use intervene::backend::{Backend, BackendError};
use intervene::graph::op::{Activation, Op, Prologue, Window};
use rayon::prelude::*;

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

/// Whether layers follow one another. What one rounds flips switches of ReLUs and maxima behind the next, and a batch's
/// moments carry it on: no bound of one layer's rounding holds for such a chain. Conformance compares them in fp32.
fn is_chain(case: &Case) -> bool {
    case.subject().graph.iter().filter(|(_, node)| is_layer(&node.op)).count() > 1
}

#[test]
fn every_case_agrees_with_the_reference_within_what_its_precision_allows() {
    let mut wrong = Vec::new();
    let (chains, single): (Vec<Case>, Vec<Case>) = cases().into_iter().partition(is_chain);
    println!("{} cases compared, {} chains of layers left to fp32", single.len(), chains.len());
    assert!(single.len() > 5 * chains.len(), "most cases are of one layer or none");
    for precision in REDUCED {
        let Some(cuda) = open(precision) else { continue };
        wrong.extend(single.iter().flat_map(|case| failures(case, &cuda, precision)));
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
