//! Launches.
//!
//! A launch that is carried out returns success, whatever the kernel does: a kernel's fault is reported, and every later
//! call in the context returns its error, as on a device, where it is noticed later too.

use std::ffi::{c_uint, c_void};
use std::io::Write;

use super::call::{api, get, get_many};
use super::device::{MAX_BLOCK, MAX_GRID};
use super::error::{self, Answer};
use super::state::{Driver, Launched};
use super::types::*;
use super::work::{Form, KernelWork, Work};
use crate::check::Footprint;
use crate::exec::counters::Counters;
use crate::exec::occupancy::Limits;
use crate::exec::{self, Launch, Outcome};
use crate::finding::{Finding, Kind};

/// `CU_LAUNCH_PARAM_BUFFER_POINTER` and its fellows.
const PARAM_END: usize = 0;
const PARAM_POINTER: usize = 1;
const PARAM_SIZE: usize = 2;

/// What a launch asks for.
pub(crate) struct Asked {
    pub function: CUfunction,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: c_uint,
    pub cooperative: bool,
}

/// Where its arguments are.
#[derive(Clone, Copy)]
pub(crate) struct Arguments {
    pub params: *mut *mut c_void,
    pub extra: *mut *mut c_void,
}

impl Driver {
    /// Checks a launch and reads its arguments.
    ///
    /// # Safety
    /// The arguments are as the kernel declares them.
    pub unsafe fn kernel_work(&mut self, context: CUcontext, asked: Asked, arguments: Arguments) -> Answer<KernelWork> {
        let function = self.function(asked.function, context)?;
        let loaded = self.loaded(function)?;
        let entry = loaded.entry()?;
        let within = |given: [u32; 3], most: [u32; 3]| (0..3).all(|i| (1..=most[i]).contains(&given[i]));
        if !within(asked.grid, MAX_GRID) || !within(asked.block, MAX_BLOCK) {
            return Err(error::INVALID_VALUE);
        }
        let threads: u32 = asked.block.iter().product();
        if threads > Limits::BLOCK_THREADS {
            return Err(error::INVALID_VALUE);
        }
        if threads > entry.max_threads {
            return Err(error::LAUNCH_OUT_OF_RESOURCES);
        }
        if entry.required_threads.is_some_and(|required| required != asked.block) {
            return Err(error::INVALID_VALUE);
        }
        let dynamic_shared = asked.dynamic_shared as usize;
        if dynamic_shared > loaded.dynamic_limit()?
            || dynamic_shared + entry.static_shared > self.chip.limits.shared_optin
        {
            return Err(error::INVALID_VALUE);
        }
        if asked.cooperative {
            let resident = u64::from(loaded.needs()?.blocks(&self.chip, threads, dynamic_shared));
            let blocks: u64 = asked.grid.iter().map(|&n| u64::from(n)).product();
            if blocks > resident * u64::from(self.chip.multiprocessors()) {
                return Err(error::COOPERATIVE_LAUNCH_TOO_LARGE);
            }
        }
        let params = unsafe { read_params(&entry.params, entry.param_bytes, arguments) }?;
        let Asked { grid, block, cooperative, .. } = asked;
        Ok(KernelWork { function, grid, block, dynamic_shared, params, cooperative })
    }

    unsafe fn launch(&mut self, context: CUcontext, stream: CUstream, asked: Asked, arguments: Arguments) -> Answer {
        let stream = self.stream(stream, context)?;
        let work = unsafe { self.kernel_work(context, asked, arguments) }?;
        // A kernel runs in the context of its module, and so must the stream.
        if self.loaded(work.function)?.context != self.streams.find(stream)?.context {
            return Err(error::INVALID_HANDLE);
        }
        self.submit(stream, Work::Kernel(Box::new(work)), Form::Asynchronous)
    }

    /// Runs a kernel and keeps what it counted. The finding is the caller's to act on.
    pub fn launch_now(&mut self, kernel: &KernelWork, context: CUcontext, stream: &str) -> Answer<(Outcome, String)> {
        let loaded = self.loaded(kernel.function)?;
        let name = loaded.entry()?.name.clone();
        let (device, peers) = self.reach(context)?;
        let mut outcome = if self.count_launch() {
            let why = "CUDA_SIM_FAIL makes this launch fail";
            Outcome {
                counters: Counters::default(),
                footprint: Footprint::default(),
                printed: Vec::new(),
                finding: Some(Finding::new(Kind::Misuse, why)),
            }
        } else {
            exec::launch(&Launch {
                program: &loaded.program,
                entry: loaded.index,
                grid: kernel.grid,
                block: kernel.block,
                dynamic_shared: kernel.dynamic_shared,
                params: &kernel.params,
                cooperative: kernel.cooperative,
                memory: &self.memory,
                device: device as u32,
                peers,
                options: self.options(),
            })
        };
        if !outcome.printed.is_empty() {
            let mut out = std::io::stdout().lock();
            // A closed standard output must not stop the program, as it does not on a device.
            let _ = out.write_all(&outcome.printed).and_then(|()| out.flush());
        }
        if let Some(finding) = &mut outcome.finding
            && finding.kernel.is_empty()
        {
            finding.kernel = name.clone();
        }
        self.launched(Launched {
            launch: 0,
            kernel: name.clone(),
            device,
            stream: stream.into(),
            grid: kernel.grid,
            block: kernel.block,
            dynamic_shared: kernel.dynamic_shared,
            counters: std::mem::take(&mut outcome.counters),
        });
        Ok((outcome, name))
    }

    /// The context's device, and the devices whose memory its kernels may touch.
    fn reach(&self, context: CUcontext) -> Answer<(CUdevice, u32)> {
        let context = self.contexts.find(context)?;
        let peers = context.peers.iter().filter_map(|&peer| self.contexts.get(peer)).map(|peer| peer.device);
        Ok((context.device, peers.chain([context.device]).fold(0, |bits, device| bits | 1 << device)))
    }
}

/// Copies a kernel's arguments into a parameter buffer.
unsafe fn read_params(layout: &[(usize, usize)], bytes: usize, arguments: Arguments) -> Answer<Vec<u8>> {
    let Arguments { params, extra } = arguments;
    if !params.is_null() && !extra.is_null() {
        return Err(error::INVALID_VALUE);
    }
    let mut buffer = vec![0; bytes];
    if !extra.is_null() {
        let (mut pointer, mut size) = (std::ptr::null::<u8>(), None);
        let mut at = extra as *const usize;
        loop {
            let (key, value) = unsafe { (at.read_unaligned(), at.wrapping_add(1)) };
            match key {
                PARAM_END => break,
                PARAM_POINTER => pointer = unsafe { value.read_unaligned() } as *const u8,
                PARAM_SIZE => size = Some(unsafe { get(value.read_unaligned() as *const usize) }?),
                _ => return Err(error::INVALID_VALUE),
            }
            at = at.wrapping_add(2);
        }
        // Without a size, or without a pointer, there is no buffer.
        let size = size.filter(|_| !pointer.is_null()).unwrap_or(0);
        if size < bytes {
            return Err(error::INVALID_VALUE);
        }
        unsafe { std::ptr::copy_nonoverlapping(pointer, buffer.as_mut_ptr(), bytes) };
        return Ok(buffer);
    }
    if layout.is_empty() {
        return Ok(buffer);
    }
    let pointers = unsafe { get_many(params.cast_const(), layout.len()) }?;
    for (&(offset, size), pointer) in layout.iter().zip(pointers) {
        let place = buffer.get_mut(offset..offset.saturating_add(size)).ok_or(error::INVALID_VALUE)?;
        if pointer.is_null() {
            return Err(error::INVALID_VALUE);
        }
        unsafe { std::ptr::copy_nonoverlapping(pointer.cast_const().cast(), place.as_mut_ptr(), size) };
    }
    Ok(buffer)
}

/// What the attributes of a launch ask for, as far as it makes a difference here: whether it is cooperative.
fn attributes(list: &[CUlaunchAttribute]) -> Answer<bool> {
    let mut cooperative = false;
    for attribute in list {
        let words = attribute.value[0];
        let (first, second, third) = (words as u32, (words >> 32) as u32, attribute.value[1] as u32);
        match attribute.id {
            0 => {}                       // ignore
            1 | 3 | 8 | 9 | 10 | 14 => {} // access policy, synchronisation, priority, memory domains, carveout: hints
            2 => cooperative = first != 0,
            4 if (first, second, third) == (1, 1, 1) => {} // a cluster of one block is a block
            5 => {}                                        // how clusters are scheduled
            6 if first == 0 => {}                          // programmatic serialisation, off
            4..=16 => return Err(error::NOT_SUPPORTED),
            _ => return Err(error::INVALID_VALUE),
        }
    }
    Ok(cooperative)
}

api! {
    [context] cuLaunchKernel(
        function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, shared: c_uint, stream: CUstream, params: *mut *mut c_void, extra: *mut *mut c_void
    ) as cuLaunchKernel_ptsz |driver, context| {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let asked = Asked { function, grid, block, dynamic_shared: shared, cooperative: false };
        driver.launch(context, stream, asked, Arguments { params, extra })
    }

    [context] cuLaunchCooperativeKernel(
        function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, shared: c_uint, stream: CUstream, params: *mut *mut c_void
    ) as cuLaunchCooperativeKernel_ptsz |driver, context| {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let asked = Asked { function, grid, block, dynamic_shared: shared, cooperative: true };
        driver.launch(context, stream, asked, Arguments { params, extra: std::ptr::null_mut() })
    }

    [context] cuLaunchKernelEx(
        config: *const CUlaunchConfig, function: CUfunction, params: *mut *mut c_void, extra: *mut *mut c_void
    ) as cuLaunchKernelEx_ptsz |driver, context| {
        let c = get(config)?;
        let cooperative = attributes(&get_many(c.attrs.cast_const(), c.numAttrs as usize)?)?;
        let asked = Asked {
            function,
            grid: [c.gridDimX, c.gridDimY, c.gridDimZ],
            block: [c.blockDimX, c.blockDimY, c.blockDimZ],
            dynamic_shared: c.sharedMemBytes,
            cooperative,
        };
        driver.launch(context, c.hStream, asked, Arguments { params, extra })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer<T>(value: &T) -> *mut c_void {
        std::ptr::from_ref(value).cast_mut().cast()
    }

    #[test]
    fn arguments_are_laid_out_by_the_kernels_own_offsets() {
        let layout = [(0, 4), (8, 8), (16, 1)];
        let (a, b, c) = (0x0403_0201u32, 0x1817_1615_1413_1211u64, 0x99u8);
        let mut list = [pointer(&a), pointer(&b), pointer(&c)];
        let arguments = Arguments { params: list.as_mut_ptr(), extra: std::ptr::null_mut() };
        let buffer = unsafe { read_params(&layout, 17, arguments) }.unwrap();
        let expected = [1, 2, 3, 4, 0, 0, 0, 0, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x99];
        assert_eq!(buffer, expected);
    }

    #[test]
    fn a_buffer_must_be_large_enough() {
        let bytes: Vec<u8> = (0..16).collect();
        let mut size = 16usize;
        let mut extra = [
            PARAM_POINTER as *mut c_void,
            bytes.as_ptr().cast_mut().cast(),
            PARAM_SIZE as *mut c_void,
            (&raw mut size).cast(),
            PARAM_END as *mut c_void,
        ];
        let arguments = Arguments { params: std::ptr::null_mut(), extra: extra.as_mut_ptr() };
        assert_eq!(unsafe { read_params(&[(0, 16)], 16, arguments) }, Ok(bytes.clone()));
        assert_eq!(unsafe { read_params(&[(0, 17)], 17, arguments) }, Err(error::INVALID_VALUE));
        let mut list = [std::ptr::null_mut()];
        let both = Arguments { params: list.as_mut_ptr(), ..arguments };
        assert_eq!(unsafe { read_params(&[(0, 16)], 16, both) }, Err(error::INVALID_VALUE));
        let none = Arguments { params: std::ptr::null_mut(), extra: std::ptr::null_mut() };
        assert_eq!(unsafe { read_params(&[(0, 4)], 4, none) }, Err(error::INVALID_VALUE));
        assert_eq!(unsafe { read_params(&[], 0, none) }, Ok(vec![]));
        let null = Arguments { params: list.as_mut_ptr(), ..none };
        assert_eq!(unsafe { read_params(&[(0, 4)], 4, null) }, Err(error::INVALID_VALUE));
    }

    #[test]
    fn attributes_that_change_the_meaning_are_kept_or_refused() {
        let attribute = |id, value: [u32; 3]| CUlaunchAttribute {
            id,
            pad: [0; 4],
            value: [u64::from(value[0]) | u64::from(value[1]) << 32, value[2].into(), 0, 0, 0, 0, 0, 0],
        };
        assert_eq!(attributes(&[]), Ok(false));
        assert_eq!(attributes(&[attribute(2, [1, 0, 0])]), Ok(true));
        assert_eq!(attributes(&[attribute(4, [1, 1, 1])]), Ok(false));
        assert_eq!(attributes(&[attribute(4, [2, 1, 1])]), Err(error::NOT_SUPPORTED));
        assert_eq!(attributes(&[attribute(6, [1, 0, 0])]), Err(error::NOT_SUPPORTED));
        assert_eq!(attributes(&[attribute(99, [0, 0, 0])]), Err(error::INVALID_VALUE));
    }
}
