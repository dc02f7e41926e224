//! The error type of everything that reads data, [`DataError`]. Called by every file of [`super`].

use std::path::PathBuf;

use super::fetch;
use crate::atomic::WriteError;
use crate::tensor::Shape;

/// What can be wrong with data: each names the file, the numbers and the next step.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The system refused a read.
    #[error("{file}: cannot {doing}: {reason}", file = .file.display())]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// The step that failed, as a verb phrase.
        doing: &'static str,
        /// The system's own reason.
        reason: std::io::Error,
    },
    /// An output could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The first four bytes are not those of the expected kind of IDX file.
    #[error("{file}: begins with {got:#010x}, but an IDX file of {what} begins with {want:#010x}; {hint}", file = .file.display())]
    Magic {
        /// The file.
        file: PathBuf,
        /// Its first four bytes, big-endian.
        got: u32,
        /// The magic number of the expected kind.
        want: u32,
        /// The expected kind: `images` or `labels`.
        what: &'static str,
        /// What the file seems to be instead, and what to do.
        hint: &'static str,
    },
    /// The file ends inside its header.
    #[error("{file}: ends after {got} bytes, inside its header of {want}; it is cut short: fetch it again", file = .file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// Bytes there are (decompressed).
        got: u64,
        /// Bytes of a whole header.
        want: u64,
    },
    /// A dimension in the header is 0, or their product is beyond any file.
    #[error("{file}: the header says {dims}, which no data set has; the file is damaged: fetch it again", file = .file.display())]
    Dimensions {
        /// The file.
        file: PathBuf,
        /// Dimensions of the header, the count first.
        dims: Shape,
    },
    /// The content is shorter than the header promises.
    #[error("{file}: the header says {dims}, that is {want} bytes, but {got} follow; it is cut short: fetch it again", file = .file.display())]
    Length {
        /// The file.
        file: PathBuf,
        /// Dimensions of the header, the count first.
        dims: Shape,
        /// Bytes the header promises (after the header).
        want: u64,
        /// Bytes there are (after the header; for a `.gz` found impossible before decompressing, the most it can hold).
        got: u64,
    },
    /// Bytes follow the content that the header promises.
    #[error("{file}: the header says {dims}, that is {want} bytes, but more follow; header or content is wrong: fetch it again", file = .file.display())]
    Trailing {
        /// The file.
        file: PathBuf,
        /// Dimensions of the header, the count first.
        dims: Shape,
        /// Bytes the header promises (after the header).
        want: u64,
    },
    /// The gzip stream is damaged.
    #[error("{file}: its gzip stream is damaged after {at} decompressed bytes ({reason}); fetch it again", file = .file.display())]
    Gzip {
        /// The file.
        file: PathBuf,
        /// Bytes that came out before the damage.
        at: u64,
        /// The decompressor's reason.
        reason: String,
    },
    /// Images and labels do not belong together.
    #[error("{images_file} holds {images} images, but {labels_file} {labels} labels; take both from one source",
        images_file = .images_file.display(), labels_file = .labels_file.display())]
    Counts {
        /// File of the images.
        images_file: PathBuf,
        /// File of the labels.
        labels_file: PathBuf,
        /// Number of images.
        images: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A label that no class has.
    #[error("{file}: label {got} at position {index}, but there are {classes} classes (0 to {}); is it another data set's file?", .classes.saturating_sub(1), file = .file.display())]
    Label {
        /// File of the labels.
        file: PathBuf,
        /// Position, from 0.
        index: usize,
        /// The label.
        got: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A file is whole but not the published one.
    #[error("{file}: MD5 of the decompressed bytes is {got}, but the published file has {want}; delete it and fetch again, or pass your own data without the check", file = .file.display())]
    Digest {
        /// The file.
        file: PathBuf,
        /// MD5 found, hex.
        got: String,
        /// MD5 published, hex.
        want: String,
    },
    /// The directory the user named lacks files.
    #[error("{dir}: no {}; looked for {} (each also with .gz): put them there, or leave out --data to have them fetched", .missing.join(", "), .looked_for.join(", "), dir = .dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
        /// Names that were not found, without `.gz`.
        missing: Vec<String>,
        /// All names looked for, without `.gz`.
        looked_for: Vec<String>,
    },
    /// No source had the data.
    #[error("{what} could not be had; tried, in order:{}\nput the four files into a directory and pass it with --data", list(.tried))]
    Unavailable {
        /// Name of the data.
        what: &'static str,
        /// Every source tried and why it failed.
        tried: Vec<fetch::Attempt>,
    },
    /// The user interrupted a download.
    #[error("interrupted while running {program}; run the command again to go on")]
    Interrupted {
        /// The program that received the signal.
        program: String,
    },
    /// A file that gives no image.
    #[error("{file}: {reason}", file = .file.display())]
    Image {
        /// The file.
        file: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A directory or file is no data set of any layout that is read.
    #[error("{path}: {reason}", path = .path.display())]
    Layout {
        /// The directory or file.
        path: PathBuf,
        /// What was looked for and what to do.
        reason: String,
    },
    /// A line of a table or list is wrong.
    #[error("{file}, line {line}: {reason}", file = .file.display())]
    Row {
        /// The table or list.
        file: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What is wrong and what to do.
        reason: String,
    },
    /// One patient's images are on both sides of a split: what is learned on one side is known on the other.
    #[error(
        "patient {patient} has images in {first} ({first_image}) and in {second} ({second_image}); split by patient: move one of them"
    )]
    Leak {
        /// The patient.
        patient: String,
        /// One part.
        first: &'static str,
        /// An image there.
        first_image: String,
        /// The other part.
        second: &'static str,
        /// An image there.
        second_image: String,
    },
    /// Something needs a class for every image, and this one has none.
    #[error("{image} has no label, and {what} needs one; leave out images without, or do without labels")]
    Unlabelled {
        /// The image's path or number.
        image: String,
        /// What needs it.
        what: &'static str,
    },
    /// A data set put together from parts that do not fit.
    #[error(
        "a data set of {labels} images of shape {shape} needs {want} bytes, {ids} numbers and labels below {classes}, but there are {got} bytes and the largest label is {label_max}"
    )]
    Parts {
        /// Shape of one image, C x H x W.
        shape: Shape,
        /// Bytes the shape asks for.
        want: usize,
        /// Bytes given.
        got: usize,
        /// Labels given.
        labels: usize,
        /// Image numbers given.
        ids: usize,
        /// Largest label.
        label_max: u32,
        /// Number of classes.
        classes: usize,
    },
    /// An image number beyond the data set.
    #[error("image {index} does not exist: the data set has {len} images (0 to {})", .len.saturating_sub(1))]
    Index {
        /// The number asked for.
        index: u32,
        /// Images there are.
        len: usize,
    },
}

/// The tries of a fetch, one a line.
fn list(tried: &[fetch::Attempt]) -> String {
    tried.iter().map(|attempt| format!("\n  {attempt}")).collect()
}
