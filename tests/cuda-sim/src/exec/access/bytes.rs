//! Bytes between registers and memory, once their addresses have been checked.

use super::*;

/// Copies `N` bytes of each lane.
///
/// # Safety
/// They lie in the piece, and at `to + address`.
pub(super) unsafe fn copy_each<const N: usize>(piece: &Piece, to: *mut u8, addresses: &Addresses) {
    for l in each(piece.lanes) {
        unsafe {
            let from = piece.data.add(piece.offsets[l] as usize) as *const [u8; N];
            *(to.add(addresses[l] as usize) as *mut [u8; N]) = *from;
        }
    }
}

/// A value of fewer than 64 bits as its register holds it.
#[inline(always)]
pub(super) fn extended(raw: u64, element: u32, extend: u32) -> u64 {
    if extend == 0 || element >= 8 {
        return raw;
    }
    let shift = 64 - 8 * element;
    let wide = ((raw << shift) as i64 >> shift) as u64;
    if extend >= 64 { wide } else { wide & ((1 << extend) - 1) }
}

/// # Safety
/// `bytes` bytes can be read at `place`.
#[inline(always)]
pub(super) unsafe fn read_bytes(place: *const u8, bytes: usize) -> u64 {
    unsafe {
        match bytes {
            1 => *place as u64,
            2 => (place as *const u16).read_unaligned() as u64,
            4 => (place as *const u32).read_unaligned() as u64,
            _ => (place as *const u64).read_unaligned(),
        }
    }
}

/// # Safety
/// `bytes` bytes can be written at `place`.
#[inline(always)]
pub(super) unsafe fn write_bytes(place: *mut u8, bytes: usize, value: u64) {
    unsafe {
        match bytes {
            1 => *place = value as u8,
            2 => (place as *mut u16).write_unaligned(value as u16),
            4 => (place as *mut u32).write_unaligned(value as u32),
            _ => (place as *mut u64).write_unaligned(value),
        }
    }
}

/// Loads the registers of the lanes.
///
/// # Safety
/// `element * registers` bytes at each offset lie in the memory at `data`; the registers have the units that `access` says.
pub(super) unsafe fn gather(
    data: *const u8,
    offsets: &Addresses,
    mask: u32,
    access: &Access,
    registers: &[u16],
    file: *mut Unit,
) {
    let stride = access.element as usize * registers.len();
    for (r, &register) in registers.iter().enumerate() {
        let at = r * access.element as usize;
        unsafe {
            let unit = file.add(register as usize);
            match (access.element, access.units[r], access.extend) {
                (4, 1, _) => {
                    let lanes = &mut (*unit).0;
                    if mask == u32::MAX {
                        if offsets[31] == offsets[0] + 31 * 4
                            && stride == 4
                            && (1..32).all(|l| offsets[l] == offsets[l - 1] + 4)
                        {
                            std::ptr::copy_nonoverlapping(
                                data.add(offsets[0] as usize),
                                lanes.as_mut_ptr() as *mut u8,
                                128,
                            );
                        } else {
                            for l in 0..32 {
                                lanes[l] = (data.add(offsets[l] as usize + at) as *const u32).read_unaligned();
                            }
                        }
                    } else {
                        for l in each(mask) {
                            lanes[l] = (data.add(offsets[l] as usize + at) as *const u32).read_unaligned();
                        }
                    }
                }
                (8, 2, _) => {
                    let lanes = &mut *(unit as *mut [u64; 32]);
                    for l in each(mask) {
                        lanes[l] = (data.add(offsets[l] as usize + at) as *const u64).read_unaligned();
                    }
                }
                (16, 4, _) => {
                    let words = unit as *mut u32;
                    for l in each(mask) {
                        let from = data.add(offsets[l] as usize + at) as *const u32;
                        (0..4).for_each(|w| *words.add(4 * l + w) = from.add(w).read_unaligned());
                    }
                }
                (element, units, extend) => {
                    let value = |l: usize| {
                        extended(read_bytes(data.add(offsets[l] as usize + at), element as usize), element, extend)
                    };
                    write_lanes(file, register, units.min(2), mask, value);
                }
            }
        }
    }
}

/// Stores the registers of the lanes. Which of those that hit the same bytes stays is undefined on the hardware; here it is
/// the highest of the lower half, if one is there, so that code shows which counts on the first or on the last of a warp.
///
/// # Safety
/// As for [`gather`].
pub(super) unsafe fn scatter(
    data: *mut u8,
    offsets: &Addresses,
    mask: u32,
    access: &Access,
    registers: &[u16],
    file: *const Unit,
) {
    let stride = access.element as usize * registers.len();
    unsafe {
        if access.element == 4 && stride == 4 && access.units[0] == 1 && mask == u32::MAX {
            let lanes = &(*file.add(registers[0] as usize)).0;
            if contiguous(offsets, 4) {
                std::ptr::copy_nonoverlapping(lanes.as_ptr() as *const u8, data.add(offsets[0] as usize), 128);
            } else {
                for l in (16..32).chain(0..16) {
                    (data.add(offsets[l] as usize) as *mut u32).write_unaligned(lanes[l]);
                }
            }
            return;
        }
        for l in each(mask & 0xffff_0000).chain(each(mask & 0xffff)) {
            for (r, &register) in registers.iter().enumerate() {
                let place = data.add(offsets[l] as usize + r * access.element as usize);
                let words = file.add(register as usize) as *const u32;
                match access.units[r] {
                    1 => write_bytes(place, access.element as usize, *words.add(l) as u64),
                    2 => write_bytes(place, access.element as usize, *(words as *const u64).add(l)),
                    _ => (0..4).for_each(|w| (place as *mut u32).add(w).write_unaligned(*words.add(4 * l + w))),
                }
            }
        }
    }
}

/// Whether memory already holds what a lane is about to store.
///
/// # Safety
/// As for [`gather`], for this lane.
pub(super) unsafe fn holds(
    data: *const u8,
    offset: u64,
    access: &Access,
    registers: &[u16],
    file: *const Unit,
    lane: usize,
) -> bool {
    let mut new = [0u8; 32];
    let mut one = [0u64; 32];
    one[lane] = 0;
    let bytes = access.element as usize * registers.len();
    unsafe {
        scatter(new.as_mut_ptr(), &one, 1 << lane, access, registers, file);
        std::slice::from_raw_parts(data.add(offset as usize), bytes) == &new[..bytes]
    }
}

/// Where a byte of a lane's local memory is (see `Warp::local`).
pub(super) fn interleaved(offset: usize, lane: usize) -> usize {
    (offset / 4 * 32 + lane) * 4 + offset % 4
}

pub(in crate::exec) fn read_local(local: &[u8], offset: usize, lane: usize, bytes: usize) -> u64 {
    (0..bytes).fold(0, |v, i| v | (local[interleaved(offset + i, lane)] as u64) << (8 * i))
}

pub(in crate::exec) fn write_local(local: &mut [u8], offset: usize, lane: usize, bytes: usize, value: u64) {
    (0..bytes).for_each(|i| local[interleaved(offset + i, lane)] = (value >> (8 * i)) as u8);
}
