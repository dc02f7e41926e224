//! Our side of the protocol that a comparison speaks with both sides (benches/README.md): lines of JSON on stdout, requests
//! on stdin.

use super::jobs::{Outcome, Work};
use super::{Job, ours};
use crate::cli::common::Context;
use crate::cli::ui;
use crate::error::Error;
use crate::tensor::{Shape, argmax};
use crate::weights::safetensors::{self, Elements};
use serde_json::{Value, json};
use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

/// Serves until stdin ends or says `end`.
///
/// # Errors
/// The device's, or a result that cannot be written.
pub fn run(mut work: Work, job: Job, context: &Context, result: Option<&Path>) -> Result<(), Error> {
    let mut last = work.run()?;
    let versions = json!({ "intervene": env!("CARGO_PKG_VERSION") });
    let mut ready = json!({ "ready": true, "variant": context.device(), "versions": versions });
    if job == Job::Start {
        ready["first"] = first(&last);
    } else {
        // warm-up; of a training also the loss in front of its first step and behind it
        let second = work.run()?;
        if matches!(job, Job::Train | Job::TrainAe) {
            last = joined(&last, &second);
        }
    }
    say(&ready)?;
    let trains = matches!(job, Job::Train | Job::TrainAe);
    for line in std::io::stdin().lock().lines() {
        if !line.is_ok_and(|line| line.trim() == "run") {
            break;
        }
        let start = Instant::now();
        let outcome = work.run()?;
        say(&json!({ "seconds": start.elapsed().as_secs_f64() }))?;
        if !trains {
            last = outcome;
        }
    }
    let peak = peak_bytes();
    if let Some(path) = result {
        safetensors::write(path, &[("result", &last.shape, last.values)], &Default::default())?;
    }
    say(&json!({ "peak_bytes": peak, "variant": context.device(), "live_share": work.live_share, "result": result }))
}

/// `bench start` on its own: what a user waits for.
///
/// # Errors
/// The device's.
pub fn first_answer(mut work: Work, context: &Context) -> Result<(), Error> {
    let first = first(&work.run()?);
    say(&json!({ "peer": ours(), "job": Job::Start.name(), "model": work.arch, "threads": rayon::current_num_threads(),
        "device": context.device(), "first": first }))
}

/// The answer on the first image.
fn first(outcome: &Outcome) -> Value {
    let Elements::F32(logits) = &outcome.values else { return Value::Null };
    let row = &logits[..outcome.shape.dims().last().copied().unwrap_or(0).min(logits.len())];
    argmax(row).map_or(Value::Null, |class| json!({ "class": class, "logit": row[class] }))
}

/// Two losses as one result.
fn joined(first: &Outcome, second: &Outcome) -> Outcome {
    let of = |outcome: &Outcome| match &outcome.values {
        Elements::F64(values) => values.to_vec(),
        _ => Vec::new(),
    };
    let both = [of(first), of(second)].concat();
    Outcome { shape: Shape::from([both.len()]), values: Elements::F64(both.into()) }
}

fn say(line: &Value) -> Result<(), Error> {
    ui::print(&format!("{line}\n"))
}

/// The most memory that this process had; `None` where the system does not say (it is Linux that does).
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
