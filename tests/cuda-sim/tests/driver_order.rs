//! Order between streams through the API: what the rules of CUDA order is silent, what they leave open is a finding.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

use cuda::driver::context::*;
use cuda::driver::device::*;
use cuda::driver::error::{self, LAUNCH_FAILED, SUCCESS};
use cuda::driver::event::*;
use cuda::driver::graph::*;
use cuda::driver::launch::*;
use cuda::driver::memory::*;
use cuda::driver::module::*;
use cuda::driver::stream::*;
use cuda::driver::types::*;

const NON_BLOCKING: u32 = 1;
const BLOCKING: u32 = 0;

fn ok(code: CUresult) {
    assert_eq!(code, SUCCESS, "{}", error::name(code));
}

macro_rules! ok {
    ($($call:expr),* $(,)?) => {{ $( ok(unsafe { $call }); )* }};
}

/// Programs take turns: where one waits for the device, the host has seen the ends of the others' operations, too.
static TURN: Mutex<()> = Mutex::new(());

/// Runs a program in a context of its own. Whether a race was found: then the context has failed.
fn races(program: impl FnOnce(CUcontext)) -> bool {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut context = 0;
    ok!(cuInit(0), cuCtxCreate_v2(&mut context, 0, 0));
    program(context);
    let code = unsafe { cuCtxSynchronize() };
    ok!(cuCtxDestroy_v2(context));
    assert!([SUCCESS, LAUNCH_FAILED].contains(&code), "{}", error::name(code));
    code == LAUNCH_FAILED
}

fn stream(flags: u32) -> CUstream {
    let mut stream = 0;
    ok!(cuStreamCreate(&mut stream, flags));
    stream
}

fn event() -> CUevent {
    let mut event = 0;
    ok!(cuEventCreate(&mut event, 2));
    event
}

fn buffer() -> CUdeviceptr {
    let mut address = 0;
    ok!(cuMemAlloc_v2(&mut address, 4096), cuMemsetD8_v2(address, 0, 4096), cuCtxSynchronize());
    address
}

fn fill(address: CUdeviceptr, count: usize, stream: CUstream) {
    // A race may have failed the context; what counts is the end.
    unsafe { cuMemsetD8Async(address, 1, count, stream) };
}

fn copy(to: CUdeviceptr, from: CUdeviceptr, count: usize, stream: CUstream) {
    unsafe { cuMemcpyDtoDAsync_v2(to, from, count, stream) };
}

#[test]
fn streams_on_the_same_bytes_need_an_event() {
    let unordered = |first: u32, second: u32| {
        races(|_| {
            let p = buffer();
            fill(p, 4096, stream(first));
            fill(p, 1, stream(second));
        })
    };
    assert!(unordered(NON_BLOCKING, NON_BLOCKING));
    assert!(unordered(BLOCKING, BLOCKING));
    assert!(!races(|_| {
        let (p, a, b, e) = (buffer(), stream(NON_BLOCKING), stream(NON_BLOCKING), event());
        fill(p, 4096, a);
        ok!(cuEventRecord(e, a), cuStreamWaitEvent(b, e, 0));
        fill(p, 4096, b);
    }));
    // The event stands for what was recorded, not for what came later.
    assert!(races(|_| {
        let (p, a, b, e) = (buffer(), stream(NON_BLOCKING), stream(NON_BLOCKING), event());
        ok!(cuEventRecord(e, a));
        fill(p, 4096, a);
        ok!(cuStreamWaitEvent(b, e, 0));
        fill(p, 4096, b);
    }));
    assert!(!races(|_| {
        let (p, a, b) = (buffer(), stream(NON_BLOCKING), stream(NON_BLOCKING));
        copy(p, p + 100, 50, a);
        copy(p + 50, p + 100, 50, b);
    }));
    assert!(races(|_| {
        let (p, a, b) = (buffer(), stream(NON_BLOCKING), stream(NON_BLOCKING));
        copy(p, p + 100, 50, a);
        copy(p + 200, p + 49, 50, b);
    }));
}

#[test]
fn the_host_orders_by_waiting() {
    let waits: [&dyn Fn(CUstream, CUevent); 5] = [
        &|s, _| ok!(cuStreamSynchronize(s)),
        &|s, _| ok!(cuStreamQuery(s)),
        &|_, _| ok!(cuCtxSynchronize()),
        &|s, e| ok!(cuEventRecord(e, s), cuEventSynchronize(e)),
        &|s, e| ok!(cuEventRecord(e, s), cuEventQuery(e)),
    ];
    for wait in waits {
        assert!(!races(|_| {
            let (p, a, b, e) = (buffer(), stream(NON_BLOCKING), stream(NON_BLOCKING), event());
            fill(p, 4096, a);
            wait(a, e);
            fill(p, 4096, b);
        }));
    }
    // Waiting for another stream does not help.
    assert!(races(|_| {
        let (p, a, b) = (buffer(), stream(NON_BLOCKING), stream(NON_BLOCKING));
        fill(p, 4096, a);
        ok!(cuStreamSynchronize(b));
        fill(p, 4096, b);
    }));
}

#[test]
fn the_legacy_stream_waits_for_blocking_streams_and_they_for_it() {
    for (flags, expected) in [(BLOCKING, false), (NON_BLOCKING, true)] {
        assert_eq!(
            races(|_| {
                let (p, s) = (buffer(), stream(flags));
                fill(p, 4096, s);
                fill(p, 4096, 0);
            }),
            expected
        );
        assert_eq!(
            races(|_| {
                let (p, s) = (buffer(), stream(flags));
                fill(p, 4096, 0);
                fill(p, 4096, s);
            }),
            expected
        );
    }
    // Two blocking streams are in order with an operation on the default stream in between.
    assert!(!races(|_| {
        let (p, q) = (buffer(), buffer());
        let (a, b) = (stream(BLOCKING), stream(BLOCKING));
        fill(p, 4096, a);
        fill(q, 1, 0);
        fill(p, 4096, b);
    }));
    // The per-thread stream is a blocking one.
    assert!(!races(|_| {
        let p = buffer();
        fill(p, 4096, STREAM_PER_THREAD);
        fill(p, 4096, STREAM_LEGACY);
    }));
    assert!(races(|_| {
        let (p, s) = (buffer(), stream(BLOCKING));
        fill(p, 4096, STREAM_PER_THREAD);
        fill(p, 4096, s);
    }));
    // With the other meaning of stream 0.
    assert!(races(|_| {
        let (p, s) = (buffer(), stream(BLOCKING));
        unsafe { cuMemsetD8Async_ptsz(p, 1, 4096, 0) };
        fill(p, 4096, s);
    }));
}

#[test]
fn synchronous_copies_are_as_synchronous_as_documented() {
    let host = vec![1u8; 4096];
    let from = host.as_ptr().cast::<c_void>();
    // From pageable memory the call is back before the bytes are there.
    assert!(races(|_| {
        let (p, s) = (buffer(), stream(NON_BLOCKING));
        ok!(cuMemcpyHtoD_v2(p, from, 4096));
        fill(p, 4096, s);
    }));
    assert!(!races(|_| {
        let (p, s) = (buffer(), stream(BLOCKING));
        ok!(cuMemcpyHtoD_v2(p, from, 4096));
        fill(p, 4096, s);
    }));
    // From pinned memory it is not.
    assert!(!races(|_| {
        let (p, s, mut pinned) = (buffer(), stream(NON_BLOCKING), null_mut());
        ok!(cuMemAllocHost_v2(&mut pinned, 4096), cuMemcpyHtoD_v2(p, pinned, 4096));
        fill(p, 4096, s);
    }));
    // To the host: over when the call is back, pageable memory even with an asynchronous call.
    let mut host = vec![0u8; 4096];
    let to = host.as_mut_ptr().cast::<c_void>();
    assert!(!races(|_| {
        let (p, s) = (buffer(), stream(NON_BLOCKING));
        ok!(cuMemcpyDtoH_v2(to, p, 4096));
        fill(p, 4096, s);
    }));
    assert!(!races(|_| {
        let (p, a, b) = (buffer(), stream(NON_BLOCKING), stream(NON_BLOCKING));
        ok!(cuMemcpyDtoHAsync_v2(to, p, 4096, a));
        fill(p, 4096, b);
    }));
    // Between device memory nobody waits, and a fill does not either.
    assert!(races(|_| {
        let (p, q, s) = (buffer(), buffer(), stream(NON_BLOCKING));
        ok!(cuMemcpyDtoD_v2(p, q, 4096));
        fill(p, 4096, s);
    }));
    assert!(races(|_| {
        let (p, s) = (buffer(), stream(NON_BLOCKING));
        ok!(cuMemsetD8_v2(p, 0, 4096));
        fill(p, 4096, s);
    }));
}

#[test]
fn memory_is_not_freed_under_an_operation() {
    // Pinned memory that a copy may still be reading.
    let pinned = |wait: bool| {
        races(|_| {
            let (p, s, mut host) = (buffer(), stream(NON_BLOCKING), null_mut());
            ok!(cuMemAllocHost_v2(&mut host, 4096));
            unsafe { std::ptr::write_bytes(host.cast::<u8>(), 1, 4096) };
            ok!(cuMemcpyHtoDAsync_v2(p, host, 4096, s));
            if wait {
                ok!(cuStreamSynchronize(s));
            }
            unsafe { cuMemFreeHost(host) };
        })
    };
    assert!(pinned(false));
    assert!(!pinned(true));
    // cuMemFree waits for the device; cuMemFreeAsync waits for its own stream.
    assert!(!races(|_| {
        let (p, s) = (buffer(), stream(NON_BLOCKING));
        fill(p, 4096, s);
        ok!(cuMemFree_v2(p));
    }));
    let ordered = |wait: bool| {
        races(|_| {
            let (a, b, e, mut p) = (stream(NON_BLOCKING), stream(NON_BLOCKING), event(), 0);
            ok!(cuMemAllocAsync(&mut p, 4096, a), cuEventRecord(e, a), cuStreamWaitEvent(b, e, 0));
            fill(p, 4096, b);
            if wait {
                ok!(cuEventRecord(e, b), cuStreamWaitEvent(a, e, 0));
            }
            unsafe { cuMemFreeAsync(p, a) };
        })
    };
    assert!(ordered(false));
    assert!(!ordered(true));
    // Nor used before it is there, and cuMemFree of such memory does not wait.
    assert!(races(|_| {
        let (a, b, mut p) = (stream(NON_BLOCKING), stream(NON_BLOCKING), 0);
        ok!(cuMemAllocAsync(&mut p, 4096, a));
        fill(p, 4096, b);
    }));
    assert!(races(|_| {
        let (a, mut p) = (stream(NON_BLOCKING), 0);
        ok!(cuMemAllocAsync(&mut p, 4096, a));
        fill(p, 4096, a);
        unsafe { cuMemFree_v2(p) };
    }));
}

const PTX: &std::ffi::CStr = c"
.version 8.0
.target sm_80
.address_size 64
.visible .entry fill(.param .u64 p)
{
  .reg .b64 %d<3>; .reg .b32 %r;
  ld.param.u64 %d1, [p]; mov.u32 %r, %tid.x; mul.wide.u32 %d2, %r, 4; add.s64 %d1, %d1, %d2;
  st.global.u32 [%d1], %r;
  ret;
}";

#[test]
fn kernels_count_by_what_they_touch() {
    let run = |offset: u64| {
        races(|_| {
            let (p, a, b) = (buffer(), stream(NON_BLOCKING), stream(NON_BLOCKING));
            let (mut module, mut kernel) = (0, 0);
            ok!(cuModuleLoadData(&mut module, PTX.as_ptr().cast()));
            ok!(cuModuleGetFunction(&mut kernel, module, c"fill".as_ptr()));
            for (stream, address) in [(a, p), (b, p + offset)] {
                let mut args = [(&raw const address).cast_mut().cast::<c_void>()];
                ok!(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, args.as_mut_ptr(), null_mut()));
            }
        })
    };
    assert!(run(0));
    assert!(run(124), "one word in common");
    assert!(!run(128));
}

#[test]
fn a_graphs_nodes_are_ordered_by_its_edges() {
    let run = |edge: bool| {
        races(|context| {
            let (p, s) = (buffer(), stream(NON_BLOCKING));
            let (mut graph, mut first, mut second, mut exec) = (0, 0, 0, 0);
            let fill = CUDA_MEMSET_NODE_PARAMS { dst: p, pitch: 0, value: 9, elementSize: 4, width: 8, height: 1 };
            ok!(cuGraphCreate(&mut graph, 0));
            ok!(cuGraphAddMemsetNode(&mut first, graph, std::ptr::null(), 0, &fill, context));
            ok!(cuGraphAddMemsetNode(&mut second, graph, &first, usize::from(edge), &fill, context));
            ok!(cuGraphInstantiateWithFlags(&mut exec, graph, 0), cuGraphLaunch(exec, s));
            if edge {
                // Launches of the same graph come one after the other, on whatever streams.
                ok!(cuGraphLaunch(exec, stream(NON_BLOCKING)));
            }
            ok!(cuGraphExecDestroy(exec), cuGraphDestroy(graph));
        })
    };
    assert!(run(false));
    assert!(!run(true));
    // A launch is ordered with the rest of its stream, and with nothing else.
    for same in [true, false] {
        assert_eq!(
            races(|_| {
                let (p, a, b) = (buffer(), stream(NON_BLOCKING), stream(NON_BLOCKING));
                let (mut graph, mut exec) = (0, 0);
                ok!(cuStreamBeginCapture_v2(a, 1), cuMemsetD8Async(p, 1, 64, a), cuStreamEndCapture(a, &mut graph));
                ok!(cuGraphInstantiateWithFlags(&mut exec, graph, 0));
                fill(p, 64, a);
                ok!(cuGraphLaunch(exec, a));
                fill(p, 64, if same { a } else { b });
            }),
            !same
        );
    }
}

unsafe extern "C" fn nothing(_: *mut c_void) {}

#[test]
fn a_host_function_may_have_told_the_host() {
    assert!(!races(|_| {
        let (p, a, b) = (buffer(), stream(NON_BLOCKING), stream(NON_BLOCKING));
        fill(p, 4096, a);
        ok!(cuLaunchHostFunc(a, Some(nothing), null_mut()));
        fill(p, 4096, b);
    }));
}

#[test]
fn a_stream_that_is_gone_has_still_done_its_work() {
    assert!(races(|_| {
        let (p, a, b) = (buffer(), stream(NON_BLOCKING), stream(NON_BLOCKING));
        fill(p, 4096, a);
        ok!(cuStreamDestroy_v2(a));
        fill(p, 4096, b);
    }));
}
