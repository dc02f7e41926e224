//! Figure 3 in `reproduce fashion`: maps as a run of its own inside the reproduction, in its text, its JSON and on its page, and
//! stopped with it.

use super::support::{Lab, SMALL};

fn reproduce(out: &'static str, more: &[&'static str]) -> Vec<&'static str> {
    let base = ["reproduce", "fashion", "--limit", "40", "--attack", "fgsm,bim", "--steps", "2", "--out", out];
    [&base[..], &SMALL, more].concat()
}

#[test]
fn a_reproduction_has_maps_at_its_own_size_and_a_small_one_in_text_on_its_page_and_goes_on_when_stopped_in_them() {
    let lab = Lab::new();
    let told = lab.run(&reproduce("whole", &["--maps", "33"])).succeeds().out;
    for words in [
        "Figure 3 of the paper as numbers: maps of the first 33 test images",
        "\ngrad-cam       noise 8/255 ",
        "claim (e) under FGSM at eps 8/255",
        "claim (e) under FGSM at eps 0.3",
        "run whole/maps\n",
    ] {
        assert!(told.contains(words), "no \"{words}\" in: {told}");
    }
    // what the paper's figure is of, and nothing else
    assert!(!told.contains("claim (e) under BIM"), "{told}");
    let files = ["claim-e.json", "manifest.json", "maps", "maps.csv", "report.html", "stability.csv"];
    assert_eq!(lab.names("whole/maps"), files);
    let page = lab.read("whole/report.html");
    for words in
        ["(d) effects part", "(e) causal effect maps", "FGSM at eps 8/255: cem against grad-cam", "Image 0</b>"]
    {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("is measured by"));
    // a sheet a node, and four images by two methods
    assert_eq!(page.matches("data:image/png;base64,").count(), lab.names("whole/gallery").len() - 1 - dead(&page) + 8);
    lab.run(&["report", "whole", "--out", "again.html"]).succeeds();
    assert!(lab.read("again.html") == page);
    assert!(lab.read("whole/maps/report.html").contains("Where answers of fashion come from"));

    // Ctrl-C in the maps
    let resume = ["reproduce", "fashion", "--resume", "cut", "--quiet", "--threads", "1"];
    let stopped = lab.signalled(&reproduce("cut", &["--maps", "33"]), "cut.partial/maps.partial/manifest.json", "-INT");
    stopped.fails(130, &["go on with `--resume cut`"]);
    lab.run(&resume).succeeds();
    lab.assert_same("whole", "cut");
    // killed between maps and effects: they are read, and told of
    std::fs::rename(lab.path("cut"), lab.path("cut.partial")).unwrap();
    std::fs::remove_dir_all(lab.path("cut.partial/outcomes")).unwrap();
    let again = lab.run(&resume).succeeds().out;
    assert_eq!(again, told.replace("run whole", "run cut"));
    lab.assert_same("whole", "cut");

    let ran = lab.run(&reproduce("none", &["--maps", "0", "--json"])).succeeds();
    assert!(ran.json()["maps"].is_null() && !lab.path("none/maps").exists());
    assert!(lab.read("none/report.html").contains("is measured by"));
}

/// Nodes without a sheet on the page.
fn dead(page: &str) -> usize {
    let of = |start: &str| page.split_once(start).and_then(|(_, rest)| rest.split_once(" are 0 on every image"));
    match of(" Nodes ") {
        Some((nodes, _)) => nodes.split(", ").count(),
        None => usize::from(page.contains(" is 0 on every image")),
    }
}

#[test]
fn a_dry_run_counts_maps() {
    let lab = Lab::new();
    let cost = |maps: &'static str| {
        let ran = lab.run(&reproduce("dry", &["--maps", maps, "--dry-run", "--json"])).succeeds();
        (ran.json()["what"].as_str().unwrap().to_owned(), ran.json()["tflop"].as_f64().unwrap())
    };
    let (with, without) = (cost("20"), cost("0"));
    assert!(with.0.ends_with("20 images x 5 inputs x maps (cem, grad-cam)"), "{}", with.0);
    assert!(!without.0.contains("maps") && with.1 > without.1);
    assert_eq!(lab.names("."), ["d"]);
}
