//! `train-ae`: the autoencoder at a tap of a frozen host. Also the second phase of `reproduce --retrain`.

use super::{CHECKPOINT, FitArgs, Live, Run, planned, splits, what};
use crate::backend::Layered;
use crate::cli::common::{self, Common, Context, Cost, DataArgs};
use crate::cli::subject::{self, Sets};
use crate::cli::{inspect, ui};
use crate::error::Error;
use crate::model::autoencoder::{Autoencoder, HIDDEN, NODES};
use crate::model::{Model, Tap};
use crate::report::run::{Manifest, RunDirectory};
use crate::train::autoencoder::{self as ae, Interpretability, LossWeights, Objective, Quality, Trainer};
use crate::train::{Settings, unit};
use crate::weights::Weights;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

/// Form of the interpretability loss on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FormArg {
    /// mean |z| + TV(z)
    Plain,
    /// The same over rms(z)
    ScaleFree,
}

/// Flags of `train-ae`.
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
    /// Where it is spliced in: a number of children of `features`, or the last one's name
    #[arg(long, default_value = "2")]
    tap: String,
    /// Code channels: the nodes
    #[arg(long, default_value_t = NODES)]
    code: usize,
    /// Width of the hidden layers
    #[arg(long, default_value_t = HIDDEN)]
    hidden: usize,
    /// Form of the interpretability loss
    #[arg(long, value_enum, default_value = "plain")]
    interpretability: FormArg,
    /// Weights of the interpretability, shallow and deep losses; default 0.1,0.5,0.4
    #[arg(long, value_name = "LI,LS,LD", value_delimiter = ',', default_values_t = [0.1, 0.5, 0.4], hide_default_value = true)]
    loss_weights: Vec<f64>,
    #[command(flatten)]
    fit: FitArgs,
}

/// Widest hidden layers: beyond, the graph would not fit any memory.
const HIDDEN_MAX: usize = 4096;
/// Epochs of the autoencoder.
pub const AUTOENCODER_EPOCHS: u64 = 4;

/// What decides an autoencoder's training.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AutoencoderConfig {
    /// Network.
    pub model: String,
    /// Host weights; none means the bundled ones.
    pub weights: Option<PathBuf>,
    /// Tap.
    pub tap: String,
    /// Code channels.
    pub code: usize,
    /// Hidden width.
    pub hidden: usize,
    /// Losses.
    pub objective: Objective,
    /// Optimiser.
    pub settings: Settings,
    /// Training images used, from the first.
    pub limit: Option<usize>,
    /// Where images come from and how they are cut.
    #[serde(flatten)]
    pub data: DataArgs,
}

/// A trained autoencoder and where it was saved.
pub struct TrainedAutoencoder {
    /// Its weights, with metadata.
    pub weights: Weights,
    /// On the test images.
    pub test: Quality,
    /// The finished run.
    pub directory: PathBuf,
}

/// `train-ae`.
pub fn run(args: Args) -> Result<(), Error> {
    let context = Context::new(&args.common)?;
    let (config, resume) = match &args.common.resume {
        None => {
            let [interpretability, shallow, deep] = args.loss_weights[..] else {
                return Err(Error::Usage("--loss-weights takes three numbers: LI,LS,LD".into()));
            };
            if !args.loss_weights.iter().all(|w| *w >= 0.0 && w.is_finite()) {
                return Err(Error::Usage("--loss-weights: each must be a number from 0 on".into()));
            }
            if args.code == 0 || args.code > 64 || args.hidden == 0 || args.hidden > HIDDEN_MAX {
                return Err(Error::Usage(format!("--code takes 1 to 64 channels, --hidden 1 to {HIDDEN_MAX}")));
            }
            let form = match args.interpretability {
                FormArg::Plain => Interpretability::Plain,
                FormArg::ScaleFree => Interpretability::ScaleFree,
            };
            let settings = args.fit.settings(args.common.seed, AUTOENCODER_EPOCHS, &args.model)?;
            let config = AutoencoderConfig {
                model: args.model,
                weights: args.weights,
                tap: args.tap,
                code: args.code,
                hidden: args.hidden,
                objective: Objective { form, weights: LossWeights { interpretability, shallow, deep }, unit: 1.0 },
                settings,
                limit: args.fit.limit,
                data: args.data,
            };
            (config, None)
        }
        Some(directory) => RunDirectory::resume_configured(directory, "train-ae")?,
    };
    let model = subject::network(&config.model, &config.data)?;
    let tap = model.tap(&config.tap)?;
    if args.common.dry_run {
        let ae = Autoencoder::at(&tap, config.hidden, config.code);
        let images = planned(&config.data, &model, config.limit, &context)? * config.settings.epochs as f64;
        let per_image = 3 * ae.macs(&tap) + 3 * inspect::macs(&model, tap.number);
        let flop = 2.0 * per_image as f64 * images;
        return ui::print(&Cost::untimed(what(&config.settings, images), flop).told(context.json, ""));
    }
    common::check_out(args.common.out.as_deref())?;
    let (model, host) = subject::host(&config.model, config.weights.as_deref(), &config.data, &context)?;
    let sets = subject::data(&config.data, &model, &context)?;
    let trained = train_autoencoder(&context, &config, &sets, (&model, &host), args.common.out, resume)?;
    let file = trained.directory.join(AUTOENCODER_FILE);
    if context.json {
        let out = json!({ "quality": trained.test, "weights": file, "sha256": trained.weights.hash() });
        return ui::print(&format!("{out}\n"));
    }
    ui::print(&format!("{}weights {} (sha256 {})\n", describe(&trained.test), file.display(), trained.weights.hash()))
}

/// Name of an autoencoder's weights in its run directory.
pub const AUTOENCODER_FILE: &str = "autoencoder.safetensors";

/// An autoencoder's quality in words.
pub fn describe(q: &Quality) -> String {
    let dead: Vec<String> = q.dead.iter().map(usize::to_string).collect();
    format!(
        "test images: same top-1 as the host {:.2} %, accuracy {:.2} % (host {:.2} %), KL {:.4}, relative L1 {:.3}\n\
         code: mean {:.4}, rms {:.4}, {} of {} channels dead{}{}\n",
        100.0 * q.agreement,
        100.0 * q.accuracy_ae,
        100.0 * q.accuracy_orig,
        q.deep,
        q.relative_l1,
        q.code_mean,
        q.code_rms,
        q.dead.len(),
        q.live_share.len(),
        if dead.is_empty() { "" } else { ": " },
        dead.join(" ")
    )
}

/// Trains an autoencoder (also for `reproduce --retrain`).
///
/// # Errors
/// [`Error::Interrupted`] after a checkpoint, or what went wrong.
pub fn train_autoencoder(
    context: &Context,
    config: &AutoencoderConfig,
    sets: &Sets,
    (model, host): (&Model, &Weights),
    out: Option<PathBuf>,
    resume: Option<(RunDirectory, Manifest)>,
) -> Result<TrainedAutoencoder, Error> {
    let started = Instant::now();
    let tap: Tap = model.tap(&config.tap)?;
    let shape = Autoencoder::at(&tap, config.hidden, config.code);
    let (train, validation) = splits(sets, config.limit, config.settings.batch)?;
    let host_hash = host.hash();
    let hashes = BTreeMap::from([
        ("data".to_string(), sets.training.hash()?),
        ("test data".to_string(), sets.test.hash()?),
        ("host".to_string(), host_hash.clone()),
    ]);
    let mut run = Run::open(context, "train-ae", out, resume, json!(config), hashes)?;
    let initial = shape.initial_weights(config.settings.seed);
    let both = Layered(&[host, &initial]);
    let batch = config.settings.batch;
    let unit = unit::unit(model, &tap, &both, context.backend(), &train)?;
    if unit != 1.0 {
        context.ui.log(format!("values at {} are of the size of {unit}: losses are in units of that", tap.name));
    }
    let objective = Objective { unit, ..config.objective };
    let mut job = Trainer::new(model, &tap, &shape, &both, context.backend(), batch, objective)?;
    let nodes = job.nodes();
    let steps = (train.len() / batch) as u64 * config.settings.epochs;
    let mut live = Live {
        context,
        directory: run.directory.path(CHECKPOINT),
        run_id: run.manifest.run_id.clone(),
        bar: context.ui.progress("training the autoencoder", steps),
        seed: config.settings.seed,
        images: train.len() as u32,
        upcoming: Box::new(|_, which| train.announce(which)),
        feed: Box::new(|program, _, which| ae::feed(program, &nodes, &train, which)),
        validate: Box::new(|program| {
            let q = ae::evaluate(program, &nodes, &validation)?;
            let [gi, gs, gd] = ae::gradient_norms(program, &nodes, &validation)?;
            let figures = [
                ("loss", q.loss),
                ("interpretability", q.interpretability),
                ("shallow", q.shallow),
                ("deep", q.deep),
                ("gradient_interpretability", gi),
                ("gradient_shallow", gs),
                ("gradient_deep", gd),
                ("agreement", q.agreement),
                ("code_mean", q.code_mean),
                ("code_rms", q.code_rms),
                ("dead", q.dead.len() as f64),
            ];
            Ok(figures.map(|(n, v)| (n.to_string(), v)).to_vec())
        }),
    };
    let (mut best, position) = run.fit(context, &mut job.fit(&config.settings, train.len()), &mut live)?;
    drop(live);
    // two of these would be two networks in memory
    drop(job);
    let both = Layered(&[host, &best]);
    let test = Trainer::new(model, &tap, &shape, &both, context.backend(), batch, objective)?.evaluate(&sets.test)?;
    unit::fold(&mut best, unit);
    let mut weights = Weights::of(AUTOENCODER_FILE, best);
    weights.metadata = BTreeMap::from([
        ("arch".into(), model.arch.into()),
        ("tap".into(), tap.name.clone()),
        ("host_sha256".into(), host_hash),
        ("config_sha256".into(), run.manifest.run_id.clone()),
        (
            "trained_by".into(),
            format!("intervene {} train-ae, seed {}", env!("CARGO_PKG_VERSION"), config.settings.seed),
        ),
    ]);
    let results = json!({ "test": test, "unit": unit, "best": position.best });
    let seconds = started.elapsed().as_secs_f64();
    let directory = run.finish(&weights, AUTOENCODER_FILE, &position, results, seconds)?;
    Ok(TrainedAutoencoder { weights, test, directory })
}
