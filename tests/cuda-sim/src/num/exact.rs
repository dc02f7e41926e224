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
