//! Memory: allocation, pools, what a pointer is, copies and fills.
//!
//! Virtual memory management is not supported. A copy or fill outside of an allocation is `CUDA_ERROR_INVALID_VALUE`, and
//! is reported.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use super::call::{api, get, get_many, put, put_if};
use super::error::{self, Answer};
use super::state::Driver;
use super::types::*;
use super::work::{CopyWork, FillWork, Form, Side, Space, Work};
use crate::finding::{Finding, Kind};
use crate::memory::Purpose;

/// What the driver keeps about an allocation.
pub(crate) struct Allocation {
    pub bytes: usize,
    pub context: CUcontext,
    pub device: CUdevice,
    pub purpose: Purpose,
    /// Stream-ordered: `cuMemAllocAsync` made it.
    pub ordered: bool,
    /// The pool of a stream-ordered allocation, as long as that lives.
    pub pool: Option<CUmemoryPool>,
    /// The call that made it.
    pub call: &'static str,
    flags: c_uint,
    id: u64,
    /// `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS`
    sync_memops: bool,
}

/// A memory pool.
pub(crate) struct Pool {
    pub device: CUdevice,
    pub default: bool,
    reuse: [c_int; 3],
    threshold: u64,
    used: u64,
    high: u64,
    limit: usize,
}

impl Pool {
    pub fn new(device: CUdevice, default: bool) -> Pool {
        Pool { device, default, reuse: [1; 3], threshold: 0, used: 0, high: 0, limit: 0 }
    }
}

/// Device memory is given out in units of this.
const UNIT: usize = 512;
/// Rows of `cuMemAllocPitch` start at multiples of this.
const PITCH: usize = 512;

impl Driver {
    /// Allocates for the context.
    fn allocate(
        &mut self,
        context: CUcontext,
        bytes: usize,
        purpose: Purpose,
        pool: Option<CUmemoryPool>,
        flags: c_uint,
    ) -> Answer<u64> {
        let device = match pool {
            Some(pool) => self.pools.find(pool)?.device,
            None => self.contexts.find(context)?.device,
        };
        let limited = purpose == Purpose::Device;
        let room = self.environment.memory - self.device(device)?.used.min(self.environment.memory);
        let cost = if limited { bytes.checked_next_multiple_of(UNIT).ok_or(error::OUT_OF_MEMORY)? } else { 0 };
        let refused = limited && self.count_alloc();
        if refused || cost > room || bytes > isize::MAX as usize / 2 {
            return Err(error::OUT_OF_MEMORY);
        }
        if let Some(pool) = pool {
            let pool = self.pools.find_mut(pool)?;
            if pool.limit != 0 && pool.used + cost as u64 > pool.limit as u64 {
                return Err(error::OUT_OF_MEMORY);
            }
            pool.used += cost as u64;
            pool.high = pool.high.max(pool.used);
        }
        let Some(base) = self.memory.allocate(device as u32, bytes, purpose, "") else {
            if let Some(pool) = pool {
                let pool = self.pools.find_mut(pool)?;
                pool.used = pool.used.saturating_sub(cost as u64);
            }
            return Err(error::OUT_OF_MEMORY);
        };
        self.device_mut(device)?.used += cost;
        self.add(base, bytes, context, device, purpose, pool, flags);
        Ok(base)
    }

    #[allow(clippy::too_many_arguments, reason = "one call each for memory that is made and memory that is registered")]
    fn add(
        &mut self,
        base: u64,
        bytes: usize,
        context: CUcontext,
        device: CUdevice,
        purpose: Purpose,
        pool: Option<CUmemoryPool>,
        flags: c_uint,
    ) {
        self.buffers += 1;
        let (id, call, ordered) = (self.buffers, self.call, pool.is_some());
        let made = Allocation { bytes, context, device, purpose, ordered, pool, call, flags, id, sync_memops: false };
        self.allocations.insert(base, made);
    }

    /// Ends an allocation, whatever its state.
    pub fn release(&mut self, base: u64) -> Answer {
        let Some(gone) = self.allocations.remove(&base) else { return Err(error::INVALID_VALUE) };
        self.order.forget(base, base + gone.bytes as u64);
        if gone.purpose == Purpose::Device {
            let cost = gone.bytes.next_multiple_of(UNIT);
            let device = self.device_mut(gone.device)?;
            device.used = device.used.saturating_sub(cost);
            if let Some(pool) = gone.pool
                && let Ok(pool) = self.pools.find_mut(pool)
            {
                pool.used = pool.used.saturating_sub(cost as u64);
            }
        }
        self.memory.free(base).map(|_| ()).map_err(|finding| {
            self.report(finding);
            error::INVALID_VALUE
        })
    }

    /// A pointer that is to be freed, or the error and the report that say why it cannot be.
    fn freeable(&mut self, address: u64, purposes: &[Purpose]) -> Answer {
        if self.allocations.get(&address).is_some_and(|a| purposes.contains(&a.purpose)) {
            return Ok(());
        }
        let message = match self.memory.find(address) {
            Some(info) if info.base != address => format!(
                "Freeing {address:#x}, which is inside of the {} bytes at {:#x} and not their start",
                info.bytes, info.base
            ),
            Some(info) => {
                format!("Freeing {address:#x}, which is {:?} memory and not this call's to free", info.purpose)
            }
            None => match self.memory.read(address, &mut [0]) {
                Err(finding) if finding.kind == Kind::UseAfterFree => {
                    format!("Freeing {address:#x}, which has been freed already")
                }
                _ => format!("Freeing {address:#x}, where no allocation is"),
            },
        };
        self.report(Finding::new(Kind::Misuse, message));
        Err(error::INVALID_VALUE)
    }

    /// Ends memory that the host takes back: every operation on it must be over.
    fn free_by_host(&mut self, context: CUcontext, base: u64) -> Answer {
        let bytes = self.allocations.get(&base).ok_or(error::INVALID_VALUE)?.bytes as u64;
        if self.environment.strict
            && let Some(finding) = self.order.host_touches(self.call, base, base + bytes)
        {
            let code = self.fail(context, finding);
            // Gone it is, all the same.
            let _ = self.release(base);
            return Err(code);
        }
        self.release(base)
    }

    fn free(&mut self, context: CUcontext, address: u64) -> Answer {
        if address == 0 {
            return Ok(());
        }
        self.no_unsafe_call_in_capture(context)?;
        self.freeable(address, &[Purpose::Device, Purpose::Managed])?;
        let allocation = self.allocations.get(&address).ok_or(error::INVALID_VALUE)?;
        // cuMemFree waits for the device, except for memory of a pool.
        if !allocation.ordered {
            let device = allocation.device;
            for context in self.contexts.which(|context| context.device == device) {
                self.wait_for_context(context);
            }
        }
        self.free_by_host(context, address)
    }

    fn free_async(&mut self, stream: CUstream, address: u64) -> Answer {
        if address == 0 {
            return Ok(());
        }
        if self.is_capturing(stream)? {
            return Err(self.invalidate(stream, error::NOT_SUPPORTED));
        }
        self.no_implicit_capture(stream)?;
        self.freeable(address, &[Purpose::Device])?;
        if self.allocations.get(&address).is_some_and(|a| !a.ordered) {
            let message = format!("cuMemFreeAsync of {address:#x}, which cuMemAllocAsync did not return");
            self.report(Finding::new(Kind::Misuse, message));
            return Err(error::INVALID_VALUE);
        }
        let context = self.streams.find(stream)?.context;
        self.count_operation("free", context)?;
        let timeline = self.begin(stream)?;
        let bytes = self.allocations.get(&address).ok_or(error::INVALID_VALUE)?.bytes as u64;
        let call = self.call;
        if self.environment.strict
            && let Some(finding) = self.order.touch(timeline, call, &[], &[(address, address + bytes)])
        {
            self.fail(context, finding);
        }
        self.release(address)
    }

    fn allocate_async(&mut self, stream: CUstream, bytes: usize, pool: Option<CUmemoryPool>) -> Answer<u64> {
        if self.is_capturing(stream)? {
            // Memory that a graph owns is not simulated.
            return Err(self.invalidate(stream, error::NOT_SUPPORTED));
        }
        self.no_implicit_capture(stream)?;
        let context = self.streams.find(stream)?.context;
        let device = self.contexts.find(context)?.device;
        let pool = match pool {
            Some(pool) => self.pools.find(pool).map(|_| pool).map_err(|_| error::INVALID_VALUE)?,
            None => self.device(device)?.pool,
        };
        if bytes == 0 {
            return Ok(0);
        }
        self.count_operation("alloc", context)?;
        let timeline = self.begin(stream)?;
        let base = self.allocate(context, bytes, Purpose::Device, Some(pool), 0)?;
        if self.environment.strict {
            // Whoever uses the memory comes after this: it counts as a write, of bytes that nobody can have touched yet.
            let call = self.call;
            let _ = self.order.touch(timeline, call, &[], &[(base, base + bytes as u64)]);
        }
        Ok(base)
    }

    /// The allocation that holds an address, by its start.
    fn holding(&self, address: u64) -> Answer<(u64, &Allocation)> {
        let (&base, allocation) = self.allocations.range(..=address).next_back().ok_or(error::INVALID_VALUE)?;
        if address - base < allocation.bytes as u64 { Ok((base, allocation)) } else { Err(error::INVALID_VALUE) }
    }

    /// Whether a range is managed memory that a stream can be told to own.
    pub fn attachable(&self, address: u64, length: usize) -> Answer {
        let (base, allocation) = self.holding(address)?;
        let whole = length == 0 || (address == base && length == allocation.bytes);
        if whole && allocation.purpose == Purpose::Managed { Ok(()) } else { Err(error::INVALID_VALUE) }
    }

    /// Whether a range lies in managed memory.
    fn managed(&self, address: u64, bytes: usize) -> Answer {
        let (base, allocation) = self.holding(address)?;
        let inside = bytes as u64 <= base + allocation.bytes as u64 - address;
        if bytes > 0 && inside && allocation.purpose == Purpose::Managed { Ok(()) } else { Err(error::INVALID_VALUE) }
    }

    /// Copies as a call asks; where no stream is named, on the default one.
    fn copy(&mut self, context: CUcontext, stream: CUstream, copy: CopyWork, form: Form) -> Answer {
        let stream = self.stream(stream, context)?;
        if form == Form::Synchronous {
            self.no_unsafe_call_in_capture(context)?;
        }
        self.check_copy(&copy)?;
        self.submit(stream, Work::Copy(Box::new(copy)), form)
    }

    fn fill(&mut self, context: CUcontext, stream: CUstream, fill: FillWork, form: Form) -> Answer {
        let stream = self.stream(stream, context)?;
        if form == Form::Synchronous {
            self.no_unsafe_call_in_capture(context)?;
        }
        self.check_fill(&fill)?;
        self.submit(stream, Work::Fill(fill), form)
    }

    fn pointer_attribute(&self, attribute: c_uint, address: u64, data: *mut c_void) -> Answer {
        let found = self.holding(address);
        let variable = self.memory.find(address).filter(|_| found.is_err());
        // SAFETY: the caller's pointer is valid for what the attribute is.
        unsafe {
            if let Some(info) = variable {
                // A module's variable.
                return match attribute {
                    2 => put(data.cast::<c_uint>(), 2),
                    3 => put(data.cast::<u64>(), address),
                    8 | 10 | 15 => put(data.cast::<u8>(), 0),
                    9 => put(data.cast::<c_int>(), info.device as c_int),
                    11 => put(data.cast::<u64>(), info.base),
                    12 => put(data.cast::<usize>(), info.bytes),
                    13 => put(data.cast::<u8>(), 1),
                    _ => Err(error::INVALID_VALUE),
                };
            }
            let (base, a) = found?;
            let host = a.purpose.host();
            match attribute {
                1 => put(data.cast::<usize>(), a.context),
                // Managed memory is device memory here, as it is on hardware.
                2 => put(data.cast::<c_uint>(), if host && a.purpose != Purpose::Managed { 1 } else { 2 }),
                3 => put(data.cast::<u64>(), address),
                4 if host => put(data.cast::<u64>(), address),
                6 => put(data.cast::<u8>(), u8::from(a.sync_memops)),
                7 => put(data.cast::<u64>(), a.id),
                8 => put(data.cast::<u8>(), u8::from(a.purpose == Purpose::Managed)),
                9 => put(data.cast::<c_int>(), a.device),
                10 | 15 => put(data.cast::<u8>(), 0),
                11 => put(data.cast::<u64>(), base),
                12 => put(data.cast::<usize>(), a.bytes),
                13 => put(data.cast::<u8>(), 1),
                14 => put(data.cast::<u64>(), 0),
                16 => put(data.cast::<c_uint>(), 3),
                17 => put(data.cast::<usize>(), a.pool.unwrap_or(0)),
                _ => Err(error::INVALID_VALUE),
            }
        }
    }
}

/// A side of a copy that a structure describes.
#[allow(clippy::too_many_arguments, reason = "the members of the structure")]
fn side(
    kind: c_uint,
    host: u64,
    device: u64,
    x: usize,
    y: usize,
    z: usize,
    pitch: usize,
    height: usize,
) -> Answer<Side> {
    let (space, address) = match kind {
        1 => (Space::Host, host),
        2 => (Space::Device, device),
        3 => return Err(error::NOT_SUPPORTED),
        4 => (Space::Unified, device),
        _ => return Err(error::INVALID_VALUE),
    };
    let plane = pitch.checked_mul(height).ok_or(error::INVALID_VALUE)?;
    let offset = z.checked_mul(plane).and_then(|o| o.checked_add(y.checked_mul(pitch)?)).and_then(|o| o.checked_add(x));
    let address = offset.and_then(|offset| address.checked_add(offset as u64)).ok_or(error::INVALID_VALUE)?;
    Ok(Side { address, pitch, plane, space })
}

/// Reads a description of a copy of planes.
///
/// # Safety
/// The pointer is null or valid.
pub(crate) unsafe fn copy_3d(description: *const CUDA_MEMCPY3D) -> Answer<CopyWork> {
    let c = unsafe { get(description) }?;
    if c.srcLOD != 0 || c.dstLOD != 0 {
        return Err(error::INVALID_VALUE);
    }
    let rows_fit = |pitch: usize, x: usize| {
        c.Height.max(c.Depth) <= 1 || x.checked_add(c.WidthInBytes).is_some_and(|n| n <= pitch)
    };
    let planes_fit = |height: usize, y: usize| c.Depth <= 1 || y.checked_add(c.Height).is_some_and(|n| n <= height);
    if !rows_fit(c.srcPitch, c.srcXInBytes)
        || !rows_fit(c.dstPitch, c.dstXInBytes)
        || !planes_fit(c.srcHeight, c.srcY)
        || !planes_fit(c.dstHeight, c.dstY)
    {
        return Err(error::INVALID_VALUE);
    }
    let to = (c.dstMemoryType, c.dstHost as u64, c.dstDevice);
    let from = (c.srcMemoryType, c.srcHost as u64, c.srcDevice);
    Ok(CopyWork {
        to: side(to.0, to.1, to.2, c.dstXInBytes, c.dstY, c.dstZ, c.dstPitch, c.dstHeight)?,
        from: side(from.0, from.1, from.2, c.srcXInBytes, c.srcY, c.srcZ, c.srcPitch, c.srcHeight)?,
        width: c.WidthInBytes,
        rows: c.Height,
        planes: c.Depth,
    })
}

unsafe fn copy_2d(description: *const CUDA_MEMCPY2D) -> Answer<CopyWork> {
    let c = unsafe { get(description) }?;
    // A pitch of 0 means rows without gaps.
    let pitch = |pitch: usize| if pitch == 0 { c.WidthInBytes } else { pitch };
    let (src, dst) = (pitch(c.srcPitch), pitch(c.dstPitch));
    let fits = |pitch: usize, x: usize| c.Height <= 1 || x.checked_add(c.WidthInBytes).is_some_and(|n| n <= pitch);
    if !fits(src, c.srcXInBytes) || !fits(dst, c.dstXInBytes) {
        return Err(error::INVALID_VALUE);
    }
    Ok(CopyWork {
        to: side(c.dstMemoryType, c.dstHost as u64, c.dstDevice, c.dstXInBytes, c.dstY, 0, dst, 0)?,
        from: side(c.srcMemoryType, c.srcHost as u64, c.srcDevice, c.srcXInBytes, c.srcY, 0, src, 0)?,
        width: c.WidthInBytes,
        rows: c.Height,
        planes: 1,
    })
}

/// A contiguous copy.
fn flat(to: (Space, u64), from: (Space, u64), bytes: usize) -> CopyWork {
    CopyWork::flat(Side::flat(to.0, to.1), Side::flat(from.0, from.1), bytes)
}

fn fill(address: u64, pitch: usize, value: u32, element: usize, count: usize, rows: usize) -> FillWork {
    FillWork { address, pitch, value, element, count, rows }
}

/// `CU_MEM_ADVISE_*` and where to; the simulated memory is everywhere, so there is nothing to do but to check.
fn advise(driver: &Driver, address: u64, bytes: usize, advice: c_uint, location: CUmemLocation) -> Answer {
    driver.managed(address, bytes)?;
    let placed = matches!(advice, 3 | 5 | 6);
    if !(1..=6).contains(&advice) || (placed && !is_place(driver, location)) {
        return Err(error::INVALID_VALUE);
    }
    Ok(())
}

/// Whether a location is a device or the host.
fn is_place(driver: &Driver, location: CUmemLocation) -> bool {
    match location.kind {
        1 => driver.device(location.id).is_ok(),
        2..=4 => true, // the host, one of its NUMA nodes, the current one
        _ => false,
    }
}

/// The location that a plain device number means; -1 is the host.
fn place_of(device: CUdevice) -> CUmemLocation {
    CUmemLocation { kind: if device == -1 { 2 } else { 1 }, id: device.max(0) }
}

fn prefetch(
    driver: &mut Driver,
    context: CUcontext,
    address: u64,
    bytes: usize,
    location: CUmemLocation,
    stream: CUstream,
) -> Answer {
    driver.managed(address, bytes)?;
    if !is_place(driver, location) {
        return Err(error::INVALID_VALUE);
    }
    let stream = driver.stream(stream, context)?;
    driver.submit(stream, Work::Empty, Form::Asynchronous)
}

fn range_attribute(
    driver: &Driver,
    data: *mut c_void,
    size: usize,
    attribute: c_uint,
    address: u64,
    bytes: usize,
) -> Answer {
    driver.managed(address, bytes)?;
    // SAFETY: `data` is valid for `size` bytes.
    unsafe {
        match attribute {
            1 if size == 4 => put(data.cast::<c_int>(), 0),
            2 | 4 if size == 4 => put(data.cast::<c_int>(), -2), // no place was asked for
            3 if size > 0 && size.is_multiple_of(4) && !data.is_null() => {
                (0..size / 4).try_for_each(|i| put(data.cast::<c_int>().add(i), -2))
            }
            _ => Err(error::INVALID_VALUE),
        }
    }
}

fn destroy_pool(driver: &mut Driver, pool: CUmemoryPool) -> Answer {
    let found = driver.pools.get(pool).ok_or(error::INVALID_VALUE)?;
    if found.default {
        return Err(error::NOT_PERMITTED);
    }
    let device = found.device;
    // What is allocated from it lives on.
    for allocation in driver.allocations.values_mut().filter(|a| a.pool == Some(pool)) {
        allocation.pool = None;
    }
    driver.pools.remove(pool)?;
    let device = driver.device_mut(device)?;
    if device.pool == pool {
        device.pool = device.default_pool;
    }
    Ok(())
}

api! {
    [context] cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize) |driver, context| {
        if address.is_null() || bytes == 0 {
            return Err(error::INVALID_VALUE);
        }
        driver.no_unsafe_call_in_capture(context)?;
        put(address, driver.allocate(context, bytes, Purpose::Device, None, 0)?)
    }

    [context] cuMemAllocPitch_v2(
        address: *mut CUdeviceptr, pitch: *mut usize, width: usize, height: usize, element: c_uint
    ) |driver, context| {
        if address.is_null() || pitch.is_null() || width == 0 || height == 0 || !matches!(element, 4 | 8 | 16) {
            return Err(error::INVALID_VALUE);
        }
        driver.no_unsafe_call_in_capture(context)?;
        let row = width.checked_next_multiple_of(PITCH).ok_or(error::OUT_OF_MEMORY)?;
        let bytes = row.checked_mul(height).ok_or(error::OUT_OF_MEMORY)?;
        let base = driver.allocate(context, bytes, Purpose::Device, None, 0)?;
        put(pitch, row)?;
        put(address, base)
    }

    [context] cuMemAllocManaged(address: *mut CUdeviceptr, bytes: usize, flags: c_uint) |driver, context| {
        if address.is_null() || bytes == 0 || !matches!(flags, 1 | 2) {
            return Err(error::INVALID_VALUE);
        }
        driver.no_unsafe_call_in_capture(context)?;
        put(address, driver.allocate(context, bytes, Purpose::Managed, None, flags)?)
    }

    [context] cuMemFree_v2(address: CUdeviceptr) |driver, context| { driver.free(context, address) }

    [context] cuMemAllocHost_v2(pointer: *mut *mut c_void, bytes: usize) |driver, context| {
        if pointer.is_null() || bytes == 0 {
            return Err(error::INVALID_VALUE);
        }
        driver.no_unsafe_call_in_capture(context)?;
        put(pointer, driver.allocate(context, bytes, Purpose::Pinned, None, 2)? as *mut c_void)
    }

    [context] cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, flags: c_uint) |driver, context| {
        if pointer.is_null() || bytes == 0 || flags > 7 {
            return Err(error::INVALID_VALUE);
        }
        driver.no_unsafe_call_in_capture(context)?;
        put(pointer, driver.allocate(context, bytes, Purpose::Pinned, None, flags | 2)? as *mut c_void)
    }

    [context] cuMemFreeHost(pointer: *mut c_void) |driver, context| {
        driver.no_unsafe_call_in_capture(context)?;
        driver.freeable(pointer as u64, &[Purpose::Pinned])?;
        driver.free_by_host(context, pointer as u64)
    }

    [context] cuMemHostRegister_v2(pointer: *mut c_void, bytes: usize, flags: c_uint) |driver, context| {
        if pointer.is_null() || bytes == 0 || flags > 15 || (pointer as usize).checked_add(bytes).is_none() {
            return Err(error::INVALID_VALUE);
        }
        if flags & 4 != 0 {
            return Err(error::NOT_SUPPORTED); // memory of other devices
        }
        let device = driver.contexts.find(context)?.device;
        driver
            .memory
            .register(device as u32, pointer.cast(), bytes)
            .map_err(|_| error::HOST_MEMORY_ALREADY_REGISTERED)?;
        driver.add(pointer as u64, bytes, context, device, Purpose::Registered, None, flags | 2);
        Ok(())
    }

    [context] cuMemHostUnregister(pointer: *mut c_void) |driver, context| {
        match driver.allocations.get(&(pointer as u64)) {
            Some(allocation) if allocation.purpose == Purpose::Registered => {}
            _ => return Err(error::HOST_MEMORY_NOT_REGISTERED),
        }
        driver.free_by_host(context, pointer as u64)
    }

    [context] cuMemHostGetDevicePointer_v2(address: *mut CUdeviceptr, pointer: *mut c_void, flags: c_uint)
    |driver, context| {
        if flags != 0 {
            return Err(error::INVALID_VALUE);
        }
        let (_, allocation) = driver.holding(pointer as u64)?;
        if !matches!(allocation.purpose, Purpose::Pinned | Purpose::Registered) {
            return Err(error::INVALID_VALUE);
        }
        put(address, pointer as u64)
    }

    [context] cuMemHostGetFlags(flags: *mut c_uint, pointer: *mut c_void) |driver, context| {
        let (_, allocation) = driver.holding(pointer as u64)?;
        if allocation.purpose != Purpose::Pinned {
            return Err(error::INVALID_VALUE);
        }
        put(flags, allocation.flags)
    }

    [context] cuMemGetInfo_v2(free: *mut usize, total: *mut usize) |driver, context| {
        let used = driver.device(driver.contexts.find(context)?.device)?.used;
        let all = driver.environment.memory;
        put(free, all.saturating_sub(used))?;
        put(total, all)
    }

    [context] cuMemGetAddressRange_v2(base: *mut CUdeviceptr, size: *mut usize, address: CUdeviceptr) |driver, context| {
        let found = driver.memory.find(address).ok_or(error::NOT_FOUND)?;
        put_if(base, found.base);
        put_if(size, found.bytes);
        Ok(())
    }

    // Stream-ordered allocation

    [context] cuMemAllocAsync(address: *mut CUdeviceptr, bytes: usize, stream: CUstream) as cuMemAllocAsync_ptsz
    |driver, context| {
        if address.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let stream = driver.stream(stream, context)?;
        put(address, driver.allocate_async(stream, bytes, None)?)
    }

    [context] cuMemAllocFromPoolAsync(
        address: *mut CUdeviceptr, bytes: usize, pool: CUmemoryPool, stream: CUstream
    ) as cuMemAllocFromPoolAsync_ptsz |driver, context| {
        if address.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let stream = driver.stream(stream, context)?;
        put(address, driver.allocate_async(stream, bytes, Some(pool))?)
    }

    [context] cuMemFreeAsync(address: CUdeviceptr, stream: CUstream) as cuMemFreeAsync_ptsz |driver, context| {
        let stream = driver.stream(stream, context)?;
        driver.free_async(stream, address)
    }

    [driver] cuDeviceGetDefaultMemPool(pool: *mut CUmemoryPool, device: CUdevice) |driver| {
        put(pool, driver.device(device)?.default_pool)
    }

    [driver] cuDeviceGetMemPool(pool: *mut CUmemoryPool, device: CUdevice) |driver| {
        put(pool, driver.device(device)?.pool)
    }

    [driver] cuDeviceSetMemPool(device: CUdevice, pool: CUmemoryPool) |driver| {
        driver.device(device)?;
        if driver.pools.get(pool).ok_or(error::INVALID_VALUE)?.device != device {
            return Err(error::INVALID_VALUE);
        }
        driver.device_mut(device)?.pool = pool;
        Ok(())
    }

    [driver] cuMemPoolCreate(pool: *mut CUmemoryPool, properties: *const CUmemPoolProps) |driver| {
        let properties = get(properties)?;
        if pool.is_null() || properties.allocType != 1 || properties.location.kind != 1 {
            return Err(error::INVALID_VALUE);
        }
        driver.device(properties.location.id)?;
        if properties.handleTypes != 0 {
            return Err(error::NOT_SUPPORTED); // no sharing between processes
        }
        let made = Pool { limit: properties.maxSize, ..Pool::new(properties.location.id, false) };
        put(pool, driver.pools.insert(made))
    }

    [driver] cuMemPoolDestroy(pool: CUmemoryPool) |driver| { destroy_pool(driver, pool) }

    [driver] cuMemPoolTrimTo(pool: CUmemoryPool, keep: usize) |driver| {
        driver.pools.get(pool).map(|_| ()).ok_or(error::INVALID_VALUE) // nothing is kept in reserve
    }

    [driver] cuMemPoolGetAttribute(pool: CUmemoryPool, attribute: c_uint, value: *mut c_void) |driver| {
        let pool = driver.pools.get(pool).ok_or(error::INVALID_VALUE)?;
        match attribute {
            1..=3 => put(value.cast::<c_int>(), pool.reuse[attribute as usize - 1]),
            4 => put(value.cast::<u64>(), pool.threshold),
            5 | 7 => put(value.cast::<u64>(), pool.used),
            6 | 8 => put(value.cast::<u64>(), pool.high),
            _ => Err(error::INVALID_VALUE),
        }
    }

    [driver] cuMemPoolSetAttribute(pool: CUmemoryPool, attribute: c_uint, value: *mut c_void) |driver| {
        let pool = driver.pools.find_mut(pool).map_err(|_| error::INVALID_VALUE)?;
        match attribute {
            1..=3 => pool.reuse[attribute as usize - 1] = get(value.cast_const().cast::<c_int>())?,
            4 => pool.threshold = get(value.cast_const().cast::<u64>())?,
            // The high watermarks can be reset only.
            6 | 8 if get(value.cast_const().cast::<u64>())? == 0 => pool.high = pool.used,
            _ => return Err(error::INVALID_VALUE),
        }
        Ok(())
    }

    [driver] cuMemPoolSetAccess(pool: CUmemoryPool, descriptions: *const CUmemAccessDesc, count: usize) |driver| {
        let own = driver.pools.get(pool).ok_or(error::INVALID_VALUE)?.device;
        for description in get_many(descriptions, count)? {
            let device = description.location.id;
            driver.device(device)?;
            if description.location.kind != 1 || !matches!(description.flags, 0 | 3) || (device == own && description.flags == 0) {
                return Err(error::INVALID_VALUE);
            }
            if device != own {
                return Err(error::NOT_SUPPORTED); // other devices reach a pool by cuCtxEnablePeerAccess only
            }
        }
        Ok(())
    }

    [driver] cuMemPoolGetAccess(flags: *mut c_uint, pool: CUmemoryPool, location: *const CUmemLocation) |driver| {
        let own = driver.pools.get(pool).ok_or(error::INVALID_VALUE)?.device;
        let location = get(location)?;
        if location.kind != 1 {
            return Err(error::INVALID_VALUE);
        }
        driver.device(location.id)?;
        put(flags, if location.id == own { 3 } else { 0 })
    }

    // What a pointer is

    [driver] cuPointerGetAttribute(data: *mut c_void, attribute: c_uint, address: CUdeviceptr) |driver| {
        if data.is_null() {
            return Err(error::INVALID_VALUE);
        }
        driver.pointer_attribute(attribute, address, data)
    }

    [driver] cuPointerGetAttributes(
        count: c_uint, attributes: *const c_uint, data: *const *mut c_void, address: CUdeviceptr
    ) |driver| {
        let attributes = get_many(attributes, count as usize)?;
        let data = get_many(data, count as usize)?;
        if count == 0 || data.iter().any(|data| data.is_null()) {
            return Err(error::INVALID_VALUE);
        }
        for (attribute, data) in attributes.into_iter().zip(data) {
            // An address that is nobody's has null for everything here, and is no error.
            if driver.pointer_attribute(attribute, address, data).is_err() {
                match attribute {
                    2 | 9 | 16 => put(data.cast::<c_uint>(), if attribute == 9 { -2i32 as c_uint } else { 0 })?,
                    6 | 8 | 10 | 13 | 15 => put(data.cast::<u8>(), 0)?,
                    1 | 3 | 4 | 7 | 11 | 12 | 14 | 17 => put(data.cast::<u64>(), 0)?,
                    _ => return Err(error::INVALID_VALUE),
                }
            }
        }
        Ok(())
    }

    [driver] cuPointerSetAttribute(value: *const c_void, attribute: c_uint, address: CUdeviceptr) |driver| {
        let (base, _) = driver.holding(address)?;
        if attribute != 6 {
            return Err(error::INVALID_VALUE);
        }
        let on = get(value.cast::<c_int>())? != 0;
        driver.allocations.get_mut(&base).ok_or(error::INVALID_VALUE)?.sync_memops = on;
        Ok(())
    }

    [context] cuMemAdvise(address: CUdeviceptr, bytes: usize, advice: c_uint, device: CUdevice) |driver, context| {
        advise(driver, address, bytes, advice, place_of(device))
    }

    [context] cuMemAdvise_v2(address: CUdeviceptr, bytes: usize, advice: c_uint, location: CUmemLocation)
    |driver, context| {
        advise(driver, address, bytes, advice, location)
    }

    [context] cuMemPrefetchAsync(
        address: CUdeviceptr, bytes: usize, device: CUdevice, stream: CUstream
    ) as cuMemPrefetchAsync_ptsz |driver, context| {
        prefetch(driver, context, address, bytes, place_of(device), stream)
    }

    [context] cuMemPrefetchAsync_v2(
        address: CUdeviceptr, bytes: usize, location: CUmemLocation, flags: c_uint, stream: CUstream
    ) as cuMemPrefetchAsync_v2_ptsz |driver, context| {
        if flags != 0 {
            return Err(error::INVALID_VALUE);
        }
        prefetch(driver, context, address, bytes, location, stream)
    }

    [driver] cuMemRangeGetAttribute(data: *mut c_void, size: usize, attribute: c_uint, address: CUdeviceptr, bytes: usize)
    |driver| {
        range_attribute(driver, data, size, attribute, address, bytes)
    }

    [driver] cuMemRangeGetAttributes(
        data: *const *mut c_void, sizes: *const usize, attributes: *const c_uint, count: usize, address: CUdeviceptr,
        bytes: usize
    ) |driver| {
        let (data, sizes) = (get_many(data, count)?, get_many(sizes, count)?);
        for ((attribute, data), size) in get_many(attributes, count)?.into_iter().zip(data).zip(sizes) {
            range_attribute(driver, data, size, attribute, address, bytes)?;
        }
        Ok(())
    }

    // Copies

    [context] cuMemcpy(to: CUdeviceptr, from: CUdeviceptr, bytes: usize) as cuMemcpy_ptds |driver, context| {
        driver.copy(context, 0, flat((Space::Unified, to), (Space::Unified, from), bytes), Form::Synchronous)
    }

    [context] cuMemcpyAsync(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream) as cuMemcpyAsync_ptsz
    |driver, context| {
        driver.copy(context, stream, flat((Space::Unified, to), (Space::Unified, from), bytes), Form::Asynchronous)
    }

    [context] cuMemcpyHtoD_v2(to: CUdeviceptr, from: *const c_void, bytes: usize) as cuMemcpyHtoD_v2_ptds
    |driver, context| {
        driver.copy(context, 0, flat((Space::Device, to), (Space::Host, from as u64), bytes), Form::Synchronous)
    }

    [context] cuMemcpyHtoDAsync_v2(
        to: CUdeviceptr, from: *const c_void, bytes: usize, stream: CUstream
    ) as cuMemcpyHtoDAsync_v2_ptsz |driver, context| {
        driver.copy(context, stream, flat((Space::Device, to), (Space::Host, from as u64), bytes), Form::Asynchronous)
    }

    [context] cuMemcpyDtoH_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize) as cuMemcpyDtoH_v2_ptds
    |driver, context| {
        driver.copy(context, 0, flat((Space::Host, to as u64), (Space::Device, from), bytes), Form::Synchronous)
    }

    [context] cuMemcpyDtoHAsync_v2(
        to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: CUstream
    ) as cuMemcpyDtoHAsync_v2_ptsz |driver, context| {
        driver.copy(context, stream, flat((Space::Host, to as u64), (Space::Device, from), bytes), Form::Asynchronous)
    }

    [context] cuMemcpyDtoD_v2(to: CUdeviceptr, from: CUdeviceptr, bytes: usize) as cuMemcpyDtoD_v2_ptds
    |driver, context| {
        driver.copy(context, 0, flat((Space::Device, to), (Space::Device, from), bytes), Form::Synchronous)
    }

    [context] cuMemcpyDtoDAsync_v2(
        to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream
    ) as cuMemcpyDtoDAsync_v2_ptsz |driver, context| {
        driver.copy(context, stream, flat((Space::Device, to), (Space::Device, from), bytes), Form::Asynchronous)
    }

    [context] cuMemcpyPeer(
        to: CUdeviceptr, to_context: CUcontext, from: CUdeviceptr, from_context: CUcontext, bytes: usize
    ) as cuMemcpyPeer_ptds |driver, context| {
        for other in [to_context, from_context] {
            driver.contexts.get(other).ok_or(error::INVALID_CONTEXT)?;
        }
        driver.copy(context, 0, flat((Space::Device, to), (Space::Device, from), bytes), Form::Synchronous)
    }

    [context] cuMemcpyPeerAsync(
        to: CUdeviceptr, to_context: CUcontext, from: CUdeviceptr, from_context: CUcontext, bytes: usize, stream: CUstream
    ) as cuMemcpyPeerAsync_ptsz |driver, context| {
        for other in [to_context, from_context] {
            driver.contexts.get(other).ok_or(error::INVALID_CONTEXT)?;
        }
        driver.copy(context, stream, flat((Space::Device, to), (Space::Device, from), bytes), Form::Asynchronous)
    }

    [context] cuMemcpy2D_v2(description: *const CUDA_MEMCPY2D) as cuMemcpy2D_v2_ptds |driver, context| {
        driver.copy(context, 0, copy_2d(description)?, Form::Synchronous)
    }

    [context] cuMemcpy2DUnaligned_v2(description: *const CUDA_MEMCPY2D) as cuMemcpy2DUnaligned_v2_ptds
    |driver, context| {
        driver.copy(context, 0, copy_2d(description)?, Form::Synchronous)
    }

    [context] cuMemcpy2DAsync_v2(description: *const CUDA_MEMCPY2D, stream: CUstream) as cuMemcpy2DAsync_v2_ptsz
    |driver, context| {
        driver.copy(context, stream, copy_2d(description)?, Form::Asynchronous)
    }

    [context] cuMemcpy3D_v2(description: *const CUDA_MEMCPY3D) as cuMemcpy3D_v2_ptds |driver, context| {
        driver.copy(context, 0, copy_3d(description)?, Form::Synchronous)
    }

    [context] cuMemcpy3DAsync_v2(description: *const CUDA_MEMCPY3D, stream: CUstream) as cuMemcpy3DAsync_v2_ptsz
    |driver, context| {
        driver.copy(context, stream, copy_3d(description)?, Form::Asynchronous)
    }

    [context] cuMemcpy3DPeer(description: *const CUDA_MEMCPY3D) as cuMemcpy3DPeer_ptds |driver, context| {
        driver.copy(context, 0, copy_3d(description)?, Form::Synchronous)
    }

    [context] cuMemcpy3DPeerAsync(description: *const CUDA_MEMCPY3D, stream: CUstream) as cuMemcpy3DPeerAsync_ptsz
    |driver, context| {
        driver.copy(context, stream, copy_3d(description)?, Form::Asynchronous)
    }

    // Fills

    [context] cuMemsetD8_v2(to: CUdeviceptr, value: u8, count: usize) as cuMemsetD8_v2_ptds |driver, context| {
        driver.fill(context, 0, fill(to, 0, value.into(), 1, count, 1), Form::Synchronous)
    }

    [context] cuMemsetD16_v2(to: CUdeviceptr, value: u16, count: usize) as cuMemsetD16_v2_ptds |driver, context| {
        driver.fill(context, 0, fill(to, 0, value.into(), 2, count, 1), Form::Synchronous)
    }

    [context] cuMemsetD32_v2(to: CUdeviceptr, value: c_uint, count: usize) as cuMemsetD32_v2_ptds |driver, context| {
        driver.fill(context, 0, fill(to, 0, value, 4, count, 1), Form::Synchronous)
    }

    [context] cuMemsetD8Async(to: CUdeviceptr, value: u8, count: usize, stream: CUstream) as cuMemsetD8Async_ptsz
    |driver, context| {
        driver.fill(context, stream, fill(to, 0, value.into(), 1, count, 1), Form::Asynchronous)
    }

    [context] cuMemsetD16Async(to: CUdeviceptr, value: u16, count: usize, stream: CUstream) as cuMemsetD16Async_ptsz
    |driver, context| {
        driver.fill(context, stream, fill(to, 0, value.into(), 2, count, 1), Form::Asynchronous)
    }

    [context] cuMemsetD32Async(to: CUdeviceptr, value: c_uint, count: usize, stream: CUstream) as cuMemsetD32Async_ptsz
    |driver, context| {
        driver.fill(context, stream, fill(to, 0, value, 4, count, 1), Form::Asynchronous)
    }

    [context] cuMemsetD2D8_v2(
        to: CUdeviceptr, pitch: usize, value: u8, width: usize, height: usize
    ) as cuMemsetD2D8_v2_ptds |driver, context| {
        driver.fill(context, 0, fill(to, pitch, value.into(), 1, width, height), Form::Synchronous)
    }

    [context] cuMemsetD2D16_v2(
        to: CUdeviceptr, pitch: usize, value: u16, width: usize, height: usize
    ) as cuMemsetD2D16_v2_ptds |driver, context| {
        driver.fill(context, 0, fill(to, pitch, value.into(), 2, width, height), Form::Synchronous)
    }

    [context] cuMemsetD2D32_v2(
        to: CUdeviceptr, pitch: usize, value: c_uint, width: usize, height: usize
    ) as cuMemsetD2D32_v2_ptds |driver, context| {
        driver.fill(context, 0, fill(to, pitch, value, 4, width, height), Form::Synchronous)
    }

    [context] cuMemsetD2D8Async(
        to: CUdeviceptr, pitch: usize, value: u8, width: usize, height: usize, stream: CUstream
    ) as cuMemsetD2D8Async_ptsz |driver, context| {
        driver.fill(context, stream, fill(to, pitch, value.into(), 1, width, height), Form::Asynchronous)
    }

    [context] cuMemsetD2D16Async(
        to: CUdeviceptr, pitch: usize, value: u16, width: usize, height: usize, stream: CUstream
    ) as cuMemsetD2D16Async_ptsz |driver, context| {
        driver.fill(context, stream, fill(to, pitch, value.into(), 2, width, height), Form::Asynchronous)
    }

    [context] cuMemsetD2D32Async(
        to: CUdeviceptr, pitch: usize, value: c_uint, width: usize, height: usize, stream: CUstream
    ) as cuMemsetD2D32Async_ptsz |driver, context| {
        driver.fill(context, stream, fill(to, pitch, value, 4, width, height), Form::Asynchronous)
    }

    [context] cuMemGetAccess(flags: *mut c_ulonglong, location: *const CUmemLocation, address: CUdeviceptr)
    |driver, context| {
        Err(error::NOT_SUPPORTED) // virtual memory management
    }
}
