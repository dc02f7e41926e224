//! From shards to a table of features: every image under every input, with what the host said to it. Called once a study.
//!
//! Images are put in ascending order of their ids, so that everything made of the table (sums, splits, resamples) is the same
//! to the bit in whatever order, and in whatever shards, they were run. Of several masks of one image only the first (mask 0) is
//! taken: a detector is shown one image at a time, and more masks would be more rows of the same image.

use super::DetectError;
use super::features::Features;
use crate::answer::Head;
use crate::attack::method::change;
use crate::causal::CausalError;
use crate::causal::analysis::{consistent, responses};
use crate::causal::effect::Responses;
use crate::causal::study::{Input, Shard};
use crate::data::NO_LABEL;
use crate::random::fnv1a_64;
use crate::tensor::argmax;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What an input is to a detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Nothing was done: an alarm is false.
    Clean,
    /// To be found, where it changed the host's answer.
    Attack,
    /// Masked or noisy by chance, with no adversary in it: an alarm is false too.
    Control,
}

impl Purpose {
    /// Of an input.
    pub fn of(input: &Input) -> Purpose {
        match input {
            Input::None => Purpose::Clean,
            Input::Pwm { .. } | Input::Jpeg { .. } | Input::Noise { .. } => Purpose::Control,
            Input::Attack(_) => Purpose::Attack,
        }
    }
}

/// One image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Dataset index, or hash of the path.
    pub id: u64,
    /// Number of its patient, or its own where none is known; from 0 without gaps.
    pub unit: u32,
    /// Its class.
    pub label: Option<u32>,
    /// Whether the host answers it rightly when nothing is done to it. Not known without a label, and of a sigmoid head: a shard
    /// has but one label an image, which does not say what else an X-ray shows. Such an image is taken as right.
    pub right: Option<bool>,
}

/// One image under one input.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its numbers.
    pub features: Features,
    /// The host's class on it, or likeliest finding; none where a logit is not a number.
    pub predicted: Option<u32>,
    /// Whether the host's answer is another than on the clean image: of findings, whether any is (found above one half).
    pub changed: Option<bool>,
}

impl Row {
    /// Of an image's answers under an input, where `clean` are the host's logits when nothing is done to it.
    ///
    /// # Errors
    /// None that [`Responses::new`] has not excluded.
    pub fn of(responses: &Responses, clean: &[f64]) -> Result<Row, CausalError> {
        Ok(Row {
            features: Features::of(responses)?,
            predicted: argmax(responses.orig()).map(|class| class as u32),
            changed: differ(responses.head(), clean, responses.orig()),
        })
    }
}

/// The features of a study.
#[derive(Clone, Debug)]
pub struct Table {
    /// What the host answers with.
    pub head: Head,
    /// Sets of nodes.
    pub nodes: usize,
    /// Inputs, the clean one first.
    pub inputs: Vec<Input>,
    /// Images, ids ascending.
    pub images: Vec<Image>,
    /// What random numbers of each patient or image are keyed by.
    pub units: Vec<u64>,
    /// Inputs x images.
    rows: Vec<Row>,
}

/// Who an image counts with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit<'a> {
    Image(u64),
    Patient(&'a str),
}

impl Table {
    /// Of all of a study's shards, in their order. `patients`: whose each image is, in the same order; empty where nobody knows.
    ///
    /// # Errors
    /// [`DetectError::Causal`] where shards are no parts of one study or do not begin with the clean input,
    /// [`DetectError::Classes`] of a softmax of one class, [`DetectError::Duplicate`] where two images have one id,
    /// [`DetectError::Length`] unless there is a patient (or none) for each image.
    pub fn of(shards: &[Shard], head: Head, classes: usize, patients: &[Option<&str>]) -> Result<Table, DetectError> {
        let none = CausalError::Length { what: "shards", expected: 1, got: 0 };
        let first = shards.first().ok_or(none)?;
        if head == Head::Softmax && classes < 2 {
            return Err(DetectError::Classes(classes));
        }
        let clean = first.answers.first().filter(|a| a.input == Input::None);
        let lacking = CausalError::Shard { first: first.first, reason: "it does not begin with the clean input" };
        let nodes = clean.ok_or(lacking)?.logits.live.len() / first.ids.len().max(1);
        consistent(shards, first, nodes, classes)?;
        let mut places: Vec<Place<'_>> = Vec::new();
        for (shard, i) in shards.iter().flat_map(|shard| (0..shard.ids.len()).map(move |i| (shard, i))) {
            let id = shard.ids[i];
            let patient = patients.get(places.len()).copied().flatten();
            places.push(Place { id, unit: patient.map_or(Unit::Image(id), Unit::Patient), shard, i });
        }
        if !patients.is_empty() && patients.len() != places.len() {
            let what = "patients (one an image)";
            return Err(DetectError::Length { what, expected: places.len(), got: patients.len() });
        }
        places.sort_by_key(|place| place.id);
        if let Some(twin) = places.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(DetectError::Duplicate(twin[0].id));
        }
        let all: BTreeSet<Unit<'_>> = places.iter().map(|place| place.unit).collect();
        let numbers: BTreeMap<Unit<'_>, u32> = all.iter().enumerate().map(|(k, unit)| (*unit, k as u32)).collect();
        let units = all.iter().map(|unit| match unit {
            Unit::Image(id) => *id,
            Unit::Patient(name) => fnv1a_64(name),
        });
        // mask 0 of every input
        let kept: Vec<usize> = first.answers.iter().enumerate().filter(|(_, a)| a.mask == 0).map(|(k, _)| k).collect();
        let read: Vec<Read> = places
            .par_iter()
            .map(|place| place.read(&kept, nodes, head, classes))
            .collect::<Result<_, CausalError>>()?;
        let mut columns: Vec<Vec<Row>> = kept.iter().map(|_| Vec::with_capacity(places.len())).collect();
        let mut images = Vec::with_capacity(places.len());
        for (place, Read { right, rows }) in places.iter().zip(read) {
            let unit = numbers.get(&place.unit).copied().unwrap_or_default();
            let label = place.shard.labels.get(place.i).copied().filter(|label| *label != NO_LABEL);
            images.push(Image { id: place.id, unit, label, right });
            columns.iter_mut().zip(rows).for_each(|(column, row)| column.push(row));
        }
        let inputs = kept.iter().map(|&k| first.answers[k].input).collect();
        let rows = columns.into_iter().flatten().collect();
        Ok(Table { head, nodes, inputs, images, units: units.collect(), rows })
    }

    /// The rows of input `input`, one an image; empty for an input that there is not.
    pub fn rows(&self, input: usize) -> &[Row] {
        let (from, n) = (input * self.images.len(), self.images.len());
        self.rows.get(from..from + n).unwrap_or_default()
    }

    /// Whether an image is one of the protocol's: the host is not known to be wrong on it, and its clean row is numbers.
    pub fn counts(&self, image: usize) -> bool {
        let right = self.images.get(image).is_some_and(|i| i.right != Some(false));
        right && self.rows(0).get(image).is_some_and(|row| row.predicted.is_some() && row.features.is_finite())
    }

    /// Images of the protocol whose row under `input` is one to find, or for a control to leave alone, and is numbers: all of
    /// the clean input and of controls; of an attack those where it succeeded.
    pub fn chosen(&self, input: usize) -> Vec<usize> {
        let attack = self.inputs.get(input).is_some_and(|i| Purpose::of(i) == Purpose::Attack);
        let takes = |row: &Row| row.features.is_finite() && (!attack || row.changed == Some(true));
        let rows = self.rows(input).iter().enumerate();
        rows.filter(|(i, row)| self.counts(*i) && takes(row)).map(|(i, _)| i).collect()
    }

    /// Images that are left out because a number of theirs under `input`, or on the clean image, is none.
    pub fn not_numbers(&self, input: usize) -> usize {
        let whole = |row: &Row| row.predicted.is_some() && row.features.is_finite();
        let pairs = self.rows(0).iter().zip(self.rows(input));
        pairs.filter(|(clean, row)| !whole(clean) || !whole(row)).count()
    }

    /// Each input in words, the clean one first: `fgsm 8/255`, `pgd 0.3`. Two that would be called the same get numbers.
    pub fn labels(&self) -> Vec<String> {
        let plain: Vec<String> = self.inputs.iter().map(label).collect();
        let numbered = |(k, name): (usize, &String)| {
            let before = plain[..k].iter().filter(|other| *other == name).count();
            let twins = plain.iter().filter(|other| *other == name).count();
            if twins > 1 { format!("{name} #{}", before + 1) } else { name.clone() }
        };
        plain.iter().enumerate().map(numbered).collect()
    }
}

/// An input with its size.
fn label(input: &Input) -> String {
    match (input, input.eps()) {
        (Input::None, _) => "clean".into(),
        (_, None) => input.name().into(),
        (_, Some(eps)) => format!("{} {}", input.name(), change(eps)),
    }
}

/// One image of a shard.
struct Place<'a> {
    id: u64,
    unit: Unit<'a>,
    shard: &'a Shard,
    i: usize,
}

/// What is read of one.
struct Read {
    right: Option<bool>,
    /// One an input.
    rows: Vec<Row>,
}

impl Place<'_> {
    /// The answers `kept` of a [`consistent`] shard, the clean input's first.
    fn read(&self, kept: &[usize], nodes: usize, head: Head, classes: usize) -> Result<Read, CausalError> {
        let mut clean: Option<Vec<f64>> = None;
        let mut right = None;
        let mut rows = Vec::with_capacity(kept.len());
        for &k in kept {
            let here = responses(&self.shard.answers[k], self.i, nodes, head, classes)?;
            if clean.is_none() {
                let label = self.shard.labels[self.i];
                let known = head == Head::Softmax && label != NO_LABEL;
                right = argmax(here.orig()).filter(|_| known).map(|class| class == label as usize);
            }
            rows.push(Row::of(&here, clean.get_or_insert_with(|| here.orig().to_vec()))?);
        }
        Ok(Read { right, rows })
    }
}

/// Whether two rows of logits are different answers; `None` where one is not a number.
fn differ(head: Head, clean: &[f64], other: &[f64]) -> Option<bool> {
    let (before, after) = (argmax(clean)?, argmax(other)?);
    Some(match head {
        Head::Softmax => before != after,
        // as attacks on findings have it: above 0 a finding's probability is above one half
        Head::Sigmoid => clean.iter().zip(other).any(|(a, b)| (*a > 0.0) != (*b > 0.0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Attack, Norm, Steps};
    use crate::causal::study::Answers;
    use crate::causal::sweep::Logits;
    use crate::detect::fixture::{Planted, shards};
    use crate::detect::{Split, Statistic};

    fn logits(orig: Vec<f32>, nodes: usize) -> Logits {
        let n = orig.len() / 2;
        let done = orig.chunks(2).flat_map(|row| row.repeat(nodes)).collect();
        Logits { idle: orig.clone(), done, orig, live: vec![true; n * nodes] }
    }

    fn answers(input: Input, mask: u32, orig: &[f32]) -> Answers {
        Answers { input, mask, fraction: Vec::new(), logits: logits(orig.to_vec(), 2) }
    }

    fn shard(first: usize, ids: &[u64], labels: &[u32], answers: Vec<Answers>) -> Shard {
        Shard { first, ids: ids.to_vec(), labels: labels.to_vec(), answers }
    }

    const FGSM: Input = Input::Attack(Attack::Fgsm { eps: 0.3, norm: Norm::Linf });
    const PWM: Input = Input::Pwm {
        masks: 2,
        fill: crate::causal::fill::Fill::Value(0.0),
        region: crate::causal::mask::Region::Grid10,
    };

    #[test]
    fn an_attack_counts_where_the_host_was_right_and_is_no_longer_of_that_mind() {
        let nan = f32::NAN;
        let clean = [2.0, 0.0, 0.0, 2.0, 2.0, 0.0, 2.0, 0.0, nan, 0.0];
        let fgsm = [0.0, 2.0, 2.0, 0.0, 1.0, 0.0, nan, 0.0, 0.0, 2.0];
        let pwm = |x: f32| [x, 0.0, x, 0.0, x, 0.0, x, 0.0, x, 0.0];
        let all = vec![
            answers(Input::None, 0, &clean),
            answers(FGSM, 0, &fgsm),
            answers(PWM, 0, &pwm(1.0)),
            answers(PWM, 1, &pwm(5.0)),
        ];
        // right, wrong, right, right, unknown (NaN)
        let shards = [shard(0, &[7, 5, 3, 2, 1], &[0, 0, 0, 0, 0], all)];
        let table = Table::of(&shards, Head::Softmax, 2, &[]).unwrap();
        assert_eq!(table.images.iter().map(|i| i.id).collect::<Vec<_>>(), [1, 2, 3, 5, 7]);
        let right = [None, Some(true), Some(true), Some(false), Some(true)];
        assert_eq!(table.images.iter().map(|i| i.right).collect::<Vec<_>>(), right);
        assert_eq!(table.inputs, [Input::None, FGSM, PWM]);
        assert_eq!(table.labels(), ["clean", "fgsm 0.3", "pwm"]);
        assert_eq!(table.chosen(0), [1, 2, 4], "the wrong one and the NaN are no part of it");
        assert_eq!(table.chosen(1), [4], "of 2 the attack has a NaN, of 3 it did not succeed");
        assert_eq!(table.chosen(2), [1, 2, 4], "a control need not succeed");
        assert_eq!([0, 1, 2].map(|k| table.not_numbers(k)), [1, 2, 1]);
        let changed: Vec<_> = table.rows(1).iter().map(|r| r.changed).collect();
        assert_eq!(changed, [None, None, Some(false), Some(true), Some(true)]);
        // mask 0, not the other nor their mean
        let of_one = 1.0 / (1.0 + 1f64.exp());
        assert!((table.rows(2)[4].features.get(Statistic::MaxP).unwrap() - of_one).abs() < 1e-15);
    }

    #[test]
    fn of_findings_any_that_turns_is_a_success_and_nobody_knows_whether_all_were_right() {
        let clean = [2.0, -1.0, 2.0, -1.0];
        let all = vec![answers(Input::None, 0, &clean), answers(FGSM, 0, &[3.0, 0.5, 1.0, -2.0])];
        let table = Table::of(&[shard(0, &[0, 1], &[0, 0], all)], Head::Sigmoid, 2, &[]).unwrap();
        assert!(table.images.iter().all(|i| i.right.is_none() && i.label == Some(0)));
        assert_eq!((table.chosen(0), table.chosen(1)), (vec![0, 1], vec![0]));
    }

    #[test]
    fn images_of_a_patient_count_together_and_others_alone() {
        let all = |n: usize| vec![answers(Input::None, 0, &[2.0, 0.0].repeat(n))];
        let both = [shard(0, &[4, 3], &[0, 0], all(2)), shard(2, &[2, 1], &[0, 0], all(2))];
        let patients = [Some("b"), Some("a"), None, Some("b")];
        let table = Table::of(&both, Head::Softmax, 2, &patients).unwrap();
        let unit: Vec<u32> = table.images.iter().map(|i| i.unit).collect();
        // ids 1 (b), 2 (alone), 3 (a), 4 (b)
        assert_eq!(unit, [2, 0, 1, 2]);
        assert_eq!(table.units.len(), 3);
        assert!(matches!(Table::of(&both, Head::Softmax, 2, &patients[..3]), Err(DetectError::Length { .. })));
    }

    #[test]
    fn what_is_no_study_is_an_error() {
        let clean = || vec![answers(Input::None, 0, &[2.0, 0.0, 2.0, 0.0])];
        let of = |shards: &[Shard]| Table::of(shards, Head::Softmax, 2, &[]);
        assert!(matches!(of(&[]), Err(DetectError::Causal(_))));
        assert!(matches!(of(&[shard(0, &[1, 1], &[0, 0], clean())]), Err(DetectError::Duplicate(1))));
        let attacked = vec![answers(FGSM, 0, &[2.0, 0.0, 2.0, 0.0])];
        assert!(matches!(of(&[shard(0, &[1, 2], &[0, 0], attacked)]), Err(DetectError::Causal(_))));
        let gap = [shard(0, &[1, 2], &[0, 0], clean()), shard(3, &[3, 4], &[0, 0], clean())];
        assert!(matches!(of(&gap), Err(DetectError::Causal(CausalError::Shard { first: 3, .. }))));
        let one = Table::of(&[shard(0, &[1, 2], &[0, 0], clean())], Head::Softmax, 1, &[]);
        assert!(matches!(one, Err(DetectError::Classes(1))));
    }

    #[test]
    fn the_order_of_images_and_shards_changes_no_bit() {
        let planted = Planted { images: 90, ..Planted::default() };
        let whole = Table::of(&shards(&planted, &[90]), Head::Softmax, planted.classes, &[]).unwrap();
        let mut turned = planted.clone();
        turned.order = |i, n| (7 * i + 3) % n;
        let other = Table::of(&shards(&turned, &[40, 50]), Head::Softmax, planted.classes, &[]).unwrap();
        assert_eq!(whole.images, other.images);
        assert_eq!(whole.rows, other.rows);
        let split = |table: &Table| Split::of(table, 0).unwrap().record(table);
        assert_eq!(split(&whole), split(&other));
    }

    #[test]
    fn inputs_are_named_with_their_size() {
        let eps = 8.0 / 255.0;
        let steps = Steps::single(eps, Norm::Linf);
        let inputs = [
            Input::None,
            Input::Attack(Attack::Fgsm { eps, norm: Norm::Linf }),
            Input::Attack(Attack::Bim(steps)),
            Input::Noise { eps: 0.1, norm: Norm::Linf },
        ];
        assert_eq!(inputs.each_ref().map(label), ["clean", "fgsm 8/255", "bim 8/255", "noise 0.1"]);
    }
}
