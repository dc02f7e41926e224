//! Against the ISA's text: bit by bit, byte by byte, and comparisons in exact arithmetic.

use half::{bf16, f16};

use super::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::lanes::testing::{Random, check, check_warp, refused};
use crate::ptx::ast::Type;

fn mask(width: u32) -> u128 {
    u128::MAX >> (128 - width)
}

fn register(width: u32) -> &'static str {
    match width {
        8 => "%rb",
        16 => "%rs",
        32 => "%r",
        64 => "%rd",
        _ => "%rq",
    }
}

/// A lane's bits as a signed number.
fn signed(bits: u128, width: u32) -> i128 {
    (bits as i128) << (128 - width) >> (128 - width)
}

#[test]
fn bitwise_logic() {
    for width in [16, 32, 64] {
        let r = register(width);
        check(&format!("and.b{width} {r}1, {r}2, {r}3"), |i| vec![i[0] & i[1]]);
        check(&format!("or.b{width} {r}1, {r}2, {r}3"), |i| vec![i[0] | i[1]]);
        check(&format!("xor.b{width} {r}1, {r}2, {r}3"), |i| vec![i[0] ^ i[1]]);
        check(&format!("not.b{width} {r}1, {r}2"), |i| vec![!i[0] & mask(width)]);
        check(&format!("cnot.b{width} {r}1, {r}2"), |i| vec![(i[0] == 0) as u128]);
    }
}

#[test]
fn predicate_logic() {
    for (a, not_a) in [("%p2", 0), ("!%p2", 1)] {
        for (b, not_b) in [("%p3", 0), ("!%p3", 1)] {
            check(&format!("and.pred %p1, {a}, {b}"), |i| vec![(i[0] ^ not_a) & (i[1] ^ not_b)]);
            check(&format!("or.pred %p1, {a}, {b}"), |i| vec![(i[0] ^ not_a) | (i[1] ^ not_b)]);
            check(&format!("xor.pred %p1, {a}, {b}"), |i| vec![(i[0] ^ not_a) ^ (i[1] ^ not_b)]);
        }
        check(&format!("mov.pred %p1, {a}"), |i| vec![i[0] ^ not_a]);
        check(&format!("not.pred %p1, {a}"), |i| vec![i[0] ^ not_a ^ 1]);
    }
    check("mov.pred %p1, 1", |_| vec![1]);
    check("mov.pred %p1, 0", |_| vec![0]);
}

/// The table's bit for each bit of the sources.
fn looked_up(table: u32, i: &[u128]) -> u128 {
    (0..32).fold(0, |d, n| {
        let index = (i[0] >> n & 1) << 2 | (i[1] >> n & 1) << 1 | i[2] >> n & 1;
        d | (table as u128 >> index & 1) << n
    })
}

#[test]
fn every_table_of_lop3() {
    for table in 0..256 {
        check(&format!("lop3.b32 %r1, %r2, %r3, %r4, {table}"), |i| vec![looked_up(table, i)]);
    }
    for table in [0, 0x40, 0x80, 0x96, 0xe8, 0xff] {
        for (q, not) in [("%p2", 0), ("!%p2", 1)] {
            check(&format!("lop3.or.b32 %r1|%p1, %r2, %r3, %r4, {table}, {q}"), |i| {
                let d = looked_up(table, i);
                vec![d, (d != 0) as u128 | (i[4] ^ not)]
            });
            check(&format!("lop3.and.b32 %r1|%p1, %r2, %r3, %r4, {table}, {q}"), |i| {
                let d = looked_up(table, i);
                vec![d, (d != 0) as u128 & (i[4] ^ not)]
            });
        }
    }
    refused("lop3.b32 %r1, %r2, %r3, %r4, 256");
    refused("lop3.b32 %r1, %r2, %r3, %r4, %r5");
    refused("lop3.xor.b32 %r1|%p1, %r2, %r3, %r4, 1, %p2");
}

#[test]
fn the_tables_of_the_isas_text() {
    // a & b & ~c = 0x40; (a & b | c) ^ a = 0x1a
    check("lop3.b32 %r1, %r2, %r3, %r4, 0x40", |i| vec![i[0] & i[1] & !i[2]]);
    check("lop3.b32 %r1, %r2, %r3, %r4, 0x1a", |i| vec![(i[0] & i[1] | i[2]) ^ i[0]]);
}

#[test]
fn shifts() {
    for width in [16u32, 32, 64] {
        let r = register(width);
        let amounts = ["%r3".to_owned()].into_iter();
        let amounts = amounts.chain([0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, -1].map(|n: i32| n.to_string()));
        for amount in amounts {
            let right = |a: u128, n: u128| if n >= width as u128 { 0 } else { a >> n };
            check(&format!("shl.b{width} {r}1, {r}2, {amount}"), |i| {
                vec![if i[1] >= width as u128 { 0 } else { i[0] << i[1] & mask(width) }]
            });
            check(&format!("shr.b{width} {r}1, {r}2, {amount}"), |i| vec![right(i[0], i[1])]);
            check(&format!("shr.u{width} {r}1, {r}2, {amount}"), |i| vec![right(i[0], i[1])]);
            check(&format!("shr.s{width} {r}1, {r}2, {amount}"), |i| {
                vec![(signed(i[0], width) >> i[1].min(127)) as u128 & mask(width)]
            });
        }
    }
}

#[test]
fn funnel_shifts() {
    for (mode, amount) in [("clamp", (|c| c.min(32)) as fn(u128) -> u128), ("wrap", |c| c & 31)] {
        check(&format!("shf.l.{mode}.b32 %r1, %r2, %r3, %r4"), |i| {
            vec![(i[1] << 32 | i[0]) << amount(i[2]) >> 32 & mask(32)]
        });
        check(&format!("shf.r.{mode}.b32 %r1, %r2, %r3, %r4"), |i| {
            vec![(i[1] << 32 | i[0]) >> amount(i[2]) & mask(32)]
        });
    }
}

/// `prmt` with a selector, as in the ISA's text.
fn permuted(i: &[u128], selector: u128) -> u128 {
    let bytes = i[1] << 32 | i[0];
    (0..4).fold(0, |d, n| {
        let control = selector >> (4 * n) & 15;
        let byte = bytes >> (8 * (control & 7)) & 0xff;
        let byte = if control & 8 != 0 { if byte & 0x80 != 0 { 0xff } else { 0 } } else { byte };
        d | byte << (8 * n)
    })
}

#[test]
fn byte_permutation() {
    check("prmt.b32 %r1, %r2, %r3, %r4", |i| vec![permuted(i, i[2])]);
    let mut random = Random(7);
    let usual = [0x5410, 0x7632, 0x7610, 0x0123, 0x9910, 0xbb32, 0x3254, 0x7531, 0x8888];
    for selector in usual.into_iter().chain((0..100).map(|_| random.next() & 0xffff)) {
        check(&format!("prmt.b32 %r1, %r2, %r3, {selector}"), |i| vec![permuted(i, selector as u128)]);
    }
    check("prmt.b32 %r1, %r2, %r3, 0x12345410", |i| vec![permuted(i, 0x5410)]);
    // The ISA's table: selector bits 1:0, then the source byte of the result's bytes 3, 2, 1, 0.
    let modes = [
        ("f4e", ["3210", "4321", "5432", "6543"]),
        ("b4e", ["5670", "6701", "7012", "0123"]),
        ("rc8", ["0000", "1111", "2222", "3333"]),
        ("ecl", ["3210", "3211", "3222", "3333"]),
        ("ecr", ["0000", "1110", "2210", "3210"]),
        ("rc16", ["1010", "3232", "1010", "3232"]),
    ];
    for (mode, rows) in modes {
        let rows = rows.map(|row| u128::from_str_radix(row, 16).unwrap());
        check(&format!("prmt.b32.{mode} %r1, %r2, %r3, %r4"), |i| vec![permuted(i, rows[i[2] as usize & 3])]);
    }
}

#[test]
fn moves() {
    for ty in ["b16", "u16", "s16", "b32", "u32", "s32", "f32", "b64", "u64", "s64", "f64", "b128"] {
        let r = register(ty[1..].parse().unwrap());
        check(&format!("mov.{ty} {r}1, {r}2"), |i| vec![i[0]]);
    }
    // %tid.x is a 32-bit register to the 16-bit form.
    check("mov.u16 %rs1, %r2", |i| vec![i[0] & 0xffff]);
    check("mov.u32 %r1, 0xffffffff", |_| vec![0xffff_ffff]);
    check("mov.b64 %rd1, -1", |_| vec![u64::MAX as u128]);
}

#[test]
fn packing_and_unpacking() {
    for (width, count) in [(16, 2), (32, 2), (32, 4), (64, 2), (64, 4), (128, 2), (128, 4)] {
        let (r, part) = (register(width), width / count);
        let parts: Vec<String> = (1..=count).map(|n| format!("{}{n}", register(part))).collect();
        let parts = parts.join(", ");
        check(&format!("mov.b{width} {r}9, {{{parts}}}"), |i| {
            vec![i.iter().enumerate().fold(0, |d, (n, x)| d | x << (n as u32 * part))]
        });
        check(&format!("mov.b{width} {{{parts}}}, {r}9"), |i| {
            (0..count).map(|n| i[0] >> (n * part) & mask(part)).collect()
        });
    }
    check("mov.b32 %r1, {%rs2, 0}", |i| vec![i[0]]);
    for text in [
        "mov.u64 %rd1, {%r1, %r2}",
        "mov.b64 %rd1, {%r1, %r2, %r3}",
        "mov.b64 {%r1}, %rd1",
        "mov.b32 {}, %r1",
        "mov.b8 %rb1, %rb2",
        "mov.f16 %rs1, %rs2",
    ] {
        refused(text);
    }
}

#[test]
fn selection() {
    for ty in ["b16", "u16", "s16", "b32", "u32", "s32", "f32", "b64", "u64", "s64", "f64"] {
        let r = register(ty[1..].parse().unwrap());
        check(&format!("selp.{ty} {r}1, {r}2, {r}3, %p1"), |i| vec![if i[2] != 0 { i[0] } else { i[1] }]);
        check(&format!("selp.{ty} {r}1, {r}2, {r}3, !%p1"), |i| vec![if i[2] == 0 { i[0] } else { i[1] }]);
        check(&format!("slct.{ty}.s32 {r}1, {r}2, {r}3, %r4"), |i| {
            vec![if signed(i[2], 32) >= 0 { i[0] } else { i[1] }]
        });
        check(&format!("slct.{ty}.f32 {r}1, {r}2, {r}3, %r4"), |i| {
            vec![if f32::from_bits(i[2] as u32) >= 0.0 { i[0] } else { i[1] }]
        });
        check(&format!("slct.ftz.{ty}.f32 {r}1, {r}2, {r}3, %r4"), |i| {
            vec![if flushed(f32::from_bits(i[2] as u32)) >= 0.0 { i[0] } else { i[1] }]
        });
    }
    refused("slct.ftz.b32.s32 %r1, %r2, %r3, %r4");
    refused("selp.f16 %rs1, %rs2, %rs3, %p1");
    refused("selp.b32 %r1, !%r2, %r3, %p1");
}

fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// What the ISA's tables say about a comparison of two numbers, given as f64 or as integers.
fn holds<T: PartialOrd>(comparison: &str, a: T, b: T) -> bool {
    let order = a.partial_cmp(&b);
    use std::cmp::Ordering::*;
    match (comparison, order) {
        ("nan", order) => order.is_none(),
        ("num", order) => order.is_some(),
        (_, None) => comparison.ends_with('u'),
        (_, Some(order)) => match comparison.trim_end_matches('u') {
            "eq" => order == Equal,
            "ne" => order != Equal,
            "lt" | "lo" => order == Less,
            "le" | "ls" => order != Greater,
            "gt" | "hi" => order == Greater,
            _ => order != Less,
        },
    }
}

const FLOAT: [&str; 14] = ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];
const SIGNED: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];
const UNSIGNED: [&str; 10] = ["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"];

/// The comparison of two registers' bits (the low ones, as many as the type has) in a type.
fn compared(comparison: &str, ty: &str, ftz: bool, a: u128, b: u128) -> bool {
    let flush = |x: f64, least: f64| if ftz && x.abs() < least { 0.0 } else { x };
    let width = ty.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_end_matches("x2").parse().unwrap();
    let (a, b) = (a & mask(width), b & mask(width));
    let number = |x: u128| match ty.trim_end_matches("x2") {
        "f64" => f64::from_bits(x as u64),
        "f32" => flush(f32::from_bits(x as u32) as f64, f32::MIN_POSITIVE as f64),
        "f16" => flush(f16::from_bits(x as u16).to_f64(), f16::MIN_POSITIVE.to_f64()),
        _ => bf16::from_bits(x as u16).to_f64(),
    };
    match &ty[..1] {
        "s" => holds(comparison, signed(a, width), signed(b, width)),
        "u" => holds(comparison, a, b),
        "b" if !ty.starts_with("bf") => holds(comparison, a, b),
        _ => holds(comparison, number(a), number(b)),
    }
}

/// Every type with its comparisons and whether `.ftz` is possible.
fn cases() -> Vec<(&'static str, bool, &'static [&'static str])> {
    let mut cases: Vec<(&str, bool, &[&str])> = Vec::new();
    cases.extend(["b16", "b32", "b64"].map(|ty| (ty, false, &SIGNED[..2])));
    cases.extend(["u16", "u32", "u64"].map(|ty| (ty, false, &UNSIGNED[..])));
    cases.extend(["s16", "s32", "s64"].map(|ty| (ty, false, &SIGNED[..])));
    cases.extend(["f32", "f64", "f16", "bf16", "f16x2", "bf16x2"].map(|ty| (ty, false, &FLOAT[..])));
    cases.extend(["f32", "f16", "f16x2"].map(|ty| (ty, true, &FLOAT[..])));
    cases
}

fn width_of(ty: &str) -> u32 {
    Type::named(ty).unwrap().bits()
}

#[test]
fn setp_in_every_type() {
    for (ty, ftz, comparisons) in cases() {
        let (r, suffix, packed) = (register(width_of(ty)), if ftz { ".ftz" } else { "" }, ty.ends_with("x2"));
        for comparison in comparisons {
            let lane = |i: &[u128]| {
                let low = compared(comparison, ty, ftz, i[0], i[1]);
                let second = if packed { compared(comparison, ty, ftz, i[0] >> 16, i[1] >> 16) } else { !low };
                [low, second]
            };
            check(&format!("setp.{comparison}{suffix}.{ty} %p1, {r}1, {r}2"), |i| vec![lane(i)[0] as u128]);
            check(&format!("setp.{comparison}{suffix}.{ty} %p1|%p2, {r}1, {r}2"), |i| lane(i).map(u128::from).to_vec());
            for (c, not) in [("%p3", false), ("!%p3", true)] {
                for (operator, apply) in OPERATORS {
                    let combined = |i: &[u128]| lane(i).map(|t| apply(t, (i[2] != 0) != not) as u128);
                    check(&format!("setp.{comparison}.{operator}{suffix}.{ty} %p1|%p2, {r}1, {r}2, {c}"), |i| {
                        combined(i).to_vec()
                    });
                    check(&format!("setp.{comparison}.{operator}{suffix}.{ty} %p1, {r}1, {r}2, {c}"), |i| {
                        combined(i)[..1].to_vec()
                    });
                }
            }
        }
    }
}

type Operator = fn(bool, bool) -> bool;
const OPERATORS: [(&str, Operator); 3] = [("and", |a, b| a & b), ("or", |a, b| a | b), ("xor", |a, b| a ^ b)];

#[test]
fn set_in_every_type() {
    for (ty, ftz, comparisons) in cases() {
        let (r, suffix, packed) = (register(width_of(ty)), if ftz { ".ftz" } else { "" }, ty.ends_with("x2"));
        let results: &[(&str, u128)] = match ty {
            "f16" => &[("u32", 0xffff_ffff), ("s32", 0xffff_ffff), ("u16", 0xffff), ("s16", 0xffff), ("f16", 0x3c00)],
            "bf16" => &[("u32", 0xffff_ffff), ("s32", 0xffff_ffff), ("u16", 0xffff), ("s16", 0xffff), ("bf16", 0x3f80)],
            "f16x2" => &[("u32", 0xffff), ("s32", 0xffff), ("f16x2", 0x3c00)],
            "bf16x2" => &[("u32", 0xffff), ("s32", 0xffff), ("bf16x2", 0x3f80)],
            _ => &[("u32", 0xffff_ffff), ("s32", 0xffff_ffff), ("f32", 0x3f80_0000)],
        };
        for comparison in comparisons {
            for &(result, yes) in results {
                let d = register(width_of(result));
                let value = |i: &[u128], apply: Operator, c: bool| {
                    let low = apply(compared(comparison, ty, ftz, i[0], i[1]), c);
                    let high = packed && apply(compared(comparison, ty, ftz, i[0] >> 16, i[1] >> 16), c);
                    vec![(low as u128 * yes) | ((high as u128 * yes) << 16)]
                };
                check(&format!("set.{comparison}{suffix}.{result}.{ty} {d}1, {r}2, {r}3"), |i| {
                    value(i, |t, _| t, false)
                });
                for (c, not) in [("%p3", false), ("!%p3", true)] {
                    for (operator, apply) in OPERATORS {
                        let text = format!("set.{comparison}.{operator}{suffix}.{result}.{ty} {d}1, {r}2, {r}3, {c}");
                        check(&text, |i| value(i, apply, (i[2] != 0) != not));
                    }
                }
            }
        }
    }
}

#[test]
fn comparisons_that_the_isa_does_not_have() {
    for text in [
        "setp.lo.s32 %p1, %r1, %r2",
        "setp.lt.b32 %p1, %r1, %r2",
        "setp.ltu.u32 %p1, %r1, %r2",
        "setp.lo.f32 %p1, %r1, %r2",
        "setp.lt.ftz.f64 %p1, %rd1, %rd2",
        "setp.lt.ftz.bf16 %p1, %rs1, %rs2",
        "setp.lt.u32 %p1, %r1, %r2, %p2",
        "setp.lt.nand.u32 %p1, %r1, %r2, %p2",
        "setp.lt.u8 %p1, %r1, %r2",
        "set.lt.u64.u32 %rd1, %r1, %r2",
        "set.lt.f32.f16 %r1, %rs1, %rs2",
        "set.lt.f16x2.bf16x2 %r1, %r2, %r3",
        "set.lt.u16.f32 %rs1, %r2, %r3",
    ] {
        refused(text);
    }
}

#[test]
fn address_windows() {
    check("cvta.global.u64 %rd1, %rd2", |i| vec![i[0]]);
    check("cvta.to.global.u64 %rd1, %rd2", |i| vec![i[0]]);
    check("cvta.const.u64 %rd1, %rd2", |i| vec![i[0]]);
    for (space, window) in
        [("shared", SHARED_WINDOW), ("shared::cta", SHARED_WINDOW), ("local", LOCAL_WINDOW), ("param", PARAM_WINDOW)]
    {
        check(&format!("cvta.{space}.u64 %rd1, %rd2"), |i| vec![(i[0] as u64).wrapping_add(window) as u128]);
        check(&format!("cvta.to.{space}.u64 %rd1, %rd2"), |i| vec![(i[0] as u64).wrapping_sub(window) as u128]);
    }
    let addresses = |random: &mut Random| {
        std::array::from_fn(|_| {
            let base = [0, SHARED_WINDOW, LOCAL_WINDOW, PARAM_WINDOW, 4 << 32, 1 << 52][random.below(6)];
            (base as u128 + [0, 1, 0xffff_ffff][random.below(3)]) & mask(64)
        })
    };
    for (space, is) in [("shared", [1].as_slice()), ("local", &[2]), ("param", &[3])] {
        check_warp(&format!("isspacep.{space} %p1, %rd1"), &[(0, &addresses)], |inputs, _| {
            vec![inputs[0].map(|a| is.contains(&(a >> 32)) as u128)]
        });
    }
    check_warp("isspacep.global %p1, %rd1", &[(0, &addresses)], |inputs, _| {
        vec![inputs[0].map(|a| !matches!(a >> 32, 1 | 2) as u128)]
    });
    for text in [
        "cvta.shared.u32 %r1, %r2",
        "cvta.shared::cluster.u64 %rd1, %rd2",
        "isspacep.const %p1, %rd1",
        "mapa.u64 %rd1, %rd2, %r1",
        "getctarank.u64 %r1, %rd1",
    ] {
        refused(text);
    }
}
