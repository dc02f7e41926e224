//! `matching.csv` and `seeds.csv`: which nodes of several autoencoders are the same, and what they do in all of them.

use super::run::SCHEMA_VERSION;
use super::table::{Labels, number, optional};
use crate::atomic::write_atomic;
use crate::causal::matching::Match;
use crate::causal::seeds::SeedEffect;
use crate::causal::study::Input;
use crate::error::Error;
use std::path::Path;

/// `fashion/features.1/ae@1a2b3c4d/ch3`.
fn name(labels: &Labels, hash8: &str, node: usize) -> String {
    format!("{}/{}/ae@{hash8}/ch{node}", labels.arch, labels.tap)
}

/// Writes `matching.csv`: 8 columns, a row for every node of the first autoencoder and every other one (numbered from 2, as in
/// the directories `ae-2` …). `its_node` and `correlation` are empty where it is matched with none. `others` are the first eight
/// digits of the others' hashes and their matches.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn matching(path: &Path, others: &[(String, Vec<Option<Match>>)], labels: &Labels) -> Result<(), Error> {
    Ok(write_atomic(path, |file| {
        writeln!(file, "schema_version,run_id,arch,tap,node,ae,its_node,correlation")?;
        for (k, (hash8, matches)) in others.iter().enumerate() {
            for (node, found) in matches.iter().enumerate() {
                let Labels { run_id, arch, tap, ae_hash8, .. } = labels;
                let its = found.map_or(String::new(), |found| name(labels, hash8, found.node));
                let (node, r) = (name(labels, ae_hash8, node), optional(found.map(|found| found.correlation)));
                writeln!(file, "{SCHEMA_VERSION},{run_id},{arch},{tap},{node},{},{its},{r}", k + 2)?;
            }
        }
        Ok(())
    })?)
}

/// Writes `seeds.csv`: 17 columns and one for each autoencoder (`mean_1` …: its own mean, empty where it does not have the node), a
/// row a node of the first, input and reading. `seeds` is the number of autoencoders that have it; `share_seeds` and
/// `share_images` are shares of the variance of its effects; `rank` is its place by mean |effect| among the nodes that all have,
/// and `rank_kept` the share of resamples in which it has that place.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn seeds(path: &Path, rows: &[SeedEffect], inputs: &[Input], images: usize, labels: &Labels) -> Result<(), Error> {
    let autoencoders = rows.first().map_or(0, |row| row.means.len());
    Ok(write_atomic(path, |file| {
        write!(file, "schema_version,run_id,arch,tap,node,input,eps,reading,seeds,n,mean,ci_lo,ci_hi,")?;
        write!(file, "share_seeds,share_images,rank,rank_kept")?;
        (1..=autoencoders).try_for_each(|k| write!(file, ",mean_{k}"))?;
        writeln!(file)?;
        for row in rows {
            let Labels { run_id, arch, tap, ae_hash8, .. } = labels;
            let Some(input) = inputs.get(row.input) else { continue };
            let node = name(labels, ae_hash8, row.node);
            let eps = input.eps().map_or(String::new(), |eps| eps.to_string());
            let having = row.means.iter().flatten().count();
            write!(
                file,
                "{SCHEMA_VERSION},{run_id},{arch},{tap},{node},{},{eps},{},{having},{images},{},{},{},{},{},{},{}",
                input.name(),
                row.reading,
                optional(row.mean),
                optional(row.interval.map(|i| i.lo)),
                optional(row.interval.map(|i| i.hi)),
                optional(row.split.map(|split| split.seeds)),
                optional(row.split.map(|split| split.images)),
                row.rank.map_or(String::new(), |rank| rank.place.to_string()),
                row.rank.map_or(String::new(), |rank| number(rank.kept)),
            )?;
            row.means.iter().try_for_each(|mean| write!(file, ",{}", optional(*mean)))?;
            writeln!(file)?;
        }
        Ok(())
    })?)
}
