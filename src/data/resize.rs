//! Antialiased bilinear resizing, to the bit what Pillow's `resize(..., BILINEAR)` gives on bytes: a triangle whose width
//! grows with the reduction, weights rounded to 22 fractional bits, first across, rounded to bytes, then down. Called by
//! [`super::transform`].

use super::image::Image;

/// 32 bits less 8 of a pixel and 2 of head room, as in Pillow's `Resample.c`.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// For each output position: its first input position and its weights.
struct Weights {
    first: Vec<usize>,
    weights: Vec<i32>,
    /// Weights a position, the unused ones 0.
    each: usize,
}

/// A triangle of half-width 1.
fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

fn weights(from: usize, to: usize) -> Weights {
    let scale = from as f64 / to as f64;
    let filter_scale = scale.max(1.0);
    let support = filter_scale; // of half-width 1
    let each = support.ceil() as usize * 2 + 1;
    let (mut first, mut all) = (Vec::with_capacity(to), Vec::with_capacity(to * each));
    let inverse = 1.0 / filter_scale;
    for x in 0..to {
        let center = (x as f64 + 0.5) * scale;
        // a conversion that cuts, at 0 as in C
        let start = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let mut exact: Vec<f64> = (start..end).map(|i| triangle((i as f64 - center + 0.5) * inverse)).collect();
        let sum: f64 = exact.iter().fold(0.0, |sum, w| sum + w);
        if sum != 0.0 {
            exact.iter_mut().for_each(|w| *w /= sum);
        }
        first.push(start);
        let rounded = exact.iter().map(|w| (0.5 + w * f64::from(1u32 << PRECISION_BITS)) as i32);
        all.extend(rounded.chain(std::iter::repeat(0)).take(each));
    }
    Weights { first, weights: all, each }
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// `image` at `width` x `height`, each at least 1.
pub fn resize(image: Image, width: usize, height: usize) -> Image {
    let image = across(image, width.max(1));
    down(image, height.max(1))
}

fn across(image: Image, width: usize) -> Image {
    if width == image.width {
        return image;
    }
    let channels = image.channels.count();
    let w = weights(image.width, width);
    let mut pixels = vec![0; image.height * width * channels];
    let rows = image.pixels.chunks_exact(image.width * channels).zip(pixels.chunks_exact_mut(width * channels));
    for (row, out) in rows {
        for ((out, &first), weights) in out.chunks_exact_mut(channels).zip(&w.first).zip(w.weights.chunks_exact(w.each))
        {
            let input = &row[first * channels..];
            for (c, out) in out.iter_mut().enumerate() {
                let values = input.iter().skip(c).step_by(channels);
                *out = byte(values.zip(weights).fold(HALF, |sum, (&v, &w)| sum + i32::from(v) * w));
            }
        }
    }
    Image { width, pixels, ..image }
}

fn down(image: Image, height: usize) -> Image {
    if height == image.height {
        return image;
    }
    let row = image.width * image.channels.count();
    let w = weights(image.height, height);
    let mut pixels = vec![0; height * row];
    let mut sums = vec![0i32; row];
    for ((out, &first), weights) in pixels.chunks_exact_mut(row).zip(&w.first).zip(w.weights.chunks_exact(w.each)) {
        sums.fill(HALF);
        for (input, &weight) in image.pixels[first * row..].chunks_exact(row).zip(weights) {
            if weight != 0 {
                sums.iter_mut().zip(input).for_each(|(sum, &v)| *sum += i32::from(v) * weight);
            }
        }
        out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = byte(sum));
    }
    Image { height, pixels, ..image }
}

#[cfg(test)]
mod tests {
    use super::super::image::Channels;
    use super::*;

    #[test]
    fn a_flat_image_stays_flat_at_every_size() {
        for (from, to) in [(1, 1), (1, 7), (7, 1), (5, 3), (3, 300), (300, 3), (256, 255)] {
            for value in [0, 1, 254, 255] {
                let image = Image { width: from, height: 2, channels: Channels::Rgb, pixels: vec![value; 6 * from] };
                let out = resize(image, to, 3);
                assert_eq!(out.pixels, vec![value; 9 * to], "{from} to {to}");
            }
        }
    }

    #[test]
    fn the_same_size_is_the_same_image() {
        let image = Image { width: 2, height: 2, channels: Channels::Grey, pixels: vec![9, 0, 255, 7] };
        assert_eq!(resize(image.clone(), 2, 2), image);
    }
}
