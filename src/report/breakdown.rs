//! `effect_matrix.csv`, every node on every class, and `strata.csv`, every node on every kind of image.

use super::run::SCHEMA_VERSION;
use super::table::{Labels, number, optional, quoted};
use crate::atomic::write_atomic;
use crate::causal::analysis::Columns;
use crate::causal::breakdown::{ClassEffect, Mean, Stratum, StratumEffect};
use crate::causal::intervention::NodeSet;
use crate::error::Error;
use std::path::Path;

const MATRIX: &str = "schema_version,run_id,arch,tap,node,input,eps,class,class_name,effect,sd,ci_lo,ci_hi,n\n";
const STRATA: &str = "schema_version,run_id,arch,tap,node,input,eps,by,value,ece,sd,ci_lo,ci_hi,n,flag\n";
/// Fewer images than this give no verdict.
pub const FEW: usize = 30;

fn figures(mean: &Mean) -> String {
    let ends = mean.interval.map_or((None, None), |i| (Some(i.lo), Some(i.hi)));
    format!("{},{},{},{},{}", number(mean.mean), number(mean.sd), optional(ends.0), optional(ends.1), mean.n)
}

/// `fashion,features.1,fashion/features.1/ae@1a2b3c4d/ch3,fgsm,0.3`: what a row is of.
fn subject(labels: &Labels, set: Option<&NodeSet>, columns: &Columns, input: usize) -> String {
    let node = set.map_or_else(String::new, |set| labels.node(set));
    let input = &columns.inputs[input];
    let eps = input.eps().map_or(String::new(), |e| e.to_string());
    format!("{},{},{},{node},{},{eps}", labels.run_id, labels.arch, labels.tap, input.name())
}

/// Writes `effect_matrix.csv`: 14 columns. `effect` is the mean of Effect_c = q_c - p_c within the input, with Student's interval over
/// images; `class_name` is empty where the images name none.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn matrix(
    path: &Path,
    cells: &[ClassEffect],
    columns: &Columns,
    sets: &[NodeSet],
    (labels, names): (&Labels, &[String]),
) -> Result<(), Error> {
    Ok(write_atomic(path, |file| {
        file.write_all(MATRIX.as_bytes())?;
        for cell in cells {
            let of = subject(labels, sets.get(cell.set), columns, cell.input);
            let name = names.get(cell.class).map_or("".into(), |name| quoted(name));
            writeln!(file, "{SCHEMA_VERSION},{of},{},{name},{}", cell.class, figures(&cell.effect))?;
        }
        Ok(())
    })?)
}

/// Writes `strata.csv`: 15 columns. `ece` is the mean class-weighted effect (Z0, or R1 of a perturbed input) over the images of the
/// stratum, with Student's interval; `flag` is `few` below 30 images: then it is no ground for a verdict.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn strata(
    path: &Path,
    (strata, effects): (&[Stratum], &[StratumEffect]),
    columns: &Columns,
    sets: &[NodeSet],
    labels: &Labels,
) -> Result<(), Error> {
    Ok(write_atomic(path, |file| {
        file.write_all(STRATA.as_bytes())?;
        for e in effects {
            let Some(stratum) = strata.get(e.stratum) else { continue };
            let of = subject(labels, sets.get(e.set), columns, e.input);
            let flag = if e.effect.n < FEW { "few" } else { "" };
            let value = quoted(&stratum.value);
            writeln!(file, "{SCHEMA_VERSION},{of},{},{value},{},{flag}", stratum.by, figures(&e.effect))?;
        }
        Ok(())
    })?)
}
