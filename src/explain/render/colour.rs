//! From numbers to colours: blue below 0, white at 0, red above, on a scale that several maps can share.

use super::super::Map;

/// Colours of -1, -1/2, 0, 1/2 and 1, between which the others lie; of equal lightness on both sides, told apart by those who
/// do not see red and green.
const STOPS: [[f64; 3]; 5] =
    [[5.0, 62.0, 140.0], [94.0, 158.0, 214.0], [255.0, 255.0, 255.0], [240.0, 128.0, 98.0], [172.0, 14.0, 30.0]];

/// What is drawn where there is no number.
pub const NO_NUMBER: [[u8; 3]; 2] = [[60, 60, 60], [160, 160, 160]];

/// A scale from -largest to largest, so that 0 is white whatever is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    largest: f32,
}

impl Scale {
    /// The scale of all these maps together: its end is the largest magnitude among their finite values; 0 where there is none.
    pub fn shared<'a>(maps: impl IntoIterator<Item = &'a Map>) -> Scale {
        let values = maps.into_iter().flat_map(|map| map.values());
        Scale { largest: values.filter(|v| v.is_finite()).fold(0.0, |m, v| m.max(v.abs())) }
    }

    /// Its upper end.
    pub fn largest(self) -> f32 {
        self.largest
    }

    /// The colour of a value; `None` for what is no number. An infinite value has the colour of the end.
    pub fn colour(self, value: f32) -> Option<[f64; 3]> {
        if value.is_nan() {
            return None;
        }
        let share = match (self.largest > 0.0, value.is_infinite()) {
            (_, true) => f64::from(value.signum()),
            (true, false) => f64::from(value) / f64::from(self.largest),
            (false, false) => 0.0,
        };
        let at = (share.clamp(-1.0, 1.0) + 1.0) * 2.0;
        let first = (at.floor() as usize).min(STOPS.len() - 2);
        let t = at - first as f64;
        Some(std::array::from_fn(|c| STOPS[first][c] + t * (STOPS[first + 1][c] - STOPS[first][c])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_white_and_both_ends_are_far_from_it_and_from_each_other() {
        let map = |values: &[f32]| Map::new(1, values.len(), values.to_vec()).unwrap();
        let scale = Scale::shared(&[map(&[0.5, -2.0]), map(&[1.0, f32::NAN, f32::INFINITY])]);
        assert_eq!(scale.largest(), 2.0);
        assert_eq!(scale.colour(0.0), Some([255.0; 3]));
        assert_eq!(scale.colour(-0.0), Some([255.0; 3]));
        let (low, high) = (scale.colour(-2.0).unwrap(), scale.colour(2.0).unwrap());
        assert!(low[2] > low[0] + 100.0 && high[0] > high[2] + 100.0);
        assert_eq!((scale.colour(9.0), scale.colour(f32::NEG_INFINITY)), (Some(high), Some(low)));
        assert_eq!(scale.colour(f32::NAN), None);
        // redder and redder
        let reds: Vec<f64> = (0..=20).map(|i| scale.colour(i as f32 / 10.0).unwrap()[1]).collect();
        assert!(reds.windows(2).all(|pair| pair[1] < pair[0]), "{reds:?}");
    }

    #[test]
    fn a_scale_of_nothing_is_white_and_never_a_division_by_zero() {
        let zero = Map::new(1, 2, vec![0.0, -0.0]).unwrap();
        let scale = Scale::shared(&[zero]);
        assert_eq!((scale.largest(), scale.colour(0.0)), (0.0, Some([255.0; 3])));
        let none = Map::new(1, 1, vec![f32::NAN]).unwrap();
        assert_eq!(Scale::shared(&[none]).largest(), 0.0);
    }
}
