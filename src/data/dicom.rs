//! DICOM files of one grey frame to 8-bit pixels: rescaled to the modality's units, the first window applied (LINEAR,
//! LINEAR_EXACT or SIGMOID as the file says), or the file's own least and greatest value where it has none, and MONOCHROME1
//! inverted, so that more signal is brighter. Compiled with the feature `dicom`; called by [`super::decode`].

use std::io::Cursor;
use std::panic::catch_unwind;

use dicom_object::Tag;
use dicom_pixeldata::{
    ConvertOptions, PhotometricInterpretation, PixelDecoder, VoiLutFunction, VoiLutOption, WindowLevelTransform,
};

use super::decode::{Damage, Limits};
use super::image::{Channels, Image};

const ROWS: Tag = Tag(0x0028, 0x0010);
const COLUMNS: Tag = Tag(0x0028, 0x0011);
const FRAMES: Tag = Tag(0x0028, 0x0008);
const VOI_LUT_SEQUENCE: Tag = Tag(0x0028, 0x3010);
const SAMPLES: Tag = Tag(0x0028, 0x0002);

/// The image in `bytes`.
///
/// # Errors
/// [`Damage`]; a panic inside the crates that read it, which index some attributes unchecked, is one too.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Image, Damage> {
    let limits = *limits;
    catch_unwind(|| read(bytes, &limits)).unwrap_or_else(|_| Err(Damage::Damaged("its attributes make no sense")))
}

fn failed(e: impl std::fmt::Display) -> Damage {
    Damage::Reader(e.to_string())
}

fn read(bytes: &[u8], limits: &Limits) -> Result<Image, Damage> {
    let object = dicom_object::from_reader(Cursor::new(bytes)).map_err(failed)?;
    let number = |tag: Tag| object.element_opt(tag).ok().flatten().and_then(|e| e.to_int::<u64>().ok());
    let (width, height) = (number(COLUMNS).unwrap_or(0), number(ROWS).unwrap_or(0));
    limits.check(width, height)?;
    if number(FRAMES).unwrap_or(1) != 1 {
        return Err(Damage::Unsupported("DICOM of several frames".into()));
    }
    if number(SAMPLES).unwrap_or(1) != 1 {
        return Err(Damage::Unsupported("DICOM in colour".into()));
    }
    let decoded = object.decode_pixel_data().map_err(failed)?;
    let inverted = match decoded.photometric_interpretation() {
        PhotometricInterpretation::Monochrome1 => true,
        PhotometricInterpretation::Monochrome2 => false,
        other => return Err(Damage::Unsupported(format!("DICOM with {other} pixels"))),
    };
    let options = ConvertOptions::new().with_voi_lut(VoiLutOption::Identity);
    let values: Vec<f64> = decoded.to_vec_frame_with_options(0, &options).map_err(failed)?;
    let window = decoded.window().map_err(failed)?.and_then(|w| w.first().copied());
    let function = decoded.voi_lut_function().map_err(failed)?.and_then(|f| f.first().copied());
    let levels: Vec<f64> = match window {
        Some(window) => {
            let window = WindowLevelTransform::new(function.unwrap_or(VoiLutFunction::Linear), window);
            values.iter().map(|&v| window.apply(v, 255.0)).collect()
        }
        None if object.element_opt(VOI_LUT_SEQUENCE).ok().flatten().is_some() => {
            return Err(Damage::Unsupported("DICOM whose VOI LUT is a table".into()));
        }
        None => {
            let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
            let scale = if most > least { 255.0 / (most - least) } else { 0.0 };
            values.iter().map(|&v| (v - least) * scale).collect()
        }
    };
    let byte = |level: f64| level.round().clamp(0.0, 255.0) as u8;
    let pixels: Vec<u8> = levels.iter().map(|&l| if inverted { 255 - byte(l) } else { byte(l) }).collect();
    let (width, height) = (width as usize, height as usize);
    if pixels.len() != width * height {
        return Err(Damage::CutShort);
    }
    Ok(Image { width, height, channels: Channels::Grey, pixels })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One element in explicit VR, little endian.
    fn element(tag: (u16, u16), vr: &str, value: &[u8]) -> Vec<u8> {
        let mut out = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
        out.extend_from_slice(vr.as_bytes());
        let mut value = value.to_vec();
        if value.len() % 2 == 1 {
            value.push(if vr == "UI" { 0 } else { b' ' });
        }
        if vr == "OW" || vr == "OB" {
            out.extend([0, 0]);
            out.extend((value.len() as u32).to_le_bytes());
        } else {
            out.extend((value.len() as u16).to_le_bytes());
        }
        out.extend(value);
        out
    }

    /// A 4x1 image of 16 bits.
    fn file(photometric: &str, window: Option<(&str, &str)>, intercept: &str, values: [u16; 4]) -> Vec<u8> {
        let meta = [
            element((2, 1), "OB", &[0, 1]),
            element((2, 2), "UI", b"1.2.840.10008.5.1.4.1.1.7"),
            element((2, 3), "UI", b"1.2.3"),
            element((2, 0x10), "UI", b"1.2.840.10008.1.2.1"),
            element((2, 0x12), "UI", b"1.2.3.4"),
        ]
        .concat();
        let short = |v: u16| v.to_le_bytes();
        let mut out = vec![0; 128];
        out.extend(b"DICM");
        out.extend(element((2, 0), "UL", &(meta.len() as u32).to_le_bytes()));
        out.extend(meta);
        out.extend(element((0x28, 2), "US", &short(1)));
        out.extend(element((0x28, 4), "CS", photometric.as_bytes()));
        for (tag, value) in [(0x10, 1), (0x11, 4), (0x100, 16), (0x101, 16), (0x102, 15), (0x103, 0)] {
            out.extend(element((0x28, tag), "US", &short(value)));
        }
        if let Some((center, width)) = window {
            out.extend(element((0x28, 0x1050), "DS", center.as_bytes()));
            out.extend(element((0x28, 0x1051), "DS", width.as_bytes()));
        }
        out.extend(element((0x28, 0x1052), "DS", intercept.as_bytes()));
        out.extend(element((0x28, 0x1053), "DS", b"1"));
        let pixels: Vec<u8> = values.iter().flat_map(|&v| short(v)).collect();
        out.extend(element((0x7fe0, 0x10), "OW", &pixels));
        out
    }

    fn pixels(bytes: &[u8]) -> Vec<u8> {
        decode(bytes, &Limits::default()).unwrap().pixels
    }

    #[test]
    fn windows_rescaling_and_both_monochromes_give_eight_bits() {
        // DICOM C.11.2.1.2.1: from center - .5 - (width - 1)/2 = 999 on, to 1255
        let window = Some(("1127.5", "257"));
        let values = [900, 999, 1127, 1300];
        assert_eq!(pixels(&file("MONOCHROME2", window, "0", values)), [0, 0, 128, 255]);
        assert_eq!(pixels(&file("MONOCHROME1", window, "0", values)), [255, 255, 127, 0]);
        let shifted = values.map(|v| v + 24);
        assert_eq!(pixels(&file("MONOCHROME2", window, "-24", shifted)), [0, 0, 128, 255]);
        assert_eq!(pixels(&file("MONOCHROME2", None, "0", [100, 100, 151, 355])), [0, 0, 51, 255]);
    }

    #[test]
    fn a_file_cut_or_changed_anywhere_gives_an_error_or_an_image_and_never_a_panic() {
        let whole = file("MONOCHROME2", Some(("1127.5", "257")), "0", [900, 999, 1127, 1300]);
        // every fifth byte, for each panic that is caught prints its trace
        for at in (132..whole.len()).step_by(5) {
            let _ = decode(&whole[..at], &Limits::default());
            for flip in [0x01, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                let _ = decode(&bytes, &Limits::default());
            }
        }
        assert!(decode(&file("RGB", None, "0", [0; 4]), &Limits::default()).is_err());
    }
}
