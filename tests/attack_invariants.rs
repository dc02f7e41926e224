//! Attacks on planted networks with a known truth, and on the trained Fashion net: what a step, a ball, a start or a pair of
//! pixels must be. Numbers in the comments are those of the method's list of invariants.

mod common;

use common::hosts::*;
use common::{backends, read};
use intervene::attack::Targets;
use intervene::attack::jsma::Jsma;
use intervene::attack::{Attack, AttackError, Norm, Steps, losses, start_at_random};
use intervene::backend::cpu::Cpu;
use intervene::backend::reference::Reference;
use intervene::backend::{Backend, Completed};
use intervene::causal::intervention::add_random_signs;
use intervene::causal::study::{AttackLabel, Do, Input, Study};
use intervene::graph::Graph;
use intervene::graph::plan::{Entry, EntryId, plan};
use intervene::graph::vjp::vjp;
use intervene::model::Layer;
use intervene::random::Stream;
use intervene::tensor::{TensorRef, argmax};

/// -log p_label.
fn loss(o: &[f64], label: u32) -> f64 {
    let max = o.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + o.iter().map(|v| (v - max).exp()).sum::<f64>().ln() - o[label as usize]
}

fn predictions(logits: &[f64], classes: usize) -> Vec<u32> {
    let largest = |o: &[f64]| (0..o.len()).max_by(|a, b| o[*a].total_cmp(&o[*b])).expect("classes") as u32;
    logits.chunks_exact(classes).map(largest).collect()
}

/// 28 and 29.
#[test]
fn fgsm_steps_by_eps_along_the_sign_stays_in_the_unit_interval_and_by_0_stays() {
    let mut host = Host::small(2);
    // nobody reads the second input channel
    host.weight("features.0.weight")
        .iter_mut()
        .enumerate()
        .for_each(|(i, w)| *w *= f32::from(u8::from(i / 9 % 2 == 0)));
    let n = 6;
    let stream = Stream::new(0, "edge");
    let edge: Vec<f32> = (0..n * host.pixels()).map(|i| stream.below(0, i as u32, 256) as f32 / 255.0).collect();
    let labels: Vec<u32> = (0..n as u32).map(|i| i % 4).collect();
    for backend in backends() {
        let mut sweep = host.sweep(&[], (4, 4), backend.as_ref());
        for eps in [0.1f32, 0.03, 1.0 / 255.0] {
            let x = host.images(n, 10);
            let (stepped, g) = (
                e(sweep.victim().fgsm(&x, Targets::Classes(&labels), eps)),
                e(sweep.victim().input_gradient(&x, Targets::Classes(&labels))),
            );
            let mut still = 0;
            for ((x, stepped), g) in x.iter().zip(&stepped).zip(&g) {
                let sign = if *g == 0.0 { 0.0 } else { g.signum() };
                assert_eq!(stepped.to_bits(), (x + eps * sign).to_bits(), "{x}, {g} on {}", backend.name());
                still += usize::from(*g == 0.0);
            }
            assert!(still >= x.len() / 2 && still < x.len(), "{still}");
            let (clipped, g) = (
                e(sweep.victim().fgsm(&edge, Targets::Classes(&labels), eps)),
                e(sweep.victim().input_gradient(&edge, Targets::Classes(&labels))),
            );
            for ((x, clipped), g) in edge.iter().zip(&clipped).zip(&g) {
                let sign = if *g == 0.0 { 0.0 } else { g.signum() };
                assert_eq!(*clipped, (x + eps * sign).clamp(0.0, 1.0), "on {}", backend.name());
            }
        }
        assert_eq!(
            bits(&e(sweep.victim().fgsm(&edge, Targets::Classes(&labels), 0.0))),
            bits(&edge),
            "{}",
            backend.name()
        );
    }
}

#[test]
fn an_attack_wants_one_label_an_image() {
    let host = Host::small(2);
    let x = host.images(5, 18);
    let mut sweep = host.sweep(&[], (2, 2), &Cpu::new());
    for labels in [&[0u32; 4][..], &[0; 6], &[]] {
        let refused = [
            sweep.victim().fgsm(&x, Targets::Classes(labels), 0.1),
            sweep.victim().input_gradient(&x, Targets::Classes(labels)).map_err(AttackError::from),
        ];
        for error in refused.map(|r| r.expect_err("too few or too many labels")) {
            assert!(error.to_string().contains(&format!("{} labels", labels.len())), "{error}");
        }
    }
    assert!(
        sweep.victim().fgsm(&x[1..], Targets::Classes(&[0; 5]), 0.1).is_err()
            && sweep.victim().fgsm(&x, Targets::Classes(&[0; 5]), 0.1).is_ok()
    );
    assert!(sweep.victim().fgsm(&[], Targets::Classes(&[]), 0.1).is_ok_and(|none| none.is_empty()));
}

/// Pixels straight into a linear head of two classes; the ReLU changes no pixel, for they are positive.
fn linear_host() -> Host {
    let mut model = model([1, 6, 9], 2, &[Layer::Relu], &[Layer::Flatten, Layer::Linear { features: 2 }]);
    (model.mean, model.std) = (vec![0.0], vec![1.0]);
    Host::new(model, 1, (2, 2), 6)
}

/// 32.
#[test]
fn fgsm_on_a_linear_net_of_two_classes_lowers_the_margin_by_eps_times_the_l1_norm_of_its_weights() {
    let mut host = linear_host();
    let w = host.weight("classifier.1.weight").to_vec();
    let (w0, w1) = w.split_at(w.len() / 2);
    let norm: f64 = w0.iter().zip(w1).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).sum();
    // x and eps are multiples of 1/256, so x' is exact
    let (n, eps) = (5, 0.0625);
    let x = host.images(n, 11);
    let labels = [0u32, 1, 1, 0, 1];
    for backend in backends() {
        let mut sweep = host.sweep(&[], (4, 4), backend.as_ref());
        let attacked = e(sweep.victim().fgsm(&x, Targets::Classes(&labels), eps));
        let [before, after] = [&x, &attacked].map(|x| e(sweep.outcomes::<f64>(x)).orig);
        for (i, &label) in labels.iter().enumerate() {
            let margin = |o: &[f64]| o[2 * i + label as usize] - o[2 * i + 1 - label as usize];
            let (got, want) = (margin(&before) - margin(&after), f64::from(eps) * norm);
            let allowed = tolerance(backend.as_ref(), host.pixels()) * want.max(largest(&before));
            assert!((got - want).abs() <= allowed, "{got} for {want} on {}", backend.name());
            // no other point of the ball lowers it further: tried with random signs
            for seed in 0..20 {
                let mut other = x.clone();
                e(add_random_signs(seed, i as u64, eps, &mut other));
                let o = e(sweep.outcomes::<f64>(&other)).orig;
                assert!(margin(&before) - margin(&o) <= got + allowed);
            }
        }
    }
}

/// 29, 30 and 31: one code path, so bits.
#[test]
fn bim_of_one_step_is_fgsm_and_from_any_start_every_step_stays_in_the_ball_and_the_unit_cube() {
    let host = Host::small(2);
    let (n, eps) = (5, 0.0625f32);
    let x = host.images(n, 12);
    let labels: Vec<u32> = (0..n as u32).map(|i| i % 2).collect();
    let mut start = x.clone();
    for (i, image) in start.chunks_exact_mut(host.pixels()).enumerate() {
        e(start_at_random(3, i as u64, 0, (Norm::Linf, eps), image));
    }
    for backend in backends() {
        let mut sweep = host.sweep(&[], (2, 2), backend.as_ref());
        let mut run = |from: Option<&[f32]>, step, steps| {
            e(sweep.victim().steps(&x, from, Targets::Classes(&labels), Steps { eps, step, steps, norm: Norm::Linf }))
        };
        let name = backend.name();
        let fgsm = run(None, eps, 1);
        let step = 0.02f32;
        let mut before: Option<Vec<f32>> = None;
        for steps in 1..=5 {
            let bim = run(None, step, steps);
            // PGD without a random start
            assert_eq!(bits(&bim), bits(&run(Some(&x), step, steps)), "{name}");
            // a step from where the one before ended; what the f64 reference hands out is rounded
            if let Some(before) = before.as_ref().filter(|_| name != Reference.name()) {
                assert_eq!(bits(&bim), bits(&run(Some(before), step, 1)), "{name}, step {steps}");
            }
            let reach = eps.min(step * steps as f32) + 1e-6;
            for (x, (a, b)) in x.iter().zip(bim.iter().zip(run(Some(&start), step, steps))) {
                assert!((a - x).abs() <= reach && (0.0..=1.0).contains(a), "{x} {a} on {name}");
                assert!(b >= (x - eps).max(0.0) && b <= (x + eps).min(1.0), "{x} {b} on {name}");
            }
            before = Some(bim);
        }
        let zero = Steps { eps: 0.0, step, steps: 3, norm: Norm::Linf };
        assert_eq!(bits(&e(sweep.victim().steps(&x, None, Targets::Classes(&labels), zero))), bits(&x), "{name}");
        assert_eq!(bits(&e(sweep.victim().fgsm(&x, Targets::Classes(&labels), eps))), bits(&fgsm), "{name}");
        let short = sweep.victim().steps(&x, Some(&x[1..]), Targets::Classes(&labels), zero);
        assert!(short.is_err_and(|e| e.to_string().contains("cannot start")), "{name}");
    }
}

/// 32: where the gradient's signs are the same everywhere, enough steps lead from any start to FGSM's point.
#[test]
fn on_a_linear_net_of_two_classes_bim_and_pgd_end_where_fgsm_does() {
    let host = linear_host();
    let (n, eps) = (5, 0.0625f32);
    let x = host.images(n, 11);
    let labels = [0u32, 1, 1, 0, 1];
    let mut start = x.clone();
    for (i, image) in start.chunks_exact_mut(host.pixels()).enumerate() {
        e(start_at_random(3, i as u64, 0, (Norm::Linf, eps), image));
    }
    for backend in backends() {
        let mut sweep = host.sweep(&[], (4, 4), backend.as_ref());
        let fgsm = e(sweep.victim().fgsm(&x, Targets::Classes(&labels), eps));
        let steps = Steps { eps, step: 0.03125, steps: 4, norm: Norm::Linf };
        for from in [None, Some(&start[..])] {
            let end = e(sweep.victim().steps(&x, from, Targets::Classes(&labels), steps));
            assert_eq!(bits(&end), bits(&fgsm), "{}", backend.name());
        }
    }
}

/// 38, 39 and 40: towards its target as every pair of pixels and every class's own gradient would have it.
#[test]
fn jsma_takes_the_pairs_that_the_whole_jacobian_names_and_ends_at_its_target() {
    let host = Host::small(2);
    let (n, pixels) = (4, host.pixels());
    let x = host.images(n, 19);
    let attack = Jsma { theta: 0.4, gamma: 0.2 };
    for backend in backends() {
        // blocks of an odd number of rows: an image's two gradients are not always of one block
        let mut sweep = host.sweep(&[], (3, 4), backend.as_ref());
        let name = backend.name();
        let clean = e(sweep.victim().forward(&x));
        let classes = clean.len() / n;
        let answers: Vec<usize> = clean.chunks(classes).map(|row| argmax(row).unwrap()).collect();
        let targets: Vec<u32> = answers.iter().map(|a| ((a + 1) % classes) as u32).collect();
        let attacked = e(sweep.victim().jsma(&x, &targets, attack));
        let logits = e(sweep.victim().forward(&attacked));
        for i in 0..n {
            let (clean, attacked) = (&x[i * pixels..][..pixels], &attacked[i * pixels..][..pixels]);
            let changed = clean.iter().zip(attacked).filter(|(a, b)| a != b).count();
            assert!(changed <= 2 * attack.steps(pixels) as usize && changed > 0, "{changed} on {name}");
            assert!(clean.iter().zip(attacked).all(|(a, b)| b >= a && *b <= 1.0), "{name}");
            let reached = argmax(&logits[i * classes..][..classes]) == Some(targets[i] as usize);
            assert!(reached || changed >= 2 * attack.steps(pixels) as usize - 1, "{changed} on {name}");
            // alone, it is what it is among others
            assert_eq!(bits(&e(sweep.victim().jsma(clean, &targets[i..=i], attack))), bits(attacked), "{name}");
        }
        // already there: nothing is done
        let own: Vec<u32> = answers.iter().map(|&a| a as u32).collect();
        assert_eq!(bits(&e(sweep.victim().jsma(&x, &own, attack))), bits(&x), "{name}");
        assert!(
            sweep.victim().jsma(&x, &targets[1..], attack).is_err()
                && sweep.victim().jsma(&x, &[99; 4], attack).is_err()
        );
        assert!(sweep.victim().jsma(&[], &[], attack).is_ok_and(|none| none.is_empty()));
    }

    // the first step by hand, on the f64 reference: one gradient a class, every pair
    let mut sweep = host.sweep(&[], (3, 4), &Reference);
    let image = &x[..pixels];
    let logits = e(sweep.victim().forward(image));
    let (classes, target) = (logits.len(), (argmax(&logits).unwrap() + 1) % logits.len());
    let jacobian: Vec<Vec<f64>> = (0..classes).map(|c| logit_gradient(&host, image, c)).collect();
    let (mut best, mut most) = ([0, 0], 0.0);
    for p in 0..pixels {
        for q in p + 1..pixels {
            let sum = |c: usize| jacobian[c][p] + jacobian[c][q];
            let (a, b) = (sum(target), (0..classes).filter(|c| *c != target).map(sum).sum::<f64>());
            if a > 0.0 && b < 0.0 && -a * b > most && image[p] < 1.0 && image[q] < 1.0 {
                (best, most) = ([p, q], -a * b);
            }
        }
    }
    assert!(most > 0.0);
    let one = Jsma { theta: 0.4, gamma: 2.5 / pixels as f32 };
    assert_eq!(one.steps(pixels), 1);
    let stepped = e(sweep.victim().jsma(image, &[target as u32], one));
    let changed: Vec<usize> = (0..pixels).filter(|&i| stepped[i] != image[i]).collect();
    assert_eq!(changed, best);
}

/// Gradient of logit `c` of the host for an image's pixels, in f64.
fn logit_gradient(host: &Host, image: &[f32], c: usize) -> Vec<f64> {
    let mut g = Graph::new();
    let x = g.input("x", host.model.input);
    let normalised = e(host.model.normalise(&mut g, x));
    let logits = e(host.model.tail(&mut g, normalised, 0));
    let seed = g.input("seed", [host.model.classes]);
    let gradient = e(vjp(&mut g, logits, seed, &[x]))[0];
    let (given, want) = ([x, seed], [gradient]);
    let entry = Entry { name: "row of the Jacobian", given: &given, want: &want, updates: &[], capacity: 1 };
    let constants = host.model.constants();
    let weights = Completed { weights: &host.weights, derived: &constants };
    let mut program = e(Reference.load(e(plan(&g, &[entry])), &weights));
    let one: Vec<f32> = (0..host.model.classes).map(|k| f32::from(u8::from(k == c))).collect();
    e(program.write(x, TensorRef::F32(image)));
    e(program.write(seed, TensorRef::F32(&one)));
    e(program.run(EntryId(0), 1));
    read(&mut *program, gradient, 1)
}

/// 31 and 36, on a study's inputs: the same seed gives the same start, more starts never a smaller loss.
#[test]
fn of_several_random_starts_the_one_with_the_largest_loss_is_taken() {
    let host = Host::small(2);
    let data = dataset(&host, 6, |at| (at * 97 % 256) as u8);
    let steps = Steps { eps: 0.05, step: 0.02, steps: 3, norm: Norm::Linf };
    let sets = host.singles();
    let backend = Cpu::new();
    let answers = |seed: u64, restarts: u32| {
        let sweep = host.sweep(&sets, (3, 8), &backend);
        let (inputs, attack_label) = (vec![Input::Attack(Attack::Pgd { steps, restarts })], AttackLabel::Predicted);
        let shard =
            e(Study { sweep, data: &data, inputs, attack_label, mask: None, value: Do::Zero, seed }.shard(0, 6));
        (shard.answers[0].logits.orig.clone(), shard.answers[1].logits.orig.clone())
    };
    let (clean, one) = answers(0, 1);
    let classes = clean.len() / 6;
    let predicted: Vec<u32> = clean.chunks(classes).map(|row| argmax(row).unwrap() as u32).collect();
    let loss = |logits: &[f32]| e(losses(logits, classes, Targets::Classes(&predicted)));
    assert_eq!(one, answers(0, 1).1);
    assert_ne!(one, answers(1, 1).1);
    let (few, many) = (loss(&one), loss(&answers(0, 8).1));
    assert!(few.iter().zip(&many).all(|(few, many)| many >= few), "{few:?} {many:?}");
    assert!(few.iter().zip(&many).any(|(few, many)| many > few), "{few:?} {many:?}");
    assert!(few.iter().zip(loss(&clean)).all(|(attacked, clean)| *attacked > clean));
}

/// Share of pixels whose sign is the same, among those where |a| is above `floor` of its image's largest.
fn same_signs(a: &[f32], b: &[f32], image: usize, floor: f64) -> (usize, usize) {
    let (mut same, mut all) = (0, 0);
    for (a, b) in a.chunks_exact(image).zip(b.chunks_exact(image)) {
        let floor = floor * largest(&widen(a));
        for (a, b) in a.iter().zip(b).filter(|(a, _)| f64::from(a.abs()) > floor) {
            all += 1;
            same += usize::from(a.signum() == b.signum() && *b != 0.0);
        }
    }
    (same, all)
}

/// Gradients below this part of the largest are rounding in f32: sums of some 1000 products, backwards through a small
/// host.
const NOISE: f64 = 1e-5;

fn floor(backend: &dyn Backend) -> f64 {
    if backend.name() == Reference.name() { 0.0 } else { NOISE }
}

/// 33.
#[test]
fn with_two_classes_moving_away_from_one_is_moving_towards_the_other() {
    let host = Host::new(small(2), 2, (9, 6), 3);
    let (x, n) = (host.images(8, 12), 8);
    for backend in backends() {
        let mut sweep = host.sweep(&[], (8, 8), backend.as_ref());
        let [away, towards] =
            [0u32, 1].map(|label| e(sweep.victim().input_gradient(&x, Targets::Classes(&vec![label; n]))));
        let opposite: Vec<f32> = towards.iter().map(|g| -g).collect();
        let (same, all) = same_signs(&away, &opposite, host.pixels(), floor(backend.as_ref()));
        assert!(same == all && all > x.len() / 2, "{same} of {all} on {}", backend.name());
        // and by one factor: (1 - p_y) / p_y
        let logits = e(sweep.outcomes::<f64>(&x)).orig;
        for (i, o) in logits.chunks_exact(2).enumerate() {
            let [a, b] = [&away, &towards].map(|g| widen(&g[i * host.pixels()..][..host.pixels()]));
            let p = softmax(o);
            let scaled: Vec<f64> = b.iter().map(|g| -g * p[1] / p[0]).collect();
            let off = largest_difference(&a, &scaled);
            assert!(off <= f32_sum(500) * largest(&a), "{off} of {} on {}", largest(&a), backend.name());
        }
    }
}

/// 35.
#[test]
fn a_constant_on_all_logits_changes_no_attack() {
    let host = Host::small(2);
    let mut shifted = host.clone();
    shifted.weight("classifier.3.bias").iter_mut().for_each(|b| *b += 4.0);
    let (x, labels) = (host.images(8, 13), [0u32, 1, 2, 3, 0, 1, 2, 3]);
    for backend in backends() {
        let [(a, ga), (b, gb)] = [&host, &shifted].map(|host| {
            let mut sweep = host.sweep(&[], (8, 8), backend.as_ref());
            (
                e(sweep.victim().fgsm(&x, Targets::Classes(&labels), 0.0625)),
                e(sweep.victim().input_gradient(&x, Targets::Classes(&labels))),
            )
        });
        let (same, all) = same_signs(&ga, &gb, host.pixels(), floor(backend.as_ref()));
        assert!(same == all && all > x.len() / 2, "{same} of {all} on {}", backend.name());
        if backend.name() == Reference.name() {
            assert_eq!(bits(&a), bits(&b));
        }
    }
}

/// 34: per channel eps / sigma and the image of [0, 1] are the same step behind the normalisation.
#[test]
fn a_step_in_pixels_is_the_step_by_eps_over_sigma_behind_the_normalisation() {
    let mut host = Host::small(2);
    (host.model.mean, host.model.std) = (vec![0.4, 0.55], vec![0.3, 0.2]);
    let mut behind = host.clone();
    (behind.model.mean, behind.model.std) = (vec![0.0; 2], vec![1.0; 2]);
    let (n, eps, plane) = (6, 0.1f32, 99);
    let (labels, stream) = ([0u32, 1, 2, 3, 0, 1], Stream::new(0, "edge"));
    // whole images, so that both ends of the interval are met
    let x: Vec<f32> = (0..n * host.pixels()).map(|i| stream.below(0, i as u32, 256) as f32 / 255.0).collect();
    let of = |i: usize| (host.model.mean[i / plane % 2], host.model.std[i / plane % 2]);
    let normalised = |x: &[f32]| -> Vec<f32> { x.iter().enumerate().map(|(i, x)| (x - of(i).0) / of(i).1).collect() };
    for backend in backends() {
        let stepped = e(host.sweep(&[], (4, 4), backend.as_ref()).victim().fgsm(&x, Targets::Classes(&labels), eps));
        let inside = normalised(&x);
        let mut victim = behind.sweep(&[], (4, 4), backend.as_ref());
        let gradient = e(victim.victim().input_gradient(&inside, Targets::Classes(&labels)));
        let (mut clipped, mut compared) = (0, 0);
        let noise = floor(backend.as_ref()) * largest(&widen(&gradient));
        for (i, (got, g)) in normalised(&stepped).into_iter().zip(&gradient).enumerate() {
            // a sign may turn where the gradient is rounding
            if f64::from(g.abs()) <= noise {
                continue;
            }
            let (mean, std) = of(i);
            let (low, high) = ((0.0 - mean) / std, (1.0 - mean) / std);
            let free = inside[i] + eps / std * g.signum();
            clipped += usize::from(free < low || free > high);
            compared += 1;
            assert!((got - free.clamp(low, high)).abs() <= 2e-6, "{got} for {free} on {}", backend.name());
        }
        assert!(compared > x.len() / 2 && clipped > 20, "{compared}, {clipped}");
    }
}

/// 35, second half: a positive scale of the logits of two classes turns no sign of the gradient that is not saturated away.
#[test]
fn a_scale_on_the_logits_of_two_classes_leaves_fgsm() {
    let host = Host::new(small(2), 2, (9, 6), 3);
    let mut scaled = host.clone();
    for name in ["classifier.3.weight", "classifier.3.bias"] {
        scaled.weight(name).iter_mut().for_each(|w| *w *= 4.0);
    }
    let (x, labels) = (host.images(8, 13), [0u32, 1, 0, 1, 0, 1, 0, 1]);
    for backend in backends() {
        let [a, b] = [&host, &scaled].map(|host| {
            e(host.sweep(&[], (8, 8), backend.as_ref()).victim().input_gradient(&x, Targets::Classes(&labels)))
        });
        assert!(b.iter().any(|g| *g != 0.0));
        let (same, all) = same_signs(&a, &b, host.pixels(), floor(backend.as_ref()));
        assert!(same == all && all > x.len() / 2, "{same} of {all} on {}", backend.name());
    }
}

/// 39, second half: probabilities add up to 1, so the columns of their Jacobian add up to 0; those of logits need not. The gradient of
/// p_c is -p_c that of the cross-entropy at c.
#[test]
fn columns_of_the_jacobian_of_probabilities_add_up_to_0() {
    let host = Host::small(2);
    let image = host.images(1, 19);
    for backend in backends() {
        let mut sweep = host.sweep(&[], (2, 2), backend.as_ref());
        let p = softmax(&e(sweep.outcomes::<f64>(&image)).orig);
        let mut sums = vec![0.0f64; image.len()];
        let mut most = 0.0f64;
        for (c, p) in p.iter().enumerate() {
            let gradient = e(sweep.victim().input_gradient(&image, Targets::Classes(&[c as u32])));
            sums.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum -= p * f64::from(*g));
            most = most.max(p * largest(&widen(&gradient)));
        }
        assert!(
            most > 0.0 && largest(&sums) <= f32_sum(500) * most,
            "{} of {most} on {}",
            largest(&sums),
            backend.name()
        );
    }
    let rows: Vec<Vec<f64>> = (0..host.model.classes).map(|c| logit_gradient(&host, &image, c)).collect();
    let columns: Vec<f64> = (0..image.len()).map(|i| rows.iter().map(|row| row[i]).sum()).collect();
    assert!(largest(&columns) > 0.01 * rows.iter().map(|row| largest(row)).fold(0.0, f64::max));
}

/// 37.
#[test]
fn a_small_fgsm_step_raises_the_loss_by_eps_times_the_l1_norm_of_the_gradient() {
    let host = Host::small(2);
    // x is a multiple of 2^-8, so x + 2^-16 is exact in f32
    let eps = 1.0 / 65536.0;
    let (x, n) = (host.images(8, 14), 8);
    let labels: Vec<u32> = (0..n as u32).map(|i| i % 4).collect();
    let mut sweep = host.sweep(&[], (8, 8), &Reference);
    let (g, attacked) = (
        e(sweep.victim().input_gradient(&x, Targets::Classes(&labels))),
        e(sweep.victim().fgsm(&x, Targets::Classes(&labels), eps)),
    );
    let [before, after] = [&x, &attacked].map(|x| e(sweep.outcomes::<f64>(x)).orig);
    for (i, &label) in labels.iter().enumerate() {
        let norm: f64 = widen(&g[i * host.pixels()..][..host.pixels()]).iter().map(|g| g.abs()).sum();
        let got = loss(row(&after, i, 4), label) - loss(row(&before, i, 4), label);
        let want = f64::from(eps) * norm;
        // second order: the logits move by some 1e-3, so their softmax's slope does
        assert!((got - want).abs() <= 5e-3 * want && want > 0.0, "{got} for {want}");
    }
}

/// `evidence.md` on saturation: with p_y - 1 as seed, p_y = 1 in f32 loses every sign.
#[test]
fn where_p_rounds_to_1_the_gradient_keeps_every_sign() {
    let mut host = Host::small(2);
    host.weight("classifier.3.weight").iter_mut().for_each(|w| *w *= 60.0);
    let n = 48;
    let x = host.images(n, 15);
    let logits = e(host.sweep(&[], (n, n), &Reference).outcomes::<f64>(&x)).orig;
    let labels = predictions(&logits, 4);
    // 1 - p_y below half a spacing of f32 at 1, and no exp that underflows
    let sure = |i: &usize| {
        let rest = (0..4).filter(|c| *c != labels[*i] as usize).map(|c| softmax(row(&logits, *i, 4))[c]).sum::<f64>();
        rest < f64::from(f32::EPSILON) / 4.0 && rest > 1e-30
    };
    let sure: Vec<usize> = (0..n).filter(sure).collect();
    assert!(sure.len() >= 8, "only {} images are that sure", sure.len());
    let pick: Vec<f32> = sure.iter().flat_map(|&i| x[i * host.pixels()..][..host.pixels()].to_vec()).collect();
    let labels: Vec<u32> = sure.iter().map(|&i| labels[i]).collect();
    let gradient =
        |b: &dyn Backend| e(host.sweep(&[], (n, n), b).victim().input_gradient(&pick, Targets::Classes(&labels)));
    let truth = gradient(&Reference);
    for backend in backends() {
        let got = gradient(backend.as_ref());
        let (same, all) = same_signs(&truth, &got, host.pixels(), floor(backend.as_ref()));
        println!("{}: {same} of {all} signs in {} images", backend.name(), sure.len());
        assert!(same == all && all > pick.len() / 2, "{same} of {all} on {}", backend.name());
    }
}

/// 36, on average and not image by image.
#[test]
fn a_larger_ball_and_more_steps_raise_the_mean_loss_of_the_trained_net() {
    let host = Host::fashion_trained();
    let n = 40;
    let x = garments(n);
    let mut sweep = host.sweep(&[], (n, n), &Cpu::new());
    let labels = predictions(&widen(&e(sweep.victim().forward(&x))), 10);
    let targets = Targets::Classes(&labels);
    let mut mean = |x: &[f32]| {
        let logits = widen(&e(sweep.victim().forward(x)));
        (0..n).map(|i| loss(row(&logits, i, 10), labels[i])).sum::<f64>() / n as f64
    };
    let mut attack = host.sweep(&[], (n, n), &Cpu::new());
    let mut before = mean(&x);
    let mut rises = |x: &[f32]| {
        let after = mean(x);
        assert!(after >= before, "{after} after {before}");
        before = after;
    };
    for eps in [0.005f32, 0.01, 0.02, 0.04] {
        rises(&e(attack.victim().fgsm(&x, targets, eps)));
    }
    let bim = |steps| Steps { eps: 0.04, step: 0.01, steps, norm: Norm::Linf };
    // as many steps as lead to the edge are worth more than one leap to it, and more of them more
    for steps in [4, 8, 16] {
        rises(&e(attack.victim().steps(&x, None, targets, bim(steps))));
    }
}

/// 50.
#[test]
fn random_signs_raise_the_loss_of_the_trained_net_less_than_fgsm_of_the_same_size() {
    let host = Host::fashion_trained();
    let n = 40;
    let x = garments(n);
    let mut sweep = host.sweep(&[], (n, n), &Cpu::new());
    let mut logits = |x: &[f32]| widen(&e(sweep.victim().forward(x)));
    let clean = logits(&x);
    let labels = predictions(&clean, 10);
    let mean = |o: &[f64]| (0..n).map(|i| loss(row(o, i, 10), labels[i])).sum::<f64>() / n as f64;
    for eps in [0.02f32, 0.05, 0.1] {
        let mut noisy = x.clone();
        for (i, image) in noisy.chunks_exact_mut(784).enumerate() {
            e(add_random_signs(7, i as u64, eps, image));
        }
        let mut attack = host.sweep(&[], (n, n), &Cpu::new());
        let attacked = e(attack.victim().fgsm(&x, Targets::Classes(&labels), eps));
        let [noise, fgsm] = [&noisy, &attacked].map(|x| mean(&widen(&e(attack.victim().forward(x)))) - mean(&clean));
        println!("eps {eps}: noise {noise:.4}, fgsm {fgsm:.4}");
        assert!(fgsm > 0.0 && noise < fgsm, "eps {eps}: {noise} and {fgsm}");
    }
}
