//! The gallery of a run: `gallery/node-03.png`, a sheet a node, and `gallery/gallery.json`, what is on it.
//!
//! A sheet has two rows of tiles. The first: the node's mean map, then the images that excite it most, each with a frame around
//! the place that does. The second, behind a blank tile: the images on which setting it to 0 changes the answer most.

use super::run::SCHEMA_VERSION;
use crate::atomic::write_atomic;
use crate::causal::gallery::{Gallery, Place};
use crate::data::Dataset;
use crate::error::Error;
use crate::picture::{self, Channels};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where sheets are in the run directory.
pub const GALLERY: &str = "gallery";
/// Images in each row of a sheet.
pub const SHOWN: usize = 9;
/// Pixels of a tile's longer side.
const TILE: usize = 72;
/// Pixels between tiles.
const GAP: usize = 4;
/// Of frames: orange, seen on grey and on most photographs.
const FRAME: [u8; 3] = [255, 140, 0];

/// What one sheet shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sheet {
    /// The node's number.
    pub node: String,
    /// Share of images on which it is not 0 everywhere.
    pub live_share: f64,
    /// Images that excite it most.
    pub strongest: Vec<Place>,
    /// Images on which its effect is largest, and that effect.
    pub effects: Vec<(usize, f64)>,
}

/// `gallery.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Version of this file's layout.
    pub schema_version: u32,
    /// Whose gallery it is.
    pub run_id: String,
    /// Images that it was made from.
    pub images: usize,
    /// Height and width of the code.
    pub size: [usize; 2],
    /// A node each.
    pub sheets: Vec<Sheet>,
}

/// Name of a node's sheet in the run directory.
pub fn sheet_name(node: &str) -> String {
    format!("{GALLERY}/node-{node:0>2}.png")
}

/// Writes sheets and index into `root`. `effects` are columns, an effect an image; one for each node of the gallery that has a
/// sheet, by its number.
///
/// # Errors
/// [`Error::Write`]; [`Error::Data`] when an image cannot be read.
pub fn write(
    root: &Path,
    run_id: &str,
    gallery: &Gallery,
    effects: &[(usize, &[f64])],
    data: &Dataset,
) -> Result<(), Error> {
    let directory = root.join(GALLERY);
    std::fs::create_dir_all(&directory)
        .map_err(|e| Error::Failed(format!("{}: cannot create it: {e}", directory.display())))?;
    let mut sheets = Vec::new();
    for &(node, column) in effects {
        let Some(figures) = gallery.nodes.get(node) else { continue };
        let mut order: Vec<usize> = (0..column.len()).filter(|&i| column[i] != 0.0 && !column[i].is_nan()).collect();
        order.sort_by(|&a, &b| column[b].abs().total_cmp(&column[a].abs()).then(a.cmp(&b)));
        order.truncate(SHOWN);
        let sheet = Sheet {
            node: node.to_string(),
            live_share: figures.live as f64 / gallery.images.max(1) as f64,
            strongest: figures.strongest.iter().copied().take(SHOWN).collect(),
            effects: order.into_iter().map(|i| (i, column[i])).collect(),
        };
        let picture = draw(&sheet, &gallery.mean(node), gallery.size, data)?;
        picture.save(&root.join(sheet_name(&sheet.node)))?;
        sheets.push(sheet);
    }
    let index = Index {
        schema_version: SCHEMA_VERSION,
        run_id: run_id.into(),
        images: gallery.images,
        size: gallery.size,
        sheets,
    };
    let text = serde_json::to_string_pretty(&index).map_err(|e| Error::Failed(e.to_string()))?;
    Ok(write_atomic(&directory.join("gallery.json"), |file| writeln!(file, "{text}"))?)
}

/// A picture of 8-bit RGB, transparent where nothing is set, so that a page's paper shows between the tiles.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    fn new(width: usize, height: usize) -> Picture {
        Picture { width, height, pixels: vec![0; 4 * width * height] }
    }

    fn set(&mut self, x: usize, y: usize, color: [u8; 3]) {
        if x < self.width && y < self.height {
            let at = 4 * (y * self.width + x);
            self.pixels[at..at + 4].copy_from_slice(&[color[0], color[1], color[2], 255]);
        }
    }

    fn save(&self, path: &Path) -> Result<(), Error> {
        let size = [self.width, self.height];
        Ok(write_atomic(path, |file| file.write_all(&picture::png(&self.pixels, size, Channels::Rgba)?))?)
    }
}

fn draw(sheet: &Sheet, mean: &[f32], size: [usize; 2], data: &Dataset) -> Result<Picture, Error> {
    let &[channels, height, width] = data.shape().dims() else {
        return Err(Error::Failed(format!("images of {} cannot be shown", data.shape())));
    };
    // the longer side fills the tile, whole pixels where the image is smaller
    let scale = TILE as f64 / height.max(width) as f64;
    let [tall, wide] = [height, width].map(|side| ((side as f64 * scale).round() as usize).max(1));
    let mut picture = Picture::new((SHOWN + 1) * (wide + GAP), 2 * (tall + GAP));
    let from = |to: usize, at: usize, side: usize| (at * side / to.max(1)).min(side.saturating_sub(1));
    let largest = mean.iter().fold(0.0f32, |m, &v| m.max(v));
    for (y, x) in (0..tall).flat_map(|y| (0..wide).map(move |x| (y, x))) {
        let value = mean.get(from(tall, y, size[0]) * size[1] + from(wide, x, size[1])).copied().unwrap_or(0.0);
        // from white to dark blue
        let dark = if largest > 0.0 { f64::from(value / largest) } else { 0.0 };
        let shade = |to: f64| (255.0 + (to - 255.0) * dark) as u8;
        picture.set(x, y, [shade(8.0), shade(48.0), shade(107.0)]);
    }
    let places = sheet.strongest.iter().map(|place| (0, place.image, Some(place.at)));
    let effects = sheet.effects.iter().map(|&(image, _)| (1, image, None));
    let rows = [places.collect::<Vec<_>>(), effects.collect()];
    for (column, &(row, image, at)) in rows.iter().flat_map(|row| row.iter().enumerate()) {
        let pixels = data.pixels(&[image as u32])?;
        let (left, top) = ((column + 1) * (wide + GAP), row * (tall + GAP));
        for (y, x) in (0..tall).flat_map(|y| (0..wide).map(move |x| (y, x))) {
            let value = |channel: usize| {
                let channel = channel.min(channels.saturating_sub(1));
                let at = (channel * height + from(tall, y, height)) * width + from(wide, x, width);
                (pixels.get(at).copied().unwrap_or(0.0) * 255.0).round() as u8
            };
            picture.set(left + x, top + y, [value(0), value(1), value(2)]);
        }
        let Some([v, u]) = at else { continue };
        // a frame of a seventh of the tile around the middle of the place
        let half = (tall.min(wide) / 7).max(2) as isize;
        let middle = |at: usize, side: usize, of: usize| ((at as f64 + 0.5) / side.max(1) as f64 * of as f64) as isize;
        let (cy, cx) = (middle(v, size[0], tall), middle(u, size[1], wide));
        for d in -half..=half {
            for (y, x) in [(cy - half, cx + d), (cy + half, cx + d), (cy + d, cx - half), (cy + d, cx + half)] {
                if (0..tall as isize).contains(&y) && (0..wide as isize).contains(&x) {
                    picture.set(left + x as usize, top + y as usize, FRAME);
                }
            }
        }
    }
    Ok(picture)
}
