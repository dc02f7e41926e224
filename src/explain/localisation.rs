//! Whether a map lies where somebody marked a place: the pointing game (Zhang et al., arXiv 1608.00507), and overlap of what
//! a map holds above a threshold with a box (IoU, and IoBB as Wang et al., arXiv 1705.02315, use it). Called by the verb `map`
//! for data sets with boxes.

use super::agreement::{By, order};
use super::{ExplainError, Map};

/// Thresholds that overlaps are reported at, as shares of a map's largest value.
pub const THRESHOLDS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// A box in cells of a map: column x to x + width, row y to y + height; cell (0, 0) fills 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width, above 0.
    pub width: f64,
    /// Height, above 0.
    pub height: f64,
}

/// How much of what stands out lies in a box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overlap {
    /// Intersection over union.
    pub iou: f64,
    /// Intersection over the area that stands out.
    pub iobb: f64,
}

impl Place {
    /// The part of the box that lies in `map`.
    ///
    /// # Errors
    /// [`ExplainError::Place`] when there is none.
    fn within(self, map: &Map) -> Result<Place, ExplainError> {
        let clip = |from: f64, length: f64, cells: usize| {
            let (lo, hi) = (from.max(0.0), (from + length).min(cells as f64));
            // max and min swallow a NaN
            (from.is_finite() && length.is_finite() && hi > lo).then_some((lo, hi - lo))
        };
        let columns = clip(self.x, self.width, map.width());
        match (columns, clip(self.y, self.height, map.height())) {
            (Some((x, width)), Some((y, height))) => Ok(Place { x, y, width, height }),
            _ => Err(ExplainError::Place { place: self, height: map.height(), width: map.width() }),
        }
    }
}

/// The pointing game: whether the middle of the largest cell (the first of equals) lies in the box. `None` for a constant map
/// or one that holds what is no number: it points nowhere.
///
/// # Errors
/// [`ExplainError::Place`] when the box lies outside of the map.
pub fn points_into(map: &Map, place: Place) -> Result<Option<bool>, ExplainError> {
    let place = place.within(map)?;
    if !map.range().is_some_and(|(lo, hi)| lo < hi) {
        return Ok(None);
    }
    let Some(&largest) = order(map, By::Value).first() else { return Ok(None) };
    let (row, column) = ((largest / map.width()) as f64 + 0.5, (largest % map.width()) as f64 + 0.5);
    let inside = |at: f64, from: f64, length: f64| at >= from && at < from + length;
    Ok(Some(inside(column, place.x, place.width) && inside(row, place.y, place.height)))
}

/// Overlap of the box with the cells that reach `threshold` times the largest value, by areas. `None` where the largest value
/// is not above 0 or some value is no number.
///
/// # Errors
/// [`ExplainError::Place`] when the box lies outside of the map.
pub fn overlap(map: &Map, place: Place, threshold: f64) -> Result<Option<Overlap>, ExplainError> {
    let place = place.within(map)?;
    let Some((_, largest)) = map.range().filter(|(_, hi)| *hi > 0.0) else { return Ok(None) };
    let least = threshold * f64::from(largest);
    let shared = |cell: usize, from: f64, length: f64| {
        let (lo, hi) = (from.max(cell as f64), (from + length).min(cell as f64 + 1.0));
        (hi - lo).max(0.0)
    };
    let (mut area, mut inside) = (0.0, 0.0);
    for (i, _) in map.values().iter().enumerate().filter(|(_, v)| f64::from(**v) >= least) {
        area += 1.0;
        inside += shared(i % map.width(), place.x, place.width) * shared(i / map.width(), place.y, place.height);
    }
    let union = area + place.width * place.height - inside;
    Ok((area > 0.0).then_some(Overlap { iou: inside / union, iobb: inside / area }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(values: &[f32]) -> Map {
        Map::new(4, 5, values.to_vec()).unwrap()
    }

    /// 4 rows of 5: 8 in the second row's last cell, 4 left of it, 1 below them, 0 elsewhere.
    fn example() -> Map {
        let mut values = [0.0; 20];
        (values[9], values[8], values[14], values[13]) = (8.0, 4.0, 1.0, 1.0);
        map(&values)
    }

    fn place(x: f64, y: f64, width: f64, height: f64) -> Place {
        Place { x, y, width, height }
    }

    #[test]
    fn a_map_points_into_a_box_that_holds_the_middle_of_its_largest_cell() {
        let map = example();
        let hits = |x, y, w, h| points_into(&map, place(x, y, w, h)).unwrap();
        assert_eq!(hits(4.0, 1.0, 1.0, 1.0), Some(true));
        assert_eq!(hits(4.4, 1.4, 0.2, 0.2), Some(true));
        assert_eq!(hits(4.6, 1.0, 0.4, 1.0), Some(false));
        assert_eq!(hits(0.0, 0.0, 4.0, 4.0), Some(false));
        // a box that reaches over the edge counts with what lies within
        assert_eq!(hits(3.5, -2.0, 9.0, 9.0), Some(true));
        // of equals the first
        let mut values = [0.0; 20];
        (values[3], values[17]) = (1.0, 1.0);
        let twins = Map::new(4, 5, values.to_vec()).unwrap();
        assert_eq!(points_into(&twins, place(3.0, 0.0, 1.0, 1.0)).unwrap(), Some(true));
        assert_eq!(points_into(&twins, place(2.0, 3.0, 1.0, 1.0)).unwrap(), Some(false));
    }

    #[test]
    fn overlap_is_the_hand_worked_one() {
        let map = example();
        let at = |t: f64, p: Place| overlap(&map, p, t).unwrap().unwrap();
        // cells 8 and 9 reach a half; the box holds half of cell 8 and two more cells' worth
        let p = place(2.5, 1.0, 1.0, 1.0);
        let o = at(0.5, p);
        assert_eq!(o, Overlap { iou: 0.5 / 2.5, iobb: 0.25 });
        // all four reach a tenth
        let o = at(0.1, place(3.0, 1.0, 2.0, 2.0));
        assert_eq!(o, Overlap { iou: 1.0, iobb: 1.0 });
        let o = at(0.9, place(3.0, 1.0, 2.0, 2.0));
        assert_eq!(o, Overlap { iou: 0.25, iobb: 1.0 });
        assert_eq!(at(0.5, place(0.0, 0.0, 2.0, 2.0)), Overlap { iou: 0.0, iobb: 0.0 });
    }

    #[test]
    fn maps_that_point_nowhere_and_boxes_outside_are_told_apart() {
        let everywhere = place(0.0, 0.0, 5.0, 4.0);
        let mut nan = [1.0; 20];
        nan[4] = f32::NAN;
        for values in [[0.0; 20], [3.0; 20], nan] {
            assert_eq!(points_into(&map(&values), everywhere).unwrap(), None);
        }
        assert_eq!(overlap(&map(&[0.0; 20]), everywhere, 0.1).unwrap(), None);
        assert_eq!(overlap(&map(&[-1.0; 20]), everywhere, 0.1).unwrap(), None);
        assert_eq!(overlap(&map(&nan), everywhere, 0.1).unwrap(), None);
        for p in [place(5.0, 0.0, 1.0, 1.0), place(0.0, 0.0, 0.0, 1.0), place(f64::NAN, 0.0, 1.0, 1.0)] {
            assert!(matches!(points_into(&example(), p), Err(ExplainError::Place { .. })), "{p:?}");
            assert!(overlap(&example(), p, 0.5).is_err());
        }
    }
}
