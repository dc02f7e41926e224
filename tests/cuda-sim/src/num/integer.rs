//! Integers as conversions see them (PTX ISA 9.7.10.24): ranges, saturation, and rounding to integers.

/// How a number becomes whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whole {
    /// `.rni`: the nearest, ties to even.
    Nearest,
    /// `.rzi`
    Zero,
    /// `.rmi`
    Down,
    /// `.rpi`
    Up,
}

/// An integer type of 8 to 64 bits.
pub trait Integer: Copy + Default + 'static {
    /// Its bits, sign-extended if it is signed, to 64.
    fn extend(self) -> u64;
    /// The low bits.
    fn truncate(bits: u64) -> Self;
    /// Its value.
    fn value(self) -> i128;
    /// The nearest value of the type.
    fn clamp(value: i128) -> Self;
    /// Clamped; a NaN is 0.
    fn from_f32(x: f32) -> Self;
    /// Clamped; a NaN is the type's highest bit alone (PTX ISA: if the source is f64 or the result has 64 bits).
    fn from_f64(x: f64) -> Self;
    /// To nearest.
    fn to_f32(self) -> f32;
    /// To nearest.
    fn to_f64(self) -> f64;
}

macro_rules! integers {
    ($($t:ty: $long:literal;)*) => {$(
        impl Integer for $t {
            #[inline(always)]
            fn extend(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn truncate(bits: u64) -> Self {
                bits as $t
            }
            #[inline(always)]
            fn value(self) -> i128 {
                self as i128
            }
            #[inline(always)]
            fn clamp(value: i128) -> Self {
                value.clamp(<$t>::MIN as i128, <$t>::MAX as i128) as $t
            }
            #[inline(always)]
            fn from_f32(x: f32) -> Self {
                if $long && x.is_nan() { (1 as $t) << (<$t>::BITS - 1) } else { x as $t }
            }
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                if x.is_nan() { (1 as $t) << (<$t>::BITS - 1) } else { x as $t }
            }
            #[inline(always)]
            fn to_f32(self) -> f32 {
                self as f32
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}
integers! {
    u8: false;
    i8: false;
    u16: false;
    i16: false;
    u32: false;
    i32: false;
    u64: true;
    i64: true;
}
