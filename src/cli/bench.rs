//! `bench`: jobs timed, one JSON line each; the CUDA kernels; and both beside other engines, run alternately.
//!
//! - [`jobs`]: what is timed. [`serve`]: the same on request, as a resident process.
//! - [`compare`]: our side and a peer's, row by row; the peers are in `benches/peers/`.
//! - [`kernels`]: every CUDA kernel on every layer.

mod check;
mod compare;
mod inference;
mod jobs;
mod kernels;
mod peer;
mod profile;
mod rows;
mod serve;
mod side;
mod table;

use super::common::{Common, Context, makes_no_run};
use super::ui;
use crate::backend::Profile;
use crate::error::Error;
use jobs::Work;
use serde_json::json;
use std::path::PathBuf;
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
    /// One Adam step of the whole network
    Train,
    /// One Adam step of the autoencoder at the tap
    TrainAe,
    /// The first answer of a process that was just started, weights from the disk
    Start,
    /// Every CUDA kernel on every layer of the models: times on a GPU, elsewhere what is known without a clock
    Kernels,
    /// The jobs beside a peer's, run alternately on this machine's CPU: times, memory, and whether both found the same
    Compare,
}

impl Job {
    /// As the command line has it.
    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or(String::new(), |v| v.get_name().to_string())
    }
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
    /// Where the autoencoder is spliced in; default: 2 of fashion, 13 of VGG, 8 of DenseNet
    #[arg(long)]
    tap: Option<String>,
    /// Images, of a training those of a step; default: of fashion 256, of a training 100, else 2, and 1 of start
    #[arg(long)]
    images: Option<usize>,
    /// Side of an image; default: what the network was published for
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Nodes
    #[arg(long, default_value_t = 16, value_parser = super::inspect::node_count)]
    nodes: usize,
    /// Timed runs, after those that warm up
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// auto, or rows a batch
    #[arg(long, default_value = "auto")]
    batch: String,
    /// Weights of the network, and of the autoencoder (ae.*) where one is needed; default: fresh ones, speed does not depend on them
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Images as safetensors: x (images x channels x height x width, in [0, 1]) and labels; default: noise
    #[arg(long, value_name = "FILE", conflicts_with_all = ["images", "size"])]
    inputs: Option<PathBuf>,
    /// Runs the job for each line `run` on stdin and answers with a line of JSON, as `bench compare` wants it
    #[arg(long, hide = true)]
    serve: bool,
    /// With --serve: where the result goes
    #[arg(long, hide = true, value_name = "FILE", requires = "serve")]
    result: Option<PathBuf>,
    #[command(flatten)]
    compare: compare::Flags,
    /// kernels: only problems or kernels with this in their name
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// kernels: what the compiler tells for this chip (compute capability times ten), on no device
    #[arg(long, value_name = "N")]
    sm: Option<u32>,
    /// Where the time goes, op by op, beside what the machine can do at most (with --device cpu)
    #[arg(long, conflicts_with = "serve")]
    profile: bool,
    #[command(flatten)]
    common: Common,
}

/// Most images of a job: they are held in memory.
const IMAGES_MAX: usize = 100_000;
const REPEATS_MAX: usize = 10_000;

/// `bench`.
pub fn run(args: Args) -> Result<(), Error> {
    if args.job != Job::Compare {
        makes_no_run(&args.common, "bench")?;
    }
    if args.common.dry_run {
        return Err(Error::Usage("`bench` writes nothing: --dry-run does not apply".into()));
    }
    if args.profile && matches!(args.job, Job::Kernels | Job::Compare | Job::Start) {
        return Err(Error::Usage(format!(
            "--profile is for jobs that are run again and again, not for {}",
            args.job.name()
        )));
    }
    if args.job == Job::Kernels {
        return kernels::run(&args);
    }
    if args.filter.is_some() || args.sm.is_some() {
        return Err(Error::Usage("--filter and --sm are for `bench kernels`".into()));
    }
    let images = args.images.is_none_or(|images| (1..=IMAGES_MAX).contains(&images));
    if !images || !(1..=REPEATS_MAX).contains(&args.repeats) {
        let what = format!("--images takes 1 to {IMAGES_MAX}, --repeats 1 to {REPEATS_MAX}");
        return Err(Error::Usage(what));
    }
    if args.job == Job::Compare {
        return compare::run(&args);
    }
    args.compare.refuse()?;
    let mut context = Context::new(&args.common)?;
    let profile = args.profile.then(|| profile::begin(&mut context)).transpose()?;
    let work = Work::new(&args, &context)?;
    match (args.serve, args.job) {
        (true, job) => serve::run(work, job, &context, args.result.as_deref()),
        (false, Job::Start) => serve::first_answer(work, &context),
        (false, _) => timed(work, &args, &context, profile.as_deref()),
    }
}

/// Times a job and prints it.
fn timed(mut work: Work, args: &Args, context: &Context, profile: Option<&Profile>) -> Result<(), Error> {
    work.run()?;
    profile.into_iter().for_each(Profile::restart);
    let mut seconds = Vec::with_capacity(args.repeats);
    for _ in 0..args.repeats {
        let start = Instant::now();
        work.run()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    profile.into_iter().for_each(Profile::stop);
    let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let mut out = json!({ "peer": ours(), "job": args.job.name(), "model": work.arch, "tap": work.tap, "images": work.images,
        "nodes": work.nodes, "threads": rayon::current_num_threads(), "device": context.device(),
        "live_share": work.live_share, "seconds_median": round(median(&mut seconds)), "seconds_min": round(least) });
    match profile.map(|profile| profile::Profiled::new(profile, args.repeats)) {
        Some(profiled) if args.common.json => out["profile"] = profiled.json(),
        Some(profiled) => return ui::print(&format!("{out}\n{}", profiled.text())),
        None => {}
    }
    ui::print(&format!("{out}\n"))
}

/// Who is measured.
fn ours() -> String {
    format!("intervene {}", env!("CARGO_PKG_VERSION"))
}

fn round(seconds: f64) -> f64 {
    (seconds * 1e5).round() / 1e5
}

/// The middle value, or the mean of the middle two; NaN of none.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len() % 2, values) {
        (_, []) => f64::NAN,
        (1, values) => values[middle],
        (_, values) => (values[middle - 1] + values[middle]) / 2.0,
    }
}
