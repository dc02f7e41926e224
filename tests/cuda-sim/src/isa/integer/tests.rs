//! Against plain definitions in wide integers, on edge and random values.

use crate::lanes::testing::{check, form, refused};
use crate::lanes::{Class, Role};
use crate::ptx::ast::Type;

/// A lane's bits as the number that they are in a type.
fn number(bits: u128, ty: &str) -> i128 {
    let width: u32 = ty[1..].parse().unwrap();
    let bits = bits & (u128::MAX >> (128 - width));
    if ty.starts_with('s') && bits >> (width - 1) != 0 { bits as i128 - (1i128 << width) } else { bits as i128 }
}

/// The low bits of a number, as many as the type has.
fn bits(number: i128, ty: &str) -> u128 {
    number as u128 & (u128::MAX >> (128 - ty[1..].parse::<u32>().unwrap()))
}

fn register(ty: &str) -> &'static str {
    match &ty[1..] {
        "16" => "%rs",
        "32" => "%r",
        _ => "%rd",
    }
}

const TYPES: [&str; 6] = ["u16", "s16", "u32", "s32", "u64", "s64"];

/// Checks `name.ty d, sources..` against a function of numbers.
fn arithmetic<const N: usize>(name: &str, ty: &str, value: impl Fn([i128; N]) -> i128) {
    let r = register(ty);
    let sources: Vec<String> = (2..2 + N).map(|n| format!("{r}{n}")).collect();
    check(&format!("{name}.{ty} {r}1, {}", sources.join(", ")), |inputs| {
        vec![bits(value(std::array::from_fn(|n| number(inputs[n], ty))), ty)]
    });
}

/// The high half of a product that needs all 128 bits.
fn high(a: i128, b: i128, ty: &str) -> i128 {
    let width: u32 = ty[1..].parse().unwrap();
    match a.checked_mul(b) {
        Some(product) => product >> width,
        // Only u64 * u64 gets there.
        None => ((a as u128 * b as u128) >> width) as i128,
    }
}

#[test]
fn sums_differences_products() {
    for ty in TYPES {
        arithmetic("add", ty, |[a, b]| a + b);
        arithmetic("sub", ty, |[a, b]| a - b);
        arithmetic("mul.lo", ty, |[a, b]| a.wrapping_mul(b));
        arithmetic("mul.hi", ty, |[a, b]| high(a, b, ty));
        arithmetic("mad.lo", ty, |[a, b, c]| a.wrapping_mul(b).wrapping_add(c));
        arithmetic("mad.hi", ty, |[a, b, c]| high(a, b, ty) + c);
        arithmetic("sad", ty, |[a, b, c]| c + (a - b).abs());
        arithmetic("min", ty, |[a, b]| a.min(b));
        arithmetic("max", ty, |[a, b]| a.max(b));
    }
    for ty in ["s16", "s32", "s64"] {
        arithmetic("abs", ty, |[a]| a.abs());
        arithmetic("neg", ty, |[a]| -a);
    }
}

#[test]
fn wide_products() {
    for (ty, wide) in [("u16", "u32"), ("s16", "s32"), ("u32", "u64"), ("s32", "s64")] {
        let (r, d) = (register(ty), register(wide));
        check(&format!("mul.wide.{ty} {d}1, {r}2, {r}3"), |i| vec![bits(number(i[0], ty) * number(i[1], ty), wide)]);
        check(&format!("mad.wide.{ty} {d}1, {r}2, {r}3, {d}4"), |i| {
            vec![bits(number(i[0], ty) * number(i[1], ty) + number(i[2], wide), wide)]
        });
    }
}

#[test]
fn saturation() {
    let clamp = |x: i128| x.clamp(i32::MIN as i128, i32::MAX as i128);
    arithmetic("add.sat", "s32", |[a, b]| clamp(a + b));
    arithmetic("sub.sat", "s32", |[a, b]| clamp(a - b));
    arithmetic("mad.hi.sat", "s32", |[a, b, c]| clamp(((a * b) >> 32) + c));
    arithmetic("min.relu", "s32", |[a, b]| a.min(b).max(0));
    arithmetic("max.relu", "s32", |[a, b]| a.max(b).max(0));
}

#[test]
fn twenty_four_bits() {
    for ty in ["u32", "s32"] {
        let cut = |x: i128| if ty == "s32" { ((x as i32) << 8 >> 8) as i128 } else { x & 0xff_ffff };
        arithmetic("mul24.lo", ty, |[a, b]| cut(a) * cut(b));
        arithmetic("mul24.hi", ty, |[a, b]| (cut(a) * cut(b)) >> 16);
        arithmetic("mad24.lo", ty, |[a, b, c]| cut(a) * cut(b) + c);
        arithmetic("mad24.hi", ty, |[a, b, c]| ((cut(a) * cut(b)) >> 16) + c);
    }
    let cut = |x: i128| ((x as i32) << 8 >> 8) as i128;
    arithmetic("mad24.hi.sat", "s32", |[a, b, c]| {
        (((cut(a) * cut(b)) >> 16) as i32 as i128 + c).clamp(i32::MIN as i128, i32::MAX as i128)
    });
}

#[test]
fn division() {
    for ty in TYPES {
        arithmetic("div", ty, |[a, b]| if b == 0 { -1 } else { a / b });
        arithmetic("rem", ty, |[a, b]| if b == 0 { -1 } else { a % b });
    }
}

fn halves(x: u128, ty: &str) -> [i128; 2] {
    [number(x & 0xffff, ty), number(x >> 16, ty)]
}

#[test]
fn packed_halves() {
    let join = |low: i128, high: i128| vec![(low as u16 as u128) | (high as u16 as u128) << 16];
    for ty in ["u16", "s16"] {
        let pairs = |i: &[u128], f: fn(i128, i128) -> i128| {
            let ([a, b], [c, d]) = (halves(i[0], ty), halves(i[1], ty));
            join(f(a, c), f(b, d))
        };
        check(&format!("add.{ty}x2 %r1, %r2, %r3"), |i| pairs(i, |a, b| a + b));
        check(&format!("min.{ty}x2 %r1, %r2, %r3"), |i| pairs(i, |a, b| a.min(b)));
        check(&format!("max.{ty}x2 %r1, %r2, %r3"), |i| pairs(i, |a, b| a.max(b)));
        if ty == "s16" {
            for form in ["relu.s16x2", "s16x2.relu"] {
                check(&format!("min.{form} %r1, %r2, %r3"), |i| pairs(i, |a, b| a.min(b).max(0)));
                check(&format!("max.{form} %r1, %r2, %r3"), |i| pairs(i, |a, b| a.max(b).max(0)));
            }
        }
    }
}

#[test]
fn dot_products() {
    for a in ["u32", "s32"] {
        for b in ["u32", "s32"] {
            let part = |x: u128, n: usize, width: usize, ty: &str| {
                number(x >> (n * width) & ((1 << width) - 1), &format!("{}{width}", &ty[..1]))
            };
            check(&format!("dp4a.{a}.{b} %r1, %r2, %r3, %r4"), |i| {
                let sum: i128 = (0..4).map(|n| part(i[0], n, 8, a) * part(i[1], n, 8, b)).sum();
                vec![bits(sum + i[2] as i128, "u32")]
            });
            for (mode, first) in [("lo", 0), ("hi", 2)] {
                check(&format!("dp2a.{mode}.{a}.{b} %r1, %r2, %r3, %r4"), |i| {
                    let sum: i128 = (0..2).map(|n| part(i[0], n, 16, a) * part(i[1], n + first, 8, b)).sum();
                    vec![bits(sum + i[2] as i128, "u32")]
                });
            }
        }
    }
}

/// The loops of the ISA's text, on up to 64 bits.
mod text {
    pub fn bfind(a: u64, width: u32, signed: bool, shift: bool) -> u32 {
        let msb = width - 1;
        let a = if signed && a >> msb & 1 != 0 { !a } else { a };
        match (0..=msb).rev().find(|n| a >> n & 1 != 0) {
            Some(n) => {
                if shift {
                    msb - n
                } else {
                    n
                }
            }
            None => u32::MAX,
        }
    }

    pub fn bfe(a: u64, b: u64, c: u64, width: u64, signed: bool) -> u64 {
        let (msb, pos, len) = (width - 1, b & 255, c & 255);
        let sign = if !signed || len == 0 { 0 } else { a >> (pos + len - 1).min(msb) & 1 };
        (0..=msb).fold(0, |d, n| d | (if n < len && pos + n <= msb { a >> (pos + n) & 1 } else { sign }) << n)
    }

    pub fn bfi(a: u64, b: u64, c: u64, d: u64, width: u64) -> u64 {
        let (msb, pos, len) = (width - 1, c & 255, d & 255);
        let mut f = b;
        for n in (0..len).take_while(|n| pos + n <= msb) {
            f = f & !(1 << (pos + n)) | (a >> n & 1) << (pos + n);
        }
        f
    }

    pub fn fns(mask: u32, base: u32, offset: i32) -> u32 {
        if base > 31 {
            return u32::MAX;
        }
        if offset == 0 {
            return if mask >> base & 1 != 0 { base } else { u32::MAX };
        }
        let (mut pos, mut count) = (base as i64, offset.unsigned_abs() - 1);
        while (0..32).contains(&pos) {
            if mask >> pos & 1 != 0 {
                if count == 0 {
                    return pos as u32;
                }
                count -= 1;
            }
            pos += if offset > 0 { 1 } else { -1 };
        }
        u32::MAX
    }

    pub fn bmsk(a: u32, b: u32, clamp: bool) -> u32 {
        let (a1, b1) = (a & 31, b & 31);
        let (mut mask0, sum) = (u32::MAX << a1, a1 + b1);
        let mut overflow = sum >= 32;
        if clamp {
            if a >= 32 {
                overflow = true;
                mask0 = 0;
            }
            overflow |= b >= 32;
        }
        let mask1 = if overflow {
            0
        } else if b1 == 0 {
            u32::MAX
        } else {
            u32::MAX << sum
        };
        mask0 & !mask1
    }

    pub fn szext(a: u32, b: u32, clamp: bool, signed: bool) -> u32 {
        let b1 = b & 31;
        let too_large = b >= 32 && clamp;
        let mask = if too_large { 0 } else { u32::MAX << b1 };
        let sign = signed && b1 != 0 && !too_large && a >> ((b1 + 31) & 31) & 1 != 0;
        a & !mask | if sign { mask } else { 0 }
    }
}

#[test]
fn bits_counted_and_found() {
    check("popc.b32 %r1, %r2", |i| vec![(0..32).map(|n| i[0] >> n & 1).sum()]);
    check("popc.b64 %r1, %rd2", |i| vec![(0..64).map(|n| i[0] >> n & 1).sum()]);
    check("clz.b32 %r1, %r2", |i| vec![(0..32).rev().take_while(|n| i[0] >> n & 1 == 0).count() as u128]);
    check("clz.b64 %r1, %rd2", |i| vec![(0..64).rev().take_while(|n| i[0] >> n & 1 == 0).count() as u128]);
    check("brev.b32 %r1, %r2", |i| vec![(0..32).fold(0, |d, n| d | (i[0] >> n & 1) << (31 - n))]);
    check("brev.b64 %rd1, %rd2", |i| vec![(0..64).fold(0, |d, n| d | (i[0] >> n & 1) << (63 - n))]);
    for (ty, width) in [("u32", 32), ("s32", 32), ("u64", 64), ("s64", 64)] {
        let (r, signed) = (register(ty), ty.starts_with('s'));
        check(&format!("bfind.{ty} %r1, {r}2"), |i| vec![text::bfind(i[0] as u64, width, signed, false) as u128]);
        check(&format!("bfind.shiftamt.{ty} %r1, {r}2"), |i| {
            vec![text::bfind(i[0] as u64, width, signed, true) as u128]
        });
    }
    check("fns.b32 %r1, %r2, %r3, %r4", |i| vec![text::fns(i[0] as u32, i[1] as u32, i[2] as i32) as u128]);
}

#[test]
fn the_nth_set_bit_as_the_examples_of_the_isa() {
    for (base, offset, found) in [(3, 1, 3), (3, -1, 3), (2, 1, 3), (2, -1, 1)] {
        assert_eq!(text::fns(0xaaaa_aaaa, base, offset), found);
        check(&format!("fns.b32 %r1, 0xaaaaaaaa, {base}, {offset}"), |_| vec![found as u128]);
    }
    check("fns.b32 %r1, %r2, 0, -2147483648", |_| vec![0xffff_ffff]);
    // Offset 0 asks for the bit at the base, set or not.
    for base in 0..32 {
        let found = |i: &[u128]| if i[0] >> base & 1 != 0 { base as u128 } else { 0xffff_ffff };
        check(&format!("fns.b32 %r1, %r2, {base}, 0"), |i| vec![found(i)]);
    }
}

#[test]
fn bit_fields() {
    for (ty, width) in [("u32", 32), ("s32", 32), ("u64", 64), ("s64", 64)] {
        let (r, signed) = (register(ty), ty.starts_with('s'));
        check(&format!("bfe.{ty} {r}1, {r}2, %r3, %r4"), |i| {
            vec![text::bfe(i[0] as u64, i[1] as u64, i[2] as u64, width, signed) as u128]
        });
        for len in [0, 1, 7, 31, 32, 33, 64, 255] {
            check(&format!("bfe.{ty} {r}1, {r}2, %r3, {len}"), |i| {
                vec![text::bfe(i[0] as u64, i[1] as u64, len, width, signed) as u128]
            });
        }
    }
    check("bfi.b32 %r1, %r2, %r3, %r4, %r5", |i| {
        vec![text::bfi(i[0] as u64, i[1] as u64, i[2] as u64, i[3] as u64, 32) as u128]
    });
    check("bfi.b64 %rd1, %rd2, %rd3, %r4, %r5", |i| {
        vec![text::bfi(i[0] as u64, i[1] as u64, i[2] as u64, i[3] as u64, 64) as u128]
    });
    for clamp in [true, false] {
        let mode = if clamp { "clamp" } else { "wrap" };
        check(&format!("bmsk.{mode}.b32 %r1, %r2, %r3"), |i| vec![text::bmsk(i[0] as u32, i[1] as u32, clamp) as u128]);
        for (ty, signed) in [("u32", false), ("s32", true)] {
            check(&format!("szext.{mode}.{ty} %r1, %r2, %r3"), |i| {
                vec![text::szext(i[0] as u32, i[1] as u32, clamp, signed) as u128]
            });
        }
    }
    check("bmsk.wrap.b32 %r1, 1, 2", |_| vec![6]);
    check("szext.wrap.u32 %r1, 0xffffffff, 0", |_| vec![0]);
}

#[test]
fn carries() {
    for ty in ["u32", "s32", "u64", "s64"] {
        let (r, width) = (register(ty), ty[1..].parse::<u32>().unwrap());
        let unsigned = format!("u{width}");
        // A sum of up to 65 bits as the register and the carry.
        let split = |sum: u128| vec![bits(sum as i128, ty), sum >> width & 1];
        let not = |x: u128| bits(!(x as i128), ty);
        let product = |i: &[u128], half: &str| {
            let (a, b) = (number(i[0], ty), number(i[1], ty));
            bits(if half == "lo" { a.wrapping_mul(b) } else { high(a, b, ty) }, &unsigned)
        };
        check(&format!("add.cc.{ty} {r}1, {r}2, {r}3"), |i| split(i[0] + i[1]));
        check(&format!("addc.cc.{ty} {r}1, {r}2, {r}3"), |i| split(i[0] + i[1] + i[2]));
        check(&format!("addc.{ty} {r}1, {r}2, {r}3"), |i| split(i[0] + i[1] + i[2])[..1].to_vec());
        check(&format!("sub.cc.{ty} {r}1, {r}2, {r}3"), |i| split(i[0] + not(i[1]) + 1));
        check(&format!("subc.cc.{ty} {r}1, {r}2, {r}3"), |i| split(i[0] + not(i[1]) + i[2]));
        check(&format!("subc.{ty} {r}1, {r}2, {r}3"), |i| split(i[0] + not(i[1]) + i[2])[..1].to_vec());
        for half in ["lo", "hi"] {
            check(&format!("mad.{half}.cc.{ty} {r}1, {r}2, {r}3, {r}4"), |i| split(product(i, half) + i[2]));
            check(&format!("madc.{half}.cc.{ty} {r}1, {r}2, {r}3, {r}4"), |i| split(product(i, half) + i[2] + i[3]));
            check(&format!("madc.{half}.{ty} {r}1, {r}2, {r}3, {r}4"), |i| {
                split(product(i, half) + i[2] + i[3])[..1].to_vec()
            });
        }
    }
}

#[test]
fn the_slots_of_a_carry_chain() {
    let roles = |text| form(text).unwrap().slots.iter().map(|s| (s.role, s.ty)).collect::<Vec<_>>();
    assert_eq!(
        roles("addc.cc.u32 %r1, %r2, %r3"),
        [
            (Role::Out, Type::U32),
            (Role::Out, Type::Pred),
            (Role::In, Type::U32),
            (Role::In, Type::U32),
            (Role::In, Type::Pred)
        ]
    );
    assert_eq!(form("mad.lo.s32 %r1, %r2, %r3, %r4").unwrap().class, Class::Integer);
}

#[test]
fn forms_that_the_isa_does_not_have() {
    for text in [
        "add.u8 %r1, %r2, %r3",
        "add.sat.u32 %r1, %r2, %r3",
        "sub.u16x2 %r1, %r2, %r3",
        "add.u8x4 %r1, %r2, %r3",
        "neg.u32 %r1, %r2",
        "mul.u32 %r1, %r2, %r3",
        "mul.wide.u64 %rd1, %rd2, %rd3",
        "mad.lo.sat.s32 %r1, %r2, %r3, %r4",
        "mad.lo.cc.u16 %rs1, %rs2, %rs3, %rs4",
        "max.relu.s16 %rs1, %rs2, %rs3",
        "bfe.b32 %r1, %r2, %r3, %r4",
        "dp4a.u32 %r1, %r2, %r3, %r4",
        "popc.u32 %r1, %r2",
        "add.u32 %r1, %r2, !%r3",
    ] {
        refused(text);
    }
}
