//! `ce` of several autoencoders: nodes that are the same are found, and what is not comparable is refused; and `ce --refute`.

use super::support::{Lab, SMALL, Table};
use intervene::model::Model;
use intervene::model::autoencoder::Autoencoder;
use intervene::tensor::Tensor;
use intervene::weights::Weights;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The autoencoder that comes with the program.
fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/fashion-ae.safetensors")
}

/// Its weights, changed.
fn changed(lab: &Lab, name: &str, change: impl Fn(&str, &[usize], &[f32]) -> Vec<f32>) -> String {
    let from = Weights::open(&bundled()).unwrap();
    let tensor = |(key, t): (&str, intervene::weights::TensorView<'_>)| {
        (key.to_owned(), Tensor::new(t.shape.clone(), change(key, t.shape.dims(), t.data)).unwrap())
    };
    let mut weights = Weights::of(name, from.iter().map(tensor));
    weights.metadata = from.metadata.clone();
    weights.save(&lab.path(name)).unwrap();
    name.to_owned()
}

/// Node j of the copy is node `order(j)` of the original.
fn permuted(lab: &Lab, name: &str, order: impl Fn(usize) -> usize) -> String {
    changed(lab, name, |key, dims, data| {
        let nodes = |row: usize, data: &[f32]| {
            let width = data.len() / row;
            (0..row).flat_map(|j| data[order(j) * width..][..width].to_vec()).collect::<Vec<f32>>()
        };
        match key {
            "ae.code.weight" | "ae.code.bias" => nodes(dims[0], data),
            "ae.dec1.weight" => data.chunks_exact(dims[1] * 9).flat_map(|row| nodes(dims[1], row)).collect(),
            _ => data.to_vec(),
        }
    })
}

fn json(lab: &Lab, name: &str) -> Value {
    serde_json::from_str(&lab.read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn numbers(table: &Table, column: &str) -> Vec<Option<f64>> {
    table.column(column).into_iter().map(|cell| cell.parse().ok()).collect()
}

#[test]
fn an_autoencoder_with_permuted_nodes_is_matched_exactly_and_adds_no_variance() {
    let lab = Lab::with(20, 60);
    std::fs::copy(bundled(), lab.path("a.safetensors")).unwrap();
    // 5 and 16 have no common divisor
    let b = permuted(&lab, "b.safetensors", |j| (5 * j + 3) % 16);
    let told = lab.ce("40", "both", &["--ae", "a.safetensors", "--ae", &b]).succeeds().out;
    assert!(told.contains("Kendall's tau") && told.contains("run both"), "{told}");

    let matching = Table::of(&lab.read("both/matching.csv"));
    let number = |name: &str| name.rsplit("/ch").next().and_then(|n| n.parse::<usize>().ok());
    let mut live = Vec::new();
    for ((node, its), r) in
        matching.column("node").iter().zip(matching.column("its_node")).zip(numbers(&matching, "correlation"))
    {
        let (node, Some(its)) = (number(node).unwrap(), number(its)) else { continue };
        assert_eq!((5 * its + 3) % 16, node);
        assert!((r.unwrap() - 1.0).abs() < 1e-12, "{r:?}");
        live.push(node);
    }
    assert!(matching.rows.len() == 16 && (5..16).contains(&live.len()), "some live and some dead: {live:?}");

    let results = json(&lab, "both/manifest.json")["results"].clone();
    let [matched, by_number] = ["matched", "by_number"].map(|key| results["kendall"][0][key].as_f64().unwrap());
    assert!(matched == 1.0 && by_number < 0.9, "{results}");
    assert_eq!(results["matched"][0]["matched"], live.len());

    // Seeds that agree add nothing: a resample's mean over seeds is its images' mean in any of them, whichever seeds it drew. So the
    // interval is the one that summary.csv has of the first alone, to the rounding of sums over nodes in another order.
    let (seeds, summary) = (Table::of(&lab.read("both/seeds.csv")), Table::of(&lab.read("both/ae-1/summary.csv")));
    let key = |table: &Table, i: usize| ["node", "input", "reading"].map(|c| table.column(c)[i].to_owned());
    let of = |table: &Table, i: usize| ["mean", "ci_lo", "ci_hi"].map(|c| numbers(table, c)[i].unwrap());
    let wanted: Vec<_> = (0..summary.rows.len()).filter(|&i| summary.column("estimand")[i] == "e1").collect();
    let (shares, having) = (numbers(&seeds, "share_seeds"), seeds.column("seeds"));
    for i in 0..seeds.rows.len() {
        let node = number(seeds.column("node")[i]).unwrap();
        assert_eq!(having[i], if live.contains(&node) { "2" } else { "1" }, "{node}");
        // an effect that is rounding itself is no effect
        let rounding = of(&seeds, i)[0].abs() < 1e-6;
        assert!(rounding || shares[i].is_none_or(|share| share < 1e-6), "{:?}", seeds.rows[i]);
        let same = wanted.iter().find(|&&w| key(&summary, w) == key(&seeds, i)).unwrap();
        for (got, want) in of(&seeds, i).into_iter().zip(of(&summary, *same)) {
            assert!((got - want).abs() < 1e-7, "{got} for {want}: {:?}", seeds.rows[i]);
        }
    }
    // none, pwm, fgsm and noise in four readings
    assert_eq!(seeds.rows.len(), 16 * (1 + 3 * 4));
    assert_eq!(seeds.head.last().map(String::as_str), Some("mean_2"));

    lab.run(&["report", "both"]).fails(3, &["both", "ae-1"]);
    // a study is the one that its autoencoder has alone
    lab.ce("40", "alone", &["--ae", &b]).succeeds();
    lab.assert_same("both/ae-2", "alone");
    let told = lab.ce("8", "json", &["--ae", "a.safetensors", "--ae", &b, "--json", "--attack", "none"]).succeeds();
    assert_eq!(told.json()["matches"][0].as_array().map(Vec::len), Some(16));
}

#[test]
fn a_stopped_run_of_several_goes_on_to_the_same_bytes() {
    let lab = Lab::new();
    std::fs::copy(bundled(), lab.path("a.safetensors")).unwrap();
    let b = permuted(&lab, "b.safetensors", |j| 15 - j);
    let base = ["ce", "--ae", "a.safetensors", "--ae", &b, "--attack", "none", "--masks", "0", "--resamples", "20"];
    let rest = ["--data", "d", "--any-data", "--min-agreement", "0", "--quiet", "--limit", "40"];
    let run = |out: &'static str| [&base[..], &rest, &["--out", out]].concat();
    lab.run(&run("whole")).succeeds();
    // before the second's shards are there
    let sign = "stopped.partial/ae-1";
    lab.signalled(&run("stopped"), sign, "-INT").fails(130, &["--resume stopped"]);
    assert!(lab.path("stopped.partial/ae-1").exists());
    lab.run(&["ce", "--resume", "stopped", "--quiet", "--threads", "1"]).succeeds();
    lab.assert_same("whole", "stopped");
}

#[test]
fn autoencoders_that_cannot_be_compared_are_refused() {
    let lab = Lab::new();
    let a = "a.safetensors";
    std::fs::copy(bundled(), lab.path(a)).unwrap();
    let saved = |name: &str, key: &str, value: &str| {
        let mut weights = Weights::open(&lab.path(&permuted(&lab, name, |j| 15 - j))).unwrap();
        weights.metadata.insert(key.into(), value.into());
        weights.save(&lab.path(&format!("its-{name}"))).unwrap();
        format!("its-{name}")
    };
    let narrow = {
        let model = Model::named("fashion").unwrap();
        let autoencoder = Autoencoder::at(&model.tap("2").unwrap(), 32, 8);
        let mut weights = Weights::of("narrow", autoencoder.initial_weights(1));
        weights.metadata = Weights::open(&bundled()).unwrap().metadata;
        weights.save(&lab.path("narrow.safetensors")).unwrap();
        "narrow.safetensors".to_string()
    };
    let few = |more: &[&str]| lab.ce("4", "no", &[&["--attack", "none", "--ae", a], more].concat());
    let other = permuted(&lab, "other.safetensors", |j| 15 - j);
    few(&["--ae", &other, "--adaptive"]).fails(2, &["--adaptive"]);
    few(&["--ae", &narrow]).fails(3, &["narrow.safetensors", "has 8 nodes", "has 16", "one to one"]);
    let tap = saved("tap.safetensors", "tap", "features.4");
    few(&["--ae", &tap]).fails(3, &["its-tap.safetensors", "features.4", "features.1"]);
    let host = saved("host.safetensors", "host_sha256", &"0".repeat(64));
    few(&["--ae", &host]).fails(3, &["its-host.safetensors", "host"]);
    let arch = saved("arch.safetensors", "arch", "vgg16");
    few(&["--ae", &arch]).fails(3, &["its-arch.safetensors", "vgg16", "fashion"]);
    std::fs::copy(bundled(), lab.path("same.safetensors")).unwrap();
    few(&["--ae", "same.safetensors"]).fails(3, &["same.safetensors", "a.safetensors", "no other training"]);
    few(&["--ae", "nowhere.safetensors"]).fails(3, &["nowhere.safetensors"]);
    let b = permuted(&lab, "b.safetensors", |j| 15 - j);
    few(&["--ae", &b, "--nodes", "3"]).fails(2, &["--nodes", "another node in each"]);
    few(&["--ae", &b, "--set", "3,4"]).fails(2, &["--set"]);
    few(&["--ae", &b, "--shard", "1/2"]).fails(2, &["--shard"]);
    lab.run(&["map", "--ae", a, "--ae", &b, "--data", "d", "--any-data"]).fails(2, &["--ae", "`ce` takes several"]);
    // the gate of each: one that answers nothing is shut out by name, and nothing is left behind
    let mute = changed(&lab, "mute.safetensors", |key, _, data| match key {
        "ae.dec2.weight" => vec![0.0; data.len()],
        _ => data.to_vec(),
    });
    few(&["--ae", &mute, "--min-agreement", "0.2"]).fails(4, &["mute.safetensors", "--min-agreement"]);
    assert!(!lab.path("no").exists() && !lab.path("no.partial").exists());
    let dry = few(&["--ae", &b, "--dry-run"]).succeeds();
    assert!(dry.out.contains("2 autoencoders, each 4 images"), "{}", dry.out);
}

#[test]
fn nodes_are_put_before_every_refuter() {
    let lab = Lab::new();
    // node 7, which the decoder no longer reads
    let cut = changed(&lab, "cut.safetensors", |key, dims, data| {
        let wires = data.iter().enumerate();
        match key {
            "ae.dec1.weight" => wires.map(|(i, w)| if i / 9 % dims[1] == 7 { 0.0 } else { *w }).collect(),
            _ => data.to_vec(),
        }
    });
    let asked = ["--refute", "--ae", &cut, "--nodes", "7,10,2", "--set", "2,10", "--attack", "none", "--masks", "0"];
    let told = lab.ce("30", "run", &asked).succeeds().out;
    assert!(told.contains("Refuters, on 30 clean images") && told.contains("of 3 nodes survive all"), "{told}");
    let table = Table::of(&lab.read("run/refuters.csv"));
    assert_eq!(table.rows.len(), 4 * 3);
    let rows = table.column("node").into_iter().zip(table.column("refuter")).zip(table.column("verdict"));
    let mut severed = 0;
    for (i, ((node, refuter), verdict)) in rows.enumerate() {
        let (own, placebo) = (numbers(&table, "mean_abs")[i].unwrap(), numbers(&table, "placebo")[i].unwrap());
        if refuter == "severed" {
            assert_eq!(placebo, 0.0);
            severed += 1;
        }
        match node.ends_with("/ch7") {
            true => assert_eq!((own, verdict), (0.0, "refuted"), "{refuter}"),
            false => assert!(own > 0.0 && (verdict == "survives" || refuter != "severed"), "{node} {refuter}"),
        }
    }
    assert_eq!(severed, 3);
    let results = json(&lab, "run/manifest.json")["results"]["refuters"].clone();
    assert_eq!(
        (results["images"].as_u64(), results["survive"]["severed"].as_array().map(Vec::len)),
        (Some(30), Some(2))
    );
    // the same again, in other batches
    lab.ce("30", "again", &[&asked[..], &["--batch", "7", "--threads", "1"]].concat()).succeeds();
    lab.assert_same("run", "again");
    lab.ce("4", "no", &["--refute", "--do", "mean"]).fails(2, &["--refute", "--do"]);
    lab.run(&[&["ce", "--refute", "--limit", "9", "--dry-run"][..], &SMALL].concat()).succeeds();
    // so many placebos as a higher level takes are not to be had
    lab.ce("4", "no", &["--refute", "--level", "0.999", "--attack", "none"]).fails(2, &["--refute", "0.99"]);
}
