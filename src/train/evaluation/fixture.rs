//! For tests: scores and what others make of them (`tests/fixtures/make_auroc.py`), and images that are only labels.

use crate::data::files::{Files, Record};
use crate::data::findings::{FINDINGS, Findings};
use crate::data::image::Channels;
use crate::data::transform::{Geometry, Transform};
use crate::data::{Dataset, Policy};

/// Images with findings and perhaps a patient, of files that nobody opens.
pub fn x_rays(rows: &[(&str, Option<&str>)]) -> Dataset {
    let record = |(i, (findings, patient)): (usize, &(&str, Option<&str>))| Record {
        path: format!("{i}.png"),
        findings: Findings::parse(findings).ok(),
        patient: patient.map(str::to_owned),
        ..Record::default()
    };
    let records = rows.iter().enumerate().map(record).collect();
    let transform = Transform { channels: Channels::Grey, geometry: Geometry::As([8, 8]) };
    let (files, _) = Files::open("nowhere".as_ref(), records, transform, Policy::default());
    Dataset::of_files(files, FINDINGS.map(str::to_owned).to_vec())
}

#[derive(serde::Deserialize)]
pub struct Case {
    pub scores: Vec<f64>,
    #[serde(deserialize_with = "flags")]
    pub present: Vec<bool>,
    pub patient: Vec<u32>,
    pub area: f64,
    pub delong: f64,
    pub clustered: f64,
    pub lo: f64,
    pub hi: f64,
    pub threshold: f64,
    pub average_precision: f64,
}

fn flags<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Vec<bool>, D::Error> {
    let numbers: Vec<u8> = serde::Deserialize::deserialize(source)?;
    Ok(numbers.into_iter().map(|n| n == 1).collect())
}

/// All cases; patients are numbered without gaps.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> =
        serde_json::from_str(include_str!("../../../tests/fixtures/auroc.json")).expect("a fixture");
    for case in &mut cases {
        let mut known: Vec<u32> = case.patient.clone();
        known.sort_unstable();
        known.dedup();
        case.patient.iter_mut().for_each(|p| *p = known.partition_point(|k| k < p) as u32);
    }
    cases
}
