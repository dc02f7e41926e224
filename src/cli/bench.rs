//! `bench`: the jobs of the PyTorch peer (benches/peers/torch_ce.py), with the same names and the same JSON line; and the kernels.

mod kernels;
mod profile;

use super::common::{Common, Context, makes_no_run};
use super::{study, ui};
use crate::attack::{Attacked, Targets};
use crate::backend::{Layered, Profile};
use crate::causal::intervention::NodeSet;
use crate::causal::sweep::{Subject, Sweep};
use crate::error::Error;
use crate::model::Model;
use crate::model::autoencoder::{Autoencoder, HIDDEN};
use crate::random::Stream;
use crate::tensor::TensorRef;
use crate::train::classifier::Classifier;
use crate::train::{Schedule, Settings};
use serde_json::json;
use std::time::Instant;

/// Which job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Job {
    /// Expected causal effect of every node on every image
    Sweep,
    /// Plain inference
    Forward,
    /// One FGSM step
    Attack,
    /// One Adam step on a batch of 100
    Train,
    /// Every CUDA kernel on every layer of the models: times on a GPU, elsewhere what is known without a clock
    Kernels,
}

/// Flags of `bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What is measured
    #[arg(value_enum)]
    job: Job,
    /// Network
    #[arg(long, default_value = "fashion")]
    model: String,
    /// Where the autoencoder is spliced in
    #[arg(long, default_value = "2")]
    tap: String,
    /// Images
    #[arg(long, default_value_t = 256)]
    images: usize,
    /// Nodes
    #[arg(long, default_value_t = 16, value_parser = super::inspect::node_count)]
    nodes: usize,
    /// Timed runs, after one that warms up
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// auto, or rows a batch
    #[arg(long, default_value = "auto")]
    batch: String,
    /// kernels: only problems or kernels with this in their name
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// kernels: what the compiler tells for this chip (compute capability times ten), on no device
    #[arg(long, value_name = "N")]
    sm: Option<u32>,
    /// Where the time goes, op by op, beside what the machine can do at most (with --device cpu)
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    common: Common,
}

/// Most images of a job: they are held in memory.
const IMAGES_MAX: usize = 100_000;
const REPEATS_MAX: usize = 10_000;
/// Images of a training step, as in the peer.
const TRAIN_BATCH: usize = 100;

/// `bench`.
pub fn run(args: Args) -> Result<(), Error> {
    makes_no_run(&args.common, "bench")?;
    if args.common.dry_run {
        return Err(Error::Usage("`bench` writes nothing: --dry-run does not apply".into()));
    }
    if args.job == Job::Kernels {
        if args.profile {
            return Err(Error::Usage("--profile is for jobs: `bench kernels` times each kernel anyway".into()));
        }
        return kernels::run(&args);
    }
    if args.filter.is_some() || args.sm.is_some() {
        return Err(Error::Usage("--filter and --sm are for `bench kernels`".into()));
    }
    let mut context = Context::new(&args.common)?;
    let profile = args.profile.then(|| profile::begin(&mut context)).transpose()?;
    if !(1..=IMAGES_MAX).contains(&args.images) || !(1..=REPEATS_MAX).contains(&args.repeats) {
        let what = format!("--images takes 1 to {IMAGES_MAX}, --repeats 1 to {REPEATS_MAX}");
        return Err(Error::Usage(what));
    }
    let model = Model::named(&args.model)?;
    let tap = model.tap(&args.tap)?;
    let autoencoder = Autoencoder::at(&tap, HIDDEN, args.nodes);
    // Speed does not depend on the weights, except that a node of zeros is skipped, which PyTorch's sweep does not do: a
    // bias of 1 on the code keeps every node alive, so that both do the same work.
    let host = model.initial_weights(args.common.seed);
    let mut ae = autoencoder.initial_weights(args.common.seed);
    for (_, bias) in ae.iter_mut().filter(|(name, _)| name == "ae.code.bias") {
        bias.data_mut().fill(1.0);
    }
    let weights = Layered(&[&host, &ae]);
    let subject =
        Subject { model: &model, tap: &tap, autoencoder: &autoencoder, weights: &weights, attacked: Attacked::Host };
    let stream = Stream::new(args.common.seed, "bench");
    let pixels = model.input.iter().product::<usize>();
    let x: Vec<f32> = (0..args.images * pixels).map(|i| stream.uniform(1, i as u32)).collect();
    let labels: Vec<u32> = (0..args.images).map(|i| stream.below(2, i as u32, model.classes as u32)).collect();
    let batch = study::batch(&args.batch, subject, args.nodes, &context)?;

    // variants of nodes that are zero on an image are not run: a reader of the time must know how many were
    let mut live_share = None;
    let seconds = match args.job {
        Job::Sweep => {
            let nodes: Vec<NodeSet> =
                (0..args.nodes).map(|n| NodeSet::of(&[n], args.nodes)).collect::<Result<_, _>>()?;
            let mut sweep = Sweep::new(subject, &nodes, batch, context.backend())?;
            timed(args.repeats, profile.as_deref(), || {
                let effects = sweep.effects(&x)?;
                live_share = Some(effects.live.iter().filter(|l| **l).count() as f64 / effects.live.len() as f64);
                Ok(())
            })?
        }
        Job::Forward => {
            let mut sweep = Sweep::new(subject, &[], batch, context.backend())?;
            timed(args.repeats, profile.as_deref(), || sweep.victim().forward(&x).map(|_| ()).map_err(Error::from))?
        }
        Job::Attack => {
            let mut sweep = Sweep::new(subject, &[], batch, context.backend())?;
            timed(args.repeats, profile.as_deref(), || {
                sweep.victim().fgsm(&x, Targets::Classes(&labels), 0.3).map(|_| ()).map_err(Error::from)
            })?
        }
        Job::Train => {
            let mut classifier = Classifier::new(&model, &host, context.backend(), TRAIN_BATCH)?;
            let settings = Settings {
                learning_rate: 1e-3,
                schedule: Schedule::Constant,
                epochs: 1,
                batch: TRAIN_BATCH,
                seed: args.common.seed,
            };
            let rows: Vec<f32> = x.iter().copied().cycle().take(TRAIN_BATCH * pixels).collect();
            let labels: Vec<u32> = labels.iter().copied().cycle().take(TRAIN_BATCH).collect();
            let nodes = classifier.nodes();
            let mut fit = classifier.fit(&settings, TRAIN_BATCH);
            let mut step = 0;
            timed(args.repeats, profile.as_deref(), || {
                step += 1;
                nodes.write(fit.program, TensorRef::F32(&rows), &labels)?;
                fit.step_once(step, 1e-3).map_err(Error::from)
            })?
        }
        // done above
        Job::Kernels => return Ok(()),
    };
    let job = clap::ValueEnum::to_possible_value(&args.job).map_or(String::new(), |v| v.get_name().to_string());
    let images = if args.job == Job::Train { TRAIN_BATCH } else { args.images };
    let profiled = profile.map(|profile| profile::Profiled::new(&profile, args.repeats));
    let mut out = json!({ "peer": peer(), "job": job, "model": model.arch,
        "tap": tap.number, "images": images, "nodes": args.nodes, "threads": rayon::current_num_threads(),
        "device": context.device(), "live_share": live_share, "seconds_median": round(seconds.0), "seconds_min": round(seconds.1) });
    match profiled {
        Some(profiled) if args.common.json => out["profile"] = profiled.json(),
        Some(profiled) => return ui::print(&format!("{out}\n{}", profiled.text())),
        None => {}
    }
    ui::print(&format!("{out}\n"))
}

/// Who is measured.
fn peer() -> String {
    format!("intervene {}", env!("CARGO_PKG_VERSION"))
}

fn round(seconds: f64) -> f64 {
    (seconds * 1e5).round() / 1e5
}

/// Median and minimum of `repeats` runs after one that warms up; `profile` is of those runs alone.
fn timed(
    repeats: usize,
    profile: Option<&Profile>,
    mut job: impl FnMut() -> Result<(), Error>,
) -> Result<(f64, f64), Error> {
    job()?;
    if let Some(profile) = profile {
        profile.restart();
    }
    let mut seconds = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let start = Instant::now();
        job()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    if let Some(profile) = profile {
        profile.stop();
    }
    seconds.sort_by(f64::total_cmp);
    let middle = seconds.len() / 2;
    let median = if seconds.len() % 2 == 1 { seconds[middle] } else { (seconds[middle - 1] + seconds[middle]) / 2.0 };
    Ok((median, seconds[0]))
}
