//! Conversions of two values at once, those to tf32 and to 8-bit floating-point types, and `.relu` and `.satfinite`.

use std::marker::PhantomData;

use super::super::float::operation::{Modifiers, Operation, Rounding, Rz, scalar, vector};
use super::Types;
use super::float::{Rn, Wide};
use crate::lanes::{Class, Form, Run, Unsupported};
use crate::num::Round;
use crate::num::format::{Bf16, E4m3, E5m2, F16, Format, Tf32};
use crate::num::native::flush;
use crate::num::small::{self, Small, relu};
use crate::ptx::ast::Type;

/// The modifiers `.relu` and `.satfinite` as bits.
const PLAIN: u8 = 0;
const RELU: u8 = 1;
const SATFINITE: u8 = 2;
const BOTH: u8 = RELU | SATFINITE;

/// Rounds an f32. What the modifiers clamp to are numbers of the format, so that clamping may come first.
#[inline(always)]
fn convert<F: Small, R: Rounding, const END: u8>(x: f32) -> u32 {
    let x = if END & RELU != 0 { relu(x) } else { x };
    let x = if END & SATFINITE != 0 { small::satfinite::<F>(x) } else { x };
    x.narrow::<F, R>()
}

/// One f32.
struct One<F, R, const FTZ: bool, const END: u8>(PhantomData<(F, R)>);

impl<F: Small + 'static, R: Rounding, const FTZ: bool, const END: u8> Operation<1> for One<F, R, FTZ, END> {
    type In = f32;
    type Out = u32;
    #[inline(always)]
    fn apply([a]: [f32; 1]) -> u32 {
        convert::<F, R, END>(flush::<FTZ>(a))
    }
}

/// Two f32, the first into the upper half.
struct Two<F, R, const END: u8>(PhantomData<(F, R)>);

impl<F: Small + 'static, R: Rounding, const END: u8> Operation<2> for Two<F, R, END> {
    type In = f32;
    type Out = u32;
    #[inline(always)]
    fn apply([a, b]: [f32; 2]) -> u32 {
        let bits = F::EXPONENT + F::FRACTION + 1;
        convert::<F, R, END>(a) << bits | convert::<F, R, END>(b)
    }
}

/// The two values of a register in one format to those in another, half for half.
struct Halves<S, D, const END: u8>(PhantomData<(S, D)>);

impl<S: Small + 'static, D: Small + 'static, const END: u8> Operation<1> for Halves<S, D, END> {
    type In = u32;
    type Out = u32;
    #[inline(always)]
    fn apply([a]: [u32; 1]) -> u32 {
        let (from, to) = (S::EXPONENT + S::FRACTION + 1, D::EXPONENT + D::FRACTION + 1);
        let mask = (1 << from) - 1;
        let upper = convert::<D, Rn, END>(S::widen(a >> from & mask));
        upper << to | convert::<D, Rn, END>(S::widen(a & mask))
    }
}

/// f32 to tf32.
struct ToTf32<const MODE: u8, const END: u8>;
const AWAY: u8 = 0;
const NEAREST: u8 = 1;
const ZERO: u8 = 2;

impl<const MODE: u8, const END: u8> Operation<1> for ToTf32<MODE, END> {
    type In = f32;
    type Out = u32;
    #[inline(always)]
    fn apply([a]: [f32; 1]) -> u32 {
        let max = f32::from_bits((Tf32::MAX << 13) as u32);
        let x = if END & RELU != 0 { relu(a) } else { a };
        let x = if END & SATFINITE != 0 && x > max { max } else { x };
        let x = if END & SATFINITE != 0 && x < -max { -max } else { x };
        match MODE {
            AWAY => small::tf32_away(x),
            NEAREST => small::tf32_nearest(x),
            _ => small::tf32_zero(x),
        }
    }
}

/// The four combinations of `.relu` and `.satfinite`.
macro_rules! with_end {
    ($relu:expr, $satfinite:expr, $END:ident => $body:expr) => {
        match ($relu, $satfinite) {
            (false, false) => {
                const $END: u8 = PLAIN;
                $body
            }
            (true, false) => {
                const $END: u8 = RELU;
                $body
            }
            (false, true) => {
                const $END: u8 = SATFINITE;
                $body
            }
            (true, true) => {
                const $END: u8 = BOTH;
                $body
            }
        }
    };
}

/// The form of `cvt.rn.relu.f16.f32` and its like: one f32 to f16 or bf16 with `.relu` or `.satfinite`.
pub(super) fn modified(
    m: &mut Modifiers<'_>,
    types: Types,
    ftz: bool,
    relu: bool,
    satfinite: bool,
) -> Result<Form, Unsupported> {
    if types.from != Type::F32 || ftz {
        return m.unsupported();
    }
    let zero = match m.need_round()? {
        Round::Nearest => false,
        Round::Zero => true,
        _ => return m.unsupported(),
    };
    let run = with_end!(relu, satfinite, END => match (types.to, zero) {
        (Type::F16, false) => vector::<One<F16, Rn, false, END>, 1>(),
        (Type::F16, true) => scalar::<One<F16, Rz, false, END>, 1>(),
        (Type::Bf16, false) => vector::<One<Bf16, Rn, false, END>, 1>(),
        (Type::Bf16, true) => scalar::<One<Bf16, Rz, false, END>, 1>(),
        _ => return m.unsupported(),
    });
    Ok(Form::new(run, Class::Convert, types.destination(), &[types.source()]))
}

/// The form of a conversion to tf32, or of two values at once.
pub(super) fn form(m: &mut Modifiers<'_>, types: Types) -> Result<Form, Unsupported> {
    use Type::{Bf16x2, E4m3x2, E5m2x2, F16x2, F32};
    let (relu, satfinite) = (m.take("relu"), m.take("satfinite"));
    if types.to == Type::Tf32 && types.from == F32 {
        let away = m.take("rna");
        let run: Run = if away && !relu {
            if satfinite { vector::<ToTf32<AWAY, SATFINITE>, 1>() } else { vector::<ToTf32<AWAY, PLAIN>, 1>() }
        } else {
            with_end!(relu, satfinite, END => match m.need_round()? {
                Round::Nearest => vector::<ToTf32<NEAREST, END>, 1>(),
                Round::Zero => vector::<ToTf32<ZERO, END>, 1>(),
                _ => return m.unsupported(),
            })
        };
        return Ok(Form::new(run, Class::Convert, types.to, &[F32]));
    }
    let round = m.need_round()?;
    // To 8 bits there is `.rn.satfinite` only.
    let (run, inputs): (Run, &[Type]) = match (types.to, types.from, round) {
        (F16x2, F32, Round::Nearest) => {
            (with_end!(relu, satfinite, END => vector::<Two<F16, Rn, END>, 2>()), &[F32, F32])
        }
        (F16x2, F32, Round::Zero) => (with_end!(relu, satfinite, END => scalar::<Two<F16, Rz, END>, 2>()), &[F32, F32]),
        (Bf16x2, F32, Round::Nearest) => {
            (with_end!(relu, satfinite, END => vector::<Two<Bf16, Rn, END>, 2>()), &[F32, F32])
        }
        (Bf16x2, F32, Round::Zero) => {
            (with_end!(relu, satfinite, END => scalar::<Two<Bf16, Rz, END>, 2>()), &[F32, F32])
        }
        (E4m3x2, F32, Round::Nearest) if satfinite && !relu => (vector::<Two<E4m3, Rn, SATFINITE>, 2>(), &[F32, F32]),
        (E4m3x2, F32, Round::Nearest) if satfinite => (vector::<Two<E4m3, Rn, BOTH>, 2>(), &[F32, F32]),
        (E5m2x2, F32, Round::Nearest) if satfinite && !relu => (vector::<Two<E5m2, Rn, SATFINITE>, 2>(), &[F32, F32]),
        (E5m2x2, F32, Round::Nearest) if satfinite => (vector::<Two<E5m2, Rn, BOTH>, 2>(), &[F32, F32]),
        (E4m3x2, F16x2, Round::Nearest) if satfinite && !relu => {
            (vector::<Halves<F16, E4m3, SATFINITE>, 1>(), &[F16x2])
        }
        (E4m3x2, F16x2, Round::Nearest) if satfinite => (vector::<Halves<F16, E4m3, BOTH>, 1>(), &[F16x2]),
        (E5m2x2, F16x2, Round::Nearest) if satfinite && !relu => {
            (vector::<Halves<F16, E5m2, SATFINITE>, 1>(), &[F16x2])
        }
        (E5m2x2, F16x2, Round::Nearest) if satfinite => (vector::<Halves<F16, E5m2, BOTH>, 1>(), &[F16x2]),
        (F16x2, E4m3x2, Round::Nearest) if !satfinite && !relu => (vector::<Halves<E4m3, F16, PLAIN>, 1>(), &[E4m3x2]),
        (F16x2, E4m3x2, Round::Nearest) if !satfinite => (vector::<Halves<E4m3, F16, RELU>, 1>(), &[E4m3x2]),
        (F16x2, E5m2x2, Round::Nearest) if !satfinite && !relu => (vector::<Halves<E5m2, F16, PLAIN>, 1>(), &[E5m2x2]),
        (F16x2, E5m2x2, Round::Nearest) if !satfinite => (vector::<Halves<E5m2, F16, RELU>, 1>(), &[E5m2x2]),
        _ => return m.unsupported(),
    };
    Ok(Form::new(run, Class::Convert, types.to, inputs))
}

/// `cvt.pack.sat`: two integers clamped to `BITS` bits, above them the low bits of `c`.
struct Pack<const BITS: u32, const SIGNED: bool>;

#[inline(always)]
fn clamp<const BITS: u32, const SIGNED: bool>(x: u32) -> u32 {
    let (low, high) = if SIGNED { (-(1 << (BITS - 1)), (1 << (BITS - 1)) - 1) } else { (0, (1 << BITS) - 1) };
    (x as i32).clamp(low, high) as u32 & ((1 << BITS) - 1)
}

impl<const BITS: u32, const SIGNED: bool> Operation<2> for Pack<BITS, SIGNED> {
    type In = u32;
    type Out = u32;
    #[inline(always)]
    fn apply([a, b]: [u32; 2]) -> u32 {
        clamp::<BITS, SIGNED>(a) << BITS | clamp::<BITS, SIGNED>(b)
    }
}

impl<const BITS: u32, const SIGNED: bool> Operation<3> for Pack<BITS, SIGNED> {
    type In = u32;
    type Out = u32;
    #[inline(always)]
    fn apply([a, b, c]: [u32; 3]) -> u32 {
        c << (2 * BITS) | <Self as Operation<2>>::apply([a, b])
    }
}

/// The form of `cvt.pack`.
pub(super) fn integers(mut m: Modifiers<'_>) -> Result<Form, Unsupported> {
    use Type::{B32, S32, U32};
    if !m.take("sat") {
        return m.unsupported();
    }
    let short = m.take_one(&[
        ("u2", vector::<Pack<2, false>, 3>()),
        ("s2", vector::<Pack<2, true>, 3>()),
        ("u4", vector::<Pack<4, false>, 3>()),
        ("s4", vector::<Pack<4, true>, 3>()),
        ("u8", vector::<Pack<8, false>, 3>()),
        ("s8", vector::<Pack<8, true>, 3>()),
    ]);
    let (run, inputs): (Run, &[Type]) = match short {
        Some(run) if m.take("b32") => (run, &[S32, S32, B32]),
        Some(_) => return m.unsupported(),
        None if m.take("u16") => (vector::<Pack<16, false>, 2>(), &[S32, S32]),
        None if m.take("s16") => (vector::<Pack<16, true>, 2>(), &[S32, S32]),
        None => return m.unsupported(),
    };
    if !m.take("s32") {
        return m.unsupported();
    }
    m.done()?;
    Ok(Form::new(run, Class::Convert, U32, inputs))
}
