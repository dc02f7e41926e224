//! For tests: studies with a planted answer, and what others compute of numbers (`tests/fixtures/make_detect.py`).

use crate::attack::{Attack, Norm, Steps};
use crate::causal::study::{Answers, Input, Shard};
use crate::causal::sweep::Logits;
use crate::random::Stream;
use serde::Deserialize;
use statrs::distribution::{ContinuousCDF, Normal};
use std::collections::BTreeMap;

#[derive(Deserialize)]
pub struct Numbers {
    pub features: Vec<FeatureCase>,
    pub roc: Vec<RocCase>,
    pub logistic: Vec<LogisticCase>,
    pub mahalanobis: Vec<MahalanobisCase>,
}

#[derive(Deserialize)]
pub struct FeatureCase {
    pub orig: Vec<f32>,
    pub idle: Vec<f32>,
    pub zeroed: Vec<f32>,
    pub statistics: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
pub struct RocCase {
    pub scores: Vec<f64>,
    pub positive: Vec<u8>,
    pub confidence: Vec<f64>,
    pub area: f64,
    pub average_precision: f64,
    pub tpr: [f64; 2],
    pub matched: f64,
    pub used: usize,
    pub dropped: usize,
}

#[derive(Deserialize)]
pub struct LogisticCase {
    pub rows: Vec<Vec<f64>>,
    pub attacked: Vec<u8>,
    pub penalty: f64,
    pub coefficients: Vec<f64>,
    pub intercept: f64,
    pub scores: Vec<f64>,
}

#[derive(Deserialize)]
pub struct MahalanobisCase {
    pub rows: Vec<Vec<f64>>,
    pub ridge: f64,
    pub queries: Vec<Vec<f64>>,
    pub distances: Vec<f64>,
}

pub fn numbers() -> Numbers {
    serde_json::from_str(include_str!("../../tests/fixtures/detect.json")).expect("a fixture")
}

/// The chance that one of a normal population lies above one of another, their means `shift` standard deviations apart.
pub fn normal_area(shift: f64) -> f64 {
    Normal::standard().cdf(shift / 2f64.sqrt())
}

/// What an input does to an image, in standard deviations of the clean population.
#[derive(Clone, Copy, Debug)]
pub struct Shift {
    pub input: Input,
    /// How much less sure the host is.
    pub doubt: f64,
    /// How much farther apart the nodes' effects are.
    pub effect: f64,
    /// Share of images whose answer it changes.
    pub success: f32,
}

/// A study with two independent normal numbers an image: how sure the host is, and how far apart the nodes' effects are.
/// `max-p` and `entropy` are monotone in the first alone, `effect-std`, `-iqr` and `ece-0` in the second alone.
#[derive(Clone, Debug)]
pub struct Planted {
    pub images: usize,
    pub classes: usize,
    pub nodes: usize,
    pub seed: u64,
    pub shifts: Vec<Shift>,
    /// Which image stands at a place.
    pub order: fn(usize, usize) -> usize,
    /// Images whose `idle` logits under the last input are not numbers.
    pub nan: usize,
    /// Every so many-th image is one that the host has wrong.
    pub wrong: usize,
}

pub const EPS: f32 = 0.3;

impl Default for Planted {
    fn default() -> Planted {
        let steps = Steps { eps: EPS, step: 0.05, steps: 10, norm: Norm::Linf };
        let shift = |input, doubt, effect, success| Shift { input, doubt, effect, success };
        let shifts = vec![
            shift(Input::Attack(Attack::Fgsm { eps: EPS, norm: Norm::Linf }), 0.5, 1.5, 0.9),
            shift(Input::Attack(Attack::Pgd { steps, restarts: 1 }), -1.5, 1.0, 1.0),
            shift(Input::Noise { eps: EPS, norm: Norm::Linf }, 1.5, 0.0, 0.1),
            shift(
                Input::Pwm {
                    masks: 1,
                    fill: crate::causal::fill::Fill::Value(0.0),
                    region: crate::causal::mask::Region::Grid10,
                },
                0.0,
                0.0,
                0.05,
            ),
        ];
        Planted { images: 400, classes: 4, nodes: 5, seed: 1, shifts, order: |i, _| i, nan: 0, wrong: 20 }
    }
}

/// The study, cut into shards of `sizes` images.
pub fn shards(planted: &Planted, sizes: &[usize]) -> Vec<Shard> {
    assert_eq!(sizes.iter().sum::<usize>(), planted.images);
    let mut first = 0;
    let mut all = Vec::new();
    for &size in sizes {
        let ids: Vec<u64> = (first..first + size).map(|place| (planted.order)(place, planted.images) as u64).collect();
        let labels = ids.iter().map(|id| (*id % planted.classes as u64) as u32).collect();
        let clean = Shift { input: Input::None, doubt: 0.0, effect: 0.0, success: 0.0 };
        let inputs = std::iter::once(&clean).chain(&planted.shifts).enumerate();
        let answers = inputs.map(|(k, shift)| of_input(planted, k, shift, &ids)).collect();
        all.push(Shard { first, ids, labels, answers });
        first += size;
    }
    all
}

fn of_input(planted: &Planted, input: usize, shift: &Shift, ids: &[u64]) -> Answers {
    let normal = |name: &str, id: u64| {
        let u = f64::from(Stream::new(planted.seed, name).uniform(id, input as u32)) + 0.5f64.powi(25);
        Normal::standard().inverse_cdf(u)
    };
    let (classes, last) = (planted.classes as u64, input == planted.shifts.len());
    let mut logits = Logits { orig: Vec::new(), idle: Vec::new(), done: Vec::new(), live: Vec::new() };
    for &id in ids {
        let taken = Stream::new(planted.seed, "success").uniform(id, input as u32) < shift.success;
        let wrong = planted.wrong > 0 && id % planted.wrong as u64 == 0;
        let class = (id + u64::from(wrong) + 2 * u64::from(taken)) % classes;
        let row = |own: f64| (0..classes).map(move |c| if c == class { own as f32 } else { 0.0 });
        let sure = 4.0 + 0.5 * (normal("sure", id) - shift.doubt);
        let apart = (0.5 * (normal("apart", id) + shift.effect)).exp();
        logits.orig.extend(row(sure));
        let idle = if last && (id as usize) < planted.nan { f64::NAN } else { 3.0 };
        logits.idle.extend(row(idle));
        for node in 0..planted.nodes {
            // nodes 1, 3, .. are dead, the others pull with one strength; interquartile ranges want more than one
            logits.done.extend(row(if node % 2 == 0 { 3.0 - 0.3 * apart } else { 3.0 }));
            logits.live.push(node % 2 == 0);
        }
    }
    Answers { input: shift.input, mask: 0, fraction: Vec::new(), logits }
}
