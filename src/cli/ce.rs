//! `ce`: the causal effect of every node on every answer, clean, masked and attacked, as a run directory.

use super::common::{self, Common, Context, DataArgs, eps};
use super::study::{
    Config, Loaded, MAX_SHIFT, Run, checked_batch, cost, execute, first_images, gate, hashes, open_directory,
};
use super::{subject, ui};
use crate::attack::Steps;
use crate::attack::jsma::Jsma;
use crate::causal::study::{AttackLabel, Input};
use crate::error::Error;
use crate::report::run::RunDirectory;
use serde_json::json;
use std::path::PathBuf;

/// Attack on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum AttackArg {
    /// Fast gradient sign method: one step
    Fgsm,
    /// Basic iterative method
    Bim,
    /// Projected gradient descent: BIM from a random start
    Pgd,
    /// Jacobian-based saliency map attack, towards the second most likely class
    Jsma,
    /// No attack
    None,
}

/// Whose defaults attacks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Preset {
    /// eps 0.3, 10 steps of 0.05
    Paper,
    /// foolbox 1.8: eps 0.3; bim 10 steps of 0.05, pgd 40 of 0.01
    Foolbox,
    /// eps 8/255, 10 steps of 2/255
    Torchattacks,
    /// Adversarial robustness toolbox: eps 0.3, 100 steps of 0.1
    Art,
}

impl Preset {
    fn steps(self, attack: AttackArg) -> Steps {
        let (eps, step, steps) = match (self, attack) {
            (Preset::Foolbox, AttackArg::Pgd) => (0.3, 0.01, 40),
            (Preset::Paper | Preset::Foolbox, _) => (0.3, 0.05, 10),
            (Preset::Torchattacks, _) => (8.0 / 255.0, 2.0 / 255.0, 10),
            (Preset::Art, _) => (0.3, 0.1, 100),
        };
        Steps { eps, step, steps }
    }
}

/// Whose answer the attack moves away from.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum AttackLabelArg {
    /// The host's own prediction
    Predicted,
    /// The true label
    True,
}

/// Flags of `ce`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
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
    /// The autoencoder (safetensors); default for fashion: the bundled one
    #[arg(long, value_name = "FILE")]
    ae: Option<PathBuf>,
    /// Where it is spliced in: a number of children of `features`, or the last one's name
    #[arg(long, default_value = "2")]
    tap: String,
    /// Nodes to set to 0, each by itself: `3,7`, `0-4` or `all`
    #[arg(long, default_value = "all")]
    nodes: String,
    /// Nodes to set to 0 together, beside those (`3,7`; repeatable)
    #[arg(long = "set", value_name = "NODES")]
    sets: Vec<String>,
    #[command(flatten)]
    inputs: InputArgs,
    /// The first N test images
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    gate: GateArgs,
}

/// Flags for what is done to the images.
#[derive(Clone, Debug, clap::Args)]
pub struct InputArgs {
    /// Attacks beside the clean input, by comma
    #[arg(long, value_enum, value_delimiter = ',', default_value = "fgsm")]
    attack: Vec<AttackArg>,
    /// Whose eps and steps attacks have, where no flag says otherwise
    #[arg(long, value_enum, default_value = "paper")]
    preset: Preset,
    /// Largest pixel change of attacks and noise: `0.3` or `8/255`; default the preset's
    #[arg(long, value_parser = eps)]
    eps: Option<f32>,
    /// Pixel change in one step of bim and pgd; default the preset's, or the same part of another --eps
    #[arg(long, value_name = "EPS", value_parser = eps)]
    step: Option<f32>,
    /// Steps of bim and pgd; default the preset's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: Option<u32>,
    /// What jsma adds to a pixel, -1 to 1
    #[arg(long, value_name = "THETA", default_value_t = 1.0, allow_negative_numbers = true)]
    theta: f32,
    /// Largest share of pixels that jsma changes
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    gamma: f32,
    /// Random starts of pgd, of which the one that raises the loss most is taken
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    restarts: u32,
    /// Whose answer the attack moves away from
    #[arg(long, value_enum, default_value = "predicted")]
    attack_label: AttackLabelArg,
    /// Pixel masks an image (0: no masking); default 1 from 1000 images on, 32 below
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(..=1024))]
    pub(super) masks: Option<u32>,
    /// Value of masked pixels, 0 to 1
    #[arg(long, default_value = "0", value_parser = eps)]
    fill: f32,
    /// Leave out the random-noise control
    #[arg(long)]
    pub(super) no_control: bool,
}

/// Flags of statistics and gate.
#[derive(Clone, Debug, clap::Args)]
pub struct GateArgs {
    /// Least share of images on which the autoencoder-inserted net must agree with its host
    #[arg(long, default_value_t = 0.95)]
    min_agreement: f64,
    /// With findings: largest mean change of a probability that the autoencoder alone may make
    #[arg(long, value_name = "P", default_value_t = MAX_SHIFT)]
    max_shift: f64,
    /// Bootstrap resamples over images
    #[arg(long, default_value_t = 2000)]
    resamples: usize,
    /// Confidence level of intervals
    #[arg(long, default_value_t = 0.95)]
    level: f64,
    /// auto, or rows a batch; results do not depend on it
    #[arg(long, default_value = "auto")]
    batch: String,
}

/// Images from which on one mask an image is enough: mask noise averages over images.
const ONE_MASK_FROM: usize = 1000;
/// Beyond this an interval no longer changes in any digit that is printed.
const RESAMPLES_MAX: usize = 1_000_000;

impl InputArgs {
    /// Checks what clap cannot.
    pub fn checked(&self) -> Result<(), Error> {
        if self.attack.len() > 1 && self.attack.contains(&AttackArg::None) {
            return Err(Error::Usage("--attack none goes with no other attack".into()));
        }
        if self.theta == 0.0 || !(-1.0..=1.0).contains(&self.theta) {
            return Err(Error::Usage(format!("--theta {}: it is a change of pixels, -1 to 1 and not 0", self.theta)));
        }
        if !(self.gamma > 0.0 && self.gamma <= 1.0) {
            return Err(Error::Usage(format!(
                "--gamma {}: it is a share of pixels, above 0 and at most 1",
                self.gamma
            )));
        }
        Ok(())
    }

    fn steps(&self, attack: AttackArg) -> Steps {
        let preset = self.preset.steps(attack);
        let eps = self.eps.unwrap_or(preset.eps);
        let step = self.step.unwrap_or(if self.eps.is_some() { preset.step * (eps / preset.eps) } else { preset.step });
        Steps { eps, step, steps: self.steps.unwrap_or(preset.steps) }
    }

    /// The inputs beside the clean one, for a study of `images` images.
    pub fn inputs(&self, images: usize) -> Vec<Input> {
        let masks = self.masks.unwrap_or(if images >= ONE_MASK_FROM { 1 } else { 32 });
        let mut inputs = Vec::new();
        if masks > 0 {
            inputs.push(Input::Pwm { masks, fill: self.fill });
        }
        for &attack in &self.attack {
            let steps = self.steps(attack);
            let input = match attack {
                AttackArg::Fgsm => Input::Fgsm { eps: steps.eps },
                AttackArg::Bim => Input::Bim(steps),
                AttackArg::Pgd => Input::Pgd { steps, restarts: self.restarts },
                AttackArg::Jsma => Input::Jsma(Jsma { theta: self.theta, gamma: self.gamma }),
                AttackArg::None => continue,
            };
            if !inputs.contains(&input) {
                inputs.push(input);
            }
        }
        if let Some(eps) = inputs.iter().find_map(Input::eps).filter(|_| !self.no_control) {
            inputs.push(Input::Noise { eps });
        }
        inputs
    }

    /// Whose answer the attack moves away from.
    pub fn label(&self) -> AttackLabel {
        match self.attack_label {
            AttackLabelArg::Predicted => AttackLabel::Predicted,
            AttackLabelArg::True => AttackLabel::True,
        }
    }
}

impl GateArgs {
    /// Checks what clap cannot.
    pub fn checked(&self) -> Result<(), Error> {
        if !(0.0..=1.0).contains(&self.min_agreement) {
            return Err(Error::Usage(format!("--min-agreement {}: it is a share, 0 to 1", self.min_agreement)));
        }
        if !(0.0..=1.0).contains(&self.max_shift) {
            return Err(Error::Usage(format!(
                "--max-shift {}: it is a change of probabilities, 0 to 1",
                self.max_shift
            )));
        }
        if !(self.level > 0.0 && self.level < 1.0) || self.resamples == 0 {
            return Err(Error::Usage("--level lies between 0 and 1, --resamples is at least 1".into()));
        }
        if self.resamples > RESAMPLES_MAX {
            return Err(Error::Usage(format!("--resamples {}: at most {RESAMPLES_MAX}", self.resamples)));
        }
        checked_batch(&self.batch).map(|_| ())
    }

    pub fn min_agreement(&self) -> f64 {
        self.min_agreement
    }

    pub fn max_shift(&self) -> f64 {
        self.max_shift
    }

    pub fn resamples(&self) -> usize {
        self.resamples
    }

    pub fn level(&self) -> f64 {
        self.level
    }

    pub fn batch(&self) -> &str {
        &self.batch
    }
}

/// `ce`.
pub fn run(args: Args) -> Result<(), Error> {
    let context = Context::new(&args.common)?;
    args.inputs.checked()?;
    args.gate.checked()?;
    let (mut config, resume) = match &args.common.resume {
        Some(directory) => RunDirectory::resume_configured::<Config>(directory, "ce")?,
        None => {
            if args.limit == Some(0) {
                return Err(Error::Usage("--limit 0: at least one image is needed".into()));
            }
            let config = Config {
                model: args.model,
                weights: args.weights,
                ae: args.ae,
                tap: args.tap,
                nodes: args.nodes,
                sets: args.sets,
                inputs: args.inputs.inputs(args.limit.unwrap_or(10_000)),
                attack_label: args.inputs.label(),
                limit: args.limit,
                min_agreement: args.gate.min_agreement,
                max_shift: args.gate.max_shift,
                resamples: args.gate.resamples,
                level: args.gate.level,
                seed: args.common.seed,
                data: args.data,
            };
            (config, None)
        }
    };
    // a tap that does not exist is said before weights are asked for
    subject::network(&config.model, &config.data)?.tap(&config.tap)?;
    let (model, host) = subject::host(&config.model, config.weights.as_deref(), &config.data, &context)?;
    let tap = model.tap(&config.tap)?;
    let host_hash = host.hash();
    let (autoencoder, ae) = subject::autoencoder(&config.model, &tap, &host_hash, config.ae.as_deref(), &context)?;
    let loaded = Loaded { model, tap, host, host_hash, autoencoder, ae };
    let batch = loaded.batch(&config, &args.gate.batch, &context)?;
    if args.common.dry_run {
        let images = match config.data.data {
            Some(_) => {
                first_images(&subject::data(&config.data, &loaded.model, &context)?.studied, config.limit)?.len()
            }
            // nothing is fetched for a dry run
            None => config.limit.unwrap_or(10_000),
        };
        config.inputs = args.inputs.inputs(images);
        return ui::print(&cost(&context, &config, &loaded, images, batch)?.told(context.json, ""));
    }
    common::check_out(args.common.out.as_deref())?;
    let sets = subject::data(&config.data, &loaded.model, &context)?;
    let images = first_images(&sets.studied, config.limit)?;
    if resume.is_none() {
        config.inputs = args.inputs.inputs(images.len());
    }
    let manifest = context.manifest("ce", json!(config), hashes(&loaded, &images)?);
    let agreement = gate(&context, &config, &loaded, &images, batch)?;
    let directory = open_directory(args.common.out, resume, &manifest)?;
    let done =
        execute(&context, &config, &loaded, &images, Run { batch, directory, manifest, agreement, part: sets.part })?;
    if context.json {
        return ui::print(&format!("{}\n", done.json()));
    }
    ui::print(&format!("{}{}run {}\n", done.table(), done.notes(), done.directory.display()))
}
