//! Conditions II and III from the command line: what masking a marked finding does, and what nodes do to two tasks.

use super::support::{Lab, Table, XRay};
use serde_json::Value;

/// Images to test on, and in all.
const TEST: usize = 34;
const COUNT: usize = 64;

/// Effusion (of the second head's class 1) is bright on the left, Mass on the right; the boxes of the first 32 test images mark it, the
/// last two have none.
fn x_rays(lab: &Lab) {
    let one = |i: usize| {
        let left = i.is_multiple_of(2);
        let bright =
            |at: usize| (8..18).contains(&(at / 28)) && (if left { 3..11 } else { 17..25 }).contains(&(at % 28));
        let pixels = (0..784).map(|at| ((at * 7919 + i * 131) % 97) as u8 + if bright(at) { 150 } else { 0 });
        let marked = (COUNT - TEST..COUNT - 2).contains(&i);
        XRay {
            finding: if left { "Effusion" } else { "Mass" },
            place: marked.then_some(if left { "110,293,293,366" } else { "622,293,293,366" }),
            pixels: pixels.collect(),
        }
    };
    lab.x_rays(&(0..COUNT).map(one).collect::<Vec<_>>(), TEST);
}

#[test]
fn a_known_symptom_is_masked_and_two_tasks_are_measured() {
    let lab = Lab::with(1, 1);
    x_rays(&lab);
    let data = ["--data", "nih", "--quiet"];
    let training = ["--batch", "4", "--epochs", "6", "--learning-rate", "1e-3"];
    lab.run(&[&["train", "--out", "host"][..], &data, &training].concat()).succeeds();
    let host = ["--weights", "host/fashion.safetensors"];
    lab.run(&[&["train-ae", "--tap", "2", "--out", "ae"][..], &data, &host, &training].concat()).succeeds();
    let subject = [&host[..], &["--ae", "ae/autoencoder.safetensors", "--tap", "2"]].concat();
    let study = [
        &["ce", "--attack", "none", "--resamples", "50", "--min-agreement", "0", "--max-shift", "1"][..],
        &data,
        &subject,
    ]
    .concat();
    let run = |out: &'static str, more: &[&'static str]| lab.run(&[&study[..], &["--out", out], more].concat());

    let told = run("two", &["--mask", "box,outside-box", "--masks", "2", "--fill", "0.2", "--second-head"]).succeeds();
    // the images without a box are left out
    for words in
        ["32 images with a box, of 32 patients, 2 findings", "a second head learnt from 30 images", "Claim (f)"]
    {
        assert!(told.out.contains(words), "no \"{words}\" in {}", told.out);
    }
    let table = Table::of(&lab.read("two/conditions.csv"));
    let rows: Vec<(&str, &str, &str)> = table
        .column("condition")
        .into_iter()
        .zip(table.column("quantity"))
        .zip(table.column("node"))
        .map(|((c, q), n)| (c, q, n))
        .collect();
    // three places of two probabilities and two quantities of 16 nodes; two tasks of 16 nodes and the outputs
    let count = |condition| rows.iter().filter(|row| row.0 == condition).count();
    assert_eq!((count("II"), count("III")), (3 * (2 + 2 * 16), 2 * 17));
    let mean = |quantity: &str| -> f64 {
        let at = rows.iter().position(|row| row.1 == quantity).unwrap_or_else(|| panic!("{quantity}"));
        table.column("mean")[at].parse().unwrap()
    };
    // darkening the finding takes it away, darkening as much beside it does not
    assert!(mean("p_orig of Y: box") < -0.1, "{}", mean("p_orig of Y: box"));
    assert!(mean("p_orig of Y: box").abs() > 2.0 * mean("p_orig of Y: beside").abs());
    let less = mean("p_orig of Y: box less beside");
    assert!((less - (mean("p_orig of Y: box") - mean("p_orig of Y: beside"))).abs() < 1e-12);
    assert!(rows.contains(&("III", "effect on Z", "outputs")));
    let found: Value = serde_json::from_str(&lab.read("two/conditions.json")).unwrap();
    assert_eq!(found["symptoms"]["findings"], serde_json::json!([[2, 16], [4, 16]]));
    assert_eq!(found["multitask"]["head"]["images"], 30);
    assert_eq!(found["multitask"]["accuracy"][1], 32);
    assert!(found["multitask"]["accuracy"][0].as_f64().unwrap() > 0.9);

    let effects = lab.effects("two");
    let whose: std::collections::BTreeSet<(&str, &str)> =
        effects.column("condition").into_iter().zip(effects.column("input")).collect();
    assert_eq!(whose.into_iter().collect::<Vec<_>>(), [("I", "none"), ("II", "box"), ("II", "outside-box")]);
    let page = lab.read("two/report.html");
    for words in ["A known symptom masked", "Two tasks of one cause", "p_orig of Y: box less beside", "<h3>(f)"] {
        assert!(page.to_lowercase().contains(&words.to_lowercase()), "no \"{words}\" on the page");
    }
    let claim: Value = serde_json::from_str(&lab.read("two/claim-f.json")).unwrap();
    assert_eq!((claim["claim"].as_str(), claim["judged"].as_array().map(Vec::len)), (Some("f"), Some(1)));

    // few images are no verdict, and one finding's boxes only are asked for
    let few = run("few", &["--mask", "box", "--finding", "Mass", "--second-head", "--limit", "5"]).succeeds();
    assert!(
        few.out.contains("5 images with a box") && few.out.matches("No verdict: 5 patients").count() == 2,
        "{}",
        few.out
    );
    let verdicts = Table::of(&lab.read("few/conditions.csv"));
    assert!(verdicts.column("verdict").iter().all(|verdict| verdict.is_empty()));
    run("no", &["--mask", "box", "--finding", "Hernia"]).fails(2, &["Hernia"]);
    run("no", &["--margin", "0", "--second-head"]).fails(2, &["--margin"]);
    run("no", &["--margin", "0.1"]).fails(2, &["--margin", "--second-head"]);
    run("no", &["--do", "mean", "--second-head"]).fails(2, &["--second-head", "--do"]);
    // another place of the boxes is another run
    let id = |run: &str| lab.read(&format!("{run}/manifest.json")).split("run_id").nth(1).map(|s| s[..30].to_owned());
    let boxes = lab.read("nih/BBox_List_2017.csv");
    lab.write("nih/BBox_List_2017.csv", boxes.replace(",293,366", ",293,300").as_bytes());
    run("moved", &["--mask", "box", "--finding", "Mass", "--second-head", "--limit", "5"]).succeeds();
    assert_ne!(id("few"), id("moved"));
    // without lists every image is studied, and none is left to learn from
    for list in ["train_val_list.txt", "test_list.txt"] {
        std::fs::remove_file(lab.path(&format!("nih/{list}"))).unwrap();
    }
    run("no", &["--second-head"]).fails(2, &["--second-head", "--limit"]);
    lab.ce("3", "no", &["--second-head"]).fails(2, &["--second-head", "14 findings"]);
}
