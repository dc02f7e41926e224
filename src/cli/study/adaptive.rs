//! What a study adds for `--adaptive`: its PGDs again, by an adversary who knows the detector.

use super::extra::Study;
use super::{Config, node_sets};
use crate::answer::widen;
use crate::attack::method::Images;
use crate::attack::{Attack, AttackError};
use crate::backend::Layered;
use crate::causal::effect::Responses;
use crate::causal::perturbation::Perturbation;
use crate::causal::pull::Pull;
use crate::causal::study::{Input, SHARD_IMAGES, StudyError};
use crate::causal::sweep::{Logits, Sweep};
use crate::detect::adaptive::{Adaptive, Trial};
use crate::detect::adversary::Adversary;
use crate::detect::claim::DECLARED;
use crate::detect::table::Row;
use crate::detect::{Split, Table};
use crate::error::Error;
use std::collections::HashMap;

/// Whether a configuration that asks for it, of an autoencoder of `nodes`, can have it.
///
/// # Errors
/// [`Error::Usage`].
pub fn checked(config: &Config, nodes: usize) -> Result<(), Error> {
    if config.adaptive != Some(true) {
        return Ok(());
    }
    let pgd = |input: &Input| matches!(input, Input::Attack(Attack::Pgd { .. }));
    if !config.inputs.iter().any(pgd) {
        let reason = "--adaptive takes ball, steps and starts of pgd: name it among --attack";
        return Err(Error::Usage(reason.into()));
    }
    if !config.value.is_zero() {
        return Err(Error::Usage("--adaptive is about nodes set to 0: leave --do out".into()));
    }
    let singles = node_sets(config, nodes)?.iter().filter(|set| set.len() == 1).count();
    if !DECLARED.exists(singles) {
        let reason = format!("--adaptive is about {DECLARED}, the dispersion of effects: name two nodes at least");
        return Err(Error::Usage(reason));
    }
    Ok(())
}

/// Makes the attacks, on a network of its own beside no other: sweeps are over by then.
///
/// # Errors
/// [`Error::Interrupted`], or the device's.
pub(super) fn adaptive(study: &Study<'_>, table: &Table) -> Result<Vec<Adaptive>, Error> {
    let Study { context, config, loaded, data, batch, .. } = *study;
    let split = Split::of(table, config.seed)?;
    let trials = Trial::all(table, &split)?;
    let mut singles = node_sets(config, loaded.autoencoder.nodes)?;
    singles.retain(|set| set.len() == 1);
    let both = Layered(&[&loaded.host, &loaded.ae]);
    let subject = loaded.subject(&both, config.victim);
    let mut sweep = Sweep::fitting(subject, &singles, batch, context.backend())?;
    sweep.stop_by(context.stop.clone());
    let mut pull = Pull::new(subject, &singles, batch.images, context.backend())?;
    let places: HashMap<u64, u32> = data.ids().iter().zip(0..).map(|(id, i)| (*id, i)).collect();
    let (head, classes) = (loaded.model.head, loaded.model.classes);
    let perturbation = Perturbation { data, head, classes, attack_label: config.attack_label, file: None };
    let mut told = Vec::with_capacity(trials.len());
    for trial in &trials {
        let ids = trial.ids(table);
        let mut bar = context.ui.progress("adaptive", ids.len() as u64);
        let mut rows: Vec<Row> = Vec::with_capacity(ids.len());
        for ids in ids.chunks(SHARD_IMAGES) {
            let which: Vec<u32> = ids.iter().filter_map(|id| places.get(id)).copied().collect();
            let pixels = data.pixels(&which)?;
            let clean: Logits = sweep.outcomes(&pixels)?;
            let targets = perturbation.targets(&which, &clean.orig)?;
            let stopped = || context.stopped();
            let (attacked, band) = (config.victim, trial.band);
            let mut adversary = Adversary { sweep: &mut sweep, pull: &mut pull, attacked, band, stopped: &stopped };
            let images = Images { pixels: &pixels, ids, seed: config.seed };
            let made = adversary.attack(images, targets.borrowed(), trial.budget);
            let x = made.map_err(|e| match e {
                StudyError::Attack(AttackError::Stopped) => study.interrupted(),
                e => e.into(),
            })?;
            let logits: Logits = sweep.outcomes(&x)?;
            let orig = logits.orig.chunks_exact(classes).zip(clean.orig.chunks_exact(classes));
            let inserted = logits.idle.chunks_exact(classes);
            let inserted = inserted.zip(logits.done.chunks_exact(classes * singles.len()));
            for ((orig, clean), (idle, done)) in orig.zip(inserted) {
                rows.push(Row::of(&Responses::new(head, orig, idle, done)?, &widen(clean))?);
            }
            bar.set(rows.len() as u64);
        }
        bar.finish();
        told.push(trial.judge(&rows, table, &split, config.level)?);
    }
    Ok(told)
}
