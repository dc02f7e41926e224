//! `inspect`: a network's layers, shapes, parameters and multiply-adds, and for each tap what a sweep re-runs there.

mod kernels;

use super::common::{PrecisionArg, SIDE_MAX};
use super::ui;
use crate::backend::cuda::Precision;
use crate::error::Error;
use crate::model::Model;
use crate::model::autoencoder::{Autoencoder, HIDDEN, NODES};
use serde_json::json;
use std::fmt::Write;

/// Flags of `inspect`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Network
    #[arg(long, default_value = "fashion")]
    model: String,
    /// Only this tap
    #[arg(long)]
    tap: Option<String>,
    /// Nodes of a sweep
    #[arg(long, default_value_t = NODES, value_parser = node_count)]
    nodes: usize,
    /// Side of the images; default: what it was published for
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=SIDE_MAX))]
    crop: Option<u32>,
    /// By which way each layer and those of the autoencoder at --tap (by default 2) run, forward and in gradients, on the CPU
    /// and on CUDA devices, and why
    #[arg(long)]
    kernels: bool,
    /// --kernels: what CUDA devices multiply in
    #[arg(long, value_enum, default_value = "fp32")]
    precision: PrecisionArg,
    /// Results as JSON
    #[arg(long)]
    json: bool,
}

/// The default tap of all verbs.
const TAP: &str = "2";

/// A number of nodes: 1 to 64.
///
/// # Errors
/// A message for clap.
pub fn node_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(nodes @ 1..=64) => Ok(nodes),
        _ => Err("an autoencoder has 1 to 64 nodes".into()),
    }
}

/// Multiply-adds of all layers behind the first `from` children of `features`.
pub fn macs(model: &Model, from: usize) -> u64 {
    model.macs().iter().skip(from).sum()
}

/// Whether training moves a weight by its gradient: the statistics of a batch norm are not counted as parameters.
fn is_trained(key: &str) -> bool {
    !key.contains(".running_")
}

/// `inspect`.
pub fn run(args: Args) -> Result<(), Error> {
    let mut model = Model::named(&args.model)?;
    if let Some(side) = args.crop.map(|side| side as usize) {
        model = model.with_input(side, side)?;
    }
    let only = args.tap.as_deref().map(|t| model.tap(t)).transpose()?;
    let precision = Precision::from(args.precision);
    if args.kernels {
        let tap = only.map_or_else(|| model.tap(TAP), Ok)?;
        let table = kernels::Table::new(&model, &tap, &Autoencoder::at(&tap, HIDDEN, args.nodes), precision)?;
        return ui::print(&if args.json { format!("{}\n", table.json()) } else { table.text() });
    }
    if precision != Precision::Fp32 {
        return Err(Error::Usage("--precision is for `inspect --kernels`".into()));
    }
    let (shapes, macs_of) = (model.shapes(), model.macs());
    let parameters = model.parameters();
    let count = |name: &str| -> usize {
        let own = |key: &str| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')) && is_trained(key);
        parameters.iter().filter(|(key, _)| own(key)).map(|(_, s)| s.len()).sum()
    };
    let total: u64 = macs_of.iter().sum();
    let all: usize = parameters.iter().filter(|(key, _)| is_trained(key)).map(|(_, s)| s.len()).sum();
    let taps: Vec<_> = model.taps().into_iter().filter(|t| only.as_ref().is_none_or(|o| o == t)).collect();
    let sweep = |tap: &crate::model::Tap| {
        let ae = Autoencoder::at(tap, HIDDEN, args.nodes);
        let tail = macs(&model, tap.number);
        let swept = total - tail + ae.macs(tap) + (args.nodes as u64 + 1) * (ae.variant_macs(tap) + tail);
        let naive = (args.nodes as u64 + 1) * (total + ae.macs(tap));
        (ae, tail, swept, naive)
    };
    if args.json {
        let layers: Vec<_> = model
            .layers()
            .zip(&shapes)
            .zip(&macs_of)
            .map(|((c, s), m)| {
                json!({ "name": c.name, "layer": c.layer.describe(), "shape": s.dims(),
                "parameters": count(&c.name), "macs": m })
            })
            .collect();
        let taps: Vec<_> = taps
            .iter()
            .map(|t| {
                let (ae, tail, swept, naive) = sweep(t);
                let weights: usize = ae.parameters().iter().map(|(_, s)| s.len()).sum();
                json!({ "tap": t.number, "name": t.name, "shape": t.shape, "tail_macs": tail,
                    "tail_share": tail as f64 / total as f64, "autoencoder_parameters": weights,
                    "sweep_macs": swept, "naive_macs": naive })
            })
            .collect();
        let out = json!({ "arch": model.arch, "parameters": all, "macs": total, "layers": layers, "taps": taps });
        return ui::print(&format!("{out}\n"));
    }
    let mut text = format!(
        "{}: input {}, {} classes ({}), {all} parameters, {:.3} M multiply-adds an image\n\n",
        model.arch,
        crate::tensor::Shape::from(model.input),
        model.classes,
        model.head,
        total as f64 / 1e6
    );
    // writing to a String cannot fail
    let _ = writeln!(text, "{:<23}{:<34}{:<12}{:>12}{:>12}", "layer", "", "shape", "parameters", "M macs");
    for ((child, shape), macs) in model.layers().zip(&shapes).zip(&macs_of) {
        let _ = writeln!(
            text,
            "{:<23}{:<34}{:<12}{:>12}{:>12.3}",
            child.name,
            child.layer.describe(),
            shape.to_string(),
            count(&child.name),
            *macs as f64 / 1e6
        );
    }
    let _ = writeln!(
        text,
        "\n{:<5}{:<23}{:<12}{:>18}{:>12}{:>22}{:>14}",
        "tap", "behind", "shape", "tail re-run, share", "AE weights", "M macs, sweep/image", "of naive"
    );
    for tap in &taps {
        let (ae, tail, swept, naive) = sweep(tap);
        let weights: usize = ae.parameters().iter().map(|(_, s)| s.len()).sum();
        let _ = writeln!(
            text,
            "{:<5}{:<23}{:<12}{:>18}{:>12}{:>22.1}{:>14}",
            tap.number,
            tap.name,
            crate::tensor::Shape::from(tap.shape).to_string(),
            format!("{:.1} %", 100.0 * tail as f64 / total as f64),
            weights,
            swept as f64 / 1e6,
            format!("{:.0} %", 100.0 * swept as f64 / naive as f64)
        );
    }
    let _ = writeln!(
        text,
        "\nA sweep of {} nodes runs everything in front of the tap once, then each node's decoder and tail; naive runs the\n\
         whole network once a node.",
        args.nodes
    );
    ui::print(&text)
}
