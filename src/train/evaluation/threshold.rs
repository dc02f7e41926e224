//! The cut above which an image is said to have a finding, and what comes of it. Chosen on validation images, judged on
//! others: a cut chosen where it is judged looks better than it is. Called by [`super`].

use crate::interval::Share;

/// The cut with the largest Youden's J, sensitivity + specificity - 1 (Cancer 3, 1950): images that score at least that much are
/// said to have the finding. It is one of the scores, as in scikit-learn's `roc_curve`, and the lowest of several as good: more of
/// the ill are found. `None` where all images have the finding or none has, where a score is not a number, and where no
/// cut is better than a guess.
pub fn youden(scores: &[f64], present: &[bool]) -> Option<f64> {
    if scores.iter().any(|s| s.is_nan()) {
        return None;
    }
    let positives = present.iter().filter(|&&p| p).count() as i128;
    let negatives = present.len() as i128 - positives;
    let mut order: Vec<(f64, bool)> = scores.iter().copied().zip(present.iter().copied()).collect();
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut found, mut false_alarms) = (0, 0);
    let mut best: Option<(i128, f64)> = None;
    for tied in order.chunk_by(|a, b| a.0 == b.0) {
        let with = tied.iter().filter(|t| t.1).count() as i128;
        found += with;
        false_alarms += tied.len() as i128 - with;
        // J times the pairs, a whole number: what is as good is told without rounding
        let j = found * negatives - false_alarms * positives;
        if j > 0 && best.is_none_or(|(most, _)| j >= most) {
            best = tied.first().map(|t| (j, t.0));
        }
    }
    best.map(|(_, cut)| cut)
}

/// What a cut does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operating {
    /// Those said to have the finding of all that have it.
    pub sensitivity: Share,
    /// Those said not to have it of all that have not.
    pub specificity: Share,
}

impl Operating {
    /// At `cut`; `None` where a score is not a number.
    pub fn at(cut: f64, scores: &[f64], present: &[bool]) -> Option<Operating> {
        if scores.iter().any(|s| s.is_nan()) {
            return None;
        }
        let share = |of: bool| {
            let side = || scores.iter().zip(present).filter(move |(_, p)| **p == of);
            Share { count: side().filter(|(s, _)| (**s >= cut) == of).count(), of: side().count() }
        };
        Some(Operating { sensitivity: share(true), specificity: share(false) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_cut_is_a_score_and_the_lowest_of_several_as_good() {
        let (t, f) = (true, false);
        // J: >= .9 1/3, >= .8 2/3 less 0, >= .6 1 less 1/2, >= .5 1 less 1
        assert_eq!(youden(&[0.9, 0.8, 0.7, 0.6, 0.5], &[t, t, f, t, f]), Some(0.8));
        // >= .9 and >= .7 are both 1/2
        assert_eq!(youden(&[0.9, 0.8, 0.7, 0.6], &[t, f, t, f]), Some(0.7));
        // tied images are on one side
        assert_eq!(youden(&[0.5, 0.5, 0.5, 0.1], &[t, t, f, f]), Some(0.5));
        for (scores, present) in [
            (&[0.5, 0.4][..], &[t, t][..]),
            (&[0.5, 0.4], &[f, f]),
            (&[], &[]),
            (&[f64::NAN, 0.4], &[t, f]),
            // upside down, and all alike
            (&[0.1, 0.9], &[t, f]),
            (&[0.5, 0.5], &[t, f]),
        ] {
            assert_eq!(youden(scores, present), None, "{scores:?} {present:?}");
        }
    }

    #[test]
    fn cuts_are_those_of_scikit_learn() {
        for case in super::super::fixture::cases() {
            assert_eq!(youden(&case.scores, &case.present), Some(case.threshold));
        }
    }

    #[test]
    fn an_image_at_the_cut_is_said_to_have_it() {
        let (t, f) = (true, false);
        let at = |cut| Operating::at(cut, &[0.9, 0.5, 0.4, 0.5, 0.1], &[t, t, t, f, f]);
        let sensitivity = Share { count: 2, of: 3 };
        assert_eq!(at(0.5), Some(Operating { sensitivity, specificity: Share { count: 1, of: 2 } }));
        assert_eq!(at(0.6).map(|o| o.specificity), Some(Share { count: 2, of: 2 }));
        assert_eq!(Operating::at(0.5, &[f64::NAN], &[t]), None);
        assert_eq!(Operating::at(0.5, &[0.6], &[t]).and_then(|o| o.specificity.value()), None);
    }
}
