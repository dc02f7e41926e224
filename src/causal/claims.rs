//! The verdict on the paper's claims (a), |ECE| falls when pixels are masked, and (b), it falls under attack.
//!
//! Called by `reproduce` and `ce` once a condition, with one column of per-image ECE a node for the clean (Z0) and the
//! perturbed input (R1) of the same images; [`judge`] returns every number, and its `Display` says the verdict in words.
//! A random-noise control is just another condition ([`Claim::Control`]).
//!
//! Per live node D = |mean_i ECE_i(perturbed)| - |mean_i ECE_i(Z0)| with a paired bootstrap interval over images: the
//! claim holds for the node when the interval is below 0, fails when it is above, else it is undecided. The verdict is on
//! the ratio of the mean over live nodes of |mean_i ECE_i| to that of Z0. Live means |Z0 mean| > 1e-4: dead nodes tie at
//! 0, and a count over all nodes would credit them to someone. Beside it stand the ratio at the clean confidence mix (what
//! is left when only confidence moved) and the ratios that two artefacts of the released code make by themselves.

use std::fmt;

use rayon::prelude::*;
use serde::Serialize;

use super::statistics::{Bootstrap, Interval, SignFlip, checked_level, holm, interval_of, quantile};
use super::{CausalError, named, same_length};

/// A node is live when its |Z0 mean| exceeds this (set after seeing the Fashion-MNIST effects, where it parts 1e-3 to
/// 1e-1 from 1e-5 and below).
pub const LIVE_MIN: f64 = 1e-4;

/// Bins of the largest idle probability for the ratio at a matched confidence mix.
pub const CONFIDENCE_BINS: usize = 6;

/// Which claim a condition tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// (a): |ECE| falls under pixel masking (ICIP 2019, tables 1 to 3, column PWM).
    Masking,
    /// (b): |ECE| falls under attack (ICIP 2019, tables 2 to 4).
    Attack,
    /// No claim of the paper: harmless noise, judged the same way.
    Control,
}

named!(Claim, "claim", { Masking => "a", Attack => "b", Control => "control" });

/// Whether a claimed fall is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The interval shows a fall.
    Holds,
    /// The interval shows a rise.
    Fails,
    /// The interval shows neither, or there is none.
    Undecided,
}

named!(Verdict, "verdict", { Holds => "holds", Fails => "fails", Undecided => "undecided" });

impl Verdict {
    /// Holds below `null`, fails above it.
    fn against(interval: Option<Interval>, null: f64) -> Self {
        match interval {
            Some(i) if i.hi < null => Verdict::Holds,
            Some(i) if i.lo > null => Verdict::Fails,
            _ => Verdict::Undecided,
        }
    }
}

/// What [`judge`] needs of one condition. Columns are nodes x images, the same nodes and images throughout; an image's
/// value under several masks is its mean over them.
#[derive(Clone, Debug)]
pub struct Condition<'a> {
    /// The claim it tests.
    pub claim: Claim,
    /// What was done to the input, in words that follow "under": "pixel masking", "FGSM at eps 8/255".
    pub name: &'a str,
    /// Per-image ECE of each node on the clean input, reading Z0.
    pub clean: Vec<&'a [f64]>,
    /// Per-image ECE of each node on the perturbed input, reading R1.
    pub perturbed: Vec<&'a [f64]>,
    /// R1 with the double softmax, where the head has one.
    pub double_softmax: Option<Vec<&'a [f64]>>,
    /// R1 with baseline p_orig.
    pub baseline_orig: Option<Vec<&'a [f64]>>,
    /// max_c p_idle per image, clean.
    pub confidence_clean: &'a [f64],
    /// max_c p_idle per image, perturbed.
    pub confidence_perturbed: &'a [f64],
}

/// One node's part in the verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeVerdict {
    /// The node, 0-based.
    pub node: usize,
    /// mean_i ECE_i on the clean input; null when an image's is not a number.
    pub clean_mean: Option<f64>,
    /// mean_i ECE_i on the perturbed input.
    pub perturbed_mean: Option<f64>,
    /// |Z0 mean| > [`LIVE_MIN`].
    pub live: bool,
    /// D = |perturbed mean| - |clean mean|.
    pub difference: Option<f64>,
    /// Its interval.
    pub interval: Option<Interval>,
    /// Of that interval against 0.
    pub verdict: Verdict,
    /// Paired permutation test of an image's (a patient's) effects being the same clean and perturbed, flips of seed 0.
    pub p_paired: Option<f64>,
    /// The same after Holm over nodes.
    pub p_paired_adjusted: Option<f64>,
}

/// A ratio to Z0 of the mean over live nodes of |mean_i ECE_i|.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The ratio; null without live nodes or when an effect is not a number.
    pub value: Option<f64>,
    /// Its paired bootstrap interval.
    pub interval: Option<Interval>,
    /// Of that interval against 1.
    pub verdict: Verdict,
}

/// A ratio, with the live nodes whose |mean| is smaller or larger than in Z0 with their whole interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The ratio.
    pub ratio: Ratio,
    /// Live nodes significantly smaller.
    pub smaller: usize,
    /// Live nodes significantly larger.
    pub larger: usize,
}

/// One bin of max p_idle.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ConfidenceBin {
    /// Lower edge, exclusive (the first bin: 0).
    pub lo: f64,
    /// Upper edge, inclusive (the last bin: 1).
    pub hi: f64,
    /// Clean images in it.
    pub clean: usize,
    /// Perturbed images in it.
    pub perturbed: usize,
    /// Clean images but no perturbed ones: the bin cannot be re-weighted and is left out, on both sides.
    pub dropped: bool,
}

/// The ratio after the perturbed images were re-weighted to the clean mix of max p_idle.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Matched {
    /// The ratio: sum_b c_b m_b over bins b, c_b the clean share, m_b the perturbed mean in the bin, over the same of the
    /// clean images. Bin edges stay those of the whole sample; shares and means are taken anew in each resample.
    pub ratio: Ratio,
    /// The bins, ascending.
    pub bins: Vec<ConfidenceBin>,
}

/// The verdict on one condition, with every number behind it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    /// The claim.
    pub claim: Claim,
    /// What was done to the input.
    pub condition: String,
    /// Whether the claim holds: the verdict of `comparison.ratio`.
    pub verdict: Verdict,
    /// Images.
    pub images: usize,
    /// Confidence level of every interval; they cover image sampling only.
    pub level: f64,
    /// Values of the clean and perturbed columns that are not numbers; with any there is no verdict.
    pub nan: usize,
    /// Every node.
    pub nodes: Vec<NodeVerdict>,
    /// Number of live nodes.
    pub live: usize,
    /// Perturbed against clean.
    pub comparison: Comparison,
    /// The same at the clean confidence mix.
    pub matched: Matched,
    /// What a double softmax on the perturbed row alone makes of it.
    pub double_softmax: Option<Comparison>,
    /// What baseline p_orig on the perturbed row alone makes of it.
    pub baseline_orig: Option<Comparison>,
}

/// Judges a claimed fall of |ECE| (see the file's head) with intervals of `level`.
///
/// # Errors
/// [`CausalError::Length`] when numbers of nodes or images differ from one another or from the bootstrap's,
/// [`CausalError::Range`] for a level outside 0..1.
pub fn judge(condition: &Condition, bootstrap: &Bootstrap, level: f64) -> Result<Judgement, CausalError> {
    checked_level(level)?;
    let (nodes, images) = (condition.clean.len(), bootstrap.images());
    let artefacts = [&condition.double_softmax, &condition.baseline_orig];
    let mut columns = condition.clean.clone();
    for row in std::iter::once(&condition.perturbed).chain(artefacts.into_iter().flatten()) {
        same_length("columns of a perturbed row (one a node)", nodes, row.len())?;
        columns.extend(row);
    }
    for confidence in [condition.confidence_clean, condition.confidence_perturbed] {
        same_length("confidences (one an image)", images, confidence.len())?;
    }
    let resampled = bootstrap.means(&columns)?;
    let means: Vec<f64> = columns.iter().map(|c| mean(c)).collect();
    let ordinary = condition.clean.iter().chain(&condition.perturbed);
    let nan = ordinary.map(|c| c.iter().filter(|x| !x.is_finite()).count()).sum();
    let live: Vec<usize> = (0..nodes).filter(|&k| means[k].abs() > LIVE_MIN).collect();

    let flips = SignFlip::of_clusters(bootstrap.clusters(), bootstrap.resamples(), 0)?;
    let paired = flips.paired(&condition.perturbed, &condition.clean)?;
    let adjusted = holm(&paired);
    let difference = |row: &[f64], at: usize, k: usize| row[at * nodes + k].abs() - row[k].abs();
    let node = |k: usize| {
        let interval = interval_of(&resampled, level, |row| difference(row, 1, k))?;
        let d = difference(&means, 1, k);
        Ok(NodeVerdict {
            node: k,
            clean_mean: finite(means[k]),
            perturbed_mean: finite(means[nodes + k]),
            live: live.contains(&k),
            difference: finite(d),
            interval,
            verdict: Verdict::against(interval, 0.0),
            p_paired: paired[k],
            p_paired_adjusted: adjusted[k],
        })
    };
    // Row `at` of the columns (1 perturbed, then the artefacts) against row 0, clean.
    let compare = |at: usize| -> Result<Comparison, CausalError> {
        let total = |row: &[f64], at: usize| live.iter().map(|k| row[at * nodes + k].abs()).sum::<f64>();
        let ratio = |row: &[f64]| if nan == 0 { total(row, at) / total(row, 0) } else { f64::NAN };
        let mut comparison =
            Comparison { ratio: judged(ratio(&means), &resampled, level, ratio)?, smaller: 0, larger: 0 };
        for &k in &live {
            match Verdict::against(interval_of(&resampled, level, |row| difference(row, at, k))?, 0.0) {
                Verdict::Holds => comparison.smaller += 1,
                Verdict::Fails => comparison.larger += 1,
                Verdict::Undecided => {}
            }
        }
        Ok(comparison)
    };
    let comparison = compare(1)?;
    let double_softmax = condition.double_softmax.as_ref().map(|_| compare(2)).transpose()?;
    let last = 2 + usize::from(double_softmax.is_some());
    let baseline_orig = condition.baseline_orig.as_ref().map(|_| compare(last)).transpose()?;
    Ok(Judgement {
        claim: condition.claim,
        condition: condition.name.to_owned(),
        verdict: comparison.ratio.verdict,
        images,
        level,
        nan,
        nodes: (0..nodes).map(node).collect::<Result<_, CausalError>>()?,
        live: live.len(),
        comparison,
        matched: matched(condition, &live, bootstrap, level)?,
        double_softmax,
        baseline_orig,
    })
}

/// One attack beside FGSM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rival {
    /// What was done to the input, as in [`Condition::name`].
    pub condition: String,
    /// Mean over live nodes of the node's mean ECE under FGSM, minus the same under this attack.
    pub difference: Option<f64>,
    /// Its paired bootstrap interval.
    pub interval: Option<Interval>,
    /// Of that interval against 0.
    pub verdict: Verdict,
    /// Live nodes whose mean ECE is lower under FGSM with their whole interval.
    pub lower: usize,
    /// Live nodes whose mean ECE is higher under FGSM with their whole interval.
    pub higher: usize,
}

/// Claim (c): of the four attacks FGSM makes expected causal effects most negative (ICIP 2019, table 2).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MostNegative {
    /// Holds against every other attack, fails against one, or undecided.
    pub verdict: Verdict,
    /// Images.
    pub images: usize,
    /// Live nodes.
    pub live: usize,
    /// The other attacks.
    pub rivals: Vec<Rival>,
}

/// Judges claim (c) on per-image ECE of each node (reading R1) under FGSM and under each other attack, on live nodes.
///
/// # Errors
/// As [`judge`].
pub fn most_negative(
    clean: &[&[f64]],
    fgsm: &[&[f64]],
    others: &[(&str, Vec<&[f64]>)],
    bootstrap: &Bootstrap,
    level: f64,
) -> Result<MostNegative, CausalError> {
    checked_level(level)?;
    same_length("columns of FGSM (one a node)", clean.len(), fgsm.len())?;
    let live: Vec<usize> = (0..clean.len()).filter(|&k| mean(clean[k]).abs() > LIVE_MIN).collect();
    let mut rivals = Vec::with_capacity(others.len());
    for (name, other) in others {
        same_length("columns of an attack (one a node)", clean.len(), other.len())?;
        let columns: Vec<&[f64]> = live.iter().map(|&k| fgsm[k]).chain(live.iter().map(|&k| other[k])).collect();
        let resampled = bootstrap.means(&columns)?;
        let own: Vec<f64> = columns.iter().map(|c| mean(c)).collect();
        let n = live.len();
        let difference = |row: &[f64]| (0..n).map(|k| row[k] - row[n + k]).sum::<f64>() / n as f64;
        let value = finite(difference(&own));
        let interval = interval_of(&resampled, level, difference)?.filter(|_| value.is_some());
        let mut sides = [0, 0];
        for k in 0..n {
            match Verdict::against(interval_of(&resampled, level, |row| row[k] - row[n + k])?, 0.0) {
                Verdict::Holds => sides[0] += 1,
                Verdict::Fails => sides[1] += 1,
                Verdict::Undecided => {}
            }
        }
        let verdict = Verdict::against(interval, 0.0);
        let [lower, higher] = sides;
        rivals.push(Rival { condition: (*name).to_owned(), difference: value, interval, verdict, lower, higher });
    }
    let verdict = match () {
        _ if rivals.iter().any(|r| r.verdict == Verdict::Fails) => Verdict::Fails,
        _ if !rivals.is_empty() && rivals.iter().all(|r| r.verdict == Verdict::Holds) => Verdict::Holds,
        _ => Verdict::Undecided,
    };
    Ok(MostNegative { verdict, images: bootstrap.images(), live: live.len(), rivals })
}

/// A ratio and its interval; without a finite ratio there is none.
fn judged(
    value: f64,
    resampled: &[Vec<f64>],
    level: f64,
    statistic: impl Fn(&[f64]) -> f64,
) -> Result<Ratio, CausalError> {
    let interval = interval_of(resampled, level, statistic)?.filter(|_| value.is_finite());
    Ok(Ratio { value: finite(value), interval, verdict: Verdict::against(interval, 1.0) })
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn mean(column: &[f64]) -> f64 {
    let first = column.first().copied().unwrap_or(f64::NAN);
    first + column.iter().map(|x| x - first).sum::<f64>() / column.len() as f64
}

/// The ratio at the clean confidence mix.
fn matched(condition: &Condition, live: &[usize], bootstrap: &Bootstrap, level: f64) -> Result<Matched, CausalError> {
    let images = bootstrap.images();
    let mut sorted: Vec<f64> = condition.confidence_clean.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let edge = |b: usize| quantile(&sorted, b as f64 / CONFIDENCE_BINS as f64).unwrap_or(f64::NAN);
    let edges: Vec<f64> = (1..CONFIDENCE_BINS).map(edge).collect();
    let bin_of = |confidence: &f64| edges.iter().filter(|e| confidence > e).count();
    let bins: [Vec<usize>; 2] =
        [condition.confidence_clean, condition.confidence_perturbed].map(|c| c.iter().map(bin_of).collect());
    // images x live nodes, so that a resample walks the images once
    let rows = [&condition.clean, &condition.perturbed]
        .map(|columns| (0..images).flat_map(|i| live.iter().map(move |&k| columns[k][i])).collect::<Vec<f64>>());

    let ratio = |counts: &dyn Fn(usize) -> f64| -> f64 {
        let width = live.len();
        let mut total = [[0.0f64; CONFIDENCE_BINS]; 2];
        let mut sums = [vec![0.0f64; CONFIDENCE_BINS * width], vec![0.0f64; CONFIDENCE_BINS * width]];
        for i in 0..images {
            let count = counts(i);
            if count == 0.0 {
                continue;
            }
            for side in 0..2 {
                let bin = bins[side][i];
                total[side][bin] += count;
                let sums = &mut sums[side][bin * width..(bin + 1) * width];
                sums.iter_mut().zip(&rows[side][i * width..]).for_each(|(s, x)| *s += count * x);
            }
        }
        let kept: Vec<usize> = (0..CONFIDENCE_BINS).filter(|&b| total[0][b] > 0.0 && total[1][b] > 0.0).collect();
        let sum_over_nodes = |side: usize| -> f64 {
            let node = |k: usize| kept.iter().map(|&b| total[0][b] / total[side][b] * sums[side][b * width + k]).sum();
            (0..width).map(|k| -> f64 { f64::abs(node(k)) }).sum()
        };
        sum_over_nodes(1) / sum_over_nodes(0)
    };
    let usable =
        [condition.confidence_clean, condition.confidence_perturbed].iter().all(|c| c.iter().all(|v| v.is_finite()));
    let value = if usable { ratio(&|_| 1.0) } else { f64::NAN };
    let resampled: Vec<Vec<f64>> = if value.is_finite() {
        bootstrap.counts().map(|counts| vec![ratio(&|i| f64::from(counts[i]))]).collect()
    } else {
        Vec::new()
    };
    let count = |side: usize, b: usize| bins[side].iter().filter(|&&bin| bin == b).count();
    let bin = |b: usize| {
        let (clean, perturbed) = (count(0, b), count(1, b));
        let lo = b.checked_sub(1).map_or(0.0, |below| edges[below]);
        let hi = edges.get(b).copied().unwrap_or(1.0);
        ConfidenceBin { lo, hi, clean, perturbed, dropped: clean > 0 && perturbed == 0 }
    };
    Ok(Matched {
        ratio: judged(value, &resampled, level, |row| row[0])?,
        bins: (0..CONFIDENCE_BINS).map(bin).collect(),
    })
}

/// `1.56 times [1.51, 1.60]`; three decimals below a tenth.
impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(value) = self.value else { return f.write_str("not computable") };
        let digits = if value < 0.1 { 3 } else { 2 };
        write!(f, "{value:.digits$} times")?;
        self.interval.map_or(Ok(()), |interval| write!(f, " {interval:.digits$}"))
    }
}

/// The verdict in sentences: what was claimed, what was found, what confidence explains, what the artefacts would make
/// of it.
impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.claim {
            Claim::Control => f.write_str("control: ")?,
            claim => {
                let word = match self.verdict {
                    Verdict::Holds => "HOLDS here",
                    Verdict::Fails => "FAILS here, reversed",
                    Verdict::Undecided => "is UNDECIDED here",
                };
                write!(f, "claim ({claim}) {word}: ")?;
            }
        }
        let (live, nodes, images, under) = (self.live, self.nodes.len(), self.images, &self.condition);
        if self.nan > 0 {
            return write!(
                f,
                "{} of the effects under {under} or in Z0 are not numbers, so nothing is judged",
                self.nan
            );
        }
        if live == 0 {
            return write!(f, "none of the {nodes} nodes is live (|mean Z0 ECE| > {LIVE_MIN:e}), so nothing is judged");
        }
        let Comparison { ratio, smaller, larger } = self.comparison;
        writeln!(
            f,
            "the mean |ECE| of the {live} live nodes (of {nodes}) under {under} is {ratio} that of Z0 ({images} images)"
        )?;
        writeln!(f, "  live nodes significantly smaller {smaller}, larger {larger}")?;
        write!(f, "  at the clean confidence mix: {}", self.matched.ratio)?;
        match (self.matched.ratio.verdict, self.matched.ratio.interval) {
            (_, None) => {}
            (Verdict::Holds, _) => f.write_str("; a fall remains that confidence does not explain")?,
            (Verdict::Fails, _) => f.write_str("; a rise remains that confidence does not explain")?,
            (Verdict::Undecided, _) => f.write_str("; no change is shown once confidence is matched")?,
        }
        let dropped = self.matched.bins.iter().filter(|b| b.dropped).count();
        if dropped > 0 {
            let bins = self.matched.bins.len();
            write!(f, " ({dropped} of {bins} confidence bins have no perturbed image and are left out)")?;
        }
        let artefacts = [("a double softmax", &self.double_softmax), ("baseline p_orig", &self.baseline_orig)];
        for (name, comparison) in artefacts {
            let Some(Comparison { ratio, smaller, larger }) = comparison else { continue };
            write!(f, "\n  artefact, {name} on the perturbed row alone: {ratio}, smaller {smaller}, larger {larger}")?;
            if ratio.verdict == Verdict::Holds && self.verdict != Verdict::Holds {
                f.write_str("; it makes the claimed fall by itself")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    const IMAGES: usize = 600;

    /// Per-image ECE of six nodes: four live ones of means -.08, -.04, -.02, -.01 with skewed noise, two dead ones.
    fn clean() -> Vec<Vec<f64>> {
        let s = Stream::new(1, "test");
        let node = |k: u64| {
            let scale = if k < 4 { -0.08 / f64::from(1 << k) } else { 0.0 };
            (0..IMAGES as u32).map(|i| scale * 2.0 * f64::from(s.uniform(k, i))).collect()
        };
        (0..6).map(node).collect()
    }

    fn scaled(columns: &[Vec<f64>], by: f64, noise: f64) -> Vec<Vec<f64>> {
        let s = Stream::new(2, "test");
        let draw = |k: usize, i: usize| noise * (f64::from(s.uniform(k as u64, i as u32)) - 0.5);
        let node = |k: usize| columns[k].iter().enumerate().map(|(i, x)| x * (by + draw(k, i))).collect();
        (0..columns.len()).map(node).collect()
    }

    fn views(columns: &[Vec<f64>]) -> Vec<&[f64]> {
        columns.iter().map(Vec::as_slice).collect()
    }

    fn condition<'a>(clean: &'a [Vec<f64>], perturbed: &'a [Vec<f64>], confidence: &'a [f64]) -> Condition<'a> {
        Condition {
            claim: Claim::Masking,
            name: "pixel masking",
            clean: views(clean),
            perturbed: views(perturbed),
            double_softmax: None,
            baseline_orig: None,
            confidence_clean: confidence,
            confidence_perturbed: confidence,
        }
    }

    fn confidence() -> Vec<f64> {
        (0..IMAGES).map(|i| 0.3 + 0.7 * (i * 389 % IMAGES) as f64 / IMAGES as f64).collect()
    }

    fn boot() -> Bootstrap {
        Bootstrap::new(IMAGES, 1000, 0).unwrap()
    }

    #[test]
    fn fgsm_is_most_negative_only_against_every_other_attack() {
        let clean = clean();
        let (fgsm, weaker, stronger) = (scaled(&clean, 1.5, 0.2), scaled(&clean, 0.5, 0.2), scaled(&clean, 3.0, 0.2));
        let judge = |others: &[(&str, &[Vec<f64>])]| {
            let others: Vec<(&str, Vec<&[f64]>)> = others.iter().map(|(name, o)| (*name, views(o))).collect();
            most_negative(&views(&clean), &views(&fgsm), &others, &boot(), 0.95).unwrap()
        };
        let held = judge(&[("BIM", &weaker)]);
        assert_eq!((held.verdict, held.live, held.rivals[0].lower, held.rivals[0].higher), (Verdict::Holds, 4, 4, 0));
        let failed = judge(&[("BIM", &weaker), ("PGD", &stronger)]);
        assert_eq!(
            (failed.verdict, failed.rivals[1].verdict, failed.rivals[1].higher),
            (Verdict::Fails, Verdict::Fails, 4)
        );
        // the same columns differ by nothing
        let same = judge(&[("FGSM again", &fgsm)]);
        assert_eq!((same.verdict, same.rivals[0].difference), (Verdict::Undecided, Some(0.0)));
        assert_eq!(judge(&[]).verdict, Verdict::Undecided);
        let mut nan = weaker.clone();
        nan[0][3] = f64::NAN;
        assert_eq!(judge(&[("BIM", &nan)]).rivals[0].interval, None);
    }

    #[test]
    fn a_planted_rise_fails_the_claim_and_a_planted_fall_holds_it() {
        let (clean, confidence) = (clean(), confidence());
        for (by, verdict, counts) in [(1.5, Verdict::Fails, (0, 4)), (0.4, Verdict::Holds, (4, 0))] {
            let perturbed = scaled(&clean, by, 0.5);
            let j = judge(&condition(&clean, &perturbed, &confidence), &boot(), 0.95).unwrap();
            assert_eq!((j.verdict, j.live, (j.comparison.smaller, j.comparison.larger)), (verdict, 4, counts));
            let interval = j.comparison.ratio.interval.unwrap();
            assert!(interval.lo < by && by < interval.hi && interval.width() < 0.1, "{interval:?}");
            assert!((j.comparison.ratio.value.unwrap() - by).abs() < 0.02);
            assert_eq!(j.nodes.iter().filter(|n| n.verdict == verdict).count(), 4);
            assert!(j.nodes[..4].iter().all(|n| n.p_paired_adjusted.is_some_and(|p| p <= 0.05)), "{:?}", j.nodes);
            assert!(j.nodes[4..].iter().all(|n| !n.live && n.verdict == Verdict::Undecided));
        }
    }

    #[test]
    fn no_planted_change_is_undecided() {
        let (clean, confidence) = (clean(), confidence());
        // the same values on other images: the mean is the same, nothing is paired
        let mut perturbed = clean.clone();
        perturbed.iter_mut().for_each(|c| c.rotate_left(IMAGES / 2));
        let j = judge(&condition(&clean, &perturbed, &confidence), &boot(), 0.95).unwrap();
        assert_eq!((j.verdict, j.comparison.smaller, j.comparison.larger), (Verdict::Undecided, 0, 0));
        assert!((j.comparison.ratio.value.unwrap() - 1.0).abs() < 1e-12);
        let same = judge(&condition(&clean, &clean, &confidence), &boot(), 0.95).unwrap();
        assert_eq!(same.comparison.ratio.interval, Some(Interval { lo: 1.0, hi: 1.0 }));
        assert_eq!((same.verdict, same.matched.ratio.verdict), (Verdict::Undecided, Verdict::Undecided));
        assert!(same.nodes.iter().all(|n| n.p_paired == Some(1.0)), "an image is itself");
    }

    /// ECE that depends on confidence alone (six levels), with noise.
    fn by_confidence(levels: &[usize], seed: u64, dead_from: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
        let s = Stream::new(seed, "test");
        let confidence = levels.iter().map(|&l| 0.4 + 0.1 * l as f64).collect();
        let node = |k: usize| {
            let one = |(i, &l): (usize, &usize)| {
                let noise = 0.9 + 0.2 * f64::from(s.uniform(k as u64, i as u32));
                if k < dead_from { -0.02 * (k + 1) as f64 * (6 - l) as f64 * noise } else { 0.0 }
            };
            levels.iter().enumerate().map(one).collect()
        };
        (confidence, (0..4).map(node).collect())
    }

    #[test]
    fn the_clean_confidence_mix_removes_what_confidence_alone_did() {
        let even: Vec<usize> = (0..IMAGES).map(|i| i % 6).collect();
        // mostly sure: few images at each lower level
        let sure: Vec<usize> = (0..IMAGES).map(|i| if i * 7 % 10 < 6 { 5 } else { i % 6 }).collect();
        let (confidence_clean, clean) = by_confidence(&even, 3, 3);
        let (confidence_perturbed, perturbed) = by_confidence(&sure, 4, 3);
        let condition = Condition {
            confidence_perturbed: &confidence_perturbed,
            ..condition(&clean, &perturbed, &confidence_clean)
        };
        let j = judge(&condition, &boot(), 0.95).unwrap();
        assert_eq!(j.verdict, Verdict::Holds);
        assert!(j.comparison.ratio.value.unwrap() < 0.7);
        let matched = j.matched.ratio;
        assert!((matched.value.unwrap() - 1.0).abs() < 0.01, "{matched}");
        let interval = matched.interval.unwrap();
        assert!(interval.lo < matched.value.unwrap() && matched.value.unwrap() < interval.hi && interval.width() < 0.1);
        assert!(j.matched.bins.iter().all(|b| b.clean == 100 && !b.dropped), "{:?}", j.matched.bins);
        assert!(j.to_string().contains("no change is shown once confidence is matched"), "{j}");
    }

    #[test]
    fn a_confidence_bin_without_perturbed_images_is_dropped_on_both_sides_and_said() {
        let even: Vec<usize> = (0..IMAGES).map(|i| i % 6).collect();
        let no_sure: Vec<usize> = (0..IMAGES).map(|i| i % 5).collect();
        let (confidence_clean, clean) = by_confidence(&even, 3, 3);
        let (confidence_perturbed, perturbed) = by_confidence(&no_sure, 4, 3);
        let condition = Condition {
            confidence_perturbed: &confidence_perturbed,
            ..condition(&clean, &perturbed, &confidence_clean)
        };
        let j = judge(&condition, &boot(), 0.95).unwrap();
        assert_eq!(
            j.matched.bins.iter().map(|b| b.dropped).collect::<Vec<_>>(),
            [false, false, false, false, false, true]
        );
        assert!((j.matched.ratio.value.unwrap() - 1.0).abs() < 0.01, "{}", j.matched.ratio);
        assert!(j.to_string().contains("1 of 6 confidence bins have no perturbed image"), "{j}");
    }

    #[test]
    fn the_verdict_is_said_in_words_with_its_artefacts() {
        let (clean, confidence) = (clean(), confidence());
        let (perturbed, shrunk, raised) =
            (scaled(&clean, 1.5, 0.5), scaled(&clean, 0.03, 0.0), scaled(&clean, 2.9, 0.0));
        let mut condition = condition(&clean, &perturbed, &confidence);
        condition.double_softmax = Some(views(&shrunk));
        condition.baseline_orig = Some(views(&raised));
        let j = judge(&condition, &boot(), 0.95).unwrap();
        let text = j.to_string();
        let head =
            "claim (a) FAILS here, reversed: the mean |ECE| of the 4 live nodes (of 6) under pixel masking is 1.5";
        assert!(text.starts_with(head), "{text}");
        assert!(text.contains("of Z0 (600 images)\n  live nodes significantly smaller 0, larger 4\n"), "{text}");
        let artefact =
            "a double softmax on the perturbed row alone: 0.030 times [0.030, 0.030], smaller 4, larger 0; it makes";
        assert!(text.contains(artefact), "{text}");
        assert!(
            text.contains("baseline p_orig on the perturbed row alone: 2.90 times [2.90, 2.90], smaller 0, larger 4"),
            "{text}"
        );
        // either artefact alone finds its own columns
        condition.double_softmax = None;
        let alone = judge(&condition, &boot(), 0.95).unwrap();
        assert_eq!((alone.double_softmax, alone.baseline_orig), (None, j.baseline_orig));
        condition.claim = Claim::Control;
        assert!(judge(&condition, &boot(), 0.95).unwrap().to_string().starts_with("control: the mean |ECE|"));
        assert!(serde_json::to_string(&j).unwrap().contains("\"verdict\":\"fails\""));
    }

    #[test]
    fn nothing_is_judged_from_dead_nodes_or_from_what_is_no_number() {
        let (clean, confidence) = (clean(), confidence());
        let dead = clean[4..].to_vec();
        let j = judge(&condition(&dead, &dead, &confidence), &boot(), 0.95).unwrap();
        assert_eq!(
            (j.verdict, j.live, j.comparison.ratio.value, j.matched.ratio.value),
            (Verdict::Undecided, 0, None, None)
        );
        assert!(j.to_string().contains("none of the 2 nodes is live"), "{j}");
        let mut broken = scaled(&clean, 1.5, 0.0);
        broken[0][17] = f64::NAN;
        let j = judge(&condition(&clean, &broken, &confidence), &boot(), 0.95).unwrap();
        assert_eq!(
            (j.verdict, j.nan, j.comparison.ratio.value, j.matched.ratio.value),
            (Verdict::Undecided, 1, None, None)
        );
        assert_eq!((j.nodes[0].perturbed_mean, j.nodes[0].interval), (None, None));
        assert_eq!(j.nodes[1].verdict, Verdict::Fails);
        assert!(j.to_string().contains("1 of the effects"), "{j}");
        let mut unsure = confidence.clone();
        unsure[3] = f64::NAN;
        let j = judge(&condition(&clean, &clean, &unsure), &boot(), 0.95).unwrap();
        assert_eq!((j.matched.ratio.value, j.matched.ratio.interval), (None, None));
    }

    #[test]
    fn a_condition_of_uneven_columns_is_refused() {
        let (clean, confidence) = (clean(), confidence());
        assert!(judge(&condition(&clean, &clean[1..], &confidence), &boot(), 0.95).is_err());
        assert!(judge(&condition(&clean, &clean, &confidence[1..]), &boot(), 0.95).is_err());
        assert!(judge(&condition(&clean, &clean, &confidence), &Bootstrap::new(3, 3, 0).unwrap(), 0.95).is_err());
        assert!(judge(&condition(&clean, &clean, &confidence), &boot(), 1.0).is_err());
    }
}
