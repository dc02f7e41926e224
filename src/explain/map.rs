//! A map: one number a cell, and what can be said of it before anybody draws or compares it. Called by everything in
//! `explain`.

use super::ExplainError;

/// One number a cell of a grid, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    height: usize,
    width: usize,
    values: Vec<f32>,
}

/// What is remarkable about a map as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// Nothing: its values differ.
    Ordinary,
    /// 0 everywhere: nothing was found, or all of it was cut off.
    Zero,
    /// The same number everywhere, not 0.
    Constant,
    /// Some value is not a number, or infinite.
    NotFinite,
}

impl Flag {
    /// Its name in tables; empty for an ordinary map.
    pub fn name(self) -> &'static str {
        match self {
            Flag::Ordinary => "",
            Flag::Zero => "zero",
            Flag::Constant => "constant",
            Flag::NotFinite => "nan",
        }
    }
}

impl Map {
    /// A map of `height` x `width` cells, at least one.
    ///
    /// # Errors
    /// [`ExplainError::Map`] when there is not one value a cell.
    pub fn new(height: usize, width: usize, values: Vec<f32>) -> Result<Map, ExplainError> {
        if values.is_empty() || height.checked_mul(width) != Some(values.len()) {
            return Err(ExplainError::Map { height, width, values: values.len() });
        }
        Ok(Map { height, width, values })
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height and width.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Its values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Least and largest value; `None` when one is not finite.
    pub fn range(&self) -> Option<(f32, f32)> {
        let finite = self.values.iter().all(|v| v.is_finite());
        let all = self.values.iter().copied();
        finite.then(|| all.fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v))))
    }

    /// What is remarkable about it.
    pub fn flag(&self) -> Flag {
        match self.range() {
            None => Flag::NotFinite,
            Some((lo, hi)) if lo == 0.0 && hi == 0.0 => Flag::Zero,
            Some((lo, hi)) if lo == hi => Flag::Constant,
            Some(_) => Flag::Ordinary,
        }
    }

    /// What speaks for the class alone: max(0, value). A NaN stays one.
    pub fn positive_part(mut self) -> Map {
        // f32::max would swallow a NaN
        self.values.iter_mut().filter(|v| **v < 0.0).for_each(|v| *v = 0.0);
        self
    }

    /// The map at `height` x `width`, bilinearly between the centres of cells (PyTorch's `interpolate` with
    /// `align_corners=False`, without antialiasing); beyond the outermost centres their values go on. Constants stay what
    /// they are to the bit, and a NaN reaches every cell that it has a share in.
    ///
    /// # Errors
    /// [`ExplainError::Map`] for a size of 0.
    pub fn resized(&self, height: usize, width: usize) -> Result<Map, ExplainError> {
        if (height, width) == self.size() {
            return Ok(self.clone());
        }
        let (rows, columns) = (sources(self.height, height), sources(self.width, width));
        let mut values = Vec::with_capacity(height.saturating_mul(width));
        for &(top, bottom, down) in &rows {
            let row = |at: usize| &self.values[at * self.width..(at + 1) * self.width];
            let (top, bottom) = (row(top), row(bottom));
            for &(left, right, across) in &columns {
                let upper = between(top[left], top[right], across);
                let lower = between(bottom[left], bottom[right], across);
                values.push((upper + down * (lower - upper)) as f32);
            }
        }
        Map::new(height, width, values)
    }
}

fn between(a: f32, b: f32, share: f64) -> f64 {
    // this form, and not a(1 - t) + bt, leaves equal neighbours what they are
    f64::from(a) + share * (f64::from(b) - f64::from(a))
}

/// For each of `to` cells the two of `from` that it lies between, and how far it is from the first towards the second.
fn sources(from: usize, to: usize) -> Vec<(usize, usize, f64)> {
    let scale = from as f64 / to as f64;
    let one = |i: usize| {
        let at = ((i as f64 + 0.5) * scale - 0.5).clamp(0.0, (from - 1) as f64);
        let first = at.floor() as usize;
        (first, (first + 1).min(from - 1), at - first as f64)
    };
    (0..to).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn a_resized_map_is_what_scipy_interpolates() {
        let cases = fixture::read().resized;
        assert!(cases.len() >= 4);
        for case in cases {
            let map = case.map.map().resized(case.out.size().0, case.out.size().1).unwrap();
            for (got, want) in map.values().iter().zip(case.out.map().values()) {
                // both are rounded to f32 once
                assert!((got - want).abs() <= 2.0 * f32::EPSILON * want.abs().max(1.0), "{got} {want}");
            }
        }
    }

    #[test]
    fn a_constant_map_stays_what_it_is_at_every_size() {
        for value in [0.1f32, -7.3, 0.0, 1e-30] {
            let map = Map::new(5, 3, vec![value; 15]).unwrap();
            for (h, w) in [(1, 1), (5, 3), (7, 11), (28, 28), (2, 40)] {
                assert!(map.resized(h, w).unwrap().values().iter().all(|v| v.to_bits() == value.to_bits()));
            }
        }
    }

    #[test]
    fn a_map_says_what_is_remarkable_about_it() {
        let flag = |values: &[f32]| Map::new(1, values.len(), values.to_vec()).unwrap().flag();
        assert_eq!(flag(&[0.0, -0.0]), Flag::Zero);
        assert_eq!(flag(&[2.0, 2.0]), Flag::Constant);
        assert_eq!(flag(&[2.0, 3.0]), Flag::Ordinary);
        assert_eq!(flag(&[2.0, f32::NAN]), Flag::NotFinite);
        assert_eq!(flag(&[f32::NEG_INFINITY, 1.0]), Flag::NotFinite);
        let cut = Map::new(1, 3, vec![-1.0, 2.0, f32::NAN]).unwrap().positive_part();
        assert!(cut.values()[..2] == [0.0, 2.0] && cut.values()[2].is_nan());
    }

    #[test]
    fn a_map_without_a_value_for_each_cell_is_refused() {
        for (h, w, n) in [(2, 2, 3), (0, 3, 0), (usize::MAX, 2, 2)] {
            assert!(matches!(Map::new(h, w, vec![0.0; n]), Err(ExplainError::Map { .. })), "{h} {w} {n}");
        }
        let map = Map::new(1, 1, vec![1.0]).unwrap();
        assert!(map.resized(0, 4).is_err() && map.resized(4, 0).is_err());
    }
}
