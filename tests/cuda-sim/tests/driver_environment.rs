//! The environment variables, each in a process of its own: a test runs itself again as a child with them set.

use std::ffi::{CStr, c_void};
use std::process::{Command, Output};
use std::ptr::null_mut;

use cuda::driver::context::*;
use cuda::driver::device::*;
use cuda::driver::error::*;
use cuda::driver::launch::*;
use cuda::driver::memory::*;
use cuda::driver::module::*;
use cuda::driver::types::*;

const CHILD: &str = "DRIVER_ENVIRONMENT_CHILD";

/// In the child: runs the body. In the test itself: runs the child and hands over what it said.
fn child(test: &str, variables: &[(&str, &str)], body: fn()) -> Option<Output> {
    if std::env::var_os(CHILD).is_some() {
        body();
        return None;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stdout));
    Some(output)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ok(code: CUresult) {
    assert_eq!(code, SUCCESS);
}

fn context() -> CUcontext {
    let mut context = 0;
    unsafe {
        ok(cuInit(0));
        ok(cuCtxCreate_v2(&mut context, 0, 0));
    }
    context
}

const PTX: &CStr = c".version 8.0\n.target sm_75\n.address_size 64\n.visible .entry empty() { ret; }";

fn launch() -> CUresult {
    let (mut module, mut function) = (0, 0);
    unsafe {
        match cuModuleLoadData(&mut module, PTX.as_ptr().cast()) {
            SUCCESS => {}
            code => return code,
        }
        ok(cuModuleGetFunction(&mut function, module, c"empty".as_ptr()));
        cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, 0, null_mut(), null_mut())
    }
}

#[test]
fn a_malformed_value_stops_the_initialisation() {
    let body = || unsafe {
        assert_eq!(cuInit(0), INVALID_VALUE);
        let mut count = 0;
        assert_eq!(cuDeviceGetCount(&mut count), NOT_INITIALIZED);
        assert_eq!(cuMemAlloc_v2(&mut 0, 4), NOT_INITIALIZED);
    };
    let Some(output) = child("a_malformed_value_stops_the_initialisation", &[("CUDA_SIM_SM", "70")], body) else {
        return;
    };
    assert!(said(&output).contains("CUDA_SIM_SM=70"), "{}", said(&output));
}

#[test]
fn devices_have_what_they_are_given() {
    let variables = [("CUDA_SIM_DEVICES", "2"), ("CUDA_SIM_SM", "90"), ("CUDA_SIM_MEMORY", "1M")];
    let body = || unsafe {
        let first = context();
        let (mut count, mut major, mut address, mut can, mut second) = (0, 0, 0, 0, 0);
        ok(cuDeviceGetCount(&mut count));
        ok(cuDeviceGetAttribute(&mut major, 75, 1));
        assert_eq!((count, major), (2, 9));
        assert_eq!(cuMemAlloc_v2(&mut address, (1 << 20) + 1), OUT_OF_MEMORY);
        ok(cuMemAlloc_v2(&mut address, 1 << 20));
        assert_eq!(cuMemAlloc_v2(&mut address, 1), OUT_OF_MEMORY);
        ok(cuDeviceCanAccessPeer(&mut can, 0, 1));
        assert_eq!(can, 1);
        // The other device has memory of its own.
        ok(cuCtxCreate_v2(&mut second, 0, 1));
        let mut other = 0;
        ok(cuMemAlloc_v2(&mut other, 1 << 20));
        ok(cuCtxEnablePeerAccess(first, 0));
        assert_eq!(cuCtxEnablePeerAccess(first, 0), PEER_ACCESS_ALREADY_ENABLED);
        assert_eq!(cuCtxEnablePeerAccess(second, 0), INVALID_CONTEXT);
        ok(cuMemsetD8_v2(address, 7, 16));
        ok(cuMemcpyPeer(other, second, address, first, 16));
        let mut back = [0u8; 16];
        ok(cuMemcpyDtoH_v2(back.as_mut_ptr().cast(), other, 16));
        assert_eq!(back, [7; 16]);
        ok(cuCtxDisablePeerAccess(first));
        assert_eq!(cuCtxDisablePeerAccess(first), PEER_ACCESS_NOT_ENABLED);
    };
    child("devices_have_what_they_are_given", &variables, body);
}

#[test]
fn faults_come_when_they_are_asked_for() {
    let body = || unsafe {
        let first = context();
        let mut address = 0;
        ok(cuMemAlloc_v2(&mut address, 4));
        assert_eq!(cuMemAlloc_v2(&mut address, 4), OUT_OF_MEMORY);
        ok(cuMemAlloc_v2(&mut address, 4));
        ok(launch());
        ok(cuCtxSynchronize());
        ok(launch()); // the second launch: its failure shows later
        assert_eq!(cuCtxSynchronize(), LAUNCH_FAILED);
        ok(cuCtxDestroy_v2(first));
        context();
        ok(launch());
        ok(cuCtxSynchronize());
    };
    let variables = [("CUDA_SIM_FAIL", "launch:2,alloc:2")];
    let Some(output) = child("faults_come_when_they_are_asked_for", &variables, body) else { return };
    assert!(said(&output).contains("CUDA_SIM_FAIL"));
}

#[test]
fn a_lost_device_stays_lost() {
    let body = || unsafe {
        let first = context();
        let (mut address, mut primary) = (0, 0);
        ok(cuMemAlloc_v2(&mut address, 4));
        ok(cuMemsetD8_v2(address, 1, 4));
        assert_eq!(cuMemsetD8_v2(address, 1, 4), ECC_UNCORRECTABLE);
        assert_eq!(cuCtxSynchronize(), ECC_UNCORRECTABLE);
        ok(cuCtxDestroy_v2(first));
        assert_eq!(cuDevicePrimaryCtxRetain(&mut primary, 0), ECC_UNCORRECTABLE);
    };
    child("a_lost_device_stays_lost", &[("CUDA_SIM_FAIL", "lost:2")], body);
}

#[test]
fn findings_leaks_and_counters_go_where_they_should() {
    let folder = std::env::temp_dir().join(format!("cuda-sim-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (report, counters) = (folder.join("report.txt"), folder.join("counters.jsonl"));
    let variables = [
        ("CUDA_SIM_REPORT", report.to_str().unwrap()),
        ("CUDA_SIM_COUNTERS", counters.to_str().unwrap()),
        ("CUDA_SIM_LEAKS", "1"),
    ];
    let body = || unsafe {
        let first = context();
        let mut address = 0;
        ok(cuMemAlloc_v2(&mut address, 100));
        ok(launch());
        ok(cuCtxDestroy_v2(first));
        // And one that the end of the process finds.
        context();
        ok(cuMemAlloc_v2(&mut address, 200));
        let mut host = [0u8; 4];
        ok(cuMemcpyDtoH_v2(host.as_mut_ptr().cast::<c_void>(), address, 4));
        assert_eq!(host, [0xcd; 4]);
    };
    let Some(output) = child("findings_leaks_and_counters_go_where_they_should", &variables, body) else { return };
    let text = std::fs::read_to_string(&report).unwrap();
    for part in
        ["Leaked 100 bytes in 1 allocations", "Leaked 200 bytes", "cuMemAlloc_v2", "4 bytes that nobody has written"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!said(&output).contains("Leaked"), "the report has its own file");
    let lines = std::fs::read_to_string(&counters).unwrap();
    let launch: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((&launch["kernel"], &launch["launch"]), (&"empty".into(), &1.into()));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_table_is_printed_at_exit() {
    let body = || {
        context();
        ok(launch());
        ok(launch());
    };
    let Some(output) = child("a_table_is_printed_at_exit", &[("CUDA_SIM_COUNTERS", "-")], body) else { return };
    let row = said(&output).lines().find(|line| line.starts_with("empty")).map(String::from);
    assert_eq!(row.unwrap().split_whitespace().nth(1), Some("2"));
}

#[test]
fn without_strictness_order_is_not_looked_at() {
    let body = || unsafe {
        context();
        let (mut p, mut a, mut b) = (0, 0, 0);
        ok(cuMemAlloc_v2(&mut p, 16));
        ok(cuda::driver::stream::cuStreamCreate(&mut a, 1));
        ok(cuda::driver::stream::cuStreamCreate(&mut b, 1));
        ok(cuMemsetD8Async(p, 1, 16, a));
        ok(cuMemsetD8Async(p, 1, 16, b));
        ok(cuCtxSynchronize());
    };
    child("without_strictness_order_is_not_looked_at", &[("CUDA_SIM_STRICT", "0")], body);
}
