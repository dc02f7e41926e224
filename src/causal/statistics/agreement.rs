//! How far two columns agree: correlations of values (Pearson), of ranks (Spearman), of orders (Kendall).
//!
//! Of rankings of nodes by two trainings, of two estimators of one effect, of two maps. Each is `None` where it is not
//! defined: fewer than two values, a constant column, or a value that is not finite.

use super::super::{CausalError, same_length};

/// Pearson's correlation.
///
/// # Errors
/// [`CausalError::Length`] when the columns are not of one length.
pub fn pearson(a: &[f64], b: &[f64]) -> Result<Option<f64>, CausalError> {
    Ok(checked(a, b)?.then(|| correlation(a, b)).flatten())
}

/// Spearman's rank correlation: Pearson's of the ranks, those that tie each having the mean of theirs.
///
/// # Errors
/// [`CausalError::Length`] when the columns are not of one length.
pub fn spearman(a: &[f64], b: &[f64]) -> Result<Option<f64>, CausalError> {
    Ok(checked(a, b)?.then(|| correlation(&midranks(a), &midranks(b))).flatten())
}

/// Kendall's tau-b: (concordant - discordant) / sqrt(pairs without a tie in a · pairs without a tie in b). O(n log n)
/// (Knight, JASA 61, 1966): discordant pairs are the exchanges that sort b once a is in order.
///
/// # Errors
/// [`CausalError::Length`] when the columns are not of one length.
pub fn kendall(a: &[f64], b: &[f64]) -> Result<Option<f64>, CausalError> {
    if !checked(a, b)? {
        return Ok(None);
    }
    // -0 is 0 to a comparison and not to an order of bits
    let mut pairs: Vec<(f64, f64)> = a.iter().zip(b).map(|(a, b)| (a + 0.0, b + 0.0)).collect();
    pairs.sort_unstable_by(|p, q| p.0.total_cmp(&q.0).then(p.1.total_cmp(&q.1)));
    let ties_both = tied(pairs.chunk_by(|p, q| p == q).map(<[_]>::len));
    let ties_a = tied(pairs.chunk_by(|p, q| p.0 == q.0).map(<[_]>::len));
    let mut second: Vec<f64> = pairs.iter().map(|p| p.1).collect();
    let discordant = exchanges(&mut second);
    let ties_b = tied(second.chunk_by(|p, q| p == q).map(<[_]>::len));
    let all = a.len() as i128 * (a.len() as i128 - 1) / 2;
    let (untied_a, untied_b) = (all - ties_a, all - ties_b);
    if untied_a == 0 || untied_b == 0 {
        return Ok(None);
    }
    let excess = all - ties_a - ties_b + ties_both - 2 * discordant;
    let tau = excess as f64 / (untied_a as f64 * untied_b as f64).sqrt();
    Ok(Some(tau.clamp(-1.0, 1.0)))
}

/// Whether every value is finite.
fn checked(a: &[f64], b: &[f64]) -> Result<bool, CausalError> {
    same_length("columns to compare", a.len(), b.len())?;
    Ok(a.iter().chain(b).all(|x| x.is_finite()))
}

/// Distances from the mean, divided by the largest of them, so that squares stay within the range of f64; `None` of
/// constants.
fn centred(column: &[f64]) -> Option<Vec<f64>> {
    let first = *column.first()?;
    let mean = first + column.iter().map(|x| x - first).sum::<f64>() / column.len() as f64;
    let largest = column.iter().fold(0.0f64, |most, x| most.max((x - mean).abs()));
    (largest > 0.0).then(|| column.iter().map(|x| (x - mean) / largest).collect())
}

fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (centred(a)?, centred(b)?);
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    // one root of the product, so that a column agrees with itself by 1 exactly
    let r = product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt();
    Some(r.clamp(-1.0, 1.0)).filter(|r| r.is_finite())
}

/// The rank of every value from 1, the mean of theirs for values that tie.
fn midranks(column: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..column.len()).collect();
    order.sort_unstable_by(|&i, &j| column[i].total_cmp(&column[j]));
    let mut ranks = vec![0.0; column.len()];
    let mut before = 0;
    for group in order.chunk_by(|&i, &j| column[i] == column[j]) {
        let rank = before as f64 + (group.len() as f64 + 1.0) / 2.0;
        group.iter().for_each(|&i| ranks[i] = rank);
        before += group.len();
    }
    ranks
}

/// Pairs within groups of these sizes.
fn tied(sizes: impl Iterator<Item = usize>) -> i128 {
    sizes.map(|n| n as i128 * (n as i128 - 1) / 2).sum()
}

/// Sorts, and counts the pairs that stood in the wrong order: merge sort.
fn exchanges(values: &mut [f64]) -> i128 {
    let (mut from, mut to, mut width, mut count) = (values.to_vec(), values.to_vec(), 1, 0);
    while width < values.len() {
        for (from, to) in from.chunks(2 * width).zip(to.chunks_mut(2 * width)) {
            let (left, right) = from.split_at(width.min(from.len()));
            let (mut l, mut r) = (0, 0);
            for slot in to {
                // of equals the left one first: they are no exchange
                if l < left.len() && (r == right.len() || left[l] <= right[r]) {
                    *slot = left[l];
                    l += 1;
                } else {
                    *slot = right[r];
                    r += 1;
                    count += (left.len() - l) as i128;
                }
            }
        }
        std::mem::swap(&mut from, &mut to);
        width *= 2;
    }
    values.copy_from_slice(&from);
    count
}

#[cfg(test)]
mod tests {
    use super::super::fixture::cases;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn correlations_are_those_of_scipy() {
        for case in cases().agreement {
            for (got, want) in [
                (pearson(&case.a, &case.b), case.pearson),
                (spearman(&case.a, &case.b), case.spearman),
                (kendall(&case.a, &case.b), case.kendall),
            ] {
                // values that lie 1e9 of their spread from 0 know it to 1e-7
                let allowed = if case.name == "small and far from 0" { 1e-7 } else { 1e-14 };
                let got = got.unwrap().unwrap();
                assert!((got - want).abs() <= allowed, "{}: {got} for {want}", case.name);
            }
        }
    }

    #[test]
    fn what_is_constant_or_no_number_agrees_with_nothing() {
        let some = [1.0, 2.0, 3.0];
        for other in [[0.1; 3], [0.0, f64::NAN, 1.0], [0.0, 1.0, f64::INFINITY]] {
            for of in [pearson, spearman, kendall] {
                assert_eq!((of(&some, &other).unwrap(), of(&other, &some).unwrap()), (None, None));
            }
        }
        for of in [pearson, spearman, kendall] {
            assert_eq!((of(&[], &[]).unwrap(), of(&[1.0], &[2.0]).unwrap()), (None, None));
            assert!(of(&some, &some[1..]).is_err());
            assert_eq!(
                (of(&[-0.0, 0.0], &some[1..]).unwrap(), of(&some[1..], &[3.0, 1.0]).unwrap()),
                (None, Some(-1.0))
            );
        }
    }

    /// Small whole numbers, so that many tie, and -0.
    fn tied_values(n: usize) -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec((-4i32..5).prop_map(|v| if v == 4 { -0.0 } else { f64::from(v) }), n)
    }

    proptest! {
        #[test]
        fn kendalls_pairs_are_those_that_one_counts((a, b) in (2usize..40).prop_flat_map(|n| (tied_values(n), tied_values(n)))) {
            let (mut excess, mut untied) = (0, [0, 0]);
            for (i, j) in (0..a.len()).flat_map(|j| (0..j).map(move |i| (i, j))) {
                let sign = |x: &[f64]| (x[i] > x[j]) as i32 - (x[i] < x[j]) as i32;
                excess += sign(&a) * sign(&b);
                untied[0] += sign(&a).abs();
                untied[1] += sign(&b).abs();
            }
            match kendall(&a, &b).unwrap() {
                None => prop_assert!(untied.contains(&0)),
                Some(tau) => {
                    let want = f64::from(excess) / (f64::from(untied[0]) * f64::from(untied[1])).sqrt();
                    prop_assert!((tau - want).abs() <= 1e-14);
                }
            }
        }

        #[test]
        fn ranks_do_not_change_when_values_are_stretched(
            (a, b) in (2usize..40).prop_flat_map(|n| (tied_values(n), prop::collection::vec(-1e3f64..1e3, n)))
        ) {
            let stretched: Vec<f64> = b.iter().map(|x| x * x * x + 5.0 * x).collect();
            prop_assert_eq!(spearman(&a, &b).unwrap(), spearman(&a, &stretched).unwrap());
            prop_assert_eq!(kendall(&a, &b).unwrap(), kendall(&a, &stretched).unwrap());
            let turned: Vec<f64> = b.iter().map(|x| -x).collect();
            let (one, other) = (kendall(&a, &b).unwrap(), kendall(&a, &turned).unwrap());
            prop_assert_eq!(one.map(|t| -t), other);
        }
    }
}
