//! Allocations of all devices in one address space.
//!
//! A device address is `BASE + (id << 36) + offset`, and an id is never given twice, so that a pointer tells its allocation
//! and a stale one is known as such. Host memory that the driver hands out (pinned, managed) or registers has its real
//! address.
//!
//! In strict mode a bit a byte says what has been written. Host memory has no such bits: the program writes it directly.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, RwLock, RwLockReadGuard};

use crate::finding::{Finding, Kind};

/// The first device address.
pub const BASE: u64 = 1 << 52;
/// Bits of an offset: no allocation is larger than 64 GiB.
pub const OFFSET_BITS: u32 = 36;
/// What an uninitialised byte looks like to the host.
pub const POISON: u8 = 0xCD;

const CHUNK: usize = 2048;
const CHUNKS: usize = 1 << 16;

type Chunk = OnceLock<Box<[OnceLock<Block>]>>;

/// What an allocation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `cuMemAlloc` and its asynchronous form.
    Device,
    /// `cuMemAllocHost`, `cuMemHostAlloc`: host memory with its real address.
    Pinned,
    /// `cuMemHostRegister`: memory of the program, borrowed.
    Registered,
    /// `cuMemAllocManaged`: host memory that all devices reach.
    Managed,
    /// A variable of a module.
    Variable,
    /// A constant variable of a module: kernels do not write it.
    Constant,
}

impl Purpose {
    /// Whether the address is a host pointer.
    pub fn host(self) -> bool {
        matches!(self, Purpose::Pinned | Purpose::Registered | Purpose::Managed)
    }
}

/// What is told about an allocation.
#[derive(Debug, Clone)]
pub struct Info {
    /// The first byte's address.
    pub base: u64,
    /// Bytes.
    pub bytes: usize,
    /// The device it belongs to.
    pub device: u32,
    /// What it is for.
    pub purpose: Purpose,
    /// A name for reports: the variable's, or empty.
    pub name: String,
}

/// An allocation. It outlives its memory, to tell a stale address from a wild one.
pub(crate) struct Block {
    pub(crate) info: Info,
    data: *mut u8,
    /// What the host's allocator gave, at or before `data`; null for memory that is the program's.
    start: *mut u8,
    /// A bit a byte, as long as it lives; null where initialisation is not tracked.
    init: *mut AtomicU64,
    alive: AtomicBool,
}

// SAFETY: the bytes are reached through raw pointers only; who may do so when is what `Memory` documents.
unsafe impl Send for Block {}
unsafe impl Sync for Block {}

impl Block {
    fn new(info: Info, tracked: bool) -> Option<Block> {
        let (layout, words) = (layout(info.bytes, info.purpose)?, words(info.bytes)?);
        // SAFETY: the layout has a size of at least one.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        if start.is_null() {
            return None;
        }
        let data = start.wrapping_add(start.align_offset(alignment(info.purpose)));
        // SAFETY: as above.
        let init = if tracked { unsafe { std::alloc::alloc_zeroed(words) } } else { std::ptr::null_mut() };
        let block = Block { info, data, start, init: init.cast(), alive: AtomicBool::new(true) };
        // What there is of it is freed with `block`.
        (!tracked || !init.is_null()).then_some(block)
    }

    fn release(&self) -> bool {
        let was = self.alive.swap(false, Relaxed);
        let layouts = layout(self.info.bytes, self.info.purpose).zip(words(self.info.bytes));
        if was
            && self.info.purpose != Purpose::Registered
            && let Some((data, words)) = layouts
        {
            // SAFETY: allocated in `new` with the same layouts; `alive` was true, so only once.
            unsafe {
                std::alloc::dealloc(self.start, data);
                if !self.init.is_null() {
                    std::alloc::dealloc(self.init.cast(), words);
                }
            }
        }
        was
    }

    #[inline(always)]
    pub(crate) fn alive(&self) -> bool {
        self.alive.load(Relaxed)
    }

    /// The first byte. Valid while `alive`.
    #[inline(always)]
    pub(crate) fn data(&self) -> *mut u8 {
        self.data
    }

    /// Whether `bytes` from `offset` on, at most 32, have all been written.
    #[inline(always)]
    pub(crate) fn initialised(&self, offset: usize, bytes: usize) -> bool {
        if self.init.is_null() {
            return true;
        }
        let (word, bit) = (offset / 64, offset % 64);
        let mask = (1u64 << bytes) - 1;
        if self.word(word).load(Relaxed) & (mask << bit) != mask << bit {
            return false;
        }
        bit + bytes <= 64 || {
            let rest = mask >> (64 - bit);
            self.word(word + 1).load(Relaxed) & rest == rest
        }
    }

    /// Whether a range of any length has been written.
    pub(crate) fn all_initialised(&self, offset: usize, bytes: usize) -> bool {
        self.init.is_null() || self.words(offset, bytes).all(|(w, m)| self.word(w).load(Relaxed) & m == m)
    }

    /// Marks a range as written.
    #[inline]
    pub(crate) fn mark(&self, offset: usize, bytes: usize) {
        if self.init.is_null() {
            return;
        }
        for (word, mask) in self.words(offset, bytes) {
            // most stores hit bytes that are known already, and a plain load does not take the line from other threads
            if self.word(word).load(Relaxed) & mask != mask {
                self.word(word).fetch_or(mask, Relaxed);
            }
        }
    }

    /// Which bytes of a range have been written: a bit each, from the first one's on.
    fn written(&self, offset: usize, bytes: usize) -> Vec<u64> {
        let count = bytes.div_ceil(64);
        let last = (offset + bytes).div_ceil(64);
        let word = |index: usize| if index < last { self.word(index).load(Relaxed) } else { 0 };
        let (first, shift) = (offset / 64, offset % 64);
        (first..first + count).map(|i| word(i) >> shift | word(i + 1) << 1 << (63 - shift)).collect()
    }

    /// Marks the bytes of a range as written or not, as `written` told of another.
    fn set_written(&self, offset: usize, bytes: usize, known: &[u64]) {
        if self.init.is_null() {
            return;
        }
        let known = |bit: usize| known.get(bit / 64).copied().unwrap_or(0);
        for (word, mask) in self.words(offset, bytes) {
            // Bits of the range before the word, or of the word before the range.
            let bits = match (word * 64).checked_sub(offset) {
                Some(bit) => known(bit) >> (bit % 64) | known(bit + 64) << 1 << (63 - bit % 64),
                None => known(0) << (offset - word * 64),
            };
            self.word(word).fetch_or(bits & mask, Relaxed);
            self.word(word).fetch_and(bits | !mask, Relaxed);
        }
    }

    /// A word of `init`, which is there.
    #[inline(always)]
    fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < self.info.bytes.div_ceil(64) && self.alive());
        // SAFETY: the callers have checked the bounds of what they ask about, and that the block lives.
        unsafe { &*self.init.add(index) }
    }

    /// The words of `init` that a range touches, with the bits in each.
    #[inline(always)]
    fn words(&self, offset: usize, bytes: usize) -> impl Iterator<Item = (usize, u64)> {
        let end = offset + bytes;
        let after = if bytes == 0 { offset / 64 } else { end.div_ceil(64) };
        (offset / 64..after).map(move |word| {
            let from = offset.max(word * 64) - word * 64;
            let to = end.min(word * 64 + 64) - word * 64;
            (word, (u64::MAX >> (64 - (to - from))) << from)
        })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.release();
    }
}

/// What the first byte's address in the host is a multiple of.
fn alignment(purpose: Purpose) -> usize {
    if purpose.host() { 4096 } else { 256 }
}

/// With room to align the first byte: asked for a larger alignment itself, the allocator writes the zeros one by one, and
/// gigabytes that a program only reserves would take the time, and the host's memory.
fn layout(bytes: usize, purpose: Purpose) -> Option<Layout> {
    Layout::from_size_align(bytes.max(1).checked_add(alignment(purpose))?, 8).ok()
}

/// Of the bits that say what is initialised.
fn words(bytes: usize) -> Option<Layout> {
    Layout::array::<AtomicU64>(bytes.div_ceil(64).max(1)).ok()
}

/// All allocations of the process.
///
/// Copies and launches run one at a time (the driver's lock); within a launch, many threads read and write through
/// `&Memory`. No allocation ends during a launch: `free` waits for its end.
pub struct Memory {
    strict: bool,
    /// Device allocations by id, in chunks so that a reference stays valid while others are added.
    chunks: Box<[Chunk]>,
    next: AtomicU32,
    /// Host allocations by address.
    host: RwLock<BTreeMap<u64, Arc<Block>>>,
    /// Ids of living device allocations.
    living: Mutex<std::collections::BTreeSet<u32>>,
    busy: RwLock<()>,
}

impl Memory {
    /// Nothing allocated. `strict`: bytes start out uninitialised, and reading them is noticed.
    pub fn new(strict: bool) -> Memory {
        Memory {
            strict,
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            next: AtomicU32::new(0),
            host: RwLock::default(),
            living: Mutex::default(),
            busy: RwLock::default(),
        }
    }

    /// Allocates `bytes` (at least 1) with an address that is a multiple of 256 (pinned and managed: 4096). `None` if the
    /// host has no memory left. The limit of the simulated device is the caller's to keep.
    pub fn allocate(&self, device: u32, bytes: usize, purpose: Purpose, name: &str) -> Option<u64> {
        if bytes as u64 >= 1 << OFFSET_BITS {
            return None;
        }
        let info = Info { base: 0, bytes: bytes.max(1), device, purpose, name: name.to_string() };
        if purpose.host() {
            let mut block = Block::new(info, false)?;
            let base = block.data as u64;
            block.info.base = base;
            self.host.write().ok()?.insert(base, Arc::new(block));
            return Some(base);
        }
        let mut block = Block::new(info, self.strict)?;
        // Taken only now: an allocation that failed uses no id.
        let id = self.next.fetch_add(1, Relaxed);
        let base = BASE + ((id as u64) << OFFSET_BITS);
        block.info.base = base;
        let chunk = self.chunks.get(id as usize / CHUNK)?;
        let cells = chunk.get_or_init(|| (0..CHUNK).map(|_| OnceLock::new()).collect());
        cells[id as usize % CHUNK].set(block).ok()?;
        self.living.lock().ok()?.insert(id);
        Some(base)
    }

    /// Makes host memory known that the program owns.
    ///
    /// # Safety
    /// The bytes stay valid until `free`.
    pub unsafe fn register(&self, device: u32, host: *mut u8, bytes: usize) -> Result<(), Finding> {
        let base = host as u64;
        let mut table = self.host.write().expect("not poisoned: nothing panics under the lock");
        let overlaps =
            |b: &Block| b.info.base < base.saturating_add(bytes as u64) && base < b.info.base + b.info.bytes as u64;
        if bytes == 0 || table.range(..base.saturating_add(bytes as u64)).next_back().is_some_and(|(_, b)| overlaps(b))
        {
            return Err(Finding::new(Kind::Misuse, format!("{bytes} bytes at 0x{base:x} are registered already")));
        }
        let info = Info { base, bytes, device, purpose: Purpose::Registered, name: String::new() };
        let (start, init, alive) = (std::ptr::null_mut(), std::ptr::null_mut(), AtomicBool::new(true));
        let block = Block { info, data: host, start, init, alive };
        table.insert(base, Arc::new(block));
        Ok(())
    }

    /// Ends the allocation that starts at `address`.
    pub fn free(&self, address: u64) -> Result<Info, Finding> {
        let _busy = self.busy.write();
        if let Some(block) = self.device_block(address) {
            if block.info.base != address {
                let message =
                    format!("0x{address:x} is inside of an allocation, not its start 0x{:x}", block.info.base);
                return Err(Finding::new(Kind::Misuse, message));
            }
            if !block.release() {
                return Err(Finding::new(Kind::UseAfterFree, format!("0x{address:x} has been freed already")));
            }
            if let Ok(mut living) = self.living.lock() {
                living.remove(&(((address - BASE) >> OFFSET_BITS) as u32));
            }
            return Ok(block.info.clone());
        }
        match self.host.write().ok().and_then(|mut table| table.remove(&address)) {
            Some(block) => Ok(block.info.clone()),
            None => Err(Finding::new(Kind::Misuse, format!("0x{address:x} is no allocation"))),
        }
    }

    /// The allocation that holds `address`, living ones only.
    pub fn find(&self, address: u64) -> Option<Info> {
        self.with(address, |block| block.info.clone())
    }

    /// Every living allocation.
    pub fn living(&self) -> Vec<Info> {
        let ids: Vec<u32> = self.living.lock().map(|l| l.iter().copied().collect()).unwrap_or_default();
        let device = ids.iter().filter_map(|&id| self.find(BASE + ((id as u64) << OFFSET_BITS)));
        let host: Vec<Info> =
            self.host.read().map(|h| h.values().map(|b| b.info.clone()).collect()).unwrap_or_default();
        device.chain(host).collect()
    }

    /// Copies out. Bytes that nobody wrote come out as 0xCD in strict mode; the count of such bytes is returned.
    pub fn read(&self, address: u64, to: &mut [u8]) -> Result<usize, Finding> {
        self.range(address, to.len(), "read", |block, offset| {
            // SAFETY: `range` checked the bounds; nobody else writes meanwhile (see `Memory`).
            unsafe { std::ptr::copy(block.data.add(offset), to.as_mut_ptr(), to.len()) };
            if block.all_initialised(offset, to.len()) {
                return 0;
            }
            let mut unknown = 0;
            for (i, byte) in to.iter_mut().enumerate() {
                if !block.initialised(offset + i, 1) {
                    (*byte, unknown) = (POISON, unknown + 1);
                }
            }
            unknown
        })
    }

    /// Copies in, and marks the bytes as initialised.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), Finding> {
        self.range(address, from.len(), "write", |block, offset| {
            // SAFETY: as in `read`; the host slice may lie in the same allocation (pinned), hence `copy`.
            unsafe { std::ptr::copy(from.as_ptr(), block.data.add(offset), from.len()) };
            block.mark(offset, from.len());
        })
    }

    /// Marks bytes as initialised that nobody wrote since they were allocated: they are zero.
    pub(crate) fn zeroed(&self, address: u64, bytes: usize) -> Result<(), Finding> {
        self.range(address, bytes, "write", |block, offset| block.mark(offset, bytes))
    }

    /// Copies between addresses that `find` knows; what is uninitialised stays so. Overlap is allowed.
    pub fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), Finding> {
        self.range(from, bytes, "read", |source, at| {
            self.range(to, bytes, "write", |target, offset| {
                // Beforehand: the ranges may overlap.
                let known = (!source.all_initialised(at, bytes)).then(|| source.written(at, bytes));
                // SAFETY: both ranges were checked; `copy` allows overlap.
                unsafe { std::ptr::copy(source.data.add(at), target.data.add(offset), bytes) };
                match known {
                    None => target.mark(offset, bytes),
                    Some(known) => target.set_written(offset, bytes, &known),
                }
            })
        })?
    }

    /// Fills `count` elements of `pattern` (1, 2 or 4 bytes).
    pub fn fill(&self, address: u64, pattern: &[u8], count: usize) -> Result<(), Finding> {
        let bytes = pattern.len().saturating_mul(count);
        self.range(address, bytes, "write", |block, offset| {
            for i in 0..count {
                // SAFETY: `range` checked the bounds.
                unsafe {
                    let to = block.data.add(offset + i * pattern.len());
                    std::ptr::copy_nonoverlapping(pattern.as_ptr(), to, pattern.len());
                }
            }
            block.mark(offset, bytes);
        })
    }

    /// Keeps every allocation alive until it is dropped.
    pub(crate) fn hold(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.busy.read().ok()
    }

    /// Ends a device allocation of our own while launches are held.
    pub(crate) fn retire(&self, address: u64) {
        if let Some(block) = self.device_block(address) {
            block.release();
            if let Ok(mut living) = self.living.lock() {
                living.remove(&(((address - BASE) >> OFFSET_BITS) as u32));
            }
        }
    }

    /// The device allocation an address belongs to, dead or alive.
    #[inline(always)]
    pub(crate) fn device_block(&self, address: u64) -> Option<&Block> {
        let id = (address.wrapping_sub(BASE) >> OFFSET_BITS) as usize;
        self.chunks.get(id / CHUNK)?.get()?[id % CHUNK].get()
    }

    /// The allocation that an address is meant to be in if it lies shortly before one: that bears the next id, and the address
    /// seems to be far behind the end of its predecessor. With the distance in bytes.
    pub(crate) fn before(&self, address: u64) -> Option<(u64, &Block)> {
        let own = self.device_block(address)?;
        let offset = address - own.info.base;
        if offset >> (OFFSET_BITS - 1) == 0 || offset < own.info.bytes as u64 {
            return None;
        }
        let distance = (1 << OFFSET_BITS) - offset;
        self.device_block(address + distance).map(|block| (distance, block))
    }

    /// The host allocation that holds an address.
    pub(crate) fn host_block(&self, address: u64) -> Option<Arc<Block>> {
        let table = self.host.read().ok()?;
        let (_, block) = table.range(..=address).next_back()?;
        (address - block.info.base < block.info.bytes as u64).then(|| block.clone())
    }

    fn with<R>(&self, address: u64, f: impl FnOnce(&Block) -> R) -> Option<R> {
        match self.device_block(address) {
            Some(block) => {
                let inside = address - block.info.base < block.info.bytes as u64;
                (block.alive() && inside).then(|| f(block))
            }
            None => self.host_block(address).map(|block| f(&block)),
        }
    }

    fn range<R>(
        &self,
        address: u64,
        bytes: usize,
        verb: &str,
        f: impl FnOnce(&Block, usize) -> R,
    ) -> Result<R, Finding> {
        let wrong = |kind, why: String| Finding::new(kind, format!("{verb} of {bytes} bytes at 0x{address:x}: {why}"));
        let go = |block: &Block| {
            let offset = address - block.info.base;
            if !block.alive() {
                return Err(wrong(Kind::UseAfterFree, "the memory has been freed".into()));
            }
            if offset.saturating_add(bytes as u64) > block.info.bytes as u64 {
                let why = format!("the allocation of {} bytes starts at 0x{:x}", block.info.bytes, block.info.base);
                return Err(wrong(Kind::OutOfBounds, why));
            }
            Ok(f(block, offset as usize))
        };
        match self.device_block(address) {
            Some(block) => go(block),
            None => match self.host_block(address) {
                Some(block) => go(&block),
                None => Err(wrong(Kind::OutOfBounds, "no allocation is there".into())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_wrote_is_known_through_copies() {
        let memory = Memory::new(true);
        let a = memory.allocate(0, 200, Purpose::Device, "").unwrap();
        let b = memory.allocate(0, 200, Purpose::Device, "").unwrap();
        memory.write(a + 60, &[7; 10]).unwrap();
        memory.copy(b + 1, a + 58, 20).unwrap();
        let mut out = [0; 22];
        assert_eq!(memory.read(b, &mut out).unwrap(), 12);
        let mut expected = [POISON; 22];
        expected[3..13].fill(7);
        assert_eq!(out, expected);
        memory.fill(b, &[1, 2], 100).unwrap();
        let mut all = [0; 200];
        assert_eq!(memory.read(b, &mut all).unwrap(), 0);
        assert_eq!((all[0], all[199]), (1, 2));
        // nothing, in the middle of a word
        memory.copy(b + 3, a + 70, 0).unwrap();
        memory.write(b + 3, &[]).unwrap();
        // copying the unknown makes the known unknown again
        memory.copy(b, a, 1).unwrap();
        assert_eq!(memory.read(b, &mut all).unwrap(), 1);
    }

    /// Against a byte a byte: ranges that begin and end anywhere in a word, and that overlap.
    #[test]
    fn copies_carry_what_is_known_of_each_byte() {
        const BYTES: usize = 333;
        let memory = Memory::new(true);
        let base = [0; 2].map(|_| memory.allocate(0, BYTES, Purpose::Device, "").unwrap());
        let mut model = [[POISON; BYTES]; 2];
        let mut state = 1u64;
        let mut random = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % n
        };
        for round in 0..3000 {
            let (from, to) = (random(2), random(2));
            let most = [80, BYTES][random(2)];
            let bytes = random(most);
            let (at, offset) = (random(BYTES - bytes), random(BYTES - bytes));
            if random(4) == 0 {
                // Never a byte that looks as if it were unknown.
                let value = (round % 100) as u8;
                let few = bytes.min(9);
                memory.write(base[to] + offset as u64, &vec![value; few]).unwrap();
                model[to][offset..offset + few].fill(value);
            } else {
                memory.copy(base[to] + offset as u64, base[from] + at as u64, bytes).unwrap();
                let part = model[from][at..at + bytes].to_vec();
                model[to][offset..offset + bytes].copy_from_slice(&part);
            }
            let mut out = [0; BYTES];
            let unknown = memory.read(base[to], &mut out).unwrap();
            assert_eq!(out, model[to], "round {round}");
            assert_eq!(unknown, model[to].iter().filter(|&&b| b == POISON).count());
        }
    }

    #[test]
    fn memory_that_nobody_touches_is_not_the_hosts() {
        let resident = || {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let before = resident();
        let memory = Memory::new(true);
        let a = memory.allocate(0, 4 << 30, Purpose::Device, "").unwrap();
        let b = memory.allocate(0, 4 << 30, Purpose::Pinned, "").unwrap();
        assert!(a.is_multiple_of(256) && b.is_multiple_of(4096));
        memory.write(a + (4 << 30) - 8, &[1; 8]).unwrap();
        // Other tests run beside this one.
        assert!(resident() < before + (2 << 30), "{} bytes", resident() - before);
    }

    #[test]
    fn an_address_tells_its_allocation_and_whether_it_lives() {
        let memory = Memory::new(true);
        let a = memory.allocate(0, 100, Purpose::Device, "x").unwrap();
        let b = memory.allocate(1, 100, Purpose::Device, "").unwrap();
        assert!(a.is_multiple_of(256) && b.is_multiple_of(256));
        assert_eq!(memory.find(a + 99).unwrap().name, "x");
        assert!(memory.find(a + 100).is_none());
        assert_eq!(memory.find(b).unwrap().device, 1);
        assert_eq!(memory.read(a + 90, &mut [0; 11]).unwrap_err().kind, Kind::OutOfBounds);
        assert_eq!(memory.free(a + 1).unwrap_err().kind, Kind::Misuse);
        memory.free(a).unwrap();
        assert_eq!(memory.free(a).unwrap_err().kind, Kind::UseAfterFree);
        assert_eq!(memory.write(a, &[0]).unwrap_err().kind, Kind::UseAfterFree);
        assert!(memory.find(a).is_none());
        let c = memory.allocate(0, 100, Purpose::Device, "").unwrap();
        assert_ne!(a, c, "an address is never given twice");
        assert_eq!(memory.read(5, &mut [0]).unwrap_err().kind, Kind::OutOfBounds);
        assert_eq!(memory.read(u64::MAX, &mut [0]).unwrap_err().kind, Kind::OutOfBounds);
        let living: Vec<u64> = memory.living().iter().map(|i| i.base).collect();
        assert_eq!(living, [b, c]);
    }

    #[test]
    fn host_memory_has_its_real_address() {
        let memory = Memory::new(true);
        let p = memory.allocate(0, 64, Purpose::Pinned, "").unwrap();
        // SAFETY: allocated above with 64 bytes.
        unsafe { *(p as *mut u8).add(5) = 9 };
        let mut out = [0; 6];
        assert_eq!(memory.read(p, &mut out).unwrap(), 0);
        assert_eq!(out[5], 9);
        let mut own = vec![1u8; 100];
        // SAFETY: `own` outlives the registration.
        unsafe { memory.register(0, own.as_mut_ptr(), 100).unwrap() };
        assert!(unsafe { memory.register(0, own.as_mut_ptr().wrapping_add(50), 100) }.is_err());
        memory.copy(p, own.as_ptr() as u64, 64).unwrap();
        memory.free(own.as_ptr() as u64).unwrap();
        memory.free(p).unwrap();
        assert!(memory.living().is_empty());
    }
}
