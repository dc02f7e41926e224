//! Tensor-core instructions and the layout of their fragments (PTX ISA 9.7.14; sections are numbered as in
//! version 9.2).
//!
//! `mma`, `wmma.mma` and `movmatrix` touch registers only and are forms like any other ([`family`]). `ldmatrix`,
//! `stmatrix`, `wmma.load` and `wmma.store` move fragments between memory and registers: [`transfer`] says which lane's
//! register comes from where, and the interpreter does it. `wgmma` and `tcgen05` are refused.

pub mod element;
pub mod layout;
mod movmatrix;
mod multiply;
mod quad;
mod tile;
mod transfer;

pub use transfer::{Piece, Transfer, transfer};

use crate::lanes::{Form, Unsupported};
use crate::ptx::ast::{Instruction, Operand, Type};
use layout::Shape;

/// See [`crate::lanes::Family`].
pub fn family(i: &Instruction, _register: &dyn Fn(&str) -> Option<Type>) -> Result<Option<Form>, Unsupported> {
    match i.opcode.as_str() {
        "mma" => multiply::mma(i).map(Some),
        "wmma" if i.modifiers.first().is_some_and(|m| m == "mma") => multiply::wmma(i).map(Some),
        "movmatrix" => movmatrix::form(i).map(Some),
        "wgmma" | "tcgen05" => Err(refused(i)),
        _ => Ok(None),
    }
}

fn refused(i: &Instruction) -> Unsupported {
    Unsupported(i.form())
}

/// `m16n8k16`
fn shape(modifier: &str) -> Option<Shape> {
    let (m, rest) = modifier.strip_prefix('m')?.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    let number = |digits: &str| digits.parse::<u16>().ok().map(usize::from);
    Some([number(m)?, number(n)?, number(k)?])
}

/// Registers that an operand lists.
fn registers(operand: Option<&Operand>) -> usize {
    match operand {
        Some(Operand::Vector(elements)) => elements.len(),
        Some(_) => 1,
        None => 0,
    }
}

#[cfg(test)]
mod tests;
