//! Maps of planted networks whose maps have closed forms, on every device. Numbers in the comments are those of the method's
//! list of invariants.

mod common;

use common::backends;
use common::hosts::*;
use intervene::backend::Backend;
use intervene::causal::sweep::Logits;
use intervene::explain::causal::weighted;
use intervene::explain::method::drops;
use intervene::explain::occlusion::Patch;
use intervene::explain::{Answer, ExplainError, Explainer, Map, Method, Settings, Sign, Subject};
use intervene::model::{Head, Layer};

const CLASSES: usize = 4;
const CHANNELS: usize = 6;
/// Height and width of maps and images of [`planted`].
const SIZE: (usize, usize) = (7, 9);
const CELLS: usize = SIZE.0 * SIZE.1;

const LOGIT: Settings = Settings {
    answer: Some(Answer::Logit),
    sign: Sign::Signed,
    patch: Patch { side: 3, stride: 2, fill: 0.25 },
    cells: 1,
};

/// One convolution and a ReLU make the maps A, a linear layer reads their means; an identity autoencoder lies on the maps.
fn planted() -> Host {
    let features = [conv3(CHANNELS), Layer::Relu];
    let classifier = [Layer::GlobalAvgPool, Layer::Linear { features: CLASSES }];
    let net = model([2, SIZE.0, SIZE.1], CLASSES, &features, &classifier);
    Host::new(net, 2, (CHANNELS, CHANNELS), 11).with_identity()
}

fn explainer(host: &Host, methods: &[Method], settings: Settings, rows: usize, backend: &dyn Backend) -> Explainer {
    let subject =
        Subject { model: &host.model, inserted: Some((&host.tap, &host.autoencoder)), weights: &host.weights };
    e(Explainer::new(subject, methods, settings, Some(rows), backend))
}

/// Every class of every image.
fn all_classes(images: usize) -> Vec<Vec<u32>> {
    vec![(0..CLASSES as u32).collect(); images]
}

/// Maps A of images (images x channels x cells), and logits, in f64.
fn maps_and_logits(host: &Host, x: &[f32], backend: &dyn Backend) -> (Vec<f64>, Vec<f64>) {
    let rows = x.len() / host.pixels();
    let mut piece = host.piece(backend, rows, |p| {
        let front = p.front()?;
        let logits = host.model.tail(p.graph, front, host.tap.number)?;
        Ok(vec![front, logits])
    });
    let mut both = piece.run(&[common::Data::Floats(widen(x))], rows).into_iter();
    (both.next().unwrap(), both.next().unwrap())
}

fn head_of(host: &Host) -> (Vec<f64>, Vec<f64>) {
    let of = |name: &str| {
        let found = host.weights.iter().find(|(n, _)| n == name).unwrap();
        widen(found.1.data())
    };
    (of("classifier.1.weight"), of("classifier.1.bias"))
}

#[track_caller]
fn assert_near(got: &[f32], want: &[f64], part: f64) {
    let difference = largest_difference(&widen(got), want);
    assert!(difference <= part * largest(want), "{difference} of {}", largest(want));
    assert!(largest(want) > 0.0, "a map that says something");
}

/// Sums on a device in f32: the longest of a map is over CHANNELS channels or CELLS cells, of inputs that are sums of 18.
fn part() -> f64 {
    4.0 * f32_sum(CELLS)
}

/// 42 and 43.
#[test]
fn on_a_global_average_and_a_linear_layer_cam_makes_the_logit_and_grad_cam_is_cam_over_the_cells() {
    let host = planted();
    let x = host.images(3, 1);
    let (_, bias) = head_of(&host);
    for backend in backends() {
        let (_, logits) = maps_and_logits(&host, &x, backend.as_ref());
        let methods = [Method::Cam, Method::GradCam];
        let mut signed = explainer(&host, &methods, LOGIT, 2, backend.as_ref());
        let cam = e(signed.maps(Method::Cam, &x, &all_classes(3)));
        let grad_cam = e(signed.maps(Method::GradCam, &x, &all_classes(3)));
        let published = Settings { sign: Sign::Published, ..LOGIT };
        let mut cut = explainer(&host, &methods, published, 2, backend.as_ref());
        let cut = e(cut.maps(Method::GradCam, &x, &all_classes(3)));
        for image in 0..3 {
            for class in 0..CLASSES {
                let cam = cam[image][class].values();
                let mean = widen(cam).iter().sum::<f64>() / CELLS as f64;
                let logit = logits[image * CLASSES + class];
                let difference = (mean + bias[class] - logit).abs();
                assert!(difference <= part() * largest(&logits), "{difference} on {}", backend.name());
                let over_cells: Vec<f64> = widen(cam).iter().map(|v| v / CELLS as f64).collect();
                assert_near(grad_cam[image][class].values(), &over_cells, part());
                assert!(cam.iter().any(|&v| v < 0.0), "a CAM is signed");
                // 44: as published nothing is below 0, and nothing above 0 is touched
                let pairs = cut[image][class].values().iter().zip(grad_cam[image][class].values());
                assert!(pairs.clone().all(|(cut, v)| *cut == v.max(0.0)));
            }
        }
    }
}

/// 44.
#[test]
fn cam_is_linear_in_the_weights_of_the_classifier() {
    let host = planted();
    let mut other = host.clone();
    let x = host.images(2, 4);
    // class 0 becomes the sum of classes 1 and 2, class 3 twice itself
    let row = other.weight("classifier.1.weight");
    for k in 0..CHANNELS {
        row[k] = row[CHANNELS + k] + row[2 * CHANNELS + k];
        row[3 * CHANNELS + k] *= 2.0;
    }
    for backend in backends() {
        let of = |host: &Host| {
            let mut explainer = explainer(host, &[Method::Cam], LOGIT, 2, backend.as_ref());
            e(explainer.maps(Method::Cam, &x, &all_classes(2)))
        };
        let (before, after) = (of(&host), of(&other));
        for (before, after) in before.iter().zip(&after) {
            let sum: Vec<f64> =
                before[1].values().iter().zip(before[2].values()).map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
            assert_near(after[0].values(), &sum, part());
            // a power of two rounds nothing
            assert!(after[3].values().iter().zip(before[3].values()).all(|(a, b)| *a == 2.0 * b));
        }
    }
}

/// 12: zeroing f_k loses w_ck·GAP(f_k) of logit c, exactly what Ablation-CAM loses without it; zeroing one cell loses CAM there
/// over the number of cells.
#[test]
fn causal_maps_of_a_planted_network_are_the_closed_forms() {
    let host = planted();
    let x = host.images(2, 2);
    let (weight, _) = head_of(&host);
    for backend in backends() {
        let (maps, _) = maps_and_logits(&host, &x, backend.as_ref());
        let methods = [Method::Cem, Method::AblationCam, Method::CemCells, Method::Cam];
        let mut explainer = explainer(&host, &methods, LOGIT, 3, backend.as_ref());
        let [cem, ablation, cells, cam] = methods.map(|method| e(explainer.maps(method, &x, &all_classes(2))));
        for image in 0..2 {
            let channel = |k: usize| &maps[(image * CHANNELS + k) * CELLS..][..CELLS];
            let mean = |k: usize| channel(k).iter().sum::<f64>() / CELLS as f64;
            for class in 0..CLASSES {
                let value = |cell: usize| -> f64 {
                    (0..CHANNELS).map(|k| weight[class * CHANNELS + k] * mean(k) * channel(k)[cell]).sum()
                };
                let want: Vec<f64> = (0..CELLS).map(value).collect();
                assert_near(cem[image][class].values(), &want, part());
                assert_near(ablation[image][class].values(), &want, part());
                // of differences of logits 63 times as large: their rounding is not made smaller
                let over_cells: Vec<f64> =
                    cam[image][class].values().iter().map(|&v| f64::from(v) / CELLS as f64).collect();
                assert_near(cells[image][class].values(), &over_cells, CELLS as f64 * part());
            }
        }
    }
}

#[test]
fn a_causal_map_weighs_the_code_with_the_effects_that_the_sweep_measures() {
    let host = Host::small(4);
    let x = host.images(3, 8);
    for backend in backends() {
        let logits: Logits<f32> = e(host.sweep(&host.singles(), (2, 5), backend.as_ref()).outcomes(&x));
        let mut code = host.piece(backend.as_ref(), 3, |p| Ok(vec![p.code()?]));
        let code: Vec<f32> = code.run(&[common::Data::Floats(widen(&x))], 3)[0].iter().map(|&v| v as f32).collect();
        let (classes, nodes) = (host.model.classes, host.autoencoder.nodes);
        let settings = Settings { answer: None, ..LOGIT };
        let mut explainer = explainer(&host, &[Method::Cem], settings, 2, backend.as_ref());
        let maps = e(explainer.maps(Method::Cem, &x, &all_classes(3)));
        let each = code.len() / 3;
        for image in 0..3 {
            let idle = row(&widen(&logits.idle), image, classes).to_vec();
            let lost: Vec<Vec<f64>> = (0..nodes)
                .map(|n| {
                    let done = row(&widen(&logits.done), image * nodes + n, classes).to_vec();
                    drops(Answer::Probability, Head::Softmax, &idle, &done)
                })
                .collect();
            for class in 0..CLASSES {
                let weights: Vec<f64> = lost.iter().map(|drops| drops[class]).collect();
                let own = &code[image * each..(image + 1) * each];
                let want = e(weighted(own, &weights, maps[image][class].size()));
                assert_eq!(maps[image][class], want, "{}", backend.name());
            }
        }
    }
}

/// 11 and 45.
#[test]
fn without_effects_a_causal_map_is_zero_everywhere() {
    let mut host = Host::small(4);
    for node in 0..host.autoencoder.nodes {
        host.decoder_weights_of(node).for_each(|w| *w = 0.0);
    }
    let x = host.images(2, 3);
    let methods = [Method::Cem, Method::CemCells];
    for backend in backends() {
        let mut explainer = explainer(&host, &methods, Settings { answer: None, ..LOGIT }, 4, backend.as_ref());
        for method in methods {
            for map in e(explainer.maps(method, &x, &all_classes(2))).iter().flatten() {
                assert!(map.values().iter().all(|v| *v == 0.0), "{} on {}", method.name(), backend.name());
            }
        }
    }
}

#[test]
fn occlusion_of_an_image_by_what_it_is_already_changes_nothing_and_by_something_else_does() {
    let host = Host::small(4);
    let grey = vec![0.25f32; host.pixels()];
    let methods = [Method::Occlusion, Method::CemOcclusion];
    for backend in backends() {
        let mut explainer = explainer(&host, &methods, Settings { answer: None, ..LOGIT }, 3, backend.as_ref());
        for method in methods {
            for map in &e(explainer.maps(method, &grey, &all_classes(1)))[0] {
                assert!(map.values().iter().all(|v| *v == 0.0), "{} on {}", method.name(), backend.name());
            }
            let other = &e(explainer.maps(method, &host.images(1, 5), &all_classes(1)))[0];
            assert!(other[0].values().iter().any(|v| *v != 0.0));
            assert_eq!(other[0].size(), (9, 11));
        }
    }
}

#[test]
fn no_map_depends_on_batch_or_neighbours() {
    let host = planted();
    let x = host.images(3, 6);
    let classes = vec![vec![2], vec![0, 3], vec![]];
    for backend in backends() {
        let mut whole = explainer(&host, &Method::ALL, LOGIT, 16, backend.as_ref());
        let together: Vec<Vec<Vec<Map>>> = Method::ALL.map(|m| e(whole.maps(m, &x, &classes))).into();
        assert!(together.iter().all(|maps| maps.iter().map(Vec::len).eq([1, 2, 0])));
        for rows in [1, 2, 5] {
            let mut parts = explainer(&host, &Method::ALL, LOGIT, rows, backend.as_ref());
            for (method, together) in Method::ALL.iter().zip(&together) {
                let maps = e(parts.maps(*method, &x, &classes));
                assert_eq!(&maps, together, "{} in batches of {rows} on {}", method.name(), backend.name());
                // the second image alone, its second class alone
                let alone = e(parts.maps(*method, &x[host.pixels()..2 * host.pixels()], &[vec![3]]));
                assert_eq!(alone[0][0], together[1][1], "{} alone on {}", method.name(), backend.name());
            }
        }
    }
}

#[test]
fn ablation_cam_as_published_is_the_drop_as_part_of_the_answer_without_what_speaks_against() {
    let host = planted();
    let x = host.images(1, 7);
    let backend = intervene::backend::reference::Reference;
    let (_, logits) = maps_and_logits(&host, &x, &backend);
    let of = |sign: Sign| {
        let mut explainer = explainer(&host, &[Method::AblationCam], Settings { sign, ..LOGIT }, 2, &backend);
        e(explainer.maps(Method::AblationCam, &x, &all_classes(1))).remove(0)
    };
    let (signed, published) = (of(Sign::Signed), of(Sign::Published));
    for class in 0..CLASSES {
        let want: Vec<f64> = signed[class].values().iter().map(|&v| (f64::from(v) / logits[class]).max(0.0)).collect();
        // logits are read as f32
        let difference = largest_difference(&widen(published[class].values()), &want);
        assert!(difference <= part() * largest(&want).max(1e-3), "{difference}");
    }
}

#[test]
fn maps_that_a_network_does_not_have_are_refused_by_name() {
    let host = Host::fashion_seeded();
    let backend = intervene::backend::cpu::Cpu::new();
    let (model, weights) = (&host.model, &host.weights);
    let new = |inserted, methods: &[Method]| {
        Explainer::new(Subject { model, inserted, weights }, methods, LOGIT, Some(2), &backend)
    };
    let refused = |made: Result<Explainer, ExplainError>| made.err().map(|e| e.to_string()).unwrap();
    let message = refused(new(None, &[Method::Cam]));
    assert!(message.contains("CAM does not exist for fashion") && message.contains("grad-cam"), "{message}");
    for method in [Method::Cem, Method::CemCells, Method::CemOcclusion] {
        let message = refused(new(None, &[method]));
        assert!(message.contains(method.name()) && message.contains("autoencoder"), "{message}");
    }
    let mut one = e(new(None, &[Method::GradCam]));
    let x = vec![0.5; host.pixels()];
    assert!(matches!(one.maps(Method::AblationCam, &x, &[vec![0]]), Err(ExplainError::NotLoaded { .. })));
    assert!(matches!(one.maps(Method::GradCam, &x, &[vec![10]]), Err(ExplainError::Class { class: 10, classes: 10 })));
    assert!(matches!(one.maps(Method::GradCam, &x, &[]), Err(ExplainError::Classes { lists: 0, images: 1 })));
    assert!(one.maps(Method::GradCam, &x[1..], &[vec![0]]).is_err());
    let map: &Map = &e(one.maps(Method::GradCam, &x, &[vec![9]]))[0][0];
    assert_eq!(map.size(), (5, 5));
}

/// An image that holds what is no number has maps that say so, and its neighbours do not.
#[test]
fn an_image_without_numbers_has_a_map_without_numbers_and_leaves_its_neighbours_alone() {
    let host = planted();
    let mut x = host.images(2, 9);
    let clean = host.images(2, 9);
    x[5] = f32::NAN;
    let backend = intervene::backend::cpu::Cpu::new();
    let mut explainer = explainer(&host, &Method::ALL, LOGIT, 4, &backend);
    for method in Method::ALL {
        let maps = e(explainer.maps(method, &x, &[vec![1], vec![1]]));
        let flags = [&maps[0][0], &maps[1][0]].map(|map| map.range().is_some());
        assert_eq!(flags, [false, true], "{}", method.name());
        assert_eq!(maps[1][0], e(explainer.maps(method, &clean, &[vec![1], vec![1]]))[1][0]);
    }
}

/// 42, 43 and what Ablation-CAM's weights then are, where the ReLU in front of the average is no part of `features`.
#[test]
fn densenets_maps_lie_behind_its_outer_relu() {
    let net = e(e(intervene::model::Model::named("densenet121")).with_input(64, 64));
    let net = e(net.with_classes(3));
    let weights = net.initial_weights(2);
    let backend = intervene::backend::cpu::Cpu::new();
    let methods = [Method::Cam, Method::GradCam, Method::AblationCam];
    let subject = Subject { model: &net, inserted: None, weights: &weights };
    let mut explainer = e(Explainer::new(subject, &methods, LOGIT, Some(16), &backend));
    let x: Vec<f32> = (0..2 * 3 * 64 * 64).map(|i| ((i * 7919 + 13) % 1009) as f32 / 1009.0).collect();
    let logits = widen(&e(explainer.victim().forward(&x)));
    let bias = widen(weights.iter().find(|(n, _)| n == "classifier.bias").unwrap().1.data());
    let classes = vec![vec![0, 1, 2]; 2];
    let [cam, grad_cam, ablation] = methods.map(|method| e(explainer.maps(method, &x, &classes)));
    for image in 0..2 {
        for class in 0..3 {
            let cam = widen(cam[image][class].values());
            assert_eq!(cam.len(), 4);
            let mean = cam.iter().sum::<f64>() / 4.0;
            let difference = (mean + bias[class] - logits[image * 3 + class]).abs();
            assert!(difference <= f32_sum(1024) * largest(&logits), "{difference}");
            let over_cells: Vec<f64> = cam.iter().map(|v| v / 4.0).collect();
            assert_near(grad_cam[image][class].values(), &over_cells, f32_sum(1024));
        }
    }
    // a channel is one of 1024: what is lost without it is near the rounding of logits, so only that there is a map is said
    for maps in &ablation {
        assert!(maps.iter().all(|map| map.size() == (2, 2) && map.range().is_some()));
    }
}
