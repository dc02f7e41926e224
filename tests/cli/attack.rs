//! `attack`: adversarial images with their certificates, pictures and checks; the same run after an interruption; mistakes.

use super::support::{Lab, Ran, Table};
use serde_json::Value;

fn numbers(column: Vec<&str>) -> Vec<f64> {
    column.into_iter().map(|text| text.parse().unwrap()).collect()
}

fn all(column: Vec<&str>, is: &str) -> bool {
    !column.is_empty() && column.into_iter().all(|text| text == is)
}

fn certificates(lab: &Lab, run: &str) -> Table {
    Table::of(&lab.read(&format!("{run}/certificates.csv")))
}

fn attack(lab: &Lab, out: &str, more: &[&str]) -> Ran {
    lab.run(&[&["attack", "--data", "d", "--any-data", "--out", out], more].concat())
}

#[test]
fn every_image_gets_a_certificate_that_holds_and_a_picture_that_is_it() {
    let lab = Lab::new();
    let flags = ["--limit", "5", "--attack", "fgsm,bim,pgd,jsma", "--eps", "8/255,0.25", "--gamma", "0.05"];
    let printed = attack(&lab, "run", &flags).succeeds().out;
    let attacks = ["FGSM at eps 8/255", "PGD at eps 0.25"];
    let checks = ["check gradients:", "check steps: bim wins", "check eps:", "check no bounds:"];
    for told in attacks.iter().chain(&checks) {
        assert!(printed.contains(told), "{told}\n{printed}");
    }
    let rows = certificates(&lab, "run");
    // five images, three attacks at two sizes and one without
    assert_eq!(rows.rows.len(), 5 * 7);
    assert!(all(rows.column("in_ball"), "1") && all(rows.column("in_range"), "1") && all(rows.column("already"), "0"));
    let sizes = rows.column("eps").into_iter().zip(numbers(rows.column("linf"))).filter(|(eps, _)| !eps.is_empty());
    for (eps, linf) in sizes {
        let eps: f64 = eps.parse().unwrap();
        assert!(linf > 0.0 && linf <= eps + 1e-7, "{eps} {linf}");
    }
    // floor(784 * .05 / 2) pairs
    let changed =
        rows.column("attack").into_iter().zip(numbers(rows.column("l0"))).filter(|(attack, _)| *attack == "jsma");
    assert!(changed.map(|(_, l0)| l0).fold(0.0, f64::max) <= 38.0);

    // what the float images are rounded to is what the pictures show
    let bytes = std::fs::read(lab.path("run/adversarial/shard-00000.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let x = file.tensor("1.x").unwrap();
    assert_eq!(x.shape(), [5, 1, 28, 28]);
    let first: Vec<u8> =
        x.data().as_chunks::<4>().0[..784].iter().map(|b| (f32::from_le_bytes(*b) * 255.0).round() as u8).collect();
    let picture = std::fs::File::open(lab.path("run/pictures/fgsm-0.25/0.png")).unwrap();
    let mut reader = png::Decoder::new(std::io::BufReader::new(picture)).read_info().unwrap();
    let mut shown = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut shown).unwrap();
    assert_eq!(shown, first);
    assert_eq!(lab.names("run/pictures/jsma-1-0.05").len(), 5);

    let success = Table::of(&lab.read("run/success.csv"));
    assert!(success.rows.len() == 7 && all(success.column("outside"), "0") && all(success.column("open"), "5"));
    let won = rows.column("success")[..5].iter().filter(|won| **won == "1").count() as f64;
    assert_eq!(numbers(success.column("success"))[0], won / 5.0);
}

#[test]
fn an_attack_goes_on_where_it_was_stopped_and_comes_to_the_same() {
    let lab = Lab::new();
    let flags =
        ["--limit", "3", "--attack", "pgd", "--restarts", "2", "--norm", "l2", "--eps", "1.5", "--pictures", "1"];
    attack(&lab, "whole", &flags).succeeds();
    // as a run that was killed behind its only shard
    std::fs::create_dir(lab.path("cut.partial")).unwrap();
    std::fs::create_dir(lab.path("cut.partial/adversarial")).unwrap();
    for name in ["manifest.json", "adversarial/shard-00000.safetensors"] {
        std::fs::copy(lab.path(&format!("whole/{name}")), lab.path(&format!("cut.partial/{name}"))).unwrap();
    }
    lab.run(&["attack", "--resume", "cut"]).succeeds();
    for name in ["certificates.csv", "success.csv", "pictures/pgd-l2-1.5/0.png", "adversarial/shard-00000.safetensors"]
    {
        let [whole, cut] = ["whole", "cut"].map(|run| std::fs::read(lab.path(&format!("{run}/{name}"))).unwrap());
        assert!(whole == cut, "{name}");
    }
    let rows = certificates(&lab, "cut");
    assert!(all(rows.column("norm"), "l2") && all(rows.column("in_ball"), "1"));
    assert!(numbers(rows.column("l2")).into_iter().all(|l2| l2 <= 1.5 + 1e-6));
    // a shard of another run, or half of one
    std::fs::rename(lab.path("cut"), lab.path("cut.partial")).unwrap();
    std::fs::write(lab.path("cut.partial/adversarial/shard-00000.safetensors"), [0; 40]).unwrap();
    lab.run(&["attack", "--resume", "cut"]).fails(3, &["shard-00000.safetensors", "remove this file and resume"]);
}

#[test]
fn an_attack_may_go_to_a_class_and_through_the_autoencoder() {
    let lab = Lab::new();
    attack(&lab, "to", &["--limit", "4", "--attack", "bim,jsma", "--target", "Bag", "--eps", "0.4"]).succeeds();
    let rows = certificates(&lab, "to");
    assert!(all(rows.column("wish"), "to:8"));
    let won = rows.column("success").into_iter().zip(rows.column("answer_attacked"));
    assert!(won.clone().all(|(won, answer)| (won == "1") == (answer == "8")));
    // towards a class its loss falls
    let losses = numbers(rows.column("loss")).into_iter().zip(numbers(rows.column("loss_attacked")));
    assert!(losses.take(4).all(|(before, after)| after < before));
    attack(&lab, "second", &["--limit", "2", "--attack", "pgd", "--target", "second"]).succeeds();

    attack(&lab, "host", &["--limit", "4", "--attack", "bim"]).succeeds();
    attack(&lab, "inserted", &["--limit", "4", "--attack", "bim", "--victim", "inserted"]).succeeds();
    let manifest = |run: &str| -> Value { serde_json::from_str(&lab.read(&format!("{run}/manifest.json"))).unwrap() };
    assert_eq!(manifest("inserted")["configuration"]["victim"], "inserted");
    assert!(
        manifest("inserted")["hashes"]["autoencoder"].is_string()
            && manifest("host")["hashes"]["autoencoder"].is_null()
    );
    let [host, inserted] = ["host", "inserted"].map(|run| numbers(certificates(&lab, run).column("l2")));
    assert_ne!(host, inserted);

    let told = attack(&lab, "json", &["--limit", "2", "--json", "--quiet", "--pictures", "0"]).succeeds().json();
    assert_eq!(told["attacks"].as_array().unwrap().len(), 3);
    assert!(!lab.path("json/pictures").exists());
    let dry = attack(&lab, "never", &["--limit", "2", "--dry-run"]).succeeds().out;
    assert!(dry.contains("2 images x 3 attacks") && !lab.path("never").exists(), "{dry}");
}

#[test]
fn attacks_on_nothing_or_to_nowhere_are_refused() {
    let lab = Lab::new();
    let refused = |flags: &[&str], told: &[&str]| drop(attack(&lab, "x", flags).fails(2, told));
    refused(&["--attack", "none"], &["nothing to do"]);
    refused(&["--target", "Bagg"], &["--target Bagg", "did you mean Bag?"]);
    refused(&["--target", "10"], &["--target 10", "10 classes"]);
    refused(&["--suppress", "Edema"], &["--suppress", "--target"]);
    refused(&["--eps", "8"], &["--eps 8", "8/255"]);
    refused(&["--ae", "a.safetensors"], &["--ae", "--victim inserted"]);
    refused(&["--victim", "inserted", "--tap", "99"], &["99"]);
    refused(&["--limit", "0"], &["--limit 0"]);
    refused(&["--batch", "0"], &["--batch 0"]);
    assert_eq!(lab.names("."), ["d"]);
}
