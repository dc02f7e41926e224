//! Maps as pictures: each over the image that it explains, blue to red around 0, beside a bar that says what the colours are.
//! Maps of one picture share one scale, so that a fainter colour is a smaller number. Called by the verb `map`.

mod colour;
mod font;

pub use colour::Scale;

use super::{ExplainError, Flag, Map};
use crate::picture::{self, Channels};
use std::io;

/// An image under one input, with its map.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// What stands above it.
    pub label: &'a str,
    /// How probable the network finds the map's class there.
    pub probability: Option<f64>,
    /// Pixels in [0, 1], C x H x W.
    pub image: &'a [f32],
    /// Channels, height, width of the image.
    pub shape: [usize; 3],
    /// The map, of any size: it is drawn at the image's.
    pub map: &'a Map,
}

/// Red, green and blue bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// Smaller images are drawn at a whole multiple of their size that is at least this wide or high.
const SIDE_MIN: usize = 168;
/// Space around panels.
const GAP: usize = 12;
/// Pixels a dot of a letter.
const DOT: usize = 2;
/// Height of a line of text with the space below it.
const LINE: usize = (font::HEIGHT + 4) * DOT;
/// Width of the colour bar.
const BAR: usize = 18;
/// Letters that fit beside the bar: `-1.23e-10`.
const BAR_LETTERS: usize = 9;
/// How bright a black pixel of the image leaves the colour over it: below, colours could not be told in the dark.
const SHADE: f64 = 0.45;
const INK: [u8; 3] = [30, 30, 30];

/// Panels side by side, above the images, below the maps over them, with `title` on top and the colour bar of `scale` to the
/// right. A map of nothing but 0 is labelled so, and cells that are no number are a grey chequer.
///
/// # Errors
/// [`ExplainError::Pixels`] when an image is not of its shape, [`ExplainError::Map`] for one of size 0.
pub fn figure(title: &str, panels: &[Panel<'_>], scale: Scale) -> Result<Picture, ExplainError> {
    let drawn: Vec<(usize, Map)> = panels.iter().map(prepared).collect::<Result<_, _>>()?;
    // a panel is as wide as its image, or as what stands above it
    let size = |(panel, (factor, _)): (&Panel<'_>, &(usize, Map))| {
        (panel.shape[1] * factor, (panel.shape[2] * factor).max(font::width(&labelled(panel)) * DOT))
    };
    let sizes: Vec<(usize, usize)> = panels.iter().zip(&drawn).map(size).collect();
    let highest = sizes.iter().map(|s| s.0).max().unwrap_or(0);
    let across: usize = sizes.iter().map(|s| s.1 + GAP).sum();
    let beside = BAR + DOT * 3 + BAR_LETTERS * font::ADVANCE * DOT;
    let width = (GAP + across + beside + GAP).max(2 * GAP + font::width(title) * DOT);
    let (images, maps) = (GAP + 2 * LINE, GAP + 2 * LINE + highest + GAP);
    let mut picture = Picture::blank(width, maps + highest + GAP);
    picture.write(GAP, GAP, title);
    let mut left = GAP;
    for ((panel, (factor, map)), (_, wide)) in panels.iter().zip(&drawn).zip(&sizes) {
        picture.write(left, GAP + LINE, &labelled(panel));
        let [_, height, columns] = panel.shape;
        for row in 0..height * factor {
            for column in 0..columns * factor {
                let cell = (row / factor) * columns + column / factor;
                let colour = colour_of(panel.image, height * columns, cell);
                picture.set(left + column, images + row, colour.map(|c| byte(255.0 * c)));
                let light = SHADE + (1.0 - SHADE) * luma(colour);
                // the map was resized to the drawn size, so that its colours are smooth
                let value = map.values()[row * map.width() + column];
                let over = match scale.colour(value) {
                    Some(colour) => colour.map(|c| byte(c * light)),
                    None => colour::NO_NUMBER[(row / 4 + column / 4) % 2],
                };
                picture.set(left + column, maps + row, over);
            }
        }
        left += wide + GAP;
    }
    picture.bar((left, maps), highest, scale);
    Ok(picture)
}

/// How many times its size an image is drawn, and its map at that size.
fn prepared(panel: &Panel<'_>) -> Result<(usize, Map), ExplainError> {
    let [channels, height, width] = panel.shape;
    let cells = height.saturating_mul(width);
    if cells == 0 || panel.image.is_empty() || panel.image.len() != channels.saturating_mul(cells) {
        return Err(ExplainError::Pixels { pixels: panel.image.len(), cells });
    }
    let factor = SIDE_MIN.div_ceil(height.max(width)).max(1);
    Ok((factor, panel.map.resized(height * factor, width * factor)?))
}

/// The label, with what is remarkable about the map, or else the probability.
fn labelled(panel: &Panel<'_>) -> String {
    match (panel.map.flag(), panel.probability) {
        (Flag::Ordinary, Some(p)) => format!("{} p={p:.2}", panel.label),
        (Flag::Ordinary, None) => panel.label.into(),
        (flag, _) => format!("{} ({})", panel.label, flag.name()),
    }
}

/// Red, green and blue of a pixel in [0, 1]: its channels where there are three, else the first for all. What is no number is
/// black.
fn colour_of(image: &[f32], cells: usize, cell: usize) -> [f64; 3] {
    let channel = |c: usize| image.get(c * cells + cell).map_or(0.0, |&v| f64::from(v));
    let own = image.len() / cells >= 3;
    std::array::from_fn(|c| channel(if own { c } else { 0 }))
        .map(|v: f64| if v.is_nan() { 0.0 } else { v.clamp(0.0, 1.0) })
}

/// Lightness (ITU-R 601).
fn luma([red, green, blue]: [f64; 3]) -> f64 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

fn byte(value: f64) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

/// A number in at most three digits: `0.123`, `12.3`, `1.23e-5`.
fn short(value: f32) -> String {
    let size = value.abs();
    let text = match size {
        _ if value == 0.0 => return "0".into(),
        0.001..1.0 => format!("{size:.3}"),
        1.0..10.0 => format!("{size:.2}"),
        10.0..1000.0 => format!("{size:.1}"),
        _ => format!("{size:.2e}"),
    };
    format!("{}{text}", if value < 0.0 { '-' } else { '+' })
}

impl Picture {
    fn blank(width: usize, height: usize) -> Picture {
        Picture { width, height, pixels: vec![255; 3 * width * height] }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Red, green and blue of a pixel; none outside.
    pub fn pixel(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        let at = 3 * (y * self.width + x);
        (x < self.width).then(|| self.pixels.get(at..at + 3)?.try_into().ok()).flatten()
    }

    fn set(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        let at = 3 * (y * self.width + x);
        if x < self.width
            && let Some(pixel) = self.pixels.get_mut(at..at + 3)
        {
            pixel.copy_from_slice(&colour);
        }
    }

    /// Writes `text` with its upper left corner at (x, y); what does not fit is cut.
    fn write(&mut self, x: usize, y: usize, text: &str) {
        for (i, letter) in text.chars().enumerate() {
            for row in 0..font::HEIGHT * DOT {
                for column in 0..font::WIDTH * DOT {
                    if font::ink(letter, row / DOT, column / DOT) {
                        self.set(x + i * font::ADVANCE * DOT + column, y + row, INK);
                    }
                }
            }
        }
    }

    /// The colour bar from +largest at the top to -largest, and what its ends, halves and middle are.
    fn bar(&mut self, (x, y): (usize, usize), height: usize, scale: Scale) {
        let largest = scale.largest();
        for row in 0..height {
            let share = 1.0 - 2.0 * row as f32 / height.saturating_sub(1).max(1) as f32;
            // a scale of nothing has nothing but white
            let colour = scale.colour(share * largest).unwrap_or([255.0; 3]).map(byte);
            (0..BAR).for_each(|column| self.set(x + column, y + row, colour));
            self.set(x, y + row, INK);
            self.set(x + BAR - 1, y + row, INK);
        }
        for edge in [y, y + height.saturating_sub(1)] {
            (0..BAR).for_each(|column| self.set(x + column, edge, INK));
        }
        let ticks: &[(f32, usize)] =
            if largest > 0.0 { &[(1.0, 0), (0.5, 1), (0.0, 2), (-0.5, 3), (-1.0, 4)] } else { &[(0.0, 2)] };
        for &(share, quarter) in ticks {
            let row = y + (height.saturating_sub(1)) * quarter / 4;
            (0..DOT * 2).for_each(|column| self.set(x + BAR + column, row, INK));
            let tall = font::HEIGHT * DOT;
            let top = row.saturating_sub(tall / 2).clamp(y, (y + height).saturating_sub(tall).max(y));
            self.write(x + BAR + DOT * 3, top, &short(share * largest));
        }
    }

    /// The picture as the bytes of a PNG file.
    ///
    /// # Errors
    /// [`io::Error`] for a picture that PNG cannot hold.
    pub fn png(&self) -> io::Result<Vec<u8>> {
        picture::png(&self.pixels, [self.width, self.height], Channels::Rgb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 3] = [1, 28, 28];

    fn drawn(map: &Map, image: f32) -> Picture {
        let image = vec![image; 784];
        let panel = Panel { label: "none", probability: Some(0.987), image: &image, shape: SHAPE, map };
        figure("cem, class 3", &[panel, Panel { label: "fgsm", ..panel }], Scale::shared([map])).unwrap()
    }

    /// Colours of the lower left panel.
    fn over(picture: &Picture) -> Vec<[u8; 3]> {
        let top = GAP + 2 * LINE + 168 + GAP;
        let at = |i: usize| picture.pixel(GAP + i % 168, top + i / 168).unwrap();
        (0..168 * 168).map(at).collect()
    }

    #[test]
    fn a_picture_is_a_png_that_holds_its_pixels() {
        let map = Map::new(2, 2, vec![1.0, -1.0, 0.0, 0.5]).unwrap();
        let picture = drawn(&map, 1.0);
        let file = picture.png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width as usize, info.height as usize), (picture.width(), picture.height()));
        assert_eq!(pixels, picture.pixels);
    }

    #[test]
    fn above_zero_is_red_below_is_blue_and_where_nothing_is_the_image_shows() {
        let map = Map::new(1, 3, vec![1.0, 0.0, -1.0]).unwrap();
        let picture = drawn(&map, 1.0);
        let cells = over(&picture);
        let [red, white, blue] = [cells[84 * 168], cells[84 * 168 + 84], cells[84 * 168 + 167]];
        assert!(red[0] > red[2] + 100 && blue[2] > blue[0] + 100, "{red:?} {blue:?}");
        assert!(white.iter().all(|&c| c >= 250), "{white:?}");
        // where the map is 0, a dark image is grey: neither red nor blue
        let dark = over(&drawn(&map, 0.0))[84 * 168 + 84];
        assert!(dark.iter().all(|&c| c.abs_diff(dark[0]) <= 2) && dark[0] < 130, "{dark:?}");
    }

    #[test]
    fn a_map_of_nothing_is_white_and_one_without_numbers_is_a_chequer_and_both_say_so() {
        let zero = Map::new(2, 2, vec![0.0; 4]).unwrap();
        assert!(over(&drawn(&zero, 1.0)).iter().all(|&c| c == [255; 3]));
        let nan = Map::new(2, 2, vec![f32::NAN; 4]).unwrap();
        let picture = drawn(&nan, 1.0);
        assert!(over(&picture).iter().all(|c| colour::NO_NUMBER.contains(c)));
        let image = [0.0; 784];
        let label =
            |map: &Map| labelled(&Panel { label: "fgsm", probability: Some(0.987), image: &image, shape: SHAPE, map });
        let ordinary = Map::new(1, 2, vec![1.0, 2.0]).unwrap();
        assert_eq!([label(&zero), label(&nan), label(&ordinary)], ["fgsm (zero)", "fgsm (nan)", "fgsm p=0.99"]);
    }

    #[test]
    fn numbers_beside_the_bar_are_short() {
        let numbers = [0.0, 0.5, -0.0321, 1.0, 12.34, -999.9, 1234.5, 1.5e-7, -f32::MAX].map(short);
        assert_eq!(numbers, ["0", "+0.500", "-0.032", "+1.00", "+12.3", "-999.9", "+1.23e3", "+1.50e-7", "-3.40e38"]);
        assert!(numbers.iter().all(|n| n.len() <= BAR_LETTERS));
    }

    #[test]
    fn an_image_that_is_not_of_its_shape_is_refused() {
        let map = Map::new(2, 2, vec![1.0; 4]).unwrap();
        for (pixels, shape) in [(783, SHAPE), (784, [3, 28, 28]), (0, [1, 0, 28]), (0, [0, 28, 28])] {
            let image = vec![0.5; pixels];
            let panel = Panel { label: "", probability: None, image: &image, shape, map: &map };
            assert!(matches!(figure("", &[panel], Scale::shared([&map])), Err(ExplainError::Pixels { .. })));
        }
    }
}
