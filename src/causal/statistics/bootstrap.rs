//! Resamples of images, or of clusters of images: the means of columns in each, and percentile intervals.

use rayon::prelude::*;

use super::super::CausalError;
use super::bca::{Bca, Resampled};
use super::clusters::{Clusters, checked_plan};
use super::weighted::{BLOCK, weighted_sums};
use super::{Interval, checked_columns, checked_level};
use crate::random::Stream;

/// Paired bootstrap over images (Efron and Tibshirani 1993, chapter 13): each resample draws n of n images with
/// replacement, the same for every column. The interval covers image sampling only.
///
/// Over clusters ([`Bootstrap::of_clusters`]) a resample draws m of m clusters with replacement and takes all images of
/// each. How many images that are differs between resamples, so a mean is a ratio: the sum over the drawn images divided
/// by their number.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    clusters: Clusters,
    /// resamples x images: how often each image was drawn. u8 saturates at 255; the chance that a resample of n >= 256
    /// images (or clusters) holds one 256 times is below 1e-500.
    counts: Vec<u8>,
    /// Images of every resample, repetitions counted.
    drawn: Vec<u64>,
}

impl Bootstrap {
    /// Draws `resamples` resamples of `n` images: draw i of resample r is Philox(seed, "bootstrap", r, i).
    ///
    /// # Errors
    /// [`CausalError::Range`] when either is 0 or n exceeds 2^32 - 1.
    pub fn new(n: usize, resamples: usize, seed: u64) -> Result<Self, CausalError> {
        checked_plan(n, resamples)?;
        Self::of_clusters(&Clusters::single(n)?, resamples, seed)
    }

    /// Draws `resamples` resamples of clusters, by the same random numbers: where every image is its own cluster these are
    /// the resamples of [`Bootstrap::new`].
    ///
    /// # Errors
    /// [`CausalError::Range`] without resamples, or with too many.
    pub fn of_clusters(clusters: &Clusters, resamples: usize, seed: u64) -> Result<Self, CausalError> {
        let (n, units) = (clusters.images(), clusters.count());
        checked_plan(n, resamples)?;
        let stream = Stream::new(seed, "bootstrap");
        let mut counts = vec![0u8; n * resamples];
        let draw = |units_drawn: &mut Vec<u8>, (r, counts): (usize, &mut [u8])| {
            units_drawn.fill(0);
            let mut images = 0;
            for i in 0..units {
                let unit = stream.below(r as u64, i as u32, units as u32) as usize;
                units_drawn[unit] = units_drawn[unit].saturating_add(1);
                images += u64::from(clusters.sizes()[unit]);
            }
            counts.iter_mut().zip(clusters.of()).for_each(|(count, &unit)| *count = units_drawn[unit as usize]);
            images
        };
        let drawn = counts.par_chunks_mut(n).enumerate().map_init(|| vec![0u8; units], draw).collect();
        Ok(Bootstrap { clusters: clusters.clone(), counts, drawn })
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.clusters.images()
    }

    /// What a resample draws from.
    pub fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    /// Number of resamples.
    pub fn resamples(&self) -> usize {
        self.drawn.len()
    }

    /// For every resample, how often each image is in it.
    pub fn counts(&self) -> impl IndexedParallelIterator<Item = &[u8]> {
        self.counts.par_chunks(self.images())
    }

    /// The mean of every column in every resample, as \[resample\]\[column\]. A column is centred on its first value
    /// for the sum, so constant columns give that constant bit for bit. A column with a NaN gives NaN.
    ///
    /// # Errors
    /// [`CausalError::Length`] when a column has not n values.
    pub fn means(&self, columns: &[&[f64]]) -> Result<Vec<Vec<f64>>, CausalError> {
        let n = self.images();
        checked_columns(n, columns)?;
        let centre: Vec<f64> = columns.iter().map(|c| c[0]).collect();
        let centred: Vec<Vec<f64>> = columns.iter().map(|c| c.iter().map(|x| x - c[0]).collect()).collect();
        let fill = |row: usize, first: usize, lane: usize, panel: &mut [f64]| {
            let counts = &self.counts[row * n + first..];
            panel[lane..].iter_mut().step_by(BLOCK).zip(counts).for_each(|(w, &count)| *w = f64::from(count));
        };
        let mut means = weighted_sums(self.resamples(), n, &centred, fill);
        for (row, &drawn) in means.iter_mut().zip(&self.drawn) {
            row.iter_mut().zip(&centre).for_each(|(sum, centre)| *sum = centre + *sum / drawn as f64);
        }
        Ok(means)
    }

    /// The means of every column: of the data, in every resample, and without each image (or cluster).
    ///
    /// # Errors
    /// As [`Bootstrap::means`].
    pub fn resampled(&self, columns: &[&[f64]]) -> Result<Resampled, CausalError> {
        Ok(Resampled::new(columns, &self.clusters, self.means(columns)?))
    }

    /// The percentile interval of the mean of every column; `None` for a column with a NaN.
    ///
    /// # Errors
    /// As [`Bootstrap::means`]; [`CausalError::Range`] for a level outside 0..1.
    pub fn intervals(&self, columns: &[&[f64]], level: f64) -> Result<Vec<Option<Interval>>, CausalError> {
        let means = self.means(columns)?;
        (0..columns.len()).map(|c| interval_of(&means, level, |row| row[c])).collect()
    }

    /// The BCa interval of the mean of every column; `None` for a column with a NaN.
    ///
    /// # Errors
    /// As [`Bootstrap::intervals`].
    pub fn bca(&self, columns: &[&[f64]], level: f64) -> Result<Vec<Option<Bca>>, CausalError> {
        let resampled = self.resampled(columns)?;
        (0..columns.len()).map(|c| resampled.bca(level, |row| row[c])).collect()
    }
}

/// The percentile interval of any statistic of the column means: `statistic` takes one resample's row of
/// [`Bootstrap::means`]. `None` when it is not finite in some resample.
///
/// # Errors
/// [`CausalError::Range`] for a level outside 0..1.
pub fn interval_of(
    means: &[Vec<f64>],
    level: f64,
    statistic: impl Fn(&[f64]) -> f64,
) -> Result<Option<Interval>, CausalError> {
    checked_level(level)?;
    let values: Vec<f64> = means.iter().map(|row| statistic(row)).collect();
    Ok(Interval::percentile(&values, level))
}

#[cfg(test)]
mod tests {
    use super::super::SignFlip;
    use super::super::fixture::normals;
    use super::*;

    #[test]
    fn resampled_means_are_those_of_the_counts() {
        let s = Stream::new(0, "test");
        // sizes around the panel, the block and the task
        for (n, resamples, width) in [(1, 1, 1), (7, 3, 5), (1025, 66, 9), (2050, 5, 4)] {
            let columns: Vec<Vec<f64>> = (0..width).map(|c| normals(&s, c, n)).collect();
            let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
            let boot = Bootstrap::new(n, resamples, 4).unwrap();
            let means = boot.means(&views).unwrap();
            let counts: Vec<&[u8]> = boot.counts().collect();
            assert_eq!((means.len(), boot.resamples()), (resamples, resamples));
            for (row, counts) in means.iter().zip(counts) {
                assert_eq!(counts.iter().map(|&c| usize::from(c)).sum::<usize>(), n);
                for (mean, column) in row.iter().zip(&columns) {
                    let sum: f64 = counts.iter().zip(column).map(|(&c, x)| f64::from(c) * x).sum();
                    assert!((mean - sum / n as f64).abs() < 1e-14);
                }
            }
        }
    }

    #[test]
    fn an_interval_of_constant_data_has_width_zero() {
        let boot = Bootstrap::new(1000, 200, 0).unwrap();
        let column = vec![0.1; 1000];
        let interval = boot.intervals(&[&column], 0.95).unwrap()[0].unwrap();
        assert_eq!((interval.lo.to_bits(), interval.width()), (0.1f64.to_bits(), 0.0));
    }

    #[test]
    fn an_interval_covers_the_true_mean_95_times_in_100() {
        let (s, datasets, n) = (Stream::new(11, "test"), 400u64, 100);
        let columns: Vec<Vec<f64>> = (0..datasets).map(|d| normals(&s, d, n)).collect();
        let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let intervals = Bootstrap::new(n, 2000, 0).unwrap().intervals(&views, 0.95).unwrap();
        let covered = intervals.iter().filter(|i| i.is_some_and(|i| i.lo <= 0.0 && i.hi >= 0.0)).count();
        // binomial se .011, and the percentile interval of n = 100 is about .005 short
        assert!((covered as f64 / datasets as f64 - 0.945).abs() < 4.0 * 0.011, "{covered}");
    }

    #[test]
    fn columns_are_resampled_together() {
        let s = Stream::new(2, "test");
        let a = normals(&s, 0, 500);
        let b: Vec<f64> = a.iter().map(|x| x + 0.25).collect();
        let means = Bootstrap::new(500, 300, 0).unwrap().means(&[&a, &b, &a]).unwrap();
        assert!(means.iter().all(|row| row[0].to_bits() == row[2].to_bits()));
        let paired = interval_of(&means, 0.95, |row| row[1] - row[0]).unwrap().unwrap();
        let single = interval_of(&means, 0.95, |row| row[0]).unwrap().unwrap();
        assert!(paired.width() < 1e-12 && single.width() > 0.1, "{paired:?} {single:?}");
    }

    #[test]
    fn results_do_not_depend_on_the_thread_count() {
        let s = Stream::new(3, "test");
        let columns: Vec<Vec<f64>> = (0..13).map(|c| normals(&s, c, 1500)).collect();
        let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let means = Bootstrap::new(1500, 300, 8).unwrap().means(&views).unwrap();
                let p = SignFlip::new(1500, 300, 8).unwrap().p_values(&views).unwrap();
                let bits: Vec<u64> = means.iter().flatten().map(|m| m.to_bits()).collect();
                (bits, p)
            })
        };
        let one = run(1);
        assert!([2, 3, 7].into_iter().all(|threads| run(threads) == one));
        // nor on the other columns
        let alone = Bootstrap::new(1500, 300, 8).unwrap().means(&views[5..6]).unwrap();
        assert!(alone.iter().enumerate().all(|(r, row)| row[0].to_bits() == one.0[r * 13 + 5]));
    }

    #[test]
    fn the_seed_decides_the_resamples() {
        let x: Vec<f64> = (0..100).map(f64::from).collect();
        let run = |seed| Bootstrap::new(100, 50, seed).unwrap().means(&[&x]).unwrap();
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn plans_and_columns_are_checked() {
        assert!(Bootstrap::new(0, 1, 0).is_err() && Bootstrap::new(1, 0, 0).is_err());
        assert!(SignFlip::new(0, 1, 0).is_err() && SignFlip::new(1, 0, 0).is_err());
        let boot = Bootstrap::new(3, 5, 0).unwrap();
        assert!(boot.means(&[&[1.0, 2.0]]).is_err());
        assert!(boot.means(&[]).unwrap().iter().all(Vec::is_empty));
        assert!([0.0, 1.0, f64::NAN].iter().all(|&l| boot.intervals(&[&[1.0, 2.0, 3.0]], l).is_err()));
    }

    #[test]
    fn clusters_of_one_image_are_resampled_as_images_are() {
        let s = Stream::new(7, "test");
        let columns = [normals(&s, 0, 300), normals(&s, 1, 300)];
        let views: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let names: Vec<String> = (0..300).map(|i| format!("patient {i}")).collect();
        let images = Bootstrap::new(300, 200, 9).unwrap();
        let patients = Bootstrap::of_clusters(&Clusters::new(&names).unwrap(), 200, 9).unwrap();
        let bits =
            |b: &Bootstrap| -> Vec<u64> { b.means(&views).unwrap().iter().flatten().map(|m| m.to_bits()).collect() };
        assert_eq!(bits(&images), bits(&patients));
        assert_eq!(images.resampled(&views).unwrap(), patients.resampled(&views).unwrap());
    }

    #[test]
    fn a_resample_of_clusters_holds_whole_clusters_and_divides_by_its_own_images() {
        let patient: Vec<u32> = (0..40).map(|i| i * i % 11).collect();
        let clusters = Clusters::new(&patient).unwrap();
        let column = normals(&Stream::new(8, "test"), 0, 40);
        let boot = Bootstrap::of_clusters(&clusters, 300, 1).unwrap();
        let (means, counts): (_, Vec<&[u8]>) = (boot.means(&[&column]).unwrap(), boot.counts().collect());
        let mut sizes = std::collections::BTreeSet::new();
        for (mean, counts) in means.iter().zip(counts) {
            let of_cluster = |c: usize| counts[clusters.of().iter().position(|&of| of as usize == c).unwrap()];
            assert!((0..40).all(|i| counts[i] == of_cluster(clusters.of()[i] as usize)));
            assert_eq!((0..clusters.count()).map(|c| usize::from(of_cluster(c))).sum::<usize>(), clusters.count());
            let drawn: f64 = counts.iter().map(|&c| f64::from(c)).sum();
            let sum: f64 = counts.iter().zip(&column).map(|(&c, x)| f64::from(c) * x).sum();
            assert!((mean[0] - sum / drawn).abs() < 1e-14);
            sizes.insert(drawn as usize);
        }
        assert!(sizes.len() > 5, "clusters of different sizes: {sizes:?}");
    }

    #[test]
    fn resampled_clusters_spread_as_the_robust_standard_error_says() {
        // 60 patients of 1 to 5 images that differ less among themselves than patients do
        let s = Stream::new(9, "test");
        let patient: Vec<u32> = (0..60).flat_map(|p| vec![p; 1 + p as usize % 5]).collect();
        let (own, rest) = (normals(&s, 0, 60), normals(&s, 1, patient.len()));
        let column: Vec<f64> = patient.iter().zip(rest).map(|(&p, e)| own[p as usize] + 0.3 * e).collect();
        let clusters = Clusters::new(&patient).unwrap();
        const RESAMPLES: usize = 20_000;
        let spread = |boot: Bootstrap| {
            let means: Vec<f64> = boot.means(&[&column]).unwrap().concat();
            super::super::Summary::of(&means).sd.unwrap()
        };
        let by_patient = spread(Bootstrap::of_clusters(&clusters, RESAMPLES, 2).unwrap());
        let by_image = spread(Bootstrap::new(patient.len(), RESAMPLES, 2).unwrap());
        let robust = super::super::Equivalence::of(&column, &clusters, 1.0, 0.05).unwrap().unwrap().se;
        // without the factor m / (m - 1), which resamples lack; an sd of R resamples has relative error 1 / sqrt(2 R) = .005,
        // and a ratio is linear in what was drawn up to terms of 1/m = .017
        let expected = robust * (59.0f64 / 60.0).sqrt();
        assert!((by_patient / expected - 1.0).abs() < 4.0 * 0.005 + 0.017, "{by_patient} for {expected}");
        assert!(by_image < 0.7 * by_patient, "{by_image} and {by_patient}");
    }
}
