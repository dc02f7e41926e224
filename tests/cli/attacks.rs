//! Attacks as `ce` takes them: several at once, their steps, whose defaults they have.

use crate::support::Lab;

#[test]
fn every_attack_is_an_input_of_its_own_with_the_steps_that_were_asked_for() {
    let lab = Lab::new();
    let gradient = ["--nodes", "3", "--attack", "fgsm,bim,pgd,jsma,bim", "--eps", "8/255", "--steps", "2"];
    let others = ["--restarts", "2", "--theta", "-0.5", "--gamma", "0.02"];
    lab.ce("3", "run", &[&gradient[..], &others].concat()).succeeds();
    let summary = lab.read("run/summary.csv");
    let head: Vec<&str> = summary.lines().next().unwrap().split(',').collect();
    let column = |name: &str| head.iter().position(|h| *h == name).unwrap();
    let (input, reading) = (column("input"), column("reading"));
    let mut seen: Vec<&str> = summary.lines().skip(1).map(|l| l.split(',').nth(input).unwrap()).collect();
    seen.dedup();
    seen.truncate(7);
    assert_eq!(seen, ["none", "pwm", "fgsm", "bim", "pgd", "jsma", "noise"]);
    assert!(summary.lines().any(|l| l.split(',').nth(input) == Some("pgd") && l.split(',').nth(reading) == Some("R1")));

    let manifest: serde_json::Value = serde_json::from_str(&lab.read("run/manifest.json")).unwrap();
    let inputs = manifest["configuration"]["inputs"].as_array().unwrap();
    let eps = f64::from(8.0f32 / 255.0);
    let near = |value: &serde_json::Value, want: f64| (value.as_f64().unwrap() - want).abs() < 1e-8;
    assert_eq!(inputs.len(), 6);
    // the paper's step is a sixth of its eps
    for (at, name) in [(2, "bim"), (3, "pgd")] {
        assert_eq!((&inputs[at]["input"], &inputs[at]["steps"]), (&name.into(), &2.into()));
        assert!(near(&inputs[at]["eps"], eps) && near(&inputs[at]["step"], eps / 6.0), "{}", inputs[at]);
    }
    assert_eq!(inputs[3]["restarts"], 2);
    assert!(near(&inputs[4]["theta"], -0.5) && near(&inputs[4]["gamma"], 0.02), "{}", inputs[4]);
    assert!(near(&inputs[5]["eps"], eps));
}

#[test]
fn a_preset_has_somebody_elses_steps_and_flags_go_before_it() {
    let lab = Lab::new();
    let of = |out: &str, more: &[&str]| -> Vec<(f64, f64, u64)> {
        let flags = [&["--nodes", "3", "--attack", "bim,pgd", "--no-control"], more].concat();
        lab.ce("1", out, &flags).succeeds();
        let manifest: serde_json::Value = serde_json::from_str(&lab.read(&format!("{out}/manifest.json"))).unwrap();
        let inputs = manifest["configuration"]["inputs"].as_array().unwrap().clone();
        let number = |v: &serde_json::Value| (v.as_f64().unwrap() * 1e6).round() / 1e6;
        let attacks = inputs.iter().filter(|i| i["input"] != "pwm");
        attacks.map(|i| (number(&i["eps"]), number(&i["step"]), i["steps"].as_u64().unwrap())).collect()
    };
    assert_eq!(of("paper", &[]), [(0.3, 0.05, 10); 2]);
    assert_eq!(of("foolbox", &["--preset", "foolbox"]), [(0.3, 0.05, 10), (0.3, 0.01, 40)]);
    assert_eq!(of("torchattacks", &["--preset", "torchattacks"]), [(0.031373, 0.007843, 10); 2]);
    assert_eq!(of("art", &["--preset", "art", "--steps", "3"]), [(0.3, 0.1, 3); 2]);
    assert_eq!(
        of("own", &["--preset", "art", "--eps", "0.06", "--step", "0.01", "--steps", "1"]),
        [(0.06, 0.01, 1); 2]
    );
}

#[test]
fn attacks_that_make_no_sense_are_refused() {
    let lab = Lab::new();
    lab.run(&["ce", "--attack", "none,bim"]).fails(2, &["--attack none goes with no other"]);
    lab.run(&["ce", "--attack", "bmi"]).fails(2, &["'bmi'", "bim"]);
    lab.run(&["ce", "--steps", "0"]).fails(2, &["--steps", "1..=100000"]);
    lab.run(&["ce", "--restarts", "0"]).fails(2, &["--restarts"]);
    lab.run(&["ce", "--step", "2"]).fails(2, &["--step 2 is outside of 0 to 1"]);
    for theta in ["0", "1.5", "nan"] {
        lab.run(&["ce", "--theta", theta]).fails(2, &["--theta", "-1 to 1 and not 0"]);
    }
    for gamma in ["0", "1.5", "nan"] {
        lab.run(&["ce", "--gamma", gamma]).fails(2, &["--gamma", "above 0 and at most 1"]);
    }
    lab.run(&["reproduce", "fashion", "--attack", "none,pgd"]).fails(2, &["--attack none"]);
    assert_eq!(lab.names("."), ["d"]);
}
