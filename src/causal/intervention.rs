//! What is done to the network or its input: sets of code channels to zero, random pixel masks, random-sign noise.
//!
//! Holds [`NodeSet`] (the code channels of a do(N = 0)), [`GridMask`] (the paper's PWM, "mask 10 % area
//! of the images randomly") and [`add_random_signs`] (the control for attacks). Called by the sweep and the verbs.
//! Masks and signs come from Philox streams keyed by seed, dataset index and draw, so an image's mask does not depend on
//! its batch, its neighbours, the thread count or the pixels.

use std::fmt;

use super::{CausalError, same_length};
use crate::random::Stream;
use crate::text::closest;

/// A set of nodes: channels of a code with 1 to 64 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeSet {
    bits: u64,
    channels: u32,
}

impl NodeSet {
    /// No channel of a code of `channels`.
    ///
    /// # Errors
    /// [`CausalError::Range`] unless 1 <= channels <= 64.
    pub fn none(channels: usize) -> Result<Self, CausalError> {
        if !(1..=64).contains(&channels) {
            let value = channels as f64;
            return Err(CausalError::Range { what: "the number of code channels", value, range: "1 to 64" });
        }
        Ok(NodeSet { bits: 0, channels: channels as u32 })
    }

    /// Every channel.
    ///
    /// # Errors
    /// As [`NodeSet::none`].
    pub fn all(channels: usize) -> Result<Self, CausalError> {
        let none = Self::none(channels)?;
        Ok(NodeSet { bits: u64::MAX >> (64 - none.channels), ..none })
    }

    /// The given channels; one named twice counts once.
    ///
    /// # Errors
    /// As [`NodeSet::none`], and [`CausalError::Index`] for a channel past the last.
    pub fn of(nodes: &[usize], channels: usize) -> Result<Self, CausalError> {
        let mut set = Self::none(channels)?;
        for &index in nodes {
            if index >= channels {
                return Err(CausalError::Index { what: "node", index, count: channels });
            }
            set.bits |= 1 << index;
        }
        Ok(set)
    }

    /// Reads `all`, or channels and ranges joined by commas: `3,7`, `0-4`, `0-2,9`. Spaces are ignored.
    ///
    /// # Errors
    /// As [`NodeSet::none`]; [`CausalError::Name`] with the nearest valid text for a channel past the last, a range
    /// that runs backwards, an empty item, or anything that is no number.
    pub fn parse(text: &str, channels: usize) -> Result<Self, CausalError> {
        let every = Self::all(channels)?;
        if text.trim().eq_ignore_ascii_case("all") {
            return Ok(every);
        }
        let last = channels - 1;
        if text.trim().is_empty() {
            let what = "set of nodes of this code";
            return Err(CausalError::Name { what, text: String::new(), nearest: "all".to_owned() });
        }
        let wrong = |item: &str, nearest: String| CausalError::Name {
            what: "set of nodes of this code",
            text: item.trim().to_owned(),
            nearest,
        };
        let number = |item: &str| -> Option<usize> {
            let item = item.trim();
            let digits = !item.is_empty() && item.bytes().all(|b| b.is_ascii_digit());
            // More digits than usize holds is still a channel past the last one.
            digits.then(|| item.parse().unwrap_or(usize::MAX))
        };
        let mut set = Self::none(channels)?;
        for item in text.split(',') {
            let (lo, hi) = match item.split_once('-') {
                Some((lo, hi)) => (number(lo), number(hi)),
                None => (number(item), number(item)),
            };
            let (Some(lo), Some(hi)) = (lo, hi) else {
                let examples = ["all".to_owned(), format!("0-{last}"), last.to_string()];
                let names: Vec<&str> = examples.iter().map(String::as_str).collect();
                return Err(wrong(item, closest(item.trim(), &names).to_owned()));
            };
            if hi > last || lo > hi {
                let (a, b) = (lo.min(hi).min(last), lo.max(hi).min(last));
                return Err(wrong(item, if item.contains('-') { format!("{a}-{b}") } else { b.to_string() }));
            }
            (lo..=hi).for_each(|node| set.bits |= 1 << node);
        }
        Ok(set)
    }

    /// Channels of the code, in the set or not.
    pub fn channels(&self) -> usize {
        self.channels as usize
    }

    /// Bit k is set when channel k is in the set.
    pub fn bits(&self) -> u64 {
        self.bits
    }

    /// Number of channels in the set.
    pub fn len(&self) -> usize {
        self.bits.count_ones() as usize
    }

    /// True without channels: do(nothing), the same as idle.
    pub fn is_empty(&self) -> bool {
        self.bits == 0
    }

    /// Whether channel `node` is in the set.
    pub fn contains(&self, node: usize) -> bool {
        node < self.channels() && self.bits >> node & 1 == 1
    }

    /// The channels of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<> {
        let set = *self;
        (0..set.channels()).filter(move |&k| set.contains(k))
    }
}

/// What [`NodeSet::parse`] reads: `all`, or `3,7`. The empty set, which no text names, prints as `none`.
impl fmt::Display for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len() {
            0 => f.write_str("none"),
            n if n == self.channels() => f.write_str("all"),
            _ => f.write_str(&self.iter().map(|k| k.to_string()).collect::<Vec<_>>().join(",")),
        }
    }
}

/// Cells of the grid along each side.
const SIDE: usize = 10;
/// Cells of the grid.
const CELLS: usize = SIDE * SIDE;
/// Cells a mask takes.
const TAKEN: usize = 10;
/// Draws set aside for one mask.
const DRAWS: u32 = 128;

/// A pixel mask `grid10`: 10 of the 100 cells of a 10 x 10 grid over the image (ICIP 2019, section 3: "mask 10% area of
/// the images randomly"). Cell (i, j) covers rows floor(i H / 10) to floor((i+1) H / 10), columns likewise; the expected
/// masked area is exactly a tenth, each mask's own is [`GridMask::fraction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GridMask {
    cells: [u8; TAKEN],
    height: usize,
    width: usize,
}

impl GridMask {
    /// Mask number `mask` of image `image` (dataset index) of `height` x `width` pixels. Cells are the first ten of a
    /// Fisher-Yates shuffle: draw d = Philox(seed, "pwm", image, mask * 128 + d) picks among the 100 - d left.
    ///
    /// # Errors
    /// [`CausalError::Range`] for an image smaller than 10 x 10 pixels (cells would be empty) or a mask number of
    /// 2^25 or more.
    pub fn draw(seed: u64, image: u64, mask: u32, height: usize, width: usize) -> Result<Self, CausalError> {
        let side = height.min(width);
        if side < SIDE {
            let what = "the smaller side of an image under grid10, in pixels,";
            return Err(CausalError::Range { what, value: side as f64, range: "at least 10" });
        }
        let Some(first) = mask.checked_mul(DRAWS) else {
            return Err(CausalError::Range { what: "the mask number", value: f64::from(mask), range: "below 2^25" });
        };
        let stream = Stream::new(seed, "pwm");
        let mut order: [u8; CELLS] = std::array::from_fn(|i| i as u8);
        for d in 0..TAKEN {
            let pick = stream.below(image, first + d as u32, (CELLS - d) as u32) as usize;
            order.swap(d, d + pick);
        }
        Ok(GridMask { cells: std::array::from_fn(|d| order[d]), height, width })
    }

    /// The cells taken, in the order drawn; cell 10 i + j is row i, column j of the grid.
    pub fn cells(&self) -> &[u8] {
        &self.cells
    }

    /// Rows and columns (top, bottom, left, right), the second of each pair past the end, of a cell.
    fn rectangle(&self, cell: u8) -> [usize; 4] {
        let edge = |i: usize, size: usize| i * size / SIDE;
        let (i, j) = (usize::from(cell) / SIDE, usize::from(cell) % SIDE);
        [edge(i, self.height), edge(i + 1, self.height), edge(j, self.width), edge(j + 1, self.width)]
    }

    /// Masked share of the image's pixels.
    pub fn fraction(&self) -> f64 {
        let area = |cell: &u8| {
            let [top, bottom, left, right] = self.rectangle(*cell);
            (bottom - top) * (right - left)
        };
        self.cells.iter().map(area).sum::<usize>() as f64 / (self.height * self.width) as f64
    }

    /// Sets the masked pixels of one image (C x H x W, row-major, in \[0,1\]) to `fill` in every channel; the others
    /// keep their bits.
    ///
    /// # Errors
    /// [`CausalError::Length`] when `pixels` is no whole number of channels of the mask's size.
    pub fn apply(&self, pixels: &mut [f32], fill: f32) -> Result<(), CausalError> {
        let plane = self.height * self.width;
        same_length("pixels (channels x height x width)", pixels.len() / plane * plane, pixels.len())?;
        for channel in pixels.chunks_exact_mut(plane) {
            for &cell in &self.cells {
                let [top, bottom, left, right] = self.rectangle(cell);
                (top..bottom).for_each(|row| channel[row * self.width + left..row * self.width + right].fill(fill));
            }
        }
        Ok(())
    }
}

/// The control for attacks: x' = clip(x + eps s, 0, 1), s = +1 or -1 by the top bit of Philox(seed, "noise", image, i)
/// (1 means -1), i the pixel's index in (C, H, W) order. A NaN pixel stays NaN.
///
/// # Errors
/// [`CausalError::Range`] unless 0 <= eps < infinity and there are at most 2^32 pixels.
pub fn add_random_signs(seed: u64, image: u64, eps: f32, pixels: &mut [f32]) -> Result<(), CausalError> {
    if !(eps >= 0.0 && eps.is_finite()) {
        return Err(CausalError::Range { what: "eps", value: f64::from(eps), range: "0 or more, and finite" });
    }
    if pixels.len() as u64 > 1 << 32 {
        let value = pixels.len() as f64;
        return Err(CausalError::Range { what: "the number of pixels", value, range: "at most 2^32" });
    }
    let stream = Stream::new(seed, "noise");
    for (i, x) in pixels.iter_mut().enumerate() {
        let sign = if stream.word(image, i as u32) >> 31 == 0 { eps } else { -eps };
        *x = (*x + sign).clamp(0.0, 1.0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_nodes_is_read_from_numbers_ranges_and_all() {
        let read = |text: &str| NodeSet::parse(text, 16).unwrap().iter().collect::<Vec<_>>();
        assert_eq!(read("3,7"), [3, 7]);
        assert_eq!(read("0-4"), [0, 1, 2, 3, 4]);
        assert_eq!(read(" 9 , 0 - 2,1"), [0, 1, 2, 9]);
        assert_eq!(read("ALL").len(), 16);
        assert_eq!(NodeSet::all(64).unwrap().len(), 64);
        assert_eq!(NodeSet::parse("63", 64).unwrap().bits(), 1 << 63);
        for text in ["3,7", "all", "15"] {
            assert_eq!(NodeSet::parse(text, 16).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_set_of_nodes_is_refused_with_the_nearest_valid_one() {
        let refused = |text: &str| match NodeSet::parse(text, 16) {
            Err(CausalError::Name { nearest, .. }) => {
                NodeSet::parse(&nearest, 16).expect("the nearest must be valid");
                nearest
            }
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(refused("16"), "15");
        assert_eq!(refused("3,99999999999999999999999999"), "15");
        assert_eq!(refused("4-0"), "0-4");
        assert_eq!(refused("3-20"), "3-15");
        assert_eq!(refused("al"), "all");
        assert_eq!(refused(""), "all");
        for text in ["-1", "3,,7", "3,", "+3", "1-2-3", "0x3", "3.0", "x", "\u{0663}"] {
            refused(text);
        }
        assert!(NodeSet::none(0).is_err() && NodeSet::none(65).is_err() && NodeSet::parse("0", 0).is_err());
        let message = NodeSet::of(&[16], 16).unwrap_err().to_string();
        assert_eq!(message, "node 16 does not exist: there are 16, numbered from 0; the nearest is 15");
    }

    #[test]
    fn a_grid_mask_takes_exactly_ten_cells_and_a_fraction_within_its_bounds() {
        for (size, lo, hi) in [(28, 0.066, 0.115), (224, 0.0964, 0.1055), (40, 0.1, 0.1)] {
            for image in 0..500 {
                let mask = GridMask::draw(0, image, 0, size, size).unwrap();
                let mut cells = mask.cells().to_vec();
                cells.sort_unstable();
                cells.dedup();
                assert_eq!(cells.len(), 10);
                assert!(cells.iter().all(|&c| c < 100));
                assert!(mask.fraction() >= lo && mask.fraction() <= hi, "{size}: {}", mask.fraction());
            }
        }
    }

    #[test]
    fn a_mask_changes_its_own_pixels_in_every_channel_and_no_bit_of_the_others() {
        let (h, w) = (28, 35);
        let pixels: Vec<f32> = (0..3 * h * w).map(|i| i as f32 / 1e4 + 0.001).collect();
        for image in 0..50 {
            let mask = GridMask::draw(1, image, 2, h, w).unwrap();
            let mut masked = pixels.clone();
            mask.apply(&mut masked, -7.0).unwrap();
            let mut count = 0;
            for (i, (&a, &b)) in pixels.iter().zip(&masked).enumerate() {
                let (row, column) = (i % (h * w) / w, i % w);
                // the cell whose edges floor(k H / 10) enclose this pixel, by search
                let cell = |x: usize, size: usize| (0..10).find(|k| x < (k + 1) * size / 10).unwrap();
                let taken = mask.cells().contains(&((cell(row, h) * 10 + cell(column, w)) as u8));
                assert_eq!(b.to_bits(), if taken { -7.0f32 } else { a }.to_bits());
                count += usize::from(taken);
            }
            assert_eq!(count as f64 / (3 * h * w) as f64, mask.fraction());
        }
        assert!(GridMask::draw(0, 0, 0, 28, 28).unwrap().apply(&mut [0.0; 785], 0.0).is_err());
        assert!(GridMask::draw(0, 0, 0, 9, 28).is_err() && GridMask::draw(0, 0, 1 << 25, 28, 28).is_err());
    }

    #[test]
    fn every_cell_is_masked_a_tenth_of_the_time() {
        let n = 4000u32;
        let mut counts = [0u32; 100];
        for image in 0..n {
            for &cell in GridMask::draw(3, image.into(), image % 4, 28, 28).unwrap().cells() {
                counts[usize::from(cell)] += 1;
            }
        }
        // binomial: sd = sqrt(n .1 .9) = 19; four of them for the worst of 100 cells
        assert!(counts.iter().all(|&c| (f64::from(c) - 400.0).abs() < 4.0 * 18.98), "{counts:?}");
        let chi: f64 = counts.iter().map(|&c| (f64::from(c) - 400.0).powi(2) / 400.0).sum();
        // without replacement: chi-square of mean 99 * .9, sd sqrt(2 * 99) * .9
        assert!((chi - 89.1).abs() < 4.0 * 12.7, "{chi}");
    }

    #[test]
    fn a_mask_depends_on_seed_image_and_number_alone() {
        let draw = |seed, image, mask| GridMask::draw(seed, image, mask, 28, 28).unwrap();
        let forward: Vec<_> = (0..64).map(|i| draw(5, i, 1)).collect();
        let mut backward: Vec<_> = (0..64).rev().map(|i| draw(5, i, 1)).collect();
        backward.reverse();
        assert_eq!(forward, backward);
        assert_ne!(draw(5, 0, 1), draw(6, 0, 1));
        assert_ne!(draw(5, 0, 1), draw(5, 1, 1));
        assert_ne!(draw(5, 0, 1), draw(5, 0, 2));
        assert_eq!(draw(5, 0, 1).cells(), GridMask::draw(5, 0, 1, 224, 100).unwrap().cells());
    }

    #[test]
    fn random_signs_move_every_pixel_by_eps_inside_the_unit_interval() {
        let eps = 0.0625;
        let pixels: Vec<f32> = (0..784).map(|i| 0.1 + 0.8 * (i as f32 / 783.0)).collect();
        let mut noisy = pixels.clone();
        add_random_signs(0, 9, eps, &mut noisy).unwrap();
        let up = pixels.iter().zip(&noisy).filter(|(a, b)| b > a).count();
        assert!(pixels.iter().zip(&noisy).all(|(&a, &b)| b == a + eps || b == a - eps));
        assert!((up as f64 - 392.0).abs() < 4.0 * 14.0, "{up}");
        let mut edge = [0.0f32, 1.0, 0.0, 1.0, f32::NAN];
        add_random_signs(0, 9, 0.3, &mut edge).unwrap();
        assert!(edge[..4].iter().all(|v| (0.0..=1.0).contains(v)) && edge[4].is_nan());
        let mut same = pixels.clone();
        add_random_signs(0, 9, 0.0, &mut same).unwrap();
        assert_eq!(same, pixels);
        assert!([-0.1, f32::NAN, f32::INFINITY].iter().all(|&e| add_random_signs(0, 0, e, &mut [0.5]).is_err()));
    }
}
