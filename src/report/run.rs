//! The run directory: work goes on in `DIR.partial`, the finished run is renamed to `DIR`, nothing is overwritten.
//!
//! `manifest.json` is written first, so that `--resume` finds the configuration, and again at the end. `run_id` is a hash
//! of configuration, weights and data: the same run gives the same bytes in every file but the manifest's `timing` and
//! `machine`.

use super::part::Portion;
use crate::atomic::{remove_leftovers, write_atomic};
use crate::backend::Details;
use crate::error::Error;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Version of every table and of the manifest.
pub const SCHEMA_VERSION: u32 = 1;

/// What a run is and was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file's layout.
    pub schema_version: u32,
    /// Hash of verb, configuration, weights and data: 16 hex digits. Where they lie is no part of it.
    pub run_id: String,
    /// The command.
    pub verb: String,
    /// Its configuration, complete: defaults are written out.
    pub configuration: Value,
    /// SHA-256 of weights and data by name.
    pub hashes: BTreeMap<String, String>,
    /// Version of this program.
    pub version: String,
    /// Device of the run, in words.
    pub device: String,
    /// Whether that device is a simulated one.
    pub simulated: bool,
    /// Convolution path: `exact` or `winograd`.
    pub conv: String,
    /// Of an unfinished run: the part of it that its directory is to hold. None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portion: Option<Portion>,
    /// Results in brief, by the verb.
    pub results: Map<String, Value>,
    /// What the reader should know before believing a number.
    pub warnings: Vec<String>,
    /// Seconds by phase; not part of what repeats.
    pub timing: Map<String, Value>,
    /// Threads, instruction set, host; not part of what repeats.
    pub machine: Map<String, Value>,
}

impl Manifest {
    /// A manifest at the start of a run on `device`.
    pub fn new(
        verb: &str,
        configuration: Value,
        mut hashes: BTreeMap<String, String>,
        device: String,
        details: Details,
    ) -> Manifest {
        // other kernels may add in another order
        hashes.extend(details.kernels_sha256.map(|hash| ("kernels".to_string(), hash)));
        let mut hasher = Sha256::new();
        hasher.update(verb.as_bytes());
        // instruction sets add in different orders: a run is one device's, and only that device may resume it
        hasher.update(device.as_bytes());
        hasher.update(without_places(&configuration).to_string().as_bytes());
        for (name, hash) in &hashes {
            hasher.update(format!("{name}={hash}\n").as_bytes());
        }
        let run_id = crate::digest::hex(&hasher.finalize())[..16].to_string();
        Manifest {
            schema_version: SCHEMA_VERSION,
            run_id,
            verb: verb.into(),
            configuration,
            hashes,
            version: env!("CARGO_PKG_VERSION").into(),
            device,
            simulated: details.simulated,
            conv: details.conv.name().into(),
            portion: None,
            results: Map::new(),
            warnings: Vec::new(),
            timing: Map::new(),
            machine: machine(details.notes),
        }
    }

    /// What makes `other` another run, in words.
    pub fn differences(&self, other: &Manifest) -> Vec<String> {
        let decides = |manifest: &Manifest| {
            let mut all =
                BTreeMap::from([("verb".into(), manifest.verb.clone()), ("device".into(), manifest.device.clone())]);
            if let Value::Object(map) = without_places(&manifest.configuration) {
                all.extend(map.into_iter().map(|(key, value)| (key, value.to_string())));
            }
            let hash = |hash: &String| hash.chars().take(8).collect();
            all.extend(manifest.hashes.iter().map(|(name, full)| (format!("hash of {name}"), hash(full))));
            all
        };
        let (ours, theirs) = (decides(self), decides(other));
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let value = |of: &BTreeMap<String, String>, name: &String| of.get(name).map_or("none".into(), String::clone);
        let apart = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
        apart.map(|name| format!("{name} is {} there and {} here", value(&ours, name), value(&theirs, name))).collect()
    }

    /// Why its directory takes no run of `now`, in words.
    pub fn refusal(&self, now: &Manifest) -> String {
        let apart = self.differences(now).join("; ");
        format!("weights, data or device are not those the run was started with: {apart}")
    }
}

/// Keys of a configuration that say where something lies; what lies there is in the manifest's hashes.
const PLACES: [&str; 7] = ["data", "any_data", "weights", "ae", "further_ae", "mask_file", "detector"];
/// Keys that say in which files results are written: these hold the same.
const FORMS: [&str; 1] = ["effects"];

/// The configuration without places and forms: the same run has the same identity in another directory. (An object under such
/// a key is neither: an autoencoder's `weights` of its losses stay.)
fn without_places(configuration: &Value) -> Value {
    let Value::Object(map) = configuration else { return configuration.clone() };
    let place = |key: &str, value: &Value| (PLACES.contains(&key) || FORMS.contains(&key)) && !value.is_object();
    let kept = map.iter().filter(|(key, value)| !place(key, value));
    Value::Object(kept.map(|(key, value)| (key.clone(), without_places(value))).collect())
}

fn machine(notes: Vec<(&'static str, String)>) -> Map<String, Value> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut map = Map::new();
    map.insert("os".into(), json!(std::env::consts::OS));
    map.insert("arch".into(), json!(std::env::consts::ARCH));
    map.insert("hardware_threads".into(), json!(threads));
    map.extend(notes.into_iter().map(|(key, value)| (key.into(), json!(value))));
    map
}

/// Where a run keeps its shards.
pub const OUTCOMES: &str = "outcomes";

/// The path without a closing slash, behind which `.partial` would become a file name of its own.
fn tidy(path: &Path) -> PathBuf {
    path.components().collect()
}

/// A run directory under work.
#[derive(Debug)]
pub struct RunDirectory {
    partial: PathBuf,
    finished: PathBuf,
}

/// `runs/<verb>-<UTC>-<hash8>`.
pub fn default_directory(verb: &str, run_id: &str) -> PathBuf {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let stamp: String = now.chars().filter(|c| *c != '-' && *c != ':').collect();
    Path::new("runs").join(format!("{verb}-{stamp}-{}", run_id.get(..8).unwrap_or(run_id)))
}

fn failed(path: &Path, doing: &str, reason: &std::io::Error) -> Error {
    Error::Failed(format!("{}: cannot {doing}: {reason}", path.display()))
}

fn partial_of(finished: &Path) -> PathBuf {
    let mut name = finished.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

impl RunDirectory {
    /// Whether a run can be started there: asked before any work, and again by [`RunDirectory::create`].
    ///
    /// # Errors
    /// [`Error::Usage`] when the directory or its unfinished run exists, or the path names nothing.
    pub fn check_free(finished: &Path) -> Result<(), Error> {
        if finished.file_name().is_none() {
            return Err(Error::Usage(format!("--out \"{}\" names no directory", finished.display())));
        }
        // a link to nowhere exists too
        if finished.symlink_metadata().is_ok() {
            return Err(Error::Usage(format!("{} exists; choose another --out", finished.display())));
        }
        let finished = &tidy(finished);
        let partial = partial_of(finished);
        if partial.exists() {
            return Err(Error::Usage(format!(
                "{} exists: an unfinished run; go on with `--resume {}` or choose another --out",
                partial.display(),
                finished.display()
            )));
        }
        Ok(())
    }

    /// Starts `finished`: creates `finished.partial` with `manifest` in it.
    ///
    /// # Errors
    /// [`Error::Usage`] when either exists (nothing is overwritten), [`Error::Failed`] when it cannot be created.
    pub fn create(finished: PathBuf, manifest: &Manifest) -> Result<RunDirectory, Error> {
        let finished = tidy(&finished);
        RunDirectory::check_free(&finished)?;
        let partial = partial_of(&finished);
        std::fs::create_dir_all(&partial).map_err(|e| failed(&partial, "create the run directory", &e))?;
        let run = RunDirectory { partial, finished };
        run.write_manifest(manifest).inspect_err(|_| {
            // there is nothing to resume; a directory that somebody else put a file into stays
            let _ = std::fs::remove_dir(&run.partial);
        })?;
        Ok(run)
    }

    /// As [`RunDirectory::resume`], with the configuration that the run was started with.
    ///
    /// # Errors
    /// [`Error::Input`] also when the configuration cannot be read.
    pub fn resume_configured<C: DeserializeOwned>(
        directory: &Path,
        verb: &str,
    ) -> Result<(C, Option<(RunDirectory, Manifest)>), Error> {
        let (directory, manifest) = RunDirectory::resume(directory, verb)?;
        let config = serde_json::from_value(manifest.configuration.clone()).map_err(|e| Error::Input {
            path: directory.path("manifest.json"),
            reason: format!("its configuration cannot be read: {e}"),
        })?;
        Ok((config, Some((directory, manifest))))
    }

    /// Goes on with an unfinished run; `directory` is the final name or the `.partial` one.
    ///
    /// # Errors
    /// [`Error::Input`] when there is no unfinished run or its manifest is damaged.
    pub fn resume(directory: &Path, verb: &str) -> Result<(RunDirectory, Manifest), Error> {
        let (run, manifest) = RunDirectory::unfinished(directory, verb)?;
        remove_leftovers(&run.partial);
        remove_leftovers(&run.path(OUTCOMES));
        Ok((run, manifest))
    }

    /// An unfinished run, which may be under way and is left as it is; `directory` as [`RunDirectory::resume`] takes it.
    ///
    /// # Errors
    /// As [`RunDirectory::resume`].
    pub fn unfinished(directory: &Path, verb: &str) -> Result<(RunDirectory, Manifest), Error> {
        let mut finished = tidy(directory);
        if finished.extension().is_some_and(|e| e == "partial") {
            finished.set_extension("");
        }
        let partial = partial_of(&finished);
        let input = |path: &Path, reason: String| Error::Input { path: path.into(), reason };
        if !partial.exists() {
            let reason = if finished.exists() { "this run is finished" } else { "there is no unfinished run here" };
            return Err(input(&finished, format!("{reason}; nothing to resume")));
        }
        let path = partial.join("manifest.json");
        // without its manifest nobody can say what the run was
        let anew = |reason: String| input(&path, format!("{reason}; remove {} and start anew", partial.display()));
        let bytes = std::fs::read(&path).map_err(|e| anew(format!("cannot be read: {e}")))?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|e| anew(format!("is no manifest of ours: {e}")))?;
        if manifest.verb != verb {
            let its = &manifest.verb;
            let reason = format!("is a run of `{its}`, not of `{verb}`: go on with `intervene {its} --resume`");
            return Err(input(&path, reason));
        }
        Ok((RunDirectory { partial, finished }, manifest))
    }

    /// Makes a finished run an unfinished one that [`RunDirectory::resume`] ends anew, for what was to follow its end. Nothing
    /// where there is none.
    ///
    /// # Errors
    /// [`Error::Failed`] when it cannot be renamed.
    pub fn reopen(finished: &Path) -> Result<(), Error> {
        let finished = tidy(finished);
        if !finished.exists() {
            return Ok(());
        }
        std::fs::rename(&finished, partial_of(&finished)).map_err(|e| failed(&finished, "take the run up again", &e))
    }

    /// A path in the directory while the run goes on.
    pub fn path(&self, name: &str) -> PathBuf {
        self.partial.join(name)
    }

    /// What to give to `--resume`.
    pub fn finished_path(&self) -> &Path {
        &self.finished
    }

    /// Writes the manifest.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(manifest).map_err(|e| Error::Failed(e.to_string()))?;
        Ok(write_atomic(&self.path("manifest.json"), |f| writeln!(f, "{text}"))?)
    }

    /// Ends the run: the directory gets its final name.
    ///
    /// # Errors
    /// [`Error::Failed`] when it cannot be renamed.
    pub fn finish(self, manifest: &Manifest) -> Result<PathBuf, Error> {
        self.write_manifest(manifest)?;
        std::fs::rename(&self.partial, &self.finished)
            .map_err(|e| failed(&self.finished, "give the finished run its name", &e))?;
        Ok(self.finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_by_what_it_computes_and_not_by_where_its_input_lies() {
        let id = |configuration: Value, data: &str| {
            let hashes = BTreeMap::from([("data".to_string(), data.to_string())]);
            Manifest::new("train-ae", configuration, hashes, "cpu".into(), Details::default()).run_id
        };
        let here = json!({ "data": "a", "weights": null, "seed": 1, "study": { "ae": "x" }, "objective": { "weights": { "deep": 1 } } });
        let mut there = here.clone();
        there["data"] = json!("/b/c");
        there["weights"] = json!("host.safetensors");
        there["effects"] = json!("csv");
        there["study"]["ae"] = json!("y");
        assert_eq!(id(here.clone(), "h"), id(there.clone(), "h"));
        assert_ne!(id(here.clone(), "h"), id(here.clone(), "other data"));
        there["seed"] = json!(2);
        assert_ne!(id(here.clone(), "h"), id(there, "h"));
        let mut losses = here.clone();
        losses["objective"]["weights"]["deep"] = json!(2);
        assert_ne!(id(here, "h"), id(losses, "h"));
    }
}
