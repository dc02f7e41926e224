//! Planted networks with a known truth: what a node, an autoencoder or a reading must say of them. Numbers in
//! the comments are those of the method's list of invariants.

mod common;

use common::hosts::*;
use common::{Data, backends, read};
use intervene::attack::{Attack, AttackError, Norm};
use intervene::backend::Backend;
use intervene::backend::reference::Reference;
use intervene::causal::analysis::{Columns, Quantity, responses};
use intervene::causal::effect::{Estimand, Reading, class_weighted, effects_f64};
use intervene::causal::fill::Fill;
use intervene::causal::mask::{Mask, Region};
use intervene::causal::screen::Screen;
use intervene::causal::shapley::Plan;
use intervene::causal::study::{AttackLabel, Do, DoValue, Input, Shard, Study, StudyError};
use intervene::causal::sweep::{Logits, Sweep, Value};
use intervene::graph::Graph;
use intervene::graph::vjp::vjp;
use intervene::model::autoencoder::Autoencoder;
use intervene::model::{Head, Layer, small::fashion};
use intervene::random::Stream;
use intervene::train::autoencoder::{Interpretability, LossWeights, Objective, Trainer, feed};
use intervene::train::{Schedule, Settings};

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
    let nothing =
        [Input::Attack(Attack::Fgsm { eps: 0.0, norm: Norm::Linf }), Input::Noise { eps: 0.0, norm: Norm::Linf }];
    let own = Input::Pwm { masks: 2, fill: Fill::Value(102.0 / 255.0), region: Region::Grid10 };
    for (data, inputs) in [(flat(0), nothing.to_vec()), (flat(102), [&nothing[..], &[own]].concat())] {
        for backend in backends() {
            let sets = host.singles();
            let sweep = host.sweep(&sets, (3, 8), backend.as_ref());
            let (inputs, attack_label) = (inputs.clone(), AttackLabel::Predicted);
            let shard =
                e(Study { sweep, data: &data, inputs, attack_label, mask: None, value: Do::Zero, seed: 3 }.shard(0, 5));
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

// ---- devices ----

/// 17, second half: what is masked whole does not depend on the image.
#[test]
fn images_that_are_masked_whole_have_one_answer() {
    let host = Host::small(2);
    let data = dataset(&host, 5, noise(8));
    let [_, height, width] = host.model.input;
    let whole = e(Mask::new(vec![true; height * width], height, width));
    let input = Input::Pwm { masks: 1, fill: Fill::Value(0.4), region: Region::File };
    for backend in backends() {
        let sweep = host.sweep(&host.singles(), (2, 5), backend.as_ref());
        let (inputs, attack_label) = (vec![input], AttackLabel::Predicted);
        let mask = Some(&whole);
        let shard = e(Study { sweep, data: &data, inputs, attack_label, mask, value: Do::Zero, seed: 3 }.shard(0, 5));
        let [clean, masked] = [0, 1].map(|a: usize| &shard.answers[a].logits);
        assert!(shard.answers[1].fraction.iter().all(|f| *f == 1.0));
        for (rows, differ) in [(&masked.orig, false), (&masked.idle, false), (&masked.done, false), (&clean.orig, true)]
        {
            let rows: Vec<&[f32]> = rows.chunks_exact(rows.len() / 5).collect();
            assert_eq!(rows.iter().any(|row| row != &rows[0]), differ, "{}", backend.name());
        }
    }
}

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

// ---- screens and shares ----

/// 13, of the class-weighted effect: scaling a node by 1 - t is scaling its weights in the decoder's first convolution.
#[test]
fn a_screen_is_the_derivative_of_the_effect_at_idle() {
    const H: f32 = 0.0009765625;
    let host = Host::small(4);
    let (classes, nodes) = (host.model.classes, host.autoencoder.nodes);
    let x = host.images(3, 9);
    let idle = host.outcomes(&x, &Reference).idle;
    let effect_of_scaling = |node: usize, t: f32| -> Vec<f64> {
        let mut scaled = Host::small(4);
        scaled.decoder_weights_of(node).for_each(|w| *w *= 1.0 - t);
        let moved = scaled.outcomes(&x, &Reference).idle;
        let one = |i: usize| {
            let effects = e(effects_f64(Head::Softmax, row(&idle, i, classes), row(&moved, i, classes)));
            e(class_weighted(Estimand::E1, &softmax(row(&idle, i, classes)), &effects))
        };
        (0..3).map(one).collect()
    };
    let mut want = vec![0.0; 3 * nodes];
    for node in 0..nodes {
        let (up, down) = (effect_of_scaling(node, H), effect_of_scaling(node, -H));
        (0..3).for_each(|i| want[i * nodes + node] = (up[i] - down[i]) / (2.0 * f64::from(H)));
    }
    let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(largest > 1e-4, "{largest}");
    for backend in backends() {
        let mut screen = e(Screen::new(host.subject(), 2, backend.as_ref()));
        let got = e(screen.effects(&x));
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            // scaled weights are rounded: 6e-8 of a weight over H; gradients are f32
            assert!((got - want).abs() <= 1e-3 * largest, "{got} and {want} on {}", backend.name());
        }
    }
}

/// What Shapley's values of all nodes share out is the effect of zeroing all of them, of every image.
#[test]
fn shapley_values_of_nodes_add_up_to_the_effect_of_zeroing_all() {
    let host = Host::small(4);
    let (classes, nodes) = (host.model.classes, host.autoencoder.nodes);
    let plan = e(Plan::new(nodes, 2, 5));
    let x = host.images(2, 3);
    for backend in backends() {
        let outcomes: Logits<f64> = e(host.sweep(plan.sets(), (2, 5), backend.as_ref()).outcomes(&x));
        let effects = ece1(&outcomes, classes);
        let all = plan.sets().iter().position(|set| set.len() == nodes).unwrap();
        for of_image in effects.chunks(plan.sets().len()) {
            let values = e(plan.values(of_image));
            let sum: f64 = values.iter().sum();
            assert!((sum - of_image[all]).abs() <= 1e-14, "{sum} and {} on {}", of_image[all], backend.name());
            assert!(values.iter().any(|v| v.abs() > 1e-6));
        }
    }
}

/// 1 for do(N = f z_N) with f = 1 and do(N = its own code); do(N = 0) as both; 10 with other codes: all nodes at another image's
/// code give that image's answer, whatever the image.
#[test]
fn a_node_set_to_what_it_is_has_effect_exactly_0_and_all_set_to_anothers_give_the_others_answer() {
    for host in [Host::small(2), Host::small(4)] {
        let nodes = host.autoencoder.nodes;
        let classes = host.model.classes;
        let mut sets = host.singles();
        sets.push(host.set(&(0..nodes).collect::<Vec<_>>()));
        let (x, others) = (host.images(5, 1), host.images(5, 8));
        for backend in backends() {
            let mut sweep = host.sweep(&sets, (2, 7), backend.as_ref());
            let at = |sweep: &mut Sweep, value: Value<'_>| -> Logits<f64> { e(sweep.outcomes_at(&x, value)) };
            let (own, codes) = (e(sweep.codes(&x)), e(sweep.codes(&others)));
            let zero = at(&mut sweep, Value::Zero);
            let none = vec![0.0; own.len()];
            for zeros in [Value::Scaled(0.0), Value::Others(&none)] {
                let done = at(&mut sweep, zeros).done;
                // what is taken away goes by the host as f32: the reference's own code is finer
                let allowed = 1e-6 * largest(&zero.done);
                let exact = backend.name() != Reference.name();
                assert!(!exact || bits(&done) == bits(&zero.done), "{}", backend.name());
                assert!(largest_difference(&done, &zero.done) <= allowed, "{}", backend.name());
            }
            for idle in [Value::Scaled(1.0), Value::Others(&own)] {
                let same = at(&mut sweep, idle);
                assert_eq!(bits(&same.idle), bits(&zero.idle));
                for (i, done) in same.done.chunks_exact(classes).enumerate() {
                    assert_eq!(bits(done), bits(row(&same.idle, i / sets.len(), classes)), "{}", backend.name());
                }
                assert!(same.live.iter().all(|live| !live));
            }
            let theirs: Logits<f64> = e(sweep.outcomes(&others));
            let got = at(&mut sweep, Value::Others(&codes));
            // codes go by the host as f32, also to the reference
            let allowed =
                tolerance(backend.as_ref(), 9 * nodes).max(1e-6) * largest(&theirs.idle).max(largest(&got.idle));
            for i in 0..5 {
                let (got, want) = (row(&got.done, (i + 1) * sets.len() - 1, classes), row(&theirs.idle, i, classes));
                assert!(largest_difference(got, want) <= allowed, "{got:?} for {want:?} on {}", backend.name());
            }
            // one map for all is the same as that map for each
            let size = own.len() / 5;
            let repeated: Vec<f32> = codes[..size].repeat(5);
            let [maps, each] = [Value::Maps(&codes[..size]), Value::Others(&repeated)].map(|v| at(&mut sweep, v).done);
            assert_eq!(bits(&maps), bits(&each));
            assert_ne!(bits(&maps), bits(&zero.done));
            // values that are not of these codes are refused
            for wrong in [Value::Maps(&codes[1..size]), Value::Others(&codes[size..])] {
                assert!(sweep.outcomes_at::<f32>(&x, wrong).is_err());
            }
        }
    }
}

/// The mean of codes, and codes of other images, as a study takes them: the same whatever the cut into shards.
#[test]
fn a_study_sets_nodes_to_their_mean_or_to_another_images_code() {
    let host = Host::small(2);
    let data = dataset(&host, 6, noise(3));
    let pixels = e(data.pixels(&[0, 1, 2, 3, 4, 5]));
    for backend in backends() {
        let mut sweep = host.sweep(&host.singles(), (4, 9), backend.as_ref());
        let codes = e(sweep.codes(&pixels));
        let size = codes.len() / 6;
        let mut told = Vec::new();
        let mut mean = |sweep: &mut Sweep| {
            e(Do::prepare(DoValue::Mean, sweep, &data, &mut |done| {
                told.push(done);
                true
            }))
        };
        let value = mean(&mut sweep);
        assert_eq!(told, [6]);
        let Do::Maps(maps) = &value else { panic!("{value:?}") };
        for (at, got) in maps.iter().enumerate() {
            let want: f64 = codes.iter().skip(at).step_by(size).map(|&z| f64::from(z)).sum::<f64>() / 6.0;
            assert!((f64::from(*got) - want).abs() <= 6e-8 * want.abs(), "{got} for {want}");
        }
        let stopped = Do::prepare(DoValue::Mean, &mut sweep, &data, &mut |_| false);
        assert!(matches!(stopped, Err(StudyError::Attack(AttackError::Stopped))));
        for value in [value, Do::Resample] {
            let sweep = host.sweep(&host.singles(), (4, 9), backend.as_ref());
            let (attack_label, inputs) = (AttackLabel::Predicted, Vec::new());
            let mut study = Study { sweep, data: &data, inputs, attack_label, mask: None, value, seed: 5 };
            let whole = e(study.shard(0, 6));
            let parts = [e(study.shard(0, 2)), e(study.shard(2, 4))];
            let done = |shard: &Shard| bits(&widen(&shard.answers[0].logits.done));
            assert_eq!(done(&whole), [done(&parts[0]), done(&parts[1])].concat());
            if study.value == Do::Resample {
                // every image gets the code of an image, and not its own
                let others = e(study.others(&[0, 1, 2, 3, 4, 5]));
                for (i, code) in others.chunks_exact(size).enumerate() {
                    let whose = codes.chunks_exact(size).position(|known| known == code).expect("an image's code");
                    assert_ne!(whose, i);
                }
            }
        }
    }
}
