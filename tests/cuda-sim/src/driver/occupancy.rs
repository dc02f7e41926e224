//! The occupancy functions: [`Occupancy`] for a kernel, with the part of the L1 cache that it prefers as shared memory.

use std::ffi::{c_int, c_uint};

use super::call::{self, api, put};
use super::device::{Chip, WARP};
use super::error::{self, Answer};
use super::types::*;
use crate::exec::occupancy::{Limits, Occupancy};

/// What a block of a kernel takes of a multiprocessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    /// 32-bit registers a thread.
    pub registers: u32,
    pub static_shared: usize,
    /// Threads of a block at most.
    pub max_threads: u32,
    /// Percent of the L1 cache for shared memory, -1 for any.
    pub carveout: c_int,
    /// More than 48 KiB has been asked for with the attribute.
    pub large_shared: bool,
}

impl Needs {
    /// Blocks of so many threads with so much dynamic shared memory on one multiprocessor.
    pub fn blocks(&self, chip: &Chip, threads: u32, dynamic_shared: usize) -> u32 {
        if threads == 0 || threads > self.max_threads {
            return 0;
        }
        // A kernel that wants more registers than a thread can have spills them.
        let registers = self.registers.min(Limits::THREAD_REGISTERS);
        let shared = self.static_shared.saturating_add(dynamic_shared);
        let blocks = Occupancy::of(chip.limits.sm, threads, registers, shared).map_or(0, |found| found.active_blocks);
        if blocks == 0 {
            return 0;
        }
        let of_block = (shared + chip.limits.shared_reserved).next_multiple_of(chip.limits.shared_unit);
        match self.shared_of_sm(chip, of_block).checked_div(of_block) {
            Some(by_carveout) => blocks.min(u32::try_from(by_carveout).unwrap_or(u32::MAX)),
            None => blocks,
        }
    }

    /// The shared memory of a multiprocessor, as the carveout leaves it: at least what a block needs.
    fn shared_of_sm(&self, chip: &Chip, of_block: usize) -> usize {
        let all = chip.limits.shared;
        let wished = if self.carveout < 0 { all } else { (all * self.carveout as usize).div_ceil(100) };
        let mut sizes = chip.product.carveouts.iter().map(|&kib| kib << 10);
        sizes.find(|&size| size >= wished.max(of_block)).unwrap_or(all)
    }

    /// Dynamic shared memory of a block such that so many blocks fit.
    fn dynamic_for(&self, chip: &Chip, blocks: u32, threads: u32) -> Option<usize> {
        if blocks == 0 || blocks > self.blocks(chip, threads, 0) {
            return None;
        }
        let unit = chip.limits.shared_unit;
        let of_block = chip.limits.shared / blocks as usize / unit * unit;
        let limit = if self.large_shared { chip.limits.shared_optin } else { Limits::SHARED_DEFAULT };
        Some(of_block.checked_sub(chip.limits.shared_reserved)?.min(limit).saturating_sub(self.static_shared))
    }

    /// The block size with the most threads on a multiprocessor, the largest of the best, and the blocks there are then.
    fn best(&self, chip: &Chip, limit: u32, dynamic: impl Fn(u32) -> usize) -> (u32, u32) {
        let limit = if limit == 0 { Limits::BLOCK_THREADS } else { limit }.min(self.max_threads);
        let mut best = (0, 0);
        let mut rounded = limit.next_multiple_of(WARP);
        while rounded > 0 {
            let threads = rounded.min(limit);
            let blocks = self.blocks(chip, threads, dynamic(threads));
            if blocks * threads > best.0 * best.1 {
                best = (threads, blocks);
            }
            rounded -= WARP;
        }
        best
    }
}

fn needs(name: &'static str, function: CUfunction) -> Answer<(Needs, Chip)> {
    call::with_context(name, |driver, context| {
        let function = driver.function(function, context)?;
        Ok((driver.loaded(function)?.needs()?, driver.chip))
    })
}

fn threads(block_size: c_int) -> Answer<u32> {
    u32::try_from(block_size).ok().filter(|&threads| threads > 0).ok_or(error::INVALID_VALUE)
}

fn max_active_blocks(
    name: &'static str,
    count: *mut c_int,
    function: CUfunction,
    block_size: c_int,
    dynamic_shared: usize,
    flags: c_uint,
) -> Answer {
    if flags > 1 {
        return Err(error::INVALID_VALUE);
    }
    let threads = threads(block_size)?;
    let (needs, chip) = needs(name, function)?;
    unsafe { put(count, needs.blocks(&chip, threads, dynamic_shared) as c_int) }
}

#[allow(clippy::too_many_arguments, reason = "those of the function of the API")]
fn max_potential_block_size(
    name: &'static str,
    grid: *mut c_int,
    block: *mut c_int,
    function: CUfunction,
    dynamic_of: CUoccupancyB2DSize,
    dynamic: usize,
    limit: c_int,
    flags: c_uint,
) -> Answer {
    if flags > 1 || grid.is_null() || block.is_null() {
        return Err(error::INVALID_VALUE);
    }
    let limit = u32::try_from(limit).map_err(|_| error::INVALID_VALUE)?;
    let (needs, chip) = needs(name, function)?;
    // The caller's function runs without the lock.
    let dynamic = |threads: u32| dynamic_of.map_or(dynamic, |function| unsafe { function(threads as c_int) });
    let (threads, blocks) = needs.best(&chip, limit, dynamic);
    if threads == 0 {
        return Err(error::INVALID_VALUE);
    }
    unsafe {
        put(grid, (blocks * chip.multiprocessors()) as c_int)?;
        put(block, threads as c_int)
    }
}

api! {
    [unlocked] cuOccupancyMaxActiveBlocksPerMultiprocessor(
        count: *mut c_int, function: CUfunction, block_size: c_int, dynamic_shared: usize
    ) |name| {
        max_active_blocks(name, count, function, block_size, dynamic_shared, 0)
    }

    [unlocked] cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        count: *mut c_int, function: CUfunction, block_size: c_int, dynamic_shared: usize, flags: c_uint
    ) |name| {
        max_active_blocks(name, count, function, block_size, dynamic_shared, flags)
    }

    [unlocked] cuOccupancyMaxPotentialBlockSize(
        grid: *mut c_int, block: *mut c_int, function: CUfunction, dynamic_of: CUoccupancyB2DSize, dynamic: usize,
        limit: c_int
    ) |name| {
        max_potential_block_size(name, grid, block, function, dynamic_of, dynamic, limit, 0)
    }

    [unlocked] cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: *mut c_int, block: *mut c_int, function: CUfunction, dynamic_of: CUoccupancyB2DSize, dynamic: usize,
        limit: c_int, flags: c_uint
    ) |name| {
        max_potential_block_size(name, grid, block, function, dynamic_of, dynamic, limit, flags)
    }

    [unlocked] cuOccupancyAvailableDynamicSMemPerBlock(
        bytes: *mut usize, function: CUfunction, blocks: c_int, block_size: c_int
    ) |name| {
        let (needs, chip) = needs(name, function)?;
        let found = needs.dynamic_for(&chip, threads(blocks)?, threads(block_size)?);
        put(bytes, found.ok_or(error::INVALID_VALUE)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chip(sm: u32) -> &'static Chip {
        Box::leak(Box::new(Chip::of(sm).unwrap()))
    }

    fn kernel(registers: u32, static_shared: usize) -> Needs {
        Needs { registers, static_shared, max_threads: 1024, carveout: -1, large_shared: true }
    }

    // Values of the CUDA occupancy calculator spreadsheet's rules, worked out by hand.
    #[test]
    fn registers_limit_by_warps() {
        // 32 registers: 1024 a warp, 16 warps in each of 4 partitions: all 64 warps of an A100.
        assert_eq!(kernel(32, 0).blocks(chip(80), 256, 0), 8);
        assert_eq!(kernel(32, 0).blocks(chip(80), 1024, 0), 2);
        // 33 are rounded up to 40: 1280 a warp, 12 a partition, 48 warps.
        assert_eq!(kernel(33, 0).blocks(chip(80), 256, 0), 6);
        assert_eq!(kernel(255, 0).blocks(chip(80), 256, 0), 1);
        assert_eq!(kernel(255, 0).blocks(chip(80), 512, 0), 0);
        assert_eq!(kernel(128, 0).blocks(chip(80), 128, 0), 4);
    }

    #[test]
    fn threads_and_blocks_limit() {
        assert_eq!(kernel(16, 0).blocks(chip(80), 32, 0), 32);
        assert_eq!(kernel(16, 0).blocks(chip(86), 32, 0), 16);
        assert_eq!(kernel(16, 0).blocks(chip(89), 32, 0), 24);
        assert_eq!(kernel(16, 0).blocks(chip(86), 1024, 0), 1);
        assert_eq!(kernel(16, 0).blocks(chip(75), 1024, 0), 1);
        assert_eq!(kernel(16, 0).blocks(chip(80), 33, 0), 32);
        assert_eq!(kernel(16, 0).blocks(chip(80), 0, 0), 0);
        assert_eq!(kernel(16, 0).blocks(chip(80), 1025, 0), 0);
    }

    #[test]
    fn shared_memory_limits_with_what_the_system_takes() {
        // 48 KiB and 1 KiB of the system: three times 49 of 164 KiB.
        assert_eq!(kernel(16, 0).blocks(chip(80), 128, 48 << 10), 3);
        assert_eq!(kernel(16, 48 << 10).blocks(chip(80), 128, 0), 3);
        assert_eq!(kernel(16, 0).blocks(chip(80), 128, 163 << 10), 1);
        assert_eq!(kernel(16, 0).blocks(chip(80), 128, (163 << 10) + 1), 0);
        assert_eq!(kernel(16, 0).blocks(chip(75), 128, 32 << 10), 2, "no reserve on sm_75");
        assert_eq!(kernel(16, 0).blocks(chip(90), 128, 227 << 10), 1);
        assert_eq!(kernel(16, 0).blocks(chip(80), 128, usize::MAX), 0);
    }

    #[test]
    fn a_carveout_is_rounded_up_to_a_size_that_exists() {
        let half = Needs { carveout: 50, ..kernel(16, 0) };
        // 82 KiB become 100.
        assert_eq!(half.blocks(chip(80), 128, 31 << 10), 3);
        let none = Needs { carveout: 0, ..kernel(16, 0) };
        // What one block needs is there in any case: 33 KiB become 64.
        assert_eq!(none.blocks(chip(80), 128, 32 << 10), 1);
    }

    #[test]
    fn the_best_block_is_the_largest_of_the_best() {
        assert_eq!(kernel(32, 0).best(chip(80), 0, |_| 0), (1024, 2));
        assert_eq!(kernel(32, 0).best(chip(86), 0, |_| 0), (768, 2));
        // 32 blocks of 64 are 2048 threads, 21 of 96 are 2016, 16 of 100 are 1600.
        assert_eq!(kernel(32, 0).best(chip(80), 100, |_| 0), (64, 32));
        // Shared memory that grows with the block, of which it can have 163 KiB.
        assert_eq!(kernel(32, 0).best(chip(80), 0, |threads| threads as usize * 1024), (160, 1));
    }

    #[test]
    fn what_is_available_is_just_enough() {
        for sm in [75, 80, 86, 89, 90] {
            let chip = chip(sm);
            for blocks in 1..=8 {
                let needs = kernel(16, 100);
                let bytes = needs.dynamic_for(chip, blocks, 64).unwrap();
                assert!(needs.blocks(chip, 64, bytes) >= blocks, "sm_{sm} {blocks}");
                if bytes + 100 < chip.limits.shared_optin {
                    assert!(needs.blocks(chip, 64, bytes + chip.limits.shared_unit) < blocks, "sm_{sm} {blocks}");
                }
            }
        }
        assert_eq!(kernel(16, 0).dynamic_for(chip(80), 33, 64), None);
    }
}
