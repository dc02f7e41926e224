//! Runs a grid.

use crate::check::Footprint;
use crate::exec::counters::Counters;
use crate::finding::Finding;
use crate::memory::Memory;
use crate::program::Program;

pub mod counters;
pub mod occupancy;

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
pub fn launch(_launch: &Launch<'_>) -> Outcome {
    Outcome { counters: Counters::default(), footprint: Footprint::default(), printed: Vec::new(), finding: None }
}
