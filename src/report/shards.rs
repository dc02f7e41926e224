//! Shards on disk: `outcomes/shard-00000.safetensors`, one per 256 images, each written whole or not at all.
//!
//! A shard holds every potential outcome as f32 logits, so all tables can be made again without running a network:
//! `id`, `label` (i64, images) and, for input `k` in order (0 is the clean one), `k.orig` and `k.idle` (images x
//! classes), `k.do` (images x sets x classes), `k.live` (u8, images x sets), `k.fraction` (images; inputs with a mask).

use super::run::OUTCOMES;
use crate::causal::study::{Answers, Input, Shard};
use crate::causal::sweep::Logits;
use crate::error::Error;
use crate::tensor::Shape;
use crate::weights::safetensors::{self, Elements, TensorFile};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of a shard's file in the run directory.
pub fn file_name(shard: usize) -> String {
    format!("{OUTCOMES}/shard-{shard:05}.safetensors")
}

/// Saves a shard; `run_id` goes into its metadata, so that no other run's shard is taken for it.
///
/// # Errors
/// [`Error::Weights`] with the path when it cannot be written.
pub fn save(path: &Path, shard: &Shard, classes: usize, run_id: &str) -> Result<(), Error> {
    let n = shard.ids.len();
    let mut tensors: Vec<(String, Shape, Elements<'_>)> = vec![
        ("id".into(), Shape::from([n]), Elements::from(shard.ids.iter().map(|&i| i as i64).collect::<Vec<_>>())),
        (
            "label".into(),
            Shape::from([n]),
            Elements::from(shard.labels.iter().map(|&l| l.into()).collect::<Vec<i64>>()),
        ),
    ];
    for (k, a) in shard.answers.iter().enumerate() {
        let sets = a.logits.live.len() / n.max(1);
        let images = Shape::from([n, classes]);
        tensors.push((format!("{k}.orig"), images.clone(), Elements::from(a.logits.orig.as_slice())));
        tensors.push((format!("{k}.idle"), images, Elements::from(a.logits.idle.as_slice())));
        let done = Shape::from([n, sets, classes]);
        tensors.push((format!("{k}.do"), done, Elements::from(a.logits.done.as_slice())));
        let live: Vec<u8> = a.logits.live.iter().map(|&l| l.into()).collect();
        tensors.push((format!("{k}.live"), Shape::from([n, sets]), Elements::from(live)));
        if !a.fraction.is_empty() {
            tensors.push((format!("{k}.fraction"), Shape::from([n]), Elements::from(a.fraction.as_slice())));
        }
    }
    let inputs: Vec<(Input, u32)> = shard.answers.iter().map(|a| (a.input, a.mask)).collect();
    let inputs = serde_json::to_string(&inputs).map_err(|e| Error::Failed(e.to_string()))?;
    let metadata = BTreeMap::from([
        ("run_id".to_string(), run_id.to_string()),
        ("first".to_string(), shard.first.to_string()),
        ("inputs".to_string(), inputs),
    ]);
    let list: Vec<(&str, &Shape, Elements<'_>)> =
        tensors.iter().map(|(name, shape, elements)| (name.as_str(), shape, elements.clone())).collect();
    Ok(safetensors::write(path, &list, &metadata)?)
}

/// Loads a shard of the run `run_id`; `Ok(None)` when there is no such file.
///
/// # Errors
/// [`Error::Input`] when the file is damaged or another run's: remove it and resume.
pub fn load(path: &Path, run_id: &str) -> Result<Option<Shard>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let damaged = |what: &str| Error::Input {
        path: PathBuf::from(path),
        reason: format!("{what}; remove this file and resume, its images are run again"),
    };
    let file = TensorFile::open(path).map_err(|e| damaged(&format!("is damaged ({e})")))?;
    let meta = |key: &str| file.metadata().get(key).ok_or_else(|| damaged("lacks its metadata"));
    if meta("run_id")? != run_id {
        return Err(damaged("belongs to another run"));
    }
    let first = meta("first")?.parse().map_err(|_| damaged("does not say which images it holds"))?;
    let inputs: Vec<(Input, u32)> =
        serde_json::from_str(meta("inputs")?).map_err(|_| damaged("does not say which inputs it holds"))?;
    let integers = |name: &str| match file.elements(name)? {
        Some(Elements::I64(v)) => Ok(v.into_owned()),
        _ => Err(damaged("lacks ids or labels")),
    };
    let floats = |name: String| match file.elements(&name)? {
        Some(Elements::F32(v)) => Ok(v.into_owned()),
        _ => Err(damaged("lacks logits")),
    };
    let ids: Vec<u64> = integers("id")?.into_iter().map(|i| i as u64).collect();
    let labels: Result<Vec<u32>, _> = integers("label")?.into_iter().map(u32::try_from).collect();
    let labels = labels.map_err(|_| damaged("holds a label that is none"))?;
    // every table is cut by these numbers, so they must be the file's own
    let n = ids.len();
    let dims = |name: &str| file.shape(name).map_or(&[][..], Shape::dims);
    let (&[_, classes], &[_, sets]) = (dims("0.orig"), dims("0.live")) else {
        return Err(damaged("lacks the clean images' logits"));
    };
    if n == 0 || labels.len() != n || inputs.first() != Some(&(Input::None, 0)) {
        return Err(damaged("lacks images, labels or the clean input"));
    }
    let fits = |k: usize| {
        dims(&format!("{k}.orig")) == [n, classes]
            && dims(&format!("{k}.idle")) == [n, classes]
            && dims(&format!("{k}.do")) == [n, sets, classes]
            && dims(&format!("{k}.live")) == [n, sets]
    };
    if !(0..inputs.len()).all(fits) {
        return Err(damaged("holds logits of another number of images, sets or classes"));
    }
    let mut answers = Vec::with_capacity(inputs.len());
    for (k, (input, mask)) in inputs.into_iter().enumerate() {
        let live = match file.elements(&format!("{k}.live"))? {
            Some(Elements::U8(v)) => v.iter().map(|&l| l != 0).collect(),
            _ => return Err(damaged("lacks its list of live nodes")),
        };
        let fraction = match file.elements(&format!("{k}.fraction"))? {
            Some(Elements::F32(v)) => v.into_owned(),
            _ => Vec::new(),
        };
        let logits = Logits {
            orig: floats(format!("{k}.orig"))?,
            idle: floats(format!("{k}.idle"))?,
            done: floats(format!("{k}.do"))?,
            live,
        };
        answers.push(Answers { input, mask, fraction, logits });
    }
    Ok(Some(Shard { first, ids, labels, answers }))
}

/// Whether a loaded shard holds what the run asks for: these images, these inputs, and answers of the right length.
/// Tables index into it, so a shard that does not fit must not get there.
///
/// # Errors
/// [`Error::Input`]: remove the file and resume.
pub fn check(path: &Path, shard: &Shard, want: &Want<'_>) -> Result<(), Error> {
    let n = want.ids.len();
    let asked = want.inputs.iter().flat_map(|i| (0..i.repeats()).map(move |mask| (*i, mask)));
    let inputs = std::iter::once((Input::None, 0)).chain(asked);
    let fits = shard.first == want.first
        && shard.ids == want.ids
        && shard.labels == want.labels
        && shard.answers.iter().map(|a| (a.input, a.mask)).eq(inputs)
        && shard.answers.iter().all(|a| {
            let l = &a.logits;
            let fraction = if matches!(a.input, Input::Pwm { .. }) { n } else { 0 };
            l.orig.len() == n * want.classes
                && l.idle.len() == n * want.classes
                && l.live.len() == n * want.sets
                && l.done.len() == n * want.sets * want.classes
                && a.fraction.len() == fraction
        });
    if fits {
        return Ok(());
    }
    let reason =
        "does not hold the images and inputs of this run; remove this file and resume, its images are run again";
    Err(Error::Input { path: path.into(), reason: reason.into() })
}

/// What a shard of a run holds.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// Position of its first image.
    pub first: usize,
    /// Image ids.
    pub ids: &'a [u64],
    /// Their labels.
    pub labels: &'a [u32],
    /// Inputs beside the clean one.
    pub inputs: &'a [Input],
    /// Interventions.
    pub sets: usize,
    /// Classes.
    pub classes: usize,
}
