//! Maps as a part of another run: those of a study's network, on its first images, by the methods that need nothing more.

use super::{Class, Config, Done, Network, cost, usual, work};
use crate::causal::study::Input;
use crate::cli::common::{Context, Cost};
use crate::cli::gate::Agreement;
use crate::cli::study::{self, Loaded, open_directory};
use crate::data::Dataset;
use crate::error::Error;
use crate::explain::{Method, Sign};
use crate::report::run::{Manifest, RunDirectory};
use serde_json::json;
use std::path::PathBuf;

/// Images whose maps are drawn: a page shows a few of them.
const PICTURES: usize = 16;

/// Maps that are to be made beside a study.
pub struct Part {
    config: Config,
    network: Network,
}

/// Where such a run goes.
pub struct Place {
    /// Its directory.
    pub path: PathBuf,
    /// What it goes on with.
    pub resume: Option<(RunDirectory, Manifest)>,
    /// Rows of the device's batches, where they are given.
    pub rows: Option<usize>,
    /// What the images are called in tables.
    pub part: &'static str,
}

impl Part {
    /// Maps of the first `images` images of a study under `inputs`, with its network, data, seed and statistics.
    ///
    /// # Errors
    /// [`Error::Explain`] for images so small that no patch covers them.
    pub fn of(study: &study::Config, loaded: &Loaded, inputs: Vec<Input>, images: usize) -> Result<Part, Error> {
        let mut methods = vec![Method::Cem, Method::Cam, Method::GradCam];
        methods.retain(|method| method.check(&loaded.model).is_ok());
        let config = Config {
            model: study.model.clone(),
            weights: study.weights.clone(),
            ae: study.ae.clone(),
            tap: study.tap.clone(),
            methods,
            class: "predicted".into(),
            settings: usual(&loaded.model, &loaded.tap)?,
            drawn: Sign::Published,
            curves: 0,
            pictures: PICTURES,
            inputs,
            attack_label: study.attack_label,
            limit: Some(images),
            min_agreement: study.min_agreement,
            max_shift: study.max_shift,
            resamples: study.resamples,
            level: study.level,
            seed: study.seed,
            data: study.data.clone(),
        };
        let network = Network {
            model: loaded.model.clone(),
            host: loaded.host.clone(),
            host_hash: loaded.host_hash.clone(),
            inserted: Some((loaded.tap.clone(), loaded.autoencoder.clone(), loaded.ae.clone())),
        };
        Ok(Part { config, network })
    }

    /// What it costs for so many images.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub fn cost(&self, context: &Context, images: usize) -> Result<Cost, Error> {
        cost::cost(context, &self.config, &self.network, Class::Predicted, images)
    }

    /// Makes them of `images`, of which the study's gate found `agreement`.
    ///
    /// # Errors
    /// [`Error::Interrupted`] with what to resume, or what went wrong.
    pub fn run(
        &self,
        context: &Context,
        images: &Dataset,
        (study, agreement): (&study::Config, &Agreement),
        place: Place,
    ) -> Result<Done, Error> {
        let hashes = self.network.hashes(images)?;
        let manifest = context.manifest("map", json!(self.config), hashes);
        let directory = open_directory(Some(place.path), place.resume, &manifest)?;
        let warnings = agreement.lowered(study.limits());
        let run = work::Run { rows: place.rows, directory, manifest, part: place.part, warnings };
        work::execute(context, &self.config, &self.network, Class::Predicted, images, run)
    }
}
