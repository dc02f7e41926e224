//! Sign flips: the permutation test of a mean against 0, of two paired columns against each other, by image or cluster.

use rayon::prelude::*;

use super::super::{CausalError, same_length};
use super::checked_columns;
use super::clusters::{Clusters, checked_plan};
use super::weighted::{BLOCK, weighted_sums};
use crate::random::Stream;

/// Sign-flip permutation test of mean = 0 (for values symmetric about 0 under the null), two-sided.
///
/// Of two columns on the same images ([`SignFlip::paired`]) it is the paired permutation test: where what made the columns
/// makes no difference, an image's two values might as well stand the other way round, which turns the sign of their
/// difference. Over clusters ([`SignFlip::of_clusters`]) a cluster's images turn together: images of one patient are alike,
/// and patterns that part them would take that likeness for evidence.
#[derive(Clone, Debug)]
pub struct SignFlip {
    clusters: Clusters,
    words: usize,
    /// flips x words: bit i % 32 of word i / 32 set when cluster i changes its sign.
    signs: Vec<u32>,
}

impl SignFlip {
    /// Draws `flips` sign patterns for `n` images: images 32 w to 32 w + 31 of pattern r take the bits of
    /// Philox(seed, "sign-flip", r, w).
    ///
    /// # Errors
    /// [`CausalError::Range`] when either is 0 or n exceeds 2^32 - 1.
    pub fn new(n: usize, flips: usize, seed: u64) -> Result<Self, CausalError> {
        checked_plan(n, flips)?;
        Self::of_clusters(&Clusters::single(n)?, flips, seed)
    }

    /// Draws `flips` sign patterns for clusters, by the same random numbers.
    ///
    /// # Errors
    /// [`CausalError::Range`] without flips, or with too many.
    pub fn of_clusters(clusters: &Clusters, flips: usize, seed: u64) -> Result<Self, CausalError> {
        checked_plan(clusters.images(), flips)?;
        let (stream, words) = (Stream::new(seed, "sign-flip"), clusters.count().div_ceil(32));
        let mut signs = vec![0u32; words * flips];
        signs.par_chunks_mut(words).enumerate().for_each(|(r, row)| {
            row.iter_mut().enumerate().for_each(|(w, word)| *word = stream.word(r as u64, w as u32));
        });
        Ok(SignFlip { clusters: clusters.clone(), words, signs })
    }

    /// p of every column: (b + 1) / (m + 1), b the number of the m patterns whose |mean| reaches the observed one
    /// (Phipson and Smyth 2010). `None` for a column with a value that is not finite.
    ///
    /// # Errors
    /// [`CausalError::Length`] when a column has not n values.
    pub fn p_values(&self, columns: &[&[f64]]) -> Result<Vec<Option<f64>>, CausalError> {
        checked_columns(self.clusters.images(), columns)?;
        let fill = |row: usize, first: usize, lane: usize, panel: &mut [f64]| {
            let words = &self.signs[row * self.words..];
            for (k, w) in panel[lane..].iter_mut().step_by(BLOCK).enumerate() {
                let i = first + k;
                *w = if words[i / 32] >> (i % 32) & 1 == 1 { -1.0 } else { 1.0 };
            }
        };
        let flips = self.signs.len() / self.words;
        // A pattern's mean divides by the same number of images as any other's: sums decide.
        let units: Vec<Vec<f64>> = columns.iter().map(|c| self.clusters.sums(c.iter().copied())).collect();
        let sums = weighted_sums(flips, self.clusters.count(), &units, fill);
        let p = |(c, column): (usize, &&[f64])| {
            let observed = column.iter().sum::<f64>().abs();
            // Patterns that only reorder the same sum tie with it; rounding must not decide.
            let slack = 1e-12 * column.iter().map(|x| x.abs()).sum::<f64>();
            let reached = sums.iter().filter(|row| row[c].abs() >= observed - slack).count();
            let finite = column.iter().all(|x| x.is_finite());
            finite.then(|| (reached as f64 + 1.0) / (flips as f64 + 1.0))
        };
        Ok(columns.iter().enumerate().map(p).collect())
    }

    /// p of every pair of columns, `with[k]` against `without[k]`, on the same images: of their differences by
    /// [`SignFlip::p_values`], as for effects on masked images against those on clean ones.
    ///
    /// # Errors
    /// [`CausalError::Length`] when the two have not one number of columns, or a column has not n values.
    pub fn paired(&self, with: &[&[f64]], without: &[&[f64]]) -> Result<Vec<Option<f64>>, CausalError> {
        same_length("columns to compare with", with.len(), without.len())?;
        checked_columns(self.clusters.images(), with)?;
        checked_columns(self.clusters.images(), without)?;
        let difference = |(a, b): (&&[f64], &&[f64])| a.iter().zip(*b).map(|(a, b)| a - b).collect::<Vec<f64>>();
        let differences: Vec<Vec<f64>> = with.iter().zip(without).map(difference).collect();
        self.p_values(&differences.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{cases, normals};
    use super::*;

    #[test]
    fn sign_flip_p_values_are_uniform_under_the_null_and_small_away_from_it() {
        let (s, datasets, n) = (Stream::new(5, "test"), 400u64, 30);
        let columns: Vec<Vec<f64>> = (0..datasets).map(|d| normals(&s, d, n)).collect();
        let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let test = SignFlip::new(n, 2000, 0).unwrap();
        let p: Vec<f64> = test.p_values(&views).unwrap().into_iter().flatten().collect();
        assert_eq!(p.len(), 400);
        for level in [0.05, 0.25, 0.5, 0.75] {
            let share = p.iter().filter(|&&p| p <= level).count() as f64 / 400.0;
            let se = (level * (1.0 - level) / 400.0f64).sqrt();
            assert!((share - level).abs() < 4.0 * se, "{level}: {share}");
        }
        let moved: Vec<f64> = columns[0].iter().map(|x| x + 3.0).collect();
        assert_eq!(test.p_values(&[&moved]).unwrap(), [Some(1.0 / 2001.0)]);
        let negative: Vec<f64> = moved.iter().map(|x| -x).collect();
        assert_eq!(test.p_values(&[&negative]).unwrap(), [Some(1.0 / 2001.0)]);
    }

    #[test]
    fn a_sign_flip_p_of_few_images_is_the_exact_one() {
        // all 8 patterns of 1, 2, 4 have different sums; |sum| = 7 for two of them: p = 1/4. Of 1, 1, 1: 2 of 8 too.
        let p = SignFlip::new(3, 20_000, 1).unwrap().p_values(&[&[1.0, 2.0, 4.0], &[0.1, 0.1, 0.1]]).unwrap();
        assert!(p.iter().all(|p| (p.unwrap() - 0.25).abs() < 4.0 * 0.0031), "{p:?}");
    }

    #[test]
    fn p_of_pairs_is_that_of_all_patterns_by_image_and_by_patient() {
        for case in cases().permutation {
            let test = SignFlip::of_clusters(&case.clusters(), 20_000, 3).unwrap();
            let p = test.paired(&[&case.with], &[&case.without]).unwrap()[0].unwrap();
            let se = (case.p * (1.0 - case.p) / 20_000.0).sqrt();
            assert!((p - case.p).abs() <= 4.0 * se + 1.0 / 20_001.0, "{}: {p} for {}", case.name, case.p);
        }
    }

    #[test]
    fn flips_of_clusters_of_one_image_are_those_of_images() {
        let s = Stream::new(6, "test");
        let (a, b) = (normals(&s, 0, 70), normals(&s, 1, 70));
        let differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
        let images = SignFlip::new(70, 500, 1).unwrap();
        let patients =
            SignFlip::of_clusters(&Clusters::new(&(0..70).rev().collect::<Vec<_>>()).unwrap(), 500, 1).unwrap();
        let p = images.p_values(&[&differences]).unwrap();
        assert_eq!(patients.p_values(&[&differences]).unwrap(), p);
        assert_eq!(images.paired(&[&a], &[&b]).unwrap(), p);
        assert_eq!(images.paired(&[&a], &[&a]).unwrap(), [Some(1.0)]);
        assert!(images.paired(&[&a], &[]).is_err() && images.paired(&[&a], &[&b[1..]]).is_err());
    }

    #[test]
    fn images_of_one_patient_are_no_evidence_of_their_own() {
        // 25 patients of 8 images that are all alike, under the null: by image nearly all would be found
        let (s, datasets) = (Stream::new(7, "test"), 300u64);
        let columns: Vec<Vec<f64>> =
            (0..datasets).map(|d| normals(&s, d, 25).iter().flat_map(|x| [*x; 8]).collect()).collect();
        let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let patient: Vec<usize> = (0..200).map(|i| i / 8).collect();
        let share = |test: SignFlip| {
            test.p_values(&views).unwrap().iter().filter(|p| p.unwrap() <= 0.05).count() as f64 / datasets as f64
        };
        let by_patient = share(SignFlip::of_clusters(&Clusters::new(&patient).unwrap(), 1000, 0).unwrap());
        // binomial se .0126
        assert!((by_patient - 0.05).abs() < 4.0 * 0.0126, "{by_patient}");
        // |normal of variance 8| > 1.96 in 49 of 100
        let by_image = share(SignFlip::new(200, 1000, 0).unwrap());
        assert!((by_image - 0.49).abs() < 4.0 * 0.029 + 0.02, "{by_image}");
    }
}
