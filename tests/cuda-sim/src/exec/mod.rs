//! Runs a grid.

mod access;
mod block;
pub mod counters;
pub mod occupancy;
mod print;
mod run;
#[cfg(test)]
mod tests;
mod vector;
mod warp;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::check::{Footprint, LaunchCheck};
use crate::exec::block::{Block, Ended, SharedLayout};
use crate::exec::counters::Counters;
use crate::exec::run::Machine;
use crate::finding::Finding;
use crate::memory::{Memory, Purpose};
use crate::program::Program;
use crate::program::code::{Action, Combine, Kernel, Special};

/// Everything that a launch depends on. The caller has checked the limits that are errors of the driver API (threads a
/// block, shared memory, parameter count).
pub struct Launch<'a> {
    /// The module.
    pub program: &'a Program,
    /// Index into `program.entries`.
    pub entry: usize,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: usize,
    /// The parameter buffer, `param_bytes` long.
    pub params: &'a [u8],
    /// All blocks are resident at once and may wait for each other.
    pub cooperative: bool,
    /// The memory.
    pub memory: &'a Memory,
    /// The device that runs it.
    pub device: u32,
    /// Devices whose memory the kernel may touch, as bits; its own included.
    pub peers: u32,
    /// How it is run.
    pub options: Options,
}

/// How launches are run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// All checks, not only bounds and alignment.
    pub strict: bool,
    /// Host threads.
    pub threads: usize,
    /// Warp instructions a launch may execute before it counts as hung.
    pub budget: u64,
    /// The device's streaming multiprocessors, for `%nsmid` and occupancy.
    pub multiprocessors: u32,
    /// Compute capability times ten.
    pub sm: u32,
}

/// What a launch that was carried out leaves.
pub struct Outcome {
    /// What was counted, up to the finding if there is one.
    pub counters: Counters,
    /// Which global bytes it read and wrote (strict mode).
    pub footprint: Footprint,
    /// What `printf` wrote.
    pub printed: Vec<u8>,
    /// The first finding of the lowest block that has one. Then memory holds what was written up to there.
    pub finding: Option<Finding>,
}

/// Runs a launch to its end.
///
/// Blocks are spread over host threads. Where the order of blocks could show in the result (atomics whose result is used,
/// sums of floats, loads of what others may be writing) one thread runs all of them, in order, so that the same launch gives
/// the same bytes whatever the number of threads.
pub fn launch(launch: &Launch<'_>) -> Outcome {
    let kernel = &launch.program.kernels[launch.entry];
    let _hold = launch.memory.hold();
    let blocks: u64 = launch.grid.iter().map(|&g| g as u64).product();
    let threads: u32 = launch.block.iter().product();
    let check = launch.options.strict.then(|| LaunchCheck::new(threads).with_swaps(swaps(kernel)));
    let budget = AtomicU64::new(launch.options.budget);
    let workspace = Workspace::new(launch, kernel, blocks);
    let one = launch.cooperative || kernel.sensitive;
    let workers = if one { 1 } else { (launch.options.threads.max(1) as u64).min(blocks).max(1) };
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(u64::MAX);
    let work = || {
        let mut machine = Machine::new(launch, kernel, &budget);
        let mut printed = Vec::new();
        let fresh = || {
            let layout = SharedLayout::of(launch, kernel);
            let check = check.as_ref().map(|c| c.block(0, layout.bytes()).with_reserved(layout.reserved));
            Block::new(launch, kernel, workspace.address, check)
        };
        let mut finding = None;
        let mut spare: Vec<Block> = Vec::new();
        // Blocks that wait for others, the one that waits longest first.
        let mut waiting: VecDeque<Block> = VecDeque::new();
        loop {
            // A new one before those that wait: what they wait for may be in it.
            // None behind one that has failed, whose finding is the one that counts.
            let index = next.fetch_add(1, Relaxed);
            let mut block = if index < blocks.min(failed.load(Relaxed)) {
                let mut block = spare.pop().unwrap_or_else(fresh);
                block.start(kernel, index);
                block
            } else {
                match waiting.pop_front() {
                    Some(block) => block,
                    None => break,
                }
            };
            match block.run(&mut machine) {
                Ok(Ended::Turn) => waiting.push_back(block),
                Ok(Ended::Done) => {
                    if !block.printed.is_empty() {
                        printed.push((block.index, std::mem::take(&mut block.printed)));
                    }
                    spare.push(block);
                }
                Err(found) => {
                    printed.push((block.index, std::mem::take(&mut block.printed)));
                    failed.fetch_min(block.index, Relaxed);
                    if finding.as_ref().is_none_or(|(index, _)| block.index < *index) {
                        finding = Some((block.index, found));
                    }
                    // its barriers and locks will never open for the others
                    if one {
                        break;
                    }
                }
            }
        }
        (machine.finish(), printed, finding)
    };
    let results: Vec<_> = if workers == 1 {
        vec![work()]
    } else {
        std::thread::scope(|scope| {
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            handles.into_iter().map(|h| h.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    };
    let mut outcome = Outcome {
        counters: Counters::default(),
        footprint: check.map(LaunchCheck::finish).unwrap_or_default(),
        printed: Vec::new(),
        finding: None,
    };
    let (mut printed, mut findings) = (Vec::new(), Vec::new());
    for (counters, lines, finding) in results {
        outcome.counters.merge(&counters);
        printed.extend(lines);
        findings.extend(finding);
    }
    printed.sort_by_key(|(block, _)| *block);
    outcome.printed = printed.into_iter().flat_map(|(_, bytes)| bytes).collect();
    outcome.finding = findings.into_iter().min_by_key(|(block, _)| *block).map(|(_, finding)| *finding);
    workspace.free();
    outcome
}

/// The compare-and-swaps among a kernel's instructions, numbered as `Machine::op` does.
fn swaps(kernel: &Kernel) -> HashSet<u32> {
    let all = kernel.functions.iter().flat_map(|f| &f.code).zip(0u32..);
    let swap = |action: &Action| matches!(action, Action::Atomic(a) if a.combine == Combine::CompareAndSwap);
    all.filter(|(op, _)| swap(&op.action)).map(|(_, number)| number).collect()
}

/// Where a cooperative launch keeps the state of its grid barrier.
struct Workspace<'a> {
    memory: &'a Memory,
    address: u64,
}

impl<'a> Workspace<'a> {
    fn new(launch: &Launch<'a>, kernel: &Kernel, _blocks: u64) -> Workspace<'a> {
        let uses = kernel.specials.iter().any(|(s, _)| matches!(s, Special::Environment(_)));
        let wanted = launch.cooperative && uses;
        // cooperative_groups.h: the size in bytes, then the barrier's counter
        let address = wanted.then(|| launch.memory.allocate(launch.device, 64, Purpose::Variable, "grid barrier"));
        let address = address.flatten().unwrap_or(0);
        if address != 0 {
            let mut image = [0u8; 64];
            image[0] = 64;
            let written = launch.memory.write(address, &image);
            debug_assert!(written.is_ok());
        }
        Workspace { memory: launch.memory, address }
    }

    fn free(self) {
        if self.address != 0 {
            self.memory.retire(self.address);
        }
    }
}
