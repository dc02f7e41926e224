//! What can be wrong with a request for a map, or with a map.

use super::localisation::Place;
use crate::backend::BackendError;
use crate::graph::GraphError;

/// Why there is no map, or nothing to say of one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ExplainError {
    /// Not one value a cell.
    #[error("a map of {height}x{width} has no {values} values")]
    Map {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Values given.
        values: usize,
    },
    /// Maps that have no cells in common.
    #[error("maps of {}x{} and {}x{} cells cannot be compared: resize one", .first.0, .first.1, .second.0, .second.1)]
    Sizes {
        /// Rows and columns of the first.
        first: (usize, usize),
        /// Rows and columns of the second.
        second: (usize, usize),
    },
    /// A range that no values have.
    #[error("a range of {range} makes no sense: it is above 0 and finite")]
    Range {
        /// The range.
        range: f64,
    },
    /// A box that lies nowhere in a map.
    #[error("the box {place:?} has no part in a map of {height}x{width}")]
    Place {
        /// The box.
        place: Place,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// An image that is not of a map's size.
    #[error("{pixels} pixels are no whole number of channels of {cells} cells")]
    Pixels {
        /// Numbers of the image.
        pixels: usize,
        /// Cells of the map.
        cells: usize,
    },
    /// A curve of no steps.
    #[error("a curve needs at least one step")]
    Steps,
    /// A class activation map of a network without one.
    #[error(
        "CAM does not exist for {arch}: it weighs maps with the one linear layer behind their global average, and {arch} \
         classifies otherwise; grad-cam is its generalisation"
    )]
    NoCam {
        /// The network.
        arch: &'static str,
    },
    /// A causal map without an autoencoder.
    #[error("{method} needs an autoencoder: its nodes are what is intervened on")]
    NoAutoencoder {
        /// The method.
        method: &'static str,
    },
    /// A method that the program was not loaded for.
    #[error("this program was loaded without {method}")]
    NotLoaded {
        /// The method.
        method: &'static str,
    },
    /// A class that there is not.
    #[error("class {class} does not exist: there are {classes}, numbered from 0")]
    Class {
        /// The class.
        class: u32,
        /// How many there are.
        classes: usize,
    },
    /// Not a list of classes for each image.
    #[error("{lists} lists of classes for {images} images")]
    Classes {
        /// Lists given.
        lists: usize,
        /// Images given.
        images: usize,
    },
    /// A patch that leaves pixels out.
    #[error(
        "a patch of {side} pixels at every {stride}: the stride is 1 to the patch's side, so that every pixel is covered"
    )]
    Patch {
        /// Its side.
        side: usize,
        /// From place to place.
        stride: usize,
    },
    /// A file that holds no map of ours.
    #[error("this is no .npy file of a map: {0}")]
    Npy(&'static str),
    /// The graph could not be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}
