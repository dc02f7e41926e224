//! What a run of `ce` leaves beside its effects: the page, the gallery, effects by class and kind of image, verdicts, a detector;
//! what is added on request; and two runs beside each other.

use super::support::{Lab, Table};
use intervene::picture::{Channels, png};
use serde_json::Value;

fn json(lab: &Lab, name: &str) -> Value {
    serde_json::from_str(&lab.read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn a_run_ends_with_a_page_that_can_be_made_again_to_the_byte() {
    let lab = Lab::with(120, 80);
    lab.ce("80", "run", &["--nodes", "2,7,10", "--attack", "fgsm,pgd", "--eps", "0.1,0.3"]).succeeds();
    let page = lab.read("run/report.html");
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    // by itself: nothing is fetched from anywhere
    for outside in ["http://", "https://", "<script", "<link", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let sections =
        ["Before you believe a number", "The paper's claims", "What the nodes are", "Expected causal effects"];
    let more = ["Which node moves which answer", "Effects as a detector of attacks", "On which images", "What was run"];
    for section in sections.iter().chain(&more) {
        assert!(page.contains(section), "{section}");
    }
    assert_eq!(page.matches("data:image/png;base64,").count(), 3);

    let made = lab.run(&["report", "run", "--out", "again.html"]).succeeds();
    assert_eq!((made.out.trim(), lab.read("again.html") == page), ("again.html", true));
    std::fs::remove_file(lab.path("run/report.html")).unwrap();
    lab.run(&["report", "run"]).succeeds();
    assert!(lab.read("run/report.html") == page);

    // classes add up: a probability that falls makes others rise
    let matrix = Table::of(&lab.read("run/effect_matrix.csv"));
    let effects: Vec<f64> = matrix.column("effect").into_iter().map(|v| v.parse().unwrap()).collect();
    assert_eq!(effects.len(), 3 * 10 * 8);
    assert!(effects.chunks(10).all(|row| row.iter().sum::<f64>().abs() < 1e-12));
    assert!(effects.iter().any(|e| e.abs() > 1e-3));
    let strata = Table::of(&lab.read("run/strata.csv"));
    let by = strata.column("by");
    assert!(["label", "predicted", "correct"].iter().all(|kind| by.contains(kind)));
    // every label has 8 images of 80
    let few = by.iter().zip(strata.column("n")).zip(strata.column("flag")).filter(|((by, _), _)| **by == "label");
    assert!(few.clone().count() > 0 && few.into_iter().all(|((_, n), flag)| n == "8" && flag == "few"));

    let claims = json(&lab, "run/claims.json");
    let names: Vec<&str> = claims["claims"].as_array().unwrap().iter().map(|c| c["claim"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "b", "b", "b", "control", "control"]);
    // rivals of fgsm at its first size
    assert_eq!(claims["most_negative"]["rivals"].as_array().unwrap().len(), 1);
    assert!(json(&lab, "run/detector.json")["statistics"].as_array().is_some_and(|rows| !rows.is_empty()));
    let gallery = json(&lab, "run/gallery/gallery.json");
    assert_eq!((gallery["images"].as_u64(), gallery["sheets"].as_array().map(Vec::len)), (Some(80), Some(3)));
}

#[test]
fn what_is_asked_for_beside_is_measured() {
    let lab = Lab::new();
    let asked = ["--nodes", "1,7,10", "--pairs", "--others", "--shapley", "2", "--screen", "--attack", "none"];
    let told = lab.ce("12", "run", &asked).succeeds().out;
    assert!(["\n1+7 ", "\nall but 7 "].iter().all(|name| told.contains(name)), "{told}");
    let effect = |node: &str| -> f64 {
        let summary = Table::of(&lab.read("run/summary.csv"));
        let rows = summary.column("node").into_iter().zip(summary.column("reading")).zip(summary.column("estimand"));
        let at =
            rows.enumerate().find(|(_, ((n, r), e))| n.ends_with(&format!("/ch{node}")) && *r == "Z0" && *e == "e1");
        summary.column("mean")[at.unwrap_or_else(|| panic!("{node}")).0].parse().unwrap()
    };
    // claims are about nodes, whatever else was zeroed together
    lab.ce("12", "alone", &["--nodes", "1,7,10", "--attack", "none"]).succeeds();
    let [claims, alone] = ["run", "alone"].map(|run| json(&lab, &format!("{run}/claims.json"))["claims"].clone());
    assert_eq!(claims, alone);
    let nodes: Vec<u64> = claims[0]["nodes"].as_array().unwrap().iter().map(|n| n["node"].as_u64().unwrap()).collect();
    assert_eq!(nodes, [1, 7, 10]);
    let page = lab.read("run/report.html");
    let tables = ["Each of 3 nodes", "First-order effects beside exact ones", "Shapley values", "Pairs of nodes"];
    assert!(tables.iter().all(|table| page.contains(table)));
    // pairs are more than their parts by what the table says
    let pairs = Table::of(&lab.read("run/interactions.csv"));
    assert_eq!(pairs.rows.len(), 3);
    let first: f64 = pairs.column("interaction")[0].parse().unwrap();
    assert!((first - (effect("1+7") - effect("1") - effect("7"))).abs() < 1e-15);
    // all but node 1
    effect("0+2+3+4+5+6+7+8+9+10+11+12+13+14+15");

    let shapley = Table::of(&lab.read("run/shapley.csv"));
    assert_eq!(shapley.rows.len(), 16);
    // only nodes that were zeroed alone have an effect beside
    assert_eq!(shapley.column("ece_alone").iter().filter(|v| !v.is_empty()).count(), 3);
    let screen = Table::of(&lab.read("run/screen.csv"));
    assert_eq!((screen.rows.len(), screen.column("first_order").len()), (16, 16));
    let correlation = json(&lab, "run/manifest.json")["results"]["screen"]["of_means"].as_f64().unwrap();
    assert!((-1.0..=1.0).contains(&correlation));
    lab.run(&["ce", "--shapley", "0"]).fails(2, &["--shapley"]);
}

#[test]
fn two_runs_are_the_same_or_differ_and_exit_4_says_so() {
    let lab = Lab::new();
    lab.ce("4", "a", &["--nodes", "3,7"]).succeeds();
    lab.ce("4", "b", &["--nodes", "3,7", "--batch", "3"]).succeeds();
    // other masks and other noise
    lab.ce("4", "c", &["--nodes", "3,7", "--seed", "4"]).succeeds();
    lab.ce("5", "more", &["--nodes", "3,7"]).succeeds();
    let same = lab.run(&["diff", "a", "b"]).succeeds();
    assert!(same.out.contains("largest difference 0.0e0, 0 beyond"), "{}", same.out);
    let other = lab.run(&["diff", "a", "c"]);
    assert_eq!(other.code, Some(4), "{}", other.err);
    assert!(
        other.out.contains("ch7 noise 0.3 R") && other.err.contains("the runs differ"),
        "{}{}",
        other.out,
        other.err
    );
    let told = lab.run(&["diff", "a", "c", "--json"]);
    assert_eq!((told.code, told.json()["same"].as_bool()), (Some(4), Some(false)));
    lab.run(&["diff", "a", "c", "--tolerance", "10"]).succeeds();
    // a class more has rows of its own
    let more = lab.run(&["diff", "a", "more", "--tolerance", "10"]);
    assert!(more.code == Some(4) && more.out.contains("only in more: "), "{}", more.out);
    lab.run(&["diff", "a", "nowhere"]).fails(3, &["nowhere", "summary.csv"]);
    lab.run(&["diff", "a", "b", "--tolerance", "-1"]).fails(2, &["--tolerance"]);
    lab.run(&["report", "nowhere"]).fails(3, &["nowhere", "no run directory"]);
    lab.write("d/manifest.json", b"{}");
    lab.run(&["report", "d"]).fails(3, &["manifest.json", "cannot be read"]);
}

#[test]
fn every_mask_fill_and_value_of_a_node_is_an_input_or_a_run_of_its_own() {
    let lab = Lab::new();
    let few = |out: &str, more: &[&str]| lab.ce("5", out, &[&["--nodes", "3,7", "--attack", "none"], more].concat());
    let mut half = vec![0u8; 28 * 28];
    half[..14 * 28].fill(255);
    lab.write("half.png", &png(&half, [28, 28], Channels::Grey).unwrap());
    let masks = [
        "--effects",
        "csv",
        "--mask",
        "grid,pixels,rectangle",
        "--mask-file",
        "half.png",
        "--fill",
        "mean",
        "--jpeg",
        "20",
    ];
    few("masks", &masks).succeeds();
    let effects = Table::of(&lab.read("masks/effects.csv"));
    let shares = |input: &str| -> Vec<f64> {
        let rows = effects.column("input").into_iter().zip(effects.column("mask_fraction"));
        rows.filter(|(name, _)| *name == input).map(|(_, share)| share.parse().unwrap_or(f64::NAN)).collect()
    };
    assert!(shares("pixels").iter().all(|s| (s * 784.0 - 78.0).abs() < 1e-3), "{:?}", shares("pixels"));
    assert!(shares("mask-file").iter().all(|s| *s == 0.5) && shares("mask-file").len() == 10);
    assert!(shares("rectangle").iter().chain(&shares("pwm")).all(|s| (0.06..0.14).contains(s)));
    assert!(shares("jpeg").len() == 10 && shares("jpeg")[0].is_nan());
    let claims = json(&lab, "masks/claims.json");
    let names: Vec<(&str, &str)> = claims["claims"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["claim"].as_str().unwrap(), c["condition"].as_str().unwrap()))
        .collect();
    let wanted = [
        ("a", "pixel masking (1 mask an image)"),
        ("a", "pixels (1 mask an image)"),
        ("a", "rectangle (1 mask an image)"),
        ("control", "mask-file (1 mask an image)"),
        ("control", "JPEG of quality 20"),
    ];
    assert_eq!(names, wanted);
    // what a mask is filled with, and what a node is set to, changes the numbers and nothing else
    let mut means = Vec::new();
    let runs: [(&str, &[&str]); 7] = [
        ("black", &[]),
        ("white", &["--fill", "255"]),
        ("blur", &["--fill", "blur"]),
        ("noise", &["--fill", "noise"]),
        ("mean", &["--do", "mean"]),
        ("resample", &["--do", "resample"]),
        ("scaled", &["--do", "scale:0.5"]),
    ];
    for (out, flags) in runs {
        few(out, flags).succeeds();
        let summary = lab.read(&format!("{out}/summary.csv"));
        assert!(!means.contains(&summary), "{out}");
        means.push(summary);
    }
    few("one", &["--do", "scale:1", "--masks", "0"]).succeeds();
    let ones = Table::of(&lab.read("one/summary.csv"));
    assert!(ones.column("mean").iter().all(|mean| *mean == "0.0"), "{:?}", ones.column("mean"));

    // a detector is about nodes at 0, and would be used on such
    lab.ce("40", "attacked", &["--do", "mean", "--attack", "fgsm", "--nodes", "3,7"]).succeeds();
    assert!(!lab.path("attacked/detector.json").exists());
    assert!(lab.read("attacked/report.html").contains("set to their mean over the images"));
    few("no", &["--do", "mean", "--compat", "sign"]).fails(2, &["--compat", "--do"]);
    lab.run(&["reproduce", "fashion", "--mask", "box"]).fails(2, &["--mask box", "reproduce chest"]);
    few("no", &["--fill", "grey"]).fails(2, &["--fill", "mean", "blur"]);
    few("no", &["--do", "twice"]).fails(2, &["--do", "scale:0.5"]);
    few("no", &["--do", "mean", "--screen"]).fails(2, &["--screen", "--do"]);
    few("no", &["--mask", "box"]).fails(2, &["--mask box", "BBox_List_2017.csv"]);
    few("no", &["--finding", "Effusion"]).fails(2, &["--finding", "--mask box"]);
    few("no", &["--finding", "Efusion"]).fails(2, &["Efusion", "Effusion"]);
    few("no", &["--mask-file", "nowhere.png"]).fails(3, &["nowhere.png"]);
    lab.write("small.png", &png(&[0; 280], [10, 28], Channels::Grey).unwrap());
    few("no", &["--mask-file", "small.png"]).fails(3, &["small.png", "28 x 28"]);
}

#[test]
fn the_published_arithmetic_is_shown_fault_by_fault() {
    let lab = Lab::new();
    let asked = |faults: &'static str| ["--nodes", "3,7", "--attack", "fgsm", "--no-control", "--compat", faults];
    let told = lab.ce("12", "all", &asked("icip2019")).succeeds().out;
    for name in ["--compat icip2019:", "\ndouble-softmax", "\nmask-outside", "\nicip2019"] {
        assert!(told.contains(name), "{told}");
    }
    let table = Table::of(&lab.read("all/compat.csv"));
    // right, seven faults (an eighth is about findings) and all together, of three inputs and two nodes
    assert_eq!(table.rows.len(), 9 * 3 * 2);
    let effect = |arithmetic: &str, input: &str, node: &str| -> f64 {
        let fits = |row: &Vec<String>| {
            let is =
                |column: &str, value: &str| row[table.head.iter().position(|c| c == column).unwrap()].ends_with(value);
            is("arithmetic", arithmetic) && is("input", input) && is("node", node)
        };
        let at = table.rows.iter().position(fits).unwrap_or_else(|| panic!("{arithmetic} {input} {node}"));
        table.column("effect")[at].parse().unwrap()
    };
    // the study's own numbers where nothing is wrong
    let summary = Table::of(&lab.read("all/summary.csv"));
    let rows = summary.column("node").into_iter().zip(summary.column("reading")).zip(summary.column("estimand"));
    let at = rows.enumerate().find(|(_, ((n, r), e))| n.ends_with("/ch7") && *r == "Z0" && *e == "e1").unwrap().0;
    let z0: f64 = summary.column("mean")[at].parse().unwrap();
    assert!((effect("none", "none", "/ch7") - z0).abs() < 1e-15);
    assert_eq!(effect("sign", "none", "/ch7"), -effect("none", "none", "/ch7"));
    assert_eq!(effect("sign", "fgsm", "/ch7"), effect("none", "fgsm", "/ch7"));
    assert_eq!(effect("not-zeroed", "fgsm", "/ch7"), 0.0);
    assert!(effect("double-softmax", "pwm", "/ch7").abs() < effect("none", "pwm", "/ch7").abs());
    // some faults, by name
    lab.ce("5", "some", &asked("sign,sum")).succeeds();
    assert_eq!(Table::of(&lab.read("some/compat.csv")).rows.len(), 4 * 3 * 2);
    lab.ce("5", "no", &asked("double-sofmax")).fails(2, &["double-softmax", "icip2019"]);
}
