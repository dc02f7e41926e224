//! What a training on findings says of itself: `auc.csv`, `predictions.csv`, and cuts that the test images did not choose.

use super::support::{Lab, Table};

/// Parts of the images in `own/`: name, first image, one behind the last. Two images a patient.
const PARTS: [(&str, usize, usize); 3] = [("train", 0, 32), ("val", 32, 48), ("test", 48, 64)];

/// Images in `own/`: every other one is bright and has a mass, in the test part where `masses` says so.
fn own(lab: &Lab, masses: impl Fn(usize) -> bool) {
    let _ = std::fs::create_dir(lab.path("own"));
    let mut table = String::from("path,findings,patient,split\n");
    let mut state = 1u32;
    for (part, first, end) in PARTS {
        for i in first..end {
            let mut pixel = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 25) as u8 + if i % 2 == 0 { 100 } else { 0 }
            };
            let pixels: Vec<u8> = (0..28 * 28).map(|_| pixel()).collect();
            let mut file = Vec::new();
            let mut encoder = png::Encoder::new(&mut file, 28, 28);
            encoder.set_color(png::ColorType::Grayscale);
            encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
            lab.write(&format!("own/{i:02}.png"), &file);
            let mass = if part == "test" { masses(i) } else { i % 2 == 0 };
            // some are noise to a network that sees brightness
            let other = if i % 5 == 0 { "Edema" } else { "Effusion" };
            table += &match (mass, i % 4 < 2) {
                (true, true) => format!("{i:02}.png,Mass|{other},p{},{part}\n", i / 2),
                (true, false) => format!("{i:02}.png,Mass,p{},{part}\n", i / 2),
                (false, true) => format!("{i:02}.png,{other},p{},{part}\n", i / 2),
                (false, false) => format!("{i:02}.png,No Finding,p{},{part}\n", i / 2),
            };
        }
    }
    lab.write("own/manifest.csv", table.as_bytes());
}

const TRAIN: [&str; 10] =
    ["train", "--data", "own", "--batch", "8", "--epochs", "3", "--learning-rate", "1e-3", "--quiet"];

#[test]
fn a_training_on_findings_writes_what_each_is_worth_and_every_prediction() {
    let lab = Lab::with(1, 1);
    own(&lab, |i| i % 2 == 0);
    let ran = lab.run(&[&TRAIN[..], &["--out", "a"]].concat()).succeeds();
    let (auc, predictions) = (Table::of(&lab.read("a/auc.csv")), Table::of(&lab.read("a/predictions.csv")));
    assert_eq!(auc.head[2..7], ["label", "auc", "ci_lo", "ci_hi", "n_pos"]);
    assert_eq!((auc.rows.len(), predictions.rows.len()), (14, 32));
    let mass = auc.column("label").iter().position(|&l| l == "Mass").unwrap();
    let of = |column: &str| auc.column(column)[mass];
    assert_eq!((of("n_pos"), of("n"), of("n_patients")), ("8", "16", "8"));
    // the figures can be made again from the predictions
    let split = predictions.column("split");
    assert_eq!(split, [["val"; 16], ["test"; 16]].concat());
    assert_eq!(predictions.column("path")[16], "48.png");
    assert_eq!(predictions.column("patient_id")[17], "p24");
    let tested = |column: &str| predictions.column(column)[16..].to_vec();
    let p: Vec<f64> = tested("probability_Mass").iter().map(|p| p.parse().unwrap()).collect();
    let (labels, predicted) = (tested("label_Mass"), tested("predicted_Mass"));
    let mut won = 0.0;
    for (i, j) in (0..16).flat_map(|i| (0..16).map(move |j| (i, j))).filter(|&(i, j)| labels[i] > labels[j]) {
        won += if p[i] > p[j] {
            1.0
        } else if p[i] == p[j] {
            0.5
        } else {
            0.0
        };
    }
    assert_eq!(of("auc").parse::<f64>().unwrap(), won / 64.0);
    let threshold: f64 = of("threshold").parse().unwrap();
    assert!((0..16).all(|i| (predicted[i] == "1") == (p[i] >= threshold)));
    let right = (0..16).filter(|&i| labels[i] == "1" && predicted[i] == "1").count();
    assert_eq!(of("sensitivity").parse::<f64>().unwrap(), right as f64 / 8.0);
    // a finding that no image has is empty, with a flag
    let row = |label: &str| &auc.rows[auc.column("label").iter().position(|&l| l == label).unwrap()];
    assert_eq!(row("Hernia")[3..7], ["", "", "", "0"]);
    assert!(row("Hernia").iter().any(|field| field == "one_sided|no_threshold"));
    // and all of it is said, and found again in the manifest
    assert!(
        ran.out.starts_with("finding") && ran.out.contains("\nMass") && ran.out.contains("mean AUROC"),
        "{}",
        ran.out
    );
    let manifest: serde_json::Value = serde_json::from_str(&lab.read("a/manifest.json")).unwrap();
    assert_eq!(manifest["results"]["test_auroc"][4], won / 64.0);
    assert_eq!(auc.column("run_id")[0], manifest["run_id"]);
    let json = lab.run(&[&TRAIN[..], &["--out", "b", "--json"]].concat()).succeeds().json();
    assert_eq!(
        (&json["auroc"][4], &json["findings"][4]["label"]),
        (&manifest["results"]["test_auroc"][4], &"Mass".into())
    );
    lab.assert_same("a", "b");
}

#[test]
fn cuts_do_not_depend_on_what_the_test_images_have() {
    let lab = Lab::with(1, 1);
    own(&lab, |i| i % 2 == 0);
    lab.run(&[&TRAIN[..], &["--out", "a"]].concat()).succeeds();
    own(&lab, |i| i % 3 == 0);
    lab.run(&[&TRAIN[..], &["--out", "b"]].concat()).succeeds();
    let [a, b] = ["a", "b"].map(|run| Table::of(&lab.read(&format!("{run}/auc.csv"))));
    assert_eq!(a.column("threshold"), b.column("threshold"));
    assert!(a.column("threshold").iter().any(|t| !t.is_empty()));
    assert_ne!(a.column("auc"), b.column("auc"));
}

#[test]
fn without_images_to_test_on_there_are_no_cuts_and_a_warning() {
    let lab = Lab::with(1, 1);
    own(&lab, |i| i % 2 == 0);
    let table = lab.read("own/manifest.csv");
    let kept: Vec<&str> = table.lines().filter(|line| !line.ends_with(",test")).collect();
    lab.write("own/manifest.csv", (kept.join("\n") + "\n").as_bytes());
    let ran = lab.run(&[&TRAIN[..], &["--out", "a"]].concat()).succeeds();
    assert!(ran.err.contains("no images are named to test on"), "{}", ran.err);
    let auc = Table::of(&lab.read("a/auc.csv"));
    assert!(auc.column("threshold").iter().all(|t| t.is_empty()));
    assert_eq!(Table::of(&lab.read("a/predictions.csv")).column("split"), ["test"; 16]);
    assert!(lab.read("a/manifest.json").contains("no images are named to test on"));
}

#[test]
fn a_training_on_classes_writes_every_prediction_too() {
    let lab = Lab::new();
    let train = ["train", "--data", "d", "--any-data", "--batch", "40", "--epochs", "1", "--quiet", "--out", "a"];
    let ran = lab.run(&train).succeeds();
    let predictions = Table::of(&lab.read("a/predictions.csv"));
    assert_eq!(predictions.head[6..9], ["label", "predicted", "probability_T-shirt/top"]);
    let split = predictions.column("split");
    assert_eq!(split.iter().filter(|s| **s == "test").count(), 40);
    let pairs = predictions.column("label").into_iter().zip(predictions.column("predicted")).zip(split);
    let right = pairs.filter(|((label, predicted), split)| *split == "test" && label == predicted).count();
    assert!(ran.out.starts_with(&format!("test accuracy {:.2} % [", right as f64 / 0.4)), "{}", ran.out);
    assert!(!lab.path("a/auc.csv").exists());
}
