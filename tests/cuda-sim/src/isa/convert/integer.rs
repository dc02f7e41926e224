//! Between integer types: truncation, extension, saturation.

use std::marker::PhantomData;

use super::super::float::operation::{Modifiers, Operation, scalar, vector};
use super::Types;
use crate::lanes::{Class, Form, Lane, Run, Unsupported};
use crate::num::integer::Integer;
use crate::ptx::ast::Type;

/// The low bits of the source as a `T`, extended by its sign up to the bits of `W`, and with zeros from there.
struct Resize<In, T, W, Out>(PhantomData<(In, T, W, Out)>);

impl<In, T, W, Out> Operation<1> for Resize<In, T, W, Out>
where
    In: Integer + Lane,
    T: Integer,
    W: Integer,
    Out: Integer + Lane + Default,
{
    type In = In;
    type Out = Out;
    #[inline(always)]
    fn apply([a]: [In; 1]) -> Out {
        Out::truncate(W::truncate(T::truncate(a.extend()).extend()).extend())
    }
}

/// `.sat`: the value of an `S` clamped to the range of a `D`, extended up to the bits of `W`.
struct Saturate<In, S, D, W, Out>(PhantomData<(In, S, D, W, Out)>);

impl<In, S, D, W, Out> Operation<1> for Saturate<In, S, D, W, Out>
where
    In: Integer + Lane,
    S: Integer,
    D: Integer,
    W: Integer,
    Out: Integer + Lane + Default,
{
    type In = In;
    type Out = Out;
    #[inline(always)]
    fn apply([a]: [In; 1]) -> Out {
        Out::truncate(W::truncate(D::clamp(S::truncate(a.extend()).value()).extend()).extend())
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

/// Names the unsigned types `$W` up to whose bits, and `$Out` as which, a result is written.
macro_rules! with_width {
    ($sign_bits:expr, $register_bits:expr, $W:ident, $Out:ident => $body:expr) => {
        match ($sign_bits, $register_bits) {
            (8, 64) => {
                type $W = u8;
                type $Out = u64;
                $body
            }
            (16, 64) => {
                type $W = u16;
                type $Out = u64;
                $body
            }
            (32, 64) => {
                type $W = u32;
                type $Out = u64;
                $body
            }
            (_, 64) => {
                type $W = u64;
                type $Out = u64;
                $body
            }
            (8, _) => {
                type $W = u8;
                type $Out = u32;
                $body
            }
            (16, _) => {
                type $W = u16;
                type $Out = u32;
                $body
            }
            _ => {
                type $W = u32;
                type $Out = u32;
                $body
            }
        }
    };
}
pub(super) use with_width;

/// Up to which bit the sign of a result goes: a signed type's to the end of the register.
pub(super) fn sign_bits(types: Types) -> u32 {
    if types.to.signed() { types.to_bits } else { types.to.bits() }
}

/// Whether every value of `from` is one of `to`.
fn contains(to: Type, from: Type) -> bool {
    match (to.signed(), from.signed()) {
        (true, true) | (false, false) => to.bits() >= from.bits(),
        (true, false) => to.bits() > from.bits(),
        (false, true) => false,
    }
}

fn resize(ty: Type, sign_bits: u32, types: Types) -> Option<Run> {
    let wide = types.from_bits == 64;
    with_integer!(ty, T => with_width!(sign_bits, types.to_bits, W, Out => {
        if wide { vector::<Resize<u64, T, W, Out>, 1>() } else { vector::<Resize<u32, T, W, Out>, 1>() }
    }))
}

fn saturate(types: Types) -> Option<Run> {
    let wide = types.from_bits == 64;
    with_integer!(types.from, S => with_integer!(types.to, D => {
        with_width!(sign_bits(types), types.to_bits, W, Out => {
            if wide { scalar::<Saturate<u64, S, D, W, Out>, 1>() } else { scalar::<Saturate<u32, S, D, W, Out>, 1>() }
        })
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
    } else if types.to.bits() <= types.from.bits() {
        resize(types.to, sign_bits(types), types)
    } else {
        resize(types.from, sign_bits(types), types)
    };
    match run {
        Some(run) => Ok(Form::new(run, Class::Convert, types.destination(), &[types.source()])),
        None => m.unsupported(),
    }
}
