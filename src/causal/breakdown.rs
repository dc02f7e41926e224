//! Effects taken apart: by the class whose probability they change ([`by_class`]), and by which images they are of
//! ([`by_stratum`]). Intervals are Student's over images: there are a hundred thousand of them for a thousand classes.

use super::CausalError;
use super::analysis::{Columns, Quantity, responses};
use super::effect::Reading;
use super::study::{Input, Shard};
use crate::interval::Interval;
use crate::model::Head;
use rayon::prelude::*;

/// A mean over images, and how surely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// Number of values.
    pub n: usize,
    /// Mean; not a number where a value is none.
    pub mean: f64,
    /// Standard deviation, divisor n - 1; not a number below two values.
    pub sd: f64,
    /// Interval of the mean; none below two values.
    pub interval: Option<Interval>,
}

/// Sums for a mean and its standard deviation, of values that come one by one (Welford 1962) or group by group (Chan, Golub and
/// LeVeque 1979).
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    n: usize,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.n += 1;
        let before = value - self.mean;
        self.mean += before / self.n as f64;
        self.squares += before * (value - self.mean);
    }

    fn merge(&mut self, other: &Moments) {
        let n = self.n + other.n;
        if other.n == 0 {
            return;
        }
        let between = other.mean - self.mean;
        self.mean += between * other.n as f64 / n as f64;
        self.squares += other.squares + between * between * (self.n as f64 * other.n as f64 / n as f64);
        self.n = n;
    }

    fn summed(&self, level: f64) -> Mean {
        let mean = if self.n == 0 { f64::NAN } else { self.mean };
        let sd = if self.n < 2 { f64::NAN } else { (self.squares / (self.n as f64 - 1.0)).sqrt() };
        Mean { n: self.n, mean, sd, interval: Interval::of_mean(mean, sd, self.n, level) }
    }
}

/// The effect of an intervention on the probability of one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassEffect {
    /// Position in [`Columns::inputs`]: the effect is within that input (Z0 or R1).
    pub input: usize,
    /// Position in the sweep's sets.
    pub set: usize,
    /// The class, or the finding.
    pub class: usize,
    /// Effect_c = q_c - p_c (ICIP 2019, eq. (1)) over images; an image's is its mean over masks.
    pub effect: Mean,
}

/// The matrix of effects: every intervention on every class under every input, in that order of inputs, sets, classes.
///
/// # Errors
/// [`CausalError`] when shards do not hold what `columns` was made of.
pub fn by_class(
    shards: &[Shard],
    columns: &Columns,
    (head, classes): (Head, usize),
    level: f64,
) -> Result<Vec<ClassEffect>, CausalError> {
    let (inputs, sets) = (&columns.inputs, columns.sets);
    // shard by shard, and then in their order, so that threads do not show
    let parts: Vec<Vec<Moments>> =
        shards.par_iter().map(|shard| shard_moments(shard, inputs, sets, head, classes)).collect::<Result<_, _>>()?;
    let mut all = vec![Moments::default(); inputs.len() * sets * classes];
    for part in parts {
        all.iter_mut().zip(&part).for_each(|(all, part)| all.merge(part));
    }
    let at = |i: usize| ClassEffect {
        input: i / (sets * classes),
        set: i / classes % sets,
        class: i % classes,
        effect: all[i].summed(level),
    };
    Ok((0..all.len()).map(at).collect())
}

fn shard_moments(
    shard: &Shard,
    inputs: &[Input],
    sets: usize,
    head: Head,
    classes: usize,
) -> Result<Vec<Moments>, CausalError> {
    let mut moments = vec![Moments::default(); inputs.len() * sets * classes];
    for i in 0..shard.ids.len() {
        let mut sums = vec![0.0; moments.len()];
        let mut masks = vec![0.0f64; inputs.len()];
        for answers in &shard.answers {
            let Some(input) = inputs.iter().position(|input| *input == answers.input) else { continue };
            let here = responses(answers, i, sets, head, classes)?;
            masks[input] += 1.0;
            for set in 0..sets {
                let at = (input * sets + set) * classes;
                sums[at..].iter_mut().zip(here.node_effects(set)?).for_each(|(sum, effect)| *sum += effect);
            }
        }
        let width = sets * classes;
        for (at, (moments, sum)) in moments.iter_mut().zip(sums).enumerate() {
            moments.add(sum / masks[at / width.max(1)]);
        }
    }
    Ok(moments)
}

/// Some of the images, by what they have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stratum {
    /// By what: `label`, `predicted`, `correct`, `finding`, `sex`, `view`.
    pub by: String,
    /// Its value.
    pub value: String,
    /// Positions of the images.
    pub images: Vec<u32>,
}

/// An effect within a stratum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StratumEffect {
    /// Position in the strata.
    pub stratum: usize,
    /// Position in [`Columns::inputs`].
    pub input: usize,
    /// Position in the sweep's sets.
    pub set: usize,
    /// Class-weighted effect within the input (Z0, R1).
    pub effect: Mean,
}

/// Class-weighted effects of every intervention within every stratum, under every input.
///
/// # Errors
/// [`CausalError::Index`] for an image that there is not.
pub fn by_stratum(columns: &Columns, strata: &[Stratum], level: f64) -> Result<Vec<StratumEffect>, CausalError> {
    let images = columns.images();
    let beyond = strata.iter().flat_map(|s| &s.images).find(|&&i| i as usize >= images);
    if let Some(&index) = beyond {
        return Err(CausalError::Index { what: "image", index: index as usize, count: images });
    }
    let mut all = Vec::with_capacity(strata.len() * columns.inputs.len() * columns.sets);
    for (stratum, Stratum { images, .. }) in strata.iter().enumerate() {
        for input in 0..columns.inputs.len() {
            let reading = if input == 0 { Reading::Z0 } else { Reading::R1 };
            for set in 0..columns.sets {
                let column = columns.get(input, set, Quantity::Ece(reading));
                let mut moments = Moments::default();
                images.iter().filter_map(|&i| column.get(i as usize)).for_each(|&value| moments.add(value));
                all.push(StratumEffect { stratum, input, set, effect: moments.summed(level) });
            }
        }
    }
    Ok(all)
}

/// The strata of images by a value each; images without one are in none. In order of the values.
pub fn strata(by: &str, values: &[Option<String>]) -> Vec<Stratum> {
    let mut found = std::collections::BTreeMap::<&str, Vec<u32>>::new();
    for (i, value) in values.iter().enumerate() {
        if let Some(value) = value {
            found.entry(value).or_default().push(i as u32);
        }
    }
    found.into_iter().map(|(value, images)| Stratum { by: by.into(), value: value.into(), images }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::study::Answers;
    use crate::causal::sweep::Logits;
    use approx::assert_relative_eq;

    /// Shards of a few images with logits by a rule, two sets, three classes, masks 0 and 1 of a masked input.
    fn shards(sizes: &[usize]) -> Vec<Shard> {
        let mut first = 0;
        let of = |n: usize, first: usize, salt: usize| -> Logits {
            let value = |k: usize| ((k * 7 + first * 31 + salt * 13) % 17) as f32 * 0.1;
            Logits {
                orig: (0..n * 3).map(value).collect(),
                idle: (0..n * 3).map(|k| value(k + 5)).collect(),
                done: (0..n * 6).map(|k| value(k + 11)).collect(),
                live: vec![true; n * 2],
            }
        };
        let mut all = Vec::new();
        for &n in sizes {
            let masked = |mask: u32| Answers {
                input: Input::Pwm {
                    masks: 2,
                    fill: crate::causal::fill::Fill::Value(0.0),
                    region: crate::causal::mask::Region::Grid10,
                },
                mask,
                fraction: vec![0.1; n],
                logits: of(n, first, 2 + mask as usize),
            };
            let clean = Answers { input: Input::None, mask: 0, fraction: vec![], logits: of(n, first, 0) };
            all.push(Shard {
                first,
                ids: (0..n).map(|i| (first + i) as u64).collect(),
                labels: vec![0; n],
                answers: vec![clean, masked(0), masked(1)],
            });
            first += n;
        }
        all
    }

    #[test]
    fn the_matrix_is_the_mean_of_every_images_effects_over_masks_and_then_images() {
        let shards = shards(&[3, 2]);
        let columns = Columns::of(&shards, Head::Softmax, 3).unwrap();
        let matrix = by_class(&shards, &columns, (Head::Softmax, 3), 0.95).unwrap();
        assert_eq!(matrix.len(), 2 * 2 * 3);
        for cell in &matrix {
            let mut values = Vec::new();
            for shard in &shards {
                for i in 0..shard.ids.len() {
                    let answers: &[usize] = if cell.input == 0 { &[0] } else { &[1, 2] };
                    let one = |&a: &usize| {
                        responses(&shard.answers[a], i, 2, Head::Softmax, 3).unwrap().node_effects(cell.set).unwrap()
                            [cell.class]
                    };
                    values.push(answers.iter().map(one).sum::<f64>() / answers.len() as f64);
                }
            }
            let summary = crate::causal::statistics::Summary::of(&values);
            assert_eq!(cell.effect.n, 5);
            assert_relative_eq!(cell.effect.mean, summary.mean.unwrap(), max_relative = 1e-12, epsilon = 1e-15);
            assert_relative_eq!(cell.effect.sd, summary.sd.unwrap(), max_relative = 1e-12, epsilon = 1e-15);
        }
        // probabilities add up to 1 before and after
        for row in matrix.chunks(3) {
            assert!(row.iter().map(|cell| cell.effect.mean).sum::<f64>().abs() < 1e-14);
        }
    }

    #[test]
    fn strata_are_means_over_their_images_and_together_the_whole() {
        let shards = shards(&[4, 3]);
        let columns = Columns::of(&shards, Head::Softmax, 3).unwrap();
        let values: Vec<Option<String>> = (0..7).map(|i| (i != 6).then(|| format!("{}", i % 2))).collect();
        let strata = strata("parity", &values);
        assert_eq!(strata.len(), 2);
        assert_eq!((strata[1].value.as_str(), &strata[1].images[..]), ("1", &[1u32, 3, 5][..]));
        let effects = by_stratum(&columns, &strata, 0.95).unwrap();
        assert_eq!(effects.len(), 2 * 2 * 2);
        let at =
            |stratum, set| effects.iter().find(|e| (e.stratum, e.input, e.set) == (stratum, 0, set)).unwrap().effect;
        for set in 0..2 {
            let column = columns.get(0, set, Quantity::Ece(Reading::Z0));
            let whole: f64 = column[..6].iter().sum();
            assert_relative_eq!(at(0, set).mean * 3.0 + at(1, set).mean * 3.0, whole, max_relative = 1e-12);
        }
        let beyond = [Stratum { by: "x".into(), value: "y".into(), images: vec![7] }];
        assert!(matches!(by_stratum(&columns, &beyond, 0.95), Err(CausalError::Index { index: 7, .. })));
        // one image has a mean and no interval; none has neither
        let few = [1, 0].map(|n| Stratum { by: "x".into(), value: n.to_string(), images: (0..n).collect() });
        let few = by_stratum(&columns, &few, 0.95).unwrap();
        assert!(few[0].effect.mean.is_finite() && few[0].effect.interval.is_none());
        assert!(few.last().unwrap().effect.mean.is_nan());
    }
}
