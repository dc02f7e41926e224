//! A run in parts, on several machines: which shards a part makes, and how directories of parts become one of the whole run.

use super::run::{Manifest, OUTCOMES, RunDirectory};
use super::shards;
use crate::atomic::write_atomic;
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// One part of several: each makes every `of`-th shard of the same run. Which part it is, is no part of the run's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which, from 1.
    pub number: usize,
    /// Of how many.
    pub of: usize,
}

impl Part {
    fn can_be(&self) -> bool {
        (1..=self.of).contains(&self.number)
    }

    /// Whether it makes shard `k` (from 0).
    pub fn has(&self, k: usize) -> bool {
        k % self.of.max(1) + 1 == self.number
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Part, String> {
        let number = |text: &str| text.parse::<usize>().ok();
        let part = text.split_once('/').and_then(|(i, n)| Some(Part { number: number(i)?, of: number(n)? }));
        let part = part.ok_or_else(|| format!("`{text}` is no part of a run: 2/4 is the second of four"))?;
        if !part.can_be() {
            return Err(format!("`{text}`: parts are numbered from 1, 1/{0} to {0}/{0}", part.of.max(1)));
        }
        Ok(part)
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.number, self.of)
    }
}

/// A part of a run of so many shards, as the manifest of its directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portion {
    /// Which part.
    #[serde(flatten)]
    pub part: Part,
    /// Shards of the whole run.
    pub shards: usize,
}

/// All shards of a run, in the directories of its parts.
#[derive(Debug)]
pub struct Parts {
    manifest: Manifest,
    /// By number.
    shards: BTreeMap<usize, PathBuf>,
}

impl Parts {
    /// Finds them in `directories` (their final names or the `.partial` ones), which stay as they are.
    ///
    /// # Errors
    /// [`Error::Input`] for a directory that holds no part, for parts of several runs (with what differs), shards that
    /// are missing or damaged, and a shard that two directories hold differently.
    pub fn find(directories: &[PathBuf]) -> Result<Parts, Error> {
        let parts: Vec<Found> = directories.iter().map(|directory| Found::at(directory)).collect::<Result<_, _>>()?;
        let Some((first, others)) = parts.split_first() else {
            return Err(Error::Usage("there is no directory to merge".into()));
        };
        others.iter().try_for_each(|other| first.goes_with(other))?;
        let mut shards: BTreeMap<usize, PathBuf> = BTreeMap::new();
        for k in 0..first.shards {
            for path in parts.iter().map(|part| part.directory.path(&shards::file_name(k))).filter(|p| p.exists()) {
                // no damaged file gets into the whole
                shards::load(&path, &first.manifest.run_id)?;
                match shards.get(&k) {
                    None => _ = shards.insert(k, path),
                    Some(kept) if read(kept)? == read(&path)? => {}
                    Some(kept) => {
                        let kept = kept.display();
                        let reason =
                            format!("differs from {kept}, which is the same shard of the same run: one is wrong");
                        return Err(Error::Input { path, reason });
                    }
                }
            }
        }
        let missing: Vec<usize> = (0..first.shards).filter(|k| !shards.contains_key(k)).collect();
        if !missing.is_empty() {
            return Err(lacking(&parts, first, &missing));
        }
        Ok(Parts { manifest: Manifest { portion: None, ..first.manifest.clone() }, shards })
    }

    /// What the whole run is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Makes `finished` an unfinished run that has every shard, to be ended as one that was interrupted is.
    ///
    /// # Errors
    /// [`Error::Usage`] when it exists, [`Error::Failed`] or [`Error::Write`] when it cannot be written.
    pub fn put_together(&self, finished: PathBuf) -> Result<(), Error> {
        let directory = RunDirectory::create(finished, &self.manifest)?;
        let outcomes = directory.path(OUTCOMES);
        std::fs::create_dir_all(&outcomes)
            .map_err(|e| Error::Failed(format!("{}: cannot create it: {e}", outcomes.display())))?;
        for (&k, from) in &self.shards {
            let bytes = read(from)?;
            write_atomic(&directory.path(&shards::file_name(k)), |file| file.write_all(&bytes))?;
        }
        Ok(())
    }
}

/// More shards than any run has: a manifest that says so is not to be counted through.
const SHARDS_MAX: usize = 1 << 24;

/// A directory of a part.
struct Found {
    directory: RunDirectory,
    manifest: Manifest,
    part: Part,
    /// Of the whole run.
    shards: usize,
}

impl Found {
    fn at(path: &Path) -> Result<Found, Error> {
        let (directory, manifest) = RunDirectory::unfinished(path, "ce").map_err(|e| match e {
            Error::Input { path, reason } => {
                let reason = format!("{reason} (merge puts together what `ce --shard` left unfinished)");
                Error::Input { path, reason }
            }
            e => e,
        })?;
        let wrong = |reason: &str| Err(Error::Input { path: directory.path(""), reason: reason.into() });
        match manifest.portion {
            Some(Portion { part, shards }) if part.can_be() && (1..=SHARDS_MAX).contains(&shards) => {
                Ok(Found { directory, manifest, part, shards })
            }
            Some(_) => wrong("its manifest names a part that cannot be: it is damaged"),
            None => wrong("is no part of a run: it was not made with --shard, and `intervene ce --resume` ends it"),
        }
    }

    /// Whether `other` is of the same run, in as many parts.
    fn goes_with(&self, other: &Found) -> Result<(), Error> {
        let reason = if self.manifest.run_id != other.manifest.run_id {
            let differences = self.manifest.differences(&other.manifest).join("; ");
            format!("is of another run than {}: {differences}", self.directory.path("").display())
        } else if (self.part.of, self.shards) != (other.part.of, other.shards) {
            format!(
                "is part {}, {} is part {}: all must be of as many",
                other.part,
                self.directory.path("").display(),
                self.part
            )
        } else {
            return Ok(());
        };
        Err(Error::Input { path: other.directory.path(""), reason })
    }
}

/// The error of a run some of whose shards are nowhere.
fn lacking(parts: &[Found], first: &Found, missing: &[usize]) -> Error {
    let (of, all) = (first.part.of, first.shards);
    let numbers: BTreeSet<usize> = missing.iter().map(|k| k % of.max(1) + 1).collect();
    let told = numbers.into_iter().map(|number| {
        let part = Part { number, of };
        let shards = missing.iter().filter(|&&k| part.has(k)).count();
        match parts.iter().find(|found| found.part == part) {
            None => format!("part {part} is missing ({shards} of {all} shards)"),
            Some(found) => {
                let path = found.directory.finished_path().display();
                format!("part {part} lacks {shards} of {all} shards: `intervene ce --resume {path}` makes them")
            }
        }
    });
    let reason = format!("is not the whole run: {}", told.collect::<Vec<_>>().join("; "));
    Error::Input { path: first.directory.path(""), reason }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|e| Error::Input { path: path.into(), reason: format!("cannot be read: {e}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_is_one_parts() {
        let part: Part = "2/4".parse().unwrap();
        assert_eq!((part, part.to_string().as_str()), (Part { number: 2, of: 4 }, "2 of 4"));
        for k in 0..9 {
            let has: Vec<usize> = (1..=4).filter(|&number| Part { number, of: 4 }.has(k)).collect();
            assert_eq!(has, [k % 4 + 1]);
        }
        assert!("1/1".parse::<Part>().is_ok_and(|whole| (0..5).all(|k| whole.has(k))));
        for (text, word) in
            [("0/4", "1/4 to 4/4"), ("5/4", "1/4 to 4/4"), ("1/0", "from 1"), ("x", "2/4"), ("1", "2/4")]
        {
            assert!(text.parse::<Part>().is_err_and(|e| e.contains(text) && e.contains(word)), "{text}");
        }
        assert!(["-1/4", "1/-4", "1/", "/", "", "1/2/3", "1.5/2"].iter().all(|text| text.parse::<Part>().is_err()));
    }
}
