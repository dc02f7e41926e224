//! Tensor-core instructions and the layout of their fragments.

use crate::lanes::{Form, Unsupported};
use crate::ptx::ast::{Instruction, Type};

/// See [`crate::lanes::Family`].
pub fn family(_i: &Instruction, _register: &dyn Fn(&str) -> Option<Type>) -> Result<Option<Form>, Unsupported> {
    Ok(None)
}
/// tmp
#[derive(Debug)]
pub struct Piece {
    pub source: u8,
    pub row: u16,
    pub offset: u16,
}
/// tmp
#[derive(Debug)]
pub struct Part {
    pub bytes: u8,
    pub shift: u8,
    pub lanes: [Piece; 32],
}
/// tmp
#[derive(Debug)]
pub struct Transfer {
    pub load: bool,
    pub wide: bool,
    pub default_stride: u32,
    pub stride_bytes: u32,
    pub registers: Vec<Vec<Part>>,
}
/// tmp
pub fn transfer(_: &Instruction) -> Result<Option<Transfer>, Unsupported> {
    Ok(None)
}
