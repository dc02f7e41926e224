//! `map`: where answers come from, as maps of images clean and attacked, and how far attacks move the maps.

mod claim;
mod cost;
mod part;
mod told;
mod work;

pub use part::{Part, Place};
pub use told::Done;

use super::attacks::AttackArg;
use super::ce::{GateArgs, InputArgs};
use super::common::{self, Common, Context, DataArgs, share};
use super::gate::{self, Limits};
use super::study::{self, first_images, input_names, open_directory};
use super::subject::{self, SubjectArgs};
use super::ui;
use crate::attack::Attacked;
use crate::backend::Layered;
use crate::causal::CausalError;
use crate::causal::study::{AttackLabel, Input};
use crate::causal::sweep::Subject;
use crate::data::Dataset;
use crate::error::Error;
use crate::explain::causal::Blocks;
use crate::explain::occlusion::Patch;
use crate::explain::{Answer, Method, Settings, Sign};
use crate::model::autoencoder::Autoencoder;
use crate::model::{Model, Tap};
use crate::report::run::RunDirectory;
use crate::report::table::Kind;
use crate::text::closest;
use crate::weights::Weights;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A method on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum MethodArg {
    /// Causal effect map: each node's channel, weighed with the effect of zeroing it
    Cem,
    /// Causal, place by place: all nodes zeroed in one square of the code
    CemCells,
    /// Causal, through the image: occlusion answered by the autoencoder-inserted net
    CemOcclusion,
    /// Class activation map, where a linear layer lies behind a global average
    Cam,
    /// Maps weighed with the gradient of the class's logit
    GradCam,
    /// Maps weighed with what the answer loses without each
    AblationCam,
    /// What the answer loses where a patch covers the image
    Occlusion,
}

impl From<MethodArg> for Method {
    fn from(method: MethodArg) -> Method {
        match method {
            MethodArg::Cem => Method::Cem,
            MethodArg::CemCells => Method::CemCells,
            MethodArg::CemOcclusion => Method::CemOcclusion,
            MethodArg::Cam => Method::Cam,
            MethodArg::GradCam => Method::GradCam,
            MethodArg::AblationCam => Method::AblationCam,
            MethodArg::Occlusion => Method::Occlusion,
        }
    }
}

/// The answer whose change is measured, on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum AnswerArg {
    /// The class's probability
    Probability,
    /// Its logit
    Logit,
}

/// What is kept of grad-cam and ablation-cam, on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SignArg {
    /// Everything in files and comparisons; pictures show what speaks for the class alone, as published
    Display,
    /// What speaks for the class alone, everywhere; an ablation's drop as part of the answer
    Published,
    /// Everything, also in pictures
    Signed,
}

/// Flags of `map`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    subject: SubjectArgs,
    /// Maps to make, by comma; default: cem (where there is an autoencoder), cam (where there is one), grad-cam
    #[arg(long, value_enum, value_delimiter = ',')]
    method: Vec<MethodArg>,
    /// Class to explain: predicted (by the host on the clean image), label, its number, or all
    #[arg(long, default_value = "predicted")]
    class: String,
    /// Answer whose change is measured; default: of ablation-cam the logit, else the probability (cam and grad-cam: always logits)
    #[arg(long, value_enum)]
    answer: Option<AnswerArg>,
    /// What is kept of grad-cam and ablation-cam
    #[arg(long, value_enum, default_value = "display")]
    sign: SignArg,
    /// Side in pixels of the patch of occlusion and cem-occlusion; default an eighth of the image
    #[arg(long, value_name = "PIXELS")]
    patch: Option<usize>,
    /// From one place of the patch to the next; default half of it
    #[arg(long, value_name = "PIXELS")]
    patch_stride: Option<usize>,
    /// What the patch, and a pixel that a curve takes out, looks like, 0 to 1
    #[arg(long, value_name = "VALUE", default_value = "0", value_parser = share)]
    patch_fill: f32,
    /// Cells of the code, across and down, that cem-cells zeroes together; default: few enough for at most 196 squares
    #[arg(long, value_name = "CELLS")]
    stride: Option<usize>,
    /// Steps of deletion and insertion curves of every clean map; 0: none
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1000))]
    curves: u32,
    /// Images, from the first on, whose maps are drawn
    #[arg(long, value_name = "N", default_value_t = 64)]
    pictures: usize,
    #[command(flatten)]
    inputs: InputArgs,
    /// The first N test images
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    gate: GateArgs,
}

/// What decides a run, as the manifest holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    model: String,
    weights: Option<PathBuf>,
    ae: Option<PathBuf>,
    tap: String,
    methods: Vec<Method>,
    class: String,
    settings: Settings,
    /// What pictures show of grad-cam and ablation-cam.
    drawn: Sign,
    curves: usize,
    pictures: usize,
    inputs: Vec<Input>,
    attack_label: AttackLabel,
    limit: Option<usize>,
    min_agreement: f64,
    max_shift: f64,
    resamples: usize,
    level: f64,
    seed: u64,
    #[serde(flatten)]
    data: DataArgs,
}

/// Which class of an image is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// What the host answers to the clean image.
    Predicted,
    /// The image's label.
    Label,
    /// This one.
    Number(u32),
    /// Every one.
    All,
}

impl Class {
    /// Reads one.
    ///
    /// # Errors
    /// [`CausalError::Name`] with the nearest word, [`CausalError::Index`] for a class past the last.
    fn parse(text: &str, classes: usize) -> Result<Class, CausalError> {
        let index = |index| CausalError::Index { what: "class", index, count: classes };
        match text {
            "predicted" => Ok(Class::Predicted),
            "label" => Ok(Class::Label),
            "all" => Ok(Class::All),
            _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => match text.parse::<u32>() {
                Ok(number) if (number as usize) < classes => Ok(Class::Number(number)),
                number => Err(index(number.map_or(usize::MAX, |n| n as usize))),
            },
            _ => Err(CausalError::Name {
                what: "class to explain (predicted, label, all or a number)",
                text: text.into(),
                nearest: closest(text, &["predicted", "label", "all"]).into(),
            }),
        }
    }
}

/// Host and, where causal maps are asked for, autoencoder in memory.
pub struct Network {
    /// Host.
    model: Model,
    /// Its weights.
    host: Weights,
    /// Their hash.
    host_hash: String,
    /// The autoencoder, where it is put in, and its weights.
    inserted: Option<(Tap, Autoencoder, Weights)>,
}

impl Network {
    /// What maps of `images` depend on beside the configuration.
    fn hashes(&self, images: &Dataset) -> Result<BTreeMap<String, String>, Error> {
        let mut hashes =
            BTreeMap::from([("data".to_string(), images.hash()?), ("host".to_string(), self.host_hash.clone())]);
        hashes.extend(self.inserted.as_ref().map(|(.., ae)| ("autoencoder".to_string(), ae.hash())));
        Ok(hashes)
    }
}

/// The inputs beside the clean one.
fn inputs(args: &InputArgs, images: usize) -> Result<Vec<Input>, Error> {
    if args.victim() != Attacked::Host {
        return Err(Error::Usage("--victim inserted: maps are of images that attack the host; `ce` takes both".into()));
    }
    if args.no_control {
        let reason = "what an attack does to a map is said beside what noise of its size does: leave --no-control out";
        return Err(Error::Usage(reason.into()));
    }
    if args.masks_by_place() {
        let reason = "map masks by chance (--mask grid, pixels, rectangle); boxes and files of masks are `ce`'s";
        return Err(Error::Usage(reason.into()));
    }
    let masks = match args.masks {
        None => 0,
        Some(masks @ 0..=1) => masks,
        Some(masks) => {
            return Err(Error::Usage(format!("--masks {masks}: an image has a map under one mask, or under none (0)")));
        }
    };
    let one = |input: Input| match input {
        Input::Pwm { fill, region, .. } if masks == 1 => Some(Input::Pwm { masks, fill, region }),
        Input::Pwm { .. } => None,
        other => Some(other),
    };
    let inputs: Vec<Input> = args.inputs(images, &[AttackArg::Fgsm]).into_iter().filter_map(one).collect();
    match twins(&inputs) {
        Some(name) => Err(Error::Usage(format!("--eps: two sizes are the same to five digits: {name}"))),
        None => Ok(inputs),
    }
}

/// The name of two inputs, which files of maps could not be told apart by.
pub fn twins(inputs: &[Input]) -> Option<String> {
    let names = input_names(inputs);
    (1..names.len()).find(|&k| names[..k].contains(&names[k])).map(|k| names[k].clone())
}

/// The methods asked for, or those that need nothing more than there is.
fn methods(args: &Args, model: &Model, context: &Context) -> Result<Vec<Method>, Error> {
    let mut chosen: Vec<Method> = Vec::new();
    for method in args.method.iter().map(|&m| Method::from(m)) {
        if !chosen.contains(&method) {
            chosen.push(method);
        }
    }
    if chosen.is_empty() {
        if !args.subject.ae.is_empty() || subject::has_bundled_autoencoder(&args.subject.model) {
            chosen.push(Method::Cem);
        } else {
            context.ui.log("no autoencoder is named with --ae, so no causal maps are made");
        }
        if Method::Cam.check(model).is_ok() {
            chosen.push(Method::Cam);
        }
        chosen.push(Method::GradCam);
    }
    chosen.iter().try_for_each(|method| method.check(model))?;
    Ok(chosen)
}

/// Settings where nobody chooses: signed, in the unit of each method.
fn usual(model: &Model, tap: &Tap) -> Result<Settings, Error> {
    let [_, height, width] = model.input;
    let patch = Patch::usual(height, width);
    patch.places(height, width)?;
    Ok(Settings { answer: None, sign: Sign::Signed, patch, cells: Blocks::usual(tap.shape[1], tap.shape[2]).side })
}

fn settings(args: &Args, model: &Model) -> Result<Settings, Error> {
    let [_, height, width] = model.input;
    let usual = usual(model, &model.tap(&args.subject.tap)?)?;
    let side = args.patch.unwrap_or(usual.patch.side);
    let stride = args.patch_stride.unwrap_or(if args.patch.is_some() { side.div_ceil(2) } else { usual.patch.stride });
    let patch = Patch { side, stride, fill: args.patch_fill };
    patch.places(height, width)?;
    if args.stride == Some(0) {
        return Err(Error::Usage("--stride 0: a square has at least one cell".into()));
    }
    let cells = args.stride.unwrap_or(usual.cells);
    let answer = args.answer.map(|answer| match answer {
        AnswerArg::Probability => Answer::Probability,
        AnswerArg::Logit => Answer::Logit,
    });
    let sign = match args.sign {
        SignArg::Published => Sign::Published,
        SignArg::Display | SignArg::Signed => Sign::Signed,
    };
    Ok(Settings { answer, sign, patch, cells })
}

/// The configuration that the flags ask for.
fn configured(args: &Args, context: &Context) -> Result<Config, Error> {
    if args.limit == Some(0) {
        return Err(Error::Usage("--limit 0: at least one image is needed".into()));
    }
    let model = subject::network(&args.subject.model, &args.data)?;
    Ok(Config {
        model: args.subject.model.clone(),
        weights: args.subject.weights.clone(),
        ae: args.subject.one_ae()?,
        tap: args.subject.tap.clone(),
        methods: methods(args, &model, context)?,
        class: args.class.clone(),
        settings: settings(args, &model)?,
        drawn: match args.sign {
            SignArg::Display | SignArg::Published => Sign::Published,
            SignArg::Signed => Sign::Signed,
        },
        curves: args.curves as usize,
        pictures: args.pictures,
        inputs: inputs(&args.inputs, args.limit.unwrap_or(usize::MAX))?,
        attack_label: args.inputs.label(),
        limit: args.limit,
        min_agreement: args.gate.min_agreement(),
        max_shift: args.gate.max_shift(),
        resamples: args.gate.resamples(),
        level: args.gate.level(),
        seed: args.common.seed,
        data: args.data.clone(),
    })
}

fn load(config: &Config, context: &Context) -> Result<Network, Error> {
    let (model, host) = subject::host(&config.model, config.weights.as_deref(), &config.data, context)?;
    let host_hash = host.hash();
    let inserted = match config.methods.iter().any(|method| method.inserts()) {
        true => {
            let tap = model.tap(&config.tap)?;
            let (ae, weights) = subject::autoencoder(&config.model, &tap, &host_hash, config.ae.as_deref(), context)?;
            Some((tap, ae, weights))
        }
        false => None,
    };
    Ok(Network { model, host, host_hash, inserted })
}

/// The gate of causal effects: causal maps are about the host where the net with the autoencoder answers as it does. What to say
/// where it was lowered.
fn warnings(
    context: &Context,
    config: &Config,
    network: &Network,
    images: &Dataset,
    batch: &str,
) -> Result<Vec<String>, Error> {
    let Some((tap, autoencoder, ae)) = &network.inserted else { return Ok(Vec::new()) };
    let both = Layered(&[&network.host, ae]);
    let (model, attacked) = (&network.model, Attacked::Host);
    let subject = Subject { model, tap, autoencoder, weights: &both, attacked };
    let limits = Limits { min_agreement: config.min_agreement, max_shift: config.max_shift };
    let batch = study::batch(batch, subject, 0, context)?;
    Ok(gate::gate(context, limits, subject, images, batch)?.lowered(limits))
}

/// `map`.
pub fn run(args: Args) -> Result<(), Error> {
    let context = Context::new(&args.common)?;
    args.inputs.checked()?;
    args.gate.checked()?;
    if args.gate.interval() != Kind::Percentile {
        return Err(Error::Usage(
            "--interval bca is for summary.csv of ce and reproduce: maps have percentile intervals".into(),
        ));
    }
    let (config, resume) = match &args.common.resume {
        Some(directory) => RunDirectory::resume_configured::<Config>(directory, "map")?,
        None => (configured(&args, &context)?, None),
    };
    let network = load(&config, &context)?;
    let class = Class::parse(&config.class, network.model.classes)?;
    if class == Class::All && config.curves > 0 {
        return Err(Error::Usage("--curves follow one class of an image: choose another --class than all".into()));
    }
    if args.common.dry_run {
        let images = match config.data.data {
            Some(_) => {
                first_images(&subject::data(&config.data, &network.model, &context)?.studied, config.limit)?.len()
            }
            // nothing is fetched for a dry run
            None => config.limit.unwrap_or(10_000),
        };
        return ui::print(&cost::cost(&context, &config, &network, class, images)?.told(context.json, ""));
    }
    common::check_out(args.common.out.as_deref())?;
    let sets = subject::data(&config.data, &network.model, &context)?;
    let images = first_images(&sets.studied, config.limit)?;
    let manifest = context.manifest("map", json!(config), network.hashes(&images)?);
    let warnings = warnings(&context, &config, &network, &images, args.gate.batch())?;
    let directory = open_directory(args.common.out, resume, &manifest)?;
    let rows = study::checked_batch(args.gate.batch())?;
    let done = work::execute(
        &context,
        &config,
        &network,
        class,
        &images,
        work::Run { rows, directory, manifest, part: sets.part, warnings },
    )?;
    ui::print(&if context.json { format!("{}\n", done.json()) } else { done.text() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_a_word_or_a_number_that_there_is() {
        let read = |text: &str| Class::parse(text, 10);
        assert_eq!(read("predicted"), Ok(Class::Predicted));
        assert_eq!(read("label"), Ok(Class::Label));
        assert_eq!(read("all"), Ok(Class::All));
        assert_eq!(read("9"), Ok(Class::Number(9)));
        assert_eq!(read("10"), Err(CausalError::Index { what: "class", index: 10, count: 10 }));
        assert!(matches!(read("99999999999"), Err(CausalError::Index { .. })));
        for (text, near) in [("predict", "predicted"), ("al", "all"), ("", "all"), ("-1", "all"), ("1.0", "all")] {
            match read(text) {
                Err(CausalError::Name { nearest, .. }) => {
                    assert!(nearest == near || ["", "-1", "1.0"].contains(&text), "{text}: {nearest}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
