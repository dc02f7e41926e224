//! What a run of maps costs: multiply-adds of each method on an image, and the time of a dry run.

use super::{Class, Config, Network};
use crate::backend::Layered;
use crate::causal::study::Input;
use crate::cli::common::{Context, Cost};
use crate::cli::inspect;
use crate::error::Error;
use crate::explain::causal::Blocks;
use crate::explain::{Explainer, Method, Subject};
use crate::model::Model;
use std::time::Instant;

/// Channels of the maps A that Ablation-CAM zeroes one by one.
fn channels(model: &Model) -> usize {
    let last = model.features.len().checked_sub(1);
    let shape = last.and_then(|last| model.shapes().into_iter().nth(last));
    shape.and_then(|shape| shape.dims().first().copied()).unwrap_or(1)
}

/// Multiply-adds of one map of one image; of those of `classes` classes, which most methods make at once.
fn macs(method: Method, config: &Config, network: &Network, classes: usize) -> Result<f64, Error> {
    let model = &network.model;
    let host = inspect::macs(model, 0) as f64;
    let head = inspect::macs(model, model.features.len()) as f64;
    let [_, height, width] = model.input;
    let places = || Ok::<f64, Error>((config.settings.patch.places(height, width)?.len() + 1) as f64);
    let (mut tail, mut ae, mut variant, mut nodes, mut squares) = (0.0, 0.0, 0.0, 0.0, 0.0);
    if let Some((tap, autoencoder, _)) = &network.inserted {
        tail = inspect::macs(model, tap.number) as f64;
        ae = autoencoder.macs(tap) as f64;
        variant = autoencoder.variant_macs(tap) as f64;
        nodes = autoencoder.nodes as f64;
        let [_, height, width] = tap.shape;
        squares = Blocks { side: config.settings.cells, height, width }.count() as f64;
    }
    Ok(match method {
        Method::Cam => host,
        // the head forward and back for each class
        Method::GradCam => host + 2.0 * head * classes as f64,
        Method::AblationCam => host + (channels(model) as f64 + 1.0) * head,
        Method::Occlusion => places()? * host,
        Method::Cem => host - tail + ae + (nodes + 1.0) * (variant + tail),
        Method::CemCells => host - tail + ae + (squares + 1.0) * (ae / 2.0 + tail),
        Method::CemOcclusion => places()? * (host + ae),
    })
}

/// What a run costs at most, from the time that the host takes on this device.
///
/// # Errors
/// [`Error::Explain`] for a method that the network does not have; [`Error::Backend`].
pub fn cost(context: &Context, config: &Config, network: &Network, class: Class, images: usize) -> Result<Cost, Error> {
    let host = inspect::macs(&network.model, 0) as f64;
    let pixels: usize = network.model.input.iter().product();
    let classes = if class == Class::All { network.model.classes } else { 1 };
    let mut each = host;
    for &method in &config.methods {
        let map = macs(method, config, network, classes)?;
        let curves = if config.curves > 0 { (2.0 * (config.curves as f64 + 1.0) + 1.0) * host } else { 0.0 };
        each += (1.0 + config.inputs.len() as f64) * map + curves;
    }
    let gradients: f64 = config.inputs.iter().map(|input: &Input| f64::from(input.gradients(pixels))).sum();
    // an input's gradient takes as many products as the output
    each += 2.0 * gradients * host + config.inputs.len() as f64 * host;
    let weights = Layered(&[&network.host]);
    let subject = Subject { model: &network.model, inserted: None, weights: &weights };
    let mut explainer = Explainer::new(subject, &[], config.settings, None, context.backend())?;
    let rows = explainer.rows();
    let x = vec![0.5f32; rows * pixels];
    let mut seconds = f64::INFINITY;
    for _ in 0..3 {
        let started = Instant::now();
        explainer.victim().forward(&x)?;
        seconds = seconds.min(started.elapsed().as_secs_f64());
    }
    let flop_per_second = 2.0 * rows as f64 * host / seconds;
    let flop = 2.0 * images as f64 * each;
    let names: Vec<&str> = config.methods.iter().map(|method| method.name()).collect();
    Ok(Cost {
        what: format!("{images} images x {} inputs x maps ({})", 1 + config.inputs.len(), names.join(", ")),
        flop,
        seconds: flop / flop_per_second,
        flop_per_second,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maps_of_known_networks_have_their_published_channels() {
        let of = |name: &str| channels(&Model::named(name).unwrap());
        assert_eq!(["fashion", "vgg16", "densenet121"].map(of), [64, 512, 1024]);
    }
}
