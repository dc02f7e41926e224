//! A warp: its registers, its call frames, and the fragments into which divergence has split it.

use crate::lanes::Unit;
use crate::memory::POISON;
use crate::program::code::{Function, Kernel, RESERVED_SHARED, Special};
use crate::program::lower::LOCAL;

/// The frames a lane may have: deeper recursion is an overflow of the stack.
pub(crate) const DEPTH: u32 = 1024;
/// Bytes of local memory a lane may have, as on the hardware.
pub(crate) const LOCAL_LIMIT: usize = 512 << 10;
/// Units that the frames of a warp may take together.
const FILE_LIMIT: usize = 1 << 18;

/// Lanes that are at the same instruction of the same call.
#[derive(Debug, Clone)]
pub(crate) struct Fragment {
    pub(crate) frame: u32,
    pub(crate) pc: u32,
    pub(crate) mask: u32,
    pub(crate) state: State,
    /// Backward jumps since another fragment had its turn.
    pub(crate) jumps: u32,
    /// Whether it has read memory that others may be writing, since then.
    pub(crate) watching: bool,
}

/// Why a fragment does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// Other lanes have to come to the same instruction.
    Together,
    /// At a `bar.warp.sync` of this member mask.
    WarpBarrier(u32),
    /// At a barrier of the block.
    Barrier(u32),
}

/// A call under way.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) function: u32,
    /// Its first unit in the register file.
    pub(crate) base: usize,
    /// Where its variables start in each lane's local memory.
    pub(crate) memory: u32,
    pub(crate) parent: u32,
    /// The call instruction in the parent.
    pub(crate) call: u32,
    /// Lanes that have not returned.
    pub(crate) lanes: u32,
    pub(crate) depth: u32,
}

pub(crate) struct Warp {
    /// Its number in the block.
    pub(crate) index: u32,
    pub(crate) file: Vec<Unit>,
    pub(crate) frames: Vec<Frame>,
    pub(crate) fragments: Vec<Fragment>,
    /// Lanes that have not exited.
    pub(crate) alive: u32,
    /// Lanes that the launch has.
    pub(crate) exist: u32,
    /// Local memory, interleaved: word `w` of lane `l` is at `(32 * w + l) * 4`, as on the hardware. It starts as poison.
    pub(crate) local: Vec<u8>,
    /// Instructions executed, which is what `%clock` tells.
    pub(crate) clock: u64,
    /// Index of the fragment that has just had its turn.
    pub(crate) skip: u32,
    /// Whether the constants of the entry's frame are in place.
    ready: bool,
}

/// What the special registers of a block's threads say.
pub(crate) struct Specials {
    pub(crate) threads: [u32; 3],
    pub(crate) blocks: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) multiprocessor: u32,
    pub(crate) multiprocessors: u32,
    pub(crate) dynamic_shared: u32,
    pub(crate) total_shared: u32,
    pub(crate) reserved_shared: u32,
    pub(crate) workspace: u64,
}

impl Specials {
    fn of(&self, special: Special, warp: u32, lane: u32) -> u64 {
        let thread = warp * 32 + lane;
        let [x, y, _] = self.threads;
        let axis = |v: [u32; 3], a: u8| v[a as usize] as u64;
        let at = [thread % x, thread / x % y, thread / x / y];
        let below = (1u32 << lane) - 1;
        match special {
            Special::Thread(a) => axis(at, a),
            Special::Threads(a) => axis(self.threads, a),
            Special::Block(a) => axis(self.block, a),
            Special::Blocks(a) => axis(self.blocks, a),
            Special::Lane => lane as u64,
            Special::Warp => warp as u64,
            Special::Warps => (self.threads.iter().product::<u32>()).div_ceil(32) as u64,
            Special::Multiprocessor => self.multiprocessor as u64,
            Special::Multiprocessors => self.multiprocessors as u64,
            Special::Grid => 1,
            Special::LanesEqual => 1 << lane,
            Special::LanesBelow => below as u64,
            Special::LanesUpTo => (below | 1 << lane) as u64,
            Special::LanesFrom => !below as u64,
            Special::LanesAbove => !(below | 1 << lane) as u64,
            Special::DynamicShared => self.dynamic_shared as u64,
            Special::TotalShared => self.total_shared as u64,
            Special::ReservedShared(offset) => self.reserved_shared as u64 + offset as u64,
            Special::ReservedSize => RESERVED_SHARED as u64,
            // Where a cooperative launch keeps its grid barrier: the convention of cooperative_groups.h.
            Special::Environment(1) => self.workspace >> 32,
            Special::Environment(2) => self.workspace & 0xffff_ffff,
            Special::Environment(_) | Special::Zero => 0,
            Special::One => 1,
        }
    }
}

impl Warp {
    pub(crate) fn new(index: u32) -> Warp {
        Warp {
            index,
            file: Vec::new(),
            frames: Vec::new(),
            fragments: Vec::new(),
            alive: 0,
            exist: 0,
            local: Vec::new(),
            clock: 0,
            skip: u32::MAX,
            ready: false,
        }
    }

    /// Starts over, as the warp of another block of the same launch.
    pub(crate) fn start(&mut self, kernel: &Kernel, specials: &Specials) {
        let entry = &kernel.functions[0];
        if self.file.len() < entry.units {
            self.file.resize(entry.units, Unit([0; 32]));
        }
        for (i, &(special, wide)) in kernel.specials.iter().enumerate() {
            // thread indices and the like stay what they were
            if self.ready && !matches!(special, Special::Block(_) | Special::Multiprocessor) {
                continue;
            }
            let units = &mut self.file[2 * i..2 * i + 2];
            for lane in 0..32 {
                let value = specials.of(special, self.index, lane);
                if wide {
                    let at = 2 * lane as usize;
                    units[at / 32].0[at % 32] = value as u32;
                    units[at / 32].0[at % 32 + 1] = (value >> 32) as u32;
                } else {
                    units[0].0[lane as usize] = value as u32;
                }
            }
        }
        let threads: u32 = specials.threads.iter().product();
        let left = threads - self.index * 32;
        self.exist = if left >= 32 { u32::MAX } else { (1 << left) - 1 };
        self.alive = self.exist;
        self.local.clear();
        self.local.resize(entry.frame_bytes as usize * 32, POISON);
        self.frames.clear();
        self.frames.push(Frame { function: 0, base: 0, memory: 0, parent: 0, call: 0, lanes: self.alive, depth: 0 });
        if !std::mem::replace(&mut self.ready, true) {
            fill_frame(&mut self.file, kernel, entry, 0, 0);
        }
        for &(place, value) in &entry.undefined {
            self.file[place as usize] = Unit([value; 32]);
        }
        self.fragments.clear();
        self.fragments.push(Fragment {
            frame: 0,
            pc: 0,
            mask: self.alive,
            state: State::Ready,
            jumps: 0,
            watching: false,
        });
        self.clock = 0;
    }

    /// Makes a frame for a call from `parent`; `None` if the stack is too deep.
    pub(crate) fn push_frame(
        &mut self,
        kernel: &Kernel,
        function: u32,
        parent: u32,
        call: u32,
        lanes: u32,
    ) -> Option<u32> {
        let caller = &self.frames[parent as usize];
        let (from, depth) = (caller.base, caller.depth + 1);
        let callee = &kernel.functions[function as usize];
        let memory = caller.memory + kernel.functions[caller.function as usize].frame_bytes;
        let local = (memory + callee.frame_bytes) as usize;
        if depth >= DEPTH || local > LOCAL_LIMIT {
            return None;
        }
        // Frames lie one behind the other; one that is done makes room when all behind it are.
        let base =
            self.frames.iter().filter(|f| f.lanes != 0).map(|f| f.base + kernel.functions[f.function as usize].units);
        let base = base.max().unwrap_or(0);
        if base + callee.units > FILE_LIMIT {
            return None;
        }
        if self.file.len() < base + callee.units {
            self.file.resize(base + callee.units, Unit([0; 32]));
        }
        self.file.copy_within(from..from + 2 * kernel.specials.len(), base);
        fill_frame(&mut self.file, kernel, callee, base, memory);
        for &(place, value) in &callee.undefined {
            self.file[base + place as usize] = Unit([value; 32]);
        }
        if self.local.len() < local * 32 {
            self.local.resize(local * 32, POISON);
        }
        let frame = Frame { function, base, memory, parent, call, lanes, depth };
        Some(match self.frames.iter().position(|f| f.lanes == 0) {
            Some(free) => {
                self.frames[free] = frame;
                free as u32
            }
            None => {
                self.frames.push(frame);
                self.frames.len() as u32 - 1
            }
        })
    }

    /// Adds lanes to the fragment that is at this place, or makes one.
    pub(crate) fn join(&mut self, frame: u32, pc: u32, mask: u32) {
        match self.fragments.iter_mut().find(|f| f.frame == frame && f.pc == pc && mergeable(f.state)) {
            Some(fragment) => {
                fragment.mask |= mask;
                fragment.state = State::Ready;
            }
            None => self.fragments.push(Fragment { frame, pc, mask, state: State::Ready, jumps: 0, watching: false }),
        }
    }

    /// Takes lanes out of the warp for good.
    pub(crate) fn exit(&mut self, mask: u32) {
        self.alive &= !mask;
        self.frames.iter_mut().for_each(|f| f.lanes &= !mask);
        // whoever waits for these lanes waits no longer
        for fragment in &mut self.fragments {
            if matches!(fragment.state, State::Together | State::WarpBarrier(_)) {
                fragment.state = State::Ready;
            }
        }
    }
}

/// Whether lanes that arrive may join a fragment in this state: those at a barrier have arrived there already.
pub(crate) fn mergeable(state: State) -> bool {
    matches!(state, State::Ready | State::Together)
}

fn fill_frame(file: &mut [Unit], kernel: &Kernel, function: &Function, base: usize, memory: u32) {
    let constants = base + 2 * kernel.specials.len();
    file[constants..constants + function.constants.len()].copy_from_slice(&function.constants);
    for &(place, offset, wide) in &function.frame_addresses {
        let address = (memory as u64).wrapping_add(offset as u64);
        if !wide {
            file[base + place as usize].0.fill(address as u32);
            continue;
        }
        for lane in 0..32 {
            let at = 2 * lane;
            let unit = &mut file[base + place as usize + at / 32].0;
            unit[at % 32] = address as u32;
            unit[at % 32 + 1] = (address >> 32) as u32;
        }
    }
}

/// The local window, for generic addresses.
pub(crate) const LOCAL_WINDOW: u64 = LOCAL;
