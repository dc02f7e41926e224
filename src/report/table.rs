//! `summary.csv` (a row per node, input, reading and estimand), and what the tables of a run share. Numbers in shortest round-trip form; a value that is not a number is empty, with a flag.

use super::run::SCHEMA_VERSION;
use crate::atomic::write_atomic;
use crate::causal::analysis::{Columns, Quantity};
use crate::causal::effect::Reading;
use crate::causal::intervention::NodeSet;
use crate::causal::statistics::{Bootstrap, Clusters, Interval, SignFlip, Summary, bh, holm};
use crate::causal::{CausalError, named_nodes};
use crate::error::Error;
use crate::model::Head;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::Path;

/// What every row repeats.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Hash of configuration, weights and data.
    pub run_id: String,
    /// Network.
    pub arch: String,
    /// Torchvision name of the last child in front of the tap.
    pub tap: String,
    /// First eight digits of the autoencoder's hash.
    pub ae_hash8: String,
    /// Split that the images are from.
    pub split: String,
    /// Whose image each is, in data order; shorter where nobody says.
    pub patients: Vec<String>,
}

/// A text as a field of CSV (RFC 4180).
pub(super) fn quoted(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

impl Labels {
    /// `fashion/features.1/ae@1a2b3c4d/ch3`: the node's name in files.
    pub fn node(&self, set: &NodeSet) -> String {
        format!("{}/{}/ae@{}/ch{}", self.arch, self.tap, self.ae_hash8, named_nodes(set))
    }
}

/// A number in shortest round-trip form, or nothing when it is none.
pub(super) fn number(x: f64) -> String {
    // Debug takes an exponent below 1e-5, where Display would write the zeros out
    if x.is_finite() { format!("{x:?}") } else { String::new() }
}

pub(super) fn optional(x: Option<f64>) -> String {
    x.map_or(String::new(), number)
}

/// A row of `summary.csv`.
#[derive(Clone, Debug)]
pub struct Row {
    /// Position in the sweep's sets.
    pub set: usize,
    /// Position in the inputs.
    pub input: usize,
    /// Reading.
    pub reading: Reading,
    /// `e1`, `e3:<class>`, `e4`, or `bernoulli`.
    pub estimand: String,
    /// Figures of the column.
    pub summary: Summary,
    /// Share of images on which the set touches a live channel.
    pub live_share: f64,
    /// Bootstrap interval of the mean over images, at the level of [`Sampling`].
    pub interval: Option<Interval>,
    /// Sign-flip p of mean = 0.
    pub p: Option<f64>,
    /// The same after Holm over the nodes of one input, reading and estimand: the chance of any false find is below it.
    pub p_adjusted: Option<f64>,
    /// The same after Benjamini and Hochberg: below it, the share of false finds among finds.
    pub q: Option<f64>,
}

/// Resamples, flips and level of the summary's statistics.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Bootstrap resamples and sign flips.
    pub resamples: usize,
    /// Confidence level.
    pub level: f64,
    /// Seed of both.
    pub seed: u64,
    /// Which kind of bootstrap interval.
    pub kind: Kind,
}

/// How ends are read off a bootstrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Quantiles of the resamples.
    #[default]
    Percentile,
    /// Corrected for bias and skew (Efron 1987).
    Bca,
}

impl Kind {
    /// Left out of configurations, so that runs keep their ids.
    pub fn is_percentile(&self) -> bool {
        *self == Kind::Percentile
    }
}

/// Which images are one patient's, of images that say so: all of a patient's are drawn together.
///
/// # Errors
/// [`CausalError::Range`] without images.
pub fn units(patients: &[String]) -> Result<Clusters, CausalError> {
    // an image without a patient is its own
    let unit = |(i, patient): (usize, &String)| (patient.clone(), if patient.is_empty() { i + 1 } else { 0 });
    Clusters::new(&patients.iter().enumerate().map(unit).collect::<Vec<_>>())
}

/// One column under way to a row.
struct Pending<'a> {
    set: usize,
    input: usize,
    reading: Reading,
    estimand: String,
    column: Cow<'a, [f64]>,
}

/// Computes the summary: E1 under every reading, E4 and E3 (a class at a time) within each input; intervals and tests resample whole
/// `patients` (one an image, empty where nobody says). The first `singles` sets are nodes alone: tests are corrected over these, and
/// over the others.
///
/// # Errors
/// [`CausalError`] for an impossible level or no images, or unless there is one patient an image.
pub fn summarise(
    columns: &Columns,
    (head, classes): (Head, usize),
    patients: &[String],
    singles: usize,
    sampling: Sampling,
) -> Result<Vec<Row>, CausalError> {
    let estimand = head.estimand().name().to_string();
    let mut pending: Vec<Pending<'_>> = Vec::new();
    for input in 0..columns.inputs.len() {
        let own = if input == 0 { Reading::Z0 } else { Reading::R1 };
        let readings: &[Reading] = if input == 0 {
            &[Reading::Z0]
        } else {
            &[Reading::R1, Reading::R2, Reading::R3, Reading::R4, Reading::R5, Reading::R6]
        };
        for set in 0..columns.sets {
            for &reading in readings {
                let column = columns.get(input, set, Quantity::Ece(reading)).into();
                pending.push(Pending { set, input, reading, estimand: estimand.clone(), column });
            }
            let column = columns.get(input, set, Quantity::Margin).into();
            pending.push(Pending { set, input, reading: own, estimand: "e4".into(), column });
        }
    }
    let mut rows = rows(columns, &pending, patients, singles, sampling)?;
    for class in 0..classes {
        let theirs: Vec<String> = patients
            .iter()
            .zip(&columns.labels)
            .filter(|(_, label)| **label as usize == class)
            .map(|(patient, _)| patient.clone())
            .collect();
        let of_class = |column: &[f64]| -> Vec<f64> {
            let pairs = column.iter().zip(&columns.labels);
            pairs.filter(|(_, l)| **l as usize == class).map(|(v, _)| *v).collect()
        };
        let mut pending: Vec<Pending<'_>> = Vec::new();
        for input in 0..columns.inputs.len() {
            for set in 0..columns.sets {
                let column = of_class(columns.get(input, set, Quantity::LabelEffect));
                let reading = if input == 0 { Reading::Z0 } else { Reading::R1 };
                if !column.is_empty() {
                    let estimand = format!("e3:{class}");
                    pending.push(Pending { set, input, reading, estimand, column: column.into() });
                }
            }
        }
        rows.extend(self::rows(columns, &pending, &theirs, singles, sampling)?);
    }
    Ok(rows)
}

/// Statistics of columns of one length, over images of these patients.
fn rows(
    columns: &Columns,
    pending: &[Pending<'_>],
    patients: &[String],
    singles: usize,
    sampling: Sampling,
) -> Result<Vec<Row>, CausalError> {
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    let units = units(patients)?;
    let bootstrap = Bootstrap::of_clusters(&units, sampling.resamples, sampling.seed)?;
    let flips = SignFlip::of_clusters(&units, sampling.resamples, sampling.seed)?;
    let data: Vec<&[f64]> = pending.iter().map(|p| p.column.as_ref()).collect();
    let intervals: Vec<Option<Interval>> = match sampling.kind {
        Kind::Percentile => bootstrap.intervals(&data, sampling.level)?,
        Kind::Bca => bootstrap.bca(&data, sampling.level)?.into_iter().map(|bca| bca.map(|bca| bca.interval)).collect(),
    };
    let p = flips.p_values(&data)?;
    let mut rows: Vec<Row> = pending
        .iter()
        .enumerate()
        .map(|(i, pending)| Row {
            set: pending.set,
            input: pending.input,
            reading: pending.reading,
            estimand: pending.estimand.clone(),
            summary: Summary::of(&pending.column),
            live_share: columns.mean(pending.input, pending.set, Quantity::Live),
            interval: intervals[i],
            p: p[i],
            p_adjusted: None,
            q: None,
        })
        .collect();
    // Holm over the nodes of one table column; R5 and R6 have no node in them, so their rows are one and the same test
    for row in rows.iter_mut().filter(|r| matches!(r.reading, Reading::R5 | Reading::R6)) {
        (row.p_adjusted, row.q) = (row.p, row.p);
    }
    for at in 0..rows.len() {
        if rows[at].p_adjusted.is_some() {
            continue;
        }
        // what several nodes do together is another question than what each does
        let key = |r: &Row| (r.input, r.reading, r.set < singles);
        let same = |r: &Row| key(r) == key(&rows[at]) && r.estimand == rows[at].estimand;
        let family: Vec<usize> = (0..rows.len()).filter(|&i| same(&rows[i])).collect();
        let raw: Vec<Option<f64>> = family.iter().map(|&i| rows[i].p).collect();
        for ((i, p), q) in family.into_iter().zip(holm(&raw)).zip(bh(&raw)) {
            (rows[i].p_adjusted, rows[i].q) = (p, q);
        }
    }
    Ok(rows)
}

const SUMMARY: &str = "schema_version,run_id,arch,tap,node,condition,input,reading,estimand,mean,sd,median,mean_abs,\
                       share_positive,live_share,n,ci_lo,ci_hi,p,p_adj,eps,q\n";

/// Writes `summary.csv`: 22 columns; `eps` tells inputs of one name apart, `p_adj` is Holm's, `q` Benjamini and Hochberg's.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn summary(path: &Path, rows: &[Row], columns: &Columns, sets: &[NodeSet], labels: &Labels) -> Result<(), Error> {
    Ok(write_atomic(path, |file| {
        file.write_all(SUMMARY.as_bytes())?;
        for row in rows {
            let s = &row.summary;
            writeln!(
                file,
                "{SCHEMA_VERSION},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
                labels.run_id,
                labels.arch,
                labels.tap,
                sets.get(row.set).map_or_else(String::new, |s| labels.node(s)),
                columns.inputs[row.input].condition(),
                columns.inputs[row.input].name(),
                row.reading,
                row.estimand,
                optional(s.mean),
                optional(s.sd),
                optional(s.median),
                optional(s.mean_abs),
                optional(s.share_positive),
                number(row.live_share),
                s.n,
                optional(row.interval.map(|i| i.lo)),
                optional(row.interval.map(|i| i.hi)),
                optional(row.p),
                optional(row.p_adjusted),
                columns.inputs[row.input].eps().map_or(String::new(), |eps| eps.to_string()),
                optional(row.q),
            )?;
        }
        Ok(())
    })?)
}

/// Where a reproduction measured, and on what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Site {
    /// Network.
    pub arch: String,
    /// Children of `features` in front of the tap.
    pub tap: usize,
    /// The host, in words.
    pub host: String,
    /// The autoencoder, in words.
    pub autoencoder: String,
}

/// What it measured of a node under an input, beside what the paper prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Node.
    pub node: String,
    /// Input.
    pub input: String,
    /// Mean expected causal effect; none where an image's is not a number.
    pub mean: Option<f64>,
    /// Its interval's lower end.
    pub ci_lo: Option<f64>,
    /// Its interval's upper end.
    pub ci_hi: Option<f64>,
    /// Images.
    pub images: usize,
    /// The paper's number of a node of that number, where it prints one.
    pub paper: Option<f64>,
    /// `dead`, `dead when clean`, `below floor`, `below 1e-4` or nothing.
    pub remark: String,
}

const REPRODUCED: &str = "schema_version,run_id,arch,tap,node,input,mean,ci_lo,ci_hi,n,paper,remark,host,autoencoder\n";

/// Writes `table.csv`: 14 columns, a row a cell.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn reproduced<'a>(
    path: &Path,
    run_id: &str,
    sites: impl Iterator<Item = (&'a Site, &'a [Cell])>,
) -> Result<(), Error> {
    Ok(write_atomic(path, |file| {
        file.write_all(REPRODUCED.as_bytes())?;
        for (Site { arch, tap, host, autoencoder }, cells) in sites {
            let (host, autoencoder) = (quoted(host), quoted(autoencoder));
            for c in cells {
                let numbers = [c.mean, c.ci_lo, c.ci_hi].map(optional).join(",");
                let (node, input, n, paper, remark) = (&c.node, &c.input, c.images, optional(c.paper), &c.remark);
                let start = format!("{SCHEMA_VERSION},{run_id},{arch},{tap},{node},{input}");
                writeln!(file, "{start},{numbers},{n},{paper},{remark},{host},{autoencoder}")?;
            }
        }
        Ok(())
    })?)
}
