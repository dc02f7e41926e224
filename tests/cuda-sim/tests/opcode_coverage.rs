//! Everything that compilers emit for the committed kernels loads, and every opcode of the PTX ISA up to sm_90 is either
//! known or refused by name.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cuda::memory::Memory;
use cuda::program::{LoadError, Program};
use cuda::ptx::ast::Statement;

/// As many as the newest architecture that a kernel is compiled for wants.
const DEVICE: u32 = 90;

/// The forms of a module, which must load.
fn forms(what: &str, text: &str, found: &mut BTreeSet<String>) {
    let module = cuda::ptx::parse(text).unwrap_or_else(|e| panic!("{what}: {e}"));
    if let Err(error) = Program::load(&module, DEVICE, 0, &Memory::new(true)) {
        panic!("{what}: {error}");
    }
    for statement in module.functions.iter().filter_map(|f| f.body.as_ref()).flat_map(|b| &b.statements) {
        if let Statement::Instruction(i) = statement {
            found.insert(i.form());
        }
    }
}

/// The files of a directory under `tests` that end so.
fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(directory);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == extension));
    files.sort();
    assert!(!files.is_empty(), "{} has no .{extension}", directory.display());
    files
}

/// Kernels with instructions that sm_75 does not have.
const NEWER: [&str; 3] = ["atomics.cu", "reduce.cu", "tensor.cu"];

fn coverage(architecture: u32) {
    let mut found = BTreeSet::new();
    for file in files("kernels", "cu") {
        let name = file.file_name().and_then(|n| n.to_str()).expect("a name");
        if architecture < 80 && NEWER.contains(&name) {
            continue;
        }
        let architecture = format!("--gpu-architecture=compute_{architecture}");
        for fast in [None, Some("--use_fast_math")] {
            let mut options = vec![architecture.as_str(), "--device-int128"];
            options.extend(fast);
            let text = common::compile_with(name, &options);
            forms(&format!("{name} {options:?}"), &text, &mut found);
        }
    }
    println!("compute_{architecture}: {} forms", found.len());
    assert!(found.len() > 100, "{}", found.len());
}

#[test]
fn nvrtc_for_compute_75() {
    coverage(75);
}

#[test]
fn nvrtc_for_compute_80() {
    coverage(80);
}

#[test]
fn nvrtc_for_compute_86() {
    coverage(86);
}

#[test]
fn nvrtc_for_compute_89() {
    coverage(89);
}

#[test]
fn nvrtc_for_compute_90() {
    coverage(90);
}

#[test]
fn triton() {
    let mut found = BTreeSet::new();
    for file in files("triton", "ptx") {
        let text = std::fs::read_to_string(&file).expect("PTX");
        forms(&file.display().to_string(), &text, &mut found);
    }
    println!("Triton: {} forms", found.len());
    assert!(found.len() > 60, "{}", found.len());
}

/// An instruction of each opcode of the ISA that runs.
const RUNS: &str = "
abs.s32 %r1, %r2; activemask.b32 %r1; add.u32 %r1, %r2, %r3; add.cc.u32 %r1, %r2, %r3; addc.u32 %r1, %r2, %r3;
and.b32 %r1, %r2, %r3; applypriority.global.L2::evict_normal [%rd1], 128; atom.global.add.u32 %r1, [%rd1], %r2;
bar.sync 0; bar.warp.sync -1; barrier.sync 0; bfe.u32 %r1, %r2, %r3, %r4; bfi.b32 %r1, %r2, %r3, %r4, %r5;
bfind.u32 %r1, %r2; bmsk.clamp.b32 %r1, %r2, %r3; bra L; brev.b32 %r1, %r2; brkpt; brx.idx %r1, T; call f;
clz.b32 %r1, %r2; cnot.b32 %r1, %r2; copysign.f32 %f1, %f2, %f3; cos.approx.f32 %f1, %f2;
cp.async.ca.shared.global [%r1], [%rd1], 4; cp.async.commit_group; cp.async.wait_group 0; cp.async.wait_all;
createpolicy.fractional.L2::evict_last.b64 %rd1, 0f3F800000; cvt.rn.f32.s32 %f1, %r1; cvta.global.u64 %rd1, %rd2;
div.s32 %r1, %r2, %r3; dp2a.lo.u32.u32 %r1, %r2, %r3, %r4; dp4a.u32.u32 %r1, %r2, %r3, %r4;
elect.sync %r1|%p1, -1; ex2.approx.f32 %f1, %f2; exit; fence.acq_rel.gpu; fma.rn.f32 %f1, %f2, %f3, %f4;
fns.b32 %r1, %r2, %r3, %r4; griddepcontrol.wait; isspacep.global %p1, %rd1; ld.global.u32 %r1, [%rd1];
ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r2]; ldu.global.u32 %r1, [%rd1]; lg2.approx.f32 %f1, %f2;
lop3.b32 %r1, %r2, %r3, %r4, 0x96; mad.lo.u32 %r1, %r2, %r3, %r4; mad24.lo.u32 %r1, %r2, %r3, %r4;
mad.lo.cc.u32 %r1, %r2, %r3, %r4; madc.hi.u32 %r1, %r2, %r3, %r4; match.any.sync.b32 %r1, %r2, -1;
max.u32 %r1, %r2, %r3; membar.gl; min.u32 %r1, %r2, %r3; mov.b32 %r1, %r2; movmatrix.sync.aligned.m8n8.trans.b16 %r1, %r2;
mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r1, %r2}, {%r3}, {%f1, %f2, %f3, %f4};
mul.lo.u32 %r1, %r2, %r3; mul24.lo.u32 %r1, %r2, %r3; nanosleep.u32 5; neg.s32 %r1, %r2; not.b32 %r1, %r2;
or.b32 %r1, %r2, %r3; pmevent 1; popc.b32 %r1, %r2; prefetch.global.L2 [%rd1]; prefetchu.L1 [%rd1];
prmt.b32 %r1, %r2, %r3, 0x3210; rcp.rn.f32 %f1, %f2; red.global.add.u32 [%rd1], %r1; redux.sync.add.u32 %r1, %r2, -1;
rem.u32 %r1, %r2, %r3; ret; rsqrt.approx.f32 %f1, %f2; sad.u32 %r1, %r2, %r3, %r4; selp.b32 %r1, %r2, %r3, %p1;
set.lt.u32.s32 %r1, %r2, %r3; setp.lt.u32 %p1, %r1, %r2; shf.l.wrap.b32 %r1, %r2, %r3, %r4;
shfl.sync.idx.b32 %r1, %r2, 0, 31, -1; shl.b32 %r1, %r2, %r3; shr.u32 %r1, %r2, %r3; sin.approx.f32 %f1, %f2;
slct.u32.s32 %r1, %r2, %r3, %r4; sqrt.rn.f32 %f1, %f2; st.global.u32 [%rd1], %r1;
stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r1], {%r2}; sub.u32 %r1, %r2, %r3; sub.cc.u32 %r1, %r2, %r3;
subc.u32 %r1, %r2, %r3; szext.wrap.s32 %r1, %r2, %r3; tanh.approx.f32 %f1, %f2; testp.finite.f32 %p1, %f1; trap;
vabsdiff.u32.u32.u32 %r1, %r2, %r3; vabsdiff2.u32.u32.u32 %r1, %r2, %r3, %r4; vabsdiff4.u32.u32.u32 %r1, %r2, %r3, %r4;
vadd.u32.u32.u32 %r1, %r2, %r3; vadd2.u32.u32.u32 %r1, %r2, %r3, %r4; vadd4.u32.u32.u32 %r1, %r2, %r3, %r4;
vavrg2.u32.u32.u32 %r1, %r2, %r3, %r4; vavrg4.u32.u32.u32 %r1, %r2, %r3, %r4; vmad.u32.u32.u32 %r1, %r2, %r3, -%r4;
vmax.u32.u32.u32 %r1, %r2, %r3; vmax2.u32.u32.u32 %r1, %r2, %r3, %r4; vmax4.u32.u32.u32 %r1, %r2, %r3, %r4;
vmin.u32.u32.u32 %r1, %r2, %r3; vmin2.u32.u32.u32 %r1, %r2, %r3, %r4; vmin4.u32.u32.u32 %r1, %r2, %r3, %r4;
vote.sync.all.pred %p1, %p2, -1; vset.u32.u32.lt %r1, %r2, %r3; vset2.u32.u32.lt %r1, %r2, %r3, %r4;
vset4.u32.u32.lt %r1, %r2, %r3, %r4; vshl.u32.u32.u32.wrap %r1, %r2, %r3; vshr.u32.u32.u32.wrap %r1, %r2, %r3;
vsub.u32.u32.u32 %r1, %r2, %r3; vsub2.u32.u32.u32 %r1, %r2, %r3, %r4; vsub4.u32.u32.u32 %r1, %r2, %r3, %r4;
wmma.load.a.sync.aligned.row.m16n16k16.f16 {%r1, %r2, %r3, %r4, %r5, %r6, %r7, %r8}, [%rd1];
xor.b32 %r1, %r2, %r3";

/// One of each that does not: textures and surfaces, clusters, bulk copies, warp groups, multicast, stacks.
const REFUSED: &str = "
alloca.u64 %rd1, 8, 8; barrier.cluster.arrive; cp.async.bulk.commit_group; cp.async.mbarrier.arrive.shared.b64 [%r1];
discard.global.L2 [%rd1], 128; fence.proxy.async; getctarank.shared::cluster.u32 %r1, %r2; istypep.texref %p1, %rd1;
mapa.shared::cluster.u32 %r1, %r2, %r3; mbarrier.init.shared.b64 [%r1], 5;
mbarrier.arrive.shared.b64 %rd1, [%r1]; mbarrier.test_wait.shared.b64 %p1, [%r1], %rd1; mbarrier.inval.shared.b64 [%r1];
multimem.red.relaxed.sys.global.add.u32 [%rd1], %r1; red.async.relaxed.cluster.global.add.u32 [%rd1], %r1;
setmaxnreg.inc.sync.aligned.u32 64; st.async.weak.b32 [%r1], %r2, [%r3]; stackrestore.u64 %rd1; stacksave.u64 %rd1;
suld.b.1d.b32.trap %r1, [%rd1, {%r2}]; suq.width.b32 %r1, [%rd1]; sured.b.add.1d.u32.trap [%rd1, {%r2}], %r1;
sust.b.1d.b32.trap [%rd1, {%r2}], %r1; tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [%rd1], [%rd2], 128;
tex.1d.v4.s32.s32 {%r1, %r2, %r3, %r4}, [%rd1, {%r5}]; tld4.r.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f5, %f6}];
txq.width.b32 %r1, [%rd1]; wgmma.fence.sync.aligned; wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0";

fn load(instruction: &str) -> Result<(), LoadError> {
    let text = format!(
        ".version 8.6\n.target sm_90\n.address_size 64\n.func f() {{ ret; }}
        .visible .entry k() {{ .reg .pred %p<8>; .reg .b32 %r<9>; .reg .f32 %f<9>; .reg .b64 %rd<9>;
        T: .branchtargets L;
        {instruction};
        L: ret; }}"
    );
    let module = cuda::ptx::parse(&text).unwrap_or_else(|e| panic!("{instruction}: {e}"));
    Program::load(&module, DEVICE, 0, &Memory::new(true)).map(drop)
}

#[test]
fn every_opcode_runs_or_is_refused_by_name() {
    let all = |list: &'static str| list.split(';').map(|i| i.split_whitespace().collect::<Vec<_>>().join(" "));
    for instruction in all(RUNS) {
        assert_eq!(load(&instruction), Ok(()), "{instruction}");
    }
    for instruction in all(REFUSED) {
        let form = instruction.split(' ').next().expect("an opcode");
        match load(&instruction) {
            Err(LoadError::Unsupported { line: 7, what }) => assert!(what.starts_with(form), "{instruction}: {what}"),
            other => panic!("{instruction}: {other:?}"),
        }
    }
}
