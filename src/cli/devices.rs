//! `devices`: what this program can run on, and why not on the rest.

use super::common::{NO_CUDA, threads};
use super::ui;
use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::backend::cpu::isa::Isa;
use crate::error::Error;
use serde_json::json;

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
    let cpu = Cpu::new();
    if args.json {
        let out = json!({ "cpu": { "available": true, "name": cpu.name(), "instruction_sets": sets,
            "threads": rayon::current_num_threads() }, "cuda": { "available": false, "reason": NO_CUDA } });
        return ui::print(&format!("{out}\n"));
    }
    ui::print(&format!(
        "{}, {} threads (instruction sets of this machine: {})\ncuda: not available: {NO_CUDA}\n",
        cpu.name(),
        rayon::current_num_threads(),
        sets.join(", ")
    ))
}
