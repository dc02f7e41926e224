//! The CUDA device: hand-written kernels (`kernels/*.cu`, embedded by `build.rs`), compiled by NVRTC where they run.
//!
//! Nothing is linked: driver and NVRTC are loaded if they are there, and a machine without them gets a typed reason. What
//! runs on the simulated device of `tests/cuda-sim` says so in the device's name.
//! - `library`: finds the driver and NVRTC, without a panic when there is none.
//! - `compile`: source to cubin and PTX, through a cache on disk; what a kernel takes. `occupancy`: what that fills.
//! - `device`: a context with its kernels loaded.
//! - `launch`: one typed launcher a kernel; the only place where kernels are called.
//! - `step`: which launcher an op takes. `program`: a planned graph in device memory, and its runs.
//! - `precision`: what convolutions and linear layers round their operands to, and by which path they run.
//! - `pixels`: masks and noise on images, made on the device.
//! - `sass`: the instructions of a kernel's main loop. `roofline`: what published figures of chips make of them.
//! - `trial`: a problem of the benchmarks with its operands, to be timed, or counted by `counts` on a simulated device.

mod compile;
mod counts;
mod device;
mod launch;
mod library;
mod occupancy;
mod pixels;
mod precision;
mod program;
mod roofline;
mod sass;
mod step;
mod trial;

use super::{Backend, BackendError, Details, Parameters, Program};
use crate::graph::plan::{Artifact, Footprint};
use device::Device;
use std::sync::Arc;

pub use compile::{Compiled, Resources, Source, cached, compile, sources};
pub use counts::Counts;
pub use launch::mask::Masks;
pub use library::{Libraries, compiler, count};
pub use occupancy::{Limit, Occupancy};
pub use pixels::Images;
pub use precision::{Arithmetic, Precision};
pub use roofline::{CHIPS, Chip, Estimate};
pub use sass::{MainLoop, main_loops};
pub use trial::{Trial, kernel_of, on_tensor_cores};

/// One CUDA device with its kernels; a copy is the same device.
#[derive(Clone)]
pub struct Cuda {
    device: Arc<Device>,
}

impl Cuda {
    /// Device number `ordinal`, in fp32.
    ///
    /// # Errors
    /// As [`Cuda::open_with`].
    pub fn open(ordinal: usize) -> Result<Cuda, BackendError> {
        Cuda::open_with(ordinal, Precision::Fp32)
    }

    /// Device number `ordinal`, which computes layers so; its name says what is not exact in fp32.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] with what is missing (also tensor cores, for a precision that needs them) and what to do,
    /// [`BackendError::Compile`] with NVRTC's log, [`BackendError::Device`].
    pub fn open_with(ordinal: usize, arithmetic: impl Into<Arithmetic>) -> Result<Cuda, BackendError> {
        Ok(Cuda { device: Arc::new(Device::open(ordinal, arithmetic.into())?) })
    }

    /// Its chip: compute capability times ten.
    pub fn sm(&self) -> u32 {
        self.device.sm()
    }

    /// Whether it is a simulated device.
    pub fn is_simulated(&self) -> bool {
        self.device.is_simulated()
    }
}

impl Backend for Cuda {
    fn name(&self) -> String {
        self.device.description()
    }

    fn details(&self) -> Details {
        self.device.details()
    }

    /// An eighth of the free memory, at most 256 MB: 4 times as many rows as fill a large chip with the smallest of our layers.
    fn batch_rows(&self, footprint: Footprint) -> usize {
        ((self.device.free_bytes() / 8).clamp(32 << 20, 256 << 20) / footprint.row.max(1)).max(1)
    }

    fn load(&self, plan: Artifact, weights: &dyn Parameters) -> Result<Box<dyn Program>, BackendError> {
        Ok(Box::new(program::CudaProgram::load(self.device.clone(), plan, weights)?))
    }
}
