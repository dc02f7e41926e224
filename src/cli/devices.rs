//! `devices`: what this program can run on, and why not on the rest.

use super::common::threads;
use super::ui;
use crate::backend::cpu::Cpu;
use crate::backend::cpu::isa::Isa;
use crate::backend::cuda::{self, Cuda};
use crate::backend::{Backend, BackendError};
use crate::error::Error;
use serde_json::{Value, json};
use std::fmt::Write;

/// Flags of `devices`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Threads; default: all
    #[arg(long)]
    threads: Option<usize>,
    /// Results as JSON
    #[arg(long)]
    json: bool,
}

/// `devices`.
pub fn run(args: Args) -> Result<(), Error> {
    threads(args.threads)?;
    let sets: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let (cpu, threads) = (Cpu::new().name(), rayon::current_num_threads());
    // each is opened, so that one which is listed as available can be used
    let gpus: Result<Vec<_>, BackendError> = cuda::count().map(|n| (0..n).map(Cuda::open).collect());
    if args.json {
        let devices = |gpus: &[Result<Cuda, BackendError>]| -> Vec<Value> {
            gpus.iter().map(|gpu| gpu.as_ref().map_or_else(unavailable, described)).collect()
        };
        let cuda = gpus.as_ref().map_or_else(
            unavailable,
            |gpus| json!({ "available": gpus.iter().any(Result::is_ok), "devices": devices(gpus) }),
        );
        let out = json!({ "cpu": { "available": true, "name": cpu, "instruction_sets": sets, "threads": threads },
            "cuda": cuda });
        return ui::print(&format!("{out}\n"));
    }
    let mut text = format!("{cpu}, {threads} threads (instruction sets of this machine: {})\n", sets.join(", "));
    match gpus {
        Err(e) => text += &refusal("cuda", &e),
        Ok(gpus) => {
            for (n, gpu) in gpus.iter().enumerate() {
                match gpu {
                    Err(e) => text += &refusal(&format!("cuda:{n}"), e),
                    Ok(gpu) => {
                        let details = gpu.details();
                        let notes: String =
                            details.notes.iter().map(|(key, value)| format!("{key} {value}, ")).collect();
                        let _ = writeln!(text, "cuda:{n}: {}, {notes}conv {}", gpu.name(), details.conv.name());
                    }
                }
            }
        }
    }
    ui::print(&text)
}

fn described(gpu: &Cuda) -> Value {
    let details = gpu.details();
    let mut out = json!({ "available": true, "name": gpu.name(), "simulated": details.simulated,
        "conv": details.conv.name(), "kernels_sha256": details.kernels_sha256 });
    for (key, value) in details.notes {
        out[key] = json!(value);
    }
    out
}

fn unavailable(e: &BackendError) -> Value {
    json!({ "available": false, "reason": e.to_string(), "hint": hint(e) })
}

fn hint(e: &BackendError) -> Option<&str> {
    match e {
        BackendError::Unavailable { hint, .. } => Some(hint),
        _ => None,
    }
}

fn refusal(device: &str, e: &BackendError) -> String {
    let reason = match e {
        BackendError::Unavailable { reason, .. } => reason.clone(),
        other => other.to_string(),
    };
    let hint = hint(e).map_or(String::new(), |hint| format!("\n  help: {hint}"));
    format!("{device}: not available: {reason}{hint}\n")
}
