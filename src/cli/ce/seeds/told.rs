//! What is said of several trainings: the nodes that are the same, their effects over all, how far the orders agree.

use crate::causal::effect::Reading;
use crate::causal::matching::Match;
use crate::causal::seeds::{Order, SeedEffect};
use crate::causal::study::Input;
use crate::cli::study::{WIDTH, figures, input_names};
use crate::interval::quantile;
use crate::report::run::{Manifest, SCHEMA_VERSION};
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// The results of a run of several autoencoders.
pub(super) struct Told<'a> {
    pub effects: Vec<SeedEffect>,
    pub orders: Vec<Order>,
    /// Of every autoencoder but the first.
    pub matches: &'a [Vec<Option<Match>>],
    /// The clean one first.
    pub inputs: Vec<Input>,
    pub images: usize,
    /// Images that nodes are matched on.
    pub matched_on: usize,
    pub level: f64,
}

/// How well an autoencoder's nodes are matched with the first's.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Matched {
    /// Its number.
    ae: usize,
    /// Nodes of the first that are one of its.
    matched: usize,
    /// Their median correlation.
    median_correlation: Option<f64>,
}

impl Told<'_> {
    /// How well every autoencoder's nodes are matched.
    pub fn matched(&self) -> Vec<Matched> {
        let of = |(ae, matches): (usize, &Vec<Option<Match>>)| {
            let mut correlations: Vec<f64> = matches.iter().flatten().map(|found| found.correlation).collect();
            correlations.sort_unstable_by(f64::total_cmp);
            Matched { ae, matched: correlations.len(), median_correlation: quantile(&correlations, 0.5) }
        };
        (2..).zip(self.matches).map(of).collect()
    }

    fn nodes(&self) -> usize {
        self.matches.first().map_or(0, Vec::len)
    }

    /// A node under an input's own reading.
    fn effect(&self, node: usize, input: usize) -> Option<&SeedEffect> {
        let reading = if input == 0 { Reading::Z0 } else { Reading::R1 };
        self.effects.iter().find(|e| e.node == node && e.input == input && e.reading == reading)
    }

    /// A line a node: its partners, its effect over seeds and images, and what of it is the seeds'.
    fn table(&self) -> String {
        const PARTNER: usize = 12;
        let names = input_names(&self.inputs);
        let mut text = format!("{:<6}", "node");
        (2..2 + self.matches.len()).for_each(|k| text += &format!("{:<PARTNER$}", format!("ae-{k} (r)")));
        for (k, name) in names.iter().enumerate() {
            let _ = write!(text, "{:<WIDTH$}", if k == 0 { "Z0" } else { name });
        }
        text += "seeds' share  rank (kept)\n";
        for node in 0..self.nodes() {
            let mut line = format!("{node:<6}");
            for matches in self.matches {
                let found = matches.get(node).copied().flatten();
                let partner = found.map_or("-".into(), |found| format!("{} ({:.2})", found.node, found.correlation));
                let _ = write!(line, "{partner:<PARTNER$}");
            }
            for input in 0..self.inputs.len() {
                let cell = self.effect(node, input).map_or_else(String::new, |e| figures(e.mean, e.interval));
                let _ = write!(line, "{cell:<WIDTH$}");
            }
            let clean = self.effect(node, 0);
            let share = clean.and_then(|e| e.split).map_or("-".into(), |split| format!("{:.0} %", 100.0 * split.seeds));
            let rank = clean.and_then(|e| e.rank);
            let rank = rank.map_or("-".into(), |rank| format!("{} ({:.0} %)", rank.place, 100.0 * rank.kept));
            let _ = writeln!(text, "{}", format!("{line}{share:<14}{rank}").trim_end());
        }
        text
    }

    /// As it is printed.
    pub fn text(&self, manifest: &Manifest, at: &Path) -> String {
        let trainings = self.matches.len() + 1;
        let mut text = format!(
            "Nodes of the first of {trainings} autoencoders, those of the others that go with them (Pearson's r over {} clean images, all\n\
             places), and their expected causal effect over {} images and the autoencoders that have them:\n\n",
            self.matched_on, self.images
        );
        text += &self.table();
        let _ = writeln!(
            text,
            "\n{:.0} % intervals over seeds and images together; where one autoencoder has a node, over images. Seeds' share: of the\n\
             variance of clean effects, between autoencoders. Rank: by mean |effect| on clean images, and in how many resamples it is kept.",
            100.0 * self.level
        );
        for matched in self.matched() {
            let median = matched.median_correlation.map_or(String::new(), |r| format!(", median correlation {r:.2}"));
            let _ = writeln!(text, "ae-{}: {} of {} nodes matched{median}", matched.ae, matched.matched, self.nodes());
        }
        let tau = |tau: Option<f64>| tau.map_or("undefined".into(), |tau| format!("{tau:+.2}"));
        for Order { ae: [a, b], by_number, matched, nodes } in &self.orders {
            let _ = writeln!(
                text,
                "order of nodes, ae-{a} and ae-{b}: Kendall's tau {} by number, {} of the {nodes} that are matched",
                tau(*by_number),
                tau(*matched)
            );
        }
        if trainings < 5 {
            let _ = writeln!(
                text,
                "{trainings} autoencoders: an interval over so few seeds is too short; five are a beginning"
            );
        }
        manifest.warnings.iter().for_each(|w| text += &format!("warning: {w}\n"));
        text + &format!("run {}\n", at.display())
    }

    /// The same as JSON.
    pub fn json(&self, manifest: &Manifest, at: &Path) -> Value {
        let row = |e: &SeedEffect| {
            let input = self.inputs.get(e.input);
            json!({ "node": e.node, "input": input.map(Input::name), "eps": input.and_then(Input::eps),
                "reading": e.reading.name(), "mean": e.mean, "ci_lo": e.interval.map(|i| i.lo), "ci_hi": e.interval.map(|i| i.hi),
                "means": e.means, "split": e.split, "rank": e.rank })
        };
        json!({ "schema_version": SCHEMA_VERSION, "run_id": manifest.run_id, "run": at, "warnings": manifest.warnings,
            "matched": self.matched(), "matches": self.matches, "kendall": self.orders,
            "rows": self.effects.iter().map(row).collect::<Vec<_>>() })
    }
}
