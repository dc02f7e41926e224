//! What a run of maps says: how far each input moves each method's maps, claim (e), curves and boxes.

use super::{Config, Network};
use crate::attack::method::sized;
use crate::causal::CausalError;
use crate::causal::study::Input;
use crate::cli::study::input_names;
use crate::error::Error;
use crate::explain::Method;
use crate::explain::localisation::THRESHOLDS;
use crate::explain::stability::{Column, IMAGES_MIN, Mean, Measure, Sampling, Verdict, difference};
use crate::interval::{Interval, Share};
use crate::report::maps::{FaithfulnessRow, MapRow, PointingRow, StabilityRow};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;

/// What boxes say of a method.
#[derive(Clone, Debug)]
pub struct Pointed {
    /// A box each: whether the map points into it.
    pub hits: Vec<Option<bool>>,
    /// A threshold each, a box each.
    pub iou: Vec<Column>,
    /// As those.
    pub iobb: Vec<Column>,
}

/// What the blocks of a run leave.
pub struct Collected {
    /// Images so far.
    pub images: usize,
    /// A row a map.
    pub maps: Vec<MapRow>,
    /// Of each method, input but the clean one, and measure: a change an image.
    pub changes: Vec<Vec<[Column; 3]>>,
    /// Of each method: areas of deletion and insertion, drops.
    pub curves: Vec<[Column; 3]>,
    /// Of each method.
    pub pointed: Vec<Pointed>,
}

impl Collected {
    /// Nothing yet.
    pub fn new(config: &Config) -> Collected {
        let none = || -> [Column; 3] { Default::default() };
        let columns = || vec![Column::new(); THRESHOLDS.len()];
        let pointed = || Pointed { hits: Vec::new(), iou: columns(), iobb: columns() };
        let methods = || config.methods.iter();
        Collected {
            images: 0,
            maps: Vec::new(),
            changes: methods().map(|_| config.inputs.iter().map(|_| none()).collect()).collect(),
            curves: methods().map(|_| none()).collect(),
            pointed: methods().map(|_| pointed()).collect(),
        }
    }
}

/// A finished run.
pub struct Done {
    images: usize,
    level: f64,
    /// A row a map, by image, method and input.
    pub maps: Vec<MapRow>,
    /// Rows of `stability.csv`.
    pub stability: Vec<StabilityRow>,
    /// Rows of `faithfulness.csv`; none without curves.
    pub faithfulness: Vec<FaithfulnessRow>,
    /// Rows of `pointing.csv`; none without boxes.
    pub pointing: Vec<PointingRow>,
    /// What the reader should know.
    pub warnings: Vec<String>,
    /// Where the run is.
    pub directory: PathBuf,
    /// Hash of configuration, weights and data.
    pub run_id: String,
    /// Why the network has no CAM, where Grad-CAM stands in for it.
    pub(super) no_cam: Option<String>,
    /// Inputs and what they are called beside each other.
    names: Vec<(Input, String)>,
}

/// What causal maps are compared with: CAM, or where there is none its generalisation.
fn reference(methods: &[Method]) -> Option<Method> {
    [Method::Cam, Method::GradCam].into_iter().find(|method| methods.contains(method))
}

impl Done {
    /// What was collected, with intervals and verdicts.
    ///
    /// # Errors
    /// [`Error::Causal`] for an impossible level.
    pub fn of(config: &Config, network: &Network, collected: Collected, simulated: bool) -> Result<Done, Error> {
        let sampling = Sampling { resamples: config.resamples, level: config.level, seed: config.seed };
        let Collected { images, mut maps, changes, curves, pointed } = collected;
        let noise = |of: &Input| {
            let same = |input: &Input| matches!(input, Input::Noise { .. }) && input.eps() == of.eps();
            config.inputs.iter().position(same)
        };
        let reference = reference(&config.methods);
        let at = |method: Method| config.methods.iter().position(|&m| m == method);
        let mut stability = Vec::new();
        for (i, &input) in config.inputs.iter().enumerate() {
            for (m, &method) in config.methods.iter().enumerate() {
                for (k, measure) in Measure::ALL.into_iter().enumerate() {
                    let own = &changes[m][i][k];
                    let paired = |other: &Column| Mean::of(&difference(own, other), sampling);
                    let other = reference.filter(|_| method.inserts()).and_then(|r| Some((r, at(r)?)));
                    let other = other.map(|(r, at)| Ok::<_, Error>((r, paired(&changes[at][i][k])?))).transpose()?;
                    let noise = noise(&input).filter(|&n| n != i);
                    let beyond_noise = noise.map(|n| paired(&changes[m][n][k])).transpose()?;
                    let change = Mean::of(own, sampling)?;
                    stability.push(StabilityRow { method, input, measure, change, reference: other, beyond_noise });
                }
            }
        }
        let mut faithfulness = Vec::new();
        if config.curves > 0 {
            for (&method, [deletion, insertion, drop]) in config.methods.iter().zip(&curves) {
                let mean = |column: &Column| Mean::of(column, sampling);
                let row = FaithfulnessRow {
                    method,
                    deletion: mean(deletion)?,
                    insertion: mean(insertion)?,
                    drop: mean(drop)?,
                };
                faithfulness.push(row);
            }
        }
        let mut pointing = Vec::new();
        for (&method, pointed) in config.methods.iter().zip(&pointed).filter(|(_, p)| !p.hits.is_empty()) {
            let told: Vec<bool> = pointed.hits.iter().flatten().copied().collect();
            let means = |columns: &[Column]| -> Result<Vec<Mean>, CausalError> {
                columns.iter().map(|column| Mean::of(column, sampling)).collect()
            };
            pointing.push(PointingRow {
                method,
                hits: Share { count: told.iter().filter(|hit| **hit).count(), of: told.len() },
                level: config.level,
                undefined: pointed.hits.len() - told.len(),
                iou: means(&pointed.iou)?,
                iobb: means(&pointed.iobb)?,
            });
        }
        let mut warnings = Vec::new();
        if simulated {
            warnings.push("run on a simulated device: the kernels' results, nothing about a GPU's time".to_string());
        }
        let noisy = config.inputs.iter().any(|input| matches!(input, Input::Noise { .. }));
        if config.inputs.iter().any(|input| matches!(input, Input::Attack(_))) && !noisy {
            warnings.push("no attack has an eps, so there is no noise of its size to compare it with".into());
        }
        let flagged = maps.iter().filter(|row| !row.flag.is_empty()).count();
        if flagged > 0 {
            warnings.push(format!("{flagged} of {} maps are zero, constant or no numbers: see maps.csv", maps.len()));
        }
        // blocks make one method after the other; a reader wants an image's maps together. Stable: methods and inputs keep
        // their order
        let last: HashMap<u64, usize> = maps.iter().enumerate().map(|(at, row)| (row.image, at)).collect();
        maps.sort_by_key(|row| last.get(&row.image).copied().unwrap_or(0));
        let no_cam = Method::Cam.check(&network.model).err().map(|e| e.to_string());
        Ok(Done {
            images,
            level: config.level,
            maps,
            stability,
            faithfulness,
            pointing,
            warnings,
            directory: PathBuf::new(),
            run_id: String::new(),
            names: config.inputs.iter().copied().zip(input_names(&config.inputs)).collect(),
            no_cam: no_cam.filter(|_| reference == Some(Method::GradCam)),
        })
    }
}

/// `0.412 [0.351, 0.470]`.
pub(super) fn shown(mean: &Mean) -> String {
    match (mean.mean, mean.interval) {
        (Some(m), Some(i)) => format!("{m:.3} {i:.3}"),
        _ if mean.nan > 0 => "not a number".into(),
        _ => "-".into(),
    }
}

/// The same with a sign.
pub(super) fn signed(mean: &Mean) -> String {
    match (mean.mean, mean.interval) {
        (Some(m), Some(Interval { lo, hi })) => format!("{m:+.3} [{lo:+.3}, {hi:+.3}]"),
        _ => "not known".into(),
    }
}

/// `FGSM at eps 0.3`.
pub(super) fn called(input: &Input) -> String {
    match input {
        Input::Attack(attack) => attack.to_string(),
        Input::Noise { eps, norm } => format!("random signs of {}", sized(*norm, *eps)),
        Input::None | Input::Pwm { .. } | Input::Jpeg { .. } => input.name().into(),
    }
}

/// Width of a column on a terminal.
const WIDTH: usize = 23;

impl Done {
    /// Images whose maps were made.
    pub fn images(&self) -> usize {
        self.images
    }

    pub(super) fn row(&self, method: Method, input: &Input, measure: Measure) -> Option<&StabilityRow> {
        self.stability.iter().find(|r| r.method == method && r.input == *input && r.measure == measure)
    }

    /// What an input is called beside the others.
    fn name(&self, input: &Input) -> &str {
        self.names.iter().find(|(own, _)| own == input).map_or(input.name(), |(_, name)| name)
    }

    /// Rows of the first measure, one a method and input.
    pub(super) fn first(&self) -> impl Iterator<Item = &StabilityRow> {
        self.stability.iter().filter(|row| row.measure == Measure::ALL[0])
    }

    /// What was found, for a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let wide = self.names.iter().map(|(_, name)| name.len() + 2).max().unwrap_or(0).max(7);
        if !self.stability.is_empty() {
            let _ = writeln!(
                text,
                "How far maps of one class move between the clean image and a changed one, mean over images with {:.0} % \
                 intervals; 0: not at all.\n{:<15}{:<wide$}{:<WIDTH$}{:<WIDTH$}{:<WIDTH$}{:>6}",
                100.0 * self.level,
                "method",
                "input",
                "1 - Spearman",
                "1 - SSIM",
                "1 - top 10 % overlap",
                "images"
            );
        }
        for row in self.first() {
            let _ = write!(text, "{:<15}{:<wide$}", row.method.name(), self.name(&row.input));
            for measure in Measure::ALL {
                let cell = self.row(row.method, &row.input, measure).map_or_else(String::new, |r| shown(&r.change));
                let _ = write!(text, "{cell:<WIDTH$}");
            }
            let _ = writeln!(text, "{:>6}", row.change.n);
        }
        self.verdicts(&mut text);
        for row in &self.faithfulness {
            let _ = writeln!(
                text,
                "{:<15}deletion {}  insertion {}  average drop {}",
                row.method.name(),
                shown(&row.deletion),
                shown(&row.insertion),
                shown(&row.drop)
            );
        }
        for row in &self.pointing {
            let share = row.hits.value().map_or("-".into(), |v| format!("{:.1} %", 100.0 * v));
            let interval = row.hits.wilson(self.level).map_or_else(String::new, |i| format!(" {i:.3}"));
            let few = if row.hits.of < IMAGES_MIN { "; no verdict under 30" } else { "" };
            let _ = writeln!(
                text,
                "{:<15}points into {} of {} boxes: {share}{interval}{few}",
                row.method.name(),
                row.hits.count,
                row.hits.of
            );
        }
        self.warnings.iter().for_each(|w| text += &format!("warning: {w}\n"));
        let _ = writeln!(text, "{} maps of {} images\nrun {}", self.maps.len(), self.images, self.directory.display());
        text
    }

    /// Claim (e) for every attack and causal map.
    fn verdicts(&self, text: &mut String) {
        for row in self.first().filter(|row| matches!(row.input, Input::Attack(_))) {
            let Some((other, more)) = &row.reference else { continue };
            let (own, other_name) = (row.method.name(), other.name());
            let _ = writeln!(
                text,
                "\nclaim (e) under {}: {own} more sensitive than {other_name}: {} (by {} of 1 - Spearman, {} images)",
                called(&row.input),
                told(more),
                signed(more),
                more.n
            );
            let others = Measure::ALL.iter().skip(1).filter_map(|&measure| {
                let (_, mean) = self.row(row.method, &row.input, measure)?.reference?;
                Some(format!("{} by {} ({})", told(&mean), measure.name(), signed(&mean)))
            });
            let _ = writeln!(text, "  by the other measures: {}", others.collect::<Vec<_>>().join(", "));
            for method in [row.method, *other] {
                let Some(found) = self.row(method, &row.input, row.measure).and_then(|r| r.beyond_noise) else {
                    continue;
                };
                let _ = writeln!(
                    text,
                    "  {} more moved by the attack than by noise of its size: {} ({})",
                    method.name(),
                    told(&found),
                    signed(&found)
                );
            }
        }
        for row in self.first().filter(|row| matches!(row.input, Input::Noise { .. })) {
            let Some((other, more)) = &row.reference else { continue };
            let (own, other) = (row.method.name(), other.name());
            let _ = writeln!(
                text,
                "control, {}: {own} more sensitive than {other}: {} ({})",
                called(&row.input),
                told(more),
                signed(more)
            );
        }
        let causal = self.first().any(|row| row.method.inserts() && matches!(row.input, Input::Attack(_)));
        if causal && self.first().all(|row| row.reference.is_none()) {
            text.push_str(
                "claim (e) compares causal maps with CAM or Grad-CAM: add cam or grad-cam to --method for a verdict\n",
            );
        }
        if self.first().any(|row| row.reference.is_some()) {
            text.extend(self.no_cam.iter().map(|why| format!("{why}\n")));
        }
    }

    /// The verdicts, as the manifest and `--json` have them.
    pub fn results(&self) -> Map<String, Value> {
        let verdict = |row: &StabilityRow| {
            let (other, more) = row.reference.as_ref()?;
            Some(
                json!({ "method": row.method, "than": other, "input": row.input.name(), "eps": row.input.eps(), "measure": row.measure.name(),
                "more_sensitive": Verdict::of(more).name(), "difference": more,
                "beyond_noise": row.beyond_noise.map(|mean| Verdict::of(&mean).name()) }),
            )
        };
        let mut results = Map::new();
        results.insert("images".into(), json!(self.images));
        results.insert("maps".into(), json!(self.maps.len()));
        results.insert("claim_e".into(), self.stability.iter().filter_map(verdict).collect());
        results
    }

    /// Everything as JSON.
    pub fn json(&self) -> Value {
        let stability: Vec<Value> = self
            .stability
            .iter()
            .map(|row| {
                json!({ "method": row.method, "input": row.input.name(), "eps": row.input.eps(), "measure": row.measure.name(), "change": row.change,
                    "reference": row.reference.map(|(method, _)| method), "difference": row.reference.map(|(_, mean)| mean),
                    "beyond_noise": row.beyond_noise })
            })
            .collect();
        let faithfulness: Vec<Value> = self
            .faithfulness
            .iter()
            .map(|row| {
                json!({ "method": row.method, "deletion": row.deletion, "insertion": row.insertion, "average_drop": row.drop })
            })
            .collect();
        let pointing: Vec<Value> = self
            .pointing
            .iter()
            .map(|row| {
                json!({ "method": row.method, "hits": row.hits.count, "boxes": row.hits.of, "undefined": row.undefined,
                    "interval": row.hits.wilson(row.level), "iou": row.iou, "iobb": row.iobb })
            })
            .collect();
        json!({ "schema_version": crate::report::run::SCHEMA_VERSION, "run_id": self.run_id, "run": self.directory,
            "warnings": self.warnings, "results": self.results(), "stability": stability, "faithfulness": faithfulness,
            "pointing": pointing })
    }
}

/// The verdict, with the reason where there are too few images for one.
fn told(mean: &Mean) -> String {
    let verdict = Verdict::of(mean).name();
    if mean.n < IMAGES_MIN { format!("{verdict}, {IMAGES_MIN} images are needed") } else { verdict.into() }
}
