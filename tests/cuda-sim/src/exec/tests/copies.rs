//! Asynchronous copies and matrix transfers.

use super::*;

/// Copies of each size into shared memory, from a source at `%rd0+1024+16*lane`; the output is what shared memory holds.
fn copied(instruction: &str, bytes: u32) -> Vec<u8> {
    let body = format!(
        ".shared .align 16 .b8 s[512];
        mul.wide.u32 %rd2, %r0, 16; add.u64 %rd3, %rd0, %rd2; mov.u64 %rd4, s; add.u64 %rd4, %rd4, %rd2;
        mov.u32 %r9, 0x77777777; st.shared.v4.u32 [%rd4], {{%r9, %r9, %r9, %r9}};
        and.b32 %r1, %r0, 1; setp.eq.u32 %p1, %r1, 1; rem.u32 %r2, %r0, {};
        {instruction}; cp.async.commit_group; cp.async.wait_group 0;
        ld.shared.v4.u32 {{%r3, %r4, %r5, %r6}}, [%rd4]; st.global.v4.u32 [%rd3], {{%r3, %r4, %r5, %r6}};",
        bytes + 1
    );
    let source: Vec<u8> = (0..512).map(|i| (i * 7 + 1) as u8).collect();
    Case::kernel(&body).input(1024, &source).bytes(512)
}

/// Of 16 bytes, the first `take` of the source, zeros up to `bytes`, then what was there.
fn expected(bytes: u32, take: impl Fn(u32) -> u32) -> Vec<u8> {
    let byte = |i: u32| match i % 16 {
        at if at < take(i / 16) => (i * 7 + 1) as u8,
        at if at < bytes => 0,
        _ => 0x77,
    };
    (0..512).map(byte).collect()
}

#[test]
fn copies_of_every_size() {
    for bytes in [4, 8, 16] {
        let from = "[%rd4], [%rd3+1024]";
        for cache in ["ca", "cg"] {
            if cache == "ca" || bytes == 16 {
                let form = format!("cp.async.{cache}.shared.global {from}, {bytes}");
                assert_eq!(copied(&form, bytes), expected(bytes, |_| bytes), "{form}");
            }
        }
        let form = format!("cp.async.ca.shared::cta.global.L2::128B {from}, {bytes}, %r2");
        assert_eq!(copied(&form, bytes), expected(bytes, |l| l % (bytes + 1)), "{form}");
        let form = format!("cp.async.ca.shared.global {from}, {bytes}, %p1");
        assert_eq!(copied(&form, bytes), expected(bytes, |l| if l % 2 == 1 { 0 } else { bytes }), "{form}");
        let form = format!("cp.async.ca.shared.global {from}, {bytes}, 0");
        assert_eq!(copied(&form, bytes), expected(bytes, |_| 0), "{form}");
    }
}

#[test]
fn what_is_ignored_is_not_touched() {
    // the source of a copy of nothing may be anywhere
    let form = "cp.async.ca.shared.global [%rd4], [16], 16, 0";
    assert_eq!(copied(form, 16), expected(16, |_| 0));
    let finding = Case::kernel(
        ".shared .align 16 .b8 s[16]; mov.u64 %rd3, 16; cp.async.ca.shared.global [s], [%rd3], 4; cp.async.wait_all;",
    );
    assert_eq!(finding.threads(1).fails().kind, Kind::OutOfBounds);
    let finding =
        Case::kernel(".shared .align 16 .b8 s[16]; cp.async.ca.shared.global [s], [%rd0], 8, 9; cp.async.wait_all;");
    assert_eq!(finding.threads(1).input(0, &[0u64]).fails().kind, Kind::IllegalInstruction);
}

/// Three groups of one copy each; `wait`; then the group `read` is looked at.
fn groups(wait: &str, read: u32) -> Case {
    Case::kernel(&format!(
        ".shared .align 4 .b8 s[384];
        mul.wide.u32 %rd2, %r0, 4; mov.u64 %rd3, s; add.u64 %rd3, %rd3, %rd2; add.u64 %rd4, %rd0, %rd2;
        cp.async.ca.shared.global [%rd3], [%rd4+1024], 4; cp.async.commit_group;
        cp.async.ca.shared.global [%rd3+128], [%rd4+1152], 4; cp.async.commit_group;
        cp.async.ca.shared.global [%rd3+256], [%rd4+1280], 4; cp.async.commit_group;
        {wait}; ld.shared.u32 %r1, [%rd3+{}]; st.global.u32 [%rd1], %r1; cp.async.wait_all;",
        128 * read
    ))
    .input(1024, &each(96, |i| i + 500))
}

#[test]
fn a_wait_leaves_the_last_groups_in_flight() {
    for left in 0..4u32 {
        for read in 0..3u32 {
            let done = read + left < 3;
            let case = groups(&format!("cp.async.wait_group {left}"), read);
            if done {
                assert_eq!(case.words(32), each(32, |t| 500 + 32 * read + t), "group {read}, {left} left");
            } else {
                let finding = case.fails();
                assert_eq!(finding.kind, Kind::AsyncCopy, "group {read}, {left} left");
                let lines = (finding.place.map(|p| p.instruction), finding.other.map(|p| p.instruction));
                assert_eq!(lines, (Some("ld.shared.u32".into()), Some("cp.async.ca.shared.global".into())));
            }
        }
    }
    assert_eq!(groups("cp.async.wait_all", 2).words(32), each(32, |t| 564 + t));
}

#[test]
fn a_copy_without_commit_is_in_no_group() {
    let case = |wait: &str| {
        Case::kernel(&format!(
            ".shared .align 4 .b8 s[128]; mul.wide.u32 %rd2, %r0, 4; mov.u64 %rd3, s; add.u64 %rd3, %rd3, %rd2; add.u64 %rd4, %rd0, %rd2;
            cp.async.ca.shared.global [%rd3], [%rd4+1024], 4; {wait}; ld.shared.u32 %r1, [%rd3]; st.global.u32 [%rd1], %r1;"
        ))
        .input(1024, &each(32, |i| i + 500))
    };
    assert_eq!(case("cp.async.wait_group 0").fails().kind, Kind::AsyncCopy);
    assert_eq!(case("cp.async.wait_all").words(32), each(32, |t| 500 + t));
}

#[test]
fn a_wait_is_each_threads_own() {
    // another thread's copy is visible behind a barrier only
    let case = |barrier: &str| {
        Case::kernel(&format!(
            ".shared .align 4 .b8 s[256]; mul.wide.u32 %rd2, %r0, 4; mov.u64 %rd3, s; add.u64 %rd4, %rd3, %rd2; add.u64 %rd5, %rd0, %rd2;
            cp.async.ca.shared.global [%rd4], [%rd5+1024], 4; cp.async.wait_all; {barrier}
            xor.b32 %r1, %r0, 32; mul.wide.u32 %rd6, %r1, 4; add.u64 %rd6, %rd3, %rd6; ld.shared.u32 %r2, [%rd6]; st.global.u32 [%rd1], %r2;"
        ))
        .threads(64)
        .input(1024, &each(64, |i| i + 500))
    };
    assert_eq!(case("bar.sync 0;").words(64), each(64, |t| 500 + (t ^ 32)));
    assert!(case("").launch(1).finding.is_some());
}

/// Row-major 8x8 matrices of halves: element `[row][column]` of matrix `m` is `64 m + 8 row + column`.
const FILL: &str = ".shared .align 16 .b8 s[1024]; mov.u64 %rd3, s;
    mul.lo.u32 %r1, %r0, 16; mov.u32 %r2, 0;
    FILL: add.u32 %r3, %r1, %r2; mul.wide.u32 %rd4, %r3, 2; add.u64 %rd4, %rd3, %rd4; cvt.u16.u32 %rs1, %r3; st.shared.u16 [%rd4], %rs1;
    add.u32 %r2, %r2, 1; setp.lt.u32 %p1, %r2, 16; @%p1 bra FILL; bar.warp.sync -1;
    mul.wide.u32 %rd5, %r0, 16; add.u64 %rd5, %rd3, %rd5; mul.wide.u32 %rd6, %r0, 16; add.u64 %rd6, %rd0, %rd6;
    mov.u32 %r11, 0; mov.u32 %r12, 0; mov.u32 %r13, 0;";

#[test]
fn matrices_from_shared_memory() {
    // PTX ISA, ldmatrix: lane l holds elements 2 (l % 4) and the next of row l / 4; transposed, of column l / 4
    for (n, registers) in [(1, "{%r10}"), (2, "{%r10, %r11}"), (4, "{%r10, %r11, %r12, %r13}")] {
        for (trans, generic) in [("", false), (".trans", false), ("", true)] {
            let (space, base) = if generic { ("", "cvta.shared.u64 %rd5, %rd5;") } else { (".shared", "") };
            let case = Case::kernel(&format!(
                "{FILL} {base} ldmatrix.sync.aligned.m8n8.x{n}{trans}{space}.b16 {registers}, [%rd5];
                st.global.v4.u32 [%rd6], {{%r10, %r11, %r12, %r13}};"
            ));
            let words = case.words(128);
            for (i, word) in words.iter().enumerate() {
                let (lane, matrix) = (i as u32 / 4, i as u32 % 4);
                let element = |row: u32, column: u32| {
                    let (row, column) = if trans.is_empty() { (row, column) } else { (column, row) };
                    64 * matrix + 8 * row + column
                };
                let (row, column) = (lane / 4, lane % 4 * 2);
                let wanted = if matrix < n { element(row, column) | element(row, column + 1) << 16 } else { 0 };
                assert_eq!(*word, wanted, "x{n}{trans}{space}: lane {lane}, matrix {matrix}");
            }
        }
    }
}

#[test]
fn matrices_to_shared_memory() {
    for trans in ["", ".trans"] {
        let case = Case::kernel(&format!(
            "{FILL} ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r10, %r11, %r12, %r13}}, [%rd5]; bar.warp.sync -1;
            xor.b32 %r14, %r0, 7; mul.wide.u32 %rd7, %r14, 16; add.u64 %rd7, %rd3, %rd7;
            stmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 [%rd7], {{%r10, %r11, %r12, %r13}}; bar.warp.sync -1;
            ld.shared.v4.u32 {{%r10, %r11, %r12, %r13}}, [%rd5]; st.global.v4.u32 [%rd6], {{%r10, %r11, %r12, %r13}};"
        ));
        let bytes = case.bytes(512);
        for (i, half) in bytes.chunks_exact(2).enumerate() {
            // the rows of each matrix end up in the opposite order
            let (matrix, row, column) = (i / 64, 7 - i / 8 % 8, i % 8);
            let (row, column) = if trans.is_empty() { (row, column) } else { (column, row) };
            assert_eq!(half, ((64 * matrix + 8 * row + column) as u16).to_le_bytes(), "{trans} {i}");
        }
    }
}

#[test]
fn a_matrix_product_through_generic_addresses() {
    // 16x16x16: a[i][j] = i + j in shared memory, b = 2 I in global memory, c = 1; d = 2 a + 1
    let case = Case::kernel(
        ".shared .align 32 .b8 s[512]; mov.u64 %rd3, s;
        mov.u32 %r1, 0;
        FILL: mad.lo.u32 %r2, %r1, 32, %r0; shr.u32 %r3, %r2, 4; and.b32 %r4, %r2, 15; add.u32 %r5, %r3, %r4;
        mul.wide.u32 %rd4, %r2, 2; add.u64 %rd5, %rd3, %rd4; cvt.rn.f16.u32 %rs1, %r5; st.shared.b16 [%rd5], %rs1;
        setp.eq.u32 %p1, %r3, %r4; selp.u32 %r6, 2, 0, %p1; cvt.rn.f16.u32 %rs2, %r6; add.u64 %rd6, %rd0, %rd4; st.global.b16 [%rd6+1024], %rs2;
        add.u32 %r1, %r1, 1; setp.lt.u32 %p2, %r1, 8; @%p2 bra FILL;
        bar.warp.sync -1; cvta.shared.u64 %rd9, %rd3; mov.u32 %r7, 16;
        wmma.load.a.sync.aligned.row.m16n16k16.f16 {%r10, %r11, %r12, %r13, %r14, %r15, %r16, %r17}, [%rd9], %r7;
        wmma.load.b.sync.aligned.row.m16n16k16.f16 {%r20, %r21, %r22, %r23, %r24, %r25, %r26, %r27}, [%rd0+1024], 16;
        mov.b32 %f2, 0f3F800000;
        wmma.mma.sync.aligned.row.row.m16n16k16.f32.f32 {%f10, %f11, %f12, %f13, %f14, %f15, %f16, %f17},
            {%r10, %r11, %r12, %r13, %r14, %r15, %r16, %r17}, {%r20, %r21, %r22, %r23, %r24, %r25, %r26, %r27},
            {%f2, %f2, %f2, %f2, %f2, %f2, %f2, %f2};
        wmma.store.d.sync.aligned.row.m16n16k16.f32 [%rd0], {%f10, %f11, %f12, %f13, %f14, %f15, %f16, %f17}, %r7;",
    );
    let words = case.words(256);
    assert_eq!(words, each(256, |i| ((i / 16 + i % 16) as f32 * 2.0 + 1.0).to_bits()));
}

#[test]
fn transfers_want_aligned_addresses_and_the_whole_warp() {
    let load = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r10}";
    let finding = Case::kernel(&format!("{FILL} {load}, [%rd5+8];")).fails();
    assert_eq!(finding.kind, Kind::Misaligned);
    let finding = Case::kernel(&format!("{FILL} {load}, [%rd5+900];")).fails();
    assert!(matches!(finding.kind, Kind::OutOfBounds | Kind::Misaligned), "{finding}");
    let finding = Case::kernel(&format!("{FILL} setp.lt.u32 %p2, %r0, 31; @%p2 {load}, [%rd5];")).fails();
    assert_eq!(finding.kind, Kind::Divergence);
}
