//! Arithmetic rounded once in any mode, in integers (PTX ISA 9.7.3): the path for every mode but `.rn`, for which the
//! processor's own instructions give the same result faster.

use super::Round;
use super::format::{Exact, Format, Value, round, unpack};

/// A significand with its leading bit at 125, where a sum still has room for a carry. The value is not zero.
fn normal(value: Exact) -> Exact {
    let shift = value.significand.leading_zeros() as i32 - 2;
    Exact { exponent: value.exponent - shift, significand: value.significand << shift, ..value }
}

/// The sum of two numbers that are not zero and have less than 107 significant bits each: exact but for a sticky bit, which
/// arises only where so little cancels that many more bits are left than any format keeps.
fn sum(x: Exact, y: Exact, mode: Round) -> Exact {
    let (x, y) = (normal(x), normal(y));
    let (large, small) = if (x.exponent, x.significand) >= (y.exponent, y.significand) { (x, y) } else { (y, x) };
    let gap = (large.exponent - small.exponent) as u32;
    let (aligned, lost) = match gap {
        0..=127 => (small.significand >> gap, small.significand & ((1 << gap) - 1) != 0),
        _ => (0, true),
    };
    if large.negative == small.negative {
        return Exact { significand: large.significand + aligned, sticky: lost, ..large };
    }
    let significand = large.significand - aligned - lost as u128;
    if significand == 0 && !lost {
        return Exact::zero(mode == Round::Down);
    }
    Exact { significand, sticky: lost, ..large }
}

/// `a * b + c`, rounded once.
#[inline(never)]
pub fn fma<F: Format>(a: u64, b: u64, c: u64, mode: Round) -> u64 {
    use Value::{Finite, Infinite, Nan};
    let infinity = |negative| (if negative { F::SIGN } else { 0 }) | F::TOP;
    let negative = (a ^ b) & F::SIGN != 0;
    match (unpack::<F>(a), unpack::<F>(b), unpack::<F>(c)) {
        (Nan, _, _) | (_, Nan, _) | (_, _, Nan) => F::NAN,
        (Infinite { .. }, Finite(x), _) | (Finite(x), Infinite { .. }, _) if x.significand == 0 => F::NAN,
        (Infinite { .. }, _, Infinite { negative: c }) | (_, Infinite { .. }, Infinite { negative: c })
            if c != negative =>
        {
            F::NAN
        }
        (Infinite { .. }, _, _) | (_, Infinite { .. }, _) => infinity(negative),
        (_, _, Infinite { negative }) => infinity(negative),
        (Finite(x), Finite(y), Finite(z)) => {
            let product = Exact {
                negative,
                exponent: x.exponent + y.exponent,
                significand: x.significand * y.significand,
                sticky: false,
            };
            round::<F>(
                match (product.significand, z.significand) {
                    (0, 0) if negative == z.negative => z,
                    (0, 0) => Exact::zero(mode == Round::Down),
                    (0, _) => z,
                    (_, 0) => product,
                    _ => sum(product, z, mode),
                },
                mode,
            )
        }
    }
}

/// The one of a format.
fn one<F: Format>() -> u64 {
    (F::BIAS as u64) << F::FRACTION
}

/// `a + b`
pub fn add<F: Format>(a: u64, b: u64, mode: Round) -> u64 {
    fma::<F>(a, one::<F>(), b, mode)
}

/// `a * b`
pub fn mul<F: Format>(a: u64, b: u64, mode: Round) -> u64 {
    // A zero of the product's own sign changes nothing.
    fma::<F>(a, b, (a ^ b) & F::SIGN, mode)
}

/// `a / b`
#[inline(never)]
pub fn div<F: Format>(a: u64, b: u64, mode: Round) -> u64 {
    use Value::{Finite, Infinite, Nan};
    let sign = (a ^ b) & F::SIGN;
    match (unpack::<F>(a), unpack::<F>(b)) {
        (Nan, _) | (_, Nan) | (Infinite { .. }, Infinite { .. }) => F::NAN,
        (Infinite { .. }, _) => sign | F::TOP,
        (_, Infinite { .. }) => sign,
        (Finite(x), Finite(y)) => match (x.significand, y.significand) {
            (0, 0) => F::NAN,
            (0, _) => sign,
            (_, 0) => sign | F::TOP,
            _ => {
                // More than 70 bits of quotient whatever the divisor: it has at most 53.
                let (x, negative) = (normal(x), sign != 0);
                let exponent = x.exponent - y.exponent;
                let significand = x.significand / y.significand;
                let sticky = x.significand % y.significand != 0;
                round::<F>(Exact { negative, exponent, significand, sticky }, mode)
            }
        },
    }
}

/// The square root.
#[inline(never)]
pub fn sqrt<F: Format>(a: u64, mode: Round) -> u64 {
    match unpack::<F>(a) {
        Value::Nan | Value::Infinite { negative: true } => F::NAN,
        Value::Infinite { negative: false } => a,
        Value::Finite(x) if x.significand == 0 => a,
        Value::Finite(x) if x.negative => F::NAN,
        Value::Finite(x) => {
            let mut x = normal(x);
            if x.exponent % 2 != 0 {
                x = Exact { exponent: x.exponent - 1, significand: x.significand << 1, ..x };
            }
            let root = x.significand.isqrt();
            let sticky = root * root != x.significand;
            round::<F>(Exact { negative: false, exponent: x.exponent / 2, significand: root, sticky }, mode)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::format::{Bf16, E4m3, E5m2, F16, F32, F64, Tf32, convert};
    use crate::num::reference::{self, Patterns, finite};

    const MODES: [Round; 5] = [Round::Nearest, Round::Away, Round::Zero, Round::Down, Round::Up];

    fn all_operations<F: Format>(count: usize) {
        let mut patterns = Patterns::new(F::TOP);
        for n in 0..count {
            let [a, b, mut c] = std::array::from_fn(|_| patterns.next::<F>());
            if n % 4 == 0 {
                // The negated product: what is left after cancellation.
                c = mul::<F>(a, b, Round::Nearest) ^ F::SIGN;
            }
            if ![a, b, c].iter().all(|&x| finite::<F>(x)) {
                continue;
            }
            let zero = |x: u64| x & !F::SIGN == 0;
            for mode in MODES {
                let text = || format!("{a:#x} {b:#x} {c:#x} {mode:?}");
                if let Some(expected) = reference::fma::<F>(a, b, c, mode) {
                    assert_eq!(fma::<F>(a, b, c, mode), expected, "fma {}", text());
                }
                if let Some(expected) = reference::fma::<F>(a, one::<F>(), b, mode) {
                    assert_eq!(add::<F>(a, b, mode), expected, "add {}", text());
                }
                if let Some(expected) = reference::fma::<F>(a, b, 0, mode) {
                    assert_eq!(mul::<F>(a, b, mode), expected, "mul {}", text());
                }
                if !zero(a) && !zero(b) {
                    assert_eq!(div::<F>(a, b, mode), reference::div::<F>(a, b, mode), "div {}", text());
                }
                if !zero(a) {
                    let a = a & !F::SIGN;
                    assert_eq!(sqrt::<F>(a, mode), reference::sqrt::<F>(a, mode), "sqrt {}", text());
                }
            }
        }
    }

    #[test]
    fn f16_by_definition() {
        all_operations::<F16>(4000);
    }

    #[test]
    fn bf16_by_definition() {
        all_operations::<Bf16>(3000);
    }

    #[test]
    fn f32_by_definition() {
        all_operations::<F32>(4000);
    }

    #[test]
    fn f64_by_definition() {
        all_operations::<F64>(3000);
    }

    #[test]
    fn special_values() {
        const INF: u64 = 0x7f80_0000;
        const ONE: u64 = 0x3f80_0000;
        const NEGATIVE: u64 = 1 << 31;
        let n = Round::Nearest;
        assert_eq!(fma::<F32>(INF, 0, ONE, n), F32::NAN);
        assert_eq!(fma::<F32>(0, INF | NEGATIVE, ONE, n), F32::NAN);
        assert_eq!(fma::<F32>(INF, ONE, INF | NEGATIVE, n), F32::NAN);
        assert_eq!(fma::<F32>(INF, ONE | NEGATIVE, ONE, n), INF | NEGATIVE);
        assert_eq!(fma::<F32>(ONE, ONE, INF | NEGATIVE, n), INF | NEGATIVE);
        assert_eq!(fma::<F32>(0x7fc0_0000, ONE, ONE, n), F32::NAN);
        for mode in MODES {
            let zero = if mode == Round::Down { NEGATIVE } else { 0 };
            assert_eq!(add::<F32>(ONE, ONE | NEGATIVE, mode), zero, "x - x in {mode:?}");
            assert_eq!(add::<F32>(0, NEGATIVE, mode), zero, "0 - 0 in {mode:?}");
            assert_eq!(add::<F32>(NEGATIVE, NEGATIVE, mode), NEGATIVE);
            assert_eq!(mul::<F32>(0, ONE | NEGATIVE, mode), NEGATIVE);
            assert_eq!(mul::<F32>(NEGATIVE, ONE | NEGATIVE, mode), 0);
            assert_eq!(div::<F32>(ONE | NEGATIVE, INF, mode), NEGATIVE);
            assert_eq!(div::<F32>(ONE | NEGATIVE, 0, mode), INF | NEGATIVE);
        }
        assert_eq!(div::<F32>(0, 0, n), F32::NAN);
        assert_eq!(div::<F32>(INF, INF, n), F32::NAN);
        assert_eq!(sqrt::<F32>(ONE | NEGATIVE, n), F32::NAN);
        assert_eq!(sqrt::<F32>(NEGATIVE, n), NEGATIVE);
        assert_eq!(sqrt::<F32>(INF, n), INF);
        // The largest number plus a little.
        assert_eq!(add::<F32>(F32::MAX, ONE, Round::Up), INF);
        assert_eq!(add::<F32>(F32::MAX, ONE, Round::Zero), F32::MAX);
        assert_eq!(mul::<F32>(F32::MAX, F32::MAX | NEGATIVE, Round::Up), F32::MAX | NEGATIVE);
        assert_eq!(mul::<F32>(1, 1, Round::Up), 1);
        assert_eq!(mul::<F32>(1, 1, Round::Nearest), 0);
    }

    fn all_conversions<From: Format, To: Format>(inputs: impl Iterator<Item = u64>) {
        for a in inputs {
            for mode in MODES {
                let expected = match a & !From::SIGN {
                    0 if a == 0 => 0,
                    0 => To::SIGN,
                    _ if finite::<From>(a) => reference::convert::<From, To>(a, mode),
                    m if From::INFINITY && m == From::TOP && To::INFINITY => {
                        To::TOP | if a & From::SIGN != 0 { To::SIGN } else { 0 }
                    }
                    _ => To::NAN,
                };
                assert_eq!(convert::<From, To>(a, mode), expected, "{a:#x} {mode:?}");
            }
        }
    }

    #[test]
    fn conversions_by_definition() {
        all_conversions::<F16, E4m3>((0..1 << 16).step_by(7));
        all_conversions::<F16, E5m2>((0..1 << 16).step_by(7));
        all_conversions::<F16, Bf16>((0..1 << 16).step_by(7));
        all_conversions::<Bf16, F16>((0..1 << 16).step_by(7));
        all_conversions::<E4m3, F16>(0..1 << 8);
        all_conversions::<E5m2, F16>(0..1 << 8);
        let mut patterns = Patterns::new(7);
        let mut f32s = || (0..3000).map(|_| patterns.next::<F32>()).collect::<Vec<_>>().into_iter();
        all_conversions::<F32, F16>(f32s());
        all_conversions::<F32, Bf16>(f32s());
        all_conversions::<F32, Tf32>(f32s());
        all_conversions::<F32, F64>(f32s());
        let f64s: Vec<u64> = (0..3000).map(|_| patterns.next::<F64>()).collect();
        all_conversions::<F64, F32>(f64s.iter().copied());
        all_conversions::<F64, F16>(f64s.iter().copied());
        all_conversions::<F64, Bf16>(f64s.into_iter());
    }
}
