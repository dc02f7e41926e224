//! Conditions II and III on the page, from `conditions.csv`.

use super::chart;
use super::files::{Run, node_number};
use super::shown::{bracketed, ends, short};
use crate::text::escaped;
use serde::Deserialize;
use std::fmt::Write;

/// A row of `conditions.csv`.
#[derive(Clone, Debug, Deserialize)]
pub struct Quantity {
    condition: String,
    node: String,
    quantity: String,
    n: usize,
    mean: Option<f64>,
    ci_lo: Option<f64>,
    ci_hi: Option<f64>,
    verdict: Option<String>,
}

/// What each condition is, in words.
const KINDS: [(&str, &str, &str); 2] = [
    (
        "II",
        "A known symptom masked (condition II)",
        "The box of a finding is masked, and as much beside it. Y is the finding; a change is under the mask less without. What the box \
         does beyond what as much elsewhere does is about the symptom.",
    ),
    (
        "III",
        "Two tasks of one cause (condition III)",
        "What setting a node to 0 does to the findings (Y) and to a second head behind them (Z), and what setting the outputs Effusion, \
         Infiltration, Pleural_Thickening and Hernia to 0 does.",
    ),
];

/// The sections of the conditions that the run has.
pub fn conditions(run: &Run) -> String {
    let of = |condition: &str| run.conditions.iter().filter(|row| row.condition == condition).collect::<Vec<_>>();
    let there = KINDS.iter().map(|kind| (kind, of(kind.0))).filter(|(_, rows)| !rows.is_empty());
    there.map(|((_, title, told), rows)| section(title, told, &rows)).collect()
}

fn section(title: &str, told: &str, rows: &[&Quantity]) -> String {
    let n = rows.first().map_or(0, |row| row.n);
    let few = if rows.iter().all(|row| row.verdict.is_none()) { " They are too few for a verdict." } else { "" };
    // what is of no node comes first, and what is of one is folded where there is both
    let (whole, nodes): (Vec<&Quantity>, Vec<&Quantity>) = rows.iter().copied().partition(|row| row.node.is_empty());
    let nodes = match (whole.is_empty(), nodes.is_empty()) {
        (_, true) => String::new(),
        (true, false) => table(&nodes),
        (false, false) => format!("<details><summary>node by node</summary>{}</details>", table(&nodes)),
    };
    let whole = if whole.is_empty() { String::new() } else { table(&whole) };
    format!("<section>\n<h2>{title}</h2>\n<p>{told} Means over {n} images.{few}</p>\n{whole}{nodes}</section>\n")
}

fn table(rows: &[&Quantity]) -> String {
    let edge =
        |row: &&&Quantity| [row.mean, row.ci_lo, row.ci_hi].into_iter().flatten().map(f64::abs).fold(0.0, f64::max);
    let largest = rows.iter().map(|row| edge(&row)).fold(1e-12, f64::max);
    let mut body = String::new();
    for row in rows {
        let ends = ends(row.ci_lo, row.ci_hi);
        let verdict = match row.verdict.as_deref() {
            Some("equivalent") => "as good as 0",
            Some("different") => "not 0",
            Some(_) => "undecided",
            None => "-",
        };
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{}</td><td>{} <small>{}</small></td><td>{}</td><td>{verdict}</td></tr>",
            escaped(node_number(&row.node)),
            escaped(&row.quantity),
            row.mean.map_or("not a number".into(), short),
            bracketed(ends),
            chart::interval(row.mean, ends, (-largest, largest), 0.0),
        );
    }
    format!(
        "<div class=\"scroll\"><table><thead><tr><th>node</th><th>quantity</th><th>mean</th><th>{} to {}</th><th>verdict</th></tr></thead>\
         <tbody>{body}</tbody></table></div>\n",
        short(-largest),
        short(largest)
    )
}
