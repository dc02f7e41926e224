//! Ctrl-C and kill -9: what is done is kept, and the resumed run gives the bytes of one that was never stopped, also with
//! other threads and batches.

use crate::support::{Lab, SMALL};

const TRAIN: [&str; 9] = ["train", "--data", "d", "--any-data", "--batch", "40", "--quiet", "--seed", "3"];
const TRAIN_AE: [&str; 9] = ["train-ae", "--data", "d", "--any-data", "--batch", "20", "--quiet", "--seed", "3"];

fn with<'a>(base: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [base, more].concat()
}

/// Stops `arguments` twice (Ctrl-C, then kill -9) once `sign` has appeared, resumes, and compares with a run that was
/// never stopped. `first` and `second` are the signs.
#[track_caller]
fn stops_and_resumes(lab: &Lab, base: &[&str], [first, second]: [&str; 2], more: [&[&str]; 2]) {
    let verb = base[0];
    lab.run(&with(base, &with(&["--out", "whole", "--threads", "2"], more[0]))).succeeds();

    let ran = lab.signalled(&with(base, &with(&["--out", "stopped", "--threads", "1"], more[1])), first, "-INT");
    ran.fails(130, &["interrupted", "--resume stopped"]);
    assert!(!lab.path("stopped").exists());
    let left = lab.names("stopped.partial");
    assert!(left.iter().all(|name| !name.starts_with('.')), "half-written: {left:?}");

    if !second.is_empty() {
        let resume = with(&[verb, "--resume", "stopped", "--quiet", "--threads", "2"], more[0]);
        let ran = lab.signalled(&resume, second, "-KILL");
        assert_eq!(ran.code, None, "{ran:?}");
    }
    // what a kill in the middle of a write leaves
    lab.write("stopped.partial/.manifest.jsonAb12Cd.partial", b"{");

    lab.run(&with(&[verb, "--resume", "stopped", "--quiet", "--threads", "1"], more[1])).succeeds();
    assert!(!lab.path("stopped.partial").exists());
    lab.assert_same("whole", "stopped");
}

#[test]
fn a_stopped_classifier_goes_on_to_the_same_bytes() {
    let lab = Lab::new();
    let checkpoint = "stopped.partial/checkpoint.safetensors";
    stops_and_resumes(&lab, &with(&TRAIN, &[]), [checkpoint, ""], [&[], &[]]);
}

#[test]
fn a_stopped_autoencoder_goes_on_to_the_same_bytes() {
    let lab = Lab::with(60, 20);
    let checkpoint = "stopped.partial/checkpoint.safetensors";
    stops_and_resumes(&lab, &with(&TRAIN_AE, &["--epochs", "3"]), [checkpoint, ""], [&[], &[]]);
}

#[test]
fn a_stopped_study_goes_on_to_the_same_bytes() {
    let lab = Lab::with(20, 530);
    let base = with(&["ce", "--nodes", "3,15", "--no-control"], &SMALL);
    // of 530 images the shards 0 to 2 are made
    let signs =
        ["stopped.partial/outcomes/shard-00000.safetensors", "stopped.partial/outcomes/shard-00001.safetensors"];
    stops_and_resumes(&lab, &base, signs, [&["--batch", "7"], &["--batch", "auto"]]);
}

#[test]
fn a_killed_training_goes_on_from_its_last_epoch() {
    let lab = Lab::new();
    lab.run(&with(&TRAIN, &["--out", "whole"])).succeeds();
    let arguments = with(&TRAIN, &["--out", "killed"]);
    let ran = lab.signalled(&arguments, "killed.partial/checkpoint.safetensors", "-KILL");
    assert_eq!(ran.code, None, "{ran:?}");
    lab.run(&["train", "--resume", "killed.partial/", "--quiet"]).succeeds();
    lab.assert_same("whole", "killed");
}

#[test]
fn a_reproduction_that_trains_stops_in_either_training_and_goes_on_to_the_same_bytes() {
    let lab = Lab::with(110, 10);
    let base = with(&["reproduce", "fashion", "--retrain", "--limit", "2"], &SMALL);
    lab.run(&with(&base, &["--out", "whole"])).succeeds();
    let sign = "stopped.partial/classifier.partial/checkpoint.safetensors";
    let ran = lab.signalled(&with(&base, &["--out", "stopped"]), sign, "-INT");
    ran.fails(130, &["go on with `--resume stopped`"]);
    let resume = ["reproduce", "fashion", "--resume", "stopped", "--quiet", "--threads", "1"];
    let sign = "stopped.partial/autoencoder.partial/checkpoint.safetensors";
    lab.signalled(&resume, sign, "-TERM").fails(130, &["go on with `--resume stopped`"]);
    lab.run(&resume).succeeds();
    assert!(!lab.path("stopped.partial").exists());
    lab.assert_same("whole", "stopped");
}

#[test]
fn a_damaged_checkpoint_names_the_file_and_the_remedy_which_works() {
    let lab = Lab::new();
    let checkpoint = "run.partial/checkpoint.safetensors";
    lab.signalled(&with(&TRAIN, &["--out", "run"]), checkpoint, "-INT").fails(130, &[]);
    let whole = std::fs::read(lab.path(checkpoint)).unwrap();
    let resume = ["train", "--resume", "run", "--quiet"];
    let text = String::from_utf8_lossy(&whole).into_owned();
    let sums = text.find("\\\"sums\\\":[").unwrap() + 10;
    // cut short; another kind of file; one loss more than there is
    let mut another = whole.clone();
    another[sums..sums + 3].copy_from_slice(b"0,0");
    for bad in [&whole[..whole.len() / 3], b"not a checkpoint", &another] {
        lab.write(checkpoint, bad);
        lab.run(&resume).fails(3, &["run.partial/checkpoint.safetensors", "remove this file and resume"]);
    }
    std::fs::remove_file(lab.path(checkpoint)).unwrap();
    lab.run(&resume).succeeds();
    lab.run(&with(&TRAIN, &["--out", "whole"])).succeeds();
    lab.assert_same("whole", "run");
}

#[test]
fn a_damaged_shard_names_the_file_and_the_remedy_which_works() {
    let lab = Lab::with(20, 4);
    let base = with(&["ce", "--nodes", "3", "--attack", "none"], &SMALL);
    let shard = "run.partial/outcomes/shard-00000.safetensors";
    // a run that was killed when all its shards were there
    lab.run(&with(&base, &["--out", "run"])).succeeds();
    std::fs::rename(lab.path("run"), lab.path("run.partial")).unwrap();
    let whole = std::fs::read(lab.path(shard)).unwrap();
    let resume = ["ce", "--resume", "run", "--quiet"];
    let mut first = whole.clone();
    let at = String::from_utf8_lossy(&whole).find("\"first\":\"0\"").unwrap() + 9;
    first[at] = b'4';
    for bad in [&whole[..whole.len() / 2], b"", &first] {
        lab.write(shard, bad);
        lab.run(&resume).fails(3, &[shard, "remove this file and resume, its images are run again"]);
    }
    // a shard of other interventions is no shard of this run
    lab.run(&with(&["ce", "--nodes", "4", "--attack", "none", "--out", "other"], &SMALL)).succeeds();
    std::fs::copy(lab.path("other/outcomes/shard-00000.safetensors"), lab.path(shard)).unwrap();
    lab.run(&resume).fails(3, &[shard, "another run"]);
    std::fs::remove_file(lab.path(shard)).unwrap();
    lab.run(&resume).succeeds();
    lab.run(&with(&base, &["--out", "whole"])).succeeds();
    lab.assert_same("whole", "run");
}

#[test]
fn only_an_unfinished_run_of_the_same_verb_on_the_same_data_can_be_resumed() {
    let lab = Lab::new();
    lab.ce("2", "done", &["--nodes", "3"]).succeeds();
    lab.run(&["ce", "--resume", "done"]).fails(3, &["done: this run is finished; nothing to resume"]);
    lab.run(&["ce", "--resume", "nowhere"]).fails(3, &["nowhere: there is no unfinished run here"]);
    lab.run(&["ce", "--resume", "a", "--out", "b"]).fails(2, &["--resume", "--out"]);
    lab.signalled(&with(&TRAIN, &["--out", "run"]), "run.partial/checkpoint.safetensors", "-INT").fails(130, &[]);
    lab.run(&["ce", "--resume", "run"]).fails(3, &["is a run of `train`, not of `ce`", "intervene train --resume"]);
    let taken = with(&TRAIN, &["--out", "run"]);
    lab.run(&taken).fails(2, &["run.partial exists: an unfinished run", "--resume run"]);
    // other data under the same name
    let images = std::fs::read(lab.path("d/train-images-idx3-ubyte")).unwrap();
    let mut other = images.clone();
    other[5000] ^= 1;
    lab.write("d/train-images-idx3-ubyte", &other);
    let resume = ["train", "--resume", "run", "--quiet"];
    lab.run(&resume).fails(3, &["run.partial/manifest.json", "data or device are not those", "hash of data is"]);
    lab.write("d/train-images-idx3-ubyte", &images);
    let manifest = lab.read("run.partial/manifest.json");
    for bad in ["", "{}", &manifest[..manifest.len() / 2]] {
        lab.write("run.partial/manifest.json", bad.as_bytes());
        lab.run(&resume).fails(3, &["run.partial/manifest.json", "remove run.partial and start anew"]);
    }
    lab.write("run.partial/manifest.json", manifest.replace("\"settings\"", "\"sittings\"").as_bytes());
    lab.run(&resume).fails(3, &["run.partial/manifest.json", "settings"]);
    std::fs::remove_file(lab.path("run.partial/manifest.json")).unwrap();
    lab.run(&resume).fails(3, &["run.partial/manifest.json", "remove run.partial and start anew"]);
}
