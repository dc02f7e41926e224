//! How alike two maps are: rank correlation, structural similarity, overlap of what stands out. All three are blind to a common
//! factor of either map ([`similarity`] divides each by its largest magnitude), so that a network that is merely surer of its
//! answer has not moved its explanation. Called for the stability of maps between a clean and a changed image.
//!
//! Where a map is constant or holds what is no number, nothing can be said, and nothing is: `None`.

use super::{ExplainError, Map};
use crate::causal::statistics;

/// Side of the Gaussian window of [`ssim`]: 3.5 standard deviations to either side.
pub const WINDOW: usize = 11;
/// Its standard deviation in cells (Wang et al. 2004).
const SIGMA: f64 = 1.5;
/// The constants of the same paper, as shares of the range.
const K: [f64; 2] = [0.01, 0.03];
/// Share of the cells that [`top_overlap`] takes.
pub const TOP_SHARE: f64 = 0.1;

/// What the cells of a map are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// What speaks for the class most.
    Value,
    /// What speaks for or against it most.
    Magnitude,
}

fn same_size(a: &Map, b: &Map) -> Result<(), ExplainError> {
    if a.size() == b.size() { Ok(()) } else { Err(ExplainError::Sizes { first: a.size(), second: b.size() }) }
}

/// Whether values differ and all are numbers.
fn comparable(map: &Map) -> bool {
    map.range().is_some_and(|(lo, hi)| lo < hi)
}

/// Spearman's rank correlation of the cells, equal values with the mean of their ranks; `None` for a constant map or one
/// that holds what is no number. O(n log n).
///
/// # Errors
/// [`ExplainError::Sizes`].
pub fn spearman(a: &Map, b: &Map) -> Result<Option<f64>, ExplainError> {
    same_size(a, b)?;
    if !comparable(a) || !comparable(b) {
        return Ok(None);
    }
    let wide = |map: &Map| map.values().iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    // it refuses columns of two lengths, which these are not
    Ok(statistics::spearman(&wide(a), &wide(b)).unwrap_or_default())
}

/// Structural similarity (Wang et al. 2004): the mean over all windows that lie within the map, Gaussian of 11 x 11 cells
/// (sigma 1.5), moments of the population, `range` the distance that values can have. As scikit-image's
/// `structural_similarity(gaussian_weights=True, use_sample_covariance=False, data_range=range)`, which refuses maps of fewer
/// than 11 rows or columns: there the window is the largest odd one that fits, the same Gaussian cut short. `None` for a
/// constant map or one that holds what is no number.
///
/// # Errors
/// [`ExplainError::Sizes`]; [`ExplainError::Range`] unless the range is above 0 and finite.
pub fn ssim(a: &Map, b: &Map, range: f64) -> Result<Option<f64>, ExplainError> {
    same_size(a, b)?;
    if !(range > 0.0 && range.is_finite()) {
        return Err(ExplainError::Range { range });
    }
    if !comparable(a) || !comparable(b) {
        return Ok(None);
    }
    let widen = |map: &Map| map.values().iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    Ok(Some(structure(&widen(a), &widen(b), a.size(), range)))
}

/// [`ssim`] of two maps that are each divided by their largest magnitude, so of range 2; as saliency maps are compared (Adebayo
/// et al., arXiv 1810.03292).
///
/// # Errors
/// [`ExplainError::Sizes`].
pub fn similarity(a: &Map, b: &Map) -> Result<Option<f64>, ExplainError> {
    same_size(a, b)?;
    if !comparable(a) || !comparable(b) {
        return Ok(None);
    }
    let scaled = |map: &Map| {
        let largest = map.values().iter().fold(0.0f64, |m, &v| m.max(f64::from(v).abs()));
        map.values().iter().map(|&v| f64::from(v) / largest).collect::<Vec<f64>>()
    };
    Ok(Some(structure(&scaled(a), &scaled(b), a.size(), 2.0)))
}

fn structure(x: &[f64], y: &[f64], size: (usize, usize), range: f64) -> f64 {
    let least = size.0.min(size.1);
    let side = WINDOW.min(least - (least + 1) % 2);
    let weights = gaussian(side);
    let products = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<f64>>();
    let mean = |values: &[f64]| windows(values, size, &weights);
    let [mx, my] = [mean(x), mean(y)];
    let [xx, yy, xy] = [mean(&products(x, x)), mean(&products(y, y)), mean(&products(x, y))];
    let [c1, c2] = K.map(|k| (k * range) * (k * range));
    let one = |i: usize| {
        let (mx, my) = (mx[i], my[i]);
        let (vx, vy, vxy) = (xx[i] - mx * mx, yy[i] - my * my, xy[i] - mx * my);
        (2.0 * mx * my + c1) * (2.0 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    };
    (0..mx.len()).map(one).sum::<f64>() / mx.len() as f64
}

/// Weights of a window of odd `side`, summing to 1.
fn gaussian(side: usize) -> Vec<f64> {
    let middle = (side / 2) as f64;
    let weight = |i: usize| (-0.5 * ((i as f64 - middle) / SIGMA).powi(2)).exp();
    let sum: f64 = (0..side).map(weight).sum();
    (0..side).map(|i| weight(i) / sum).collect()
}

/// Weighted means of all windows that lie within the grid, first down, then across.
fn windows(values: &[f64], (height, width): (usize, usize), weights: &[f64]) -> Vec<f64> {
    let (rows, columns) = (height + 1 - weights.len(), width + 1 - weights.len());
    let mut down = vec![0.0; rows * width];
    for (row, out) in down.chunks_exact_mut(width).enumerate() {
        for (weight, line) in weights.iter().zip(values[row * width..].chunks_exact(width)) {
            out.iter_mut().zip(line).for_each(|(sum, v)| *sum += weight * v);
        }
    }
    let across = |line: &[f64]| {
        let at = |column: usize| weights.iter().zip(&line[column..]).map(|(w, v)| w * v).sum::<f64>();
        (0..columns).map(at).collect::<Vec<f64>>()
    };
    down.chunks_exact(width).flat_map(across).collect()
}

/// Intersection over union of the cells that stand out in either map: the tenth (rounded up) with the largest values or
/// magnitudes; of equals the first by position. `None` for a constant map or one that holds what is no number.
///
/// # Errors
/// [`ExplainError::Sizes`].
pub fn top_overlap(a: &Map, b: &Map, by: By) -> Result<Option<f64>, ExplainError> {
    same_size(a, b)?;
    if !comparable(a) || !comparable(b) {
        return Ok(None);
    }
    let count = (a.values().len() as f64 * TOP_SHARE).ceil() as usize;
    let top = |map: &Map| {
        let mut chosen = vec![false; map.values().len()];
        order(map, by).into_iter().take(count).for_each(|i| chosen[i] = true);
        chosen
    };
    let both = top(a).iter().zip(&top(b)).filter(|(a, b)| **a && **b).count();
    Ok(Some(both as f64 / (2 * count - both) as f64))
}

/// The cells from the most outstanding one to the least; of equals the first by position.
pub fn order(map: &Map, by: By) -> Vec<usize> {
    let key = |&v: &f32| match by {
        By::Value => v + 0.0,
        By::Magnitude => v.abs(),
    };
    let keys: Vec<f32> = map.values().iter().map(key).collect();
    let mut order: Vec<usize> = (0..keys.len()).collect();
    // stable, so equals keep their order
    order.sort_by(|&i, &j| keys[j].total_cmp(&keys[i]));
    order
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn map(height: usize, width: usize, value: impl Fn(usize) -> f32) -> Map {
        Map::new(height, width, (0..height * width).map(value).collect()).unwrap()
    }

    /// Sums of some hundred products in f64, and their differences.
    const F64: f64 = 1e-12;

    #[test]
    fn agreement_is_what_scipy_and_scikit_image_compute() {
        let pairs = fixture::read().pairs;
        assert!(pairs.len() >= 8);
        for (k, pair) in pairs.iter().enumerate() {
            let (a, b) = (pair.a.map(), pair.b.map());
            let got = [
                spearman(&a, &b).unwrap(),
                ssim(&a, &b, pair.range).unwrap(),
                similarity(&a, &b).unwrap(),
                top_overlap(&a, &b, By::Value).unwrap(),
                top_overlap(&a, &b, By::Magnitude).unwrap(),
            ];
            let want = [pair.spearman, pair.ssim, pair.similarity, pair.top_value, pair.top_magnitude];
            for (what, (got, want)) in got.iter().zip(want).enumerate() {
                let difference = (got.unwrap() - want).abs();
                assert!(difference <= F64, "pair {k}, measure {what}: {got:?} for {want}");
            }
        }
    }

    #[test]
    fn a_map_agrees_with_itself_and_with_its_multiples_and_a_mirrored_order_is_minus_one() {
        let a = map(13, 12, |i| ((i * 7919 + 13) % 1009) as f32 - 400.0);
        let twice = map(13, 12, |i| 2.0 * a.values()[i]);
        let minus = map(13, 12, |i| -a.values()[i]);
        for b in [&a, &twice] {
            assert_eq!(spearman(&a, b).unwrap(), Some(1.0));
            assert_eq!(top_overlap(&a, b, By::Value).unwrap(), Some(1.0));
            assert!((similarity(&a, b).unwrap().unwrap() - 1.0).abs() <= F64);
        }
        assert!((spearman(&a, &minus).unwrap().unwrap() + 1.0).abs() <= F64);
        assert_eq!(top_overlap(&a, &minus, By::Magnitude).unwrap(), Some(1.0));
        assert_eq!(top_overlap(&a, &minus, By::Value).unwrap(), Some(0.0));
        // the same pair in either order
        let b = map(13, 12, |i| ((i * 31) % 17) as f32);
        for measure in [spearman, similarity] {
            let difference = measure(&a, &b).unwrap().unwrap() - measure(&b, &a).unwrap().unwrap();
            assert!(difference.abs() <= F64);
        }
    }

    #[test]
    fn equal_cells_are_taken_in_order_of_position() {
        let a = map(1, 20, |i| if i == 19 { 1.0 } else { 0.0 });
        // two of twenty: the last cell, and the first of the zeros
        assert_eq!(order(&a, By::Value)[..2], [19, 0]);
        let b = map(1, 20, |i| if i == 0 { 1.0 } else { -0.0 });
        assert_eq!(order(&b, By::Value)[..2], [0, 1]);
        assert_eq!(top_overlap(&a, &b, By::Value).unwrap(), Some(1.0 / 3.0));
    }

    #[test]
    fn nothing_is_said_of_constant_maps_and_of_what_is_no_number() {
        let good = map(12, 12, |i| i as f32);
        let zero = map(12, 12, |_| 0.0);
        let five = map(12, 12, |_| 5.0);
        let nan = map(12, 12, |i| if i == 3 { f32::NAN } else { i as f32 });
        let infinite = map(12, 12, |i| if i == 3 { f32::INFINITY } else { i as f32 });
        for bad in [zero, five, nan, infinite] {
            for (a, b) in [(&good, &bad), (&bad, &good), (&bad, &bad)] {
                assert_eq!(spearman(a, b).unwrap(), None);
                assert_eq!(ssim(a, b, 1.0).unwrap(), None);
                assert_eq!(similarity(a, b).unwrap(), None);
                assert_eq!(top_overlap(a, b, By::Value).unwrap(), None);
            }
        }
    }

    #[test]
    fn maps_of_different_sizes_and_a_range_of_nothing_are_refused() {
        let (a, b) = (map(3, 4, |i| i as f32), map(4, 3, |i| i as f32));
        assert!(matches!(spearman(&a, &b), Err(ExplainError::Sizes { .. })));
        assert!(similarity(&a, &b).is_err() && ssim(&a, &b, 1.0).is_err() && top_overlap(&a, &b, By::Value).is_err());
        for range in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(ssim(&a, &a, range), Err(ExplainError::Range { .. })));
        }
    }

    #[test]
    fn rounding_of_huge_and_tiny_maps_changes_nothing() {
        let a = map(11, 11, |i| ((i * 37) % 101) as f32);
        let b = map(11, 11, |i| ((i * 53) % 97) as f32);
        let want = similarity(&a, &b).unwrap().unwrap();
        for factor in [1e-30f32, 1e30] {
            let scaled = map(11, 11, |i| factor * a.values()[i]);
            let got = similarity(&scaled, &b).unwrap().unwrap();
            // the factor rounds each value once, to f32
            assert!((got - want).abs() <= 1e-6, "{got} {want}");
        }
    }
}
