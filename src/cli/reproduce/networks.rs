//! `reproduce imagenet` and `reproduce chest`: Tables 4, and 1 and 2. For each network a host, at each of the paper's taps an
//! autoencoder and a study: runs of their own (`train`, `train-ae`, `ce`) inside the run's directory. Weights that nobody can
//! fetch are stood in for by published features with a head trained here, and every table says what it ran on.

use super::{Args, here, judgements, paper, phase, table};
use crate::cli::common::{self, Context, Cost};
use crate::cli::fetch::published_weights;
use crate::cli::study::{self, Config, Done, Loaded, Run};
use crate::cli::subject::{self, Sets};
use crate::cli::train::autoencoder::{AUTOENCODER_FILE, AutoencoderConfig, train_autoencoder};
use crate::cli::train::classifier::{ClassifierConfig, train_classifier};
use crate::cli::{inspect, ui};
use crate::data::{Dataset, imagenet};
use crate::error::Error;
use crate::model::autoencoder::{Autoencoder, HIDDEN, NODES};
use crate::model::{Head, Model};
use crate::report::evaluation::{self, Beside};
use crate::report::run::RunDirectory;
use crate::report::table::{Reproduced, reproduced};
use crate::train::autoencoder::Objective;
use crate::train::classifier::{Scope, Task};
use crate::train::evaluation::{Found, evaluate};
use crate::train::{Schedule, Settings};
use crate::weights::Weights;
use crate::weights::signature::looks_like;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// An experiment of the paper on large networks.
#[derive(Debug)]
pub struct Experiment {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What of the paper it is.
    title: &'static str,
    /// Its networks.
    networks: &'static [Network],
}

/// A network of an experiment.
#[derive(Debug)]
struct Network {
    arch: &'static str,
    /// The paper's rows.
    rows: &'static [paper::Row],
    /// Published features that can be fetched.
    features: Option<&'static str>,
    /// What whole weights answer with; of others only the features are taken.
    answers: Answers,
    /// Passes and learning rate of a head behind features.
    head: (u64, f64),
}

/// What the weights of a whole network answer with.
#[derive(Debug, PartialEq, Eq)]
enum Answers {
    /// A class each image, of any number of classes.
    Classes,
    /// So many findings.
    Findings(usize),
}

/// Table 4, and the VGG19 row of its text.
pub const IMAGENET: Experiment = Experiment {
    name: "imagenet",
    title: "Table 4 of the paper (ImageNet, VGG16) and its VGG19 row",
    networks: &[
        Network {
            arch: "vgg16",
            rows: &paper::VGG16,
            features: Some("vgg16-trunk"),
            answers: Answers::Classes,
            // two layers of 4096 learn from few photos in a few passes
            head: (3, 1e-4),
        },
        Network { arch: "vgg19", rows: &paper::VGG19, features: None, answers: Answers::Classes, head: (3, 1e-4) },
    ],
};

/// Tables 1 and 2.
pub const CHEST: Experiment = Experiment {
    name: "chest",
    title: "Tables 1 and 2 of the paper (ChestX-ray14, CheXNet)",
    networks: &[Network {
        arch: "densenet121",
        rows: &paper::CHEXNET,
        features: Some("densenet121-type"),
        answers: Answers::Findings(14),
        head: (10, 1e-3),
    }],
};

/// Passes over the training images for an autoencoder.
const EPOCHS: u64 = 4;
/// Images a training step.
const BATCH: usize = 8;

/// What decides the reproduction, as the manifest holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reproduction {
    experiment: String,
    weights: Vec<PathBuf>,
    ae: Vec<PathBuf>,
    taps: Vec<usize>,
    epochs: u64,
    head_epochs: Option<u64>,
    train_limit: Option<usize>,
    study: Config,
}

/// Where a network's weights come from.
struct Source {
    network: &'static Network,
    file: PathBuf,
    hash: String,
    /// Whether its head is taken too.
    whole: bool,
    told: String,
}

/// A host in memory.
struct Host {
    model: Model,
    weights: Weights,
    hash: String,
    /// Where they lie, as manifests have it: given, or below the run's directory.
    file: PathBuf,
    told: String,
}

/// What one tap gave; kept in the run directory, so that a resumed run has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tapped {
    arch: String,
    tap: usize,
    /// What it ran on.
    host: String,
    autoencoder: String,
    /// Why there are no effects, where there are none.
    shut: Option<String>,
    /// As it is printed.
    text: String,
    cells: Vec<Reproduced>,
    claims: Value,
}

/// `reproduce imagenet` and `reproduce chest`.
pub fn run(args: Args, context: &Context, experiment: &'static Experiment) -> Result<(), Error> {
    if args.retrain {
        return Err(Error::Usage(format!(
            "--retrain is for fashion: `reproduce {}` trains what it is not given",
            experiment.name
        )));
    }
    let (mut config, resume) = match &args.common.resume {
        Some(directory) => RunDirectory::resume_configured::<Reproduction>(directory, "reproduce")?,
        None => {
            let first = &experiment.networks[0];
            let study = args.study(first.arch, first.rows[0].tap, args.limit.unwrap_or(1));
            let config = Reproduction {
                experiment: args.experiment.clone(),
                weights: args.weights.clone(),
                ae: args.ae.clone(),
                taps: args.taps.clone(),
                epochs: args.epochs.unwrap_or(EPOCHS),
                head_epochs: args.head_epochs,
                train_limit: args.train_limit.map(|n| n as usize),
                study,
            };
            (config, None)
        }
    };
    if config.experiment != experiment.name {
        return Err(Error::Usage(format!("that run is of `reproduce {}`: name it with --resume", config.experiment)));
    }
    if config.study.data.data.is_none() {
        let what = if experiment.name == CHEST.name {
            "NIH ChestX-ray14, or X-rays laid out like it"
        } else {
            "photos: a directory a class (ImageNet's validation set, say)"
        };
        return Err(Error::Usage(format!("`reproduce {}` needs images: --data PATH with {what}", experiment.name)));
    }
    check_taps(experiment, &config.taps)?;
    let (sources, absent) = sources(experiment, &config, context)?;
    if sources.iter().all(|s| taps(s.network, &config.taps).is_empty()) {
        let reason =
            if absent.is_empty() { "--taps names none of the networks whose weights are given" } else { &absent[0] };
        return Err(Error::Usage(format!("nothing to do: {reason}")));
    }
    if args.common.dry_run {
        return dry_run(experiment, &args, &config, &sources, context);
    }
    common::check_out(args.common.out.as_deref())?;
    let mut hashes = BTreeMap::new();
    let mut seen = Vec::new();
    for source in &sources {
        hashes.insert(source.network.arch.to_string(), source.hash.clone());
        let sets = sets(source, &config.study, context)?;
        hashes.insert("data".into(), sets.training.hash()?);
        hashes.insert("test data".into(), sets.studied.hash()?);
        if resume.is_none() {
            config.study.inputs = args.inputs.inputs(studied(source, &sets, &config)?.len());
        }
        seen.push(sets);
    }
    for (i, file) in config.ae.iter().enumerate() {
        hashes.insert(format!("autoencoder {i}"), Weights::open(file)?.hash());
    }
    let mut manifest = context.manifest("reproduce", json!(config), hashes);
    let directory = study::open_directory(args.common.out.clone(), resume, &manifest)?;
    let (mut all, mut worth) = (Vec::new(), String::new());
    let work =
        Work { run_id: &manifest.run_id, config: &config, batch: args.gate.batch(), directory: &directory, context };
    for (source, sets) in sources.iter().zip(&seen) {
        let host = work.host(source, sets)?;
        worth += &work.worth(source, &host, sets)?;
        for tap in taps(source.network, &config.taps) {
            all.push(work.at_tap(source, &host, tap, sets)?);
        }
    }
    let text = report(experiment, &worth, &all, &absent);
    let cells: Vec<&Reproduced> = all.iter().flat_map(|t| &t.cells).collect();
    reproduced(&directory.path("table.csv"), &cells, &manifest.run_id)?;
    crate::atomic::write_atomic(&directory.path("report.txt"), |f| f.write_all(text.as_bytes()))?;
    manifest.results.insert("taps".into(), json!(all));
    manifest.warnings = absent;
    let finished = directory.finish(&manifest)?;
    if context.json {
        let out = json!({ "schema_version": crate::report::run::SCHEMA_VERSION, "run_id": manifest.run_id, "run": finished,
            "warnings": manifest.warnings, "taps": all });
        ui::print(&format!("{out}\n"))?;
    } else {
        ui::print(&format!("{text}run {}\n", finished.display()))?;
    }
    let shut: Vec<String> = all.iter().filter(|t| t.shut.is_some()).map(|t| format!("{} {}", t.arch, t.tap)).collect();
    match shut.len() {
        0 => Ok(()),
        n => Err(Error::Gate(format!(
            "{n} of {} taps have no effects, as their autoencoder does not follow its host well enough: {}",
            all.len(),
            shut.join(", ")
        ))),
    }
}

/// The paper's taps of a network, those that are asked for.
fn taps(network: &Network, only: &[usize]) -> Vec<usize> {
    let mut taps: Vec<usize> = network.rows.iter().map(|row| row.tap).collect();
    taps.dedup();
    taps.retain(|tap| only.is_empty() || only.contains(tap));
    taps
}

fn check_taps(experiment: &Experiment, only: &[usize]) -> Result<(), Error> {
    let known: Vec<usize> = experiment.networks.iter().flat_map(|n| taps(n, &[])).collect();
    match only.iter().find(|tap| !known.contains(tap)) {
        None => Ok(()),
        Some(tap) => {
            let known: Vec<String> = known.iter().map(usize::to_string).collect();
            Err(Error::Usage(format!("--taps {tap}: the paper's are {}; `ce` measures at any other", known.join(", "))))
        }
    }
}

/// Weights of every network that can be had, and what is said of those that cannot.
fn sources(
    experiment: &'static Experiment,
    config: &Reproduction,
    context: &Context,
) -> Result<(Vec<Source>, Vec<String>), Error> {
    let mut sources: Vec<Source> = Vec::new();
    for file in &config.weights {
        let weights = Weights::open(file)?;
        let known = looks_like(&weights);
        let network = known.as_ref().and_then(|k| experiment.networks.iter().find(|n| n.arch == k.arch));
        let (Some(known), Some(network)) = (&known, network) else {
            let its = known.map_or("weights of no network that is known here".into(), |k| k.to_string());
            let wanted: Vec<&str> = experiment.networks.iter().map(|n| n.arch).collect();
            let reason = format!("holds {its}; `reproduce {}` is about {}", experiment.name, wanted.join(" and "));
            return Err(Error::Input { path: file.clone(), reason });
        };
        if let Some(other) = sources.iter().find(|s| s.network.arch == network.arch) {
            return Err(Error::Usage(format!(
                "{} and {} both hold weights of {}: one of them is enough",
                other.file.display(),
                file.display(),
                network.arch
            )));
        }
        let whole = match (&network.answers, known.classes) {
            (Answers::Classes, classes) => classes.is_some(),
            (Answers::Findings(n), classes) => classes == Some(*n),
        };
        let told = format!("{} ({known})", file.display());
        sources.push(Source { network, file: file.clone(), hash: weights.hash(), whole, told });
    }
    let mut absent = Vec::new();
    // who brings weights of one network asks about that one
    for network in experiment.networks.iter().filter(|_| config.weights.is_empty()) {
        if taps(network, &config.taps).is_empty() {
            continue;
        }
        let Some(name) = network.features else {
            absent.push(format!(
                "{}: not run, for no published weights of it can be had by a command; bring some with --weights FILE",
                network.arch
            ));
            continue;
        };
        let (weights, file) = published_weights(name, context.ui)?;
        sources.push(Source {
            network,
            file,
            hash: weights.hash(),
            whole: false,
            told: format!("published features ({name})"),
        });
    }
    Ok((sources, absent))
}

/// Images for a network: of the classes that its head has, or is to learn.
fn sets(source: &Source, study: &Config, context: &Context) -> Result<Sets, Error> {
    let model = subject::network(source.network.arch, &study.data)?;
    if source.whole {
        let (model, _) = whole(source, study, context)?;
        return subject::data(&study.data, &model, context);
    }
    let sets = subject::labelled(&study.data, &model, context)?;
    let findings = matches!(sets.training.targets(), crate::data::Labels::Findings(_));
    match source.network.answers {
        Answers::Findings(_) if !findings => Err(Error::Usage(
            "a head for findings learns from images with findings: NIH's layout, or a table with the column `findings`"
                .into(),
        )),
        Answers::Classes if findings => {
            Err(Error::Usage("a head for classes learns from images with one class each; these have findings".into()))
        }
        Answers::Findings(_) => Ok(sets),
        Answers::Classes => match imagenet::groups(sets.training.classes()) {
            // a thousand classes are not learnt from a few photos of each; the three that are told apart here are
            Some(groups) if !groups.is_empty() => {
                context.ui.log(format!("classes: ImageNet's, as {}", imagenet::GROUPS.join(", ")));
                sets.grouped(&groups, &imagenet::GROUPS)
            }
            _ => Ok(sets),
        },
    }
}

/// What effects are measured on: nothing that anything here was trained on.
fn studied(source: &Source, sets: &Sets, config: &Reproduction) -> Result<Dataset, Error> {
    let wanted = taps(source.network, &config.taps).len();
    let trained = !source.whole || config.ae.len() < wanted;
    study::first_images(if trained { &sets.test } else { &sets.studied }, config.study.limit)
}

/// A host whose weights are given whole.
fn whole(source: &Source, study: &Config, context: &Context) -> Result<(Model, Weights), Error> {
    let (mut model, weights) = subject::host(source.network.arch, Some(&source.file), &study.data, context)?;
    if let (Answers::Findings(_), false) = (&source.network.answers, weights.metadata.contains_key("head")) {
        model.head = Head::Sigmoid;
    }
    Ok((model, weights))
}

fn settings(config: &Reproduction, epochs: u64, learning_rate: f64) -> Settings {
    Settings { learning_rate, schedule: Schedule::Cosine, epochs, batch: BATCH, seed: config.study.seed }
}

/// The training of a head behind the source's features.
fn head_training(source: &Source, config: &Reproduction) -> ClassifierConfig {
    let (epochs, rate) = source.network.head;
    ClassifierConfig {
        model: source.network.arch.into(),
        weights: Some(source.file.clone()),
        task: Task { scope: Scope::Head, ..Task::default() },
        settings: settings(config, config.head_epochs.unwrap_or(epochs), rate),
        limit: config.train_limit,
        data: config.study.data.clone(),
    }
}

/// The first few names.
fn some_of(names: &[String]) -> String {
    let shown = names.iter().take(4).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 4 { format!("{shown}, ...") } else { shown }
}

/// The file of the autoencoder that somebody brought for a tap of a host.
fn brought<'a>(config: &'a Reproduction, arch: &str, tap: &str) -> Result<Option<&'a Path>, Error> {
    for file in &config.ae {
        let weights = Weights::open(file)?;
        let said = |key: &str| weights.metadata.get(key).map(String::as_str);
        let Some(at) = said("tap") else {
            let reason = "does not say at which tap it was trained; `ce --ae` takes it";
            return Err(Error::Input { path: file.clone(), reason: reason.into() });
        };
        if at == tap && said("arch").is_none_or(|a| a == arch) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// What every part of a run needs.
#[derive(Clone, Copy)]
struct Work<'a> {
    run_id: &'a str,
    config: &'a Reproduction,
    /// `--batch`.
    batch: &'a str,
    directory: &'a RunDirectory,
    context: &'a Context,
}

impl Work<'_> {
    /// The host: given, or features with a head that is trained here.
    fn host(&self, source: &Source, sets: &Sets) -> Result<Host, Error> {
        let Work { config, directory, context, .. } = *self;
        let arch = source.network.arch;
        if source.whole {
            let (model, weights) = whole(source, &config.study, context)?;
            let hash = weights.hash();
            return Ok(Host { model, weights, hash, file: source.file.clone(), told: source.told.clone() });
        }
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
        let told = format!("{}, a head of {answers} trained here on {} images", source.told, sets.split.train.len());
        let file = format!("{arch}-host/{arch}.safetensors").into();
        Ok(Host { model, weights, hash, file, told })
    }

    /// What a network of findings is worth on the test images, in words, and as `auc.csv` and `predictions.csv`; nothing for one of
    /// classes.
    fn worth(&self, source: &Source, host: &Host, sets: &Sets) -> Result<String, Error> {
        let Work { run_id, directory, context, .. } = *self;
        if source.network.answers == Answers::Classes {
            return Ok(String::new());
        }
        let kept = directory.path("auc.txt");
        if let Ok(text) = std::fs::read_to_string(&kept) {
            return Ok(text);
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
        let beside = if source.whole { Beside::Published } else { Beside::Nothing };
        if let Found::Findings(findings) = &found.found {
            evaluation::auc(&directory.path("auc.csv"), run_id, findings, beside)?;
        }
        evaluation::predictions(&directory.path("predictions.csv"), run_id, &found)?;
        let text = format!("{}: {}\n{}", source.network.arch, host.told, evaluation::describe(&found.found, beside));
        crate::atomic::write_atomic(&kept, |f| f.write_all(text.as_bytes()))?;
        Ok(text)
    }

    /// Autoencoder, gate and study at one tap.
    fn at_tap(&self, source: &Source, host: &Host, number: usize, sets: &Sets) -> Result<Tapped, Error> {
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
        let (file, recorded, told) = match brought(config, arch, &tap.name)? {
            Some(file) => (file.to_path_buf(), file.to_path_buf(), file.display().to_string()),
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
                let images = config.train_limit.unwrap_or(usize::MAX).min(sets.split.train.len());
                let recorded = Path::new(&name("autoencoder")).join(AUTOENCODER_FILE);
                (file, recorded, format!("trained here, {} passes over {images} images", config.epochs))
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
        let images = studied(source, sets, config)?;
        let asked = Config {
            model: arch.into(),
            weights: Some(host.file.clone()),
            ae: Some(recorded),
            tap: number.to_string(),
            ..config.study.clone()
        };
        let batch = loaded.batch(&asked, batch, context)?;
        let head =
            format!("{arch}, tap {number} ({})\n  host: {}\n  autoencoder: {told}\n", loaded.tap.name, host.told);
        let mut tapped = Tapped {
            arch: arch.into(),
            tap: number,
            host: host.told.clone(),
            autoencoder: told,
            shut: None,
            text: head,
            cells: Vec::new(),
            claims: Value::Null,
        };
        match study::gate(context, &asked, &loaded, &images, batch) {
            Err(Error::Gate(reason)) => {
                let _ = writeln!(tapped.text, "  no effects: {reason}");
                tapped.shut = Some(reason);
            }
            Err(e) => return Err(e),
            Ok(agreement) => {
                let (path, resume) = phase(directory, &name("effects"), "ce")?;
                let manifest = context.manifest("ce", json!(asked), study::hashes(&loaded, &images)?);
                let own = study::open_directory(Some(path), resume, &manifest)?;
                let run = Run { batch, directory: own, manifest, agreement, part: "test" };
                let done = study::execute(context, &asked, &loaded, &images, run).map_err(|e| here(e, directory))?;
                let judged = judgements(&done, &asked, loaded.model.head)?;
                tapped.text += "\n";
                tapped.text += &table(&done, number, source.network.rows);
                tapped.text += "\n";
                tapped.text += &done.notes();
                judged.iter().for_each(|j| tapped.text += &format!("\n{j}\n"));
                tapped.claims = json!(judged);
                tapped.cells = cells(&done, &tapped, source.network.rows);
            }
        }
        let bytes = serde_json::to_vec_pretty(&tapped).map_err(|e| Error::Failed(e.to_string()))?;
        crate::atomic::write_atomic(&kept, |f| f.write_all(&bytes))?;
        Ok(tapped)
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
        settings: settings(config, config.epochs, 1e-3),
        limit: config.train_limit,
        data: config.study.data.clone(),
    }
}

/// Rows of `table.csv`.
fn cells(done: &Done, tapped: &Tapped, rows: &[paper::Row]) -> Vec<Reproduced> {
    let mut cells = Vec::new();
    for (s, set) in done.sets.iter().enumerate() {
        let printed = rows.iter().find(|r| r.tap == tapped.tap && set.len() == 1 && set.contains(r.node));
        for (k, input) in done.columns.inputs.iter().enumerate() {
            let Some(row) = done.row(s, k) else { continue };
            cells.push(Reproduced {
                arch: tapped.arch.clone(),
                tap: tapped.tap,
                node: crate::causal::named_nodes(set).to_string(),
                input: input.name().into(),
                mean: row.summary.mean,
                ci_lo: row.interval.map(|i| i.lo),
                ci_hi: row.interval.map(|i| i.hi),
                images: row.summary.n,
                paper: printed.and_then(|p| p.under(input)),
                remark: done.remark(s).into(),
                host: tapped.host.clone(),
                autoencoder: tapped.autoencoder.clone(),
            });
        }
    }
    cells
}

/// Every table with what it ran on, and what is missing.
fn report(experiment: &Experiment, worth: &str, all: &[Tapped], absent: &[String]) -> String {
    let mut text = format!("{}: expected causal effect of setting node N to 0\n", experiment.title);
    if !worth.is_empty() {
        let _ = write!(text, "\n{worth}");
    }
    for tapped in all {
        let _ = write!(text, "\n{}", tapped.text);
    }
    let _ = writeln!(
        text,
        "\nThe paper's rows are of its own autoencoders, on one image or a few. Node numbers do not carry over between autoencoders,\n\
         so its rows stand here for their sign and size, not as a target."
    );
    if experiment.name == CHEST.name {
        text += "Its Table 2 has BIM, JSMA and PGD too, which are not measured here.\n";
    }
    absent.iter().for_each(|line| text += &format!("{line}\n"));
    text
}

/// What the run would take, timed with these networks on this device.
fn dry_run(
    experiment: &Experiment,
    args: &Args,
    config: &Reproduction,
    sources: &[Source],
    context: &Context,
) -> Result<(), Error> {
    let (mut flop, mut seconds, mut speed) = (0.0, 0.0, f64::INFINITY);
    let mut parts = Vec::new();
    for source in sources {
        let arch = source.network.arch;
        let sets = sets(source, &config.study, context)?;
        let training = config.train_limit.unwrap_or(usize::MAX).min(sets.split.train.len()) as f64;
        let images = studied(source, &sets, config)?.len();
        let (model, weights) = if source.whole {
            whole(source, &config.study, context)?
        } else {
            let start = subject::start(arch, Some(&source.file), &sets, context)?;
            let mut weights = Weights::new(arch);
            let fresh = start.model.initial_weights(config.study.seed);
            fresh.into_iter().for_each(|(name, tensor)| weights.insert(name, tensor));
            weights.absorb(start.weights);
            (start.model, weights)
        };
        let host_hash = weights.hash();
        let mut trained = 0.0;
        if !source.whole {
            let epochs = head_training(source, config).settings.epochs as f64;
            let (all, features) = (inspect::macs(&model, 0) as f64, children(&model));
            let head = inspect::macs(&model, features) as f64;
            trained += 2.0 * (all + 2.0 * head) * training * epochs;
            parts.push(format!("{arch}: a head"));
        }
        for number in taps(source.network, &config.taps) {
            let tap = model.tap(&number.to_string())?;
            let autoencoder = Autoencoder::at(&tap, HIDDEN, NODES);
            if brought(config, arch, &tap.name)?.is_none() {
                let (all, tail) = (inspect::macs(&model, 0) as f64, inspect::macs(&model, number) as f64);
                let per_image = all + 2.0 * tail + 3.0 * autoencoder.macs(&tap) as f64;
                trained += 2.0 * per_image * training * config.epochs as f64;
            }
            let mut ae = Weights::new("autoencoder");
            let fresh = autoencoder.initial_weights(config.study.seed);
            fresh.into_iter().for_each(|(name, tensor)| ae.insert(name, tensor));
            let asked = Config {
                model: arch.into(),
                tap: number.to_string(),
                inputs: args.inputs.inputs(images),
                ..config.study.clone()
            };
            let loaded = Loaded {
                model: model.clone(),
                tap,
                host: weights.clone(),
                host_hash: host_hash.clone(),
                autoencoder,
                ae,
            };
            let batch = loaded.batch(&asked, args.gate.batch(), context)?;
            let cost = study::cost(context, &asked, &loaded, images, batch)?;
            parts.push(format!("{arch} tap {number}: autoencoder, {}", cost.what));
            (flop, seconds, speed) = (flop + cost.flop, seconds + cost.seconds, speed.min(cost.flop_per_second));
        }
        if let Answers::Findings(_) = source.network.answers {
            let judged = sets.split.validation.len() + sets.test.len();
            trained += 2.0 * inspect::macs(&model, 0) as f64 * judged as f64;
        }
        if speed.is_finite() {
            (flop, seconds) = (flop + trained, seconds + trained / speed);
        }
    }
    let what = format!("reproduce {}\n  {}\nin all", experiment.name, parts.join("\n  "));
    ui::print(&Cost { what, flop, seconds, flop_per_second: speed }.told(context.json, ""))
}

/// Children of `features`.
fn children(model: &Model) -> usize {
    model.taps().last().map_or(0, |tap| tap.number)
}
