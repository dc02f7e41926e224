//! Against plain matrix products, with fragments packed by the ISA's own tables, written down here once more.

use super::*;
use crate::lanes::{Class, Role, Sync, Unit};
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
        ("m16n8k16", 64, 'a') if i & 1 == 0 => (group, i * 2 + thread),
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

/// Row and column by type, matrix, lane and element.
type Place<'a> = &'a dyn Fn(&str, char, usize, usize) -> (usize, usize);

/// Packs the matrices into registers, runs the form, and unpacks D. `place` tells where an element is.
fn run(form: &Form, types: [&str; 4], vectors: [usize; 4], [a, b, c]: [&Values; 3], place: Place<'_>) -> Values {
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

/// Reads or writes `size` bits of memory.
fn load(memory: &[u8], bit: usize, size: usize) -> u64 {
    (0..size).map(|i| (memory[(bit + i) / 8] as u64 >> ((bit + i) % 8) & 1) << i).sum()
}

fn store(memory: &mut [u8], bit: usize, size: usize, x: u64) {
    for i in 0..size {
        let (byte, at) = ((bit + i) / 8, (bit + i) % 8);
        memory[byte] = memory[byte] & !(1 << at) | ((x >> i & 1) as u8) << at;
    }
}

/// Carries out a transfer as its documentation says.
fn carry_out(
    transfer: &Transfer,
    memory: &mut [u8],
    addresses: &dyn Fn(usize) -> usize,
    stride: Option<u32>,
    file: &mut [Unit],
    first: usize,
) {
    let bits = transfer.ty.bits() as usize;
    for register in 0..transfer.distinct {
        for lane in 0..32 {
            let mut value = get(file, first + register, bits, lane, 0);
            let mut filled = 0;
            for piece in transfer.pieces(register, lane) {
                let line = piece.line as usize * transfer.stride_bytes(stride) as usize;
                let address = addresses(piece.lane as usize) + line + piece.offset as usize;
                let size = piece.bytes as usize * 8;
                assert_eq!(address % piece.bytes as usize, 0, "aligned");
                if transfer.load {
                    let mask = (u64::MAX >> (64 - size)) << piece.shift;
                    value = value & !mask | load(memory, address * 8, size) << piece.shift;
                } else {
                    store(memory, address * 8, size, value >> piece.shift);
                }
                filled += size;
            }
            assert_eq!(filled, bits);
            if transfer.load {
                for copy in (register..transfer.registers).step_by(transfer.distinct) {
                    put(file, first + copy, bits, lane, 0, value);
                }
            }
        }
    }
}

/// The layout of a matrix in memory.
fn in_memory(values: &Values, ty: &str, row_major: bool, stride: usize) -> Vec<u8> {
    let lines = if row_major { values.len() } else { values[0].len() };
    let mut memory = vec![0; (lines * stride * bits(ty)).div_ceil(8)];
    for (row, line) in values.iter().enumerate() {
        for (column, &x) in line.iter().enumerate() {
            let at = if row_major { row * stride + column } else { column * stride + row };
            store(&mut memory, at * bits(ty), bits(ty), x);
        }
    }
    memory
}

/// All shapes and types of `wmma`, as NVRTC emits them: shape, types of D, A, B and C, registers of them, suffix.
fn every_wmma() -> Vec<(&'static str, [&'static str; 4], [usize; 4], &'static str)> {
    let mut all = Vec::new();
    for (shape, bf16, bytes) in
        [("m16n16k16", [4, 4], [2, 2]), ("m32n8k16", [8, 2], [4, 1]), ("m8n32k16", [2, 8], [1, 4])]
    {
        for d in ["f16", "f32"] {
            for c in ["f16", "f32"] {
                let count = |ty| if ty == "f16" { 4 } else { 8 };
                all.push((shape, [d, "f16", "f16", c], [count(d), 8, 8, count(c)], ""));
            }
        }
        all.push((shape, ["f32", "bf16", "bf16", "f32"], [8, bf16[0], bf16[1], 8], ""));
        for ty in ["s8", "u8"] {
            for suffix in ["", ".satfinite"] {
                all.push((shape, ["s32", ty, ty, "s32"], [8, bytes[0], bytes[1], 8], suffix));
            }
        }
    }
    all.push(("m16n16k8", ["f32", "tf32", "tf32", "f32"], [8, 4, 4, 8], ""));
    all.push(("m8n8k4", ["f64"; 4], [2, 1, 1, 2], ".rn"));
    all.push(("m8n8k32", ["s32", "s4", "s4", "s32"], [2, 1, 1, 2], ""));
    all.push(("m8n8k32", ["s32", "u4", "u4", "s32"], [2, 1, 1, 2], ".satfinite"));
    all.push(("m8n8k128", ["s32", "b1", "b1", "s32"], [2, 1, 1, 2], ".xor.popc"));
    all.push(("m8n8k128", ["s32", "b1", "b1", "s32"], [2, 1, 1, 2], ".and.popc"));
    all
}

#[test]
fn wmma_loads_multiplies_and_stores() {
    let mut random = Random(2);
    let mut count = 0;
    for (shape, ty, vectors, suffix) in every_wmma() {
        for layouts in 0..16 {
            let row = |bit: usize| layouts >> bit & 1 == 0;
            let name = |bit: usize| if row(bit) { "row" } else { "col" };
            if bits(ty[1]) < 8 && (!row(0) || row(1)) {
                continue;
            }
            count += 1;
            let types = match ty[1] {
                "f16" => format!("{}.{}", ty[0], ty[3]),
                _ => ty.join("."),
            };
            let text = match suffix {
                ".xor.popc" | ".and.popc" => {
                    format!("wmma.mma{suffix}.sync.aligned.{}.{}.{shape}.{types}", name(0), name(1))
                }
                _ => format!("wmma.mma.sync.aligned.{}.{}.{shape}.{types}{suffix}", name(0), name(1)),
            };
            let form = form(&text, &vectors);
            let [m, n, k] = dimensions(&text);
            assert_eq!(form.fma as usize, m * n * k);
            let mut file = vec![Unit([0xdead_beef; 32]); 2 * form.slots.len() + 2];
            let mut first = vectors[0];
            let mut matrices = Vec::new();
            for (at, (letter, rows, columns)) in [(1, ("a", m, k)), (2, ("b", k, n)), (3, ("c", m, n))] {
                let values = matrix(rows, columns, || element(ty[at], &mut random));
                let row_major = row(at - 1);
                let lead = if row_major { columns } else { rows };
                // With a stride or by default.
                let stride = (layouts % 3 != 0).then_some(lead + 128 / bits(ty[at]));
                let mut memory = in_memory(&values, ty[at], row_major, stride.unwrap_or(lead));
                let load = format!("wmma.load.{letter}.sync.aligned.{}.{shape}.global.{}", name(at - 1), ty[at]);
                let mut operands = vec![vectors[at], 1];
                operands.extend(stride.map(|_| 1));
                let transfer = transfer(&instruction(&load, &operands)).unwrap().unwrap();
                assert!(transfer.load && transfer.vector == 0 && transfer.address == 1);
                assert_eq!(transfer.stride, stride.map(|_| 2));
                carry_out(&transfer, &mut memory, &|_| 0, stride.map(|s| s as u32), &mut file, first);
                first += vectors[at];
                matrices.push(values);
            }
            let slots: Vec<u16> = (0..form.slots.len() as u16).map(|slot| slot * 2).collect();
            unsafe { (form.run)(file.as_mut_ptr(), &slots, u32::MAX) };
            let lead = if row(3) { n } else { m };
            let mut memory = in_memory(&matrix(m, n, || 0), ty[0], row(3), lead + 8);
            let text_of_store = format!("wmma.store.d.sync.aligned.{}.{shape}.shared.{}", name(3), ty[0]);
            let transfer = transfer(&instruction(&text_of_store, &[1, vectors[0], 1])).unwrap().unwrap();
            assert!(!transfer.load && transfer.vector == 1 && transfer.address == 0 && transfer.stride == Some(2));
            carry_out(&transfer, &mut memory, &|_| 0, Some(lead as u32 + 8), &mut file, 0);
            let want = expected(&text, ty, &matrices[0], &matrices[1], &matrices[2]);
            assert_eq!(memory, in_memory(&want, ty[0], row(3), lead + 8), "{text}, stored by {}", name(3));
        }
    }
    assert_eq!(count, (3 * 9 + 2) * 16 + 4 * 4);
}

/// What devices do from sm_75 on, as others found out and rely upon.
#[test]
fn wmma_fragments_of_16x16_are_those_of_devices() {
    for lane in 0..32 {
        for x in 0..8 {
            let (row, column) = (lane / 4, lane % 4 * 2);
            let f16 = |matrix| layout::Fragment::new([16, 16, 16], element::Element::F16, matrix);
            for copy in [x, x + 8] {
                let a = (row + (x & 2) * 4, column + (x & 4) * 2 + (x & 1));
                assert_eq!(f16(layout::Matrix::A).position(lane, copy), a);
                let b = (column + (x & 2) * 4 + (x & 1), row + (x & 4) * 2);
                assert_eq!(f16(layout::Matrix::B).position(lane, copy), b);
            }
            let c = (row + (x & 2) * 4, column + (x & 4) * 2 + (x & 1));
            for ty in [element::Element::F16, element::Element::F32, element::Element::S32] {
                let fragment = layout::Fragment::new([16, 16, 16], ty, layout::Matrix::Accumulator);
                assert_eq!(fragment.position(lane, x), c);
            }
        }
    }
}

#[test]
fn ldmatrix_and_stmatrix() {
    // Matrix j, row r, column c has the element 64j + 8r + c; rows lie 48 bytes apart, the matrices in reverse order.
    let address = |lane: usize| (3 - lane / 8) * 512 + lane % 8 * 48;
    let mut original = vec![0xaa; 2048];
    for lane in 0..32 {
        for column in 0..8 {
            store(&mut original, (address(lane) + column * 2) * 8, 16, (lane * 8 + column) as u64);
        }
    }
    for (count, name) in [(1, "x1"), (2, "x2"), (4, "x4")] {
        for trans in ["", ".trans"] {
            let text = format!("ldmatrix.sync.aligned.m8n8.{name}{trans}.shared.b16");
            let transfer = transfer(&instruction(&text, &[count, 1])).unwrap().unwrap();
            assert_eq!((transfer.load, transfer.registers, transfer.alignment), (true, count, 16));
            let mut file = vec![Unit([0; 32]); 8];
            let mut memory = original.clone();
            carry_out(&transfer, &mut memory, &address, None, &mut file, 0);
            for matrix in 0..count {
                for lane in 0..32 {
                    // Figure "ldmatrix fragment layout": thread l has elements 2 (l % 4) and the next of row l / 4.
                    let (row, column) = (lane / 4, lane % 4 * 2);
                    let element = |row: usize, column: usize| (matrix * 64 + row * 8 + column) as u32;
                    let want = match trans {
                        "" => element(row, column) | element(row, column + 1) << 16,
                        _ => element(column, row) | element(column + 1, row) << 16,
                    };
                    assert_eq!(file[matrix * 2].0[lane], want, "{text}, lane {lane}");
                }
            }
            // Storing puts everything back where it was, and nothing else.
            let text = format!("stmatrix.sync.aligned.m8n8.{name}{trans}.shared.b16");
            let back = super::transfer(&instruction(&text, &[1, count])).unwrap().unwrap();
            assert_eq!((back.load, back.vector, back.address), (false, 1, 0));
            let mut memory = vec![0xaa; 2048];
            carry_out(&back, &mut memory, &address, None, &mut file, 0);
            let mut want = vec![0xaa; 2048];
            for lane in 0..8 * count {
                want[address(lane)..][..16].copy_from_slice(&original[address(lane)..][..16]);
            }
            assert_eq!(memory, want, "{text}");
        }
    }
}

#[test]
fn movmatrix_transposes() {
    let form = form("movmatrix.sync.aligned.m8n8.trans.b16", &[1, 1]);
    let mut file = vec![Unit([7; 32]); 2];
    for lane in 0..32u32 {
        file[1].0[lane as usize] = (lane * 2) | ((lane * 2 + 1) << 16);
    }
    unsafe { (form.run)(file.as_mut_ptr(), &[0, 1], 0xffff_fff0) };
    for lane in 0..32 {
        let (row, column) = (lane / 4, lane % 4 * 2);
        let want = (column * 8 + row) | (((column + 1) * 8 + row) << 16);
        assert_eq!(file[0].0[lane as usize], if lane < 4 { 7 } else { want });
    }
}

/// `m8n8k4` with f16: four products of their own, by quad pairs.
#[test]
fn quad_pairs() {
    let mut random = Random(3);
    for (a_row, b_row) in [(true, true), (true, false), (false, true), (false, false)] {
        for (d, c) in [("f16", "f16"), ("f32", "f16"), ("f32", "f32")] {
            let name = |row| if row { "row" } else { "col" };
            let text = format!("mma.sync.aligned.m8n8k4.{}.{}.{d}.f16.f16.{c}", name(a_row), name(b_row));
            let count = |ty| if ty == "f16" { 4 } else { 8 };
            let vectors = [count(d), 2, 2, count(c)];
            let form = form(&text, &vectors);
            let mut file = vec![Unit([0; 32]); 2 * form.slots.len()];
            // PTX ISA 9.7.14.5.1
            let accumulator = |ty: &str, lane: usize, i: usize| {
                if ty == "f16" {
                    (if lane < 16 { lane % 4 } else { lane % 4 + 4 }, i)
                } else {
                    let x = (lane & 1) + (i & 2);
                    (if lane < 16 { x } else { x + 4 }, (i & 4) + (lane & 2) + (i & 1))
                }
            };
            let a_place = |lane: usize, i: usize| match (a_row, lane < 16) {
                (true, true) => (lane % 4, i),
                (true, false) => (lane % 4 + 4, i),
                (false, true) => (i % 4, lane % 4),
                (false, false) => (i % 4 + 4, lane % 4),
            };
            let b_place = |lane: usize, i: usize| match (b_row, lane < 16) {
                (true, true) => (lane % 4, i),
                (true, false) => (lane % 4, i + 4),
                (false, true) => (i, lane % 4),
                (false, false) => (i, lane % 4 + 4),
            };
            let mut wants = Vec::new();
            for pair in 0..4 {
                let a = matrix(8, 4, || element("f16", &mut random));
                let b = matrix(4, 8, || element("f16", &mut random));
                let c_values = matrix(8, 8, || element(c, &mut random));
                for lane in (pair * 4..pair * 4 + 4).chain(pair * 4 + 16..pair * 4 + 20) {
                    for i in 0..4 {
                        let ((ra, ca), (rb, cb)) = (a_place(lane, i), b_place(lane, i));
                        put(&mut file, vectors[0], 16, lane, i, a[ra][ca]);
                        put(&mut file, vectors[0] + 2, 16, lane, i, b[rb][cb]);
                    }
                    for i in 0..8 {
                        let (row, column) = accumulator(c, lane, i);
                        put(&mut file, vectors[0] + 4, bits(c), lane, i, c_values[row][column]);
                    }
                }
                wants.push(expected(&text, [d, "f16", "f16", c], &a, &b, &c_values));
            }
            let slots: Vec<u16> = (0..form.slots.len() as u16).map(|slot| slot * 2).collect();
            unsafe { (form.run)(file.as_mut_ptr(), &slots, u32::MAX) };
            for lane in 0..32 {
                for i in 0..8 {
                    let (row, column) = accumulator(d, lane, i);
                    let got = get(&file, 0, bits(d), lane, i);
                    assert_eq!(got, wants[lane / 4 % 4][row][column], "{text}, lane {lane}, {i}");
                }
            }
        }
    }
}

/// One element of a product: row 0 of A, column 0 of B, and C.
fn single(text: &str, vectors: [usize; 4], a: &[u64], b: &[u64], c: u64) -> u64 {
    let form = form(text, &vectors);
    let ty = types(text);
    let [m, n, k] = dimensions(text);
    let (mut left, mut right, mut third) = (matrix(m, k, || 0), matrix(k, n, || 0), matrix(m, n, || 0));
    left[0][..a.len()].copy_from_slice(a);
    for (row, &x) in right.iter_mut().zip(b) {
        row[0] = x;
    }
    third[0][0] = c;
    run(&form, ty, vectors, [&left, &right, &third], &|ty, name, lane, i| isa(text, bits(ty), name, lane, i))[0][0]
}

#[test]
fn special_values() {
    let f32_bits = |x: f32| x.to_bits() as u64;
    let tf32 = ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", [4, 4, 2, 4]);
    let f16 = ("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", [2, 4, 2, 2]);
    let one = f32_bits(1.0);
    let (inf, negative) = (f32_bits(f32::INFINITY), f32_bits(-1.0));
    for (a, b, c, want) in [
        // NaN results are canonical, whatever the payload.
        (0xffc1_2345, one, 0, 0x7fff_ffff),
        (one, one, 0x7f80_0001, 0x7fff_ffff),
        (inf, 0, 0, 0x7fff_ffff),
        (inf, negative, inf, 0x7fff_ffff),
        (inf, negative, one, f32_bits(f32::NEG_INFINITY)),
        // A NaN whose upper payload bits are zero is an infinity to tf32.
        (0x7f80_1fff, one, 0, inf),
        // The lower 13 bits do not count.
        (one | 0x1fff, one | 0x1fff, 0, one),
        (f32_bits(3.0e38), f32_bits(4.0), 0, inf),
        (0x8000_0000, one, 0x8000_0000, 0), // the other k add +0
        // Subnormal numbers are kept.
        (0x0000_2000, one, 0, 0x0000_2000),
    ] {
        assert_eq!(single(tf32.0, tf32.1, &[a], &[b], c), want, "{a:#x} * {b:#x} + {c:#x}");
    }
    let h = |x: f64| half::f16::from_f64(x).to_bits() as u64;
    for (a, b, c, want) in [
        (h(65504.0), h(1.0), h(15.9), h(65504.0)),
        (h(65504.0), h(1.0), h(16.0), 0x7c00),
        (0x7e01, h(1.0), 0, 0x7fff),
        (0x7c00, h(-1.0), 0x7c00, 0x7fff),
        (0x0001, h(0.5), 0, 0),           // a tie, to even
        (0x0003, h(0.5), 0, 0x0002),      // a tie, to even
        (0x0001, h(0.5), 0x0001, 0x0002), // one and a half, to even: rounded once
    ] {
        assert_eq!(single(f16.0, f16.1, &[a], &[b], c), want, "{a:#x} * {b:#x} + {c:#x}");
    }
    // f16 sums are kept in f32 and rounded once: each 2^-11 alone would be lost.
    assert_eq!(single(f16.0, f16.1, &[h(1.0); 2], &[h(0.00048828125); 2], h(1.0)), h(1.0009765625));
    // In f32 C comes first, then ascending k.
    let [large, small] = [f32_bits(16777216.0), one];
    assert_eq!(single(tf32.0, tf32.1, &[one, one], &[small, small], large), large);
    assert_eq!(single(tf32.0, tf32.1, &[small, small, large], &[one; 3], 0), f32_bits(16777218.0));
    // f64: fused, so that 1 + 2^-53 twice is not 1 + 2^-52 but rounds to even each time.
    let f64_form = ("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64", [2, 1, 1, 2]);
    let d = |x: f64| x.to_bits();
    let x = 1.0 + 2f64.powi(-30);
    assert_eq!(single(f64_form.0, f64_form.1, &[d(x)], &[d(x)], d(-1.0)), d(x.mul_add(x, -1.0)));
    assert_eq!(single(f64_form.0, f64_form.1, &[d(f64::INFINITY)], &[0], 0), 0xfff8_0000_0000_0000);
}

#[test]
fn lanes_outside_the_mask_keep_d_and_d_may_be_c() {
    let form = form("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", &[4, 4, 2, 4]);
    let mut file = vec![Unit([1f32.to_bits(); 32]); 10];
    // D and C in 0..4, A in 4..8, B in 8..10; D = 8 + 1.
    unsafe { (form.run)(file.as_mut_ptr(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3], 0x0000_ffff) };
    for unit in &file[..4] {
        for lane in 0..32 {
            assert_eq!(f32::from_bits(unit.0[lane]), if lane < 16 { 9.0 } else { 1.0 });
        }
    }
    // D over A and B.
    let mut file = vec![Unit([1f32.to_bits(); 32]); 10];
    unsafe { (form.run)(file.as_mut_ptr(), &[4, 5, 8, 9, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3], u32::MAX) };
    for at in [4, 5, 8, 9] {
        assert_eq!(file[at].0, [9f32.to_bits(); 32]);
    }
}

#[test]
fn slots_list_d_a_b_c() {
    let form = form("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", &[4, 4, 2, 4]);
    let slots: Vec<_> = form.slots.iter().map(|slot| (slot.role, slot.ty)).collect();
    let mut want = vec![(Role::Out, Type::F32); 4];
    want.extend([(Role::In, Type::B32); 6]);
    want.extend([(Role::In, Type::F32); 4]);
    assert_eq!(slots, want);
}

#[test]
fn other_forms_are_refused_by_name() {
    for text in [
        "mma.sp.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
        "mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f16",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.bf16.f32",
        "mma.sync.aligned.m16n8k4.row.col.f32.f16.f16.f32",
        "mma.sync.aligned.m16n16k16.row.col.f32.f16.f16.f32",
        "mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64.rz",
        "mma.sync.aligned.m16n8k8.row.col.satfinite.f32.tf32.tf32.f32",
        "mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32",
        "mma.sync.aligned.m16n8k128.row.col.satfinite.s32.b1.b1.s32.and.popc",
        "mma.sync.aligned.m16n8k130.row.col.s32.b1.b1.s32.and.popc",
        "mma.sync.aligned.m99999999999999999999n8k8.row.col.f32.tf32.tf32.f32",
        "mma.sync.aligned.m65535n65535k65535.row.col.f32.tf32.tf32.f32",
        "mma.sync.aligned.m0n0k0.row.col.f32.tf32.tf32.f32",
        "mma.sync.aligned.row.col.f32.tf32.tf32.f32",
        "mma.sync.aligned.kind::f8f6f4.m16n8k32.row.col.f32.e4m3.e4m3.f32",
        "mma",
        "wmma.mma",
        "wmma.mma.sync.aligned.row.col.m16n16k16.s32.s8.u8.s32",
        "wmma.mma.sync.aligned.col.col.m8n8k32.s32.s4.s4.s32",
        "wmma.mma.sync.aligned.row.col.m16n8k8.f32.tf32.tf32.f32",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16",
        "tcgen05.mma.cta_group::1.kind::f16",
        "movmatrix.sync.aligned.m8n8.trans.b8",
    ] {
        assert_eq!(refusal(text, &[4, 4, 2, 4]), text);
    }
    for text in [
        "ldmatrix.sync.aligned.m8n8.x4.shared.b8",
        "ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8",
        "ldmatrix.sync.aligned.m8n8.shared.b16",
        "stmatrix.sync.aligned.m16n8.x1.trans.shared.b8",
        "wmma.load.a.sync.aligned.col.m8n8k32.global.s4",
        "wmma.load.a.sync.aligned.row.m16n16k16.f32",
        "wmma.load.c.sync.aligned.row.m16n16k16.bf16",
        "wmma.load.d.sync.aligned.row.m16n16k16.f32",
        "wmma.load.a.sync.aligned.row.m16n8k8.tf32",
        "wmma.store.d.sync.aligned.m16n16k16.f32",
    ] {
        assert_eq!(transfer(&instruction(text, &[4, 1])).unwrap_err().0, text);
    }
    let few = refusal("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", &[4, 4, 1, 4]);
    assert!(few.ends_with(" with 1 registers for b in place of 2"), "{few}");
    assert!(transfer(&instruction("ldmatrix.sync.aligned.m8n8.x4.shared.b16", &[2, 1])).is_err());
    assert!(transfer(&instruction("ldmatrix.sync.aligned.m8n8.x4.shared.b16", &[])).is_err());
    assert!(transfer(&instruction("wmma.load.c.sync.aligned.row.m8n8k4.f64", &[2])).is_err());
    // Not of the family.
    assert!(family(&instruction("add.f32", &[1, 1, 1]), &|_| None).unwrap().is_none());
    assert!(family(&instruction("ldmatrix.sync.aligned.m8n8.x4.shared.b16", &[4, 1]), &|_| None).unwrap().is_none());
    assert!(transfer(&instruction("ld.shared.b32", &[1, 1])).unwrap().is_none());
}
