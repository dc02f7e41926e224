//! Attacks on a network, in pixel space, where eps is a distance in [0, 1] units.
//!
//! By signed steps of the input gradient: FGSM (Goodfellow et al., arXiv 1412.6572), BIM (Kurakin et al., arXiv 1607.02533) and
//! PGD (Madry et al., arXiv 1706.06083), which is BIM from a random start. One step formula for all three,
//! `x' = clip(x + step sign(g), max(0, x0 - eps), min(1, x0 + eps))` with sign(0) = 0, and one code path, on the device:
//! [`Victim::steps`]. By saliency: [`jsma`].
//!
//! [`victim`] adds what attacks need to a network's graph and drives it; a sweep carries it in its own artifact, so that
//! attacks share its weights ([`crate::causal::sweep::Sweep::victim`]). What is here is the rest: parameters, what an attack
//! moves away from, random starts, and the loss that says which of them went furthest.

pub mod jsma;
pub mod victim;

pub use victim::Victim;

use crate::answer::{softplus, widen};
use crate::random::Stream;
use crate::tensor::TensorRef;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What can be wrong with what an attack is given.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum AttackError {
    /// A ball of no size.
    #[error("eps {0} is out of range: 0 or more, and finite")]
    Eps(f32),
    /// More pixels than random numbers have places for.
    #[error("{0} pixels are too many: at most 2^32")]
    Pixels(usize),
    /// Not one target an image.
    #[error("{got} targets for {expected} images")]
    Targets {
        /// Images, or labels of all images.
        expected: usize,
        /// Targets given.
        got: usize,
    },
    /// A class that there is not.
    #[error("class {class} does not exist: there are {classes}")]
    Class {
        /// The class.
        class: u32,
        /// How many there are.
        classes: usize,
    },
}

/// What an attack moves a network away from, for each image.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// A class each: of a softmax head.
    Classes(&'a [u32]),
    /// A row of findings each, 1 or 0 a label: of a sigmoid head.
    Findings(&'a [f32]),
}

impl<'a> Targets<'a> {
    fn write(self) -> TensorRef<'a> {
        match self {
            Targets::Classes(labels) => TensorRef::U32(labels),
            Targets::Findings(findings) => TensorRef::F32(findings),
        }
    }
}

/// A run of signed steps in an L-infinity ball.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// Largest change of a pixel.
    pub eps: f32,
    /// Change of a pixel in one step.
    pub step: f32,
    /// Steps.
    pub steps: u32,
}

impl Steps {
    /// FGSM: one step to the edge of the ball.
    pub fn single(eps: f32) -> Steps {
        Steps { eps, step: eps, steps: 1 }
    }
}

/// Puts `pixels` of an image at a random start within eps of where they are: uniform, then clipped to [0, 1]. Start number
/// `restart` of an image is the same whatever else is attacked.
///
/// # Errors
/// [`AttackError`] unless eps is finite and at least 0, or with more than 2^32 pixels.
pub fn start_at_random(seed: u64, image: u64, restart: u32, eps: f32, pixels: &mut [f32]) -> Result<(), AttackError> {
    if !(eps >= 0.0 && eps.is_finite()) {
        return Err(AttackError::Eps(eps));
    }
    if pixels.len() as u64 > 1 << 32 {
        return Err(AttackError::Pixels(pixels.len()));
    }
    let stream = Stream::new(seed, &format!("pgd/{restart}"));
    for (i, x) in pixels.iter_mut().enumerate() {
        // from eps on both sides of x in f32, so that a start is inside of the ball that steps are clipped to
        let moved = *x + eps * (2.0 * stream.uniform(image, i as u32) - 1.0);
        *x = moved.clamp((*x - eps).max(0.0), (*x + eps).min(1.0));
    }
    Ok(())
}

/// What attacks raise, an image, in f64: cross-entropy of a class, or binary cross-entropy summed over findings. `logits` are
/// images x classes. Logits that are not numbers give NaN.
///
/// # Errors
/// [`AttackError`] unless there is one target an image, of a class that there is.
pub fn losses(logits: &[f32], classes: usize, targets: Targets<'_>) -> Result<Vec<f64>, AttackError> {
    let rows = logits.chunks_exact(classes.max(1)).map(widen);
    match targets {
        Targets::Classes(labels) => {
            same_length(rows.len(), labels.len())?;
            let one = |(row, &label): (Vec<f64>, &u32)| {
                let missing = AttackError::Class { class: label, classes };
                let own = *row.get(label as usize).ok_or(missing)?;
                let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                Ok(row.iter().map(|o| (o - most).exp()).sum::<f64>().ln() + most - own)
            };
            rows.zip(labels).map(one).collect()
        }
        Targets::Findings(findings) => {
            same_length(logits.len(), findings.len())?;
            let one = |(o, &y): (&f64, &f32)| softplus(*o) - f64::from(y) * o;
            let each = rows.zip(findings.chunks_exact(classes.max(1)));
            Ok(each.map(|(row, y)| row.iter().zip(y).map(one).sum()).collect())
        }
    }
}

fn same_length(expected: usize, got: usize) -> Result<(), AttackError> {
    if expected == got { Ok(()) } else { Err(AttackError::Targets { expected, got }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_lies_in_the_ball_and_in_the_unit_cube_and_is_an_images_own() {
        let clean: Vec<f32> = (0..1000).map(|i| (i % 256) as f32 / 255.0).collect();
        let at = |seed, image, restart| {
            let mut x = clean.clone();
            start_at_random(seed, image, restart, 0.1, &mut x).unwrap();
            x
        };
        let start = at(1, 7, 0);
        for (x, s) in clean.iter().zip(&start) {
            assert!((0.0..=1.0).contains(s) && *s >= x - 0.1 && *s <= x + 0.1, "{x} {s}");
        }
        // uniform: both sides alike
        let up = clean.iter().zip(&start).filter(|(x, s)| s > x).count();
        assert!((430..570).contains(&up), "{up}");
        assert_eq!(start, at(1, 7, 0));
        assert!([at(2, 7, 0), at(1, 8, 0), at(1, 7, 1)].iter().all(|other| *other != start));
        let mut same = clean.clone();
        start_at_random(1, 7, 0, 0.0, &mut same).unwrap();
        assert_eq!(same, clean);
        for eps in [-0.1, f32::NAN, f32::INFINITY] {
            assert!(matches!(start_at_random(1, 7, 0, eps, &mut same), Err(AttackError::Eps(_))));
        }
    }

    #[test]
    fn losses_are_those_of_hand_worked_cases_and_a_nan_stays_one() {
        let log = |v: f64| v.ln();
        let got = losses(&[0.0, 0.0, 0.0, 1.0, 2.0, 3.0], 3, Targets::Classes(&[1, 2])).unwrap();
        let want = [log(3.0), log((-2f64).exp() + (-1f64).exp() + 1.0)];
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-15), "{got:?}");
        // far from overflow
        assert_eq!(losses(&[1000.0, 0.0], 2, Targets::Classes(&[1])).unwrap(), [1000.0]);
        let got = losses(&[0.0, 2.0, -800.0], 3, Targets::Findings(&[1.0, 0.0, 1.0])).unwrap();
        assert!((got[0] - (log(2.0) + log(1.0 + 2f64.exp()) + 800.0)).abs() < 1e-12, "{got:?}");
        assert!(losses(&[f32::NAN, 0.0], 2, Targets::Classes(&[1])).unwrap()[0].is_nan());
        assert!(losses(&[f32::NAN, 0.0], 2, Targets::Findings(&[1.0, 0.0])).unwrap()[0].is_nan());
        assert!(losses(&[0.0; 4], 2, Targets::Classes(&[0])).is_err());
        assert!(losses(&[0.0; 2], 2, Targets::Classes(&[2])).is_err());
        assert!(losses(&[0.0; 2], 2, Targets::Findings(&[1.0])).is_err());
    }
}
