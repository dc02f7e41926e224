//! Calls that make no sense: whatever numbers a program passes, it gets an error code and the process goes on.

#[path = "common/cases.rs"]
mod cases;

use std::ffi::c_void;
use std::ptr::null_mut;

use cuda::driver::context::*;
use cuda::driver::device::*;
use cuda::driver::error::*;
use cuda::driver::event::*;
use cuda::driver::function::*;
use cuda::driver::graph::*;
use cuda::driver::launch::*;
use cuda::driver::memory::*;
use cuda::driver::module::*;
use cuda::driver::occupancy::*;
use cuda::driver::stream::*;
use cuda::driver::types::*;
use proptest::prelude::*;

/// Handles: small numbers, the shape of real ones, anything.
fn handle() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..4, (1usize..14, 0usize..40).prop_map(|(sort, n)| sort << 40 | n << 4), any::<usize>()]
}

/// Addresses: none, in the range of devices, anything. A host address would be the caller's promise.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0u64), (0u64..40, 0u64..600).prop_map(|(id, at)| (1 << 52) + (id << 36) + at), (1u64 << 52)..]
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..600, any::<usize>()]
}

fn known(code: CUresult) {
    assert_ne!(code, UNKNOWN, "a panic was caught");
}

/// Thousands of reports are of no use to anybody.
fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: the only test of this process, before it has made any other thread.
    ONCE.call_once(|| unsafe { std::env::set_var("CUDA_SIM_REPORT", "/dev/null") });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases::cases(2000)))]

    #[test]
    fn nothing_crashes(
        which in 0usize..70, h in handle(), g in handle(), k in handle(), a in address(), b in address(), n in size(),
        m in size(), i in any::<i32>(), u in prop_oneof![0u32..20, any::<u32>()], w in any::<[u64; 26]>(),
    ) {
        quiet();
        let mut word = 0usize;
        let word = &raw mut word;
        let mut words = [0u64; 8];
        let out: *mut c_void = words.as_mut_ptr().cast();
        unsafe {
            let mut context = 0;
            prop_assert_eq!(cuInit(0), SUCCESS);
            prop_assert_eq!(cuCtxCreate_v2(&mut context, 0, 0), SUCCESS);
            let (mut own, mut stream, mut graph) = (0, 0, 0);
            prop_assert_eq!(cuMemAlloc_v2(&mut own, 512), SUCCESS);
            prop_assert_eq!(cuStreamCreate(&mut stream, 1), SUCCESS);
            prop_assert_eq!(cuGraphCreate(&mut graph, 0), SUCCESS);
            // Half of the time something that exists.
            let a = if u % 2 == 0 { own + a % 600 } else { a };
            let s = if i % 2 == 0 { stream } else { h };
            let mut two: CUDA_MEMCPY2D = std::mem::transmute::<[u64; 16], _>(w[..16].try_into().unwrap());
            let mut three: CUDA_MEMCPY3D = std::mem::transmute::<[u64; 25], _>(w[..25].try_into().unwrap());
            (two.srcMemoryType, two.dstMemoryType) = (2, 2);
            (three.srcMemoryType, three.dstMemoryType) = (2, 2);
            if u % 3 == 0 {
                (two.srcDevice, two.dstDevice, two.srcXInBytes, two.dstXInBytes, two.srcY, two.dstY) = (own, own, 0, 0, 0, 0);
                (three.srcDevice, three.dstDevice, three.srcLOD, three.dstLOD) = (own, own, 0, 0);
            }
            let fill = CUDA_MEMSET_NODE_PARAMS { dst: a, pitch: m, value: u, elementSize: u % 6, width: n, height: m % 5 };
            let config = CUlaunchConfig {
                gridDimX: u, gridDimY: 1, gridDimZ: u, blockDimX: u, blockDimY: u, blockDimZ: 1, sharedMemBytes: u,
                hStream: s, attrs: null_mut(), numAttrs: u % 2,
            };
            known(match which {
                0 => cuMemFree_v2(a),
                1 => cuMemFreeAsync(a, s),
                2 => cuMemFreeHost(a as *mut c_void),
                3 => cuMemHostUnregister(a as *mut c_void),
                4 => cuMemGetAddressRange_v2(out.cast(), word, a),
                5 => cuPointerGetAttribute(out, u, a),
                6 => cuMemcpyDtoD_v2(a, b, n),
                7 => cuMemcpyDtoDAsync_v2(a, b, n, s),
                8 => cuMemcpyPeer(a, context, b, h, n),
                9 => cuMemcpy2D_v2(&two),
                10 => cuMemcpy2DAsync_v2(&two, s),
                11 => cuMemcpy3D_v2(&three),
                12 => cuMemcpy3DPeerAsync(&three, s),
                13 => cuMemsetD8_v2(a, 1, n),
                14 => cuMemsetD16Async(a, 1, n, s),
                15 => cuMemsetD32_v2(a, 1, n),
                16 => cuMemsetD2D8_v2(a, m, 1, n, m),
                17 => cuMemsetD2D32Async(a, m, 1, n, m, s),
                18 => cuMemAllocAsync(out.cast(), n, h),
                19 => cuMemAllocFromPoolAsync(out.cast(), n % 5000, h, s),
                20 => cuMemPoolGetAttribute(h, u, out),
                21 => cuMemPoolSetAttribute(h, u, out),
                22 => cuMemPoolDestroy(h),
                23 => cuMemAdvise(a, n, u, i),
                24 => cuMemPrefetchAsync(a, n, i, s),
                25 => cuMemRangeGetAttribute(out, n % 64, u, a, m),
                26 => cuStreamSynchronize(h),
                27 => cuStreamDestroy_v2(h),
                28 => cuStreamWaitEvent(s, h, u),
                29 => cuStreamBeginCapture_v2(s, u),
                30 => cuStreamEndCapture(s, word),
                31 => cuStreamIsCapturing(s, out.cast()),
                32 => cuStreamGetPriority(h, out.cast()),
                33 => cuStreamAttachMemAsync(s, a, n, u),
                34 => cuEventRecord(h, g),
                35 => cuEventQuery(h),
                36 => cuEventElapsedTime(out.cast(), h, g),
                37 => cuEventDestroy_v2(h),
                38 => cuEventCreate(word, u),
                39 => cuCtxSetCurrent(h).min(if cuCtxSetCurrent(context) == SUCCESS { u32::MAX } else { UNKNOWN }),
                40 => cuCtxEnablePeerAccess(h, u),
                41 => cuCtxGetLimit(word, u),
                42 => cuCtxSetLimit(u, n),
                43 => cuDeviceGetAttribute(out.cast(), u, i),
                44 => cuDevicePrimaryCtxGetState(i, out.cast(), out.cast()),
                45 => cuDeviceGetP2PAttribute(out.cast(), u, i, i / 2),
                46 => cuModuleUnload(h),
                47 => cuModuleGetFunction(word, h, c"k".as_ptr()),
                48 => cuModuleGetGlobal_v2(out.cast(), word, h, c"k".as_ptr()),
                49 => cuLibraryUnload(h),
                50 => cuLibraryGetKernel(word, h, c"k".as_ptr()),
                51 => cuKernelGetFunction(word, h),
                52 => cuFuncGetAttribute(out.cast(), u, h),
                53 => cuFuncSetAttribute(h, u, i),
                54 => cuKernelSetAttribute(u, i, h, i),
                55 => cuLaunchKernel(h, u, 1, 1, u, 1, 1, u, s, null_mut(), null_mut()),
                56 => cuLaunchKernelEx(&config, h, null_mut(), null_mut()),
                57 => cuOccupancyMaxActiveBlocksPerMultiprocessor(out.cast(), h, i, n),
                58 => cuOccupancyAvailableDynamicSMemPerBlock(word, h, i, i),
                59 => cuGraphDestroy(h),
                60 => cuGraphAddEmptyNode(word, graph, &h, 1),
                61 => cuGraphAddMemsetNode(word, graph, null_mut(), 0, &fill, context),
                62 => cuGraphAddMemcpyNode(word, graph, null_mut(), 0, &three, context),
                63 => cuGraphAddDependencies(graph, &h, &g, 1),
                64 => cuGraphDestroyNode(h),
                65 => cuGraphLaunch(h, s),
                66 => cuGraphExecUpdate(h, graph, word, out.cast()),
                67 => cuGraphAddChildGraphNode(word, graph, null_mut(), 0, k),
                68 => cuGraphNodeSetEnabled(h, g, u),
                _ => cuLinkDestroy(h),
            });
            known(cuGraphDestroy(graph));
            // Some of these calls may have destroyed a context, never by accident another one than their own.
            prop_assert_eq!(cuCtxDestroy_v2(context), SUCCESS);
        }
    }
}
