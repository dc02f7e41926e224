//! Tables of one figure a node over the clean images: `shapley.csv`, `screen.csv`, `interactions.csv`; and `conditions.csv`.

use super::run::SCHEMA_VERSION;
use super::table::{Labels, optional};
use crate::atomic::write_atomic;
use crate::causal::intervention::NodeSet;
use crate::conditions::Measured;
use crate::error::Error;
use crate::interval::Interval;
use std::path::Path;

/// The figure of a node, or of several together, and what stands beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeRow {
    /// Which.
    pub set: NodeSet,
    /// Mean over images.
    pub mean: Option<f64>,
    /// Its bootstrap interval.
    pub interval: Option<Interval>,
    /// Images.
    pub n: usize,
    /// What else is known of it, where that was measured.
    pub beside: Option<f64>,
}

/// Writes a table of 10 columns, the figure and what is beside it under the names `own` and `beside`.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn write(path: &Path, (own, beside): (&str, &str), rows: &[NodeRow], labels: &Labels) -> Result<(), Error> {
    Ok(write_atomic(path, |file| {
        writeln!(file, "schema_version,run_id,arch,tap,node,{own},ci_lo,ci_hi,n,{beside}")?;
        for row in rows {
            let name = labels.node(&row.set);
            writeln!(
                file,
                "{SCHEMA_VERSION},{},{},{},{name},{},{},{},{},{}",
                labels.run_id,
                labels.arch,
                labels.tap,
                optional(row.mean),
                optional(row.interval.map(|i| i.lo)),
                optional(row.interval.map(|i| i.hi)),
                row.n,
                optional(row.beside),
            )?;
        }
        Ok(())
    })?)
}

/// Writes `conditions.csv`: 14 columns, a row a quantity of condition II or III. `node` is empty where it is of none; `verdict`
/// (`equivalent` to 0, `different`, `undecided`) where there are images enough.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn conditions(path: &Path, rows: &[(&str, &Measured)], labels: &Labels) -> Result<(), Error> {
    Ok(write_atomic(path, |file| {
        writeln!(
            file,
            "schema_version,run_id,arch,tap,condition,node,quantity,n,mean,ci_lo,ci_hi,p_zero,p_margin,verdict"
        )?;
        for (condition, row) in rows {
            let Labels { run_id, arch, tap, ae_hash8, .. } = labels;
            let node = match row.node.as_str() {
                name @ ("" | "outputs") => name.to_owned(),
                name => format!("{arch}/{tap}/ae@{ae_hash8}/ch{name}"),
            };
            writeln!(
                file,
                "{SCHEMA_VERSION},{run_id},{arch},{tap},{condition},{node},{},{},{},{},{},{},{},{}",
                row.quantity,
                row.n,
                optional(row.mean),
                optional(row.interval.map(|i| i.lo)),
                optional(row.interval.map(|i| i.hi)),
                optional(row.p_zero),
                optional(row.p_margin),
                row.verdict.map_or("", |verdict| verdict.name()),
            )?;
        }
        Ok(())
    })?)
}
