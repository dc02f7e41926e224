//! Causal effects of concepts inside a network: what is intervened on, how large the effect is, how sure we are.
//!
//! `sweep` drives a [`crate::backend::Program`], whichever it is; the rest is host mathematics in f64 on the logits that it
//! computed in f32.
//!
//! - [`intervention`]: what is done: a do on sets of code channels, random-sign noise; [`mask`] and [`fill`]: which pixels are
//!   masked (PWM), and what they become.
//! - [`effect`]: what it changed: effects per class, the estimands E1, E3, E4, the readings Z0, R1..R6.
//! - [`statistics`]: how surely: bootstrap over images, patients and seeds, permutation tests, many tests, equivalence,
//!   agreement.
//! - [`sweep`]: the potential outcomes of every node on every image, from one pass of the prefix.
//! - [`perturbation`]: images masked, attacked, with noise.
//! - [`study`]: which images under which inputs, shard by shard; [`analysis`]: from shards to columns, a number an image.
//! - [`breakdown`]: effects by the class they change and by the images they are of.
//! - [`gallery`]: what a node is: the images and places that excite it.
//! - [`shapley`]: nodes' shares of the effect of zeroing all; [`screen`]: first-order effects from one pass back.
//! - [`compat`]: the arithmetic of the published notebooks, fault by fault.
//! - [`pull`]: the gradient for the pixels of whatever is made of potential outcomes.
//! - [`matching`]: which node of one autoencoder is which of another; [`seeds`]: what a node does in several trainings.
//! - [`refute`]: placebos that a node's effect must outdo to be believed.
//! - [`claims`]: the verdict on the paper's claims (a), (b) and (c), with its artefacts and controls.
//!
//! "The paper" is Yang et al., "When Causal Intervention Meets Adversarial Examples and Image Masking for Deep Neural
//! Networks", ICIP 2019. Sign: an effect is do minus idle. An image whose logits are not numbers gives NaN, which no
//! statistic swallows: it is counted and the statistic is null.

pub mod analysis;
pub mod breakdown;
pub mod claims;
pub mod compat;
mod cut;
pub mod effect;
pub mod fill;
pub mod gallery;
pub mod intervention;
pub mod mask;
pub mod matching;
pub mod perturbation;
pub mod pull;
pub mod refute;
pub mod screen;
pub mod seeds;
pub mod shapley;
pub mod statistics;
pub mod study;
pub mod sweep;

use thiserror::Error;

/// What can be wrong with a request to this layer. Nothing here panics on any input.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum CausalError {
    /// Two things that must be of one length are not.
    #[error("{what}: expected {expected} values, got {got}")]
    Length {
        /// Which values.
        what: &'static str,
        /// Their number by the rest of the request.
        expected: usize,
        /// Their number.
        got: usize,
    },
    /// An index past the end: a class, a node or an image.
    #[error("{what} {index} does not exist: there are {count}{}", nearest_index(*.count))]
    Index {
        /// What was counted: "class", "node".
        what: &'static str,
        /// The index asked for.
        index: usize,
        /// How many there are; the last is one less.
        count: usize,
    },
    /// A text that names nothing.
    #[error("`{text}` is no {what}; the nearest is `{nearest}`")]
    Name {
        /// What it should have named: "reading", "set of nodes".
        what: &'static str,
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
    /// A shard that does not belong to the study of the others.
    #[error("the shard that begins at image {first} does not fit the others: {reason}; remove its file and resume")]
    Shard {
        /// Position of its first image.
        first: usize,
        /// Why not.
        reason: &'static str,
    },
    /// A reading of a perturbed input, asked of an image that was not perturbed.
    #[error("reading {reading} compares with a perturbed input; this image has none: add it with `with_perturbed`")]
    NoPerturbedInput {
        /// The reading asked for.
        reading: effect::Reading,
    },
    /// An artefact where it has no meaning.
    #[error("the artefact `{artefact}` has no meaning here: {why}")]
    Artefact {
        /// The artefact asked for.
        artefact: effect::Artefact,
        /// Why not.
        why: &'static str,
    },
}

/// The end of [`CausalError::Index`]'s message.
fn nearest_index(count: usize) -> String {
    match count.checked_sub(1) {
        Some(last) => format!(", numbered from 0; the nearest is {last}"),
        None => String::new(),
    }
}

/// The nodes of a set as a name: `3`, `3+7`.
pub fn named_nodes(set: &intervention::NodeSet) -> String {
    set.iter().map(|n| n.to_string()).collect::<Vec<_>>().join("+")
}

/// Values of one length, or [`CausalError::Length`].
fn same_length(what: &'static str, expected: usize, got: usize) -> Result<(), CausalError> {
    if expected == got { Ok(()) } else { Err(CausalError::Length { what, expected, got }) }
}

/// Text forms of a closed enum: `ALL`, `name`, `Display`, `FromStr` with the nearest name in the error.
macro_rules! named {
    ($type:ident, $what:literal, { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            /// Every variant, in order.
            pub const ALL: &'static [$type] = &[$($type::$variant),+];

            /// The name in tables and on the command line.
            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::causal::CausalError;

            /// Reads a name, case ignored; the error names the nearest.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.iter().copied().find(|v| v.name().eq_ignore_ascii_case(text.trim()));
                found.ok_or_else(|| $crate::causal::CausalError::Name {
                    what: $what,
                    text: text.to_owned(),
                    nearest: $crate::text::closest(text.trim(), &[$($name),+]).to_owned(),
                })
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    };
}
use named;
