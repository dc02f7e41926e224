//! "As good as 0": two one-sided tests (TOST; Schuirmann 1987) of a mean against a margin.
//!
//! A mean that is *not distinguishable* from 0 may be large and badly measured; *equivalent* to 0 it is when it has been
//! shown to lie within the margin. The first is the absence of evidence, the second is evidence, and [`Equivalence`] says
//! both. By Student's t on the mean's standard error and not by resamples: n is in the hundreds and more, so the mean is as
//! good as normal, and a p of resamples ends at one over their number. Of clusters the standard error is the robust one,
//! with as many degrees of freedom as clusters less one.
//!
//! Several columns are jointly equivalent to 0 when each is: the largest p is the joint one (intersection-union).

use super::super::{CausalError, named, same_length};
use super::Interval;
use super::clusters::Clusters;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};
use std::fmt;

/// What a column shows of its mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Likeness {
    /// It lies within the margin, even if it can be told from 0.
    Equivalent,
    /// It is not 0, and not shown to lie within the margin.
    Different,
    /// It cannot be told from 0, and is not shown to lie within the margin: too few images.
    Undecided,
}

named!(Likeness, "verdict on a margin", {
    Equivalent => "equivalent",
    Different => "different",
    Undecided => "undecided",
});

/// Two one-sided tests of a column's mean against a margin, and the usual test against 0 beside them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Equivalence {
    /// Mean over images.
    pub mean: f64,
    /// Its standard error, robust to clusters.
    pub se: f64,
    /// Degrees of freedom: clusters less one.
    pub freedom: f64,
    /// How far from 0 is as good as 0.
    pub margin: f64,
    /// Of each of both verdicts, the chance to be wrong.
    pub alpha: f64,
    /// One-sided p of mean <= -margin.
    pub p_below: f64,
    /// One-sided p of mean >= margin.
    pub p_above: f64,
    /// The larger of the two: p of "not equivalent".
    pub p: f64,
    /// Two-sided p of mean = 0.
    pub p_zero: f64,
    /// The interval of level 1 - 2 alpha, which lies within the margin where the mean is equivalent to 0.
    pub interval: Interval,
    /// What it comes to.
    pub verdict: Likeness,
}

impl Equivalence {
    /// Of a column, one value an image: at most `alpha` of false verdicts on `margin`. `None` for a column with a value that
    /// is not finite, and below two clusters. A column without spread (as a severed node's) is what it is: p is 0 or 1.
    ///
    /// # Errors
    /// [`CausalError::Range`] for a margin that is not above 0 or an alpha outside 0 to 1/2, [`CausalError::Length`] when
    /// the column has not one value an image.
    pub fn of(column: &[f64], clusters: &Clusters, margin: f64, alpha: f64) -> Result<Option<Self>, CausalError> {
        if !(margin > 0.0 && margin.is_finite()) {
            return Err(CausalError::Range { what: "the margin", value: margin, range: "above 0" });
        }
        if !(alpha > 0.0 && alpha < 0.5) {
            return Err(CausalError::Range { what: "alpha", value: alpha, range: "between 0 and 1/2" });
        }
        same_length("a column (one value an image)", clusters.images(), column.len())?;
        let freedom = clusters.count() as f64 - 1.0;
        let (mean, se) = standard_error(column, clusters);
        // statrs has no distribution of no freedom
        let Some(t) = StudentsT::new(0.0, 1.0, freedom).ok().filter(|_| mean.is_finite() && se.is_finite()) else {
            return Ok(None);
        };
        // p of a distance of the mean on the side where the null ends
        let one_sided = |distance: f64| match distance {
            _ if se > 0.0 => t.sf(distance / se),
            d if d > 0.0 => 0.0,
            _ => 1.0,
        };
        let (p_below, p_above) = (one_sided(mean + margin), one_sided(margin - mean));
        let (p, p_zero) = (p_below.max(p_above), (2.0 * one_sided(mean.abs())).min(1.0));
        let half = t.inverse_cdf(1.0 - alpha) * se;
        let verdict = match (p <= alpha, p_zero <= alpha) {
            (true, _) => Likeness::Equivalent,
            (false, true) => Likeness::Different,
            (false, false) => Likeness::Undecided,
        };
        let interval = Interval { lo: mean - half, hi: mean + half };
        Ok(Some(Equivalence { mean, se, freedom, margin, alpha, p_below, p_above, p, p_zero, interval, verdict }))
    }
}

/// A mean over images and its standard error: sqrt(m / (m - 1) sum u^2) / n, u a cluster's sum of distances from the mean,
/// n images in m clusters. Where every image is its own cluster this is sd / sqrt(n).
fn standard_error(column: &[f64], clusters: &Clusters) -> (f64, f64) {
    let (n, m) = (clusters.images() as f64, clusters.count() as f64);
    let first = column[0];
    let mean = first + column.iter().map(|x| x - first).sum::<f64>() / n;
    let squares: f64 = clusters.sums(column.iter().map(|x| x - mean)).iter().map(|u| u * u).sum();
    (mean, (m / (m - 1.0) * squares).sqrt() / n)
}

/// A p in words: `p = 0.188`, `p < 0.001`.
struct Chance(f64);

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0.001 { f.write_str("p < 0.001") } else { write!(f, "p = {:.3}", self.0) }
    }
}

/// `equivalent to 0 within 0.01 (p < 0.001), not distinguishable from 0 (p = 0.188)`.
impl fmt::Display for Equivalence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if self.verdict == Likeness::Equivalent { "" } else { "not shown to be " };
        let told = if self.p_zero <= self.alpha { "" } else { "not " };
        let (margin, p, zero) = (self.margin, Chance(self.p), Chance(self.p_zero));
        write!(f, "{shown}equivalent to 0 within {margin} ({p}), {told}distinguishable from 0 ({zero})")
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{cases, normals};
    use super::*;
    use crate::random::Stream;

    #[test]
    fn one_sided_tests_are_those_of_statsmodels_by_image_and_by_patient() {
        for case in cases().equivalence {
            let found = Equivalence::of(&case.column, &case.clusters(), case.margin, 0.05).unwrap().unwrap();
            for (got, want) in [
                (found.mean, case.mean),
                (found.se, case.se),
                (found.freedom, case.freedom),
                (found.p_below, case.p_below),
                (found.p_above, case.p_above),
                (found.p_zero, case.p_zero),
                (found.p, case.p_below.max(case.p_above)),
            ] {
                // a mean is smaller than what it is made of, and a p of 1e-51 knows t to 1e-13
                assert!((got - want).abs() <= 1e-10 * want.abs(), "{}: {got} for {want}", case.name);
            }
            // the two ways to say it
            let inside = found.interval.lo >= -case.margin && found.interval.hi <= case.margin;
            assert_eq!(found.verdict == Likeness::Equivalent, inside, "{}", case.name);
        }
    }

    #[test]
    fn equivalent_and_not_distinguishable_are_two_statements() {
        let verdict = |mean: f64, sd: f64| {
            let column: Vec<f64> = (0..100).map(|i| mean + if i % 2 == 0 { sd } else { -sd }).collect();
            Equivalence::of(&column, &Clusters::single(100).unwrap(), 0.1, 0.05).unwrap().unwrap()
        };
        // se = sd / 9.95
        const WITHIN: &str = "equivalent to 0 within 0.1 (p < 0.001), ";
        const BEYOND: &str = "not shown to be equivalent to 0 within 0.1 (p = ";
        for (mean, sd, like, begins, ends) in [
            (0.0, 0.1, Likeness::Equivalent, WITHIN, ", not distinguishable from 0 (p = 1.000)"),
            (0.05, 0.1, Likeness::Equivalent, WITHIN, ", distinguishable from 0 (p < 0.001)"),
            (0.2, 0.1, Likeness::Different, BEYOND, "1.000), distinguishable from 0 (p < 0.001)"),
            (0.09, 0.1, Likeness::Different, BEYOND, "), distinguishable from 0 (p < 0.001)"),
            (0.05, 1.0, Likeness::Undecided, BEYOND, "), not distinguishable from 0 (p = 0.620)"),
        ] {
            let (found, text) = (verdict(mean, sd), verdict(mean, sd).to_string());
            assert_eq!(found.verdict, like, "{text}");
            assert!(text.starts_with(begins) && text.ends_with(ends), "{text}");
        }
    }

    #[test]
    fn at_the_margin_one_in_twenty_is_taken_for_equivalent_and_patients_do_not_change_that() {
        // the null at its edge: mean = margin; 40 patients of 1 to 5 images with most in common
        let (s, datasets) = (Stream::new(3, "test"), 2000u64);
        let patient: Vec<usize> = (0..40).flat_map(|p| vec![p; 1 + p % 5]).collect();
        let clusters = [Clusters::new(&patient).unwrap(), Clusters::single(patient.len()).unwrap()];
        let mut equivalent = [0.0; 2];
        for d in 0..datasets {
            let (own, rest) = (normals(&s, 2 * d, 40), normals(&s, 2 * d + 1, patient.len()));
            let column: Vec<f64> = patient.iter().zip(rest).map(|(&p, e)| 3.0 + own[p] + 0.5 * e).collect();
            for (count, clusters) in equivalent.iter_mut().zip(&clusters) {
                let found = Equivalence::of(&column, clusters, 3.0, 0.05).unwrap().unwrap();
                *count += f64::from(u8::from(found.verdict == Likeness::Equivalent)) / datasets as f64;
            }
        }
        // binomial se .0049; t of 39 clusters of unequal size rejects some tenths of a hundredth too often
        assert!((equivalent[0] - 0.05).abs() < 4.0 * 0.0049 + 0.005, "{equivalent:?}");
        assert!(equivalent[1] > 0.1, "images that are taken for independent: {equivalent:?}");
    }

    #[test]
    fn a_column_without_spread_is_what_it_is_and_one_without_numbers_is_nothing() {
        let images = Clusters::single(4).unwrap();
        let of = |x: f64| Equivalence::of(&[x; 4], &images, 0.5, 0.05).unwrap().unwrap();
        assert_eq!((of(0.0).p, of(0.0).p_zero, of(0.0).verdict), (0.0, 1.0, Likeness::Equivalent));
        assert_eq!((of(0.25).p, of(0.25).p_zero, of(0.25).verdict), (0.0, 0.0, Likeness::Equivalent));
        assert_eq!((of(-2.0).p, of(-2.0).p_zero, of(-2.0).verdict), (1.0, 0.0, Likeness::Different));
        assert_eq!(of(0.5).p, 1.0);
        let none =
            |column: &[f64], clusters: &Clusters| Equivalence::of(column, clusters, 0.5, 0.05).unwrap().is_none();
        assert!(none(&[0.0, f64::NAN, 1.0, 2.0], &images) && none(&[0.0, f64::INFINITY, 1.0, 2.0], &images));
        assert!(none(&[1.0], &Clusters::single(1).unwrap()) && none(&[1.0, 2.0], &Clusters::new(&[0, 0]).unwrap()));
        let refused = |n: usize, margin, alpha| Equivalence::of(&vec![0.0; n], &images, margin, alpha).is_err();
        assert!(refused(3, 0.5, 0.05) && !refused(4, 0.5, 0.05));
        assert!([0.0, -1.0, f64::NAN, f64::INFINITY].iter().all(|&m| refused(4, m, 0.05)));
        assert!([0.0, 0.5, f64::NAN].iter().all(|&a| refused(4, 0.5, a)));
    }
}
