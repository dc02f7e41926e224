//! Arithmetic in f32 and f64 (PTX ISA 9.7.3).

pub(super) mod operation;
#[cfg(test)]
pub(crate) mod tests;

use std::marker::PhantomData;

use operation::{Modifiers, Operation, Rm, Rounding, Rp, Rz, scalar, vector};

use crate::lanes::{Class, Form, Run, Unsupported};
use crate::num::Round;
use crate::num::approx;
use crate::num::exact;
use crate::num::format::{F32, F64};
use crate::num::native::{canonical, finish, flush, max32, max64, min32, min64, payload, xorsign};
use crate::ptx::ast::{Instruction, Type};

/// Defines f32 operations: the native one to nearest, and the one in integers for the other modes.
macro_rules! operations32 {
    ($($near:ident, $other:ident[$t:ident; $n:literal]($($x:ident),*) = $native:expr, $exact:expr;)*) => {$(
        struct $near<const FTZ: bool, const SAT: bool>;
        impl<const FTZ: bool, const SAT: bool> Operation<$n> for $near<FTZ, SAT> {
            type In = $t;
            type Out = f32;
            #[inline(always)]
            fn apply([$($x),*]: [Self::In; $n]) -> f32 {
                $(let $x = flush::<FTZ>($x);)*
                finish::<FTZ, SAT>($native)
            }
        }
        struct $other<R, const FTZ: bool, const SAT: bool>(PhantomData<R>);
        impl<R: Rounding, const FTZ: bool, const SAT: bool> Operation<$n> for $other<R, FTZ, SAT> {
            type In = $t;
            type Out = f32;
            #[inline(always)]
            fn apply([$($x),*]: [Self::In; $n]) -> f32 {
                $(let $x = flush::<FTZ>($x).to_bits() as u64;)*
                finish::<FTZ, SAT>(f32::from_bits($exact(R::MODE) as u32))
            }
        }
    )*};
}
operations32! {
    Add32, AddExact32[f32; 2](a, b) = a + b, |mode| exact::add::<F32>(a, b, mode);
    Sub32, SubExact32[f32; 2](a, b) = a - b, |mode| exact::add::<F32>(a, b ^ 1 << 31, mode);
    Mul32, MulExact32[f32; 2](a, b) = a * b, |mode| exact::mul::<F32>(a, b, mode);
    Fma32, FmaExact32[f32; 3](a, b, c) = a.mul_add(b, c), |mode| exact::fma::<F32>(a, b, c, mode);
    Div32, DivExact32[f32; 2](a, b) = a / b, |mode| exact::div::<F32>(a, b, mode);
    Rcp32, RcpExact32[f32; 1](a) = 1.0 / a, |mode| exact::div::<F32>(0x3f80_0000, a, mode);
    Sqrt32, SqrtExact32[f32; 1](a) = a.sqrt(), |mode| exact::sqrt::<F32>(a, mode);
}

/// Defines f64 operations, likewise.
macro_rules! operations64 {
    ($($near:ident, $other:ident[$t:ident; $n:literal]($($x:ident),*) = $native:expr, $exact:expr;)*) => {$(
        struct $near;
        impl Operation<$n> for $near {
            type In = $t;
            type Out = f64;
            #[inline(always)]
            fn apply([$($x),*]: [Self::In; $n]) -> f64 {
                payload($native, [$($x),*])
            }
        }
        struct $other<R>(PhantomData<R>);
        impl<R: Rounding> Operation<$n> for $other<R> {
            type In = $t;
            type Out = f64;
            #[inline(always)]
            fn apply([$($x),*]: [Self::In; $n]) -> f64 {
                let operands = [$($x),*];
                $(let $x = $x.to_bits();)*
                payload(f64::from_bits($exact(R::MODE)), operands)
            }
        }
    )*};
}
operations64! {
    Add64, AddExact64[f64; 2](a, b) = a + b, |mode| exact::add::<F64>(a, b, mode);
    Sub64, SubExact64[f64; 2](a, b) = a - b, |mode| exact::add::<F64>(a, b ^ 1 << 63, mode);
    Mul64, MulExact64[f64; 2](a, b) = a * b, |mode| exact::mul::<F64>(a, b, mode);
    Fma64, FmaExact64[f64; 3](a, b, c) = a.mul_add(b, c), |mode| exact::fma::<F64>(a, b, c, mode);
    Div64, DivExact64[f64; 2](a, b) = a / b, |mode| exact::div::<F64>(a, b, mode);
    Rcp64, RcpExact64[f64; 1](a) = 1.0 / a, |mode| exact::div::<F64>(0x3ff0_0000_0000_0000, a, mode);
    Sqrt64, SqrtExact64[f64; 1](a) = a.sqrt(), |mode| exact::sqrt::<F64>(a, mode);
}

/// The run of an f32 operation, by its modifiers.
macro_rules! run32 {
    ($near:ident, $other:ident, $round:expr, $ftz:expr, $sat:expr) => {
        match ($round, $ftz, $sat) {
            (Round::Zero, false, false) => scalar::<$other<Rz, false, false>, _>(),
            (Round::Zero, false, true) => scalar::<$other<Rz, false, true>, _>(),
            (Round::Zero, true, false) => scalar::<$other<Rz, true, false>, _>(),
            (Round::Zero, true, true) => scalar::<$other<Rz, true, true>, _>(),
            (Round::Down, false, false) => scalar::<$other<Rm, false, false>, _>(),
            (Round::Down, false, true) => scalar::<$other<Rm, false, true>, _>(),
            (Round::Down, true, false) => scalar::<$other<Rm, true, false>, _>(),
            (Round::Down, true, true) => scalar::<$other<Rm, true, true>, _>(),
            (Round::Up, false, false) => scalar::<$other<Rp, false, false>, _>(),
            (Round::Up, false, true) => scalar::<$other<Rp, false, true>, _>(),
            (Round::Up, true, false) => scalar::<$other<Rp, true, false>, _>(),
            (Round::Up, true, true) => scalar::<$other<Rp, true, true>, _>(),
            (_, false, false) => vector::<$near<false, false>, _>(),
            (_, false, true) => vector::<$near<false, true>, _>(),
            (_, true, false) => vector::<$near<true, false>, _>(),
            (_, true, true) => vector::<$near<true, true>, _>(),
        }
    };
}

/// The run of an f64 operation, by its rounding.
macro_rules! run64 {
    ($near:ident, $other:ident, $round:expr) => {
        match $round {
            Round::Zero => scalar::<$other<Rz>, _>(),
            Round::Down => scalar::<$other<Rm>, _>(),
            Round::Up => scalar::<$other<Rp>, _>(),
            _ => vector::<$near, _>(),
        }
    };
}

/// Defines f32 operations of one or two operands without rounding modes: `flush`, the expression, `flush` again.
macro_rules! plain32 {
    ($($(#[$meta:meta])* $name:ident[$t:ident; $n:literal]($($x:ident),*) = $value:expr;)*) => {$(
        $(#[$meta])*
        struct $name<const FTZ: bool>;
        impl<const FTZ: bool> Operation<$n> for $name<FTZ> {
            type In = $t;
            type Out = f32;
            #[inline(always)]
            fn apply([$($x),*]: [Self::In; $n]) -> f32 {
                $(let $x = flush::<FTZ>($x);)*
                flush::<FTZ>($value)
            }
        }
    )*};
}
plain32! {
    Abs32[f32; 1](a) = f32::from_bits(a.to_bits() & 0x7fff_ffff);
    Neg32[f32; 1](a) = f32::from_bits(a.to_bits() ^ 0x8000_0000);
    Min32[f32; 2](a, b) = min32::<false>(a, b);
    Max32[f32; 2](a, b) = max32::<false>(a, b);
    MinNan32[f32; 2](a, b) = min32::<true>(a, b);
    MaxNan32[f32; 2](a, b) = max32::<true>(a, b);
    MinXor32[f32; 2](a, b) = xorsign(min32::<false>(a.abs(), b.abs()), a, b);
    MaxXor32[f32; 2](a, b) = xorsign(max32::<false>(a.abs(), b.abs()), a, b);
    MinNanXor32[f32; 2](a, b) = xorsign(min32::<true>(a.abs(), b.abs()), a, b);
    MaxNanXor32[f32; 2](a, b) = xorsign(max32::<true>(a.abs(), b.abs()), a, b);
    DivApprox[f32; 2](a, b) = canonical(approx::div(a, b));
    DivFull[f32; 2](a, b) = canonical(a / b);
    RcpApprox[f32; 1](a) = canonical(approx::rcp(a));
    RsqrtApprox[f32; 1](a) = canonical(approx::rsqrt(a));
    SqrtApprox[f32; 1](a) = canonical(a.sqrt());
    SinApprox[f32; 1](a) = canonical(approx::sin(a));
    CosApprox[f32; 1](a) = canonical(approx::cos(a));
    Lg2Approx[f32; 1](a) = canonical(approx::lg2(a));
    Ex2Approx[f32; 1](a) = canonical(approx::ex2(a));
    TanhApprox[f32; 1](a) = canonical(approx::tanh(a));
}

macro_rules! run_ftz {
    ($name:ident, $ftz:expr) => {
        if $ftz { vector::<$name<true>, _>() } else { vector::<$name<false>, _>() }
    };
}

crate::lanes! {
    fn abs64(d: u64; a: u64) { d = a & !(1 << 63); }
    fn neg64(d: u64; a: u64) { d = a ^ 1 << 63; }
    fn minimum64(d: f64; a: f64, b: f64) { d = min64::<false>(a, b); }
    fn maximum64(d: f64; a: f64, b: f64) { d = max64::<false>(a, b); }
    fn rcp_upper64(d: f64; a: f64) { d = approx::rcp64(a); }
    fn rsqrt_upper64(d: f64; a: f64) { d = approx::rsqrt64_upper(a); }
    fn rsqrt64(d: f64; a: f64) { d = payload(approx::rsqrt64(a), [a]); }
    fn copysign32(d: u32; a: u32, b: u32) { d = a & 1 << 31 | b & !(1 << 31); }
    fn copysign64(d: u64; a: u64, b: u64) { d = a & 1 << 63 | b & !(1 << 63); }
    fn finite32(p: bool; a: f32) { p = a.abs() < f32::INFINITY; }
    fn infinite32(p: bool; a: f32) { p = a.abs() == f32::INFINITY; }
    fn number32(p: bool; a: f32) { p = !a.is_nan(); }
    fn nan32(p: bool; a: f32) { p = a.is_nan(); }
    fn normal32(p: bool; a: f32) { p = a.abs() < f32::INFINITY && a.abs() >= f32::MIN_POSITIVE || a == 0.0; }
    fn subnormal32(p: bool; a: f32) { p = a.abs() < f32::MIN_POSITIVE && a != 0.0; }
    fn finite64(p: bool; a: f64) { p = a.abs() < f64::INFINITY; }
    fn infinite64(p: bool; a: f64) { p = a.abs() == f64::INFINITY; }
    fn number64(p: bool; a: f64) { p = !a.is_nan(); }
    fn nan64(p: bool; a: f64) { p = a.is_nan(); }
    fn normal64(p: bool; a: f64) { p = a.abs() < f64::INFINITY && a.abs() >= f64::MIN_POSITIVE || a == 0.0; }
    fn subnormal64(p: bool; a: f64) { p = a.abs() < f64::MIN_POSITIVE && a != 0.0; }
}

/// See [`crate::lanes::Family`].
pub fn family(i: &Instruction, _register: &dyn Fn(&str) -> Option<Type>) -> Result<Option<Form>, Unsupported> {
    let known = matches!(
        i.opcode.as_str(),
        "add"
            | "sub"
            | "mul"
            | "fma"
            | "mad"
            | "div"
            | "rcp"
            | "sqrt"
            | "rsqrt"
            | "sin"
            | "cos"
            | "lg2"
            | "ex2"
            | "tanh"
            | "abs"
            | "neg"
            | "min"
            | "max"
            | "testp"
            | "copysign"
    );
    if !known {
        return Ok(None);
    }
    // f32x2 is of sm_100, and so is the mixed precision of `fma.rn.f32.f16`.
    if i.has("f32x2") || i.types().count() > 1 && i.types().any(Type::float) {
        return Modifiers::new(i).unsupported();
    }
    match i.types().next() {
        Some(Type::F32) => form32(i).map(Some),
        Some(Type::F64) => form64(i).map(Some),
        _ => Ok(None),
    }
}

fn form32(i: &Instruction) -> Result<Form, Unsupported> {
    use Type::{F32, Pred};
    let mut m = Modifiers::new(i);
    m.take_type();
    let ftz = m.take("ftz");
    let make = |run: Run, class: Class, inputs: usize| Form::new(run, class, F32, &[F32; 3][..inputs]);
    let form = match i.opcode.as_str() {
        "add" | "sub" | "mul" => {
            let (round, sat) = (m.take_round().unwrap_or(Round::Nearest), m.take("sat"));
            let run = match i.opcode.as_str() {
                "add" => run32!(Add32, AddExact32, round, ftz, sat),
                "sub" => run32!(Sub32, SubExact32, round, ftz, sat),
                _ => run32!(Mul32, MulExact32, round, ftz, sat),
            };
            make(run, Class::Float32, 2)
        }
        "fma" | "mad" => {
            let (round, sat) = (m.need_round()?, m.take("sat"));
            Form { fma: 1, ..make(run32!(Fma32, FmaExact32, round, ftz, sat), Class::Fma32, 3) }
        }
        "div" if m.take("approx") => make(run_ftz!(DivApprox, ftz), Class::Special, 2),
        "div" if m.take("full") => make(run_ftz!(DivFull, ftz), Class::Special, 2),
        "div" => make(run32!(Div32, DivExact32, m.need_round()?, ftz, false), Class::Special, 2),
        "rcp" if m.take("approx") => make(run_ftz!(RcpApprox, ftz), Class::Special, 1),
        "rcp" => make(run32!(Rcp32, RcpExact32, m.need_round()?, ftz, false), Class::Special, 1),
        "sqrt" if m.take("approx") => make(run_ftz!(SqrtApprox, ftz), Class::Special, 1),
        "sqrt" => make(run32!(Sqrt32, SqrtExact32, m.need_round()?, ftz, false), Class::Special, 1),
        "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" => {
            if !m.take("approx") {
                return m.unsupported();
            }
            let run = match i.opcode.as_str() {
                "rsqrt" => run_ftz!(RsqrtApprox, ftz),
                "sin" => run_ftz!(SinApprox, ftz),
                "cos" => run_ftz!(CosApprox, ftz),
                "lg2" => run_ftz!(Lg2Approx, ftz),
                "ex2" => run_ftz!(Ex2Approx, ftz),
                _ if ftz => return m.unsupported(),
                _ => vector::<TanhApprox<false>, _>(),
            };
            make(run, Class::Special, 1)
        }
        "abs" => make(run_ftz!(Abs32, ftz), Class::Float32, 1),
        "neg" => make(run_ftz!(Neg32, ftz), Class::Float32, 1),
        "min" | "max" => {
            let nan = m.take("NaN");
            let (xorsign, abs) = (m.take("xorsign"), m.take("abs"));
            // `.abs` alone and three inputs are of sm_100.
            if xorsign != abs || i.operands.len() > 3 {
                return m.unsupported();
            }
            let run = match (i.opcode == "min", nan, xorsign) {
                (true, false, false) => run_ftz!(Min32, ftz),
                (true, true, false) => run_ftz!(MinNan32, ftz),
                (true, false, true) => run_ftz!(MinXor32, ftz),
                (true, true, true) => run_ftz!(MinNanXor32, ftz),
                (false, false, false) => run_ftz!(Max32, ftz),
                (false, true, false) => run_ftz!(MaxNan32, ftz),
                (false, false, true) => run_ftz!(MaxXor32, ftz),
                (false, true, true) => run_ftz!(MaxNanXor32, ftz),
            };
            make(run, Class::Float32, 2)
        }
        "copysign" if !ftz => make(copysign32(), Class::Float32, 2),
        "testp" if !ftz => {
            let Some(run) = m.take_one(&[
                ("finite", finite32()),
                ("infinite", infinite32()),
                ("number", number32()),
                ("notanumber", nan32()),
                ("normal", normal32()),
                ("subnormal", subnormal32()),
            ]) else {
                return m.unsupported();
            };
            Form::new(run, Class::Compare, Pred, &[F32])
        }
        _ => return m.unsupported(),
    };
    m.done()?;
    Ok(form)
}

fn form64(i: &Instruction) -> Result<Form, Unsupported> {
    use Type::{F64, Pred};
    let mut m = Modifiers::new(i);
    m.take_type();
    let make = |run: Run, inputs: usize| Form::new(run, Class::Float64, F64, &[F64; 3][..inputs]);
    let form = match i.opcode.as_str() {
        "add" => make(run64!(Add64, AddExact64, m.take_round().unwrap_or(Round::Nearest)), 2),
        "sub" => make(run64!(Sub64, SubExact64, m.take_round().unwrap_or(Round::Nearest)), 2),
        "mul" => make(run64!(Mul64, MulExact64, m.take_round().unwrap_or(Round::Nearest)), 2),
        "fma" | "mad" => Form { fma: 1, ..make(run64!(Fma64, FmaExact64, m.need_round()?), 3) },
        "div" => make(run64!(Div64, DivExact64, m.need_round()?), 2),
        "rcp" if m.take("approx") && m.take("ftz") => make(rcp_upper64(), 1),
        "rcp" => make(run64!(Rcp64, RcpExact64, m.need_round()?), 1),
        "sqrt" => make(run64!(Sqrt64, SqrtExact64, m.need_round()?), 1),
        "rsqrt" if m.take("approx") => make(if m.take("ftz") { rsqrt_upper64() } else { rsqrt64() }, 1),
        "abs" => make(abs64(), 1),
        "neg" => make(neg64(), 1),
        "min" if i.operands.len() <= 3 => make(minimum64(), 2),
        "max" if i.operands.len() <= 3 => make(maximum64(), 2),
        "copysign" => make(copysign64(), 2),
        "testp" => {
            let Some(run) = m.take_one(&[
                ("finite", finite64()),
                ("infinite", infinite64()),
                ("number", number64()),
                ("notanumber", nan64()),
                ("normal", normal64()),
                ("subnormal", subnormal64()),
            ]) else {
                return m.unsupported();
            };
            Form::new(run, Class::Compare, Pred, &[F64])
        }
        _ => return m.unsupported(),
    };
    m.done()?;
    Ok(form)
}
