//! `attack`: adversarial images of a network, each with a certificate, as a run directory; and whether the attacks can be
//! believed.

mod checks;
mod work;

use super::attacks::{ALL, AttackArgs, VictimArg};
use super::common::{self, Common, Context, Cost, DataArgs};
use super::study::{first_images, open_directory};
use super::subject::{self, SubjectArgs};
use super::{inspect, ui};
use crate::attack::certificate::Wish;
use crate::attack::method::likeliest_other;
use crate::attack::victim::{Insert, Subject};
use crate::attack::{Attack, Attacked};
use crate::backend::Layered;
use crate::causal::study::AttackLabel;
use crate::data::Dataset;
use crate::error::Error;
use crate::model::autoencoder::Autoencoder;
use crate::model::{Head, Model, Tap};
use crate::report::adversarial::{LEVEL, Success};
use crate::report::run::RunDirectory;
use crate::tensor::argmax;
use crate::text::closest;
use crate::weights::Weights;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Flags of `attack`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    subject: SubjectArgs,
    #[command(flatten)]
    attacks: AttackArgs,
    /// Whose answer attacks move away from, where they go to none
    #[arg(long, value_enum, default_value = "predicted")]
    attack_label: super::ce::AttackLabelArg,
    /// Go to a class instead: `second` (the most likely other), its name or its number
    #[arg(long, value_name = "CLASS", conflicts_with_all = ["suppress", "induce"])]
    target: Option<String>,
    /// Of findings: make this one vanish and keep all others
    #[arg(long, value_name = "FINDING", conflicts_with = "induce")]
    suppress: Option<String>,
    /// Of findings: make this one appear and keep all others
    #[arg(long, value_name = "FINDING")]
    induce: Option<String>,
    /// The first N test images
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Pictures (PNG) of the first N images after each attack
    #[arg(long, value_name = "N", default_value_t = 256)]
    pictures: usize,
    /// auto, or images a batch; results do not depend on it
    #[arg(long, default_value = "auto")]
    batch: String,
}

/// What attacks are to reach, as the manifest holds it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "to")]
enum Aim {
    /// Anything but what it is.
    Other {
        /// Whose answer that is.
        label: AttackLabel,
    },
    /// The most likely other class.
    Second,
    /// A class.
    Class {
        /// Its number.
        class: u32,
    },
    /// A finding made present or absent.
    Finding {
        /// Its number.
        label: u32,
        /// Whether it is to be present.
        present: bool,
    },
}

/// What decides a run, as the manifest holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Config {
    model: String,
    weights: Option<PathBuf>,
    ae: Option<PathBuf>,
    tap: Option<String>,
    victim: Attacked,
    attacks: Vec<Attack>,
    aim: Aim,
    limit: Option<usize>,
    pictures: usize,
    seed: u64,
    #[serde(flatten)]
    data: DataArgs,
}

/// The network and what may be in it.
struct Loaded {
    model: Model,
    host: Weights,
    inserted: Option<(Tap, Autoencoder, Weights)>,
}

impl Loaded {
    /// Calls `with` with the network as attacks take it.
    fn subject<T>(&self, with: impl FnOnce(Subject<'_>) -> T) -> T {
        let model = &self.model;
        match &self.inserted {
            None => with(Subject { model, insert: None, weights: &self.host }),
            Some((tap, autoencoder, ae)) => {
                let both = Layered(&[&self.host, ae]);
                with(Subject { model, insert: Some(Insert { tap, autoencoder }), weights: &both })
            }
        }
    }

    /// Multiply-adds of the network on an image.
    fn macs(&self) -> f64 {
        let inserted = self.inserted.as_ref().map_or(0, |(tap, autoencoder, _)| autoencoder.macs(tap));
        inspect::macs(&self.model, 0) as f64 + inserted as f64
    }
}

/// `attack`.
pub fn run(args: Args) -> Result<(), Error> {
    let context = Context::new(&args.common)?;
    args.attacks.checked()?;
    if args.limit == Some(0) {
        return Err(Error::Usage("--limit 0: at least one image is needed".into()));
    }
    let rows = super::study::checked_batch(&args.batch)?;
    let (mut config, resume) = match &args.common.resume {
        Some(directory) => RunDirectory::resume_configured::<Config>(directory, "attack")?,
        None => (args.config()?, None),
    };
    if !args.common.dry_run {
        common::check_out(args.common.out.as_deref())?;
    }
    let (model, host) = subject::host(&config.model, config.weights.as_deref(), &config.data, &context)?;
    let host_hash = host.hash();
    let inserted = match config.victim {
        Attacked::Host => None,
        Attacked::Inserted => {
            let tap = model.tap(config.tap.as_deref().unwrap_or_default())?;
            let found = subject::autoencoder(&config.model, &tap, &host_hash, config.ae.as_deref(), &context)?;
            Some((tap, found.0, found.1))
        }
    };
    let loaded = Loaded { model, host, inserted };
    // names of classes are the images'; but for those a dry run fetches none
    let named = args.target.is_some() || args.suppress.is_some() || args.induce.is_some();
    let images = match named || !args.common.dry_run || config.data.data.is_some() {
        true => Some(first_images(&subject::data(&config.data, &loaded.model, &context)?.studied, config.limit)?),
        false => None,
    };
    if args.common.resume.is_none() {
        config.aim = args.aim(&loaded.model, images.as_ref().map_or(&[], Dataset::classes))?;
        if matches!(config.aim, Aim::Finding { .. }) && config.attacks.iter().any(|a| matches!(a, Attack::Jsma(_))) {
            return Err(Error::Usage("jsma goes to a class, not to a finding: name --attack fgsm,bim,pgd".into()));
        }
    }
    let backend = context.backend();
    let rows = match rows {
        Some(rows) => rows,
        None => loaded.subject(|subject| subject.rows(backend))?,
    };
    let images = match images {
        Some(images) if !args.common.dry_run => images,
        images => {
            let count = images.map_or(config.limit.unwrap_or(10_000), |images| images.len());
            return ui::print(&cost(&config, &loaded, count).told(context.json, ""));
        }
    };
    let mut hashes = BTreeMap::from([("data".to_string(), images.hash()?), ("host".into(), host_hash)]);
    hashes.extend(loaded.inserted.as_ref().map(|(_, _, ae)| ("autoencoder".to_string(), ae.hash())));
    let manifest = context.manifest("attack", json!(config), hashes);
    if context.backends.len() > 1 {
        context.ui.warn("attacks run on the first device only");
    }
    let directory = open_directory(args.common.out, resume, &manifest)?;
    let done = work::execute(&context, &config, &loaded, &images, work::Run { rows, directory, manifest })?;
    if context.json {
        return ui::print(&format!("{}\n", done.json()));
    }
    ui::print(&done.told(&config))
}

impl Args {
    /// All but the aim, which needs the network.
    fn config(&self) -> Result<Config, Error> {
        let victim = Attacked::from(self.attacks.victim);
        if self.attacks.victim == VictimArg::Host && !self.subject.ae.is_empty() {
            return Err(Error::Usage(
                "--ae is of --victim inserted: an attack on the host knows no autoencoder".into(),
            ));
        }
        let attacks = self.attacks.attacks(&ALL[..3]);
        if attacks.is_empty() {
            return Err(Error::Usage("--attack none: there is nothing to do".into()));
        }
        Ok(Config {
            model: self.subject.model.clone(),
            weights: self.subject.weights.clone(),
            ae: self.subject.one_ae()?,
            tap: (victim == Attacked::Inserted).then(|| self.subject.tap.clone()),
            victim,
            attacks,
            aim: Aim::Other { label: self.attack_label.into() },
            limit: self.limit,
            pictures: self.pictures,
            seed: self.common.seed,
            data: self.data.clone(),
        })
    }

    fn aim(&self, model: &Model, names: &[String]) -> Result<Aim, Error> {
        let finding = |label: u32, present: bool| Aim::Finding { label, present };
        match (model.head, &self.target, &self.suppress, &self.induce) {
            (_, None, None, None) => Ok(Aim::Other { label: self.attack_label.into() }),
            (Head::Softmax, Some(text), ..) if text == "second" => Ok(Aim::Second),
            (Head::Softmax, Some(text), ..) => Ok(Aim::Class { class: named("--target", text, names, model.classes)? }),
            (Head::Sigmoid, _, Some(text), _) => Ok(finding(named("--suppress", text, names, model.classes)?, false)),
            (Head::Sigmoid, _, _, Some(text)) => Ok(finding(named("--induce", text, names, model.classes)?, true)),
            (Head::Sigmoid, Some(_), ..) => Err(Error::Usage(format!(
                "--target: {} answers with findings, not with one class; there are --suppress and --induce",
                model.arch
            ))),
            (Head::Softmax, ..) => Err(Error::Usage(format!(
                "--suppress and --induce are for networks that answer with findings; {} answers with a class: there is --target",
                model.arch
            ))),
        }
    }
}

/// The number of a class that is named by number or as the images name it.
fn named(flag: &str, text: &str, names: &[String], classes: usize) -> Result<u32, Error> {
    let by_name = names.iter().position(|name| name.eq_ignore_ascii_case(text));
    let number = text.parse::<usize>().ok();
    match (by_name, number) {
        (Some(at), _) => Ok(at as u32),
        (None, Some(number)) if number < classes => Ok(number as u32),
        (None, Some(number)) => {
            Err(Error::Usage(format!("{flag} {number}: there are {classes} classes, numbered from 0")))
        }
        (None, None) if names.is_empty() => {
            Err(Error::Usage(format!("{flag} {text}: the images name no classes; give a number, 0 to {}", classes - 1)))
        }
        (None, None) => {
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            Err(Error::Usage(format!("{flag} {text}: there is no such class; did you mean {}?", closest(text, &known))))
        }
    }
}

impl Aim {
    /// What is wished for of an image with the logits `clean`; `None` where that asks for a label that it lacks.
    fn wish(self, head: Head, clean: &[f32], label: Option<u32>) -> Option<Wish> {
        match (self, head) {
            (Aim::Other { .. }, Head::Sigmoid) => Some(Wish::OtherFindings),
            (Aim::Other { label: AttackLabel::Predicted }, Head::Softmax) => {
                Some(Wish::NotClass(argmax(clean).unwrap_or(0) as u32))
            }
            (Aim::Other { label: AttackLabel::True }, Head::Softmax) => label.map(Wish::NotClass),
            (Aim::Second, _) => Some(Wish::Class(likeliest_other(clean, argmax(clean)))),
            (Aim::Class { class }, _) => Some(Wish::Class(class)),
            (Aim::Finding { label, present }, _) => Some(Wish::Finding { label, present }),
        }
    }
}

/// What a run costs at most: a gradient is a forward pass and one back to the pixels, which takes as many products.
fn cost(config: &Config, loaded: &Loaded, images: usize) -> Cost {
    let pixels: usize = loaded.model.input.iter().product();
    let gradients: f64 = config.attacks.iter().map(|attack| f64::from(attack.gradients(pixels))).sum();
    let checked = images.min(checks::IMAGES) as f64 / images.max(1) as f64 * f64::from(checks::STEPS);
    let passes = 2.0 * (gradients + 1.0 + checked) + 3.0 * config.attacks.len() as f64;
    Cost::untimed(
        format!("{images} images x {} attacks, at most {gradients} gradients an image", config.attacks.len()),
        2.0 * loaded.macs() * passes * images as f64,
    )
}

/// A finished run.
struct Done {
    success: Vec<Success>,
    checks: Vec<checks::Check>,
    warnings: Vec<String>,
    directory: PathBuf,
    run_id: String,
}

impl Done {
    fn told(&self, config: &Config) -> String {
        let wished = match config.aim {
            Aim::Other { .. } => "an image is won where the network answers anything else",
            Aim::Second => "an image is won where the network answers with what it took for second most likely",
            Aim::Class { .. } => "an image is won where the network answers with the target",
            Aim::Finding { present: true, .. } => "an image is won where the finding appears",
            Aim::Finding { present: false, .. } => "an image is won where the finding vanishes",
        };
        let wide = self.success.iter().map(|s| s.attack.to_string().len() + 2).max().unwrap_or(0);
        let mut text = format!(
            "{:<wide$}{:<32}{:<10}{:>9}{:>9}{:>9}\n",
            "attack", "success, 95 %", "in 8 bits", "Linf", "L2", "L0"
        );
        let percent = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.1} %", 100.0 * share));
        for s in &self.success {
            let interval = s
                .success
                .wilson(LEVEL)
                .map_or(String::new(), |i| format!(" [{:.1}, {:.1}]", 100.0 * i.lo, 100.0 * i.hi));
            let success = format!("{} of {}{interval}", percent(s.success.value()), s.success.of);
            let [linf, l2, l0] = s.size;
            let _ = writeln!(
                text,
                "{:<wide$}{success:<32}{:<10}{linf:>9.4}{l2:>9.3}{l0:>9.0}",
                s.attack.to_string(),
                percent(s.success_8bit.value()),
            );
            if let Some(kept) = s.others_kept {
                let _ = writeln!(text, "  of those won, {} kept all other findings", percent(kept.value()));
            }
        }
        let _ =
            writeln!(text, "Here {wished}; images that were so already are not counted. Sizes are means over images.");
        self.checks.iter().for_each(|check| text += &format!("check {}: {}\n", check.name, check.told));
        self.warnings.iter().for_each(|warning| text += &format!("warning: {warning}\n"));
        text + &format!("run {}\n", self.directory.display())
    }

    fn json(&self) -> serde_json::Value {
        let rows: Vec<serde_json::Value> = self
            .success
            .iter()
            .map(|s| {
                json!({ "attack": s.attack, "images": s.images, "open": s.success.of, "success": s.success.value(),
                    "success_ci": s.success.wilson(LEVEL), "success_8bit": s.success_8bit.value(),
                    "others_kept": s.others_kept.and_then(|share| share.value()), "linf": s.size[0], "l2": s.size[1],
                    "l0": s.size[2], "linf_max": s.linf_max, "outside": s.outside, "loss_rise": s.rise })
            })
            .collect();
        json!({ "schema_version": crate::report::run::SCHEMA_VERSION, "run_id": self.run_id, "run": self.directory,
            "attacks": rows, "checks": self.checks, "warnings": self.warnings })
    }
}

/// Labels of images, where there are any.
fn label_of(data: &Dataset, i: usize, head: Head) -> Option<u32> {
    // a set of findings is no class
    (head == Head::Softmax).then(|| data.label(i)).flatten()
}
