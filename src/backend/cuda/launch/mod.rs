//! One typed launcher a kernel: it checks lengths, decides grid, block and shared memory, and calls. Nothing else calls a
//! kernel. A file here belongs to the file of the same name in `kernels/`.
//!
//! Every kernel takes one struct by value; the Rust struct is `#[repr(C)]` and has the name, the fields and the size of the
//! one in the `.cu` file, and both assert that size.

pub(super) mod attack;
pub(super) mod ceiling;
pub(super) mod conv;
mod conv_mma;
pub(super) mod effect;
pub(super) mod intervene;
pub(super) mod layout;
pub(super) mod loss;
pub(super) mod mask;
pub(super) mod norm;
pub(super) mod optimizer;
pub(super) mod pointwise;
pub(super) mod pool;
pub(super) mod rows;
pub(super) mod winograd;

pub(super) use conv_mma::dynamic_shared;

use super::device::{Device, device_error};
use crate::backend::BackendError;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig, PushKernelArg};
use std::marker::PhantomData;
use std::sync::Arc;

/// Floats in device memory, to read.
#[derive(Clone, Copy)]
pub(super) struct Floats<'a> {
    pointer: u64,
    len: usize,
    life: PhantomData<&'a f32>,
}

/// Floats in device memory, to write.
pub(super) struct FloatsMut<'a> {
    pointer: u64,
    len: usize,
    life: PhantomData<&'a mut f32>,
}

/// Row lists and labels in device memory.
#[derive(Clone, Copy)]
pub(super) struct Indices<'a> {
    pointer: u64,
    len: usize,
    life: PhantomData<&'a u32>,
}

impl<'a> Floats<'a> {
    /// The address, as an argument struct holds it.
    pub fn pointer(&self) -> u64 {
        self.pointer
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The first `len` elements; all of them where there are fewer, which the launcher then refuses.
    pub fn first(self, len: usize) -> Floats<'a> {
        Floats { len: len.min(self.len), ..self }
    }

    /// All behind the first `skipped`.
    pub fn behind(self, skipped: usize) -> Floats<'a> {
        let skipped = skipped.min(self.len);
        Floats { pointer: self.pointer + 4 * skipped as u64, len: self.len - skipped, ..self }
    }
}

impl FloatsMut<'_> {
    /// The address, as an argument struct holds it.
    pub fn pointer(&self) -> u64 {
        self.pointer
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The first `len` elements; all of them where there are fewer, which the launcher then refuses.
    pub fn first(self, len: usize) -> Self {
        FloatsMut { len: len.min(self.len), ..self }
    }

    /// All behind the first `skipped`.
    pub fn behind(self, skipped: usize) -> Self {
        let skipped = skipped.min(self.len);
        FloatsMut { pointer: self.pointer + 4 * skipped as u64, len: self.len - skipped, ..self }
    }

    /// The same memory for one launch, to be written again later.
    pub fn reborrow(&mut self) -> FloatsMut<'_> {
        FloatsMut { pointer: self.pointer, len: self.len, life: PhantomData }
    }

    /// What has been written, to read.
    pub fn as_floats(&self) -> Floats<'_> {
        Floats { pointer: self.pointer, len: self.len, life: PhantomData }
    }
}

impl Indices<'_> {
    /// The first `len` elements; all of them where there are fewer, which the launcher then refuses.
    pub fn first(self, len: usize) -> Self {
        Indices { len: len.min(self.len), ..self }
    }

    /// The address, as an argument struct holds it.
    pub fn pointer(&self) -> u64 {
        self.pointer
    }

    pub fn len(&self) -> usize {
        self.len
    }
}

/// Where kernels go, in order.
pub(super) struct Queue {
    pub device: Arc<Device>,
    pub stream: Arc<CudaStream>,
}

/// Blocks of a launch along x, y, z. x may be up to 2^31 - 1, the others up to 65535: rows belong into x.
type Grid = [usize; 3];

/// A struct on its way to a kernel.
#[repr(transparent)]
struct Argument<A>(A);

// SAFETY: the bytes of a plain struct are copied to the kernel's parameters, and `Queue::launch` is told the right type.
unsafe impl<A: Copy> DeviceRepr for Argument<A> {}

impl Queue {
    pub fn floats<'a>(&self, slice: &'a CudaSlice<f32>) -> Floats<'a> {
        Floats { pointer: slice.device_ptr(&self.stream).0, len: slice.len(), life: PhantomData }
    }

    pub fn floats_mut<'a>(&self, slice: &'a mut CudaSlice<f32>) -> FloatsMut<'a> {
        let len = slice.len();
        FloatsMut { pointer: slice.device_ptr_mut(&self.stream).0, len, life: PhantomData }
    }

    pub fn indices<'a>(&self, slice: &'a CudaSlice<u32>) -> Indices<'a> {
        Indices { pointer: slice.device_ptr(&self.stream).0, len: slice.len(), life: PhantomData }
    }

    /// Calls a kernel with one struct as its argument.
    ///
    /// # Safety
    /// `A` is `#[repr(C)]` and equals the struct that the kernel takes; its pointers are to memory of this device that holds
    /// what the kernel reads and has room for what it writes, and nobody else uses what it writes before the stream is there.
    unsafe fn launch<A: Copy>(
        &self,
        kernel: &'static str,
        grid: Grid,
        block: [u32; 2],
        shared_bytes: usize,
        argument: A,
    ) -> Result<(), BackendError> {
        const { assert!(size_of::<A>() <= 4096, "a kernel's parameters have 4 KB") };
        let function = self.device.function(kernel)?;
        let fail = |e| device_error(&format!("kernel {kernel}"), e);
        let refuse = |reason: String| BackendError::Device { what: format!("kernel {kernel}"), reason };
        let limits = [i32::MAX as usize, 65_535, 65_535];
        if grid.iter().zip(limits).any(|(&n, limit)| n == 0 || n > limit) {
            return Err(refuse(format!("a grid of {grid:?} blocks is beyond {limits:?}: use a smaller batch")));
        }
        // 48 KB are anyone's, what the kernel declares itself among them
        if shared_bytes > 32 << 10 {
            use cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MAX;
            function.set_attribute(MAX, shared_bytes as i32).map_err(fail)?;
        }
        let config = LaunchConfig {
            grid_dim: (grid[0] as u32, grid[1] as u32, grid[2] as u32),
            block_dim: (block[0], block[1], 1),
            shared_mem_bytes: shared_bytes as u32,
        };
        let argument = Argument(argument);
        let mut builder = self.stream.launch_builder(function);
        builder.arg(&argument);
        // SAFETY: the caller's.
        unsafe { builder.launch(config) }.map(drop).map_err(fail)
    }
}

/// That a value has the elements that the kernel will touch. A planned graph cannot break it, but a kernel that ran on less
/// would write into its neighbours.
fn expect(kernel: &'static str, what: &str, got: usize, want: usize) -> Result<(), BackendError> {
    if got == want {
        return Ok(());
    }
    let reason = format!("{what} has {got} elements where {want} are needed (please report this)");
    Err(BackendError::Device { what: format!("kernel {kernel}"), reason })
}

/// A number that a kernel takes as 32 bits.
fn narrow(kernel: &'static str, what: &str, n: usize) -> Result<u32, BackendError> {
    u32::try_from(n).map_err(|_| BackendError::Device {
        what: format!("kernel {kernel}"),
        reason: format!("{what} of {n} is beyond 32 bits: use a smaller batch"),
    })
}

/// Threads of a block in kernels that give every thread its own elements.
const THREADS: usize = 256;

/// How an elementwise kernel cuts a value of `4 * quads + tail` elements: a thread for four neighbours, then for one.
struct Elements {
    quads: u32,
    tail: u32,
}

impl Elements {
    /// `n` elements at these addresses.
    fn new(kernel: &'static str, n: usize, pointers: &[u64]) -> Result<Elements, BackendError> {
        let quads = if aligned(pointers) { n / 4 } else { 0 };
        Ok(Elements { quads: narrow(kernel, "a value", quads)?, tail: narrow(kernel, "a value", n - 4 * quads)? })
    }

    fn grid(&self) -> Grid {
        blocks(self.quads as usize + self.tail as usize)
    }
}

/// As many blocks as `threads` threads need.
fn blocks(threads: usize) -> Grid {
    [threads.div_ceil(THREADS), 1, 1]
}

/// Channels that a thread takes: 4 where runs of `channels` begin at multiples of 16 bytes, else 1.
fn lanes(channels: usize, pointers: &[u64]) -> usize {
    if channels.is_multiple_of(4) && aligned(pointers) { 4 } else { 1 }
}

fn aligned(pointers: &[u64]) -> bool {
    pointers.iter().all(|p| p.is_multiple_of(16))
}

/// A block for sums over the height of a matrix: its threads along the width, the rest of them along the height. Both are
/// powers of two, and follow from the width alone, as the order of the sums follows from them.
fn column_block(width: usize) -> [u32; 2] {
    let along = width.next_power_of_two().min(32);
    [along as u32, (THREADS / along) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::Precision;
    use crate::backend::cuda::precision::Arithmetic;
    use cudarc::driver::CudaSlice;
    use std::sync::OnceLock;

    impl Queue {
        /// A queue on the environment's first device, simulated or real, opened once.
        pub(super) fn for_tests() -> Queue {
            static DEVICE: OnceLock<Arc<Device>> = OnceLock::new();
            let open = || Device::open(0, Arithmetic::In(Precision::Fp32));
            let fail = |e| panic!("{e}\nfirst do `. tests/cuda-sim/env.sh`");
            let device = DEVICE.get_or_init(|| Arc::new(open().unwrap_or_else(fail))).clone();
            Queue { stream: device.context.new_stream().unwrap(), device }
        }

        /// The same with the kernels that precisions below fp32 use; or why that device has none.
        pub(super) fn with_tensor_cores() -> Result<Queue, BackendError> {
            static DEVICE: OnceLock<Result<Arc<Device>, BackendError>> = OnceLock::new();
            let reduced = Arithmetic::In(Precision::Tf32);
            let device = DEVICE.get_or_init(|| Device::open(0, reduced).map(Arc::new)).clone()?;
            Ok(Queue { stream: device.context.new_stream().unwrap(), device })
        }

        /// Memory that nobody has written: a read of it is a finding of the simulated device.
        pub(super) fn unwritten(&self, len: usize) -> CudaSlice<f32> {
            unsafe { self.stream.alloc(len.max(1)) }.unwrap()
        }

        pub(super) fn upload<T: DeviceRepr>(&self, data: &[T]) -> CudaSlice<T> {
            self.stream.clone_htod(data).unwrap()
        }

        pub(super) fn download<T: DeviceRepr>(&self, data: &CudaSlice<T>) -> Vec<T> {
            let host = self.stream.clone_dtoh(data).unwrap();
            self.stream.synchronize().unwrap();
            host
        }
    }

    #[test]
    fn column_blocks_are_whole_and_as_wide_as_a_warp_at_most() {
        for (width, want) in [(1, [1, 256]), (3, [4, 64]), (32, [32, 8]), (1000, [32, 8])] {
            assert_eq!(column_block(width), want);
        }
    }
}
