//! `ce --shard` and `merge`: a run in parts, put together, has the bytes of one that was never taken apart.

use crate::support::{Lab, SMALL};

/// A study of three shards: 256, 256 and 18 of 530 images.
fn study<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["ce", "--nodes", "3,15", "--no-control", "--out", out], &SMALL[..], more].concat()
}

fn shards(lab: &Lab, run: &str) -> Vec<String> {
    lab.names(&format!("{run}.partial/outcomes"))
}

#[test]
fn parts_merged_have_the_bytes_of_one_run() {
    let lab = Lab::with(20, 530);
    lab.run(&study("whole", &["--effects", "both"])).succeeds();
    let second = lab.run(&study("b", &["--shard", "2/2", "--effects", "both", "--threads", "1"])).succeeds();
    assert!(second.out.contains("part 2 of 2") && second.out.contains("1 of 3 shards, in b.partial"), "{}", second.out);
    assert!(!lab.path("b").exists());
    assert_eq!(shards(&lab, "b"), ["shard-00001.safetensors"]);

    // alone it is not the whole, finished or not
    let merge = ["merge", "b", "--out", "merged"];
    lab.run(&merge).fails(3, &["b.partial", "part 1 of 2 is missing (2 of 3 shards)"]);
    let first = study("a", &["--shard", "1/2", "--effects", "both"]);
    lab.signalled(&first, "a.partial/outcomes/shard-00000.safetensors", "-INT").fails(130, &["--resume a"]);
    let merge = ["merge", "a", "b.partial", "--out", "merged"];
    lab.run(&merge).fails(3, &["part 1 of 2 lacks 1 of 3 shards", "ce --resume a"]);
    // what goes on is the part, not the run
    let first = lab.run(&["ce", "--resume", "a", "--quiet", "--json"]).succeeds().json();
    assert_eq!((&first["part"], &first["of"], &first["shards"]), (&1.into(), &2.into(), &2.into()));
    assert_eq!(shards(&lab, "a"), ["shard-00000.safetensors", "shard-00002.safetensors"]);

    let before = lab.contents("a.partial");
    let dry = lab.run(&[&merge[..], &["--dry-run"]].concat()).succeeds();
    assert!(dry.out.contains("all 3 shards") && !lab.path("merged.partial").exists(), "{}", dry.out);
    let merged = lab.run(&[&merge[..], &["--quiet"]].concat()).succeeds();
    assert!(merged.out.contains("run merged"), "{}", merged.out);
    lab.assert_same("whole", "merged");
    assert!(before == lab.contents("a.partial") && !lab.path("merged.partial").exists());
    lab.run(&merge).fails(2, &["merged exists; choose another --out"]);

    // a shard that is there twice, and not the same
    let other = std::fs::read(lab.path("a.partial/outcomes/shard-00000.safetensors")).unwrap();
    std::fs::create_dir(lab.path("c.partial")).unwrap();
    std::fs::create_dir(lab.path("c.partial/outcomes")).unwrap();
    std::fs::copy(lab.path("a.partial/manifest.json"), lab.path("c.partial/manifest.json")).unwrap();
    let file = "c.partial/outcomes/shard-00000.safetensors";
    lab.write(file, &other);
    lab.run(&["merge", "a", "b", "c", "--dry-run"]).succeeds();
    let mut changed = other.clone();
    *changed.last_mut().unwrap() ^= 1;
    lab.write(file, &changed);
    lab.run(&["merge", "a", "b", "c", "--dry-run"]).fails(3, &[file, "differs from a.partial/outcomes/shard-00000"]);
    lab.write(file, &other[..other.len() / 2]);
    lab.run(&["merge", "a", "b", "c", "--dry-run"]).fails(3, &[file, "is damaged"]);
    let manifest = lab.read("c.partial/manifest.json").replace("\"number\": 1", "\"number\": 9");
    lab.write("c.partial/manifest.json", manifest.as_bytes());
    lab.run(&["merge", "a", "b", "c", "--dry-run"]).fails(3, &["c.partial", "a part that cannot be"]);
}

#[test]
fn only_parts_of_one_run_are_merged() {
    let lab = Lab::with(20, 20);
    let part = |out: &str, more: &[&str]| {
        let base = ["ce", "--nodes", "3", "--masks", "0", "--attack", "none", "--min-agreement", "0", "--quiet"];
        lab.run(&[&base[..], &["--data", "d", "--any-data", "--device", "cpu", "--out", out], more].concat()).succeeds()
    };
    part("a", &["--shard", "1/2"]);
    // of one shard the second part has none
    assert!(part("b", &["--shard", "2/2"]).out.contains("0 of 1 shards"));
    part("seed", &["--shard", "2/2", "--seed", "4"]);
    part("exact", &["--shard", "2/2", "--conv", "exact"]);
    part("thirds", &["--shard", "2/3"]);
    part("whole", &[]);
    lab.run(&["merge", "a", "seed"])
        .fails(3, &["seed.partial", "another run than a.partial", "seed is 0 there and 4 here"]);
    lab.run(&["merge", "a", "exact"])
        .fails(3, &["exact.partial", "another run", "device is cpu (", ", winograd) there and"]);
    lab.run(&["merge", "a", "thirds"]).fails(3, &["thirds.partial", "part 2 of 3", "part 1 of 2"]);
    lab.run(&["merge", "a", "whole"]).fails(3, &["whole", "finished", "ce --shard"]);
    lab.run(&["merge", "a", "nowhere"]).fails(3, &["nowhere", "no unfinished run"]);
    std::fs::rename(lab.path("whole"), lab.path("whole.partial")).unwrap();
    lab.run(&["merge", "whole"]).fails(3, &["whole.partial", "no part of a run", "ce --resume"]);
    lab.run(&["merge"]).fails(2, &["DIR"]);
    lab.run(&["merge", "a", "b", "--resume", "a"]).fails(2, &["ce --resume"]);
    // without --out it is named as a run of ce is
    lab.run(&["merge", "a", "b", "--quiet"]).succeeds();
    assert!(lab.names("runs").iter().all(|name| name.starts_with("ce-")) && lab.names("runs").len() == 1);
}

#[test]
fn a_part_that_cannot_be_is_refused_before_any_work() {
    let lab = Lab::with(20, 4);
    for (part, word) in
        [("0/4", "numbered from 1, 1/4 to 4/4"), ("5/4", "1/4 to 4/4"), ("x", "2/4 is the second of four")]
    {
        lab.run(&study("run", &["--shard", part])).fails(2, &["--shard", part, word]);
    }
    lab.run(&["ce", "--resume", "run", "--shard", "1/2"]).fails(2, &["--resume", "--shard"]);
    for verb in [&["reproduce", "fashion"][..], &["map"], &["train"], &["attack"]] {
        lab.run(&[verb, &["--shard", "1/2"]].concat()).fails(2, &["--shard"]);
    }
    assert_eq!(lab.names("."), ["d"]);
}
