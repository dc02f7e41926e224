//! Which element of a matrix a lane holds in which register (PTX ISA 9.7.14.5.1 to 9.7.14.5.13).
//!
//! The ISA gives the fragments of every `mma` shape as formulas of their own; but for `m8n8k4` with f16 (see `quad.rs`)
//! they are all one. With `g = lane / 4` and `t = lane % 4`, a register (two for 32- and 64-bit accumulators) holds a
//! tile over the warp, and the tiles of a matrix stand in column-major order:
//!
//! | matrix | tile | element `j` of a lane |
//! | --- | --- | --- |
//! | A, `w` elements a register | 8 x 4w | row `g`, column `t * w + j` |
//! | B, `w` elements a register | 4w x 8 | row `t * w + j`, column `g` |
//! | C and D | 8 x 8 | row `g`, column `t * 2 + j` |
//!
//! So a register of A *is* a row-major tile, lane after lane, and one of B a column-major tile.
//!
//! The fragments of `wmma` are unspecified (9.7.14.4.1). Here they follow the same rule, which is also what devices from
//! sm_75 on do for `m16n16k16` and `m16n16k8`. f16 multiplicands have eight registers whatever the shape: after its tiles,
//! the fragment repeats itself.

use super::element::Element;

/// M, N and K of a multiplication.
pub type Shape = [usize; 3];

/// A matrix of a multiplication `D = A * B + C`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    /// M x K.
    A,
    /// K x N.
    B,
    /// C or D, M x N.
    Accumulator,
}

/// How a matrix lies in the registers of a warp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Which matrix.
    pub matrix: Matrix,
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub columns: usize,
    /// Elements in a register.
    pub packed: usize,
    /// Registers of a lane, with repetitions.
    pub registers: usize,
    /// Registers of a lane until they repeat.
    pub distinct: usize,
}

/// Registers that the multiplicands of `wmma` in f16 have at least.
const WMMA_F16: usize = 8;

/// Whether a shape is one that only `wmma` has.
pub const fn only_wmma([m, n, _]: Shape) -> bool {
    m * n == 256
}

/// Registers and distinct registers of a multiplicand with `elements` in all.
pub(super) const fn multiplicand(shape: Shape, elements: usize, packed: usize, f16: bool) -> (usize, usize) {
    let distinct = elements / (32 * packed);
    (if f16 && only_wmma(shape) { WMMA_F16 } else { distinct }, distinct)
}

impl Fragment {
    /// The fragment of a matrix of elements of a type. The shape is one that the ISA has for the type.
    pub fn new(shape: Shape, element: Element, matrix: Matrix) -> Fragment {
        let [m, n, k] = shape;
        let packed = if element.bits() < 32 { 32 / element.bits() } else { 1 };
        let (rows, columns) = match matrix {
            Matrix::A => (m, k),
            Matrix::B => (k, n),
            Matrix::Accumulator => (m, n),
        };
        let (registers, distinct) =
            multiplicand(shape, rows * columns, packed, element == Element::F16 && matrix != Matrix::Accumulator);
        Fragment { matrix, rows, columns, packed, registers, distinct }
    }

    /// Elements of a lane, repetitions included.
    pub fn elements(&self) -> usize {
        self.registers * self.packed
    }

    /// Row and column of element `i` of a lane; elements are numbered through its registers, from the low bits up.
    pub fn position(&self, lane: usize, i: usize) -> (usize, usize) {
        let (g, t, w) = (lane / 4, lane % 4, self.packed);
        let (register, j) = (i / w % self.distinct, i % w);
        match self.matrix {
            Matrix::A => {
                let tile = register;
                (tile % (self.rows / 8) * 8 + g, tile / (self.rows / 8) * 4 * w + t * w + j)
            }
            Matrix::B => {
                let (tile, down) = (register, self.rows / (4 * w));
                (tile % down * 4 * w + t * w + j, tile / down * 8 + g)
            }
            Matrix::Accumulator => {
                let (tile, j) = ((register * w + j) / 2, (register * w + j) % 2);
                (tile % (self.rows / 8) * 8 + g, tile / (self.rows / 8) * 8 + t * 2 + j)
            }
        }
    }
}
