//! A study: which images, which inputs, and their potential outcomes, shard by shard.
//!
//! A shard is 256 images in data order with everything that any later table needs: logits of the host, of the idle
//! autoencoder and of every intervention, for the clean input and each perturbed one. Readings, estimands, verdicts and
//! files are derived from shards; no image is run twice.

use super::CausalError;
use super::perturbation::{Clean, Perturbation};
use super::sweep::{Logits, Sweep};
use crate::attack::jsma::Jsma;
use crate::attack::{AttackError, Steps};
use crate::backend::{BackendError, takes_images};
use crate::data::{DataError, Dataset};
use serde::{Deserialize, Serialize};

/// Images a shard.
pub const SHARD_IMAGES: usize = 256;

/// What is done to an image before the network sees it. The clean image is always run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "input")]
pub enum Input {
    /// Nothing.
    None,
    /// Pixel masking: 10 of 100 grid cells.
    Pwm {
        /// Masks an image.
        masks: u32,
        /// Value of masked pixels in [0, 1].
        fill: f32,
    },
    /// Fast gradient sign method on the host.
    Fgsm {
        /// Largest change of a pixel in [0, 1] units.
        eps: f32,
    },
    /// Basic iterative method: signed steps on the host, from the image.
    Bim(Steps),
    /// Projected gradient descent: the same from random starts, of which the one with the largest loss is taken.
    Pgd {
        /// The steps from a start.
        #[serde(flatten)]
        steps: Steps,
        /// Starts, at least 1.
        restarts: u32,
    },
    /// Saliency map attack on the host, towards what it takes for the second most likely.
    Jsma(Jsma),
    /// The control: random signs of the same size.
    Noise {
        /// Change of every pixel.
        eps: f32,
    },
}

impl Input {
    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Input::None => "none",
            Input::Pwm { .. } => "pwm",
            Input::Fgsm { .. } => "fgsm",
            Input::Bim(_) => "bim",
            Input::Pgd { .. } => "pgd",
            Input::Jsma(_) => "jsma",
            Input::Noise { .. } => "noise",
        }
    }

    /// Its largest pixel change, for inputs that have one.
    pub fn eps(&self) -> Option<f32> {
        match self {
            Input::None | Input::Pwm { .. } | Input::Jsma(_) => None,
            Input::Fgsm { eps } | Input::Noise { eps } => Some(*eps),
            Input::Bim(steps) | Input::Pgd { steps, .. } => Some(steps.eps),
        }
    }

    /// Times that each image is run under it.
    pub fn repeats(&self) -> u32 {
        match self {
            Input::Pwm { masks, .. } => *masks,
            _ => 1,
        }
    }

    /// Gradients of the host that making it takes, for an image of `pixels` pixels, at most.
    pub fn gradients(&self, pixels: usize) -> u32 {
        match self {
            // the last pair of gradients may only tell that the target is reached
            Input::Jsma(jsma) => jsma.steps(pixels).saturating_add(1).saturating_mul(2),
            Input::None | Input::Pwm { .. } | Input::Noise { .. } => 0,
            Input::Fgsm { .. } => 1,
            Input::Bim(steps) => steps.steps,
            Input::Pgd { steps, restarts } => steps.steps.saturating_mul(*restarts),
        }
    }
}

/// Whose answer an attack moves away from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttackLabel {
    /// The host's own prediction on the clean image: no label leaks into the attack.
    Predicted,
    /// The true label.
    True,
}

/// One input under one mask, for the images of a shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    /// The input.
    pub input: Input,
    /// Which of its masks; 0 for inputs without.
    pub mask: u32,
    /// Masked share of each image; empty for inputs without a mask.
    pub fraction: Vec<f32>,
    /// Potential outcomes.
    pub logits: Logits,
}

/// The answers of some images.
#[derive(Clone, Debug, PartialEq)]
pub struct Shard {
    /// Position of the first image in the data set.
    pub first: usize,
    /// Image ids (dataset index, or hash of the path).
    pub ids: Vec<u64>,
    /// True labels; [`crate::data::NO_LABEL`] where there is none.
    pub labels: Vec<u32>,
    /// The clean input first, then the others, each mask of PWM by itself.
    pub answers: Vec<Answers>,
}

/// What can go wrong in a study.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// An input cannot be made.
    #[error(transparent)]
    Causal(#[from] CausalError),
    /// An attack's parameters make no sense.
    #[error(transparent)]
    Attack(#[from] AttackError),
    /// An image cannot be read, or has no label where the attack needs one.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// A subject, its data and what is asked of it.
pub struct Study<'a> {
    /// The loaded subject.
    pub sweep: Sweep,
    /// Images and labels.
    pub data: &'a Dataset,
    /// Inputs beside the clean one, in order.
    pub inputs: Vec<Input>,
    /// Whose answer attacks move away from.
    pub attack_label: AttackLabel,
    /// Seed of masks and noise.
    pub seed: u64,
}

impl Study<'_> {
    /// Runs the images from `first` on, at most `count`.
    ///
    /// # Errors
    /// [`StudyError`].
    pub fn shard(&mut self, first: usize, count: usize) -> Result<Shard, StudyError> {
        takes_images(self.sweep.program(), self.sweep.pixels(), self.data.shape())?;
        let last = self.data.len().min(first.saturating_add(count));
        let which: Vec<u32> = (first..last).map(|i| i as u32).collect();
        let ids: Vec<u64> = self.data.ids()[first.min(last)..last].to_vec();
        let labels: Vec<u32> = self.data.labels()[first.min(last)..last].to_vec();
        let pixels = self.data.pixels(&which)?;
        let logits = self.sweep.outcomes(&pixels)?;
        let Study { data, attack_label, seed, .. } = *self;
        let (head, classes) = (self.sweep.head(), self.sweep.classes());
        let perturbation = Perturbation { data, head, classes, attack_label, seed };
        let targets = perturbation.targets(&which, &logits.orig)?;
        let mut answers = vec![Answers { input: Input::None, mask: 0, fraction: Vec::new(), logits }];
        for input in self.inputs.clone() {
            for mask in 0..input.repeats() {
                let clean = Clean { pixels: &pixels, ids: &ids, logits: &answers[0].logits.orig };
                let (x, fraction) = perturbation.apply(&mut self.sweep.victim(), input, mask, clean, &targets)?;
                answers.push(Answers { input, mask, fraction, logits: self.sweep.outcomes(&x)? });
            }
        }
        Ok(Shard { first, ids, labels, answers })
    }
}
