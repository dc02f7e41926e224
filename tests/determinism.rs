//! The same bits whatever the batch, the neighbours, the order, the threads or the shards (invariant 3), whatever was
//! interrupted on the way (invariant 8), and no other weight touched by training (invariant 7).

mod common;

use common::backends;
use common::hosts::{Host, bits, small};
use intervene::attack::Targets;
use intervene::attack::{Attack, Norm};
use intervene::backend::cpu::Cpu;
use intervene::backend::cpu::isa::Isa;
use intervene::backend::reference::Reference;
use intervene::backend::{Backend, BackendError, Completed, Parameters, Program};
use intervene::causal::analysis::{Columns, Quantity};
use intervene::causal::effect::Reading;
use intervene::causal::fill::Fill;
use intervene::causal::intervention::NodeSet;
use intervene::causal::mask::Region;
use intervene::causal::study::{Answers, AttackLabel, Do, Input, Shard, Study};
use intervene::causal::sweep::Sweep;
use intervene::data::{Dataset, epoch_order};
use intervene::model::Model;
use intervene::random::Stream;
use intervene::tensor::{Tensor, TensorMut};
use intervene::train::autoencoder::{self as ae, Interpretability, Objective, Trainer};
use intervene::train::classifier::{self, Classifier};
use intervene::train::{
    Checkpoint, EpochRecord, Fit, Outcome, Position, Schedule, Settings, Surroundings, TrainError, checkpoint,
};
use intervene::weights::Weights;

/// Everything a sweep says of some images, a row an image, as bits.
fn answers(sweep: &mut Sweep, x: &[f32], labels: &[u32]) -> Vec<Vec<u64>> {
    let fail = |e: BackendError| -> ! { panic!("{e}") };
    let logits = sweep.outcomes::<f64>(x).unwrap_or_else(|e| fail(e));
    let attacked = sweep.victim().fgsm(x, Targets::Classes(labels), 0.0625).unwrap_or_else(|e| panic!("{e}"));
    let gradient = sweep.victim().input_gradient(x, Targets::Classes(labels)).unwrap_or_else(|e| fail(e));
    let forward = sweep.victim().forward(x).unwrap_or_else(|e| fail(e));
    let n = labels.len();
    let mut rows = vec![Vec::new(); n];
    let mut deal = |all: Vec<u64>| {
        let parts = all.chunks_exact(all.len() / n);
        rows.iter_mut().zip(parts).for_each(|(row, part)| row.extend(part));
    };
    for part in [&logits.orig, &logits.idle, &logits.done] {
        deal(bits(part));
    }
    deal(logits.live.iter().map(|&l| u64::from(l)).collect());
    for part in [&attacked, &gradient, &forward] {
        deal(bits(part));
    }
    rows
}

fn labels(n: usize, classes: usize, seed: u64) -> Vec<u32> {
    let stream = Stream::new(seed, "labels");
    (0..n as u32).map(|i| stream.below(0, i, classes as u32)).collect()
}

/// A host, images and labels, sets of nodes.
struct Scene {
    host: Host,
    x: Vec<f32>,
    labels: Vec<u32>,
    sets: Vec<NodeSet>,
}

impl Scene {
    fn of(host: Host, n: usize) -> Scene {
        let sets = vec![host.set(&[0]), host.set(&[1, 3]), host.set(&[2]), host.set(&[5])];
        let (x, labels) = (host.images(n, 21), labels(n, host.model.classes, 21));
        Scene { host, x, labels, sets }
    }

    fn rows(&self, batch: (usize, usize), backend: &dyn Backend) -> Vec<Vec<u64>> {
        answers(&mut self.host.sweep(&self.sets, batch, backend), &self.x, &self.labels)
    }
}

/// The small host on every backend, the Fashion net on the fast ones, and one whose layers go by Winograd's tiles on the CPU:
/// together they are wide enough for every kernel. Fewer images on CUDA, which may be simulated.
fn scenes() -> Vec<(Scene, Box<dyn Backend>)> {
    let small = backends().into_iter().map(|b| (Scene::of(Host::small(2), 13), b));
    let fast = backends().into_iter().filter(|b| b.name() != Reference.name());
    let images = |b: &dyn Backend| if b.name().starts_with("cuda") { 5 } else { 13 };
    let tiles = Isa::available().into_iter().map(|isa| Box::new(Cpu::with_isa(isa)) as Box<dyn Backend>);
    let all = small.chain(fast.map(|b| (Scene::of(Host::fashion_seeded(), images(&*b)), b)));
    all.chain(tiles.map(|b| (Scene::of(Host::wide(), 5), b))).collect()
}

/// Backends whose arithmetic runs on the host's threads. (A simulated GPU has threads of its own.)
fn on_host_threads(backend: &dyn Backend) -> bool {
    !backend.name().starts_with("cuda")
}

#[test]
fn an_image_has_the_same_bits_in_batches_of_1_2_7_and_all() {
    for (scene, backend) in scenes() {
        let full = scene.rows((13, 65), backend.as_ref());
        for batch in [(1, 1), (2, 7), (7, 2), (5, 13)] {
            assert_eq!(scene.rows(batch, backend.as_ref()), full, "{batch:?} on {}", backend.name());
        }
    }
}

#[test]
fn an_image_has_the_same_bits_on_1_2_and_3_threads() {
    for (scene, backend) in scenes().into_iter().filter(|(_, b)| on_host_threads(&**b)) {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| scene.rows((7, 16), backend.as_ref()))
        };
        let one = on(1);
        for threads in [2, 3] {
            assert_eq!(on(threads), one, "{threads} threads on {}", backend.name());
        }
    }
}

#[test]
fn an_image_has_the_same_bits_in_any_order_and_beside_any_neighbours() {
    for (scene, backend) in scenes() {
        let Scene { host, x, labels, sets } = &scene;
        let (n, row) = (labels.len(), host.pixels());
        let mut sweep = host.sweep(sets, (5, 7), backend.as_ref());
        let straight = answers(&mut sweep, x, labels);
        let order = Stream::new(4, "order").permutation(0, n as u32);
        let moved: Vec<f32> = order.iter().flat_map(|&i| x[i as usize * row..][..row].to_vec()).collect();
        let moved_labels: Vec<u32> = order.iter().map(|&i| labels[i as usize]).collect();
        for (got, &i) in answers(&mut sweep, &moved, &moved_labels).iter().zip(&order) {
            assert_eq!(*got, straight[i as usize], "image {i} on {}", backend.name());
        }
        // the last image among images that are not even numbers
        let last = n - 1;
        let mut alone = vec![f32::NAN; x.len()];
        alone[last * row..].copy_from_slice(&x[last * row..]);
        let got = answers(&mut sweep, &alone, labels);
        assert_eq!(got[last], straight[last], "on {}", backend.name());
        assert!(got[last - 1].iter().any(|v| f64::from_bits(*v).is_nan()), "on {}", backend.name());
    }
}

/// Images of noise as bytes.
fn dataset(host: &Host, n: usize, seed: u64) -> Dataset {
    let stream = Stream::new(seed, "bytes");
    let bytes = (0..(n * host.pixels()) as u32).map(|i| stream.below(0, i, 256) as u8).collect();
    let classes = (0..host.model.classes).map(|c| c.to_string()).collect();
    Dataset::new(bytes, labels(n, host.model.classes, seed), host.model.input, classes)
        .unwrap_or_else(|e| panic!("{e}"))
}

/// What an image's answers are, shard and place taken away: one list an image.
fn by_image(shards: &[Shard]) -> Vec<Vec<u64>> {
    let mut rows = Vec::new();
    for shard in shards {
        let n = shard.ids.len();
        for i in 0..n {
            let mut row = vec![shard.ids[i], u64::from(shard.labels[i])];
            for Answers { mask, fraction, logits, .. } in &shard.answers {
                row.push(u64::from(*mask));
                row.extend(fraction.get(i).map(|f| u64::from(f.to_bits())));
                for part in [&logits.orig, &logits.idle, &logits.done] {
                    let len = part.len() / n;
                    row.extend(bits(&part[i * len..(i + 1) * len]));
                }
            }
            rows.push(row);
        }
    }
    rows
}

#[test]
fn an_image_has_the_same_bits_in_any_shard_and_a_mean_over_images_is_the_weighted_mean_of_shards() {
    // masks have a 10 x 10 grid
    let model = Model { input: [2, 12, 10], ..small(4) };
    let host = Host::new(model, 2, (9, 6), 3);
    let data = dataset(&host, 12, 8);
    let inputs = vec![
        Input::Pwm { masks: 2, fill: Fill::Value(0.0), region: Region::Grid10 },
        Input::Attack(Attack::Fgsm { eps: 0.1, norm: Norm::Linf }),
        Input::Noise { eps: 0.1, norm: Norm::Linf },
    ];
    for backend in backends() {
        let mut study = Study {
            sweep: host.sweep(&host.singles(), (4, 9), backend.as_ref()),
            data: &data,
            inputs: inputs.clone(),
            attack_label: AttackLabel::Predicted,
            mask: None,
            value: Do::Zero,
            seed: 6,
        };
        let mut cut = |cuts: &[(usize, usize)]| -> Vec<Shard> {
            cuts.iter().map(|&(first, count)| study.shard(first, count).unwrap_or_else(|e| panic!("{e}"))).collect()
        };
        let (whole, parts) = (cut(&[(0, 12)]), cut(&[(0, 1), (1, 7), (8, 100)]));
        assert_eq!(by_image(&whole), by_image(&parts), "{}", backend.name());
        // a subset carries its images' numbers, so masks and noise follow them
        let some = data.subset(&[9, 2]).unwrap_or_else(|e| panic!("{e}"));
        let mut study = Study { data: &some, ..study };
        let subset = by_image(&[study.shard(0, 2).unwrap_or_else(|e| panic!("{e}"))]);
        assert_eq!(subset, [by_image(&whole)[9].clone(), by_image(&whole)[2].clone()], "{}", backend.name());

        let columns = |shards: &[Shard]| Columns::of(shards, host.model.head, 4).unwrap_or_else(|e| panic!("{e}"));
        let (all, joined) = (columns(&whole), columns(&parts));
        for (input, reading) in [(0, Reading::Z0), (1, Reading::R1), (2, Reading::R3), (3, Reading::R4)] {
            let quantity = Quantity::Ece(reading);
            assert_eq!(bits(all.get(input, 3, quantity)), bits(joined.get(input, 3, quantity)));
            let weighted: f64 = parts
                .iter()
                .map(|p| p.ids.len() as f64 * columns(std::slice::from_ref(p)).mean(input, 3, quantity))
                .sum();
            // two orders of 12 additions in f64
            assert!((all.mean(input, 3, quantity) - weighted / 12.0).abs() <= 1e-15, "{reading} on {}", backend.name());
        }
    }
}

// ---- training ----

const EPOCHS: u64 = 3;
/// Steps an epoch: 19 images in batches of 4.
const BATCHES: u64 = 4;

fn settings(seed: u64) -> Settings {
    Settings { learning_rate: 3e-3, schedule: Schedule::Cosine, epochs: EPOCHS, batch: 4, seed }
}

type Feed<'a> = Box<dyn FnMut(&mut dyn Program, &[u32]) -> Result<(), TrainError> + 'a>;
type Validate<'a> = Box<dyn FnMut(&mut dyn Program) -> Result<Vec<(String, f64)>, TrainError> + 'a>;

/// A run that is interrupted once it has done `stop` steps.
struct Script<'a> {
    seed: u64,
    images: u32,
    stop: u64,
    done: u64,
    feed: Feed<'a>,
    validate: Validate<'a>,
    losses: Vec<f64>,
}

impl Surroundings for Script<'_> {
    fn feed(&mut self, program: &mut dyn Program, _epoch: u64, which: &[u32]) -> Result<(), TrainError> {
        (self.feed)(program, which)
    }
    fn order(&mut self, epoch: u64) -> Vec<u32> {
        epoch_order(self.seed, epoch, self.images)
    }
    fn validate(&mut self, program: &mut dyn Program) -> Result<Vec<(String, f64)>, TrainError> {
        (self.validate)(program)
    }
    fn progress(&mut self, done: u64, total: u64, losses: &[f64]) {
        assert_eq!(total, EPOCHS * BATCHES);
        self.done = done;
        self.losses.push(losses[0]);
    }
    fn epoch_done(&mut self, record: &EpochRecord, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        assert_eq!((record.epoch, checkpoint.position.batch), (checkpoint.position.epoch, 0));
        Ok(())
    }
    fn interrupted(&self) -> bool {
        self.done >= self.stop
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Classifier,
    Autoencoder(Interpretability),
}

const KINDS: [Kind; 3] =
    [Kind::Classifier, Kind::Autoencoder(Interpretability::Plain), Kind::Autoencoder(Interpretability::ScaleFree)];

/// One leg of a training run: from the start or a checkpoint, up to `stop` steps in all. The host's weights after it are
/// compared with those before when it trains an autoencoder.
fn leg(kind: Kind, seed: u64, backend: &dyn Backend, resume: Option<Checkpoint>, stop: u64) -> Outcome {
    let host = Host::new(small(4), 2, (9, 6), seed);
    let (data, held_out) = (dataset(&host, 19, 1), dataset(&host, 7, 2));
    let done = resume.as_ref().map_or(0, |c| c.position.epoch * BATCHES + c.position.batch);
    let script = |feed, validate| Script { seed, images: 19, stop, done, feed, validate, losses: vec![] };
    let go = |fit: &mut Fit<'_>, mut script: Script<'_>| {
        let outcome = fit.run(resume.clone(), &mut script).unwrap_or_else(|e| panic!("{e}"));
        assert!(script.losses.iter().all(|l| l.is_finite()));
        outcome
    };
    match kind {
        Kind::Classifier => {
            let mut job = Classifier::new(&host.model, &host.weights, backend, 4).unwrap_or_else(|e| panic!("{e}"));
            let nodes = job.nodes();
            let script = script(
                Box::new(|program, which| classifier::feed(program, nodes, &data, which)),
                Box::new(|program| {
                    let found = classifier::evaluate(program, nodes, &held_out)?;
                    Ok(vec![("loss".into(), found.loss), ("accuracy".into(), found.accuracy)])
                }),
            );
            go(&mut job.fit(&settings(seed), data.len()), script)
        }
        Kind::Autoencoder(form) => {
            let Host { model, tap, autoencoder, weights } = &host;
            let objective = Objective { form, ..Objective::default() };
            let mut job =
                Trainer::new(model, tap, autoencoder, weights, backend, 4, objective).unwrap_or_else(|e| panic!("{e}"));
            let nodes = job.nodes();
            let script = script(
                Box::new(|program, which| ae::feed(program, &nodes, &data, which)),
                Box::new(|program| {
                    let found = ae::evaluate(program, &nodes, &held_out)?;
                    Ok(vec![("loss".into(), found.loss), ("deep".into(), found.deep)])
                }),
            );
            let settings = settings(seed);
            let mut fit = job.fit(&settings, data.len());
            let outcome = go(&mut fit, script);
            check_frozen(&host, fit.program, stop > done);
            outcome
        }
    }
}

/// Every weight that is not the autoencoder's has the bits it was loaded with; the autoencoder's have not, once it was
/// trained for a step.
fn check_frozen(host: &Host, program: &mut dyn Program, stepped: bool) {
    let constants = host.model.constants();
    let source = Completed { weights: &host.weights, derived: &constants };
    let (mut frozen, mut trained) = (0, 0);
    let names: Vec<&str> = host.weights.iter().map(|(name, _)| name.as_str()).chain(constants.names()).collect();
    for name in names {
        let node = program.artifact().graph().parameter_named(name).unwrap_or_else(|| panic!("no {name}"));
        let (shape, before) = source.parameter(name).unwrap_or_else(|| panic!("no {name}"));
        let mut after = vec![0.0f32; shape.len()];
        program.read(node, TensorMut::F32(&mut after)).unwrap_or_else(|e| panic!("{e}"));
        if name.starts_with("ae.") {
            trained += usize::from(bits(&after) != bits(&before));
        } else {
            assert_eq!(bits(&after), bits(&before), "{name} is frozen");
            frozen += 1;
        }
    }
    assert_eq!((frozen, trained), (10, if stepped { 10 } else { 0 }));
}

fn hash(weights: &[(String, Tensor)]) -> String {
    let mut all = Weights::new("trained");
    weights.iter().for_each(|(name, tensor)| all.insert(name, tensor.clone()));
    all.hash()
}

/// Hash of the kept weights, and the position with its history.
fn finished(outcome: Outcome) -> (String, Position) {
    match outcome {
        Outcome::Done { weights, position } => (hash(&weights), position),
        Outcome::Interrupted(c) => panic!("interrupted at {:?}", c.position),
    }
}

fn interrupted(outcome: Outcome) -> Checkpoint {
    match outcome {
        Outcome::Interrupted(checkpoint) => *checkpoint,
        Outcome::Done { position, .. } => panic!("done at {position:?}"),
    }
}

#[test]
fn the_same_seed_trains_the_same_bytes_on_1_and_2_threads_and_another_seed_others() {
    for kind in KINDS {
        for backend in backends() {
            let on = |threads, seed| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                pool.install(|| finished(leg(kind, seed, backend.as_ref(), None, u64::MAX)))
            };
            let first = on(1, 5);
            assert_eq!(first.1.history.len(), EPOCHS as usize);
            assert_eq!(on(1, 5), first, "{kind:?} again on {}", backend.name());
            if on_host_threads(&*backend) {
                assert_eq!(on(2, 5), first, "{kind:?} on two threads of {}", backend.name());
            }
            assert_ne!(on(1, 6).0, first.0, "{kind:?} on {}", backend.name());
        }
    }
}

#[test]
fn a_run_that_stops_after_any_step_and_goes_on_is_the_run_that_never_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("checkpoint.safetensors");
    // through the file, as the command line does
    let through_file = |checkpoint: Checkpoint| {
        checkpoint::save(&path, &checkpoint, "run").unwrap_or_else(|e| panic!("{e}"));
        checkpoint::load(&path, "run").unwrap_or_else(|e| panic!("{e}"))
    };
    for (kind, backend) in KINDS.iter().flat_map(|&kind| backends().into_iter().map(move |b| (kind, b))) {
        let straight = finished(leg(kind, 5, backend.as_ref(), None, u64::MAX));
        for stop in 0..EPOCHS * BATCHES {
            let at = through_file(interrupted(leg(kind, 5, backend.as_ref(), None, stop)));
            assert_eq!(at.position.epoch * BATCHES + at.position.batch, stop);
            let resumed = finished(leg(kind, 5, backend.as_ref(), Some(at), u64::MAX));
            let what = format!("{kind:?} stopped after {stop} on {}", backend.name());
            if backend.name() == Reference.name() {
                // its weights are f64, a checkpoint's f32: rounded once, at the stop
                let [a, b] = [&resumed, &straight].map(|r| r.1.best.expect("three epochs").0);
                assert!((a - b).abs() <= 1e-6 * b, "{what}: {a} and {b}");
            } else {
                assert_eq!(resumed, straight, "{what}");
            }
        }
    }
}

#[test]
fn a_run_that_stops_after_every_step_is_the_run_that_never_stopped() {
    let backend = Cpu::new();
    for kind in KINDS {
        let straight = finished(leg(kind, 5, &backend, None, u64::MAX));
        let mut at = None;
        for stop in 1..EPOCHS * BATCHES {
            at = Some(interrupted(leg(kind, 5, &backend, at, stop)));
        }
        assert_eq!(finished(leg(kind, 5, &backend, at, u64::MAX)), straight, "{kind:?}");
    }
}
