//! Between integer types: truncation, extension, saturation.

use std::marker::PhantomData;

use super::super::float::operation::{Modifiers, Operation, Raw, scalar, vector};
use super::Types;
use crate::lanes::{Class, Form, Run, Unsupported};
use crate::num::integer::Integer;
use crate::ptx::ast::Type;

/// The low bits of the source as a `T`, extended by its sign up to the bits of `W`, and with zeros from there.
struct Resize<In, T, W, Out>(PhantomData<(In, T, W, Out)>);

impl<In, T, W, Out> Operation<1> for Resize<In, T, W, Out>
where
    In: Integer + Raw,
    T: Integer,
    W: Integer,
    Out: Integer + Raw,
{
    type In = In;
    type Out = Out;
    #[inline(always)]
    fn apply([a]: [In; 1]) -> Out {
        Out::truncate(W::truncate(T::truncate(a.extend()).extend()).extend())
    }
}

/// `.sat`: the value of an `S` clamped to the range of a `D`, extended to the bits of `Out`.
struct Saturate<In, S, D, Out>(PhantomData<(In, S, D, Out)>);

impl<In, S, D, Out> Operation<1> for Saturate<In, S, D, Out>
where
    In: Integer + Raw,
    S: Integer,
    D: Integer,
    Out: Integer + Raw,
{
    type In = In;
    type Out = Out;
    #[inline(always)]
    fn apply([a]: [In; 1]) -> Out {
        Out::truncate(D::clamp(S::truncate(a.extend()).value()).extend())
    }
}

/// Names the integer type `$T` that a [`Type`] stands for in an expression, which becomes `Some`; `None` for other types.
macro_rules! with_integer {
    ($ty:expr, $T:ident => $body:expr) => {
        match $ty {
            Type::U8 => {
                type $T = u8;
                Some($body)
            }
            Type::S8 => {
                type $T = i8;
                Some($body)
            }
            Type::U16 => {
                type $T = u16;
                Some($body)
            }
            Type::S16 => {
                type $T = i16;
                Some($body)
            }
            Type::U32 => {
                type $T = u32;
                Some($body)
            }
            Type::S32 => {
                type $T = i32;
                Some($body)
            }
            Type::U64 => {
                type $T = u64;
                Some($body)
            }
            Type::S64 => {
                type $T = i64;
                Some($body)
            }
            _ => None,
        }
    };
}
pub(super) use with_integer;

/// Names the integer type `$T` that a result has, and the unsigned type `$Out` of its register's width, as which it is
/// written: the sign of a narrow result goes to the end of the register, but not to the end of a lane.
macro_rules! with_result {
    ($ty:expr, $register_bits:expr, $T:ident, $Out:ident => $body:expr) => {
        match ($ty, $register_bits) {
            (Type::U8, 64) => {
                type $T = u8;
                type $Out = u64;
                Some($body)
            }
            (Type::U8, _) => {
                type $T = u8;
                type $Out = u32;
                Some($body)
            }
            (Type::U16, 64) => {
                type $T = u16;
                type $Out = u64;
                Some($body)
            }
            (Type::U16, _) => {
                type $T = u16;
                type $Out = u32;
                Some($body)
            }
            (Type::U32, 64) => {
                type $T = u32;
                type $Out = u64;
                Some($body)
            }
            (Type::U32, _) => {
                type $T = u32;
                type $Out = u32;
                Some($body)
            }
            (Type::U64, _) => {
                type $T = u64;
                type $Out = u64;
                Some($body)
            }
            (Type::S8, 64) => {
                type $T = i8;
                type $Out = u64;
                Some($body)
            }
            (Type::S8, 32) => {
                type $T = i8;
                type $Out = u32;
                Some($body)
            }
            (Type::S8, 16) => {
                type $T = i8;
                type $Out = u16;
                Some($body)
            }
            (Type::S8, _) => {
                type $T = i8;
                type $Out = u8;
                Some($body)
            }
            (Type::S16, 64) => {
                type $T = i16;
                type $Out = u64;
                Some($body)
            }
            (Type::S16, 32) => {
                type $T = i16;
                type $Out = u32;
                Some($body)
            }
            (Type::S16, _) => {
                type $T = i16;
                type $Out = u16;
                Some($body)
            }
            (Type::S32, 64) => {
                type $T = i32;
                type $Out = u64;
                Some($body)
            }
            (Type::S32, _) => {
                type $T = i32;
                type $Out = u32;
                Some($body)
            }
            (Type::S64, _) => {
                type $T = i64;
                type $Out = u64;
                Some($body)
            }
            _ => None,
        }
    };
}
pub(super) use with_result;

/// Whether every value of `from` is one of `to`.
fn contains(to: Type, from: Type) -> bool {
    match (to.signed(), from.signed()) {
        (true, true) | (false, false) => to.bits() >= from.bits(),
        (true, false) => to.bits() > from.bits(),
        (false, true) => false,
    }
}

/// The low bits of the source as `ty`, with the sign extended to `bits`.
fn resize(ty: Type, bits: u32, types: Types) -> Option<Run> {
    macro_rules! run {
        ($T:ty, $W:ty) => {
            match (types.from_bits == 64, types.to_bits == 64) {
                (false, false) => vector::<Resize<u32, $T, $W, u32>, 1>(),
                (false, true) => vector::<Resize<u32, $T, $W, u64>, 1>(),
                (true, false) => vector::<Resize<u64, $T, $W, u32>, 1>(),
                (true, true) => vector::<Resize<u64, $T, $W, u64>, 1>(),
            }
        };
    }
    Some(match (ty, bits) {
        (Type::U8, _) | (Type::S8, 8) => run!(u8, u64),
        (Type::U16, _) | (Type::S16, 16) => run!(u16, u64),
        (Type::U32, _) | (Type::S32, 32) => run!(u32, u64),
        (Type::U64 | Type::S64, _) => run!(u64, u64),
        (Type::S8, 16) => run!(i8, u16),
        (Type::S8, 32) => run!(i8, u32),
        (Type::S8, _) => run!(i8, u64),
        (Type::S16, 32) => run!(i16, u32),
        (Type::S16, _) => run!(i16, u64),
        (Type::S32, _) => run!(i32, u64),
        _ => return None,
    })
}

fn saturate(types: Types) -> Option<Run> {
    let wide = types.from_bits == 64;
    with_integer!(types.from, S => with_result!(types.to, types.to_bits, D, Out => {
        if wide { scalar::<Saturate<u64, S, D, Out>, 1>() } else { scalar::<Saturate<u32, S, D, Out>, 1>() }
    }))
    .flatten()
}

/// The form of a conversion between integers.
pub(super) fn form(m: &mut Modifiers<'_>, types: Types) -> Result<Form, Unsupported> {
    let run = if m.take("sat") {
        if contains(types.to, types.from) {
            return m.unsupported();
        }
        saturate(types)
    } else {
        // A signed result is extended to the end of its register, another one to its own end.
        let bits = if types.to.signed() { types.to_bits } else { types.to.bits() };
        resize(if types.to.bits() <= types.from.bits() { types.to } else { types.from }, bits, types)
    };
    match run {
        Some(run) => Ok(Form::new(run, Class::Convert, types.destination(), &[types.source()])),
        None => m.unsupported(),
    }
}
