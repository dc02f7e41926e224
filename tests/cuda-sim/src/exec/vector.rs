//! Arithmetic over the addresses of 32 lanes, compiled for AVX2 where the processor has it.

// Several arrays go in step.
#![allow(clippy::needless_range_loop)]

use crate::lanes::{Unit, wide};

pub(super) type Addresses = [u64; 32];

macro_rules! vector {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        #[inline]
        pub(super) fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
                fn fast($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                if wide() {
                    // SAFETY: the processor has these features.
                    return unsafe { fast($($arg),*) };
                }
            }
            body($($arg),*)
        }
    )*};
}

vector! {
    /// The bits of all offsets from `base` together, and those of all addresses.
    fn united(all: &Addresses, base: u64) -> (u64, u64) {
        all.iter().fold((0, 0), |(offsets, addresses), &a| (offsets | a.wrapping_sub(base), addresses | a))
    }

    /// The largest offset from `base`.
    fn most(all: &Addresses, base: u64) -> u64 {
        all.iter().fold(0, |most, &a| most.max(a.wrapping_sub(base)))
    }

    /// Whether every address is as far from the first as it was.
    fn repeats(all: &Addresses, relative: &Addresses) -> bool {
        let first = all[0];
        let mut different = 0;
        for l in 0..32 {
            different |= all[l].wrapping_sub(first) ^ relative[l];
        }
        different == 0
    }

    /// Whether each address is `bytes` behind the one before.
    fn contiguous(all: &Addresses, bytes: u64) -> bool {
        let first = all[0];
        let mut different = 0;
        for l in 0..32 {
            different |= all[l].wrapping_sub(first) ^ (l as u64 * bytes);
        }
        different == 0
    }

    /// Whether all addresses are in the same window of 4 GiB.
    fn together(all: &Addresses) -> bool {
        all.iter().fold(0, |d, a| d | (a ^ all[0])) >> 32 == 0
    }

    /// A 32-bit register plus an offset.
    fn narrow(unit: &Unit, offset: u64, out: &mut Addresses) {
        for l in 0..32 {
            out[l] = unit.0[l].wrapping_add(offset as u32) as u64;
        }
    }

    /// A 64-bit register plus an offset.
    fn plus(all: &Addresses, offset: u64, out: &mut Addresses) {
        for l in 0..32 {
            out[l] = all[l].wrapping_add(offset);
        }
    }

    /// Gives the lanes outside of `mask` the value of its first.
    fn fill(values: &mut Addresses, mask: u32) {
        if mask != u32::MAX {
            let first = values[mask.trailing_zeros() as usize & 31];
            for l in 0..32 {
                values[l] = if mask >> l & 1 != 0 { values[l] } else { first };
            }
        }
    }
}

/// Whether accesses of `bytes`, a power of two, to all addresses are aligned and within `size` bytes from `base`.
#[inline]
pub(super) fn inside(all: &Addresses, bytes: u64, base: u64, size: u64) -> bool {
    let Some(last) = size.checked_sub(bytes) else { return false };
    let (offsets, addresses) = united(all, base);
    // No offset is larger than all their bits together, which is less work than the largest.
    addresses & (bytes - 1) == 0 && (offsets <= last || most(all, base) <= last)
}
