//! Accesses of a warp to one space, checked: bounds, alignment, initialised bytes, races; and counted.

use super::*;

impl Machine<'_> {
    /// Checks and counts an access to shared memory.
    pub(super) fn shared(
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
    pub(super) fn check_shared(
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

    pub(super) fn bounds_shared(
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
    pub(super) fn local(
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
    pub(super) fn global(
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

    pub(super) fn allowed(
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

    pub(super) fn bounds_global(
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
    pub(in crate::exec) fn op(&self, at: At) -> u32 {
        self.starts[at.function as usize] + at.pc
    }

    pub(super) fn race(
        &self,
        conflict: check::Conflict,
        space: &str,
        block: &Block,
        warp: &Warp,
        at: At,
    ) -> Box<Finding> {
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
