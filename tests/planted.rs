//! Planted networks: their effects are known in closed form, from the pixels, before any device has computed anything. The
//! engine must find what was planted and nothing else, and its intervals must hold the truth as often as they say.

mod common;

use common::backends;
use common::hosts::*;
use intervene::backend::{Backend, Layered, Parameters};
use intervene::causal::analysis::{Columns, Quantity};
use intervene::causal::effect::Reading;
use intervene::causal::intervention::NodeSet;
use intervene::causal::refute::Judge;
use intervene::causal::refute::placebo::{Severed, directions, shuffled, weighted};
use intervene::causal::statistics::{
    Bca, Bootstrap, Clusters, Equivalence, Hierarchical, Interval, Likeness, SignFlip, Summary, bh, holm, pearson,
    spearman,
};
use intervene::causal::study::{AttackLabel, Do, Shard, Study};
use intervene::causal::sweep::{Batch, Logits, Subject, Sweep};
use intervene::data::Dataset;
use intervene::model::{Head, Layer};
use intervene::random::Stream;

/// A map of the tap: `gain` times a channel of the input plus `offset`, chosen so that no pixel brings it below 0.
#[derive(Clone, Copy)]
struct Map {
    from: usize,
    gain: f32,
    offset: f32,
}

/// A network of such maps whose logits are weighted sums of their means, under an autoencoder that is the identity: node k
/// is map k. Pixels are normalised to 4 x - 2, without rounding.
struct Planted {
    host: Host,
    maps: Vec<Map>,
    /// Classes x maps.
    head: Vec<f32>,
}

impl Planted {
    fn new(channels: usize, maps: &[Map], head: &[f32]) -> Planted {
        let (count, classes) = (maps.len(), head.len() / maps.len());
        let linear = Layer::Linear { features: classes };
        let mut model = model([channels, 4, 8], classes, &[conv3(count), Layer::Relu], &[Layer::Flatten, linear]);
        (model.mean, model.std) = (vec![0.5; channels], vec![0.25; channels]);
        let mut host = Host::new(model, 2, (count, count), 1).with_identity();
        maps_head(&mut host, head);
        host.weight("classifier.1.bias").fill(0.0);
        let kernels = host.weight("features.0.weight");
        kernels.fill(0.0);
        for (k, map) in maps.iter().enumerate() {
            kernels[(k * channels + map.from) * 9 + 4] = map.gain;
        }
        host.weight("features.0.bias").iter_mut().zip(maps).for_each(|(bias, map)| *bias = map.offset);
        Planted { host, maps: maps.to_vec(), head: head.to_vec() }
    }

    fn classes(&self) -> usize {
        self.head.len() / self.maps.len()
    }

    /// The mean of map k on an image of this mean of its channel.
    fn mean(&self, k: usize, channel: f64) -> f64 {
        let Map { gain, offset, .. } = self.maps[k];
        f64::from(gain) * (4.0 * channel - 2.0) + f64::from(offset)
    }

    /// The means of all maps of an image.
    fn means(&self, image: &[f32]) -> Vec<f64> {
        let channel = |from: usize| image[from * MAP..][..MAP].iter().map(|&v| f64::from(v)).sum::<f64>() / MAP as f64;
        self.maps.iter().enumerate().map(|(k, map)| self.mean(k, channel(map.from))).collect()
    }

    /// The logits of an image with the nodes of a set at 0.
    fn logits(&self, image: &[f32], zeroed: &[usize]) -> Vec<f64> {
        let kept: Vec<(usize, f64)> = self.means(image).into_iter().enumerate().collect();
        let kept = kept.iter().filter(|(k, _)| !zeroed.contains(k));
        let logit = |c: usize| kept.clone().map(|(k, f)| self.weight(c, *k) * f).sum();
        (0..self.classes()).map(logit).collect()
    }

    fn weight(&self, class: usize, map: usize) -> f64 {
        f64::from(self.head[class * self.maps.len() + map])
    }

    /// What a logit may be off by on `backend`.
    fn tolerance(&self, backend: &dyn Backend, logits: &[f64]) -> f64 {
        tolerance(backend, self.maps.len() * MAP) * largest(logits)
    }
}

fn outcomes(host: &Host, sets: &[NodeSet], x: &[f32], backend: &dyn Backend) -> Logits<f64> {
    e(host.sweep(sets, (50, 64), backend).outcomes(x))
}

/// Effects of a set on a class's logit, one an image.
fn column<T: Copy + Into<f64>>(l: &Logits<T>, set: usize, class: usize, classes: usize) -> Vec<f64> {
    let (idle, done) = (l.idle.chunks_exact(classes), l.done.chunks_exact(classes));
    let sets = l.live.len() * classes / l.idle.len();
    idle.zip(done.skip(set).step_by(sets)).map(|(idle, done)| done[class].into() - idle[class].into()).collect()
}

fn views(columns: &[Vec<f64>]) -> Vec<&[f64]> {
    columns.iter().map(Vec::as_slice).collect()
}

fn mean(column: &[f64]) -> f64 {
    Summary::of(column).mean.expect("numbers")
}

fn holds(interval: Interval, value: f64) -> bool {
    interval.lo <= value && value <= interval.hi
}

/// Four classes; map c is read by class c, map 4 by nobody, map 5 by classes 0 and 3 with weights of either sign. Three
/// channels of the input drive them.
fn wired() -> Planted {
    let map = |from, gain, offset| Map { from, gain, offset };
    let maps =
        [map(0, 1.0, 2.5), map(1, 1.5, 3.5), map(2, -1.0, 2.5), map(0, -0.5, 2.0), map(1, 2.0, 5.0), map(2, 0.75, 2.0)];
    let mut head = [0.0; 4 * 6];
    (0..4).for_each(|c| head[c * 6 + c] = [1.5, 1.0, 1.25, 1.75][c]);
    (head[5], head[3 * 6 + 5]) = (-0.5, 0.75);
    Planted::new(3, &maps, &head)
}

/// Images of which each channel has a brightness of its own, in bytes.
fn bright(planted: &Planted, n: usize, seed: u64) -> Dataset {
    let (stream, channels) = (Stream::new(seed, "brightness"), planted.host.model.input[0]);
    let byte = |at: usize| {
        let (image, channel, pixel) = (at / MAP / channels, at / MAP % channels, at % MAP);
        let level = stream.below(image as u64, channel as u32, 192);
        (20 + level + stream.below(image as u64, (channels + channel * MAP + pixel) as u32, 40)) as u8
    };
    dataset(&planted.host, n, byte)
}

fn pixels(data: &Dataset) -> Vec<f32> {
    e(data.pixels(&(0..data.len() as u32).collect::<Vec<_>>()))
}

#[test]
fn zeroing_nodes_moves_every_logit_by_minus_weight_times_mean_as_the_pixels_say_and_sets_add() {
    let planted = wired();
    let x = pixels(&bright(&planted, 30, 1));
    let members: [&[usize]; 8] = [&[0], &[1], &[2], &[3], &[4], &[5], &[0, 5], &[0, 1, 2, 3, 4, 5]];
    let sets: Vec<NodeSet> = members.iter().map(|m| planted.host.set(m)).collect();
    for backend in backends() {
        let l = outcomes(&planted.host, &sets, &x, backend.as_ref());
        let allowed = planted.tolerance(backend.as_ref(), &l.idle);
        for (i, image) in x.chunks_exact(planted.host.pixels()).enumerate() {
            let f = planted.means(image);
            for (s, set) in members.iter().enumerate() {
                for c in 0..4 {
                    let got = row(&l.done, i * members.len() + s, 4)[c] - row(&l.idle, i, 4)[c];
                    let want: f64 = set.iter().map(|&k| -planted.weight(c, k) * f[k]).sum();
                    assert!((got - want).abs() <= allowed, "{set:?}: {got} for {want} on {}", backend.name());
                }
            }
            assert!(largest_difference(row(&l.idle, i, 4), &planted.logits(image, &[])) <= allowed);
        }
    }
}

/// What a study of every node on these images measures.
fn shard(planted: &Planted, data: &Dataset, backend: &dyn Backend) -> Shard {
    let sweep = planted.host.sweep(&planted.host.singles(), (50, 64), backend);
    let (inputs, attack_label) = (Vec::new(), AttackLabel::Predicted);
    e(Study { sweep, data, inputs, attack_label, mask: None, value: Do::Zero, seed: 0 }.shard(0, data.len()))
}

fn columns(planted: &Planted, shard: Shard) -> Columns {
    e(Columns::of(&[shard], Head::Softmax, planted.classes()))
}

#[test]
fn a_node_of_one_class_changes_what_was_predicted_and_a_severed_one_nothing_and_is_never_discovered() {
    const SEVERED: usize = 4;
    let planted = wired();
    let n = 100;
    let data = bright(&planted, n, 2);
    let x = pixels(&data);
    // E1 in closed form
    let e1 = |image: &[f32], node: usize| -> f64 {
        let (p, q) = (softmax(&planted.logits(image, &[])), softmax(&planted.logits(image, &[node])));
        p.iter().zip(&q).map(|(p, q)| p * (q - p)).sum()
    };
    let of_node = |node: usize| x.chunks_exact(planted.host.pixels()).map(|image| e1(image, node)).collect();
    let planted_e1: Vec<Vec<f64>> = (0..6).map(of_node).collect();
    let flips = e(SignFlip::new(n, 2000, 0));
    let bootstrap = e(Bootstrap::new(n, 2000, 0));
    for backend in backends() {
        let shard = shard(&planted, &data, backend.as_ref());
        let l = &shard.answers[0].logits;
        for (node, class) in (0..4).flat_map(|node| (0..4).map(move |class| (node, class))) {
            let nothing = column(l, node, class, 4).iter().all(|v| v.to_bits() == 0);
            assert_eq!(nothing, class != node, "node {node} on class {class} on {}", backend.name());
        }
        let on_logits: Vec<Vec<f64>> = (0..6).map(|node| column(l, node, [0, 1, 2, 3, 0, 3][node], 4)).collect();
        // a probability moves by at most half of what logits move; a study keeps logits in f32
        let allowed = f32_sum(planted.maps.len() * MAP) * largest(&widen(&l.idle));
        let columns = columns(&planted, shard);
        let ece: Vec<Vec<f64>> = (0..6).map(|k| columns.get(0, k, Quantity::Ece(Reading::Z0)).to_vec()).collect();
        for (node, (ece, want)) in ece.iter().zip(&planted_e1).enumerate() {
            let off = largest_difference(ece, want);
            assert!(off <= allowed, "node {node}: {off:e} of {allowed:e} on {}", backend.name());
        }
        assert!(ece[SEVERED].iter().all(|v| *v == 0.0), "{}", backend.name());
        assert!(columns.get(0, SEVERED, Quantity::Live).iter().all(|live| *live == 1.0), "a dead node shows nothing");
        // On the logit that reads it every wired node lowers or raises all images alike. E1 weighs gains of one class against
        // losses of another and may be 0 on average: there the closed form says who is to be discovered.
        for (measured, planted_p) in [(&on_logits, None), (&ece, Some(e(flips.p_values(&views(&planted_e1)))))] {
            let p = e(flips.p_values(&views(measured)));
            for (adjust, by) in [(holm as fn(&[Option<f64>]) -> _, "holm"), (bh, "bh")] {
                let found = |p: &[Option<f64>]| adjust(p).iter().map(|p| p.is_some_and(|p| p <= 0.05)).collect();
                let discovered: Vec<bool> = found(&p);
                let want = planted_p.as_deref().map_or_else(|| (0..6).map(|node| node != SEVERED).collect(), found);
                assert_eq!(discovered, want, "{by}: {p:?} on {}", backend.name());
                assert!(discovered.contains(&true) && adjust(&p)[SEVERED] == Some(1.0), "{by}: {p:?}");
            }
        }
        for found in e(bootstrap.bca(&views(&ece[SEVERED..=SEVERED]), 0.95)) {
            assert_eq!(found.map(|f| f.interval), Some(Interval { lo: 0.0, hi: 0.0 }));
        }
    }
}

#[test]
fn of_two_nodes_that_one_feature_drives_both_go_with_the_answer_and_only_the_wired_one_causes_it() {
    const WIRED: usize = 0;
    const UNWIRED: usize = 1;
    let map = |from, gain, offset| Map { from, gain, offset };
    // the unwired one shouts louder; a third node brings the answer some life of its own
    let maps = [map(0, 1.0, 2.5), map(0, 3.0, 7.0), map(1, 0.25, 1.0)];
    let planted = Planted::new(2, &maps, &[1.5, 0.0, 1.0, -0.5, 0.0, 0.5]);
    let n = 80;
    let x = pixels(&bright(&planted, n, 3));
    for backend in backends() {
        let l = outcomes(&planted.host, &planted.host.singles(), &x, backend.as_ref());
        let answer: Vec<f64> = l.idle.chunks_exact(2).map(|o| o[0]).collect();
        let code = planted
            .host
            .piece(backend.as_ref(), n, |p| Ok(vec![p.code()?]))
            .run(&[common::Data::Floats(widen(&x))], n)
            .remove(0);
        for node in [WIRED, UNWIRED] {
            let activity: Vec<f64> =
                code.chunks_exact(MAP).skip(node).step_by(3).map(|map| map.iter().sum::<f64>()).collect();
            for (found, by) in [(pearson(&activity, &answer), "values"), (spearman(&activity, &answer), "ranks")] {
                let found = e(found).expect("it varies");
                assert!(found > 0.9, "node {node}, {by}: {found} on {}", backend.name());
            }
        }
        let [wired, unwired] = [WIRED, UNWIRED].map(|node| column(&l, node, 0, 2));
        assert!(unwired.iter().all(|v| *v == 0.0), "{}", backend.name());
        let want: Vec<f64> = x.chunks_exact(planted.host.pixels()).map(|i| -1.5 * planted.means(i)[WIRED]).collect();
        assert!(largest_difference(&wired, &want) <= planted.tolerance(backend.as_ref(), &l.idle));
        let interval = e(e(Bootstrap::new(n, 1000, 0)).intervals(&[&wired], 0.95))[0].expect("numbers");
        assert!(interval.hi < 0.0 && holds(interval, mean(&want)), "{interval}");
    }
}

// ---- intervals ----

/// Images of a sample.
const IMAGES: usize = 200;

/// Images of grey levels: what a patient has (skewed, mean 16), what an image has (skewed, mean 4), what a pixel has (mean
/// 15.5), on a ground of 64; of 256.
struct Population {
    planted: Planted,
    stream: Stream,
}

impl Population {
    fn new() -> Population {
        let map = |gain, offset| Map { from: 0, gain, offset };
        let planted = Planted::new(1, &[map(1.0, 1.5), map(-0.5, 1.5)], &[2.0, 0.5, -1.0, 0.25]);
        Population { planted, stream: Stream::new(20_190_922, "population") }
    }

    /// The mean effect of node 0 on logit 0, of all images that might be drawn: that of the mean level.
    fn truth(&self) -> f64 {
        -self.planted.weight(0, 0) * self.planted.mean(0, (64.0 + 16.0 + 4.0 + 15.5) / 256.0)
    }

    /// The levels of the `repetition`-th sample, images x pixels, of these patients.
    fn levels(&self, repetition: u64, patient: &[u32]) -> Vec<u32> {
        let (s, n) = (self.stream, patient.len() as u32);
        let product = |at: u32, bound| s.below(repetition, 2 * at, bound) * s.below(repetition, 2 * at + 1, bound);
        let image = |i: u32| {
            let level = 64 + product(patient[i as usize], 9) + product(n + i, 5);
            (0..MAP as u32).map(move |k| level + s.below(repetition, 4 * n + i * MAP as u32 + k, 32))
        };
        (0..n).flat_map(image).collect()
    }

    /// The sample's effects in closed form.
    fn effects(&self, repetition: u64, patient: &[u32]) -> Vec<f64> {
        let effect = |levels: &[u32]| {
            let mean = f64::from(levels.iter().sum::<u32>()) / MAP as f64 / 256.0;
            -self.planted.weight(0, 0) * self.planted.mean(0, mean)
        };
        self.levels(repetition, patient).chunks_exact(MAP).map(effect).collect()
    }

    /// The same from the engine.
    fn measured(&self, repetition: u64, patient: &[u32], backend: &dyn Backend) -> (Vec<f64>, f64) {
        let x: Vec<f32> = self.levels(repetition, patient).iter().map(|&v| v as f32 / 256.0).collect();
        let l = outcomes(&self.planted.host, &self.planted.host.singles(), &x, backend);
        (column(&l, 0, 0, 2), self.planted.tolerance(backend, &l.idle))
    }
}

/// Every image a patient.
fn alone() -> Vec<u32> {
    (0..IMAGES as u32).collect()
}

/// Patients of 1, 2, 3, 4, 5 images, and so on.
fn shared() -> Vec<u32> {
    (0u32..).flat_map(|p| vec![p; 1 + p as usize % 5]).take(IMAGES).collect()
}

/// Percentile and BCa intervals of every column under a plan.
fn both(bootstrap: &Bootstrap, columns: &[Vec<f64>]) -> Vec<[Interval; 2]> {
    let (views, none) = (views(columns), "an interval of numbers");
    let percentile = e(bootstrap.intervals(&views, 0.95)).into_iter();
    let corrected = e(bootstrap.bca(&views, 0.95)).into_iter();
    let pair = |(p, c): (Option<Interval>, Option<Bca>)| {
        let c = c.expect(none);
        assert_eq!(c.fallback, None);
        [p.expect(none), c.interval]
    };
    percentile.zip(corrected).map(pair).collect()
}

/// The shares of 1,000 samples whose percentile and BCa intervals hold the truth. Resamples are drawn anew for every 50
/// samples, so that they are not one accident of all of them.
fn coverage(population: &Population, patient: &[u32], plan: impl Fn(u64) -> Bootstrap) -> [f64; 2] {
    const SAMPLES: u64 = 1000;
    const TOGETHER: u64 = 50;
    let truth = population.truth();
    let mut held = [0.0; 2];
    for first in (0..SAMPLES).step_by(TOGETHER as usize) {
        let columns: Vec<Vec<f64>> = (first..first + TOGETHER).map(|r| population.effects(r, patient)).collect();
        for pair in both(&plan(first), &columns) {
            held.iter_mut().zip(pair).filter(|(_, i)| holds(*i, truth)).for_each(|(h, _)| *h += 1.0 / SAMPLES as f64);
        }
    }
    println!("percentile {:.3}, BCa {:.3}", held[0], held[1]);
    held
}

/// Within 93 to 97 in 100: three standard errors of .0069 of what 1,000 samples count.
fn is_95_percent(share: f64) -> bool {
    (0.93..=0.97).contains(&share)
}

#[test]
fn percentile_and_bca_intervals_hold_the_planted_effect_95_times_in_100() {
    let population = Population::new();
    let [percentile, corrected] = coverage(&population, &alone(), |seed| e(Bootstrap::new(IMAGES, 2000, seed)));
    assert!(is_95_percent(percentile) && is_95_percent(corrected), "{percentile}, {corrected}");
}

#[test]
fn patients_that_are_resampled_whole_hold_it_95_times_in_100_and_their_images_taken_for_independent_do_not() {
    let (population, patient) = (Population::new(), shared());
    let clusters = e(Clusters::new(&patient));
    let [percentile, corrected] =
        coverage(&population, &patient, |seed| e(Bootstrap::of_clusters(&clusters, 2000, seed)));
    assert!(is_95_percent(percentile) && is_95_percent(corrected), "{percentile}, {corrected}");
    // Patients make 9/10 of the variance and have 3.7 images as an image sees it: the interval is 1/1.9 as wide as it
    // must be, and holds what a normal variable has within 1.03 of its deviations, 70 in 100.
    let [percentile, corrected] = coverage(&population, &patient, |seed| e(Bootstrap::new(IMAGES, 2000, seed)));
    assert!(percentile < 0.8 && corrected < 0.8, "{percentile}, {corrected}");
}

#[test]
fn a_sample_that_the_engine_measures_is_the_one_in_closed_form_and_so_are_its_intervals() {
    let population = Population::new();
    for patient in [alone(), shared()] {
        let bootstrap = e(Bootstrap::of_clusters(&e(Clusters::new(&patient)), 2000, 0));
        let planted = population.effects(0, &patient);
        let want = both(&bootstrap, std::slice::from_ref(&planted))[0];
        for backend in backends() {
            let (measured, allowed) = population.measured(0, &patient, backend.as_ref());
            assert!(largest_difference(&measured, &planted) <= allowed, "{}", backend.name());
            for (got, want) in both(&bootstrap, &[measured])[0].iter().zip(want) {
                // BCa's cuts move with the column too, less than its values do
                let off = (got.lo - want.lo).abs().max((got.hi - want.hi).abs());
                assert!(off <= 2.0 * allowed, "{got:?} for {want:?} on {}", backend.name());
            }
        }
    }
}

// ---- refutation ----

#[test]
fn effects_on_labels_that_were_drawn_by_lot_are_0_within_their_interval() {
    let (planted, n) = (wired(), 200);
    let data = bright(&planted, n, 4);
    let own = |image: &[f32]| {
        let logits = planted.logits(image, &[]);
        (0..4).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0) as u32
    };
    let answers: Vec<u32> = pixels(&data).chunks_exact(planted.host.pixels()).map(own).collect();
    // over labels of equal chance a change of probabilities adds up to 0
    let lot = Stream::new(5, "lot");
    let lots: Vec<u32> = (0..n as u64).map(|i| lot.below(i, 0, 4)).collect();
    // of 4 nodes at .9995 each: one seed in 500 shows an effect that is none
    let bootstrap = e(Bootstrap::new(n, 20_000, 0));
    for backend in backends() {
        let shard = shard(&planted, &data, backend.as_ref());
        let intervals = |labels: &[u32]| -> Vec<Interval> {
            let columns = columns(&planted, Shard { labels: labels.to_vec(), ..shard.clone() });
            let nodes: Vec<&[f64]> = (0..4).map(|node| columns.get(0, node, Quantity::LabelEffect)).collect();
            e(bootstrap.intervals(&nodes, 0.9995)).into_iter().flatten().collect()
        };
        let (on_lots, on_answers) = (intervals(&lots), intervals(&answers));
        assert_eq!((on_lots.len(), on_answers.len()), (4, 4), "intervals of numbers");
        for (node, interval) in on_lots.into_iter().enumerate() {
            assert!(holds(interval, 0.0), "node {node}: {interval:.3} on {}", backend.name());
        }
        assert!(on_answers.iter().any(|i| i.hi < 0.0), "its own answers show effects: {on_answers:?}");
    }
}

/// Four classes; class 0 hangs on node 0, which is weak and read with a large weight, its rivals on strong nodes that are read with
/// small ones: no direction of node 0's length does what it does. Nodes 4 and 5 are read by nobody.
fn hanging() -> Planted {
    let map = |from, gain, offset| Map { from, gain, offset };
    let rivals = [map(1, 5.0, 12.0), map(2, 5.0, 12.0), map(1, -5.0, 12.0)];
    let unread = [map(0, 1.0, 2.5), map(2, 0.75, 2.0)];
    let maps = [&[map(0, 1.0, 2.0)], &rivals[..], &unread].concat();
    let mut head = [0.0; 4 * 6];
    (0..4).for_each(|c| head[c * 6 + c] = if c == 0 { 4.0 } else { 0.5 });
    Planted::new(3, &maps, &head)
}

#[test]
fn a_wired_node_survives_every_refuter_and_a_severed_one_none() {
    const FEW: usize = 12;
    const WIRED: usize = 0;
    const SEVERED: [usize; 2] = [4, 5];
    let (planted, n) = (hanging(), 60);
    let (host, data) = (&planted.host, bright(&planted, n, 8));
    let (x, nodes) = (pixels(&data), (0..6).collect::<Vec<usize>>());
    let (bootstrap, flips) = (e(Bootstrap::new(n, 1000, 0)), e(SignFlip::new(n, 2000, 0)));
    let judge = Judge { bootstrap: &bootstrap, flips: &flips, level: 0.95 };
    for backend in backends() {
        let shard = shard(&planted, &data, backend.as_ref());
        let Logits { idle, done, .. } = &shard.answers[0].logits;
        let of = |logits: &[f32], sets: usize, set: usize| -> Vec<f32> {
            logits.chunks_exact(4).skip(set).step_by(sets).flatten().copied().collect()
        };
        let columns = columns(&planted, shard.clone());
        let effects: Vec<&[f64]> = nodes.iter().map(|&k| columns.get(0, k, Quantity::Ece(Reading::Z0))).collect();
        // effects of every node in the same network with other weights
        let with = |weights: &dyn Parameters, x: &[f32]| -> Vec<Vec<f64>> {
            let subject = Subject { weights, ..host.subject() };
            let mut sweep =
                e(Sweep::new(subject, &host.singles(), Batch { images: 50, variants: 64 }, backend.as_ref()));
            let l: Logits = e(sweep.outcomes(x));
            let column = |k: usize| {
                let rows = l.idle.chunks_exact(4).zip(l.done.chunks_exact(4).skip(k).step_by(6));
                rows.map(|(idle, done)| e(weighted(Head::Softmax, idle, done))).collect()
            };
            nodes.iter().map(|&k| column(k)).collect()
        };
        let mut sweep = host.sweep(&[host.set(&nodes)], (7, 5), backend.as_ref());
        let moved: Vec<f32> = e(directions(&mut sweep, (&x, data.ids()), &nodes, 2, 0));
        let along = |k: usize| -> Vec<f64> {
            let size = |i: usize| -> f64 {
                let drawn = moved[(i * 6 + k) * 8..][..8].chunks_exact(4);
                drawn.map(|done| e(weighted(Head::Softmax, &idle[i * 4..][..4], done)).abs()).sum::<f64>() / 2.0
            };
            (0..n).map(size).collect()
        };
        let along: Vec<Vec<f64>> = nodes.iter().map(|&k| along(k)).collect();
        let fresh = |seed: u64| {
            with(&Layered(&[&host.autoencoder.initial_weights(seed), &host.weights]), &x[..FEW * host.pixels()])
        };
        // as many as leave a node that outdoes all of theirs a p of .05 after Holm over six
        let untrained: Vec<Vec<f64>> = (1..=20).flat_map(fresh).collect();
        let others = |k: usize| e(shuffled(Head::Softmax, (idle, &of(done, 6, k)), 4, (999, 0)));
        let others: Vec<Vec<f64>> = nodes.iter().map(|&k| others(k)).collect();
        // cut by halves, so that the others still answer
        let halves = [[0, 2, 4], [1, 3, 5]]
            .map(|cut| (cut, with(&Severed { weights: &host.weights, nodes: host.set(&cut) }, &x)));
        let severed: Vec<Vec<f64>> = nodes.iter().map(|&k| halves[k % 2].1[k].clone()).collect();
        assert!(severed.iter().flatten().all(|effect| *effect == 0.0), "{}", backend.name());
        assert!(halves[0].1[1].iter().any(|effect| effect.abs() > 1e-3), "what is not cut still works");

        let trials = [
            e(judge.direction(&effects, &along)),
            judge.untrained(&effects.iter().map(|column| &column[..FEW]).collect::<Vec<_>>(), &untrained),
            judge.shuffled(&effects, &others),
            judge.severed(&effects, &severed),
        ];
        for trials in trials {
            for trial in trials {
                let told = format!("{trial:?} on {}", backend.name());
                if SEVERED.contains(&trial.node) {
                    assert!(!trial.survives && trial.effect == Some(0.0), "{told}");
                }
                assert!(trial.survives || trial.node != WIRED, "{told}");
            }
        }
    }
}

/// Directions of unit length in the space of the tap's channels, one a node: all nodes are the same feature at the same
/// strength, written along another direction each.
#[test]
fn a_node_along_a_random_direction_has_no_effect_on_average_and_one_across_the_head_none_at_all() {
    const CHANNELS: usize = 8;
    const CLASSES: usize = 2;
    const RANDOM: usize = 24;
    const ALONG: usize = RANDOM;
    const ACROSS: usize = RANDOM + 1;
    const NODES: usize = RANDOM + 2;
    // of what is decoded, so that no ReLU cuts it: more than what all nodes may take away
    const OFFSET: f64 = 100.0;
    let stream = Stream::new(6, "directions");
    // sums of twelve uniforms: normal enough, and symmetric about 0, which is what counts
    let drawn = |at: u64| -> Vec<f64> {
        let one = |k: u32| (0..12).map(|i| f64::from(stream.uniform(at, 12 * k + i)) - 0.5).sum();
        unit((0..CHANNELS as u32).map(one).collect())
    };
    let rows: Vec<Vec<f64>> = (0..CLASSES as u64).map(|c| drawn(1000 + c)).collect();
    let mut directions: Vec<Vec<f64>> = (0..RANDOM as u64).map(drawn).collect();
    directions.push(rows[0].clone());
    // across: a direction less its parts in the plane of the two classes
    let second = without(&rows[1], &rows[0]);
    directions.push(without(&without(&drawn(2000), &rows[0]), &unit(second)));

    let mut host = Host::new(maps(CHANNELS, CLASSES), 2, (NODES, NODES), 1);
    (host.model.mean, host.model.std) = (vec![0.5], vec![0.25]);
    let head: Vec<f32> = rows.concat().iter().map(|&w| w as f32).collect();
    maps_head(&mut host, &head);
    for (name, tensor) in host.weights.iter_mut().filter(|(name, _)| !name.starts_with("classifier")) {
        let dims = tensor.shape().dims().to_vec();
        tensor.data_mut().fill(0.0);
        let [o, i, side, _] = dims[..] else { continue };
        for (k, kernel) in tensor.data_mut().chunks_exact_mut(i * side * side).enumerate().take(o) {
            let middle = side * side / 2;
            match name.as_str() {
                // one feature, in every map and in every node
                "features.0.weight" | "ae.enc1.weight" => kernel[middle] = 1.0,
                "ae.dec2.weight" => {
                    (0..NODES).for_each(|node| kernel[node * 9 + middle] = directions[node][k] as f32);
                }
                _ => kernel[k * side * side + middle] = 1.0,
            }
        }
    }
    // 4 x - 2 + 2
    host.weight("features.0.bias").fill(2.0);
    host.weight("ae.dec2.bias").fill(OFFSET as f32);

    let (n, x) = (24, host.images(24, 7));
    let strength: Vec<f64> =
        x.chunks_exact(MAP).map(|image| image.iter().map(|&v| 4.0 * f64::from(v)).sum::<f64>() / MAP as f64).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for backend in backends() {
        let l = outcomes(&host, &host.singles(), &x, backend.as_ref());
        let columns: Vec<Vec<f64>> = (0..NODES).map(|node| column(&l, node, 0, CLASSES)).collect();
        // the head's and the directions' weights are rounded to f32: 2^-24 of a product each, eight of them
        let rounded = 8.0 * f64::from(f32::EPSILON) * largest(&strength);
        let allowed = tolerance(backend.as_ref(), CHANNELS * MAP) * largest(&l.idle).max(OFFSET) + rounded;
        for (node, column) in columns.iter().enumerate() {
            let want: Vec<f64> = strength.iter().map(|f| -dot(&rows[0], &directions[node]) * f).collect();
            let off = largest_difference(column, &want);
            assert!(off <= allowed, "node {node}: {off:e} of {allowed:e} on {}", backend.name());
        }
        // directions are a level of their own, crossed with the images; one in 1,000 seeds is not like this
        let images = e(Bootstrap::new(n, 10_000, 0));
        let plan = e(Hierarchical::new(images.clone(), RANDOM, 0));
        let random: Vec<Vec<&[f64]>> = columns[..RANDOM].iter().map(|c| vec![c.as_slice()]).collect();
        let by_chance = e(plan.intervals(&random, 0.999))[0].expect("numbers");
        let along = e(images.bca(&[&columns[ALONG]], 0.999))[0].expect("numbers").interval;
        assert!(holds(by_chance, 0.0) && along.hi < by_chance.lo, "{by_chance}, {along} on {}", backend.name());
        // as good as 0 within a thousandth of the effect along the class, which itself is not
        let (margin, single) = (mean(&columns[ALONG]).abs() / 1000.0, e(Clusters::single(n)));
        let verdict = |node: usize| e(Equivalence::of(&columns[node], &single, margin, 0.01)).expect("numbers").verdict;
        assert_eq!(
            [verdict(ACROSS), verdict(ALONG)],
            [Likeness::Equivalent, Likeness::Different],
            "{}",
            backend.name()
        );
    }
}

fn unit(v: Vec<f64>) -> Vec<f64> {
    let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
    v.iter().map(|x| x / length).collect()
}

/// A vector less its part along a unit vector.
fn without(v: &[f64], along: &[f64]) -> Vec<f64> {
    let part: f64 = v.iter().zip(along).map(|(a, b)| a * b).sum();
    v.iter().zip(along).map(|(a, b)| a - part * b).collect()
}
