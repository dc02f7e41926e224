//! The inverse cosine transform of one 8x8 block, in the integers that libjpeg's `islow` uses, to the bit: thirteen
//! fractional bits in the constants, two kept between the passes over columns and rows. Called by [`super`].

use super::entropy::Block;

const CONST_BITS: u32 = 13;
const PASS1_BITS: u32 = 2;

const F_0_298: i32 = 2446;
const F_0_390: i32 = 3196;
const F_0_541: i32 = 4433;
const F_0_765: i32 = 6270;
const F_0_899: i32 = 7373;
const F_1_175: i32 = 9633;
const F_1_501: i32 = 12299;
const F_1_847: i32 = 15137;
const F_1_961: i32 = 16069;
const F_2_053: i32 = 16819;
const F_2_562: i32 = 20995;
const F_3_072: i32 = 25172;

/// One dimension (Loeffler, Ligtenberg, Moschytz); what a damaged file makes of it wraps.
fn pass(x: [i32; 8], shift: u32) -> [i32; 8] {
    let times = |a: i32, b: i32| a.wrapping_mul(b);
    let add = |a: i32, b: i32| a.wrapping_add(b);
    let sub = |a: i32, b: i32| a.wrapping_sub(b);

    let z1 = times(add(x[2], x[6]), F_0_541);
    let (t2, t3) = (sub(z1, times(x[6], F_1_847)), add(z1, times(x[2], F_0_765)));
    let (t0, t1) = (add(x[0], x[4]).wrapping_shl(CONST_BITS), sub(x[0], x[4]).wrapping_shl(CONST_BITS));
    let even = [add(t0, t3), add(t1, t2), sub(t1, t2), sub(t0, t3)];

    let (z1, z2, z3, z4) = (add(x[7], x[1]), add(x[5], x[3]), add(x[7], x[3]), add(x[5], x[1]));
    let z5 = times(add(z3, z4), F_1_175);
    let (z1, z2) = (times(z1, -F_0_899), times(z2, -F_2_562));
    let (z3, z4) = (add(times(z3, -F_1_961), z5), add(times(z4, -F_0_390), z5));
    let odd = [
        add(times(x[1], F_1_501), add(z1, z4)),
        add(times(x[3], F_3_072), add(z2, z3)),
        add(times(x[5], F_2_053), add(z2, z4)),
        add(times(x[7], F_0_298), add(z1, z3)),
    ];

    let descale = |v: i32| add(v, 1 << (shift - 1)) >> shift;
    let mut out = [0; 8];
    for k in 0..4 {
        out[k] = descale(add(even[k], odd[k]));
        out[7 - k] = descale(sub(even[k], odd[k]));
    }
    out
}

/// Samples of a block whose coefficients are `block` times `quantisation` (both in natural order), written to
/// `out[row * stride + column]`; `out` holds at least 7 * stride + 8 samples.
pub fn inverse(block: &Block, quantisation: &[u16; 64], out: &mut [u8], stride: usize) {
    let mut work = [0i32; 64];
    for column in 0..8 {
        let at =
            |row: usize| i32::from(block[8 * row + column]).wrapping_mul(i32::from(quantisation[8 * row + column]));
        let samples = pass([at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)], CONST_BITS - PASS1_BITS);
        for (row, sample) in samples.into_iter().enumerate() {
            work[8 * row + column] = sample;
        }
    }
    for (row, out) in work.chunks_exact(8).zip(out.chunks_mut(stride.max(8))) {
        let x = [row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]];
        for (out, sample) in out.iter_mut().zip(pass(x, CONST_BITS + PASS1_BITS + 3)) {
            *out = sample.wrapping_add(128).clamp(0, 255) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_with_dc_alone_is_flat_and_values_beyond_a_byte_are_clamped() {
        for (dc, want) in [(0i16, 128u8), (8, 129), (-8, 127), (4000, 255), (-4000, 0), (i16::MIN, 0)] {
            let mut block = [0i16; 64];
            block[0] = dc;
            let mut out = [7u8; 64];
            inverse(&block, &[1; 64], &mut out, 8);
            assert_eq!(out, [want; 64], "{dc}");
        }
    }
}
