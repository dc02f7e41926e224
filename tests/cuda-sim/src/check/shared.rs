//! Who touched which byte of a block's shared memory since the last barrier.
//!
//! Memory is divided into cells as large as the smallest access so far: accesses are aligned, so a cell is touched as a
//! whole or not at all, and the check is exact to the byte. There are four kinds of access, weak and strong reads and
//! writes; each keeps, for every cell and warp, the lanes and the epoch of the last ones. What the last barrier ordered is
//! recognised by one number a cell and not looked at again.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use super::clock::{Past, Threads, ones};
use super::warp::Shape;
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

impl Plane {
    fn of(planes: &mut [Option<Box<Plane>>], warp: u32, cells: usize) -> &mut Plane {
        planes[warp as usize]
            .get_or_insert_with(|| Box::new(Plane { epoch: vec![0; cells], lanes: vec![0; cells], op: vec![0; cells] }))
    }
}

/// An earlier access by a lane whose warp has gone on to another epoch that does not include it.
#[derive(Clone, Copy)]
struct Older {
    warp: u32,
    epoch: u32,
    lanes: u32,
    op: u32,
}

/// What becomes of the lanes that touched a cell in the same epoch of their warp.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    /// They are as good as one another.
    Merge,
    /// Weak writes: lanes that wrote together share the cell, so those that did not are kept apart.
    Single,
    /// Weak writes of the value that was there.
    SameValue,
}

impl Older {
    /// Keeps an access that the warp's next one, by `lanes`, does not stand for, and drops those that it does.
    #[cold]
    fn keep(self, list: &mut Vec<Older>, lanes: u32, threads: &Threads, rule: Rule) {
        list.retain_mut(|r| {
            if r.warp == self.warp && (rule == Rule::Merge || r.lanes & !lanes == 0) {
                r.lanes &= !lanes;
            }
            let knows = |lane| ones(r.lanes).all(|l| threads.past(self.warp, lane).own.knows(r.warp, l, r.epoch));
            r.lanes != 0 && !ones(lanes).all(knows)
        });
        list.push(self);
    }
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

    /// Notes a row of cells and the lanes that touch them, nothing of whose warp's earlier accesses can be lost.
    #[inline]
    fn note_row(&mut self, a: &Access, first: usize, lanes: &[u32], now: u32, base: u32) {
        let cells = first..first + lanes.len();
        let bit = 1 << a.warp;
        let plane = Plane::of(&mut self.planes, a.warp, self.latest.len());
        for (latest, warps) in self.latest[cells.clone()].iter_mut().zip(&mut self.warps[cells.clone()]) {
            *warps = bit | if *latest <= base { 0 } else { *warps };
            *latest = (*latest).max(now);
        }
        let epochs = plane.epoch[cells.clone()].iter_mut();
        for ((epoch, by), lanes) in epochs.zip(&mut plane.lanes[cells.clone()]).zip(lanes) {
            *by = lanes | if *epoch == now { *by } else { 0 };
            *epoch = now;
        }
        plane.op[cells].fill(a.op);
    }

    /// Notes cells that some lanes touch as one.
    fn note(&mut self, a: &Access, cells: Range<usize>, lanes: u32, threads: &Threads, base: u32, rule: Rule) {
        let now = threads.now(a.warp);
        let apart = !threads.together(a.warp);
        let plane = Plane::of(&mut self.planes, a.warp, self.latest.len());
        for cell in cells {
            let open = self.latest[cell] > base;
            self.warps[cell] = 1 << a.warp | if open { self.warps[cell] } else { 0 };
            self.latest[cell] = self.latest[cell].max(now);
            let (epoch, by) = (plane.epoch[cell], plane.lanes[cell]);
            let merge = epoch == now && rule != Rule::Single;
            if !merge && (apart || epoch == now) && epoch > base && by & !lanes != 0 {
                let by = if rule == Rule::Merge { by & !lanes } else { by };
                let older = Older { warp: a.warp, epoch, lanes: by, op: plane.op[cell] };
                older.keep(self.older.entry(cell).or_default(), lanes, threads, rule);
            } else if !open && !self.older.is_empty() {
                self.older.remove(&cell);
            }
            plane.lanes[cell] = lanes | if merge { by } else { 0 };
            plane.epoch[cell] = now;
            plane.op[cell] = a.op;
        }
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
        let row = (0..32u64).fold(0, |d, i| d | (addresses[i as usize].wrapping_sub(first) ^ (i * bytes as u64))) == 0;
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
        let mut shape = Shape::of(a, u64::BITS - 1);
        if shape.granule < self.shift {
            self.refine(shape.granule);
        }
        if self.flying > 0
            && let Some(conflict) = self.touched(a, block)
        {
            return Some(conflict);
        }
        let mine = class(a);
        let base = threads.base(a.warp).max(self.start);
        if mine == WEAK_WRITE {
            shape.distinct();
        }
        let shift = self.shift;
        let part = shape.part();
        if threads.together(a.warp)
            && shape.rows(part, shift, |address, lanes| self.quiet(mine, a, address, lanes, base))
        {
            let now = threads.now(a.warp);
            let class = self.class(mine);
            shape.rows(part, shift, |address, lanes| {
                class.note_row(a, (address >> shift) as usize, lanes, now, base);
                true
            });
            return None;
        }
        let shape = shape.collected();
        let runs = shape.part();
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

    /// Whether it takes no closer look to see that the cells of a row have nothing against an access: all that could be in
    /// its way was before the last barrier, or by the same lane.
    #[inline]
    fn quiet(&self, mine: usize, a: &Access, address: u64, lanes: &[u32], base: u32) -> bool {
        let bytes = (lanes.len() as u64) << self.shift;
        if address.checked_add(bytes).is_none_or(|end| end > self.bytes as u64) {
            return false;
        }
        let first = (address >> self.shift) as usize;
        let cells = first..first + lanes.len();
        AGAINST[mine].iter().filter_map(|&kind| Some((kind, self.classes[kind].as_ref()?))).all(|(kind, class)| {
            let latest = &class.latest[cells.clone()];
            if latest.iter().fold(0, |m, &e| m.max(e)) <= base {
                return true;
            }
            let Some(plane) = class.planes[a.warp as usize].as_ref().filter(|_| class.older.is_empty()) else {
                return false;
            };
            let mut loud = false;
            let who = class.warps[cells.clone()].iter().zip(&plane.lanes[cells.clone()]);
            for ((&latest, (&warps, &theirs)), &lanes) in latest.iter().zip(who).zip(lanes) {
                let alone = (theirs & !lanes == 0) & (lanes & lanes.wrapping_sub(1) == 0);
                // Lanes that wrote together.
                let shared = (kind == WEAK_WRITE) & (lanes & !theirs == 0) & ((mine != WEAK_WRITE) | (lanes == theirs));
                let own = (warps == 1 << a.warp) & (alone | shared);
                loud |= (latest > base) & !own;
            }
            !loud
        })
    }

    fn class(&mut self, kind: usize) -> &mut Class {
        let cells = self.cells();
        self.classes[kind].get_or_insert_with(|| Box::new(Class::new(cells)))
    }

    fn note(&mut self, kind: usize, a: &Access, runs: &[(u64, u32)], threads: &Threads, base: u32, same: bool) {
        let rule = match (kind, same) {
            (WEAK_WRITE, false) => Rule::Single,
            (WEAK_WRITE, true) => Rule::SameValue,
            _ => Rule::Merge,
        };
        for &(address, lanes) in runs {
            let cells = self.range(address, a.bytes);
            self.class(kind).note(a, cells, lanes, threads, base, rule);
        }
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
            let mut shape = Shape::of(&a, u64::BITS - 1).collected();
            shape.distinct();
            self.note(WEAK_WRITE, &a, shape.part(), threads, base, false);
        }
    }
}
