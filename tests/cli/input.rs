//! Bad input, kind by kind: exit 3 (or 2 for names) with file, place and remedy, before anything is written.

use crate::support::{Lab, images, labels};
use flate2::{Compression, write::GzEncoder};
use intervene::model::Model;
use intervene::model::autoencoder::{Autoencoder, HIDDEN, NODES};
use intervene::tensor::Tensor;
use intervene::weights::Weights;
use std::io::Write;
use std::path::Path;

const TRAIN_IMAGES: &str = "d/train-images-idx3-ubyte";
const TEST_IMAGES: &str = "d/t10k-images-idx3-ubyte";
const TEST_LABELS: &str = "d/t10k-labels-idx1-ubyte";

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Puts `bytes` in place of a data file; every verb that reads data says what is wrong and leaves nothing behind.
#[track_caller]
fn refused(file: &str, bytes: &[u8], words: &[&str]) {
    let lab = Lab::new();
    std::fs::remove_file(lab.path(file.trim_end_matches(".gz"))).unwrap();
    lab.write(file, bytes);
    let words = [&[file.strip_prefix("d/").unwrap()], words].concat();
    for verb in [&["train"][..], &["train-ae"], &["ce"], &["reproduce", "fashion"]] {
        lab.run(&[verb, &["--data", "d", "--any-data", "--out", "run"]].concat()).fails(3, &words);
    }
    assert_eq!(lab.names("."), ["d"]);
}

#[test]
fn an_idx_file_that_is_cut_short_names_the_bytes_that_lack() {
    refused(TEST_IMAGES, &images(40, 28)[..1000], &["40x28x28", "31360 bytes", "cut short", "fetch it again"]);
}

#[test]
fn an_idx_file_with_another_magic_says_what_it_seems_to_be() {
    refused(TEST_IMAGES, &labels(40), &["0x00000801", "0x00000803", "swapped"]);
}

#[test]
fn an_idx_file_with_more_than_its_header_says_is_refused() {
    let mut bytes = images(40, 28);
    bytes[4..8].copy_from_slice(&39u32.to_be_bytes());
    refused(TRAIN_IMAGES, &bytes, &["39x28x28", "more follow"]);
}

#[test]
fn a_damaged_gzip_stream_is_named_with_the_place_of_the_damage() {
    let whole = gz(&images(120, 28));
    let cut = &whole[..whole.len() / 2];
    refused("d/train-images-idx3-ubyte.gz", cut, &["gzip stream is damaged after", "fetch it again"]);
    let mut flipped = whole.clone();
    let checksum = flipped.len() - 8;
    flipped[checksum] ^= 1;
    refused("d/train-images-idx3-ubyte.gz", &flipped, &["gzip stream is damaged"]);
}

#[test]
fn images_and_labels_of_different_number_name_both_files() {
    refused(TEST_LABELS, &labels(39), &["t10k-images-idx3-ubyte", "40 images", "39 labels", "one source"]);
}

#[test]
fn a_label_without_a_class_is_named_with_its_position() {
    let mut bytes = labels(40);
    bytes[8 + 7] = 10;
    refused(TEST_LABELS, &bytes, &["label 10 at position 7", "10 classes"]);
}

#[test]
fn images_of_another_size_than_the_network_takes_are_refused() {
    refused(TEST_IMAGES, &images(40, 20), &["1x20x20", "1x28x28", "fashion"]);
}

#[test]
fn data_that_are_not_the_published_ones_are_refused_by_md5() {
    let lab = Lab::new();
    let words = ["train-images-idx3-ubyte", "MD5", "f4a8712d7a061bf5bd6d2ca38dc4d50a"];
    for verb in [&["train"][..], &["train-ae"], &["ce"], &["reproduce", "fashion"], &["fetch", "fashion-mnist"]] {
        lab.run(&[verb, &["--data", "d"]].concat()).fails(3, &words);
    }
    assert_eq!(lab.names("."), ["d"]);
}

#[test]
fn a_directory_that_lacks_a_file_names_it() {
    let lab = Lab::new();
    std::fs::remove_file(lab.path(TEST_LABELS)).unwrap();
    lab.run(&["ce", "--data", "d", "--any-data"]).fails(3, &["d: no t10k-labels-idx1-ubyte", ".gz", "--data"]);
    lab.run(&["ce", "--data", "nowhere"]).fails(3, &["nowhere", "train-images-idx3-ubyte"]);
}

fn bundled(name: &str) -> Weights {
    Weights::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("weights").join(name)).unwrap()
}

/// Weights like `like`, with `change` to its list of tensors.
fn changed(like: &Weights, change: impl Fn(&mut Vec<(String, Tensor)>)) -> Weights {
    let tensor = |t: intervene::weights::TensorView<'_>| Tensor::new(t.shape.clone(), t.data.to_vec()).unwrap();
    let mut list: Vec<(String, Tensor)> = like.iter().map(|(n, t)| (n.to_string(), tensor(t))).collect();
    change(&mut list);
    let mut weights = Weights::new("changed");
    weights.metadata = like.metadata.clone();
    list.into_iter().for_each(|(n, t)| weights.insert(n, t));
    weights
}

/// Both consumers of a weights file refuse `bad` with these words.
#[track_caller]
fn weights_refused(bad: impl Fn(&Weights, &Path), words: &[&str]) {
    for (name, flag, verbs) in
        [("fashion.safetensors", "--weights", &["ce", "train-ae"][..]), ("fashion-ae.safetensors", "--ae", &["ce"])]
    {
        let lab = Lab::new();
        bad(&bundled(name), &lab.path("bad.safetensors"));
        for verb in verbs {
            let ran = lab.run(&[verb, "--data", "d", "--any-data", "--out", "run", flag, "bad.safetensors"]);
            ran.fails(3, &[&["bad.safetensors"], words].concat());
        }
        assert_eq!(lab.names("."), ["bad.safetensors", "d"]);
    }
}

#[test]
fn a_weights_file_that_is_cut_short_is_refused() {
    let cut = |weights: &Weights, path: &Path| {
        weights.save(path).unwrap();
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    weights_refused(cut, &["cut short"]);
}

#[test]
fn a_weights_file_of_something_else_is_refused() {
    weights_refused(|_, path| std::fs::write(path, b"<!DOCTYPE html><html></html>").unwrap(), &["error: bad"]);
    weights_refused(|_, path| std::fs::write(path, b"").unwrap(), &["error: bad"]);
    let lab = Lab::new();
    lab.run(&["ce", "--weights", "none.safetensors"]).fails(3, &["none.safetensors", "No such file"]);
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let misshapen = |weights: &Weights, path: &Path| {
        let wrong = |list: &mut Vec<(String, Tensor)>| {
            let bias = list.iter_mut().find(|(name, _)| name.ends_with("1.bias") || name.ends_with("0.bias")).unwrap();
            bias.1 = Tensor::zeros([3]);
        };
        changed(weights, wrong).save(path).unwrap();
    };
    weights_refused(misshapen, &["bias", "shape 3,", "is needed"]);
}

#[test]
fn a_parameter_that_is_not_a_number_is_named_with_its_position() {
    let nan = |weights: &Weights, path: &Path| {
        changed(weights, |list| list[1].1.data_mut()[5] = f32::NAN).save(path).unwrap();
    };
    weights_refused(nan, &["NaN at element 5", "earlier checkpoint"]);
}

#[test]
fn a_missing_and_an_extra_key_are_each_named_with_the_nearest() {
    let misspelt = |weights: &Weights, path: &Path| {
        changed(weights, |list| list[0].0 = list[0].0.replace(".bias", ".bais")).save(path).unwrap();
    };
    weights_refused(misspelt, &["no tensor", ".bias; the nearest name is", ".bais belongs to no layer"]);
    let less = |weights: &Weights, path: &Path| changed(weights, |list| drop(list.remove(0))).save(path).unwrap();
    weights_refused(less, &["no tensor", ".bias"]);
    let more = |weights: &Weights, path: &Path| {
        let extra = |list: &mut Vec<(String, Tensor)>| {
            let name = list[0].0.replace(".bias", ".biass");
            list.push((name, Tensor::zeros([1])));
        };
        changed(weights, extra).save(path).unwrap();
    };
    weights_refused(more, &[".biass belongs to no layer; the nearest name is", ".bias"]);
}

#[test]
fn an_autoencoder_of_another_host_is_refused_with_both_hashes() {
    let lab = Lab::new();
    let host = bundled("fashion.safetensors");
    changed(&host, |list| list[0].1.data_mut()[0] += 1.0).save(&lab.path("host.safetensors")).unwrap();
    let ran = lab.run(&["ce", "--data", "d", "--any-data", "--weights", "host.safetensors"]);
    ran.fails(3, &["fashion-ae.safetensors", &host.hash(), "an autoencoder of this one with --ae"]);
}

#[test]
fn a_tap_node_or_model_that_does_not_exist_gets_the_nearest_name() {
    let lab = Lab::new();
    let base = ["ce", "--data", "d", "--any-data", "--out", "run"];
    let ce = |more: &[&str]| lab.run(&[&base[..], more].concat());
    ce(&["--tap", "feature.1"]).fails(2, &["\"feature.1\"", "\"features.1\""]);
    ce(&["--tap", "99"]).fails(2, &["no tap \"99\"", "1 to 6"]);
    ce(&["--nodes", "16"]).fails(2, &["16", "15"]);
    ce(&["--nodes", "3,al"]).fails(2, &["al", "all"]);
    ce(&["--set", "3,99"]).fails(2, &["99", "15"]);
    ce(&["--model", "fashoin"]).fails(2, &["fashoin", "\"fashion\""]);
    lab.run(&["inspect", "--tap", "features.77"]).fails(2, &["features.77", "features."]);
    lab.run(&["fetch", "fashion-mnst"]).fails(2, &["fashion-mnist"]);
    lab.run(&["reproduce", "fasion"]).fails(2, &["did you mean fashion"]);
    assert_eq!(lab.names("."), ["d"]);
}

#[test]
fn a_shut_gate_is_exit_4_and_an_override_is_recorded() {
    let lab = Lab::new();
    let tap = Model::named("fashion").unwrap().tap("2").unwrap();
    let mut untrained = Weights::new("untrained");
    let initial = Autoencoder::at(&tap, HIDDEN, NODES).initial_weights(5);
    initial.into_iter().for_each(|(name, tensor)| untrained.insert(name, tensor));
    untrained.metadata.insert("host_sha256".into(), bundled("fashion.safetensors").hash());
    untrained.save(&lab.path("untrained.safetensors")).unwrap();
    let ae = ["--ae", "untrained.safetensors"];
    let ran = lab.ce("8", "run", &[&ae[..], &["--nodes", "3", "--min-agreement", "0.95"]].concat());
    ran.fails(4, &["% of clean images, below the 95 %", "--min-agreement"]);
    assert_eq!(lab.names("."), ["d", "untrained.safetensors"]);
    lab.ce("8", "run", &[&ae[..], &["--nodes", "3"]].concat()).succeeds();
    let manifest: serde_json::Value = serde_json::from_str(&lab.read("run/manifest.json")).unwrap();
    assert!(manifest["warnings"].to_string().contains("the gate was lowered to 0"), "{manifest}");
    assert!(manifest["results"]["gate_agreement"].as_f64().unwrap() < 0.95);
    assert_eq!(manifest["configuration"]["min_agreement"], 0.0);
}
