//! Every fitted detector on the test images of every attack: what is learnt from one, met by the others, and the worst of them;
//! and how often it cries wolf on clean, masked and noisy images. Called by [`super::report`].

use super::detector::Detector;
use super::features::Statistic;
use super::roc::{RATES_PERCENT, Sample, gapless};
use super::split::{Side, Split};
use super::table::{Purpose, Table};
use crate::interval::{Interval, Share};
use crate::train::evaluation::auroc::{Auroc, auroc};
use serde::{Deserialize, Serialize};

/// With fewer images of either kind nothing is judged.
pub const JUDGED_MIN: usize = 30;

/// Images that a cut flags. The cut is that of the fit images, and the counted are others: Wilson's interval takes them for
/// independent, which several images of one patient are not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flagged {
    /// Share of false alarms that the cut was chosen for, in percent.
    pub fpr_percent: u32,
    /// How many; null without a cut.
    pub count: Option<usize>,
    /// Of how many.
    pub of: usize,
    /// Their share.
    pub share: Option<f64>,
    /// Its Wilson interval.
    pub interval: Option<Interval>,
}

/// A detector on one input's test images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The input.
    pub input: String,
    /// Whether it is one to find.
    pub purpose: Purpose,
    /// Area, its images against the clean ones.
    pub auroc: Option<f64>,
    /// Its interval.
    pub interval: Option<Interval>,
    /// Attacked images, or those of a control.
    pub n_pos: usize,
    /// Clean images.
    pub n_neg: usize,
    /// Of the attacked ones, those that its cuts find.
    pub found: [Flagged; RATES_PERCENT.len()],
}

impl Cell {
    /// Whether there are enough images of both kinds to judge by.
    pub fn judged(&self) -> bool {
        self.n_pos >= JUDGED_MIN && self.n_neg >= JUDGED_MIN
    }
}

/// The attack that a detector is worst at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// The attack.
    pub input: String,
    /// Its area.
    pub auroc: f64,
}

/// A detector on everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The detector.
    pub detector: String,
    /// The attack that it learnt from, where it learns from any.
    pub attack: Option<String>,
    /// Every input but the clean one, in order.
    pub cells: Vec<Cell>,
    /// The worst of the attacks that can be judged.
    pub worst: Option<Worst>,
}

/// How often a detector cries wolf.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FalseAlarms {
    /// The detector.
    pub detector: String,
    /// The attack that it learnt from.
    pub attack: Option<String>,
    /// Clean images, or a control.
    pub input: String,
    /// At each of its cuts.
    pub at: [Flagged; RATES_PERCENT.len()],
}

/// The test images of an input (positives) and the clean ones (negatives) with a detector's scores; units are numbered among the
/// test side's.
pub fn sample(detector: &Detector, table: &Table, split: &Split, input: usize) -> Sample {
    let mut sample = Sample::default();
    for (input, positive) in [(0, false), (input, true)] {
        for i in split.keep(table, table.chosen(input), Side::Test) {
            let (Some(row), Some(image)) = (table.rows(input).get(i), table.images.get(i)) else { continue };
            sample.scores.push(detector.score(&row.features));
            sample.positive.push(positive);
            sample.units.push(split.number(image.unit));
            sample.confidence.push(row.features.get(Statistic::MaxP).unwrap_or(f64::NAN));
        }
    }
    sample
}

/// Those of `scores` that each cut of the detector flags.
fn flagged(
    detector: &Detector,
    scores: impl Iterator<Item = f64> + Clone,
    level: f64,
) -> [Flagged; RATES_PERCENT.len()] {
    detector.cuts.map(|cut| {
        let of = scores.clone().count();
        let count = cut.threshold.map(|threshold| scores.clone().filter(|score| *score > threshold).count());
        let share = count.map(|count| Share { count, of });
        Flagged {
            fpr_percent: cut.fpr_percent,
            count,
            of,
            share: share.and_then(Share::value),
            interval: share.and_then(|share| share.wilson(level)),
        }
    })
}

/// A detector's line, and its false alarms; intervals of `level`.
pub fn line(detector: &Detector, table: &Table, split: &Split, level: f64) -> (Line, Vec<FalseAlarms>) {
    let labels = table.labels();
    let (mut cells, mut alarms) = (Vec::new(), Vec::new());
    for (input, label) in labels.iter().enumerate() {
        let purpose = table.inputs.get(input).map_or(Purpose::Clean, Purpose::of);
        let sample = sample(detector, table, split, input);
        let positives = || sample.scores.iter().zip(&sample.positive).filter(|(_, positive)| **positive);
        let found = flagged(detector, positives().map(|(score, _)| *score), level);
        if purpose != Purpose::Attack {
            let (name, attack) = (detector.name.clone(), detector.attack.clone());
            alarms.push(FalseAlarms { detector: name, attack, input: label.clone(), at: found });
        }
        if purpose != Purpose::Clean {
            let Auroc { area, interval, positives: n_pos, negatives: n_neg, .. } =
                auroc(&sample.scores, &sample.positive, &gapless(&sample.units), level);
            cells.push(Cell { input: label.clone(), purpose, auroc: area, interval, n_pos, n_neg, found });
        }
    }
    let judged = cells.iter().filter(|cell| cell.purpose == Purpose::Attack && cell.judged());
    let areas = judged.filter_map(|cell| cell.auroc.map(|auroc| Worst { input: cell.input.clone(), auroc }));
    let worst = areas.reduce(|worst, next| if next.auroc < worst.auroc { next } else { worst });
    (Line { detector: detector.name.clone(), attack: detector.attack.clone(), cells, worst }, alarms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Head;
    use crate::detect::Recipe;
    use crate::detect::detector::Subject;
    use crate::detect::fixture::{Planted, normal_area, shards};

    fn lines(images: usize, recipe: Recipe, attack: Option<usize>) -> (Line, Vec<FalseAlarms>, Detector) {
        let planted = Planted { images, ..Planted::default() };
        let table = Table::of(&shards(&planted, &[images]), Head::Softmax, planted.classes, &[]).unwrap();
        let split = Split::of(&table, 0).unwrap();
        let subject = Subject { nodes: (0..5).map(|k| k.to_string()).collect(), ..Subject::default() };
        let detector = Detector::fit(recipe, attack, &table, &split, &subject).unwrap();
        let (line, alarms) = line(&detector, &table, &split, 0.95);
        (line, alarms, detector)
    }

    #[test]
    fn a_planted_shift_has_the_area_of_its_closed_form_and_the_worst_attack_is_the_worst() {
        for (recipe, attack, shifts) in [
            (Recipe::Single(Statistic::EffectStd), None, [1.5, 1.0, 0.0, 0.0]),
            (Recipe::BestEce, Some(1), [1.5, 1.0, 0.0, 0.0]),
            // the second attack makes the host surer, so doubt is upside down there
            (Recipe::Single(Statistic::MaxP), None, [0.5, -1.5, 1.5, 0.0]),
            (Recipe::Single(Statistic::Entropy), None, [0.5, -1.5, 1.5, 0.0]),
        ] {
            let (line, ..) = lines(4000, recipe, attack);
            for (cell, shift) in line.cells.iter().zip(shifts) {
                let (got, want) = (cell.auroc.unwrap(), normal_area(shift));
                // sd of an area of 1,700 and as many pairs below .0100
                assert!((got - want).abs() <= 4.0 * 0.01, "{} {}: {got} not {want}", line.detector, cell.input);
                assert!(cell.judged());
            }
            let worst = line.worst.unwrap();
            assert_eq!(worst.input, "pgd 0.3");
            assert_eq!(worst.auroc, line.cells[1].auroc.unwrap());
        }
    }

    #[test]
    fn what_is_learnt_of_effects_carries_over_where_effects_move() {
        let (logistic, ..) = lines(4000, Recipe::LOGISTIC, Some(1));
        assert_eq!((logistic.attack.as_deref(), logistic.detector.as_str()), (Some("fgsm 0.3"), "logistic"));
        assert!(logistic.cells[0].auroc.unwrap() > 0.83 && logistic.cells[1].auroc.unwrap() > 0.73);
        assert!((logistic.cells[2].auroc.unwrap() - 0.5).abs() < 0.04, "noise moves no effect");
        // a distance does not know which way; still farther is farther
        let (distance, ..) = lines(4000, Recipe::MAHALANOBIS, None);
        assert!(distance.attack.is_none() && distance.cells[0].auroc.unwrap() > 0.65);
    }

    #[test]
    fn false_alarms_are_what_was_promised_on_clean_images_and_counted_on_controls() {
        let (_, alarms, detector) = lines(4000, Recipe::Single(Statistic::MaxP), None);
        let inputs: Vec<&str> = alarms.iter().map(|a| a.input.as_str()).collect();
        assert_eq!(inputs, ["clean", "noise 0.3", "pwm"]);
        let [one, five] = alarms[0].at;
        assert_eq!((one.fpr_percent, five.fpr_percent, one.of), (1, 5, five.of));
        // of 1,900 images for the cut and as many for the count: sd .0032 and .0071
        assert!((one.share.unwrap() - 0.01).abs() <= 4.0 * 0.0033, "{one:?}");
        assert!((five.share.unwrap() - 0.05).abs() <= 4.0 * 0.0072, "{five:?}");
        // noise makes the host doubt by 1.5 standard deviations, and the cut is at 1.645: the chance of more than .145 is .442
        let noise = alarms[1].at[1];
        assert!((noise.share.unwrap() - 0.442).abs() < 0.08, "{noise:?}");
        assert!(noise.interval.unwrap().lo < noise.share.unwrap());
        assert!(detector.cuts[0].threshold > detector.cuts[1].threshold);
        // too few clean images for a cut at 1 %
        let (line, alarms, _) = lines(100, Recipe::Single(Statistic::MaxP), None);
        assert_eq!((alarms[0].at[0].count, alarms[0].at[0].share, alarms[0].at[0].interval), (None, None, None));
        assert!(alarms[0].at[1].count.is_some() && line.cells[0].found[0].count.is_none());
    }
}
