//! selp, slct.

use super::Parts;
use crate::lanes;
use crate::lanes::{Class, Form, Run};
use crate::ptx::ast::Type::{self, *};

pub(super) fn form(parts: &Parts) -> Option<Form> {
    if (0..3).any(|n| parts.negated(n)) {
        return None;
    }
    let form = |run: Run, ty: Type, c: Type| Form::new(run, Class::Compare, ty, &[ty, ty, c]);
    Some(match (parts.opcode, &parts.others[..], &parts.types[..]) {
        ("selp", [], &[ty]) if parts.negated(3) => {
            form(if wide(ty)? { selp_not_64() } else { selp_not_32() }, ty, Pred)
        }
        ("selp", [], &[ty]) => form(if wide(ty)? { selp_64() } else { selp_32() }, ty, Pred),
        (_, _, _) if parts.negated(3) => return None,
        ("slct", [], &[ty, S32]) => form(if wide(ty)? { slct_s32_64() } else { slct_s32_32() }, ty, S32),
        ("slct", [], &[ty, F32]) => form(if wide(ty)? { slct_f32_64() } else { slct_f32_32() }, ty, F32),
        ("slct", ["ftz"], &[ty, F32]) => form(if wide(ty)? { slct_ftz_64() } else { slct_ftz_32() }, ty, F32),
        _ => return None,
    })
}

/// Whether values of the type have 64 bits; none if the instructions do not have the type.
fn wide(ty: Type) -> Option<bool> {
    match ty {
        B16 | U16 | S16 | B32 | U32 | S32 | F32 => Some(false),
        B64 | U64 | S64 | F64 => Some(true),
        _ => None,
    }
}

lanes! {
    fn selp_32(d: u32; a: u32, b: u32, c: bool) { d = if c { a } else { b }; }
    fn selp_64(d: u64; a: u64, b: u64, c: bool) { d = if c { a } else { b }; }
    fn selp_not_32(d: u32; a: u32, b: u32, c: bool) { d = if c { b } else { a }; }
    fn selp_not_64(d: u64; a: u64, b: u64, c: bool) { d = if c { b } else { a }; }
    fn slct_s32_32(d: u32; a: u32, b: u32, c: i32) { d = if c >= 0 { a } else { b }; }
    fn slct_s32_64(d: u64; a: u64, b: u64, c: i32) { d = if c >= 0 { a } else { b }; }
    // -0 selects `a`, NaN `b`.
    fn slct_f32_32(d: u32; a: u32, b: u32, c: f32) { d = if c >= 0.0 { a } else { b }; }
    fn slct_f32_64(d: u64; a: u64, b: u64, c: f32) { d = if c >= 0.0 { a } else { b }; }
    // A negative subnormal is -0.
    fn slct_ftz_32(d: u32; a: u32, b: u32, c: f32) { d = if c > -f32::MIN_POSITIVE { a } else { b }; }
    fn slct_ftz_64(d: u64; a: u64, b: u64, c: f32) { d = if c > -f32::MIN_POSITIVE { a } else { b }; }
}
