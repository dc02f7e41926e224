//! What a study leaves beside its effects: kinds of images, what the nodes are, a detector.

use super::{Config, Loaded, node_sets};
use crate::atomic::write_atomic;
use crate::causal::analysis::{Columns, Quantity};
use crate::causal::breakdown::{self, Stratum};
use crate::causal::effect::Reading;
use crate::causal::gallery::Gallery;
use crate::causal::intervention::NodeSet;
use crate::causal::named_nodes;
use crate::causal::study::{Input, SHARD_IMAGES, Shard};
use crate::causal::sweep::Sweep;
use crate::cli::common::Context;
use crate::data::files::Record;
use crate::data::{Dataset, Labels};
use crate::detect::detector::Subject;
use crate::detect::{DetectError, DetectorReport, Plan, Table};
use crate::error::Error;
use crate::model::Head;
use crate::report::gallery;
use crate::report::run::RunDirectory;
use crate::tensor::argmax;
use serde::Serialize;
use std::path::Path;

/// Resamples of a detector's intervals at most: each takes every score once more.
const DETECTOR_RESAMPLES: usize = 1000;

/// What effects are worth as a detector of the study's attacks, and the table that this is of; nothing where it has none, or too few
/// images for it.
pub(super) fn detector(
    context: &Context,
    config: &Config,
    loaded: &Loaded,
    data: &Dataset,
    shards: &[Shard],
) -> Result<Option<(DetectorReport, Table)>, Error> {
    if !config.inputs.iter().any(|input| matches!(input, Input::Attack(_))) {
        return Ok(None);
    }
    if !config.value.is_zero() {
        // a saved detector is about nodes at 0, and would be used on such
        context.ui.log("no detector: it is about nodes that are set to 0");
        return Ok(None);
    }
    let Loaded { model, tap, autoencoder, .. } = loaded;
    let names = node_sets(config, autoencoder.nodes)?;
    // nodes only: what several do together would be counted twice
    let singles = names.iter().take_while(|set| set.len() == 1).count();
    let alone: Vec<Shard>;
    let shards = match singles < names.len() {
        true => {
            alone = shards.iter().map(|shard| shard.of_first_sets(singles)).collect();
            &alone
        }
        false => shards,
    };
    let nodes = names.iter().take(singles).map(|set| node_name(&tap.name, &named_nodes(set))).collect();
    let plan = Plan {
        seed: config.seed,
        resamples: config.resamples.min(DETECTOR_RESAMPLES),
        level: config.level,
        ..Plan::new(Subject { nodes, hashes: loaded.weights_hashes() })
    };
    let patients: Vec<Option<&str>> = (0..data.len()).map(|i| data.patient(i)).collect();
    let made = Table::of(shards, model.head, model.classes, &patients)
        .and_then(|table| Ok((DetectorReport::of(&table, &plan)?, table)));
    match made {
        Ok(made) => Ok(Some(made)),
        Err(
            e @ (DetectError::Few(_)
            | DetectError::Nothing { .. }
            | DetectError::Singular { .. }
            | DetectError::Diverged { .. }),
        ) => {
            context.ui.log(format!("no detector: {e}"));
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

/// What a detector calls a node of the tap `tap`.
pub fn node_name(tap: &str, node: &str) -> String {
    format!("{tap}/ch{node}")
}

/// Kinds of images that effects are told apart by: the label, what the host says of the clean image, whether it is right, findings,
/// and what else the data say of a patient.
pub(super) fn strata(data: &Dataset, shards: &[Shard], head: Head, names: &[String]) -> Vec<Stratum> {
    let name = |class: usize| names.get(class).cloned().unwrap_or_else(|| class.to_string());
    let rows = |shard: &Shard| -> Vec<Option<usize>> {
        let logits = &shard.answers[0].logits.orig;
        logits.chunks_exact(logits.len() / shard.ids.len().max(1)).map(argmax).collect()
    };
    let predicted: Vec<Option<usize>> = shards.iter().flat_map(rows).collect();
    let mut all = Vec::new();
    if head == Head::Softmax {
        let labels: Vec<Option<usize>> = (0..data.len()).map(|i| data.label(i).map(|label| label as usize)).collect();
        let named = |classes: &[Option<usize>]| classes.iter().map(|class| class.map(name)).collect::<Vec<_>>();
        all.extend(breakdown::strata("label", &named(&labels)));
        all.extend(breakdown::strata("predicted", &named(&predicted)));
        let correct = labels.iter().zip(&predicted).map(|(label, answer)| {
            let right = |(label, answer): (&usize, &usize)| if label == answer { "yes" } else { "no" };
            label.as_ref().zip(answer.as_ref()).map(|pair| right(pair).to_string())
        });
        all.extend(breakdown::strata("correct", &correct.collect::<Vec<_>>()));
    }
    if let Labels::Findings(findings) = data.targets() {
        for (j, finding) in names.iter().enumerate() {
            let images: Vec<u32> = (0..findings.len()).filter(|&i| findings[i].contains(j)).map(|i| i as u32).collect();
            if !images.is_empty() {
                all.push(Stratum { by: "finding".into(), value: finding.clone(), images });
            }
        }
    }
    let said = |value: fn(&Record) -> &Option<String>| -> Vec<Option<String>> {
        (0..data.len()).map(|i| data.record(i).and_then(|record| value(record).clone())).collect()
    };
    all.extend(breakdown::strata("sex", &said(|record| &record.sex)));
    all.extend(breakdown::strata("view", &said(|record| &record.view)));
    all
}

/// Shows what the nodes are: one more pass of the front over the clean images.
pub(super) fn show_nodes(
    context: &Context,
    sweep: &mut Sweep,
    data: &Dataset,
    (columns, sets): (&Columns, &[NodeSet]),
    directory: &RunDirectory,
    run_id: &str,
) -> Result<(), Error> {
    let [nodes, height, width] = sweep.code();
    let mut gallery = Gallery::new(nodes, [height, width], gallery::SHOWN);
    let all: Vec<u32> = (0..data.len() as u32).collect();
    data.announce(&all);
    for block in all.chunks(SHARD_IMAGES) {
        if context.stopped() {
            return Err(Error::Interrupted { resume: directory.finished_path().into() });
        }
        gallery.add(&sweep.codes(&data.pixels(block)?)?);
    }
    let single = |(s, set): (usize, &NodeSet)| {
        let node = set.iter().next().filter(|_| set.len() == 1)?;
        Some((node, columns.get(0, s, Quantity::Ece(Reading::Z0))))
    };
    let effects: Vec<(usize, &[f64])> = sets.iter().enumerate().filter_map(single).collect();
    gallery::write(&directory.path(""), run_id, &gallery, &effects, data)
}

/// Writes what serialises as a file of JSON.
pub(super) fn save_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Failed(e.to_string()))?;
    Ok(write_atomic(path, |file| writeln!(file, "{text}"))?)
}
