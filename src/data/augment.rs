//! Training's random view of an image: torchvision's `RandomResizedCrop` and a horizontal flip, drawn from Philox, so that
//! an image's view in an epoch is the same whatever the batch, the thread or the order. Called by [`super::files`].

use super::image::Image;
use super::resize::resize;
use super::transform::{Window, crop};
use crate::random::Stream;

/// Which views: those of an epoch of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Augment {
    /// The run's seed.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u32,
}

/// Share of the image's area that a crop takes.
const SCALE: [f64; 2] = [0.08, 1.0];
/// Its width over its height.
const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
/// Tries before the middle is taken.
const TRIES: u32 = 10;
/// Draws of an image an epoch: four a try, one for the flip.
const DRAWS: u32 = 64;

/// A view: what is cut out, and whether it is mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// What is cut out.
    pub window: Window,
    /// Left and right change places.
    pub flipped: bool,
}

impl Augment {
    /// The view of image `id`, whose size is (width, height).
    pub fn view(&self, id: u64, [width, height]: [usize; 2]) -> View {
        let stream = Stream::new(self.seed, "augment");
        let first = self.epoch.wrapping_mul(DRAWS);
        let uniform = |draw: u32| f64::from(stream.uniform(id, first.wrapping_add(draw)));
        let flipped = uniform(4 * TRIES) < 0.5;
        let area = width as f64 * height as f64;
        let log_ratio = RATIO.map(f64::ln);
        for draw in (0..TRIES).map(|t| 4 * t) {
            let target = area * (SCALE[0] + uniform(draw) * (SCALE[1] - SCALE[0]));
            let ratio = (log_ratio[0] + uniform(draw + 1) * (log_ratio[1] - log_ratio[0])).exp();
            let w = (target * ratio).sqrt().round_ties_even() as usize;
            let h = (target / ratio).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let start = |draw: u32, room: usize| {
                    i64::from(stream.below(id, first.wrapping_add(draw), (room + 1).min(u32::MAX as usize) as u32))
                };
                let (top, left) = (start(draw + 2, height - h), start(draw + 3, width - w));
                return View { window: Window { left, top, width: w, height: h }, flipped };
            }
        }
        let ratio = width as f64 / height.max(1) as f64;
        let (w, h) = if ratio < RATIO[0] {
            (width, (width as f64 / RATIO[0]).round_ties_even() as usize)
        } else if ratio > RATIO[1] {
            ((height as f64 * RATIO[1]).round_ties_even() as usize, height)
        } else {
            (width, height)
        };
        let (w, h) = (w.clamp(1, width.max(1)), h.clamp(1, height.max(1)));
        let middle = |have: usize, take: usize| (have.saturating_sub(take) / 2) as i64;
        View { window: Window { left: middle(width, w), top: middle(height, h), width: w, height: h }, flipped }
    }
}

/// `image` as `view` sees it, at `width` x `height`.
pub fn seen(image: &Image, view: View, [width, height]: [usize; 2]) -> Image {
    let mut image = resize(crop(image, view.window), width, height);
    if view.flipped {
        let channels = image.channels.count();
        for row in image.pixels.chunks_exact_mut((image.width * channels).max(1)) {
            for x in 0..width / 2 {
                for c in 0..channels {
                    row.swap(x * channels + c, (width - 1 - x) * channels + c);
                }
            }
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use super::super::image::Channels;
    use super::*;

    #[test]
    fn a_view_depends_on_seed_image_and_epoch_alone_and_lies_inside() {
        let view = |seed, epoch, id| Augment { seed, epoch }.view(id, [300, 200]);
        assert_eq!(view(0, 0, 5), view(0, 0, 5));
        assert_ne!(view(0, 0, 5), view(0, 1, 5));
        assert_ne!(view(0, 0, 5), view(1, 0, 5));
        assert_ne!(view(0, 0, 5), view(0, 0, 6));
        let (mut flipped, mut share) = (0, 0.0);
        let n = 4000;
        for id in 0..n {
            let View { window: w, flipped: f } = view(0, 3, id);
            assert!(w.left >= 0 && w.top >= 0 && w.width > 0 && w.height > 0, "{w:?}");
            assert!(w.left as usize + w.width <= 300 && w.top as usize + w.height <= 200, "{w:?}");
            let ratio = w.width as f64 / w.height as f64;
            assert!((0.72..1.39).contains(&ratio), "{w:?}");
            flipped += usize::from(f);
            share += (w.width * w.height) as f64 / 60_000.0 / n as f64;
        }
        // a coin of 4000 throws: standard deviation 32
        assert!((1840..2160).contains(&flipped), "{flipped}");
        // torchvision's mean over 20,000 views of this size is .3912; standard error here .004
        assert!((share - 0.3912).abs() < 0.012, "{share}");
    }

    #[test]
    fn an_image_that_fits_no_try_gives_its_middle() {
        for size in [[1, 5000], [5000, 1], [1, 1], [2, 3]] {
            for id in 0..50 {
                let w = Augment { seed: 0, epoch: 0 }.view(id, size).window;
                assert!(w.left as usize + w.width <= size[0] && w.top as usize + w.height <= size[1], "{w:?}");
            }
        }
        let w = Augment { seed: 0, epoch: 0 }.view(0, [1, 5000]).window;
        assert_eq!((w.width, w.height, w.top), (1, 1, 2499));
    }

    #[test]
    fn a_flip_changes_left_and_right_and_keeps_colours() {
        let image = Image { width: 3, height: 1, channels: Channels::Rgb, pixels: (1..=9).collect() };
        let window = Window { left: 0, top: 0, width: 3, height: 1 };
        let out = seen(&image, View { window, flipped: true }, [3, 1]);
        assert_eq!(out.pixels, [7, 8, 9, 4, 5, 6, 1, 2, 3]);
    }
}
