//! What a study adds on request, on its clean images: Shapley values of nodes, and a first-order screen of them.

use super::{Config, Loaded};
use crate::answer::widen;
use crate::backend::Layered;
use crate::causal::analysis::{Columns, Quantity};
use crate::causal::effect::Reading;
use crate::causal::intervention::NodeSet;
use crate::causal::screen::Screen;
use crate::causal::shapley::Plan;
use crate::causal::statistics::{Bootstrap, Summary, spearman};
use crate::causal::study::SHARD_IMAGES;
use crate::causal::sweep::{Batch, Sweep};
use crate::cli::common::Context;
use crate::data::Dataset;
use crate::error::Error;
use crate::report::nodes::{NodeRow, write};
use crate::report::run::RunDirectory;
use crate::report::table::{Labels, units};
use serde::Serialize;

/// What an extra needs of its study.
#[derive(Clone, Copy)]
pub(super) struct Study<'a> {
    pub context: &'a Context,
    pub config: &'a Config,
    pub loaded: &'a Loaded,
    pub data: &'a Dataset,
    pub batch: Batch,
    pub directory: &'a RunDirectory,
    pub labels: &'a Labels,
}

impl Study<'_> {
    /// Calls `with` with the pixels of one block of images after the other.
    pub fn blocks(&self, what: &str, mut with: impl FnMut(&[f32]) -> Result<(), Error>) -> Result<(), Error> {
        let all: Vec<u32> = (0..self.data.len() as u32).collect();
        let mut bar = self.context.ui.progress(what, all.len() as u64);
        self.data.announce(&all);
        for (k, block) in all.chunks(SHARD_IMAGES).enumerate() {
            if self.context.stopped() {
                bar.finish();
                return Err(self.interrupted());
            }
            with(&self.data.pixels(block)?)?;
            bar.set((k * SHARD_IMAGES + block.len()) as u64);
        }
        bar.finish();
        Ok(())
    }

    /// What to say where the run was stopped.
    pub fn interrupted(&self) -> Error {
        Error::Interrupted { resume: self.directory.finished_path().into() }
    }

    /// Means of columns (one a set of nodes) with bootstrap intervals, as rows of a table.
    fn rows(
        &self,
        sets: &[NodeSet],
        columns: &[Vec<f64>],
        beside: impl Fn(usize) -> Option<f64>,
    ) -> Result<Vec<NodeRow>, Error> {
        let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let units = units(&self.labels.patients)?;
        let bootstrap = Bootstrap::of_clusters(&units, self.config.resamples, self.config.seed)?;
        let intervals = bootstrap.intervals(&views, self.config.level)?;
        let row = |(at, ((&set, column), interval)): (usize, ((&NodeSet, &Vec<f64>), _))| {
            let Summary { mean, n, .. } = Summary::of(column);
            NodeRow { set, mean, interval, n, beside: beside(at) }
        };
        Ok(sets.iter().zip(columns).zip(intervals).enumerate().map(row).collect())
    }

    /// Every node by itself.
    fn singles(&self) -> Result<Vec<NodeSet>, Error> {
        let nodes = self.loaded.autoencoder.nodes;
        Ok((0..nodes).map(|node| NodeSet::of(&[node], nodes)).collect::<Result<_, _>>()?)
    }
}

/// Writes `shapley.csv`: what each node adds to the effect of zeroing all, over `pairs` orders and their reverses.
///
/// # Errors
/// [`Error::Interrupted`], or the device's.
pub(super) fn shapley(study: &Study<'_>, pairs: usize, exact: &dyn Fn(usize) -> Option<f64>) -> Result<(), Error> {
    let Study { config, loaded, .. } = study;
    let nodes = loaded.autoencoder.nodes;
    let plan = Plan::new(nodes, pairs, config.seed)?;
    let both = Layered(&[&loaded.host, &loaded.ae]);
    let subject = loaded.subject(&both, config.victim);
    let mut sweep = Sweep::fitting(subject, plan.sets(), study.batch, study.context.backend())?;
    let mut columns: Vec<Vec<f64>> = vec![Vec::new(); nodes];
    study.blocks("shapley", |pixels| {
        // one number an image and set leaves the device
        for effects in sweep.effects(pixels)?.weighted.chunks_exact(plan.sets().len()) {
            columns.iter_mut().zip(plan.values(&widen(effects))?).for_each(|(column, value)| column.push(value));
        }
        Ok(())
    })?;
    let rows = study.rows(&study.singles()?, &columns, exact)?;
    write(&study.directory.path("shapley.csv"), ("shapley", "ece_alone"), &rows, study.labels)
}

/// Writes `interactions.csv`: of every pair of nodes that was zeroed together, what that does beyond what the two do alone, clean;
/// beside it the pair's whole effect. Nothing without pairs.
///
/// # Errors
/// [`Error::Write`].
pub(super) fn interactions(study: &Study<'_>, columns: &Columns, sets: &[NodeSet]) -> Result<(), Error> {
    let effect = |set: &NodeSet| {
        let at = sets.iter().position(|known| known == set)?;
        Some(columns.get(0, at, Quantity::Ece(Reading::Z0)))
    };
    let (mut pairs, mut only_together): (Vec<NodeSet>, Vec<Vec<f64>>) = (Vec::new(), Vec::new());
    for set in sets.iter().filter(|set| set.len() == 2) {
        let alone: Vec<&[f64]> = set
            .iter()
            .filter_map(|node| NodeSet::of(&[node], set.channels()).ok().and_then(|single| effect(&single)))
            .collect();
        if let (Some(both), &[a, b]) = (effect(set), alone.as_slice()) {
            pairs.push(*set);
            only_together.push(both.iter().zip(a.iter().zip(b)).map(|(both, (a, b))| both - a - b).collect());
        }
    }
    if pairs.is_empty() {
        return Ok(());
    }
    let whole = |at: usize| effect(&pairs[at]).and_then(|column| Summary::of(column).mean);
    let rows = study.rows(&pairs, &only_together, whole)?;
    write(&study.directory.path("interactions.csv"), ("interaction", "ece_together"), &rows, study.labels)
}

/// How well a screen orders nodes as exact effects do.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Screened {
    /// Spearman's correlation of the nodes' mean effects.
    pub of_means: Option<f64>,
    /// Mean over images of Spearman's correlation of the image's effects, of images on which it is defined.
    pub of_images: Option<f64>,
    /// Those images.
    pub images: usize,
}

/// Writes `screen.csv`: first-order effects beside exact ones; and their rank correlation.
///
/// # Errors
/// [`Error::Interrupted`], or the device's.
pub(super) fn screen(study: &Study<'_>, columns: &Columns, sets: &[NodeSet]) -> Result<Screened, Error> {
    let Study { config, loaded, .. } = study;
    let nodes = loaded.autoencoder.nodes;
    let both = Layered(&[&loaded.host, &loaded.ae]);
    let subject = loaded.subject(&both, config.victim);
    let mut screen = Screen::new(subject, study.batch.images, study.context.backend())?;
    let mut first: Vec<Vec<f64>> = vec![Vec::new(); nodes];
    study.blocks("screen", |pixels| {
        for row in screen.effects(pixels)?.chunks_exact(nodes) {
            first.iter_mut().zip(row).for_each(|(column, value)| column.push(*value));
        }
        Ok(())
    })?;
    let set_of = |node: usize| sets.iter().position(|set| set.len() == 1 && set.contains(node));
    let exact = |node: usize| set_of(node).map(|set| columns.get(0, set, Quantity::Ece(Reading::Z0)));
    let mean = |column: &[f64]| Summary::of(column).mean;
    let rows = study.rows(&study.singles()?, &first, |node| exact(node).and_then(mean))?;
    write(&study.directory.path("screen.csv"), ("first_order", "exact"), &rows, study.labels)?;

    let known: Vec<usize> = (0..nodes).filter(|&node| exact(node).is_some()).collect();
    let pairs = |of: &dyn Fn(usize, &[f64]) -> f64| -> [Vec<f64>; 2] {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for &node in &known {
            if let Some(exact) = exact(node) {
                a.push(of(node, &first[node]));
                b.push(of(node, exact));
            }
        }
        [a, b]
    };
    let [a, b] = pairs(&|_, column| mean(column).unwrap_or(f64::NAN));
    let of_means = spearman(&a, &b)?;
    let mut each = Vec::new();
    for i in 0..study.data.len() {
        let [a, b] = pairs(&|_, column| column.get(i).copied().unwrap_or(f64::NAN));
        each.extend(spearman(&a, &b)?);
    }
    let of_images = (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64);
    Ok(Screened { of_means, of_images, images: each.len() })
}
