//! `reproduce fashion`: Table 3 and Figure 3, with the bundled weights or with weights trained in the run.

use super::{Args, figure, here, paper, phase, table};
use crate::causal::sweep::Batch;
use crate::cli::attacks;
use crate::cli::common::{self, Context, Cost};
use crate::cli::gate::Agreement;
use crate::cli::map;
use crate::cli::study::{self, Config, Done, Loaded, Run};
use crate::cli::subject::{self, Sets};
use crate::cli::train::autoencoder::{
    AUTOENCODER_EPOCHS, AUTOENCODER_FILE, AutoencoderConfig, describe, train_autoencoder,
};
use crate::cli::train::classifier::{CLASSIFIER_EPOCHS, ClassifierConfig, train_classifier};
use crate::cli::ui;
use crate::error::Error;
use crate::model::Model;
use crate::model::autoencoder::{HIDDEN, NODES};
use crate::report::page::MAPS;
use crate::report::run::RunDirectory;
use crate::train::autoencoder::Objective;
use crate::train::classifier::Task;
use crate::train::{Schedule, Settings};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Where the trained classifier lies below the run.
const CLASSIFIER: &str = "classifier";
/// Where the trained autoencoder does.
const AUTOENCODER: &str = "autoencoder";

/// What decides the reproduction, as the manifest holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reproduction {
    experiment: String,
    retrain: bool,
    /// Images whose maps are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maps: Option<usize>,
    study: Config,
}

/// `reproduce fashion`.
pub fn run(args: Args, context: &Context) -> Result<(), Error> {
    let others = [
        ("--weights", args.weights.is_empty()),
        ("--taps", args.taps.is_empty()),
        ("--epochs", args.epochs.is_none()),
        ("--head-epochs", args.head_epochs.is_none()),
        ("--train-limit", args.train_limit.is_none()),
    ];
    if let Some((flag, _)) = others.iter().find(|(_, absent)| !absent) {
        return Err(Error::Usage(format!("{flag} is for imagenet and chest; fashion takes --retrain or --ae FILE")));
    }
    if args.ae.len() > 1 {
        return Err(Error::Usage("fashion takes one --ae FILE: it has one tap".into()));
    }
    let (mut config, resume) = match &args.common.resume {
        Some(directory) => RunDirectory::resume_configured::<Reproduction>(directory, "reproduce")?,
        None => {
            let mut study = args.study("fashion", paper::FASHION[0].tap, args.limit.unwrap_or(10_000), &attacks::ALL);
            study.ae = args.ae.first().cloned();
            study::checked_adaptive(&study, NODES)?;
            let maps = figure::images(&args, &study)?;
            (Reproduction { experiment: args.experiment, retrain: args.retrain, maps, study }, None)
        }
    };
    if args.common.dry_run {
        let training = if config.retrain { "training first: about 5 minutes on 2 cores; then " } else { "" };
        let loaded = bundled(context, &config)?;
        let batch = loaded.batch(&config.study, args.gate.batch(), context)?;
        let images = config.study.limit.unwrap_or(10_000);
        let mut cost = study::cost(context, &config.study, &loaded, images, batch)?;
        if let Some(count) = config.maps {
            let maps = figure::cost(context, &config.study, &loaded, count.min(images))?;
            let (flop, seconds) = (cost.flop + maps.flop, cost.seconds + maps.seconds);
            cost = Cost { what: format!("{}; {}", cost.what, maps.what), flop, seconds, ..cost };
        }
        return ui::print(&cost.told(context.json, training));
    }
    common::check_out(args.common.out.as_deref())?;
    let sets = subject::data(&config.study.data, &Model::named(&config.study.model)?, context)?;
    let images = study::first_images(&sets.studied, config.study.limit)?;
    if resume.is_none() {
        config.study.inputs = args.inputs.inputs(images.len(), &attacks::ALL);
    }
    let mut hashes = BTreeMap::from([("data".to_string(), images.hash()?)]);
    if config.retrain {
        hashes.insert("training data".to_string(), sets.training.hash()?);
    }
    let mut manifest = context.manifest("reproduce", json!(config), hashes);
    let gate = |loaded: &Loaded| -> Result<(Batch, Agreement), Error> {
        let batch = loaded.batch(&config.study, args.gate.batch(), context)?;
        Ok((batch, loaded.gate(context, &config.study, &images, batch)?))
    };
    let (directory, loaded, (batch, agreement)) = if config.retrain {
        let directory = study::open_directory(args.common.out, resume, &manifest)?;
        let loaded = trained(context, &config, &sets, &directory)?;
        let passed = gate(&loaded).map_err(|e| kept(e, &directory))?;
        (directory, loaded, passed)
    } else {
        // a gate that stays shut leaves no directory behind
        let loaded = bundled(context, &config)?;
        let passed = gate(&loaded)?;
        (study::open_directory(args.common.out, resume, &manifest)?, loaded, passed)
    };
    // the run's identity is its configuration and data: training is a function of them
    manifest.hashes.extend(study::hashes(&config.study, &loaded, &images, None)?);
    // maps come first: the page, which the study ends with, shows them
    let mut maps = match config.maps {
        None => None,
        Some(count) => {
            let study = &explained(&config);
            let subject =
                figure::Subject { study, loaded: &loaded, agreement: &agreement, data: &images, part: sets.part };
            Some(figure::maps(context, &subject, count, &directory, args.gate.batch())?)
        }
    };
    let run = Run { batch, directory, manifest, agreement, part: sets.part, learn: None };
    let done = study::execute(context, &config.study, &loaded, &images, run)?;
    // they were made where the run was under way
    if let Some(maps) = &mut maps {
        maps.directory = done.directory.join(MAPS);
    }
    if context.json {
        let mut out = done.json();
        out["claims"] = json!(done.verdicts.claims);
        out["most_negative"] = json!(done.verdicts.most_negative);
        out["maps"] = maps.map_or(Value::Null, |maps| maps.json());
        return ui::print(&format!("{out}\n"));
    }
    ui::print(&report(&done, maps.as_ref(), &config))
}

/// The study as the manifest of its maps has it: weights that were trained in the run are named.
fn explained(config: &Reproduction) -> Config {
    let mut study = config.study.clone();
    if config.retrain {
        study.weights = Some(Path::new(CLASSIFIER).join(format!("{}.safetensors", study.model)));
        study.ae = Some(Path::new(AUTOENCODER).join(AUTOENCODER_FILE));
    }
    study
}

/// A shut gate behind a training: its weights are not lost.
fn kept(e: Error, directory: &RunDirectory) -> Error {
    match e {
        Error::Gate(reason) => Error::Gate(format!(
            "{reason}; the weights that were trained stay in {} and {}: `ce` takes them with --weights and --ae",
            directory.path(CLASSIFIER).display(),
            directory.path(AUTOENCODER).display()
        )),
        other => other,
    }
}

/// Host and autoencoder that come with the program.
fn bundled(context: &Context, config: &Reproduction) -> Result<Loaded, Error> {
    let Config { model: arch, data, ae, .. } = &config.study;
    let (model, host) = subject::host(arch, None, data, context)?;
    let tap = model.tap(&config.study.tap)?;
    let host_hash = host.hash();
    let (autoencoder, ae) = subject::autoencoder(arch, &tap, &host_hash, ae.as_deref(), context)?;
    Ok(Loaded { model, tap, host, host_hash, autoencoder, ae })
}

/// Host and autoencoder, trained inside the run directory.
fn trained(context: &Context, config: &Reproduction, sets: &Sets, directory: &RunDirectory) -> Result<Loaded, Error> {
    let Config { model: arch, data, .. } = &config.study;
    let settings = |epochs| Settings {
        learning_rate: 1e-3,
        schedule: Schedule::Cosine,
        epochs,
        batch: 100,
        seed: config.study.seed,
    };
    // a phase that is finished is loaded, one that is interrupted goes on
    let (path, resume) = phase(directory, CLASSIFIER, "train")?;
    let file = path.join(format!("{}.safetensors", config.study.model));
    if !file.exists() {
        let classifier = ClassifierConfig {
            model: config.study.model.clone(),
            weights: None,
            task: Task::default(),
            settings: settings(CLASSIFIER_EPOCHS),
            limit: None,
            data: data.clone(),
        };
        let trained =
            train_classifier(context, &classifier, sets, Some(path), resume).map_err(|e| here(e, directory))?;
        context.ui.log(format!("classifier: {}", trained.test.describe()));
    }
    let (model, host) = subject::host(arch, Some(&file), data, context)?;
    let tap = model.tap(&config.study.tap)?;
    let (path, resume) = phase(directory, AUTOENCODER, "train-ae")?;
    let file = path.join(AUTOENCODER_FILE);
    if !file.exists() {
        let ae = AutoencoderConfig {
            model: config.study.model.clone(),
            weights: None,
            tap: config.study.tap.clone(),
            code: NODES,
            hidden: HIDDEN,
            objective: Objective::default(),
            settings: settings(AUTOENCODER_EPOCHS),
            limit: None,
            data: data.clone(),
        };
        let trained = train_autoencoder(context, &ae, sets, (&model, &host), Some(path), resume)
            .map_err(|e| here(e, directory))?;
        context.ui.log(format!("autoencoder: {}", describe(&trained.test).trim_end()));
    }
    let host_hash = host.hash();
    let (autoencoder, ae) = subject::autoencoder(arch, &tap, &host_hash, Some(&file), context)?;
    Ok(Loaded { model, tap, host, host_hash, autoencoder, ae })
}

/// Table 3 beside ours, the verdicts, and how to read them.
fn report(done: &Done, maps: Option<&map::Done>, config: &Reproduction) -> String {
    let mut text = String::from(
        "Table 3 of the paper (Fashion-MNIST, 2-convolution net, tap L = 2): expected causal effect of setting node N to 0\n\n",
    );
    text += &table(done, paper::FASHION[0].tap, &paper::FASHION);
    let _ = writeln!(
        text,
        "\nThe paper prints nodes 3 and 7 of its own autoencoder. Node numbers do not carry over between autoencoders (channels are\n\
         exchangeable), so its rows stand here for their sign and size, not as a target.\n"
    );
    text += &done.notes();
    text.push('\n');
    for j in &done.verdicts.claims {
        let _ = writeln!(text, "{j}\n");
    }
    if let Some(told) = done.verdicts.most_negative_told() {
        let _ = writeln!(text, "{told}\n");
    }
    if let Some(detector) = &done.detector {
        let _ = writeln!(text, "{detector}\n");
    }
    if let Some(maps) = maps {
        let _ = writeln!(text, "{}", figure::told(maps));
    }
    let weights = match &config.study.ae {
        _ if config.retrain => "trained in this run".to_string(),
        Some(path) => format!("bundled classifier, autoencoder {}", path.display()),
        None => "bundled (weights/README.md says how they were made)".to_string(),
    };
    let _ = writeln!(text, "weights: {weights}; run {}", done.directory.display());
    text
}
