//! Memory: loads, stores, asynchronous copies, matrix fragments. `checked` is what an access to a space must pass, `bytes` how
//! what it moves gets there; atomics are in `atomic`.
//!
//! Every access is checked against the allocation it belongs to, strict or not. A lane that does not take part gets the
//! address of one that does, so that the loops over lanes need no branches.

// An access is told by where it stands, who does it, and to what: more than seven things.
#![allow(clippy::too_many_arguments)]

mod atomic;
mod bytes;
mod checked;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use self::bytes::*;
pub(super) use self::bytes::{read_local, write_local};
use super::block::Block;
use super::counters::Pattern;
use super::run::{At, Machine, Result, read_lanes, write_lanes};
use super::vector::{Addresses, contiguous, fill, inside, narrow, plus, together};
use super::warp::{LOCAL_WINDOW, Warp};
use crate::check;
use crate::finding::{Finding, Kind};
use crate::isa::logic::{PARAM_WINDOW, SHARED_WINDOW};
use crate::lanes::Unit;
use crate::memory::{self, Purpose};
use crate::num;
use crate::num::format::{Bf16, F16};
use crate::program::code::*;
use crate::ptx::ast::Type;

/// What an instruction does to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Read,
    Write,
    Atomic,
}

impl Doing {
    fn verb(self) -> &'static str {
        match self {
            Doing::Read => "read",
            Doing::Write => "write",
            Doing::Atomic => "atomic",
        }
    }

    fn check(self) -> check::Kind {
        match self {
            Doing::Read => check::Kind::Read,
            Doing::Write => check::Kind::Write,
            Doing::Atomic => check::Kind::Atomic,
        }
    }
}

/// Lanes whose bytes lie in one piece of host memory, checked.
struct Piece {
    lanes: u32,
    data: *mut u8,
    /// Offsets from `data`; those of other lanes repeat one of `lanes`.
    offsets: Addresses,
    /// Keeps host memory alive while it is used.
    _host: Option<Arc<memory::Block>>,
}

fn each(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |l| mask >> l & 1 != 0)
}

/// The addresses of all lanes.
#[inline(always)]
fn addresses(address: &Address, base: Option<u16>, file: *const Unit, memory: u32, mask: u32) -> Addresses {
    let offset = address.offset as u64;
    let mut all = [offset.wrapping_add(if address.frame { memory as u64 } else { 0 }); 32];
    match (address.base, base) {
        // SAFETY: every place in the code lies in the frame, 64-bit ones with two units.
        (Base::Narrow, Some(slot)) => narrow(unsafe { &*file.add(slot as usize) }, offset, &mut all),
        (Base::Wide, Some(slot)) => plus(unsafe { &*(file.add(slot as usize) as *const Addresses) }, offset, &mut all),
        _ => return all,
    }
    fill(&mut all, mask);
    all
}

impl Machine<'_> {
    /// Splits generic addresses by the window they are in; others are of one space.
    fn spaces(address: &Address, all: &Addresses, lanes: u32) -> ([(Space, u32); 4], usize) {
        let mut found = [(Space::Global, 0); 4];
        if address.space != Space::Generic {
            found[0] = (address.space, lanes);
            return (found, 1);
        }
        if together(all) {
            found[0] = (window(all[0]), lanes);
            return (found, 1);
        }
        let mut count = 0;
        for space in [Space::Global, Space::Shared, Space::Local, Space::Param] {
            let mask = each(lanes).filter(|&l| window(all[l]) == space).fold(0u32, |m, l| m | 1 << l);
            if mask != 0 {
                found[count] = (space, mask);
                count += 1;
            }
        }
        (found, count)
    }

    pub(super) fn load(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        file: *mut Unit,
        frame: u32,
        access: &Access,
        pool: &[u16],
        lanes: u32,
        at: At,
    ) -> Result<()> {
        let operands = access.operands.of(pool);
        let (base, registers) = split(access.address.base, operands);
        let memory = warp.frames[frame as usize].memory;
        let all = addresses(&access.address, base, file, memory, lanes);
        let bytes = access.element * registers.len() as u32;
        let (spaces, count) = Self::spaces(&access.address, &all, lanes);
        for &(space, mask) in &spaces[..count] {
            let mut here = all;
            if count > 1 {
                fill(&mut here, mask);
            }
            match space {
                Space::Local => {
                    self.local(
                        block,
                        warp,
                        &mut here,
                        bytes,
                        mask,
                        Doing::Read,
                        access.address.space == Space::Generic,
                        at,
                    )?;
                    for (r, &register) in registers.iter().enumerate() {
                        let local = &warp.local;
                        let offset = r * access.element as usize;
                        let value = |l: usize| {
                            let raw = read_local(local, here[l] as usize + offset, l, access.element.min(8) as usize);
                            extended(raw, access.element, access.extend)
                        };
                        // SAFETY: the register has that many units.
                        unsafe { write_lanes(file, register, access.units[r].min(2), mask, value) };
                    }
                }
                Space::Param => {
                    let params = self.launch.params;
                    if access.address.space == Space::Generic {
                        here.iter_mut().for_each(|a| *a -= PARAM_WINDOW);
                    }
                    for l in each(mask) {
                        let end = here[l].checked_add(bytes as u64);
                        if end.is_none_or(|e| e > params.len() as u64) || !here[l].is_multiple_of(bytes as u64) {
                            let message =
                                format!("read of {bytes} bytes at parameter offset {}, of {}", here[l], params.len());
                            return Err(self.finding(Kind::OutOfBounds, message, block, warp, at, 1 << l));
                        }
                    }
                    // SAFETY: checked above.
                    unsafe { gather(params.as_ptr(), &here, mask, access, registers, file) };
                }
                Space::Shared => {
                    if access.address.space == Space::Generic {
                        here.iter_mut().for_each(|a| *a -= SHARED_WINDOW);
                    }
                    self.shared(block, warp, &here, bytes, mask, Doing::Read, access.order, at, &mut |_| false)?;
                    // SAFETY: checked by `shared`.
                    unsafe { gather(block.shared.as_ptr(), &here, mask, access, registers, file) };
                }
                Space::Global | Space::Generic => {
                    let pieces = &mut |machine: &mut Self, block: &mut Block, warp: &mut Warp, piece: &Piece| {
                        let _ = (machine, block, warp);
                        // SAFETY: `global` checked the piece.
                        unsafe { gather(piece.data, &piece.offsets, piece.lanes, access, registers, file) };
                        Ok(())
                    };
                    self.global(
                        block,
                        warp,
                        &here,
                        bytes,
                        mask,
                        Doing::Read,
                        access.order,
                        at,
                        &mut |_, _| false,
                        pieces,
                    )?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn store(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        file: *mut Unit,
        frame: u32,
        access: &Access,
        pool: &[u16],
        lanes: u32,
        at: At,
    ) -> Result<()> {
        let operands = access.operands.of(pool);
        let (base, registers) = split(access.address.base, operands);
        let memory = warp.frames[frame as usize].memory;
        let all = addresses(&access.address, base, file, memory, lanes);
        let bytes = access.element * registers.len() as u32;
        if self.strict && access.order.release {
            block.check_fence(warp.index, lanes, access.order.scope);
        }
        let (spaces, count) = Self::spaces(&access.address, &all, lanes);
        for &(space, mask) in &spaces[..count] {
            let mut here = all;
            if count > 1 {
                fill(&mut here, mask);
            }
            match space {
                Space::Local => {
                    self.local(
                        block,
                        warp,
                        &mut here,
                        bytes,
                        mask,
                        Doing::Write,
                        access.address.space == Space::Generic,
                        at,
                    )?;
                    for (r, &register) in registers.iter().enumerate() {
                        // SAFETY: the register has that many units.
                        let values = unsafe { read_lanes(file, register, access.units[r].min(2)) };
                        for l in each(mask) {
                            let offset = here[l] as usize + r * access.element as usize;
                            write_local(&mut warp.local, offset, l, access.element.min(8) as usize, values[l]);
                        }
                    }
                }
                Space::Param => {
                    let message = format!("write of {bytes} bytes to the kernel's parameters");
                    return Err(self.finding(Kind::ReadOnly, message, block, warp, at, mask));
                }
                Space::Shared => {
                    if access.address.space == Space::Generic {
                        here.iter_mut().for_each(|a| *a -= SHARED_WINDOW);
                    }
                    let data = block.shared.as_mut_ptr();
                    // SAFETY: asked only for lanes whose bounds `shared` has checked.
                    let mut same =
                        |l: u32| unsafe { holds(data, here[l as usize], access, registers, file, l as usize) };
                    self.shared(block, warp, &here, bytes, mask, Doing::Write, access.order, at, &mut same)?;
                    // SAFETY: checked by `shared`.
                    unsafe { scatter(data, &here, mask, access, registers, file) };
                }
                Space::Global | Space::Generic => {
                    // SAFETY: asked only for lanes whose bounds `global` has checked.
                    let mut same = |piece: &Piece, l: u32| unsafe {
                        holds(piece.data, piece.offsets[l as usize], access, registers, file, l as usize)
                    };
                    let pieces = &mut |machine: &mut Self, block: &mut Block, warp: &mut Warp, piece: &Piece| {
                        let _ = (machine, block, warp);
                        // SAFETY: `global` checked the piece.
                        unsafe { scatter(piece.data, &piece.offsets, piece.lanes, access, registers, file) };
                        Ok(())
                    };
                    self.global(block, warp, &here, bytes, mask, Doing::Write, access.order, at, &mut same, pieces)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn async_copy(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        file: *mut Unit,
        frame: u32,
        copy: &AsyncCopy,
        pool: &[u16],
        lanes: u32,
        at: At,
    ) -> Result<()> {
        let operands = copy.operands.of(pool);
        let memory = warp.frames[frame as usize].memory;
        let (to_base, rest) = split(copy.to.base, operands);
        let (from_base, rest) = split(copy.from.base, rest);
        let to = addresses(&copy.to, to_base, file, memory, lanes);
        let from = addresses(&copy.from, from_base, file, memory, lanes);
        let mut take = [copy.bytes as u8; 32];
        match copy.limit {
            Limit::All => {}
            Limit::Size => {
                let size = super::run::lane_values(file, rest[0]);
                for l in each(lanes) {
                    if size[l] > copy.bytes {
                        let message = format!("cp.async takes {} bytes of {}", size[l], copy.bytes);
                        return Err(self.finding(Kind::IllegalInstruction, message, block, warp, at, 1 << l));
                    }
                    take[l] = size[l] as u8;
                }
            }
            Limit::Ignore { negate } => {
                // SAFETY: the place lies in the frame.
                let p = unsafe { (*file.add(rest[0] as usize)).0[0] } ^ if negate { u32::MAX } else { 0 };
                each(p & lanes).for_each(|l| take[l] = 0);
            }
        }
        self.bounds_shared(block, warp, &to, copy.bytes, lanes, Doing::Write, at)?;
        let at_op = 2 * (self.op(at) as usize * block.warp_count as usize + warp.index as usize);
        let pattern = self.patterns[at_op].get_or_insert_with(|| Box::new(Pattern::NONE));
        self.counters.shared_store.count(pattern, lanes, &to, copy.bytes);
        if let Some(check) = &mut block.check {
            let access = check::Access {
                warp: warp.index,
                mask: lanes,
                op: self.op(at),
                addresses: &to,
                bytes: copy.bytes,
                kind: check::Kind::Write,
                strong: false,
                scope: check::Scope::Cta,
            };
            if let Some(conflict) = check.async_issue(&access) {
                return Err(self.race(conflict, "shared", block, warp, at));
            }
        }
        // The bytes are there at once; until the wait, the check lets nobody touch them. Lanes that take as much go together.
        let order = Order { strong: false, acquire: false, release: false, scope: check::Scope::Cta };
        let size = copy.bytes as usize;
        let mut left = lanes;
        while left != 0 {
            let n = take[left.trailing_zeros() as usize];
            let group =
                if take == [n; 32] { left } else { each(left).filter(|&l| take[l] == n).fold(0u32, |m, l| m | 1 << l) };
            left &= !group;
            for l in each(group).filter(|_| (n as usize) < size) {
                block.shared[to[l] as usize..][..size].fill(0);
            }
            let mut here = from;
            fill(&mut here, group);
            // part of an element need not be aligned to its own size
            let (step, steps) = if n as usize == size { (size, 1) } else { (1, n as usize) };
            for i in 0..steps {
                let here = if i == 0 { here } else { here.map(|a| a.wrapping_add(i as u64)) };
                let pieces = &mut |_: &mut Self, block: &mut Block, _: &mut Warp, piece: &Piece| {
                    // SAFETY: `global` checked the source, `bounds_shared` the destination.
                    unsafe {
                        let place = block.shared.as_mut_ptr().add(i);
                        match step {
                            1 => copy_each::<1>(piece, place, &to),
                            4 => copy_each::<4>(piece, place, &to),
                            8 => copy_each::<8>(piece, place, &to),
                            _ => copy_each::<16>(piece, place, &to),
                        }
                    }
                    Ok(())
                };
                self.global(block, warp, &here, step as u32, group, Doing::Read, order, at, &mut |_, _| false, pieces)?;
            }
        }
        Ok(())
    }

    pub(super) fn transfer(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        file: *mut Unit,
        frame: u32,
        transfer: &Transfer,
        pool: &[u16],
        lanes: u32,
        at: At,
    ) -> Result<()> {
        let operands = transfer.operands.of(pool);
        let (base, rest) = split(transfer.address.base, operands);
        let memory = warp.frames[frame as usize].memory;
        let all = addresses(&transfer.address, base, file, memory, lanes);
        let layout = &transfer.layout;
        let (stride, registers) = if layout.stride.is_some() {
            let values = super::run::lane_values(file, rest[0]);
            (Some(values[lanes.trailing_zeros() as usize & 31]), &rest[1..])
        } else {
            (None, rest)
        };
        let stride = layout.stride_bytes(stride);
        let doing = if layout.load { Doing::Read } else { Doing::Write };
        let order = Order { strong: false, acquire: false, release: false, scope: check::Scope::Cta };
        let units = layout.ty.bits().div_ceil(32) as u8;
        if transfer.rows && lanes == u32::MAX && transfer.address.space == Space::Shared {
            return self.load_rows(block, warp, file, &all, registers, layout.pieces(0, 0).len() == 2, at);
        }
        for r in 0..layout.distinct {
            // SAFETY: the register has that many units.
            let mut value = if layout.load { [0; 32] } else { unsafe { read_lanes(file, registers[r], units) } };
            for p in 0..layout.pieces(r, 0).len() {
                // every lane's piece has the same size
                let bytes = layout.pieces(r, 0)[p].bytes as u32;
                let mut here: Addresses = std::array::from_fn(|l| {
                    let piece = &layout.pieces(r, l)[p];
                    let line = (piece.line as u64).wrapping_mul(stride);
                    all[piece.lane as usize].wrapping_add(line).wrapping_add(piece.offset as u64)
                });
                for l in each(lanes) {
                    let start = all[layout.pieces(r, l)[p].lane as usize];
                    if !start.is_multiple_of(layout.alignment as u64) {
                        let message = format!("a matrix at 0x{start:x}: it must be a multiple of {}", layout.alignment);
                        return Err(self.finding(Kind::Misaligned, message, block, warp, at, 1 << l));
                    }
                }
                fill(&mut here, lanes);
                let (spaces, count) = Self::spaces(&transfer.address, &here, lanes);
                for &(space, mask) in &spaces[..count] {
                    let mut here = here;
                    if count > 1 {
                        fill(&mut here, mask);
                    }
                    let mut touch = |data: *mut u8, offsets: &Addresses, mask: u32| {
                        for l in each(mask) {
                            let shift = layout.pieces(r, l)[p].shift;
                            // SAFETY: bounds and alignment were checked by the caller.
                            unsafe {
                                let place = data.add(offsets[l] as usize);
                                if layout.load {
                                    value[l] |= read_bytes(place, bytes as usize) << shift;
                                } else {
                                    write_bytes(place, bytes as usize, value[l] >> shift);
                                }
                            }
                        }
                    };
                    match space {
                        Space::Shared => {
                            if transfer.address.space == Space::Generic {
                                here.iter_mut().for_each(|a| *a -= SHARED_WINDOW);
                            }
                            self.shared(block, warp, &here, bytes, mask, doing, order, at, &mut |_| false)?;
                            touch(block.shared.as_mut_ptr(), &here, mask);
                        }
                        Space::Global | Space::Generic => {
                            let pieces = &mut |_: &mut Self, _: &mut Block, _: &mut Warp, piece: &Piece| {
                                touch(piece.data, &piece.offsets, piece.lanes);
                                Ok(())
                            };
                            self.global(block, warp, &here, bytes, mask, doing, order, at, &mut |_, _| false, pieces)?;
                        }
                        Space::Local | Space::Param => {
                            let message = "a matrix in local or parameter memory".to_string();
                            return Err(self.finding(Kind::IllegalInstruction, message, block, warp, at, mask));
                        }
                    }
                }
            }
            if layout.load {
                for copy in (r..layout.registers).step_by(layout.distinct) {
                    // SAFETY: as above.
                    unsafe { write_lanes(file, registers[copy], units, lanes, |l| value[l]) };
                }
            }
        }
        Ok(())
    }

    /// `ldmatrix` by a whole warp: rows of 16 bytes. Each matrix counts, and is checked, as one request of 4 bytes a lane.
    fn load_rows(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        file: *mut Unit,
        all: &Addresses,
        registers: &[u16],
        transposed: bool,
        at: At,
    ) -> Result<()> {
        let order = Order { strong: false, acquire: false, release: false, scope: check::Scope::Cta };
        for (matrix, &register) in registers.iter().enumerate() {
            let rows = &all[8 * matrix..8 * matrix + 8];
            if let Some(r) = rows.iter().position(|a| !a.is_multiple_of(16)) {
                let message = format!("a matrix row at shared offset 0x{:x}: it must be a multiple of 16", rows[r]);
                return Err(self.finding(Kind::Misaligned, message, block, warp, at, 1 << (8 * matrix + r)));
            }
            let lanes: Addresses = std::array::from_fn(|l| rows[l / 4].wrapping_add(4 * (l % 4) as u64));
            self.check_shared(block, warp, &lanes, 4, u32::MAX, Doing::Read, order, at, &mut |_| false)?;
            self.counters.shared_load.count_rows(rows);
            // SAFETY: `check_shared` checked the bounds, and the register is a unit of the frame.
            unsafe {
                let unit = &mut (*file.add(register as usize)).0;
                let row = |r: usize| block.shared.as_ptr().add(rows[r] as usize);
                if transposed {
                    let element = |r: usize, c: usize| (row(r).add(2 * c) as *const u16).read_unaligned() as u32;
                    for (l, word) in unit.iter_mut().enumerate() {
                        let (column, pair) = (l / 4, l % 4 * 2);
                        *word = element(pair, column) | element(pair + 1, column) << 16;
                    }
                } else {
                    for (r, words) in unit.chunks_exact_mut(4).enumerate() {
                        std::ptr::copy_nonoverlapping(row(r), words.as_mut_ptr() as *mut u8, 16);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Which window a generic address is in.
#[inline(always)]
fn window(address: u64) -> Space {
    match address >> 32 {
        1 => Space::Shared,
        2 => Space::Local,
        3 => Space::Param,
        _ => Space::Global,
    }
}

const _: () = assert!(SHARED_WINDOW == 1 << 32 && LOCAL_WINDOW == 2 << 32 && PARAM_WINDOW == 3 << 32);

fn named(target: &memory::Block) -> String {
    if target.info.name.is_empty() { String::new() } else { format!(" ({})", target.info.name) }
}

/// The base's place, and the operands behind it.
fn split(base: Base, operands: &[u16]) -> (Option<u16>, &[u16]) {
    match (base, operands) {
        (Base::None, all) => (None, all),
        (_, [first, rest @ ..]) => (Some(*first), rest),
        (_, []) => (None, operands),
    }
}

fn mark(target: &memory::Block, offsets: &Addresses, lanes: u32, bytes: u32) {
    if lanes == u32::MAX && contiguous(offsets, bytes as u64) {
        target.mark(offsets[0] as usize, 32 * bytes as usize);
    } else {
        each(lanes).for_each(|l| target.mark(offsets[l] as usize, bytes as usize));
    }
}
