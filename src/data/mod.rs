//! Images in: [`Dataset`], labelled images of one shape, in memory or as files, and everything that reads one.
//!
//! [`open()`] recognises what a path is: a directory of class directories or of images ([`folder`]), a table of paths
//! ([`manifest`]), NIH's chest X-rays ([`nih`]). IDX files are read by [`idx`], and [`fetch`] finds and downloads
//! Fashion-MNIST. A file becomes pixels in [`image`] (by [`decode`] and [`jpeg`]), takes its size in [`transform`] (by
//! [`resize`], or [`augment`] in training), and waits in [`files`], decoded ahead of need by threads of their own. Pixels are
//! those of PIL and torchvision to the bit. Called by training, sweeps and the command line.

pub mod augment;
mod dataset;
pub mod decode;
#[cfg(feature = "dicom")]
mod dicom;
mod error;
pub mod fetch;
pub mod files;
pub mod findings;
pub mod folder;
pub mod idx;
pub mod image;
pub mod imagenet;
pub mod jpeg;
pub mod manifest;
pub mod nih;
mod open;
mod pool;
pub mod resize;
mod split;
mod table;
pub mod transform;

pub use dataset::{Dataset, Labels, NO_LABEL};
pub use error::DataError;
pub use files::{OnBadFile, Part, Policy, Skipped};
pub use open::{Layout, Opened, open, recognise};
pub use split::{FASHION_TRAIN, FASHION_VALIDATION, Split, check_leaks, epoch_order};
pub use transform::Transform;
