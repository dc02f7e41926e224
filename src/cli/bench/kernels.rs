//! `bench kernels`: every kernel on every layer of the models. On a GPU, times beside the ceilings that the same process measures;
//! elsewhere what can be known without a clock: registers, occupancy, the main loop, the simulated device's counters, and a
//! roofline by published figures.

use super::Args;
use crate::backend::BackendError;
use crate::backend::cuda::{
    self, CHIPS, Counts, Cuda, Estimate, Libraries, MainLoop, Precision, Resources, cached, kernel_of, main_loops,
    on_tensor_cores, sources,
};
use crate::backend::problems::{Map, Problem, Work, problems};
use crate::cli::common::ConvArg;
use crate::cli::ui::{self, Ui};
use crate::error::Error;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Without a device and without `--sm`: the oldest chip with everything that the kernels use.
const DEFAULT_SM: u32 = 80;

/// The simulated device counts problems up to this size, some tenths of a second each; larger ones with fewer images, if even one
/// is not too much.
const COUNTED_FLOPS: u64 = 40_000_000;
const COUNTED_BYTES: u64 = 16 << 20;

/// `bench kernels`.
pub fn run(args: &Args) -> Result<(), Error> {
    let ui = Ui::new(args.common.quiet);
    crate::cli::common::threads(args.common.threads)?;
    let precision = args.common.precision.into();
    if args.common.conv != ConvArg::Auto {
        return Err(Error::Usage("`bench kernels` lists both paths: --conv does not apply".into()));
    }
    let filter = args.filter.as_deref().unwrap_or_default().to_lowercase();
    let chosen: Vec<(Problem, &str)> = problems()
        .into_iter()
        .filter_map(|p| kernel_of(&p, precision).map(|kernel| (p, kernel)))
        .filter(|(p, kernel)| p.name.to_lowercase().contains(&filter) || kernel.contains(&filter))
        .collect();
    if chosen.is_empty() {
        return Err(Error::Usage(format!("--filter {filter}: no problem and no kernel has that in its name")));
    }
    let compiler = cuda::compiler()?;
    let cuda = device(args, ui)?;
    let (text, out) = match &cuda {
        Some(gpu) if !gpu.is_simulated() => measured(gpu, precision, &chosen, ui)?,
        _ => told(cuda.as_ref(), args.sm, precision, compiler, &chosen, ui)?,
    };
    ui::print(&if args.common.json { format!("{out}\n") } else { text })
}

/// The device to run on; none with `--sm`, and none where `--device auto` finds no driver.
fn device(args: &Args, ui: Ui) -> Result<Option<Cuda>, Error> {
    let (device, precision) = (args.common.device.as_str(), Precision::from(args.common.precision));
    if let Some(sm) = args.sm {
        precision.check(sm)?;
        return Ok(None);
    }
    let ordinal = match device.split_once(':') {
        None if device == "auto" => match Libraries::get() {
            Ok(_) => 0,
            Err(e) => {
                ui.log(format!("no device: {e}"));
                return Ok(None);
            }
        },
        None if device == "cuda" => 0,
        Some(("cuda", number)) if number.parse::<usize>().is_ok() => number.parse().unwrap_or_default(),
        _ => return Err(Error::Usage(format!("--device {device}: `bench kernels` takes auto, cuda and cuda:N"))),
    };
    Ok(Some(Cuda::open_with(ordinal, precision)?))
}

/// Writes one problem's beginning of a line.
fn begin(text: &mut String, (problem, kernel): &(Problem, &str)) {
    let cost = problem.cost();
    let gflop = if cost.flops > 0 { format!("{:.2}", cost.flops as f64 / 1e9) } else { "-".into() };
    let megabytes = cost.bytes as f64 / 1e6;
    let _ = write!(text, "{:<46}{:>6}{gflop:>9}{megabytes:>9.2}  {kernel:<26}", problem.name, problem.rows);
}

fn heading(more: &str) -> String {
    format!("{:<46}{:>6}{:>9}{:>9}  {:<26}{more}\n", "problem", "images", "GFLOP", "MB", "kernel")
}

fn described((problem, kernel): &(Problem, &str)) -> Value {
    let cost = problem.cost();
    json!({ "problem": problem.name, "images": problem.rows, "flops": cost.flops, "bytes": cost.bytes, "kernel": kernel })
}

/// Times on a GPU.
fn measured(gpu: &Cuda, precision: Precision, chosen: &[(Problem, &str)], ui: Ui) -> Result<(String, Value), Error> {
    let name = crate::backend::Backend::name(gpu);
    // 2^15 blocks; 512 MB in and out, beyond every cache
    let arithmetic = Problem::new("", 1 << 15, Work::Fma(256));
    let copy = Problem::new("", 128, Work::Map(Map::Copy, [1024, 1024, 1]));
    let flops = arithmetic.cost().flops as f64 / gpu.trial(&arithmetic)?.seconds()?;
    let bandwidth = copy.cost().bytes as f64 / gpu.trial(&copy)?.seconds()?;
    let mut text = format!(
        "{name}\nmeasured ceilings: {:.2} TFLOP/s of FFMA, {:.0} GB/s of copying\n\n",
        flops / 1e12,
        bandwidth / 1e9
    );
    text += &heading("        µs  TFLOP/s  of FFMA     GB/s  of copy");
    let mut rows = Vec::new();
    let mut progress = ui.progress("kernels", chosen.len() as u64);
    for (number, problem) in chosen.iter().enumerate() {
        progress.set(number as u64);
        let seconds = match gpu.trial(&problem.0).and_then(|mut trial| trial.seconds()) {
            Ok(seconds) => seconds,
            Err(BackendError::OutOfMemory { .. }) => {
                begin(&mut text, problem);
                text += "  out of memory\n";
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let cost = problem.0.cost();
        let (done, moved) = (cost.flops as f64 / seconds, cost.bytes as f64 / seconds);
        begin(&mut text, problem);
        // the ceiling that was measured is not that of tensor cores
        let share = (!on_tensor_cores(problem.1)).then_some(done / flops);
        let of_flops = match share {
            Some(share) if cost.flops > 0 => format!("{:>9.2}{:>7.0} %", done / 1e12, 100.0 * share),
            None if cost.flops > 0 => format!("{:>9.2}{:>9}", done / 1e12, "-"),
            _ => format!("{:>9}{:>9}", "-", "-"),
        };
        let _ =
            writeln!(text, "{:>10.1}{of_flops}{:>9.0}{:>7.0} %", seconds * 1e6, moved / 1e9, 100.0 * moved / bandwidth);
        let mut row = described(problem);
        row["seconds"] = json!(seconds);
        row["flops_per_second"] = json!(done);
        row["share_of_flops"] = json!(share);
        row["bytes_per_second"] = json!(moved);
        row["share_of_bandwidth"] = json!(moved / bandwidth);
        rows.push(row);
    }
    progress.finish();
    let out = json!({ "schema_version": 1, "peer": super::ours(), "job": "kernels", "device": name, "simulated": false,
        "measured": true, "sm": gpu.sm(), "precision": precision.name(), "ceiling_flops": flops, "ceiling_bandwidth": bandwidth, "problems": rows });
    Ok((text, out))
}

/// What the compiler tells of a chip's kernels.
struct Static {
    resources: BTreeMap<String, Resources>,
    /// `None` without nvdisasm.
    loops: Option<BTreeMap<String, MainLoop>>,
}

impl Static {
    fn of(sm: u32, kernels: &BTreeSet<&str>) -> Result<Static, Error> {
        let wanted: Vec<_> = sources().iter().filter(|s| s.kernels.iter().any(|k| kernels.contains(k))).collect();
        let compiled = wanted.par_iter().map(|source| cached(source, sm)).collect::<Result<Vec<_>, _>>()?;
        if compiled.iter().any(|c| c.cubin.is_none()) {
            return Err(Error::Usage(format!("--sm {sm}: this NVRTC makes no machine code for it")));
        }
        let resources = compiled.iter().flat_map(|c| c.resources()).map(|r| (r.kernel.clone(), r)).collect();
        let loops = compiled.par_iter().map(main_loops).collect::<Option<Vec<_>>>();
        Ok(Static { resources, loops: loops.map(|all| all.into_iter().flatten().collect()) })
    }
}

/// What is known without a clock.
fn told(
    simulated: Option<&Cuda>,
    sm: Option<u32>,
    precision: Precision,
    (major, minor): (i32, i32),
    chosen: &[(Problem, &str)],
    ui: Ui,
) -> Result<(String, Value), Error> {
    let sm = sm.or(simulated.map(Cuda::sm)).unwrap_or(DEFAULT_SM);
    let kernels: BTreeSet<&str> = chosen.iter().map(|c| c.1).collect();
    let known = Static::of(sm, &kernels)?;
    let mut text =
        format!("sm_{sm}, {}, NVRTC {major}.{minor}; nothing here is measured by a clock\n", precision.name());
    if known.loops.is_none() {
        text += "the share of FFMA in main loops is missing: there is no nvdisasm in the PATH\n";
    }
    match simulated {
        Some(gpu) => {
            let name = crate::backend::Backend::name(gpu);
            let _ = writeln!(text, "counts: {name}, of fewer images where all are too many for it");
        }
        None => text += "counts are missing: there is no simulated device\n",
    }
    text += "least µs are estimates from published peaks and what else the main loop issues:\n";
    for chip in CHIPS {
        let (tflops, gigabytes) = (chip.flops / 1e12, chip.bandwidth / 1e9);
        let _ = write!(text, "  {:<9}{tflops:>6.1} TFLOP/s, ", chip.name);
        if chosen.iter().any(|c| on_tensor_cores(c.1)) {
            let _ = write!(text, "{:>5.1} in tf32, {:>5.1} in 16 bits, ", chip.tf32 / 1e12, chip.half / 1e12);
        }
        let _ = writeln!(text, "{gigabytes:>5.0} GB/s ({})", chip.source);
    }
    text.push('\n');
    text += &heading("  regs  shared  warps  FFMA  inst/FMA  asked  conflicts   A100 µs   H100 µs   4090 µs  bound");
    let mut rows = Vec::new();
    let mut progress = ui.progress("kernels", chosen.len() as u64);
    for (number, problem) in chosen.iter().enumerate() {
        progress.set(number as u64);
        let resources = known.resources.get(problem.1).cloned().unwrap_or_default();
        let main_loop = known.loops.as_ref().and_then(|l| l.get(problem.1));
        let counts = simulated.map(|gpu| counts(gpu, &problem.0)).transpose()?.flatten();
        let launches = problem.0.launches();
        // that a kernel is on tensor cores, and on which, its code tells
        let told = main_loop.is_some() || !on_tensor_cores(problem.1);
        let estimates = CHIPS.map(|chip| chip.estimate_all(&launches, main_loop).filter(|_| told));
        begin(&mut text, problem);
        line(&mut text, sm, &resources, main_loop, counts, estimates);
        let mut row = described(problem);
        row["registers"] = json!(resources.registers);
        row["spill_bytes"] = json!(resources.spill);
        row["shared_bytes"] = json!(resources.shared);
        row["threads"] = json!(resources.threads);
        row["occupancy"] = resources.occupancy(sm).map_or(
            Value::Null,
            |o| json!({ "blocks": o.blocks, "warps": o.warps, "warps_max": o.warps_max, "limit": o.limit.name() }),
        );
        row["main_loop"] = json!(main_loop.map(|l| &l.mix));
        row["counts"] = counts.map_or(Value::Null, |(rows, c)| {
            json!({ "images": rows, "warp_instructions": c.warp_instructions, "lane_instructions": c.lane_instructions,
                "fma": c.fma, "tensor_macs": c.tensor_macs, "sectors": c.sectors, "bytes": c.bytes,
                "conflicts": c.conflicts })
        });
        row["estimates"] = CHIPS
            .iter()
            .zip(estimates)
            .map(|(chip, e)| json!({ "chip": chip.name, "seconds": e.map(|e| e.seconds), "bound": e.map(|e| e.bound) }))
            .collect();
        rows.push(row);
    }
    progress.finish();
    let chips: Vec<Value> = CHIPS
        .iter()
        .map(|c| {
            json!({ "name": c.name, "flops": c.flops, "flops_tf32": c.tf32, "flops_16_bits": c.half,
                "bandwidth": c.bandwidth, "source": c.source })
        })
        .collect();
    let name = simulated.map(crate::backend::Backend::name);
    let out = json!({ "schema_version": 1, "peer": super::ours(), "job": "kernels", "device": name,
        "simulated": simulated.is_some(), "measured": false, "sm": sm, "precision": precision.name(), "nvrtc": format!("{major}.{minor}"),
        "nvdisasm": known.loops.is_some(), "estimates_from": chips, "problems": rows });
    Ok((text, out))
}

fn line(
    text: &mut String,
    sm: u32,
    resources: &Resources,
    main_loop: Option<&MainLoop>,
    counts: Option<(usize, Counts)>,
    estimates: [Option<Estimate>; 3],
) {
    let or_dash = |value: Option<String>| value.unwrap_or("-".into());
    let warps = or_dash(resources.occupancy(sm).map(|o| format!("{}/{}", o.warps, o.warps_max)));
    let share = main_loop.map(|l| (l.count(&["FFMA"]), l.instructions())).filter(|(ffma, _)| *ffma > 0);
    let share = or_dash(share.map(|(ffma, all)| format!("{:.0} %", 100.0 * ffma as f64 / all as f64)));
    let counts = counts.map(|(_, c)| c);
    let lanes = or_dash(counts.and_then(|c| c.lanes_per_fma()).filter(|l| *l < 100.0).map(|l| format!("{l:.2}")));
    let asked = or_dash(counts.map(|c| format!("{:.2}", 32.0 * c.sectors as f64 / c.bytes.max(1) as f64)));
    let conflicts = or_dash(counts.map(|c| c.conflicts.to_string()));
    let (registers, shared) = (resources.registers, resources.shared);
    let _ = write!(text, "{registers:>6}{shared:>8}{warps:>7}{share:>6}{lanes:>10}{asked:>7}{conflicts:>11}");
    for estimate in estimates {
        let _ = write!(text, "{:>10}", or_dash(estimate.map(|e| format!("{:.1}", e.seconds * 1e6))));
    }
    let mut bounds: Vec<&str> = estimates.iter().flatten().map(|e| e.bound).collect();
    bounds.dedup();
    let _ = writeln!(text, "  {}", bounds.join(", "));
}

/// What a problem's kernels do together, and for how many images; `None` where one is too many for an interpreter.
fn counts(gpu: &Cuda, problem: &Problem) -> Result<Option<(usize, Counts)>, BackendError> {
    let fits = |rows: usize| {
        let cost = problem.with_rows(rows).cost();
        cost.flops <= COUNTED_FLOPS && cost.bytes <= COUNTED_BYTES
    };
    let Some(rows) = std::iter::successors(Some(problem.rows), |r| (*r > 1).then_some(r / 2)).find(|r| fits(*r)) else {
        return Ok(None);
    };
    let mut sum = Counts::default();
    for c in gpu.trial(&problem.with_rows(rows))?.counts()?.values() {
        sum.add(c);
    }
    Ok(Some((rows, sum)))
}
