//! What is timed: a network, and an autoencoder where one is needed, on a device, with images, ready to run the job again and
//! again.

use super::inference::Inference;
use super::{Args, IMAGES_MAX, Job};
use crate::attack::{Attacked, Targets, victim};
use crate::backend::Layered;
use crate::causal::intervention::NodeSet;
use crate::causal::sweep::{Batch, Subject, Sweep};
use crate::cli::common::Context;
use crate::cli::study;
use crate::error::Error;
use crate::model::autoencoder::{Autoencoder, HIDDEN};
use crate::model::{Model, Tap};
use crate::random::Stream;
use crate::tensor::{Shape, Tensor, TensorMut, TensorRef};
use crate::train::autoencoder::{Objective, Trainer};
use crate::train::classifier::Classifier;
use crate::train::{Fit, Schedule, Settings};

use crate::weights::safetensors::{Elements, TensorFile};
use crate::weights::{Part, PrefixIs, Weights};
use std::path::Path;

/// Images of a classifier's training step, and of an autoencoder's in a large network.
const TRAIN_BATCH: usize = 100;
const LEARNING_RATE: f64 = 1e-3;
/// Of an FGSM step.
const EPS: f32 = 0.3;

/// A job on its inputs.
pub struct Work {
    /// The network's name.
    pub arch: &'static str,
    /// Number of the tap.
    pub tap: usize,
    /// Images of a run.
    pub images: usize,
    /// Nodes of the autoencoder.
    pub nodes: usize,
    /// Share of a sweep's variants that were run: those of a node that is 0 on an image are not, and a reader of the time must
    /// know how many were.
    pub live_share: Option<f64>,
    inputs: Inputs,
    classes: usize,
    loaded: Loaded,
    /// Steps of a training so far.
    steps: u64,
}

/// A job's network as the device has it.
enum Loaded {
    Sweep(Sweep),
    Forward(Inference),
    Attack(victim::Alone),
    Classifier(Classifier),
    Autoencoder(Trainer),
}

/// What a run came to: effects (images x nodes), logits, an adversary's pixels, or a step's loss.
pub struct Outcome {
    /// Its shape.
    pub shape: Shape,
    /// Its numbers.
    pub values: Elements<'static>,
}

/// Images and labels.
pub struct Inputs {
    /// Images x channels x height x width, in [0, 1].
    pub x: Tensor,
    /// A class each.
    pub labels: Vec<u32>,
}

impl Inputs {
    /// Noise, with labels as random.
    pub fn noise(model: &Model, images: usize, seed: u64) -> Inputs {
        let stream = Stream::new(seed, "bench");
        let [c, h, w] = model.input;
        let x = Tensor::from_fn(Shape::from([images, c, h, w]), |i| stream.uniform(1, i as u32));
        let labels = (0..images).map(|i| stream.below(2, i as u32, model.classes as u32)).collect();
        Inputs { x, labels }
    }

    /// Those of a file.
    fn open(path: &Path, model: &Model) -> Result<Inputs, Error> {
        let bad = |reason: &str| Error::Input { path: path.into(), reason: reason.into() };
        let file = TensorFile::open(path)?;
        let shape = file.shape("x").cloned().ok_or_else(|| bad("it has no tensor x"))?;
        let (Some(Elements::F32(x)), Some(Elements::I64(labels))) = (file.elements("x")?, file.elements("labels")?)
        else {
            return Err(bad("it needs x of 32-bit floats and labels of 64-bit integers"));
        };
        match shape.dims() {
            &[n, c, _, _] if c == model.input[0] && n == labels.len() && (1..=IMAGES_MAX).contains(&n) => {}
            _ => {
                return Err(bad(&format!(
                    "x of {shape} with {} labels is not what {} takes",
                    labels.len(),
                    model.arch
                )));
            }
        }
        let class = |&label: &i64| u32::try_from(label).ok().filter(|&label| (label as usize) < model.classes);
        let labels = labels.iter().map(class).collect::<Option<_>>().ok_or_else(|| bad("a label is no class"))?;
        let x = Tensor::new(shape, x.into_owned()).ok_or_else(|| bad("x has not the elements of its shape"))?;
        Ok(Inputs { x, labels })
    }

    /// As a file.
    ///
    /// # Errors
    /// [`Error::Weights`] when it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let labels: Vec<i64> = self.labels.iter().map(|&label| i64::from(label)).collect();
        let count = Shape::from([labels.len()]);
        let tensors =
            [("x", self.x.shape(), Elements::from(self.x.data())), ("labels", &count, Elements::I64(labels.into()))];
        Ok(crate::weights::safetensors::write(path, &tensors, &Default::default())?)
    }
}

/// The tap that a network's jobs are about where none is named.
fn usual_tap(arch: &str) -> &'static str {
    match arch {
        "fashion" => "2",
        "densenet121" => "8",
        _ => "13",
    }
}

fn usual_images(job: Job, arch: &str) -> usize {
    match (job, arch) {
        (Job::Start, _) => 1,
        (Job::Train, _) => TRAIN_BATCH,
        (_, "fashion") => 256,
        _ => 2,
    }
}

/// Fresh weights of a network and of an autoencoder in it. Speed does not depend on them, except that a node of zeros is
/// skipped, which a peer's sweep does not do: a bias of 1 on the code keeps every node alive, so that both do the same work.
pub fn fresh(model: &Model, autoencoder: &Autoencoder, seed: u64) -> Weights {
    let mut weights = Weights::of("fresh weights", model.initial_weights(seed));
    let mut ae = autoencoder.initial_weights(seed);
    for (_, bias) in ae.iter_mut().filter(|(name, _)| name == "ae.code.bias") {
        bias.data_mut().fill(1.0);
    }
    weights.absorb(Weights::of("fresh weights", ae));
    weights
}

/// The network of the flags, for images of a size.
///
/// # Errors
/// [`Error::Model`].
pub fn model(name: &str, size: Option<usize>) -> Result<Model, Error> {
    let model = Model::named(name)?;
    Ok(match size {
        Some(side) => model.with_input(side, side)?,
        None => model,
    })
}

impl Work {
    /// Loads what the flags say.
    ///
    /// # Errors
    /// [`Error`]: a network, tap or file that there is not, or the device's.
    pub fn new(args: &Args, context: &Context) -> Result<Work, Error> {
        let mut model = model(&args.model, args.size)?;
        let inputs = match &args.inputs {
            Some(path) => Inputs::open(path, &model)?,
            None => {
                let images = args.images.unwrap_or(usual_images(args.job, model.arch));
                Inputs::noise(&model, images, args.common.seed)
            }
        };
        if let &[_, _, height, width] = inputs.x.shape().dims() {
            model = model.with_input(height, width)?;
        }
        let tap = model.tap(args.tap.as_deref().unwrap_or(usual_tap(model.arch)))?;
        let mut autoencoder = Autoencoder::at(&tap, HIDDEN, args.nodes);
        let (host, ae) = match &args.weights {
            None if args.job == Job::Start => {
                return Err(Error::Usage(
                    "`bench start` reads its weights from the disk: name them with --weights".into(),
                ));
            }
            None => {
                let mut host = fresh(&model, &autoencoder, args.common.seed);
                let ae = host.take_prefix("ae.", PrefixIs::Kept);
                (host, ae)
            }
            Some(path) => {
                let mut host = Weights::open(path)?;
                let mut ae = host.take_prefix("ae.", PrefixIs::Kept);
                if matches!(args.job, Job::Sweep | Job::TrainAe) {
                    let shape_of = |name: &str| ae.get(name).map(|t| t.shape);
                    autoencoder = Autoencoder::from_shapes(&tap, shape_of).unwrap_or(autoencoder);
                    ae = ae.fit(&autoencoder.parameters(), Part::Whole)?;
                }
                (host.fit(&model.parameters(), Part::Whole)?, ae)
            }
        };
        let images = inputs.labels.len();
        let loaded = Loaded::new(args, (&model, &tap, &autoencoder), [&host, &ae], images, context)?;
        let (arch, tap, nodes, classes) = (model.arch, tap.number, autoencoder.nodes, model.classes);
        Ok(Work { arch, tap, images, nodes, live_share: None, inputs, classes, loaded, steps: 0 })
    }

    /// Runs the job once.
    ///
    /// # Errors
    /// The device's.
    pub fn run(&mut self) -> Result<Outcome, Error> {
        let (images, x, labels) = (self.images, self.inputs.x.data(), &self.inputs.labels);
        let floats = |shape, values: Vec<f32>| Outcome { shape, values: Elements::F32(values.into()) };
        self.steps += 1;
        match &mut self.loaded {
            Loaded::Sweep(sweep) => {
                let effects = sweep.effects(x)?;
                let live = effects.live.iter().filter(|live| **live).count();
                self.live_share = Some(live as f64 / effects.live.len() as f64);
                Ok(floats(Shape::from([images, self.nodes]), effects.weighted))
            }
            Loaded::Forward(inference) => Ok(floats(Shape::from([images, self.classes]), inference.run(x)?)),
            Loaded::Attack(alone) => {
                let adversarial = alone.victim().fgsm(x, Targets::Classes(labels), EPS)?;
                Ok(floats(self.inputs.x.shape().clone(), adversarial))
            }
            Loaded::Classifier(classifier) => {
                let nodes = classifier.nodes();
                let mut fit = classifier.fit(&settings(images), images);
                nodes.write(fit.program, TensorRef::F32(x), labels)?;
                stepped(&mut fit, self.steps)
            }
            Loaded::Autoencoder(trainer) => {
                let nodes = trainer.nodes();
                let mut fit = trainer.fit(&settings(images), images);
                nodes.write(fit.program, TensorRef::F32(x))?;
                stepped(&mut fit, self.steps)
            }
        }
    }
}

fn settings(images: usize) -> Settings {
    Settings { learning_rate: LEARNING_RATE, schedule: Schedule::Constant, epochs: 1, batch: images, seed: 0 }
}

/// One step, and the loss in front of it.
fn stepped(fit: &mut Fit<'_>, step: u64) -> Result<Outcome, Error> {
    fit.step_once(step, LEARNING_RATE)?;
    let mut loss = vec![f64::NAN];
    if let Some((_, node)) = fit.losses.first() {
        fit.program.read(*node, TensorMut::F64(&mut loss))?;
    }
    Ok(Outcome { shape: Shape::from([1]), values: Elements::F64(loss.into()) })
}

impl Loaded {
    fn new(
        args: &Args,
        (model, tap, autoencoder): (&Model, &Tap, &Autoencoder),
        [host, ae]: [&Weights; 2],
        images: usize,
        context: &Context,
    ) -> Result<Loaded, Error> {
        let backend = context.backend();
        let both = Layered(&[host, ae]);
        let alone = || -> Result<victim::Alone, Error> {
            let subject = victim::Subject { model, insert: None, weights: host };
            let most = match study::checked_batch(&args.batch)? {
                None => subject.rows(backend)?,
                Some(rows) => rows,
            };
            victim::Alone::load(subject, most.min(images), backend).map_err(Error::from)
        };
        match args.job {
            Job::Sweep => {
                let weights = &both;
                let subject = Subject { model, tap, autoencoder, weights, attacked: Attacked::Host };
                let k = autoencoder.nodes;
                let sets: Vec<NodeSet> = (0..k).map(|n| NodeSet::of(&[n], k)).collect::<Result<_, _>>()?;
                let most = study::batch(&args.batch, subject, k, context)?;
                // no room for images that there are not
                let batch = Batch { images: most.images.min(images), variants: most.variants.min(images * k) };
                Ok(Loaded::Sweep(Sweep::new(subject, &sets, batch, backend)?))
            }
            Job::Attack => Ok(Loaded::Attack(alone()?)),
            Job::Train => {
                let mut classifier = Classifier::new(model, host, backend, images)?;
                classifier.without_dropout()?;
                Ok(Loaded::Classifier(classifier))
            }
            Job::TrainAe => {
                let objective = Objective::default();
                Ok(Loaded::Autoencoder(Trainer::new(model, tap, autoencoder, &both, backend, images, objective)?))
            }
            // the other two have no network of their own
            Job::Forward | Job::Start | Job::Kernels | Job::Compare => {
                let batch = study::checked_batch(&args.batch)?;
                Ok(Loaded::Forward(Inference::load(model, host, images, batch, backend)?))
            }
        }
    }
}
