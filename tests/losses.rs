//! What the losses must satisfy whatever the device: the method's invariants 20 to 22 and 25.

mod common;

use common::{Data, Weights, backends, read, write};
use intervene::answer::Head;
use intervene::backend::Backend;
use intervene::graph::op::{Activation, Op};
use intervene::graph::plan::{Entry, EntryId, plan};
use intervene::graph::vjp::vjp;
use intervene::graph::{Graph, GraphError};

/// The loss of each row of `x` (and of `target`, for a loss of two).
fn loss(backend: &dyn Backend, op: &Op, shape: &[usize], inputs: &[&[f64]]) -> Vec<f64> {
    let mut g = Graph::new();
    let given: Vec<_> = (0..inputs.len()).map(|i| g.input(&format!("x{i}"), shape)).collect();
    let y = g.push("loss", op.clone(), &given).unwrap_or_else(|e| panic!("{e}"));
    let rows = inputs[0].len() / shape.iter().product::<usize>();
    let entry = Entry { name: "loss", given: &given, want: &[y], updates: &[], capacity: rows };
    let mut program = backend.load(plan(&g, &[entry]).unwrap(), &Weights::default()).unwrap();
    for (id, values) in given.iter().zip(inputs) {
        write(program.as_mut(), *id, &Data::Floats(values.to_vec()));
    }
    program.run(EntryId(0), rows).unwrap();
    read(program.as_mut(), y, rows)
}

fn wave(n: usize, speed: f32) -> Vec<f64> {
    (0..n).map(|i| f64::from((i as f32 * speed).sin())).collect()
}

#[test]
fn total_variation_is_even_homogeneous_zero_on_constants_and_known_on_a_checkerboard() {
    let (k, h, w) = (2, 5, 7);
    let z = wave(3 * k * h * w, 1.7);
    let map = |f: &dyn Fn(f64) -> f64| z.iter().map(|&v| f(v)).collect::<Vec<_>>();
    let board: Vec<f64> = (0..k * h * w).map(|i| if (i / w % h + i % w) % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let expected = (2 * (h - 1) * w + 2 * h * (w - 1)) as f64 / (h * w) as f64;
    for backend in backends() {
        let tv = |x: &[f64]| loss(backend.as_ref(), &Op::TotalVariation, &[k, h, w], &[x]);
        let plain = tv(&z);
        assert_eq!(plain, tv(&map(&|v| -v)), "{}", backend.name());
        assert_eq!(plain.iter().map(|v| 4.0 * v).collect::<Vec<_>>(), tv(&map(&|v| 4.0 * v)), "{}", backend.name());
        assert_eq!(tv(&vec![0.3f32.into(); k * h * w]), [0.0], "{}", backend.name());
        assert!((tv(&board)[0] - expected).abs() <= 1e-6 * expected, "{}", backend.name());
    }
}

#[test]
fn the_divergence_of_softmaxes_is_never_negative_and_zero_for_shifted_logits() {
    let (a, b) = (wave(40, 1.3), wave(40, 2.1));
    // shifted by a power of two: the same probabilities, and exactly representable differences of small logits
    let grid: Vec<f64> = a.iter().map(|v| (v * 64.0).round() / 64.0).collect();
    let shifted: Vec<f64> = grid.iter().map(|v| v + 2.0).collect();
    for backend in backends() {
        let kl = |p: &[f64], q: &[f64]| loss(backend.as_ref(), &Op::Kl(Head::Softmax), &[10], &[p, q]);
        assert!(kl(&a, &b).iter().all(|&v| v > 0.0), "{}", backend.name());
        assert_eq!(kl(&a, &a), [0.0; 4], "{}", backend.name());
        assert!(kl(&grid, &shifted).iter().all(|v| v.abs() <= 1e-6), "{}", backend.name());
    }
}

#[test]
fn l1_and_l2_of_nothing_are_zero_and_of_ones_are_one() {
    for backend in backends() {
        for op in [Op::MeanAbs, Op::MeanSquare] {
            assert_eq!(loss(backend.as_ref(), &op, &[3, 5], &[&[0.0; 30]]), [0.0, 0.0]);
            assert_eq!(loss(backend.as_ref(), &op, &[3, 5], &[&[-1.0; 30]]), [1.0, 1.0]);
        }
    }
}

/// Training one layer on a fixed batch: its loss falls, and the other layer keeps every bit.
#[test]
fn a_frozen_layer_is_bit_unchanged_while_the_trained_ones_loss_falls() -> Result<(), GraphError> {
    let mut g = Graph::new();
    let (x, frozen, trained) = (g.input("x", [6]), g.parameter("frozen", [6, 6])?, g.parameter("trained", [6, 6])?);
    let (one, rate) = (g.whole_input("one", [1]), g.whole_input("rate", [3]));
    let hidden = g.push("hidden", Op::Linear { activation: Activation::None }, &[x, trained])?;
    let hidden = g.push("relu", Op::Relu, &[hidden])?;
    let out = g.push("out", Op::Linear { activation: Activation::None }, &[hidden, frozen])?;
    let difference = g.sub("difference", out, x)?;
    let rows = g.push("rows", Op::MeanSquare, &[difference])?;
    let loss = g.mean_rows("loss", rows)?;
    let gradient = vjp(&mut g, loss, one, &[trained])?[0];
    let (m, v) = (g.state("m", [6, 6]), g.state("v", [6, 6]));
    let m_next = g.push("m'", Op::AdamMean { beta: 0.9 }, &[m, gradient])?;
    let v_next = g.push("v'", Op::AdamSquare { beta: 0.999 }, &[v, gradient])?;
    let next = g.push("p'", Op::AdamStep { epsilon: 1e-8 }, &[trained, m_next, v_next, rate])?;
    let updates = [(trained, next), (m, m_next), (v, v_next)];
    let given = [x, one, rate];
    let want = [loss, frozen];
    let entry = Entry { name: "train", given: &given, want: &want, updates: &updates, capacity: 8 };
    let mut weights = Weights::default();
    let initial = |speed| wave(36, speed).iter().map(|&v| v as f32 * 0.5).collect::<Vec<f32>>();
    weights.insert("frozen", [6, 6], initial(0.9));
    weights.insert("trained", [6, 6], initial(1.9));
    for backend in backends() {
        let mut program = backend.load(plan(&g, &[entry])?, &weights).unwrap();
        let program = program.as_mut();
        write(program, x, &Data::Floats(wave(48, 0.7)));
        write(program, one, &Data::Floats(vec![1.0]));
        let before = read(program, frozen, 1);
        let mut losses = Vec::new();
        for t in 1..=40 {
            write(program, rate, &Data::Floats(vec![1e-2, 1.0 - 0.9f64.powi(t), 1.0 - 0.999f64.powi(t)]));
            program.run(EntryId(0), 8).unwrap();
            losses.extend(read(program, loss, 1));
        }
        assert!(losses.windows(2).all(|l| l[1] < l[0]), "{}: {losses:?}", backend.name());
        let same = before.iter().zip(&read(program, frozen, 1)).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{}", backend.name());
    }
    Ok(())
}
