//! Average precision: the area under the curve of precision over recall of a finding, and how sure it is. Unlike the area under the
//! ROC curve it depends on how rare the finding is, so it stands beside the prevalence, which is what scores that know nothing have.
//! Called by [`super`] and `detect`.
//!
//! - **Point**: as scikit-learn has it, the mean over images with the finding of the precision at the cut that finds them; images of
//!   equal scores are cut off together. No straight lines between cuts: they would promise precision that no cut has.
//! - **Interval**: percentiles over resamples of patients, all images of a drawn patient at once (Efron and Tibshirani 1993). There is
//!   no formula that holds for a rare finding, where it matters most.

use crate::interval::Interval;
use crate::random::Stream;
use rayon::prelude::*;

/// Resamples of patients. The same for every finding and every run: their seed is 0.
const RESAMPLES: usize = 2000;

/// Images by falling score, in runs of equal ones.
struct Order {
    /// Positions of images.
    images: Vec<u32>,
    /// Where each run ends.
    ends: Vec<usize>,
}

impl Order {
    /// `None` where a score is not a number.
    fn of(scores: &[f64]) -> Option<Order> {
        if scores.iter().any(|score| score.is_nan()) {
            return None;
        }
        let mut images: Vec<u32> = (0..scores.len() as u32).collect();
        let score = |i: u32| scores[i as usize];
        images.sort_unstable_by(|&a, &b| score(b).total_cmp(&score(a)));
        let mut ends = Vec::new();
        // 0 and -0 are equal scores
        for tied in images.chunk_by(|&a, &b| score(a) == score(b)) {
            ends.push(ends.last().copied().unwrap_or(0) + tied.len());
        }
        Some(Order { images, ends })
    }

    /// With every image counted `weight` times; NaN where none with the finding is.
    fn average_precision(&self, present: &[bool], weight: impl Fn(usize) -> u32) -> f64 {
        let (mut start, mut found, mut flagged, mut sum) = (0, 0u64, 0u64, 0.0);
        for &end in &self.ends {
            let before = found;
            for &i in &self.images[start..end] {
                let (i, times) = (i as usize, u64::from(weight(i as usize)));
                flagged += times;
                found += if present[i] { times } else { 0 };
            }
            if found > before {
                sum += (found - before) as f64 * (found as f64 / flagged as f64);
            }
            start = end;
        }
        sum / found as f64
    }
}

/// The average precision of one score and one answer an image; `None` where a score is not a number or no image has the finding.
pub fn average_precision(scores: &[f64], present: &[bool]) -> Option<f64> {
    let value = Order::of(scores)?.average_precision(present, |_| 1);
    value.is_finite().then_some(value)
}

/// Resamples of patients, the same for all findings.
pub struct Resamples<'a> {
    /// A number for each image's patient, from 0 without gaps.
    patients: &'a [u32],
    count: u32,
}

impl<'a> Resamples<'a> {
    /// Of images of these patients, numbered from 0 without gaps.
    pub fn new(patients: &'a [u32]) -> Resamples<'a> {
        Resamples { patients, count: patients.iter().max().map_or(0, |most| most + 1) }
    }

    /// The interval of [`average_precision`] at `level`; resamples in which no image has the finding are left out. `None` where there
    /// is no average precision, for other numbers of images, and for a level outside 0..1.
    pub fn interval(&self, scores: &[f64], present: &[bool], level: f64) -> Option<Interval> {
        let order = Order::of(scores)?;
        if scores.len() != self.patients.len() || present.len() != self.patients.len() {
            return None;
        }
        let stream = Stream::new(0, "average precision");
        let resample = |drawn: &mut Vec<u32>, r: usize| {
            drawn.fill(0);
            (0..self.count).for_each(|i| drawn[stream.below(r as u64, i, self.count) as usize] += 1);
            order.average_precision(present, |i| drawn[self.patients[i] as usize])
        };
        let values: Vec<f64> =
            (0..RESAMPLES).into_par_iter().map_init(|| vec![0; self.count as usize], resample).collect();
        Interval::percentile(&values.into_iter().filter(|value| value.is_finite()).collect::<Vec<_>>(), level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    #[test]
    fn precision_by_hand_with_ties_cut_off_together() {
        let (t, f) = (true, false);
        // falling: + | - + (tied) | -: one of one, then two of three
        assert_eq!(average_precision(&[3.0, 2.0, 2.0, 1.0], &[t, t, f, f]), Some(0.5 + 0.5 * 2.0 / 3.0));
        assert_eq!(average_precision(&[0.5; 4], &[t, f, f, f]), Some(0.25), "scores that know nothing: the prevalence");
        assert_eq!(average_precision(&[1.0, 0.0, -0.0], &[f, t, f]), Some(1.0 / 3.0));
        assert_eq!(average_precision(&[2.0, 1.0], &[t, t]), Some(1.0));
        assert_eq!(average_precision(&[2.0, 1.0], &[f, f]), None);
        assert_eq!(average_precision(&[f64::NAN, 1.0], &[t, f]), None);
        assert_eq!(average_precision(&[], &[]), None);
    }

    #[test]
    fn precision_is_scikit_learns() {
        for case in super::super::fixture::cases() {
            assert_relative_eq!(
                average_precision(&case.scores, &case.present).unwrap(),
                case.average_precision,
                max_relative = 1e-13
            );
        }
    }

    #[test]
    fn an_interval_surrounds_the_point_and_knows_whose_images_are_whose() {
        for case in super::super::fixture::cases() {
            let alone: Vec<u32> = (0..case.scores.len() as u32).collect();
            for patients in [&case.patient, &alone] {
                let of = || Resamples::new(patients).interval(&case.scores, &case.present, 0.95).unwrap();
                let (interval, point) = (of(), case.average_precision);
                assert!(0.0 < interval.lo && interval.lo < point && point < interval.hi && interval.hi <= 1.0);
                assert_eq!(interval, of());
            }
        }
        // a patient whose images are all alike, ten times over, is one patient
        let (scores, present) = ([0.9, 0.4, 0.6, 0.2, 0.7, 0.1], [true, true, false, false, true, false]);
        let tenfold = |x: &[f64]| x.iter().flat_map(|&x| [x; 10]).collect::<Vec<f64>>();
        let flags: Vec<bool> = present.iter().flat_map(|&p| [p; 10]).collect();
        let patients: Vec<u32> = (0..60).map(|i| i / 10).collect();
        let many = Resamples::new(&patients).interval(&tenfold(&scores), &flags, 0.95).unwrap();
        let few = Resamples::new(&[0, 1, 2, 3, 4, 5]).interval(&scores, &present, 0.95).unwrap();
        assert_relative_eq!(many.lo, few.lo, max_relative = 1e-12);
        assert_relative_eq!(many.hi, few.hi, max_relative = 1e-12);
    }

    #[test]
    fn an_interval_of_nothing_is_none() {
        let resamples = Resamples::new(&[0, 1]);
        assert_eq!(resamples.interval(&[1.0, 2.0], &[false, false], 0.95), None);
        assert_eq!(resamples.interval(&[f64::NAN, 2.0], &[true, false], 0.95), None);
        assert_eq!(resamples.interval(&[1.0], &[true], 0.95), None);
        assert_eq!(resamples.interval(&[1.0, 2.0], &[true, false], 1.0), None);
        assert_eq!(Resamples::new(&[]).interval(&[], &[], 0.95), None);
    }
}
