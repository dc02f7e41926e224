//! `reproduce chest`: what is not brought is trained in the run, every row says what it ran on, and a stopped run goes on to
//! the same bytes. `reproduce imagenet` goes the same way; its weights of half a gigabyte are not for every test run.

use super::support::Lab;

/// Forty "X-rays" of twenty patients in `x/`, each a grey ramp and a bright or dark half that is its finding.
fn x_rays(lab: &Lab) {
    std::fs::create_dir(lab.path("x")).unwrap();
    let mut table = String::from("path,findings,patient,split\n");
    for i in 0..40usize {
        let pixels: Vec<u8> = (0..40 * 40)
            .map(|p| ((p / 40 + 3 * i) % 97) as u8 + if (p % 40 < 20) == (i % 2 == 0) { 120 } else { 0 })
            .collect();
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 40, 40);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        lab.write(&format!("x/{i:02}.png"), &file);
        let findings = ["Effusion", "Mass|Nodule"][i % 2];
        let split = match i {
            0..24 => "train",
            24..32 => "val",
            _ => "test",
        };
        table += &format!("{i:02}.png,{findings},{},{split}\n", i / 2);
    }
    lab.write("x/manifest.csv", table.as_bytes());
}

/// A DenseNet-121 of three classes: its features are what a head is trained behind.
fn features(lab: &Lab) {
    let mut table = String::from("path,label,split\n");
    (0..40).for_each(|i| {
        table += &format!("{i:02}.png,{},{}\n", ["a", "b", "c"][i % 3], if i < 24 { "train" } else { "test" });
    });
    std::fs::create_dir(lab.path("c")).unwrap();
    for i in 0..40 {
        std::fs::copy(lab.path(&format!("x/{i:02}.png")), lab.path(&format!("c/{i:02}.png"))).unwrap();
    }
    lab.write("c/manifest.csv", table.as_bytes());
    let train =
        ["train", "--model", "densenet121", "--data", "c", "--crop", "32", "--epochs", "1", "--out", "f", "--quiet"];
    lab.run(&train).succeeds();
}

const CHEST: [&str; 21] = [
    "reproduce",
    "chest",
    "--data",
    "x",
    "--crop",
    "32",
    "--weights",
    "f/densenet121.safetensors",
    "--epochs",
    "1",
    "--head-epochs",
    "1",
    "--masks",
    "1",
    "--resamples",
    "20",
    "--min-agreement",
    "0",
    "--quiet",
    "--limit",
    "2",
];

#[test]
fn a_chest_reproduction_trains_what_it_lacks_and_goes_on_when_stopped() {
    let lab = Lab::with(1, 1);
    x_rays(&lab);
    features(&lab);
    let flags = |more: &[&'static str]| [&CHEST[..], &["--max-shift", "1", "--taps", "10"], more].concat();
    let ran = lab.run(&flags(&["--out", "whole"])).succeeds();
    for words in [
        "Effusion",
        "densenet121, tap 10 (features.transition3)",
        "a head of 14 findings trained here on 24 images",
        "autoencoder: trained here, 1 pass over 24 images",
        "+1.3775e-2",
        "-5.6129e-6",
        "over 2 images",
        "claim (a)",
        "Its Table 2 has JSMA too",
    ] {
        assert!(ran.out.contains(words), "no \"{words}\" in: {}", ran.out);
    }
    // two softmaxes are no matter of sigmoids
    assert!(!ran.out.contains("double softmax"), "{}", ran.out);
    let table = lab.read("whole/table.csv");
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|row| row.split(',').collect()).collect();
    assert_eq!(rows.len(), 16 * 6, "nodes x inputs");
    let printed: Vec<[&str; 4]> =
        rows.iter().filter(|r| !r[10].is_empty()).map(|r| [r[3], r[4], r[5], r[10]]).collect();
    assert_eq!(
        printed,
        [
            ["10", "7", "none", "0.013775"],
            ["10", "7", "pwm", "-1.1506e-5"],
            ["10", "7", "fgsm", "-5.6129e-6"],
            ["10", "7", "bim", "4.3435e-5"],
            ["10", "7", "pgd", "-3.9605e-6"],
        ]
    );
    assert!(lab.read("whole/auc.csv").lines().any(|row| row.contains(",Mass,")), "an area a finding");
    // validation and test images
    assert_eq!(lab.read("whole/predictions.csv").lines().count(), 1 + 8 + 8);
    let printed_text = ran.out.rsplit_once("run ").unwrap().0;
    assert_eq!(lab.read("whole/report.txt"), printed_text);

    // stopped in the head's training, and in the autoencoder's
    let sign = "stopped.partial/densenet121-host.partial/manifest.json";
    lab.signalled(&flags(&["--out", "stopped"]), sign, "-INT").fails(130, &["--resume stopped"]);
    let resume = ["reproduce", "chest", "--resume", "stopped", "--quiet", "--threads", "1"];
    let sign = "stopped.partial/densenet121-tap10-autoencoder.partial/manifest.json";
    lab.signalled(&resume, sign, "-INT").fails(130, &["--resume stopped"]);
    lab.run(&resume).succeeds();
    lab.assert_same("whole", "stopped");

    // killed when the study was at its end and its result was not kept yet
    std::fs::rename(lab.path("stopped"), lab.path("stopped.partial")).unwrap();
    std::fs::remove_file(lab.path("stopped.partial/densenet121-tap10-result.json")).unwrap();
    lab.run(&resume).succeeds();
    lab.assert_same("whole", "stopped");

    // an autoencoder that is brought is taken at its tap, and one that has none is refused
    let ae = "whole/densenet121-tap10-autoencoder/autoencoder.safetensors";
    let host = "whole/densenet121-host/densenet121.safetensors";
    let with_both = ["--weights", host, "--ae", ae, "--max-shift", "1", "--out", "both"];
    let both = [&["reproduce", "chest"], &CHEST[2..6], &CHEST[8..], &with_both[..]].concat();
    let ran = lab.run(&[&both[..], &["--taps", "10"]].concat()).succeeds();
    assert!(ran.out.contains("autoencoder: whole/densenet121-tap10-autoencoder"), "{}", ran.out);
    assert!(ran.out.contains("chexnet  arnoweng"), "whole weights stand beside published areas: {}", ran.out);
    let columns = |run: &str| {
        let rows = lab.read(&format!("{run}/table.csv"));
        rows.lines().map(|row| row.split(',').skip(2).take(10).collect::<Vec<_>>().join(",")).collect::<Vec<_>>()
    };
    assert_eq!(columns("both"), columns("whole"), "the same images, host and autoencoder");
    let refused = [&both[..], &["--taps", "6", "--out", "no"]].concat();
    lab.run(&refused).fails(3, &["features.transition3", "none of the taps"]);

    // what cannot be trained leaves no directory
    lab.run(&flags(&["--train-limit", "7", "--out", "few"])).fails(2, &["7 training images", "one batch of 8"]);
    assert!(!lab.path("few.partial").exists());

    // a gate that stays shut does not lose what was trained
    let shut = lab.run(&flags(&["--max-shift", "0", "--out", "shut"]));
    assert_eq!(shut.code, Some(4), "{}", shut.err);
    assert!(shut.out.contains("no effects: the autoencoder alone changes probabilities"), "{}", shut.out);
    assert!(shut.err.contains("1 of 1 taps have no effects"), "{}", shut.err);
    assert!(lab.path("shut/densenet121-tap10-autoencoder/autoencoder.safetensors").exists());
}

#[test]
fn what_a_reproduction_cannot_do_is_said_before_work() {
    let lab = Lab::with(30, 2);
    x_rays(&lab);
    let run = |arguments: &[&str]| lab.run(&[&["reproduce"][..], arguments].concat());
    run(&["chess"]).fails(2, &["did you mean chest?"]);
    run(&["chest"]).fails(2, &["--data", "NIH"]);
    run(&["imagenet", "--data", "x", "--taps", "4"]).fails(2, &["3, 9, 13, 18"]);
    run(&["imagenet", "--data", "x", "--taps", "18"]).fails(2, &["nothing to do: vgg19", "--weights FILE"]);
    run(&["chest", "--data", "x", "--retrain"]).fails(2, &["--retrain"]);
    run(&["chest", "--data", "x", "--maps", "3"]).fails(2, &["--maps is for fashion"]);
    run(&["fashion", "--taps", "2"]).fails(2, &["--taps"]);
    run(&["fashion", "--maps", "3", "--attack", "jsma"]).fails(2, &["--maps 3", "no attack of the run has an eps"]);
    run(&["fashion", "--maps", "3", "--victim", "inserted"]).fails(2, &["--maps 3", "attack the host"]);
    run(&["fashion", "--weights", "f"]).fails(2, &["--weights"]);
    run(&["chest", "--data", "x", "--weights", "none.pth"]).fails(3, &["none.pth"]);
    lab.run(&["train", "--data", "d", "--any-data", "--batch", "8", "--epochs", "1", "--out", "f", "--quiet"]);
    let other = run(&["chest", "--data", "x", "--weights", "f/fashion.safetensors"]);
    other.fails(3, &["holds fashion with 10 classes", "is about densenet121"]);
}
