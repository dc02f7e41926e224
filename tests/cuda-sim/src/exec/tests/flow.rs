//! Branches, calls, exits, locks, special registers, output.

use super::*;

#[test]
fn nested_branches() {
    let words = Case::kernel(
        "and.b32 %r1, %r0, 1; and.b32 %r2, %r0, 2; setp.ne.u32 %p1, %r1, 0; setp.ne.u32 %p2, %r2, 0; mov.u32 %r3, 0;
        @%p1 bra ODD;
        @%p2 bra TWO; add.u32 %r3, %r3, 1; bra JOIN1; TWO: add.u32 %r3, %r3, 2; JOIN1: add.u32 %r3, %r3, 10; bra JOIN;
        ODD: @!%p2 bra ONE; add.u32 %r3, %r3, 3; bra JOIN2; ONE: add.u32 %r3, %r3, 4; JOIN2: add.u32 %r3, %r3, 20;
        JOIN: activemask.b32 %r4; setp.ne.u32 %p3, %r4, -1; @%p3 add.u32 %r3, %r3, 1000;
        st.global.u32 [%rd1], %r3;",
    );
    // the lanes are together again behind the last join
    assert_eq!(words.words(32), each(32, |t| [11, 24, 12, 23][t as usize % 4]));
}

#[test]
fn a_uniform_branch_does_not_diverge() {
    let case = Case::kernel(
        "mov.u32 %r1, %ntid.x; setp.eq.u32 %p1, %r1, 32; @%p1 bra.uni THERE; st.global.u32 [%rd1], %r1; THERE:
        st.global.u32 [%rd1], %r0;",
    );
    let counters = case.launch(1).counters;
    assert_eq!((counters.branches, counters.divergent_branches), (1, 0));
    assert_eq!(case.words(32), each(32, |t| t));
}

#[test]
fn loops_of_different_length() {
    let words = Case::kernel(
        "mov.u32 %r1, 0; mov.u32 %r2, 0;
        OUTER: setp.ge.u32 %p1, %r1, %r0; @%p1 bra DONE; mov.u32 %r3, 0;
        INNER: add.u32 %r2, %r2, 1; add.u32 %r3, %r3, 1; setp.lt.u32 %p2, %r3, %r1; @%p2 bra INNER;
        add.u32 %r1, %r1, 1; bra OUTER;
        DONE: activemask.b32 %r5; setp.ne.u32 %p3, %r5, -1; @%p3 add.u32 %r2, %r2, 100000; st.global.u32 [%rd1], %r2;",
    );
    assert_eq!(words.words(32), each(32, |t| (0..t).map(|i| i.max(1)).sum()));
}

#[test]
fn lanes_leave_one_by_one() {
    for leave in ["exit", "ret"] {
        let words = Case::kernel(&format!(
            "mov.u32 %r1, 0;
            LOOP: st.global.u32 [%rd1], %r1; setp.eq.u32 %p1, %r1, %r0; @%p1 {leave};
            add.u32 %r1, %r1, 1; bra LOOP;"
        ));
        assert_eq!(words.words(32), each(32, |t| t), "{leave}");
    }
}

#[test]
fn a_switch_of_many_ways() {
    let words = Case::kernel(
        "rem.u32 %r1, %r0, 5; mov.u32 %r2, 7;
        WAYS: .branchtargets A, B, C, B;
        setp.eq.u32 %p1, %r1, 4; @%p1 bra END;
        brx.idx %r1, WAYS;
        A: mov.u32 %r2, 100; bra END;
        B: mov.u32 %r2, 200; bra END;
        C: mov.u32 %r2, 300;
        END: st.global.u32 [%rd1], %r2;",
    );
    assert_eq!(words.words(32), each(32, |t| [100, 200, 300, 200, 7][t as usize % 5]));
    // a guard, and one target for all
    let words = Case::kernel(
        "setp.lt.u32 %p1, %r0, 9; mov.u32 %r1, 1; mov.u32 %r2, 7; T: .branchtargets A, B;
        @%p1 brx.idx %r1, T; mov.u32 %r2, 8; bra B; A: mov.u32 %r2, 9; B: st.global.u32 [%rd1], %r2;",
    );
    assert_eq!(words.words(32), each(32, |t| if t < 9 { 7 } else { 8 }));
    let finding = Case::kernel("mov.u32 %r1, 2; T: .branchtargets A, B; brx.idx %r1, T; A: B:").fails();
    assert_eq!(finding.kind, Kind::IllegalInstruction);
}

#[test]
fn a_switch_in_a_loop() {
    // a machine of states: backward jumps through the table
    let words = Case::kernel(
        "mov.u32 %r1, 0; mov.u32 %r2, 0; and.b32 %r3, %r0, 3; T: .branchtargets A, B, C;
        NEXT: brx.idx %r1, T;
        A: add.u32 %r2, %r2, 1; mov.u32 %r1, 1; setp.ge.u32 %p1, %r2, %r0; @%p1 mov.u32 %r1, 2; bra NEXT;
        B: add.u32 %r2, %r2, %r3; mov.u32 %r1, 0; bra NEXT;
        C: st.global.u32 [%rd1], %r2;",
    );
    let wanted = each(32, |t| {
        let mut sum = 1;
        while sum < t {
            sum += (t & 3) + 1;
        }
        sum
    });
    assert_eq!(words.words(32), wanted);
}

const RECURSIVE: &str = ".func (.reg .b32 r) fib(.reg .b32 n) { .reg .pred %p; .reg .b32 %x<4>;
    setp.lt.u32 %p, n, 2; @%p bra SMALL;
    sub.u32 %x0, n, 1; call (%x1), fib, (%x0); sub.u32 %x0, n, 2; call (%x2), fib, (%x0);
    add.u32 r, %x1, %x2; ret;
    SMALL: mov.u32 r, n; ret; }
    .func (.param .b64 r) fact(.param .b64 n) { .reg .pred %p; .reg .b64 %x<4>;
    ld.param.b64 %x0, [n]; setp.gt.u64 %p, %x0, 1; mov.u64 %x1, 1; @!%p bra END;
    { .param .b64 a; .param .b64 b; sub.u64 %x2, %x0, 1; st.param.b64 [a], %x2; call (b), fact, (a); ld.param.b64 %x1, [b]; }
    mul.lo.u64 %x1, %x1, %x0; END: st.param.b64 [r], %x1; ret; }";

#[test]
fn recursion() {
    let words =
        Case::kernel_with(RECURSIVE, "rem.u32 %r1, %r0, 12; call (%r2), fib, (%r1); st.global.u32 [%rd1], %r2;");
    let fib = |n: u32| (0..n).fold((0, 1), |(a, b), _| (b, a + b)).0;
    assert_eq!(words.words(32), each(32, |t| fib(t % 12)));
    let longs = Case::kernel_with(
        RECURSIVE,
        "cvt.u64.u32 %rd2, %r0; rem.u64 %rd2, %rd2, 21; mul.wide.u32 %rd4, %r0, 8; add.u64 %rd4, %rd0, %rd4;
        { .param .b64 a; .param .b64 b; st.param.b64 [a], %rd2; call (b), fact, (a); ld.param.b64 %rd3, [b]; }
        st.global.u64 [%rd4], %rd3;",
    );
    assert_eq!(longs.longs(32), (0..32u64).map(|t| (1..=t % 21).product::<u64>()).collect::<Vec<_>>());
}

#[test]
fn recursion_without_end_overflows_the_stack() {
    let forever = ".func f(.reg .b32 n) { .reg .b32 %x; add.u32 %x, n, 1; call f, (%x); ret; }";
    let finding = Case::kernel_with(forever, "call f, (%r0);").fails();
    assert_eq!(finding.kind, Kind::StackOverflow);
    assert_eq!(finding.place.map(|p| p.function), Some("f".into()));
}

#[test]
fn calls_by_some_lanes_only() {
    let functions = ".func (.reg .b32 r) twice(.reg .b32 a) { add.u32 r, a, a; ret; }
        .func (.reg .b32 r) early(.reg .b32 a) { .reg .pred %p; setp.lt.u32 %p, a, 10; mov.u32 r, 1; @%p ret;
        mov.u32 r, 2; setp.lt.u32 %p, a, 20; @%p ret; mov.u32 r, 3; ret; }
        .func leave(.reg .b32 a) { .reg .pred %p; setp.gt.u32 %p, a, 29; @%p exit; ret; }";
    let words = Case::kernel_with(
        functions,
        "st.global.u32 [%rd1], %r0; mov.u32 %r1, 0; and.b32 %r2, %r0, 1; setp.eq.u32 %p1, %r2, 1;
        @%p1 call (%r1), twice, (%r0);
        call (%r3), early, (%r0); call leave, (%r0);
        mad.lo.u32 %r1, %r1, 10, %r3; activemask.b32 %r5; setp.ne.u32 %p2, %r5, 0x3fffffff; @%p2 mov.u32 %r1, 99999;
        st.global.u32 [%rd1], %r1;",
    );
    let wanted = each(32, |t| match t {
        30.. => t,
        _ => (t % 2) * 20 * t + [1, 2, 3][t as usize / 10],
    });
    assert_eq!(words.words(32), wanted);
}

#[test]
fn a_table_of_functions() {
    let functions = ".func (.param .b32 r) add(.param .b32 a) { .reg .b32 %x; ld.param.b32 %x, [a]; add.u32 %x, %x, 100; st.param.b32 [r], %x; ret; }
        .func (.param .b32 r) mul(.param .b32 a) { .reg .b32 %x; ld.param.b32 %x, [a]; mul.lo.u32 %x, %x, 3; st.param.b32 [r], %x; ret; }
        .func (.param .b32 r) neg(.param .b32 a) { .reg .b32 %x; ld.param.b32 %x, [a]; neg.s32 %x, %x; st.param.b32 [r], %x; ret; }
        .global .align 8 .u64 table[3] = {add, mul, neg};";
    let call = "PROTO: .callprototype (.param .b32 _) _ (.param .b32 _);
        { .param .b32 a; .param .b32 b; st.param.b32 [a], %r0; call (b), %rd3, (a), PROTO; ld.param.b32 %r2, [b]; }
        st.global.u32 [%rd1], %r2;";
    let words = Case::kernel_with(
        functions,
        &format!(
            "rem.u32 %r1, %r0, 3; mul.wide.u32 %rd2, %r1, 8; mov.u64 %rd4, table; add.u64 %rd2, %rd4, %rd2; ld.global.u64 %rd3, [%rd2]; {call}"
        ),
    );
    assert_eq!(words.words(32), each(32, |t| [t + 100, t * 3, t.wrapping_neg()][t as usize % 3]));
    let finding = Case::kernel_with(functions, &format!("add.u64 %rd3, %rd0, 8; {call}")).fails();
    assert_eq!(finding.kind, Kind::IllegalInstruction);
}

#[test]
fn a_lock_between_lanes_warps_and_blocks() {
    // every lane spins by itself; the one that holds the lock must get on
    let body = "SPIN: atom.acquire.gpu.global.cas.b32 %r1, [%rd0], 0, 1; setp.ne.u32 %p1, %r1, 0; @%p1 bra SPIN;
        ld.volatile.global.u32 %r2, [%rd0+4]; add.u32 %r2, %r2, 1; st.volatile.global.u32 [%rd0+4], %r2;
        fence.acq_rel.gpu; atom.release.gpu.global.exch.b32 %r3, [%rd0], 0;";
    for (threads, blocks) in [(32, 1), (128, 1), (64, 5)] {
        let case = Case::kernel(body).threads(threads).blocks(blocks).input(0, &[0u32, 0]);
        assert_eq!(case.words(2), [0, threads * blocks], "{threads} threads, {blocks} blocks");
    }
}

#[test]
fn a_flag_between_warps_and_sleep() {
    // warp 0 waits for warp 1, which is behind it
    let case = Case::kernel(
        "setp.ge.u32 %p1, %r0, 32; @%p1 bra PRODUCE;
        WAIT: ld.volatile.global.u32 %r1, [%rd0+1024]; setp.ne.u32 %p2, %r1, 0; @%p2 bra SEEN; nanosleep.u32 100; bra WAIT;
        SEEN: fence.acq_rel.gpu; ld.global.u32 %r2, [%rd1+256]; st.global.u32 [%rd1], %r2; exit;
        PRODUCE: add.u32 %r3, %r0, 1000; st.global.u32 [%rd1+128], %r3; fence.acq_rel.gpu; bar.warp.sync -1;
        setp.eq.u32 %p3, %r0, 32; mov.u32 %r4, 1; @%p3 st.volatile.global.u32 [%rd0+1024], %r4;",
    );
    assert_eq!(case.threads(64).input(1024, &[0u32]).words(32), each(32, |t| 1032 + t));
}

#[test]
fn a_loop_without_end_is_stopped() {
    for body in ["LOOP: bra LOOP;", "LOOP: ld.volatile.global.u32 %r1, [%rd0]; setp.eq.u32 %p1, %r1, 0; @%p1 bra LOOP;"]
    {
        let finding = Case::kernel(body).input(0, &[0u32]).fails();
        assert_eq!(finding.kind, Kind::Timeout, "{body}");
        assert!(finding.place.is_some());
    }
    let mut case = Case::kernel("mov.u32 %r1, 0; LOOP: add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 100; @%p1 bra LOOP;");
    assert!(case.launch(1).finding.is_none());
    case.budget = 200;
    assert_eq!(case.fails().kind, Kind::Timeout);
}

#[test]
fn traps_and_assertions() {
    for text in ["trap", "brkpt"] {
        let finding = Case::kernel(&format!("setp.eq.u32 %p1, %r0, 37; @%p1 {text};")).threads(64).fails();
        assert_eq!(finding.kind, Kind::Trap);
        let place = finding.place.expect("a place");
        assert_eq!((place.warp, place.lane, place.thread), (1, 5, [37, 0, 0]));
    }
    let text = |s: &str| s.bytes().map(|b| b.to_string()).collect::<Vec<_>>().join(", ");
    let finding = Case::kernel_with(
        &format!(
            ".global .align 1 .b8 m[8] = {{{}, 0}}; .global .align 1 .b8 f[8] = {{{}, 0}}; .global .align 1 .b8 n[8] = {{{}, 0}};
            .extern .func __assertfail(.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);",
            text("x > 0"),
            text("a.cu"),
            text("go")
        ),
        "mov.u64 %rd2, m; cvta.global.u64 %rd2, %rd2; mov.u64 %rd3, f; cvta.global.u64 %rd3, %rd3; mov.u64 %rd4, n; cvta.global.u64 %rd4, %rd4;
        setp.lt.u32 %p1, %r0, 3; @%p1 bra END;
        { .param .b64 a; .param .b64 b; .param .b32 c; .param .b64 d; .param .b64 e;
        st.param.b64 [a], %rd2; st.param.b64 [b], %rd3; st.param.b32 [c], 42; st.param.b64 [d], %rd4; st.param.b64 [e], 1;
        call.uni __assertfail, (a, b, c, d, e); } END:",
    )
    .fails();
    assert_eq!(finding.kind, Kind::Assert);
    assert_eq!(finding.message, "assertion `x > 0` failed at a.cu:42 in go");
    assert_eq!(finding.place.map(|p| p.lane), Some(3));
}

#[test]
fn printf() {
    let format = b"%d %s %5.2f %llx %%\n\0";
    let bytes = |s: &[u8]| s.iter().map(|b| b.to_string()).collect::<Vec<_>>().join(", ");
    let case = Case::kernel_with(
        &format!(
            ".global .align 1 .b8 f[{}] = {{{}}}; .global .align 1 .b8 t[3] = {{104, 105, 0}};
            .extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);",
            format.len(),
            bytes(format)
        ),
        ".local .align 8 .b8 args[32];
        mov.u64 %rd2, f; cvta.global.u64 %rd2, %rd2; mov.u64 %rd3, args; cvta.local.u64 %rd4, %rd3; mov.u64 %rd5, t; cvta.global.u64 %rd5, %rd5;
        st.local.u32 [%rd3], %r0; st.local.u64 [%rd3+8], %rd5; mov.f64 %fd1, 0d3FF8000000000000; st.local.f64 [%rd3+16], %fd1;
        mov.u64 %rd6, 0xabcdef0123; st.local.u64 [%rd3+24], %rd6;
        and.b32 %r2, %r0, 1; setp.eq.u32 %p1, %r2, 0; @%p1 bra END;
        { .param .b64 a; .param .b64 b; .param .b32 r; st.param.b64 [a], %rd2; st.param.b64 [b], %rd4;
        call.uni (r), vprintf, (a, b); ld.param.b32 %r1, [r]; }
        st.global.u32 [%rd1], %r1; END:",
    )
    .threads(4)
    .blocks(3);
    for threads in [1, 2, 5] {
        let printed = case.launch(threads).printed;
        let wanted = "1 hi  1.50 abcdef0123 %\n3 hi  1.50 abcdef0123 %\n".repeat(3);
        assert_eq!(String::from_utf8_lossy(&printed), wanted);
    }
    let mut count = [0; 4];
    case.memory.read(case.out + 4, &mut count).expect("in bounds");
    assert_eq!(u32::from_le_bytes(count), 4, "vprintf returns the number of arguments");
}

#[test]
fn special_registers() {
    let mut case = Case::kernel(
        "mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z; mov.u32 %r3, %ntid.x; mov.u32 %r4, %ntid.y; mov.u32 %r5, %ntid.z;
        mad.lo.u32 %r6, %r2, %r4, %r1; mad.lo.u32 %r6, %r6, %r3, %r0;
        mov.u32 %r7, %laneid; mov.u32 %r8, %warpid; mad.lo.u32 %r9, %r8, 32, %r7;
        setp.ne.u32 %p1, %r6, %r9; @%p1 trap;
        mov.u32 %r10, %ctaid.z; mov.u32 %r11, %nctaid.y; mov.u32 %r12, %ctaid.y; mov.u32 %r13, %nctaid.x; mov.u32 %r14, %ctaid.x;
        mad.lo.u32 %r15, %r10, %r11, %r12; mad.lo.u32 %r15, %r15, %r13, %r14;
        mad.lo.u32 %r16, %r15, 48, %r6; mul.wide.u32 %rd1, %r16, 4; add.u64 %rd1, %rd0, %rd1;
        mov.u32 %r20, %lanemask_eq; mov.u32 %r21, %lanemask_lt; mov.u32 %r22, %lanemask_le; mov.u32 %r23, %lanemask_gt; mov.u32 %r24, %lanemask_ge;
        or.b32 %r25, %r20, %r21; setp.ne.u32 %p2, %r25, %r22; @%p2 trap;
        or.b32 %r25, %r20, %r23; setp.ne.u32 %p2, %r25, %r24; @%p2 trap;
        xor.b32 %r25, %r21, %r24; setp.ne.u32 %p2, %r25, -1; @%p2 trap; popc.b32 %r25, %r21; setp.ne.u32 %p2, %r25, %r7; @%p2 trap;
        mov.u32 %r26, %nwarpid; setp.ne.u32 %p2, %r26, 2; @%p2 trap;
        mov.u32 %r27, %smid; mov.u32 %r28, %nsmid; setp.ge.u32 %p2, %r27, %r28; @%p2 trap;
        st.global.u32 [%rd1], %r16;",
    );
    (case.block, case.grid) = ([4, 3, 4], [2, 2, 3]);
    assert_eq!(case.words(48 * 12), each(48 * 12, |i| i));
}

#[test]
fn clocks_advance() {
    let words = Case::kernel(
        "mov.u32 %r1, %clock; mov.u64 %rd2, %clock64; mov.u32 %r2, 0; LOOP: add.u32 %r2, %r2, 1; setp.lt.u32 %p1, %r2, %r0; @%p1 bra LOOP;
        mov.u32 %r3, %clock; mov.u64 %rd3, %clock64; mov.u64 %rd4, %globaltimer; mov.u64 %rd5, %globaltimer; mov.u32 %r9, %clock_hi;
        setp.le.u32 %p1, %r3, %r1; @%p1 trap; setp.le.u64 %p1, %rd3, %rd2; @%p1 trap; setp.lt.u64 %p1, %rd5, %rd4; @%p1 trap;
        setp.ne.u32 %p1, %r9, 0; @%p1 trap;
        // a wait for the clock ends
        WAIT: mov.u32 %r4, %clock; sub.u32 %r4, %r4, %r1; setp.lt.u32 %p1, %r4, 5000; @%p1 bra WAIT;
        st.global.u32 [%rd1], %r0;",
    );
    assert_eq!(words.words(32), each(32, |t| t));
}

#[test]
fn a_guard_on_every_kind_of_instruction() {
    // nobody executes any of these
    let finding = Case::kernel_with(
        ".func f() { trap; }",
        ".shared .align 16 .b8 s[16]; setp.eq.u32 %p1, %r0, 1000; mov.u64 %rd2, 3; T: .branchtargets A;
        @%p1 ld.global.u32 %r1, [%rd2]; @%p1 st.global.u32 [%rd2], %r1; @%p1 atom.global.add.u32 %r1, [%rd2], 1;
        @%p1 red.shared.add.u32 [%rd2], 1; @%p1 cp.async.ca.shared.global [%rd2], [%rd2], 4; @%p1 cp.async.commit_group;
        @%p1 cp.async.wait_all; @%p1 ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%rd2]; @%p1 bar.sync 0;
        @%p1 bar.warp.sync 0; @%p1 membar.gl; @%p1 mov.u32 %r1, %clock; @%p1 brx.idx %r0, T; @%p1 call f; @%p1 ret; @%p1 exit;
        @%p1 trap; @%p1 shfl.sync.idx.b32 %r1, %r0, 0, 31, -1; @%p1 vote.sync.all.pred %p2, %p1, -1; @%p1 nanosleep.u32 5;
        @%p1 bra A; st.global.u32 [%rd1], %r0; A:",
    );
    assert_eq!(finding.words(32), each(32, |t| t));
}
