//! PyTorch's files, `.pth` and `.pt`, read without running anything in them. Called by [`super::Weights::open`].
//!
//! Three containers around a pickle ([`super::pickle`]), in which [`super::state`] finds the tensors:
//! - since PyTorch 1.6, a zip archive of `<name>/data.pkl`, `<name>/byteorder` and one stored entry a storage, `<name>/data/<key>`
//!   (pytorch: `torch/serialization.py` `_save`, `caffe2/serialize/inline_container.cc`);
//! - before, five pickles in a row (a magic number, the protocol's number, facts about the machine, the object, the storages'
//!   keys), then for each key its number of elements as i64 and its raw bytes (`_legacy_save`);
//! - Python's own `pickle.dump`, in which each storage is a legacy file inside of a bytes object
//!   (`torch.storage._load_from_bytes`).
//!
//! A tensor is a storage, an offset, sizes and strides, in elements (`torch/_utils.py`, `_rebuild_tensor_v2`). Contiguous f32
//! tensors that lie aligned stay in the mapped file; others are copied, within a bound set by the file's length.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::bytes::{Bytes, Float, gathered, in_order};
use super::pickle::{Id, Made, Pickle, PickleError, Value};
use super::state::{self, StateError};
use super::{Entry, Storage, Weights, WeightsError, some_of};
use crate::tensor::Shape;
use crate::zip::{Archive, Stored, ZipError};

/// `0x1950a86a20f9469cfc6c` as protocol 2 pickles it: how a legacy file begins.
pub(super) const LEGACY_MAGIC: [u8; 15] = *b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// Most bytes of a pickle in a zip archive.
const PICKLE_LEN_MAX: u64 = 1 << 28;
/// Most bytes of all storages of an archive that has them compressed, which PyTorch itself never does.
const INFLATED_LEN_MAX: u64 = 1 << 32;
/// Most dimensions of a tensor.
const RANK_MAX: usize = 16;

/// What to do about a file that makes no sense.
const AGAIN: &str = "fetch or save it again";
/// What to do about a file that is understood and not read.
const RESAVE: &str = "load it in PyTorch and save its `state_dict()`";

/// An element type of PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    name: &'static str,
    size: usize,
    class: Class,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Read.
    Float(Float),
    /// No parameter: left out.
    Whole,
    /// An error where a network's tensor has it.
    Unread,
}

/// Name of the storage class, of the dtype, size.
const KINDS: [(&str, Kind); 16] = {
    const fn kind(name: &'static str, size: usize, class: Class) -> Kind {
        Kind { name, size, class }
    }
    [
        ("FloatStorage", kind("float32", 4, Class::Float(Float::F32))),
        ("HalfStorage", kind("float16", 2, Class::Float(Float::F16))),
        ("BFloat16Storage", kind("bfloat16", 2, Class::Float(Float::Bf16))),
        ("DoubleStorage", kind("float64", 8, Class::Float(Float::F64))),
        ("LongStorage", kind("int64", 8, Class::Whole)),
        ("IntStorage", kind("int32", 4, Class::Whole)),
        ("ShortStorage", kind("int16", 2, Class::Whole)),
        ("CharStorage", kind("int8", 1, Class::Whole)),
        ("ByteStorage", kind("uint8", 1, Class::Whole)),
        ("BoolStorage", kind("bool", 1, Class::Whole)),
        ("ComplexFloatStorage", kind("complex64", 8, Class::Unread)),
        ("ComplexDoubleStorage", kind("complex128", 16, Class::Unread)),
        ("QInt8Storage", kind("qint8", 1, Class::Unread)),
        ("QUInt8Storage", kind("quint8", 1, Class::Unread)),
        ("QInt32Storage", kind("qint32", 4, Class::Unread)),
        ("UntypedStorage", kind("bytes", 1, Class::Unread)),
    ]
};

/// The type behind `torch.FloatStorage` or, of newer files, `torch.float32`.
fn kind_of((module, name): (&str, &str)) -> Option<Kind> {
    let torch = module == "torch" || module == "torch.storage" || module == "torch.cuda";
    KINDS.iter().find(|(class, kind)| torch && (*class == name || kind.name == name)).map(|(_, kind)| *kind)
}

/// Elements on disk that tensors look into.
#[derive(Clone, Debug)]
struct Region {
    bytes: Arc<Bytes>,
    range: Range<usize>,
    kind: Kind,
    /// Elements that lie in front of what the description means (a view of another storage).
    skipped: usize,
}

/// How storages are found.
enum Storages {
    Zip { archive: Archive, folder: String },
    Legacy(BTreeMap<String, Range<usize>>),
    Nowhere,
}

/// A tensor as its pickle describes it.
struct Recipe {
    region: Region,
    offset: usize,
    dims: Vec<usize>,
    strides: Vec<usize>,
}

/// Reads the weights in a zip archive.
pub(super) fn read_zip(file: &str, bytes: Arc<Bytes>) -> Result<Weights, WeightsError> {
    let header = |reason: String, hint| WeightsError::Header { file: file.to_owned(), reason, hint };
    let zip = |e: ZipError| header(e.to_string(), AGAIN);
    let archive = Archive::parse(&bytes).map_err(zip)?;
    let in_front =
        |name: &str| name.strip_suffix("data.pkl").filter(|f| f.matches('/').count() <= 1).map(str::to_owned);
    let mut folders: Vec<String> = archive.names().filter_map(in_front).collect();
    let Some(folder) = folders.pop() else {
        let reason = "it is a zip archive without `data.pkl`, so not of PyTorch".to_owned();
        return Err(header(reason, "unpack it, if weights are in it"));
    };
    if !folders.is_empty() {
        return Err(header("it has several files `data.pkl`".into(), AGAIN));
    }
    let order = archive.read(&bytes, &format!("{folder}byteorder"), 16).map_err(zip)?;
    if order.is_some_and(|o| &*o != b"little") {
        return Err(header("it was saved on a big-endian machine, which is not read".into(), RESAVE));
    }
    let source = bytes.clone();
    let pickled = archive.read(&source, &format!("{folder}data.pkl"), PICKLE_LEN_MAX).map_err(zip)?.unwrap_or_default();
    let pickle = parse(file, &pickled, 0)?;
    Reader::new(file, &pickle, bytes, Storages::Zip { archive, folder }).weights()
}

/// Reads the weights in a legacy file.
pub(super) fn read_legacy(file: &str, bytes: Arc<Bytes>) -> Result<Weights, WeightsError> {
    let source = bytes.clone();
    let (pickle, storages) = legacy(file, &source, 0..source.len())?;
    Reader::new(file, &pickle, bytes, Storages::Legacy(storages)).weights()
}

/// Reads the weights in a pickle of Python's own.
pub(super) fn read_pickle(file: &str, bytes: Arc<Bytes>) -> Result<Weights, WeightsError> {
    let source = bytes.clone();
    let pickle = parse(file, &source, 0)?;
    Reader::new(file, &pickle, bytes, Storages::Nowhere).weights()
}

fn parse<'a>(file: &str, bytes: &'a [u8], start: usize) -> Result<Pickle<'a>, WeightsError> {
    Pickle::parse(bytes, start).map_err(|e| match e {
        PickleError::Harmful(global) => WeightsError::Harmful { file: file.to_owned(), global },
        other => WeightsError::Header { file: file.to_owned(), reason: other.to_string(), hint: AGAIN },
    })
}

/// The object's pickle of a legacy file that lies in `range` of `bytes`, and where its storages lie.
fn legacy<'a>(
    file: &str,
    bytes: &'a [u8],
    range: Range<usize>,
) -> Result<(Pickle<'a>, BTreeMap<String, Range<usize>>), WeightsError> {
    let header = |reason: &str, hint| WeightsError::Header { file: file.to_owned(), reason: reason.to_owned(), hint };
    let bytes = bytes.get(..range.end).unwrap_or(bytes);
    if bytes.get(range.start..).is_none_or(|b| !b.starts_with(&LEGACY_MAGIC)) {
        return Err(header("a storage in it is no file of PyTorch's", AGAIN));
    }
    let protocol = parse(file, bytes, range.start + LEGACY_MAGIC.len())?;
    if protocol.count(protocol.root) != Some(1001) {
        return Err(header("it is of a version of PyTorch's format that is not known", RESAVE));
    }
    let machine = parse(file, bytes, protocol.end)?;
    if let Value::Dict(facts) = machine.get(machine.root)
        && facts.iter().any(|&(k, v)| machine.text(k) == Some("little_endian") && machine.get(v) != &Value::Bool(true))
    {
        return Err(header("it was saved on a big-endian machine, which is not read", RESAVE));
    }
    let object = parse(file, bytes, machine.end)?;
    let keys = parse(file, bytes, object.end)?;
    let sizes = sizes(&object);
    let mut storages = BTreeMap::new();
    let mut at = keys.end;
    for &key in keys.list(keys.root).ok_or_else(|| header("its list of storages is missing", AGAIN))? {
        let key = keys.text(key).ok_or_else(|| header("its list of storages has an entry that is no text", AGAIN))?;
        let size = *sizes.get(key).ok_or_else(|| header("it holds a storage that nothing refers to", AGAIN))?;
        let count = bytes.get(at..).and_then(|b| b.first_chunk()).map(|c| i64::from_le_bytes(*c));
        let length = count.and_then(|n| usize::try_from(n).ok()).and_then(|n| n.checked_mul(size));
        let end = length.and_then(|l| (at + 8).checked_add(l));
        let Some(end) = end.filter(|&e| e <= bytes.len()) else {
            let want = end.map_or(u64::MAX, |e| e as u64).max(at as u64 + 8);
            let (got, what) = (bytes.len() as u64, "the storages it lists");
            return Err(WeightsError::Truncated { file: file.to_owned(), want, got, what });
        };
        if storages.insert(key.to_owned(), at + 8..end).is_some() {
            return Err(header("it holds two storages of one key", AGAIN));
        }
        at = end;
    }
    if at != bytes.len() {
        return Err(header("something follows its last storage", AGAIN));
    }
    Ok((object, storages))
}

/// Bytes of an element of each storage that a legacy pickle refers to.
fn sizes<'p>(pickle: &'p Pickle<'_>) -> HashMap<&'p str, usize> {
    let described = pickle.values.iter().filter_map(|value| match value {
        Value::Outside(id) => pickle.list(*id),
        _ => None,
    });
    described.filter_map(|d| Some((pickle.text(*d.get(2)?)?, kind_of(pickle.global(*d.get(1)?)?)?.size))).collect()
}

struct Reader<'p> {
    file: &'p str,
    pickle: &'p Pickle<'p>,
    bytes: Arc<Bytes>,
    storages: Storages,
    inflated: BTreeMap<String, Arc<Bytes>>,
    /// Storages in legacy files inside: each is read once, however often it is referred to.
    inside: HashMap<Id, Region>,
    /// Elements that may still be copied.
    copies_left: usize,
    inflated_len: u64,
    converted: BTreeMap<Float, usize>,
    skipped: Vec<String>,
}

impl<'p> Reader<'p> {
    fn new(file: &'p str, pickle: &'p Pickle<'p>, bytes: Arc<Bytes>, storages: Storages) -> Self {
        // Every element has a byte at least, and only as many are copied as there are bytes: a small file cannot become
        // large by tensors that look at the same storage in different ways.
        let copies_left = bytes.len();
        Reader {
            file,
            pickle,
            bytes,
            storages,
            inflated: BTreeMap::new(),
            inside: HashMap::new(),
            copies_left,
            inflated_len: 0,
            converted: BTreeMap::new(),
            skipped: Vec::new(),
        }
    }

    fn header(&self, reason: String, hint: &'static str) -> WeightsError {
        WeightsError::Header { file: self.file.to_owned(), reason, hint }
    }

    fn weights(mut self) -> Result<Weights, WeightsError> {
        let state = state::find(self.pickle).map_err(|e| match e {
            StateError::NoTensors => self.header(self.without_tensors(), "is it a file of weights?"),
            StateError::Nameless => self.header("it holds a single tensor, without a name".into(), RESAVE),
            StateError::Excess(what) => self.header(format!("it has {what}"), RESAVE),
            StateError::NotCalled { tensor, global } => {
                WeightsError::NotCalled { file: self.file.to_owned(), tensor, global }
            }
        })?;
        let mut weights = Weights::new(self.file);
        for (name, id) in &state.tensors {
            let Some(entry) = self.tensor(name, *id)? else { continue };
            // Python's own rule for a dict: the last of two counts; a module cannot have two
            weights.tensors.insert(name.clone(), entry);
        }
        if !state.path.is_empty() {
            weights.notes.push(format!("the weights are those under `{}`", state.path));
        }
        weights.note_conversions(&self.converted, &self.skipped);
        if !state.beside.is_empty() {
            let beside: Vec<String> = state.beside.into_iter().collect();
            weights.notes.push(format!("carried along in the file and not looked at: {}", some_of(&beside)));
        }
        Ok(weights)
    }

    /// What a pickle without tensors holds instead.
    fn without_tensors(&self) -> String {
        let mut callees: Vec<String> = Vec::new();
        for value in &self.pickle.values {
            if let Value::Made(made) = value {
                let callee = self.pickle.callee(made);
                if !callees.contains(&callee) && callees.len() < 4 {
                    callees.push(callee);
                }
            }
        }
        match callees.as_slice() {
            [] => "its pickle holds no tensors of PyTorch's".into(),
            some => format!("its pickle holds no tensors of PyTorch's, but {}", some.join(", ")),
        }
    }

    fn made(&self, id: Id) -> Option<&'p Made> {
        match self.pickle.get(id) {
            Value::Made(made) => Some(made),
            _ => None,
        }
    }

    /// The tensor `name`, described by `id`; `None` for one that is left out.
    fn tensor(&mut self, name: &str, id: Id) -> Result<Option<Entry>, WeightsError> {
        let recipe = self.recipe(name, id, 0)?;
        match recipe.region.kind.class {
            Class::Float(float) => self.read(name, &recipe, float).map(Some),
            Class::Whole => {
                if !name.ends_with("num_batches_tracked") {
                    self.skipped.push(name.to_owned());
                }
                Ok(None)
            }
            Class::Unread => Err(WeightsError::Dtype {
                tensor: name.to_owned(),
                file: self.file.to_owned(),
                got: recipe.region.kind.name.into(),
                want: "float32, float16, bfloat16 or float64",
                hint: "convert it first, in PyTorch with `tensor.float()` (`dequantize()` where it is quantised)",
            }),
        }
    }

    fn recipe(&mut self, name: &str, id: Id, depth: usize) -> Result<Recipe, WeightsError> {
        let bad = |what: &str| {
            let reason = format!("the description of tensor {name} {what}");
            WeightsError::Header { file: self.file.to_owned(), reason, hint: AGAIN }
        };
        let pickle = self.pickle;
        let made = self.made(id).filter(|_| depth < 4).ok_or_else(|| bad("is none"))?;
        let arguments = pickle.list(made.arguments).ok_or_else(|| bad("has no arguments"))?;
        let first = *arguments.first().ok_or_else(|| bad("has no arguments"))?;
        match pickle.global(made.callee) {
            Some((_, "_rebuild_parameter" | "_rebuild_parameter_with_state" | "Parameter")) => {
                self.recipe(name, first, depth + 1)
            }
            // (function, type, its arguments, state): a tensor of a class derived from Tensor
            Some((_, "_rebuild_from_type_v2")) => {
                let inner = *arguments.get(2).ok_or_else(|| bad("has too few arguments"))?;
                self.rebuilt(name, first, inner)
            }
            _ => self.rebuilt(name, made.callee, made.arguments),
        }
    }

    /// What `callee`, one of the functions that rebuild tensors, makes of its arguments.
    fn rebuilt(&mut self, name: &str, callee: Id, arguments: Id) -> Result<Recipe, WeightsError> {
        let pickle = self.pickle;
        let file = self.file;
        let bad = |what: &str| {
            let reason = format!("the description of tensor {name} {what}");
            WeightsError::Header { file: file.to_owned(), reason, hint: AGAIN }
        };
        let arguments = pickle.list(arguments).ok_or_else(|| bad("has no arguments"))?;
        match pickle.global(callee) {
            Some(("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3")) => {}
            Some((_, "_rebuild_parameter" | "Parameter")) => {
                let inner = *arguments.first().ok_or_else(|| bad("has no arguments"))?;
                return self.recipe(name, inner, 2);
            }
            other => {
                let global = other.map_or_else(|| "something without a name".into(), |(m, n)| format!("{m}.{n}"));
                return Err(WeightsError::NotCalled { file: file.to_owned(), tensor: name.to_owned(), global });
            }
        }
        let &[storage, offset, dims, strides, ..] = arguments else { return Err(bad("has too few arguments")) };
        let numbers = |id: Id| -> Option<Vec<usize>> {
            let list = pickle.list(id).or_else(|| self.size(id)).filter(|l| l.len() <= RANK_MAX)?;
            list.iter().map(|&n| pickle.count(n)).collect()
        };
        let (Some(offset), Some(dims), Some(strides)) = (pickle.count(offset), numbers(dims), numbers(strides)) else {
            return Err(bad("has an offset, sizes or strides that are none"));
        };
        if dims.len() != strides.len() {
            return Err(bad("has another number of sizes than of strides"));
        }
        let mut region = self.region(name, storage)?;
        // the newest form says the type apart from the storage
        if let Some(kind) = arguments.get(6).and_then(|&d| pickle.global(d)).and_then(kind_of) {
            region.kind = kind;
        }
        Ok(Recipe { region, offset, dims, strides })
    }

    /// The numbers of a `torch.Size`.
    fn size(&self, id: Id) -> Option<&'p [Id]> {
        let made = self.made(id).filter(|m| self.pickle.global(m.callee) == Some(("torch", "Size")))?;
        self.pickle.list(*self.pickle.list(made.arguments)?.first()?)
    }

    /// Where the elements of a storage lie.
    fn region(&mut self, name: &str, id: Id) -> Result<Region, WeightsError> {
        let pickle = self.pickle;
        let bad = |what: &str| {
            let reason = format!("the storage of tensor {name} {what}");
            WeightsError::Header { file: self.file.to_owned(), reason, hint: AGAIN }
        };
        if let Some(made) = self.made(id) {
            let nested = match pickle.global(made.callee) {
                Some(("torch.storage", "_load_from_bytes")) => {
                    pickle.list(made.arguments).and_then(|a| a.first().copied())
                }
                _ => {
                    let (file, tensor) = (self.file.to_owned(), name.to_owned());
                    return Err(WeightsError::NotCalled { file, tensor, global: pickle.callee(made) });
                }
            };
            // only a pickle that is the whole file has its bytes at these places
            let nested = nested.filter(|_| matches!(self.storages, Storages::Nowhere));
            let nested = nested.ok_or_else(|| bad("is not where it can be read"))?;
            if let Some(region) = self.inside.get(&nested) {
                return Ok(region.clone());
            }
            let (bytes, range) = match (pickle.get(nested), self.encoded(nested)) {
                (Value::Bytes(range), _) => (self.bytes.clone(), range.clone()),
                (_, Some(content)) => {
                    let length = content.len();
                    (Arc::new(Bytes::Owned(content)), 0..length)
                }
                _ => return Err(bad("is not where it can be read")),
            };
            let region = self.nested(name, bytes, range)?;
            self.inside.insert(nested, region.clone());
            return Ok(region);
        }
        let Value::Outside(description) = pickle.get(id) else { return Err(bad("is none")) };
        let (key, kind, count, view) =
            description_of(pickle, *description).ok_or_else(|| bad("is described in a way that is not known"))?;
        let (bytes, range) = match &self.storages {
            Storages::Legacy(places) => {
                let place = places.get(key).ok_or_else(|| bad("is missing"))?;
                (self.bytes.clone(), place.clone())
            }
            Storages::Zip { archive, folder } => {
                let entry_name = format!("{folder}data/{key}");
                let entry = archive.get(&entry_name).ok_or_else(|| bad("is missing"))?;
                match entry.stored {
                    Stored::Plain => (self.bytes.clone(), entry.range.clone()),
                    Stored::Deflated => self.inflate(&entry_name)?,
                }
            }
            Storages::Nowhere => return Err(bad("is not in the file")),
        };
        let want = count.checked_mul(kind.size);
        let whole = view.is_none();
        if want.is_none_or(|w| if whole { w != range.len() } else { w > range.len() }) {
            let (want, got) = (want.map_or(u64::MAX, |w| w as u64), range.len() as u64);
            return Err(WeightsError::Truncated {
                file: self.file.to_owned(),
                want,
                got,
                what: "the elements of a storage",
            });
        }
        Ok(Region { bytes, range, kind, skipped: view.unwrap_or(0) })
    }

    /// A compressed storage, inflated once.
    fn inflate(&mut self, entry_name: &str) -> Result<(Arc<Bytes>, Range<usize>), WeightsError> {
        if let Some(bytes) = self.inflated.get(entry_name) {
            return Ok((bytes.clone(), 0..bytes.len()));
        }
        let Storages::Zip { archive, .. } = &self.storages else {
            return Err(self.header("it is no archive".into(), AGAIN));
        };
        let content = archive.read(&self.bytes, entry_name, INFLATED_LEN_MAX - self.inflated_len);
        let content = content.map_err(|e| self.header(e.to_string(), AGAIN))?.unwrap_or_default().into_owned();
        let length = content.len();
        self.inflated_len += length as u64;
        self.copies_left += length;
        let bytes = Arc::new(Bytes::Owned(content));
        self.inflated.insert(entry_name.to_owned(), bytes.clone());
        Ok((bytes, 0..length))
    }

    /// Bytes as protocols 0 to 2 pickle them: `_codecs.encode(text, "latin1")`.
    fn encoded(&self, id: Id) -> Option<Vec<u8>> {
        let made = self.made(id).filter(|m| self.pickle.global(m.callee) == Some(("_codecs", "encode")))?;
        let &[text, encoding] = self.pickle.list(made.arguments)? else { return None };
        let text = self.pickle.text(text).filter(|_| self.pickle.text(encoding) == Some("latin1"))?;
        text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
    }

    /// The storage that a legacy file inside of this one holds.
    fn nested(&self, name: &str, bytes: Arc<Bytes>, range: Range<usize>) -> Result<Region, WeightsError> {
        let (pickle, places) = legacy(self.file, &bytes, range)?;
        let found = match pickle.get(pickle.root) {
            Value::Outside(description) => description_of(&pickle, *description),
            _ => None,
        };
        let region = found.and_then(|(key, kind, count, view)| {
            let range = places.get(key)?.clone();
            (count.checked_mul(kind.size)? <= range.len()).then(|| Region {
                bytes: bytes.clone(),
                range,
                kind,
                skipped: view.unwrap_or(0),
            })
        });
        let unknown =
            || self.header(format!("the storage of tensor {name} is described in a way that is not known"), AGAIN);
        region.ok_or_else(unknown)
    }

    /// The elements of a tensor: in place where they are f32 in order and aligned, else copied.
    fn read(&mut self, name: &str, recipe: &Recipe, float: Float) -> Result<Entry, WeightsError> {
        let Recipe { region, offset, dims, strides } = recipe;
        let shape = Shape::from(dims.as_slice());
        let held = region.range.len() / float.size();
        let beyond = || {
            let reason = format!("tensor {name} of shape {shape} reaches beyond its storage of {held} elements");
            WeightsError::Header { file: self.file.to_owned(), reason, hint: AGAIN }
        };
        let count = shape.checked_len().ok_or_else(beyond)?;
        let first = offset.checked_add(region.skipped).ok_or_else(beyond)?;
        if count == 0 {
            return Ok(Entry { shape, storage: Storage::Owned(Vec::new().into()) });
        }
        let last = dims.iter().zip(strides).try_fold(first, |at, (&d, &s)| at.checked_add((d - 1).checked_mul(s)?));
        if last.is_none_or(|last| last >= held) || count > held {
            return Err(beyond());
        }
        let in_order = in_order(dims, strides);
        let bytes = &region.bytes[region.range.clone()];
        if in_order && float == Float::F32 {
            let range = region.range.start + 4 * first..region.range.start + 4 * (first + count);
            if bytemuck::try_cast_slice::<u8, f32>(&region.bytes[range.clone()]).is_ok() {
                return Ok(Entry { shape, storage: Storage::Mapped { bytes: region.bytes.clone(), range } });
            }
        }
        let Some(left) = self.copies_left.checked_sub(count) else {
            let reason = "its tensors look at the same storages many times over, more than the file is large".into();
            return Err(self.header(reason, RESAVE));
        };
        self.copies_left = left;
        if float != Float::F32 {
            *self.converted.entry(float).or_default() += 1;
        }
        let data = match in_order {
            true => float.all(&bytes[first * float.size()..(first + count) * float.size()]),
            false => gathered(bytes, float, first, dims, strides, count),
        };
        Ok(Entry { shape, storage: Storage::Owned(data.into()) })
    }
}

/// Key, type, number of elements and, for a view of another storage, the elements in front of it:
/// `("storage", torch.FloatStorage, "0", "cpu", 6[, (key, offset, size)])`.
fn description_of<'p>(pickle: &'p Pickle<'_>, id: Id) -> Option<(&'p str, Kind, usize, Option<usize>)> {
    let description = pickle.list(id)?;
    let &[tag, class, key, _, count, ref rest @ ..] = description else { return None };
    if pickle.text(tag)? != "storage" {
        return None;
    }
    let kind = kind_of(pickle.global(class)?)?;
    let (mut count, mut skipped) = (pickle.count(count)?, None);
    if let Some(view) = rest.first().and_then(|&v| pickle.list(v)) {
        let &[_, offset, size] = view else { return None };
        skipped = Some(pickle.count(offset)?);
        count = pickle.count(size)?.checked_add(skipped?)?;
    }
    Some((pickle.text(key)?, kind, count, skipped))
}
