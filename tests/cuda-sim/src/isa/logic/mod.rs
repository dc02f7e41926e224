//! Logic and shifts (PTX ISA 9.7.8), comparison and selection (9.7.5, 9.7.7), moves and address conversions (9.7.9).

mod bitwise;
mod compare;
mod moves;
mod select;
mod shift;
#[cfg(test)]
mod tests;

use crate::lanes::{Form, Unsupported};
use crate::ptx::ast::{Instruction, Operand, Type};

pub use moves::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};

/// See [`crate::lanes::Family`].
pub fn family(i: &Instruction, _register: &dyn Fn(&str) -> Option<Type>) -> Result<Option<Form>, Unsupported> {
    let parts = Parts::of(i);
    let form = match i.opcode.as_str() {
        "and" | "or" | "xor" | "not" | "cnot" | "lop3" => bitwise::form(&parts),
        "shl" | "shr" | "shf" | "prmt" => shift::form(&parts),
        "setp" | "set" => compare::form(&parts),
        "selp" | "slct" => select::form(&parts),
        "mov" | "cvta" | "isspacep" => moves::form(&parts),
        "mapa" | "getctarank" => None,
        _ => return Ok(None),
    };
    form.map(Some).ok_or_else(|| Unsupported(i.form()))
}

/// An instruction taken apart: the opcode, the types among its modifiers, the other modifiers, the operands.
struct Parts<'a> {
    opcode: &'a str,
    others: Vec<&'a str>,
    types: Vec<Type>,
    operands: &'a [Operand],
}

impl<'a> Parts<'a> {
    fn of(i: &'a Instruction) -> Parts<'a> {
        let others = i.modifiers.iter().map(String::as_str).filter(|m| Type::named(m).is_none()).collect();
        Parts { opcode: &i.opcode, others, types: i.types().collect(), operands: &i.operands }
    }

    /// Whether operand `n` is negated.
    fn negated(&self, n: usize) -> bool {
        matches!(self.operands.get(n), Some(Operand::Not(_)))
    }

    /// Whether any operand is: most forms have none that may be.
    fn any_negated(&self) -> bool {
        (0..self.operands.len()).any(|n| self.negated(n))
    }

    /// Whether the destination is `d|p`.
    fn pair(&self) -> bool {
        matches!(self.operands.first(), Some(Operand::Pair(..)))
    }
}
