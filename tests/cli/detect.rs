//! `detect`: a study's detectors on other images, what belongs together and what does not; and `--adaptive`, what is left of them
//! against somebody who knows them.

use super::support::{Lab, Ran, Table, images};
use serde_json::Value;

/// Images without labels, so that none is left out because the bundled network, which never saw such, has it wrong: `count` as PNG
/// files in `name/`, from number `first` of the synthetic ones on.
fn folder(lab: &Lab, name: &str, first: usize, count: usize) {
    std::fs::create_dir(lab.path(name)).unwrap();
    for (i, pixels) in images(first + count, 28)[16..].chunks_exact(28 * 28).enumerate().skip(first) {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 28, 28);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        lab.write(&format!("{name}/{i:03}.png"), &file);
    }
}

/// A lab with a study of 60 images, in `fit`: 30 of them are what cuts are made of.
fn fitted(more: &[&str]) -> (Lab, Ran) {
    let lab = Lab::new();
    folder(&lab, "own", 0, 60);
    folder(&lab, "other", 60, 25);
    let study = ["ce", "--data", "own", "--min-agreement", "0", "--masks", "0", "--resamples", "20", "--out", "fit"];
    let ran = lab.run(&[&study[..], more].concat()).succeeds();
    (lab, ran)
}

fn detect(lab: &Lab, out: &str, more: &[&str]) -> Ran {
    lab.run(&[&["detect", "--data", "other", "--out", out], more].concat())
}

fn json(lab: &Lab, name: &str) -> Value {
    serde_json::from_str(&lab.read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn a_studys_detector_scores_other_images_and_is_kept_with_them() {
    let (lab, _) = fitted(&["--attack", "fgsm", "--nodes", "2,7,10,11"]);
    let ran = detect(&lab, "run", &["--detector", "fit"]).succeeds();
    let rows = Table::of(&lab.read("run/scores.csv"));
    let scores: Vec<f64> = rows.column("score").into_iter().map(|score| score.parse().unwrap()).collect();
    assert_eq!((scores.len(), rows.column("path")[0]), (25, "060.png"));
    let threshold: f64 = rows.column("threshold")[0].parse().unwrap();
    let flagged: Vec<bool> = rows.column("flagged").into_iter().map(|flagged| flagged == "1").collect();
    assert!(scores.iter().zip(&flagged).all(|(score, flagged)| (*score > threshold) == *flagged));
    let count = flagged.iter().filter(|flagged| **flagged).count();
    assert!(ran.out.starts_with(&format!("{count} of 25 images are flagged")), "{}", ran.out);
    assert!(rows.column("label").iter().all(|label| label.is_empty()));

    // the numbers are those of the study on the same images
    let again = lab.run(&["detect", "--data", "own", "--detector", "fit/detector.json", "--out", "own-run"]);
    again.succeeds();
    let found =
        |run: &str, id: usize| Table::of(&lab.read(&format!("{run}/scores.csv"))).column("score")[id].to_owned();
    assert!(found("own-run", 3).parse::<f64>().unwrap() > 0.0);
    let detectors = json(&lab, "fit/detector.json");
    let declared = detectors["detectors"].as_array().unwrap().iter().find(|d| d["name"] == "effect-std").unwrap();
    assert_eq!(json(&lab, "run/detector.json"), *declared);
    assert_eq!(declared["cuts"][1]["threshold"].as_f64(), Some(threshold));

    // the run's own detector does as well, in another batch
    let report = detect(&lab, "twice", &["--detector", "run", "--json", "--batch", "7"]).succeeds().json();
    let share = count as f64 / 25.0;
    assert_eq!((report["flagged"].as_u64(), report["share"].as_f64()), (Some(count as u64), Some(share)));
    let columns = ["score", "flagged", "predicted", "p_predicted"];
    let twice = Table::of(&lab.read("twice/scores.csv"));
    assert!(columns.iter().all(|column| twice.column(column) == rows.column(column)));

    // what learns from an attack is called by it, and a stopped run goes on
    detect(&lab, "learnt", &["--detector", "fit", "--use", "logistic of fgsm 0.3", "--limit", "9"]).succeeds();
    std::fs::create_dir_all(lab.path("cut.partial/outcomes")).unwrap();
    for name in ["manifest.json", "outcomes/shard-00000.safetensors"] {
        std::fs::copy(lab.path(&format!("learnt/{name}")), lab.path(&format!("cut.partial/{name}"))).unwrap();
    }
    lab.run(&["detect", "--resume", "cut"]).succeeds();
    lab.assert_same("learnt", "cut");
}

#[test]
fn a_detector_goes_with_its_own_network_and_nothing_is_run_for_another() {
    let (lab, _) = fitted(&["--attack", "fgsm", "--nodes", "2,7"]);
    let no = |more: &[&str]| detect(&lab, "no", more);
    no(&["--detector", "fit", "--use", "efect-std"]).fails(2, &["no detector `efect-std`", "nearest is `effect-std`"]);
    no(&["--detector", "nowhere"]).fails(3, &["nowhere", "cannot read the detector"]);
    no(&["--detector", "fit/claims.json"]).fails(3, &["claims.json", "no detector"]);
    no(&["--detector", "fit", "--limit", "0"]).fails(2, &["--limit 0"]);
    no(&["--detector", "fit", "--batch", "x"]).fails(2, &["--batch x"]);
    assert_eq!(no(&[]).code, Some(2), "no detector named");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut file = json(&lab, "fit/detector.json");
        change(&mut file["detectors"][1]);
        lab.write("changed.json", file.to_string().as_bytes());
        no(&["--detector", "changed.json"])
    };
    let changed_hash = |name: &str| changed(&|d| d["subject"]["hashes"][name] = "0".into());
    changed_hash("host").fails(3, &["fitted for host 0", "fit one for it"]);
    changed_hash("autoencoder").fails(3, &["fitted for autoencoder 0"]);
    changed(&|d| d["subject"]["nodes"][0] = "features.4/ch2".into())
        .fails(3, &["nodes features.4/ch2", "features.1/ch0"]);
    changed(&|d| d["cuts"][1]["threshold"] = Value::Null).fails(3, &["too few for a cut at 5 %"]);
    assert!(!lab.path("no").exists() && !lab.path("no.partial").exists());
    let dry = no(&["--detector", "fit", "--dry-run"]).succeeds();
    assert!(dry.out.contains("25 images") && !lab.path("no").exists(), "{}", dry.out);
    detect(&lab, "there", &["--detector", "fit"]).succeeds();
    detect(&lab, "there", &["--detector", "fit"]).fails(2, &["there"]);
}

#[test]
fn who_knows_the_detector_stays_where_clean_images_are() {
    let (lab, ran) = fitted(&["--attack", "pgd", "--steps", "6", "--adaptive"]);
    assert!(ran.out.contains("run fit"), "{}", ran.out);
    let report = json(&lab, "fit/detector.json");
    let adaptive = &report["adaptive"][0];
    let count = |whose: &str, what: &str| adaptive[whose][what]["count"].as_u64().unwrap();
    assert_eq!((adaptive["attack"].as_str(), adaptive["statistic"].as_str()), (Some("pgd 0.3"), Some("effect-std")));
    assert_eq!(adaptive["adaptive"]["both"]["of"].as_u64(), Some(30));
    assert!(count("adaptive", "both") >= count("plain", "both") && count("adaptive", "inside") >= 27, "{adaptive}");
    let words = adaptive["words"].as_str().unwrap();
    assert!(words.contains("inside the band") && words.contains("pgd 0.3 itself"), "{words}");
    let page = lab.read("fit/report.html");
    assert!(page.contains("An adversary who knows effect-std"));
    // in other batches and on one thread
    let study = ["ce", "--data", "own", "--min-agreement", "0", "--masks", "0", "--resamples", "20", "--out", "again"];
    let more = ["--attack", "pgd", "--steps", "6", "--adaptive", "--batch", "10", "--threads", "1"];
    lab.run(&[&study[..], &more].concat()).succeeds();
    assert_eq!(json(&lab, "again/detector.json"), report);

    let no = |more: &[&str]| lab.run(&[&["ce", "--data", "own", "--adaptive", "--out", "no"], more].concat());
    no(&["--attack", "fgsm"]).fails(2, &["--adaptive", "name it among --attack"]);
    no(&["--attack", "pgd", "--do", "mean"]).fails(2, &["--adaptive", "--do"]);
    no(&["--attack", "pgd", "--nodes", "3"]).fails(2, &["name two nodes"]);
    lab.run(&["reproduce", "imagenet", "--data", "own", "--adaptive"]).fails(2, &["--adaptive is for fashion"]);
}
