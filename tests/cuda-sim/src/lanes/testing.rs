//! Runs one instruction, given as a line of PTX, against a definition of what it does: on edge values and random ones, with
//! all lanes and with some, and with each destination in the place of each source that it could share a register with.

use super::{Form, Lane, Role, Sync, Unit, Unsupported};
use crate::isa;
use crate::ptx::ast::{Instruction, Location, Operand, Type};

/// An instruction from its text, without guard and `;`. Register types follow the usual names: `%p1`, `%rs1`, `%r1`, `%rd1`,
/// `%rq1`.
pub fn instruction(text: &str) -> Instruction {
    let (form, operands) = text.split_once(' ').unwrap_or((text, ""));
    let mut parts = form.split('.').map(str::to_owned);
    Instruction {
        guard: None,
        opcode: parts.next().unwrap(),
        modifiers: parts.collect(),
        operands: split(operands).into_iter().map(operand).collect(),
        line: 1,
        location: Location::default(),
    }
}

/// Splits at the commas outside of braces.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn operand(text: &str) -> Operand {
    if let Some((p, q)) = text.split_once('|') {
        Operand::Pair(Box::new(operand(p)), Box::new(operand(q)))
    } else if let Some(inner) = text.strip_prefix('{') {
        Operand::Vector(split(inner.trim_end_matches('}')).into_iter().map(operand).collect())
    } else if let Some(name) = text.strip_prefix('!') {
        Operand::Not(Box::new(operand(name)))
    } else if let Some(hex) = text.strip_prefix("0x") {
        Operand::Int(i64::from_str_radix(hex, 16).unwrap())
    } else if let Ok(value) = text.parse() {
        Operand::Int(value)
    } else {
        Operand::Name(text.to_owned())
    }
}

fn declared(name: &str) -> Option<Type> {
    let kind = name.strip_prefix('%')?.trim_end_matches(|c: char| c.is_ascii_digit());
    Some(match kind {
        "p" => Type::Pred,
        "rb" => Type::B8,
        "rs" => Type::B16,
        "r" => Type::B32,
        "rd" => Type::B64,
        "rq" => Type::B128,
        _ => return None,
    })
}

/// The form of an instruction of these families; the error if it is refused.
pub fn form(text: &str) -> Result<Form, Unsupported> {
    isa::form(&instruction(text), &declared).map(|form| form.unwrap_or_else(|| panic!("{text}: no family has it")))
}

/// Numbers that repeat.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n
    }

    /// A value of a type: edges of integers and floats, small numbers, bit patterns, or anything.
    pub fn value(&mut self, ty: Type) -> u128 {
        let bits = ty.bits();
        let all = u128::MAX >> (128 - bits);
        let small = self.below(70) as u128;
        let value = match self.below(8) {
            0 => small,
            1 => !small,
            2 => (1u128 << (bits - 1)) ^ (small % 3),
            3 => (1u128 << (bits - 1)).wrapping_sub(small % 3),
            4 => 1u128 << self.below(bits as usize),
            5 => all >> self.below(bits as usize),
            6 if bits == 32 => self.float(23, 255) as u128,
            6 if bits == 16 && self.below(2) == 0 => self.float(7, 255) as u128,
            6 if bits == 16 => self.float(10, 31) as u128,
            6 if bits == 64 => self.float(52, 2047) as u128,
            _ => (self.next() as u128) << 64 | self.next() as u128,
        };
        value & all
    }

    /// A float with `fraction` bits of fraction and the largest exponent field `exponents`: zeros, subnormals, infinities,
    /// NaN and numbers near 1, of either sign.
    fn float(&mut self, fraction: u32, exponents: u64) -> u64 {
        let exponent = [0, 0, 1, exponents / 2, exponents - 1, exponents, exponents][self.below(7)];
        let fractions = (1 << fraction) - 1;
        let fraction_bits = [0, 0, 1, fractions, 1 << (fraction - 1), self.next() & fractions][self.below(6)];
        let sign = self.next() & (exponents + 1);
        (sign.min(1) * (exponents + 1)) << fraction | exponent << fraction | fraction_bits
    }
}

/// The lanes of a register of some type.
pub type Lanes = [u128; 32];

/// Makes the values of an input.
pub type Given<'a> = &'a dyn Fn(&mut Random) -> Lanes;

unsafe fn get(file: &[Unit], at: u16, ty: Type) -> Lanes {
    let file = file.as_ptr();
    unsafe {
        match ty.bits() {
            1 => bool::read(file, at).map(|x| x as u128),
            // All 32 bits, so that what should be zero-extended is seen to be.
            8 | 16 | 32 => u32::read(file, at).map(|x| x as u128),
            64 => u64::read(file, at).map(|x| x as u128),
            _ => u128::read(file, at),
        }
    }
}

unsafe fn put(file: &mut [Unit], at: u16, ty: Type, value: &Lanes) {
    let file = file.as_mut_ptr();
    unsafe {
        match ty.bits() {
            1 => bool::write(file, at, &value.map(|x| x != 0), !0),
            8 | 16 | 32 => u32::write(file, at, &value.map(|x| x as u32), !0),
            64 => u64::write(file, at, &value.map(|x| x as u64), !0),
            _ => u128::write(file, at, value, !0),
        }
    }
}

/// Checks an instruction of which every lane computes for itself: `expected` gives the outputs for the inputs, as bits.
pub fn check(text: &str, expected: impl Fn(&[u128]) -> Vec<u128>) {
    check_warp(text, &[], |inputs, _| {
        let mut outputs = Vec::new();
        for l in 0..32 {
            let lane: Vec<u128> = inputs.iter().map(|input| input[l]).collect();
            let values = expected(&lane);
            outputs.resize(values.len(), [0; 32]);
            for (output, value) in outputs.iter_mut().zip(values) {
                output[l] = value;
            }
        }
        outputs
    });
}

/// Checks an instruction on whole registers; `expected` also gets the mask of the lanes that execute. `given` are values
/// that an input (by its number among the inputs) is to have, instead of any.
pub fn check_warp(text: &str, given: &[(usize, Given<'_>)], expected: impl Fn(&[Lanes], u32) -> Vec<Lanes>) {
    let i = instruction(text);
    let form = form(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let mut names: Vec<Operand> = Vec::new();
    fn flatten(operand: &Operand, names: &mut Vec<Operand>) {
        match operand {
            Operand::Pair(p, q) => [p, q].into_iter().for_each(|o| flatten(o, names)),
            Operand::Vector(elements) => elements.iter().for_each(|o| flatten(o, names)),
            Operand::Not(inner) => flatten(inner, names),
            other => names.push(other.clone()),
        }
    }
    i.operands.iter().for_each(|o| flatten(o, &mut names));
    let (writes, reads) = isa::integer::carry(&i);
    let condition = Operand::Name("%p99".to_owned());
    if writes {
        names.insert(1, condition.clone());
    }
    if reads {
        names.push(condition);
    }
    assert_eq!(names.len(), form.slots.len(), "{text}: operands and slots");
    for (name, slot) in names.iter().zip(&form.slots) {
        if let Operand::Name(name) = name {
            let ty = declared(name).unwrap();
            let units = |ty: Type| (ty == Type::Pred, ty.bits().div_ceil(32));
            assert_eq!(units(ty), units(slot.ty), "{text}: {name} as {:?}", slot.ty);
        }
    }
    if let Sync::Mask(n) = form.sync {
        assert_eq!(form.slots[n as usize].role, Role::In);
    }
    let outputs = form.slots.iter().filter(|slot| slot.role == Role::Out).count();
    assert!(form.slots[..outputs].iter().all(|slot| slot.role == Role::Out), "{text}: outputs come first");

    // No output shares a register, or one output and one input do.
    let mut shared = vec![None];
    for output in 0..outputs {
        for (input, name) in names.iter().enumerate().skip(outputs) {
            let [a, b] = [output, input].map(|n| form.slots[n].ty);
            let constant = !matches!(name, Operand::Name(_));
            if !constant && (a == Type::Pred) == (b == Type::Pred) && a.bits().div_ceil(32) == b.bits().div_ceil(32) {
                shared.push(Some((output, input)));
            }
        }
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..32 {
        let mask = match round % 4 {
            0 | 1 => !0,
            2 => random.next() as u32,
            _ => 1 << random.below(32),
        };
        for &share in &shared {
            let mut slots: Vec<u16> = (0..form.slots.len() as u16).map(|n| n * 4).collect();
            if let Some((output, input)) = share {
                slots[output] = slots[input];
            }
            let mut file = vec![Unit([0; 32]); form.slots.len() * 4];
            for unit in &mut file {
                unit.0 = std::array::from_fn(|_| random.next() as u32);
            }
            let mut inputs: Vec<Lanes> = Vec::new();
            for n in outputs..form.slots.len() {
                let ty = form.slots[n].ty;
                let number = n - outputs;
                let mut value = match (&names[n], given.iter().find(|(at, _)| *at == number)) {
                    (Operand::Int(value), _) => [*value as u64 as u128 & u128::MAX >> (128 - ty.bits()); 32],
                    (_, Some((_, value))) => value(&mut random),
                    _ => std::array::from_fn(|_| random.value(ty)),
                };
                if let (Operand::Name(_), None, Some(first)) = (&names[n], given.first(), inputs.first())
                    && form.slots[outputs].ty == ty
                {
                    // Equal operands matter to comparisons.
                    (0..32).filter(|l| l % 5 == 0).for_each(|l| value[l] = first[l]);
                }
                unsafe { put(&mut file, slots[n], ty, &value) };
                inputs.push(value);
            }
            let before: Vec<Lanes> = (0..outputs).map(|n| unsafe { get(&file, slots[n], form.slots[n].ty) }).collect();
            unsafe { (form.run)(file.as_mut_ptr(), &slots, mask) };
            let expected = expected(&inputs, mask);
            assert_eq!(expected.len(), outputs, "{text}: outputs");
            for n in 0..outputs {
                let after = unsafe { get(&file, slots[n], form.slots[n].ty) };
                for l in 0..32 {
                    let lane: Vec<u128> = inputs.iter().map(|input| input[l]).collect();
                    let right = if mask >> l & 1 != 0 { expected[n][l] } else { before[n][l] };
                    assert_eq!(
                        after[l], right,
                        "{text}: output {n} of lane {l} for {lane:x?} is {:x}, not {right:x} (mask {mask:x}, {share:?})",
                        after[l]
                    );
                }
            }
        }
    }
}

/// Checks that a form is refused by name.
pub fn refused(text: &str) {
    let written = text.split(' ').next().unwrap_or(text);
    match form(text) {
        Err(Unsupported(named)) => assert_eq!(named, written),
        Ok(_) => panic!("{text} is accepted"),
    }
}
