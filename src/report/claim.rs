//! `claim-e.json` and its like: a claim of the paper that is judged beside the sweep's own three, in a form that the page shows
//! whoever wrote it. A part of a run that judges a claim more leaves one such file, named after the claim's letter.

use super::run::SCHEMA_VERSION;
use crate::atomic::write_atomic;
use crate::error::Error;
use crate::interval::Interval;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A claim and what was found of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClaimFile {
    /// Version of this file's layout.
    pub schema_version: u32,
    /// The run that judged it.
    pub run_id: String,
    /// Its letter, `a` to `z`.
    pub claim: char,
    /// What is claimed, in words.
    pub told: String,
    /// What the values below are.
    pub quantity: String,
    /// A verdict each condition.
    pub judged: Vec<Judged>,
    /// What else has to be known.
    pub notes: Vec<String>,
}

/// A claim under one condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The condition: `FGSM at eps 8/255`.
    pub condition: String,
    /// `holds`, `fails`, `undecided`; `none` for a control, of which nothing is claimed.
    pub verdict: String,
    /// The quantity that decides; above 0 speaks for the claim.
    pub value: Option<f64>,
    /// Its interval.
    pub interval: Option<Interval>,
    /// Why, in words.
    pub reason: String,
}

/// Name of a claim's file.
fn file_name(claim: char) -> String {
    format!("claim-{claim}.json")
}

impl ClaimFile {
    /// Nothing judged yet.
    pub fn new(run_id: &str, claim: char, told: &str, quantity: &str) -> ClaimFile {
        ClaimFile {
            schema_version: SCHEMA_VERSION,
            run_id: run_id.into(),
            claim,
            told: told.into(),
            quantity: quantity.into(),
            judged: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Writes it into the run in `directory`.
    ///
    /// # Errors
    /// [`Error::Write`] with the path.
    pub fn write(&self, directory: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::Failed(e.to_string()))?;
        Ok(write_atomic(&directory.join(file_name(self.claim)), |file| writeln!(file, "{text}"))?)
    }

    /// Those in `directory`, by their letter.
    ///
    /// # Errors
    /// [`Error::Input`] for a file that is none of ours.
    pub fn read_all(directory: &Path) -> Result<Vec<ClaimFile>, Error> {
        let paths = ('a'..='z').map(|claim| directory.join(file_name(claim))).filter(|path| path.exists());
        let read = |path: std::path::PathBuf| {
            let wrong =
                |reason: String| Error::Input { path: path.clone(), reason: format!("cannot be read: {reason}") };
            let bytes = std::fs::read(&path).map_err(|e| wrong(e.to_string()))?;
            serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))
        };
        paths.map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_by_their_letter_as_they_were_written_and_a_damaged_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let claim = |letter| {
            let mut claim = ClaimFile::new("1a", letter, "maps move", "how far");
            claim.judged.push(Judged {
                condition: "FGSM at eps 8/255".into(),
                verdict: "holds".into(),
                value: Some(0.125),
                interval: Some(Interval { lo: 0.0625, hi: 0.25 }),
                reason: "they do".into(),
            });
            claim
        };
        for letter in ['f', 'e'] {
            claim(letter).write(directory.path()).unwrap();
        }
        assert_eq!(ClaimFile::read_all(directory.path()).unwrap(), [claim('e'), claim('f')]);
        std::fs::write(directory.path().join("claim-f.json"), "{}").unwrap();
        assert!(ClaimFile::read_all(directory.path()).unwrap_err().to_string().contains("claim-f.json"));
    }
}
