//! Random structured kernels against an interpreter of their syntax that runs one thread at a time.
//!
//! A program is a tree: assignments, guarded assignments, if/else, loops with a trip count of each thread's own, `break` and
//! `continue`, `brx.idx`, early `ret` and `exit`, local arrays, calls (recursive, indirect) and, between the parts that
//! diverge, barriers, shuffles and votes. It is written as PTX and run by the simulated device in warps of 32 lanes; and it
//! is interpreted here, thread by thread, from the tree, so that what the two have in common is the tree alone. All memory
//! must be the same to the bit, with and without checks, with one and with several host threads, and strict checking must
//! find nothing.
//!
//! `RANDOM_PROGRAMS=20000 RANDOM_SEED=1 cargo test -p cuda-sim --test random_programs` runs more of them, from another seed.

use std::fmt::Write;

use cuda::exec::{Launch, Options, launch};
use cuda::memory::Memory;
use cuda::program::Program;

/// Variables of each kind in every function.
const NARROW: usize = 6;
const WIDE: usize = 3;
const TRUTHS: usize = 3;
/// Words of the local array.
const ARRAY: u32 = 8;
/// Words of the input, and those that a thread writes.
const INPUT: u32 = 64;
const SLOTS: usize = 24;
const FUNCTIONS: usize = 3;
/// Statements that a thread may execute before the program is passed over.
const FUEL: u32 = 4_000;

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Binary {
    Add,
    Sub,
    Mul,
    And,
    Or,
    Xor,
    Shl,
    Shr,
    Min,
    SignedMax,
}
const BINARY: [Binary; 10] = {
    use Binary::*;
    [Add, Sub, Mul, And, Or, Xor, Shl, Shr, Min, SignedMax]
};

impl Binary {
    fn narrow(self, a: u32, b: u32) -> u32 {
        match self {
            Binary::Add => a.wrapping_add(b),
            Binary::Sub => a.wrapping_sub(b),
            Binary::Mul => a.wrapping_mul(b),
            Binary::And => a & b,
            Binary::Or => a | b,
            Binary::Xor => a ^ b,
            Binary::Shl => a.checked_shl(b).unwrap_or(0),
            Binary::Shr => a.checked_shr(b).unwrap_or(0),
            Binary::Min => a.min(b),
            Binary::SignedMax => (a as i32).max(b as i32) as u32,
        }
    }
    /// Shifts have an amount of 32 bits.
    fn wide(self, a: u64, b: u64) -> u64 {
        match self {
            Binary::Add => a.wrapping_add(b),
            Binary::Sub => a.wrapping_sub(b),
            Binary::Mul => a.wrapping_mul(b),
            Binary::And => a & b,
            Binary::Or => a | b,
            Binary::Xor => a ^ b,
            Binary::Shl => a.checked_shl(b as u32).unwrap_or(0),
            Binary::Shr => a.checked_shr(b as u32).unwrap_or(0),
            Binary::Min => a.min(b),
            Binary::SignedMax => (a as i64).max(b as i64) as u64,
        }
    }
    fn name(self, bits: u32) -> String {
        match self {
            Binary::Add => format!("add.u{bits}"),
            Binary::Sub => format!("sub.u{bits}"),
            Binary::Mul => format!("mul.lo.u{bits}"),
            Binary::And => format!("and.b{bits}"),
            Binary::Or => format!("or.b{bits}"),
            Binary::Xor => format!("xor.b{bits}"),
            Binary::Shl => format!("shl.b{bits}"),
            Binary::Shr => format!("shr.u{bits}"),
            Binary::Min => format!("min.u{bits}"),
            Binary::SignedMax => format!("max.s{bits}"),
        }
    }
    fn shifts(self) -> bool {
        matches!(self, Binary::Shl | Binary::Shr)
    }
}

/// A value of 32 bits.
enum Narrow {
    Variable(usize),
    Constant(u32),
    Thread,
    /// What is left of the recursion; in the kernel the block's number.
    Depth,
    Binary(Binary, Box<Narrow>, Box<Narrow>),
    Select(Truth, Box<Narrow>, Box<Narrow>),
    /// A word of the input.
    Input(Box<Narrow>),
    Array(Box<Narrow>),
    Half(bool, Wide),
}

/// A value of 64 bits.
enum Wide {
    Variable(usize),
    Constant(u64),
    Binary(Binary, Box<Wide>, Box<Wide>),
    Signed(Box<Narrow>),
    Pack(Box<Narrow>, Box<Narrow>),
    Select(Box<Truth>, Box<Wide>, Box<Wide>),
}

/// A predicate.
enum Truth {
    Variable(usize),
    Narrow(&'static str, Box<Narrow>, Box<Narrow>),
    Wide(&'static str, Box<Wide>, Box<Wide>),
    Not(Box<Truth>),
    Both(&'static str, Box<Truth>, Box<Truth>),
}

enum Statement {
    Narrow(usize, Narrow),
    Wide(usize, Wide),
    Truth(usize, Truth),
    /// `@p op d, a, b`
    Guarded {
        p: usize,
        not: bool,
        op: Binary,
        d: usize,
        a: usize,
        b: usize,
    },
    /// `@p mov.b64`
    GuardedWide {
        p: usize,
        not: bool,
        d: usize,
        a: usize,
    },
    /// `@p setp.lt.u32 q, a, b`
    GuardedTruth {
        p: usize,
        not: bool,
        q: usize,
        a: usize,
        b: usize,
    },
    Store(Narrow, Narrow),
    If(Truth, Vec<Statement>, Vec<Statement>),
    /// At most 7 times; with the test at the end or, with `brx.idx`, as a switch at the end.
    Loop {
        times: Narrow,
        switched: bool,
        body: Vec<Statement>,
    },
    Break(Truth),
    Continue(Truth),
    /// Each arm falls through to the next, or not.
    Switch(Narrow, Vec<(Vec<Statement>, bool)>),
    /// Arguments and where the result goes; the second function where the predicate is false, by an indirect call.
    Call {
        function: usize,
        other: Option<(Truth, usize)>,
        narrow: Narrow,
        wide: Wide,
        d: usize,
    },
    Return(Truth, Narrow),
    /// Writes a slot and ends the thread.
    Exit(Truth, usize, Narrow),
}

/// What a kernel consists of: parts that diverge, and between them places where a warp or a block comes together.
enum Part {
    Alone(Vec<Statement>),
    /// As often for every thread.
    Repeat(usize, Vec<Part>),
    /// Only in some warps of the block: those whose number has this lowest bit. No barriers inside.
    Warps(u32, Vec<Part>),
    Shuffle {
        d: usize,
        a: usize,
        xor: u32,
    },
    Index {
        d: usize,
        a: usize,
        lane: usize,
    },
    Ballot {
        d: usize,
        p: usize,
        not: bool,
    },
    All {
        p: usize,
        q: usize,
    },
    /// Writes a word of shared memory, waits, reads that of the thread `distance` further.
    Exchange {
        d: usize,
        a: usize,
        distance: u32,
    },
    /// `bar.red.popc`: how many threads of the block
    Count {
        d: usize,
        p: usize,
    },
}

struct Generated {
    functions: Vec<Vec<Statement>>,
    kernel: Vec<Part>,
    threads: u32,
    blocks: u32,
}

/// Where a statement stands.
#[derive(Clone, Copy)]
struct Scope {
    depth: usize,
    in_loop: bool,
    in_function: bool,
    exits: bool,
}

impl Random {
    fn narrow(&mut self, depth: usize) -> Narrow {
        let deeper = |r: &mut Random| Box::new(r.narrow(depth - 1));
        match self.below(if depth == 0 { 5 } else { 12 }) {
            0..=2 => Narrow::Variable(self.below(NARROW)),
            3 => {
                let small = self.below(9) as u32;
                Narrow::Constant(if self.one_in(3) { self.next() as u32 } else { small })
            }
            4 => {
                if self.one_in(3) {
                    Narrow::Depth
                } else {
                    Narrow::Thread
                }
            }
            5..=7 => Narrow::Binary(self.of(&BINARY), deeper(self), deeper(self)),
            8 => Narrow::Select(self.truth(depth - 1), deeper(self), deeper(self)),
            9 => Narrow::Input(deeper(self)),
            10 => Narrow::Array(deeper(self)),
            _ => Narrow::Half(self.one_in(2), self.wide(depth - 1)),
        }
    }

    fn wide(&mut self, depth: usize) -> Wide {
        let deeper = |r: &mut Random| Box::new(r.wide(depth - 1));
        match self.below(if depth == 0 { 4 } else { 8 }) {
            0..=2 => Wide::Variable(self.below(WIDE)),
            3 => Wide::Constant(self.next() >> self.below(60)),
            4..=5 => Wide::Binary(self.of(&BINARY), deeper(self), deeper(self)),
            6 if self.one_in(2) => Wide::Signed(Box::new(self.narrow(depth - 1))),
            6 => Wide::Pack(Box::new(self.narrow(depth - 1)), Box::new(self.narrow(depth - 1))),
            _ => Wide::Select(Box::new(self.truth(depth - 1)), deeper(self), deeper(self)),
        }
    }

    fn truth(&mut self, depth: usize) -> Truth {
        const RELATIONS: [&str; 8] = ["eq.u", "ne.u", "lt.u", "le.u", "gt.u", "ge.u", "lt.s", "ge.s"];
        let deeper = |r: &mut Random| Box::new(r.truth(depth - 1));
        match self.below(if depth == 0 { 3 } else { 7 }) {
            0 => Truth::Variable(self.below(TRUTHS)),
            1..=3 => {
                let d = depth.saturating_sub(1);
                Truth::Narrow(self.of(&RELATIONS), Box::new(self.narrow(d)), Box::new(self.narrow(d)))
            }
            4 => Truth::Wide(self.of(&RELATIONS), Box::new(self.wide(depth - 1)), Box::new(self.wide(depth - 1))),
            5 => Truth::Not(deeper(self)),
            _ => Truth::Both(self.of(&["and", "or", "xor"]), deeper(self), deeper(self)),
        }
    }

    fn statements(&mut self, scope: Scope) -> Vec<Statement> {
        (0..1 + self.below(5)).map(|_| self.statement(scope)).collect()
    }

    fn statement(&mut self, scope: Scope) -> Statement {
        let inner = Scope { depth: scope.depth.saturating_sub(1), ..scope };
        let (p, not) = (self.below(TRUTHS), self.one_in(2));
        let (a, b) = (self.below(NARROW), self.below(NARROW));
        loop {
            return match self.below(if scope.depth == 0 { 13 } else { 22 }) {
                0..=3 => Statement::Narrow(self.below(NARROW), self.narrow(3)),
                4 | 5 => Statement::Wide(self.below(WIDE), self.wide(3)),
                6 => Statement::Truth(self.below(TRUTHS), self.truth(3)),
                7 => Statement::Guarded { p, not, op: self.of(&BINARY), d: self.below(NARROW), a, b },
                8 => Statement::GuardedWide { p, not, d: self.below(WIDE), a: self.below(WIDE) },
                9 => Statement::GuardedTruth { p, not, q: self.below(TRUTHS), a, b },
                10 => Statement::Store(self.narrow(1), self.narrow(2)),
                11 if scope.in_loop && self.one_in(2) => Statement::Break(self.truth(1)),
                11 if scope.in_loop => Statement::Continue(self.truth(1)),
                12 if scope.in_function && self.one_in(2) => Statement::Return(self.truth(1), self.narrow(1)),
                12 if scope.exits && self.one_in(3) => {
                    Statement::Exit(self.truth(1), self.below(SLOTS), self.narrow(2))
                }
                13..=15 => {
                    let otherwise = if self.one_in(3) { Vec::new() } else { self.statements(inner) };
                    Statement::If(self.truth(2), self.statements(inner), otherwise)
                }
                16 | 17 => Statement::Loop {
                    times: self.narrow(2),
                    switched: self.one_in(3),
                    body: self.statements(Scope { in_loop: true, ..inner }),
                },
                18 | 19 => {
                    let arms = (0..2 + self.below(3)).map(|_| (self.statements(inner), self.one_in(3))).collect();
                    Statement::Switch(self.narrow(2), arms)
                }
                20 | 21 => {
                    let other = self.one_in(2).then(|| (self.truth(1), self.below(FUNCTIONS)));
                    let (function, narrow, wide) = (self.below(FUNCTIONS), self.narrow(2), self.wide(2));
                    Statement::Call { function, other, narrow, wide, d: a }
                }
                _ => continue,
            };
        }
    }

    fn parts(&mut self, depth: usize, threads: u32, block: bool) -> Vec<Part> {
        // a warp with fewer than 32 lanes has no member mask of all ones
        let whole = threads.is_multiple_of(32);
        let mut parts = Vec::new();
        for _ in 0..2 + self.below(3) {
            let scope = Scope { depth: 3, in_loop: false, in_function: false, exits: false };
            parts.push(Part::Alone(self.statements(scope)));
            let (d, a) = (self.below(NARROW), self.below(NARROW));
            let (p, q) = (self.below(TRUTHS), self.below(TRUTHS));
            parts.push(match self.below(8) {
                0 if whole => Part::Shuffle { d, a, xor: self.below(32) as u32 },
                1 if whole => Part::Index { d, a, lane: self.below(NARROW) },
                2 if whole => Part::Ballot { d, p, not: self.one_in(2) },
                3 if whole => Part::All { p, q },
                4 if block => Part::Exchange { d, a, distance: self.below(threads as usize) as u32 },
                5 if block => Part::Count { d, p },
                6 if depth > 0 => Part::Repeat(1 + self.below(3), self.parts(depth - 1, threads, block)),
                7 if depth > 0 => Part::Warps(self.below(2) as u32, self.parts(depth - 1, threads, false)),
                _ => continue,
            });
        }
        parts
    }

    fn program(&mut self) -> Generated {
        let threads = self.of(&[32, 64, 96, 64, 128, 40, 77]);
        let exits = self.one_in(2);
        // A thread that has left takes no part in what comes after: only the last part has any, and functions of programs
        // that have nothing but it.
        let alone = exits && self.one_in(2);
        let within = Scope { depth: 2, in_loop: false, in_function: true, exits: alone };
        let functions = (0..FUNCTIONS).map(|_| self.statements(within)).collect();
        let mut kernel = if alone { Vec::new() } else { self.parts(1, threads, true) };
        kernel.push(Part::Alone(self.statements(Scope { depth: 4, in_loop: false, in_function: false, exits })));
        Generated { functions, kernel, threads, blocks: 1 + self.below(3) as u32 }
    }
}

// ---- the program as PTX ----

struct Writer {
    text: String,
    registers: [usize; 3],
    labels: usize,
    /// The labels of `continue` and `break`.
    loops: Vec<(String, String)>,
    in_function: bool,
}

macro_rules! line { ($w:expr, $($t:tt)*) => { writeln!($w.text, $($t)*).unwrap() } }

impl Writer {
    fn new(in_function: bool) -> Writer {
        Writer { text: String::new(), registers: [0; 3], labels: 0, loops: Vec::new(), in_function }
    }
    fn fresh(&mut self, kind: usize) -> String {
        self.registers[kind] += 1;
        format!("%{}{}", ["t", "u", "q"][kind], self.registers[kind] - 1)
    }
    fn label(&mut self) -> String {
        self.labels += 1;
        format!("$L{}", self.labels)
    }

    fn narrow(&mut self, value: &Narrow) -> String {
        match value {
            Narrow::Variable(v) => format!("%r{v}"),
            Narrow::Constant(c) => format!("{c}"),
            Narrow::Thread => "%tid.x".into(),
            Narrow::Depth => "%n".into(),
            Narrow::Binary(op, a, b) => {
                let (a, b, d) = (self.narrow(a), self.narrow(b), self.fresh(0));
                line!(self, "{} {d}, {a}, {b};", op.name(32));
                d
            }
            Narrow::Select(p, a, b) => {
                let (p, a, b, d) = (self.truth(p), self.narrow(a), self.narrow(b), self.fresh(0));
                line!(self, "selp.b32 {d}, {a}, {b}, {p};");
                d
            }
            Narrow::Input(at) => {
                let (at, i, u, d) = (self.narrow(at), self.fresh(0), self.fresh(1), self.fresh(0));
                line!(self, "and.b32 {i}, {at}, {};", INPUT - 1);
                line!(self, "mad.wide.u32 {u}, {i}, 4, %in;");
                line!(self, "ld.global.u32 {d}, [{u}];");
                d
            }
            Narrow::Array(at) => {
                let (u, d) = (self.element(at), self.fresh(0));
                line!(self, "ld.local.u32 {d}, [{u}];");
                d
            }
            Narrow::Half(high, wide) => {
                let (w, a, b) = (self.wide(wide), self.fresh(0), self.fresh(0));
                line!(self, "mov.b64 {{{a}, {b}}}, {w};");
                if *high { b } else { a }
            }
        }
    }

    fn element(&mut self, at: &Narrow) -> String {
        let (at, i, base, u) = (self.narrow(at), self.fresh(0), self.fresh(1), self.fresh(1));
        line!(self, "and.b32 {i}, {at}, {};", ARRAY - 1);
        line!(self, "mov.u64 {base}, array;");
        line!(self, "mad.wide.u32 {u}, {i}, 4, {base};");
        u
    }

    fn wide(&mut self, value: &Wide) -> String {
        match value {
            Wide::Variable(v) => format!("%d{v}"),
            // a register, since some instructions take no constant
            Wide::Constant(c) => {
                let d = self.fresh(1);
                line!(self, "mov.u64 {d}, {c};");
                d
            }
            Wide::Binary(op, a, b) => {
                let (a, mut b, d) = (self.wide(a), self.wide(b), self.fresh(1));
                if op.shifts() {
                    let amount = self.fresh(0);
                    line!(self, "cvt.u32.u64 {amount}, {b};");
                    b = amount;
                }
                line!(self, "{} {d}, {a}, {b};", op.name(64));
                d
            }
            Wide::Signed(a) => {
                let (a, r, d) = (self.narrow(a), self.fresh(0), self.fresh(1));
                line!(self, "mov.u32 {r}, {a};");
                line!(self, "cvt.s64.s32 {d}, {r};");
                d
            }
            Wide::Pack(a, b) => {
                let (a, b, r, s, d) = (self.narrow(a), self.narrow(b), self.fresh(0), self.fresh(0), self.fresh(1));
                line!(self, "mov.u32 {r}, {a};");
                line!(self, "mov.u32 {s}, {b};");
                line!(self, "mov.b64 {d}, {{{r}, {s}}};");
                d
            }
            Wide::Select(p, a, b) => {
                let (p, a, b, d) = (self.truth(p), self.wide(a), self.wide(b), self.fresh(1));
                line!(self, "selp.b64 {d}, {a}, {b}, {p};");
                d
            }
        }
    }

    fn truth(&mut self, value: &Truth) -> String {
        match value {
            Truth::Variable(v) => format!("%p{v}"),
            Truth::Narrow(relation, a, b) => {
                let (a, b, p) = (self.narrow(a), self.narrow(b), self.fresh(2));
                line!(self, "setp.{relation}32 {p}, {a}, {b};");
                p
            }
            Truth::Wide(relation, a, b) => {
                let (a, b, p) = (self.wide(a), self.wide(b), self.fresh(2));
                line!(self, "setp.{relation}64 {p}, {a}, {b};");
                p
            }
            Truth::Not(a) => {
                let (a, p) = (self.truth(a), self.fresh(2));
                line!(self, "not.pred {p}, {a};");
                p
            }
            Truth::Both(op, a, b) => {
                let (a, b, p) = (self.truth(a), self.truth(b), self.fresh(2));
                line!(self, "{op}.pred {p}, {a}, {b};");
                p
            }
        }
    }

    fn statements(&mut self, all: &[Statement]) {
        all.iter().for_each(|s| self.statement(s));
    }

    fn statement(&mut self, statement: &Statement) {
        let sign = |not: bool| if not { "!" } else { "" };
        match statement {
            Statement::Narrow(d, a) => {
                let a = self.narrow(a);
                line!(self, "mov.b32 %r{d}, {a};");
            }
            Statement::Wide(d, a) => {
                let a = self.wide(a);
                line!(self, "mov.b64 %d{d}, {a};");
            }
            Statement::Truth(d, a) => {
                let a = self.truth(a);
                line!(self, "mov.pred %p{d}, {a};");
            }
            Statement::Guarded { p, not, op, d, a, b } => {
                line!(self, "@{}%p{p} {} %r{d}, %r{a}, %r{b};", sign(*not), op.name(32));
            }
            Statement::GuardedWide { p, not, d, a } => line!(self, "@{}%p{p} mov.b64 %d{d}, %d{a};", sign(*not)),
            Statement::GuardedTruth { p, not, q, a, b } => {
                line!(self, "@{}%p{p} setp.lt.u32 %p{q}, %r{a}, %r{b};", sign(*not));
            }
            Statement::Store(at, a) => {
                let (a, u) = (self.narrow(a), self.element(at));
                line!(self, "st.local.u32 [{u}], {a};");
            }
            Statement::If(p, then, otherwise) => {
                let (p, other, end) = (self.truth(p), self.label(), self.label());
                line!(self, "@!{p} bra {other};");
                self.statements(then);
                if !otherwise.is_empty() {
                    line!(self, "bra {end};");
                }
                line!(self, "{other}:");
                self.statements(otherwise);
                line!(self, "{end}:");
            }
            Statement::Loop { times, switched, body } => {
                let (times, left, p) = (self.narrow(times), self.fresh(0), self.fresh(2));
                let (head, next, end) = (self.label(), self.label(), self.label());
                line!(self, "and.b32 {left}, {times}, 7;");
                line!(self, "setp.eq.u32 {p}, {left}, 0;");
                line!(self, "@{p} bra {end};");
                line!(self, "{head}:");
                self.loops.push((next.clone(), end.clone()));
                self.statements(body);
                self.loops.pop();
                line!(self, "{next}:");
                line!(self, "sub.u32 {left}, {left}, 1;");
                line!(self, "setp.ne.u32 {p}, {left}, 0;");
                if *switched {
                    let (index, list) = (self.fresh(0), self.label());
                    line!(self, "selp.u32 {index}, 1, 0, {p};");
                    line!(self, "{list}: .branchtargets {end}, {head};");
                    line!(self, "brx.idx {index}, {list};");
                } else {
                    line!(self, "@{p} bra {head};");
                }
                line!(self, "{end}:");
            }
            Statement::Break(p) | Statement::Continue(p) => {
                let p = self.truth(p);
                let (next, end) = self.loops.last().cloned().expect("in a loop");
                let target = if matches!(statement, Statement::Break(_)) { end } else { next };
                line!(self, "@{p} bra {target};");
            }
            Statement::Switch(index, arms) => {
                let (index, reduced, list, end) = (self.narrow(index), self.fresh(0), self.label(), self.label());
                let labels: Vec<String> = arms.iter().map(|_| self.label()).collect();
                line!(self, "rem.u32 {reduced}, {index}, {};", arms.len());
                line!(self, "{list}: .branchtargets {};", labels.join(", "));
                line!(self, "brx.idx {reduced}, {list};");
                for ((body, through), label) in arms.iter().zip(&labels) {
                    line!(self, "{label}:");
                    self.statements(body);
                    if !through {
                        line!(self, "bra {end};");
                    }
                }
                line!(self, "{end}:");
            }
            Statement::Call { function, other, narrow, wide, d } => {
                let (narrow, wide) = (self.narrow(narrow), self.wide(wide));
                let choice = other.as_ref().map(|(p, f)| (self.truth(p), *f));
                let (p, depth, end) = (self.fresh(2), self.fresh(0), self.label());
                // the kernel may call three deep
                if self.in_function {
                    line!(self, "setp.eq.u32 {p}, %n, 0;");
                    line!(self, "@{p} bra {end};");
                    line!(self, "sub.u32 {depth}, %n, 1;");
                } else {
                    line!(self, "mov.u32 {depth}, 2;");
                }
                line!(self, "{{ .param .b32 a; .param .b32 b; .param .b64 c; .param .b32 result;");
                line!(self, "st.param.b32 [a], {depth};");
                line!(self, "st.param.b32 [b], {narrow};");
                line!(self, "st.param.b64 [c], {wide};");
                match choice {
                    None => line!(self, "call (result), f{function}, (a, b, c);"),
                    Some((choice, other)) => {
                        let (to, x, y, prototype) = (self.fresh(1), self.fresh(1), self.fresh(1), self.label());
                        line!(self, "mov.u64 {x}, f{function};");
                        line!(self, "mov.u64 {y}, f{other};");
                        line!(self, "selp.b64 {to}, {x}, {y}, {choice};");
                        line!(
                            self,
                            "{prototype}: .callprototype (.param .b32 _) _ (.param .b32 _, .param .b32 _, .param .b64 _);"
                        );
                        line!(self, "call (result), {to}, (a, b, c), {prototype};");
                    }
                }
                line!(self, "ld.param.b32 %r{d}, [result]; }}");
                line!(self, "{end}:");
            }
            Statement::Return(p, value) => {
                let (p, value, end) = (self.truth(p), self.narrow(value), self.label());
                line!(self, "@!{p} bra {end};");
                line!(self, "st.param.b32 [result], {value};");
                line!(self, "ret;");
                line!(self, "{end}:");
            }
            Statement::Exit(p, slot, value) => {
                let (p, value) = (self.truth(p), self.narrow(value));
                line!(self, "@{p} st.global.u32 [%out+{}], {value};", 4 * slot);
                line!(self, "@{p} exit;");
            }
        }
    }

    fn parts(&mut self, parts: &[Part], threads: u32) {
        for part in parts {
            match part {
                Part::Alone(all) => self.statements(all),
                Part::Repeat(times, inner) => {
                    let (left, p, head) = (self.fresh(0), self.fresh(2), self.label());
                    line!(self, "mov.u32 {left}, {times};");
                    line!(self, "{head}:");
                    self.parts(inner, threads);
                    line!(self, "sub.u32 {left}, {left}, 1;");
                    line!(self, "setp.ne.u32 {p}, {left}, 0;");
                    line!(self, "@{p} bra {head};");
                }
                Part::Warps(bit, inner) => {
                    let (a, b, p, end) = (self.fresh(0), self.fresh(0), self.fresh(2), self.label());
                    line!(self, "shr.u32 {a}, %tid.x, 5;");
                    line!(self, "and.b32 {b}, {a}, 1;");
                    line!(self, "setp.ne.u32 {p}, {b}, {bit};");
                    line!(self, "@{p} bra {end};");
                    self.parts(inner, threads);
                    line!(self, "{end}:");
                }
                Part::Shuffle { d, a, xor } => line!(self, "shfl.sync.bfly.b32 %r{d}, %r{a}, {xor}, 31, 0xffffffff;"),
                Part::Index { d, a, lane } => {
                    let l = self.fresh(0);
                    line!(self, "and.b32 {l}, %r{lane}, 31;");
                    line!(self, "shfl.sync.idx.b32 %r{d}, %r{a}, {l}, 31, 0xffffffff;");
                }
                Part::Ballot { d, p, not } => {
                    let not = if *not { "!" } else { "" };
                    line!(self, "vote.sync.ballot.b32 %r{d}, {not}%p{p}, 0xffffffff;");
                }
                Part::All { p, q } => line!(self, "vote.sync.all.pred %p{p}, %p{q}, 0xffffffff;"),
                Part::Exchange { d, a, distance } => {
                    let (base, t, u, v) = (self.fresh(0), self.fresh(0), self.fresh(0), self.fresh(0));
                    line!(self, "mov.u32 {base}, words;");
                    line!(self, "mad.lo.u32 {t}, %tid.x, 4, {base};");
                    line!(self, "st.shared.u32 [{t}], %r{a};");
                    line!(self, "bar.sync 0;");
                    line!(self, "add.u32 {u}, %tid.x, {distance};");
                    line!(self, "rem.u32 {u}, {u}, {threads};");
                    line!(self, "mad.lo.u32 {v}, {u}, 4, {base};");
                    line!(self, "ld.shared.u32 %r{d}, [{v}];");
                    line!(self, "bar.sync 0;");
                }
                Part::Count { d, p } => line!(self, "bar.red.popc.u32 %r{d}, 0, %p{p};"),
            }
        }
    }

    /// A function around the statements: its variables, what they start as, and what is left of them.
    fn finish(self, parameters: &str, end: &str) -> String {
        let [t, u, q] = self.registers.map(|n| n.max(1));
        let mut text = format!(
            "{{\n.local .align 4 .b8 array[{}];\n.reg .b32 %r<{NARROW}>;\n.reg .b64 %d<{WIDE}>;\n\
             .reg .pred %p<{TRUTHS}>;\n.reg .b32 %n, %x, %id, %bit;\n.reg .b64 %y, %in, %out;\n\
             .reg .b32 %t<{t}>;\n.reg .b64 %u<{u}>;\n.reg .pred %q<{q}>;\n\
             mov.u32 %x, %ctaid.x;\nmov.u32 %n, %ntid.x;\nmov.u32 %id, %tid.x;\nmad.lo.u32 %id, %x, %n, %id;\n\
             mov.u64 %in, input;\nmov.u64 %out, output;\nmad.wide.u32 %out, %id, {}, %out;\n{parameters}",
            4 * ARRAY,
            4 * SLOTS
        );
        for i in 0..NARROW {
            writeln!(text, "mad.lo.u32 %r{i}, %x, {}, {i};", 2 * i + 1).unwrap();
        }
        for i in 0..WIDE {
            writeln!(text, "add.u64 %d{i}, %y, {};", i * 77).unwrap();
        }
        for i in 0..TRUTHS {
            writeln!(text, "shr.u32 %bit, %x, {i};\nand.b32 %bit, %bit, 1;\nsetp.ne.u32 %p{i}, %bit, 0;").unwrap();
        }
        for i in 0..ARRAY {
            writeln!(text, "st.local.u32 [array+{}], {};", 4 * i, 3 * i).unwrap();
        }
        text + &self.text + end + "}\n"
    }
}

fn ptx(program: &Generated, input: &[u32]) -> String {
    let words: Vec<String> = input.iter().map(u32::to_string).collect();
    let count = SLOTS * (program.threads * program.blocks) as usize;
    let mut text = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.global .align 4 .b32 input[{INPUT}] = {{{}}};\n\
         .global .align 8 .b32 output[{count}];\n.shared .align 4 .b32 words[{}];\n",
        words.join(", "),
        program.threads
    );
    let head =
        |f: usize| format!(".func (.param .b32 result) f{f}(.param .b32 depth, .param .b32 narrow, .param .b64 wide)");
    (0..FUNCTIONS).for_each(|f| writeln!(text, "{};", head(f)).unwrap());
    for (f, body) in program.functions.iter().enumerate() {
        let mut writer = Writer::new(true);
        writer.statements(body);
        let parameters = "ld.param.b32 %n, [depth];\nld.param.b32 %x, [narrow];\nld.param.b64 %y, [wide];\n";
        // what comes back depends on every kind of register
        let end = "cvt.u32.u64 %bit, %d1;\nxor.b32 %bit, %bit, %r1;\nselp.u32 %x, %r2, %r3, %p1;\n\
                   add.u32 %bit, %bit, %x;\nst.param.b32 [result], %bit;\nret;\n";
        writeln!(text, "{}\n{}", head(f), writer.finish(parameters, end)).unwrap();
    }
    let mut writer = Writer::new(false);
    writer.parts(&program.kernel, program.threads);
    let mut end = String::new();
    for i in 0..NARROW {
        writeln!(end, "st.global.u32 [%out+{}], %r{i};", 4 * i).unwrap();
    }
    for i in 0..WIDE {
        writeln!(end, "st.global.u64 [%out+{}], %d{i};", 4 * (NARROW + 2 * i)).unwrap();
    }
    for i in 0..TRUTHS {
        let slot = NARROW + 2 * WIDE + i;
        writeln!(end, "selp.u32 %bit, 1, 0, %p{i};\nst.global.u32 [%out+{}], %bit;", 4 * slot).unwrap();
    }
    for i in 0..ARRAY as usize {
        let slot = NARROW + 2 * WIDE + TRUTHS + i;
        writeln!(end, "ld.local.u32 %bit, [array+{}];\nst.global.u32 [%out+{}], %bit;", 4 * i, 4 * slot).unwrap();
    }
    let parameters = "mov.u32 %n, %x;\nmov.u32 %x, %id;\nmul.wide.u32 %y, %id, 0x9e3779b1;\n";
    text + ".entry kernel()\n" + &writer.finish(parameters, &end)
}

// ---- the program, thread by thread ----

#[derive(Clone)]
struct Frame {
    narrow: [u32; NARROW],
    wide: [u64; WIDE],
    truth: [bool; TRUTHS],
    array: [u32; ARRAY as usize],
    depth: u32,
}

impl Frame {
    fn new(depth: u32, x: u32, y: u64) -> Frame {
        Frame {
            narrow: std::array::from_fn(|i| x.wrapping_mul(2 * i as u32 + 1).wrapping_add(i as u32)),
            wide: std::array::from_fn(|i| y.wrapping_add(i as u64 * 77)),
            truth: std::array::from_fn(|i| x >> i & 1 != 0),
            array: std::array::from_fn(|i| 3 * i as u32),
            depth,
        }
    }
}

/// Where a thread goes behind a statement.
enum Flow {
    Next,
    Break,
    Continue,
    Return(u32),
    Exit,
}

/// The program does too much.
struct Long;

struct Thread<'p> {
    program: &'p Generated,
    input: &'p [u32],
    number: u32,
    fuel: u32,
    in_function: bool,
    output: [u32; SLOTS],
}

impl Thread<'_> {
    fn narrow(&self, f: &Frame, value: &Narrow) -> u32 {
        match value {
            Narrow::Variable(v) => f.narrow[*v],
            Narrow::Constant(c) => *c,
            Narrow::Thread => self.number,
            Narrow::Depth => f.depth,
            Narrow::Binary(op, a, b) => op.narrow(self.narrow(f, a), self.narrow(f, b)),
            Narrow::Select(p, a, b) => self.narrow(f, if self.truth(f, p) { a } else { b }),
            Narrow::Input(at) => self.input[(self.narrow(f, at) % INPUT) as usize],
            Narrow::Array(at) => f.array[(self.narrow(f, at) % ARRAY) as usize],
            Narrow::Half(high, wide) => (self.wide(f, wide) >> if *high { 32 } else { 0 }) as u32,
        }
    }

    fn wide(&self, f: &Frame, value: &Wide) -> u64 {
        match value {
            Wide::Variable(v) => f.wide[*v],
            Wide::Constant(c) => *c,
            Wide::Binary(op, a, b) => op.wide(self.wide(f, a), self.wide(f, b)),
            Wide::Signed(a) => self.narrow(f, a) as i32 as i64 as u64,
            Wide::Pack(a, b) => self.narrow(f, a) as u64 | (self.narrow(f, b) as u64) << 32,
            Wide::Select(p, a, b) => self.wide(f, if self.truth(f, p) { a } else { b }),
        }
    }

    fn truth(&self, f: &Frame, value: &Truth) -> bool {
        fn holds<T: Ord>(relation: &str, a: T, b: T) -> bool {
            match &relation[..2] {
                "eq" => a == b,
                "ne" => a != b,
                "lt" => a < b,
                "le" => a <= b,
                "gt" => a > b,
                _ => a >= b,
            }
        }
        match value {
            Truth::Variable(v) => f.truth[*v],
            Truth::Narrow(relation, a, b) => {
                let (a, b) = (self.narrow(f, a), self.narrow(f, b));
                if relation.ends_with('s') { holds(relation, a as i32, b as i32) } else { holds(relation, a, b) }
            }
            Truth::Wide(relation, a, b) => {
                let (a, b) = (self.wide(f, a), self.wide(f, b));
                if relation.ends_with('s') { holds(relation, a as i64, b as i64) } else { holds(relation, a, b) }
            }
            Truth::Not(a) => !self.truth(f, a),
            Truth::Both("and", a, b) => self.truth(f, a) & self.truth(f, b),
            Truth::Both("or", a, b) => self.truth(f, a) | self.truth(f, b),
            Truth::Both(_, a, b) => self.truth(f, a) ^ self.truth(f, b),
        }
    }

    fn statements(&mut self, f: &mut Frame, all: &[Statement]) -> Result<Flow, Long> {
        for s in all {
            match self.statement(f, s)? {
                Flow::Next => {}
                other => return Ok(other),
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, f: &mut Frame, statement: &Statement) -> Result<Flow, Long> {
        self.fuel = self.fuel.checked_sub(1).ok_or(Long)?;
        match statement {
            Statement::Narrow(d, a) => f.narrow[*d] = self.narrow(f, a),
            Statement::Wide(d, a) => f.wide[*d] = self.wide(f, a),
            Statement::Truth(d, a) => f.truth[*d] = self.truth(f, a),
            Statement::Guarded { p, not, op, d, a, b } if f.truth[*p] != *not => {
                f.narrow[*d] = op.narrow(f.narrow[*a], f.narrow[*b]);
            }
            Statement::GuardedWide { p, not, d, a } if f.truth[*p] != *not => f.wide[*d] = f.wide[*a],
            Statement::GuardedTruth { p, not, q, a, b } if f.truth[*p] != *not => {
                f.truth[*q] = f.narrow[*a] < f.narrow[*b];
            }
            Statement::Guarded { .. } | Statement::GuardedWide { .. } | Statement::GuardedTruth { .. } => {}
            Statement::Store(at, a) => f.array[(self.narrow(f, at) % ARRAY) as usize] = self.narrow(f, a),
            Statement::If(p, then, otherwise) => {
                let body = if self.truth(f, p) { then } else { otherwise };
                return self.statements(f, body);
            }
            Statement::Loop { times, body, .. } => {
                for _ in 0..self.narrow(f, times) & 7 {
                    match self.statements(f, body)? {
                        Flow::Next | Flow::Continue => {}
                        Flow::Break => break,
                        other => return Ok(other),
                    }
                }
            }
            Statement::Break(p) if self.truth(f, p) => return Ok(Flow::Break),
            Statement::Continue(p) if self.truth(f, p) => return Ok(Flow::Continue),
            Statement::Break(_) | Statement::Continue(_) => {}
            Statement::Switch(index, arms) => {
                let first = self.narrow(f, index) as usize % arms.len();
                for (body, through) in &arms[first..] {
                    match self.statements(f, body)? {
                        Flow::Next if *through => {}
                        other => return Ok(other),
                    }
                }
            }
            Statement::Call { function, other, narrow, wide, d } => {
                if self.in_function && f.depth == 0 {
                    return Ok(Flow::Next);
                }
                let depth = if self.in_function { f.depth - 1 } else { 2 };
                let mut inner = Frame::new(depth, self.narrow(f, narrow), self.wide(f, wide));
                let callee = match other {
                    Some((p, other)) if !self.truth(f, p) => *other,
                    _ => *function,
                };
                let outside = std::mem::replace(&mut self.in_function, true);
                let program = self.program;
                let flow = self.statements(&mut inner, &program.functions[callee])?;
                self.in_function = outside;
                f.narrow[*d] = match flow {
                    Flow::Return(value) => value,
                    Flow::Exit => return Ok(Flow::Exit),
                    _ => (inner.wide[1] as u32 ^ inner.narrow[1])
                        .wrapping_add(inner.narrow[if inner.truth[1] { 2 } else { 3 }]),
                };
            }
            Statement::Return(p, value) if self.truth(f, p) => return Ok(Flow::Return(self.narrow(f, value))),
            Statement::Exit(p, slot, value) if self.truth(f, p) => {
                self.output[*slot] = self.narrow(f, value);
                return Ok(Flow::Exit);
            }
            Statement::Return(..) | Statement::Exit(..) => {}
        }
        Ok(Flow::Next)
    }
}

/// A thread, its variables, and whether it is still there.
type Running<'p> = (Thread<'p>, Frame, bool);

/// One block, part by part.
fn parts(all: &mut [&mut Running<'_>], parts: &[Part]) -> Result<(), Long> {
    for part in parts {
        match part {
            Part::Alone(statements) => {
                for (thread, frame, here) in all.iter_mut().map(|r| &mut **r).filter(|r| r.2) {
                    *here = !matches!(thread.statements(frame, statements)?, Flow::Exit);
                }
            }
            Part::Repeat(times, inner) => (0..*times).try_for_each(|_| self::parts(all, inner))?,
            Part::Warps(bit, inner) => {
                let some = all.iter_mut().map(|r| &mut **r).filter(|r| r.0.number >> 5 & 1 == *bit);
                self::parts(&mut some.collect::<Vec<_>>(), inner)?;
            }
            Part::Exchange { d, a, distance } => {
                let words: Vec<u32> = all.iter().map(|r| r.1.narrow[*a]).collect();
                let n = words.len();
                (0..n).for_each(|i| all[i].1.narrow[*d] = words[(i + *distance as usize) % n]);
            }
            Part::Count { d, p } => {
                let count = all.iter().filter(|r| r.1.truth[*p]).count() as u32;
                all.iter_mut().for_each(|r| r.1.narrow[*d] = count);
            }
            _ => {
                for warp in all.chunks_mut(32) {
                    let before: Vec<Frame> = warp.iter().map(|r| r.1.clone()).collect();
                    for (lane, r) in warp.iter_mut().enumerate() {
                        let f = &mut r.1;
                        match part {
                            Part::Shuffle { d, a, xor } => f.narrow[*d] = before[lane ^ *xor as usize].narrow[*a],
                            Part::Index { d, a, lane: l } => {
                                f.narrow[*d] = before[before[lane].narrow[*l] as usize % 32].narrow[*a];
                            }
                            Part::Ballot { d, p, not } => {
                                let bits = before.iter().rev().fold(0, |m, f| m << 1 | (f.truth[*p] != *not) as u32);
                                f.narrow[*d] = bits;
                            }
                            Part::All { p, q } => f.truth[*p] = before.iter().all(|f| f.truth[*q]),
                            _ => unreachable!("the parts of a block are above"),
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// What the program leaves in memory; nothing if it takes too long.
fn expected(program: &Generated, input: &[u32]) -> Option<Vec<u32>> {
    let mut output = Vec::new();
    for block in 0..program.blocks {
        let mut threads: Vec<Running<'_>> = (0..program.threads)
            .map(|number| {
                let id = block * program.threads + number;
                let thread = Thread { program, input, number, fuel: FUEL, in_function: false, output: [0; SLOTS] };
                (thread, Frame::new(block, id, id as u64 * 0x9e37_79b1), true)
            })
            .collect();
        parts(&mut threads.iter_mut().collect::<Vec<_>>(), &program.kernel).ok()?;
        for (thread, f, here) in &mut threads {
            if *here {
                let wide = f.wide.iter().flat_map(|w| [*w as u32, (*w >> 32) as u32]);
                let truths = f.truth.iter().map(|&t| t as u32);
                let all = f.narrow.iter().copied().chain(wide).chain(truths).chain(f.array);
                thread.output.iter_mut().zip(all).for_each(|(to, from)| *to = from);
            }
            output.extend(thread.output);
        }
    }
    Some(output)
}

/// Runs the program on the simulated device.
fn simulated(text: &str, program: &Generated, strict: bool, threads: usize) -> Result<Vec<u32>, String> {
    let module = cuda::ptx::parse(text).map_err(|e| format!("parsing: {e}"))?;
    let memory = Memory::new(strict);
    let loaded = Program::load(&module, 80, 0, &memory).map_err(|e| format!("loading: {e}"))?;
    let outcome = launch(&Launch {
        program: &loaded,
        entry: 0,
        grid: [program.blocks, 1, 1],
        block: [program.threads, 1, 1],
        dynamic_shared: 0,
        params: &[],
        cooperative: false,
        memory: &memory,
        device: 0,
        peers: 1,
        options: Options { strict, threads, budget: 1 << 32, multiprocessors: 108, sm: 80 },
    });
    if let Some(finding) = outcome.finding {
        return Err(finding.to_string());
    }
    let output = loaded.variables.iter().find(|v| v.name == "output").ok_or("no output")?;
    let mut bytes = vec![0; output.bytes];
    memory.read(output.address, &mut bytes).map_err(|f| f.to_string())?;
    Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

#[test]
fn warps_compute_what_their_threads_compute_one_by_one() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a number"));
    let (count, seed) = (number("RANDOM_PROGRAMS").unwrap_or(300), number("RANDOM_SEED").unwrap_or(0));
    let (mut ran, mut long) = (0, 0);
    for i in 0..count {
        let mut random = Random(seed.wrapping_mul(1 << 32).wrapping_add(i));
        let program = random.program();
        let input: Vec<u32> = (0..INPUT).map(|_| (random.next() >> random.below(50)) as u32).collect();
        let Some(expected) = expected(&program, &input) else {
            long += 1;
            continue;
        };
        let text = ptx(&program, &input);
        for (strict, threads) in [(true, 1), (true, 3), (false, 3)] {
            let modes = format!("RANDOM_SEED={seed}, program {i}, strict: {strict}, {threads} host threads");
            match simulated(&text, &program, strict, threads) {
                Err(why) => panic!("{modes}: {why}\n{text}"),
                Ok(found) => {
                    let wrong = found.iter().zip(&expected).position(|(a, b)| a != b);
                    if let Some(at) = wrong {
                        let (thread, slot, differ) =
                            (at / SLOTS, at % SLOTS, found.iter().zip(&expected).filter(|(a, b)| a != b).count());
                        panic!(
                            "{modes}: thread {thread} slot {slot} is {:#x}, not {:#x}; {differ} words differ\n{text}",
                            found[at], expected[at]
                        );
                    }
                    assert_eq!(found.len(), expected.len());
                }
            }
        }
        ran += 1;
    }
    // else the test would test nothing
    assert!(ran * 2 > count, "{ran} of {count} programs ran, {long} took too long");
}
