//! Verbs, flags, the configuration file, JSON, dry runs, devices.

use crate::support::{Lab, SMALL};

const TINY_TRAIN: [&str; 8] = ["train", "--data", "d", "--any-data", "--batch", "40", "--epochs", "1"];
const TINY_AE: [&str; 8] = ["train-ae", "--data", "d", "--any-data", "--batch", "40", "--epochs", "1"];

#[test]
fn an_unknown_verb_flag_or_value_is_exit_2_with_what_was_probably_meant() {
    let lab = Lab::new();
    lab.run(&["trian"]).fails(2, &["'trian'", "'train'"]);
    lab.run(&["ce", "--nods", "3"]).fails(2, &["'--nods'", "'--nodes'"]);
    lab.run(&["ce", "--attack", "fgms"]).fails(2, &["'fgms'", "'fgsm'"]);
    lab.run(&[]).code.map(|code| assert_eq!(code, 2)).unwrap();
    lab.run(&["ce", "--eps", "8"]).fails(2, &["--eps 8 is outside of 0 to 1", "8/255"]);
    lab.run(&["ce", "--fill", "x"]).fails(2, &["`x` is neither a number nor a fraction"]);
    lab.run(&["ce", "--limit", "0"]).fails(2, &["--limit 0", "at least one image"]);
    lab.run(&["reproduce", "fashion", "--limit", "0"]).fails(2, &["--limit 0"]);
    lab.run(&["ce", "--threads", "0"]).fails(2, &["--threads 0: at least one thread"]);
    lab.run(&["ce", "--threads", "1000000"]).fails(2, &["--threads 1000000: at most 1024"]);
    lab.run(&["ce", "--batch", "0"]).fails(2, &["--batch 0", "auto or 1 to 65536"]);
    lab.run(&["ce", "--masks", "4294967295"]).fails(2, &["--masks", "1024"]);
    lab.run(&["ce", "--resamples", "99999999999999"]).fails(2, &["--resamples", "1000000"]);
    lab.run(&["ce", "--level", "1"]).fails(2, &["--level"]);
    lab.run(&["ce", "--min-agreement", "nan"]).fails(2, &["--min-agreement"]);
    lab.run(&["ce", "--seed=-1"]).fails(2, &["'-1'", "--seed"]);
    lab.run(&["train-ae", "--hidden", "99999999999"]).fails(2, &["--hidden 1 to 4096"]);
    lab.run(&["train-ae", "--code", "65"]).fails(2, &["--code takes 1 to 64"]);
    lab.run(&["train-ae", "--loss-weights", "1,2"]).fails(2, &["three numbers"]);
    lab.run(&["train-ae", "--loss-weights", "1,nan,2"]).fails(2, &["--loss-weights"]);
    lab.run(&["inspect", "--nodes", "18446744073709551615"]).fails(2, &["1 to 64 nodes"]);
    lab.run(&["bench", "sweep", "--images", "18446744073709551615"]).fails(2, &["--images takes 1 to"]);
    lab.run(&["bench", "sweep", "--out", "x"]).fails(2, &["makes no run directory"]);
    lab.run(&["fetch", "fashion-mnist", "--out", "x"]).fails(2, &["makes no run directory"]);
    assert_eq!(lab.names("."), ["d"]);
}

#[test]
fn a_device_that_is_not_there_is_exit_5_with_reason_and_hint() {
    let lab = Lab::new();
    let nothing = [("LD_LIBRARY_PATH", Some(""))];
    for device in ["cuda", "cuda:0", "cuda:all"] {
        for verb in [&["ce"][..], &["train"], &["train-ae"], &["reproduce", "fashion"], &["bench", "sweep"]] {
            let ran = lab.run_in(&nothing, &[verb, &["--device", device]].concat());
            ran.fails(5, &["device cuda is not available", "no CUDA driver", "use --device cpu"]);
        }
    }
    lab.run(&["ce", "--device", "gpu"]).fails(2, &["--device gpu", "auto, cpu, cuda, cuda:N"]);
}

#[test]
fn help_and_version_go_to_stdout() {
    let lab = Lab::new();
    let ran = lab.run(&["--help"]).succeeds();
    assert!(ran.out.contains("Exit codes: 0 done") && ran.err.is_empty());
    assert!(lab.run(&["--version"]).succeeds().out.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_configuration_file_gives_flags_and_the_command_line_wins() {
    let lab = Lab::new();
    lab.write(
        "run.toml",
        b"data = \"d\"\nany_data = true\nlimit = 2\neps = \"8/255\"\nfill = 0.25\nmasks = 1\nresamples = 20\n\
          min-agreement = 0\nnodes = \"3\"\nset = [\"3,7\", \"0-2\"]\nquiet = true\nno_control = false\n",
    );
    let study = |out: &str, more: &[&str]| -> serde_json::Value {
        lab.run(&[&["ce", "--config", "run.toml", "--out", out], more].concat()).succeeds();
        let manifest: serde_json::Value = serde_json::from_str(&lab.read(&format!("{out}/manifest.json"))).unwrap();
        manifest["configuration"].clone()
    };
    let c = study("a", &[]);
    assert_eq!((&c["limit"], &c["nodes"], &c["sets"]), (&2.into(), &"3".into(), &serde_json::json!(["3,7", "0-2"])));
    let eps = c["inputs"][1]["eps"].as_f64().unwrap();
    assert!((eps - 8.0 / 255.0).abs() < 1e-6 && c["inputs"][0]["fill"] == 0.25, "{c}");
    // a list of the command line takes the place of the file's, and is not added to it
    let c = study("b", &["--limit", "3", "--set", "8,9", "--eps=0.5"]);
    assert_eq!((&c["limit"], &c["sets"]), (&3.into(), &serde_json::json!(["8,9"])));
    assert_eq!((&c["inputs"][1]["eps"], &c["inputs"].as_array().unwrap().len()), (&0.5.into(), &3));
}

#[test]
fn a_configuration_list_of_numbers_is_one_flag_and_a_positional_may_follow() {
    let lab = Lab::new();
    lab.write("ae.toml", b"loss_weights = [1.0, 0.5, 0.25]\n");
    lab.run(&["train-ae", "--dry-run", "--config=ae.toml"]).succeeds();
    lab.run(&["train-ae", "--dry-run", "--config=ae.toml", "--loss-weights", "1,1,1"]).succeeds();
    lab.write("fashion.toml", b"limit = 4\nno_control = true\njson = true\n");
    let ran = lab.run(&["reproduce", "fashion", "--dry-run", "--config", "fashion.toml"]).succeeds();
    assert!(ran.json()["what"].as_str().unwrap().starts_with("4 images"), "{}", ran.out);
    lab.run(&["reproduce", "--config", "fashion.toml", "--dry-run", "fashion"]).succeeds();
}

#[test]
fn a_broken_configuration_file_or_an_unknown_key_names_the_file() {
    let lab = Lab::new();
    let ce = ["ce", "--config", "run.toml"];
    lab.run(&ce).fails(3, &["run.toml: cannot be read", "No such file"]);
    for (text, words) in [
        ("limit = \n", &["is no TOML", "line 1"][..]),
        ("limt = 4\n", &["`limt` is no flag of `ce`", "did you mean `limit`?"]),
        ("config = \"other.toml\"\n", &["`config` is no flag"]),
        ("help = true\n", &["`help` is no flag"]),
        ("[ce]\nlimit = 4\n", &["`ce` is no flag of `ce`"]),
        ("eps = { a = 1 }\n", &["`eps` is neither a number"]),
        ("limit = 1979-05-27\n", &["`limit` is neither a number"]),
    ] {
        lab.write("run.toml", text.as_bytes());
        lab.run(&ce).fails(3, &[&["run.toml"], words].concat());
    }
    // a value that the flag refuses is the flag's own error
    for (text, word) in [("eps = 8\n", "8/255"), ("seed = -1\n", "--seed"), ("json = \"yes\"\n", "--json")] {
        lab.write("run.toml", text.as_bytes());
        lab.run(&ce).fails(2, &[word]);
    }
    lab.run(&["devices", "--config", "run.toml"]).fails(2, &["--config"]);
}

#[test]
fn every_verb_prints_json_that_parses() {
    let lab = Lab::new();
    let json = |arguments: &[&str]| lab.run(&[arguments, &["--json"]].concat()).succeeds().json();
    assert_eq!(json(&["devices"])["cpu"]["available"], true);
    assert_eq!(json(&["inspect"])["arch"], "fashion");
    let bench = json(&["bench", "forward", "--images", "2", "--nodes", "2", "--repeats", "1"]);
    assert!(bench["seconds_median"].as_f64().is_some());
    let train = json(&[&TINY_TRAIN[..], &["--out", "t"]].concat());
    assert!(train["accuracy"].as_f64().is_some() && train["sha256"].as_str().unwrap().len() == 64);
    assert!(json(&[&TINY_AE[..], &["--out", "e"]].concat())["quality"]["agreement"].as_f64().is_some());
    let ce = json(&[&["ce", "--limit", "2", "--nodes", "3,7", "--out", "c"], &SMALL[..]].concat());
    assert!(ce["rows"].as_array().is_some_and(|rows| !rows.is_empty()));
    let reproduced = json(&[&["reproduce", "fashion", "--limit", "2", "--out", "r"], &SMALL[..]].concat());
    // masked, four attacks, noise
    assert_eq!(reproduced["claims"].as_array().unwrap().len(), 6);
    assert_eq!((&reproduced["maps"]["results"]["images"], &reproduced["maps"]["run"]), (&2.into(), &"r/maps".into()));
    for verb in [&["train"][..], &["train-ae"], &["ce"], &["reproduce", "fashion"], &["fetch", "fashion-mnist"]] {
        assert_eq!(json(&[verb, &["--dry-run"]].concat())["dry_run"], true);
    }
}

#[test]
fn a_dry_run_says_what_it_would_cost_and_writes_nothing() {
    let lab = Lab::new();
    for verb in
        [&["train"][..], &["train-ae"], &["ce"], &["reproduce", "fashion"], &["reproduce", "fashion", "--retrain"]]
    {
        for out in [&[][..], &["--out", "run"]] {
            let ran = lab.run(&[verb, out, &["--dry-run"]].concat()).succeeds();
            assert!(ran.out.contains("TFLOP") && ran.out.contains("threads"), "{}", ran.out);
        }
    }
    lab.run(&["fetch", "fashion-mnist", "--dry-run"]).succeeds();
    lab.run(&["ce", "--dry-run", "--nodes", "16"]).fails(2, &["15"]);
    lab.run(&["train", "--dry-run", "--model", "vgg"]).fails(2, &["\"vgg\"", "fashion"]);
    assert_eq!(lab.names("."), ["d"]);
}

#[test]
fn a_reproduction_on_own_data_prints_the_table_and_a_shut_gate_leaves_nothing() {
    let lab = Lab::new();
    let shut = ["reproduce", "fashion", "--data", "d", "--any-data", "--min-agreement", "1", "--out", "shut"];
    lab.run(&shut).fails(4, &["below the 100 %", "--min-agreement"]);
    assert_eq!(lab.names("."), ["d"]);
    let limit = ["reproduce", "fashion", "--limit", "64", "--maps", "0", "--out", "run"];
    let ran = lab.run(&[&limit[..], &SMALL].concat()).succeeds();
    assert!(ran.out.contains("Table 3") && ran.out.contains("(2,15)"), "{}", ran.out);
    let files = ["claims.json", "detector.json", "effect_matrix.csv", "effects.parquet", "gallery", "manifest.json"];
    assert_eq!(lab.names("run"), [&files[..], &["outcomes", "report.html", "strata.csv", "summary.csv"]].concat());
}

#[test]
fn an_interrupted_download_is_exit_130() {
    if std::path::Path::new("/usr/share/datasets/fashion-mnist").exists() {
        println!("SKIPPED 1: this machine has Fashion-MNIST, so nothing is downloaded");
        return;
    }
    let lab = Lab::new();
    std::fs::create_dir(lab.path("bin")).unwrap();
    // what curl does when Ctrl-C reaches the whole foreground group
    lab.write("bin/curl", b"#!/bin/sh\nkill -INT $$\n");
    let script = "chmod +x bin/curl; PATH=$PWD/bin:$PATH exec \"$0\" \"$@\"";
    lab.shell(script, &["fetch", "fashion-mnist"]).fails(130, &["interrupted", "curl", "again"]);
}
