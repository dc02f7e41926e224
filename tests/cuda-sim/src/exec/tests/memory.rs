//! Loads and stores: spaces, widths, vectors, generic addresses, parameters.

use super::*;

const PATTERN: u64 = 0x8182_8384_8586_8788;

/// What a register of `register` bits holds after a load of a type from `PATTERN`.
fn loaded(pattern: u64, ty: &str, register: u32) -> u64 {
    let bits: u32 = ty[1..].parse().expect("a type");
    let up = 64 - bits;
    let value = if ty.starts_with('s') { ((pattern << up) as i64 >> up) as u64 } else { pattern << up >> up };
    if register == 64 { value } else { value & ((1 << register) - 1) }
}

const TYPES: [&str; 12] = ["u8", "s8", "b8", "u16", "s16", "b16", "u32", "s32", "b32", "u64", "s64", "b64"];

/// Every type into registers of its width and wider, from `[address]` with the given opcode.
fn check_loads(declarations: &str, setup: &str, opcode: &str, address: &str, pattern: impl Fn(&Case) -> u64) {
    let (mut body, mut wanted) = (setup.to_string(), Vec::new());
    for ty in TYPES {
        for register in [16, 32, 64] {
            if ty[1..].parse::<u32>().expect("a type") > register {
                continue;
            }
            let widen = match register {
                16 => "ld %rs1; cvt.u64.u16 %rd9, %rs1;",
                32 => "ld %r9; cvt.u64.u32 %rd9, %r9;",
                _ => "ld %rd9;",
            };
            let load = format!("{opcode}.{ty}");
            let (first, rest) = widen.split_once(';').expect("a load");
            body += &format!("{}, [{address}]; {rest}", first.replace("ld", &load));
            body += &format!("st.global.u64 [%rd0+{}], %rd9;\n", 8 * wanted.len());
            wanted.push((ty, register));
        }
    }
    let case = Case::kernel_with(declarations, &body).threads(1);
    let pattern = pattern(&case);
    for ((ty, register), got) in wanted.iter().zip(case.longs(wanted.len())) {
        assert_eq!(got, loaded(pattern, ty, *register), "{opcode}.{ty} from [{address}] into {register} bits");
    }
}

#[test]
fn loads_of_every_type_from_every_space() {
    let store = format!("mov.u64 %rd8, {};", PATTERN as i64);
    let pattern = |_: &Case| PATTERN;
    check_loads("", &format!("{store} st.global.u64 [%rd0+2048], %rd8;"), "ld.global", "%rd0+2048", pattern);
    check_loads("", &format!("{store} st.u64 [%rd0+2048], %rd8;"), "ld", "%rd0+2048", pattern);
    check_loads("", &format!("{store} st.global.u64 [%rd0+2048], %rd8;"), "ld.volatile.global", "%rd0+2048", pattern);
    check_loads(
        "",
        &format!("{store} st.global.u64 [%rd0+2048], %rd8;"),
        "ld.global.nc.L1::no_allocate",
        "%rd0+2048",
        pattern,
    );
    check_loads(
        "",
        &format!("{store} st.global.u64 [%rd0+2048], %rd8;"),
        "ld.acquire.gpu.global",
        "%rd0+2048",
        pattern,
    );
    let shared = format!(".shared .align 8 .b8 s[64]; {store} st.shared.u64 [s+8], %rd8;");
    check_loads("", &shared, "ld.shared", "s+8", pattern);
    check_loads("", &format!("{shared} mov.u32 %r8, s;"), "ld.shared", "%r8+8", pattern);
    check_loads("", &format!("{shared} mov.u64 %rd7, s;"), "ld.shared", "%rd7+8", pattern);
    check_loads("", &format!("{shared} mov.u64 %rd7, s; cvta.shared.u64 %rd7, %rd7;"), "ld", "%rd7+8", pattern);
    let local = format!(".local .align 8 .b8 l[64]; {store} st.local.u64 [l+8], %rd8;");
    check_loads("", &local, "ld.local", "l+8", pattern);
    check_loads("", &format!("{local} mov.u64 %rd7, l;"), "ld.local", "%rd7+8", pattern);
    check_loads("", &format!("{local} mov.b32 %r8, l;"), "ld.local", "%r8+8", pattern);
    check_loads("", &format!("{local} mov.u32 %r8, l+16;"), "ld.local", "%r8+-8", pattern);
    let widened = format!("{local} mov.b32 %r8, l; cvt.u64.u32 %rd7, %r8; cvta.local.u64 %rd7, %rd7;");
    check_loads("", &widened, "ld", "%rd7+8", pattern);
    check_loads("", &format!("{local} mov.u64 %rd7, l; cvta.local.u64 %rd7, %rd7;"), "ld", "%rd7+8", pattern);
    let constant = format!(".const .align 8 .b64 c[2] = {{7, {}}};", PATTERN as i64);
    check_loads(&constant, "", "ld.const", "c+8", pattern);
    check_loads(&constant, "mov.u64 %rd7, c; cvta.const.u64 %rd7, %rd7;", "ld", "%rd7+8", pattern);
    check_loads("", "", "ld.param", "out", |case| case.out);
    check_loads("", "mov.b64 %rd7, out; cvta.param.u64 %rd7, %rd7;", "ld", "%rd7", |case| case.out);
}

#[test]
fn stores_of_every_width_leave_the_rest() {
    for (space, address) in [("global", "%rd0+2048"), ("shared", "s+16"), ("local", "l+16")] {
        for (ty, register) in [
            ("u8", "%rs1"),
            ("u8", "%r1"),
            ("s8", "%rd2"),
            ("b16", "%rs1"),
            ("u16", "%r1"),
            ("s16", "%rd2"),
            ("b32", "%r1"),
            ("u32", "%rd2"),
            ("s64", "%rd2"),
            ("f32", "%f1"),
            ("f64", "%fd1"),
        ] {
            let bits: u32 = ty[1..].parse().expect("a type");
            let case = Case::kernel(&format!(
                ".shared .align 16 .b8 s[64]; .local .align 16 .b8 l[64];
                mov.u64 %rd2, {};
                cvt.u32.u64 %r1, %rd2; cvt.u16.u64 %rs1, %rd2; mov.b32 %f1, %r1; mov.b64 %fd1, %rd2;
                mov.u64 %rd3, -1;
                st.{space}.u64 [{address}], %rd3;
                st.{space}.{ty} [{address}], {register};
                ld.{space}.u64 %rd4, [{address}];
                st.global.u64 [%rd0], %rd4;",
                PATTERN as i64
            ));
            let rest = if bits == 64 { 0 } else { u64::MAX << bits };
            assert_eq!(case.threads(1).longs(1), [loaded(PATTERN, &format!("u{bits}"), 64) | rest], "st.{space}.{ty}");
        }
    }
}

#[test]
fn vectors_are_in_order() {
    for (space, base) in [("global", "%rd0+2048"), ("shared", "s+32"), ("local", "l+32")] {
        for (ty, bytes, kind) in
            [("u8", 1, "%rs"), ("u16", 2, "%rs"), ("b32", 4, "%r"), ("f32", 4, "%f"), ("u64", 8, "%rd")]
        {
            for n in [2, 4] {
                if n * bytes > 16 {
                    continue;
                }
                let registers = |order: &mut dyn Iterator<Item = usize>| {
                    order.map(|i| format!("{kind}{}", 10 + i)).collect::<Vec<_>>().join(", ")
                };
                let fill: String = (0..n * bytes)
                    .map(|i| format!("mov.u32 %r1, {}; st.{space}.u8 [{base}+{i}], %r1;\n", i + 129))
                    .collect();
                let copy: String = (0..n * bytes)
                    .map(|i| format!("ld.{space}.u8 %r1, [{base}+{i}]; st.global.u8 [%rd0+{i}], %r1;\n"))
                    .collect();
                // `%r`, `%rs`, `%rd` and `%f` have a 13; loaded forward, stored backward
                let case = Case::kernel(&format!(
                    ".shared .align 16 .b8 s[64]; .local .align 16 .b8 l[64];
                    {fill} ld.{space}.v{n}.{ty} {{{}}}, [{base}];
                    st.{space}.v{n}.{ty} [{base}], {{{}}}; {copy}",
                    registers(&mut (0..n)),
                    registers(&mut (0..n).rev())
                ));
                let wanted: Vec<u8> =
                    (0..n).rev().flat_map(|i| (0..bytes).map(move |b| (i * bytes + b + 129) as u8)).collect();
                assert_eq!(case.threads(1).bytes(n * bytes), wanted, "v{n}.{ty} in {space}");
            }
        }
    }
}

#[test]
fn sixteen_bytes_at_once() {
    for (space, base) in [("global", "%rd2"), ("shared", "%rd3")] {
        let words = Case::kernel(&format!(
            ".shared .align 16 .b8 s[1024];
            shl.b32 %r1, %r0, 4; cvt.u64.u32 %rd4, %r1;
            add.u64 %rd2, %rd0, 2048; add.u64 %rd2, %rd2, %rd4;
            mov.u64 %rd3, s; add.u64 %rd3, %rd3, %rd4;
            add.u32 %r2, %r0, 100; add.u32 %r3, %r0, 200; add.u32 %r4, %r0, 300;
            st.{space}.v4.u32 [{base}], {{%r0, %r2, %r3, %r4}};
            ld.{space}.b128 %rq1, [{base}];
            st.{space}.b128 [{base}+512], %rq1;
            ld.{space}.v4.u32 {{%r5, %r6, %r7, %r8}}, [{base}+512];
            sub.u32 %r9, %r8, %r5; add.u32 %r9, %r9, %r6; add.u32 %r9, %r9, %r7;
            st.global.u32 [%rd1], %r9;"
        ));
        assert_eq!(words.words(32), each(32, |t| 300 + t + 100 + t + 200), "{space}");
    }
}

#[test]
fn generic_addresses_of_several_spaces_in_one_instruction() {
    let words = Case::kernel(
        ".shared .align 4 .b8 s[128]; .local .align 4 .b8 l[128];
        mul.lo.u32 %r1, %r0, 4; cvt.u64.u32 %rd2, %r1;
        mov.u64 %rd3, s; cvta.shared.u64 %rd3, %rd3;
        mov.u64 %rd4, l; cvta.local.u64 %rd4, %rd4;
        add.u64 %rd5, %rd0, 2048;
        and.b32 %r2, %r0, 3;
        setp.eq.u32 %p1, %r2, 1; setp.eq.u32 %p2, %r2, 2; setp.eq.u32 %p3, %r2, 3;
        mov.u64 %rd6, %rd5; @%p1 mov.u64 %rd6, %rd3; @%p2 mov.u64 %rd6, %rd4;
        add.u64 %rd6, %rd6, %rd2;
        add.u32 %r3, %r0, 1000;
        st.u32 [%rd6], %r3;
        atom.add.u32 %r4, [%rd6], 5;
        // lanes 3, 7, ... read the parameter
        mov.b64 %rd7, out; cvta.param.u64 %rd7, %rd7;
        @%p3 mov.u64 %rd6, %rd7;
        ld.u32 %r5, [%rd6];
        isspacep.shared %p4, %rd6; isspacep.local %p5, %rd6; isspacep.global %p6, %rd6;
        selp.u32 %r6, 1, 0, %p4; selp.u32 %r7, 2, 0, %p5; selp.u32 %r8, 4, 0, %p6;
        or.b32 %r6, %r6, %r7; or.b32 %r6, %r6, %r8;
        @%p3 mov.u32 %r6, 4;
        sub.u32 %r9, %r5, %r4; mad.lo.u32 %r9, %r6, 100, %r9;
        st.global.u32 [%rd1], %r9;
        // the spaces themselves hold what was stored through generic addresses
        bar.warp.sync 0xffffffff;
        ld.shared.u32 %r10, [s+4]; st.global.u32 [%rd0+128], %r10;
        @%p2 ld.local.u32 %r11, [l+8]; setp.eq.u32 %p7, %r0, 2; @%p7 st.global.u32 [%rd0+132], %r11;",
    );
    let out = words.out as u32;
    let got = words.words(34);
    for t in 0..32u32 {
        let wanted = match t % 4 {
            0 => 405,
            1 => 105,
            2 => 205,
            _ => 400u32.wrapping_add(out).wrapping_sub(1000 + t),
        };
        assert_eq!(got[t as usize], wanted, "lane {t}");
    }
    assert_eq!(got[32..], [1006, 1007]);
}

#[test]
fn lanes_that_a_guard_excludes_store_nothing() {
    let words = Case::kernel(
        "mov.u32 %r1, 7; st.global.u32 [%rd1], %r1;
        and.b32 %r2, %r0, 1; setp.eq.u32 %p1, %r2, 1;
        @%p1 st.global.u32 [%rd1], %r0;
        mov.u32 %r3, 50; @!%p1 ld.global.u32 %r3, [%rd1];
        @%p1 atom.global.add.u32 %r3, [%rd1], 1;
        @!%p1 red.global.add.u32 [%rd1], 2;
        add.u64 %rd1, %rd1, 128; st.global.u32 [%rd1], %r3;",
    )
    .words(64);
    assert_eq!(words[..32], each(32, |t| if t % 2 == 1 { t + 1 } else { 9 }));
    assert_eq!(words[32..], each(32, |t| if t % 2 == 1 { t } else { 7 }));
}

#[test]
fn local_memory_is_a_threads_own() {
    let words = Case::kernel(
        ".local .align 4 .b8 l[256];
        mov.u64 %rd2, l; mov.u32 %r1, 0;
        FILL: mad.lo.u32 %r2, %r0, 1000, %r1; mul.wide.u32 %rd3, %r1, 4; add.u64 %rd3, %rd2, %rd3;
        st.local.u32 [%rd3], %r2; add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 64; @%p1 bra FILL;
        and.b32 %r3, %r0, 63; mul.wide.u32 %rd3, %r3, 4; add.u64 %rd3, %rd2, %rd3;
        ld.local.u32 %r4, [%rd3]; st.global.u32 [%rd1], %r4;",
    );
    assert_eq!(words.threads(100).words(100), each(100, |t| t * 1000 + t % 64));
}

/// As the LLVM of Triton 3.9 writes it: the address in 32 bits. A callee's frame begins behind its caller's.
#[test]
fn local_memory_is_addressed_in_32_bits() {
    let module = format!(
        ".func (.reg .b32 %out) f(.reg .b32 %in) {{
        .local .align 4 .b8 l[8]; .reg .b32 %r<3>; .reg .b64 %rd<2>;
        mov.b32 %r0, l; st.local.u32 [%r0+4], %in; add.u32 %r1, %r0, 4;
        cvt.u64.u32 %rd0, %r1; cvta.local.u64 %rd0, %rd0; ld.u32 %out, [%rd0]; ret; }}
        .visible .entry k(.param .u64 out) {{ {REGISTERS}
        .local .align 4 .b8 l[16];
        ld.param.u64 %rd0, [out]; mov.u32 %r0, %tid.x; mul.wide.u32 %rd1, %r0, 4; add.u64 %rd1, %rd0, %rd1;
        mov.b32 %r1, l; mad.lo.u32 %r2, %r0, 10, 1; st.local.u32 [%r1+4], %r2; mov.u32 %r3, 7; st.local.u32 [%r1+12], %r3;
        call.uni (%r4), f, (%r0); mov.b32 %r5, l+8; ld.local.u32 %r6, [%r5+-4]; ld.local.u32 %r7, [%r5+4];
        add.u32 %r6, %r6, %r7; mad.lo.u32 %r6, %r4, 1000, %r6; st.global.u32 [%rd1], %r6; ret; }}"
    );
    assert_eq!(Case::module(&module).words(32), each(32, |t| 1000 * t + 10 * t + 8));
}

#[test]
fn a_structure_is_a_parameter() {
    let module = format!(
        ".visible .entry k(.param .u64 out, .param .align 8 .b8 s[24], .param .u8 last) {{ {REGISTERS}
        ld.param.u64 %rd0, [out]; mov.u32 %r0, %tid.x; mul.wide.u32 %rd1, %r0, 4; add.u64 %rd1, %rd0, %rd1;
        ld.param.u32 %r1, [s+4]; ld.param.v2.u32 {{%r2, %r3}}, [s+8]; ld.param.s8 %r4, [s+16]; ld.param.u8 %r5, [last];
        st.global.v4.u32 [%rd0], {{%r1, %r2, %r3, %r4}}; st.global.u32 [%rd0+16], %r5;
        mov.u32 %r8, 0; st.global.u32 [%rd0+20], %r8; st.global.u64 [%rd0+24], %rd0;
        // its address, taken: each lane another byte
        mov.b64 %rd2, s; cvta.param.u64 %rd3, %rd2; rem.u32 %r6, %r0, 24; cvt.u64.u32 %rd4, %r6;
        add.u64 %rd3, %rd3, %rd4; ld.u8 %r7, [%rd3]; st.global.u32 [%rd1+32], %r7; ret; }}"
    );
    let bytes: Vec<u8> = (0..24).map(|i| 240u8.wrapping_add(i)).collect();
    let words = Case::module(&module).argument(&bytes).argument(&[200]).words(40);
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    assert_eq!(words[..5], [word(4), word(8), word(12), bytes[16] as i8 as i32 as u32, 200]);
    assert_eq!(words[8..], each(32, |t| bytes[t as usize % 24] as u32));
}

#[test]
fn functions_take_and_return_structures() {
    let words = Case::kernel_with(
        ".func (.param .align 16 .b8 r[16]) turn(.param .align 16 .b8 a[16], .param .b32 n, .param .b8 c) {
            .reg .b32 %x<8>; .reg .b64 %y<4>; .reg .pred %p; .reg .b16 %z;
            ld.param.v4.b32 {%x0, %x1, %x2, %x3}, [a]; ld.param.b32 %x4, [n]; ld.param.s8 %z, [c];
            mov.b64 %y0, a; cvta.param.u64 %y0, %y0; and.b32 %x5, %x4, 3; mul.wide.u32 %y1, %x5, 4;
            add.u64 %y0, %y0, %y1; ld.u32 %x6, [%y0];
            cvt.s32.s16 %x7, %z; add.s32 %x6, %x6, %x7;
            st.param.v4.b32 [r], {%x3, %x2, %x1, %x6}; ret; }",
        "add.u32 %r1, %r0, 10; add.u32 %r2, %r0, 20; add.u32 %r3, %r0, 30; mov.u32 %r4, -2;
        { .param .align 16 .b8 a[16]; .param .b32 n; .param .b8 c; .param .align 16 .b8 r[16];
        st.param.v2.b32 [a], {%r0, %r1}; st.param.b32 [a+8], %r2; st.param.b32 [a+12], %r3;
        st.param.b32 [n], %r0; st.param.b8 [c], %r4;
        call.uni (r), turn, (a, n, c);
        ld.param.b32 %r5, [r]; ld.param.b32 %r6, [r+4]; ld.param.v2.b32 {%r7, %r8}, [r+8]; }
        mul.wide.u32 %rd2, %r0, 16; add.u64 %rd2, %rd0, %rd2; st.global.v4.u32 [%rd2], {%r5, %r6, %r7, %r8};",
    )
    .words(128);
    for t in 0..32u32 {
        let picked = t + 10 * (t & 3);
        assert_eq!(words[4 * t as usize..][..4], [t + 30, t + 20, t + 10, picked.wrapping_sub(2)], "lane {t}");
    }
}

#[test]
fn variables_have_their_initial_values() {
    let words = Case::kernel_with(
        ".const .align 4 .b32 c[4] = {1, 2, 3};
        .global .align 4 .b32 g[3] = {10, 20, 30};
        .global .align 8 .u64 at[2] = {g+4, generic(c)};
        .global .f32 x = 0f40490FDB; .global .align 1 .b8 text[4] = {72, 105, 0};",
        "ld.const.u32 %r1, [c+8]; ld.const.u32 %r2, [c+12]; st.global.v2.u32 [%rd0], {%r1, %r2};
        ld.global.u64 %rd2, [at]; ld.global.u32 %r3, [%rd2]; ld.global.u64 %rd3, [at+8]; ld.u32 %r4, [%rd3+4];
        st.global.v2.u32 [%rd0+8], {%r3, %r4};
        ld.global.f32 %f1, [x]; ld.global.u32 %r5, [text]; mov.b32 %r6, %f1; st.global.v2.u32 [%rd0+16], {%r6, %r5};",
    );
    assert_eq!(words.threads(1).words(6), [3, 0, 20, 2, 0x4049_0fdb, 0x6948]);
}

#[test]
fn reserved_shared_memory_is_apart_and_zero() {
    let registers = "mov.u32 %r1, %reserved_smem_offset_begin; mov.u32 %r2, %reserved_smem_offset_1;
        mov.u32 %r3, %reserved_smem_offset_end; mov.u32 %r4, %reserved_smem_offset_cap; mov.u32 %r5, %total_smem_size;";
    let code = format!(
        "{registers} ld.shared.u32 %r6, [%r2]; st.shared.u32 [%r2+284], %r4; ld.shared.u32 %r7, [%r2+284];
        st.global.v4.u32 [%rd0], {{%r1, %r2, %r3, %r4}}; st.global.v2.u32 [%rd0+16], {{%r6, %r7}};
        st.global.u32 [%rd0+24], %r5;"
    );
    let words = Case::kernel_with("", &format!(".shared .align 4 .b8 own[20]; st.shared.u32 [own], 1; {code}"))
        .threads(1)
        .words(7);
    let (begin, end) = (words[0], words[2]);
    assert!((begin..=end - 288).contains(&words[1]) && begin >= 20, "{words:?}");
    assert_eq!((end - begin, words[3], words[4], words[5], words[6]), (1024, 1024, 0, 1024, 20));
    // The end of the program's own is an end all the same, and so is that of the reserved.
    for place in ["own+20", "%r3", "%r1+-4"] {
        let code = format!(".shared .align 4 .b8 own[20]; {registers} st.shared.u32 [{place}], %r1;");
        assert_eq!(Case::kernel_with("", &code).threads(1).fails().kind, Kind::OutOfBounds, "{place}");
    }
}

#[test]
fn dynamic_shared_memory_follows_the_static() {
    let mut case = Case::kernel_with(
        ".extern .shared .align 16 .b8 dynamic[];",
        ".shared .align 4 .b8 own[20];
        mov.u32 %r1, dynamic; mov.u32 %r2, own; mov.u32 %r3, %dynamic_smem_size; mov.u32 %r4, %total_smem_size;
        st.global.v4.u32 [%rd0], {%r1, %r2, %r3, %r4};
        st.shared.u32 [dynamic+60], %r3; ld.shared.u32 %r5, [dynamic+60]; st.global.u32 [%rd0+16], %r5;",
    )
    .threads(1);
    case.dynamic_shared = 64;
    let words = case.words(5);
    assert!(words[0] >= words[1] + 20 && words[0].is_multiple_of(16), "{words:?}");
    assert_eq!((words[2], words[3], words[4]), (64, words[0] + 64, 64));
}
