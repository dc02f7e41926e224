//! The paper's causal conditions II and III (Yang et al., ICIP 2019, section 3.1 and figure 1), measured on a study's shards.
//! Condition I, one node and one answer, is what every table of `causal` is about.
//!
//! - [`symptom`]: II, "masking the known symptoms": what hiding a finding's box does to the finding and to the nodes' effects,
//!   beside what hiding as much elsewhere does.
//! - [`multitask`]: III, one cause of two tasks: what a node does to the findings and to a second head behind them, and whether
//!   that can be told from nothing: the paper's claim (f).
//!
//! Every quantity is a column, one number an image, of which [`Measured`] says mean, interval and whether it is as good as 0.

pub mod multitask;
pub mod symptom;

pub use multitask::{Multitask, SecondHead};
pub use symptom::Symptoms;

use crate::causal::CausalError;
use crate::causal::statistics::{Bootstrap, Clusters, Equivalence, Likeness};
use crate::interval::Interval;
use serde::Serialize;

/// Patients (images, where nobody says whose they are) below which nothing is called settled.
pub const UNITS_MIN: usize = 30;
/// An effect, or change of a probability, that is as good as none unless somebody says otherwise: well below the smallest effect
/// that the paper prints for a clean X-ray, 2.8e-3.
pub const MARGIN: f64 = 1e-3;

/// How quantities are judged.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Resamples of whole patients.
    pub bootstrap: Bootstrap,
    /// Level of intervals; one less it is the chance of a false verdict.
    pub level: f64,
    /// How far from 0 is as good as 0.
    pub margin: f64,
}

/// One quantity over images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// What it is.
    pub quantity: String,
    /// Of which nodes (`3`, `3+7`); empty where it is of none.
    pub node: String,
    /// Images.
    pub n: usize,
    /// Mean over them; none where an image's is no number.
    pub mean: Option<f64>,
    /// Its interval, of resampled patients.
    pub interval: Option<Interval>,
    /// Two-sided p of mean = 0.
    pub p_zero: Option<f64>,
    /// p of "not within the margin" (TOST).
    pub p_margin: Option<f64>,
    /// What it comes to; none below [`UNITS_MIN`] patients.
    pub verdict: Option<Likeness>,
}

impl Judge {
    /// Measures a column, one value an image.
    ///
    /// # Errors
    /// [`CausalError`] for a level or margin out of range, or when the column is not one value an image.
    fn measure(&self, quantity: &str, node: &str, column: &[f64]) -> Result<Measured, CausalError> {
        let clusters: &Clusters = self.bootstrap.clusters();
        let interval = self.bootstrap.intervals(&[column], self.level)?.into_iter().next().flatten();
        // alpha below one half, whatever the level
        let alpha = (1.0 - self.level).min(0.49);
        let tested = Equivalence::of(column, clusters, self.margin, alpha)?;
        Ok(Measured {
            quantity: quantity.into(),
            node: node.into(),
            n: column.len(),
            mean: tested.map(|t| t.mean).or_else(|| mean(column)),
            interval,
            p_zero: tested.map(|t| t.p_zero),
            p_margin: tested.map(|t| t.p),
            verdict: tested.map(|t| t.verdict).filter(|_| clusters.count() >= UNITS_MIN),
        })
    }
}

/// Mean of numbers that all are some.
fn mean(column: &[f64]) -> Option<f64> {
    Some(column.iter().sum::<f64>() / column.len() as f64).filter(|mean| mean.is_finite())
}

/// `-3.1e-2 [-4.0e-2, -2.2e-2]`.
fn told(measured: &Measured) -> String {
    let Some(mean) = measured.mean else { return "not a number".into() };
    let interval = measured.interval.map_or(String::new(), |i| format!(" [{:+.1e}, {:+.1e}]", i.lo, i.hi));
    format!("{mean:+.1e}{interval}")
}
