//! Two runs, mean by mean: the rows of their `summary.csv` by what they are of. Autoencoders and networks may differ: nodes are
//! told by their number alone, for whoever compares two wants to see that.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// A mean in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Node, input, reading and estimand.
    pub what: String,
    /// The mean in the first run; none where it is not a number.
    pub a: Option<f64>,
    /// In the second.
    pub b: Option<f64>,
}

impl Difference {
    /// How far apart they are; not a number where one of them is none and the other is one.
    pub fn size(&self) -> f64 {
        match (self.a, self.b) {
            (Some(a), Some(b)) => (a - b).abs(),
            (None, None) => 0.0,
            _ => f64::NAN,
        }
    }
}

/// Two runs beside each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Every mean that both have, the largest difference first; those that are no numbers before all.
    pub differences: Vec<Difference>,
    /// Rows that only the first has.
    pub only_a: Vec<String>,
    /// Rows that only the second has.
    pub only_b: Vec<String>,
    /// The largest |mean| of both, by estimand: probabilities and logits have other units.
    pub largest: BTreeMap<String, f64>,
}

impl Comparison {
    /// How far apart two means may be that are the same within `tolerance`, a part of the largest of their estimand.
    pub fn limit(&self, difference: &Difference, tolerance: f64) -> f64 {
        tolerance * self.largest.get(unit(&difference.what)).copied().unwrap_or(0.0)
    }
}

/// The estimand of a row, `e3` of every class.
fn unit(what: &str) -> &str {
    what.rsplit(' ').next().and_then(|estimand| estimand.split(':').next()).unwrap_or_default()
}

#[derive(Deserialize)]
struct Row {
    tap: String,
    node: String,
    input: String,
    #[serde(default)]
    eps: Option<f64>,
    reading: String,
    estimand: String,
    mean: Option<f64>,
}

/// Compares the runs in two directories.
///
/// # Errors
/// [`Error::Input`] for a directory without a readable `summary.csv`.
pub fn compare(a: &Path, b: &Path) -> Result<Comparison, Error> {
    let (a, mut b) = (means(a)?, means(b)?);
    let mut largest: BTreeMap<String, f64> = BTreeMap::new();
    for (what, mean) in a.iter().chain(&b).filter_map(|(what, mean)| Some((what, (*mean)?))) {
        let most = largest.entry(unit(what).to_owned()).or_default();
        *most = most.max(mean.abs());
    }
    let (mut differences, mut only_a) = (Vec::new(), Vec::new());
    for (what, a) in a {
        match b.remove(&what) {
            Some(b) => differences.push(Difference { what, a, b }),
            None => only_a.push(what),
        }
    }
    differences.sort_by(|x, y| y.size().total_cmp(&x.size()).then_with(|| x.what.cmp(&y.what)));
    Ok(Comparison { differences, only_a, only_b: b.into_keys().collect(), largest })
}

fn means(directory: &Path) -> Result<BTreeMap<String, Option<f64>>, Error> {
    let path = directory.join("summary.csv");
    let wrong = |e: csv::Error| Error::Input {
        path: path.clone(),
        reason: format!("cannot be read: {e} (a run of `ce` or `reproduce fashion` has it)"),
    };
    let mut means = BTreeMap::new();
    for row in csv::Reader::from_path(&path).map_err(wrong)?.deserialize() {
        let Row { tap, node, input, eps, reading, estimand, mean } = row.map_err(wrong)?;
        let node = node.rsplit('/').next().unwrap_or_default();
        let eps = eps.map_or(String::new(), |eps| format!(" {eps}"));
        means.insert(format!("{tap} {node} {input}{eps} {reading} {estimand}"), mean);
    }
    Ok(means)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rows: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("tap,node,input,reading,estimand,mean,eps\n{}\n", rows.join("\n"));
        std::fs::write(dir.path().join("summary.csv"), text).unwrap();
        dir
    }

    #[test]
    fn runs_are_compared_by_what_their_means_are_of() {
        let a =
            run(&["t,x/ae@1/ch0,none,Z0,e1,-0.5,", "t,x/ae@1/ch0,fgsm,R1,e1,0.25,0.3", "t,x/ae@1/ch1,none,Z0,e1,,"]);
        let b =
            run(&["t,y/ae@2/ch0,none,Z0,e1,-0.4,", "t,y/ae@2/ch1,none,Z0,e1,0.1,", "t,y/ae@2/ch0,fgsm,R1,e1,0.25,0.1"]);
        let found = compare(a.path(), b.path()).unwrap();
        assert_eq!(found.largest, BTreeMap::from([("e1".to_string(), 0.5)]));
        assert_eq!(found.limit(&found.differences[1], 0.1), 0.05);
        assert_eq!((unit("t ch0 none R1 e3:7"), unit("t ch0 none R1 e4")), ("e3", "e4"));
        assert_eq!(
            (found.only_a.as_slice(), found.only_b.as_slice()),
            (&["t ch0 fgsm 0.3 R1 e1".to_string()][..], &["t ch0 fgsm 0.1 R1 e1".to_string()][..])
        );
        // what is a number in one run only comes first
        assert!(found.differences[0].what.starts_with("t ch1") && found.differences[0].size().is_nan());
        assert!((found.differences[1].size() - 0.1).abs() < 1e-15);
        let same = compare(a.path(), a.path()).unwrap();
        assert!(
            same.differences.iter().all(|d| d.size() == 0.0) && same.only_a.is_empty() && same.differences.len() == 3
        );
        assert!(matches!(compare(a.path(), Path::new("nowhere")), Err(Error::Input { .. })));
    }
}
