//! `ce`: the causal effect of every node on every answer, clean, masked and attacked, as a run directory. Of several
//! autoencoders [`seeds`] makes one run of them all.

mod seeds;

use super::attacks::{AttackArg, AttackArgs};
use super::common::{self, Common, Context, DataArgs, share};
use super::gate::MAX_SHIFT;
use super::study::{
    Config, Loaded, REFUTE_LEVEL_MAX, Run, checked_adaptive, checked_batch, cost, execute, execute_part, hashes,
    images_of, learnt_from, open_directory, shard_count,
};
use super::subject::{self, SubjectArgs};
use super::ui;
use crate::attack::{Attack, Attacked, Norm};
use crate::causal::compat::Fault;
use crate::causal::fill::{Fill, Made};
use crate::causal::mask::Region;
use crate::causal::study::{AttackLabel, DoValue, Input};
use crate::data::findings::FINDINGS;
use crate::error::Error;
use crate::report::effects::Form;
use crate::report::page::PAGE;
use crate::report::part::{Part, Portion};
use crate::report::run::{Manifest, RunDirectory};
use crate::report::table::Kind;
use crate::text::closest;
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
    /// What nodes are set to: 0, their mean over the images, what they are on another image, or themselves times a factor
    #[arg(long = "do", default_value = "0", value_name = "0|mean|resample|scale:F", value_parser = do_value)]
    value: DoValue,
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
    /// Beside the right arithmetic that of the paper's published notebooks: `icip2019` for all of its faults, or some of
    /// softmax-over-findings, baseline-orig, double-softmax, sign, not-zeroed, mask-outside, one-image, sum
    #[arg(long, value_name = "icip2019|FAULT", value_delimiter = ',', value_parser = faults)]
    compat: Vec<Faults>,
    /// PGD once more by an adversary who knows the detector: what is left of claim (d) then, in detector.json
    #[arg(long)]
    adaptive: bool,
    /// Every node before placebos on clean images: random directions, an untrained autoencoder, other images' answers, and severed
    #[arg(long)]
    refute: bool,
    /// Condition III: a second head behind fourteen findings, and what nodes do to both tasks
    #[arg(long)]
    second_head: bool,
    /// With conditions II and III (`--mask box`, `--second-head`): the effect that is as good as none; default 0.001
    #[arg(long, value_name = "P")]
    margin: Option<f64>,
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
    /// Which pixels are masked; several are inputs of their own
    #[arg(long, value_enum, value_delimiter = ',', default_value = "grid", value_name = "REGION")]
    mask: Vec<MaskArg>,
    /// A picture of the network's image size: what is brighter than half is masked
    #[arg(long, value_name = "PNG", help_heading = None)]
    mask_file: Option<PathBuf>,
    /// Whose boxes `--mask box` and `outside-box` take (`Effusion`); default: of the finding that is marked first on an image
    #[arg(long, value_name = "NAME", value_parser = finding)]
    finding: Option<u32>,
    /// Pixel masks an image (0: no masking); default 1 from 1000 images on, 32 below
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(..=1024))]
    pub(super) masks: Option<u32>,
    /// What masked pixels become: a value of 0 to 1 (or 255), or the image's mean, the image blurred, or noise
    #[arg(long, default_value = "0", value_name = "VALUE|mean|blur|noise", value_parser = fill)]
    fill: Fill,
    /// Beside the other inputs the image as a JPEG file of this quality keeps it
    #[arg(long, value_name = "1-100", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(super) jpeg: Option<u8>,
    /// Leave out the random-noise control
    #[arg(long)]
    pub(super) no_control: bool,
}

/// Where pixels are masked, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MaskArg {
    /// 10 of the 100 cells of a grid, drawn for each image
    Grid,
    /// A tenth of the pixels, each drawn by itself
    Pixels,
    /// A rectangle of a tenth of the image
    Rectangle,
    /// The boxes of a finding; images without are left out
    Box,
    /// As much as the boxes, beside them
    OutsideBox,
}

/// Faults of the published arithmetic, on the command line.
#[derive(Clone, Debug)]
struct Faults(Vec<Fault>);

fn faults(text: &str) -> Result<Faults, String> {
    if text.trim().eq_ignore_ascii_case("icip2019") {
        return Ok(Faults(Fault::ALL.to_vec()));
    }
    let fault = text.parse::<Fault>();
    fault.map(|fault| Faults(vec![fault])).map_err(|e| format!("{e}; `icip2019` names all"))
}

/// What nodes are set to, on the command line.
fn do_value(text: &str) -> Result<DoValue, String> {
    let number = |t: &str| t.parse::<f32>().ok().filter(|f| f.is_finite() && f.abs() <= 1e3);
    match text.trim() {
        "0" | "zero" => Ok(DoValue::Zero),
        "mean" => Ok(DoValue::Mean),
        "resample" => Ok(DoValue::Resample),
        other => match other.strip_prefix("scale:").map(number) {
            Some(Some(factor)) => Ok(DoValue::Scale(factor)),
            Some(None) => Err(format!("`{text}`: the factor is a number of at most 1000 (`scale:0.5`)")),
            None => Err(format!("`{text}` is no value of a node: 0, mean, resample, or scale:0.5")),
        },
    }
}

/// A fill on the command line.
fn fill(text: &str) -> Result<Fill, String> {
    Ok(match text.trim().to_ascii_lowercase().as_str() {
        "mean" => Fill::Made(Made::Mean),
        "blur" => Fill::Made(Made::Blur),
        "noise" => Fill::Made(Made::Noise),
        "255" => Fill::Value(1.0),
        _ => Fill::Value(
            share(text).map_err(|e| format!("{e}; it takes a value of 0 to 1, 255, `mean`, `blur` or `noise`"))?,
        ),
    })
}

/// A finding by its name.
fn finding(text: &str) -> Result<u32, String> {
    let found = FINDINGS.iter().position(|name| name.eq_ignore_ascii_case(text.trim())).map(|i| i as u32);
    found.ok_or_else(|| format!("`{text}` is no finding; the nearest is {}", closest(text, &FINDINGS)))
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
        if self.finding.is_some() && !self.masks_boxes() {
            return Err(Error::Usage("--finding says whose boxes are masked: add --mask box,outside-box".into()));
        }
        if self.masks == Some(0) && self.masks_by_place() {
            return Err(Error::Usage("--masks 0 leaves all masks out, and others are asked for".into()));
        }
        self.attacks.checked()
    }

    /// Whether masks are asked for that chance does not place.
    pub fn masks_by_place(&self) -> bool {
        self.mask_file.is_some() || self.masks_boxes()
    }

    /// Whether boxes of findings are masked, or as much beside them.
    pub fn masks_boxes(&self) -> bool {
        self.mask.iter().any(|mask| matches!(mask, MaskArg::Box | MaskArg::OutsideBox))
    }

    /// The file of a mask.
    pub fn mask_file(&self) -> Option<PathBuf> {
        self.mask_file.clone()
    }

    /// The inputs beside the clean one, for a study of `images` images: with the attacks that are asked for, or `usual`.
    pub fn inputs(&self, images: usize, usual: &[AttackArg]) -> Vec<Input> {
        let masks = self.masks.unwrap_or(if images >= ONE_MASK_FROM { 1 } else { 32 });
        let region = |mask: &MaskArg| match mask {
            MaskArg::Grid => Region::Grid10,
            MaskArg::Pixels => Region::Pixels,
            MaskArg::Rectangle => Region::Rectangle,
            MaskArg::Box => Region::Box(self.finding),
            MaskArg::OutsideBox => Region::OutsideBox(self.finding),
        };
        let mut regions: Vec<Region> = Vec::new();
        for region in self.mask.iter().map(region).chain(self.mask_file.is_some().then_some(Region::File)) {
            if !regions.contains(&region) {
                regions.push(region);
            }
        }
        let masking = regions.into_iter().filter(|_| masks > 0).map(|region| {
            let masks = if region.is_random() { masks } else { 1 };
            Input::Pwm { masks, fill: self.fill, region }
        });
        let jpeg = self.jpeg.map(|quality| Input::Jpeg { quality });
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
        masking.chain(attacks.into_iter().map(Input::Attack)).chain(controls).chain(jpeg).collect()
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
    if !args.value.is_zero() && (args.shapley.is_some() || args.screen || args.refute) {
        let reason = "--shapley, --screen and --refute are about nodes set to 0: leave --do out";
        return Err(Error::Usage(reason.into()));
    }
    args.checked_trainings()?;
    if !args.value.is_zero() && (args.second_head || !args.compat.is_empty()) {
        let reason = "--second-head and --compat are about nodes set to 0: leave --do out";
        return Err(Error::Usage(reason.into()));
    }
    if args.refute && args.gate.level > REFUTE_LEVEL_MAX {
        return Err(Error::Usage(format!("--refute judges at a --level of at most {REFUTE_LEVEL_MAX}")));
    }
    if args.margin.is_some() && !args.second_head && !args.inputs.masks_boxes() {
        return Err(Error::Usage("--margin is for conditions II and III: add --mask box or --second-head".into()));
    }
    if args.margin.is_some_and(|margin| !(margin > 0.0 && margin < 1.0)) {
        return Err(Error::Usage("--margin is a change of a probability: above 0 and below 1".into()));
    }
    if args.limit == Some(0) {
        return Err(Error::Usage("--limit 0: at least one image is needed".into()));
    }
    let config = Config {
        model: args.subject.model,
        weights: args.subject.weights,
        ae: args.subject.ae.first().cloned(),
        further_ae: args.subject.ae.iter().skip(1).cloned().collect(),
        tap: args.subject.tap,
        nodes: args.nodes,
        sets: args.sets,
        others: args.others.then_some(true),
        pairs: args.pairs.then_some(true),
        shapley: args.shapley.map(|n| n as usize),
        screen: args.screen.then_some(true),
        adaptive: args.adaptive.then_some(true),
        refute: args.refute.then_some(true),
        value: args.value,
        second_head: args.second_head.then_some(true),
        margin: args.margin,
        compat: (!args.compat.is_empty()).then(|| args.compat.into_iter().flat_map(|faults| faults.0).collect()),
        mask_file: args.inputs.mask_file(),
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

impl Args {
    /// What several autoencoders at once do not go with: the same number is another node in each of them.
    fn checked_trainings(&self) -> Result<(), Error> {
        if self.subject.ae.len() < 2 {
            return Ok(());
        }
        let named = [
            ("--nodes", self.nodes.trim() != "all"),
            ("--set", !self.sets.is_empty()),
            ("--shard", self.shard.is_some()),
        ];
        match named.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some(("--shard", _)) => {
                Err(Error::Usage("--shard is of one autoencoder: run the parts of each --ae by itself".into()))
            }
            Some((flag, _)) => Err(Error::Usage(format!(
                "{flag} names nodes by number, and with several --ae a number is another node in each: which is which is what is \
                 found out, of all of them"
            ))),
        }
    }
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
    if !config.further_ae.is_empty() {
        return seeds::run(context, (config, resume), batch, asked, dry_run);
    }
    let loaded = load(context, &config)?;
    let batch = loaded.batch(&config, batch, context)?;
    checked_adaptive(&config, loaded.autoencoder.nodes)?;
    if dry_run {
        let images = expected_images(context, &config, &loaded)?;
        if let Some(asked) = &asked {
            config.inputs = asked.inputs.inputs(images, USUAL);
        }
        let part = asked.and_then(|asked| asked.part);
        let images = part.map_or(images, |part| images.div_ceil(part.of));
        return ui::print(&cost(context, &config, &loaded, images, batch)?.told(context.json, ""));
    }
    common::check_out(asked.as_ref().and_then(|asked| asked.out.as_deref()))?;
    let sets = subject::data(&config.data, &loaded.model, context)?;
    let images = images_of(&sets.studied, &config, context)?;
    if let Some(asked) = &asked {
        config.inputs = asked.inputs.inputs(images.len(), USUAL);
    }
    let asked_head = config.second_head == Some(true);
    let learn = asked_head.then(|| learnt_from(&loaded, &sets.training, &images)).transpose()?;
    let mut manifest = context.manifest("ce", json!(config), hashes(&config, &loaded, &images, learn.as_ref())?);
    let agreement = loaded.gate(context, &config, &images, batch)?;
    let (part, out) = asked.map_or((None, None), |asked| (asked.part, asked.out));
    manifest.portion = match (&resume, part) {
        (Some((_, started)), _) => started.portion,
        (None, Some(part)) => Some(Portion { part, shards: shard_count(&config, &loaded, images.len())? }),
        (None, None) => None,
    };
    let portion = manifest.portion;
    let directory = open_directory(out, resume, &manifest)?;
    let run = Run { batch, directory, manifest, agreement, part: sets.part, learn };
    if let Some(portion) = portion {
        let shards = execute_part(context, &config, &loaded, &images, &run)?;
        return ui::print(&told(context, &run, portion, shards));
    }
    let done = execute(context, &config, &loaded, &images, run)?;
    if context.json {
        return ui::print(&format!("{}\n", done.json()));
    }
    let page = done.directory.join(PAGE);
    ui::print(&format!(
        "{}{}claims (a) to (c), detectors and what the nodes are: {}\nrun {}\n",
        done.table(),
        done.notes(),
        page.display(),
        done.directory.display()
    ))
}

/// Host and the (first) autoencoder.
fn load(context: &Context, config: &Config) -> Result<Loaded, Error> {
    // a tap that does not exist is said before weights are asked for
    subject::network(&config.model, &config.data)?.tap(&config.tap)?;
    let (model, host) = subject::host(&config.model, config.weights.as_deref(), &config.data, context)?;
    let tap = model.tap(&config.tap)?;
    let host_hash = host.hash();
    let (autoencoder, ae) = subject::autoencoder(&config.model, &tap, &host_hash, config.ae.as_deref(), context)?;
    Ok(Loaded { model, tap, host, host_hash, autoencoder, ae })
}

/// Images of a study that is not run.
fn expected_images(context: &Context, config: &Config, loaded: &Loaded) -> Result<usize, Error> {
    match config.data.data {
        Some(_) => Ok(images_of(&subject::data(&config.data, &loaded.model, context)?.studied, config, context)?.len()),
        // nothing is fetched for a dry run
        None => Ok(config.limit.unwrap_or(10_000)),
    }
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
