//! A decoded image, [`Image`]: grey or RGB bytes, and reading one from a file. Conversion between the two is PIL's.
//! Called by [`super::transform`] and [`super::files`].

use std::io::Read;
use std::path::Path;

use super::DataError;
use super::decode::{self, Format, Limits};

/// What a network takes: one channel or three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channels {
    /// One: PIL's mode `L`.
    Grey,
    /// Three: PIL's mode `RGB`. Grey images are replicated.
    Rgb,
}

impl Channels {
    /// How many.
    pub fn count(self) -> usize {
        match self {
            Channels::Grey => 1,
            Channels::Rgb => 3,
        }
    }
}

/// An image as PIL holds it: rows of pixels, channels together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Pixels across, at least 1.
    pub width: usize,
    /// Pixels down, at least 1.
    pub height: usize,
    /// What a pixel holds.
    pub channels: Channels,
    /// height x width x channels bytes.
    pub pixels: Vec<u8>,
}

/// Grey of a colour, ITU-R 601 in PIL's integers.
pub fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000) >> 16) as u8
}

impl Image {
    /// The same in `channels`, as PIL's `convert("L")` and `convert("RGB")`.
    pub fn into_channels(self, channels: Channels) -> Image {
        let pixels = match (self.channels, channels) {
            (Channels::Grey, Channels::Rgb) => self.pixels.iter().flat_map(|&v| [v; 3]).collect(),
            (Channels::Rgb, Channels::Grey) => self.pixels.chunks_exact(3).map(|p| luma([p[0], p[1], p[2]])).collect(),
            _ => return self,
        };
        Image { channels, pixels, ..self }
    }

    /// Its bytes with each channel by itself: C x H x W, as networks take them.
    pub fn planar(&self) -> Vec<u8> {
        let channels = self.channels.count();
        (0..channels).flat_map(|c| self.pixels.iter().skip(c).step_by(channels).copied()).collect()
    }
}

/// Longest image file that is read, in bytes. The largest decoded image is smaller than this, and a file is in memory
/// while it is decoded.
const FILE_BYTES_MAX: u64 = 1 << 29;

/// The bytes of an image file.
///
/// # Errors
/// [`DataError::Io`], also for what is no regular file; [`DataError::Image`] for one that is empty or beyond any image.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    let io = |doing: &'static str| move |reason: std::io::Error| DataError::Io { file: path.to_owned(), doing, reason };
    // Before opening: a named pipe would block the open for ever.
    let about = std::fs::metadata(path).map_err(io("find it"))?;
    if !about.is_file() {
        let reason = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not a regular file");
        return Err(io("read it")(reason));
    }
    if about.len() > FILE_BYTES_MAX {
        let reason = format!("it has {} bytes; images of more than {FILE_BYTES_MAX} are not read", about.len());
        return Err(DataError::Image { file: path.to_owned(), reason });
    }
    let file = std::fs::File::open(path).map_err(io("open it"))?;
    let mut bytes = Vec::with_capacity(about.len() as usize);
    // the file may grow meanwhile
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io("read it"))?;
    Ok(bytes)
}

/// The image in a file, and what the file is.
///
/// # Errors
/// As [`read_bytes`], and [`DataError::Image`] for what is damaged, cut short, too large or no image.
pub fn read(path: &Path, channels: Channels) -> Result<(Image, Format), DataError> {
    let bytes = read_bytes(path)?;
    let failed = |damage: decode::Damage| DataError::Image { file: path.to_owned(), reason: damage.to_string() };
    let (image, format) = decode::decode(&bytes, &Limits::default()).map_err(failed)?;
    Ok((image.into_channels(channels), format))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_and_rgb_convert_as_pil_does_and_planes_come_apart() {
        assert_eq!([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]].map(luma), [255, 76, 150, 29]);
        let rgb = Image { width: 2, height: 1, channels: Channels::Rgb, pixels: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(rgb.planar(), [1, 4, 2, 5, 3, 6]);
        let grey = rgb.clone().into_channels(Channels::Grey);
        assert_eq!(grey.pixels, [2, 5]);
        assert_eq!(grey.into_channels(Channels::Rgb).pixels, [2, 2, 2, 5, 5, 5]);
        assert_eq!(rgb.clone().into_channels(Channels::Rgb), rgb);
    }
}
