//! Names and layouts of `cuda.h`, as far as the simulated driver reads or writes them.
//!
//! A handle is an opaque word here: a number in the shape of a pointer, looked up in a table and never dereferenced, so
//! that a wrong one is an error code and not a crash. An enumeration is passed as its integer, because a caller may pass
//! any.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// `CUresult`
pub type CUresult = u32;
/// `CUdevice`: an ordinal.
pub type CUdevice = c_int;
/// `CUdeviceptr`
pub type CUdeviceptr = u64;
/// `CUcontext`
pub type CUcontext = usize;
/// `CUstream`; 0 and 1 are the legacy default stream, 2 the per-thread one.
pub type CUstream = usize;
/// `CUevent`
pub type CUevent = usize;
/// `CUmodule`
pub type CUmodule = usize;
/// `CUfunction`; where a launch takes one, a `CUkernel` will do.
pub type CUfunction = usize;
/// `CUlibrary`
pub type CUlibrary = usize;
/// `CUkernel`
pub type CUkernel = usize;
/// `CUgraph`
pub type CUgraph = usize;
/// `CUgraphNode`
pub type CUgraphNode = usize;
/// `CUgraphExec`
pub type CUgraphExec = usize;
/// `CUmemoryPool`
pub type CUmemoryPool = usize;
/// `CUlinkState`
pub type CUlinkState = usize;

/// `CUhostFn`
pub type CUhostFn = Option<unsafe extern "C" fn(data: *mut c_void)>;
/// `CUstreamCallback`
pub type CUstreamCallback = Option<unsafe extern "C" fn(stream: CUstream, status: CUresult, data: *mut c_void)>;
/// `CUoccupancyB2DSize`
pub type CUoccupancyB2DSize = Option<unsafe extern "C" fn(block_size: c_int) -> usize>;

/// `CU_STREAM_LEGACY`
pub const STREAM_LEGACY: CUstream = 1;
/// `CU_STREAM_PER_THREAD`
pub const STREAM_PER_THREAD: CUstream = 2;

/// `CUuuid`
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CUuuid {
    pub bytes: [u8; 16],
}

/// `CUdevprop`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, non_snake_case)]
pub struct CUdevprop {
    pub maxThreadsPerBlock: c_int,
    pub maxThreadsDim: [c_int; 3],
    pub maxGridSize: [c_int; 3],
    pub sharedMemPerBlock: c_int,
    pub totalConstantMemory: c_int,
    pub SIMDWidth: c_int,
    pub memPitch: c_int,
    pub regsPerBlock: c_int,
    pub clockRate: c_int,
    pub textureAlign: c_int,
}

/// `CUDA_MEMCPY2D`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, non_snake_case)]
pub struct CUDA_MEMCPY2D {
    pub srcXInBytes: usize,
    pub srcY: usize,
    pub srcMemoryType: c_uint,
    pub srcHost: *const c_void,
    pub srcDevice: CUdeviceptr,
    pub srcArray: usize,
    pub srcPitch: usize,
    pub dstXInBytes: usize,
    pub dstY: usize,
    pub dstMemoryType: c_uint,
    pub dstHost: *mut c_void,
    pub dstDevice: CUdeviceptr,
    pub dstArray: usize,
    pub dstPitch: usize,
    pub WidthInBytes: usize,
    pub Height: usize,
}

/// `CUDA_MEMCPY3D`; `CUDA_MEMCPY3D_PEER` has contexts where this one has reserved words.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, non_snake_case)]
pub struct CUDA_MEMCPY3D {
    pub srcXInBytes: usize,
    pub srcY: usize,
    pub srcZ: usize,
    pub srcLOD: usize,
    pub srcMemoryType: c_uint,
    pub srcHost: *const c_void,
    pub srcDevice: CUdeviceptr,
    pub srcArray: usize,
    pub srcContext: usize,
    pub srcPitch: usize,
    pub srcHeight: usize,
    pub dstXInBytes: usize,
    pub dstY: usize,
    pub dstZ: usize,
    pub dstLOD: usize,
    pub dstMemoryType: c_uint,
    pub dstHost: *mut c_void,
    pub dstDevice: CUdeviceptr,
    pub dstArray: usize,
    pub dstContext: usize,
    pub dstPitch: usize,
    pub dstHeight: usize,
    pub WidthInBytes: usize,
    pub Height: usize,
    pub Depth: usize,
}

/// `CUDA_MEMSET_NODE_PARAMS`
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, non_snake_case)]
pub struct CUDA_MEMSET_NODE_PARAMS {
    pub dst: CUdeviceptr,
    pub pitch: usize,
    pub value: c_uint,
    pub elementSize: c_uint,
    pub width: usize,
    pub height: usize,
}

/// `CUDA_KERNEL_NODE_PARAMS`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, non_snake_case)]
pub struct CUDA_KERNEL_NODE_PARAMS {
    pub func: CUfunction,
    pub gridDimX: c_uint,
    pub gridDimY: c_uint,
    pub gridDimZ: c_uint,
    pub blockDimX: c_uint,
    pub blockDimY: c_uint,
    pub blockDimZ: c_uint,
    pub sharedMemBytes: c_uint,
    pub kernelParams: *mut *mut c_void,
    pub extra: *mut *mut c_void,
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct CUDA_KERNEL_NODE_PARAMS_v2 {
    pub v1: CUDA_KERNEL_NODE_PARAMS,
    pub kern: CUkernel,
    pub ctx: CUcontext,
}

/// `CUDA_HOST_NODE_PARAMS`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, non_snake_case)]
pub struct CUDA_HOST_NODE_PARAMS {
    pub function: CUhostFn,
    pub userData: *mut c_void,
}

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, non_snake_case)]
pub struct CUDA_GRAPH_INSTANTIATE_PARAMS {
    pub flags: u64,
    pub hUploadStream: CUstream,
    pub hErrNode_out: CUgraphNode,
    pub result_out: c_uint,
}

/// `CUgraphExecUpdateResultInfo`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, non_snake_case)]
pub struct CUgraphExecUpdateResultInfo {
    pub result: c_uint,
    pub errorNode: CUgraphNode,
    pub errorFromNode: CUgraphNode,
}

/// `CUlaunchAttribute`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct CUlaunchAttribute {
    pub id: c_uint,
    pub pad: [c_char; 4],
    /// A union of 64 bytes whose members all start with 32-bit words or pointers.
    pub value: [u64; 8],
}

/// `CUlaunchConfig`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, non_snake_case)]
pub struct CUlaunchConfig {
    pub gridDimX: c_uint,
    pub gridDimY: c_uint,
    pub gridDimZ: c_uint,
    pub blockDimX: c_uint,
    pub blockDimY: c_uint,
    pub blockDimZ: c_uint,
    pub sharedMemBytes: c_uint,
    pub hStream: CUstream,
    pub attrs: *mut CUlaunchAttribute,
    pub numAttrs: c_uint,
}

/// `CUmemLocation`
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CUmemLocation {
    pub kind: c_uint,
    pub id: c_int,
}

/// `CUmemPoolProps`; the driver reads its head only, which all versions share.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, non_snake_case)]
pub struct CUmemPoolProps {
    pub allocType: c_uint,
    pub handleTypes: c_uint,
    pub location: CUmemLocation,
    pub win32SecurityAttributes: *mut c_void,
    pub maxSize: usize,
    pub reserved: [u8; 56],
}

/// `CUmemAccessDesc`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct CUmemAccessDesc {
    pub location: CUmemLocation,
    pub flags: c_uint,
}

/// `CUctxCreateParams`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, non_snake_case)]
pub struct CUctxCreateParams {
    pub execAffinityParams: *mut c_void,
    pub numExecAffinityParams: c_int,
    pub cigParams: *mut c_void,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::size_of;

    // Sizes that a C compiler gives the structures of cuda.h on a 64-bit machine.
    #[test]
    fn layouts_have_the_sizes_of_cuda_h() {
        assert_eq!(size_of::<CUDA_MEMCPY2D>(), 128);
        assert_eq!(size_of::<CUDA_MEMCPY3D>(), 200);
        assert_eq!(size_of::<CUDA_MEMSET_NODE_PARAMS>(), 40);
        assert_eq!(size_of::<CUDA_KERNEL_NODE_PARAMS>(), 56);
        assert_eq!(size_of::<CUDA_KERNEL_NODE_PARAMS_v2>(), 72);
        assert_eq!(size_of::<CUDA_HOST_NODE_PARAMS>(), 16);
        assert_eq!(size_of::<CUDA_GRAPH_INSTANTIATE_PARAMS>(), 32);
        assert_eq!(size_of::<CUlaunchAttribute>(), 72);
        assert_eq!(size_of::<CUlaunchConfig>(), 56);
        assert_eq!(size_of::<CUmemPoolProps>(), 88);
        assert_eq!(size_of::<CUdevprop>(), 56);
        assert_eq!(size_of::<CUuuid>(), 16);
    }
}
