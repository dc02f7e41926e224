//! An unmodified cudarc, end to end: what a Rust program sees of the device behind `libcuda.so.1`.
//!
//! To be run after `. tests/cuda-sim/env.sh`, which puts that library and NVRTC where cudarc looks. What stands outside of
//! [`simulated`] holds on a GPU too. The tests inside it are about the simulated device alone; where the environment has a
//! GPU's driver, they run on the simulated device all the same, in child processes that find this build's library first.
//!
//! The device reads its variables once, and an error of a kernel stays: a test that sets variables or fails a kernel runs
//! itself again as a child.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::*;
use cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts};

#[path = "../examples/buggy.rs"]
mod buggy;
#[path = "../examples/saxpy.rs"]
mod saxpy;

const SOURCE: &str = r#"
extern "C" __global__ void saxpy(float *y, const float *x, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}
extern "C" __global__ void add(unsigned *y, unsigned value, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += value;
}
__constant__ float factors[4];
__device__ unsigned calls;
extern "C" __global__ void scale(float *y) {
    y[threadIdx.x] *= factors[threadIdx.x % 4];
    if (threadIdx.x == 0) atomicAdd(&calls, 1);
}
extern "C" __global__ void beyond(int *y) {
    y[threadIdx.x + 1] = 1;
}
"#;

/// That the libraries are there. Everything starts here, so that a missing environment has one clear message.
fn need_environment() {
    // SAFETY: loading these libraries has no preconditions.
    let (driver, compiler) = unsafe { (sys::is_culib_present(), cudarc::nvrtc::sys::is_culib_present()) };
    let missing = match (driver, compiler) {
        (true, true) => return,
        (false, _) => "libcuda.so",
        (true, false) => "libnvrtc.so",
    };
    panic!("the loader finds no {missing}: first do `. tests/cuda-sim/env.sh` in this shell");
}

fn device() -> Arc<CudaContext> {
    need_environment();
    CudaContext::new(0).unwrap()
}

fn options() -> CompileOptions {
    let include = std::env::var("CUDA_SIM_INCLUDE").map(PathBuf::from).ok();
    let paths = include.iter().flat_map(|path| [path.clone(), path.join("cccl")]);
    CompileOptions {
        name: Some("kernels.cu".into()),
        include_paths: paths.map(|path| path.to_str().unwrap().to_owned()).collect(),
        options: vec!["--generate-line-info".into()],
        ..Default::default()
    }
}

fn compile(source: &str) -> Ptx {
    compile_ptx_with_opts(source, options()).unwrap()
}

fn module(context: &Arc<CudaContext>) -> Arc<CudaModule> {
    context.load_module(compile(SOURCE)).unwrap()
}

fn one_block(threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (1, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

/// Launches `add` over the whole slice.
fn add(stream: &Arc<CudaStream>, add: &CudaFunction, y: &mut CudaSlice<u32>, value: u32) -> Result<(), DriverError> {
    let n = y.len() as i32;
    let mut launch = stream.launch_builder(add);
    launch.arg(y).arg(&value).arg(&n);
    // SAFETY: the arguments are those of the kernel.
    unsafe { launch.launch(LaunchConfig::for_num_elems(n as u32)) }.map(drop)
}

fn code<T>(result: Result<T, DriverError>) -> Option<CUresult> {
    result.err().map(|error| error.0)
}

const CHILD: &str = "CUDARC_CHILD";

/// In the child: runs the body. In the test itself: runs the child, which must succeed, and hands over what it said.
fn child(test: &str, variables: &[(&str, &str)], body: fn()) -> Option<(String, String)> {
    if std::env::var_os(CHILD).is_some() {
        body();
        return None;
    }
    need_environment();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let Output { status, stdout, stderr } = output;
    let (out, err) = (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned());
    assert!(status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "no such test: {test}");
    Some((out, err))
}

#[test]
fn the_example_is_right() {
    need_environment();
    saxpy::main().unwrap();
}

#[test]
fn ptx_loads_from_images_texts_and_files() {
    let context = device();
    let image = compile(SOURCE);
    let text = image.to_src();
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cudarc-kernels.ptx");
    std::fs::write(&file, &text).unwrap();
    for ptx in [image, Ptx::from_src(text), Ptx::from_file(file)] {
        let module = context.load_module(ptx).unwrap();
        assert!(module.load_function("saxpy").is_ok());
        assert_eq!(code(module.load_function("saxpi")), Some(CUresult::CUDA_ERROR_NOT_FOUND));
    }
    let nonsense = context.load_module(Ptx::from_src(".version 8.0\n.target sm_75\nhello"));
    assert_eq!(code(nonsense), Some(CUresult::CUDA_ERROR_INVALID_PTX));
}

#[test]
fn half_precision_takes_the_toolkits_headers() {
    use half::f16;
    let context = device();
    let stream = context.default_stream();
    let source = r#"
        #include <cuda_fp16.h>
        extern "C" __global__ void fma(__half2 *y, const __half2 *x) {
            y[threadIdx.x] = __hfma2(x[threadIdx.x], __float2half2_rn(0.5f), y[threadIdx.x]);
        }"#;
    let function = context.load_module(compile(source)).unwrap().load_function("fma").unwrap();
    let x: Vec<f16> = (0..64).map(|i| f16::from_f32(i as f32)).collect();
    let device_x = stream.clone_htod(&x).unwrap();
    let mut y = stream.clone_htod(&vec![f16::ONE; 64]).unwrap();
    // SAFETY: 32 threads, two elements each.
    unsafe { stream.launch_builder(&function).arg(&mut y).arg(&device_x).launch(one_block(32)) }.unwrap();
    let expected: Vec<f16> = (0..64).map(|i| f16::from_f32(1.0 + i as f32 / 2.0)).collect();
    assert_eq!(stream.clone_dtoh(&y).unwrap(), expected);
}

#[test]
fn a_compiler_error_has_its_log() {
    need_environment();
    let error = compile_ptx_with_opts("__global__ void f() { undeclared(); }", options()).unwrap_err();
    assert!(error.to_string().contains("undeclared"), "{error}");
}

#[test]
fn streams_wait_for_each_other_by_events() {
    let context = device();
    let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let module = module(&context);
    let function = module.load_function("add").unwrap();
    // The slices' own events (two streams: cudarc keeps them in order).
    let mut y = first.alloc_zeros::<u32>(1000).unwrap();
    add(&first, &function, &mut y, 1).unwrap();
    add(&second, &function, &mut y, 2).unwrap();
    // An event of ours, and the time between two.
    let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let start = second.record_event(flags).unwrap();
    add(&second, &function, &mut y, 4).unwrap();
    let end = second.record_event(flags).unwrap();
    first.wait(&end).unwrap();
    assert_eq!(first.clone_dtoh(&y).unwrap(), [7; 1000]);
    end.synchronize().unwrap();
    assert!(end.is_complete());
    assert!(start.elapsed_ms(&end).unwrap() >= 0.0);
    let untimed = second.record_event(None).unwrap();
    assert!(start.elapsed_ms(&untimed).is_err());
    // A fork and a join.
    let third = second.fork().unwrap();
    add(&third, &function, &mut y, 8).unwrap();
    second.join(&third).unwrap();
    assert_eq!(second.clone_dtoh(&y).unwrap(), [15; 1000]);
    context.check_err().unwrap();
}

#[test]
fn pinned_memory_is_copied_asynchronously() {
    let context = device();
    let stream = context.new_stream().unwrap();
    // SAFETY: written before it is read.
    let (mut from, mut to) =
        unsafe { (context.alloc_pinned::<u32>(5000).unwrap(), context.alloc_pinned::<u32>(5000).unwrap()) };
    from.as_mut_slice().unwrap().iter_mut().zip(0..).for_each(|(to, i)| *to = i);
    let mut y = stream.alloc_zeros::<u32>(5000).unwrap();
    stream.memcpy_htod(&from, &mut y).unwrap();
    add(&stream, &module(&context).load_function("add").unwrap(), &mut y, 5).unwrap();
    stream.memcpy_dtoh(&y, &mut to).unwrap();
    assert!(to.as_slice().unwrap().iter().zip(5..).all(|(&value, i)| value == i));
    // Parts of a slice, and a copy on the device.
    let middle = stream.clone_dtod(&y.slice(10..20)).unwrap();
    assert_eq!(stream.clone_dtoh(&middle).unwrap(), (15..25).collect::<Vec<u32>>());
    context.check_err().unwrap();
}

#[test]
fn a_captured_graph_replays() {
    let context = device();
    // Events from outside of a capture cannot be waited for inside it.
    // SAFETY: one stream only.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    let function = module(&context).load_function("add").unwrap();
    let mut y = stream.alloc_zeros::<u32>(100).unwrap();
    let mut copy = stream.alloc_zeros::<u32>(100).unwrap();
    stream.synchronize().unwrap();

    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    add(&stream, &function, &mut y, 1).unwrap();
    add(&stream, &function, &mut y, 2).unwrap();
    stream.memcpy_dtod(&y, &mut copy).unwrap();
    stream.memset_zeros(&mut y).unwrap();
    assert_eq!(stream.capture_status().unwrap(), sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE);
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().expect("a graph");
    assert_eq!(stream.clone_dtoh(&copy).unwrap(), [0; 100], "a capture runs nothing");

    graph.upload().unwrap();
    for round in 0..3 {
        add(&stream, &function, &mut y, round).unwrap();
        graph.launch().unwrap();
        assert_eq!(stream.clone_dtoh(&copy).unwrap(), [round + 3; 100]);
        assert_eq!(stream.clone_dtoh(&y).unwrap(), [0; 100]);
    }
}

#[test]
fn a_cooperative_grid_waits_for_all_its_blocks() {
    let context = device();
    let stream = context.default_stream();
    let source = r#"
        #include <cooperative_groups.h>
        extern "C" __global__ void rotate(unsigned *y, unsigned *x) {
            unsigned i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
            x[i] = i * i;
            cooperative_groups::this_grid().sync();
            y[i] = x[(i + blockDim.x) % n];
        }"#;
    let function = context.load_module(compile(source)).unwrap().load_function("rotate").unwrap();
    let (mut x, mut y) = (stream.alloc_zeros::<u32>(512).unwrap(), stream.alloc_zeros::<u32>(512).unwrap());
    let shape = |blocks| LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: 8 blocks of 64 threads for 512 elements; a grid too large is refused.
    unsafe {
        stream.launch_builder(&function).arg(&mut y).arg(&mut x).launch_cooperative(shape(8)).unwrap();
        let refused = stream.launch_builder(&function).arg(&mut y).arg(&mut x).launch_cooperative(shape(1 << 20));
        assert_eq!(code(refused), Some(CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE));
    }
    let expected: Vec<u32> = (0..512u32).map(|i| ((i + 64) % 512).pow(2)).collect();
    assert_eq!(stream.clone_dtoh(&y).unwrap(), expected);
}

#[test]
fn occupancy_follows_threads_and_shared_memory() {
    extern "C" fn none(_block: std::ffi::c_int) -> usize {
        0
    }
    let context = device();
    let function = module(&context).load_function("saxpy").unwrap();
    let threads =
        context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR).unwrap() as u32;
    let blocks = |size, shared| function.occupancy_max_active_blocks_per_multiprocessor(size, shared, None).unwrap();
    assert_eq!(blocks(1024, 0), threads / 1024);
    assert_eq!(blocks(256, 0), threads / 256);
    assert!(blocks(256, 40 << 10) < blocks(256, 0));
    let (grid, block) = function.occupancy_max_potential_block_size(none, 0, 0, None).unwrap();
    let multiprocessors =
        context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).unwrap() as u32;
    assert_eq!(grid, multiprocessors * blocks(block, 0));
    assert_eq!(blocks(block, 0) * block, threads, "saxpy can fill a multiprocessor");
    assert_eq!(function.max_threads_per_block().unwrap(), 1024);
    assert_eq!(function.shared_size_bytes().unwrap(), 0);
    assert!(function.num_regs().unwrap() > 0);
}

#[test]
fn shared_memory_beyond_48_kib_must_be_asked_for() {
    let context = device();
    let stream = context.default_stream();
    let source = r#"
        extern __shared__ unsigned big[];
        extern "C" __global__ void last(unsigned *y, int n) {
            big[n - 1] = 7;
            y[0] = big[n - 1];
        }"#;
    let function = context.load_module(compile(source)).unwrap().load_function("last").unwrap();
    let mut y = stream.alloc_zeros::<u32>(1).unwrap();
    let bytes = 60 << 10;
    let shape = LaunchConfig { shared_mem_bytes: bytes, ..one_block(1) };
    let n = (bytes / 4) as i32;
    let mut launch = || {
        // SAFETY: the kernel stays within its shared memory.
        unsafe { stream.launch_builder(&function).arg(&mut y).arg(&n).launch(shape) }.map(drop)
    };
    assert_eq!(code(launch()), Some(CUresult::CUDA_ERROR_INVALID_VALUE));
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(attribute, bytes as i32).unwrap();
    launch().unwrap();
    assert_eq!(stream.clone_dtoh(&y).unwrap(), [7]);
}

#[test]
fn symbols_are_written_and_read() {
    let context = device();
    let stream = context.default_stream();
    let module = module(&context);
    let function = module.load_function("scale").unwrap();
    let mut factors = module.get_global("factors", &stream).unwrap();
    assert_eq!(factors.len(), 16);
    // SAFETY: four floats.
    let mut factors = unsafe { factors.transmute_mut::<f32>(4) }.unwrap();
    stream.memcpy_htod(&[1.0f32, 2.0, 3.0, 4.0], &mut factors).unwrap();
    let mut y = stream.clone_htod(&[1.0f32; 32]).unwrap();
    for _ in 0..2 {
        // SAFETY: a thread an element.
        unsafe { stream.launch_builder(&function).arg(&mut y).launch(one_block(32)) }.unwrap();
    }
    let expected: Vec<f32> = (0..32).map(|i| ((i % 4 + 1) as f32).powi(2)).collect();
    assert_eq!(stream.clone_dtoh(&y).unwrap(), expected);
    let calls = module.get_global("calls", &stream).unwrap();
    assert_eq!(stream.clone_dtoh(&calls.as_view()).unwrap(), 2u32.to_le_bytes());
    assert_eq!(code(module.get_global("factor", &stream)), Some(CUresult::CUDA_ERROR_NOT_FOUND));
}

#[test]
fn a_launch_that_cannot_be_is_refused_and_harms_nothing() {
    let context = device();
    let stream = context.default_stream();
    let function = module(&context).load_function("add").unwrap();
    let mut y = stream.alloc_zeros::<u32>(4).unwrap();
    // SAFETY: refused.
    let refused = unsafe { stream.launch_builder(&function).arg(&mut y).arg(&1u32).arg(&4i32).launch(one_block(2048)) };
    assert_eq!(code(refused), Some(CUresult::CUDA_ERROR_INVALID_VALUE));
    add(&stream, &function, &mut y, 3).unwrap();
    assert_eq!(stream.clone_dtoh(&y).unwrap(), [3; 4]);
}

#[test]
fn more_memory_than_there_is_is_refused() {
    let context = device();
    let stream = context.default_stream();
    let too_much = context.total_mem().unwrap() + 1;
    assert_eq!(code(stream.alloc_zeros::<u8>(too_much)), Some(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
    assert_eq!(stream.clone_dtoh(&stream.alloc_zeros::<u8>(4).unwrap()).unwrap(), [0; 4]);
}

#[test]
fn host_threads_share_a_context() {
    let context = device();
    let function = module(&context).load_function("add").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (context, function) = (&context, &function);
            scope.spawn(move || {
                let stream = context.new_stream().unwrap();
                let mut y = stream.alloc_zeros::<u32>(300).unwrap();
                for _ in 0..10 {
                    add(&stream, function, &mut y, thread).unwrap();
                }
                assert_eq!(stream.clone_dtoh(&y).unwrap(), [10 * thread; 300]);
            });
        }
    });
    context.check_err().unwrap();
}

/// A kernel's error as a device has it: the launch succeeds, whatever comes after does not, for the rest of the context.
#[test]
fn an_error_of_a_kernel_stays() {
    let body = || {
        let context = device();
        let stream = context.default_stream();
        let module = module(&context);
        let function = module.load_function("saxpy").unwrap();
        // An address that no allocation has, on no device.
        let (nowhere, n) = (16u64, 32i32);
        // SAFETY: it is the kernel that is wrong.
        unsafe {
            let mut launch = stream.launch_builder(&function);
            launch.arg(&nowhere).arg(&nowhere).arg(&1f32).arg(&n).launch(one_block(32)).unwrap();
        }
        let illegal = Some(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(illegal.map(|code| code as u32), Some(700));
        assert_eq!(code(stream.synchronize()), illegal);
        assert_eq!(code(stream.synchronize()), illegal);
        assert_eq!(code(stream.alloc_zeros::<u8>(4)), illegal);
        assert_eq!(code(context.synchronize()), illegal);
    };
    child("an_error_of_a_kernel_stays", &[], body);
}

/// What only the simulated device does.
mod simulated {
    use super::*;

    /// As [`super::child`], and on the simulated device even where the environment has a GPU's driver.
    fn child(test: &str, variables: &[(&str, &str)], body: fn()) -> Option<(String, String)> {
        let mut variables: Vec<_> = variables.to_vec();
        let path;
        if std::env::var_os(CHILD).is_none() {
            need_environment();
            if version().is_none() {
                path = format!("{}:{}", own_library(), std::env::var("LD_LIBRARY_PATH").unwrap_or_default());
                variables.push(("LD_LIBRARY_PATH", &path));
            }
        }
        super::child(&format!("simulated::{test}"), &variables, body)
    }

    /// A directory with the `libcuda.so` that was built with this test.
    fn own_library() -> String {
        let built = std::env::current_exe().unwrap().with_file_name("libcuda.so");
        assert!(built.exists(), "cargo built no {}", built.display());
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("simulated-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for name in ["libcuda.so", "libcuda.so.1"] {
            match std::os::unix::fs::symlink(&built, directory.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => panic!("{error}"),
                _ => {}
            }
        }
        directory.to_str().unwrap().to_owned()
    }

    /// How a program tells that its device is simulated: the library has a function that a real one has not.
    fn version() -> Option<i32> {
        // SAFETY: the signature is the one that the simulator documents.
        unsafe {
            let function = sys::culib().get::<unsafe extern "C" fn(*mut i32) -> CUresult>(b"cuSimVersion").ok()?;
            let mut version = 0;
            function(&mut version).result().unwrap();
            Some(version)
        }
    }

    /// What the simulator counted so far.
    fn counters() -> serde_json::Value {
        // SAFETY: as documented; the second call has the room that the first asked for.
        unsafe {
            let function =
                sys::culib().get::<unsafe extern "C" fn(*mut u8, *mut usize) -> CUresult>(b"cuSimCounters").unwrap();
            let mut length = 0;
            function(std::ptr::null_mut(), &mut length).result().unwrap();
            let mut text = vec![0; length];
            function(text.as_mut_ptr(), &mut length).result().unwrap();
            serde_json::from_slice(&text[..length - 1]).unwrap()
        }
    }

    /// A file for a child to write, new for each run.
    fn file(name: &str) -> (PathBuf, String) {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
        (path.clone(), path.to_str().unwrap().to_owned())
    }

    fn taken(path: &PathBuf) -> String {
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::remove_file(path).unwrap();
        text
    }

    fn has_all(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn a_program_can_tell() {
        let body = || {
            let context = device();
            let crates: Vec<i32> = env!("CARGO_PKG_VERSION").split('.').map(|part| part.parse().unwrap()).collect();
            assert_eq!(version(), Some(crates[0] * 1_000_000 + crates[1] * 1000 + crates[2]));
            assert!(context.name().unwrap().starts_with("Simulated "));
            assert_eq!(context.compute_capability().unwrap(), (8, 0));
        };
        child("a_program_can_tell", &[], body);
    }

    #[test]
    fn the_device_is_the_chosen_one() {
        let body = || {
            let context = device();
            let stream = context.default_stream();
            assert_eq!(context.compute_capability().unwrap(), (9, 0));
            assert_eq!(CudaContext::device_count().unwrap(), 2);
            assert_eq!(context.mem_get_info().unwrap(), (1 << 20, 1 << 20));
            let half = stream.alloc_zeros::<u8>(1 << 19).unwrap();
            assert_eq!(context.mem_get_info().unwrap(), (1 << 19, 1 << 20));
            let too_much = stream.alloc_zeros::<u8>((1 << 19) + 1);
            assert_eq!(code(too_much), Some(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
            drop(half);
            context.synchronize().unwrap();
            assert_eq!(context.mem_get_info().unwrap(), (1 << 20, 1 << 20));
        };
        let variables = [("CUDA_SIM_SM", "90"), ("CUDA_SIM_DEVICES", "2"), ("CUDA_SIM_MEMORY", "1M")];
        child("the_device_is_the_chosen_one", &variables, body);
    }

    #[test]
    fn two_devices_copy_to_each_other() {
        let body = || {
            let contexts = [device(), CudaContext::new(1).unwrap()];
            let streams = [contexts[0].default_stream(), contexts[1].new_stream().unwrap()];
            let mut here = streams[0].alloc_zeros::<u32>(100).unwrap();
            let mut there = streams[1].alloc_zeros::<u32>(100).unwrap();
            add(&streams[0], &module(&contexts[0]).load_function("add").unwrap(), &mut here, 1).unwrap();
            streams[1].memcpy_dtod(&here, &mut there).unwrap();
            add(&streams[1], &module(&contexts[1]).load_function("add").unwrap(), &mut there, 2).unwrap();
            assert_eq!(streams[1].clone_dtoh(&there).unwrap(), [3; 100]);
            assert_eq!(streams[0].clone_dtoh(&here).unwrap(), [1; 100]);
            contexts.iter().for_each(|context| context.check_err().unwrap());
            assert_eq!(code(CudaContext::new(2)), Some(CUresult::CUDA_ERROR_INVALID_DEVICE));
        };
        child("two_devices_copy_to_each_other", &[("CUDA_SIM_DEVICES", "2")], body);
    }

    /// One element beyond an allocation: a device hardly ever notices.
    #[test]
    fn one_element_beyond_is_reported() {
        let body = || {
            let context = device();
            let stream = context.default_stream();
            let function = module(&context).load_function("beyond").unwrap();
            let mut y = stream.alloc_zeros::<i32>(32).unwrap();
            // SAFETY: it is the kernel that is wrong.
            unsafe { stream.launch_builder(&function).arg(&mut y).launch(one_block(32)) }.unwrap();
            assert_eq!(code(stream.synchronize()), Some(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        };
        let (path, name) = file("report");
        let Some((_, said)) = child("one_element_beyond_is_reported", &[("CUDA_SIM_REPORT", &name)], body) else {
            return;
        };
        let report = taken(&path);
        eprintln!("{report}");
        has_all(
            &report,
            &["=========", "4 bytes", "thread (31,0,0) in block (0,0,0)", "kernels.cu:17", "during beyond"],
        );
        assert!(!said.contains("========="), "the report has its own file");
    }

    #[test]
    fn the_buggy_example_is_reported() {
        let body = || {
            need_environment();
            let error = buggy::main().unwrap_err();
            let error = error.downcast_ref::<DriverError>().expect("an error of the driver");
            assert_eq!(error.0, CUresult::CUDA_ERROR_LAUNCH_FAILED);
        };
        let Some((_, said)) = child("the_buggy_example_is_reported", &[], body) else { return };
        eprintln!("{said}");
        has_all(&said, &["Race", "block_sums.cu:7", "during block_sums"]);
    }

    /// cudarc's events order the streams; without them a program has to.
    #[test]
    fn unordered_streams_are_reported() {
        let body = || {
            let context = device();
            // SAFETY: that it is not safe is what is tested.
            unsafe { context.disable_event_tracking() };
            let function = module(&context).load_function("add").unwrap();
            let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
            let mut y = first.alloc_zeros::<u32>(100).unwrap();
            second.join(&first).unwrap();
            add(&second, &function, &mut y, 1).unwrap();
            first.join(&second).unwrap();
            add(&first, &function, &mut y, 1).unwrap();
            first.synchronize().unwrap();
            add(&first, &function, &mut y, 1).unwrap();
            // nothing waits for it
            let _ = add(&second, &function, &mut y, 1);
            assert_eq!(code(context.synchronize()), Some(CUresult::CUDA_ERROR_LAUNCH_FAILED));
        };
        let Some((_, said)) = child("unordered_streams_are_reported", &[], body) else { return };
        eprintln!("{said}");
        has_all(&said, &["=========", "add", "stream"]);
        assert_eq!(said.matches("========= ").filter(|_| true).count() > 0, true);
    }

    #[test]
    fn a_launch_fails_when_asked_to() {
        let body = || {
            let context = device();
            let stream = context.default_stream();
            let function = module(&context).load_function("add").unwrap();
            let mut y = stream.alloc_zeros::<u32>(4).unwrap();
            add(&stream, &function, &mut y, 1).unwrap();
            stream.synchronize().unwrap();
            add(&stream, &function, &mut y, 1).unwrap();
            assert_eq!(code(stream.synchronize()), Some(CUresult::CUDA_ERROR_LAUNCH_FAILED));
        };
        let Some((_, said)) = child("a_launch_fails_when_asked_to", &[("CUDA_SIM_FAIL", "launch:2")], body) else {
            return;
        };
        has_all(&said, &["CUDA_SIM_FAIL makes this launch fail"]);
    }

    #[test]
    fn an_allocation_fails_when_asked_to() {
        let body = || {
            let stream = device().default_stream();
            let _first = stream.alloc_zeros::<u32>(4).unwrap();
            assert_eq!(code(stream.alloc_zeros::<u32>(4)), Some(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
            let third = stream.alloc_zeros::<u32>(4).unwrap();
            assert_eq!(stream.clone_dtoh(&third).unwrap(), [0; 4]);
        };
        child("an_allocation_fails_when_asked_to", &[("CUDA_SIM_FAIL", "alloc:2")], body);
    }

    #[test]
    fn a_device_is_lost_when_asked_to() {
        let body = || {
            let context = device();
            let stream = context.default_stream();
            let function = module(&context).load_function("add").unwrap();
            let mut y = stream.alloc_zeros::<u32>(4).unwrap();
            let lost = Some(CUresult::CUDA_ERROR_ECC_UNCORRECTABLE);
            let failed = (0..10).find_map(|_| code(add(&stream, &function, &mut y, 1)));
            assert_eq!(failed, lost);
            assert_eq!(code(stream.synchronize()), lost);
            assert_eq!(code(CudaContext::new(0)), lost);
        };
        let Some((_, said)) = child("a_device_is_lost_when_asked_to", &[("CUDA_SIM_FAIL", "lost:5")], body) else {
            return;
        };
        has_all(&said, &["CUDA_SIM_FAIL loses device 0 at operation 5"]);
    }

    /// The machine code of NVRTC, without PTX beside it unless line information is asked for.
    fn cubin(source: &str, options: &[&str]) -> Vec<u8> {
        use cudarc::nvrtc::{result, sys};
        let source = std::ffi::CString::new(source).unwrap();
        let program = result::create_program(&source, None).unwrap();
        // SAFETY: the calls in the order that NVRTC documents, with a buffer of the size that it asks for.
        unsafe {
            result::compile_program(program, options).unwrap();
            let mut size = 0;
            sys::nvrtcGetCUBINSize(program, &mut size).result().unwrap();
            let mut code = vec![0u8; size];
            sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result().unwrap();
            result::destroy_program(program).unwrap();
            code
        }
    }

    /// There is no machine to run machine code: a program that loads it falls back to PTX, as it does on a newer GPU.
    #[test]
    fn machine_code_is_refused_and_ptx_runs() {
        let body = || {
            let context = device();
            let code_only = cubin(SOURCE, &["--gpu-architecture=sm_80"]);
            let refused = context.load_module(Ptx::from_binary(code_only));
            assert_eq!(code(refused), Some(CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU));
            let stream = context.default_stream();
            let mut y = stream.alloc_zeros::<u32>(4).unwrap();
            add(&stream, &module(&context).load_function("add").unwrap(), &mut y, 1).unwrap();
            assert_eq!(stream.clone_dtoh(&y).unwrap(), [1; 4]);
        };
        child("machine_code_is_refused_and_ptx_runs", &[], body);
    }

    #[test]
    fn what_is_counted_can_be_read() {
        let body = || {
            let context = device();
            let stream = context.default_stream();
            let function = module(&context).load_function("saxpy").unwrap();
            let n = 1000i32;
            let x = stream.clone_htod(&vec![1.0f32; n as usize]).unwrap();
            let mut y = stream.alloc_zeros::<f32>(n as usize).unwrap();
            let mut launch = stream.launch_builder(&function);
            launch.arg(&mut y).arg(&x).arg(&2f32).arg(&n);
            let shape = LaunchConfig { grid_dim: (8, 1, 1), block_dim: (128, 1, 1), shared_mem_bytes: 0 };
            // SAFETY: the arguments are those of the kernel.
            unsafe { launch.launch(shape) }.unwrap();
            stream.synchronize().unwrap();
            let counters = counters();
            let launch = &counters["launches"][0];
            assert_eq!(launch["kernel"], "saxpy");
            assert_eq!(launch["grid"], serde_json::json!([8, 1, 1]));
            let counted = &launch["counters"];
            // 1000 elements: 32 warps, 4000 bytes of each array, 125 sectors.
            assert_eq!(counted["fma"], 1000);
            assert_eq!(counted["global_load"], serde_json::json!({"requests": 64, "sectors": 250, "bytes": 8000}));
            assert_eq!(counted["global_store"], serde_json::json!({"requests": 32, "sectors": 125, "bytes": 4000}));
            assert_eq!(counters["kernels"]["saxpy"]["launches"], 1);
            assert_eq!(counters["findings"], serde_json::json!({}));
            eprintln!("{:#}", counters);
        };
        let (path, name) = file("counters");
        let Some((_, said)) = child("what_is_counted_can_be_read", &[("CUDA_SIM_COUNTERS", &name)], body) else {
            return;
        };
        eprintln!("{said}");
        let line: serde_json::Value = serde_json::from_str(taken(&path).lines().next().unwrap()).unwrap();
        assert_eq!((&line["kernel"], &line["counters"]["fma"]), (&"saxpy".into(), &1000.into()));
    }

    #[test]
    fn what_kernels_print_is_printed() {
        let body = || {
            let context = device();
            let source = r#"extern "C" __global__ void hello() { printf("hello from %d\n", threadIdx.x); }"#;
            let function = context.load_module(compile(source)).unwrap().load_function("hello").unwrap();
            let stream = context.default_stream();
            // SAFETY: a kernel without arguments.
            unsafe { stream.launch_builder(&function).launch(one_block(2)) }.unwrap();
            stream.synchronize().unwrap();
        };
        let Some((out, _)) = child("what_kernels_print_is_printed", &[], body) else { return };
        has_all(&out, &["hello from 0\nhello from 1\n"]);
    }
}
