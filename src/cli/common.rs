//! Flags that several commands share, the configuration file, and what a command needs of its surroundings.

use super::ui::{self, Ui};
use crate::backend::cpu::Cpu;
use crate::backend::cuda::{self, Arithmetic, Cuda, Precision};
use crate::backend::{Backend, ConvPath};
use crate::error::Error;
use crate::report::run::{Manifest, RunDirectory};
use crate::text::nearest;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Flags of every command that computes.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// auto (a GPU if there is one), cpu, cuda, cuda:N, cuda:0,1 or cuda:all (several share a sweep)
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// What convolutions and linear layers multiply in (below fp32 on tensor cores, with --device cuda only; recorded)
    #[arg(long, value_enum, default_value = "fp32")]
    pub precision: PrecisionArg,
    /// How 3x3 convolutions run: auto is winograd on the CPU and exact on CUDA (winograd in fp32 only; recorded)
    #[arg(long, value_enum, default_value = "auto")]
    pub conv: ConvArg,
    /// Threads; default: all
    #[arg(long)]
    pub threads: Option<usize>,
    /// Directory of the run; default runs/<verb>-<time>-<hash>; never overwritten
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with an interrupted run, with its own configuration
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    pub resume: Option<PathBuf>,
    /// Results as JSON
    #[arg(long)]
    pub json: bool,
    /// Only errors, warnings and results
    #[arg(long)]
    pub quiet: bool,
    /// Say what would be done, with its cost, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// TOML file with flags as keys (`eps = "8/255"`); the command line wins
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A precision on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PrecisionArg {
    /// The CPU's, everywhere
    Fp32,
    /// 11 bits, the range of fp32
    Tf32,
    /// 11 bits, up to 65504; gradients in tf32
    Fp16,
    /// 8 bits, the range of fp32
    Bf16,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Precision {
        match precision {
            PrecisionArg::Fp32 => Precision::Fp32,
            PrecisionArg::Tf32 => Precision::Tf32,
            PrecisionArg::Fp16 => Precision::Fp16,
            PrecisionArg::Bf16 => Precision::Bf16,
        }
    }
}

/// A convolution path on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ConvArg {
    /// As the device does of itself
    Auto,
    /// As a sum over taps and channels
    Exact,
    /// By Winograd's tiles where they serve: fewer multiplications, rounded otherwise; on CUDA forward only
    Winograd,
}

impl ConvArg {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ConvArg::Auto => "auto",
            ConvArg::Exact => ConvPath::Exact.name(),
            ConvArg::Winograd => ConvPath::Winograd.name(),
        }
    }
}

/// What the flags ask of any device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numerics {
    precision: Precision,
    /// None: as the device does of itself.
    conv: Option<ConvPath>,
}

impl Numerics {
    /// Of `--precision` and `--conv`.
    ///
    /// # Errors
    /// [`Error::Usage`] for both at once.
    pub fn new(precision: PrecisionArg, conv: ConvArg) -> Result<Numerics, Error> {
        let conv = match conv {
            ConvArg::Auto => None,
            ConvArg::Exact => Some(ConvPath::Exact),
            ConvArg::Winograd => Some(ConvPath::Winograd),
        };
        match (precision.into(), conv) {
            (precision, None | Some(ConvPath::Exact)) | (precision @ Precision::Fp32, Some(ConvPath::Winograd)) => {
                Ok(Numerics { precision, conv })
            }
            (reduced, Some(ConvPath::Winograd)) => Err(Error::Usage(format!(
                "--conv winograd multiplies in fp32, --precision {} on tensor cores: choose one of the two",
                reduced.name()
            ))),
        }
    }

    fn on_cuda(self) -> Arithmetic {
        match self.conv {
            Some(ConvPath::Winograd) => Arithmetic::Winograd,
            None | Some(ConvPath::Exact) => self.precision.into(),
        }
    }

    fn on_cpu(self) -> Cpu {
        self.conv.map_or_else(Cpu::new, |conv| Cpu::new().with_conv(conv))
    }
}

/// Where images come from and how they become what the network takes.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct DataArgs {
    /// Images: a directory with a directory a class, of images, of NIH's chest X-rays or of IDX files, or a CSV with the
    /// columns path and label; default for fashion: Fashion-MNIST, found or fetched
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Accept IDX data in --data that is not the published Fashion-MNIST
    #[arg(long)]
    pub any_data: bool,
    /// Side of the square in the middle of each image that the network sees; default: what it was published for
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=SIDE_MAX))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<u32>,
    /// What an image's short side is resized to before; default: 8/7 of --crop
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=SIDE_MAX))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<u32>,
    /// What to do about a file that gives no image
    #[arg(long, value_enum, default_value = "stop")]
    #[serde(skip_serializing_if = "OnBadFileArg::stops")]
    pub on_bad_file: OnBadFileArg,
}

/// Largest side that an image is resized to.
pub const SIDE_MAX: i64 = 4096;

/// What to do about a file that gives no image, on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadFileArg {
    /// Stop with its path
    #[default]
    Stop,
    /// Leave it out, and say how many were
    Skip,
}

impl OnBadFileArg {
    /// Left out of a configuration, so that runs keep their ids.
    fn stops(&self) -> bool {
        *self == OnBadFileArg::Stop
    }
}

/// What a command needs of its surroundings.
pub struct Context {
    /// Log and progress.
    pub ui: Ui,
    /// The devices, of one kind; several share a sweep.
    pub backends: Vec<Box<dyn Backend>>,
    /// Set by Ctrl-C.
    pub stop: Arc<AtomicBool>,
    /// Results as JSON.
    pub json: bool,
}

impl Context {
    /// Threads, device and Ctrl-C as the flags say.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown device or flags that exclude each other, [`Error::Backend`] when the device is not
    /// available.
    pub fn new(common: &Common) -> Result<Context, Error> {
        let ui = Ui::new(common.quiet);
        threads(common.threads)?;
        let backends = backends(&common.device, Numerics::new(common.precision, common.conv)?, ui)?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let on_signal = move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            ui::say("\nstopping at the next safe point; once more stops at once (what is saved stays)");
        };
        // a second handler in one process (tests) keeps the first
        let _ = ctrlc::set_handler(on_signal);
        let context = Context { ui, backends, stop, json: common.json };
        let (devices, threads) = (context.device(), rayon::current_num_threads());
        let several = if context.backends.len() > 1 { format!("{} x ", context.backends.len()) } else { String::new() };
        ui.log(format!("device {several}{devices}, {threads} threads, seed {}", common.seed));
        Ok(context)
    }

    /// The device of everything that one device does.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backends[0]
    }

    /// Its name; that of all, where they differ.
    pub fn device(&self) -> String {
        let mut names: Vec<String> = self.backends.iter().map(|b| b.name()).collect();
        names.dedup();
        names.join(" + ")
    }

    /// A manifest of a run on this device.
    pub fn manifest(&self, verb: &str, configuration: Value, hashes: BTreeMap<String, String>) -> Manifest {
        Manifest::new(verb, configuration, hashes, self.device(), self.backend().details())
    }

    /// True after Ctrl-C.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// More threads than any machine runs at once: beyond, the system refuses to start them.
const THREADS_MAX: usize = 1024;

/// Sizes rayon's pool.
///
/// # Errors
/// [`Error::Usage`] for 0 threads.
pub fn threads(threads: Option<usize>) -> Result<(), Error> {
    match threads {
        None => Ok(()),
        Some(0) => Err(Error::Usage("--threads 0: at least one thread is needed".into())),
        Some(n) if n > THREADS_MAX => Err(Error::Usage(format!("--threads {n}: at most {THREADS_MAX}"))),
        Some(n) => {
            // fails only when the pool exists already, which is then this process's second command (tests)
            let _ = rayon::ThreadPoolBuilder::new().num_threads(n).build_global();
            Ok(())
        }
    }
}

/// What a command would compute.
pub struct Cost {
    /// In words.
    pub what: String,
    /// Floating-point operations.
    pub flop: f64,
    /// How long it would take.
    pub seconds: f64,
    /// The speed that this was estimated from.
    pub flop_per_second: f64,
}

impl Cost {
    /// From operations alone, at 100 GFLOP/s a thread.
    pub fn untimed(what: String, flop: f64) -> Cost {
        let flop_per_second = 1e11 * rayon::current_num_threads() as f64;
        Cost { what, flop, seconds: flop / flop_per_second, flop_per_second }
    }

    /// What a dry run prints; `first` says what comes before that.
    pub fn told(&self, json: bool, first: &str) -> String {
        let threads = rayon::current_num_threads();
        let (tflop, gflops) = (self.flop / 1e12, self.flop_per_second / 1e9);
        if json {
            let what = format!("{first}{}", self.what);
            let out = serde_json::json!({ "dry_run": true, "what": what, "tflop": tflop, "seconds": self.seconds,
                "gflop_per_second": gflops, "threads": threads });
            return format!("{out}\n");
        }
        format!(
            "{first}{}: at most {tflop:.2} TFLOP, about {:.0} s at {gflops:.0} GFLOP/s on {threads} threads\n",
            self.what, self.seconds
        )
    }
}

/// For verbs that make no run: `--out` and `--resume` would be ignored.
///
/// # Errors
/// [`Error::Usage`].
pub fn makes_no_run(common: &Common, verb: &str) -> Result<(), Error> {
    match (&common.out, &common.resume) {
        (None, None) => Ok(()),
        _ => Err(Error::Usage(format!("`{verb}` makes no run directory: --out and --resume do not apply"))),
    }
}

/// Refuses an `--out` that exists before any work is done for it.
///
/// # Errors
/// [`Error::Usage`].
pub fn check_out(out: Option<&std::path::Path>) -> Result<(), Error> {
    out.map_or(Ok(()), RunDirectory::check_free)
}

/// What `--device` takes, as text.
const DEVICES: &str = "auto, cpu, cuda, cuda:N, cuda:0,1 and cuda:all";

/// Numbers of the CUDA devices that `text` names; `None` when it is no CUDA device.
///
/// # Errors
/// [`Error::Usage`] for a text that begins like one.
fn cuda_ordinals(text: &str) -> Result<Option<Vec<usize>>, Error> {
    let unknown = || Error::Usage(format!("--device {text}: there are {DEVICES}"));
    match text.split_once(':') {
        None if text == "cuda" => Ok(Some(vec![0])),
        Some(("cuda", "all")) => Ok(Some((0..cuda::count()?).collect())),
        Some(("cuda", list)) => {
            let number = |n: &str| n.trim().parse::<usize>().map_err(|_| unknown());
            let ordinals: Vec<usize> = list.split(',').map(number).collect::<Result<_, _>>()?;
            let mut sorted = ordinals.clone();
            sorted.sort_unstable();
            match sorted.windows(2).find(|w| w[0] == w[1]) {
                Some(twice) => Err(Error::Usage(format!("--device {text}: names device {} twice", twice[0]))),
                None => Ok(Some(ordinals)),
            }
        }
        _ => Ok(None),
    }
}

/// The devices of that name, at least one. `auto` takes the first GPU, never a simulated one, and says why when a driver is
/// there and it cannot.
///
/// # Errors
/// [`Error::Usage`], also for a precision that the device does not have, or [`Error::Backend`].
pub fn backends(device: &str, numerics: Numerics, ui: Ui) -> Result<Vec<Box<dyn Backend>>, Error> {
    if let Some(ordinals) = cuda_ordinals(device)? {
        let open = |&n: &usize| Ok(Box::new(Cuda::open_with(n, numerics.on_cuda())?) as Box<dyn Backend>);
        return ordinals.iter().map(open).collect();
    }
    let found = match device {
        "cpu" => None,
        "auto" => automatic(numerics, ui)?,
        _ => return Err(Error::Usage(format!("--device {device}: there are {DEVICES}"))),
    };
    match (found, numerics.precision) {
        (Some(gpu), _) => Ok(vec![Box::new(gpu)]),
        (None, Precision::Fp32) => Ok(vec![Box::new(numerics.on_cpu())]),
        (None, reduced) => {
            let given = if device == "auto" { "auto found no GPU" } else { "the CPU computes in fp32" };
            Err(Error::Usage(format!("--precision {} is for --device cuda; {given}", reduced.name())))
        }
    }
}

/// The first GPU; none without a real one. A GPU that lacks the precision is an error.
fn automatic(numerics: Numerics, ui: Ui) -> Result<Option<Cuda>, Error> {
    match cuda::Libraries::get() {
        Ok(libraries) if libraries.simulated.is_none() => match Cuda::open_with(0, numerics.on_cuda()) {
            Ok(gpu) => return Ok(Some(gpu)),
            Err(e) if numerics.precision != Precision::Fp32 => return Err(e.into()),
            Err(e) => ui.log(format!("no GPU is used: {e}")),
        },
        // a simulated device is for those who name it; without a driver there is nothing to say
        _ => {}
    }
    Ok(None)
}

/// `0.3` or `8/255`, 0 to 1.
///
/// # Errors
/// A message for clap.
pub fn share(text: &str) -> Result<f32, String> {
    let value = radius(text)?;
    if value <= 1.0 { Ok(value) } else { Err(format!("`{text}` is outside of 0 to 1")) }
}

/// `0.3` or `8/255`, 0 or more.
///
/// # Errors
/// A message for clap.
pub fn radius(text: &str) -> Result<f32, String> {
    let number = |t: &str| t.trim().parse::<f64>().map_err(|_| format!("`{text}` is neither a number nor a fraction"));
    let value = match text.split_once('/') {
        Some((a, b)) => number(a)? / number(b)?,
        None => number(text)?,
    };
    if (0.0..=1e6).contains(&value) { Ok(value as f32) } else { Err(format!("`{text}` is no size: 0 or more")) }
}

/// Arguments with those of `--config FILE` put behind the verb. A flag that the command line gives itself is left out of
/// the file's, so the command line wins, also for flags that take a list.
///
/// # Errors
/// [`Error::Input`] when the file cannot be read, is no TOML of flags, or has a key that is no flag of the verb.
pub fn with_config_file(mut arguments: Vec<OsString>, command: &clap::Command) -> Result<Vec<OsString>, Error> {
    let text = |a: &OsString| a.to_string_lossy().into_owned();
    let position = arguments.iter().position(|a| a == "--config" || text(a).starts_with("--config="));
    let Some(position) = position else { return Ok(arguments) };
    let path: PathBuf = match text(&arguments[position]).strip_prefix("--config=") {
        Some(path) => path.into(),
        None => match arguments.get(position + 1) {
            Some(path) => path.into(),
            None => return Ok(arguments), // clap says what is missing
        },
    };
    let verb = arguments.iter().enumerate().skip(1).find_map(|(i, a)| Some((i, command.find_subcommand(a)?)));
    let Some((verb, subcommand)) = verb else { return Ok(arguments) };
    let flags: Vec<&str> = subcommand.get_arguments().filter_map(clap::Arg::get_long).collect();
    if !flags.contains(&"config") {
        return Ok(arguments); // clap says so
    }
    let bad = |reason: String| Error::Input { path: path.clone(), reason };
    let file = std::fs::read_to_string(&path).map_err(|e| bad(format!("cannot be read: {e}")))?;
    let table: toml::Table =
        file.parse().map_err(|e: toml::de::Error| bad(format!("is no TOML: {}", e.to_string().trim_end())))?;
    let given = |flag: &str| {
        arguments.iter().any(|a| {
            let a = text(a);
            a.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    };
    let mut extra: Vec<OsString> = Vec::new();
    for (key, value) in table {
        let name = key.replace('_', "-");
        if name == "config" || !flags.contains(&name.as_str()) {
            let hint =
                nearest(&name, flags.iter().copied()).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            return Err(bad(format!("`{key}` is no flag of `{}`{hint}", subcommand.get_name())));
        }
        let flag = format!("--{name}");
        if given(&flag) {
            continue;
        }
        // in one piece, so that a value that begins with a dash is a value
        let with_value = |value: &toml::Value| -> Result<OsString, Error> {
            let nested = || bad(format!("`{key}` is neither a number, a text, a truth value nor a list of them"));
            Ok(format!("{flag}={}", scalar(value).ok_or_else(nested)?).into())
        };
        match &value {
            toml::Value::Boolean(true) => extra.push(flag.into()),
            toml::Value::Boolean(false) => {}
            toml::Value::Array(items) => extra.extend(items.iter().map(with_value).collect::<Result<Vec<_>, _>>()?),
            value => extra.push(with_value(value)?),
        }
    }
    arguments.splice(verb + 1..verb + 1, extra);
    Ok(arguments)
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(s) => Some(s.clone()),
        toml::Value::Integer(i) => Some(i.to_string()),
        toml::Value::Float(f) => Some(f.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eps_takes_numbers_and_fractions_of_255() {
        assert_eq!((radius("0.3"), share("0.3"), radius("2")), (Ok(0.3), Ok(0.3), Ok(2.0)));
        assert_eq!(share("8/255"), Ok((8.0f64 / 255.0) as f32));
        for bad in ["-0.1", "x", "1/0", "0/0", "nan", ""] {
            assert!(radius(bad).is_err() && share(bad).is_err(), "{bad}");
        }
        assert!(share("8").is_err());
    }
}
