//! What `train` ([`classifier`]) and `train-ae` ([`autoencoder`]) share: flags of the optimiser, the run directory with its
//! checkpoints, which resume to the same bits, and a training's surroundings.

pub mod autoencoder;
pub mod classifier;

use super::common::{Context, DataArgs};
use super::subject::{self, Sets};
use super::ui;
use crate::backend::Program;
use crate::data::{Dataset, epoch_order};
use crate::error::Error;
use crate::model::Model;
use crate::report::run::{Manifest, RunDirectory, default_directory};
use crate::tensor::Tensor;
use crate::train::{
    Checkpoint, EpochRecord, Fit, Outcome, Position, Schedule, Settings, Surroundings, TrainError, checkpoint,
};
use crate::weights::Weights;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

/// No run needs more, and steps are then far from overflowing.
const EPOCHS_MAX: u64 = 1_000_000;
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

/// Training images that a dry run counts with. Nothing is fetched for one: without --data they are Fashion-MNIST's.
fn planned(data: &DataArgs, model: &Model, limit: Option<usize>, context: &Context) -> Result<f64, Error> {
    let all = match data.data {
        Some(_) => subject::labelled(data, model, context)?.split.train.len(),
        None => 55_000,
    };
    Ok(limit.unwrap_or(all).min(all) as f64)
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
            let reason = old.refusal(&manifest);
            return Err(Error::Input { path: directory.path("manifest.json"), reason });
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
        self.bar.step(done);
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

/// A training in words; `images` counts every pass.
fn what(settings: &Settings, images: f64) -> String {
    format!("{} epochs, {images} images in all, {} a step", settings.epochs, settings.batch)
}
