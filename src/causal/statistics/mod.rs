//! How surely: intervals by resampling images, permutation tests, adjustment for many tests, equivalence, agreement.
//!
//! A column is one number per image (f64, length n), in dataset order; a table row, a node or a condition is a column.
//! Called by the sweep for `summary.csv` and by `claims`. Resamples and flips are drawn once and serve every column, so
//! differences and ratios of columns are paired. Random numbers are keyed by (seed, resample, draw), and every sum adds
//! in image order, so results do not depend on the thread count.
//!
//! - [`Bootstrap`]: resamples of images, or of [`Clusters`] of them (patients); percentile intervals of means and of any
//!   statistic of means ([`interval_of`]). [`Resampled`] has BCa intervals beside them, [`Hierarchical`] a level of
//!   autoencoder seeds above the images.
//! - [`SignFlip`]: the test of a mean against 0, of two paired columns against each other.
//! - [`holm`], [`bh`]: p adjusted for the number of tests.
//! - [`Equivalence`]: whether a mean is as good as 0, which "not distinguishable from 0" does not say.
//! - [`pearson`], [`spearman`], [`kendall`]: how far two columns agree.
//!
//! A column with a NaN has no statistics: they are null (`None`), and [`Summary::nan`] counts.

mod agreement;
mod bca;
mod bootstrap;
mod clusters;
mod equivalence;
#[cfg(test)]
mod fixture;
mod hierarchical;
mod multiplicity;
mod permutation;
mod weighted;

pub use agreement::{kendall, pearson, spearman};
pub use bca::{Bca, Fallback, Resampled};
pub use bootstrap::{Bootstrap, interval_of};
pub use clusters::Clusters;
pub use equivalence::{Equivalence, Likeness};
pub use hierarchical::Hierarchical;
pub use multiplicity::{bh, holm};
pub use permutation::SignFlip;

use super::{CausalError, same_length};
pub use crate::interval::{Interval, quantile};

/// Columns of the plan's length, or the error.
fn checked_columns(n: usize, columns: &[&[f64]]) -> Result<(), CausalError> {
    columns.iter().try_for_each(|column| same_length("a column (one value an image)", n, column.len()))
}

/// A confidence level, between 0 and 1.
pub(super) fn checked_level(level: f64) -> Result<(), CausalError> {
    if level > 0.0 && level < 1.0 {
        return Ok(());
    }
    Err(CausalError::Range { what: "the confidence level", value: level, range: "between 0 and 1" })
}

/// What is said of one column.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Number of values.
    pub n: usize,
    /// How many of them are not numbers (NaN or infinite); with any, the rest is null.
    pub nan: usize,
    /// Mean.
    pub mean: Option<f64>,
    /// Standard deviation, divisor n - 1; null below two values.
    pub sd: Option<f64>,
    /// Median.
    pub median: Option<f64>,
    /// Mean of |x|.
    pub mean_abs: Option<f64>,
    /// Share of values above 0.
    pub share_positive: Option<f64>,
}

impl Summary {
    /// Of one column.
    pub fn of(column: &[f64]) -> Self {
        let n = column.len();
        let nan = column.iter().filter(|x| !x.is_finite()).count();
        let none = Summary { n, nan, mean: None, sd: None, median: None, mean_abs: None, share_positive: None };
        let (Some(&first), true) = (column.first(), nan == 0) else { return none };
        let count = n as f64;
        let mean = first + column.iter().map(|x| x - first).sum::<f64>() / count;
        let squares: f64 = column.iter().map(|x| (x - mean) * (x - mean)).sum();
        let mut sorted = column.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Summary {
            mean: Some(mean),
            sd: (n > 1).then(|| (squares / (count - 1.0)).sqrt()),
            median: quantile(&sorted, 0.5),
            mean_abs: Some(column.iter().map(|x| x.abs()).sum::<f64>() / count),
            share_positive: Some(column.iter().filter(|x| **x > 0.0).count() as f64 / count),
            ..none
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_right_by_hand_and_null_with_a_nan() {
        let s = Summary::of(&[-1.0, 0.0, 2.0, 3.0]);
        assert_eq!((s.n, s.nan, s.mean, s.median), (4, 0, Some(1.0), Some(1.0)));
        assert_eq!((s.mean_abs, s.share_positive), (Some(1.5), Some(0.5)));
        assert!((s.sd.unwrap() - (10.0f64 / 3.0).sqrt()).abs() < 1e-15);
        let s = Summary::of(&[1.0, f64::NAN]);
        assert_eq!((s.n, s.nan, s.mean, s.share_positive), (2, 1, None, None));
        assert_eq!((Summary::of(&[]).mean, Summary::of(&[5.0]).sd), (None, None));
        let column = [0.0, f64::NAN, 1.0];
        assert_eq!(Bootstrap::new(3, 9, 0).unwrap().intervals(&[&column], 0.95).unwrap(), [None]);
        assert_eq!(SignFlip::new(3, 9, 0).unwrap().p_values(&[&column, &[0.0; 3]]).unwrap(), [None, Some(1.0)]);
    }
}
