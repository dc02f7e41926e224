//! s4 (a): logistic regression with a ridge penalty on the standardised vector of effects, clean images against successful
//! attacks. Called by [`super::detector`].
//!
//! Minimises penalty |w|^2 / 2 + sum log(1 + exp(-+ (b + w x))), the intercept free: scikit-learn's `LogisticRegression` with
//! C = 1 / penalty. By Newton's steps, each halved until the sum falls; strictly convex with both kinds of images, so the minimum
//! is one, separable or not.

use super::DetectError;
use super::linear::{Cholesky, Standard};
use crate::answer::{sigmoid, softplus};
use serde::{Deserialize, Serialize};

/// scikit-learn's default, C = 1.
pub const PENALTY: f64 = 1.0;
/// Largest component of the gradient, an image, at which the minimum is reached: rounding leaves 1e-15 or so.
const GRADIENT_MAX: f64 = 1e-11;
/// Newton's method takes 5 to 10.
const STEPS_MAX: usize = 100;
/// Halvings of one step.
const HALVINGS_MAX: usize = 40;

/// A fitted regression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logistic {
    /// Of the images that it was fitted on.
    pub standard: Standard,
    /// Of the standard scores.
    pub coefficients: Vec<f64>,
    /// Added to them.
    pub intercept: f64,
    /// Ridge penalty.
    pub penalty: f64,
}

impl Logistic {
    /// Of rows of one length, all numbers, and whether each is attacked.
    ///
    /// # Errors
    /// [`DetectError::Range`] unless the penalty is above 0, [`DetectError::Nothing`] without one of the two kinds,
    /// [`DetectError::Length`] where rows differ, [`DetectError::Singular`] and [`DetectError::Diverged`] where numbers are so
    /// large that no minimum is found.
    pub fn fit(rows: &[&[f64]], attacked: &[bool], penalty: f64) -> Result<Logistic, DetectError> {
        if !(penalty > 0.0 && penalty.is_finite()) {
            return Err(DetectError::Range { what: "the ridge penalty", value: penalty, range: "above 0" });
        }
        same_width(rows)?;
        if rows.len() != attacked.len() {
            return Err(DetectError::Length { what: "labels", expected: rows.len(), got: attacked.len() });
        }
        for (kind, what) in [(true, "successful attack"), (false, "clean image")] {
            if !attacked.contains(&kind) {
                return Err(DetectError::Nothing { what, of: "the logistic regression" });
            }
        }
        let standard = Standard::of(rows);
        let problem = Problem { rows: rows.iter().map(|row| standard.apply(row)).collect(), attacked, penalty };
        let found = problem.minimum()?;
        let (intercept, coefficients) = found.split_first().map_or((0.0, Vec::new()), |(b, w)| (*b, w.to_vec()));
        Ok(Logistic { standard, coefficients, intercept, penalty })
    }

    /// Log odds of an attack.
    pub fn score(&self, row: &[f64]) -> f64 {
        let scores = self.standard.apply(row);
        self.intercept + scores.iter().zip(&self.coefficients).map(|(x, w)| x * w).sum::<f64>()
    }

    /// Whether it is one for vectors of `width` numbers.
    pub fn is_valid(&self, width: usize) -> bool {
        let coefficients = self.coefficients.len() == width && self.coefficients.iter().all(|w| w.is_finite());
        self.standard.is_valid(width) && coefficients && self.intercept.is_finite()
    }
}

/// Rows of one length, at least one number each.
pub(super) fn same_width(rows: &[&[f64]]) -> Result<(), DetectError> {
    let expected = rows.first().map_or(0, |row| row.len());
    match rows.iter().find(|row| row.len() != expected) {
        Some(odd) => Err(DetectError::Length { what: "effects of an image", expected, got: odd.len() }),
        None => Ok(()),
    }
}

struct Problem<'a> {
    /// Standard scores.
    rows: Vec<Vec<f64>>,
    attacked: &'a [bool],
    penalty: f64,
}

impl Problem<'_> {
    /// b + w x.
    fn log_odds(&self, at: &[f64], row: &[f64]) -> f64 {
        let (b, w) = at.split_first().map_or((0.0, &[][..]), |(b, w)| (*b, w));
        b + w.iter().zip(row).map(|(w, x)| w * x).sum::<f64>()
    }

    fn value(&self, at: &[f64]) -> f64 {
        let ridge = at.iter().skip(1).map(|w| w * w).sum::<f64>() * self.penalty / 2.0;
        let loss = |(row, &attacked): (&Vec<f64>, &bool)| {
            let o = self.log_odds(at, row);
            softplus(if attacked { -o } else { o })
        };
        ridge + self.rows.iter().zip(self.attacked).map(loss).sum::<f64>()
    }

    /// Gradient, and lower triangle of the Hessian.
    fn derivatives(&self, at: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
        let width = at.len();
        let mut gradient = vec![0.0; width];
        let mut hessian: Vec<Vec<f64>> = (0..width).map(|i| vec![0.0; i + 1]).collect();
        let mut x = vec![1.0; width];
        for (row, &attacked) in self.rows.iter().zip(self.attacked) {
            x.iter_mut().skip(1).zip(row).for_each(|(x, value)| *x = *value);
            let o = self.log_odds(at, row);
            let (residual, weight) = (if attacked { -sigmoid(-o) } else { sigmoid(o) }, sigmoid(o) * sigmoid(-o));
            for (i, (g, h)) in gradient.iter_mut().zip(&mut hessian).enumerate() {
                *g += residual * x[i];
                h.iter_mut().zip(&x).for_each(|(h, xj)| *h += weight * x[i] * xj);
            }
        }
        for (i, h) in hessian.iter_mut().enumerate().skip(1) {
            gradient[i] += self.penalty * at[i];
            h[i] += self.penalty;
        }
        (gradient, hessian)
    }

    fn minimum(&self) -> Result<Vec<f64>, DetectError> {
        let width = 1 + self.rows.first().map_or(0, Vec::len);
        let mut at = vec![0.0; width];
        let mut value = self.value(&at);
        let mut largest = f64::NAN;
        for _ in 0..STEPS_MAX {
            let (gradient, hessian) = self.derivatives(&at);
            largest = gradient.iter().fold(0.0, |most: f64, g| if g.is_nan() { *g } else { most.max(g.abs()) });
            largest /= self.rows.len() as f64;
            if largest <= GRADIENT_MAX {
                return Ok(at);
            }
            let step = Cholesky::of(&hessian, "the Hessian of the logistic regression")?.solve(&gradient);
            // what rounding of the sum can hide near the minimum is no rise
            let slack = 1e-13 * value.abs();
            let mut share = 1.0;
            for _ in 0..HALVINGS_MAX {
                let next: Vec<f64> = at.iter().zip(&step).map(|(a, s)| a - share * s).collect();
                let there = self.value(&next);
                if there <= value + slack {
                    (at, value) = (next, there);
                    break;
                }
                share /= 2.0;
            }
        }
        Err(DetectError::Diverged { iterations: STEPS_MAX, gradient: largest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::fixture;
    use approx::assert_relative_eq;

    /// Of the coefficients of two minimisers, each at its own tolerance.
    const TOLERANCE: f64 = 1e-6;

    #[test]
    fn coefficients_are_scikit_learns() {
        for case in fixture::numbers().logistic {
            let rows: Vec<&[f64]> = case.rows.iter().map(Vec::as_slice).collect();
            let attacked: Vec<bool> = case.attacked.iter().map(|&a| a == 1).collect();
            let found = Logistic::fit(&rows, &attacked, case.penalty).unwrap();
            assert_eq!(found.coefficients.len(), case.coefficients.len());
            for (got, want) in found.coefficients.iter().zip(&case.coefficients) {
                assert!((got - want).abs() <= TOLERANCE, "{got} not {want}");
            }
            assert!((found.intercept - case.intercept).abs() <= TOLERANCE, "{} {}", found.intercept, case.intercept);
            for (row, want) in rows.iter().zip(&case.scores) {
                assert!((found.score(row) - want).abs() <= 10.0 * TOLERANCE);
            }
            assert!(found.is_valid(rows[0].len()) && !found.is_valid(rows[0].len() + 1));
        }
    }

    #[test]
    fn without_information_the_log_odds_are_those_of_the_counts() {
        // the effect says nothing: same values on both sides
        let rows: [&[f64]; 6] = [&[1.0], &[2.0], &[1.0], &[2.0], &[1.0], &[2.0]];
        let found = Logistic::fit(&rows, &[true, true, false, false, false, false], 1.0).unwrap();
        assert!(found.coefficients[0].abs() < 1e-10);
        assert_relative_eq!(found.intercept, 0.5f64.ln(), max_relative = 1e-10);
    }

    #[test]
    fn separated_images_have_a_minimum_and_a_dead_node_no_weight() {
        let rows: [&[f64]; 4] = [&[-1.0, 0.0], &[-2.0, 0.0], &[3.0, 0.0], &[4.0, 0.0]];
        let found = Logistic::fit(&rows, &[false, false, true, true], 1e-4).unwrap();
        assert!(found.coefficients[0] > 1.0 && found.coefficients[1] == 0.0, "{found:?}");
        // a node that was dead and is not any more changes nothing either
        assert_eq!(found.score(&[3.0, 9.0]), found.score(&[3.0, 0.0]));
    }

    #[test]
    fn what_cannot_be_fitted_says_so() {
        let rows: [&[f64]; 2] = [&[1.0], &[2.0]];
        assert!(matches!(Logistic::fit(&rows, &[true, true], 1.0), Err(DetectError::Nothing { .. })));
        assert!(matches!(Logistic::fit(&rows, &[true, false], 0.0), Err(DetectError::Range { .. })));
        assert!(matches!(Logistic::fit(&rows, &[true, false], f64::NAN), Err(DetectError::Range { .. })));
        assert!(matches!(Logistic::fit(&rows, &[true], 1.0), Err(DetectError::Length { .. })));
        let odd: [&[f64]; 2] = [&[1.0], &[2.0, 3.0]];
        assert!(matches!(Logistic::fit(&odd, &[true, false], 1.0), Err(DetectError::Length { .. })));
        let nan: [&[f64]; 2] = [&[1.0], &[f64::NAN]];
        assert!(Logistic::fit(&nan, &[true, false], 1.0).is_err());
    }
}
