//! `train`: a network, or its head behind a frozen trunk, on classes or findings. Also the first phase of
//! `reproduce --retrain`.

use super::{CHECKPOINT, FitArgs, Live, Run, planned, splits, what};
use crate::backend::Layered;
use crate::cli::common::{self, Common, Context, Cost, DataArgs};
use crate::cli::subject::{self, Sets, Start};
use crate::cli::{inspect, ui};
use crate::error::Error;
use crate::model::Head;
use crate::report::run::{Manifest, RunDirectory};
use crate::train::Settings;
use crate::train::classifier::{self, Accuracy, Classifier, Detection, Findings, Loss, Scope, Task, Views};
use crate::weights::Weights;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

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

/// Flags of `train`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
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

/// Epochs of the classifier: test accuracy no longer rises after them.
pub const CLASSIFIER_EPOCHS: u64 = 10;
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
pub fn run(args: Args) -> Result<(), Error> {
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
        let model = subject::network(&config.model, &config.data)?;
        let images = planned(&config.data, &model, config.limit, &context)? * config.settings.epochs as f64;
        let flop = 6.0 * inspect::macs(&model, 0) as f64 * images;
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
