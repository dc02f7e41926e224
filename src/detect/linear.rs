//! The little linear algebra that detectors need: standard scores, and Cholesky's factor of a small symmetric matrix. Plain loops
//! in one order: tens of nodes, and the same bits on every machine.

use super::DetectError;
use serde::{Deserialize, Serialize};

/// Means and scales of columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standard {
    /// Mean of each column.
    pub means: Vec<f64>,
    /// Standard deviation of each, divisor n; 1 for a column that does not vary, as a dead node's (scikit-learn's rule).
    pub scales: Vec<f64>,
}

impl Standard {
    /// Of rows of one length; the caller has at least one. A column that is constant to the bit has scale 1.
    pub fn of(rows: &[&[f64]]) -> Standard {
        let width = rows.first().map_or(0, |row| row.len());
        let n = rows.len() as f64;
        let column = |k: usize| rows.iter().map(move |row| row.get(k).copied().unwrap_or(f64::NAN));
        let moments = |k: usize| {
            // centred on the first value, so that a constant column has its own value for mean, and no deviation
            let first = column(k).next().unwrap_or(f64::NAN);
            let mean = first + column(k).map(|x| x - first).sum::<f64>() / n;
            let variance = column(k).map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
            let scale = variance.sqrt();
            (mean, if scale > 0.0 { scale } else { 1.0 })
        };
        let (means, scales) = (0..width).map(moments).unzip();
        Standard { means, scales }
    }

    /// (x - mean) / scale.
    pub fn apply(&self, row: &[f64]) -> Vec<f64> {
        let each = row.iter().zip(&self.means).zip(&self.scales);
        each.map(|((x, mean), scale)| (x - mean) / scale).collect()
    }

    /// Whether it is one for `width` columns, of numbers, with scales above 0: what a file says is not trusted.
    pub fn is_valid(&self, width: usize) -> bool {
        let finite = |values: &[f64]| values.len() == width && values.iter().all(|v| v.is_finite());
        finite(&self.means) && finite(&self.scales) && self.scales.iter().all(|s| *s > 0.0)
    }
}

/// The lower triangle L of a positive definite matrix A = L L^T.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cholesky {
    /// Row i has i + 1 values.
    rows: Vec<Vec<f64>>,
}

impl Cholesky {
    /// Factors a symmetric matrix, of which the lower triangle is read (row i: at least i + 1 values).
    ///
    /// # Errors
    /// [`DetectError::Singular`] says where it is not positive definite, which a NaN is not either; `what` names it there.
    pub fn of(matrix: &[Vec<f64>], what: &'static str) -> Result<Cholesky, DetectError> {
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(matrix.len());
        for (i, given) in matrix.iter().enumerate() {
            let mut row: Vec<f64> = Vec::with_capacity(i + 1);
            for (j, above) in rows.iter().enumerate() {
                let known: f64 = row.iter().zip(above).map(|(a, b)| a * b).sum();
                let pivot = above.get(j).copied().unwrap_or(f64::NAN);
                row.push((given.get(j).copied().unwrap_or(f64::NAN) - known) / pivot);
            }
            let rest = given.get(i).copied().unwrap_or(f64::NAN) - row.iter().map(|a| a * a).sum::<f64>();
            if !(rest > 0.0 && rest.is_finite()) {
                return Err(DetectError::Singular { what, pivot: i, value: rest });
            }
            row.push(rest.sqrt());
            rows.push(row);
        }
        Ok(Cholesky { rows })
    }

    /// L^-1 b.
    pub fn whiten(&self, b: &[f64]) -> Vec<f64> {
        let mut x: Vec<f64> = Vec::with_capacity(b.len());
        for (row, b) in self.rows.iter().zip(b) {
            let known: f64 = row.iter().zip(&x).map(|(l, x)| l * x).sum();
            x.push((b - known) / row.last().copied().unwrap_or(f64::NAN));
        }
        x
    }

    /// A^-1 b.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        let mut x = self.whiten(b);
        for i in (0..x.len()).rev() {
            let below: f64 = (i + 1..x.len()).map(|k| self.rows[k][i] * x[k]).sum();
            x[i] = (x[i] - below) / self.rows[i][i];
        }
        x
    }

    /// Whether it is a factor of `width` rows, of numbers, with a diagonal above 0: what a file says is not trusted.
    pub fn is_valid(&self, width: usize) -> bool {
        let row = |(i, row): (usize, &Vec<f64>)| {
            row.len() == i + 1 && row.iter().all(|v| v.is_finite()) && row.last().is_some_and(|d| *d > 0.0)
        };
        self.rows.len() == width && self.rows.iter().enumerate().all(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_by_hand_and_what_it_solves() {
        // [[4, 2, 6], [2, 2, 5], [6, 5, 22]] = L L^T, L = [[2], [1, 1], [3, 2, 3]]
        let matrix = [vec![4.0], vec![2.0, 2.0], vec![6.0, 5.0, 22.0]];
        let factor = Cholesky::of(&matrix, "a matrix").unwrap();
        assert_eq!(factor.rows, [vec![2.0], vec![1.0, 1.0], vec![3.0, 2.0, 3.0]]);
        assert_eq!(factor.solve(&[26.0, 21.0, 82.0]), [1.0, 2.0, 3.0]);
        assert_eq!(factor.whiten(&[2.0, 2.0, 8.0]), [1.0, 1.0, 1.0]);
        assert!(factor.is_valid(3) && !factor.is_valid(2));
    }

    #[test]
    fn what_is_not_positive_definite_is_told_with_its_place() {
        let singular = |matrix: &[Vec<f64>]| match Cholesky::of(matrix, "a matrix") {
            Err(DetectError::Singular { pivot, .. }) => Some(pivot),
            _ => None,
        };
        assert_eq!(singular(&[vec![1.0], vec![1.0, 1.0]]), Some(1));
        assert_eq!(singular(&[vec![-1.0]]), Some(0));
        assert_eq!(singular(&[vec![1.0], vec![f64::NAN, 1.0]]), Some(1));
        assert_eq!(singular(&[vec![1.0], vec![]]), Some(1), "a row too short");
    }

    #[test]
    fn a_constant_column_has_scale_one_and_leaves_nothing() {
        let rows: [&[f64]; 3] = [&[0.1, 1.0], &[0.1, 2.0], &[0.1, 3.0]];
        let standard = Standard::of(&rows);
        assert_eq!((standard.means.as_slice(), standard.scales[0]), (&[0.1, 2.0][..], 1.0));
        assert!((standard.scales[1] - (2.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(standard.apply(&[0.1, 2.0]), [0.0, 0.0]);
        assert!(standard.is_valid(2) && !standard.is_valid(3));
    }
}
