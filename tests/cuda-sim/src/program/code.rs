//! What the interpreter runs.

use crate::check::Scope;
use crate::lanes::{Class, Run, Unit};
use crate::ptx::ast::Location;

/// No register.
pub(crate) const NONE: u16 = u16::MAX;

/// Where a function's operands lie: `pool[at..at + len]`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Operands {
    pub(crate) at: u32,
    pub(crate) len: u32,
}

impl Operands {
    #[inline(always)]
    pub(crate) fn of(self, pool: &[u16]) -> &[u16] {
        &pool[self.at as usize..(self.at + self.len) as usize]
    }
}

/// One instruction.
#[derive(Debug)]
pub(crate) struct Op {
    /// The predicate's place, or `NONE`.
    pub(crate) guard: u16,
    /// All ones for `@!p`.
    pub(crate) negate: u32,
    pub(crate) action: Action,
}

/// What an instruction does.
#[derive(Debug)]
pub(crate) enum Action {
    /// Registers only.
    Run {
        run: Run,
        operands: Operands,
    },
    /// Registers only, once the lanes have come together.
    Together(Box<Together>),
    Jump {
        target: u32,
    },
    Switch(Box<Switch>),
    Call(Box<Call>),
    Return,
    Exit,
    Trap,
    Load(Box<Access>),
    Store(Box<Access>),
    Atomic(Box<Atomic>),
    AsyncCopy(Box<AsyncCopy>),
    AsyncCommit,
    /// Waits until at most so many groups are in flight; `None`: until nothing is, committed or not.
    AsyncWait {
        left: Option<u32>,
    },
    Transfer(Box<Transfer>),
    Barrier(Box<Barrier>),
    /// `bar.warp.sync`; the operand is the member mask.
    WarpBarrier {
        operands: Operands,
    },
    Fence {
        scope: Scope,
    },
    /// A 32- or 64-bit reading of the clock; `high`: its upper half.
    Clock {
        operands: Operands,
        wide: bool,
        high: bool,
    },
    Nothing,
}

/// What is known about an instruction beside what it does.
#[derive(Debug, Clone)]
pub(crate) struct OpInfo {
    /// Line of the PTX text; 0 for a jump that the layout added, which is not counted.
    pub(crate) line: u32,
    pub(crate) location: Location,
    /// As written.
    pub(crate) form: String,
    pub(crate) class: Class,
    pub(crate) fma: u32,
}

/// A `.sync` instruction on registers.
#[derive(Debug)]
pub(crate) struct Together {
    pub(crate) run: Run,
    pub(crate) operands: Operands,
    /// Index into the operands of the member mask; none: the whole warp.
    pub(crate) mask: Option<u8>,
    /// How it picks the lane it reads from.
    pub(crate) shuffle: Option<Shuffle>,
}

/// Where a shuffle's `b` and `c` are among the operands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shuffle {
    pub(crate) mode: crate::isa::warp::Mode,
    pub(crate) b: u8,
    pub(crate) c: u8,
}

/// `brx.idx`
#[derive(Debug)]
pub(crate) struct Switch {
    pub(crate) index: Operands,
    pub(crate) targets: Vec<u32>,
}

/// Where an argument or a result lies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// Bytes of the lane's frame.
    Memory { offset: u32, bytes: u32 },
    /// Index into the operands (of the call, or of the function's own).
    Register { operand: u32, units: u16 },
}

/// Who is called.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// Index into the kernel's functions.
    Function(u32),
    /// The address is the call's first operand.
    Indirect {
        wide: bool,
    },
    Print,
    Assert,
}

/// `call`
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) target: Target,
    pub(crate) operands: Operands,
    pub(crate) arguments: Vec<Place>,
    pub(crate) returns: Vec<Place>,
}

/// Which memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Generic,
    Global,
    Shared,
    /// The lane's own memory; an offset from the start of its stack.
    Local,
    /// The launch's parameters.
    Param,
}

/// What an address is made of: `base + offset`, and the frame's start if `frame`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) space: Space,
    pub(crate) base: Base,
    pub(crate) offset: i64,
    pub(crate) frame: bool,
}

/// The register of an address, which is the first operand if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    None,
    Narrow,
    Wide,
}

/// How an access takes part in the memory consistency model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    /// Volatile, relaxed, acquire, release, or atomic.
    pub(crate) strong: bool,
    pub(crate) acquire: bool,
    pub(crate) release: bool,
    pub(crate) scope: Scope,
}

/// `ld` and `st`.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) address: Address,
    /// The base, then the registers.
    pub(crate) operands: Operands,
    /// Bytes of an element: 1, 2, 4, 8, 16.
    pub(crate) element: u32,
    /// Units of each register.
    pub(crate) units: Vec<u8>,
    /// Bits to which a signed element is extended; 0: zeros.
    pub(crate) extend: u32,
    pub(crate) order: Order,
}

/// What an atomic does with the old value and the operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Combine {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Inc,
    Dec,
    Exchange,
    CompareAndSwap,
}

/// `atom` and `red`.
#[derive(Debug)]
pub(crate) struct Atomic {
    pub(crate) address: Address,
    /// The base, then the result (if there is one), `b`, and `c` for a compare-and-swap.
    pub(crate) operands: Operands,
    pub(crate) combine: Combine,
    pub(crate) ty: crate::ptx::ast::Type,
    /// Whether there is a result operand.
    pub(crate) result: bool,
    pub(crate) order: Order,
}

/// `cp.async`
#[derive(Debug)]
pub(crate) struct AsyncCopy {
    /// Its base is the first operand.
    pub(crate) to: Address,
    /// Its base is the next operand.
    pub(crate) from: Address,
    /// Bases, then the source size or the predicate that ignores the source.
    pub(crate) operands: Operands,
    pub(crate) bytes: u32,
    pub(crate) limit: Limit,
}

/// What a `cp.async` takes from its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    All,
    /// So many bytes, zeros behind.
    Size,
    /// Zeros where the predicate is true.
    Ignore {
        negate: bool,
    },
}

/// `ldmatrix`, `stmatrix`, `wmma.load`, `wmma.store`.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) address: Address,
    /// The base, the stride (if there is one), then the registers.
    pub(crate) operands: Operands,
    pub(crate) layout: crate::isa::matrix::Transfer,
    /// `ldmatrix`
    pub(crate) rows: bool,
}

/// What a barrier does beside waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduce {
    No,
    And,
    Or,
    Count,
}

/// `bar`, `barrier`.
#[derive(Debug)]
pub(crate) struct Barrier {
    /// The result of a reduction, the barrier's number, the thread count if there is one, the predicate of a reduction.
    pub(crate) operands: Operands,
    pub(crate) reduce: Reduce,
    /// The predicate of the reduction is `!p`.
    pub(crate) negate: bool,
    pub(crate) count: bool,
    /// `bar.arrive`
    pub(crate) arrive: bool,
    pub(crate) aligned: bool,
}

/// A function of a kernel.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) code: Vec<Op>,
    pub(crate) info: Vec<OpInfo>,
    pub(crate) pool: Vec<u16>,
    /// Units of a frame: specials, constants, then registers.
    pub(crate) units: usize,
    /// Constants, which follow the specials.
    pub(crate) constants: Vec<Unit>,
    /// Places that hold the frame's start plus so many bytes, and whether they have 64 bits or 32.
    pub(crate) frame_addresses: Vec<(u16, i64, bool)>,
    /// Places that may be read before they are written, and what they hold until then: the same each time, so that a launch
    /// repeats, and no zero, so that a forgotten one shows in the result.
    pub(crate) undefined: Vec<(u16, u32)>,
    /// Bytes a lane for its local and parameter variables.
    pub(crate) frame_bytes: u32,
    pub(crate) parameters: Vec<Place>,
    pub(crate) returns: Vec<Place>,
    /// The registers of `parameters` and `returns`.
    pub(crate) own: Operands,
    /// 32-bit registers alive at once, at most.
    pub(crate) pressure: u32,
}

/// A special register that stands in every frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Thread(u8),
    Threads(u8),
    Block(u8),
    Blocks(u8),
    Lane,
    Warp,
    Warps,
    Multiprocessor,
    Multiprocessors,
    Grid,
    LanesEqual,
    LanesUpTo,
    LanesBelow,
    LanesFrom,
    LanesAbove,
    DynamicShared,
    TotalShared,
    /// Where the block's reserved shared memory is: so many bytes behind its start.
    ReservedShared(u16),
    /// How large it is.
    ReservedSize,
    Environment(u8),
    Zero,
    One,
}

/// Bytes of shared memory that the system has of each block: what an A100 and its successors reserve.
pub(crate) const RESERVED_SHARED: u16 = 1024;

/// An entry with every function that it may call.
pub(crate) struct Kernel {
    /// The entry is the first.
    pub(crate) functions: Vec<Function>,
    /// Function addresses that an indirect call may hold.
    pub(crate) addresses: std::collections::HashMap<u64, u32>,
    /// The first units of every frame, two for each.
    pub(crate) specials: Vec<(Special, bool)>,
    /// Bytes of static shared memory.
    pub(crate) static_shared: usize,
    /// Where dynamic shared memory starts.
    pub(crate) dynamic_start: usize,
    /// Whether the code names dynamic shared memory.
    pub(crate) has_dynamic: bool,
    /// The order of blocks shows in the results: atomics whose result is used, sums of floats, strong loads.
    pub(crate) sensitive: bool,
}
