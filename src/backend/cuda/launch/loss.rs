//! `kernels/loss.cu`: cross-entropy, also binary, KL divergence of softmaxes and of sigmoids, mean |x|, mean x², total variation, and their gradients.

use super::{Floats, FloatsMut, Indices, Queue, THREADS, blocks, expect, lanes, narrow};
use crate::answer::Head;
use crate::backend::BackendError;
use crate::backend::layout::len;

#[repr(C)]
#[derive(Clone, Copy)]
struct SoftmaxArguments {
    target: u64,
    x: u64,
    label: u64,
    g: u64,
    y: u64,
    weight: u64,
    rows: u32,
    classes: u32,
}
const _: () = assert!(size_of::<SoftmaxArguments>() == 56, "as in loss.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct RowArguments {
    x: u64,
    g: u64,
    y: u64,
    items: u32,
    row: u32,
    lanes: u32,
    line: u32,
    step: u32,
    unused: u32,
}
const _: () = assert!(size_of::<RowArguments>() == 48, "as in loss.cu");

/// Threads that add a row.
const ROW_THREADS: u32 = 512;

/// y (rows) = -log softmax(x (rows, classes))\[label\].
pub(in crate::backend::cuda) fn cross_entropy(
    q: &Queue,
    classes: usize,
    x: Floats<'_>,
    label: Indices<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "cross_entropy";
    let rows = y.len();
    let given = Softmax { x: Some(x), label: Some(label), ..Softmax::new(rows, classes) };
    // SAFETY: this kernel reads x and labels, and writes an element a row.
    unsafe { given.launch(q, KERNEL, y.pointer()) }
}

/// Its gradient (rows, classes).
pub(in crate::backend::cuda) fn cross_entropy_grad(
    q: &Queue,
    classes: usize,
    x: Floats<'_>,
    label: Indices<'_>,
    g: Floats<'_>,
    gx: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "cross_entropy_grad";
    let rows = g.len();
    expect(KERNEL, "gx", gx.len(), rows * classes)?;
    let given = Softmax { x: Some(x), label: Some(label), g: Some(g), ..Softmax::new(rows, classes) };
    // SAFETY: this kernel reads x, labels and g, and writes `classes` elements a row.
    unsafe { given.launch(q, KERNEL, gx.pointer()) }
}

/// y (rows) = the binary cross-entropy of `target` and x (rows, classes), summed over labels; `weight` (2, classes).
pub(in crate::backend::cuda) fn binary_cross_entropy(
    q: &Queue,
    classes: usize,
    x: Floats<'_>,
    target: Floats<'_>,
    weight: Option<Floats<'_>>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "binary_cross_entropy";
    let rows = y.len();
    let given = Softmax { target: Some(target), x: Some(x), weight, ..Softmax::new(rows, classes) };
    // SAFETY: this kernel reads target, x and weight, and writes an element a row.
    unsafe { given.launch(q, KERNEL, y.pointer()) }
}

/// Its gradient for x (rows, classes).
pub(in crate::backend::cuda) fn binary_cross_entropy_grad(
    q: &Queue,
    classes: usize,
    [x, target, g]: [Floats<'_>; 3],
    weight: Option<Floats<'_>>,
    gx: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "binary_cross_entropy_grad";
    let rows = g.len();
    expect(KERNEL, "gx", gx.len(), rows * classes)?;
    let given = Softmax { target: Some(target), x: Some(x), g: Some(g), weight, ..Softmax::new(rows, classes) };
    // SAFETY: this kernel reads target, x, g and weight, and writes `classes` elements a row.
    unsafe { given.launch(q, KERNEL, gx.pointer()) }
}

/// y (rows) = the divergence of the answers of x from those of `target` (rows, classes).
pub(in crate::backend::cuda) fn kl(
    q: &Queue,
    head: Head,
    classes: usize,
    target: Floats<'_>,
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    let kernel = match head {
        Head::Softmax => "softmax_kl",
        Head::Sigmoid => "sigmoid_kl",
    };
    let rows = y.len();
    let given = Softmax { target: Some(target), x: Some(x), ..Softmax::new(rows, classes) };
    // SAFETY: these kernels read target and x, and write an element a row.
    unsafe { given.launch(q, kernel, y.pointer()) }
}

/// Its gradient for x (rows, classes).
pub(in crate::backend::cuda) fn kl_grad(
    q: &Queue,
    head: Head,
    classes: usize,
    [target, x, g]: [Floats<'_>; 3],
    gx: FloatsMut<'_>,
) -> Result<(), BackendError> {
    let kernel = match head {
        Head::Softmax => "softmax_kl_grad",
        Head::Sigmoid => "sigmoid_kl_grad",
    };
    let rows = g.len();
    expect(kernel, "gx", gx.len(), rows * classes)?;
    let given = Softmax { target: Some(target), x: Some(x), g: Some(g), ..Softmax::new(rows, classes) };
    // SAFETY: these kernels read target, x and g, and write `classes` elements a row.
    unsafe { given.launch(q, kernel, gx.pointer()) }
}

/// What a kernel of the softmax family reads.
struct Softmax<'a> {
    rows: usize,
    classes: usize,
    target: Option<Floats<'a>>,
    x: Option<Floats<'a>>,
    label: Option<Indices<'a>>,
    g: Option<Floats<'a>>,
    weight: Option<Floats<'a>>,
}

impl Softmax<'_> {
    fn new(rows: usize, classes: usize) -> Self {
        Softmax { rows, classes, target: None, x: None, label: None, g: None, weight: None }
    }

    /// # Safety
    /// What `kernel` reads is given, and `y` has room for what it writes.
    unsafe fn launch(&self, q: &Queue, kernel: &'static str, y: u64) -> Result<(), BackendError> {
        let logits = self.rows * self.classes;
        expect(kernel, "the target", self.target.map_or(logits, |t| t.len()), logits)?;
        expect(kernel, "x", self.x.map_or(logits, |x| x.len()), logits)?;
        expect(kernel, "the labels", self.label.map_or(self.rows, |l| l.len()), self.rows)?;
        expect(kernel, "g", self.g.map_or(self.rows, |g| g.len()), self.rows)?;
        expect(kernel, "the weights", self.weight.map_or(2 * self.classes, |w| w.len()), 2 * self.classes)?;
        let arguments = SoftmaxArguments {
            target: self.target.map_or(0, |t| t.pointer()),
            x: self.x.map_or(0, |x| x.pointer()),
            label: self.label.map_or(0, |l| l.pointer()),
            g: self.g.map_or(0, |g| g.pointer()),
            y,
            weight: self.weight.map_or(0, |w| w.pointer()),
            rows: narrow(kernel, "a number of rows", self.rows)?,
            classes: narrow(kernel, "a number of classes", self.classes)?,
        };
        // SAFETY: the argument is the kernel's; the lengths of what is read were compared above, the rest is the caller's.
        unsafe { q.launch(kernel, blocks(32 * self.rows), [THREADS as u32, 1], 0, arguments) }
    }
}

/// y (rows) = mean |x|.
pub(in crate::backend::cuda) fn mean_abs(
    q: &Queue,
    row: usize,
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    mean(q, "mean_abs", [row, 1, 1], x, y)
}

/// gx = g · sign(x) / row.
pub(in crate::backend::cuda) fn mean_abs_grad(
    q: &Queue,
    row: usize,
    x: Floats<'_>,
    g: Floats<'_>,
    gx: FloatsMut<'_>,
) -> Result<(), BackendError> {
    mean_grad(q, "mean_abs_grad", [row, 1, 1], x, g, gx)
}

/// y (rows) = mean x².
pub(in crate::backend::cuda) fn mean_square(
    q: &Queue,
    row: usize,
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    mean(q, "mean_square", [row, 1, 1], x, y)
}

/// gx = 2 · g · x / row.
pub(in crate::backend::cuda) fn mean_square_grad(
    q: &Queue,
    row: usize,
    x: Floats<'_>,
    g: Floats<'_>,
    gx: FloatsMut<'_>,
) -> Result<(), BackendError> {
    mean_grad(q, "mean_square_grad", [row, 1, 1], x, g, gx)
}

/// y (rows) = (sum |down - here| + sum |right - here|) / elements of a map; `map` is C, H, W.
pub(in crate::backend::cuda) fn total_variation(
    q: &Queue,
    map: [usize; 3],
    x: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    mean(q, "total_variation", map, x, y)
}

/// Its gradient.
pub(in crate::backend::cuda) fn total_variation_grad(
    q: &Queue,
    map: [usize; 3],
    x: Floats<'_>,
    g: Floats<'_>,
    gx: FloatsMut<'_>,
) -> Result<(), BackendError> {
    mean_grad(q, "total_variation_grad", map, x, g, gx)
}

/// One of the kernels that make a number of each map C, H, W. Only total variation asks what is beside what.
fn mean(q: &Queue, kernel: &'static str, map: [usize; 3], x: Floats<'_>, y: FloatsMut<'_>) -> Result<(), BackendError> {
    let rows = y.len();
    expect(kernel, "x", x.len(), rows * len(&map))?;
    let arguments = RowArguments { x: x.pointer(), y: y.pointer(), ..row_arguments(kernel, map, &[x.pointer()])? };
    // SAFETY: the argument is the kernel's; x has as many rows as y has elements.
    unsafe { q.launch(kernel, [rows, 1, 1], [ROW_THREADS, 1], 0, arguments) }
}

/// One of their gradients.
fn mean_grad(
    q: &Queue,
    kernel: &'static str,
    map: [usize; 3],
    x: Floats<'_>,
    g: Floats<'_>,
    gx: FloatsMut<'_>,
) -> Result<(), BackendError> {
    expect(kernel, "x", x.len(), g.len() * len(&map))?;
    expect(kernel, "gx", gx.len(), x.len())?;
    let shape = row_arguments(kernel, map, &[x.pointer(), gx.pointer()])?;
    let items = x.len() / shape.lanes as usize;
    let items_narrow = narrow(kernel, "a value", items)?;
    let arguments = RowArguments { x: x.pointer(), g: g.pointer(), y: gx.pointer(), items: items_narrow, ..shape };
    // SAFETY: the argument is the kernel's; x and gx have a row for each element of g.
    unsafe { q.launch(kernel, blocks(items), [THREADS as u32, 1], 0, arguments) }
}

/// All but the pointers: how a map C, H, W lies in memory, channels-last.
fn row_arguments(kernel: &'static str, map: [usize; 3], pointers: &[u64]) -> Result<RowArguments, BackendError> {
    let [c, _, w] = map;
    let row = len(&map);
    Ok(RowArguments {
        x: 0,
        g: 0,
        y: 0,
        items: 0,
        row: narrow(kernel, "a row", row)?,
        // by channels: a thread's elements have their neighbours at one distance
        lanes: lanes(c, pointers) as u32,
        line: (w * c) as u32,
        step: c as u32,
        unused: 0,
    })
}
