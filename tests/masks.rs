//! Masks and noise that a CUDA device makes have the bits of those that the host makes.

mod common;

use common::cuda;
use intervene::backend::cuda::{Images, Masks};
use intervene::causal::intervention::add_random_signs;
use intervene::causal::mask::GridMask;
use intervene::random::Stream;

/// Channels, height, width: the smallest grid, cells of unequal sides, rows that are no multiple of 4 floats, more than one
/// block an image.
const SHAPES: [[usize; 3]; 6] = [[1, 10, 10], [1, 28, 28], [3, 11, 13], [3, 33, 35], [4, 32, 32], [3, 64, 49]];
/// Dataset indices, also such as need more than 32 bits.
const INDICES: [u64; 4] = [0, 59_999, (1 << 32) + 5, u64::MAX];
const SEEDS: [u64; 3] = [0, 7, 0xdead_beef_0000_0001];

fn pixels(n: usize) -> Vec<f32> {
    let stream = Stream::new(3, "pixels");
    let mut pixels: Vec<f32> = (0..n as u32).map(|i| stream.uniform(0, i)).collect();
    (pixels[0], pixels[n / 2], pixels[n - 1]) = (f32::NAN, -0.0, 1.0);
    pixels
}

#[track_caller]
fn same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan(), "{what}: {g} for {w} at {i}");
    }
}

#[test]
fn a_mask_from_the_device_has_the_bits_of_the_hosts() {
    for shape @ [c, h, w] in SHAPES {
        let pixels = pixels(INDICES.len() * c * h * w);
        for (seed, number) in SEEDS.into_iter().zip([0, 3, (1 << 25) - 1]) {
            let masks = Masks { seed, number, fill: 0.5 };
            let got = cuda().mask_pixels(masks, Images { indices: &INDICES, shape, pixels: &pixels }).unwrap();
            let mut want = pixels.clone();
            for (image, pixels) in INDICES.into_iter().zip(want.chunks_exact_mut(c * h * w)) {
                GridMask::draw(seed, image, number, h, w).unwrap().mask().apply(pixels, |_, _| 0.5).unwrap();
            }
            same_bits(&got, &want, &format!("{shape:?}, seed {seed}, mask {number}"));
        }
    }
}

#[test]
fn random_signs_from_the_device_have_the_bits_of_the_hosts() {
    for shape @ [c, h, w] in SHAPES {
        let pixels = pixels(INDICES.len() * c * h * w);
        for (seed, eps) in SEEDS.into_iter().zip([0.0, 8.0 / 255.0, 0.75]) {
            let images = Images { indices: &INDICES, shape, pixels: &pixels };
            let got = cuda().add_random_signs(seed, eps, images).unwrap();
            let mut want = pixels.clone();
            for (image, pixels) in INDICES.into_iter().zip(want.chunks_exact_mut(c * h * w)) {
                add_random_signs(seed, image, eps, pixels).unwrap();
            }
            same_bits(&got, &want, &format!("{shape:?}, seed {seed}, eps {eps}"));
        }
    }
}

#[test]
fn pixels_that_do_not_fit_and_a_mask_number_that_is_too_large_are_refused() {
    let pixels = pixels(300);
    let refused = |number: u32, indices: &[u64]| {
        let images = Images { indices, shape: [1, 10, 10], pixels: &pixels };
        cuda().mask_pixels(Masks { seed: 0, number, fill: 0.0 }, images).unwrap_err().to_string()
    };
    assert!(refused(0, &[1, 2]).contains("300 pixels are no 2 images of 1x10x10"));
    assert!(refused(1 << 25, &[1, 2, 3]).contains("beyond 32 bits"));
}
