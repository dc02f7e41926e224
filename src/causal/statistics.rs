//! How surely: paired bootstrap over images, sign-flip permutation test, Holm's adjustment, summaries of a column.
//!
//! A column is one number per image (f64, length n), in dataset order; a table row, a node or a condition is a column.
//! Called by the sweep for `summary.csv` and by `claims`. Resamples and flips are drawn once and serve every column, so
//! differences and ratios of columns are paired. Random numbers are keyed by (seed, resample, draw), and every sum adds
//! in image order, so results do not depend on the thread count.
//!
//! A column with a NaN has no statistics: they are null (`None`), and [`Summary::nan`] counts.
//!
//! Cost: 2,000 resamples x 10,000 images x 200 columns, 4e9 multiply-adds, take 0.5 s on one core of a server Xeon in a build
//! for plain x86-64 (SSE2), 0.27 s on two; drawing the resamples 0.2 s (the ignored test below repeats it).

use rayon::prelude::*;

use super::{CausalError, same_length};
pub use crate::interval::Interval;
use crate::random::Stream;

/// Rows and columns of the register block of [`weighted_sums`]: 16 sums in 8 SSE2 registers of 16.
const BLOCK: usize = 4;
/// Images of one panel: 1,024 x 4 weights are 32 KiB.
const PANEL: usize = 1024;
/// Rows of one parallel task; a task reads every column once.
const TASK: usize = 64;

/// sum_i weight\[r\]\[i\] x\[c\]\[i\] for every row r and column c, as \[row\]\[column\]. `fill(r, first, lane, panel)`
/// writes the weights of images first.. of row r into panel\[lane\], panel\[lane + BLOCK\], … Each sum adds in image
/// order, whatever the blocks and threads.
fn weighted_sums(
    rows: usize,
    n: usize,
    columns: &[Vec<f64>],
    fill: impl Fn(usize, usize, usize, &mut [f64]) + Sync,
) -> Vec<Vec<f64>> {
    let blocks = columns.len().div_ceil(BLOCK);
    // packed[block][image][BLOCK]; missing columns are 0
    let mut packed = vec![0.0; blocks * n * BLOCK];
    for (c, column) in columns.iter().enumerate() {
        let (block, lane) = (c / BLOCK, c % BLOCK);
        for (i, &x) in column.iter().enumerate() {
            packed[(block * n + i) * BLOCK + lane] = x;
        }
    }
    let starts: Vec<usize> = (0..rows).step_by(TASK).collect();
    let task = |&start: &usize| {
        let count = TASK.min(rows - start);
        let groups = count.div_ceil(BLOCK);
        let mut sums = vec![[[0.0f64; BLOCK]; BLOCK]; groups * blocks];
        let mut panel = vec![0.0; PANEL * BLOCK];
        for first in (0..n).step_by(PANEL) {
            let images = PANEL.min(n - first);
            for group in 0..groups {
                let panel = &mut panel[..images * BLOCK];
                for lane in 0..BLOCK {
                    match group * BLOCK + lane {
                        row if row < count => fill(start + row, first, lane, panel),
                        _ => panel[lane..].iter_mut().step_by(BLOCK).for_each(|w| *w = 0.0),
                    }
                }
                for block in 0..blocks {
                    let x = &packed[(block * n + first) * BLOCK..][..images * BLOCK];
                    let sum = &mut sums[group * blocks + block];
                    let mut local = *sum;
                    for (w, x) in panel.chunks_exact(BLOCK).zip(x.chunks_exact(BLOCK)) {
                        for r in 0..BLOCK {
                            for c in 0..BLOCK {
                                local[r][c] += w[r] * x[c];
                            }
                        }
                    }
                    *sum = local;
                }
            }
        }
        let row = |r: usize| {
            (0..columns.len()).map(|c| sums[r / BLOCK * blocks + c / BLOCK][r % BLOCK][c % BLOCK]).collect::<Vec<_>>()
        };
        (0..count).map(row).collect::<Vec<_>>()
    };
    starts.par_iter().map(task).collect::<Vec<_>>().into_iter().flatten().collect()
}

/// Images and repetitions of a resampling plan, checked.
fn checked_plan(n: usize, repeats: usize) -> Result<(), CausalError> {
    if n == 0 || n as u64 > u64::from(u32::MAX) {
        return Err(CausalError::Range { what: "the number of images", value: n as f64, range: "1 to 2^32 - 1" });
    }
    if repeats == 0 || n.checked_mul(repeats).is_none_or(|all| all > isize::MAX as usize) {
        let range = "at least 1, and few enough to address images x resamples";
        return Err(CausalError::Range { what: "the number of resamples", value: repeats as f64, range });
    }
    Ok(())
}

/// Columns of the plan's length, or the error.
fn checked_columns(n: usize, columns: &[&[f64]]) -> Result<(), CausalError> {
    columns.iter().try_for_each(|column| same_length("a column (one value an image)", n, column.len()))
}

impl Interval {
    /// The percentile interval that leaves (1 - level) / 2 of the values on either side, ends by [`quantile`]; `None`
    /// without values, with one that is not finite, or for a level outside 0..1.
    pub fn percentile(values: &[f64], level: f64) -> Option<Interval> {
        if values.is_empty() || !values.iter().all(|v| v.is_finite()) || !(level > 0.0 && level < 1.0) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let tail = (1.0 - level) / 2.0;
        Some(Interval { lo: quantile(&sorted, tail)?, hi: quantile(&sorted, 1.0 - tail)? })
    }
}

/// The quantile of type 7 (Hyndman and Fan 1996; the default of R and NumPy): between the neighbours of position
/// (n - 1) probability of the ascending values. `None` without values or for a probability outside 0..=1.
pub fn quantile(sorted: &[f64], probability: f64) -> Option<f64> {
    if !(0.0..=1.0).contains(&probability) {
        return None;
    }
    let position = sorted.len().checked_sub(1)? as f64 * probability;
    let below = position.floor();
    let (lo, hi) = (*sorted.get(below as usize)?, *sorted.get(position.ceil() as usize)?);
    // Equal neighbours give their own bits.
    Some(if lo == hi { lo } else { lo + (position - below) * (hi - lo) })
}

/// Paired percentile bootstrap over images (Efron and Tibshirani 1993, chapter 13): each resample draws n of n images
/// with replacement, the same for every column. The interval covers image sampling only.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    n: usize,
    /// resamples x n: how often each image was drawn. u8 saturates at 255; the chance that a resample of n >= 256
    /// images holds one 256 times is below 1e-500.
    counts: Vec<u8>,
}

impl Bootstrap {
    /// Draws `resamples` resamples of `n` images: draw i of resample r is Philox(seed, "bootstrap", r, i).
    ///
    /// # Errors
    /// [`CausalError::Range`] when either is 0 or n exceeds 2^32 - 1.
    pub fn new(n: usize, resamples: usize, seed: u64) -> Result<Self, CausalError> {
        checked_plan(n, resamples)?;
        let stream = Stream::new(seed, "bootstrap");
        let mut counts = vec![0u8; n * resamples];
        counts.par_chunks_mut(n).enumerate().for_each(|(r, counts)| {
            for i in 0..n {
                let image = stream.below(r as u64, i as u32, n as u32) as usize;
                counts[image] = counts[image].saturating_add(1);
            }
        });
        Ok(Bootstrap { n, counts })
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.n
    }

    /// Number of resamples.
    pub fn resamples(&self) -> usize {
        self.counts.len() / self.n
    }

    /// For every resample, how often each image is in it.
    pub fn counts(&self) -> impl IndexedParallelIterator<Item = &[u8]> {
        self.counts.par_chunks(self.n)
    }

    /// The mean of every column in every resample, as \[resample\]\[column\]. A column is centred on its first value
    /// for the sum, so constant columns give that constant bit for bit. A column with a NaN gives NaN.
    ///
    /// # Errors
    /// [`CausalError::Length`] when a column has not n values.
    pub fn means(&self, columns: &[&[f64]]) -> Result<Vec<Vec<f64>>, CausalError> {
        checked_columns(self.n, columns)?;
        let centre: Vec<f64> = columns.iter().map(|c| c[0]).collect();
        let centred: Vec<Vec<f64>> = columns.iter().map(|c| c.iter().map(|x| x - c[0]).collect()).collect();
        let fill = |row: usize, first: usize, lane: usize, panel: &mut [f64]| {
            let counts = &self.counts[row * self.n + first..];
            panel[lane..].iter_mut().step_by(BLOCK).zip(counts).for_each(|(w, &count)| *w = f64::from(count));
        };
        let mut means = weighted_sums(self.resamples(), self.n, &centred, fill);
        for row in &mut means {
            row.iter_mut().zip(&centre).for_each(|(sum, centre)| *sum = centre + *sum / self.n as f64);
        }
        Ok(means)
    }

    /// The percentile interval of the mean of every column; `None` for a column with a NaN.
    ///
    /// # Errors
    /// As [`Bootstrap::means`]; [`CausalError::Range`] for a level outside 0..1.
    pub fn intervals(&self, columns: &[&[f64]], level: f64) -> Result<Vec<Option<Interval>>, CausalError> {
        let means = self.means(columns)?;
        (0..columns.len()).map(|c| interval_of(&means, level, |row| row[c])).collect()
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

/// A confidence level, between 0 and 1.
pub(super) fn checked_level(level: f64) -> Result<(), CausalError> {
    if level > 0.0 && level < 1.0 {
        return Ok(());
    }
    Err(CausalError::Range { what: "the confidence level", value: level, range: "between 0 and 1" })
}

/// What is said of one column.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Number of values.
    pub n: usize,
    /// How many of them are not numbers (NaN or infinite); with any, the rest is null.
    pub nan: usize,
    /// Mean.
    pub mean: Option<f64>,
    /// Standard deviation, divisor n - 1; null below two values.
    pub sd: Option<f64>,
    /// Median.
    pub median: Option<f64>,
    /// Mean of |x|.
    pub mean_abs: Option<f64>,
    /// Share of values above 0.
    pub share_positive: Option<f64>,
}

impl Summary {
    /// Of one column.
    pub fn of(column: &[f64]) -> Self {
        let n = column.len();
        let nan = column.iter().filter(|x| !x.is_finite()).count();
        let none = Summary { n, nan, mean: None, sd: None, median: None, mean_abs: None, share_positive: None };
        let (Some(&first), true) = (column.first(), nan == 0) else { return none };
        let count = n as f64;
        let mean = first + column.iter().map(|x| x - first).sum::<f64>() / count;
        let squares: f64 = column.iter().map(|x| (x - mean) * (x - mean)).sum();
        let mut sorted = column.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Summary {
            mean: Some(mean),
            sd: (n > 1).then(|| (squares / (count - 1.0)).sqrt()),
            median: quantile(&sorted, 0.5),
            mean_abs: Some(column.iter().map(|x| x.abs()).sum::<f64>() / count),
            share_positive: Some(column.iter().filter(|x| **x > 0.0).count() as f64 / count),
            ..none
        }
    }
}

/// Sign-flip permutation test of mean = 0 (for values symmetric about 0 under the null), two-sided.
#[derive(Clone, Debug)]
pub struct SignFlip {
    n: usize,
    words: usize,
    /// flips x words: bit i % 32 of word i / 32 set when image i changes its sign.
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
        let (stream, words) = (Stream::new(seed, "sign-flip"), n.div_ceil(32));
        let mut signs = vec![0u32; words * flips];
        signs.par_chunks_mut(words).enumerate().for_each(|(r, row)| {
            row.iter_mut().enumerate().for_each(|(w, word)| *word = stream.word(r as u64, w as u32));
        });
        Ok(SignFlip { n, words, signs })
    }

    /// p of every column: (b + 1) / (m + 1), b the number of the m patterns whose |mean| reaches the observed one
    /// (Phipson and Smyth 2010). `None` for a column with a value that is not finite.
    ///
    /// # Errors
    /// [`CausalError::Length`] when a column has not n values.
    pub fn p_values(&self, columns: &[&[f64]]) -> Result<Vec<Option<f64>>, CausalError> {
        checked_columns(self.n, columns)?;
        let fill = |row: usize, first: usize, lane: usize, panel: &mut [f64]| {
            let words = &self.signs[row * self.words..];
            for (k, w) in panel[lane..].iter_mut().step_by(BLOCK).enumerate() {
                let i = first + k;
                *w = if words[i / 32] >> (i % 32) & 1 == 1 { -1.0 } else { 1.0 };
            }
        };
        let flips = self.signs.len() / self.words;
        let owned: Vec<Vec<f64>> = columns.iter().map(|c| c.to_vec()).collect();
        let sums = weighted_sums(flips, self.n, &owned, fill);
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
}

/// Holm's step-down adjustment (Holm 1979): the k-th smallest of m becomes the running maximum of (m - k + 1) p, at most
/// 1. Null and NaN values stay null and are not counted in m.
pub fn holm(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<(usize, f64)> =
        p.iter().enumerate().filter_map(|(i, p)| p.filter(|p| !p.is_nan()).map(|p| (i, p))).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut adjusted = vec![None; p.len()];
    let mut least = 0.0f64;
    for (k, &(i, p)) in order.iter().enumerate() {
        least = least.max(p * (order.len() - k) as f64).min(1.0);
        adjusted[i] = Some(least);
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Standard normals by Box and Muller.
    fn normals(stream: &Stream, dataset: u64, n: usize) -> Vec<f64> {
        let one = |i: u32| {
            let u = 1.0 - f64::from(stream.uniform(dataset, 2 * i));
            let v = f64::from(stream.uniform(dataset, 2 * i + 1));
            (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        };
        (0..n as u32).map(one).collect()
    }

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
    fn quantiles_are_of_type_seven() {
        let x = [1.0, 2.0, 4.0, 8.0];
        // numpy.quantile([1, 2, 4, 8], [0, .25, .5, .9, 1])
        let got: Vec<f64> = [0.0, 0.25, 0.5, 0.9, 1.0].iter().map(|&q| quantile(&x, q).unwrap()).collect();
        approx::assert_relative_eq!(got.as_slice(), [1.0, 1.75, 3.0, 6.8, 8.0].as_slice(), max_relative = 1e-15);
        assert_eq!((quantile(&[], 0.5), quantile(&x, 1.1), quantile(&x, f64::NAN)), (None, None, None));
        assert_eq!(Interval::percentile(&[1.0, f64::NAN], 0.95), None);
        assert_eq!(Interval::percentile(&[1.0, 2.0], 1.0), None);
    }

    #[test]
    fn a_summary_is_right_by_hand_and_null_with_a_nan() {
        let s = Summary::of(&[-1.0, 0.0, 2.0, 3.0]);
        assert_eq!((s.n, s.nan, s.mean, s.median), (4, 0, Some(1.0), Some(1.0)));
        assert_eq!((s.mean_abs, s.share_positive), (Some(1.5), Some(0.5)));
        assert!((s.sd.unwrap() - (10.0f64 / 3.0).sqrt()).abs() < 1e-15);
        let s = Summary::of(&[1.0, f64::NAN]);
        assert_eq!((s.n, s.nan, s.mean, s.share_positive), (2, 1, None, None));
        assert_eq!((Summary::of(&[]).mean, Summary::of(&[5.0]).sd), (None, None));
        let column = [0.0, f64::NAN, 1.0];
        assert_eq!(Bootstrap::new(3, 9, 0).unwrap().intervals(&[&column], 0.95).unwrap(), [None]);
        assert_eq!(SignFlip::new(3, 9, 0).unwrap().p_values(&[&column, &[0.0; 3]]).unwrap(), [None, Some(1.0)]);
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
    fn holm_by_hand() {
        let p = [Some(0.01), Some(0.04), None, Some(0.03), Some(0.005)];
        let want = [Some(0.03), Some(0.06), None, Some(0.06), Some(0.02)];
        for (got, want) in holm(&p).iter().zip(want) {
            assert!(got.is_some() == want.is_some() && (got.unwrap_or(0.0) - want.unwrap_or(0.0)).abs() < 1e-15);
        }
        assert_eq!(holm(&[Some(0.6), Some(0.7), Some(f64::NAN)]), [Some(1.0), Some(1.0), None]);
        assert!(holm(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn holm_never_lowers_a_p_and_keeps_the_order(p in prop::collection::vec(0f64..1.0, 0..30)) {
            let raw: Vec<_> = p.iter().map(|&p| Some(p)).collect();
            let adjusted: Vec<f64> = holm(&raw).into_iter().flatten().collect();
            for i in 0..p.len() {
                prop_assert!(adjusted[i] >= p[i] && adjusted[i] <= 1.0);
                prop_assert!((0..p.len()).all(|j| p[i] > p[j] || adjusted[i] <= adjusted[j]));
            }
        }
    }
}
