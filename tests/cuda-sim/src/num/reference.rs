//! What tests compare with: results by definition, from integers of any length. A result is found by bisection over all
//! numbers of the format, and nothing here is shared with the arithmetic under test.

use std::cmp::Ordering;

use num_bigint::BigInt;

use super::Round;
use super::format::Format;

/// All finite numbers of all formats are whole multiples of 2^-SCALE.
const SCALE: u32 = 1100;

/// The magnitude of a finite number, times 2^SCALE. The pattern behind the largest one counts as the number that would
/// follow.
fn magnitude<F: Format>(bits: u64) -> BigInt {
    let bits = bits & (F::SIGN - 1);
    let exponent = (bits >> F::FRACTION) as i32;
    let fraction = bits & ((1 << F::FRACTION) - 1);
    let digits = if exponent == 0 { fraction } else { fraction + (1 << F::FRACTION) };
    BigInt::from(digits) << (exponent.max(1) - F::BIAS - F::FRACTION as i32 + SCALE as i32)
}

fn value<F: Format>(bits: u64) -> BigInt {
    if bits & F::SIGN != 0 { -magnitude::<F>(bits) } else { magnitude::<F>(bits) }
}

/// Whether the pattern is a number, not an infinity or NaN.
pub fn finite<F: Format>(bits: u64) -> bool {
    bits & (F::SIGN - 1) <= F::MAX
}

/// Rounds a magnitude, which is told by how it compares with `numerator / 2`, both times 2^SCALE.
fn search<F: Format>(negative: bool, mode: Round, compare: impl Fn(&BigInt) -> Ordering) -> u64 {
    let (mut low, mut high) = (0, F::MAX + 1);
    let twice = |bits: u64| magnitude::<F>(bits) << 1;
    if compare(&twice(high)) != Ordering::Less {
        low = F::MAX;
    }
    while high - low > 1 {
        let middle = (low + high) / 2;
        if compare(&twice(middle)) == Ordering::Less { high = middle } else { low = middle }
    }
    let inexact = compare(&twice(low)) != Ordering::Equal;
    let half = compare(&(magnitude::<F>(low) + magnitude::<F>(high)));
    let up = inexact
        && match mode {
            Round::Nearest => half == Ordering::Greater || half == Ordering::Equal && low & 1 == 1,
            Round::Away => half != Ordering::Less,
            Round::Zero => false,
            Round::Down => negative,
            Round::Up => !negative,
        };
    let rounded = if up { high } else { low };
    let bounded = if !F::INFINITY { rounded.min(F::MAX) } else { rounded };
    bounded | if negative { F::SIGN } else { 0 }
}

/// `a * b + c` of finite numbers whose exact result is not zero.
pub fn fma<F: Format>(a: u64, b: u64, c: u64, mode: Round) -> Option<u64> {
    let exact = value::<F>(a) * value::<F>(b) + (value::<F>(c) << SCALE);
    if exact == BigInt::ZERO {
        return None;
    }
    let negative = exact < BigInt::ZERO;
    let twice: BigInt = BigInt::from(exact.magnitude().clone()) << 1;
    Some(search::<F>(negative, mode, |x| twice.cmp(&(x << SCALE))))
}

/// `a / b` of finite numbers that are not zero.
pub fn div<F: Format>(a: u64, b: u64, mode: Round) -> u64 {
    let (x, y): (BigInt, BigInt) = (magnitude::<F>(a) << (SCALE + 1), magnitude::<F>(b));
    search::<F>((a ^ b) & F::SIGN != 0, mode, |m| x.cmp(&(m * &y)))
}

/// The root of a positive finite number.
pub fn sqrt<F: Format>(a: u64, mode: Round) -> u64 {
    let x: BigInt = magnitude::<F>(a) << (SCALE + 2);
    search::<F>(false, mode, |m| x.cmp(&(m * m)))
}

/// A finite number of one format, not zero, in another.
pub fn convert<From: Format, To: Format>(a: u64, mode: Round) -> u64 {
    let x: BigInt = magnitude::<From>(a) << 1;
    search::<To>(a & From::SIGN != 0, mode, |m| x.cmp(m))
}

/// An integer, not zero, as a number.
pub fn integer<F: Format>(a: i128, mode: Round) -> u64 {
    let x: BigInt = BigInt::from(a.unsigned_abs()) << (SCALE + 1);
    search::<F>(a < 0, mode, |m| x.cmp(m))
}

/// Bit patterns that arithmetic is tested with: special values, and random ones of which many have near exponents, few
/// digits or long runs of equal bits.
pub struct Patterns(u64);

impl Patterns {
    /// The same sequence for the same seed.
    pub fn new(seed: u64) -> Patterns {
        Patterns(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 64 random bits (xorshift64*).
    pub fn random(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A pattern of the format.
    pub fn next<F: Format>(&mut self) -> u64 {
        let all = F::SIGN | (F::SIGN - 1);
        let (choice, bits) = (self.random() >> 32, self.random());
        let one = (F::BIAS as u64) << F::FRACTION;
        let sign = bits & F::SIGN;
        match choice % 8 {
            0 => {
                let edges = [
                    0,
                    1,
                    2,
                    3,
                    one,
                    one - 1,
                    one + 1,
                    F::MAX,
                    F::MAX - 1,
                    F::MAX / 2,
                    F::MAX + 1,
                    F::NAN & all >> 1,
                    1 << F::FRACTION,
                    (1 << F::FRACTION) - 1,
                    (1 << F::FRACTION) + 1,
                    one >> 1,
                ];
                edges[(bits % 16) as usize] | sign
            }
            1 => (bits & ((1 << F::FRACTION) - 1)) | sign,
            2..=4 => {
                // Near one.
                let exponent = one.wrapping_add((bits >> 40 & 15) << F::FRACTION).wrapping_sub(8 << F::FRACTION);
                (exponent & (F::SIGN - 1) & F::TOP) | (bits & ((1 << F::FRACTION) - 1)) | sign
            }
            5 => {
                // Runs of equal bits.
                let run = (self.random() & self.random() & self.random()) | (bits << (choice >> 8 & 63));
                run & all
            }
            _ => bits & all,
        }
    }
}
