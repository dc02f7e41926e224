//! The one way in for a path that a user names: [`recognise`] tells what lies there, [`open`] reads it. Called by the
//! command line.

use std::path::Path;

use rayon::prelude::*;

use super::decode::{Format, recognise as format_of};
use super::files::{Files, OnBadFile, Policy, Record, Skipped};
use super::folder::{self, EXTENSIONS, Scanned, entries, is_image};
use super::transform::Transform;
use super::{DataError, Dataset, manifest, nih};

/// What a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The four files of MNIST and Fashion-MNIST: [`super::fetch`] loads them.
    Idx,
    /// One directory a class.
    ImageFolder,
    /// Images side by side, without labels.
    Flat,
    /// A table of paths.
    Manifest,
    /// NIH ChestX-ray14.
    Nih,
}

impl Layout {
    /// What it is called in a log.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Idx => "IDX files",
            Layout::ImageFolder => "a directory a class",
            Layout::Flat => "images without labels",
            Layout::Manifest => "a table of images",
            Layout::Nih => "NIH ChestX-ray14",
        }
    }
}

/// A table of this name in a directory makes the directory one.
const MANIFEST: &str = "manifest.csv";

/// A set that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The set.
    pub data: Dataset,
    /// What it was read as.
    pub layout: Layout,
    /// What a user should know: counts of what was left out, and why.
    pub notes: Vec<String>,
    /// Files left out for what is in them; empty unless [`OnBadFile::Skip`].
    pub skipped: Vec<Skipped>,
}

fn wrong(path: &Path, reason: String) -> DataError {
    DataError::Layout { path: path.to_owned(), reason }
}

/// What lies at `path`.
///
/// # Errors
/// [`DataError::Layout`] says what was looked for; [`DataError::Io`].
pub fn recognise(path: &Path) -> Result<Layout, DataError> {
    let about =
        std::fs::metadata(path).map_err(|reason| DataError::Io { file: path.to_owned(), doing: "find it", reason })?;
    if !about.is_dir() {
        let is_csv = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        return match (nih::TABLES.contains(&name), is_csv) {
            (true, _) => Ok(Layout::Nih),
            (false, true) => Ok(Layout::Manifest),
            (false, false) => Err(wrong(
                path,
                "one file is a data set only as a .csv with the columns path and label; name the directory of the images, or \
                 such a table"
                    .into(),
            )),
        };
    }
    let top = entries(path)?;
    let is_idx = |name: &String| name.contains("-idx3-ubyte") || name.contains("-idx1-ubyte");
    if top.files.iter().any(is_idx) {
        return Ok(Layout::Idx);
    }
    if top.files.iter().any(|name| name == MANIFEST) {
        return Ok(Layout::Manifest);
    }
    if nih::is_here(path) {
        return Ok(Layout::Nih);
    }
    for directory in &top.directories {
        if !folder::images_below(path, directory)?.images.is_empty() {
            return Ok(Layout::ImageFolder);
        }
    }
    if top.files.iter().any(|name| is_image(name)) {
        return Ok(Layout::Flat);
    }
    Err(wrong(
        path,
        format!(
            "no data set: looked for IDX files (train-images-idx3-ubyte, ...), {MANIFEST}, {} with images/, a directory a class, \
             and images (.{}) directly in it; it has {} directories and {} files",
            nih::TABLES[0],
            EXTENSIONS.join(" ."),
            top.directories.len(),
            top.files.len()
        ),
    ))
}

/// Opens the set at `path`. Nothing is decoded yet, unless `policy` has bad files left out.
///
/// # Errors
/// [`DataError::Layout`] says what was looked for; what is wrong with a table names its line; a set with a patient in two
/// parts is [`DataError::Leak`].
pub fn open(path: &Path, transform: Transform, policy: Policy) -> Result<Opened, DataError> {
    let layout = recognise(path)?;
    let above = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_dir = path.is_dir();
    let root = if is_dir { path } else { above };
    let Scanned { records, classes, mut notes } = match layout {
        Layout::Idx => {
            let reason = "it holds IDX files, which are read whole and not as image files; name it where Fashion-MNIST is asked for";
            return Err(wrong(path, reason.into()));
        }
        Layout::ImageFolder => folder::image_folder(root)?,
        Layout::Flat => folder::flat(root)?,
        Layout::Manifest if is_dir => manifest::read(&root.join(MANIFEST))?,
        Layout::Manifest => manifest::read(path)?,
        Layout::Nih => nih::read(root)?,
    };
    if records.is_empty() {
        return Err(wrong(path, "it names no image".into()));
    }
    if records.len() > u32::MAX as usize {
        return Err(wrong(path, format!("it names {} images, more than can be numbered", records.len())));
    }
    let (misnamed, missing) = looked_at(root, &records);
    if let (Some(first), OnBadFile::Stop) = (missing.first(), policy.on_bad_file) {
        let reason = format!(
            "{} of {} images are not there, the first is {first}; paths are below {}; --on-bad-file skip leaves them out",
            missing.len(),
            records.len(),
            root.display()
        );
        return Err(wrong(path, reason));
    }
    if let Some((first, format)) = misnamed.first() {
        let count = misnamed.len();
        notes.push(format!(
            "{count} files are of another format than their name says (read all the same; {first} is {})",
            format.name()
        ));
    }
    let all = records.len();
    let (files, skipped) = Files::open(root, records, transform, policy);
    if files.is_empty() {
        let first = skipped.first().map_or_else(String::new, |s| format!(": {}", s.reason));
        return Err(wrong(path, format!("none of its {all} files gives an image{first}")));
    }
    if !skipped.is_empty() {
        notes.push(format!("{} of {all} files give no image and are left out", skipped.len()));
    }
    Ok(Opened { data: Dataset::of_files(files, classes), layout, notes, skipped })
}

/// Files whose content is of another format than their name says, and files that are not there. Reads a few bytes of each.
fn looked_at<'a>(root: &Path, records: &'a [Record]) -> (Vec<(&'a str, Format)>, Vec<&'a str>) {
    enum Look {
        Fine,
        Misnamed(Format),
        Missing,
    }
    let look = |record: &Record| {
        let path = root.join(&record.path);
        match std::fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Look::Missing,
            // what it is shows when it is read; a pipe must not be opened
            Ok(about) if about.is_file() => {}
            _ => return Look::Fine,
        }
        let mut start = Vec::new();
        let opened = std::fs::File::open(&path);
        let read = opened.and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, 132), &mut start));
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match read.ok().and_then(|_| format_of(&start).ok()) {
            Some(format) if !format.extensions().contains(&&*extension) => Look::Misnamed(format),
            _ => Look::Fine,
        }
    };
    let looks: Vec<Look> = records.par_iter().map(look).collect();
    let (mut misnamed, mut missing) = (Vec::new(), Vec::new());
    for (record, look) in records.iter().zip(looks) {
        match look {
            Look::Fine => {}
            Look::Misnamed(format) => misnamed.push((&*record.path, format)),
            Look::Missing => missing.push(&*record.path),
        }
    }
    (misnamed, missing)
}
