//! Counters of kernels small enough to count by hand, and that nothing depends on the number of threads.

use super::*;
use crate::lanes::Class;

fn counted(case: &Case) -> Counters {
    let outcome = case.launch(1);
    assert_eq!(outcome.finding, None);
    outcome.counters
}

fn pair(c: &Counters, class: Class) -> (u64, u64) {
    c.instructions.get(&class).map_or((0, 0), |c| (c.warps, c.lanes))
}

#[test]
fn global_sectors() {
    // four warps of four sectors each; a stride of 32 bytes: a sector a lane
    let case = Case::kernel("st.global.u32 [%rd1], %r0; ld.global.u32 %r1, [%rd1];").threads(128);
    let c = counted(&case);
    assert_eq!((c.global_store.requests, c.global_store.sectors, c.global_store.bytes), (4, 16, 512));
    assert_eq!((c.global_load.requests, c.global_load.sectors, c.global_load.bytes), (4, 16, 512));
    assert_eq!((pair(&c, Class::LoadGlobal), pair(&c, Class::StoreGlobal)), ((4, 128), (4, 128)));
    let case = Case::kernel(
        "mul.wide.u32 %rd2, %r0, 32; add.u64 %rd2, %rd0, %rd2; st.global.u32 [%rd2], %r0;
        setp.lt.u32 %p1, %r0, 3; @%p1 ld.global.u32 %r1, [%rd2]; red.global.add.u32 [%rd2], 1;",
    );
    let c = counted(&case);
    assert_eq!((c.global_store.requests, c.global_store.sectors, c.global_store.bytes), (2, 64, 256));
    assert_eq!((c.global_load.requests, c.global_load.sectors, c.global_load.bytes), (1, 3, 12));
    assert_eq!((pair(&c, Class::LoadGlobal), pair(&c, Class::Atomic)), ((1, 3), (1, 32)));
}

#[test]
fn bank_conflicts() {
    for (stride, ways) in [(4, 1), (8, 2), (16, 4), (128, 32), (132, 1)] {
        let case = Case::kernel(&format!(
            ".shared .align 16 .b8 s[4352]; mul.lo.u32 %r1, %r0, {stride}; mov.u32 %r2, s; add.u32 %r2, %r2, %r1;
            st.shared.u32 [%r2], %r0; ld.shared.u32 %r3, [%r2]; bar.warp.sync -1; ld.shared.u32 %r4, [s];"
        ));
        let c = counted(&case);
        let banks = |b: counters::Banks| (b.requests, b.wavefronts, b.ideal, b.bytes);
        assert_eq!(banks(c.shared_store), (1, ways, 1, 128), "stride {stride}");
        assert_eq!(banks(c.shared_load), (2, ways + 1, 2, 256), "stride {stride}");
    }
}

#[test]
fn barriers_and_branches() {
    // two blocks of three warps; a loop of five rounds with a barrier; then a branch by parity
    let case = Case::kernel(
        "mov.u32 %r1, 0; LOOP: bar.sync 0; add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 5; @%p1 bra LOOP;
        and.b32 %r2, %r0, 1; setp.eq.u32 %p2, %r2, 0; @%p2 bra EVEN; add.u32 %r1, %r1, 1; EVEN: add.u32 %r1, %r1, 1;",
    );
    let c = counted(&case.threads(96).blocks(2));
    assert_eq!((c.barriers, c.branches, c.divergent_branches), (10, 6 * 6, 6));
    assert_eq!(pair(&c, Class::Barrier), (30, 960));
    // what the lanes that do not jump execute alone counts for 16 lanes
    let without = |text: &str| {
        let case = Case::kernel(&format!(
            "mov.u32 %r1, 0; and.b32 %r2, %r0, 1; setp.eq.u32 %p2, %r2, 0; @%p2 bra EVEN; {text} EVEN: add.u32 %r1, %r1, 1;"
        ));
        pair(&counted(&case), Class::Integer)
    };
    let (one, none) = (without("add.u32 %r1, %r1, 1;"), without(""));
    assert_eq!((one.0 - none.0, one.1 - none.1), (1, 16));
}

#[test]
fn multiply_adds() {
    let case = Case::kernel(
        "mov.f32 %f1, 0f3F800000; fma.rn.f32 %f2, %f1, %f1, %f1; mov.f64 %fd1, 0d3FF0000000000000; fma.rn.f64 %fd2, %fd1, %fd1, %fd1;
        setp.lt.u32 %p1, %r0, 5; @%p1 fma.rn.f32 %f2, %f1, %f1, %f1; mov.u32 %r1, 0; fma.rn.f16x2 %r2, %r1, %r1, %r1; mul.f32 %f3, %f1, %f1;",
    );
    let c = counted(&case);
    assert_eq!(c.fma, 32 + 32 + 5 + 64);
    assert_eq!((pair(&c, Class::Fma32), pair(&c, Class::Float32)), ((2, 37), (1, 32)));
    let case = Case::kernel(
        "mov.u32 %r1, 0; mov.f32 %f1, 0f00000000;
        mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f2, %f3, %f4, %f5}, {%r1, %r1, %r1, %r1}, {%r1, %r1}, {%f1, %f1, %f1, %f1};
        mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f2, %f3, %f4, %f5}, {%r1, %r1, %r1, %r1}, {%r1, %r1}, {%f1, %f1, %f1, %f1};",
    );
    let c = counted(&case.threads(64).blocks(3));
    assert_eq!((c.tensor_macs, c.fma), (6 * (16 * 8 * 16 + 16 * 8 * 8), 0));
    assert_eq!(pair(&c, Class::Tensor), (12, 384));
}

/// Everything that a launch leaves, as text and bytes.
fn left(make: &dyn Fn() -> Case, threads: usize) -> (String, Vec<u8>, String, Vec<u8>) {
    let case = make();
    let outcome = case.launch(threads);
    let mut bytes = vec![0; OUT];
    case.memory.read(case.out, &mut bytes).expect("in bounds");
    // addresses are the same in every device
    let finding = outcome.finding.map_or(String::new(), |f| f.to_string());
    (outcome.counters.json().to_string(), bytes, finding, outcome.printed)
}

#[test]
fn nothing_depends_on_the_number_of_threads() {
    let cases: [&dyn Fn() -> Case; 6] = [
        // blocks of their own
        &|| {
            Case::kernel("mov.u32 %r1, %ctaid.x; mad.lo.u32 %r2, %r1, 32, %r0; mul.wide.u32 %rd2, %r2, 4; add.u64 %rd2, %rd0, %rd2; mul.lo.u32 %r3, %r2, %r2; st.global.u32 [%rd2], %r3;").blocks(32)
        },
        // sums of floats
        &|| {
            Case::kernel("mov.u32 %r1, %ctaid.x; mad.lo.u32 %r2, %r1, 32, %r0; cvt.rn.f32.u32 %f1, %r2; mul.f32 %f1, %f1, 0f3DCCCCCD; red.global.add.f32 [%rd0], %f1;").blocks(29).input(0, &[0u32])
        },
        // tickets
        &|| {
            Case::kernel("mov.u32 %r1, %ctaid.x; atom.global.add.u32 %r2, [%rd0], 1; mul.wide.u32 %rd2, %r2, 4; add.u64 %rd2, %rd0, %rd2; mad.lo.u32 %r3, %r1, 1000, %r0; st.global.u32 [%rd2+4], %r3;").blocks(20).input(0, &[0u32])
        },
        // sums of integers whose order shows nowhere
        &|| {
            Case::kernel("mov.u32 %r1, %ctaid.x; red.global.add.u32 [%rd1], %r1; red.global.max.s32 [%rd1+128], %r1;")
                .blocks(50)
                .input(0, &[0u32; 64])
        },
        // a finding in the middle: the lowest block's
        &|| {
            Case::kernel("mov.u32 %r1, %ctaid.x; setp.ge.u32 %p1, %r1, 11; setp.eq.u32 %p2, %r0, 7; @!%p1 bra END; @%p2 trap; END:").blocks(40)
        },
        // shared memory and barriers
        &|| {
            Case::kernel(".shared .align 4 .b8 s[256]; mov.u32 %r1, %ctaid.x; mul.wide.u32 %rd2, %r0, 4; mov.u64 %rd3, s; add.u64 %rd4, %rd3, %rd2; add.u32 %r2, %r0, %r1; st.shared.u32 [%rd4], %r2; bar.sync 0; ld.shared.u32 %r3, [s+252]; mul.wide.u32 %rd5, %r1, 4; add.u64 %rd5, %rd0, %rd5; setp.eq.u32 %p1, %r0, 0; @%p1 st.global.u32 [%rd5], %r3;").threads(64).blocks(100)
        },
    ];
    for (i, case) in cases.iter().enumerate() {
        let one = left(case, 1);
        assert_eq!(one.2.is_empty(), i != 4, "{}", one.2);
        for threads in [2, 5] {
            let more = left(case, threads);
            assert_eq!((&one.1, &one.2, &one.3), (&more.1, &more.2, &more.3), "case {i} with {threads} threads");
            if i != 4 {
                assert_eq!(one.0, more.0, "case {i} with {threads} threads");
            }
        }
    }
}
