//! The tables of a run of maps: `maps.csv` (a row a map), `stability.csv` (a row per method, input and measure),
//! `faithfulness.csv` (a row a method) and `pointing.csv` (a row per method and threshold). Numbers in shortest round-trip form;
//! what is no number is empty, and counted or flagged beside.

use super::run::SCHEMA_VERSION;
use super::table::{number, optional, quoted};
use crate::atomic::write_atomic;
use crate::causal::study::Input;
use crate::error::Error;
use crate::explain::localisation::THRESHOLDS;
use crate::explain::stability::{Mean, Measure};
use crate::explain::{Map, Method};
use crate::interval::{Interval, Share};
use std::fmt::Write;
use std::path::Path;

/// What every row repeats.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Hash of configuration, weights and data.
    pub run_id: String,
    /// Network.
    pub arch: String,
    /// Split that the images are from.
    pub split: String,
}

/// A row of `maps.csv`.
#[derive(Clone, Debug)]
pub struct MapRow {
    /// Number of the image.
    pub image: u64,
    /// Its label, where it has one.
    pub label: Option<u32>,
    /// The method.
    pub method: Method,
    /// The input.
    pub input: Input,
    /// The class that is explained.
    pub class: u32,
    /// What the host answers under that input.
    pub predicted: Option<usize>,
    /// The host's probability of the class there.
    pub probability: f64,
    /// Rows and columns of the map.
    pub size: (usize, usize),
    /// Its least and largest value.
    pub range: Option<(f32, f32)>,
    /// What is remarkable about it.
    pub flag: &'static str,
    /// Its file below the run's directory.
    pub file: String,
}

impl MapRow {
    /// What a map says of itself: size, range and flag.
    pub fn about(map: &Map) -> ((usize, usize), Option<(f32, f32)>, &'static str) {
        (map.size(), map.range(), map.flag().name())
    }
}

/// Writes `maps.csv`.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn maps(path: &Path, rows: &[MapRow], labels: &Labels) -> Result<(), Error> {
    let mut text = String::from(
        "schema_version,run_id,arch,split,image_id,label,method,input,eps,class,predicted,p_class,height,width,min,max,flag,file\n",
    );
    for row in rows {
        let shown = |v: Option<f32>| v.map_or(String::new(), |v| format!("{v:?}"));
        // writing to a String cannot fail
        let _ = writeln!(
            text,
            "{SCHEMA_VERSION},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
            labels.run_id,
            labels.arch,
            labels.split,
            row.image,
            row.label.map_or(String::new(), |label| label.to_string()),
            row.method.name(),
            row.input.name(),
            row.input.eps().map_or(String::new(), |eps| eps.to_string()),
            row.class,
            row.predicted.map_or(String::new(), |class| class.to_string()),
            number(row.probability),
            row.size.0,
            row.size.1,
            shown(row.range.map(|r| r.0)),
            shown(row.range.map(|r| r.1)),
            row.flag,
            quoted(&row.file),
        );
    }
    Ok(write_atomic(path, |file| file.write_all(text.as_bytes()))?)
}

/// How far an input moves a method's maps by one measure.
#[derive(Clone, Debug)]
pub struct StabilityRow {
    /// The method.
    pub method: Method,
    /// The input.
    pub input: Input,
    /// The measure.
    pub measure: Measure,
    /// The mean change.
    pub change: Mean,
    /// What it is compared with under the same input, and how much more it moves, paired.
    pub reference: Option<(Method, Mean)>,
    /// How much more it moves than under the random-sign control, paired.
    pub beyond_noise: Option<Mean>,
}

/// Ends of an interval as two fields.
fn ends(interval: Option<Interval>) -> String {
    format!("{},{}", optional(interval.map(|i| i.lo)), optional(interval.map(|i| i.hi)))
}

/// Writes `stability.csv`.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn stability(path: &Path, rows: &[StabilityRow], labels: &Labels) -> Result<(), Error> {
    let mut text = String::from(
        "schema_version,run_id,arch,split,method,input,eps,measure,change,ci_lo,ci_hi,n,undefined,nan,reference,difference,\
         difference_lo,difference_hi,difference_n,beyond_noise,beyond_noise_lo,beyond_noise_hi,beyond_noise_n\n",
    );
    let paired = |mean: Option<&Mean>| match mean {
        Some(mean) => format!("{},{},{}", optional(mean.mean), ends(mean.interval), mean.n),
        None => ",,,".into(),
    };
    for row in rows {
        let _ = writeln!(
            text,
            "{SCHEMA_VERSION},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
            labels.run_id,
            labels.arch,
            labels.split,
            row.method.name(),
            row.input.name(),
            row.input.eps().map_or(String::new(), |eps| eps.to_string()),
            row.measure.name(),
            optional(row.change.mean),
            ends(row.change.interval),
            row.change.n,
            row.change.undefined,
            row.change.nan,
            row.reference.map_or("", |(method, _)| method.name()),
            paired(row.reference.as_ref().map(|(_, mean)| mean)),
            paired(row.beyond_noise.as_ref()),
        );
    }
    Ok(write_atomic(path, |file| file.write_all(text.as_bytes()))?)
}

/// How much of the answer hangs on what a method's clean maps name.
#[derive(Clone, Debug)]
pub struct FaithfulnessRow {
    /// The method.
    pub method: Method,
    /// Area under the deletion curve.
    pub deletion: Mean,
    /// Area under the insertion curve.
    pub insertion: Mean,
    /// Part of the answer that is lost where only what the map names is shown.
    pub drop: Mean,
}

/// Writes `faithfulness.csv`.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn faithfulness(path: &Path, rows: &[FaithfulnessRow], labels: &Labels) -> Result<(), Error> {
    let mut text = String::from("schema_version,run_id,arch,split,method,score,mean,ci_lo,ci_hi,n,undefined,nan\n");
    for row in rows {
        for (score, mean) in [("deletion", row.deletion), ("insertion", row.insertion), ("average_drop", row.drop)] {
            let _ = writeln!(
                text,
                "{SCHEMA_VERSION},{},{},{},{},{score},{},{},{},{},{}",
                labels.run_id,
                labels.arch,
                labels.split,
                row.method.name(),
                optional(mean.mean),
                ends(mean.interval),
                mean.n,
                mean.undefined,
                mean.nan,
            );
        }
    }
    Ok(write_atomic(path, |file| file.write_all(text.as_bytes()))?)
}

/// How well a method's clean maps of the marked findings lie in their boxes.
#[derive(Clone, Debug)]
pub struct PointingRow {
    /// The method.
    pub method: Method,
    /// Boxes that the largest value lies in, of those whose map points somewhere.
    pub hits: Share,
    /// Level of its interval.
    pub level: f64,
    /// Boxes whose map points nowhere.
    pub undefined: usize,
    /// Mean intersection over union at each threshold.
    pub iou: Vec<Mean>,
    /// Mean intersection over the area that stands out.
    pub iobb: Vec<Mean>,
}

/// Writes `pointing.csv`.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn pointing(path: &Path, rows: &[PointingRow], labels: &Labels) -> Result<(), Error> {
    let mut text =
        String::from("schema_version,run_id,arch,split,method,score,threshold,value,ci_lo,ci_hi,n,undefined\n");
    for row in rows {
        let fixed =
            format!("{SCHEMA_VERSION},{},{},{},{}", labels.run_id, labels.arch, labels.split, row.method.name());
        let (value, interval) = (optional(row.hits.value()), ends(row.hits.wilson(row.level)));
        let _ = writeln!(text, "{fixed},pointing,,{value},{interval},{},{}", row.hits.of, row.undefined);
        for (score, means) in [("iou", &row.iou), ("iobb", &row.iobb)] {
            for (threshold, mean) in THRESHOLDS.iter().zip(means) {
                let (value, interval) = (optional(mean.mean), ends(mean.interval));
                let _ = writeln!(text, "{fixed},{score},{threshold},{value},{interval},{},{}", mean.n, mean.undefined);
            }
        }
    }
    Ok(write_atomic(path, |file| file.write_all(text.as_bytes()))?)
}
