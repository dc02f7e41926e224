//! Replaying a reference folder: what another framework computed against what this crate computes, tensor by tensor.
//!
//! [`mod@format`] reads a folder, [`quantity`] lists what it may expect, this file runs the network on a device, [`compare`]
//! judges. The answers under interventions come from the sweep that studies use ([`crate::causal::sweep`]), the losses from
//! the graph that training uses, maps from [`crate::explain`], the rest from the host's own graph below. Called by the verb
//! `validate`; knows no device by name.

pub mod compare;
pub mod format;
pub mod quantity;
mod run;

use crate::answer::difference;
use crate::attack::Attacked;
use crate::backend::{Backend, BackendError, Completed, Layered};
use crate::causal::CausalError;
use crate::causal::intervention::NodeSet;
use crate::causal::sweep::{Batch, Subject, Sweep, SweepError};
use crate::graph::GraphError;
use crate::graph::op::Op;
use crate::graph::plan::EntryId;
use crate::graph::vjp::vjp;
use crate::graph::{Graph, NodeId};
use crate::model::{Head, ModelError};
use crate::random::Stream;
use crate::tensor::TensorRef;
use crate::train::autoencoder::{self, Objective, add_losses};
use crate::weights::WeightsError;
use crate::{explain, model::Tap};
use compare::{Line, Report, Verdict};
use format::{Folder, Start, Steps};
use quantity::{Attack, LOSSES, Quantity, Rule};
use run::{Given, Job, Runner};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Why a folder could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    /// The folder is invalid: exit 3.
    #[error("{path}: {reason}", path = .path.display())]
    Folder {
        /// The file in it.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Its tensors are no network's: exit 3.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// It names a network or tap that does not exist: exit 3.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Its images do not fit the network: exit 3.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Its autoencoder has more nodes than a study takes: exit 3.
    #[error(transparent)]
    Causal(#[from] CausalError),
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl From<SweepError> for ValidateError {
    fn from(e: SweepError) -> Self {
        match e {
            SweepError::Graph(e) => e.into(),
            SweepError::Backend(e) => e.into(),
        }
    }
}

/// What we computed, by quantity.
type Values = BTreeMap<Quantity, Vec<f64>>;

/// Computes everything that `folder` expects on `backend` and compares it; tolerances are `factor` times those of
/// [`Quantity::rule`].
///
/// # Errors
/// [`ValidateError`] when the network cannot be built or the device fails. A tensor that differs is no error.
pub fn validate(folder: &Folder, backend: &dyn Backend, factor: f64) -> Result<Report, ValidateError> {
    let wants = |q: Quantity| folder.expected.contains_key(&q);
    let mut got = Values::new();
    let mut lines: BTreeMap<Quantity, Line> = BTreeMap::new();
    // one network on the device at a time: weights may take half a gigabyte
    {
        let mut host = Host::new(folder, backend)?;
        host.values(folder, factor, &mut got, &mut lines)?;
        for (&attack, &steps) in &folder.attacks {
            let names = [Quantity::Path(attack), Quantity::Attacked(attack), Quantity::AttackLoss(attack)];
            if names.into_iter().any(wants) {
                host.attack(folder, attack, steps, factor, &mut lines)?;
            }
        }
    }
    outcomes(folder, backend, &mut got)?;
    losses(folder, backend, &mut got)?;
    for (&quantity, want) in &folder.expected {
        if let Some(values) = got.get(&quantity) {
            lines.entry(quantity).or_insert_with(|| compare::close(quantity, want, values, factor));
        }
        let nothing = || compare::not_checked(quantity, "this build computes no such thing".into());
        lines.entry(quantity).or_insert_with(nothing);
    }
    Ok(Report::new(lines.into_values().collect()))
}

/// How far beside a point [`beside`] looks, in spacings of f32 between 1 and 2 (2^-23) of a pixel in [0, 1]; what moves
/// the sums of a network as much as rounding them does.
const BESIDE: [f64; 3] = [1.0, 2.0, 4.0];
/// Points at each of them.
const BESIDE_TRIES: usize = 6;

fn passes(line: &Line) -> bool {
    line.verdict == Verdict::Pass
}

const FORWARD: EntryId = EntryId(0);
const ATTACK_LOSS: EntryId = EntryId(1);
const GRADIENT: EntryId = EntryId(2);
const STEP: EntryId = EntryId(3);
const MAPS: EntryId = EntryId(4);

/// The host on a device: its values, its gradient, its maps.
struct Host {
    runner: Runner,
    x: NodeId,
    x0: NodeId,
    target: NodeId,
    limits: NodeId,
    seed: NodeId,
    tap: NodeId,
    logits: NodeId,
    loss: NodeId,
    gradient: NodeId,
    stepped: NodeId,
    grad_cam: NodeId,
    cam: Option<NodeId>,
    goal: Goal,
}

/// What an attack moves away from.
enum Goal {
    /// A class an image.
    Labels(Vec<u32>),
    /// An answer a label: 1 where the unattacked host says yes.
    Answers(Vec<f64>),
}

impl Goal {
    fn given(&self) -> Given<'_> {
        match self {
            Goal::Labels(labels) => Given::Indices(labels),
            Goal::Answers(answers) => Given::Floats(answers),
        }
    }
}

impl Host {
    fn new(folder: &Folder, backend: &dyn Backend) -> Result<Host, ValidateError> {
        let model = &folder.model;
        let mut g = Graph::new();
        let x = g.input("x", model.input);
        let normalised = model.normalise(&mut g, x)?;
        let number = folder.tap.as_ref().map_or(0, |tap| tap.number);
        let tap = model.front(&mut g, normalised, 0, number)?;
        let at = explain::maps(model, &mut g, tap, number)?;

        let target = match model.head {
            Head::Softmax => g.index_input("target"),
            Head::Sigmoid => g.input("target", [model.classes]),
        };
        let op = match model.head {
            Head::Softmax => Op::CrossEntropy,
            Head::Sigmoid => Op::BinaryCrossEntropy,
        };
        let loss = g.push("attack.loss", op, &[at.logits, target])?;
        let sum = g.sum_rows("attack.loss.sum", loss)?;
        let one = g.whole_input("one", [1]);
        let gradient = vjp(&mut g, sum, one, &[x])?[0];
        let x0 = g.input("x0", model.input);
        let limits = g.whole_input("limits", [2]);
        let stepped = g.push("attack.step", Op::SignStep, &[x, gradient, x0, limits])?;

        let seed = g.input("map.seed", [model.classes]);
        let grad_cam = explain::grad_cam(&mut g, at, seed)?;
        let weight = model.linear_head().and_then(|key| g.parameter_named(&key));
        let cam = weight.map(|weight| explain::cam(&mut g, at.maps, weight, seed)).transpose()?;

        let maps: Vec<NodeId> = cam.into_iter().chain([grad_cam]).collect();
        let jobs = [
            Job { name: "forward", given: vec![x], want: vec![tap, at.logits] },
            Job { name: "attack loss", given: vec![x, target], want: vec![loss] },
            Job { name: "input gradient", given: vec![x, target, one], want: vec![gradient] },
            Job { name: "attack step", given: vec![x, target, one, x0, limits], want: vec![stepped] },
            Job { name: "maps", given: vec![x, seed], want: maps },
        ];
        let constants = model.constants();
        let weights = Completed { weights: &folder.host, derived: &constants };
        let mut runner = Runner::load(&g, &jobs, &weights, backend, folder.images)?;
        runner.program().write(one, TensorRef::F32(&[1.0]))?;
        let goal = match (&folder.labels, model.head) {
            (Some(labels), Head::Softmax) => Goal::Labels(labels.clone()),
            (None, Head::Softmax) => Goal::Labels(vec![0; folder.images]), // nothing that needs it is expected
            (_, Head::Sigmoid) => {
                let pixels = widened(&folder.input);
                let [logits] = runner.run(FORWARD, folder.images, &[(x, Given::Floats(&pixels))], [at.logits])?;
                // p > 0.5
                Goal::Answers(logits.iter().map(|&o| if o > 0.0 { 1.0 } else { 0.0 }).collect())
            }
        };
        let logits = at.logits;
        Ok(Host { runner, x, x0, target, limits, seed, tap, logits, loss, gradient, stepped, grad_cam, cam, goal })
    }

    /// Values, gradient and maps of the folder's images.
    fn values(
        &mut self,
        folder: &Folder,
        factor: f64,
        got: &mut Values,
        lines: &mut BTreeMap<Quantity, Line>,
    ) -> Result<(), ValidateError> {
        let wants = |q: Quantity| folder.expected.contains_key(&q);
        let (n, pixels) = (folder.images, widened(&folder.input));
        let x = (self.x, Given::Floats(&pixels));
        if wants(Quantity::Logits) || wants(Quantity::Tap) {
            let [tap, logits] = self.runner.run(FORWARD, n, &[x], [self.tap, self.logits])?;
            got.extend([(Quantity::Tap, tap), (Quantity::Logits, logits)]);
        }
        if wants(Quantity::InputGradient) {
            let quantity = Quantity::InputGradient;
            let gradient = self.gradient(n, &pixels)?;
            let judge = |values: &[f64]| match folder.expected.get(&quantity) {
                Some(want) => compare::close(quantity, want, values, factor),
                None => compare::not_checked(quantity, "not expected".into()),
            };
            let exact = judge(&gradient);
            if exact.verdict == Verdict::Fail {
                let want = folder.expected.get(&quantity).map_or(&[][..], |want| want);
                let farthest = |want: &[f32], got: &[f64]| {
                    want.iter().zip(got).map(|(&w, g)| (g - f64::from(w)).abs()).fold(0.0, f64::max)
                };
                let beside =
                    beside(n, &pixels, (want, &gradient), farthest, |v| passes(&judge(v)), |x| self.gradient(n, x))?;
                lines.insert(quantity, beside.map_or(exact, |(values, how)| judge(&values).noted(&how)));
            }
            got.insert(quantity, gradient);
        }
        if let Some(labels) = &folder.labels {
            let seeds = widened(&explain::one_hot(labels, folder.model.classes));
            let given = [x, (self.seed, Given::Floats(&seeds))];
            if wants(Quantity::GradCam) || wants(Quantity::Cam) {
                let maps: Vec<NodeId> = [self.grad_cam].into_iter().chain(self.cam).collect();
                let maps = self.runner.run_all(MAPS, n, &given, &maps)?;
                got.extend([Quantity::GradCam, Quantity::Cam].into_iter().zip(maps));
            }
        }
        Ok(())
    }

    /// The attack's gradient at `pixels`.
    fn gradient(&mut self, images: usize, pixels: &[f64]) -> Result<Vec<f64>, ValidateError> {
        let given = [(self.x, Given::Floats(pixels)), (self.target, self.goal.given())];
        let [gradient] = self.runner.run(GRADIENT, images, &given, [self.gradient])?;
        Ok(gradient)
    }

    /// The attack's loss at `pixels`, an image.
    fn loss(&mut self, images: usize, pixels: &[f64]) -> Result<Vec<f64>, ValidateError> {
        let given = [(self.x, Given::Floats(pixels)), (self.target, self.goal.given())];
        let [loss] = self.runner.run(ATTACK_LOSS, images, &given, [self.loss])?;
        Ok(loss)
    }

    /// One sign step from `pixels`.
    fn step(&mut self, folder: &Folder, pixels: &[f64], steps: Steps) -> Result<Vec<f64>, ValidateError> {
        self.runner.program().write(self.limits, TensorRef::F32(&[steps.step, steps.eps]))?;
        let input = widened(&folder.input);
        let given =
            [(self.x, Given::Floats(pixels)), (self.x0, Given::Floats(&input)), (self.target, self.goal.given())];
        let [stepped] = self.runner.run(STEP, folder.images, &given, [self.stepped])?;
        Ok(stepped)
    }

    /// Replays an attack: a step from every given iterate, and a run of our own from the first.
    fn attack(
        &mut self,
        folder: &Folder,
        attack: Attack,
        steps: Steps,
        factor: f64,
        lines: &mut BTreeMap<Quantity, Line>,
    ) -> Result<(), ValidateError> {
        let (n, image) = (folder.images, folder.input.len());
        let path = folder.expected.get(&Quantity::Path(attack));
        if let Some(path) = path {
            let quantity = Quantity::Path(attack);
            let mut stepped = Vec::with_capacity(image * steps.count);
            let mut turned = None;
            for (iterate, next) in path.chunks_exact(image).zip(path.chunks_exact(image).skip(1)).take(steps.count) {
                let at = widened(iterate);
                let pair = [iterate, next].concat();
                let after = self.step(folder, &at, steps)?;
                let judge = |after: &[f64]| passes(&compare::steps(quantity, &pair, after, 0.0, factor));
                if judge(&after) {
                    stepped.extend(after);
                    continue;
                }
                let elsewhere =
                    |want: &[f32], got: &[f64]| compare::elsewhere(quantity, want, got, factor).unwrap_or(f64::NAN);
                let beside = beside(n, &at, (next, &after), elsewhere, judge, |x| self.step(folder, x, steps))?;
                let (after, how) = beside.map_or((after, None), |(after, how)| (after, Some(how)));
                turned = turned.or(how);
                stepped.extend(after);
            }
            let off = start_off(folder, &path[..image], steps);
            let line = compare::steps(quantity, path, &stepped, off, factor);
            lines.insert(quantity, turned.iter().fold(line, |line, how| line.noted(how)));
        }
        let start = match (path, steps.start) {
            (Some(path), _) => Some(&path[..image]),
            (None, Start::Image) => Some(&folder.input[..]),
            (None, Start::Random) => None,
        };
        let (last, loss) = (Quantity::Attacked(attack), Quantity::AttackLoss(attack));
        let expected_last = folder.expected.get(&last);
        let at_last = expected_last.map(|last| self.loss(n, &widened(last))).transpose()?;
        let expected_loss: Option<Vec<f64>> = folder.expected.get(&loss).map(|v| widened(v));
        match start {
            Some(start) => {
                let mut pixels = widened(start);
                for _ in 0..steps.count {
                    pixels = self.step(folder, &pixels, steps)?;
                }
                let ours = self.loss(n, &pixels)?;
                if let (Some(want), Some(at_last)) = (expected_last, &at_last) {
                    let same = want.iter().zip(&pixels).filter(|(w, g)| (*g - f64::from(**w)).abs() <= 1e-5).count();
                    let share = 100.0 * same as f64 / want.len() as f64;
                    let note = format!(
                        "final loss of a free run, {} long; {share:.2} % of its pixels are the same",
                        steps.count
                    );
                    lines.insert(last, compare::free_run(last, at_last, &ours, factor, note));
                }
                if let Some(want) = &expected_loss {
                    let note = format!("final loss of a free run, {} long", steps.count);
                    lines.insert(loss, compare::free_run(loss, want, &ours, factor, note));
                }
            }
            None => {
                let why = format!("the start was random, and there is no attack_path.{} that has it", attack.name());
                if expected_last.is_some() {
                    lines.insert(last, compare::not_checked(last, why.clone()));
                }
                match (&expected_loss, &at_last) {
                    (Some(want), Some(at_last)) => {
                        let note = format!("loss at the given last iterate: {why}");
                        lines.insert(loss, compare::free_run(loss, want, at_last, factor, note));
                    }
                    (Some(_), None) => {
                        lines.insert(loss, compare::not_checked(loss, why));
                    }
                    (None, _) => {}
                }
            }
        }
        Ok(())
    }
}

/// Where a gradient, or what is made of it, is not as expected: whether a ReLU or max that turns over within rounding of
/// `at` explains it. f32 has some such points in most networks, and which side a sum falls on is no library's fault:
/// PyTorch's own float32 and float64 then differ as much. So `run` is repeated from points a few spacings of f32 beside
/// `at`, and of every image that result is kept which is nearest to what is wanted by `off`; results that are wrong for
/// another reason are wrong there too. `Some` with the results and how they came about, once `fine` says yes.
fn beside(
    images: usize,
    at: &[f64],
    (want, got): (&[f32], &[f64]),
    off: impl Fn(&[f32], &[f64]) -> f64,
    fine: impl Fn(&[f64]) -> bool,
    mut run: impl FnMut(&[f64]) -> Result<Vec<f64>, ValidateError>,
) -> Result<Option<(Vec<f64>, String)>, ValidateError> {
    // what is no number is not explained by rounding
    if want.len() != got.len() || got.iter().any(|v| !v.is_finite()) {
        return Ok(None);
    }
    let (row, stream) = (want.len() / images.max(1), Stream::new(0, "validate/beside"));
    let mut best = got.to_vec();
    for (round, spacings) in BESIDE.iter().flat_map(|s| std::iter::repeat_n(s, BESIDE_TRIES)).enumerate() {
        let reach = spacings * f64::from(f32::EPSILON);
        // equal pixels stay equal: in a flat area a max is taken among equals, and which of them it is, is no rounding
        let uniform = |v: f64| f64::from(stream.uniform(round as u64, (v as f32).to_bits()));
        let moved: Vec<f64> = at.iter().map(|&v| v + reach * (2.0 * uniform(v) - 1.0)).collect();
        let tried = run(&moved)?;
        let rows = best.chunks_exact_mut(row.max(1)).zip(tried.chunks_exact(row.max(1)));
        for ((best, tried), want) in rows.zip(want.chunks_exact(row.max(1))) {
            if off(want, tried) < off(want, best) {
                best.copy_from_slice(tried);
            }
        }
        if fine(&best) {
            let how = format!("a ReLU or max turns over within {reach:.0e} of a pixel: beside it all is as expected");
            return Ok(Some((best, how)));
        }
    }
    Ok(None)
}

/// Share of pixels of an attack's first iterate that are not where it may begin: at the image, or within eps of it and
/// in [0, 1].
fn start_off(folder: &Folder, start: &[f32], steps: Steps) -> f64 {
    let Rule::Steps { pixel, .. } = Quantity::Path(Attack::Pgd).rule() else { return f64::NAN };
    let reach = match steps.start {
        Start::Image => 0.0,
        Start::Random => f64::from(steps.eps),
    };
    let fine = |(&s, &x): (&f32, &f32)| {
        let (s, x) = (f64::from(s), f64::from(x));
        (s - x).abs() <= reach + pixel && s >= -pixel && s <= 1.0 + pixel
    };
    let off = start.iter().zip(&folder.input).filter(|pair| !fine(*pair)).count();
    off as f64 / start.len() as f64
}

/// Answers as they are, with the autoencoder inserted, and with each node set to 0, by the sweep that studies use.
fn outcomes(folder: &Folder, backend: &dyn Backend, got: &mut Values) -> Result<(), ValidateError> {
    use Quantity::{Done, Ece, Effect, Idle, Orig};
    let wanted = [Orig, Idle, Done, Effect, Ece].iter().any(|q| folder.expected.contains_key(q));
    let (head, classes) = (folder.model.head, folder.model.classes);
    let probabilities = |logits: &[f64]| -> Vec<f64> { logits.chunks(classes).flat_map(|row| head.of(row)).collect() };
    if !wanted {
        return Ok(());
    }
    let (Some(tap), Some((autoencoder, ae))) = (&folder.tap, &folder.autoencoder) else {
        // the host's own answer needs no autoencoder
        let mut own = Host::new(folder, backend)?;
        let pixels = widened(&folder.input);
        let given = [(own.x, Given::Floats(&pixels))];
        let [logits] = own.runner.run(FORWARD, folder.images, &given, [own.logits])?;
        got.insert(Orig, probabilities(&logits));
        return Ok(());
    };
    let sets: Vec<NodeSet> =
        (0..autoencoder.nodes).map(|node| NodeSet::of(&[node], autoencoder.nodes)).collect::<Result<_, _>>()?;
    let weights = Layered(&[&folder.host, ae]);
    let subject = Subject { model: &folder.model, tap, autoencoder, weights: &weights, attacked: Attacked::Host };
    let mut batch = Batch::auto(subject, sets.len(), backend)?;
    batch.images = batch.images.min(folder.images);
    batch.variants = batch.variants.min(folder.images * (sets.len() + 1));
    let logits = Sweep::fitting(subject, &sets, batch, backend)?.outcomes::<f64>(&folder.input)?;

    let (n, k) = (folder.images, sets.len());
    let idle = probabilities(&logits.idle);
    let (mut done, mut effect, mut ece) = (Vec::new(), Vec::new(), Vec::new());
    for node in 0..k {
        for image in 0..n {
            let row = |of: usize| of * classes..(of + 1) * classes;
            let changed = &logits.done[row(image * k + node)];
            let p = &idle[row(image)];
            let effects = difference(head, p, &logits.idle[row(image)], changed);
            ece.push(head.weighted(p, &effects));
            effect.extend(effects);
            done.extend(head.of(changed));
        }
    }
    got.extend([(Orig, probabilities(&logits.orig)), (Idle, idle), (Done, done), (Effect, effect), (Ece, ece)]);
    Ok(())
}

const CODE: EntryId = EntryId(0);
const LOSS: EntryId = EntryId(1);
const LOSS_GRADIENT: EntryId = EntryId(2);

/// Code, decoded tap, and the losses that the autoencoder's training minimises, with the total's gradients.
fn losses(folder: &Folder, backend: &dyn Backend, got: &mut Values) -> Result<(), ValidateError> {
    use Quantity::{AeGradient, Code, Decoded, Loss};
    let wants = |of: fn(Quantity) -> bool| folder.expected.keys().any(|&q| of(q));
    let (code_wanted, loss_wanted, gradient_wanted) = (
        wants(|q| matches!(q, Code | Decoded)),
        wants(|q| matches!(q, Loss(_))),
        wants(|q| matches!(q, AeGradient(_))),
    );
    if !(code_wanted || loss_wanted || gradient_wanted) {
        return Ok(());
    }
    let (Some(Tap { number, .. }), Some((autoencoder, ae))) = (&folder.tap, &folder.autoencoder) else { return Ok(()) };
    let model = &folder.model;
    let mut g = Graph::new();
    let x = g.input("x", model.input);
    let normalised = model.normalise(&mut g, x)?;
    let front = model.front(&mut g, normalised, 0, *number)?;
    let logits = model.tail(&mut g, front, *number)?;
    let code = autoencoder.encode(&mut g, front)?;
    let pre = autoencoder.pre(&mut g, code)?;
    let decoded = autoencoder.decode(&mut g, pre)?;
    let inserted = model.tail(&mut g, decoded, *number)?;
    let objective = Objective { weights: folder.losses.unwrap_or_default(), ..Objective::default() };
    let made = add_losses(&mut g, model.head, [front, decoded], code, [logits, inserted], objective)?;
    let trained: Vec<NodeId> = autoencoder.parameters().iter().filter_map(|(key, _)| g.parameter_named(key)).collect();
    let one = g.whole_input("one", [1]);
    let gradients = vjp(&mut g, made.total, one, &trained)?;
    let losses = made.reported();

    let jobs = [
        Job { name: "code", given: vec![x], want: vec![code, decoded] },
        Job { name: "losses", given: vec![x], want: losses.to_vec() },
        Job { name: "loss gradients", given: vec![x, one], want: gradients.clone() },
    ];
    let constants = model.constants();
    let weights = Completed { weights: &Layered(&[&folder.host, ae]), derived: &constants };
    let mut runner = Runner::load(&g, &jobs, &weights, backend, folder.images)?;
    runner.program().write(one, TensorRef::F32(&[1.0]))?;
    let pixels = widened(&folder.input);
    let given = [(x, Given::Floats(&pixels))];
    if code_wanted {
        let [z, d] = runner.run(CODE, folder.images, &given, [code, decoded])?;
        got.extend([(Code, z), (Decoded, d)]);
    }
    if loss_wanted {
        let values = runner.run_all(LOSS, folder.images, &given, &losses)?;
        for (name, value) in autoencoder::LOSSES.iter().zip(values) {
            got.extend(LOSSES.iter().position(|own| own == name).map(|i| (Loss(i), value)));
        }
    }
    if gradient_wanted {
        let values = runner.run_all(LOSS_GRADIENT, folder.images, &given, &gradients)?;
        got.extend((0..gradients.len()).map(AeGradient).zip(values));
    }
    Ok(())
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest distance.
    fn farthest(want: &[f32], got: &[f64]) -> f64 {
        want.iter().zip(got).map(|(&w, g)| (g - f64::from(w)).abs()).fold(0.0, f64::max)
    }

    /// Whether `want` comes out beside `at`, for two images of two pixels.
    fn explained(at: [f64; 4], want: [f32; 4], run: impl Fn(&[f64]) -> Vec<f64>) -> Option<String> {
        let got = run(&at);
        let fine = |v: &[f64]| farthest(&want, v) < 1e-6;
        let found = beside(2, &at, (&want, &got), farthest, fine, |x| Ok(run(x))).unwrap();
        found.map(|(values, how)| {
            assert!(fine(&values), "{values:?}");
            how
        })
    }

    /// A switch an image: which side of `edge` its first pixel is on.
    fn switched(edge: f64) -> impl Fn(&[f64]) -> Vec<f64> {
        move |x| x.chunks(2).flat_map(|x| [if x[0] > edge { 1.0 } else { -1.0 }, x[1]]).collect()
    }

    #[test]
    fn a_switch_within_rounding_of_a_point_is_found_for_every_image_and_one_farther_off_is_not() {
        let at = [0.5, 0.25, 0.5, 0.75];
        let how = explained(at, [1.0, 0.25, 1.0, 0.75], switched(0.5)).unwrap();
        assert!(how.contains("turns over within 1e-7"), "{how}");
        assert!(explained(at, [1.0, 0.25, -1.0, 0.75], switched(0.5)).is_some());
        assert!(explained(at, [1.0, 0.25, 1.0, 0.75], switched(0.5 + 1e-5)).is_none());
    }

    #[test]
    fn what_is_wrong_for_another_reason_or_no_number_is_not_explained() {
        let at = [0.5, 0.25, 0.5, 0.75];
        assert!(explained(at, [1.0, 0.25, 1.0, 0.75], |x| x.iter().map(|v| 0.99 * v).collect()).is_none());
        assert!(explained(at, [1.0, 0.26, 1.0, 0.75], switched(0.5)).is_none());
        let nan_at_the_point = |x: &[f64]| {
            let exact = x[0] == 0.5;
            switched(0.5)(x).iter().map(|&v| if exact { f64::NAN } else { v }).collect()
        };
        assert!(explained(at, [1.0, 0.25, 1.0, 0.75], nan_at_the_point).is_none());
    }

    #[test]
    fn equal_pixels_stay_equal() {
        let at = [0.5, 0.5, 0.5, 0.5];
        let apart = |x: &[f64]| x.chunks(2).flat_map(|x| [1.0, f64::from(u8::from(x[0] != x[1]))]).collect();
        assert!(explained(at, [1.0, 1.0, 1.0, 1.0], apart).is_none());
    }
}
