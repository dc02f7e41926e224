//! Occlusion (Zeiler and Fergus, arXiv 1311.2901): a patch slides over the image, and where it covers what the answer hangs
//! on, the answer drops. Geometry and sums; the answers are a network's.

use super::{ExplainError, Map};
use serde::{Deserialize, Serialize};

/// What covers part of an image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Patch {
    /// Its side in pixels; cut to the image where that is smaller.
    pub side: usize,
    /// From one place to the next, at least 1 and at most the side, so that every pixel is covered.
    pub stride: usize,
    /// What the covered pixels are, in [0, 1], in every channel.
    pub fill: f32,
}

impl Patch {
    /// An eighth of the image's longer side, at every half of itself, black.
    pub fn usual(height: usize, width: usize) -> Patch {
        let side = (height.max(width) / 8).max(1);
        Patch { side, stride: side.div_ceil(2), fill: 0.0 }
    }

    /// Upper left corners (row, column) of its places over an image, row by row; the last of each direction ends with it.
    ///
    /// # Errors
    /// [`ExplainError::Patch`] when some pixel would never be covered, or the patch or the image is empty.
    pub fn places(&self, height: usize, width: usize) -> Result<Vec<(usize, usize)>, ExplainError> {
        let Patch { side, stride, fill } = *self;
        if side == 0 || stride == 0 || stride > side || height == 0 || width == 0 || !fill.is_finite() {
            return Err(ExplainError::Patch { side, stride });
        }
        let along = |length: usize| {
            let last = length.saturating_sub(side);
            let mut starts: Vec<usize> = (0..last).step_by(stride).collect();
            starts.push(last);
            starts
        };
        let columns = along(width);
        Ok(along(height).into_iter().flat_map(|row| columns.iter().map(move |&column| (row, column))).collect())
    }

    /// Covers `image` (C x height x width) at a place.
    pub fn cover(&self, image: &mut [f32], (height, width): (usize, usize), (row, column): (usize, usize)) {
        for channel in image.chunks_exact_mut((height * width).max(1)) {
            for line in channel.chunks_exact_mut(width.max(1)).skip(row).take(self.side) {
                let end = line.len().min(column + self.side);
                line[column.min(end)..end].fill(self.fill);
            }
        }
    }

    /// The map of what was lost at each place of [`Patch::places`]: every pixel has the mean of the places that cover it.
    ///
    /// # Errors
    /// [`ExplainError::Patch`] as there; [`ExplainError::Map`] unless there is one loss a place.
    pub fn map(&self, (height, width): (usize, usize), losses: &[f64]) -> Result<Map, ExplainError> {
        let places = self.places(height, width)?;
        if places.len() != losses.len() {
            return Err(ExplainError::Map { height, width, values: losses.len() });
        }
        let (mut sums, mut counts) = (vec![0.0f64; height * width], vec![0u32; height * width]);
        for (&(row, column), loss) in places.iter().zip(losses) {
            for y in row..(row + self.side).min(height) {
                for x in column..(column + self.side).min(width) {
                    sums[y * width + x] += loss;
                    counts[y * width + x] += 1;
                }
            }
        }
        let mean = |(sum, &count): (&f64, &u32)| (sum / f64::from(count)) as f32;
        Map::new(height, width, sums.iter().zip(&counts).map(mean).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_covers_every_pixel_and_nothing_beside_it() {
        for (side, stride, height, width) in [(3, 2, 7, 9), (4, 4, 10, 10), (1, 1, 3, 2), (50, 7, 5, 6), (5, 3, 5, 5)] {
            let patch = Patch { side, stride, fill: -1.0 };
            let mut covered = vec![0; height * width];
            for place in patch.places(height, width).unwrap() {
                let mut image = vec![0.5f32; 2 * height * width];
                patch.cover(&mut image, (height, width), place);
                for (at, &v) in image.iter().enumerate() {
                    let (y, x) = (at % (height * width) / width, at % width);
                    let inside = (place.0..place.0 + side).contains(&y) && (place.1..place.1 + side).contains(&x);
                    assert_eq!(v, if inside { -1.0 } else { 0.5 });
                    covered[at % (height * width)] += usize::from(inside);
                }
                assert_eq!(image.iter().filter(|v| **v == -1.0).count(), 2 * side.min(height) * side.min(width));
            }
            assert!(covered.iter().all(|&n| n > 0), "{side} {stride}");
        }
    }

    #[test]
    fn a_pixel_has_the_mean_of_the_places_that_cover_it() {
        let patch = Patch { side: 2, stride: 1, fill: 0.0 };
        assert_eq!(patch.places(2, 4).unwrap(), [(0, 0), (0, 1), (0, 2)]);
        let map = patch.map((2, 4), &[1.0, 2.0, 6.0]).unwrap();
        assert_eq!(map.values(), [1.0, 1.5, 4.0, 6.0, 1.0, 1.5, 4.0, 6.0]);
        assert!(patch.map((2, 4), &[1.0]).is_err());
    }

    #[test]
    fn a_patch_that_leaves_pixels_out_is_refused() {
        for (side, stride, h) in [(0, 0, 4), (2, 3, 4), (2, 0, 4), (2, 1, 0)] {
            let patch = Patch { side, stride, fill: 0.0 };
            assert!(matches!(patch.places(h, 4), Err(ExplainError::Patch { .. })), "{side} {stride}");
        }
        assert!(Patch { side: 2, stride: 1, fill: f32::NAN }.places(4, 4).is_err());
        let usual = [Patch::usual(28, 28), Patch::usual(224, 224), Patch::usual(3, 2)];
        assert_eq!(usual.map(|p| (p.side, p.stride)), [(3, 2), (28, 14), (1, 1)]);
    }
}
