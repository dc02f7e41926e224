//! Embeds `kernels/*.cu` into the program: no CUDA toolkit is needed to build, NVRTC compiles them where they run.
//!
//! Writes a table of the files with their text and the kernels each defines, so that a kernel is found by its name. Two
//! kernels of one name, or a file without any, fail the build.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What begins a kernel's definition.
const KERNEL: &str = "extern \"C\" __global__ void ";

fn main() {
    let directory = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("kernels");
    println!("cargo::rerun-if-changed={}", directory.display());
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .expect("kernels/ is readable")
        .map(|entry| entry.expect("an entry of kernels/").path())
        .filter(|path| path.extension().is_some_and(|e| e == "cu"))
        .collect();
    files.sort();
    let mut table = String::from("&[\n");
    let mut defined_in = BTreeMap::new();
    for path in &files {
        let name = path.file_name().and_then(|n| n.to_str()).expect("a plain file name");
        let text = fs::read_to_string(path).expect("a kernel file is text");
        let kernels = kernels(&text);
        assert!(!kernels.is_empty(), "kernels/{name} defines no kernel that begins with `{KERNEL}`");
        for kernel in &kernels {
            if let Some(other) = defined_in.insert(kernel.clone(), name.to_string()) {
                panic!("kernel {kernel} is defined in kernels/{other} and in kernels/{name}");
            }
        }
        writeln!(table, "    Source {{ file: {name:?}, text: include_str!({path:?}), kernels: &{kernels:?} }},")
            .expect("writing to a string");
    }
    table.push_str("]\n");
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo")).join("kernels.rs");
    fs::write(out, table).expect("OUT_DIR is writable");
}

/// The kernels that a source defines, by name. A launch bound may stand before the name.
fn kernels(text: &str) -> Vec<String> {
    let names = text.match_indices(KERNEL).map(|(at, _)| {
        let rest = text[at + KERNEL.len()..].trim_start();
        let rest = match rest.strip_prefix("__launch_bounds__(") {
            Some(bounds) => bounds.split_once(')').expect("a closed __launch_bounds__").1.trim_start(),
            None => rest,
        };
        rest.split('(').next().unwrap_or_default().trim().to_string()
    });
    names.collect()
}
