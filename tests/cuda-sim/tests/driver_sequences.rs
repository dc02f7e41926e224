//! Long sequences of calls on things that exist, existed or never did, from several host threads at once: each returns an
//! error code, and the process goes on.
//!
//! `PROPTEST_CASES=5000 cargo test -p cuda-sim --test driver_sequences` runs more of them.

#[path = "common/cases.rs"]
mod cases;

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Mutex;

use cuda::driver::context::*;
use cuda::driver::device::*;
use cuda::driver::error::*;
use cuda::driver::event::*;
use cuda::driver::function::*;
use cuda::driver::graph::*;
use cuda::driver::launch::*;
use cuda::driver::memory::*;
use cuda::driver::module::*;
use cuda::driver::stream::*;
use cuda::driver::types::*;
use proptest::prelude::*;

const KERNEL: &str = ".version 8.0\n.target sm_80\n.address_size 64\n.global .u32 v[4];\n.func f() { ret; }
.visible .entry k(.param .u64 p, .param .u32 n) {
    .reg .b64 %rd<4>; .reg .b32 %r<4>; .reg .pred %p<2>;
    ld.param.u64 %rd1, [p]; ld.param.u32 %r1, [n]; mov.u32 %r2, %tid.x;
    setp.ge.u32 %p1, %r2, %r1; @%p1 ret;
    mul.wide.u32 %rd2, %r2, 4; add.u64 %rd3, %rd1, %rd2; st.global.u32 [%rd3], %r2; ret;
}
\0";

/// What calls have made, dead or alive; all threads take from it.
#[derive(Default)]
struct Made {
    handles: Vec<usize>,
    addresses: Vec<u64>,
}

/// One call as numbers: which, and what its arguments are picked with.
type Call = (u8, [u16; 4], u32);

fn known(code: CUresult, call: Call) {
    assert_ne!(code, UNKNOWN, "a panic was caught in {call:?}");
}

/// # Safety
/// Pointers to host memory are valid; the rest may be anything.
unsafe fn make(call: Call, made: &Mutex<Made>) {
    let (which, picks, u) = call;
    let pick = |n: usize| {
        let made = made.lock().expect("no panic");
        // One in eight is a number that was never a handle.
        if picks[n].is_multiple_of(8) || made.handles.is_empty() {
            return picks[n] as usize / 8;
        }
        // The newest are the likeliest to live.
        let back = (picks[n] as usize / 8) % made.handles.len().min(24);
        made.handles[made.handles.len() - 1 - back]
    };
    let address = |n: usize| {
        let made = made.lock().expect("no panic");
        if picks[n].is_multiple_of(8) || made.addresses.is_empty() {
            return [0, 1 << 52, u64::MAX, 1 << 32][picks[n] as usize / 8 % 4];
        }
        let back = (picks[n] as usize / 8) % made.addresses.len().min(12);
        made.addresses[made.addresses.len() - 1 - back] + if picks[n].is_multiple_of(3) { u as u64 % 600 } else { 0 }
    };
    let size = if u.is_multiple_of(7) { usize::MAX >> (u % 64) } else { u as usize % 700 };
    let (a, b) = (address(2), address(3));
    let (h, g, k) = (pick(0), pick(1), pick(2));
    let mut new = 0usize;
    let mut place = 0u64;
    let mut words = [0u64; 16];
    let out: *mut c_void = words.as_mut_ptr().cast();
    let mut argument = [a, u as u64 % 40];
    let [first, second] = &mut argument;
    let mut params: [*mut c_void; 2] = [(&raw mut *first).cast(), (&raw mut *second).cast()];
    let node = CUDA_MEMSET_NODE_PARAMS { dst: a, pitch: 0, value: u, elementSize: 1, width: size, height: 1 };
    let code = unsafe {
        match which % 64 {
            0 => cuCtxCreate_v2(&mut new, 0, (u % 3) as i32),
            1 if u.is_multiple_of(8) => cuCtxDestroy_v2(h),
            1 => cuCtxSetCurrent(h),
            2 => cuCtxPushCurrent_v2(h),
            3 => cuCtxPopCurrent_v2(&mut new),
            4 => cuCtxSynchronize(),
            5 => cuDevicePrimaryCtxRetain(&mut new, (u % 3) as i32),
            6 => cuDevicePrimaryCtxRelease_v2((u % 3) as i32),
            7 if u.is_multiple_of(6) => cuDevicePrimaryCtxReset_v2((u % 3) as i32),
            7 | 8 => cuStreamCreate(&mut new, u % 2),
            9 => cuStreamDestroy_v2(h),
            10 => cuStreamSynchronize(h),
            11 => cuStreamQuery(h),
            12 => cuStreamWaitEvent(h, g, 0),
            13 | 14 => cuStreamBeginCapture_v2(h, u % 4),
            15 | 16 => cuStreamEndCapture(h, &mut new),
            17 => cuStreamIsCapturing(h, out.cast()),
            18 | 19 => cuEventCreate(&mut new, u % 4),
            20 => cuEventDestroy_v2(h),
            21 | 22 => cuEventRecord(h, g),
            23 => cuEventSynchronize(h),
            24 => cuEventElapsedTime(out.cast(), h, g),
            25 | 26 => cuMemAlloc_v2(&mut place, size),
            27 => cuMemAllocAsync(&mut place, size, h),
            28 => cuMemFree_v2(a),
            29 => cuMemFreeAsync(a, h),
            30 => cuMemcpyDtoD_v2(a, b, size),
            31 => cuMemcpyDtoDAsync_v2(a, b, size, h),
            32 => cuMemsetD8_v2(a, 7, size),
            33 => cuMemsetD32Async(a, 7, size / 4, h),
            34 | 35 => cuModuleLoadData(&mut new, KERNEL.as_ptr().cast()),
            36 => cuModuleUnload(h),
            37..=39 => cuModuleGetFunction(&mut new, h, c"k".as_ptr()),
            40 => cuModuleGetGlobal_v2(&mut place, &raw mut new, h, c"v".as_ptr()),
            41..=45 => cuLaunchKernel(h, 1 + u % 3, 1, 1, 1 + u % 70, 1, 1, 0, g, params.as_mut_ptr(), null_mut()),
            46 => cuGraphCreate(&mut new, 0),
            47 => cuGraphDestroy(h),
            48 => cuGraphInstantiateWithFlags(&mut new, h, 0),
            49 => cuGraphExecDestroy(h),
            50 | 51 => cuGraphLaunch(h, g),
            52 => cuGraphAddEmptyNode(&mut new, h, &g, 1),
            53 => cuGraphAddMemsetNode(&mut new, h, &g, (u % 2) as usize, &node, k),
            54 => cuGraphAddChildGraphNode(&mut new, h, null_mut(), 0, g),
            55 => cuGraphAddDependencies(h, &g, &k, 1),
            56 => cuGraphDestroyNode(h),
            57 => cuGraphExecUpdate(h, g, &mut new, out.cast()),
            58 => cuGraphClone(&mut new, h),
            59 => cuMemPoolDestroy(h),
            60 => cuFuncGetAttribute(out.cast(), u % 12, h),
            61 => cuCtxEnablePeerAccess(h, 0),
            62 => cuStreamGetCtx(h, &mut new),
            _ => cuMemGetAddressRange_v2(&mut place, &raw mut new, a),
        }
    };
    known(code, call);
    let mut made = made.lock().expect("no panic");
    if code == SUCCESS && new != 0 {
        made.handles.push(new);
    }
    if code == SUCCESS && place != 0 {
        made.addresses.push(place);
    }
}

/// Thousands of reports are of no use to anybody, and nothing here runs long.
fn settings() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: the only test of this process, before it has made any other thread.
    ONCE.call_once(|| unsafe {
        std::env::set_var("CUDA_SIM_REPORT", "/dev/null");
        std::env::set_var("CUDA_SIM_DEVICES", "2");
        std::env::set_var("CUDA_SIM_MEMORY", "64M");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases::cases(60)) })]

    #[test]
    fn nothing_crashes(threads in prop::collection::vec(prop::collection::vec(any::<Call>(), 1..250), 1..4)) {
        settings();
        let made = Mutex::new(Made::default());
        std::thread::scope(|scope| {
            for calls in &threads {
                scope.spawn(|| unsafe {
                    let (mut context, mut stream) = (0, 0);
                    assert_eq!(cuInit(0), SUCCESS);
                    assert_eq!(cuCtxCreate_v2(&mut context, 0, 0), SUCCESS);
                    assert_eq!(cuStreamCreate(&mut stream, 1), SUCCESS);
                    made.lock().expect("no panic").handles.extend([context, stream]);
                    calls.iter().for_each(|&call| make(call, &made));
                });
            }
        });
        // Whatever is left goes, dependants before or after what they depend on.
        unsafe {
            for &h in &made.into_inner().expect("no panic").handles {
                for code in [cuGraphDestroy(h), cuGraphExecDestroy(h), cuEventDestroy_v2(h), cuCtxDestroy_v2(h)] {
                    prop_assert_ne!(code, UNKNOWN);
                }
            }
            for device in 0..2 {
                prop_assert_ne!(cuDevicePrimaryCtxReset_v2(device), UNKNOWN);
            }
        }
    }
}
