//! `--conv winograd` on the CUDA device, through programs: layers that it serves against the reference and against
//! exact convolution, gradients that stay exact to the bit, a row that hears of no other, and a whole sweep whose idle
//! effects are 0. Both sizes of tiles on every kind of shape are tested beside the kernels
//! (`launch/conv/tests/winograd.rs`).

mod common;

use common::hosts::{Host, bits, conv3, largest, largest_difference, model, widen};
use common::{Case, ROWS, ROWS_TRIED, Tol, compare, cuda};
use intervene::backend::cuda::{Arithmetic, Cuda};
use intervene::backend::layout::ConvShape;
use intervene::backend::reference::Reference;
use intervene::backend::winograd::Winograd;
use intervene::backend::{Backend, ConvPath};
use intervene::causal::sweep::Logits;
use intervene::graph::op::{Activation, Op, Prologue, Window};
use intervene::model::Layer;
use std::sync::OnceLock;

/// The environment's first device with Winograd's tiles, opened once.
fn winograd() -> Cuda {
    static DEVICE: OnceLock<Cuda> = OnceLock::new();
    let open = || Cuda::open_with(0, Arithmetic::Winograd).unwrap_or_else(|e| panic!("{e}"));
    DEVICE.get_or_init(open).clone()
}

/// Of the largest output: F(2x2) errs as a plain sum, F(4x4) by 1 to 4e-6 on all layers of VGG and DenseNet.
fn tolerance(tiles: Winograd) -> Tol {
    match tiles {
        Winograd::F2 => Tol::Close(1.5e-6),
        Winograd::F4 => Tol::Close(1e-5),
    }
}

/// Layers with what serves them, by each size of tiles, with borders that are no tile's, and two that stay exact.
fn layers() -> Vec<(Case, Option<Winograd>)> {
    let mut list = Vec::new();
    for (c, o, [h, w], pad, serves) in [
        (64, 64, [12, 12], 1, Some(Winograd::F4)),
        (128, 32, [7, 7], 1, Some(Winograd::F4)),
        (64, 70, [11, 16], 0, Some(Winograd::F4)),
        (128, 128, [6, 6], 1, Some(Winograd::F2)),
        (256, 250, [3, 4], 2, Some(Winograd::F2)),
        (16, 32, [9, 9], 1, None),
        (66, 64, [12, 12], 1, None),
    ] {
        let shape = ConvShape { c, h, w, o, kh: 3, kw: 3, stride: 1, pad };
        assert_eq!(Winograd::of(&shape), serves, "{shape:?}");
        let name = format!("conv2d 3x3 pad {pad}, {c} channels of {h}x{w} to {o}");
        let exact = Tol::Dot { k: 9 * c.max(o).max(ROWS * h * w) };
        let case = Case::new(name, (serves.map_or(exact, tolerance), exact), move |b| {
            let (x, weight) = (b.x("x", [c, h, w]), b.weight("w", [o, c, 3, 3]));
            let bias = b.weight("b", [o]);
            let window = Window { stride: 1, pad };
            b.graph.push(
                "conv",
                Op::Conv2d { window, prologue: Prologue::None, activation: Activation::None },
                &[x, weight, bias],
            )
        });
        list.push((case, serves));
    }
    list
}

#[test]
fn layers_agree_with_the_reference_and_their_gradients_are_those_of_exact_convolution_bit_for_bit() {
    for (case, serves) in layers() {
        let subject = case.with_gradient().expect("a layer has one");
        let run = |backend: &dyn Backend| subject.run(subject.load(backend).as_mut(), ROWS);
        let (want, exact, got) = (run(&Reference), run(&cuda()), run(&winograd()));
        let off = |forward: &[f64]| largest_difference(forward, &want[0]) / largest(&want[0]);
        println!("{}: {serves:?} off by {:.2e}, exact by {:.2e}", case.name, off(&got[0]), off(&exact[0]));
        if let Err(worst) = compare(&got[0], &want[0], case.forward) {
            panic!("{}: off by {:.3e} at {}, {:.1} times allowed", case.name, worst.difference, worst.at, worst.used);
        }
        assert_eq!(bits(&got[0]) != bits(&exact[0]), serves.is_some(), "{}: served or not", case.name);
        // of input, weight and bias: the sign of a gradient is the attack
        assert_eq!(got.len(), 4);
        for (got, exact) in got.iter().zip(&exact).skip(1) {
            assert_eq!(bits(got), bits(exact), "{}", case.name);
        }
    }
}

/// Invariant 3.
#[test]
fn a_row_has_the_same_bits_in_a_run_of_1_2_7_and_all_rows() {
    for (case, _) in layers() {
        let subject = case.subject();
        let mut program = subject.load(&winograd());
        let full = subject.run(program.as_mut(), ROWS).remove(0);
        for rows in ROWS_TRIED {
            let part = subject.run(program.as_mut(), rows).remove(0);
            assert_eq!(bits(&part), bits(&full[..part.len()]), "{} at {rows} rows", case.name);
        }
    }
}

/// A small VGG: two stages of two 3x3 layers, of which all but the first are served, with an autoencoder of 64 nodes
/// whose layers are served, too, the decoder's first among them.
fn vgg() -> Host {
    let pool = Layer::MaxPool { size: 2, window: Window { stride: 2, pad: 0 } };
    let (a, b) = ([conv3(64), Layer::Relu], [conv3(128), Layer::Relu]);
    let features = [&a[..], &a, std::slice::from_ref(&pool), &b, &b, std::slice::from_ref(&pool)].concat();
    let classifier = [Layer::Flatten, Layer::Linear { features: 5 }];
    let host = Host::new(model([3, 12, 12], 5, &features, &classifier), 2, (64, 64), 7);
    let served = |c, hw, o| ConvShape { c, h: hw, w: hw, o, kh: 3, kw: 3, stride: 1, pad: 1 };
    for shape in [served(64, 12, 64), served(64, 6, 128), served(128, 6, 128)] {
        assert!(Winograd::of(&shape).is_some(), "{shape:?}");
    }
    host
}

fn outcomes(host: &Host, sets: &[&[usize]], x: &[f32], batch: (usize, usize), backend: &dyn Backend) -> Logits<f64> {
    let sets: Vec<_> = sets.iter().map(|nodes| host.set(nodes)).collect();
    host.sweep(&sets, batch, backend).outcomes(x).unwrap_or_else(|e| panic!("{e}"))
}

/// Logits are the end of seven or eight layers: the root of them by a layer's 4e-6, twice; 1.2e-6 was seen.
const NET: f64 = 2e-5;

#[test]
fn a_vgg_like_net_agrees_with_the_reference_in_any_batch() {
    let host = vgg();
    let x = host.images(3, 1);
    let sets: [&[usize]; 3] = [&[0], &[5, 9], &[63]];
    let want = outcomes(&host, &sets, &x, (3, 9), &Reference);
    let exact = outcomes(&host, &sets, &x, (3, 9), &cuda());
    let got = outcomes(&host, &sets, &x, (3, 9), &winograd());
    let [off, plain] = [&got, &exact].map(|l| largest_difference(&l.orig, &want.orig) / largest(&want.orig));
    println!("logits off by {off:.2e} of the largest, with exact convolution by {plain:.2e}");
    for (got, want) in [(&got.orig, &want.orig), (&got.idle, &want.idle), (&got.done, &want.done)] {
        let difference = largest_difference(got, want) / largest(want);
        assert!(difference <= NET, "{difference:.3e}");
    }
    assert!(bits(&got.orig) != bits(&exact.orig) && bits(&got.idle) != bits(&exact.idle), "nothing was served");
    assert_eq!(got.live, exact.live);
    let apart = outcomes(&host, &sets, &x, (2, 4), &winograd());
    for (a, b) in [(&got.orig, &apart.orig), (&got.idle, &apart.idle), (&got.done, &apart.done)] {
        assert_eq!(bits(a), bits(b), "in other batches");
    }
    // invariant 2
    let [orig, idle] = host.whole(&x, &winograd());
    assert_eq!((bits(&orig), bits(&idle)), (bits(&got.orig), bits(&got.idle)), "the tail from the cached prefix");
}

/// Invariant 1: what a set does not change has the idle logits, to the bit, so that its effect is exactly 0. What it
/// does is added to a convolution that went by tiles.
#[test]
fn an_idle_effect_is_exactly_0() {
    const DEAD: usize = 3;
    const SEVERED: usize = 4;
    let mut host = vgg().with_dead(DEAD);
    host.decoder_weights_of(SEVERED).for_each(|w| *w = 0.0);
    host.weight("ae.code.bias")[SEVERED] = 1.0;
    let (images, classes) = (2, host.model.classes);
    let x = host.images(images, 2);
    let sets: [&[usize]; 3] = [&[DEAD], &[SEVERED], &[5]];
    let got = outcomes(&host, &sets, &x, (images, 6), &winograd());
    for image in 0..images {
        let idle = bits(&got.idle[image * classes..][..classes]);
        let done = |set: usize| bits(&got.done[(image * sets.len() + set) * classes..][..classes]);
        assert_eq!(got.live[image * sets.len()..][..2], [false, true], "dead, and severed but alive");
        assert_eq!((done(0), done(1)), (idle.clone(), idle.clone()));
        assert!(!got.live[image * sets.len() + 2] || done(2) != idle, "what lives does something");
    }
    let effects = {
        let sets: Vec<_> = sets.iter().map(|nodes| host.set(nodes)).collect();
        let mut sweep = host.sweep(&sets, (images, 6), &winograd());
        sweep.effects(&x).unwrap_or_else(|e| panic!("{e}")).weighted
    };
    for effects in effects.chunks_exact(sets.len()) {
        assert_eq!(effects[..2], [0.0, 0.0]);
    }
    assert!(largest(&widen(&effects)) > 0.0);
}

#[test]
fn the_devices_name_and_details_say_the_path() {
    assert!(winograd().name().contains(", winograd"), "{}", winograd().name());
    assert!(!cuda().name().contains("winograd"), "{}", cuda().name());
    assert_eq!((winograd().details().conv, cuda().details().conv), (ConvPath::Winograd, ConvPath::Exact));
    assert_ne!(winograd().name(), cuda().name(), "a run of its own");
}
