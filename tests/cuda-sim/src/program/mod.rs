//! A loaded module: code that the interpreter runs, with every address resolved.

pub(crate) mod code;
mod flow;
pub(crate) mod lower;
mod select;

use std::cell::Cell;
use std::collections::HashMap;

use crate::memory::{Memory, Purpose};
use crate::program::code::Kernel;
use crate::program::lower::Context;
use crate::ptx::ast::{Init, Location, Module, Space};

/// Bytes that a module's variables may have in all.
const VARIABLES: usize = 4 << 30;

/// A module on a device.
pub struct Program {
    /// Entries in the order of the text.
    pub entries: Vec<Entry>,
    /// Module-scope variables in `.global` and `.const`.
    pub variables: Vec<Symbol>,
    /// The code of each entry.
    pub(crate) kernels: Vec<Kernel>,
    /// `.file`
    pub(crate) files: HashMap<u32, String>,
    /// What `Location::call` counts.
    pub(crate) calls: Vec<Location>,
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
    pub fn load(module: &Module, sm: u32, device: u32, memory: &Memory) -> Result<Program, LoadError> {
        if module.target > sm {
            return Err(LoadError::Target { target: module.target, device: sm });
        }
        let mut functions: HashMap<&str, usize> =
            module.functions.iter().enumerate().map(|(i, f)| (f.name.as_str(), i)).collect();
        for (alias, target) in &module.aliases {
            let Some(&index) = functions.get(target.as_str()) else {
                return Err(LoadError::Undefined { line: 0, name: target.clone() });
            };
            functions.insert(alias, index);
        }
        let mut program = Program {
            entries: Vec::new(),
            variables: Vec::new(),
            kernels: Vec::new(),
            files: HashMap::new(),
            calls: Vec::new(),
        };
        let loaded = program.fill(module, &functions, device, memory);
        if let Err(error) = loaded {
            program.unload(memory);
            return Err(error);
        }
        Ok(program)
    }

    fn fill(
        &mut self,
        module: &Module,
        functions: &HashMap<&str, usize>,
        device: u32,
        memory: &Memory,
    ) -> Result<(), LoadError> {
        let outer = module.variables.iter().map(|v| (v.name.clone(), v));
        let inner = module.functions.iter().flat_map(|f| {
            let variables = f.body.iter().flat_map(|b| &b.variables);
            variables.map(move |v| (format!("{}/{}", f.name, v.name), v))
        });
        let mut globals = HashMap::new();
        let mut initialised = Vec::new();
        let mut total = 0usize;
        for (name, variable) in outer.chain(inner) {
            let purpose = match variable.space {
                Space::Const => Purpose::Constant,
                Space::Global => Purpose::Variable,
                _ => continue,
            };
            if variable.external {
                return Err(LoadError::Undefined { line: variable.line, name });
            }
            let bytes = lower::bytes(variable)? as usize;
            total = total.saturating_add(bytes);
            if total > VARIABLES {
                return Err(LoadError::Memory);
            }
            let address = memory.allocate(device, bytes, purpose, &name).ok_or(LoadError::Memory)?;
            self.variables.push(Symbol { name: name.clone(), address, bytes });
            globals.insert(name, address);
            initialised.push((variable, address, bytes));
        }
        for (variable, address, bytes) in initialised {
            let mut image = vec![0; bytes.min(variable.init.len() * variable.ty.bytes())];
            for (element, init) in image.chunks_exact_mut(variable.ty.bytes()).zip(&variable.init) {
                let bits = match init {
                    Init::Bits(bits) => *bits,
                    Init::Address { symbol, offset, .. } => {
                        let base = globals.get(symbol).copied();
                        let function = functions.get(symbol.as_str()).map(|&f| lower::FUNCTIONS + 16 * f as u64);
                        let undefined = || LoadError::Undefined { line: variable.line, name: symbol.clone() };
                        base.or(function).ok_or_else(undefined)?.wrapping_add(*offset as u64)
                    }
                };
                let raw = bits.to_le_bytes();
                let wide = element.len().min(8);
                element[..wide].copy_from_slice(&raw[..wide]);
            }
            // a variable without an initialiser is zero (PTX ISA 5.4.4), so all of it counts as written
            memory.zeroed(address, bytes).map_err(|_| LoadError::Memory)?;
            memory.write(address, &image).map_err(|_| LoadError::Memory)?;
        }
        self.files = module.files.iter().cloned().collect();
        self.calls = module.calls.clone();
        let context = Context { module, globals: &globals, functions, work: Cell::new(Context::WORK) };
        // Functions that no entry calls are lowered all the same: what is not supported is said here and now.
        let mut seen = vec![false; module.functions.len()];
        let (entries, others): (Vec<_>, Vec<_>) =
            module.functions.iter().enumerate().filter(|(_, f)| f.body.is_some()).partition(|(_, f)| f.entry);
        for (index, function) in entries.into_iter().chain(others) {
            if function.required_cluster.is_some_and(|c| c != [1, 1, 1]) {
                let what = format!("a cluster of several blocks ({})", function.name);
                return Err(LoadError::Unsupported { line: function.line, what });
            }
            if seen[index] && !function.entry {
                continue;
            }
            let kernel = lower::kernel(&context, index)?;
            kernel.addresses.keys().for_each(|a| seen[((a - lower::FUNCTIONS) / 16) as usize] = true);
            if function.entry {
                self.entries.push(entry(function, &kernel));
                self.kernels.push(kernel);
            }
        }
        Ok(())
    }

    /// Frees the module's variables.
    pub fn unload(&self, memory: &Memory) {
        for variable in &self.variables {
            // a variable that is gone already has nothing to free
            let _ = memory.free(variable.address);
        }
    }
}

fn entry(function: &crate::ptx::ast::Function, kernel: &Kernel) -> Entry {
    let mut offset = 0usize;
    let mut params = Vec::new();
    for p in &function.params {
        offset = offset.next_multiple_of(p.align.max(1));
        let bytes = p.ty.bytes() * p.count;
        params.push((offset, bytes));
        offset += bytes;
    }
    let block = |d: [u32; 3]| d.iter().fold(1u32, |a, &b| a.saturating_mul(b)).clamp(1, 1024);
    let pressure = kernel.functions.iter().map(|f| f.pressure).max().unwrap_or(0);
    // What ptxas needs beside the values alive: the stack pointer, addresses in flight; given out in steps of 8.
    let most = function.max_registers.unwrap_or(255).min(255);
    let registers = (pressure + 4).next_multiple_of(8).clamp(16, 256).min(most.max(16));
    Entry {
        name: function.name.clone(),
        params,
        param_bytes: offset,
        static_shared: kernel.static_shared,
        local_bytes: kernel.functions.iter().map(|f| f.frame_bytes as usize).sum(),
        registers,
        max_threads: function.required_threads.or(function.max_threads).map_or(1024, block),
        required_threads: function.required_threads,
        dynamic_shared: kernel.has_dynamic,
    }
}
