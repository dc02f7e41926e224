//! `refuters.csv`: every node before every refuter.

use super::run::SCHEMA_VERSION;
use super::table::{Labels, optional};
use crate::atomic::write_atomic;
use crate::causal::intervention::NodeSet;
use crate::causal::refute::Trial;
use crate::error::Error;
use std::path::Path;

/// Writes `refuters.csv`: 14 columns. `mean_abs` is the node's mean |class-weighted effect| over the first `n` images, `placebo` the refuter's
/// with what it lies between, `p_adj` Holm's; `verdict` is `survives` or `refuted`. Trials are of positions in `sets`.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn write(path: &Path, trials: &[Trial], sets: &[NodeSet], labels: &Labels) -> Result<(), Error> {
    Ok(write_atomic(path, |file| {
        writeln!(
            file,
            "schema_version,run_id,arch,tap,node,refuter,n,mean_abs,placebo,placebo_lo,placebo_hi,p,p_adj,verdict"
        )?;
        for trial in trials {
            let Some(set) = sets.get(trial.node) else { continue };
            writeln!(
                file,
                "{SCHEMA_VERSION},{},{},{},{},{},{},{},{},{},{},{},{},{}",
                labels.run_id,
                labels.arch,
                labels.tap,
                labels.node(set),
                trial.refuter,
                trial.images,
                optional(trial.effect),
                optional(trial.placebo),
                optional(trial.spread.map(|i| i.lo)),
                optional(trial.spread.map(|i| i.hi)),
                optional(trial.p),
                optional(trial.p_adjusted),
                if trial.survives { "survives" } else { "refuted" },
            )?;
        }
        Ok(())
    })?)
}
