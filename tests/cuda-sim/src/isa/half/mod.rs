//! Arithmetic in f16 and bf16, single and packed (PTX ISA 9.7.4).

#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use super::float::operation::{Modifiers, Operation, scalar, vector};
use crate::lanes::{Class, Form, Run, Unsupported};
use crate::num::Round;
use crate::num::approx;
use crate::num::format::{Bf16, F16};
use crate::num::native::{max32, min32, saturate, xorsign};
use crate::num::small::{Half, relu};
use crate::ptx::ast::{Instruction, Type};

/// What one half does with `N` bit patterns.
trait Element<const N: usize>: 'static {
    fn apply(bits: [u32; N]) -> u32;
}

/// One value a register.
struct Single<E>(PhantomData<E>);
/// Two values a register.
struct Packed<E>(PhantomData<E>);

impl<E: Element<N>, const N: usize> Operation<N> for Single<E> {
    type In = u32;
    type Out = u32;
    #[inline(always)]
    fn apply(operands: [u32; N]) -> u32 {
        let mut low = operands;
        for x in &mut low {
            *x &= 0xffff;
        }
        E::apply(low)
    }
}

impl<E: Element<N>, const N: usize> Operation<N> for Packed<E> {
    type In = u32;
    type Out = u32;
    #[inline(always)]
    fn apply(operands: [u32; N]) -> u32 {
        let (mut low, mut high) = (operands, operands);
        for n in 0..N {
            low[n] &= 0xffff;
            high[n] >>= 16;
        }
        E::apply(low) | E::apply(high) << 16
    }
}

/// What happens to a result: nothing, `.sat`, `.relu`.
const PLAIN: u8 = 0;
const SAT: u8 = 1;
const RELU: u8 = 2;

#[inline(always)]
fn flush<F: Half, const FTZ: bool>(bits: u32) -> u32 {
    if FTZ && bits & F::TOP as u32 == 0 { bits & F::SIGN as u32 } else { bits }
}

/// Rounds a wide result. Clamping before is clamping after: the bounds are numbers of the format.
#[inline(always)]
fn finish<F: Half, const FTZ: bool, const END: u8>(x: f32) -> u32 {
    let x = match END {
        SAT => saturate::<true>(x),
        RELU => relu(x),
        _ => x,
    };
    flush::<F, FTZ>(F::narrow(x))
}

macro_rules! arithmetic {
    ($($name:ident[$n:literal]($($x:ident),*) = $value:expr;)*) => {$(
        struct $name<F, const FTZ: bool, const END: u8>(PhantomData<F>);
        impl<F: Half + 'static, const FTZ: bool, const END: u8> Element<$n> for $name<F, FTZ, END> {
            #[inline(always)]
            fn apply([$($x),*]: [u32; $n]) -> u32 {
                $(let $x = F::widen(flush::<F, FTZ>($x));)*
                finish::<F, FTZ, END>($value)
            }
        }
    )*};
}
arithmetic! {
    Add[2](a, b) = a + b;
    Sub[2](a, b) = a - b;
    Mul[2](a, b) = a * b;
    Fma[3](a, b, c) = F::fma(a, b, c);
    Min[2](a, b) = min32::<false>(a, b);
    Max[2](a, b) = max32::<false>(a, b);
    MinNan[2](a, b) = min32::<true>(a, b);
    MaxNan[2](a, b) = max32::<true>(a, b);
    MinXor[2](a, b) = xorsign(min32::<false>(a.abs(), b.abs()), a, b);
    MaxXor[2](a, b) = xorsign(max32::<false>(a.abs(), b.abs()), a, b);
    MinNanXor[2](a, b) = xorsign(min32::<true>(a.abs(), b.abs()), a, b);
    MaxNanXor[2](a, b) = xorsign(max32::<true>(a.abs(), b.abs()), a, b);
    Ex2[1](a) = approx::ex2(a);
    Tanh[1](a) = approx::tanh(a);
}

/// `neg` and `abs` change the sign bit only, of a NaN, too.
struct Neg<F, const FTZ: bool>(PhantomData<F>);
struct Abs<F, const FTZ: bool>(PhantomData<F>);

impl<F: Half + 'static, const FTZ: bool> Element<1> for Neg<F, FTZ> {
    #[inline(always)]
    fn apply([a]: [u32; 1]) -> u32 {
        flush::<F, FTZ>(a) ^ 0x8000
    }
}

impl<F: Half + 'static, const FTZ: bool> Element<1> for Abs<F, FTZ> {
    #[inline(always)]
    fn apply([a]: [u32; 1]) -> u32 {
        flush::<F, FTZ>(a) & 0x7fff
    }
}

fn run<E: Element<N>, const N: usize>(packed: bool) -> Run {
    if packed { vector::<Packed<E>, N>() } else { vector::<Single<E>, N>() }
}

/// For what is rare: `.ftz` and `.sat`.
fn rare<E: Element<N>, const N: usize>(packed: bool) -> Run {
    if packed { scalar::<Packed<E>, N>() } else { scalar::<Single<E>, N>() }
}

/// The run of an operation of f16, by `.ftz` and what happens at the end.
macro_rules! run_f16 {
    ($name:ident, $packed:expr, $ftz:expr, $end:expr) => {
        match ($ftz, $end) {
            (false, SAT) => rare::<$name<F16, false, SAT>, _>($packed),
            (false, RELU) => run::<$name<F16, false, RELU>, _>($packed),
            (false, _) => run::<$name<F16, false, PLAIN>, _>($packed),
            (true, SAT) => rare::<$name<F16, true, SAT>, _>($packed),
            (true, RELU) => rare::<$name<F16, true, RELU>, _>($packed),
            (true, _) => rare::<$name<F16, true, PLAIN>, _>($packed),
        }
    };
}

/// The run of an operation that has `.ftz` in f16 only, and neither `.sat` nor `.relu`.
macro_rules! run_plain {
    ($name:ident, $bf16:expr, $packed:expr, $ftz:expr) => {
        match ($bf16, $ftz) {
            (false, false) => run::<$name<F16, false, PLAIN>, _>($packed),
            (false, true) => rare::<$name<F16, true, PLAIN>, _>($packed),
            (true, _) => run::<$name<Bf16, false, PLAIN>, _>($packed),
        }
    };
}

/// See [`crate::lanes::Family`].
pub fn family(i: &Instruction, _register: &dyn Fn(&str) -> Option<Type>) -> Result<Option<Form>, Unsupported> {
    let opcode = i.opcode.as_str();
    if !matches!(opcode, "add" | "sub" | "mul" | "fma" | "neg" | "abs" | "min" | "max" | "ex2" | "tanh") {
        return Ok(None);
    }
    let mut m = Modifiers::new(i);
    let (ty, bf16, packed) = match m.take_type() {
        Some(ty @ Type::F16) => (ty, false, false),
        Some(ty @ Type::F16x2) => (ty, false, true),
        Some(ty @ Type::Bf16) => (ty, true, false),
        Some(ty @ Type::Bf16x2) => (ty, true, true),
        _ => return Ok(None),
    };
    let ftz = m.take("ftz");
    // bf16 is flushed by ex2 alone, and there always.
    if bf16 && ftz != (opcode == "ex2") {
        return m.unsupported();
    }
    let make = |run: Run, class: Class, inputs: usize| Form::new(run, class, ty, &[ty; 3][..inputs]);
    let form = match opcode {
        "add" | "sub" | "mul" => {
            if m.take_round().unwrap_or(Round::Nearest) != Round::Nearest {
                return m.unsupported();
            }
            let end = if !bf16 && m.take("sat") { SAT } else { PLAIN };
            let run = match (opcode, bf16) {
                ("add", false) => run_f16!(Add, packed, ftz, end),
                ("sub", false) => run_f16!(Sub, packed, ftz, end),
                (_, false) => run_f16!(Mul, packed, ftz, end),
                ("add", true) => run::<Add<Bf16, false, PLAIN>, _>(packed),
                ("sub", true) => run::<Sub<Bf16, false, PLAIN>, _>(packed),
                (_, true) => run::<Mul<Bf16, false, PLAIN>, _>(packed),
            };
            make(run, Class::Half, 2)
        }
        "fma" => {
            if m.need_round()? != Round::Nearest {
                return m.unsupported();
            }
            let end = if m.take("relu") {
                RELU
            } else if !bf16 && m.take("sat") {
                SAT
            } else {
                PLAIN
            };
            let run = match (bf16, end) {
                (false, end) => run_f16!(Fma, packed, ftz, end),
                (true, RELU) => run::<Fma<Bf16, false, RELU>, _>(packed),
                (true, _) => run::<Fma<Bf16, false, PLAIN>, _>(packed),
            };
            Form { fma: if packed { 2 } else { 1 }, ..make(run, Class::Half, 3) }
        }
        "neg" | "abs" => {
            let run = match (opcode == "neg", ftz) {
                (true, false) => run::<Neg<F16, false>, _>(packed),
                (true, true) => rare::<Neg<F16, true>, _>(packed),
                (false, false) => run::<Abs<F16, false>, _>(packed),
                (false, true) => rare::<Abs<F16, true>, _>(packed),
            };
            make(run, Class::Half, 1)
        }
        "min" | "max" => {
            let nan = m.take("NaN");
            let (xorsign, abs) = (m.take("xorsign"), m.take("abs"));
            if xorsign != abs || i.operands.len() > 3 {
                return m.unsupported();
            }
            let run = match (opcode == "min", nan, xorsign) {
                (true, false, false) => run_plain!(Min, bf16, packed, ftz),
                (true, true, false) => run_plain!(MinNan, bf16, packed, ftz),
                (true, false, true) => run_plain!(MinXor, bf16, packed, ftz),
                (true, true, true) => run_plain!(MinNanXor, bf16, packed, ftz),
                (false, false, false) => run_plain!(Max, bf16, packed, ftz),
                (false, true, false) => run_plain!(MaxNan, bf16, packed, ftz),
                (false, false, true) => run_plain!(MaxXor, bf16, packed, ftz),
                (false, true, true) => run_plain!(MaxNanXor, bf16, packed, ftz),
            };
            make(run, Class::Half, 2)
        }
        _ => {
            if !m.take("approx") || !bf16 && ftz {
                return m.unsupported();
            }
            let run = match (opcode == "ex2", bf16) {
                (true, false) => run::<Ex2<F16, false, PLAIN>, _>(packed),
                (true, true) => run::<Ex2<Bf16, true, PLAIN>, _>(packed),
                (false, false) => run::<Tanh<F16, false, PLAIN>, _>(packed),
                (false, true) => run::<Tanh<Bf16, false, PLAIN>, _>(packed),
            };
            make(run, Class::Special, 1)
        }
    };
    m.done()?;
    Ok(Some(form))
}
