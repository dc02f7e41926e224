//! shl, shr, shf, prmt.

use super::Parts;
use crate::lanes::{Class, Form, Lane, Run, Unit, pick};
use crate::ptx::ast::Operand;
use crate::ptx::ast::Type::{self, *};
use crate::{lanes, typed_lanes};

pub(super) fn form(parts: &Parts) -> Option<Form> {
    if parts.any_negated() {
        return None;
    }
    let funnel = |run: Run| Form::new(run, Class::Integer, B32, &[B32, B32, U32]);
    let permute = |run: Run| Form::new(run, Class::Move, B32, &[B32, B32, B32]);
    Some(match (parts.opcode, &parts.others[..], &parts.types[..]) {
        ("shl", [], &[ty]) => Form::new(shl(ty)?, Class::Integer, ty, &[ty, U32]),
        ("shr", [], &[ty]) => Form::new(shr(ty)?, Class::Integer, ty, &[ty, U32]),
        ("shf", ["l", "clamp"], [B32]) => funnel(shf_l_clamp()),
        ("shf", ["l", "wrap"], [B32]) => funnel(shf_l_wrap()),
        ("shf", ["r", "clamp"], [B32]) => funnel(shf_r_clamp()),
        ("shf", ["r", "wrap"], [B32]) => funnel(shf_r_wrap()),
        ("prmt", [], [B32]) => permute(match parts.operands.get(3) {
            Some(&Operand::Int(selector)) => prmt_immediate(selector as u16),
            _ => prmt(),
        }),
        ("prmt", ["f4e"], [B32]) => permute(prmt_f4e()),
        ("prmt", ["b4e"], [B32]) => permute(prmt_b4e()),
        ("prmt", ["rc8"], [B32]) => permute(prmt_rc8()),
        ("prmt", ["ecl"], [B32]) => permute(prmt_ecl()),
        ("prmt", ["ecr"], [B32]) => permute(prmt_ecr()),
        ("prmt", ["rc16"], [B32]) => permute(prmt_rc16()),
        _ => return None,
    })
}

// Amounts beyond the width shift everything out.
fn shl(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [B16: u16, B32: u32, B64: u64], (d: T; a: T, b: u32) {
        d = a.checked_shl(b).unwrap_or(0);
    })
}

fn shr(ty: Type) -> Option<Run> {
    match ty {
        S16 | S32 | S64 => typed_lanes!(ty, [S16: i16, S32: i32, S64: i64], (d: T; a: T, b: u32) {
            d = a >> b.min(T::BITS - 1);
        }),
        _ => typed_lanes!(
            ty,
            [B16: u16, U16: u16, B32: u32, U32: u32, B64: u64, U64: u64],
            (d: T; a: T, b: u32) { d = a.checked_shr(b).unwrap_or(0); }
        ),
    }
}

/// The high word of `b:a` shifted left by at most 32.
#[inline(always)]
fn left(a: u32, b: u32, n: u32) -> u32 {
    b.checked_shl(n).unwrap_or(0) | a.checked_shr(32 - n).unwrap_or(0)
}

/// The low word of `b:a` shifted right by at most 32.
#[inline(always)]
fn right(a: u32, b: u32, n: u32) -> u32 {
    b.checked_shl(32 - n).unwrap_or(0) | a.checked_shr(n).unwrap_or(0)
}

/// The byte that a 4-bit selection names, of the eight in `b:a`; with bit 3 set its sign eight times.
#[inline(always)]
fn select(a: u32, b: u32, selection: u32) -> u32 {
    let byte = (if selection & 4 != 0 { b } else { a }) >> (selection % 4 * 8) & 0xff;
    if selection & 8 != 0 { (byte >> 7) * 0xff } else { byte }
}

#[inline(always)]
fn permute(a: u32, b: u32, c: u32) -> u32 {
    select(a, b, c & 15)
        | select(a, b, c >> 4 & 15) << 8
        | select(a, b, c >> 8 & 15) << 16
        | select(a, b, c >> 12 & 15) << 24
}

/// The selector that two bits choose out of four.
#[inline(always)]
fn choose(c: u32, selectors: [u32; 4]) -> u32 {
    let even = if c & 2 != 0 { selectors[2] } else { selectors[0] };
    let odd = if c & 2 != 0 { selectors[3] } else { selectors[1] };
    if c & 1 != 0 { odd } else { even }
}

lanes! {
    fn shf_l_clamp(d: u32; a: u32, b: u32, c: u32) { d = left(a, b, c.min(32)); }
    fn shf_l_wrap(d: u32; a: u32, b: u32, c: u32) { d = left(a, b, c & 31); }
    fn shf_r_clamp(d: u32; a: u32, b: u32, c: u32) { d = right(a, b, c.min(32)); }
    fn shf_r_wrap(d: u32; a: u32, b: u32, c: u32) { d = right(a, b, c & 31); }

    fn prmt(d: u32; a: u32, b: u32, c: u32) { d = permute(a, b, c); }
    fn prmt_f4e(d: u32; a: u32, b: u32, c: u32) { d = permute(a, b, choose(c, [0x3210, 0x4321, 0x5432, 0x6543])); }
    fn prmt_b4e(d: u32; a: u32, b: u32, c: u32) { d = permute(a, b, choose(c, [0x5670, 0x6701, 0x7012, 0x0123])); }
    fn prmt_rc8(d: u32; a: u32, b: u32, c: u32) { d = permute(a, b, choose(c, [0x0000, 0x1111, 0x2222, 0x3333])); }
    fn prmt_ecl(d: u32; a: u32, b: u32, c: u32) { d = permute(a, b, choose(c, [0x3210, 0x3211, 0x3222, 0x3333])); }
    fn prmt_ecr(d: u32; a: u32, b: u32, c: u32) { d = permute(a, b, choose(c, [0x0000, 0x1110, 0x2210, 0x3210])); }
    fn prmt_rc16(d: u32; a: u32, b: u32, c: u32) { d = permute(a, b, choose(c, [0x1010, 0x3232, 0x1010, 0x3232])); }
}

/// The permutations that compilers and libraries write with a constant selector, each as its own function on wide
/// processors.
macro_rules! immediates {
    ($($selector:literal)*) => {
        fn prmt_immediate(selector: u16) -> Run {
            match selector {
                $($selector => pick(permute_by::<$selector>, prmt_uniform()),)*
                _ => prmt_uniform(),
            }
        }
    };
}
immediates! {
    0x5410 0x7632 0x7610 0x3254 0x1032 0x0123 0x3210 0x7654 0x5140 0x7362 0x6420 0x7531 0x5040 0x7060
    0x4440 0x4441 0x4442 0x4443 0x7770 0x7771 0x7772 0x7773 0x3340 0x3341 0x3342 0x3343
    0x9910 0xbb32 0x8880 0x9991 0xaaa2 0xbbb3
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
unsafe fn permute_by<const SELECTOR: u32>(file: *mut Unit, operands: &[u16], mask: u32) {
    unsafe {
        let (a, b) = (u32::read(file, operands[1]), u32::read(file, operands[2]));
        let mut out = [0; 32];
        for l in 0..32 {
            out[l] = permute(a[l], b[l], SELECTOR);
        }
        u32::write(file, operands[0], &out, mask);
    }
}

/// Any other constant selector: it is the same in all lanes.
fn prmt_uniform() -> Run {
    #[inline(always)]
    unsafe fn body(file: *mut Unit, operands: &[u16], mask: u32) {
        unsafe {
            let [d, a, b, c] = [0, 1, 2, 3].map(|n| operands[n]);
            let (a, b, c) = (u32::read(file, a), u32::read(file, b), u32::read(file, c)[0]);
            let mut out = [0; 32];
            for n in 0..4 {
                let selection = c >> (4 * n) & 15;
                for l in 0..32 {
                    out[l] |= select(a[l], b[l], selection) << (8 * n);
                }
            }
            u32::write(file, d, &out, mask);
        }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn wide(file: *mut Unit, operands: &[u16], mask: u32) {
        unsafe { body(file, operands, mask) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    use body as wide;
    unsafe fn plain(file: *mut Unit, operands: &[u16], mask: u32) {
        unsafe { body(file, operands, mask) }
    }
    pick(wide, plain)
}
