//! What a node does in several trainings of the autoencoder, once [`super::matching`] has said which node of each it is: means over
//! trainings (seeds) and images, intervals that cover both, how much of the variance lies between seeds, and whether the nodes keep
//! their order.

use super::analysis::{Columns, Quantity};
use super::effect::Reading;
use super::matching::Match;
use super::statistics::{Bootstrap, Hierarchical, Interval, Summary, kendall};
use super::{CausalError, same_length};
use serde::Serialize;

/// Several studies of the same images and inputs, one an autoencoder, of every node by itself: set k is node k.
#[derive(Clone, Copy, Debug)]
pub struct Trainings<'a> {
    /// Their columns.
    pub columns: &'a [Columns],
    /// Of every autoencoder but the first: which of its nodes each node of the first is.
    pub matches: &'a [Vec<Option<Match>>],
}

/// A node of the first autoencoder, under an input and a reading, over all trainings that have it.
#[derive(Clone, Debug, PartialEq)]
pub struct SeedEffect {
    /// Its number in the first.
    pub node: usize,
    /// Position in the studies' inputs.
    pub input: usize,
    /// Reading.
    pub reading: Reading,
    /// The mean over images in each training; none in one that does not have it.
    pub means: Vec<Option<f64>>,
    /// Their mean.
    pub mean: Option<f64>,
    /// Its interval by [`Hierarchical`]; over images alone where one training has it.
    pub interval: Option<Interval>,
    /// How the variance of its effects splits; none of constants, or of one training.
    pub split: Option<Split>,
    /// Its place among the nodes that every training has, by mean |effect|, 1 the largest.
    pub rank: Option<Rank>,
}

/// Shares of the variance of values of seeds x images; what is left, a seed has with an image alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Split {
    /// Between the means of seeds.
    pub seeds: f64,
    /// Between the means of images.
    pub images: f64,
}

/// A place in an order, and how often resamples leave it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rank {
    /// From 1.
    pub place: usize,
    /// Share of the resamples of seeds and images in which it is the same.
    pub kept: f64,
}

/// How far two trainings order nodes alike, by mean |effect| on clean images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Order {
    /// The two, numbered from 1.
    pub ae: [usize; 2],
    /// Kendall's tau of nodes of one number.
    pub by_number: Option<f64>,
    /// Of nodes that are matched.
    pub matched: Option<f64>,
    /// How many these are.
    pub nodes: usize,
}

/// A column of every seed that has it, and the mean of |.|.
type OfSeeds<'a> = Vec<&'a [f64]>;

impl Trainings<'_> {
    /// Nodes of the first.
    fn nodes(&self) -> usize {
        self.columns.first().map_or(0, |columns| columns.sets)
    }

    /// The number of node `node` of the first in training `seed`.
    fn there(&self, seed: usize, node: usize) -> Option<usize> {
        match seed.checked_sub(1) {
            None => Some(node),
            Some(other) => self.matches.get(other)?.get(node).copied().flatten().map(|found| found.node),
        }
    }

    /// The effects of node `node` of the first in training `seed`.
    fn column(&self, seed: usize, node: usize, input: usize, reading: Reading) -> Option<&[f64]> {
        let columns = self.columns.get(seed)?;
        Some(columns.get(input, self.there(seed, node)?, Quantity::Ece(reading)))
    }

    /// Every node of the first under every input: Z0 of the clean one, R1 to R4 of others (R5 and R6 have no node in them).
    /// `images` are the resamples of images or patients that single studies take too; seeds are drawn by `seed`.
    ///
    /// # Errors
    /// [`CausalError::Length`] when the studies are not of one number of images; [`CausalError::Range`] for a level outside 0..1.
    pub fn effects(&self, images: &Bootstrap, level: f64, seed: u64) -> Result<Vec<SeedEffect>, CausalError> {
        let plans: Vec<Hierarchical> =
            (1..=self.columns.len()).map(|k| Hierarchical::new(images.clone(), k, seed)).collect::<Result<_, _>>()?;
        let inputs = self.columns.first().map_or(0, |columns| columns.inputs.len());
        self.columns.iter().try_for_each(|c| same_length("inputs of a training's study", inputs, c.inputs.len()))?;
        let mut all = Vec::new();
        for input in 0..inputs {
            let readings: &[Reading] = match input {
                0 => &[Reading::Z0],
                _ => &[Reading::R1, Reading::R2, Reading::R3, Reading::R4],
            };
            for &reading in readings {
                all.extend(self.of_reading(&plans, (input, reading), level)?);
            }
        }
        Ok(all)
    }

    fn of_reading(
        &self,
        plans: &[Hierarchical],
        (input, reading): (usize, Reading),
        level: f64,
    ) -> Result<Vec<SeedEffect>, CausalError> {
        let seeds = self.columns.len();
        let mut all = Vec::with_capacity(self.nodes());
        for node in 0..self.nodes() {
            let columns: Vec<Option<&[f64]>> = (0..seeds).map(|s| self.column(s, node, input, reading)).collect();
            let there: OfSeeds<'_> = columns.iter().copied().flatten().collect();
            let means: Vec<Option<f64>> =
                columns.iter().map(|column| column.and_then(|column| Summary::of(column).mean)).collect();
            // a seed whose effects are no numbers leaves no mean
            let whole: Option<Vec<f64>> = there.iter().map(|column| Summary::of(column).mean).collect();
            let mean = whole.map(|means| Summary::of(&means).mean).unwrap_or_default();
            let interval = match plans.get(there.len().saturating_sub(1)) {
                Some(plan) => {
                    let columns: Vec<OfSeeds<'_>> = there.iter().map(|column| vec![*column]).collect();
                    plan.intervals(&columns, level)?.pop().flatten()
                }
                None => None,
            };
            all.push(SeedEffect { node, input, reading, means, mean, interval, split: split(&there), rank: None });
        }
        let everywhere: Vec<usize> =
            (0..all.len()).filter(|&node| all[node].means.iter().all(Option::is_some)).collect();
        if let Some(plan) = plans.last() {
            let ranks = self.ranks(plan, &everywhere, (input, reading))?;
            everywhere.into_iter().zip(ranks).for_each(|(node, rank)| all[node].rank = Some(rank));
        }
        Ok(all)
    }

    /// The places of these nodes, which every training has.
    fn ranks(
        &self,
        plan: &Hierarchical,
        nodes: &[usize],
        (input, reading): (usize, Reading),
    ) -> Result<Vec<Rank>, CausalError> {
        let sizes = |seed: usize| -> Vec<Vec<f64>> {
            let columns = nodes.iter().filter_map(|&node| self.column(seed, node, input, reading));
            columns.map(|column| column.iter().map(|e| e.abs()).collect()).collect()
        };
        let sizes: Vec<Vec<Vec<f64>>> = (0..self.columns.len()).map(sizes).collect();
        let views: Vec<OfSeeds<'_>> = sizes.iter().map(|seed| seed.iter().map(Vec::as_slice).collect()).collect();
        let resamples = plan.means(&views)?;
        let mean = |node: usize| views.iter().filter_map(|seed| Summary::of(seed[node]).mean).sum::<f64>();
        let found = places(&(0..nodes.len()).map(mean).collect::<Vec<_>>());
        let mut kept = vec![0usize; nodes.len()];
        for row in &resamples {
            let places = places(row);
            kept.iter_mut().zip(places.iter().zip(&found)).for_each(|(k, (a, b))| *k += usize::from(a == b));
        }
        let share = |kept: usize| kept as f64 / resamples.len().max(1) as f64;
        Ok(found.into_iter().zip(kept).map(|(place, kept)| Rank { place, kept: share(kept) }).collect())
    }

    /// The orders of every two trainings.
    ///
    /// # Errors
    /// None that [`Columns`] has not excluded.
    pub fn orders(&self) -> Result<Vec<Order>, CausalError> {
        let size = |seed: usize, node: usize| {
            let column = self.columns.get(seed)?.get(0, node, Quantity::Ece(Reading::Z0));
            Summary::of(column).mean_abs
        };
        let mut orders = Vec::new();
        for (a, b) in (0..self.columns.len()).flat_map(|b| (0..b).map(move |a| (a, b))) {
            let tau = |pairs: Vec<(f64, f64)>| {
                let (first, second): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
                kendall(&first, &second)
            };
            let pair = |i: usize, j: usize| size(a, i).zip(size(b, j));
            let numbered = (0..self.nodes()).filter_map(|node| pair(node, node)).collect();
            let matched: Vec<(f64, f64)> =
                (0..self.nodes()).filter_map(|node| pair(self.there(a, node)?, self.there(b, node)?)).collect();
            let nodes = matched.len();
            orders.push(Order { ae: [a + 1, b + 1], by_number: tau(numbered)?, matched: tau(matched)?, nodes });
        }
        Ok(orders)
    }
}

/// The place of every value from 1, the largest first; of equals the one that comes first.
fn places(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[j].total_cmp(&values[i]));
    let mut places = vec![0; values.len()];
    order.into_iter().enumerate().for_each(|(place, i)| places[i] = place + 1);
    places
}

/// How the variance of seeds x images splits: sums of squares of a table of two ways, each seed of the same images.
fn split(seeds: &[&[f64]]) -> Option<Split> {
    let (count, images) = (seeds.len(), seeds.first()?.len());
    if count < 2 || images == 0 || seeds.iter().any(|seed| seed.len() != images) {
        return None;
    }
    let mean = |values: &mut dyn Iterator<Item = f64>, n: usize| values.sum::<f64>() / n as f64;
    // centred on a value, so that constants leave exactly nothing
    let centre = seeds.first()?.first()?;
    let value = |s: usize, i: usize| seeds[s][i] - centre;
    let of_seeds: Vec<f64> = (0..count).map(|s| mean(&mut (0..images).map(|i| value(s, i)), images)).collect();
    let of_images: Vec<f64> = (0..images).map(|i| mean(&mut (0..count).map(|s| value(s, i)), count)).collect();
    let all = mean(&mut of_seeds.iter().copied(), count);
    let squares = |values: &[f64]| values.iter().map(|v| (v - all) * (v - all)).sum::<f64>();
    let whole: f64 = (0..count * images).map(|at| (value(at / images, at % images) - all).powi(2)).sum();
    let share = |part: f64| part / whole;
    let split =
        Split { seeds: share(images as f64 * squares(&of_seeds)), images: share(count as f64 * squares(&of_images)) };
    (split.seeds.is_finite() && split.images.is_finite()).then_some(split)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variance_splits_as_it_was_put_together() {
        let seeds: [&[f64]; 2] = [&[0.0, 1.0, 2.0, 3.0], &[10.0, 11.0, 12.0, 13.0]];
        let found = split(&seeds).unwrap();
        // 25 of seeds and 1.25 of images
        assert!((found.seeds - 25.0 / 26.25).abs() < 1e-15 && (found.images - 1.25 / 26.25).abs() < 1e-15);
        assert_eq!(split(&[seeds[0], seeds[0]]).unwrap().seeds, 0.0);
        assert_eq!(split(&[&[0.1; 3], &[0.1; 3]]), None);
        assert_eq!((split(&seeds[..1]), split(&[&[1.0], &[1.0, 2.0]]), split(&[])), (None, None, None));
        assert_eq!(split(&[&[0.0, f64::NAN], &[1.0, 2.0]]), None);
    }

    #[test]
    fn places_begin_with_the_largest() {
        assert_eq!(places(&[0.5, 2.0, 0.5, 1.0]), [3, 1, 4, 2]);
        assert!(places(&[]).is_empty());
    }
}
