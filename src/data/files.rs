//! Images that stay files until they are asked for, [`Files`]: what is known of each without opening it, decoding on
//! threads of its own, a cache for small sets, and the digests that a manifest wants. Called by [`super::Dataset`].

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::DataError;
use super::augment::{Augment, seen};
use super::decode;
use super::findings::Findings;
use super::image;
use super::pool::{Pool, Product};
use super::transform::{Rectangle, Transform};
use crate::random::fnv1a_64;

/// The part of a data set that a list or column puts an image into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// To train on.
    Train,
    /// To choose by while training.
    Validation,
    /// To judge with.
    Test,
}

impl Part {
    /// Its name in tables and errors.
    pub fn name(self) -> &'static str {
        match self {
            Part::Train => "train",
            Part::Validation => "val",
            Part::Test => "test",
        }
    }
}

/// A finding's place on an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Marked {
    /// Number of the finding.
    pub finding: usize,
    /// Where, in shares of the image's width and height.
    pub place: Rectangle,
}

/// What is known of an image file without opening it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Path below the data set's directory, with `/` between names on every system.
    pub path: String,
    /// Its class; none for a set without classes.
    pub class: Option<u32>,
    /// Its findings; none for a set of classes.
    pub findings: Option<Findings>,
    /// Whose image it is.
    pub patient: Option<String>,
    /// The part it belongs to.
    pub part: Option<Part>,
    /// Marked places.
    pub marked: Vec<Marked>,
    /// The patient's sex, as the table has it.
    pub sex: Option<String>,
    /// How the image was taken (of X-rays `PA` or `AP`), as the table has it.
    pub view: Option<String>,
}

impl Record {
    /// Its number in random streams: FNV-1a-64 of the path, so that it does not depend on what else lies beside it.
    pub fn id(&self) -> u64 {
        fnv1a_64(&self.path)
    }
}

/// What to do about a file that gives no image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadFile {
    /// The run stops when it comes to the file, and names it.
    #[default]
    Stop,
    /// Every file is decoded once when the set is opened, and those that give no image are left out and listed. Which rows
    /// remain is decided there: a file that breaks later stops the run.
    Skip,
}

/// How a set of files is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What to do about bad files.
    pub on_bad_file: OnBadFile,
    /// Decode threads.
    pub threads: usize,
    /// Most bytes of decoded images that lie ready ahead of need.
    pub ahead_bytes: usize,
    /// A set whose images all fit into this many bytes, decoded, is kept.
    pub cache_bytes: usize,
}

/// Stops on bad files; a thread a core, at most 8; 128 MiB ahead (890 images of 3x224x224); a cache of 512 MiB (3,566).
impl Default for Policy {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Policy { on_bad_file: OnBadFile::Stop, threads: cores.min(8), ahead_bytes: 128 << 20, cache_bytes: 512 << 20 }
    }
}

/// A file that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// What the threads work on.
struct Source {
    root: PathBuf,
    records: Vec<Record>,
    transform: Transform,
    /// Decoded images; none where the set is larger than the budget.
    cache: Option<Vec<OnceLock<Arc<[u8]>>>>,
    /// Length and SHA-256 of each file, once they were asked for.
    digests: Vec<OnceLock<(u64, [u8; 32])>>,
}

/// An image, as it is or as training sees it.
type Job = (u32, Option<Augment>);

/// Image files of one data set.
pub struct Files {
    source: Arc<Source>,
    pool: Pool<Job>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} files below {}", self.source.records.len(), self.source.root.display())
    }
}

impl Source {
    fn path(&self, row: u32) -> PathBuf {
        self.root.join(&self.records[row as usize].path)
    }

    /// The bytes of an image, C x H x W.
    fn decoded(&self, (row, augment): Job) -> Product {
        let kept = self.cache.as_ref().filter(|_| augment.is_none()).and_then(|c| c.get(row as usize));
        if let Some(pixels) = kept.and_then(OnceLock::get) {
            return Ok(pixels.clone());
        }
        let pixels = self.pixels_of(row, augment, &image::read_bytes(&self.path(row))?)?;
        if let Some(kept) = kept {
            let _ = kept.set(pixels.clone()); // another thread's is the same
        }
        Ok(pixels)
    }

    fn pixels_of(&self, row: u32, augment: Option<Augment>, bytes: &[u8]) -> Product {
        let failed = |reason: String| DataError::Image { file: self.path(row), reason };
        let (image, _) =
            decode::decode(bytes, &decode::Limits::default()).map_err(|damage| failed(damage.to_string()))?;
        let size = [image.width, image.height];
        let out = match augment {
            None => self.transform.apply(image),
            Some(augment) => {
                let view = augment.view(self.records[row as usize].id(), size);
                let side = self.transform.size();
                Some(seen(&image.into_channels(self.transform.channels), view, [side[1], side[0]]))
            }
        };
        let Some(out) = out else {
            let [height, width] = self.transform.size();
            let [own_width, own_height] = size;
            return Err(failed(format!("it is {own_width}x{own_height}, and images of {width}x{height} are needed")));
        };
        Ok(out.planar().into())
    }

    fn digest(&self, row: u32) -> Result<(u64, [u8; 32]), DataError> {
        let kept = &self.digests[row as usize];
        if let Some(digest) = kept.get() {
            return Ok(*digest);
        }
        let path = self.path(row);
        let failed = |reason: std::io::Error| DataError::Io { file: path.clone(), doing: "read it", reason };
        let mut file = std::fs::File::open(&path).map_err(failed)?;
        let (mut sha, mut length, mut buffer) = (Sha256::new(), 0u64, vec![0u8; 1 << 16]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    sha.update(&buffer[..n]);
                    length += n as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(*kept.get_or_init(|| (length, sha.finalize().into())))
    }
}

impl Files {
    /// The files of `records` below `root`, with what [`OnBadFile::Skip`] left out. The records' order is the set's.
    pub fn open(root: &Path, records: Vec<Record>, transform: Transform, policy: Policy) -> (Files, Vec<Skipped>) {
        let image_bytes = transform.shape().len();
        let caches = records.len().saturating_mul(image_bytes) <= policy.cache_bytes;
        let cells = records.len();
        let cache = caches.then(|| std::iter::repeat_with(OnceLock::new).take(cells).collect());
        let digests = std::iter::repeat_with(OnceLock::new).take(cells).collect();
        let mut source = Source { root: root.to_owned(), records, transform, cache, digests };
        let mut skipped = Vec::new();
        if policy.on_bad_file == OnBadFile::Skip {
            skipped = source.leave_out_bad_files();
        }
        let source = Arc::new(source);
        let (run, crashed) = (source.clone(), source.clone());
        let ahead = (policy.ahead_bytes / image_bytes.max(1)).max(2 * policy.threads.max(1));
        let crash = move |&(row, _): &Job| DataError::Image {
            file: crashed.path(row),
            reason: "its decoder stopped on an error of its own: please report it, with the file".into(),
        };
        (Files { source, pool: Pool::new(policy.threads.max(1), ahead, move |&job| run.decoded(job), crash) }, skipped)
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.source.records.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.source.records.is_empty()
    }

    /// What is known of file `row`.
    pub fn record(&self, row: u32) -> Option<&Record> {
        self.source.records.get(row as usize)
    }

    /// What is done to each.
    pub fn transform(&self) -> Transform {
        self.source.transform
    }

    /// Says which files will be asked for, in order; replaces what was announced before.
    pub fn announce(&self, rows: impl Iterator<Item = u32>, augment: Option<Augment>) {
        self.pool.announce(rows.map(|row| (row, augment)));
    }

    /// The bytes of each of `rows` (which must exist), in order, given to `each` with its position.
    ///
    /// # Errors
    /// The first file's that gives no image.
    pub fn take(
        &self,
        rows: &[u32],
        augment: Option<Augment>,
        each: impl FnMut(usize, &[u8]),
    ) -> Result<(), DataError> {
        let jobs: Vec<Job> = rows.iter().map(|&row| (row, augment)).collect();
        self.pool.take(&jobs, each)
    }

    /// Where the marked places of file `row` lie after the transform, those of which something is left.
    ///
    /// # Errors
    /// When the file cannot be read or has no header.
    pub fn placed(&self, row: u32) -> Result<Vec<Marked>, DataError> {
        let Some(record) = self.record(row).filter(|r| !r.marked.is_empty()) else { return Ok(Vec::new()) };
        let file = self.source.path(row);
        let bytes = image::read_bytes(&file)?;
        let Some((width, height)) = decode::size(&bytes) else {
            return Err(DataError::Image { file, reason: "it has no header that tells its size".into() });
        };
        let (w, h) = (width as f64, height as f64);
        let place = |marked: &Marked| {
            let r = marked.place;
            let own = Rectangle { x: r.x * w, y: r.y * h, width: r.width * w, height: r.height * h };
            let place = self.source.transform.place([width, height], own)?;
            Some(Marked { finding: marked.finding, place })
        };
        Ok(record.marked.iter().filter_map(place).collect())
    }

    /// SHA-256 over files `rows` in the order of their paths: the transform, and of each path, length, SHA-256, class, findings and,
    /// where they are known, patient and marked places. Each file is read once, in pieces, and its digest kept.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn hash(&self, rows: &[u32]) -> Result<[u8; 32], DataError> {
        let source = &*self.source;
        let digests = rows.par_iter().map(|&row| source.digest(row)).collect::<Result<Vec<_>, _>>()?;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let record = |i: usize| &source.records[rows[i] as usize];
        order.sort_by(|&a, &b| record(a).path.cmp(&record(b).path));
        let mut sha = Sha256::new();
        let text = |sha: &mut Sha256, text: &str| {
            sha.update((text.len() as u64).to_le_bytes());
            sha.update(text.as_bytes());
        };
        text(&mut sha, &source.transform.text());
        for i in order {
            let (length, digest) = &digests[i];
            text(&mut sha, &record(i).path);
            sha.update(length.to_le_bytes());
            sha.update(digest);
            let none = u64::MAX;
            sha.update(record(i).class.map_or(none, u64::from).to_le_bytes());
            sha.update(record(i).findings.map_or(none, |f| u64::from(f.bits())).to_le_bytes());
            if let Some(patient) = &record(i).patient {
                text(&mut sha, patient);
            }
            for Marked { finding, place } in &record(i).marked {
                sha.update((*finding as u64).to_le_bytes());
                let sides = [place.x, place.y, place.width, place.height];
                sides.iter().for_each(|side| sha.update(side.to_bits().to_le_bytes()));
            }
        }
        Ok(sha.finalize().into())
    }
}

impl Source {
    /// Decodes every file and drops those that give no image. What it read serves digests and cache.
    fn leave_out_bad_files(&mut self) -> Vec<Skipped> {
        let source = &*self;
        let check = |row: usize| -> Result<(), DataError> {
            let row = row as u32;
            let bytes = image::read_bytes(&source.path(row))?;
            let pixels = source.pixels_of(row, None, &bytes)?;
            let digest = (bytes.len() as u64, Sha256::digest(&bytes).into());
            let _ = source.digests[row as usize].set(digest); // the only one to set it
            if let Some(cell) = source.cache.as_ref().and_then(|c| c.get(row as usize)) {
                let _ = cell.set(pixels);
            }
            Ok(())
        };
        let results: Vec<Result<(), DataError>> = (0..self.records.len()).into_par_iter().map(check).collect();
        let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
        let skipped = self.records.iter().zip(results).filter_map(|(record, result)| {
            Some(Skipped { path: record.path.clone(), reason: result.err()?.to_string() })
        });
        let skipped: Vec<Skipped> = skipped.collect();
        keep(&mut self.records, &good);
        keep(&mut self.digests, &good);
        if let Some(cache) = &mut self.cache {
            keep(cache, &good);
        }
        skipped
    }
}

/// Drops the elements whose flag is not set.
fn keep<T>(all: &mut Vec<T>, good: &[bool]) {
    let mut flags = good.iter();
    all.retain(|_| flags.next().copied().unwrap_or(true));
}
