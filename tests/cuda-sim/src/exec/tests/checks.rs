//! What each check reports, and where.

use super::*;

/// The kind, and the instructions of both places.
fn report(case: Case) -> (Kind, String, Option<String>) {
    let finding = case.fails();
    let place = finding.place.expect("a place");
    assert!(place.ptx_line > 0 && place.function == "k", "{place:?}");
    (finding.kind, place.instruction, finding.other.map(|o| o.instruction))
}

fn alone(kind: Kind, instruction: &str) -> (Kind, String, Option<String>) {
    (kind, instruction.into(), None)
}

fn both(kind: Kind, instruction: &str, other: &str) -> (Kind, String, Option<String>) {
    (kind, instruction.into(), Some(other.into()))
}

const MEMORIES: &str = ".shared .align 16 .b8 s[64]; .local .align 16 .b8 l[64];
    mov.u64 %rd5, s; cvta.shared.u64 %rd6, %rd5; mov.u64 %rd7, l; cvta.local.u64 %rd8, %rd7; mov.u32 %r1, 1;";

#[test]
fn out_of_bounds_in_every_space() {
    let accesses = [
        "st.global.u32 [%rd0+4096], %r1",
        "st.global.u64 [%rd0+4092], %rd0",
        "ld.global.u32 %r1, [%rd0+-4]",
        "ld.global.u8 %r1, [64]",
        "st.u32 [%rd0+4096], %r1",
        "atom.global.add.u32 %r1, [%rd0+4096], 1",
        "red.global.add.u32 [%rd0+4100], 1",
        "st.shared.u32 [s+64], %r1",
        "ld.shared.u32 %r1, [%rd5+-4]",
        "st.u32 [%rd6+64], %r1",
        "atom.shared.add.u32 %r1, [%rd5+64], 1",
        "st.shared.v4.u32 [%rd5+64], {%r1, %r1, %r1, %r1}",
        "st.local.u32 [%rd7+1048576], %r1",
        "ld.u32 %r1, [%rd8+1048576]",
        "cp.async.ca.shared.global [%rd5+64], [%rd0], 4",
        "cp.async.ca.shared.global [%rd5], [%rd0+4096], 4",
    ];
    for access in accesses {
        for strict in [true, false] {
            let mut case = Case::kernel(&format!("{MEMORIES} {access};")).threads(1).input(0, &[0u32]);
            case.strict = strict;
            let form = access.split(' ').next().expect("an opcode");
            assert_eq!(report(case), alone(Kind::OutOfBounds, form), "{access}");
        }
    }
}

#[test]
fn the_lane_that_is_out_of_bounds_is_told() {
    let finding = Case::kernel("mul.wide.u32 %rd2, %r0, 100; add.u64 %rd2, %rd0, %rd2; st.global.u32 [%rd2], %r0;");
    let finding = finding.threads(64).blocks(2).fails();
    // 41 * 100 is behind the end; what is told is the lowest lane of it
    let place = finding.place.expect("a place");
    assert_eq!((finding.kind, place.block, place.thread, place.lane), (Kind::OutOfBounds, [0, 0, 0], [41, 0, 0], 9));
    assert_eq!(finding.kernel, "k");
}

#[test]
fn misaligned_in_every_space() {
    let accesses = [
        "st.global.u32 [%rd0+2], %r1",
        "st.global.u16 [%rd0+1], %r1",
        "ld.global.v2.u32 {%r1, %r2}, [%rd0+4]",
        "ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd0+8]",
        "ld.global.b128 %rq1, [%rd0+8]",
        "st.shared.u64 [%rd5+4], %rd0",
        "ld.u32 %r1, [%rd6+1]",
        "st.local.u32 [%rd7+3], %r1",
        "atom.global.add.u64 %rd2, [%rd0+4], 1",
        "atom.shared.add.u32 %r1, [%rd5+2], 1",
        "cp.async.ca.shared.global [%rd5+4], [%rd0], 8",
        "cp.async.ca.shared.global [%rd5], [%rd0+8], 16",
    ];
    for access in accesses {
        let case = Case::kernel(&format!("{MEMORIES} {access};")).threads(1).input(0, &[0u64; 4]);
        let form = access.split(' ').next().expect("an opcode");
        assert_eq!(report(case), alone(Kind::Misaligned, form), "{access}");
    }
}

#[test]
fn freed_and_read_only_memory() {
    let case = Case::kernel("ld.global.u32 %r1, [%rd0];");
    case.memory.free(case.out).expect("an allocation");
    assert_eq!(report(case), alone(Kind::UseAfterFree, "ld.global.u32"));
    let case =
        Case::kernel_with(".const .b32 c = 5;", "mov.u64 %rd2, c; cvta.const.u64 %rd2, %rd2; st.u32 [%rd2], %r0;");
    assert_eq!(report(case), alone(Kind::ReadOnly, "st.u32"));
    let case = Case::kernel("mov.b64 %rd2, out; cvta.param.u64 %rd2, %rd2; st.u32 [%rd2], %r0;");
    assert_eq!(report(case), alone(Kind::ReadOnly, "st.u32"));
}

#[test]
fn uninitialised_memory() {
    for access in [
        "ld.global.u32 %r1, [%rd0+64]",
        "ld.u32 %r1, [%rd0+64]",
        "atom.global.add.u32 %r1, [%rd0+64], 1",
        "ld.shared.u32 %r1, [s]",
        "ld.u32 %r1, [%rd6]",
        "atom.shared.add.u32 %r1, [%rd5], 1",
    ] {
        let case = Case::kernel(&format!("{MEMORIES} {access};")).threads(1);
        let form = access.split(' ').next().expect("an opcode");
        assert_eq!(report(case), alone(Kind::Uninitialised, form), "{access}");
    }
    // three of four bytes; and one more than was written
    for (bytes, fails) in [(3, true), (4, false)] {
        for (space, base) in [("global", "%rd0"), ("shared", "s")] {
            let stores: String = (0..bytes).map(|i| format!("st.{space}.u8 [{base}+{i}], %r1;")).collect();
            let case = Case::kernel(&format!("{MEMORIES} {stores} ld.{space}.u32 %r2, [{base}];")).threads(1);
            assert_eq!(
                case.launch(1).finding.map(|f| f.kind),
                fails.then_some(Kind::Uninitialised),
                "{bytes} in {space}"
            );
        }
    }
    // a lane that does not execute reads nothing
    let case = Case::kernel("setp.ge.u32 %p1, %r0, 2; @!%p1 ld.global.u32 %r1, [%rd1];").input(0, &[1u32, 2]);
    assert!(case.launch(1).finding.is_none());
    let mut case = Case::kernel("ld.global.u32 %r1, [%rd1];");
    case.strict = false;
    assert!(case.launch(1).finding.is_none(), "not a strict launch");
}

/// Thread 0 of warp 0 does `a`, thread 0 of warp 1 does `b`, on a word that both have; `between` is in between.
fn pair(a: &str, between: &str, b: &str) -> Case {
    Case::kernel(&format!(
        ".shared .align 4 .b8 s[4]; mov.u32 %r1, %r0; setp.eq.u32 %p1, %r0, 0; setp.eq.u32 %p2, %r0, 32;
        setp.eq.u32 %p3, %r0, 5; @%p3 st.shared.u32 [s], 3; @%p3 st.global.u32 [%rd0], 3; bar.sync 0;
        @%p1 {a}; {between} @%p2 {b};"
    ))
    .threads(64)
}

#[test]
fn races_between_warps() {
    let (load, store, atomic, volatile) = (0, 1, 2, 3);
    for (space, base) in [("global", "%rd0"), ("shared", "s")] {
        let text = [
            format!("ld.{space}.u32 %r2, [{base}]"),
            format!("st.{space}.u32 [{base}], %r1"),
            format!("atom.{space}.add.u32 %r2, [{base}], 1"),
            format!("st.volatile.{space}.u32 [{base}], %r1"),
        ];
        let cases = [
            (load, load, false),
            (load, store, true),
            (store, load, true),
            (store, store, true),
            (store, atomic, true),
            (atomic, load, true),
            (atomic, atomic, false),
            (volatile, store, true),
            (volatile, volatile, false),
            (atomic, volatile, false),
        ];
        for (a, b, races) in cases {
            let (a, b): (&str, &str) = (&text[a], &text[b]);
            let form = |s: &str| s.split(' ').next().unwrap_or_default().to_string();
            let case = pair(a, "", b);
            if races {
                let found = case.fails();
                let at = |p: Option<Box<crate::finding::Place>>| p.map(|p| (p.instruction, p.thread));
                assert_eq!(found.kind, Kind::Race, "{a} and {b}");
                assert_eq!(at(found.place), Some((form(b), [32, 0, 0])), "{a} and {b}");
                assert_eq!(at(found.other), Some((form(a), [0, 0, 0])), "{a} and {b}");
            } else {
                assert_eq!(case.launch(1).finding, None, "{a} and {b}");
            }
            assert_eq!(pair(a, "bar.sync 0;", b).launch(1).finding, None, "{a}, a barrier, {b}");
        }
    }
}

#[test]
fn races_between_lanes_and_blocks() {
    // lanes of a warp: neighbours, without a barrier of the warp
    let lanes = |barrier: &str| {
        Case::kernel(&format!(
            ".shared .align 4 .b8 s[128]; mul.wide.u32 %rd2, %r0, 4; mov.u64 %rd3, s; add.u64 %rd4, %rd3, %rd2; st.shared.u32 [%rd4], %r0; {barrier}
            xor.b32 %r1, %r0, 1; mul.wide.u32 %rd5, %r1, 4; add.u64 %rd5, %rd3, %rd5; ld.shared.u32 %r2, [%rd5]; st.global.u32 [%rd1], %r2;"
        ))
    };
    assert_eq!(report(lanes("")), both(Kind::Race, "ld.shared.u32", "st.shared.u32"));
    assert_eq!(lanes("bar.warp.sync -1;").words(32), each(32, |t| t ^ 1));
    assert_eq!(lanes("bar.sync 0;").words(32), each(32, |t| t ^ 1));
    assert_eq!(report(lanes("bar.warp.sync 0xffffffff; st.shared.u32 [%rd4], 7;")).0, Kind::Race);
    // blocks: one value each, then what the others wrote
    let case =
        Case::kernel("mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r0, 0; @%p1 st.global.u32 [%rd0], %r1;").blocks(2);
    assert_eq!(report(case), both(Kind::Race, "st.global.u32", "st.global.u32"));
    let case = Case::kernel(
        "mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 0; @%p1 st.global.u32 [%rd1], %r0; @!%p1 ld.global.u32 %r2, [%rd1];",
    );
    assert_eq!(case.blocks(2).launch(1).finding.map(|f| f.kind), Some(Kind::Race));
}

#[test]
fn lanes_that_do_not_come_together() {
    let cases = [
        // a lane that its member mask lacks
        ("shfl.sync.idx.b32 %r1, %r0, 0, 31, 0x7fffffff", "shfl.sync.idx.b32"),
        ("vote.sync.any.pred %p2, %p1, 1", "vote.sync.any.pred"),
        ("bar.warp.sync 0xfffffffe", "bar.warp.sync"),
        // a source that takes no part
        ("setp.lt.u32 %p2, %r0, 16; @%p2 shfl.sync.down.b32 %r1, %r0, 1, 31, 0xffff", "shfl.sync.down.b32"),
        // members that never come
        ("setp.lt.u32 %p2, %r0, 16; @%p2 bar.warp.sync -1; @!%p2 bra.uni END; END: bar.sync 0", "bar.warp.sync"),
        (
            "setp.lt.u32 %p2, %r0, 16; @!%p2 bra WAIT; vote.sync.all.pred %p3, %p1, -1; WAIT: bar.sync 0",
            "vote.sync.all.pred",
        ),
    ];
    for (body, form) in cases {
        let case = Case::kernel(&format!("setp.eq.u32 %p1, %r0, 0; {body};"));
        let (kind, instruction, _) = report(case);
        assert_eq!((kind, instruction.as_str()), (Kind::Divergence, form), "{body}");
    }
    // an aligned barrier at two places of one warp
    let case = Case::kernel(
        "and.b32 %r1, %r0, 1; setp.eq.u32 %p1, %r1, 1; @%p1 bra ODD; bar.sync 0; bra END; ODD: bar.sync 0; END:",
    );
    assert_eq!(report(case), both(Kind::Divergence, "bar.sync", "bar.sync"));
}

#[test]
fn barriers_that_do_not_open() {
    // two warps at different barriers
    let case =
        Case::kernel("setp.lt.u32 %p1, %r0, 32; @%p1 bra A; bar.sync 1; bra END; A: bar.sync 2; END:").threads(64);
    assert_eq!(report(case).0, Kind::Deadlock);
    // a count that never comes
    let case = Case::kernel("setp.lt.u32 %p1, %r0, 32; @!%p1 bra END; bar.sync 1, 64; END:").threads(64);
    assert_eq!(report(case), alone(Kind::Barrier, "bar.sync"));
    for wrong in ["bar.sync 1, 33", "bar.sync 16", "bar.sync 1, 96", "bar.sync %r0", "bar.sync 1, 0"] {
        let case = Case::kernel(&format!("{wrong};")).threads(64);
        assert_eq!(report(case), alone(Kind::Barrier, "bar.sync"), "{wrong}");
    }
    // one barrier for different numbers of threads
    let case = Case::kernel("setp.lt.u32 %p1, %r0, 32; @%p1 bra A; bar.sync 1, 64; bra END; A: bar.sync 1, 96; END:")
        .threads(96);
    assert_eq!(report(case).0, Kind::Barrier);
}

#[test]
fn a_finding_inside_of_a_header_names_the_users_line_too() {
    let case = Case::kernel(
        ".loc 1 20 5\nmov.u64 %rd2, 16;\n.loc 2 358 12, function_name $a, inlined_at 1 20 9\nmov.u64 %rd3, 5;\n\
        .loc 3 7 1, function_name $b, inlined_at 2 358 12\nst.global.u32 [%rd2], %r0;\nret; }\n\
        .file 1 \"k.cu\"\n.file 2 \"outer.h\"\n.file 3 \"inner.h\"\n.func rest() {",
    );
    let finding = case.fails();
    let place = finding.place.as_ref().expect("a place");
    let line = |file: &str, line| (file.to_string(), line);
    assert_eq!(place.source, Some(line("inner.h", 7)));
    assert_eq!(place.inlined, [line("outer.h", 358), line("k.cu", 20)]);
    let told = finding.to_string();
    assert!(told.contains(", inner.h:7 (PTX"), "{told}");
    assert!(told.contains("=========     inlined at outer.h:358\n=========     inlined at k.cu:20\n"), "{told}");
}
