//! Maps of where an answer comes from, and what they are worth.
//!
//! - [`method`]: which maps there are. [`mod@cam`]: CAM, Grad-CAM and Ablation-CAM, which weigh the maps A that a network's
//!   `features` give; [`causal`]: causal effect maps, which weigh or clear the code of an autoencoder; [`occlusion`]: a patch that
//!   slides over the image. [`explainer`] runs them on a device.
//! - [`map`]: a map as numbers; [`agreement`]: how alike two are (rank correlation, structural similarity, overlap of what
//!   stands out); [`localisation`]: whether one lies where somebody marked a place; [`faithfulness`]: whether the answer hangs on
//!   the pixels that it names.
//! - [`stability`]: how far an attack moves maps, and whether causal ones move more than others.
//! - [`render`]: maps as pictures; [`npy`]: maps as files of numbers.

pub mod agreement;
pub mod cam;
pub mod causal;
pub mod error;
pub mod explainer;
pub mod faithfulness;
#[cfg(test)]
mod fixture;
pub mod localisation;
pub mod map;
pub mod method;
pub mod npy;
pub mod occlusion;
mod program;
pub mod render;
pub mod stability;

pub use cam::{Maps, cam, grad_cam, maps, one_hot};
pub use error::ExplainError;
pub use explainer::{Explainer, Subject};
pub use map::{Flag, Map};
pub use method::{Answer, Method, Settings, Sign};
