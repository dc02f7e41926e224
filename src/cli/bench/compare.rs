//! `bench compare`: our side and a peer's as two resident processes, run alternately on the same weights and images.
//!
//! A row: the peer finds its fastest variant in a first process, so that the memory of the others is not counted. Then both
//! sides start, warm up, and take turns (ours, theirs, ours, ...) with a pause, in which the other's threads fall asleep. A
//! start is measured from the spawn of a new process to its first answer. Ratios are of neighbours in time; the row's is
//! their median.

use super::check::{self, Agreement};
use super::jobs::{Inputs, fresh, model};
use super::peer::{Installed, Peer};
use super::rows::{self, Row};
use super::side::Side;
use super::table::{self, Compared, Measured};
use super::{Args, Job};
use crate::atomic::write_atomic;
use crate::cli::common::{Common, Context};
use crate::cli::ui::{self, Ui};
use crate::error::Error;
use crate::model::autoencoder::{Autoencoder, HIDDEN};
use crate::weights::safetensors::{Elements, TensorFile};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

/// Between two runs: idle threads of OpenMP spin for some milliseconds before they sleep.
const PAUSE: Duration = Duration::from_millis(100);
/// Files that the sides, ours and theirs, leave behind.
const RESULTS: [&str; 2] = ["ours.safetensors", "theirs.safetensors"];

/// Flags of `bench compare`.
#[derive(Clone, Debug, clap::Args)]
pub struct Flags {
    /// compare: who with
    #[arg(long, value_enum, default_value = "torch")]
    peer: Peer,
    /// compare: the Python that has the packages of torch or onnxruntime; default: python3
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// compare: only rows with one of these texts in their name, separated by commas
    #[arg(long, value_name = "LIST")]
    jobs: Option<String>,
}

impl Flags {
    /// For the other jobs, which would ignore them.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn refuse(&self) -> Result<(), Error> {
        match (&self.python, &self.jobs, self.peer) {
            (None, None, Peer::Torch) => Ok(()),
            _ => Err(Error::Usage("--peer, --python and --jobs are for `bench compare`".into())),
        }
    }
}

/// `bench compare`.
pub fn run(args: &Args) -> Result<(), Error> {
    if !["auto", "cpu"].contains(&args.common.device.as_str()) {
        return Err(Error::Usage("`bench compare` compares on the CPU: --device does not apply".into()));
    }
    if args.common.resume.is_some() || args.weights.is_some() || args.inputs.is_some() || args.tap.is_some() {
        let what = "`bench compare` makes its own weights and images, at each row's tap: --weights, --inputs, --tap and \
                    --resume do not apply";
        return Err(Error::Usage(what.into()));
    }
    let chosen = rows::chosen(args.compare.jobs.as_deref());
    if chosen.is_empty() {
        let names: Vec<String> = rows::ROWS.iter().map(Row::name).collect();
        let what = format!("--jobs: no row has that in its name; there are {}", names.join(", "));
        return Err(Error::Usage(what));
    }
    let context = Context::new(&Common { device: "cpu".into(), ..args.common.clone() })?;
    let ui = context.ui;
    let directory = tempfile::tempdir().map_err(|e| Error::Failed(format!("no temporary directory: {e}")))?;
    let peer = Installed::find(args.compare.peer, args.compare.python.as_deref(), directory.path(), &context)?;
    let mut lab = Lab {
        args,
        peer,
        directory: directory.path(),
        threads: rayon::current_num_threads(),
        device: context.device(),
        stop: context.stop.clone(),
        weights: None,
    };
    let mut found: Vec<Compared> = Vec::new();
    for row in chosen {
        let row = Row { images: lab.images(&row), ..row };
        // --images makes one of rows that differ in nothing else
        if found.iter().any(|done| done.row.name() == row.name()) {
            continue;
        }
        ui.log(format!("{} ...", row.name()));
        let compared = lab.compare(row, ui);
        if context.stopped() {
            return Err(Error::Stopped("rows that were done are in the file of --out, if it was given".into()));
        }
        found.push(compared?);
        if let Some(path) = &args.common.out {
            lab.record(path, &found)?;
        }
    }
    let name = args.compare.peer.name();
    ui::print(&if args.common.json { format!("{}\n", table::json(&found, name)) } else { table::text(&found, name) })?;
    match table::tally(&found).differ {
        0 => Ok(()),
        n => Err(Error::Validation(format!("{n} of {} rows came to another result than {name}'s", found.len()))),
    }
}

/// Where rows are compared.
struct Lab<'a> {
    args: &'a Args,
    peer: Installed,
    directory: &'a Path,
    threads: usize,
    /// Our side's.
    device: String,
    stop: Arc<AtomicBool>,
    /// Network and tap that the file of weights is for, and the bytes in it.
    weights: Option<(&'static str, &'static str, u64)>,
}

impl Lab<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn images(&self, row: &Row) -> usize {
        if row.job == Job::Start { 1 } else { self.args.images.unwrap_or(row.images) }
    }

    fn compare(&mut self, row: Row, ui: Ui) -> Result<Compared, Error> {
        if let Some(why) = self.peer.peer().lacks(row.job) {
            return Ok(Compared { row, outcome: Err(why.into()) });
        }
        let inputs = self.prepare(&row)?;
        let (variant, tried) = self.fastest_variant(&row, ui)?;
        let mut measured = match row.job {
            Job::Start => self.starts(&row)?,
            _ => self.turns(&row, &variant)?,
        };
        for key in ["tried", "not_run"] {
            measured.ready[1][key] = tried[key].clone();
        }
        measured.agreement = self.agreement(&row, &inputs)?;
        Ok(Compared { row, outcome: Ok(measured) })
    }

    /// Writes weights and images of a row.
    fn prepare(&mut self, row: &Row) -> Result<Inputs, Error> {
        for old in RESULTS {
            // there is none in front of the first row
            let _ = std::fs::remove_file(self.file(old));
        }
        // the small network takes one size alone
        let size = self.args.size.filter(|_| row.model != "fashion");
        let model = model(row.model, size)?;
        if self.weights.is_none_or(|(arch, tap, _)| (arch, tap) != (row.model, row.tap)) {
            let autoencoder = Autoencoder::at(&model.tap(row.tap)?, HIDDEN, self.args.nodes);
            let weights = fresh(&model, &autoencoder, self.args.common.seed);
            weights.save(&self.file("weights.safetensors"))?;
            self.weights = Some((row.model, row.tap, 4 * weights.parameters() as u64));
        }
        let inputs = Inputs::noise(&model, row.images, self.args.common.seed);
        inputs.save(&self.file("inputs.safetensors"))?;
        Ok(inputs)
    }

    /// The flags that both sides take.
    fn flags(&self, command: &mut Command, result: &str) {
        command.args(["--threads", &self.threads.to_string(), "--nodes", &self.args.nodes.to_string()]);
        for (flag, file) in
            [("--weights", "weights.safetensors"), ("--inputs", "inputs.safetensors"), ("--result", result)]
        {
            command.arg(flag).arg(self.file(file));
        }
    }

    fn ours(&self, row: &Row) -> Result<Side, Error> {
        let program = std::env::current_exe().map_err(|e| Error::Failed(format!("this program is not found: {e}")))?;
        let mut command = Command::new(program);
        command.args(["bench", &row.job.name(), "--model", row.model, "--tap", row.tap, "--serve", "--quiet"]);
        command.args(["--device", "cpu", "--batch", &self.args.batch, "--conv", self.args.common.conv.name()]);
        self.flags(&mut command, RESULTS[0]);
        Side::start("our side", command, self.stop.clone())
    }

    fn theirs(&self, row: &Row, variant: Option<&str>) -> Result<Side, Error> {
        let mut command = self.peer.command(row);
        self.flags(&mut command, RESULTS[1]);
        command.args(variant.into_iter().flat_map(|variant| ["--variant", variant]));
        Side::start(&format!("the peer {}", self.peer.peer().name()), command, self.stop.clone())
    }

    /// The peer's fastest variant, and what it says of all.
    fn fastest_variant(&self, row: &Row, ui: Ui) -> Result<(String, Value), Error> {
        if row.job == Job::Start || !self.peer.peer().has_variants() {
            return Ok((String::new(), json!({})));
        }
        let mut side = self.theirs(row, None)?;
        let (ready, took) = side.ready()?;
        side.end()?;
        let variant = ready["variant"].as_str().unwrap_or_default().to_string();
        let tried: Vec<String> = ready["tried"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, seconds)| format!("{name} {:.1} ms", 1e3 * seconds.as_f64().unwrap_or(f64::NAN)))
            .collect();
        ui.log(format!(
            "  its fastest variant, found in {:.0} s, is {variant} ({})",
            took.as_secs_f64(),
            tried.join(", ")
        ));
        Ok((variant, ready))
    }

    /// Both sides resident, in turns.
    fn turns(&self, row: &Row, variant: &str) -> Result<Measured, Error> {
        let (mut ours, mut theirs) = (self.ours(row)?, self.theirs(row, Some(variant))?);
        let ready = [ours.ready()?.0, theirs.ready()?.0];
        let (mut seconds, mut their_seconds) = (Vec::new(), Vec::new());
        for _ in 0..self.args.repeats {
            for (side, seconds) in [(&mut ours, &mut seconds), (&mut theirs, &mut their_seconds)] {
                std::thread::sleep(PAUSE);
                seconds.push(side.turn()?);
            }
        }
        let ends = [ours.end()?, theirs.end()?];
        Ok(self.measured([seconds, their_seconds], ready, &ends))
    }

    /// New processes, in turns, from their start to their first answer.
    fn starts(&self, row: &Row) -> Result<Measured, Error> {
        let (mut seconds, mut their_seconds) = (Vec::new(), Vec::new());
        // the first of each reads its files from the disk, later ones from the system's memory
        let mut last = [(json!({}), json!({})), (json!({}), json!({}))];
        for repeat in 0..=self.args.repeats {
            for (which, seconds) in [&mut seconds, &mut their_seconds].into_iter().enumerate() {
                std::thread::sleep(PAUSE);
                let mut side = if which == 0 { self.ours(row)? } else { self.theirs(row, Some("eager"))? };
                let (ready, took) = side.ready()?;
                last[which] = (ready, side.end()?);
                if repeat > 0 {
                    seconds.push(vec![took.as_secs_f64()]);
                }
            }
        }
        let [(ours, end), (theirs, their_end)] = last;
        Ok(self.measured([seconds, their_seconds], [ours, theirs], &[end, their_end]))
    }

    fn measured(&self, [ours, theirs]: [Vec<Vec<f64>>; 2], ready: [Value; 2], ends: &[Value; 2]) -> Measured {
        Measured {
            ours,
            theirs,
            peaks: [&ends[0], &ends[1]].map(|end| end["peak_bytes"].as_u64()),
            weights: self.weights.map_or(0, |(_, _, bytes)| bytes),
            ready,
            live_share: ends[0]["live_share"].as_f64(),
            agreement: Agreement { same: false, words: String::new() },
        }
    }

    /// What both sides left behind.
    fn agreement(&self, row: &Row, inputs: &Inputs) -> Result<Agreement, Error> {
        let [ours, theirs] = RESULTS.map(|name| numbers(&self.file(name)));
        Ok(check::compared(row.job, &ours?, &theirs?, inputs.x.data()))
    }

    /// Every timing so far, a row a line behind one that says where and how they were made.
    fn record(&self, path: &Path, found: &[Compared]) -> Result<(), Error> {
        let command: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
        let machine = json!({ "os": std::env::consts::OS, "arch": std::env::consts::ARCH, "cpu": processor(),
            "device": self.device, "hardware_threads": std::thread::available_parallelism().map_or(1, usize::from) });
        let head = json!({ "schema_version": 1, "date": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            "command": command, "peer": self.peer.peer().name(), "threads": self.threads, "nodes": self.args.nodes,
            "size": self.args.size, "intervene": env!("CARGO_PKG_VERSION"), "machine": machine });
        Ok(write_atomic(path, |out| {
            writeln!(out, "{head}")?;
            found.iter().try_for_each(|compared| writeln!(out, "{}", table::row_json(compared)))
        })?)
    }
}

/// The one tensor of a side's result.
fn numbers(path: &Path) -> Result<Vec<f64>, Error> {
    if !path.exists() {
        return Err(Error::Failed(format!("a side ended well, but left no result at {}", path.display())));
    }
    let file = TensorFile::open(path)?;
    match file.elements("result")? {
        Some(Elements::F32(values)) => Ok(values.iter().map(|&v| f64::from(v)).collect()),
        Some(Elements::F64(values)) => Ok(values.into_owned()),
        _ => Err(Error::Failed(format!("{}: no floats called `result`", path.display()))),
    }
}

/// What the processor calls itself, where Linux tells.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([' ', '\t', ':']).to_string())
}
