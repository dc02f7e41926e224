//! Loading what a command works on: data, host weights, autoencoder, with the checks that every command owes its user.

use super::common::{Context, DataArgs};
use crate::data::fetch::{Check, Fashion, Sources, load_fashion};
use crate::data::image::Channels;
use crate::data::transform::{Geometry, IMAGENET, Transform};
use crate::data::{DataError, Dataset, Layout, OnBadFile, Policy, open, recognise};
use crate::error::Error;
use crate::model::autoencoder::{Autoencoder, HIDDEN, NODES};
use crate::model::{Model, Tap};
use crate::weights::safetensors::TensorFile;
use crate::weights::{Host, PrefixIs, Weights, names};
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

/// The images that a study is over: the user's own, where `--data` names some, else Fashion-MNIST's test images.
///
/// # Errors
/// As [`data`]; [`Error::Input`] when the images have another number of classes than `model`.
pub fn images(args: &DataArgs, on_bad_file: OnBadFile, model: &Model, context: &Context) -> Result<Dataset, Error> {
    let own = match args.data.as_deref().map(|path| (path, recognise(path))) {
        // a place that is not there is said by the reader that looks in all places
        None | Some((_, Ok(Layout::Idx) | Err(DataError::Io { .. }))) => return Ok(data(args, model, context)?.test),
        Some((path, layout)) => layout.map(|_| path)?,
    };
    let opened = open(own, transform(model), Policy { on_bad_file, ..Policy::default() })?;
    let (images, classes) = (opened.data.len(), opened.data.classes().len());
    context.ui.log(format!("data: {}: {}, {images} images, {classes} classes", own.display(), opened.layout.name()));
    opened.notes.iter().for_each(|note| context.ui.warn(format!("data: {note}")));
    opened.skipped.iter().for_each(|file| context.ui.warn(format!("left out: {}", file.reason)));
    if classes != 0 && classes != model.classes {
        let reason = format!(
            "its images are of {classes} classes, but {} has {}; numbers of classes would mean others",
            model.arch, model.classes
        );
        return Err(Error::Input { path: own.into(), reason });
    }
    Ok(opened.data)
}

/// How the user's own images become what `model` takes: as ImageNet's are evaluated where it takes their size, else the
/// short side and then the middle at its own.
fn transform(model: &Model) -> Transform {
    let [channels, height, width] = model.input;
    let channels = if channels == 1 { Channels::Grey } else { Channels::Rgb };
    let geometry = match (height, width) {
        (224, 224) => IMAGENET,
        (side, other) if side == other => Geometry::ShortSide { short: side, crop: side },
        _ => Geometry::As([height, width]),
    };
    Transform { channels, geometry }
}

/// Host weights from a file, or the bundled ones.
///
/// # Errors
/// [`Error::Weights`] when they are not this network's.
pub fn host(model: &Model, path: Option<&Path>, context: &Context) -> Result<Weights, Error> {
    let file = match path {
        Some(path) => TensorFile::open(path)?,
        None => TensorFile::from_static("bundled fashion.safetensors", BUNDLED_CLASSIFIER)?,
    };
    let mut weights = file.weights("", PrefixIs::Kept)?;
    // a file may hold host and autoencoder together: each consumer judges its own
    weights.take_prefix("ae.", PrefixIs::Kept);
    let expected = model.parameters();
    for line in names::summary(&weights.repair(&expected)?) {
        context.ui.log(format!("weights: {line}"));
    }
    weights.check(&expected)?;
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
