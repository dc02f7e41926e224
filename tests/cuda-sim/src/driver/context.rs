//! Contexts: their stack in every thread, their limits, their end, and peer access.
//!
//! An error of a kernel makes its context fail: every later call that needs it returns that error, until the context is
//! destroyed or, for a primary one, reset. A launch itself returns success, as on a device, where the error comes later.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use super::call::{self, api, put, put_if};
use super::error::{self, Answer};
use super::state::Driver;
use super::stream::Stream;
use super::types::*;
use crate::finding::{Finding, Kind};

/// A context.
pub(crate) struct Context {
    pub device: CUdevice,
    pub primary: bool,
    pub flags: c_uint,
    pub id: u64,
    /// The error with which it failed.
    pub sticky: Option<CUresult>,
    /// The legacy default stream.
    pub legacy: CUstream,
    /// The per-thread default streams, by thread.
    pub per_thread: BTreeMap<u64, CUstream>,
    /// Contexts whose memory it may reach.
    pub peers: BTreeSet<CUcontext>,
    limits: BTreeMap<c_uint, usize>,
    cache_config: c_uint,
    bank_config: c_uint,
}

/// The limits that may be asked for and set, with what they are at first.
const LIMITS: [(c_uint, usize); 7] = [(0, 1024), (1, 1 << 20), (2, 8 << 20), (3, 2), (4, 2048), (5, 64), (6, 0)];

/// Whether the flags are those of a context.
pub(crate) fn check_flags(flags: c_uint) -> Answer {
    // A scheduling policy, and CU_CTX_MAP_HOST, CU_CTX_LMEM_RESIZE_TO_MAX, CU_CTX_COREDUMP_ENABLE,
    // CU_CTX_USER_COREDUMP_ENABLE, CU_CTX_SYNC_MEMOPS.
    let known = flags & !0xff == 0 && [0, 1, 2, 4].contains(&(flags & 7));
    if known { Ok(()) } else { Err(error::INVALID_VALUE) }
}

impl Driver {
    pub fn create_context(&mut self, device: CUdevice, flags: c_uint, primary: bool) -> Answer<CUcontext> {
        self.device(device)?;
        check_flags(flags)?;
        let context = self.contexts.reserve();
        let timeline = self.order.create("the legacy default stream".into());
        let legacy = self.streams.insert(Stream::legacy(context, timeline));
        let made = Context {
            device,
            primary,
            flags,
            id: (context >> 4) as u64 & 0xffff_ffff,
            sticky: None,
            legacy,
            per_thread: BTreeMap::new(),
            peers: BTreeSet::new(),
            limits: LIMITS.into(),
            cache_config: 0,
            bank_config: 0,
        };
        self.contexts.insert_at(context, made);
        Ok(context)
    }

    /// Ends all that the context owns.
    fn clear_context(&mut self, context: CUcontext) {
        // The end of a context waits for its work.
        self.wait_for_context(context);
        if self.environment.leaks {
            self.report_leaks(context);
        }
        for stream in self.streams.which(|stream| stream.context == context) {
            self.end_stream(stream);
        }
        for event in self.events.which(|event| event.context == context) {
            let _ = self.events.remove(event);
        }
        for module in self.modules.which(|module| module.context == context) {
            self.unload_module(module);
        }
        let owned = self.allocations.iter().filter(|(_, a)| a.context == context).map(|(base, _)| *base);
        for base in owned.collect::<Vec<_>>() {
            // Memory that the program registered may be gone already; either way it is no longer ours.
            let _ = self.release(base);
        }
    }

    pub fn destroy_context(&mut self, context: CUcontext) -> Answer {
        self.contexts.find(context).map_err(|_| error::INVALID_CONTEXT)?;
        self.clear_context(context);
        self.contexts.remove(context)?;
        for (_, other) in self.contexts.iter_mut() {
            other.peers.remove(&context);
        }
        Ok(())
    }

    /// As new, under the same handle.
    pub fn reset_context(&mut self, context: CUcontext) -> Answer {
        let (device, flags, primary) = {
            let old = self.contexts.find(context)?;
            (old.device, old.flags, old.primary)
        };
        self.clear_context(context);
        let fresh = self.create_context(device, flags, primary)?;
        let mut made = self.contexts.remove(fresh)?;
        self.streams.find_mut(made.legacy)?.context = context;
        made.id = (context >> 4) as u64 & 0xffff_ffff;
        self.contexts.insert_at(context, made);
        Ok(())
    }

    /// The host waits for all of the context's streams.
    pub fn wait_for_context(&mut self, context: CUcontext) {
        let timelines: Vec<_> =
            self.streams.iter().filter(|(_, s)| s.context == context).map(|(_, s)| s.timeline).collect();
        for timeline in timelines {
            let clock = self.order.clock(timeline);
            self.order.host_waits(&clock);
        }
    }

    pub fn report_leaks(&mut self, context: CUcontext) {
        let mut finding = None;
        for (base, allocation) in self.allocations.iter().filter(|(_, a)| a.context == context) {
            let (total, notes): &mut (usize, Vec<String>) = finding.get_or_insert_with(Default::default);
            *total += allocation.bytes;
            notes.push(format!("{} bytes at {base:#x} from {}", allocation.bytes, allocation.call));
        }
        if let Some((total, notes)) = finding {
            let message = format!("Leaked {total} bytes in {} allocations at the end of a context", notes.len());
            let mut finding = Finding::new(Kind::Leak, message);
            finding.notes = notes;
            self.report(finding);
        }
    }

    fn context_or_current(&self, context: CUcontext) -> Answer<CUcontext> {
        match context {
            0 => call::current_context(self),
            _ => self.contexts.get(context).map(|_| context).ok_or(error::INVALID_CONTEXT),
        }
    }
}

fn create(driver: &mut Driver, out: *mut CUcontext, flags: c_uint, device: CUdevice) -> Answer {
    if out.is_null() {
        return Err(error::INVALID_VALUE);
    }
    if driver.device(device)?.lost {
        return Err(error::ECC_UNCORRECTABLE);
    }
    let context = driver.create_context(device, flags, false)?;
    call::with_stack(|stack| stack.push(context));
    unsafe { put(out, context) }
}

api! {
    [driver] cuCtxCreate_v2(context: *mut CUcontext, flags: c_uint, device: CUdevice) |driver| {
        create(driver, context, flags, device)
    }

    [driver] cuCtxCreate_v3(context: *mut CUcontext, affinity: *mut c_void, count: c_int, flags: c_uint, device: CUdevice)
    |driver| {
        if !affinity.is_null() || count != 0 {
            return Err(error::UNSUPPORTED_EXEC_AFFINITY);
        }
        create(driver, context, flags, device)
    }

    [driver] cuCtxCreate_v4(context: *mut CUcontext, params: *const CUctxCreateParams, flags: c_uint, device: CUdevice)
    |driver| {
        if !params.is_null() {
            let params = params.read_unaligned();
            if params.numExecAffinityParams != 0 {
                return Err(error::UNSUPPORTED_EXEC_AFFINITY);
            }
            if !params.cigParams.is_null() {
                return Err(error::NOT_SUPPORTED);
            }
        }
        create(driver, context, flags, device)
    }

    [driver] cuCtxDestroy_v2(context: CUcontext) |driver| {
        let found = driver.contexts.get(context).ok_or(error::INVALID_CONTEXT)?;
        if found.primary {
            return Err(error::INVALID_CONTEXT);
        }
        driver.destroy_context(context)?;
        call::with_stack(|stack| {
            if stack.last() == Some(&context) {
                stack.pop();
            }
        });
        Ok(())
    }

    [driver] cuCtxPushCurrent_v2(context: CUcontext) |driver| {
        driver.contexts.get(context).ok_or(error::INVALID_CONTEXT)?;
        call::with_stack(|stack| stack.push(context));
        Ok(())
    }

    [driver] cuCtxPopCurrent_v2(context: *mut CUcontext) |driver| {
        let popped = call::with_stack(|stack| stack.pop()).ok_or(error::INVALID_CONTEXT)?;
        put_if(context, popped);
        Ok(())
    }

    [driver] cuCtxSetCurrent(context: CUcontext) |driver| {
        if context != 0 {
            driver.contexts.get(context).ok_or(error::INVALID_CONTEXT)?;
        }
        call::with_stack(|stack| {
            stack.pop();
            if context != 0 {
                stack.push(context);
            }
        });
        Ok(())
    }

    [driver] cuCtxGetCurrent(context: *mut CUcontext) |driver| { put(context, call::current_handle()) }

    [current] cuCtxGetDevice(device: *mut CUdevice) |driver, context| {
        put(device, driver.contexts.find(context)?.device)
    }

    [driver] cuCtxGetDevice_v2(device: *mut CUdevice, context: CUcontext) |driver| {
        let context = driver.context_or_current(context)?;
        put(device, driver.contexts.find(context)?.device)
    }

    [current] cuCtxGetFlags(flags: *mut c_uint) |driver, context| { put(flags, driver.contexts.find(context)?.flags) }

    [current] cuCtxSetFlags(flags: c_uint) |driver, context| {
        check_flags(flags)?;
        driver.contexts.find_mut(context)?.flags = flags;
        Ok(())
    }

    [driver] cuCtxGetId(context: CUcontext, id: *mut c_ulonglong) |driver| {
        let context = driver.context_or_current(context)?;
        put(id, driver.contexts.find(context)?.id)
    }

    [driver] cuCtxGetApiVersion(context: CUcontext, version: *mut c_uint) |driver| {
        driver.context_or_current(context)?;
        put(version, 3020)
    }

    [context] cuCtxSynchronize() |driver, context| { synchronise(driver, context) }

    [driver] cuCtxSynchronize_v2(context: CUcontext) |driver| {
        let context = driver.context_or_current(context)?;
        driver.healthy(context)?;
        synchronise(driver, context)
    }

    [context] cuCtxGetLimit(value: *mut usize, limit: c_uint) |driver, context| {
        let limits = &driver.contexts.find(context)?.limits;
        put(value, *limits.get(&limit).ok_or(error::UNSUPPORTED_LIMIT)?)
    }

    [context] cuCtxSetLimit(limit: c_uint, value: usize) |driver, context| {
        let limits = &mut driver.contexts.find_mut(context)?.limits;
        *limits.get_mut(&limit).ok_or(error::UNSUPPORTED_LIMIT)? = value;
        Ok(())
    }

    [context] cuCtxGetCacheConfig(config: *mut c_uint) |driver, context| {
        put(config, driver.contexts.find(context)?.cache_config)
    }

    [context] cuCtxSetCacheConfig(config: c_uint) |driver, context| {
        if config > 3 {
            return Err(error::INVALID_VALUE);
        }
        driver.contexts.find_mut(context)?.cache_config = config;
        Ok(())
    }

    [context] cuCtxGetSharedMemConfig(config: *mut c_uint) |driver, context| {
        put(config, driver.contexts.find(context)?.bank_config)
    }

    [context] cuCtxSetSharedMemConfig(config: c_uint) |driver, context| {
        if config > 2 {
            return Err(error::INVALID_VALUE);
        }
        driver.contexts.find_mut(context)?.bank_config = config;
        Ok(())
    }

    [context] cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) |driver, context| {
        put_if(least, 0);
        put_if(greatest, super::stream::GREATEST_PRIORITY);
        Ok(())
    }

    [context] cuCtxResetPersistingL2Cache() |driver, context| { Ok(()) }

    [context] cuCtxRecordEvent(of: CUcontext, event: CUevent) |driver, context| {
        driver.contexts.get(of).ok_or(error::INVALID_CONTEXT)?;
        driver.events.find(event)?;
        Err(error::NOT_SUPPORTED)
    }

    [context] cuCtxWaitEvent(of: CUcontext, event: CUevent) |driver, context| {
        driver.contexts.get(of).ok_or(error::INVALID_CONTEXT)?;
        driver.events.find(event)?;
        Err(error::NOT_SUPPORTED)
    }

    [context] cuCtxEnablePeerAccess(peer: CUcontext, flags: c_uint) |driver, context| {
        if flags != 0 {
            return Err(error::INVALID_VALUE);
        }
        let device = driver.contexts.find(context)?.device;
        if driver.contexts.get(peer).ok_or(error::INVALID_CONTEXT)?.device == device {
            return Err(error::INVALID_CONTEXT);
        }
        let fresh = driver.contexts.find_mut(context)?.peers.insert(peer);
        if fresh { Ok(()) } else { Err(error::PEER_ACCESS_ALREADY_ENABLED) }
    }

    [context] cuCtxDisablePeerAccess(peer: CUcontext) |driver, context| {
        driver.contexts.get(peer).ok_or(error::INVALID_CONTEXT)?;
        let was = driver.contexts.find_mut(context)?.peers.remove(&peer);
        if was { Ok(()) } else { Err(error::PEER_ACCESS_NOT_ENABLED) }
    }
}

fn synchronise(driver: &mut Driver, context: CUcontext) -> Answer {
    driver.no_capture_in(context)?;
    driver.wait_for_context(context);
    Ok(())
}
