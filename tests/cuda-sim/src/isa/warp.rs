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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::testing::{Given, Lanes, Random, check_warp, form, refused};

    /// Member masks: all lanes, the same some, or two halves of the warp each with its own.
    fn members(random: &mut Random) -> Lanes {
        let (a, b) = (random.next() as u32, random.next() as u32);
        match random.below(4) {
            0 => [u32::MAX as u128; 32],
            1 => [a as u128; 32],
            2 => std::array::from_fn(|l| if l < 16 { 0xffff } else { 0xffff_0000 }),
            _ => std::array::from_fn(|l| if a >> l & 1 != 0 { a as u128 } else { (!a & b) as u128 }),
        }
    }

    /// Few different values, so that lanes match.
    fn few(random: &mut Random) -> Lanes {
        let values: [u128; 4] = std::array::from_fn(|_| random.next() as u32 as u128);
        let kinds = 1 + random.below(4);
        std::array::from_fn(|_| values[random.below(kinds)])
    }

    fn same(random: &mut Random) -> Lanes {
        [[0, 1, 2, 3, 16, 31, 32, 33][random.below(8)]; 32]
    }

    /// Clamp and segment as programs have them, or any.
    fn clamp(random: &mut Random) -> Lanes {
        match random.below(3) {
            0 => [0x1f; 32],
            1 => [[0, 0x1f1f, 0x101f, 0x1c1f, 0x1800, 0x1807][random.below(6)]; 32],
            _ => std::array::from_fn(|_| random.next() as u32 as u128),
        }
    }

    /// The pseudo-code of the ISA, with its 5-bit fields as bits.
    fn shuffled(mode: &str, lane: i32, b: u32, c: u32) -> (usize, bool) {
        let (bval, cval, segment) = ((b % 32) as i32, (c % 32) as i32, (c / 256 % 32) as i32);
        let outside = 31 - segment;
        let max_lane = (lane & segment) + (cval & outside);
        let min_lane = lane & segment;
        let (j, valid) = match mode {
            "up" => (lane - bval, lane - bval >= max_lane),
            "down" => (lane + bval, lane + bval <= max_lane),
            "bfly" => (lane ^ bval, (lane ^ bval) <= max_lane),
            _ => (min_lane + (bval & outside), min_lane + (bval & outside) <= max_lane),
        };
        (if valid { j } else { lane } as usize, valid)
    }

    #[test]
    fn shuffles() {
        for mode in ["up", "down", "bfly", "idx"] {
            let run = |inputs: &[Lanes], pair: bool| {
                let from: [(usize, bool); 32] =
                    std::array::from_fn(|l| shuffled(mode, l as i32, inputs[1][l] as u32, inputs[2][l] as u32));
                let mut outputs = vec![from.map(|(source, _)| inputs[0][source])];
                if pair {
                    outputs.push(from.map(|(_, valid)| valid as u128));
                }
                outputs
            };
            let any = |random: &mut Random| -> Lanes { std::array::from_fn(|_| random.next() as u32 as u128) };
            for b in [&same as Given<'_>, &any] {
                let given = [(1, b), (2, &clamp as _)];
                check_warp(&format!("shfl.sync.{mode}.b32 %r1, %r2, %r3, %r4, -1"), &given, |i, _| run(i, false));
                check_warp(&format!("shfl.sync.{mode}.b32 %r1|%p1, %r2, %r3, %r4, -1"), &given, |i, _| run(i, true));
                check_warp(&format!("shfl.{mode}.b32 %r1, %r2, %r3, %r4"), &given, |i, _| run(i, false));
                check_warp(&format!("shfl.{mode}.b32 %r1|%p1, %r2, %r3, %r4"), &given, |i, _| run(i, true));
            }
        }
    }

    #[test]
    fn shuffles_of_the_usual_kinds() {
        // __shfl_down_sync of the whole warp, __shfl_up_sync, __shfl_xor_sync with width 8, __shfl_sync with width 16.
        assert_eq!(shuffle_source(Mode::Down, 3, 4, 0x1f), (7, true));
        assert_eq!(shuffle_source(Mode::Down, 30, 4, 0x1f), (30, false));
        assert_eq!(shuffle_source(Mode::Up, 3, 4, 0), (3, false));
        assert_eq!(shuffle_source(Mode::Up, 4, 4, 0), (0, true));
        assert_eq!(shuffle_source(Mode::Bfly, 9, 4, 0x181f), (13, true));
        assert_eq!(shuffle_source(Mode::Bfly, 9, 16, 0x181f), (9, false));
        assert_eq!(shuffle_source(Mode::Idx, 20, 3, 0x101f), (19, true));
        assert_eq!(shuffle_source(Mode::Idx, 20, 35, 0x1f), (3, true));
    }

    /// The values of the lanes in a set.
    fn of(set: u32, values: &Lanes) -> Vec<u128> {
        (0..32).filter(|l| set >> l & 1 != 0).map(|l| values[l]).collect()
    }

    /// For every lane, what `value` gives for the lanes that take part with it.
    fn grouped(members: &Lanes, mask: u32, value: impl Fn(u32) -> u128) -> Lanes {
        members.map(|members| value(members as u32 & mask))
    }

    #[test]
    fn votes() {
        type Holds = fn(&[u128]) -> bool;
        let votes: [(&str, Holds); 3] = [
            ("all", |a| a.iter().all(|&a| a == 1)),
            ("any", |a| a.contains(&1)),
            ("uni", |a| a.windows(2).all(|pair| pair[0] == pair[1])),
        ];
        for (source, not) in [("%p2", 0), ("!%p2", 1)] {
            // Often the same in all lanes.
            let predicates = |random: &mut Random| match random.below(3) {
                0 => [0; 32],
                1 => [1; 32],
                _ => std::array::from_fn(|_| (random.next() >> 20 & 1) as u128),
            };
            let given = [(0, &predicates as Given<'_>), (1, &members)];
            for (mode, holds) in votes {
                check_warp(&format!("vote.sync.{mode}.pred %p1, {source}, %r1"), &given, |i, mask| {
                    let a = i[0].map(|a| a ^ not);
                    vec![grouped(&i[1], mask, |set| holds(&of(set, &a)) as u128)]
                });
                check_warp(&format!("vote.{mode}.pred %p1, {source}"), &given[..1], |i, mask| {
                    let a = i[0].map(|a| a ^ not);
                    vec![[holds(&of(mask, &a)) as u128; 32]]
                });
            }
            let ballot = |a: &Lanes, set: u32| (0..32).filter(|l| set >> l & 1 != 0).map(|l| (a[l] ^ not) << l).sum();
            check_warp(&format!("vote.sync.ballot.b32 %r1, {source}, %r2"), &given, |i, mask| {
                vec![grouped(&i[1], mask, |set| ballot(&i[0], set))]
            });
            check_warp(&format!("vote.ballot.b32 %r1, {source}"), &given[..1], |i, mask| {
                vec![[ballot(&i[0], mask); 32]]
            });
        }
    }

    #[test]
    fn matches() {
        for (ty, r) in [("b32", "%r"), ("b64", "%rd")] {
            let given = [(0, &few as Given<'_>), (1, &members)];
            check_warp(&format!("match.any.sync.{ty} %r1, {r}2, %r3"), &given, |i, mask| {
                vec![std::array::from_fn(|l| {
                    let set = i[1][l] as u32 & mask;
                    (0..32).filter(|&o| set >> o & 1 != 0 && i[0][o] == i[0][l]).map(|o| 1u128 << o).sum()
                })]
            });
            let all = |i: &[Lanes], mask| {
                grouped(
                    &i[1],
                    mask,
                    |set| if of(set, &i[0]).windows(2).all(|p| p[0] == p[1]) { set as u128 } else { 0 },
                )
            };
            check_warp(&format!("match.all.sync.{ty} %r1, {r}2, %r3"), &given, |i, mask| vec![all(i, mask)]);
            check_warp(&format!("match.all.sync.{ty} %r1|%p1, {r}2, %r3"), &given, |i, mask| {
                vec![all(i, mask), all(i, mask).map(|set| (set != 0) as u128)]
            });
        }
    }

    #[test]
    fn reductions() {
        let signed = |x: u128| x as u32 as i32;
        type Reduce<'a> = &'a dyn Fn(&[u128]) -> u128;
        let sum: Reduce = &|a| a.iter().sum::<u128>() & 0xffff_ffff;
        let forms: [(&str, Reduce); 9] = [
            ("add.u32", sum),
            ("add.s32", sum),
            ("min.u32", &|a| *a.iter().min().unwrap()),
            ("max.u32", &|a| *a.iter().max().unwrap()),
            ("min.s32", &|a| a.iter().map(|&x| signed(x)).min().unwrap() as u32 as u128),
            ("max.s32", &|a| a.iter().map(|&x| signed(x)).max().unwrap() as u32 as u128),
            ("and.b32", &|a| a.iter().fold(0xffff_ffff, |d, x| d & x)),
            ("or.b32", &|a| a.iter().fold(0, |d, x| d | x)),
            ("xor.b32", &|a| a.iter().fold(0, |d, x| d ^ x)),
        ];
        for (form, reduce) in forms {
            check_warp(&format!("redux.sync.{form} %r1, %r2, %r3"), &[(1, &members)], |i, mask| {
                // A lane that is not in its own member mask has no defined result; no lane of no group is looked at.
                let identity = if form.starts_with("add") || form.contains('o') || form == "max.u32" {
                    0
                } else {
                    match form {
                        "min.s32" => 0x7fff_ffff,
                        "max.s32" => 0x8000_0000,
                        _ => 0xffff_ffff,
                    }
                };
                vec![grouped(&i[1], mask, |set| if set == 0 { identity } else { reduce(&of(set, &i[0])) })]
            });
        }
    }

    #[test]
    fn who_is_there() {
        check_warp("activemask.b32 %r1", &[], |_, mask| vec![[mask as u128; 32]]);
        check_warp("elect.sync %r1|%p1, %r2", &[(0, &members)], |i, mask| {
            let leader = grouped(&i[0], mask, |set| set.trailing_zeros() as u128);
            vec![leader, std::array::from_fn(|l| (leader[l] == l as u128) as u128)]
        });
    }

    #[test]
    fn what_is_waited_for() {
        assert_eq!(form("shfl.sync.idx.b32 %r1, %r2, 0, 31, -1").unwrap().sync, Sync::Mask(4));
        assert_eq!(form("shfl.sync.idx.b32 %r1|%p1, %r2, 0, 31, -1").unwrap().sync, Sync::Mask(5));
        assert_eq!(form("shfl.idx.b32 %r1, %r2, 0, 31").unwrap().sync, Sync::No);
        assert_eq!(form("vote.sync.ballot.b32 %r1, !%p1, -1").unwrap().sync, Sync::Mask(2));
        assert_eq!(form("activemask.b32 %r1").unwrap().sync, Sync::No);
    }

    #[test]
    fn forms_that_the_isa_does_not_have_or_newer_chips_only() {
        for text in [
            "redux.sync.min.f32 %r1, %r2, -1",
            "redux.sync.min.NaN.f32 %r1, %r2, -1",
            "redux.sync.and.u32 %r1, %r2, -1",
            "elect.sync %r1, -1",
            "match.any.sync.b32 %r1|%p1, %r2, -1",
            "vote.sync.ballot.pred %p1, %p2, -1",
            "shfl.sync.idx.b64 %rd1, %rd2, 0, 31, -1",
            "shfl.sync.idx.b32 %r1, !%r2, 0, 31, -1",
        ] {
            refused(text);
        }
    }
}
