//! `--refute`: a study's nodes before placebos, on its clean images: `refuters.csv`, and a paragraph.

use super::extra::Study;
use super::first_images;
use crate::backend::{Layered, Parameters};
use crate::causal::analysis::{Columns, Quantity};
use crate::causal::effect::Reading;
use crate::causal::intervention::NodeSet;
use crate::causal::named_nodes;
use crate::causal::refute::placebo::{Severed, directions, shuffled, weighted};
use crate::causal::refute::{Judge, Refuter, Trial};
use crate::causal::statistics::{Bootstrap, SignFlip};
use crate::causal::study::Shard;
use crate::causal::sweep::{Logits, Sweep};
use crate::error::Error;
use crate::report::refuters;
use crate::report::table::units;
use crate::tensor::argmax;
use serde_json::{Value, json};
use std::fmt;

/// Images that refuters see at most: each costs as many sweeps as the study's clean input, or several.
const IMAGES: usize = 2000;
/// From so many images on one random direction an image and node is enough: its noise averages over images.
const ONE_DIRECTION_FROM: usize = 1000;
/// Directions below.
const DIRECTIONS: usize = 8;
/// Seed of the first untrained autoencoder, above the run's: far from those that people train with, whose start it would be.
const UNTRAINED_SEED: u64 = 1 << 32;
/// Images that untrained autoencoders see at most: it is many of them that a node must stand out from.
const UNTRAINED_IMAGES: usize = 100;
/// Untrained autoencoders at most.
const UNTRAINED_MOST: f64 = 100.0;
/// Nodes of a code at most: p of so many must be able to pass Holm.
const NODES_MAX: f64 = 64.0;
/// The highest level that placebos are judged at: above it, untrained autoencoders would be more than can be had.
pub const LEVEL_MAX: f64 = 1.0 - 1.0 / UNTRAINED_MOST;

/// Shuffles of answers and flips of signs: so many that their smallest p survives Holm over all nodes.
fn draws(level: f64) -> usize {
    (NODES_MAX / (1.0 - level)).ceil().max(2000.0) as usize
}

/// What refuting costs: sweeps of an image over every node.
pub(super) fn sweeps(images: usize, level: f64) -> usize {
    images.min(IMAGES) * (directions_of(images) + 1) + images.min(UNTRAINED_IMAGES) * untrained_of(level)
}

/// Untrained autoencoders: so many that a node which outdoes all their nodes has a p of 1 - level even after Holm over as many.
fn untrained_of(level: f64) -> usize {
    (1.0 / (1.0 - level)).ceil().clamp(1.0, UNTRAINED_MOST) as usize
}

/// Random directions an image and node.
fn directions_of(images: usize) -> usize {
    if images >= ONE_DIRECTION_FROM { 1 } else { DIRECTIONS }
}

/// The nodes of a study before every refuter.
#[derive(Clone, Debug)]
pub struct Refuted {
    /// Images that placebos were measured on: the study's first.
    pub images: usize,
    /// Nodes, each by itself.
    nodes: Vec<NodeSet>,
    /// Of every node before every refuter.
    pub trials: Vec<Trial>,
    /// Share of images on which the network with an untrained autoencoder answers as its host.
    pub untrained_agreement: f64,
    /// Level of the verdicts.
    level: f64,
}

/// What every placebo is measured with.
struct Lab<'a> {
    study: Study<'a>,
    singles: Vec<NodeSet>,
    /// Logits of the idle network: images x classes.
    idle: Vec<f32>,
}

/// Puts the study's nodes before every refuter and writes `refuters.csv`.
///
/// # Errors
/// [`Error::Interrupted`], or the device's or a file's.
pub(super) fn refute(
    study: &Study<'_>,
    shards: &[Shard],
    columns: &Columns,
    sets: &[NodeSet],
) -> Result<Refuted, Error> {
    let few = first_images(study.data, Some(IMAGES))?;
    let (images, classes, config) = (few.len(), study.loaded.model.classes, study.config);
    let rows = |of: fn(&Logits) -> &Vec<f32>, set: Option<usize>| -> Vec<f32> {
        let width = if set.is_some() { sets.len() * classes } else { classes };
        let begin = set.unwrap_or(0) * classes;
        let shards = shards.iter().flat_map(|shard| of(&shard.answers[0].logits).chunks_exact(width));
        shards.take(images).flat_map(|row| &row[begin..begin + classes]).copied().collect()
    };
    let chosen: Vec<usize> = (0..sets.len()).filter(|&s| sets[s].len() == 1).collect();
    let singles: Vec<NodeSet> = chosen.iter().map(|&s| sets[s]).collect();
    let effects: Vec<&[f64]> = chosen
        .iter()
        .map(|&s| columns.get(0, s, Quantity::Ece(Reading::Z0)).get(..images).unwrap_or_default())
        .collect();
    let lab = Lab { study: Study { data: &few, ..*study }, singles, idle: rows(|l| &l.idle, None) };

    let patients = study.labels.patients.get(..images).unwrap_or_default();
    let units = units(patients)?;
    let bootstrap = Bootstrap::of_clusters(&units, config.resamples, config.seed)?;
    let flips = SignFlip::of_clusters(&units, config.resamples.max(draws(config.level)), config.seed)?;
    let judge = Judge { bootstrap: &bootstrap, flips: &flips, level: config.level };

    let head = study.loaded.model.head;
    let others = |&set: &usize| {
        Ok(shuffled(head, (&lab.idle, &rows(|l| &l.done, Some(set))), classes, (draws(config.level), config.seed))?)
    };
    let others: Vec<Vec<f64>> = chosen.iter().map(others).collect::<Result<_, Error>>()?;
    let (untrained, untrained_agreement) = lab.untrained()?;
    let mut trials = judge.direction(&effects, &lab.directions()?)?;
    let on_few: Vec<&[f64]> = effects.iter().map(|column| column.get(..UNTRAINED_IMAGES).unwrap_or(column)).collect();
    trials.extend(judge.untrained(&on_few, &untrained));
    trials.extend(judge.shuffled(&effects, &others));
    trials.extend(judge.severed(&effects, &lab.severed()?));
    refuters::write(&study.directory.path("refuters.csv"), &trials, &lab.singles, study.labels)?;
    Ok(Refuted { images, nodes: lab.singles, trials, untrained_agreement, level: config.level })
}

impl Lab<'_> {
    /// Mean |effect| of random directions in the place of each node: a column a node.
    fn directions(&self) -> Result<Vec<Vec<f64>>, Error> {
        let Study { context, config, loaded, data, batch, .. } = self.study;
        let both = Layered(&[&loaded.host, &loaded.ae]);
        let all = [NodeSet::all(loaded.autoencoder.nodes)?];
        let mut sweep = Sweep::fitting(loaded.subject(&both, config.victim), &all, batch, context.backend())?;
        let nodes: Vec<usize> = self.singles.iter().flat_map(NodeSet::iter).collect();
        let draws = directions_of(data.len());
        let (classes, head) = (loaded.model.classes, loaded.model.head);
        let mut columns: Vec<Vec<f64>> = vec![Vec::new(); nodes.len()];
        let mut at = 0;
        self.study.blocks("random directions", |pixels| {
            let ids = data.ids().get(at..).unwrap_or_default();
            let logits: Vec<f32> = directions(&mut sweep, (pixels, ids), &nodes, draws, config.seed)?;
            for image in logits.chunks_exact(nodes.len() * draws * classes) {
                let idle = &self.idle[at * classes..][..classes];
                for (column, node) in columns.iter_mut().zip(image.chunks_exact(draws * classes)) {
                    let sizes = node.chunks_exact(classes).map(|done| Ok(weighted(head, idle, done)?.abs()));
                    column.push(sizes.sum::<Result<f64, Error>>()? / draws as f64);
                }
                at += 1;
            }
            Ok(())
        })?;
        Ok(columns)
    }

    /// Effects of every node in a network that does not read it: a column a node. Every other node is severed at once, so that the
    /// rest still answers.
    fn severed(&self) -> Result<Vec<Vec<f64>>, Error> {
        let loaded = self.study.loaded;
        let both = Layered(&[&loaded.host, &loaded.ae]);
        let mut columns: Vec<Vec<f64>> = vec![Vec::new(); self.singles.len()];
        for parity in 0..2 {
            let half: Vec<usize> = (0..self.singles.len()).filter(|at| at % 2 == parity).collect();
            if half.is_empty() {
                continue;
            }
            let cut: Vec<usize> = half.iter().flat_map(|&at| self.singles[at].iter()).collect();
            let nodes = NodeSet::of(&cut, loaded.autoencoder.nodes)?;
            let sets: Vec<NodeSet> = half.iter().map(|&at| self.singles[at]).collect();
            let (found, _) = effects(&self.study, "severed nodes", &Severed { weights: &both, nodes }, &sets)?;
            half.into_iter().zip(found).for_each(|(at, column)| columns[at] = column);
        }
        Ok(columns)
    }

    /// Effects of the nodes of untrained autoencoders of the same shape, a column each, and the share of images on which the network
    /// with one of them answers as its host. No gate: what is measured is what an autoencoder does that follows nothing.
    fn untrained(&self) -> Result<(Vec<Vec<f64>>, f64), Error> {
        let Study { config, loaded, data, .. } = self.study;
        let few = first_images(data, Some(UNTRAINED_IMAGES))?;
        let study = Study { data: &few, ..self.study };
        let nodes = loaded.autoencoder.nodes;
        let sets: Vec<NodeSet> = (0..nodes).map(|n| NodeSet::of(&[n], nodes)).collect::<Result<_, _>>()?;
        let (mut columns, mut agreement) = (Vec::new(), 0.0);
        let count = untrained_of(config.level);
        for k in 0..count {
            // not the weights that a training with the run's seed began with
            let what = format!("untrained autoencoder {} of {count}", k + 1);
            let fresh = loaded.autoencoder.initial_weights(config.seed.wrapping_add(UNTRAINED_SEED + k as u64));
            let (found, same) = effects(&study, &what, &Layered(&[&loaded.host, &fresh]), &sets)?;
            columns.extend(found);
            agreement += same / count as f64;
        }
        Ok((columns, agreement))
    }
}

/// Class-weighted effects of these sets in a network of other weights, a column each; and the share of images on which it answers
/// as its host.
fn effects(
    study: &Study<'_>,
    what: &str,
    weights: &dyn Parameters,
    sets: &[NodeSet],
) -> Result<(Vec<Vec<f64>>, f64), Error> {
    let Study { context, config, loaded, data, batch, .. } = *study;
    let mut sweep = Sweep::fitting(loaded.subject(weights, config.victim), sets, batch, context.backend())?;
    let (classes, head) = (loaded.model.classes, loaded.model.head);
    let mut columns: Vec<Vec<f64>> = vec![Vec::new(); sets.len()];
    let mut same = 0;
    study.blocks(what, |pixels| {
        let logits: Logits = sweep.outcomes(pixels)?;
        let both = logits.orig.chunks_exact(classes).zip(logits.idle.chunks_exact(classes));
        for ((orig, idle), image) in both.zip(logits.done.chunks_exact(sets.len() * classes)) {
            same += usize::from(argmax(orig).is_some() && argmax(orig) == argmax(idle));
            for (column, done) in columns.iter_mut().zip(image.chunks_exact(classes)) {
                column.push(weighted(head, idle, done)?);
            }
        }
        Ok(())
    })?;
    Ok((columns, same as f64 / data.len().max(1) as f64))
}

impl Refuted {
    /// The trial of a node (by position) before a refuter.
    fn trial(&self, refuter: Refuter, node: usize) -> Option<&Trial> {
        self.trials.iter().find(|trial| trial.refuter == refuter && trial.node == node)
    }

    /// Positions of the nodes that survive these refuters.
    fn survivors(&self, refuters: &[Refuter]) -> Vec<usize> {
        let survives = |node: usize| refuters.iter().all(|&r| self.trial(r, node).is_some_and(|t| t.survives));
        (0..self.nodes.len()).filter(|&node| survives(node)).collect()
    }

    fn names(&self, nodes: &[usize]) -> Vec<String> {
        nodes.iter().map(|&node| named_nodes(&self.nodes[node])).collect()
    }

    /// In brief, for the manifest.
    pub fn brief(&self) -> Value {
        let each: serde_json::Map<String, Value> =
            Refuter::ALL.iter().map(|&r| (r.to_string(), json!(self.names(&self.survivors(&[r]))))).collect();
        json!({ "images": self.images, "untrained_agreement": self.untrained_agreement, "survive_all":
            self.names(&self.survivors(Refuter::ALL)), "survive": each })
    }
}

/// `1.2e-2`, or nothing where it is no number.
fn short(x: Option<f64>) -> String {
    x.map_or("-".into(), |x| if x == 0.0 { "0".into() } else { format!("{x:.1e}") })
}

impl fmt::Display for Refuted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: [Refuter; 4] = [Refuter::Direction, Refuter::Untrained, Refuter::Shuffled, Refuter::Severed];
        const WIDTH: usize = 20;
        writeln!(
            f,
            "Refuters, on {} clean images: mean |effect| of the node, and of what stands in its place. Refuted: not distinguishable from\n\
             the placebo, or not larger (Holm's p over the nodes at {:.3}).",
            self.images,
            1.0 - self.level
        )?;
        let head: String = SHOWN.iter().map(|refuter| format!("{:<WIDTH$}", refuter.name())).collect();
        writeln!(f, "{:<8}{:<10}{}", "node", "itself", head.trim_end())?;
        for (node, set) in self.nodes.iter().enumerate() {
            let itself = short(self.trial(SHOWN[0], node).and_then(|trial| trial.effect));
            let mut line = format!("{:<8}{itself:<10}", named_nodes(set));
            for refuter in SHOWN {
                let cell = self.trial(refuter, node).map_or_else(String::new, |trial| {
                    format!("{}{}", short(trial.placebo), if trial.survives { "" } else { " refuted" })
                });
                line += &format!("{cell:<WIDTH$}");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        let all = self.names(&self.survivors(Refuter::ALL));
        let which = if all.is_empty() { String::new() } else { format!(": {}", all.join(", ")) };
        let broken = (0..self.nodes.len()).any(|node| {
            self.trial(Refuter::Severed, node).is_some_and(|trial| trial.placebo.is_some_and(|placebo| placebo != 0.0))
        });
        writeln!(f, "{} of {} nodes survive all{which}.", all.len(), self.nodes.len())?;
        if broken {
            writeln!(
                f,
                "A severed node still has an effect: something else than the node is measured (please report this)."
            )?;
        }
        writeln!(
            f,
            "With an untrained autoencoder, which is exempt from the gate, the network answers as its host on {:.1} % of images. The placebo\n\
             of an attack, random signs of its size, is the input `noise` of the tables (unless --no-control left it out).",
            100.0 * self.untrained_agreement
        )
    }
}
