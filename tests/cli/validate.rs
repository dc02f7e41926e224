//! `validate`: the committed reference folders, which PyTorch made, replayed; folders that differ (exit 4) and folders that
//! cannot be replayed (exit 3), each with what is wrong and where.

use crate::support::{Lab, Ran};
use intervene::tensor::Shape;
use intervene::weights::safetensors::{Elements, TensorFile, write};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn committed(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference").join(name)
}

/// A copy of a committed folder, to be damaged.
struct Folder {
    lab: Lab,
    json: serde_json::Value,
    tensors: BTreeMap<String, (Shape, Elements<'static>)>,
}

impl Folder {
    fn of(name: &str) -> Folder {
        let path = committed(name);
        let json = std::fs::read_to_string(path.join("reference.json")).unwrap();
        let file = TensorFile::open(&path.join("reference.safetensors")).unwrap();
        let owned = |name: &str| match file.elements(name).unwrap().unwrap() {
            Elements::F32(v) => Elements::from(v.into_owned()),
            Elements::I64(v) => Elements::from(v.into_owned()),
            other => panic!("{name}: {other:?}"),
        };
        let tensors = file.names().map(|n| (n.to_string(), (file.shape(n).unwrap().clone(), owned(n)))).collect();
        Folder { lab: Lab::with(1, 1), json: serde_json::from_str(&json).unwrap(), tensors }
    }

    /// The small one with every expectation.
    fn new() -> Folder {
        Folder::of("fashion")
    }

    fn floats(&mut self, name: &str) -> &mut Vec<f32> {
        match &mut self.tensors.get_mut(name).unwrap_or_else(|| panic!("{name}")).1 {
            Elements::F32(v) => v.to_mut(),
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Keeps the tensors whose names satisfy `keep`.
    fn keep(mut self, keep: impl Fn(&str) -> bool) -> Folder {
        self.tensors.retain(|name, _| keep(name));
        self
    }

    fn set(mut self, key: &str, value: serde_json::Value) -> Folder {
        self.json[key] = value;
        self
    }

    fn unset(mut self, key: &str) -> Folder {
        self.json.as_object_mut().unwrap().shift_remove(key).unwrap();
        self
    }

    fn with(mut self, change: impl Fn(&mut Folder)) -> Folder {
        change(&mut self);
        self
    }

    fn run(&self, more: &[&str]) -> Ran {
        std::fs::create_dir_all(self.lab.path("r")).unwrap();
        self.lab.write("r/reference.json", self.json.to_string().as_bytes());
        let tensors: Vec<_> = self.tensors.iter().map(|(n, (s, e))| (n.as_str(), s, e.clone())).collect();
        write(&self.lab.path("r/reference.safetensors"), &tensors, &BTreeMap::new()).unwrap();
        self.lab.run(&[&["validate", "--reference", "r", "--device", "cpu", "--quiet"], more].concat())
    }
}

/// Ended with exit 4, after a table.
#[track_caller]
fn differs(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, Some(4), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("error: "), "{}", ran.err);
    for word in words {
        assert!(ran.out.contains(word) || ran.err.contains(word), "no \"{word}\" in {}{}", ran.out, ran.err);
    }
}

#[track_caller]
fn replays(name: &str, device: &str, count: usize) {
    let folder = committed(name);
    let ran =
        Lab::with(1, 1).run(&["validate", "--reference", folder.to_str().unwrap(), "--device", device, "--quiet"]);
    let ran = ran.succeeds();
    assert_eq!(ran.out.lines().last(), Some(format!("checked {count} of {count}").as_str()), "{}", ran.out);
    assert!(!ran.out.contains("FAIL"));
}

#[test]
fn pytorchs_fashion_folders_are_replayed_on_the_cpu_and_by_the_reference() {
    for device in ["cpu", "reference"] {
        replays("fashion", device, 34);
        replays("fashion-sigmoid", device, 32);
    }
}

/// One after the other: 138 million weights are drawn for each VGG.
#[test]
fn pytorchs_vgg_and_densenet_folders_are_replayed_on_the_cpu() {
    replays("densenet121", "cpu", 25);
    replays("densenet121-softmax", "cpu", 28);
    replays("vgg16", "cpu", 25);
    replays("vgg19", "cpu", 25);
}

#[test]
fn convolutions_are_exact_unless_tiles_are_asked_for_and_then_tolerances_are_wider() {
    let json = |more: &[&str]| Folder::new().run(&[&["--json"], more].concat()).succeeds().json();
    let conv =
        [&[][..], &["--conv", "auto"], &["--conv", "exact"], &["--conv", "winograd"]].map(|c| json(c)["conv"].clone());
    assert_eq!(conv, ["exact", "exact", "exact", "winograd"]);
    let ran = Folder::new().run(&["--conv", "winograd"]).succeeds();
    assert!(ran.out.contains("winograd), tolerances 10 times as wide"), "{}", ran.out);
}

#[test]
fn one_changed_number_is_exit_4_and_names_its_tensor_first() {
    let ran = Folder::new().with(|f| f.floats("expect.code")[3] += 0.01).run(&[]);
    differs(&ran, &["FAIL", "the two runs part at code (up to tap they agree)", "1 of 34 tensors", "checked 34 of 34"]);
    let ran = Folder::new().with(|f| f.floats("weights.features.3.bias")[0] += 0.1).run(&[]);
    differs(&ran, &["the two runs part at logits (up to decoded they agree)"]);
    let ran = Folder::new().with(|f| f.floats("ae.dec2.weight").iter_mut().for_each(|w| *w *= 1.01)).run(&[]);
    differs(&ran, &["the two runs part at decoded (up to code they agree)"]);
}

#[test]
fn an_attack_is_judged_step_by_step_and_by_its_final_loss() {
    let ran = Folder::new().with(|f| f.floats("expect.attack_path.bim")[300] += 0.02).run(&[]);
    differs(&ran, &["the two runs part at attack_path.bim"]);
    let ran = Folder::new().with(|f| f.floats("expect.attack_loss.pgd")[1] *= 1.03).run(&[]);
    differs(&ran, &["the two runs part at attack_loss.pgd"]);
    // a start outside of the ball
    let ran =
        Folder::new().with(|f| f.floats("expect.attack_path.pgd")[..280].iter_mut().for_each(|v| *v = 0.0)).run(&[]);
    differs(&ran, &["attack_path.pgd", "of the start is not where it may be"]);
}

#[test]
fn an_attack_whose_start_nobody_knows_is_not_checked() {
    let ran =
        Folder::new().keep(|n| n != "expect.attack_path.pgd" && n != "expect.attack_loss.pgd").run(&[]).succeeds();
    assert_eq!(ran.out.lines().last(), Some("checked 31 of 32"), "{}", ran.out);
    assert!(ran.out.contains("not checked") && ran.out.contains("the start was random"), "{}", ran.out);
    let nothing = |n: &str| !n.starts_with("expect.") || n == "expect.attack.pgd";
    Folder::new().keep(nothing).run(&[]).fails(3, &["nothing could be checked", "attack.pgd"]);
}

#[test]
fn any_subset_of_expectations_and_of_what_they_do_not_need_may_be_missing() {
    let subset = |n: &str| n.starts_with("weights.") || ["input", "expect.logits", "expect.p_orig"].contains(&n);
    let ran = Folder::new().keep(subset).unset("tap").unset("attacks").unset("losses").run(&[]).succeeds();
    assert_eq!(ran.out.lines().last(), Some("checked 2 of 2"), "{}", ran.out);
}

#[test]
fn an_expectation_that_is_not_known_is_exit_3_with_the_nearest_name() {
    let named = |from: &str, to: &str| {
        Folder::new().with(|f| {
            let tensor = f.tensors.remove(from).unwrap();
            f.tensors.insert(to.into(), tensor);
        })
    };
    let ran = named("expect.p_idle", "expect.p_idel").run(&[]);
    ran.fails(3, &["reference.safetensors", "expect.p_idel", "the nearest is expect.p_idle"]);
    named("expect.grad_cam", "expect.cam")
        .run(&[])
        .fails(3, &["expect.cam needs one linear layer", "fashion has more"]);
    // a parameter's key may be whole
    named("expect.ae_gradient.enc1.bias", "expect.ae_gradient.ae.enc1.bias").run(&[]).succeeds();
}

#[test]
fn a_folder_that_cannot_be_replayed_is_exit_3_with_file_tensor_and_remedy() {
    let lab = Lab::with(1, 1);
    lab.run(&["validate", "--reference", "nowhere"]).fails(3, &["nowhere/reference.json", "cannot be read"]);
    lab.run(&["validate"]).fails(2, &["--reference"]);

    let f = Folder::new;
    f().keep(|n| !n.starts_with("expect.")).run(&[]).fails(3, &["no expect.* tensor", "nothing to check"]);
    f().with(|f| f.floats("expect.logits")[2] = f32::NAN).run(&[]).fails(3, &["expect.logits is NaN at element 2"]);
    f().with(|f| f.floats("input")[5] = 1.5).run(&[]).fails(3, &["input is 1.5 at element 5", "0 to 1"]);
    f().with(|f| f.floats("ae.code.bias")[0] = f32::INFINITY).run(&[]).fails(3, &["ae.code.bias", "inf"]);
    f().keep(|n| n != "input").run(&[]).fails(3, &["no tensor input"]);
    f().keep(|n| n != "label").run(&[]).fails(3, &["no tensor label"]);
    f().keep(|n| !n.starts_with("ae.")).run(&[]).fails(3, &["needs an autoencoder", "ae_seed"]);
    f().keep(|n| n != "ae.enc2.bias").run(&[]).fails(3, &["no tensor ae.enc2.bias"]);
    f().keep(|n| n != "weights.features.3.bias").run(&[]).fails(3, &["no tensor features.3.bias"]);
    f().keep(|n| !n.starts_with("weights.")).run(&[]).fails(3, &["no weights.* tensor", "weights_seed"]);
    let label = |label: i64| f().with(|f| f.tensors.get_mut("label").unwrap().1 = Elements::from(vec![0, label]));
    label(5).run(&[]).fails(3, &["label 5 at position 1", "5 classes"]);
    label(-1).run(&[]).fails(3, &["label -1 at position 1"]);
    let shape = |name: &str, shape: &[usize]| f().with(|f| f.tensors.get_mut(name).unwrap().0 = Shape::from(shape));
    shape("expect.code", &[2, 4, 12, 8]).run(&[]).fails(3, &["expect.code is 2x4x12x8, but 2x4x8x12"]);
    shape("input", &[2, 10, 14, 1]).run(&[]).fails(3, &["input has 10 channels, but fashion takes 1"]);

    f().set("arch", "fashoin".into()).run(&[]).fails(3, &["no model \"fashoin\"", "\"fashion\""]);
    f().set("head", "softmx".into()).run(&[]).fails(3, &["head \"softmx\"", "softmax"]);
    f().set("format", 2.into()).run(&[]).fails(3, &["format 2", "1 is read"]);
    f().set("tap", 9.into()).run(&[]).fails(3, &["no tap \"9\""]);
    f().set("classes", 6.into()).run(&[]).fails(3, &["classifier.2.weight", "6x256"]);
    f().set("hidden", 9.into()).run(&[]).fails(3, &["ae.enc1.weight"]);
    f().set("std", serde_json::json!([0.0])).run(&[]).fails(3, &["std [0.0]"]);
    f().unset("tap").run(&[]).fails(3, &["\"tap\"", "expect."]);
    f().unset("losses").run(&[]).fails(3, &["\"losses\"", "expect.loss.total"]);
    f().unset("attacks").run(&[]).fails(3, &["\"attacks\".\"fgsm\"", "attack_path.fgsm"]);
    f().unset("classes").run(&[]).fails(3, &["reference.json", "classes"]);
    f().set("attacks", serde_json::json!({ "bim": { "eps": 0.1, "steps": 2 } }))
        .run(&[])
        .fails(3, &["bim", "\"step\""]);
    f().set("attacks", serde_json::json!({ "bmi": { "eps": 0.1 } })).run(&[]).fails(3, &["\"bmi\"", "nearest: bim"]);
}

#[test]
fn shapes_may_write_or_leave_out_dimensions_of_1() {
    let ran = Folder::new()
        .with(|f| {
            let map = &mut f.tensors.get_mut("expect.grad_cam").unwrap().0;
            *map = Shape::from([2, 1, map.dims()[1], map.dims()[2]]);
            f.tensors.get_mut("expect.loss.total").unwrap().0 = Shape::default();
        })
        .run(&[]);
    ran.succeeds();
}

#[test]
fn json_and_a_run_directory_hold_what_the_table_shows() {
    let folder = Folder::new();
    let ran = folder.run(&["--json", "--out", "run"]).succeeds();
    let json = ran.json();
    assert_eq!(
        (json["checked"].as_u64(), json["of"].as_u64(), json["parted_at"].is_null()),
        (Some(34), Some(34), true)
    );
    let tensors = json["tensors"].as_array().unwrap();
    assert_eq!(tensors[0]["name"], "tap");
    assert!(tensors.iter().all(|t| t["verdict"] == "pass" && t["used"].as_f64().unwrap() < 1.0));
    assert_eq!(folder.lab.names("run"), ["manifest.json", "validate.json", "validate.txt"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&folder.lab.read("run/validate.json")).unwrap(), json);
    folder.run(&["--out", "run"]).fails(2, &["run exists"]);
    folder.run(&["--resume", "run"]).fails(2, &["--resume"]);
    folder.run(&["--precision", "tf32"]).fails(2, &["fp32"]);
}
