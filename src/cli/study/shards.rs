//! The shards of a study: those that its directory has, and those that are run now, on all devices at once.

use super::cost::{Macs, shard_images};
use super::{Config, Loaded, node_sets};
use crate::attack::AttackError;
use crate::backend::BackendError;
use crate::causal::intervention::NodeSet;
use crate::causal::mask::Mask;
use crate::causal::study::{Do, Shard, Study, StudyError};
use crate::causal::sweep::{Batch, Subject, Sweep};
use crate::cli::common::Context;
use crate::data::Dataset;
use crate::error::Error;
use crate::report::run::{Manifest, OUTCOMES, RunDirectory};
use crate::report::shards::{self, Want};
use std::path::Path;

/// What a study's shards are made of, and where they go.
#[derive(Clone, Copy)]
pub(super) struct Shards<'a, 'd> {
    pub context: &'a Context,
    pub config: &'a Config,
    pub subject: Subject<'a>,
    pub sets: &'a [NodeSet],
    pub data: &'d Dataset,
    /// The mask of a file, for inputs that are masked by one.
    pub mask: Option<&'d Mask>,
    pub directory: &'a RunDirectory,
    /// Of a part, whose shards alone are run.
    pub manifest: &'a Manifest,
}

impl<'d> Shards<'_, 'd> {
    /// The study, ready on every device.
    pub fn studies(&self, batch: Batch) -> Result<Vec<Study<'d>>, Error> {
        let Shards { context, config, .. } = self;
        let mut studies: Vec<Study<'d>> = Vec::with_capacity(context.backends.len());
        for backend in &context.backends {
            let mut sweep = Sweep::fitting(self.subject, self.sets, batch, &**backend)?;
            sweep.stop_by(context.stop.clone());
            if sweep.batch() != batch {
                let (got, asked) = (sweep.batch().variants, batch.variants);
                context.ui.warn(format!("memory for {got} rows a batch, not for {asked}"));
            }
            let value = match studies.first() {
                None => self.value(&mut sweep)?,
                Some(first) => first.value.clone(),
            };
            let (data, inputs, mask) = (self.data, config.inputs.clone(), self.mask);
            let (attack_label, seed) = (config.attack_label, config.seed);
            studies.push(Study { sweep, data, inputs, attack_label, mask, value, seed });
        }
        Ok(studies)
    }

    /// What nodes are set to, worked out.
    fn value(&self, sweep: &mut Sweep) -> Result<Do, Error> {
        let mut bar = self.context.ui.progress("mean codes", self.data.len() as u64);
        let found = Do::prepare(self.config.value, sweep, self.data, &mut |done| {
            bar.set(done as u64);
            !self.context.stopped()
        });
        bar.finish();
        found.map_err(|e| match e {
            StudyError::Attack(AttackError::Stopped) => self.interrupted(),
            e => e.into(),
        })
    }

    /// Every shard of the run, or of its part: those that are saved, and the others run and saved.
    ///
    /// # Errors
    /// [`Error::Interrupted`] with what to resume; [`Error::Input`] for a saved shard that is not the run's.
    pub fn all(&self, studies: &mut [Study<'_>]) -> Result<Vec<Shard>, Error> {
        let Shards { context, data, directory, .. } = *self;
        let images = data.len();
        let outcomes = directory.path(OUTCOMES);
        std::fs::create_dir_all(&outcomes)
            .map_err(|e| Error::Failed(format!("{}: cannot create it: {e}", outcomes.display())))?;
        let macs = Macs::of(self.subject.model, self.subject.tap, self.subject.autoencoder);
        let size = shard_images(macs.image(self.sets.len(), &self.config.inputs));
        let ours = |k: &usize| self.manifest.portion.is_none_or(|portion| portion.part.has(*k));
        let ours: Vec<usize> = (0..images.div_ceil(size)).filter(ours).collect();
        let images_of = |k: usize| k * size..images.min((k + 1) * size);

        let mut all: Vec<Option<Shard>> = ours.iter().map(|&k| self.saved(k, size)).collect::<Result<_, _>>()?;
        let missing: Vec<usize> = (0..ours.len()).filter(|&at| all[at].is_none()).collect();
        // files are decoded while what is ready is computed on
        let ahead = missing.iter().flat_map(|&at| images_of(ours[at]));
        data.announce(&ahead.map(|i| i as u32).collect::<Vec<_>>());
        let reused = ours.len() - missing.len();
        let mut bar = context.ui.progress("sweep", ours.iter().map(|&k| images_of(k).len() as u64).sum());
        let mut done: usize = all.iter().flatten().map(|shard| shard.ids.len()).sum();
        bar.begin_at(done as u64);
        // every device takes a shard of its own; which one took it does not show in it
        for round in missing.chunks(studies.len().max(1)) {
            if context.stopped() {
                bar.finish();
                return Err(self.interrupted());
            }
            let firsts: Vec<usize> = round.iter().map(|&at| ours[at] * size).collect();
            let mut failed = None;
            for (&at, shard) in round.iter().zip(at_once(studies, &firsts, size)) {
                match shard {
                    Ok(shard) => {
                        let path = directory.path(&shards::file_name(ours[at]));
                        shards::save(&path, &shard, self.subject.model.classes, &self.manifest.run_id)?;
                        done += shard.ids.len();
                        bar.set(done as u64);
                        all[at] = Some(shard);
                    }
                    // what the other devices made is kept first
                    Err(e) => failed = failed.or(Some(e)),
                }
            }
            if let Some(e) = failed {
                bar.finish();
                return Err(match e {
                    // what is saved stays, and the shard under way is run again
                    StudyError::Attack(AttackError::Stopped) => self.interrupted(),
                    e => e.into(),
                });
            }
        }
        bar.finish();
        if reused > 0 {
            context.ui.log(format!("{reused} shards of {size} images were there already"));
        }
        Ok(all.into_iter().flatten().collect())
    }

    /// Shard `k` of `size` images, where the directory has it.
    fn saved(&self, k: usize, size: usize) -> Result<Option<Shard>, Error> {
        let path = self.directory.path(&shards::file_name(k));
        let Some(shard) = shards::load(&path, &self.manifest.run_id)? else { return Ok(None) };
        let (first, last) = (k * size, self.data.len().min((k + 1) * size));
        let (ids, labels) = (&self.data.ids()[first..last], &self.data.labels()[first..last]);
        let (inputs, sets, classes) = (&self.config.inputs, self.sets.len(), self.subject.model.classes);
        shards::check(&path, &shard, &Want { first, ids, labels, inputs, sets, classes })?;
        Ok(Some(shard))
    }

    fn interrupted(&self) -> Error {
        Error::Interrupted { resume: self.directory.finished_path().into() }
    }
}

/// The shards of the finished run `run_id` in `directory`, of the images of `data`.
///
/// # Errors
/// [`Error::Input`] for one that is missing, damaged or another run's; [`Error::Causal`] for nodes that do not exist.
pub fn finished(
    directory: &Path,
    run_id: &str,
    (config, loaded): (&Config, &Loaded),
    data: &Dataset,
) -> Result<Vec<Shard>, Error> {
    let (sets, classes) = (node_sets(config, loaded.autoencoder.nodes)?.len(), loaded.model.classes);
    let (mut all, mut first) = (Vec::new(), 0);
    while first < data.len() {
        let path = directory.join(shards::file_name(all.len()));
        let missing = || Error::Input { path: path.clone(), reason: "is missing; the run is not what it was".into() };
        let shard: Shard = shards::load(&path, run_id)?.ok_or_else(missing)?;
        // a shard of the run holds an image at least
        let last = data.len().min(first + shard.ids.len().max(1));
        let (ids, labels) = (&data.ids()[first..last], &data.labels()[first..last]);
        shards::check(&path, &shard, &Want { first, ids, labels, inputs: &config.inputs, sets, classes })?;
        all.push(shard);
        first = last;
    }
    Ok(all)
}

/// The shards from those images on, each on a device of its own and all at once.
fn at_once(studies: &mut [Study<'_>], firsts: &[usize], images: usize) -> Vec<Result<Shard, StudyError>> {
    if let ([study, ..], [first]) = (&mut *studies, firsts) {
        return vec![study.shard(*first, images)];
    }
    std::thread::scope(|scope| {
        let jobs = studies.iter_mut().zip(firsts);
        let threads: Vec<_> = jobs.map(|(study, &first)| scope.spawn(move || study.shard(first, images))).collect();
        let lost = || BackendError::Device { what: "a shard".into(), reason: "its thread ended early".into() };
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(lost().into()))).collect()
    })
}
