//! The engines that are compared with. Their side comes with the program (`benches/peers/`).
//!
//! - [`python`]: scripts, run by the user's Python. [`rust`]: programs, which the user's cargo builds.

mod python;
mod rust;

use super::Job;
use super::rows::Row;
use crate::cli::common::Context;
use crate::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// PyTorch: eager, and torch.compile with frozen weights
    Torch,
    /// ONNX Runtime, of a network that PyTorch exported: plain inference
    Onnxruntime,
    /// candle on its CPU backend, built by cargo: plain inference
    Candle,
    /// tract, built by cargo: plain inference
    Tract,
}

impl Peer {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Torch => "torch",
            Peer::Onnxruntime => "onnxruntime",
            Peer::Candle => "candle",
            Peer::Tract => "tract",
        }
    }

    /// Whether it has variants to choose from.
    pub fn has_variants(self) -> bool {
        self != Peer::Onnxruntime
    }

    /// Why it cannot run a job, if it cannot.
    pub fn lacks(self, job: Job) -> Option<&'static str> {
        match (self, job) {
            (Peer::Torch, _) | (_, Job::Forward) => None,
            (Peer::Onnxruntime, Job::Start) => {
                Some("ONNX Runtime starts from a file of its own, which has to be exported first")
            }
            (Peer::Onnxruntime, Job::Sweep) => Some("the export is of the whole network: no cut at a tap"),
            (Peer::Onnxruntime | Peer::Tract, Job::Attack | Job::Train | Job::TrainAe) => {
                Some("it computes no gradients")
            }
            (Peer::Onnxruntime | Peer::Candle | Peer::Tract, _) => Some("plain inference alone is compared with it"),
        }
    }
}

/// A peer that can be started.
pub struct Installed {
    peer: Peer,
    program: PathBuf,
    /// What the program runs, if it is Python.
    script: Option<PathBuf>,
}

impl Installed {
    /// Makes a peer ready: looks for what it needs and puts scripts into `directory`, or builds it.
    ///
    /// # Errors
    /// [`Error::Failed`] that says what to install, [`Error::Usage`] for a Python that nobody needs, [`Error::Stopped`].
    pub fn find(peer: Peer, python: Option<&Path>, directory: &Path, context: &Context) -> Result<Installed, Error> {
        let scripted = |script: python::Script| -> Result<Installed, Error> {
            let python = python.unwrap_or(Path::new("python3"));
            let script = python::find(&script, peer, python, directory)?;
            Ok(Installed { peer, program: python.into(), script: Some(script) })
        };
        match peer {
            Peer::Torch => scripted(python::TORCH),
            Peer::Onnxruntime => scripted(python::ONNXRUNTIME),
            Peer::Candle | Peer::Tract if python.is_some() => {
                Err(Error::Usage(format!("cargo builds the peer {}: --python does not apply", peer.name())))
            }
            Peer::Candle | Peer::Tract => Ok(Installed { peer, program: rust::build(peer, context)?, script: None }),
        }
    }

    /// Who it is.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The command that serves a row.
    pub fn command(&self, row: &Row) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.script);
        command.args([&row.job.name(), "--model", row.model, "--tap", row.tap, "--serve", "--compile"]);
        command
    }
}
