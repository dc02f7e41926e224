//! `reproduce`: the paper's experiments from data to verdict. [`fashion`] is its Table 3, with its Figure 3 ([`figure`]), [`networks`]
//! are Tables 1, 2 and 4; what it prints itself is in [`paper`].

mod fashion;
mod figure;
mod networks;
mod paper;

use super::attacks::AttackArg;
use super::ce::{EffectsArg, GateArgs, InputArgs};
use super::common::{Common, Context, DataArgs};
use super::phase::{here, phase};
use super::study::{self, Config, Done, WIDTH};
use crate::attack::Attack;
use crate::causal::mask::Region;
use crate::causal::named_nodes;
use crate::causal::study::Input;
use crate::error::Error;
use crate::text::closest;
use std::fmt::Write;
use std::path::PathBuf;

/// Flags of `reproduce`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which experiment: fashion (Table 3), imagenet (VGG16 and VGG19, Table 4) or chest (CheXNet, Tables 1 and 2)
    experiment: String,
    /// fashion: train classifier and autoencoder anew instead of taking the bundled ones
    #[arg(long)]
    retrain: bool,
    /// imagenet, chest: weights of a network; which one, they tell (repeatable: VGG16's, VGG19's). Default: published features,
    /// fetched, with a head trained here
    #[arg(long, value_name = "FILE")]
    weights: Vec<PathBuf>,
    /// An autoencoder instead of the bundled one, or of training one; its tap, it tells (repeatable)
    #[arg(long, value_name = "FILE", conflicts_with = "retrain")]
    ae: Vec<PathBuf>,
    /// imagenet, chest: only these of the paper's taps
    #[arg(long, value_name = "L", value_delimiter = ',')]
    taps: Vec<usize>,
    /// imagenet, chest: passes over the training images for each autoencoder
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    epochs: Option<u64>,
    /// imagenet, chest: passes for a head that is trained here
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    head_epochs: Option<u64>,
    /// imagenet, chest: train on the first N training images only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    train_limit: Option<u64>,
    /// The first N test images
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Which files hold the table of effects: effects.parquet, effects.csv or both; the run is the same
    #[arg(long, value_enum, default_value = "parquet")]
    effects: EffectsArg,
    /// fashion: maps of the first N of them, clean and attacked (Figure 3); 0: none; default 500
    #[arg(long, value_name = "N")]
    maps: Option<usize>,
    /// fashion: PGD once more by an adversary who knows the detector of claim (d)
    #[arg(long)]
    adaptive: bool,
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
const EXPERIMENTS: [&str; 3] = ["fashion", networks::IMAGENET.name, networks::CHEST.name];

/// `reproduce`.
pub fn run(args: Args) -> Result<(), Error> {
    if !EXPERIMENTS.contains(&args.experiment.as_str()) {
        let nearest = closest(&args.experiment, &EXPERIMENTS);
        return Err(Error::Usage(format!("there is no experiment \"{}\"; did you mean {nearest}?", args.experiment)));
    }
    let context = Context::new(&args.common)?;
    args.inputs.checked()?;
    args.gate.checked()?;
    if args.inputs.masks_boxes() {
        let reason =
            "--mask box and outside-box are `ce`'s: `reproduce chest` measures condition II in a study of its own";
        return Err(Error::Usage(reason.into()));
    }
    if args.limit == Some(0) {
        return Err(Error::Usage("--limit 0: at least one image is needed".into()));
    }
    match args.experiment.as_str() {
        "imagenet" => networks::run(args, &context, &networks::IMAGENET),
        "chest" => networks::run(args, &context, &networks::CHEST),
        _ => fashion::run(args, &context),
    }
}

impl Args {
    /// The study that is asked for, at `tap` of `model`; its inputs are for `images` images, with the attacks `usual` where none
    /// are named.
    fn study(&self, model: &str, tap: usize, images: usize, usual: &[AttackArg]) -> Config {
        Config {
            adaptive: self.adaptive.then_some(true),
            inputs: self.inputs.inputs(images, usual),
            mask_file: self.inputs.mask_file(),
            attack_label: self.inputs.label(),
            victim: self.inputs.victim(),
            limit: self.limit,
            min_agreement: self.gate.min_agreement(),
            max_shift: self.gate.max_shift(),
            resamples: self.gate.resamples(),
            level: self.gate.level(),
            interval: self.gate.interval(),
            effects: self.effects.into(),
            seed: self.common.seed,
            ..Config::plain(model, &tap.to_string(), &self.data)
        }
    }
}

/// What an input is called in the head of a table.
fn heading(input: &Input) -> &'static str {
    match input {
        Input::None => "Z0",
        Input::Pwm { region: Region::Grid10, .. } => "F_i: PWM 10 %",
        Input::Pwm { region: Region::Pixels, .. } => "F_i: 10 % of pixels",
        Input::Pwm { region: Region::Rectangle, .. } => "F_i: rectangle 10 %",
        Input::Pwm { region: Region::Box(_), .. } => "do(symptom masked)",
        Input::Pwm { region: Region::OutsideBox(_), .. } => "control: beside it",
        Input::Pwm { region: Region::File, .. } => "F_i: mask of a file",
        Input::Jpeg { .. } => "control: JPEG",
        Input::Attack(Attack::Fgsm { .. }) => "F_j: FGSM",
        Input::Attack(Attack::Bim(_)) => "F_j: BIM",
        Input::Attack(Attack::Pgd { .. }) => "F_j: PGD",
        Input::Attack(Attack::Jsma(_)) => "F_j: JSMA",
        Input::Noise { .. } => "control: noise",
    }
}

/// Our effects at tap `tap`, and below a node the paper's number where it prints one.
fn table(done: &Done, tap: usize, paper: &[paper::Row]) -> String {
    let inputs = &done.columns.inputs;
    let wide = 6 + tap.to_string().len();
    let mut text = String::new();
    for block in done.blocks() {
        if block.start > 0 {
            text.push('\n');
        }
        let _ = write!(text, "{:<wide$}", "(L,N)");
        block.clone().for_each(|k| {
            let _ = write!(text, "{:<WIDTH$}", heading(&inputs[k]));
        });
        text.truncate(text.trim_end().len());
        text.push('\n');
        for (s, set) in done.sets.iter().enumerate() {
            let _ = write!(text, "{:<wide$}", format!("({tap},{})", named_nodes(set)));
            for k in block.clone() {
                let cell = done.row(s, k).map_or_else(String::new, study::with_interval);
                let _ = write!(text, "{cell:<WIDTH$}");
            }
            let _ = writeln!(text, "{}", done.remark(s));
            for row in paper.iter().filter(|row| row.tap == tap && set.len() == 1 && set.contains(row.node)) {
                if !block.clone().any(|k| row.under(&inputs[k]).is_some()) {
                    continue;
                }
                let _ = write!(text, "{:<wide$}", " paper");
                for k in block.clone() {
                    let cell = row.under(&inputs[k]).map_or_else(String::new, |v| format!("{v:+.4e}"));
                    let _ = write!(text, "{cell:<WIDTH$}");
                }
                text.truncate(text.trim_end().len());
                text.push('\n');
            }
        }
    }
    text
}
