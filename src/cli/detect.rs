//! `detect`: what a detector that a study fitted says of other images, as a run directory.

use super::common::{self, Common, Context, DataArgs};
use super::study::{self, Loaded, answers, checked_batch, cost, first_images, hashes, node_name, open_directory};
use super::subject::{self, SubjectArgs};
use super::ui;
use crate::answer::{Head, widen};
use crate::causal::study::Shard;
use crate::data::Dataset;
use crate::detect::claim::DECLARED;
use crate::detect::detector::Subject;
use crate::detect::{DetectError, Detector, Table};
use crate::digest::hex;
use crate::error::Error;
use crate::interval::Share;
use crate::report::run::{Manifest, RunDirectory, SCHEMA_VERSION};
use crate::report::scores::{Score, flagged, write};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

/// Flags of `detect`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    subject: SubjectArgs,
    /// What a run of ce or reproduce with attacks fitted: its directory, its detector.json, or that of a run of detect
    #[arg(long, value_name = "DIR|FILE", required_unless_present = "resume")]
    detector: Option<PathBuf>,
    /// Which of its detectors: `effect-std`, `kl`, `mahalanobis`, `logistic of pgd 0.3` …
    #[arg(long = "use", value_name = "NAME", default_value_t = DECLARED.to_string())]
    name: String,
    /// The first N test images
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// auto, or rows a batch; results do not depend on it
    #[arg(long, default_value = "auto")]
    batch: String,
}

/// What decides a run, as the manifest holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Config {
    /// The file.
    detector: PathBuf,
    /// Which detector of it.
    name: String,
    /// Network, nodes and images.
    #[serde(flatten)]
    study: study::Config,
}

/// The rate of false alarms that images are flagged at, in percent.
const FALSE_ALARMS_PERCENT: u32 = 5;

/// `detect`.
pub fn run(args: Args) -> Result<(), Error> {
    let context = Context::new(&args.common)?;
    checked_batch(&args.batch)?;
    if args.limit == Some(0) {
        return Err(Error::Usage("--limit 0: at least one image is needed".into()));
    }
    let (mut config, resume) = match &args.common.resume {
        Some(directory) => RunDirectory::resume_configured::<Config>(directory, "detect")?,
        None => (args.config()?, None),
    };
    let detector = Detector::read(&config.detector, &config.name)?;
    let Some(threshold) = detector.threshold(FALSE_ALARMS_PERCENT) else {
        let reason = format!(
            "{} was fitted on {} clean images, too few for a cut at {FALSE_ALARMS_PERCENT} % false alarms; fit it on more",
            detector.called(),
            detector.fit_clean
        );
        return Err(Error::Input { path: config.detector, reason });
    };
    subject::network(&config.study.model, &config.study.data)?.tap(&config.study.tap)?;
    let loaded = load(&config.study, &context)?;
    config.study.nodes = nodes(&detector, &loaded)?;
    let batch = loaded.batch(&config.study, &args.batch, &context)?;
    if args.common.dry_run {
        let images = match config.study.data.data {
            Some(_) => images(&config, &loaded, &context)?.len(),
            // nothing is fetched for a dry run
            None => config.study.limit.unwrap_or(10_000),
        };
        return ui::print(&cost(&context, &config.study, &loaded, images, batch)?.told(context.json, ""));
    }
    common::check_out(args.common.out.as_deref())?;
    let images = images(&config, &loaded, &context)?;
    let mut all = hashes(&config.study, &loaded, &images, None)?;
    let text = serde_json::to_vec(&detector).map_err(|e| Error::Failed(e.to_string()))?;
    all.insert("detector".into(), hex(&Sha256::digest(text)));
    let manifest = context.manifest("detect", json!(config), all);
    let directory = open_directory(args.common.out, resume, &manifest)?;

    let started = Instant::now();
    let shards = answers(&context, &config.study, &loaded, &images, (batch, &directory, &manifest))?;
    let scores = scores(&detector, &shards, &loaded, &images)?;
    write(&directory.path("scores.csv"), &manifest.run_id, (&detector.called(), threshold), &scores)?;
    // so that the run can be used as it was used
    detector.save(&directory.path("detector.json"))?;
    let share = flagged(&scores, threshold);
    finish(&context, (&detector, threshold), (share, scores.len()), directory, manifest, started)
}

/// Ends the run and says what came of it.
fn finish(
    context: &Context,
    (detector, threshold): (&Detector, f64),
    (share, images): (Share, usize),
    directory: RunDirectory,
    mut manifest: Manifest,
    started: Instant,
) -> Result<(), Error> {
    if manifest.simulated {
        manifest.warnings.push("run on a simulated device: the kernels' results, nothing about a GPU's time".into());
    }
    if share.of < images {
        manifest.warnings.push(format!("{} images have no score: a number of theirs is none", images - share.of));
    }
    let (warnings, run_id) = (manifest.warnings.clone(), manifest.run_id.clone());
    manifest.results.insert("flagged".into(), json!(share.value()));
    manifest.timing.insert("detect_seconds".into(), json!(started.elapsed().as_secs_f64()));
    let directory = directory.finish(&manifest)?;
    let interval = share.wilson(0.95);
    if context.json {
        let out = json!({ "schema_version": SCHEMA_VERSION, "run_id": run_id, "run": directory, "detector": detector.called(),
            "threshold": threshold, "images": images, "scored": share.of, "flagged": share.count, "share": share.value(),
            "share_ci": interval, "warnings": warnings });
        return ui::print(&format!("{out}\n"));
    }
    let percent = share.value().map_or(String::new(), |share| format!(", {:.1} %", 100.0 * share));
    let interval = interval.map_or(String::new(), |i| format!(" [{:.1}, {:.1}]", 100.0 * i.lo, 100.0 * i.hi));
    let learnt =
        detector.attack.as_ref().map_or(String::new(), |_| format!(" and {} attacked ones", detector.fit_attacked));
    let mut text = format!(
        "{} of {} images are flagged{percent}{interval}, by {} above {threshold:.4e}\nThe cut lets {FALSE_ALARMS_PERCENT} % of \
         clean images like the {} that it was fitted on{learnt} be flagged; what the detector finds of which attack stands in the \
         detector.json of the run that fitted it.\n",
        share.count,
        share.of,
        detector.called(),
        detector.fit_clean,
    );
    warnings.iter().for_each(|warning| text += &format!("warning: {warning}\n"));
    ui::print(&format!("{text}run {}\n", directory.display()))
}

impl Args {
    /// All but the nodes, which are the detector's.
    fn config(&self) -> Result<Config, Error> {
        let ae = self.subject.one_ae()?;
        let SubjectArgs { model, weights, tap, .. } = self.subject.clone();
        let named = self.detector.clone().unwrap_or_default();
        let detector = if named.is_dir() { named.join("detector.json") } else { named };
        let study = study::Config {
            weights,
            ae,
            limit: self.limit,
            seed: self.common.seed,
            ..study::Config::plain(&model, &tap, &self.data)
        };
        Ok(Config { detector, name: self.name.clone(), study })
    }
}

fn load(config: &study::Config, context: &Context) -> Result<Loaded, Error> {
    let (model, host) = subject::host(&config.model, config.weights.as_deref(), &config.data, context)?;
    let tap = model.tap(&config.tap)?;
    let host_hash = host.hash();
    let (autoencoder, ae) = subject::autoencoder(&config.model, &tap, &host_hash, config.ae.as_deref(), context)?;
    Ok(Loaded { model, tap, host, host_hash, autoencoder, ae })
}

fn images(config: &Config, loaded: &Loaded, context: &Context) -> Result<Dataset, Error> {
    first_images(&subject::data(&config.study.data, &loaded.model, context)?.studied, config.study.limit)
}

/// The nodes that a detector looks at, as a study takes them: `3,7`.
///
/// # Errors
/// [`DetectError::Subject`] for a detector of another network, autoencoder or tap.
fn nodes(detector: &Detector, loaded: &Loaded) -> Result<String, DetectError> {
    let all: Vec<String> =
        (0..loaded.autoencoder.nodes).map(|node| node_name(&loaded.tap.name, &node.to_string())).collect();
    let fitted = &detector.subject.nodes;
    let numbers: Option<Vec<String>> =
        fitted.iter().map(|name| Some(all.iter().position(|known| known == name)?.to_string())).collect();
    let here = if numbers.is_some() { fitted.clone() } else { all };
    detector.fits(&Subject { nodes: here, hashes: loaded.weights_hashes() })?;
    Ok(numbers.unwrap_or_default().join(","))
}

/// What the detector says of every image, in the order of the data.
fn scores(detector: &Detector, shards: &[Shard], loaded: &Loaded, data: &Dataset) -> Result<Vec<Score>, Error> {
    let Loaded { model, .. } = loaded;
    let table = Table::of(shards, model.head, model.classes, &[])?;
    let places: HashMap<u64, usize> = table.images.iter().enumerate().map(|(k, image)| (image.id, k)).collect();
    let orig = shards.iter().filter_map(|shard| shard.answers.first());
    let orig = orig.flat_map(|answers| answers.logits.orig.chunks_exact(model.classes));
    let each = data.ids().iter().enumerate().zip(orig);
    let score = |((i, &id), logits): ((usize, &u64), &[f32])| {
        let row = places.get(&id).and_then(|&k| table.rows(0).get(k));
        let predicted = row.and_then(|row| row.predicted);
        let p = model.head.of(&widen(logits));
        Score {
            id,
            path: data.path(i).unwrap_or_default().to_owned(),
            label: data.label(i).filter(|_| model.head == Head::Softmax),
            predicted,
            p_predicted: predicted.and_then(|class| p.get(class as usize)).copied(),
            score: row.map_or(f64::NAN, |row| detector.score(&row.features)),
        }
    };
    Ok(each.map(score).collect())
}
