//! Which images a detector learns from and which judge it: half and half, disjoint, a patient's images on one side.
//!
//! Every patient (or image without one) draws two words of Philox(seed, "detect-split") by its own number; the half with the
//! smaller draws fits. So a split depends on nothing but the seed and who takes part, and is made again from both.

use super::DetectError;
use super::table::Table;
use crate::digest::hex;
use crate::random::Stream;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Name of the random stream.
const STREAM: &str = "detect-split";

/// What an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Directions, coefficients and cuts.
    Fit,
    /// Everything that is reported.
    Test,
}

/// Who fits and who tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    seed: u64,
    /// One a patient or image.
    sides: Vec<Side>,
    /// Which of its own side each is.
    numbers: Vec<u32>,
}

/// What is written of a split: enough to make it again, and to know that it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Seed.
    pub seed: u64,
    /// Stream of random numbers.
    pub stream: String,
    /// Images that detectors are fitted on.
    pub fit_images: usize,
    /// Their patients, or images where none are known.
    pub fit_units: usize,
    /// Images that judge them.
    pub test_images: usize,
    /// Their patients, or images where none are known.
    pub test_units: usize,
    /// SHA-256 of the ids of the images of `fit_images`, ascending, eight bytes each, the lowest first.
    pub fit_sha256: String,
}

impl Split {
    /// Of the images of a table. With an odd number of patients one more tests.
    ///
    /// # Errors
    /// [`DetectError::Few`] with fewer than two patients or images.
    pub fn of(table: &Table, seed: u64) -> Result<Split, DetectError> {
        let count = table.units.len();
        if count < 2 {
            return Err(DetectError::Few(count));
        }
        let stream = Stream::new(seed, STREAM);
        let draw = |key: u64| u64::from(stream.word(key, 0)) << 32 | u64::from(stream.word(key, 1));
        // the key and the place decide between equal draws
        let mut order: Vec<(u64, u64, usize)> =
            table.units.iter().enumerate().map(|(k, &key)| (draw(key), key, k)).collect();
        order.sort_unstable();
        let mut sides = vec![Side::Test; count];
        order.iter().take(count / 2).for_each(|&(_, _, k)| sides[k] = Side::Fit);
        let (mut fit, mut test) = (0, 0);
        let number = |side: &Side| {
            let next = if *side == Side::Fit { &mut fit } else { &mut test };
            *next += 1;
            *next - 1
        };
        let numbers = sides.iter().map(number).collect();
        Ok(Split { seed, sides, numbers })
    }

    /// Patients (or images) on a side.
    pub fn units(&self, side: Side) -> usize {
        self.sides.iter().filter(|s| **s == side).count()
    }

    /// Which of its own side a patient (or image) is, from 0 without gaps.
    pub fn number(&self, unit: u32) -> u32 {
        self.numbers.get(unit as usize).copied().unwrap_or_default()
    }

    /// What a patient (or image) of that number in the table is for.
    pub fn side(&self, unit: u32) -> Side {
        self.sides.get(unit as usize).copied().unwrap_or(Side::Test)
    }

    /// Those of `images` (places in the table) that are on a side.
    pub fn keep(&self, table: &Table, images: Vec<usize>, side: Side) -> Vec<usize> {
        let here = |&i: &usize| table.images.get(i).is_some_and(|image| self.side(image.unit) == side);
        images.into_iter().filter(here).collect()
    }

    /// What to write of it.
    pub fn record(&self, table: &Table) -> Record {
        let (mut fit_images, mut hasher) = (0, Sha256::new());
        for image in table.images.iter().filter(|image| self.side(image.unit) == Side::Fit) {
            fit_images += 1;
            hasher.update(image.id.to_le_bytes());
        }
        Record {
            seed: self.seed,
            stream: STREAM.into(),
            fit_images,
            fit_units: self.units(Side::Fit),
            test_images: table.images.len() - fit_images,
            test_units: self.units(Side::Test),
            fit_sha256: hex(&hasher.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Head;
    use crate::detect::fixture::{Planted, shards};

    fn table(images: usize, patients: &[Option<&str>]) -> Table {
        let planted = Planted { images, ..Planted::default() };
        Table::of(&shards(&planted, &[images]), Head::Softmax, planted.classes, patients).unwrap()
    }

    #[test]
    fn halves_are_halves_and_another_seed_makes_others() {
        let table = table(101, &[]);
        let [a, b] = [0, 1].map(|seed| Split::of(&table, seed).unwrap());
        let record = a.record(&table);
        assert_eq!((record.fit_images, record.test_images, record.fit_units), (50, 51, 50));
        assert_eq!(record, Split::of(&table, 0).unwrap().record(&table));
        assert_ne!(record.fit_sha256, b.record(&table).fit_sha256);
        let all: Vec<usize> = (0..101).collect();
        let mut both = a.keep(&table, all.clone(), Side::Fit);
        assert_eq!(both.len(), 50);
        both.extend(a.keep(&table, all.clone(), Side::Test));
        both.sort_unstable();
        assert_eq!(both, all, "each on one side");
        let numbers: Vec<u32> = (0..101).filter(|&u| a.side(u) == Side::Test).map(|u| a.number(u)).collect();
        assert_eq!(numbers, (0..51).collect::<Vec<u32>>());
        // by chance about half of one split's fit images are another's: hypergeometric, sd 2.5, four of them
        let shared = (0..101).filter(|&u| a.side(u) == Side::Fit && b.side(u) == Side::Fit).count();
        assert!((15..=35).contains(&shared), "{shared}");
    }

    #[test]
    fn a_patient_is_on_one_side() {
        let names: Vec<String> = (0..60).map(|i| format!("p{}", i % 13)).collect();
        let patients: Vec<Option<&str>> = names.iter().map(|n| Some(n.as_str())).collect();
        let table = table(60, &patients);
        let split = Split::of(&table, 3).unwrap();
        assert_eq!(split.record(&table).fit_units, 6);
        let mut sides = std::collections::BTreeMap::new();
        for (image, name) in table.images.iter().zip(&names) {
            let side = split.side(image.unit);
            assert_eq!(*sides.entry(name).or_insert(side), side, "{name}");
        }
        assert_eq!(sides.len(), 13);
    }

    #[test]
    fn one_image_is_no_two_parts() {
        assert!(matches!(Split::of(&table(1, &[]), 0), Err(DetectError::Few(1))));
    }
}
