//! The interpreter: one warp, until it cannot go on.

// An access is told by where it stands, who does it, and to what: more than seven things.
#![allow(clippy::too_many_arguments)]

mod call;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use self::call::{arguments, results};
use super::Launch;
use super::block::{Arrival, Block};
use super::counters::{Count, Counters, Pattern};
use super::warp::{Fragment, State, Warp, mergeable};
use crate::finding::{Finding, Kind, Place as Where};
use crate::lanes::{Class, Unit};
use crate::program::code::*;
use crate::ptx::ast::Location;

/// A fragment that jumps back so often, reading what others may write, lets the others have a turn.
const WATCHES: u32 = 32;
/// And one that does not read such memory: long enough that loops of any sensible length keep their lanes together.
const JUMPS: u32 = 1 << 16;
/// Instructions after which a fragment that jumps back has them taken from the launch's budget.
const STEPS: u64 = 1 << 20;

/// Why a warp stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Every lane has exited.
    Done,
    /// All its lanes wait for other warps, or for lanes that do not come.
    Parked,
    /// It waits for memory to change, or has had its turn.
    Turn,
}

/// One host thread's part of a launch.
pub(crate) struct Machine<'l> {
    pub(crate) launch: &'l Launch<'l>,
    pub(crate) kernel: &'l Kernel,
    pub(crate) strict: bool,
    /// Executions of each instruction of each function.
    pub(crate) counts: Vec<Vec<Count>>,
    /// What is not derived from `counts`.
    pub(crate) counters: Counters,
    /// Warp instructions that the launch may still execute.
    pub(crate) budget: &'l AtomicU64,
    /// Number of each function's first instruction, over all functions.
    pub(crate) starts: Vec<u32>,
    /// By instruction, numbered so, and warp; in shared memory, in global memory.
    pub(super) patterns: Vec<Option<Box<Pattern>>>,
}

/// Where the interpreter is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) function: u32,
    pub(crate) pc: u32,
}

pub(crate) type Result<T> = std::result::Result<T, Box<Finding>>;

impl<'l> Machine<'l> {
    pub(crate) fn new(launch: &'l Launch<'l>, kernel: &'l Kernel, budget: &'l AtomicU64) -> Machine<'l> {
        let counts: Vec<Vec<Count>> = kernel.functions.iter().map(|f| vec![Count::default(); f.code.len()]).collect();
        let strict = launch.options.strict;
        let starts = kernel.functions.iter().scan(0, |next, f| {
            *next += f.code.len() as u32;
            Some(*next - f.code.len() as u32)
        });
        let starts = starts.collect();
        let warps = launch.block.iter().product::<u32>().div_ceil(32) as usize;
        let ops: usize = counts.iter().map(Vec::len).sum();
        let patterns = std::iter::repeat_with(|| None).take(2 * ops * warps).collect();
        Machine { launch, kernel, strict, counts, counters: Counters::default(), budget, starts, patterns }
    }

    /// All that was counted.
    pub(crate) fn finish(mut self) -> Counters {
        for (function, counts) in self.kernel.functions.iter().zip(&self.counts) {
            for (info, count) in function.info.iter().zip(counts).filter(|(i, c)| i.line != 0 && c.warps != 0) {
                let class = self.counters.instructions.entry(info.class).or_default();
                class.warps += count.warps;
                class.lanes += count.lanes;
                if info.class == Class::Tensor {
                    self.counters.tensor_macs += count.warps * info.fma as u64;
                } else {
                    self.counters.fma += count.lanes * info.fma as u64;
                }
            }
        }
        self.counters
    }

    /// Runs a warp until none of its fragments can go on, or its turn is over.
    pub(crate) fn run(&mut self, block: &mut Block, warp: &mut Warp) -> Result<Stop> {
        let mut yielded = 0;
        loop {
            merge(&mut warp.fragments);
            let Some(f) = pick(warp) else {
                return Ok(if warp.fragments.is_empty() { Stop::Done } else { Stop::Parked });
            };
            if self.fragment(block, warp, f)? {
                // Every ready fragment watches memory: it is the other warps' turn.
                yielded += 1;
                let ready = warp.fragments.iter().filter(|f| f.state == State::Ready).count();
                if yielded >= ready.max(1) {
                    return Ok(Stop::Turn);
                }
            } else {
                yielded = 0;
            }
        }
    }

    /// Runs one fragment until it parks, splits, ends, meets another, or (true) has jumped back too often.
    fn fragment(&mut self, block: &mut Block, warp: &mut Warp, f: usize) -> Result<bool> {
        let Fragment { frame, pc, mask, .. } = warp.fragments[f];
        let function = warp.frames[frame as usize].function;
        let mut counts = std::mem::take(&mut self.counts[function as usize]);
        let before = warp.clock;
        let result = self.interpret(block, warp, f, &mut counts);
        self.counts[function as usize] = counts;
        // Where it has got to, if it is still there.
        let (at, mask) = match warp.fragments.get(f) {
            Some(now) if now.mask & mask != 0 => {
                (At { function: warp.frames[now.frame as usize].function, pc: now.pc }, now.mask)
            }
            _ => (At { function, pc }, mask),
        };
        self.spend(warp.clock - before, block, warp, at, mask)?;
        result
    }

    fn interpret(&mut self, block: &mut Block, warp: &mut Warp, f: usize, counts: &mut [Count]) -> Result<bool> {
        let Fragment { frame, mut pc, mut mask, .. } = warp.fragments[f];
        let (function, base) = {
            let frame = &warp.frames[frame as usize];
            (frame.function, frame.base)
        };
        let kernel = self.kernel;
        let code = &kernel.functions[function as usize].code;
        let pool = &kernel.functions[function as usize].pool[..];
        // Where another fragment of the same call waits: there the two become one.
        let beyond = |fragments: &[Fragment], pc: u32| {
            let others = fragments.iter().filter(|o| o.frame == frame && o.pc > pc && mergeable(o.state));
            others.map(|o| o.pc).min().unwrap_or(u32::MAX)
        };
        let mut limit = beyond(&warp.fragments, pc);
        // SAFETY: `base + units` lies in the file (`Warp::start`, `push_frame`), which nothing grows while this runs: a call ends it.
        let file: *mut Unit = unsafe { warp.file.as_mut_ptr().add(base) };
        let mut steps = 0u64;
        let mut jumps = warp.fragments[f].jumps;
        let mut watching = warp.fragments[f].watching;
        macro_rules! leave {
            ($result:expr) => {{
                warp.clock += steps;
                return $result;
            }};
        }
        /// Stores where the fragment is.
        macro_rules! keep {
            ($state:expr) => {{
                let fragment = &mut warp.fragments[f];
                (fragment.pc, fragment.mask, fragment.state) = (pc, mask, $state);
                (fragment.jumps, fragment.watching) = (jumps, watching);
            }};
        }
        loop {
            // Met, or jumped over: those come first, so that the lanes meet where their ways join.
            if pc >= limit {
                keep!(State::Ready);
                leave!(Ok(false));
            }
            let op = &code[pc as usize];
            let lanes = if op.guard == NONE {
                mask
            } else {
                // SAFETY: every place in the code lies in the frame.
                let p = unsafe { (*file.add(op.guard as usize)).0[0] };
                (p ^ op.negate) & mask
            };
            let count = &mut counts[pc as usize];
            count.warps += 1;
            count.lanes += lanes.count_ones() as u64;
            steps += 1;
            if lanes == 0 && !matches!(op.action, Action::Jump { .. }) {
                pc += 1;
                continue;
            }
            match &op.action {
                Action::Run { run, operands } => {
                    // SAFETY: as above, and `lowering` gave every slot as many units as the instruction reads.
                    unsafe { run(file, operands.of(pool), lanes) };
                    pc += 1;
                }
                Action::Jump { target } => {
                    let target = *target;
                    if op.guard != NONE {
                        self.counters.branches += 1;
                    }
                    if lanes == 0 {
                        pc += 1;
                        continue;
                    }
                    let back = target <= pc;
                    if lanes == mask {
                        pc = target;
                    } else {
                        self.counters.divergent_branches += 1;
                        mask &= !lanes;
                        pc += 1;
                        keep!(State::Ready);
                        warp.join(frame, target, lanes);
                        // the lower of the two goes first
                        leave!(Ok(false));
                    }
                    if back {
                        jumps += 1;
                        if jumps >= if watching { WATCHES } else { JUMPS } {
                            (jumps, watching) = (0, false);
                            keep!(State::Ready);
                            // it goes behind the others of the warp
                            let fragment = warp.fragments.remove(f);
                            warp.fragments.push(fragment);
                            warp.skip = warp.fragments.len() as u32 - 1;
                            leave!(Ok(true));
                        }
                        if steps >= STEPS {
                            keep!(State::Ready);
                            leave!(Ok(false));
                        }
                        limit = beyond(&warp.fragments, pc);
                    }
                }
                Action::Load(access) => {
                    let at = At { function, pc };
                    self.load(block, warp, file, frame, access, pool, lanes, at)?;
                    watching |= access.order.strong;
                    pc += 1;
                }
                Action::Store(access) => {
                    let at = At { function, pc };
                    self.store(block, warp, file, frame, access, pool, lanes, at)?;
                    pc += 1;
                }
                Action::Atomic(atomic) => {
                    let at = At { function, pc };
                    self.atomic(block, warp, file, frame, atomic, pool, lanes, at)?;
                    watching |= atomic.result;
                    pc += 1;
                }
                Action::Together(together) => {
                    let done = self.together(block, warp, file, together, pool, lanes, At { function, pc })?;
                    if done == lanes {
                        pc += 1;
                        continue;
                    }
                    // Those that are done, and those that the guard excludes, go on; the others wait. What waits is counted
                    // when it executes.
                    count.lanes -= (lanes & !done).count_ones() as u64;
                    count.warps -= (done == 0) as u64;
                    let on = mask & !(lanes & !done);
                    mask = lanes & !done;
                    keep!(State::Together);
                    if on != 0 {
                        warp.join(frame, pc + 1, on);
                    }
                    leave!(Ok(false));
                }
                Action::AsyncCopy(copy) => {
                    self.async_copy(block, warp, file, frame, copy, pool, lanes, At { function, pc })?;
                    pc += 1;
                }
                Action::AsyncCommit => {
                    if let Some(check) = &mut block.check {
                        check.async_commit(warp.index, lanes);
                    }
                    pc += 1;
                }
                Action::AsyncWait { left } => {
                    if let Some(check) = &mut block.check {
                        if left.is_none() {
                            check.async_commit(warp.index, lanes);
                        }
                        check.async_wait(warp.index, lanes, left.unwrap_or(0));
                    }
                    pc += 1;
                }
                Action::Transfer(transfer) => {
                    if lanes != warp.alive {
                        if lanes == mask {
                            count.warps -= 1;
                            count.lanes -= lanes.count_ones() as u64;
                            keep!(State::Together);
                            leave!(Ok(false));
                        }
                        return Err(self.diverged(block, warp, At { function, pc }, lanes, warp.alive));
                    }
                    self.transfer(block, warp, file, frame, transfer, pool, lanes, At { function, pc })?;
                    pc += 1;
                }
                Action::Barrier(barrier) => {
                    let at = At { function, pc };
                    let arrival = self.arrival(block, warp, file, barrier, pool, lanes, at)?;
                    let number = arrival.number;
                    if self.strict && barrier.arrive {
                        block.check_arrive(number, warp.index, lanes);
                    }
                    block.arrivals.push(Arrival { frame, ..arrival });
                    if barrier.arrive {
                        pc += 1;
                        continue;
                    }
                    let on = mask & !lanes;
                    mask = lanes;
                    keep!(State::Barrier(number));
                    if on != 0 {
                        warp.join(frame, pc + 1, on);
                    }
                    leave!(Ok(false));
                }
                Action::WarpBarrier { operands } => {
                    let members = lane_values(file, operands.of(pool)[0]);
                    let first = members[lanes.trailing_zeros() as usize];
                    let same = (0..32).filter(|&l| lanes >> l & 1 != 0 && members[l] == first);
                    let group = same.fold(0u32, |g, l| g | 1 << l);
                    let waiting: u32 = warp
                        .fragments
                        .iter()
                        .enumerate()
                        .filter(|(i, o)| *i != f && o.state == State::WarpBarrier(first))
                        .fold(0, |m, (_, o)| m | o.mask);
                    let needed = first & warp.alive;
                    if group & first != group {
                        return Err(self.outside(block, warp, At { function, pc }, group & !first, first));
                    }
                    let rest = mask & !group;
                    if (group | waiting) & needed == needed {
                        if self.strict {
                            block.check_warp_sync(warp.index, needed);
                        }
                        for o in warp.fragments.iter_mut().filter(|o| o.state == State::WarpBarrier(first)) {
                            (o.state, o.pc) = (State::Ready, o.pc + 1);
                        }
                        if group == mask || group == lanes {
                            pc += 1;
                            if waiting != 0 {
                                keep!(State::Ready);
                                leave!(Ok(false));
                            }
                            continue;
                        }
                        // another group of lanes is at the same instruction with another member mask
                        mask = group;
                        let here = pc;
                        pc += 1;
                        keep!(State::Ready);
                        let off = rest & !lanes;
                        warp.join(frame, here, rest & lanes);
                        if off != 0 {
                            warp.join(frame, here + 1, off);
                        }
                        leave!(Ok(false));
                    }
                    mask = group;
                    keep!(State::WarpBarrier(first));
                    if rest & lanes != 0 {
                        warp.fragments.push(Fragment {
                            mask: rest & lanes,
                            state: State::Ready,
                            ..warp.fragments[f].clone()
                        });
                    }
                    if rest & !lanes != 0 {
                        warp.join(frame, pc + 1, rest & !lanes);
                    }
                    leave!(Ok(false));
                }
                Action::Fence { scope } => {
                    if self.strict {
                        block.check_fence(warp.index, lanes, *scope);
                    }
                    pc += 1;
                }
                Action::Clock { operands, wide, high } => {
                    let now = warp.clock + steps;
                    let value = if *high { now >> 32 } else { now };
                    // SAFETY: the place lies in the frame, with two units for 64 bits.
                    unsafe { write_lanes(file, operands.of(pool)[0], if *wide { 2 } else { 1 }, lanes, |_| value) };
                    watching = true;
                    pc += 1;
                }
                Action::Switch(switch) => {
                    let index = lane_values(file, switch.index.of(pool)[0]);
                    self.counters.branches += 1;
                    let mut left = lanes;
                    let mut ways: Vec<(u32, u32)> = Vec::new();
                    while left != 0 {
                        let first = index[left.trailing_zeros() as usize];
                        let group =
                            (0..32).filter(|&l| left >> l & 1 != 0 && index[l] == first).fold(0u32, |g, l| g | 1 << l);
                        let Some(&target) = switch.targets.get(first as usize) else {
                            let message = format!("brx.idx with index {first} of {} targets", switch.targets.len());
                            let at = At { function, pc };
                            return Err(self.finding(Kind::IllegalInstruction, message, block, warp, at, group));
                        };
                        left &= !group;
                        ways.push((target, group));
                    }
                    mask &= !lanes;
                    jumps += ways.iter().any(|w| w.0 <= pc) as u32;
                    pc += 1;
                    self.counters.divergent_branches += (ways.len() > 1 || mask != 0) as u64;
                    // The fragment goes one of the ways itself. It has its new place before others join theirs: they may
                    // be where it was before.
                    if mask == 0 {
                        (pc, mask) = ways.pop().unwrap_or_default();
                    }
                    keep!(State::Ready);
                    ways.iter().for_each(|&(target, group)| warp.join(frame, target, group));
                    leave!(Ok(false));
                }
                Action::Call(call) => {
                    let at = At { function, pc };
                    match call.target {
                        Target::Print | Target::Assert => {
                            self.external(block, warp, file, frame, call, pool, lanes, at)?;
                            pc += 1;
                            continue;
                        }
                        Target::Function(_) | Target::Indirect { .. } => {}
                    }
                    let (group, callee) = self.callee(block, warp, file, call, pool, lanes, at)?;
                    let Some(new) = warp.push_frame(kernel, callee, frame, pc, group) else {
                        let message = "a call deeper than the stack".to_string();
                        return Err(self.finding(Kind::StackOverflow, message, block, warp, at, group));
                    };
                    arguments(kernel, warp, frame, new, call, group);
                    // Those that the guard excludes go on; those that call another function are next.
                    let (others, off) = (lanes & !group, mask & !lanes);
                    warp.fragments.remove(f);
                    warp.join(new, 0, group);
                    if others != 0 {
                        warp.join(frame, pc, others);
                    }
                    if off != 0 {
                        warp.join(frame, pc + 1, off);
                    }
                    leave!(Ok(false));
                }
                Action::Return => {
                    let (parent, call) = {
                        let frame = &mut warp.frames[frame as usize];
                        frame.lanes &= !lanes;
                        (frame.parent, frame.call)
                    };
                    results(kernel, warp, frame, parent, call, lanes);
                    mask &= !lanes;
                    pc += 1;
                    if mask == 0 {
                        warp.fragments.remove(f);
                    } else {
                        keep!(State::Ready);
                    }
                    warp.join(parent, call + 1, lanes);
                    leave!(Ok(false));
                }
                Action::Exit => {
                    mask &= !lanes;
                    pc += 1;
                    if mask == 0 {
                        warp.fragments.remove(f);
                    } else {
                        keep!(State::Ready);
                    }
                    warp.exit(lanes);
                    if let Some(check) = &mut block.check {
                        check.exit(warp.index, lanes);
                    }
                    leave!(Ok(false));
                }
                Action::Trap => {
                    let message = "trap".to_string();
                    return Err(self.finding(Kind::Trap, message, block, warp, At { function, pc }, lanes));
                }
                Action::Nothing => pc += 1,
            }
        }
    }

    /// Takes instructions from the launch's budget.
    fn spend(&mut self, steps: u64, block: &Block, warp: &Warp, at: At, mask: u32) -> Result<()> {
        if self.budget.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(steps)).is_ok() {
            return Ok(());
        }
        self.budget.store(0, Relaxed);
        let message =
            format!("the launch has executed {} warp instructions and is taken to hang", self.launch.options.budget);
        Err(self.finding(Kind::Timeout, message, block, warp, at, mask))
    }

    /// Executes a `.sync` instruction for the lanes whose members are all here; returns them.
    fn together(
        &mut self,
        block: &Block,
        warp: &Warp,
        file: *mut Unit,
        together: &Together,
        pool: &[u16],
        lanes: u32,
        at: At,
    ) -> Result<u32> {
        let operands = together.operands.of(pool);
        let Some(slot) = together.mask else {
            if lanes != warp.alive {
                return Ok(0);
            }
            // SAFETY: as for `Action::Run`.
            unsafe { (together.run)(file, operands, lanes) };
            return Ok(lanes);
        };
        let members = lane_values(file, operands[slot as usize]);
        let (mut left, mut done) = (lanes, 0);
        while left != 0 {
            let first = members[left.trailing_zeros() as usize];
            let group = if members == [first; 32] {
                left
            } else {
                (0..32).filter(|&l| left >> l & 1 != 0 && members[l] == first).fold(0u32, |g, l| g | 1 << l)
            };
            left &= !group;
            if group & !first != 0 {
                return Err(self.outside(block, warp, at, group & !first, first));
            }
            if first & warp.alive & !group != 0 {
                continue;
            }
            if let Some(shuffle) = together.shuffle
                && group != u32::MAX
                && self.strict
            {
                self.check_shuffle(block, warp, file, shuffle, operands, group, at)?;
            }
            // SAFETY: as for `Action::Run`.
            unsafe { (together.run)(file, operands, group) };
            done |= group;
        }
        Ok(done)
    }

    /// A shuffle that reads from a lane which takes no part gets an undefined value (PTX ISA 9.7.9.6).
    fn check_shuffle(
        &self,
        block: &Block,
        warp: &Warp,
        file: *mut Unit,
        shuffle: Shuffle,
        operands: &[u16],
        group: u32,
        at: At,
    ) -> Result<()> {
        let b = lane_values(file, operands[shuffle.b as usize]);
        let c = lane_values(file, operands[shuffle.c as usize]);
        for lane in (0..32u32).filter(|l| group >> l & 1 != 0) {
            let l = lane as usize;
            let (source, inside) = crate::isa::warp::shuffle_source(shuffle.mode, lane, b[l], c[l]);
            if inside && group >> source & 1 == 0 {
                let message = format!("a shuffle reads lane {source}, which does not take part in it");
                return Err(self.finding(Kind::Divergence, message, block, warp, at, 1 << lane));
            }
        }
        Ok(())
    }

    fn outside(&self, block: &Block, warp: &Warp, at: At, lanes: u32, members: u32) -> Box<Finding> {
        let message =
            format!("lanes 0x{lanes:08x} execute a .sync instruction whose member mask 0x{members:08x} lacks them");
        self.finding(Kind::Divergence, message, block, warp, at, lanes)
    }

    pub(crate) fn diverged(&self, block: &Block, warp: &Warp, at: At, lanes: u32, needed: u32) -> Box<Finding> {
        let missing = needed & !lanes;
        let message =
            format!("lanes 0x{lanes:08x} wait for lanes 0x{missing:08x}, which do not come to this instruction");
        self.finding(Kind::Divergence, message, block, warp, at, lanes)
    }

    /// What a barrier instruction asks for.
    fn arrival(
        &self,
        block: &Block,
        warp: &Warp,
        file: *mut Unit,
        barrier: &Barrier,
        pool: &[u16],
        lanes: u32,
        at: At,
    ) -> Result<Arrival> {
        let operands = barrier.operands.of(pool);
        let reduces = (barrier.reduce != Reduce::No) as usize;
        let uniform = |slot: u16, what: &str| {
            let values = lane_values(file, slot);
            let first = values[lanes.trailing_zeros() as usize];
            match (0..32).find(|&l| lanes >> l & 1 != 0 && values[l] != first) {
                None => Ok(first),
                Some(l) => {
                    let message = format!("a barrier's {what} differs in a warp: {first} and {}", values[l]);
                    Err(self.finding(Kind::Barrier, message, block, warp, at, 1 << l))
                }
            }
        };
        let number = uniform(operands[reduces], "number")?;
        let expected = if barrier.count { Some(uniform(operands[reduces + 1], "thread count")?) } else { None };
        let wrong = |message: String| Err(self.finding(Kind::Barrier, message, block, warp, at, lanes));
        if number > 15 {
            return wrong(format!("barrier {number}: there are 0 to 15"));
        }
        if let Some(n) = expected
            && (n == 0 || n % 32 != 0 || n > block.warp_count * 32)
        {
            return wrong(format!("a barrier of {n} threads: a multiple of 32 up to the block's was expected"));
        }
        let votes = if reduces == 1 {
            // SAFETY: the place lies in the frame.
            let p = unsafe { (*file.add(operands[2 + barrier.count as usize] as usize)).0[0] };
            (if barrier.negate { !p } else { p }) & lanes
        } else {
            0
        };
        let (reduce, target) = (barrier.reduce, if reduces == 1 { operands[0] } else { NONE });
        let (warp, waits, aligned) = (warp.index, !barrier.arrive, barrier.aligned);
        Ok(Arrival { number, expected, warp, lanes, frame: 0, at, waits, aligned, reduce, target, votes })
    }

    /// The function that the first lanes call, and those lanes.
    fn callee(
        &self,
        block: &Block,
        warp: &Warp,
        file: *mut Unit,
        call: &Call,
        pool: &[u16],
        lanes: u32,
        at: At,
    ) -> Result<(u32, u32)> {
        let wide = match call.target {
            Target::Function(f) => return Ok((lanes, f)),
            Target::Indirect { wide } => wide,
            Target::Print | Target::Assert => return Ok((lanes, 0)),
        };
        // SAFETY: the place lies in the frame.
        let addresses = unsafe { read_lanes(file, call.operands.of(pool)[0], if wide { 2 } else { 1 }) };
        let first = addresses[lanes.trailing_zeros() as usize];
        let group = (0..32).filter(|&l| lanes >> l & 1 != 0 && addresses[l] == first).fold(0u32, |g, l| g | 1 << l);
        let unknown = || {
            let message = format!("a call of 0x{first:x}, which is no function");
            self.finding(Kind::IllegalInstruction, message, block, warp, at, group)
        };
        let callee = *self.kernel.addresses.get(&first).ok_or_else(unknown)?;
        let function = &self.kernel.functions[callee as usize];
        if function.parameters.len() != call.arguments.len() || function.returns.len() != call.returns.len() {
            let message = format!("{} is called with another signature than it has", function.name);
            return Err(self.finding(Kind::IllegalInstruction, message, block, warp, at, group));
        }
        Ok((group, callee))
    }

    /// A report about the first of `lanes`.
    pub(crate) fn finding(
        &self,
        kind: Kind,
        message: String,
        block: &Block,
        warp: &Warp,
        at: At,
        lanes: u32,
    ) -> Box<Finding> {
        let lane = lanes.trailing_zeros().min(31);
        let mut finding = Finding::new(kind, message);
        finding.place = Some(Box::new(self.place(block.index, warp.index, lane, at)));
        finding.kernel = self.launch.program.entries[self.launch.entry].name.clone();
        Box::new(finding)
    }

    /// A thread and an instruction in words.
    pub(crate) fn place(&self, block: u64, warp: u32, lane: u32, at: At) -> Where {
        let function = &self.kernel.functions[at.function as usize];
        let [gx, gy, _] = self.launch.grid.map(|g| g.max(1) as u64);
        let [x, y, _] = self.launch.block;
        let thread = warp * 32 + lane;
        let info = function.info.get(at.pc as usize);
        // What the compiler added has line 0: the one above it in the text tells where that is.
        let above = function.info.iter().filter(|i| i.location.line != 0 && info.is_some_and(|at| i.line <= at.line));
        let line = above.max_by_key(|i| i.line).map(|i| i.location);
        let named = |l: Location| Some((self.launch.program.files.get(&l.file)?.clone(), l.line));
        let outer = |l: &Location| self.launch.program.calls.get((l.call as usize).checked_sub(1)?).copied();
        let calls = std::iter::successors(line.as_ref().and_then(outer), outer);
        Where {
            block: [(block % gx) as u32, (block / gx % gy) as u32, (block / gx / gy) as u32],
            thread: [thread % x, thread / x % y, thread / x / y],
            warp,
            lane,
            source: line.and_then(named),
            inlined: calls.filter_map(named).take(INLINED).collect(),
            ptx_line: info.map_or(0, |i| i.line),
            instruction: info.map_or(String::new(), |i| i.form.clone()),
            function: function.name.clone(),
        }
    }
}

/// How many inlined calls a finding lists at most.
const INLINED: usize = 32;

/// Fragments at the same place become one.
fn merge(fragments: &mut Vec<Fragment>) {
    let mut i = 0;
    while i < fragments.len() {
        let mut j = i + 1;
        while j < fragments.len() {
            let (a, b) = (&fragments[i], &fragments[j]);
            if a.frame == b.frame && a.pc == b.pc && mergeable(a.state) && mergeable(b.state) {
                let b = fragments.remove(j);
                let a = &mut fragments[i];
                a.mask |= b.mask;
                (a.state, a.jumps, a.watching) = (State::Ready, a.jumps.max(b.jumps), a.watching | b.watching);
            } else {
                j += 1;
            }
        }
        i += 1;
    }
}

/// The fragment that runs next: of the deepest call, at the lowest place. One that has just yielded is passed over.
fn pick(warp: &mut Warp) -> Option<usize> {
    let skip = std::mem::replace(&mut warp.skip, u32::MAX) as usize;
    let ready = |i: &usize| warp.fragments[*i].state == State::Ready;
    let key = |i: &usize| {
        let f = &warp.fragments[*i];
        (*i == skip, std::cmp::Reverse(warp.frames[f.frame as usize].depth), f.pc)
    };
    (0..warp.fragments.len()).filter(ready).min_by_key(key)
}

/// A 32-bit register's lanes.
pub(crate) fn lane_values(file: *const Unit, slot: u16) -> [u32; 32] {
    // SAFETY: every place in the code lies in the frame.
    unsafe { (*file.add(slot as usize)).0 }
}

/// A register's lanes, zero-extended.
///
/// # Safety
/// `units` units lie at `slot`.
pub(crate) unsafe fn read_lanes(file: *const Unit, slot: u16, units: u8) -> [u64; 32] {
    unsafe {
        if units == 1 {
            let narrow = (*file.add(slot as usize)).0;
            std::array::from_fn(|l| narrow[l] as u64)
        } else {
            *(file.add(slot as usize) as *const [u64; 32])
        }
    }
}

/// Writes a register's lanes.
///
/// # Safety
/// `units` units lie at `slot`.
pub(crate) unsafe fn write_lanes(file: *mut Unit, slot: u16, units: u8, mask: u32, value: impl Fn(usize) -> u64) {
    for l in (0..32).filter(|l| mask >> l & 1 != 0) {
        unsafe {
            if units == 1 {
                (*file.add(slot as usize)).0[l] = value(l) as u32;
            } else {
                (*(file.add(slot as usize) as *mut [u64; 32]))[l] = value(l);
            }
        }
    }
}
