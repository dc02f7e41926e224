//! The CUDA device at sizes that the shared cases leave out: many blocks, sums over several chunks, rows longer than a block's
//! threads, channels in fours and not, intervened rows whose code does not change. Judged by the reference, by the CPU where
//! both must round alike, and bit for bit by runs of fewer rows.

mod common;

use common::{Build, Case, Data, Kinks, ROWS, ROWS_TRIED, Tol, compare, cuda};
use intervene::answer::Head;
use intervene::backend::Backend;
use intervene::backend::cpu::Cpu;
use intervene::backend::reference::Reference;
use intervene::graph::NodeId;
use intervene::graph::op::{Activation, Binary, Op, Window};

fn dot(k: usize) -> Tol {
    Tol::Dot { k }
}

/// Maps of one row: a vector kernel's, one whose channels are no multiple of 4, one channel.
const MAPS: [[usize; 3]; 3] = [[36, 12, 17], [7, 23, 21], [1, 30, 31]];

fn one_input(name: &str, map: [usize; 3], tol: (Tol, Tol), op: Op) -> Case {
    let name = format!("{name} of {map:?}");
    Case::new(name, tol, move |b| {
        let x = b.x_different("x", map);
        b.graph.push("y", op.clone(), &[x])
    })
}

fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    for map in MAPS {
        let [c, h, w] = map;
        let n = c * h * w;
        for (size, stride, pad) in [(2, 2, 0), (3, 2, 1), (3, 1, 1), (4, 3, 2)] {
            let op = Op::MaxPool { size, window: Window { stride, pad } };
            list.push(one_input(&format!("max-pool {size}/{stride} pad {pad}"), map, (Tol::Exact, dot(9)), op));
        }
        list.push(one_input("global-avg-pool", map, (dot(h * w), Tol::Ulp(2)), Op::GlobalAvgPool));
        list.push(one_input("relu", map, (Tol::Exact, Tol::Exact), Op::Relu));
        list.push(one_input("scale", map, (Tol::Ulp(1), Tol::Ulp(1)), Op::Scale(0.3)));
        list.push(one_input("mean-abs", map, (dot(n), Tol::Ulp(2)), Op::MeanAbs));
        list.push(one_input("mean-square", map, (dot(n), Tol::Ulp(3)), Op::MeanSquare));
        list.push(one_input("total-variation", map, (dot(2 * n), dot(8)), Op::TotalVariation));
        list.push(Case::new(format!("channel-max of {map:?}"), (Tol::Exact, Tol::Exact), move |b| {
            let x = b.x("x", map);
            b.wrt.clear();
            b.graph.push("y", Op::ChannelMax, &[x])
        }));
        list.push(Case::new(format!("sum-to-channels of {map:?}"), (dot(ROWS * h * w), Tol::Exact), move |b| {
            let x = b.x("x", map);
            b.wrt.clear();
            b.graph.push("y", Op::SumToChannels, &[x])
        }));
        list.push(Case::new(format!("affine of {map:?}"), (Tol::Close(5e-7), dot(1)), move |b| {
            let (x, scale) = (b.x("x", map), b.weight("scale", [c]));
            let shift = b.weight("shift", [c]);
            b.wrt = vec![x];
            b.graph.push("y", Op::Affine { activation: Activation::None }, &[x, scale, shift])
        }));
        list.push(Case::new(format!("sign-step of {map:?}"), (Tol::Ulp(2), Tol::Exact), move |b| {
            let unit = |b: &Build, n: usize| -> Vec<f64> { b.all_different(n).iter().map(|v| v.abs()).collect() };
            let (x, x0, g) = (b.rows("x", map, unit), b.rows("x0", map, unit), b.x("g", map));
            b.wrt.clear();
            let limits = b.whole("limits", [2], vec![0.01, 0.03]);
            b.graph.push("y", Op::SignStep, &[x, g, x0, limits])
        }));
        list.push(intervention(format!("intervene on {map:?}"), map, None));
    }
    for k in [100, 1000] {
        list.push(Case::new(format!("cross-entropy of {k} classes"), (Tol::Close(2e-6), Tol::Close(2e-6)), move |b| {
            let x = b.x("logits", [k]);
            let label = b.labels(k as u32);
            b.graph.push("ce", Op::CrossEntropy, &[x, label])
        }));
        list.push(Case::new(format!("softmax-kl of {k} classes"), (Tol::Close(2e-6), Tol::Close(2e-6)), move |b| {
            let (target, x) = (b.x("target", [k]), b.x("logits", [k]));
            b.wrt = vec![x];
            b.graph.push("kl", Op::Kl(Head::Softmax), &[target, x])
        }));
    }
    // more code channels than lanes of a warp, several blocks a row, a kernel larger than a segment of columns
    for (map, o, kernel, pad) in [
        ([40, 9, 11], 12, 3, 1),
        ([16, 26, 26], 32, 3, 1),
        ([33, 6, 5], 70, 1, 0),
        ([5, 13, 13], 9, 7, 3),
        ([4, 12, 9], 8, 2, 0),
    ] {
        list.push(intervention(format!("intervene-conv on {map:?} to {o}"), map, Some((o, kernel, pad))));
    }
    list
}

/// Kept: all, none, all but one, a third; as the sets of a sweep.
fn keep(channels: usize) -> Vec<f64> {
    let set = |keeps: fn(usize, usize) -> bool| (0..channels).map(move |c| f64::from(u8::from(keeps(c, channels))));
    let sets: [fn(usize, usize) -> bool; 4] = [|_, _| true, |_, _| false, |c, n| c != n / 2, |c, _| c % 3 == 0];
    sets.into_iter().flat_map(set).collect()
}

/// `intervene`, or with (outputs, kernel, padding) `intervene-conv`. A third of the code's channels is zero everywhere.
fn intervention(name: String, [k, h, w]: [usize; 3], conv: Option<(usize, usize, usize)>) -> Case {
    let tol = conv.map_or(Tol::Exact, |(_, kernel, _)| dot(k * kernel * kernel + 1));
    Case::new(name, (tol, Tol::Exact), move |b| {
        let code = move |b: &Build, n: usize| -> Vec<f64> {
            let values = b.away_from_zero(n);
            values.iter().enumerate().map(|(i, v)| if i / (h * w) % k % 3 == 1 { 0.0 } else { v.max(0.0) }).collect()
        };
        let z = b.rows("z", [k, h, w], code);
        let pre = conv.map(|(o, kernel, pad)| {
            let size = |n: usize| n + 2 * pad + 1 - kernel;
            (b.x("pre", [o, size(h), size(w)]), b.weight("w", [o, k, kernel, kernel]), pad)
        });
        b.wrt.clear();
        let image = b.indices("image", (0..ROWS as u32).map(|r| (r * 5 + 1) % 3).collect());
        let set = b.indices("set", (0..ROWS as u32).map(|r| (r * 3 + 2) % 4).collect());
        let keep = b.whole("keep", [4, k], keep(k));
        match pre {
            None => b.graph.push("y", Op::Intervene, &[z, image, set, keep]),
            Some((pre, weight, pad)) => {
                let op = Op::InterveneConv { pad, activation: Activation::None };
                b.graph.push("y", op, &[pre, z, weight, image, set, keep])
            }
        }
    })
}

#[test]
fn large_sizes_agree_with_the_reference_and_a_row_has_its_bits_in_any_run() {
    let mut failures = Vec::new();
    for case in cases() {
        assert_eq!(case.kinks, Kinks::Avoided);
        for subject in std::iter::once(case.subject()).chain(case.with_gradient()) {
            let want = subject.run(subject.load(&Reference).as_mut(), ROWS);
            let mut program = subject.load(&cuda());
            let got = subject.run(program.as_mut(), ROWS);
            for (i, (&id, (got, want))) in subject.wanted().iter().zip(got.iter().zip(&want)).enumerate() {
                let tol = if i == 0 { case.forward } else { case.gradient };
                let what = format!("{}, {}", case.name, subject.graph.node(id).name);
                match compare(got, want, tol) {
                    Ok(w) => println!("{what}: max |Δ| {:.3e}, {:.0} % of {tol:?}", w.difference, 100.0 * w.used),
                    Err(w) => failures.push(format!(
                        "{what}: {} for {} at {}, {:.1} times {tol:?}",
                        got[w.at], want[w.at], w.at, w.used
                    )),
                }
            }
            for rows in ROWS_TRIED {
                let part = subject.run(program.as_mut(), rows);
                for ((&id, part), full) in subject.wanted().iter().zip(&part).zip(&got) {
                    let independent = subject.rows_are_independent(id) || rows == ROWS;
                    let same = part.iter().zip(full).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same || !independent, "{} at {rows} rows", case.name);
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Ties everywhere, infinities, zeros of both signs, and windows with several NaNs.
fn awkward(b: &Build, n: usize) -> Vec<f64> {
    let values = [f64::NEG_INFINITY, 0.5, -0.0, 0.5, f64::INFINITY, 0.0, -3.0, f64::NAN, 0.5, f64::NEG_INFINITY];
    b.all_different(n).iter().map(|v| values[((v + 1.0) * 5.0) as usize % 10]).collect()
}

/// What no sum is in, rounds the same on both devices: one rounding an operation, no FMA.
#[test]
fn elementwise_operations_and_pools_have_the_cpus_results_on_ties_infinities_and_nans() {
    let mut list = Vec::new();
    for map in MAPS {
        let mut unary = vec![Op::Relu, Op::Scale(0.3), Op::Sqrt { epsilon: 1e-6 }];
        for (size, stride, pad) in [(2, 2, 0), (3, 2, 1), (4, 3, 2)] {
            unary.push(Op::MaxPool { size, window: Window { stride, pad } });
        }
        for op in unary {
            list.push(Case::new(format!("{op:?} of {map:?}"), (Tol::Exact, Tol::Exact), move |b| {
                let x = b.rows("x", map, awkward);
                b.graph.push("y", op.clone(), &[x])
            }));
        }
        list.push(Case::new(format!("channel-max of {map:?}"), (Tol::Exact, Tol::Exact), move |b| {
            let x = b.rows("x", map, awkward);
            b.wrt.clear();
            b.graph.push("y", Op::ChannelMax, &[x])
        }));
        for binary in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div] {
            list.push(Case::new(format!("{binary:?} of {map:?}"), (Tol::Exact, Tol::Exact), move |b| {
                let (x, y) = (b.rows("x", map, awkward), b.rows("y", map, awkward));
                b.wrt.clear();
                b.graph.push("z", Op::Binary(binary), &[x, y])
            }));
        }
        list.push(Case::new(format!("affine of {map:?}"), (Tol::Exact, Tol::Exact), move |b| {
            let (x, scale, shift) = (b.x("x", map), b.weight("scale", [map[0]]), b.weight("shift", [map[0]]));
            b.wrt = vec![x];
            b.graph.push("y", Op::Affine { activation: Activation::None }, &[x, scale, shift])
        }));
        list.push(Case::new(format!("sign-step of {map:?}"), (Tol::Exact, Tol::Exact), move |b| {
            let (x, x0, g) = (b.x("x", map), b.x("x0", map), b.rows("g", map, awkward));
            b.wrt.clear();
            let limits = b.whole("limits", [2], vec![0.3, 0.2]);
            b.graph.push("y", Op::SignStep, &[x, g, x0, limits])
        }));
    }
    for case in list {
        for subject in std::iter::once(case.subject()).chain(case.with_gradient()) {
            let want = subject.run(subject.load(&Cpu::default()).as_mut(), ROWS);
            let got = subject.run(subject.load(&cuda()).as_mut(), ROWS);
            for (i, (got, want)) in got.iter().flatten().zip(want.iter().flatten()).enumerate() {
                assert!(got == want || got.is_nan() && want.is_nan(), "{}: {got} for {want} at {i}", case.name);
            }
        }
    }
}

/// Invariant 1, with what arithmetic would change: a negative zero and a NaN with a payload in `pre`.
#[test]
fn a_row_whose_code_does_not_change_keeps_the_bits_of_pre() {
    let (k, h, w, o) = (6, 7, 9, 8);
    let case = intervention("unchanged rows".into(), [k, h, w], Some((o, 3, 1)));
    let mut subject = case.subject();
    let node = |name: &str| subject.graph.iter().find(|(_, n)| n.name == name).map(|(id, _)| id).unwrap();
    let (pre, keep, image, set) = (node("pre"), node("keep"), node("image"), node("set"));
    let n = o * h * w;
    let payload = f64::from(f32::from_bits(0x7fc0_1234));
    let mut values: Vec<f64> = (0..ROWS * n).map(|i| f64::from((i as f32).sin())).collect();
    for i in (0..values.len()).step_by(5) {
        values[i] = if i % 2 == 0 { -0.0 } else { payload };
    }
    // idle; the dead channels 1 and 4 cleared; one of them cleared
    let sets = [[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 0, 1], [1; 6]].concat();
    replace(&mut subject.data, pre, values.clone());
    replace(&mut subject.data, keep, sets.into_iter().map(f64::from).collect());
    let images = indices(&subject.data, image);
    assert!(indices(&subject.data, set).contains(&1));
    let got = subject.run(subject.load(&cuda()).as_mut(), ROWS).remove(0);
    for (r, &image) in images.iter().enumerate() {
        for (i, got) in got[r * n..(r + 1) * n].iter().enumerate() {
            let want = values[image as usize * n + i] as f32;
            assert_eq!((*got as f32).to_bits(), want.to_bits(), "row {r}, element {i} on {}", cuda().name());
        }
    }
}

fn replace(data: &mut [(NodeId, Data)], id: NodeId, values: Vec<f64>) {
    let slot = data.iter_mut().find(|d| d.0 == id).expect("an input");
    slot.1 = Data::Floats(values);
}

fn indices(data: &[(NodeId, Data)], id: NodeId) -> Vec<u32> {
    match data.iter().find(|d| d.0 == id) {
        Some((_, Data::Indices(list))) => list.clone(),
        _ => panic!("a list"),
    }
}
