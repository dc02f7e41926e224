//! Extended precision (PTX ISA 9.7.2): add.cc, addc, sub.cc, subc, mad.cc, madc.
//!
//! The condition code is a predicate that the text does not name, `%cc`: an output after `d` where it is written, the last
//! input where it is read. It holds the carry of the adder, as on hardware: `sub.cc` computes `a + !b + 1` and leaves 1
//! where nothing was borrowed, and `subc` subtracts one more where it finds 0. Chains of subtractions borrow as the ISA
//! says; that the ISA calls the bit a borrow could show only after a mix of `sub.cc` and `addc`, where the assembler's code
//! does as this.

use super::Parts;
use crate::lanes::{Class, Form, Lane, Run, Sync, input, output};
use crate::ptx::ast::Instruction;
use crate::ptx::ast::Type::{self, *};
use crate::typed_lanes;

/// Whether an instruction (writes, reads) the condition code `%cc`.
pub fn carry(i: &Instruction) -> (bool, bool) {
    match i.opcode.as_str() {
        "add" | "sub" | "mad" => (i.has("cc"), false),
        "addc" | "subc" | "madc" => (i.has("cc"), true),
        _ => (false, false),
    }
}

pub(super) fn form(parts: &Parts) -> Option<Form> {
    let &[ty] = &parts.types[..] else { return None };
    let (run, sources) = match (parts.opcode, &parts.others[..]) {
        ("add", ["cc"]) => (add_cc(ty)?, 2),
        ("addc", []) => (addc(ty)?, 2),
        ("addc", ["cc"]) => (addc_cc(ty)?, 2),
        ("sub", ["cc"]) => (sub_cc(ty)?, 2),
        ("subc", []) => (subc(ty)?, 2),
        ("subc", ["cc"]) => (subc_cc(ty)?, 2),
        ("mad", ["lo", "cc"]) => (mad_lo_cc(ty)?, 3),
        ("mad", ["hi", "cc"]) => (mad_hi_cc(ty)?, 3),
        ("madc", ["lo"]) => (madc_lo(ty)?, 3),
        ("madc", ["hi"]) => (madc_hi(ty)?, 3),
        ("madc", ["lo", "cc"]) => (madc_lo_cc(ty)?, 3),
        ("madc", ["hi", "cc"]) => (madc_hi_cc(ty)?, 3),
        _ => return None,
    };
    let mut slots = vec![output(ty)];
    if parts.others.contains(&"cc") {
        slots.push(output(Pred));
    }
    slots.extend((0..sources).map(|_| input(ty)));
    if parts.opcode.ends_with('c') {
        slots.push(input(Pred));
    }
    Some(Form { run, slots, class: Class::Integer, fma: 0, sync: Sync::No })
}

/// The adder and the halves of a product.
trait Chain: Lane {
    fn add(self, to: Self, carry: bool) -> (Self, bool);
    fn not(self) -> Self;
    fn low(self, by: Self) -> Self;
    fn high(self, by: Self) -> Self;
}

macro_rules! chain {
    ($($t:ty, $unsigned:ty, $double:ty;)*) => {$(
        impl Chain for $t {
            #[inline(always)]
            fn add(self, to: $t, carry: bool) -> ($t, bool) {
                let (sum, first) = (self as $unsigned).overflowing_add(to as $unsigned);
                let (sum, second) = sum.overflowing_add(carry as $unsigned);
                (sum as $t, first | second)
            }
            #[inline(always)]
            fn not(self) -> $t {
                !self
            }
            #[inline(always)]
            fn low(self, by: $t) -> $t {
                self.wrapping_mul(by)
            }
            #[inline(always)]
            fn high(self, by: $t) -> $t {
                ((self as $double * by as $double) >> <$t>::BITS) as $t
            }
        }
    )*};
}
chain! {
    u32, u32, u64;
    i32, u32, i64;
    u64, u64, u128;
    i64, u64, i128;
}

macro_rules! chains {
    ($($name:ident $signature:tt $body:tt)*) => {$(
        fn $name(ty: Type) -> Option<Run> {
            typed_lanes!(ty, [U32: u32, S32: i32, U64: u64, S64: i64], $signature $body)
        }
    )*};
}
chains! {
    add_cc(d: T, cc: bool; a: T, b: T) { (d, cc) = a.add(b, false); }
    addc(d: T; a: T, b: T, ci: bool) { (d, _) = a.add(b, ci); }
    addc_cc(d: T, cc: bool; a: T, b: T, ci: bool) { (d, cc) = a.add(b, ci); }
    sub_cc(d: T, cc: bool; a: T, b: T) { (d, cc) = a.add(b.not(), true); }
    subc(d: T; a: T, b: T, ci: bool) { (d, _) = a.add(b.not(), ci); }
    subc_cc(d: T, cc: bool; a: T, b: T, ci: bool) { (d, cc) = a.add(b.not(), ci); }
    mad_lo_cc(d: T, cc: bool; a: T, b: T, c: T) { (d, cc) = a.low(b).add(c, false); }
    mad_hi_cc(d: T, cc: bool; a: T, b: T, c: T) { (d, cc) = a.high(b).add(c, false); }
    madc_lo(d: T; a: T, b: T, c: T, ci: bool) { (d, _) = a.low(b).add(c, ci); }
    madc_hi(d: T; a: T, b: T, c: T, ci: bool) { (d, _) = a.high(b).add(c, ci); }
    madc_lo_cc(d: T, cc: bool; a: T, b: T, c: T, ci: bool) { (d, cc) = a.low(b).add(c, ci); }
    madc_hi_cc(d: T, cc: bool; a: T, b: T, c: T, ci: bool) { (d, cc) = a.high(b).add(c, ci); }
}
