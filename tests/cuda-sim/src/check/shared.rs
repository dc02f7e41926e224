//! Who touched which byte of a block's shared memory since the last barrier.
//!
//! Memory is divided into cells as large as the smallest access so far: accesses are aligned, so a cell is touched as a
//! whole or not at all, and the check is exact to the byte. There are four kinds of access, weak and strong reads and
//! writes; each keeps, for every cell and warp, the lanes and the epoch of the last ones. What the last barrier ordered is
//! recognised by one number a cell and not looked at again.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use super::clock::{Past, Threads, ones};
use super::warp::{contiguous, distinct, granule, pattern, runs};
use super::{Access, Conflict, Kind, Thread};

const WEAK_READ: usize = 0;
const WEAK_WRITE: usize = 1;
const STRONG_READ: usize = 2;
const STRONG_WRITE: usize = 3;

/// Which kinds race with an unordered access of a kind: those of which one writes, unless both are strong.
const AGAINST: [&[usize]; 4] = [
    &[WEAK_WRITE, STRONG_WRITE],
    &[WEAK_READ, WEAK_WRITE, STRONG_READ, STRONG_WRITE],
    &[WEAK_WRITE],
    &[WEAK_READ, WEAK_WRITE],
];

fn class(a: &Access) -> usize {
    a.writes() as usize + 2 * a.strong() as usize
}

/// The accesses of one warp, a cell each: the last epoch, the lanes in it, and the last instruction.
#[derive(Clone, Default)]
struct Plane {
    epoch: Vec<u32>,
    lanes: Vec<u32>,
    op: Vec<u32>,
}

/// An earlier access by a lane whose warp has gone on to another epoch that does not include it.
#[derive(Clone, Copy)]
struct Older {
    warp: u32,
    epoch: u32,
    lanes: u32,
    op: u32,
}

/// All accesses of one kind.
#[derive(Clone)]
struct Class {
    /// The latest epoch in which a cell was touched.
    latest: Vec<u32>,
    /// The warps that touched it since all was ordered.
    warps: Vec<u32>,
    planes: Vec<Option<Box<Plane>>>,
    older: HashMap<usize, Vec<Older>>,
}

impl Class {
    fn new(cells: usize) -> Class {
        Class { latest: vec![0; cells], warps: vec![0; cells], planes: vec![None; 32], older: HashMap::new() }
    }

    fn refine(&mut self, times: usize) {
        let arrays = self.planes.iter_mut().flatten().flat_map(|p| [&mut p.epoch, &mut p.lanes, &mut p.op]);
        for array in arrays.chain([&mut self.latest, &mut self.warps]) {
            *array = array.iter().flat_map(|&x| std::iter::repeat_n(x, times)).collect();
        }
        let older = std::mem::take(&mut self.older);
        for (cell, records) in older {
            (cell * times..(cell + 1) * times).for_each(|c| drop(self.older.insert(c, records.clone())));
        }
    }

    /// Keeps an access that the warp's next one, by the lanes `bits`, does not stand for, and drops what that one does.
    #[cold]
    fn keep(&mut self, cell: usize, older: Older, kind: usize, bits: u32, threads: &Threads) {
        let list = self.older.entry(cell).or_default();
        list.retain_mut(|r| {
            if r.warp == older.warp && (kind != WEAK_WRITE || r.lanes & !bits == 0) {
                r.lanes &= !bits;
            }
            let knows = |lane| ones(r.lanes).all(|l| threads.past(older.warp, lane).own.knows(r.warp, l, r.epoch));
            r.lanes != 0 && !ones(bits).all(knows)
        });
        list.push(older);
    }

    /// An access to the cell that nothing orders before the lane's.
    #[cold]
    fn unordered(&self, cell: usize, warp: u32, lane: u32, past: &Past, write: bool, start: u32) -> Option<Older> {
        let of_warps = ones(self.warps[cell]).filter_map(|w| {
            let plane = self.planes[w as usize].as_ref()?;
            Some(Older { warp: w, epoch: plane.epoch[cell], lanes: plane.lanes[cell], op: plane.op[cell] })
        });
        let older = self.older.get(&cell).into_iter().flatten().copied();
        of_warps.chain(older).find_map(|mut r| {
            if r.epoch <= start || past.own.knows_warp(r.warp, r.epoch) {
                return None;
            }
            if r.warp == warp && r.lanes >> lane & 1 != 0 {
                // Lanes that wrote together wrote the same, or which of them won is nobody's business here.
                r.lanes = if write { 0 } else { r.lanes & !(1 << lane) };
            }
            let other = ones(r.lanes).find(|&l| !past.own.knows(r.warp, l, r.epoch))?;
            Some(Older { lanes: 1 << other, ..r })
        })
    }
}

/// A `cp.async` in flight: its destination.
struct Copy {
    op: u32,
    /// Lanes for which it is in flight.
    lanes: u32,
    addresses: [u64; 32],
    bytes: u32,
    /// The group, counted for each lane, to which it belongs.
    group: [u32; 32],
}

/// The copies of one warp.
struct Copies {
    flying: VecDeque<Copy>,
    committed: [u32; 32],
}

/// The shadow of a block's shared memory.
pub(super) struct Shared {
    bytes: usize,
    /// Cells are of `1 << shift` bytes.
    shift: u32,
    classes: [Option<Box<Class>>; 4],
    /// The last epoch of earlier blocks.
    start: u32,
    copies: Vec<Copies>,
    /// For each byte, whether it is in flight; and how many are.
    in_flight: Vec<bool>,
    flying: usize,
}

impl Shared {
    pub fn new(bytes: usize, start: u32) -> Shared {
        let copies = (0..32).map(|_| Copies { flying: VecDeque::new(), committed: [0; 32] }).collect();
        Shared { bytes, shift: 4, classes: [const { None }; 4], start, copies, in_flight: Vec::new(), flying: 0 }
    }

    /// Begins a block whose epochs are above `start`.
    pub fn start(&mut self, start: u32) {
        self.start = start;
        self.classes.iter_mut().flatten().for_each(|c| c.older.clear());
        for c in &mut self.copies {
            c.flying.clear();
            c.committed = [0; 32];
        }
        self.in_flight.fill(false);
        self.flying = 0;
    }

    /// Forgets all epochs.
    pub fn clear(&mut self) {
        self.classes = [const { None }; 4];
    }

    fn cells(&self) -> usize {
        self.bytes.div_ceil(1 << self.shift)
    }

    fn refine(&mut self, shift: u32) {
        let times = 1usize << (self.shift - shift);
        self.shift = shift;
        self.classes.iter_mut().flatten().for_each(|c| c.refine(times));
    }

    /// The cells of one lane; none if they are not all there.
    #[inline]
    fn range(&self, address: u64, bytes: u32) -> Range<usize> {
        match address.checked_add(bytes as u64) {
            Some(end) if end <= self.bytes as u64 => {
                (address >> self.shift) as usize..end.div_ceil(1 << self.shift) as usize
            }
            _ => 0..0,
        }
    }

    pub fn uninitialised(&self, mask: u32, addresses: &[u64; 32], bytes: u32) -> Option<u32> {
        let written = |class: usize, c: usize| {
            self.classes[class].as_ref().and_then(|k| k.latest.get(c)).is_some_and(|&e| e > self.start)
        };
        let bad = |range: Range<usize>| match &self.classes[WEAK_WRITE] {
            Some(k) if k.latest.get(range.clone()).is_some_and(|e| e.iter().all(|&e| e > self.start)) => false,
            _ => range.into_iter().any(|c| !written(WEAK_WRITE, c) && !written(STRONG_WRITE, c)),
        };
        let first = addresses[0];
        let row = (0..32u64).fold(0, |d, i| d | (addresses[i as usize].wrapping_sub(first) ^ i * bytes as u64)) == 0;
        if mask == u32::MAX && row && bytes <= 16 && !bad(self.range(first, 32 * bytes)) {
            return None;
        }
        let mut last = None;
        ones(mask).find(|&lane| {
            let address = addresses[lane as usize];
            if last == Some(address) {
                return false;
            }
            last = Some(address);
            bad(self.range(address, bytes))
        })
    }

    /// Checks an access, and notes it if nothing is wrong.
    pub fn access(
        &mut self,
        a: &Access,
        block: u32,
        threads: &Threads,
        same: &mut dyn FnMut(u32) -> bool,
    ) -> Option<Conflict> {
        if a.mask == 0 || a.bytes == 0 {
            return None;
        }
        let shift = granule(a);
        if shift < self.shift {
            self.refine(shift);
        }
        if self.flying > 0
            && let Some(conflict) = self.touched(a, block)
        {
            return Some(conflict);
        }
        let mine = class(a);
        let base = threads.base(a.warp).max(self.start);
        let lane_cells = (a.bytes >> self.shift) as usize;
        if contiguous(a)
            && threads.together(a.warp)
            && a.addresses[0].saturating_add(32 * a.bytes as u64) <= self.bytes as u64
            && let Some(lanes) = pattern(lane_cells)
        {
            let first = (a.addresses[0] >> self.shift) as usize;
            let range = first..first + lanes.len();
            let classes = AGAINST[mine].iter().filter_map(|&c| self.classes[c].as_ref());
            if classes.fold(0, |m, c| m.max(top(&c.latest[range.clone()]))) <= base {
                self.note_row(mine, a, range, lanes, threads, base);
                return None;
            }
        }
        let (mut runs, mut count) = runs(a);
        if mine == WEAK_WRITE {
            count = distinct(&mut runs, count);
        }
        let runs = &runs[..count];
        let mut merged = false;
        for &theirs in AGAINST[mine] {
            let Some(class) = &self.classes[theirs] else { continue };
            for &(address, lanes) in runs {
                for cell in self.range(address, a.bytes) {
                    if class.latest[cell] <= base {
                        continue;
                    }
                    for lane in ones(lanes) {
                        let past = threads.past(a.warp, lane);
                        let found = class.unordered(cell, a.warp, lane, past, theirs == WEAK_WRITE, self.start);
                        if let Some(r) = found {
                            // Two writes of one value; an atomic is none.
                            if mine == WEAK_WRITE && theirs == WEAK_WRITE && same(lane) {
                                merged = true;
                                continue;
                            }
                            let other_kind = if theirs & 1 == 0 { Kind::Read } else { Kind::Write };
                            return Some(Conflict {
                                lane,
                                address: address.max((cell as u64) << self.shift),
                                kind: a.kind,
                                other: Thread { block, warp: r.warp, lane: r.lanes.trailing_zeros() },
                                other_op: r.op,
                                other_kind,
                            });
                        }
                    }
                }
            }
        }
        self.note(mine, a, runs, threads, base, merged);
        None
    }

    fn plane(&mut self, class: usize, warp: u32) -> (&mut Class, Box<Plane>) {
        let cells = self.cells();
        let class = self.classes[class].get_or_insert_with(|| Box::new(Class::new(cells)));
        let plane = class.planes[warp as usize]
            .take()
            .unwrap_or_else(|| Box::new(Plane { epoch: vec![0; cells], lanes: vec![0; cells], op: vec![0; cells] }));
        (class, plane)
    }

    /// Notes the cells of a whole warp in a row; nothing of the warp's earlier accesses can be lost.
    fn note_row(
        &mut self,
        class: usize,
        a: &Access,
        cells: Range<usize>,
        pattern: &[u32],
        threads: &Threads,
        base: u32,
    ) {
        let (now, bit, op) = (threads.now(a.warp), 1 << a.warp, a.op);
        let (class, mut plane) = self.plane(class, a.warp);
        let latest = &mut class.latest[cells.clone()];
        let warps = &mut class.warps[cells.clone()];
        for (latest, warps) in latest.iter_mut().zip(warps) {
            *warps = bit | if *latest <= base { 0 } else { *warps };
            *latest = (*latest).max(now);
        }
        let epochs = &mut plane.epoch[cells.clone()];
        for ((epoch, lanes), lane) in epochs.iter_mut().zip(&mut plane.lanes[cells.clone()]).zip(pattern) {
            *lanes = lane | if *epoch == now { *lanes } else { 0 };
            *epoch = now;
        }
        plane.op[cells].fill(op);
        class.planes[a.warp as usize] = Some(plane);
    }

    /// Notes the cells of each run of lanes. Weak writes have each address in one run; `merged` if they wrote what was there.
    fn note(&mut self, kind: usize, a: &Access, runs: &[(u64, u32)], threads: &Threads, base: u32, merged: bool) {
        let now = threads.now(a.warp);
        let apart = !threads.together(a.warp);
        let ranges: [Range<usize>; 32] =
            std::array::from_fn(|i| runs.get(i).map_or(0..0, |r| self.range(r.0, a.bytes)));
        let (class, mut plane) = self.plane(kind, a.warp);
        for (range, &(_, bits)) in ranges.iter().zip(runs) {
            for cell in range.clone() {
                let latest = &mut class.latest[cell];
                let open = *latest > base;
                class.warps[cell] = 1 << a.warp | if open { class.warps[cell] } else { 0 };
                *latest = (*latest).max(now);
                let (epoch, lanes) = (plane.epoch[cell], plane.lanes[cell]);
                let merge = epoch == now && (kind != WEAK_WRITE || merged);
                if !merge && (apart || epoch == now) && epoch > base && lanes & !bits != 0 {
                    let lanes = if kind == WEAK_WRITE { lanes } else { lanes & !bits };
                    class.keep(cell, Older { warp: a.warp, epoch, lanes, op: plane.op[cell] }, kind, bits, threads);
                }
                plane.lanes[cell] = bits | if merge { lanes } else { 0 };
                plane.epoch[cell] = now;
                plane.op[cell] = a.op;
                if !open && !class.older.is_empty() {
                    class.older.remove(&cell);
                }
            }
        }
        class.planes[a.warp as usize] = Some(plane);
    }

    /// The first byte in flight that an access touches.
    #[cold]
    fn touched(&self, a: &Access, block: u32) -> Option<Conflict> {
        for lane in ones(a.mask) {
            let first = a.addresses[lane as usize];
            let bytes = first as usize..first.saturating_add(a.bytes as u64).min(self.bytes as u64) as usize;
            let Some(at) = self.in_flight.get(bytes.clone()).and_then(|f| f.iter().position(|&f| f)) else { continue };
            let address = (bytes.start + at) as u64;
            for (warp, copies) in self.copies.iter().enumerate() {
                for copy in &copies.flying {
                    let holds = |l: &u32| {
                        let to = copy.addresses[*l as usize];
                        to <= address && address - to < copy.bytes as u64
                    };
                    if let Some(other) = ones(copy.lanes).find(holds) {
                        let other = Thread { block, warp: warp as u32, lane: other };
                        let other_kind = Kind::Copy;
                        return Some(Conflict { lane, address, kind: a.kind, other, other_op: copy.op, other_kind });
                    }
                }
            }
        }
        None
    }

    pub fn issue(&mut self, a: &Access, block: u32, threads: &Threads) -> Option<Conflict> {
        // The copy writes at some time between here and its wait, so all that is to come before it comes before here.
        let conflict = self.access(&Access { kind: Kind::Write, strong: false, ..*a }, block, threads, &mut |_| false);
        if conflict.is_some() {
            return conflict.map(|c| Conflict { kind: Kind::Copy, ..c });
        }
        self.in_flight.resize(self.bytes, false);
        for lane in ones(a.mask) {
            let first = a.addresses[lane as usize];
            let end = first.saturating_add(a.bytes as u64).min(self.bytes as u64);
            for byte in self.in_flight.get_mut(first as usize..end as usize).into_iter().flatten() {
                self.flying += !*byte as usize;
                *byte = true;
            }
        }
        let copies = &mut self.copies[a.warp as usize];
        copies.flying.push_back(Copy {
            op: a.op,
            lanes: a.mask,
            addresses: *a.addresses,
            bytes: a.bytes,
            group: copies.committed,
        });
        None
    }

    pub fn commit(&mut self, warp: u32, mask: u32) {
        for lane in ones(mask) {
            let count = &mut self.copies[warp as usize].committed[lane as usize];
            *count = count.wrapping_add(1);
        }
    }

    pub fn wait(&mut self, warp: u32, mask: u32, left: u32, threads: &Threads) {
        let copies = &mut self.copies[warp as usize];
        let mut done = Vec::new();
        for copy in &mut copies.flying {
            let landed = ones(mask & copy.lanes)
                .filter(|&l| copies.committed[l as usize].wrapping_sub(copy.group[l as usize]) > left)
                .fold(0, |m, l| m | 1 << l);
            if landed != 0 {
                copy.lanes &= !landed;
                done.push((landed, copy.addresses, copy.bytes, copy.op));
            }
        }
        copies.flying.retain(|c| c.lanes != 0);
        let base = threads.base(warp).max(self.start);
        for (mask, addresses, bytes, op) in done {
            for lane in ones(mask) {
                let first = addresses[lane as usize];
                let end = first.saturating_add(bytes as u64).min(self.bytes as u64);
                for byte in self.in_flight.get_mut(first as usize..end as usize).into_iter().flatten() {
                    self.flying -= *byte as usize;
                    *byte = false;
                }
            }
            let scope = super::Scope::Cta;
            let a = Access { warp, mask, op, addresses: &addresses, bytes, kind: Kind::Write, strong: false, scope };
            let (mut runs, count) = runs(&a);
            let count = distinct(&mut runs, count);
            self.note(WEAK_WRITE, &a, &runs[..count], threads, base, false);
        }
    }
}

fn top(epochs: &[u32]) -> u32 {
    epochs.iter().fold(0, |m, &e| m.max(e))
}
