//! Attacks on a network, in pixel space, where eps is a distance in [0, 1] units.
//!
//! By steps along the input gradient: FGSM (Goodfellow et al., arXiv 1412.6572), BIM (Kurakin et al., arXiv 1607.02533) and
//! PGD (Madry et al., arXiv 1706.06083), which is BIM from a random start. One step formula for all three,
//! `x' = clip(x + step sign(g), max(0, x0 - eps), min(1, x0 + eps))` with sign(0) = 0, and one code path, on the device:
//! [`Victim::steps`]; in an L2 ball the gradient over its length instead of its sign. By saliency: [`jsma`].
//!
//! - [`method`]: an attack with its parameters, as configurations name it, run on a batch.
//! - [`victim`]: what attacks add to a network's graph, and a network under attack; a sweep carries it in its own artifact, so
//!   that attacks share its weights ([`crate::causal::sweep::Sweep::victim`]), and [`victim::Alone`] is one without a sweep.
//! - [`certificate`]: what an attack came to, image by image, and what it must not have done.
//!
//! What is here is the rest: a ball's parameters, what an attack moves from or to, random starts, and the loss that says which
//! of them went furthest.

pub mod certificate;
pub mod jsma;
pub mod method;
pub mod victim;

pub use method::Attack;
pub use victim::Victim;

use crate::answer::{softplus, widen};
use crate::backend::BackendError;
use crate::random::Stream;
use crate::tensor::TensorRef;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Which network an attack works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attacked {
    /// The host alone: an adversary who knows of no autoencoder.
    #[default]
    Host,
    /// The host with the autoencoder inserted: one who knows it too.
    Inserted,
}

impl Attacked {
    /// Left out of configurations, so that runs keep their ids.
    pub fn is_host(&self) -> bool {
        *self == Attacked::Host
    }
}

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
    /// What the attack has no form for.
    #[error("jsma goes to a class, not to findings; bim and pgd do")]
    Saliency,
    /// Asked to stop before it was done.
    #[error("stopped")]
    Stopped,
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// What an attack moves a network from or to, for each image.
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

/// Where an attack goes, seen from its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Away: the loss at the targets is to rise.
    Away,
    /// Towards: it is to fall.
    Towards,
}

/// Targets, and where an attack goes from there.
#[derive(Clone, Copy, Debug)]
pub struct Goal<'a> {
    /// One for each image.
    pub targets: Targets<'a>,
    /// Away from them or towards them.
    pub aim: Aim,
}

impl<'a> Goal<'a> {
    /// Towards `targets`: a targeted attack.
    pub fn towards(targets: Targets<'a>) -> Goal<'a> {
        Goal { targets, aim: Aim::Towards }
    }
}

/// Away from them: an untargeted attack.
impl<'a> From<Targets<'a>> for Goal<'a> {
    fn from(targets: Targets<'a>) -> Goal<'a> {
        Goal { targets, aim: Aim::Away }
    }
}

/// How the size of a change is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// The largest change of a pixel.
    #[default]
    Linf,
    /// The root of the sum of squared changes, over all pixels and channels.
    L2,
}

impl Norm {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Norm::Linf => "linf",
            Norm::L2 => "l2",
        }
    }

    /// Left out of configurations, so that runs keep their ids.
    pub fn is_linf(&self) -> bool {
        *self == Norm::Linf
    }
}

/// A run of steps in a ball around the image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// Radius of the ball.
    pub eps: f32,
    /// Length of a step.
    pub step: f32,
    /// Steps.
    pub steps: u32,
    /// In which both are measured.
    #[serde(default, skip_serializing_if = "Norm::is_linf")]
    pub norm: Norm,
}

impl Steps {
    /// FGSM: one step to the edge of the ball.
    pub fn single(eps: f32, norm: Norm) -> Steps {
        Steps { eps, step: eps, steps: 1, norm }
    }
}

/// Puts `pixels` of an image at a random start within eps of where they are, clipped to [0, 1]. In an L-infinity ball every
/// pixel is uniform; in an L2 ball the direction is, and the length uniform up to eps (as torchattacks has it: far from the
/// edge more often than uniform over the ball, whose starts in high dimensions all lie at the edge). Start number `restart` of
/// an image is the same whatever else is attacked.
///
/// # Errors
/// [`AttackError`] unless eps is finite and at least 0, or with more than 2^32 pixels.
pub fn start_at_random(
    seed: u64,
    image: u64,
    restart: u32,
    (norm, eps): (Norm, f32),
    pixels: &mut [f32],
) -> Result<(), AttackError> {
    if !(eps >= 0.0 && eps.is_finite()) {
        return Err(AttackError::Eps(eps));
    }
    if pixels.len() as u64 > 1 << 32 {
        return Err(AttackError::Pixels(pixels.len()));
    }
    match norm {
        Norm::Linf => {
            let stream = Stream::new(seed, &format!("pgd/{restart}"));
            for (i, x) in pixels.iter_mut().enumerate() {
                // from eps on both sides of x in f32, so that a start is inside of the ball that steps are clipped to
                let moved = *x + eps * (2.0 * stream.uniform(image, i as u32) - 1.0);
                *x = moved.clamp((*x - eps).max(0.0), (*x + eps).min(1.0));
            }
        }
        Norm::L2 => {
            let [angle, radius] =
                ["angle", "radius"].map(|part| Stream::new(seed, &format!("pgd-l2/{restart}/{part}")));
            let way: Vec<f64> = (0..pixels.len()).map(|i| normal(&angle, &radius, image, i as u32)).collect();
            let share = f64::from(Stream::new(seed, &format!("pgd-l2/{restart}/length")).uniform(image, 0));
            let scale = share * f64::from(eps) / length(way.iter().copied()).max(f64::MIN_POSITIVE);
            for (x, d) in pixels.iter_mut().zip(way) {
                *x = (f64::from(*x) + scale * d).clamp(0.0, 1.0) as f32;
            }
        }
    }
    Ok(())
}

/// A standard normal number (Box and Muller 1958).
fn normal(angle: &Stream, radius: &Stream, image: u64, index: u32) -> f64 {
    let turn = std::f64::consts::TAU * f64::from(angle.uniform(image, index));
    // 1 - u is above 0
    (-2.0 * (1.0 - f64::from(radius.uniform(image, index))).ln()).sqrt() * turn.cos()
}

/// The L2 norm, in f64.
fn length(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

/// One step in an L2 ball: from `x` by `step` along the gradient's direction (against it where step is below 0), back to within
/// eps of `x0` and to [0, 1], as torchattacks' PGDL2 has it. Where the gradient is exactly 0 there is no direction, and `x` stays.
fn l2_step(x: &mut [f32], x0: &[f32], gradient: &[f32], (step, eps): (f32, f32)) {
    let norm = length(gradient.iter().map(|&g| f64::from(g)));
    let along = if norm == 0.0 { 0.0 } else { f64::from(step) / norm };
    let pairs = || x.iter().zip(gradient).zip(x0);
    let change: Vec<f64> = pairs().map(|((x, g), x0)| f64::from(*x) + along * f64::from(*g) - f64::from(*x0)).collect();
    let size = length(change.iter().copied());
    let back = if size > f64::from(eps) { f64::from(eps) / size } else { 1.0 };
    for ((x, x0), d) in x.iter_mut().zip(x0).zip(change) {
        *x = (f64::from(*x0) + back * d).clamp(0.0, 1.0) as f32;
    }
}

/// One step of an image on the host, from `x` along `direction` (its pixels' gradient, of whatever is to rise): as the device makes it
/// in an L-infinity ball around `x0`, and as [`Victim::steps`] does in an L2 ball. A pixel whose direction is 0 or no number stays.
pub fn step_along(x: &mut [f32], x0: &[f32], direction: &[f32], steps: Steps) {
    let Steps { eps, step, norm, .. } = steps;
    match norm {
        Norm::L2 => l2_step(x, x0, direction, (step, eps)),
        Norm::Linf => {
            for ((x, x0), d) in x.iter_mut().zip(x0).zip(direction) {
                let moved = if *d > 0.0 {
                    *x + step
                } else if *d < 0.0 {
                    *x - step
                } else {
                    *x
                };
                // max and min instead of clamp, which panics where eps is no number
                *x = moved.max((*x0 - eps).max(0.0)).min((*x0 + eps).min(1.0));
            }
        }
    }
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
            start_at_random(seed, image, restart, (Norm::Linf, 0.1), &mut x).unwrap();
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
        start_at_random(1, 7, 0, (Norm::Linf, 0.0), &mut same).unwrap();
        assert_eq!(same, clean);
        for eps in [-0.1, f32::NAN, f32::INFINITY] {
            assert!(matches!(start_at_random(1, 7, 0, (Norm::L2, eps), &mut same), Err(AttackError::Eps(_))));
        }
    }

    #[test]
    fn a_start_in_an_l2_ball_is_anywhere_within_it() {
        let clean = vec![0.5f32; 400];
        let at = |image, restart| {
            let mut x = clean.clone();
            start_at_random(3, image, restart, (Norm::L2, 2.0), &mut x).unwrap();
            let change: Vec<f64> = x.iter().zip(&clean).map(|(a, b)| f64::from(a - b)).collect();
            (length(change.iter().copied()), change, x)
        };
        let lengths: Vec<f64> = (0..200).map(|image| at(image, 0).0).collect();
        assert!(lengths.iter().all(|l| *l <= 2.0 * (1.0 + 1e-6)));
        // uniform length: mean 1, standard error 2 / sqrt(12 * 200) = .041
        let mean = lengths.iter().sum::<f64>() / 200.0;
        assert!((mean - 1.0).abs() < 4.0 * 0.041, "{mean}");
        // the direction is no pixel's own: the largest of 400 normals is about 3 of their standard deviations
        let (length, change, x) = at(7, 0);
        let largest = change.iter().fold(0.0f64, |m, c| m.max(c.abs())) / (length / 20.0);
        assert!((2.0..6.0).contains(&largest), "{largest}");
        assert!(x == at(7, 0).2 && x != at(8, 0).2 && x != at(7, 1).2);
    }

    #[test]
    fn a_step_in_an_l2_ball_has_its_length_and_ends_at_the_edge() {
        let x0 = [0.5f32; 4];
        let step = |from: [f32; 4], gradient: [f32; 4], by: f32, eps: f32| {
            let mut x = from;
            l2_step(&mut x, &x0, &gradient, (by, eps));
            x
        };
        assert_eq!(step(x0, [3.0, 0.0, -4.0, 0.0], 0.1, 1.0), [0.56, 0.5, 0.42, 0.5]);
        assert_eq!(step(x0, [3.0, 0.0, -4.0, 0.0], -0.1, 1.0), [0.44, 0.5, 0.58, 0.5]);
        // back to the ball, and to the unit cube
        assert_eq!(step(x0, [3.0, 0.0, -4.0, 0.0], 0.5, 0.25), [0.65, 0.5, 0.3, 0.5]);
        assert_eq!(step(x0, [1.0, 0.0, 0.0, 0.0], 2.0, 2.0), [1.0, 0.5, 0.5, 0.5]);
        assert_eq!(step([0.6, 0.5, 0.5, 0.5], [0.0; 4], 0.1, 1.0), [0.6, 0.5, 0.5, 0.5]);
        assert!(step(x0, [f32::NAN, 0.0, 0.0, 0.0], 0.1, 1.0).iter().any(|x| x.is_nan()));
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
