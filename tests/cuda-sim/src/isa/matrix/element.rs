//! The element types of matrices, and how the narrow ones become values.

/// What a matrix consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Element {
    F16,
    Bf16,
    Tf32,
    F32,
    F64,
    E4m3,
    E5m2,
    S8,
    U8,
    S4,
    U4,
    B1,
    S32,
}

impl Element {
    /// The type that a modifier names.
    pub fn named(modifier: &str) -> Option<Element> {
        use Element::*;
        Some(match modifier {
            "f16" => F16,
            "bf16" => Bf16,
            "tf32" => Tf32,
            "f32" => F32,
            "f64" => F64,
            "e4m3" => E4m3,
            "e5m2" => E5m2,
            "s8" => S8,
            "u8" => U8,
            "s4" => S4,
            "u4" => U4,
            "b1" => B1,
            "s32" => S32,
            _ => return None,
        })
    }

    /// Bits of an element.
    pub fn bits(self) -> usize {
        use Element::*;
        match self {
            B1 => 1,
            S4 | U4 => 4,
            S8 | U8 | E4m3 | E5m2 => 8,
            F16 | Bf16 => 16,
            Tf32 | F32 | S32 => 32,
            F64 => 64,
        }
    }
}

/// f16 to f32, exactly; a NaN stays one.
#[inline(always)]
pub fn f16_to_f32(h: u16) -> f32 {
    let magnitude = (h & 0x7fff) as u32;
    // The exponent is 112 too small in the place of an f32's; subnormals come out right as well.
    let finite = (f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23)).to_bits();
    let bits = if magnitude >= 0x7c00 { magnitude << 13 | 0x7f80_0000 } else { finite };
    f32::from_bits(bits | ((h & 0x8000) as u32) << 16)
}

/// f32 to the bits of an f16, rounded to nearest even; NaN becomes the canonical 0x7fff.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> u32 {
    let magnitude = x.to_bits() & 0x7fff_ffff;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + (magnitude >> 13 & 1)) >> 13;
    // Adding 0.5 leaves as many bits as a subnormal f16 has, and rounds.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    let bits = if magnitude >= 0x477f_f000 { 0x7c00 } else { finite };
    if magnitude > 0x7f80_0000 { 0x7fff } else { bits | x.to_bits() >> 16 & 0x8000 }
}

/// e5m2 to f32: the upper half of an f16.
#[inline(always)]
pub fn e5m2_to_f32(b: u8) -> f32 {
    f16_to_f32((b as u16) << 8)
}

/// e4m3 to f32: bias 7, no infinities, NaN is all ones.
#[inline(always)]
pub fn e4m3_to_f32(b: u8) -> f32 {
    let magnitude = (b & 0x7f) as u32;
    let finite = (f32::from_bits(magnitude << 20) * f32::from_bits((127 + 120) << 23)).to_bits();
    let bits = if magnitude == 0x7f { 0x7fff_ffff } else { finite };
    f32::from_bits(bits | ((b & 0x80) as u32) << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_both_ways() {
        for h in 0..=u16::MAX {
            let (ours, theirs) = (f16_to_f32(h), half::f16::from_bits(h).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{h:#x}");
            let back = f32_to_f16(ours);
            assert_eq!(back, if ours.is_nan() { 0x7fff } else { h as u32 });
            // Around the midpoint to the next value, where rounding decides.
            if h & 0x7fff < 0x7c00 {
                let above = half::f16::from_bits(h + 1).to_f32();
                let next = if above.is_infinite() { 65536f32.copysign(ours) } else { above };
                let middle = ((ours as f64 + next as f64) / 2.0) as f32;
                for x in [middle, f32::from_bits(middle.to_bits() + 1), f32::from_bits(middle.to_bits() - 1)] {
                    assert_eq!(f32_to_f16(x), half::f16::from_f32(x).to_bits() as u32, "{x:e}");
                }
            }
        }
        for x in [f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 65519.996, 65520.0, 1e-40, -0.0] {
            assert_eq!(f32_to_f16(x), half::f16::from_f32(x).to_bits() as u32, "{x:e}");
        }
    }

    #[test]
    fn fp8_values() {
        // OCP 8-bit floating point, tables 1 and 2.
        for (b, x) in [(0x00, 0.0), (0x01, 2f32.powi(-9)), (0x08, 2f32.powi(-6)), (0x38, 1.0), (0x7e, 448.0)] {
            assert_eq!(e4m3_to_f32(b), x);
            assert_eq!(e4m3_to_f32(b | 0x80).to_bits(), (-x).to_bits());
        }
        assert!(e4m3_to_f32(0x7f).is_nan() && e4m3_to_f32(0xff).is_nan());
        for (b, x) in
            [(0x01, 2f32.powi(-16)), (0x04, 2f32.powi(-14)), (0x3c, 1.0), (0x7b, 57344.0), (0x7c, f32::INFINITY)]
        {
            assert_eq!(e5m2_to_f32(b), x);
            assert_eq!(e5m2_to_f32(b | 0x80), -x);
        }
        assert!(e5m2_to_f32(0x7d).is_nan());
    }
}
