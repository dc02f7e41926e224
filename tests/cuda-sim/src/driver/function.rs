//! Functions and kernels: what they need and what is set for them.

use std::ffi::{CString, c_char, c_int, c_uint};
use std::sync::Arc;

use super::call::{api, put, put_if};
use super::error::{self, Answer};
use super::occupancy::Needs;
use super::state::Driver;
use super::types::*;
use crate::exec::occupancy::Limits;
use crate::program::{Entry, Program};

/// A function of a module.
pub(crate) struct Function {
    pub module: CUmodule,
    /// Index into the program's entries.
    pub index: usize,
    name: CString,
    settings: Settings,
}

/// What `cuFuncSetAttribute` sets.
#[derive(Debug, Clone, Copy)]
struct Settings {
    /// Bytes of dynamic shared memory at most; none: 48 KiB together with the static ones.
    dynamic_limit: Option<usize>,
    /// Percent of the L1 cache for shared memory, -1 for any.
    carveout: c_int,
}

const DEFAULTS: Settings = Settings { dynamic_limit: None, carveout: -1 };

impl Function {
    pub fn new(module: CUmodule, index: usize, name: &str) -> Answer<Function> {
        let name = CString::new(name).map_err(|_| error::NOT_FOUND)?;
        Ok(Function { module, index, name, settings: DEFAULTS })
    }
}

/// A kernel of a library: a function in every context.
pub(crate) struct Kernel {
    pub library: CUlibrary,
    pub name: CString,
}

impl Kernel {
    pub fn new(library: CUlibrary, name: &str) -> Answer<Kernel> {
        Ok(Kernel { library, name: CString::new(name).map_err(|_| error::NOT_FOUND)? })
    }
}

/// A function's program, its place there and what is set for it.
pub(crate) struct Loaded {
    pub program: Arc<Program>,
    pub index: usize,
    pub context: CUcontext,
    target: u32,
    settings: Settings,
}

impl Loaded {
    pub fn entry(&self) -> Answer<&Entry> {
        self.program.entries.get(self.index).ok_or(error::INVALID_HANDLE)
    }

    /// Dynamic shared memory that a launch may ask for.
    pub fn dynamic_limit(&self) -> Answer<usize> {
        let entry = self.entry()?;
        Ok(self.settings.dynamic_limit.unwrap_or(Limits::SHARED_DEFAULT.saturating_sub(entry.static_shared)))
    }

    /// What a block takes of a multiprocessor.
    pub fn needs(&self) -> Answer<Needs> {
        let entry = self.entry()?;
        Ok(Needs {
            registers: entry.registers,
            static_shared: entry.static_shared,
            max_threads: entry.max_threads.min(Limits::BLOCK_THREADS),
            carveout: self.settings.carveout,
            large_shared: self.settings.dynamic_limit.is_some_and(|limit| limit > Limits::SHARED_DEFAULT),
        })
    }
}

impl Driver {
    pub fn loaded(&self, function: CUfunction) -> Answer<Loaded> {
        let function = self.functions.find(function)?;
        let module = self.modules.find(function.module)?;
        Ok(Loaded {
            program: module.program.clone(),
            index: function.index,
            context: module.context,
            target: module.target,
            settings: function.settings,
        })
    }

    fn function_attribute(&self, attribute: c_uint, function: CUfunction) -> Answer<c_int> {
        let loaded = self.loaded(function)?;
        let entry = loaded.entry()?;
        let value = match attribute {
            0 => entry.max_threads.min(Limits::BLOCK_THREADS) as usize,
            1 => entry.static_shared,
            2 => 0, // constant variables belong to the module, not to a kernel
            3 => entry.local_bytes,
            4 => entry.registers as usize,
            5 => loaded.target as usize,
            6 => self.environment.sm as usize,
            7 => 0,
            8 => loaded.dynamic_limit()?,
            9 => return Ok(loaded.settings.carveout),
            10 => 0,      // CLUSTER_SIZE_MUST_BE_SET
            11..=13 => 0, // REQUIRED_CLUSTER_WIDTH, _HEIGHT, _DEPTH
            14 => 0,      // NON_PORTABLE_CLUSTER_SIZE_ALLOWED
            15 => 0,      // CLUSTER_SCHEDULING_POLICY_PREFERENCE
            _ => return Err(error::INVALID_VALUE),
        };
        Ok(c_int::try_from(value).unwrap_or(c_int::MAX))
    }

    fn set_function_attribute(&mut self, function: CUfunction, attribute: c_uint, value: c_int) -> Answer {
        let limit = self.chip.limits.shared_optin;
        let loaded = self.loaded(function)?;
        let room = limit.saturating_sub(loaded.entry()?.static_shared);
        let settings = &mut self.functions.find_mut(function)?.settings;
        match attribute {
            8 => {
                let bytes = usize::try_from(value).map_err(|_| error::INVALID_VALUE)?;
                if bytes > room {
                    return Err(error::INVALID_VALUE);
                }
                settings.dynamic_limit = Some(bytes);
            }
            9 if (-1..=100).contains(&value) => settings.carveout = value,
            10..=15 => return Err(error::NOT_SUPPORTED), // clusters
            _ => return Err(error::INVALID_VALUE),
        }
        Ok(())
    }

    fn param(&self, function: CUfunction, index: usize) -> Answer<(usize, usize)> {
        let loaded = self.loaded(function)?;
        loaded.entry()?.params.get(index).copied().ok_or(error::INVALID_VALUE)
    }
}

/// Calls with the primary context of a device, as the functions of kernels that name a device want.
fn on_device(
    driver: &mut Driver,
    kernel: CUkernel,
    device: CUdevice,
    call: impl FnOnce(&mut Driver, CUfunction) -> Answer,
) -> Answer {
    driver.kernels.find(kernel)?;
    let current = super::call::current_handle();
    let own = driver.contexts.get(current).is_some_and(|context| context.device == device);
    let context = if own { current } else { driver.device(device)?.primary };
    driver.contexts.get(context).ok_or(error::INVALID_CONTEXT)?;
    let function = driver.function(kernel, context)?;
    call(driver, function)
}

fn cache_config(config: c_uint) -> Answer {
    if config <= 3 { Ok(()) } else { Err(error::INVALID_VALUE) }
}

api! {
    [context] cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: CUfunction) |driver, context| {
        if value.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let function = driver.function(function, context)?;
        put(value, driver.function_attribute(attribute, function)?)
    }

    [context] cuFuncSetAttribute(function: CUfunction, attribute: c_uint, value: c_int) |driver, context| {
        let function = driver.function(function, context)?;
        driver.set_function_attribute(function, attribute, value)
    }

    [context] cuFuncSetCacheConfig(function: CUfunction, config: c_uint) |driver, context| {
        driver.function(function, context)?;
        cache_config(config)
    }

    [context] cuFuncSetSharedMemConfig(function: CUfunction, config: c_uint) |driver, context| {
        driver.function(function, context)?;
        if config <= 2 { Ok(()) } else { Err(error::INVALID_VALUE) }
    }

    [context] cuFuncGetModule(module: *mut CUmodule, function: CUfunction) |driver, context| {
        let function = driver.function(function, context)?;
        put(module, driver.functions.find(function)?.module)
    }

    [context] cuFuncGetName(name: *mut *const c_char, function: CUfunction) |driver, context| {
        let function = driver.function(function, context)?;
        put(name, driver.functions.find(function)?.name.as_ptr())
    }

    [context] cuFuncGetParamInfo(function: CUfunction, index: usize, offset: *mut usize, size: *mut usize)
    |driver, context| {
        let function = driver.function(function, context)?;
        let param = driver.param(function, index)?;
        put_if(size, param.1);
        put(offset, param.0)
    }

    [context] cuFuncGetParamCount(function: CUfunction, count: *mut usize) |driver, context| {
        let function = driver.function(function, context)?;
        put(count, driver.loaded(function)?.entry()?.params.len())
    }

    [context] cuFuncIsLoaded(state: *mut c_uint, function: CUfunction) |driver, context| {
        driver.function(function, context)?;
        put(state, 1)
    }

    [context] cuFuncLoad(function: CUfunction) |driver, context| { driver.function(function, context).map(|_| ()) }

    [driver] cuKernelGetName(name: *mut *const c_char, kernel: CUkernel) |driver| {
        put(name, driver.kernels.find(kernel)?.name.as_ptr())
    }

    [driver] cuKernelGetAttribute(value: *mut c_int, attribute: c_uint, kernel: CUkernel, device: CUdevice) |driver| {
        on_device(driver, kernel, device, |driver, function| put(value, driver.function_attribute(attribute, function)?))
    }

    [driver] cuKernelSetAttribute(attribute: c_uint, value: c_int, kernel: CUkernel, device: CUdevice) |driver| {
        on_device(driver, kernel, device, |driver, function| driver.set_function_attribute(function, attribute, value))
    }

    [driver] cuKernelSetCacheConfig(kernel: CUkernel, config: c_uint, device: CUdevice) |driver| {
        driver.kernels.find(kernel)?;
        driver.device(device)?;
        cache_config(config)
    }

    [context] cuKernelGetParamInfo(kernel: CUkernel, index: usize, offset: *mut usize, size: *mut usize)
    |driver, context| {
        driver.kernels.find(kernel)?;
        let function = driver.function(kernel, context)?;
        let param = driver.param(function, index)?;
        put_if(size, param.1);
        put(offset, param.0)
    }

    [context] cuKernelGetParamCount(kernel: CUkernel, count: *mut usize) |driver, context| {
        driver.kernels.find(kernel)?;
        let function = driver.function(kernel, context)?;
        put(count, driver.loaded(function)?.entry()?.params.len())
    }
}
