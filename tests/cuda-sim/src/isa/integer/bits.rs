//! popc, clz, bfind, fns, brev, bfe, bfi, bmsk, szext.

use super::Parts;
use crate::lanes::{Class, Form, Run};
use crate::ptx::ast::Type::{self, *};
use crate::{lanes, typed_lanes};

pub(super) fn form(parts: &Parts) -> Option<Form> {
    let integer = |run: Run, out: Type, inputs: &[Type]| Form::new(run, Class::Integer, out, inputs);
    Some(match (parts.opcode, &parts.others[..], &parts.types[..]) {
        ("popc", [], &[ty]) => integer(popc(ty)?, U32, &[ty]),
        ("clz", [], &[ty]) => integer(clz(ty)?, U32, &[ty]),
        ("bfind", [], &[ty]) => integer(bfind(ty)?, U32, &[ty]),
        ("bfind", ["shiftamt"], &[ty]) => integer(bfind_shiftamt(ty)?, U32, &[ty]),
        ("fns", [], [B32]) => integer(fns(), B32, &[B32, U32, S32]),
        ("brev", [], &[ty]) => integer(brev(ty)?, ty, &[ty]),
        ("bfe", [], &[ty]) => integer(bfe(ty)?, ty, &[ty, U32, U32]),
        ("bfi", [], &[ty]) => integer(bfi(ty)?, ty, &[ty, ty, U32, U32]),
        ("bmsk", ["clamp"], [B32]) => integer(bmsk_clamp(), B32, &[U32, U32]),
        ("bmsk", ["wrap"], [B32]) => integer(bmsk_wrap(), B32, &[U32, U32]),
        ("szext", ["clamp"], &[ty]) => integer(szext_clamp(ty)?, ty, &[ty, U32]),
        ("szext", ["wrap"], &[ty]) => integer(szext_wrap(ty)?, ty, &[ty, U32]),
        _ => return None,
    })
}

fn popc(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [B32: u32, B64: u64], (d: u32; a: T) { d = a.count_ones(); })
}

fn clz(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [B32: u32, B64: u64], (d: u32; a: T) { d = a.leading_zeros(); })
}

fn brev(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [B32: u32, B64: u64], (d: T; a: T) { d = a.reverse_bits(); })
}

/// What `bfind` looks for a one in: a negative number's zeros are ones here.
trait Magnitude {
    fn magnitude(self) -> Self;
}
macro_rules! magnitude {
    ($($t:ty: |$x:ident| $value:expr;)*) => {$(
        impl Magnitude for $t {
            #[inline(always)]
            fn magnitude(self) -> $t {
                let $x = self;
                $value
            }
        }
    )*};
}
magnitude! {
    u32: |x| x;
    u64: |x| x;
    i32: |x| x ^ (x >> 31);
    i64: |x| x ^ (x >> 63);
}

fn bfind(ty: Type) -> Option<Run> {
    // No bit found: 31 - 32 wraps to all ones.
    typed_lanes!(ty, [U32: u32, S32: i32, U64: u64, S64: i64], (d: u32; a: T) {
        d = (T::BITS - 1).wrapping_sub(a.magnitude().leading_zeros());
    })
}

fn bfind_shiftamt(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [U32: u32, S32: i32, U64: u64, S64: i64], (d: u32; a: T) {
        let zeros = a.magnitude().leading_zeros();
        d = if zeros == T::BITS { !0 } else { zeros };
    })
}

/// The `offset`-th set bit from `base` on, upwards or downwards; offset 0 asks for the bit at `base` itself. A base beyond
/// 31 is undefined in the ISA; here nothing is found.
#[inline(always)]
fn nth_set(mask: u32, base: u32, offset: i32) -> u32 {
    if base > 31 {
        return !0;
    }
    if offset == 0 {
        return if mask >> base & 1 != 0 { base } else { !0 };
    }
    let up = offset > 0;
    let mut left = if up { mask & (!0 << base) } else { mask & (!0 >> (31 - base)) };
    if offset.unsigned_abs() > left.count_ones() {
        return !0;
    }
    for _ in 1..offset.unsigned_abs() {
        left &= !(if up { 1 << left.trailing_zeros() } else { 1 << (31 - left.leading_zeros()) });
    }
    if up { left.trailing_zeros() } else { 31 - left.leading_zeros() }
}

fn bfe(ty: Type) -> Option<Run> {
    match ty {
        U32 | U64 => typed_lanes!(ty, [U32: u32, U64: u64], (d: T; a: T, b: u32, c: u32) {
            let (pos, len) = (b & 0xff, c & 0xff);
            let field = !T::MAX.checked_shl(len).unwrap_or(0);
            d = a.checked_shr(pos).unwrap_or(0) & field;
        }),
        // The field's top bit goes to the register's top bit and comes back with its sign.
        _ => typed_lanes!(ty, [S32: i32, S64: i64], (d: T; a: T, b: u32, c: u32) {
            let (pos, len) = (b & 0xff, c & 0xff);
            let top = (pos + len).min(T::BITS);
            let up = T::BITS - top;
            let signed = a.wrapping_shl(up) >> (up + pos).min(T::BITS - 1);
            d = if len == 0 { 0 } else { signed };
        }),
    }
}

fn bfi(ty: Type) -> Option<Run> {
    typed_lanes!(ty, [B32: u32, B64: u64], (d: T; a: T, b: T, c: u32, n: u32) {
        let (pos, len) = (c & 0xff, n & 0xff);
        let field = (!T::MAX.checked_shl(len).unwrap_or(0)).checked_shl(pos).unwrap_or(0);
        d = b & !field | a.checked_shl(pos).unwrap_or(0) & field;
    })
}

/// The low `n` bits set.
#[inline(always)]
fn ones(n: u32) -> u32 {
    !u32::MAX.checked_shl(n).unwrap_or(0)
}

fn szext_clamp(ty: Type) -> Option<Run> {
    match ty {
        U32 => Some(szext_clamp_u32()),
        S32 => Some(szext_clamp_s32()),
        _ => None,
    }
}

fn szext_wrap(ty: Type) -> Option<Run> {
    match ty {
        U32 => Some(szext_wrap_u32()),
        S32 => Some(szext_wrap_s32()),
        _ => None,
    }
}

/// The low `n` bits of `x` as a signed number; 0 for no bits.
#[inline(always)]
fn sign_extend(x: u32, n: u32) -> u32 {
    let up = 32 - n.min(32);
    let extended = ((x.wrapping_shl(up) as i32) >> (up & 31)) as u32;
    if n == 0 { 0 } else { extended }
}

lanes! {
    fn fns(d: u32; bits: u32, base: u32, offset: i32) { d = nth_set(bits, base, offset); }
    fn bmsk_clamp(d: u32; a: u32, b: u32) { d = ones(b).checked_shl(a).unwrap_or(0); }
    fn bmsk_wrap(d: u32; a: u32, b: u32) { d = ones(b & 31) << (a & 31); }
    fn szext_clamp_u32(d: u32; a: u32, b: u32) { d = a & ones(b); }
    fn szext_clamp_s32(d: u32; a: u32, b: u32) { d = sign_extend(a, b); }
    fn szext_wrap_u32(d: u32; a: u32, b: u32) { d = a & ones(b & 31); }
    fn szext_wrap_s32(d: u32; a: u32, b: u32) { d = sign_extend(a, b & 31); }
}
