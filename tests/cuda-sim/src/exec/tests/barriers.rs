//! Barriers of blocks and of warps.

use super::*;

#[test]
fn a_block_exchanges_through_shared_memory() {
    for barrier in ["bar.sync 0", "barrier.sync.aligned 0", "barrier.sync 3", "barrier.cta.sync.aligned 15, %r9"] {
        let case = Case::kernel(&format!(
            ".shared .align 4 .b8 s[512]; mov.u32 %r9, %ntid.x;
            mul.wide.u32 %rd2, %r0, 4; mov.u64 %rd3, s; add.u64 %rd4, %rd3, %rd2;
            st.shared.u32 [%rd4], %r0; {barrier};
            xor.b32 %r1, %r0, 64; mul.wide.u32 %rd5, %r1, 4; add.u64 %rd5, %rd3, %rd5;
            ld.shared.u32 %r2, [%rd5]; st.global.u32 [%rd1], %r2;"
        ));
        assert_eq!(case.threads(128).words(128), each(128, |t| t ^ 64), "{barrier}");
    }
}

#[test]
fn reductions() {
    // 75 threads: the last warp has 11. A negated predicate, and one that only one thread has.
    let body = "rem.u32 %r1, %r0, 3; setp.eq.u32 %p1, %r1, 0; setp.lt.u32 %p2, %r0, 1000; setp.eq.u32 %p3, %r0, 70;
        bar.red.popc.u32 %r2, 0, %p1; bar.red.popc.u32 %r3, 0, !%p1;
        bar.red.and.pred %p4, 0, %p2; bar.red.and.pred %p5, 0, !%p3;
        bar.red.or.pred %p6, 0, %p3; barrier.cta.red.or.pred %p7, 1, !%p2;
        selp.u32 %r4, 1, 0, %p4; selp.u32 %r5, 2, 0, %p5; selp.u32 %r6, 4, 0, %p6; selp.u32 %r7, 8, 0, %p7;
        or.b32 %r4, %r4, %r5; or.b32 %r4, %r4, %r6; or.b32 %r4, %r4, %r7;
        mad.lo.u32 %r2, %r2, 1000, %r3; mad.lo.u32 %r2, %r4, 1000000, %r2; st.global.u32 [%rd1], %r2;";
    assert_eq!(Case::kernel(body).threads(75).words(75), vec![5_025_050; 75]);
    // with a thread count, in two groups of warps with barriers of their own
    let case = Case::kernel(
        "shr.u32 %r1, %r0, 6; and.b32 %r2, %r0, 1; setp.eq.u32 %p1, %r2, %r1; add.u32 %r3, %r1, 1;
        bar.red.popc.u32 %r4, %r3, 64, %p1; setp.eq.u32 %p2, %r0, 3; bar.red.or.pred %p3, %r3, 64, %p2;
        selp.u32 %r5, 100, 0, %p3; add.u32 %r4, %r4, %r5; st.global.u32 [%rd1], %r4;",
    );
    assert_eq!(case.threads(128).words(128), each(128, |t| if t < 64 { 132 } else { 32 }));
}

#[test]
fn threads_that_have_exited_are_not_waited_for() {
    // half of the first warp, and all of the second
    let case = Case::kernel(
        "setp.lt.u32 %p1, %r0, 16; shr.u32 %r1, %r0, 5; setp.eq.u32 %p2, %r1, 1;
        mov.u32 %r9, 9; st.global.u32 [%rd1], %r9;
        @%p1 exit; @%p2 ret;
        setp.ge.u32 %p3, %r0, 0; bar.red.popc.u32 %r2, 0, %p3; st.global.u32 [%rd1], %r2;",
    );
    let wanted = each(96, |t| if t < 16 || t / 32 == 1 { 9 } else { 48 });
    assert_eq!(case.threads(96).words(96), wanted);
    // they leave after the others have come
    let case = Case::kernel(
        "setp.ge.u32 %p1, %r0, 32; @%p1 bra LATE; bar.sync 0; bra END;
        LATE: mov.u32 %r1, 0; LOOP: add.u32 %r1, %r1, 1; setp.lt.u32 %p2, %r1, 100; @%p2 bra LOOP; exit;
        END: st.global.u32 [%rd1], %r0;",
    );
    assert_eq!(case.threads(64).words(32), each(32, |t| t));
}

#[test]
fn producers_arrive_and_consumers_wait() {
    let case = Case::kernel(
        ".shared .align 4 .b8 s[128];
        and.b32 %r1, %r0, 31; mul.wide.u32 %rd2, %r1, 4; mov.u64 %rd3, s; add.u64 %rd3, %rd3, %rd2;
        setp.ge.u32 %p1, %r0, 32; mov.u32 %r5, 0;
        @%p1 bra CONSUME;
        PRODUCE: bar.sync 2, 64; mad.lo.u32 %r2, %r5, 100, %r1; st.shared.u32 [%rd3], %r2; bar.arrive 1, 64;
        add.u32 %r5, %r5, 1; setp.lt.u32 %p2, %r5, 4; @%p2 bra PRODUCE; exit;
        CONSUME: bar.arrive 2, 64; bar.sync 1, 64;
        xor.b32 %r6, %r1, 31; mul.wide.u32 %rd4, %r6, 4; mov.u64 %rd5, s; add.u64 %rd5, %rd5, %rd4;
        ld.shared.u32 %r3, [%rd5];
        mad.lo.u32 %r4, %r5, 32, %r1; mul.wide.u32 %rd6, %r4, 4; add.u64 %rd6, %rd0, %rd6; st.global.u32 [%rd6], %r3;
        add.u32 %r5, %r5, 1; setp.lt.u32 %p2, %r5, 4; @%p2 bra CONSUME;",
    );
    assert_eq!(case.threads(64).words(128), each(128, |i| i / 32 * 100 + (31 - i % 32)));
}

#[test]
fn lanes_of_a_warp_meet_at_different_instructions() {
    // barrier without .aligned: odd and even lanes wait at different places
    let case = Case::kernel(
        ".shared .align 4 .b8 s[256]; mul.wide.u32 %rd2, %r0, 4; mov.u64 %rd3, s; add.u64 %rd4, %rd3, %rd2;
        st.shared.u32 [%rd4], %r0; and.b32 %r1, %r0, 1; setp.eq.u32 %p1, %r1, 0;
        @%p1 bra EVEN;
        barrier.sync 0; xor.b32 %r2, %r0, 33; bra READ;
        EVEN: barrier.sync 0; xor.b32 %r2, %r0, 35;
        READ: mul.wide.u32 %rd5, %r2, 4; add.u64 %rd5, %rd3, %rd5; ld.shared.u32 %r3, [%rd5]; st.global.u32 [%rd1], %r3;",
    );
    assert_eq!(case.threads(64).words(64), each(64, |t| if t % 2 == 0 { t ^ 35 } else { t ^ 33 }));
}

#[test]
fn parts_of_a_warp_have_their_own_barriers() {
    // three groups, each behind its own branch, with as many rounds as its number
    let case = Case::kernel(
        ".shared .align 4 .b8 s[128]; mul.wide.u32 %rd2, %r0, 4; mov.u64 %rd3, s; add.u64 %rd4, %rd3, %rd2;
        mov.u32 %r5, %r0; setp.lt.u32 %p1, %r0, 8; setp.lt.u32 %p2, %r0, 20; @%p1 bra A; @%p2 bra B;
        mov.u32 %r1, 0xfff00000; mov.u32 %r6, 3; bra LOOP;
        A: mov.u32 %r1, 0xff; mov.u32 %r6, 1; bra LOOP;
        B: mov.u32 %r1, 0x000fff00; mov.u32 %r6, 2;
        // everybody takes the value of the next lane of its group
        LOOP: st.shared.u32 [%rd4], %r5; bar.warp.sync %r1;
        add.u32 %r2, %r0, 1; and.b32 %r2, %r2, 31; shr.u32 %r3, %r1, %r2; and.b32 %r3, %r3, 1; setp.eq.u32 %p3, %r3, 0;
        brev.b32 %r4, %r1; bfind.u32 %r4, %r4; sub.u32 %r4, 31, %r4; @%p3 mov.u32 %r2, %r4;
        mul.wide.u32 %rd5, %r2, 4; add.u64 %rd5, %rd3, %rd5; ld.shared.u32 %r5, [%rd5]; bar.warp.sync %r1;
        sub.u32 %r6, %r6, 1; setp.ne.u32 %p4, %r6, 0; @%p4 bra LOOP;
        st.global.u32 [%rd1], %r5;",
    );
    let wanted = each(32, |t| {
        let (first, end, rounds) = if t < 8 {
            (0, 8, 1)
        } else if t < 20 {
            (8, 20, 2)
        } else {
            (20, 32, 3)
        };
        first + (t - first + rounds) % (end - first)
    });
    assert_eq!(case.words(32), wanted);
}

#[test]
fn a_warp_barrier_joins_lanes_at_different_instructions() {
    let case = Case::kernel(
        ".shared .align 4 .b8 s[128]; mul.wide.u32 %rd2, %r0, 4; mov.u64 %rd3, s; add.u64 %rd4, %rd3, %rd2;
        st.shared.u32 [%rd4], %r0; setp.lt.u32 %p1, %r0, 5; @%p1 bra FEW;
        bar.warp.sync 0xffffffff; mov.u32 %r2, 1000; bra READ;
        FEW: bar.warp.sync 0xffffffff; mov.u32 %r2, 2000;
        READ: sub.u32 %r1, 31, %r0; mul.wide.u32 %rd5, %r1, 4; add.u64 %rd5, %rd3, %rd5; ld.shared.u32 %r3, [%rd5];
        add.u32 %r3, %r3, %r2; st.global.u32 [%rd1], %r3;",
    );
    assert_eq!(case.words(32), each(32, |t| 31 - t + if t < 5 { 2000 } else { 1000 }));
    // different masks at one instruction, without a branch
    let case = Case::kernel(
        ".shared .align 4 .b8 s[128]; mul.wide.u32 %rd2, %r0, 4; mov.u64 %rd3, s; add.u64 %rd4, %rd3, %rd2;
        st.shared.u32 [%rd4], %r0; shr.u32 %r1, %r0, 3; shl.b32 %r1, %r1, 3; mov.u32 %r2, 255; shl.b32 %r2, %r2, %r1;
        bar.warp.sync %r2; xor.b32 %r3, %r0, 7; mul.wide.u32 %rd5, %r3, 4; add.u64 %rd5, %rd3, %rd5;
        ld.shared.u32 %r4, [%rd5]; st.global.u32 [%rd1], %r4;",
    );
    assert_eq!(case.words(32), each(32, |t| t ^ 7));
}

#[test]
fn shuffles_and_votes_in_diverged_code() {
    // both sides of a branch exchange among themselves; the sides come one after the other
    let case = Case::kernel(
        "and.b32 %r1, %r0, 1; setp.eq.u32 %p1, %r1, 1; setp.lt.u32 %p2, %r0, 10; @%p1 bra ODD;
        shfl.sync.bfly.b32 %r2, %r0, 2, 31, 0x55555555; vote.sync.ballot.b32 %r3, %p2, 0x55555555; bra END;
        ODD: shfl.sync.bfly.b32 %r2, %r0, 4, 31, 0xaaaaaaaa; vote.sync.ballot.b32 %r3, %p2, 0xaaaaaaaa;
        END: mad.lo.u32 %r2, %r2, 10000, %r3; st.global.u32 [%rd1], %r2;",
    );
    assert_eq!(
        case.words(32),
        each(32, |t| if t % 2 == 1 { (t ^ 4) * 10000 + 0x2aa } else { (t ^ 2) * 10000 + 0x155 })
    );
}

#[test]
fn a_whole_grid_waits_in_a_cooperative_launch() {
    let case = Case::kernel(
        "mov.u32 %r1, %ctaid.x; mov.u32 %r2, %nctaid.x; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd3, %rd0, %rd2;
        mul.lo.u32 %r3, %r1, 3; setp.eq.u32 %p1, %r0, 0; @%p1 st.global.u32 [%rd3+2048], %r3;
        bar.sync 0; @!%p1 bra WAITED;
        fence.acq_rel.gpu; atom.global.add.u32 %r4, [%rd0+4092], 1;
        SPIN: ld.acquire.gpu.global.u32 %r5, [%rd0+4092]; setp.lt.u32 %p2, %r5, %r2; @%p2 bra SPIN;
        fence.acq_rel.gpu;
        WAITED: bar.sync 0;
        add.u32 %r6, %r1, 1; rem.u32 %r6, %r6, %r2; mul.wide.u32 %rd4, %r6, 4; add.u64 %rd4, %rd0, %rd4;
        ld.global.u32 %r7, [%rd4+2048]; @%p1 st.global.u32 [%rd3], %r7;",
    );
    let case = case.threads(64).blocks(13).cooperative().input(4092, &[0u32]);
    assert_eq!(case.words(13), each(13, |b| (b + 1) % 13 * 3));
}
