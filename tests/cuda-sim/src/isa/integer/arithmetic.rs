//! add, sub, mul, mad, mul24, mad24, sad, div, rem, abs, neg, min, max, dp4a, dp2a, and the packed add, min, max.
//!
//! Arithmetic wraps (abs and neg of the least number are that number). What the ISA leaves open is as in the code that the
//! assembler emits: the quotient and the remainder of a division by zero have all bits set, for every width and sign; the
//! least number divided by -1 is itself, remainder 0; mul24 looks at the low 24 bits of its sources.

use super::Parts;
use crate::lanes::{Class, Form, Lane, Run};
use crate::ptx::ast::Type::{self, *};
use crate::{lanes, typed_lanes};

pub(super) fn form(parts: &Parts) -> Option<Form> {
    let binary = |ty: Type, run: Run| Form::new(run, Class::Integer, ty, &[ty, ty]);
    let ternary = |ty: Type, run: Run| Form::new(run, Class::Integer, ty, &[ty, ty, ty]);
    Some(match (parts.opcode, &parts.others[..], &parts.types[..]) {
        ("add", [], &[ty]) => binary(ty, add(ty)?),
        ("sub", [], &[ty]) => binary(ty, sub(ty)?),
        ("add", ["sat"], [S32]) => binary(S32, add_sat()),
        ("sub", ["sat"], [S32]) => binary(S32, sub_sat()),
        ("mul", ["lo"], &[ty]) => binary(ty, mul_lo(ty)?),
        ("mul", ["hi"], &[ty]) => binary(ty, mul_hi(ty)?),
        ("mul", ["wide"], &[ty]) => Form::new(mul_wide(ty)?, Class::Integer, doubled(ty)?, &[ty, ty]),
        ("mad", ["lo"], &[ty]) => ternary(ty, mad_lo(ty)?),
        ("mad", ["hi"], &[ty]) => ternary(ty, mad_hi(ty)?),
        ("mad", ["hi", "sat"], [S32]) => ternary(S32, mad_hi_sat()),
        ("mad", ["wide"], &[ty]) => {
            let wide = doubled(ty)?;
            Form::new(mad_wide(ty)?, Class::Integer, wide, &[ty, ty, wide])
        }
        ("mul24", ["lo"], [U32]) => binary(U32, mul24_lo_u32()),
        ("mul24", ["lo"], [S32]) => binary(S32, mul24_lo_s32()),
        ("mul24", ["hi"], [U32]) => binary(U32, mul24_hi_u32()),
        ("mul24", ["hi"], [S32]) => binary(S32, mul24_hi_s32()),
        ("mad24", ["lo"], [U32]) => ternary(U32, mad24_lo_u32()),
        ("mad24", ["lo"], [S32]) => ternary(S32, mad24_lo_s32()),
        ("mad24", ["hi"], [U32]) => ternary(U32, mad24_hi_u32()),
        ("mad24", ["hi"], [S32]) => ternary(S32, mad24_hi_s32()),
        ("mad24", ["hi", "sat"], [S32]) => ternary(S32, mad24_hi_sat()),
        ("sad", [], &[ty]) => ternary(ty, sad(ty)?),
        ("div", [], &[ty]) => binary(ty, div(ty)?),
        ("rem", [], &[ty]) => binary(ty, rem(ty)?),
        ("abs", [], &[ty]) => Form::new(abs(ty)?, Class::Integer, ty, &[ty]),
        ("neg", [], &[ty]) => Form::new(neg(ty)?, Class::Integer, ty, &[ty]),
        ("min", [], &[ty]) => binary(ty, min(ty)?),
        ("max", [], &[ty]) => binary(ty, max(ty)?),
        ("min", ["relu"], [S32]) => binary(S32, min_relu()),
        ("max", ["relu"], [S32]) => binary(S32, max_relu()),
        ("add", ["u16x2" | "s16x2"], []) => binary(B32, add_x2()),
        ("min", ["u16x2"], []) => binary(B32, min_u16x2()),
        ("max", ["u16x2"], []) => binary(B32, max_u16x2()),
        ("min", ["s16x2"], []) => binary(B32, min_s16x2()),
        ("max", ["s16x2"], []) => binary(B32, max_s16x2()),
        ("min", ["relu", "s16x2"] | ["s16x2", "relu"], []) => binary(B32, min_relu_s16x2()),
        ("max", ["relu", "s16x2"] | ["s16x2", "relu"], []) => binary(B32, max_relu_s16x2()),
        ("dp4a", [], &[a @ (U32 | S32), b @ (U32 | S32)]) => dot(dp4a(a, b), a, b),
        ("dp2a", ["lo"], &[a @ (U32 | S32), b @ (U32 | S32)]) => dot(dp2a_lo(a, b), a, b),
        ("dp2a", ["hi"], &[a @ (U32 | S32), b @ (U32 | S32)]) => dot(dp2a_hi(a, b), a, b),
        _ => return None,
    })
}

/// The type of a `.wide` result.
fn doubled(ty: Type) -> Option<Type> {
    Some(match ty {
        U16 => U32,
        S16 => S32,
        U32 => U64,
        S32 => S64,
        _ => return None,
    })
}

/// The product in double width, and its halves.
trait Multiply: Lane {
    type Wide: Lane;
    fn wide(self, by: Self) -> Self::Wide;
    fn high(self, by: Self) -> Self;
}

macro_rules! multiply {
    ($($t:ty => $wide:ty),*) => {$(
        impl Multiply for $t {
            type Wide = $wide;
            #[inline(always)]
            fn wide(self, by: $t) -> $wide {
                (self as $wide).wrapping_mul(by as $wide)
            }
            #[inline(always)]
            fn high(self, by: $t) -> $t {
                (self.wide(by) >> <$t>::BITS) as $t
            }
        }
    )*};
}
multiply!(u16 => u32, i16 => i32, u32 => u64, i32 => i64);

macro_rules! multiply_64 {
    ($($t:ty as $double:ty),*) => {$(
        impl Multiply for $t {
            // There is no `.wide.u64`.
            type Wide = $t;
            #[inline(always)]
            fn wide(self, by: $t) -> $t {
                self.wrapping_mul(by)
            }
            #[inline(always)]
            fn high(self, by: $t) -> $t {
                ((self as $double * by as $double) >> 64) as $t
            }
        }
    )*};
}
multiply_64!(u64 as u128, i64 as i128);

fn add(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [U16: u16, S16: u16, U32: u32, S32: u32, U64: u64, S64: u64], (d: T; a: T, b: T) {
        d = a.wrapping_add(b);
    })
}

fn sub(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [U16: u16, S16: u16, U32: u32, S32: u32, U64: u64, S64: u64], (d: T; a: T, b: T) {
        d = a.wrapping_sub(b);
    })
}

fn mul_lo(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [U16: u16, S16: u16, U32: u32, S32: u32, U64: u64, S64: u64], (d: T; a: T, b: T) {
        d = a.wrapping_mul(b);
    })
}

fn mul_hi(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [U16: u16, S16: i16, U32: u32, S32: i32, U64: u64, S64: i64], (d: T; a: T, b: T) {
        d = a.high(b);
    })
}

fn mul_wide(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [U16: u16, S16: i16, U32: u32, S32: i32], (d: <T as Multiply>::Wide; a: T, b: T) {
        d = a.wide(b);
    })
}

fn mad_lo(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [U16: u16, S16: u16, U32: u32, S32: u32, U64: u64, S64: u64], (d: T; a: T, b: T, c: T) {
        d = a.wrapping_mul(b).wrapping_add(c);
    })
}

fn mad_hi(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [U16: u16, S16: i16, U32: u32, S32: i32, U64: u64, S64: i64], (d: T; a: T, b: T, c: T) {
        d = a.high(b).wrapping_add(c);
    })
}

fn mad_wide(ty: Type) -> Option<Run> {
    typed_lanes!(
        ty,
        [U16: u16, S16: i16, U32: u32, S32: i32],
        (d: <T as Multiply>::Wide; a: T, b: T, c: <T as Multiply>::Wide) { d = a.wide(b).wrapping_add(c); }
    )
}

fn sad(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [U16: u16, S16: i16, U32: u32, S32: i32, U64: u64, S64: i64], (d: T; a: T, b: T, c: T) {
        d = c.wrapping_add(if a < b { b.wrapping_sub(a) } else { a.wrapping_sub(b) });
    })
}

fn div(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [U16: u16, S16: i16, U32: u32, S32: i32, U64: u64, S64: i64], (d: T; a: T, b: T) {
        d = if b == 0 { !0 } else { a.wrapping_div(b) };
    })
}

fn rem(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [U16: u16, S16: i16, U32: u32, S32: i32, U64: u64, S64: i64], (d: T; a: T, b: T) {
        d = if b == 0 { !0 } else { a.wrapping_rem(b) };
    })
}

fn abs(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [S16: i16, S32: i32, S64: i64], (d: T; a: T) { d = a.wrapping_abs(); })
}

fn neg(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [S16: i16, S32: i32, S64: i64], (d: T; a: T) { d = a.wrapping_neg(); })
}

fn min(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [U16: u16, S16: i16, U32: u32, S32: i32, U64: u64, S64: i64], (d: T; a: T, b: T) {
        d = if a < b { a } else { b };
    })
}

fn max(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [U16: u16, S16: i16, U32: u32, S32: i32, U64: u64, S64: i64], (d: T; a: T, b: T) {
        d = if a > b { a } else { b };
    })
}

/// The low 24 bits, sign-extended.
#[inline(always)]
fn signed24(x: i32) -> i64 {
    (x << 8 >> 8) as i64
}

/// The low 24 bits.
#[inline(always)]
fn unsigned24(x: u32) -> u64 {
    (x & 0xff_ffff) as u64
}

lanes! {
    fn add_sat(d: i32; a: i32, b: i32) { d = a.saturating_add(b); }
    fn sub_sat(d: i32; a: i32, b: i32) { d = a.saturating_sub(b); }
    fn mad_hi_sat(d: i32; a: i32, b: i32, c: i32) { d = a.high(b).saturating_add(c); }

    fn mul24_lo_u32(d: u32; a: u32, b: u32) { d = (unsigned24(a) * unsigned24(b)) as u32; }
    fn mul24_lo_s32(d: i32; a: i32, b: i32) { d = (signed24(a) * signed24(b)) as i32; }
    fn mul24_hi_u32(d: u32; a: u32, b: u32) { d = ((unsigned24(a) * unsigned24(b)) >> 16) as u32; }
    fn mul24_hi_s32(d: i32; a: i32, b: i32) { d = ((signed24(a) * signed24(b)) >> 16) as i32; }
    fn mad24_lo_u32(d: u32; a: u32, b: u32, c: u32) { d = ((unsigned24(a) * unsigned24(b)) as u32).wrapping_add(c); }
    fn mad24_lo_s32(d: i32; a: i32, b: i32, c: i32) { d = ((signed24(a) * signed24(b)) as i32).wrapping_add(c); }
    fn mad24_hi_u32(d: u32; a: u32, b: u32, c: u32) {
        d = (((unsigned24(a) * unsigned24(b)) >> 16) as u32).wrapping_add(c);
    }
    fn mad24_hi_s32(d: i32; a: i32, b: i32, c: i32) {
        d = (((signed24(a) * signed24(b)) >> 16) as i32).wrapping_add(c);
    }
    fn mad24_hi_sat(d: i32; a: i32, b: i32, c: i32) {
        d = (((signed24(a) * signed24(b)) >> 16) as i32).saturating_add(c);
    }

    fn min_relu(d: i32; a: i32, b: i32) { d = a.min(b).max(0); }
    fn max_relu(d: i32; a: i32, b: i32) { d = a.max(b).max(0); }
    fn add_x2(d: u32; a: u32, b: u32) {
        d = join(low(a).wrapping_add(low(b)), high(a).wrapping_add(high(b)));
    }
    fn min_u16x2(d: u32; a: u32, b: u32) {
        d = join((low(a) as u16).min(low(b) as u16) as i16, (high(a) as u16).min(high(b) as u16) as i16);
    }
    fn max_u16x2(d: u32; a: u32, b: u32) {
        d = join((low(a) as u16).max(low(b) as u16) as i16, (high(a) as u16).max(high(b) as u16) as i16);
    }
    fn min_s16x2(d: u32; a: u32, b: u32) { d = join(low(a).min(low(b)), high(a).min(high(b))); }
    fn max_s16x2(d: u32; a: u32, b: u32) { d = join(low(a).max(low(b)), high(a).max(high(b))); }
    fn min_relu_s16x2(d: u32; a: u32, b: u32) {
        d = join(low(a).min(low(b)).max(0), high(a).min(high(b)).max(0));
    }
    fn max_relu_s16x2(d: u32; a: u32, b: u32) {
        d = join(low(a).max(low(b)).max(0), high(a).max(high(b)).max(0));
    }
}

#[inline(always)]
fn low(x: u32) -> i16 {
    x as i16
}

#[inline(always)]
fn high(x: u32) -> i16 {
    (x >> 16) as i16
}

#[inline(always)]
fn join(low: i16, high: i16) -> u32 {
    low as u16 as u32 | (high as u16 as u32) << 16
}

/// A dot product: signed if one of its sources is.
fn dot(run: Run, a: Type, b: Type) -> Form {
    let ty = if a == U32 && b == U32 { U32 } else { S32 };
    Form::new(run, Class::Integer, ty, &[B32, B32, ty])
}

/// Byte `n`, extended as the type says.
#[inline(always)]
fn byte<const SIGNED: bool>(x: u32, n: u32) -> i32 {
    let x = x >> (8 * n);
    if SIGNED { x as i8 as i32 } else { x as u8 as i32 }
}

/// Half-word `n`, extended as the type says.
#[inline(always)]
fn half<const SIGNED: bool>(x: u32, n: u32) -> i32 {
    let x = x >> (16 * n);
    if SIGNED { x as i16 as i32 } else { x as u16 as i32 }
}

macro_rules! dots {
    ($($name:ident: |$a:ident, $b:ident| $sum:expr;)*) => {$(
        fn $name(a: Type, b: Type) -> Run {
            dots!(@variants $a $b $sum; a, b; uu false false, us false true, su true false, ss true true)
        }
    )*};
    (@variants $a:ident $b:ident $sum:expr; $ta:ident, $tb:ident; $($name:ident $sa:literal $sb:literal),*) => {{
        $(fn $name() -> Run {
            #[allow(dead_code)]
            const A: bool = $sa;
            #[allow(dead_code)]
            const B: bool = $sb;
            lanes! { fn run(d: i32; $a: u32, $b: u32, c: i32) { d = c.wrapping_add($sum); } }
            run()
        })*
        match ($ta.signed(), $tb.signed()) {
            $(($sa, $sb) => $name(),)*
        }
    }};
}
dots! {
    dp4a: |a, b| byte::<A>(a, 0) * byte::<B>(b, 0) + byte::<A>(a, 1) * byte::<B>(b, 1)
        + byte::<A>(a, 2) * byte::<B>(b, 2) + byte::<A>(a, 3) * byte::<B>(b, 3);
    dp2a_lo: |a, b| half::<A>(a, 0) * byte::<B>(b, 0) + half::<A>(a, 1) * byte::<B>(b, 1);
    dp2a_hi: |a, b| half::<A>(a, 0) * byte::<B>(b, 2) + half::<A>(a, 1) * byte::<B>(b, 3);
}
