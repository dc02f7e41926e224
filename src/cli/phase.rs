//! Parts of a run that are runs of their own, in directories inside of its own: what each begins or goes on with.

use crate::error::Error;
use crate::report::run::{Manifest, RunDirectory};
use std::path::PathBuf;

/// Where the part `name` of a run goes, and what it goes on with when it was interrupted.
///
/// # Errors
/// As [`RunDirectory::resume`].
pub fn phase(
    directory: &RunDirectory,
    name: &str,
    verb: &str,
) -> Result<(PathBuf, Option<(RunDirectory, Manifest)>), Error> {
    let path = directory.path(name);
    let partial = directory.path(&format!("{name}.partial"));
    let resume = if partial.exists() { Some(RunDirectory::resume(&path, verb)?) } else { None };
    Ok((path, resume))
}

/// An interruption inside such a part: the message names the whole.
pub fn here(e: Error, directory: &RunDirectory) -> Error {
    match e {
        Error::Interrupted { .. } => Error::Interrupted { resume: directory.finished_path().into() },
        other => other,
    }
}
