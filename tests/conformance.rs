//! Every case on every backend against the f64 reference, forward and gradient; rows that do not hear of each other; NaNs
//! that are not swallowed. The reference itself is held to second formulations here, to central differences in
//! `gradcheck` and to PyTorch in `golden`.

mod common;

use common::{Case, Data, Kinks, OPS, ROWS, ROWS_TRIED, Subject, Tol, backends, cases, compare, number};
use intervene::backend::reference::Reference;
use intervene::backend::winograd::Winograd;
use intervene::graph::op::{Activation, Op, Window, window_positions};
use intervene::graph::{Extent, NodeId};
use std::collections::BTreeSet;

/// Forward subjects, and with gradients where there are any.
fn subjects(case: &Case) -> Vec<Subject> {
    std::iter::once(case.subject()).chain(case.with_gradient()).collect()
}

#[test]
fn every_op_has_a_case() {
    let covered: BTreeSet<usize> = cases()
        .iter()
        .flat_map(subjects)
        .flat_map(|s| {
            let artifact = s.plan();
            let steps = artifact.entries()[0].steps.clone();
            steps.iter().filter_map(|&id| number(&artifact.graph().node(id).op)).collect::<Vec<_>>()
        })
        .collect();
    let missing: Vec<usize> = (0..OPS).filter(|n| !covered.contains(n)).collect();
    assert!(missing.is_empty(), "no case for the ops numbered {missing:?} in tests/common/cases.rs");
}

#[test]
fn cases_go_by_both_tiles_forward_and_towards_the_input() {
    let tiles: Vec<_> = cases().iter().map(Case::tiles).collect();
    for direction in [0, 1] {
        for size in Winograd::ALL {
            assert!(tiles.iter().any(|tiles| tiles[direction] == Some(size)), "{direction} {size:?}");
        }
    }
}

#[test]
fn case_names_are_unique_so_that_their_data_differ() {
    let names: Vec<String> = cases().iter().map(|c| c.name.clone()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

#[test]
fn every_backend_agrees_with_the_reference_within_the_named_tolerance() {
    let mut failures = Vec::new();
    for backend in backends() {
        for case in cases() {
            for subject in subjects(&case) {
                let want = subject.run(subject.load(&Reference).as_mut(), ROWS);
                let got = subject.run(subject.load(backend.as_ref()).as_mut(), ROWS);
                for (i, (&id, (got, want))) in subject.wanted().iter().zip(got.iter().zip(&want)).enumerate() {
                    let of = i.checked_sub(1).map(|i| subject.graph.node(subject.gradients[i].0).name.as_str());
                    let tol = case.tolerance(backend.as_ref(), of);
                    let what = format!("{}, {}: {}", case.name, subject.graph.node(id).name, backend.name());
                    match compare(got, want, tol) {
                        Ok(w) => println!(
                            "{what}: max |Δ| {:.3e} at {}, {:.0} % of {tol:?}",
                            w.difference,
                            w.at,
                            100.0 * w.used
                        ),
                        Err(w) => failures.push(format!(
                            "{what}: |Δ| {:.3e} at {} ({} for {}), {:.1} times {tol:?}",
                            w.difference, w.at, got[w.at], want[w.at], w.used
                        )),
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Invariant 3, a step at a time.
#[test]
fn a_row_has_the_same_bits_in_a_run_of_1_2_7_and_all_rows() {
    for backend in backends() {
        for case in cases() {
            for subject in subjects(&case) {
                let mut program = subject.load(backend.as_ref());
                let full = subject.run(program.as_mut(), ROWS);
                for rows in ROWS_TRIED {
                    let part = subject.run(program.as_mut(), rows);
                    for ((&id, part), full) in subject.wanted().iter().zip(&part).zip(&full) {
                        if subject.rows_are_independent(id) {
                            let same = part.iter().zip(full).all(|(a, b)| a.to_bits() == b.to_bits());
                            let name = &subject.graph.node(id).name;
                            assert!(same, "{}, {name} at {rows} rows on {}", case.name, backend.name());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_second_run_has_the_same_bits() {
    for backend in backends() {
        for case in cases() {
            for subject in subjects(&case) {
                let mut program = subject.load(backend.as_ref());
                let (first, second) = (subject.run(program.as_mut(), ROWS), subject.run(program.as_mut(), ROWS));
                let same = first.iter().flatten().zip(second.iter().flatten()).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{} on {}", case.name, backend.name());
            }
        }
    }
}

/// Plants a NaN in the middle of each input. Where a large finite change of the same element shows, the NaN must show
/// too; and rows that the element does not reach stay finite.
#[test]
fn a_planted_nan_shows_wherever_its_element_reaches_and_in_no_other_row() {
    for backend in backends() {
        for case in cases() {
            let subject = case.subject();
            let row = subject.graph.node(subject.output).shape.len();
            let independent = subject.rows_are_independent(subject.output);
            let plain = subject.run(subject.load(backend.as_ref()).as_mut(), ROWS).remove(0);
            for (at, (id, data)) in subject.data.iter().enumerate() {
                let Data::Floats(values) = data else { continue };
                if subject.selectors.contains(id) {
                    continue;
                }
                let planted = |value: f64| {
                    let mut changed = subject.clone();
                    let mut values = values.clone();
                    let middle = values.len() / 2;
                    values[middle] = value;
                    changed.data[at].1 = Data::Floats(values);
                    changed.run(changed.load(backend.as_ref()).as_mut(), ROWS).remove(0)
                };
                let name = &subject.graph.node(*id).name;
                let nan = planted(f64::NAN);
                let mut reached = vec![false; plain.len()];
                for value in [1000.0, -1000.0, 0.0] {
                    for (seen, (a, b)) in reached.iter_mut().zip(planted(value).iter().zip(&plain)) {
                        *seen = *seen || a.to_bits() != b.to_bits();
                    }
                }
                for (i, &seen) in reached.iter().enumerate() {
                    let shown = nan[i].is_nan();
                    assert!(
                        shown || !seen,
                        "{}: a NaN in \"{name}\" is swallowed at {i} on {}",
                        case.name,
                        backend.name()
                    );
                    // A weight belongs to every row; where it meets padding only, 0 * NaN may show, as in PyTorch.
                    let of_a_row = subject.graph.node(*id).extent == Extent::Rows;
                    if independent && of_a_row && !reached[i / row * row..][..row].contains(&true) {
                        assert!(!nan[i].is_nan(), "{}: a NaN in \"{name}\" spills into row {}", case.name, i / row);
                    }
                }
            }
        }
    }
}

#[test]
fn a_nan_in_the_outputs_gradient_shows_in_every_gradient_of_a_row_that_it_reaches() {
    for backend in backends() {
        for case in cases().iter().filter(|c| c.kinks == Kinks::Avoided) {
            let Some(mut subject) = case.with_gradient() else { continue };
            let seed = subject.seed.expect("differentiated");
            for (id, data) in &mut subject.data {
                if let (true, Data::Floats(values)) = (*id == seed, data) {
                    values.fill(f64::NAN);
                }
            }
            let run = subject.run(subject.load(backend.as_ref()).as_mut(), ROWS);
            for (gradient, (wrt, _)) in run[1..].iter().zip(&subject.gradients) {
                let name = &subject.graph.node(*wrt).name;
                assert!(gradient.iter().any(|v| v.is_nan()), "{}, d/{name} on {}", case.name, backend.name());
            }
        }
    }
}

// The reference against second formulations.

fn data_of(subject: &Subject, name: &str) -> Option<Vec<f64>> {
    subject.data.iter().find_map(|(id, d)| match d {
        Data::Floats(v) if subject.graph.node(*id).name == name => Some(v.clone()),
        Data::Floats(_) | Data::Indices(_) => None,
    })
}

/// Scatters every input cell to the outputs that it reaches: the transpose of the loop that the reference runs.
fn scattered_convolution(subject: &Subject, conv: NodeId) -> Vec<f64> {
    let node = subject.graph.node(conv);
    let Op::Conv2d { window: Window { stride, pad }, .. } = node.op else { panic!("a convolution") };
    let dims = |id: NodeId| subject.graph.node(id).shape.dims().to_vec();
    let (x, w) = (data_of(subject, "x").unwrap(), data_of(subject, "w").unwrap());
    let [c, h, wd] = dims(node.inputs[0])[..] else { panic!() };
    let [o, _, kh, kw] = dims(node.inputs[1])[..] else { panic!() };
    let [_, p, q] = *node.shape.dims() else { panic!() };
    let mut y = vec![0.0; ROWS * o * p * q];
    if let Some(b) = data_of(subject, "b") {
        y.iter_mut().enumerate().for_each(|(i, y)| *y = b[i / (p * q) % o]);
    }
    for (at, v) in x.iter().enumerate() {
        let (n, ic, i, j) = (at / (c * h * wd), at / (h * wd) % c, at / wd % h, at % wd);
        for (k, l) in (0..kh).flat_map(|k| (0..kw).map(move |l| (k, l))) {
            // i = p·stride + k - pad
            let (Some(down), Some(right)) = ((i + pad).checked_sub(k), (j + pad).checked_sub(l)) else { continue };
            if down % stride == 0 && right % stride == 0 && down / stride < p && right / stride < q {
                for oc in 0..o {
                    y[((n * o + oc) * p + down / stride) * q + right / stride] +=
                        v * w[((oc * c + ic) * kh + k) * kw + l];
                }
            }
        }
    }
    y
}

#[test]
fn the_references_convolution_equals_its_scattered_form() {
    let mut seen = 0;
    for case in cases() {
        let subject = case.subject();
        if !matches!(subject.graph.node(subject.output).op, Op::Conv2d { .. }) {
            continue;
        }
        seen += 1;
        let y = subject.run(subject.load(&Reference).as_mut(), ROWS).remove(0);
        let worst = compare(&y, &scattered_convolution(&subject, subject.output), Tol::Close(1e-14));
        assert!(worst.is_ok(), "{}: {worst:?}", case.name);
    }
    assert!(seen >= 16, "{seen} convolutions");
}

/// For y = A x: <gy, A x> = <Aᵀ gy, x>. Every linear op and its gradient, without a kink to fear.
#[test]
fn gradients_of_linear_ops_are_their_adjoints() {
    for case in cases() {
        let Some(subject) = case.with_gradient() else { continue };
        let linear = match subject.graph.node(subject.output).op {
            Op::Conv2d { activation: Activation::None, .. } => vec!["x", "w"],
            Op::Linear { activation: Activation::None } => vec!["x", "w"],
            Op::GlobalAvgPool | Op::Reshape(_) | Op::Scale(_) | Op::ReduceRows(_) | Op::BroadcastRows(_) => vec!["x"],
            _ => continue,
        };
        let seed = data_of(&subject, "seed").unwrap();
        for name in linear {
            let mut s = subject.clone();
            for (id, data) in &mut s.data {
                if let (Data::Floats(v), "b" | "shift") = (data, s.graph.node(*id).name.as_str()) {
                    v.fill(0.0);
                }
            }
            let run = s.run(s.load(&Reference).as_mut(), ROWS);
            let at = s.gradients.iter().position(|(w, _)| s.graph.node(*w).name == name).unwrap();
            let left: f64 = run[0].iter().zip(&seed).map(|(a, b)| a * b).sum();
            let right: f64 = run[1 + at].iter().zip(&data_of(&s, name).unwrap()).map(|(a, b)| a * b).sum();
            let size: f64 = run[0].iter().zip(&seed).map(|(a, b)| (a * b).abs()).sum();
            assert!((left - right).abs() <= 1e-13 * size, "{}, {name}: {left} and {right}", case.name);
        }
    }
}

#[test]
fn a_max_pool_gives_each_windows_gradient_to_exactly_one_cell_and_to_the_first_of_ties() {
    for case in cases() {
        let Some(subject) = case.with_gradient() else { continue };
        let Op::MaxPool { size, window } = subject.graph.node(subject.output).op else { continue };
        let run = subject.run(subject.load(&Reference).as_mut(), ROWS);
        let (x, gy, gx) = (data_of(&subject, "x").unwrap(), data_of(&subject, "seed").unwrap(), &run[1]);
        let [c, h, w] = *subject.graph.node(subject.data[0].0).shape.dims() else { panic!() };
        let positions = |n| window_positions(n, size, window).unwrap();
        let (p, q) = (positions(h), positions(w));
        let mut want = vec![0.0; x.len()];
        for (at, g) in gy.iter().enumerate() {
            let (plane, i, j) = (at / (p * q), at / q % p, at % q);
            let cells = (0..size * size).filter_map(|k| {
                let (i, j) = ((i * window.stride + k / size), (j * window.stride + k % size));
                let (i, j) = (i.checked_sub(window.pad)?, j.checked_sub(window.pad)?);
                (i < h && j < w).then_some(plane * h * w + i * w + j)
            });
            // max_by keeps the last of equals, so it is asked from the back
            let all: Vec<usize> = cells.collect();
            let winner = all.iter().rev().max_by(|a, b| x[**a].total_cmp(&x[**b])).unwrap();
            want[*winner] += g;
            assert_eq!(run[0][at], x[*winner], "{}", case.name);
        }
        assert_eq!(want.len(), ROWS * c * h * w);
        assert!(compare(gx, &want, Tol::Close(1e-15)).is_ok(), "{}", case.name);
    }
}

#[test]
fn an_idle_intervention_copies_bit_for_bit_and_a_total_one_does_not_depend_on_the_image() {
    for backend in backends() {
        for case in cases() {
            let subject = case.subject();
            let node = subject.graph.node(subject.output);
            let artifact = subject.plan();
            let (source, fused) = match artifact.graph().node(subject.output).op {
                Op::Intervene => ("z", false),
                Op::InterveneConv { activation, .. } => ("pre", activation == Activation::Relu),
                _ => continue,
            };
            let out = subject.run(subject.load(backend.as_ref()).as_mut(), ROWS).remove(0);
            let from: Vec<f64> = data_of(&subject, source).unwrap();
            let list = |name: &str| {
                let found = subject.data.iter().find(|(id, _)| subject.graph.node(*id).name == name).unwrap();
                let Data::Indices(v) = &found.1 else { panic!() };
                v.clone()
            };
            let row = node.shape.len();
            assert_eq!(node.extent, Extent::Rows);
            let mut idle = 0;
            for (r, (image, set)) in list("image").into_iter().zip(list("set")).enumerate() {
                let got = &out[r * row..(r + 1) * row];
                if set == 0 {
                    idle += 1;
                    let want = &from[image as usize * row..][..row];
                    for (g, w) in got.iter().zip(want) {
                        let w = if fused { w.max(0.0) } else { *w };
                        assert_eq!(g.to_bits(), w.to_bits(), "{} on {}", case.name, backend.name());
                    }
                }
                if set == 1 && source == "z" {
                    assert!(got.iter().all(|v| v.to_bits() == 0), "{} on {}", case.name, backend.name());
                }
            }
            assert!(idle > 0, "{}", case.name);
        }
    }
}

#[test]
fn a_comparison_lets_no_nan_through() {
    for tol in [Tol::Exact, Tol::Ulp(4), Tol::Close(0.5), Tol::Dot { k: 9 }] {
        assert!(compare(&[f64::NAN], &[1.0], tol).is_err());
        assert!(compare(&[1.0], &[f64::NAN], tol).is_err());
        assert!(compare(&[1.0, 2.0], &[1.0, 2.0], tol).is_ok());
    }
    assert!(compare(&[1.0 + 2e-7], &[1.0], Tol::Exact).is_err());
}
