//! Intervals corrected for bias and acceleration: BCa (Efron, "Better bootstrap confidence intervals", JASA 82, 1987).
//!
//! A percentile interval is short on the side of a skewed statistic's long tail. BCa takes other quantiles of the same
//! resamples: shifted by z0, how far the estimate lies from the resamples' median in standard deviations, and stretched by
//! the acceleration a, how fast the statistic's spread changes with its value, from the jackknife. Its ends err by 1/n
//! where the percentile interval's err by 1/sqrt(n).

use super::super::{CausalError, named};
use super::bootstrap::interval_of;
use super::clusters::Clusters;
use super::{Interval, checked_level, quantile};
use crate::interval::deviations;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal};

/// Why an interval is the percentile one after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// No resample lies below the estimate, or none above: z0 is infinite.
    OneSided,
    /// The statistic does not change with the image or cluster that is left out, or is no number without some.
    NoAcceleration,
    /// z0 and a are so large that the formula turns back on itself.
    TooFar,
}

named!(Fallback, "reason for a percentile interval", {
    OneSided => "one_sided",
    NoAcceleration => "no_acceleration",
    TooFar => "too_far",
});

/// A BCa interval with what went into it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bca {
    /// The interval; the percentile one where `fallback` says why.
    pub interval: Interval,
    /// z0; null where it is infinite.
    pub bias: Option<f64>,
    /// a; null where the jackknife has none.
    pub acceleration: Option<f64>,
    /// Why it is the percentile interval, if it is.
    pub fallback: Option<Fallback>,
}

impl Bca {
    /// From a statistic's value in every resample, on the data, and without each image (or cluster) in turn. `None` where
    /// there is no percentile interval ([`Interval::percentile`]), or where the estimate is not finite.
    pub fn of(resamples: &[f64], estimate: f64, without: &[f64], level: f64) -> Option<Self> {
        let percentile = Interval::percentile(resamples, level).filter(|_| estimate.is_finite())?;
        let z = deviations(level)?;
        let (bias, acceleration) = (bias(resamples, estimate), acceleration(without));
        let back = |why| Some(Bca { interval: percentile, bias, acceleration, fallback: Some(why) });
        let Some(z0) = bias else { return back(Fallback::OneSided) };
        let Some(a) = acceleration else { return back(Fallback::NoAcceleration) };
        // of a quantile z of the normal distribution, the probability at which the resamples are cut
        let cut = |z: f64| {
            let stretch = 1.0 - a * (z0 + z);
            (stretch > 0.0).then(|| Normal::standard().cdf(z0 + (z0 + z) / stretch))
        };
        let (Some(below), Some(above)) = (cut(-z), cut(z)) else { return back(Fallback::TooFar) };
        let mut sorted = resamples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let interval = Interval { lo: quantile(&sorted, below)?, hi: quantile(&sorted, above)? };
        Some(Bca { interval, bias, acceleration, fallback: None })
    }
}

/// z0: the normal quantile of the share of resamples below the estimate, those that tie counted half; `None` when all are
/// on one side.
fn bias(resamples: &[f64], estimate: f64) -> Option<f64> {
    // Resamples of the same images in another order tie with the estimate; rounding must not decide.
    let spread = resamples.iter().fold(0.0f64, |most, v| most.max((v - estimate).abs()));
    let slack = 4.0 * f64::EPSILON * estimate.abs() + 1e-12 * spread;
    let (mut below, mut ties) = (0usize, 0usize);
    for v in resamples {
        match v - estimate {
            d if d.abs() <= slack => ties += 1,
            d if d < 0.0 => below += 1,
            _ => {}
        }
    }
    let share = (below as f64 + 0.5 * ties as f64) / resamples.len() as f64;
    (share > 0.0 && share < 1.0).then(|| Normal::standard().inverse_cdf(share))
}

/// a = sum d^3 / (6 (sum d^2)^1.5), d how far the statistic without one lies below the mean of all such.
fn acceleration(without: &[f64]) -> Option<f64> {
    let first = *without.first()?;
    let mean = first + without.iter().map(|v| v - first).sum::<f64>() / without.len() as f64;
    // a is free of scale; cubes of small numbers are not free of underflow
    let largest = without.iter().fold(0.0f64, |most, v| most.max((mean - v).abs()));
    let (mut squares, mut cubes) = (0.0, 0.0);
    for v in without {
        let d = (mean - v) / largest;
        squares += d * d;
        cubes += d * d * d;
    }
    Some(cubes / (6.0 * squares * f64::sqrt(squares))).filter(|a: &f64| a.is_finite())
}

/// Means of columns on the data, in resamples and in the jackknife: what intervals of any statistic of means are made of.
/// Rows are \[column\]. Made by [`super::Bootstrap::resampled`].
#[derive(Clone, Debug, PartialEq)]
pub struct Resampled {
    /// On the data.
    pub estimate: Vec<f64>,
    /// In every resample.
    pub resamples: Vec<Vec<f64>>,
    /// Without each image, or each cluster.
    pub without: Vec<Vec<f64>>,
}

impl Resampled {
    /// The jackknife of means is closed: (sum - own sum) / (n - own n). Centred as [`super::Bootstrap::means`] are, so that
    /// a resample that draws every image once has the estimate's bits.
    pub(super) fn new(columns: &[&[f64]], clusters: &Clusters, resamples: Vec<Vec<f64>>) -> Self {
        let n = clusters.images() as f64;
        let mut estimate = Vec::with_capacity(columns.len());
        let mut without = vec![Vec::with_capacity(columns.len()); clusters.count()];
        for column in columns {
            let centre = column[0];
            let sum: f64 = column.iter().map(|x| x - centre).sum();
            estimate.push(centre + sum / n);
            let own = clusters.sums(column.iter().map(|x| x - centre));
            for ((row, own), &size) in without.iter_mut().zip(own).zip(clusters.sizes()) {
                row.push(centre + (sum - own) / (n - f64::from(size)));
            }
        }
        Resampled { estimate, resamples, without }
    }

    /// The percentile interval of a statistic of the means; `None` when it is not finite in some resample.
    ///
    /// # Errors
    /// [`CausalError::Range`] for a level outside 0..1.
    pub fn percentile(&self, level: f64, statistic: impl Fn(&[f64]) -> f64) -> Result<Option<Interval>, CausalError> {
        interval_of(&self.resamples, level, statistic)
    }

    /// The BCa interval of a statistic of the means; `None` when it is not finite on the data or in some resample.
    ///
    /// # Errors
    /// [`CausalError::Range`] for a level outside 0..1.
    pub fn bca(&self, level: f64, statistic: impl Fn(&[f64]) -> f64) -> Result<Option<Bca>, CausalError> {
        checked_level(level)?;
        let of = |rows: &[Vec<f64>]| -> Vec<f64> { rows.iter().map(|row| statistic(row)).collect() };
        Ok(Bca::of(&of(&self.resamples), statistic(&self.estimate), &of(&self.without), level))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{cases, normals};
    use super::super::{Bootstrap, Clusters};
    use super::*;
    use crate::random::Stream;

    #[test]
    fn intervals_and_accelerations_are_those_of_scipy() {
        for case in cases().bca {
            let views: Vec<&[f64]> = case.columns.iter().map(Vec::as_slice).collect();
            let boot = Bootstrap::of_clusters(&case.clusters(), case.resamples, 0).unwrap();
            let found = boot.resampled(&views).unwrap().bca(case.level, case.statistic()).unwrap().unwrap();
            assert_eq!(found.fallback, None, "{}", case.name);
            // other resamples: four standard deviations of an end by as many, and of the fortieth part of it by scipy's
            let allowed = |noise: f64| 4.0 * noise * (1.0f64 + 1.0 / 40.0).sqrt();
            let Interval { lo, hi } = found.interval;
            assert!((lo - case.lo).abs() <= allowed(case.noise_lo), "{}: {lo} for {}", case.name, case.lo);
            assert!((hi - case.hi).abs() <= allowed(case.noise_hi), "{}: {hi} for {}", case.name, case.hi);
            // no resample has a part in it; variances lose what they are smaller than their squares
            approx::assert_relative_eq!(found.acceleration.unwrap(), case.acceleration, max_relative = 1e-9);
            let percentile = boot.resampled(&views).unwrap().percentile(case.level, case.statistic()).unwrap().unwrap();
            assert_ne!(percentile, found.interval, "{}", case.name);
        }
    }

    #[test]
    fn the_variance_of_efron_and_tibshiranis_data_has_the_interval_that_they_print() {
        let case = &cases().bca[0];
        let views: Vec<&[f64]> = case.columns.iter().map(Vec::as_slice).collect();
        let resampled = Bootstrap::new(26, 20_000, 0).unwrap().resampled(&views).unwrap();
        let found = resampled.bca(0.9, case.statistic()).unwrap().unwrap();
        assert!(((case.statistic())(&resampled.estimate) - 171.5).abs() < 0.05);
        // 1993, section 14.3: (115.8, 259.6), z0 = .146, a = .061, of 2,000 resamples: their ends err by sqrt(10) of our
        // case's noise, their z0 by sqrt(.25 / 2000) / .39 = .029
        assert!((found.interval.lo - 115.8).abs() < 4.0 * 0.68 * 3.3, "{found:?}");
        assert!((found.interval.hi - 259.6).abs() < 4.0 * 1.3 * 3.3, "{found:?}");
        assert!((found.bias.unwrap() - 0.146).abs() < 4.0 * 0.03, "{found:?}");
        assert!((found.acceleration.unwrap() - 0.061).abs() < 5e-4, "{found:?}");
    }

    #[test]
    fn a_mean_accelerates_by_its_skewness_and_symmetric_data_not_at_all() {
        let s = Stream::new(4, "test");
        let column: Vec<f64> = normals(&s, 0, 80).iter().map(|z| z.exp()).collect();
        let resampled = Bootstrap::new(80, 50, 0).unwrap().resampled(&[&column]).unwrap();
        let mean = column.iter().sum::<f64>() / 80.0;
        let moment = |k: i32| column.iter().map(|x| (x - mean).powi(k)).sum::<f64>() / 80.0;
        let a = resampled.bca(0.95, |row| row[0]).unwrap().unwrap().acceleration.unwrap();
        approx::assert_relative_eq!(a, moment(3) / moment(2).powf(1.5) / (6.0 * 80f64.sqrt()), max_relative = 1e-10);
        let symmetric: Vec<f64> = column.iter().flat_map(|x| [-x, *x]).collect();
        let boot = Bootstrap::new(160, 20_000, 0).unwrap();
        let found = boot.bca(&[&symmetric], 0.95).unwrap()[0].unwrap();
        assert!(found.acceleration.unwrap().abs() < 1e-12, "{found:?}");
        // sqrt(.25 / 20000) / phi(0) = .0089
        assert!(found.bias.unwrap().abs() < 4.0 * 0.0089, "{found:?}");
    }

    #[test]
    fn the_jackknife_of_means_is_that_of_leaving_out_and_adding_anew() {
        let s = Stream::new(5, "test");
        let columns = [normals(&s, 0, 50), normals(&s, 1, 50)];
        let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        for patient in [(0..50).collect::<Vec<u32>>(), (0..50).map(|i| i * i % 13).collect()] {
            let clusters = Clusters::new(&patient).unwrap();
            let found = Bootstrap::of_clusters(&clusters, 3, 0).unwrap().resampled(&views).unwrap().without;
            assert_eq!(found.len(), clusters.count());
            for (out, row) in found.iter().enumerate() {
                for (mean, column) in row.iter().zip(&columns) {
                    let kept = column.iter().zip(clusters.of()).filter(|(_, of)| **of as usize != out);
                    let kept: Vec<f64> = kept.map(|(x, _)| *x).collect();
                    assert!((mean - kept.iter().sum::<f64>() / kept.len() as f64).abs() < 1e-14);
                }
            }
        }
    }

    #[test]
    fn resamples_that_tie_with_the_estimate_count_half() {
        // 30 of 100 below, 20 ties: the normal quantile of .4, by scipy.stats.norm.ppf
        let resamples: Vec<f64> = (0..100)
            .map(|i| {
                if i < 30 {
                    0.1
                } else if i < 50 {
                    0.3
                } else {
                    0.7
                }
            })
            .collect();
        let without: Vec<f64> = (0..10).map(|i| f64::from(i * i)).collect();
        let found = Bca::of(&resamples, 0.1 + 0.2, &without, 0.9).unwrap();
        approx::assert_relative_eq!(found.bias.unwrap(), -0.2533471031357997, max_relative = 1e-12);
    }

    #[test]
    fn where_nothing_can_be_corrected_the_percentile_interval_stands_and_the_reason_is_said() {
        let resamples: Vec<f64> = (0..1000).map(f64::from).collect();
        let without: Vec<f64> = (0..10).map(f64::from).collect();
        let percentile = Interval::percentile(&resamples, 0.95).unwrap();
        let of = |estimate, without: &[f64]| Bca::of(&resamples, estimate, without, 0.95).unwrap();
        for (found, why) in [
            (of(-1.0, &without), Fallback::OneSided),
            (of(1e4, &without), Fallback::OneSided),
            (of(500.0, &[2.0; 10]), Fallback::NoAcceleration),
            (of(500.0, &[1.0, f64::NAN]), Fallback::NoAcceleration),
            (of(500.0, &[]), Fallback::NoAcceleration),
        ] {
            assert_eq!((found.interval, found.fallback), (percentile, Some(why)));
        }
        // 1 - a (z0 + z) falls below 0 at z0 + z > 6: all but one of 10^5 resamples below, and a of its largest
        let many: Vec<f64> = (0..100_000).map(f64::from).collect();
        let mut outlier = [0.0; 100_000];
        outlier[0] = -1.0;
        let found = Bca::of(&many, 99_998.5, &outlier, 0.999).unwrap();
        assert!(found.bias.unwrap() > 4.0 && found.acceleration.unwrap() > 0.166, "{found:?}");
        assert_eq!(
            (Some(found.interval), found.fallback),
            (Interval::percentile(&many, 0.999), Some(Fallback::TooFar))
        );

        let boot = Bootstrap::new(40, 100, 0).unwrap();
        let constant = boot.bca(&[&[0.1; 40]], 0.95).unwrap()[0].unwrap();
        assert_eq!(constant.interval, Interval { lo: 0.1, hi: 0.1 });
        assert_eq!((constant.bias, constant.fallback), (Some(0.0), Some(Fallback::NoAcceleration)));
        let one_patient = Bootstrap::of_clusters(&Clusters::new(&[1; 40]).unwrap(), 100, 0).unwrap();
        let found = one_patient.bca(&[&normals(&Stream::new(6, "test"), 0, 40)], 0.95).unwrap()[0].unwrap();
        assert_eq!((found.interval.width(), found.fallback), (0.0, Some(Fallback::NoAcceleration)));
        assert_eq!(Fallback::NoAcceleration.to_string(), "no_acceleration");
    }

    #[test]
    fn what_is_no_number_has_no_interval() {
        let boot = Bootstrap::new(3, 20, 0).unwrap();
        let column = [0.0, f64::NAN, 1.0];
        assert_eq!(boot.bca(&[&column, &column], 0.95).unwrap(), [None, None]);
        assert!(boot.bca(&[&[0.0, 1.0, 2.0]], 1.0).is_err() && boot.bca(&[&[0.0]], 0.9).is_err());
        let resampled = boot.resampled(&[&[0.0, 1.0, 2.0]]).unwrap();
        assert_eq!(resampled.bca(0.95, |row| (row[0] - 1.0).ln()).unwrap(), None);
        assert_eq!(Bca::of(&[1.0, 2.0], f64::NAN, &[1.0, 2.0], 0.95), None);
    }
}
