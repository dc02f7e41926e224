//! A CUDA context with every kernel loaded into it.

use super::compile::{self, Compiled, Source, cached, sources};
use super::library::{self, Libraries, unavailable};
use super::precision::{Arithmetic, Precision};
use crate::backend::{BackendError, ConvPath, Details};
use cudarc::driver::sys;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, DriverError};
use cudarc::nvrtc::Ptx;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// What the driver took of a compiled file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Image {
    Cubin,
    Ptx,
}

impl Image {
    fn name(self) -> &'static str {
        match self {
            Image::Cubin => "cubin",
            Image::Ptx => "ptx",
        }
    }
}

/// Kernels that only precisions below fp32 call: not compiled for others.
const TENSOR_CORES: &str = "conv_mma.cu";
/// Kernels that only fp32 calls, as a choice; benchmarks list them beside the others, so that every device in fp32 has them.
const WINOGRAD: &str = "winograd.cu";

pub(super) struct Device {
    pub context: Arc<CudaContext>,
    name: String,
    /// Compute capability times ten.
    sm: u32,
    arithmetic: Arithmetic,
    libraries: Libraries,
    image: Image,
    kernels_sha256: String,
    functions: HashMap<&'static str, CudaFunction>,
}

impl Device {
    pub fn open(ordinal: usize, arithmetic: Arithmetic) -> Result<Device, BackendError> {
        let libraries = Libraries::get()?;
        let count = library::count()?;
        if ordinal >= count {
            let reason = format!("there is no device {ordinal}: the driver has {count}, numbered from 0");
            return Err(unavailable(reason, "`intervene devices` lists them"));
        }
        let fail = |what: &'static str| move |e: DriverError| device_error(what, e);
        let context = CudaContext::new(ordinal).map_err(fail("opening the device"))?;
        // SAFETY: nothing is allocated yet, and all streams of a program are ordered by its own events. With tracking, every
        // argument of every launch costs two driver calls once there are two streams.
        unsafe { context.disable_event_tracking() };
        let (major, minor) = context.compute_capability().map_err(fail("asking for the compute capability"))?;
        let sm = (10 * major + minor) as u32;
        arithmetic.precision().check(sm)?;
        let name = context.name().map_err(fail("asking for the device's name"))?;
        let fp32 = arithmetic.precision() == Precision::Fp32;
        let wanted = |source: &&Source| source.file != if fp32 { TENSOR_CORES } else { WINOGRAD };
        let sources: Vec<&Source> = sources().iter().filter(wanted).collect();
        let compiled: Vec<Compiled> = sources.par_iter().map(|source| cached(source, sm)).collect::<Result<_, _>>()?;
        let mut functions = HashMap::new();
        let mut image = Image::Cubin;
        for (source, compiled) in sources.into_iter().zip(compiled) {
            let (module, loaded) = load(&context, source.file, compiled)?;
            if loaded == Image::Ptx {
                image = Image::Ptx;
            }
            for &kernel in source.kernels {
                // a kernel for newer chips is not in the image of an older one
                if let Ok(function) = module.load_function(kernel) {
                    functions.insert(kernel, function);
                }
            }
        }
        let kernels_sha256 = compile::hash()?;
        Ok(Device { context, name, sm, arithmetic, libraries, image, kernels_sha256, functions })
    }

    /// The loaded kernel of that name.
    pub fn function(&self, kernel: &'static str) -> Result<&CudaFunction, BackendError> {
        self.functions.get(kernel).ok_or_else(|| BackendError::Device {
            what: format!("kernel {kernel}"),
            reason: format!("it does not exist for sm_{}", self.sm),
        })
    }

    /// How layers are computed.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// What layers are multiplied in.
    pub fn precision(&self) -> Precision {
        self.arithmetic.precision()
    }

    /// `cuda (NVIDIA A100, sm_80)`, with `, tf32` or `, winograd` behind the chip: without its number, for two of a kind compute
    /// the same.
    pub fn description(&self) -> String {
        let arithmetic = match self.arithmetic {
            Arithmetic::In(Precision::Fp32) => String::new(),
            Arithmetic::In(reduced) => format!(", {}", reduced.name()),
            Arithmetic::Winograd => format!(", {}", ConvPath::Winograd.name()),
        };
        let simulated = if self.is_simulated() { ", simulated" } else { "" };
        format!("cuda ({}, sm_{}{arithmetic}{simulated})", self.name, self.sm)
    }

    /// What a manifest says of it.
    pub fn details(&self) -> Details {
        let version = |v: i32| format!("{}.{}", v / 1000, v % 1000 / 10);
        let (major, minor) = self.libraries.compiler;
        let mut notes = vec![
            ("driver_cuda", version(self.libraries.driver)),
            ("nvrtc", format!("{major}.{minor}")),
            ("kernel_image", self.image.name().into()),
            ("precision", self.precision().name().into()),
        ];
        if let Some(v) = self.libraries.simulated {
            notes.push(("simulator", format!("{}.{}.{}", v / 1_000_000, v / 1000 % 1000, v % 1000)));
        }
        let kernels_sha256 = Some(self.kernels_sha256.clone());
        Details { simulated: self.is_simulated(), conv: self.arithmetic.conv(), kernels_sha256, notes }
    }

    /// Compute capability times ten.
    pub fn sm(&self) -> u32 {
        self.sm
    }

    /// Device memory that is free now, in bytes.
    pub fn free_bytes(&self) -> usize {
        self.context.mem_get_info().map_or(0, |(free, _)| free)
    }

    /// The simulated device finds reads of memory that nobody wrote; on others, unwritten slots are filled with NaN.
    pub fn is_simulated(&self) -> bool {
        self.libraries.simulated.is_some()
    }
}

/// The cubin, or the PTX where the driver has no use for the cubin.
fn load(context: &Arc<CudaContext>, file: &str, compiled: Compiled) -> Result<(Arc<CudaModule>, Image), BackendError> {
    use sys::CUresult::{CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_NO_BINARY_FOR_GPU, CUDA_ERROR_UNSUPPORTED_PTX_VERSION};
    let other = |e: &DriverError| {
        [CUDA_ERROR_NO_BINARY_FOR_GPU, CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_UNSUPPORTED_PTX_VERSION].contains(&e.0)
    };
    let fail = |e| device_error(&format!("loading kernels/{file}"), e);
    if let Some(cubin) = compiled.cubin {
        match context.load_module(Ptx::from_binary(cubin)) {
            Ok(module) => return Ok((module, Image::Cubin)),
            Err(e) if other(&e) => {}
            Err(e) => return Err(fail(e)),
        }
    }
    context.load_module(Ptx::from_src(compiled.ptx)).map(|module| (module, Image::Ptx)).map_err(fail)
}

/// A failed driver call.
pub(super) fn device_error(what: &str, error: DriverError) -> BackendError {
    BackendError::Device { what: what.into(), reason: library::text(error) }
}
