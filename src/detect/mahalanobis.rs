//! s4 (b): Mahalanobis' distance of an image's vector of effects to the clean images that it was fitted on. It knows no attack,
//! so none can be held out from it. Called by [`super::detector`].

use super::DetectError;
use super::linear::{Cholesky, Standard};
use super::logistic::same_width;
use serde::{Deserialize, Serialize};

/// Added to the variances of the standardised effects, which are 1: nodes that always move together, and dead ones, have a
/// covariance that no inverse exists of.
pub const RIDGE: f64 = 1e-3;

/// A fitted distance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mahalanobis {
    /// Of the clean images.
    pub standard: Standard,
    /// Cholesky's factor of the covariance (divisor n - 1) of the standard scores plus the ridge.
    pub factor: Cholesky,
    /// Added to every variance.
    pub ridge: f64,
}

impl Mahalanobis {
    /// Of the rows of clean images, of one length, all numbers.
    ///
    /// # Errors
    /// [`DetectError::Range`] unless the ridge is above 0, [`DetectError::Nothing`] with fewer than two images,
    /// [`DetectError::Length`] where rows differ, [`DetectError::Singular`] for numbers so large that their squares are none.
    pub fn fit(rows: &[&[f64]], ridge: f64) -> Result<Mahalanobis, DetectError> {
        if !(ridge > 0.0 && ridge.is_finite()) {
            return Err(DetectError::Range { what: "the ridge on the covariance", value: ridge, range: "above 0" });
        }
        if rows.len() < 2 {
            return Err(DetectError::Nothing { what: "two clean images", of: "Mahalanobis' distance" });
        }
        same_width(rows)?;
        let standard = Standard::of(rows);
        let width = standard.means.len();
        let mut covariance: Vec<Vec<f64>> = (0..width).map(|i| vec![0.0; i + 1]).collect();
        for row in rows {
            let x = standard.apply(row);
            for (line, xi) in covariance.iter_mut().zip(&x) {
                line.iter_mut().zip(&x).for_each(|(c, xj)| *c += xi * xj);
            }
        }
        let degrees = rows.len() as f64 - 1.0;
        for (i, line) in covariance.iter_mut().enumerate() {
            line.iter_mut().for_each(|c| *c /= degrees);
            line[i] += ridge;
        }
        let factor = Cholesky::of(&covariance, "the covariance of the clean images' effects")?;
        Ok(Mahalanobis { standard, factor, ridge })
    }

    /// The distance, in standard deviations.
    pub fn score(&self, row: &[f64]) -> f64 {
        self.factor.whiten(&self.standard.apply(row)).iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    /// Whether it is one for vectors of `width` numbers.
    pub fn is_valid(&self, width: usize) -> bool {
        self.standard.is_valid(width) && self.factor.is_valid(width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::fixture;
    use approx::assert_relative_eq;

    #[test]
    fn distances_are_numpys() {
        for case in fixture::numbers().mahalanobis {
            let rows: Vec<&[f64]> = case.rows.iter().map(Vec::as_slice).collect();
            let found = Mahalanobis::fit(&rows, case.ridge).unwrap();
            for (query, want) in case.queries.iter().zip(&case.distances) {
                assert_relative_eq!(found.score(query), *want, max_relative = 1e-9);
            }
            assert!(found.is_valid(rows[0].len()));
        }
    }

    #[test]
    fn one_node_has_the_plain_standard_score() {
        let rows: [&[f64]; 3] = [&[1.0], &[2.0], &[3.0]];
        let found = Mahalanobis::fit(&rows, 1e-12).unwrap();
        // mean 2, standard deviation with divisor n - 1 is 1
        assert_relative_eq!(found.score(&[4.5]), 2.5, max_relative = 1e-10);
        assert_eq!(found.score(&[2.0]), 0.0);
    }

    #[test]
    fn what_cannot_be_fitted_says_so() {
        let rows: [&[f64]; 2] = [&[1.0], &[2.0]];
        assert!(matches!(Mahalanobis::fit(&rows, 0.0), Err(DetectError::Range { .. })));
        assert!(matches!(Mahalanobis::fit(&rows[..1], 1.0), Err(DetectError::Nothing { .. })));
        let huge: [&[f64]; 2] = [&[f64::MAX], &[f64::NAN]];
        assert!(matches!(Mahalanobis::fit(&huge, 1.0), Err(DetectError::Singular { .. })));
        // twice the same node
        let twins: [&[f64]; 3] = [&[1.0, 1.0], &[2.0, 2.0], &[4.0, 4.0]];
        assert!(Mahalanobis::fit(&twins, RIDGE).unwrap().score(&[1.0, 2.0]) > 5.0);
    }
}
