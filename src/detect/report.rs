//! Everything that is said of detectors on one study, as one value: `detector.json`. Called by the command line with a table;
//! its `Display` is for a terminal.
//!
//! Statistics whose direction was fixed before, and Mahalanobis' distance, are fitted once; the effect of each node, the best of
//! them and the logistic regression once an attack. All are judged on the test images alone, with one bootstrap over their
//! units for all, so that any two are compared pair by pair.

use super::adaptive::Adaptive;
use super::claim::{Claim, claim};
use super::detector::{Detector, Direction, Recipe, Settled, Subject};
use super::features::{Family, Statistic};
use super::matrix::{self, FalseAlarms, JUDGED_MIN, Line, sample};
use super::roc::{Resampled, Roc};
use super::split::{Record, Side, Split};
use super::table::{Purpose, Table};
use super::{DetectError, SCHEMA_VERSION, warnings};
use crate::causal::statistics::Bootstrap;
use crate::causal::study::Input;
use crate::interval::Interval;
use serde::{Deserialize, Serialize};

/// How to judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What is judged: names of the sets of nodes, hashes.
    pub subject: Subject,
    /// Of the split and of resamples.
    pub seed: u64,
    /// Resamples of the test units.
    pub resamples: usize,
    /// Level of every interval.
    pub level: f64,
    /// Ridge penalty of the logistic regression.
    pub penalty: f64,
    /// Ridge on the covariance of Mahalanobis' distance.
    pub ridge: f64,
}

impl Plan {
    /// Of a subject, with seed 0, 1,000 resamples, 95 % intervals and the usual ridges.
    pub fn new(subject: Subject) -> Plan {
        let (penalty, ridge) = (super::logistic::PENALTY, super::mahalanobis::RIDGE);
        Plan { subject, seed: 0, resamples: 1000, level: 0.95, penalty, ridge }
    }
}

/// An input of the study and its images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputRow {
    /// Its name here.
    pub name: String,
    /// Its parameters.
    pub parameters: Input,
    /// What it is to a detector.
    pub purpose: Purpose,
    /// Images whose answer it changes, of those of the protocol.
    pub changed: usize,
    /// Its images to fit on.
    pub fit: usize,
    /// Its images that judge.
    pub test: usize,
    /// Images left out, because a number of theirs is none.
    pub not_numbers: usize,
}

/// How many images there are, and of what kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Images {
    /// All.
    pub all: usize,
    /// Patients, or images where none is known.
    pub units: usize,
    /// That the host answers rightly when nothing is done to them.
    pub right: usize,
    /// That it answers wrongly: no part of the protocol.
    pub wrong: usize,
    /// Of which nobody knows; taken as right.
    pub unknown: usize,
}

/// A statistic or learnt detector on an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatisticRow {
    /// Its name: a statistic's, `ece-best`, `logistic`, `mahalanobis`.
    pub statistic: String,
    /// The one statistic that it looks at, where it is one.
    pub looks_at: Option<Statistic>,
    /// Whether it takes interventions.
    pub family: Family,
    /// Which way it moves under attack.
    pub direction: Direction,
    /// When that was settled.
    pub direction_settled: Settled,
    /// The input; what learns from an attack learnt from this one, on other images.
    pub input: String,
    /// Whether that is one to find.
    pub purpose: Purpose,
    /// Whether there are enough images of both kinds to judge by: at least 30.
    pub judged: bool,
    /// How well it parts that input's images from clean ones. The curves of single nodes' effects are left out.
    #[serde(flatten)]
    pub roc: Roc,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectorReport {
    /// Version of this layout.
    pub schema_version: u32,
    /// What was judged.
    pub subject: Subject,
    /// Level of every interval.
    pub level: f64,
    /// Resamples of every bootstrap interval.
    pub resamples: usize,
    /// Seed.
    pub seed: u64,
    /// Images.
    pub images: Images,
    /// Which fit and which test.
    pub split: Record,
    /// Inputs, the clean one first.
    pub inputs: Vec<InputRow>,
    /// Every statistic and learnt detector on every input that it can be judged on.
    pub statistics: Vec<StatisticRow>,
    /// Detectors as they were fitted.
    pub detectors: Vec<Detector>,
    /// Each of them on every input.
    pub matrix: Vec<Line>,
    /// Each of them on images without an adversary.
    pub false_alarms: Vec<FalseAlarms>,
    /// Claim (d).
    pub claim: Claim,
    /// What an adversary who knows the declared statistic can do, where that was asked for: one a PGD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adaptive: Vec<Adaptive>,
    /// What the reader should know before believing a number.
    pub warnings: Vec<String>,
}

/// A row with its resamples, for pairs.
pub(super) struct Judged {
    pub(super) row: StatisticRow,
    pub(super) resampled: Resampled,
}

impl Judged {
    /// This one's area less another's on the same input, and the interval of the difference.
    pub(super) fn less(&self, other: &Judged, level: f64) -> (Option<f64>, Option<Interval>) {
        let difference = self.row.roc.auroc.zip(other.row.roc.auroc).map(|(a, b)| a - b);
        let pairs = self.resampled.area.iter().zip(&other.resampled.area);
        let values: Vec<f64> = pairs.map(|(a, b)| a - b).collect();
        (difference, Interval::percentile(&values, level))
    }
}

impl DetectorReport {
    /// Of a study's table.
    ///
    /// # Errors
    /// [`DetectError::Few`] where images cannot be parted, [`DetectError::Nothing`] without a clean image to fit on, and for a
    /// plan that cannot be: [`DetectError::Length`] unless it names each set of nodes, [`DetectError::Range`] and
    /// [`DetectError::Causal`] for its numbers. An attack that nothing can be learnt from is a warning.
    pub fn of(table: &Table, plan: &Plan) -> Result<DetectorReport, DetectError> {
        let split = Split::of(table, plan.seed)?;
        let bootstrap = Bootstrap::new(split.units(Side::Test), plan.resamples, plan.seed)?;
        let labels = table.labels();
        let mut said = warnings::of_images(table);
        let (detectors, nodes) = fitted(table, &split, plan, &labels, &mut said)?;
        let judge = |detector: &Detector, input: usize| judged(detector, table, &split, input, &bootstrap, plan.level);
        let mut all = Vec::new();
        for (input, label) in labels.iter().enumerate().skip(1) {
            for detector in detectors.iter().chain(&nodes) {
                if detector.attack.as_ref().is_none_or(|attack| attack == label) {
                    all.push(judge(detector, input)?);
                }
            }
        }
        let lines = detectors.iter().map(|detector| matrix::line(detector, table, &split, plan.level));
        let (lines, alarms): (Vec<Line>, Vec<Vec<FalseAlarms>>) = lines.unzip();
        let alarms: Vec<FalseAlarms> = alarms.into_iter().flatten().collect();
        said.extend(warnings::few(&all));
        said.extend(warnings::alarmed(&alarms));
        said.extend(warnings::inverted(&lines));
        said.extend(warnings::noisy(&lines, table, &labels));
        said.extend(warnings::beaten(&all, plan.level));
        let count = |right: Option<bool>| table.images.iter().filter(|image| image.right == right).count();
        let input = |(k, name): (usize, &String)| {
            let chosen = table.chosen(k);
            let changed = (0..table.images.len()).filter(|i| table.counts(*i));
            let changed =
                changed.filter(|i| table.rows(k).get(*i).is_some_and(|row| row.changed == Some(true))).count();
            let parameters = table.inputs.get(k).copied().unwrap_or(Input::None);
            InputRow {
                name: name.clone(),
                purpose: Purpose::of(&parameters),
                parameters,
                changed,
                fit: split.keep(table, chosen.clone(), Side::Fit).len(),
                test: split.keep(table, chosen, Side::Test).len(),
                not_numbers: table.not_numbers(k),
            }
        };
        Ok(DetectorReport {
            schema_version: SCHEMA_VERSION,
            subject: plan.subject.clone(),
            level: plan.level,
            resamples: plan.resamples,
            seed: plan.seed,
            images: Images {
                all: table.images.len(),
                units: table.units.len(),
                right: count(Some(true)),
                wrong: count(Some(false)),
                unknown: count(None),
            },
            split: split.record(table),
            inputs: labels.iter().enumerate().map(input).collect(),
            claim: claim(&all, &labels, plan.level),
            adaptive: Vec::new(),
            statistics: all.into_iter().map(|judged| judged.row).collect(),
            detectors,
            matrix: lines,
            false_alarms: alarms,
            warnings: said,
        })
    }
}

/// The detectors of the matrix, and beside them the effect of each node with the direction of each attack.
fn fitted(
    table: &Table,
    split: &Split,
    plan: &Plan,
    labels: &[String],
    said: &mut Vec<String>,
) -> Result<(Vec<Detector>, Vec<Detector>), DetectError> {
    let fit = |recipe, attack| Detector::fit(recipe, attack, table, split, &plan.subject);
    let mut detectors =
        Statistic::scalars(table.nodes).map(|s| fit(Recipe::Single(s), None)).collect::<Result<Vec<_>, _>>()?;
    let mut nodes = Vec::new();
    if table.nodes > 0 {
        match fit(Recipe::Mahalanobis { ridge: plan.ridge }, None) {
            Ok(detector) => detectors.push(detector),
            Err(e @ DetectError::Range { .. }) => return Err(e),
            Err(e) => said.push(format!("mahalanobis is not judged: {e}")),
        }
        for (input, label) in labels.iter().enumerate() {
            if table.inputs.get(input).is_none_or(|input| Purpose::of(input) != Purpose::Attack) {
                continue;
            }
            for recipe in [Recipe::BestEce, Recipe::Logistic { penalty: plan.penalty }] {
                match fit(recipe, Some(input)) {
                    Ok(detector) => detectors.push(detector),
                    Err(e @ DetectError::Range { .. }) => return Err(e),
                    Err(e) => said.push(format!("{} is not fitted on {label}: {e}", recipe.name())),
                }
            }
            // what cannot be learnt from was said above
            let each = (0..table.nodes).map(|node| fit(Recipe::Single(Statistic::Ece { node }), Some(input)));
            nodes.extend(each.filter_map(Result::ok));
        }
    }
    if let Some(cut) = detectors.first().and_then(|d| d.cuts.iter().find(|cut| cut.threshold.is_none())) {
        let (percent, clean) = (cut.fpr_percent, detectors.first().map_or(0, |d| d.fit_clean));
        said.push(format!("{clean} clean images to fit on are too few for a cut at {percent} % false alarms"));
    }
    Ok((detectors, nodes))
}

fn judged(
    detector: &Detector,
    table: &Table,
    split: &Split,
    input: usize,
    bootstrap: &Bootstrap,
    level: f64,
) -> Result<Judged, DetectError> {
    let (mut roc, resampled) = Roc::of(&sample(detector, table, split, input), bootstrap, level)?;
    let looks_at = detector.statistic();
    let single = detector.name != Recipe::BestEce.name() && matches!(looks_at, Some(Statistic::Ece { .. }));
    if single {
        roc.curve.clear();
    }
    let row = StatisticRow {
        statistic: detector.name.clone(),
        looks_at,
        family: looks_at.map_or(Family::Causal, Statistic::family),
        direction: detector.direction,
        direction_settled: detector.direction_settled,
        input: table.labels().get(input).cloned().unwrap_or_default(),
        purpose: table.inputs.get(input).map_or(Purpose::Clean, Purpose::of),
        judged: roc.n_pos >= JUDGED_MIN && roc.n_neg >= JUDGED_MIN,
        roc,
    };
    Ok(Judged { row, resampled })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Head;
    use crate::detect::claim::Verdict;
    use crate::detect::fixture::{Planted, Shift, normal_area, shards};

    fn subject() -> Subject {
        let nodes = (0..5).map(|k| k.to_string()).collect();
        Subject { nodes, hashes: [("host".to_string(), "aa".to_string())].into() }
    }

    fn report(planted: &Planted, sizes: &[usize]) -> DetectorReport {
        let table = Table::of(&shards(planted, sizes), Head::Softmax, planted.classes, &[]).unwrap();
        DetectorReport::of(&table, &Plan { resamples: 100, ..Plan::new(subject()) }).unwrap()
    }

    fn row<'a>(report: &'a DetectorReport, statistic: &str, input: &str) -> &'a StatisticRow {
        report.statistics.iter().find(|r| r.statistic == statistic && r.input == input).unwrap()
    }

    fn warned(report: &DetectorReport, text: &str) {
        assert!(report.warnings.iter().any(|w| w.contains(text)), "{text}: {:#?}", report.warnings);
    }

    #[test]
    fn a_planted_study_is_found_as_it_was_planted() {
        let report = report(&Planted { images: 3000, ..Planted::default() }, &[3000]);
        let tolerance = 4.0 * 0.012;
        for (statistic, input, shift) in [
            ("effect-std", "fgsm 0.3", 1.5),
            ("effect-iqr", "fgsm 0.3", 1.5),
            ("ece-best", "fgsm 0.3", 1.5),
            ("max-p", "fgsm 0.3", 0.5),
            ("max-p", "pgd 0.3", -1.5),
            ("effect-std", "noise 0.3", 0.0),
        ] {
            let row = row(&report, statistic, input);
            let (got, want) = (row.roc.auroc.unwrap(), normal_area(shift));
            assert!((got - want).abs() <= tolerance, "{statistic} {input}: {got} not {want}");
            assert!(row.judged);
        }
        // independent of confidence: nothing is lost when it is matched
        let std = row(&report, "effect-std", "fgsm 0.3");
        assert!((std.roc.matched.auroc.unwrap() - normal_area(1.5)).abs() <= tolerance);
        assert!((row(&report, "max-p", "fgsm 0.3").roc.matched.auroc.unwrap() - 0.5).abs() < 0.1);
        let claim = &report.claim;
        assert_eq!(claim.verdict, Verdict::Holds);
        let gain = normal_area(1.5) - normal_area(0.5);
        assert!((claim.attacks[0].difference.unwrap() - gain).abs() <= 2.0 * tolerance);
        assert!(claim.words.starts_with("claim (d) HOLDS here. fgsm 0.3: effect-std tells it"), "{}", claim.words);
        let images = &report.images;
        assert_eq!((images.all, images.wrong, images.right, images.unknown), (3000, 150, 2850, 0));
        assert_eq!(report.inputs[0].fit + report.inputs[0].test, 2850);
        assert_eq!(report.inputs[1].changed, report.inputs[1].fit + report.inputs[1].test);
    }

    #[test]
    fn warnings_say_what_would_mislead() {
        let mut planted = Planted { images: 1200, nan: 7, ..Planted::default() };
        planted.shifts[0].effect = 0.2;
        planted.shifts[0].success = 0.02;
        let report = report(&planted, &[1200]);
        warned(&report, "7 images are left out of pwm");
        warned(&report, "judge fgsm 0.3: below 30 of either there is no verdict");
        assert_eq!(report.claim.attacks[0].verdict, Verdict::None);
        assert!(!row(&report, "effect-std", "fgsm 0.3").judged);
        // with enough of them: confidence tells the first attack best, is upside down for the second, and takes noise for it
        let mut planted = Planted { images: 1200, ..Planted::default() };
        planted.shifts[0] = Shift { doubt: 1.0, effect: 0.2, ..planted.shifts[0] };
        let report = self::report(&planted, &[1200]);
        warned(&report, "max-p is upside down for pgd 0.3");
        warned(&report, "max-p scores harmless noise 0.3");
        warned(&report, "finds fgsm 0.3 better than every causal statistic");
        assert_eq!((report.claim.attacks[0].verdict, report.claim.verdict), (Verdict::Fails, Verdict::Fails));
        assert_eq!(report.claim.attacks[1].verdict, Verdict::Holds);
        // nothing to learn from is a warning, and the rest is judged
        planted.shifts[0].success = 0.0;
        let report = self::report(&planted, &[1200]);
        warned(&report, "logistic is not fitted on fgsm 0.3");
        assert_eq!(report.claim.verdict, Verdict::Holds, "of what can be judged");
        assert_eq!(row(&report, "max-p", "fgsm 0.3").roc.lack.as_deref(), Some("one_sided"));
    }

    #[test]
    fn an_attack_that_draws_the_effects_together_is_upside_down_and_no_success() {
        let mut planted = Planted { images: 1200, ..Planted::default() };
        planted.shifts[1] = Shift { doubt: -1.5, effect: -0.8, ..planted.shifts[1] };
        let claim = report(&planted, &[1200]).claim;
        assert_eq!((claim.attacks[1].verdict, claim.verdict), (Verdict::Fails, Verdict::Fails));
        // above confidence, which is still more upside down
        assert!(claim.attacks[1].difference_interval.is_some_and(|i| i.lo > 0.0));
        assert!(claim.words.contains("pgd 0.3: effect-std is upside down"), "{}", claim.words);
        assert!(claim.words.ends_with("higher, and of no use"), "{}", claim.words);
    }

    #[test]
    fn an_attack_that_changes_nothing_but_the_answer_is_not_told() {
        let mut planted = Planted { images: 2000, ..Planted::default() };
        for shift in &mut planted.shifts {
            (shift.doubt, shift.effect) = (0.0, 0.0);
        }
        let report = report(&planted, &[2000]);
        assert_eq!(report.claim.verdict, Verdict::Undecided);
        for statistic in ["effect-std", "max-p", "logistic", "mahalanobis", "kl"] {
            let area = row(&report, statistic, "pgd 0.3").roc.auroc.unwrap();
            assert!((area - 0.5).abs() < 4.0 * 0.014, "{statistic}: {area}");
        }
        let attack = &report.claim.attacks[1];
        assert!(attack.difference_interval.is_some_and(|i| i.lo < 0.0 && i.hi > 0.0));
    }

    #[test]
    fn a_report_is_the_same_bytes_again_whatever_the_order_and_round_trips() {
        let planted = Planted { images: 300, ..Planted::default() };
        let text = |planted: &Planted, sizes: &[usize]| serde_json::to_string(&report(planted, sizes)).unwrap();
        let first = text(&planted, &[300]);
        assert_eq!(first, text(&planted, &[300]));
        let turned = Planted { order: |i, n| (7 * i + 5) % n, ..planted.clone() };
        assert_eq!(first, text(&turned, &[256, 44]));
        let read: DetectorReport = serde_json::from_str(&first).unwrap();
        assert_eq!(read, report(&planted, &[300]));
        assert_eq!(serde_json::to_string(&read).unwrap(), first);
        assert!(!first.contains("null,null,null,null,null"));
    }

    #[test]
    fn a_study_of_one_node_and_no_attack_has_no_verdict() {
        let planted =
            Planted { images: 120, nodes: 1, shifts: Planted::default().shifts[2..].to_vec(), ..Planted::default() };
        let table = Table::of(&shards(&planted, &[120]), Head::Softmax, planted.classes, &[]).unwrap();
        let one = Subject { nodes: vec!["0".into()], ..subject() };
        let report = DetectorReport::of(&table, &Plan { resamples: 20, ..Plan::new(one.clone()) }).unwrap();
        assert_eq!((report.claim.verdict, report.claim.attacks.len()), (Verdict::None, 0));
        assert!(report.warnings.iter().any(|w| w.contains("no dispersion")));
        let plan = |change: fn(&mut Plan)| {
            let mut plan = Plan { resamples: 20, ..Plan::new(one.clone()) };
            change(&mut plan);
            DetectorReport::of(&table, &plan)
        };
        assert!(matches!(plan(|p| p.ridge = 0.0), Err(DetectError::Range { .. })));
        assert!(matches!(plan(|p| p.level = 1.0), Err(DetectError::Range { .. })));
        assert!(matches!(plan(|p| p.resamples = 0), Err(DetectError::Causal(_))));
        assert!(matches!(plan(|p| p.subject.nodes.clear()), Err(DetectError::Length { .. })));
    }
}
