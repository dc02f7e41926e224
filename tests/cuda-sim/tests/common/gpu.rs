//! A device that a test launches kernels on: the crate's own library, or a driver.

use std::cell::RefCell;
use std::marker::PhantomData;

use cuda::exec::counters::Counters;
use cuda::exec::{Launch, Options, launch};
use cuda::finding::Finding;
use cuda::memory::{Memory, Purpose};
use cuda::program::Program;

use super::driver::Driver;

/// Plain data: any bytes are a value, and there is no padding.
///
/// # Safety
/// As said.
pub unsafe trait Plain: Copy + Default {}
macro_rules! plain { ($($t:ty)*) => { $(unsafe impl Plain for $t {})* } }
plain! { u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 half::f16 half::bf16 }

/// The bytes of a slice.
pub fn bytes<T: Plain>(data: &[T]) -> &[u8] {
    // SAFETY: plain data has no padding.
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), size_of_val(data)) }
}

fn bytes_mut<T: Plain>(data: &mut [T]) -> &mut [u8] {
    // SAFETY: plain data has no padding, and any bytes are a value.
    unsafe { std::slice::from_raw_parts_mut(data.as_mut_ptr().cast(), size_of_val(data)) }
}

/// An array in device memory.
pub struct Buffer<T> {
    pub address: u64,
    pub len: usize,
    element: PhantomData<T>,
}

/// A kernel argument.
#[derive(Clone)]
pub struct Arg(pub Vec<u8>);

impl<T: Plain> From<T> for Arg {
    fn from(value: T) -> Arg {
        Arg(bytes(&[value]).to_vec())
    }
}

impl<T> From<&Buffer<T>> for Arg {
    fn from(buffer: &Buffer<T>) -> Arg {
        Arg::from(buffer.address)
    }
}

/// The arguments of a kernel in order: buffers by reference, scalars of exactly the parameter's type.
#[allow(unused_macros)]
macro_rules! args { ($($a:expr),* $(,)?) => { &[$($crate::common::Arg::from($a)),*] } }
pub(crate) use args;

/// What a test's closure returns: compared byte by byte.
pub trait Bits {
    fn bits(&self) -> Vec<u8>;
}
impl<T: Plain> Bits for Vec<T> {
    fn bits(&self) -> Vec<u8> {
        bytes(self).to_vec()
    }
}
impl Bits for String {
    fn bits(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}
impl<A: Bits, B: Bits> Bits for (A, B) {
    fn bits(&self) -> Vec<u8> {
        [self.0.bits(), self.1.bits()].concat()
    }
}
impl<A: Bits, B: Bits, C: Bits> Bits for (A, B, C) {
    fn bits(&self) -> Vec<u8> {
        [self.0.bits(), self.1.bits(), self.2.bits()].concat()
    }
}
impl<A: Bits, B: Bits, C: Bits, D: Bits> Bits for (A, B, C, D) {
    fn bits(&self) -> Vec<u8> {
        [self.0.bits(), self.1.bits(), self.2.bits(), self.3.bits()].concat()
    }
}

/// A module loaded on a device.
pub struct Gpu {
    place: Place,
    entries: Vec<String>,
    printed: RefCell<Vec<u8>>,
    counters: RefCell<Vec<Counters>>,
}

// One of them a test: which is larger does not matter.
#[allow(clippy::large_enum_variant)]
enum Place {
    Library { memory: Memory, program: Program, options: Options },
    Driver(Driver),
}

impl Gpu {
    /// The crate's own library, without a driver.
    pub fn library(ptx: &str, options: Options) -> Gpu {
        let module = cuda::ptx::parse(ptx).unwrap_or_else(|e| panic!("parsing: {e}"));
        let memory = Memory::new(options.strict);
        let program = Program::load(&module, 80, 0, &memory).unwrap_or_else(|e| panic!("loading: {e}"));
        Gpu::new(ptx, Place::Library { memory, program, options })
    }

    /// Through the driver that the loader finds, simulated or real.
    pub fn driver(ptx: &str) -> Gpu {
        Gpu::new(ptx, Place::Driver(Driver::new(ptx)))
    }

    fn new(ptx: &str, place: Place) -> Gpu {
        let names = ptx.split(".entry ").skip(1).map(|rest| rest.split(['(', '\n']).next().unwrap().trim());
        let entries = names.map(str::to_string).collect();
        Gpu { place, entries, printed: RefCell::default(), counters: RefCell::default() }
    }

    /// The name in the PTX: as given, or the mangled name of the only template or function of that name.
    #[track_caller]
    fn mangled(&self, kernel: &str) -> &str {
        let part = format!("{}{kernel}", kernel.len());
        let mut found = self.entries.iter().filter(|e| *e == kernel || e.starts_with("_Z") && e.contains(&part));
        let first = found.next().unwrap_or_else(|| panic!("no kernel {kernel}"));
        assert!(found.next().is_none(), "more than one kernel {kernel}");
        first
    }

    /// Whether the kernels run through a driver: then there are no findings, only error codes.
    pub fn is_driver(&self) -> bool {
        matches!(self.place, Place::Driver(_))
    }

    /// Whether uninitialised memory is noticed, and everything else.
    pub fn is_strict(&self) -> bool {
        matches!(&self.place, Place::Library { options, .. } if options.strict)
    }

    /// Device memory that nobody wrote.
    pub fn empty<T: Plain>(&self, len: usize) -> Buffer<T> {
        let bytes = (len * size_of::<T>()).max(1);
        let address = match &self.place {
            Place::Library { memory, .. } => memory.allocate(0, bytes, Purpose::Device, "").expect("memory"),
            Place::Driver(driver) => driver.allocate(bytes),
        };
        Buffer { address, len, element: PhantomData }
    }

    /// Device memory with these values.
    pub fn upload<T: Plain>(&self, data: &[T]) -> Buffer<T> {
        let buffer = self.empty(data.len());
        self.write(buffer.address, data);
        buffer
    }

    /// Device memory with default values (zeros).
    pub fn zeros<T: Plain>(&self, len: usize) -> Buffer<T> {
        self.upload(&vec![T::default(); len])
    }

    /// Copies to an address.
    pub fn write<T: Plain>(&self, address: u64, data: &[T]) {
        if data.is_empty() {
            return;
        }
        match &self.place {
            Place::Library { memory, .. } => memory.write(address, bytes(data)).unwrap_or_else(|f| panic!("{f}")),
            Place::Driver(driver) => driver.write(address, bytes(data)),
        }
    }

    /// Copies out; in strict mode every byte must have been written.
    #[track_caller]
    pub fn read<T: Plain>(&self, buffer: &Buffer<T>) -> Vec<T> {
        self.read_at(buffer.address, buffer.len)
    }

    /// Copies out from an address.
    #[track_caller]
    pub fn read_at<T: Plain>(&self, address: u64, len: usize) -> Vec<T> {
        let (data, unwritten) = self.read_any(address, len);
        assert_eq!(unwritten, 0, "bytes that no kernel wrote");
        data
    }

    /// Copies out from an address, and tells how many of the bytes nobody wrote (through a driver: none).
    #[track_caller]
    pub fn read_any<T: Plain>(&self, address: u64, len: usize) -> (Vec<T>, usize) {
        let mut data = vec![T::default(); len];
        if len == 0 {
            return (data, 0);
        }
        let unwritten = match &self.place {
            Place::Library { memory, .. } => {
                memory.read(address, bytes_mut(&mut data)).unwrap_or_else(|f| panic!("{f}"))
            }
            Place::Driver(driver) => {
                driver.read(address, bytes_mut(&mut data));
                0
            }
        };
        (data, unwritten)
    }

    /// Gives device memory back.
    #[track_caller]
    pub fn free(&self, address: u64) {
        match &self.place {
            Place::Library { memory, .. } => drop(memory.free(address).unwrap_or_else(|f| panic!("{f}"))),
            Place::Driver(driver) => driver.free(address),
        }
    }

    /// Address and bytes of a module variable.
    pub fn variable(&self, name: &str) -> (u64, usize) {
        match &self.place {
            Place::Library { program, .. } => {
                let found = program.variables.iter().find(|v| v.name == name);
                found.map(|v| (v.address, v.bytes)).unwrap_or_else(|| panic!("no variable {name}"))
            }
            Place::Driver(driver) => driver.variable(name),
        }
    }

    /// Runs a kernel; a finding fails the test.
    #[track_caller]
    pub fn launch(&self, kernel: &str, grid: impl Extent, block: impl Extent, shared: usize, args: &[Arg]) {
        if let Err(finding) = self.try_launch(kernel, grid, block, shared, args) {
            panic!("{finding}");
        }
    }

    /// Runs a kernel; the finding if there is one (through a driver: no details).
    #[track_caller]
    pub fn try_launch(
        &self,
        kernel: &str,
        grid: impl Extent,
        block: impl Extent,
        shared: usize,
        args: &[Arg],
    ) -> Result<(), Finding> {
        self.run(kernel, grid.extent(), block.extent(), shared, args, false)
    }

    /// Runs a kernel whose blocks are all resident and may wait for each other.
    #[track_caller]
    pub fn launch_cooperative(&self, kernel: &str, grid: impl Extent, block: impl Extent, shared: usize, args: &[Arg]) {
        if let Err(finding) = self.run(kernel, grid.extent(), block.extent(), shared, args, true) {
            panic!("{finding}");
        }
    }

    #[track_caller]
    fn run(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared: usize,
        args: &[Arg],
        cooperative: bool,
    ) -> Result<(), Finding> {
        let kernel = self.mangled(kernel);
        match &self.place {
            Place::Library { memory, program, options } => {
                let entry = program.entries.iter().position(|e| e.name == kernel).expect("an entry of the text");
                let about = &program.entries[entry];
                let sizes: Vec<usize> = args.iter().map(|a| a.0.len()).collect();
                let wanted: Vec<usize> = about.params.iter().map(|p| p.1).collect();
                assert_eq!(sizes, wanted, "{kernel}: bytes of the arguments");
                let mut params = vec![0u8; about.param_bytes];
                for (&(offset, bytes), arg) in about.params.iter().zip(args) {
                    params[offset..offset + bytes].copy_from_slice(&arg.0);
                }
                let outcome = launch(&Launch {
                    program,
                    entry,
                    grid,
                    block,
                    dynamic_shared: shared,
                    params: &params,
                    cooperative,
                    memory,
                    device: 0,
                    peers: 1,
                    options: *options,
                });
                self.printed.borrow_mut().extend(outcome.printed);
                self.counters.borrow_mut().push(outcome.counters);
                outcome.finding.map_or(Ok(()), Err)
            }
            Place::Driver(driver) => driver.launch(kernel, grid, block, shared, args, cooperative),
        }
    }

    /// What the kernels printed so far.
    pub fn printed(&self) -> String {
        String::from_utf8(self.printed.borrow().clone()).expect("UTF-8")
    }

    /// The counts of every launch so far.
    pub fn counters(&self) -> Vec<Counters> {
        self.counters.borrow().clone()
    }
}

/// A grid's or a block's extent.
pub trait Extent {
    fn extent(self) -> [u32; 3];
}
impl Extent for usize {
    fn extent(self) -> [u32; 3] {
        [self as u32, 1, 1]
    }
}
impl Extent for [usize; 2] {
    fn extent(self) -> [u32; 3] {
        [self[0] as u32, self[1] as u32, 1]
    }
}
impl Extent for [usize; 3] {
    fn extent(self) -> [u32; 3] {
        self.map(|x| x as u32)
    }
}

/// Whether the tests are to go through a driver.
pub fn through_driver() -> bool {
    std::env::var_os("CUDA_SIM_TEST_DRIVER").is_some_and(|v| v == "1")
}

/// How the simulated device runs launches.
pub fn options(strict: bool, threads: usize) -> Options {
    Options { strict, threads, budget: 1 << 32, multiprocessors: 108, sm: 80 }
}

/// Does the same work in every mode, and wants the same bytes and the same counts.
#[track_caller]
pub fn same<R: Bits>(ptx: &str, work: impl Fn(&Gpu) -> R) -> R {
    modes(ptx, work, true)
}

/// As `same`, for kernels whose counts depend on how blocks interleave: spin locks, CAS loops, places drawn by atomics.
#[track_caller]
pub fn same_results<R: Bits>(ptx: &str, work: impl Fn(&Gpu) -> R) -> R {
    modes(ptx, work, false)
}

#[track_caller]
fn modes<R: Bits>(ptx: &str, work: impl Fn(&Gpu) -> R, counted: bool) -> R {
    if through_driver() {
        return work(&Gpu::driver(ptx));
    }
    let gpu = Gpu::library(ptx, options(true, 1));
    let result = work(&gpu);
    for (strict, threads) in [(true, 2), (false, 2)] {
        let other = Gpu::library(ptx, options(strict, threads));
        assert!(work(&other).bits() == result.bits(), "other bytes with strict: {strict}, {threads} host threads");
        if counted {
            assert_eq!(other.counters(), gpu.counters(), "other counts with strict: {strict}, {threads} host threads");
        }
    }
    result
}
