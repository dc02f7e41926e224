//! A study from the command line's side: its configuration, gate and run directory, and what is printed of it. `ce` and
//! `reproduce` call it; the science is in `causal`, the tables in `report`.

mod adaptive;
mod beside;
mod compat;
mod conditions;
mod cost;
mod done;
mod extra;
mod floor;
mod plain;
mod refute;
mod shards;
mod verdicts;

pub use adaptive::checked as checked_adaptive;
pub use beside::node_name;
use beside::{detector, save_json, show_nodes, strata};
pub use conditions::{Conditions, learnt_from};
pub use cost::{cost, shard_count, shard_images};
pub use done::{Done, WIDTH, figures, input_names, with_interval};
pub use floor::Floor;
pub use refute::LEVEL_MAX as REFUTE_LEVEL_MAX;
pub use shards::finished;
pub use verdicts::Verdicts;

use super::common::{Context, DataArgs};
use super::gate::{self, Agreement, Limits, MAX_SHIFT};
use crate::attack::Attacked;
use crate::backend::{Layered, Parameters};
use crate::causal::analysis::{Columns, Quantity};
use crate::causal::breakdown::{by_class, by_stratum};
use crate::causal::compat::Fault;
use crate::causal::effect::Reading;
use crate::causal::intervention::NodeSet;
use crate::causal::mask::Mask;
use crate::causal::perturbation::symptom;
use crate::causal::statistics::Summary;
use crate::causal::study::{AttackLabel, DoValue, Input, Shard};
use crate::causal::sweep::{Batch, Subject};
use crate::data::Dataset;
use crate::data::findings::FINDINGS;
use crate::data::image::{self, Channels};
use crate::digest::hex;
use crate::error::Error;
use crate::model::autoencoder::Autoencoder;
use crate::model::{Model, Tap};
use crate::report::breakdown;
use crate::report::effects::{self, Form};
use crate::report::page::{self, PAGE};
use crate::report::part::Portion;
use crate::report::run::{Manifest, RunDirectory, default_directory};
use crate::report::table::{self, Kind, Labels, Sampling};
use crate::weights::Weights;
use floor::floor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use shards::Shards;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

/// What decides a study, as the manifest holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Network.
    pub model: String,
    /// Host weights; none means the bundled ones.
    pub weights: Option<PathBuf>,
    /// Autoencoder; none means the bundled one.
    pub ae: Option<PathBuf>,
    /// Autoencoders of other trainings, whose nodes are matched with that one's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_ae: Vec<PathBuf>,
    /// Tap.
    pub tap: String,
    /// Nodes, each by itself.
    pub nodes: String,
    /// Sets of nodes.
    pub sets: Vec<String>,
    /// Whether all nodes but one are set to 0 too, for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<bool>,
    /// Whether every pair of nodes is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<bool>,
    /// Pairs of orders of Shapley values; none: no such values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shapley: Option<usize>,
    /// Whether first-order effects are put beside exact ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub screen: Option<bool>,
    /// Whether PGD's images are also made by an adversary who knows the detector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<bool>,
    /// Whether nodes are put before placebos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refute: Option<bool>,
    /// What nodes are set to.
    #[serde(default, skip_serializing_if = "DoValue::is_zero")]
    pub value: DoValue,
    /// Whether a second head is put behind the network's findings (condition III).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_head: Option<bool>,
    /// How far from 0 is as good as 0, in conditions II and III; none: a thousandth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Faults of the published arithmetic that are shown beside the right one; none: nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compat: Option<Vec<Fault>>,
    /// Inputs beside the clean one.
    pub inputs: Vec<Input>,
    /// The file of a mask, where an input is masked by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_file: Option<PathBuf>,
    /// Whose answer attacks move away from.
    pub attack_label: AttackLabel,
    /// Which network attacks work on.
    #[serde(default, skip_serializing_if = "Attacked::is_host")]
    pub victim: Attacked,
    /// Images.
    pub limit: Option<usize>,
    /// Gate: least share of images whose answer the autoencoder leaves.
    pub min_agreement: f64,
    /// Gate of findings: largest mean change of a probability by the autoencoder alone.
    #[serde(default = "max_shift", skip_serializing_if = "is_usual_shift")]
    pub max_shift: f64,
    /// Bootstrap resamples.
    pub resamples: usize,
    /// Level of intervals.
    pub level: f64,
    /// Kind of intervals of the summary.
    #[serde(default, skip_serializing_if = "Kind::is_percentile")]
    pub interval: Kind,
    /// Which files hold the table of effects; no part of what tells runs apart.
    #[serde(default, skip_serializing_if = "Form::is_parquet")]
    pub effects: Form,
    /// Seed.
    pub seed: u64,
    /// Where images come from and how they are cut.
    #[serde(flatten)]
    pub data: DataArgs,
}

fn max_shift() -> f64 {
    MAX_SHIFT
}

impl Config {
    /// What it asks of the autoencoder.
    pub fn limits(&self) -> Limits {
        Limits { min_agreement: self.min_agreement, max_shift: self.max_shift }
    }
}

/// Left out of a configuration, so that runs keep their ids.
fn is_usual_shift(shift: &f64) -> bool {
    *shift == MAX_SHIFT
}

/// Rows of a sweep's batches: `auto` from a memory budget, or a number.
///
/// # Errors
/// [`Error::Usage`] for anything else.
pub fn batch(text: &str, subject: Subject<'_>, sets: usize, context: &Context) -> Result<Batch, Error> {
    match checked_batch(text)? {
        None => Ok(Batch::auto(subject, sets, context.backend())?),
        Some(rows) => Ok(Batch { images: rows.div_ceil(2), variants: rows }),
    }
}

pub fn checked_batch(text: &str) -> Result<Option<usize>, Error> {
    match (text, text.parse::<usize>()) {
        ("auto", _) => Ok(None),
        (_, Ok(rows @ 1..=65_536)) => Ok(Some(rows)),
        _ => Err(Error::Usage(format!("--batch {text}: it takes auto or 1 to 65536 rows"))),
    }
}

/// Host and autoencoder in memory.
pub struct Loaded {
    /// Host.
    pub model: Model,
    /// Tap.
    pub tap: Tap,
    /// Host weights.
    pub host: Weights,
    /// Their hash: half a gigabyte is not read twice for it.
    pub host_hash: String,
    /// Autoencoder's shape.
    pub autoencoder: Autoencoder,
    /// Its weights.
    pub ae: Weights,
}

impl Loaded {
    /// Rows of the batches of a study.
    ///
    /// # Errors
    /// [`Error::Usage`] for a text that is neither `auto` nor a number of rows.
    pub fn batch(&self, config: &Config, text: &str, context: &Context) -> Result<Batch, Error> {
        let sets = node_sets(config, self.autoencoder.nodes)?.len();
        batch(text, self.subject(&Layered(&[]), config.victim), sets, context)
    }

    /// Whether the net follows its host well enough for a study.
    ///
    /// # Errors
    /// [`Error::Gate`] when it does not.
    pub fn gate(&self, context: &Context, config: &Config, data: &Dataset, batch: Batch) -> Result<Agreement, Error> {
        let both = Layered(&[&self.host, &self.ae]);
        gate::gate(context, config.limits(), self.subject(&both, config.victim), data, batch)
    }

    /// What tells this subject from others: hashes of both weights.
    pub fn weights_hashes(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("host".to_string(), self.host_hash.clone()), ("autoencoder".to_string(), self.ae.hash())])
    }

    /// As a sweep takes it; `weights` holds both.
    fn subject<'a>(&'a self, weights: &'a dyn Parameters, attacked: Attacked) -> Subject<'a> {
        Subject { model: &self.model, tap: &self.tap, autoencoder: &self.autoencoder, weights, attacked }
    }
}

/// The sets a configuration asks for: single nodes, then joint sets.
fn node_sets(config: &Config, nodes: usize) -> Result<Vec<NodeSet>, Error> {
    let (alone, mut joint): (Vec<NodeSet>, Vec<NodeSet>) = config
        .sets
        .iter()
        .map(|text| NodeSet::parse(text, nodes))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .partition(|set| set.len() == 1);
    // a set of one is a node by itself: those come first, in their order
    let named = NodeSet::parse(&config.nodes, nodes)?;
    let singles: Vec<usize> =
        (0..nodes).filter(|&node| named.contains(node) || alone.iter().any(|set| set.contains(node))).collect();
    let mut sets: Vec<NodeSet> = singles.iter().map(|&node| NodeSet::of(&[node], nodes)).collect::<Result<_, _>>()?;
    if config.pairs == Some(true) {
        let pairs = singles.iter().enumerate().flat_map(|(i, &a)| singles[i + 1..].iter().map(move |&b| [a, b]));
        joint.extend(pairs.map(|pair| NodeSet::of(&pair, nodes)).collect::<Result<Vec<_>, _>>()?);
    }
    if config.others == Some(true) {
        let others = |node: usize| (0..nodes).filter(|&other| other != node).collect::<Vec<_>>();
        joint.extend(singles.iter().map(|&n| NodeSet::of(&others(n), nodes)).collect::<Result<Vec<_>, _>>()?);
    }
    for set in joint {
        if !sets.contains(&set) && !set.is_empty() {
            sets.push(set);
        }
    }
    if sets.is_empty() {
        return Err(Error::Usage("--nodes names no node".into()));
    }
    Ok(sets)
}

/// The first `limit` images of `data`.
///
/// # Errors
/// [`Error::Data`].
pub fn first_images(data: &Dataset, limit: Option<usize>) -> Result<Dataset, Error> {
    let images = limit.unwrap_or(data.len()).min(data.len());
    Ok(data.subset(&(0..images as u32).collect::<Vec<_>>())?)
}

/// The images of a study: the first that it is limited to, of those that have a box where it masks boxes.
///
/// # Errors
/// [`Error::Data`], and [`Error::Usage`] where none has.
pub fn images_of(data: &Dataset, config: &Config, context: &Context) -> Result<Dataset, Error> {
    let boxed = |input: &Input| if let Input::Pwm { region, .. } = input { region.boxed() } else { None };
    let Some(finding) = config.inputs.iter().find_map(boxed) else { return first_images(data, config.limit) };
    let mut marked = Vec::new();
    for i in 0..data.len() {
        if symptom(data, i, finding)?.is_some() {
            marked.push(i as u32);
        }
    }
    if marked.is_empty() {
        let whose = finding.and_then(|f| FINDINGS.get(f as usize)).map_or(String::new(), |name| format!(" of {name}"));
        return Err(Error::Usage(format!(
            "--mask box: none of the {} images has a box{whose}; NIH's directory brings them in BBox_List_2017.csv",
            data.len()
        )));
    }
    context.ui.log(format!("{} of {} images have a box; the others are left out", marked.len(), data.len()));
    first_images(&data.subset(&marked)?, config.limit)
}

/// The mask that a configuration names a file of, for images of `shape` (C x H x W).
///
/// # Errors
/// [`Error::Input`] for a file that is no picture, or of another size.
fn mask_of(config: &Config, shape: &[usize]) -> Result<Option<Mask>, Error> {
    let Some(path) = &config.mask_file else { return Ok(None) };
    let (picture, _) = image::read(path, Channels::Grey)?;
    let &[_, height, width] = shape else { return Ok(None) };
    if [picture.height, picture.width] != [height, width] {
        return Err(Error::Input {
            path: path.clone(),
            reason: format!(
                "is {} x {} pixels (height x width); the network sees {height} x {width}, and a mask is of that size",
                picture.height, picture.width
            ),
        });
    }
    Ok(Some(Mask::new(picture.pixels.iter().map(|&v| v > 127).collect(), height, width)?))
}

/// What a study's results depend on beside its configuration.
///
/// # Errors
/// [`Error::Data`] when a file of the data cannot be read, [`Error::Input`] for a mask that does not fit.
pub fn hashes(
    config: &Config,
    loaded: &Loaded,
    data: &Dataset,
    learn: Option<&Dataset>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut all = loaded.weights_hashes();
    all.insert("data".into(), data.hash()?);
    if let Some(learn) = learn {
        all.insert("images of the second head".into(), learn.hash()?);
    }
    if let Some(mask) = mask_of(config, &loaded.model.input)? {
        let bytes: Vec<u8> = mask.taken().iter().map(|&taken| taken.into()).collect();
        all.insert("mask".into(), hex(&Sha256::digest(bytes)));
    }
    Ok(all)
}

/// A new directory, or the one to go on with when it is the same run's.
///
/// # Errors
/// [`Error::Input`] when weights or data changed since the run was started.
pub fn open_directory(
    out: Option<PathBuf>,
    resume: Option<(RunDirectory, Manifest)>,
    manifest: &Manifest,
) -> Result<RunDirectory, Error> {
    match resume {
        None => {
            let usual = || {
                let mut directory = default_directory(&manifest.verb, &manifest.run_id).into_os_string();
                // parts may be started at the same second
                if let Some(Portion { part, .. }) = manifest.portion {
                    directory.push(format!("-{}of{}", part.number, part.of));
                }
                directory.into()
            };
            let finished = out.unwrap_or_else(usual);
            RunDirectory::create(finished, manifest)
        }
        Some((directory, old)) if old.run_id == manifest.run_id => Ok(directory),
        Some((directory, old)) => {
            Err(Error::Input { path: directory.path("manifest.json"), reason: old.refusal(manifest) })
        }
    }
}

/// How and where a study runs.
pub struct Run {
    /// Rows of the device's batches.
    pub batch: Batch,
    /// Where it goes.
    pub directory: RunDirectory,
    /// Its manifest so far.
    pub manifest: Manifest,
    /// What the gate found.
    pub agreement: Agreement,
    /// What the images are called in tables.
    pub part: &'static str,
    /// Images that a second head learns from, where the study has one.
    pub learn: Option<Dataset>,
}

/// Runs the shards of the part that the manifest names into the directory, which stays unfinished. Their number.
///
/// # Errors
/// As [`execute`].
pub fn execute_part(
    context: &Context,
    config: &Config,
    loaded: &Loaded,
    data: &Dataset,
    run: &Run,
) -> Result<usize, Error> {
    Ok(answers(context, config, loaded, data, (run.batch, &run.directory, &run.manifest))?.len())
}

/// The answers of a study or of its part, shard by shard, each saved in the directory; those that it has are not run again.
///
/// # Errors
/// As [`execute`].
pub fn answers(
    context: &Context,
    config: &Config,
    loaded: &Loaded,
    data: &Dataset,
    (batch, directory, manifest): (Batch, &RunDirectory, &Manifest),
) -> Result<Vec<Shard>, Error> {
    let sets = node_sets(config, loaded.autoencoder.nodes)?;
    let both = Layered(&[&loaded.host, &loaded.ae]);
    let subject = loaded.subject(&both, config.victim);
    let mask = mask_of(config, &loaded.model.input)?;
    let shards = Shards { context, config, subject, sets: &sets, data, mask: mask.as_ref(), directory, manifest };
    shards.all(&mut shards.studies(batch)?)
}

/// Runs a study into its directory (also for `reproduce`).
///
/// # Errors
/// [`Error::Interrupted`] with what to resume, or what went wrong.
pub fn execute(context: &Context, config: &Config, loaded: &Loaded, data: &Dataset, run: Run) -> Result<Done, Error> {
    let Run { batch, directory, mut manifest, agreement, part, learn } = run;
    let Loaded { model, tap, host, autoencoder, ae, .. } = loaded;
    let images = data.len();
    let sets = node_sets(config, autoencoder.nodes)?;
    let both = Layered(&[host, ae]);
    let subject = loaded.subject(&both, config.victim);
    let mut warnings = Vec::new();
    let started = Instant::now();
    if manifest.simulated {
        warnings.push("run on a simulated device: the kernels' results, nothing about a GPU's time".into());
    }
    warnings.extend(agreement.lowered(config.limits()));
    if !config.value.is_zero() {
        warnings.push(
            "nodes are not set to 0: the claims are the paper's about nodes that are, and judged all the same".into(),
        );
    }
    let mask = mask_of(config, &model.input)?;
    let mask = mask.as_ref();
    let shards =
        Shards { context, config, subject, sets: &sets, data, mask, directory: &directory, manifest: &manifest };
    let mut studies = shards.studies(batch)?;
    let all = shards.all(&mut studies)?;
    manifest.timing.insert("sweep_seconds".into(), json!(started.elapsed().as_secs_f64()));

    let started = Instant::now();
    let floor = match studies.first_mut() {
        Some(study) => floor(subject, &sets, study, &all, context)?,
        None => return Err(Error::Failed("no device to measure on".into())),
    };
    manifest.timing.insert("floor_seconds".into(), json!(started.elapsed().as_secs_f64()));

    let started = Instant::now();
    let columns = Columns::of(&all, model.head, model.classes)?;
    let sampling =
        Sampling { resamples: config.resamples, level: config.level, seed: config.seed, kind: config.interval };
    let labels = Labels {
        run_id: manifest.run_id.clone(),
        arch: model.arch.into(),
        tap: tap.name.clone(),
        ae_hash8: ae.hash8(),
        split: part.into(),
        patients: (0..images).map(|i| data.patient(i).unwrap_or_default().to_owned()).collect(),
    };
    let singles = sets.iter().take_while(|set| set.len() == 1).count();
    let rows = table::summarise(&columns, (model.head, model.classes), &labels.patients, singles, sampling)?;
    let units = table::units(&labels.patients)?;
    effects::write(&directory.path(""), config.effects, &all, &sets, (model.head, model.classes), &labels)?;
    table::summary(&directory.path("summary.csv"), &rows, &columns, &sets, &labels)?;
    let cells = by_class(&all, &columns, (model.head, model.classes), config.level)?;
    let names = if data.classes().len() == model.classes { data.classes() } else { &[] };
    breakdown::matrix(&directory.path("effect_matrix.csv"), &cells, &columns, &sets, (&labels, names))?;
    let strata = strata(data, &all, model.head, names);
    let within = by_stratum(&columns, &strata, config.level)?;
    breakdown::strata(&directory.path("strata.csv"), (&strata, &within), &columns, &sets, &labels)?;
    let mut detector = detector(context, config, loaded, data, &all)?;
    let verdicts = Verdicts::of((&columns, &sets), config, (model.head, &units), &manifest.run_id)?;
    save_json(&directory.path("claims.json"), &verdicts)?;
    manifest.timing.insert("tables_seconds".into(), json!(started.elapsed().as_secs_f64()));

    let started = Instant::now();
    if let Some(study) = studies.first_mut() {
        show_nodes(context, &mut study.sweep, data, (&columns, &sets), &directory, &manifest.run_id)?;
    }
    manifest.timing.insert("gallery_seconds".into(), json!(started.elapsed().as_secs_f64()));

    let mean_of = |set: usize| Summary::of(columns.get(0, set, Quantity::Ece(Reading::Z0))).mean;
    let alone = |node: usize| sets.iter().position(|set| set.len() == 1 && set.contains(node)).and_then(mean_of);
    let study = extra::Study { context, config, loaded, data, batch, directory: &directory, labels: &labels };
    extra::interactions(&study, &columns, &sets)?;
    // two programs would be two networks in memory
    drop(studies);
    if let Some((report, table)) = &mut detector {
        if config.adaptive == Some(true) {
            let started = Instant::now();
            report.adaptive = adaptive::adaptive(&study, table)?;
            manifest.timing.insert("adaptive_seconds".into(), json!(started.elapsed().as_secs_f64()));
        }
        save_json(&directory.path("detector.json"), report)?;
    } else if config.adaptive == Some(true) {
        warnings.push("--adaptive: there is no detector to evade, for there are too few images to fit one on".into());
    }
    let detector = detector.map(|(report, _)| report);
    let conditions = conditions::conditions(&study, &all, &sets, learn.as_ref(), &units)?;
    let compat = config.compat.as_ref().map(|faults| compat::compat(&study, &all, &columns.inputs, &sets, faults));
    let compat = compat.transpose()?;
    if let Some(pairs) = config.shapley {
        extra::shapley(&study, pairs, &alone)?;
    }
    if config.screen == Some(true) {
        let screened = extra::screen(&study, &columns, &sets)?;
        manifest.results.insert("screen".into(), json!(screened));
    }
    let refuted = match config.refute {
        Some(true) => Some(refute::refute(&study, &all, &columns, &sets)?),
        _ => None,
    };
    if let Some(refuted) = &refuted {
        manifest.results.insert("refuters".into(), refuted.brief());
    }

    if units.count() < columns.images() {
        warnings.push(format!(
            "{} images of {} patients: summary.csv and the claims take a patient's images together; effect_matrix.csv and strata.csv \
             take them as independent, and their intervals are too narrow",
            columns.images(),
            units.count()
        ));
    }
    if columns.images() < 100 {
        warnings.push(format!("{} images: intervals from so few are rough", columns.images()));
    }
    manifest.results.insert("numerical_floor".into(), json!(floor.largest));
    manifest.results.insert("gate_agreement".into(), json!(agreement.top));
    if let Some(shift) = agreement.shift {
        manifest.results.insert("gate_shift".into(), json!(shift));
    }
    let names = input_names(&columns.inputs);
    let by_input: BTreeMap<String, f64> =
        names.into_iter().enumerate().map(|(k, name)| (name, columns.mean(k, 0, Quantity::Agreement))).collect();
    manifest.results.insert("agreement".into(), json!(by_input));
    manifest.warnings = warnings.clone();
    let run_id = manifest.run_id.clone();
    directory.write_manifest(&manifest)?;
    page::write(&directory.path(""), &directory.path(PAGE))?;
    let directory = directory.finish(&manifest)?;
    Ok(Done {
        columns,
        sets,
        rows,
        floor,
        verdicts,
        conditions,
        compat,
        refuted,
        detector,
        warnings,
        directory,
        run_id,
        level: config.level,
        head: model.head,
    })
}
