//! For tests: seeded normals, and what other libraries make of columns (`tests/fixtures/make_statistics.py`).

use super::Clusters;
use crate::random::Stream;

/// Standard normals by Box and Muller.
pub fn normals(stream: &Stream, dataset: u64, n: usize) -> Vec<f64> {
    let one = |i: u32| {
        let u = 1.0 - f64::from(stream.uniform(dataset, 2 * i));
        let v = f64::from(stream.uniform(dataset, 2 * i + 1));
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    (0..n as u32).map(one).collect()
}

#[derive(serde::Deserialize)]
pub struct Cases {
    pub bca: Vec<Bootstrapped>,
    pub permutation: Vec<Permuted>,
    pub adjusted: Vec<Adjusted>,
    pub equivalence: Vec<Tested>,
    pub agreement: Vec<Agreed>,
}

#[derive(serde::Deserialize)]
pub struct Bootstrapped {
    pub name: String,
    statistic: String,
    pub columns: Vec<Vec<f64>>,
    patient: Option<Vec<u32>>,
    pub level: f64,
    pub resamples: usize,
    pub lo: f64,
    pub hi: f64,
    pub noise_lo: f64,
    pub noise_hi: f64,
    pub acceleration: f64,
}

impl Bootstrapped {
    pub fn clusters(&self) -> Clusters {
        clusters(self.patient.as_deref(), self.columns[0].len())
    }

    /// Of means of columns.
    pub fn statistic(&self) -> fn(&[f64]) -> f64 {
        match self.statistic.as_str() {
            "mean" => |m| m[0],
            "variance" => |m| m[1] - m[0] * m[0],
            "ratio" => |m| m[0] / m[1],
            "difference of sizes" => |m| m[0].abs() - m[1].abs(),
            other => panic!("no statistic {other}"),
        }
    }
}

#[derive(serde::Deserialize)]
pub struct Permuted {
    pub name: String,
    pub with: Vec<f64>,
    pub without: Vec<f64>,
    patient: Option<Vec<u32>>,
    pub p: f64,
}

impl Permuted {
    pub fn clusters(&self) -> Clusters {
        clusters(self.patient.as_deref(), self.with.len())
    }
}

#[derive(serde::Deserialize)]
pub struct Adjusted {
    pub p: Vec<f64>,
    pub bh: Vec<f64>,
    pub holm: Vec<f64>,
}

#[derive(serde::Deserialize)]
pub struct Tested {
    pub name: String,
    pub column: Vec<f64>,
    patient: Option<Vec<u32>>,
    pub margin: f64,
    pub mean: f64,
    pub se: f64,
    pub freedom: f64,
    pub p_below: f64,
    pub p_above: f64,
    pub p_zero: f64,
}

impl Tested {
    pub fn clusters(&self) -> Clusters {
        clusters(self.patient.as_deref(), self.column.len())
    }
}

#[derive(serde::Deserialize)]
pub struct Agreed {
    pub name: String,
    pub a: Vec<f64>,
    pub b: Vec<f64>,
    pub pearson: f64,
    pub spearman: f64,
    pub kendall: f64,
}

fn clusters(patient: Option<&[u32]>, images: usize) -> Clusters {
    patient.map_or_else(|| Clusters::single(images), Clusters::new).expect("images")
}

pub fn cases() -> Cases {
    serde_json::from_str(include_str!("../../../tests/fixtures/statistics.json")).expect("a fixture")
}
