//! Modules and libraries: images in, functions and variables out.
//!
//! Why an image is refused goes to the error log buffer if the caller gives one, and to standard error in any case.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_uint, c_void};
use std::sync::Arc;

use super::call::{api, get_many, put, put_if, string};
use super::device::PTX_VERSION;
use super::error::{self, Answer};
use super::function::{Function, Kernel};
use super::state::Driver;
use super::types::*;
use crate::program::{LoadError, Program};
use crate::ptx;
use crate::ptx::container::{self, ImageError};

/// A module in a context.
pub(crate) struct Module {
    pub context: CUcontext,
    pub program: Arc<Program>,
    /// `.target`
    pub target: u32,
    pub library: Option<CUlibrary>,
    functions: BTreeMap<String, CUfunction>,
}

/// A library: a module for every context that uses it.
pub(crate) struct Library {
    syntax: Arc<ptx::ast::Module>,
    modules: BTreeMap<CUcontext, CUmodule>,
    kernels: BTreeMap<String, CUkernel>,
}

/// A linker's input and output.
pub(crate) struct Link {
    options: JitOptions,
    text: Option<String>,
    /// The text with a zero behind it, which `cuLinkComplete` points at.
    image: Vec<u8>,
}

/// Why an image is refused.
struct Refusal {
    code: CUresult,
    why: String,
}

impl Refusal {
    fn new(code: CUresult, why: impl std::fmt::Display) -> Refusal {
        Refusal { code, why: why.to_string() }
    }
}

/// Copies an image that is known by its address only.
///
/// # Safety
/// The address is that of an image.
unsafe fn image_at(address: *const c_void) -> Result<Vec<u8>, Refusal> {
    let read = |from: u64, to: &mut [u8]| {
        // SAFETY: the caller vouches for the image, and the format says how far it goes.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        true
    };
    container::gather(address as u64, read).map_err(refused_image)
}

fn refused_image(problem: ImageError) -> Refusal {
    let code = match problem {
        ImageError::NoBinary => error::NO_BINARY_FOR_GPU,
        ImageError::Invalid(_) => error::INVALID_IMAGE,
        ImageError::Unsupported(_) => error::NOT_SUPPORTED,
    };
    Refusal::new(code, problem)
}

/// The syntax tree of an image.
fn syntax(image: &[u8], sm: u32) -> Result<ptx::ast::Module, Refusal> {
    let text = container::text(image, sm).map_err(refused_image)?;
    let module = ptx::parse(&text).map_err(|problem| Refusal::new(error::INVALID_PTX, format!("ptx {problem}")))?;
    if module.version > PTX_VERSION {
        let ((major, minor), newest) = (module.version, PTX_VERSION);
        let why = format!("PTX .version {major}.{minor} is newer than {}.{}", newest.0, newest.1);
        return Err(Refusal::new(error::UNSUPPORTED_PTX_VERSION, why));
    }
    Ok(module)
}

fn refused_program(problem: LoadError) -> Refusal {
    let code = match problem {
        LoadError::Target { .. } => error::NO_BINARY_FOR_GPU,
        LoadError::Memory => error::OUT_OF_MEMORY,
        LoadError::Syntax { .. } | LoadError::Unsupported { .. } | LoadError::Undefined { .. } => error::INVALID_PTX,
    };
    Refusal::new(code, problem)
}

/// The options of a load that leave something behind.
#[derive(Debug, Clone, Copy, Default)]
struct JitOptions {
    /// Where the array of values is.
    values: usize,
    error: Option<Log>,
    info: Option<Log>,
    wall_time: Option<usize>,
}

/// A log buffer, and the place in the array of values that takes its length.
#[derive(Debug, Clone, Copy, Default)]
struct Log {
    buffer: usize,
    size: usize,
    slot: Option<usize>,
}

impl JitOptions {
    /// # Safety
    /// The arrays are null or have `count` elements; the buffers are as large as they say.
    unsafe fn read(count: c_uint, options: *const c_uint, values: *mut *mut c_void) -> Answer<JitOptions> {
        let options = unsafe { get_many(options, count as usize) }?;
        let given = unsafe { get_many(values.cast_const(), count as usize) }?;
        let mut read = JitOptions { values: values as usize, ..JitOptions::default() };
        for (i, (option, value)) in options.into_iter().zip(given).enumerate() {
            let value = value as usize;
            match option {
                2 => read.wall_time = Some(i),
                3 => read.info.get_or_insert_default().buffer = value,
                4 => {
                    (read.info.get_or_insert_default().size, read.info.get_or_insert_default().slot) =
                        (value as u32 as usize, Some(i))
                }
                5 => read.error.get_or_insert_default().buffer = value,
                6 => {
                    (read.error.get_or_insert_default().size, read.error.get_or_insert_default().slot) =
                        (value as u32 as usize, Some(i))
                }
                0..64 => {} // how to compile, which makes no difference here
                _ => return Err(error::INVALID_VALUE),
            }
        }
        Ok(read)
    }

    /// Writes the logs and their lengths.
    ///
    /// # Safety
    /// As for `read`, still.
    unsafe fn finish(&self, error_text: &str) {
        let slot = |i: usize| unsafe { (self.values as *mut usize).add(i) };
        for (log, text) in [(self.error, error_text), (self.info, "")] {
            let Some(log) = log else { continue };
            let room = if log.buffer == 0 { 0 } else { log.size };
            let bytes = &text.as_bytes()[..text.len().min(room.saturating_sub(1))];
            if room > 0 {
                unsafe {
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), log.buffer as *mut u8, bytes.len());
                    (log.buffer as *mut u8).add(bytes.len()).write(0);
                }
            }
            if let Some(i) = log.slot {
                unsafe { slot(i).write_unaligned(bytes.len()) };
            }
        }
        if let Some(i) = self.wall_time {
            unsafe { slot(i).cast::<f32>().write_unaligned(0.0) };
        }
    }
}

impl Driver {
    fn refuse(&self, refusal: Refusal) -> CUresult {
        eprintln!("cuda-sim: {}: {} ({})", self.call, refusal.why, error::name(refusal.code));
        refusal.code
    }

    fn add_module(
        &mut self,
        context: CUcontext,
        syntax: &ptx::ast::Module,
        library: Option<CUlibrary>,
    ) -> Result<CUmodule, Refusal> {
        let device = self.contexts.find(context).map_err(|code| Refusal::new(code, "no context"))?.device;
        let sm = self.environment.sm;
        let program = Program::load(syntax, sm, device as u32, &self.memory).map_err(refused_program)?;
        let program = Arc::new(program);
        let functions = BTreeMap::new();
        Ok(self.modules.insert(Module { context, program, target: syntax.target, library, functions }))
    }

    /// Loads an image into the context.
    unsafe fn load(&mut self, context: CUcontext, image: &[u8], options: &JitOptions) -> Answer<CUmodule> {
        let loaded = syntax(image, self.environment.sm).and_then(|syntax| self.add_module(context, &syntax, None));
        match loaded {
            Ok(module) => {
                unsafe { options.finish("") };
                Ok(module)
            }
            Err(refusal) => {
                unsafe { options.finish(&refusal.why) };
                Err(self.refuse(refusal))
            }
        }
    }

    unsafe fn load_at(&mut self, context: CUcontext, address: *const c_void, options: &JitOptions) -> Answer<CUmodule> {
        if address.is_null() {
            return Err(error::INVALID_VALUE);
        }
        self.no_unsafe_call_in_capture(context)?;
        let image = unsafe { image_at(address) }.map_err(|refusal| self.refuse(refusal))?;
        unsafe { self.load(context, &image, options) }
    }

    pub fn unload_module(&mut self, module: CUmodule) {
        let Ok(gone) = self.modules.remove(module) else { return };
        for function in gone.functions.values() {
            let _ = self.functions.remove(*function);
        }
        if let Some(library) = gone.library
            && let Ok(library) = self.libraries.find_mut(library)
        {
            library.modules.retain(|_, own| *own != module);
        }
        for variable in &gone.program.variables {
            self.order.forget(variable.address, variable.address + variable.bytes as u64);
        }
        gone.program.unload(&self.memory);
    }

    /// The function of a name, always with the same handle.
    fn function_named(&mut self, module: CUmodule, name: &str) -> Answer<CUfunction> {
        let found = self.modules.find(module)?;
        if let Some(&function) = found.functions.get(name) {
            return Ok(function);
        }
        let index = found.program.entries.iter().position(|entry| entry.name == name).ok_or(error::NOT_FOUND)?;
        let function = self.functions.insert(Function::new(module, index, name)?);
        self.modules.find_mut(module)?.functions.insert(name.into(), function);
        Ok(function)
    }

    /// The function that a handle means in the context: a kernel of a library is one of its module there.
    pub fn function(&mut self, handle: CUfunction, context: CUcontext) -> Answer<CUfunction> {
        if self.functions.get(handle).is_some() {
            return Ok(handle);
        }
        let kernel = self.kernels.find(handle)?;
        let (library, name) = (kernel.library, kernel.name.to_string_lossy().into_owned());
        let module = self.library_module(library, context)?;
        self.function_named(module, &name)
    }

    fn library_module(&mut self, library: CUlibrary, context: CUcontext) -> Answer<CUmodule> {
        let found = self.libraries.find(library)?;
        if let Some(&module) = found.modules.get(&context) {
            return Ok(module);
        }
        let syntax = found.syntax.clone();
        let module = self.add_module(context, &syntax, Some(library)).map_err(|refusal| self.refuse(refusal))?;
        self.libraries.find_mut(library)?.modules.insert(context, module);
        Ok(module)
    }

    fn load_library(&mut self, image: &[u8], options: &JitOptions) -> Answer<CUlibrary> {
        match syntax(image, self.environment.sm) {
            Ok(syntax) => {
                unsafe { options.finish("") };
                let syntax = Arc::new(syntax);
                Ok(self.libraries.insert(Library { syntax, modules: BTreeMap::new(), kernels: BTreeMap::new() }))
            }
            Err(refusal) => {
                unsafe { options.finish(&refusal.why) };
                Err(self.refuse(refusal))
            }
        }
    }

    fn kernel_named(&mut self, library: CUlibrary, name: &str) -> Answer<CUkernel> {
        let found = self.libraries.find(library)?;
        if let Some(&kernel) = found.kernels.get(name) {
            return Ok(kernel);
        }
        if !entry_names(&found.syntax).any(|entry| entry == name) {
            return Err(error::NOT_FOUND);
        }
        let kernel = self.kernels.insert(Kernel::new(library, name)?);
        self.libraries.find_mut(library)?.kernels.insert(name.into(), kernel);
        Ok(kernel)
    }

    unsafe fn variable(
        &self,
        module: CUmodule,
        name: *const c_char,
        address: *mut CUdeviceptr,
        bytes: *mut usize,
    ) -> Answer {
        let module = self.modules.find(module)?;
        let name = unsafe { string(name) }?;
        let found = module.program.variables.iter().find(|variable| variable.name == name).ok_or(error::NOT_FOUND)?;
        unsafe {
            put_if(address, found.address);
            put_if(bytes, found.bytes);
        }
        Ok(())
    }
}

fn entry_names(syntax: &ptx::ast::Module) -> impl Iterator<Item = &str> {
    syntax.functions.iter().filter(|function| function.entry && function.body.is_some()).map(|f| f.name.as_str())
}

fn file(name: &str) -> Answer<Vec<u8>> {
    std::fs::read(name).map_err(|_| error::FILE_NOT_FOUND)
}

/// Checks the options of a library, which make no difference here.
unsafe fn library_options(count: c_uint, options: *const c_uint) -> Answer {
    let known = unsafe { get_many(options, count as usize) }?.iter().all(|&option| option < 2);
    if known { Ok(()) } else { Err(error::INVALID_VALUE) }
}

api! {
    [context] cuModuleLoad(module: *mut CUmodule, name: *const c_char) |driver, context| {
        if module.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let image = file(&string(name)?)?;
        driver.no_unsafe_call_in_capture(context)?;
        put(module, driver.load(context, &image, &JitOptions::default())?)
    }

    [context] cuModuleLoadData(module: *mut CUmodule, image: *const c_void) |driver, context| {
        if module.is_null() {
            return Err(error::INVALID_VALUE);
        }
        put(module, driver.load_at(context, image, &JitOptions::default())?)
    }

    [context] cuModuleLoadDataEx(
        module: *mut CUmodule, image: *const c_void, count: c_uint, options: *mut c_uint, values: *mut *mut c_void
    ) |driver, context| {
        if module.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let options = JitOptions::read(count, options, values)?;
        put(module, driver.load_at(context, image, &options)?)
    }

    [context] cuModuleLoadFatBinary(module: *mut CUmodule, image: *const c_void) |driver, context| {
        if module.is_null() {
            return Err(error::INVALID_VALUE);
        }
        put(module, driver.load_at(context, image, &JitOptions::default())?)
    }

    [context] cuModuleUnload(module: CUmodule) |driver, context| {
        // The module of a library goes with the library.
        if driver.modules.find(module)?.library.is_some() {
            return Err(error::INVALID_HANDLE);
        }
        driver.no_unsafe_call_in_capture(context)?;
        driver.unload_module(module);
        Ok(())
    }

    [driver] cuModuleGetLoadingMode(mode: *mut c_uint) |driver| { put(mode, 1) }

    [context] cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char) |driver, context| {
        if function.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let name = string(name)?;
        put(function, driver.function_named(module, &name)?)
    }

    [context] cuModuleGetFunctionCount(count: *mut c_uint, module: CUmodule) |driver, context| {
        put(count, driver.modules.find(module)?.program.entries.len() as c_uint)
    }

    [context] cuModuleEnumerateFunctions(functions: *mut CUfunction, count: c_uint, module: CUmodule) |driver, context| {
        let program = driver.modules.find(module)?.program.clone();
        for (i, entry) in program.entries.iter().take(count as usize).enumerate() {
            put(functions.wrapping_add(i), driver.function_named(module, &entry.name)?)?;
        }
        Ok(())
    }

    [context] cuModuleGetGlobal_v2(address: *mut CUdeviceptr, bytes: *mut usize, module: CUmodule, name: *const c_char)
    |driver, context| {
        driver.variable(module, name, address, bytes)
    }

    // Libraries

    [driver] cuLibraryLoadData(
        library: *mut CUlibrary, image: *const c_void, jit_options: *mut c_uint, jit_values: *mut *mut c_void,
        jit_count: c_uint, options: *mut c_uint, values: *mut *mut c_void, count: c_uint
    ) |driver| {
        if library.is_null() || image.is_null() {
            return Err(error::INVALID_VALUE);
        }
        library_options(count, options)?;
        let options = JitOptions::read(jit_count, jit_options, jit_values)?;
        let image = image_at(image).map_err(|refusal| driver.refuse(refusal))?;
        put(library, driver.load_library(&image, &options)?)
    }

    [driver] cuLibraryLoadFromFile(
        library: *mut CUlibrary, name: *const c_char, jit_options: *mut c_uint, jit_values: *mut *mut c_void,
        jit_count: c_uint, options: *mut c_uint, values: *mut *mut c_void, count: c_uint
    ) |driver| {
        if library.is_null() {
            return Err(error::INVALID_VALUE);
        }
        library_options(count, options)?;
        let options = JitOptions::read(jit_count, jit_options, jit_values)?;
        let image = file(&string(name)?)?;
        put(library, driver.load_library(&image, &options)?)
    }

    [driver] cuLibraryUnload(library: CUlibrary) |driver| {
        let gone = driver.libraries.remove(library)?;
        for module in gone.modules.into_values() {
            driver.unload_module(module);
        }
        for kernel in gone.kernels.into_values() {
            driver.kernels.remove(kernel)?;
        }
        Ok(())
    }

    [driver] cuLibraryGetKernel(kernel: *mut CUkernel, library: CUlibrary, name: *const c_char) |driver| {
        if kernel.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let name = string(name)?;
        put(kernel, driver.kernel_named(library, &name)?)
    }

    [driver] cuLibraryGetKernelCount(count: *mut c_uint, library: CUlibrary) |driver| {
        put(count, entry_names(&driver.libraries.find(library)?.syntax).count() as c_uint)
    }

    [driver] cuLibraryEnumerateKernels(kernels: *mut CUkernel, count: c_uint, library: CUlibrary) |driver| {
        let syntax = driver.libraries.find(library)?.syntax.clone();
        for (i, name) in entry_names(&syntax).take(count as usize).enumerate() {
            put(kernels.wrapping_add(i), driver.kernel_named(library, name)?)?;
        }
        Ok(())
    }

    [context] cuLibraryGetModule(module: *mut CUmodule, library: CUlibrary) |driver, context| {
        if module.is_null() {
            return Err(error::INVALID_VALUE);
        }
        put(module, driver.library_module(library, context)?)
    }

    [context] cuLibraryGetGlobal(address: *mut CUdeviceptr, bytes: *mut usize, library: CUlibrary, name: *const c_char)
    |driver, context| {
        let module = driver.library_module(library, context)?;
        driver.variable(module, name, address, bytes)
    }

    [context] cuKernelGetFunction(function: *mut CUfunction, kernel: CUkernel) |driver, context| {
        if function.is_null() {
            return Err(error::INVALID_VALUE);
        }
        driver.kernels.find(kernel)?;
        put(function, driver.function(kernel, context)?)
    }

    [driver] cuKernelGetLibrary(library: *mut CUlibrary, kernel: CUkernel) |driver| {
        put(library, driver.kernels.find(kernel)?.library)
    }

    // The linker: one input, which is its output

    [context] cuLinkCreate_v2(count: c_uint, options: *mut c_uint, values: *mut *mut c_void, state: *mut CUlinkState)
    |driver, context| {
        if state.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let options = JitOptions::read(count, options, values)?;
        put(state, driver.links.insert(Link { options, text: None, image: Vec::new() }))
    }

    [driver] cuLinkAddData_v2(
        state: CUlinkState, kind: c_uint, data: *mut c_void, size: usize, name: *const c_char, count: c_uint,
        options: *mut c_uint, values: *mut *mut c_void
    ) |driver| {
        driver.links.find(state)?;
        if data.is_null() || size == 0 || size > isize::MAX as usize {
            return Err(error::INVALID_VALUE);
        }
        let image = std::slice::from_raw_parts(data.cast::<u8>(), size).to_vec();
        driver.link_input(state, kind, &image)
    }

    [driver] cuLinkAddFile_v2(
        state: CUlinkState, kind: c_uint, path: *const c_char, count: c_uint, options: *mut c_uint,
        values: *mut *mut c_void
    ) |driver| {
        driver.links.find(state)?;
        let image = file(&string(path)?)?;
        driver.link_input(state, kind, &image)
    }

    [driver] cuLinkComplete(state: CUlinkState, image: *mut *mut c_void, size: *mut usize) |driver| {
        let link = driver.links.find_mut(state)?;
        let text = link.text.clone().ok_or(error::INVALID_VALUE)?;
        link.image = text.into_bytes();
        link.image.push(0);
        put_if(size, link.image.len());
        put(image, link.image.as_mut_ptr().cast())
    }

    [driver] cuLinkDestroy(state: CUlinkState) |driver| { driver.links.remove(state).map(|_| ()) }
}

impl Driver {
    unsafe fn link_input(&mut self, state: CUlinkState, kind: c_uint, image: &[u8]) -> Answer {
        let sm = self.environment.sm;
        let link = self.links.find_mut(state)?;
        if kind > 2 || link.text.is_some() {
            return Err(error::NOT_SUPPORTED); // objects, libraries, and more than one input
        }
        let options = link.options;
        let text = container::text(image, sm).map_err(refused_image).and_then(|text| {
            syntax(text.as_bytes(), sm)?;
            Ok(text)
        });
        match text {
            Ok(text) => {
                link.text = Some(text);
                Ok(())
            }
            Err(refusal) => {
                unsafe { options.finish(&refusal.why) };
                Err(self.refuse(refusal))
            }
        }
    }
}
