//! Conditions II and III of a study, as `conditions.json` and `conditions.csv`: the first where it masks boxes, the second where it
//! is asked for.

use super::Loaded;
use super::beside::save_json;
use super::extra::Study;
use crate::backend::Layered;
use crate::causal::intervention::NodeSet;
use crate::causal::perturbation::symptom;
use crate::causal::statistics::{Bootstrap, Clusters};
use crate::causal::study::{Input, SHARD_IMAGES, Shard};
use crate::causal::sweep::{Logits, Sweep};
use crate::conditions::multitask::{self, Joint};
use crate::conditions::{Judge, MARGIN, Measured, Multitask, SecondHead, Symptoms, UNITS_MIN};
use crate::data::{Dataset, Labels};
use crate::detect::DetectError;
use crate::error::Error;
use crate::model::Head;
use crate::report::claim::{ClaimFile, Judged};
use crate::report::run::SCHEMA_VERSION;
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;

/// Images that a second head learns from at most: fourteen weights need no more.
const LEARNT_FROM: usize = 2000;

/// `conditions.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Conditions {
    /// Version of this file's layout.
    schema_version: u32,
    /// Whose.
    run_id: String,
    /// Condition II.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symptoms: Option<Symptoms>,
    /// Condition III.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multitask: Option<Multitask>,
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.symptoms.iter().try_for_each(|symptoms| write!(f, "{symptoms}"))?;
        self.multitask.iter().try_for_each(|multitask| write!(f, "{multitask}"))
    }
}

/// Measures what of both conditions the study asks for; a second head learns from `learn`.
///
/// # Errors
/// [`Error::Interrupted`], or the device's or a file's.
pub(super) fn conditions(
    study: &Study<'_>,
    shards: &[Shard],
    sets: &[NodeSet],
    learn: Option<&Dataset>,
    units: &Clusters,
) -> Result<Option<Conditions>, Error> {
    let Study { config, loaded, data, .. } = *study;
    let answers = (loaded.model.head, loaded.model.classes);
    let judge = Judge {
        bootstrap: Bootstrap::of_clusters(units, config.resamples, config.seed)?,
        level: config.level,
        margin: config.margin.unwrap_or(MARGIN),
    };
    let boxed = |input: &Input| if let Input::Pwm { region, .. } = input { region.boxed() } else { None };
    let symptoms = match config.inputs.iter().find_map(boxed) {
        None => None,
        Some(finding) => {
            let whose = |i: usize| Ok::<_, Error>(symptom(data, i, finding)?.map_or(u32::MAX, |s| s.finding));
            let findings: Vec<u32> = (0..data.len()).map(whose).collect::<Result<_, _>>()?;
            Symptoms::of(shards, sets, answers, &findings, &judge)?
        }
    };
    let multitask = match learn {
        None => None,
        Some(learn) => match second_head(study, learn)? {
            None => None,
            Some(head) => Some(Multitask::of(shards, sets, answers, head, &single_findings(data), &judge)?),
        },
    };
    if symptoms.is_none() && multitask.is_none() {
        return Ok(None);
    }
    let found = Conditions { schema_version: SCHEMA_VERSION, run_id: study.labels.run_id.clone(), symptoms, multitask };
    save_json(&study.directory.path("conditions.json"), &found)?;
    if let Some(multitask) = &found.multitask {
        claim(multitask, &study.labels.run_id).write(&study.directory.path(""))?;
    }
    let mut rows: Vec<(&str, &Measured)> = Vec::new();
    rows.extend(found.symptoms.iter().flat_map(|s| s.measured.iter().map(|row| ("II", row))));
    rows.extend(found.multitask.iter().flat_map(|m| m.joint.iter().flat_map(|j| [("III", &j.y), ("III", &j.z)])));
    crate::report::nodes::conditions(&study.directory.path("conditions.csv"), &rows, study.labels)?;
    Ok(Some(found))
}

/// Claim (f) as a file of its own, in the form that the page shows claims in.
fn claim(multitask: &Multitask, run_id: &str) -> ClaimFile {
    let told = "the joint effect on two tasks of one cause is not to be told from 0 (condition III)";
    let quantity = "the margin less the largest mean effect of a live node on either task";
    let mut claim = ClaimFile::new(run_id, 'f', told, quantity);
    let live: Vec<&Joint> = multitask.joint.iter().filter(|joint| joint.live).collect();
    let means = live.iter().flat_map(|j| [&j.y, &j.z]).filter_map(|m| m.mean.map(f64::abs));
    let largest = means.reduce(f64::max);
    let few = multitask.patients < UNITS_MIN;
    let reason = match largest {
        _ if few => format!("{} patients or images are fewer than {UNITS_MIN}", multitask.patients),
        None => "no node has an effect".into(),
        Some(largest) => format!(
            "of {} live nodes the largest mean effect on either task is {largest:.1e}; within {} counts as none (two one-sided tests, \
             both tasks of every node)",
            live.len(),
            multitask.margin
        ),
    };
    claim.judged.push(Judged {
        condition: "every live node set to 0".into(),
        verdict: if multitask.verdict.is_some() { multitask.claim() } else { "none" }.into(),
        value: largest.map(|largest| multitask.margin - largest),
        interval: None,
        reason,
    });
    claim
}

/// The finding of each image that has exactly one.
fn single_findings(data: &Dataset) -> Vec<Option<usize>> {
    let Labels::Findings(findings) = data.targets() else { return vec![None; data.len()] };
    let single = |found: &crate::data::findings::Findings| {
        let mut all = found.iter();
        all.next().filter(|_| all.next().is_none())
    };
    findings.iter().map(single).collect()
}

/// The images that a second head learns from: those of `training` with exactly one finding, of patients whom the study of `shown` does not show.
///
/// # Errors
/// [`Error::Data`]; [`Error::Usage`] for a network of other answers than fourteen findings.
pub fn learnt_from(loaded: &Loaded, training: &Dataset, shown: &Dataset) -> Result<Dataset, Error> {
    let Loaded { model, .. } = loaded;
    if model.head != Head::Sigmoid || model.classes != multitask::FINDINGS {
        return Err(Error::Usage(format!(
            "--second-head: condition III is about a network of 14 findings; {} answers with {} {}",
            model.arch,
            model.classes,
            if model.head == Head::Sigmoid { "findings" } else { "classes" }
        )));
    }
    let ids: HashSet<u64> = shown.ids().iter().copied().collect();
    let patients: HashSet<&str> = (0..shown.len()).filter_map(|i| shown.patient(i)).collect();
    let seen = |i: usize| {
        training.ids().get(i).is_some_and(|id| ids.contains(id))
            || training.patient(i).is_some_and(|p| patients.contains(p))
    };
    let known = single_findings(training).into_iter().enumerate();
    let chosen = known.filter(|(i, finding)| finding.is_some() && !seen(*i)).map(|(i, _)| i as u32);
    let chosen: Vec<u32> = chosen.take(LEARNT_FROM).collect();
    if chosen.is_empty() {
        return Err(Error::Usage(
            "--second-head: no image with exactly one finding is left to learn from, of patients that are not studied: --limit N leaves \
             some, or lists of training and test images"
                .into(),
        ));
    }
    Ok(training.subset(&chosen)?)
}

/// A second head behind the host, from the images of `learn`; nothing where there are none of one of its classes.
fn second_head(study: &Study<'_>, learn: &Dataset) -> Result<Option<SecondHead>, Error> {
    let Study { context, config, loaded, batch, directory, .. } = *study;
    let both = Layered(&[&loaded.host, &loaded.ae]);
    let mut sweep = Sweep::fitting(loaded.subject(&both, config.victim), &[], batch, context.backend())?;
    let which: Vec<u32> = (0..learn.len() as u32).collect();
    learn.announce(&which);
    let mut bar = context.ui.progress("second head", which.len() as u64);
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(which.len());
    for block in which.chunks(SHARD_IMAGES.min(batch.images.max(1) * 4)) {
        if context.stopped() {
            bar.finish();
            return Err(Error::Interrupted { resume: directory.finished_path().into() });
        }
        let logits: Logits = sweep.outcomes(&learn.pixels(block)?)?;
        rows.extend(logits.orig.chunks_exact(sweep.classes()).map(|row| loaded.model.head.probabilities(row)));
        bar.set(rows.len() as u64);
    }
    bar.finish();
    let views: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
    let findings: Vec<usize> = single_findings(learn).into_iter().flatten().collect();
    match SecondHead::fit(&views, &findings) {
        Ok(head) => Ok(Some(head)),
        Err(e @ (DetectError::Nothing { .. } | DetectError::Singular { .. } | DetectError::Diverged { .. })) => {
            context.ui.warn(format!("no condition III: its second head cannot learn from these images ({e})"));
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}
