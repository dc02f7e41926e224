//! From and to floating-point types, one value at a time.

use std::marker::PhantomData;

use super::super::float::operation::{Modifiers, Operation, Raw, Rm, Rounding, Rp, Rz, scalar, vector};
use super::Types;
use super::integer::{with_integer, with_result};
use crate::lanes::{Class, Form, Run, Unsupported};
use crate::num::Round;
use crate::num::format::{self, Bf16, Exact, F16, F32, F64, Format};
use crate::num::integer::{Integer, Whole};
use crate::num::native::{self, NAN64, canonical, flush, payload};
use crate::num::small::{self, Small};
use crate::ptx::ast::Type;

/// Rounding to nearest, which is done in floating point.
pub(super) struct Rn;
impl Rounding for Rn {
    const MODE: Round = Round::Nearest;
}

/// Rounding to a whole number as a type.
pub(super) trait Wholeness: 'static {
    const MODE: Whole;
}
macro_rules! wholeness {
    ($($name:ident $mode:ident;)*) => {$(
        struct $name;
        impl Wholeness for $name {
            const MODE: Whole = Whole::$mode;
        }
    )*};
}
wholeness! {
    Rni Nearest;
    Rzi Zero;
    Rmi Down;
    Rpi Up;
}

/// f32 or f64: what a source is widened to.
pub(super) trait Wide: Copy {
    fn whole<W: Wholeness>(self) -> Self;
    fn saturate(self) -> Self;
    fn integer<T: Integer>(self) -> T;
    fn to_f64(self) -> f64;
    fn to_f32<R: Rounding>(self) -> f32;
    fn narrow<F: Small, R: Rounding>(self) -> u32;
}

macro_rules! whole {
    ($x:expr, $mode:expr) => {
        match $mode {
            Whole::Nearest => $x.round_ties_even(),
            Whole::Zero => $x.trunc(),
            Whole::Down => $x.floor(),
            Whole::Up => $x.ceil(),
        }
    };
}

impl Wide for f32 {
    #[inline(always)]
    fn whole<W: Wholeness>(self) -> f32 {
        whole!(self, W::MODE)
    }
    #[inline(always)]
    fn saturate(self) -> f32 {
        native::saturate::<true>(self)
    }
    #[inline(always)]
    fn integer<T: Integer>(self) -> T {
        T::from_f32(self)
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        if self.is_nan() { f64::from_bits(NAN64) } else { self as f64 }
    }
    #[inline(always)]
    fn to_f32<R: Rounding>(self) -> f32 {
        canonical(self)
    }
    #[inline(always)]
    fn narrow<F: Small, R: Rounding>(self) -> u32 {
        match R::MODE {
            Round::Nearest => F::narrow(self),
            mode => format::convert::<F32, F>(self.to_bits() as u64, mode) as u32,
        }
    }
}

impl Wide for f64 {
    #[inline(always)]
    fn whole<W: Wholeness>(self) -> f64 {
        payload(whole!(self, W::MODE), [self])
    }
    #[inline(always)]
    fn saturate(self) -> f64 {
        let low = if self > 0.0 { self } else { 0.0 };
        if low < 1.0 { low } else { 1.0 }
    }
    #[inline(always)]
    fn integer<T: Integer>(self) -> T {
        T::from_f64(self)
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn to_f32<R: Rounding>(self) -> f32 {
        match R::MODE {
            Round::Nearest => canonical(self as f32),
            mode => f32::from_bits(format::convert::<F64, F32>(self.to_bits(), mode) as u32),
        }
    }
    #[inline(always)]
    fn narrow<F: Small, R: Rounding>(self) -> u32 {
        match R::MODE {
            // Rounded to odd, f32 has enough digits more for the second rounding to be right.
            Round::Nearest => F::narrow(small::odd(self)),
            mode => format::convert::<F64, F>(self.to_bits(), mode) as u32,
        }
    }
}

/// A floating-point type as a register holds it.
pub(super) trait Float: Format + 'static {
    /// How a lane is read and written.
    type Lane: Raw;
    /// What holds all its values.
    type Wide: Wide;
    fn widen<const FTZ: bool>(x: Self::Lane) -> Self::Wide;
    fn round<X: Wide, R: Rounding, const FTZ: bool>(x: X) -> Self::Lane;
}

macro_rules! small_floats {
    ($($f:ty),*) => {$(
        impl Float for $f {
            type Lane = u16;
            type Wide = f32;
            #[inline(always)]
            fn widen<const FTZ: bool>(x: u16) -> f32 {
                <$f as Small>::widen(x as u32)
            }
            #[inline(always)]
            fn round<X: Wide, R: Rounding, const FTZ: bool>(x: X) -> u16 {
                x.narrow::<$f, R>() as u16
            }
        }
    )*};
}
small_floats!(F16, Bf16);

impl Float for F32 {
    type Lane = f32;
    type Wide = f32;
    #[inline(always)]
    fn widen<const FTZ: bool>(x: f32) -> f32 {
        flush::<FTZ>(x)
    }
    #[inline(always)]
    fn round<X: Wide, R: Rounding, const FTZ: bool>(x: X) -> f32 {
        flush::<FTZ>(x.to_f32::<R>())
    }
}

impl Float for F64 {
    type Lane = f64;
    type Wide = f64;
    #[inline(always)]
    fn widen<const FTZ: bool>(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn round<X: Wide, R: Rounding, const FTZ: bool>(x: X) -> f64 {
        x.to_f64()
    }
}

/// What is done before rounding: nothing, or the modifiers.
const PLAIN: u8 = 0;
const SAT: u8 = 1;

/// Between floating-point types.
struct Convert<S, D, R, const FTZ: bool, const END: u8>(PhantomData<(S, D, R)>);

impl<S: Float, D: Float, R: Rounding, const FTZ: bool, const END: u8> Operation<1> for Convert<S, D, R, FTZ, END> {
    type In = S::Lane;
    type Out = D::Lane;
    #[inline(always)]
    fn apply([a]: [S::Lane; 1]) -> D::Lane {
        let x = S::widen::<FTZ>(a);
        let x = if END == SAT { x.saturate() } else { x };
        D::round::<S::Wide, R, FTZ>(x)
    }
}

/// To a whole number in the same type.
struct ToWhole<F, W, const FTZ: bool, const END: u8>(PhantomData<(F, W)>);

impl<F: Float, W: Wholeness, const FTZ: bool, const END: u8> Operation<1> for ToWhole<F, W, FTZ, END> {
    type In = F::Lane;
    type Out = F::Lane;
    #[inline(always)]
    fn apply([a]: [F::Lane; 1]) -> F::Lane {
        let x = F::widen::<FTZ>(a).whole::<W>();
        F::round::<F::Wide, Rn, FTZ>(if END == SAT { x.saturate() } else { x })
    }
}

/// To an integer, extended to the bits of `Out`.
struct ToInteger<F, W, T, Out, const FTZ: bool>(PhantomData<(F, W, T, Out)>);

impl<F, W, T, Out, const FTZ: bool> Operation<1> for ToInteger<F, W, T, Out, FTZ>
where
    F: Float,
    W: Wholeness,
    T: Integer,
    Out: Integer + Raw,
{
    type In = F::Lane;
    type Out = Out;
    #[inline(always)]
    fn apply([a]: [F::Lane; 1]) -> Out {
        let whole: T = F::widen::<FTZ>(a).whole::<W>().integer();
        Out::truncate(whole.extend())
    }
}

/// From an integer in the low bits of a register.
struct FromInteger<In, T, F, R>(PhantomData<(In, T, F, R)>);

/// The same with `.sat`.
struct FromIntegerSat<In, T, F>(PhantomData<(In, T, F)>);

/// How an integer becomes the nearest number of a type.
trait Nearest: Float {
    fn nearest<T: Integer>(x: T) -> Self::Lane;
    fn from_bits(bits: u64) -> Self::Lane;
}
impl Nearest for F32 {
    #[inline(always)]
    fn nearest<T: Integer>(x: T) -> f32 {
        x.to_f32()
    }
    #[inline(always)]
    fn from_bits(bits: u64) -> f32 {
        f32::from_bits(bits as u32)
    }
}
impl Nearest for F64 {
    #[inline(always)]
    fn nearest<T: Integer>(x: T) -> f64 {
        x.to_f64()
    }
    #[inline(always)]
    fn from_bits(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
}
macro_rules! nearest_small {
    ($($f:ty),*) => {$(
        impl Nearest for $f {
            #[inline(always)]
            fn nearest<T: Integer>(x: T) -> u16 {
                format::round::<$f>(Exact::integer(x.value()), Round::Nearest) as u16
            }
            #[inline(always)]
            fn from_bits(bits: u64) -> u16 {
                bits as u16
            }
        }
    )*};
}
nearest_small!(F16, Bf16);

impl<In, T, F, R> Operation<1> for FromInteger<In, T, F, R>
where
    In: Integer + Raw,
    T: Integer,
    F: Nearest,
    R: Rounding,
{
    type In = In;
    type Out = F::Lane;
    #[inline(always)]
    fn apply([a]: [In; 1]) -> F::Lane {
        let x = T::truncate(a.extend());
        match R::MODE {
            Round::Nearest => F::nearest(x),
            mode => F::from_bits(format::round::<F>(Exact::integer(x.value()), mode)),
        }
    }
}

impl<In, T, F> Operation<1> for FromIntegerSat<In, T, F>
where
    In: Integer + Raw,
    T: Integer,
    F: Nearest,
{
    type In = In;
    type Out = F::Lane;
    #[inline(always)]
    fn apply([a]: [In; 1]) -> F::Lane {
        F::nearest(u8::truncate((T::truncate(a.extend()).value() > 0) as u64))
    }
}

/// Names the type `$F` that a [`Type`] stands for in an expression, which becomes `Some`; `None` for other types.
macro_rules! with_float {
    ($ty:expr, $F:ident => $body:expr) => {
        match $ty {
            Type::F16 => {
                type $F = F16;
                Some($body)
            }
            Type::Bf16 => {
                type $F = Bf16;
                Some($body)
            }
            Type::F32 => {
                type $F = F32;
                Some($body)
            }
            Type::F64 => {
                type $F = F64;
                Some($body)
            }
            _ => None,
        }
    };
}

/// Names the rounding `$R` in an expression.
macro_rules! with_directed {
    ($mode:expr, $R:ident => $body:expr) => {
        match $mode {
            Round::Zero => {
                type $R = Rz;
                $body
            }
            Round::Down => {
                type $R = Rm;
                $body
            }
            _ => {
                type $R = Rp;
                $body
            }
        }
    };
}

/// Names the rounding `$W` to a whole number in an expression.
macro_rules! with_whole {
    ($mode:expr, $W:ident => $body:expr) => {
        match $mode {
            Whole::Nearest => {
                type $W = Rni;
                $body
            }
            Whole::Zero => {
                type $W = Rzi;
                $body
            }
            Whole::Down => {
                type $W = Rmi;
                $body
            }
            Whole::Up => {
                type $W = Rpi;
                $body
            }
        }
    };
}

fn take_whole(m: &mut Modifiers<'_>) -> Option<Whole> {
    m.take_one(&[("rni", Whole::Nearest), ("rzi", Whole::Zero), ("rmi", Whole::Down), ("rpi", Whole::Up)])
}

/// Narrow floating-point values in 64-bit registers are not known.
fn check_width(m: &Modifiers<'_>, ty: Type, bits: u32) -> Result<(), Unsupported> {
    if bits == 64 && ty.bits() < 64 { m.unsupported() } else { Ok(()) }
}

fn finish(m: &Modifiers<'_>, run: Option<Run>, types: Types) -> Result<Form, Unsupported> {
    match run {
        Some(run) => Ok(Form::new(run, Class::Convert, types.destination(), &[types.source()])),
        None => m.unsupported(),
    }
}

/// The form of a conversion to an integer.
pub(super) fn to_integer(m: &mut Modifiers<'_>, types: Types) -> Result<Form, Unsupported> {
    check_width(m, types.from, types.from_bits)?;
    let Some(whole) = take_whole(m) else {
        return m.unsupported();
    };
    // The result is clamped anyway.
    m.take("sat");
    let ftz = types.from == Type::F32 && m.take("ftz");
    if types.from == Type::F32 && types.to_bits == types.to.bits() {
        let common = match (types.to, whole) {
            (Type::S32, Whole::Nearest) => Some(vector::<ToInteger<F32, Rni, i32, u32, false>, 1>()),
            (Type::S32, Whole::Zero) => Some(vector::<ToInteger<F32, Rzi, i32, u32, false>, 1>()),
            (Type::S32, Whole::Down) if !ftz => Some(vector::<ToInteger<F32, Rmi, i32, u32, false>, 1>()),
            (Type::S32, Whole::Up) if !ftz => Some(vector::<ToInteger<F32, Rpi, i32, u32, false>, 1>()),
            (Type::U32, Whole::Nearest) => Some(vector::<ToInteger<F32, Rni, u32, u32, false>, 1>()),
            (Type::U32, Whole::Zero) => Some(vector::<ToInteger<F32, Rzi, u32, u32, false>, 1>()),
            _ => None,
        };
        if common.is_some() {
            return finish(m, common, types);
        }
    }
    let run = with_whole!(whole, W => with_result!(types.to, types.to_bits, T, Out => match types.from {
        Type::F16 => Some(scalar::<ToInteger<F16, W, T, Out, false>, 1>()),
        Type::Bf16 => Some(scalar::<ToInteger<Bf16, W, T, Out, false>, 1>()),
        // A subnormal shows in rounding away from zero only.
        Type::F32 if ftz && matches!(whole, Whole::Down | Whole::Up) => Some(scalar::<ToInteger<F32, W, T, Out, true>, 1>()),
        Type::F32 => Some(scalar::<ToInteger<F32, W, T, Out, false>, 1>()),
        Type::F64 => Some(scalar::<ToInteger<F64, W, T, Out, false>, 1>()),
        _ => None,
    }));
    finish(m, run.flatten(), types)
}

/// The form of a conversion from an integer.
pub(super) fn from_integer(m: &mut Modifiers<'_>, types: Types) -> Result<Form, Unsupported> {
    check_width(m, types.to, types.to_bits)?;
    let round = m.need_round()?;
    // No integer becomes a subnormal.
    let _ftz = types.to == Type::F32 && m.take("ftz");
    let sat = types.to != Type::Bf16 && m.take("sat");
    let run = with_float!(types.to, F => with_integer!(types.from, T => {
        let wide = types.from_bits == 64;
        macro_rules! run {
            ($loop:ident, $R:ident) => {
                if wide { $loop::<FromInteger<u64, T, F, $R>, 1>() } else { $loop::<FromInteger<u32, T, F, $R>, 1>() }
            };
        }
        match round {
            _ if sat && wide => scalar::<FromIntegerSat<u64, T, F>, 1>(),
            _ if sat => scalar::<FromIntegerSat<u32, T, F>, 1>(),
            Round::Nearest if types.to.bits() >= 32 => run!(vector, Rn),
            Round::Nearest => run!(scalar, Rn),
            _ => with_directed!(round, R => run!(scalar, R)),
        }
    }));
    finish(m, run.flatten(), types)
}

/// The form of a conversion between floating-point types.
pub(super) fn form(m: &mut Modifiers<'_>, types: Types) -> Result<Form, Unsupported> {
    check_width(m, types.from, types.from_bits)?;
    check_width(m, types.to, types.to_bits)?;
    let (to, from) = (types.to, types.from);
    let ftz = (to == Type::F32 || from == Type::F32) && m.take("ftz");
    let (relu, satfinite) = (m.take("relu"), m.take("satfinite"));
    if relu || satfinite {
        // The same conversions exist for two values at once.
        return super::packed::modified(m, types, ftz, relu, satfinite);
    }
    let sat = to != Type::Bf16 && m.take("sat");
    if to == from {
        let whole = take_whole(m);
        let run = with_float!(to, F => {
            macro_rules! run {
                ($loop:ident, $end:ident) => {
                    match (whole, ftz) {
                        (None, false) => vector::<Convert<F, F, Rn, false, $end>, 1>(),
                        (None, true) => vector::<Convert<F, F, Rn, true, $end>, 1>(),
                        (Some(whole), false) => with_whole!(whole, W => $loop::<ToWhole<F, W, false, $end>, 1>()),
                        (Some(whole), true) => with_whole!(whole, W => scalar::<ToWhole<F, W, true, $end>, 1>()),
                    }
                };
            }
            if sat { run!(scalar, SAT) } else { run!(vector, PLAIN) }
        });
        return finish(m, run, types);
    }
    // A rounding mode belongs to conversions that lose digits; bf16 as source may have one in any case.
    let loses = to.bits() < from.bits() || to.bits() == from.bits();
    let round = match m.take_round() {
        Some(round) if loses || from == Type::Bf16 => round,
        None if !loses => Round::Nearest,
        _ => return m.unsupported(),
    };
    macro_rules! run {
        ($S:ty, $D:ty) => {{
            macro_rules! directed {
                                        ($ftz:literal, $end:ident) => {
                                            with_directed!(round, R => scalar::<Convert<$S, $D, R, $ftz, $end>, 1>())
                                        };
                                    }
            match (round == Round::Nearest || !loses, ftz, sat) {
                (true, false, false) => vector::<Convert<$S, $D, Rn, false, PLAIN>, 1>(),
                (true, false, true) => scalar::<Convert<$S, $D, Rn, false, SAT>, 1>(),
                (true, true, false) => vector::<Convert<$S, $D, Rn, true, PLAIN>, 1>(),
                (true, true, true) => scalar::<Convert<$S, $D, Rn, true, SAT>, 1>(),
                (false, false, false) => directed!(false, PLAIN),
                (false, false, true) => directed!(false, SAT),
                (false, true, false) => directed!(true, PLAIN),
                (false, true, true) => directed!(true, SAT),
            }
        }};
    }
    let run = match (from, to) {
        (Type::F16, Type::Bf16) => run!(F16, Bf16),
        (Type::F16, Type::F32) => run!(F16, F32),
        (Type::F16, Type::F64) => run!(F16, F64),
        (Type::Bf16, Type::F16) => run!(Bf16, F16),
        (Type::Bf16, Type::F32) => run!(Bf16, F32),
        (Type::Bf16, Type::F64) => run!(Bf16, F64),
        (Type::F32, Type::F16) => run!(F32, F16),
        (Type::F32, Type::Bf16) => run!(F32, Bf16),
        (Type::F32, Type::F64) => run!(F32, F64),
        (Type::F64, Type::F16) => run!(F64, F16),
        (Type::F64, Type::Bf16) => run!(F64, Bf16),
        (Type::F64, Type::F32) => run!(F64, F32),
        _ => return m.unsupported(),
    };
    finish(m, Some(run), types)
}
