//! How far an attack moves maps: the paper's Figure 3 (CAM and CEM on clean and adversarial X-rays, to be looked at) as
//! numbers, and its claim (e), that CEM is sensitive to adversaries where CAM is not. Called by the verb `map`.
//!
//! A map of a fixed class under a changed input is compared with that of the clean image: its change is 1 - agreement by each
//! measure of [`super::agreement`]. A column holds a change an image: `None` where one of both maps is constant (nothing can
//! be said), NaN where one holds what is no number. Differences are paired by image; images with a `None` are left out and
//! counted, a NaN leaves no statistic.

use super::agreement::{By, similarity, spearman, top_overlap};
use super::{ExplainError, Flag, Map};
use crate::causal::CausalError;
use crate::causal::statistics::{Bootstrap, Interval, Summary};

/// A measure of agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Rank correlation of all cells.
    Spearman,
    /// Structural similarity of the maps over their largest magnitudes.
    Ssim,
    /// Intersection over union of the tenth of cells with the largest values.
    Top,
}

impl Measure {
    /// Every measure; the first decides verdicts.
    pub const ALL: [Measure; 3] = [Measure::Spearman, Measure::Ssim, Measure::Top];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Spearman => "spearman",
            Measure::Ssim => "ssim",
            Measure::Top => "top10",
        }
    }

    /// 1 - agreement of two maps of one size: `None` where one is constant, NaN where one holds what is no number.
    ///
    /// # Errors
    /// [`ExplainError::Sizes`].
    pub fn change(self, clean: &Map, other: &Map) -> Result<Option<f64>, ExplainError> {
        let agreement = match self {
            Measure::Spearman => spearman(clean, other)?,
            Measure::Ssim => similarity(clean, other)?,
            Measure::Top => top_overlap(clean, other, By::Value)?,
        };
        let not_finite = [clean, other].iter().any(|map| map.flag() == Flag::NotFinite);
        Ok(if not_finite { Some(f64::NAN) } else { agreement.map(|agreement| 1.0 - agreement) })
    }
}

/// A change an image.
pub type Column = Vec<Option<f64>>;

/// How a column's mean is known.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Bootstrap resamples over images.
    pub resamples: usize,
    /// Confidence level.
    pub level: f64,
    /// Seed of the resamples.
    pub seed: u64,
}

/// The mean of a column.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Mean {
    /// Images that it is over.
    pub n: usize,
    /// Images left out, for a constant map.
    pub undefined: usize,
    /// Images whose value is no number; with any, there is no mean.
    pub nan: usize,
    /// The mean.
    pub mean: Option<f64>,
    /// Its bootstrap interval over images.
    pub interval: Option<Interval>,
}

impl Mean {
    /// Of a column.
    ///
    /// # Errors
    /// [`CausalError::Range`] for a level outside 0..1 or no resamples.
    pub fn of(column: &[Option<f64>], sampling: Sampling) -> Result<Mean, CausalError> {
        let defined: Vec<f64> = column.iter().flatten().copied().collect();
        let undefined = column.len() - defined.len();
        if defined.is_empty() {
            return Ok(Mean { n: 0, undefined, nan: 0, mean: None, interval: None });
        }
        let Summary { n, nan, mean, .. } = Summary::of(&defined);
        let bootstrap = Bootstrap::new(n, sampling.resamples, sampling.seed)?;
        let interval = bootstrap.intervals(&[&defined], sampling.level)?.into_iter().next().flatten();
        Ok(Mean { n, undefined, nan, mean, interval })
    }
}

/// a - b, an image each; `None` where either is.
pub fn difference(a: &[Option<f64>], b: &[Option<f64>]) -> Column {
    a.iter().zip(b).map(|(a, b)| Some((*a)? - (*b)?)).collect()
}

/// Images below which no verdict is given: their intervals are rough.
pub const IMAGES_MIN: usize = 30;

/// Whether one thing is larger than another, by the interval of their paired difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The interval lies above 0.
    Yes,
    /// It lies below.
    No,
    /// It holds 0, or there is none, or there are fewer than 30 images.
    Undecided,
}

impl Verdict {
    /// Of a mean paired difference.
    pub fn of(difference: &Mean) -> Verdict {
        match difference.interval {
            Some(interval) if difference.n >= IMAGES_MIN && interval.lo > 0.0 => Verdict::Yes,
            Some(interval) if difference.n >= IMAGES_MIN && interval.hi < 0.0 => Verdict::No,
            _ => Verdict::Undecided,
        }
    }

    /// `yes`, `no`, `undecided`.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Yes => "yes",
            Verdict::No => "no",
            Verdict::Undecided => "undecided",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    const SAMPLING: Sampling = Sampling { resamples: 500, level: 0.95, seed: 3 };

    #[test]
    fn a_map_that_does_not_move_has_changed_by_nothing_and_constant_ones_are_left_out() {
        let map = |value: &dyn Fn(usize) -> f32| Map::new(12, 12, (0..144).map(value).collect()).unwrap();
        let clean = map(&|i| ((i * 37) % 101) as f32);
        for measure in Measure::ALL {
            let same = measure.change(&clean, &clean).unwrap().unwrap();
            assert!(same.abs() <= 1e-12, "{measure:?} {same}");
            let moved = measure.change(&clean, &map(&|i| ((i * 53) % 97) as f32)).unwrap().unwrap();
            assert!(moved > 0.5, "{measure:?} {moved}");
            assert_eq!(measure.change(&clean, &map(&|_| 0.0)).unwrap(), None);
            let nan = map(&|i| if i == 0 { f32::NAN } else { 1.0 });
            assert!(measure.change(&clean, &nan).unwrap().is_some_and(f64::is_nan));
        }
    }

    #[test]
    fn differences_are_paired_and_what_is_no_number_leaves_no_mean() {
        let a = [Some(0.5), None, Some(0.25), Some(1.0)];
        let b = [Some(0.25), Some(1.0), None, Some(0.5)];
        let column = difference(&a, &b);
        assert_eq!(column, [Some(0.25), None, None, Some(0.5)]);
        let mean = Mean::of(&column, SAMPLING).unwrap();
        assert_eq!((mean.n, mean.undefined, mean.nan, mean.mean), (2, 2, 0, Some(0.375)));
        let interval = mean.interval.unwrap();
        assert!(interval.lo >= 0.25 && interval.hi <= 0.5 && interval.width() > 0.0);
        let mean = Mean::of(&[Some(f64::NAN), Some(1.0), None], SAMPLING).unwrap();
        assert_eq!((mean.n, mean.undefined, mean.nan, mean.mean, mean.interval), (2, 1, 1, None, None));
        let mean = Mean::of(&[None, None], SAMPLING).unwrap();
        assert_eq!((mean.n, mean.undefined, mean.mean, mean.interval), (0, 2, None, None));
        assert!(Mean::of(&a, Sampling { level: 1.0, ..SAMPLING }).is_err());
    }

    #[test]
    fn a_verdict_needs_thirty_images_and_an_interval_without_zero() {
        let stream = Stream::new(1, "test");
        let column = |n: usize, shift: f64| -> Column {
            (0..n).map(|i| Some(shift + f64::from(stream.uniform(0, i as u32)) - 0.5)).collect()
        };
        let verdict = |n, shift| Verdict::of(&Mean::of(&column(n, shift), SAMPLING).unwrap());
        // uniform noise of sd .29: its mean over 30 is off by .05, over 29 hardly more
        assert_eq!(
            [verdict(30, 0.4), verdict(30, -0.4), verdict(30, 0.0)],
            [Verdict::Yes, Verdict::No, Verdict::Undecided]
        );
        assert_eq!([verdict(29, 0.4), verdict(29, -0.4)], [Verdict::Undecided; 2]);
        assert_eq!(Verdict::of(&Mean::of(&[None; 40], SAMPLING).unwrap()), Verdict::Undecided);
    }
}
