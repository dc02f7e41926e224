//! and, or, xor, not, cnot, lop3.

use super::Parts;
use crate::lanes::{Class, Form, Lane, Run, Sync, Unit, input, output, pick, predicate, set_predicate};
use crate::ptx::ast::Operand;
use crate::ptx::ast::Type::{self, *};
use crate::{lanes, typed_lanes};

pub(super) fn form(parts: &Parts) -> Option<Form> {
    match (parts.opcode, &parts.others[..], &parts.types[..]) {
        ("lop3", [], [B32]) => {
            let table = table(parts)?;
            Some(Form::new(lop3(table), Class::Integer, B32, &[B32, B32, B32, U32]))
        }
        ("lop3", [operator @ ("and" | "or")], [B32]) => {
            table(parts)?;
            let run: Run = match (*operator, parts.negated(5)) {
                ("and", false) => lop3_and(),
                ("and", true) => lop3_and_not(),
                (_, false) => lop3_or(),
                (_, true) => lop3_or_not(),
            };
            let slots = [output(B32), output(Pred), input(B32), input(B32), input(B32), input(U32), input(Pred)];
            let supported = parts.pair() && !(0..5).any(|n| parts.negated(n));
            supported.then(|| Form { run, slots: slots.into(), class: Class::Integer, fma: 0, sync: Sync::No })
        }
        (operator @ ("and" | "or" | "xor"), [], [Pred]) => {
            let run = predicate_logic(operator, parts.negated(1), parts.negated(2))?;
            Some(Form::new(run, Class::Compare, Pred, &[Pred, Pred]))
        }
        ("not", [], [Pred]) => Some(Form::new(copy(!parts.negated(1)), Class::Compare, Pred, &[Pred])),
        (_, _, _) if parts.any_negated() => None,
        ("and", [], &[ty]) => Some(Form::new(and(ty)?, Class::Integer, ty, &[ty, ty])),
        ("or", [], &[ty]) => Some(Form::new(or(ty)?, Class::Integer, ty, &[ty, ty])),
        ("xor", [], &[ty]) => Some(Form::new(xor(ty)?, Class::Integer, ty, &[ty, ty])),
        ("not", [], &[ty]) => Some(Form::new(not(ty)?, Class::Integer, ty, &[ty])),
        ("cnot", [], &[ty]) => Some(Form::new(cnot(ty)?, Class::Integer, ty, &[ty])),
        _ => None,
    }
}

// Zero-extended 16-bit values stay so under and, or, xor.
fn and(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [B16: u32, B32: u32, B64: u64], (d: T; a: T, b: T) { d = a & b; })
}

fn or(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [B16: u32, B32: u32, B64: u64], (d: T; a: T, b: T) { d = a | b; })
}

fn xor(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [B16: u32, B32: u32, B64: u64], (d: T; a: T, b: T) { d = a ^ b; })
}

fn not(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [B16: u16, B32: u32, B64: u64], (d: T; a: T) { d = !a; })
}

fn cnot(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [B16: u16, B32: u32, B64: u64], (d: T; a: T) { d = (a == 0) as T; })
}

/// Copies a predicate, negated if asked: `mov.pred` and `not.pred`.
pub(super) fn copy(negated: bool) -> Run {
    unsafe fn run<const NOT: bool>(file: *mut Unit, operands: &[u16], mask: u32) {
        unsafe {
            let a = predicate(file, operands[1]);
            set_predicate(file, operands[0], if NOT { !a } else { a }, mask)
        }
    }
    if negated { run::<true> } else { run::<false> }
}

/// How two predicates, each perhaps negated, become one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum BoolOp {
    /// The first alone.
    First,
    And,
    Or,
    Xor,
}

impl BoolOp {
    pub fn named(name: &str) -> Option<BoolOp> {
        Some(match name {
            "and" => BoolOp::And,
            "or" => BoolOp::Or,
            "xor" => BoolOp::Xor,
            _ => return None,
        })
    }

    #[inline(always)]
    pub fn apply(self, a: u32, b: u32) -> u32 {
        match self {
            BoolOp::First => a,
            BoolOp::And => a & b,
            BoolOp::Or => a | b,
            BoolOp::Xor => a ^ b,
        }
    }
}

fn predicate_logic(operator: &str, not_a: bool, not_b: bool) -> Option<Run> {
    unsafe fn run<const OPERATOR: u8, const NOT_A: bool, const NOT_B: bool>(
        file: *mut Unit,
        operands: &[u16],
        mask: u32,
    ) {
        unsafe {
            let (a, b) = (predicate(file, operands[1]), predicate(file, operands[2]));
            let (a, b) = (if NOT_A { !a } else { a }, if NOT_B { !b } else { b });
            let operator = [BoolOp::And, BoolOp::Or, BoolOp::Xor][OPERATOR as usize];
            set_predicate(file, operands[0], operator.apply(a, b), mask)
        }
    }
    macro_rules! variant {
        ($operator:literal) => {
            match (not_a, not_b) {
                (false, false) => run::<$operator, false, false> as Run,
                (false, true) => run::<$operator, false, true>,
                (true, false) => run::<$operator, true, false>,
                (true, true) => run::<$operator, true, true>,
            }
        };
    }
    Some(match BoolOp::named(operator)? {
        BoolOp::And => variant!(0),
        BoolOp::Or => variant!(1),
        _ => variant!(2),
    })
}

/// The table of a `lop3`: an immediate of 8 bits.
fn table(parts: &Parts) -> Option<u8> {
    match parts.operands.get(4) {
        Some(&Operand::Int(table)) => u8::try_from(table).ok(),
        _ => None,
    }
}

/// Bit `4a + 2b + c` of the table, for every bit of the sources.
#[inline(always)]
fn look_up(table: u32, a: u32, b: u32, c: u32) -> u32 {
    let pick = |index: u32, minterm: u32| minterm & (table >> index & 1).wrapping_neg();
    pick(0, !a & !b & !c)
        | pick(1, !a & !b & c)
        | pick(2, !a & b & !c)
        | pick(3, !a & b & c)
        | pick(4, a & !b & !c)
        | pick(5, a & !b & c)
        | pick(6, a & b & !c)
        | pick(7, a & b & c)
}

lanes! {
    fn lop3_any(d: u32; a: u32, b: u32, c: u32, t: u32) { d = look_up(t, a, b, c); }
    fn lop3_and(d: u32, p: bool; a: u32, b: u32, c: u32, t: u32, q: bool) { d = look_up(t, a, b, c); p = (d != 0) & q; }
    fn lop3_and_not(d: u32, p: bool; a: u32, b: u32, c: u32, t: u32, q: bool) {
        d = look_up(t, a, b, c);
        p = (d != 0) & !q;
    }
    fn lop3_or(d: u32, p: bool; a: u32, b: u32, c: u32, t: u32, q: bool) { d = look_up(t, a, b, c); p = (d != 0) | q; }
    fn lop3_or_not(d: u32, p: bool; a: u32, b: u32, c: u32, t: u32, q: bool) {
        d = look_up(t, a, b, c);
        p = (d != 0) | !q;
    }
}

/// One function for each of the 256 tables on wide processors: the compiler finds the few operations that each needs.
fn lop3(table: u8) -> Run {
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    unsafe fn run<const TABLE: u8>(file: *mut Unit, operands: &[u16], mask: u32) {
        unsafe {
            let [d, a, b, c] = [0, 1, 2, 3].map(|n| operands[n]);
            let (a, b, c) = (u32::read(file, a), u32::read(file, b), u32::read(file, c));
            let mut out = [0; 32];
            for l in 0..32 {
                out[l] = look_up(TABLE as u32, a[l], b[l], c[l]);
            }
            u32::write(file, d, &out, mask);
        }
    }
    macro_rules! tables {
        ($($high:literal)*) => { [$(tables!(@row $high; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)),*] };
        (@row $high:literal; $($low:literal)*) => { [$(run::<{ $high * 16 + $low }> as Run),*] };
    }
    static RUNS: [[Run; 16]; 16] = tables!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    pick(RUNS[table as usize >> 4][table as usize & 15], lop3_any())
}
