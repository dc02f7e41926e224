//! Images in: every kind of file decodes, and every size resizes and crops, to the bytes that PIL and torchvision give
//! (tests/fixtures/make_images.py made them). Over real photos too, where a directory of them is named by
//! INTERVENE_PHOTOS.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use intervene::data::decode::{Limits, decode, size};
use intervene::data::image::{Channels, Image};
use intervene::data::resize::resize;
use intervene::data::transform::{Geometry, IMAGENET, Transform};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

const FIXTURES: &[u8] = include_bytes!("fixtures/images.safetensors");

/// What a case holds: its parts by name, each a shape and bytes.
type Case<'a> = BTreeMap<String, (Vec<usize>, &'a [u8])>;

/// The cases of one kind by name.
fn cases(kind: &str) -> BTreeMap<String, Case<'static>> {
    let mut found: BTreeMap<String, Case<'static>> = BTreeMap::new();
    for (key, view) in SafeTensors::deserialize(FIXTURES).unwrap().tensors() {
        let parts: Vec<&str> = key.split('/').collect();
        if parts[0] == kind {
            let case = found.entry(parts[1].to_owned()).or_default();
            case.insert(parts[2].to_owned(), (view.shape().to_vec(), view.data()));
        }
    }
    assert!(found.len() >= 5, "{kind}");
    found
}

fn image((shape, bytes): &(Vec<usize>, &[u8])) -> Image {
    let channels = if shape.len() == 2 { Channels::Grey } else { Channels::Rgb };
    Image { width: shape[1], height: shape[0], channels, pixels: bytes.to_vec() }
}

#[test]
fn every_kind_of_file_gives_pils_pixels_in_colour_and_in_grey() {
    let mut wrong = Vec::new();
    for (name, case) in cases("file") {
        for (part, channels) in [("rgb", Channels::Rgb), ("grey", Channels::Grey)] {
            let want = image(&case[part]);
            match decode(case["bytes"].1, &Limits::default()) {
                Err(damage) => wrong.push(format!("{name}: {damage}")),
                Ok((got, _)) => {
                    let got = got.into_channels(channels);
                    let far = got.pixels.iter().zip(&want.pixels).map(|(a, b)| a.abs_diff(*b)).max();
                    if got != want {
                        wrong.push(format!("{name} {part}: {}x{}, up to {far:?} levels", got.width, got.height));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_size_resizes_to_pils_bytes() {
    for (name, case) in cases("resize") {
        let want = image(&case["out"]);
        assert!(resize(image(&case["in"]), want.width, want.height) == want, "{name}");
    }
}

#[test]
fn the_evaluation_transform_gives_torchvisions_bytes_also_where_it_pads() {
    for (name, case) in cases("evaluate") {
        let numbers: Vec<usize> = name.split('-').skip(1).map(|n| n.parse().unwrap()).collect();
        let geometry = Geometry::ShortSide { short: numbers[0], crop: numbers[1] };
        let got = Transform { channels: Channels::Rgb, geometry }.apply(image(&case["in"])).unwrap();
        assert!(got == image(&case["out"]), "{name}");
    }
    for (name, case) in cases("imagenet") {
        let input = image(&case["in"]);
        let got = Transform { channels: input.channels, geometry: IMAGENET }.apply(input).unwrap();
        assert_eq!(Sha256::digest(&got.pixels).as_slice(), case["sha256"].1, "{name}");
    }
}

/// Directories of photos that INTERVENE_PHOTOS names, separated as in PATH.
fn photo_directories() -> Vec<PathBuf> {
    std::env::var_os("INTERVENE_PHOTOS").map(|v| std::env::split_paths(&v).collect()).unwrap_or_default()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

#[test]
fn real_photos_decode_and_crop_to_the_bytes_of_pil_and_torchvision() {
    let directories = photo_directories();
    let (mut checked, mut missing, mut wrong) = (0, 0, Vec::new());
    let mut lines = include_str!("fixtures/photos.csv").lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let sizes: Vec<(usize, usize)> = header[3..]
        .iter()
        .map(|name| name.split_once('-').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).unwrap())
        .collect();
    for line in lines {
        let [path, file, rgb, evaluated @ ..] = &line[..] else { panic!("{line:?}") };
        let Some(found) = directories.iter().map(|d| d.join(path)).find(|p| p.exists()) else {
            missing += 1;
            continue;
        };
        let bytes = std::fs::read(&found).unwrap();
        assert_eq!(digest(&bytes), *file, "{path} is another file than the one the digests were made of");
        let image = decode(&bytes, &Limits::default()).unwrap().0.into_channels(Channels::Rgb);
        if digest(&image.pixels) != *rgb {
            wrong.push(format!("{path} decodes otherwise"));
        }
        for (&(short, crop), want) in sizes.iter().zip(evaluated) {
            let transform = Transform { channels: Channels::Rgb, geometry: Geometry::ShortSide { short, crop } };
            if digest(&transform.apply(image.clone()).unwrap().pixels) != *want {
                wrong.push(format!("{path} is another at {short}, then {crop}"));
            }
        }
        checked += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if missing > 0 {
        // past the harness, which swallows what passing tests print
        let why = if directories.is_empty() { "INTERVENE_PHOTOS names no directory" } else { "they are not there" };
        let _ = writeln!(std::io::stderr(), "SKIPPED {missing} of {} photos: {why}", checked + missing);
    }
}

/// A case's file.
fn bytes(case: &str) -> Vec<u8> {
    cases("file")[case]["bytes"].1.to_vec()
}

fn refusal(bytes: &[u8]) -> String {
    match decode(bytes, &Limits::default()) {
        Ok((image, format)) => panic!("{} of {}x{}", format.name(), image.width, image.height),
        Err(damage) => damage.to_string(),
    }
}

#[test]
fn a_file_cut_at_any_byte_is_an_error_and_never_filled_up() {
    for (name, case) in cases("file") {
        let whole = case["bytes"].1;
        let behind = if name == "jpeg-bytes-behind-the-end" { 4 } else { 0 };
        for at in 0..whole.len() - behind {
            let cut = decode(&whole[..at], &Limits::default());
            assert!(cut.is_err(), "{name} cut at {at} of {}", whole.len());
        }
        assert!(refusal(&whole[..whole.len() / 2]).contains("cut short"), "{name}");
    }
}

#[test]
fn a_changed_byte_anywhere_gives_an_error_or_an_image_of_bounded_size() {
    // small limits stand for bounded memory: a header that lies is refused by them, or by the length of its file
    let limits = Limits { side_max: 4096, pixels_max: 1 << 20 };
    for (name, case) in cases("file") {
        let whole = case["bytes"].1;
        for at in 0..whole.len() {
            for flip in [0x01, 0x10, 0x80, 0xff] {
                let mut changed = whole.to_vec();
                changed[at] ^= flip;
                if let Ok((image, _)) = decode(&changed, &limits) {
                    assert_eq!(image.pixels.len(), image.width * image.height * image.channels.count(), "{name} {at}");
                    assert!(image.pixels.len() <= 3 << 20, "{name} {at}");
                }
            }
        }
    }
}

#[test]
fn huge_headers_are_refused_before_memory_is_taken() {
    let mut wide = bytes("jpeg-444-7x5");
    let frame = wide.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    wide[frame + 5..frame + 9].copy_from_slice(&[0x0b, 0xb8, 0x75, 0x30]); // 30,000 across, 3,000 down
    let text = refusal(&wide);
    assert!(text.contains("30000x3000") && text.contains("67108864"), "{text}");
    wide[frame + 5..frame + 9].copy_from_slice(&[0x07, 0xd0, 0x75, 0x30]); // 2,000 down: within the limit, not in the file
    assert!(refusal(&wide).contains("cut short"));

    let png = |width: u32, height: u32| {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, width, height);
        encoder.set_color(png::ColorType::Grayscale);
        drop(encoder.write_header().unwrap());
        out
    };
    assert!(refusal(&png(100_000, 2)).contains("100000x2"));
    assert!(refusal(&png(20_000, 20_000)).contains("20000x20000"));
    assert!(refusal(&png(30_000, 2_000)).contains("cut short"));
}

#[test]
fn what_is_no_readable_image_says_what_it_seems_to_be() {
    for (bytes, part) in [
        (&b""[..], "0 bytes"),
        (b"GIF89a....", "GIF"),
        (b"BM......", "BMP"),
        (b"II*\0....", "TIFF"),
        (b"RIFF....WEBPVP8 ", "WebP"),
        (b"P5 3 3 255", "PNM"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git-lfs"),
        (b"hello", "neither as PNG"),
    ] {
        let text = refusal(bytes);
        assert!(text.to_lowercase().contains(&part.to_lowercase()), "{text}");
    }
    let mut dicom = vec![0; 128];
    dicom.extend(b"DICM");
    assert!(!refusal(&dicom).is_empty());
}

#[test]
fn grey_of_sixteen_bits_keeps_its_upper_eight_and_a_pixel_beyond_the_palette_is_damage() {
    let encoded = |set: &dyn Fn(&mut png::Encoder<'_, &mut Vec<u8>>), data: &[u8]| {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, 2, 1);
        set(&mut encoder);
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        out
    };
    let wide = encoded(
        &|e| {
            e.set_color(png::ColorType::Grayscale);
            e.set_depth(png::BitDepth::Sixteen);
        },
        &[0x12, 0xff, 0xab, 0x00],
    );
    // PIL's own convert("L") clips at 255 there: nearly every pixel white
    assert_eq!(decode(&wide, &Limits::default()).unwrap().0.pixels, [0x12, 0xab]);
    let beyond = encoded(
        &|e| {
            e.set_color(png::ColorType::Indexed);
            e.set_palette(vec![1, 2, 3]);
        },
        &[0, 1],
    );
    assert!(refusal(&beyond).contains("palette"));
}

#[test]
fn headers_tell_the_size_that_decoding_gives() {
    for (name, case) in cases("file") {
        let (image, _) = decode(case["bytes"].1, &Limits::default()).unwrap();
        assert_eq!(size(case["bytes"].1), Some((image.width, image.height)), "{name}");
    }
}
