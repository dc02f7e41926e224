//! Training of networks with batch norms and dropout, on every device: three steps of a small DenseNet against PyTorch's; a
//! frozen trunk; masks and views that do not depend on the batch; findings with class weights; stops and resumption. And of
//! autoencoders at taps of large values.

mod common;

use common::fixture::Golden;
use common::{Tol, backends, compare, cuda};
use intervene::backend::cpu::Cpu;
use intervene::backend::reference::Reference;
use intervene::backend::{Backend, Completed, Parameters, Program};
use intervene::data::image::Channels;
use intervene::data::transform::{Geometry, Transform};
use intervene::data::{Dataset, Policy, epoch_order, open};
use intervene::graph::op::{Averaging, Window};
use intervene::graph::plan::{Entry, EntryId, plan};
use intervene::graph::{Graph, NodeId};
use intervene::model::{Child, Head, Layer, Model};
use intervene::random::Stream;
use intervene::tensor::{Tensor, TensorMut, TensorRef};
use intervene::train::autoencoder::{self as ae, Objective, Trainer};
use intervene::train::classifier::{
    Classifier, Feeder, Findings, Loss, Nodes, Scope, Task, Views, complete, figures, finding_weights,
};
use intervene::train::evaluation::auroc::Lack;
use intervene::train::evaluation::{Found, evaluate};
use intervene::train::{
    Checkpoint, EpochRecord, Outcome, Position, Schedule, Settings, Surroundings, TrainError, checkpoint, unit,
};
use std::fmt::Display;
use std::io::Write;

fn e<T, E: Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|e| panic!("{e}"))
}

fn conv(channels: usize, kernel: usize) -> Layer {
    Layer::Conv { channels, kernel, window: Window { stride: 1, pad: kernel / 2 }, bias: false }
}

fn children(prefix: &str, layers: Vec<(&str, Layer)>) -> Vec<Child> {
    layers.into_iter().map(|(name, layer)| Child::new(format!("{prefix}.{name}"), layer)).collect()
}

const HALVES: Layer = Layer::AvgPool(Averaging::Windows { size: 2, stride: 2 });

/// The layers of a DenseNet, one of each kind: `Tiny` of the fixture's script.
fn tiny() -> Model {
    let dense = vec![
        ("norm1", Layer::BatchNorm),
        ("relu1", Layer::Relu),
        ("conv1", conv(8, 1)),
        ("norm2", Layer::BatchNorm),
        ("relu2", Layer::Relu),
        ("conv2", conv(4, 3)),
    ];
    let dense = Layer::Dense(children("features.denseblock1.denselayer1", dense));
    let transition = vec![("norm", Layer::BatchNorm), ("relu", Layer::Relu), ("conv", conv(5, 1)), ("pool", HALVES)];
    let features = vec![
        ("conv0", conv(6, 3)),
        ("norm0", Layer::BatchNorm),
        ("relu0", Layer::Relu),
        ("pool0", HALVES),
        ("denseblock1", Layer::Sequence(children("features.denseblock1", vec![("denselayer1", dense)]))),
        ("transition1", Layer::Sequence(children("features.transition1", transition))),
        ("norm5", Layer::BatchNorm),
    ];
    Model {
        arch: "tiny",
        input: [2, 8, 8],
        classes: 3,
        head: Head::Softmax,
        mean: vec![0.0; 2],
        std: vec![1.0; 2],
        features: children("features", features),
        classifier: vec![
            Child::new("relu", Layer::Relu),
            Child::new("pool", Layer::GlobalAvgPool),
            Child::new("classifier", Layer::Linear { features: 3 }),
        ],
    }
}

/// The same with a dropout in front of its last layer, for `classes` answers of a head.
fn dropping(classes: usize, head: Head) -> Model {
    let mut model = Model { head, ..e(tiny().with_classes(classes)) };
    let last = model.classifier.pop().expect("three layers");
    model.classifier.extend([Child::new("dropout", Layer::Dropout { share: 0.25 }), last]);
    model
}

fn read(program: &mut dyn Program, node: NodeId) -> Vec<f64> {
    let mut out = vec![0.0; program.artifact().graph().node(node).shape.len()];
    e(program.read(node, TensorMut::F64(&mut out)));
    out
}

fn weight(program: &mut dyn Program, key: &str) -> Vec<f64> {
    let node = program.artifact().graph().parameter_named(key).unwrap_or_else(|| panic!("no {key}"));
    read(program, node)
}

fn settings(epochs: u64, batch: usize, schedule: Schedule) -> Settings {
    Settings { learning_rate: 1e-3, schedule, epochs, batch, seed: 4 }
}

/// Answers of a network in inference, norms folded.
fn answers(model: &Model, weights: &dyn Parameters, backend: &dyn Backend, x: &[f64]) -> Vec<f64> {
    let mut g = Graph::new();
    let input = g.input("x", model.input);
    let normalised = e(model.normalise(&mut g, input));
    let logits = e(model.tail(&mut g, normalised, 0));
    let rows = x.len() / model.input.iter().product::<usize>();
    let entry = Entry { name: "answer", given: &[input], want: &[logits], updates: &[], capacity: rows };
    let derived = model.constants();
    let mut program = e(backend.load(e(plan(&g, &[entry])), &Completed { weights, derived: &derived }));
    e(program.write(input, TensorRef::F64(x)));
    e(program.run(EntryId(0), rows));
    let mut out = vec![0.0; rows * model.classes];
    e(program.read(logits, TensorMut::F64(&mut out)));
    out
}

/// In f64 the same arithmetic as PyTorch's, so to rounding. In f32 a gradient has an error of some 1e-6 of its tensor's
/// largest element; a step of Adam divides each element by its own size, so where that is a thousandth of the largest the step
/// of 1e-3 is wrong by 1e-3 of itself. Three steps: 3e-6 of all that a weight moves, and answers follow.
#[test]
fn a_small_densenet_and_three_steps_of_its_training_equal_pytorchs_on_every_device() {
    let golden = Golden::open();
    let model = tiny();
    let floats = |key: &str| golden.floats(&format!("dense-net/{key}")).1;
    let keys: Vec<String> = model.parameters().into_iter().map(|p| p.0).collect();
    let tensor = |(key, shape): (String, _)| {
        let data = floats(&format!("before/{key}")).iter().map(|&v| v as f32).collect();
        (key, Tensor::new(shape, data).expect("the fixture's shapes are the model's"))
    };
    let weights: Vec<(String, Tensor)> = model.parameters().into_iter().map(tensor).collect();
    let (x, labels) = (floats("x"), golden.integers("dense-net/target"));
    for backend in backends() {
        let exact = backend.name() == Reference.name();
        let (share, moved) = if exact { (1e-12, 1e-12) } else { (1e-6, 3e-6) };
        let mut job = e(Classifier::new(&model, &weights, backend.as_ref(), labels.len()));
        let nodes = job.nodes();
        let mut fit = job.fit(&settings(1, labels.len(), Schedule::Constant), labels.len());
        let mut worst = [0.0f64; 3];
        for (t, want) in (1..).zip(floats("losses")) {
            e(nodes.write(fit.program, TensorRef::F64(&x), &labels));
            e(fit.step_once(t, 1e-3));
            let loss = fit.losses[0].1;
            let got = read(fit.program, loss)[0];
            worst[0] = worst[0].max((got - want).abs() / want);
            assert!((got - want).abs() <= share * want, "loss {t} on {}: {got} for {want}", backend.name());
        }
        let mut after = Vec::new();
        for (key, (_, before)) in keys.iter().zip(&weights) {
            let (got, want) = (weight(fit.program, key), floats(&format!("after/{key}")));
            let statistic = key.contains(".running_");
            for (got, want) in got.iter().zip(&want) {
                // statistics are of the activations' size, weights move by thousandths
                let allowed = if statistic { share * want.abs().max(1.0) } else { moved };
                worst[1 + usize::from(statistic)] = worst[1 + usize::from(statistic)].max((got - want).abs());
                assert!((got - want).abs() <= allowed, "{key} on {}: {got} for {want}", backend.name());
            }
            let start = before.data().iter().map(|&v| f64::from(v));
            assert!(got.iter().zip(start).all(|(a, b)| *a != b), "{key} stayed on {}", backend.name());
            let f32s = got.iter().map(|&v| v as f32).collect();
            after.push((key.clone(), Tensor::new(before.shape().clone(), f32s).expect("as long as before")));
        }
        println!("{}: losses {:.1e}, weights {:.1e}, statistics {:.1e}", backend.name(), worst[0], worst[1], worst[2]);
        // weights pass through f32 here on every device
        let logits = answers(&model, &after, backend.as_ref(), &x);
        let found = compare(&logits, &floats("logits"), Tol::Close(2e-5));
        assert!(found.is_ok(), "answers on {}: {found:?}", backend.name());
    }
}

/// Images of noise with labels, or with findings where `folder` holds them.
fn images(model: &Model, n: usize) -> Dataset {
    let stream = Stream::new(9, "bytes");
    let pixels: usize = model.input.iter().product();
    let bytes = (0..(n * pixels) as u32).map(|i| stream.below(0, i, 256) as u8).collect();
    let labels = (0..n as u32).map(|i| stream.below(1, i, model.classes as u32)).collect();
    e(Dataset::new(bytes, labels, model.input, (0..model.classes).map(|c| c.to_string()).collect()))
}

/// Surroundings of a test: a feeder, validation data, a step to stop at.
struct Script<'a> {
    feeder: Feeder<'a>,
    nodes: Nodes,
    train: &'a Dataset,
    held_out: &'a Dataset,
    stop: u64,
    done: u64,
}

impl Surroundings for Script<'_> {
    fn feed(&mut self, program: &mut dyn Program, epoch: u64, which: &[u32]) -> Result<(), TrainError> {
        self.feeder.feed(program, epoch, which)
    }
    fn upcoming(&mut self, epoch: u64, which: &[u32]) {
        self.feeder.upcoming(epoch, which);
    }
    fn order(&mut self, epoch: u64) -> Vec<u32> {
        epoch_order(4, epoch, self.train.len() as u32)
    }
    fn validate(&mut self, program: &mut dyn Program) -> Result<Vec<(String, f64)>, TrainError> {
        figures(program, self.nodes, self.held_out)
    }
    fn progress(&mut self, done: u64, _: u64, losses: &[f64]) {
        assert!(losses[0].is_finite());
        self.done = done;
    }
    fn epoch_done(&mut self, _: &EpochRecord, _: &Checkpoint) -> Result<(), TrainError> {
        Ok(())
    }
    fn interrupted(&self) -> bool {
        self.done >= self.stop
    }
}

/// A run of `epochs` from the start or a checkpoint, up to `stop` steps in all.
fn leg(
    job: &mut Classifier,
    settings: &Settings,
    [train, held_out]: [&Dataset; 2],
    resume: Option<Checkpoint>,
    stop: u64,
) -> Outcome {
    let batches = (train.len() / settings.batch) as u64;
    let done = resume.as_ref().map_or(0, |c| c.position.epoch * batches + c.position.batch);
    let mut script =
        Script { feeder: job.feeder(train, settings.seed), nodes: job.nodes(), train, held_out, stop, done };
    e(job.fit(settings, train.len()).run(resume, &mut script))
}

fn finished(outcome: Outcome) -> (Vec<(String, Vec<u32>)>, Position) {
    let Outcome::Done { weights, position } = outcome else { panic!("interrupted") };
    let bits = |t: Tensor| t.data().iter().map(|v| v.to_bits()).collect();
    (weights.into_iter().map(|(key, tensor)| (key, bits(tensor))).collect(), position)
}

/// Invariant 7, and 25 of the method: weights and statistics behind which nothing learns.
#[test]
fn a_frozen_trunk_has_the_bits_it_was_loaded_with_statistics_of_norms_too() {
    let model = dropping(3, Head::Softmax);
    let (train, held_out) = (images(&model, 9), images(&model, 5));
    let mut weights = model.initial_weights(2);
    // norms that are no identities
    for (key, tensor) in weights.iter_mut().filter(|(key, _)| key.contains(".running_")) {
        let stream = Stream::new(5, key);
        let low = if key.ends_with("var") { 0.5 } else { -0.75 };
        *tensor = Tensor::from_fn(tensor.shape().clone(), |i| low + stream.uniform(0, i as u32));
    }
    let task = Task { scope: Scope::Head, ..Task::default() };
    for backend in backends() {
        let mut job = e(Classifier::for_task(&model, &weights, backend.as_ref(), 4, task, &train));
        let outcome = leg(&mut job, &settings(2, 4, Schedule::Constant), [&train, &held_out], None, u64::MAX);
        let (kept, _) = finished(outcome);
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["classifier.weight", "classifier.bias"], "what learns on {}", backend.name());
        let constants = model.constants();
        let source = Completed { weights: &weights, derived: &constants };
        let mut frozen = 0;
        let fit_settings = settings(2, 4, Schedule::Constant);
        let program = job.fit(&fit_settings, 9).program;
        let parameters: Vec<NodeId> = program.artifact().parameters().collect();
        for node in parameters {
            let name = program.artifact().graph().node(node).name.clone();
            let (_, before) = source.parameter(&name).unwrap_or_else(|| panic!("no {name}"));
            let mut after = vec![0.0f32; before.len()];
            e(program.read(node, TensorMut::F32(&mut after)));
            let same = after.iter().zip(before.iter()).all(|(a, b)| a.to_bits() == b.to_bits());
            assert_eq!(same, !name.starts_with("classifier."), "{name} on {}", backend.name());
            frozen += usize::from(same);
        }
        // input.scale and .shift; conv0 and conv1 folded with their norms' shifts; conv2, the transition's; three norms alone
        assert_eq!(frozen, 2 + 4 + 2 + 6, "on {}", backend.name());
        let Outcome::Done { weights: trained, .. } = leg(&mut job, &fit_settings, [&train, &held_out], None, u64::MAX)
        else {
            panic!("interrupted");
        };
        let all = e(complete(&model, &trained, &weights));
        for ((key, tensor), (_, before)) in all.iter().zip(&weights) {
            assert_eq!(tensor == before, key.starts_with("features."), "{key}");
        }
    }
}

#[test]
fn masks_and_views_of_an_image_are_the_same_in_any_batch_and_others_in_another_epoch() {
    let model = dropping(3, Head::Softmax);
    let (train, weights) = (images(&model, 7), model.initial_weights(2));
    let task = Task { views: Views::CropsAndFlips, ..Task::default() };
    let mut job = e(Classifier::for_task(&model, &weights, &Cpu::new(), 4, task, &train));
    let feeder = job.feeder(&train, 4);
    let settings = settings(1, 4, Schedule::Constant);
    let program = job.fit(&settings, 7).program;
    let named = |program: &dyn Program, name: &str| {
        let found = program.artifact().graph().iter().find(|(_, n)| n.name == name).map(|(id, _)| id);
        found.unwrap_or_else(|| panic!("no {name}"))
    };
    let (mask, x) = (named(program, "dropout.mask"), named(program, "x"));
    let mut written = |epoch: u64, which: &[u32]| -> Vec<Vec<f32>> {
        e(feeder.feed(program, epoch, which));
        let mut rows = vec![Vec::new(); which.len()];
        for node in [mask, x] {
            let len = program.artifact().graph().node(node).shape.len();
            let mut out = vec![0.0f32; which.len() * len];
            e(program.read(node, TensorMut::F32(&mut out)));
            rows.iter_mut().zip(out.chunks_exact(len)).for_each(|(row, part)| row.extend(part));
        }
        rows
    };
    let together = written(1, &[5, 0, 3, 6]);
    for (row, image) in together.iter().zip([5, 0, 3, 6]) {
        assert_eq!(written(1, &[image])[0], *row);
        assert_ne!(written(2, &[image])[0], *row);
    }
    let three = written(1, &[1, 6, 5]);
    assert_eq!((&three[1], &three[2]), (&together[3], &together[0]));
    let plain = train.pixels(&[5]).map(|p| p.len());
    assert_eq!(together[0].len(), 5 + e(plain));
}

/// A data set of grey images with findings, from files.
fn x_rays(folder: &std::path::Path, n: usize, transform: Transform) -> Dataset {
    let stream = Stream::new(3, "x-rays");
    let mut table = String::from("path,findings\n");
    let file = |name: &str, pixels: Vec<u8>| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 8, 8);
        encoder.set_color(png::ColorType::Grayscale);
        e(e(encoder.write_header()).write_image_data(&pixels));
        e(std::fs::write(folder.join(name), bytes));
    };
    for i in 0..n as u32 {
        let findings = ["No Finding", "Mass", "Mass|Hernia", "Atelectasis"][i as usize % 4];
        let bright = if findings.contains("Mass") { 90 } else { 0 };
        let name = format!("{i:02}.png");
        file(&name, (0..64).map(|p| bright + stream.below(u64::from(i), p, 100) as u8).collect());
        table += &format!("{name},{findings}\n");
    }
    e(e(std::fs::File::create(folder.join("manifest.csv"))).write_all(table.as_bytes()));
    e(open(folder, transform, Policy::default())).data
}

#[test]
fn findings_are_learnt_with_weights_of_their_rarity_and_judged_by_their_areas() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = x_rays(folder.path(), 16, Transform { channels: Channels::Grey, geometry: Geometry::As([8, 8]) });
    let counts = e(finding_weights(&data, 14));
    assert_eq!(counts.shape().dims(), [2, 14]);
    let of = |name: &str| intervene::data::findings::number(name).expect("a finding");
    // 8 of 16 have a mass, 4 a hernia, none an edema: present ones count by who is without, absent ones by who is with
    for (name, present) in [("Mass", 0.5), ("Hernia", 0.25), ("Edema", 0.0)] {
        let k = of(name);
        assert_eq!([counts.data()[k], counts.data()[14 + k]], [present, 1.0 - present], "{name}");
    }
    let model = Model { input: [1, 8, 8], mean: vec![0.5], std: vec![0.25], ..dropping(14, Head::Sigmoid) };
    let weights = model.initial_weights(2);
    let settings = Settings { learning_rate: 1e-2, ..settings(6, 8, Schedule::PLATEAU) };
    let losses = |found: Findings, backend: &dyn Backend| {
        let task = Task { loss: Loss::BinaryCrossEntropy(found), ..Task::default() };
        let mut job = e(Classifier::for_task(&model, &weights, backend, 8, task, &data));
        let (_, position) = finished(leg(&mut job, &settings, [&data, &data], None, u64::MAX));
        let found = e(job.detect(&data));
        let known: Vec<usize> = (0..14).filter(|&k| found.auroc[k].is_some()).collect();
        assert_eq!(known, [of("Atelectasis"), of("Mass"), of("Hernia")], "the others are absent throughout");
        let last = position.history.last().expect("six epochs");
        assert_eq!((last.figure("loss"), last.figure("auroc")), (Some(found.loss), found.mean_auroc()));
        let mass = found.auroc[of("Mass")].expect("present and absent");
        assert!(mass > 0.9, "bright images have a mass: {mass} on {}", backend.name());
        let first = position.history[0].figure("loss").expect("a loss");
        assert!(found.loss < first, "{first} to {} on {}", found.loss, backend.name());
        [first, found.loss]
    };
    let (alike, balanced) = (losses(Findings::Alike, &Cpu::new()), losses(Findings::Balanced, &Cpu::new()));
    assert!(balanced[0] < 0.6 * alike[0], "weights are at most 1 and sum to 1: {balanced:?} and {alike:?}");
    // in f64 and in f32 alike, up to what rounding becomes in twelve steps
    let judge = losses(Findings::Balanced, &Reference);
    assert!((judge[1] - balanced[1]).abs() <= 1e-2 * judge[1], "{judge:?} and {balanced:?}");
}

#[test]
fn weights_that_are_brought_are_judged_as_those_that_were_trained() {
    let folders = [e(tempfile::tempdir()), e(tempfile::tempdir())];
    let transform = Transform { channels: Channels::Grey, geometry: Geometry::As([8, 8]) };
    let [validation, test] = [(0, 12), (1, 110)].map(|(i, n)| x_rays(folders[i].path(), n, transform));
    let model = Model { input: [1, 8, 8], mean: vec![0.5], std: vec![0.25], ..dropping(14, Head::Sigmoid) };
    let weights = model.initial_weights(2);
    let task = Task { loss: Loss::BinaryCrossEntropy(Findings::Alike), ..Task::default() };
    for backend in backends() {
        let mut job = e(Classifier::for_task(&model, &weights, backend.as_ref(), 4, task, &validation));
        let (loss, answers) = e(job.answers(&test));
        assert_eq!(loss, e(job.detect(&test)).loss);
        let mut told = Vec::new();
        let mut judged = |validation, most: usize| {
            told.clear();
            let go_on = &mut |done: usize| {
                told.push(done);
                told.len() < most
            };
            let found = e(evaluate(&model, &weights, backend.as_ref(), validation, &test, go_on));
            (found, told.clone())
        };
        // in runs of at most a hundred images, and stopped behind any
        assert_eq!(judged(Some(&validation), 9).1, [12, 112, 122]);
        assert!(judged(Some(&validation), 1).0.is_none() && judged(None, 1).0.is_none());
        let (Some(found), told) = judged(Some(&validation), 9) else { panic!("stopped") };
        assert_eq!(told.len(), 3);
        for i in 0..test.len() {
            // norms folded into the layers before them, or computed
            for (a, b) in found.test.probabilities(i).iter().zip(answers.probabilities(i)) {
                assert!((a - b).abs() <= 1e-5, "{a} and {b} on {}", backend.name());
            }
        }
        let Found::Findings(findings) = found.found else { panic!("of findings") };
        let mass = &findings[4];
        assert_eq!((mass.auroc.positives, mass.auroc.negatives, mass.auroc.patients), (55, 55, 110));
        // bright images have it, and these weights have brightness exactly the wrong way round
        assert_eq!((mass.auroc.area, mass.auroc.lack), (Some(0.0), Some(Lack::NoSpread)));
        let hernia = &findings[13];
        assert!(hernia.auroc.interval.is_some() && hernia.threshold.is_some(), "{hernia:?}");
    }
}

#[test]
fn a_run_with_norms_dropout_views_and_a_plateau_that_stops_anywhere_is_the_run_that_never_stopped() {
    let model = dropping(3, Head::Softmax);
    let (train, held_out) = (images(&model, 9), images(&model, 5));
    let weights = model.initial_weights(2);
    let task = Task { views: Views::CropsAndFlips, ..Task::default() };
    // a rate at which the validation loss rises soon
    let schedule = Schedule::Plateau { factor: 0.5, patience: 0 };
    let settings = Settings { learning_rate: 0.05, ..settings(4, 4, schedule) };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("checkpoint.safetensors");
    for backend in backends().iter().filter(|b| b.name() != Reference.name()) {
        let run = |resume, stop| {
            let mut job = e(Classifier::for_task(&model, &weights, backend.as_ref(), 4, task, &train));
            leg(&mut job, &settings, [&train, &held_out], resume, stop)
        };
        let straight = finished(run(None, u64::MAX));
        let losses: Vec<f64> = straight.1.history.iter().filter_map(|r| r.figure("loss")).collect();
        assert!(schedule.rate(1.0, 0, 1, losses.iter().copied()) < 1.0, "no plateau in {losses:?}");
        assert!(straight.0.iter().any(|(key, _)| key.ends_with(".running_var")), "statistics are kept");
        for stop in [1, 4, 7] {
            let Outcome::Interrupted(at) = run(None, stop) else { panic!("done") };
            e(checkpoint::save(&path, &at, "run"));
            let resumed = finished(run(Some(e(checkpoint::load(&path, "run"))), u64::MAX));
            assert_eq!(resumed, straight, "stopped after {stop} on {}", backend.name());
        }
    }
}

/// The paper's networks, VGG's hidden layers narrowed; one of the two VGGs, which differ in numbers of layers. At 64 x 64 the
/// last norms of DenseNet see 2 x 2 cells of an image.
fn papers(arch: &str, side: usize) -> Model {
    let mut model = e(e(Model::named(arch)).with_classes(14));
    for child in &mut model.classifier {
        if let Layer::Linear { features } = &mut child.layer
            && *features == 4096
        {
            *features = 24;
        }
    }
    e(Model { head: Head::Sigmoid, ..model }.with_input(side, side))
}

/// The first loss is a forward pass in f32; the second follows a step of Adam, which turns a rounding where a gradient is next
/// to nothing into a step of either sign.
#[test]
fn the_papers_networks_learn_whole_and_behind_a_frozen_trunk() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = [("vgg16", 32, Scope::Whole), ("densenet121", 64, Scope::Whole), ("densenet121", 64, Scope::Head)];
    for (arch, side, scope) in cases {
        let model = papers(arch, side);
        let geometry = Geometry::ShortSide { short: side, crop: side };
        let data = x_rays(folder.path(), 2, Transform { channels: Channels::Rgb, geometry });
        let weights = model.initial_weights(1);
        let task = Task { scope, loss: Loss::BinaryCrossEntropy(Findings::Alike), ..Task::default() };
        let run = |backend: &dyn Backend| {
            let start = std::time::Instant::now();
            let mut job = e(Classifier::for_task(&model, &weights, backend, 1, task, &data));
            let feeder = job.feeder(&data, 4);
            let mut fit = job.fit(&settings(1, 1, Schedule::Constant), 2);
            let mut step = |t| {
                e(feeder.feed(fit.program, 0, &[1]));
                e(fit.step_once(t, 1e-4));
                let loss = fit.losses[0].1;
                read(fit.program, loss)[0]
            };
            let losses = [step(1), step(2)];
            println!("{arch} {scope:?} on {}: {losses:?}, {:.1} s", backend.name(), start.elapsed().as_secs_f64());
            losses
        };
        let want = run(&Reference);
        assert!(want[1] < want[0], "{arch} {scope:?} learns: {want:?}");
        // a VGG has no layer that others have not, and takes a simulated GPU the longest
        let devices = [&Cpu::new() as &dyn Backend, &cuda()];
        for backend in devices.into_iter().take(if arch == "vgg16" { 1 } else { 2 }) {
            let got = run(backend);
            for (got, (want, share)) in got.iter().zip(want.iter().zip([1e-5, 1e-2])) {
                assert!((got - want).abs() <= share * want, "{arch} {scope:?} on {}: {got} for {want}", backend.name());
            }
        }
    }
}

#[test]
fn a_whole_network_learns_the_same_bytes_on_1_2_and_3_threads() {
    let model = dropping(3, Head::Softmax);
    let (train, held_out) = (images(&model, 17), images(&model, 5));
    let weights = model.initial_weights(2);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| {
            let mut job = e(Classifier::for_task(&model, &weights, &Cpu::new(), 17, Task::default(), &train));
            finished(leg(&mut job, &settings(3, 17, Schedule::Cosine), [&train, &held_out], None, u64::MAX))
        })
    };
    let one = on(1);
    assert_eq!(one.1.history.len(), 3);
    for threads in [2, 3] {
        assert_eq!(on(threads), one, "{threads} threads");
    }
}

#[test]
fn what_cannot_be_trained_is_refused_with_a_reason() {
    let model = dropping(3, Head::Softmax);
    let (train, weights) = (images(&model, 9), model.initial_weights(2));
    let refusal = |model: &Model, task: Task, batch: usize| {
        let job = Classifier::for_task(model, &weights, &Reference, batch, task, &train);
        job.map_or_else(|e| e.to_string(), |_| panic!("it was accepted"))
    };
    let findings = Task { loss: Loss::BinaryCrossEntropy(Findings::Alike), ..Task::default() };
    let text = refusal(&model, findings, 4);
    assert!(text.contains("sigmoid head") && text.contains("tiny has a softmax head"), "{text}");
    let balanced = Task { loss: Loss::BinaryCrossEntropy(Findings::Balanced), ..Task::default() };
    let text = refusal(&dropping(14, Head::Sigmoid), balanced, 4);
    assert!(text.contains("findings"), "{text}");
    // one value of a channel: a pool to one cell in front of a norm
    let mut single = tiny();
    single.features.insert(0, Child::new("features.one", Layer::AvgPool(Averaging::Adaptive { height: 1, width: 1 })));
    single.features.retain(|c| ["features.one", "features.conv0", "features.norm0"].contains(&c.name.as_str()));
    let text = refusal(&single, Task::default(), 1);
    assert!(text.contains("\"features.norm0\"") && text.contains("at least 2"), "{text}");
}

/// Surroundings of an autoencoder's training.
struct AtTap<'a> {
    nodes: ae::Nodes,
    images: &'a Dataset,
}

impl Surroundings for AtTap<'_> {
    fn feed(&mut self, program: &mut dyn Program, _: u64, which: &[u32]) -> Result<(), TrainError> {
        ae::feed(program, &self.nodes, self.images, which)
    }
    fn upcoming(&mut self, _: u64, _: &[u32]) {}
    fn order(&mut self, epoch: u64) -> Vec<u32> {
        epoch_order(4, epoch, self.images.len() as u32)
    }
    fn validate(&mut self, program: &mut dyn Program) -> Result<Vec<(String, f64)>, TrainError> {
        let quality = ae::evaluate(program, &self.nodes, self.images)?;
        Ok(vec![("loss".into(), quality.loss), ("shallow".into(), quality.shallow)])
    }
    fn progress(&mut self, _: u64, _: u64, losses: &[f64]) {
        assert!(losses.iter().all(|l| l.is_finite()));
    }
    fn epoch_done(&mut self, _: &EpochRecord, _: &Checkpoint) -> Result<(), TrainError> {
        Ok(())
    }
    fn interrupted(&self) -> bool {
        false
    }
}

/// A ReLU network whose tap is 2^k times as large and whose next layer undoes it answers the same to the bit. So its
/// autoencoder learns the same to the bit: its first weights are 2^-k times, its last 2^k times those of the other.
#[test]
fn an_autoencoder_learns_the_same_at_a_tap_of_large_values() {
    let model = e(Model::named("fashion"));
    let tap = e(model.tap("2"));
    let shape = intervene::model::autoencoder::Autoencoder::at(&tap, 8, 4);
    let data = images(&model, 24);
    let learn = |power: i32| {
        let mut host = model.initial_weights(3);
        for (name, tensor) in &mut host {
            let factor = match name.as_str() {
                "features.0.weight" | "features.0.bias" => 2f32.powi(power),
                "features.3.weight" => 2f32.powi(-power),
                _ => continue,
            };
            tensor.data_mut().iter_mut().for_each(|w| *w *= factor);
        }
        let backend = Cpu::new();
        let unit = e(unit::unit(&model, &tap, &host, &backend, &data));
        let both = [host, shape.initial_weights(5)].concat();
        let objective = Objective { unit, ..Objective::default() };
        let mut job = e(Trainer::new(&model, &tap, &shape, &both, &backend, 8, objective));
        let mut surroundings = AtTap { nodes: job.nodes(), images: &data };
        let outcome = e(job.fit(&settings(2, 8, Schedule::Constant), data.len()).run(None, &mut surroundings));
        let Outcome::Done { mut weights, position } = outcome else { panic!("interrupted") };
        unit::fold(&mut weights, unit);
        (unit, weights, position.history.last().map(|r| r.validation.clone()))
    };
    let ((small, first, figures), (large, second, same)) = (learn(5), learn(10));
    assert!(small > 1.0 && large == 32.0 * small, "{small} {large}");
    assert_eq!(figures, same, "losses are in units");
    let mut moved = 0;
    for ((name, a), (_, b)) in first.iter().zip(&second) {
        let factor = match name.as_str() {
            "ae.enc1.weight" => 1.0 / 32.0,
            "ae.dec2.weight" | "ae.dec2.bias" => 32.0,
            _ => 1.0,
        };
        assert!(a.data().iter().zip(b.data()).all(|(a, b)| a * factor == *b), "{name}");
        moved += usize::from(factor != 1.0);
    }
    assert_eq!(moved, 3);
    assert_eq!(learn(0).0, 1.0, "values of the usual size are taken as they are");
}
