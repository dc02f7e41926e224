//! Integer arithmetic, bit manipulation, carry chains, dot products (PTX ISA 9.7.1 and 9.7.2).
//!
//! `arithmetic` has what computes, `bits` what looks at bits, `carry` the extended-precision instructions.

mod arithmetic;
mod bits;
mod carry;
#[cfg(test)]
mod tests;

use crate::lanes::{Form, Unsupported};
use crate::ptx::ast::{Instruction, Operand, Type};

pub use carry::carry;

/// See [`crate::lanes::Family`].
pub fn family(i: &Instruction, _register: &dyn Fn(&str) -> Option<Type>) -> Result<Option<Form>, Unsupported> {
    // The other families have the same opcodes on floating-point types.
    let shared = matches!(
        i.opcode.as_str(),
        "add" | "sub" | "mul" | "mad" | "div" | "abs" | "neg" | "min" | "max" | "rem" | "sad"
    );
    let integer = i.modifiers.iter().any(|m| INTEGER.contains(&m.as_str()));
    if shared && !integer {
        return Ok(None);
    }
    let parts = Parts::of(i);
    let form = match i.opcode.as_str() {
        "add" | "sub" | "mad" if i.has("cc") => carry::form(&parts),
        "addc" | "subc" | "madc" => carry::form(&parts),
        "add" | "sub" | "mul" | "mad" | "mul24" | "mad24" | "sad" | "div" | "rem" | "abs" | "neg" | "min" | "max"
        | "dp4a" | "dp2a" => arithmetic::form(&parts),
        "popc" | "clz" | "bfind" | "fns" | "brev" | "bfe" | "bfi" | "bmsk" | "szext" => bits::form(&parts),
        _ => return Ok(None),
    };
    match form {
        Some(form) if !i.operands.iter().any(|o| matches!(o, Operand::Not(_))) => Ok(Some(form)),
        _ => Err(Unsupported(i.form())),
    }
}

const INTEGER: [&str; 12] = ["u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "u16x2", "s16x2", "u8x4", "s8x4"];

/// An instruction taken apart: the opcode, the types among its modifiers, and the other modifiers.
pub(super) struct Parts<'a> {
    pub opcode: &'a str,
    pub others: Vec<&'a str>,
    pub types: Vec<Type>,
}

impl<'a> Parts<'a> {
    pub fn of(i: &'a Instruction) -> Parts<'a> {
        let others = i.modifiers.iter().map(String::as_str).filter(|m| Type::named(m).is_none()).collect();
        Parts { opcode: &i.opcode, others, types: i.types().collect() }
    }
}
