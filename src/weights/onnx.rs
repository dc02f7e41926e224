//! ONNX models as far as their weights go: initialisers, constants and nodes, from the mapped file. Called by
//! [`super::format`]; which tensor is which layer's is told in [`super::layers`].
//!
//! Format: `onnx/onnx.proto` (IR version 3 and later; operators as of opset 13, those of 9 to 12 with them). Float
//! tensors as `raw_data`, `float_data`, `double_data` or, for 16 bits, `int32_data`; constants made by `Constant` and
//! `ConstantOfShape`, and what `Identity`, `Cast`, `Reshape`, `Squeeze`, `Unsqueeze` and `Transpose` make of constants. No
//! other node is evaluated. Data outside of the file are an error where a layer needs them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::bytes::{Bytes, Float, gathered, in_order};
use super::protobuf::{Fields, Wire, WireError};
use super::{Entry, Storage, Weights, WeightsError};
use crate::tensor::Shape;

/// Most nodes and most constants of a model; the largest of torchvision's have 2,000.
const PARTS_MAX: usize = 100_000;
/// Most names that nodes refer to.
const NAMES_MAX: usize = 1_000_000;
/// Most dimensions of a tensor.
const RANK_MAX: usize = 16;
/// Most elements of all tensors that one number fills, which need no bytes in the file: VGG19 has 144 million.
const FILLED_MAX: usize = 200_000_000;
/// Most pieces of a list of floats; everybody writes one.
const PACKED_MAX: usize = 1024;
/// Most elements of a list of whole numbers that is kept: they are shapes.
const WHOLE_MAX: usize = 64;

/// What to do about a file that makes no sense.
const AGAIN: &str = "fetch or export it again";

/// A tensor that does not depend on the model's input.
#[derive(Clone, Debug)]
pub(super) struct Constant {
    pub(super) dims: Vec<usize>,
    /// In elements; not row-major behind a `Transpose`.
    strides: Vec<usize>,
    pub(super) data: Data,
}

/// Elements of a constant.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// As they lie in the file.
    Raw(Float, Range<usize>),
    /// Decoded, as they lie scattered in the file.
    Owned(Arc<Vec<f32>>),
    /// All of them are one number.
    Filled(f32),
    /// Whole numbers, a few: a shape.
    Whole(Vec<i64>),
    /// In another file.
    Outside,
    /// Not floats; ONNX's name of the type.
    Other(&'static str),
}

/// A node of the graph.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) op: String,
    pub(super) name: String,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    floats: BTreeMap<String, f32>,
    whole: BTreeMap<String, Vec<i64>>,
    tensor: Option<Constant>,
}

impl Node {
    /// A whole-number attribute.
    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.whole.get(name).and_then(|list| list.first().copied()).unwrap_or(default)
    }

    /// A list of whole numbers.
    pub(super) fn ints(&self, name: &str) -> &[i64] {
        self.whole.get(name).map_or(&[], Vec::as_slice)
    }

    /// A float attribute.
    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.floats.get(name).copied().unwrap_or(default)
    }

    /// Its name, or what it makes where it has none: for messages.
    pub(super) fn shown(&self) -> String {
        let name = if self.name.is_empty() { self.outputs.first().map_or("", String::as_str) } else { &self.name };
        let name: String = name.chars().take(100).collect();
        format!("{} {name}", self.op.chars().take(40).collect::<String>())
    }
}

/// An open ONNX model.
#[derive(Clone, Debug)]
pub struct OnnxFile {
    pub(super) file: String,
    bytes: Arc<Bytes>,
    /// By name: initialisers, then what nodes make of them.
    pub(super) constants: BTreeMap<String, Constant>,
    /// Names of initialisers and of constants that nodes hold: the weights, where nothing tells which are.
    named: Vec<String>,
    pub(super) nodes: Vec<Node>,
}

impl OnnxFile {
    /// Whether bytes are an ONNX model as far as a glance tells: well-formed protocol buffers with the fields of a
    /// `ModelProto`, among them a graph.
    pub(super) fn recognise(bytes: &[u8]) -> bool {
        let mut graph = false;
        for (count, field) in Fields::new(bytes, 0..bytes.len()).enumerate() {
            match field {
                // a file that is cut short ends inside of its graph, and is one all the same
                Err(_) => return count > 0 && bytes.first() == Some(&0x08) && bytes.len() > 16,
                Ok((7, Wire::Bytes(_))) => graph = true,
                Ok((1..=25, _)) if count < 10_000 => {}
                Ok(_) => return false,
            }
        }
        graph
    }

    /// Reads the structure of a model; tensors stay where they are.
    pub(super) fn parse(file: &str, bytes: Arc<Bytes>) -> Result<OnnxFile, WeightsError> {
        let source = bytes.clone();
        let mut reader = Reader { file, bytes: &source, names: 0 };
        let mut graph = None;
        for field in Fields::new(&source, 0..source.len()) {
            if let (7, Wire::Bytes(range)) = field.map_err(|e| reader.wire(e))? {
                graph = Some(range);
            }
        }
        let graph = graph.ok_or_else(|| reader.header("it has no graph".into(), AGAIN))?;
        let (mut constants, mut nodes) = (BTreeMap::new(), Vec::new());
        for field in Fields::new(&source, graph) {
            match field.map_err(|e| reader.wire(e))? {
                (1, Wire::Bytes(range)) => nodes.push(reader.node(range)?),
                (5, Wire::Bytes(range)) => {
                    let (name, constant) = reader.tensor(range)?;
                    if constants.insert(name.clone(), constant).is_some() {
                        return Err(WeightsError::Duplicate { file: file.to_owned(), tensor: name });
                    }
                }
                _ => {}
            }
            if nodes.len().max(constants.len()) > PARTS_MAX {
                return Err(reader.header(format!("it has more than {PARTS_MAX} nodes or constants"), AGAIN));
            }
        }
        let mut named: Vec<String> = constants.keys().cloned().collect();
        for node in &nodes {
            if let (Some(output), Some(constant)) = (node.outputs.first(), folded(node, &constants)) {
                if node.op.starts_with("Constant") {
                    named.push(output.clone());
                }
                constants.insert(output.clone(), constant);
            }
        }
        Ok(OnnxFile { file: file.to_owned(), bytes, constants, named, nodes })
    }

    /// All float constants under the names that the file has for them.
    ///
    /// # Errors
    /// [`WeightsError::Header`] for tensors in other files.
    pub fn weights(&self) -> Result<Weights, WeightsError> {
        let mut weights = Weights::new(&self.file);
        let mut filled = 0usize;
        for name in &self.named {
            let Some(constant) = self.constants.get(name) else { continue };
            let shape = Shape::from(constant.dims.as_slice());
            match &constant.data {
                Data::Whole(_) | Data::Other(_) => continue,
                Data::Filled(_) => {
                    filled = filled.saturating_add(shape.len());
                    if filled > FILLED_MAX {
                        let reason = format!("one number fills tensors of more than {FILLED_MAX} elements");
                        return Err(WeightsError::Header { file: self.file.clone(), reason, hint: AGAIN });
                    }
                }
                Data::Raw(..) | Data::Owned(_) | Data::Outside => {}
            }
            weights.tensors.insert(name.clone(), self.entry(name, constant)?);
        }
        Ok(weights)
    }

    /// A constant as a tensor; f32 in order and aligned in place, others copied. One that a single number fills has to
    /// be bounded by the caller.
    pub(super) fn entry(&self, name: &str, constant: &Constant) -> Result<Entry, WeightsError> {
        let shape = Shape::from(constant.dims.as_slice());
        let in_order = in_order(&constant.dims, &constant.strides);
        if let Data::Raw(Float::F32, range) = &constant.data
            && in_order
            && bytemuck::try_cast_slice::<u8, f32>(&self.bytes[range.clone()]).is_ok()
        {
            let storage = Storage::Mapped { bytes: self.bytes.clone(), range: range.clone() };
            return Ok(Entry { shape, storage });
        }
        let count = shape.len();
        let (bytes, float): (&[u8], Float) = match &constant.data {
            Data::Raw(float, range) => (&self.bytes[range.clone()], *float),
            Data::Owned(data) => (bytemuck::cast_slice(data), Float::F32),
            Data::Filled(value) => return Ok(Entry { shape, storage: Storage::Owned(vec![*value; count].into()) }),
            Data::Outside => {
                let reason = format!("the elements of {name} are in another file (external data)");
                let hint = "save the model as one file: `onnx.save(onnx.load(FILE), OUT)`";
                return Err(WeightsError::Header { file: self.file.clone(), reason, hint });
            }
            other => {
                let got = if let Data::Other(got) = other { got } else { "INT64" };
                return Err(WeightsError::Dtype {
                    tensor: name.to_owned(),
                    file: self.file.clone(),
                    got: got.into(),
                    want: "FLOAT, FLOAT16, BFLOAT16 or DOUBLE",
                    hint: "export the network before it is quantised",
                });
            }
        };
        let data = match in_order {
            true => float.all(bytes),
            false => gathered(bytes, float, 0, &constant.dims, &constant.strides, count),
        };
        Ok(Entry { shape, storage: Storage::Owned(data.into()) })
    }
}

impl Constant {
    /// In row-major order.
    fn new(dims: Vec<usize>, data: Data) -> Constant {
        let strides = row_major(&dims);
        Constant { dims, strides, data }
    }

    /// With its axes in another order.
    pub(super) fn permuted(&self, axes: &[usize]) -> Option<Constant> {
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..self.dims.len()) {
            return None;
        }
        let (dims, strides) = axes.iter().map(|&a| (self.dims[a], self.strides[a])).unzip();
        Some(Constant { dims, strides, data: self.data.clone() })
    }

    /// With other dimensions of the same product; `None` where its elements are not in order.
    pub(super) fn reshaped(&self, dims: Vec<usize>) -> Option<Constant> {
        let fits = Shape::from(dims.as_slice()).checked_len() == Shape::from(self.dims.as_slice()).checked_len();
        (fits && in_order(&self.dims, &self.strides)).then(|| Constant::new(dims, self.data.clone()))
    }
}

fn row_major(dims: &[usize]) -> Vec<usize> {
    let mut run = 1usize;
    let step = |&d: &usize| {
        let stride = run;
        run = run.saturating_mul(d);
        stride
    };
    let mut strides: Vec<usize> = dims.iter().rev().map(step).collect();
    strides.reverse();
    strides
}

/// What `node` makes, where that is a constant.
fn folded(node: &Node, constants: &BTreeMap<String, Constant>) -> Option<Constant> {
    let input = |i: usize| node.inputs.get(i).and_then(|name| constants.get(name));
    let whole = |i: usize| match &input(i)?.data {
        Data::Whole(list) => Some(list.as_slice()),
        _ => None,
    };
    match node.op.as_str() {
        "Constant" => node.tensor.clone(),
        "ConstantOfShape" => {
            let dims: Option<Vec<usize>> = whole(0)?.iter().map(|&d| usize::try_from(d).ok()).collect();
            let value = match node.tensor.as_ref().map(|t| &t.data) {
                None => 0.0,
                Some(Data::Owned(one)) => *one.first()?,
                Some(Data::Filled(value)) => *value,
                Some(_) => return None,
            };
            let dims = dims.filter(|d| d.len() <= RANK_MAX && Shape::from(d.as_slice()).checked_len().is_some())?;
            Some(Constant::new(dims, Data::Filled(value)))
        }
        "Identity" => input(0).cloned(),
        // 1 FLOAT, 10 FLOAT16, 11 DOUBLE, 16 BFLOAT16: all are read as f32
        "Cast" if matches!(node.int("to", 0), 1 | 10 | 11 | 16) => {
            input(0).filter(|c| matches!(c.data, Data::Raw(..) | Data::Owned(_) | Data::Filled(_))).cloned()
        }
        // which axes of length 1 there are is of no weight: what is needed of the result is a vector
        "Unsqueeze" | "Squeeze" => {
            let constant = input(0)?;
            constant.reshaped(constant.dims.iter().copied().filter(|&d| d != 1).collect())
        }
        "Reshape" => {
            let constant = input(0)?;
            let wanted = whole(1)?;
            let known: usize =
                wanted.iter().filter_map(|&d| usize::try_from(d).ok()).try_fold(1, usize::checked_mul)?;
            let rest = Shape::from(constant.dims.as_slice()).checked_len()?.checked_div(known)?;
            let dims = wanted.iter().map(|&d| if d == -1 { Some(rest) } else { usize::try_from(d).ok() });
            constant.reshaped(dims.collect::<Option<_>>()?)
        }
        "Transpose" => {
            let constant = input(0)?;
            let axes: Option<Vec<usize>> = node.ints("perm").iter().map(|&a| usize::try_from(a).ok()).collect();
            let axes = axes.filter(|a| !a.is_empty()).unwrap_or_else(|| (0..constant.dims.len()).rev().collect());
            constant.permuted(&axes)
        }
        _ => None,
    }
}

/// Reads messages.
struct Reader<'a> {
    file: &'a str,
    bytes: &'a [u8],
    names: usize,
}

impl Reader<'_> {
    fn header(&self, reason: String, hint: &'static str) -> WeightsError {
        WeightsError::Header { file: self.file.to_owned(), reason, hint }
    }

    fn wire(&self, e: WireError) -> WeightsError {
        self.header(e.to_string(), AGAIN)
    }

    fn text(&mut self, range: Range<usize>) -> Result<String, WeightsError> {
        self.names += 1;
        if self.names > NAMES_MAX {
            return Err(self.header(format!("it has more than {NAMES_MAX} names"), AGAIN));
        }
        Ok(String::from_utf8_lossy(&self.bytes[range]).into_owned())
    }

    /// A `NodeProto`.
    fn node(&mut self, range: Range<usize>) -> Result<Node, WeightsError> {
        let mut node = Node::default();
        for field in Fields::new(self.bytes, range) {
            match field.map_err(|e| self.wire(e))? {
                (1, Wire::Bytes(r)) => node.inputs.push(self.text(r)?),
                (2, Wire::Bytes(r)) => node.outputs.push(self.text(r)?),
                (3, Wire::Bytes(r)) => node.name = self.text(r)?,
                (4, Wire::Bytes(r)) => node.op = self.text(r)?,
                (5, Wire::Bytes(r)) => self.attribute(r, &mut node)?,
                _ => {}
            }
        }
        Ok(node)
    }

    /// An `AttributeProto`.
    fn attribute(&mut self, range: Range<usize>, node: &mut Node) -> Result<(), WeightsError> {
        let (mut name, mut whole) = (String::new(), Vec::new());
        let (mut float, mut tensor) = (None, None);
        for field in Fields::new(self.bytes, range) {
            match field.map_err(|e| self.wire(e))? {
                (1, Wire::Bytes(r)) => name = self.text(r)?,
                (2, Wire::Four(bits)) => float = Some(f32::from_bits(bits)),
                (3, Wire::Number(n)) => whole = vec![n as i64],
                (5, Wire::Bytes(r)) => tensor = Some(self.tensor(r)?.1),
                (8, wire) => self.whole(wire, &mut whole, WHOLE_MAX)?,
                _ => {}
            }
        }
        if let Some(float) = float {
            node.floats.insert(name.clone(), float);
        }
        if name == "value" && tensor.is_some() {
            node.tensor = tensor;
        }
        if !whole.is_empty() {
            node.whole.insert(name, whole);
        }
        Ok(())
    }

    /// A repeated whole number, packed or not, added to `list`; those beyond `most` are read and dropped.
    fn whole(&self, wire: Wire, list: &mut Vec<i64>, most: usize) -> Result<(), WeightsError> {
        self.numbers(wire, |n| {
            if list.len() < most {
                list.push(n as i64);
            }
        })
    }

    /// Gives each of a repeated whole number, packed or not, to `add`.
    fn numbers(&self, wire: Wire, mut add: impl FnMut(u64)) -> Result<(), WeightsError> {
        match wire {
            Wire::Number(n) => add(n),
            Wire::Bytes(range) => {
                let mut packed = Fields::new(self.bytes, range);
                while !packed.is_done() {
                    add(packed.number().map_err(|e| self.wire(e))?);
                }
            }
            _ => return Err(self.header("a list of numbers in it is none".into(), AGAIN)),
        }
        Ok(())
    }

    /// A `TensorProto`: name and content.
    fn tensor(&mut self, range: Range<usize>) -> Result<(String, Constant), WeightsError> {
        let (mut name, mut dims, mut class, mut outside) = (String::new(), Vec::new(), 0, false);
        let (mut raw, mut packed): (Option<Range<usize>>, Vec<Range<usize>>) = (None, Vec::new());
        let (mut single, mut half, mut whole): (Vec<f32>, Vec<f32>, Vec<i64>) = Default::default();
        let fields = Fields::new(self.bytes, range);
        for field in fields.clone() {
            match field.map_err(|e| self.wire(e))? {
                (1, wire) => self.whole(wire, &mut dims, RANK_MAX + 1)?,
                (2, Wire::Number(n)) => class = n,
                (4 | 10, Wire::Bytes(r)) if packed.len() <= PACKED_MAX => packed.push(r),
                (4, Wire::Four(bits)) => single.push(f32::from_bits(bits)),
                (10, Wire::Eight(bits)) => single.push(f64::from_bits(bits) as f32),
                (7, wire) => self.whole(wire, &mut whole, WHOLE_MAX)?,
                (8, Wire::Bytes(r)) => name = self.text(r)?,
                (9, Wire::Bytes(r)) => raw = Some(r),
                (13, _) => outside = true,
                (14, Wire::Number(1)) => outside = true,
                _ => {}
            }
        }
        let shown: String = name.chars().take(200).collect();
        let dims: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let dims = dims.filter(|d| d.len() <= RANK_MAX && Shape::from(d.as_slice()).checked_len().is_some());
        let dims = dims.ok_or_else(|| self.header(format!("{shown} has a shape that no tensor has"), AGAIN))?;
        let count = Shape::from(dims.as_slice()).len();
        let float = match class {
            1 => Some(Float::F32),
            10 => Some(Float::F16),
            11 => Some(Float::F64),
            16 => Some(Float::Bf16),
            _ => None,
        };
        let wrong = |held: usize| {
            let shape = Shape::from(dims.as_slice());
            self.header(format!("{shown} has shape {shape}, but {held} elements"), AGAIN)
        };
        let data = match (float, raw) {
            _ if outside => Data::Outside,
            (Some(float), Some(raw)) => match count.checked_mul(float.size()) == Some(raw.len()) {
                // a vector of one is what `ConstantOfShape` is given
                true if count == 1 => Data::Owned(Arc::new(float.all(&self.bytes[raw]))),
                true => Data::Raw(float, raw),
                false => return Err(wrong(raw.len() / float.size())),
            },
            (Some(Float::F16 | Float::Bf16), None) => {
                // a second time over the fields: kept, they would take more memory than the file
                for field in fields {
                    if let (5, wire) = field.map_err(|e| self.wire(e))? {
                        self.halves(wire, class, count, &mut half)?;
                    }
                }
                if half.len() != count {
                    return Err(wrong(half.len()));
                }
                Data::Owned(Arc::new(half))
            }
            (Some(float), None) => match packed.as_slice() {
                [one] if single.is_empty() && count > 1 && count.checked_mul(float.size()) == Some(one.len()) => {
                    Data::Raw(float, one.clone())
                }
                several if several.len() > PACKED_MAX => return Err(wrong(0)),
                several => {
                    several.iter().for_each(|r| single.extend(float.all(&self.bytes[r.clone()])));
                    if single.len() != count {
                        return Err(wrong(single.len()));
                    }
                    Data::Owned(Arc::new(single))
                }
            },
            (None, Some(raw)) if class == 7 && raw.len() / 8 == count && count <= WHOLE_MAX => {
                let eight = self.bytes[raw].chunks_exact(8);
                Data::Whole(eight.map(bytemuck::pod_read_unaligned).collect())
            }
            (None, None) if class == 7 && whole.len() == count => Data::Whole(whole),
            _ => Data::Other(class_name(class)),
        };
        Ok((name, Constant::new(dims, data)))
    }

    /// 16-bit floats, each in a whole number; at most `most` in `list`, and one more.
    fn halves(&self, wire: Wire, class: u64, most: usize, list: &mut Vec<f32>) -> Result<(), WeightsError> {
        let float = if class == 10 { Float::F16 } else { Float::Bf16 };
        self.numbers(wire, |n| {
            if list.len() <= most {
                list.push(float.at(&(n as u16).to_le_bytes(), 0));
            }
        })
    }
}

/// `TensorProto.DataType`.
fn class_name(class: u64) -> &'static str {
    match class {
        2 => "UINT8",
        3 => "INT8",
        4 => "UINT16",
        5 => "INT16",
        6 => "INT32",
        7 => "INT64",
        8 => "STRING",
        9 => "BOOL",
        12 => "UINT32",
        13 => "UINT64",
        14 | 15 => "COMPLEX",
        17..=20 => "FLOAT8",
        21 | 22 => "4-bit integers",
        _ => "unknown",
    }
}
