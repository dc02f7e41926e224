//! Allocations of all devices in one address space.
//!
//! A device address is `BASE + (id << 36) + offset`, and an id is never given twice, so that a pointer tells its allocation
//! and a stale one is known as such. Host memory that the driver hands out (pinned, managed) or registers has its real
//! address.

use crate::finding::{Finding, Kind};

/// The first device address.
pub const BASE: u64 = 1 << 52;
/// Bits of an offset: no allocation is larger than 64 GiB.
pub const OFFSET_BITS: u32 = 36;

/// What an allocation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `cuMemAlloc` and its asynchronous form.
    Device,
    /// `cuMemAllocHost`, `cuMemHostAlloc`: host memory with its real address.
    Pinned,
    /// `cuMemHostRegister`: memory of the program, borrowed.
    Registered,
    /// `cuMemAllocManaged`: host memory that all devices reach.
    Managed,
    /// A variable of a module.
    Variable,
    /// A constant variable of a module: kernels do not write it.
    Constant,
}

/// What is told about an allocation.
#[derive(Debug, Clone)]
pub struct Info {
    /// The first byte's address.
    pub base: u64,
    /// Bytes.
    pub bytes: usize,
    /// The device it belongs to.
    pub device: u32,
    /// What it is for.
    pub purpose: Purpose,
    /// A name for reports: the variable's, or empty.
    pub name: String,
}

/// All allocations of the process. One operation runs at a time (the driver's lock); within a launch, threads read and
/// write through `&Memory`.
pub struct Memory {}

impl Memory {
    /// Nothing allocated. `strict`: bytes start out uninitialised, and reading them is noticed.
    pub fn new(_strict: bool) -> Memory {
        Memory {}
    }

    /// Allocates `bytes` (at least 1) with an address that is a multiple of 256 (pinned and managed: 4096). `None` if the
    /// host has no memory left. The limit of the simulated device is the caller's to keep.
    pub fn allocate(&self, _device: u32, _bytes: usize, _purpose: Purpose, _name: &str) -> Option<u64> {
        None
    }

    /// Makes host memory known that the program owns.
    ///
    /// # Safety
    /// The bytes stay valid until `free`.
    pub unsafe fn register(&self, _device: u32, _host: *mut u8, _bytes: usize) -> Result<(), Finding> {
        Err(Finding::new(Kind::Misuse, "not there"))
    }

    /// Ends the allocation that starts at `address`.
    pub fn free(&self, _address: u64) -> Result<Info, Finding> {
        Err(Finding::new(Kind::Misuse, "not there"))
    }

    /// The allocation that holds `address`, living ones only.
    pub fn find(&self, _address: u64) -> Option<Info> {
        None
    }

    /// Every living allocation.
    pub fn living(&self) -> Vec<Info> {
        Vec::new()
    }

    /// Copies out. Bytes that nobody wrote come out as 0xCD in strict mode; the count of such bytes is returned.
    pub fn read(&self, _address: u64, _to: &mut [u8]) -> Result<usize, Finding> {
        Ok(0)
    }

    /// Copies in, and marks the bytes as initialised.
    pub fn write(&self, _address: u64, _from: &[u8]) -> Result<(), Finding> {
        Ok(())
    }

    /// Copies between addresses that `find` knows; what is uninitialised stays so. Overlap is allowed.
    pub fn copy(&self, _to: u64, _from: u64, _bytes: usize) -> Result<(), Finding> {
        Ok(())
    }

    /// Fills `count` elements of `pattern` (1, 2 or 4 bytes).
    pub fn fill(&self, _address: u64, _pattern: &[u8], _count: usize) -> Result<(), Finding> {
        Ok(())
    }
}
