//! An adversary who knows the detector: raises the loss, with the statistic that the detector looks at kept where clean images have
//! it. Called by the command line on the test images of [`super::adaptive`].
//!
//! The statistic is the declared one ([`DECLARED`], the standard deviation over nodes of the effect on the predicted answer). Its
//! gradient is a true one, through every intervention: with e_k the effect of node k and e their mean over K nodes, S^2 = mean (e_k -
//! e)^2, so that dS/dq_k = (e_k - e) / (K S), q_k being the answer's probability with node k at 0; the idle answer cancels, but for
//! nodes that are not live, whose q is it. [`Pull`] takes the logits' weights from there to the pixels. Signs do not know a
//! gradient's size, so the weights are scaled to a largest of 1 for each image: a saturated net's do not vanish.
//!
//! Steps, ball and starts are those of the plain attack. Inside the band a step raises the loss; outside it goes back, along the
//! statistic's gradient less what of it would lower the loss (selective and orthogonal steps: Bryniarski et al., arXiv 2106.15023).
//! Of all that is seen on the way, from every start, the adversary takes what is inside the band with the largest loss, or, where
//! nothing is, what is nearest to it. This says what one adversary of that budget can do, not what the best could.

use super::claim::DECLARED;
use super::features::Features;
use crate::answer::Head;
use crate::attack::method::Images;
use crate::attack::{AttackError, Attacked, Steps, Targets, losses, start_at_random, step_along};
use crate::causal::CausalError;
use crate::causal::effect::Responses;
use crate::causal::pull::Pull;
use crate::causal::study::StudyError;
use crate::causal::sweep::{Logits, Sweep};
use crate::interval::quantile;
use crate::tensor::argmax;
use serde::{Deserialize, Serialize};

/// Share of clean images on either side of a band.
const TAIL: f64 = 0.05;

/// Where clean images have a statistic: from their 5 % quantile to that of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// 5 % quantile.
    pub lo: f64,
    /// 95 % quantile.
    pub hi: f64,
}

impl Band {
    /// Of clean images' values; `None` without any.
    pub fn of(mut values: Vec<f64>) -> Option<Band> {
        values.sort_unstable_by(f64::total_cmp);
        Some(Band { lo: quantile(&values, TAIL)?, hi: quantile(&values, 1.0 - TAIL)? })
    }

    /// Whether a value is inside. One that is no number is not.
    pub fn contains(self, value: f64) -> bool {
        (self.lo..=self.hi).contains(&value)
    }

    /// How far outside a value is, on a scale of logarithms, for effects span decades; 0 inside, infinite where it is 0 or no number.
    fn beyond(self, value: f64) -> f64 {
        if self.contains(value) {
            return 0.0;
        }
        let distance = if value < self.lo { (self.lo / value).ln() } else { (value / self.hi).ln() };
        if distance.is_nan() { f64::INFINITY } else { distance }
    }
}

/// A network, its detector, and who attacks both.
pub struct Adversary<'a> {
    /// The network; its sets are the detector's nodes.
    pub sweep: &'a mut Sweep,
    /// Its gradients, for the same sets.
    pub pull: &'a mut Pull,
    /// Which network's loss is raised.
    pub attacked: Attacked,
    /// Where the statistic is to stay.
    pub band: Band,
    /// Whether to stop before it is done.
    pub stopped: &'a dyn Fn() -> bool,
}

/// What the adversary sees of an image.
struct Seen {
    loss: f64,
    beyond: f64,
    /// Weights of the logits, idle's first, whose sum rises as the statistic goes back to the band; empty inside of it.
    back: Vec<f32>,
}

impl Adversary<'_> {
    /// The images after the attack.
    ///
    /// # Errors
    /// [`StudyError`]; [`AttackError::Stopped`] when told to stop.
    pub fn attack(
        &mut self,
        images: Images<'_>,
        targets: Targets<'_>,
        (steps, restarts): (Steps, u32),
    ) -> Result<Vec<f32>, StudyError> {
        let Images { pixels: clean, ids, seed } = images;
        let size = (clean.len() / ids.len().max(1)).max(1);
        let mut taken = clean.to_vec();
        // loss and distance of what is taken
        let mut best: Vec<Option<(f64, f64)>> = vec![None; ids.len()];
        for restart in 0..restarts.max(1) {
            let mut x = clean.to_vec();
            for (image, &id) in x.chunks_exact_mut(size).zip(ids) {
                start_at_random(seed, id, restart, (steps.norm, steps.eps), image)?;
            }
            for step in 0..=steps.steps {
                if (self.stopped)() {
                    return Err(AttackError::Stopped.into());
                }
                let seen = self.look(&x, targets)?;
                let rows = taken.chunks_exact_mut(size).zip(x.chunks_exact(size));
                for ((taken, x), (best, seen)) in rows.zip(best.iter_mut().zip(&seen)) {
                    let better = |(loss, beyond): (f64, f64)| {
                        seen.beyond < beyond || (seen.beyond == beyond && seen.loss > loss)
                    };
                    if best.is_none_or(better) {
                        taken.copy_from_slice(x);
                        *best = Some((seen.loss, seen.beyond));
                    }
                }
                if step < steps.steps {
                    let directions = self.directions(&x, &seen, targets)?;
                    let rows = x.chunks_exact_mut(size).zip(clean.chunks_exact(size));
                    for ((x, x0), direction) in rows.zip(directions.chunks_exact(size)) {
                        step_along(x, x0, direction, steps);
                    }
                }
            }
        }
        Ok(taken)
    }

    /// Loss and statistic of every image.
    fn look(&mut self, x: &[f32], targets: Targets<'_>) -> Result<Vec<Seen>, StudyError> {
        let logits: Logits = self.sweep.outcomes(x)?;
        let (head, classes, sets) = (self.sweep.head(), self.sweep.classes(), self.sweep.sets().len());
        let answered = if self.attacked == Attacked::Inserted { &logits.idle } else { &logits.orig };
        let losses = losses(answered, classes, targets)?;
        let rows = logits.orig.chunks_exact(classes).zip(logits.idle.chunks_exact(classes));
        let done = logits.done.chunks_exact((sets * classes).max(1));
        let each = rows.zip(done.zip(logits.live.chunks_exact(sets.max(1)))).zip(losses);
        let seen = each.map(|(((orig, idle), (done, live)), loss)| {
            let responses = Responses::new(head, orig, idle, done)?;
            let value = Features::of(&responses)?.get(DECLARED).unwrap_or(f64::NAN);
            let beyond = self.band.beyond(value);
            let back = match beyond {
                0.0 => Vec::new(),
                _ => slope(&responses, live, value < self.band.lo)?,
            };
            Ok(Seen { loss, beyond, back })
        });
        Ok(seen.collect::<Result<_, CausalError>>()?)
    }

    /// Where each image goes: up the loss, or back to the band.
    fn directions(&mut self, x: &[f32], seen: &[Seen], targets: Targets<'_>) -> Result<Vec<f32>, StudyError> {
        let size = (x.len() / seen.len().max(1)).max(1);
        let mut directions = self.sweep.victim().input_gradient(x, targets)?;
        let astray: Vec<usize> = (0..seen.len()).filter(|&i| !seen[i].back.is_empty()).collect();
        let pixels: Vec<f32> = astray.iter().flat_map(|&i| &x[i * size..(i + 1) * size]).copied().collect();
        let weights: Vec<f32> = astray.iter().flat_map(|&i| &seen[i].back).copied().collect();
        let back = self.pull.gradient(&pixels, &weights)?;
        for (&i, back) in astray.iter().zip(back.chunks_exact(size)) {
            let loss = &mut directions[i * size..(i + 1) * size];
            let along = harmless(back, loss);
            loss.copy_from_slice(&along);
        }
        Ok(directions)
    }
}

/// `back` without what of it lowers the loss, whose gradient is `loss`.
fn harmless(back: &[f32], loss: &[f32]) -> Vec<f32> {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let (against, length) = (product(back, loss), product(loss, loss));
    if !(against < 0.0 && length > 0.0) {
        return back.to_vec();
    }
    let share = against / length;
    back.iter().zip(loss).map(|(b, l)| (f64::from(*b) - share * f64::from(*l)) as f32).collect()
}

/// Weights of the logits of idle and of each set, along which the statistic rises (or falls), the largest 1: its derivatives, up to a
/// factor. Zeros where it has none.
fn slope(responses: &Responses, live: &[bool], rises: bool) -> Result<Vec<f32>, CausalError> {
    let (sets, classes, head) = (responses.nodes(), responses.classes(), responses.head());
    let mut weights = vec![0.0f64; (sets + 1) * classes];
    let Some(class) = argmax(responses.idle()) else { return Ok(vec![0.0; weights.len()]) };
    let mut effects = Vec::with_capacity(sets);
    for set in 0..sets {
        effects.push(responses.node_effects(set)?.get(class).copied().unwrap_or(f64::NAN));
    }
    let mean = effects.iter().sum::<f64>() / sets.max(1) as f64;
    for (set, effect) in effects.iter().enumerate() {
        // a set that is not live answers as idle does
        let (row, p) = match live.get(set) {
            Some(true) => (set + 1, responses.p_zeroed(set)?),
            _ => (0, responses.p_idle().to_vec()),
        };
        let row = &mut weights[row * classes..(row + 1) * classes];
        row.iter_mut().zip(derivative(head, &p, class)).for_each(|(w, d)| *w += (effect - mean) * d);
    }
    let largest = weights.iter().fold(0.0f64, |m, w| m.max(w.abs()));
    let scale = if rises { 1.0 / largest } else { -1.0 / largest };
    Ok(weights.into_iter().map(|w| if scale.is_finite() && w.is_finite() { (w * scale) as f32 } else { 0.0 }).collect())
}

/// The derivatives of p_class for the logits: p_class (1 - p_class) for its own, the difference taken from the others so that it keeps
/// its digits near 1, and of a softmax - p_class p_j for the others.
fn derivative(head: Head, p: &[f64], class: usize) -> Vec<f64> {
    let own = p.get(class).copied().unwrap_or(f64::NAN);
    let others = || p.iter().enumerate().filter(|(c, _)| *c != class).map(|(_, p)| *p);
    let rest = if head == Head::Softmax { others().sum() } else { 1.0 - own };
    let one = |(c, other): (usize, &f64)| match (c == class, head) {
        (true, _) => own * rest,
        (false, Head::Softmax) => -own * other,
        (false, Head::Sigmoid) => 0.0,
    };
    p.iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    #[test]
    fn a_band_holds_the_middle_of_clean_images_and_measures_what_is_outside() {
        let band = Band::of((0..=100).map(f64::from).collect()).unwrap();
        assert_eq!(band, Band { lo: 5.0, hi: 95.0 });
        assert!(band.contains(5.0) && band.contains(95.0) && !band.contains(4.9) && !band.contains(f64::NAN));
        assert_eq!((band.beyond(50.0), band.beyond(0.0), band.beyond(f64::NAN)), (0.0, f64::INFINITY, f64::INFINITY));
        assert_relative_eq!(band.beyond(0.5), 10f64.ln(), max_relative = 1e-12);
        assert_relative_eq!(band.beyond(190.0), 2f64.ln(), max_relative = 1e-12);
        assert!(Band::of(Vec::new()).is_none());
    }

    /// The weights are the statistic's derivatives for the logits, up to one factor: central differences in f64.
    #[test]
    fn weights_are_the_statistics_slope() {
        for head in [Head::Softmax, Head::Sigmoid] {
            let idle = [1.5f32, 0.25, -1.0];
            let done = [1.0f32, 0.5, -1.0, 0.0, 0.75, -0.5, 1.5, 0.25, -1.0, 2.5, 0.25, -1.25];
            let live = [true, true, false, true];
            let value = |idle: &[f32], done: &[f32]| {
                let responses = Responses::new(head, idle, idle, done).unwrap();
                Features::of(&responses).unwrap().get(DECLARED).unwrap()
            };
            let responses = Responses::new(head, &idle, &idle, &done).unwrap();
            let weights = slope(&responses, &live, true).unwrap();
            let falls: Vec<f32> = slope(&responses, &live, false).unwrap().iter().map(|w| -w).collect();
            assert_eq!(weights, falls);
            // an exact step of f32 here
            let h = 1.0 / 1024.0;
            let differences: Vec<f64> = (0..weights.len())
                .map(|i| {
                    let at = |by: f32| {
                        let (mut idle, mut done) = (idle, done);
                        match i.checked_sub(3) {
                            Some(i) => done[i] += by,
                            None => {
                                idle[i] += by;
                                done[6 + i] += by;
                            }
                        }
                        value(&idle, &done)
                    };
                    // what is not live moves with idle, and not by itself
                    if (9..12).contains(&i) { 0.0 } else { (at(h) - at(-h)) / f64::from(2.0 * h) }
                })
                .collect();
            let largest = differences.iter().fold(0.0f64, |m, d| m.max(d.abs()));
            for (w, d) in weights.iter().zip(&differences) {
                assert!((f64::from(*w) - d / largest).abs() < 1e-4, "{head:?}: {weights:?} {differences:?}");
            }
        }
    }

    #[test]
    fn a_step_back_does_not_lower_the_loss() {
        let along = harmless(&[1.0, -2.0, 0.5], &[1.0, 1.0, 0.0]);
        assert_eq!(along, [1.5, -1.5, 0.5]);
        assert_eq!(harmless(&[1.0, 2.0], &[1.0, 0.0]), [1.0, 2.0]);
        assert_eq!(harmless(&[1.0, 2.0], &[0.0, 0.0]), [1.0, 2.0]);
    }

    #[test]
    fn where_nodes_do_the_same_there_is_no_slope() {
        let row = [2.0f32, 0.0];
        let responses = Responses::new(Head::Softmax, &row, &row, &[2.0, 0.0, 2.0, 0.0]).unwrap();
        assert_eq!(slope(&responses, &[false, false], true).unwrap(), [0.0; 6]);
    }
}
