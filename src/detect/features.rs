//! One image's answers as numbers that a detector can look at. Called by [`super::table`] for every image and input.
//!
//! What is made of a softmax head is made of the distribution over its C classes. A sigmoid head of L findings answers with one
//! of 2^L sets of findings, independent of one another; its baselines are those of that distribution, so that both heads have
//! one definition (a finding and two softmax classes give the same numbers):
//!
//! | statistic | softmax | sigmoid |
//! |---|---|---|
//! | `ece-N` | E1 | mean over findings of (2 p - 1)(q - p) |
//! | `effect-*` | over nodes, of the effect on the class that the idle net predicts | on the finding that it holds most likely |
//! | `margin-iqr` | of the change of o_c - max o_j | of the change of that finding's log odds |
//! | `max-p` | 1 - max p | 1 - prod max(p, 1 - p) |
//! | `entropy` | - sum p log p | sum of the findings' entropies |
//! | `squared-norm` | 1 - sum p^2 | 1 - prod (p^2 + (1 - p)^2) |
//! | `kl` | KL(p_orig, p_idle) | sum of the findings' |

use super::DetectError;
use super::detector::Direction;
use crate::answer::{Head, bernoulli_kl, sigmoid, softplus};
use crate::causal::CausalError;
use crate::causal::effect::{Responses, class_weighted};
use crate::causal::statistics::quantile;
use crate::tensor::argmax;
use crate::text::closest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One number of an image under one input. Effects are within that input: node zeroed against autoencoder idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Statistic {
    /// Class-weighted effect of one node: s1 of the literature's naming here, s2 with the direction turned.
    Ece {
        /// Which of the study's sets of nodes.
        node: usize,
    },
    /// Dispersion over nodes of the effect on the predicted answer (s3; after ML-LOO, arXiv 1906.03499): interquartile range.
    EffectIqr,
    /// The same: standard deviation, divisor n as NumPy has it. Declared before seeing data as the one that claim (d) rests on.
    EffectStd,
    /// The same: median distance from the median, unscaled.
    EffectMad,
    /// Interquartile range over nodes of the change of the logit margin.
    MarginIqr,
    /// Baseline: 1 - max p of the host. As the sum of the others, so that what is surer than 1 - 1e-16 does not tie.
    MaxP,
    /// Baseline: entropy of the host's answer, in nats.
    Entropy,
    /// Baseline: 1 - |p|^2 of the host, which orders images as -|p|^2 does and keeps its digits near 1.
    SquaredNorm,
    /// Baseline: KL(p_orig, p_idle) in nats: the autoencoder alone, nothing intervened on.
    Kl,
}

/// Where a statistic comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Of interventions on nodes.
    Causal,
    /// Of answers alone.
    Baseline,
}

const PREFIX: &str = "ece-";

impl Statistic {
    /// All that are one number an image, without the effects of single nodes.
    pub const SCALARS: [Statistic; 8] = [
        Statistic::EffectIqr,
        Statistic::EffectStd,
        Statistic::EffectMad,
        Statistic::MarginIqr,
        Statistic::MaxP,
        Statistic::Entropy,
        Statistic::SquaredNorm,
        Statistic::Kl,
    ];

    /// The scalar ones that exist for a study of `nodes` sets of nodes: one node has no dispersion.
    pub fn scalars(nodes: usize) -> impl Iterator<Item = Statistic> {
        Statistic::SCALARS.into_iter().filter(move |s| s.exists(nodes))
    }

    /// Whether a study of `nodes` sets of nodes has it.
    pub fn exists(self, nodes: usize) -> bool {
        match self {
            Statistic::Ece { node } => node < nodes,
            _ => self.family() == Family::Baseline || nodes > 1,
        }
    }

    /// Whether it takes interventions.
    pub fn family(self) -> Family {
        match self {
            Statistic::MaxP | Statistic::Entropy | Statistic::SquaredNorm | Statistic::Kl => Family::Baseline,
            _ => Family::Causal,
        }
    }

    /// The direction that was fixed before any data were seen; none for the effect of a node, whose sign nobody knows before.
    ///
    /// Attacked images are less sure, and farther from what an autoencoder of clean images restores: more of every baseline. More
    /// dispersion, as ML-LOO has it, of probabilities and of margins alike.
    pub fn direction(self) -> Option<Direction> {
        (!matches!(self, Statistic::Ece { .. })).then_some(Direction::More)
    }

    fn scalar_name(self) -> &'static str {
        match self {
            Statistic::Ece { .. } => PREFIX,
            Statistic::EffectIqr => "effect-iqr",
            Statistic::EffectStd => "effect-std",
            Statistic::EffectMad => "effect-mad",
            Statistic::MarginIqr => "margin-iqr",
            Statistic::MaxP => "max-p",
            Statistic::Entropy => "entropy",
            Statistic::SquaredNorm => "squared-norm",
            Statistic::Kl => "kl",
        }
    }
}

/// Its name in tables: `effect-std`, `ece-7`.
impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statistic::Ece { node } => f.pad(&format!("{PREFIX}{node}")),
            scalar => f.pad(scalar.scalar_name()),
        }
    }
}

impl FromStr for Statistic {
    type Err = DetectError;

    /// Reads a name; the error says which is nearest.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let node = text.strip_prefix(PREFIX).and_then(|n| n.parse().ok()).map(|node| Statistic::Ece { node });
        let scalar = || Statistic::SCALARS.into_iter().find(|s| s.scalar_name() == text);
        node.or_else(scalar).ok_or_else(|| {
            let mut names = vec!["ece-0"];
            names.extend(Statistic::SCALARS.map(Statistic::scalar_name));
            DetectError::Name { text: text.to_owned(), nearest: closest(text, &names).to_owned() }
        })
    }
}

impl From<Statistic> for String {
    fn from(statistic: Statistic) -> String {
        statistic.to_string()
    }
}

impl TryFrom<String> for Statistic {
    type Error = DetectError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// One image under one input. NaN where a logit is not a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Class-weighted effect of each set of nodes, by the head's own estimand, weighted with p_idle: what the learnt detectors see.
    pub ece: Vec<f64>,
    /// Effect of each set on the probability of what the idle net predicts (softmax: its class; sigmoid: its likeliest finding).
    pub effect: Vec<f64>,
    scalars: [f64; Statistic::SCALARS.len()],
}

impl Features {
    /// Of one image's answers to one input. A set that touches no live channel has effect exactly 0 and counts in dispersions,
    /// so that all images have as many.
    ///
    /// # Errors
    /// None that [`Responses::new`] has not excluded.
    pub fn of(responses: &Responses) -> Result<Features, CausalError> {
        let (head, sets) = (responses.head(), responses.nodes());
        let predicted = argmax(responses.idle());
        let idle = predicted.map(|c| margin(head, responses.idle(), c));
        let (mut ece, mut effect, mut margins) = (Vec::new(), Vec::new(), Vec::new());
        for set in 0..sets {
            let effects = responses.node_effects(set)?;
            ece.push(class_weighted(head.estimand(), responses.p_idle(), &effects)?);
            effect.push(predicted.and_then(|c| effects.get(c).copied()).unwrap_or(f64::NAN));
            let done = responses.zeroed(set)?;
            margins.push(predicted.zip(idle).map_or(f64::NAN, |(c, idle)| margin(head, done, c) - idle));
        }
        let [iqr, std, mad] = dispersion(&effect);
        let [margin_iqr, ..] = dispersion(&margins);
        let [max_p, squared_norm] = doubt(head, responses);
        let scalars = [iqr, std, mad, margin_iqr, max_p, entropy(head, responses.orig()), squared_norm, kl(responses)];
        Ok(Features { ece, effect, scalars })
    }

    /// One statistic; none where these images have no such node, or only one and it is a dispersion.
    pub fn get(&self, statistic: Statistic) -> Option<f64> {
        if let Statistic::Ece { node } = statistic {
            return self.ece.get(node).copied();
        }
        let at = Statistic::SCALARS.iter().position(|s| *s == statistic)?;
        self.scalars.get(at).copied().filter(|_| statistic.exists(self.ece.len()))
    }

    /// Whether every number is one: a detector takes no other image.
    pub fn is_finite(&self) -> bool {
        let sets = self.ece.len();
        let scalars = Statistic::scalars(sets).filter_map(|s| self.get(s));
        self.ece.iter().copied().chain(scalars).all(f64::is_finite)
    }
}

/// o_c - max o_j of class `c`; of a finding its log odds, which is the margin of its yes over its no. NaN when a logit is, or
/// without a second class.
fn margin(head: Head, logits: &[f64], c: usize) -> f64 {
    if logits.iter().any(|o| o.is_nan()) {
        return f64::NAN;
    }
    let own = logits.get(c).copied().unwrap_or(f64::NAN);
    match head {
        Head::Sigmoid => own,
        Head::Softmax => {
            let others = logits.iter().enumerate().filter(|(j, _)| *j != c).map(|(_, o)| *o);
            own - others.reduce(f64::max).unwrap_or(f64::NAN)
        }
    }
}

/// Interquartile range (quartiles of type 7, NumPy's), standard deviation (divisor n) and median distance from the median.
fn dispersion(values: &[f64]) -> [f64; 3] {
    if values.is_empty() || !values.iter().all(|v| v.is_finite()) {
        return [f64::NAN; 3];
    }
    let sorted = |mut values: Vec<f64>| {
        values.sort_unstable_by(f64::total_cmp);
        values
    };
    let ascending = sorted(values.to_vec());
    let at = |values: &[f64], probability| quantile(values, probability).unwrap_or(f64::NAN);
    let median = at(&ascending, 0.5);
    let distances = sorted(values.iter().map(|v| (v - median).abs()).collect());
    // from the sorted values: the order of nodes changes no bit
    let n = ascending.len() as f64;
    let mean = ascending.iter().map(|v| v - median).sum::<f64>() / n;
    let square = |v: &f64| (v - median - mean) * (v - median - mean);
    let variance = ascending.iter().map(square).sum::<f64>() / n;
    [at(&ascending, 0.75) - at(&ascending, 0.25), variance.sqrt(), at(&distances, 0.5)]
}

/// 1 - max p and 1 - |p|^2 of the host's answer, from the small parts.
fn doubt(head: Head, responses: &Responses) -> [f64; 2] {
    let (orig, p) = (responses.orig(), responses.p_orig());
    match head {
        Head::Softmax => {
            let Some(most) = argmax(orig) else { return [f64::NAN; 2] };
            let others = || p.iter().enumerate().filter(|(c, _)| *c != most).map(|(_, p)| *p);
            let rest: f64 = others().sum();
            // only the largest p can be so near 1 that 1 - p has lost its digits
            [rest, others().map(|p| p * (1.0 - p)).sum::<f64>() + p.get(most).map_or(f64::NAN, |p| p * rest)]
        }
        Head::Sigmoid => {
            // logarithms of products of 1 - u and of 1 - 2 u (1 - u), u the smaller of p and 1 - p
            let small = || orig.iter().map(|o| sigmoid(-o.abs()));
            let logs = [
                small().map(|u| (-u).ln_1p()).sum::<f64>(),
                small().map(|u| (-2.0 * u * (1.0 - u)).ln_1p()).sum::<f64>(),
            ];
            logs.map(|log| -log.exp_m1())
        }
    }
}

fn log_softmax(logits: &[f64]) -> impl Iterator<Item = f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = logits.iter().map(|o| (o - most).exp()).sum::<f64>().ln();
    logits.iter().map(move |o| o - most - log_sum)
}

fn entropy(head: Head, logits: &[f64]) -> f64 {
    match head {
        Head::Softmax => -log_softmax(logits).map(|log| if log < -745.0 { 0.0 } else { log.exp() * log }).sum::<f64>(),
        Head::Sigmoid => logits.iter().map(|o| sigmoid(*o) * softplus(-o) + sigmoid(-o) * softplus(*o)).sum(),
    }
}

/// KL(p_orig, p_idle).
fn kl(responses: &Responses) -> f64 {
    let (orig, idle) = (responses.orig(), responses.idle());
    match responses.head() {
        Head::Softmax => {
            let pairs = log_softmax(orig).zip(log_softmax(idle));
            pairs.map(|(p, q)| if p < -745.0 { 0.0 } else { p.exp() * (p - q) }).sum()
        }
        Head::Sigmoid => orig.iter().zip(idle).map(|(p, q)| bernoulli_kl(*p, *q)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::fixture;
    use approx::assert_relative_eq;

    /// Of sums of about ten products of exponentials.
    const TOLERANCE: f64 = 1e-12;

    fn of(head: Head, orig: &[f32], idle: &[f32], zeroed: &[f32]) -> Features {
        Features::of(&Responses::new(head, orig, idle, zeroed).unwrap()).unwrap()
    }

    #[test]
    fn a_softmax_heads_statistics_are_numpys_and_scipys() {
        for case in fixture::numbers().features {
            let found = of(Head::Softmax, &case.orig, &case.idle, &case.zeroed);
            for (name, want) in &case.statistics {
                let got = found.get(name.parse().unwrap()).unwrap();
                assert!((got - want).abs() <= TOLERANCE * want.abs().max(1e-3), "{name}: {got:e} not {want:e}");
            }
            assert_eq!(case.statistics.len(), Statistic::SCALARS.len() + found.ece.len());
        }
    }

    #[test]
    fn a_sigmoid_heads_baselines_are_those_of_the_softmax_over_all_sets_of_findings() {
        let (orig, idle) = ([1.5f32, -2.0, 0.25, -4.0], [1.0f32, -1.0, 0.5, -3.5]);
        // logit of a set: the sum of its findings'; multiples of 1/4, so exact
        let sets = |o: &[f32]| {
            let sum = |set: u32| o.iter().enumerate().filter(|(j, _)| set >> j & 1 == 1).map(|(_, o)| o).sum::<f32>();
            (0..16).map(sum).collect::<Vec<f32>>()
        };
        let findings = of(Head::Sigmoid, &orig, &idle, &[0.0; 8]);
        let joint = of(Head::Softmax, &sets(&orig), &sets(&idle), &[0.0; 32]);
        for baseline in Statistic::SCALARS.into_iter().filter(|s| s.family() == Family::Baseline) {
            let (one, other) = (findings.get(baseline).unwrap(), joint.get(baseline).unwrap());
            assert_relative_eq!(one, other, max_relative = TOLERANCE);
            assert!(one > 0.0, "{baseline}");
        }
    }

    #[test]
    fn a_finding_and_two_classes_have_the_same_statistics() {
        let done = [0.5f32, -2.0, 3.25, 1.0];
        let finding = of(Head::Sigmoid, &[1.5], &[1.0], &done);
        let two: Vec<f32> = done.iter().flat_map(|&o| [o, 0.0]).collect();
        let classes = of(Head::Softmax, &[1.5, 0.0], &[1.0, 0.0], &two);
        for statistic in Statistic::SCALARS.into_iter().chain((0..4).map(|node| Statistic::Ece { node })) {
            assert_relative_eq!(
                finding.get(statistic).unwrap(),
                classes.get(statistic).unwrap(),
                max_relative = TOLERANCE
            );
        }
    }

    #[test]
    fn what_is_surer_than_a_float_can_say_keeps_its_order() {
        for head in [Head::Softmax, Head::Sigmoid] {
            let at = |o: f32, statistic| of(head, &[o, -o], &[o, -o], &[o, -o, o, -o]).get(statistic).unwrap();
            for statistic in [Statistic::MaxP, Statistic::Entropy, Statistic::SquaredNorm] {
                assert!(at(60.0, statistic) < at(50.0, statistic) && at(60.0, statistic) > 0.0, "{head:?} {statistic}");
            }
        }
    }

    #[test]
    fn one_node_has_no_dispersion_and_a_nan_is_no_number() {
        let one = of(Head::Softmax, &[1.0, 0.0], &[1.0, 0.0], &[0.5, 0.0]);
        assert_eq!(one.get(Statistic::EffectStd), None);
        assert!(one.get(Statistic::Kl).is_some() && one.is_finite());
        assert_eq!(one.get(Statistic::Ece { node: 1 }), None);
        for head in [Head::Softmax, Head::Sigmoid] {
            let nan = of(head, &[1.0, 0.0], &[1.0, 0.0], &[0.5, 0.0, f32::NAN, 0.0]);
            assert!(!nan.is_finite() && nan.get(Statistic::EffectIqr).unwrap().is_nan());
            let nan = of(head, &[f32::NAN, 0.0], &[1.0, 0.0], &[0.5, 0.0, 0.0, 0.0]);
            assert!(!nan.is_finite(), "{nan:?}");
        }
    }

    #[test]
    fn names_are_read_back_and_a_wrong_one_is_told_the_nearest() {
        for statistic in Statistic::SCALARS.into_iter().chain([Statistic::Ece { node: 12 }]) {
            assert_eq!(statistic.to_string().parse::<Statistic>().unwrap(), statistic);
            let json = serde_json::to_string(&statistic).unwrap();
            assert_eq!(json, format!("\"{statistic}\""));
            assert_eq!(serde_json::from_str::<Statistic>(&json).unwrap(), statistic);
        }
        let Err(DetectError::Name { nearest, .. }) = "efect-std".parse::<Statistic>() else { panic!() };
        assert_eq!(nearest, "effect-std");
        assert!("ece--1".parse::<Statistic>().is_err());
    }
}
