//! A study: which images, which inputs, and their potential outcomes, shard by shard.
//!
//! A shard is 256 images in data order with everything that any later table needs: logits of the host, of the idle
//! autoencoder and of every intervention, for the clean input and each perturbed one. Readings, estimands, verdicts and
//! files are derived from shards; no image is run twice.

use super::CausalError;
use super::fill::Fill;
use super::mask::{Mask, Region};
use super::perturbation::Perturbation;
use super::sweep::{Logits, Sweep, Value};
use crate::attack::method::Images;
use crate::attack::{Attack, AttackError, Norm};
use crate::backend::{BackendError, takes_images};
use crate::data::{DataError, Dataset};
use crate::random::Stream;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Images a shard.
pub const SHARD_IMAGES: usize = 256;

/// What is done to an image before the network sees it. The clean image is always run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "input")]
pub enum Input {
    /// Nothing.
    None,
    /// Pixel masking.
    Pwm {
        /// Masks an image.
        masks: u32,
        /// What masked pixels become.
        fill: Fill,
        /// Which pixels.
        #[serde(default, skip_serializing_if = "Region::is_grid")]
        region: Region,
    },
    /// The image as a JPEG file would keep it: a change that nobody makes to deceive.
    Jpeg {
        /// 1 to 100, of libjpeg's tables.
        quality: u8,
    },
    /// The control: random signs of the same size.
    Noise {
        /// Change of every pixel; in L2 the root of the sum of their squares.
        eps: f32,
        /// In which it is measured.
        #[serde(default, skip_serializing_if = "Norm::is_linf")]
        norm: Norm,
    },
    /// An attack.
    #[serde(untagged)]
    Attack(Attack),
}

impl Input {
    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Input::None => "none",
            Input::Pwm { region: Region::Grid10, .. } => "pwm",
            Input::Pwm { region: Region::Pixels, .. } => "pixels",
            Input::Pwm { region: Region::Rectangle, .. } => "rectangle",
            Input::Pwm { region: Region::Box(_), .. } => "box",
            Input::Pwm { region: Region::OutsideBox(_), .. } => "outside-box",
            Input::Pwm { region: Region::File, .. } => "mask-file",
            Input::Jpeg { .. } => "jpeg",
            Input::Noise { .. } => "noise",
            Input::Attack(attack) => attack.name(),
        }
    }

    /// Which of the paper's conditions it is of: II where a known symptom is masked (or as much beside it), else I.
    pub fn condition(&self) -> &'static str {
        match self {
            Input::Pwm { region, .. } if region.boxed().is_some() => "II",
            _ => "I",
        }
    }

    /// Its largest pixel change (or the radius of an L2 ball), for inputs that have one.
    pub fn eps(&self) -> Option<f32> {
        match self {
            Input::None | Input::Pwm { .. } | Input::Jpeg { .. } => None,
            Input::Noise { eps, .. } => Some(*eps),
            Input::Attack(attack) => attack.ball().map(|(_, eps)| eps),
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
            Input::None | Input::Pwm { .. } | Input::Jpeg { .. } | Input::Noise { .. } => 0,
            Input::Attack(attack) => attack.gradients(pixels),
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

impl Shard {
    /// The same with the first `count` of its sets only.
    pub fn of_first_sets(&self, count: usize) -> Shard {
        let images = self.ids.len().max(1);
        let answers = self.answers.iter().map(|a| {
            let l = &a.logits;
            let (sets, width) = ((l.live.len() / images).max(1), l.done.len() / images);
            let kept = count.min(sets);
            let done = l.done.chunks_exact(width.max(1)).flat_map(|row| &row[..width / sets * kept]).copied().collect();
            let live = l.live.chunks_exact(sets).flat_map(|row| &row[..kept]).copied().collect();
            Answers { logits: Logits { done, live, ..l.clone() }, fraction: a.fraction.clone(), ..*a }
        });
        Shard { first: self.first, ids: self.ids.clone(), labels: self.labels.clone(), answers: answers.collect() }
    }
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

/// What the nodes of a study are set to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoValue {
    /// 0.
    #[default]
    Zero,
    /// What they are, times this.
    Scale(f32),
    /// Their mean over the study's clean images, place by place.
    Mean,
    /// What they are on another of its clean images, which Philox(seed, "resample", image, 0) draws (resample ablation; averaged over
    /// images the estimand E2: the node's values weighted as they occur).
    Resample,
}

impl DoValue {
    /// Left out of configurations where it is 0, so that runs keep their ids.
    pub fn is_zero(&self) -> bool {
        *self == DoValue::Zero
    }
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
    /// The mask of a file, for inputs that are masked by one.
    pub mask: Option<&'a Mask>,
    /// What nodes are set to.
    pub value: Do,
    /// Seed of masks and noise.
    pub seed: u64,
}

/// What nodes are set to, with what that takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Do {
    /// 0.
    #[default]
    Zero,
    /// What they are, times this.
    Scale(f32),
    /// These maps (nodes x height x width).
    Maps(Arc<[f32]>),
    /// What they are on another image.
    Resample,
}

impl Do {
    /// Works out what `value` takes: a mean over the clean images of `data` is one pass of the front over them all, summed in f64 in
    /// their order; `each` is told how many are done, and says whether to go on.
    ///
    /// # Errors
    /// [`StudyError`]; [`AttackError::Stopped`] when told to stop.
    pub fn prepare(
        value: DoValue,
        sweep: &mut Sweep,
        data: &Dataset,
        each: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Do, StudyError> {
        match value {
            DoValue::Zero => return Ok(Do::Zero),
            DoValue::Scale(factor) => return Ok(Do::Scale(factor)),
            DoValue::Resample => return Ok(Do::Resample),
            DoValue::Mean => {}
        }
        let size = sweep.code().iter().product::<usize>().max(1);
        let mut sums = vec![0.0f64; size];
        let all: Vec<u32> = (0..data.len() as u32).collect();
        data.announce(&all);
        for (k, block) in all.chunks(SHARD_IMAGES).enumerate() {
            for code in sweep.codes(&data.pixels(block)?)?.chunks_exact(size) {
                sums.iter_mut().zip(code).for_each(|(sum, &z)| *sum += f64::from(z));
            }
            if !each(k * SHARD_IMAGES + block.len()) {
                return Err(AttackError::Stopped.into());
            }
        }
        Ok(Do::Maps(sums.into_iter().map(|sum| (sum / data.len() as f64) as f32).collect()))
    }
}

impl Do {
    /// As a sweep takes it; `others` are the codes of [`Do::Resample`].
    pub fn at<'a>(&'a self, others: &'a [f32]) -> Value<'a> {
        match self {
            Do::Zero => Value::Zero,
            Do::Scale(factor) => Value::Scaled(*factor),
            Do::Maps(maps) => Value::Maps(maps),
            Do::Resample => Value::Others(others),
        }
    }
}

impl Study<'_> {
    /// The codes that replace those of the images at `which`, where others' do.
    ///
    /// # Errors
    /// [`StudyError`].
    pub fn others(&mut self, which: &[u32]) -> Result<Vec<f32>, StudyError> {
        if self.value != Do::Resample {
            return Ok(Vec::new());
        }
        let stream = Stream::new(self.seed, "resample");
        let n = self.data.len() as u32;
        // any but the image itself, where there is another
        let other = |&i: &u32| {
            let id = self.data.ids().get(i as usize).copied().unwrap_or_default();
            if n < 2 { i } else { (i + 1 + stream.below(id, 0, n - 1)) % n }
        };
        let donors: Vec<u32> = which.iter().map(other).collect();
        Ok(self.sweep.codes(&self.data.pixels(&donors)?)?)
    }

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
        let others = self.others(&which)?;
        let value = self.value.clone();
        let logits = self.sweep.outcomes_at(&pixels, value.at(&others))?;
        let Study { data, attack_label, mask: file, .. } = *self;
        let (head, classes) = (self.sweep.head(), self.sweep.classes());
        let perturbation = Perturbation { data, head, classes, attack_label, file };
        let targets = perturbation.targets(&which, &logits.orig)?;
        let mut answers = vec![Answers { input: Input::None, mask: 0, fraction: Vec::new(), logits }];
        for input in self.inputs.clone() {
            for mask in 0..input.repeats() {
                let clean = Images { pixels: &pixels, ids: &ids, seed: self.seed };
                let (x, fraction) =
                    perturbation.apply(&mut self.sweep.victim(), (input, mask), &which, clean, &targets)?;
                answers.push(Answers { input, mask, fraction, logits: self.sweep.outcomes_at(&x, value.at(&others))? });
            }
        }
        Ok(Shard { first, ids, labels, answers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_of_its_first_sets_keeps_their_answers_and_no_others() {
        // two images, three sets, two classes
        let logits = Logits {
            orig: vec![0.0; 4],
            idle: vec![1.0; 4],
            done: (0..12).map(|v| v as f32).collect(),
            live: vec![true, false, true, false, true, false],
        };
        let answers = vec![Answers { input: Input::None, mask: 0, fraction: vec![], logits }];
        let shard = Shard { first: 5, ids: vec![5, 6], labels: vec![0, 1], answers };
        let cut = shard.of_first_sets(2);
        let l = &cut.answers[0].logits;
        assert_eq!(l.done, [0.0, 1.0, 2.0, 3.0, 6.0, 7.0, 8.0, 9.0]);
        assert_eq!(l.live, [true, false, false, true]);
        assert_eq!((cut.first, &cut.ids, &l.orig, &l.idle), (5, &shard.ids, &vec![0.0; 4], &vec![1.0; 4]));
        assert_eq!(shard.of_first_sets(9), shard);
    }
}
