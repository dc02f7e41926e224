//! `reproduce imagenet` and `reproduce chest`: Tables 4, and 1 and 2. For each network a host, at each of the paper's taps an
//! autoencoder and a study: runs of their own (`train`, `train-ae`, `ce`) inside the run's directory. Weights that nobody can
//! fetch are stood in for by published features with a head trained here, and every table says what it ran on.

mod cost;
mod work;

use super::{Args, paper};
use crate::attack::Attack;
use crate::causal::study::Input;
use crate::cli::attacks::AttackArg;
use crate::cli::common::{self, Context};
use crate::cli::fetch::published_weights;
use crate::cli::study::{self, Config};
use crate::cli::subject::{self, Sets};
use crate::cli::ui;
use crate::data::{Dataset, Labels, imagenet};
use crate::error::Error;
use crate::model::{Head, Model};
use crate::report::run::{RunDirectory, SCHEMA_VERSION};
use crate::report::table::{Cell, Site, reproduced};
use crate::weights::Weights;
use crate::weights::signature::looks_like;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use work::Work;

/// An experiment of the paper on large networks.
#[derive(Debug)]
pub struct Experiment {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What of the paper it is.
    title: &'static str,
    /// Its networks.
    networks: &'static [Network],
    /// The attacks of its tables, where none is named.
    attacks: &'static [AttackArg],
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
    attacks: &[AttackArg::Fgsm],
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
    // Table 2 has jsma too: tens of thousands of gradients an image at this size, for whoever asks for it
    attacks: &[AttackArg::Fgsm, AttackArg::Bim, AttackArg::Pgd],
};

/// Passes over the training images for an autoencoder.
const EPOCHS: u64 = 4;
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

/// A network and what of it is there.
struct Source {
    network: &'static Network,
    file: PathBuf,
    hash: String,
    /// Model and weights, where the head is taken too; a head is trained behind the file's features where it is not.
    whole: Option<(Model, Weights)>,
    /// Which of the paper's taps are asked for.
    taps: Vec<usize>,
    told: String,
}

/// An autoencoder that somebody brought.
struct Brought {
    file: PathBuf,
    hash: String,
    arch: Option<String>,
    tap: String,
}

/// What one tap gave; kept in the run directory, so that a resumed run has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tapped {
    /// Where, and on what.
    site: Site,
    /// Why there are no effects, where there are none.
    shut: Option<String>,
    /// As it is printed.
    text: String,
    cells: Vec<Cell>,
    claims: Value,
    /// Conditions II and III, where they were measured.
    #[serde(default)]
    conditions: Value,
}

/// `reproduce imagenet` and `reproduce chest`.
pub fn run(args: Args, context: &Context, experiment: &'static Experiment) -> Result<(), Error> {
    if args.retrain {
        return Err(Error::Usage(format!(
            "--retrain is for fashion: `reproduce {}` trains what it is not given",
            experiment.name
        )));
    }
    if args.maps.is_some() {
        return Err(Error::Usage("--maps is for fashion: `map --model` makes those of other networks".into()));
    }
    if args.adaptive {
        return Err(Error::Usage(
            "--adaptive is for fashion: `ce --model` makes those attacks on other networks".into(),
        ));
    }
    let (mut config, resume) = match &args.common.resume {
        Some(directory) => RunDirectory::resume_configured::<Reproduction>(directory, "reproduce")?,
        None => {
            let first = &experiment.networks[0];
            let study = args.study(first.arch, first.rows[0].tap, args.limit.unwrap_or(1), experiment.attacks);
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
    if sources.iter().all(|s| s.taps.is_empty()) {
        let reason =
            if absent.is_empty() { "--taps names none of the networks whose weights are given" } else { &absent[0] };
        return Err(Error::Usage(format!("nothing to do: {reason}")));
    }
    let brought = brought(&config, &sources)?;
    let sets: Vec<Sets> = sources.iter().map(|s| images(s, &config.study, context)).collect::<Result<_, _>>()?;
    for (source, sets) in sources.iter().zip(&sets) {
        let trained_on = config.trained_on(sets);
        if trains(source, &brought)? && trained_on < work::BATCH {
            return Err(Error::Usage(format!(
                "{trained_on} training images are fewer than one batch of {}: what {} lacks cannot be trained on so few",
                work::BATCH,
                source.network.arch
            )));
        }
    }
    // what effects are measured on
    let studied = sources.iter().zip(&sets).map(|(source, sets)| studied(source, sets, &config, &brought));
    let studied: Vec<(Dataset, &'static str)> = studied.collect::<Result<_, _>>()?;
    if resume.is_none() {
        let images = studied.iter().map(|(images, _)| images.len()).max().unwrap_or(0);
        config.study.inputs = args.inputs.inputs(images, experiment.attacks);
    }
    if args.common.dry_run {
        let cost = cost::cost(experiment, &config, args.gate.batch(), (&sources, &sets, &studied), &brought, context)?;
        return ui::print(&cost.told(context.json, ""));
    }
    common::check_out(args.common.out.as_deref())?;
    let mut hashes = BTreeMap::new();
    for ((source, sets), (images, _)) in sources.iter().zip(&sets).zip(&studied) {
        hashes.insert(source.network.arch.to_string(), source.hash.clone());
        hashes.insert("data".into(), sets.training.hash()?);
        hashes.insert(format!("images of {}", source.network.arch), images.hash()?);
    }
    hashes.extend(brought.iter().enumerate().map(|(i, ae)| (format!("autoencoder {i}"), ae.hash.clone())));
    let mut manifest = context.manifest("reproduce", json!(config), hashes);
    let directory = study::open_directory(args.common.out.clone(), resume, &manifest)?;
    let (mut all, mut worth) = (Vec::new(), String::new());
    let work = Work {
        run_id: &manifest.run_id,
        config: &config,
        batch: args.gate.batch(),
        brought: &brought,
        directory: &directory,
        context,
    };
    for ((source, sets), (images, part)) in sources.iter().zip(&sets).zip(&studied) {
        let host = work.host(source, sets)?;
        worth += &work.worth(source, &host, sets)?;
        for &tap in &source.taps {
            all.push(work.at_tap(source, &host, tap, sets, (images, part))?);
        }
    }
    let text = report((experiment, &config), &worth, &all, &absent);
    reproduced(
        &directory.path("table.csv"),
        &manifest.run_id,
        all.iter().map(|tapped| (&tapped.site, tapped.cells.as_slice())),
    )?;
    crate::atomic::write_atomic(&directory.path("report.txt"), |f| f.write_all(text.as_bytes()))?;
    let brief: Vec<Value> = all.iter().map(|t| json!({ "site": t.site, "no_effects": t.shut })).collect();
    manifest.results.insert("taps".into(), json!(brief));
    manifest.warnings = absent;
    let finished = directory.finish(&manifest)?;
    if context.json {
        let taps: Vec<Value> = all
            .iter()
            .map(|t| {
                json!({ "site": t.site, "no_effects": t.shut, "rows": t.cells, "claims": t.claims,
                "conditions": t.conditions })
            })
            .collect();
        let out = json!({ "schema_version": SCHEMA_VERSION, "run_id": manifest.run_id, "run": finished,
            "warnings": manifest.warnings, "taps": taps });
        ui::print(&format!("{out}\n"))?;
    } else {
        ui::print(&format!("{text}run {}\n", finished.display()))?;
    }
    let shut: Vec<String> =
        all.iter().filter(|t| t.shut.is_some()).map(|t| format!("{} {}", t.site.arch, t.site.tap)).collect();
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

/// Every network that can be had, and what is said of those that cannot.
fn sources(
    experiment: &'static Experiment,
    config: &Reproduction,
    context: &Context,
) -> Result<(Vec<Source>, Vec<String>), Error> {
    let mut sources: Vec<Source> = Vec::new();
    for file in &config.weights {
        let source = given(experiment, file, config, context)?;
        if let Some(other) = sources.iter().find(|s| s.network.arch == source.network.arch) {
            return Err(Error::Usage(format!(
                "{} and {} both hold weights of {}: one of them is enough",
                other.file.display(),
                file.display(),
                source.network.arch
            )));
        }
        sources.push(source);
    }
    let mut absent = Vec::new();
    // who brings weights of one network asks about that one
    for network in experiment.networks.iter().filter(|_| config.weights.is_empty()) {
        let taps = taps(network, &config.taps);
        match network.features {
            _ if taps.is_empty() => {}
            None => absent.push(format!(
                "{}: not run, for no published weights of it can be had by a command; bring some with --weights FILE",
                network.arch
            )),
            Some(name) => {
                let (weights, file) = published_weights(name, context.ui)?;
                let told = format!("published features ({name})");
                sources.push(Source { network, file, hash: weights.hash(), whole: None, taps, told });
            }
        }
    }
    Ok((sources, absent))
}

/// The network whose weights are in `file`.
fn given(
    experiment: &'static Experiment,
    file: &Path,
    config: &Reproduction,
    context: &Context,
) -> Result<Source, Error> {
    let seen = Weights::open(file)?;
    let known = looks_like(&seen);
    let network = known.as_ref().and_then(|k| experiment.networks.iter().find(|n| n.arch == k.arch));
    let (Some(known), Some(network)) = (&known, network) else {
        let its = known.map_or("weights of no network that is known here".into(), |k| k.to_string());
        let wanted: Vec<&str> = experiment.networks.iter().map(|n| n.arch).collect();
        let reason = format!("holds {its}; `reproduce {}` is about {}", experiment.name, wanted.join(" and "));
        return Err(Error::Input { path: file.into(), reason });
    };
    let has_head = match network.answers {
        Answers::Classes => known.classes.is_some(),
        Answers::Findings(n) => known.classes == Some(n),
    };
    let told = format!("{} ({known})", file.display());
    let taps = taps(network, &config.taps);
    if !has_head {
        return Ok(Source { network, file: file.into(), hash: seen.hash(), whole: None, taps, told });
    }
    // half a gigabyte is not held twice
    drop(seen);
    let (mut model, weights) = subject::host(network.arch, Some(file), &config.study.data, context)?;
    if let (Answers::Findings(_), false) = (&network.answers, weights.metadata.contains_key("head")) {
        model.head = Head::Sigmoid;
    }
    Ok(Source { network, file: file.into(), hash: weights.hash(), whole: Some((model, weights)), taps, told })
}

/// The autoencoders that somebody brought, each for one of the taps that are asked for.
fn brought(config: &Reproduction, sources: &[Source]) -> Result<Vec<Brought>, Error> {
    let mut all: Vec<Brought> = Vec::new();
    for file in &config.ae {
        let weights = Weights::open(file)?;
        let bad = |reason: &str| Error::Input { path: file.clone(), reason: reason.into() };
        let said = |key: &str| weights.metadata.get(key).cloned();
        let Some(tap) = said("tap") else {
            return Err(bad("does not say at which tap it was trained; `ce --ae` takes it"));
        };
        let ae = Brought { file: file.clone(), hash: weights.hash(), arch: said("arch"), tap };
        let mut fits = false;
        for source in sources {
            let model = Model::named(source.network.arch)?;
            for tap in &source.taps {
                fits |= ae.is_for(source.network.arch, &model.tap(&tap.to_string())?.name);
            }
        }
        if !fits {
            return Err(bad(&format!("was trained at {}, which is none of the taps that are measured", ae.tap)));
        }
        if let Some(other) = all.iter().find(|b| b.tap == ae.tap && b.arch == ae.arch) {
            return Err(bad(&format!("is for the same tap as {}: one of them is enough", other.file.display())));
        }
        all.push(ae);
    }
    Ok(all)
}

impl Brought {
    /// Whether it is for the tap of that name.
    fn is_for(&self, arch: &str, tap: &str) -> bool {
        self.tap == tap && self.arch.as_deref().is_none_or(|own| own == arch)
    }
}

/// Images for a network: of the classes that its head has, or is to learn.
fn images(source: &Source, study: &Config, context: &Context) -> Result<Sets, Error> {
    if let Some((model, _)) = &source.whole {
        return subject::data(&study.data, model, context);
    }
    let model = subject::network(source.network.arch, &study.data)?;
    let sets = subject::labelled(&study.data, &model, context)?;
    let findings = matches!(sets.training.targets(), Labels::Findings(_));
    match source.network.answers {
        Answers::Classes if sets.training.classes().is_empty() => Err(Error::Usage(
            "a head for classes learns from labels, and these images have none: put them into a directory a class, or bring \
             weights with a head (--weights)"
                .into(),
        )),
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

/// Whether a network lacks a head or an autoencoder.
fn trains(source: &Source, brought: &[Brought]) -> Result<bool, Error> {
    let model = Model::named(source.network.arch)?;
    let mut lacks = source.whole.is_none();
    for tap in &source.taps {
        let tap = model.tap(&tap.to_string())?;
        lacks |= !brought.iter().any(|ae| ae.is_for(source.network.arch, &tap.name));
    }
    Ok(lacks)
}

/// The images that nothing here is trained on, and what they are called in tables.
fn unseen<'a>(source: &Source, sets: &'a Sets, brought: &[Brought]) -> Result<(&'a Dataset, &'static str), Error> {
    Ok(if trains(source, brought)? { (&sets.test, "test") } else { (&sets.studied, sets.part) })
}

/// What effects are measured on, and what it is called in tables: nothing that anything here is trained on.
fn studied(
    source: &Source,
    sets: &Sets,
    config: &Reproduction,
    brought: &[Brought],
) -> Result<(Dataset, &'static str), Error> {
    let (images, part) = unseen(source, sets, brought)?;
    Ok((study::first_images(images, config.study.limit)?, part))
}

/// Every table with what it ran on, and what is missing.
fn report(
    (experiment, config): (&Experiment, &Reproduction),
    worth: &str,
    all: &[Tapped],
    absent: &[String],
) -> String {
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
    let jsma = |input: &Input| matches!(input, Input::Attack(Attack::Jsma(_)));
    if experiment.name == CHEST.name && !config.study.inputs.iter().any(jsma) {
        text += "Its Table 2 has JSMA too, which takes thousands of gradients an image: --attack fgsm,bim,pgd,jsma --gamma 0.001\n";
    }
    absent.iter().for_each(|line| text += &format!("{line}\n"));
    text
}
