//! Forms of `cvt` against definitions in integers.

use crate::isa;
use crate::isa::float::tests::{form, instruction, lanes, refused, run};
use crate::num::Round;
use crate::num::format::{self, Bf16, E4m3, E5m2, F16, F32, F64, Format, Tf32};
use crate::num::reference::{self, Patterns};
use crate::ptx::ast::{Operand, Type};

const INTEGERS: [(&str, Type); 8] = [
    ("u8", Type::U8),
    ("s8", Type::S8),
    ("u16", Type::U16),
    ("s16", Type::S16),
    ("u32", Type::U32),
    ("s32", Type::S32),
    ("u64", Type::U64),
    ("s64", Type::S64),
];

const FLOATS: [(&str, Type); 4] = [("f16", Type::F16), ("bf16", Type::Bf16), ("f32", Type::F32), ("f64", Type::F64)];

const MODES: [(&str, Round); 4] = [("rn", Round::Nearest), ("rz", Round::Zero), ("rm", Round::Down), ("rp", Round::Up)];

/// The value of the low bits as the type.
fn value(bits: u64, ty: Type) -> i128 {
    let n = ty.bits();
    let low = (bits as u128 & ((1 << n) - 1)) as i128;
    if ty.signed() && low >> (n - 1) & 1 == 1 { low - (1 << n) } else { low }
}

fn range(ty: Type) -> (i128, i128) {
    let n = ty.bits();
    if ty.signed() { (-(1 << (n - 1)), (1 << (n - 1)) - 1) } else { (0, (1 << n) - 1) }
}

/// How a value of the type lies in a register: extended by its sign, or with zeros.
fn stored(value: i128, ty: Type, register: Type) -> u64 {
    let n = ty.bits();
    let low = (value as u128 & ((1 << n) - 1)) as i128;
    let value = if ty.signed() && low >> (n - 1) & 1 == 1 { low - (1 << n) } else { low };
    (value as u128 & ((1 << register.bits()) - 1)) as u64
}

/// The registers that may hold a type, with the bits above it garbage as a source.
fn registers(ty: Type) -> Vec<Type> {
    [Type::B16, Type::B32, Type::B64].into_iter().filter(|r| r.bits() >= ty.bits()).collect()
}

/// Random bits of a register, many of them small or extreme.
fn integers(patterns: &mut Patterns, register: Type) -> [u64; 32] {
    std::array::from_fn(|_| {
        let (a, shift) = (patterns.random(), patterns.random() % 64);
        let x = match a % 4 {
            0 => a >> shift,
            1 => ((a as i64) >> shift) as u64,
            2 => [
                0,
                1,
                127,
                128,
                255,
                256,
                32767,
                32768,
                65535,
                65536,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
                1 << 63,
                u64::MAX >> 1,
                u64::MAX,
            ][(shift % 16) as usize],
            _ => a,
        };
        (x as u128 & ((1 << register.bits()) - 1)) as u64
    })
}

#[test]
fn between_integers_in_registers_of_any_width() {
    let mut patterns = Patterns::new(1);
    for (to_name, to) in INTEGERS {
        for (from_name, from) in INTEGERS {
            let (low, high) = range(to);
            let (least, most) = range(from);
            for sat in [false, true] {
                let text = format!("cvt{}.{to_name}.{from_name}", if sat { ".sat" } else { "" });
                if sat && low <= least && most <= high {
                    refused(&text, 2);
                    continue;
                }
                for source in registers(from) {
                    for target in registers(to) {
                        let a = integers(&mut patterns, source);
                        let got = run(&text, &[target, source], &[a]);
                        for l in 0..32 {
                            let x = value(a[l], from);
                            let x = if sat { x.clamp(low, high) } else { x };
                            assert_eq!(got[l], stored(x, to, target), "{text} {source:?} to {target:?} of {:#x}", a[l]);
                        }
                    }
                }
            }
        }
    }
}

/// A value of a floating-point register in f64, which holds all of them.
fn real(bits: u64, ty: Type) -> f64 {
    match ty {
        Type::F16 => half::f16::from_bits(bits as u16).to_f64(),
        Type::Bf16 => half::bf16::from_bits(bits as u16).to_f64(),
        Type::F32 => f32::from_bits(bits as u32) as f64,
        _ => f64::from_bits(bits),
    }
}

fn random(patterns: &mut Patterns, ty: Type) -> [u64; 32] {
    match ty {
        Type::F16 => lanes::<F16>(patterns),
        Type::Bf16 => lanes::<Bf16>(patterns),
        Type::F32 => lanes::<F32>(patterns),
        _ => lanes::<F64>(patterns),
    }
}

/// A whole number next to `x`, without the functions under test.
fn whole(x: f64, mode: Round) -> i128 {
    let truncated = x as i128;
    // From 2^53 on all numbers are whole.
    let rest = if x.abs() < 2f64.powi(53) { x - truncated as f64 } else { 0.0 };
    let up = match mode {
        Round::Nearest => rest.abs() > 0.5 || rest.abs() == 0.5 && truncated & 1 != 0,
        Round::Down => rest < 0.0,
        Round::Up => rest > 0.0,
        _ => false,
    };
    truncated + if up { rest.signum() as i128 } else { 0 }
}

#[test]
fn to_integers() {
    let mut patterns = Patterns::new(2);
    for (from_name, from) in FLOATS {
        for (to_name, to) in INTEGERS {
            for (mode, round) in
                [("rni", Round::Nearest), ("rzi", Round::Zero), ("rmi", Round::Down), ("rpi", Round::Up)]
            {
                for extra in ["", ".sat", ".ftz"] {
                    if extra == ".ftz" && from != Type::F32 {
                        continue;
                    }
                    let text = format!("cvt.{mode}{extra}.{to_name}.{from_name}");
                    let source = if from.bits() == 64 { Type::F64 } else { Type::B32 };
                    for target in registers(to) {
                        let mut a = random(&mut patterns, from);
                        if from == Type::F64 {
                            // Numbers around the ends of the ranges, and ties.
                            for (l, a) in a.iter_mut().enumerate().take(16) {
                                let (low, high) = range(to);
                                let end = if l % 2 == 0 { low as f64 } else { high as f64 };
                                *a = (end + (l as f64 - 8.0) * 0.25).to_bits();
                            }
                        }
                        if from == Type::F32 {
                            for (l, a) in a.iter_mut().enumerate().take(16) {
                                *a = ((l as f32 - 8.0) * 0.5).to_bits() as u64;
                            }
                        }
                        let got = run(&text, &[target, source], &[a]);
                        for l in 0..32 {
                            let x = real(a[l], from);
                            let x = if extra == ".ftz" && x.abs() < f32::MIN_POSITIVE as f64 { 0.0 } else { x };
                            let (low, high) = range(to);
                            let expected = match x {
                                x if x.is_nan() && (from == Type::F64 || to.bits() == 64) => 1 << (to.bits() - 1),
                                x if x.is_nan() => 0,
                                x => whole(x, round).clamp(low, high),
                            };
                            assert_eq!(got[l], stored(expected, to, target), "{text} to {target:?} of {x:e}");
                        }
                    }
                }
            }
        }
    }
}

/// An integer in a format by definition.
fn rounded(x: i128, ty: Type, mode: Round) -> u64 {
    match ty {
        _ if x == 0 => 0,
        Type::F16 => reference::integer::<F16>(x, mode),
        Type::Bf16 => reference::integer::<Bf16>(x, mode),
        Type::F32 => reference::integer::<F32>(x, mode),
        _ => reference::integer::<F64>(x, mode),
    }
}

#[test]
fn from_integers() {
    let mut patterns = Patterns::new(3);
    for (to_name, to) in FLOATS {
        for (from_name, from) in INTEGERS {
            for (mode, round) in MODES {
                let text = format!("cvt.{mode}.{to_name}.{from_name}");
                let target = if to.bits() == 64 { Type::F64 } else { Type::B32 };
                for source in registers(from) {
                    let a = integers(&mut patterns, source);
                    let got = run(&text, &[target, source], &[a]);
                    for l in 0..32 {
                        let x = value(a[l], from);
                        assert_eq!(got[l], rounded(x, to, round), "{text} of {x}");
                    }
                    if to != Type::Bf16 {
                        let text = format!("cvt.{mode}.sat.{to_name}.{from_name}");
                        let got = run(&text, &[target, source], &[a]);
                        for l in 0..32 {
                            let x = value(a[l], from);
                            assert_eq!(got[l], rounded(x.clamp(0, 1), to, round), "{text} of {x}");
                        }
                    }
                }
            }
            refused(&format!("cvt.{to_name}.{from_name}"), 2);
            refused(&format!("cvt.rzi.{to_name}.{from_name}"), 2);
        }
    }
}

fn flush(bits: u64, ty: Type, ftz: bool) -> u64 {
    if ftz && ty == Type::F32 && bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits }
}

fn nan(ty: Type) -> u64 {
    match ty {
        Type::F32 => F32::NAN,
        Type::F64 => F64::NAN,
        _ => F16::NAN,
    }
}

/// A conversion between formats; `num::exact` tests `format::convert` by definition.
fn converted(x: u64, from: Type, to: Type, mode: Round) -> u64 {
    fn to_type<From: Format>(x: u64, to: Type, mode: Round) -> u64 {
        match to {
            Type::F16 => format::convert::<From, F16>(x, mode),
            Type::Bf16 => format::convert::<From, Bf16>(x, mode),
            Type::F32 => format::convert::<From, F32>(x, mode),
            _ => format::convert::<From, F64>(x, mode),
        }
    }
    match from {
        Type::F16 => to_type::<F16>(x, to, mode),
        Type::Bf16 => to_type::<Bf16>(x, to, mode),
        Type::F32 => to_type::<F32>(x, to, mode),
        _ => to_type::<F64>(x, to, mode),
    }
}

#[test]
fn between_formats() {
    let mut patterns = Patterns::new(4);
    for (to_name, to) in FLOATS {
        for (from_name, from) in FLOATS {
            if to == from {
                continue;
            }
            let narrows = to.bits() <= from.bits();
            let modes: Vec<(String, Round)> = if narrows {
                MODES.iter().map(|(m, r)| (format!(".{m}"), *r)).collect()
            } else {
                vec![(String::new(), Round::Nearest)]
            };
            if narrows {
                refused(&format!("cvt.{to_name}.{from_name}"), 2);
            } else if from != Type::Bf16 {
                refused(&format!("cvt.rn.{to_name}.{from_name}"), 2);
            }
            for (mode, round) in modes {
                for ftz in [false, true] {
                    for sat in [false, true] {
                        let (f, s) = (if ftz { ".ftz" } else { "" }, if sat { ".sat" } else { "" });
                        let text = format!("cvt{mode}{f}{s}.{to_name}.{from_name}");
                        if ftz && to != Type::F32 && from != Type::F32 || sat && to == Type::Bf16 {
                            refused(&text, 2);
                            continue;
                        }
                        let register = |t: Type| if t.bits() == 64 { Type::F64 } else { Type::B32 };
                        for _ in 0..30 {
                            let a = random(&mut patterns, from);
                            let got = run(&text, &[register(to), register(from)], &[a]);
                            for l in 0..32 {
                                let x = flush(converted(flush(a[l], from, ftz), from, to, round), to, ftz);
                                let y = real(x, to);
                                let expected = match sat {
                                    false => x,
                                    true if y.is_nan() || y <= 0.0 => 0,
                                    true if y >= 1.0 => rounded(1, to, Round::Nearest),
                                    true => x,
                                };
                                assert_eq!(got[l], expected, "{text} of {:#x}", a[l]);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Values so close to a tie that f32 takes them for one, which would go the other way.
#[test]
fn f64_is_rounded_once() {
    let power = |n: i32| 2f64.powi(n);
    for (ty, digits, one) in [("f16", 10, 0x3c00), ("bf16", 7, 0x3f80)] {
        let above = 1.0 + power(-digits - 1) + power(-40);
        let below = 1.0 + power(-digits) + power(-digits - 1) - power(-40);
        for (x, expected) in
            [(above, one + 1), (below, one + 1), (-above, 0x8000 | (one + 1)), (-below, 0x8000 | (one + 1))]
        {
            let got = run(&format!("cvt.rn.{ty}.f64"), &[Type::B16, Type::F64], &[[x.to_bits(); 32]]);
            assert_eq!(got, [expected; 32], "{ty} of {x:e}");
        }
    }
}

#[test]
fn within_a_format() {
    let mut patterns = Patterns::new(5);
    for (name, ty) in FLOATS {
        let register = if ty.bits() == 64 { Type::F64 } else { Type::B32 };
        for (mode, round) in [
            ("", None),
            (".rni", Some(Round::Nearest)),
            (".rzi", Some(Round::Zero)),
            (".rmi", Some(Round::Down)),
            (".rpi", Some(Round::Up)),
        ] {
            for (ftz, sat) in [(false, false), (true, false), (false, true), (true, true)] {
                let (f, s) = (if ftz { ".ftz" } else { "" }, if sat { ".sat" } else { "" });
                let text = format!("cvt{mode}{f}{s}.{name}.{name}");
                if ftz && ty != Type::F32 || sat && ty == Type::Bf16 {
                    refused(&text, 2);
                    continue;
                }
                for _ in 0..30 {
                    let a = random(&mut patterns, ty);
                    let got = run(&text, &[register, register], &[a]);
                    for l in 0..32 {
                        let bits = flush(a[l], ty, ftz);
                        let x = real(bits, ty);
                        // From 2^60 on every number is whole; below, the whole number fits, with the sign of a zero.
                        let y = match round {
                            Some(mode) if x.abs() < 2f64.powi(60) => (whole(x, mode) as f64).abs().copysign(x),
                            _ => x,
                        };
                        let y = match sat {
                            true if y.is_nan() || y <= 0.0 => 0.0,
                            true => y.min(1.0),
                            false => y,
                        };
                        let expected = match y {
                            y if !y.is_nan() => converted(y.to_bits(), Type::F64, ty, Round::Nearest),
                            // A NaN of f64 passes through.
                            _ if ty == Type::F64 && round.is_some() => bits | 1 << 51,
                            _ if ty == Type::F64 => bits,
                            _ => nan(ty),
                        };
                        assert_eq!(got[l], expected, "{text} of {:#x}", a[l]);
                    }
                }
            }
        }
    }
    refused("cvt.rn.f32.f32", 2);
}

/// A narrow format with `.relu` and `.satfinite`, by definition.
fn ended<From: Format, To: Format>(x: u64, mode: Round, relu: bool, satfinite: bool) -> u64 {
    let result = match format::unpack::<From>(x) {
        format::Value::Infinite { negative } if satfinite => To::MAX | if negative { To::SIGN } else { 0 },
        _ => format::convert::<From, To>(x, mode),
    };
    let magnitude = result & !To::SIGN;
    let nan = magnitude > To::MAX && !(To::INFINITY && magnitude == To::TOP);
    match result {
        r if nan => r,
        r if relu && r & To::SIGN != 0 => 0,
        r if satfinite && magnitude > To::MAX => To::MAX | r & To::SIGN,
        r => r,
    }
}

const ENDS: [(&str, bool, bool); 4] =
    [("", false, false), (".relu", true, false), (".satfinite", false, true), (".relu.satfinite", true, true)];

#[test]
fn one_and_two_f32_to_halves() {
    let mut patterns = Patterns::new(6);
    for (end, relu, satfinite) in ENDS {
        for (mode, round) in &MODES[..2] {
            for _ in 0..60 {
                let (a, b) = (lanes::<F32>(&mut patterns), lanes::<F32>(&mut patterns));
                let run1 = |ty: &str| run(&format!("cvt.{mode}{end}.{ty}.f32"), &[Type::B16, Type::F32], &[a]);
                let run2 =
                    |ty: &str| run(&format!("cvt.{mode}{end}.{ty}x2.f32"), &[Type::B32, Type::F32, Type::F32], &[a, b]);
                let (h, h2, g, g2) = (run1("f16"), run2("f16"), run1("bf16"), run2("bf16"));
                for l in 0..32 {
                    let f16 = |x| ended::<F32, F16>(x, *round, relu, satfinite);
                    let bf16 = |x| ended::<F32, Bf16>(x, *round, relu, satfinite);
                    assert_eq!(h[l], f16(a[l]), "f16 {mode}{end} of {:#x}", a[l]);
                    assert_eq!(g[l], bf16(a[l]), "bf16 {mode}{end} of {:#x}", a[l]);
                    assert_eq!(h2[l], f16(a[l]) << 16 | f16(b[l]), "f16x2 {mode}{end}");
                    assert_eq!(g2[l], bf16(a[l]) << 16 | bf16(b[l]), "bf16x2 {mode}{end}");
                }
            }
        }
    }
}

#[test]
fn tf32() {
    let mut patterns = Patterns::new(7);
    let modes = [("rna", Round::Away), ("rn", Round::Nearest), ("rz", Round::Zero)];
    for (end, relu, satfinite) in ENDS {
        for (mode, round) in modes {
            let text = format!("cvt.{mode}{end}.tf32.f32");
            if mode == "rna" && relu {
                refused(&text, 2);
                continue;
            }
            for _ in 0..60 {
                let a = lanes::<F32>(&mut patterns);
                let got = run(&text, &[Type::B32, Type::F32], &[a]);
                for l in 0..32 {
                    let expected = ended::<F32, Tf32>(a[l], round, relu, satfinite);
                    let expected = if expected == Tf32::NAN { F32::NAN } else { expected << 13 };
                    assert_eq!(got[l], expected, "{text} of {:#x}", a[l]);
                }
            }
        }
    }
    refused("cvt.rm.tf32.f32", 2);
}

#[test]
fn eight_bits() {
    let mut patterns = Patterns::new(8);
    for relu in [false, true] {
        let end = if relu { ".relu" } else { "" };
        for _ in 0..100 {
            let (a, b) = (lanes::<F32>(&mut patterns), lanes::<F32>(&mut patterns));
            let h: [u64; 32] = std::array::from_fn(|_| patterns.next::<F16>() | patterns.next::<F16>() << 16);
            let registers = [Type::B16, Type::F32, Type::F32];
            let e4 = run(&format!("cvt.rn.satfinite{end}.e4m3x2.f32"), &registers, &[a, b]);
            let e5 = run(&format!("cvt.rn.satfinite{end}.e5m2x2.f32"), &registers, &[a, b]);
            let h4 = run(&format!("cvt.rn.satfinite{end}.e4m3x2.f16x2"), &[Type::B16, Type::B32], &[h]);
            let h5 = run(&format!("cvt.rn.satfinite{end}.e5m2x2.f16x2"), &[Type::B16, Type::B32], &[h]);
            for l in 0..32 {
                let n = Round::Nearest;
                let x = |v| ended::<F32, E4m3>(v, n, relu, true);
                assert_eq!(e4[l], x(a[l]) << 8 | x(b[l]), "e4m3 of {:#x}, {:#x}", a[l], b[l]);
                let x = |v| ended::<F32, E5m2>(v, n, relu, true);
                assert_eq!(e5[l], x(a[l]) << 8 | x(b[l]), "e5m2 of {:#x}, {:#x}", a[l], b[l]);
                let x = |v| ended::<F16, E4m3>(v, n, relu, true);
                assert_eq!(h4[l], x(h[l] >> 16) << 8 | x(h[l] & 0xffff), "e4m3 of f16 {:#x}", h[l]);
                let x = |v| ended::<F16, E5m2>(v, n, relu, true);
                assert_eq!(h5[l], x(h[l] >> 16) << 8 | x(h[l] & 0xffff), "e5m2 of f16 {:#x}", h[l]);
            }
        }
        for start in (0..1u64 << 16).step_by(32) {
            let a: [u64; 32] = std::array::from_fn(|l| start + l as u64);
            let e4 = run(&format!("cvt.rn{end}.f16x2.e4m3x2"), &[Type::B32, Type::B16], &[a]);
            let e5 = run(&format!("cvt.rn{end}.f16x2.e5m2x2"), &[Type::B32, Type::B16], &[a]);
            for l in 0..32 {
                let n = Round::Nearest;
                let x = |v| ended::<E4m3, F16>(v, n, relu, false);
                assert_eq!(e4[l], x(a[l] >> 8) << 16 | x(a[l] & 0xff), "{:#x}", a[l]);
                let x = |v| ended::<E5m2, F16>(v, n, relu, false);
                assert_eq!(e5[l], x(a[l] >> 8) << 16 | x(a[l] & 0xff), "{:#x}", a[l]);
            }
        }
    }
}

#[test]
fn packed_integers() {
    let mut patterns = Patterns::new(9);
    for (name, bits, signed) in [
        ("u16", 16, false),
        ("s16", 16, true),
        ("u8", 8, false),
        ("s8", 8, true),
        ("u4", 4, false),
        ("s4", 4, true),
        ("u2", 2, false),
        ("s2", 2, true),
    ] {
        for _ in 0..30 {
            let [a, b, c] = std::array::from_fn(|_| integers(&mut patterns, Type::B32));
            let got = if bits == 16 {
                run(&format!("cvt.pack.sat.{name}.s32"), &[Type::B32; 3], &[a, b])
            } else {
                run(&format!("cvt.pack.sat.{name}.s32.b32"), &[Type::B32; 4], &[a, b, c])
            };
            for l in 0..32 {
                let (low, high) =
                    if signed { (-(1i64 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
                let field = |x: u64| (x as u32 as i32 as i64).clamp(low, high) as u64 & ((1 << bits) - 1);
                let rest = if bits == 16 { 0 } else { c[l] << (2 * bits) & 0xffff_ffff };
                assert_eq!(got[l], rest | field(a[l]) << bits | field(b[l]), "{name} of {:#x}, {:#x}", a[l], b[l]);
            }
        }
    }
    refused("cvt.pack.sat.u8.s32", 3);
    refused("cvt.pack.u16.s32", 3);
    refused("cvt.pack.sat.u16.u32", 3);
}

#[test]
fn an_immediate_has_the_type_of_the_instruction() {
    let mut i = instruction("cvt.rn.f32.s32", 2);
    i.operands[1] = Operand::Int(-3);
    let form = isa::form(&i, &|_| Some(Type::F32)).unwrap().unwrap();
    assert_eq!(form.slots[1].ty, Type::S32);
    i.operands.clear();
    assert!(isa::form(&i, &|_| None).unwrap().is_some());
}

#[test]
fn what_is_not_known_is_refused() {
    for (text, operands) in [
        ("cvt.f32", 2),
        ("cvt.s32.f32", 2),
        ("cvt.rn.s32.f32", 2),
        ("cvt.rni.f32.f64", 2),
        ("cvt.rn.f16x2.f32.relux", 3),
        ("cvt.rs.f16x2.f32", 4),
        ("cvt.rn.satfinite.e2m1x2.f32", 3),
        ("cvt.rp.satfinite.ue8m0x2.f32", 3),
        ("cvt.rn.e4m3x2.f32", 3),
        ("cvt.rz.satfinite.e4m3x2.f32", 3),
        ("cvt.f16x2.e4m3x2", 2),
        ("cvt.rn.satfinite.pzo.f16.f32", 2),
        ("cvt.rm.relu.f16.f32", 2),
        ("cvt.rn.relu.f16.f64", 2),
        ("cvt.rn.relu.f32.f64", 2),
        ("cvt.rn.sat.bf16.f32", 2),
        ("cvt.u32.b32", 2),
        ("cvt.rn.ftz.f16.f64", 2),
        ("cvt.rn.ftz.f64.s32", 2),
    ] {
        refused(text, operands);
    }
    // Narrow floating-point values in 64-bit registers.
    assert!(form("cvt.f32.f16", &[Type::F32, Type::B64]).is_err());
    assert!(form("cvt.rn.f16.f32", &[Type::B64, Type::F32]).is_err());
}
