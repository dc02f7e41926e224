//! The shapes in which the lanes of a warp touch memory, so that the common ones are handled as one.

use super::Access;

/// The whole warp: lane `i` touches the `bytes` bytes behind those of lane `i - 1`.
#[inline]
pub(super) fn contiguous(a: &Access) -> bool {
    let first = a.addresses[0];
    a.mask == u32::MAX
        && (0..32u64).fold(0, |d, i| d | (a.addresses[i as usize].wrapping_sub(first) ^ i * a.bytes as u64)) == 0
}

/// The different addresses that neighbouring lanes have, with their lanes, at most 32; and the number of them. If the two
/// half warps have the same addresses, they count as neighbours too.
#[inline]
pub(super) fn runs(a: &Access) -> ([(u64, u32); 32], usize) {
    let mut runs = [(0, 0); 32];
    let mut count = 0usize;
    let halves = a.mask == u32::MAX && a.addresses[..16] == a.addresses[16..];
    let mut mask = if halves { a.mask & 0xffff } else { a.mask };
    while mask != 0 {
        let lane = mask.trailing_zeros();
        mask &= mask - 1;
        let address = a.addresses[lane as usize];
        let bits = if halves { 0x1_0001 << lane } else { 1 << lane };
        if count > 0 && runs[count - 1].0 == address {
            runs[count - 1].1 |= bits;
        } else {
            runs[count] = (address, bits);
            count += 1;
        }
    }
    (runs, count)
}

/// Makes the addresses of runs different from each other; returns how many remain.
pub(super) fn distinct(runs: &mut [(u64, u32); 32], count: usize) -> usize {
    if runs[..count].is_sorted_by(|a, b| a.0 < b.0) {
        return count;
    }
    runs[..count].sort_unstable();
    let mut kept = 0;
    for i in 1..count {
        if runs[i].0 == runs[kept].0 {
            runs[kept].1 |= runs[i].1;
        } else {
            kept += 1;
            runs[kept] = runs[i];
        }
    }
    kept + 1
}

/// The largest power of two, at most 16, that divides all executing lanes' addresses and the size.
#[inline]
pub(super) fn granule(a: &Access) -> u32 {
    let mut bits = a.bytes as u64 | 16;
    if a.mask == u32::MAX {
        bits |= a.addresses.iter().fold(0, |d, x| d | x);
    } else {
        bits |= super::clock::ones(a.mask).fold(0, |d, lane| d | a.addresses[lane as usize]);
    }
    bits.trailing_zeros()
}

/// The bit of the lane that touches cell `i`, if each lane touches `K` cells in a row.
pub(super) struct Pattern<const K: usize>;

impl<const K: usize> Pattern<K> {
    const fn lanes<const N: usize>() -> [u32; N] {
        let mut lanes = [0; N];
        let mut i = 0;
        while i < N {
            lanes[i] = 1 << (i / K);
            i += 1;
        }
        lanes
    }
}

static ONE: [u32; 32] = Pattern::<1>::lanes();
static TWO: [u32; 64] = Pattern::<2>::lanes();
static FOUR: [u32; 128] = Pattern::<4>::lanes();

/// The lane bits of the cells of a contiguous access, where they are at hand.
#[inline]
pub(super) fn pattern(cells_a_lane: usize) -> Option<&'static [u32]> {
    match cells_a_lane {
        1 => Some(&ONE),
        2 => Some(&TWO),
        4 => Some(&FOUR),
        _ => None,
    }
}
