//! Which pixels of an image are masked: [`Region`] says by what rule, [`Mask`] is the outcome for one image. What they are
//! filled with is [`super::fill`]'s. Called by [`super::perturbation`].
//!
//! Chance comes from Philox streams keyed by seed, image and number of the mask, so an image's mask does not depend on its
//! batch, its neighbours, the thread count or the pixels.

use super::{CausalError, same_length};
use crate::data::transform::Rectangle;
use crate::random::Stream;
use serde::{Deserialize, Serialize};

/// By what rule pixels are masked. The first three take a tenth of the image ("mask 10% area of the images randomly", ICIP
/// 2019, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Region {
    /// Ten of the hundred cells of a 10 x 10 grid: [`GridMask`].
    #[default]
    Grid10,
    /// Single pixels, round(H W / 10) of them.
    Pixels,
    /// One rectangle, of an aspect between 1:2 and 2:1.
    Rectangle,
    /// The boxes of a finding on the image: of this one, or of the one whose box comes first.
    Box(Option<u32>),
    /// As much as those boxes, beside them: what masking does, whatever is masked.
    OutsideBox(Option<u32>),
    /// What a file says, the same for every image.
    File,
}

impl Region {
    /// Left out of configurations where it is the grid, so that runs keep their ids.
    pub fn is_grid(&self) -> bool {
        *self == Region::Grid10
    }

    /// Whether chance decides, so that several masks of an image differ.
    pub fn is_random(&self) -> bool {
        !matches!(self, Region::Box(_) | Region::File)
    }

    /// Whether it takes a tenth of the image wherever that is, as the paper's masks do.
    pub fn is_tenth(&self) -> bool {
        matches!(self, Region::Grid10 | Region::Pixels | Region::Rectangle)
    }

    /// Of which finding's boxes it is; the inner `None` is that of the image's first.
    pub fn boxed(&self) -> Option<Option<u32>> {
        match self {
            Region::Box(finding) | Region::OutsideBox(finding) => Some(*finding),
            _ => None,
        }
    }
}

/// What a mask of one image goes by.
#[derive(Clone, Copy, Debug)]
pub struct Drawn<'a> {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the image.
    pub image: u64,
    /// Which of its masks.
    pub number: u32,
    /// Height and width, in pixels.
    pub size: [usize; 2],
    /// Boxes on it, in pixels, for regions of boxes.
    pub boxes: &'a [Rectangle],
    /// The mask that a file holds, for [`Region::File`].
    pub file: Option<&'a Mask>,
}

/// The masked pixels of one image, in all its channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    taken: Vec<bool>,
    height: usize,
    width: usize,
}

impl Mask {
    /// A mask from a flag a pixel, row by row.
    ///
    /// # Errors
    /// [`CausalError::Length`] unless there are height x width flags, at least one.
    pub fn new(taken: Vec<bool>, height: usize, width: usize) -> Result<Mask, CausalError> {
        same_length("flags of a mask (height x width)", (height * width).max(1), taken.len())?;
        Ok(Mask { taken, height, width })
    }

    fn none([height, width]: [usize; 2]) -> Mask {
        Mask { taken: vec![false; height * width], height, width }
    }

    /// By the rule `region`.
    ///
    /// # Errors
    /// [`CausalError::Range`] where the image is too small for the rule, there is no box or file where the rule needs one, or
    /// the number of the mask is beyond its stream; [`CausalError::Length`] where the file is of another size.
    pub fn draw(region: Region, drawn: Drawn<'_>) -> Result<Mask, CausalError> {
        let Drawn { seed, image, number, size: [height, width], .. } = drawn;
        if height == 0 || width == 0 {
            let what = "the shorter side of an image that is masked, in pixels,";
            return Err(CausalError::Range { what, value: 0.0, range: "at least 1" });
        }
        match region {
            Region::Grid10 => Ok(GridMask::draw(seed, image, number, height, width)?.mask()),
            Region::Pixels => {
                let mut mask = Mask::none(drawn.size);
                let all: Vec<usize> = (0..height * width).collect();
                mask.scatter(all, tenth(drawn.size), "pixels", drawn)?;
                Ok(mask)
            }
            Region::Rectangle => Mask::rectangle(drawn),
            Region::Box(_) => Mask::boxes(drawn),
            Region::OutsideBox(_) => Mask::beside(drawn),
            Region::File => {
                let missing = CausalError::Range { what: "the number of mask files", value: 0.0, range: "1" };
                let file = drawn.file.ok_or(missing)?;
                same_length("pixels of the mask file", height * width, file.taken.len())?;
                Ok(file.clone())
            }
        }
    }

    /// One rectangle of a tenth of the image, to the pixel of its width.
    fn rectangle(drawn: Drawn<'_>) -> Result<Mask, CausalError> {
        const DRAWS: u32 = 4;
        let Drawn { seed, image, number, size: [h, w], .. } = drawn;
        let area = tenth(drawn.size) as f64;
        let first = number.checked_mul(DRAWS).ok_or(TOO_MANY)?;
        let stream = Stream::new(seed, "rectangle");
        // height over width: 2^(-1..1), so 1:2 to 2:1
        let aspect = 2f64.powf(2.0 * f64::from(stream.uniform(image, first)) - 1.0);
        let height = ((area * aspect).sqrt().round() as usize).clamp(1, h);
        let width = ((area / height as f64).round() as usize).clamp(1, w);
        let place = |draw: u32, room: usize| stream.below(image, first + draw, room as u32 + 1) as usize;
        let mut mask = Mask::none(drawn.size);
        mask.take([place(1, h - height), place(2, w - width)], [height, width]);
        Ok(mask)
    }

    /// Every pixel whose middle lies in a box; at least the one nearest to the middle of each.
    fn boxes(drawn: Drawn<'_>) -> Result<Mask, CausalError> {
        let mut mask = Mask::none(drawn.size);
        for (corner, sides) in rectangles(drawn)? {
            mask.take(corner, sides);
        }
        Ok(mask)
    }

    /// As much beside the boxes: for each a rectangle of its sides, at a place drawn among all that keep clear of every box and of one
    /// another. Where there is no such place, single pixels drawn among those left, as many as it lacks or as there are.
    fn beside(drawn: Drawn<'_>) -> Result<Mask, CausalError> {
        let boxes = Mask::boxes(drawn)?;
        let [h, w] = drawn.size;
        let (mut mask, mut busy, mut lacking) = (Mask::none(drawn.size), boxes.clone(), 0);
        let stream = Stream::new(drawn.seed, "outside");
        for (k, (_, sides @ [height, width])) in (0u32..).zip(rectangles(drawn)?) {
            let clear = |&(top, left): &(usize, usize)| {
                (top..top + height).all(|r| !busy.taken[r * w + left..r * w + left + width].contains(&true))
            };
            let places = (0..=h - height).flat_map(|top| (0..=w - width).map(move |left| (top, left)));
            let places: Vec<(usize, usize)> = places.filter(clear).collect();
            let first = drawn.number.checked_mul(BOXES_MAX).filter(|_| k < BOXES_MAX).ok_or(TOO_MANY)?;
            if places.is_empty() {
                lacking += height * width;
                continue;
            }
            let (top, left) = places[stream.below(drawn.image, first + k, places.len() as u32) as usize];
            mask.take([top, left], sides);
            busy.take([top, left], sides);
        }
        let others: Vec<usize> = (0..h * w).filter(|&i| !busy.taken[i]).collect();
        let count = lacking.min(others.len());
        mask.scatter(others, count, "outside pixels", drawn)?;
        Ok(mask)
    }

    /// Takes `count` of `pixels`, each as likely as any other: the first of a Fisher-Yates shuffle.
    fn scatter(
        &mut self,
        mut pixels: Vec<usize>,
        count: usize,
        stream: &str,
        drawn: Drawn<'_>,
    ) -> Result<(), CausalError> {
        let all = u32::try_from(self.taken.len()).map_err(|_| TOO_MANY)?;
        let past = drawn.number.checked_mul(all).and_then(|first| first.checked_add(all)).ok_or(TOO_MANY)?;
        let stream = Stream::new(drawn.seed, stream);
        for d in 0..count {
            let pick = stream.below(drawn.image, past - all + d as u32, (pixels.len() - d) as u32) as usize;
            pixels.swap(d, d + pick);
            self.taken[pixels[d]] = true;
        }
        Ok(())
    }

    /// Takes a rectangle, which must lie inside.
    fn take(&mut self, [top, left]: [usize; 2], [height, width]: [usize; 2]) {
        for row in top..top + height {
            self.taken[row * self.width + left..row * self.width + left + width].fill(true);
        }
    }

    /// Whether each pixel is masked, row by row.
    pub fn taken(&self) -> &[bool] {
        &self.taken
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// Masked pixels.
    pub fn count(&self) -> usize {
        self.taken.iter().filter(|taken| **taken).count()
    }

    /// Masked share of the image's pixels.
    pub fn fraction(&self) -> f64 {
        self.count() as f64 / self.taken.len() as f64
    }

    /// Sets the masked pixels of one image (C x H x W, row-major) to what `fill` says of (channel, pixel of the plane); the others
    /// keep their bits.
    ///
    /// # Errors
    /// [`CausalError::Length`] when `pixels` is no whole number of channels of the mask's size.
    pub fn apply(&self, pixels: &mut [f32], fill: impl Fn(usize, usize) -> f32) -> Result<(), CausalError> {
        let plane = self.taken.len();
        same_length("pixels (channels x height x width)", pixels.len() / plane * plane, pixels.len())?;
        for (c, channel) in pixels.chunks_exact_mut(plane).enumerate() {
            for (i, x) in channel.iter_mut().enumerate().filter(|(i, _)| self.taken[*i]) {
                *x = fill(c, i);
            }
        }
        Ok(())
    }
}

/// Boxes of one finding on an image, at most.
const BOXES_MAX: u32 = 64;

/// A rectangle of pixels: corner (top, left) and sides (height, width).
type Pixels = ([usize; 2], [usize; 2]);

/// Those of each box.
fn rectangles(drawn: Drawn<'_>) -> Result<Vec<Pixels>, CausalError> {
    if drawn.boxes.is_empty() {
        let what = "the number of boxes on an image that is masked by them";
        return Err(CausalError::Range { what, value: 0.0, range: "at least 1" });
    }
    // the pixels from..to whose middles lie in start..start + length
    let span = |start: f64, length: f64, size: usize| {
        let edge = |x: f64| ((x - 0.5).ceil().max(0.0) as usize).min(size);
        let (from, to) = (edge(start), edge(start + length));
        if from < to {
            return (from, to - from);
        }
        let nearest = ((start + length / 2.0).floor().max(0.0) as usize).min(size - 1);
        (nearest, 1)
    };
    let [h, w] = drawn.size;
    let pixels = |b: &Rectangle| {
        let ((top, height), (left, width)) = (span(b.y, b.height, h), span(b.x, b.width, w));
        ([top, left], [height, width])
    };
    Ok(drawn.boxes.iter().map(pixels).collect())
}

/// A number of a mask beyond its stream.
const TOO_MANY: CausalError =
    CausalError::Range { what: "the mask number", value: f64::INFINITY, range: "one with draws left in its stream" };

/// A tenth of the pixels, rounded.
fn tenth([height, width]: [usize; 2]) -> usize {
    (height * width + 5) / 10
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
/// masked area is exactly a tenth, each mask's own is its [`Mask::fraction`].
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

    /// The cells as a mask of pixels; its share of the image is that of its cells, a tenth on average.
    pub fn mask(&self) -> Mask {
        let mut mask = Mask::none([self.height, self.width]);
        for &cell in &self.cells {
            let [top, bottom, left, right] = self.rectangle(cell);
            mask.take([top, left], [bottom - top, right - left]);
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                assert!(
                    mask.mask().fraction() >= lo && mask.mask().fraction() <= hi,
                    "{size}: {}",
                    mask.mask().fraction()
                );
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
            mask.mask().apply(&mut masked, |_, _| -7.0).unwrap();
            let mut count = 0;
            for (i, (&a, &b)) in pixels.iter().zip(&masked).enumerate() {
                let (row, column) = (i % (h * w) / w, i % w);
                // the cell whose edges floor(k H / 10) enclose this pixel, by search
                let cell = |x: usize, size: usize| (0..10).find(|k| x < (k + 1) * size / 10).unwrap();
                let taken = mask.cells().contains(&((cell(row, h) * 10 + cell(column, w)) as u8));
                assert_eq!(b.to_bits(), if taken { -7.0f32 } else { a }.to_bits());
                count += usize::from(taken);
            }
            assert_eq!(count as f64 / (3 * h * w) as f64, mask.mask().fraction());
        }
        assert!(GridMask::draw(0, 0, 0, 28, 28).unwrap().mask().apply(&mut [0.0; 785], |_, _| 0.0).is_err());
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

    /// Height and width of what is taken, where that is one full rectangle.
    fn sides(mask: &Mask) -> Option<[usize; 2]> {
        let taken = || (0..mask.taken.len()).filter(|&i| mask.taken[i]);
        let rows = || taken().map(|i| i / mask.width);
        let columns = || taken().map(|i| i % mask.width);
        let height = rows().max()? - rows().min()? + 1;
        let width = columns().max()? - columns().min()? + 1;
        (height * width == mask.count()).then_some([height, width])
    }

    fn drawn(image: u64, number: u32, size: [usize; 2], boxes: &[Rectangle]) -> Drawn<'_> {
        Drawn { seed: 4, image, number, size, boxes, file: None }
    }

    #[test]
    fn pixels_take_a_tenth_exactly_and_every_pixel_as_often() {
        let mut counts = vec![0u32; 400];
        for image in 0..2000 {
            let mask = Mask::draw(Region::Pixels, drawn(image, 1, [20, 20], &[])).unwrap();
            assert_eq!(mask.count(), 40);
            mask.taken().iter().zip(&mut counts).for_each(|(taken, count)| *count += u32::from(*taken));
        }
        // binomial: sd = sqrt(2000 .1 .9) = 13.4; five of them for the worst of 400
        assert!(counts.iter().all(|&c| (f64::from(c) - 200.0).abs() < 5.0 * 13.4), "{counts:?}");
        assert_eq!(Mask::draw(Region::Pixels, drawn(0, 0, [28, 28], &[])).unwrap().count(), 78);
    }

    #[test]
    fn a_rectangle_takes_a_tenth_to_half_a_row_and_lies_inside() {
        for image in 0..500 {
            let mask = Mask::draw(Region::Rectangle, drawn(image, 3, [224, 200], &[])).unwrap();
            let [height, width] = sides(&mask).expect("one rectangle");
            // the width is rounded: half a column of the height
            assert!((height as f64 * width as f64 - 4480.0).abs() <= height as f64 / 2.0, "{height} x {width}");
            let aspect = height as f64 / width as f64;
            assert!((0.48..=2.08).contains(&aspect), "{aspect}");
        }
        assert_eq!(Mask::draw(Region::Rectangle, drawn(0, 0, [1, 1], &[])).unwrap().count(), 1);
    }

    #[test]
    fn boxes_take_the_pixels_whose_middles_they_hold_and_their_control_as_many_others() {
        let rectangle = |x, y, width, height| Rectangle { x, y, width, height };
        let boxes = [rectangle(2.5, 3.4, 4.0, 2.0)];
        let mask = Mask::draw(Region::Box(None), drawn(0, 0, [10, 12], &boxes)).unwrap();
        // columns 2 to 5 (middles 2.5 to 5.5), rows 3 and 4 (3.5, 4.5)
        let want = |i: usize| (3..5).contains(&(i / 12)) && (2..6).contains(&(i % 12));
        assert!(mask.taken().iter().enumerate().all(|(i, &taken)| taken == want(i)));
        let mut places = std::collections::HashSet::new();
        for image in 0..200 {
            let beside = Mask::draw(Region::OutsideBox(None), drawn(image, 0, [10, 12], &boxes)).unwrap();
            assert_eq!(sides(&beside), Some([2, 4]));
            assert!(!beside.taken().iter().zip(mask.taken()).any(|(a, b)| *a && *b));
            places.insert(beside.taken().to_vec());
        }
        // 9 x 9 places less 3 x 7 that touch the box
        assert!(places.len() > 40, "{}", places.len());
        // two boxes: two rectangles; one without room beside it: single pixels, as many as there are
        let two = [boxes[0], rectangle(0.0, 0.0, 1.0, 1.0)];
        let control = Mask::draw(Region::OutsideBox(None), drawn(1, 0, [10, 12], &two)).unwrap();
        assert_eq!((control.count(), sides(&control)), (9, None));
        let wide = [rectangle(0.0, 0.0, 12.0, 7.0)];
        assert_eq!(Mask::draw(Region::OutsideBox(None), drawn(1, 0, [10, 12], &wide)).unwrap().count(), 36);
        // a box thinner than a pixel, and one at the rim, take one
        let thin = [rectangle(4.6, 20.0, 0.1, 0.1)];
        assert_eq!(Mask::draw(Region::Box(None), drawn(1, 0, [10, 12], &thin)).unwrap().count(), 1);
        assert!(Mask::draw(Region::Box(None), drawn(1, 0, [10, 12], &[])).is_err());
    }

    #[test]
    fn a_mask_file_serves_images_of_its_own_size_only() {
        let file = Mask::new(vec![true, false, false, true], 2, 2).unwrap();
        let with = |size| Drawn { file: Some(&file), ..drawn(0, 0, size, &[]) };
        assert_eq!(Mask::draw(Region::File, with([2, 2])).unwrap(), file);
        assert!(Mask::draw(Region::File, with([2, 3])).is_err());
        assert!(Mask::draw(Region::File, drawn(0, 0, [2, 2], &[])).is_err());
        assert!(Mask::new(vec![true; 3], 2, 2).is_err() && Mask::new(vec![], 0, 3).is_err());
        let far = Drawn { number: u32::MAX, ..drawn(0, 0, [20, 20], &[]) };
        for region in [Region::Pixels, Region::Rectangle, Region::Grid10] {
            assert!(Mask::draw(region, far).is_err());
            assert!(Mask::draw(region, drawn(0, 0, [0, 3], &[])).is_err());
        }
    }
}
