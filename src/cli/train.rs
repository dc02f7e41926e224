//! `train` and `train-ae`: from data to a weights file, with checkpoints that resume to the same bits.

use super::common::{self, Common, Context, Cost, DataArgs};
use super::subject::{Sets, Start};
use super::{subject, ui};
use crate::backend::{Layered, Program};
use crate::data::{Dataset, epoch_order};
use crate::error::Error;
use crate::model::autoencoder::{Autoencoder, HIDDEN, NODES};
use crate::model::{Head, Model, Tap};
use crate::report::run::{Manifest, RunDirectory, default_directory};
use crate::tensor::Tensor;
use crate::train::autoencoder::{self as ae, Interpretability, LossWeights, Objective, Quality, Trainer};
use crate::train::classifier::{self, Accuracy, Classifier, Detection, Findings, Loss, Scope, Task, Views};
use crate::train::{
    Checkpoint, EpochRecord, Fit, Outcome, Position, Schedule, Settings, Surroundings, TrainError, checkpoint,
};
use crate::weights::Weights;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Learning rate course on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ScheduleArg {
    /// Cosine decay to 0
    Cosine,
    /// The paper's
    Constant,
    /// A tenth after more than 5 epochs without a lower validation loss: CheXNet's
    Plateau,
}

/// What learns, on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ScopeArg {
    /// Everything
    Whole,
    /// What follows `features`; those stay as --weights has them
    Head,
}

/// How findings count, on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FindingsArg {
    /// Each once
    Alike,
    /// Present ones by the share of images without them, absent ones by that with them: CheXNet's
    Balanced,
}

/// How training sees images, on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ViewsArg {
    /// As evaluation does
    Plain,
    /// Random parts at the whole size, mirrored half of the times
    CropsAndFlips,
}

/// Form of the interpretability loss on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FormArg {
    /// mean |z| + TV(z)
    Plain,
    /// The same over rms(z)
    ScaleFree,
}

/// Flags of the optimiser.
#[derive(Clone, Debug, clap::Args)]
struct FitArgs {
    /// Passes over the training images
    #[arg(long)]
    epochs: Option<u64>,
    /// Images a step; default: 100 for fashion, 8 for others
    #[arg(long)]
    batch: Option<usize>,
    /// Adam's learning rate
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Its course
    #[arg(long, value_enum, default_value = "cosine")]
    schedule: ScheduleArg,
    /// Train on the first N images of the training split only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl FitArgs {
    fn settings(&self, seed: u64, epochs: u64, arch: &str) -> Result<Settings, Error> {
        if self.batch == Some(0) || self.epochs == Some(0) || self.limit == Some(0) {
            return Err(Error::Usage("--batch, --epochs and --limit must be at least 1".into()));
        }
        if self.epochs > Some(EPOCHS_MAX) {
            return Err(Error::Usage(format!("--epochs: at most {EPOCHS_MAX}")));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return Err(Error::Usage(format!("--learning-rate {}: it must be above 0", self.learning_rate)));
        }
        Ok(Settings {
            learning_rate: self.learning_rate,
            schedule: match self.schedule {
                ScheduleArg::Cosine => Schedule::Cosine,
                ScheduleArg::Constant => Schedule::Constant,
                ScheduleArg::Plateau => Schedule::PLATEAU,
            },
            epochs: self.epochs.unwrap_or(epochs),
            batch: self.batch.unwrap_or(if arch == "fashion" { 100 } else { 8 }),
            seed,
        })
    }
}

/// Flags of `train`.
#[derive(Clone, Debug, clap::Args)]
pub struct ClassifierArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    data: DataArgs,
    /// Network; it answers with as many classes as the images have
    #[arg(long, default_value = "fashion")]
    model: String,
    /// Weights to begin with, of the whole network or of `features` alone; default: fresh ones
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// What learns
    #[arg(long, value_enum, default_value = "whole")]
    scope: ScopeArg,
    /// How present and absent findings count, where images have findings
    #[arg(long, value_enum, default_value = "alike")]
    findings: FindingsArg,
    /// How training sees images
    #[arg(long, value_enum, default_value = "plain")]
    views: ViewsArg,
    #[command(flatten)]
    fit: FitArgs,
}

/// Flags of `train-ae`.
#[derive(Clone, Debug, clap::Args)]
pub struct AutoencoderArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    data: DataArgs,
    /// Network
    #[arg(long, default_value = "fashion")]
    model: String,
    /// Its weights (safetensors, .pth, .pt or ONNX); default for fashion: the bundled ones
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Where it is spliced in: a number of children of `features`, or the last one's name
    #[arg(long, default_value = "2")]
    tap: String,
    /// Code channels: the nodes
    #[arg(long, default_value_t = NODES)]
    code: usize,
    /// Width of the hidden layers
    #[arg(long, default_value_t = HIDDEN)]
    hidden: usize,
    /// Form of the interpretability loss
    #[arg(long, value_enum, default_value = "plain")]
    interpretability: FormArg,
    /// Weights of the interpretability, shallow and deep losses
    #[arg(long, value_name = "LI,LS,LD", value_delimiter = ',', default_values_t = [0.1, 0.5, 0.4])]
    loss_weights: Vec<f64>,
    #[command(flatten)]
    fit: FitArgs,
}

/// No run needs more, and steps are then far from overflowing.
const EPOCHS_MAX: u64 = 1_000_000;
/// Widest hidden layers: beyond, the graph would not fit any memory.
const HIDDEN_MAX: usize = 4096;
/// Epochs of the classifier: test accuracy no longer rises after them.
pub const CLASSIFIER_EPOCHS: u64 = 10;
/// Epochs of the autoencoder.
pub const AUTOENCODER_EPOCHS: u64 = 4;

/// What decides a classifier's training, as the manifest holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClassifierConfig {
    /// Network.
    pub model: String,
    /// Weights to begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// What learns, from what.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub task: Task,
    /// Optimiser.
    pub settings: Settings,
    /// Training images used, from the first.
    pub limit: Option<usize>,
    /// Where images come from and how they are cut.
    #[serde(flatten)]
    pub data: DataArgs,
}

/// Left out of a configuration, so that runs keep their ids.
fn is_usual(task: &Task) -> bool {
    *task == Task::default()
}

/// What decides an autoencoder's training.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AutoencoderConfig {
    /// Network.
    pub model: String,
    /// Host weights; none means the bundled ones.
    pub weights: Option<PathBuf>,
    /// Tap.
    pub tap: String,
    /// Code channels.
    pub code: usize,
    /// Hidden width.
    pub hidden: usize,
    /// Losses.
    pub objective: Objective,
    /// Optimiser.
    pub settings: Settings,
    /// Training images used, from the first.
    pub limit: Option<usize>,
    /// Where images come from and how they are cut.
    #[serde(flatten)]
    pub data: DataArgs,
}

/// Training and validation images.
///
/// # Errors
/// [`Error::Usage`] when there is not one batch to train on.
fn splits(sets: &Sets, limit: Option<usize>, batch: usize) -> Result<(Dataset, Dataset), Error> {
    let Sets { training, split, .. } = sets;
    let used = limit.unwrap_or(split.train.len()).min(split.train.len());
    if used < batch {
        let whole = training.len();
        return Err(Error::Usage(format!(
            "{used} training images (of {whole}; the others validate or are beyond --limit) are fewer than one batch of {batch}; \
             more images or a smaller --batch are needed"
        )));
    }
    Ok((training.subset(&split.train[..used])?, training.subset(&split.validation)?))
}

/// A training run's directory and what it resumes from.
struct Run {
    directory: RunDirectory,
    manifest: Manifest,
    checkpoint: Option<Checkpoint>,
}

const CHECKPOINT: &str = "checkpoint.safetensors";

impl Run {
    fn open(
        context: &Context,
        verb: &str,
        out: Option<PathBuf>,
        resume: Option<(RunDirectory, Manifest)>,
        configuration: Value,
        hashes: BTreeMap<String, String>,
    ) -> Result<Run, Error> {
        let manifest = context.manifest(verb, configuration, hashes);
        let Some((directory, old)) = resume else {
            let finished = out.unwrap_or_else(|| default_directory(verb, &manifest.run_id));
            return Ok(Run { directory: RunDirectory::create(finished, &manifest)?, manifest, checkpoint: None });
        };
        let path = directory.path(CHECKPOINT);
        if old.run_id != manifest.run_id {
            let reason = "weights or data are not those the run was started with";
            return Err(Error::Input { path: directory.path("manifest.json"), reason: reason.into() });
        }
        let loaded = path.exists().then(|| checkpoint::load(&path, &manifest.run_id)).transpose();
        let checkpoint = loaded.map_err(|e| damaged(&path, &e))?;
        if let Some(c) = &checkpoint {
            context.ui.log(format!("resuming at epoch {}, batch {}", c.position.epoch + 1, c.position.batch + 1));
        }
        Ok(Run { directory, manifest, checkpoint })
    }

    /// Runs a job with this directory's checkpoints.
    fn fit(
        &mut self,
        context: &Context,
        fit: &mut Fit<'_>,
        live: &mut Live<'_>,
    ) -> Result<(Vec<(String, Tensor)>, Position), Error> {
        let path = self.directory.path(CHECKPOINT);
        let outcome = fit.run(self.checkpoint.take(), live).map_err(|e| match e {
            TrainError::Checkpoint(_) => damaged(&path, &e),
            TrainError::Diverged { .. } => Error::Failed(format!(
                "{e} with another --out ({}.partial keeps the epochs before; remove it when you do not need it)",
                self.directory.finished_path().display()
            )),
            TrainError::Save(reason) => Error::Failed(format!(
                "{reason}; then go on with `--resume {}`",
                self.directory.finished_path().display()
            )),
            other => other.into(),
        })?;
        match outcome {
            Outcome::Done { weights, position } => {
                live.bar.finish();
                Ok((weights, position))
            }
            Outcome::Interrupted(checkpoint) => {
                live.bar.finish();
                checkpoint::save(&self.directory.path(CHECKPOINT), &checkpoint, &self.manifest.run_id)?;
                context.ui.log(format!(
                    "saved at epoch {}, batch {}",
                    checkpoint.position.epoch + 1,
                    checkpoint.position.batch
                ));
                Err(Error::Interrupted { resume: self.directory.finished_path().into() })
            }
        }
    }

    /// Saves weights and history and ends the run.
    fn finish(
        mut self,
        weights: &Weights,
        file: &str,
        position: &Position,
        results: Value,
        seconds: f64,
    ) -> Result<PathBuf, Error> {
        weights.save(&self.directory.path(file))?;
        write_history(&self.directory, position)?;
        self.manifest.results = match results {
            Value::Object(map) => map,
            other => [("results".to_string(), other)].into_iter().collect(),
        };
        self.manifest.hashes.insert(file.into(), weights.hash());
        self.manifest.timing.insert("seconds".into(), json!(seconds));
        let checkpoint = self.directory.path(CHECKPOINT);
        if checkpoint.exists() {
            std::fs::remove_file(&checkpoint)
                .map_err(|e| Error::Failed(format!("{}: cannot be removed: {e}", checkpoint.display())))?;
        }
        self.directory.finish(&self.manifest)
    }
}

fn damaged(checkpoint: &Path, e: &TrainError) -> Error {
    let reason = format!("{e}; remove this file and resume, the run then starts at its first epoch");
    Error::Input { path: checkpoint.into(), reason }
}

fn write_history(directory: &RunDirectory, position: &Position) -> Result<(), Error> {
    let Some(first) = position.history.first() else { return Ok(()) };
    let mut text = String::from("epoch");
    first.train.iter().for_each(|(name, _)| text += &format!(",train_{name}"));
    first.validation.iter().for_each(|(name, _)| text += &format!(",validation_{name}"));
    text.push('\n');
    for record in &position.history {
        text += &record.epoch.to_string();
        record.train.iter().chain(&record.validation).for_each(|(_, v)| text += &format!(",{v}"));
        text.push('\n');
    }
    Ok(crate::atomic::write_atomic(&directory.path("history.csv"), |f| f.write_all(text.as_bytes()))?)
}

type Feed<'a> = Box<dyn FnMut(&mut dyn Program, u64, &[u32]) -> Result<(), TrainError> + 'a>;
type Upcoming<'a> = Box<dyn Fn(u64, &[u32]) + 'a>;
type Validate<'a> = Box<dyn FnMut(&mut dyn Program) -> Result<Vec<(String, f64)>, TrainError> + 'a>;

/// A training job's surroundings: this process, this directory, this terminal.
struct Live<'a> {
    context: &'a Context,
    directory: PathBuf,
    run_id: String,
    bar: ui::Progress,
    seed: u64,
    images: u32,
    upcoming: Upcoming<'a>,
    feed: Feed<'a>,
    validate: Validate<'a>,
}

impl Surroundings for Live<'_> {
    fn feed(&mut self, program: &mut dyn Program, epoch: u64, which: &[u32]) -> Result<(), TrainError> {
        (self.feed)(program, epoch, which)
    }

    fn order(&mut self, epoch: u64) -> Vec<u32> {
        epoch_order(self.seed, epoch, self.images)
    }

    fn upcoming(&mut self, epoch: u64, which: &[u32]) {
        (self.upcoming)(epoch, which);
    }

    fn validate(&mut self, program: &mut dyn Program) -> Result<Vec<(String, f64)>, TrainError> {
        (self.validate)(program)
    }

    fn progress(&mut self, done: u64, _: u64, _: &[f64]) {
        self.bar.set(done);
    }

    fn epoch_done(&mut self, record: &EpochRecord, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let figures: Vec<String> = record.validation.iter().map(|(n, v)| format!("{n} {v:.4}")).collect();
        let train: Vec<String> = record.train.iter().map(|(n, v)| format!("{n} {v:.4}")).collect();
        self.bar.log(&format!("epoch {}: train {}; validation {}", record.epoch, train.join(", "), figures.join(", ")));
        checkpoint::save(&self.directory, checkpoint, &self.run_id)
    }

    fn interrupted(&self) -> bool {
        self.context.stopped()
    }
}

/// What a trained classifier does on the test images.
#[derive(Clone, Debug)]
pub enum Judged {
    /// One class an image.
    Classes(Accuracy),
    /// Findings.
    Findings(Detection),
}

impl Judged {
    fn json(&self) -> Value {
        match self {
            Judged::Classes(a) => json!({ "test_accuracy": a.accuracy, "test_loss": a.loss }),
            Judged::Findings(d) => {
                json!({ "test_mean_auroc": d.mean_auroc(), "test_auroc": d.auroc, "test_loss": d.loss })
            }
        }
    }

    /// In words.
    pub fn describe(&self) -> String {
        match self {
            Judged::Classes(a) => format!("test accuracy {:.2} %, loss {:.4}", 100.0 * a.accuracy, a.loss),
            Judged::Findings(d) => {
                let mean = d.mean_auroc().map_or("unknown".into(), |m| format!("{m:.4}"));
                let known = d.auroc.iter().flatten().count();
                format!("test mean AUROC {mean} over {known} of {} findings, loss {:.4}", d.auroc.len(), d.loss)
            }
        }
    }
}

/// A trained classifier and where it was saved.
pub struct TrainedClassifier {
    /// Its weights, with metadata.
    pub weights: Weights,
    /// On the test images.
    pub test: Judged,
    /// The finished run.
    pub directory: PathBuf,
}

/// `train`.
pub fn classifier(args: ClassifierArgs) -> Result<(), Error> {
    let context = Context::new(&args.common)?;
    let (config, resume) = match &args.common.resume {
        None => {
            let balance = match args.findings {
                FindingsArg::Alike => Findings::Alike,
                FindingsArg::Balanced => Findings::Balanced,
            };
            let task = Task {
                scope: match args.scope {
                    ScopeArg::Whole => Scope::Whole,
                    ScopeArg::Head => Scope::Head,
                },
                // of findings, where the images turn out to have some
                loss: if balance == Findings::Alike { Loss::CrossEntropy } else { Loss::BinaryCrossEntropy(balance) },
                views: match args.views {
                    ViewsArg::Plain => Views::Plain,
                    ViewsArg::CropsAndFlips => Views::CropsAndFlips,
                },
            };
            if task.scope == Scope::Head && args.weights.is_none() {
                return Err(Error::Usage(
                    "--scope head trains what follows `features`: give those with --weights".into(),
                ));
            }
            let settings = args.fit.settings(args.common.seed, CLASSIFIER_EPOCHS, &args.model)?;
            let config = ClassifierConfig {
                model: args.model,
                weights: args.weights,
                task,
                settings,
                limit: args.fit.limit,
                data: args.data,
            };
            (config, None)
        }
        Some(directory) => RunDirectory::resume_configured(directory, "train")?,
    };
    if args.common.dry_run {
        let model = Model::named(&config.model)?;
        let images = config.limit.unwrap_or(55_000) as f64 * config.settings.epochs as f64;
        let flop = 6.0 * super::inspect::macs(&model, 0) as f64 * images;
        return ui::print(&Cost::untimed(what(&config.settings, images), flop).told(context.json, ""));
    }
    common::check_out(args.common.out.as_deref())?;
    let sets = subject::labelled(&config.data, &subject::network(&config.model, &config.data)?, &context)?;
    let trained = train_classifier(&context, &config, &sets, args.common.out, resume)?;
    let file = trained.directory.join(format!("{}.safetensors", config.model));
    if context.json {
        let mut out = match &trained.test {
            Judged::Classes(a) => json!({ "accuracy": a.accuracy, "loss": a.loss }),
            Judged::Findings(d) => json!({ "auroc": d.auroc, "mean_auroc": d.mean_auroc(), "loss": d.loss }),
        };
        (out["weights"], out["sha256"]) = (json!(file), json!(trained.weights.hash()));
        return ui::print(&format!("{out}\n"));
    }
    ui::print(&format!("{}\nweights {} (sha256 {})\n", trained.test.describe(), file.display(), trained.weights.hash()))
}

/// A training in words; `images` counts every pass.
fn what(settings: &Settings, images: f64) -> String {
    format!("{} epochs, {images} images in all, {} a step", settings.epochs, settings.batch)
}

/// Trains a classifier (also for `reproduce --retrain`).
///
/// # Errors
/// [`Error::Interrupted`] after a checkpoint, or what went wrong.
pub fn train_classifier(
    context: &Context,
    config: &ClassifierConfig,
    sets: &Sets,
    out: Option<PathBuf>,
    resume: Option<(RunDirectory, Manifest)>,
) -> Result<TrainedClassifier, Error> {
    let started = Instant::now();
    let (train, validation) = splits(sets, config.limit, config.settings.batch)?;
    let Start { model, weights: given } = subject::start(&config.model, config.weights.as_deref(), sets, context)?;
    let loss = match (model.head, config.task.loss) {
        (Head::Sigmoid, Loss::CrossEntropy) => Loss::BinaryCrossEntropy(Findings::Alike),
        (Head::Softmax, Loss::BinaryCrossEntropy(_)) => {
            let reason = "--findings balanced: these images have classes, not findings";
            return Err(Error::Usage(reason.into()));
        }
        (_, loss) => loss,
    };
    let task = Task { loss, ..config.task };
    let mut hashes = BTreeMap::from([
        ("data".to_string(), sets.training.hash()?),
        // its figures are in the results
        ("test data".to_string(), sets.test.hash()?),
    ]);
    if config.weights.is_some() {
        hashes.insert("weights to begin with".to_string(), given.hash());
    }
    let mut run = Run::open(context, "train", out, resume, json!(config), hashes)?;
    let fresh = model.initial_weights(config.settings.seed);
    let initial = Layered(&[&given, &fresh]);
    let batch = config.settings.batch;
    let mut job = Classifier::for_task(&model, &initial, context.backend(), batch, task, &train)?;
    let nodes = job.nodes();
    let feeder = job.feeder(&train, config.settings.seed);
    let steps = (train.len() / batch) as u64 * config.settings.epochs;
    let mut live = Live {
        context,
        directory: run.directory.path(CHECKPOINT),
        run_id: run.manifest.run_id.clone(),
        bar: context.ui.progress("training the classifier", steps),
        seed: config.settings.seed,
        images: train.len() as u32,
        upcoming: Box::new(|epoch, which| feeder.upcoming(epoch, which)),
        feed: Box::new(|program, epoch, which| feeder.feed(program, epoch, which)),
        validate: Box::new(|program| classifier::figures(program, nodes, &validation)),
    };
    let (best, position) = run.fit(context, &mut job.fit(&config.settings, train.len()), &mut live)?;
    drop(live);
    let mut weights = Weights::new(&format!("{}.safetensors", config.model));
    for (name, tensor) in classifier::complete(&model, &best, &initial)? {
        weights.insert(name, tensor);
    }
    let text = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    weights.metadata = BTreeMap::from([
        ("arch".into(), model.arch.into()),
        ("classes".into(), model.classes.to_string()),
        ("head".into(), model.head.to_string()),
        ("mean".into(), text(&model.mean)),
        ("std".into(), text(&model.std)),
        ("config_sha256".into(), run.manifest.run_id.clone()),
        ("trained_by".into(), format!("intervene {} train, seed {}", env!("CARGO_PKG_VERSION"), config.settings.seed)),
    ]);
    let mut kept = Classifier::for_task(&model, &weights, context.backend(), batch, task, &train)?;
    let test = match model.head {
        Head::Softmax => Judged::Classes(kept.evaluate(&sets.test)?),
        Head::Sigmoid => Judged::Findings(kept.detect(&sets.test)?),
    };
    let mut results = test.json();
    results["best"] = json!(position.best);
    let file = format!("{}.safetensors", config.model);
    let directory = run.finish(&weights, &file, &position, results, started.elapsed().as_secs_f64())?;
    Ok(TrainedClassifier { weights, test, directory })
}

/// A trained autoencoder and where it was saved.
pub struct TrainedAutoencoder {
    /// Its weights, with metadata.
    pub weights: Weights,
    /// On the test images.
    pub test: Quality,
    /// The finished run.
    pub directory: PathBuf,
}

/// `train-ae`.
pub fn autoencoder(args: AutoencoderArgs) -> Result<(), Error> {
    let context = Context::new(&args.common)?;
    let (config, resume) = match &args.common.resume {
        None => {
            let [interpretability, shallow, deep] = args.loss_weights[..] else {
                return Err(Error::Usage("--loss-weights takes three numbers: LI,LS,LD".into()));
            };
            if !args.loss_weights.iter().all(|w| *w >= 0.0 && w.is_finite()) {
                return Err(Error::Usage("--loss-weights: each must be a number from 0 on".into()));
            }
            if args.code == 0 || args.code > 64 || args.hidden == 0 || args.hidden > HIDDEN_MAX {
                return Err(Error::Usage(format!("--code takes 1 to 64 channels, --hidden 1 to {HIDDEN_MAX}")));
            }
            let form = match args.interpretability {
                FormArg::Plain => Interpretability::Plain,
                FormArg::ScaleFree => Interpretability::ScaleFree,
            };
            let settings = args.fit.settings(args.common.seed, AUTOENCODER_EPOCHS, &args.model)?;
            let config = AutoencoderConfig {
                model: args.model,
                weights: args.weights,
                tap: args.tap,
                code: args.code,
                hidden: args.hidden,
                objective: Objective { form, weights: LossWeights { interpretability, shallow, deep } },
                settings,
                limit: args.fit.limit,
                data: args.data,
            };
            (config, None)
        }
        Some(directory) => RunDirectory::resume_configured(directory, "train-ae")?,
    };
    let model = subject::network(&config.model, &config.data)?;
    let tap = model.tap(&config.tap)?;
    if args.common.dry_run {
        let ae = Autoencoder::at(&tap, config.hidden, config.code);
        let images = config.limit.unwrap_or(55_000) as f64 * config.settings.epochs as f64;
        let per_image = 3 * ae.macs(&tap) + 3 * super::inspect::macs(&model, tap.number);
        let flop = 2.0 * per_image as f64 * images;
        return ui::print(&Cost::untimed(what(&config.settings, images), flop).told(context.json, ""));
    }
    common::check_out(args.common.out.as_deref())?;
    let (model, host) = subject::host(&config.model, config.weights.as_deref(), &config.data, &context)?;
    let sets = subject::data(&config.data, &model, &context)?;
    let trained = train_autoencoder(&context, &config, &sets, (&model, &host), args.common.out, resume)?;
    let file = trained.directory.join(AUTOENCODER_FILE);
    if context.json {
        let out = json!({ "quality": trained.test, "weights": file, "sha256": trained.weights.hash() });
        return ui::print(&format!("{out}\n"));
    }
    ui::print(&format!("{}weights {} (sha256 {})\n", describe(&trained.test), file.display(), trained.weights.hash()))
}

/// Name of an autoencoder's weights in its run directory.
pub const AUTOENCODER_FILE: &str = "autoencoder.safetensors";

/// An autoencoder's quality in words.
pub fn describe(q: &Quality) -> String {
    let dead: Vec<String> = q.dead.iter().map(usize::to_string).collect();
    format!(
        "test images: same top-1 as the host {:.2} %, accuracy {:.2} % (host {:.2} %), KL {:.4}, relative L1 {:.3}\n\
         code: mean {:.4}, rms {:.4}, {} of {} channels dead{}{}\n",
        100.0 * q.agreement,
        100.0 * q.accuracy_ae,
        100.0 * q.accuracy_orig,
        q.deep,
        q.relative_l1,
        q.code_mean,
        q.code_rms,
        q.dead.len(),
        q.live_share.len(),
        if dead.is_empty() { "" } else { ": " },
        dead.join(" ")
    )
}

/// Trains an autoencoder (also for `reproduce --retrain`).
///
/// # Errors
/// [`Error::Interrupted`] after a checkpoint, or what went wrong.
pub fn train_autoencoder(
    context: &Context,
    config: &AutoencoderConfig,
    sets: &Sets,
    (model, host): (&Model, &Weights),
    out: Option<PathBuf>,
    resume: Option<(RunDirectory, Manifest)>,
) -> Result<TrainedAutoencoder, Error> {
    let started = Instant::now();
    let tap: Tap = model.tap(&config.tap)?;
    let shape = Autoencoder::at(&tap, config.hidden, config.code);
    let (train, validation) = splits(sets, config.limit, config.settings.batch)?;
    let hashes = BTreeMap::from([
        ("data".to_string(), sets.training.hash()?),
        ("test data".to_string(), sets.test.hash()?),
        ("host".to_string(), host.hash()),
    ]);
    let mut run = Run::open(context, "train-ae", out, resume, json!(config), hashes)?;
    let initial = shape.initial_weights(config.settings.seed);
    let both = Layered(&[host, &initial]);
    let batch = config.settings.batch;
    let mut job = Trainer::new(model, &tap, &shape, &both, context.backend(), batch, config.objective)?;
    let nodes = job.nodes();
    let steps = (train.len() / batch) as u64 * config.settings.epochs;
    let mut live = Live {
        context,
        directory: run.directory.path(CHECKPOINT),
        run_id: run.manifest.run_id.clone(),
        bar: context.ui.progress("training the autoencoder", steps),
        seed: config.settings.seed,
        images: train.len() as u32,
        upcoming: Box::new(|_, which| train.announce(which)),
        feed: Box::new(|program, _, which| ae::feed(program, &nodes, &train, which)),
        validate: Box::new(|program| {
            let q = ae::evaluate(program, &nodes, &validation)?;
            let [gi, gs, gd] = ae::gradient_norms(program, &nodes, &validation)?;
            let figures = [
                ("loss", q.loss),
                ("interpretability", q.interpretability),
                ("shallow", q.shallow),
                ("deep", q.deep),
                ("gradient_interpretability", gi),
                ("gradient_shallow", gs),
                ("gradient_deep", gd),
                ("agreement", q.agreement),
                ("code_mean", q.code_mean),
                ("code_rms", q.code_rms),
                ("dead", q.dead.len() as f64),
            ];
            Ok(figures.map(|(n, v)| (n.to_string(), v)).to_vec())
        }),
    };
    let (best, position) = run.fit(context, &mut job.fit(&config.settings, train.len()), &mut live)?;
    drop(live);
    let mut weights = Weights::new(AUTOENCODER_FILE);
    best.iter().for_each(|(name, tensor)| weights.insert(name.clone(), tensor.clone()));
    weights.metadata = BTreeMap::from([
        ("arch".into(), model.arch.into()),
        ("tap".into(), tap.name.clone()),
        ("host_sha256".into(), host.hash()),
        ("config_sha256".into(), run.manifest.run_id.clone()),
        (
            "trained_by".into(),
            format!("intervene {} train-ae, seed {}", env!("CARGO_PKG_VERSION"), config.settings.seed),
        ),
    ]);
    let both = Layered(&[host, &weights]);
    let mut kept = Trainer::new(model, &tap, &shape, &both, context.backend(), batch, config.objective)?;
    let test = kept.evaluate(&sets.test)?;
    let results = json!({ "test": test, "best": position.best });
    let seconds = started.elapsed().as_secs_f64();
    let directory = run.finish(&weights, AUTOENCODER_FILE, &position, results, seconds)?;
    Ok(TrainedAutoencoder { weights, test, directory })
}
