//! A block: its warps, its shared memory, its barriers.

use super::Launch;
use super::run::{At, Machine, Result, Stop};
use super::warp::{Specials, State, Warp};
use crate::check::{BlockCheck, Scope};
use crate::finding::{Finding, Kind};
use crate::program::code::{Kernel, RESERVED_SHARED, Reduce, Special};

/// Lanes that have come to a barrier.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) number: u32,
    /// Threads that the barrier is for; none: all of the block.
    pub(crate) expected: Option<u32>,
    pub(crate) warp: u32,
    pub(crate) lanes: u32,
    pub(crate) frame: u32,
    pub(crate) at: At,
    /// Not `bar.arrive`.
    pub(crate) waits: bool,
    pub(crate) aligned: bool,
    pub(crate) reduce: Reduce,
    /// Where a reduction's result goes.
    pub(crate) target: u16,
    /// Lanes whose predicate is true.
    pub(crate) votes: u32,
}

pub(crate) struct Block<'l> {
    /// Its linear number in the grid.
    pub(crate) index: u64,
    pub(crate) warp_count: u32,
    pub(crate) warps: Vec<Warp>,
    pub(crate) shared: Vec<u8>,
    pub(crate) layout: SharedLayout,
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) check: Option<BlockCheck<'l>>,
    pub(crate) printed: Vec<u8>,
    specials: Specials,
}

/// How a block's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    /// It waits for other blocks, or has had its turn.
    Turn,
}

impl<'l> Block<'l> {
    pub(crate) fn new(
        launch: &Launch<'_>,
        kernel: &Kernel,
        workspace: u64,
        check: Option<BlockCheck<'l>>,
    ) -> Block<'l> {
        let threads: u32 = launch.block.iter().product();
        let warp_count = threads.div_ceil(32);
        let layout = SharedLayout::of(launch, kernel);
        Block {
            index: 0,
            warp_count,
            warps: (0..warp_count).map(Warp::new).collect(),
            shared: vec![0; layout.bytes()],
            layout,
            arrivals: Vec::new(),
            check,
            printed: Vec::new(),
            specials: Specials {
                threads: launch.block,
                blocks: launch.grid,
                block: [0; 3],
                multiprocessor: 0,
                multiprocessors: launch.options.multiprocessors,
                dynamic_shared: launch.dynamic_shared as u32,
                total_shared: layout.own as u32,
                reserved_shared: layout.reserved.unwrap_or(0) as u32,
                workspace,
            },
        }
    }

    /// Starts over as block `index` of the grid.
    pub(crate) fn start(&mut self, kernel: &Kernel, index: u64) {
        let [x, y, _] = self.specials.blocks.map(u64::from);
        self.index = index;
        self.specials.block = [(index % x) as u32, (index / x % y) as u32, (index / x / y) as u32];
        self.specials.multiprocessor = (index % self.specials.multiprocessors.max(1) as u64) as u32;
        self.warps.iter_mut().for_each(|w| w.start(kernel, &self.specials));
        self.shared.fill(0);
        self.arrivals.clear();
        if let Some(check) = &mut self.check {
            check.reset(index as u32);
        }
    }

    /// Runs the block until it is done or waits for another.
    pub(crate) fn run(&mut self, machine: &mut Machine<'_>) -> Result<Ended> {
        loop {
            let (mut parked, mut done) = (true, true);
            for w in 0..self.warps.len() {
                if self.warps[w].fragments.is_empty() {
                    continue;
                }
                // The warp is taken out while it runs, since it and the block change each other.
                let mut warp = std::mem::replace(&mut self.warps[w], Warp::new(w as u32));
                let stop = machine.run(self, &mut warp);
                self.warps[w] = warp;
                match stop? {
                    Stop::Done => {}
                    Stop::Parked => done = false,
                    Stop::Turn => (parked, done) = (false, false),
                }
            }
            if done {
                // barriers that the last exits leave behind have nobody waiting
                return Ok(Ended::Done);
            }
            let released = self.barriers(machine)?;
            if released || self.warps.iter().any(|w| w.fragments.iter().any(|f| f.state == State::Ready)) {
                if !released && !parked {
                    return Ok(Ended::Turn);
                }
                continue;
            }
            if parked {
                return Err(self.stuck(machine));
            }
            return Ok(Ended::Turn);
        }
    }

    /// Opens the barriers that all have come to; whether one has opened.
    fn barriers(&mut self, machine: &mut Machine<'_>) -> Result<bool> {
        let mut opened = false;
        for number in 0..16 {
            let mut here = self.arrivals.iter().filter(|a| a.number == number);
            let Some(first) = here.next() else { continue };
            if let Some(other) = here.clone().find(|a| a.expected != first.expected || a.reduce != first.reduce) {
                let text = |a: &Arrival| a.expected.map_or("all".to_string(), |n| n.to_string());
                let message = format!("barrier {number} is for {} threads here and {} there", text(other), text(first));
                let mut finding = machine.finding(
                    Kind::Barrier,
                    message,
                    self,
                    &self.warps[other.warp as usize],
                    other.at,
                    other.lanes,
                );
                let lane = first.lanes.trailing_zeros().min(31);
                finding.other = Some(Box::new(machine.place(self.index, first.warp, lane, first.at)));
                return Err(finding);
            }
            let lanes = |w: u32| {
                let of_warp = self.arrivals.iter().filter(|a| a.number == number && a.warp == w);
                of_warp.fold(0, |m, a| m | a.lanes)
            };
            let full = match first.expected {
                None => self.warps.iter().all(|w| lanes(w.index) & w.alive == w.alive),
                // Each warp counts as 32 threads once all its lanes are there; twice, if it arrives twice.
                Some(expected) => {
                    let complete = |a: &&Arrival| {
                        let alive = self.warps[a.warp as usize].alive;
                        a.number == number && lanes(a.warp) & alive == alive
                    };
                    let mut counted: Vec<(u32, At, bool)> = Vec::new();
                    for a in self.arrivals.iter().filter(complete) {
                        // parts of a diverged warp that wait are one arrival
                        if !a.waits || !counted.iter().any(|c| c.0 == a.warp && c.2) {
                            counted.push((a.warp, a.at, a.waits));
                        }
                    }
                    let count = 32 * counted.len() as u32;
                    if count > expected {
                        let message = format!("{count} threads come to barrier {number}, which is for {expected}");
                        return Err(machine.finding(
                            Kind::Barrier,
                            message,
                            self,
                            &self.warps[first.warp as usize],
                            first.at,
                            first.lanes,
                        ));
                    }
                    count == expected
                }
            };
            if full {
                self.open(machine, number)?;
                opened = true;
            }
        }
        Ok(opened)
    }

    fn open(&mut self, machine: &mut Machine<'_>, number: u32) -> Result<()> {
        let (here, others): (Vec<Arrival>, Vec<Arrival>) = self.arrivals.drain(..).partition(|a| a.number == number);
        self.arrivals = others;
        machine.counters.barriers += 1;
        if machine.strict {
            for (i, a) in here.iter().enumerate() {
                let diverged = |b: &&Arrival| b.warp == a.warp && b.waits && (b.at.pc != a.at.pc || b.frame != a.frame);
                if a.aligned
                    && a.waits
                    && let Some(b) = here[..i].iter().find(diverged)
                {
                    let message = "threads of a warp wait at different barrier instructions".to_string();
                    let warp = &self.warps[a.warp as usize];
                    let mut finding = machine.finding(Kind::Divergence, message, self, warp, a.at, a.lanes);
                    let lane = b.lanes.trailing_zeros().min(31);
                    finding.other = Some(Box::new(machine.place(self.index, b.warp, lane, b.at)));
                    return Err(finding);
                }
            }
            let waiting: Vec<(u32, u32)> = here.iter().filter(|a| a.waits).map(|a| (a.warp, a.lanes)).collect();
            if let Some(check) = &mut self.check {
                check.barrier(number, &waiting);
            }
        }
        let reduces = here.iter().filter(|a| a.reduce != Reduce::No);
        let (votes, voters) = reduces.fold((0, 0), |(v, n), a| (v + a.votes.count_ones(), n + a.lanes.count_ones()));
        for a in here.iter().filter(|a| a.waits) {
            let warp = &mut self.warps[a.warp as usize];
            if a.target != crate::program::code::NONE {
                let base = warp.frames[a.frame as usize].base;
                let unit = &mut warp.file[base + a.target as usize].0;
                let truth = match a.reduce {
                    Reduce::And => votes == voters,
                    _ => votes > 0,
                };
                if a.reduce == Reduce::Count {
                    (0..32).filter(|l| a.lanes >> l & 1 != 0).for_each(|l| unit[l] = votes);
                } else {
                    unit[0] = unit[0] & !a.lanes | if truth { a.lanes } else { 0 };
                }
            }
            for f in &mut warp.fragments {
                if f.state == State::Barrier(number) && f.frame == a.frame && f.pc == a.at.pc {
                    (f.state, f.pc) = (State::Ready, f.pc + 1);
                }
            }
        }
        Ok(())
    }

    /// Why nothing goes on.
    fn stuck(&self, machine: &Machine<'_>) -> Box<Finding> {
        // lanes that wait for lanes of their own warp first: that is the cause, a barrier that is not reached the effect
        for warp in &self.warps {
            for f in &warp.fragments {
                let at = At { function: warp.frames[f.frame as usize].function, pc: f.pc };
                let needed = match f.state {
                    State::Together => warp.alive,
                    State::WarpBarrier(members) => members & warp.alive,
                    _ => continue,
                };
                return machine.diverged(self, warp, at, f.mask, needed);
            }
        }
        let Some(a) = self.arrivals.iter().find(|a| a.waits) else {
            return Box::new(Finding::new(Kind::Deadlock, "no thread can go on"));
        };
        let warp = &self.warps[a.warp as usize];
        let other = self.arrivals.iter().find(|b| b.number != a.number);
        let reached: u32 = self.arrivals.iter().filter(|b| b.number == a.number).map(|b| b.lanes.count_ones()).sum();
        let living: u32 = self.warps.iter().map(|w| w.alive.count_ones()).sum();
        let kind = if other.is_some() { Kind::Deadlock } else { Kind::Barrier };
        let wanted = a.expected.unwrap_or(living);
        let message =
            format!("{reached} threads wait at barrier {}, which is for {wanted}; no other can come", a.number);
        let mut finding = machine.finding(kind, message, self, warp, a.at, a.lanes);
        finding.other =
            other.map(|b| Box::new(machine.place(self.index, b.warp, b.lanes.trailing_zeros().min(31), b.at)));
        finding
    }

    pub(crate) fn check_warp_sync(&mut self, warp: u32, lanes: u32) {
        if let Some(check) = &mut self.check {
            check.warp_sync(warp, lanes);
        }
    }

    pub(crate) fn check_fence(&mut self, warp: u32, lanes: u32, scope: Scope) {
        if let Some(check) = &mut self.check {
            check.fence(warp, lanes, scope);
        }
    }

    pub(crate) fn check_arrive(&mut self, number: u32, warp: u32, lanes: u32) {
        if let Some(check) = &mut self.check {
            check.arrive(number, warp, lanes);
        }
    }
}

/// What a block's shared memory consists of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedLayout {
    /// Bytes of the program's own, from 0 on.
    pub(crate) own: usize,
    /// Where the system's begin, for a kernel that asks for them. Hardware has them in front; here they are behind a gap, so
    /// that offsets in findings are those of the program's variables, and what runs off their end hits nothing.
    pub(crate) reserved: Option<usize>,
}

impl SharedLayout {
    pub(crate) fn of(launch: &Launch<'_>, kernel: &Kernel) -> SharedLayout {
        let start = if kernel.has_dynamic { kernel.dynamic_start } else { kernel.static_shared };
        let own = start + launch.dynamic_shared;
        let asks = kernel.specials.iter().any(|(s, _)| matches!(s, Special::ReservedShared(_)));
        SharedLayout { own, reserved: asks.then(|| own.next_multiple_of(RESERVED_SHARED as usize) + GAP) }
    }

    /// How many bytes there are in all.
    pub(crate) fn bytes(&self) -> usize {
        self.reserved.map_or(self.own, |start| start + RESERVED_SHARED as usize)
    }

    /// Whether an access of the system's bytes stays within them.
    pub(crate) fn is_reserved(&self, offset: u64, bytes: u64) -> bool {
        let end = self.bytes() as u64;
        self.reserved.is_some_and(|start| offset >= start as u64 && offset <= end.saturating_sub(bytes))
    }
}

/// Bytes between the program's shared memory and the system's.
const GAP: usize = 4096;
