//! Which images train and which validate, the order of training, and the check that no patient is on both sides. Called by
//! training and by the readers of data sets.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::files::{Part, Record};
use super::{DataError, Dataset};
use crate::random::Stream;

/// A training set cut in two; both lists ascend and together hold every index once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Indices to train on.
    pub train: Vec<u32>,
    /// Indices to validate on.
    pub validation: Vec<u32>,
}

/// Images of Fashion-MNIST's training file.
pub const FASHION_TRAIN: u32 = 60_000;
/// How many of them are the validation set.
pub const FASHION_VALIDATION: u32 = 5_000;

impl Split {
    /// The first `validation` positions of a permutation of `0..n` (stream `name`, seed 0) against the rest. The seed
    /// is fixed, not the run's: results of different seeds must be validated on the same images.
    pub fn new(name: &str, n: u32, validation: u32) -> Split {
        let mut validation_list = Stream::new(0, name).permutation(0, n);
        let mut train = validation_list.split_off(validation.min(n) as usize);
        validation_list.sort_unstable();
        train.sort_unstable();
        Split { train, validation: validation_list }
    }

    /// Whole patients: as many of a permutation of them (stream `name`, seed 0) as it takes to reach `validation` images,
    /// against the rest. An image without a patient counts as a patient of its own. One patient is never on both sides.
    pub fn by_patient(data: &Dataset, name: &str, validation: usize) -> Split {
        let mut images: BTreeMap<Cow<'_, str>, Vec<u32>> = BTreeMap::new();
        for i in 0..data.len() as u32 {
            // no patient's name has a line break
            let alone = || Cow::Owned(format!("\n{:016x}", data.ids()[i as usize]));
            images.entry(data.patient(i as usize).map_or_else(alone, Cow::Borrowed)).or_default().push(i);
        }
        let patients: Vec<Vec<u32>> = images.into_values().collect();
        let mut split = Split { train: Vec::new(), validation: Vec::new() };
        for p in Stream::new(0, name).permutation(0, patients.len() as u32) {
            let side = if split.validation.len() < validation { &mut split.validation } else { &mut split.train };
            side.extend(&patients[p as usize]);
        }
        split.train.sort_unstable();
        split.validation.sort_unstable();
        split
    }

    /// The same with every patient of whom a finding is marked on the held-out side, as in NIH's own lists: what is measured at a box
    /// was not learnt from its image. Where that would hold out half of the images or more, the split is left as it is.
    pub fn with_marked(self, data: &Dataset) -> Split {
        let marked = |i: u32| data.record(i as usize).is_some_and(|record| !record.marked.is_empty());
        let patient = |i: u32| data.patient(i as usize);
        let patients: HashSet<&str> = (0..data.len() as u32).filter(|&i| marked(i)).filter_map(patient).collect();
        let held = |i: &u32| marked(*i) || patient(*i).is_some_and(|p| patients.contains(p));
        let (more, train): (Vec<u32>, Vec<u32>) = self.train.iter().partition(|i| held(i));
        if 2 * (self.validation.len() + more.len()) >= data.len() {
            return self;
        }
        let mut validation = [self.validation, more].concat();
        validation.sort_unstable();
        Split { train, validation }
    }

    /// Fashion-MNIST's: 55,000 to train on, 5,000 to validate on.
    pub fn fashion() -> Split {
        Split::new("fashion/validation", FASHION_TRAIN, FASHION_VALIDATION)
    }
}

/// The order in which epoch `epoch` of a training run with `seed` visits `n` images.
pub fn epoch_order(seed: u64, epoch: u64, n: u32) -> Vec<u32> {
    Stream::new(seed, "order").permutation(epoch, n)
}

/// Refuses a set in which one patient's images are in two parts.
///
/// # Errors
/// [`DataError::Leak`] names the patient, the parts and an image in each.
pub fn check_leaks(records: &[Record]) -> Result<(), DataError> {
    let mut first: HashMap<&str, (Part, &Record)> = HashMap::new();
    for record in records {
        let (Some(patient), Some(part)) = (&record.patient, record.part) else { continue };
        let (other, there) = *first.entry(patient).or_insert((part, record));
        if other != part {
            return Err(DataError::Leak {
                patient: patient.clone(),
                first: other.name(),
                first_image: there.path.clone(),
                second: part.name(),
                second_image: record.path.clone(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fashions_split_is_fixed_disjoint_sorted_and_complete() {
        let split = Split::fashion();
        assert_eq!((split.train.len(), split.validation.len()), (55_000, 5_000));
        assert!(split.train.is_sorted() && split.validation.is_sorted());
        let mut all = [split.train.clone(), split.validation.clone()].concat();
        all.sort_unstable();
        assert!(all.iter().enumerate().all(|(i, &v)| i == v as usize));
        assert_eq!(split, Split::fashion());
        let first = &Stream::new(0, "fashion/validation").permutation(0, 60_000)[..5000];
        assert!(first.iter().all(|i| split.validation.binary_search(i).is_ok()));
        assert!(Split::new("tiny", 3, 5).train.is_empty());
    }

    #[test]
    fn the_training_order_changes_with_seed_and_epoch_only() {
        let order = epoch_order(0, 0, 100);
        assert_eq!(order, epoch_order(0, 0, 100));
        assert_ne!(order, epoch_order(0, 1, 100));
        assert_ne!(order, epoch_order(1, 0, 100));
    }

    fn record(path: &str, patient: Option<&str>, part: Option<Part>) -> Record {
        Record { path: path.into(), patient: patient.map(str::to_owned), part, ..Record::default() }
    }

    #[test]
    fn a_patient_in_two_parts_is_refused_by_name() {
        let (train, test) = (Some(Part::Train), Some(Part::Test));
        let mut records = vec![
            record("a.png", Some("7"), train),
            record("b.png", Some("7"), None),
            record("c.png", Some("8"), test),
            record("d.png", None, test),
            record("e.png", Some("7"), train),
        ];
        assert!(check_leaks(&records).is_ok());
        records[2].patient = Some("7".into());
        let text = check_leaks(&records).unwrap_err().to_string();
        assert!(["7", "a.png", "c.png", "train", "test"].iter().all(|part| text.contains(part)), "{text}");
    }
}
