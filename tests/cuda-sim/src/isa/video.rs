//! Video instructions: arithmetic on bytes and half-words that are picked out of registers (PTX ISA, "Scalar Video
//! Instructions" and "SIMD Video Instructions").
//!
//! What is picked, negated, clamped and merged is written at the opcode and at the operands, in thousands of combinations.
//! Here they are two functions, one for the scalar and one for the SIMD instructions, to which all of that is one more
//! operand, a constant: [`operands`] makes it.

use crate::lanes;
use crate::lanes::{Class, Form, Run, Unsupported};
use crate::ptx::ast::{Instruction, Operand, Type};

/// See [`crate::lanes::Family`].
pub fn family(i: &Instruction, _register: &dyn Fn(&str) -> Option<Type>) -> Result<Option<Form>, Unsupported> {
    let Some((operation, shape)) = opcode(&i.opcode) else { return Ok(None) };
    let Some(all) = written(i, operation, shape) else { return Err(Unsupported(i.form())) };
    let run: Run = match (shape, all.len()) {
        (Shape::Scalar, 4) => scalar_without_c(),
        (Shape::Scalar, _) => scalar_with_c(),
        _ => simd(),
    };
    let mut inputs = vec![Type::B32; all.len() - 1];
    inputs[all.len() - 2] = Type::U64;
    Ok(Some(Form::new(run, Class::Integer, Type::B32, &inputs)))
}

/// The operands of the form of a video instruction: without selectors and signs, and behind them a constant that has what
/// these and the modifiers say. `None` for other instructions.
pub fn operands(i: &Instruction) -> Option<Vec<Operand>> {
    let (operation, shape) = opcode(&i.opcode)?;
    written(i, operation, shape)
}

/// How wide the elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Scalar,
    Halves,
    Bytes,
}

// The operations. The comparisons are six of vset's, in the order of `COMPARISONS`.
const ADD: u64 = 0;
const SUB: u64 = 1;
const ABSDIFF: u64 = 2;
const MIN: u64 = 3;
const MAX: u64 = 4;
const AVERAGE: u64 = 5;
const SHL: u64 = 6;
const SHR: u64 = 7;
const MAD: u64 = 8;
const SET: u64 = 9;

const COMPARISONS: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];

fn opcode(name: &str) -> Option<(u64, Shape)> {
    let (name, shape) = match name.strip_suffix('2') {
        Some(name) => (name, Shape::Halves),
        None => name.strip_suffix('4').map_or((name, Shape::Scalar), |name| (name, Shape::Bytes)),
    };
    let operation = match name {
        "vadd" => ADD,
        "vsub" => SUB,
        "vabsdiff" => ABSDIFF,
        "vmin" => MIN,
        "vmax" => MAX,
        "vset" => SET,
        "vavrg" if shape != Shape::Scalar => AVERAGE,
        "vshl" if shape == Shape::Scalar => SHL,
        "vshr" if shape == Shape::Scalar => SHR,
        "vmad" if shape == Shape::Scalar => MAD,
        _ => return None,
    };
    Some((operation, shape))
}

/// Some bits of the constant.
#[derive(Clone, Copy)]
struct Field {
    at: u32,
    bits: u32,
}

impl Field {
    #[inline(always)]
    fn of(self, control: u64) -> u64 {
        control >> self.at & ((1 << self.bits) - 1)
    }

    #[inline(always)]
    fn set(self, control: u64) -> bool {
        self.of(control) != 0
    }

    fn is(self, value: impl Into<u64>) -> u64 {
        value.into() << self.at
    }
}

const fn field(at: u32, bits: u32) -> Field {
    Field { at, bits }
}

const OPERATION: Field = field(0, 4);
const SIGNED_D: Field = field(4, 1);
const SIGNED_A: Field = field(5, 1);
const SIGNED_B: Field = field(6, 1);
const SATURATE: Field = field(7, 1);
/// What is done with `c`: 0, or one more than the index into `SECONDARY`.
const SECOND: Field = field(8, 2);
/// Scalar: the part of `d`, `a`, `b`: 0 for all, 1 to 4 for a byte, 5 and 6 for a half-word.
const PART_D: Field = field(10, 3);
const PART_A: Field = field(13, 3);
const PART_B: Field = field(16, 3);
/// Shifts: the amount is taken modulo 32.
const WRAP: Field = field(19, 1);
/// `vmad`: the product is negated, `c` is, one is added, the bits to shift by.
const MINUS_PRODUCT: Field = field(20, 1);
const MINUS_C: Field = field(21, 1);
const PLUS_ONE: Field = field(22, 1);
const SCALE: Field = field(23, 4);
/// `vset`: index into `COMPARISONS`.
const COMPARE: Field = field(27, 3);
/// SIMD: elements are bytes; which elements of `d` are computed; for each, which of those of `a` and `b` is taken.
const BYTES: Field = field(30, 1);
const MASK: Field = field(31, 4);
const PICK_A: Field = field(35, 12);
const PICK_B: Field = field(47, 12);

const SECONDARY: [&str; 3] = ["add", "min", "max"];

/// An operand taken apart: sign, name, selector.
fn apart(operand: &Operand) -> (bool, Operand, Option<&str>) {
    let (minus, inner) = match operand {
        Operand::Minus(inner) => (true, inner.as_ref()),
        other => (false, other),
    };
    match inner {
        Operand::Name(name) => match name.rsplit_once('.') {
            Some((base, selector)) => (minus, Operand::Name(base.to_owned()), Some(selector)),
            None => (minus, inner.clone(), None),
        },
        _ => (minus, inner.clone(), None),
    }
}

/// See [`operands`]; `None` for what the ISA does not have.
fn written(i: &Instruction, operation: u64, shape: Shape) -> Option<Vec<Operand>> {
    let mut others: Vec<&str> = i.modifiers.iter().map(String::as_str).filter(|m| Type::named(m).is_none()).collect();
    let mut take = |known: &[&str]| {
        let at = others.iter().position(|m| known.contains(m))?;
        let taken = others.remove(at);
        known.iter().position(|k| *k == taken).map(|n| n as u64)
    };
    let types: Vec<Type> = i.types().collect();
    let (d, a, b) = match types[..] {
        [d, a, b] if operation != SET => (d, a, b),
        [a, b] if operation == SET => (Type::U32, a, b),
        _ => return None,
    };
    if [d, a, b].iter().any(|t| !matches!(t, Type::U32 | Type::S32)) {
        return None;
    }
    let mut control = OPERATION.is(operation) | SIGNED_D.is(d.signed()) | SIGNED_A.is(a.signed());
    control |= SIGNED_B.is(b.signed());
    let saturates = operation != SET && take(&["sat"]).is_some();
    control |= SATURATE.is(saturates);
    match operation {
        SET => control |= COMPARE.is(take(&COMPARISONS)?),
        SHL | SHR if b == Type::S32 => return None,
        SHL | SHR => control |= WRAP.is(take(&["clamp", "wrap"])?),
        MAD => {
            control |= PLUS_ONE.is(take(&["po"]).is_some());
            control |= SCALE.is(take(&["shr7", "shr15"]).map_or(0, |n| [7u64, 15][n as usize]));
        }
        _ => {}
    }
    let second = match shape {
        _ if operation == MAD => None,
        Shape::Scalar => take(&SECONDARY),
        _ => take(&["add"]),
    };
    control |= SECOND.is(second.map_or(0, |n| n + 1));
    if !others.is_empty() || !matches!(i.operands.len(), 3 | 4) {
        return None;
    }
    let parts: Vec<_> = i.operands.iter().map(apart).collect();
    let minus = |n: usize| parts.get(n).is_some_and(|p| p.0);
    let selector = |n: usize| parts.get(n).and_then(|p| p.2);
    let product = minus(1) ^ minus(2);
    let signs = (0..4).any(minus);
    if (signs && (operation != MAD || PLUS_ONE.set(control))) || minus(0) || (product && minus(3)) {
        return None;
    }
    control |= MINUS_PRODUCT.is(product) | MINUS_C.is(minus(3));
    if selector(3).is_some() {
        return None;
    }
    if shape == Shape::Scalar {
        let merges = selector(0).is_some();
        // a third source is for a second operation or for the rest of `d`, and neither does without
        let wanted = 3 + (merges || second.is_some() || operation == MAD) as usize;
        if (merges && (second.is_some() || operation == MAD)) || i.operands.len() != wanted {
            return None;
        }
        control |= PART_D.is(part_number(selector(0))?);
        control |= PART_A.is(part_number(selector(1))?) | PART_B.is(part_number(selector(2))?);
    } else {
        if i.operands.len() != 4 || (saturates && second.is_some()) {
            return None;
        }
        let bytes = shape == Shape::Bytes;
        let or = |n: usize, default| picked(selector(n).unwrap_or(default), bytes);
        control |= BYTES.is(bytes) | MASK.is(computed(selector(0), bytes)?);
        control |= PICK_A.is(or(1, if bytes { "b3210" } else { "h10" })?);
        control |= PICK_B.is(or(2, if bytes { "b7654" } else { "h32" })?);
    }
    let mut all: Vec<Operand> = parts.into_iter().map(|p| p.1).collect();
    all.push(Operand::Int(control as i64));
    Some(all)
}

fn part_number(selector: Option<&str>) -> Option<u64> {
    match selector {
        None => Some(0),
        Some(s) => ["b0", "b1", "b2", "b3", "h0", "h1"].iter().position(|known| *known == s).map(|n| n as u64 + 1),
    }
}

/// `.b3210`: the elements that the last to the first element of a source are, three bits each from the lowest.
fn picked(selector: &str, bytes: bool) -> Option<u64> {
    let (digits, count, elements) =
        if bytes { (selector.strip_prefix('b')?, 4, 8) } else { (selector.strip_prefix('h')?, 2, 4) };
    if digits.len() != count {
        return None;
    }
    digits.chars().try_fold(0, |all, digit| {
        let element = digit.to_digit(8).filter(|e| *e < elements)?;
        Some(all << 3 | element as u64)
    })
}

/// `.b20`: the elements of the destination that are computed, a bit each.
fn computed(selector: Option<&str>, bytes: bool) -> Option<u64> {
    let count = if bytes { 4 } else { 2 };
    let Some(selector) = selector else { return Some((1 << count) - 1) };
    let digits = selector.strip_prefix(if bytes { 'b' } else { 'h' })?;
    let mut below = count;
    let mut mask = 0;
    for digit in digits.chars() {
        // from the highest to the lowest
        let element = digit.to_digit(10).filter(|e| *e < below)?;
        below = element;
        mask |= 1 << element;
    }
    (mask != 0).then_some(mask)
}

/// The low bits of a value.
#[inline(always)]
fn extend(value: u32, bits: u32, signed: bool) -> i128 {
    let up = 64 - bits;
    let high = (value as u64) << up;
    if signed { (high as i64 >> up) as i128 } else { (high >> up) as i128 }
}

#[inline(always)]
fn clamp(value: i128, bits: u32, signed: bool) -> i128 {
    let (low, high) = if signed { (-1 << (bits - 1), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
    value.max(low).min(high)
}

/// Where a part is: its first bit, and its bits.
#[inline(always)]
fn place(part: u64) -> (u32, u32) {
    match part as u32 {
        0 => (0, 32),
        n @ 1..=4 => (8 * (n - 1), 8),
        n => (16 * (n - 5) % 32, 16),
    }
}

#[inline(always)]
fn compare(a: i128, b: i128, comparison: u64) -> bool {
    match comparison {
        0 => a == b,
        1 => a != b,
        2 => a < b,
        3 => a <= b,
        4 => a > b,
        _ => a >= b,
    }
}

/// What scalar and SIMD instructions have in common.
#[inline(always)]
fn arithmetic(a: i128, b: i128, control: u64) -> i128 {
    match OPERATION.of(control) {
        ADD => a + b,
        SUB => a - b,
        ABSDIFF => (a - b).abs(),
        MIN => a.min(b),
        MAX => a.max(b),
        // to the nearest, halves upward but for negative sums
        AVERAGE => (a + b + (a + b >= 0) as i128) >> 1,
        _ => compare(a, b, COMPARE.of(control)) as i128,
    }
}

/// No step but the last cuts its result to 32 bits: the ISA has 33 and 34 bits in between.
#[inline(always)]
fn scalar(a: u32, b: u32, c: u32, control: u64) -> u32 {
    let (at_a, bits_a) = place(PART_A.of(control));
    let (at_b, bits_b) = place(PART_B.of(control));
    let a = extend(a >> at_a, bits_a, SIGNED_A.set(control));
    let b = extend(b >> at_b, bits_b, SIGNED_B.set(control));
    let operation = OPERATION.of(control);
    if operation == MAD {
        return mad(a * b, c, control);
    }
    let amount = if WRAP.set(control) { b & 31 } else { b.min(32) };
    let mut t = match operation {
        SHL => a << (amount & 63),
        SHR => a >> (amount & 63),
        _ => arithmetic(a, b, control),
    };
    let (at, bits) = place(PART_D.of(control));
    let signed = SIGNED_D.set(control);
    if SATURATE.set(control) {
        t = clamp(t, bits, signed);
    }
    // `c` has the destination's type
    let wide = extend(c, 32, signed);
    t = match SECOND.of(control) {
        0 => t,
        1 => t + wide,
        2 => t.min(wide),
        _ => t.max(wide),
    };
    let field = (u32::MAX >> (32 - bits)) << at;
    (t as u32) << at & field | c & !field
}

/// The type of the result follows from the sources: it is signed if one of them is, or is negated.
#[inline(always)]
fn mad(product: i128, c: u32, control: u64) -> u32 {
    let (minus_product, minus_c) = (MINUS_PRODUCT.set(control), MINUS_C.set(control));
    let signed = SIGNED_A.set(control) || SIGNED_B.set(control) || minus_product || minus_c;
    // a negation is the complement plus one: of `c`, in 32 bits
    let product = if minus_product { !product } else { product };
    let c = if minus_c { !c } else { c };
    let one = PLUS_ONE.set(control) || minus_product || minus_c;
    let result = (product + extend(c, 32, signed) + one as i128) >> SCALE.of(control);
    (if SATURATE.set(control) { clamp(result, 32, signed) } else { result }) as u32
}

lanes! {
    fn scalar_without_c(d: u32; a: u32, b: u32, control: u64) { d = scalar(a, b, 0, control); }
    fn scalar_with_c(d: u32; a: u32, b: u32, c: u32, control: u64) { d = scalar(a, b, c, control); }
    fn simd(d: u32; a: u32, b: u32, c: u32, control: u64) {
        let sources = (b as u64) << 32 | a as u64;
        let bits = if BYTES.set(control) { 8 } else { 16 };
        let (mut sum, mut merged) = (c, c);
        for element in 0..32 / bits {
            let from_a = bits * (PICK_A.of(control) >> (3 * element) & 7) as u32;
            let from_b = bits * (PICK_B.of(control) >> (3 * element) & 7) as u32;
            let a = extend((sources >> from_a) as u32, bits, SIGNED_A.set(control));
            let b = extend((sources >> from_b) as u32, bits, SIGNED_B.set(control));
            let mut t = arithmetic(a, b, control);
            if SATURATE.set(control) {
                t = clamp(t, bits, SIGNED_D.set(control));
            }
            if MASK.of(control) >> element & 1 != 0 {
                let field = (u32::MAX >> (32 - bits)) << (bits * element);
                sum = sum.wrapping_add(t as u32);
                merged = (t as u32) << (bits * element) & field | merged & !field;
            }
        }
        d = if SECOND.set(control) { sum } else { merged };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Unit;
    use crate::ptx;
    use crate::ptx::ast::Statement;

    fn parsed(text: &str) -> Instruction {
        let module = format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() {{ .reg .b32 %r<4>; {text}; ret; }}"
        );
        let module = ptx::parse(&module).unwrap_or_else(|e| panic!("{text}: {e}"));
        let body = module.functions[0].body.as_ref().expect("a body");
        match &body.statements[0] {
            Statement::Instruction(i) => i.clone(),
            Statement::Label(_) => unreachable!(),
        }
    }

    fn form(i: &Instruction) -> Result<Form, Unsupported> {
        family(i, &|_| Some(Type::B32)).map(|form| form.expect("a video instruction"))
    }

    /// Runs an instruction on `%r1`, `%r2`, `%r3`; the result is in `%r0`.
    fn run(text: &str, [a, b, c]: [u32; 3]) -> u32 {
        let i = parsed(text);
        let form = form(&i).unwrap_or_else(|e| panic!("{text}: {e}"));
        let operands = operands(&i).expect("a video instruction");
        assert_eq!(operands.len(), form.slots.len(), "{text}");
        let mut file = [Unit([0; 32]); 16];
        for (n, value) in [0, a, b, c].into_iter().enumerate() {
            file[n].0 = [value; 32];
        }
        let mut slots = Vec::new();
        for (n, (operand, slot)) in operands.iter().zip(&form.slots).enumerate() {
            slots.push(match operand {
                Operand::Name(name) => name["%r".len()..].parse().expect("a number"),
                Operand::Int(value) if slot.ty == Type::U64 => {
                    let at = 4 + 2 * n;
                    for w in 0..64 {
                        file[at + w / 32].0[w % 32] = (*value as u64 >> (32 * (w % 2))) as u32;
                    }
                    at as u16
                }
                Operand::Int(value) => {
                    file[4 + 2 * n].0 = [*value as u32; 32];
                    4 + 2 * n as u16
                }
                other => panic!("{text}: {other:?}"),
            });
        }
        unsafe { (form.run)(file.as_mut_ptr(), &slots, 0xffff_0000) };
        assert!(file[0].0[..16].iter().all(|&x| x == 0), "{text}: lanes outside of the mask");
        assert!(file[0].0[16..].iter().all(|&x| x == file[0].0[31]), "{text}: lanes differ");
        file[0].0[31]
    }

    #[test]
    fn scalar_arithmetic() {
        let cases: &[(&str, [u32; 3], u32)] = &[
            ("vadd.u32.u32.u32 %r0, %r1, %r2", [7, 8, 0], 15),
            ("vadd.u32.u32.u32 %r0, %r1, %r2", [u32::MAX, 2, 0], 1),
            ("vadd.u32.u32.u32.sat %r0, %r1, %r2", [u32::MAX, 2, 0], u32::MAX),
            ("vadd.s32.u32.u32.sat %r0, %r1, %r2", [u32::MAX, 2, 0], i32::MAX as u32),
            ("vadd.s32.s32.s32.sat %r0, %r1, %r2", [i32::MIN as u32, u32::MAX, 0], i32::MIN as u32),
            ("vsub.u32.u32.u32.sat %r0, %r1, %r2", [3, 5, 0], 0),
            ("vsub.u32.u32.u32 %r0, %r1, %r2", [3, 5, 0], -2i32 as u32),
            ("vsub.s32.u32.s32 %r0, %r1.b3, %r2.h1", [0x8000_0000, 0xfffe_0000, 0], 0x82),
            ("vsub.s32.s32.s32 %r0, %r1.b3, %r2.h1", [0x8000_0000, 0x0002_0000, 0], -130i32 as u32),
            ("vabsdiff.u32.s32.s32 %r0, %r1, %r2", [i32::MIN as u32, i32::MAX as u32, 0], u32::MAX),
            ("vabsdiff.u32.u32.s32 %r0, %r1, %r2", [5, -7i32 as u32, 0], 12),
            ("vmin.s32.s32.u32 %r0, %r1, %r2", [u32::MAX, 1, 0], u32::MAX),
            ("vmin.u32.u32.u32 %r0, %r1, %r2", [u32::MAX, 1, 0], 1),
            ("vmax.s32.s32.u32.sat %r0, %r1, %r2", [u32::MAX, 0x9000_0000, 0], i32::MAX as u32),
            // a second operation on what has been clamped, in more than 32 bits
            ("vadd.s32.u32.u32.sat.add %r0, %r1, %r2, %r3", [u32::MAX, 2, -7i32 as u32], i32::MAX as u32 - 7),
            ("vadd.u32.u32.u32.min %r0, %r1, %r2, %r3", [u32::MAX, 2, 77], 77),
            ("vsub.s32.u32.u32.max %r0, %r1, %r2, %r3", [0, 9, -3i32 as u32], -3i32 as u32),
            ("vsub.u32.u32.u32.max %r0, %r1, %r2, %r3", [0, 9, 1], 1),
            ("vmin.s32.s32.s32.sat.add %r0, %r1, 5, %r3", [9, 0, 100], 105),
            // into a part of `c`
            ("vadd.s32.s32.s32.sat %r0.b1, %r1, %r2, %r3", [100, 100, 0x1122_3344], 0x1122_7f44),
            ("vadd.u32.s32.s32.sat %r0.b3, %r1, %r2, %r3", [200, 100, 0x1122_3344], 0xff22_3344),
            ("vadd.u32.s32.s32 %r0.b3, %r1, %r2, %r3", [200, 100, 0x1122_3344], 0x2c22_3344),
            ("vsub.s32.s32.s32.sat %r0.h1, %r1, %r2, %r3", [0, 40000, 0x1122_3344], 0x8000_3344),
            ("vsub.u32.s32.s32.sat %r0.h0, %r1, %r2, %r3", [0, 40000, 0x1122_3344], 0x1122_0000),
            // shifts
            ("vshl.u32.u32.u32.clamp %r0, %r1, %r2", [3, 33, 0], 0),
            ("vshl.u32.u32.u32.wrap %r0, %r1, %r2", [3, 33, 0], 6),
            ("vshl.u32.u32.u32.clamp.sat %r0, %r1, %r2", [3, 31, 0], u32::MAX),
            ("vshl.s32.s32.u32.sat.clamp %r0, %r1, %r2", [-3i32 as u32, 40, 0], i32::MIN as u32),
            ("vshr.u32.u32.u32.clamp %r0, %r1, %r2", [u32::MAX, 200, 0], 0),
            ("vshr.s32.s32.u32.clamp %r0, %r1, %r2", [0x8000_0000, 200, 0], u32::MAX),
            ("vshr.s32.s32.u32.wrap %r0, %r1.h1, %r2.b1", [0x8000_0000, 0x2100, 0], 0xffff_c000),
            ("vshr.u32.u32.u32.wrap.add %r0, %r1, %r2, %r3", [256, 4, 5], 21),
            // comparisons
            ("vset.s32.u32.lt %r0, %r1, %r2", [u32::MAX, 0, 0], 1),
            ("vset.u32.u32.lt %r0, %r1, %r2", [u32::MAX, 0, 0], 0),
            ("vset.s32.s32.ge.add %r0, %r1.b0, %r2.b1, %r3", [0x80, 0x7f00, 10], 10),
            ("vset.u32.u32.ne %r0.h1, %r1, %r2, %r3", [1, 2, 0x1122_3344], 0x0001_3344),
            ("vset.u32.u32.eq.max %r0, %r1, %r2, %r3", [1, 1, 7], 7),
            ("vset.u32.u32.lt %r0, %r1, %r2", [5, 5, 0], 0),
            ("vset.u32.u32.le %r0, %r1, %r2", [5, 5, 0], 1),
            ("vset.u32.u32.gt %r0, %r1, %r2", [5, 5, 0], 0),
            ("vset.u32.u32.ge %r0, %r1, %r2", [5, 5, 0], 1),
            ("vset.s32.s32.le %r0, %r1, %r2", [u32::MAX, 0, 0], 1),
            ("vset.s32.s32.gt %r0, %r1, %r2", [u32::MAX, 0, 0], 0),
        ];
        for &(text, inputs, expected) in cases {
            assert_eq!(run(text, inputs), expected, "{text} of {inputs:x?}");
        }
    }

    #[test]
    fn multiply_and_add() {
        let minus = |x: i32| x as u32;
        let cases: &[(&str, [u32; 3], u32)] = &[
            ("vmad.u32.u32.u32 %r0, %r1, %r2, %r3", [6, 7, 8], 50),
            ("vmad.u32.u32.u32.po %r0, %r1, %r2, %r3", [6, 7, 8], 51),
            ("vmad.s32.s32.s32 %r0, -%r1, %r2, %r3", [6, 7, 8], minus(-34)),
            ("vmad.s32.s32.s32 %r0, -%r1, -%r2, %r3", [6, 7, 8], 50),
            ("vmad.s32.u32.u32 %r0, %r1, %r2, -%r3", [6, 7, 50], minus(-8)),
            ("vmad.u32.u32.u32.sat %r0, %r1, %r2, %r3", [u32::MAX, u32::MAX, u32::MAX], u32::MAX),
            ("vmad.s32.s32.u32.sat %r0, %r1, %r2, %r3", [minus(-1), u32::MAX, 0], i32::MIN as u32),
            ("vmad.s32.u32.u32.sat %r0, -%r1, %r2, %r3", [u32::MAX, u32::MAX, 0], i32::MIN as u32),
            ("vmad.u32.u32.u32.shr7 %r0, %r1, %r2, %r3", [0x1_0000, 0x1_0000, 0], 1 << 25),
            ("vmad.u32.u32.u32.shr15 %r0, %r1.h0, %r2.h1, %r3", [0xffff, 0xffff_0000, 0x7fff], 0xfffe_8000 >> 15),
            ("vmad.s32.s32.s32.shr15 %r0, %r1.b0, %r2.b3, %r3", [0xff, 0x0100_0000, 0], u32::MAX),
            ("vmad.u32.u32.u32.po.sat.shr7 %r0, %r1, %r2, %r3", [0, 0, 127], 1),
        ];
        for &(text, inputs, expected) in cases {
            assert_eq!(run(text, inputs), expected, "{text} of {inputs:x?}");
        }
    }

    #[test]
    fn simd_arithmetic() {
        let cases: &[(&str, [u32; 3], u32)] = &[
            ("vadd2.u32.u32.u32 %r0, %r1, %r2, %r3", [0xffff_0001, 0x0001_0002, 9], 0x0000_0003),
            ("vadd2.u32.u32.u32.sat %r0, %r1, %r2, %r3", [0xffff_0001, 0x0001_0002, 9], 0xffff_0003),
            ("vadd2.s32.s32.s32.sat %r0, %r1, %r2, %r3", [0x7fff_8000, 0x0001_ffff, 9], 0x7fff_8000),
            ("vadd2.u32.u32.u32.add %r0, %r1, %r2, %r3", [0xffff_0001, 0x0001_0002, 9], 0x1_0000 + 3 + 9),
            ("vadd2.s32.s32.s32.add %r0, %r1, %r2, %r3", [0xffff_0001, 0xffff_0002, 9], 10),
            ("vadd2.u32.u32.u32 %r0.h1, %r1, %r2, %r3", [0x1111_2222, 0x1111_1111, 0xabcd_ef01], 0x2222_ef01),
            // 0 and 1 are of `a`, 2 and 3 of `b`, whichever operand picks
            ("vsub2.s32.s32.s32 %r0, %r1.h32, %r2.h01, %r3", [0x0001_0002, 0x0010_0020, 0], 0x000e_001f),
            ("vsub4.u32.u32.u32.sat %r0, %r1, %r2, %r3", [0x0102_0304, 0x0400_0201, 0], 0x0002_0103),
            ("vsub4.s32.u32.u32.sat %r0, %r1, %r2, %r3", [0x0002_ff04, 0xff00_0001, 0], 0x8002_7f03),
            ("vadd4.s32.s32.s32.sat %r0.b310, %r1, %r2, %r3", [0x7f80_0102, 0x01ff_0304, 0xaabb_ccdd], 0x7fbb_0406),
            ("vadd4.u32.u32.u32.add %r0.b20, %r1.b3107, %r2.b0000, %r3", [0x0403_0201, 0x1000_0000, 100], 3 + 17 + 100),
            ("vabsdiff4.u32.u32.u32.add %r0, %r1, %r2, %r3", [0x00ff_0a14, 0xff00_140a, 1], 255 + 255 + 10 + 10 + 1),
            ("vabsdiff4.u32.u32.u32 %r0, %r1, %r2, %r3", [0x00ff_0a14, 0xff00_140a, 1], 0xffff_0a0a),
            ("vabsdiff4.s32.s32.s32 %r0, %r1, %r2, %r3", [0x80ff_0a14, 0x7f00_140a, 1], 0xff01_0a0a),
            ("vabsdiff4.s32.s32.s32.sat %r0, %r1, %r2, %r3", [0x80ff_0a14, 0x7f00_140a, 1], 0x7f01_0a0a),
            ("vabsdiff2.u32.u32.u32.add %r0, %r1, %r2, %r3", [0xffff_0000, 0x0000_ffff, 5], 2 * 0xffff + 5),
            ("vavrg2.u32.u32.u32 %r0, %r1, %r2, %r3", [0xffff_0001, 0xffff_0002, 0], 0xffff_0002),
            ("vavrg2.s32.s32.s32 %r0, %r1, %r2, %r3", [0xffff_fffc, 0xfffe_0001, 0], 0xfffe_fffe),
            ("vavrg4.s32.s32.s32 %r0, %r1, %r2, %r3", [0xff01_0305, 0x0001_0406, 0], 0xff01_0406),
            ("vmin4.s32.s32.s32 %r0, %r1, %r2, %r3", [0x80ff_017f, 0x7f00_02fe, 0], 0x80ff_01fe),
            ("vmin4.u32.u32.u32 %r0, %r1, %r2, %r3", [0x80ff_017f, 0x7f00_02fe, 0], 0x7f00_017f),
            ("vmax2.s32.s32.u32.sat %r0, %r1, %r2, %r3", [0xffff_0001, 0xffff_0000, 0], 0x7fff_0001),
            ("vmax4.u32.u32.u32 %r0.b0, %r1, %r2, %r3", [1, 2, 0x0102_0304], 0x0102_0302),
            ("vset2.s32.u32.lt %r0, %r1, %r2, %r3", [0xffff_0001, 0x0000_0001, 7], 0x0001_0000),
            ("vset4.u32.u32.ne.add %r0, %r1, %r2, %r3", [0x0102_0304, 0x0102_0000, 7], 9),
            ("vset4.u32.u32.ge %r0.b31, %r1, %r2, %r3", [0x0502_0304, 0x0102_0900, 0x1111_1111], 0x0111_0011),
            ("vset4.s32.s32.gt.add %r0.b0, %r1.b7654, %r2.b3210, %r3", [0xff, 1, 7], 8),
        ];
        for &(text, inputs, expected) in cases {
            assert_eq!(run(text, inputs), expected, "{text} of {inputs:x?}");
        }
    }

    /// The ISA's pseudo-code of the SIMD instructions, on arrays, for every operation, sign, selector and mask.
    #[test]
    fn simd_as_defined() {
        let values = [0u32, u32::MAX, 0x8000_8080, 0x7f7f_7fff, 0x0102_fe80, 0x1234_5678, 0xfedc_ba98];
        let signs = ["u32", "s32"];
        let mut random = crate::lanes::testing::Random(7);
        for (n, bits, letter) in [(2usize, 16u32, 'h'), (4, 8, 'b')] {
            for op in ["vadd", "vsub", "vavrg", "vabsdiff", "vmin", "vmax"] {
                for case in 0..48u64 {
                    let [d, a, b] = [case & 1, case >> 1 & 1, case >> 2 & 1].map(|s| s as usize);
                    let tail = ["", ".sat", ".add"][case as usize / 16];
                    let mask = 1 + random.below((1 << n) - 1);
                    let picks: [Vec<usize>; 2] = std::array::from_fn(|_| (0..n).map(|_| random.below(2 * n)).collect());
                    let digits = |v: &[usize]| v.iter().rev().map(|e| e.to_string()).collect::<String>();
                    let elements: Vec<usize> = (0..n).filter(|e| mask >> e & 1 != 0).collect();
                    let text = format!(
                        "{op}{n}.{}.{}.{}{tail} %r0.{letter}{}, %r1.{letter}{}, %r2.{letter}{}, %r3",
                        signs[d],
                        signs[a],
                        signs[b],
                        digits(&elements),
                        digits(&picks[0]),
                        digits(&picks[1])
                    );
                    let [x, y, z] = std::array::from_fn(|_| values[random.below(values.len())]);
                    let split = |v: u32| (0..n as u32).map(move |e| (v >> (bits * e)) as i64 & ((1 << bits) - 1));
                    let all: Vec<i64> = split(x).chain(split(y)).collect();
                    let signed = |v: i64, s: usize| if s == 1 && v >> (bits - 1) != 0 { v - (1 << bits) } else { v };
                    let (mut sum, mut merged) = (z as i64, 0i64);
                    for e in 0..n {
                        let va = signed(all[picks[0][e]], a);
                        let vb = signed(all[picks[1][e]], b);
                        let mut t = match op {
                            "vadd" => va + vb,
                            "vsub" => va - vb,
                            "vavrg" if va + vb >= 0 => (va + vb + 1) >> 1,
                            "vavrg" => (va + vb) >> 1,
                            "vabsdiff" => (va - vb).abs(),
                            "vmin" => va.min(vb),
                            _ => va.max(vb),
                        };
                        if tail == ".sat" {
                            let low = if d == 1 { -(1 << (bits - 1)) } else { 0 };
                            t = t.clamp(low, low + (1 << bits) - 1);
                        }
                        let chosen = mask >> e & 1 != 0;
                        sum += if chosen { t } else { 0 };
                        let t = if chosen { t } else { (z >> (bits * e as u32)) as i64 };
                        merged |= (t & ((1 << bits) - 1)) << (bits * e as u32);
                    }
                    let expected = if tail == ".add" { sum } else { merged } as u32;
                    assert_eq!(run(&text, [x, y, z]), expected, "{text} of {x:x} {y:x} {z:x}");
                }
            }
        }
    }

    #[test]
    fn what_the_isa_does_not_have_is_refused() {
        for text in [
            "vadd2.s32.s32.u32.sat.add %r0, %r1, %r2, %r3",
            "vadd2.s32.s32.u32 %r0, %r1, %r2",
            "vadd2.s32.s32.u32.min %r0, %r1, %r2, %r3",
            "vadd2.u32.u32.u32 %r0.h0, %r1.h4, %r2, %r3",
            "vadd4.u32.u32.u32 %r0.b01, %r1, %r2, %r3",
            "vadd4.u32.u32.u32 %r0, %r1.b8000, %r2, %r3",
            "vset4.s32.u32.lt.max %r0, %r1, %r2, %r3",
            "vset4.s32.s32.s32.lt %r0, %r1, %r2, %r3",
            "vset.s32.s32 %r0, %r1, %r2",
            "vadd.u64.u32.u32 %r0, %r1, %r2",
            "vadd.u32.u32 %r0, %r1, %r2",
            "vadd.s32.u32.s32 %r0, -%r1, %r2",
            "vadd.s32.u32.s32 %r0.b0, %r1, %r2",
            "vadd.s32.u32.s32.add %r0.b0, %r1, %r2, %r3",
            "vadd.s32.u32.s32 %r0, %r1, %r2, %r3",
            "vadd.s32.u32.s32 %r0, %r1.h00, %r2",
            "vshl.s32.u32.s32.wrap %r0, %r1, %r2",
            "vshl.s32.u32.u32 %r0, %r1, %r2",
            "vmad.u32.u32.u32.po %r0, -%r1, %r2, %r3",
            "vmad.u32.u32.u32 %r0.b0, %r1, %r2, %r3",
            "vmad.u32.u32.u32 %r0, -%r1, %r2, -%r3",
            "vmad.u32.u32.u32.add %r0, %r1, %r2, %r3",
        ] {
            let i = parsed(text);
            assert_eq!(form(&i).map(|_| ()), Err(Unsupported(i.form())), "{text}");
        }
    }
}
