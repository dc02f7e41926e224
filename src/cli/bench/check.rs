//! Whether both sides found the same: a fast wrong answer is no answer.
//!
//! Tolerances are those of [`crate::validate`], where another framework's numbers are replayed, and for the same reasons.
//! Whatever is not within one, NaN included, differs.

use super::Job;

/// Of the largest magnitude: two orders of summing some ten thousand products in 24 bits.
const LOGITS: f64 = 1e-5;
/// Of the largest effect: differences of nearly equal numbers.
const EFFECTS: f64 = 1e-4;
/// Of the loss, before a step and after it.
const LOSSES: f64 = 1e-5;
/// Share of pixels that have to move the same way: a sign flips where the gradient is below its rounding.
const SIGNS: f64 = 0.99;
/// Pixels that move the same way, by one sum and one clip.
const PIXELS: f64 = 1e-6;

/// Whether two results are one, and how near they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    /// Within the tolerance.
    pub same: bool,
    /// How near, in words.
    pub words: String,
}

/// Compares a job's results; `x` are the pixels that it was given.
pub fn compared(job: Job, ours: &[f64], theirs: &[f64], x: &[f32]) -> Agreement {
    if ours.len() != theirs.len() || ours.is_empty() {
        return Agreement { same: false, words: format!("{} numbers against {}", ours.len(), theirs.len()) };
    }
    match job {
        Job::Attack => pixels(ours, theirs, x),
        Job::Sweep => relative("effect", EFFECTS, ours, theirs),
        Job::Train | Job::TrainAe => relative("loss", LOSSES, ours, theirs),
        _ => relative("logit", LOGITS, ours, theirs),
    }
}

/// The largest value, NaN where there is one.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |most, value| if value > most || value.is_nan() { value } else { most })
}

fn relative(what: &str, tolerance: f64, ours: &[f64], theirs: &[f64]) -> Agreement {
    let scale = largest(theirs.iter().map(|v| v.abs()));
    let difference = largest(ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()));
    let part = difference / scale;
    Agreement {
        // a result of nothing but zeros says nothing, and 0 / 0 is not within any tolerance
        same: part <= tolerance,
        words: format!("{part:.1e} of the largest {what} ({scale:.2e}), at most {tolerance:.0e}"),
    }
}

/// Adversarial pixels: how many moved the same way, and how far apart those are.
fn pixels(ours: &[f64], theirs: &[f64], x: &[f32]) -> Agreement {
    if x.len() != ours.len() {
        return Agreement { same: false, words: format!("{} pixels against {} given", ours.len(), x.len()) };
    }
    let moved = |at: f64, from: f32| (at > f64::from(from), at < f64::from(from));
    let pairs = ours.iter().zip(theirs).zip(x);
    let alike: Vec<f64> =
        pairs.filter(|((a, b), x)| moved(**a, **x) == moved(**b, **x)).map(|((a, b), _)| (a - b).abs()).collect();
    let share = alike.len() as f64 / ours.len() as f64;
    let difference = largest(alike.into_iter());
    let moving = ours.iter().zip(x).any(|(a, x)| *a != f64::from(*x));
    Agreement {
        same: share >= SIGNS && difference <= PIXELS && moving,
        words: format!(
            "{:.3} % of pixels move alike (at least {:.0} %), those within {difference:.0e} (at most {PIXELS:.0e})",
            share * 100.0,
            SIGNS * 100.0
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_or_missing_differs() {
        for job in [Job::Sweep, Job::Forward, Job::Attack, Job::Train] {
            let x = [0.2f32; 2];
            assert!(compared(job, &[0.5, 0.5], &[0.5, 0.5], &x).same, "{job:?}");
            for (ours, theirs) in [
                (&[0.5, f64::NAN][..], &[0.5, 0.5][..]),
                (&[0.5, 0.5], &[f64::NAN; 2]),
                (&[0.5], &[0.5; 2]),
                (&[], &[]),
            ] {
                assert!(!compared(job, ours, theirs, &x).same, "{job:?} {ours:?} {theirs:?}");
            }
        }
        // zeros on both sides are no result
        assert!(!compared(Job::Sweep, &[0.0; 4], &[0.0; 4], &[]).same);
    }

    #[test]
    fn tolerances_are_shares_of_the_largest_number() {
        assert!(compared(Job::Forward, &[100.0, 0.0005], &[100.0, 0.0], &[]).same);
        assert!(!compared(Job::Forward, &[100.0, 0.005], &[100.0, 0.0], &[]).same);
        assert!(compared(Job::Sweep, &[100.0, 0.005], &[100.0, 0.0], &[]).same);
    }

    #[test]
    fn one_sign_in_two_hundred_may_flip_and_one_in_fifty_may_not() {
        let x = vec![0.5f32; 200];
        let ours = vec![0.8; 200];
        let flipped = |count: usize| (0..200).map(|i| if i < count { 0.2 } else { 0.8 }).collect::<Vec<f64>>();
        assert!(compared(Job::Attack, &ours, &flipped(1), &x).same);
        assert!(!compared(Job::Attack, &ours, &flipped(4), &x).same);
        // the same way, but not as far
        assert!(!compared(Job::Attack, &ours, &[0.79; 200], &x).same);
        // nobody moved
        assert!(!compared(Job::Attack, &[0.5; 200], &[0.5; 200], &x).same);
    }
}
