//! What a study costs: multiply-adds of its parts, the time of a dry run, the size of a shard.

use super::{Config, Loaded, node_sets, refute};
use crate::attack::Attack;
use crate::backend::Layered;
use crate::causal::shapley::Plan;
use crate::causal::study::{Input, SHARD_IMAGES};
use crate::causal::sweep::{Batch, Logits, Sweep};
use crate::cli::common::{Context, Cost};
use crate::cli::gate;
use crate::cli::inspect;
use crate::detect::adaptive::IMAGES_MAX;
use crate::error::Error;
use crate::model::autoencoder::Autoencoder;
use crate::model::{Model, Tap};
use std::time::Instant;

/// Images whose effects the f64 reference makes again.
const FLOOR_IMAGES: usize = 8;
/// What the f64 reference, which is never fast, does of a study at most (an image and a node at least).
const FLOOR_MACS: f64 = 6e9;
/// Its speed, for estimates.
const REFERENCE_MACS_PER_SECOND: f64 = 2.5e8;

/// Multiply-adds of a study's parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Macs {
    /// To the tap, and the autoencoder.
    front: f64,
    /// Behind the tap.
    tail: f64,
    /// The decoder of a variant and the tail.
    variant: f64,
    /// The host and its input gradient.
    gradient: f64,
    /// Of an image.
    pixels: usize,
}

impl Macs {
    pub fn of(model: &Model, tap: &Tap, autoencoder: &Autoencoder) -> Macs {
        let tail = inspect::macs(model, tap.number) as f64;
        let host = inspect::macs(model, 0) as f64;
        let front = host - tail + autoencoder.macs(tap) as f64;
        // the gradient of an input takes as many products as the output
        Macs {
            front,
            tail,
            variant: tail + autoencoder.variant_macs(tap) as f64,
            gradient: 2.0 * host,
            pixels: model.input.iter().product(),
        }
    }

    /// Potential outcomes of one image under one input: host, idle, `sets` interventions.
    fn outcomes(&self, sets: usize) -> f64 {
        self.front + self.tail + (sets as f64 + 1.0) * self.variant
    }

    /// One image of a study under all its inputs.
    pub fn image(&self, sets: usize, inputs: &[Input]) -> f64 {
        let runs: u32 = 1 + inputs.iter().map(Input::repeats).sum::<u32>();
        let gradients: f64 = inputs.iter().map(|input| f64::from(input.gradients(self.pixels))).sum();
        f64::from(runs) * self.outcomes(sets) + gradients * self.gradient
    }

    /// Attacks by who knows the detector, on half of `images` and at most as many as are tried: of each step outcomes, the gradient
    /// of the loss, and that of the statistic, which goes through every variant and back.
    fn adaptive(&self, images: usize, sets: usize, inputs: &[Input]) -> f64 {
        let steps = |input: &Input| match input {
            Input::Attack(attack @ Attack::Pgd { .. }) => f64::from(attack.gradients(self.pixels)),
            _ => 0.0,
        };
        let step = self.outcomes(sets) + self.gradient + 2.0 * (self.front + (sets as f64 + 1.0) * self.variant);
        images.div_ceil(2).min(IMAGES_MAX) as f64 * inputs.iter().map(steps).sum::<f64>() * step
    }

    /// What the f64 reference does again: images, and sets of each.
    pub fn floor(&self, images: usize, sets: usize) -> (usize, usize) {
        let images = images.min(FLOOR_IMAGES);
        let whole = (FLOOR_MACS / self.outcomes(sets)) as usize;
        if whole >= 1 {
            return (images.min(whole), sets);
        }
        let left = FLOOR_MACS - self.outcomes(0);
        (images.min(1), ((left / self.variant) as usize).clamp(1, sets.max(1)).min(sets))
    }
}

/// What a study costs at most, timed on this device with this network.
///
/// # Errors
/// [`Error::Causal`] when it asks for nodes that do not exist; [`Error::Backend`].
pub fn cost(context: &Context, config: &Config, loaded: &Loaded, images: usize, batch: Batch) -> Result<Cost, Error> {
    let sets = node_sets(config, loaded.autoencoder.nodes)?;
    let macs = Macs::of(&loaded.model, &loaded.tap, &loaded.autoencoder);
    let runs: u32 = 1 + config.inputs.iter().map(Input::repeats).sum::<u32>();
    let both = Layered(&[&loaded.host, &loaded.ae]);
    let one = &sets[..1];
    let mut sweep = Sweep::fitting(loaded.subject(&both, config.victim), one, batch, context.backend())?;
    let timed = sweep.batch().images.min(64);
    let pixels: usize = loaded.model.input.iter().product();
    let x = vec![0.5f32; timed * pixels];
    let mut seconds = f64::INFINITY;
    for _ in 0..3 {
        let started = Instant::now();
        let _: Logits = sweep.outcomes(&x)?;
        seconds = seconds.min(started.elapsed().as_secs_f64());
    }
    let flop_per_second = 2.0 * timed as f64 * macs.outcomes(1) / seconds;
    let gate = images.min(gate::IMAGES) as f64 * macs.outcomes(0);
    let shares = match config.shapley {
        Some(pairs) => macs.outcomes(Plan::new(loaded.autoencoder.nodes, pairs, config.seed)?.sets().len()),
        None => 0.0,
    };
    // a front, an answer, and its gradient for the code
    let screen = if config.screen == Some(true) { macs.front + 2.0 * macs.variant } else { 0.0 };
    let refute = match config.refute {
        Some(true) => refute::sweeps(images, config.level) as f64 * macs.outcomes(loaded.autoencoder.nodes),
        _ => 0.0,
    };
    let adaptive = if config.adaptive == Some(true) { macs.adaptive(images, sets.len(), &config.inputs) } else { 0.0 };
    let swept = images as f64 * (macs.image(sets.len(), &config.inputs) + shares + screen);
    let flop = 2.0 * (swept + gate + adaptive + refute);
    let (floor_images, floor_sets) = macs.floor(images, sets.len());
    let threads = rayon::current_num_threads().min(floor_images.max(1)) as f64;
    let floor = floor_images as f64 * macs.outcomes(floor_sets) / (REFERENCE_MACS_PER_SECOND * threads);
    Ok(Cost {
        what: format!(
            "{images} images x {runs} inputs x ({} interventions + idle), those on nodes that are zero on an image are skipped",
            sets.len()
        ),
        flop,
        seconds: flop / flop_per_second + floor,
        flop_per_second,
    })
}

/// Shards of a study of `images` images.
///
/// # Errors
/// [`Error::Causal`] when it asks for nodes that do not exist.
pub fn shard_count(config: &Config, loaded: &Loaded, images: usize) -> Result<usize, Error> {
    let macs = Macs::of(&loaded.model, &loaded.tap, &loaded.autoencoder);
    let sets = node_sets(config, loaded.autoencoder.nodes)?.len();
    Ok(images.div_ceil(shard_images(macs.image(sets, &config.inputs))))
}

/// Images a shard: 256, or fewer where an image takes so long that a stopped run would lose minutes.
pub fn shard_images(macs_per_image: f64) -> usize {
    const SHARD_MACS: f64 = 4e12;
    ((SHARD_MACS / macs_per_image) as usize).clamp(1, SHARD_IMAGES)
}
