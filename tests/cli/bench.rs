//! `bench`: jobs on request, and the comparison with a peer, against peers of a few lines of shell.

use crate::support::{Lab, Ran};
use intervene::tensor::Shape;
use intervene::weights::safetensors::{self, Elements, TensorFile};
use serde_json::Value;

/// A peer that says what ours found: its result is a copy of ours, which ends first. `python -c` asks it what is installed.
const HONEST: &str = r#"#!/bin/sh
[ "$1" = -c ] && exit 0
at=$(dirname "$1")
echo '{"ready":true,"variant":"shell","tried":{"shell":0.5},"not_run":{"other":"no other"},"versions":{"sh":"1"}}'
while read -r line && [ "$line" = run ]; do echo '{"seconds":0.5}'; done
cp "$at/ours.safetensors" "$at/theirs.safetensors" 2>/dev/null
echo '{"peak_bytes":4000000000}'
"#;

/// One row, of a training step on four images.
const ROW: [&str; 10] =
    ["bench", "compare", "--python", "./peer", "--jobs", "train fashion", "--images", "4", "--repeats", "2"];

fn lab(peer: &str) -> Lab {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new();
    lab.write("peer", peer.as_bytes());
    std::fs::set_permissions(lab.path("peer"), std::fs::Permissions::from_mode(0o755)).unwrap();
    lab
}

/// The tensor `result` of a file.
fn result(lab: &Lab, name: &str) -> Vec<f64> {
    let file = TensorFile::open(&lab.path(name)).unwrap();
    match file.elements("result").unwrap().unwrap() {
        Elements::F32(values) => values.iter().map(|&v| f64::from(v)).collect(),
        Elements::F64(values) => values.into_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_comparison_prints_a_row_with_ratio_memory_and_result_and_keeps_every_timing() {
    let lab = lab(HONEST);
    let ran = lab.run(&[&ROW[..], &["--out", "raw.jsonl"]].concat()).succeeds();
    for word in ["train fashion x 4", "met", "same: 0.0e0 of the largest loss", "(shell)", "other not run: no other"] {
        assert!(ran.out.contains(word), "no \"{word}\" in {}", ran.out);
    }
    assert!(
        ran.out.contains("1 of 1 rows run beside torch") && ran.out.contains("0 with another result"),
        "{}",
        ran.out
    );
    assert!(ran.err.contains("its fastest variant") && ran.err.contains("shell 500.0 ms"), "{}", ran.err);

    let raw = lab.read("raw.jsonl");
    let lines: Vec<Value> = raw.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["peer"], &lines[0]["command"][1]), (2, &"torch".into(), &"bench".into()));
    assert!(lines[0]["machine"]["hardware_threads"].as_u64().is_some() && lines[0]["date"].is_string());
    let row = &lines[1];
    assert_eq!(
        (row["seconds_ours"].as_array().unwrap().len(), row["seconds_theirs"].as_array().unwrap().len()),
        (2, 2)
    );
    assert_eq!((&row["theirs"]["versions"]["sh"], &row["same"]), (&"1".into(), &true.into()));
    assert!(row["ratio"].as_f64().unwrap() > 0.0 && row["memory_share"].as_f64().unwrap() < 1.0);

    let json = lab.run(&[&ROW[..], &["--json", "--quiet"]].concat()).succeeds().json();
    assert_eq!(
        (&json["schema_version"], &json["tally"]["ran"], &json["rows"][0]["same"]),
        (&1.into(), &1.into(), &true.into())
    );
}

#[test]
fn a_sweep_runs_every_node_on_every_image_and_a_start_is_timed_from_its_spawn() {
    let lab = lab(HONEST);
    let compare = |jobs: &str, more: &[&str]| {
        let flags = ["bench", "compare", "--python", "./peer", "--jobs", jobs, "--repeats", "1", "--json"];
        lab.run(&[&flags[..], more].concat()).succeeds().json()["rows"].clone()
    };
    let sweep = compare("sweep fashion", &["--images", "2", "--nodes", "3"]);
    assert_eq!((sweep.as_array().unwrap().len(), &sweep[0]["live_share"]), (1, &1.0.into()));
    assert!(sweep[0]["result"].as_str().unwrap().contains("of the largest effect"));
    // both rows are on as many images now: they are one
    let forward = compare("forward densenet121", &["--images", "1", "--size", "32"]);
    assert_eq!(forward.as_array().unwrap().len(), 1);
}

#[test]
fn another_result_is_told_in_its_row_and_ends_with_exit_4() {
    let save = |lab: &Lab, values: [f64; 2]| {
        let tensor = [("result", &Shape::from([2]), Elements::from(values.to_vec()))];
        safetensors::write(&lab.path("wrong.safetensors"), &tensor, &Default::default()).unwrap();
    };
    let wrong = HONEST.replace("$at/ours.safetensors", "wrong.safetensors");
    // the losses of a fresh network lie around 2.3
    for values in [[2.0, 2.0], [f64::NAN; 2], [0.0, 0.0]] {
        let lab = lab(&wrong);
        save(&lab, values);
        let ran = lab.run(&ROW);
        assert_eq!(ran.code, Some(4), "{values:?}: {}{}", ran.out, ran.err);
        assert!(
            ran.out.contains("DIFFERS") && ran.err.contains("another result than torch's"),
            "{}{}",
            ran.out,
            ran.err
        );
    }
    let fails = |script: &str, words: &[&str]| lab(script).run(&ROW).fails(1, words);
    fails(&HONEST.replace("cp ", ": "), &["left no result"]);
}

#[test]
fn a_peer_that_dies_or_babbles_is_an_error_that_repeats_what_it_said() {
    let start = "#!/bin/sh\n[ \"$1\" = -c ] && exit 0\n";
    let fails = |rest: &str, words: &[&str]| {
        lab(&format!("{start}{rest}")).run(&ROW).fails(1, &[words, &["the peer torch"]].concat())
    };
    fails("echo 'out of cheese' >&2; exit 3\n", &["ended (exit status: 3)", "it said: out of cheese"]);
    fails("echo hello\n", &["answered `hello`, which is no JSON"]);
    fails("echo '{\"seconds\":1}'\n", &["where `ready` was due"]);
    fails("echo '{\"ready\":true}'\nread -r line\n", &["ended (exit status: 0) where an answer was due"]);
    fails("echo '{\"ready\":true}'\nread -r l; echo '{\"peak_bytes\":1}'; exit 7\n", &["ended with exit status: 7"]);
    fails(&HONEST[10..].replace("\"seconds\":0.5", "\"seconds\":null"), &["where `seconds` was due"]);
}

#[test]
fn without_python_or_its_packages_the_error_says_what_to_install() {
    let none = |python: &str, lab: &Lab, words: &[&str]| {
        lab.run(&["bench", "compare", "--python", python]).fails(1, words);
    };
    none("no/such/python", &Lab::new(), &["no/such/python cannot be started", "-m pip install torch torchvision"]);
    let bare = lab("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 1\n");
    none("./peer", &bare, &["No module named 'torch'", "./peer -m pip install torch torchvision numpy safetensors"]);
}

/// A cargo that has written down what it was asked for, and "built" the shell script `peer`.
const CARGO: &str = r#"#!/bin/sh
echo "$@" > "$(dirname "$0")/asked"
while [ "$1" != --bin ]; do shift; done
mkdir -p "$4/release" && cp "$(dirname "$0")/peer" "$4/release/$2"
"#;

/// A lab with a program called `cargo`, and the environment in which it is the one that is found.
fn lab_with_cargo(cargo: &str) -> (Lab, String) {
    use std::os::unix::fs::PermissionsExt;
    // a program is started without the script in front of its flags
    let lab = lab(&HONEST.replace(r#"dirname "$1""#, r#"while [ "$1" != --result ]; do shift; done; dirname "$2""#));
    lab.write("cargo", cargo.as_bytes());
    std::fs::set_permissions(lab.path("cargo"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", lab.path("").display(), std::env::var("PATH").unwrap());
    (lab, path)
}

fn compare_with(engine: &str, lab: &Lab, path: &str) -> Ran {
    let cache = lab.path("cache");
    let environment = [("PATH", Some(path)), ("XDG_CACHE_HOME", cache.to_str())];
    let flags = ["--jobs", "forward densenet121", "--images", "1", "--size", "32", "--repeats", "1"];
    lab.run_in(&environment, &[&["bench", "compare", "--peer", engine][..], &flags].concat())
}

#[test]
fn an_engine_in_rust_is_built_by_cargo_in_the_cache_and_not_written_again() {
    let (lab, path) = lab_with_cargo(CARGO);
    for engine in ["candle", "tract"] {
        let ran = compare_with(engine, &lab, &path).succeeds();
        assert!(ran.out.contains(&format!("1 of 1 rows run beside {engine}")), "{}", ran.out);
        assert!(ran.err.contains(&format!("cargo builds the peer {engine}")), "{}", ran.err);
        let asked = lab.read("asked");
        assert!(asked.starts_with(&format!("build --release --locked --features {engine} --bin {engine} ")), "{asked}");
    }
    // cargo builds again what is newer than its last build
    let written =
        |file: &str| lab.path(&format!("cache/intervene/peers/{file}")).metadata().unwrap().modified().unwrap();
    let files = ["Cargo.toml", "Cargo.lock", "src/lib.rs", "src/bin/candle.rs"];
    let before = files.map(written);
    compare_with("candle", &lab, &path).succeeds();
    assert_eq!(files.map(written), before);
}

#[test]
fn without_cargo_or_where_it_fails_the_error_says_so() {
    let (lab, path) = lab_with_cargo("#!/bin/sh\necho 'error: no matching package' >&2; exit 101\n");
    compare_with("candle", &lab, "/nowhere").fails(1, &["cargo cannot be started", "https://rustup.rs"]);
    compare_with("tract", &lab, &path)
        .fails(1, &["cannot build the peer tract in", "cache/intervene/peers", "no matching package"]);
    lab.run(&[&ROW[..], &["--peer", "tract"]].concat())
        .fails(2, &["cargo builds the peer tract: --python does not apply"]);
}

#[test]
fn rows_that_a_peer_cannot_run_are_listed_with_the_reason() {
    let (lab, path) = lab_with_cargo(CARGO);
    let cache = lab.path("cache");
    let environment = [("PATH", Some(path.as_str())), ("XDG_CACHE_HOME", cache.to_str())];
    for (peer, job, why) in [
        ("onnxruntime", "train fashion", "it computes no gradients"),
        ("onnxruntime", "sweep fashion", "no cut at a tap"),
        ("tract", "train fashion", "it computes no gradients"),
        ("tract", "start", "plain inference alone"),
        ("candle", "train fashion", "plain inference alone"),
    ] {
        let python: &[&str] = if peer == "onnxruntime" { &["--python", "./peer"] } else { &[] };
        let ran =
            lab.run_in(&environment, &[&["bench", "compare", "--peer", peer, "--jobs", job][..], python].concat());
        let out = ran.succeeds().out;
        assert!(out.contains(why) && out.contains("0 of 1 rows run"), "{peer} {job}: {out}");
    }
}

#[test]
fn flags_of_other_jobs_are_refused() {
    let lab = lab(HONEST);
    lab.run(&["bench", "forward", "--jobs", "x"]).fails(2, &["are for `bench compare`"]);
    lab.run(&["bench", "forward", "--result", "x"]).fails(2, &["--serve"]);
    lab.run(&["bench", "compare", "--jobs", "nonsense"]).fails(2, &["no row", "sweep vgg16 tap 13 x 2"]);
    lab.run(&["bench", "compare", "--device", "cuda"]).fails(2, &["on the CPU"]);
    lab.run(&["bench", "compare", "--tap", "2"]).fails(2, &["makes its own weights and images"]);
    lab.run(&["bench", "start"]).fails(2, &["name them with --weights"]);
    lab.run(&["bench", "forward", "--size", "8"]).fails(2, &["fashion takes no images of 8x8"]);
}

/// Weights of the small network and its autoencoder in one file, and three images.
fn files(lab: &Lab) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("weights");
    let mut both = intervene::weights::Weights::open(&root.join("fashion.safetensors")).unwrap();
    both.absorb(intervene::weights::Weights::open(&root.join("fashion-ae.safetensors")).unwrap());
    both.save(&lab.path("w.safetensors")).unwrap();
    let x: Vec<f32> = (0..3 * 28 * 28).map(|i| (i % 97) as f32 / 97.0).collect();
    let tensors = [
        ("x", &Shape::from([3, 1, 28, 28]), Elements::from(x)),
        ("labels", &Shape::from([3]), Elements::from(vec![1i64, 2, 3])),
    ];
    safetensors::write(&lab.path("x.safetensors"), &tensors, &Default::default()).unwrap();
}

#[test]
fn our_side_speaks_the_protocol_and_leaves_a_result() {
    let lab = Lab::new();
    files(&lab);
    let serve = |job: &str, requests: &str| -> (Ran, Vec<Value>) {
        let script = format!(
            "printf '{requests}' | \"$0\" bench {job} --weights w.safetensors --inputs x.safetensors --serve \
             --result r.safetensors --quiet"
        );
        let ran = lab.shell(&script, &[]).succeeds();
        let lines = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (ran, lines)
    };
    for (job, numbers) in [("sweep", 3 * 16), ("forward", 3 * 10), ("attack", 3 * 784), ("train", 2), ("train-ae", 2)] {
        let (_, lines) = serve(job, "run\\nrun\\nend\\n");
        assert_eq!(lines.len(), 4, "{job}: {lines:?}");
        assert_eq!(lines[0]["ready"], true);
        assert!(lines[1]["seconds"].as_f64().unwrap() > 0.0 && lines[2]["seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(lines[3]["peak_bytes"].as_u64().is_some(), cfg!(target_os = "linux"));
        let found = result(&lab, "r.safetensors");
        assert!(found.len() == numbers && found.iter().all(|v| v.is_finite()), "{job}: {} {found:?}", found.len());
        // a step changes the loss; a trained autoencoder's may rise at first, under Adam's full rate
        assert!(!job.starts_with("train") || found[1] != found[0], "{job}: {found:?}");
    }
    // an end of the requests is an end
    let (ran, lines) = serve("start", "");
    assert_eq!(lines.len(), 2, "{}", ran.out);
    let start = ["bench", "start", "--weights", "w.safetensors", "--inputs", "x.safetensors"];
    assert_eq!(lab.run(&start).succeeds().json()["first"], lines[0]["first"]);
    assert!(lines[0]["first"]["class"].as_u64().unwrap() < 10);
}

#[test]
fn inputs_that_do_not_fit_are_exit_3() {
    let lab = Lab::new();
    let labels = |values: &[i64]| Elements::from(values.to_vec());
    let save = |tensors: &[(&str, &Shape, Elements<'_>)]| {
        safetensors::write(&lab.path("x.safetensors"), tensors, &Default::default()).unwrap();
    };
    let fails = |words: &[&str]| lab.run(&["bench", "forward", "--inputs", "x.safetensors"]).fails(3, words);
    let (two, x) = (Shape::from([2, 1, 28, 28]), || Elements::from(vec![0.5f32; 2 * 784]));
    save(&[("y", &two, x())]);
    fails(&["no tensor x"]);
    save(&[("x", &two, x())]);
    fails(&["labels of 64-bit integers"]);
    save(&[("x", &two, x()), ("labels", &Shape::from([1]), labels(&[1]))]);
    fails(&["is not what fashion takes"]);
    save(&[("x", &two, x()), ("labels", &Shape::from([2]), labels(&[1, 10]))]);
    fails(&["a label is no class"]);
}
