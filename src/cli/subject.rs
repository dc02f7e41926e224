//! Loading what a command works on: data, host weights, autoencoder, with the checks that every command owes its user.

use super::common::{Context, DataArgs, OnBadFileArg};
use super::convert::{Request, converted};
use crate::data::fetch::{Check, Sources, load_fashion};
use crate::data::image::Channels;
use crate::data::transform::{Geometry, Transform};
use crate::data::{self, Dataset, Labels, Layout, OnBadFile, Opened, Policy, Split};
use crate::error::Error;
use crate::model::autoencoder::{Autoencoder, HIDDEN, NODES};
use crate::model::{Head, Model, Tap};
use crate::tensor::Shape;
use crate::weights::safetensors::TensorFile;
use crate::weights::{self, Host, PrefixIs, Weights};
use std::path::{Path, PathBuf};

/// The classifier that comes with the program.
const BUNDLED_CLASSIFIER: &[u8] = include_bytes!("../../weights/fashion.safetensors");
/// The autoencoder that comes with it.
const BUNDLED_AUTOENCODER: &[u8] = include_bytes!("../../weights/fashion-ae.safetensors");
/// The network that they belong to.
const BUNDLED: &str = "fashion";

/// Whether an autoencoder for that network comes with the program.
pub fn has_bundled_autoencoder(arch: &str) -> bool {
    arch == BUNDLED
}

/// Flags that say what is studied.
#[derive(Clone, Debug, clap::Args)]
pub struct SubjectArgs {
    /// Network
    #[arg(long, default_value = "fashion")]
    pub model: String,
    /// Its weights (safetensors, .pth, .pt or ONNX); default for fashion: the bundled ones
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// The autoencoder (safetensors), where one is needed; default for fashion: the bundled one. Of `ce` repeatable: other trainings,
    /// whose nodes are matched
    #[arg(long, value_name = "FILE")]
    pub ae: Vec<PathBuf>,
    /// Where it is spliced in: a number of children of `features`, or the last one's name
    #[arg(long, default_value = "2")]
    pub tap: String,
}

impl SubjectArgs {
    /// The one autoencoder, of a command that takes one.
    ///
    /// # Errors
    /// [`Error::Usage`] for several.
    pub fn one_ae(&self) -> Result<Option<PathBuf>, Error> {
        if self.ae.len() > 1 {
            return Err(Error::Usage("--ae: one autoencoder is enough; `ce` takes several".into()));
        }
        Ok(self.ae.first().cloned())
    }
}

/// Images cut into parts.
#[derive(Clone, Debug)]
pub struct Sets {
    /// To train on, and to choose the best epoch by.
    pub training: Dataset,
    /// Which of those are which.
    pub split: Split,
    /// What a finished training is judged on.
    pub test: Dataset,
    /// What effects are measured on: the test images, or all of a set that names none.
    pub studied: Dataset,
    /// What `studied` is called in tables.
    pub part: &'static str,
}

impl Sets {
    /// Cuts `data`, whose images may say which part they are in. Where they do not, a twelfth validates and a twelfth tests,
    /// whole patients, always the same ones; patients with a marked finding test too, as in NIH's own lists.
    ///
    /// # Errors
    /// [`Error::Data`].
    fn of(data: Dataset) -> Result<Sets, Error> {
        let part = |part| data.of_part(part);
        let (train, validation, test) = (part(data::Part::Train), part(data::Part::Validation), part(data::Part::Test));
        let twelfth = |n: usize| (n / 12).max(1);
        if train.is_empty() && test.is_empty() {
            let held_out = Split::by_patient(&data, "test", twelfth(data.len())).with_marked(&data);
            let training = data.subset(&held_out.train)?;
            let split = Split::by_patient(&training, "validation", twelfth(data.len()));
            return Ok(Sets { split, training, test: data.subset(&held_out.validation)?, studied: data, part: "" });
        }
        let both: Vec<u32> = train.iter().chain(&validation).copied().collect();
        let training = data.subset(&both)?;
        let n = train.len() as u32;
        let split = match validation.len() as u32 {
            0 => Split::by_patient(&training, "validation", twelfth(train.len())),
            v => Split { train: (0..n).collect(), validation: (n..n + v).collect() },
        };
        let test = data.subset(if test.is_empty() { &validation } else { &test })?;
        Ok(Sets { studied: test.clone(), training, split, test, part: "test" })
    }
}

impl Sets {
    /// The same images labelled with groups of their classes: see [`Dataset::grouped`].
    ///
    /// # Errors
    /// [`Error::Data`] when the groups are not of these classes.
    pub fn grouped(self, group: &[u32], names: &[&str]) -> Result<Sets, Error> {
        let Sets { training, split, test, studied, part } = self;
        let of = |data: Dataset| data.grouped(group, names.iter().map(|n| n.to_string()).collect());
        Ok(Sets { training: of(training)?, split, test: of(test)?, studied: of(studied)?, part })
    }
}

/// Opens the images that `model` is to see; labels of other classes than its own are left out, for they would be taken for
/// its.
///
/// # Errors
/// As [`labelled`].
pub fn data(args: &DataArgs, model: &Model, context: &Context) -> Result<Sets, Error> {
    let sets = labelled(args, model, context)?;
    let classes = sets.studied.classes().len();
    if classes == model.classes || classes == 0 {
        return Ok(sets);
    }
    context.ui.warn(format!(
        "the images are of {classes} classes, but {} has {}: numbers of classes would mean others, so the labels are left out",
        model.arch, model.classes
    ));
    let Sets { training, split, test, studied, part } = sets;
    let [training, test, studied] = [training, test, studied].map(Dataset::without_labels);
    Ok(Sets { training, split, test, studied, part })
}

/// Opens images of the size that `model` takes, with whatever labels they have: to train on.
///
/// # Errors
/// [`Error::Data`]; [`Error::Input`] when they are not of the size that `model` takes; [`Error::Usage`] when none are named
/// and there are none of its own.
pub fn labelled(args: &DataArgs, model: &Model, context: &Context) -> Result<Sets, Error> {
    let layout = args.data.as_deref().map(data::recognise).transpose();
    let (path, layout) = match (args.data.as_deref(), layout) {
        (Some(path), Ok(Some(layout))) if layout != Layout::Idx => (path, layout),
        // what is missing there is said with the names of all four files
        (_, Err(e)) if model.arch != BUNDLED => return Err(e.into()),
        (None, _) if model.arch != BUNDLED => {
            let reason = "name the images it is to see with --data";
            return Err(Error::Usage(format!("{} comes without images: {reason}", model.arch)));
        }
        _ => return fashion(args, model, context),
    };
    let data = open(path, args, model, context)?.data;
    let (images, classes) = (data.len(), data.classes().len());
    context.ui.log(format!("data: {}: {}, {images} images, {classes} classes", path.display(), layout.name()));
    Sets::of(data)
}

/// Opens a set of image files for `model`.
///
/// # Errors
/// [`Error::Data`].
pub fn open(path: &Path, args: &DataArgs, model: &Model, context: &Context) -> Result<Opened, Error> {
    let [channels, height, width] = model.input;
    let geometry = match (height == width, args.resize) {
        (true, resize) => {
            // as ImageNet's are evaluated; Fashion-MNIST's are whole
            let usual = if model.arch == BUNDLED { height } else { height * 8 / 7 };
            let short = resize.map_or(usual, |r| r as usize);
            Geometry::ShortSide { short, crop: height }
        }
        (false, _) => Geometry::As([height, width]),
    };
    let channels = if channels == 1 { Channels::Grey } else { Channels::Rgb };
    let on_bad_file = match args.on_bad_file {
        OnBadFileArg::Stop => OnBadFile::Stop,
        OnBadFileArg::Skip => OnBadFile::Skip,
    };
    let opened = data::open(path, Transform { channels, geometry }, Policy { on_bad_file, ..Policy::default() })?;
    opened.notes.iter().for_each(|note| context.ui.warn(format!("data: {note}")));
    opened.skipped.iter().for_each(|file| context.ui.warn(format!("left out: {}", file.reason)));
    Ok(opened)
}

/// Finds or fetches Fashion-MNIST and loads it.
fn fashion(args: &DataArgs, model: &Model, context: &Context) -> Result<Sets, Error> {
    let check = if args.any_data { Check::None } else { Check::Md5 };
    let ui = context.ui;
    let fashion = load_fashion(args.data.as_deref(), check, &Sources::default(), &mut |attempt| {
        ui.log(format!("data: {attempt}"));
    })?;
    for (set, file) in [(&fashion.train, &fashion.files.train_images), (&fashion.test, &fashion.files.test_images)] {
        if set.shape().dims() != model.input {
            let (got, takes) = (set.shape(), Shape::from(model.input));
            let reason = format!("its images are {got}, but {} takes {takes}; resize them", model.arch);
            return Err(Error::Input { path: file.clone(), reason });
        }
    }
    let images = fashion.train.len() as u32;
    let split = match images {
        data::FASHION_TRAIN => Split::fashion(),
        // a twelfth as well, and never none: the best epoch is chosen on it
        _ => Split::new("validation", images, (images / 12).max(1)),
    };
    Ok(Sets { training: fashion.train, split, studied: fashion.test.clone(), test: fashion.test, part: "test" })
}

/// The network `arch` for images as `data` asks for them.
///
/// # Errors
/// [`Error::Model`] for one that does not exist or takes no such images.
pub fn network(arch: &str, data: &DataArgs) -> Result<Model, Error> {
    let model = Model::named(arch)?;
    match data.crop {
        Some(side) => Ok(model.with_input(side as usize, side as usize)?),
        None => Ok(model),
    }
}

/// The network `arch` and its weights, from a file of any format that is read, or the bundled ones. How many classes it
/// has, its head and its normalisation are the file's, where it says so.
///
/// # Errors
/// [`Error::Weights`] when they are not this network's; [`Error::Usage`] when none are named and none are bundled.
pub fn host(arch: &str, path: Option<&Path>, data: &DataArgs, context: &Context) -> Result<(Model, Weights), Error> {
    let model = network(arch, data)?;
    let Some(path) = path else {
        if arch != BUNDLED {
            return Err(Error::Usage(format!(
                "no weights of {arch} come with the program: give some with --weights FILE (safetensors, .pth or ONNX); `train` \
                 makes some, `fetch` gets published ones"
            )));
        }
        let file = TensorFile::from_static("bundled fashion.safetensors", BUNDLED_CLASSIFIER)?;
        let weights = file.weights("", PrefixIs::Kept)?.fit(&model.parameters(), weights::Part::Whole)?;
        weights.check_finite()?;
        return Ok((model, weights));
    };
    let request = Request {
        file: path.into(),
        arch: Some(arch.into()),
        classes: None,
        head: None,
        mean: None,
        std: None,
        part: weights::Part::Whole,
        channels: super::convert::Channels::Rgb,
    };
    let mut weights = converted(&request, context.ui)?;
    // a file may hold host and autoencoder together: each consumer judges its own
    weights.take_prefix("ae.", PrefixIs::Kept);
    let model = as_described(model, &weights)?;
    weights.check(&model.parameters())?;
    Ok((model, weights))
}

/// What a training begins with.
pub struct Start {
    /// The network, with an answer for each class or finding of the images.
    pub model: Model,
    /// Weights to begin with: all, those of `features`, or none.
    pub weights: Weights,
}

/// The network that training on `sets` makes, and what it begins with.
///
/// # Errors
/// [`Error::Weights`] when the file's `features` are not this network's.
pub fn start(arch: &str, path: Option<&Path>, sets: &Sets, context: &Context) -> Result<Start, Error> {
    let &[_, height, width] = sets.training.shape().dims() else {
        return Err(Error::Usage(format!("{arch} takes images, not rows of {}", sets.training.shape())));
    };
    let usual = Model::named(arch)?;
    let classes = match sets.training.classes().len() {
        0 => return Err(Error::Usage("these images have no labels to learn".into())),
        classes => classes,
    };
    let mut model = usual.with_input(height, width)?.with_classes(classes)?;
    model.head = match sets.training.targets() {
        Labels::Classes(_) => Head::Softmax,
        Labels::Findings(_) => Head::Sigmoid,
    };
    let Some(path) = path else { return Ok(Start { model, weights: Weights::new("nothing") }) };
    let source = weights::Source::open(path)?;
    let expected = model.parameters();
    let fits = source.clone().fit(&expected, weights::Part::Whole);
    let mut weights = match fits {
        Ok(whole) => whole,
        Err(_) => source.fit(&expected, weights::Part::Trunk)?,
    };
    weights.notes.iter().for_each(|note| context.ui.log(format!("weights: {note}")));
    weights.check_finite()?;
    // its classes and head are another task's; how it takes pixels is its own
    for key in ["classes", "head"] {
        weights.metadata.remove(key);
    }
    let described = as_described(model.clone(), &weights)?;
    (model.mean, model.std) = (described.mean, described.std);
    Ok(Start { model, weights })
}

/// `model` with the classes, head and normalisation that the weights' metadata name.
fn as_described(model: Model, weights: &Weights) -> Result<Model, Error> {
    let bad = |key: &str, value: &str| Error::Input {
        path: weights.file().into(),
        reason: format!("its metadata say {key} is \"{value}\", which makes no sense; `convert` writes it anew"),
    };
    let said = |key: &str| weights.metadata.get(key).map(String::as_str);
    let mut model = match said("classes") {
        Some(text) => model.with_classes(text.parse().map_err(|_| bad("classes", text))?)?,
        None => model,
    };
    model.head = match said("head") {
        None => model.head,
        Some("softmax") => Head::Softmax,
        Some("sigmoid") => Head::Sigmoid,
        Some(other) => return Err(bad("head", other)),
    };
    let channels = model.input[0];
    let numbers = |key: &str| -> Result<Option<Vec<f32>>, Error> {
        let Some(text) = said(key) else { return Ok(None) };
        let values: Vec<f32> = text.split(',').filter_map(|v| v.trim().parse().ok()).collect();
        let fits =
            values.len() == channels && values.iter().all(|v| v.is_finite()) && text.split(',').count() == channels;
        if fits { Ok(Some(values)) } else { Err(bad(key, text)) }
    };
    if let Some(mean) = numbers("mean")? {
        model.mean = mean;
    }
    if let Some(std) = numbers("std")? {
        if !std.iter().all(|&v| v > 0.0) {
            return Err(bad("std", said("std").unwrap_or_default()));
        }
        model.std = std;
    }
    Ok(model)
}

/// An autoencoder from a file, or the bundled one, for `tap` of a host with the hash `host_hash`.
///
/// # Errors
/// [`Error::Weights`] when it is not for this tap or was trained on another host; [`Error::Usage`] when none is named and
/// none is bundled.
pub fn autoencoder(
    arch: &str,
    tap: &Tap,
    host_hash: &str,
    path: Option<&Path>,
    context: &Context,
) -> Result<(Autoencoder, Weights), Error> {
    let file = match path {
        Some(path) => TensorFile::open(path)?,
        None if arch == BUNDLED => TensorFile::from_static("bundled fashion-ae.safetensors", BUNDLED_AUTOENCODER)?,
        None => {
            return Err(Error::Usage(format!(
                "no autoencoder for {arch} comes with the program: give one with --ae FILE; `train-ae --model {arch} --tap {}` \
                 trains it",
                tap.number
            )));
        }
    };
    let weights = file.weights("", PrefixIs::Kept)?.take_prefix("ae.", PrefixIs::Kept);
    let elsewhere = weights.metadata.get("tap").filter(|at| **at != tap.name).cloned();
    if let (None, Some(at)) = (path, &elsewhere) {
        return Err(Error::Usage(format!(
            "the autoencoder that comes with the program is for tap {at}: give one for {} with --ae FILE; `train-ae --tap {}` trains it",
            tap.name, tap.number
        )));
    }
    let autoencoder = Autoencoder::from_shapes(tap, |name| weights.get(name).map(|t| t.shape))
        .unwrap_or_else(|| Autoencoder::at(tap, HIDDEN, NODES));
    if let Err(e) = weights.check(&autoencoder.parameters()) {
        // the shapes of another tap say less than its name
        return Err(match (&elsewhere, path) {
            (Some(at), Some(path)) => Error::Input {
                path: path.into(),
                reason: format!("was trained at tap {at} and does not fit at {}: use it with --tap {at}", tap.name),
            },
            _ => e.into(),
        });
    }
    weights.check_finite()?;
    if let Some(at) = &elsewhere {
        context.ui.warn(format!("{}: trained at tap {at}, used at {}", weights.file(), tap.name));
    }
    match weights.check_host(host_hash)? {
        Host::Matches => {}
        Host::NotRecorded => context.ui.warn(format!("{}: does not say which host it was trained on", weights.file())),
    }
    Ok((autoencoder, weights))
}
