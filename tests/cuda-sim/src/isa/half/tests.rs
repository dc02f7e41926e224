//! Forms of f16 and bf16 against exact arithmetic.

use crate::isa::float::tests::{extremum, instruction, lanes, refused, run};
use crate::num::Round;
use crate::num::exact;
use crate::num::format::{Bf16, F16, Format};
use crate::num::reference::Patterns;
use crate::ptx::ast::Type;

const N: Round = Round::Nearest;

fn f16(bits: u64) -> f64 {
    half::f16::from_bits(bits as u16).to_f64()
}

fn bf16(bits: u64) -> f64 {
    half::bf16::from_bits(bits as u16).to_f64()
}

/// What a form should give for one value: the operands are flushed already.
type Expected = fn(&[u64]) -> u64;

/// Checks a form and its packed sibling, with modifiers done by their definition.
fn check<F: Format>(stem: &str, ty: &str, operands: usize, value: fn(u64) -> f64, expected: Expected) {
    let (single, packed) = (format!("{stem}.{ty}"), format!("{stem}.{ty}x2"));
    let i = instruction(&single, operands + 1);
    let flush = |x: u64| if i.has("ftz") && x & F::TOP == 0 { x & F::SIGN } else { x };
    let one = |operands: &[u64]| {
        let operands: Vec<u64> = operands.iter().map(|&x| flush(x)).collect();
        let result = flush(expected(&operands));
        let x = value(result);
        match result {
            r if x.is_nan() => {
                if i.has("sat") {
                    0
                } else {
                    r
                }
            }
            _ if i.has("sat") && x <= 0.0 => 0,
            _ if i.has("sat") && x >= 1.0 => (F::BIAS as u64) << F::FRACTION,
            _ if i.has("relu") && x <= 0.0 => 0,
            r => r,
        }
    };
    let mut patterns = Patterns::new(16);
    for _ in 0..150 {
        let low: Vec<[u64; 32]> = (0..operands).map(|_| lanes::<F>(&mut patterns)).collect();
        let high: Vec<[u64; 32]> = (0..operands).map(|_| lanes::<F>(&mut patterns)).collect();
        let both: Vec<[u64; 32]> =
            low.iter().zip(&high).map(|(a, b)| std::array::from_fn(|l| a[l] | b[l] << 16)).collect();
        let got = run(&single, &[Type::B16; 4][..operands + 1], &low);
        let got2 = run(&packed, &[Type::B32; 4][..operands + 1], &both);
        for l in 0..32 {
            let at = |x: &[[u64; 32]]| x.iter().map(|x| x[l]).collect::<Vec<u64>>();
            let (a, b) = (at(&low), at(&high));
            assert_eq!(got[l], one(&a), "{single} of {a:x?}");
            assert_eq!(got2[l], one(&a) | one(&b) << 16, "{packed} of {a:x?} and {b:x?}");
        }
    }
}

#[test]
fn f16_arithmetic_is_rounded_once() {
    for end in ["", ".ftz", ".sat", ".ftz.sat"] {
        for rn in ["", ".rn"] {
            check::<F16>(&format!("add{rn}{end}"), "f16", 2, f16, |x| exact::add::<F16>(x[0], x[1], N));
            check::<F16>(&format!("sub{rn}{end}"), "f16", 2, f16, |x| exact::add::<F16>(x[0], x[1] ^ 0x8000, N));
            check::<F16>(&format!("mul{rn}{end}"), "f16", 2, f16, |x| exact::mul::<F16>(x[0], x[1], N));
        }
    }
    for end in ["", ".ftz", ".sat", ".ftz.sat", ".relu", ".ftz.relu"] {
        check::<F16>(&format!("fma.rn{end}"), "f16", 3, f16, |x| exact::fma::<F16>(x[0], x[1], x[2], N));
    }
}

#[test]
fn bf16_arithmetic_is_rounded_once() {
    for rn in ["", ".rn"] {
        check::<Bf16>(&format!("add{rn}"), "bf16", 2, bf16, |x| exact::add::<Bf16>(x[0], x[1], N));
        check::<Bf16>(&format!("sub{rn}"), "bf16", 2, bf16, |x| exact::add::<Bf16>(x[0], x[1] ^ 0x8000, N));
        check::<Bf16>(&format!("mul{rn}"), "bf16", 2, bf16, |x| exact::mul::<Bf16>(x[0], x[1], N));
    }
    for end in ["", ".relu"] {
        check::<Bf16>(&format!("fma.rn{end}"), "bf16", 3, bf16, |x| exact::fma::<Bf16>(x[0], x[1], x[2], N));
    }
}

#[test]
fn fma_where_two_roundings_would_go_wrong() {
    let fma = |form: &str, x: [u64; 3]| run(form, &[Type::B16; 4], &x.map(|x| [x; 32]))[0];
    let (a, tiny) = (0x3c00, 0x0001);
    let tie = |c: u64| fma("fma.rn.f16", [0x3c01, 0x3bff, c]);
    // (1 + 2^-10)(1 - 2^-11) = 1 + 2^-11 - 2^-21.
    assert_eq!(tie(0), 0x3c00);
    assert_eq!(tie(tiny), exact::fma::<F16>(0x3c01, 0x3bff, tiny, N));
    // The product is 2^-11 - 2^-31. The sum lies below a tie by less than f32 can tell, and the tie would go up.
    for sign in [0, 0x8000] {
        assert_eq!(fma("fma.rn.f16", [0x2401 | sign, 0x27fe, 0x3c01 | sign]), 0x3c01 | sign);
    }
    // Products at ties of bf16 and beside them, with addends far below f32's last place.
    for c in [0x0000u64, 0x0380, 0x8380, 0x0001, 0x8001] {
        for (x, y) in [(0x3f81, 0x3f80), (0x3fc0, 0x3f81), (0x3f83, 0x3fa0), (0x3fff, 0x3fff)] {
            assert_eq!(fma("fma.rn.bf16", [x, y, c]), exact::fma::<Bf16>(x, y, c, N), "{x:#x} {y:#x} {c:#x}");
        }
    }
    // The product is beyond f32, the sum is not.
    assert_eq!(fma("fma.rn.bf16", [0x7f7f, 0x4000, 0xff7f]), 0x7f7f);
    assert_eq!(fma("fma.rn.f16", [0x7bff, 0x7bff, 0xfc00]), 0xfc00);
    assert_eq!(fma("fma.rn.f16", [0x7c00, 0, a]), 0x7fff);
}

#[test]
fn extrema_and_signs() {
    for (stem, ftz) in [
        ("min", true),
        ("max", true),
        ("min.NaN", true),
        ("max.NaN", true),
        ("min.xorsign.abs", true),
        ("max.NaN.xorsign.abs", true),
        ("min.NaN.xorsign.abs", true),
        ("max.xorsign.abs", true),
        ("max.ftz", false),
        ("min.ftz.NaN", false),
    ] {
        // A function pointer captures nothing, so there is a closure for each combination.
        macro_rules! expected {
            ($F:ty, $value:ident) => {
                match (stem.starts_with("min"), stem.contains("NaN"), stem.contains("xorsign")) {
                    (true, false, false) => |x: &[u64]| extremum::<$F>(x[0], x[1], true, false, false, $value),
                    (true, false, true) => |x: &[u64]| extremum::<$F>(x[0], x[1], true, false, true, $value),
                    (true, true, false) => |x: &[u64]| extremum::<$F>(x[0], x[1], true, true, false, $value),
                    (true, true, true) => |x: &[u64]| extremum::<$F>(x[0], x[1], true, true, true, $value),
                    (false, false, false) => |x: &[u64]| extremum::<$F>(x[0], x[1], false, false, false, $value),
                    (false, false, true) => |x: &[u64]| extremum::<$F>(x[0], x[1], false, false, true, $value),
                    (false, true, false) => |x: &[u64]| extremum::<$F>(x[0], x[1], false, true, false, $value),
                    (false, true, true) => |x: &[u64]| extremum::<$F>(x[0], x[1], false, true, true, $value),
                }
            };
        }
        check::<F16>(stem, "f16", 2, f16, expected!(F16, f16));
        if ftz {
            check::<Bf16>(stem, "bf16", 2, bf16, expected!(Bf16, bf16));
        }
    }
    check::<F16>("neg", "f16", 1, f16, |x| x[0] ^ 0x8000);
    check::<F16>("neg.ftz", "f16", 1, f16, |x| x[0] ^ 0x8000);
    check::<F16>("abs", "f16", 1, f16, |x| x[0] & 0x7fff);
    check::<F16>("abs.ftz", "f16", 1, f16, |x| x[0] & 0x7fff);
    check::<Bf16>("neg", "bf16", 1, bf16, |x| x[0] ^ 0x8000);
    check::<Bf16>("abs", "bf16", 1, bf16, |x| x[0] & 0x7fff);
}

/// All 65536 inputs of an approximation.
fn all(form: &str, mut check: impl FnMut(u64, u64)) {
    for start in (0..1u64 << 16).step_by(32) {
        let inputs: [u64; 32] = std::array::from_fn(|l| start + l as u64);
        let got = run(form, &[Type::B16; 2], &[inputs]);
        for l in 0..32 {
            check(inputs[l], got[l]);
        }
    }
}

#[test]
fn approximations_over_all_inputs() {
    all("ex2.approx.f16", |x, got| {
        let (exact, got) = (f16(x).exp2(), f16(got));
        match exact {
            e if e.is_nan() => assert!(got.is_nan()),
            e if e >= 65520.0 => assert_eq!(got, f64::INFINITY),
            // Relative 2^-9.9, and half a place where the result is subnormal.
            e => assert!((got - e).abs() <= (e * 2f64.powf(-10.9)).max(2f64.powi(-25)), "ex2 of {x:#x}: {got}"),
        }
    });
    all("ex2.approx.ftz.bf16", |x, got| {
        let exact = if x & 0x7f80 == 0 { 1.0 } else { bf16(x).exp2() };
        let value = bf16(got);
        match exact {
            e if e.is_nan() => assert_eq!(got, 0x7fff),
            e if e >= 3.3962e38 => assert_eq!(value, f64::INFINITY),
            e if e < 2f64.powi(-126) * 0.99 => assert_eq!(got, 0, "ex2 of {x:#x}"),
            e => assert!((value / e - 1.0).abs() <= 2f64.powf(-7.99), "ex2 of {x:#x}: {value}"),
        }
    });
    all("tanh.approx.f16", |x, got| {
        let exact = f16(x).tanh();
        assert!(exact.is_nan() && got == 0x7fff || (f16(got) - exact).abs() <= 2f64.powf(-10.987), "tanh of {x:#x}");
        assert!(exact.is_nan() || (got ^ x) & 0x8000 == 0, "the sign of tanh {x:#x}");
    });
    all("tanh.approx.bf16", |x, got| {
        let exact = bf16(x).tanh();
        assert!(exact.is_nan() && got == 0x7fff || (bf16(got) - exact).abs() <= 2f64.powi(-8), "tanh of {x:#x}");
        assert!(exact.is_nan() || (got ^ x) & 0x8000 == 0, "the sign of tanh {x:#x}");
    });
    for (form, x, expected) in [
        ("ex2.approx.f16x2", 0x0000_fc00, 0x3c00_0000),
        ("ex2.approx.f16x2", 0x7c00_8000, 0x7c00_3c00),
        ("ex2.approx.ftz.bf16x2", 0x8001_3f80, 0x3f80_4000),
        ("tanh.approx.f16x2", 0xfc00_7c00, 0xbc00_3c00),
        ("tanh.approx.bf16x2", 0x8000_0001, 0x8000_0001),
    ] {
        assert_eq!(run(form, &[Type::B32; 2], &[[x; 32]])[0], expected, "{form} of {x:#x}");
    }
}

#[test]
fn what_is_not_known_is_refused() {
    for (text, operands) in [
        ("add.rz.f16", 3),
        ("add.ftz.bf16", 3),
        ("add.sat.bf16", 3),
        ("add.relu.f16", 3),
        ("fma.f16", 4),
        ("fma.rn.oob.f16", 4),
        ("fma.rn.sat.relu.f16", 4),
        ("fma.rz.f16x2", 4),
        ("min.xorsign.f16", 3),
        ("min.ftz.bf16", 3),
        ("ex2.approx.bf16", 2),
        ("ex2.approx.ftz.f16", 2),
        ("tanh.approx.ftz.bf16", 2),
        ("neg.ftz.bf16", 2),
        ("ex2.f16", 2),
    ] {
        refused(text, operands);
    }
}
