//! Logic, shifts, comparison, selection, moves.

use crate::lanes::{Form, Unsupported};
use crate::ptx::ast::{Instruction, Type};

/// See [`crate::lanes::Family`].
pub fn family(_i: &Instruction, _register: &dyn Fn(&str) -> Option<Type>) -> Result<Option<Form>, Unsupported> {
    Ok(None)
}
