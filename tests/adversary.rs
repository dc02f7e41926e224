//! The gradient of potential outcomes for the pixels, and the adversary who follows it: against central differences of the
//! reference, and bit for bit whatever the batch.

mod common;

use common::hosts::*;
use intervene::attack::method::Images;
use intervene::attack::{Attack, Attacked, Norm, Steps, Targets};
use intervene::backend::cpu::Cpu;
use intervene::backend::reference::Reference;
use intervene::backend::{Backend, BackendError};
use intervene::causal::effect::Responses;
use intervene::causal::pull::Pull;
use intervene::causal::study::StudyError;
use intervene::causal::sweep::Logits;
use intervene::detect::adversary::{Adversary, Band};
use intervene::detect::claim::DECLARED;
use intervene::detect::features::Features;
use intervene::model::Head;
use intervene::random::Stream;
use intervene::tensor::argmax;

/// Weights of idle's logits and of every set's, of `n` images; every other row 0.
fn weights(n: usize, variants: usize, classes: usize) -> Vec<f32> {
    let stream = Stream::new(0, "weights");
    let weight = |i: usize| if i / classes % 2 == 1 { 0.0 } else { stream.uniform(0, i as u32) - 0.5 };
    (0..n * variants * classes).map(weight).collect()
}

fn pull(host: &Host, rows: usize, backend: &dyn Backend) -> Pull {
    e(Pull::new(host.subject(), &host.singles(), rows, backend))
}

#[test]
fn a_pull_is_the_gradient_of_the_weighed_outcomes() {
    // a node that is 0 everywhere: there a ReLU's slope is 0
    let host = Host::small(2).with_dead(1);
    let (n, variants, classes) = (3, host.autoencoder.nodes + 1, 4);
    let (x, weights) = (host.images(n, 21), weights(n, variants, classes));
    let gradient = e(pull(&host, 4, &Reference).gradient(&x, &weights));
    let weighed = |x: &[f32]| -> f64 {
        let Logits { idle, done, .. } = host.outcomes(x, &Reference);
        let rows = idle.chunks_exact(classes).zip(done.chunks_exact(classes * (variants - 1)));
        let logits = rows.flat_map(|(idle, done)| idle.iter().chain(done).copied());
        logits.zip(&weights).map(|(o, w)| o * f64::from(*w)).sum()
    };
    let h = 1.0 / 8192.0;
    for trial in 0..6 {
        let stream = Stream::new(trial, "way");
        let way: Vec<f32> = (0..x.len()).map(|i| if stream.uniform(0, i as u32) < 0.5 { -1.0 } else { 1.0 }).collect();
        let moved = |by: f32| x.iter().zip(&way).map(|(x, v)| x + by * v).collect::<Vec<f32>>();
        let found = (weighed(&moved(h)) - weighed(&moved(-h))) / f64::from(2.0 * h);
        let want: f64 = gradient.iter().zip(&way).map(|(g, v)| f64::from(g * v)).sum();
        let size: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        // ReLUs and maxima switch within h
        assert!((found - want).abs() <= 2e-2 * size && size > 0.0, "{found} not {want}, of {size}");
    }
    let other = e(pull(&host, 4, &Cpu::new()).gradient(&x, &weights));
    let [apart, size] = [true, false].map(|less| {
        let pairs = gradient.iter().zip(&other);
        pairs.map(|(a, b)| f64::from(if less { a - b } else { *a }).powi(2)).sum::<f64>().sqrt()
    });
    assert!(apart <= 1e-4 * size, "{apart} of {size}");
}

#[test]
fn a_pull_does_not_depend_on_its_batch_and_wants_a_weight_for_each_logit() {
    let host = Host::small(2);
    let (n, variants) = (5, host.autoencoder.nodes + 1);
    let (x, weights) = (host.images(n, 22), weights(n, variants, 4));
    let whole = e(pull(&host, 64, &Cpu::new()).gradient(&x, &weights));
    for rows in [1, 3] {
        assert_eq!(bits(&e(pull(&host, rows, &Cpu::new()).gradient(&x, &weights))), bits(&whole), "{rows} rows");
    }
    let refused = pull(&host, 4, &Cpu::new()).gradient(&x, &weights[1..]);
    assert!(matches!(refused, Err(BackendError::Transfer { .. })), "{refused:?}");
}

const STEPS: Steps = Steps { eps: 0.3, step: 0.05, steps: 6, norm: Norm::Linf };
const SEED: u64 = 7;

/// Host logits and the declared statistic of images.
fn seen(host: &Host, x: &[f32]) -> Vec<(Option<usize>, f64)> {
    let Logits { orig, idle, done, .. } = e(host.sweep(&host.singles(), (8, 32), &Cpu::new()).outcomes::<f32>(x));
    let rows = orig.chunks_exact(10).zip(idle.chunks_exact(10).zip(done.chunks_exact(10 * host.autoencoder.nodes)));
    let one = |(orig, (idle, done)): (&[f32], (&[f32], &[f32]))| {
        let features = e(Features::of(&e(Responses::new(Head::Softmax, orig, idle, done))));
        (argmax(orig), features.get(DECLARED).expect("16 nodes"))
    };
    rows.map(one).collect()
}

fn attacked(host: &Host, x: &[f32], ids: &[u64], band: Band, (images, variants): (usize, usize)) -> Vec<f32> {
    let labels: Vec<u32> = seen(host, x).iter().map(|(class, _)| class.expect("a class") as u32).collect();
    let mut sweep = host.sweep(&host.singles(), (images, variants), &Cpu::new());
    let mut pull = pull(host, variants, &Cpu::new());
    let mut adversary =
        Adversary { sweep: &mut sweep, pull: &mut pull, attacked: Attacked::Host, band, stopped: &|| false };
    let images = Images { pixels: x, ids, seed: SEED };
    e(adversary.attack(images, Targets::Classes(&labels), (STEPS, 2)))
}

#[test]
fn the_adversary_stays_in_ball_and_band_and_each_image_is_its_own() {
    let host = Host::fashion_trained();
    let n = 12;
    let x = garments(n);
    let ids: Vec<u64> = (0..n as u64).collect();
    let clean = seen(&host, &x);
    // PGD ends above or below it on most: it makes the network surer than it was
    let mut values: Vec<f64> = clean.iter().map(|(_, value)| *value).collect();
    values.sort_unstable_by(f64::total_cmp);
    let band = Band { lo: values[n / 2], hi: values[n - 1] };
    let inside = |x: &[f32]| seen(&host, x).iter().filter(|(_, value)| band.contains(*value)).count();
    let whole = attacked(&host, &x, &ids, band, (8, 32));
    for (a, x) in whole.iter().zip(&x) {
        assert!((a - x).abs() <= STEPS.eps + 1e-6 && (0.0..=1.0).contains(a), "{x} to {a}");
    }
    let labels: Vec<u32> = clean.iter().map(|(class, _)| class.expect("a class") as u32).collect();
    let plain = Attack::Pgd { steps: STEPS, restarts: 2 };
    let mut sweep = host.sweep(&[], (8, 8), &Cpu::new());
    let images = Images { pixels: &x, ids: &ids, seed: SEED };
    let plain = e(plain.run(&mut sweep.victim(), images, Targets::Classes(&labels).into()));
    let wrong = |x: &[f32]| seen(&host, x).iter().zip(&clean).filter(|(a, b)| a.0 != b.0).count();
    println!(
        "inside: {} and plain {}; wrong: {} and plain {}",
        inside(&whole),
        inside(&plain),
        wrong(&whole),
        wrong(&plain)
    );
    assert!(inside(&whole) >= n - 1 && inside(&plain) < inside(&whole));
    assert!(wrong(&whole) >= n / 2);
    // one after the other, in other batches
    for i in [0, 5, n - 1] {
        let pixels = i * 784..(i + 1) * 784;
        let alone = attacked(&host, &x[pixels.clone()], &ids[i..=i], band, (3, 5));
        assert_eq!(bits(&alone), bits(&whole[pixels]), "image {i}");
    }
}

#[test]
fn the_adversary_stops_when_told_to() {
    let host = Host::small(2);
    let x = host.images(2, 23);
    let mut sweep = host.sweep(&host.singles(), (2, 4), &Cpu::new());
    let mut pull = pull(&host, 4, &Cpu::new());
    let band = Band { lo: 0.0, hi: 1.0 };
    let mut adversary =
        Adversary { sweep: &mut sweep, pull: &mut pull, attacked: Attacked::Host, band, stopped: &|| true };
    let images = Images { pixels: &x, ids: &[0, 1], seed: SEED };
    let stopped = adversary.attack(images, Targets::Classes(&[0, 1]), (STEPS, 1));
    assert!(matches!(stopped, Err(StudyError::Attack(intervene::attack::AttackError::Stopped))), "{stopped:?}");
}
