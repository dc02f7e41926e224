//! Loading what a command works on: data, host weights, autoencoder, with the checks that every command owes its user.

use super::common::{Context, DataArgs};
use crate::data::fetch::{Check, Fashion, Sources, load_fashion};
use crate::error::Error;
use crate::model::autoencoder::{Autoencoder, HIDDEN, NODES};
use crate::model::{Model, Tap};
use crate::weights::safetensors::TensorFile;
use crate::weights::{Host, Part, PrefixIs, Weights};
use std::path::Path;

/// The classifier that comes with the program.
const BUNDLED_CLASSIFIER: &[u8] = include_bytes!("../../weights/fashion.safetensors");
/// The autoencoder that comes with it.
const BUNDLED_AUTOENCODER: &[u8] = include_bytes!("../../weights/fashion-ae.safetensors");

/// Finds or fetches Fashion-MNIST and loads it.
///
/// # Errors
/// [`Error::Data`]; [`Error::Input`] when the images are not of the size that `model` takes.
pub fn data(args: &DataArgs, model: &Model, context: &Context) -> Result<Fashion, Error> {
    let check = if args.any_data { Check::None } else { Check::Md5 };
    let ui = context.ui;
    let fashion = load_fashion(args.data.as_deref(), check, &Sources::default(), &mut |attempt| {
        ui.log(format!("data: {attempt}"));
    })?;
    for (set, file) in [(&fashion.train, &fashion.files.train_images), (&fashion.test, &fashion.files.test_images)] {
        if set.shape().dims() != model.input {
            let (got, takes) = (set.shape(), crate::tensor::Shape::from(model.input));
            let reason = format!("its images are {got}, but {} takes {takes}; resize them", model.arch);
            return Err(Error::Input { path: file.clone(), reason });
        }
    }
    Ok(fashion)
}

/// Host weights from a file of any format that is read, or the bundled ones.
///
/// # Errors
/// [`Error::Weights`] when they are not this network's.
pub fn host(model: &Model, path: Option<&Path>, context: &Context) -> Result<Weights, Error> {
    // a file may hold host and autoencoder together: each consumer judges its own
    let expected = model.parameters();
    let weights = match path {
        Some(path) => Weights::open_as(path, &expected, Part::Whole)?,
        None => {
            let file = TensorFile::from_static("bundled fashion.safetensors", BUNDLED_CLASSIFIER)?;
            file.weights("", PrefixIs::Kept)?.fit(&expected, Part::Whole)?
        }
    };
    for line in &weights.notes {
        context.ui.log(format!("weights: {line}"));
    }
    weights.check_finite()?;
    Ok(weights)
}

/// An autoencoder from a file, or the bundled one, for `tap` of a host with the hash `host_hash`.
///
/// # Errors
/// [`Error::Weights`] when it is not for this tap or was trained on another host.
pub fn autoencoder(
    tap: &Tap,
    host_hash: &str,
    path: Option<&Path>,
    context: &Context,
) -> Result<(Autoencoder, Weights), Error> {
    let file = match path {
        Some(path) => TensorFile::open(path)?,
        None => TensorFile::from_static("bundled fashion-ae.safetensors", BUNDLED_AUTOENCODER)?,
    };
    let weights = file.weights("", PrefixIs::Kept)?.take_prefix("ae.", PrefixIs::Kept);
    let autoencoder = Autoencoder::from_shapes(tap, |name| weights.get(name).map(|t| t.shape))
        .unwrap_or_else(|| Autoencoder::at(tap, HIDDEN, NODES));
    weights.check(&autoencoder.parameters())?;
    weights.check_finite()?;
    if let Some(at) = weights.metadata.get("tap").filter(|t| **t != tap.name) {
        context.ui.warn(format!("{}: trained at tap {at}, used at {}", weights.file(), tap.name));
    }
    match weights.check_host(host_hash)? {
        Host::Matches => {}
        Host::NotRecorded => context.ui.warn(format!("{}: does not say which host it was trained on", weights.file())),
    }
    Ok((autoencoder, weights))
}
