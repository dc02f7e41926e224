//! What happens to an image between its file and the network: the short side resized, a centre crop, as torchvision's
//! `Resize` and `CenterCrop` do on PIL images; and where a box on the original ends up. Called by [`super::files`].

use super::image::{Channels, Image};
use super::resize::resize;
use crate::tensor::Shape;

/// How images of any size become images of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Geometry {
    /// Nothing: every image must have this size (height, width) already.
    As([usize; 2]),
    /// Resized so that the short side is `short`, then the middle `crop` x `crop` pixels, with black around what is smaller.
    ShortSide {
        /// The short side, at least 1.
        short: usize,
        /// The crop's side, at least 1.
        crop: usize,
    },
}

/// From file to network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transform {
    /// Grey or RGB.
    pub channels: Channels,
    /// The size.
    pub geometry: Geometry,
}

/// The evaluation transform of ImageNet networks: short side 256, crop 224.
pub const IMAGENET: Geometry = Geometry::ShortSide { short: 256, crop: 224 };

/// Part of an image, in its pixels. Left and top may be negative where a crop is larger than the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First column.
    pub left: i64,
    /// First row.
    pub top: i64,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// A rectangle in pixels, fractions allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rectangle {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// The size that torchvision's `Resize(short)` gives: the long side is cut to an integer, not rounded.
pub fn short_side_size([width, height]: [usize; 2], short: usize) -> [usize; 2] {
    let long = |long: usize, by: usize| ((short as f64 * long as f64 / by as f64) as usize).max(1);
    if width <= height { [short, long(height, width)] } else { [long(width, height), short] }
}

/// Half of `n`, a half left over going to the even side: Python's `int(round(n / 2.0))`.
fn half_to_even(n: i64) -> i64 {
    let half = n.div_euclid(2);
    half + i64::from(n.rem_euclid(2) == 1 && half.rem_euclid(2) == 1)
}

/// Where torchvision's `CenterCrop(side)` cuts: what is smaller is padded first, the odd pixel to the right and below.
pub fn center_window([width, height]: [usize; 2], side: usize) -> Window {
    let start = |have: usize| match (have as i64, side as i64) {
        (have, side) if have < side => -((side - have) / 2),
        (have, side) => half_to_even(have - side),
    };
    Window { left: start(width), top: start(height), width: side, height: side }
}

/// The pixels of `window`, black where it is beyond the image.
pub fn crop(image: &Image, window: Window) -> Image {
    let channels = image.channels.count();
    let mut pixels = vec![0; window.width * window.height * channels];
    let columns = overlap(window.left, window.width, image.width);
    for (y, out) in pixels.chunks_exact_mut((window.width * channels).max(1)).enumerate() {
        let row = window.top + y as i64;
        if row < 0 || row >= image.height as i64 || columns.is_empty() {
            continue;
        }
        let from = (row as usize * image.width + columns.start) * channels;
        let to = (columns.start as i64 - window.left) as usize * channels;
        let len = columns.len() * channels;
        out[to..to + len].copy_from_slice(&image.pixels[from..from + len]);
    }
    Image { width: window.width, height: window.height, channels: image.channels, pixels }
}

/// The part of 0..have that lies in start..start + len.
fn overlap(start: i64, len: usize, have: usize) -> std::ops::Range<usize> {
    let end = start.saturating_add(len as i64).clamp(0, have as i64);
    let start = start.clamp(0, have as i64);
    start as usize..end.max(start) as usize
}

impl Transform {
    /// Height and width after it.
    pub fn size(&self) -> [usize; 2] {
        match self.geometry {
            Geometry::As(size) => size,
            Geometry::ShortSide { crop, .. } => [crop, crop],
        }
    }

    /// Shape of an image after it: C x H x W.
    pub fn shape(&self) -> Shape {
        let [height, width] = self.size();
        Shape::new(vec![self.channels.count(), height, width])
    }

    /// The image that the network takes; `None` where [`Geometry::As`] asks for another size than the image has.
    pub fn apply(&self, image: Image) -> Option<Image> {
        let image = image.into_channels(self.channels);
        match self.geometry {
            Geometry::As(size) => (size == [image.height, image.width]).then_some(image),
            Geometry::ShortSide { short, crop: side } => {
                let [width, height] = short_side_size([image.width, image.height], short);
                let window = center_window([width, height], side);
                Some(crop(&resize(image, width, height), window))
            }
        }
    }

    /// Where `rectangle` of an image of `size` (width, height) lies after it, cut at the crop's edge; `None` where nothing
    /// of it is left.
    pub fn place(&self, size: [usize; 2], rectangle: Rectangle) -> Option<Rectangle> {
        let (scaled, window) = match self.geometry {
            Geometry::As([height, width]) => ([width, height], Window { left: 0, top: 0, width, height }),
            Geometry::ShortSide { short, crop } => {
                let scaled = short_side_size(size, short);
                (scaled, center_window(scaled, crop))
            }
        };
        let axis = |start: f64, len: f64, axis: usize, from: i64, have: usize| {
            let scale = scaled[axis] as f64 / size[axis].max(1) as f64;
            let start_at = (start * scale - from as f64).max(0.0);
            let end_at = ((start + len) * scale - from as f64).min(have as f64);
            (end_at > start_at).then_some((start_at, end_at - start_at))
        };
        let (x, width) = axis(rectangle.x, rectangle.width, 0, window.left, window.width)?;
        let (y, height) = axis(rectangle.y, rectangle.height, 1, window.top, window.height)?;
        Some(Rectangle { x, y, width, height })
    }

    /// What a hash of data says of it.
    pub(super) fn text(&self) -> String {
        let channels = self.channels.count();
        match self.geometry {
            Geometry::As([height, width]) => format!("{channels}x{height}x{width}"),
            Geometry::ShortSide { short, crop } => format!("{channels} short side {short}, crop {crop}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_side_is_cut_and_a_half_pixel_goes_to_the_even_side() {
        assert_eq!(short_side_size([500, 375], 256), [341, 256]);
        assert_eq!(short_side_size([375, 500], 256), [256, 341]);
        assert_eq!(short_side_size([1, 3000], 256), [256, 768_000]);
        let starts = [224, 225, 226, 227, 229, 231].map(|w| center_window([w, 224], 224).left);
        assert_eq!(starts, [0, 0, 1, 2, 2, 4]);
        assert_eq!(center_window([3, 224], 224).left, -110);
    }

    #[test]
    fn a_crop_larger_than_the_image_is_black_around_it() {
        let image = Image { width: 1, height: 1, channels: Channels::Grey, pixels: vec![9] };
        assert_eq!(crop(&image, center_window([1, 1], 4)).pixels, [0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let far = Window { left: 50, top: -9, width: 2, height: 2 };
        assert_eq!(crop(&image, far).pixels, [0; 4]);
    }

    #[test]
    fn a_box_follows_its_image() {
        let transform = Transform { channels: Channels::Grey, geometry: IMAGENET };
        let whole = Rectangle { x: 0.0, y: 0.0, width: 1024.0, height: 1024.0 };
        let placed = transform.place([1024, 1024], whole);
        assert_eq!(placed, Some(Rectangle { x: 0.0, y: 0.0, width: 224.0, height: 224.0 }));
        let inner = Rectangle { x: 512.0, y: 256.0, width: 128.0, height: 64.0 };
        let placed = transform.place([1024, 1024], inner);
        assert_eq!(placed, Some(Rectangle { x: 112.0, y: 48.0, width: 32.0, height: 16.0 }));
        let corner = Rectangle { x: 0.0, y: 0.0, width: 60.0, height: 60.0 };
        assert_eq!(transform.place([1024, 1024], corner), None);
        let same = Transform { channels: Channels::Grey, geometry: Geometry::As([8, 8]) };
        assert_eq!(same.place([8, 8], Rectangle { x: 1.0, y: 2.0, width: 3.0, height: 4.0 }).map(|r| r.y), Some(2.0));
    }
}
