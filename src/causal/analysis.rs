//! From shards to columns: one number per image for everything that tables, intervals and verdicts are made of.
//!
//! An image's value under several masks is its mean over them, so the unit of every interval stays the image.

use super::CausalError;
use super::effect::{Artefact, Outcomes, Reading, Responses, margin_effect};
use super::study::{Answers, Input, Shard};
use crate::model::Head;
use crate::tensor::argmax;
use rayon::prelude::*;
use std::collections::HashMap;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// Class-weighted effect under a reading (E1, or its Bernoulli form).
    Ece(Reading),
    /// R1 with the softmax applied twice on this row alone.
    DoubleSoftmax,
    /// R1 with baseline p_orig on this row alone.
    BaselineOrig,
    /// Effect on the probability of the image's label, within its own input (Z0 or R1): E3 is its mean over a class.
    LabelEffect,
    /// Effect on the logit margin of the idle prediction, within its own input: E4.
    Margin,
    /// 1 when the predicted class changes.
    Flip,
    /// 1 when the set touches a live channel.
    Live,
    /// Class-weighted effect of putting the autoencoder in, p_orig to p_idle: the floor. The same for every set.
    Recon,
    /// Largest p_idle. The same for every set.
    Confidence,
    /// 1 when host and autoencoder-inserted net predict the same class. The same for every set.
    Agreement,
    /// 1 when the host predicts the label, NaN for an image without one. The same for every set.
    Correct,
    /// Mean |p_idle - p_orig| over classes. The same for every set.
    Difference,
}

/// Which column: input number (0 is the clean one), set number, quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Position in [`Columns::inputs`].
    pub input: usize,
    /// Position in the sweep's sets; 0 for quantities that are the same for every set.
    pub set: usize,
    /// What it holds.
    pub quantity: Quantity,
}

/// All columns of a study.
#[derive(Clone, Debug)]
pub struct Columns {
    /// Inputs, the clean one first.
    pub inputs: Vec<Input>,
    /// Number of sets.
    pub sets: usize,
    /// True labels.
    pub labels: Vec<u32>,
    columns: HashMap<Key, Vec<f64>>,
}

impl Columns {
    /// Number of images.
    pub fn images(&self) -> usize {
        self.labels.len()
    }

    /// A column; empty when the study has no such quantity.
    pub fn get(&self, input: usize, set: usize, quantity: Quantity) -> &[f64] {
        self.columns.get(&Key { input, set, quantity }).map_or(&[], Vec::as_slice)
    }

    /// Mean of a column.
    pub fn mean(&self, input: usize, set: usize, quantity: Quantity) -> f64 {
        let column = self.get(input, set, quantity);
        column.iter().sum::<f64>() / column.len() as f64
    }

    /// Computes every column of `shards` (in image order).
    ///
    /// # Errors
    /// [`CausalError::Length`] without shards; [`CausalError::Shard`] when they are not consecutive, or differ in inputs,
    /// sets or classes.
    pub fn of(shards: &[Shard], head: Head, classes: usize) -> Result<Columns, CausalError> {
        let first = shards.first().ok_or(CausalError::Length { what: "shards", expected: 1, got: 0 })?;
        let mut inputs: Vec<Input> = Vec::new();
        // answers of input k
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (at, a) in first.answers.iter().enumerate() {
            match inputs.iter().position(|i| *i == a.input) {
                Some(k) => groups[k].push(at),
                None => {
                    inputs.push(a.input);
                    groups.push(vec![at]);
                }
            }
        }
        let sets = first.answers.first().map_or(0, |a| a.logits.live.len() / first.ids.len().max(1));
        consistent(shards, first, sets, classes)?;
        let keys = keys(&inputs, sets, head);
        let rows: Vec<Vec<f64>> = shards
            .iter()
            .flat_map(|shard| (0..shard.ids.len()).map(move |i| (shard, i)))
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|(shard, i)| image(shard, i, &groups, sets, head, classes))
            .collect::<Result<_, _>>()?;
        let mut columns: HashMap<Key, Vec<f64>> = HashMap::with_capacity(keys.len());
        for (at, key) in keys.into_iter().enumerate() {
            columns.insert(key, rows.iter().map(|row| row[at]).collect());
        }
        let labels = shards.iter().flat_map(|s| s.labels.iter().copied()).collect();
        Ok(Columns { inputs, sets, labels, columns })
    }
}

const PER_INPUT: [Quantity; 5] =
    [Quantity::Recon, Quantity::Confidence, Quantity::Agreement, Quantity::Correct, Quantity::Difference];
const PER_SET: [Quantity; 4] = [Quantity::LabelEffect, Quantity::Margin, Quantity::Flip, Quantity::Live];
const PERTURBED: [Reading; 6] = [Reading::R1, Reading::R2, Reading::R3, Reading::R4, Reading::R5, Reading::R6];

/// Whether the shards follow one another and hold the same inputs, sets and classes, so that all are parts of one study.
///
/// # Errors
/// [`CausalError::Shard`] names the first that does not.
pub fn consistent(shards: &[Shard], like: &Shard, sets: usize, classes: usize) -> Result<(), CausalError> {
    let mut next = like.first;
    for shard in shards {
        let n = shard.ids.len();
        let wrong = |reason| Err(CausalError::Shard { first: shard.first, reason });
        if shard.first != next || shard.labels.len() != n {
            return wrong("it does not begin where the one before ends, or lacks labels");
        }
        let asked = |s: &Shard| s.answers.iter().map(|a| (a.input, a.mask)).collect::<Vec<_>>();
        if asked(shard) != asked(like) {
            return wrong("it holds other inputs");
        }
        let fits = |a: &Answers| {
            let l = &a.logits;
            let got = [l.orig.len(), l.idle.len(), l.done.len(), l.live.len()];
            got == [n * classes, n * classes, n * sets * classes, n * sets]
        };
        if !shard.answers.iter().all(fits) {
            return wrong("its logits are of another number of images, sets or classes");
        }
        next += n;
    }
    Ok(())
}

/// Keys in the order in which [`image`] computes values.
fn keys(inputs: &[Input], sets: usize, head: Head) -> Vec<Key> {
    let mut keys = Vec::new();
    for input in 0..inputs.len() {
        keys.extend(PER_INPUT.map(|quantity| Key { input, set: 0, quantity }));
        for set in 0..sets {
            keys.extend(PER_SET.map(|quantity| Key { input, set, quantity }));
            if input == 0 {
                keys.push(Key { input, set, quantity: Quantity::Ece(Reading::Z0) });
                continue;
            }
            keys.extend(PERTURBED.map(|r| Key { input, set, quantity: Quantity::Ece(r) }));
            keys.push(Key { input, set, quantity: Quantity::BaselineOrig });
            if head == Head::Softmax {
                keys.push(Key { input, set, quantity: Quantity::DoubleSoftmax });
            }
        }
    }
    keys
}

/// One image's answers under one input and mask.
pub fn responses(
    answers: &Answers,
    i: usize,
    sets: usize,
    head: Head,
    classes: usize,
) -> Result<Responses, CausalError> {
    let l = &answers.logits;
    Responses::new(
        head,
        row(&l.orig, i, classes, "host logits")?,
        row(&l.idle, i, classes, "idle logits")?,
        row(&l.done, i, sets * classes, "logits under the intervention")?,
    )
}

/// Row `i` of `data`, rows of `len`.
fn row<'a>(data: &'a [f32], i: usize, len: usize, what: &'static str) -> Result<&'a [f32], CausalError> {
    let (from, to) = (i * len, (i + 1) * len);
    data.get(from..to).ok_or(CausalError::Length { what, expected: to, got: data.len() })
}

/// All values of one image; the shard is [`consistent`].
fn image(
    shard: &Shard,
    i: usize,
    groups: &[Vec<usize>],
    sets: usize,
    head: Head,
    classes: usize,
) -> Result<Vec<f64>, CausalError> {
    let clean = responses(&shard.answers[0], i, sets, head, classes)?;
    let label = shard.labels[i] as usize;
    let mut row = Vec::new();
    for (input, group) in groups.iter().enumerate() {
        let mut sum: Vec<f64> = Vec::new();
        for &at in group {
            let values = one(&shard.answers[at], i, input, &clean, label, sets, head, classes)?;
            if sum.is_empty() {
                sum = values;
            } else {
                sum.iter_mut().zip(values).for_each(|(s, v)| *s += v);
            }
        }
        row.extend(sum.into_iter().map(|s| s / group.len() as f64));
    }
    Ok(row)
}

/// All values of one image under one input and mask, in the order of [`keys`].
#[allow(clippy::too_many_arguments)] // one call site; a struct would only rename these
fn one(
    answers: &Answers,
    i: usize,
    input: usize,
    clean: &Responses,
    label: usize,
    sets: usize,
    head: Head,
    classes: usize,
) -> Result<Vec<f64>, CausalError> {
    let here = responses(answers, i, sets, head, classes)?;
    let l = &answers.logits;
    let (orig, idle) = (row(&l.orig, i, classes, "host logits")?, row(&l.idle, i, classes, "idle logits")?);
    let predicted = argmax(idle);
    let difference: f64 = here.recon_effects().iter().map(|d| d.abs()).sum::<f64>() / classes as f64;
    let truth = |b: bool| if b { 1.0 } else { 0.0 };
    let agreement = argmax(orig).zip(predicted).map_or(f64::NAN, |(a, b)| truth(a == b));
    let correct = argmax(orig).filter(|_| label < classes).map_or(f64::NAN, |a| truth(a == label));
    let mut values = vec![here.recon()?, here.confidence().max, agreement, correct, difference];
    let outcomes =
        if input == 0 { Outcomes::new(clean.clone()) } else { Outcomes::with_perturbed(clean.clone(), here.clone())? };
    for set in 0..sets {
        let effects = here.node_effects(set)?;
        values.push(effects.get(label).copied().unwrap_or(f64::NAN));
        let done = row(&l.done, i * sets + set, classes, "logits under the intervention")?;
        values.push(predicted.map_or(Ok(f64::NAN), |c| margin_effect(idle, done, c))?);
        values.push(here.flips(set)?.map_or(f64::NAN, truth));
        values.push(truth(l.live[i * sets + set]));
        if input == 0 {
            values.push(outcomes.ece(Reading::Z0, set, Artefact::None)?);
            continue;
        }
        for reading in PERTURBED {
            values.push(outcomes.ece(reading, set, Artefact::None)?);
        }
        values.push(outcomes.ece(Reading::R1, set, Artefact::BaselineOrig)?);
        if head == Head::Softmax {
            values.push(outcomes.ece(Reading::R1, set, Artefact::DoubleSoftmax)?);
        }
    }
    Ok(values)
}
