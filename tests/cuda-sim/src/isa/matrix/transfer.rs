//! Fragments between memory and registers: `ldmatrix` and `stmatrix` (PTX ISA 9.7.14.5.15 and 16), `wmma.load` and
//! `wmma.store` (9.7.14.4.3 and 4).

use super::element::Element;
use super::layout::{Fragment, Matrix, Shape};
use super::multiply::{register_type, wmma_has};
use super::{refused, registers, shape};
use crate::lanes::Unsupported;
use crate::ptx::ast::{Instruction, Type};

/// A warp-wide move of a fragment, as tables: the interpreter needs to know nothing about matrices.
///
/// For every register below `distinct` and every lane, each of [`Transfer::pieces`] is one access at
/// `address[piece.lane] + piece.line * stride + piece.offset`, where `address` is what the lanes have in the address
/// operand and `stride` is [`Transfer::stride_bytes`]. The bytes stand in the register from bit `shift` on, and together
/// the pieces fill the register. Loads then copy register `r` to `r + distinct`, `r + 2 * distinct` ... below `registers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// From memory to registers; else the other way.
    pub load: bool,
    /// The operand that lists the registers.
    pub vector: usize,
    /// The operand with the address.
    pub address: usize,
    /// The operand with the stride in elements, a 32-bit integer.
    pub stride: Option<usize>,
    /// The type of each register; `B32` unless it is a wider or an arithmetic one.
    pub ty: Type,
    /// Registers that the vector lists.
    pub registers: usize,
    /// Registers that are moved; the others repeat them.
    pub distinct: usize,
    /// What each address must be a multiple of. For `wmma` the ISA (9.7.14.4.2) asks the same of every line's start, but
    /// CUDA C++ lets strides be any multiple of 16 bytes: only pieces need to be aligned to their size then.
    pub alignment: usize,
    element_bits: usize,
    default_stride: usize,
    pieces_per_lane: usize,
    /// By register, lane and piece.
    pieces: Vec<Piece>,
}

/// One access of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The lane whose address counts.
    pub lane: u8,
    /// How often the stride is added.
    pub line: u8,
    /// Bytes after that.
    pub offset: u8,
    /// How many bytes: 1, 2, 4 or 8.
    pub bytes: u8,
    /// The bit of the register with which they start.
    pub shift: u8,
}

impl Transfer {
    /// The accesses for a register (below `distinct`) of a lane.
    pub fn pieces(&self, register: usize, lane: usize) -> &[Piece] {
        &self.pieces[(register * 32 + lane) * self.pieces_per_lane..][..self.pieces_per_lane]
    }

    /// Bytes from a line to the next, given the stride operand's value if there is one.
    pub fn stride_bytes(&self, stride: Option<u32>) -> u64 {
        stride.map_or(self.default_stride as u64, u64::from) * self.element_bits as u64 / 8
    }
}

/// What to move for `ldmatrix`, `stmatrix`, `wmma.load` and `wmma.store`; `None` for any other instruction.
pub fn transfer(i: &Instruction) -> Result<Option<Transfer>, Unsupported> {
    match (i.opcode.as_str(), i.modifiers.first().map(String::as_str)) {
        ("ldmatrix", _) => rows_of_lanes(i, true).map(Some),
        ("stmatrix", _) => rows_of_lanes(i, false).map(Some),
        ("wmma", Some("load")) => fragment(i, true).map(Some),
        ("wmma", Some("store")) => fragment(i, false).map(Some),
        _ => Ok(None),
    }
}

/// Operands of the instruction: vector, address, stride. An error if there are not as many registers as wanted.
fn operands(
    i: &Instruction,
    load: bool,
    count: usize,
    strides: usize,
) -> Result<(usize, usize, Option<usize>), Unsupported> {
    let (vector, address) = if load { (0, 1) } else { (1, 0) };
    let given = registers(i.operands.get(vector));
    if given != count {
        return Err(Unsupported(format!("{} with {given} registers in place of {count}", i.form())));
    }
    if !(2..=2 + strides).contains(&i.operands.len()) {
        return Err(Unsupported(format!("{} with {} operands", i.form(), i.operands.len())));
    }
    Ok((vector, address, (i.operands.len() == 3).then_some(2)))
}

/// `ldmatrix` and `stmatrix`: matrices of 8 x 8 elements of 16 bits. Lane `8j + r` has the address of row `r` of matrix
/// `j`, which is register `j`. Lane `l` holds elements `2 (l % 4)` and the next of row `l / 4`, or with `.trans` of column
/// `l / 4`.
fn rows_of_lanes(i: &Instruction, load: bool) -> Result<Transfer, Unsupported> {
    let (mut count, mut transposed, mut m8n8, mut b16) = (None, false, false, false);
    for modifier in &i.modifiers {
        match modifier.as_str() {
            "sync" | "aligned" | "shared" | "shared::cta" => {}
            "m8n8" => m8n8 = true,
            "b16" => b16 = true,
            "trans" => transposed = true,
            "x1" => count = Some(1),
            "x2" => count = Some(2),
            "x4" => count = Some(4),
            _ => return Err(refused(i)),
        }
    }
    let (Some(count), true, true) = (count, m8n8, b16) else { return Err(refused(i)) };
    let (vector, address, stride) = operands(i, load, count, 0)?;
    let mut pieces = Vec::new();
    for matrix in 0..count {
        for lane in 0..32usize {
            let (line, pair) = (lane / 4, lane % 4 * 2);
            if transposed {
                for j in 0..2 {
                    let (row, column) = (pair + j, line);
                    let lane = (matrix * 8 + row) as u8;
                    pieces.push(Piece { lane, line: 0, offset: column as u8 * 2, bytes: 2, shift: j as u8 * 16 });
                }
            } else {
                let lane = (matrix * 8 + line) as u8;
                pieces.push(Piece { lane, line: 0, offset: pair as u8 * 2, bytes: 4, shift: 0 });
            }
        }
    }
    Ok(Transfer {
        load,
        vector,
        address,
        stride,
        ty: Type::B32,
        registers: count,
        distinct: count,
        alignment: 16,
        element_bits: 16,
        default_stride: 8,
        pieces_per_lane: if transposed { 2 } else { 1 },
        pieces,
    })
}

/// `wmma.load` and `wmma.store`: all lanes have the address of the matrix, whose lines (rows with `.row`, columns with
/// `.col`) are `stride` elements apart.
fn fragment(i: &Instruction, load: bool) -> Result<Transfer, Unsupported> {
    let refuse = || refused(i);
    let (mut which, mut row_major, mut size, mut element) = (None, None, None::<Shape>, None);
    for modifier in i.modifiers.iter().skip(1) {
        match modifier.as_str() {
            "sync" | "aligned" | "shared" | "shared::cta" | "global" => {}
            "a" if load => which = Some(Matrix::A),
            "b" if load => which = Some(Matrix::B),
            "c" if load => which = Some(Matrix::Accumulator),
            "d" if !load => which = Some(Matrix::Accumulator),
            "row" | "col" => row_major = Some(modifier == "row"),
            other => match (shape(other), Element::named(other)) {
                (Some(found), _) => size = Some(found),
                (_, Some(found)) => element = Some(found),
                _ => return Err(refuse()),
            },
        }
    }
    let (Some(matrix), Some(row_major), Some(shape), Some(element)) = (which, row_major, size, element) else {
        return Err(refuse());
    };
    let known = match matrix {
        Matrix::A | Matrix::B => wmma_has(shape, element),
        Matrix::Accumulator => match shape {
            [16, 16, 16] | [8, 32, 16] | [32, 8, 16] => {
                matches!(element, Element::F16 | Element::F32 | Element::S32)
            }
            [16, 16, 8] => element == Element::F32,
            [8, 8, 4] => element == Element::F64,
            [8, 8, 32] | [8, 8, 128] => element == Element::S32,
            _ => false,
        },
    };
    // Elements of less than a byte are contiguous in memory as they are in a register.
    if !known || element.bits() < 8 && row_major != (matrix == Matrix::A) {
        return Err(refuse());
    }
    let fragment = Fragment::new(shape, element, matrix);
    let (vector, address, stride) = operands(i, load, fragment.registers, 1)?;
    let across = (matrix == Matrix::Accumulator || matrix == Matrix::A) == row_major;
    let pieces_per_lane = if across { 1 } else { fragment.packed };
    let together = fragment.packed / pieces_per_lane;
    let mut pieces = Vec::new();
    for register in 0..fragment.distinct {
        for lane in 0..32 {
            for piece in 0..pieces_per_lane {
                let j = piece * together;
                let (row, column) = fragment.position(lane, register * fragment.packed + j);
                let (line, within) = if row_major { (row, column) } else { (column, row) };
                pieces.push(Piece {
                    lane: lane as u8,
                    line: line as u8,
                    offset: (within * element.bits() / 8) as u8,
                    bytes: (together * element.bits() / 8) as u8,
                    shift: (j * element.bits()) as u8,
                });
            }
        }
    }
    let ty = register_type(element);
    Ok(Transfer {
        load,
        vector,
        address,
        stride,
        ty,
        registers: fragment.registers,
        distinct: fragment.distinct,
        alignment: fragment.registers * ty.bytes(),
        element_bits: element.bits(),
        default_stride: if row_major { fragment.columns } else { fragment.rows },
        pieces_per_lane,
        pieces,
    })
}
