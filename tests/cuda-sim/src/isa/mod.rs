//! What each instruction does to registers, by family; the meaning is the PTX ISA's, cited by section in each file.
//!
//! Memory, control flow and barriers are not here: the interpreter does them itself (`exec`).

pub mod convert;
pub mod float;
pub mod half;
pub mod integer;
pub mod logic;
pub mod matrix;
pub mod video;
pub mod warp;

use crate::lanes::{Family, Form, Unsupported};
use crate::ptx::ast::{Instruction, Type};

const FAMILIES: [Family; 8] = [
    integer::family,
    logic::family,
    float::family,
    half::family,
    convert::family,
    warp::family,
    matrix::family,
    video::family,
];

/// The form of an instruction that touches registers only; `None` for an opcode that no family has.
pub fn form(i: &Instruction, register: &dyn Fn(&str) -> Option<Type>) -> Result<Option<Form>, Unsupported> {
    for family in FAMILIES {
        if let Some(form) = family(i, register)? {
            return Ok(Some(form));
        }
    }
    Ok(None)
}
