//! IDX files (MNIST's format), plain or gzip, recognised by content: big-endian magic and dimensions, then bytes.
//! Images are N x H x W, labels N. The reader allocates no more than the file really holds, whatever its header says,
//! and never panics. Called by `fetch` and by anyone with data of that layout ([`load_pair`]).

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use md5::{Digest, Md5};

use super::{DataError, Dataset};
use crate::digest::hex;
use crate::tensor::Shape;

/// Which of the two files one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// u8 images: magic 0x803, three dimensions (count, rows, columns).
    Images,
    /// u8 labels: magic 0x801, one dimension (count).
    Labels,
}

impl Kind {
    /// The magic number: two zero bytes, 8 for u8, the number of dimensions.
    pub fn magic(self) -> u32 {
        match self {
            Kind::Images => 0x0803,
            Kind::Labels => 0x0801,
        }
    }

    fn rank(self) -> usize {
        (self.magic() & 0xff) as usize
    }

    fn what(self) -> &'static str {
        match self {
            Kind::Images => "images",
            Kind::Labels => "labels",
        }
    }
}

/// One IDX file in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    kind: Kind,
    shape: Shape,
    data: Vec<u8>,
}

impl Idx {
    /// Images or labels.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// N x H x W for images, N for labels.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The bytes behind the header, row-major.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// MD5 (hex) of the whole decompressed file, header included: what publishers of IDX files state.
    pub fn md5(&self) -> String {
        let mut md5 = Md5::new();
        md5.update(self.kind.magic().to_be_bytes());
        for &dim in self.shape.dims() {
            md5.update((dim as u32).to_be_bytes()); // each was read from 32 bits
        }
        md5.update(&self.data);
        hex(&md5.finalize())
    }
}

/// Reads one IDX file, plain or gzip.
///
/// # Errors
/// Every [`DataError`] that names a single file: unreadable, wrong magic, cut short, too long, damaged gzip.
pub fn read(path: &Path, kind: Kind) -> Result<Idx, DataError> {
    let io = |doing: &'static str| move |reason: io::Error| DataError::Io { file: path.to_owned(), doing, reason };
    // Before opening: a named pipe would block the open for ever.
    let about = std::fs::metadata(path).map_err(io("find it"))?;
    if !about.is_file() {
        return Err(io("read it")(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let mut file = File::open(path).map_err(io("open it"))?;
    let mut start = Vec::with_capacity(2);
    file.by_ref().take(2).read_to_end(&mut start).map_err(io("read it"))?;
    let gzip = start == [0x1f, 0x8b];
    let whole = io::BufReader::with_capacity(1 << 16, io::Cursor::new(start).chain(file));
    if gzip {
        // Deflate cannot expand more than 1032-fold; a header that asks for more is refused before any work.
        let most = about.len().saturating_mul(1032);
        parse(path, kind, MultiGzDecoder::new(whole), most, Coding::Gzip)
    } else {
        parse(path, kind, whole, about.len(), Coding::Plain)
    }
}

/// How the bytes lie in the file: decides what a read error means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    Plain,
    Gzip,
}

/// The IDX file in `bytes`, which holds at most `most` bytes (decompressed).
fn parse(path: &Path, kind: Kind, mut bytes: impl Read, most: u64, coding: Coding) -> Result<Idx, DataError> {
    let file = || path.to_owned();
    let fail = |at: u64, source: io::Error| match coding {
        Coding::Plain => DataError::Io { file: file(), doing: "read it", reason: source },
        Coding::Gzip => DataError::Gzip { file: file(), at, reason: source.to_string() },
    };
    let header_len = 4 + 4 * kind.rank();
    let mut header = Vec::with_capacity(header_len);
    bytes.by_ref().take(header_len as u64).read_to_end(&mut header).map_err(|e| fail(0, e))?;
    let words: Vec<u32> =
        header.chunks_exact(4).map(|w| w.iter().fold(0, |word, &b| (word << 8) | u32::from(b))).collect();
    if let Some(&got) = words.first()
        && got != kind.magic()
    {
        return Err(DataError::Magic { file: file(), got, want: kind.magic(), what: kind.what(), hint: hint(got) });
    }
    if header.len() < header_len {
        return Err(DataError::Header { file: file(), got: header.len() as u64, want: header_len as u64 });
    }
    let shape = Shape::new(words[1..].iter().map(|&d| d as usize).collect::<Vec<_>>());
    let want = match shape.checked_len() {
        Some(len) if len > 0 && len < isize::MAX as usize => len as u64,
        _ => return Err(DataError::Dimensions { file: file(), dims: shape }),
    };
    let most = most.saturating_sub(header_len as u64);
    if want > most {
        return Err(DataError::Length { file: file(), dims: shape, want, got: most });
    }
    // `read_to_end` grows with what really arrives, so a lying header costs nothing; one byte more shows a tail, and
    // reading to the end makes gzip check its checksum.
    let mut data = Vec::new();
    if coding == Coding::Plain {
        data.reserve_exact(want as usize + 1); // the file is that long
    }
    if let Err(source) = bytes.take(want + 1).read_to_end(&mut data) {
        return Err(fail((header_len + data.len()) as u64, source));
    }
    let got = data.len() as u64;
    if got < want {
        return Err(DataError::Length { file: file(), dims: shape, want, got });
    }
    if got > want {
        return Err(DataError::Trailing { file: file(), dims: shape, want });
    }
    data.shrink_to_fit();
    Ok(Idx { kind, shape, data })
}

/// What a file with this start most likely is.
fn hint(magic: u32) -> &'static str {
    match magic {
        0x0801 => "it holds labels: the two files are swapped",
        0x0803 => "it holds images: the two files are swapped",
        0x0103_0000 | 0x0308_0000 | 0x0108_0000 => "its bytes are swapped",
        0x7665_7273 => "it looks like a git-LFS pointer: run `git lfs pull` where it came from",
        0x3c21_444f | 0x3c21_646f | 0x3c68_746d | 0x3c48_544d => "it is a web page, not data: fetch it again",
        m if m >> 16 == 0x504b => "it is a zip archive: unpack it first",
        _ => "it is not an IDX file: fetch it again",
    }
}

/// Images and labels that belong together, as a data set of shape 1 x H x W.
///
/// # Errors
/// As [`read`], and [`DataError::Counts`] or [`DataError::Label`] when the two files do not fit.
pub fn load_pair(images: &Path, labels: &Path, classes: &[&str]) -> Result<Dataset, DataError> {
    let (image_idx, label_idx) = (read(images, Kind::Images)?, read(labels, Kind::Labels)?);
    pair((images, image_idx), (labels, label_idx), classes)
}

/// Joins two files already read.
pub(super) fn pair(
    (images_file, images): (&Path, Idx),
    (labels_file, labels): (&Path, Idx),
    classes: &[&str],
) -> Result<Dataset, DataError> {
    let count = images.shape.dims().first().copied().unwrap_or(0);
    if count != labels.data.len() {
        return Err(DataError::Counts {
            images_file: images_file.to_owned(),
            labels_file: labels_file.to_owned(),
            images: count,
            labels: labels.data.len(),
        });
    }
    if let Some(index) = labels.data.iter().position(|&l| usize::from(l) >= classes.len()) {
        return Err(DataError::Label {
            file: labels_file.to_owned(),
            index,
            got: u32::from(labels.data[index]),
            classes: classes.len(),
        });
    }
    let labels = labels.data.into_iter().map(u32::from).collect();
    let mut shape = vec![1];
    shape.extend_from_slice(&images.shape.dims()[1..]); // rank 3 by `Kind::Images`
    Dataset::new(images.data, labels, shape, classes.iter().map(|&c| c.to_owned()).collect())
}
