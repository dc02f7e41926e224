//! Shards on disk: `outcomes/shard-00000.safetensors`, one per 256 images, each written whole or not at all.
//!
//! A shard holds every potential outcome as f32 logits, so all tables can be made again without running a network:
//! `id`, `label` (i64, images) and, for input `k` in order (0 is the clean one), `k.orig` and `k.idle` (images x
//! classes), `k.do` (images x sets x classes), `k.live` (u8, images x sets), `k.fraction` (images; inputs with a mask).

use crate::causal::study::{Answers, Input, Shard};
use crate::causal::sweep::Logits;
use crate::error::Error;
use crate::tensor::Shape;
use crate::weights::safetensors::{self, Elements, TensorFile};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of a shard's file in the run directory.
pub fn file_name(shard: usize) -> String {
    format!("outcomes/shard-{shard:05}.safetensors")
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
    let file = TensorFile::open(path)?;
    let damaged = |what: &str| Error::Input {
        path: PathBuf::from(path),
        reason: format!("{what}; remove this file and resume, its images are run again"),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shard() -> Shard {
        let logits = |x: f32| Logits {
            orig: vec![x; 6],
            idle: vec![x + 1.0; 6],
            done: vec![x + 2.0; 12],
            live: vec![true, false, true, true],
        };
        let masked = Input::Pwm { masks: 1, fill: 0.0 };
        Shard {
            first: 256,
            ids: vec![256, 257],
            labels: vec![2, 0],
            answers: vec![
                Answers { input: Input::None, mask: 0, fraction: Vec::new(), logits: logits(0.5) },
                Answers { input: masked, mask: 0, fraction: vec![0.1, 0.1], logits: logits(-0.5) },
            ],
        }
    }

    #[test]
    fn a_shard_comes_back_as_it_was_and_one_that_does_not_fit_itself_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shard");
        assert!(matches!(load(&path, "run"), Ok(None)));
        save(&path, &shard(), 3, "run").unwrap();
        assert_eq!(load(&path, "run").unwrap(), Some(shard()));
        assert!(matches!(load(&path, "another"), Err(Error::Input { .. })));

        let mut damaged = shard();
        damaged.labels.push(1);
        assert!(save(&path, &damaged, 3, "run").is_err(), "its shape is checked when it is written");
        let file = TensorFile::open(&path).unwrap();
        for (name, dims) in [("label", &[1][..]), ("1.idle", &[2, 2]), ("0.live", &[1, 2]), ("id", &[0])] {
            let kept = file.names().map(|n| {
                let shape = if n == name { Shape::from(dims) } else { file.shape(n).unwrap().clone() };
                let elements = match file.elements(n).unwrap().unwrap() {
                    Elements::I64(v) => Elements::from(v[..v.len().min(shape.len())].to_vec()),
                    Elements::F32(v) => Elements::from(v[..v.len().min(shape.len())].to_vec()),
                    Elements::U8(v) => Elements::from(v[..v.len().min(shape.len())].to_vec()),
                    other => other,
                };
                (n.to_string(), shape, elements)
            });
            let kept: Vec<(String, Shape, Elements<'_>)> = kept.collect();
            let list: Vec<_> = kept.iter().map(|(n, s, e)| (n.as_str(), s, e.clone())).collect();
            let other = directory.path().join("damaged");
            safetensors::write(&other, &list, file.metadata()).unwrap();
            assert!(matches!(load(&other, "run"), Err(Error::Input { .. })), "{name}");
        }
    }
}
