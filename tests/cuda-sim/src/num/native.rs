//! f32 and f64 by the processor's own instructions, made to agree with the PTX ISA (9.7.3) in NaNs, subnormals and
//! saturation. Branch-free and inlined, for the loops over lanes.

/// The NaN of f32 instructions.
pub const NAN32: u32 = 0x7fff_ffff;
/// The NaN of f64 instructions without a NaN among their operands.
pub const NAN64: u64 = 0xfff8_0000_0000_0000;

/// Whether it is a NaN, told by its bits: compilers take a choice between a NaN and a result that is one for no choice.
#[inline(always)]
pub fn is_nan(x: f32) -> bool {
    x.to_bits() & 0x7fff_ffff > 0x7f80_0000
}

/// f32 with every NaN as [`NAN32`].
#[inline(always)]
pub fn canonical(x: f32) -> f32 {
    f32::from_bits(if is_nan(x) { NAN32 } else { x.to_bits() })
}

/// `.ftz`: subnormals become zeros of their sign.
#[inline(always)]
pub fn flush<const FTZ: bool>(x: f32) -> f32 {
    let bits = x.to_bits();
    if FTZ && bits & 0x7f80_0000 == 0 { f32::from_bits(bits & 0x8000_0000) } else { x }
}

/// `.sat`: clamped to [0, 1], a NaN is 0.
#[inline(always)]
pub fn saturate<const SAT: bool>(x: f32) -> f32 {
    let low = if x > 0.0 { x } else { 0.0 };
    let high = if low < 1.0 { low } else { 1.0 };
    if SAT { high } else { x }
}

/// What follows every f32 operation.
#[inline(always)]
pub fn finish<const FTZ: bool, const SAT: bool>(x: f32) -> f32 {
    saturate::<SAT>(canonical(flush::<FTZ>(x)))
}

/// The result `r` of an f64 operation on `operands`, the NaN of which passes through: quiet, the first one if there are
/// several.
#[inline(always)]
pub fn payload<const N: usize>(r: f64, operands: [f64; N]) -> f64 {
    const QUIET: u64 = 0x0008_0000_0000_0000;
    let is_nan = |bits: u64| bits & !(1 << 63) > 0x7ff0_0000_0000_0000;
    let mut nan = NAN64;
    for n in (0..N).rev() {
        let bits = operands[n].to_bits();
        nan = if is_nan(bits) { bits | QUIET } else { nan };
    }
    f64::from_bits(if is_nan(r.to_bits()) { nan } else { r.to_bits() })
}

macro_rules! extremum {
    ($($(#[$meta:meta])* $name:ident: $t:ty, $raw:ty, $canonical:expr, $less:tt;)*) => {$(
        $(#[$meta])*
        #[inline(always)]
        pub fn $name<const NAN: bool>(a: $t, b: $t) -> $t {
            // As integers with the magnitude of negative numbers turned round, -0 lies below +0.
            let order = |x: $t| {
                let bits = x.to_bits() as $raw;
                bits ^ ((bits >> (<$raw>::BITS - 1)) & <$raw>::MAX)
            };
            let chosen = if order(a) $less order(b) { a } else { b };
            let chosen = if b.is_nan() { a } else { chosen };
            let chosen = if a.is_nan() { b } else { chosen };
            let nan = if NAN { a.is_nan() | b.is_nan() } else { a.is_nan() & b.is_nan() };
            if nan { <$t>::from_bits($canonical) } else { chosen }
        }
    )*};
}
extremum! {
    /// `min.f32`; `NAN`: `.NaN`.
    min32: f32, i32, NAN32, <;
    /// `max.f32`; `NAN`: `.NaN`.
    max32: f32, i32, NAN32, >;
    /// `min.f64`
    min64: f64, i64, NAN64, <;
    /// `max.f64`
    max64: f64, i64, NAN64, >;
}

/// `.xorsign.abs`: an extremum of magnitudes gets the product's sign.
#[inline(always)]
pub fn xorsign(magnitude: f32, a: f32, b: f32) -> f32 {
    let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
    if magnitude.is_nan() { magnitude } else { f32::from_bits(magnitude.to_bits() & 0x7fff_ffff | sign) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extrema_order_zeros_and_prefer_numbers() {
        let nan = f32::from_bits(0xffc0_1234);
        assert_eq!(min32::<false>(0.0, -0.0).to_bits(), 0x8000_0000);
        assert_eq!(min32::<false>(-0.0, 0.0).to_bits(), 0x8000_0000);
        assert_eq!(max32::<false>(0.0, -0.0).to_bits(), 0);
        assert_eq!(max32::<false>(-0.0, 0.0).to_bits(), 0);
        assert_eq!(min32::<false>(nan, 1.0), 1.0);
        assert_eq!(max32::<false>(1.0, nan), 1.0);
        assert_eq!(max32::<false>(nan, nan).to_bits(), NAN32);
        assert_eq!(max32::<true>(1.0, nan).to_bits(), NAN32);
        assert_eq!(min32::<true>(nan, 1.0).to_bits(), NAN32);
        assert_eq!(min32::<false>(-3.0, -4.0), -4.0);
        assert_eq!(max64::<false>(-3.0, f64::NEG_INFINITY), -3.0);
        assert_eq!(max64::<false>(f64::NAN, f64::NAN).to_bits(), NAN64);
        assert_eq!(xorsign(min32::<false>(3.0, 2.0), -3.0, 2.0), -2.0);
        assert_eq!(xorsign(f32::from_bits(NAN32), -3.0, 2.0).to_bits(), NAN32);
    }

    #[test]
    fn saturation_and_flushing() {
        assert_eq!(saturate::<true>(f32::NAN).to_bits(), 0);
        assert_eq!(saturate::<true>(-0.0).to_bits(), 0);
        assert_eq!(saturate::<true>(f32::INFINITY), 1.0);
        assert_eq!(saturate::<true>(0.25), 0.25);
        assert_eq!(saturate::<true>(-1.0).to_bits(), 0);
        assert_eq!(flush::<true>(f32::from_bits(0x807f_ffff)).to_bits(), 0x8000_0000);
        assert_eq!(flush::<true>(f32::from_bits(0x0080_0000)).to_bits(), 0x0080_0000);
        assert_eq!(flush::<false>(f32::from_bits(1)).to_bits(), 1);
        assert_eq!(finish::<false, false>(f32::from_bits(0xff80_0001)).to_bits(), NAN32);
    }

    #[test]
    fn f64_nans_pass_through() {
        let (a, b) = (f64::from_bits(0x7ff0_0000_0000_0007), f64::from_bits(0xfff8_0000_0000_0009));
        assert_eq!(payload(a + b, [a, b]).to_bits(), 0x7ff8_0000_0000_0007);
        assert_eq!(payload(1.0 + b, [1.0, b]).to_bits(), 0xfff8_0000_0000_0009);
        let inf = f64::INFINITY;
        assert_eq!(payload(inf - inf, [inf, -inf]).to_bits(), NAN64);
        assert_eq!(payload(3.0, [1.0, 2.0]), 3.0);
    }
}
