//! Finding functions by name: `cuGetProcAddress`; and the profiler's switches.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::call::{api, get, put, put_if, string};
use super::error;
use super::types::*;

/// Variants of a function whose arguments changed, with the CUDA version from which a name without a suffix means them. A
/// suffix that is not here has been what the name means for as long as anybody asks.
const SINCE: [(&str, c_int); 29] = [
    ("cuCtxCreate_v3", 11_040),
    ("cuCtxCreate_v4", 12_050),
    ("cuCtxGetDevice_v2", 13_000),
    ("cuCtxSynchronize_v2", 13_000),
    ("cuDeviceGetUuid_v2", 11_040),
    ("cuEventElapsedTime_v2", 12_080),
    ("cuGetProcAddress_v2", 12_000),
    ("cuGraphAddDependencies_v2", 12_030),
    ("cuGraphAddKernelNode_v2", 12_000),
    ("cuGraphAddNode_v2", 12_030),
    ("cuGraphAddNode_v3", 13_030),
    ("cuGraphExecKernelNodeSetParams_v2", 12_000),
    ("cuGraphExecUpdate_v2", 12_000),
    ("cuGraphGetEdges_v2", 12_030),
    ("cuGraphKernelNodeGetParams_v2", 12_000),
    ("cuGraphKernelNodeSetParams_v2", 12_000),
    ("cuGraphNodeGetDependencies_v2", 12_030),
    ("cuGraphNodeGetDependentNodes_v2", 12_030),
    ("cuGraphNodeSetParams_v2", 13_030),
    ("cuGraphRemoveDependencies_v2", 12_030),
    ("cuLaunchHostFunc_v2", 13_020),
    ("cuMemAdvise_v2", 12_020),
    ("cuMemPrefetchAsync_v2", 12_020),
    ("cuMemcpyBatchAsync_v2", 13_000),
    ("cuStreamBatchMemOp_v2", 11_070),
    ("cuStreamGetCaptureInfo_v2", 11_030),
    ("cuStreamGetCaptureInfo_v3", 12_030),
    ("cuStreamGetCtx_v2", 12_050),
    ("cuStreamUpdateCaptureDependencies_v2", 12_030),
];

/// All exported functions.
fn exports() -> impl Iterator<Item = &'static (&'static str, *const c_void)> {
    [
        super::error::EXPORTS,
        super::device::EXPORTS,
        super::context::EXPORTS,
        super::stream::EXPORTS,
        super::event::EXPORTS,
        super::memory::EXPORTS,
        super::module::EXPORTS,
        super::function::EXPORTS,
        super::occupancy::EXPORTS,
        super::launch::EXPORTS,
        super::graph::EXPORTS,
        super::entry::EXPORTS,
        super::sim::EXPORTS,
        super::unsupported::EXPORTS,
    ]
    .into_iter()
    .flatten()
}

fn exact(name: &str) -> Option<*const c_void> {
    exports().find(|(export, _)| *export == name).map(|(_, function)| *function)
}

/// What a lookup ends with.
enum Found {
    Function(*const c_void),
    /// The name is known, but only from a later version on.
    TooOld,
    Nothing,
}

/// The function that a name means to a program that was written for a version.
fn lookup(name: &str, version: c_int, per_thread: bool) -> Found {
    // In CUDA 12 the name went over to a function that had another one before.
    if name == "cuGraphInstantiate" && version >= 12_000 {
        return exact("cuGraphInstantiateWithFlags").map_or(Found::Nothing, Found::Function);
    }
    let mut too_old = false;
    for suffix in ["_v4", "_v3", "_v2", ""] {
        let candidate = format!("{name}{suffix}");
        let Some(function) = exact(&candidate) else { continue };
        let since = SINCE.iter().find(|(name, _)| *name == candidate).map_or(0, |(_, since)| *since);
        if !suffix.is_empty() && since > version {
            too_old = true;
            continue;
        }
        let own = ["_ptsz", "_ptds"].iter().find_map(|end| exact(&format!("{candidate}{end}")).filter(|_| per_thread));
        return Found::Function(own.unwrap_or(function));
    }
    if too_old { Found::TooOld } else { Found::Nothing }
}

/// `cuGetProcAddress`, with the status that its second variant returns.
unsafe fn get_proc_address(
    name: *const c_char,
    out: *mut *mut c_void,
    version: c_int,
    flags: u64,
    status: *mut c_uint,
) -> error::Answer {
    const PER_THREAD: u64 = 2;
    let name = unsafe { string(name) }?;
    if out.is_null() || flags > 3 {
        return Err(error::INVALID_VALUE);
    }
    let (function, code) = match lookup(&name, version, flags & PER_THREAD != 0) {
        Found::Function(function) => (function.cast_mut(), 0),
        Found::Nothing => (std::ptr::null_mut(), 1),
        Found::TooOld => (std::ptr::null_mut(), 2),
    };
    unsafe {
        put(out, function)?;
        put_if(status, code);
    }
    if function.is_null() { Err(error::NOT_FOUND) } else { Ok(()) }
}

api! {
    [always] cuGetProcAddress(name: *const c_char, out: *mut *mut c_void, version: c_int, flags: u64) |_now| {
        get_proc_address(name, out, version, flags, std::ptr::null_mut())
    }

    [always] cuGetProcAddress_v2(
        name: *const c_char, out: *mut *mut c_void, version: c_int, flags: u64, status: *mut c_uint
    ) |_now| {
        // The status says it all: a name that is not there is no error here.
        if status.is_null() {
            return get_proc_address(name, out, version, flags, status);
        }
        match get_proc_address(name, out, version, flags, status) {
            Err(error::NOT_FOUND) => Ok(()),
            other => other,
        }
    }

    [always] cuGetExportTable(table: *mut *const c_void, id: *const CUuuid) |_now| {
        get(id)?;
        put(table, std::ptr::null())?;
        Err(error::NOT_FOUND)
    }

    [context] cuProfilerStart() |driver, context| { Ok(()) }

    [context] cuProfilerStop() |driver, context| { Ok(()) }

    [driver] cuProfilerInitialize(config: *const c_char, output: *const c_char, mode: c_uint) |driver| {
        Err(error::NOT_SUPPORTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(name: &str, version: c_int, expected: &str) {
        let Found::Function(function) = lookup(name, version, false) else { panic!("{name}") };
        assert_eq!(Some(function), exact(expected), "{name} {version}");
    }

    #[test]
    fn names_mean_what_they_meant_in_their_version() {
        is("cuMemAlloc", 11_040, "cuMemAlloc_v2");
        is("cuMemAlloc_v2", 11_040, "cuMemAlloc_v2");
        is("cuCtxCreate", 11_000, "cuCtxCreate_v2");
        is("cuCtxCreate", 12_000, "cuCtxCreate_v3");
        is("cuCtxCreate", 13_000, "cuCtxCreate_v4");
        is("cuEventElapsedTime", 12_000, "cuEventElapsedTime");
        is("cuEventElapsedTime", 12_080, "cuEventElapsedTime_v2");
        is("cuGraphInstantiate", 11_040, "cuGraphInstantiate_v2");
        is("cuGraphInstantiate", 12_000, "cuGraphInstantiateWithFlags");
        is("cuTexObjectCreate", 12_000, "cuTexObjectCreate");
        assert!(matches!(lookup("cuNoSuchThing", 13_000, false), Found::Nothing));
    }

    #[test]
    fn the_per_thread_variant_is_another_function_where_there_is_one() {
        let Found::Function(function) = lookup("cuLaunchKernel", 12_000, true) else { panic!() };
        assert_eq!(Some(function), exact("cuLaunchKernel_ptsz"));
        let Found::Function(function) = lookup("cuMemcpyHtoD", 12_000, true) else { panic!() };
        assert_eq!(Some(function), exact("cuMemcpyHtoD_v2_ptds"));
        let Found::Function(function) = lookup("cuMemAlloc", 12_000, true) else { panic!() };
        assert_eq!(Some(function), exact("cuMemAlloc_v2"));
    }

    #[test]
    fn no_name_is_exported_twice() {
        let mut names: Vec<&str> = exports().map(|(name, _)| *name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for (name, _) in SINCE {
            assert!(names.contains(&name), "{name}");
        }
    }
}
