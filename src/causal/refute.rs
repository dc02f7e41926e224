//! Refuters: placebos in the place of a node. An effect that a placebo has as well says nothing of the node.
//!
//! - A **random direction** across the code's channels, of the node's own strength at every place: as much is taken away, and it is
//!   no node.
//! - A **severed** node: the decoder no longer reads it. Then its effect must be exactly 0, or something else than the node is
//!   measured.
//! - An **untrained** autoencoder of the same shape: its nodes are no concepts.
//! - **Shuffled answers**: the effect weighted with what the network answers to another image.
//!
//! Placebos are made by [`placebo`]; [`Judge`] compares sizes, the mean over images of |class-weighted effect|. (Of inputs, the
//! placebo is random signs of an attack's size, the study's input `noise`.)

pub mod placebo;

use super::statistics::{Bootstrap, Interval, SignFlip, Summary, holm};
use super::{CausalError, named};
use serde::Serialize;

/// A placebo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refuter {
    /// A random direction in the place of the node.
    Direction,
    /// The node, which nothing reads.
    Severed,
    /// Nodes of an autoencoder that was never trained.
    Untrained,
    /// Another image's answers.
    Shuffled,
}

named!(Refuter, "refuter", {
    Direction => "random-direction", Severed => "severed", Untrained => "untrained", Shuffled => "shuffled-answers"
});

/// A node before a refuter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Which.
    pub refuter: Refuter,
    /// Position of the node in the list that was judged.
    pub node: usize,
    /// Images.
    pub images: usize,
    /// Mean |effect| of the node; none where an image's is not a number.
    pub effect: Option<f64>,
    /// That of the placebo.
    pub placebo: Option<f64>,
    /// What the placebo's lies between: over resamples of images, over untrained nodes, over shuffles; none of a severed node.
    pub spread: Option<Interval>,
    /// The chance of a difference as large where there is none; none of a severed node, which is exact.
    pub p: Option<f64>,
    /// The same after Holm over the nodes.
    pub p_adjusted: Option<f64>,
    /// Whether the effect is distinguishable from the placebo's, and larger. Else it is refuted.
    pub survives: bool,
}

/// How sizes are compared.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// Resamples of the images, or of patients.
    pub bootstrap: &'a Bootstrap,
    /// Sign flips of the same.
    pub flips: &'a SignFlip,
    /// Level of intervals; a p counts below 1 - level.
    pub level: f64,
}

/// Mean |x|; none of nothing, or where one is no number.
fn size(column: &[f64]) -> Option<f64> {
    Summary::of(column).mean_abs
}

fn sizes(column: &[f64]) -> Vec<f64> {
    column.iter().map(|e| e.abs()).collect()
}

/// (1 + placebos that reach the effect) / (1 + placebos): Phipson and Smyth 2010.
fn rank_p(effect: f64, placebos: &[f64]) -> f64 {
    (1.0 + placebos.iter().filter(|placebo| **placebo >= effect).count() as f64) / (1.0 + placebos.len() as f64)
}

impl Judge<'_> {
    /// Nodes (a column of effects each, one an image) before a random direction: `placebo` are columns of its |effect|, which
    /// may be a mean over several. The p is that of the paired sign-flip test.
    ///
    /// # Errors
    /// [`CausalError::Length`] when columns are not of the plan's length or number.
    pub fn direction(&self, effects: &[&[f64]], placebo: &[Vec<f64>]) -> Result<Vec<Trial>, CausalError> {
        let own: Vec<Vec<f64>> = effects.iter().map(|column| sizes(column)).collect();
        let own: Vec<&[f64]> = own.iter().map(Vec::as_slice).collect();
        let placebo: Vec<&[f64]> = placebo.iter().map(Vec::as_slice).collect();
        let p = self.flips.paired(&own, &placebo)?;
        let spread = self.bootstrap.intervals(&placebo, self.level)?;
        let trial = |(node, (p, spread)): (usize, (Option<f64>, Option<Interval>))| Trial {
            spread,
            p,
            ..Trial::new(Refuter::Direction, node, own[node], size(placebo[node]))
        };
        Ok(self.judged(p.into_iter().zip(spread).enumerate().map(trial).collect()))
    }

    /// Nodes before themselves with nothing that reads them: columns of effects on either side.
    pub fn severed(&self, effects: &[&[f64]], severed: &[Vec<f64>]) -> Vec<Trial> {
        let trial = |(node, (own, severed)): (usize, (&&[f64], &Vec<f64>))| {
            let exact = severed.iter().all(|e| *e == 0.0);
            let trial = Trial::new(Refuter::Severed, node, own, size(severed));
            Trial { survives: exact && trial.effect.is_some_and(|effect| effect > 0.0), ..trial }
        };
        effects.iter().zip(severed).enumerate().map(trial).collect()
    }

    /// Nodes before those of untrained autoencoders: `untrained` are their columns of effects. The p is the rank among them.
    pub fn untrained(&self, effects: &[&[f64]], untrained: &[Vec<f64>]) -> Vec<Trial> {
        let placebos: Vec<f64> = untrained.iter().filter_map(|column| size(column)).collect();
        // one that is no number is no placebo, and is not to be overlooked
        let whole = placebos.len() == untrained.len();
        self.ranked(Refuter::Untrained, effects, |_| if whole { placebos.clone() } else { Vec::new() })
    }

    /// Nodes before other images' answers: `shuffled` are, of each node, mean |effect| under one shuffle after the other. The p is
    /// the rank among them.
    pub fn shuffled(&self, effects: &[&[f64]], shuffled: &[Vec<f64>]) -> Vec<Trial> {
        self.ranked(Refuter::Shuffled, effects, |node| shuffled.get(node).cloned().unwrap_or_default())
    }

    /// Nodes by their place among placebos.
    fn ranked(&self, refuter: Refuter, effects: &[&[f64]], placebos: impl Fn(usize) -> Vec<f64>) -> Vec<Trial> {
        let trial = |(node, own): (usize, &&[f64])| {
            let placebos = placebos(node);
            let trial = Trial::new(refuter, node, own, Summary::of(&placebos).mean);
            let p = trial.effect.filter(|_| trial.placebo.is_some()).map(|effect| rank_p(effect, &placebos));
            Trial { spread: Interval::percentile(&placebos, self.level), p, ..trial }
        };
        self.judged(effects.iter().enumerate().map(trial).collect())
    }

    /// With Holm's p, and the verdict.
    fn judged(&self, mut trials: Vec<Trial>) -> Vec<Trial> {
        let p: Vec<Option<f64>> = trials.iter().map(|trial| trial.p).collect();
        for (trial, adjusted) in trials.iter_mut().zip(holm(&p)) {
            let larger = trial.effect.zip(trial.placebo).is_some_and(|(effect, placebo)| effect > placebo);
            trial.p_adjusted = adjusted;
            trial.survives = larger && adjusted.is_some_and(|p| p <= 1.0 - self.level);
        }
        trials
    }
}

impl Trial {
    /// Of a column of effects, or of their sizes.
    fn new(refuter: Refuter, node: usize, own: &[f64], placebo: Option<f64>) -> Trial {
        let (images, effect) = (own.len(), size(own));
        Trial { refuter, node, images, effect, placebo, spread: None, p: None, p_adjusted: None, survives: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_survives_where_it_is_larger_than_placebos_and_nothing_does_not() {
        let n = 40;
        let (bootstrap, flips) = (Bootstrap::new(n, 500, 0).unwrap(), SignFlip::new(n, 2000, 0).unwrap());
        let judge = Judge { bootstrap: &bootstrap, flips: &flips, level: 0.95 };
        let wave = |height: f64| -> Vec<f64> { (0..n).map(|i| -height * (1.0 + (i % 7) as f64 / 7.0)).collect() };
        let (large, small, nothing, nan) = (wave(1.0), wave(0.1), vec![0.0; n], vec![f64::NAN; n]);
        let effects: [&[f64]; 4] = [&large, &small, &nothing, &nan];
        let placebo: Vec<f64> = wave(0.5).iter().map(|e| e.abs()).collect();
        let survive = |trials: Vec<Trial>| trials.iter().map(|trial| trial.survives).collect::<Vec<_>>();
        let direction = judge.direction(&effects, &vec![placebo.clone(); 4]).unwrap();
        assert!(direction[0].p_adjusted.unwrap() < 0.01 && direction[3].p.is_none(), "{direction:?}");
        assert_eq!(survive(direction), [true, false, false, false]);
        assert_eq!(survive(judge.severed(&effects, &vec![nothing.clone(); 4])), [true, true, false, false]);
        // what is severed and still does something is no proof of anything
        assert_eq!(survive(judge.severed(&effects, &vec![wave(1e-30); 4])), [false; 4]);
        assert_eq!(survive(judge.untrained(&effects, &vec![small.clone(); 99])), [true, false, false, false]);
        assert_eq!(
            survive(judge.untrained(&effects[..1], std::slice::from_ref(&small))),
            [false],
            "one placebo proves nothing"
        );
        assert_eq!(survive(judge.untrained(&effects, &vec![nan.clone(); 99])), [false; 4]);
        assert_eq!(survive(judge.shuffled(&effects, &vec![vec![0.5; 99]; 4])), [true, false, false, false]);
        assert!(judge.direction(&effects, &[]).is_err());
    }
}
