//! The area under the ROC curve of a finding (the chance that an image with it scores above one without, ties counting half:
//! Mann and Whitney) and how sure it is. Called by [`super`] and by validation while training.
//!
//! - **Variance**: DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988) from each image's share of pairs won, with Obuchowski's
//!   extension to several images of one patient (Biometrics 53, 1997), which lets a patient's images depend on each other. Where
//!   every patient has one image the two are the same number, without any factor. Midranks make it O(n log n); what a
//!   patient wins above expectation is a whole number, so a variance is 0 exactly where it is 0.
//! - **Interval**: normal on the logit scale. It stays inside 0..1, and holds the true area more often than the plain one, which is
//!   pROC's default: of an area of 0.95 with 42 images with the finding 91 times in 100, where the plain one does 89 times; with 240
//!   both do 95 times (`tests/fixtures/make_auroc.py coverage`). The plain one is area ± 1.96 se.
//! - **None** where there is nothing to estimate it from, and [`Lack`] says why: an area of 1 has no spread in the
//!   sample, which is no sign of certainty.

use crate::interval::{Interval, deviations};

/// An area under a ROC curve, and how surely.
#[derive(Clone, Debug, PartialEq)]
pub struct Auroc {
    /// The area, 0 to 1.
    pub area: Option<f64>,
    /// Its standard error.
    pub se: Option<f64>,
    /// Its interval.
    pub interval: Option<Interval>,
    /// Images with the finding.
    pub positives: usize,
    /// Images without.
    pub negatives: usize,
    /// Patients of all of them.
    pub patients: usize,
    /// Why something is missing.
    pub lack: Option<Lack>,
}

/// Why an area or its interval is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A score is not a number: neither is there.
    Nan,
    /// All images have the finding, or none has: neither is there.
    OneSided,
    /// Fewer than two patients have an image with the finding, or one without: no interval.
    FewPatients,
    /// No patient differs from the others, as where all pairs are won: no interval.
    NoSpread,
}

impl Lack {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Lack::Nan => "nan",
            Lack::OneSided => "one_sided",
            Lack::FewPatients => "few_patients",
            Lack::NoSpread => "no_spread",
        }
    }
}

/// The area alone; `None` where all images have the finding or none has. NaN where a score is.
pub fn area(scores: &[f64], present: &[bool]) -> Option<f64> {
    let sides = Sides::of(present);
    match wins(scores, present, sides) {
        Ok(wins) => Some(sides.area(total(&wins, present))),
        Err(Lack::Nan) => Some(f64::NAN),
        Err(_) => None,
    }
}

/// The area, its standard error and its interval at `level`, of one score, one answer and one patient's number (from 0, without
/// gaps) an image.
pub fn auroc(scores: &[f64], present: &[bool], patients: &[u32], level: f64) -> Auroc {
    let sides = Sides::of(present);
    let count = patients.iter().max().map_or(0, |&most| most as usize + 1);
    let (positives, negatives) = (sides.positives as usize, sides.negatives as usize);
    let bare = Auroc { area: None, se: None, interval: None, positives, negatives, patients: count, lack: None };
    let wins = match wins(scores, present, sides) {
        Ok(wins) => wins,
        Err(lack) => return Auroc { lack: Some(lack), ..bare },
    };
    let mut all = vec![Patient::default(); count];
    for ((&won, &present), &patient) in wins.iter().zip(present).zip(patients) {
        let patient = &mut all[patient as usize];
        let kind = if present { &mut patient.with } else { &mut patient.without };
        (kind.images, kind.wins) = (kind.images + 1, kind.wins + i128::from(won));
    }
    let total = total(&wins, present);
    let area = sides.area(total);
    let bare = Auroc { area: Some(area), ..bare };
    match sides.variance(&all, total) {
        None => Auroc { lack: Some(Lack::FewPatients), ..bare },
        Some(0.0) => Auroc { lack: Some(Lack::NoSpread), ..bare },
        Some(variance) => {
            let se = variance.sqrt();
            Auroc { se: Some(se), interval: on_logits(area, se, level), ..bare }
        }
    }
}

/// How many images have the finding and how many have not.
#[derive(Clone, Copy)]
struct Sides {
    positives: u64,
    negatives: u64,
}

/// One patient's images with the finding and without.
#[derive(Clone, Copy, Default)]
struct Patient {
    with: Kind,
    without: Kind,
}

/// Images of one kind, and twice the pairs that they win.
#[derive(Clone, Copy, Default)]
struct Kind {
    images: i128,
    wins: i128,
}

impl Kind {
    /// What they win above as many average images, as a share of all pairs: of `own` images of the kind and `other` of the
    /// other, of which `total` / 2 are won. Exact before the division (2^98 at most for 2^32 images).
    fn above_average(self, own: u64, other: u64, total: i128) -> f64 {
        let (own, other, of) = (i128::from(own), other as f64, own as f64);
        (own * self.wins - self.images * total) as f64 / (2.0 * of * of * other)
    }
}

impl Sides {
    fn of(present: &[bool]) -> Sides {
        let positives = present.iter().filter(|&&p| p).count();
        Sides { positives: positives as u64, negatives: (present.len() - positives) as u64 }
    }

    /// Of `total`, twice the pairs won.
    fn area(self, total: i128) -> f64 {
        total as f64 / (2.0 * self.positives as f64 * self.negatives as f64)
    }

    /// Obuchowski's, DeLong's where each patient has one image. With a and b what a patient's images with and without the finding
    /// win above average: k/(k-1) sum a^2 + l/(l-1) sum b^2 + 2 i/(i-1) sum a b over the i patients, of whom k have an image with it
    /// and l one without. Never negative, for i is the largest of the three. `None` where k or l is below 2.
    fn variance(self, patients: &[Patient], total: i128) -> Option<f64> {
        let count = |has: fn(&Patient) -> bool| patients.iter().filter(|p| has(p)).count() as f64;
        let (with, without) = (count(|p| p.with.images > 0), count(|p| p.without.images > 0));
        if with < 2.0 || without < 2.0 {
            return None;
        }
        let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
        for p in patients {
            let a = p.with.above_average(self.positives, self.negatives, total);
            let b = p.without.above_average(self.negatives, self.positives, total);
            (aa, bb, ab) = (aa + a * a, bb + b * b, ab + a * b);
        }
        let unbiased = |k: f64| k / (k - 1.0);
        Some(unbiased(with) * aa + unbiased(without) * bb + 2.0 * unbiased(patients.len() as f64) * ab)
    }
}

/// For each image twice the number of images of the other kind that it is in the right order with, ties counting half.
fn wins(scores: &[f64], present: &[bool], sides: Sides) -> Result<Vec<u64>, Lack> {
    if sides.positives == 0 || sides.negatives == 0 {
        return Err(Lack::OneSided);
    }
    if scores.iter().any(|s| s.is_nan()) {
        return Err(Lack::Nan);
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut wins = vec![0; scores.len()];
    let mut below = Sides { positives: 0, negatives: 0 };
    // 0 and -0 are equal scores
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let positives = tied.iter().filter(|&&i| present[i]).count() as u64;
        let negatives = tied.len() as u64 - positives;
        let above = sides.positives - below.positives - positives;
        for &i in tied {
            wins[i] = if present[i] { 2 * below.negatives + negatives } else { 2 * above + positives };
        }
        below = Sides { positives: below.positives + positives, negatives: below.negatives + negatives };
    }
    Ok(wins)
}

/// Twice the pairs won.
fn total(wins: &[u64], present: &[bool]) -> i128 {
    wins.iter().zip(present).filter(|(_, present)| **present).map(|(&won, _)| i128::from(won)).sum()
}

/// The interval that is normal in log(area / (1 - area)). An area with a spread is neither 0 nor 1.
fn on_logits(area: f64, se: f64, level: f64) -> Option<Interval> {
    let (middle, reach) = ((area / (1.0 - area)).ln(), deviations(level)? * se / (area * (1.0 - area)));
    let back = crate::answer::sigmoid;
    Some(Interval { lo: back(middle - reach), hi: back(middle + reach) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    /// One image a patient.
    fn alone(scores: &[f64], present: &[bool]) -> Auroc {
        auroc(scores, present, &(0..scores.len() as u32).collect::<Vec<_>>(), 0.95)
    }

    #[test]
    fn an_area_is_the_share_of_pairs_in_order_with_ties_as_halves() {
        // pairs (with, without): .9>.1 .9>.5 .5>.1 .5=.5
        assert_eq!(area(&[0.9, 0.1, 0.5, 0.5], &[true, false, true, false]), Some(3.5 / 4.0));
        assert_eq!(area(&[1.0, 2.0, 3.0], &[false, false, true]), Some(1.0));
        assert_eq!(area(&[1.0, 2.0, 3.0], &[true, false, false]), Some(0.0));
        assert_eq!(area(&[0.0, -0.0], &[true, false]), Some(0.5));
        assert_eq!(area(&[1.0, 2.0], &[true, true]), None);
        assert_eq!(area(&[], &[]), None);
        assert!(area(&[f64::NAN, 2.0], &[true, false]).is_some_and(f64::is_nan));
    }

    #[test]
    fn it_changes_sides_with_the_scores_sign_and_not_with_their_scale() {
        let stream = crate::random::Stream::new(0, "auroc");
        let scores: Vec<f64> = (0..101).map(|i| f64::from((8.0 * stream.uniform(0, i)).floor())).collect();
        let present: Vec<bool> = (0..101).map(|i| stream.uniform(1, i) < 0.3).collect();
        let of = |f: &dyn Fn(f64) -> f64| alone(&scores.iter().map(|&s| f(s)).collect::<Vec<_>>(), &present);
        let [plain, mirrored] = [of(&|s| s), of(&|s| -s)];
        assert!((mirrored.area.unwrap() - (1.0 - plain.area.unwrap())).abs() <= 1e-15);
        assert_relative_eq!(mirrored.se.unwrap(), plain.se.unwrap(), max_relative = 1e-14);
        assert_eq!(of(&|s| s * 3.0 + 1.0), plain);
    }

    #[test]
    fn a_variance_is_delongs_by_hand() {
        // shares of pairs won: .9: 1, .5: 3/4; .1: 1, .5: 3/4. Each kind has variance 1/32, of a mean of two 1/64.
        let found = alone(&[0.9, 0.1, 0.5, 0.5], &[true, false, true, false]);
        assert_eq!((found.area, found.se), (Some(0.875), Some((1.0f64 / 32.0).sqrt())));
        assert_eq!((found.positives, found.negatives, found.patients, found.lack), (2, 2, 4, None));
        // logit 1.9459, reach 1.96 x 0.17678 / 0.109375 = 3.1678
        let interval = found.interval.unwrap();
        assert!((interval.lo - 0.2276).abs() < 1e-4 && (interval.hi - 0.9940).abs() < 1e-4, "{interval:.5}");
    }

    #[test]
    fn delongs_own_example_has_the_areas_and_errors_that_sas_prints() {
        // the 43 patients of DeLong et al. 1988 without missing values, and what PROC LOGISTIC makes of them, as SAS/STAT's
        // documentation prints both ("Comparing Receiver Operating Characteristic Curves"): albumin, total protein, K-G score, outcome
        const DATA: &str =
            "3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1
            3.8 5.7 5 1 3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1
            4.2 7.6 4 0 4.0 6.6 6 0 3.5 5.8 6 1 3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1
            4.3 7.0 5 1 4.3 6.5 4 1 3.2 5.1 5 1 2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1
            3.5 6.2 5 1 2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1 3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1";
        let numbers: Vec<f64> = DATA.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let column = |k: usize| numbers.iter().skip(k).step_by(4).copied();
        let present: Vec<bool> = column(3).map(|outcome| outcome == 1.0).collect();
        assert_eq!(present.len(), 43);
        for (k, sign, area, se) in [(0, 1.0, 0.7366, 0.0927), (1, 1.0, 0.6478, 0.1000), (2, -1.0, 0.7258, 0.1028)] {
            let found = alone(&column(k).map(|s| sign * s).collect::<Vec<_>>(), &present);
            assert!((found.area.unwrap() - area).abs() <= 5e-5, "{k}: {found:?}");
            assert!((found.se.unwrap() - se).abs() <= 5e-5, "{k}: {found:?}");
        }
    }

    #[test]
    fn areas_variances_and_intervals_are_those_of_all_pairs_of_images() {
        for case in super::super::fixture::cases() {
            let found = auroc(&case.scores, &case.present, &case.patient, 0.95);
            assert_relative_eq!(found.area.unwrap(), case.area, max_relative = 1e-13);
            assert_relative_eq!(found.se.unwrap().powi(2), case.clustered, max_relative = 1e-12);
            let interval = found.interval.unwrap();
            assert_relative_eq!(interval.lo, case.lo, max_relative = 1e-12);
            assert_relative_eq!(interval.hi, case.hi, max_relative = 1e-12);
            // as if no image knew of another
            assert_relative_eq!(
                alone(&case.scores, &case.present).se.unwrap().powi(2),
                case.delong,
                max_relative = 1e-12
            );
        }
    }

    #[test]
    fn what_cannot_be_known_is_missing_and_says_why() {
        let (t, f) = (true, false);
        let lack = |found: &Auroc| (found.area, found.se, found.interval, found.lack);
        let none = |lack| (None, None, None, Some(lack));
        assert_eq!(lack(&alone(&[1.0, 2.0], &[t, t])), none(Lack::OneSided));
        assert_eq!(lack(&alone(&[], &[])), none(Lack::OneSided));
        assert_eq!(lack(&alone(&[1.0, f64::NAN, 2.0, 3.0], &[t, f, t, f])), none(Lack::Nan));
        let only = |area, lack| (Some(area), None, None, Some(lack));
        assert_eq!(lack(&alone(&[1.0, 2.0, 3.0], &[t, f, f])), only(0.0, Lack::FewPatients));
        // two images with it, of one patient
        let found = auroc(&[1.0, 2.0, 0.0, 3.0], &[t, t, f, f], &[0, 0, 1, 2], 0.95);
        assert_eq!(lack(&found), only(0.5, Lack::FewPatients));
        // all pairs won, or every score the same: no spread, and no certainty
        assert_eq!(lack(&alone(&[3.0, 4.0, 1.0, 2.0], &[t, t, f, f])), only(1.0, Lack::NoSpread));
        let tied = alone(&[0.1; 7], &[t, t, t, f, f, f, f]);
        assert_eq!(lack(&tied), only(0.5, Lack::NoSpread));
    }
}
