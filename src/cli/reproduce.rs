//! `reproduce`: the paper's experiment from data to verdict. `fashion` is its Table 3.

use super::ce::{GateArgs, InputArgs};
use super::common::{self, Common, Context, DataArgs};
use super::study::{self, Config, Done, Loaded, Run, WIDTH};
use super::subject::Sets;
use super::train::autoencoder::{AUTOENCODER_EPOCHS, AUTOENCODER_FILE, AutoencoderConfig, describe, train_autoencoder};
use super::train::classifier::{CLASSIFIER_EPOCHS, ClassifierConfig, train_classifier};
use super::{subject, ui};
use crate::causal::analysis::Quantity;
use crate::causal::claims::{Claim, Condition, Judgement, judge};
use crate::causal::effect::Reading;
use crate::causal::named_nodes;
use crate::causal::statistics::Bootstrap;
use crate::causal::study::Input;
use crate::causal::sweep::Batch;
use crate::error::Error;
use crate::model::Model;
use crate::model::autoencoder::{HIDDEN, NODES};
use crate::report::run::{Manifest, RunDirectory};
use crate::text::closest;
use crate::train::autoencoder::{Interpretability, LossWeights, Objective};
use crate::train::classifier::Task;
use crate::train::{Schedule, Settings};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Flags of `reproduce`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which experiment: fashion (Table 3)
    experiment: String,
    /// Train classifier and autoencoder anew instead of taking the bundled ones
    #[arg(long)]
    retrain: bool,
    /// Another autoencoder of the bundled classifier (safetensors), say of another seed
    #[arg(long, value_name = "FILE", conflicts_with = "retrain")]
    ae: Option<PathBuf>,
    /// The first N test images
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    inputs: InputArgs,
    #[command(flatten)]
    gate: GateArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    common: Common,
}

/// Experiments there are.
const EXPERIMENTS: [&str; 1] = ["fashion"];

/// What decides a reproduction, as the manifest holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reproduction {
    experiment: String,
    retrain: bool,
    study: Config,
}

/// The paper's Table 3: node, Z0, F_i (PWM), F_j (FGSM).
const PAPER: [(usize, [f64; 3]); 2] =
    [(3, [4.9543e-4, -1.8947e-5, -8.0042e-6]), (7, [2.4600e-4, -4.1068e-5, -2.5742e-5])];

/// `reproduce`.
pub fn run(args: Args) -> Result<(), Error> {
    if !EXPERIMENTS.contains(&args.experiment.as_str()) {
        let nearest = closest(&args.experiment, &EXPERIMENTS);
        return Err(Error::Usage(format!("there is no experiment \"{}\"; did you mean {nearest}?", args.experiment)));
    }
    let context = Context::new(&args.common)?;
    args.gate.checked()?;
    if args.limit == Some(0) {
        return Err(Error::Usage("--limit 0: at least one image is needed".into()));
    }
    let (mut config, resume) = match &args.common.resume {
        Some(directory) => RunDirectory::resume_configured::<Reproduction>(directory, "reproduce")?,
        None => {
            let study = Config {
                model: "fashion".into(),
                weights: None,
                ae: args.ae,
                tap: "2".into(),
                nodes: "all".into(),
                sets: Vec::new(),
                inputs: args.inputs.inputs(args.limit.unwrap_or(10_000)),
                attack_label: args.inputs.label(),
                limit: args.limit,
                min_agreement: args.gate.min_agreement(),
                resamples: args.gate.resamples(),
                level: args.gate.level(),
                seed: args.common.seed,
                data: args.data,
            };
            (Reproduction { experiment: args.experiment, retrain: args.retrain, study }, None)
        }
    };
    if args.common.dry_run {
        let training = if config.retrain { "training first: about 5 minutes on 2 cores; then " } else { "" };
        let loaded = bundled(&context, &config)?;
        let batch = loaded.batch(&config.study, args.gate.batch(), &context)?;
        let images = config.study.limit.unwrap_or(10_000);
        let cost = study::cost(&context, &config.study, &loaded, images, batch)?;
        return ui::print(&cost.told(context.json, training));
    }
    common::check_out(args.common.out.as_deref())?;
    let sets = subject::data(&config.study.data, &Model::named(&config.study.model)?, &context)?;
    let images = study::first_images(&sets.studied, config.study.limit)?;
    if resume.is_none() {
        config.study.inputs = args.inputs.inputs(images.len());
    }
    let mut hashes = BTreeMap::from([("data".to_string(), images.hash()?)]);
    if config.retrain {
        hashes.insert("training data".to_string(), sets.training.hash()?);
    }
    let mut manifest = context.manifest("reproduce", json!(config), hashes);
    let gate = |loaded: &Loaded| -> Result<(Batch, f64), Error> {
        let batch = loaded.batch(&config.study, args.gate.batch(), &context)?;
        Ok((batch, study::gate(&context, &config.study, loaded, &images, batch)?))
    };
    let (directory, loaded, (batch, agreement)) = if config.retrain {
        let directory = study::open_directory(args.common.out, resume, &manifest)?;
        let loaded = trained(&context, &config, &sets, &directory)?;
        let passed = gate(&loaded).map_err(|e| kept(e, &directory))?;
        (directory, loaded, passed)
    } else {
        // a gate that stays shut leaves no directory behind
        let loaded = bundled(&context, &config)?;
        let passed = gate(&loaded)?;
        (study::open_directory(args.common.out, resume, &manifest)?, loaded, passed)
    };
    // the run's identity is its configuration and data: training is a function of them
    manifest.hashes.extend(study::hashes(&loaded, &images)?);
    let run = Run { batch, directory, manifest, agreement, part: sets.part };
    let done = study::execute(&context, &config.study, &loaded, &images, run)?;
    let judgements = judgements(&done, &config.study)?;
    if context.json {
        let mut out = done.json();
        out["claims"] = json!(judgements);
        return ui::print(&format!("{out}\n"));
    }
    ui::print(&report(&done, &judgements, &config))
}

/// A shut gate behind a training: its weights are not lost.
fn kept(e: Error, directory: &RunDirectory) -> Error {
    match e {
        Error::Gate(reason) => Error::Gate(format!(
            "{reason}; the weights that were trained stay in {} and {}: `ce` takes them with --weights and --ae",
            directory.path("classifier").display(),
            directory.path("autoencoder").display()
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
    // a phase that is finished is loaded, one that is interrupted goes on; the message names this run
    let here = |e: Error| match e {
        Error::Interrupted { .. } => Error::Interrupted { resume: directory.finished_path().into() },
        other => other,
    };
    let phase = |name: &str, verb: &str| -> Result<(PathBuf, Option<(RunDirectory, Manifest)>), Error> {
        let path = directory.path(name);
        let partial = directory.path(&format!("{name}.partial"));
        let resume = if partial.exists() { Some(RunDirectory::resume(&path, verb)?) } else { None };
        Ok((path, resume))
    };
    let (path, resume) = phase("classifier", "train")?;
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
        let trained = train_classifier(context, &classifier, sets, Some(path), resume).map_err(here)?;
        context.ui.log(format!("classifier: {}", trained.test.describe()));
    }
    let (model, host) = subject::host(arch, Some(&file), data, context)?;
    let tap = model.tap(&config.study.tap)?;
    let (path, resume) = phase("autoencoder", "train-ae")?;
    let file = path.join(AUTOENCODER_FILE);
    if !file.exists() {
        let ae = AutoencoderConfig {
            model: config.study.model.clone(),
            weights: None,
            tap: config.study.tap.clone(),
            code: NODES,
            hidden: HIDDEN,
            objective: Objective { form: Interpretability::Plain, weights: LossWeights::default() },
            settings: settings(AUTOENCODER_EPOCHS),
            limit: None,
            data: data.clone(),
        };
        let trained = train_autoencoder(context, &ae, sets, (&model, &host), Some(path), resume).map_err(here)?;
        context.ui.log(format!("autoencoder: {}", describe(&trained.test).trim_end()));
    }
    let host_hash = host.hash();
    let (autoencoder, ae) = subject::autoencoder(arch, &tap, &host_hash, Some(&file), context)?;
    Ok(Loaded { model, tap, host, host_hash, autoencoder, ae })
}

/// What an input is called in a verdict.
fn words(input: &Input) -> String {
    match input {
        Input::None => "the clean input".into(),
        Input::Pwm { masks, .. } => {
            format!("pixel masking ({masks} mask{} an image)", if *masks == 1 { "" } else { "s" })
        }
        Input::Fgsm { eps } => format!("FGSM at eps {eps}"),
        Input::Noise { eps } => format!("random signs of eps {eps}"),
    }
}

/// The verdict on every perturbed input.
fn judgements(done: &Done, config: &Config) -> Result<Vec<Judgement>, Error> {
    let c = &done.columns;
    let bootstrap = Bootstrap::new(c.images(), config.resamples, config.seed)?;
    let row = |input: usize, quantity| (0..c.sets).map(|s| c.get(input, s, quantity)).collect::<Vec<_>>();
    let mut all = Vec::new();
    for (k, input) in c.inputs.iter().enumerate().skip(1) {
        let claim = match input {
            Input::Pwm { .. } => Claim::Masking,
            Input::Fgsm { .. } => Claim::Attack,
            Input::None | Input::Noise { .. } => Claim::Control,
        };
        let condition = Condition {
            claim,
            name: &words(input),
            clean: row(0, Quantity::Ece(Reading::Z0)),
            perturbed: row(k, Quantity::Ece(Reading::R1)),
            double_softmax: Some(row(k, Quantity::DoubleSoftmax)),
            baseline_orig: Some(row(k, Quantity::BaselineOrig)),
            confidence_clean: c.get(0, 0, Quantity::Confidence),
            confidence_perturbed: c.get(k, 0, Quantity::Confidence),
        };
        all.push(judge(&condition, &bootstrap, config.level)?);
    }
    Ok(all)
}

/// Table 3 beside ours, the verdicts, and how to read them.
fn report(done: &Done, judgements: &[Judgement], config: &Reproduction) -> String {
    let mut text = String::from(
        "Table 3 of the paper (Fashion-MNIST, 2-convolution net, tap L = 2): expected causal effect of setting node N to 0\n\n",
    );
    let columns: Vec<(usize, &str)> = done
        .columns
        .inputs
        .iter()
        .enumerate()
        .map(|(k, input)| {
            let name = match input {
                Input::None => "Z0",
                Input::Pwm { .. } => "F_i: PWM 10 %",
                Input::Fgsm { .. } => "F_j: FGSM",
                Input::Noise { .. } => "control: noise",
            };
            (k, name)
        })
        .collect();
    let _ = write!(text, "{:<7}", "(L,N)");
    columns.iter().for_each(|(_, name)| {
        let _ = write!(text, "{name:<WIDTH$}");
    });
    text.push('\n');
    for (s, set) in done.sets.iter().enumerate() {
        let _ = write!(text, "{:<7}", format!("(2,{})", named_nodes(set)));
        for (k, _) in &columns {
            let cell = done.row(s, *k).map_or_else(String::new, study::with_interval);
            let _ = write!(text, "{cell:<WIDTH$}");
        }
        let _ = writeln!(text, "{}", done.remark(s));
        if let Some((_, paper)) = PAPER.iter().find(|(n, _)| set.len() == 1 && set.contains(*n)) {
            let _ = write!(text, "{:<7}", " paper");
            for (k, _) in &columns {
                let column = match done.columns.inputs[*k] {
                    Input::None => Some(0),
                    Input::Pwm { .. } => Some(1),
                    Input::Fgsm { .. } => Some(2),
                    Input::Noise { .. } => None,
                };
                let cell = column.map_or_else(String::new, |c| format!("{:+.4e}", paper[c]));
                let _ = write!(text, "{cell:<WIDTH$}");
            }
            text.push('\n');
        }
    }
    let _ = writeln!(
        text,
        "\nThe paper prints nodes 3 and 7 of its own autoencoder. Node numbers do not carry over between autoencoders (channels are\n\
         exchangeable), so its rows stand here for their sign and size, not as a target.\n"
    );
    text += &done.notes();
    text.push('\n');
    for j in judgements {
        let _ = writeln!(text, "{j}\n");
    }
    let weights = match &config.study.ae {
        _ if config.retrain => "trained in this run".to_string(),
        Some(path) => format!("bundled classifier, autoencoder {}", path.display()),
        None => "bundled (weights/README.md says how they were made)".to_string(),
    };
    let _ = writeln!(text, "weights: {weights}; run {}", done.directory.display());
    text
}
