//! A detector that was fitted: a rule, its direction and its cuts; saved and loaded as JSON. Called by [`super::report`], and by
//! whoever uses a saved one.
//!
//! - **Direction**: which way a statistic moves under attack. Fixed before any data were seen where there is a reason
//!   ([`Statistic::direction`]), else chosen on the fit images alone; the file says which.
//! - **Cuts**: at 1 and 5 % false alarms, from the clean images to fit on: the k-th smallest of their n scores, k = n + 1 -
//!   floor((n + 1) rate), and only a higher score is an alarm. Of a statistic that learnt nothing from those images another clean
//!   one exceeds it with a chance of at most the rate (split conformal prediction); fewer than 1 / rate - 1 images give none.
//!   A learnt rule knows the images that its cuts come from, so there the rate is only nominal; what it comes to on
//!   test images stands beside it in every report.

use super::features::{Features, Statistic};
use super::logistic::{self, Logistic};
use super::mahalanobis::{self, Mahalanobis};
use super::roc::RATES_PERCENT;
use super::split::{Record, Side, Split};
use super::table::{Purpose, Table};
use super::warnings::called;
use super::{DetectError, SCHEMA_VERSION};
use crate::atomic::write_atomic;
use crate::text::closest;
use crate::train::evaluation::auroc::area;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A file of a detector is not longer: a thousand nodes take 20 MB.
const FILE_BYTES_MAX: u64 = 1 << 28;

/// Which way a statistic moves under attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// More of it says attacked.
    More,
    /// Less of it.
    Less,
}

/// When a direction was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Settled {
    /// Before any data were seen.
    Before,
    /// On the images to fit on.
    Fit,
}

/// What to fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recipe {
    /// One statistic. The effect of a node takes its direction from an attack; nothing else learns from one.
    Single(Statistic),
    /// The effect of the node, and the direction, that part best on the fit images; the first of equals. From an attack.
    BestEce,
    /// Logistic regression on the effects of all nodes, from an attack.
    Logistic {
        /// Ridge penalty, above 0.
        penalty: f64,
    },
    /// Mahalanobis' distance of the effects of all nodes from those of clean images.
    Mahalanobis {
        /// Ridge on the covariance of standardised effects, above 0.
        ridge: f64,
    },
}

impl Recipe {
    /// [`Recipe::Logistic`] with scikit-learn's penalty.
    pub const LOGISTIC: Recipe = Recipe::Logistic { penalty: logistic::PENALTY };
    /// [`Recipe::Mahalanobis`] with a ridge of a thousandth.
    pub const MAHALANOBIS: Recipe = Recipe::Mahalanobis { ridge: mahalanobis::RIDGE };

    /// Its name in tables.
    pub fn name(self) -> String {
        match self {
            Recipe::Single(statistic) => statistic.to_string(),
            Recipe::BestEce => "ece-best".into(),
            Recipe::Logistic { .. } => "logistic".into(),
            Recipe::Mahalanobis { .. } => "mahalanobis".into(),
        }
    }

    /// Whether it learns from attacked images.
    pub fn learns_from_attacks(self) -> bool {
        match self {
            Recipe::Single(statistic) => statistic.direction().is_none(),
            Recipe::BestEce | Recipe::Logistic { .. } => true,
            Recipe::Mahalanobis { .. } => false,
        }
    }
}

/// What a detector is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The study's sets of nodes by name, in order.
    pub nodes: Vec<String>,
    /// Whatever tells one subject from another, by name: hashes of the host's and the autoencoder's weights, the tap.
    pub hashes: BTreeMap<String, String>,
}

/// How a detector makes a number of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "rule")]
pub enum Rule {
    /// One statistic.
    Single {
        /// Which.
        statistic: Statistic,
    },
    /// Log odds of an attack.
    Logistic(Logistic),
    /// Distance from clean images.
    Mahalanobis(Mahalanobis),
}

/// A score above which an image is said to be attacked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// Share of false alarms that it was chosen for, in percent.
    pub fpr_percent: u32,
    /// The score, as [`Detector::score`] has it; null where there were too few clean images.
    pub threshold: Option<f64>,
}

/// A fitted detector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detector {
    /// Version of the file's layout.
    pub schema_version: u32,
    /// Name of the recipe.
    pub name: String,
    /// The rule with its numbers.
    pub rule: Rule,
    /// Which way it moves.
    pub direction: Direction,
    /// When that was settled.
    pub direction_settled: Settled,
    /// Number of sets of nodes.
    pub node_count: usize,
    /// What it is for.
    pub subject: Subject,
    /// The attack that it learnt from.
    pub attack: Option<String>,
    /// Clean images that it was fitted on.
    pub fit_clean: usize,
    /// Attacked ones.
    pub fit_attacked: usize,
    /// Which images those were.
    pub split: Record,
    /// Its cuts, one a rate.
    pub cuts: [Cut; RATES_PERCENT.len()],
}

impl Detector {
    /// Fits a recipe on the fit images of a split; `attack` is the number of an input, which a recipe that learns from none ignores.
    ///
    /// # Errors
    /// [`DetectError::Statistic`] for one that the table lacks, [`DetectError::NoAttack`] and [`DetectError::Input`] without the
    /// attack that it learns from, [`DetectError::Nothing`] without clean images or successful attacks to fit on,
    /// [`DetectError::Length`] unless the subject names each set of nodes, and what [`Logistic::fit`] and [`Mahalanobis::fit`] say.
    pub fn fit(
        recipe: Recipe,
        attack: Option<usize>,
        table: &Table,
        split: &Split,
        subject: &Subject,
    ) -> Result<Detector, DetectError> {
        if subject.nodes.len() != table.nodes {
            let what = "names of sets of nodes";
            return Err(DetectError::Length { what, expected: table.nodes, got: subject.nodes.len() });
        }
        let attack = match (recipe.learns_from_attacks(), attack) {
            (false, _) => None,
            (true, None) => return Err(DetectError::NoAttack("this detector")),
            (true, Some(index)) => {
                let found = table.inputs.get(index).filter(|input| Purpose::of(input) == Purpose::Attack);
                found.ok_or(DetectError::Input { index, last: table.inputs.len().saturating_sub(1) })?;
                Some(index)
            }
        };
        let features = |input: usize| -> Vec<&Features> {
            let chosen = split.keep(table, table.chosen(input), Side::Fit);
            chosen.into_iter().filter_map(|i| table.rows(input).get(i).map(|row| &row.features)).collect()
        };
        let (clean, attacked) = (features(0), attack.map(features).unwrap_or_default());
        if clean.is_empty() {
            return Err(DetectError::Nothing { what: "clean image that the host answers rightly", of: "a detector" });
        }
        if attack.is_some() && attacked.is_empty() {
            return Err(DetectError::Nothing { what: "successful attack", of: "this detector" });
        }
        let vectors = |rows: &[&Features]| rows.iter().map(|f| f.ece.clone()).collect::<Vec<_>>();
        let settled = |statistic: Statistic| -> Result<(Rule, Direction, Settled), DetectError> {
            match statistic.direction() {
                Some(direction) => Ok((Rule::Single { statistic }, direction, Settled::Before)),
                None => {
                    let (area, _) = fitted_area(statistic, &clean, &attacked, table.nodes)?;
                    let direction = if area < 0.5 { Direction::Less } else { Direction::More };
                    Ok((Rule::Single { statistic }, direction, Settled::Fit))
                }
            }
        };
        let (rule, direction, direction_settled) = match recipe {
            Recipe::Single(statistic) => settled(statistic)?,
            Recipe::BestEce => {
                let mut best: Option<(f64, Statistic)> = None;
                for node in 0..table.nodes {
                    let (_, strength) = fitted_area(Statistic::Ece { node }, &clean, &attacked, table.nodes)?;
                    if best.is_none_or(|(most, _)| strength > most) {
                        best = Some((strength, Statistic::Ece { node }));
                    }
                }
                settled(best.map_or(Statistic::Ece { node: 0 }, |(_, statistic)| statistic))?
            }
            Recipe::Logistic { penalty } => {
                let (negatives, positives) = (vectors(&clean), vectors(&attacked));
                let rows: Vec<&[f64]> = negatives.iter().chain(&positives).map(Vec::as_slice).collect();
                let labels: Vec<bool> = (0..rows.len()).map(|i| i >= negatives.len()).collect();
                (Rule::Logistic(Logistic::fit(&rows, &labels, penalty)?), Direction::More, Settled::Before)
            }
            Recipe::Mahalanobis { ridge } => {
                let rows = vectors(&clean);
                let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
                (Rule::Mahalanobis(Mahalanobis::fit(&rows, ridge)?), Direction::More, Settled::Before)
            }
        };
        if let Rule::Single { statistic } = &rule
            && !statistic.exists(table.nodes)
        {
            return Err(DetectError::Statistic { statistic: statistic.to_string(), nodes: table.nodes });
        }
        let labels = table.labels();
        let mut detector = Detector {
            schema_version: SCHEMA_VERSION,
            name: recipe.name(),
            rule,
            direction,
            direction_settled,
            node_count: table.nodes,
            subject: subject.clone(),
            attack: attack.and_then(|index| labels.get(index).cloned()),
            fit_clean: clean.len(),
            fit_attacked: attacked.len(),
            split: split.record(table),
            cuts: RATES_PERCENT.map(|fpr_percent| Cut { fpr_percent, threshold: None }),
        };
        let mut scores: Vec<f64> = clean.iter().map(|features| detector.score(features)).collect();
        scores.sort_unstable_by(f64::total_cmp);
        detector.cuts.iter_mut().for_each(|cut| cut.threshold = conformal(&scores, cut.fpr_percent));
        Ok(detector)
    }

    /// An image's number: the higher, the more it looks attacked. NaN for features of another number of nodes.
    pub fn score(&self, features: &Features) -> f64 {
        let value = match &self.rule {
            _ if features.ece.len() != self.node_count => f64::NAN,
            Rule::Single { statistic } => features.get(*statistic).unwrap_or(f64::NAN),
            Rule::Logistic(logistic) => logistic.score(&features.ece),
            Rule::Mahalanobis(distance) => distance.score(&features.ece),
        };
        match self.direction {
            Direction::More => value,
            Direction::Less => -value,
        }
    }

    /// The statistic of a detector that is one.
    pub fn statistic(&self) -> Option<Statistic> {
        match self.rule {
            Rule::Single { statistic } => Some(statistic),
            Rule::Logistic(_) | Rule::Mahalanobis(_) => None,
        }
    }

    /// Writes it to `path`.
    ///
    /// # Errors
    /// [`DetectError::Write`] with the path.
    pub fn save(&self, path: &Path) -> Result<(), DetectError> {
        Ok(write_atomic(path, |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        })?)
    }

    /// Reads one: the only one of a file that [`Detector::save`] wrote, or of those in a study's `detector.json` the one that is called
    /// `name`, as tables have it: `effect-std`, `logistic of pgd 0.3`.
    ///
    /// # Errors
    /// [`DetectError::Read`] and [`DetectError::Invalid`] for a file that cannot be read or says what cannot be,
    /// [`DetectError::Unknown`] where none has that name.
    pub fn read(path: &Path, name: &str) -> Result<Detector, DetectError> {
        let invalid = |reason: String| DetectError::Invalid { path: path.to_owned(), reason };
        let read = |reason| DetectError::Read { path: path.to_owned(), reason };
        let length = fs::metadata(path).map_err(read)?.len();
        if length > FILE_BYTES_MAX {
            return Err(invalid(format!("{length} bytes are too many for a detector")));
        }
        let text = fs::read_to_string(path).map_err(read)?;
        let none = |e: serde_json::Error| invalid(format!("this is no detector: {e}"));
        let mut file: Value = serde_json::from_str(&text).map_err(none)?;
        let all: Vec<Detector> = match file.get_mut("detectors") {
            Some(several) => serde_json::from_value(several.take()).map_err(none)?,
            None => vec![serde_json::from_value(file).map_err(none)?],
        };
        let names: Vec<String> = all.iter().map(Detector::called).collect();
        if names.is_empty() {
            return Err(invalid("it holds no detector".into()));
        }
        let Some((detector, _)) = all.into_iter().zip(&names).find(|(_, known)| *known == name) else {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let nearest = closest(name, &names).to_owned();
            return Err(DetectError::Unknown { name: name.to_owned(), path: path.to_owned(), nearest });
        };
        detector.check().map_err(invalid)?;
        Ok(detector)
    }

    /// Its name, with the attack that it learnt from where it did.
    pub fn called(&self) -> String {
        called(&self.name, self.attack.as_deref())
    }

    /// Whether it was fitted for this subject.
    ///
    /// # Errors
    /// [`DetectError::Subject`] for another: its numbers mean nothing here.
    pub fn fits(&self, subject: &Subject) -> Result<(), DetectError> {
        let fitted = &self.subject;
        let known = |hashes: &BTreeMap<String, String>, name: &String| {
            hashes.get(name).cloned().unwrap_or_else(|| "none".into())
        };
        for name in fitted.hashes.keys().chain(subject.hashes.keys()) {
            let (fitted, here) = (known(&fitted.hashes, name), known(&subject.hashes, name));
            if fitted != here {
                return Err(DetectError::Subject { what: name.clone(), fitted, here });
            }
        }
        if fitted.nodes != subject.nodes {
            let [fitted, here] = [&fitted.nodes, &subject.nodes].map(|nodes| nodes.join(" "));
            return Err(DetectError::Subject { what: "nodes".into(), fitted, here });
        }
        Ok(())
    }

    /// The score above which an image is flagged with `fpr_percent` false alarms in a hundred; none where there were too few clean
    /// images, or for another rate.
    pub fn threshold(&self, fpr_percent: u32) -> Option<f64> {
        self.cuts.iter().find(|cut| cut.fpr_percent == fpr_percent).and_then(|cut| cut.threshold)
    }

    /// Whether a file's numbers are those of a detector.
    fn check(&self) -> Result<(), String> {
        let width = self.node_count;
        if self.schema_version != SCHEMA_VERSION {
            return Err(format!("schema_version is {}, this program reads {SCHEMA_VERSION}", self.schema_version));
        }
        if self.subject.nodes.len() != width {
            return Err(format!("it names {} nodes and says that there are {width}", self.subject.nodes.len()));
        }
        let valid = match &self.rule {
            Rule::Single { statistic } => statistic.exists(width),
            Rule::Logistic(logistic) => logistic.is_valid(width),
            Rule::Mahalanobis(distance) => distance.is_valid(width),
        };
        let rates = self.cuts.iter().map(|cut| cut.fpr_percent).eq(RATES_PERCENT);
        if valid && rates { Ok(()) } else { Err(format!("its numbers are not those of {width} nodes")) }
    }
}

/// The area of a statistic on the fit images, and how far it is from saying nothing.
fn fitted_area(
    statistic: Statistic,
    clean: &[&Features],
    attacked: &[&Features],
    nodes: usize,
) -> Result<(f64, f64), DetectError> {
    let missing = || DetectError::Statistic { statistic: statistic.to_string(), nodes };
    let rows = clean.iter().chain(attacked);
    let scores: Vec<f64> = rows.map(|f| f.get(statistic).ok_or_else(missing)).collect::<Result<_, _>>()?;
    let present: Vec<bool> = (0..scores.len()).map(|i| i >= clean.len()).collect();
    let area = area(&scores, &present).unwrap_or(0.5);
    Ok((area, (area - 0.5).abs()))
}

/// The cut of ascending clean scores that another clean image exceeds with a chance of at most `percent` in a hundred.
fn conformal(ascending: &[f64], percent: u32) -> Option<f64> {
    let places = ascending.len() + 1;
    let allowed = places * percent as usize / 100;
    // allowed = 1: the largest of all
    ascending.len().checked_sub(allowed).filter(|_| allowed > 0).and_then(|k| ascending.get(k)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Head;
    use crate::attack::{Attack, Norm};
    use crate::causal::study::Input;
    use crate::detect::fixture::{Planted, shards};
    use crate::random::Stream;

    fn subject() -> Subject {
        let hashes = [("host", "aa"), ("autoencoder", "bb")].map(|(k, v)| (k.to_string(), v.to_string()));
        Subject { nodes: (0..5).map(|k| k.to_string()).collect(), hashes: hashes.into() }
    }

    fn study() -> (Table, Split) {
        let planted = Planted { images: 600, ..Planted::default() };
        let table = Table::of(&shards(&planted, &[600]), Head::Softmax, planted.classes, &[]).unwrap();
        let split = Split::of(&table, 0).unwrap();
        (table, split)
    }

    #[test]
    fn a_cut_is_exceeded_by_at_most_its_share_of_new_images() {
        let scores: Vec<f64> = (1..=99).map(f64::from).collect();
        assert_eq!(conformal(&scores, 1), Some(99.0));
        assert_eq!(conformal(&scores, 5), Some(95.0));
        assert_eq!(conformal(&scores[..98], 1), None, "of 99 places none may be exceeded");
        assert_eq!(conformal(&scores[..19], 5), Some(19.0));
        assert_eq!((conformal(&[], 5), conformal(&scores[..18], 5)), (None, None));
        // by chance: of 39 clean images a cut at 5 % is the 38th, exceeded by 2 in 40
        let stream = Stream::new(0, "cut");
        let (mut above, repeats) = (0u32, 20_000);
        for r in 0..repeats {
            let mut scores: Vec<f64> = (0..39).map(|i| f64::from(stream.uniform(r, i))).collect();
            scores.sort_unstable_by(f64::total_cmp);
            above += u32::from(f64::from(stream.uniform(r, 39)) > conformal(&scores, 5).unwrap());
        }
        let share = f64::from(above) / repeats as f64;
        // standard error .0015, four of them
        assert!((share - 0.05).abs() <= 0.0062, "{share}");
    }

    #[test]
    fn directions_are_as_declared_or_those_of_the_fit_images() {
        let (table, split) = study();
        let fit = |recipe, attack| Detector::fit(recipe, attack, &table, &split, &subject());
        let std = fit(Recipe::Single(Statistic::EffectStd), Some(2)).unwrap();
        assert_eq!((std.direction, std.direction_settled, &std.attack), (Direction::More, Settled::Before, &None));
        // effects are losses, so an attack that pulls nodes apart makes them more negative; dead nodes say nothing
        let best = fit(Recipe::BestEce, Some(1)).unwrap();
        assert_eq!(best.statistic(), Some(Statistic::Ece { node: 0 }));
        assert_eq!((best.direction, best.direction_settled), (Direction::Less, Settled::Fit));
        assert_eq!(best.attack.as_deref(), Some("fgsm 0.3"));
        assert!(best.fit_clean > 250 && best.fit_attacked > 200 && best.split.fit_images == 300);
        let dead = fit(Recipe::Single(Statistic::Ece { node: 1 }), Some(1)).unwrap();
        assert_eq!(dead.direction, Direction::More);
    }

    #[test]
    fn what_cannot_be_fitted_says_so() {
        let (table, split) = study();
        let fit = |recipe, attack| Detector::fit(recipe, attack, &table, &split, &subject());
        assert!(matches!(fit(Recipe::LOGISTIC, None), Err(DetectError::NoAttack(_))));
        // the clean input, a control, and one that there is not
        for index in [0, 3, 9] {
            assert!(matches!(fit(Recipe::BestEce, Some(index)), Err(DetectError::Input { last: 4, .. })));
        }
        let node = Recipe::Single(Statistic::Ece { node: 5 });
        assert!(matches!(fit(node, Some(1)), Err(DetectError::Statistic { .. })));
        let nodes = Subject { nodes: vec!["0".into()], ..subject() };
        let short = Detector::fit(Recipe::MAHALANOBIS, None, &table, &split, &nodes);
        assert!(matches!(short, Err(DetectError::Length { .. })));
        // an attack that never succeeds
        let mut planted = Planted { images: 60, ..Planted::default() };
        planted.shifts[0].success = 0.0;
        let table = Table::of(&shards(&planted, &[60]), Head::Softmax, planted.classes, &[]).unwrap();
        assert_eq!(table.inputs[1], Input::Attack(Attack::Fgsm { eps: 0.3, norm: Norm::Linf }));
        let split = Split::of(&table, 0).unwrap();
        let none = Detector::fit(Recipe::LOGISTIC, Some(1), &table, &split, &subject());
        assert!(matches!(none, Err(DetectError::Nothing { .. })));
    }

    #[test]
    fn a_saved_detector_scores_the_same_bits_and_only_its_own_subject() {
        let (table, split) = study();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("detector.json");
        let recipes = [Recipe::Single(Statistic::Kl), Recipe::BestEce, Recipe::LOGISTIC, Recipe::MAHALANOBIS];
        for recipe in recipes {
            let detector = Detector::fit(recipe, Some(1), &table, &split, &subject()).unwrap();
            detector.save(&path).unwrap();
            let bytes = fs::read(&path).unwrap();
            let loaded = Detector::read(&path, &detector.called()).unwrap();
            assert_eq!(loaded, detector);
            loaded.fits(&subject()).unwrap();
            for row in table.rows(1) {
                assert_eq!(loaded.score(&row.features).to_bits(), detector.score(&row.features).to_bits());
            }
            loaded.save(&path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        let loaded = Detector::read(&path, "mahalanobis").unwrap();
        let with = |change: &dyn Fn(&mut Subject)| {
            let mut other = subject();
            change(&mut other);
            match loaded.fits(&other) {
                Err(DetectError::Subject { what, .. }) => what,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(with(&|s| _ = s.hashes.insert("host".into(), "cc".into())), "host");
        assert_eq!(with(&|s| _ = s.hashes.remove("autoencoder")), "autoencoder");
        assert_eq!(with(&|s| _ = s.hashes.insert("tap".into(), "2".into())), "tap");
        assert_eq!(with(&|s| s.nodes[4] = "7".into()), "nodes");
    }

    #[test]
    fn of_a_studys_detectors_one_is_named_as_tables_name_it() {
        let (table, split) = study();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("detector.json");
        let fit = |recipe, attack| Detector::fit(recipe, Some(attack), &table, &split, &subject()).unwrap();
        let all = [fit(Recipe::LOGISTIC, 1), fit(Recipe::LOGISTIC, 2), fit(Recipe::Single(Statistic::Kl), 1)];
        fs::write(&path, serde_json::json!({ "claim": {}, "detectors": all }).to_string()).unwrap();
        for detector in &all {
            assert_eq!(Detector::read(&path, &detector.called()).unwrap(), *detector);
        }
        assert_eq!(all[1].called(), "logistic of pgd 0.3");
        assert!(all[1].threshold(5).is_some() && all[1].threshold(2).is_none());
        match Detector::read(&path, "logistic of fgms 0.3") {
            Err(DetectError::Unknown { nearest, .. }) => assert_eq!(nearest, "logistic of fgsm 0.3"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_that_says_what_cannot_be_is_refused() {
        let (table, split) = study();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("detector.json");
        let read = || Detector::read(&path, "mahalanobis");
        assert!(matches!(read(), Err(DetectError::Read { .. })));
        let detector = Detector::fit(Recipe::MAHALANOBIS, None, &table, &split, &subject()).unwrap();
        let whole = serde_json::to_value(&detector).unwrap();
        let refused = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut value = whole.clone();
            change(&mut value);
            fs::write(&path, value.to_string()).unwrap();
            matches!(read(), Err(DetectError::Invalid { .. }))
        };
        assert!(!refused(&|_| {}));
        assert!(refused(&|v| v["schema_version"] = 2.into()));
        assert!(refused(&|v| v["node_count"] = 4.into()));
        assert!(refused(&|v| v["rule"]["standard"]["scales"][0] = 0.into()));
        assert!(refused(&|v| v["rule"]["factor"][1] = serde_json::json!([1.0])));
        assert!(refused(&|v| v["rule"]["standard"]["means"][0] = serde_json::Value::Null));
        assert!(refused(&|v| v["cuts"][0]["fpr_percent"] = 2.into()));
        for text in ["{", "{}", r#"{"detectors": []}"#] {
            fs::write(&path, text).unwrap();
            assert!(matches!(read(), Err(DetectError::Invalid { .. })), "{text}");
        }
    }
}
