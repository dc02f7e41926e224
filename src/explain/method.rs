//! Which maps there are, and what can be chosen about them.

use super::{ExplainError, occlusion::Patch};
use crate::answer::{Head, difference};
use crate::model::Model;
use serde::{Deserialize, Serialize};

/// A way to say where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Causal effect map, reading M1: each node's code channel, weighed with the effect of zeroing it.
    Cem,
    /// Reading M2: at each cell of the code what zeroing all nodes there changes.
    CemCells,
    /// Reading M3: occlusion of the image, answered by the autoencoder-inserted net.
    CemOcclusion,
    /// Class activation map: for a linear layer behind a global average.
    Cam,
    /// Maps weighed with the mean gradient of the class's logit.
    GradCam,
    /// Maps weighed with the drop of the answer when each is zeroed.
    AblationCam,
    /// At each pixel what covering it changes.
    Occlusion,
}

impl Method {
    /// Every method.
    pub const ALL: [Method; 7] = [
        Method::Cem,
        Method::CemCells,
        Method::CemOcclusion,
        Method::Cam,
        Method::GradCam,
        Method::AblationCam,
        Method::Occlusion,
    ];

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Method::Cem => "cem",
            Method::CemCells => "cem-cells",
            Method::CemOcclusion => "cem-occlusion",
            Method::Cam => "cam",
            Method::GradCam => "grad-cam",
            Method::AblationCam => "ablation-cam",
            Method::Occlusion => "occlusion",
        }
    }

    /// Whether it asks the autoencoder-inserted net.
    pub fn inserts(self) -> bool {
        matches!(self, Method::Cem | Method::CemCells | Method::CemOcclusion)
    }

    /// Whether it was published with a ReLU at its end, so that what speaks against the class is not shown.
    pub fn has_published_cut(self) -> bool {
        matches!(self, Method::GradCam | Method::AblationCam)
    }

    /// Whether `model` has such a map.
    ///
    /// # Errors
    /// [`ExplainError::NoCam`].
    pub fn check(self, model: &Model) -> Result<(), ExplainError> {
        if self == Method::Cam && model.linear_head().is_none() {
            return Err(ExplainError::NoCam { arch: model.arch });
        }
        Ok(())
    }

    /// The answer whose change it measures, where nobody chooses: of Ablation-CAM the logit, as published; else the probability.
    fn usual_answer(self) -> Answer {
        if self == Method::AblationCam { Answer::Logit } else { Answer::Probability }
    }
}

/// The answer whose change is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Of the class.
    Probability,
    /// Of the class, before softmax or sigmoid.
    Logit,
}

/// What Grad-CAM and Ablation-CAM keep; the other maps are signed as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sign {
    /// As published: what speaks for the class alone (a ReLU at the end), and an ablation's drop as part of the answer.
    #[default]
    Published,
    /// What speaks against it too, and the drop itself.
    Signed,
}

/// What can be chosen about maps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The answer whose change is measured; `None`: of Ablation-CAM the logit, else the probability. CAM and Grad-CAM always
    /// explain the logit.
    pub answer: Option<Answer>,
    /// What Grad-CAM and Ablation-CAM keep.
    pub sign: Sign,
    /// What covers the image in occlusion.
    pub patch: Patch,
    /// Cells of the code, in both directions, that [`Method::CemCells`] zeroes together, at least 1.
    pub cells: usize,
}

impl Settings {
    /// The answer that `method` measures.
    pub fn answer(&self, method: Method) -> Answer {
        self.answer.unwrap_or(method.usual_answer())
    }
}

/// What every class's answer loses where logits `before` become `after`: p - q without cancellation, or the difference of the
/// logits. The same logits lose exactly 0.
pub fn drops(answer: Answer, head: Head, before: &[f64], after: &[f64]) -> Vec<f64> {
    match answer {
        Answer::Logit => before.iter().zip(after).map(|(b, a)| b - a).collect(),
        // 0 - x, so that no change is 0 and not -0
        Answer::Probability => {
            difference(head, &head.of(before), before, after).into_iter().map(|change| 0.0 - change).collect()
        }
    }
}

/// The answer itself: NaN for a class that there is not.
pub(super) fn level(answer: Answer, head: Head, logits: &[f64], class: u32) -> f64 {
    let of = |row: &[f64]| row.get(class as usize).copied().unwrap_or(f64::NAN);
    match answer {
        Answer::Logit => of(logits),
        Answer::Probability => of(&head.of(logits)),
    }
}
