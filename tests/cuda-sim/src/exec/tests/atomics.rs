//! `atom` and `red`: every operation and type, in lane order.

use half::{bf16, f16};

use super::*;

/// Where the operation happens.
const PLACES: [(&str, &str); 4] =
    [("global", "%rd0+1024"), ("shared", "s"), ("", "%rd0+1024"), ("generic shared", "%rd3")];

/// Each of 32 lanes does `op` with its operand `b` (and `c`); `f` tells what an old value becomes.
fn check(op: &str, bits: u32, start: u64, b: &[u64; 32], c: Option<&[u64; 32]>, f: impl Fn(u64, u64, u64) -> u64) {
    let (register, ty) = match bits {
        16 => ("%rs", "u16"),
        32 => ("%r", "u32"),
        _ => ("%rd", "u64"),
    };
    for (place, address) in PLACES {
        for reduce in [false, true] {
            if reduce && (c.is_some() || op.starts_with("exch")) {
                continue;
            }
            let dot = if matches!(place, "global" | "shared") { format!(".{place}") } else { String::new() };
            let third = if c.is_some() { format!(", {register}12") } else { String::new() };
            let instruction = if reduce {
                format!("red{dot}.{op} [{address}], {register}11; mov.b{bits} {register}10, {register}11;")
            } else {
                format!("atom{dot}.{op} {register}10, [{address}], {register}11{third};")
            };
            let case = Case::kernel(&format!(
                ".shared .align 8 .b8 s[8];
                mov.u64 %rd3, s; cvta.shared.u64 %rd3, %rd3;
                mul.wide.u32 %rd2, %r0, 8; add.u64 %rd2, %rd0, %rd2;
                ld.global.{ty} {register}11, [%rd2+2048]; ld.global.{ty} {register}12, [%rd2+3072];
                ld.global.{ty} {register}13, [%rd0+1536];
                setp.eq.u32 %p1, %r0, 0; @%p1 st{dot}.{ty} [{address}], {register}13;
                bar.warp.sync -1;
                {instruction}
                mov.u64 %rd4, 0; st.global.u64 [%rd2], %rd4; st.global.{ty} [%rd2], {register}10;
                bar.warp.sync -1;
                @%p1 st.global.u64 [%rd0+256], %rd4;
                @%p1 ld{dot}.{ty} {register}14, [{address}]; @%p1 st.global.{ty} [%rd0+256], {register}14;"
            ));
            let case = case.input(2048, b).input(3072, c.unwrap_or(b)).input(1536, &[start]);
            let got = case.longs(33);
            let mut value = start;
            for l in 0..32 {
                let old = if reduce { b[l] } else { value };
                assert_eq!(got[l], old, "{op} in {place:?}, lane {l}, red {reduce}");
                value = f(value, b[l], c.map_or(0, |c| c[l]));
            }
            assert_eq!(got[32], value, "{op} in {place:?}: what it leaves, red {reduce}");
        }
    }
}

fn lanes(f: impl Fn(u64) -> u64) -> [u64; 32] {
    std::array::from_fn(|l| f(l as u64))
}

const ALL32: u64 = u32::MAX as u64;

#[test]
fn integers() {
    let b = lanes(|l| ((l * 0x9e37_79b9) ^ 0x8000_0000) & ALL32);
    let long = lanes(|l| (l + 3).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    check("add.u32", 32, 0xffff_fff0, &b, None, |x, b, _| (x + b) & ALL32);
    check("add.s32", 32, 0x7fff_fff0, &b, None, |x, b, _| (x + b) & ALL32);
    check("add.u64", 64, u64::MAX - 5, &long, None, |x, b, _| x.wrapping_add(b));
    check("and.b32", 32, ALL32, &lanes(|l| ALL32 ^ 1 << l), None, |x, b, _| x & b);
    check("or.b32", 32, 0, &lanes(|l| 1 << l), None, |x, b, _| x | b);
    check("xor.b32", 32, 0x1234, &b, None, |x, b, _| x ^ b);
    check("and.b64", 64, u64::MAX, &lanes(|l| u64::MAX ^ 1 << (2 * l)), None, |x, b, _| x & b);
    check("or.b64", 64, 0, &lanes(|l| 1 << (2 * l)), None, |x, b, _| x | b);
    check("xor.b64", 64, 0x1234, &long, None, |x, b, _| x ^ b);
    check("min.u32", 32, 0x9000_0000, &b, None, |x, b, _| x.min(b));
    check("max.u32", 32, 0x9000_0000, &b, None, |x, b, _| x.max(b));
    let signed = |x: u64| x as u32 as i32;
    check("min.s32", 32, 5, &b, None, |x, b, _| signed(x).min(signed(b)) as u32 as u64);
    check("max.s32", 32, 0x8000_0005, &b, None, |x, b, _| signed(x).max(signed(b)) as u32 as u64);
    check("min.u64", 64, u64::MAX, &long, None, |x, b, _| x.min(b));
    check("max.u64", 64, 1, &long, None, |x, b, _| x.max(b));
    check("min.s64", 64, 5, &long, None, |x, b, _| (x as i64).min(b as i64) as u64);
    check("max.s64", 64, 1 << 63, &long, None, |x, b, _| (x as i64).max(b as i64) as u64);
    // with scope and order
    check("relaxed.gpu.add.u32", 32, 1, &b, None, |x, b, _| (x + b) & ALL32);
}

#[test]
fn increments_wrap() {
    // PTX ISA, atom: inc is d >= b ? 0 : d + 1; dec is d == 0 or d > b ? b : d - 1
    check("inc.u32", 32, 0, &lanes(|_| 4), None, |x, b, _| if x >= b { 0 } else { x + 1 });
    check("dec.u32", 32, 2, &lanes(|_| 4), None, |x, b, _| if x == 0 || x > b { b } else { x - 1 });
    check("inc.u32", 32, 9, &lanes(|l| l), None, |x, b, _| if x >= b { 0 } else { x + 1 });
    check("dec.u32", 32, ALL32, &lanes(|l| 40 - l), None, |x, b, _| if x == 0 || x > b { b } else { x - 1 });
    check("inc.u32", 32, ALL32 - 1, &lanes(|_| ALL32), None, |x, b, _| if x >= b { 0 } else { x + 1 });
}

#[test]
fn exchange_and_compare() {
    check("exch.b32", 32, 77, &lanes(|l| l + 100), None, |_, b, _| b);
    check("exch.b64", 64, 77, &lanes(|l| l << 40), None, |_, b, _| b);
    // the chain 0 -> 1 -> 2 ... that every third lane does not find
    let b = lanes(|l| if l % 3 == 2 { 1000 } else { l - l / 3 });
    let c = lanes(|l| if l % 3 == 2 { 2000 } else { l - l / 3 + 1 });
    for bits in [16, 32, 64] {
        check(&format!("cas.b{bits}"), bits, 0, &b, Some(&c), |x, b, c| if x == b { c } else { x });
    }
    let high = lanes(|l| l << 32);
    check("cas.b64", 64, 0, &high, Some(&lanes(|l| (l + 1) << 32)), |x, b, c| if x == b { c } else { x });
}

#[test]
fn floats() {
    let single = |x: f32| x.to_bits() as u64;
    let f = |x: u64| f32::from_bits(x as u32);
    check("add.f32", 32, single(1e7), &lanes(|l| single(l as f32 * 0.3 - 2.0)), None, |x, b, _| single(f(x) + f(b)));
    let d = f64::from_bits;
    check("add.f64", 64, 1e15f64.to_bits(), &lanes(|l| (l as f64 * 0.3).to_bits()), None, |x, b, _| {
        (d(x) + d(b)).to_bits()
    });
    let half = |x: u64| f16::from_bits(x as u16);
    let add16 = move |x: u64, b: u64| f16::from_f32(half(x).to_f32() + half(b).to_f32()).to_bits() as u64;
    let h = |x: f32| f16::from_f32(x).to_bits() as u64;
    check("add.noftz.f16", 16, h(100.0), &lanes(|l| h(l as f32 * 0.37)), None, move |x, b, _| add16(x, b));
    check(
        "add.noftz.f16x2",
        32,
        h(100.0) | h(-7.0) << 16,
        &lanes(|l| h(l as f32 * 0.37) | h(-0.25) << 16),
        None,
        move |x, b, _| add16(x & 0xffff, b & 0xffff) | add16(x >> 16, b >> 16) << 16,
    );
    let brain = |x: u64| bf16::from_bits(x as u16);
    let addb = move |x: u64, b: u64| bf16::from_f32(brain(x).to_f32() + brain(b).to_f32()).to_bits() as u64;
    let b = |x: f32| bf16::from_f32(x).to_bits() as u64;
    check("add.noftz.bf16", 16, b(100.0), &lanes(|l| b(l as f32 * 0.37)), None, move |x, b, _| addb(x, b));
    check("add.noftz.bf16x2", 32, b(3.0), &lanes(|l| b(l as f32 * 0.37) | b(1.5) << 16), None, move |x, b, _| {
        addb(x & 0xffff, b & 0xffff) | addb(x >> 16, b >> 16) << 16
    });
}

#[test]
fn different_addresses_do_not_meet() {
    let words = Case::kernel(
        "st.global.u32 [%rd1], %r0; bar.warp.sync -1;
        xor.b32 %r1, %r0, 5; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd2, %rd0, %rd2;
        atom.global.add.u32 %r2, [%rd2], 100; st.global.u32 [%rd1+128], %r2;",
    )
    .words(64);
    assert_eq!(words[..32], each(32, |t| t + 100));
    assert_eq!(words[32..], each(32, |t| t ^ 5));
}

#[test]
fn blocks_count_together() {
    for threads in [1, 2, 5] {
        let case = Case::kernel(
            "atom.global.add.u32 %r1, [%rd0+2048], 1;
            red.global.max.u32 [%rd0+2052], %r1;",
        )
        .threads(96)
        .blocks(20)
        .input(2048, &[0u32, 0]);
        assert!(case.launch(threads).finding.is_none());
        let mut bytes = [0; 8];
        case.memory.read(case.out + 2048, &mut bytes).expect("in bounds");
        assert_eq!(u64::from_le_bytes(bytes), 1920 | 1919 << 32);
    }
}
