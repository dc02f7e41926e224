//! What a reproduction would take: trainings from their multiply-adds, studies timed with these networks on this device.

use super::work::head_training;
use super::{Answers, Brought, Experiment, Reproduction, Source};
use crate::cli::common::{Context, Cost};
use crate::cli::inspect::macs;
use crate::cli::study::{self, Config, Loaded};
use crate::cli::subject::{self, Sets};
use crate::data::Dataset;
use crate::error::Error;
use crate::model::autoencoder::{Autoencoder, HIDDEN, NODES};
use crate::weights::Weights;

/// The cost of everything that is not there yet; `batch` is `--batch`.
///
/// # Errors
/// [`Error::Backend`]; [`Error::Weights`] when features are not the network's.
pub(super) fn cost(
    experiment: &Experiment,
    config: &Reproduction,
    batch: &str,
    (sources, sets, studied): (&[Source], &[Sets], &[(Dataset, &'static str)]),
    brought: &[Brought],
    context: &Context,
) -> Result<Cost, Error> {
    let (mut flop, mut seconds, mut speed) = (0.0, 0.0, f64::INFINITY);
    let mut parts = Vec::new();
    for ((source, sets), (images, _)) in sources.iter().zip(sets).zip(studied) {
        let arch = source.network.arch;
        let training = config.trained_on(sets) as f64;
        let mut trained = 0.0;
        let (model, weights) = match &source.whole {
            Some((model, weights)) => (model.clone(), weights.clone()),
            None => {
                let start = subject::start(arch, Some(&source.file), sets, context)?;
                let mut weights = Weights::of(arch, start.model.initial_weights(config.study.seed));
                weights.absorb(start.weights);
                let epochs = head_training(source, config).settings.epochs as f64;
                let (all, head) = (macs(&start.model, 0), macs(&start.model, start.model.features.len()));
                trained += 2.0 * (all as f64 + 2.0 * head as f64) * training * epochs;
                parts.push(format!("{arch}: a head"));
                (start.model, weights)
            }
        };
        if let Answers::Findings(_) = source.network.answers {
            let judged = sets.split.validation.len() + sets.test.len();
            trained += 2.0 * macs(&model, 0) as f64 * judged as f64;
        }
        for &number in &source.taps {
            let tap = model.tap(&number.to_string())?;
            let autoencoder = Autoencoder::at(&tap, HIDDEN, NODES);
            let mut what = format!("{arch} tap {number}: ");
            if !brought.iter().any(|ae| ae.is_for(arch, &tap.name)) {
                let (all, tail) = (macs(&model, 0) as f64, macs(&model, number) as f64);
                let per_image = all + 2.0 * tail + 3.0 * autoencoder.macs(&tap) as f64;
                trained += 2.0 * per_image * training * config.epochs as f64;
                what += "an autoencoder, ";
            }
            let ae = Weights::of("autoencoder", autoencoder.initial_weights(config.study.seed));
            let asked = Config { model: arch.into(), tap: number.to_string(), ..config.study.clone() };
            let (host, host_hash) = (weights.clone(), source.hash.clone());
            let loaded = Loaded { model: model.clone(), tap, host, host_hash, autoencoder, ae };
            let batch = loaded.batch(&asked, batch, context)?;
            let cost = study::cost(context, &asked, &loaded, images.len(), batch)?;
            parts.push(what + &cost.what);
            (flop, seconds, speed) = (flop + cost.flop, seconds + cost.seconds, speed.min(cost.flop_per_second));
        }
        if speed.is_finite() {
            (flop, seconds) = (flop + trained, seconds + trained / speed);
        }
    }
    let what = format!("reproduce {}\n  {}\nin all", experiment.name, parts.join("\n  "));
    Ok(Cost { what, flop, seconds, flop_per_second: speed })
}
