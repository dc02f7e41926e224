//! Files that appear whole or not at all. Every output of the crate (data, weights, checkpoints, tables) goes through
//! [`write_atomic`]: a temporary file in the same directory, flushed to disk, then renamed over the target.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// An output that could not be written: full disk, read-only place, missing directory.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot {doing}: {reason}; nothing was changed there: free some space or choose another place", path = .path.display())]
pub struct WriteError {
    /// The file that was to be written (not the temporary one).
    pub path: PathBuf,
    /// The step that failed, as a verb phrase.
    pub doing: &'static str,
    /// The system's own reason.
    pub reason: io::Error,
}

/// Ends the names of temporary files; they begin with a dot.
const TEMPORARY_SUFFIX: &str = ".partial";

/// Writes `path` through `write`: readers see the old file or the whole new one, also across a crash.
///
/// The temporary file is removed when anything fails, and an existing `path` is then untouched. The directory must
/// exist. New files get the permissions of the user's umask.
///
/// # Errors
/// [`WriteError`] with the failing step, `write`'s own error included.
pub fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>,
) -> Result<(), WriteError> {
    let fail = |doing: &'static str| move |reason: io::Error| WriteError { path: path.to_owned(), doing, reason };
    let Some(name) = path.file_name() else {
        return Err(fail("write a file here")(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file")));
    };
    // A bare file name has the parent "", which no system call takes.
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(TEMPORARY_SUFFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // tempfile's default of 0600 would survive the rename and lock colleagues out; the umask still applies.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut temporary = builder.tempfile_in(directory).map_err(fail("create a temporary file beside it"))?;
    {
        let mut buffer = BufWriter::with_capacity(1 << 18, temporary.as_file_mut());
        write(&mut buffer).and_then(|()| buffer.flush()).map_err(fail("write its content"))?;
    }
    temporary.as_file().sync_all().map_err(fail("flush it to disk"))?;
    temporary.persist(path).map_err(|e| fail("rename the finished file into place")(e.error))?;
    sync_directory(directory).map_err(fail("flush its directory to disk"))
}

/// Removes the temporary files of writes that a killed process left in `directory`. Only the one who owns the directory
/// calls this: another process's write under way would be lost. What cannot be removed stays; nothing reads it.
pub fn remove_leftovers(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let ours = name.starts_with(b".") && name.ends_with(TEMPORARY_SUFFIX.as_bytes());
        if ours && entry.file_type().is_ok_and(|t| t.is_file()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Makes a rename in `directory` last across a power cut, where the system can do that.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(()); // elsewhere a directory cannot be opened as a file
    }
    match File::open(directory).and_then(|d| d.sync_all()) {
        // Some network file systems know no fsync of a directory; the rename itself has happened.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        // A directory one may write but not list cannot be opened.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_finished_write_replaces_the_old_file_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        for text in ["old", "new"] {
            write_atomic(&path, |f| f.write_all(text.as_bytes())).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(dir.path()), ["a.bin"]);
    }

    #[test]
    fn a_write_that_fails_midway_leaves_the_old_file_and_names_path_and_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        std::fs::write(&path, "old").unwrap();
        let error = write_atomic(&path, |f| {
            f.write_all(&[7; 1 << 20])?;
            Err(io::Error::from_raw_os_error(28)) // ENOSPC
        })
        .unwrap_err();
        assert!(error.to_string().contains("a.bin") && error.to_string().contains("No space left"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(dir.path()), ["a.bin"]);
    }

    #[test]
    fn a_panic_inside_the_writer_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        let outcome = std::panic::catch_unwind(|| write_atomic(&path, |_| panic!("planned")));
        assert!(outcome.is_err());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn leftovers_of_a_killed_write_go_and_everything_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".a.binXy12ab.partial", "a.bin", ".hidden", "run.partial"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(dir.path().join(".d.partial")).unwrap();
        remove_leftovers(dir.path());
        assert_eq!(names(dir.path()), [".d.partial", ".hidden", "a.bin", "run.partial"]);
        remove_leftovers(&dir.path().join("no such directory"));
    }

    #[test]
    fn an_impossible_place_is_an_error_and_not_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("no/such/dir/a.bin"), PathBuf::from("/"), PathBuf::new(), dir.path().to_owned()] {
            assert!(write_atomic(&path, |f| f.write_all(b"x")).is_err(), "{path:?}");
        }
        assert!(names(dir.path()).is_empty());
    }
}
