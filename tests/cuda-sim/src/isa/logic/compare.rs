//! setp, set: comparison of integers and floats (PTX ISA 9.7.5, 9.7.7).
//!
//! A kernel for a type and a relation gives a bit a lane. Kernels are relations that unordered operands (a NaN among them)
//! do not have; the other comparisons are complements: `ltu` is where `ge` is not. `setp` with one destination is a
//! function of its own for each kernel. Everything else (`p|q`, a third predicate, packed halves, `set`) is rare; there one
//! function, [`combined`], interprets a code that stands for kernel, truth table and result.

use super::Parts;
use super::bitwise::BoolOp;
use crate::lanes::{Class, Form, Lane, Run, Sync, Unit, input, output, pack, pick, predicate, set_predicate};
use crate::ptx::ast::Type::{self, *};

pub(super) fn form(parts: &Parts) -> Option<Form> {
    let (&comparison, rest) = parts.others.split_first()?;
    let (operator, ftz) = match rest {
        [] => (BoolOp::First, false),
        ["ftz"] => (BoolOp::First, true),
        [operator] => (BoolOp::named(operator)?, false),
        [operator, "ftz"] => (BoolOp::named(operator)?, true),
        _ => return None,
    };
    let operands = if operator == BoolOp::First { 3 } else { 4 };
    if parts.operands.len() != operands || (0..3).any(|n| parts.negated(n)) {
        return None;
    }
    let &source = parts.types.last()?;
    let (relation, complement) = Relation::of(comparison, source)?;
    let kernel = Kernel::of(source, ftz, relation)?;
    let table = truth_table(operator, complement, parts.negated(3));
    let (run, outputs) = match (parts.opcode, &parts.types[..]) {
        ("setp", [_]) if parts.pair() => (code(kernel, table, Output::Predicates), vec![Pred, Pred]),
        ("setp", [_]) if operator == BoolOp::First => {
            let run = ENTRIES[kernel.index].single[complement as usize];
            (pick(run, code(kernel, table, Output::Predicates)), vec![Pred])
        }
        ("setp", [_]) => (code(kernel, table, Output::Predicates), vec![Pred]),
        ("set", &[result, _]) => (code(kernel, table, Output::of(result, source)?), vec![result]),
        _ => return None,
    };
    let mut slots: Vec<_> = outputs.into_iter().map(output).collect();
    slots.extend([input(source), input(source)]);
    if operator != BoolOp::First {
        slots.push(input(Pred));
    }
    Some(Form { run, slots, class: Class::Compare, fma: 0, sync: Sync::No })
}

/// What a kernel tests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    // For floats only:
    LessOrGreater,
    Comparable,
}

impl Relation {
    /// The kernel's relation, and whether the comparison is its complement.
    fn of(comparison: &str, source: Type) -> Option<(Relation, bool)> {
        use Relation::*;
        let unsigned = matches!(source, U16 | U32 | U64);
        let bits = matches!(source, B16 | B32 | B64);
        Some(match comparison {
            "eq" => (Equal, false),
            "ne" if source.float() => (LessOrGreater, false),
            "ne" => (Equal, true),
            _ if bits => return None,
            "lt" => (Less, false),
            "le" => (LessOrEqual, false),
            "gt" => (Greater, false),
            "ge" => (GreaterOrEqual, false),
            "lo" if unsigned => (Less, false),
            "ls" if unsigned => (LessOrEqual, false),
            "hi" if unsigned => (Greater, false),
            "hs" if unsigned => (GreaterOrEqual, false),
            _ if !source.float() => return None,
            "equ" => (LessOrGreater, true),
            "neu" => (Equal, true),
            "ltu" => (GreaterOrEqual, true),
            "leu" => (Greater, true),
            "gtu" => (LessOrEqual, true),
            "geu" => (Less, true),
            "num" => (Comparable, false),
            "nan" => (Comparable, true),
            _ => return None,
        })
    }
}

/// How a register's lanes become something that Rust compares.
trait Compared {
    type Raw: Lane;
    type Value: PartialOrd + Copy;
    fn value(raw: Self::Raw) -> Self::Value;
}

macro_rules! compared {
    ($($name:ident: $raw:ty => $value:ty, |$x:ident| $expression:expr;)*) => {$(
        struct $name;
        impl Compared for $name {
            type Raw = $raw;
            type Value = $value;
            #[inline(always)]
            fn value($x: $raw) -> $value {
                $expression
            }
        }
    )*};
}
compared! {
    AsU32: u32 => u32, |x| x;
    AsS16: i16 => i32, |x| x as i32;
    AsS32: i32 => i32, |x| x;
    AsU64: u64 => u64, |x| x;
    AsS64: i64 => i64, |x| x;
    AsF32: f32 => f32, |x| x;
    AsF32Flushed: f32 => f32, |x| if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x };
    AsF64: f64 => f64, |x| x;
    LowF16: u32 => f32, |x| order_f16(x & 0xffff);
    HighF16: u32 => f32, |x| order_f16(x >> 16);
    LowF16Flushed: u32 => f32, |x| order_f16(flush_f16(x & 0xffff));
    HighF16Flushed: u32 => f32, |x| order_f16(flush_f16(x >> 16));
    LowBf16: u32 => f32, |x| f32::from_bits(x << 16);
    HighBf16: u32 => f32, |x| f32::from_bits(x & 0xffff_0000);
}

/// An f32 that compares as the f16 does: the same sign, exponent and fraction fields, and NaN for NaN.
#[inline(always)]
fn order_f16(bits: u32) -> f32 {
    let magnitude = bits & 0x7fff;
    let nan = if magnitude > 0x7c00 { 0x7fc0_0000 } else { 0 };
    f32::from_bits((bits & 0x8000) << 16 | magnitude << 13 | nan)
}

/// Zero for a subnormal f16.
#[inline(always)]
fn flush_f16(bits: u32) -> u32 {
    if bits & 0x7fff < 0x400 { 0 } else { bits }
}

/// A relation as a type.
trait Holds {
    fn holds<V: PartialOrd>(a: V, b: V) -> bool;
}

macro_rules! relations {
    ($($name:ident: |$a:ident, $b:ident| $expression:expr;)*) => {$(
        struct $name;
        impl Holds for $name {
            #[inline(always)]
            fn holds<V: PartialOrd>($a: V, $b: V) -> bool {
                $expression
            }
        }
    )*};
}
relations! {
    Equal: |a, b| a == b;
    LessOrGreater: |a, b| (a < b) | (a > b);
    Less: |a, b| a < b;
    LessOrEqual: |a, b| a <= b;
    Greater: |a, b| a > b;
    GreaterOrEqual: |a, b| a >= b;
    Comparable: |a, b| (a <= b) | (a > b);
}

/// The kernel's code: a bit for each lane in which `a` and `b` have the relation.
#[inline(always)]
unsafe fn body<K: Compared, R: Holds>(file: *const Unit, a: u16, b: u16) -> u32 {
    let (a, b) = unsafe { (K::Raw::read(file, a), K::Raw::read(file, b)) };
    let mut bits = [false; 32];
    for l in 0..32 {
        bits[l] = R::holds(K::value(a[l]), K::value(b[l]));
    }
    pack(&bits)
}

unsafe fn bits<K: Compared, R: Holds>(file: *const Unit, a: u16, b: u16) -> u32 {
    unsafe { body::<K, R>(file, a, b) }
}

/// `setp` with one destination and no third predicate.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
unsafe fn single<K: Compared, R: Holds, const NOT: bool>(file: *mut Unit, operands: &[u16], mask: u32) {
    unsafe {
        let bits = body::<K, R>(file, operands[1], operands[2]);
        set_predicate(file, operands[0], if NOT { !bits } else { bits }, mask)
    }
}

/// A kernel in its uses.
struct Entry {
    low: unsafe fn(*const Unit, u16, u16) -> u32,
    /// The high halves of packed operands.
    high: unsafe fn(*const Unit, u16, u16) -> u32,
    /// `setp` with one destination, and its complement; for wide processors.
    single: [Run; 2],
}

const fn entry<L: Compared, H: Compared, R: Holds>() -> Entry {
    Entry { low: bits::<L, R>, high: bits::<H, R>, single: [single::<L, R, false>, single::<L, R, true>] }
}

macro_rules! entries {
    ($($low:ident $high:ident: $($relation:ident)*;)*) => {
        [$($(entry::<$low, $high, $relation>()),*),*]
    };
}

/// Integers first, five kernels each, then floats, seven each, in the order of [`Relation`].
static ENTRIES: [Entry; KERNELS] = entries! {
    AsU32 AsU32: Equal Less LessOrEqual Greater GreaterOrEqual;
    AsS16 AsS16: Equal Less LessOrEqual Greater GreaterOrEqual;
    AsS32 AsS32: Equal Less LessOrEqual Greater GreaterOrEqual;
    AsU64 AsU64: Equal Less LessOrEqual Greater GreaterOrEqual;
    AsS64 AsS64: Equal Less LessOrEqual Greater GreaterOrEqual;
    AsF32 AsF32: Equal Less LessOrEqual Greater GreaterOrEqual LessOrGreater Comparable;
    AsF32Flushed AsF32Flushed: Equal Less LessOrEqual Greater GreaterOrEqual LessOrGreater Comparable;
    AsF64 AsF64: Equal Less LessOrEqual Greater GreaterOrEqual LessOrGreater Comparable;
    LowF16 HighF16: Equal Less LessOrEqual Greater GreaterOrEqual LessOrGreater Comparable;
    LowF16Flushed HighF16Flushed: Equal Less LessOrEqual Greater GreaterOrEqual LessOrGreater Comparable;
    LowBf16 HighBf16: Equal Less LessOrEqual Greater GreaterOrEqual LessOrGreater Comparable;
};

const KERNELS: usize = 5 * 5 + 6 * 7;
/// The first kernel of f16; from there on kernels have a use for packed operands, which is a row of its own in codes.
const FIRST_HALF: usize = 46;
const ROWS: usize = KERNELS + (KERNELS - FIRST_HALF);

/// Which kernel, as an index; and whether operands are pairs of halves.
#[derive(Clone, Copy)]
struct Kernel {
    index: usize,
    packed: bool,
}

impl Kernel {
    fn of(source: Type, ftz: bool, relation: Relation) -> Option<Kernel> {
        let row = match source {
            _ if ftz && !matches!(source, F32 | F16 | F16x2) => return None,
            // Zero-extended in their lanes, 16-bit values compare as 32-bit ones.
            B16 | U16 | B32 | U32 => 0,
            S16 => 5,
            S32 => 10,
            B64 | U64 => 15,
            S64 => 20,
            F32 => 25 + if ftz { 7 } else { 0 },
            F64 => 39,
            F16 | F16x2 => 46 + if ftz { 7 } else { 0 },
            Bf16 | Bf16x2 => 60,
            _ => return None,
        };
        Some(Kernel { index: row + relation as usize, packed: matches!(source, F16x2 | Bf16x2) })
    }
}

/// What is written where the comparison holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    /// `setp`
    Predicates,
    /// `set`: all ones, in 32 bits or in both halves.
    Ones,
    /// `set` of an f16 or bf16 comparison into 16 bits: all ones.
    Ones16,
    /// `set`: 1.0 in the format of the operands; of integers and f64, in f32.
    One,
}

const OUTPUTS: [Output; 4] = [Output::Predicates, Output::Ones, Output::Ones16, Output::One];

impl Output {
    fn of(result: Type, source: Type) -> Option<Output> {
        Some(match (result, source) {
            (U32 | S32, _) => Output::Ones,
            (U16 | S16, F16 | Bf16) => Output::Ones16,
            (F16, F16) | (F16x2, F16x2) | (Bf16, Bf16) | (Bf16x2, Bf16x2) => Output::One,
            (F32, F16 | F16x2 | Bf16 | Bf16x2) => return None,
            (F32, _) => Output::One,
            _ => return None,
        })
    }
}

/// The results for (holds, c) = (0, 0), (0, 1), (1, 0), (1, 1), in the bits from 0 on. There are twelve: each operator with
/// its operands negated or not (`xor` has two), and the comparison alone.
fn truth_table(operator: BoolOp, complement: bool, negated_c: bool) -> u8 {
    let holds = if complement { !0b1100 } else { 0b1100 };
    let c = if negated_c { !0b1010 } else { 0b1010 };
    operator.apply(holds, c) as u8 & 15
}

const TABLES: [u8; 12] =
    [0b1100, 0b0011, 0b1000, 0b0100, 0b0010, 0b0001, 0b1110, 0b1101, 0b1011, 0b0111, 0b0110, 0b1001];

fn combine(table: u8, holds: u32, c: u32) -> u32 {
    let minterms = [!holds & !c, !holds & c, holds & !c, holds & c];
    (0..4).filter(|n| table >> n & 1 != 0).fold(0, |bits, n| bits | minterms[n])
}

/// `setp` and `set` in general.
///
/// # Safety
/// As for [`Run`].
unsafe fn combined(file: *mut Unit, operands: &[u16], mask: u32, code: usize) {
    let (row, table, result) = (
        code / (TABLES.len() * OUTPUTS.len()),
        TABLES[code / OUTPUTS.len() % TABLES.len()],
        OUTPUTS[code % OUTPUTS.len()],
    );
    let packed = row >= KERNELS;
    let kernel = &ENTRIES[if packed { row - KERNELS + FIRST_HALF } else { row }];
    let third = table != 0b1100 && table != 0b0011;
    let outputs = operands.len() - 2 - third as usize;
    let (a, b) = (operands[outputs], operands[outputs + 1]);
    unsafe {
        let c = if third { predicate(file, operands[outputs + 2]) } else { 0 };
        let low = (kernel.low)(file, a, b);
        // A scalar's second result is that of the complement.
        let second = if packed { (kernel.high)(file, a, b) } else { !low };
        let (first, second) = (combine(table, low, c), combine(table, second, c));
        if result == Output::Predicates {
            set_predicate(file, operands[0], first, mask);
            if outputs == 2 {
                set_predicate(file, operands[1], second, mask);
            }
            return;
        }
        let yes = match result {
            Output::Ones16 => 0xffff,
            Output::Ones if packed => 0xffff,
            Output::One if row >= KERNELS + 14 || (60..KERNELS).contains(&row) => 0x3f80,
            Output::One if row >= FIRST_HALF => 0x3c00,
            Output::One => 0x3f80_0000,
            _ => !0,
        };
        let mut out = [0; 32];
        #[allow(clippy::needless_range_loop, reason = "a lane's number is also its bit")]
        for l in 0..32 {
            let low = if first >> l & 1 != 0 { yes } else { 0 };
            out[l] = if packed && second >> l & 1 != 0 { low | yes << 16 } else { low };
        }
        u32::write(file, operands[0], &out, mask)
    }
}

/// The function for a code.
fn code(kernel: Kernel, table: u8, output: Output) -> Run {
    unsafe fn run<const CODE: usize>(file: *mut Unit, operands: &[u16], mask: u32) {
        unsafe { combined(file, operands, mask, CODE) }
    }
    macro_rules! rows {
        ($($row:literal)*) => { [$(rows!(@tables $row; 0 1 2 3 4 5 6 7 8 9 10 11)),*] };
        (@tables $row:literal; $($table:literal)*) => { [$(rows!(@outputs $row $table; 0 1 2 3)),*] };
        (@outputs $row:literal $table:literal; $($output:literal)*) => {
            [$(run::<{ ($row * 12 + $table) * 4 + $output }> as Run),*]
        };
    }
    static RUNS: [[[Run; OUTPUTS.len()]; TABLES.len()]; ROWS] = rows!(
        0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29
        30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59
        60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84 85 86 87
    );
    let row = if kernel.packed { KERNELS + kernel.index - FIRST_HALF } else { kernel.index };
    let table = TABLES.iter().position(|&t| t == table).unwrap_or(0);
    let output = OUTPUTS.iter().position(|&o| o == output).unwrap_or(0);
    RUNS[row][table][output]
}
