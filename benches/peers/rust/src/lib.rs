//! Plain inference in engines of Rust, as peers of `intervene bench compare`: flags, protocol and networks, which they share.

pub mod network;
pub mod weights;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use weights::{Array, TensorFile};

/// Which versions were built.
const LOCK: &str = include_str!("../Cargo.lock");

/// What `bench compare` asks for.
pub struct Flags {
    /// The network's name.
    pub model: String,
    /// How many threads may compute.
    pub threads: usize,
    weights: PathBuf,
    inputs: PathBuf,
    variant: Option<String>,
    result: Option<PathBuf>,
}

impl Flags {
    /// Those of the command line; what is about other jobs is taken and ignored.
    ///
    /// # Errors
    /// A job that is not `forward`, or a flag that is missing.
    pub fn read() -> Result<Flags> {
        let mut arguments = std::env::args().skip(1);
        ensure!(arguments.next().as_deref() == Some("forward"), "the one job is `forward`");
        let mut values = HashMap::new();
        while let Some(flag) = arguments.next() {
            if !["--serve", "--compile"].contains(&flag.as_str()) {
                let value = arguments.next().with_context(|| format!("{flag} takes a value"))?;
                values.insert(flag, value);
            }
        }
        let mut take = |flag: &str| values.remove(flag).with_context(|| format!("{flag} is missing"));
        Ok(Flags {
            model: take("--model")?,
            threads: take("--threads")?.parse().context("--threads takes a number")?,
            weights: take("--weights")?.into(),
            inputs: take("--inputs")?.into(),
            variant: take("--variant").ok(),
            result: take("--result").ok().map(PathBuf::from),
        })
    }

    /// The network's weights.
    ///
    /// # Errors
    /// A file that is not safetensors.
    pub fn weights(&self) -> Result<TensorFile> {
        TensorFile::open(&self.weights)
    }

    /// Images x channels x height x width, so many images in an array.
    ///
    /// # Errors
    /// A file without them.
    pub fn images(&self, at_once: usize) -> Result<Vec<Array>> {
        let Array { mut shape, values } = TensorFile::open(&self.inputs)?.array("x")?;
        shape[0] = at_once;
        let pixels = shape.iter().product();
        Ok(values.chunks(pixels).map(|part| Array { shape: shape.clone(), values: part.to_vec() }).collect())
    }

    /// How many images there are.
    fn image_count(&self) -> Result<usize> {
        let shape = TensorFile::open(&self.inputs)?.array("x")?.shape;
        ensure!(shape.len() == 4 && shape[0] > 0, "x of {shape:?} is not images x channels x height x width");
        Ok(shape[0])
    }
}

/// Names of the variants: how many images go through the network at once.
const WHOLE: &str = "all images at once";
const SINGLY: &str = "image by image";

/// Runs the network for every line `run`, until a line says something else. `load` makes it ready for so many images at once,
/// as a function that gives the logits of all; `package` is whose version is told.
///
/// # Errors
/// Those of `load` and its function, or a result that cannot be written.
pub fn serve<F: FnMut() -> Result<Vec<f32>>>(
    flags: &Flags,
    package: &str,
    load: impl Fn(usize) -> Result<F>,
) -> Result<()> {
    let images = flags.image_count()?;
    let load = |variant: &str| load(if variant == SINGLY { 1 } else { images });
    let mut tried = Vec::new();
    if flags.variant.is_none() {
        for variant in [WHOLE, SINGLY].into_iter().take(images.min(2)) {
            tried.push((variant, best_of(&mut load(variant)?)?));
        }
    }
    let fastest = tried.iter().min_by(|a, b| a.1.total_cmp(&b.1)).map(|(variant, _)| *variant);
    let variant = flags.variant.as_deref().or(fastest).unwrap_or(WHOLE);
    let mut forward = load(variant)?;
    // warm-up
    forward()?;
    let mut logits = forward()?;
    let tried: HashMap<_, _> = tried.into_iter().collect();
    say(json!({ "ready": true, "variant": variant, "tried": tried, "versions": { package: version(package) } }))?;
    for line in std::io::stdin().lock().lines() {
        if line?.trim() != "run" {
            break;
        }
        let start = Instant::now();
        logits = forward()?;
        say(json!({ "seconds": start.elapsed().as_secs_f64() }))?;
    }
    let peak = peak_bytes();
    if let Some(path) = &flags.result {
        save(path, &logits)?;
    }
    say(json!({ "peak_bytes": peak, "variant": variant, "result": flags.result }))
}

/// The least seconds of three runs behind one that warms up.
fn best_of(forward: &mut impl FnMut() -> Result<Vec<f32>>) -> Result<f64> {
    forward()?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        forward()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn say(line: Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn save(path: &Path, values: &[f32]) -> Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F64, vec![values.len()], &bytes)?;
    Ok(safetensors::serialize_to_file([("result", view)], None, path)?)
}

/// The one that Cargo.lock has.
fn version(package: &str) -> Option<&'static str> {
    let (_, rest) = LOCK.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    rest.split('"').next()
}

/// The most memory that this process had, where the system says so (it is Linux that does).
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
