//! Peers that are Python scripts, run by the user's Python.

use super::Peer;
use crate::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// All of them, for one imports the other.
const FILES: [(&str, &str); 3] = [
    (TORCH.file, include_str!("../../../../benches/peers/torch_ce.py")),
    (ONNXRUNTIME.file, include_str!("../../../../benches/peers/onnx_forward.py")),
    ("protocol.py", include_str!("../../../../benches/peers/protocol.py")),
];

/// A script and the packages that it needs.
pub struct Script {
    file: &'static str,
    packages: &'static [&'static str],
}

/// PyTorch.
pub const TORCH: Script = Script { file: "torch_ce.py", packages: &["torch", "torchvision", "numpy", "safetensors"] };
/// ONNX Runtime.
pub const ONNXRUNTIME: Script = Script {
    file: "onnx_forward.py",
    packages: &["onnxruntime", "onnx", "onnxscript", "torch", "torchvision", "numpy", "safetensors"],
};

/// Looks for Python and the packages of `script`, and puts it into `directory`: its path.
///
/// # Errors
/// [`Error::Failed`] that says what to install.
pub fn find(script: &Script, peer: Peer, python: &Path, directory: &Path) -> Result<PathBuf, Error> {
    let shown = python.display();
    let install = format!("{shown} -m pip install {}", script.packages.join(" "));
    let found = Command::new(python)
        .args(["-c", &format!("import {}", script.packages.join(", "))])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            let what = format!(
                "{shown} cannot be started: {e}; the peer needs Python 3 (--python PATH names one), then `{install}`"
            );
            Error::Failed(what)
        })?;
    if !found.status.success() {
        let said = String::from_utf8_lossy(&found.stderr);
        let last = said.trim().lines().last().unwrap_or("it says nothing").to_string();
        let what = format!("{shown} has not what {} needs ({last}): `{install}`", peer.name());
        return Err(Error::Failed(what));
    }
    for (name, text) in FILES {
        let path = directory.join(name);
        std::fs::write(&path, text)
            .map_err(|e| Error::Failed(format!("{}: cannot be written: {e}", path.display())))?;
    }
    Ok(directory.join(script.file))
}
