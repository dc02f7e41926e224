//! Intervals of confidence: what one is, those that have a closed form, and those between quantiles of resamples, which are drawn
//! elsewhere (`causal::statistics`). Called by whatever reports how surely.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// An interval of values of a statistic.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

impl Interval {
    /// hi - lo.
    pub fn width(&self) -> f64 {
        self.hi - self.lo
    }
}

/// `[1.51, 1.60]`, with the precision asked for (two decimals where none is).
impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(2);
        write!(f, "[{:.digits$}, {:.digits$}]", self.lo, self.hi)
    }
}

/// How many standard deviations to either side of its mean hold `level` of a normal variable: 1.96 for 0.95. `None` for a
/// level outside 0..1.
pub fn deviations(level: f64) -> Option<f64> {
    // statrs panics outside
    (level > 0.0 && level < 1.0).then(|| Normal::standard().inverse_cdf(0.5 + level / 2.0))
}

impl Interval {
    /// Of a mean, from the mean and standard deviation (divisor n - 1) of n independent values: Student's t (1908). It needs
    /// no resampling, so that a hundred thousand of them cost nothing; of few skewed values it is rougher than a bootstrap.
    /// `None` below two values or for a level outside 0..1.
    pub fn of_mean(mean: f64, sd: f64, n: usize, level: f64) -> Option<Interval> {
        if n < 2 || !(level > 0.0 && level < 1.0) {
            return None;
        }
        let half =
            StudentsT::new(0.0, 1.0, n as f64 - 1.0).ok()?.inverse_cdf(0.5 + level / 2.0) * sd / (n as f64).sqrt();
        half.is_finite().then_some(Interval { lo: mean - half, hi: mean + half })
    }
}

impl Interval {
    /// The percentile interval that leaves (1 - level) / 2 of the values on either side, ends by [`quantile`]; `None`
    /// without values, with one that is not finite, or for a level outside 0..1.
    pub fn percentile(values: &[f64], level: f64) -> Option<Interval> {
        if values.is_empty() || !values.iter().all(|v| v.is_finite()) || !(level > 0.0 && level < 1.0) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let tail = (1.0 - level) / 2.0;
        Some(Interval { lo: quantile(&sorted, tail)?, hi: quantile(&sorted, 1.0 - tail)? })
    }
}

/// The quantile of type 7 (Hyndman and Fan 1996; the default of R and NumPy): between the neighbours of position
/// (n - 1) probability of the ascending values. `None` without values or for a probability outside 0..=1.
pub fn quantile(sorted: &[f64], probability: f64) -> Option<f64> {
    if !(0.0..=1.0).contains(&probability) {
        return None;
    }
    let position = sorted.len().checked_sub(1)? as f64 * probability;
    let below = position.floor();
    let (lo, hi) = (*sorted.get(below as usize)?, *sorted.get(position.ceil() as usize)?);
    // Equal neighbours give their own bits.
    Some(if lo == hi { lo } else { lo + (position - below) * (hi - lo) })
}

/// So many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// How many.
    pub count: usize,
    /// Of how many; at least `count`.
    pub of: usize,
}

impl Share {
    /// The share, 0 to 1; none of nothing.
    pub fn value(self) -> Option<f64> {
        (self.of > 0).then(|| self.count as f64 / self.of as f64)
    }

    /// Wilson's score interval (1927): it stays within 0..1 and has a width also where none or all are counted. It takes
    /// the counted for independent. `None` of nothing, or for a level outside 0..1.
    pub fn wilson(self, level: f64) -> Option<Interval> {
        let (p, z) = (self.value()?, deviations(level)?);
        let n = self.of as f64;
        let squared = z * z / n;
        let middle = (p + squared / 2.0) / (1.0 + squared);
        let half = z * (p * (1.0 - p) / n + squared / (4.0 * n)).sqrt() / (1.0 + squared);
        // both ends are exact where rounding could leave 0..1
        let lo = if self.count == 0 { 0.0 } else { middle - half };
        Some(Interval { lo, hi: if self.count == self.of { 1.0 } else { middle + half } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    #[test]
    fn deviations_are_the_normal_quantiles() {
        // scipy.stats.norm.ppf of .975, .95, .995
        for (level, z) in [(0.95, 1.959963984540054), (0.9, 1.6448536269514722), (0.99, 2.5758293035489004)] {
            assert_relative_eq!(deviations(level).unwrap(), z, max_relative = 1e-14);
        }
        assert!([0.0, 1.0, -1.0, 2.0, f64::NAN].iter().all(|&level| deviations(level).is_none()));
    }

    #[test]
    fn a_mean_has_students_interval() {
        // scipy.stats.t.interval(level, n - 1, mean, sd / sqrt(n))
        for (mean, sd, n, level, lo, hi) in [
            (1.0, 2.0, 5, 0.95, -1.4833277, 3.4833277),
            (-0.5, 0.1, 30, 0.99, -0.5503248, -0.4496752),
            (0.0, 1.0, 10_000, 0.95, -0.0196020, 0.0196020),
        ] {
            let Interval { lo: l, hi: h } = Interval::of_mean(mean, sd, n, level).unwrap();
            assert!((l - lo).abs() < 1e-6 && (h - hi).abs() < 1e-6, "{l} {h}");
        }
        let none = [(1.0, 1.0, 1, 0.95), (f64::NAN, f64::NAN, 5, 0.95), (0.0, 1.0, 5, 1.0)];
        assert!(none.iter().all(|&(mean, sd, n, level)| Interval::of_mean(mean, sd, n, level).is_none()));
    }

    #[test]
    fn a_share_has_wilsons_interval() {
        // statsmodels 0.15.0: proportion_confint(count, of, 0.05, "wilson")
        for (count, of, lo, hi) in [
            (0, 10, 0.0, 0.27753279986288926),
            (10, 10, 0.7224672001371106, 1.0),
            (1, 1, 0.2065493143772374, 1.0),
            (3, 42, 0.02459040987330592, 0.1900942680115832),
            (37, 42, 0.7499960973799031, 0.9480619667224177),
            (9012, 10000, 0.895196632501863, 0.9068952472055061),
        ] {
            let share = Share { count, of };
            let Interval { lo: l, hi: h } = share.wilson(0.95).unwrap();
            assert_relative_eq!(l, lo, max_relative = 1e-12);
            assert_relative_eq!(h, hi, max_relative = 1e-12);
        }
        assert_eq!((Share { count: 0, of: 0 }.value(), Share { count: 0, of: 0 }.wilson(0.95)), (None, None));
        assert_eq!(Share { count: 1, of: 4 }.wilson(1.0), None);
        assert_eq!(Share { count: 1, of: 4 }.value(), Some(0.25));
    }

    #[test]
    fn quantiles_are_of_type_seven() {
        let x = [1.0, 2.0, 4.0, 8.0];
        // numpy.quantile([1, 2, 4, 8], [0, .25, .5, .9, 1])
        let got: Vec<f64> = [0.0, 0.25, 0.5, 0.9, 1.0].iter().map(|&q| quantile(&x, q).unwrap()).collect();
        approx::assert_relative_eq!(got.as_slice(), [1.0, 1.75, 3.0, 6.8, 8.0].as_slice(), max_relative = 1e-15);
        assert_eq!((quantile(&[], 0.5), quantile(&x, 1.1), quantile(&x, f64::NAN)), (None, None, None));
        assert_eq!(Interval::percentile(&[1.0, f64::NAN], 0.95), None);
        assert_eq!(Interval::percentile(&[1.0, 2.0], 1.0), None);
    }
}
