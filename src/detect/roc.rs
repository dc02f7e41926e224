//! How well scores part clean images (negatives) from attacked ones (positives), how surely, and what is left of it among images
//! of which the host is equally sure. Called by [`super::matrix`] and [`super::report`].
//!
//! - **Area**: `train::evaluation::auroc`, with Obuchowski's variance over units, because the clean and the attacked version of
//!   an image are not independent; a unit is a patient, or an image.
//! - **True positives at a false positive rate**: the largest share that a cut finds with at most that share of the clean images
//!   flagged, no cut between two scores. Interval by bootstrap over units: the cut is as uncertain as the count above it, for it is
//!   taken from the same clean images, and they are paired with the attacked ones. Wilson's interval knows neither.
//! - **Average precision**: mean precision over positives, as scikit-learn has it, with the prevalence that it depends on.
//! - **Matched area**: within tenths of the host's confidence over all images of both kinds, pooled with weights n+ n-: the share
//!   in order of the pairs that are in one tenth. Tenths with images of one kind only have no pairs; they are dropped and counted.
//!   Tenths are not points: a baseline's own matched area says how much confidence they leave.

use super::DetectError;
use crate::causal::CausalError;
use crate::causal::statistics::{Bootstrap, quantile};
use crate::interval::Interval;
use crate::train::evaluation::auroc::{Lack, auroc};
use crate::train::evaluation::precision::average_precision;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// False positive rates at which detectors are compared, in percent: whole numbers, so that a cut is told without rounding.
pub const RATES_PERCENT: [u32; 2] = [1, 5];
/// Bins of confidence.
pub const BINS: usize = 10;
/// Steps of a thinned curve along either axis.
const CURVE_STEPS: f64 = 50.0;

/// Scored images: a higher score says attacked. All of one length.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Scores.
    pub scores: Vec<f64>,
    /// Whether each is attacked.
    pub positive: Vec<bool>,
    /// Number of its patient or image, below the bootstrap's number.
    pub units: Vec<u32>,
    /// How sure the host is of it, or how unsure: any number that orders images by it.
    pub confidence: Vec<f64>,
}

/// A share of positives found, and how surely.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// False positive rate that is not exceeded, in percent.
    pub fpr_percent: u32,
    /// Share of positives found; null without both kinds.
    pub tpr: Option<f64>,
    /// Its bootstrap interval.
    pub interval: Option<Interval>,
}

/// The area within bins of confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matched {
    /// Pooled area; null where no bin has both kinds.
    pub auroc: Option<f64>,
    /// Its bootstrap interval, with the bins of the whole sample.
    pub interval: Option<Interval>,
    /// Bins with both kinds.
    pub used: usize,
    /// Bins with images of one kind only.
    pub dropped: usize,
}

/// What is said of a sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roc {
    /// Area under the curve; null where `lack` says why.
    pub auroc: Option<f64>,
    /// Its interval, on the logit scale.
    pub interval: Option<Interval>,
    /// Why the area or its interval is missing, by the names of `auc.csv`.
    pub lack: Option<String>,
    /// Attacked images.
    pub n_pos: usize,
    /// Clean images.
    pub n_neg: usize,
    /// Patients or images of both.
    pub units: usize,
    /// True positive rate at each of [`RATES_PERCENT`].
    pub found: [Found; RATES_PERCENT.len()],
    /// Average precision, at this prevalence.
    pub average_precision: Option<f64>,
    /// n_pos / (n_pos + n_neg): what a detector that knows nothing has for average precision.
    pub prevalence: Option<f64>,
    /// The area once confidence is matched.
    pub matched: Matched,
    /// The curve, (false positive rate, true positive rate) ascending: every point is one of the whole curve, which is within a
    /// fiftieth of them.
    pub curve: Vec<[f64; 2]>,
}

/// A sample's statistics in every resample of units; NaN where one lacks a kind. Paired with every other of the same bootstrap.
#[derive(Clone, Debug, Default)]
pub struct Resampled {
    /// Area.
    pub area: Vec<f64>,
    /// True positive rates.
    pub found: [Vec<f64>; RATES_PERCENT.len()],
    /// Matched area.
    pub matched: Vec<f64>,
}

impl Roc {
    /// Of a sample, with intervals of `level`; and the same of every resample.
    ///
    /// # Errors
    /// [`DetectError::Length`] where the sample's columns differ in length, [`DetectError::Causal`] for a unit that the bootstrap
    /// lacks, [`DetectError::Range`] for a level outside 0..1.
    pub fn of(sample: &Sample, bootstrap: &Bootstrap, level: f64) -> Result<(Roc, Resampled), DetectError> {
        let n = sample.scores.len();
        let columns = [("labels", sample.positive.len()), ("units", sample.units.len())];
        for (what, got) in columns.into_iter().chain([("confidences", sample.confidence.len())]) {
            if got != n {
                return Err(DetectError::Length { what, expected: n, got });
            }
        }
        if !(level > 0.0 && level < 1.0) {
            return Err(DetectError::Range { what: "the confidence level", value: level, range: "between 0 and 1" });
        }
        let count = bootstrap.images();
        if let Some(index) = sample.units.iter().map(|&u| u as usize).find(|&unit| unit >= count) {
            return Err(CausalError::Index { what: "unit", index, count }.into());
        }
        let area = auroc(&sample.scores, &sample.positive, &gapless(&sample.units), level);
        let (n_pos, n_neg) = (area.positives, area.negatives);
        let fine = area.area.is_some();
        let prevalence = (n > 0).then(|| n_pos as f64 / n as f64);
        let order = Order::of(sample, 0..n);
        let bins = if fine { bins(sample) } else { Vec::new() };
        let both = |order: &&Order| {
            let positives = order.places.iter().filter(|p| p.positive).count();
            positives > 0 && positives < order.places.len()
        };
        let used = bins.iter().filter(both).count();
        let whole = |_: u32| 1.0;
        let (point, matched) = (order.point(whole), matched(&bins, whole));
        let resampled = if fine { resampled(&order, &bins, bootstrap) } else { Resampled::default() };
        let interval = |values: &[f64]| Interval::percentile(values, level);
        let found = std::array::from_fn(|k| Found {
            fpr_percent: RATES_PERCENT[k],
            tpr: finite(point.found[k]).filter(|_| fine),
            interval: interval(&resampled.found[k]),
        });
        let matched = Matched {
            auroc: finite(matched),
            interval: interval(&resampled.matched),
            used,
            dropped: bins.len() - used,
        };
        let roc = Roc {
            auroc: area.area,
            interval: area.interval,
            lack: area.lack.map(|lack: Lack| lack.name().to_owned()),
            n_pos,
            n_neg,
            units: area.patients,
            found,
            average_precision: average_precision(&sample.scores, &sample.positive).filter(|_| fine),
            prevalence,
            matched,
            curve: if fine { thinned(order.curve()) } else { Vec::new() },
        };
        Ok((roc, resampled))
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// The same units, numbered from 0 without gaps.
pub(super) fn gapless(units: &[u32]) -> Vec<u32> {
    let mut known = units.to_vec();
    known.sort_unstable();
    known.dedup();
    units.iter().map(|unit| known.partition_point(|k| k < unit) as u32).collect()
}

#[derive(Clone, Copy)]
struct Place {
    unit: u32,
    positive: bool,
}

/// Images by falling score.
struct Order {
    places: Vec<Place>,
    /// Where a run of equal scores ends, for each run.
    ends: Vec<usize>,
}

/// What one walk along the order gives.
#[derive(Clone, Copy)]
struct Point {
    /// Pairs won, ties as halves.
    wins: f64,
    /// All pairs.
    pairs: f64,
    found: [f64; RATES_PERCENT.len()],
}

impl Order {
    /// Of those images of the sample.
    fn of(sample: &Sample, images: impl IntoIterator<Item = usize>) -> Order {
        let mut order: Vec<usize> = images.into_iter().collect();
        let score = |i: usize| sample.scores[i];
        order.sort_unstable_by(|&a, &b| score(b).total_cmp(&score(a)));
        let mut ends = Vec::new();
        // 0 and -0 are equal scores
        for tied in order.chunk_by(|&a, &b| score(a) == score(b)) {
            ends.push(ends.last().copied().unwrap_or(0) + tied.len());
        }
        let place = |&i: &usize| Place { unit: sample.units[i], positive: sample.positive[i] };
        Order { places: order.iter().map(place).collect(), ends }
    }

    fn runs(&self) -> impl Iterator<Item = &[Place]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.places[start..*end])
    }

    /// With every unit counted `weight` times: a whole number, so sums are exact and in no order.
    fn point(&self, weight: impl Fn(u32) -> f64) -> Point {
        let (mut positives, mut negatives) = (0.0, 0.0);
        for place in &self.places {
            *(if place.positive { &mut positives } else { &mut negatives }) += weight(place.unit);
        }
        let (mut found, mut alarms, mut wins) = (0.0, 0.0, 0.0);
        let mut reached = [0.0; RATES_PERCENT.len()];
        for run in self.runs() {
            let (mut p, mut n) = (0.0, 0.0);
            for place in run {
                *(if place.positive { &mut p } else { &mut n }) += weight(place.unit);
            }
            wins += p * (negatives - alarms - n + n / 2.0);
            (found, alarms) = (found + p, alarms + n);
            for (reached, percent) in reached.iter_mut().zip(RATES_PERCENT) {
                // whole numbers on both sides
                if 100.0 * alarms <= f64::from(percent) * negatives {
                    *reached = found;
                }
            }
        }
        let found = if negatives > 0.0 { reached.map(|found| found / positives) } else { reached.map(|_| f64::NAN) };
        Point { wins, pairs: positives * negatives, found }
    }

    /// (false positives, true positives) after every run of equal scores.
    fn counts(&self) -> Vec<[usize; 2]> {
        let mut at = [0, 0];
        let step = |run: &[Place]| {
            let positives = run.iter().filter(|p| p.positive).count();
            at = [at[0] + run.len() - positives, at[1] + positives];
            at
        };
        self.runs().map(step).collect()
    }

    fn curve(&self) -> Vec<[f64; 2]> {
        let counts = self.counts();
        let [negatives, positives] = counts.last().copied().unwrap_or([0, 0]);
        let point = |[n, p]: [usize; 2]| [n as f64 / negatives as f64, p as f64 / positives as f64];
        std::iter::once([0.0, 0.0]).chain(counts.into_iter().map(point)).collect()
    }
}

/// Points of the curve from which the last kept is a fiftieth away, with the last before each such step, and both ends.
fn thinned(curve: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    if curve.len() as f64 <= 2.0 * CURVE_STEPS {
        return curve;
    }
    let mut kept: Vec<[f64; 2]> = Vec::new();
    let mut skipped = None;
    for point in curve {
        let far = kept.last().is_none_or(|k| (0..2).any(|a| point[a] - k[a] > 1.0 / CURVE_STEPS));
        if far {
            // a long step starts where the curve was before it
            kept.extend(skipped.take());
            kept.push(point);
        } else {
            skipped = Some(point);
        }
    }
    kept.extend(skipped);
    kept
}

/// The images of each tenth of confidence; empty tenths are none.
fn bins(sample: &Sample) -> Vec<Order> {
    let mut sorted = sample.confidence.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let edge = |b: usize| quantile(&sorted, b as f64 / BINS as f64).unwrap_or(f64::NAN);
    let edges: Vec<f64> = (1..BINS).map(edge).collect();
    let mut images = vec![Vec::new(); BINS];
    for (i, confidence) in sample.confidence.iter().enumerate() {
        images[edges.iter().filter(|edge| confidence > edge).count()].push(i);
    }
    images.into_iter().filter(|images| !images.is_empty()).map(|images| Order::of(sample, images)).collect()
}

fn matched(bins: &[Order], weight: impl Fn(u32) -> f64 + Copy) -> f64 {
    let (wins, pairs) = bins
        .iter()
        .map(|bin| bin.point(weight))
        .fold((0.0, 0.0), |sum, point| (sum.0 + point.wins, sum.1 + point.pairs));
    wins / pairs
}

fn resampled(order: &Order, bins: &[Order], bootstrap: &Bootstrap) -> Resampled {
    let one = |counts: &[u8]| {
        let weight = |unit: u32| f64::from(counts[unit as usize]);
        let point = order.point(weight);
        (point.wins / point.pairs, point.found, matched(bins, weight))
    };
    let all: Vec<(f64, [f64; RATES_PERCENT.len()], f64)> = bootstrap.counts().map(one).collect();
    Resampled {
        area: all.iter().map(|one| one.0).collect(),
        found: std::array::from_fn(|k| all.iter().map(|one| one.1[k]).collect()),
        matched: all.iter().map(|one| one.2).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::fixture::{self, normal_area};
    use crate::random::Stream;
    use statrs::distribution::{ContinuousCDF, Normal};

    /// Sums of a hundred ratios.
    const TOLERANCE: f64 = 1e-13;

    fn alone(scores: &[f64], positive: &[bool]) -> Sample {
        let units = (0..scores.len() as u32).collect();
        Sample { scores: scores.to_vec(), positive: positive.to_vec(), units, confidence: vec![0.0; scores.len()] }
    }

    fn of(sample: &Sample) -> (Roc, Resampled) {
        let units = sample.units.iter().max().map_or(1, |most| *most as usize + 1);
        Roc::of(sample, &Bootstrap::new(units, 200, 0).unwrap(), 0.95).unwrap()
    }

    /// Clean images and the same attacked, their scores with a part that both share: of normal populations `shift` apart.
    fn pairs(n: u32, shift: f64, shared: f64, seed: u64) -> Sample {
        let stream = Stream::new(seed, "roc");
        let normal = |k: u64, i: u32| Normal::standard().inverse_cdf(f64::from(stream.uniform(k, i)) + 0.5f64.powi(25));
        let mut sample = Sample::default();
        for (kind, positive) in [(1, false), (2, true)] {
            for i in 0..n {
                let own = (1.0 - shared).sqrt() * normal(kind, i) + shared.sqrt() * normal(0, i);
                sample.scores.push(own + if positive { shift } else { 0.0 });
                sample.positive.push(positive);
                sample.units.push(i);
                sample.confidence.push(normal(3 + kind, i));
            }
        }
        sample
    }

    #[test]
    fn areas_rates_precision_and_matched_areas_are_scikit_learns() {
        for case in fixture::numbers().roc {
            let positive: Vec<bool> = case.positive.iter().map(|&p| p == 1).collect();
            let sample = Sample { confidence: case.confidence, ..alone(&case.scores, &positive) };
            let (found, _) = of(&sample);
            let near =
                |got: Option<f64>, want: f64| assert!((got.unwrap() - want).abs() <= TOLERANCE, "{got:?} {want}");
            near(found.auroc, case.area);
            near(found.average_precision, case.average_precision);
            near(found.found[0].tpr, case.tpr[0]);
            near(found.found[1].tpr, case.tpr[1]);
            near(found.matched.auroc, case.matched);
            assert_eq!((found.matched.used, found.matched.dropped), (case.used, case.dropped));
            near(
                found.prevalence,
                case.positive.iter().filter(|&&p| p == 1).count() as f64 / case.positive.len() as f64,
            );
        }
    }

    #[test]
    fn the_curve_by_hand() {
        // falling: + | - + (tied) | -
        let (roc, _) = of(&alone(&[3.0, 2.0, 2.0, 1.0], &[true, true, false, false]));
        assert_eq!(roc.curve, [[0.0, 0.0], [0.0, 0.5], [0.5, 1.0], [1.0, 1.0]]);
        assert_eq!((roc.auroc, roc.average_precision), (Some(3.5 / 4.0), Some(0.5 + 0.5 * 2.0 / 3.0)));
        assert_eq!(roc.found.map(|f| f.tpr), [Some(0.5); 2], "of two clean images none may be flagged");
    }

    #[test]
    fn a_thinned_curve_is_within_a_fiftieth_of_the_whole() {
        let sample = pairs(3000, 1.0, 0.0, 5);
        let whole = Order::of(&sample, 0..6000).curve();
        let (roc, _) = of(&sample);
        let kept = &roc.curve;
        assert!(kept.len() <= 202, "{}", kept.len());
        assert_eq!((kept.first(), kept.last()), (Some(&[0.0, 0.0]), Some(&[1.0, 1.0])));
        assert!(kept.windows(2).all(|w| w[0][0] <= w[1][0] && w[0][1] <= w[1][1]));
        for point in &whole {
            let near = kept.iter().any(|k| (0..2).all(|a| (k[a] - point[a]).abs() <= 0.02 + 1e-12));
            assert!(near, "{point:?}");
        }
    }

    #[test]
    fn normal_populations_have_the_area_of_the_closed_form_and_intervals_hold_it() {
        let (mut inside, mut paired, repeats) = ([0u32; 3], 0.0, 120);
        let (want, level) = (normal_area(1.0), 0.95);
        let tpr = Normal::standard().cdf(1.0 - Normal::standard().inverse_cdf(0.95));
        for seed in 0..repeats {
            let sample = pairs(300, 1.0, 0.5, seed);
            let (roc, resampled) = of(&sample);
            let holds = |interval: Option<Interval>, want: f64| interval.is_some_and(|i| i.lo <= want && want <= i.hi);
            inside[0] += u32::from(holds(roc.interval, want));
            inside[1] += u32::from(holds(Interval::percentile(&resampled.area, level), want));
            inside[2] += u32::from(holds(roc.found[1].interval, tpr));
            paired += (roc.auroc.unwrap() - want) / f64::from(repeats as u32);
        }
        // 95 of 100 with a standard error of 2; four of them, and a percentile interval of a quantile is somewhat short
        let least = [0.87, 0.87, 0.84].map(|share: f64| (share * f64::from(repeats as u32)) as u32);
        assert!(inside.iter().zip(least).all(|(inside, least)| *inside >= least), "{inside:?} of {repeats}");
        // sd of one area .014 or less
        assert!(paired.abs() <= 4.0 * 0.02 / f64::from(repeats as u32).sqrt(), "{paired}");
    }

    #[test]
    fn identical_samples_have_half_and_a_shared_image_narrows_the_interval() {
        let mut same = pairs(200, 0.0, 1.0, 3);
        let (roc, resampled) = of(&same);
        assert_eq!(roc.auroc, Some(0.5));
        assert_eq!(roc.lack.as_deref(), Some("no_spread"), "a pair never differs, in any sample of pairs");
        assert!(resampled.area.iter().all(|area| *area == 0.5));
        same.scores.iter_mut().for_each(|s| *s = 1.0);
        assert_eq!(of(&same).0.auroc, Some(0.5), "all tied");
        let width = |shared: f64| of(&pairs(200, 1.0, shared, 4)).0.interval.unwrap().width();
        assert!(width(0.9) < 0.7 * width(0.0));
    }

    #[test]
    fn a_score_that_is_only_confidence_has_nothing_left_when_confidence_is_matched() {
        let n = 4000;
        let stream = Stream::new(9, "roc");
        let mut sample = pairs(n, 0.0, 0.0, 6);
        // attacked images are less sure, and the score is how unsure, with a little of its own
        for i in 0..sample.scores.len() {
            let unsure = 10.0 * f64::from(stream.uniform(0, i as u32)).powi(2 - i32::from(sample.positive[i]));
            sample.confidence[i] = unsure.floor();
            sample.scores[i] = unsure.floor() + 0.01 * sample.scores[i];
        }
        let (roc, _) = of(&sample);
        assert!(roc.auroc.unwrap() > 0.6);
        // within whole numbers of confidence there is noise alone: sd of a pooled area of 8,000 images below .008
        assert!((roc.matched.auroc.unwrap() - 0.5).abs() < 4.0 * 0.008, "{:?}", roc.matched);
    }

    #[test]
    fn one_kind_or_a_nan_gives_nothing_and_says_why() {
        for (scores, positive, lack) in [
            (&[1.0, 2.0][..], &[true, true][..], "one_sided"),
            (&[], &[], "one_sided"),
            (&[1.0, f64::NAN], &[true, false], "nan"),
        ] {
            let (roc, resampled) = of(&alone(scores, positive));
            assert_eq!((roc.auroc, roc.lack.as_deref(), roc.matched.auroc), (None, Some(lack), None));
            assert!(roc.found.iter().all(|f| f.tpr.is_none() && f.interval.is_none()));
            assert!(roc.average_precision.is_none() && roc.curve.is_empty() && resampled.area.is_empty());
        }
        let bootstrap = Bootstrap::new(2, 10, 0).unwrap();
        let sample = alone(&[1.0, 2.0, 3.0], &[true, false, true]);
        assert!(matches!(Roc::of(&sample, &bootstrap, 0.95), Err(DetectError::Causal(CausalError::Index { .. }))));
        let short = Sample { positive: vec![true], ..sample.clone() };
        assert!(matches!(Roc::of(&short, &bootstrap, 0.95), Err(DetectError::Length { .. })));
        let bootstrap = Bootstrap::new(3, 10, 0).unwrap();
        assert!(matches!(Roc::of(&sample, &bootstrap, 1.0), Err(DetectError::Range { .. })));
    }

    #[test]
    fn the_order_of_images_changes_no_bit() {
        let sample = pairs(50, 0.5, 0.5, 8);
        let turned: Vec<usize> = (0..100).map(|i| (37 * i + 11) % 100).collect();
        let other = Sample {
            scores: turned.iter().map(|&i| sample.scores[i]).collect(),
            positive: turned.iter().map(|&i| sample.positive[i]).collect(),
            units: turned.iter().map(|&i| sample.units[i]).collect(),
            confidence: turned.iter().map(|&i| sample.confidence[i]).collect(),
        };
        let (a, b) = (of(&sample), of(&other));
        assert_eq!(a.0, b.0);
        assert_eq!(a.1.found, b.1.found);
        assert_eq!(a.1.area, b.1.area);
    }
}
