//! Where results go: run directories that are never overwritten, full disks, unwritable places, closed pipes.

use crate::support::{Lab, SMALL, Table};

const TRAIN: [&str; 8] = ["train", "--data", "d", "--any-data", "--batch", "40", "--epochs", "2"];

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&TRAIN[..], more].concat()
}

#[test]
fn an_output_directory_that_exists_is_refused_before_any_work_and_left_as_it_is() {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("run")).unwrap();
    lab.write("run/mine.txt", b"mine");
    lab.write("file", b"mine");
    for out in ["run", "run/", "file"] {
        let named = out.trim_end_matches('/');
        for verb in [&["train"][..], &["train-ae"], &["ce"], &["reproduce", "fashion"]] {
            // data that do not exist: it is not even looked for
            let ran = lab.run(&[verb, &["--data", "none", "--out", out]].concat());
            ran.fails(2, &[named, "exists; choose another --out"]);
        }
    }
    lab.run(&["ce", "--data", "none", "--out", ""]).fails(2, &["--out"]);
    lab.run(&["ce", "--data", "none", "--out", "d/.."]).fails(2, &["d/..", "names no directory"]);
    assert_eq!(lab.names("run"), ["mine.txt"]);
    assert_eq!(lab.names("."), ["d", "file", "run"]);
}

#[test]
fn an_output_directory_with_a_closing_slash_is_that_directory() {
    let lab = Lab::new();
    lab.ce("2", "run/", &["--nodes", "3"]).succeeds();
    assert_eq!(lab.names("."), ["d", "run"]);
    let files = ["claims.json", "effect_matrix.csv", "effects.parquet", "gallery", "manifest.json", "outcomes"];
    assert_eq!(lab.names("run"), [&files[..], &["report.html", "strata.csv", "summary.csv"]].concat());
}

#[test]
fn without_out_a_run_is_named_after_verb_time_and_hash() {
    let lab = Lab::new();
    let ran = lab.run(&[&["ce", "--limit", "2", "--nodes", "3"], &SMALL[..], &["--json"]].concat()).succeeds();
    let names = lab.names("runs");
    let [name] = &names[..] else { panic!("{names:?}") };
    let parts: Vec<&str> = name.split('-').collect();
    let [verb, time, hash] = parts[..] else { panic!("{name}") };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    assert!(verb == "ce" && digits(&time[..8]) && &time[8..9] == "T" && digits(&time[9..15]), "{name}");
    assert!(time.ends_with('Z') && time.len() == 16, "{name}");
    let run_id = ran.json()["run_id"].as_str().unwrap().to_string();
    assert!(hash.len() == 8 && run_id.starts_with(hash), "{name} {run_id}");
}

#[test]
fn a_place_that_cannot_be_written_is_named_and_exit_1() {
    let lab = Lab::new();
    lab.write("file", b"mine");
    // both fail for root too
    for out in ["file/run", "/proc/none/run"] {
        lab.run(&train(&["--out", out])).fails(1, &[out, "cannot create the run directory"]);
        lab.ce("4", out, &[]).fails(1, &[out, "cannot create the run directory"]);
    }
    assert_eq!(lab.names("."), ["d", "file"]);
}

#[test]
fn beyond_the_limit_of_file_sizes_a_run_fails_with_words_keeps_what_it_has_and_can_be_resumed() {
    let lab = Lab::new();
    // blocks of 512 or 1024 bytes: the manifest fits, a checkpoint does not
    let limited = "ulimit -f 40; exec \"$0\" \"$@\"";
    let ran = lab.shell(limited, &train(&["--out", "run"]));
    ran.fails(1, &["run.partial/checkpoint.safetensors", "File too large", "--resume run"]);
    assert_eq!(lab.names("run.partial"), ["manifest.json"]);
    lab.run(&["train", "--resume", "run"]).succeeds();
    lab.run(&train(&["--out", "whole"])).succeeds();
    lab.assert_same("whole", "run");

    // not even the manifest: nothing is left
    let ran = lab.shell("ulimit -f 0; exec \"$0\" \"$@\"", &train(&["--out", "none"]));
    ran.fails(1, &["none.partial/manifest.json", "File too large"]);
    assert_eq!(lab.names("."), ["d", "run", "whole"]);

    // a shard and a table of a study
    let study = [&["ce", "--limit", "20", "--nodes", "3,15"], &SMALL[..], &["--out"]].concat();
    let ran = lab.shell("ulimit -f 8; exec \"$0\" \"$@\"", &[&study[..], &["study"]].concat());
    ran.fails(1, &["study.partial/outcomes/shard-00000.safetensors", "File too large", "--resume"]);
    assert_eq!(lab.names("study.partial/outcomes"), [""; 0]);
    lab.run(&["ce", "--resume", "study", "--quiet"]).succeeds();
    lab.run(&[&study[..], &["other"]].concat()).succeeds();
    lab.assert_same("other", "study");
}

#[test]
fn on_a_full_disk_a_run_fails_with_words_and_leaves_no_half_file() {
    let lab = Lab::new();
    // a private file system of 64 KB, gone with the process; without the right to mount there is nothing to test
    let script = "mkdir full && mount -t tmpfs -o size=64k none full || exit 77; \"$0\" \"$@\"; code=$?; \
                  find full -name '.*.partial' >&2; exit $code";
    let unshared = format!("exec unshare --mount sh -c '{}' \"$0\" \"$@\"", script.replace('\'', "'\\''"));
    let ran = lab.shell(&unshared, &train(&["--out", "full/run"]));
    if !matches!(ran.code, Some(0 | 1)) && ran.err.contains("mount") || ran.err.contains("unshare:") {
        println!("SKIPPED 1: no right to mount a small file system here: {}", ran.err.trim());
        return;
    }
    let ran = ran.fails(1, &["full/run.partial/checkpoint.safetensors", "No space left", "--resume full/run"]);
    assert!(!ran.err.contains("full/run.partial/."), "{}", ran.err);
}

#[test]
fn results_that_nobody_can_take_are_exit_1_and_a_closed_pipe_is_no_failure() {
    let lab = Lab::new();
    for verb in [&["devices"][..], &["inspect"], &["--help"]] {
        lab.shell("exec \"$0\" \"$@\" > /dev/full", verb).fails(1, &["cannot write to stdout", "No space left"]);
        // the reader is gone before anything is written
        let ran = lab.shell("{ sleep 0.2; \"$0\" \"$@\"; echo $? > code; } | true", verb);
        assert_eq!((lab.read("code").trim(), ran.err.as_str()), ("0", ""), "{verb:?}");
    }
    // nobody reads the log either; the run goes on
    lab.shell("{ \"$0\" \"$@\"; echo $? > code; } 2>&1 | true", &train(&["--out", "run"])).succeeds();
    assert_eq!(lab.read("code").trim(), "0");
    assert!(lab.path("run/fashion.safetensors").exists());
}

#[test]
fn results_go_to_stdout_the_log_to_stderr_and_quiet_leaves_errors() {
    let lab = Lab::new();
    let ran = lab.run(&train(&["--out", "a"])).succeeds();
    assert!(ran.out.starts_with("test accuracy") && ran.out.contains("a/fashion.safetensors"), "{}", ran.out);
    assert!(ran.err.contains("device cpu") && ran.err.contains("seed 0") && ran.err.contains("epoch 2"), "{}", ran.err);
    assert!(!ran.err.contains('\u{1b}') && !ran.out.contains('\u{1b}'), "colour without a terminal");
    let quiet = lab.run(&train(&["--out", "b", "--quiet"])).succeeds();
    assert_eq!((quiet.err.as_str(), quiet.out), ("", ran.out.replace("a/fashion", "b/fashion")));
    lab.run(&train(&["--out", "b", "--quiet"])).fails(2, &["b exists"]);
}

#[test]
fn a_training_that_cannot_be_is_refused_and_one_that_diverges_says_what_to_try() {
    let lab = Lab::new();
    // of 120 images a twelfth validates
    let few = ["110 training images", "one batch of 111", "--batch"];
    lab.run(&train(&["--out", "run", "--batch", "111"])).fails(2, &few);
    let ae = ["train-ae", "--data", "d", "--any-data", "--out", "run", "--limit", "7", "--batch", "8"];
    lab.run(&ae).fails(2, &["7 training images", "batch of 8"]);
    lab.run(&train(&["--out", "run", "--limit", "0"])).fails(2, &["--limit", "at least 1"]);
    lab.run(&train(&["--out", "run", "--epochs", "18446744073709551615"])).fails(2, &["--epochs", "1000000"]);
    lab.run(&train(&["--out", "run", "--learning-rate", "nan"])).fails(2, &["--learning-rate NaN"]);
    assert_eq!(lab.names("."), ["d"]);
    let ran = lab.run(&train(&["--out", "run", "--learning-rate", "1e9"]));
    ran.fails(1, &["epoch 1", "the loss \"loss\" is", "lower learning rate", "run.partial"]);
    assert!(!lab.path("run").exists());
}

#[test]
fn a_dozen_images_are_enough_to_train_on() {
    let lab = Lab::with(6, 3);
    lab.run(&["train", "--data", "d", "--any-data", "--batch", "5", "--epochs", "1", "--out", "run"]).succeeds();
    let ae = ["train-ae", "--data", "d", "--any-data", "--batch", "5", "--epochs", "1", "--out", "ae"];
    lab.run(&ae).succeeds();
}

#[test]
fn the_same_study_of_the_same_data_elsewhere_gives_the_same_tables() {
    let lab = Lab::new();
    lab.ce("2", "here", &["--nodes", "3"]).succeeds();
    std::fs::rename(lab.path("d"), lab.path("moved")).unwrap();
    let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/fashion.safetensors");
    lab.ce("2", "there", &["--nodes", "3", "--data", "moved", "--weights", weights]).succeeds();
    for file in ["effects.parquet", "summary.csv"] {
        let bytes = |run: &str| std::fs::read(lab.path(&format!("{run}/{file}"))).unwrap();
        assert!(bytes("here") == bytes("there"), "{file}");
    }
}

#[test]
fn effects_are_the_same_cells_in_parquet_and_csv_and_of_the_same_run() {
    let lab = Lab::new();
    lab.ce("40", "both", &["--effects", "both"]).succeeds();
    lab.ce("40", "text", &["--effects", "csv"]).succeeds();
    let text = lab.read("both/effects.csv");
    assert_eq!(lab.effects("both"), Table::of(&text));
    assert_eq!(lab.effects("both").rows.len(), 40 * 4 * 16);
    assert!(text == lab.read("text/effects.csv") && !lab.path("text/effects.parquet").exists());
    assert_eq!(lab.read("both/summary.csv"), lab.read("text/summary.csv"));
    let page = lab.read("text/report.html");
    assert!(page.contains("effects.csv") && !page.contains("effects.parquet"));
    lab.ce("2", "none", &["--effects", "xlsx"]).fails(2, &["xlsx", "parquet", "csv", "both"]);
}

#[test]
fn a_gate_that_stays_shut_behind_a_training_leaves_its_weights_to_be_used() {
    let lab = Lab::with(110, 10);
    let base = ["reproduce", "fashion", "--retrain", "--limit", "2", "--out", "run"];
    let data = ["--data", "d", "--any-data", "--min-agreement", "1"];
    let ran = lab.run(&[&base[..], &data].concat());
    ran.fails(4, &["below the 100 %", "stay in run.partial/classifier and run.partial/autoencoder"]);
    assert_eq!(lab.names("run.partial"), ["autoencoder", "classifier", "manifest.json"]);
    let host = ["--weights", "run.partial/classifier/fashion.safetensors", "--nodes", "3"];
    let ae = ["--ae", "run.partial/autoencoder/autoencoder.safetensors"];
    lab.ce("2", "study", &[&host[..], &ae].concat()).succeeds();
}
