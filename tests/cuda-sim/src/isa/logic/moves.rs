//! mov with its packing and unpacking, cvta, isspacep.
//!
//! Generic addresses: constant and global memory lie in them as they are, the other spaces in windows of 4 GiB. An address
//! within a space counts from 0.

use super::{Parts, bitwise};
use crate::lanes::{Class, Form, Run, Sync, input, output};
use crate::ptx::ast::Operand;
use crate::ptx::ast::Type::{self, *};
use crate::{lanes, typed_lanes};

/// Where shared memory begins in generic addresses.
pub const SHARED_WINDOW: u64 = 1 << 32;
/// Where local memory begins in generic addresses.
pub const LOCAL_WINDOW: u64 = 2 << 32;
/// Where kernel parameters begin in generic addresses.
pub const PARAM_WINDOW: u64 = 3 << 32;
/// The bytes of each window.
pub const WINDOW_BYTES: u64 = 1 << 32;

pub(super) fn form(parts: &Parts) -> Option<Form> {
    if let ("mov", [], [Pred]) = (parts.opcode, &parts.others[..], &parts.types[..]) {
        return Some(Form::new(bitwise::copy(parts.negated(1)), Class::Move, Pred, &[Pred]));
    }
    if parts.any_negated() {
        return None;
    }
    match (parts.opcode, &parts.others[..], &parts.types[..]) {
        ("mov", [], &[ty]) => match parts.operands {
            [Operand::Vector(elements), _] => unpack(ty, elements.len()),
            [_, Operand::Vector(elements)] => pack(ty, elements.len()),
            _ => Some(Form::new(mov(ty)?, Class::Move, ty, &[ty])),
        },
        ("cvta", [space], [U64]) => Some(Form::new(to_generic(space)?, Class::Move, U64, &[U64])),
        ("cvta", ["to", space], [U64]) => Some(Form::new(from_generic(space)?, Class::Move, U64, &[U64])),
        ("isspacep", [space], []) => Some(Form::new(is_space(space)?, Class::Compare, Pred, &[U64])),
        _ => None,
    }
}

/// Moves copy bits; 16-bit ones cut what is wider (a special register).
fn mov(ty: Type) -> Option<Run> {
    typed_lanes!(
        ty,
        [
            B16: u16, U16: u16, S16: u16, B32: u32, U32: u32, S32: u32, F32: u32,
            B64: u64, U64: u64, S64: u64, F64: u64, B128: u128
        ],
        (d: T; a: T) { d = a; }
    )
}

/// The element type of a packed value.
fn element(ty: Type, count: usize) -> Option<Type> {
    if !matches!(ty, B16 | B32 | B64 | B128) {
        return None;
    }
    Some(match (ty.bits() as usize).checked_div(count)? {
        8 => B8,
        16 => B16,
        32 => B32,
        64 => B64,
        _ => return None,
    })
}

fn pack(ty: Type, count: usize) -> Option<Form> {
    let element = element(ty, count)?;
    let run = match (ty, element) {
        (B16, B8) => pack_2x8(),
        (B32, B8) => pack_4x8(),
        (B32, B16) => pack_2x16(),
        (B64, B16) => pack_4x16(),
        (B64, B32) => pack_2x32(),
        (B128, B32) => pack_4x32(),
        (B128, B64) => pack_2x64(),
        _ => return None,
    };
    (element.bits() as usize * count == ty.bits() as usize)
        .then(|| Form::new(run, Class::Move, ty, &vec![element; count]))
}

fn unpack(ty: Type, count: usize) -> Option<Form> {
    let element = element(ty, count)?;
    let run = match (ty, element) {
        (B16, B8) => unpack_2x8(),
        (B32, B8) => unpack_4x8(),
        (B32, B16) => unpack_2x16(),
        (B64, B16) => unpack_4x16(),
        (B64, B32) => unpack_2x32(),
        (B128, B32) => unpack_4x32(),
        (B128, B64) => unpack_2x64(),
        _ => return None,
    };
    let mut slots = vec![output(element); count];
    slots.push(input(ty));
    (element.bits() as usize * count == ty.bits() as usize).then_some(Form {
        run,
        slots,
        class: Class::Move,
        fma: 0,
        sync: Sync::No,
    })
}

fn to_generic(space: &str) -> Option<Run> {
    Some(match space {
        "const" | "global" => mov(U64)?,
        "shared" | "shared::cta" => shared_to_generic(),
        "local" => local_to_generic(),
        "param" | "param::entry" => param_to_generic(),
        _ => return None,
    })
}

fn from_generic(space: &str) -> Option<Run> {
    Some(match space {
        "const" | "global" => mov(U64)?,
        "shared" | "shared::cta" => shared_from_generic(),
        "local" => local_from_generic(),
        "param" | "param::entry" => param_from_generic(),
        _ => return None,
    })
}

/// Whether a generic address lies in a space. Constant memory has no window of its own, so it cannot be told here.
fn is_space(space: &str) -> Option<Run> {
    Some(match space {
        "shared" | "shared::cta" => is_shared(),
        "local" => is_local(),
        "param" | "param::entry" => is_param(),
        "global" => is_global(),
        _ => return None,
    })
}

#[inline(always)]
fn within(address: u64, window: u64) -> bool {
    address >> 32 == window >> 32
}

lanes! {
    fn pack_2x8(d: u16; a: u8, b: u8) { d = a as u16 | (b as u16) << 8; }
    fn pack_4x8(d: u32; a: u8, b: u8, e: u8, f: u8) {
        d = a as u32 | (b as u32) << 8 | (e as u32) << 16 | (f as u32) << 24;
    }
    fn pack_2x16(d: u32; a: u16, b: u16) { d = a as u32 | (b as u32) << 16; }
    fn pack_4x16(d: u64; a: u16, b: u16, e: u16, f: u16) {
        d = a as u64 | (b as u64) << 16 | (e as u64) << 32 | (f as u64) << 48;
    }
    fn pack_2x32(d: u64; a: u32, b: u32) { d = a as u64 | (b as u64) << 32; }
    fn pack_4x32(d: u128; a: u32, b: u32, e: u32, f: u32) {
        d = a as u128 | (b as u128) << 32 | (e as u128) << 64 | (f as u128) << 96;
    }
    fn pack_2x64(d: u128; a: u64, b: u64) { d = a as u128 | (b as u128) << 64; }

    fn unpack_2x8(a: u8, b: u8; d: u16) { a = d as u8; b = (d >> 8) as u8; }
    fn unpack_4x8(a: u8, b: u8, e: u8, f: u8; d: u32) {
        a = d as u8;
        b = (d >> 8) as u8;
        e = (d >> 16) as u8;
        f = (d >> 24) as u8;
    }
    fn unpack_2x16(a: u16, b: u16; d: u32) { a = d as u16; b = (d >> 16) as u16; }
    fn unpack_4x16(a: u16, b: u16, e: u16, f: u16; d: u64) {
        a = d as u16;
        b = (d >> 16) as u16;
        e = (d >> 32) as u16;
        f = (d >> 48) as u16;
    }
    fn unpack_2x32(a: u32, b: u32; d: u64) { a = d as u32; b = (d >> 32) as u32; }
    fn unpack_4x32(a: u32, b: u32, e: u32, f: u32; d: u128) {
        a = d as u32;
        b = (d >> 32) as u32;
        e = (d >> 64) as u32;
        f = (d >> 96) as u32;
    }
    fn unpack_2x64(a: u64, b: u64; d: u128) { a = d as u64; b = (d >> 64) as u64; }

    fn shared_to_generic(d: u64; a: u64) { d = a.wrapping_add(SHARED_WINDOW); }
    fn local_to_generic(d: u64; a: u64) { d = a.wrapping_add(LOCAL_WINDOW); }
    fn param_to_generic(d: u64; a: u64) { d = a.wrapping_add(PARAM_WINDOW); }
    fn shared_from_generic(d: u64; a: u64) { d = a.wrapping_sub(SHARED_WINDOW); }
    fn local_from_generic(d: u64; a: u64) { d = a.wrapping_sub(LOCAL_WINDOW); }
    fn param_from_generic(d: u64; a: u64) { d = a.wrapping_sub(PARAM_WINDOW); }

    fn is_shared(p: bool; a: u64) { p = within(a, SHARED_WINDOW); }
    fn is_local(p: bool; a: u64) { p = within(a, LOCAL_WINDOW); }
    fn is_param(p: bool; a: u64) { p = within(a, PARAM_WINDOW); }
    // Parameters are part of the global window.
    fn is_global(p: bool; a: u64) { p = !within(a, SHARED_WINDOW) & !within(a, LOCAL_WINDOW); }
}
