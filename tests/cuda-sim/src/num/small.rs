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
    let inexact = rest.abs() > 0.0 && bits & 1 == 0;
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
    let inexact = rest.abs() > 0.0 && bits & 1 == 0;
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
        let inexact = rest.abs() > 0.0 && bits & 1 == 0;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::Round;
    use crate::num::format::{F32, F64, convert};
    use crate::num::reference::Patterns;

    fn all_widened<F: Small>() {
        for bits in 0..2 * F::SIGN {
            let expected = f32::from_bits(convert::<F, F32>(bits, Round::Zero) as u32);
            let got = F::widen(bits as u32);
            assert!(got.is_nan() && expected.is_nan() || got.to_bits() == expected.to_bits(), "{bits:#x}: {got}");
            assert_eq!(F::narrow(got) as u64, if got.is_nan() { F::NAN } else { bits }, "{bits:#x} and back");
        }
    }

    /// Around every number of the format, every tie between two, and random ones.
    fn narrowed<F: Small>() {
        let check = |x: f32| {
            let expected = convert::<F32, F>(x.to_bits() as u64, Round::Nearest);
            let expected =
                if !F::INFINITY && x.is_infinite() { F::MAX | if x < 0.0 { F::SIGN } else { 0 } } else { expected };
            assert_eq!(F::narrow(x) as u64, expected, "{x:e} {:#x}", x.to_bits());
        };
        for bits in 0..2 * F::SIGN {
            let x = F::widen(bits as u32).to_bits();
            let tie = x.wrapping_add(1 << (22 - F::FRACTION));
            for x in [x, x.wrapping_sub(1), x.wrapping_add(1), tie, tie.wrapping_sub(1), tie.wrapping_add(1)] {
                check(f32::from_bits(x));
            }
        }
        // The ties between subnormals.
        let unit = F::widen(1);
        for n in 0..64 {
            let x = unit * 0.5 * n as f32;
            check(x);
            check(-x);
            check(f32::from_bits(x.to_bits() + 1));
        }
        let mut patterns = Patterns::new(8);
        for _ in 0..200_000 {
            check(f32::from_bits(patterns.next::<F32>() as u32));
        }
    }

    #[test]
    fn all_values_of_all_formats() {
        all_widened::<F16>();
        all_widened::<Bf16>();
        all_widened::<E4m3>();
        all_widened::<E5m2>();
        narrowed::<F16>();
        narrowed::<Bf16>();
        narrowed::<E4m3>();
        narrowed::<E5m2>();
    }

    #[test]
    fn agrees_with_the_half_crate() {
        for bits in 0..=u16::MAX {
            let (a, b) = (half::f16::from_bits(bits), half::bf16::from_bits(bits));
            assert!(a.is_nan() || F16::widen(bits as u32) == a.to_f32());
            assert!(b.is_nan() || Bf16::widen(bits as u32) == b.to_f32());
        }
        let mut patterns = Patterns::new(9);
        for _ in 0..200_000 {
            let x = f32::from_bits(patterns.next::<F32>() as u32);
            if !x.is_nan() {
                assert_eq!(F16::narrow(x), half::f16::from_f32(x).to_bits() as u32, "{x:e}");
                assert_eq!(Bf16::narrow(x), half::bf16::from_f32(x).to_bits() as u32, "{x:e}");
            }
        }
    }

    #[test]
    fn known_8_bit_values() {
        // The open compute project's table: 448 and 57344 are the largest, 2^-9 and 2^-16 the smallest.
        assert_eq!(E4m3::widen(0x7e), 448.0);
        assert_eq!(E4m3::widen(0x01), 2f32.powi(-9));
        assert!(E4m3::widen(0xff).is_nan());
        assert_eq!(E5m2::widen(0x7b), 57344.0);
        assert_eq!(E5m2::widen(0x81), -(2f32.powi(-16)));
        assert_eq!(E5m2::widen(0xfc), f32::NEG_INFINITY);
        assert_eq!(E4m3::narrow(satfinite::<E4m3>(1e9)), 0x7e);
        assert_eq!(E5m2::narrow(satfinite::<E5m2>(f32::NEG_INFINITY)), 0xfb);
        assert_eq!(E5m2::narrow(f32::NAN), 0x7f);
    }

    #[test]
    fn rounding_to_odd_makes_the_second_rounding_right() {
        let mut patterns = Patterns::new(10);
        for n in 0..200_000 {
            let mut bits = patterns.next::<F64>();
            if n % 2 == 0 {
                // Near a tie of f16 or bf16, off by the last place of f64.
                let one = f32::from_bits(patterns.next::<F32>() as u32 & 0xffff_f000) as f64;
                bits = one.to_bits().wrapping_add((patterns.random() % 3).wrapping_sub(1));
            }
            let x = odd(f64::from_bits(bits));
            assert_eq!(F16::narrow(x) as u64, convert::<F64, F16>(bits, Round::Nearest), "{bits:#x}");
            assert_eq!(Bf16::narrow(x) as u64, convert::<F64, Bf16>(bits, Round::Nearest), "{bits:#x}");
        }
    }

    #[test]
    fn clamping() {
        assert_eq!(relu(-0.0).to_bits(), 0);
        assert_eq!(relu(-1e-40).to_bits(), 0);
        assert!(relu(f32::NAN).is_nan() && satfinite::<F16>(f32::NAN).is_nan());
        assert_eq!(satfinite::<F16>(f32::INFINITY), 65504.0);
        assert_eq!(satfinite::<F16>(-65519.0), -65504.0);
    }
}
