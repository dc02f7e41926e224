//! Binary floating-point formats (PTX ISA 5.2.3), taking their values apart and rounding exact ones into them.

use super::Round;

/// A format: sign, exponent with the usual bias, fraction; a bit pattern lies in the low bits of a `u64`.
pub trait Format {
    /// Bits of the exponent.
    const EXPONENT: u32;
    /// Bits of the fraction.
    const FRACTION: u32;
    /// The NaN that instructions produce.
    const NAN: u64;
    /// Whether there are infinities; without them the largest exponent holds numbers, but for the NaN with all bits set.
    const INFINITY: bool = true;

    /// The bit of the sign.
    const SIGN: u64 = 1 << (Self::EXPONENT + Self::FRACTION);
    /// The exponent's bias.
    const BIAS: i32 = (1 << (Self::EXPONENT - 1)) - 1;
    /// The bits of the exponent, all set: the positive infinity where there is one.
    const TOP: u64 = ((1 << Self::EXPONENT) - 1) << Self::FRACTION;
    /// The largest finite number.
    const MAX: u64 = if Self::INFINITY { Self::TOP - 1 } else { Self::SIGN - 2 };
}

/// `.f16`
#[derive(Debug, Clone, Copy)]
pub struct F16;
/// `.bf16`
#[derive(Debug, Clone, Copy)]
pub struct Bf16;
/// `.tf32` without the 13 low bits of its register.
#[derive(Debug, Clone, Copy)]
pub struct Tf32;
/// `.f32`
#[derive(Debug, Clone, Copy)]
pub struct F32;
/// `.f64`
#[derive(Debug, Clone, Copy)]
pub struct F64;
/// `.e4m3`: no infinities, one NaN.
#[derive(Debug, Clone, Copy)]
pub struct E4m3;
/// `.e5m2`
#[derive(Debug, Clone, Copy)]
pub struct E5m2;

impl Format for F16 {
    const EXPONENT: u32 = 5;
    const FRACTION: u32 = 10;
    const NAN: u64 = 0x7fff;
}
impl Format for Bf16 {
    const EXPONENT: u32 = 8;
    const FRACTION: u32 = 7;
    const NAN: u64 = 0x7fff;
}
impl Format for Tf32 {
    const EXPONENT: u32 = 8;
    const FRACTION: u32 = 10;
    const NAN: u64 = 0x3ffff;
}
impl Format for F32 {
    const EXPONENT: u32 = 8;
    const FRACTION: u32 = 23;
    const NAN: u64 = 0x7fff_ffff;
}
impl Format for F64 {
    const EXPONENT: u32 = 11;
    const FRACTION: u32 = 52;
    const NAN: u64 = 0xfff8_0000_0000_0000;
}
impl Format for E4m3 {
    const EXPONENT: u32 = 4;
    const FRACTION: u32 = 3;
    const NAN: u64 = 0x7f;
    const INFINITY: bool = false;
}
impl Format for E5m2 {
    const EXPONENT: u32 = 5;
    const FRACTION: u32 = 2;
    const NAN: u64 = 0x7f;
}

/// What a bit pattern stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Not a number.
    Nan,
    /// An infinity.
    Infinite {
        /// Whether it is the negative one.
        negative: bool,
    },
    /// A finite number.
    Finite(Exact),
}

/// `significand * 2^exponent`, negated if `negative`; a zero has a sign, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exact {
    /// The sign.
    pub negative: bool,
    /// Of two.
    pub exponent: i32,
    /// Below 2^127.
    pub significand: u128,
    /// The magnitude is larger than that, by less than one unit of the significand.
    pub sticky: bool,
}

impl Exact {
    /// A zero.
    pub fn zero(negative: bool) -> Exact {
        Exact { negative, exponent: 0, significand: 0, sticky: false }
    }

    /// An integer.
    pub fn integer(value: i128) -> Exact {
        Exact { negative: value < 0, exponent: 0, significand: value.unsigned_abs(), sticky: false }
    }
}

/// Takes a bit pattern apart.
#[inline(never)]
pub fn unpack<F: Format>(bits: u64) -> Value {
    let negative = bits & F::SIGN != 0;
    let magnitude = bits & (F::SIGN - 1);
    if magnitude > F::MAX {
        return if F::INFINITY && magnitude == F::TOP { Value::Infinite { negative } } else { Value::Nan };
    }
    let fraction = magnitude & ((1 << F::FRACTION) - 1);
    let exponent = (magnitude >> F::FRACTION) as i32;
    let hidden = if exponent == 0 { 0 } else { 1 << F::FRACTION };
    Value::Finite(Exact {
        negative,
        exponent: exponent.max(1) - F::BIAS - F::FRACTION as i32,
        significand: (fraction | hidden) as u128,
        sticky: false,
    })
}

/// The value in the format, rounded once. What is too large becomes what IEEE 754 says for the mode; in a format without
/// infinities it becomes the largest number.
#[inline(never)]
pub fn round<F: Format>(value: Exact, mode: Round) -> u64 {
    let Exact { negative, exponent, significand, sticky } = value;
    let sign = if negative { F::SIGN } else { 0 };
    if significand == 0 && !sticky {
        return sign;
    }
    let away = match mode {
        Round::Up => !negative,
        Round::Down => negative,
        _ => false,
    };
    let length = 128 - significand.leading_zeros() as i32;
    let top = exponent as i64 + length as i64 - 1;
    let lowest = 1 - F::BIAS as i64;
    // The exponent of the result's last place.
    let unit = top.max(lowest) - F::FRACTION as i64;
    let shift = unit - exponent as i64;
    let (kept, half, rest) = match shift {
        ..=0 => ((significand << -shift) as u64, false, sticky),
        1..=127 => {
            let half = 1u128 << (shift - 1);
            let kept = (significand >> shift) as u64;
            (kept, significand & half != 0, significand & (half - 1) != 0 || sticky)
        }
        _ => (0, false, true),
    };
    let up = match mode {
        Round::Nearest => half && (rest || kept & 1 != 0),
        Round::Away => half,
        _ => away && (half || rest),
    };
    let overflow = || match mode {
        _ if !F::INFINITY => F::MAX,
        Round::Nearest | Round::Away => F::TOP,
        _ if away => F::TOP,
        _ => F::MAX,
    };
    if top > F::BIAS as i64 + 1 {
        return sign | overflow();
    }
    // The hidden bit of a normal number counts one into the exponent, and so does a carry out of the fraction.
    let biased = (unit + F::FRACTION as i64 + F::BIAS as i64 - 1) as u64;
    let magnitude = (biased << F::FRACTION) + kept + up as u64;
    sign | if magnitude > F::MAX { overflow() } else { magnitude }
}

/// From one format to another.
#[inline(never)]
pub fn convert<From: Format, To: Format>(bits: u64, mode: Round) -> u64 {
    match unpack::<From>(bits) {
        Value::Nan => To::NAN,
        Value::Infinite { .. } if !To::INFINITY => To::NAN,
        Value::Infinite { negative } => To::TOP | if negative { To::SIGN } else { 0 },
        Value::Finite(value) => round::<To>(value, mode),
    }
}
