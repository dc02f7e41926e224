//! shfl, vote, match, redux, activemask, elect (PTX ISA 9.7.9 and 9.7.13).
//!
//! Lanes that take part are those of the executing mask, and in a `.sync` form those of them that the lane's own member
//! mask names; where all lanes have come together these are the same.

use crate::lanes::{Class, Form, Lane, Run, Sync, Unit, Unsupported, input, output, pack, pick, predicate};
use crate::ptx::ast::Type::{self, *};
use crate::ptx::ast::{Instruction, Operand};

/// See [`crate::lanes::Family`].
pub fn family(i: &Instruction, _register: &dyn Fn(&str) -> Option<Type>) -> Result<Option<Form>, Unsupported> {
    if !matches!(i.opcode.as_str(), "shfl" | "vote" | "match" | "redux" | "activemask" | "elect") {
        return Ok(None);
    }
    form(i).map(Some).ok_or_else(|| Unsupported(i.form()))
}

fn form(i: &Instruction) -> Option<Form> {
    let modifiers: Vec<&str> = i.modifiers.iter().map(String::as_str).collect();
    let pair = matches!(i.operands.first(), Some(Operand::Pair(..)));
    let negated = |n: usize| matches!(i.operands.get(n), Some(Operand::Not(_)));
    let not = i.opcode == "vote" && negated(1);
    if (0..i.operands.len()).any(|n| negated(n) && !(not && n == 1)) {
        return None;
    }
    let d = || vec![B32];
    let d_p = || if pair { vec![B32, Pred] } else { vec![B32] };
    // Outputs, inputs, and whether the last input is the member mask.
    let (run, outputs, inputs, sync): (Run, Vec<Type>, Vec<Type>, bool) = match (i.opcode.as_str(), &modifiers[..]) {
        ("shfl", ["sync", mode, "b32"]) => (shuffle(Mode::named(mode)?, pair), d_p(), vec![B32; 4], true),
        ("shfl", [mode, "b32"]) => (shuffle(Mode::named(mode)?, pair), d_p(), vec![B32; 3], false),
        _ if pair && !matches!(i.opcode.as_str(), "match" | "elect") => return None,
        ("vote", ["sync", "ballot", "b32"]) => (vote("ballot", true, not)?, d(), vec![Pred, B32], true),
        ("vote", ["ballot", "b32"]) => (vote("ballot", false, not)?, d(), vec![Pred], false),
        ("vote", ["sync", mode @ ("all" | "any" | "uni"), "pred"]) => {
            (vote(mode, true, not)?, vec![Pred], vec![Pred, B32], true)
        }
        ("vote", [mode @ ("all" | "any" | "uni"), "pred"]) => (vote(mode, false, not)?, vec![Pred], vec![Pred], false),
        ("match", ["any", "sync", "b32"]) if !pair => (match_any::<u32>, d(), vec![B32, B32], true),
        ("match", ["any", "sync", "b64"]) if !pair => (match_any::<u64>, d(), vec![B64, B32], true),
        ("match", ["all", "sync", "b32"]) if pair => (match_all::<u32, true>, d_p(), vec![B32, B32], true),
        ("match", ["all", "sync", "b64"]) if pair => (match_all::<u64, true>, d_p(), vec![B64, B32], true),
        ("match", ["all", "sync", "b32"]) => (match_all::<u32, false>, d(), vec![B32, B32], true),
        ("match", ["all", "sync", "b64"]) => (match_all::<u64, false>, d(), vec![B64, B32], true),
        ("redux", ["sync", operator, _]) => {
            let &[ty] = &i.types().collect::<Vec<_>>()[..] else { return None };
            (redux(operator, ty)?, vec![ty], vec![ty, B32], true)
        }
        ("activemask", ["b32"]) => (active, d(), vec![], false),
        ("elect", ["sync"]) if pair => (elect, d_p(), vec![B32], true),
        _ => return None,
    };
    let sync = if sync { Sync::Mask((outputs.len() + inputs.len() - 1) as u8) } else { Sync::No };
    let slots = outputs.into_iter().map(output).chain(inputs.into_iter().map(input)).collect();
    Some(Form { run, slots, class: Class::Warp, fma: 0, sync })
}

/// How `shfl` computes the source lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Mode {
    Up,
    Down,
    Bfly,
    Idx,
}

impl Mode {
    /// The mode that a modifier names.
    pub fn named(modifier: &str) -> Option<Mode> {
        Some(match modifier {
            "up" => Mode::Up,
            "down" => Mode::Down,
            "bfly" => Mode::Bfly,
            "idx" => Mode::Idx,
            _ => return None,
        })
    }

    /// The mode of a `shfl` instruction.
    pub fn of(i: &Instruction) -> Option<Mode> {
        i.modifiers.iter().find_map(|m| Mode::named(m))
    }
}

/// The lane from which `lane` (below 32) reads in a `shfl` with operands `b` and `c`, and whether the computed lane is in
/// range; if not, it reads itself.
#[inline(always)]
pub fn shuffle_source(mode: Mode, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, segment) = ((b & 31) as i32, (c & 31) as i32, (c >> 8 & 31) as i32);
    let lane = lane as i32;
    let least = lane & segment;
    let bound = least | clamp & !segment;
    let (source, in_range) = match mode {
        Mode::Up => (lane - b, lane - b >= bound),
        Mode::Down => (lane + b, lane + b <= bound),
        Mode::Bfly => (lane ^ b, lane ^ b <= bound),
        Mode::Idx => (least | b & !segment, least | b & !segment <= bound),
    };
    (if in_range { source } else { lane } as u32 & 31, in_range)
}

/// Slots: d, perhaps p, a, b, c, perhaps the member mask, which only the interpreter looks at. A lane that does not take part
/// is read all the same: the ISA leaves open what comes from it.
fn shuffle(mode: Mode, pair: bool) -> Run {
    #[inline(always)]
    unsafe fn body<const MODE: usize, const PAIR: bool>(file: *mut Unit, operands: &[u16], mask: u32) {
        const MODES: [Mode; 4] = [Mode::Up, Mode::Down, Mode::Bfly, Mode::Idx];
        unsafe {
            let at = 1 + PAIR as usize;
            let a = u32::read(file, operands[at]);
            let b = u32::read(file, operands[at + 1]);
            let c = u32::read(file, operands[at + 2]);
            let (mut sources, mut valid) = ([0; 32], [false; 32]);
            for l in 0..32 {
                (sources[l], valid[l]) = shuffle_source(MODES[MODE], l as u32, b[l], c[l]);
            }
            u32::write(file, operands[0], &sources.map(|source| a[source as usize & 31]), mask);
            if PAIR {
                bool::write(file, operands[1], &valid, mask);
            }
        }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn wide<const MODE: usize, const PAIR: bool>(file: *mut Unit, operands: &[u16], mask: u32) {
        unsafe { body::<MODE, PAIR>(file, operands, mask) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    use body as wide;
    unsafe fn plain<const MODE: usize, const PAIR: bool>(file: *mut Unit, operands: &[u16], mask: u32) {
        unsafe { body::<MODE, PAIR>(file, operands, mask) }
    }
    macro_rules! variant {
        ($mode:literal) => {
            if pair {
                pick(wide::<$mode, true>, plain::<$mode, true>)
            } else {
                pick(wide::<$mode, false>, plain::<$mode, false>)
            }
        };
    }
    match mode {
        Mode::Up => variant!(0),
        Mode::Down => variant!(1),
        Mode::Bfly => variant!(2),
        Mode::Idx => variant!(3),
    }
}

/// For every lane of `mask`, the lanes that take part with it: those of its member mask in slot `members`, if there is one.
unsafe fn participants(file: *const Unit, members: Option<u16>, mask: u32) -> [u32; 32] {
    match members {
        Some(slot) => unsafe { u32::read(file, slot) }.map(|members| members & mask),
        None => [mask; 32],
    }
}

/// `value` for each lane's participants, once for those in a row that have the same ones.
fn each(participants: &[u32; 32], value: impl Fn(u32) -> u32) -> [u32; 32] {
    let mut last = (participants[0], value(participants[0]));
    participants.map(|group| {
        if group != last.0 {
            last = (group, value(group));
        }
        last.1
    })
}

/// The lanes in a set of lanes.
fn lanes(set: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |l| set >> l & 1 != 0)
}

fn vote(mode: &str, sync: bool, not: bool) -> Option<Run> {
    unsafe fn run<const MODE: u8, const SYNC: bool, const NOT: bool>(file: *mut Unit, operands: &[u16], mask: u32) {
        unsafe {
            let a = predicate(file, operands[1]);
            let a = if NOT { !a } else { a };
            let participants = participants(file, SYNC.then(|| operands[2]), mask);
            let out = each(&participants, |group| match MODE {
                ALL => (a & group == group) as u32,
                ANY => (a & group != 0) as u32,
                UNI => (a & group == group || a & group == 0) as u32,
                _ => a & group,
            });
            if MODE == BALLOT {
                u32::write(file, operands[0], &out, mask)
            } else {
                bool::write(file, operands[0], &out.map(|holds| holds != 0), mask)
            }
        }
    }
    const ALL: u8 = 0;
    const ANY: u8 = 1;
    const UNI: u8 = 2;
    const BALLOT: u8 = 3;
    macro_rules! variant {
        ($mode:ident) => {
            match (sync, not) {
                (false, false) => run::<$mode, false, false> as Run,
                (false, true) => run::<$mode, false, true>,
                (true, false) => run::<$mode, true, false>,
                (true, true) => run::<$mode, true, true>,
            }
        };
    }
    Some(match mode {
        "all" => variant!(ALL),
        "any" => variant!(ANY),
        "uni" => variant!(UNI),
        "ballot" => variant!(BALLOT),
        _ => return None,
    })
}

/// The participants that hold the same value.
unsafe fn match_any<T: Lane + PartialEq>(file: *mut Unit, operands: &[u16], mask: u32) {
    unsafe {
        let a = T::read(file, operands[1]);
        let mut out = participants(file, Some(operands[2]), mask);
        for l in lanes(mask) {
            out[l] &= pack(&a.map(|other| other == a[l]));
        }
        u32::write(file, operands[0], &out, mask)
    }
}

/// All participants if they hold the same value, else none; `PAIR` has a predicate for which of the two.
unsafe fn match_all<T: Lane + PartialEq, const PAIR: bool>(file: *mut Unit, operands: &[u16], mask: u32) {
    unsafe {
        let at = 1 + PAIR as usize;
        let a = T::read(file, operands[at]);
        let participants = participants(file, Some(operands[at + 1]), mask);
        let out = each(&participants, |group| {
            let first = a[group.trailing_zeros() as usize & 31];
            if lanes(group).all(|l| a[l] == first) { group } else { 0 }
        });
        u32::write(file, operands[0], &out, mask);
        if PAIR {
            bool::write(file, operands[1], &out.map(|group| group != 0), mask);
        }
    }
}

fn redux(operator: &str, ty: Type) -> Option<Run> {
    macro_rules! reduce {
        ($t:ty, $start:expr, |$a:ident, $b:ident| $value:expr) => {{
            unsafe fn run(file: *mut Unit, operands: &[u16], mask: u32) {
                unsafe {
                    let source = <$t>::read(file, operands[1]);
                    let participants = participants(file, Some(operands[2]), mask);
                    let out = each(&participants, |group| {
                        lanes(group).fold($start, |$a: $t, l| {
                            let $b = source[l];
                            $value
                        }) as u32
                    });
                    u32::write(file, operands[0], &out, mask)
                }
            }
            run
        }};
    }
    Some(match (operator, ty) {
        ("add", U32 | S32) => reduce!(u32, 0, |a, b| a.wrapping_add(b)),
        ("min", U32) => reduce!(u32, u32::MAX, |a, b| a.min(b)),
        ("max", U32) => reduce!(u32, 0, |a, b| a.max(b)),
        ("min", S32) => reduce!(i32, i32::MAX, |a, b| a.min(b)),
        ("max", S32) => reduce!(i32, i32::MIN, |a, b| a.max(b)),
        ("and", B32) => reduce!(u32, u32::MAX, |a, b| a & b),
        ("or", B32) => reduce!(u32, 0, |a, b| a | b),
        ("xor", B32) => reduce!(u32, 0, |a, b| a ^ b),
        _ => return None,
    })
}

unsafe fn active(file: *mut Unit, operands: &[u16], mask: u32) {
    unsafe { u32::write(file, operands[0], &[mask; 32], mask) }
}

/// The leader is the lowest lane that takes part.
unsafe fn elect(file: *mut Unit, operands: &[u16], mask: u32) {
    unsafe {
        let participants = participants(file, Some(operands[2]), mask);
        let out = each(&participants, |group| group.trailing_zeros());
        let leads = std::array::from_fn(|l| out[l] == l as u32);
        u32::write(file, operands[0], &out, mask);
        bool::write(file, operands[1], &leads, mask);
    }
}
