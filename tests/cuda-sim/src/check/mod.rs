//! Happens-before inside a launch: races, uninitialised shared memory, asynchronous copies touched too early, footprints.
//!
//! What orders two accesses is the causality order of the PTX memory consistency model (PTX ISA, chapter "Memory
//! Consistency Model"):
//!
//! - program order of one thread; the lanes of a warp are threads of their own and otherwise unordered, however the
//!   hardware happens to run them;
//! - `bar.warp.sync` among the lanes of its mask, `bar`/`barrier` among its threads. A shuffle or a vote orders nothing;
//! - a release pattern (a fence, then a strong write) that an acquire pattern (a strong read of that write) observes, at a
//!   scope that holds both threads. It carries what the releasing thread had itself observed (causality is transitive):
//!   `bar.sync` and then a fence by one thread releases the writes of the whole block.
//!
//! Two accesses to a byte by different threads, at least one a write, are a race unless they are ordered or morally strong:
//! both strong, each with a scope that holds the other's thread.
//!
//! Where the check is more lenient than the model, and why:
//!
//! - The reading side of a release pattern needs no fence. Much code that is correct in practice has none, the
//!   `threadFenceReduction` sample among it: the barrier behind the atomic stands in for it.
//! - The fence may be another thread's, if a barrier orders it before the strong write: every thread fences its own writes,
//!   `bar.sync`, one thread signals. What has passed a fence is visible where the fence reaches.
//! - Lanes that write one location in one instruction do not race: one of them wins, and compute-sanitizer reports nothing
//!   either. So it is with a write of the value that a location already holds from another write.
//! - Strong accesses of different size to one location count as morally strong.
//! - A plain read beside another thread's compare-and-swap is no race. The loops of the CUDA programming guide read plainly
//!   first and let the swap tell whether the value was still the same.
//! - A thread that has exited counts as arrived at every later barrier: the hardware lets nobody pass before.
//! - Nothing is checked in the shared memory that the system reserves. Cooperative groups keep their barriers and their scratch
//!   there, and rely on shuffles to order the lanes of a warp.
//!
//! Epochs: a block has a clock. Each thread's accesses carry the number that its warp had then, and the warp takes a new
//! number at each of its synchronisations, so "t knows what u did up to epoch e" is one number. What is known is kept for
//! whole warps, and for single threads only where they differ. Block barriers close all epochs before them:
//! most accesses are decided by one comparison with the last barrier.

mod clock;
mod global;
mod shared;
mod warp;

#[cfg(test)]
mod tests;

pub use global::LaunchCheck;

use clock::Threads;
use shared::Shared;

/// The global bytes that a launch read and wrote: disjoint, sorted ranges `[start, end)` of device addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Read by loads and by the sources of asynchronous copies.
    pub reads: Vec<(u64, u64)>,
    /// Written, by stores or atomics.
    pub writes: Vec<(u64, u64)>,
}

/// What an access does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `ld` and its like.
    Read,
    /// `st` and its like.
    Write,
    /// `atom`, `red`: reads and writes, and is strong.
    Atomic,
    /// The destination of a `cp.async` that no wait has completed.
    Copy,
}

/// The scope of a strong access or of a fence. A cluster of one block, which is the only one here, is `Cta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The block.
    Cta,
    /// The device.
    Gpu,
    /// All devices and the host; that of `volatile`.
    Sys,
}

/// One memory instruction of one warp.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// Warp of the block.
    pub warp: u32,
    /// The executing lanes.
    pub mask: u32,
    /// The instruction, opaque here.
    pub op: u32,
    /// Device addresses, or offsets in the block's shared memory.
    pub addresses: &'a [u64; 32],
    /// Bytes a lane.
    pub bytes: u32,
    /// What it does; not `Copy`.
    pub kind: Kind,
    /// Whether it is a strong operation: volatile, relaxed, acquire, release. Atomics always are.
    pub strong: bool,
    /// The scope of a strong access.
    pub scope: Scope,
}

impl Access<'_> {
    fn writes(&self) -> bool {
        self.kind != Kind::Read
    }

    fn strong(&self) -> bool {
        self.strong || self.kind == Kind::Atomic
    }
}

/// A thread of the launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thread {
    /// The block's index in the grid.
    pub block: u32,
    /// Warp of the block.
    pub warp: u32,
    /// Lane of the warp.
    pub lane: u32,
}

/// Two accesses that nothing orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The lane that noticed it.
    pub lane: u32,
    /// The first byte, of those in common, whose other access is told.
    pub address: u64,
    /// What the lane does.
    pub kind: Kind,
    /// Who else touched it.
    pub other: Thread,
    /// With which instruction.
    pub other_op: u32,
    /// Doing what; `Copy` if the bytes are in flight, whoever of the two threads copies them.
    pub other_kind: Kind,
}

/// The check of one block at a time, on one host thread.
pub struct BlockCheck<'a> {
    launch: &'a LaunchCheck,
    block: u32,
    /// Where the shared memory begins that is the system's.
    reserved: u64,
    threads: Threads,
    shared: Shared,
    pages: global::Cache,
}

impl LaunchCheck {
    /// Starts the check of a block. For the next block on the same host thread, [`BlockCheck::reset`] is cheaper.
    pub fn block(&self, block: u32, shared_bytes: usize) -> BlockCheck<'_> {
        let threads = Threads::new(self.threads_per_block());
        let start = threads.start();
        BlockCheck {
            launch: self,
            block,
            reserved: u64::MAX,
            threads,
            shared: Shared::new(shared_bytes, start),
            pages: global::Cache::default(),
        }
    }
}

impl<'a> BlockCheck<'a> {
    /// Has shared memory from this offset on be the system's: written from the start, and free of races. What is released
    /// and acquired there counts.
    pub fn with_reserved(mut self, offset: Option<usize>) -> BlockCheck<'a> {
        self.reserved = offset.map_or(u64::MAX, |offset| offset as u64);
        self
    }
}

impl BlockCheck<'_> {
    /// The lanes whose address is in the program's shared memory.
    fn own(&self, mask: u32, addresses: &[u64; 32]) -> u32 {
        match self.reserved {
            u64::MAX => mask,
            reserved => (0..32).filter(|&l| addresses[l] < reserved).fold(0, |own, l| own | 1 << l) & mask,
        }
    }

    /// Goes on with another block of the same launch, with the same shared memory.
    pub fn reset(&mut self, block: u32) {
        self.block = block;
        if self.threads.reset() {
            self.shared.clear();
        }
        self.shared.start(self.threads.start());
    }

    /// Whether the block synchronised so often (2^32 times) that what came later is no longer checked.
    pub fn exhausted(&self) -> bool {
        self.threads.exhausted()
    }

    /// Checks and notes an access to shared memory. The addresses are offsets, in bounds and aligned. `same` tells whether
    /// the location already holds what a lane writes.
    ///
    /// An instruction with `.release` or `.acq_rel` has [`BlockCheck::fence`] called before it.
    pub fn shared(&mut self, a: &Access, same: &mut dyn FnMut(u32) -> bool) -> Option<Conflict> {
        let own = Access { mask: self.own(a.mask, a.addresses), ..*a };
        let conflict = match own.mask {
            0 => None,
            _ => self.shared.access(&own, self.block, &self.threads, self.launch.swaps(), same),
        };
        if conflict.is_none() && a.strong() {
            self.threads.observe(a, self.block, None);
        }
        conflict
    }

    /// Checks and notes an access to global memory (or to host memory that the device reaches): as [`BlockCheck::shared`].
    pub fn global(&mut self, a: &Access, same: &mut dyn FnMut(u32) -> bool) -> Option<Conflict> {
        let conflict = self.launch.access(a, self.block, &self.threads, &mut self.pages, same);
        if conflict.is_none() && a.strong() {
            self.threads.observe(a, self.block, Some(self.launch.variables()));
        }
        conflict
    }

    /// The first lane that reads shared bytes which this block has not written. To be asked before the read itself.
    pub fn uninitialised(&self, mask: u32, addresses: &[u64; 32], bytes: u32) -> Option<u32> {
        self.shared.uninitialised(self.own(mask, addresses), addresses, bytes)
    }

    /// A barrier completes: `bar.sync`, `barrier.sync`, `bar.red`. All accesses of `waiting` (warp, lanes), and what was
    /// left with [`BlockCheck::arrive`], come before what `waiting` does next.
    pub fn barrier(&mut self, barrier: u32, waiting: &[(u32, u32)]) {
        self.threads.barrier(barrier, waiting);
    }

    /// `bar.arrive`: the lanes' accesses so far come before what the waiting threads do once the barrier completes. The
    /// lanes themselves learn nothing.
    pub fn arrive(&mut self, barrier: u32, warp: u32, lanes: u32) {
        self.threads.arrive(barrier, warp, lanes);
    }

    /// `bar.warp.sync`. No other `.sync` instruction orders memory accesses.
    pub fn warp_sync(&mut self, warp: u32, mask: u32) {
        self.threads.warp_sync(warp, mask);
    }

    /// The lanes have exited.
    pub fn exit(&mut self, warp: u32, lanes: u32) {
        self.threads.exit(warp, lanes);
    }

    /// `membar`, `fence.acq_rel`, `fence.sc`, and the release half of an instruction with `.release` or `.acq_rel`.
    pub fn fence(&mut self, warp: u32, mask: u32, scope: Scope) {
        self.threads.fence(warp, mask, scope);
    }

    /// `cp.async`: the shared destination. Its bytes are in flight until [`BlockCheck::async_wait`], and nobody may touch
    /// them. The source is a read to be checked with [`BlockCheck::global`].
    pub fn async_issue(&mut self, a: &Access) -> Option<Conflict> {
        self.shared.issue(a, self.block, &self.threads)
    }

    /// `cp.async.commit_group`
    pub fn async_commit(&mut self, warp: u32, mask: u32) {
        self.shared.commit(warp, mask);
    }

    /// `cp.async.wait_group left`: all but the last `left` groups of each lane are complete, and their bytes written by
    /// that lane as of now. `cp.async.wait_all` is `async_commit` and then `async_wait` with 0.
    pub fn async_wait(&mut self, warp: u32, mask: u32, left: u32) {
        self.shared.wait(warp, mask, left, &self.threads);
    }
}
