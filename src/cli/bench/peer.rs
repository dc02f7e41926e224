//! The engines that are compared with: Python scripts that come with the program (benches/peers/), run by the user's Python.

use super::Job;
use super::rows::Row;
use crate::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TORCH: &str = include_str!("../../../benches/peers/torch_ce.py");
const ONNXRUNTIME: &str = include_str!("../../../benches/peers/onnx_forward.py");
const PROTOCOL: &str = include_str!("../../../benches/peers/protocol.py");

/// Who is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// PyTorch: eager, and torch.compile with frozen weights
    Torch,
    /// ONNX Runtime, of a network that PyTorch exported: plain inference
    Onnxruntime,
}

impl Peer {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Torch => "torch",
            Peer::Onnxruntime => "onnxruntime",
        }
    }

    /// The Python packages that it needs.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Peer::Torch => &["torch", "torchvision", "numpy", "safetensors"],
            Peer::Onnxruntime => &["onnxruntime", "onnx", "onnxscript", "torch", "torchvision", "numpy", "safetensors"],
        }
    }

    /// Whether it has variants to choose from.
    pub fn has_variants(self) -> bool {
        self == Peer::Torch
    }

    /// Why it cannot run a job, if it cannot.
    pub fn lacks(self, job: Job) -> Option<&'static str> {
        match (self, job) {
            (Peer::Torch, _) | (Peer::Onnxruntime, Job::Forward) => None,
            (Peer::Onnxruntime, Job::Start) => {
                Some("ONNX Runtime starts from a file of its own, which has to be exported first")
            }
            (Peer::Onnxruntime, Job::Sweep) => Some("the export is of the whole network: no cut at a tap"),
            (Peer::Onnxruntime, _) => Some("it computes no gradients"),
        }
    }
}

/// A peer that can be started.
pub struct Installed {
    peer: Peer,
    python: PathBuf,
    script: PathBuf,
}

impl Installed {
    /// Looks for Python and the packages, and puts the scripts into `directory`.
    ///
    /// # Errors
    /// [`Error::Failed`] that says what to install.
    pub fn find(peer: Peer, python: &Path, directory: &Path) -> Result<Installed, Error> {
        let packages = peer.packages();
        let shown = python.display();
        let install = format!("{shown} -m pip install {}", packages.join(" "));
        let found = Command::new(python)
            .args(["-c", &format!("import {}", packages.join(", "))])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| {
                let what = format!("{shown} cannot be started: {e}; the peer needs Python 3 (--python PATH names one), then `{install}`");
                Error::Failed(what)
            })?;
        if !found.status.success() {
            let said = String::from_utf8_lossy(&found.stderr);
            let last = said.trim().lines().last().unwrap_or("it says nothing").to_string();
            let what = format!("{shown} has not what {} needs ({last}): `{install}`", peer.name());
            return Err(Error::Failed(what));
        }
        // one imports the other
        for (name, text) in [("torch_ce.py", TORCH), ("onnx_forward.py", ONNXRUNTIME), ("protocol.py", PROTOCOL)] {
            let path = directory.join(name);
            std::fs::write(&path, text)
                .map_err(|e| Error::Failed(format!("{}: cannot be written: {e}", path.display())))?;
        }
        let script = match peer {
            Peer::Torch => "torch_ce.py",
            Peer::Onnxruntime => "onnx_forward.py",
        };
        Ok(Installed { peer, python: python.into(), script: directory.join(script) })
    }

    /// Who it is.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The command that serves a row.
    pub fn command(&self, row: &Row) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(&self.script).args([
            &row.job.name(),
            "--model",
            row.model,
            "--tap",
            row.tap,
            "--serve",
            "--compile",
        ]);
        command
    }
}
