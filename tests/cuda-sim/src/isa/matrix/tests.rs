//! Against plain matrix products, with fragments packed by the ISA's own tables, written down here once more.

use super::*;
use crate::lanes::{Class, Sync, Unit};
use crate::ptx::ast::Location;

/// An instruction with vectors of registers that are all different: `mma... {4}, {2}, {1}, {4}`.
fn instruction(form: &str, vectors: &[usize]) -> Instruction {
    let mut parts = form.split('.').map(String::from);
    let mut next = 0;
    let mut vector = |count: usize| {
        next += count;
        Operand::Vector((next - count..next).map(|r| Operand::Name(format!("%r{r}"))).collect())
    };
    Instruction {
        guard: None,
        opcode: parts.next().unwrap(),
        modifiers: parts.collect(),
        operands: vectors.iter().map(|&count| vector(count)).collect(),
        line: 1,
        location: Location::default(),
    }
}

fn form(text: &str, vectors: &[usize]) -> Form {
    family(&instruction(text, vectors), &|_| None).unwrap().unwrap()
}

fn refusal(text: &str, vectors: &[usize]) -> String {
    family(&instruction(text, vectors), &|_| None).unwrap_err().0
}

/// Row and column of element `i` of a lane, as PTX ISA 9.7.14.5.1 to 9.7.14.5.13 tabulate them for a shape and the bits
/// of an element.
fn isa(text: &str, bits: usize, matrix: char, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    let shape = text.split('.').find(|m| m.starts_with("m") && m.contains('k')).unwrap();
    match (shape, bits, matrix) {
        ("m8n8k4", 64, 'a') => (group, thread),
        ("m8n8k4", 64, 'b') => (thread, group),
        ("m8n8k16", 8, 'a') => (group, thread * 4 + i),
        ("m8n8k16", 8, 'b') => (thread * 4 + i, group),
        ("m8n8k32", 4, 'a') => (group, thread * 8 + i),
        ("m8n8k32", 4, 'b') => (thread * 8 + i, group),
        ("m8n8k128", 1, 'a') => (group, thread * 32 + i),
        ("m8n8k128", 1, 'b') => (thread * 32 + i, group),
        ("m8n8k4" | "m8n8k16" | "m8n8k32" | "m8n8k128", _, 'c') => (group, thread * 2 + (i & 1)),
        ("m16n8k4", 32 | 64, 'a') => (if i == 0 { group } else { group + 8 }, thread),
        ("m16n8k4", 32 | 64, 'b') => (thread, group),
        ("m16n8k8", 16, 'a') => (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1)),
        ("m16n8k8", 16, 'b') => (thread * 2 + i, group),
        ("m16n8k8", 32 | 64, 'a') => {
            (if i == 0 || i == 2 { group } else { group + 8 }, if i == 0 || i == 1 { thread } else { thread + 4 })
        }
        ("m16n8k8", 32 | 64, 'b') => (if i == 0 { thread } else { thread + 4 }, group),
        ("m16n8k16", 16, 'a') => (
            if i < 2 || (4..6).contains(&i) { group } else { group + 8 },
            if i < 4 { thread * 2 + (i & 1) } else { thread * 2 + (i & 1) + 8 },
        ),
        ("m16n8k16", 16, 'b') => (thread * 2 + (i & 1) + if i < 2 { 0 } else { 8 }, group),
        ("m16n8k16", 64, 'a') if i % 2 == 0 => (group, i * 2 + thread),
        ("m16n8k16", 64, 'a') => (group + 8, i * 2 - 2 + thread),
        ("m16n8k16", 64, 'b') => (thread + i * 4, group),
        ("m16n8k16", 8, 'a') => (if i < 4 { group } else { group + 8 }, thread * 4 + (i & 3)),
        ("m16n8k16", 8, 'b') => (thread * 4 + i, group),
        ("m16n8k32", 4, 'a') => (if i < 8 { group } else { group + 8 }, thread * 8 + (i & 7)),
        ("m16n8k32", 4, 'b') => (thread * 8 + (i & 7), group),
        ("m16n8k32", 8, 'a') => (
            if i < 4 || (8..12).contains(&i) { group } else { group + 8 },
            if i < 8 { thread * 4 + (i & 3) } else { thread * 4 + (i & 3) + 16 },
        ),
        ("m16n8k32", 8, 'b') => (thread * 4 + (i & 3) + if i < 4 { 0 } else { 16 }, group),
        ("m16n8k64", 4, 'a') => (
            if i < 8 || (16..24).contains(&i) { group } else { group + 8 },
            if i < 16 { thread * 8 + (i & 7) } else { thread * 8 + (i & 7) + 32 },
        ),
        ("m16n8k64", 4, 'b') => (thread * 8 + (i & 7) + if i < 8 { 0 } else { 32 }, group),
        ("m16n8k128", 1, 'a') => (if i < 32 { group } else { group + 8 }, thread * 32 + (i & 31)),
        ("m16n8k128", 1, 'b') => (thread * 32 + i, group),
        ("m16n8k256", 1, 'a') => (
            if i < 32 || (64..96).contains(&i) { group } else { group + 8 },
            if i < 64 { thread * 32 + (i & 31) } else { thread * 32 + (i & 31) + 128 },
        ),
        ("m16n8k256", 1, 'b') => (thread * 32 + (i & 31) + if i < 32 { 0 } else { 128 }, group),
        (_, _, 'c') => (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1)),
        _ => panic!("{text}: the ISA has no such fragment"),
    }
}

/// Numbers that repeat.
struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 32 ^ self.0 << 32
    }
}

/// A type as `mma` writes it, and its bits, registers' bits, and values.
fn bits(ty: &str) -> usize {
    match ty {
        "b1" => 1,
        "s4" | "u4" => 4,
        "s8" | "u8" | "e4m3" | "e5m2" => 8,
        "f16" | "bf16" => 16,
        "f64" => 64,
        _ => 32,
    }
}

/// The value of an element, exactly (all of them fit into an f64).
fn decode(ty: &str, x: u64) -> f64 {
    // OCP 8-bit formats from their definition: sign, exponent, mantissa.
    let small = |mantissa_bits: i32, bias: i32| {
        let (exponent, mantissa) = ((x as i32 & 0x7f) >> mantissa_bits, x as i32 & ((1 << mantissa_bits) - 1));
        let fraction = mantissa as f64 / 2f64.powi(mantissa_bits);
        let magnitude =
            if exponent == 0 { fraction * 2f64.powi(1 - bias) } else { (1.0 + fraction) * 2f64.powi(exponent - bias) };
        if x & 0x80 != 0 { -magnitude } else { magnitude }
    };
    match ty {
        "s4" => ((x << 60) as i64 >> 60) as f64,
        "s8" => x as i8 as f64,
        "u4" | "u8" | "b1" => x as f64,
        "s32" => x as i32 as f64,
        "f16" => half::f16::from_bits(x as u16).to_f64(),
        "bf16" => half::bf16::from_bits(x as u16).to_f64(),
        "tf32" => f32::from_bits(x as u32 & 0xffff_e000) as f64,
        "f32" => f32::from_bits(x as u32) as f64,
        "f64" => f64::from_bits(x),
        "e4m3" if x & 0x7f == 0x7f => f64::NAN,
        "e4m3" => small(3, 7),
        "e5m2" if x & 0x7f > 0x7c => f64::NAN,
        "e5m2" if x & 0x7f == 0x7c => {
            if x & 0x80 != 0 {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            }
        }
        "e5m2" => small(2, 15),
        _ => panic!("{ty}"),
    }
}

/// A random element: for floating point a few bits only, so that every sum in f32 is exact.
fn element(ty: &str, random: &mut Random) -> u64 {
    let r = random.next();
    let small = (r % 33) as f64 / 4.0 - 4.0;
    match ty {
        "f16" => half::f16::from_f64(small).to_bits() as u64,
        "bf16" => half::bf16::from_f64(small).to_bits() as u64,
        // The lower 13 bits do not count.
        "tf32" => (small as f32).to_bits() as u64 | r >> 40 & 0x1fff,
        "f32" => (small as f32).to_bits() as u64,
        "f64" => small.to_bits(),
        // Exponents near 1.
        "e4m3" => r & 0x87 | 0x30 | r >> 8 & 0x08,
        "e5m2" => r & 0x83 | 0x38 | r >> 8 & 0x04,
        "s32" => r & 0xffff_ffff,
        _ => r & ((1 << bits(ty)) - 1),
    }
}

/// Writes element `i` of a lane into registers that are two units each.
fn put(file: &mut [Unit], first: usize, bits: usize, lane: usize, i: usize, x: u64) {
    if bits == 64 {
        let unit = (first + i) * 2;
        let words = unsafe { &mut *(file[unit..unit + 2].as_mut_ptr() as *mut [u64; 32]) };
        words[lane] = x;
    } else {
        let per = 32 / bits;
        let word = &mut file[(first + i / per) * 2].0[lane];
        let shift = i % per * bits;
        let mask = if bits == 32 { u32::MAX } else { (1 << bits) - 1 };
        *word = *word & !(mask << shift) | (x as u32) << shift;
    }
}

fn get(file: &[Unit], first: usize, bits: usize, lane: usize, i: usize) -> u64 {
    if bits == 64 {
        let unit = (first + i) * 2;
        let words = unsafe { &*(file[unit..unit + 2].as_ptr() as *const [u64; 32]) };
        words[lane]
    } else {
        let per = 32 / bits;
        let mask = if bits == 32 { u32::MAX } else { (1 << bits) - 1 };
        (file[(first + i / per) * 2].0[lane] >> (i % per * bits) & mask) as u64
    }
}

type Values = Vec<Vec<u64>>;

fn matrix(rows: usize, columns: usize, mut of: impl FnMut() -> u64) -> Values {
    (0..rows).map(|_| (0..columns).map(|_| of()).collect()).collect()
}

/// Packs the matrices into registers, runs the form, and unpacks D. `place` tells where an element is.
fn run(
    form: &Form,
    types: [&str; 4],
    vectors: [usize; 4],
    [a, b, c]: [&Values; 3],
    place: &dyn Fn(&str, char, usize, usize) -> (usize, usize),
) -> Values {
    let mut file = vec![Unit([0; 32]); 2 * form.slots.len() + 2];
    let mut starts = [0; 4];
    for i in 1..4 {
        starts[i] = starts[i - 1] + vectors[i - 1];
    }
    let per = |ty: &str| 32usize.div_ceil(bits(ty)).max(1);
    for lane in 0..32 {
        for (at, (name, values)) in [(1, ('a', a)), (2, ('b', b)), (3, ('c', c))] {
            for i in 0..vectors[at] * per(types[at]) {
                let (row, column) = place(types[at], name, lane, i);
                put(&mut file, starts[at], bits(types[at]), lane, i, values[row][column]);
            }
        }
    }
    let slots: Vec<u16> = (0..form.slots.len() as u16).map(|slot| slot * 2).collect();
    unsafe { (form.run)(file.as_mut_ptr(), &slots, u32::MAX) };
    let mut d = matrix(c.len(), c[0].len(), || u64::MAX);
    for lane in 0..32 {
        for i in 0..vectors[0] * per(types[0]) {
            let (row, column) = place(types[0], 'c', lane, i);
            d[row][column] = get(&file, 0, bits(types[0]), lane, i);
        }
    }
    d
}

fn dimensions(text: &str) -> [usize; 3] {
    text.split('.').find_map(shape).unwrap()
}

/// Types in the order D, A, B, C.
fn types(text: &str) -> [&str; 4] {
    let types: Vec<&str> = text.split('.').filter(|m| element::Element::named(m).is_some()).collect();
    match types[..] {
        [d, c] => [d, "f16", "f16", c],
        [d, a, b, c] => [d, a, b, c],
        _ => panic!("{text}"),
    }
}

/// What D is: the exact product, which fits the type or (integers) wraps or saturates.
fn expected(text: &str, ty: [&str; 4], a: &Values, b: &Values, c: &Values) -> Values {
    let mut d = c.clone();
    for (row, d) in d.iter_mut().enumerate() {
        for (column, d) in d.iter_mut().enumerate() {
            let products = (0..b.len()).map(|k| match ty[1] {
                "b1" if text.contains(".xor.") => (a[row][k] ^ b[k][column]) as f64,
                "b1" => (a[row][k] & b[k][column]) as f64,
                _ => decode(ty[1], a[row][k]) * decode(ty[2], b[k][column]),
            });
            let sum = decode(ty[3], c[row][column]) + products.sum::<f64>();
            *d = match ty[0] {
                "s32" if text.contains(".satfinite") => sum as i32 as u32 as u64,
                "s32" => sum as i64 as u32 as u64,
                "f16" => half::f16::from_f64(sum).to_bits() as u64,
                "f32" => (sum as f32).to_bits() as u64,
                "f64" => sum.to_bits(),
                other => panic!("{other}"),
            };
        }
    }
    d
}

/// Every `mma` but the quad-pair one, with the registers of D, A, B and C that the ISA's fragments have.
fn every_mma() -> Vec<(String, [usize; 4])> {
    let mut all = Vec::new();
    let mut add = |shape: &str, types: &str, vectors: [usize; 4]| {
        all.push((format!("mma.sync.aligned.{shape}.row.col.{types}"), vectors));
    };
    add("m16n8k4", "f32.tf32.tf32.f32", [4, 2, 1, 4]);
    add("m16n8k8", "f32.tf32.tf32.f32", [4, 4, 2, 4]);
    for ty in ["f16", "bf16"] {
        add("m16n8k8", &format!("f32.{ty}.{ty}.f32"), [4, 2, 1, 4]);
        add("m16n8k16", &format!("f32.{ty}.{ty}.f32"), [4, 4, 2, 4]);
    }
    add("m16n8k8", "f16.f16.f16.f16", [2, 2, 1, 2]);
    add("m16n8k16", "f16.f16.f16.f16", [2, 4, 2, 2]);
    add("m8n8k4", "f64.f64.f64.f64", [2, 1, 1, 2]);
    add("m16n8k4", "f64.f64.f64.f64", [4, 2, 1, 4]);
    add("m16n8k8", "f64.f64.f64.f64", [4, 4, 2, 4]);
    add("m16n8k16", "f64.f64.f64.f64.rn", [4, 8, 4, 4]);
    for (x, y) in [("e4m3", "e4m3"), ("e4m3", "e5m2"), ("e5m2", "e4m3"), ("e5m2", "e5m2")] {
        add("m16n8k16", &format!("f32.{x}.{y}.f32"), [4, 2, 1, 4]);
        add("m16n8k32", &format!("f32.{x}.{y}.f32"), [4, 4, 2, 4]);
        add("m16n8k16", &format!("f16.{x}.{y}.f16"), [2, 2, 1, 2]);
        add("m16n8k32", &format!("f16.{x}.{y}.f16"), [2, 4, 2, 2]);
    }
    for saturate in ["", "satfinite."] {
        for (x, y) in [("s", "s"), ("s", "u"), ("u", "s"), ("u", "u")] {
            for (w, shapes) in [(8, ["m8n8k16", "m16n8k16", "m16n8k32"]), (4, ["m8n8k32", "m16n8k32", "m16n8k64"])] {
                let types = format!("{saturate}s32.{x}{w}.{y}{w}.s32");
                add(shapes[0], &types, [2, 1, 1, 2]);
                add(shapes[1], &types, [4, 2, 1, 4]);
                add(shapes[2], &types, [4, 4, 2, 4]);
            }
        }
    }
    for op in ["xor", "and"] {
        add("m8n8k128", &format!("s32.b1.b1.s32.{op}.popc"), [2, 1, 1, 2]);
        add("m16n8k128", &format!("s32.b1.b1.s32.{op}.popc"), [4, 2, 1, 4]);
        add("m16n8k256", &format!("s32.b1.b1.s32.{op}.popc"), [4, 4, 2, 4]);
    }
    all
}

#[test]
fn mma_is_the_product_of_the_isa_fragments() {
    let mut random = Random(1);
    for (text, vectors) in every_mma() {
        let form = form(&text, &vectors);
        let [m, n, k] = dimensions(&text);
        assert_eq!((form.fma as usize, form.class, form.sync), (m * n * k, Class::Tensor, Sync::Warp));
        let ty = types(&text);
        for _ in 0..4 {
            let a = matrix(m, k, || element(ty[1], &mut random));
            let b = matrix(k, n, || element(ty[2], &mut random));
            let mut c = matrix(m, n, || element(ty[3], &mut random));
            if ty[3] == "s32" {
                // Where sums overflow.
                (c[0][0], c[m - 1][n - 1], c[0][1], c[1][0]) = (i32::MAX as u64, 0x8000_0000, 0x8000_0001, 0x7fff_fff0);
            }
            let d = run(&form, ty, vectors, [&a, &b, &c], &|ty, name, lane, i| isa(&text, bits(ty), name, lane, i));
            assert_eq!(d, expected(&text, ty, &a, &b, &c), "{text}");
        }
    }
}

#[test]
fn the_layout_function_is_the_isa_table() {
    for (text, _) in every_mma() {
        for (at, (name, which)) in
            [('c', layout::Matrix::Accumulator), ('a', layout::Matrix::A), ('b', layout::Matrix::B)].iter().enumerate()
        {
            let ty = types(&text)[at];
            let fragment = layout::Fragment::new(dimensions(&text), element::Element::named(ty).unwrap(), *which);
            let mut seen = matrix(fragment.rows, fragment.columns, || 0);
            for lane in 0..32 {
                for i in 0..fragment.elements() {
                    let (row, column) = fragment.position(lane, i);
                    assert_eq!(
                        (row, column),
                        isa(&text, bits(ty), *name, lane, i),
                        "{text} {name} lane {lane} element {i}"
                    );
                    seen[row][column] += 1;
                }
            }
            assert!(seen.iter().flatten().all(|&count| count == 1), "{text} {name}");
        }
    }
}

#[test]
#[ignore = "prints times"]
fn times() {
    for (text, vectors) in [
        ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", [4, 4, 2, 4]),
        ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", [4, 4, 2, 4]),
        ("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", [4, 4, 2, 4]),
        ("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", [2, 4, 2, 2]),
        ("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", [4, 4, 2, 4]),
        ("mma.sync.aligned.m16n8k16.row.col.f64.f64.f64.f64", [4, 8, 4, 4]),
        ("wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32", [8, 8, 8, 8]),
    ] {
        let form = form(text, &vectors);
        let slots: Vec<u16> = (0..form.slots.len() as u16).map(|s| s * 2).collect();
        let mut file = vec![Unit([0x3c00_3c00; 32]); 128];
        let mut best = f64::MAX;
        for _ in 0..100 {
            let start = std::time::Instant::now();
            for _ in 0..1000 {
                unsafe { (form.run)(file.as_mut_ptr(), std::hint::black_box(&slots), u32::MAX) };
            }
            best = best.min(start.elapsed().as_secs_f64() / 1e3);
        }
        println!("{text}: {:.0} ns", best * 1e9);
    }
}
