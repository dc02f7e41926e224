//! What masked pixels are filled with. Called by [`super::perturbation`].

use super::CausalError;
use super::mask::Mask;
use crate::random::Stream;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What masked pixels become; in configurations a number, or a name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fill {
    /// This value in [0, 1], in every channel.
    Value(f32),
    /// Something made of the image, or of chance.
    Made(Made),
}

/// A fill that is not one value for all images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Made {
    /// The image's own mean, a channel at a time.
    Mean,
    /// The image itself, blurred: a Gaussian of a twentieth of the shorter side, of the pixels inside only.
    Blur,
    /// Uniform in [0, 1), each pixel and channel by itself: Philox(seed, "fill", image, number of the mask x C H W + pixel).
    Noise,
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fill::Value(value) => write!(f, "{value}"),
            Fill::Made(Made::Mean) => f.write_str("mean"),
            Fill::Made(Made::Blur) => f.write_str("blur"),
            Fill::Made(Made::Noise) => f.write_str("noise"),
        }
    }
}

/// Shorter side over the blur's standard deviation.
const BLUR: f64 = 20.0;

impl Fill {
    /// Fills the masked pixels of one image (C x H x W in [0, 1]); `seed`, `image` and `number` (of the mask) are for noise.
    ///
    /// # Errors
    /// [`CausalError::Length`] when the image is not of the mask's size, [`CausalError::Range`] for a mask number beyond noise's
    /// stream.
    pub fn apply(self, pixels: &mut [f32], mask: &Mask, seed: u64, image: u64, number: u32) -> Result<(), CausalError> {
        let plane = mask.taken().len();
        match self {
            Fill::Value(value) => mask.apply(pixels, |_, _| value),
            Fill::Made(Made::Mean) => {
                let mean = |channel: &[f32]| channel.iter().map(|&x| f64::from(x)).sum::<f64>() / plane as f64;
                let means: Vec<f32> = pixels.chunks(plane).map(|channel| mean(channel) as f32).collect();
                mask.apply(pixels, |c, _| means[c])
            }
            Fill::Made(Made::Blur) => {
                let blurred: Vec<Vec<f32>> = pixels.chunks_exact(plane).map(|c| blur(c, mask.size())).collect();
                mask.apply(pixels, |c, i| blurred[c][i])
            }
            Fill::Made(Made::Noise) => {
                let stream = Stream::new(seed, "fill");
                let first = u32::try_from(pixels.len()).ok().and_then(|all| number.checked_mul(all));
                let last = first.and_then(|first| first.checked_add(pixels.len() as u32));
                let (Some(first), Some(_)) = (first, last) else {
                    let what = "the mask number under a fill of noise";
                    return Err(CausalError::Range { what, value: f64::from(number), range: "below 2^32 / pixels" });
                };
                mask.apply(pixels, |c, i| stream.uniform(image, first + (c * plane + i) as u32))
            }
        }
    }
}

/// One channel under a Gaussian, rows then columns; weights of what lies outside go to what lies inside, so a constant stays.
fn blur(channel: &[f32], [height, width]: [usize; 2]) -> Vec<f32> {
    let deviation = height.min(width) as f64 / BLUR;
    let reach = (3.0 * deviation).ceil() as usize;
    let weight = |d: usize| (-(d as f64 / deviation).powi(2) / 2.0).exp();
    let weights: Vec<f64> = (0..=reach).map(weight).collect();
    let along = |values: &dyn Fn(usize) -> f64, n: usize, at: usize| {
        let near = at.saturating_sub(reach)..n.min(at + reach + 1);
        let (sum, total) = near.fold((0.0, 0.0), |(sum, total), j| {
            let w = weights[j.abs_diff(at)];
            (sum + w * values(j), total + w)
        });
        sum / total
    };
    let mut rows = vec![0.0f64; channel.len()];
    for (i, out) in rows.iter_mut().enumerate() {
        let (r, c) = (i / width, i % width);
        *out = along(&|j| f64::from(channel[r * width + j]), width, c);
    }
    let columns = |i: usize| along(&|j| rows[j * width + i % width], height, i / width);
    (0..channel.len()).map(|i| columns(i) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::mask::{Drawn, Region};

    const FILLS: [Fill; 4] =
        [Fill::Value(0.25), Fill::Made(Made::Mean), Fill::Made(Made::Blur), Fill::Made(Made::Noise)];

    fn mask(size: [usize; 2]) -> Mask {
        let drawn = Drawn { seed: 1, image: 2, number: 0, size, boxes: &[], file: None };
        Mask::draw(Region::Rectangle, drawn).unwrap()
    }

    #[test]
    fn a_fill_changes_masked_pixels_only_and_stays_in_the_unit_interval() {
        let (size, plane) = ([20, 24], 480);
        let pixels: Vec<f32> = (0..3 * plane).map(|i| (i % 97) as f32 / 96.0).collect();
        let mask = mask(size);
        for fill in FILLS {
            let mut filled = pixels.clone();
            fill.apply(&mut filled, &mask, 9, 5, 1).unwrap();
            for (i, (a, b)) in pixels.iter().zip(&filled).enumerate() {
                assert!(mask.taken()[i % plane] || a.to_bits() == b.to_bits());
                assert!((0.0..=1.0).contains(b));
            }
            assert_ne!(pixels, filled, "{fill}");
            let mut again = pixels.clone();
            fill.apply(&mut again, &mask, 9, 5, 1).unwrap();
            assert_eq!(filled, again);
            assert!(fill.apply(&mut [0.0; 481], &mask, 9, 5, 1).is_err());
        }
        let noise = |image, number| {
            let mut filled = pixels.clone();
            Fill::Made(Made::Noise).apply(&mut filled, &mask, 9, image, number).unwrap();
            filled
        };
        assert!(noise(5, 1) != noise(6, 1) && noise(5, 1) != noise(5, 2));
        assert!(Fill::Made(Made::Noise).apply(&mut pixels.clone(), &mask, 9, 5, u32::MAX).is_err());
    }

    #[test]
    fn mean_and_blur_leave_a_constant_image_and_the_mean_is_a_channels_own() {
        let mask = mask([15, 15]);
        for fill in [Fill::Made(Made::Mean), Fill::Made(Made::Blur)] {
            let mut constant = vec![0.625f32; 225];
            fill.apply(&mut constant, &mask, 0, 0, 0).unwrap();
            assert!(constant.iter().all(|&x| x == 0.625), "{fill}");
        }
        let mut two: Vec<f32> = (0..450).map(|i| if i < 225 { 0.5 } else { (i % 2) as f32 }).collect();
        Fill::Made(Made::Mean).apply(&mut two, &mask, 0, 0, 0).unwrap();
        let at = mask.taken().iter().position(|taken| *taken).unwrap();
        assert_eq!(two[at], 0.5);
        assert!((two[225 + at] - 113.0 / 225.0).abs() < 1e-6, "{}", two[225 + at]);
    }

    #[test]
    fn a_blur_is_a_gaussian_of_a_twentieth_of_the_side() {
        // far from the rim the answer to one bright pixel is the product of two normalised Gaussians
        let n = 81;
        let mut image = vec![0.0f32; n * n];
        image[40 * n + 40] = 1.0;
        let got = blur(&image, [n, n]);
        let s = n as f64 / 20.0;
        let g = |d: f64| (-d * d / (2.0 * s * s)).exp();
        let total: f64 = (-13..=13).map(|d| g(f64::from(d))).sum();
        for (r, c) in [(40usize, 40usize), (42, 37), (45, 48), (28, 40)] {
            let want = g(r.abs_diff(40) as f64) * g(c.abs_diff(40) as f64) / (total * total);
            assert!((f64::from(got[r * n + c]) - want).abs() < 1e-7, "{r} {c}");
        }
    }

    #[test]
    fn a_fill_is_a_number_or_a_name_in_a_configuration() {
        for (fill, text) in FILLS.into_iter().zip(["0.25", "\"mean\"", "\"blur\"", "\"noise\""]) {
            assert_eq!(serde_json::to_string(&fill).unwrap(), text);
            assert_eq!(serde_json::from_str::<Fill>(text).unwrap(), fill);
        }
        assert!(serde_json::from_str::<Fill>("\"zero\"").is_err());
    }
}
