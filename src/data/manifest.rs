//! A table of one's own images: a CSV with a header and the columns `path` and `label` (or `findings`), and if wished
//! `patient` and `split`, in any order; others are passed over and named. Called by [`super::open()`].
//!
//! - `path`: below the directory of the table, or absolute; each once.
//! - `label`: the name of the class, or its number. Names are sorted, and a class's number is its place; where all labels
//!   are numbers they are the classes' own. Empty: no label.
//! - `findings` instead: findings of chest X-rays joined by `|`, or `No Finding`.
//! - `patient`: any text; one patient's images must be in one part.
//! - `split`: `train`, `val` or `test`; empty: none of them.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use super::files::{Part, Record};
use super::findings::{FINDINGS, Findings};
use super::folder::Scanned;
use super::table::{column, csv_rows};
use super::{DataError, check_leaks};

/// Most classes that numbers may name.
const CLASSES_MAX: u32 = 100_000;

/// The part that a word of a table means.
pub(super) fn part(word: &str) -> Option<Part> {
    match word.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(Part::Train),
        "val" | "valid" | "validation" => Some(Part::Validation),
        "test" | "testing" => Some(Part::Test),
        _ => None,
    }
}

/// The images of a table, in order of their paths.
///
/// # Errors
/// [`DataError::Row`] with the line; [`DataError::Leak`].
pub fn read(file: &Path) -> Result<Scanned, DataError> {
    let rows = csv_rows(file)?;
    let header = &rows[0];
    let path_at = column(file, header, "path")?;
    let optional = |name: &str| header.1.iter().position(|h| h == name);
    let (label_at, findings_at) = (optional("label"), optional("findings"));
    let (patient_at, split_at) = (optional("patient"), optional("split"));
    let wrong = |line: u64, reason: String| DataError::Row { file: file.to_owned(), line, reason };
    match (label_at, findings_at) {
        (Some(_), Some(_)) => return Err(wrong(header.0, "it has `label` and `findings`: keep one".into())),
        (None, None) => {
            column(file, header, "label")?;
        }
        _ => {}
    }
    let mut labels: Vec<Option<String>> = Vec::new();
    let mut records: Vec<Record> = Vec::new();
    let mut seen = HashSet::new();
    for (line, fields) in &rows[1..] {
        if fields.len() != header.1.len() {
            return Err(wrong(
                *line,
                format!(
                    "it has {} fields, the header {}; put a field with a comma into quotes",
                    fields.len(),
                    header.1.len()
                ),
            ));
        }
        let field = |at: Option<usize>| at.and_then(|at| fields.get(at)).filter(|f| !f.is_empty());
        let path = fields[path_at].clone();
        if path.is_empty() {
            return Err(wrong(*line, "the path is empty".into()));
        }
        if !seen.insert(path.clone()) {
            return Err(wrong(*line, format!("{path} is there twice")));
        }
        let part = match field(split_at) {
            None => None,
            Some(word) => {
                let unknown = || wrong(*line, format!("the split `{word}` is none of train, val and test"));
                Some(part(word).ok_or_else(unknown)?)
            }
        };
        let findings = match (findings_at, field(findings_at)) {
            (None, _) => None,
            (_, None) => return Err(wrong(*line, "no findings: write `No Finding`".into())),
            (_, Some(text)) => Some(Findings::parse(text).map_err(|reason| wrong(*line, reason))?),
        };
        labels.push(field(label_at).cloned());
        let patient = field(patient_at).cloned();
        records.push(Record { path, findings, patient, part, ..Record::default() });
    }
    let known = ["path", "label", "findings", "patient", "split"];
    let others: Vec<&str> = header.1.iter().map(String::as_str).filter(|h| !known.contains(h)).collect();
    let mut notes = Vec::new();
    if !others.is_empty() {
        notes.push(format!("columns not used: {}", others.join(", ")));
    }
    let unlabelled = labels.iter().filter(|l| l.is_none()).count();
    if findings_at.is_none() && unlabelled > 0 {
        notes.push(format!("{unlabelled} of {} images have no label", labels.len()));
    }
    let classes = match findings_at {
        Some(_) => FINDINGS.map(str::to_owned).to_vec(),
        None => number_classes(&mut records, &labels).map_err(|(row, reason)| wrong(rows[row + 1].0, reason))?,
    };
    check_leaks(&records)?;
    records.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Scanned { records, classes, notes })
}

/// Gives each record its class; the classes' names. An error comes with the record.
fn number_classes(records: &mut [Record], labels: &[Option<String>]) -> Result<Vec<String>, (usize, String)> {
    let names: BTreeSet<&str> = labels.iter().flatten().map(String::as_str).collect();
    let numbers: Option<Vec<u32>> = names.iter().map(|n| n.parse().ok()).collect();
    let classes: Vec<String> = match numbers.as_deref() {
        Some(numbers) => {
            let most = numbers.iter().copied().max().map_or(0, |m| m.saturating_add(1));
            if most > CLASSES_MAX {
                let beyond =
                    |l: &Option<String>| l.as_ref().and_then(|l| l.parse().ok()).is_some_and(|l: u32| l >= CLASSES_MAX);
                let row = labels.iter().position(beyond).unwrap_or(0);
                return Err((row, format!("class {} is beyond the {CLASSES_MAX} that numbers may name", most - 1)));
            }
            (0..most).map(|c| c.to_string()).collect()
        }
        None => names.iter().map(|&n| n.to_owned()).collect(),
    };
    for (record, label) in records.iter_mut().zip(labels) {
        record.class = match (label, &numbers) {
            (None, _) => None,
            (Some(label), Some(_)) => label.parse().ok(),
            (Some(label), None) => classes.binary_search(label).ok().map(|c| c as u32),
        };
    }
    Ok(classes)
}
