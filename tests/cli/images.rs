//! One's own images: the same pixels give the same effects as from IDX files, and bad files stop a run or are left out.

use super::support::{Lab, images};

/// The lab's first `count` test images as PNG files in `own/`, with a table of their labels.
fn own(lab: &Lab, count: usize) {
    std::fs::create_dir(lab.path("own")).unwrap();
    let mut table = String::from("path,label\n");
    for (i, pixels) in images(count, 28)[16..].chunks_exact(28 * 28).enumerate() {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 28, 28);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        lab.write(&format!("own/{i:02}.png"), &file);
        table += &format!("{i:02}.png,{}\n", i % 10);
    }
    lab.write("own/manifest.csv", table.as_bytes());
}

const FLAGS: [&str; 9] = ["ce", "--masks", "0", "--attack", "none", "--resamples", "20", "--min-agreement", "0"];

/// The table of effects without what tells runs, images and their splits apart.
fn effects(lab: &Lab, run: &str) -> Vec<Vec<String>> {
    lab.effects(run).rows.into_iter().map(|row| row[5..].to_vec()).collect()
}

#[test]
fn files_give_the_effects_that_their_pixels_give_from_idx() {
    let lab = Lab::with(20, 20);
    own(&lab, 20);
    lab.run(&[&FLAGS[..], &["--data", "d", "--any-data", "--out", "idx"]].concat()).succeeds();
    let ran = lab.run(&[&FLAGS[..], &["--data", "own", "--out", "files"]].concat()).succeeds();
    assert!(ran.err.contains("own: a table of images, 20 images, 10 classes"), "{}", ran.err);
    let rows = effects(&lab, "files");
    assert_eq!((rows.len(), &rows), (20 * 16, &effects(&lab, "idx")));
}

#[test]
fn a_bad_file_stops_the_run_by_name_or_is_left_out_and_told() {
    let lab = Lab::with(20, 4);
    own(&lab, 20);
    lab.write("own/07.png", b"");
    let run = |more: &[&str]| lab.run(&[&FLAGS[..], &["--data", "own"], more].concat());
    run(&["--out", "a"]).fails(3, &["own/07.png", "0 bytes"]);
    let ran = run(&["--out", "b", "--on-bad-file", "skip"]).succeeds();
    assert!(ran.err.contains("1 of 20 files") && ran.err.contains("left out: own/07.png"), "{}", ran.err);
    assert_eq!(effects(&lab, "b").len(), 19 * 16);
    run(&["--out", "c", "--on-bad-file", "skip"]).succeeds();
    lab.assert_same("b", "c");
}

#[test]
fn images_without_labels_have_effects_and_no_accuracy() {
    let lab = Lab::with(20, 4);
    own(&lab, 4);
    std::fs::remove_file(lab.path("own/manifest.csv")).unwrap();
    let run = |more: &[&str]| lab.run(&[&FLAGS[..], &["--data", "own"], more].concat());
    let ran = run(&["--out", "a"]).succeeds();
    assert!(ran.out.contains("host accuracy unknown"), "{}", ran.out);
    assert!(lab.effects("a").column("label").iter().all(|label| label.is_empty()));
    let fgsm = ["ce", "--data", "own", "--min-agreement", "0", "--attack-label", "true", "--masks", "0"];
    lab.run(&fgsm).fails(3, &["00.png", "no label"]);
}

#[test]
fn labels_of_other_classes_than_the_networks_are_left_out_with_a_warning() {
    let lab = Lab::with(20, 4);
    own(&lab, 4);
    lab.write("own/manifest.csv", b"path,label\n00.png,cat\n01.png,dog\n");
    let ran = lab.run(&[&FLAGS[..], &["--data", "own", "--out", "a"]].concat()).succeeds();
    assert!(ran.err.contains("2 classes") && ran.err.contains("has 10"), "{}", ran.err);
    assert!(ran.out.contains("host accuracy unknown"), "{}", ran.out);
    lab.write("own/manifest.csv", b"path,label\n00.png,cat\n00.png,dog\n");
    lab.run(&[&FLAGS[..], &["--data", "own"]].concat()).fails(3, &["manifest.csv, line 3", "twice"]);
}
