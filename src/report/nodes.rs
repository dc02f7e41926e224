//! Tables of one figure a node over the clean images: `shapley.csv`, `screen.csv`, `interactions.csv`.

use super::run::SCHEMA_VERSION;
use super::table::{Labels, optional};
use crate::atomic::write_atomic;
use crate::causal::intervention::NodeSet;
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
