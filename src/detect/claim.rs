//! Claim (d) of the paper: causal effects part attacked images from clean ones. Judged on one statistic that was declared before
//! any data were seen, and against a detector that needs no intervention, pair by pair. Called by [`super::report`].

use super::features::Statistic;
use super::report::Judged;
use super::table::Purpose;
use crate::interval::Interval;
use serde::{Deserialize, Serialize};

/// The causal statistic that claim (d) rests on, declared before any data were seen: the best of several on the same data
/// would be better by chance.
pub const DECLARED: Statistic = Statistic::EffectStd;
/// The detector without any intervention that it has to beat.
pub const RIVAL: Statistic = Statistic::MaxP;

/// Whether claim (d) holds: effects part attacked images from clean ones, and better than the host's confidence does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The area's interval lies above one half and the difference's above 0.
    Holds,
    /// The area's interval lies below one half, or the difference's below 0.
    Fails,
    /// Neither.
    Undecided,
    /// Too few images of either kind, or no such statistic.
    None,
}

/// The claim under one attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClaimRow {
    /// The attack.
    pub input: String,
    /// Area of the declared statistic.
    pub auroc: Option<f64>,
    /// Its interval.
    pub interval: Option<Interval>,
    /// Area of the rival.
    pub rival: Option<f64>,
    /// Declared less rival.
    pub difference: Option<f64>,
    /// Its interval, by bootstrap over units, both areas from the same resample.
    pub difference_interval: Option<Interval>,
    /// Attacked images.
    pub n_pos: usize,
    /// Clean images.
    pub n_neg: usize,
    /// The verdict.
    pub verdict: Verdict,
}

/// Claim (d).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The statistic that it rests on.
    pub declared: Statistic,
    /// What it has to beat.
    pub rival: Statistic,
    /// Fails where it fails under one attack, holds where it holds under all that can be judged.
    pub verdict: Verdict,
    /// Under each attack.
    pub attacks: Vec<ClaimRow>,
    /// The verdict in words.
    pub words: String,
}

/// Judges the claim under each attack of `labels`.
pub(super) fn claim(all: &[Judged], labels: &[String], level: f64) -> Claim {
    let mut attacks = Vec::new();
    for label in labels {
        let of = |statistic: Statistic| {
            let here = |j: &&Judged| j.row.input == *label && j.row.statistic == statistic.to_string();
            all.iter().filter(|j| j.row.purpose == Purpose::Attack).find(here)
        };
        let Some(rival) = of(RIVAL) else { continue };
        let declared = of(DECLARED);
        let (difference, difference_interval) = declared.map_or((None, None), |d| d.less(rival, level));
        let roc = declared.map(|d| &d.row.roc);
        // an area of 1 has no interval by its spread; resamples have one
        let resampled = || declared.and_then(|d| Interval::percentile(&d.resampled.area, level));
        let interval = roc.and_then(|roc| roc.interval).or_else(resampled);
        let verdict = match (interval, difference_interval) {
            _ if !rival.row.judged || declared.is_none() => Verdict::None,
            (Some(area), Some(gain)) if area.lo > 0.5 && gain.lo > 0.0 => Verdict::Holds,
            (Some(area), _) if area.hi < 0.5 => Verdict::Fails,
            (_, Some(gain)) if gain.hi < 0.0 => Verdict::Fails,
            _ => Verdict::Undecided,
        };
        attacks.push(ClaimRow {
            input: label.clone(),
            auroc: roc.and_then(|roc| roc.auroc),
            interval,
            rival: rival.row.roc.auroc,
            difference,
            difference_interval,
            n_pos: rival.row.roc.n_pos,
            n_neg: rival.row.roc.n_neg,
            verdict,
        });
    }
    let judged = || attacks.iter().map(|a| a.verdict).filter(|v| *v != Verdict::None);
    let verdict = if judged().next().is_none() {
        Verdict::None
    } else if judged().any(|v| v == Verdict::Fails) {
        Verdict::Fails
    } else if judged().all(|v| v == Verdict::Holds) {
        Verdict::Holds
    } else {
        Verdict::Undecided
    };
    let words = words(verdict, &attacks);
    Claim { declared: DECLARED, rival: RIVAL, verdict, attacks, words }
}

/// The verdict in sentences.
fn words(verdict: Verdict, attacks: &[ClaimRow]) -> String {
    let head = match verdict {
        Verdict::Holds => "claim (d) HOLDS here",
        Verdict::Fails => "claim (d) FAILS here",
        Verdict::Undecided => "claim (d) is UNDECIDED here",
        Verdict::None => return "claim (d) is not judged: no attack has enough images and a dispersion".into(),
    };
    let row = |row: &ClaimRow| {
        let (Some(area), Some(gain), Some(interval)) = (row.auroc, row.difference, row.difference_interval) else {
            return format!("{}: not judged", row.input);
        };
        let found = match row.interval {
            Some(i) if i.lo > 0.5 => "tells it",
            Some(i) if i.hi < 0.5 => "is upside down",
            _ => "is not shown to tell it",
        };
        let against = match row.verdict {
            Verdict::None => "too few images for a verdict",
            // of two that are upside down the higher is no better detector
            Verdict::Fails if interval.lo > 0.0 => "higher, and of no use",
            _ if interval.lo > 0.0 => "better",
            _ if interval.hi < 0.0 => "worse",
            _ => "neither better nor worse is shown",
        };
        format!("{}: {DECLARED} {found} ({area:.3}); against {RIVAL} {gain:+.3} {interval:.3}, {against}", row.input)
    };
    let rows: Vec<String> = attacks.iter().map(row).collect();
    format!("{head}. {}", rows.join(". "))
}
