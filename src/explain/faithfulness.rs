//! Whether a map names the pixels that the answer hangs on: deletion and insertion curves (Petsiuk et al., arXiv 1806.07421) and
//! the average drop (Chattopadhay et al., arXiv 1710.11063). What is here makes the changed images and reads the answers; the
//! answers are a network's. Called by the verb `map`.

use super::agreement::{By, order};
use super::{ExplainError, Map};

/// What is done with the pixels that a map names first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// They are taken out of the image: a good map lets the answer fall early.
    Deletion,
    /// They are put into an empty one: a good map lets the answer rise early.
    Insertion,
}

impl Course {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Course::Deletion => "deletion",
            Course::Insertion => "insertion",
        }
    }
}

/// The images of a curve: `image` (C x H x W) with the first 0, 1/steps, … 1 of its pixels taken out or put in, in the order
/// of the map's values from the largest (of equals the first), every channel of a pixel at once. A pixel that is out is
/// `fill`. The map has the image's size ([`Map::resized`]). (steps + 1) images.
///
/// # Errors
/// [`ExplainError::Pixels`] when the image is no whole number of channels of the map's size; [`ExplainError::Steps`] for none.
pub fn course(image: &[f32], map: &Map, course: Course, steps: usize, fill: f32) -> Result<Vec<f32>, ExplainError> {
    let cells = map.values().len();
    if image.is_empty() || !image.len().is_multiple_of(cells) {
        return Err(ExplainError::Pixels { pixels: image.len(), cells });
    }
    if steps == 0 {
        return Err(ExplainError::Steps);
    }
    let order = order(map, By::Value);
    let (mut now, takes) = match course {
        Course::Deletion => (image.to_vec(), false),
        Course::Insertion => (vec![fill; image.len()], true),
    };
    let mut all = Vec::with_capacity(image.len() * (steps + 1));
    let mut done = 0;
    for step in 0..=steps {
        let reached = cells * step / steps;
        for &cell in &order[done..reached] {
            for at in (cell..image.len()).step_by(cells) {
                now[at] = if takes { image[at] } else { fill };
            }
        }
        done = reached;
        all.extend_from_slice(&now);
    }
    Ok(all)
}

/// The area under a curve of answers at equal distances from 0 to 1, by trapezia. `None` below two answers, or where one is
/// no number.
pub fn area(answers: &[f64]) -> Option<f64> {
    let steps = answers.len().checked_sub(1).filter(|&steps| steps > 0)?;
    let finite = answers.iter().all(|a| a.is_finite());
    let sum: f64 = answers.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).sum();
    finite.then(|| sum / steps as f64)
}

/// The image times the map's positive part over its largest value: what is left where the map says nothing is 0. `None` where
/// the largest value is not above 0 or some value is no number.
///
/// # Errors
/// [`ExplainError::Pixels`] when the image is no whole number of channels of the map's size.
pub fn masked(image: &[f32], map: &Map) -> Result<Option<Vec<f32>>, ExplainError> {
    let cells = map.values().len();
    if image.is_empty() || !image.len().is_multiple_of(cells) {
        return Err(ExplainError::Pixels { pixels: image.len(), cells });
    }
    let Some((_, largest)) = map.range().filter(|(_, hi)| *hi > 0.0) else { return Ok(None) };
    let share = |v: f32| (v / largest).max(0.0);
    Ok(Some(image.iter().zip(map.values().iter().cycle()).map(|(x, &v)| x * share(v)).collect()))
}

/// Which part of the answer `whole` is lost where only what the map names is shown (`shown`): max(0, whole - shown) / whole;
/// their mean over images is the average drop. `None` where the answer is 0; not a number where an answer is none.
pub fn drop(whole: f64, shown: f64) -> Option<f64> {
    if !(whole.is_finite() && shown.is_finite()) {
        return Some(f64::NAN);
    }
    (whole > 0.0).then(|| (whole - shown).max(0.0) / whole)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn pixels_go_and_come_in_the_order_of_the_map_in_all_channels_at_once() {
        let image: Vec<f32> = (1..=8).map(|v| v as f32).collect();
        let map = Map::new(2, 2, vec![0.5, 3.0, -1.0, 0.5]).unwrap();
        let got = course(&image, &map, Course::Deletion, 4, 0.0).unwrap();
        let want: [[f32; 8]; 5] = [
            [1., 2., 3., 4., 5., 6., 7., 8.],
            [1., 0., 3., 4., 5., 0., 7., 8.],
            [0., 0., 3., 4., 0., 0., 7., 8.],
            [0., 0., 3., 0., 0., 0., 7., 0.],
            [0.; 8],
        ];
        assert_eq!(got, want.concat());
        let got = course(&image, &map, Course::Insertion, 2, 9.0).unwrap();
        let want: [[f32; 8]; 3] = [[9.; 8], [1., 2., 9., 9., 5., 6., 9., 9.], [1., 2., 3., 4., 5., 6., 7., 8.]];
        assert_eq!(got, want.concat());
        // more steps than pixels: some change nothing, and the last has changed all
        let got = course(&image, &map, Course::Deletion, 7, 0.0).unwrap();
        assert!(got.len() == 8 * 8 && got[..8] == image[..] && got[7 * 8..].iter().all(|&v| v == 0.0));
        assert!(matches!(course(&image[1..], &map, Course::Deletion, 4, 0.0), Err(ExplainError::Pixels { .. })));
        assert!(matches!(course(&image, &map, Course::Deletion, 0, 0.0), Err(ExplainError::Steps)));
    }

    #[test]
    fn areas_are_numpys() {
        let curves = fixture::read().curves;
        assert!(curves.len() >= 3);
        for curve in curves {
            let got = area(&curve.answers).unwrap();
            assert!((got - curve.area).abs() <= 1e-14, "{got} for {}", curve.area);
        }
        assert_eq!(area(&[0.25; 9]), Some(0.25));
        assert_eq!(area(&[1.0]), None);
        assert_eq!(area(&[]), None);
        assert_eq!(area(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn a_drop_is_a_part_of_the_answer_and_what_rises_has_not_dropped() {
        assert_eq!(drop(0.8, 0.2), Some((0.8 - 0.2) / 0.8));
        assert_eq!(drop(0.5, 0.9), Some(0.0));
        assert_eq!(drop(0.0, 0.1), None);
        // what is no number stays none, and is counted
        assert!([drop(f64::NAN, 0.1), drop(0.5, f64::NAN)].iter().all(|d| d.is_some_and(f64::is_nan)));
        let map = Map::new(1, 2, vec![2.0, -1.0]).unwrap();
        assert_eq!(masked(&[0.5, 0.5, 0.25, 0.75], &map).unwrap(), Some(vec![0.5, 0.0, 0.25, 0.0]));
        let map = Map::new(1, 2, vec![0.0, -1.0]).unwrap();
        assert_eq!(masked(&[0.5, 0.5], &map).unwrap(), None);
    }
}
