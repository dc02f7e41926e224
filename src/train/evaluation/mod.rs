//! What a trained network is worth on images it has not seen: of findings, each one's area under the ROC curve with an interval
//! ([`auroc`]), its average precision ([`precision`]) and what a cut does that other images chose ([`threshold`]); of classes, the share of right answers. [`published`]
//! holds what others report. Called by `train`, with the network that it made, and with weights that a user brings ([`evaluate`]);
//! `report` writes the tables.
//!
//! A finding's score is its probability in f64, the number that `predictions.csv` holds, so anybody can make every figure again
//! from that file. (Logits above 37 tie at a probability of 1.)

pub mod auroc;
#[cfg(test)]
pub(crate) mod fixture;
pub mod precision;
pub mod published;
pub mod threshold;

use super::{TrainError, rows_within, write_images};
use crate::answer::Head;
use crate::backend::{Backend, Completed, Parameters, Program};
use crate::data::{Dataset, Labels};
use crate::graph::plan::{Entry, EntryId, plan};
use crate::graph::{Graph, NodeId};
use crate::interval::{Interval, Share};
use crate::model::{Mode, Model};
use crate::tensor::{TensorMut, argmax};
use auroc::Auroc;
use precision::{Resamples, average_precision};
use std::collections::HashMap;
use threshold::Operating;

/// Level of every interval here.
pub const LEVEL: f64 = 0.95;

/// What a network answers to each image of a data set.
#[derive(Clone, Debug)]
pub struct Answers<'a> {
    data: &'a Dataset,
    head: Head,
    outputs: usize,
    /// Rows of `outputs`, in the images' order.
    logits: Vec<f32>,
}

impl<'a> Answers<'a> {
    /// Rows of `outputs` logits, one an image of `data`.
    ///
    /// # Errors
    /// [`TrainError::Task`] where they are not one row an image, or the images' labels are not what the head answers with;
    /// [`TrainError::Data`] where they have another number of findings.
    pub fn new(data: &'a Dataset, head: Head, outputs: usize, logits: Vec<f32>) -> Result<Answers<'a>, TrainError> {
        if outputs == 0 || logits.len() != data.len() * outputs {
            let reason = format!("{} logits are not {} rows of {outputs}", logits.len(), data.len());
            return Err(TrainError::Task(reason));
        }
        match (head, data.targets()) {
            (Head::Sigmoid, _) if !data.is_empty() => {
                data.findings_of(&[0], outputs, "judging findings")?;
            }
            (Head::Softmax, Labels::Findings(_)) => {
                let reason = "a softmax head answers with one class, but these images have findings: it cannot be judged by them";
                return Err(TrainError::Task(reason.into()));
            }
            _ => {}
        }
        Ok(Answers { data, head, outputs, logits })
    }

    /// The images.
    pub fn data(&self) -> &'a Dataset {
        self.data
    }

    /// How its logits become probabilities.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Name of each class or finding; its number where the images name none.
    pub fn names(&self) -> Vec<String> {
        let name = |k: usize| self.data.classes().get(k).cloned().unwrap_or_else(|| k.to_string());
        (0..self.outputs).map(name).collect()
    }

    /// Probabilities of image `i` (which must exist), one a class or finding.
    pub fn probabilities(&self, i: usize) -> Vec<f64> {
        self.head.probabilities(self.row(i))
    }

    /// The most likely class of image `i`, the first of several; none where a logit is not a number.
    pub fn class(&self, i: usize) -> Option<usize> {
        argmax(self.row(i))
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.logits[i * self.outputs..][..self.outputs]
    }

    /// Finding `k`'s probability on each image.
    fn scores(&self, k: usize) -> Vec<f64> {
        let column = self.logits.iter().skip(k).step_by(self.outputs);
        column.map(|&o| crate::answer::sigmoid(f64::from(o))).collect()
    }

    /// Which images have finding `k`.
    fn present(&self, k: usize) -> Vec<bool> {
        match self.data.targets() {
            Labels::Findings(all) => all.iter().map(|f| f.contains(k)).collect(),
            Labels::Classes(_) => Vec::new(),
        }
    }
}

/// What is known of a network.
#[derive(Clone, Debug)]
pub struct Evaluation<'a> {
    /// The answers that cuts were chosen by.
    pub validation: Option<Answers<'a>>,
    /// The answers that everything is judged by.
    pub test: Answers<'a>,
    /// What they come to.
    pub found: Found,
}

/// What a network's answers to the test images come to.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Right answers, of the images that have a label.
    Classes(Share),
    /// Of each finding.
    Findings(Vec<Finding>),
}

/// What is known of one finding.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Its name.
    pub name: String,
    /// The area under its curve, on the test images.
    pub auroc: Auroc,
    /// Its average precision on them (the area under precision over recall); none where its area is.
    pub auprc: Option<f64>,
    /// The interval of that; none where the area has none.
    pub auprc_interval: Option<Interval>,
    /// The cut that the validation images choose; none where they cannot ([`threshold::youden`]), or are the test images.
    pub threshold: Option<f64>,
    /// What that cut does on the test images.
    pub operating: Option<Operating>,
}

impl Finding {
    /// The share of test images that have it: the average precision of scores that know nothing. None without images.
    pub fn prevalence(&self) -> Option<f64> {
        let Auroc { positives, negatives, .. } = self.auroc;
        Share { count: positives, of: positives + negatives }.value()
    }

    /// Why something is missing: [`auroc::Lack`]'s names, and `no_threshold`.
    pub fn flags(&self) -> Vec<&'static str> {
        let lack = self.auroc.lack.map(auroc::Lack::name);
        lack.into_iter().chain(self.threshold.is_none().then_some("no_threshold")).collect()
    }
}

/// The mean area over the findings that have one.
pub fn mean_area(findings: &[Finding]) -> Option<f64> {
    let known: Vec<f64> = findings.iter().filter_map(|f| f.auroc.area).collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

impl<'a> Evaluation<'a> {
    /// Judges one network's answers. Cuts are chosen by `validation` alone; where those are the test images (a table that names
    /// none to test on), no cut is chosen, for it would be judged by what chose it.
    ///
    /// # Errors
    /// [`TrainError::Task`] where the answers are two networks'.
    pub fn new(validation: Option<Answers<'a>>, test: Answers<'a>) -> Result<Evaluation<'a>, TrainError> {
        let validation = validation.filter(|v| v.data != test.data);
        if validation.as_ref().is_some_and(|v| (v.head, v.outputs) != (test.head, test.outputs)) {
            return Err(TrainError::Task("validation and test answers are of different networks".into()));
        }
        let found = match test.head {
            Head::Softmax => Found::Classes(right(&test)),
            Head::Sigmoid => Found::Findings(findings(validation.as_ref(), &test)),
        };
        Ok(Evaluation { validation, test, found })
    }
}

/// Right answers of the labelled images.
fn right(answers: &Answers<'_>) -> Share {
    let labelled = || (0..answers.data.len()).filter_map(|i| Some((i, answers.data.label(i)? as usize)));
    let count = labelled().filter(|&(i, label)| answers.class(i) == Some(label)).count();
    Share { count, of: labelled().count() }
}

fn findings(validation: Option<&Answers<'_>>, test: &Answers<'_>) -> Vec<Finding> {
    let patients = patients(test.data);
    let resamples = Resamples::new(&patients);
    let one = |(k, name): (usize, String)| {
        let (scores, present) = (test.scores(k), test.present(k));
        let threshold = validation.and_then(|v| threshold::youden(&v.scores(k), &v.present(k)));
        let operating = threshold.and_then(|cut| Operating::at(cut, &scores, &present));
        let auroc = auroc::auroc(&scores, &present, &patients, LEVEL);
        // scores that tell nothing, or one kind of images, have no precision worth the name
        let auprc = auroc.area.and_then(|_| average_precision(&scores, &present));
        let auprc_interval = auroc.interval.and_then(|_| resamples.interval(&scores, &present, LEVEL));
        Finding { name, auroc, auprc, auprc_interval, threshold, operating }
    };
    test.names().into_iter().enumerate().map(one).collect()
}

/// A number for each image's patient, from 0 without gaps. An image without one counts as a patient of its own.
fn patients(data: &Dataset) -> Vec<u32> {
    let (mut known, mut next) = (HashMap::new(), 0u32);
    let mut fresh = || {
        next += 1;
        next - 1
    };
    let number = |i: usize| match data.patient(i) {
        Some(patient) => *known.entry(patient).or_insert_with(&mut fresh),
        None => fresh(),
    };
    (0..data.len()).map(number).collect()
}

/// Runs `model` with `weights` over validation and test images and judges it. `go_on` is told how many images are done, of both, and
/// says whether to go on; `None` where it does not.
///
/// # Errors
/// [`TrainError`] when the graph cannot be built, weights, images or labels do not fit, or the device fails.
pub fn evaluate<'a>(
    model: &Model,
    weights: &dyn Parameters,
    backend: &dyn Backend,
    validation: Option<&'a Dataset>,
    test: &'a Dataset,
    go_on: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Evaluation<'a>>, TrainError> {
    let mut forward = Forward::load(model, weights, backend)?;
    let validation = validation.filter(|v| *v != test);
    let chosen = match validation {
        None => None,
        Some(data) => match forward.answers(data, go_on)? {
            None => return Ok(None),
            answers => answers,
        },
    };
    let before = validation.map_or(0, Dataset::len);
    let Some(judged) = forward.answers(test, &mut |done| go_on(before + done))? else { return Ok(None) };
    Evaluation::new(chosen, judged).map(Some)
}

/// A network that only answers.
struct Forward {
    program: Box<dyn Program>,
    head: Head,
    outputs: usize,
    x: NodeId,
    logits: NodeId,
    rows: usize,
}

const ANSWER: EntryId = EntryId(0);

impl Forward {
    fn load(model: &Model, weights: &dyn Parameters, backend: &dyn Backend) -> Result<Forward, TrainError> {
        let mut graph = Graph::new();
        let x = graph.input("x", model.input);
        let normalised = model.normalise(&mut graph, x)?;
        let maps = model.features_in(&mut graph, normalised, &mut Mode::Inference)?;
        let logits = model.head(&mut graph, maps)?;
        let (given, want) = ([x], [logits]);
        let entry = |capacity| Entry { name: "answer", given: &given, want: &want, updates: &[], capacity };
        let rows = rows_within(super::EVALUATE_ROWS, |capacity| plan(&graph, &[entry(capacity)]))?;
        let artifact = plan(&graph, &[entry(rows)])?;
        let constants = model.constants();
        let program = backend.load(artifact, &Completed { weights, derived: &constants })?;
        Ok(Forward { program, head: model.head, outputs: model.classes, x, logits, rows })
    }

    fn answers<'a>(
        &mut self,
        data: &'a Dataset,
        go_on: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Option<Answers<'a>>, TrainError> {
        let all: Vec<u32> = (0..data.len() as u32).collect();
        data.announce(&all);
        let mut logits = vec![0.0f32; all.len() * self.outputs];
        for (block, out) in all.chunks(self.rows).zip(logits.chunks_mut(self.rows * self.outputs)) {
            write_images(&mut *self.program, self.x, data, block)?;
            self.program.run(ANSWER, block.len())?;
            self.program.read(self.logits, TensorMut::F32(out))?;
            if !go_on(block.last().map_or(0, |&i| i as usize + 1)) {
                return Ok(None);
            }
        }
        Answers::new(data, self.head, self.outputs, logits).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::x_rays;
    use super::*;
    use auroc::Lack;

    /// Answers with `scores` for the finding Mass and 0 for all others.
    fn mass<'a>(data: &'a Dataset, scores: &[f32]) -> Answers<'a> {
        let logits = scores.iter().flat_map(|&s| (0..14).map(move |k| if k == 4 { s } else { 0.0 })).collect();
        Answers::new(data, Head::Sigmoid, 14, logits).unwrap()
    }

    fn found(evaluation: Evaluation<'_>) -> Vec<Finding> {
        match evaluation.found {
            Found::Findings(findings) => findings,
            Found::Classes(_) => Vec::new(),
        }
    }

    #[test]
    fn findings_are_judged_on_test_images_at_the_cut_that_validation_images_choose() {
        let chosen = x_rays(&[("Mass", None), ("No Finding", None), ("Mass|Hernia", None)]);
        let rows =
            [("Mass", Some("a")), ("Mass", Some("a")), ("No Finding", Some("b")), ("Mass", None), ("Edema", Some("c"))];
        let judged = x_rays(&rows);
        let validation = mass(&chosen, &[2.0, -1.0, 1.0]);
        let scores = [3.0, 0.5, 1.5, 2.0, -2.0];
        let findings = found(Evaluation::new(Some(validation.clone()), mass(&judged, &scores)).unwrap());
        let names: Vec<&str> = findings.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, crate::data::findings::FINDINGS);
        let f = &findings[4];
        let p1 = 1.0 / (1.0 + (-1.0f64).exp());
        assert_eq!((f.auroc.area, f.auroc.patients, f.threshold), (Some(5.0 / 6.0), 4, Some(p1)));
        let operating = f.operating.unwrap();
        assert_eq!(operating.sensitivity, Share { count: 2, of: 3 });
        assert_eq!(operating.specificity, Share { count: 1, of: 2 });
        assert_eq!(mean_area(&findings), Some((5.0 / 6.0 + 0.5) / 2.0), "of Mass and Edema");
        // no test image has a hernia, and no cut between equal scores is better than a guess
        assert_eq!(findings[13].flags(), ["one_sided", "no_threshold"]);
        // what the test images have plays no part in the choice
        let other = x_rays(&[("No Finding", None), ("Mass", None), ("Mass", None), ("Hernia", None), ("Mass", None)]);
        let again = found(Evaluation::new(Some(validation), mass(&other, &scores)).unwrap());
        let thresholds = |all: &[Finding]| all.iter().map(|f| f.threshold).collect::<Vec<_>>();
        assert_eq!(thresholds(&again), thresholds(&findings));
        assert_ne!(again[4].auroc.area, f.auroc.area);
    }

    #[test]
    fn a_score_that_is_not_a_number_leaves_its_finding_unjudged() {
        let data = x_rays(&[("Mass", None), ("No Finding", None), ("Mass|Edema", None)]);
        let judged = x_rays(&[("Mass", None), ("No Finding", None), ("Edema", None)]);
        let nan = f32::NAN;
        let findings = |chosen: &[f32], scores: &[f32]| {
            found(Evaluation::new(Some(mass(&data, chosen)), mass(&judged, scores)).unwrap())
        };
        let f = &findings(&[1.0, 0.0, 1.0], &[nan, 0.0, 0.0])[4];
        assert_eq!((f.auroc.area, f.auroc.lack, f.operating), (None, Some(Lack::Nan), None));
        assert!(f.threshold.is_some());
        let all = findings(&[1.0, 0.0, nan], &[1.0, 0.0, 0.0]);
        assert_eq!((all[4].threshold, all[4].auroc.area), (None, Some(1.0)));
        assert_eq!(all[9].auroc.area, Some(0.5), "the others are as they were");
    }

    #[test]
    fn images_that_choose_a_cut_do_not_judge_it_too() {
        let data = x_rays(&[("Mass", None), ("No Finding", None)]);
        let answers = || mass(&data, &[1.0, 0.0]);
        let evaluation = Evaluation::new(Some(answers()), answers()).unwrap();
        assert!(evaluation.validation.is_none());
        assert_eq!(found(evaluation)[4].flags(), ["few_patients", "no_threshold"]);
    }

    #[test]
    fn answers_are_of_the_images_that_they_are_said_to_be_of() {
        let data = x_rays(&[("Mass", None), ("No Finding", None)]);
        assert!(Answers::new(&data, Head::Sigmoid, 14, vec![0.0; 27]).is_err());
        assert!(Answers::new(&data, Head::Sigmoid, 2, vec![0.0; 4]).is_err(), "14 findings");
        assert!(Answers::new(&data, Head::Softmax, 14, vec![0.0; 28]).is_err());
        let classes = Dataset::new(vec![0; 4], vec![0, 1], [1, 1, 2], vec!["a".into(), "b".into()]).unwrap();
        assert!(Answers::new(&classes, Head::Sigmoid, 2, vec![0.0; 4]).is_err());
        let classes = Answers::new(&classes, Head::Softmax, 2, vec![0.0; 4]).unwrap();
        assert!(Evaluation::new(Some(classes), mass(&data, &[0.0, 0.0])).is_err());
    }
}
