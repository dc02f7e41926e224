//! What each thread of a block knows of the others: vector clocks that are one number a warp where they can be.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Access, Kind, Scope};

/// What is known of one block: the accesses of thread `t` up to the epoch `floor[t / 32]`, and for some threads more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Local {
    floor: [u32; 32],
    /// Sorted by thread; each epoch above the thread's floor.
    extra: Vec<(u16, u32)>,
}

impl Local {
    /// Everything up to `epoch`.
    fn closed(epoch: u32) -> Local {
        Local { floor: [epoch; 32], extra: Vec::new() }
    }

    /// Whether the accesses of the thread up to `epoch` are known.
    #[inline]
    pub fn knows(&self, warp: u32, lane: u32, epoch: u32) -> bool {
        epoch <= self.floor[warp as usize]
            || !self.extra.is_empty() && {
                let thread = (warp * 32 + lane) as u16;
                self.extra.binary_search_by_key(&thread, |x| x.0).is_ok_and(|i| epoch <= self.extra[i].1)
            }
    }

    /// Whether the accesses of all lanes of the warp up to `epoch` are known.
    #[inline]
    pub fn knows_warp(&self, warp: u32, epoch: u32) -> bool {
        epoch <= self.floor[warp as usize]
    }

    fn join(&mut self, other: &Local) {
        for (mine, theirs) in self.floor.iter_mut().zip(&other.floor) {
            *mine = (*mine).max(*theirs);
        }
        if self.extra.is_empty() && other.extra.is_empty() {
            return;
        }
        let (mine, theirs) = (std::mem::take(&mut self.extra), &other.extra);
        let (mut i, mut j) = (0, 0);
        loop {
            let entry = match (mine.get(i), theirs.get(j)) {
                (None, None) => break,
                (Some(&a), None) => (a, i += 1).0,
                (None, Some(&b)) => (b, j += 1).0,
                (Some(&a), Some(&b)) if a.0 < b.0 => (a, i += 1).0,
                (Some(&a), Some(&b)) if a.0 > b.0 => (b, j += 1).0,
                (Some(&a), Some(&b)) => ((a.0, a.1.max(b.1)), i += 1, j += 1).0,
            };
            if entry.1 > self.floor[entry.0 as usize / 32] {
                self.extra.push(entry);
            }
        }
    }

    /// Adds the accesses of some lanes of a warp, which has the lanes `full`.
    fn learn(&mut self, warp: u32, lanes: u32, full: u32, epoch: u32) {
        let floor = &mut self.floor[warp as usize];
        if lanes & full == full {
            *floor = (*floor).max(epoch);
            let floor = *floor;
            self.extra.retain(|x| x.0 as u32 / 32 != warp || x.1 > floor);
        } else if epoch > *floor {
            for lane in ones(lanes & full) {
                let thread = (warp * 32 + lane) as u16;
                match self.extra.binary_search_by_key(&thread, |x| x.0) {
                    Ok(i) => self.extra[i].1 = self.extra[i].1.max(epoch),
                    Err(i) => self.extra.insert(i, (thread, epoch)),
                }
            }
        }
    }
}

/// What is known of blocks, each by its number in the grid.
type Blocks = BTreeMap<u32, Arc<Local>>;

fn join_block(blocks: &mut Blocks, block: u32, local: &Arc<Local>) {
    match blocks.entry(block) {
        std::collections::btree_map::Entry::Vacant(e) => {
            e.insert(local.clone());
        }
        std::collections::btree_map::Entry::Occupied(mut e) => {
            if !Arc::ptr_eq(e.get(), local) {
                Arc::make_mut(e.get_mut()).join(local);
            }
        }
    }
}

/// What a thread knows: of its own block, and of others if a release of theirs reached it.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    pub own: Local,
    others: Option<Arc<Blocks>>,
    /// What of it has passed a fence, of any thread, that reaches the block or the device.
    fenced: [Option<Arc<Past>>; 2],
}

impl Past {
    /// What is known of another block.
    pub fn other(&self, block: u32) -> Option<&Local> {
        self.others.as_ref()?.get(&block).map(|local| &**local)
    }

    fn join(&mut self, other: &Past) {
        self.own.join(&other.own);
        self.join_others(other);
        self.join_fenced(other);
    }

    fn join_fenced(&mut self, other: &Past) {
        for (mine, theirs) in self.fenced.iter_mut().zip(&other.fenced) {
            match (mine, theirs) {
                (_, None) => {}
                (mine @ None, theirs) => mine.clone_from(theirs),
                (Some(mine), Some(theirs)) if Arc::ptr_eq(mine, theirs) => {}
                (Some(mine), Some(theirs)) => Arc::make_mut(mine).join(theirs),
            }
        }
    }

    fn join_others(&mut self, other: &Past) {
        match (&mut self.others, &other.others) {
            (_, None) => {}
            (mine @ None, theirs) => *mine = theirs.clone(),
            (Some(mine), Some(theirs)) if Arc::ptr_eq(mine, theirs) => {}
            (Some(mine), Some(theirs)) => {
                let mine = Arc::make_mut(mine);
                theirs.iter().for_each(|(&block, local)| join_block(mine, block, local));
            }
        }
    }

    /// Takes in what was released across blocks, `block` being the thread's own.
    fn acquire(&mut self, block: u32, released: &Arc<Blocks>) {
        if let Some(local) = released.get(&block) {
            self.own.join(local);
        }
        self.join_others(&Past { others: Some(released.clone()), ..Past::default() });
    }

    /// Adds this past, as other blocks see it, to what was released.
    fn release(self, block: u32, released: &mut Arc<Blocks>) {
        let all = Arc::make_mut(released);
        self.others.iter().flat_map(|o| o.iter()).for_each(|(&b, local)| join_block(all, b, local));
        join_block(all, block, &Arc::new(self.own));
    }
}

/// A fence: what its lanes knew then, and each of them its own accesses up to `epoch`.
#[derive(Debug, Clone)]
struct Fence {
    lanes: u32,
    epoch: u32,
    past: Arc<Past>,
}

#[derive(Debug, Clone)]
struct Warp {
    /// The epoch of its accesses from now on.
    now: u32,
    /// The epoch before.
    previous: u32,
    /// The lanes that exist.
    full: u32,
    exited: u32,
    /// One for all lanes, or one for each.
    past: Vec<Past>,
    /// What every lane knows of every thread.
    base: u32,
    /// Fences that still count, by what they reach: the block, the device.
    fences: [Vec<Fence>; 2],
}

impl Warp {
    fn past(&self, lane: u32) -> &Past {
        if self.past.len() == 1 { &self.past[0] } else { &self.past[lane as usize] }
    }

    fn set(&mut self, lanes: u32, warps: usize, change: impl Fn(&mut Past)) {
        if lanes & self.full == self.full && self.past.len() == 1 {
            change(&mut self.past[0]);
        } else {
            if self.past.len() == 1 {
                self.past = vec![self.past[0].clone(); 32];
            }
            ones(lanes).for_each(|lane| change(&mut self.past[lane as usize]));
        }
        self.rebase(warps);
    }

    fn rebase(&mut self, warps: usize) {
        let floor = |past: &Past| past.own.floor[..warps].iter().copied().min();
        let full = self.full;
        self.base = match self.past.len() {
            1 => floor(&self.past[0]),
            _ => ones(full).filter_map(|lane| floor(&self.past[lane as usize])).min(),
        }
        .unwrap_or(0);
    }

    /// What a strong write by the lane releases at a level, if a fence came before it.
    fn released(&self, warp: u32, lane: u32, level: usize) -> Option<Past> {
        let fence = self.fences[level].iter().find(|f| f.lanes >> lane & 1 != 0);
        let fenced = self.past(lane).fenced[level].as_deref();
        let mut past = fence.map(|f| &*f.past).or(fenced)?.clone();
        if let Some(fence) = fence {
            past.own.learn(warp, 1 << lane, self.full, fence.epoch);
        }
        fenced.into_iter().for_each(|fenced| past.join(fenced));
        Some(past)
    }

    /// Adds what lanes have put behind a fence.
    fn fenced(&self, joined: &mut Past, warp: u32, lanes: u32) {
        for (fences, joined) in self.fences.iter().zip(&mut joined.fenced) {
            for fence in fences.iter().filter(|f| f.lanes & lanes != 0) {
                let joined = Arc::make_mut(joined.get_or_insert_default());
                joined.join(&fence.past);
                joined.own.learn(warp, fence.lanes & lanes, self.full, fence.epoch);
            }
        }
    }

    /// Forgets the fences of lanes.
    fn unfence(&mut self, lanes: u32) {
        for fences in &mut self.fences {
            fences.retain_mut(|f| {
                f.lanes &= !lanes;
                f.lanes != 0
            });
        }
    }
}

/// The threads of a block and what they know.
pub(super) struct Threads {
    clock: u32,
    /// All before it belongs to earlier blocks.
    start: u32,
    warps: Vec<Warp>,
    /// What `bar.arrive` left at a barrier.
    arrived: BTreeMap<u32, Past>,
    /// What was released to locations, in this block's view: by offset in shared memory, by device address.
    variables: [HashMap<u64, Past>; 2],
}

/// Locations that carry releases between blocks.
#[derive(Default)]
pub(super) struct Variables {
    any: AtomicBool,
    map: Mutex<HashMap<u64, Arc<Blocks>>>,
}

impl Threads {
    /// A block of so many threads.
    pub fn new(threads: u32) -> Threads {
        let threads = threads.clamp(1, 1024);
        let warps = (0..threads.div_ceil(32)).map(|w| {
            let lanes = (threads - w * 32).min(32);
            Warp {
                now: 1,
                previous: 0,
                full: u32::MAX >> (32 - lanes),
                exited: 0,
                past: vec![Past::default()],
                base: 0,
                fences: Default::default(),
            }
        });
        Threads { clock: 1, start: 0, warps: warps.collect(), arrived: BTreeMap::new(), variables: Default::default() }
    }

    /// Starts a new block; whether the epochs begin anew, so that what carries older ones must be wiped.
    pub fn reset(&mut self) -> bool {
        let again = self.clock > u32::MAX / 2;
        if again {
            self.clock = 0;
        }
        self.start = self.clock;
        self.clock += 1;
        for w in &mut self.warps {
            w.now = self.clock;
            w.previous = self.start;
            w.exited = 0;
            w.past.clear();
            w.past.push(Past { own: Local::closed(self.start), ..Past::default() });
            w.base = self.start;
            w.fences.iter_mut().for_each(Vec::clear);
        }
        self.arrived.clear();
        self.variables.iter_mut().for_each(HashMap::clear);
        again
    }

    /// Warps of the block.
    #[cfg(test)]
    pub fn warps(&self) -> u32 {
        self.warps.len() as u32
    }

    /// The last epoch of earlier blocks.
    pub fn start(&self) -> u32 {
        self.start
    }

    pub fn exhausted(&self) -> bool {
        self.clock == u32::MAX
    }

    /// The epoch of the warp's accesses.
    #[inline]
    pub fn now(&self, warp: u32) -> u32 {
        self.warps[warp as usize].now
    }

    /// Up to this epoch, every lane of the warp knows every access of the block.
    #[inline]
    pub fn base(&self, warp: u32) -> u32 {
        self.warps[warp as usize].base
    }

    /// Whether the lanes of the warp know each other's accesses of all epochs before the present one.
    #[inline]
    pub fn together(&self, warp: u32) -> bool {
        let w = &self.warps[warp as usize];
        w.past.len() == 1 && w.previous <= w.past[0].own.floor[warp as usize]
    }

    #[inline]
    pub fn past(&self, warp: u32, lane: u32) -> &Past {
        self.warps[warp as usize].past(lane)
    }

    fn tick(&mut self, warp: u32) {
        // At the end of the epochs the clock stands: then later accesses count as ordered, which hides races but invents
        // none.
        self.clock = self.clock.saturating_add(1);
        let w = &mut self.warps[warp as usize];
        w.previous = w.now;
        w.now = self.clock;
    }

    pub fn exit(&mut self, warp: u32, lanes: u32) {
        self.warps[warp as usize].exited |= lanes;
    }

    /// Adds to `joined` what the lanes know and did.
    fn gather(&self, joined: &mut Past, warp: u32, lanes: u32) {
        let w = &self.warps[warp as usize];
        match w.past.len() {
            1 => joined.join(&w.past[0]),
            _ => ones(lanes & w.full).for_each(|lane| joined.join(&w.past[lane as usize])),
        }
        joined.own.learn(warp, lanes, w.full, w.now);
        w.fenced(joined, warp, lanes);
    }

    fn give(&mut self, joined: &Past, warp: u32, lanes: u32) {
        let warps = self.warps.len();
        let w = &mut self.warps[warp as usize];
        // They are in what is given.
        w.unfence(lanes);
        if lanes & w.full == w.full {
            w.past.truncate(1);
            w.past[0].clone_from(joined);
            w.rebase(warps);
        } else {
            w.set(lanes & w.full, warps, |past| past.clone_from(joined));
        }
        self.tick(warp);
    }

    pub fn barrier(&mut self, barrier: u32, waiting: &[(u32, u32)]) {
        let mut lanes: [u32; 32] = [0; 32];
        for &(warp, mask) in waiting {
            lanes[warp as usize] |= mask;
        }
        let all = self.warps.iter().zip(&lanes).all(|(w, l)| (l | w.exited) & w.full == w.full);
        let arrived = self.arrived.remove(&barrier);
        if all {
            let mut others = arrived.unwrap_or_default();
            for (warp, w) in (0..).zip(&self.warps) {
                for past in &w.past {
                    others.join_others(past);
                    others.join_fenced(past);
                }
                w.fenced(&mut others, warp, u32::MAX);
            }
            let closed = self.clock;
            self.clock = self.clock.saturating_add(1);
            for w in &mut self.warps {
                w.previous = w.now;
                w.now = self.clock;
                w.base = closed;
                w.past.truncate(1);
                let past = &mut w.past[0];
                past.own.floor = [closed; 32];
                past.own.extra.clear();
                past.others.clone_from(&others.others);
                past.fenced.clone_from(&others.fenced);
                w.fences.iter_mut().for_each(Vec::clear);
            }
            return;
        }
        let mut joined = arrived.unwrap_or_default();
        for (warp, lanes) in (0..self.warps.len() as u32).zip(lanes) {
            let mask = lanes | self.warps[warp as usize].exited;
            if mask != 0 {
                self.gather(&mut joined, warp, mask);
            }
        }
        for (warp, lanes) in (0..self.warps.len() as u32).zip(lanes) {
            if lanes != 0 {
                self.give(&joined, warp, lanes | self.warps[warp as usize].exited);
            }
        }
    }

    pub fn arrive(&mut self, barrier: u32, warp: u32, lanes: u32) {
        let mut joined = self.arrived.remove(&barrier).unwrap_or_default();
        self.gather(&mut joined, warp, lanes | self.warps[warp as usize].exited);
        self.arrived.insert(barrier, joined);
        self.tick(warp);
    }

    pub fn warp_sync(&mut self, warp: u32, mask: u32) {
        let warps = self.warps.len();
        let w = &mut self.warps[warp as usize];
        let mask = mask | w.exited;
        if mask & w.full == w.full && w.past.len() == 1 && w.fences.iter().all(Vec::is_empty) {
            let now = w.now;
            w.past[0].own.learn(warp, mask, w.full, now);
            if warps == 1 {
                w.base = now;
            }
            self.tick(warp);
        } else {
            let mut joined = Past::default();
            self.gather(&mut joined, warp, mask);
            self.give(&joined, warp, mask);
        }
    }

    pub fn fence(&mut self, warp: u32, mask: u32, scope: Scope) {
        let w = &mut self.warps[warp as usize];
        let mask = mask & w.full;
        let fence = |lanes, past: &Past| {
            let past = Past { own: past.own.clone(), others: past.others.clone(), ..Past::default() };
            Fence { lanes, epoch: w.now, past: Arc::new(past) }
        };
        let made: Vec<Fence> = match w.past.len() {
            1 => vec![fence(mask, &w.past[0])],
            _ => ones(mask).map(|lane| fence(1 << lane, w.past(lane))).collect(),
        };
        let levels = if scope >= Scope::Gpu { 2 } else { 1 };
        for fences in &mut w.fences[..levels] {
            fences.retain_mut(|f| {
                f.lanes &= !mask;
                f.lanes != 0
            });
            fences.extend(made.iter().cloned());
        }
        self.tick(warp);
    }

    /// A strong access synchronises through its location: a read takes what was released there, a write leaves what the
    /// thread released with its last fence. An atomic does both and keeps what was there (observation order goes through
    /// read-modify-writes); a plain strong write replaces it. `between` are the locations of global memory as other blocks
    /// see them.
    pub fn observe(&mut self, a: &Access, block: u32, between: Option<&Variables>) {
        let space = between.is_some() as usize;
        let w = &self.warps[a.warp as usize];
        let fenced =
            w.fences.iter().any(|f| !f.is_empty()) || w.past.iter().any(|past| past.fenced.iter().any(Option::is_some));
        let between = between.filter(|_| a.scope >= Scope::Gpu);
        let any = between.is_some_and(|v| v.any.load(Ordering::Acquire));
        if !fenced && !any && self.variables[space].is_empty() {
            return;
        }
        if a.kind == Kind::Atomic {
            // One lane after the other: a lane observes what those before it released.
            for lane in ones(a.mask) {
                self.observe_at(a, block, 1 << lane, a.addresses[lane as usize], space, between);
            }
        } else {
            for (lanes, address) in distinct(a) {
                self.observe_at(a, block, lanes, address, space, between);
            }
        }
    }

    fn observe_at(
        &mut self,
        a: &Access,
        block: u32,
        lanes: u32,
        address: u64,
        space: usize,
        between: Option<&Variables>,
    ) {
        let warps = self.warps.len();
        let w = &mut self.warps[a.warp as usize];
        let own = &mut self.variables[space];
        let mut wide = between.map(|v| (v, v.map.lock().unwrap_or_else(PoisonError::into_inner)));
        // What a lane releases it knew at its fence, so the order of the two halves of an atomic does not matter; this one
        // has nobody else hold the map while it is written.
        if a.kind != Kind::Read {
            if a.kind == Kind::Write {
                own.remove(&address);
                wide.iter_mut().for_each(|(_, map)| drop(map.remove(&address)));
            }
            for lane in ones(lanes) {
                if let Some(past) = w.released(a.warp, lane, 0) {
                    own.entry(address).or_default().join(&past);
                }
                if let Some((variables, map)) = &mut wide
                    && let Some(past) = w.released(a.warp, lane, 1)
                {
                    past.release(block, map.entry(address).or_default());
                    variables.any.store(true, Ordering::Release);
                }
            }
        }
        if a.kind != Kind::Write {
            if let Some(released) = own.get(&address) {
                w.set(lanes, warps, |past| past.join(released));
            }
            if let Some(released) = wide.as_ref().and_then(|(_, map)| map.get(&address)) {
                w.set(lanes, warps, |past| past.acquire(block, released));
            }
        }
    }
}

/// The lanes of a mask.
pub(super) fn ones(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (lane < 32).then_some(lane)
    })
}

/// The different addresses of an access, each with its lanes.
fn distinct(a: &Access) -> Vec<(u32, u64)> {
    let mut found: Vec<(u32, u64)> = Vec::new();
    for lane in ones(a.mask) {
        let address = a.addresses[lane as usize];
        match found.iter_mut().find(|f| f.1 == address) {
            Some(f) => f.0 |= 1 << lane,
            None => found.push((1 << lane, address)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_epochs_orders_everything() {
        let mut t = Threads::new(64);
        t.clock = u32::MAX - 3;
        for _ in 0..4 {
            t.warp_sync(0, 1);
            t.fence(1, 3, Scope::Sys);
            t.barrier(0, &[(0, u32::MAX), (1, u32::MAX)]);
        }
        assert!(t.exhausted());
        assert!(t.now(0) <= t.base(1));
        // The next block begins anew.
        assert!(t.reset());
        assert!(!t.exhausted() && t.now(0) > t.base(1) && t.now(0) < 10);
        assert!(!t.reset());
    }

    #[test]
    fn knowledge_of_single_threads_is_kept_until_the_whole_warp_is_known() {
        let mut a = Local::default();
        a.learn(1, 0b101, u32::MAX, 7);
        let mut b = Local::default();
        b.learn(1, 0b100, u32::MAX, 9);
        b.learn(0, u32::MAX, u32::MAX, 4);
        a.join(&b);
        let knows = |a: &Local| {
            [(1, 0, 7), (1, 0, 8), (1, 2, 9), (1, 1, 1), (0, 31, 4), (0, 31, 5)].map(|(w, l, e)| a.knows(w, l, e))
        };
        assert_eq!(knows(&a), [true, false, true, false, true, false]);
        a.learn(1, u32::MAX, u32::MAX, 8);
        assert_eq!(knows(&a), [true, true, true, true, true, false]);
        assert_eq!(a.extra, [(34, 9)]);
    }
}
