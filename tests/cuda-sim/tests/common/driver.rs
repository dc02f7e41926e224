//! The part of the CUDA driver API that the tests need, through whichever `libcuda.so.1` the loader finds.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};

use cuda::finding::{Finding, Kind};
use libloading::{Library, Symbol};

use super::gpu::Arg;

type Handle = *mut c_void;

/// A context with one module.
pub struct Driver {
    library: Library,
    context: Handle,
    module: Handle,
    allocations: RefCell<Vec<u64>>,
}

/// Calls a function of the driver API by name; the answer is its CUresult.
macro_rules! call {
    ($library:expr, $name:ident($($t:ty: $a:expr),* $(,)?)) => {{
        // SAFETY: the signature is that of cuda.h; arguments that are pointers point at what it says.
        unsafe {
            let f: Symbol<unsafe extern "C" fn($($t),*) -> c_int> =
                $library.get(stringify!($name)).unwrap_or_else(|e| panic!("{e}"));
            f($($a),*)
        }
    }};
}

macro_rules! must { ($library:expr, $name:ident $args:tt) => { assert_eq!(call!($library, $name $args), 0, stringify!($name)) } }

impl Driver {
    pub fn new(ptx: &str) -> Driver {
        // SAFETY: the driver's initialisers ask nothing of us.
        let library = unsafe { Library::new("libcuda.so.1") }.unwrap_or_else(|e| panic!("{e}"));
        let (mut context, mut module): (Handle, Handle) = (std::ptr::null_mut(), std::ptr::null_mut());
        must!(library, cuInit(c_uint: 0));
        must!(library, cuDevicePrimaryCtxRetain(*mut Handle: &mut context, c_int: 0));
        must!(library, cuCtxSetCurrent(Handle: context));
        let text = CString::new(ptx).unwrap();
        must!(library, cuModuleLoadData(*mut Handle: &mut module, *const c_void: text.as_ptr().cast()));
        Driver { library, context, module, allocations: RefCell::default() }
    }

    pub fn allocate(&self, bytes: usize) -> u64 {
        let mut address = 0;
        must!(self.library, cuMemAlloc_v2(*mut u64: &mut address, usize: bytes));
        self.allocations.borrow_mut().push(address);
        address
    }

    pub fn free(&self, address: u64) {
        must!(self.library, cuMemFree_v2(u64: address));
        self.allocations.borrow_mut().retain(|&a| a != address);
    }

    pub fn write(&self, address: u64, data: &[u8]) {
        must!(self.library, cuMemcpyHtoD_v2(u64: address, *const c_void: data.as_ptr().cast(), usize: data.len()));
    }

    pub fn read(&self, address: u64, data: &mut [u8]) {
        must!(self.library, cuMemcpyDtoH_v2(*mut c_void: data.as_mut_ptr().cast(), u64: address, usize: data.len()));
    }

    pub fn variable(&self, name: &str) -> (u64, usize) {
        let (mut address, mut bytes) = (0, 0);
        let name = CString::new(name).unwrap();
        must!(
            self.library,
            cuModuleGetGlobal_v2(
                *mut u64: &mut address,
                *mut usize: &mut bytes,
                Handle: self.module,
                *const c_char: name.as_ptr(),
            )
        );
        (address, bytes)
    }

    pub fn launch(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared: usize,
        args: &[Arg],
        cooperative: bool,
    ) -> Result<(), Finding> {
        let mut function: Handle = std::ptr::null_mut();
        let name = CString::new(kernel).unwrap();
        must!(
            self.library,
            cuModuleGetFunction(*mut Handle: &mut function, Handle: self.module, *const c_char: name.as_ptr())
        );
        if shared > 48 << 10 {
            const MAX_DYNAMIC_SHARED_SIZE_BYTES: c_int = 8;
            let attribute = MAX_DYNAMIC_SHARED_SIZE_BYTES;
            must!(
                self.library,
                cuFuncSetAttribute(Handle: function, c_int: attribute, c_int: shared as c_int)
            );
        }
        // The driver reads arguments at their natural alignment.
        let words: Vec<Vec<u64>> = args
            .iter()
            .map(|arg| {
                let padded = arg.0.chunks(8).map(|c| {
                    let mut word = [0; 8];
                    word[..c.len()].copy_from_slice(c);
                    u64::from_ne_bytes(word)
                });
                padded.collect()
            })
            .collect();
        let mut pointers: Vec<*mut c_void> = words.iter().map(|w| w.as_ptr().cast_mut().cast()).collect();
        let none = std::ptr::null_mut::<c_void>();
        let code = if cooperative {
            call!(self.library, cuLaunchCooperativeKernel(
                Handle: function,
                c_uint: grid[0], c_uint: grid[1], c_uint: grid[2],
                c_uint: block[0], c_uint: block[1], c_uint: block[2],
                c_uint: shared as c_uint, Handle: none, *mut *mut c_void: pointers.as_mut_ptr(),
            ))
        } else {
            call!(self.library, cuLaunchKernel(
                Handle: function,
                c_uint: grid[0], c_uint: grid[1], c_uint: grid[2],
                c_uint: block[0], c_uint: block[1], c_uint: block[2],
                c_uint: shared as c_uint, Handle: none, *mut *mut c_void: pointers.as_mut_ptr(),
                *mut *mut c_void: std::ptr::null_mut(),
            ))
        };
        let code = if code == 0 { call!(self.library, cuCtxSynchronize()) } else { code };
        if code == 0 { Ok(()) } else { Err(Finding::new(Kind::Misuse, format!("{kernel}: CUresult {code}"))) }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // After a failed launch these fail too; the test has failed already.
        for &address in self.allocations.borrow().iter() {
            let _ = call!(self.library, cuMemFree_v2(u64: address));
        }
        let _ = call!(self.library, cuModuleUnload(Handle: self.module));
        let _ = call!(self.library, cuDevicePrimaryCtxRelease_v2(c_int: 0));
    }
}
