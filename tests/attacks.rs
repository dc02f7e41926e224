//! Attacks beside two other libraries' on the same network and images, on every device: FGSM pixel by pixel, BIM and PGD step
//! by step from the library's own iterates, JSMA pixel by pixel. `fixtures/make_attacks.py` made what they computed.

mod common;

use common::backends;
use common::hosts::{Host, small};
use intervene::attack::Targets;
use intervene::attack::jsma::Jsma;
use intervene::attack::{Goal, Norm, Steps, losses};
use intervene::backend::Backend;
use intervene::causal::sweep::Sweep;
use intervene::tensor::Tensor;
use safetensors::{Dtype, SafeTensors};

const EPS: f32 = 0.1;
const STEP: f32 = 0.03;
/// Libraries clip in other orders than we: two roundings of a number below 1.
const PIXEL: f32 = 1.2e-7;
/// Part of the largest derivative below which its sign is a matter of rounding.
const SIGN: f32 = 1e-5;

/// The fixture.
struct Theirs(Vec<u8>);

impl Theirs {
    fn open() -> Theirs {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/attacks.safetensors");
        Theirs(std::fs::read(path).unwrap())
    }

    fn floats(&self, key: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(key).unwrap_or_else(|e| panic!("{key}: {e}"));
        assert_eq!(view.dtype(), Dtype::F32, "{key}");
        view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn classes(&self, key: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(key).unwrap_or_else(|e| panic!("{key}: {e}"));
        assert_eq!(view.dtype(), Dtype::I64, "{key}");
        view.data().as_chunks::<8>().0.iter().map(|b| u32::try_from(i64::from_le_bytes(*b)).unwrap()).collect()
    }

    /// The network with its weights; the autoencoder has no part in attacks.
    fn host(&self) -> Host {
        let mut host = Host::new(small(4), 2, (3, 3), 0);
        for (name, tensor) in host.weights.iter_mut().filter(|(name, _)| !name.starts_with("ae.")) {
            *tensor = Tensor::new(tensor.shape().clone(), self.floats(name)).unwrap();
        }
        host
    }
}

/// What an attack needs of the fixture, loaded.
struct Victim {
    sweep: Sweep,
    x: Vec<f32>,
    label: Vec<u32>,
    name: String,
}

impl Victim {
    fn load(theirs: &Theirs, backend: &dyn Backend) -> Victim {
        let sweep = theirs.host().sweep(&[], (4, 4), backend);
        Victim { sweep, x: theirs.floats("x"), label: theirs.classes("label"), name: backend.name() }
    }

    fn steps(&mut self, from: &[f32], step: f32, steps: u32) -> Vec<f32> {
        let steps = Steps { eps: EPS, step, steps, norm: Norm::Linf };
        self.sweep.victim().steps(&self.x, Some(from), Targets::Classes(&self.label), steps).unwrap()
    }

    fn losses(&mut self, x: &[f32]) -> Vec<f64> {
        let logits = self.sweep.victim().forward(x).unwrap();
        losses(&logits, 4, Targets::Classes(&self.label)).unwrap()
    }

    /// Whether `ours` is `theirs` within `pixel`, but where the derivative at `at` is too small to have a sign.
    fn same_step(&mut self, at: &[f32], ours: &[f32], theirs: &[f32], pixel: f32, what: &str) {
        let gradient = self.sweep.victim().input_gradient(at, Targets::Classes(&self.label)).unwrap();
        let largest = gradient.iter().fold(0.0, |m: f32, g| m.max(g.abs()));
        let mut ties = 0;
        for (i, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            let same = (ours - theirs).abs() <= pixel;
            let tie = gradient[i].abs() <= SIGN * largest;
            assert!(
                same || tie,
                "{what} on {}: pixel {i} is {ours}, theirs {theirs}, derivative {}",
                self.name,
                gradient[i]
            );
            ties += usize::from(!same);
        }
        assert!(ours.len() == theirs.len() && ties * 100 <= ours.len(), "{what} on {}: {ties} ties", self.name);
    }

    /// Losses of a free run's end within 2 % of a library's.
    fn same_end(&mut self, ours: &[f32], theirs: &[f64], what: &str) {
        for (ours, theirs) in self.losses(ours).iter().zip(theirs) {
            assert!((ours - theirs).abs() <= 0.02 * theirs, "{what} on {}: {ours} and {theirs}", self.name);
        }
    }
}

#[test]
fn fgsm_is_that_of_torchattacks_and_foolbox_to_the_bit() {
    let theirs = Theirs::open();
    for backend in backends() {
        let mut victim = Victim::load(&theirs, backend.as_ref());
        let x = victim.x.clone();
        let ours = victim.sweep.victim().fgsm(&x, Targets::Classes(&victim.label), EPS).unwrap();
        victim.same_step(&x, &ours, &theirs.floats("torchattacks.fgsm"), 0.0, "torchattacks' FGSM");
        victim.same_step(&x, &ours, &theirs.floats("foolbox.fgsm"), PIXEL, "foolbox's FGSM");
    }
}

#[test]
fn every_step_of_bim_and_pgd_is_theirs_from_the_same_point_and_their_ends_are_as_good() {
    let theirs = Theirs::open();
    for backend in backends() {
        let mut victim = Victim::load(&theirs, backend.as_ref());
        for name in ["torchattacks.bim", "foolbox.bim", "foolbox.pgd"] {
            let iterate = |k: usize| if k == 0 && name.ends_with("bim") { "x".into() } else { format!("{name}.{k}") };
            let path: Vec<Vec<f32>> = (0..=5).map(|k| theirs.floats(&iterate(k))).collect();
            for (k, pair) in path.windows(2).enumerate() {
                let ours = victim.steps(&pair[0], STEP, 1);
                victim.same_step(&pair[0], &ours, &pair[1], PIXEL, &format!("step {k} of {name}"));
            }
            let (end, reached) = (victim.steps(&path[0], STEP, 5), victim.losses(&path[5]));
            victim.same_end(&end, &reached, name);
        }
        // its start is not known: where it ends lies in the ball, and is as high as it says
        let reached: Vec<f64> = theirs.floats("torchattacks.pgd.loss").iter().map(|&v| f64::from(v)).collect();
        let end = theirs.floats("torchattacks.pgd");
        victim.same_end(&end, &reached, "torchattacks' PGD");
        assert!(end.iter().zip(&victim.x).all(|(a, x)| (a - x).abs() <= EPS + PIXEL));
    }
}

/// Of an L2 step: gradients agree to 1e-5 of their largest, which a step of 0.3 (and of 0.8) times a direction makes less of.
const L2_PIXEL: f32 = 5e-6;

#[test]
fn every_step_in_an_l2_ball_is_theirs_from_the_same_point() {
    let theirs = Theirs::open();
    for backend in backends() {
        let mut victim = Victim::load(&theirs, backend.as_ref());
        let label = victim.label.clone();
        let (x, name) = (victim.x.clone(), victim.name.clone());
        let mut near = |from: &[f32], step: f32, steps: u32, want: &[f32], what: &str| {
            let steps = Steps { eps: 0.8, step, steps, norm: Norm::L2 };
            let ours = victim.sweep.victim().steps(&x, Some(from), Targets::Classes(&label), steps).unwrap();
            let worst =
                ours.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, |m: f32, d| if d <= m { m } else { d });
            assert!(worst <= L2_PIXEL && ours.len() == want.len(), "{what} on {name}: {worst}");
        };
        for library in ["torchattacks", "foolbox"] {
            let path: Vec<Vec<f32>> = (1..=5).map(|k| theirs.floats(&format!("{library}.l2.{k}"))).collect();
            near(&x, 0.3, 1, &path[0], library);
            for (k, pair) in path.windows(2).enumerate() {
                near(&pair[0], 0.3, 1, &pair[1], &format!("step {} of {library}'s L2 attack", k + 1));
            }
        }
        near(&x, 0.8, 1, &theirs.floats("foolbox.l2.fgm"), "foolbox's L2 step");
    }
}

#[test]
fn every_step_towards_a_class_is_that_of_torchattacks() {
    let theirs = Theirs::open();
    let target = theirs.classes("jsma.target");
    for backend in backends() {
        let mut victim = Victim::load(&theirs, backend.as_ref());
        let mut path = vec![victim.x.clone()];
        path.extend((1..=5).map(|k| theirs.floats(&format!("torchattacks.to.{k}"))));
        victim.label = target.clone();
        for (k, pair) in path.windows(2).enumerate() {
            let steps = Steps { eps: EPS, step: STEP, steps: 1, norm: Norm::Linf };
            let goal = Goal::towards(Targets::Classes(&target));
            let ours = victim.sweep.victim().steps(&victim.x, Some(&pair[0]), goal, steps).unwrap();
            victim.same_step(&pair[0], &ours, &pair[1], PIXEL, &format!("step {k} towards a class"));
        }
        let (before, after) = (victim.losses(&path[0]), victim.losses(&path[5]));
        assert!(before.iter().zip(&after).all(|(before, after)| after < before), "{before:?} {after:?}");
    }
}

#[test]
fn jsma_changes_the_pixels_that_torchattacks_changes() {
    let theirs = Theirs::open();
    let target = theirs.classes("jsma.target");
    for backend in backends() {
        let mut victim = Victim::load(&theirs, backend.as_ref());
        for (theta, key) in [(0.3, "jsma.0.3"), (1.0, "jsma.1")] {
            let ours = victim.sweep.victim().jsma(&victim.x, &target, Jsma { theta, gamma: 1.0 }).unwrap();
            let want = theirs.floats(key);
            let (mut changed, mut other) = (0, 0);
            for ((x, ours), want) in victim.x.iter().zip(&ours).zip(&want) {
                changed += usize::from(want != x);
                other += usize::from((ours - want).abs() > PIXEL);
            }
            assert!(changed > 30 && other == 0, "{key} on {}: {other} pixels, they changed {changed}", victim.name);
        }
    }
}
