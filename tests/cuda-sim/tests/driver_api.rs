//! The driver API through its C functions: what each call does, and what it says to a wrong one.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};

use cuda::driver::context::*;
use cuda::driver::device::*;
use cuda::driver::entry::*;
use cuda::driver::error::{self, *};
use cuda::driver::event::*;
use cuda::driver::function::*;
use cuda::driver::graph::*;
use cuda::driver::launch::*;
use cuda::driver::memory::*;
use cuda::driver::module::*;
use cuda::driver::occupancy::*;
use cuda::driver::sim::*;
use cuda::driver::stream::*;
use cuda::driver::types::*;

/// `y[i] = a * x[i] + y[i]`, a kernel that writes where it is told, one with shared memory, one with a trap.
const PTX: &str = r#"
.version 8.0
.target sm_80
.address_size 64
.visible .global .align 4 .u32 total = 7;
.visible .const .align 4 .u32 limits[2] = {3, 4};
.visible .entry saxpy(.param .u32 n, .param .f32 a, .param .u64 x, .param .u64 y)
{
  .reg .pred %p; .reg .b32 %r<6>; .reg .f32 %f<5>; .reg .b64 %d<5>;
  ld.param.u32 %r1, [n]; ld.param.f32 %f1, [a]; ld.param.u64 %d1, [x]; ld.param.u64 %d2, [y];
  mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x; mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.u32 %p, %r5, %r1; @%p ret;
  mul.wide.u32 %d3, %r5, 4; add.s64 %d1, %d1, %d3; add.s64 %d2, %d2, %d3;
  ld.global.f32 %f2, [%d1]; ld.global.f32 %f3, [%d2]; fma.rn.f32 %f4, %f1, %f2, %f3; st.global.f32 [%d2], %f4;
  ret;
}
.visible .entry poke(.param .u64 p)
{
  .reg .b64 %d; ld.param.u64 %d, [p]; st.global.u32 [%d], 1; ret;
}
.visible .entry bounded(.param .u8 small, .param .u64 wide) .maxntid 64, 1, 1
{
  .shared .align 4 .b8 room[256];
  ret;
}
.visible .entry stop() { trap; ret; }
"#;

fn ok(code: CUresult) {
    assert_eq!(code, SUCCESS, "{}", error::name(code));
}

macro_rules! ok {
    ($($call:expr),* $(,)?) => {{ $( ok(unsafe { $call }); )* }};
}

macro_rules! fails {
    ($code:expr, $call:expr) => {
        assert_eq!(unsafe { $call }, $code, "{}", stringify!($call))
    };
}

/// A context of its own for a test, so that tests can run side by side.
struct Context(CUcontext);

impl Context {
    fn new() -> Context {
        let mut context = 0;
        ok!(cuInit(0), cuCtxCreate_v2(&mut context, 0, 0));
        Context(context)
    }

    fn module(&self) -> CUmodule {
        let text = CString::new(PTX).unwrap();
        let mut module = 0;
        ok!(cuModuleLoadData(&mut module, text.as_ptr().cast()));
        module
    }

    fn function(&self, name: &str) -> CUfunction {
        let name = CString::new(name).unwrap();
        let mut function = 0;
        ok!(cuModuleGetFunction(&mut function, self.module(), name.as_ptr()));
        function
    }

    fn buffer<T: Copy>(&self, values: &[T]) -> CUdeviceptr {
        let (mut address, bytes) = (0, std::mem::size_of_val(values));
        ok!(cuMemAlloc_v2(&mut address, bytes), cuMemcpyHtoD_v2(address, values.as_ptr().cast(), bytes));
        address
    }

    fn stream(&self, flags: c_uint) -> CUstream {
        let mut stream = 0;
        ok!(cuStreamCreate(&mut stream, flags));
        stream
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        unsafe { cuCtxDestroy_v2(self.0) };
    }
}

fn read<T: Copy + Default>(address: CUdeviceptr, count: usize) -> Vec<T> {
    let mut values = vec![T::default(); count];
    ok!(cuMemcpyDtoH_v2(values.as_mut_ptr().cast(), address, std::mem::size_of_val(values.as_slice())));
    values
}

fn launch(function: CUfunction, grid: c_uint, block: c_uint, stream: CUstream, args: &mut [*mut c_void]) -> CUresult {
    unsafe { cuLaunchKernel(function, grid, 1, 1, block, 1, 1, 0, stream, args.as_mut_ptr(), null_mut()) }
}

fn arg<T>(value: &T) -> *mut c_void {
    std::ptr::from_ref(value).cast_mut().cast()
}

#[test]
fn devices_say_what_they_are() {
    ok!(cuInit(0));
    fails!(INVALID_VALUE, cuInit(1));
    let (mut count, mut device, mut value) = (0, -1, 0);
    ok!(cuDeviceGetCount(&mut count), cuDeviceGet(&mut device, 0));
    assert_eq!((count, device), (1, 0));
    fails!(INVALID_DEVICE, cuDeviceGet(&mut device, 1));
    fails!(INVALID_DEVICE, cuDeviceGet(&mut device, -1));
    fails!(INVALID_VALUE, cuDeviceGet(null_mut(), 0));
    let attribute = |which: c_uint| {
        let mut value = 0;
        ok!(cuDeviceGetAttribute(&mut value, which, 0));
        value
    };
    // A100: 108 multiprocessors, compute capability 8.0, 2048 threads, 164 KiB of shared memory, 163 for a block.
    assert_eq!([16, 75, 76, 39, 81, 97].map(attribute), [108, 8, 0, 2048, 164 << 10, 163 << 10]);
    for which in 1..=140 {
        attribute(which);
    }
    fails!(INVALID_VALUE, cuDeviceGetAttribute(&mut value, 0, 0));
    fails!(INVALID_VALUE, cuDeviceGetAttribute(&mut value, 9999, 0));
    let mut name = [1 as c_char; 8];
    ok!(cuDeviceGetName(name.as_mut_ptr(), 8, 0));
    assert_eq!(name[7], 0, "cut, with its zero");
    fails!(INVALID_VALUE, cuDeviceGetName(name.as_mut_ptr(), 0, 0));
    let mut id = [0 as c_char; 16];
    ok!(cuDeviceGetPCIBusId(id.as_mut_ptr(), 16, 0), cuDeviceGetByPCIBusId(&mut device, id.as_ptr()));
    assert_eq!(device, 0);
    let mut version = 0;
    ok!(cuDriverGetVersion(&mut version), cuSimVersion(&mut value));
    assert!(version >= 13_000 && value > 0);
}

#[test]
fn errors_have_names_and_texts() {
    let mut text = null();
    let read = |text: *const c_char| unsafe { std::ffi::CStr::from_ptr(text) }.to_str().unwrap();
    ok!(cuGetErrorName(700, &mut text));
    assert_eq!(read(text), "CUDA_ERROR_ILLEGAL_ADDRESS");
    ok!(cuGetErrorString(2, &mut text));
    assert_eq!(read(text), "out of memory");
    fails!(INVALID_VALUE, cuGetErrorName(55555, &mut text));
    assert!(text.is_null());
}

#[test]
fn contexts_are_a_stack() {
    let first = Context::new();
    let mut current = 0;
    ok!(cuCtxGetCurrent(&mut current));
    assert_eq!(current, first.0);
    let second = Context::new();
    let mut popped = 0;
    ok!(cuCtxPopCurrent_v2(&mut popped), cuCtxGetCurrent(&mut current));
    assert_eq!((popped, current), (second.0, first.0));
    ok!(cuCtxPushCurrent_v2(second.0));
    ok!(cuCtxDestroy_v2(second.0));
    fails!(INVALID_CONTEXT, cuCtxSetCurrent(second.0));
    fails!(INVALID_CONTEXT, cuCtxDestroy_v2(second.0));
    fails!(INVALID_CONTEXT, cuCtxSetCurrent(0xdead_beef));
    std::thread::spawn(|| fails!(INVALID_CONTEXT, cuCtxSynchronize())).join().unwrap();
    let handle = first.0;
    let other = std::thread::spawn(move || {
        ok!(cuCtxSetCurrent(handle), cuCtxSynchronize());
        ok!(cuCtxDestroy_v2(handle));
    });
    other.join().unwrap();
    fails!(CONTEXT_IS_DESTROYED, cuCtxSynchronize());
}

#[test]
fn memory_is_allocated_within_the_device_and_freed_once() {
    let _context = Context::new();
    let (mut a, mut base, mut size) = (0, 0, 0);
    fails!(INVALID_VALUE, cuMemAlloc_v2(&mut a, 0));
    fails!(INVALID_VALUE, cuMemAlloc_v2(null_mut(), 16));
    fails!(OUT_OF_MEMORY, cuMemAlloc_v2(&mut a, 9 << 30));
    fails!(OUT_OF_MEMORY, cuMemAlloc_v2(&mut a, usize::MAX));
    ok!(cuMemAlloc_v2(&mut a, 100), cuMemGetAddressRange_v2(&mut base, &mut size, a + 99));
    assert_eq!((base, size), (a, 100));
    fails!(NOT_FOUND, cuMemGetAddressRange_v2(&mut base, &mut size, a + 100));
    fails!(INVALID_VALUE, cuMemFree_v2(a + 4));
    fails!(INVALID_VALUE, cuMemFreeHost(a as *mut c_void));
    fails!(INVALID_VALUE, cuMemFreeAsync(a, 0));
    ok!(cuMemFree_v2(a), cuMemFree_v2(0));
    fails!(INVALID_VALUE, cuMemFree_v2(a));
    let (mut pitch, mut p) = (0, 0);
    ok!(cuMemAllocPitch_v2(&mut p, &mut pitch, 100, 3, 4));
    assert_eq!(pitch, 512);
    fails!(INVALID_VALUE, cuMemAllocPitch_v2(&mut p, &mut pitch, 100, 3, 5));
    ok!(cuCtxSynchronize());
}

#[test]
fn copies_and_fills_of_all_shapes_move_the_right_bytes() {
    let context = Context::new();
    let a = context.buffer(&(0..64u8).collect::<Vec<_>>());
    let b = context.buffer(&[0u8; 64]);
    ok!(cuMemcpyDtoD_v2(b + 1, a, 10), cuMemcpy(b + 20, a + 20, 4));
    let bytes = read::<u8>(b, 64);
    assert_eq!(bytes[..12], [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
    assert_eq!(bytes[19..25], [0, 20, 21, 22, 23, 0]);
    ok!(cuMemsetD8_v2(b, 9, 64), cuMemsetD16_v2(b, 0x0201, 2), cuMemsetD32_v2(b + 8, 0x0605_0403, 1));
    assert_eq!(read::<u8>(b, 13), [1, 2, 1, 2, 9, 9, 9, 9, 3, 4, 5, 6, 9]);
    fails!(INVALID_VALUE, cuMemsetD32_v2(b + 2, 0, 1));
    ok!(cuMemsetD2D8_v2(b, 16, 7, 2, 3));
    let bytes = read::<u8>(b, 40);
    assert_eq!([bytes[16], bytes[17], bytes[18], bytes[32], bytes[33], bytes[34]], [7, 7, 9, 7, 7, 9]);
    // A square out of the middle.
    let mut host = [0xffu8; 9];
    let mut c: CUDA_MEMCPY2D = unsafe { std::mem::zeroed() };
    (c.srcMemoryType, c.srcDevice, c.srcPitch, c.srcXInBytes, c.srcY) = (2, a, 8, 2, 1);
    (c.dstMemoryType, c.dstHost, c.dstPitch) = (1, host.as_mut_ptr().cast(), 3);
    (c.WidthInBytes, c.Height) = (3, 3);
    ok!(cuMemcpy2D_v2(&c));
    assert_eq!(host, [10, 11, 12, 18, 19, 20, 26, 27, 28]);
    c.srcPitch = 4;
    fails!(INVALID_VALUE, cuMemcpy2D_v2(&c));
    // Two planes of 2 by 2 out of planes of 4 by 4.
    let mut host = [0u8; 8];
    let mut c: CUDA_MEMCPY3D = unsafe { std::mem::zeroed() };
    (c.srcMemoryType, c.srcDevice, c.srcPitch, c.srcHeight, c.srcXInBytes, c.srcY, c.srcZ) = (2, a, 4, 4, 1, 2, 1);
    (c.dstMemoryType, c.dstHost, c.dstPitch, c.dstHeight) = (1, host.as_mut_ptr().cast(), 2, 2);
    (c.WidthInBytes, c.Height, c.Depth) = (2, 2, 2);
    ok!(cuMemcpy3D_v2(&c));
    assert_eq!(host, [25, 26, 29, 30, 41, 42, 45, 46]);
    c.srcZ = 3;
    fails!(INVALID_VALUE, cuMemcpy3D_v2(&c));
    fails!(INVALID_VALUE, cuMemcpyDtoH_v2(host.as_mut_ptr().cast(), a + 60, 8));
    fails!(INVALID_VALUE, cuMemcpyHtoD_v2(a + 60, host.as_ptr().cast(), 8));
    fails!(INVALID_VALUE, cuMemcpyHtoD_v2(a, null(), 8));
    fails!(INVALID_VALUE, cuMemcpyDtoD_v2(a, 16, 8));
    ok!(cuMemcpyHtoD_v2(a, null(), 0), cuCtxSynchronize());
}

#[test]
fn pointers_say_what_they_are() {
    let context = Context::new();
    let device = context.buffer(&[0u8; 32]);
    let (mut host, mut managed, mut flags, mut same) = (null_mut(), 0, 0, 0);
    ok!(cuMemHostAlloc(&mut host, 64, 1), cuMemAllocManaged(&mut managed, 64, 1));
    ok!(cuMemHostGetFlags(&mut flags, host), cuMemHostGetDevicePointer_v2(&mut same, host, 0));
    assert_eq!((flags, same), (3, host as u64));
    let word = |attribute: c_uint, address: u64| {
        let mut value = 0u64;
        ok!(cuPointerGetAttribute((&raw mut value).cast(), attribute, address));
        value
    };
    assert_eq!([device, host as u64, managed].map(|p| word(2, p)), [2, 1, 2]);
    assert_eq!([device, managed].map(|p| word(8, p)), [0, 1]);
    assert_eq!((word(1, device), word(11, device + 5), word(12, device)), (context.0 as u64, device, 32));
    let mut value = 0u64;
    fails!(INVALID_VALUE, cuPointerGetAttribute((&raw mut value).cast(), 2, 0x1000));
    // Managed memory is the host's as well.
    unsafe { (managed as *mut u32).write(77) };
    assert_eq!(read::<u32>(managed, 1), [77]);
    let mut own = vec![5u8; 128];
    ok!(cuMemHostRegister_v2(own.as_mut_ptr().cast(), 128, 0));
    fails!(HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister_v2(own.as_mut_ptr().cast(), 64, 0));
    assert_eq!(read::<u8>(own.as_ptr() as u64, 2), [5, 5]);
    ok!(cuMemHostUnregister(own.as_mut_ptr().cast()));
    fails!(HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(own.as_mut_ptr().cast()));
    ok!(cuMemAdvise(managed, 64, 1, 0), cuMemPrefetchAsync(managed, 64, 0, 0));
    fails!(INVALID_VALUE, cuMemAdvise(device, 32, 1, 0));
    fails!(INVALID_VALUE, cuMemPrefetchAsync(managed, 65, 0, 0));
    ok!(cuMemFreeHost(host), cuMemFree_v2(managed));
}

#[test]
fn pools_count_what_is_taken_from_them() {
    let _context = Context::new();
    let mut properties: CUmemPoolProps = unsafe { std::mem::zeroed() };
    (properties.allocType, properties.location) = (1, CUmemLocation { kind: 1, id: 0 });
    let (mut pool, mut default, mut address, mut used) = (0, 0, 0, 0u64);
    ok!(cuMemPoolCreate(&mut pool, &properties), cuDeviceGetDefaultMemPool(&mut default, 0));
    let count = |used: &mut u64| ok!(cuMemPoolGetAttribute(pool, 7, (&raw mut *used).cast()));
    ok!(cuMemAllocFromPoolAsync(&mut address, 1000, pool, 0));
    count(&mut used);
    assert_eq!(used, 1024);
    ok!(cuMemFreeAsync(address, 0));
    count(&mut used);
    assert_eq!(used, 0);
    ok!(cuMemAllocAsync(&mut address, 0, 0), cuMemFreeAsync(address, 0));
    fails!(NOT_PERMITTED, cuMemPoolDestroy(default));
    ok!(cuMemPoolDestroy(pool));
    fails!(INVALID_VALUE, cuMemPoolDestroy(pool));
    fails!(INVALID_VALUE, cuMemAllocFromPoolAsync(&mut address, 1000, pool, 0));
}

#[test]
fn a_kernel_runs_by_list_and_by_buffer() {
    let context = Context::new();
    let saxpy = context.function("saxpy");
    let x = context.buffer(&(0..100).map(|i| i as f32).collect::<Vec<_>>());
    let y = context.buffer(&[1f32; 100]);
    let (n, a) = (100u32, 2f32);
    ok(launch(saxpy, 4, 32, 0, &mut [arg(&n), arg(&a), arg(&x), arg(&y)]));
    let expected: Vec<f32> = (0..100).map(|i| 2.0 * i as f32 + 1.0).collect();
    assert_eq!(read::<f32>(y, 100), expected);
    // The same once more, with the arguments in one buffer.
    #[repr(C)]
    struct Buffer(u32, f32, u64, u64);
    let buffer = Buffer(n, a, x, y);
    let mut size = std::mem::size_of::<Buffer>();
    let key = |number: usize| number as *mut c_void;
    let mut extra = [key(1), arg(&buffer), key(2), (&raw mut size).cast(), key(0)];
    ok!(cuLaunchKernel(saxpy, 4, 1, 1, 32, 1, 1, 0, 0, null_mut(), extra.as_mut_ptr()));
    assert_eq!(read::<f32>(y, 3), [1.0, 5.0, 9.0]);
    let config = CUlaunchConfig {
        gridDimX: 4,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: 32,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: 0,
        hStream: 0,
        attrs: null_mut(),
        numAttrs: 0,
    };
    let mut args = [arg(&n), arg(&a), arg(&x), arg(&y)];
    ok!(cuLaunchKernelEx(&config, saxpy, args.as_mut_ptr(), null_mut()));
    assert_eq!(read::<f32>(y, 3), [1.0, 7.0, 13.0]);
    ok!(cuLaunchCooperativeKernel(saxpy, 4, 1, 1, 32, 1, 1, 0, 0, args.as_mut_ptr()));
    fails!(
        COOPERATIVE_LAUNCH_TOO_LARGE,
        cuLaunchCooperativeKernel(saxpy, 1 << 20, 1, 1, 32, 1, 1, 0, 0, args.as_mut_ptr())
    );
    let mut length = 0;
    ok!(cuSimCounters(null_mut(), &mut length));
    let mut text = vec![0u8; length + 4096];
    length = text.len();
    ok!(cuSimCounters(text.as_mut_ptr().cast(), &mut length));
    let counters: serde_json::Value = serde_json::from_slice(&text[..length - 1]).unwrap();
    assert!(counters["kernels"]["saxpy"]["launches"].as_u64().unwrap() >= 4);
    assert!(counters["kernels"]["saxpy"]["fma"].as_u64().unwrap() >= 400);
    length = 1;
    fails!(INVALID_VALUE, cuSimCounters(text.as_mut_ptr().cast(), &mut length));
}

#[test]
fn a_launch_is_checked_before_it_runs() {
    let context = Context::new();
    let (saxpy, bounded) = (context.function("saxpy"), context.function("bounded"));
    let (n, a, p) = (0u32, 0f32, 0u64);
    let mut args = [arg(&n), arg(&a), arg(&p), arg(&p)];
    for (grid, block) in [(0, 1), (1, 0), (1, 1025), (u32::MAX, 1)] {
        assert_eq!(launch(saxpy, grid, block, 0, &mut args), INVALID_VALUE, "{grid} {block}");
    }
    let at = args.as_mut_ptr();
    fails!(INVALID_VALUE, cuLaunchKernel(saxpy, 1, 65536, 1, 1, 1, 1, 0, 0, at, null_mut()));
    fails!(INVALID_VALUE, cuLaunchKernel(saxpy, 1, 1, 1, 1, 1, 65, 0, 0, at, null_mut()));
    fails!(INVALID_VALUE, cuLaunchKernel(saxpy, 1, 1, 1, 32, 32, 2, 0, 0, at, null_mut()));
    fails!(INVALID_VALUE, cuLaunchKernel(saxpy, 1, 1, 1, 1, 1, 1, (48 << 10) + 1, 0, at, null_mut()));
    fails!(INVALID_VALUE, cuLaunchKernel(saxpy, 1, 1, 1, 1, 1, 1, 0, 0, null_mut(), null_mut()));
    assert_eq!(launch(bounded, 1, 65, 0, &mut args[..2]), LAUNCH_OUT_OF_RESOURCES);
    assert_eq!(launch(0xbad, 1, 1, 0, &mut args), INVALID_HANDLE);
    assert_eq!(launch(saxpy, 1, 1, 0xbad, &mut args), INVALID_HANDLE);
    // More than 48 KiB only for who asks.
    ok!(cuFuncSetAttribute(saxpy, 8, 100 << 10));
    ok!(cuLaunchKernel(saxpy, 1, 1, 1, 1, 1, 1, 100 << 10, 0, at, null_mut()));
    fails!(INVALID_VALUE, cuLaunchKernel(saxpy, 1, 1, 1, 1, 1, 1, (100 << 10) + 1, 0, at, null_mut()));
    fails!(INVALID_VALUE, cuFuncSetAttribute(saxpy, 8, 164 << 10));
    fails!(INVALID_VALUE, cuFuncSetAttribute(saxpy, 8, -1));
    fails!(INVALID_VALUE, cuFuncSetAttribute(saxpy, 4, 1));
    // A function runs on streams of its own context only.
    let other = Context::new();
    assert_eq!(launch(saxpy, 1, 1, other.stream(0), &mut args), INVALID_HANDLE);
    ok!(cuCtxSynchronize());
}

#[test]
fn modules_and_functions_are_found_by_name() {
    let context = Context::new();
    let module = context.module();
    let (mut function, mut address, mut bytes, mut count) = (0, 0, 0, 0);
    let find = |function: &mut CUfunction, name: &str| unsafe {
        cuModuleGetFunction(function, module, CString::new(name).unwrap().as_ptr())
    };
    assert_eq!(find(&mut function, "nothing"), NOT_FOUND);
    fails!(INVALID_HANDLE, cuModuleGetFunction(&mut function, 17, c"saxpy".as_ptr()));
    fails!(INVALID_VALUE, cuModuleGetFunction(&mut function, module, null()));
    ok(find(&mut function, "bounded"));
    let mut again = 0;
    ok(find(&mut again, "bounded"));
    assert_eq!(function, again);
    ok!(cuModuleGetFunctionCount(&mut count, module));
    assert_eq!(count, 4);
    let attribute = |which: c_uint| {
        let mut value = 0;
        ok!(cuFuncGetAttribute(&mut value, which, function));
        value
    };
    assert_eq!([0, 1, 5, 6, 8].map(attribute), [64, 256, 80, 80, (48 << 10) - 256]);
    let (mut offset, mut size) = (0, 0);
    ok!(cuFuncGetParamInfo(function, 1, &mut offset, &mut size));
    assert_eq!((offset, size), (8, 8));
    fails!(INVALID_VALUE, cuFuncGetParamInfo(function, 2, &mut offset, &mut size));
    let mut name = null();
    ok!(cuFuncGetName(&mut name, function));
    assert_eq!(unsafe { std::ffi::CStr::from_ptr(name) }, c"bounded");
    ok!(cuModuleGetGlobal_v2(&mut address, &mut bytes, module, c"total".as_ptr()));
    assert_eq!((read::<u32>(address, 1), bytes), (vec![7], 4));
    ok!(cuModuleGetGlobal_v2(&mut address, null_mut(), module, c"limits".as_ptr()));
    assert_eq!(read::<u32>(address, 2), [3, 4]);
    fails!(NOT_FOUND, cuModuleGetGlobal_v2(&mut address, &mut bytes, module, c"saxpy".as_ptr()));
    ok!(cuModuleUnload(module));
    fails!(INVALID_HANDLE, cuModuleUnload(module));
    fails!(INVALID_HANDLE, cuFuncGetAttribute(&mut count.cast_signed(), 0, function));
    fails!(INVALID_VALUE, cuMemcpyDtoD_v2(address, address, 4));
}

#[test]
fn a_module_that_is_refused_says_why() {
    let _context = Context::new();
    let load = |text: &str| {
        let text = CString::new(text).unwrap();
        let (mut module, mut log) = (0, [1u8; 200]);
        let mut options = [5, 6];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
        let code = unsafe {
            cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), 2, options.as_mut_ptr(), values.as_mut_ptr())
        };
        let length = values[1] as usize;
        assert_eq!(log[length], 0, "the log has a zero behind it");
        (code, String::from_utf8_lossy(&log[..length]).into_owned())
    };
    let head = ".version 8.0\n.target sm_80\n.address_size 64\n";
    assert_eq!(load(&format!("{head}.visible .entry k() {{ ret; }}")), (SUCCESS, String::new()));
    let (code, log) = load(&format!("{head}.visible .entry k() {{ ret }}"));
    assert_eq!(code, INVALID_PTX);
    assert!(log.contains("line 4"), "{log}");
    assert_eq!(load(&format!("{head}.visible .entry k() {{ frobnicate.u32; ret; }}")).0, INVALID_PTX);
    assert_eq!(load(".version 8.0\n.target sm_90\n.address_size 64\n").0, NO_BINARY_FOR_GPU);
    assert_eq!(load(".version 99.0\n.target sm_80\n.address_size 64\n").0, UNSUPPORTED_PTX_VERSION);
    let mut module = 0;
    fails!(INVALID_VALUE, cuModuleLoadData(&mut module, null()));
    fails!(FILE_NOT_FOUND, cuModuleLoad(&mut module, c"no/such/file.ptx".as_ptr()));
}

#[test]
fn a_library_gives_a_kernel_in_every_context() {
    let first = Context::new();
    let text = CString::new(PTX).unwrap();
    let (mut library, mut kernel, mut function, mut module) = (0, 0, 0, 0);
    let (none, nothing) = (null_mut(), null_mut());
    ok!(cuLibraryLoadData(&mut library, text.as_ptr().cast(), none, nothing, 0, none, nothing, 0));
    ok!(cuLibraryGetKernel(&mut kernel, library, c"poke".as_ptr()));
    fails!(NOT_FOUND, cuLibraryGetKernel(&mut kernel, library, c"nothing".as_ptr()));
    for context in [&first, &Context::new()] {
        ok!(cuCtxSetCurrent(context.0));
        let p = context.buffer(&[0u32]);
        ok(launch(kernel, 1, 1, 0, &mut [arg(&p)]));
        assert_eq!(read::<u32>(p, 1), [1]);
        ok!(cuKernelGetFunction(&mut function, kernel), cuLibraryGetModule(&mut module, library));
        fails!(INVALID_HANDLE, cuModuleUnload(module));
    }
    ok!(cuCtxSetCurrent(first.0), cuLibraryUnload(library));
    fails!(INVALID_HANDLE, cuKernelGetFunction(&mut function, kernel));
}

#[test]
fn the_linker_hands_its_only_input_on() {
    let _context = Context::new();
    let text = CString::new(PTX).unwrap();
    let bytes = text.as_bytes_with_nul();
    let (mut state, mut image, mut size, mut module) = (0, null_mut(), 0, 0);
    let data = bytes.as_ptr().cast_mut().cast();
    ok!(cuLinkCreate_v2(0, null_mut(), null_mut(), &mut state));
    fails!(INVALID_VALUE, cuLinkComplete(state, &mut image, &mut size));
    ok!(cuLinkAddData_v2(state, 1, data, bytes.len(), null(), 0, null_mut(), null_mut()));
    fails!(NOT_SUPPORTED, cuLinkAddData_v2(state, 1, data, bytes.len(), null(), 0, null_mut(), null_mut()));
    ok!(cuLinkComplete(state, &mut image, &mut size), cuModuleLoadData(&mut module, image));
    ok!(cuLinkDestroy(state));
    fails!(INVALID_HANDLE, cuLinkDestroy(state));
}

#[test]
fn a_kernels_fault_stays_until_the_context_ends() {
    let context = Context::new();
    let (poke, stop) = (context.function("poke"), context.function("stop"));
    let p = context.buffer(&[0u32]);
    ok!(cuMemFree_v2(p));
    ok(launch(poke, 1, 1, 0, &mut [arg(&p)]));
    fails!(700, cuCtxSynchronize());
    let mut address = 0;
    fails!(700, cuMemAlloc_v2(&mut address, 4));
    assert_eq!(launch(poke, 1, 1, 0, &mut [arg(&p)]), 700);
    // Another context knows nothing of it.
    let other = Context::new();
    ok!(cuCtxSynchronize());
    ok(launch(other.function("stop"), 1, 1, 0, &mut []));
    fails!(LAUNCH_FAILED, cuCtxSynchronize());
    let _ = stop;
}

#[test]
fn a_reset_makes_the_primary_context_as_new() {
    ok!(cuInit(0));
    let (mut primary, mut again, mut flags, mut active) = (0, 0, 0, 0);
    ok!(cuDevicePrimaryCtxRetain(&mut primary, 0), cuCtxSetCurrent(primary));
    let text = CString::new(PTX).unwrap();
    let (mut module, mut function) = (0, 0);
    ok!(cuModuleLoadData(&mut module, text.as_ptr().cast()));
    ok!(cuModuleGetFunction(&mut function, module, c"stop".as_ptr()));
    ok(launch(function, 1, 1, 0, &mut []));
    fails!(LAUNCH_FAILED, cuCtxSynchronize());
    ok!(cuDevicePrimaryCtxReset_v2(0), cuCtxSynchronize());
    fails!(INVALID_HANDLE, cuModuleUnload(module));
    ok!(cuDevicePrimaryCtxRetain(&mut again, 0));
    assert_eq!(primary, again);
    ok!(cuDevicePrimaryCtxRelease_v2(0), cuDevicePrimaryCtxGetState(0, &mut flags, &mut active));
    assert_eq!(active, 1);
    ok!(cuDevicePrimaryCtxRelease_v2(0), cuDevicePrimaryCtxGetState(0, &mut flags, &mut active));
    assert_eq!(active, 0);
    fails!(INVALID_CONTEXT, cuDevicePrimaryCtxRelease_v2(0));
    fails!(CONTEXT_IS_DESTROYED, cuCtxSynchronize());
    fails!(INVALID_VALUE, cuDevicePrimaryCtxSetFlags_v2(0, 3));
}

#[test]
fn streams_and_events() {
    let context = Context::new();
    let (mut stream, mut priority, mut flags, mut owner) = (0, 0, 9, 0);
    fails!(INVALID_VALUE, cuStreamCreate(&mut stream, 2));
    ok!(cuStreamCreateWithPriority(&mut stream, 1, -100), cuStreamGetPriority(stream, &mut priority));
    ok!(cuStreamGetFlags(stream, &mut flags), cuStreamGetCtx(stream, &mut owner));
    assert_eq!((priority, flags, owner), (-5, 1, context.0));
    let (mut start, mut end, mut untimed, mut time) = (0, 0, 0, -1f32);
    ok!(cuEventCreate(&mut start, 0), cuEventCreate(&mut end, 0), cuEventCreate(&mut untimed, 2));
    ok!(cuEventQuery(start), cuEventSynchronize(start));
    fails!(INVALID_HANDLE, cuEventElapsedTime(&mut time, start, end));
    ok!(cuEventRecord(start, stream), cuEventRecord(end, stream), cuEventRecord(untimed, stream));
    ok!(cuEventElapsedTime(&mut time, start, end));
    assert!(time >= 0.0);
    fails!(INVALID_HANDLE, cuEventElapsedTime(&mut time, start, untimed));
    ok!(cuStreamQuery(stream), cuStreamSynchronize(stream), cuStreamWaitEvent(0, start, 0));
    fails!(INVALID_VALUE, cuStreamWaitEvent(0, start, 2));
    let other = Context::new();
    fails!(INVALID_HANDLE, cuEventRecord(start, other.stream(0)));
    ok!(cuStreamDestroy_v2(stream));
    fails!(INVALID_HANDLE, cuStreamDestroy_v2(stream));
    fails!(INVALID_HANDLE, cuStreamSynchronize(stream));
    fails!(INVALID_HANDLE, cuStreamDestroy_v2(0));
    ok!(cuEventDestroy_v2(start));
    fails!(INVALID_HANDLE, cuEventDestroy_v2(start));
}

unsafe extern "C" fn count_up(data: *mut c_void) {
    unsafe { *data.cast::<u32>() += 1 };
    // A host function may not call the driver.
    assert_eq!(unsafe { cuCtxSynchronize() }, NOT_PERMITTED);
}

#[test]
fn host_functions_run_in_order() {
    let context = Context::new();
    let stream = context.stream(0);
    let mut count = 0u32;
    let data = (&raw mut count).cast();
    ok!(cuLaunchHostFunc(stream, Some(count_up), data), cuLaunchHostFunc(0, Some(count_up), data));
    fails!(INVALID_VALUE, cuLaunchHostFunc(stream, None, data));
    ok!(cuStreamSynchronize(stream));
    assert_eq!(count, 2);
}

#[test]
fn a_captured_graph_replays() {
    let context = Context::new();
    let stream = context.stream(1);
    let saxpy = context.function("saxpy");
    let (x, y) = (context.buffer(&[1f32; 8]), context.buffer(&[0f32; 8]));
    ok!(cuCtxSynchronize());
    let (n, mut a, mut count) = (8u32, 3f32, 0u32);
    let (mut graph, mut exec, mut status, mut nodes) = (0, 0, 0, 0);
    ok!(cuStreamBeginCapture_v2(stream, 1), cuStreamIsCapturing(stream, &mut status));
    assert_eq!(status, 1);
    fails!(ILLEGAL_STATE, cuStreamBeginCapture_v2(stream, 1));
    ok!(cuMemsetD32Async(y, 0, 8, stream));
    ok(launch(saxpy, 1, 8, stream, &mut [arg(&n), arg(&a), arg(&x), arg(&y)]));
    ok!(cuLaunchHostFunc(stream, Some(count_up), (&raw mut count).cast()));
    ok!(cuStreamEndCapture(stream, &mut graph), cuGraphGetNodes(graph, null_mut(), &mut nodes));
    assert_eq!((nodes, count), (3, 0), "captured, not run");
    a = 100.0; // the argument was copied when it was captured
    assert_eq!(a, 100.0);
    ok!(cuGraphInstantiateWithFlags(&mut exec, graph, 0));
    fails!(INVALID_VALUE, cuGraphInstantiateWithFlags(&mut exec, graph, 5));
    for _ in 0..2 {
        ok!(cuGraphLaunch(exec, stream), cuStreamSynchronize(stream));
    }
    assert_eq!((read::<f32>(y, 8), count), (vec![3f32; 8], 2));
    ok!(cuGraphDestroy(graph), cuGraphLaunch(exec, stream), cuGraphExecDestroy(exec));
    fails!(INVALID_VALUE, cuGraphLaunch(exec, stream));
    fails!(INVALID_VALUE, cuGraphDestroy(graph));
}

#[test]
fn a_capture_forks_and_must_join() {
    let context = Context::new();
    let (a, b) = (context.stream(1), context.stream(1));
    let (p, q) = (context.buffer(&[0u32]), context.buffer(&[0u32]));
    let (mut fork, mut join, mut graph, mut edges) = (0, 0, 0, 0);
    ok!(cuEventCreate(&mut fork, 2), cuEventCreate(&mut join, 2), cuCtxSynchronize());
    for joined in [true, false] {
        ok!(cuStreamBeginCapture_v2(a, 2), cuMemsetD32Async(p, 1, 1, a));
        ok!(cuEventRecord(fork, a), cuStreamWaitEvent(b, fork, 0), cuMemsetD32Async(q, 2, 1, b));
        fails!(STREAM_CAPTURE_UNMATCHED, {
            let code = cuStreamEndCapture(b, &mut graph);
            // That spoiled the capture.
            assert_eq!(cuStreamEndCapture(a, &mut graph), STREAM_CAPTURE_INVALIDATED);
            code
        });
        assert_eq!(graph, 0);
        ok!(cuStreamBeginCapture_v2(a, 2), cuMemsetD32Async(p, 1, 1, a));
        ok!(cuEventRecord(fork, a), cuStreamWaitEvent(b, fork, 0), cuMemsetD32Async(q, 2, 1, b));
        if joined {
            ok!(cuEventRecord(join, b), cuStreamWaitEvent(a, join, 0), cuMemsetD32Async(p, 3, 1, a));
            ok!(cuStreamEndCapture(a, &mut graph), cuGraphGetEdges(graph, null_mut(), null_mut(), &mut edges));
            assert_eq!(edges, 3);
        } else {
            fails!(STREAM_CAPTURE_UNJOINED, cuStreamEndCapture(a, &mut graph));
        }
    }
    fails!(ILLEGAL_STATE, cuStreamEndCapture(a, &mut graph));
    ok!(cuCtxSynchronize());
}

#[test]
fn what_may_not_be_captured_spoils_the_capture() {
    let context = Context::new();
    let p = context.buffer(&[0u32]);
    let mut event = 0;
    ok!(cuEventCreate(&mut event, 2), cuCtxSynchronize());
    let mut graph = 1;
    type Call<'a> = (&'a dyn Fn(CUstream) -> CUresult, CUresult);
    let calls: [Call; 7] = [
        (&|stream| unsafe { cuStreamSynchronize(stream) }, STREAM_CAPTURE_UNSUPPORTED),
        (&|stream| unsafe { cuStreamQuery(stream) }, STREAM_CAPTURE_UNSUPPORTED),
        (&|_| unsafe { cuCtxSynchronize() }, STREAM_CAPTURE_UNSUPPORTED),
        (&|_| unsafe { cuMemAlloc_v2(&mut 0, 4) }, STREAM_CAPTURE_UNSUPPORTED),
        (&|_| unsafe { cuMemsetD32Async(p, 0, 1, 0) }, STREAM_CAPTURE_IMPLICIT),
        (
            &|stream| unsafe {
                ok(cuEventRecord(event, stream));
                cuEventSynchronize(event)
            },
            CAPTURED_EVENT,
        ),
        (
            &|stream| unsafe {
                let mut outside = 0;
                ok(cuEventCreate(&mut outside, 2));
                ok(cuEventRecord(outside, context.stream(1)));
                cuStreamWaitEvent(stream, outside, 0)
            },
            STREAM_CAPTURE_ISOLATION,
        ),
    ];
    for (i, (call, code)) in calls.into_iter().enumerate() {
        let stream = context.stream(0);
        // Thread-local, so that tests at the same time may go on.
        ok!(cuStreamBeginCapture_v2(stream, 1));
        assert_eq!(call(stream), code, "call {i}");
        fails!(STREAM_CAPTURE_INVALIDATED, cuMemsetD32Async(p, 0, 1, stream));
        fails!(STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(stream, &mut graph));
        assert_eq!(graph, 0);
        ok!(cuMemsetD32Async(p, 0, 1, stream), cuCtxSynchronize());
    }
    fails!(STREAM_CAPTURE_UNSUPPORTED, cuStreamBeginCapture_v2(0, 1));
    // From another thread only if the capture is relaxed.
    let (stream, handle) = (context.stream(1), context.0);
    ok!(cuStreamBeginCapture_v2(stream, 1));
    let end = move || {
        let mut graph = 0;
        ok!(cuCtxSetCurrent(handle));
        unsafe { cuStreamEndCapture(stream, &mut graph) }
    };
    assert_eq!(std::thread::spawn(end).join().unwrap(), STREAM_CAPTURE_WRONG_THREAD);
    ok!(cuStreamEndCapture(stream, &mut graph), cuStreamBeginCapture_v2(stream, 2));
    assert_eq!(std::thread::spawn(end).join().unwrap(), SUCCESS);
}

#[test]
fn a_graph_is_built_node_by_node() {
    let context = Context::new();
    let (p, poke) = (context.buffer(&[5u32, 5]), context.function("poke"));
    ok!(cuCtxSynchronize());
    let (mut graph, mut first, mut second, mut third, mut exec, mut count) = (0, 0, 0, 0, 0, 0);
    ok!(cuGraphCreate(&mut graph, 0));
    let mut fill = CUDA_MEMSET_NODE_PARAMS { dst: p, pitch: 0, value: 9, elementSize: 4, width: 2, height: 1 };
    ok!(cuGraphAddMemsetNode(&mut first, graph, null(), 0, &fill, context.0));
    let mut args = [arg(&p)];
    let mut kernel: CUDA_KERNEL_NODE_PARAMS = unsafe { std::mem::zeroed() };
    kernel.func = poke;
    (kernel.gridDimX, kernel.gridDimY, kernel.gridDimZ) = (1, 1, 1);
    (kernel.blockDimX, kernel.blockDimY, kernel.blockDimZ) = (1, 1, 1);
    kernel.kernelParams = args.as_mut_ptr();
    ok!(cuGraphAddKernelNode(&mut second, graph, &first, 1, &kernel));
    fails!(INVALID_VALUE, cuGraphAddEmptyNode(&mut third, graph, &0xbad, 1));
    ok!(cuGraphAddEmptyNode(&mut third, graph, &second, 1), cuGraphGetNodes(graph, null_mut(), &mut count));
    assert_eq!(count, 3);
    ok!(cuGraphInstantiateWithFlags(&mut exec, graph, 0), cuGraphLaunch(exec, 0));
    assert_eq!(read::<u32>(p, 2), [1, 9]);
    fill.value = 4;
    ok!(cuGraphExecMemsetNodeSetParams(exec, first, &fill, context.0), cuGraphNodeSetEnabled(exec, second, 0));
    ok!(cuGraphLaunch(exec, 0));
    assert_eq!(read::<u32>(p, 2), [4, 4]);
    // The graph itself still has the old value.
    let (mut node, mut result) = (0, 0);
    ok!(cuGraphExecUpdate(exec, graph, &mut node, &mut result), cuGraphLaunch(exec, 0));
    assert_eq!(read::<u32>(p, 2), [9, 9]);
    // A graph within a graph, after a fill.
    let (mut outer, mut child, mut nested) = (0, 0, 0);
    ok!(cuGraphCreate(&mut outer, 0), cuGraphAddMemsetNode(&mut first, outer, null(), 0, &fill, context.0));
    ok!(cuGraphAddChildGraphNode(&mut child, outer, &first, 1, graph));
    ok!(cuGraphInstantiateWithFlags(&mut nested, outer, 0), cuGraphLaunch(nested, 0));
    assert_eq!(read::<u32>(p, 2), [1, 9]);
    // A circle cannot run.
    ok!(cuGraphAddDependencies(graph, &third, &second, 1));
    fails!(INVALID_VALUE, cuGraphInstantiateWithFlags(&mut exec, graph, 0));
    fails!(INVALID_VALUE, cuGraphExecUpdate(nested, graph, &mut node, &mut result));
    ok!(cuGraphRemoveDependencies(graph, &third, &second, 1), cuGraphDestroyNode(second));
    fails!(GRAPH_EXEC_UPDATE_FAILURE, cuGraphExecUpdate(nested, graph, &mut node, &mut result));
    assert_eq!(result, 2, "the topology changed");
    ok!(cuGraphDestroy(outer), cuGraphDestroy(graph), cuCtxSynchronize());
}

#[test]
fn occupancy_of_a_loaded_kernel() {
    let context = Context::new();
    let bounded = context.function("bounded");
    let (mut blocks, mut grid, mut block, mut bytes) = (0, 0, 0, 0);
    ok!(cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, bounded, 64, 0));
    assert_eq!(blocks, 32);
    ok!(cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, bounded, 128, 0));
    assert_eq!(blocks, 0, "more threads than the kernel allows");
    unsafe extern "C" fn shared(threads: c_int) -> usize {
        threads as usize * 16
    }
    ok!(cuOccupancyMaxPotentialBlockSize(&mut grid, &mut block, bounded, Some(shared), 0, 0));
    assert_eq!((grid, block), (108 * 32, 64));
    ok!(cuOccupancyAvailableDynamicSMemPerBlock(&mut bytes, bounded, 4, 64));
    assert_eq!(bytes, (40 << 10) - 256, "41 KiB less 1 of the system and the static ones");
    fails!(INVALID_VALUE, cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, bounded, 0, 0));
    fails!(INVALID_HANDLE, cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, 3, 64, 0));
}

#[test]
fn functions_are_found_by_name_and_version() {
    let (mut function, mut status) = (null_mut(), 9);
    ok!(cuGetProcAddress_v2(c"cuMemAlloc".as_ptr(), &mut function, 12_000, 0, &mut status));
    assert_eq!((function, status), (cuMemAlloc_v2 as *mut c_void, 0));
    ok!(cuGetProcAddress_v2(c"cuNothing".as_ptr(), &mut function, 12_000, 0, &mut status));
    assert_eq!((function, status), (null_mut(), 1));
    fails!(NOT_FOUND, cuGetProcAddress(c"cuNothing".as_ptr(), &mut function, 12_000, 0));
    fails!(INVALID_VALUE, cuGetProcAddress(null(), &mut function, 12_000, 0));
    assert_eq!(cuda::driver::unsupported::cuTexObjectCreate(), {
        ok!(cuInit(0));
        NOT_SUPPORTED
    });
}
