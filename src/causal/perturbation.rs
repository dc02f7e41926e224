//! Images under a study's inputs: masked, attacked, with noise; and what attacks move away from. Called by [`super::study`], and
//! by whoever looks at the same images for something else than effects.

use super::CausalError;
use super::intervention::add_random_signs;
use super::mask::{Drawn, Mask};
use super::study::{AttackLabel, Input, StudyError};
use crate::attack::method::Images;
use crate::attack::{Norm, Targets, Victim};
use crate::data::decode::Limits;
use crate::data::image::{Channels, Image};
use crate::data::transform::Rectangle;
use crate::data::{DataError, Dataset, decode};
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
    /// The mask of a file, for inputs that are masked by one.
    pub file: Option<&'a Mask>,
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

    /// The images at positions `which` of the set under `input`, by the seed that comes with them, and the masked share of each where
    /// it masks (mask number `mask`).
    ///
    /// # Errors
    /// [`StudyError`].
    pub fn apply(
        &self,
        victim: &mut Victim<'_>,
        (input, mask): (Input, u32),
        which: &[u32],
        clean: Images<'_>,
        targets: &Answered,
    ) -> Result<(Vec<f32>, Vec<f32>), StudyError> {
        let mut x = clean.pixels.to_vec();
        let mut fraction = Vec::new();
        let row = clean.pixels.len() / clean.ids.len().max(1);
        let side = |i: usize| self.data.shape().dims().get(i).copied().unwrap_or(1);
        match input {
            Input::None => {}
            Input::Pwm { fill, region, .. } => {
                for ((image, &id), &i) in x.chunks_exact_mut(row.max(1)).zip(clean.ids).zip(which) {
                    let symptom = region.boxed().map(|finding| symptom(self.data, i as usize, finding)).transpose()?;
                    let boxes = symptom.flatten().map_or(Vec::new(), |symptom| symptom.boxes);
                    let (seed, size) = (clean.seed, [side(1), side(2)]);
                    let drawn = Drawn { seed, image: id, number: mask, size, boxes: &boxes, file: self.file };
                    let taken = Mask::draw(region, drawn)?;
                    fill.apply(image, &taken, seed, id, mask)?;
                    fraction.push(taken.fraction() as f32);
                }
            }
            Input::Jpeg { quality } => {
                for image in x.chunks_exact_mut(row.max(1)) {
                    jpeg(image, [side(0), side(1), side(2)], quality)?;
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

/// A finding that is marked on an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Symptom {
    /// Its number.
    pub finding: u32,
    /// Its boxes, in pixels of what the network sees.
    pub boxes: Vec<Rectangle>,
}

/// The boxes of `finding` on image `i`, or of the finding whose box comes first; `None` where there is none.
///
/// # Errors
/// [`DataError`] when the image's file cannot be read.
pub fn symptom(data: &Dataset, i: usize, finding: Option<u32>) -> Result<Option<Symptom>, DataError> {
    let placed = data.placed(i)?;
    let Some(finding) = finding.or_else(|| placed.first().map(|marked| marked.finding as u32)) else {
        return Ok(None);
    };
    let boxes: Vec<Rectangle> =
        placed.iter().filter(|marked| marked.finding as u32 == finding).map(|marked| marked.place).collect();
    Ok((!boxes.is_empty()).then_some(Symptom { finding, boxes }))
}

/// One image (C x H x W in [0, 1], rounded to bytes) through a JPEG file of that quality and back, as PIL saves it: colour at half
/// the resolution, read by libjpeg's integers.
fn jpeg(pixels: &mut [f32], [channels, height, width]: [usize; 3], quality: u8) -> Result<(), StudyError> {
    let kind = if channels == 3 { jpeg_encoder::ColorType::Rgb } else { jpeg_encoder::ColorType::Luma };
    let plane = height * width;
    let bytes: Vec<u8> = (0..plane * channels)
        .map(|i| (pixels[i % channels * plane + i / channels].clamp(0.0, 1.0) * 255.0).round() as u8)
        .collect();
    let side = |n: usize| u16::try_from(n).map_err(|_| unfit("its sides are too long for a JPEG file"));
    let mut file = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, quality);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
    encoder.encode(&bytes, side(width)?, side(height)?, kind).map_err(|e| unfit(&e.to_string()))?;
    let (read, _) = decode::decode(&file, &Limits::default()).map_err(|e| unfit(&e.to_string()))?;
    let wanted = if channels == 3 { Channels::Rgb } else { Channels::Grey };
    let Image { pixels: back, .. } = read.into_channels(wanted);
    if back.len() != pixels.len() {
        return Err(CausalError::Length { what: "pixels through JPEG", expected: pixels.len(), got: back.len() }.into());
    }
    for (i, byte) in back.into_iter().enumerate() {
        pixels[i % channels * plane + i / channels] = f32::from(byte) / 255.0;
    }
    Ok(())
}

/// An image that cannot go through a JPEG file.
fn unfit(reason: &str) -> DataError {
    DataError::Image { file: "(an image under the input jpeg)".into(), reason: reason.into() }
}
