//! The area under the ROC curve of a finding: the chance that an image with it scores above one without, ties counting half
//! (Mann and Whitney). Called by [`super::classifier`].

/// The area; `None` where all images have the finding or none has. NaN where a score is.
pub fn auroc(scores: &[f32], present: &[bool]) -> Option<f64> {
    let positives = present.iter().filter(|&&p| p).count();
    let negatives = present.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    if scores.iter().any(|s| s.is_nan()) {
        return Some(f64::NAN);
    }
    let mut order: Vec<(f32, bool)> = scores.iter().copied().zip(present.iter().copied()).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    // twice the pairs won, so that ties stay whole numbers
    let (mut below, mut won) = (0u128, 0u128);
    // 0 and -0 are equal scores
    for tied in order.chunk_by(|a, b| a.0 == b.0) {
        let with = tied.iter().filter(|t| t.1).count() as u128;
        let without = tied.len() as u128 - with;
        won += with * (2 * below + without);
        below += without;
    }
    Some(won as f64 / (2.0 * positives as f64 * negatives as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_the_share_of_pairs_in_order_with_ties_as_halves() {
        // pairs (with, without): .9>.1 .9>.5 .5>.1 .5=.5
        assert_eq!(auroc(&[0.9, 0.1, 0.5, 0.5], &[true, false, true, false]), Some(3.5 / 4.0));
        assert_eq!(auroc(&[1.0, 2.0, 3.0], &[false, false, true]), Some(1.0));
        assert_eq!(auroc(&[1.0, 2.0, 3.0], &[true, false, false]), Some(0.0));
        assert_eq!(auroc(&[0.0, -0.0], &[true, false]), Some(0.5));
        assert_eq!(auroc(&[1.0, 2.0], &[true, true]), None);
        assert_eq!(auroc(&[], &[]), None);
        assert!(auroc(&[f32::NAN, 2.0], &[true, false]).is_some_and(f64::is_nan));
    }

    #[test]
    fn it_changes_sides_with_the_scores_sign_and_not_with_their_scale() {
        let stream = crate::random::Stream::new(0, "auroc");
        let scores: Vec<f32> = (0..101).map(|i| (8.0 * stream.uniform(0, i)).floor()).collect();
        let present: Vec<bool> = (0..101).map(|i| stream.uniform(1, i) < 0.3).collect();
        let area = auroc(&scores, &present).unwrap_or(f64::NAN);
        let of = |f: &dyn Fn(f32) -> f32| auroc(&scores.iter().map(|&s| f(s)).collect::<Vec<_>>(), &present);
        assert!((of(&|s| -s).unwrap_or(f64::NAN) - (1.0 - area)).abs() <= 1e-15);
        assert_eq!(of(&|s| s * 3.0 + 1.0), Some(area));
    }
}
