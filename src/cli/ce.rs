//! `ce`: the causal effect of every node on every answer, clean, masked and attacked, as a run directory.

use super::attacks::{AttackArg, AttackArgs};
use super::common::{self, Common, Context, DataArgs, share};
use super::study::{
    Config, Loaded, MAX_SHIFT, Run, checked_batch, cost, execute, execute_part, first_images, gate, hashes,
    open_directory, shard_count,
};
use super::subject::{self, SubjectArgs};
use super::ui;
use crate::attack::{Attack, Attacked, Norm};
use crate::causal::study::{AttackLabel, Input};
use crate::error::Error;
use crate::report::effects::Form;
use crate::report::part::{Part, Portion};
use crate::report::run::{Manifest, RunDirectory};
use crate::report::table::Kind;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Whose answer the attack moves away from.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum AttackLabelArg {
    /// The host's own prediction
    Predicted,
    /// The true label
    True,
}

impl From<AttackLabelArg> for AttackLabel {
    fn from(label: AttackLabelArg) -> AttackLabel {
        match label {
            AttackLabelArg::Predicted => AttackLabel::Predicted,
            AttackLabelArg::True => AttackLabel::True,
        }
    }
}

/// Flags of `ce`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    subject: SubjectArgs,
    /// Nodes to set to 0, each by itself: `3,7`, `0-4` or `all`
    #[arg(long, default_value = "all")]
    nodes: String,
    /// Nodes to set to 0 together, beside those (`3,7`; repeatable)
    #[arg(long = "set", value_name = "NODES")]
    sets: Vec<String>,
    /// Beside each node, all but it together: whether the rest suffices
    #[arg(long)]
    others: bool,
    /// Every pair of nodes together, and what the two do only together
    #[arg(long)]
    pairs: bool,
    /// Shapley values of nodes on clean images, over N orders of nodes and their reverses
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    shapley: Option<u64>,
    /// First-order effects (attribution patching) on clean images, and their rank correlation with the exact ones
    #[arg(long)]
    screen: bool,
    #[command(flatten)]
    inputs: InputArgs,
    /// The first N test images
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only part I of N of the run, for several machines; its directory stays unfinished, and `merge` makes all one run
    #[arg(long, value_name = "I/N", conflicts_with = "resume")]
    shard: Option<Part>,
    /// Which files hold the table of effects: effects.parquet, effects.csv or both; the run is the same
    #[arg(long, value_enum, default_value = "parquet")]
    effects: EffectsArg,
    #[command(flatten)]
    gate: GateArgs,
}

/// Flags for what is done to the images.
#[derive(Clone, Debug, clap::Args)]
pub struct InputArgs {
    #[command(flatten)]
    attacks: AttackArgs,
    /// Whose answer the attack moves away from
    #[arg(long, value_enum, default_value = "predicted")]
    attack_label: AttackLabelArg,
    /// Pixel masks an image (0: no masking); default 1 from 1000 images on, 32 below
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(..=1024))]
    pub(super) masks: Option<u32>,
    /// Value of masked pixels, 0 to 1
    #[arg(long, default_value = "0", value_parser = share)]
    fill: f32,
    /// Leave out the random-noise control
    #[arg(long)]
    pub(super) no_control: bool,
}

/// Kind of intervals on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IntervalArg {
    /// Quantiles of the resamples
    Percentile,
    /// Corrected for bias and skew
    Bca,
}

/// Which files hold the table of effects, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EffectsArg {
    /// Typed columns, a tenth of the size
    Parquet,
    /// Text
    Csv,
    /// The same in each
    Both,
}

impl From<EffectsArg> for Form {
    fn from(effects: EffectsArg) -> Form {
        match effects {
            EffectsArg::Parquet => Form::Parquet,
            EffectsArg::Csv => Form::Csv,
            EffectsArg::Both => Form::Both,
        }
    }
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
    /// Kind of the bootstrap intervals of summary.csv
    #[arg(long, value_enum, default_value = "percentile")]
    interval: IntervalArg,
    /// Confidence level of intervals
    #[arg(long, default_value_t = 0.95)]
    level: f64,
    /// auto, or rows a batch; results do not depend on it
    #[arg(long, default_value = "auto")]
    batch: String,
}

/// Attacks where none is named.
const USUAL: &[AttackArg] = &[AttackArg::Fgsm];
/// Images from which on one mask an image is enough: mask noise averages over images.
const ONE_MASK_FROM: usize = 1000;
/// Beyond this an interval no longer changes in any digit that is printed.
const RESAMPLES_MAX: usize = 1_000_000;

impl InputArgs {
    /// Checks what clap cannot.
    pub fn checked(&self) -> Result<(), Error> {
        self.attacks.checked()
    }

    /// The inputs beside the clean one, for a study of `images` images: with the attacks that are asked for, or `usual`.
    pub fn inputs(&self, images: usize, usual: &[AttackArg]) -> Vec<Input> {
        let masks = self.masks.unwrap_or(if images >= ONE_MASK_FROM { 1 } else { 32 });
        let masking = (masks > 0).then_some(Input::Pwm { masks, fill: self.fill });
        let attacks = self.attacks.attacks(usual);
        // the control of an attack is as large; jsma has no size
        let balls: Vec<(Norm, f32)> = attacks.iter().filter_map(Attack::ball).collect();
        let mut controls: Vec<Input> = Vec::new();
        for (norm, eps) in balls {
            let control = Input::Noise { eps, norm };
            if !self.no_control && !controls.contains(&control) {
                controls.push(control);
            }
        }
        masking.into_iter().chain(attacks.into_iter().map(Input::Attack)).chain(controls).collect()
    }

    /// Which network attacks work on.
    pub fn victim(&self) -> Attacked {
        self.attacks.victim.into()
    }

    /// Whose answer the attack moves away from.
    pub fn label(&self) -> AttackLabel {
        self.attack_label.into()
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

    pub fn interval(&self) -> Kind {
        match self.interval {
            IntervalArg::Percentile => Kind::Percentile,
            IntervalArg::Bca => Kind::Bca,
        }
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
    if let Some(directory) = &args.common.resume {
        let started = RunDirectory::resume_configured::<Config>(directory, "ce")?;
        return study(&context, started, &args.gate.batch, None, args.common.dry_run);
    }
    if args.limit == Some(0) {
        return Err(Error::Usage("--limit 0: at least one image is needed".into()));
    }
    let config = Config {
        model: args.subject.model,
        weights: args.subject.weights,
        ae: args.subject.ae,
        tap: args.subject.tap,
        nodes: args.nodes,
        sets: args.sets,
        others: args.others.then_some(true),
        pairs: args.pairs.then_some(true),
        shapley: args.shapley.map(|n| n as usize),
        screen: args.screen.then_some(true),
        inputs: args.inputs.inputs(args.limit.unwrap_or(10_000), USUAL),
        attack_label: args.inputs.label(),
        victim: args.inputs.victim(),
        limit: args.limit,
        min_agreement: args.gate.min_agreement,
        max_shift: args.gate.max_shift,
        resamples: args.gate.resamples,
        level: args.gate.level,
        interval: args.gate.interval(),
        effects: args.effects.into(),
        seed: args.common.seed,
        data: args.data,
    };
    let asked = Asked { inputs: args.inputs, part: args.shard, out: args.common.out };
    study(&context, (config, None), &args.gate.batch, Some(asked), args.common.dry_run)
}

/// Ends the unfinished run in `directory`, as `--resume` does.
///
/// # Errors
/// As [`run`].
pub fn go_on(context: &Context, directory: &Path) -> Result<(), Error> {
    study(context, RunDirectory::resume_configured::<Config>(directory, "ce")?, "auto", None, false)
}

/// What is asked for beside the configuration, of a run that is started.
struct Asked {
    inputs: InputArgs,
    part: Option<Part>,
    out: Option<PathBuf>,
}

/// Starts or goes on with a study, or a part of one.
fn study(
    context: &Context,
    (mut config, resume): (Config, Option<(RunDirectory, Manifest)>),
    batch: &str,
    asked: Option<Asked>,
    dry_run: bool,
) -> Result<(), Error> {
    // a tap that does not exist is said before weights are asked for
    subject::network(&config.model, &config.data)?.tap(&config.tap)?;
    let (model, host) = subject::host(&config.model, config.weights.as_deref(), &config.data, context)?;
    let tap = model.tap(&config.tap)?;
    let host_hash = host.hash();
    let (autoencoder, ae) = subject::autoencoder(&config.model, &tap, &host_hash, config.ae.as_deref(), context)?;
    let loaded = Loaded { model, tap, host, host_hash, autoencoder, ae };
    let batch = loaded.batch(&config, batch, context)?;
    if dry_run {
        let images = match config.data.data {
            Some(_) => first_images(&subject::data(&config.data, &loaded.model, context)?.studied, config.limit)?.len(),
            // nothing is fetched for a dry run
            None => config.limit.unwrap_or(10_000),
        };
        if let Some(asked) = &asked {
            config.inputs = asked.inputs.inputs(images, USUAL);
        }
        let part = asked.and_then(|asked| asked.part);
        let images = part.map_or(images, |part| images.div_ceil(part.of));
        return ui::print(&cost(context, &config, &loaded, images, batch)?.told(context.json, ""));
    }
    common::check_out(asked.as_ref().and_then(|asked| asked.out.as_deref()))?;
    let sets = subject::data(&config.data, &loaded.model, context)?;
    let images = first_images(&sets.studied, config.limit)?;
    if let Some(asked) = &asked {
        config.inputs = asked.inputs.inputs(images.len(), USUAL);
    }
    let mut manifest = context.manifest("ce", json!(config), hashes(&loaded, &images)?);
    let agreement = gate(context, &config, &loaded, &images, batch)?;
    let (part, out) = asked.map_or((None, None), |asked| (asked.part, asked.out));
    manifest.portion = match (&resume, part) {
        (Some((_, started)), _) => started.portion,
        (None, Some(part)) => Some(Portion { part, shards: shard_count(&config, &loaded, images.len())? }),
        (None, None) => None,
    };
    let portion = manifest.portion;
    let directory = open_directory(out, resume, &manifest)?;
    let run = Run { batch, directory, manifest, agreement, part: sets.part };
    if let Some(portion) = portion {
        let shards = execute_part(context, &config, &loaded, &images, &run)?;
        return ui::print(&told(context, &run, portion, shards));
    }
    let done = execute(context, &config, &loaded, &images, run)?;
    if context.json {
        return ui::print(&format!("{}\n", done.json()));
    }
    ui::print(&format!("{}{}run {}\n", done.table(), done.notes(), done.directory.display()))
}

/// What a part has left, and what to do with it.
fn told(context: &Context, run: &Run, Portion { part, shards }: Portion, made: usize) -> String {
    let at = run.directory.path("");
    if context.json {
        let out = json!({ "run_id": run.manifest.run_id, "run": at, "part": part.number, "of": part.of, "shards": made,
            "shards_of_all": shards });
        return format!("{out}\n");
    }
    let at = at.display();
    format!(
        "part {part} of run {}: {made} of {shards} shards, in {at}; `intervene merge` ends the run when all parts are there\n",
        run.manifest.run_id
    )
}
