//! The approximations (`.approx`, PTX ISA 9.7.3.13 to 9.7.3.22): all but `ex2` are computed in f64 and rounded to f32 once, so
//! that they are closer to the exact value than the ISA demands (nearly always the nearest f32) and differ from a host's
//! result in the last place at most. A GPU's own tables give other bits; a kernel that depends on them is not portable
//! between GPUs either.
//!
//! Branch-free, of operations that IEEE 754 fixes and without the host's mathematical library: the same bits everywhere.

use super::native::NAN32;

const NAN: f32 = f32::from_bits(NAN32);

/// Below 2^-12, sin x and tanh x are x: what is left, x^3 / 3 at most, is less than half a unit of the last place.
const IDENTITY: f32 = 1.0 / 4096.0;

/// `2^n` and `(2^f - 1)` with `n + f = y`, `n` whole and `|f| <= 1/2`, for `|y| < 1000`. The relative error of the second
/// is 2^-32: a polynomial through the Chebyshev nodes for `(2^f - 1) / f`.
#[inline(always)]
fn exp2_parts(y: f64) -> (f64, f64) {
    // Its last place is one: adding it rounds to a whole number, which then stands in the low bits.
    const WHOLE: f64 = 6755399441055744.0;
    let shifted = y + WHOLE;
    let f = y - (shifted - WHOLE);
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(0x3ff0_0000_0000_0000));
    let mut p = 1.5297323760701075e-05;
    p = p * f + 0.0001546144469856913;
    p = p * f + 0.001333350238616277;
    p = p * f + 0.009618056678524637;
    p = p * f + 0.055504108839096185;
    p = p * f + 0.24022650922288757;
    p = p * f + std::f64::consts::LN_2;
    (scale, p * f)
}

/// `ex2.approx`: the one that inner loops are full of (softmax), and therefore in f32: less than 0.9 units of the last place
/// from the exact value. A power of two is exact.
#[inline(always)]
pub fn ex2(x: f32) -> f32 {
    // Its last place is one: adding it rounds to a whole number, which then stands in the low bits.
    const WHOLE: f32 = 12582912.0;
    let y = if x < 130.0 { x } else { 130.0 };
    let y = if y > -160.0 { y } else { -160.0 };
    let shifted = y + WHOLE;
    let f = y - (shifted - WHOLE);
    let mut p = 1.5297324e-05;
    p = f.mul_add(p, 0.00015461445);
    p = f.mul_add(p, 0.0013333502);
    p = f.mul_add(p, 0.009618057);
    p = f.mul_add(p, 0.05550411);
    p = f.mul_add(p, 0.2402265);
    p = f.mul_add(p, std::f32::consts::LN_2);
    p = f.mul_add(p, 1.0);
    // In two factors, the first of which changes the exponent only: a subnormal result is rounded once.
    let n = shifted.to_bits().wrapping_sub(WHOLE.to_bits()) as i32;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    let r = p * power(n >> 1) * power(n.wrapping_sub(n >> 1));
    if x.is_nan() { NAN } else { r }
}

/// `tanh.approx`
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let magnitude = x.abs() as f64;
    let bounded = if magnitude < 20.0 { magnitude } else { 20.0 };
    let (scale, fraction) = exp2_parts(bounded * (2.0 * std::f64::consts::LOG2_E));
    // e^(2x) - 1, without cancellation where it is small: the scale is one there.
    let t = scale * fraction + (scale - 1.0);
    let r = ((t / (t + 2.0)) as f32).copysign(x);
    let r = if x.abs() < IDENTITY { x } else { r };
    if x.is_nan() { NAN } else { r }
}

/// `lg2.approx`
#[inline(always)]
pub fn lg2(x: f32) -> f32 {
    // Every f32 is a normal f64. The significand is taken between sqrt(1/2) and sqrt(2).
    const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let bits = (x as f64).to_bits();
    let above = bits.wrapping_sub(SQRT_HALF);
    // The exponent from a float whose last place is one, since whole 64-bit numbers convert slowly.
    const WHOLE: u64 = 0x4330_0000_0000_0000;
    let exponent = f64::from_bits((above.wrapping_add(1024 << 52) >> 52) | WHOLE) - (4503599627370496.0 + 1024.0);
    let m = f64::from_bits((above & 0x000f_ffff_ffff_ffff).wrapping_add(SQRT_HALF));
    // ln m = 2 artanh((m - 1) / (m + 1)), whose argument is at most 0.172.
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut p = 1.0 / 15.0;
    p = p * z + 1.0 / 13.0;
    p = p * z + 1.0 / 11.0;
    p = p * z + 1.0 / 9.0;
    p = p * z + 1.0 / 7.0;
    p = p * z + 1.0 / 5.0;
    p = p * z + 1.0 / 3.0;
    p = p * z + 1.0;
    let r = (exponent + s * p * (2.0 * std::f64::consts::LOG2_E)) as f32;
    let r = if x == f32::INFINITY { x } else { r };
    let r = if x == 0.0 { f32::NEG_INFINITY } else { r };
    if x.is_nan() || x < 0.0 { NAN } else { r }
}

/// The quarter turns in `x` as a number modulo 4, and the angle that is left, at most pi/4 in magnitude. Where f64 has no
/// digits for it any more (`x` above 2^52), no angle is left; the ISA promises nothing beyond 100 pi.
#[inline(always)]
fn quarters(x: f32) -> (f64, f64) {
    let y = x as f64 * std::f64::consts::FRAC_2_PI;
    let k = y.round_ties_even();
    (k - 4.0 * (k * 0.25).floor(), (y - k) * std::f64::consts::FRAC_PI_2)
}

/// Sine and cosine of an angle of at most pi/4, by their Taylor series.
#[inline(always)]
fn sine_cosine(r: f64) -> (f64, f64) {
    let z = r * r;
    let mut s = -1.0 / 39916800.0;
    s = s * z + 1.0 / 362880.0;
    s = s * z - 1.0 / 5040.0;
    s = s * z + 1.0 / 120.0;
    s = s * z - 1.0 / 6.0;
    let mut c = 1.0 / 479001600.0;
    c = c * z - 1.0 / 3628800.0;
    c = c * z + 1.0 / 40320.0;
    c = c * z - 1.0 / 720.0;
    c = c * z + 1.0 / 24.0;
    c = c * z - 0.5;
    (r + r * z * s, 1.0 + z * c)
}

/// `sin.approx`
#[inline(always)]
pub fn sin(x: f32) -> f32 {
    let (quarter, r) = quarters(x);
    let (s, c) = sine_cosine(r);
    let value = if quarter == 1.0 || quarter == 3.0 { c } else { s };
    let value = if quarter >= 2.0 { -value } else { value };
    let value = if x.abs() < IDENTITY { x } else { value as f32 };
    if x.abs() < f32::INFINITY { value } else { NAN }
}

/// `cos.approx`
#[inline(always)]
pub fn cos(x: f32) -> f32 {
    let (quarter, r) = quarters(x);
    let (s, c) = sine_cosine(r);
    let value = if quarter == 1.0 || quarter == 3.0 { s } else { c };
    let value = if quarter == 1.0 || quarter == 2.0 { -value } else { value };
    if x.abs() < f32::INFINITY { value as f32 } else { NAN }
}

/// `rcp.approx`
#[inline(always)]
pub fn rcp(x: f32) -> f32 {
    1.0 / x
}

/// `rsqrt.approx`
#[inline(always)]
pub fn rsqrt(x: f32) -> f32 {
    let r = (1.0 / (x as f64).sqrt()) as f32;
    // The square root of -0 is -0, and that of a negative number a NaN.
    if r.is_nan() { NAN } else { r }
}

/// `div.approx`: with a divisor above 2^126 the reciprocal that the ISA computes with would be subnormal, and is zero.
#[inline(always)]
pub fn div(a: f32, b: f32) -> f32 {
    const LARGE: f32 = f32::from_bits((127 + 126) << 23);
    let zero = f32::from_bits((a.to_bits() ^ b.to_bits()) & 0x8000_0000);
    let large = b.abs() > LARGE;
    let r = if large && a.abs() <= f32::MAX { zero } else { a / b };
    if large && a.abs() == f32::INFINITY { NAN } else { r }
}

/// The NaN of `rcp.approx.ftz.f64` and `rsqrt.approx.ftz.f64`.
const NAN64: f64 = f64::from_bits(0x7fff_ffff_0000_0000);

/// f64 without its lower half, subnormals as zeros.
#[inline(always)]
fn upper(x: f64) -> f64 {
    let bits = x.to_bits() & 0xffff_ffff_0000_0000;
    f64::from_bits(if bits & 0x7ff0_0000_0000_0000 == 0 { bits & 1 << 63 } else { bits })
}

/// `rcp.approx.ftz.f64`: on the upper 32 bits only.
#[inline(always)]
pub fn rcp64(x: f64) -> f64 {
    let r = upper(1.0 / upper(x));
    if x.is_nan() { NAN64 } else { r }
}

/// `rsqrt.approx.ftz.f64`: on the upper 32 bits only.
#[inline(always)]
pub fn rsqrt64_upper(x: f64) -> f64 {
    let r = upper(1.0 / upper(x).sqrt());
    if x.is_nan() || r.is_nan() { NAN64 } else { r }
}

/// `rsqrt.approx.f64`
#[inline(always)]
pub fn rsqrt64(x: f64) -> f64 {
    1.0 / x.sqrt()
}
