//! Forms against references, through the register file.

use super::operation::Modifiers;
use crate::isa;
use crate::lanes::{Form, Lane, Role, Unit, Unsupported};
use crate::num::format::{F32, F64, Format};
use crate::num::native::{NAN32, NAN64};
use crate::num::reference::{self, Patterns, finite};
use crate::num::{Round, exact};
use crate::ptx::ast::{Instruction, Location, Operand, Type};

/// An instruction whose operands are registers `%0`, `%1`, ...
pub(crate) fn instruction(form: &str, operands: usize) -> Instruction {
    let mut words = form.split('.').map(String::from);
    Instruction {
        guard: None,
        opcode: words.next().unwrap(),
        modifiers: words.collect(),
        operands: (0..operands).map(|n| Operand::Name(format!("%{n}"))).collect(),
        line: 1,
        location: Location::default(),
    }
}

/// The form of an instruction between registers of the types.
pub(crate) fn form(text: &str, registers: &[Type]) -> Result<Option<Form>, Unsupported> {
    let register = |name: &str| name.strip_prefix('%').and_then(|n| registers.get(n.parse::<usize>().ok()?)).copied();
    isa::form(&instruction(text, registers.len()), &register)
}

/// Runs an instruction over all 32 lanes and over some, also with its result in the place of an operand, and returns the
/// lanes of its result as they lie in the register.
pub(crate) fn run(text: &str, registers: &[Type], inputs: &[[u64; 32]]) -> [u64; 32] {
    let form =
        form(text, registers).unwrap_or_else(|e| panic!("{e}")).unwrap_or_else(|| panic!("no family has {text}"));
    assert_eq!(form.slots.len(), registers.len(), "{text}");
    assert!(form.slots[0].role == Role::Out && form.slots[1..].iter().all(|s| s.role == Role::In));
    let place = |file: &mut [Unit], slot: usize, wide: bool, lanes: &[u64; 32]| unsafe {
        if wide {
            u64::write(file.as_mut_ptr(), slot as u16, lanes, u32::MAX)
        } else {
            u32::write(file.as_mut_ptr(), slot as u16, &lanes.map(|x| x as u32), u32::MAX)
        }
    };
    let take = |file: &[Unit], slot: usize, wide: bool| unsafe {
        if wide { u64::read(file.as_ptr(), slot as u16) } else { u32::read(file.as_ptr(), slot as u16).map(u64::from) }
    };
    let wide: Vec<bool> = form.slots.iter().map(|s| s.ty.bits() == 64).collect();
    let before = [0x5a5a_5a5a_a5a5_a5a5; 32];
    let execute = |out: usize, mask: u32| {
        let mut file = vec![Unit([0; 32]); 2 * registers.len()];
        place(&mut file, 0, wide[0], &before);
        for (n, lanes) in inputs.iter().enumerate() {
            place(&mut file, 2 * (n + 1), wide[n + 1], lanes);
        }
        let mut operands: Vec<u16> = (0..registers.len() as u16).map(|n| 2 * n).collect();
        operands[0] = 2 * out as u16;
        let was = take(&file, 2 * out, wide[0]);
        unsafe { (form.run)(file.as_mut_ptr(), &operands, mask) };
        (was, take(&file, 2 * out, wide[0]))
    };
    let (_, all) = execute(0, u32::MAX);
    if form.slots[0].ty == Type::Pred {
        return all;
    }
    for mask in [0, 1, 0x8000_0000, 0xffff_0000, 0x1234_5678] {
        for out in (0..registers.len()).filter(|&out| wide[out] == wide[0]) {
            let (was, some) = execute(out, mask);
            for l in 0..32 {
                let expected = if mask >> l & 1 != 0 { all[l] } else { was[l] };
                assert_eq!(some[l], expected, "{text}, lane {l} of {mask:#x}, result in operand {out}");
            }
        }
    }
    all
}

/// That the instruction is known to nobody, and that the error names it.
pub(crate) fn refused(text: &str, operands: usize) {
    match form(text, &[Type::B32; 4][..operands]) {
        Err(Unsupported(what)) => assert_eq!(what, text),
        Ok(other) => panic!("{text} became {other:?}"),
    }
}

/// 32 patterns of a format.
pub(crate) fn lanes<F: Format>(patterns: &mut Patterns) -> [u64; 32] {
    std::array::from_fn(|_| patterns.next::<F>())
}

const MODES: [(&str, Round); 4] =
    [(".rn", Round::Nearest), (".rz", Round::Zero), (".rm", Round::Down), (".rp", Round::Up)];

/// `.ftz` by its definition.
fn flush(bits: u64, ftz: bool) -> u64 {
    if ftz && bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits }
}

/// `.sat` by its definition.
fn saturate(bits: u64, sat: bool) -> u64 {
    let x = f32::from_bits(bits as u32);
    match sat {
        false => bits,
        true if x.is_nan() || x <= 0.0 => 0,
        true if x >= 1.0 => 1.0f32.to_bits() as u64,
        true => bits,
    }
}

/// An operation by definition.
type Exact = fn(&[u64], Round) -> u64;

fn check32(name: &str, operands: usize, plain: bool, sats: &[bool], expected: Exact) {
    let mut patterns = Patterns::new(32);
    for (mode, round) in MODES.into_iter().chain(plain.then_some(("", Round::Nearest))) {
        for ftz in [false, true] {
            for &sat in sats {
                let text =
                    format!("{name}{mode}{}{}.f32", if ftz { ".ftz" } else { "" }, if sat { ".sat" } else { "" });
                for _ in 0..40 {
                    let inputs: Vec<[u64; 32]> = (0..operands).map(|_| lanes::<F32>(&mut patterns)).collect();
                    let got = run(&text, &[Type::F32; 4][..operands + 1], &inputs);
                    for l in 0..32 {
                        let x: Vec<u64> = inputs.iter().map(|i| flush(i[l], ftz)).collect();
                        let expected = saturate(flush(expected(&x, round), ftz), sat);
                        assert_eq!(got[l], expected, "{text} of {x:x?}: {:#x}, not {expected:#x}", got[l]);
                    }
                }
            }
        }
    }
}

#[test]
fn f32_arithmetic_in_every_mode() {
    let both = [false, true];
    check32("add", 2, true, &both, |x, r| exact::add::<F32>(x[0], x[1], r));
    check32("sub", 2, true, &both, |x, r| exact::add::<F32>(x[0], x[1] ^ 1 << 31, r));
    check32("mul", 2, true, &both, |x, r| exact::mul::<F32>(x[0], x[1], r));
    check32("fma", 3, false, &both, |x, r| exact::fma::<F32>(x[0], x[1], x[2], r));
    check32("mad", 3, false, &both, |x, r| exact::fma::<F32>(x[0], x[1], x[2], r));
    check32("div", 2, false, &[false], |x, r| exact::div::<F32>(x[0], x[1], r));
    check32("rcp", 1, false, &[false], |x, r| exact::div::<F32>(1.0f32.to_bits() as u64, x[0], r));
    check32("sqrt", 1, false, &[false], |x, r| exact::sqrt::<F32>(x[0], r));
}

fn check64(name: &str, operands: usize, plain: bool, expected: Exact) {
    let mut patterns = Patterns::new(64);
    for (mode, round) in MODES.into_iter().chain(plain.then_some(("", Round::Nearest))) {
        let text = format!("{name}{mode}.f64");
        for _ in 0..60 {
            let inputs: Vec<[u64; 32]> = (0..operands).map(|_| lanes::<F64>(&mut patterns)).collect();
            let got = run(&text, &[Type::F64; 4][..operands + 1], &inputs);
            for l in 0..32 {
                let x: Vec<u64> = inputs.iter().map(|i| i[l]).collect();
                let nan = x.iter().find(|&&x| f64::from_bits(x).is_nan());
                // The payload of the first NaN operand, made quiet.
                let expected = nan.map_or_else(|| expected(&x, round), |nan| nan | 1 << 51);
                assert_eq!(got[l], expected, "{text} of {x:x?}: {:#x}, not {expected:#x}", got[l]);
            }
        }
    }
}

#[test]
fn f64_arithmetic_in_every_mode() {
    check64("add", 2, true, |x, r| exact::add::<F64>(x[0], x[1], r));
    check64("sub", 2, true, |x, r| exact::add::<F64>(x[0], x[1] ^ 1 << 63, r));
    check64("mul", 2, true, |x, r| exact::mul::<F64>(x[0], x[1], r));
    check64("fma", 3, false, |x, r| exact::fma::<F64>(x[0], x[1], x[2], r));
    check64("mad", 3, false, |x, r| exact::fma::<F64>(x[0], x[1], x[2], r));
    check64("div", 2, false, |x, r| exact::div::<F64>(x[0], x[1], r));
    check64("rcp", 1, false, |x, r| exact::div::<F64>(1.0f64.to_bits(), x[0], r));
    check64("sqrt", 1, false, |x, r| exact::sqrt::<F64>(x[0], r));
}

/// min and max by the ISA's text, over bit patterns whose order is found by comparing values and then signs.
pub(crate) fn extremum<F: Format>(a: u64, b: u64, min: bool, nan: bool, xorsign: bool, value: fn(u64) -> f64) -> u64 {
    let sign = (a ^ b) & F::SIGN;
    let (a, b) = if xorsign { (a & !F::SIGN, b & !F::SIGN) } else { (a, b) };
    let (x, y) = (value(a), value(b));
    let less = x < y || x == y && a & F::SIGN != 0 && b & F::SIGN == 0;
    let chosen = match (x.is_nan(), y.is_nan()) {
        (true, true) => return F::NAN,
        (true, _) | (_, true) if nan => return F::NAN,
        (true, false) => b,
        (false, true) => a,
        _ if less == min => a,
        _ => b,
    };
    if xorsign { chosen & !F::SIGN | sign } else { chosen }
}

#[test]
fn extrema() {
    let mut patterns = Patterns::new(3);
    let value = |bits: u64| f32::from_bits(bits as u32) as f64;
    for text in [
        "min.f32",
        "max.f32",
        "min.NaN.f32",
        "max.ftz.NaN.f32",
        "min.ftz.f32",
        "max.xorsign.abs.f32",
        "min.NaN.xorsign.abs.f32",
        "max.ftz.NaN.xorsign.abs.f32",
        "min.xorsign.abs.f32",
        "max.NaN.f32",
    ] {
        let i = instruction(text, 3);
        for _ in 0..60 {
            let (a, b) = (lanes::<F32>(&mut patterns), lanes::<F32>(&mut patterns));
            let got = run(text, &[Type::F32; 3], &[a, b]);
            for l in 0..32 {
                let (a, b) = (flush(a[l], i.has("ftz")), flush(b[l], i.has("ftz")));
                let expected = extremum::<F32>(a, b, i.opcode == "min", i.has("NaN"), i.has("xorsign"), value);
                assert_eq!(got[l], expected, "{text} of {a:#x}, {b:#x}");
            }
        }
    }
    for text in ["min.f64", "max.f64"] {
        for _ in 0..60 {
            let (a, b) = (lanes::<F64>(&mut patterns), lanes::<F64>(&mut patterns));
            let got = run(text, &[Type::F64; 3], &[a, b]);
            for l in 0..32 {
                let expected = extremum::<F64>(a[l], b[l], text == "min.f64", false, false, f64::from_bits);
                assert_eq!(got[l], expected, "{text} of {:#x}, {:#x}", a[l], b[l]);
            }
        }
    }
}

#[test]
fn signs() {
    let mut patterns = Patterns::new(4);
    let (a, b) = (lanes::<F32>(&mut patterns), lanes::<F32>(&mut patterns));
    let (x, y) = (lanes::<F64>(&mut patterns), lanes::<F64>(&mut patterns));
    let (s, t) = (1 << 31, 1 << 63);
    assert_eq!(run("abs.f32", &[Type::F32; 2], &[a]), a.map(|a| a & !s));
    assert_eq!(run("neg.f32", &[Type::F32; 2], &[a]), a.map(|a| a ^ s));
    assert_eq!(run("abs.ftz.f32", &[Type::F32; 2], &[a]), a.map(|a| flush(a, true) & !s));
    assert_eq!(run("neg.ftz.f32", &[Type::F32; 2], &[a]), a.map(|a| flush(a, true) ^ s));
    assert_eq!(run("abs.f64", &[Type::F64; 2], &[x]), x.map(|x| x & !t));
    assert_eq!(run("neg.f64", &[Type::F64; 2], &[x]), x.map(|x| x ^ t));
    // The sign of a, the value of b.
    let got = run("copysign.f32", &[Type::F32; 3], &[a, b]);
    assert_eq!(got, std::array::from_fn(|l| a[l] & s | b[l] & !s));
    let got = run("copysign.f64", &[Type::F64; 3], &[x, y]);
    assert_eq!(got, std::array::from_fn(|l| x[l] & t | y[l] & !t));
}

#[test]
fn properties() {
    let mut patterns = Patterns::new(5);
    for _ in 0..20 {
        let (a, x) = (lanes::<F32>(&mut patterns), lanes::<F64>(&mut patterns));
        let mask = |f: &dyn Fn(usize) -> bool| (0..32).fold(0, |m, l| m | (f(l) as u64) << l);
        use std::num::FpCategory::*;
        type Holds = fn(std::num::FpCategory) -> bool;
        let classes: [(&str, Holds); 6] = [
            ("finite", |c| !matches!(c, Nan | Infinite)),
            ("infinite", |c| c == Infinite),
            ("number", |c| c != Nan),
            ("notanumber", |c| c == Nan),
            // A zero counts as normal.
            ("normal", |c| matches!(c, Normal | Zero)),
            ("subnormal", |c| c == Subnormal),
        ];
        for (name, holds) in classes {
            let got = run(&format!("testp.{name}.f32"), &[Type::Pred, Type::F32], &[a])[0];
            assert_eq!(got, mask(&|l| holds(f32::from_bits(a[l] as u32).classify())), "{name}");
            let got = run(&format!("testp.{name}.f64"), &[Type::Pred, Type::F64], &[x])[0];
            assert_eq!(got, mask(&|l| holds(f64::from_bits(x[l]).classify())), "{name}");
        }
    }
}

/// The result of an f32 approximation.
fn approx(text: &str, x: f32) -> f32 {
    f32::from_bits(run(text, &[Type::F32; 2], &[[x.to_bits() as u64; 32]])[0] as u32)
}

/// Runs an approximation over many inputs, 32 at a time.
fn sweep(text: &str, inputs: impl Iterator<Item = f32>, mut check: impl FnMut(f32, f32)) {
    let form = form(text, &[Type::F32; 2]).unwrap().unwrap();
    let inputs: Vec<f32> = inputs.collect();
    for chunk in inputs.chunks(32) {
        let mut file = [Unit([0; 32]); 2];
        for (l, x) in chunk.iter().enumerate() {
            file[1].0[l] = x.to_bits();
        }
        unsafe { (form.run)(file.as_mut_ptr(), &[0, 1], u32::MAX) };
        for (l, &x) in chunk.iter().enumerate() {
            check(x, f32::from_bits(file[0].0[l]));
        }
    }
}

/// All positive finite f32 in steps of a prime number of patterns.
fn positive() -> impl Iterator<Item = f32> {
    (1..0x7f80_0000u32).step_by(9973).map(f32::from_bits)
}

/// The error in units of the last place of the exact value in f32.
fn ulps(got: f32, exact: f64) -> f64 {
    if exact.abs() > f32::MAX as f64 * (1.0 + 2f64.powi(-25)) {
        return if got.is_infinite() && (got > 0.0) == (exact > 0.0) { 0.0 } else { f64::INFINITY };
    }
    let exponent = exact.abs().log2().floor().max(-126.0) as i32;
    ((got as f64 - exact) / 2f64.powi(exponent - 23)).abs()
}

fn within(text: &str, inputs: impl Iterator<Item = f32>, exact: fn(f64) -> f64, most: f64) {
    let mut worst = (0.0, 0.0);
    sweep(text, inputs, |x, got| {
        let error = ulps(got, exact(x as f64));
        assert!(error <= most, "{text} of {x:e} is {got:e}: {error} ulp");
        if error > worst.0 {
            worst = (error, x);
        }
    });
    // A sweep that found no error at all has not compared anything.
    assert!(worst.0 > 0.3, "{text}: {worst:?}");
}

#[test]
fn approximations_are_better_than_promised() {
    let both = || positive().chain(positive().map(|x| -x));
    // The ISA allows 2 ulp for ex2, 1 for rcp, relative 2^-23 for sqrt, 2^-22.9 for rsqrt, 2^-22 for lg2, 2^-11 for tanh,
    // and an absolute error of 2^-20.5 for sin and cos up to 2 pi, 2^-14.7 up to 100 pi.
    within("ex2.approx.f32", both(), f64::exp2, 0.9);
    within("ex2.approx.f32", (-151_000..129_000).map(|n| n as f32 * 0.001), f64::exp2, 0.9);
    within("rcp.approx.f32", both(), |x| 1.0 / x, 0.5);
    within("sqrt.approx.f32", positive(), f64::sqrt, 0.5);
    within("rsqrt.approx.f32", positive(), |x| 1.0 / x.sqrt(), 0.501);
    within("lg2.approx.f32", positive(), f64::log2, 0.501);
    within("lg2.approx.f32", (0..100_000).map(|n| 0.9 + n as f32 * 0.000_002), f64::log2, 0.501);
    within("tanh.approx.f32", both(), f64::tanh, 0.51);
    within("tanh.approx.f32", (1..100_000).map(|n| n as f32 * 0.0001), f64::tanh, 0.51);
    within("sin.approx.f32", (-320_000..320_000).map(|n| n as f32 * 0.001), f64::sin, 0.51);
    within("cos.approx.f32", (-320_000..320_000).map(|n| n as f32 * 0.001), f64::cos, 0.51);
    sweep("sin.approx.f32", both(), |x, got| assert!(got.abs() <= 1.0, "sin {x}: {got}"));
    sweep("cos.approx.f32", both(), |x, got| assert!(got.abs() <= 1.0, "cos {x}: {got}"));
}

#[test]
fn special_values_of_approximations() {
    let inf = f32::INFINITY;
    let nan = f32::from_bits(0xffc0_0001);
    let tiny = f32::from_bits(0x0000_1000);
    let is = |text: &str, x: f32, expected: f32| {
        let got = approx(text, x);
        let same = if expected.is_nan() { got.to_bits() == NAN32 } else { got.to_bits() == expected.to_bits() };
        assert!(same, "{text} of {x:e} is {got:e}, not {expected:e}");
    };
    for (text, [minus_inf, minus_zero, zero, plus_inf]) in [
        ("ex2.approx.f32", [0.0, 1.0, 1.0, inf]),
        ("ex2.approx.ftz.f32", [0.0, 1.0, 1.0, inf]),
        ("lg2.approx.f32", [nan, -inf, -inf, inf]),
        ("lg2.approx.ftz.f32", [nan, -inf, -inf, inf]),
        ("sin.approx.f32", [nan, -0.0, 0.0, nan]),
        ("sin.approx.ftz.f32", [nan, -0.0, 0.0, nan]),
        ("cos.approx.f32", [nan, 1.0, 1.0, nan]),
        ("tanh.approx.f32", [-1.0, -0.0, 0.0, 1.0]),
        ("rcp.approx.f32", [-0.0, -inf, inf, 0.0]),
        ("rcp.approx.ftz.f32", [-0.0, -inf, inf, 0.0]),
        ("sqrt.approx.f32", [nan, -0.0, 0.0, inf]),
        ("rsqrt.approx.f32", [nan, -inf, inf, 0.0]),
        ("rsqrt.approx.ftz.f32", [nan, -inf, inf, 0.0]),
    ] {
        is(text, -inf, minus_inf);
        is(text, -0.0, minus_zero);
        is(text, 0.0, zero);
        is(text, inf, plus_inf);
        is(text, nan, nan);
    }
    for n in -149..128 {
        is("ex2.approx.f32", n as f32, 2f64.powi(n) as f32);
        is("lg2.approx.f32", 2f64.powi(n) as f32, n as f32);
    }
    is("ex2.approx.ftz.f32", -126.0, f32::MIN_POSITIVE);
    is("ex2.approx.ftz.f32", -126.5, 0.0);
    is("ex2.approx.f32", tiny, 1.0);
    is("lg2.approx.ftz.f32", tiny, -inf);
    is("lg2.approx.f32", -1.0, nan);
    is("sqrt.approx.f32", -1.0, nan);
    is("sqrt.approx.ftz.f32", -tiny, -0.0);
    is("rsqrt.approx.f32", -1.0, nan);
    is("rsqrt.approx.ftz.f32", tiny, inf);
    is("rcp.approx.ftz.f32", -tiny, -inf);
    is("rcp.approx.ftz.f32", f32::MAX, 0.0);
    is("rcp.approx.f32", f32::MAX, (1.0 / f32::MAX as f64) as f32);
    is("sin.approx.ftz.f32", -tiny, -0.0);
    is("sin.approx.f32", tiny, tiny);
    is("tanh.approx.f32", -tiny, -tiny);
    is("tanh.approx.f32", 30.0, 1.0);
}

#[test]
fn approximate_division() {
    let div = |text: &str, a: f32, b: f32| {
        let lanes = [[a.to_bits() as u64; 32], [b.to_bits() as u64; 32]];
        f32::from_bits(run(text, &[Type::F32; 3], &lanes)[0] as u32)
    };
    let inf = f32::INFINITY;
    // Above 2^126: zero with the quotient's sign, or NaN for an infinite dividend.
    assert_eq!(div("div.approx.f32", 1e38, -1.5e38).to_bits(), 0x8000_0000);
    assert_eq!(div("div.approx.f32", inf, 1.5e38).to_bits(), NAN32);
    assert_eq!(div("div.approx.f32", 2f32.powi(126), 2f32.powi(126)), 1.0);
    assert_eq!(div("div.approx.f32", 1.0, -0.0), -inf);
    assert_eq!(div("div.approx.f32", 0.0, 0.0).to_bits(), NAN32);
    assert_eq!(div("div.approx.ftz.f32", 1.0, f32::from_bits(1)), inf);
    assert_eq!(div("div.full.f32", 1e38, 2e38), 0.5);
    assert_eq!(div("div.full.ftz.f32", 1e-30, 1e30).to_bits(), 0);
    assert_eq!(div("div.full.f32", inf, inf).to_bits(), NAN32);
    let mut patterns = Patterns::new(6);
    for text in ["div.approx.f32", "div.full.f32"] {
        let (a, b) = (lanes::<F32>(&mut patterns), lanes::<F32>(&mut patterns));
        let got = run(text, &[Type::F32; 3], &[a, b]);
        for l in 0..32 {
            let (x, y) = (f32::from_bits(a[l] as u32), f32::from_bits(b[l] as u32));
            if finite::<F32>(a[l]) && finite::<F32>(b[l]) && y.abs() >= 2f32.powi(-126) && y.abs() <= 2f32.powi(126) {
                assert!(ulps(f32::from_bits(got[l] as u32), x as f64 / y as f64) <= 2.0, "{text} of {x:e}, {y:e}");
            }
        }
    }
}

#[test]
fn gross_approximations_in_f64() {
    let one = |text: &str, x: f64| f64::from_bits(run(text, &[Type::F64; 2], &[[x.to_bits(); 32]])[0]);
    for (text, exact) in
        [("rcp.approx.ftz.f64", (|x| 1.0 / x) as fn(f64) -> f64), ("rsqrt.approx.ftz.f64", |x: f64| 1.0 / x.sqrt())]
    {
        for x in [1.0, 3.0, 1.0 / 3.0, 1e300, 1e-300, 123.456] {
            let got = one(text, x);
            assert_eq!(got.to_bits() as u32, 0, "{text}");
            assert!((got / exact(x) - 1.0).abs() < 2f64.powi(-19), "{text} of {x}: {got}");
        }
        assert_eq!(one(text, 0.0), f64::INFINITY);
        assert_eq!(one(text, -0.0), f64::NEG_INFINITY);
        assert_eq!(one(text, -1e-310), f64::NEG_INFINITY);
        assert_eq!(one(text, f64::INFINITY).to_bits(), 0);
        // A NaN whose payload lies in the lower half.
        assert_eq!(one(text, f64::from_bits(0x7ff0_0000_0000_0001)).to_bits(), 0x7fff_ffff_0000_0000);
    }
    assert_eq!(one("rcp.approx.ftz.f64", f64::NEG_INFINITY).to_bits(), 1 << 63);
    assert_eq!(one("rcp.approx.ftz.f64", 1.7e308).to_bits(), 0);
    assert_eq!(one("rsqrt.approx.ftz.f64", -1.0).to_bits(), 0x7fff_ffff_0000_0000);
    assert_eq!(one("rsqrt.approx.f64", 4.0), 0.5);
    assert_eq!(one("rsqrt.approx.f64", -4.0).to_bits(), NAN64);
    assert_eq!(one("rsqrt.approx.f64", -0.0), f64::NEG_INFINITY);
    assert!((one("rsqrt.approx.f64", 5e-324) / (1.0 / 5e-324f64.sqrt()) - 1.0).abs() < 1e-15);
}

#[test]
fn counted_as() {
    let fma = |text: &str, n: usize| form(text, &[Type::B32; 4][..n]).unwrap().unwrap();
    assert_eq!(fma("fma.rn.f32", 4).fma, 1);
    assert_eq!(fma("mad.rn.f64", 4).fma, 1);
    assert_eq!(fma("mul.f32", 3).fma, 0);
    assert_eq!(fma("fma.rn.f16x2", 4).fma, 2);
    assert_eq!(fma("fma.rn.bf16", 4).fma, 1);
}

#[test]
fn what_is_not_known_is_refused() {
    for (text, operands) in [
        ("add.rn.f32x2", 3),
        ("fma.rn.ftz.f32x2", 4),
        ("fma.rn.f32.f16", 4),
        ("add.f32.bf16", 3),
        ("fma.f32", 4),
        ("mad.f32", 4),
        ("div.f32", 3),
        ("sqrt.f64", 2),
        ("add.ftz.f64", 3),
        ("add.sat.f64", 3),
        ("min.f32", 4),
        ("min.abs.f32", 3),
        ("min.xorsign.f32", 3),
        ("min.NaN.f64", 3),
        ("ex2.f32", 2),
        ("tanh.approx.ftz.f32", 2),
        ("sin.approx.f64", 2),
        ("rcp.approx.f64", 2),
        ("add.rna.f32", 3),
        ("testp.f32", 2),
        ("testp.finite.ftz.f32", 2),
        ("copysign.ftz.f32", 3),
        ("div.approx.sat.f32", 3),
    ] {
        refused(text, operands);
    }
    assert!(Modifiers::new(&instruction("add.f32", 3)).done().is_err());
}

#[test]
fn reference_agrees_with_known_values() {
    let f = |x: f32| x.to_bits() as u64;
    assert_eq!(reference::fma::<F32>(f(1.5), f(2.0), f(0.25), Round::Nearest), Some(f(3.25)));
    assert_eq!(reference::div::<F32>(f(1.0), f(3.0), Round::Down), 0x3eaa_aaaa);
    assert_eq!(reference::div::<F32>(f(1.0), f(3.0), Round::Nearest), 0x3eaa_aaab);
    assert_eq!(reference::sqrt::<F64>(2f64.to_bits(), Round::Nearest), std::f64::consts::SQRT_2.to_bits());
}
