//! The contract between the instructions and the interpreter: a register file of 32 lanes, and instructions as functions
//! over it.
//!
//! A warp's registers are one array of [`Unit`]s. A unit holds 32 lanes of 32 bits. A 64-bit register is two units in a
//! row, read as `[u64; 32]`, a 128-bit one four, read as `[u128; 32]`; a predicate is one unit whose first word has a bit a
//! lane. 8- and 16-bit values lie
//! **zero-extended** in a 32-bit lane, whatever their sign; every instruction that writes one keeps that.
//! Constants and special registers are units too, filled before the warp starts, so an instruction never asks where an
//! operand comes from.

use crate::ptx::ast::{Instruction, Type};

/// 32 lanes of 32 bits.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Unit(pub [u32; 32]);

/// Executes an instruction for the lanes of `mask`; lanes outside keep their registers.
///
/// # Safety
/// `file` points at the warp's register file; `operands` has an entry for each slot of the form, and each lies in the file,
/// 64-bit ones with their second unit. The processor has what the function was compiled for ([`wide`]).
pub type Run = unsafe fn(file: *mut Unit, operands: &[u16], mask: u32);

/// What an operand is to its instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Written in the lanes of the mask.
    Out,
    /// Read.
    In,
}

/// One register operand of a form, in the order in which they are written: `d`, `p|q` as two, `{a, b}` as two, then the
/// sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Slot {
    pub role: Role,
    /// The type as which the instruction reads it: its width, and how an immediate in its place becomes bits.
    pub ty: Type,
}

/// What an instruction is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Class {
    /// add, mul, mad, logic, shifts, min/max, dp4a ... on integers
    Integer,
    /// add, mul, min, max, neg, abs in f32 (not fma)
    Float32,
    /// fma.f32
    Fma32,
    /// everything in f64
    Float64,
    /// f16, bf16 and packed arithmetic
    Half,
    /// rcp, rsqrt, sqrt, ex2, lg2, sin, cos, tanh, div
    Special,
    /// cvt
    Convert,
    /// setp, set, selp, slct, predicate logic
    Compare,
    /// mov, cvta, packing, prmt of registers
    Move,
    /// bra, call, ret, exit, brx
    Control,
    LoadGlobal,
    StoreGlobal,
    LoadShared,
    StoreShared,
    LoadLocal,
    StoreLocal,
    LoadConst,
    LoadParam,
    /// ld/st without a state space
    LoadGeneric,
    StoreGeneric,
    /// atom and red
    Atomic,
    /// cp.async and its groups
    AsyncCopy,
    /// ldmatrix, stmatrix, wmma.load, wmma.store
    Matrix,
    /// mma, wmma.mma
    Tensor,
    /// shfl, vote, match, redux, activemask
    Warp,
    /// bar, barrier, bar.warp, membar, fence
    Barrier,
    /// nanosleep, prefetch, nop
    Other,
}

/// An instruction that touches registers only: what it does and which operands it has.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Form {
    pub run: Run,
    pub slots: Vec<Slot>,
    pub class: Class,
    /// Fused multiply-adds: a lane (2 for fma.f16x2), or the whole warp for `mma` (m*n*k).
    pub fma: u32,
    /// How the lanes must come together before it executes.
    pub sync: Sync,
}

/// Which lanes an instruction waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// None: every lane for itself.
    No,
    /// The lanes of the member mask, which is the operand with this index.
    Mask(u8),
    /// All lanes of the warp: `.aligned` without a member mask.
    Warp,
}

/// Why an instruction is refused when a module is loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

/// An instruction family: `None` if the opcode is not of the family, an error if it is but this form is not known.
/// `register` tells the declared type of a register operand.
pub type Family =
    fn(instruction: &Instruction, register: &dyn Fn(&str) -> Option<Type>) -> Result<Option<Form>, Unsupported>;

/// Whether this processor has what the wide variants are compiled for: AVX2, FMA, F16C, BMI.
pub fn wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        static WIDE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *WIDE.get_or_init(|| {
            std::env::var_os("CUDA_SIM_PORTABLE").is_none()
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt")
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// A type that a lane can be read as and written from.
pub trait Lane: Copy {
    /// All 32 lanes of the register at `slot`.
    /// # Safety
    /// The slot, and for 64 bits the next, lie in the file.
    unsafe fn read(file: *const Unit, slot: u16) -> [Self; 32];
    /// Writes the lanes of `mask`.
    /// # Safety
    /// As for `read`.
    unsafe fn write(file: *mut Unit, slot: u16, value: &[Self; 32], mask: u32);
}

macro_rules! lane {
    ($($t:ty as $raw:ty: $from:expr, $to:expr;)*) => {$(
        impl Lane for $t {
            #[inline(always)]
            unsafe fn read(file: *const Unit, slot: u16) -> [Self; 32] {
                let raw = unsafe { *(file.add(slot as usize) as *const [$raw; 32]) };
                let mut out = [<$t>::default(); 32];
                for l in 0..32 { out[l] = $from(raw[l]); }
                out
            }
            #[inline(always)]
            unsafe fn write(file: *mut Unit, slot: u16, value: &[Self; 32], mask: u32) {
                let to = unsafe { &mut *(file.add(slot as usize) as *mut [$raw; 32]) };
                if mask == u32::MAX {
                    for l in 0..32 { to[l] = $to(value[l]); }
                } else {
                    // Without a branch: a lane's bit becomes a mask over its value.
                    for l in 0..32 {
                        let written = ((mask >> l & 1) as $raw).wrapping_neg();
                        to[l] = $to(value[l]) & written | to[l] & !written;
                    }
                }
            }
        }
    )*};
}
lane! {
    u32 as u32: |x| x, |x| x;
    i32 as u32: |x: u32| x as i32, |x: i32| x as u32;
    f32 as u32: f32::from_bits, f32::to_bits;
    u16 as u32: |x: u32| x as u16, |x: u16| x as u32;
    i16 as u32: |x: u32| x as i16, |x: i16| x as u16 as u32;
    u8 as u32: |x: u32| x as u8, |x: u8| x as u32;
    i8 as u32: |x: u32| x as i8, |x: i8| x as u8 as u32;
    u64 as u64: |x| x, |x| x;
    i64 as u64: |x: u64| x as i64, |x: i64| x as u64;
    f64 as u64: f64::from_bits, f64::to_bits;
    u128 as u128: |x| x, |x| x;
}

impl Lane for bool {
    #[inline(always)]
    unsafe fn read(file: *const Unit, slot: u16) -> [bool; 32] {
        let bits = unsafe { predicate(file, slot) };
        let mut out = [false; 32];
        #[allow(clippy::needless_range_loop, reason = "a lane's number is also its bit")]
        for l in 0..32 {
            out[l] = bits >> l & 1 != 0;
        }
        out
    }
    #[inline(always)]
    unsafe fn write(file: *mut Unit, slot: u16, value: &[bool; 32], mask: u32) {
        unsafe { set_predicate(file, slot, pack(value), mask) }
    }
}

/// Picks the variant for this processor. Only x86-64 has two kinds; elsewhere the first is compiled for any processor.
pub fn pick(wide_variant: Run, portable: Run) -> Run {
    if wide() || cfg!(not(target_arch = "x86_64")) { wide_variant } else { portable }
}

/// Defines `fn name() -> Run`: an instruction given as what one lane computes. Outputs first, then inputs, in slot order.
///
/// ```ignore
/// lanes! { pub(crate) fn add_u32(d: u32; a: u32, b: u32) { d = a.wrapping_add(b); } }
/// ```
/// The body is compiled twice, once for AVX2 with FMA, and is written for one lane: the compiler vectorises the loop.
/// Everything that it calls and that matters for speed must be `#[inline(always)]`; closures are not inlined into the wide
/// variant reliably, so it has none.
#[macro_export]
#[doc(hidden)]
macro_rules! lanes {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($out:ident: $o:ty),* ; $($in:ident: $t:ty),*) $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name() -> $crate::lanes::Run {
            #[inline(always)]
            #[allow(unused_mut, unused_assignments, unused_variables, clippy::needless_range_loop)]
            unsafe fn body(file: *mut $crate::lanes::Unit, operands: &[u16], mask: u32) {
                let mut slots = operands.as_ptr();
                $(let $out = unsafe { *slots }; slots = unsafe { slots.add(1) };)*
                $(let $in = unsafe { <$t as $crate::lanes::Lane>::read(file, *slots) }; slots = unsafe { slots.add(1) };)*
                #[allow(non_camel_case_types)]
                struct Outs { $($out: [$o; 32]),* }
                let mut outs = Outs { $($out: [<$o>::default(); 32]),* };
                for l in 0..32 {
                    $(let $in = $in[l];)*
                    $(let mut $out: $o;)*
                    $body
                    $(outs.$out[l] = $out;)*
                }
                $(unsafe { <$o as $crate::lanes::Lane>::write(file, $out, &outs.$out, mask) };)*
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
            unsafe fn wide(file: *mut $crate::lanes::Unit, operands: &[u16], mask: u32) {
                unsafe { body(file, operands, mask) }
            }
            #[cfg(not(target_arch = "x86_64"))]
            use body as wide;
            unsafe fn plain(file: *mut $crate::lanes::Unit, operands: &[u16], mask: u32) {
                unsafe { body(file, operands, mask) }
            }
            $crate::lanes::pick(wide, plain)
        }
    )*};
}

/// The `Run` of a lane function that is the same for several types: `Some` if `$ty` is one of them. In the signature and the
/// body, `T` is the lane type.
///
/// ```ignore
/// typed_lanes!(ty, [U16: u16, U32: u32, U64: u64], (d: T; a: T, b: T) { d = a.wrapping_add(b); })
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! typed_lanes {
    ($ty:expr, [$($variant:ident: $lane:ty),* $(,)?], $signature:tt $body:tt) => {
        match $ty {
            $($crate::ptx::ast::Type::$variant => Some($crate::typed_lanes!(@one $lane, $signature $body)),)*
            _ => None,
        }
    };
    (@one $lane:ty, ($($out:ident: $o:ty),*; $($in:ident: $t:ty),*) $body:block) => {{
        #[allow(dead_code)]
        type T = $lane;
        $crate::lanes! { fn run($($out: $o),*; $($in: $t),*) $body }
        run()
    }};
}

/// The lanes of a predicate, a bit each.
///
/// # Safety
/// The slot lies in the file.
#[inline(always)]
pub unsafe fn predicate(file: *const Unit, slot: u16) -> u32 {
    unsafe { (*file.add(slot as usize)).0[0] }
}

/// Writes a predicate in the lanes of `mask`.
///
/// # Safety
/// The slot lies in the file.
#[inline(always)]
pub unsafe fn set_predicate(file: *mut Unit, slot: u16, bits: u32, mask: u32) {
    let to = unsafe { &mut (*file.add(slot as usize)).0[0] };
    *to = *to & !mask | bits & mask;
}

/// A bit a lane.
#[inline(always)]
pub fn pack(lanes: &[bool; 32]) -> u32 {
    let mut bits = 0;
    #[allow(clippy::needless_range_loop, reason = "a lane's number is also its bit")]
    for l in 0..32 {
        bits |= (lanes[l] as u32) << l;
    }
    bits
}

/// Shorthands for slots.
pub fn output(ty: Type) -> Slot {
    Slot { role: Role::Out, ty }
}

/// Shorthands for slots.
pub fn input(ty: Type) -> Slot {
    Slot { role: Role::In, ty }
}

impl Form {
    /// One output and inputs, no synchronisation.
    pub fn new(run: Run, class: Class, out: Type, inputs: &[Type]) -> Form {
        let slots = std::iter::once(output(out)).chain(inputs.iter().map(|&t| input(t))).collect();
        Form { run, slots, class, fma: 0, sync: Sync::No }
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    lanes! {
        fn add(d: u32; a: u32, b: u32) { d = a.wrapping_add(b); }
        fn less(p: bool, q: bool; a: f32, b: f32) { p = a < b; q = !p; }
        fn widen(d: u64; a: i32) { d = a as i64 as u64; }
    }

    #[test]
    fn lanes_outside_the_mask_keep_their_registers() {
        let mut file = [Unit([0; 32]); 6];
        file[1].0 = std::array::from_fn(|l| l as u32);
        file[2].0 = [10; 32];
        unsafe { add()(file.as_mut_ptr(), &[0, 1, 2], 0xffff_0000) };
        for l in 0..32 {
            assert_eq!(file[0].0[l], if l < 16 { 0 } else { l as u32 + 10 });
        }
        file[1].0[5] = 1.0f32.to_bits();
        file[2].0 = [0.5f32.to_bits(); 32];
        file[3].0[0] = 0x8000_0000;
        unsafe { less()(file.as_mut_ptr(), &[3, 4, 1, 2], 0x0000_ffff) };
        assert_eq!(file[3].0[0], 0x8000_ffff & !(1 << 5));
        assert_eq!(file[4].0[0], 1 << 5);
        file[1].0 = [(-3i32) as u32; 32];
        unsafe { widen()(file.as_mut_ptr(), &[4, 1], u32::MAX) };
        assert_eq!(unsafe { u64::read(file.as_ptr(), 4) }, [(-3i64) as u64; 32]);
    }
}
