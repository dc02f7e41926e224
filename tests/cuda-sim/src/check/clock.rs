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
}

impl Past {
    /// Whether the accesses of a thread of another block up to `epoch` are known.
    pub fn knows_other(&self, block: u32, warp: u32, lane: u32, epoch: u32) -> bool {
        self.others.as_ref().and_then(|o| o.get(&block)).is_some_and(|local| local.knows(warp, lane, epoch))
    }

    /// Whether anything of other blocks is known.
    pub fn knows_others(&self) -> bool {
        self.others.is_some()
    }

    fn join(&mut self, other: &Past) {
        self.own.join(&other.own);
        self.join_others(other);
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
    fn join_blocks(&mut self, block: u32, blocks: &Blocks) {
        for (&b, local) in blocks {
            if b == block {
                self.own.join(local);
            } else {
                join_block(Arc::make_mut(self.others.get_or_insert_default()), b, local);
            }
        }
    }

    /// This past as other blocks see it.
    fn blocks(self, block: u32) -> Blocks {
        let mut blocks = self.others.map(Arc::unwrap_or_clone).unwrap_or_default();
        blocks.insert(block, Arc::new(self.own));
        blocks
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
        let fence = self.fences[level].iter().find(|f| f.lanes >> lane & 1 != 0)?;
        let mut past = (*fence.past).clone();
        past.own.learn(warp, 1 << lane, self.full, fence.epoch);
        Some(past)
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
    map: Mutex<HashMap<u64, Blocks>>,
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
            w.past.push(Past { own: Local::closed(self.start), others: None });
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
    }

    fn give(&mut self, joined: &Past, warp: u32, lanes: u32) {
        let warps = self.warps.len();
        let w = &mut self.warps[warp as usize];
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
            for w in &self.warps {
                w.past.iter().for_each(|past| others.join_others(past));
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
        if mask & w.full == w.full && w.past.len() == 1 {
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
        let made: Vec<Fence> = match w.past.len() {
            1 => vec![Fence { lanes: mask, epoch: w.now, past: Arc::new(w.past[0].clone()) }],
            _ => ones(mask)
                .map(|lane| Fence { lanes: 1 << lane, epoch: w.now, past: Arc::new(w.past(lane).clone()) })
                .collect(),
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
        let fenced = w.fences.iter().any(|f| !f.is_empty());
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
        let mut map = between.map(|v| (v, v.map.lock().unwrap_or_else(PoisonError::into_inner)));
        if a.kind != Kind::Write {
            if let Some(released) = self.variables[space].get(&address) {
                w.set(lanes, warps, |past| past.join(released));
            }
            if let Some(released) = map.as_ref().and_then(|(_, map)| map.get(&address)) {
                w.set(lanes, warps, |past| past.join_blocks(block, released));
            }
        }
        if a.kind == Kind::Read {
            return;
        }
        let released = |w: &Warp, level| {
            ones(lanes).filter_map(|lane| w.released(a.warp, lane, level)).reduce(|mut all, past| {
                all.join(&past);
                all
            })
        };
        let own = released(w, 0);
        let wide = map.is_some().then(|| released(w, 1)).flatten();
        if a.kind == Kind::Write {
            self.variables[space].remove(&address);
        }
        if let Some(own) = own {
            self.variables[space].entry(address).or_default().join(&own);
        }
        if let Some((variables, map)) = &mut map {
            if a.kind == Kind::Write {
                map.remove(&address);
            }
            if let Some(wide) = wide {
                let to = map.entry(address).or_default();
                wide.blocks(block).iter().for_each(|(&b, local)| join_block(to, b, local));
                variables.any.store(true, Ordering::Release);
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
