//! A finished study, in words: its table, what to know about the numbers, and the same as JSON.

use super::refute::Refuted;
use super::{Conditions, Floor, Verdicts};
use crate::attack::method::change;
use crate::causal::analysis::{Columns, Quantity};
use crate::causal::claims::LIVE_MIN;
use crate::causal::effect::Reading;
use crate::causal::intervention::NodeSet;
use crate::causal::named_nodes;
use crate::causal::study::Input;
use crate::detect::DetectorReport;
use crate::interval::Interval;
use crate::model::Head;
use crate::report::table::Row;
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;

/// A finished study.
pub struct Done {
    /// Its columns.
    pub columns: Columns,
    /// Sets of nodes, singles first.
    pub sets: Vec<NodeSet>,
    /// Rows of `summary.csv`.
    pub rows: Vec<Row>,
    /// How far rounding alone moves effects.
    pub floor: Floor,
    /// The paper's claims (a) to (c).
    pub verdicts: Verdicts,
    /// Conditions II and III, where they were asked for.
    pub conditions: Option<Conditions>,
    /// What faults of the published arithmetic do, where that was asked for.
    pub compat: Option<String>,
    /// The nodes before placebos, where that was asked for.
    pub refuted: Option<Refuted>,
    /// Claim (d), where images were attacked.
    pub detector: Option<DetectorReport>,
    /// Warnings of the run.
    pub warnings: Vec<String>,
    /// Where it is.
    pub directory: PathBuf,
    /// Hash of configuration, weights and data.
    pub run_id: String,
    /// Level of the intervals.
    pub level: f64,
    /// How the network answers.
    pub head: Head,
}

/// `-7.41 [-7.60, -7.22] e-2`: one power of ten for all three, that of the largest.
pub fn with_interval(row: &Row) -> String {
    figures(row.summary.mean, row.interval)
}

/// The same of any mean.
pub fn figures(mean: Option<f64>, interval: Option<Interval>) -> String {
    let (Some(mean), Some(i)) = (mean, interval) else { return "not a number".into() };
    let largest = mean.abs().max(i.lo.abs()).max(i.hi.abs());
    if largest == 0.0 {
        return "0".into();
    }
    let power = largest.log10().floor() as i32;
    let scaled = |x: f64| x / 10f64.powi(power);
    format!("{:+.2} [{:+.2}, {:+.2}] e{power}", scaled(mean), scaled(i.lo), scaled(i.hi))
}

/// Names of inputs, with their sizes where two have the same name: `fgsm 8/255`.
pub fn input_names(inputs: &[Input]) -> Vec<String> {
    let name = |input: &Input| {
        let twins = inputs.iter().filter(|other| other.name() == input.name()).count();
        let size = input.eps().filter(|_| twins > 1).map_or(String::new(), |eps| format!(" {}", change(eps)));
        format!("{}{size}", input.name())
    };
    inputs.iter().map(name).collect()
}

/// A set of nodes on a terminal: `3+7`, `all but 3`.
fn shown(set: &NodeSet) -> String {
    let others: Vec<String> = (0..set.channels()).filter(|&n| !set.contains(n)).map(|n| n.to_string()).collect();
    match others.len() {
        1 | 2 if set.len() > 2 => format!("all but {}", others.join("+")),
        _ => named_nodes(set),
    }
}

/// Columns of a table cell on a terminal.
pub const WIDTH: usize = 28;
/// Cells beside each other.
const COLUMNS: usize = 4;

impl Done {
    /// The row of a set under an input's own reading (Z0, else R1).
    pub fn row(&self, set: usize, input: usize) -> Option<&Row> {
        let estimand = self.head.estimand().name();
        let reading = if input == 0 { Reading::Z0 } else { Reading::R1 };
        self.rows.iter().find(|r| r.set == set && r.input == input && r.reading == reading && r.estimand == estimand)
    }

    /// Whether a set is live: |Z0 mean| above the threshold.
    pub fn live(&self, set: usize) -> bool {
        self.row(set, 0).and_then(|r| r.summary.mean).is_some_and(|m| m.abs() > LIVE_MIN)
    }

    /// A remark on a set: dead everywhere or on clean images, below the floor, small, or not to be told from 0.
    pub fn remark(&self, set: usize) -> &'static str {
        let Some(row) = self.row(set, 0) else { return "" };
        let dead = |k: usize| self.row(set, k).is_none_or(|r| r.live_share == 0.0);
        match row.summary.mean {
            _ if (0..self.columns.inputs.len()).all(dead) => "dead",
            _ if row.live_share == 0.0 => "dead when clean",
            Some(mean) if mean.abs() <= self.floor.largest => "below floor",
            _ if !self.live(set) => "below 1e-4",
            _ if row.interval.is_some_and(|i| i.lo <= 0.0 && 0.0 <= i.hi) => "not told from 0",
            _ => "",
        }
    }

    /// Mean effects of every set under every input.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let names = input_names(&self.columns.inputs);
        let wide = self.sets.iter().map(|set| shown(set).len() + 2).max().unwrap_or(0).max(8);
        for inputs in self.blocks() {
            if inputs.start > 0 {
                text.push('\n');
            }
            let _ = write!(text, "{:<wide$}", "node");
            for k in inputs.clone() {
                let _ = write!(text, "{:<WIDTH$}", if k == 0 { "Z0" } else { &names[k] });
            }
            text.push('\n');
            for (s, set) in self.sets.iter().enumerate() {
                let _ = write!(text, "{:<wide$}", shown(set));
                for input in inputs.clone() {
                    let cell = self.row(s, input).map_or_else(String::new, with_interval);
                    let _ = write!(text, "{cell:<WIDTH$}");
                }
                let _ = writeln!(text, "{}", self.remark(s));
            }
        }
        text
    }

    /// Inputs that stand beside each other in a table on a terminal: four at most.
    pub fn blocks(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let inputs = self.columns.inputs.len();
        (0..inputs).step_by(COLUMNS).map(move |first| first..inputs.min(first + COLUMNS))
    }

    /// What to know about the numbers.
    pub fn notes(&self) -> String {
        let recon = self.columns.mean(0, 0, Quantity::Recon);
        let mut text = format!(
            "Mean expected causal effect (do minus idle) over {} images, {:.0} % intervals over images.\n\
             Beside the node stands the autoencoder itself: putting it in costs {recon:+.2e} (clean); total = that + the node's.\n\
             Dead nodes are 0 on every image: effect exactly 0. Numerical floor {:.1e}: the largest difference from the f64\n\
             reference over {} images{}; means below it say nothing.\n",
            self.columns.images(),
            100.0 * self.level,
            self.floor.largest,
            self.floor.images,
            if self.floor.sets < self.sets.len() {
                format!(" and the {} interventions of the largest effects", self.floor.sets)
            } else {
                String::new()
            }
        );
        let names = input_names(&self.columns.inputs);
        let wide = names.iter().map(String::len).max().unwrap_or(0).max("clean".len());
        for (k, name) in names.iter().enumerate() {
            let correct = self.columns.mean(k, 0, Quantity::Correct);
            let accuracy = match self.head {
                // an image has any number of findings: their areas say how good the host is
                Head::Sigmoid => String::new(),
                Head::Softmax if correct.is_finite() => format!(", host accuracy {:.2} %", 100.0 * correct),
                Head::Softmax => ", host accuracy unknown: not every image has a label".into(),
            };
            let _ = writeln!(
                text,
                "{:<wide$} autoencoder agrees with its host on {:.2} % of images{accuracy}",
                if k == 0 { "clean" } else { name },
                100.0 * self.columns.mean(k, 0, Quantity::Agreement)
            );
        }
        if let Some(conditions) = &self.conditions {
            let _ = write!(text, "{conditions}");
        }
        text += self.compat.as_deref().unwrap_or_default();
        if let Some(refuted) = &self.refuted {
            let _ = write!(text, "{refuted}");
        }
        for adaptive in self.detector.iter().flat_map(|detector| &detector.adaptive) {
            let _ = writeln!(text, "{}", adaptive.words);
        }
        self.warnings.iter().for_each(|w| text += &format!("warning: {w}\n"));
        text
    }

    /// The same as JSON.
    pub fn json(&self) -> serde_json::Value {
        let rows: Vec<serde_json::Value> = self
            .rows
            .iter()
            .map(|r| {
                json!({ "node": named_nodes(&self.sets[r.set]), "input": self.columns.inputs[r.input].name(),
                    "eps": self.columns.inputs[r.input].eps(), "reading": r.reading.name(), "estimand": r.estimand, "mean": r.summary.mean,
                    "ci_lo": r.interval.map(|i| i.lo), "ci_hi": r.interval.map(|i| i.hi), "n": r.summary.n,
                    "live_share": r.live_share, "p": r.p, "p_adj": r.p_adjusted })
            })
            .collect();
        let mut out = json!({ "schema_version": crate::report::run::SCHEMA_VERSION, "run_id": self.run_id, "run": self.directory,
            "numerical_floor": self.floor.largest, "warnings": self.warnings, "rows": rows });
        if let Some(refuted) = &self.refuted {
            out["refuters"] = refuted.brief();
        }
        out
    }
}
