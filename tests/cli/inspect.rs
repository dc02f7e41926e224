//! What a network's layers are, by which way they run (`inspect --kernels`), and where a job's time goes (`bench --profile`).

use crate::support::Lab;

#[test]
fn inspect_kernels_says_by_which_way_each_layer_runs_and_why() {
    let lab = Lab::with(20, 4);
    let text = lab.run(&["inspect", "--kernels", "--model", "densenet121", "--tap", "8"]).succeeds().out;
    let line = |name: &str| {
        text.lines().find(|l| l.split_whitespace().next() == Some(name)).unwrap_or_else(|| panic!("{name}: {text}"))
    };
    let first = line("features.conv0");
    for part in ["conv 3->64 224x224 7x7 stride 2 pad 3 + norm + relu", "direct", "narrow", "tap rows"] {
        assert!(first.contains(part), "no \"{part}\" in: {first}");
    }
    // a norm in front of a 1x1 convolution is done as it reads
    let narrow = line("features.denseblock1.denselayer1.conv1");
    assert!(narrow.contains("norm + relu + conv 64->128 56x56 1x1") && narrow.contains("product"), "{narrow}");
    let wide = line("features.denseblock1.denselayer1.conv2");
    assert!(wide.contains("winograd F(4x4) (exact: direct)") && wide.contains("winograd_product"), "{wide}");
    assert!(line("classifier").contains("linear 1024->1000"), "{text}");
    // the autoencoder behind transition2, and its decoder on a variant
    assert!(text.contains("behind features.transition2 (tap 8)"), "{text}");
    assert!(line("ae.dec1,").contains("update"), "{text}");
    for rule in [
        "1x1, stride 1, no padding",
        "under 8 input channels",
        "never by rows or threads",
        "at most half the multiplications",
    ] {
        assert!(text.contains(rule), "{rule}: {text}");
    }
}

#[test]
fn inspect_kernels_as_json_names_path_rule_and_kernel() {
    let lab = Lab::with(20, 4);
    let json = |more: &[&str]| lab.run(&[&["inspect", "--kernels", "--json"], more].concat()).succeeds().json();
    let out = json(&[]);
    assert_eq!((&out["arch"], &out["tap"], &out["precision"]), (&"fashion".into(), &2.into(), &"fp32".into()));
    let find = |rows: &serde_json::Value, name: &str| {
        let all = rows.as_array().unwrap();
        all.iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("{name}: {rows}")).clone()
    };
    let conv = find(&out["layers"], "features.0");
    assert_eq!(conv["layer"], "conv 1->32 28x28 3x3 stride 1 pad 0 + relu");
    assert_eq!(conv["cpu"]["grad_input"]["exact"]["path"], "narrow");
    assert!(conv["cpu"]["grad_input"]["exact"]["why"].as_str().unwrap().contains("under 8 input channels"));
    assert_eq!((&conv["cuda"]["winograd"], &conv["cuda"]["tensor_cores"]), (&serde_json::Value::Null, &false.into()));
    // 32 to 64 channels are served by tiles of 4x4 outputs
    assert_eq!(find(&out["layers"], "features.3")["cuda"]["winograd"]["tiles"], "F4");
    assert_eq!(find(&out["autoencoder"], "ae.code")["cpu"]["forward"]["exact"]["path"], "product");
    // in tf32 the same layer is on tensor cores, and never by tiles
    let tensor = find(&json(&["--precision", "tf32"])["layers"], "features.3");
    assert_eq!(
        (&tensor["cuda"]["tensor_cores"], &tensor["cuda"]["winograd"]),
        (&true.into(), &serde_json::Value::Null)
    );
    // other images, other shapes
    let small = json(&["--model", "vgg16", "--tap", "13", "--crop", "64"]);
    assert_eq!(small["input"], serde_json::json!([3, 64, 64]));
    assert!(find(&small["layers"], "features.2")["layer"].as_str().unwrap().contains("64->64 64x64"), "{small}");
    lab.run(&["inspect", "--crop", "4"]).fails(2, &["fashion takes no images of 4x4"]);
    lab.run(&["inspect", "--precision", "tf32"]).fails(2, &["--precision is for `inspect --kernels`"]);
}

#[test]
fn a_profile_says_where_a_jobs_time_goes() {
    let lab = Lab::with(20, 4);
    let small = ["--images", "2", "--nodes", "2", "--repeats", "2", "--threads", "1", "--quiet", "--profile"];
    let text = lab.run(&[&["bench", "attack"][..], &small].concat()).succeeds().out;
    let conv = "1->32 28x28 3x3 stride 1 pad 0";
    for part in ["\"seconds_median\"", "GFLOP/s are effective", "conv2d-grad-input", "narrow", conv, "outside of steps"]
    {
        assert!(text.contains(part), "no \"{part}\" in: {text}");
    }
    let out = lab.run(&[&["bench", "train", "--json"][..], &small].concat()).succeeds().json();
    let profile = &out["profile"];
    let tasks = profile["tasks"].as_array().unwrap();
    let conv =
        tasks.iter().find(|t| t["op"] == "conv2d-grad-weight" && t["shape"] == conv).unwrap_or_else(|| panic!("{out}"));
    // a batch of both images in each of two runs: 26 x 26 outputs of 32 channels under 9 taps
    assert_eq!((&conv["calls"], &conv["rows"], &conv["way"]), (&2.into(), &2.into(), &"tap rows".into()));
    assert_eq!(conv["flops"], 2 * 2 * 2 * 26 * 26 * 32 * 9);
    assert!(conv["flops_per_second"].as_f64() > Some(0.0) && conv["share_of_peak"].as_f64() > Some(0.0), "{conv}");
    // steps and the rest are the whole
    let seconds = |value: &serde_json::Value| value["seconds"].as_f64().unwrap();
    let all = tasks.iter().map(seconds).sum::<f64>() + profile["outside_seconds"].as_f64().unwrap();
    assert!((all - seconds(profile)).abs() < 1e-6, "{profile}");
    assert!(profile["peak_flops"].as_f64() > Some(1e8) && profile["peak_bandwidth"].as_f64() > Some(1e8), "{profile}");
    lab.run(&["bench", "kernels", "--profile"]).fails(2, &["--profile is for jobs", "not for"]);
}
