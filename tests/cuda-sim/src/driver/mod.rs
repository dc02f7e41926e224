//! The CUDA driver API in C over the simulated device, as `libcuda.so.1` exports it.
//!
//! Every call runs to its end before it returns, in the order of the calls, under one lock; what streams leave open is not
//! played through but checked ([`order`]). The variables of [`environment`] choose the device.
//!
//! **Errors of kernels** are reported in the words of compute-sanitizer (standard error, or `CUDA_SIM_REPORT`). The launch
//! returns success, and every later call that needs the context returns the error (700, 702, 710, 715, 716, 719), until the
//! context is destroyed or the primary context reset. So does a race between streams, which a device would not notice. A
//! copy or fill outside of an allocation is reported and returns 1 at once; a copy to the host of bytes that nobody wrote
//! and memory that is left over are reported and no more.
//!
//! **Functions of its own**, beside those of `cuda.h`:
//!
//! ```c
//! CUresult cuSimVersion(int *version);                     // 1000000 * major + 1000 * minor + patch
//! CUresult cuSimCounters(char *buffer, size_t *length);    // JSON since the start or the last reset
//! CUresult cuSimReset(void);                               // counters to zero
//! ```
//!
//! `cuSimCounters` sets `*length` to the bytes needed, the zero at the end included; with a null buffer that is all it
//! does, and with one that is too small it returns `CUDA_ERROR_INVALID_VALUE`. The object has `operations` on streams by
//! kind, bytes `copied` by direction, `findings` by kind, totals of `kernels` by name, and the last 4096 `launches` with
//! all that was counted in each (`dropped`: how many came before those).
//!
//! **Where it differs from a device**: host functions of streams run within the call that enqueues them, and a query never
//! answers `CUDA_ERROR_NOT_READY`. `cuEventElapsedTime` is the host's time. Registers of a kernel are an estimate, which
//! counts for occupancy and never refuses a launch. What the device lacks is listed in [`unsupported`].

mod call;
pub mod context;
pub mod device;
pub mod entry;
pub mod environment;
pub mod error;
pub mod event;
pub mod function;
pub mod graph;
pub mod launch;
pub mod memory;
pub mod module;
pub mod occupancy;
pub mod order;
pub mod sim;
mod state;
pub mod stream;
pub mod types;
pub mod unsupported;
mod work;
