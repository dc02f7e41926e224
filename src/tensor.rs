//! Host tensors: dense, row-major, logical order (N, C, H, W). Used by every layer; knows nothing of any.

use std::fmt;

/// Dimensions of a dense tensor, outermost first. An empty shape is a scalar.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// A shape from its dimensions, outermost first.
    pub fn new(dims: impl Into<Vec<usize>>) -> Self {
        Shape(dims.into())
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements: the product of the dimensions, 1 for a scalar, `None` where it overflows.
    pub fn checked_len(&self) -> Option<usize> {
        self.0.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }

    /// Number of elements; saturates, so that an absurd shape fails an allocation check instead of wrapping.
    pub fn len(&self) -> usize {
        self.checked_len().unwrap_or(usize::MAX)
    }

    /// True when some dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// This shape with `rows` put in front: (C, H, W) to (N, C, H, W).
    pub fn with_rows(&self, rows: usize) -> Shape {
        let mut dims = Vec::with_capacity(self.0.len() + 1);
        dims.push(rows);
        dims.extend_from_slice(&self.0);
        Shape(dims)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Shape(dims.to_vec())
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Shape(dims.to_vec())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Shape(dims)
    }
}

/// `32x26x26`; a scalar prints as `scalar`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("scalar");
        }
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("x")?;
            }
            write!(f, "{d}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// An owned f32 tensor in logical order.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Shape,
    data: Vec<f32>,
}

impl Tensor {
    /// A tensor from its shape and elements; `None` when their number differs from the shape's.
    pub fn new(shape: impl Into<Shape>, data: Vec<f32>) -> Option<Self> {
        let shape = shape.into();
        (shape.checked_len() == Some(data.len())).then_some(Tensor { shape, data })
    }

    /// A tensor of zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let data = vec![0.0; shape.len()];
        Tensor { shape, data }
    }

    /// A tensor whose element `i` (row-major) is `f(i)`.
    pub fn from_fn(shape: impl Into<Shape>, f: impl FnMut(usize) -> f32) -> Self {
        let shape = shape.into();
        let data = (0..shape.len()).map(f).collect();
        Tensor { shape, data }
    }

    /// Its shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Its elements, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Its elements, row-major, to change.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// Its elements, row-major, by value.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }
}

/// Borrowed elements on their way to a device, in logical order.
#[derive(Clone, Copy, Debug)]
pub enum TensorRef<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// 64-bit floats (the reference keeps them, other devices round them).
    F64(&'a [f64]),
    /// Labels and row lists.
    U32(&'a [u32]),
}

impl TensorRef<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            TensorRef::F32(d) => d.len(),
            TensorRef::F64(d) => d.len(),
            TensorRef::U32(d) => d.len(),
        }
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Room for elements on their way from a device, in logical order.
#[derive(Debug)]
pub enum TensorMut<'a> {
    /// 32-bit floats (the reference rounds).
    F32(&'a mut [f32]),
    /// 64-bit floats (exact from the reference, widened from other devices).
    F64(&'a mut [f64]),
}

impl TensorMut<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            TensorMut::F32(d) => d.len(),
            TensorMut::F64(d) => d.len(),
        }
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The index of the largest value, the first of equals; `None` for an empty row or one with a NaN.
pub fn argmax<T: PartialOrd + Copy>(row: &[T]) -> Option<usize> {
    // Only a NaN has no order with itself.
    if row.iter().any(|v| v.partial_cmp(v).is_none()) {
        return None;
    }
    (0..row.len()).reduce(|best, i| if row[i] > row[best] { i } else { best })
}
