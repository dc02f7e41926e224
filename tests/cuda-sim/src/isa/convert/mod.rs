//! `cvt`: conversions between all types (PTX ISA 9.7.10.24 and 9.7.10.25).
//!
//! `float` has the conversions from and to floating-point types, `integer` those between integers, `packed` those of two
//! values at once. Operands may lie in registers wider than the type (9.4.1): of a source the low bits count, a result is
//! extended.

mod float;
mod integer;
mod packed;
#[cfg(test)]
mod tests;

use super::float::operation::Modifiers;
use crate::lanes::{Form, Unsupported};
use crate::ptx::ast::{Instruction, Operand, Type};

/// The types of a conversion and the registers it is between.
#[derive(Debug, Clone, Copy)]
struct Types {
    to: Type,
    from: Type,
    /// Bits of the destination register.
    to_bits: u32,
    /// Bits of the source register.
    from_bits: u32,
}

impl Types {
    /// The type as which the source register is read.
    fn source(self) -> Type {
        if self.from_bits == 64 && self.from.bits() < 64 { Type::B64 } else { self.from }
    }

    /// The type as which the destination register is written.
    fn destination(self) -> Type {
        if self.to_bits == 64 && self.to.bits() < 64 { Type::B64 } else { self.to }
    }
}

/// See [`crate::lanes::Family`].
pub fn family(i: &Instruction, register: &dyn Fn(&str) -> Option<Type>) -> Result<Option<Form>, Unsupported> {
    if i.opcode != "cvt" {
        return Ok(None);
    }
    let mut m = Modifiers::new(i);
    if m.take("pack") {
        return packed::integers(m).map(Some);
    }
    let (Some(to), Some(from)) = (m.take_type(), m.take_type()) else {
        return m.unsupported();
    };
    // An operand that is no register, or is none yet, is taken to have the instruction's type.
    let bits = |n: usize, ty: Type| match i.operands.get(n) {
        Some(Operand::Name(name)) => register(name).map_or(ty.bits(), |r| r.bits().max(ty.bits())),
        _ => ty.bits(),
    };
    let types = Types { to, from, to_bits: bits(0, to), from_bits: bits(1, from) };
    let whole =
        |t: Type| !t.float() && !matches!(t, Type::Pred | Type::B8 | Type::B16 | Type::B32 | Type::B64 | Type::B128);
    let scalar = |t: Type| matches!(t, Type::F16 | Type::Bf16 | Type::F32 | Type::F64);
    let form = match (to, from) {
        _ if whole(to) && whole(from) => integer::form(&mut m, types)?,
        _ if whole(to) && scalar(from) => float::to_integer(&mut m, types)?,
        _ if scalar(to) && whole(from) => float::from_integer(&mut m, types)?,
        _ if scalar(to) && scalar(from) => float::form(&mut m, types)?,
        _ => packed::form(&mut m, types)?,
    };
    m.done()?;
    Ok(Some(form))
}
