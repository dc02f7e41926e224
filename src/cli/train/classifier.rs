//! `train`: a network, or its head behind a frozen trunk, on classes or findings. Also the first phase of
//! `reproduce --retrain`.

use super::{CHECKPOINT, FitArgs, Live, Run, planned, splits, what};
use crate::backend::Layered;
use crate::cli::common::{self, Common, Context, Cost, DataArgs};
use crate::cli::subject::{self, Sets, Start};
use crate::cli::{inspect, ui};
use crate::error::Error;
use crate::model::Head;
use crate::report::evaluation::{self as tables, Beside};
use crate::report::run::{Manifest, RunDirectory};
use crate::train::Settings;
use crate::train::classifier::{self, Classifier, Findings, Loss, Scope, Task, Views};
use crate::train::evaluation::{Evaluation, Found, mean_area};
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
pub struct Judged {
    /// Mean loss, nats.
    pub loss: f64,
    /// Right answers, or areas.
    pub found: Found,
}

impl Judged {
    /// For the manifest.
    fn results(&self) -> Value {
        match &self.found {
            Found::Classes(right) => json!({ "test_accuracy": right.value(), "test_loss": self.loss }),
            Found::Findings(findings) => {
                let areas: Vec<Option<f64>> = findings.iter().map(|f| f.auroc.area).collect();
                json!({ "test_mean_auroc": mean_area(findings), "test_auroc": areas, "test_loss": self.loss })
            }
        }
    }

    /// For `--json`.
    fn json(&self) -> Value {
        let found = tables::json(&self.found);
        match &self.found {
            Found::Classes(_) => {
                let mut out = found;
                out["loss"] = json!(self.loss);
                out
            }
            Found::Findings(findings) => {
                let areas: Vec<Option<f64>> = findings.iter().map(|f| f.auroc.area).collect();
                json!({ "auroc": areas, "mean_auroc": mean_area(findings), "loss": self.loss, "findings": found })
            }
        }
    }

    /// In words: a line of classes, a table of findings.
    pub fn describe(&self) -> String {
        let found = tables::describe(&self.found, Beside::Nothing);
        match &self.found {
            Found::Classes(_) => format!("test {}, loss {:.4}", found.trim_end(), self.loss),
            Found::Findings(_) => format!("{found}test loss {:.4}", self.loss),
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
        let mut out = trained.test.json();
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
    // what judges the weights is a network in memory of its own
    drop(feeder);
    drop(job);
    let whole = classifier::complete(&model, &best, &initial)?;
    let mut weights = Weights::of(&format!("{}.safetensors", config.model), whole);
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
    let (loss, answers) = kept.answers(&sets.test)?;
    let evaluation = Evaluation::new(Some(kept.answers(&validation)?.1), answers)?;
    if evaluation.validation.is_none() {
        let warning = "no images are named to test on, so those that validate are tested, by which the best epoch was chosen; no \
                       thresholds are, for they would be judged by what chose them";
        context.ui.warn(warning);
        run.manifest.warnings.push(warning.into());
    }
    let (path, run_id) = (|name: &str| run.directory.path(name), &run.manifest.run_id);
    tables::predictions(&path("predictions.csv"), run_id, &evaluation)?;
    if let Found::Findings(findings) = &evaluation.found {
        tables::auc(&path("auc.csv"), run_id, findings, Beside::Nothing)?;
    }
    let test = Judged { loss, found: evaluation.found };
    let mut results = test.results();
    results["best"] = json!(position.best);
    let file = format!("{}.safetensors", config.model);
    let directory = run.finish(&weights, &file, &position, results, started.elapsed().as_secs_f64())?;
    Ok(TrainedClassifier { weights, test, directory })
}
