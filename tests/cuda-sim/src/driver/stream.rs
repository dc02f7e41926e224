//! Streams: creation, the default streams, waiting, host functions; capture begins and ends in `graph`.
//!
//! What a stream is told to do happens at once, in the order of the calls; `order` finds what only that order made right.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use super::call::{self, api, put};
use super::error::{self, Answer};
use super::graph::Capturing;
use super::order::{Clock, Timeline};
use super::state::Driver;
use super::types::*;
use super::work::Work;

/// The most urgent priority; the least urgent one is 0.
pub(crate) const GREATEST_PRIORITY: c_int = -5;

/// A stream.
pub(crate) struct Stream {
    pub context: CUcontext,
    pub timeline: Timeline,
    pub legacy: bool,
    /// Ordered with the legacy default stream.
    pub blocking: bool,
    pub priority: c_int,
    pub id: u64,
    pub capturing: Option<Capturing>,
}

impl Stream {
    pub fn legacy(context: CUcontext, timeline: Timeline) -> Stream {
        Stream { context, timeline, legacy: true, blocking: true, priority: 0, id: 1, capturing: None }
    }
}

impl Driver {
    /// The stream that a handle means when the context is current.
    pub fn stream(&mut self, handle: CUstream, context: CUcontext) -> Answer<CUstream> {
        match handle {
            0 if call::per_thread_default() => self.per_thread_stream(context),
            0 | STREAM_LEGACY => Ok(self.contexts.find(context)?.legacy),
            STREAM_PER_THREAD => self.per_thread_stream(context),
            _ => {
                let owner = self.streams.find(handle)?.context;
                self.healthy(owner)?;
                Ok(handle)
            }
        }
    }

    fn per_thread_stream(&mut self, context: CUcontext) -> Answer<CUstream> {
        let thread = call::thread_id();
        if let Some(&stream) = self.contexts.find(context)?.per_thread.get(&thread) {
            return Ok(stream);
        }
        let stream = self.create_stream(context, true, 0);
        self.contexts.find_mut(context)?.per_thread.insert(thread, stream);
        Ok(stream)
    }

    fn create_stream(&mut self, context: CUcontext, blocking: bool, priority: c_int) -> CUstream {
        let handle = self.streams.reserve();
        let timeline = self.order.create(format!("stream {handle:#x}"));
        let id = (handle >> 4) as u64 & 0xffff_ffff;
        let stream = Stream { context, timeline, legacy: false, blocking, priority, id, capturing: None };
        self.streams.insert_at(handle, stream);
        handle
    }

    /// Begins an operation: it comes after what its stream, the default stream's rules and the host put before it.
    pub fn begin(&mut self, stream: CUstream) -> Answer<Timeline> {
        let found = self.streams.find(stream)?;
        let (timeline, context) = (found.timeline, found.context);
        if found.legacy {
            let others: Vec<Timeline> = self
                .streams
                .iter()
                .filter(|(_, other)| other.context == context && other.blocking && !other.legacy)
                .map(|(_, other)| other.timeline)
                .collect();
            for other in others {
                let clock = self.order.clock(other);
                self.order.join(timeline, &clock);
            }
        } else if found.blocking {
            let legacy = self.streams.find(self.contexts.find(context)?.legacy)?.timeline;
            let clock = self.order.clock(legacy);
            self.order.join(timeline, &clock);
        }
        self.order.advance(timeline);
        Ok(timeline)
    }

    /// What has been put on the stream so far, as an event or the host may wait for it.
    pub fn marker(&mut self, stream: CUstream) -> Answer<Clock> {
        let timeline = self.begin(stream)?;
        Ok(self.order.clock(timeline))
    }

    /// The stream is no more; its work still counts.
    pub fn end_stream(&mut self, stream: CUstream) {
        self.abandon_capture(stream);
        let Ok(gone) = self.streams.remove(stream) else { return };
        if gone.blocking
            && let Ok(context) = self.contexts.find(gone.context)
            && let Ok(legacy) = self.streams.find(context.legacy)
        {
            let clock = self.order.clock(gone.timeline);
            self.order.join(legacy.timeline, &clock);
        }
        self.order.retire(gone.timeline);
    }

    /// A call that waits for a stream, or asks whether it is done: not while it captures.
    fn wait_for_stream(&mut self, handle: CUstream, context: CUcontext) -> Answer {
        let stream = self.stream(handle, context)?;
        self.no_capture_on(stream)?;
        let clock = self.marker(stream)?;
        self.order.host_waits(&clock);
        Ok(())
    }
}

fn create(driver: &mut Driver, context: CUcontext, out: *mut CUstream, flags: c_uint, priority: c_int) -> Answer {
    if out.is_null() || flags > 1 {
        return Err(error::INVALID_VALUE);
    }
    let stream = driver.create_stream(context, flags == 0, priority.clamp(GREATEST_PRIORITY, 0));
    unsafe { put(out, stream) }
}

/// What a host function is called with.
pub(crate) enum HostCall {
    Function(unsafe extern "C" fn(*mut c_void), usize),
    Callback(unsafe extern "C" fn(CUstream, CUresult, *mut c_void), CUstream, usize),
}

impl HostCall {
    pub fn run(&self) {
        call::callback(|| unsafe {
            match *self {
                HostCall::Function(function, data) => function(data as *mut c_void),
                HostCall::Callback(function, stream, data) => function(stream, error::SUCCESS, data as *mut c_void),
            }
        });
    }
}

/// Puts a host function on a stream: it is called here and now, but without the lock. What it tells other threads they
/// know, so the host is taken to have waited for what came before it.
fn host_function(name: &'static str, stream: CUstream, make: impl FnOnce(CUstream) -> HostCall) -> Answer {
    let host_call = call::with_context(name, |driver, context| {
        let host_call = make(stream);
        let stream = driver.stream(stream, context)?;
        if driver.is_capturing(stream)? {
            let HostCall::Function(function, data) = host_call else {
                return Err(driver.invalidate(stream, error::STREAM_CAPTURE_UNSUPPORTED));
            };
            driver.capture(stream, Work::Host(function, data))?;
            return Ok(None);
        }
        driver.no_implicit_capture(stream)?;
        driver.count_operation("host function", context)?;
        let clock = driver.marker(stream)?;
        driver.order.host_waits(&clock);
        Ok(Some(host_call))
    })?;
    if let Some(host_call) = host_call {
        host_call.run();
    }
    Ok(())
}

api! {
    [context] cuStreamCreate(stream: *mut CUstream, flags: c_uint) |driver, context| {
        create(driver, context, stream, flags, 0)
    }

    [context] cuStreamCreateWithPriority(stream: *mut CUstream, flags: c_uint, priority: c_int) |driver, context| {
        create(driver, context, stream, flags, priority)
    }

    [driver] cuStreamDestroy_v2(stream: CUstream) |driver| {
        let found = driver.streams.find(stream)?;
        let context = driver.contexts.find(found.context)?;
        if found.legacy || context.per_thread.values().any(|&own| own == stream) {
            return Err(error::INVALID_HANDLE);
        }
        driver.end_stream(stream);
        Ok(())
    }

    [context] cuStreamSynchronize(stream: CUstream) as cuStreamSynchronize_ptsz |driver, context| {
        driver.wait_for_stream(stream, context)
    }

    [context] cuStreamQuery(stream: CUstream) as cuStreamQuery_ptsz |driver, context| {
        driver.wait_for_stream(stream, context)
    }

    [context] cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint) as cuStreamWaitEvent_ptsz
    |driver, context| {
        if flags > 1 {
            return Err(error::INVALID_VALUE);
        }
        let stream = driver.stream(stream, context)?;
        driver.wait_event(stream, event)
    }

    [unlocked] cuLaunchHostFunc(stream: CUstream, function: CUhostFn, data: *mut c_void) as cuLaunchHostFunc_ptsz |name| {
        let function = function.ok_or(error::INVALID_VALUE)?;
        host_function(name, stream, |_| HostCall::Function(function, data as usize))
    }

    [unlocked] cuLaunchHostFunc_v2(
        stream: CUstream, function: CUhostFn, data: *mut c_void, mode: c_uint
    ) as cuLaunchHostFunc_v2_ptsz |name| {
        let function = function.ok_or(error::INVALID_VALUE)?;
        if mode > 1 {
            return Err(error::INVALID_VALUE);
        }
        host_function(name, stream, |_| HostCall::Function(function, data as usize))
    }

    [unlocked] cuStreamAddCallback(
        stream: CUstream, callback: CUstreamCallback, data: *mut c_void, flags: c_uint
    ) as cuStreamAddCallback_ptsz |name| {
        let callback = callback.filter(|_| flags == 0).ok_or(error::INVALID_VALUE)?;
        host_function(name, stream, |stream| HostCall::Callback(callback, stream, data as usize))
    }

    [context] cuStreamGetCtx(stream: CUstream, out: *mut CUcontext) as cuStreamGetCtx_ptsz |driver, context| {
        let stream = driver.stream(stream, context)?;
        put(out, driver.streams.find(stream)?.context)
    }

    [context] cuStreamGetCtx_v2(stream: CUstream, out: *mut CUcontext, green: *mut usize) as cuStreamGetCtx_v2_ptsz
    |driver, context| {
        let stream = driver.stream(stream, context)?;
        call::put_if(green, 0);
        put(out, driver.streams.find(stream)?.context)
    }

    [context] cuStreamGetDevice(stream: CUstream, device: *mut CUdevice) as cuStreamGetDevice_ptsz |driver, context| {
        let stream = driver.stream(stream, context)?;
        let owner = driver.streams.find(stream)?.context;
        put(device, driver.contexts.find(owner)?.device)
    }

    [context] cuStreamGetFlags(stream: CUstream, flags: *mut c_uint) as cuStreamGetFlags_ptsz |driver, context| {
        let stream = driver.stream(stream, context)?;
        put(flags, c_uint::from(!driver.streams.find(stream)?.blocking))
    }

    [context] cuStreamGetPriority(stream: CUstream, priority: *mut c_int) as cuStreamGetPriority_ptsz |driver, context| {
        let stream = driver.stream(stream, context)?;
        put(priority, driver.streams.find(stream)?.priority)
    }

    [context] cuStreamGetId(stream: CUstream, id: *mut c_ulonglong) as cuStreamGetId_ptsz |driver, context| {
        let stream = driver.stream(stream, context)?;
        put(id, driver.streams.find(stream)?.id)
    }

    [context] cuStreamCopyAttributes(to: CUstream, from: CUstream) as cuStreamCopyAttributes_ptsz |driver, context| {
        let from = driver.stream(from, context)?;
        let to = driver.stream(to, context)?;
        driver.streams.find_mut(to)?.priority = driver.streams.find(from)?.priority;
        Ok(())
    }

    [context] cuStreamAttachMemAsync(
        stream: CUstream, address: CUdeviceptr, length: usize, flags: c_uint
    ) as cuStreamAttachMemAsync_ptsz |driver, context| {
        if !matches!(flags, 1 | 2 | 4) {
            return Err(error::INVALID_VALUE);
        }
        let stream = driver.stream(stream, context)?;
        driver.no_capture_on(stream)?;
        driver.attachable(address, length)?;
        driver.begin(stream).map(|_| ())
    }
}
