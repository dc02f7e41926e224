//! `convert`: weights of any format that is read, as safetensors with torchvision's names and the metadata that says what
//! they are. `fetch` converts what it fetched with the same function.

use super::ui::{self, Ui};
use crate::error::Error;
use crate::model::{Head, Model};
use crate::tensor::{Shape, Tensor};
use crate::weights::{OnnxFile, Part, PrefixIs, Source, Weights, names, signature};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Flags of `convert`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Weights: safetensors, PyTorch's .pth or .pt, a pickle of a PyTorch module, or ONNX
    file: PathBuf,
    /// File to write; never overwritten
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Network that the weights must fit; default: what the file says or looks like
    #[arg(long)]
    arch: Option<String>,
    /// Number of classes that they must have; default: what the file has
    #[arg(long)]
    classes: Option<usize>,
    /// How logits become probabilities; default: what the file says, else the network's
    #[arg(long, value_enum)]
    head: Option<HeadArg>,
    /// Channel means that the network expects subtracted from pixels in 0 to 1, as 0.485,0.456,0.406
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// Channel standard deviations
    #[arg(long, value_delimiter = ',')]
    std: Option<Vec<f32>>,
    /// Only `features`: the file has no classifier, or one that is not wanted
    #[arg(long)]
    trunk: bool,
    /// Order in which the first convolution takes the channels; bgr (Caffe, Keras' VGG) is turned into rgb
    #[arg(long, value_enum, default_value = "rgb")]
    channels: Channels,
    /// Results as JSON
    #[arg(long)]
    json: bool,
    /// Only warnings, errors and results
    #[arg(long)]
    quiet: bool,
}

/// A head on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum HeadArg {
    /// One class out of several
    Softmax,
    /// Each label for itself
    Sigmoid,
}

/// The order of an image's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Channels {
    /// Red, green, blue
    Rgb,
    /// Blue, green, red
    Bgr,
}

/// What is to be converted, and what is known of it beside the file.
#[derive(Clone, Debug)]
pub struct Request {
    /// The file to read.
    pub file: PathBuf,
    /// The network; `None` takes what the file says or looks like.
    pub arch: Option<String>,
    /// Number of classes; `None` takes the file's.
    pub classes: Option<usize>,
    /// The head; `None` takes what the file says, else the network's.
    pub head: Option<Head>,
    /// Channel means.
    pub mean: Option<Vec<f32>>,
    /// Channel standard deviations.
    pub std: Option<Vec<f32>>,
    /// How much of the network.
    pub part: Part,
    /// What its first convolution takes.
    pub channels: Channels,
}

/// `convert`.
pub fn run(args: Args) -> Result<(), Error> {
    let ui = Ui::new(args.quiet);
    check_free(&args.out)?;
    let request = Request {
        file: args.file,
        arch: args.arch,
        classes: args.classes,
        head: args.head.map(|head| match head {
            HeadArg::Softmax => Head::Softmax,
            HeadArg::Sigmoid => Head::Sigmoid,
        }),
        mean: args.mean,
        std: args.std,
        part: if args.trunk { Part::Trunk } else { Part::Whole },
        channels: args.channels,
    };
    let weights = converted(&request, ui)?;
    weights.save(&args.out)?;
    told(&weights, &args.out, args.json)
}

/// Says what was written.
///
/// # Errors
/// [`Error::Failed`] when stdout cannot be written.
pub fn told(weights: &Weights, out: &Path, as_json: bool) -> Result<(), Error> {
    let hash = weights.hash();
    if as_json {
        let out = json!({ "schema_version": 1, "out": out, "sha256": hash, "tensors": weights.len(),
            "parameters": weights.parameters(), "metadata": weights.metadata, "notes": weights.notes });
        return ui::print(&format!("{out}\n"));
    }
    let what = signature::looks_like(weights).map_or_else(String::new, |s| format!("{s}, "));
    let (count, parameters) = (weights.len(), weights.parameters());
    ui::print(&format!("{}: {what}{count} tensors, {parameters} parameters, weights {hash}\n", out.display()))
}

/// Refuses to overwrite.
fn check_free(out: &Path) -> Result<(), Error> {
    match out.symlink_metadata() {
        Ok(_) => Err(Error::Usage(format!("--out {}: it exists, and nothing is overwritten", out.display()))),
        Err(_) => Ok(()),
    }
}

/// A network whose parameters are known.
struct Known {
    /// Its name.
    arch: String,
    /// What a run needs to know of it; `None` for one that is listed and cannot be run.
    model: Option<Model>,
    parameters: Vec<(String, Shape)>,
}

impl Known {
    fn named(arch: &str) -> Result<Known, Error> {
        let known = |model, parameters| Known { arch: arch.into(), model, parameters };
        match (Model::named(arch), signature::parameters(arch, 1000)) {
            (Ok(model), _) => {
                let parameters = model.parameters();
                Ok(known(Some(model), parameters))
            }
            (Err(_), Some(parameters)) => Ok(known(None, parameters)),
            (Err(e), None) => Err(e.into()),
        }
    }

    /// Key of the last layer's weight.
    fn last(&self) -> Option<&str> {
        self.parameters.iter().rev().map(|(name, _)| name.as_str()).find(|name| name.ends_with(".weight"))
    }

    /// The same with another number of classes: rows of the last layer.
    fn set_classes(&mut self, classes: usize) {
        let Some(path) = self.last().and_then(|l| l.strip_suffix("weight")).map(str::to_owned) else { return };
        for (_, shape) in self.parameters.iter_mut().filter(|(name, _)| name.starts_with(&path)) {
            let mut dims = shape.dims().to_vec();
            if let Some(rows) = dims.first_mut() {
                *rows = classes;
            }
            *shape = dims.into();
        }
    }
}

/// The weights that `request` asks for, with their metadata.
///
/// # Errors
/// [`Error::Weights`] when the file is not read or does not fit; [`Error::Usage`] and [`Error::Model`] for a request that
/// makes no sense.
pub fn converted(request: &Request, ui: Ui) -> Result<Weights, Error> {
    let source = Source::open(&request.file)?;
    let shown = request.file.display().to_string();
    ui.log(format!("{shown}: {}", source.format()));
    // a model's graph tells more than its names; what else is read has names only
    let graph = source.onnx().is_some().then(|| source.clone());
    let by_names = source.weights();
    let arch = match (&request.arch, &by_names) {
        (Some(arch), _) => Some(arch.clone()),
        (None, Ok(weights)) => {
            weights.metadata.get("arch").cloned().or_else(|| Some(signature::looks_like(weights)?.arch))
        }
        (None, Err(_)) => None,
    };
    let known = match (arch.as_deref().map(Known::named), &request.arch) {
        (None, _) => None,
        (Some(known), Some(_)) => Some(known?),
        // what the file looks like need not be known
        (Some(known), None) => known.ok(),
    };
    let said = by_names.as_ref().map(|w| w.metadata.clone()).unwrap_or_default();
    let (mut weights, known) = match (known, graph) {
        (Some(mut known), graph) => {
            let by_name = || classes_of(by_names.as_ref().ok()?, &known);
            let by_graph = || graph.as_ref().and_then(Source::onnx).map_or(Ok(None), OnnxFile::outputs);
            let classes = match request.classes.or_else(by_name) {
                None => by_graph()?,
                told => told,
            };
            if let Some(classes) = classes {
                known.set_classes(classes);
            }
            let fitted = match graph {
                Some(graph) => {
                    drop(by_names);
                    graph.fit(&known.parameters, request.part)?
                }
                None => {
                    // an autoencoder beside its host is carried along
                    let mut host = by_names?;
                    let autoencoder = host.take_prefix("ae.", PrefixIs::Kept);
                    let mut host = host.fit(&known.parameters, request.part)?;
                    host.absorb(autoencoder);
                    host
                }
            };
            (fitted, Some(known))
        }
        (None, Some(_)) => {
            by_names?;
            return Err(Error::Usage(format!("{shown}: the names of its tensors say nothing; give --arch")));
        }
        (None, None) => {
            let weights = by_names?;
            let what = signature::looks_like(&weights).map_or("nothing that is known".into(), |s| s.to_string());
            ui.warn(format!("{shown}: looks like {what}; names and shapes are taken as they are, not checked"));
            (weights, None)
        }
    };
    for note in &weights.notes {
        ui.log(format!("{shown}: {note}"));
    }
    weights.check_finite()?;
    let first = first_convolution(&weights, known.as_ref());
    if request.channels == Channels::Bgr {
        turn_channels(&mut weights, first.as_deref())?;
        weights.notes.push("the first convolution takes RGB now; it took BGR".into());
    }
    let inputs = first.and_then(|f| weights.get(&f)?.shape.dims().get(1).copied());
    weights.metadata = said;
    describe(&mut weights, request, known.as_ref(), inputs)?;
    Ok(weights)
}

/// Rows of the last layer's weight, as the file has it under this or another name.
fn classes_of(weights: &Weights, known: &Known) -> Option<usize> {
    let last = known.last()?;
    let expected = |name: &str| known.parameters.iter().any(|(n, _)| n == name);
    let repairs = names::repair(weights.file(), weights.names(), &expected).ok()?;
    let name = repairs.iter().find(|r| r.to == last).map_or(last, |r| r.from.as_str());
    weights.get(name)?.shape.dims().first().copied()
}

/// Key of the weight of the convolution that sees the image.
fn first_convolution(weights: &Weights, known: Option<&Known>) -> Option<String> {
    let rank_4 = |name: &str| weights.get(name).is_some_and(|t| t.shape.rank() == 4);
    match known {
        Some(known) => known.parameters.first().map(|(name, _)| name.clone()).filter(|n| rank_4(n)),
        None => ["features.0.weight", "features.conv0.weight", "conv1.weight"]
            .into_iter()
            .find(|n| rank_4(n))
            .map(str::to_owned),
    }
}

/// Turns the order of the first convolution's three input channels round.
fn turn_channels(weights: &mut Weights, first: Option<&str>) -> Result<(), Error> {
    let nothing =
        || Error::Usage("--channels bgr: the first convolution, of an image with three channels, is not found".into());
    let name = first.ok_or_else(nothing)?;
    let view = weights.require(name)?;
    let &[outputs, 3, height, width] = view.shape.dims() else { return Err(nothing()) };
    let window = height * width;
    let old = |i: usize| {
        let (output, rest) = (i / (3 * window), i % (3 * window));
        output * 3 * window + (2 - rest / window) * window + rest % window
    };
    let turned = Tensor::from_fn([outputs, 3, height, width], |i| view.data[old(i)]);
    weights.insert(name, turned);
    Ok(())
}

/// Writes what is known into the metadata.
fn describe(
    weights: &mut Weights,
    request: &Request,
    known: Option<&Known>,
    inputs: Option<usize>,
) -> Result<(), Error> {
    let model = known.and_then(|k| k.model.as_ref());
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            weights.metadata.insert(key.to_owned(), value);
        }
    };
    let known_arch = known.map(|k| k.arch.clone());
    set("arch", known_arch);
    let rows = known.filter(|_| request.part == Part::Whole).and_then(|k| {
        let last = k.last()?;
        k.parameters.iter().find(|(name, _)| name == last)?.1.dims().first().copied()
    });
    set("classes", rows.map(|r| r.to_string()));
    set("head", request.head.map(|h| h.to_string()));
    let text = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    for (flag, values) in [("mean", &request.mean), ("std", &request.std)] {
        let Some(values) = values else { continue };
        if inputs.is_some_and(|n| n != values.len()) {
            let count = inputs.unwrap_or(0);
            return Err(Error::Usage(format!(
                "--{flag} has {} numbers, but the network takes {count} channels",
                values.len()
            )));
        }
        if values.iter().any(|v| !v.is_finite() || (flag == "std" && !(*v > 0.0))) {
            return Err(Error::Usage(format!(
                "--{flag} {}: not numbers that pixels can be normalised with",
                text(values)
            )));
        }
        set(flag, Some(text(values)));
    }
    // what neither flags nor file say is the network's
    if let Some(model) = model {
        let whole = (request.part == Part::Whole).then(|| model.head.to_string());
        for (key, value) in [("head", whole), ("mean", Some(text(&model.mean))), ("std", Some(text(&model.std)))] {
            if let Some(value) = value {
                weights.metadata.entry(key.to_owned()).or_insert(value);
            }
        }
    }
    Ok(())
}
