//! Which action an instruction is: memory, control and barriers here, registers through `isa`.

use super::LoadError;
use super::code::*;
use super::lower::{Draft, Lowering, Symbol, Value, callee};
use crate::check::Scope;
use crate::isa;
use crate::lanes::{Class, Role, Sync};
use crate::ptx::ast::{self, Instruction, Operand, Type};

lanes! {
    fn copy_b64(d: u64; a: u64) { d = a; }
}

/// A special register that stands in every frame; the clocks do not.
pub(crate) fn special(name: &str) -> Option<Special> {
    let axis = |rest: &str| ["x", "y", "z"].iter().position(|a| *a == rest).map(|a| a as u8);
    let rest = name.strip_prefix('%')?;
    if let Some((vector, part)) = rest.split_once('.') {
        let a = axis(part)?;
        return match vector {
            "tid" => Some(Special::Thread(a)),
            "ntid" => Some(Special::Threads(a)),
            "ctaid" => Some(Special::Block(a)),
            "nctaid" => Some(Special::Blocks(a)),
            // every block is a cluster of its own
            "clusterid" => Some(Special::Block(a)),
            "nclusterid" => Some(Special::Blocks(a)),
            "cluster_ctaid" => Some(Special::Zero),
            "cluster_nctaid" => Some(Special::One),
            _ => None,
        };
    }
    Some(match rest {
        "laneid" => Special::Lane,
        "warpid" => Special::Warp,
        "nwarpid" => Special::Warps,
        "smid" => Special::Multiprocessor,
        "nsmid" => Special::Multiprocessors,
        "gridid" => Special::Grid,
        "lanemask_eq" => Special::LanesEqual,
        "lanemask_le" => Special::LanesUpTo,
        "lanemask_lt" => Special::LanesBelow,
        "lanemask_ge" => Special::LanesFrom,
        "lanemask_gt" => Special::LanesAbove,
        "dynamic_smem_size" => Special::DynamicShared,
        "total_smem_size" | "aggr_smem_size" => Special::TotalShared,
        "reserved_smem_offset_begin" | "reserved_smem_offset_0" => Special::ReservedShared(0),
        // cooperative_groups.h keeps its barriers here, in at most 288 bytes
        "reserved_smem_offset_1" => Special::ReservedShared(512),
        "reserved_smem_offset_end" => Special::ReservedShared(RESERVED_SHARED),
        "reserved_smem_offset_cap" => Special::ReservedSize,
        "cluster_ctarank" | "is_explicit_cluster" | "current_graph_exec" => Special::Zero,
        "cluster_nctarank" => Special::One,
        _ => Special::Environment(rest.strip_prefix("envreg")?.parse().ok().filter(|n| *n < 32)?),
    })
}

/// Turns an instruction into a draft, its operands into values.
pub(crate) fn draft(l: &mut Lowering<'_>, i: &Instruction) -> Result<Draft, LoadError> {
    let guard = match &i.guard {
        None => None,
        Some((name, negated)) => {
            let begin = l.begin();
            l.push_register(name, Role::In, 1, i.line)?;
            Some((l.id_at(begin), *negated))
        }
    };
    let begin = l.begin();
    let (action, class, fma) = action(l, i, begin)?;
    let operands = l.since(begin);
    let info = OpInfo { line: i.line, location: i.location, form: i.form(), class, fma };
    Ok(Draft { guard, action: with_operands(action, operands), operands, info })
}

/// Every action's operands are all that were pushed for it.
fn with_operands(mut action: Action, all: Operands) -> Action {
    match &mut action {
        Action::Run { operands, .. } | Action::WarpBarrier { operands } | Action::Clock { operands, .. } => {
            *operands = all
        }
        Action::Together(t) => t.operands = all,
        Action::Switch(s) => s.index = all,
        Action::Call(c) => c.operands = all,
        Action::Load(a) | Action::Store(a) => a.operands = all,
        Action::Atomic(a) => a.operands = all,
        Action::AsyncCopy(a) => a.operands = all,
        Action::Transfer(t) => t.operands = all,
        Action::Barrier(b) => b.operands = all,
        _ => {}
    }
    action
}

fn unsupported<T>(i: &Instruction, why: &str) -> Result<T, LoadError> {
    let what = if why.is_empty() { i.form() } else { format!("{} ({why})", i.form()) };
    Err(LoadError::Unsupported { line: i.line, what })
}

fn syntax<T>(i: &Instruction, why: &str) -> Result<T, LoadError> {
    Err(LoadError::Syntax { line: i.line, what: format!("{}: {why}", i.form()) })
}

/// Fails on a modifier that is not in the list: what is not known is never skipped.
fn only(i: &Instruction, known: &[&str]) -> Result<(), LoadError> {
    let hint = |m: &str| m.starts_with("L1::") || m.starts_with("L2::");
    match i.modifiers.iter().find(|m| !known.contains(&m.as_str()) && !hint(m) && Type::named(m).is_none()) {
        Some(m) => unsupported(i, &format!(".{m}")),
        None => Ok(()),
    }
}

type Selected = Result<(Action, Class, u32), LoadError>;

fn action(l: &mut Lowering<'_>, i: &Instruction, begin: u32) -> Selected {
    let none = Operands::default();
    let plain = |action, class| Ok((action, class, 0));
    match i.opcode.as_str() {
        "ld" | "ldu" | "st" => access(l, i),
        "atom" | "red" => atomic(l, i),
        "cp" => copy(l, i),
        "bra" => {
            only(i, &["uni"])?;
            match i.operands.first() {
                Some(Operand::Name(label)) if i.operands.len() == 1 => {
                    plain(Action::Jump { target: label_of(l, i, label)? }, Class::Control)
                }
                _ => syntax(i, "a label was expected"),
            }
        }
        "brx" => {
            only(i, &["uni", "idx"])?;
            let (Some(index), Some(Operand::Name(list))) = (i.operands.first(), i.operands.get(1)) else {
                return syntax(i, "an index and a list of targets were expected");
            };
            l.operand(index, Role::In, Type::U32, i.line)?;
            let Some(targets) = l.targets(list) else {
                return Err(LoadError::Undefined { line: i.line, name: list.clone() });
            };
            l.context.spend(targets.len() + l.function.body.as_ref().map_or(0, |b| b.branch_targets.len()), i.line)?;
            let targets = targets.iter().map(|t| label_of(l, i, t)).collect::<Result<_, _>>()?;
            plain(Action::Switch(Box::new(Switch { index: none, targets })), Class::Control)
        }
        "call" => call(l, i, begin),
        "ret" if l.function.entry => plain(Action::Exit, Class::Control),
        "ret" => plain(Action::Return, Class::Control),
        "exit" => plain(Action::Exit, Class::Control),
        "trap" => plain(Action::Trap, Class::Control),
        // a debugger's breakpoint: without a debugger attached the hardware traps
        "brkpt" => plain(Action::Trap, Class::Control),
        "bar" | "barrier" => barrier(l, i),
        "membar" | "fence" => fence(i),
        "nanosleep" => {
            let operand = i.operands.first().cloned();
            operand.map_or(syntax(i, "a duration was expected"), |o| l.operand(&o, Role::In, Type::U32, i.line))?;
            plain(Action::Nothing, Class::Other)
        }
        // hints: they change speed only
        "prefetch" | "prefetchu" | "applypriority" | "discard" | "pmevent" | "griddepcontrol" | "setmaxnreg" => {
            if i.opcode == "setmaxnreg" || i.opcode == "discard" {
                return unsupported(i, "");
            }
            plain(Action::Nothing, Class::Other)
        }
        // a cache policy is opaque and changes speed only
        "createpolicy" => match i.operands.first() {
            Some(d) => {
                l.operand(d, Role::Out, Type::B64, i.line)?;
                l.push(Value::Constant { bits: 0, units: 2 }, Role::In);
                plain(Action::Run { run: copy_b64(), operands: none }, Class::Other)
            }
            None => syntax(i, "a destination was expected"),
        },
        "mov" if i.operands.len() == 2 && clock(&i.operands[1]).is_some() => {
            let (wide, high) = clock(&i.operands[1]).unwrap_or_default();
            l.operand(&i.operands[0], Role::Out, if wide { Type::U64 } else { Type::U32 }, i.line)?;
            plain(Action::Clock { operands: none, wide, high }, Class::Move)
        }
        "ldmatrix" | "stmatrix" => transfer(l, i),
        "wmma" if i.has("load") || i.has("store") => transfer(l, i),
        _ => registers(l, i),
    }
}

fn clock(operand: &Operand) -> Option<(bool, bool)> {
    match operand {
        Operand::Name(n) => match n.as_str() {
            "%clock" | "%globaltimer_lo" => Some((false, false)),
            "%clock_hi" | "%globaltimer_hi" => Some((false, true)),
            "%clock64" | "%globaltimer" => Some((true, false)),
            _ => None,
        },
        _ => None,
    }
}

fn label_of(l: &Lowering<'_>, i: &Instruction, label: &str) -> Result<u32, LoadError> {
    l.labels.get(label).copied().ok_or_else(|| LoadError::Undefined { line: i.line, name: label.to_string() })
}

/// An instruction that `isa` knows.
fn registers(l: &mut Lowering<'_>, i: &Instruction) -> Selected {
    // A `.param` of a device function lies in its frame, which is local memory.
    let rewritten = (i.opcode == "cvta" && !l.function.entry && i.has("param")).then(|| {
        let mut local = i.clone();
        local.modifiers.iter_mut().filter(|m| *m == "param").for_each(|m| *m = "local".into());
        local
    });
    let i = rewritten.as_ref().unwrap_or(i);
    let form = match isa::form(i, &|name| l.register_type(name)) {
        Ok(Some(form)) => form,
        Ok(None) => return unsupported(i, ""),
        Err(why) => return unsupported(i, &why.0),
    };
    let mut operands: Vec<&Operand> = Vec::new();
    let video = isa::video::operands(i);
    for operand in video.as_deref().unwrap_or(&i.operands) {
        flatten(operand, &mut operands, i)?;
    }
    let carry = Operand::Name("%cc".into());
    let (writes, reads) = isa::integer::carry(i);
    if writes && !operands.is_empty() {
        operands.insert(1, &carry);
    }
    if reads {
        operands.push(&carry);
    }
    if operands.len() != form.slots.len() {
        return syntax(i, &format!("{} operands were expected, not {}", form.slots.len(), operands.len()));
    }
    for (operand, slot) in operands.iter().zip(&form.slots) {
        l.operand(operand, slot.role, slot.ty, i.line)?;
    }
    let (run, operands) = (form.run, Operands::default());
    let action = match form.sync {
        Sync::No => Action::Run { run, operands },
        Sync::Warp => Action::Together(Box::new(Together { run, operands, mask: None, shuffle: None })),
        Sync::Mask(mask) => {
            let shuffle = (i.opcode == "shfl").then(|| isa::warp::Mode::of(i)).flatten().map(|mode| {
                // d [p] a b c mask
                Shuffle { mode, b: mask - 2, c: mask - 1 }
            });
            Action::Together(Box::new(Together { run, operands, mask: Some(mask), shuffle }))
        }
    };
    Ok((action, form.class, form.fma))
}

/// The registers of an operand in the order in which they are written.
fn flatten<'o>(operand: &'o Operand, into: &mut Vec<&'o Operand>, i: &Instruction) -> Result<(), LoadError> {
    match operand {
        Operand::Vector(all) => all.iter().try_for_each(|o| flatten(o, into, i)),
        Operand::Pair(a, b) => {
            into.push(a);
            into.push(b);
            Ok(())
        }
        Operand::Not(inner) => {
            into.push(inner);
            Ok(())
        }
        Operand::Tuple(_) | Operand::Memory { .. } => syntax(i, "a register or a constant was expected"),
        _ => {
            into.push(operand);
            Ok(())
        }
    }
}

/// Pushes the base of `[...]` and tells the rest of the address.
fn address(l: &mut Lowering<'_>, i: &Instruction, operand: &Operand, space: Space) -> Result<Address, LoadError> {
    let Operand::Memory { base, offset } = operand else {
        return syntax(i, "an address in brackets was expected");
    };
    let fixed = |space, offset, frame| Ok(Address { space, base: Base::None, offset, frame });
    match base.as_ref() {
        Operand::Name(name) | Operand::Offset(name, _) => {
            let offset = match base.as_ref() {
                Operand::Offset(_, more) => offset.wrapping_add(*more),
                _ => *offset,
            };
            if let Some(ty) = l.register_type(name) {
                let (base, bits) = if ty.bits() == 64 { (Base::Wide, 64) } else { (Base::Narrow, 32) };
                l.push_register(name, Role::In, bits, i.line)?;
                return Ok(Address { space, base, offset, frame: false });
            }
            let Some(symbol) = l.symbol(name) else {
                return Err(LoadError::Undefined { line: i.line, name: name.clone() });
            };
            match (symbol, space) {
                (Symbol::Global(a), Space::Global | Space::Generic) => {
                    fixed(Space::Global, (a as i64).wrapping_add(offset), false)
                }
                (Symbol::Shared(a), Space::Shared) => fixed(space, (a as i64).wrapping_add(offset), false),
                (Symbol::Frame { offset: a, .. }, Space::Local | Space::Param) => {
                    fixed(Space::Local, (a as i64).wrapping_add(offset), true)
                }
                (Symbol::Param(a), Space::Param) => fixed(space, (a as i64).wrapping_add(offset), false),
                _ => syntax(i, &format!("{name} is in another state space")),
            }
        }
        Operand::Int(at) => fixed(space, at.wrapping_add(*offset), false),
        _ => syntax(i, "an address was expected"),
    }
}

/// The state space of an instruction's address.
fn space(l: &Lowering<'_>, i: &Instruction) -> Result<Space, LoadError> {
    let mut found = Space::Generic;
    for m in &i.modifiers {
        found = match m.as_str() {
            "global" | "const" => Space::Global,
            "shared" | "shared::cta" => Space::Shared,
            "local" => Space::Local,
            "param" | "param::entry" | "param::func" if l.function.entry && m != "param::func" => Space::Param,
            "param" | "param::func" => Space::Param,
            "shared::cluster" => return unsupported(i, ".shared::cluster"),
            _ => continue,
        };
    }
    Ok(found)
}

fn order(i: &Instruction) -> Order {
    let acquire = i.has("acquire") || i.has("acq_rel");
    let release = i.has("release") || i.has("acq_rel");
    let strong = acquire || release || ["volatile", "relaxed", "mmio"].iter().any(|m| i.has(m));
    let scope = if i.has("sys") || i.has("volatile") || i.has("mmio") {
        Scope::Sys
    } else if i.has("cta") {
        Scope::Cta
    } else {
        // a cluster is one block here, but what it means to say is wider
        Scope::Gpu
    };
    Order { strong, acquire, release, scope }
}

const ORDERS: [&str; 13] = [
    "weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "mmio", "sc", "cta", "cluster", "gpu", "sys",
    "noftz",
];

/// Types that an instruction names, with vector widths counted apart.
fn vector(i: &Instruction) -> usize {
    let width = |m: &String| m.strip_prefix('v').and_then(|n| n.parse().ok()).filter(|n| [2, 4, 8].contains(n));
    i.modifiers.iter().find_map(width).unwrap_or(1)
}

fn access(l: &mut Lowering<'_>, i: &Instruction) -> Selected {
    let spaces = [
        "global",
        "const",
        "shared",
        "shared::cta",
        "local",
        "param",
        "param::entry",
        "param::func",
        "shared::cluster",
    ];
    let caches = ["ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "v2", "v4", "v8"];
    let known: Vec<&str> = spaces.iter().chain(&caches).chain(&ORDERS).copied().collect();
    only(i, &known)?;
    let load = i.opcode != "st";
    let space = space(l, i)?;
    let Some(ty) = i.types().last().filter(|t| *t != Type::Pred) else { return syntax(i, "a type was expected") };
    // an `.L2::cache_hint` adds a policy operand, which changes speed only
    let hint = i.modifiers.iter().any(|m| m == "L2::cache_hint") as usize;
    if i.operands.len() != 2 + hint {
        return syntax(i, "two operands were expected");
    }
    let (data, memory) = if load { (&i.operands[0], &i.operands[1]) } else { (&i.operands[1], &i.operands[0]) };
    let place = address(l, i, memory, space)?;
    let mut registers = Vec::new();
    flatten(data, &mut registers, i)?;
    let count = vector(i);
    if registers.len() != count || ty.bytes() * count > 32 {
        return syntax(i, &format!("{count} registers were expected, not {}", registers.len()));
    }
    let mut units = Vec::new();
    let mut extend = 0;
    for r in registers {
        // A register may be wider than the element, and a constant has the element's type.
        let declared = match r {
            Operand::Name(name) => l.register_type(name),
            _ => None,
        };
        let as_type = match declared {
            Some(d) if d == Type::Pred || d.bits() < ty.bits() => {
                return syntax(i, &format!("a register of at least {} bits was expected", ty.bits()));
            }
            // all of such a register is moved, whatever the element
            Some(d) if d.bits() == 128 && ty.bits() != 128 => {
                return syntax(i, &format!("a register of at most 64 bits was expected for {} bits", ty.bits()));
            }
            Some(d) => d,
            None => ty,
        };
        l.operand(r, if load { Role::Out } else { Role::In }, as_type, i.line)?;
        units.push(as_type.bits().div_ceil(32).max(1) as u8);
        if ty.signed() && load {
            extend = as_type.bits();
        }
    }
    if ty.bytes() == 16 && !matches!(place.space, Space::Global | Space::Shared) {
        return unsupported(i, "128 bits outside of .global and .shared");
    }
    if space == Space::Param && !load && l.function.entry && place.space == Space::Param {
        return syntax(i, "a kernel's parameters are read-only");
    }
    let class = match (place.space, load, i.has("const")) {
        (_, true, true) => Class::LoadConst,
        (Space::Param, ..) => Class::LoadParam,
        (Space::Local, true, _) if space == Space::Param => Class::LoadParam,
        (Space::Global, true, _) => Class::LoadGlobal,
        (Space::Global, false, _) => Class::StoreGlobal,
        (Space::Shared, true, _) => Class::LoadShared,
        (Space::Shared, false, _) => Class::StoreShared,
        (Space::Local, true, _) => Class::LoadLocal,
        (Space::Local, false, _) => Class::StoreLocal,
        (Space::Generic, true, _) => Class::LoadGeneric,
        (Space::Generic, false, _) => Class::StoreGeneric,
    };
    let element = ty.bytes() as u32;
    let access = Access { address: place, operands: Operands::default(), element, units, extend, order: order(i) };
    Ok((if load { Action::Load(Box::new(access)) } else { Action::Store(Box::new(access)) }, class, 0))
}

fn atomic(l: &mut Lowering<'_>, i: &Instruction) -> Selected {
    let operations = ["add", "min", "max", "and", "or", "xor", "inc", "dec", "exch", "cas"];
    let spaces = ["global", "shared", "shared::cta", "shared::cluster", "async"];
    let known: Vec<&str> = operations.iter().chain(&spaces).chain(&ORDERS).copied().collect();
    only(i, &known)?;
    if i.has("async") || vector(i) > 1 {
        return unsupported(i, "");
    }
    let space = space(l, i)?;
    let result = i.opcode == "atom";
    let hint = i.modifiers.iter().any(|m| m == "L2::cache_hint") as usize;
    let (Some(ty), Some(name)) = (i.types().last(), operations.iter().find(|o| i.has(o))) else {
        return syntax(i, "an operation and a type were expected");
    };
    use Combine::*;
    use Type::*;
    let combine = match *name {
        "add" => Add,
        "min" => Min,
        "max" => Max,
        "and" => And,
        "or" => Or,
        "xor" => Xor,
        "inc" => Inc,
        "dec" => Dec,
        "exch" => Exchange,
        _ => CompareAndSwap,
    };
    let fits = match combine {
        Add => matches!(ty, U32 | S32 | U64 | S64 | F16 | F16x2 | Bf16 | Bf16x2 | F32 | F64),
        Min | Max => matches!(ty, U32 | S32 | U64 | S64),
        And | Or | Xor => matches!(ty, B32 | B64),
        Inc | Dec => ty == U32,
        Exchange => matches!(ty, B32 | B64 | U32 | U64 | S32 | F32),
        CompareAndSwap => matches!(ty, B16 | B32 | B64 | U32 | U64 | S32),
    };
    if !fits {
        return unsupported(i, "");
    }
    let expected = result as usize + 2 + (combine == CompareAndSwap) as usize;
    if i.operands.len() != expected + hint {
        return syntax(i, &format!("{expected} operands were expected"));
    }
    let address = address(l, i, &i.operands[result as usize], space)?;
    if result {
        l.operand(&i.operands[0], Role::Out, ty, i.line)?;
    }
    for o in &i.operands[result as usize + 1..expected] {
        l.operand(o, Role::In, ty, i.line)?;
    }
    let order = Order { strong: true, ..order(i) };
    let atomic = Atomic { address, operands: Operands::default(), combine, ty, result, order };
    Ok((Action::Atomic(Box::new(atomic)), Class::Atomic, 0))
}

/// `cp.async` and its groups.
fn copy(l: &mut Lowering<'_>, i: &Instruction) -> Selected {
    if !i.has("async") || i.has("bulk") || i.has("mbarrier") {
        return unsupported(i, "");
    }
    let class = Class::AsyncCopy;
    if i.has("commit_group") {
        return Ok((Action::AsyncCommit, class, 0));
    }
    if i.has("wait_all") {
        return Ok((Action::AsyncWait { left: None }, class, 0));
    }
    if i.has("wait_group") {
        return match i.operands.first() {
            Some(Operand::Int(n)) if (0..1 << 20).contains(n) => {
                Ok((Action::AsyncWait { left: Some(*n as u32) }, class, 0))
            }
            _ => syntax(i, "a number of groups was expected"),
        };
    }
    only(i, &["async", "ca", "cg", "shared", "shared::cta", "shared::cluster", "global", "ignore-src"])?;
    let hint = i.modifiers.iter().any(|m| m == "L2::cache_hint") as usize;
    let (Some(to), Some(from), Some(Operand::Int(bytes))) = (i.operands.first(), i.operands.get(1), i.operands.get(2))
    else {
        return syntax(i, "a destination, a source and a size were expected");
    };
    if !matches!(bytes, 4 | 8 | 16) || (i.has("cg") && *bytes != 16) {
        return syntax(i, "the size is 4, 8 or 16 (.cg: 16)");
    }
    let to = address(l, i, to, Space::Shared)?;
    let from = address(l, i, from, Space::Global)?;
    let rest = i.operands.get(3..i.operands.len().saturating_sub(hint)).unwrap_or_default();
    let limit = match rest {
        [] => Limit::All,
        [Operand::Not(p)] => {
            l.operand(p, Role::In, Type::Pred, i.line)?;
            Limit::Ignore { negate: true }
        }
        [Operand::Name(p)] if l.register_type(p) == Some(Type::Pred) => {
            l.push_register(p, Role::In, 1, i.line)?;
            Limit::Ignore { negate: false }
        }
        [size] => {
            l.operand(size, Role::In, Type::U32, i.line)?;
            Limit::Size
        }
        _ => return syntax(i, "too many operands"),
    };
    let copy = AsyncCopy { to, from, operands: Operands::default(), bytes: *bytes as u32, limit };
    Ok((Action::AsyncCopy(Box::new(copy)), class, 0))
}

fn barrier(l: &mut Lowering<'_>, i: &Instruction) -> Selected {
    let class = Class::Barrier;
    if i.has("warp") {
        only(i, &["warp", "sync"])?;
        let Some(mask) = i.operands.first() else { return syntax(i, "a member mask was expected") };
        l.operand(mask, Role::In, Type::B32, i.line)?;
        return Ok((Action::WarpBarrier { operands: Operands::default() }, class, 0));
    }
    if i.has("cluster") {
        return unsupported(i, "");
    }
    only(i, &["cta", "sync", "arrive", "red", "popc", "and", "or", "aligned"])?;
    let reduce = match (i.has("red"), i.has("popc"), i.has("and"), i.has("or")) {
        (false, false, false, false) => Reduce::No,
        (true, true, false, false) => Reduce::Count,
        (true, false, true, false) => Reduce::And,
        (true, false, false, true) => Reduce::Or,
        _ => return unsupported(i, ""),
    };
    let arrive = i.has("arrive");
    let mut operands = i.operands.iter();
    if reduce != Reduce::No {
        let ty = if reduce == Reduce::Count { Type::U32 } else { Type::Pred };
        operands.next().map_or(syntax(i, "a destination was expected"), |d| l.operand(d, Role::Out, ty, i.line))?;
    }
    match operands.next() {
        Some(number) => l.operand(number, Role::In, Type::U32, i.line)?,
        None => return syntax(i, "a barrier was expected"),
    }
    let rest: Vec<&Operand> = operands.collect();
    let predicates = (reduce != Reduce::No) as usize;
    let count = rest.len() > predicates;
    if rest.len() > predicates + 1 || rest.len() < predicates || (arrive && !count) {
        return syntax(i, "the operands do not fit");
    }
    if count {
        l.operand(rest[0], Role::In, Type::U32, i.line)?;
    }
    let mut negate = false;
    if predicates > 0 {
        let p = rest[count as usize];
        let inner = match p {
            Operand::Not(inner) => {
                negate = true;
                inner
            }
            _ => p,
        };
        l.operand(inner, Role::In, Type::Pred, i.line)?;
    }
    let aligned = i.opcode == "bar" || i.has("aligned");
    let barrier = Barrier { operands: Operands::default(), reduce, negate, count, arrive, aligned };
    Ok((Action::Barrier(Box::new(barrier)), class, 0))
}

fn fence(i: &Instruction) -> Selected {
    only(i, &["sc", "acq_rel", "acquire", "release", "cta", "cluster", "gpu", "sys", "gl"])?;
    let scope = if i.has("cta") {
        Scope::Cta
    } else if i.has("sys") {
        Scope::Sys
    } else if i.has("gpu") || i.has("gl") || i.has("cluster") {
        Scope::Gpu
    } else {
        return unsupported(i, "");
    };
    Ok((Action::Fence { scope }, Class::Barrier, 0))
}

fn transfer(l: &mut Lowering<'_>, i: &Instruction) -> Selected {
    let layout = match isa::matrix::transfer(i) {
        Ok(Some(layout)) => layout,
        Ok(None) => return unsupported(i, ""),
        Err(why) => return unsupported(i, &why.0),
    };
    let space = space(l, i)?;
    let (Some(memory), Some(data)) = (i.operands.get(layout.address), i.operands.get(layout.vector)) else {
        return syntax(i, "two operands were expected");
    };
    let address = address(l, i, memory, space)?;
    if let Some(stride) = layout.stride.and_then(|s| i.operands.get(s)) {
        l.operand(stride, Role::In, Type::U32, i.line)?;
    }
    let mut registers = Vec::new();
    flatten(data, &mut registers, i)?;
    if registers.len() != layout.registers {
        return syntax(i, &format!("{} registers were expected, not {}", layout.registers, registers.len()));
    }
    for r in registers {
        l.operand(r, if layout.load { Role::Out } else { Role::In }, layout.ty, i.line)?;
    }
    let rows = i.opcode == "ldmatrix";
    let transfer = Transfer { address, operands: Operands::default(), layout, rows };
    Ok((Action::Transfer(Box::new(transfer)), Class::Matrix, 0))
}

fn call(l: &mut Lowering<'_>, i: &Instruction, begin: u32) -> Selected {
    only(i, &["uni"])?;
    let Some(name) = callee(i) else { return syntax(i, "a function was expected") };
    let at = i.operands.iter().position(|o| matches!(o, Operand::Name(n) if n == name)).unwrap_or(0);
    let list = |o: Option<&Operand>| match o {
        Some(Operand::Tuple(all)) => all.clone(),
        _ => Vec::new(),
    };
    let returns = if at > 0 { list(i.operands.first()) } else { Vec::new() };
    let arguments = list(i.operands.get(at + 1));
    let undefined = || LoadError::Undefined { line: i.line, name: name.to_string() };
    let context = l.context;
    let (target, signature_params, signature_returns) = if let Some(&f) = context.functions.get(name) {
        let function = &context.module.functions[f];
        let target = match (l.callees.get(&f), name) {
            (Some(&index), _) if function.body.is_some() => Target::Function(index),
            (_, "vprintf") => Target::Print,
            (_, "__assertfail") => Target::Assert,
            _ => return unsupported(i, &format!("the external function {name}")),
        };
        (target, &function.params, &function.returns)
    } else if let Some(ty) = l.register_type(name) {
        l.push_register(name, Role::In, ty.bits(), i.line)?;
        let label = match i.operands.last() {
            Some(Operand::Name(label)) => label.as_str(),
            _ => return syntax(i, "an indirect call needs a prototype"),
        };
        let body = l.function.body.as_ref();
        context.spend(body.map_or(0, |b| b.call_prototypes.len()), i.line)?;
        let Some(prototype) = body.and_then(|b| b.call_prototypes.iter().find(|p| p.0 == label)) else {
            return unsupported(i, "an indirect call without a prototype");
        };
        (Target::Indirect { wide: ty.bits() == 64 }, &prototype.1.params, &prototype.1.returns)
    } else {
        return Err(undefined());
    };
    if arguments.len() != signature_params.len() || returns.len() != signature_returns.len() {
        return syntax(i, &format!("{name} takes {} and returns {}", signature_params.len(), signature_returns.len()));
    }
    let mut places = |operands: &[Operand], signature: &[ast::Parameter], role| -> Result<Vec<Place>, LoadError> {
        let pair = operands.iter().zip(signature);
        pair.map(|(o, p)| l.place(o, p, role, begin, i.line)).collect()
    };
    let arguments = places(&arguments, signature_params, Role::In)?;
    let returns = places(&returns, signature_returns, Role::Out)?;
    let call = Call { target, operands: Operands::default(), arguments, returns };
    Ok((Action::Call(Box::new(call)), Class::Control, 0))
}
