//! `ce` of several autoencoders: trainings are a level of their own above the images, and node 5 of one is not node 5 of the next. A
//! study each, a run of its own inside this run's directory (`ae-1`, `ae-2` …); then nodes are matched, and told together.

mod told;

use super::{Asked, USUAL, expected_images, load};
use crate::backend::Parameters;
use crate::causal::analysis::Columns;
use crate::causal::matching::{Correlations, Encoders, Match, matching};
use crate::causal::seeds::Trainings;
use crate::causal::statistics::Bootstrap;
use crate::causal::study::{Input, SHARD_IMAGES, Shard};
use crate::causal::sweep::Batch;
use crate::cli::common::{self, Context};
use crate::cli::gate::Agreement;
use crate::cli::phase::{here, phase};
use crate::cli::study::{
    Config, Loaded, Run, checked_adaptive, cost, execute, finished, first_images, hashes, images_of, learnt_from,
    open_directory,
};
use crate::cli::subject::{self, Sets};
use crate::cli::ui;
use crate::data::Dataset;
use crate::error::Error;
use crate::model::autoencoder::Autoencoder;
use crate::report::run::{Manifest, RunDirectory};
use crate::report::seeds;
use crate::report::table::{Labels, units};
use crate::weights::Weights;
use serde_json::json;
use told::Told;

/// Clean images that nodes are matched on, at all their places.
const MATCHED_ON: usize = 2000;

/// An autoencoder with what its study is asked.
struct Training {
    loaded: Loaded,
    config: Config,
    batch: Batch,
}

impl Training {
    /// What its study is called in this run's directory, `number` from 1.
    fn name(number: usize) -> String {
        format!("ae-{number}")
    }
}

/// Starts or goes on with the studies, then puts them together.
pub(super) fn run(
    context: &Context,
    (mut config, resume): (Config, Option<(RunDirectory, Manifest)>),
    batch: &str,
    asked: Option<Asked>,
    dry_run: bool,
) -> Result<(), Error> {
    let all = trainings(context, &config)?;
    let [first, ..] = all.as_slice() else { return Err(Error::Failed("no autoencoder".into())) };
    checked_adaptive(&config, first.autoencoder.nodes)?;
    if dry_run {
        let images = expected_images(context, &config, first)?;
        if let Some(asked) = &asked {
            config.inputs = asked.inputs.inputs(images, USUAL);
        }
        let mut whole = cost(context, &config, first, images, first.batch(&config, batch, context)?)?;
        whole.what = format!("{} autoencoders, each {}", all.len(), whole.what);
        (whole.flop, whole.seconds) = (whole.flop * all.len() as f64, whole.seconds * all.len() as f64);
        return ui::print(&whole.told(context.json, ""));
    }
    common::check_out(asked.as_ref().and_then(|asked| asked.out.as_deref()))?;
    let sets = subject::data(&config.data, &first.model, context)?;
    let images = images_of(&sets.studied, &config, context)?;
    if let Some(asked) = &asked {
        config.inputs = asked.inputs.inputs(images.len(), USUAL);
    }
    let learn = learn(&config, first, &sets, &images)?;
    let mut of_run = hashes(&config, first, &images, learn.as_ref())?;
    let others = all.iter().enumerate().skip(1).map(|(k, ae)| (format!("autoencoder {}", k + 1), ae.ae.hash()));
    of_run.extend(others);
    let mut manifest = context.manifest("ce", json!(config), of_run);
    let files = config.ae.iter().chain(&config.further_ae).cloned();
    let training = |(loaded, file): (Loaded, _)| {
        let config = Config { ae: Some(file), further_ae: Vec::new(), ..config.clone() };
        Ok(Training { batch: loaded.batch(&config, batch, context)?, loaded, config })
    };
    let all: Vec<Training> = all.into_iter().zip(files).map(training).collect::<Result<_, Error>>()?;
    // a gate that stays shut leaves no directory behind
    let gates: Vec<Agreement> =
        all.iter().map(|training| through(context, training, &images)).collect::<Result<_, _>>()?;
    let directory = open_directory(asked.and_then(|asked| asked.out), resume, &manifest)?;
    for (number, (training, agreement)) in (1..).zip(all.iter().zip(&gates)) {
        study(context, (training, number), *agreement, (&images, sets.part), learn.as_ref(), &directory)?;
    }

    let mut columns = Vec::with_capacity(all.len());
    for (number, training) in (1..).zip(&all) {
        let (loaded, run_id) = (&training.loaded, own_manifest(context, training, &images, learn.as_ref())?.run_id);
        let shards = finished(&directory.path(&Training::name(number)), &run_id, (&training.config, loaded), &images)?;
        // nodes alone: pairs and the like have their place in the studies
        let nodes = loaded.autoencoder.nodes;
        let alone: Vec<Shard> = shards.iter().map(|shard| shard.of_first_sets(nodes)).collect();
        columns.push(Columns::of(&alone, loaded.model.head, loaded.model.classes)?);
    }
    let matches = matched(context, &all, &images, &directory)?;
    let labels = labels(&all, &manifest, &images, sets.part);
    let trainings = Trainings { columns: &columns, matches: &matches };
    let bootstrap = Bootstrap::of_clusters(&units(&labels.patients)?, config.resamples, config.seed)?;
    let told = Told {
        effects: trainings.effects(&bootstrap, config.level, config.seed)?,
        orders: trainings.orders()?,
        matches: &matches,
        inputs: std::iter::once(Input::None).chain(config.inputs.iter().copied()).collect(),
        images: images.len(),
        matched_on: images.len().min(MATCHED_ON),
        level: config.level,
    };
    let hash8 = all.iter().skip(1).map(|training| training.loaded.ae.hash8());
    seeds::matching(&directory.path("matching.csv"), &hash8.zip(matches.iter().cloned()).collect::<Vec<_>>(), &labels)?;
    seeds::seeds(&directory.path("seeds.csv"), &told.effects, &told.inputs, images.len(), &labels)?;
    manifest.results.insert("gate_agreement".into(), json!(gates.iter().map(|gate| gate.top).collect::<Vec<_>>()));
    manifest.results.insert("matched".into(), json!(told.matched()));
    manifest.results.insert("kendall".into(), json!(told.orders));
    let lowered = |(number, (training, gate)): (usize, (&Training, &Agreement))| {
        let lowered = gate.lowered(training.config.limits()).into_iter();
        lowered.map(|what| format!("{}: {what}", Training::name(number))).collect::<Vec<_>>()
    };
    manifest.warnings = (1..).zip(all.iter().zip(&gates)).flat_map(lowered).collect();
    if manifest.simulated {
        manifest.warnings.push("run on a simulated device: the kernels' results, nothing about a GPU's time".into());
    }
    let at = directory.finish(&manifest)?;
    ui::print(&if context.json { format!("{}\n", told.json(&manifest, &at)) } else { told.text(&manifest, &at) })
}

/// Host and every autoencoder: all of one tap, one host, one width, and no two the same.
fn trainings(context: &Context, config: &Config) -> Result<Vec<Loaded>, Error> {
    let (arch, tap) = (&config.model, subject::network(&config.model, &config.data)?.tap(&config.tap)?);
    for file in config.ae.iter().chain(&config.further_ae) {
        let said = Weights::open(file)?.metadata;
        let other = |key: &str, ours: &str| said.get(key).filter(|its| *its != ours).cloned();
        let bad = |reason: String| Err(Error::Input { path: file.clone(), reason });
        if let Some(its) = other("arch", arch) {
            return bad(format!("was trained in {its}, and this is about {arch}"));
        }
        if let Some(its) = other("tap", &tap.name) {
            return bad(format!("was trained at tap {its}, and nodes are matched at {}: --tap says where", tap.name));
        }
    }
    let first = load(context, config)?;
    let mut all = vec![first];
    for file in &config.further_ae {
        let Some(first) = all.first() else { break };
        let (model, tap, host) = (first.model.clone(), first.tap.clone(), first.host.clone());
        let (autoencoder, ae) = subject::autoencoder(arch, &tap, &first.host_hash, Some(file), context)?;
        let (nodes, wanted) = (autoencoder.nodes, first.autoencoder.nodes);
        let bad = |reason: String| Err(Error::Input { path: file.clone(), reason });
        if nodes != wanted {
            return bad(format!("has {nodes} nodes, {} has {wanted}: nodes are matched one to one", first.ae.file()));
        }
        let hash = ae.hash();
        if let Some(same) = all.iter().find(|other| other.ae.hash() == hash) {
            return bad(format!("has the weights of {}: it is no other training", same.ae.file()));
        }
        let host_hash = first.host_hash.clone();
        all.push(Loaded { model, tap, host, host_hash, autoencoder, ae });
    }
    Ok(all)
}

/// The gate of one autoencoder, which names it.
fn through(context: &Context, training: &Training, images: &Dataset) -> Result<Agreement, Error> {
    let Training { loaded, config, batch } = training;
    loaded.gate(context, config, images, *batch).map_err(|e| match e {
        Error::Gate(reason) => Error::Gate(format!("{}: {reason}", loaded.ae.file())),
        other => other,
    })
}

/// The manifest of one autoencoder's study: that of `ce` with this one alone.
fn own_manifest(
    context: &Context,
    training: &Training,
    images: &Dataset,
    learn: Option<&Dataset>,
) -> Result<Manifest, Error> {
    let Training { loaded, config, .. } = training;
    Ok(context.manifest("ce", json!(config), hashes(config, loaded, images, learn)?))
}

/// Images that a second head learns from, where one is asked for.
fn learn(config: &Config, loaded: &Loaded, sets: &Sets, images: &Dataset) -> Result<Option<Dataset>, Error> {
    (config.second_head == Some(true)).then(|| learnt_from(loaded, &sets.training, images)).transpose()
}

/// Runs the study of one autoencoder, or what is left of it.
fn study(
    context: &Context,
    (training, number): (&Training, usize),
    agreement: Agreement,
    (images, part): (&Dataset, &'static str),
    learn: Option<&Dataset>,
    directory: &RunDirectory,
) -> Result<(), Error> {
    let (path, resume) = phase(directory, &Training::name(number), "ce")?;
    if path.exists() {
        return Ok(());
    }
    let Training { loaded, config, batch } = training;
    context.ui.log(format!("autoencoder {number}: {}", loaded.ae.file()));
    let manifest = own_manifest(context, training, images, learn)?;
    let run = Run {
        batch: *batch,
        directory: open_directory(Some(path), resume, &manifest)?,
        manifest,
        agreement,
        part,
        learn: learn.cloned(),
    };
    execute(context, config, loaded, images, run).map(drop).map_err(|e| here(e, directory))
}

/// Which node of every other autoencoder each node of the first is.
fn matched(
    context: &Context,
    all: &[Training],
    images: &Dataset,
    directory: &RunDirectory,
) -> Result<Vec<Vec<Option<Match>>>, Error> {
    let [first, others @ ..] = all else { return Ok(Vec::new()) };
    let few = first_images(images, Some(MATCHED_ON))?;
    let autoencoders: Vec<(&Autoencoder, &dyn Parameters)> =
        all.iter().map(|t| (&t.loaded.autoencoder, &t.loaded.ae as &dyn Parameters)).collect();
    let Loaded { model, tap, host, autoencoder, .. } = &first.loaded;
    let mut encoders = Encoders::new((model, tap), host, &autoencoders, first.batch.images, context.backend())?;
    let mut sums: Vec<Correlations> =
        others.iter().map(|t| Correlations::new(autoencoder.nodes, t.loaded.autoencoder.nodes)).collect();
    let area = tap.shape[1] * tap.shape[2];
    let which: Vec<u32> = (0..few.len() as u32).collect();
    few.announce(&which);
    let mut bar = context.ui.progress("matching nodes", which.len() as u64);
    // codes of a deep network's first layers are large: a few images of all autoencoders at once
    for (k, block) in which.chunks(first.batch.images.clamp(1, SHARD_IMAGES)).enumerate() {
        if context.stopped() {
            bar.finish();
            return Err(Error::Interrupted { resume: directory.finished_path().into() });
        }
        let codes = encoders.codes(&few.pixels(block)?)?;
        let [own, theirs @ ..] = codes.as_slice() else { break };
        for (sums, code) in sums.iter_mut().zip(theirs) {
            sums.add(own, code, area)?;
        }
        bar.set((k * first.batch.images.clamp(1, SHARD_IMAGES) + block.len()) as u64);
    }
    bar.finish();
    Ok(sums.iter().map(matching).collect())
}

/// What the rows of the run's own tables repeat.
fn labels(all: &[Training], manifest: &Manifest, images: &Dataset, part: &str) -> Labels {
    let first = all.first().map(|training| &training.loaded);
    Labels {
        run_id: manifest.run_id.clone(),
        arch: first.map_or_else(String::new, |loaded| loaded.model.arch.into()),
        tap: first.map_or_else(String::new, |loaded| loaded.tap.name.clone()),
        ae_hash8: first.map_or_else(String::new, |loaded| loaded.ae.hash8()),
        split: part.into(),
        patients: (0..images.len()).map(|i| images.patient(i).unwrap_or_default().to_owned()).collect(),
    }
}
