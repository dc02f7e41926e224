//! `mma.m8n8k4` with f16 multiplicands (PTX ISA 9.7.14.5.1): four multiplications at once, each by the eight lanes of a
//! quad pair. Made for sm_70 and slow elsewhere, so simplicity comes first here.

use super::element::{Element, f16_to_f32, f32_to_f16};
use super::multiply;
use super::refused;
use crate::lanes::{Form, Lane, Run, Unit, Unsupported};
use crate::ptx::ast::Instruction;

/// Row and column of element `i` of a lane in A.
pub fn a(lane: usize, i: usize, row_major: bool) -> (usize, usize) {
    let high = lane / 16 * 4;
    if row_major { (lane % 4 + high, i) } else { (i + high, lane % 4) }
}

/// Row and column of element `i` of a lane in B.
pub fn b(lane: usize, i: usize, row_major: bool) -> (usize, usize) {
    let high = lane / 16 * 4;
    if row_major { (lane % 4, i + high) } else { (i, lane % 4 + high) }
}

/// Row and column of element `i` of a lane in C or D.
pub fn accumulator(lane: usize, i: usize, f16: bool) -> (usize, usize) {
    let high = lane / 16 * 4;
    if f16 { (lane % 4 + high, i) } else { ((lane & 1) + (i & 2) + high, (i & 4) + (lane & 2) + (i & 1)) }
}

unsafe fn run<const A_ROW: bool, const B_ROW: bool, const C_F16: bool, const D_F16: bool>(
    file: *mut Unit,
    operands: &[u16],
    mask: u32,
) {
    let (d_registers, c_registers) = (if D_F16 { 4 } else { 8 }, if C_F16 { 4 } else { 8 });
    let read = |slot: u16| unsafe { u32::read(file, slot) };
    let halves = |slots: &[u16], lane: usize, i: usize| f16_to_f32((read(slots[i / 2])[lane] >> (i % 2 * 16)) as u16);
    let (d_slots, rest) = operands.split_at(d_registers);
    let (a_slots, rest) = rest.split_at(2);
    let (b_slots, c_slots) = rest.split_at(2);
    let mut result = vec![[0u32; 32]; d_registers];
    for pair in 0..4 {
        let lanes = || (0..32).filter(|lane| lane / 4 % 4 == pair);
        let (mut a_values, mut b_values, mut sums) = ([[0f32; 4]; 8], [[0f32; 8]; 4], [[0f32; 8]; 8]);
        for lane in lanes() {
            for i in 0..4 {
                let (row, column) = a(lane, i, A_ROW);
                a_values[row][column] = halves(a_slots, lane, i);
                let (row, column) = b(lane, i, B_ROW);
                b_values[row][column] = halves(b_slots, lane, i);
            }
            for i in 0..8 {
                let (row, column) = accumulator(lane, i, C_F16);
                sums[row][column] = if C_F16 {
                    halves(&c_slots[..c_registers], lane, i)
                } else {
                    f32::from_bits(read(c_slots[i])[lane])
                };
            }
        }
        for (sums, a_row) in sums.iter_mut().zip(&a_values) {
            for (a, b_row) in a_row.iter().zip(&b_values) {
                for (sum, b) in sums.iter_mut().zip(b_row) {
                    *sum = a.mul_add(*b, *sum);
                }
            }
        }
        for lane in lanes() {
            for i in 0..8 {
                let (row, column) = accumulator(lane, i, D_F16);
                let sum = sums[row][column];
                if D_F16 {
                    result[i / 2][lane] |= f32_to_f16(sum) << (i % 2 * 16);
                } else {
                    result[i][lane] = if sum.is_nan() { 0x7fff_ffff } else { sum.to_bits() };
                }
            }
        }
    }
    for (slot, value) in d_slots.iter().zip(&result) {
        unsafe { u32::write(file, *slot, value, mask) };
    }
}

/// The form for types in the order D, A, B, C, and whether A and B are row-major.
pub(super) fn form(i: &Instruction, types: [Element; 4], rows: [bool; 2]) -> Result<Form, Unsupported> {
    use Element::{F16, F32};
    macro_rules! pick {
        ($c:literal, $d:literal) => {
            match rows {
                [true, true] => run::<true, true, $c, $d>,
                [true, false] => run::<true, false, $c, $d>,
                [false, true] => run::<false, true, $c, $d>,
                [false, false] => run::<false, false, $c, $d>,
            }
        };
    }
    let run: Run = match (types[3], types[0]) {
        (F16, F16) => pick!(true, true),
        (F16, F32) => pick!(true, false),
        (F32, F32) => pick!(false, false),
        _ => return Err(refused(i)),
    };
    let registers = |element| if element == F16 { 4 } else { 8 };
    multiply::form(i, run, types, [registers(types[0]), 2, 2, registers(types[3])], 4 * 8 * 8 * 4)
}
