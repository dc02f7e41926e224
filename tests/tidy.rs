//! Rules that the compiler does not know: imports flow one way, nothing unfinished stays, every file says what it holds.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules that know no other: anybody may use them.
const LEAVES: [&str; 10] =
    ["answer", "atomic", "digest", "home", "interval", "picture", "random", "tensor", "text", "zip"];

/// Every other top-level module and what it may import beside leaves and itself, from the bottom up. A new module gets a
/// line here, and its place is argued in `src/lib.rs`.
const LAYERS: [(&str, &[&str]); 15] = [
    ("graph", &[]),
    ("data", &[]),
    ("weights", &[]),
    ("model", &["graph", "weights"]),
    // a device receives a planned graph; what the graph is for is not its business
    ("backend", &["graph", "weights"]),
    ("train", &["graph", "data", "weights", "model", "backend"]),
    // a sweep carries the nodes of attacks, which share its weights
    ("attack", &["graph", "model", "backend"]),
    ("causal", &["graph", "data", "weights", "model", "backend", "attack"]),
    ("explain", &["graph", "data", "weights", "model", "backend", "train", "causal", "attack"]),
    ("detect", &["graph", "data", "weights", "model", "backend", "train", "causal", "attack", "explain"]),
    // a second head is a regression of detectors
    ("conditions", &["data", "model", "causal", "detect"]),
    ("validate", &["graph", "weights", "model", "backend", "train", "causal", "attack", "explain"]),
    // the union of all layers' errors
    (
        "error",
        &["graph", "data", "weights", "model", "backend", "train", "causal", "attack", "explain", "detect", "validate"],
    ),
    (
        "report",
        &[
            "graph",
            "data",
            "weights",
            "model",
            "backend",
            "train",
            "causal",
            "attack",
            "explain",
            "detect",
            "conditions",
            "error",
        ],
    ),
    (
        "cli",
        &[
            "graph",
            "data",
            "weights",
            "model",
            "backend",
            "train",
            "causal",
            "attack",
            "explain",
            "detect",
            "conditions",
            "validate",
            "error",
            "report",
        ],
    ),
];

fn rust_files(under: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut stack = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(under)];
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).expect("a readable directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                stack.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{under}");
    found
}

/// A file without its line comments, so that prose may name what code must not.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a readable file");
    text.lines().map(|l| l.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn shown(path: &Path) -> String {
    path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path).display().to_string()
}

/// The top-level module that a file of `src` belongs to; `None` for `lib.rs` and `main.rs`.
fn module(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("under src");
    let first = inside.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib" && name != "main").then(|| name.to_string())
}

/// What each `crate::` in `code` is followed by: a path, or the paths of a braced list.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            found.extend(split_list(list));
        } else {
            let end = rest.find([';', '(', ')', ',', ' ', '\n', '<', '>']).unwrap_or(rest.len());
            // a list behind a path belongs to it
            let end = rest[..end].find('{').map_or(end, |open| open + rest[open..].find(';').unwrap_or(0));
            found.push(rest[..end].to_string());
        }
    }
    found
}

/// The members of a braced list, without what is nested in braces inside of them taken apart.
fn split_list(list: &str) -> Vec<String> {
    let (mut depth, mut members, mut member) = (0, Vec::new(), String::new());
    for c in list.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => members.push(std::mem::take(&mut member)),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                member.push(c);
            }
        }
    }
    members.push(member);
    members.iter().map(|m| m.trim().to_string()).filter(|m| !m.is_empty()).collect()
}

fn first_word(path: &str) -> &str {
    path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

#[test]
fn imports_flow_one_way() {
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        let Some(own) = module(&path) else { continue };
        let allowed: &[&str] = match LAYERS.iter().find(|l| l.0 == own) {
            Some((_, allowed)) => allowed,
            None if LEAVES.contains(&own.as_str()) => &[],
            None => panic!("module \"{own}\" has no line in tests/tidy.rs"),
        };
        let leaf = LEAVES.contains(&own.as_str());
        for import in imports(&code(&path)) {
            let name = first_word(&import);
            let fine = name == own || allowed.contains(&name) || (!leaf && LEAVES.contains(&name));
            if !fine {
                wrong.push(format!("{}: crate::{import}", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "these import upwards (or tests/tidy.rs lacks their module):\n{}", wrong.join("\n"));
}

#[test]
fn only_backends_and_the_command_line_name_a_device() {
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        if matches!(module(&path).as_deref(), None | Some("backend" | "cli")) {
            continue;
        }
        for import in imports(&code(&path)) {
            let words = || import.split(|c: char| !c.is_alphanumeric() && c != '_');
            if first_word(&import) == "backend" && words().any(|w| ["cpu", "cuda", "reference"].contains(&w)) {
                wrong.push(format!("{}: crate::{import}", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "ask `backend` to open a device instead:\n{}", wrong.join("\n"));
}

#[test]
fn nothing_unfinished_is_left_in_the_source() {
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        for (number, line) in code(&path).lines().enumerate() {
            if ["todo!(", "unimplemented!(", "dbg!("].iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{}: {}", shown(&path), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_test_is_ignored() {
    let attribute = concat!("#[", "ignore");
    for path in rust_files("src").into_iter().chain(rust_files("tests")) {
        assert!(!code(&path).contains(attribute), "{}", shown(&path));
    }
}

#[test]
fn every_file_says_in_its_first_line_what_it_holds() {
    for path in rust_files("src").into_iter().chain(rust_files("tests")) {
        let text = fs::read_to_string(&path).expect("a readable file");
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! "), "{}: {first}", shown(&path));
    }
}

#[test]
fn imports_are_read_from_paths_lists_and_calls() {
    let text =
        "use crate::graph::op::{A, B};\nuse crate::{backend::cpu, data};\nlet x = crate::random::f(crate::text::g);";
    let found: Vec<String> = imports(text);
    assert_eq!(found, ["graph::op::{A, B}", "backend::cpu", "data", "random::f", "text::g"]);
}

/// Invariants of the method (`tests/invariants.txt`), numbered from 1.
const INVARIANTS: usize = 50;

#[test]
fn every_invariant_of_the_method_has_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut held = [false; INVARIANTS];
    for line in read("tests/invariants.txt").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let &[number, file, name] = fields.as_slice() else { panic!("{line}") };
        let text = read(file);
        let at = text.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("{file} has no test {name}"));
        // the attribute stands close above, between comments perhaps
        let above = &text[..at];
        let attribute = above.rfind("#[test]").unwrap_or_else(|| panic!("{name} is no test"));
        assert!(!above[attribute..].contains("fn "), "{name} is no test");
        held[number.parse::<usize>().unwrap_or_else(|e| panic!("{line}: {e}")) - 1] = true;
    }
    let missing: Vec<usize> = (1..=INVARIANTS).filter(|n| !held[n - 1]).collect();
    assert!(missing.is_empty(), "invariants without a test: {missing:?}");
}
