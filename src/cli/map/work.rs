//! A run of maps, block by block: images under every input, their maps as files and pictures, and what is said of each.
//! A run that goes on reads the maps that are there.

use super::told::{Collected, Done, Pointed};
use super::{Class, Config, Network};
use crate::atomic::write_atomic;
use crate::attack::AttackError;
use crate::attack::method::Images;
use crate::backend::{Layered, Parameters};
use crate::causal::perturbation::Perturbation;
use crate::causal::study::{Input, StudyError};
use crate::cli::common::Context;
use crate::cli::study::input_names;
use crate::data::{Dataset, Labels as Kind};
use crate::error::Error;
use crate::explain::faithfulness::{self, Course, area, course, masked};
use crate::explain::localisation::{Place, THRESHOLDS, overlap, points_into};
use crate::explain::render::{Panel, Scale, figure};
use crate::explain::stability::Measure;
use crate::explain::{ExplainError, Explainer, Flag, Map, Method, Sign, Subject, npy};
use crate::report::maps::{self, Labels, MapRow};
use crate::report::page::{self, PAGE};
use crate::report::run::{Manifest, RunDirectory};
use crate::tensor::argmax;
use rayon::prelude::*;
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How and where a run goes.
pub struct Run {
    /// Rows of the device's batches; as many as it likes where none are given.
    pub rows: Option<usize>,
    /// Where it goes.
    pub directory: RunDirectory,
    /// Its manifest so far.
    pub manifest: Manifest,
    /// What the images are called in tables.
    pub part: &'static str,
    /// What to know before believing its numbers.
    pub warnings: Vec<String>,
}

/// Images a block: after each a stopped run is resumed.
const BLOCK: usize = 32;
/// Directory of maps below the run's.
const MAPS: &str = "maps";
/// What the clean input is called in files.
const NONE: &str = "none";

/// A block's images under one input.
struct Under {
    input: Input,
    /// What it is called beside the other inputs.
    name: String,
    /// Images x C·H·W.
    pixels: Vec<f32>,
    /// The host's: images x classes.
    probabilities: Vec<f64>,
}

/// The maps of a block by one method: of each input, image and class.
type OfInputs = Vec<Vec<Vec<Map>>>;

/// A run under way.
struct Work<'a> {
    config: &'a Config,
    network: &'a Network,
    class: Class,
    data: &'a Dataset,
    directory: &'a RunDirectory,
    explainer: Explainer,
}

/// Runs it all and writes the tables.
///
/// # Errors
/// [`Error::Interrupted`] with what to resume, or what went wrong.
pub fn execute(
    context: &Context,
    config: &Config,
    network: &Network,
    class: Class,
    data: &Dataset,
    run: Run,
) -> Result<Done, Error> {
    let Run { rows, directory, mut manifest, part, mut warnings } = run;
    let started = Instant::now();
    let sources: Vec<&dyn Parameters> = match &network.inserted {
        Some((.., ae)) => vec![&network.host, ae],
        None => vec![&network.host],
    };
    let weights = Layered(&sources);
    let inserted = network.inserted.as_ref().map(|(tap, autoencoder, _)| (tap, autoencoder));
    let subject = Subject { model: &network.model, inserted, weights: &weights };
    let mut explainer = Explainer::new(subject, &config.methods, config.settings, rows, context.backend())?;
    explainer.stop_by(context.stop.clone());
    explainer.takes(data.shape())?;
    for method in &config.methods {
        let path = directory.path(MAPS).join(method.name());
        std::fs::create_dir_all(&path)
            .map_err(|e| Error::Failed(format!("{}: cannot create it: {e}", path.display())))?;
    }
    let all: Vec<u32> = (0..data.len() as u32).collect();
    data.announce(&all);
    let mut work = Work { config, network, class, data, directory: &directory, explainer };
    let mut collected = Collected::new(config);
    let mut bar = context.ui.progress("images", data.len() as u64);
    for block in all.chunks(BLOCK) {
        if context.stopped() {
            bar.finish();
            return Err(Error::Interrupted { resume: directory.finished_path().into() });
        }
        work.block(block, &mut collected).inspect_err(|_| bar.finish())?;
        bar.set(collected.images as u64);
    }
    bar.finish();
    drop(work);
    manifest.timing.insert("maps_seconds".into(), json!(started.elapsed().as_secs_f64()));

    let started = Instant::now();
    let mut done = Done::of(config, network, collected, manifest.simulated)?;
    let labels = Labels { run_id: manifest.run_id.clone(), arch: network.model.arch.into(), split: part.into() };
    maps::maps(&directory.path("maps.csv"), &done.maps, &labels)?;
    if !done.stability.is_empty() {
        maps::stability(&directory.path("stability.csv"), &done.stability, &labels)?;
    }
    if !done.faithfulness.is_empty() {
        maps::faithfulness(&directory.path("faithfulness.csv"), &done.faithfulness, &labels)?;
    }
    if !done.pointing.is_empty() {
        maps::pointing(&directory.path("pointing.csv"), &done.pointing, &labels)?;
    }
    manifest.timing.insert("tables_seconds".into(), json!(started.elapsed().as_secs_f64()));
    let patients: HashSet<&str> = (0..data.len()).filter_map(|i| data.patient(i)).collect();
    if (1..data.len()).contains(&patients.len()) {
        let (images, patients) = (data.len(), patients.len());
        warnings.push(format!(
            "{images} images of {patients} patients: intervals take images as independent, and are too narrow"
        ));
    }
    done.warnings.splice(0..0, warnings);
    manifest.warnings = done.warnings.clone();
    manifest.results = done.results();
    done.run_id = manifest.run_id.clone();
    if let Some(claim) = done.claim() {
        claim.write(&directory.path(""))?;
    }
    directory.write_manifest(&manifest)?;
    page::write(&directory.path(""), &directory.path(PAGE))?;
    done.directory = directory.finish(&manifest)?;
    Ok(done)
}

impl Work<'_> {
    /// Everything about the images at positions `which`.
    fn block(&mut self, which: &[u32], collected: &mut Collected) -> Result<(), Error> {
        let under = self.inputs(which)?;
        let classes = self.classes(which, &under[0])?;
        let methods = self.config.methods.clone();
        for (m, &method) in methods.iter().enumerate() {
            let maps = self.maps(method, which, &under, &classes)?;
            self.rows(method, which, &under, &classes, &maps, collected)?;
            self.pictures(method, which, &under, &classes, &maps)?;
            let fine = self.at_image_size(&maps)?;
            changes(&fine, &mut collected.changes[m])?;
            if self.config.curves > 0 {
                self.curves(&under[0], &classes, &fine[0], &mut collected.curves[m])?;
            }
            self.boxes(method, which, &under[0], &mut collected.pointed[m])?;
        }
        collected.images += which.len();
        Ok(())
    }

    fn pixels(&self) -> usize {
        self.network.model.input.iter().product()
    }

    /// The images under every input, the clean one first.
    fn inputs(&mut self, which: &[u32]) -> Result<Vec<Under>, Error> {
        let (head, classes) = (self.network.model.head, self.network.model.classes);
        let pixels = self.data.pixels(which)?;
        let logits = self.explainer.victim().forward(&pixels)?;
        let ids: Vec<u64> = which.iter().filter_map(|&i| self.data.ids().get(i as usize).copied()).collect();
        let perturbation =
            Perturbation { data: self.data, head, classes, attack_label: self.config.attack_label, file: None };
        let targets = match self.config.inputs.is_empty() {
            true => None,
            false => Some(perturbation.targets(which, &logits)?),
        };
        let of = |logits: &[f32]| logits.chunks_exact(classes).flat_map(|row| head.probabilities(row)).collect();
        let clean = Under { input: Input::None, name: NONE.into(), probabilities: of(&logits), pixels: Vec::new() };
        let mut all = vec![clean];
        for (&input, name) in self.config.inputs.iter().zip(input_names(&self.config.inputs)) {
            let Some(targets) = &targets else { continue };
            let clean = Images { pixels: &pixels, ids: &ids, seed: self.config.seed };
            let (x, _) = perturbation.apply(&mut self.explainer.victim(), (input, 0), which, clean, targets).map_err(
                |e| match e {
                    StudyError::Attack(AttackError::Stopped) => {
                        Error::Interrupted { resume: self.directory.finished_path().into() }
                    }
                    e => e.into(),
                },
            )?;
            let probabilities = self.explainer.probabilities(&x)?;
            all.push(Under { input, name, probabilities, pixels: x });
        }
        all[0].pixels = pixels;
        Ok(all)
    }

    /// The classes to explain of each image.
    fn classes(&self, which: &[u32], clean: &Under) -> Result<Vec<Vec<u32>>, Error> {
        let classes = self.network.model.classes;
        Ok(match self.class {
            Class::All => vec![(0..classes as u32).collect(); which.len()],
            Class::Number(class) => vec![vec![class]; which.len()],
            Class::Label => {
                let labels = self.data.labels_of(which, "a map of the label's class")?;
                labels.into_iter().map(|label| vec![label]).collect()
            }
            // without a prediction (NaN) the map of any class is no number
            Class::Predicted => {
                let rows = clean.probabilities.chunks_exact(classes);
                rows.map(|row| vec![argmax(row).unwrap_or(0) as u32]).collect()
            }
        })
    }

    /// Where a map lies below the run's directory: `maps/cem/17-fgsm-8-255.npy`; the picture of an image's maps is `maps/cem/17.png`.
    fn file(&self, method: Method, image: u32, input: Option<&str>, class: u32) -> String {
        let id = self.data.ids().get(image as usize).copied().unwrap_or_default();
        let class = if self.class == Class::All { format!("-c{class}") } else { String::new() };
        let end = input.map_or(".png".into(), |name| format!("-{}.npy", name.replace([' ', '/'], "-")));
        format!("{MAPS}/{}/{id}{class}{end}", method.name())
    }

    /// The maps of a block: read where all are there, else made and written.
    fn maps(
        &mut self,
        method: Method,
        which: &[u32],
        under: &[Under],
        classes: &[Vec<u32>],
    ) -> Result<OfInputs, Error> {
        let mut all = Vec::with_capacity(under.len());
        for under in under {
            let path =
                |image: u32, class: u32| self.directory.path(&self.file(method, image, Some(&under.name), class));
            let paths: Vec<Vec<PathBuf>> =
                which.iter().zip(classes).map(|(&i, list)| list.iter().map(|&c| path(i, c)).collect()).collect();
            if paths.iter().flatten().all(|path| path.exists()) {
                let read = |paths: &Vec<PathBuf>| paths.iter().map(|path| read_map(path)).collect();
                all.push(paths.iter().map(read).collect::<Result<Vec<Vec<Map>>, Error>>()?);
                continue;
            }
            let maps = self.explainer.maps(method, &under.pixels, classes)?;
            for (path, map) in paths.iter().flatten().zip(maps.iter().flatten()) {
                let bytes = npy::write(map);
                write_atomic(path, |file| file.write_all(&bytes))?;
            }
            all.push(maps);
        }
        Ok(all)
    }

    fn rows(
        &self,
        method: Method,
        which: &[u32],
        under: &[Under],
        classes: &[Vec<u32>],
        maps: &OfInputs,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        let count = self.network.model.classes;
        for (i, &image) in which.iter().enumerate() {
            for (under, maps) in under.iter().zip(maps) {
                let row = &under.probabilities[i * count..(i + 1) * count];
                for (&class, map) in classes[i].iter().zip(&maps[i]) {
                    let (size, range, flag) = MapRow::about(map);
                    collected.maps.push(MapRow {
                        image: self.data.ids().get(image as usize).copied().unwrap_or_default(),
                        label: self.data.label(image as usize),
                        method,
                        input: under.input,
                        class,
                        predicted: argmax(row),
                        probability: row.get(class as usize).copied().unwrap_or(f64::NAN),
                        size,
                        range,
                        flag,
                        file: self.file(method, image, Some(&under.name), class),
                    });
                }
            }
        }
        Ok(())
    }

    /// One picture an image and class: the image and its map under every input, on one scale.
    fn pictures(
        &self,
        method: Method,
        which: &[u32],
        under: &[Under],
        classes: &[Vec<u32>],
        maps: &OfInputs,
    ) -> Result<(), Error> {
        let (count, pixels, shape) = (self.network.model.classes, self.pixels(), self.network.model.input);
        let names = self.data.classes();
        for (i, &image) in which.iter().enumerate().filter(|(_, image)| (**image as usize) < self.config.pictures) {
            for (k, &class) in classes[i].iter().enumerate() {
                let panel = |(under, maps): (&Under, &Vec<Vec<Map>>)| -> (String, Option<f64>, Vec<f32>, Map) {
                    let label = if under.input == Input::None { "clean".into() } else { under.name.clone() };
                    let probability = under.probabilities.get(i * count + class as usize).copied();
                    let image = under.pixels[i * pixels..(i + 1) * pixels].to_vec();
                    let map = maps[i][k].clone();
                    let cut = method.has_published_cut() && self.config.drawn == Sign::Published;
                    (label, probability, image, if cut { map.positive_part() } else { map })
                };
                let parts: Vec<_> = under.iter().zip(maps).map(panel).collect();
                let panels: Vec<Panel<'_>> = parts
                    .iter()
                    .map(|(label, probability, image, map)| Panel {
                        label,
                        probability: *probability,
                        image,
                        shape,
                        map,
                    })
                    .collect();
                let name = names.get(class as usize).filter(|_| names.len() == count);
                let title = match name {
                    Some(name) => format!("{}: {name} (class {class})", method.name()),
                    None => format!("{}: class {class}", method.name()),
                };
                let picture = figure(&title, &panels, Scale::shared(parts.iter().map(|part| &part.3)))?;
                let path = self.directory.path(&self.file(method, image, None, class));
                let bytes =
                    picture.png().map_err(|e| Error::Failed(format!("{}: cannot be encoded: {e}", path.display())))?;
                write_atomic(&path, |file| file.write_all(&bytes))?;
            }
        }
        Ok(())
    }

    /// The maps as fine as the images, where methods can be compared and pixels named.
    fn at_image_size(&self, maps: &OfInputs) -> Result<OfInputs, ExplainError> {
        let [_, height, width] = self.network.model.input;
        let image = |maps: &Vec<Map>| maps.iter().map(|map| map.resized(height, width)).collect();
        maps.iter().map(|maps| maps.par_iter().map(image).collect()).collect()
    }

    /// Curves and drops of the clean maps.
    fn curves(
        &mut self,
        clean: &Under,
        classes: &[Vec<u32>],
        maps: &[Vec<Map>],
        into: &mut [Vec<Option<f64>>; 3],
    ) -> Result<(), Error> {
        let (count, pixels) = (self.network.model.classes, self.pixels());
        let (steps, fill) = (self.config.curves, self.config.settings.patch.fill);
        for (i, image) in clean.pixels.chunks_exact(pixels).enumerate() {
            let (Some(&class), Some(map)) = (classes[i].first(), maps[i].first()) else { continue };
            let at = |p: &[f64]| -> Vec<f64> {
                p.chunks_exact(count).map(|row| row.get(class as usize).copied().unwrap_or(f64::NAN)).collect()
            };
            for (course_of, column) in [Course::Deletion, Course::Insertion].into_iter().zip(into.iter_mut()) {
                // a map that is the same everywhere has no order of its own
                let value = match map.flag() {
                    Flag::Ordinary => {
                        let images = course(image, map, course_of, steps, fill)?;
                        let answers = at(&self.explainer.probabilities(&images)?);
                        Some(area(&answers).unwrap_or(f64::NAN))
                    }
                    Flag::NotFinite => Some(f64::NAN),
                    _ => None,
                };
                column.push(value);
            }
            let whole = clean.probabilities[i * count..(i + 1) * count].get(class as usize).copied();
            let value = match masked(image, map)? {
                Some(shown) => {
                    let shown = at(&self.explainer.probabilities(&shown)?);
                    faithfulness::drop(whole.unwrap_or(f64::NAN), shown.first().copied().unwrap_or(f64::NAN))
                }
                None if map.flag() == Flag::NotFinite => Some(f64::NAN),
                None => None,
            };
            into[2].push(value);
        }
        Ok(())
    }

    /// Whether the clean maps of marked findings lie where they are marked.
    fn boxes(&mut self, method: Method, which: &[u32], clean: &Under, into: &mut Pointed) -> Result<(), Error> {
        let [_, height, width] = self.network.model.input;
        let findings =
            matches!(self.data.targets(), Kind::Findings(_)) && self.data.classes().len() == self.network.model.classes;
        if !findings {
            return Ok(());
        }
        let pixels = self.pixels();
        for (&image, x) in which.iter().zip(clean.pixels.chunks_exact(pixels)) {
            let marked = self.data.placed(image as usize)?;
            if marked.is_empty() {
                continue;
            }
            let mut classes: Vec<u32> = marked.iter().map(|m| m.finding as u32).collect();
            classes.sort_unstable();
            classes.dedup();
            let maps = self.explainer.maps(method, x, std::slice::from_ref(&classes))?;
            for marked in &marked {
                let at = classes.iter().position(|&c| c as usize == marked.finding);
                let Some(map) = at.and_then(|at| maps.first()?.get(at)) else { continue };
                let map = map.resized(height, width)?;
                let r = marked.place;
                let place = Place { x: r.x, y: r.y, width: r.width, height: r.height };
                into.hits.push(points_into(&map, place)?);
                for (t, &threshold) in THRESHOLDS.iter().enumerate() {
                    let overlap = overlap(&map, place, threshold)?;
                    into.iou[t].push(overlap.map(|o| o.iou));
                    into.iobb[t].push(overlap.map(|o| o.iobb));
                }
            }
        }
        Ok(())
    }
}

/// A map that an earlier run of the same left.
fn read_map(path: &Path) -> Result<Map, Error> {
    let input = |reason: String| Error::Input { path: path.into(), reason: format!("{reason}; remove it and resume") };
    let bytes = std::fs::read(path).map_err(|e| input(format!("cannot be read: {e}")))?;
    npy::read(&bytes).map_err(|e| input(e.to_string()))
}

/// How far each input but the clean one moves each image's maps; of several classes the mean over those that can be compared.
fn changes(maps: &OfInputs, into: &mut [[Vec<Option<f64>>; 3]]) -> Result<(), ExplainError> {
    let Some((clean, others)) = maps.split_first() else { return Ok(()) };
    for (other, into) in others.iter().zip(into) {
        for (measure, column) in Measure::ALL.into_iter().zip(into) {
            let image = |(clean, other): (&Vec<Map>, &Vec<Map>)| -> Result<Option<f64>, ExplainError> {
                let pairs = clean.iter().zip(other);
                let changes: Vec<Option<f64>> =
                    pairs.map(|(clean, other)| measure.change(clean, other)).collect::<Result<_, _>>()?;
                let defined: Vec<f64> = changes.into_iter().flatten().collect();
                Ok((!defined.is_empty()).then(|| defined.iter().sum::<f64>() / defined.len() as f64))
            };
            let values: Vec<Option<f64>> =
                clean.par_iter().zip(other).map(image).collect::<Result<_, ExplainError>>()?;
            column.extend(values);
        }
    }
    Ok(())
}
