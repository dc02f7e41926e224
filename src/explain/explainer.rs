//! A network on a device, ready to be asked for maps: one program with what each method runs, and the attacks that maps are
//! compared under, all on the same weights. Called by the verb `map`.
//!
//! Rows are images, or an image with something changed (a node or channel zeroed, a patch, a square of the code); they go in
//! batches, and no map depends on which. What a map needs of the device are answers; sums over channels and places are made
//! on the host in f64.

use super::cam::{ablation_weights, one_hot};
use super::causal::{Blocks, weighted};
use super::method::{Method, Settings, Sign, drops, level};
use super::program::{Host, Inserted, Job, Nodes, build};
use super::{ExplainError, Map};
use crate::answer::widen;
use crate::attack::Victim;
use crate::attack::victim as attack;
use crate::backend::{Backend, BackendError, Completed, Parameters, Program, load_fitting, takes_images};
use crate::graph::NodeId;
use crate::graph::plan::{EntryId, Footprint};
use crate::model::autoencoder::{Autoencoder, Lists};
use crate::model::{Head, Model, Tap};
use crate::tensor::{Shape, TensorMut, TensorRef};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What is to be explained.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The host.
    pub model: &'a Model,
    /// The autoencoder that causal maps put in, and where.
    pub inserted: Option<(&'a Tap, &'a Autoencoder)>,
    /// Weights of both.
    pub weights: &'a dyn Parameters,
}

/// Maps of one image, one for each class asked for.
pub type OfClasses = Vec<Map>;

/// Most images of a batch: more gain nothing, and what is read back of them is held in memory.
const ROWS_MAX: usize = 64;

/// A network ready to be asked.
pub struct Explainer {
    program: Box<dyn Program>,
    nodes: Nodes,
    settings: Settings,
    head: Head,
    classes: usize,
    input: [usize; 3],
    rows: usize,
    stop: Option<Arc<AtomicBool>>,
}

impl Explainer {
    /// Loads what `methods` run. `rows` images a batch, or as many as the device likes; fewer where it has no memory for them.
    /// Results do not depend on it.
    ///
    /// # Errors
    /// [`ExplainError`]: a method that this network does not have, or a device that cannot hold it.
    pub fn new(
        subject: Subject<'_>,
        methods: &[Method],
        settings: Settings,
        rows: Option<usize>,
        backend: &dyn Backend,
    ) -> Result<Explainer, ExplainError> {
        let Subject { model, weights, .. } = subject;
        let (graph, nodes) = build(subject, methods)?;
        let plan = |rows| nodes.plan(&graph, rows);
        let rows = match rows {
            Some(rows) => rows.max(1),
            None => backend.batch_rows(Footprint::of(plan)?).min(ROWS_MAX),
        };
        let constants = model.constants();
        let weights = Completed { weights, derived: &constants };
        let (mut program, rows) = load_fitting::<ExplainError>(backend, &weights, rows, plan)?;
        nodes.attack.prepare(&mut *program)?;
        let all_lists = [(Job::Ablate, Some(nodes.host.lists)), (Job::Do, nodes.inserted.map(|i| i.lists))];
        for (job, lists) in all_lists {
            let loaded = nodes.pieces.iter().any(|piece| piece.job == job);
            if let (true, Some(lists)) = (loaded, lists) {
                let channels = graph.node(lists.keep).shape.dims().last().copied().unwrap_or(1);
                let keep = |i: usize| if i / channels == i % channels + 1 { 0.0 } else { 1.0 };
                let table: Vec<f32> = (0..(channels + 1) * channels).map(keep).collect();
                program.write(lists.keep, TensorRef::F32(&table))?;
            }
        }
        let (head, classes, input) = (model.head, model.classes, model.input);
        Ok(Explainer { program, nodes, settings, head, classes, input, rows, stop: None })
    }

    /// Images of a batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Checks that it takes images of that shape.
    ///
    /// # Errors
    /// [`BackendError::Transfer`] with both shapes.
    pub fn takes(&self, shape: &Shape) -> Result<(), BackendError> {
        takes_images(&*self.program, self.nodes.x, shape)
    }

    /// The host alone, to attack it or to ask it.
    pub fn victim(&mut self) -> Victim<'_> {
        Victim::new(&mut *self.program, &self.nodes.attack, 0, self.rows).until(self.stop.clone())
    }

    /// Attacks end early once `stop` is set: [`Victim::until`].
    pub fn stop_by(&mut self, stop: Arc<AtomicBool>) {
        self.stop = Some(stop);
    }

    /// Probabilities of the host: images x classes.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn probabilities(&mut self, x: &[f32]) -> Result<Vec<f64>, ExplainError> {
        let logits = self.victim().forward(x)?;
        Ok(logits.chunks_exact(self.classes.max(1)).flat_map(|row| self.head.probabilities(row)).collect())
    }

    /// Maps of images `x` (images x C·H·W pixels in [0, 1]) by `method`, one for each of an image's `classes`. Each is as fine
    /// as the method makes it: the maps A, the code, or the image.
    ///
    /// # Errors
    /// [`ExplainError::NotLoaded`], [`ExplainError::Class`], or the device's.
    pub fn maps(&mut self, method: Method, x: &[f32], classes: &[Vec<u32>]) -> Result<Vec<OfClasses>, ExplainError> {
        let pixels: usize = self.input.iter().product();
        let images = attack::images(x, pixels)?;
        if classes.len() != images {
            return Err(ExplainError::Classes { lists: classes.len(), images });
        }
        if let Some(&class) = classes.iter().flatten().find(|&&class| class as usize >= self.classes) {
            return Err(ExplainError::Class { class, classes: self.classes });
        }
        let mut all = Vec::with_capacity(images);
        for (x, classes) in x.chunks(self.rows * pixels).zip(classes.chunks(self.rows)) {
            all.extend(match method {
                Method::Cam => self.seeded(Job::Cam, method, x, classes)?,
                Method::GradCam => self.seeded(Job::GradCam, method, x, classes)?,
                Method::AblationCam => self.ablation(x, classes)?,
                Method::Cem => self.cem(x, classes)?,
                Method::CemCells => self.cells(x, classes)?,
                Method::Occlusion | Method::CemOcclusion => self.occlusion(method, x, classes)?,
            });
        }
        Ok(all)
    }

    fn shape(&self, node: NodeId) -> [usize; 3] {
        let dims = self.program.artifact().graph().node(node).shape.dims();
        [0, 1, 2].map(|i| dims.get(i).copied().unwrap_or(1))
    }

    fn read(&mut self, node: NodeId, rows: usize) -> Result<Vec<f32>, ExplainError> {
        let mut values = vec![0.0; rows * self.program.artifact().graph().node(node).shape.len()];
        self.program.read(node, TensorMut::F32(&mut values))?;
        Ok(values)
    }

    /// Runs an entry on pixels; number of images.
    fn enter(&mut self, job: Job, method: Method, x: &[f32]) -> Result<usize, ExplainError> {
        let rows = x.len() / self.input.iter().product::<usize>().max(1);
        let entry = self.nodes.entry(job, method)?;
        self.program.write(self.nodes.x, TensorRef::F32(x))?;
        self.program.run(entry, rows)?;
        Ok(rows)
    }

    fn inserted(&self, method: Method) -> Result<Inserted, ExplainError> {
        self.nodes.inserted.ok_or(ExplainError::NoAutoencoder { method: method.name() })
    }

    /// CAM or Grad-CAM: the front once, then a run for each class that some image wants.
    fn seeded(
        &mut self,
        job: Job,
        method: Method,
        x: &[f32],
        classes: &[Vec<u32>],
    ) -> Result<Vec<OfClasses>, ExplainError> {
        let rows = self.enter(Job::Maps, method, x)?;
        let node = match job {
            Job::Cam => self.nodes.host.cam.ok_or(ExplainError::NotLoaded { method: method.name() })?,
            _ => self.nodes.host.grad_cam,
        };
        let entry = self.nodes.entry(job, method)?;
        let [_, height, width] = self.shape(node);
        let mut all: Vec<OfClasses> = vec![Vec::new(); rows];
        for k in 0..classes.iter().map(Vec::len).max().unwrap_or(0) {
            // an image whose list has ended runs along for nothing
            let labels: Vec<u32> = classes.iter().map(|list| list.get(k).copied().unwrap_or(0)).collect();
            let seeds = one_hot(&labels, self.classes);
            self.program.write(self.nodes.host.seed, TensorRef::F32(&seeds))?;
            self.program.run(entry, rows)?;
            let values = self.read(node, rows)?;
            for ((values, list), maps) in values.chunks_exact(height * width).zip(classes).zip(&mut all) {
                if k < list.len() {
                    let map = Map::new(height, width, values.to_vec())?;
                    let cut = method == Method::GradCam && self.settings.sign == Sign::Published;
                    maps.push(if cut { map.positive_part() } else { map });
                }
            }
        }
        Ok(all)
    }

    /// Logits of the variants (image, set) of what was entered, `classes` each.
    fn variants(
        &mut self,
        entry: EntryId,
        lists: Lists,
        logits: NodeId,
        variants: &[(u32, u32)],
    ) -> Result<Vec<f64>, ExplainError> {
        let mut all = Vec::with_capacity(variants.len() * self.classes);
        for batch in variants.chunks(self.rows) {
            let (images, sets): (Vec<u32>, Vec<u32>) = batch.iter().copied().unzip();
            self.program.write(lists.images, TensorRef::U32(&images))?;
            self.program.write(lists.sets, TensorRef::U32(&sets))?;
            self.program.run(entry, batch.len())?;
            all.extend(widen(&self.read(logits, batch.len())?));
        }
        Ok(all)
    }

    /// What zeroing each channel of `maps` (rows x channels x cells) loses of every answer: of each image and channel that is
    /// not zero already a row of drops, and the logits with all channels.
    fn without_each(
        &mut self,
        (entry, lists, logits): (EntryId, Lists, NodeId),
        maps: &[f32],
        [channels, height, width]: [usize; 3],
        method: Method,
    ) -> Result<Vec<Loss>, ExplainError> {
        let cells = height * width;
        // a NaN is not 0: it must be seen
        let live: Vec<bool> = maps.chunks_exact(cells).map(|channel| channel.iter().any(|&v| v != 0.0)).collect();
        let mut variants = Vec::new();
        for (image, live) in live.chunks_exact(channels).enumerate() {
            variants.push((image as u32, 0));
            let sets = (0..channels).filter(|&k| live[k]);
            variants.extend(sets.map(|k| (image as u32, k as u32 + 1)));
        }
        let answered = self.variants(entry, lists, logits, &variants)?;
        let answer = self.settings.answer(method);
        let mut losses: Vec<Loss> = Vec::new();
        for (&(_, set), row) in variants.iter().zip(answered.chunks_exact(self.classes)) {
            match (set as usize, losses.last_mut()) {
                (0, _) | (_, None) => losses.push(Loss { idle: row.to_vec(), drops: vec![Vec::new(); channels] }),
                (k, Some(loss)) => loss.drops[k - 1] = drops(answer, self.head, &loss.idle, row),
            }
        }
        Ok(losses)
    }

    fn ablation(&mut self, x: &[f32], classes: &[Vec<u32>]) -> Result<Vec<OfClasses>, ExplainError> {
        let method = Method::AblationCam;
        let Host { maps: node, lists, ablated, .. } = self.nodes.host;
        let entry = self.nodes.entry(Job::Ablate, method)?;
        let rows = self.enter(Job::Maps, method, x)?;
        let maps = self.read(node, rows)?;
        let shape = self.shape(node);
        let losses = self.without_each((entry, lists, ablated), &maps, shape, method)?;
        let (sign, answer) = (self.settings.sign, self.settings.answer(method));
        let one = |(maps, loss): (&[f32], &Loss), class: u32| {
            let whole = level(answer, self.head, &loss.idle, class);
            let weights = ablation_weights(sign, whole, &loss.of(class));
            let map = weighted(maps, &weights, (shape[1], shape[2]))?;
            Ok(if sign == Sign::Published { map.positive_part() } else { map })
        };
        each_class(maps.chunks_exact(shape.iter().product()).zip(&losses), classes, one)
    }

    fn cem(&mut self, x: &[f32], classes: &[Vec<u32>]) -> Result<Vec<OfClasses>, ExplainError> {
        let method = Method::Cem;
        let Inserted { code: node, lists, done, .. } = self.inserted(method)?;
        let entry = self.nodes.entry(Job::Do, method)?;
        let rows = self.enter(Job::Code, method, x)?;
        let code = self.read(node, rows)?;
        let shape = self.shape(node);
        let losses = self.without_each((entry, lists, done), &code, shape, method)?;
        let one = |(code, loss): (&[f32], &Loss), class: u32| weighted(code, &loss.of(class), (shape[1], shape[2]));
        each_class(code.chunks_exact(shape.iter().product()).zip(&losses), classes, one)
    }

    fn cells(&mut self, x: &[f32], classes: &[Vec<u32>]) -> Result<Vec<OfClasses>, ExplainError> {
        let method = Method::CemCells;
        let Inserted { code: node, changed, answered, .. } = self.inserted(method)?;
        let entry = self.nodes.entry(Job::Decode, method)?;
        let rows = self.enter(Job::Code, method, x)?;
        let codes = self.read(node, rows)?;
        let [channels, height, width] = self.shape(node);
        let blocks = Blocks { side: self.settings.cells.max(1), height, width };
        let mut all = Vec::with_capacity(rows);
        for code in codes.chunks_exact(channels * height * width) {
            // the code as it is first
            let row = |which: usize| {
                let mut row = code.to_vec();
                which.checked_sub(1).into_iter().for_each(|square| blocks.clear(&mut row, square));
                row
            };
            let mut logits = Vec::new();
            for first in (0..=blocks.count()).step_by(self.rows) {
                let batch = first..(first + self.rows).min(blocks.count() + 1);
                let rows: Vec<f32> = batch.clone().flat_map(row).collect();
                self.program.write(changed, TensorRef::F32(&rows))?;
                self.program.run(entry, batch.len())?;
                logits.extend(widen(&self.read(answered, batch.len())?));
            }
            let (idle, rest) = logits.split_at(self.classes);
            all.push(self.lost(method, idle, rest));
        }
        each_class(all.iter(), classes, |loss, class| blocks.map(&loss.of(class)))
    }

    fn occlusion(&mut self, method: Method, x: &[f32], classes: &[Vec<u32>]) -> Result<Vec<OfClasses>, ExplainError> {
        let [_, height, width] = self.input;
        let (patch, size) = (self.settings.patch, (height, width));
        let places = patch.places(height, width)?;
        let mut all = Vec::new();
        for image in x.chunks_exact(self.input.iter().product()) {
            let mut logits = self.asked(method, image)?;
            for batch in places.chunks(self.rows) {
                let mut covered = Vec::with_capacity(batch.len() * image.len());
                for &place in batch {
                    let from = covered.len();
                    covered.extend_from_slice(image);
                    patch.cover(&mut covered[from..], size, place);
                }
                logits.extend(self.asked(method, &covered)?);
            }
            let (idle, rest) = logits.split_at(self.classes);
            all.push(self.lost(method, idle, rest));
        }
        each_class(all.iter(), classes, |loss, class| patch.map(size, &loss.of(class)))
    }

    /// Logits of images by the net that `method` asks: the host, or with the autoencoder in it.
    fn asked(&mut self, method: Method, x: &[f32]) -> Result<Vec<f64>, ExplainError> {
        if !method.inserts() {
            return Ok(widen(&self.victim().forward(x)?));
        }
        let rows = self.enter(Job::Idle, method, x)?;
        let idle = self.inserted(method)?.idle;
        Ok(widen(&self.read(idle, rows)?))
    }

    /// What each row of logits lost against `idle`.
    fn lost(&self, method: Method, idle: &[f64], rows: &[f64]) -> Loss {
        let answer = self.settings.answer(method);
        let drops = rows.chunks_exact(self.classes).map(|row| drops(answer, self.head, idle, row)).collect();
        Loss { idle: idle.to_vec(), drops }
    }
}

/// What an image's answers lose under each of some changes.
struct Loss {
    /// Logits without a change.
    idle: Vec<f64>,
    /// Of each change a number a class; empty where nothing was changed, and so nothing lost.
    drops: Vec<Vec<f64>>,
}

impl Loss {
    fn of(&self, class: u32) -> Vec<f64> {
        self.drops.iter().map(|drops| drops.get(class as usize).copied().unwrap_or(0.0)).collect()
    }
}

/// The map that `one` makes of each image for each of its classes.
fn each_class<T: Copy>(
    images: impl Iterator<Item = T>,
    classes: &[Vec<u32>],
    one: impl Fn(T, u32) -> Result<Map, ExplainError>,
) -> Result<Vec<OfClasses>, ExplainError> {
    images.zip(classes).map(|(image, list)| list.iter().map(|&class| one(image, class)).collect()).collect()
}
