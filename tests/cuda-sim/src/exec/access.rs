//! Memory: loads, stores, asynchronous copies, matrix fragments; atomics are in `atomic`.
//!
//! Every access is checked against the allocation it belongs to, strict or not. A lane that does not take part gets the
//! address of one that does, so that the loops over lanes need no branches.

// An access is told by where it stands, who does it, and to what: more than seven things.
#![allow(clippy::too_many_arguments)]

mod atomic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

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

    /// Checks and counts an access to shared memory.
    fn shared(
        &mut self,
        block: &mut Block,
        warp: &Warp,
        here: &Addresses,
        bytes: u32,
        mask: u32,
        doing: Doing,
        order: Order,
        at: At,
        same: &mut dyn FnMut(u32) -> bool,
    ) -> Result<()> {
        let at_op = 2 * (self.op(at) as usize * block.warp_count as usize + warp.index as usize);
        let banks = if doing == Doing::Read { &mut self.counters.shared_load } else { &mut self.counters.shared_store };
        let pattern = self.patterns[at_op].get_or_insert_with(|| Box::new(Pattern::NONE));
        banks.count(pattern, mask, here, bytes);
        self.check_shared(block, warp, here, bytes, mask, doing, order, at, same)
    }

    /// Checks an access to shared memory.
    fn check_shared(
        &mut self,
        block: &mut Block,
        warp: &Warp,
        here: &Addresses,
        bytes: u32,
        mask: u32,
        doing: Doing,
        order: Order,
        at: At,
        same: &mut dyn FnMut(u32) -> bool,
    ) -> Result<()> {
        self.bounds_shared(block, warp, here, bytes, mask, doing, at)?;
        let Some(check) = &mut block.check else { return Ok(()) };
        if doing != Doing::Write
            && let Some(lane) = check.uninitialised(mask, here, bytes)
        {
            let message = format!("read of {bytes} uninitialised bytes at shared offset 0x{:x}", here[lane as usize]);
            return Err(self.finding(Kind::Uninitialised, message, block, warp, at, 1 << lane));
        }
        let access = check::Access {
            warp: warp.index,
            mask,
            op: self.op(at),
            addresses: here,
            bytes,
            kind: doing.check(),
            strong: order.strong,
            scope: order.scope,
        };
        match check.shared(&access, same) {
            None => Ok(()),
            Some(conflict) => Err(self.race(conflict, "shared", block, warp, at)),
        }
    }

    fn bounds_shared(
        &self,
        block: &Block,
        warp: &Warp,
        here: &Addresses,
        bytes: u32,
        mask: u32,
        doing: Doing,
        at: At,
    ) -> Result<()> {
        let size = block.layout.own as u64;
        if inside(here, bytes as u64, 0, size) {
            return Ok(());
        }
        for l in each(mask) {
            let beyond = here[l].checked_add(bytes as u64).is_none_or(|end| end > size);
            let (kind, why) = if beyond && !block.layout.is_reserved(here[l], bytes as u64) {
                (Kind::OutOfBounds, format!("the block has {size} bytes of shared memory"))
            } else if !here[l].is_multiple_of(bytes as u64) {
                (Kind::Misaligned, format!("it must be a multiple of {bytes}"))
            } else {
                continue;
            };
            let message = format!("{} of {bytes} bytes at shared offset 0x{:x}: {why}", doing.verb(), here[l]);
            return Err(self.finding(kind, message, block, warp, at, 1 << l));
        }
        Ok(())
    }

    /// Turns addresses of the local space into offsets of the lane's memory, checked.
    fn local(
        &self,
        block: &Block,
        warp: &Warp,
        here: &mut Addresses,
        bytes: u32,
        mask: u32,
        doing: Doing,
        generic: bool,
        at: At,
    ) -> Result<()> {
        let size = warp.local.len() as u64 / 32;
        for l in each(mask) {
            if generic {
                here[l] -= LOCAL_WINDOW;
            }
            let (kind, why) = if here[l].checked_add(bytes as u64).is_none_or(|end| end > size) {
                (Kind::OutOfBounds, format!("the thread has {size} bytes of local memory"))
            } else if !here[l].is_multiple_of(bytes as u64) {
                (Kind::Misaligned, format!("it must be a multiple of {bytes}"))
            } else {
                continue;
            };
            let message = format!("{} of {bytes} bytes at local offset 0x{:x}: {why}", doing.verb(), here[l]);
            return Err(self.finding(kind, message, block, warp, at, 1 << l));
        }
        Ok(())
    }

    /// Checks and counts an access to global memory, and hands out the pieces of host memory it lies in.
    fn global(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        all: &Addresses,
        bytes: u32,
        mask: u32,
        doing: Doing,
        order: Order,
        at: At,
        same: &mut dyn FnMut(&Piece, u32) -> bool,
        each_piece: &mut dyn FnMut(&mut Self, &mut Block, &mut Warp, &Piece) -> Result<()>,
    ) -> Result<()> {
        let at_op = 2 * (self.op(at) as usize * block.warp_count as usize + warp.index as usize) + 1;
        let traffic =
            if doing == Doing::Read { &mut self.counters.global_load } else { &mut self.counters.global_store };
        let pattern = self.patterns[at_op].get_or_insert_with(|| Box::new(Pattern::NONE));
        traffic.count(pattern, mask, all, bytes);
        let mut left = mask;
        while left != 0 {
            let first = all[left.trailing_zeros() as usize];
            let memory = self.launch.memory;
            let device = memory.device_block(first);
            let host = if device.is_none() { memory.host_block(first) } else { None };
            let Some(target) = device.or(host.as_deref()) else {
                let message = format!("{} of {bytes} bytes at 0x{first:x}, where no allocation is", doing.verb());
                return Err(self.finding(Kind::OutOfBounds, message, block, warp, at, left));
            };
            let (base, size) = (target.info.base, target.info.bytes as u64);
            // All lanes in the same allocation, in bounds and aligned: one pass without branches.
            let inside = inside(all, bytes as u64, base, size);
            let lanes = if left == mask && inside {
                mask
            } else {
                let near = |a: u64| match host {
                    None => a.wrapping_sub(base) >> memory::OFFSET_BITS == 0,
                    Some(_) => a.wrapping_sub(base) < size,
                };
                each(left).filter(|&l| near(all[l])).fold(0u32, |m, l| m | 1 << l)
            };
            left &= !lanes;
            self.allowed(target, doing, bytes, first, block, warp, at, lanes)?;
            if lanes != mask || !inside {
                self.bounds_global(target, all, bytes, lanes, doing, block, warp, at)?;
            }
            let mut offsets = [0; 32];
            plus(all, base.wrapping_neg(), &mut offsets);
            fill(&mut offsets, lanes);
            if self.strict && doing != Doing::Write {
                let known = if lanes == u32::MAX && contiguous(&offsets, bytes as u64) {
                    target.all_initialised(offsets[0] as usize, 32 * bytes as usize)
                } else {
                    offsets.iter().all(|&o| target.initialised(o as usize, bytes as usize))
                };
                if !known {
                    let unknown = |l: &usize| !target.initialised(offsets[*l] as usize, bytes as usize);
                    let l = each(lanes).find(unknown).unwrap_or(0);
                    let message = format!("read of {bytes} uninitialised bytes at 0x{:x}{}", all[l], named(target));
                    return Err(self.finding(Kind::Uninitialised, message, block, warp, at, 1 << l));
                }
            }
            let piece = Piece { lanes, data: target.data(), offsets, _host: None };
            if let Some(check) = &mut block.check {
                let mut addresses = *all;
                fill(&mut addresses, lanes);
                let access = check::Access {
                    warp: warp.index,
                    mask: lanes,
                    op: self.op(at),
                    addresses: &addresses,
                    bytes,
                    kind: doing.check(),
                    strong: order.strong,
                    scope: order.scope,
                };
                if let Some(conflict) = check.global(&access, &mut |l| same(&piece, l)) {
                    return Err(self.race(conflict, "global", block, warp, at));
                }
            }
            if self.strict && doing != Doing::Read {
                mark(target, &piece.offsets, lanes, bytes);
            }
            let piece = Piece { _host: host.clone(), ..piece };
            each_piece(self, block, warp, &piece)?;
        }
        Ok(())
    }

    fn allowed(
        &self,
        target: &memory::Block,
        doing: Doing,
        bytes: u32,
        address: u64,
        block: &Block,
        warp: &Warp,
        at: At,
        lanes: u32,
    ) -> Result<()> {
        let wrong = |kind, why: String| {
            let message = format!("{} of {bytes} bytes at 0x{address:x}{}: {why}", doing.verb(), named(target));
            Err(self.finding(kind, message, block, warp, at, lanes))
        };
        if !target.alive() && self.launch.memory.before(address).is_none() {
            return wrong(Kind::UseAfterFree, format!("these {} bytes have been freed", target.info.bytes));
        }
        if target.info.purpose == Purpose::Constant && doing != Doing::Read {
            return wrong(Kind::ReadOnly, "constant memory".into());
        }
        if !target.info.purpose.host() && self.launch.peers >> target.info.device & 1 == 0 {
            let why = format!(
                "it belongs to device {}, whose memory device {} may not reach",
                target.info.device, self.launch.device
            );
            return wrong(Kind::NotAccessible, why);
        }
        Ok(())
    }

    fn bounds_global(
        &self,
        target: &memory::Block,
        all: &Addresses,
        bytes: u32,
        lanes: u32,
        doing: Doing,
        block: &Block,
        warp: &Warp,
        at: At,
    ) -> Result<()> {
        let (base, size) = (target.info.base, target.info.bytes as u64);
        for l in each(lanes) {
            let offset = all[l].wrapping_sub(base);
            let (kind, why) = if offset.checked_add(bytes as u64).is_none_or(|end| end > size) {
                let beyond = offset.saturating_add(bytes as u64).saturating_sub(size);
                let (end, base, size) = if let Some((distance, next)) = self.launch.memory.before(all[l]) {
                    (format!("{distance} bytes before"), next.info.base, next.info.bytes as u64)
                } else if offset >= size {
                    (format!("{} bytes behind the end of", offset - size), base, size)
                } else {
                    (format!("{beyond} bytes over the end of"), base, size)
                };
                (Kind::OutOfBounds, format!("{end} the allocation of {size} bytes at 0x{base:x}"))
            } else if !all[l].is_multiple_of(bytes as u64) {
                (Kind::Misaligned, format!("it must be a multiple of {bytes}"))
            } else {
                continue;
            };
            let message = format!("{} of {bytes} bytes at 0x{:x}{}: {why}", doing.verb(), all[l], named(target));
            return Err(self.finding(kind, message, block, warp, at, 1 << l));
        }
        Ok(())
    }

    /// An instruction of any of the kernel's functions as one number.
    pub(super) fn op(&self, at: At) -> u32 {
        self.starts[at.function as usize] + at.pc
    }

    fn race(&self, conflict: check::Conflict, space: &str, block: &Block, warp: &Warp, at: At) -> Box<Finding> {
        let word = |k: check::Kind| match k {
            check::Kind::Read => "read",
            check::Kind::Write => "write",
            check::Kind::Atomic => "atomic",
            check::Kind::Copy => "cp.async",
        };
        let function = self.starts.partition_point(|&s| s <= conflict.other_op) - 1;
        let other = At { function: function as u32, pc: conflict.other_op - self.starts[function] };
        let place = if space == "shared" { "shared offset" } else { "address" };
        let (a, b) = (word(conflict.kind), word(conflict.other_kind));
        // A cp.async over bytes that were merely touched before is an ordinary race.
        let in_flight = conflict.other_kind == check::Kind::Copy;
        let kind = if in_flight { Kind::AsyncCopy } else { Kind::Race };
        let message = if in_flight {
            format!("{a} of {space} memory that a cp.async is still writing, at {place} 0x{:x}", conflict.address)
        } else {
            format!("race in {space} memory: {a} and {b} at {place} 0x{:x}, ordered by nothing", conflict.address)
        };
        let mut finding = self.finding(kind, message, block, warp, at, 1 << conflict.lane);
        let t = conflict.other;
        finding.other = Some(Box::new(self.place(t.block as u64, t.warp, t.lane, other)));
        finding
    }
}

/// Copies `N` bytes of each lane.
///
/// # Safety
/// They lie in the piece, and at `to + address`.
unsafe fn copy_each<const N: usize>(piece: &Piece, to: *mut u8, addresses: &Addresses) {
    for l in each(piece.lanes) {
        unsafe {
            let from = piece.data.add(piece.offsets[l] as usize) as *const [u8; N];
            *(to.add(addresses[l] as usize) as *mut [u8; N]) = *from;
        }
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

/// A value of fewer than 64 bits as its register holds it.
#[inline(always)]
fn extended(raw: u64, element: u32, extend: u32) -> u64 {
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
unsafe fn read_bytes(place: *const u8, bytes: usize) -> u64 {
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
unsafe fn write_bytes(place: *mut u8, bytes: usize, value: u64) {
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
unsafe fn gather(data: *const u8, offsets: &Addresses, mask: u32, access: &Access, registers: &[u16], file: *mut Unit) {
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
unsafe fn scatter(
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
unsafe fn holds(
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
fn interleaved(offset: usize, lane: usize) -> usize {
    (offset / 4 * 32 + lane) * 4 + offset % 4
}

pub(super) fn read_local(local: &[u8], offset: usize, lane: usize, bytes: usize) -> u64 {
    (0..bytes).fold(0, |v, i| v | (local[interleaved(offset + i, lane)] as u64) << (8 * i))
}

pub(super) fn write_local(local: &mut [u8], offset: usize, lane: usize, bytes: usize, value: u64) {
    (0..bytes).for_each(|i| local[interleaved(offset + i, lane)] = (value >> (8 * i)) as u8);
}
