//! Images in: every kind of file decodes, and every size resizes and crops, to the bytes that PIL and torchvision give
//! (tests/fixtures/make_images.py made them). Over real photos too, where a directory of them is named by
//! INTERVENE_PHOTOS.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use intervene::data::decode::{Limits, decode};
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
    for line in include_str!("fixtures/photos.csv").lines().skip(1) {
        let [path, file, rgb, evaluated] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let Some(found) = directories.iter().map(|d| d.join(path)).find(|p| p.exists()) else {
            missing += 1;
            continue;
        };
        let bytes = std::fs::read(&found).unwrap();
        assert_eq!(digest(&bytes), file, "{path} is another file than the one the digests were made of");
        let image = decode(&bytes, &Limits::default()).unwrap().0.into_channels(Channels::Rgb);
        if digest(&image.pixels) != rgb {
            wrong.push(format!("{path} decodes otherwise"));
        }
        let transform = Transform { channels: Channels::Rgb, geometry: IMAGENET };
        if digest(&transform.apply(image).unwrap().pixels) != evaluated {
            wrong.push(format!("{path} is cropped otherwise"));
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
