//! The numerical floor of a study: how far rounding alone moves an effect, by the f64 reference on the first images.

use super::cost::Macs;
use crate::backend::reference::Reference;
use crate::causal::effect::{effects, effects_f64};
use crate::causal::intervention::NodeSet;
use crate::causal::study::{Shard, Study};
use crate::causal::sweep::{Batch, Logits, Subject, Sweep};
use crate::cli::common::Context;
use crate::error::Error;
use rayon::prelude::*;

/// The numerical floor and what it was taken over.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// Largest |effect here - effect of the f64 reference|, over classes.
    pub largest: f64,
    /// First images.
    pub images: usize,
    /// Sets of nodes: all, or those with the largest effects on the first image.
    pub sets: usize,
}

/// Compares the first images' effects under the clean input with the f64 reference's.
pub(super) fn floor(
    subject: Subject<'_>,
    sets: &[NodeSet],
    study: &mut Study<'_>,
    shards: &[Shard],
    context: &Context,
) -> Result<Floor, Error> {
    let Some(shard) = shards.first() else { return Ok(Floor { largest: f64::NAN, images: 0, sets: 0 }) };
    let (head, classes) = (subject.model.head, subject.model.classes);
    let here = &shard.answers[0].logits;
    let ours = |i: usize, set: usize| {
        let done = &here.done[(i * sets.len() + set) * classes..][..classes];
        effects(head, &here.idle[i * classes..(i + 1) * classes], done)
    };
    let macs = Macs::of(subject.model, subject.tap, subject.autoencoder);
    let (images, count) = macs.floor(shard.ids.len(), sets.len());
    let mut compared: Vec<usize> = (0..sets.len()).collect();
    if count < sets.len() {
        let sizes = compared.iter().map(|&s| Ok(ours(0, s)?.iter().map(|e| e.abs()).sum()));
        let sizes: Vec<f64> = sizes.collect::<Result<_, Error>>()?;
        compared.sort_by(|&a, &b| sizes[b].total_cmp(&sizes[a]).then(a.cmp(&b)));
        compared.truncate(count);
    }
    let chosen: Vec<NodeSet> = compared.iter().map(|&s| sets[s]).collect();
    context.ui.log(format!("comparing {images} images and {count} interventions with the f64 reference"));
    let (data, value) = (study.data, study.value.clone());
    let others = (0..images as u32).map(|i| study.others(&[i])).collect::<Result<Vec<_>, _>>()?;
    let worst = (0..images).into_par_iter().map(|i| -> Result<f64, Error> {
        let mut reference = Sweep::new(subject, &chosen, Batch { images: 1, variants: 1 }, &Reference)?;
        let truth: Logits<f64> = reference.outcomes_at(&data.pixels(&[i as u32])?, value.at(&others[i]))?;
        let mut worst: f64 = 0.0;
        for (at, &set) in compared.iter().enumerate() {
            let truth = effects_f64(head, &truth.idle, &truth.done[at * classes..][..classes])?;
            for (ours, truth) in ours(i, set)?.iter().zip(&truth) {
                let difference = (ours - truth).abs();
                worst = if difference > worst || difference.is_nan() { difference } else { worst };
            }
        }
        Ok(worst)
    });
    let largest = worst.try_reduce(|| 0.0, |a, b| Ok(if b > a || b.is_nan() { b } else { a }))?;
    Ok(Floor { largest, images, sets: count })
}
