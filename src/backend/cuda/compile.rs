//! Kernel sources to machine code: one NVRTC call a file gives a cubin for the device's own chip and PTX beside it.
//!
//! Both are kept in `$XDG_CACHE_HOME/intervene/kernels/` under a hash of all that decides them: source, options, chip and
//! NVRTC's version. A damaged or unwritable cache costs time and nothing else.

use crate::atomic::write_atomic;
use crate::backend::BackendError;
use crate::digest::hex;
use crate::home;
use cudarc::nvrtc::result as nvrtc;
use cudarc::nvrtc::sys;
use sha2::{Digest, Sha256};
use std::ffi::CString;
use std::path::{Path, PathBuf};

use super::launch::dynamic_shared;
use super::library::compiler;
use super::occupancy::{self, Occupancy};

/// A file of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its name in `kernels/`.
    pub file: &'static str,
    /// Its text as embedded.
    pub text: &'static str,
    /// The kernels that it defines.
    pub kernels: &'static [&'static str],
}

const SOURCES: &[Source] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

const PRELUDE_FILE: &str = "prelude.cuh";
const PRELUDE: &str = include_str!("../../../kernels/prelude.cuh");

/// What a kernel file may include.
const HEADERS: &[(&str, &str)] = &[
    ("conv.cuh", include_str!("../../../kernels/conv.cuh")),
    ("conv_pack.cuh", include_str!("../../../kernels/conv_pack.cuh")),
];

/// The directory whose files stand in for the embedded ones: to change a kernel without building the program anew.
const OVERRIDE: &str = "INTERVENE_KERNELS";

/// Changes when the cache's files do.
const CACHE_FORMAT: &str = "intervene kernels 1";

/// Every kernel file.
pub fn sources() -> &'static [Source] {
    SOURCES
}

/// What a file compiles to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// Machine code; none where NVRTC does not know the chip.
    pub cubin: Option<Vec<u8>>,
    /// PTX, for drivers that do not take the cubin.
    pub ptx: String,
    /// What NVRTC and ptxas said: registers, spills and shared memory of each kernel.
    pub log: String,
}

/// What a kernel takes of a multiprocessor, in the compiler's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// The kernel's name.
    pub kernel: String,
    /// Threads of a block, from its launch bounds; 0 where it has none.
    pub threads: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory, static and what its launcher adds.
    pub shared: u32,
    /// Bytes of stack: register arrays with indices that are not known to the compiler, or calls.
    pub stack: u32,
    /// Bytes that are stored and loaded because registers ran out.
    pub spill: u32,
}

impl Resources {
    /// How full blocks of this kernel make a multiprocessor of the chip `sm`; `None` for a chip whose limits are not known here.
    pub fn occupancy(&self, sm: u32) -> Option<Occupancy> {
        occupancy::of(sm, self.threads, self.registers, self.shared)
    }
}

impl Compiled {
    /// What each kernel takes, in the order of their names; nothing without machine code.
    pub fn resources(&self) -> Vec<Resources> {
        let mut found: Vec<Resources> = Vec::new();
        for line in self.log.lines() {
            if let Some((_, rest)) = line.split_once("Compiling entry function '") {
                let kernel = rest.split('\'').next().unwrap_or_default().to_string();
                let threads = self.threads(&kernel);
                found.push(Resources { kernel, threads, ..Resources::default() });
            }
            let Some(kernel) = found.last_mut() else { continue };
            let number = |unit: &str| number_before(line, unit);
            // functions that a kernel calls have a line of their own: what they take counts as the kernel's
            kernel.stack = kernel.stack.max(number(" bytes stack frame").unwrap_or(0));
            kernel.spill += number(" bytes spill stores").unwrap_or(0) + number(" bytes spill loads").unwrap_or(0);
            kernel.registers = kernel.registers.max(number(" registers").unwrap_or(0));
            kernel.shared = kernel.shared.max(number(" bytes smem").unwrap_or(0));
        }
        for r in &mut found {
            r.shared += dynamic_shared(&r.kernel) as u32;
        }
        found.sort_by(|a, b| a.kernel.cmp(&b.kernel));
        found
    }

    /// The product of a kernel's `.maxntid`.
    fn threads(&self, kernel: &str) -> u32 {
        let header = self.ptx.split(".entry ").find(|entry| entry.split('(').next().map(str::trim) == Some(kernel));
        let bounds = header.and_then(|entry| entry.split('{').next()?.split_once(".maxntid "));
        let Some((_, bounds)) = bounds else { return 0 };
        let sides = bounds.lines().next().unwrap_or_default().split(',');
        sides.map(|side| side.trim().parse().unwrap_or(0)).product()
    }
}

/// The number that stands in front of `unit` in a line.
fn number_before(line: &str, unit: &str) -> Option<u32> {
    line[..line.find(unit)?].rsplit([' ', ',']).next()?.parse().ok()
}

/// The text that NVRTC is given: the prelude and the file with what it includes, each under its own name in messages.
fn full_text(source: &Source) -> Result<String, BackendError> {
    let directory = std::env::var_os(OVERRIDE).map(PathBuf::from);
    let read = |file: &str, embedded: &str| match &directory {
        None => Ok(embedded.to_string()),
        Some(directory) => std::fs::read_to_string(directory.join(file)).map_err(|e| BackendError::Compile {
            file: directory.join(file).display().to_string(),
            target: String::new(),
            log: format!("cannot be read ({OVERRIDE} names the directory): {e}"),
        }),
    };
    let begin = |file: &str, line: usize| format!("#line {line} \"kernels/{file}\"\n");
    let mut text = begin(PRELUDE_FILE, 1) + &read(PRELUDE_FILE, PRELUDE)? + "\n" + &begin(source.file, 1);
    for (number, line) in read(source.file, source.text)?.lines().enumerate() {
        match HEADERS
            .iter()
            .find(|(name, _)| line.strip_prefix("#include ").is_some_and(|n| n.trim_matches('"') == *name))
        {
            Some((name, header)) => {
                text += &begin(name, 1);
                text += &read(name, header)?;
                text.push('\n');
                text += &begin(source.file, number + 2);
            }
            None => {
                text += line;
                text.push('\n');
            }
        }
    }
    Ok(text)
}

/// Hash of all kernel texts, for manifests.
///
/// # Errors
/// [`BackendError::Compile`] when an overriding file cannot be read.
pub(super) fn hash() -> Result<String, BackendError> {
    let mut hash = Sha256::new();
    for source in SOURCES {
        hash.update(full_text(source)?);
    }
    Ok(hex(&hash.finalize()))
}

/// The newest architecture up to `sm` that this NVRTC compiles for, and whether it is `sm` itself.
fn target(sm: u32) -> Result<String, BackendError> {
    let fail = |reason: String| super::library::unavailable(reason, "install a newer NVRTC");
    let mut count = 0;
    // SAFETY: NVRTC is loaded (every caller has asked for `compiler`); the functions write one integer, then `count` of them.
    let known = unsafe {
        let counted = sys::nvrtcGetNumSupportedArchs(&mut count).result();
        let mut known = vec![0i32; count.max(0) as usize];
        counted.and_then(|()| sys::nvrtcGetSupportedArchs(known.as_mut_ptr()).result()).map(|()| known)
    };
    let known = known.map_err(|e| fail(format!("NVRTC does not tell what it compiles for: {e}")))?;
    if known.contains(&(sm as i32)) {
        return Ok(format!("sm_{sm}"));
    }
    match known.iter().filter(|&&k| k < sm as i32).max() {
        Some(older) => Ok(format!("compute_{older}")),
        None => {
            let oldest = known.iter().min().copied().unwrap_or_default();
            Err(fail(format!("the device is of sm_{sm}, and this NVRTC begins at sm_{oldest}")))
        }
    }
}

fn options(target: &str) -> Vec<String> {
    [
        &format!("--gpu-architecture={target}"),
        "--std=c++17",
        // reports of the simulated device and of compute-sanitizer name our lines
        "--generate-line-info",
        // registers and spills of every kernel into the log
        "--ptxas-options=-v",
    ]
    .map(String::from)
    .to_vec()
}

/// Compiles a file for the chip `sm` (compute capability times ten), without the cache.
///
/// # Errors
/// [`BackendError::Unavailable`] without NVRTC or for a chip that it does not know, [`BackendError::Compile`] with its log.
pub fn compile(source: &Source, sm: u32) -> Result<Compiled, BackendError> {
    compiler()?;
    let target = target(sm)?;
    compile_text(source, &full_text(source)?, &target)
}

/// As [`compile`], from the cache where it holds the result, else into it.
///
/// # Errors
/// As [`compile`].
pub fn cached(source: &Source, sm: u32) -> Result<Compiled, BackendError> {
    let compiler = compiler()?;
    let target = target(sm)?;
    let text = full_text(source)?;
    let mut key = Sha256::new();
    for part in [CACHE_FORMAT, &text, &options(&target).join(" "), &format!("{compiler:?}")] {
        key.update((part.len() as u64).to_le_bytes());
        key.update(part);
    }
    let path = home::cache().map(|cache| cache.join("kernels").join(hex(&key.finalize())));
    if let Some(found) = path.as_deref().and_then(read_cached) {
        return Ok(found);
    }
    let compiled = compile_text(source, &text, &target)?;
    if let Some(path) = path {
        write_cached(&path, &compiled);
    }
    Ok(compiled)
}

fn compile_text(source: &Source, text: &str, target: &str) -> Result<Compiled, BackendError> {
    let file = format!("kernels/{}", source.file);
    let fail = |log: String| BackendError::Compile { file: file.clone(), target: target.into(), log };
    let (Ok(text), Ok(name)) = (CString::new(text), CString::new(file.as_str())) else {
        return Err(fail("the source holds a zero byte".into()));
    };
    let program =
        nvrtc::create_program(&text, Some(&name)).map_err(|e| fail(format!("NVRTC takes no program: {e}")))?;
    // SAFETY: `program` was made above and is destroyed once, after the last use; `text` and `name` outlive it.
    unsafe {
        let result = nvrtc::compile_program(program, &options(target));
        let log = nvrtc::get_program_log(program).map(|log| to_text(&log)).unwrap_or_default();
        let compiled = match result {
            Err(error) => Err(fail(if log.is_empty() { error.to_string() } else { log })),
            Ok(()) => images(program, target)
                .map(|(cubin, ptx)| Compiled { cubin, ptx, log })
                .map_err(|e| fail(format!("NVRTC compiled it and gives no result: {e}"))),
        };
        // a program that cannot be destroyed is a leak, no error
        let _ = nvrtc::destroy_program(program);
        compiled
    }
}

/// Cubin (for a real architecture) and PTX of a compiled program.
///
/// # Safety
/// `program` must have been compiled and not destroyed.
unsafe fn images(program: sys::nvrtcProgram, target: &str) -> Result<(Option<Vec<u8>>, String), nvrtc::NvrtcError> {
    // SAFETY: the caller's.
    unsafe {
        let ptx = to_text(&nvrtc::get_ptx(program)?);
        if !target.starts_with("sm_") {
            return Ok((None, ptx));
        }
        let mut size = 0;
        sys::nvrtcGetCUBINSize(program, &mut size).result()?;
        let mut cubin = vec![0u8; size];
        sys::nvrtcGetCUBIN(program, cubin.as_mut_ptr().cast()).result()?;
        Ok((Some(cubin), ptx))
    }
}

/// A C string with or without its zero.
fn to_text(chars: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).trim_end().to_string()
}

/// The lengths of the parts behind the first line, and their hash.
#[derive(serde::Serialize, serde::Deserialize)]
struct Header {
    cubin: Option<usize>,
    ptx: usize,
    log: usize,
    sha256: String,
}

/// `None` for anything but a whole, undamaged entry.
fn read_cached(path: &Path) -> Option<Compiled> {
    let bytes = std::fs::read(path).ok()?;
    let line = bytes.iter().position(|&b| b == b'\n')?;
    let header: Header = serde_json::from_slice(&bytes[..line]).ok()?;
    let body = &bytes[line + 1..];
    let ends = header.cubin.unwrap_or(0).checked_add(header.ptx).and_then(|n| n.checked_add(header.log))?;
    if ends != body.len() || hex(&Sha256::digest(body)) != header.sha256 {
        return None;
    }
    let (cubin, rest) = body.split_at(header.cubin.unwrap_or(0));
    let (ptx, log) = rest.split_at(header.ptx);
    // cudarc hands the PTX on as a C string, and panics at a zero byte
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok().filter(|text| !text.contains('\0'));
    Some(Compiled { cubin: header.cubin.map(|_| cubin.to_vec()), ptx: text(ptx)?, log: text(log)? })
}

/// Keeps an entry if it can.
fn write_cached(path: &Path, compiled: &Compiled) {
    let cubin = compiled.cubin.as_deref().unwrap_or_default();
    let body = [cubin, compiled.ptx.as_bytes(), compiled.log.as_bytes()].concat();
    let header = Header {
        cubin: compiled.cubin.as_ref().map(Vec::len),
        ptx: compiled.ptx.len(),
        log: compiled.log.len(),
        sha256: hex(&Sha256::digest(&body)),
    };
    let Ok(line) = serde_json::to_vec(&header) else { return };
    let made = path.parent().map(std::fs::create_dir_all);
    if matches!(made, Some(Ok(()))) {
        let _ = write_atomic(path, |out| {
            out.write_all(&line)?;
            out.write_all(b"\n")?;
            out.write_all(&body)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_log_tells_what_each_kernel_takes() {
        let log = "kernels/x.cu(3): warning: unused\n\
            ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'second' for 'sm_80'\n\
            ptxas info    : Function properties for second\n\
            ptxas         .     16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 128 registers, used 1 barriers, 26624 bytes smem, 480 bytes cmem[0]\n\
            ptxas info    : Compiling entry function 'first' for 'sm_80'\n\
            ptxas info    : Function properties for first\n\
            ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 44 registers, used 0 barriers, 400 bytes cmem[0]\n\
            ptxas info    : Function properties for helper\n\
            ptxas         .     32 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n";
        let ptx = ".visible .entry first(\n.param .b8 a[8]\n)\n.maxntid 32, 4, 1\n{\nret;\n}\n\
            .visible .entry second(\n)\n{\nret;\n}\n";
        let compiled = Compiled { cubin: None, ptx: ptx.into(), log: log.into() };
        let first = Resources { kernel: "first".into(), threads: 128, registers: 44, shared: 0, stack: 32, spill: 0 };
        let second =
            Resources { kernel: "second".into(), threads: 0, registers: 128, shared: 26624, stack: 16, spill: 20 };
        assert_eq!(compiled.resources(), [first, second]);
    }

    #[test]
    fn a_cached_entry_comes_back_whole_and_a_damaged_one_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("entry");
        for cubin in [None, Some(vec![0, 10, 255])] {
            let compiled = Compiled { cubin, ptx: ".version 8.0\n".into(), log: "2 registers".into() };
            write_cached(&path, &compiled);
            assert_eq!(read_cached(&path), Some(compiled));
        }
        let whole = std::fs::read(&path).unwrap();
        write_cached(&path, &Compiled { cubin: None, ptx: ".version\0".into(), log: String::new() });
        assert_eq!(read_cached(&path), None, "a zero byte under a right hash");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(read_cached(&path), None, "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(read_cached(&path), None, "cut at {at}");
        }
    }
}
