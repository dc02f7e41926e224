//! Who touched which byte of global memory in a launch; shared by the host threads that run its blocks.
//!
//! Memory is divided into pages, made when first touched, and pages into cells as large as the smallest access to them so
//! far. Blocks are unordered unless they synchronise through memory, so a cell need not keep all who touched it: for each
//! kind of access it keeps the warps of the block that came last, since they were last ordered, and one thread of the last
//! other block. Any access that races with one of the forgotten ones races with one of those too, if blocks do not
//! synchronise. Where they do, or where warps of a block are ordered by less than a barrier, a race with a forgotten access
//! can be missed; none is invented.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::clock::{Past, Threads, Variables, ones};
use super::warp::Shape;
use super::{Access, Conflict, Footprint, Kind, Scope, Thread};

const PAGE_BITS: u32 = 10;
const PAGE: u64 = 1 << PAGE_BITS;
const SHARDS: usize = 64;
const NOBODY: u32 = u32::MAX;

// Kinds of access: weak, strong within the block, strong within the device; the odd ones write.
const WEAK_READ: usize = 0;
const WEAK_WRITE: usize = 1;
const BLOCK_READ: usize = 2;
const BLOCK_WRITE: usize = 3;
const DEVICE_READ: usize = 4;
const DEVICE_WRITE: usize = 5;
const KINDS: usize = 6;

fn class(a: &Access) -> usize {
    let reach = match (a.strong(), a.scope) {
        (false, _) => WEAK_READ,
        (true, Scope::Cta) => BLOCK_READ,
        (true, _) => DEVICE_READ,
    };
    reach + a.writes() as usize
}

/// Whether unordered accesses of two kinds race, if they are by threads of one block, and if they are not.
fn races(mine: usize, theirs: usize) -> (bool, bool) {
    let write = (mine | theirs) & 1 != 0;
    let both = |least: usize| mine >= least && theirs >= least;
    (write && !both(BLOCK_READ), write && !both(DEVICE_READ))
}

/// The accesses of one kind to a page's cells.
struct Class {
    /// The block that came last.
    block: Vec<u32>,
    /// The epoch of the earliest of its accesses that are kept.
    epoch: Vec<u32>,
    warps: Vec<u32>,
    /// The lanes, of whichever warp.
    lanes: Vec<u32>,
    /// The last instruction.
    op: Vec<u32>,
    others: Option<Box<Others>>,
}

/// A thread of the last other block.
struct Others {
    block: Vec<u32>,
    epoch: Vec<u32>,
    op: Vec<u32>,
    /// warp * 32 + lane
    thread: Vec<u16>,
}

impl Class {
    fn new(cells: usize) -> Class {
        Class {
            block: vec![NOBODY; cells],
            epoch: vec![0; cells],
            warps: vec![0; cells],
            lanes: vec![0; cells],
            op: vec![0; cells],
            others: None,
        }
    }

    fn refine(&mut self, times: usize) {
        fn repeat<T: Copy>(array: &mut Vec<T>, times: usize) {
            *array = array.iter().flat_map(|&x| std::iter::repeat_n(x, times)).collect();
        }
        let mine = [&mut self.block, &mut self.epoch, &mut self.warps, &mut self.lanes, &mut self.op];
        mine.into_iter().for_each(|array| repeat(array, times));
        if let Some(o) = &mut self.others {
            [&mut o.block, &mut o.epoch, &mut o.op].into_iter().for_each(|array| repeat(array, times));
            repeat(&mut o.thread, times);
        }
    }

    /// Whether all of the cell's last accesses are known to a thread of `block`.
    fn known(&self, cell: usize, block: u32, base: u32, past: &Past) -> bool {
        if self.block[cell] == block {
            return self.epoch[cell] <= base;
        }
        let epoch = self.epoch[cell];
        past.other(self.block[cell]).is_some_and(|local| {
            ones(self.warps[cell])
                .all(|w| local.knows_warp(w, epoch) || ones(self.lanes[cell]).all(|l| local.knows(w, l, epoch)))
        })
    }

    /// An access to the cell that nothing orders before the lane's.
    #[cold]
    fn unordered(
        &self,
        cell: usize,
        me: Thread,
        past: &Past,
        rules: (bool, bool),
        theirs: usize,
    ) -> Option<(Thread, u32)> {
        let write = theirs == WEAK_WRITE;
        let block = self.block[cell];
        let local = block == me.block;
        let (epoch, warps, lanes) = (self.epoch[cell], self.warps[cell], self.lanes[cell]);
        if block != NOBODY && if local { rules.0 } else { rules.1 } {
            let known = if local { Some(&past.own) } else { past.other(block) };
            // Of several warps it is not kept which lanes are whose.
            let one = warps.is_power_of_two();
            for warp in ones(warps) {
                if known.is_some_and(|k| k.knows_warp(warp, epoch)) {
                    continue;
                }
                let mut lanes = lanes;
                if local && warp == me.warp {
                    if !one {
                        continue;
                    }
                    if lanes >> me.lane & 1 != 0 {
                        lanes = if write { 0 } else { lanes & !(1 << me.lane) };
                    }
                }
                let mut unknown = ones(lanes).filter(|&l| !known.is_some_and(|k| k.knows(warp, l, epoch)));
                let first = unknown.next();
                if let Some(lane) = first
                    && (one || 1 + unknown.count() as u32 == lanes.count_ones())
                {
                    return Some((Thread { block, warp, lane }, self.op[cell]));
                }
            }
        }
        // The thread's own atomic came after the other block's in the location's order, and what it does next comes after that:
        // so the last block of a single pass resets the counter that all have counted up.
        if theirs == DEVICE_WRITE && local && warps == 1 << me.warp && lanes == 1 << me.lane {
            return None;
        }
        let o = self.others.as_ref()?;
        let (block, thread) = (o.block[cell], o.thread[cell] as u32);
        let (warp, lane) = (thread / 32, thread % 32);
        let unknown = match block {
            NOBODY => false,
            _ if block == me.block => {
                rules.0 && (warp, lane) != (me.warp, me.lane) && !past.own.knows(warp, lane, o.epoch[cell])
            }
            _ => rules.1 && !past.other(block).is_some_and(|k| k.knows(warp, lane, o.epoch[cell])),
        };
        unknown.then_some((Thread { block, warp, lane }, o.op[cell]))
    }

    /// Sets the last other block of a cell to the one that came last.
    fn displace(&mut self, cell: usize) {
        let cells = self.block.len();
        let o = self.others.get_or_insert_with(|| {
            Box::new(Others {
                block: vec![NOBODY; cells],
                epoch: vec![0; cells],
                op: vec![0; cells],
                thread: vec![0; cells],
            })
        });
        o.block[cell] = self.block[cell];
        o.epoch[cell] = self.epoch[cell];
        o.op[cell] = self.op[cell];
        o.thread[cell] = (self.warps[cell].trailing_zeros() % 32 * 32 + self.lanes[cell].trailing_zeros() % 32) as u16;
    }
}

/// Who notes an access.
struct Writer<'a> {
    class: usize,
    block: u32,
    warp: u32,
    op: u32,
    now: u32,
    base: u32,
    /// Whether what the block did since its last barrier is kept beside it. A weak write stands for all before it that it
    /// does not race with, but not for those of the same value.
    keep: bool,
    threads: &'a Threads,
}

/// The shadow of 1 KiB.
struct Page {
    /// Cells are of `1 << shift` bytes.
    shift: u32,
    classes: [Option<Box<Class>>; KINDS],
}

impl Page {
    fn cells(&self) -> usize {
        (PAGE >> self.shift) as usize
    }

    fn refine(&mut self, shift: u32) {
        let times = 1usize << (self.shift - shift);
        self.shift = shift;
        self.classes.iter_mut().flatten().for_each(|c| c.refine(times));
    }

    fn cells_of(&self, address: u64, bytes: u32) -> Range<usize> {
        let first = ((address % PAGE) >> self.shift) as usize;
        first..(first + (bytes >> self.shift) as usize).min(self.cells())
    }

    fn row(&self, address: u64, lanes: &[u32]) -> Range<usize> {
        let first = ((address % PAGE) >> self.shift) as usize;
        first..(first + lanes.len()).min(self.cells())
    }

    /// Whether it takes no closer look to see that the cells of a row have nothing against an access: everything that could
    /// be in its way is by this block, and before its last barrier or by the same lane.
    #[inline]
    fn quiet(&self, w: &Writer, address: u64, lanes: &[u32]) -> bool {
        let cells = self.row(address, lanes);
        self.classes.iter().enumerate().all(|(theirs, class)| {
            let Some(class) = class else { return true };
            if races(w.class, theirs) == (false, false) {
                return true;
            }
            let mut loud = false;
            for (&block, &epoch) in class.block[cells.clone()].iter().zip(&class.epoch[cells.clone()]) {
                loud |= (block != NOBODY) & ((block != w.block) | (epoch > w.base));
            }
            if loud {
                loud = false;
                let who = class.warps[cells.clone()].iter().zip(&class.lanes[cells.clone()]);
                let what = class.block[cells.clone()].iter().zip(&class.epoch[cells.clone()]);
                for (((&block, &epoch), (&warps, &theirs)), &lanes) in what.zip(who).zip(lanes) {
                    let own = (warps == 1 << w.warp) & (theirs & !lanes == 0) & (lanes & lanes.wrapping_sub(1) == 0);
                    loud |= (block != NOBODY) & ((block != w.block) | (epoch > w.base) & !own);
                }
            }
            if let Some(o) = &class.others {
                loud |= o.block[cells.clone()].iter().fold(false, |l, &block| l | (block != NOBODY));
            }
            !loud
        })
    }

    /// Notes an access if it takes no closer look to see that nothing is wrong with it. All lanes are checked before one is
    /// noted, for lanes of one instruction do not race; and the page is locked over both, so that of two host threads one
    /// sees the other.
    #[inline]
    fn access(&mut self, w: &Writer, shape: &Shape, part: &[(u64, u32)]) -> bool {
        if shape.granule < self.shift {
            self.refine(shape.granule);
        }
        let fine = shape.rows(part, self.shift, |address, lanes| self.quiet(w, address, lanes));
        if fine {
            self.note(w, shape, part);
        }
        fine
    }

    fn note(&mut self, w: &Writer, shape: &Shape, part: &[(u64, u32)]) {
        shape.rows(part, self.shift, |address, lanes| {
            self.note_row(w, address, lanes);
            true
        });
    }

    /// Notes a row of cells and the lanes that touch them.
    fn note_row(&mut self, w: &Writer, address: u64, lanes: &[u32]) {
        let cells = self.row(address, lanes);
        let size = self.cells();
        let c = self.classes[w.class].get_or_insert_with(|| Box::new(Class::new(size)));
        let (block, warp) = (w.block, 1 << w.warp);
        let foreign = c.block[cells.clone()].iter().fold(false, |d, &b| d | ((b != block) & (b != NOBODY)));
        if foreign {
            for cell in cells.clone() {
                if c.block[cell] != block && c.block[cell] != NOBODY {
                    let past = w.threads.past(w.warp, lanes[cell - cells.start].trailing_zeros() % 32);
                    if !c.known(cell, block, w.base, past) {
                        c.displace(cell);
                    }
                    c.epoch[cell] = 0;
                }
            }
        }
        // The epoch of a cell that the block touches first is 0, which is before any barrier.
        let row = c.epoch[cells.clone()].iter_mut().zip(&mut c.warps[cells.clone()]).zip(&mut c.lanes[cells.clone()]);
        for (((epoch, warps), by), &lanes) in row.zip(lanes) {
            let again = (*warps == warp) & (*by & !lanes == 0);
            let old = w.keep & (*epoch > w.base) & !again;
            *epoch = if old { *epoch } else { w.now };
            *warps = warp | if old { *warps } else { 0 };
            *by = lanes | if old { *by } else { 0 };
        }
        c.block[cells.clone()].fill(block);
        c.op[cells].fill(w.op);
    }
}

type Shard = HashMap<u64, Arc<Mutex<Page>>>;

/// The pages that a block used last, by the low bits of their number.
pub(super) struct Cache(Vec<Option<(u64, Arc<Mutex<Page>>)>>);

impl Default for Cache {
    fn default() -> Cache {
        Cache(vec![None; 256])
    }
}

/// The check of one launch: what its blocks share.
pub struct LaunchCheck {
    threads_per_block: u32,
    pages: Vec<Mutex<Shard>>,
    variables: Variables,
    /// Instructions that are compare-and-swaps.
    swaps: HashSet<u32>,
}

impl LaunchCheck {
    /// A launch whose blocks have so many threads.
    pub fn new(threads_per_block: u32) -> LaunchCheck {
        let pages = (0..SHARDS).map(|_| Mutex::default()).collect();
        LaunchCheck { threads_per_block, pages, variables: Variables::default(), swaps: HashSet::new() }
    }

    /// Tells which instructions are compare-and-swaps: plain reads beside them are no races.
    pub fn with_swaps(self, swaps: HashSet<u32>) -> LaunchCheck {
        LaunchCheck { swaps, ..self }
    }

    pub(super) fn swaps(&self) -> &HashSet<u32> {
        &self.swaps
    }

    pub(super) fn threads_per_block(&self) -> u32 {
        self.threads_per_block
    }

    pub(super) fn variables(&self) -> &Variables {
        &self.variables
    }

    fn page<'c>(&self, number: u64, cache: &'c mut Cache) -> &'c Mutex<Page> {
        let slots = cache.0.len();
        let slot = &mut cache.0[number as usize % slots];
        if slot.as_ref().is_none_or(|(n, _)| *n != number) {
            let shard = &self.pages[(number ^ number >> 12) as usize % SHARDS];
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let page = shard
                .entry(number)
                .or_insert_with(|| Arc::new(Mutex::new(Page { shift: 4, classes: [const { None }; KINDS] })));
            *slot = Some((number, page.clone()));
        }
        &slot.as_ref().expect("just filled").1
    }

    /// Checks an access, and notes it if nothing is wrong.
    pub(super) fn access(
        &self,
        a: &Access,
        block: u32,
        threads: &Threads,
        cache: &mut Cache,
        same: &mut dyn FnMut(u32) -> bool,
    ) -> Option<Conflict> {
        if a.mask == 0 || a.bytes == 0 {
            return None;
        }
        let mut shape = Shape::of(a, PAGE_BITS);
        let class = class(a);
        if class == WEAK_WRITE {
            shape.distinct();
        } else {
            shape.by_page(PAGE_BITS);
        }
        let base = threads.base(a.warp).max(threads.start());
        let now = threads.now(a.warp);
        let mut w = Writer { class, block, warp: a.warp, op: a.op, now, base, keep: class != WEAK_WRITE, threads };
        if shape.is_row() {
            let mut page = lock(self.page(a.addresses[0] >> PAGE_BITS, cache));
            if page.access(&w, &shape, shape.part()) {
                return None;
            }
        }
        let shape = shape.collected();
        let page_of = |run: &(u64, u32)| run.0 >> PAGE_BITS;
        for of_page in shape.part().chunk_by(|x, y| page_of(x) == page_of(y)) {
            let mut page = lock(self.page(page_of(&of_page[0]), cache));
            if page.access(&w, &shape, of_page) {
                continue;
            }
            for &(address, lanes) in of_page {
                let cells = page.cells_of(address, a.bytes);
                if let Some(conflict) = clash(&page, &mut w, a, cells, address, lanes, &self.swaps, same) {
                    return Some(conflict);
                }
            }
            page.note(&w, &shape, of_page);
        }
        None
    }

    /// Ends the launch.
    pub fn finish(self) -> Footprint {
        let mut pages: Vec<(u64, Arc<Mutex<Page>>)> =
            self.pages.into_iter().flat_map(|s| s.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        pages.sort_unstable_by_key(|p| p.0);
        let mut footprint = Footprint::default();
        for (number, page) in pages {
            let page = lock(&page);
            let bytes = 1 << page.shift;
            let touched = |kinds: [usize; 3], cell: usize| {
                kinds.iter().any(|&k| page.classes[k].as_ref().is_some_and(|c| c.block[cell] != NOBODY))
            };
            for cell in 0..page.cells() {
                let start = (number << PAGE_BITS) + cell as u64 * bytes;
                if touched([WEAK_READ, BLOCK_READ, DEVICE_READ], cell) {
                    extend(&mut footprint.reads, start, bytes);
                }
                if touched([WEAK_WRITE, BLOCK_WRITE, DEVICE_WRITE], cell) {
                    extend(&mut footprint.writes, start, bytes);
                }
            }
        }
        footprint
    }
}

fn lock(page: &Mutex<Page>) -> std::sync::MutexGuard<'_, Page> {
    page.lock().unwrap_or_else(PoisonError::into_inner)
}

fn extend(ranges: &mut Vec<(u64, u64)>, start: u64, bytes: u64) {
    let end = start.saturating_add(bytes);
    match ranges.last_mut() {
        Some(last) if last.1 == start => last.1 = end,
        _ => ranges.push((start, end)),
    }
}

/// The first conflict of some lanes with earlier accesses to the cells.
#[cold]
#[allow(clippy::too_many_arguments)]
fn clash(
    page: &Page,
    w: &mut Writer,
    a: &Access,
    cells: Range<usize>,
    address: u64,
    lanes: u32,
    swaps: &HashSet<u32>,
    same: &mut dyn FnMut(u32) -> bool,
) -> Option<Conflict> {
    for (theirs, class) in page.classes.iter().enumerate() {
        let rules = races(w.class, theirs);
        let Some(class) = class.as_ref().filter(|_| rules.0 || rules.1) else { continue };
        for cell in cells.clone() {
            for lane in ones(lanes) {
                let me = Thread { block: w.block, warp: a.warp, lane };
                let past = w.threads.past(a.warp, lane);
                let Some((other, other_op)) = class.unordered(cell, me, past, rules, theirs) else {
                    continue;
                };
                if w.class == WEAK_WRITE && theirs == WEAK_WRITE && same(lane) {
                    w.keep = true;
                    continue;
                }
                if (w.class == WEAK_READ && swaps.contains(&other_op)) || (theirs == WEAK_READ && swaps.contains(&a.op))
                {
                    continue;
                }
                let at = (address & !(PAGE - 1)) + ((cell as u64) << page.shift);
                let other_kind = if theirs & 1 == 0 { Kind::Read } else { Kind::Write };
                return Some(Conflict { lane, address: address.max(at), kind: a.kind, other, other_op, other_kind });
            }
        }
    }
    None
}
