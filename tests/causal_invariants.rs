//! Planted networks with a known truth: what a node, an autoencoder, an attack or a reading must say of them. Numbers in
//! the comments are those of the method's list of invariants.

mod common;

use common::hosts::{Host, MAP, Piece, bits, conv3, largest, largest_difference, maps, maps_head, model, small, widen};
use common::{Data, backends, read};
use intervene::attack::Targets;
use intervene::attack::jsma::Jsma;
use intervene::attack::{Steps, losses, start_at_random};
use intervene::backend::cpu::Cpu;
use intervene::backend::reference::Reference;
use intervene::backend::{Backend, Completed};
use intervene::causal::analysis::{Columns, Quantity, responses};
use intervene::causal::effect::{Estimand, Reading, class_weighted, effects_f64};
use intervene::causal::intervention::add_random_signs;
use intervene::causal::study::{AttackLabel, Input, Study};
use intervene::causal::sweep::Logits;
use intervene::data::Dataset;
use intervene::graph::Graph;
use intervene::graph::plan::{Entry, EntryId, plan};
use intervene::graph::vjp::vjp;
use intervene::model::autoencoder::Autoencoder;
use intervene::model::{Head, Layer, small::fashion};
use intervene::random::Stream;
use intervene::tensor::{TensorRef, argmax};
use intervene::train::autoencoder::{Interpretability, LossWeights, Objective, Trainer, feed};
use intervene::train::{Schedule, Settings};

/// f64 throughout: some hundred roundings of 1.1e-16.
const F64: f64 = 1e-13;
/// f32 on the way: sums of k products round at random, 4 standard deviations of them (as `Tol::Dot`).
fn f32_sum(k: usize) -> f64 {
    4.0 * (k as f64).sqrt() * f64::from(f32::EPSILON)
}

/// What `backend` may be off by, as a part of the largest value, after sums of `k` products.
fn tolerance(backend: &dyn Backend, k: usize) -> f64 {
    if backend.name() == Reference.name() { F64 } else { f32_sum(k) }
}

fn e<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|e| panic!("{e}"))
}

/// Row `i` of `classes` values.
fn row(data: &[f64], i: usize, classes: usize) -> &[f64] {
    &data[i * classes..(i + 1) * classes]
}

/// ECE1 of every image and node: images x nodes.
fn ece1(l: &Logits<f64>, classes: usize) -> Vec<f64> {
    let (images, nodes) = (l.idle.len() / classes, l.live.len() * classes / l.idle.len());
    let one = |(i, n): (usize, usize)| {
        let idle = row(&l.idle, i, classes);
        let effects = e(effects_f64(Head::Softmax, idle, row(&l.done, i * nodes + n, classes)));
        e(class_weighted(Estimand::E1, &softmax(idle), &effects))
    };
    (0..images).flat_map(|i| (0..nodes).map(move |n| (i, n))).map(one).collect()
}

/// Effects per class of every image and node.
fn effects_of(l: &Logits<f64>, classes: usize) -> Vec<f64> {
    let nodes = l.live.len() * classes / l.idle.len();
    let idle = |at: usize| row(&l.idle, at / nodes, classes);
    let one = |(at, done)| e(effects_f64(Head::Softmax, idle(at), done));
    l.done.chunks_exact(classes).enumerate().flat_map(one).collect()
}

fn softmax(o: &[f64]) -> Vec<f64> {
    let max = o.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = o.iter().map(|v| (v - max).exp()).sum();
    o.iter().map(|v| (v - max).exp() / sum).collect()
}

/// -log p_label.
fn loss(o: &[f64], label: u32) -> f64 {
    let max = o.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + o.iter().map(|v| (v - max).exp()).sum::<f64>().ln() - o[label as usize]
}

fn predictions(logits: &[f64], classes: usize) -> Vec<u32> {
    let largest = |o: &[f64]| (0..o.len()).max_by(|a, b| o[*a].total_cmp(&o[*b])).expect("classes") as u32;
    logits.chunks_exact(classes).map(largest).collect()
}

// ---- interventions ----

/// One number for an image and a set leaves the device: it must be the one that its logits give.
#[test]
fn effects_made_on_the_device_are_those_of_its_logits() {
    let host = Host::small(4);
    let classes = host.model.classes;
    let x = host.images(8, 1);
    for backend in backends() {
        for batch in [(8, 40), (3, 2), (1, 7)] {
            let mut sweep = host.sweep(&host.singles(), batch, backend.as_ref());
            let logits: Logits<f64> = e(sweep.outcomes(&x));
            let effects = e(sweep.effects(&x));
            assert_eq!(effects.live, logits.live, "{}", backend.name());
            assert!(effects.live.contains(&true) && effects.live.contains(&false), "both kinds of pairs");
            for ((got, want), live) in effects.weighted.iter().zip(ece1(&logits, classes)).zip(&effects.live) {
                // rounded to f32, after a sum of `classes` terms in f64 whose exponentials may be another library's
                let difference = (f64::from(*got) - want).abs();
                assert!(difference <= 6.1e-8 * want.abs() + 1e-15, "{got} and {want} on {}", backend.name());
                assert!(*live || *got == 0.0);
            }
        }
    }
}

/// 11, first half.
#[test]
fn a_node_whose_decoder_weights_are_0_has_effect_exactly_0_on_every_image() {
    const SEVERED: usize = 2;
    for mut host in [Host::small(2), Host::small(4)] {
        host.decoder_weights_of(SEVERED).for_each(|w| *w = 0.0);
        host.weight("ae.code.bias")[SEVERED] = 1.0;
        let (nodes, classes) = (host.autoencoder.nodes, host.model.classes);
        let x = host.images(8, 1);
        for backend in backends() {
            let outcomes = host.outcomes(&x, backend.as_ref());
            let effects = effects_of(&outcomes, classes);
            let mut live = 0;
            for (at, effects) in effects.chunks_exact(classes).enumerate() {
                if at % nodes == SEVERED {
                    live += usize::from(outcomes.live[at]);
                    assert!(effects.iter().all(|v| *v == 0.0), "{effects:?} on {}", backend.name());
                }
            }
            assert_eq!(live, 8, "a severed node that is dead shows nothing");
            assert!(largest(&effects) > 0.0);
        }
    }
}

/// A host whose classes read means of maps, under an autoencoder that is the identity. Head: classes x channels.
fn known(head: &[f32], seed: u64) -> Host {
    const CHANNELS: usize = 5;
    let mut host = Host::new(maps(CHANNELS, head.len() / CHANNELS), 2, (6, 6), seed).with_identity();
    maps_head(&mut host, head);
    host
}

/// The means of the tap's maps, images x channels, in the device's own arithmetic up to the maps.
fn means(host: &Host, x: &[f32], backend: &dyn Backend) -> Vec<f64> {
    let rows = x.len() / host.pixels();
    let front = host.piece(backend, rows, |p| Ok(vec![p.front()?])).run(&[Data::Floats(widen(x))], rows).remove(0);
    front.chunks_exact(MAP).map(|map| map.iter().sum::<f64>() / MAP as f64).collect()
}

/// 12 and the additivity of effects over disjoint sets under a linear tail.
#[test]
fn the_logit_effect_of_a_map_under_a_linear_head_is_minus_its_weight_times_its_mean_and_adds_up() {
    let head = [0.5f32, -1.0, 2.0, 0.25, -0.75, 1.5, 0.0, -0.5, 1.0, 3.0, -2.0, 0.125, 0.0, -1.25, 0.5];
    let host = known(&head, 4);
    let x = host.images(6, 2);
    let mut sets = host.singles();
    sets.extend([host.set(&[0, 3]), host.set(&[1, 2, 4]), host.set(&[0, 1, 2, 3, 4])]);
    for backend in backends() {
        let mut sweep = host.sweep(&sets, (4, 7), backend.as_ref());
        let l: Logits<f64> = e(sweep.outcomes(&x));
        let f = means(&host, &x, backend.as_ref());
        assert!(f.iter().filter(|f| **f > 0.01).count() > f.len() / 2, "dead maps show nothing");
        let allowed = tolerance(backend.as_ref(), 5 * MAP) * largest(&l.idle).max(largest(&l.done));
        for i in 0..6 {
            for (s, set) in sets.iter().enumerate() {
                for c in 0..3 {
                    let got = row(&l.done, i * sets.len() + s, 3)[c] - row(&l.idle, i, 3)[c];
                    let want: f64 =
                        set.iter().filter(|k| *k < 5).map(|k| -f64::from(head[c * 5 + k]) * f[i * 5 + k]).sum();
                    assert!((got - want).abs() <= allowed, "{set}: {got} for {want} on {}", backend.name());
                }
            }
        }
    }
}

/// 11, second half.
#[test]
fn a_class_that_reads_one_map_hears_of_that_node_alone() {
    // class c reads map c; nobody reads map 4
    let mut head = [0.0f32; 4 * 5];
    (0..4).for_each(|c| head[c * 5 + c] = 1.0 + c as f32);
    let host = known(&head, 9);
    let x = host.images(6, 3);
    for backend in backends() {
        let l = host.outcomes(&x, backend.as_ref());
        let f = means(&host, &x, backend.as_ref());
        for (i, n, c) in (0..6).flat_map(|i| (0..6).flat_map(move |n| (0..4).map(move |c| (i, n, c)))) {
            let (idle, done) = (row(&l.idle, i, 4)[c], row(&l.done, i * 6 + n, 4)[c]);
            if n == c {
                let want = -(1.0 + c as f64) * f[i * 5 + n];
                let allowed = tolerance(backend.as_ref(), MAP) * idle.abs();
                assert!((done - idle - want).abs() <= allowed, "{} for {want} on {}", done - idle, backend.name());
            } else {
                assert_eq!(done.to_bits(), idle.to_bits(), "class {c}, node {n} on {}", backend.name());
            }
        }
        assert!((0..6).all(|i| !l.live[i * 6 + 5]), "the sixth node has no map behind it");
    }
}

/// 13: backward and intervention tell the same story to first order, by the decoder and tail of a real host.
#[test]
fn the_slope_of_a_logit_as_a_node_fades_is_minus_gradient_times_code() {
    let host = Host::small(2);
    let (images, classes, nodes) = (3, host.model.classes, host.autoencoder.nodes);
    let x = host.images(images, 4);
    let code =
        host.piece(&Reference, images, |p| Ok(vec![p.code()?])).run(&[Data::Floats(widen(&x))], images).remove(0);
    let plane = code.len() / images / nodes;
    let mut behind = host.piece(&Reference, images, |p| {
        let shape = [nodes, host.tap.shape[1], host.tap.shape[2]];
        let z = p.graph.input("z", shape);
        let seed = p.graph.input("seed", [classes]);
        p.given = vec![z, seed];
        let pre = host.autoencoder.pre(p.graph, z)?;
        let logits = p.behind(pre)?;
        let gradient = vjp(p.graph, logits, seed, &[z])?[0];
        Ok(vec![logits, gradient])
    });
    // rounding: 1e-16 / STEP; curvature: none but at a kink
    const STEP: f64 = 1e-6;
    for c in 0..classes {
        let seed: Vec<f64> = (0..images * classes).map(|i| f64::from(u8::from(i % classes == c))).collect();
        let mut run = |code: &[f64]| behind.run(&[Data::Floats(code.to_vec()), Data::Floats(seed.clone())], images);
        let gradient = run(&code).remove(1);
        let mut checked = 0;
        for n in 0..nodes {
            let mut faded = |t: f64| {
                let part = |(at, z): (usize, &f64)| if at / plane % nodes == n { (1.0 - t) * z } else { *z };
                run(&code.iter().enumerate().map(part).collect::<Vec<_>>()).remove(0)
            };
            let (after, before) = (faded(STEP), faded(-STEP));
            for i in 0..images {
                let own = (i * nodes + n) * plane..(i * nodes + n + 1) * plane;
                let want: f64 = -gradient[own.clone()].iter().zip(&code[own]).map(|(g, z)| g * z).sum::<f64>();
                let got = (row(&after, i, classes)[c] - row(&before, i, classes)[c]) / (2.0 * STEP);
                assert!((got - want).abs() <= 1e-7 * want.abs().max(1e-2), "{got} for {want}");
                checked += usize::from(want != 0.0);
            }
        }
        assert!(checked >= nodes, "{checked}");
    }
}

/// 9, first half.
#[test]
fn permuting_code_channels_with_their_weights_permutes_the_effects() {
    let host = Host::small(2);
    let (nodes, hidden, classes) = (host.autoencoder.nodes, host.autoencoder.hidden, host.model.classes);
    // node n of the permuted one is node order[n] of the other
    let order = [3usize, 0, 5, 1, 4, 2];
    let mut permuted = host.clone();
    let mut original = host.clone();
    for (n, from) in order.into_iter().enumerate() {
        let encoder = original.weight("ae.code.weight")[from * hidden..(from + 1) * hidden].to_vec();
        permuted.weight("ae.code.weight")[n * hidden..(n + 1) * hidden].copy_from_slice(&encoder);
        permuted.weight("ae.code.bias")[n] = original.weight("ae.code.bias")[from];
        let decoder: Vec<f32> = original.decoder_weights_of(from).map(|w| *w).collect();
        permuted.decoder_weights_of(n).zip(decoder).for_each(|(to, w)| *to = w);
    }
    let x = host.images(6, 5);
    for backend in backends() {
        let [a, b] = [&host, &permuted].map(|h| h.outcomes(&x, backend.as_ref()));
        let [ece_a, ece_b] = [&a, &b].map(|l| ece1(l, classes));
        let back: Vec<f64> = (0..ece_a.len()).map(|at| ece_a[at / nodes * nodes + order[at % nodes]]).collect();
        // the decoder sums over the code in another order; effects lose what their logits are larger than they
        let allowed = tolerance(backend.as_ref(), 9 * nodes) * largest(&a.idle);
        let difference = largest_difference(&ece_b, &back);
        assert!(difference <= allowed && largest(&ece_a) > 100.0 * allowed, "{difference} on {}", backend.name());
        assert!(largest_difference(&ece_b, &ece_a) > 100.0 * allowed, "the permutation shows on {}", backend.name());
    }
}

/// 9, second half.
#[test]
fn permuting_classes_leaves_every_ece1() {
    let host = Host::small(2);
    let (classes, order) = (4, [2usize, 3, 1, 0]);
    let (mut permuted, mut original) = (host.clone(), host.clone());
    for (c, from) in order.into_iter().enumerate() {
        let w = original.weight("classifier.3.weight")[from * 13..(from + 1) * 13].to_vec();
        permuted.weight("classifier.3.weight")[c * 13..(c + 1) * 13].copy_from_slice(&w);
        permuted.weight("classifier.3.bias")[c] = original.weight("classifier.3.bias")[from];
    }
    let x = host.images(6, 6);
    for backend in backends() {
        let [a, b] = [&host, &permuted].map(|h| h.outcomes(&x, backend.as_ref()));
        let back =
            |l: &[f64]| -> Vec<f64> { l.chunks_exact(classes).flat_map(|o| order.map(|from| o[from])).collect() };
        assert_eq!(bits(&back(&a.done)), bits(&b.done), "an output of a layer does not know its number");
        // the same numbers added in another order
        assert!(largest_difference(&ece1(&a, classes), &ece1(&b, classes)) <= 1e-15, "{}", backend.name());
    }
}

// ---- the autoencoder ----

fn dataset(host: &Host, n: usize, byte: impl Fn(usize) -> u8) -> Dataset {
    let bytes = (0..n * host.pixels()).map(byte).collect();
    let labels = (0..n).map(|i| (i % host.model.classes) as u32).collect();
    let classes = (0..host.model.classes).map(|c| c.to_string()).collect();
    e(Dataset::new(bytes, labels, host.model.input, classes))
}

fn noise(seed: u64) -> impl Fn(usize) -> u8 {
    let stream = Stream::new(seed, "bytes");
    move |i| stream.below(0, i as u32, 256) as u8
}

/// The small host with an identity whose layers are as wide as the tap, and one more.
fn identity_at(tap: usize) -> Host {
    let width = small(4).taps()[tap - 1].shape[0] + 1;
    Host::new(small(4), tap, (width, width), 3).with_identity()
}

/// 19.
#[test]
fn an_identity_autoencoder_changes_no_answer_and_has_no_loss() {
    for tap in [2, 3, 5] {
        let host = identity_at(tap);
        let Host { model, tap, autoencoder, weights } = &host;
        let x = host.images(5, 7);
        for backend in backends() {
            let l = host.outcomes(&x, backend.as_ref());
            assert_eq!(bits(&l.idle), bits(&l.orig), "{} on {}", tap.name, backend.name());
            let objective = Objective::default();
            let mut trainer = e(Trainer::new(model, tap, autoencoder, weights, backend.as_ref(), 4, objective));
            let quality = e(trainer.evaluate(&dataset(&host, 9, noise(1))));
            assert_eq!((quality.shallow, quality.agreement), (0.0, 1.0));
            assert!(quality.deep.abs() < 1e-6, "{}", quality.deep);
        }
    }
}

/// 26; that gradients are right is checked by central differences elsewhere.
#[test]
fn each_of_the_three_losses_alone_falls_on_a_fixed_batch() {
    const STEPS: u64 = 30;
    let host = Host::small(2);
    let Host { model, tap, autoencoder, weights } = &host;
    let data = dataset(&host, 5, noise(2));
    let weigh = |interpretability, shallow, deep| LossWeights { interpretability, shallow, deep };
    let alone = [weigh(1.0, 0.0, 0.0), weigh(0.0, 1.0, 0.0), weigh(0.0, 0.0, 1.0)];
    let forms = [Interpretability::Plain, Interpretability::ScaleFree];
    let objectives = forms.into_iter().flat_map(|form| alone.map(|weights| Objective { form, weights, unit: 1.0 }));
    for objective in objectives {
        for backend in backends() {
            let mut trainer = e(Trainer::new(model, tap, autoencoder, weights, backend.as_ref(), 5, objective));
            let nodes = trainer.nodes();
            let settings = Settings { learning_rate: 1e-3, schedule: Schedule::Constant, epochs: 1, batch: 5, seed: 0 };
            let mut fit = trainer.fit(&settings, 5);
            e(feed(fit.program, &nodes, &data, &[0, 1, 2, 3, 4]));
            let total = fit.losses[0].1;
            let mut losses = Vec::new();
            for t in 1..=STEPS {
                e(fit.step_once(t, settings.learning_rate));
                losses.push(read(fit.program, total, 1)[0]);
            }
            let (first, last) = (losses[0], losses[losses.len() - 1]);
            assert!(last < 0.99 * first && last >= 0.0, "{objective:?} on {}: {first} to {last}", backend.name());
        }
    }
}

/// 24.
#[test]
fn an_autoencoder_keeps_the_shape_of_every_tap() {
    for model in [small(4), maps(5, 3), fashion()] {
        assert!(!model.taps().is_empty());
        for tap in model.taps() {
            let autoencoder = Autoencoder::at(&tap, 6, 3);
            let mut g = Graph::new();
            let x = g.input("tap", tap.shape);
            let code = e(autoencoder.encode(&mut g, x));
            let pre = e(autoencoder.pre(&mut g, code));
            let out = e(autoencoder.decode(&mut g, pre));
            assert_eq!(g.node(out).shape.dims(), tap.shape, "{}", tap.name);
            assert_eq!(g.node(code).shape.dims(), [3, tap.shape[1], tap.shape[2]], "{}", tap.name);
            e(model.tail(&mut g, out, tap.number));
        }
    }
}

/// 27, for the part of the decoder that is linear.
#[test]
fn what_a_node_adds_to_the_decoders_first_convolution_is_that_of_its_channel_alone() {
    let mut host = Host::small(2);
    let (images, nodes) = (4, host.autoencoder.nodes);
    let x = widen(&host.images(images, 8));
    let bias = host.weight("ae.dec1.bias").to_vec();
    for backend in backends() {
        let mut code = host.piece(backend.as_ref(), images, |p| Ok(vec![p.code()?]));
        let z = code.run(&[Data::Floats(x.clone())], images).remove(0);
        let mut first = host.piece(backend.as_ref(), images, |p| {
            let z = p.graph.input("z", [nodes, host.tap.shape[1], host.tap.shape[2]]);
            p.given = vec![z];
            Ok(vec![host.autoencoder.pre(p.graph, z)?])
        });
        let mut of = |z: &[f64]| first.run(&[Data::Floats(z.to_vec())], images).remove(0);
        let plane = z.len() / images / nodes;
        let whole = of(&z);
        let cells = whole.len() / images / bias.len();
        for n in 0..nodes {
            let split = |own: bool| -> Vec<f64> {
                z.iter().enumerate().map(|(at, z)| if (at / plane % nodes == n) == own { *z } else { 0.0 }).collect()
            };
            let (alone, without) = (of(&split(true)), of(&split(false)));
            let linear: Vec<f64> =
                alone.iter().enumerate().map(|(at, v)| v - f64::from(bias[at / cells % bias.len()])).collect();
            let difference: Vec<f64> = whole.iter().zip(&without).map(|(a, b)| a - b).collect();
            let off = largest_difference(&difference, &linear);
            assert!(off <= tolerance(backend.as_ref(), 9 * nodes) * largest(&whole), "{off} on {}", backend.name());
        }
    }
}

// ---- readings of inputs that are not changed ----

/// 16 and 17.
#[test]
fn an_attack_of_size_0_and_a_mask_of_the_images_own_value_reduce_every_reading() {
    let host = Host::new(
        model([1, 12, 10], 3, &[conv3(4), Layer::Relu], &[Layer::Flatten, Layer::Linear { features: 3 }]),
        2,
        (6, 5),
        2,
    );
    // each image one grey: 51 k; masks are filled with 102 / 255
    let flat = |grey: usize| dataset(&host, 5, move |at| if grey > 0 { grey as u8 } else { (51 * (at / 120)) as u8 });
    let nothing = [Input::Fgsm { eps: 0.0 }, Input::Noise { eps: 0.0 }];
    let own = Input::Pwm { masks: 2, fill: 102.0 / 255.0 };
    for (data, inputs) in [(flat(0), nothing.to_vec()), (flat(102), [&nothing[..], &[own]].concat())] {
        for backend in backends() {
            let sets = host.singles();
            let sweep = host.sweep(&sets, (3, 8), backend.as_ref());
            let (inputs, attack_label) = (inputs.clone(), AttackLabel::Predicted);
            let shard = e(Study { sweep, data: &data, inputs, attack_label, seed: 3 }.shard(0, 5));
            for answers in &shard.answers[1..] {
                let [a, b] = [&answers.logits, &shard.answers[0].logits];
                assert_eq!(a, b, "{:?} on {}", answers.input, backend.name());
                assert!(answers.input.name() != "pwm" || answers.fraction.iter().all(|f| (0.06..0.2).contains(f)));
            }
            let columns = e(Columns::of(std::slice::from_ref(&shard), Head::Softmax, 3));
            let mut moved = 0.0f64;
            for (input, set) in (1..columns.inputs.len()).flat_map(|i| (0..sets.len()).map(move |s| (i, s))) {
                let of = |r| columns.get(if r == Reading::Z0 { 0 } else { input }, set, Quantity::Ece(r));
                let z0 = of(Reading::Z0);
                moved = z0.iter().fold(moved, |m, v| m.max(v.abs()));
                assert_eq!(bits(of(Reading::R1)), bits(z0));
                assert_eq!(bits(of(Reading::R2)), bits(z0));
                assert!(of(Reading::R3).iter().chain(of(Reading::R4)).all(|v| *v == 0.0));
                for (i, r5) in of(Reading::R5).iter().enumerate() {
                    let clean = e(responses(&shard.answers[0], i, sets.len(), Head::Softmax, 3));
                    let gap = e(class_weighted(Estimand::E1, clean.p_orig(), &clean.recon_effects()));
                    assert_eq!(r5.to_bits(), gap.to_bits());
                }
            }
            assert!(moved > 1e-4, "{moved}: nodes without effect show nothing");
        }
    }
}

// ---- attacks ----

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
            sweep.victim().input_gradient(&x, Targets::Classes(labels)),
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
        e(start_at_random(3, i as u64, 0, eps, image));
    }
    for backend in backends() {
        let mut sweep = host.sweep(&[], (2, 2), backend.as_ref());
        let mut run = |from: Option<&[f32]>, step, steps| {
            e(sweep.victim().steps(&x, from, Targets::Classes(&labels), Steps { eps, step, steps }))
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
        let zero = Steps { eps: 0.0, step, steps: 3 };
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
        e(start_at_random(3, i as u64, 0, eps, image));
    }
    for backend in backends() {
        let mut sweep = host.sweep(&[], (4, 4), backend.as_ref());
        let fgsm = e(sweep.victim().fgsm(&x, Targets::Classes(&labels), eps));
        let steps = Steps { eps, step: 0.03125, steps: 4 };
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
    let steps = Steps { eps: 0.05, step: 0.02, steps: 3 };
    let sets = host.singles();
    let backend = Cpu::new();
    let answers = |seed: u64, restarts: u32| {
        let sweep = host.sweep(&sets, (3, 8), &backend);
        let (inputs, attack_label) = (vec![Input::Pgd { steps, restarts }], AttackLabel::Predicted);
        let shard = e(Study { sweep, data: &data, inputs, attack_label, seed }.shard(0, 6));
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

/// Grey rectangles on black with some noise: what the Fashion net takes for clothes.
fn garments(n: usize) -> Vec<f32> {
    let stream = Stream::new(1, "garments");
    let mut x = Vec::new();
    for image in 0..n as u64 {
        let below = |i, bound| stream.below(image, i, bound) as usize;
        let (top, left) = (1 + below(0, 8), 2 + below(1, 8));
        let (height, width, grey) = (10 + below(2, 9), 7 + below(3, 11), 0.3 + 0.6 * stream.uniform(image, 4));
        for at in 0..784 {
            let inside = (top..top + height).contains(&(at / 28)) && (left..left + width).contains(&(at % 28));
            let texture = 0.2 * (stream.uniform(image, 100 + at as u32) - 0.5);
            x.push(if inside { (grey + texture).clamp(0.0, 1.0) } else { 0.0 });
        }
    }
    x
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

// ---- devices ----

/// 48 and design invariant 5, through the whole net.
#[test]
fn effects_agree_with_the_reference_within_1e_4_of_the_largest_or_1e_6() {
    let cases = [
        ("fashion, trained", Host::fashion_trained(), garments(2)),
        ("small", Host::small(2), Host::small(2).images(12, 16)),
        ("small, before a ReLU", Host::small(4), Host::small(4).images(12, 16)),
    ];
    for (name, host, x) in cases {
        let classes = host.model.classes;
        let truth = host.outcomes(&x, &Reference);
        let effects = effects_of(&truth, classes);
        for backend in backends() {
            let l = host.outcomes(&x, backend.as_ref());
            let off = largest_difference(&effects_of(&l, classes), &effects);
            let allowed = (1e-4 * largest(&effects)).max(1e-6);
            println!("{name} on {}: {off:.1e} of {allowed:.1e}", backend.name());
            assert!(off <= allowed, "{name} on {}: {off:e} of {allowed:e}", backend.name());
            assert_eq!(l.live, truth.live, "{name} on {}", backend.name());
            let ece_off = largest_difference(&ece1(&l, classes), &ece1(&truth, classes));
            assert!(ece_off <= allowed, "{name} on {}: {ece_off:e}", backend.name());
        }
    }
}

/// 1, on the sweep: a node that is 0 on an image is no row of any batch, and its outcome is the idle one.
#[test]
fn a_node_that_is_0_on_an_image_is_found_and_has_its_idle_outcome_there() {
    let host = Host::small(2).with_dead(3);
    let (n, nodes) = (6, host.autoencoder.nodes);
    let x = host.images(n, 17);
    for backend in backends() {
        let build = |p: &mut Piece<'_>| Ok(vec![p.code()?]);
        let code = host.piece(backend.as_ref(), n, build).run(&[Data::Floats(widen(&x))], n).remove(0);
        let plane = code.len() / n / nodes;
        let live: Vec<bool> = code.chunks_exact(plane).map(|map| map.iter().any(|z| *z != 0.0)).collect();
        let l = host.outcomes(&x, backend.as_ref());
        assert_eq!(l.live, live, "{}", backend.name());
        assert!(live.contains(&true) && (0..n).all(|i| !live[i * nodes + 3]));
        for (at, _) in live.iter().enumerate().filter(|(_, live)| !**live) {
            let [done, idle] = [row(&l.done, at, 4), row(&l.idle, at / nodes, 4)].map(bits);
            assert_eq!(done, idle, "{}", backend.name());
        }
    }
}
