//! `movmatrix` (PTX ISA 9.7.14.5.17): an 8 x 8 matrix of 16-bit elements, transposed across the warp.

use super::refused;
use crate::lanes::{Class, Form, Lane, Sync, Unit, Unsupported};
use crate::ptx::ast::{Instruction, Type};

unsafe fn transpose(file: *mut Unit, operands: &[u16], mask: u32) {
    let &[d, a] = operands else { return };
    let source = unsafe { u32::read(file, a) };
    let element = |row: usize, column: usize| source[row * 4 + column / 2] >> (column % 2 * 16) & 0xffff;
    let result = std::array::from_fn(|lane| {
        let (row, column) = (lane / 4, lane % 4 * 2);
        element(column, row) | element(column + 1, row) << 16
    });
    unsafe { u32::write(file, d, &result, mask) };
}

pub(super) fn form(i: &Instruction) -> Result<Form, Unsupported> {
    let modifiers: Vec<&str> = i.modifiers.iter().map(String::as_str).collect();
    if modifiers != ["sync", "aligned", "m8n8", "trans", "b16"] || i.operands.len() != 2 {
        return Err(refused(i));
    }
    let mut form = Form::new(transpose, Class::Matrix, Type::B32, &[Type::B32]);
    form.sync = Sync::Warp;
    Ok(form)
}
