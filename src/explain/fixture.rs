//! For tests: maps and what others make of them (`tests/fixtures/make_maps.py`).

use super::Map;

#[derive(serde::Deserialize)]
pub struct Grid {
    height: usize,
    width: usize,
    values: Vec<f32>,
}

impl Grid {
    pub fn map(&self) -> Map {
        Map::new(self.height, self.width, self.values.clone()).expect("a fixture")
    }

    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }
}

#[derive(serde::Deserialize)]
pub struct Pair {
    pub a: Grid,
    pub b: Grid,
    pub range: f64,
    pub spearman: f64,
    pub ssim: f64,
    pub similarity: f64,
    pub top_value: f64,
    pub top_magnitude: f64,
}

#[derive(serde::Deserialize)]
pub struct Resized {
    pub map: Grid,
    pub out: Grid,
}

#[derive(serde::Deserialize)]
pub struct Curve {
    pub answers: Vec<f64>,
    pub area: f64,
}

#[derive(serde::Deserialize)]
pub struct Npy {
    pub map: Grid,
    pub bytes: Vec<u8>,
}

#[derive(serde::Deserialize)]
pub struct Fixture {
    pub npy: Vec<Npy>,
    pub pairs: Vec<Pair>,
    pub resized: Vec<Resized>,
    pub curves: Vec<Curve>,
}

pub fn read() -> Fixture {
    serde_json::from_str(include_str!("../../tests/fixtures/maps.json")).expect("a fixture")
}
