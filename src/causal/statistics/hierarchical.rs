//! Resamples on two levels: trainings of the autoencoder (seeds), then images.

use super::super::{CausalError, same_length};
use super::bootstrap::{Bootstrap, interval_of};
use super::clusters::checked_plan;
use super::{Interval, checked_level};
use crate::random::Stream;

/// Bootstrap of the mean over seeds and images, both drawn with replacement.
///
/// The levels are crossed: every seed's autoencoder saw the same images. So a resample draws its images once and applies
/// them to every seed it drew. Images drawn anew for each seed, as if they were nested in it, would average out what an
/// image has of its own in all seeds, and the interval would be too short by that.
///
/// The interval covers both samplings. It is of few seeds: resamples of s seeds have (s - 1) / s of the variance that
/// seeds have, and with one seed nothing is said of seeds at all. The nodes of two seeds must have been matched before, for
/// node 5 of one training is not node 5 of another.
#[derive(Clone, Debug)]
pub struct Hierarchical {
    images: Bootstrap,
    /// resamples x seeds: how often each seed was drawn.
    counts: Vec<u32>,
    seeds: usize,
}

impl Hierarchical {
    /// Draws as many resamples of `seeds` seeds as `images` has of images (or of clusters of them): draw i of resample r is
    /// Philox(seed, "bootstrap-seeds", r, i).
    ///
    /// # Errors
    /// [`CausalError::Range`] without seeds.
    pub fn new(images: Bootstrap, seeds: usize, seed: u64) -> Result<Self, CausalError> {
        if seeds == 0 || seeds as u64 > u64::from(u32::MAX) {
            let range = "1 to 2^32 - 1";
            return Err(CausalError::Range { what: "the number of seeds", value: seeds as f64, range });
        }
        checked_plan(seeds, images.resamples())?;
        let stream = Stream::new(seed, "bootstrap-seeds");
        let mut counts = vec![0u32; seeds * images.resamples()];
        for (r, counts) in counts.chunks_exact_mut(seeds).enumerate() {
            for i in 0..seeds {
                counts[stream.below(r as u64, i as u32, seeds as u32) as usize] += 1;
            }
        }
        Ok(Hierarchical { images, counts, seeds })
    }

    /// Number of seeds.
    pub fn seeds(&self) -> usize {
        self.seeds
    }

    /// The mean over the drawn seeds of the drawn images' mean, as \[resample\]\[column\]; `columns` are
    /// \[seed\]\[column\], of one value an image. With one seed these are the images' resamples, bit for bit.
    ///
    /// # Errors
    /// [`CausalError::Length`] when the numbers of seeds, columns or images differ from what they must be.
    pub fn means(&self, columns: &[Vec<&[f64]>]) -> Result<Vec<Vec<f64>>, CausalError> {
        same_length("seeds of a column", self.seeds, columns.len())?;
        let width = columns.first().map_or(0, Vec::len);
        columns.iter().try_for_each(|seed| same_length("columns of a seed", width, seed.len()))?;
        let flat: Vec<&[f64]> = columns.iter().flatten().copied().collect();
        let of_seeds = self.images.means(&flat)?;
        let row = |(means, counts): (&Vec<f64>, &[u32])| {
            let mean = |c: usize| {
                let centre = means[c];
                let drawn = |(s, &count): (usize, &u32)| f64::from(count) * (means[s * width + c] - centre);
                centre + counts.iter().enumerate().map(drawn).sum::<f64>() / self.seeds as f64
            };
            (0..width).map(mean).collect()
        };
        Ok(of_seeds.iter().zip(self.counts.chunks_exact(self.seeds)).map(row).collect())
    }

    /// The percentile interval of the mean over seeds and images of every column; `None` for one with a NaN.
    ///
    /// # Errors
    /// As [`Hierarchical::means`]; [`CausalError::Range`] for a level outside 0..1.
    pub fn intervals(&self, columns: &[Vec<&[f64]>], level: f64) -> Result<Vec<Option<Interval>>, CausalError> {
        checked_level(level)?;
        let means = self.means(columns)?;
        let width = means.first().map_or(0, Vec::len);
        (0..width).map(|c| interval_of(&means, level, |row| row[c])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Summary;
    use super::super::fixture::normals;
    use super::*;

    #[test]
    fn with_one_seed_the_resamples_are_those_of_the_images() {
        let s = Stream::new(1, "test");
        let columns = [normals(&s, 0, 60), normals(&s, 1, 60)];
        let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let images = Bootstrap::new(60, 200, 3).unwrap();
        let both = Hierarchical::new(images.clone(), 1, 3).unwrap();
        let one = [views];
        let [views] = &one;
        assert_eq!(both.means(&one).unwrap(), images.means(views).unwrap());
        assert_eq!(both.intervals(&one, 0.95).unwrap(), images.intervals(views, 0.95).unwrap());
        // seeds that agree add nothing
        let agreeing = Hierarchical::new(images.clone(), 4, 3).unwrap();
        assert_eq!(agreeing.means(&vec![views.clone(); 4]).unwrap(), images.means(views).unwrap());
    }

    /// Column of seed s: what the seed has of its own, what the image has in all seeds, the rest.
    fn crossed(seeds: usize, n: usize, [of_seeds, of_images, rest]: [f64; 3]) -> Vec<Vec<f64>> {
        let s = Stream::new(2, "test");
        let (own, image) = (normals(&s, 0, seeds), normals(&s, 1, n));
        let column = |k: usize| {
            let noise = normals(&s, 2 + k as u64, n);
            noise.iter().zip(&image).map(|(e, i)| of_seeds * own[k] + of_images * i + rest * e).collect()
        };
        (0..seeds).map(column).collect()
    }

    #[test]
    fn resamples_spread_as_seeds_and_images_do_and_images_of_their_own_would_not() {
        const SEEDS: usize = 6;
        const IMAGES: usize = 50;
        const RESAMPLES: usize = 20_000;
        let sd = |x: &[f64]| Summary::of(x).sd.unwrap();
        for parts in [[0.0, 1.0, 0.1], [1.0, 0.0, 0.1], [0.3, 1.0, 1.0]] {
            let columns = crossed(SEEDS, IMAGES, parts);
            let images = Bootstrap::new(IMAGES, RESAMPLES, 5).unwrap();
            let nested: Vec<Vec<Vec<f64>>> = columns
                .iter()
                .enumerate()
                .map(|(s, c)| Bootstrap::new(IMAGES, RESAMPLES, 100 + s as u64).unwrap().means(&[c]).unwrap())
                .collect();
            let both = Hierarchical::new(images, SEEDS, 5).unwrap();
            let views: Vec<Vec<&[f64]>> = columns.iter().map(|c| vec![c.as_slice()]).collect();
            let found = sd(&both.means(&views).unwrap().concat());
            let drawn_apart = |r: usize| {
                let counts = &both.counts[r * SEEDS..][..SEEDS];
                counts.iter().enumerate().map(|(s, &c)| f64::from(c) * nested[s][r][0]).sum::<f64>() / SEEDS as f64
            };
            let apart = sd(&(0..RESAMPLES).map(drawn_apart).collect::<Vec<_>>());
            // The variance of a double sum with independent draws on either side, all moments those of the data: seeds'
            // means over seeds, images' means over images, what is left over both.
            let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
            let variance = |x: &[f64]| x.iter().map(|v| (v - mean(x)).powi(2)).sum::<f64>() / x.len() as f64;
            let of_seeds: Vec<f64> = columns.iter().map(|c| mean(c)).collect();
            let of_images: Vec<f64> =
                (0..IMAGES).map(|i| mean(&columns.iter().map(|c| c[i]).collect::<Vec<_>>())).collect();
            let all = mean(&of_seeds);
            let left: Vec<f64> = (0..SEEDS * IMAGES)
                .map(|at| columns[at / IMAGES][at % IMAGES] - of_seeds[at / IMAGES] - of_images[at % IMAGES] + all)
                .collect();
            let (s, n) = (SEEDS as f64, IMAGES as f64);
            let expected = (variance(&of_seeds) / s + variance(&of_images) / n + variance(&left) / (s * n)).sqrt();
            // an sd of R resamples: 1 / sqrt(2 R) = .005
            assert!((found / expected - 1.0).abs() < 4.0 * 0.005, "{parts:?}: {found} for {expected}");
            if parts[0] == 0.0 {
                // E (count^2) / s = 2 - 1/s of the images' variance is left of s: sqrt(1.83 / 6) = .55
                assert!(apart < 0.65 * found, "{parts:?}: {apart} and {found}");
            }
        }
    }

    #[test]
    fn constants_keep_their_bits_and_uneven_columns_are_refused() {
        let images = Bootstrap::new(5, 30, 0).unwrap();
        let both = Hierarchical::new(images.clone(), 3, 0).unwrap();
        let (tenth, nan) = ([0.1; 5], [0.0, 1.0, f64::NAN, 0.0, 0.0]);
        let columns = vec![vec![&tenth[..], &nan[..]]; 3];
        let interval = Some(Interval { lo: 0.1, hi: 0.1 });
        assert_eq!(both.intervals(&columns, 0.95).unwrap(), [interval, None]);
        assert_eq!(both.seeds(), 3);
        assert!(both.means(&columns[1..]).is_err() && both.intervals(&columns, 0.0).is_err());
        let uneven = vec![vec![&tenth[..]], vec![&tenth[..], &nan[..]], vec![&tenth[..]]];
        assert!(both.means(&uneven).is_err());
        assert!(Hierarchical::new(images, 0, 0).is_err());
    }
}
