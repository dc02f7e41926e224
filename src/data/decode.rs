//! Bytes of an image file to pixels, by content, never by name: PNG, JPEG and, where compiled in, DICOM. What is damaged or
//! cut short is an error, never filled up. Exif orientation is not applied: PIL's `Image.open` does not either, so a photo
//! lies here as it lay in training. Called by [`super::image`].

use std::fmt;
use std::io::Cursor;

use super::image::{Channels, Image};
use super::jpeg;

/// What a file is, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// DICOM, part 10.
    Dicom,
}

impl Format {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Format::Png => "PNG",
            Format::Jpeg => "JPEG",
            Format::Dicom => "DICOM",
        }
    }

    /// What names of such files end in.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Format::Png => &["png"],
            Format::Jpeg => &["jpg", "jpeg"],
            Format::Dicom => &["dcm", "dicom"],
        }
    }
}

/// Why a file gives no image; the caller adds the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It ends too early.
    CutShort,
    /// It is whole and wrong.
    Damaged(&'static str),
    /// As above, in the words of a crate.
    Reader(String),
    /// It is something that is not read here.
    Unsupported(String),
    /// Its image is larger than the limit.
    TooLarge {
        /// Pixels across.
        width: u64,
        /// Pixels down.
        height: u64,
        /// The most pixels a side.
        side_max: u64,
        /// The most pixels in all.
        pixels_max: u64,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::CutShort => f.write_str("it is cut short: copy or fetch it again"),
            Damage::Damaged(what) => write!(f, "it is damaged ({what}): copy or fetch it again"),
            Damage::Reader(what) => write!(f, "it is damaged ({what}): copy or fetch it again"),
            Damage::Unsupported(what) => write!(f, "{what} is not read; save it as 8-bit PNG or JPEG"),
            Damage::TooLarge { width, height, side_max, pixels_max } => write!(
                f,
                "it is {width}x{height}, beyond the limit of {side_max} pixels a side and {pixels_max} in all: scale it down"
            ),
        }
    }
}

/// How large an image may be, checked before its pixels are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels a side.
    pub side_max: u64,
    /// Most pixels in all.
    pub pixels_max: u64,
}

/// A side of 65,535 (JPEG's own limit) and 2^26 = 67,108,864 pixels: 30,000 across are read up to 2,236 down. Decoding
/// takes at most some 20 bytes a pixel, so a decoding thread at most 1.3 GiB beside the file.
impl Default for Limits {
    fn default() -> Self {
        Limits { side_max: 65_535, pixels_max: 1 << 26 }
    }
}

impl Limits {
    /// Whether an image of that size may be decoded.
    pub fn check(&self, width: u64, height: u64) -> Result<(), Damage> {
        let Limits { side_max, pixels_max } = *self;
        if width == 0 || height == 0 {
            return Err(Damage::Damaged("a side of it is 0"));
        }
        if width > side_max || height > side_max || width.saturating_mul(height) > pixels_max {
            return Err(Damage::TooLarge { width, height, side_max, pixels_max });
        }
        Ok(())
    }
}

const PNG_START: [u8; 8] = [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a];

/// What the file is; an error that says what it seems to be where it is nothing that is read.
///
/// # Errors
/// [`Damage`].
pub fn recognise(bytes: &[u8]) -> Result<Format, Damage> {
    let starts = |start: &[u8]| bytes.starts_with(start);
    if bytes.is_empty() {
        return Err(Damage::Damaged("it has 0 bytes"));
    }
    if starts(&PNG_START) {
        return Ok(Format::Png);
    }
    if starts(&[0xff, 0xd8, 0xff]) {
        return Ok(Format::Jpeg);
    }
    if bytes.get(128..132) == Some(b"DICM") {
        return Ok(Format::Dicom);
    }
    let other = match bytes {
        [b'G', b'I', b'F', b'8', ..] => "GIF",
        [b'B', b'M', ..] => "BMP",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "TIFF",
        [b'R', b'I', b'F', b'F', ..] if bytes.get(8..12) == Some(b"WEBP") => "WebP",
        [b'P', b'1'..=b'7', ..] => "PNM",
        [b'<', ..] => "a web page or XML, no image: it",
        _ if starts(b"version https://git-lfs") => "a git-LFS pointer (`git lfs pull` gets the file): it",
        _ if PNG_START.starts_with(bytes) || [0xff, 0xd8].starts_with(bytes) => return Err(Damage::CutShort),
        _ => "a file that begins neither as PNG nor as JPEG nor as DICOM",
    };
    Err(Damage::Unsupported(other.into()))
}

/// The image in `bytes`: grey where the file is grey, else RGB.
///
/// # Errors
/// [`Damage`].
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<(Image, Format), Damage> {
    let format = recognise(bytes)?;
    let image = match format {
        Format::Png => png_image(bytes, limits)?,
        Format::Jpeg => jpeg_image(bytes, limits)?,
        Format::Dicom => dicom_image(bytes, limits)?,
    };
    Ok((image, format))
}

#[cfg(feature = "dicom")]
fn dicom_image(bytes: &[u8], limits: &Limits) -> Result<Image, Damage> {
    super::dicom::decode(bytes, limits)
}

#[cfg(not(feature = "dicom"))]
fn dicom_image(_: &[u8], _: &Limits) -> Result<Image, Damage> {
    Err(Damage::Unsupported("DICOM (this program was built without it: `cargo build --features dicom` adds it)".into()))
}

fn jpeg_image(bytes: &[u8], limits: &Limits) -> Result<Image, Damage> {
    let decoded = jpeg::decode(bytes, limits)?;
    let (channels, pixels) = match decoded.colour {
        jpeg::Colour::Grey => (Channels::Grey, decoded.samples),
        jpeg::Colour::Rgb => (Channels::Rgb, decoded.samples),
        jpeg::Colour::Cmyk => {
            let pixels = decoded.samples.chunks_exact(4).flat_map(|p| cmyk_to_rgb([p[0], p[1], p[2], p[3]])).collect();
            (Channels::Rgb, pixels)
        }
    };
    Ok(Image { width: decoded.width, height: decoded.height, channels, pixels })
}

/// PIL's: what the black lets through, less the ink's share of it.
fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let through = 255 - u32::from(k);
    [c, m, y].map(|ink| {
        let t = u32::from(ink) * through + 128;
        through.saturating_sub(((t >> 8) + t) >> 8) as u8
    })
}

/// Deflate expands at most 1032-fold.
const DEFLATE_FACTOR_MAX: u64 = 1032;

fn png_image(bytes: &[u8], limits: &Limits) -> Result<Image, Damage> {
    let failed = |e: png::DecodingError| match e {
        png::DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Damage::CutShort,
        other => Damage::Reader(other.to_string()),
    };
    let options = png::Limits { bytes: usize::MAX }; // what it takes is bounded by the header checks below
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), options);
    decoder.set_transformations(png::Transformations::IDENTITY);
    // texts and colour profiles do not change pixels here and may be bombs of their own
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(failed)?;
    let (width, height) = (u64::from(header.width), u64::from(header.height));
    limits.check(width, height)?;
    let sample_bits = header.bits_per_pixel() as u64;
    if width * height * sample_bits / 8 > DEFLATE_FACTOR_MAX.saturating_mul(bytes.len() as u64) {
        return Err(Damage::CutShort);
    }
    let mut reader = decoder.read_info().map_err(failed)?;
    let size = reader.output_buffer_size().ok_or(Damage::Damaged("its size makes no sense"))?;
    let mut raw = vec![0; size];
    let frame = reader.next_frame(&mut raw).map_err(failed)?;
    reader.finish().map_err(failed)?; // the end chunk must be there
    let (width, height) = (width as usize, height as usize);
    let (kind, depth) = (frame.color_type, frame.bit_depth);
    let values = samples(&raw, width * kind.samples(), height, frame.line_size, depth);
    let (channels, pixels) = match kind {
        png::ColorType::Grayscale => {
            let scale = match depth {
                png::BitDepth::One => 255,
                png::BitDepth::Two => 85,
                png::BitDepth::Four => 17,
                png::BitDepth::Eight | png::BitDepth::Sixteen => 1,
            };
            (Channels::Grey, values.map(|v| v * scale).collect())
        }
        png::ColorType::GrayscaleAlpha => (Channels::Grey, values.step_by(2).collect()),
        png::ColorType::Rgb => (Channels::Rgb, values.collect()),
        png::ColorType::Rgba => (Channels::Rgb, values.enumerate().filter(|(i, _)| i % 4 != 3).map(|v| v.1).collect()),
        png::ColorType::Indexed => {
            let palette = reader.info().palette.as_deref().ok_or(Damage::Damaged("its palette is missing"))?;
            let mut pixels = Vec::with_capacity(3 * width * height);
            for index in values {
                let start = 3 * usize::from(index);
                let colour = palette.get(start..start + 3).ok_or(Damage::Damaged("a pixel is beyond its palette"))?;
                pixels.extend_from_slice(colour);
            }
            (Channels::Rgb, pixels)
        }
    };
    Ok(Image { width, height, channels, pixels })
}

/// The samples of rows that begin at whole bytes, `per_row` each: of 16 bits the upper eight, as PIL takes them.
fn samples(
    raw: &[u8],
    per_row: usize,
    rows: usize,
    row_bytes: usize,
    depth: png::BitDepth,
) -> impl Iterator<Item = u8> + '_ {
    let bits = depth as usize;
    raw.chunks_exact(row_bytes.max(1)).take(rows).flat_map(move |row| {
        (0..per_row).map(move |x| match bits {
            16 => row[2 * x],
            8 => row[x],
            _ => {
                let at = x * bits;
                (row[at / 8] >> (8 - bits - at % 8)) & ((1 << bits) - 1)
            }
        })
    })
}

/// Width and height in the header of `bytes`, without decoding; none where it has no readable header.
pub fn size(bytes: &[u8]) -> Option<(usize, usize)> {
    let word = |at: usize| Some(usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])));
    match recognise(bytes).ok()? {
        Format::Png => Some(((word(16)? << 16) + word(18)?, (word(20)? << 16) + word(22)?)),
        Format::Jpeg => {
            let mut at = 2;
            loop {
                let marker = word(at)?;
                match marker {
                    0xffff => at += 1,
                    0xffc0..=0xffcf if ![0xffc4, 0xffc8, 0xffcc].contains(&marker) => {
                        return Some((word(at + 7)?, word(at + 5)?));
                    }
                    0xff01 | 0xffd0..=0xffd8 => at += 2,
                    0xff02..=0xfffe => at += 2 + word(at + 2)?.max(2),
                    _ => return None,
                }
            }
        }
        Format::Dicom => decode(bytes, &Limits::default()).ok().map(|(image, _)| (image.width, image.height)),
    }
}
