//! An attack with its parameters, as configurations name it, and what it makes of some images.

use super::jsma::Jsma;
use super::{Aim, AttackError, Goal, Norm, Steps, Targets, Victim, losses, start_at_random};
use crate::tensor::argmax;
use serde::{Deserialize, Serialize};

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "input")]
pub enum Attack {
    /// Fast gradient sign method: one step to the edge of the ball.
    Fgsm {
        /// Radius of the ball.
        eps: f32,
        /// In which it is measured.
        #[serde(default, skip_serializing_if = "Norm::is_linf")]
        norm: Norm,
    },
    /// Basic iterative method: steps from the image.
    Bim(Steps),
    /// Projected gradient descent: the same from random starts, of which the one that went furthest is taken.
    Pgd {
        /// The steps from a start.
        #[serde(flatten)]
        steps: Steps,
        /// Starts, at least 1.
        restarts: u32,
    },
    /// Saliency map attack; where it is to go away from a class, towards what the network takes for the most likely other.
    Jsma(Jsma),
}

/// Some images, and what their random numbers go by.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// Images x C·H·W pixels in [0, 1].
    pub pixels: &'a [f32],
    /// An id each.
    pub ids: &'a [u64],
    /// Seed of random starts.
    pub seed: u64,
}

impl Attack {
    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Attack::Fgsm { .. } => "fgsm",
            Attack::Bim(_) => "bim",
            Attack::Pgd { .. } => "pgd",
            Attack::Jsma(_) => "jsma",
        }
    }

    /// The ball that it stays in, where it has one.
    pub fn ball(&self) -> Option<(Norm, f32)> {
        match self {
            Attack::Fgsm { eps, norm } => Some((*norm, *eps)),
            Attack::Bim(s) | Attack::Pgd { steps: s, .. } => Some((s.norm, s.eps)),
            Attack::Jsma(_) => None,
        }
    }

    /// Gradients that it takes, for an image of `pixels` pixels, at most.
    pub fn gradients(&self, pixels: usize) -> u32 {
        match self {
            Attack::Fgsm { .. } => 1,
            Attack::Bim(steps) => steps.steps,
            Attack::Pgd { steps, restarts } => steps.steps.saturating_mul(*restarts),
            // the last pair of gradients may only tell that the target is reached
            Attack::Jsma(jsma) => jsma.steps(pixels).saturating_add(1).saturating_mul(2),
        }
    }

    /// Numbers of steps after which [`Attack::run_watched`] shows the images: 1, 2, 4, ... and all; none of attacks that are not
    /// watched.
    pub fn halts(&self) -> Vec<u32> {
        match self {
            Attack::Bim(steps) | Attack::Pgd { steps, .. } => halts(steps.steps),
            Attack::Fgsm { .. } | Attack::Jsma(_) => Vec::new(),
        }
    }

    /// The images after the attack.
    ///
    /// # Errors
    /// [`AttackError`]: the device's, what the parameters or targets lack, or [`AttackError::Stopped`].
    pub fn run(&self, victim: &mut Victim<'_>, images: Images<'_>, goal: Goal<'_>) -> Result<Vec<f32>, AttackError> {
        self.run_watched(victim, images, goal, None)
    }

    /// As [`Attack::run`], bit for bit, and after 1, 2, 4, ... steps and the last (of the first start) `watch` is shown what
    /// the images are by then. FGSM and jsma are not watched.
    ///
    /// # Errors
    /// As [`Attack::run`], and `watch`'s own.
    pub fn run_watched(
        &self,
        victim: &mut Victim<'_>,
        images: Images<'_>,
        goal: Goal<'_>,
        watch: Option<Watch<'_>>,
    ) -> Result<Vec<f32>, AttackError> {
        match *self {
            Attack::Fgsm { eps, norm } => victim.steps(images.pixels, None, goal, Steps::single(eps, norm)),
            Attack::Bim(steps) => walk(victim, images.pixels, None, goal, steps, watch),
            Attack::Pgd { steps, restarts } => pgd(victim, images, goal, (steps, restarts), watch),
            Attack::Jsma(jsma) => {
                let to: Vec<u32> = match (goal.targets, goal.aim) {
                    (Targets::Classes(to), Aim::Towards) => to.to_vec(),
                    (Targets::Findings(_), Aim::Towards) => return Err(AttackError::Saliency),
                    (from, Aim::Away) => {
                        let logits = victim.forward(images.pixels)?;
                        let class = |i: usize, row: &[f32]| match from {
                            Targets::Classes(from) => from.get(i).map(|&class| class as usize),
                            Targets::Findings(_) => argmax(row),
                        };
                        let rows = logits.chunks_exact(victim.classes()).enumerate();
                        rows.map(|(i, row)| likeliest_other(row, class(i, row))).collect()
                    }
                };
                victim.jsma(images.pixels, &to, jsma)
            }
        }
    }
}

/// As words: `PGD at eps 0.3, 10 steps of 0.05 from 1 random start`.
impl std::fmt::Display for Attack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let steps = |s: &Steps| format!("{}, {} steps of {}", sized(s.norm, s.eps), s.steps, change(s.step));
        match self {
            Attack::Fgsm { eps, norm } => write!(f, "FGSM at {}", sized(*norm, *eps)),
            Attack::Bim(s) => write!(f, "BIM at {}", steps(s)),
            Attack::Pgd { steps: s, restarts } => {
                write!(f, "PGD at {} from {restarts} random start{}", steps(s), if *restarts == 1 { "" } else { "s" })
            }
            Attack::Jsma(j) => write!(f, "JSMA of {} on at most {} of the pixels", j.theta, j.share()),
        }
    }
}

/// A size in words: `eps 0.3`, `eps 8/255`, `L2 eps 2`.
pub fn sized(norm: Norm, eps: f32) -> String {
    match norm {
        Norm::Linf => format!("eps {}", change(eps)),
        Norm::L2 => format!("L2 eps {}", change(eps)),
    }
}

/// A change of pixels as people write it: `0.3`; `8/255` where that is what it is; else to four digits.
pub fn change(value: f32) -> String {
    let (short, levels) = (value.to_string(), f64::from(value) * 255.0);
    match (short.len() <= 6, (levels - levels.round()).abs() < 1e-4) {
        (true, _) => short,
        (false, true) => format!("{}/255", levels.round()),
        (false, false) => format!("{}", (f64::from(value) * 1e5).round() / 1e5),
    }
}

/// The most likely class other than `class`; the first of equals.
pub fn likeliest_other(logits: &[f32], class: Option<usize>) -> u32 {
    let class = class.unwrap_or(0);
    let others = logits.iter().enumerate().filter(|(c, _)| *c != class);
    let best = others.reduce(|best, other| if other.1 > best.1 { other } else { best });
    best.map_or(class, |(class, _)| class) as u32
}

/// Who is shown images on their way: steps done, pixels, and the network to ask.
pub type Watch<'a> = &'a mut dyn FnMut(u32, &[f32], &mut Victim<'_>) -> Result<(), AttackError>;

/// The numbers of steps after which an attack of `steps` is watched: 1, 2, 4, ... and all.
fn halts(steps: u32) -> Vec<u32> {
    let mut halts: Vec<u32> = (0..32).map(|power| 1 << power).take_while(|&at| at < steps).collect();
    halts.push(steps);
    halts
}

/// Steps from `start`, or from the images themselves; watched, they are done in pieces, each from where the last one ended.
fn walk(
    victim: &mut Victim<'_>,
    clean: &[f32],
    start: Option<&[f32]>,
    goal: Goal<'_>,
    steps: Steps,
    watch: Option<Watch<'_>>,
) -> Result<Vec<f32>, AttackError> {
    let Some(watch) = watch else { return victim.steps(clean, start, goal, steps) };
    let mut x = start.unwrap_or(clean).to_vec();
    let mut done = 0;
    for halt in halts(steps.steps) {
        x = victim.steps(clean, Some(&x), goal, Steps { steps: halt - done, ..steps })?;
        done = halt;
        watch(done, &x, victim)?;
    }
    Ok(x)
}

/// Of every image, what came of the start from which the loss went furthest; the first of equals.
fn pgd(
    victim: &mut Victim<'_>,
    images: Images<'_>,
    goal: Goal<'_>,
    (steps, restarts): (Steps, u32),
    mut watch: Option<Watch<'_>>,
) -> Result<Vec<f32>, AttackError> {
    let Images { pixels: clean, ids, seed } = images;
    let row = (clean.len() / ids.len().max(1)).max(1);
    let sign = if goal.aim == Aim::Away { 1.0 } else { -1.0 };
    let mut best: Option<(Vec<f32>, Vec<f64>)> = None;
    for restart in 0..restarts.max(1) {
        let mut start = clean.to_vec();
        for (image, &id) in start.chunks_exact_mut(row).zip(ids) {
            start_at_random(seed, id, restart, (steps.norm, steps.eps), image)?;
        }
        let x = walk(victim, clean, Some(&start), goal, steps, watch.take())?;
        if restarts <= 1 {
            return Ok(x);
        }
        let reached = losses(&victim.forward(&x)?, victim.classes(), goal.targets)?;
        let Some((furthest, loss)) = &mut best else {
            best = Some((x, reached));
            continue;
        };
        let images = furthest.chunks_exact_mut(row).zip(x.chunks_exact(row));
        for ((furthest, x), (loss, reached)) in images.zip(loss.iter_mut().zip(reached)) {
            if sign * reached > sign * *loss {
                furthest.copy_from_slice(x);
                *loss = reached;
            }
        }
    }
    Ok(best.map_or_else(|| clean.to_vec(), |(x, _)| x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_likeliest_other_class_is_the_first_of_equals_and_never_the_class() {
        assert_eq!(likeliest_other(&[1.0, 3.0, 2.0], Some(1)), 2);
        assert_eq!(likeliest_other(&[1.0, 3.0, 2.0], Some(0)), 1);
        assert_eq!(likeliest_other(&[1.0, 1.0, 1.0], Some(0)), 1);
        assert_eq!(likeliest_other(&[5.0], Some(0)), 0);
    }

    #[test]
    fn an_attack_is_told_in_the_numbers_that_people_write() {
        let steps = |eps: f32, step: f32, norm| Steps { eps, step, steps: 10, norm };
        assert_eq!(Attack::Fgsm { eps: 0.3, norm: Norm::Linf }.to_string(), "FGSM at eps 0.3");
        let bim = Attack::Bim(steps(8.0 / 255.0, 0.05 * (8.0 / 255.0 / 0.3), Norm::Linf));
        assert_eq!(bim.to_string(), "BIM at eps 8/255, 10 steps of 0.00523");
        let pgd = Attack::Pgd { steps: steps(2.0, 0.5, Norm::L2), restarts: 2 };
        assert_eq!(pgd.to_string(), "PGD at L2 eps 2, 10 steps of 0.5 from 2 random starts");
    }

    /// Runs of earlier versions are found again by what their manifests say.
    #[test]
    fn an_attack_is_written_as_ever_and_a_norm_only_where_it_is_another() {
        let steps = Steps { eps: 0.25, step: 0.5, steps: 3, norm: Norm::Linf };
        let l2 = Steps { norm: Norm::L2, ..steps };
        for (attack, text) in [
            (Attack::Fgsm { eps: 0.25, norm: Norm::Linf }, json!({ "input": "fgsm", "eps": 0.25 })),
            (Attack::Fgsm { eps: 0.25, norm: Norm::L2 }, json!({ "input": "fgsm", "eps": 0.25, "norm": "l2" })),
            (Attack::Bim(steps), json!({ "input": "bim", "eps": 0.25, "step": 0.5, "steps": 3 })),
            (
                Attack::Pgd { steps: l2, restarts: 2 },
                json!({ "input": "pgd", "eps": 0.25, "step": 0.5, "steps": 3, "norm": "l2", "restarts": 2 }),
            ),
            (Attack::Jsma(Jsma { theta: 1.0, gamma: 0.5 }), json!({ "input": "jsma", "theta": 1.0, "gamma": 0.5 })),
        ] {
            assert_eq!(json!(attack), text);
            assert_eq!(serde_json::from_value::<Attack>(text).unwrap(), attack);
        }
    }
}
