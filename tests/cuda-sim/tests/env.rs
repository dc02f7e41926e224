//! What `env.sh` does to the shell that sources it. Cargo, the CUDA toolkit and `nvidia-smi` are played by scripts here; the
//! real ones are met wherever the other tests run.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const CARGO: &str = r#"#!/bin/bash
echo "$1" >>"$FAKE/calls"
case $1 in
    metadata) printf '{"packages":[],"target_directory":"%s/target","version":1}\n' "$FAKE" ;;
    build)
        if [ -e "$FAKE/broken" ]; then echo 'error: the code is broken' >&2; exit 101; fi
        echo '   Compiling cuda-sim' >&2
        printf '{"reason":"compiler-artifact","filenames":["%s/libcuda.rlib","%s/libcuda.so"]}\n' "$FAKE" "$FAKE" ;;
esac
"#;

/// A machine: `cargo` and a CUDA toolkit, and `bash` to type into.
struct Machine {
    root: PathBuf,
}

impl Machine {
    fn new(name: &str) -> Machine {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("env {name}"));
        let _ = fs::remove_dir_all(&root);
        let machine = Machine { root };
        machine.file("bin/cargo", CARGO);
        // Not the machine's own: what is found must not depend on where the test runs.
        machine.file("bin/python3", "#!/bin/bash\nexit 1\n");
        machine.file("bin/ldconfig", "#!/bin/bash\n");
        machine.file("bin/nvidia-smi", "#!/bin/bash\necho 'No devices were found'\n");
        machine.file("libcuda.so", "");
        machine.file("cuda/lib64/libnvrtc.so.13", "");
        machine.file("cuda/include/cuda_fp16.h", "");
        machine.file("cuda/bin/nvdisasm", "");
        machine
    }

    fn path(&self, name: &str) -> String {
        self.root.join(name).to_str().unwrap().to_string()
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs a script in a shell; what it wrote to stdout and to stderr.
    fn shell(&self, shell: &str, script: &str) -> (String, String) {
        let output = Command::new(shell)
            .args(["-c", script])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_clear()
            .env("FAKE", &self.root)
            .env("HOME", &self.root)
            .env("CUDA_SIM", "1")
            .env("CUDA_HOME", self.root.join("cuda"))
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin")))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    }

    /// What `script` changes in a bash: variables, functions, options, aliases, traps, the directory. Those of the shell's
    /// own that change with every command are left out.
    fn changes(&self, script: &str) -> BTreeMap<String, String> {
        let state = "declare -p; declare -F; set +o; shopt; alias; trap; pwd; umask";
        let (out, err) = self.shell("bash", &format!("{state} >/dev/null; {state}; echo ======; {script}\n{state}"));
        let (before, after) = out.split_once("======\n").unwrap_or_else(|| panic!("{out}{err}"));
        let own = [
            "_",
            "OLDPWD",
            "BASH_LINENO",
            "BASH_ARGC",
            "BASH_ARGV",
            "BASHPID",
            "LINENO",
            "PIPESTATUS",
            "RANDOM",
            "SRANDOM",
        ];
        let own =
            |name: &str| own.contains(&name) || name.starts_with("EPOCH") || name == "SECONDS" || name == "BASH_SOURCE";
        let lines = |text: &str| -> BTreeMap<String, String> {
            let lines = text.lines().map(|line| {
                let name = line.strip_prefix("declare ").and_then(|l| l.split(' ').nth(1)).unwrap_or(line);
                (name.split('=').next().unwrap().to_string(), line.to_string())
            });
            lines.filter(|(name, _)| !own(name)).collect()
        };
        let (before, mut after) = (lines(before), lines(after));
        for (name, line) in &before {
            assert!(after.contains_key(name), "gone: {line}\n{err}");
        }
        after.retain(|name, line| before.get(name) != Some(line));
        after
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.root.join("calls")).unwrap_or_default()
    }
}

fn exported(machine: &Machine) -> BTreeMap<String, String> {
    let p = |name: &str| machine.path(name);
    let lib = format!("{}:{}:{}", p("target/cuda-sim/lib"), p("target/cuda-sim/nvrtc"), p("cuda/lib64"));
    let path = format!("{}:{}:/usr/bin:/bin", p("cuda/bin"), p("bin"));
    let values = [
        ("LD_LIBRARY_PATH", lib),
        ("PATH", path),
        ("CUDA_SIM_NVRTC", p("cuda/lib64/libnvrtc.so.13")),
        ("CUDA_SIM_INCLUDE", fs::canonicalize(p("cuda/include")).unwrap().to_str().unwrap().to_string()),
    ];
    values.map(|(name, value)| (name.to_string(), format!("declare -x {name}=\"{value}\""))).into()
}

#[test]
fn exactly_the_documented_variables_change() {
    let machine = Machine::new("once");
    assert_eq!(machine.changes(". ./env.sh"), exported(&machine));
    for name in ["libcuda.so", "libcuda.so.1"] {
        let link = fs::read_link(machine.path(&format!("target/cuda-sim/lib/{name}"))).unwrap();
        assert_eq!(link, machine.root.join("libcuda.so"));
    }
    let link = fs::read_link(machine.path("target/cuda-sim/nvrtc/libnvrtc.so")).unwrap();
    assert_eq!(link, machine.root.join("cuda/lib64/libnvrtc.so.13"));
}

#[test]
fn again_and_from_elsewhere_is_the_same() {
    let machine = Machine::new("twice");
    let script = ". ./env.sh; cd tests/kernels; . ../../env.sh; cd ../..; . ./env.sh";
    assert_eq!(machine.changes(script), exported(&machine));
    // Strict shells are left strict, and are not left.
    let changes = machine.changes("set -euo pipefail; . ./env.sh; set +eu; set +o pipefail");
    assert_eq!(changes, exported(&machine));
}

#[test]
fn what_was_in_the_paths_stays() {
    let machine = Machine::new("paths");
    let (out, err) =
        machine.shell("bash", "export LD_LIBRARY_PATH=/a::/b:; . ./env.sh; . ./env.sh; echo \"$LD_LIBRARY_PATH\"");
    let lib = format!(
        "{}:{}:{}",
        machine.path("target/cuda-sim/lib"),
        machine.path("target/cuda-sim/nvrtc"),
        machine.path("cuda/lib64")
    );
    assert_eq!(out, format!("{lib}:/a::/b:\n"), "{err}");
}

#[test]
fn a_failed_build_changes_nothing_and_says_why() {
    let machine = Machine::new("broken");
    machine.file("broken", "");
    let (out, err) = machine.shell("bash", ". ./env.sh; echo $?");
    assert_eq!(out, "1\n");
    assert!(err.contains("error: the code is broken") && err.contains("cargo build failed"), "{err}");
    assert_eq!(machine.changes(". ./env.sh"), BTreeMap::new());
    // Nor is anything left in the build directory.
    let left: Vec<_> = fs::read_dir(machine.path("target/cuda-sim")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_is_missing_is_named() {
    let machine = Machine::new("missing");
    let (out, err) = machine.shell("bash", "export CUDA_SIM_NVRTC=/nowhere/libnvrtc.so; . ./env.sh; echo $?");
    assert!(out == "1\n" && err.contains("CUDA_SIM_NVRTC=/nowhere/libnvrtc.so: no such file"), "{out}{err}");
    if Path::new("/usr/local/cuda").exists() {
        return; // NVRTC is there, then
    }
    let (out, err) = machine.shell("bash", "unset CUDA_HOME; . ./env.sh; echo $?");
    assert!(out == "1\n" && err.contains("python3-pip"), "{out}{err}");
    assert_eq!(machine.changes("unset CUDA_HOME; . ./env.sh; export CUDA_HOME=$FAKE/cuda"), BTreeMap::new());
    fs::remove_file(machine.path("bin/cargo")).unwrap();
    let (out, err) = machine.shell("bash", ". ./env.sh; echo $?");
    assert!(out == "1\n" && err.contains("cargo is missing"), "{out}{err}");
}

#[test]
fn a_real_driver_is_preferred() {
    let machine = Machine::new("real");
    machine.file("bin/nvidia-smi", "#!/bin/bash\necho 'GPU 0: NVIDIA H200 (UUID: GPU-0)'\n");
    // A simulated device from before is taken out again.
    let (out, err) = machine.shell("bash", ". ./env.sh; CUDA_SIM=; . ./env.sh; echo \"$LD_LIBRARY_PATH\"");
    assert_eq!(out, format!("{}:{}\n", machine.path("target/cuda-sim/nvrtc"), machine.path("cuda/lib64")), "{err}");
    assert!(err.contains("a simulated device") && err.contains("the GPU and its driver"), "{err}");
    assert_eq!(machine.calls(), "metadata\nbuild\nmetadata\n");
}

#[test]
fn other_shells_and_execution_are_refused() {
    let machine = Machine::new("shells");
    let (out, err) = machine.shell("bash", "BASH_VERSION=; . ./env.sh; echo $?");
    assert!(out == "1\n" && err.contains("for bash"), "{out}{err}");
    if machine.shell("sh", "echo ${BASH_VERSION:-}").0 == "\n" {
        let (out, err) = machine.shell("sh", ". ./env.sh; echo $?");
        assert!(out == "1\n" && err.contains("for bash"), "{out}{err}");
    }
    let (out, err) = machine.shell("bash", "bash ./env.sh; echo $?");
    assert!(out == "1\n" && err.contains("to be sourced"), "{out}{err}");
    assert_eq!(machine.calls(), "");
}
