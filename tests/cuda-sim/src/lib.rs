//! A simulated CUDA device: PTX text in, results, findings and counts out, on any machine.
//!
//! The data flow is one-way:
//!
//! ```text
//! ptx      text and containers -> syntax tree
//! num      scalar arithmetic of the PTX ISA: roundings, formats, approximations
//! lanes    the register file of a warp, and instructions as functions over it
//! isa      instruction -> function (everything that touches registers only)
//! memory   allocations, addresses, initialised bytes
//! program  syntax tree -> code that the interpreter runs, with addresses resolved
//! check    happens-before inside a launch: races, uninitialised shared memory, footprints
//! exec     grids, blocks, warps, lanes: control flow, memory access, barriers, counts
//! driver   the CUDA driver API in C over all of this; happens-before over streams
//! ```
//!
//! `finding` is what any of them reports.

#![warn(missing_docs)]

pub mod check;
pub mod exec;
pub mod finding;
pub mod isa;
#[macro_use]
pub mod lanes;
pub mod memory;
pub mod num;
pub mod program;
pub mod ptx;

pub mod driver;
