//! `map`: files, tables and pictures of a run, and what it refuses.

use crate::support::{Lab, Ran, XRay};

/// Flags that make a run of the synthetic images small.
const FAST: [&str; 8] = ["--data", "d", "--any-data", "--resamples", "20", "--min-agreement", "0", "--quiet"];

fn map(lab: &Lab, limit: &str, out: &str, more: &[&str]) -> Ran {
    lab.run(&[&["map", "--limit", limit, "--out", out][..], &FAST, more].concat())
}

/// The column `name` of a table.
fn column(text: &str, name: &str) -> Vec<String> {
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let head = lines.next().unwrap();
    let at = head.iter().position(|h| h == name).unwrap_or_else(|| panic!("no {name} in {head:?}"));
    lines
        .map(|row| {
            assert_eq!(row.len(), head.len());
            row[at].clone()
        })
        .collect()
}

#[test]
fn a_run_holds_a_map_for_each_image_method_and_input_a_picture_and_what_attacks_do_to_them() {
    let lab = Lab::new();
    let ran = map(&lab, "3", "run", &["--attack", "fgsm,bim", "--eps", "8/255", "--steps", "2"]).succeeds();
    assert!(
        ran.out.contains("claim (e) under FGSM at eps 8/255") && ran.out.contains("30 images are needed"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("control, random signs of eps 8/255"), "{}", ran.out);
    let files = ["claim-e.json", "manifest.json", "maps", "maps.csv", "report.html", "stability.csv"];
    assert_eq!(lab.names("run"), files);
    assert_eq!(lab.names("run/maps"), ["cem", "grad-cam"]);
    let inputs = ["bim", "fgsm", "noise", "none"];
    let mut want: Vec<String> = (0..3).flat_map(|i| inputs.map(|input| format!("{i}-{input}.npy"))).collect();
    want.extend((0..3).map(|i| format!("{i}.png")));
    want.sort();
    assert_eq!(lab.names("run/maps/cem"), want);

    let table = lab.read("run/maps.csv");
    assert_eq!(column(&table, "image_id")[..8], ["0"; 8]);
    assert_eq!(column(&table, "method")[..8], [["cem"; 4], ["grad-cam"; 4]].concat());
    assert_eq!(column(&table, "input")[..4], ["none", "fgsm", "bim", "noise"]);
    let (height, file) = (column(&table, "height"), column(&table, "file"));
    assert_eq!([&height[0], &height[4]], ["26", "5"]);
    let bytes = std::fs::read(lab.path("run").join(&file[0])).unwrap();
    assert_eq!((&bytes[..6], bytes.len()), (&b"\x93NUMPY"[..], 128 + 4 * 26 * 26));
    // one class for all inputs of an image, the one that the host names on the clean one
    let (class, predicted) = (column(&table, "class"), column(&table, "predicted"));
    assert!(class.chunks(8).zip(predicted.chunks(8)).all(|(c, p)| c.iter().all(|c| *c == p[0])));

    let table = lab.read("run/stability.csv");
    // two methods, three inputs, three measures
    assert_eq!(column(&table, "measure"), ["spearman", "ssim", "top10"].repeat(6));
    assert_eq!(column(&table, "reference")[..6], [["grad-cam"; 3], [""; 3]].concat());
    assert!(
        column(&table, "beyond_noise_n")
            .iter()
            .zip(column(&table, "input"))
            .all(|(n, i)| n.is_empty() == (i == "noise"))
    );

    let mut reader = png::Decoder::new(std::io::Cursor::new(std::fs::read(lab.path("run/maps/cem/0.png")).unwrap()))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    assert!(
        pixels.chunks(3).any(|p| p[0] > p[2].saturating_add(60))
            && pixels.chunks(3).any(|p| p[2] > p[0].saturating_add(60))
    );
}

#[test]
fn maps_at_several_sizes_are_told_apart_and_stand_on_a_page_that_can_be_made_again() {
    let lab = Lab::new();
    let ran = map(&lab, "6", "run", &["--eps", "8/255,0.3", "--pictures", "5"]).succeeds();
    for told in
        ["\ncem            fgsm 8/255 ", "claim (e) under FGSM at eps 0.3", "control, random signs of eps 8/255"]
    {
        assert!(ran.out.contains(told), "no \"{told}\" in: {}", ran.out);
    }
    let files = ["0-fgsm-0.3.npy", "0-fgsm-8-255.npy", "0-noise-0.3.npy", "0-noise-8-255.npy", "0-none.npy", "0.png"];
    assert_eq!(lab.names("run/maps/cem")[..6], files);
    let table = lab.read("run/stability.csv");
    let (input, eps, n) = (column(&table, "input"), column(&table, "eps"), column(&table, "beyond_noise_n"));
    assert_eq!(column(&table, "measure").len(), 2 * 4 * 3);
    // an attack stands beside noise of its own size
    assert!(input.iter().zip(&n).all(|(input, n)| (input == "fgsm") == (n == "6")), "{input:?} {n:?}");
    assert_eq!((&*eps[0], &*eps[6]), ("0.03137255", "0.3"));
    let claim: serde_json::Value = serde_json::from_str(&lab.read("run/claim-e.json")).unwrap();
    let verdicts: Vec<&str> = (0..4).map(|i| claim["judged"][i]["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["undecided", "undecided", "none", "none"]);
    assert!(claim["judged"][0]["reason"].as_str().unwrap().contains("6 images, 30 are needed for a verdict"));
    assert!(claim["notes"][0].as_str().unwrap().contains("CAM does not exist for fashion"));
    assert!(claim["notes"][1].as_str().unwrap().ends_with("cem 26 x 26, grad-cam 5 x 5"));

    let page = lab.read("run/report.html");
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    for outside in ["http://", "https://", "<script", "<link", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let sections = ["Before you believe a number", "The paper's claims", "(e) causal effect maps", "How far they move"];
    for section in sections.iter().chain(&["What was run"]) {
        assert!(page.contains(section), "{section}");
    }
    // four images by two methods
    assert_eq!(page.matches("data:image/png;base64,").count(), 8);
    lab.run(&["report", "run", "--out", "again.html"]).succeeds();
    assert!(lab.read("again.html") == page);
    // whoever judges a claim more leaves a file of it
    lab.write("run/claim-f.json", lab.read("run/claim-e.json").replace("\"e\"", "\"f\"").as_bytes());
    lab.run(&["report", "run"]).succeeds();
    assert!(lab.read("run/report.html").contains("(f) causal effect maps"));
    lab.write("run/claim-f.json", b"{}");
    lab.run(&["report", "run"]).fails(3, &["claim-f.json", "cannot be read"]);
    // a table does not lead out of its run
    std::fs::remove_file(lab.path("run/claim-f.json")).unwrap();
    lab.write("run/maps.csv", lab.read("run/maps.csv").replace("maps/cem/", "maps/../../run/maps/cem/").as_bytes());
    lab.run(&["report", "run"]).succeeds();
    assert_eq!(lab.read("run/report.html").matches("data:image/png;base64,").count(), 0);
}

#[test]
fn every_method_makes_maps_of_every_class_and_the_same_run_the_same_bytes() {
    let lab = Lab::new();
    let all = "cem,cem-cells,cem-occlusion,grad-cam,ablation-cam,occlusion";
    let flags = ["--method", all, "--patch", "9", "--stride", "7", "--attack", "none"];
    let every = [&flags[..], &["--class", "all", "--pictures", "1"]].concat();
    let ran = map(&lab, "2", "a", &[&every[..], &["--json"]].concat()).succeeds();
    assert_eq!(ran.json()["results"]["maps"], 6 * 2 * 10);
    assert_eq!(lab.names("a"), ["manifest.json", "maps", "maps.csv", "report.html"]);
    assert_eq!(lab.names("a/maps").len(), 6);
    assert_eq!(lab.names("a/maps/occlusion").len(), 2 * 10 + 10);
    map(&lab, "2", "b", &[&every[..], &["--threads", "1", "--batch", "3"]].concat()).succeeds();
    lab.assert_same("a", "b");

    map(&lab, "2", "one", &[&flags[..], &["--class", "7", "--curves", "4"]].concat()).succeeds();
    let read = |path: &str| std::fs::read(lab.path(path)).unwrap();
    assert_eq!(read("a/maps/cem/1-c7-none.npy"), read("one/maps/cem/1-none.npy"));
    let scores = lab.read("one/faithfulness.csv");
    assert_eq!(column(&scores, "score")[..3], ["deletion", "insertion", "average_drop"]);
    assert!(column(&scores, "mean").iter().all(|mean| mean.is_empty() || mean.parse::<f64>().unwrap().is_finite()));
}

#[test]
fn a_stopped_run_goes_on_with_the_maps_that_are_there_to_the_same_bytes() {
    let lab = Lab::new();
    let flags = ["--method", "cem,occlusion", "--patch", "9", "--pictures", "2"];
    map(&lab, "3", "whole", &flags).succeeds();
    map(&lab, "3", "cut", &flags).succeeds();
    // as if it had stopped before the second method
    std::fs::rename(lab.path("cut"), lab.path("cut.partial")).unwrap();
    std::fs::remove_dir_all(lab.path("cut.partial/maps/occlusion")).unwrap();
    let kept = lab.path("cut.partial/maps/cem/0-none.npy");
    let written = std::fs::metadata(&kept).unwrap().modified().unwrap();
    lab.run(&["map", "--resume", "cut", "--quiet"]).succeeds();
    lab.assert_same("whole", "cut");
    assert_eq!(std::fs::metadata(lab.path("cut/maps/cem/0-none.npy")).unwrap().modified().unwrap(), written);
    // one that was damaged is named
    std::fs::rename(lab.path("cut"), lab.path("cut.partial")).unwrap();
    lab.write("cut.partial/maps/cem/0-none.npy", b"\x93NUMPY");
    lab.run(&["map", "--resume", "cut", "--quiet"]).fails(3, &["0-none.npy", "no .npy file of a map", "resume"]);
}

#[test]
fn maps_that_cannot_be_are_refused_before_anything_is_made() {
    let lab = Lab::new();
    let refused = |more: &[&str], words: &[&str]| {
        lab.run(&[&["map"][..], &FAST, more].concat()).fails(2, words);
    };
    refused(&["--method", "grad-cm"], &["'grad-cm'", "grad-cam"]);
    refused(&["--method", "cam"], &["CAM does not exist for fashion", "grad-cam"]);
    refused(&["--class", "10"], &["class 10 does not exist: there are 10", "the nearest is 9"]);
    refused(&["--class", "predict"], &["`predict`", "`predicted`"]);
    refused(&["--limit", "0"], &["--limit 0"]);
    refused(&["--masks", "2"], &["--masks 2", "one mask"]);
    refused(&["--no-control"], &["--no-control"]);
    refused(&["--patch", "4", "--patch-stride", "5"], &["patch of 4 pixels at every 5"]);
    refused(&["--stride", "0"], &["--stride 0"]);
    refused(&["--class", "all", "--curves", "3"], &["--curves follow one class"]);
    refused(&["--tap", "99"], &["no tap \"99\""]);
    refused(&["--eps", "0.031371,0.031372"], &["the same to five digits", "fgsm 0.03137"]);
    refused(&["--interval", "bca"], &["--interval bca", "percentile"]);
    refused(&["--victim", "inserted"], &["--victim inserted"]);
    let gate = lab.run(&["map", "--data", "d", "--any-data", "--quiet", "--out", "gated"]);
    gate.fails(4, &["--min-agreement"]);
    lab.run(&["map", "--model", "vgg16", "--method", "cem"]).fails(2, &["no weights of vgg16"]);
    assert_eq!(lab.names("."), ["d"]);
}

#[test]
fn a_dry_run_says_what_maps_cost_and_makes_nothing() {
    let lab = Lab::new();
    let cost = |method: &str| {
        let ran = map(&lab, "2", "dry", &["--method", method, "--dry-run", "--json"]).succeeds();
        ran.json()["tflop"].as_f64().unwrap()
    };
    assert!(cost("cem") > cost("grad-cam"));
    assert!(cost("cem-cells,occlusion") > 3.0 * cost("cem"));
    assert_eq!(lab.names("."), ["d"]);
}

/// X-rays with a mass each, in a box that is marked; the last three test.
fn x_rays(lab: &Lab, count: usize) {
    let one = |i: usize| XRay {
        finding: "Mass",
        // the last box is the whole image: every map that points anywhere points into it
        place: Some(if i == count - 1 { "0,0,1024,1024" } else { "512,512,100,100" }),
        pixels: (0..784).map(|at| ((at * 7919 + i * 131) % 97) as u8).collect(),
    };
    lab.x_rays(&(0..count).map(one).collect::<Vec<_>>(), 3);
}

#[test]
fn maps_of_marked_findings_are_judged_by_their_boxes_and_few_boxes_are_no_verdict() {
    let lab = Lab::with(1, 1);
    x_rays(&lab, 12);
    lab.run(&["train", "--data", "nih", "--batch", "4", "--epochs", "1", "--quiet", "--out", "host"]).succeeds();
    let flags = ["--weights", "host/fashion.safetensors", "--data", "nih", "--attack", "none", "--quiet"];
    let methods = ["--method", "grad-cam,occlusion", "--sign", "signed", "--resamples", "50"];
    let ran = lab.run(&[&["map", "--out", "run"][..], &flags, &methods].concat()).succeeds();
    assert!(ran.out.contains("of 3 boxes") && ran.out.contains("no verdict under 30"), "{}", ran.out);
    let table = lab.read("run/pointing.csv");
    let (score, n) = (column(&table, "score"), column(&table, "n"));
    // a row of the pointing game, then nine thresholds of two overlaps, of each method
    assert_eq!(score.len(), 2 * (1 + 2 * 9));
    assert_eq!((&*score[0], &*n[0], &*score[1], &*score[10]), ("pointing", "3", "iou", "iobb"));
    let value = column(&table, "value");
    assert!(value.iter().filter(|v| !v.is_empty()).all(|v| (0.0..=1.0).contains(&v.parse::<f64>().unwrap())));
    assert!(value[0].parse::<f64>().unwrap() >= 1.0 / 3.0 - 1e-12, "{}", value[0]);
}
