//! Causal effects as a detector of adversarial examples: claim (d) of the paper, with what it has to beat and what it must
//! not flag. Host mathematics in f64 on a study's shards; no files but a fitted detector's own.
//!
//! - [`features`]: one image's answers as numbers: effects of every node, their dispersion, baselines without any intervention.
//! - [`table`]: the features of every image under every input, in an order of their own, so that the order in which images
//!   were read changes no bit.
//! - [`split`]: which images a detector learns from, and which judge it.
//! - [`logistic`], [`mahalanobis`]: the learnt ones, on the vector of effects; [`linear`] is what both solve with.
//! - [`detector`]: a fitted detector, its direction and cuts; saved and loaded as JSON, for one subject only.
//! - [`roc`]: how well scores part clean images from attacked ones, how surely, and what is left once confidence is matched.
//! - [`matrix`]: what is learnt from one attack, met by the others; false alarms on clean, masked and noisy images.
//! - [`adaptive`]: what is left of the declared statistic where the adversary knows it; [`adversary`]: who that is. The one part that
//!   asks a network, by a sweep that it is given.
//! - [`claim`]: the verdict on claim (d). [`report`]: everything of one study, with warnings; its `Display` is for a terminal.
//!
//! Protocol (`table` says it in code): clean images that the host answers rightly against successful attacks on them, where its
//! answer is another than without. The unit of every interval is the patient where one is known, else the image, because a clean
//! image and its attacked version are no two independent images.

pub mod adaptive;
pub mod adversary;
pub mod claim;
pub mod detector;
pub mod features;
#[cfg(test)]
mod fixture;
pub mod linear;
pub mod logistic;
pub mod mahalanobis;
pub mod matrix;
pub mod report;
pub mod roc;
mod shown;
pub mod split;
pub mod table;
mod warnings;

pub use detector::{Detector, Direction, Recipe};
pub use features::{Features, Statistic};
pub use report::{DetectorReport, Plan};
pub use split::Split;
pub use table::Table;

use crate::atomic::WriteError;
use crate::causal::CausalError;
use std::path::PathBuf;
use thiserror::Error;

/// Version of a detector's file and of `detector.json`.
pub const SCHEMA_VERSION: u32 = 1;

/// Why there is no table, detector or report. Nothing here panics on any input.
#[derive(Debug, Error)]
pub enum DetectError {
    /// Shards that do not fit one another, or another layer's request.
    #[error(transparent)]
    Causal(#[from] CausalError),
    /// A softmax of one class says the same of every image.
    #[error("a softmax head of {0} classes gives every image the same answer: a detector needs at least 2")]
    Classes(usize),
    /// Two images under one number: nobody could say which is which.
    #[error("two images have the id {0}: a detector tells images apart by it")]
    Duplicate(u64),
    /// Too few images or patients for a part to learn from and one to be judged on.
    #[error(
        "{0} images or patients cannot be parted into those that fit a detector and those that test it: at least 2"
    )]
    Few(usize),
    /// An input that the table lacks, or the clean one where an attack is needed.
    #[error("there is no attack {index}: inputs 1 to {last} are beside the clean one")]
    Input {
        /// The number asked for.
        index: usize,
        /// The last there is.
        last: usize,
    },
    /// A rule that learns from an attack was given none.
    #[error("{0} learns from attacked images: say which attack")]
    NoAttack(&'static str),
    /// A part of the images to learn from is missing.
    #[error("no {what} among the images to fit on: {of} cannot be fitted")]
    Nothing {
        /// Which images.
        what: &'static str,
        /// What was to be fitted.
        of: &'static str,
    },
    /// A statistic that these images do not have.
    #[error("the statistic `{statistic}` does not exist for {nodes} nodes")]
    Statistic {
        /// Its name.
        statistic: String,
        /// Nodes of the table.
        nodes: usize,
    },
    /// A text that names no statistic.
    #[error("`{text}` is no statistic; the nearest is `{nearest}`")]
    Name {
        /// The text.
        text: String,
        /// The valid text nearest to it.
        nearest: String,
    },
    /// A number outside its range.
    #[error("{what} is {value}; it must be {range}")]
    Range {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: f64,
        /// What it may be, in words.
        range: &'static str,
    },
    /// Two things that must be of one length are not.
    #[error("{what}: expected {expected}, got {got}")]
    Length {
        /// Which values.
        what: &'static str,
        /// Their number by the rest of the request.
        expected: usize,
        /// Their number.
        got: usize,
    },
    /// A matrix that is not positive definite.
    #[error("{what} is not positive definite (pivot {pivot} is {value:e}): a larger ridge makes it so")]
    Singular {
        /// Which matrix.
        what: &'static str,
        /// The row where it showed.
        pivot: usize,
        /// What was to be above 0 there.
        value: f64,
    },
    /// A fit that did not end.
    #[error(
        "the logistic regression did not converge in {iterations} Newton steps: the largest gradient is {gradient:e}"
    )]
    Diverged {
        /// Steps made.
        iterations: usize,
        /// Largest component of the gradient, an image.
        gradient: f64,
    },
    /// A detector's file cannot be read.
    #[error("{path}: cannot read the detector: {reason}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// A detector's file says what cannot be.
    #[error("{path}: {reason}; fit the detector again", path = .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that no detector of a file has.
    #[error("{path} holds no detector `{name}`; the nearest is `{nearest}`", path = .path.display())]
    Unknown {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
        /// The name there that is nearest to it.
        nearest: String,
    },
    /// A detector of another network, autoencoder or tap.
    #[error("this detector was fitted for {what} {fitted}, and the subject at hand has {here}: fit one for it")]
    Subject {
        /// What differs.
        what: String,
        /// What the detector was fitted for.
        fitted: String,
        /// What it was to be used on.
        here: String,
    },
    /// The detector could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}
