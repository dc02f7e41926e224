//! Images under a study's inputs: masked, attacked, with noise; and what attacks move away from. Called by [`super::study`], and
//! by whoever looks at the same images for something else than effects.

use super::intervention::{GridMask, add_random_signs};
use super::study::{AttackLabel, Input, StudyError};
use crate::attack::{Steps, Targets, Victim, losses, start_at_random};
use crate::data::Dataset;
use crate::model::Head;
use crate::tensor::argmax;

/// Some images as they are.
#[derive(Clone, Copy, Debug)]
pub struct Clean<'a> {
    /// Images x C·H·W pixels in [0, 1].
    pub pixels: &'a [f32],
    /// The number of each.
    pub ids: &'a [u64],
    /// What the host answers to them: images x classes.
    pub logits: &'a [f32],
}

/// What is done to images, whatever they are.
#[derive(Clone, Copy, Debug)]
pub struct Perturbation<'a> {
    /// The set that they are from.
    pub data: &'a Dataset,
    /// How the host answers, and with how many classes.
    pub head: Head,
    /// Classes of the host.
    pub classes: usize,
    /// Whose answer attacks move away from.
    pub attack_label: AttackLabel,
    /// Seed of masks, starts and noise.
    pub seed: u64,
}

/// Owned [`Targets`].
#[derive(Clone, Debug)]
pub enum Answered {
    /// A class each.
    Classes(Vec<u32>),
    /// A row of findings each.
    Findings(Vec<f32>),
}

impl Answered {
    fn borrowed(&self) -> Targets<'_> {
        match self {
            Answered::Classes(labels) => Targets::Classes(labels),
            Answered::Findings(findings) => Targets::Findings(findings),
        }
    }
}

impl Perturbation<'_> {
    /// What attacks on the images at positions `which` move away from: with a softmax head a class, with a sigmoid one a row of
    /// findings. `logits` are the host's on them, clean.
    ///
    /// # Errors
    /// [`StudyError::Data`] when an image has no label and the attack is on the true one.
    pub fn targets(&self, which: &[u32], logits: &[f32]) -> Result<Answered, StudyError> {
        let rows = logits.chunks_exact(self.classes);
        let what = "an attack on the true label";
        Ok(match (self.head, self.attack_label) {
            (Head::Softmax, AttackLabel::True) => Answered::Classes(self.data.labels_of(which, what)?),
            // without a prediction (NaN) the attack's gradient is NaN for every label
            (Head::Softmax, AttackLabel::Predicted) => {
                Answered::Classes(rows.map(|row| argmax(row).unwrap_or(0) as u32).collect())
            }
            // above 0 a finding's probability is above one half
            (Head::Sigmoid, AttackLabel::Predicted) => {
                Answered::Findings(logits.iter().map(|&o| if o > 0.0 { 1.0 } else { 0.0 }).collect())
            }
            (Head::Sigmoid, AttackLabel::True) => {
                Answered::Findings(self.data.findings_of(which, self.classes, what)?)
            }
        })
    }

    /// The images under `input`, and the masked share of each where it masks (mask number `mask`).
    ///
    /// # Errors
    /// [`StudyError`].
    pub fn apply(
        &self,
        victim: &mut Victim<'_>,
        input: Input,
        mask: u32,
        clean: Clean<'_>,
        targets: &Answered,
    ) -> Result<(Vec<f32>, Vec<f32>), StudyError> {
        let mut x = clean.pixels.to_vec();
        let mut fraction = Vec::new();
        let row = clean.pixels.len() / clean.ids.len().max(1);
        let side = |i: usize| self.data.shape().dims().get(i).copied().unwrap_or(1);
        match input {
            Input::None => {}
            Input::Pwm { fill, .. } => {
                for (image, &id) in x.chunks_exact_mut(row.max(1)).zip(clean.ids) {
                    let grid = GridMask::draw(self.seed, id, mask, side(1), side(2))?;
                    grid.apply(image, fill)?;
                    fraction.push(grid.fraction() as f32);
                }
            }
            Input::Fgsm { eps } => x = victim.fgsm(clean.pixels, targets.borrowed(), eps)?,
            Input::Bim(steps) => x = victim.steps(clean.pixels, None, targets.borrowed(), steps)?,
            Input::Pgd { steps, restarts } => x = self.pgd(victim, clean, targets.borrowed(), steps, restarts)?,
            Input::Jsma(jsma) => x = victim.jsma(clean.pixels, &self.second(clean.logits), jsma)?,
            Input::Noise { eps } => {
                for (image, &id) in x.chunks_exact_mut(row.max(1)).zip(clean.ids) {
                    add_random_signs(self.seed, id, eps, image)?;
                }
            }
        }
        Ok((x, fraction))
    }

    /// The second most likely class of every image; the first of equals.
    fn second(&self, logits: &[f32]) -> Vec<u32> {
        let second = |row: &[f32]| {
            let first = argmax(row).unwrap_or(0);
            let others = row.iter().enumerate().filter(|(c, _)| *c != first);
            let best = others.reduce(|best, other| if other.1 > best.1 { other } else { best });
            best.map_or(first, |(class, _)| class) as u32
        };
        logits.chunks_exact(self.classes).map(second).collect()
    }

    /// Of every image, what came of the start from which the loss rose furthest; the first of equals.
    fn pgd(
        &self,
        victim: &mut Victim<'_>,
        clean: Clean<'_>,
        targets: Targets<'_>,
        steps: Steps,
        restarts: u32,
    ) -> Result<Vec<f32>, StudyError> {
        let row = (clean.pixels.len() / clean.ids.len().max(1)).max(1);
        let mut best: Option<(Vec<f32>, Vec<f64>)> = None;
        for restart in 0..restarts.max(1) {
            let mut start = clean.pixels.to_vec();
            for (image, &id) in start.chunks_exact_mut(row).zip(clean.ids) {
                start_at_random(self.seed, id, restart, steps.eps, image)?;
            }
            let x = victim.steps(clean.pixels, Some(&start), targets, steps)?;
            if restarts <= 1 {
                return Ok(x);
            }
            let reached = losses(&victim.forward(&x)?, self.classes, targets)?;
            let Some((furthest, loss)) = &mut best else {
                best = Some((x, reached));
                continue;
            };
            let images = furthest.chunks_exact_mut(row).zip(x.chunks_exact(row));
            for ((furthest, x), (loss, reached)) in images.zip(loss.iter_mut().zip(reached)) {
                if reached > *loss {
                    furthest.copy_from_slice(x);
                    *loss = reached;
                }
            }
        }
        Ok(best.map_or_else(|| clean.pixels.to_vec(), |(x, _)| x))
    }
}
