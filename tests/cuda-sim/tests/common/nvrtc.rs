//! CUDA C++ to PTX with NVRTC, loaded at run time. `tests/cuda-sim/env.sh` brings it where it is missing.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use libloading::{Library, Symbol};

const MISSING: &str = "NVRTC is needed to compile the test kernels and was not found: `. tests/cuda-sim/env.sh` first";

/// One compilation: done once, whoever asks first.
type Slot = Arc<OnceLock<Result<Arc<str>, String>>>;
/// All of them, by file and options.
type Cache = HashMap<(String, Vec<String>), Slot>;

/// The PTX of `tests/kernels/<file>` for `compute_80` with line information.
pub fn compile(file: &str) -> Arc<str> {
    compile_with(file, &[])
}

/// As `compile`, with further options such as `--use_fast_math`; a later `--gpu-architecture` replaces ours.
pub fn compile_with(file: &str, options: &[&str]) -> Arc<str> {
    static CACHE: OnceLock<Mutex<Cache>> = OnceLock::new();
    let key = (file.to_string(), options.iter().map(|o| o.to_string()).collect::<Vec<_>>());
    let slot = CACHE.get_or_init(Mutex::default).lock().unwrap().entry(key).or_default().clone();
    let read = || {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels").join(file);
        let source = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        translate(&format!("tests/kernels/{file}"), &source, options)
    };
    slot.get_or_init(read).clone().unwrap_or_else(|log| panic!("{file}: {log}"))
}

/// As `compile`, for a source text, or the compiler's log; `name` is what the line information calls it.
pub fn compile_source(name: &str, source: &str) -> Result<Arc<str>, String> {
    translate(name, source, &[])
}

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    let load = || {
        let given = std::env::var("CUDA_SIM_NVRTC").ok();
        let names = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
        let names = given.as_deref().into_iter().chain(names);
        // SAFETY: NVRTC's initialisers ask nothing of us.
        names.into_iter().find_map(|name| unsafe { Library::new(name) }.ok())
    };
    LIBRARY.get_or_init(load).as_ref().unwrap_or_else(|| panic!("{MISSING}"))
}

fn symbol<T>(name: &CStr) -> Symbol<'static, T> {
    // SAFETY: every caller names a function of nvrtc.h with its signature.
    unsafe { library().get(name.to_bytes_with_nul()) }.unwrap_or_else(|e| panic!("NVRTC lacks {name:?}: {e}"))
}

type Program = *mut c_void;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;

/// A text of a program: its log or its PTX.
unsafe fn text(program: Program, size: &CStr, get: &CStr) -> String {
    let mut bytes = 0usize;
    let mut buffer;
    unsafe {
        assert_eq!(symbol::<Size>(size)(program, &mut bytes), 0);
        buffer = vec![0u8; bytes + 1];
        assert_eq!(symbol::<Text>(get)(program, buffer.as_mut_ptr().cast()), 0);
    }
    CStr::from_bytes_until_nul(&buffer).unwrap().to_string_lossy().into_owned()
}

fn translate(name: &str, source: &str, options: &[&str]) -> Result<Arc<str>, String> {
    type Create = unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int;
    type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
    type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;

    let mut all = vec!["-lineinfo".to_string(), "--std=c++17".to_string()];
    if !options.iter().any(|o| o.starts_with("--gpu-architecture")) {
        all.push("--gpu-architecture=compute_80".to_string());
    }
    let include = std::env::var("CUDA_SIM_INCLUDE").ok();
    if let Some(include) = &include {
        all.push(format!("-I{include}"));
        all.push(format!("-I{include}/cccl"));
    }
    all.extend(options.iter().map(|o| o.to_string()));
    let all: Vec<CString> = all.into_iter().map(|o| CString::new(o).unwrap()).collect();
    let pointers: Vec<*const c_char> = all.iter().map(|o| o.as_ptr()).collect();
    let (source, name) = (CString::new(source).unwrap(), CString::new(name).unwrap());
    let mut program: Program = std::ptr::null_mut();
    let none = std::ptr::null;
    // SAFETY: the signatures are those of nvrtc.h, and all strings outlive the calls.
    unsafe {
        let made =
            symbol::<Create>(c"nvrtcCreateProgram")(&mut program, source.as_ptr(), name.as_ptr(), 0, none(), none());
        assert_eq!(made, 0, "nvrtcCreateProgram");
        let code = symbol::<Compile>(c"nvrtcCompileProgram")(program, pointers.len() as c_int, pointers.as_ptr());
        let result = if code == 0 {
            Ok(text(program, c"nvrtcGetPTXSize", c"nvrtcGetPTX").into())
        } else {
            let hint =
                if include.is_none() { "\nCUDA_SIM_INCLUDE is not set: `. tests/cuda-sim/env.sh` first" } else { "" };
            Err(text(program, c"nvrtcGetProgramLogSize", c"nvrtcGetProgramLog") + hint)
        };
        symbol::<Destroy>(c"nvrtcDestroyProgram")(&mut program);
        result
    }
}
