//! Images under a study's inputs: masked, attacked, with noise; and what attacks move away from. Called by [`super::study`], and
//! by whoever looks at the same images for something else than effects.

use super::intervention::{GridMask, add_random_signs};
use super::study::{AttackLabel, Input, StudyError};
use crate::attack::method::Images;
use crate::attack::{Norm, Targets, Victim};
use crate::data::Dataset;
use crate::model::Head;
use crate::tensor::argmax;

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
    /// As an attack takes them.
    pub fn borrowed(&self) -> Targets<'_> {
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

    /// The images under `input`, by the seed that comes with them, and the masked share of each where it masks (mask number `mask`).
    ///
    /// # Errors
    /// [`StudyError`].
    pub fn apply(
        &self,
        victim: &mut Victim<'_>,
        input: Input,
        mask: u32,
        clean: Images<'_>,
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
                    let grid = GridMask::draw(clean.seed, id, mask, side(1), side(2))?;
                    grid.apply(image, fill)?;
                    fraction.push(grid.fraction() as f32);
                }
            }
            Input::Attack(attack) => x = attack.run(victim, clean, targets.borrowed().into())?,
            Input::Noise { eps, norm } => {
                // as long as an attack's change may be: every pixel its part
                let eps = if norm == Norm::L2 { eps / (row.max(1) as f32).sqrt() } else { eps };
                for (image, &id) in x.chunks_exact_mut(row.max(1)).zip(clean.ids) {
                    add_random_signs(clean.seed, id, eps, image)?;
                }
            }
        }
        Ok((x, fraction))
    }
}
