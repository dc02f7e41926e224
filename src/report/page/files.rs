//! The files of a run, as its page reads them.

use super::conditions::Quantity;
use super::extras::{self, Extra};
use super::maps::{MAPS, Maps};
use crate::error::Error;
use crate::report::claim::ClaimFile;
use crate::report::gallery::{GALLERY, Index};
use crate::report::run::Manifest;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A row of `summary.csv`, of what a page shows.
#[derive(Clone, Debug, Deserialize)]
pub struct Effect {
    pub arch: String,
    pub tap: String,
    pub node: String,
    pub input: String,
    pub eps: Option<f64>,
    pub reading: String,
    pub estimand: String,
    pub mean: Option<f64>,
    pub median: Option<f64>,
    pub live_share: Option<f64>,
    pub n: usize,
    pub ci_lo: Option<f64>,
    pub ci_hi: Option<f64>,
    pub p_adj: Option<f64>,
}

/// A row of `effect_matrix.csv`.
#[derive(Clone, Debug, Deserialize)]
pub struct Cell {
    pub node: String,
    pub input: String,
    pub class: usize,
    pub class_name: String,
    pub effect: Option<f64>,
    pub ci_lo: Option<f64>,
    pub ci_hi: Option<f64>,
}

/// A row of `strata.csv`.
#[derive(Clone, Debug, Deserialize)]
pub struct Stratum {
    pub node: String,
    pub input: String,
    pub by: String,
    pub value: String,
    pub ece: Option<f64>,
    pub ci_lo: Option<f64>,
    pub ci_hi: Option<f64>,
    pub n: usize,
}

/// What is read of a run.
pub struct Run {
    pub directory: PathBuf,
    pub manifest: Manifest,
    pub effects: Vec<Effect>,
    pub cells: Vec<Cell>,
    pub strata: Vec<Stratum>,
    pub gallery: Option<Index>,
    /// `claims.json`.
    pub claims: Option<Value>,
    /// `detector.json`.
    pub detector: Option<Value>,
    /// Claims that have a file of their own, by their letter.
    pub judged: Vec<ClaimFile>,
    /// Maps: those of a run of `map`, or of the one inside of a reproduction.
    pub maps: Option<Maps>,
    /// Tables of one figure a node.
    pub extras: Vec<Extra>,
    /// Conditions II and III.
    pub conditions: Vec<Quantity>,
}

/// The number of a node out of its name: `ch3` of `fashion/features.1/ae@1a2b3c4d/ch3`.
pub fn node_number(name: &str) -> &str {
    name.rsplit("/ch").next().unwrap_or(name)
}

impl Run {
    /// Reads the run in `directory`, finished or about to be.
    pub fn read(directory: &Path) -> Result<Run, Error> {
        let manifest: Manifest = json(&directory.join("manifest.json"))?.ok_or_else(|| Error::Input {
            path: directory.into(),
            reason: "there is no manifest.json: this is no run directory".into(),
        })?;
        let gallery = json(&directory.join(GALLERY).join("gallery.json"))?;
        let mut effects: Vec<Effect> = table(&directory.join("summary.csv"))?;
        // of the thousand rows of a thousand classes the page shows none
        effects.retain(|row| row.estimand == "e1" || row.estimand == "bernoulli");
        let inside = directory.join(MAPS);
        let of_maps = Maps::read(directory)?;
        let mut judged = ClaimFile::read_all(directory)?;
        let maps = match of_maps {
            Some(maps) => Some(maps),
            None => {
                judged.extend(ClaimFile::read_all(&inside)?);
                Maps::read(&inside)?
            }
        };
        judged.sort_by_key(|claim| claim.claim);
        if effects.is_empty() && maps.is_none() {
            let reason = match directory.join("ae-1").exists() {
                true => "is a run of several autoencoders: each has a page of its own, in ae-1, ae-2 …".into(),
                false => {
                    format!("there are no effects and no maps in it to report (it is a run of `{}`)", manifest.verb)
                }
            };
            return Err(Error::Input { path: directory.into(), reason });
        }
        Ok(Run {
            effects,
            cells: table(&directory.join("effect_matrix.csv"))?,
            strata: table(&directory.join("strata.csv"))?,
            gallery,
            claims: json(&directory.join("claims.json"))?,
            detector: json(&directory.join("detector.json"))?,
            judged,
            maps,
            extras: extras::read(directory)?,
            conditions: table(&directory.join("conditions.csv"))?,
            manifest,
            directory: directory.into(),
        })
    }

    pub fn arch(&self) -> &str {
        let maps = || self.maps.as_ref().map_or("", Maps::arch);
        self.effects.first().map_or_else(maps, |row| &row.arch)
    }

    /// What its nodes were set to, in words that follow "set to".
    pub fn set_to(&self) -> String {
        match &self.manifest.configuration["value"] {
            Value::String(value) if value == "mean" => "their mean over the images".into(),
            Value::String(value) if value == "resample" => "what they are on another image".into(),
            Value::Object(scale) => format!("themselves times {}", scale.get("scale").unwrap_or(&Value::Null)),
            _ => "0".into(),
        }
    }

    /// The tap of its effects.
    pub fn tap(&self) -> &str {
        self.effects.first().map_or("", |row| &row.tap)
    }

    /// Inputs (name and eps) in the order of the table, the clean one first.
    pub fn inputs(&self) -> Vec<(&str, Option<f64>)> {
        let mut inputs: Vec<(&str, Option<f64>)> = Vec::new();
        for row in &self.effects {
            if !inputs.contains(&(row.input.as_str(), row.eps)) {
                inputs.push((&row.input, row.eps));
            }
        }
        inputs
    }

    /// Nodes in the order of the table.
    pub fn nodes(&self) -> Vec<&str> {
        let mut nodes: Vec<&str> = Vec::new();
        for row in self.effects.iter().filter(|row| row.reading == "Z0") {
            if !nodes.contains(&row.node.as_str()) {
                nodes.push(&row.node);
            }
        }
        nodes
    }

    /// The class-weighted effect of a node within an input (Z0, or R1).
    pub fn effect(&self, node: &str, (input, eps): (&str, Option<f64>)) -> Option<&Effect> {
        let reading = if input == "none" { "Z0" } else { "R1" };
        let mut rows = self.effects.iter();
        rows.find(|row| row.node == node && row.input == input && row.eps == eps && row.reading == reading)
    }

    /// Those of one node, not of several together.
    pub fn singles(&self) -> impl Iterator<Item = &str> {
        self.nodes().into_iter().filter(|node| !node_number(node).contains('+'))
    }

    /// The node with the largest clean effect.
    pub fn strongest(&self) -> Option<&Effect> {
        let clean = self.singles().filter_map(|node| self.effect(node, ("none", None)));
        let size = |row: &Effect| row.mean.unwrap_or(0.0).abs();
        clean.reduce(|best, next| if size(next) > size(best) { next } else { best })
    }
}

/// A table by its header; nothing where there is no such file.
pub fn table<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let wrong = |e: csv::Error| Error::Input { path: path.into(), reason: format!("cannot be read: {e}") };
    csv::Reader::from_path(path).map_err(wrong)?.deserialize().collect::<Result<_, _>>().map_err(wrong)
}

/// A file of JSON; nothing where there is none.
pub fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let wrong = |reason: String| Error::Input { path: path.into(), reason: format!("cannot be read: {reason}") };
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| wrong(e.to_string()))
}
