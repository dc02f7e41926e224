//! Many tests at once: p adjusted for their number.
//!
//! [`holm`] bounds the chance of any false discovery in a family (the rows of a table); [`bh`] bounds the share of false
//! ones among discoveries (a screening of all nodes of all taps), and finds more.

/// Numbers with their positions, ascending; null and NaN are left out.
fn ascending(p: &[Option<f64>]) -> Vec<(usize, f64)> {
    let mut order: Vec<(usize, f64)> =
        p.iter().enumerate().filter_map(|(i, p)| p.filter(|p| !p.is_nan()).map(|p| (i, p))).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    order
}

/// Holm's step-down adjustment (Holm 1979): the k-th smallest of m becomes the running maximum of (m - k + 1) p, at most
/// 1. Null and NaN values stay null and are not counted in m.
pub fn holm(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let order = ascending(p);
    let mut adjusted = vec![None; p.len()];
    let mut least = 0.0f64;
    for (k, &(i, p)) in order.iter().enumerate() {
        least = least.max(p * (order.len() - k) as f64).min(1.0);
        adjusted[i] = Some(least);
    }
    adjusted
}

/// Benjamini and Hochberg's step-up adjustment (JRSS B 57, 1995): the k-th smallest of m becomes the running minimum, from
/// the largest down, of (m / k) p, at most 1. Below q, a share q of such discoveries is false at most, for tests that are
/// independent or positively dependent, as those of nodes on the same images tend to be. Null and NaN values stay null and
/// are not counted in m.
pub fn bh(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let order = ascending(p);
    let mut adjusted = vec![None; p.len()];
    let mut most = 1.0f64;
    for (k, &(i, p)) in order.iter().enumerate().rev() {
        most = most.min(p * (order.len() as f64 / (k + 1) as f64));
        adjusted[i] = Some(most);
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::super::fixture::cases;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn holm_by_hand() {
        let p = [Some(0.01), Some(0.04), None, Some(0.03), Some(0.005)];
        let want = [Some(0.03), Some(0.06), None, Some(0.06), Some(0.02)];
        for (got, want) in holm(&p).iter().zip(want) {
            assert!(got.is_some() == want.is_some() && (got.unwrap_or(0.0) - want.unwrap_or(0.0)).abs() < 1e-15);
        }
        assert_eq!(holm(&[Some(0.6), Some(0.7), Some(f64::NAN)]), [Some(1.0), Some(1.0), None]);
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn adjusted_values_are_those_of_scipy_and_statsmodels() {
        for case in cases().adjusted {
            let p: Vec<_> = case.p.iter().map(|&p| Some(p)).collect();
            for (got, want) in [(holm(&p), &case.holm), (bh(&p), &case.bh)] {
                let got: Vec<f64> = got.into_iter().flatten().collect();
                approx::assert_relative_eq!(got.as_slice(), want.as_slice(), max_relative = 1e-14);
            }
        }
    }

    #[test]
    fn bh_by_hand() {
        let p = [Some(0.01), Some(0.04), None, Some(0.03), Some(0.005)];
        let want = [Some(0.02), Some(0.04), None, Some(0.04), Some(0.02)];
        for (got, want) in bh(&p).iter().zip(want) {
            assert!(got.is_some() == want.is_some() && (got.unwrap_or(0.0) - want.unwrap_or(0.0)).abs() < 1e-15);
        }
        assert_eq!(bh(&[Some(0.6), Some(0.7), Some(f64::NAN)]), [Some(0.7), Some(0.7), None]);
        assert_eq!(bh(&[None, Some(1.0)]), [None, Some(1.0)]);
        assert!(bh(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn holm_never_lowers_a_p_and_keeps_the_order(p in prop::collection::vec(0f64..1.0, 0..30)) {
            let raw: Vec<_> = p.iter().map(|&p| Some(p)).collect();
            let adjusted: Vec<f64> = holm(&raw).into_iter().flatten().collect();
            for i in 0..p.len() {
                prop_assert!(adjusted[i] >= p[i] && adjusted[i] <= 1.0);
                prop_assert!((0..p.len()).all(|j| p[i] > p[j] || adjusted[i] <= adjusted[j]));
            }
        }

        #[test]
        fn bh_lies_between_p_and_holm_and_keeps_the_order(p in prop::collection::vec(0f64..1.0, 0..30)) {
            let raw: Vec<_> = p.iter().map(|&p| Some(p)).collect();
            let flat = |p: Vec<Option<f64>>| p.into_iter().flatten().collect::<Vec<f64>>();
            let (found, strict) = (flat(bh(&raw)), flat(holm(&raw)));
            for i in 0..p.len() {
                prop_assert!(found[i] >= p[i] && found[i] <= strict[i] * (1.0 + 1e-15));
                prop_assert!((0..p.len()).all(|j| p[i] > p[j] || found[i] <= found[j]));
            }
        }

        #[test]
        fn bh_rejects_what_the_step_up_rule_rejects(p in prop::collection::vec(0f64..0.3, 1..20), q in 0.01f64..0.3) {
            // the rule as it is printed: the largest k whose p is at most k q / m, and all below it
            let mut sorted = p.clone();
            sorted.sort_by(f64::total_cmp);
            let m = p.len() as f64;
            let last = (0..p.len()).rev().find(|&k| sorted[k] <= (k + 1) as f64 * q / m);
            let adjusted = bh(&p.iter().map(|&p| Some(p)).collect::<Vec<_>>());
            for (p, adjusted) in p.iter().zip(adjusted) {
                prop_assert_eq!(adjusted.unwrap() <= q, last.is_some_and(|k| *p <= sorted[k]));
            }
        }
    }
}
