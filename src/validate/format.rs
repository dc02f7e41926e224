//! Reading a reference folder: `reference.json` and `reference.safetensors` into a host, an autoencoder, images and what a
//! framework computed for them. Everything is checked here, so that running needs no second look: types, shapes, finite
//! numbers, labels, and that what each expectation needs is there.
//!
//! Weights come as tensors (`weights.*`, `ae.*`) or, where the JSON file has `weights_seed` or `ae_seed`, those that have no
//! tensor are drawn ([`drawn`]), as `tests/fixtures/reference.py` draws them: 138 million weights then take no room in the
//! folder.

use super::ValidateError;
use super::quantity::{Attack, LOSSES, Quantity, TOTAL};
use crate::answer::Head;
use crate::explain;
use crate::graph::Graph;
use crate::model::autoencoder::Autoencoder;
use crate::model::{Layer, Model, Tap};
use crate::random::Stream;
use crate::tensor::{Shape, Tensor};
use crate::text::closest;
use crate::train::autoencoder::LossWeights;
use crate::weights::safetensors::{Elements, TensorFile};
use crate::weights::{PrefixIs, Weights, names};
use rayon::prelude::*;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The version of the format that is read.
const FORMAT: u64 = 1;
/// Elements a draw numbers at most: its counter has 32 bits.
const DRAWN_MAX: usize = u32::MAX as usize;
/// Steps of an attack at most.
const STEPS_MAX: usize = 10_000;

/// `reference.json`. Keys that are not named here are for others.
#[derive(Debug, Deserialize)]
struct Settings {
    format: u64,
    arch: String,
    classes: usize,
    head: String,
    tap: Option<TapText>,
    code_channels: Option<usize>,
    hidden: Option<usize>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    #[serde(default)]
    attacks: BTreeMap<String, StepSettings>,
    losses: Option<LossWeights>,
    weights_seed: Option<u64>,
    ae_seed: Option<u64>,
}

/// A tap's number or the name of the child in front of it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TapText {
    Number(u64),
    Name(String),
}

#[derive(Debug, Deserialize)]
struct StepSettings {
    eps: f64,
    step: Option<f64>,
    steps: Option<usize>,
    random_start: Option<bool>,
}

/// Where an attack begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the image.
    Image,
    /// Somewhere within eps of it: only the first iterate says where.
    Random,
}

/// How an attack moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steps {
    /// Largest distance from the image.
    pub eps: f32,
    /// Length of a step.
    pub step: f32,
    /// Their number.
    pub count: usize,
    /// Where the first begins.
    pub start: Start,
}

/// A reference folder, read and checked.
#[derive(Debug)]
pub struct Folder {
    /// The directory.
    pub path: PathBuf,
    /// The host at the images' size, with the folder's classes, head and normalisation.
    pub model: Model,
    /// Its weights.
    pub host: Weights,
    /// Where the folder's tap is.
    pub tap: Option<Tap>,
    /// The autoencoder and its weights.
    pub autoencoder: Option<(Autoencoder, Weights)>,
    /// Number of images.
    pub images: usize,
    /// N x C x H x W pixels in [0, 1].
    pub input: Vec<f32>,
    /// A class an image.
    pub labels: Option<Vec<u32>>,
    /// Attacks by name.
    pub attacks: BTreeMap<Attack, Steps>,
    /// Weights of the autoencoder's losses.
    pub losses: Option<LossWeights>,
    /// What the framework computed, in the order of [`Quantity`].
    pub expected: BTreeMap<Quantity, Vec<f32>>,
    /// What the log should say: repairs of names, tensors of others.
    pub notes: Vec<String>,
}

/// Errors of one folder.
struct Place<'a> {
    json: &'a Path,
    tensors: &'a Path,
}

impl Place<'_> {
    fn settings(&self, reason: String) -> ValidateError {
        ValidateError::Folder { path: self.json.into(), reason }
    }

    fn tensors(&self, reason: String) -> ValidateError {
        ValidateError::Folder { path: self.tensors.into(), reason }
    }
}

impl Folder {
    /// Reads and checks `directory`.
    ///
    /// # Errors
    /// [`ValidateError`] that names the file, the tensor or key, and what to do.
    pub fn read(directory: &Path) -> Result<Folder, ValidateError> {
        let (json, tensors) = (directory.join("reference.json"), directory.join("reference.safetensors"));
        let place = Place { json: &json, tensors: &tensors };
        let text = std::fs::read_to_string(&json).map_err(|e| {
            place.settings(format!(
                "cannot be read: {e}; a reference folder holds reference.json and reference.safetensors"
            ))
        })?;
        let settings: Settings = serde_json::from_str(&text)
            .map_err(|e| place.settings(format!("is no description of a reference: {e}")))?;
        if settings.format != FORMAT {
            return Err(place.settings(format!("has format {}, but {FORMAT} is read", settings.format)));
        }
        let file = TensorFile::open(&tensors)?;

        let mut input = floats(&file, &place, "input")?;
        let (images, size) = match *input.0.dims() {
            [n, c, h, w] if !input.0.is_empty() => (n, [c, h, w]),
            _ => return Err(place.tensors(format!("input is {}, but images x channels x height x width", input.0))),
        };
        let outside = |v: &f32| !(0.0..=1.0).contains(v);
        if let Some(at) = input.1.iter().position(outside) {
            let value = input.1[at];
            return Err(
                place.tensors(format!("input is {value} at element {at}: pixels lie in 0 to 1, before normalisation"))
            );
        }
        let model = model(&settings, size, &place)?;
        let mut notes = Vec::new();
        let host = host(&settings, &file, &model, &place, &mut notes)?;
        let tap = match &settings.tap {
            None => None,
            Some(TapText::Number(n)) => Some(model.tap(&n.to_string())?),
            Some(TapText::Name(name)) => Some(model.tap(name)?),
        };
        let autoencoder = match &tap {
            Some(tap) => autoencoder(&settings, &file, tap, &place)?,
            None => None,
        };
        let labels = labels(&file, images, settings.classes, &place)?;
        let attacks = attacks(&settings, &place)?;
        let mut folder = Folder {
            path: directory.into(),
            model,
            host,
            tap,
            autoencoder,
            images,
            input: std::mem::take(&mut input.1),
            labels,
            attacks,
            losses: settings.losses,
            expected: BTreeMap::new(),
            notes,
        };
        folder.take_expectation(&file, &place)?;
        Ok(folder)
    }

    /// Reads every `expect.*` and checks that what it needs is there.
    fn take_expectation(&mut self, file: &TensorFile, place: &Place<'_>) -> Result<(), ValidateError> {
        const OURS: [&str; 5] = ["weights.", "ae.", "expect.", "input", "label"];
        let left: Vec<&str> = file.names().filter(|name| !OURS.iter().any(|own| name.starts_with(own))).collect();
        if !left.is_empty() {
            self.notes.push(format!("tensors that no reference folder has are left alone: {}", left.join(", ")));
        }
        let mut names = BTreeMap::new();
        for name in file.names().filter_map(|name| name.strip_prefix("expect.")) {
            let quantity = Quantity::named(name).map_err(|nearest| {
                let hint = nearest.map_or(String::new(), |n| format!("; the nearest is expect.{n}"));
                place.tensors(format!("expect.{name} is no expectation that is known{hint}"))
            })?;
            if let Some(twin) = names.insert(quantity, name) {
                return Err(place.tensors(format!("expect.{twin} and expect.{name} are the same; remove one")));
            }
        }
        if names.is_empty() {
            return Err(place.tensors("has no expect.* tensor: there is nothing to check".into()));
        }
        let maps = self.maps(place)?;
        for (quantity, name) in names {
            self.needs(quantity, place)?;
            let (shape, values) = floats(file, place, &format!("expect.{name}"))?;
            let want = self.shape(quantity, maps);
            // whether a dimension of 1 is written is a matter of taste
            let squeezed = |s: &Shape| s.dims().iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
            if squeezed(&shape) != squeezed(&want) {
                return Err(place.tensors(format!("expect.{name} is {shape}, but {want} is what this network gives")));
            }
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                let value = values[at];
                return Err(
                    place.tensors(format!("expect.{name} is {value} at element {at}: nothing can be compared with it"))
                );
            }
            self.expected.insert(quantity, values);
        }
        Ok(())
    }

    /// That the folder has what `quantity` is computed from.
    fn needs(&self, quantity: Quantity, place: &Place<'_>) -> Result<(), ValidateError> {
        let name = quantity.name();
        if quantity == Quantity::Tap && self.tap.is_none() {
            return Err(place.settings(format!("has no \"tap\", which expect.{name} needs")));
        }
        if quantity.needs_autoencoder() && self.autoencoder.is_none() {
            let what = match self.tap {
                None => "\"tap\" in reference.json",
                Some(_) => "autoencoder: tensors ae.<enc1|enc2|code|dec1|dec2>.<weight|bias>, or \"ae_seed\"",
            };
            return Err(place.tensors(format!("expect.{name} needs an autoencoder, but there is no {what}")));
        }
        if let Some(attack) = quantity.attack()
            && !self.attacks.contains_key(&attack)
        {
            let attack = attack.name();
            return Err(place.settings(format!("has no \"attacks\".\"{attack}\", which expect.{name} needs")));
        }
        let weighted = match quantity {
            Quantity::Loss(i) => LOSSES[i] == TOTAL,
            Quantity::AeGradient(_) => true,
            _ => false,
        };
        if weighted && self.losses.is_none() {
            return Err(place.settings(format!("has no \"losses\" (their weights), which expect.{name} needs")));
        }
        let attacked = quantity == Quantity::InputGradient || quantity.attack().is_some();
        let by_label = matches!(quantity, Quantity::GradCam | Quantity::Cam);
        if self.labels.is_none() && (by_label || attacked && self.model.head == Head::Softmax) {
            return Err(place.tensors(format!("expect.{name} needs a class an image, but there is no tensor label")));
        }
        if quantity == Quantity::Cam && self.model.linear_head().is_none() {
            let arch = self.model.arch;
            return Err(
                place.tensors(format!("expect.{name} needs one linear layer behind a global average; {arch} has more"))
            );
        }
        Ok(())
    }

    /// The shape of the maps that CAM and Grad-CAM weigh.
    fn maps(&self, place: &Place<'_>) -> Result<[usize; 2], ValidateError> {
        let small = |e| place.tensors(format!("its images do not fit {}: {e}", self.model.arch));
        let mut graph = Graph::new();
        let x = graph.input("x", self.model.input);
        let x = self.model.normalise(&mut graph, x).map_err(small)?;
        let at = explain::maps(&self.model, &mut graph, x, 0).map_err(small)?;
        match *graph.node(at.maps).shape.dims() {
            [_, h, w] => Ok([h, w]),
            _ => Err(place.tensors(format!("{} has no maps", self.model.arch))),
        }
    }

    /// The shape that `quantity` has for this network and these images.
    fn shape(&self, quantity: Quantity, [h, w]: [usize; 2]) -> Shape {
        let (n, classes) = (self.images, self.model.classes);
        let input = Shape::from(self.model.input).with_rows(n);
        let tap = self.tap.as_ref().map_or([0; 3], |t| t.shape);
        let nodes = self.autoencoder.as_ref().map_or(0, |(ae, _)| ae.nodes);
        match quantity {
            Quantity::Tap | Quantity::Decoded => Shape::from(tap).with_rows(n),
            Quantity::Code => Shape::from([n, nodes, tap[1], tap[2]]),
            Quantity::Logits | Quantity::Orig | Quantity::Idle => Shape::from([n, classes]),
            Quantity::Done | Quantity::Effect => Shape::from([nodes, n, classes]),
            Quantity::Ece => Shape::from([nodes, n]),
            Quantity::InputGradient | Quantity::Attacked(_) => input,
            Quantity::Path(attack) => input.with_rows(self.attacks.get(&attack).map_or(0, |a| a.count + 1)),
            Quantity::AttackLoss(_) => Shape::from([n]),
            Quantity::GradCam | Quantity::Cam => Shape::from([n, h, w]),
            Quantity::Loss(_) => Shape::from([1]),
            Quantity::AeGradient(i) => {
                let parameters = self.autoencoder.as_ref().map(|(ae, _)| ae.parameters()).unwrap_or_default();
                parameters.into_iter().nth(i).map_or(Shape::from([0]), |(_, shape)| shape)
            }
        }
    }
}

/// A float tensor that has to be there.
fn floats(file: &TensorFile, place: &Place<'_>, name: &str) -> Result<(Shape, Vec<f32>), ValidateError> {
    let shape = file.shape(name).ok_or_else(|| place.tensors(format!("has no tensor {name}")))?.clone();
    match file.elements(name)? {
        Some(Elements::F32(values)) => Ok((shape, values.into_owned())),
        _ => Err(place.tensors(format!("{name} is not of type F32; save it with `.float()`"))),
    }
}

/// The named network for images of `size`.
fn model(settings: &Settings, size: [usize; 3], place: &Place<'_>) -> Result<Model, ValidateError> {
    let mut model = Model::named(&settings.arch)?;
    if size[0] != model.input[0] {
        let (got, takes, arch) = (size[0], model.input[0], model.arch);
        return Err(place.tensors(format!("input has {got} channels, but {arch} takes {takes}")));
    }
    const HEADS: [&str; 2] = ["softmax", "sigmoid"];
    model.head = match settings.head.as_str() {
        "softmax" => Head::Softmax,
        "sigmoid" => Head::Sigmoid,
        other => {
            let nearest = closest(other, &HEADS);
            return Err(
                place.settings(format!("has head \"{other}\"; there are {} (nearest: {nearest})", HEADS.join(", ")))
            );
        }
    };
    if settings.classes == 0 {
        return Err(place.settings("has 0 classes; at least one is needed".into()));
    }
    model.input = size;
    model.classes = settings.classes;
    if let Some(Layer::Linear { features }) = model.classifier.last_mut().map(|child| &mut child.layer) {
        *features = settings.classes;
    }
    for (name, given, own) in [("mean", &settings.mean, &mut model.mean), ("std", &settings.std, &mut model.std)] {
        let Some(given) = given else { continue };
        let usable = |v: &f32| v.is_finite() && (name == "mean" || *v > 0.0);
        if given.len() != own.len() || !given.iter().all(usable) {
            return Err(place.settings(format!("has {name} {given:?}, but {} usable numbers are needed", own.len())));
        }
        own.clone_from(given);
    }
    Ok(model)
}

/// The host's weights: the folder's tensors, and with a seed what they leave.
fn host(
    settings: &Settings,
    file: &TensorFile,
    model: &Model,
    place: &Place<'_>,
    notes: &mut Vec<String>,
) -> Result<Weights, ValidateError> {
    let expected = model.parameters();
    let mut weights = file.weights("weights.", PrefixIs::Stripped)?;
    notes.extend(names::summary(&weights.repair(&expected)?));
    if let Some(seed) = settings.weights_seed {
        draw_missing(&mut weights, &expected, seed, place)?;
    } else if weights.is_empty() {
        return Err(place.tensors("has no weights.* tensor, and reference.json no \"weights_seed\"".into()));
    }
    weights.check(&expected)?;
    weights.check_finite()?;
    Ok(weights)
}

/// The autoencoder, when the folder has one.
fn autoencoder(
    settings: &Settings,
    file: &TensorFile,
    tap: &Tap,
    place: &Place<'_>,
) -> Result<Option<(Autoencoder, Weights)>, ValidateError> {
    let mut weights = file.weights("ae.", PrefixIs::Kept)?;
    if weights.is_empty() && settings.ae_seed.is_none() {
        return Ok(None);
    }
    let stored = Autoencoder::from_shapes(tap, |name| weights.get(name).map(|t| t.shape));
    let (hidden, nodes) = match (settings.hidden, settings.code_channels, &stored) {
        (Some(hidden), Some(nodes), _) => (hidden, nodes),
        (hidden, nodes, Some(ae)) => (hidden.unwrap_or(ae.hidden), nodes.unwrap_or(ae.nodes)),
        _ => return Err(place.settings("needs \"hidden\" and \"code_channels\", the autoencoder's widths".into())),
    };
    if hidden == 0 || !(1..=64).contains(&nodes) {
        return Err(place.settings(format!("has hidden {hidden} and code_channels {nodes}: at least 1, and 1 to 64")));
    }
    let autoencoder = Autoencoder::at(tap, hidden, nodes);
    let expected = autoencoder.parameters();
    if let Some(seed) = settings.ae_seed {
        draw_missing(&mut weights, &expected, seed, place)?;
    }
    weights.check(&expected)?;
    weights.check_finite()?;
    Ok(Some((autoencoder, weights)))
}

/// Draws every parameter of `expected` that `weights` lacks.
fn draw_missing(
    weights: &mut Weights,
    expected: &[(String, Shape)],
    seed: u64,
    place: &Place<'_>,
) -> Result<(), ValidateError> {
    let norms: BTreeSet<&str> = expected.iter().filter_map(|(key, _)| key.strip_suffix(".running_mean")).collect();
    for (key, shape) in expected {
        if weights.get(key).is_some() {
            continue;
        }
        if shape.len() > DRAWN_MAX {
            return Err(place.settings(format!("asks for {key} of {shape}, more elements than a seed draws")));
        }
        let layer = key.rsplit_once('.').map_or("", |(layer, _)| layer);
        let role = if norms.contains(layer) { Role::Norm } else { Role::Layer };
        weights.insert(key.clone(), drawn(seed, key, shape, role));
    }
    Ok(())
}

/// What a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A convolution or a linear layer.
    Layer,
    /// A batch norm.
    Norm,
}

/// A seeded parameter. With u the number of element i in the Philox stream `reference/<key>` (image 0):
/// (2u - 1)·sqrt(6 / fan in) for weights of rank above 1, (2u - 1)·0.1 for a layer's bias, 0.5 + u for a norm's weight and
/// running variance, u - 0.5 for its bias and running mean. In f64 in the order written, rounded once.
pub fn drawn(seed: u64, key: &str, shape: &Shape, role: Role) -> Tensor {
    let stream = Stream::new(seed, &format!("reference/{key}"));
    let fan_in: usize = shape.dims().iter().skip(1).product();
    let bound = (6.0 / fan_in as f64).sqrt();
    let around_one = key.ends_with(".weight") || key.ends_with(".running_var");
    let value = |i: usize| {
        let u = f64::from(stream.uniform(0, i as u32));
        let value = match role {
            _ if shape.rank() > 1 => (2.0 * u - 1.0) * bound,
            Role::Layer => (2.0 * u - 1.0) * 0.1,
            Role::Norm if around_one => 0.5 + u,
            Role::Norm => u - 0.5,
        };
        value as f32
    };
    let mut tensor = Tensor::zeros(shape.clone());
    tensor.data_mut().par_iter_mut().enumerate().for_each(|(i, v)| *v = value(i));
    tensor
}

/// `label`, when the folder has it.
fn labels(
    file: &TensorFile,
    images: usize,
    classes: usize,
    place: &Place<'_>,
) -> Result<Option<Vec<u32>>, ValidateError> {
    let Some(elements) = file.elements("label")? else { return Ok(None) };
    let Elements::I64(labels) = elements else {
        return Err(place.tensors("label is not of type I64; save it with `.long()`".into()));
    };
    if labels.len() != images {
        return Err(place.tensors(format!("there are {} labels for {images} images", labels.len())));
    }
    let label = |(i, &label): (usize, &i64)| {
        let class = u32::try_from(label).ok().filter(|&class| (class as usize) < classes);
        class.ok_or_else(|| {
            place.tensors(format!("label {label} at position {i} is none of the {classes} classes, from 0"))
        })
    };
    labels.iter().enumerate().map(label).collect::<Result<_, _>>().map(Some)
}

/// The attacks whose names are known.
fn attacks(settings: &Settings, place: &Place<'_>) -> Result<BTreeMap<Attack, Steps>, ValidateError> {
    let names = Attack::ALL.map(Attack::name);
    let mut attacks = BTreeMap::new();
    for (name, given) in &settings.attacks {
        let Some(attack) = Attack::ALL.into_iter().find(|a| a.name() == name) else {
            let nearest = closest(name, &names);
            return Err(place
                .settings(format!("has an attack \"{name}\"; known are {} (nearest: {nearest})", names.join(", "))));
        };
        let bad = |reason: String| place.settings(format!("has an attack {name} with {reason}"));
        let (step, count) = match attack {
            Attack::Fgsm => (given.eps, 1),
            Attack::Bim | Attack::Pgd => (
                given.step.ok_or_else(|| bad("no \"step\"".into()))?,
                given.steps.ok_or_else(|| bad("no \"steps\"".into()))?,
            ),
        };
        for (what, value) in [("eps", given.eps), ("step", step)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(bad(format!("{what} {value}: pixels lie in 0 to 1")));
            }
        }
        if !(1..=STEPS_MAX).contains(&count) {
            return Err(bad(format!("{count} steps; 1 to {STEPS_MAX} are taken")));
        }
        let random = attack == Attack::Pgd && given.random_start.unwrap_or(true);
        let start = if random { Start::Random } else { Start::Image };
        attacks.insert(attack, Steps { eps: given.eps as f32, step: step as f32, count, start });
    }
    Ok(attacks)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `reference.py philox` prints.
    #[test]
    fn drawn_weights_have_the_bits_that_python_draws() {
        let seed = (7 << 32) + 5;
        let cases: [(&str, &[usize], Role, [u32; 3]); 5] = [
            ("features.0.weight", &[64, 3, 3, 3], Role::Layer, [0xbe56167e, 0xbdbf0526, 0x3edeee91]),
            ("features.0.bias", &[64], Role::Layer, [0xbd073146, 0x3af5d666, 0xbcafc346]),
            ("features.norm0.weight", &[64], Role::Norm, [0x3f73ef5e, 0x3fa7b251, 0x3f2ba751]),
            ("features.norm0.running_mean", &[64], Role::Norm, [0xbed0dd94, 0x3e704298, 0x3b116800]),
            ("ae.code.weight", &[4, 8, 1, 1], Role::Layer, [0xbf49703e, 0xbec4ad18, 0x3f49615b]),
        ];
        for (key, shape, role, bits) in cases {
            let data = drawn(seed, key, &Shape::from(shape), role).into_data();
            assert_eq!([data[0], data[1], data[data.len() - 1]].map(f32::to_bits), bits, "{key}");
        }
    }
}
