//! The formats below 32 bits (PTX ISA 5.2.3), branch-free for the loops over lanes: exact to f32, and back rounded to nearest.
//!
//! Arithmetic in f16 and bf16 is done in f32 or f64 and rounded back. That rounds once: a sum or product of f16 or bf16
//! values in f32, which has more than twice their digits and two (24 >= 2 * 11 + 2), rounds to the same number as the exact
//! one does (Figueroa, "When is double rounding innocuous?", 1995), and results that are subnormal are exact in f32. For fma,
//! whose exact sum has more digits, the wide result is rounded to odd first (Boldo and Melquiond, "Emulation of a FMA
//! and correctly rounded sums: proved algorithms using rounding to odd", 2008).

use super::format::{Bf16, E4m3, E5m2, F16, Format};
use super::native::{NAN32, is_nan};

/// A format of at most 16 bits.
pub trait Small: Format {
    /// The value in f32; a NaN is some NaN.
    fn widen(bits: u32) -> f32;
    /// Rounded to nearest; too large is infinite, or for a format without infinities (where `.satfinite` is mandatory) the
    /// largest number.
    fn narrow(x: f32) -> u32;
}

/// A format of 16 bits, which has arithmetic.
pub trait Half: Small {
    /// `a * b + c` with one rounding, as an f32 which [`Small::narrow`] rounds to the same number as the exact result.
    fn fma(a: f32, b: f32, c: f32) -> f32;
}

/// Moves exponent and fraction to f32's places and corrects the bias by a multiplication, which is right for subnormals.
#[inline(always)]
fn widen<F: Format>(bits: u32) -> f32 {
    let magnitude = bits & (F::SIGN as u32 - 1);
    let scale = f32::from_bits(((254 - F::BIAS) as u32) << 23);
    let number = f32::from_bits(magnitude << (23 - F::FRACTION)) * scale;
    let special = if F::INFINITY && magnitude == F::TOP as u32 { f32::INFINITY } else { f32::from_bits(NAN32) };
    let value = if magnitude > F::MAX as u32 { special } else { number };
    f32::from_bits(value.to_bits() | (bits & F::SIGN as u32) << (31 - F::EXPONENT - F::FRACTION))
}

/// Rounds to nearest, for formats with less exponent than f32.
#[inline(always)]
fn narrow<F: Format>(x: f32) -> u32 {
    let drop = 23 - F::FRACTION;
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Adding a number whose last place is that of the format's subnormals rounds there.
    let anchor = ((128 - F::BIAS) as u32 + drop) << 23;
    let subnormal = (f32::from_bits(magnitude) + f32::from_bits(anchor)).to_bits().wrapping_sub(anchor);
    let bias = ((127 - F::BIAS) as u32) << 23;
    let half = (1u32 << (drop - 1)) - 1 + (magnitude >> drop & 1);
    let normal = magnitude.wrapping_sub(bias).wrapping_add(half) >> drop;
    let number = if magnitude < ((128 - F::BIAS) as u32) << 23 { subnormal } else { normal };
    let largest = if F::INFINITY { F::TOP as u32 } else { F::MAX as u32 };
    // Rounding carries into the infinity by itself; beyond lies what the exponent cannot hold.
    let value = if number > largest || magnitude >= ((128 + F::BIAS + 1) as u32) << 23 { largest } else { number };
    let sign = (bits >> 31) << (F::EXPONENT + F::FRACTION);
    if magnitude > 0x7f80_0000 { F::NAN as u32 } else { value | sign }
}

/// Makes an inexact f32 odd: `rest` has the sign of what was rounded off, in the direction of the exact value.
#[inline(always)]
fn odd32(x: f32, rest: f32) -> f32 {
    let bits = x.to_bits();
    let outwards = (rest.to_bits() ^ bits) >> 31 == 0;
    let step = if outwards { 1 } else { u32::MAX };
    // The rest is a NaN where `x` is infinite or a NaN.
    let inexact = (rest > 0.0 || rest < 0.0) && bits & 1 == 0;
    f32::from_bits(if inexact { bits.wrapping_add(step) } else { bits })
}

/// f64 to f32, rounded to odd.
#[inline(always)]
pub fn odd(x: f64) -> f32 {
    let near = x as f32;
    let rest = x - near as f64;
    let bits = near.to_bits();
    let inward = near.abs() as f64 > x.abs();
    let step = if inward { u32::MAX } else { 1 };
    let inexact = (rest > 0.0 || rest < 0.0) && bits & 1 == 0;
    let moved = f32::from_bits(if inexact { bits.wrapping_add(step) } else { bits });
    if x.is_nan() { f32::from_bits(NAN32) } else { moved }
}

impl Small for F16 {
    #[inline(always)]
    fn widen(bits: u32) -> f32 {
        widen::<F16>(bits)
    }
    #[inline(always)]
    fn narrow(x: f32) -> u32 {
        narrow::<F16>(x)
    }
}

impl Half for F16 {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        // The product is exact: 22 bits of 2^-48 to 2^32. The rest of the sum is Knuth's.
        let product = a * b;
        let sum = product + c;
        let other = sum - product;
        let rest = (product - (sum - other)) + (c - other);
        odd32(sum, rest)
    }
}

impl Small for Bf16 {
    #[inline(always)]
    fn widen(bits: u32) -> f32 {
        f32::from_bits(bits << 16)
    }
    #[inline(always)]
    fn narrow(x: f32) -> u32 {
        let bits = x.to_bits();
        let near = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        if is_nan(x) { Bf16::NAN as u32 } else { near }
    }
}

impl Half for Bf16 {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        // The product is exact: 16 bits of 2^-266 to 2^256.
        let (product, c) = (a as f64 * b as f64, c as f64);
        let sum = product + c;
        let other = sum - product;
        let rest = (product - (sum - other)) + (c - other);
        let bits = sum.to_bits();
        let step = if (rest.to_bits() ^ bits) >> 63 == 0 { 1 } else { u64::MAX };
        let inexact = (rest > 0.0 || rest < 0.0) && bits & 1 == 0;
        odd(f64::from_bits(if inexact { bits.wrapping_add(step) } else { bits }))
    }
}

macro_rules! eight_bits {
    ($($t:ty),*) => {$(
        impl Small for $t {
            #[inline(always)]
            fn widen(bits: u32) -> f32 {
                widen::<$t>(bits)
            }
            #[inline(always)]
            fn narrow(x: f32) -> u32 {
                narrow::<$t>(x)
            }
        }
    )*};
}
eight_bits!(E4m3, E5m2);

/// `.satfinite`: at most the format's largest number in magnitude; a NaN stays one.
#[inline(always)]
pub fn satfinite<F: Small>(x: f32) -> f32 {
    let max = F::widen(F::MAX as u32);
    let x = if x > max { max } else { x };
    if x < -max { -max } else { x }
}

/// `.relu`: negative numbers and -0 become +0; a NaN stays one.
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

/// f32 to tf32, ties away from zero: the bits in their register, the 13 low ones zero.
#[inline(always)]
pub fn tf32_away(x: f32) -> u32 {
    let bits = x.to_bits().wrapping_add(0x1000) & 0xffff_e000;
    if is_nan(x) { NAN32 } else { bits }
}

/// f32 to tf32, ties to even.
#[inline(always)]
pub fn tf32_nearest(x: f32) -> u32 {
    let bits = x.to_bits();
    let near = bits.wrapping_add(0xfff + (bits >> 13 & 1)) & 0xffff_e000;
    if is_nan(x) { NAN32 } else { near }
}

/// f32 to tf32, towards zero.
#[inline(always)]
pub fn tf32_zero(x: f32) -> u32 {
    if is_nan(x) { NAN32 } else { x.to_bits() & 0xffff_e000 }
}
