//! What a detector is worth against somebody who knows it: which images are tried, which band they are to stay in, and what came of
//! it, beside the plain attack of the same ball, steps and starts. Called by the command line, which has the device; the attack itself
//! is [`super::adversary`].
//!
//! The band is of the clean images to fit on, and the images that are tried are test images that the host gets right. The areas are
//! those of the report: clean test images against successful attacks, the declared direction (more says attacked).

use super::DetectError;
use super::adversary::Band;
use super::claim::DECLARED;
use super::features::Statistic;
use super::roc::gapless;
use super::split::{Side, Split};
use super::table::{Row, Table};
use crate::attack::{Attack, Steps};
use crate::causal::study::Input;
use crate::interval::{Interval, Share};
use crate::train::evaluation::auroc::auroc;
use serde::{Deserialize, Serialize};

/// Images that are tried at most.
pub const IMAGES_MAX: usize = 500;

/// So many images, their share and its Wilson interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// How many.
    pub count: usize,
    /// Of how many.
    pub of: usize,
    /// Their share; null of none.
    pub share: Option<f64>,
    /// Its interval.
    pub interval: Option<Interval>,
}

/// What an attack came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evasion {
    /// Images that the host answers otherwise than without the attack.
    pub misclassified: Counted,
    /// Images whose statistic lies in the band.
    pub inside: Counted,
    /// Both at once: the attack evades classifier and detector.
    pub both: Counted,
    /// Area of the statistic, misclassified images against clean test images.
    pub auroc: Option<f64>,
    /// Its interval.
    pub interval: Option<Interval>,
    /// Misclassified images whose statistic is a number.
    pub n_pos: usize,
    /// Clean test images.
    pub n_neg: usize,
}

/// The adaptive attack beside the plain one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adaptive {
    /// The plain attack; ball, steps and starts are both's.
    pub attack: String,
    /// The statistic that the detector looks at.
    pub statistic: Statistic,
    /// Where clean images have it.
    pub band: Band,
    /// Clean images that the band is of.
    pub band_images: usize,
    /// How the adversary finds its way.
    pub gradient: String,
    /// Of the adversary who knows the detector.
    pub adaptive: Evasion,
    /// Of the plain attack, on the same images.
    pub plain: Evasion,
    /// In words.
    pub words: String,
}

/// An adaptive attack to be made.
#[derive(Clone, Debug)]
pub struct Trial {
    input: usize,
    /// Steps and starts of the plain attack.
    pub budget: (Steps, u32),
    /// Where the statistic is to stay.
    pub band: Band,
    fitted: usize,
    /// Places in the table of the images that are tried.
    images: Vec<usize>,
}

impl Trial {
    /// One for each PGD of a table's inputs.
    ///
    /// # Errors
    /// [`DetectError::Statistic`] for a table of fewer than two nodes, [`DetectError::Nothing`] without a clean image to fit on.
    pub fn all(table: &Table, split: &Split) -> Result<Vec<Trial>, DetectError> {
        if !DECLARED.exists(table.nodes) {
            return Err(DetectError::Statistic { statistic: DECLARED.to_string(), nodes: table.nodes });
        }
        let on = |side| split.keep(table, table.chosen(0), side);
        let value = |i: usize| table.rows(0).get(i).and_then(|row| row.features.get(DECLARED));
        let clean: Vec<f64> = on(Side::Fit).into_iter().filter_map(value).collect();
        let fitted = clean.len();
        let nothing = DetectError::Nothing { what: "clean image that the host answers rightly", of: "a band" };
        let band = Band::of(clean).ok_or(nothing)?;
        let images: Vec<usize> = on(Side::Test).into_iter().take(IMAGES_MAX).collect();
        let pgd = |(input, of): (usize, &Input)| match of {
            Input::Attack(Attack::Pgd { steps, restarts }) => Some((input, (*steps, *restarts))),
            _ => None,
        };
        let trial = |(input, budget)| Trial { input, budget, band, fitted, images: images.clone() };
        Ok(table.inputs.iter().enumerate().filter_map(pgd).map(trial).collect())
    }

    /// Ids of the images that are tried.
    pub fn ids(&self, table: &Table) -> Vec<u64> {
        self.images.iter().filter_map(|&i| table.images.get(i)).map(|image| image.id).collect()
    }

    /// What came of it: `attacked` are the images after the attack, in the order of [`Trial::ids`]. Intervals of `level`.
    ///
    /// # Errors
    /// [`DetectError::Length`] unless there is one an image.
    pub fn judge(&self, attacked: &[Row], table: &Table, split: &Split, level: f64) -> Result<Adaptive, DetectError> {
        if attacked.len() != self.images.len() {
            let (expected, got) = (self.images.len(), attacked.len());
            return Err(DetectError::Length { what: "images after the attack", expected, got });
        }
        let evasion = |rows: &[&Row]| self.evasion(rows, table, split, level);
        let plain = table.rows(self.input);
        let plain: Vec<&Row> = self.images.iter().filter_map(|&i| plain.get(i)).collect();
        let (adaptive, plain) = (evasion(&attacked.iter().collect::<Vec<_>>()), evasion(&plain));
        let attack = table.labels().get(self.input).cloned().unwrap_or_default();
        let words = self.words(&attack, &adaptive, &plain);
        Ok(Adaptive {
            attack,
            statistic: DECLARED,
            band: self.band,
            band_images: self.fitted,
            gradient: "the statistic's own, through every intervention".into(),
            adaptive,
            plain,
            words,
        })
    }

    fn evasion(&self, rows: &[&Row], table: &Table, split: &Split, level: f64) -> Evasion {
        let statistic = |row: &Row| row.features.get(DECLARED).unwrap_or(f64::NAN);
        let wrong = |row: &Row| row.changed == Some(true);
        let inside = |row: &Row| self.band.contains(statistic(row));
        let counted = |which: &dyn Fn(&Row) -> bool| {
            let share = Share { count: rows.iter().filter(|row| which(row)).count(), of: rows.len() };
            Counted { count: share.count, of: share.of, share: share.value(), interval: share.wilson(level) }
        };
        let clean = split.keep(table, table.chosen(0), Side::Test);
        let clean = clean.iter().filter_map(|&i| Some((table.rows(0).get(i)?, i, false)));
        let found = self.images.iter().zip(rows).filter(|(_, row)| wrong(row)).map(|(&i, row)| (*row, i, true));
        let (mut scores, mut positive, mut units) = (Vec::new(), Vec::new(), Vec::new());
        for (row, i, attacked) in clean.chain(found) {
            let value = statistic(row);
            if let (true, Some(image)) = (value.is_finite(), table.images.get(i)) {
                scores.push(value);
                positive.push(attacked);
                units.push(split.number(image.unit));
            }
        }
        let roc = auroc(&scores, &positive, &gapless(&units), level);
        Evasion {
            misclassified: counted(&wrong),
            inside: counted(&inside),
            both: counted(&|row| wrong(row) && inside(row)),
            auroc: roc.area,
            interval: roc.interval,
            n_pos: roc.positives,
            n_neg: roc.negatives,
        }
    }

    /// The outcome in sentences.
    fn words(&self, attack: &str, adaptive: &Evasion, plain: &Evasion) -> String {
        let percent = |counted: &Counted| counted.share.map_or("-".into(), |share| format!("{:.1} %", 100.0 * share));
        let told = |e: &Evasion| {
            let interval = e.both.interval.map_or(String::new(), |i| {
                let Interval { lo, hi } = i;
                format!(" [{:.1}, {:.1}]", 100.0 * lo, 100.0 * hi)
            });
            let area = e.auroc.map_or("none".into(), |area| format!("{area:.3}"));
            let area_interval = e.interval.map_or(String::new(), |i| format!(" {i:.3}"));
            format!(
                "{} misclassified, {} inside the band, {}{interval} both; AUROC {area}{area_interval}",
                percent(&e.misclassified),
                percent(&e.inside),
                percent(&e.both),
            )
        };
        format!(
            "An adversary who knows {DECLARED} and follows its gradient to keep it where clean images have it ({:.2e} to {:.2e}), with \
             the ball, steps and starts of {attack}, {} images: {}. {attack} itself: {}.",
            self.band.lo,
            self.band.hi,
            self.images.len(),
            told(adaptive),
            told(plain),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Head;
    use crate::detect::fixture::{Planted, shards};

    /// A plain attack put in the adversary's place comes to the plain attack, and clean images to none.
    #[test]
    fn the_same_images_come_to_the_same() {
        let planted = Planted { images: 1500, ..Planted::default() };
        let table = Table::of(&shards(&planted, &[1500]), Head::Softmax, planted.classes, &[]).unwrap();
        let split = Split::of(&table, 0).unwrap();
        let trials = Trial::all(&table, &split).unwrap();
        assert_eq!(trials.len(), 1, "one PGD");
        let trial = &trials[0];
        assert_eq!(trial.ids(&table).len(), IMAGES_MAX);
        let on_test = |i: &usize| split.side(table.images[*i].unit) == Side::Test && table.counts(*i);
        assert!(trial.images.iter().all(on_test), "no image that the band is of");
        let rows = |input: usize| trial.images.iter().map(|&i| table.rows(input)[i].clone()).collect::<Vec<_>>();
        let same = trial.judge(&rows(trial.input), &table, &split, 0.95).unwrap();
        assert_eq!(same.adaptive, same.plain);
        assert!(same.plain.misclassified.count >= same.plain.both.count && same.plain.both.count > 0);
        assert_eq!(same.plain.n_pos, same.plain.misclassified.count);
        let clean = trial.judge(&rows(0), &table, &split, 0.95).unwrap();
        assert_eq!((clean.adaptive.misclassified.count, clean.adaptive.auroc), (0, None));
        // the band is of 90 % of other clean images: sd .016 for both samples
        assert!((clean.adaptive.inside.share.unwrap() - 0.9).abs() < 4.0 * 0.02, "{:?}", clean.adaptive.inside);
        assert!(clean.words.contains("0.0 % misclassified"), "{}", clean.words);
        assert!(matches!(trial.judge(&[], &table, &split, 0.95), Err(DetectError::Length { .. })));
    }
}
