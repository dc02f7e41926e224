//! Finds the CUDA driver and NVRTC. cudarc panics when a library is absent, so every way to it begins here.

use crate::backend::BackendError;
use cudarc::driver::sys::{self, CUresult};
use cudarc::{driver, nvrtc};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The oldest driver whose cubins and PTX the supported NVRTCs (12 and 13) can make: that of CUDA 12.0.
const DRIVER_MIN: i32 = 12_000;

/// What was found, once a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Libraries {
    /// Version of the driver's CUDA: 1000 · major + 10 · minor.
    pub driver: i32,
    /// NVRTC's major and minor version.
    pub compiler: (i32, i32),
    /// Version of the simulated driver, where the driver is one.
    pub simulated: Option<i32>,
}

impl Libraries {
    /// The libraries of this process.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] naming the library that is missing or too old, and what to do.
    pub fn get() -> Result<Libraries, BackendError> {
        static FOUND: OnceLock<Result<Libraries, BackendError>> = OnceLock::new();
        FOUND.get_or_init(find).clone()
    }
}

pub(super) fn unavailable(reason: impl Into<String>, hint: impl Into<String>) -> BackendError {
    BackendError::Unavailable { device: "cuda".into(), reason: reason.into(), hint: hint.into() }
}

fn find() -> Result<Libraries, BackendError> {
    // SAFETY: loading the library runs its initialisers, which have no preconditions.
    if !unsafe { sys::is_culib_present() } {
        return Err(unavailable(
            "there is no CUDA driver (libcuda.so)",
            "install NVIDIA's driver, or use --device cpu; to try the kernels without a GPU: . tests/cuda-sim/env.sh",
        ));
    }
    let mut version = 0;
    // SAFETY: the library is there; the function writes one integer.
    let answer = unsafe { sys::cuDriverGetVersion(&mut version) };
    if answer != CUresult::CUDA_SUCCESS || version < DRIVER_MIN {
        return Err(unavailable(
            format!("the CUDA driver is of CUDA {}.{}, 12.0 or newer is needed", version / 1000, version % 1000 / 10),
            "update NVIDIA's driver, or use --device cpu",
        ));
    }
    if let Err(error) = driver::result::init() {
        return Err(unavailable(
            format!("the CUDA driver does not start: {}", text(error)),
            "`nvidia-smi` says more; use --device cpu meanwhile",
        ));
    }
    Ok(Libraries { driver: version, compiler: compiler()?, simulated: simulated() })
}

/// Number of devices.
///
/// # Errors
/// As [`Libraries::get`].
pub fn count() -> Result<usize, BackendError> {
    Libraries::get()?;
    match driver::CudaContext::device_count() {
        Ok(n) if n > 0 => Ok(n as usize),
        Ok(_) => Err(unavailable("the CUDA driver has no device", "use --device cpu")),
        Err(error) => {
            Err(unavailable(format!("the CUDA driver counts no devices: {}", text(error)), "use --device cpu"))
        }
    }
}

/// A driver error as its name and meaning.
pub(super) fn text(error: driver::DriverError) -> String {
    let part = |s: Result<&std::ffi::CStr, driver::DriverError>| s.ok().map(|s| s.to_string_lossy().into_owned());
    match (part(error.error_name()), part(error.error_string())) {
        (Some(name), Some(meaning)) => format!("{name} ({meaning})"),
        _ => format!("{:?}", error.0),
    }
}

/// The simulated driver's version, where the driver is one: it has a function that no other has.
fn simulated() -> Option<i32> {
    type Version = unsafe extern "C" fn(*mut i32) -> CUresult;
    let mut version = 0;
    // SAFETY: the library is loaded; the symbol, where it exists, is that function.
    unsafe {
        let function = sys::culib().get::<Version>(b"cuSimVersion\0").ok()?;
        (function(&mut version) == CUresult::CUDA_SUCCESS).then_some(version)
    }
}

/// NVRTC's major and minor version; it compiles without a driver, too.
///
/// # Errors
/// [`BackendError::Unavailable`] when there is none or only one that is too old.
pub fn compiler() -> Result<(i32, i32), BackendError> {
    static FOUND: OnceLock<Result<(i32, i32), BackendError>> = OnceLock::new();
    FOUND.get_or_init(find_compiler).clone()
}

/// Looks beside the loader's places where toolkits and Python packages put it.
fn find_compiler() -> Result<(i32, i32), BackendError> {
    // SAFETY: as for the driver.
    let present = || unsafe { nvrtc::sys::is_culib_present() };
    if !present() {
        // the loader then knows it by its soname
        let loaded = nvrtc_candidates().iter().any(|path| load_globally(path));
        if !loaded || !present() {
            return Err(unavailable(
                "there is no NVRTC (libnvrtc.so.13 or .12), which compiles the kernels",
                "pip install nvidia-cuda-nvrtc, or install a CUDA toolkit, or name the library in INTERVENE_NVRTC",
            ));
        }
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there; the function writes two integers.
    let answer = unsafe { nvrtc::sys::nvrtcVersion(&mut major, &mut minor) };
    if answer != nvrtc::sys::nvrtcResult::NVRTC_SUCCESS || major < 12 {
        return Err(unavailable(format!("NVRTC is of CUDA {major}.{minor}, 12.0 or newer is needed"), "update NVRTC"));
    }
    Ok((major, minor))
}

#[cfg(unix)]
fn load_globally(path: &Path) -> bool {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: loading NVRTC runs its initialisers, which have no preconditions. It stays loaded: the handle is leaked.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map(std::mem::forget).is_ok()
}

#[cfg(not(unix))]
fn load_globally(path: &Path) -> bool {
    // SAFETY: as above.
    unsafe { libloading::Library::new(path) }.map(std::mem::forget).is_ok()
}

/// Files that may be NVRTC, the preferred first.
fn nvrtc_candidates() -> Vec<PathBuf> {
    if let Some(given) = std::env::var_os("INTERVENE_NVRTC") {
        return vec![given.into()];
    }
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let mut directories: Vec<PathBuf> = Vec::new();
    for root in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable).chain([PathBuf::from("/usr/local/cuda")]) {
        directories.extend([root.join("lib64"), root.join("lib")]);
    }
    let mut roots = Vec::new();
    roots.extend(variable("VIRTUAL_ENV").map(|v| v.join("lib")));
    roots.extend(variable("CONDA_PREFIX").map(|v| v.join("lib")));
    roots.extend(variable("HOME").map(|v| v.join(".local/lib")));
    roots.extend(["/usr/local/lib", "/usr/lib"].map(PathBuf::from));
    for python in roots.iter().flat_map(|root| subdirectories(root, "python3")) {
        for packages in ["site-packages", "dist-packages"] {
            let nvidia = python.join(packages).join("nvidia");
            directories.extend([nvidia.join("cu13/lib"), nvidia.join("cuda_nvrtc/lib")]);
        }
    }
    let names = ["libnvrtc.so.13", "libnvrtc.so.12"];
    let files = names.iter().flat_map(|name| directories.iter().map(move |d| d.join(name)));
    files.filter(|f| f.exists()).collect()
}

/// The directories of `root` whose names begin with `prefix`, sorted.
fn subdirectories(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
    let named = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix));
    let mut found: Vec<PathBuf> = entries.filter(|p| named(p) && p.is_dir()).collect();
    found.sort();
    found
}
