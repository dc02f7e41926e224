//! Directories of images: one directory a class, as torchvision's `ImageFolder` has them, or images side by side without
//! labels. Called by [`super::open()`].

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::DataError;
use super::files::Record;

/// Endings of names that count as images, without regard to case: torchvision's, and DICOM's. What a file is, its content
/// says.
pub const EXTENSIONS: [&str; 11] = ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp", "dcm", "dicom"];

/// Deepest nesting that is followed.
const DEPTH_MAX: usize = 32;

/// Whether a file of that name counts as an image.
pub fn is_image(name: &str) -> bool {
    Path::new(name)
        .extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| EXTENSIONS.contains(&e.to_ascii_lowercase().as_str()))
}

/// Entries of a directory by name, ascending; directories and files apart.
pub(super) struct Entries {
    /// Names of directories, but for hidden ones.
    pub directories: Vec<String>,
    /// Names of everything else.
    pub files: Vec<String>,
}

/// Lists a directory. Links count as what they lead to; what leads nowhere counts as a file, so that it is missed by name.
pub(super) fn entries(directory: &Path) -> Result<Entries, DataError> {
    let io = |reason| DataError::Io { file: directory.to_owned(), doing: "list it", reason };
    let (mut directories, mut files) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            let reason = "its name is not UTF-8: rename it".to_owned();
            return Err(DataError::Image { file: path, reason });
        };
        match std::fs::metadata(&path) {
            // `.ipynb_checkpoints` and the like are no classes
            Ok(about) if about.is_dir() && name.starts_with('.') => {}
            Ok(about) if about.is_dir() => directories.push(name.to_owned()),
            _ => files.push(name.to_owned()),
        }
    }
    directories.sort_unstable();
    files.sort_unstable();
    Ok(Entries { directories, files })
}

/// What lies below a directory.
pub(super) struct Found {
    /// Paths of images below it, with `/`.
    pub images: Vec<String>,
    /// Number of other files.
    pub others: usize,
}

/// The images below `root/start` at any depth, in torchvision's order: directories by their whole path, files by name.
pub(super) fn images_below(root: &Path, start: &str) -> Result<Found, DataError> {
    let mut seen: HashSet<PathBuf> = HashSet::new();
    let mut left = vec![(start.to_owned(), 0)];
    let mut directories = Vec::new();
    while let Some((directory, depth)) = left.pop() {
        let path = root.join(&directory);
        let real = path.canonicalize();
        let real = real.map_err(|reason| DataError::Io { file: path.clone(), doing: "list it", reason })?;
        // a link may lead back up
        if depth > DEPTH_MAX || !seen.insert(real) {
            continue;
        }
        let found = entries(&path)?;
        left.extend(found.directories.iter().map(|name| (joined(&directory, name), depth + 1)));
        directories.push((directory, found.files));
    }
    directories.sort_unstable();
    let (mut images, mut others) = (Vec::new(), 0);
    for (directory, files) in directories {
        for name in files {
            if is_image(&name) {
                images.push(joined(&directory, &name));
            } else {
                others += 1;
            }
        }
    }
    Ok(Found { images, others })
}

fn joined(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// A set read from directories.
#[derive(Debug)]
pub struct Scanned {
    /// Its files, in order.
    pub records: Vec<Record>,
    /// Names of its classes; none for images without labels.
    pub classes: Vec<String>,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// One directory a class, ascending; their images at any depth.
///
/// # Errors
/// [`DataError::Layout`] names classes without images, as torchvision refuses them; [`DataError::Io`].
pub fn image_folder(root: &Path) -> Result<Scanned, DataError> {
    let top = entries(root)?;
    let (mut records, mut empty, mut others) = (Vec::new(), Vec::new(), 0);
    for (class, name) in (0u32..).zip(&top.directories) {
        let found = images_below(root, name)?;
        others += found.others;
        if found.images.is_empty() {
            empty.push(name.as_str());
        }
        let record = |path| Record { path, class: Some(class), ..Record::default() };
        records.extend(found.images.into_iter().map(record));
    }
    if !empty.is_empty() {
        let shown = empty.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        let reason = format!(
            "{} of its {} class directories hold no image ({shown}); looked for names that end in .{}: remove them, for a \
             class's number is its place among the directories",
            empty.len(),
            top.directories.len(),
            EXTENSIONS.join(" .")
        );
        return Err(DataError::Layout { path: root.to_owned(), reason });
    }
    let mut notes = Vec::new();
    let loose = top.files.iter().filter(|name| is_image(name)).count();
    if loose > 0 {
        notes.push(format!("{loose} images beside the class directories are in no class and left out"));
    }
    if others > 0 {
        notes.push(format!("{others} files in the class directories are no images by their names and left out"));
    }
    Ok(Scanned { records, classes: top.directories, notes })
}

/// Images side by side, without labels.
///
/// # Errors
/// [`DataError::Io`].
pub fn flat(root: &Path) -> Result<Scanned, DataError> {
    let files = entries(root)?.files;
    let all = files.len();
    let image = |path: String| is_image(&path).then(|| Record { path, ..Record::default() });
    let records: Vec<Record> = files.into_iter().filter_map(image).collect();
    let others = all - records.len();
    let mut notes =
        vec!["the images have no labels: accuracy and attacks on the true label are not to be had".to_owned()];
    if others > 0 {
        notes.push(format!("{others} files are no images by their names and left out"));
    }
    Ok(Scanned { records, classes: Vec::new(), notes })
}
