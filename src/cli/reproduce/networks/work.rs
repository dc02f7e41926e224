//! The parts of a reproduction, each a run of its own inside its directory: the host, what it is worth, and at each tap the
//! autoencoder and the study. A part that is finished is loaded, one that was interrupted goes on.

use super::{Answers, Brought, Reproduction, Source, Tapped, unseen};
use crate::causal::fill::Fill;
use crate::causal::mask::Region;
use crate::causal::named_nodes;
use crate::causal::study::Input;
use crate::cli::common::Context;
use crate::cli::gate::Agreement;
use crate::cli::reproduce::{here, paper, phase, table};
use crate::cli::study::{self, Config, Done, Loaded, Run};
use crate::cli::subject::{self, Sets};
use crate::cli::train::autoencoder::{AUTOENCODER_FILE, AutoencoderConfig, train_autoencoder};
use crate::cli::train::classifier::{ClassifierConfig, train_classifier};
use crate::data::Dataset;
use crate::error::Error;
use crate::model::autoencoder::{HIDDEN, NODES};
use crate::model::{Head, Model};
use crate::report::evaluation::{self, Beside};
use crate::report::run::RunDirectory;
use crate::report::table::{Cell, Site};
use crate::train::autoencoder::Objective;
use crate::train::classifier::{Scope, Task};
use crate::train::evaluation::{Found, evaluate};
use crate::train::{Schedule, Settings};
use crate::weights::Weights;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Images a training step.
pub(super) const BATCH: usize = 8;

/// What every part of a run needs.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub run_id: &'a str,
    pub config: &'a Reproduction,
    /// `--batch`.
    pub batch: &'a str,
    pub brought: &'a [Brought],
    pub directory: &'a RunDirectory,
    pub context: &'a Context,
}

/// A host in memory.
pub(super) struct Host {
    model: Model,
    weights: Weights,
    hash: String,
    /// Where they lie, as manifests have it: given, or below the run's directory.
    file: PathBuf,
    told: String,
}

impl Work<'_> {
    /// The host: given, or features with a head that is trained here.
    pub fn host(&self, source: &Source, sets: &Sets) -> Result<Host, Error> {
        let Work { config, directory, context, .. } = *self;
        if let Some((model, weights)) = &source.whole {
            let (model, weights, hash) = (model.clone(), weights.clone(), source.hash.clone());
            return Ok(Host { model, weights, hash, file: source.file.clone(), told: source.told.clone() });
        }
        let arch = source.network.arch;
        let (path, resume) = phase(directory, &format!("{arch}-host"), "train")?;
        let file = path.join(format!("{arch}.safetensors"));
        if !file.exists() {
            let trained = train_classifier(context, &head_training(source, config), sets, Some(path), resume)
                .map_err(|e| here(e, directory))?;
            context.ui.log(format!("{arch}: head trained: {}", trained.test.describe()));
        }
        let (model, weights) = subject::host(arch, Some(&file), &config.study.data, context)?;
        let hash = weights.hash();
        let answers = match model.head {
            Head::Softmax => format!("{} classes ({})", model.classes, some_of(sets.training.classes())),
            Head::Sigmoid => format!("{} findings", model.classes),
        };
        let told = format!("{}, a head of {answers} trained here on {} images", source.told, config.trained_on(sets));
        Ok(Host { model, weights, hash, file: format!("{arch}-host/{arch}.safetensors").into(), told })
    }

    /// What a network of findings is worth on the test images, in words, and as `auc.csv` and `predictions.csv`; nothing for
    /// one of classes.
    pub fn worth(&self, source: &Source, host: &Host, sets: &Sets) -> Result<String, Error> {
        let Work { run_id, directory, context, .. } = *self;
        if source.network.answers == Answers::Classes {
            return Ok(String::new());
        }
        // written last, so the tables are there where this is
        let kept = directory.path("auc.txt");
        if kept.exists() {
            return std::fs::read_to_string(&kept).map_err(|e| Error::Input {
                path: kept,
                reason: format!("{e}; remove it and resume, the network is then judged again"),
            });
        }
        let validation = sets.training.subset(&sets.split.validation)?;
        let images = validation.len() + sets.test.len();
        let mut bar = context.ui.progress("judging the network", images as u64);
        let backend = context.backend();
        let found = evaluate(&host.model, &host.weights, backend, Some(&validation), &sets.test, &mut |done| {
            bar.set(done as u64);
            !context.stopped()
        })?;
        bar.finish();
        let Some(found) = found else {
            return Err(Error::Interrupted { resume: directory.finished_path().into() });
        };
        // others report of a CheXNet what is to be compared with one
        let beside = if source.whole.is_some() { Beside::Published } else { Beside::Nothing };
        if let Found::Findings(findings) = &found.found {
            evaluation::auc(&directory.path("auc.csv"), run_id, findings, beside)?;
        }
        evaluation::predictions(&directory.path("predictions.csv"), run_id, &found)?;
        let text = format!("{}: {}\n{}", source.network.arch, host.told, evaluation::describe(&found.found, beside));
        crate::atomic::write_atomic(&kept, |f| f.write_all(text.as_bytes()))?;
        Ok(text)
    }

    /// Autoencoder, gate and study at one tap, on `images`, which tables call `part`.
    pub fn at_tap(
        &self,
        source: &Source,
        host: &Host,
        number: usize,
        sets: &Sets,
        (images, part): (&Dataset, &'static str),
    ) -> Result<Tapped, Error> {
        let Work { config, batch, directory, context, .. } = *self;
        let arch = source.network.arch;
        let name = |what: &str| format!("{arch}-tap{number}-{what}");
        let kept = directory.path(&name("result.json"));
        if kept.exists() {
            let damaged = |reason: String| Error::Input {
                path: kept.clone(),
                reason: format!("{reason}; remove it and resume, the tap is then measured again"),
            };
            let bytes = std::fs::read(&kept).map_err(|e| damaged(e.to_string()))?;
            return serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()));
        }
        let tap = host.model.tap(&number.to_string())?;
        context.ui.log(format!("{arch}, tap {number} ({})", tap.name));
        let (file, recorded, told) = match self.brought.iter().find(|ae| ae.is_for(arch, &tap.name)) {
            Some(ae) => (ae.file.clone(), ae.file.clone(), ae.file.display().to_string()),
            None => {
                let (path, resume) = phase(directory, &name("autoencoder"), "train-ae")?;
                let file = path.join(AUTOENCODER_FILE);
                if !file.exists() {
                    let ae = autoencoder_training(source, host, number, config);
                    let trained =
                        train_autoencoder(context, &ae, sets, (&host.model, &host.weights), Some(path), resume)
                            .map_err(|e| here(e, directory))?;
                    context.ui.log(format!(
                        "autoencoder: same answer as its host on {:.2} % of test images",
                        100.0 * trained.test.agreement
                    ));
                }
                let recorded = Path::new(&name("autoencoder")).join(AUTOENCODER_FILE);
                let passes = if config.epochs == 1 { "pass" } else { "passes" };
                let told = format!("trained here, {} {passes} over {} images", config.epochs, config.trained_on(sets));
                (file, recorded, told)
            }
        };
        let (autoencoder, ae) = subject::autoencoder(arch, &tap, &host.hash, Some(&file), context)?;
        let loaded = Loaded {
            model: host.model.clone(),
            tap,
            host: host.weights.clone(),
            host_hash: host.hash.clone(),
            autoencoder,
            ae,
        };
        // condition III is about findings
        let second_head = (source.network.answers != Answers::Classes).then_some(true);
        let asked = Config {
            second_head,
            model: arch.into(),
            weights: Some(host.file.clone()),
            ae: Some(recorded),
            tap: number.to_string(),
            ..config.study.clone()
        };
        let batch = loaded.batch(&asked, batch, context)?;
        let mut tapped = Tapped {
            text: format!("{arch}, tap {number} ({})\n  host: {}\n  autoencoder: {told}\n", loaded.tap.name, host.told),
            site: Site { arch: arch.into(), tap: number, host: host.told.clone(), autoencoder: told },
            shut: None,
            cells: Vec::new(),
            claims: Value::Null,
            conditions: Value::Null,
        };
        match loaded.gate(context, &asked, images, batch) {
            Err(Error::Gate(reason)) => {
                let _ = writeln!(tapped.text, "  no effects: {reason}");
                tapped.shut = Some(reason);
            }
            Err(e) => return Err(e),
            Ok(agreement) => {
                // a run that ended between the study's end and its result, below: the study's shards are there
                RunDirectory::reopen(&directory.path(&name("effects")))?;
                let learn = second_head.map(|_| study::learnt_from(&loaded, &sets.training, images)).transpose()?;
                let (path, resume) = phase(directory, &name("effects"), "ce")?;
                let manifest =
                    context.manifest("ce", json!(asked), study::hashes(&asked, &loaded, images, learn.as_ref())?);
                let own = study::open_directory(Some(path), resume, &manifest)?;
                let run = Run { batch, directory: own, manifest, agreement, part, learn };
                let done = study::execute(context, &asked, &loaded, images, run).map_err(|e| here(e, directory))?;
                let judged = &done.verdicts.claims;
                let _ = write!(tapped.text, "\n{}\n{}", table(&done, number, source.network.rows), done.notes());
                judged.iter().for_each(|j| tapped.text += &format!("\n{j}\n"));
                tapped.claims = json!(judged);
                tapped.cells = cells(&done, number, source.network.rows);
                tapped.conditions = json!({ "III": done.conditions.and_then(|c| c.multitask) });
                if second_head.is_some() {
                    let (text, found) = self.symptoms(
                        &name("symptoms"),
                        &asked,
                        &loaded,
                        unseen(source, sets, self.brought)?,
                        agreement,
                    )?;
                    tapped.text += &format!("\n{text}");
                    tapped.conditions["II"] = found;
                }
            }
        }
        let bytes = serde_json::to_vec_pretty(&tapped).map_err(|e| Error::Failed(e.to_string()))?;
        crate::atomic::write_atomic(&kept, |f| f.write_all(&bytes))?;
        Ok(tapped)
    }
}

impl Work<'_> {
    /// Condition II at a tap: a study of its own, on those of `images` that have a box, which is masked white as in the paper's code;
    /// in words, and as its run has it.
    fn symptoms(
        &self,
        name: &str,
        asked: &Config,
        loaded: &Loaded,
        (images, part): (&Dataset, &'static str),
        agreement: Agreement,
    ) -> Result<(String, Value), Error> {
        let Work { config, batch, directory, context, .. } = *self;
        let masked = |region, masks| Input::Pwm { masks, fill: Fill::Value(1.0), region };
        let asked = Config {
            // as many places beside the box as masks are drawn for anything else
            inputs: vec![masked(Region::Box(None), 1), masked(Region::OutsideBox(None), BESIDE)],
            second_head: None,
            limit: None,
            resamples: config.study.resamples,
            ..asked.clone()
        };
        let boxed = match study::images_of(images, &asked, context) {
            Ok(boxed) => boxed,
            Err(Error::Usage(_)) => {
                let text =
                    "Condition II (X <- Y), the known symptom masked: not measured, for no image here has a box.\n";
                return Ok((text.into(), Value::Null));
            }
            Err(e) => return Err(e),
        };
        RunDirectory::reopen(&directory.path(name))?;
        let (path, resume) = phase(directory, name, "ce")?;
        let manifest = context.manifest("ce", json!(asked), study::hashes(&asked, loaded, &boxed, None)?);
        let own = study::open_directory(Some(path), resume, &manifest)?;
        let batch = loaded.batch(&asked, batch, context)?;
        let run = Run { batch, directory: own, manifest, agreement, part, learn: None };
        let done = study::execute(context, &asked, loaded, &boxed, run).map_err(|e| here(e, directory))?;
        let symptoms = done.conditions.and_then(|c| c.symptoms);
        Ok((symptoms.as_ref().map_or(String::new(), |s| s.to_string()), json!(symptoms)))
    }
}

/// Places beside a box that are masked instead of it.
const BESIDE: u32 = 8;

impl Reproduction {
    /// Images that whatever is trained here learns from.
    pub(super) fn trained_on(&self, sets: &Sets) -> usize {
        self.train_limit.unwrap_or(usize::MAX).min(sets.split.train.len())
    }

    fn settings(&self, epochs: u64, learning_rate: f64) -> Settings {
        Settings { learning_rate, schedule: Schedule::Cosine, epochs, batch: BATCH, seed: self.study.seed }
    }
}

/// The training of a head behind the source's features.
pub(super) fn head_training(source: &Source, config: &Reproduction) -> ClassifierConfig {
    let (epochs, rate) = source.network.head;
    ClassifierConfig {
        model: source.network.arch.into(),
        weights: Some(source.file.clone()),
        task: Task { scope: Scope::Head, ..Task::default() },
        settings: config.settings(config.head_epochs.unwrap_or(epochs), rate),
        limit: config.train_limit,
        data: config.study.data.clone(),
    }
}

/// The training of an autoencoder at a tap.
fn autoencoder_training(source: &Source, host: &Host, tap: usize, config: &Reproduction) -> AutoencoderConfig {
    AutoencoderConfig {
        model: source.network.arch.into(),
        weights: Some(host.file.clone()),
        tap: tap.to_string(),
        code: NODES,
        hidden: HIDDEN,
        objective: Objective::default(),
        settings: config.settings(config.epochs, 1e-3),
        limit: config.train_limit,
        data: config.study.data.clone(),
    }
}

/// Rows of `table.csv`.
fn cells(done: &Done, tap: usize, rows: &[paper::Row]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (s, set) in done.sets.iter().enumerate() {
        let printed = rows.iter().find(|r| r.tap == tap && set.len() == 1 && set.contains(r.node));
        for (k, input) in done.columns.inputs.iter().enumerate() {
            let Some(row) = done.row(s, k) else { continue };
            cells.push(Cell {
                node: named_nodes(set).to_string(),
                input: input.name().into(),
                mean: row.summary.mean,
                ci_lo: row.interval.map(|i| i.lo),
                ci_hi: row.interval.map(|i| i.hi),
                images: row.summary.n,
                paper: printed.and_then(|p| p.under(input)),
                remark: done.remark(s).into(),
            });
        }
    }
    cells
}

/// The first few names.
fn some_of(names: &[String]) -> String {
    let shown = names.iter().take(4).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 4 { format!("{shown}, ...") } else { shown }
}
