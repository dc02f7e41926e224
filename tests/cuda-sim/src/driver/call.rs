//! The way into every exported function: no panic crosses the C boundary, the driver is initialised, locked and has a
//! context that still works.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{self, Answer};
use super::state::{self, Driver};
use super::types::{CUcontext, CUresult};

/// Declares exported functions. Before the name stands what a call needs: `always` nothing, `driver` an initialised driver,
/// `current` a current context, `context` one without a sticky error, `unlocked` an initialised driver whose lock the body
/// takes itself. Behind `as` stands the name of the variant for which stream 0 is the per-thread default stream.
macro_rules! api {
    ($( [$mode:ident] $name:ident $arguments:tt $(as $per_thread:ident)? |$($bind:ident),*| $body:block )*) => {
        $(
            $crate::driver::call::export!($mode $name $arguments |$($bind),*| $body);
            $( $crate::driver::call::export_per_thread!($per_thread $name $arguments); )?
        )*

        /// The functions of this file, for `cuGetProcAddress`.
        pub(crate) const EXPORTS: &[(&str, *const std::ffi::c_void)] = &[
            $(
                (stringify!($name), $name as *const std::ffi::c_void),
                $( (stringify!($per_thread), $per_thread as *const std::ffi::c_void), )?
            )*
        ];
    };
}

macro_rules! export {
    ($mode:ident $name:ident ($($argument:ident: $type:ty),* $(,)?) |$($bind:ident),*| $body:block) => {
        #[doc = concat!("`", stringify!($name), "` of the CUDA driver API.\n\n# Safety\n")]
        #[doc = "As in C: every pointer is null or points at what the function reads or writes."]
        #[allow(non_snake_case, unused_variables, clippy::too_many_arguments)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $crate::driver::types::CUresult {
            $crate::driver::call::$mode(
                stringify!($name),
                #[allow(unused_unsafe, unused_variables)]
                |$($bind),*| -> $crate::driver::error::Answer { unsafe { $body } },
            )
        }
    };
}

macro_rules! export_per_thread {
    ($per_thread:ident $name:ident ($($argument:ident: $type:ty),* $(,)?)) => {
        #[doc = concat!("As [`", stringify!($name), "`], with the per-thread default stream as stream 0.\n\n# Safety\n")]
        #[doc = "As in C: every pointer is null or points at what the function reads or writes."]
        #[allow(non_snake_case, unused_variables, clippy::too_many_arguments)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $per_thread($($argument: $type),*) -> $crate::driver::types::CUresult {
            $crate::driver::call::with_per_thread_default(|| unsafe { $name($($argument),*) })
        }
    };
}

pub(crate) use {api, export, export_per_thread};

/// What the driver knows of a host thread.
struct Thread {
    /// A number that no other thread ever has.
    id: u64,
    /// The context stack, the current one last.
    contexts: RefCell<Vec<CUcontext>>,
    /// `cuThreadExchangeStreamCaptureMode`
    capture_mode: Cell<u32>,
    /// Runs a host function of a stream now, which may not call the driver.
    in_callback: Cell<bool>,
    /// Stream 0 is the per-thread default stream in this call.
    per_thread_default: Cell<bool>,
}

thread_local! {
    static THREAD: Thread = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Thread {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            contexts: RefCell::default(),
            capture_mode: Cell::new(0),
            in_callback: Cell::new(false),
            per_thread_default: Cell::new(false),
        }
    };
}

/// The calling thread's number.
pub(crate) fn thread_id() -> u64 {
    THREAD.with(|thread| thread.id)
}

/// The calling thread's current context, 0 for none. It may be destroyed by now.
pub(crate) fn current_handle() -> CUcontext {
    THREAD.with(|thread| thread.contexts.borrow().last().copied().unwrap_or(0))
}

/// Changes the calling thread's context stack.
pub(crate) fn with_stack<T>(change: impl FnOnce(&mut Vec<CUcontext>) -> T) -> T {
    THREAD.with(|thread| change(&mut thread.contexts.borrow_mut()))
}

/// The calling thread's capture mode.
pub(crate) fn capture_mode() -> u32 {
    THREAD.with(|thread| thread.capture_mode.get())
}

/// Sets the calling thread's capture mode.
pub(crate) fn set_capture_mode(mode: u32) {
    THREAD.with(|thread| thread.capture_mode.set(mode));
}

/// Whether stream 0 is the per-thread default stream in this call.
pub(crate) fn per_thread_default() -> bool {
    THREAD.with(|thread| thread.per_thread_default.get())
}

/// Calls with stream 0 as the per-thread default stream.
pub(crate) fn with_per_thread_default(call: impl FnOnce() -> CUresult) -> CUresult {
    let before = THREAD.with(|thread| thread.per_thread_default.replace(true));
    let result = call();
    THREAD.with(|thread| thread.per_thread_default.set(before));
    result
}

/// Runs a host function of a stream, without the lock; until it is back, this thread's calls are not permitted.
pub(crate) fn callback(run: impl FnOnce()) {
    let before = THREAD.with(|thread| thread.in_callback.replace(true));
    run();
    THREAD.with(|thread| thread.in_callback.set(before));
}

fn guarded(call: impl FnOnce() -> Answer) -> CUresult {
    // A panic's message has gone to standard error already.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => error::SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => error::UNKNOWN,
    }
}

pub(crate) fn always(_name: &'static str, call: impl FnOnce(()) -> Answer) -> CUresult {
    guarded(|| call(()))
}

pub(crate) fn unlocked(name: &'static str, call: impl FnOnce(&'static str) -> Answer) -> CUresult {
    guarded(|| locked(name, |_| Ok(())).and_then(|()| call(name)))
}

pub(crate) fn driver(name: &'static str, call: impl FnOnce(&mut Driver) -> Answer) -> CUresult {
    guarded(|| locked(name, call))
}

pub(crate) fn current_context(driver: &Driver) -> Answer<CUcontext> {
    match current_handle() {
        0 => Err(error::INVALID_CONTEXT),
        context if driver.contexts.get(context).is_some() => Ok(context),
        _ => Err(error::CONTEXT_IS_DESTROYED),
    }
}

/// Takes the lock for a part of a call.
pub(crate) fn locked<T>(name: &'static str, call: impl FnOnce(&mut Driver) -> Answer<T>) -> Answer<T> {
    if THREAD.with(|thread| thread.in_callback.get()) {
        return Err(error::NOT_PERMITTED);
    }
    let mut guard = state::lock();
    let driver = guard.as_mut().ok_or(error::NOT_INITIALIZED)?;
    driver.call = name;
    call(driver)
}

pub(crate) fn with_context<T>(name: &'static str, call: impl FnOnce(&mut Driver, CUcontext) -> Answer<T>) -> Answer<T> {
    locked(name, |driver| {
        let context = current_context(driver)?;
        driver.healthy(context)?;
        call(driver, context)
    })
}

pub(crate) fn current(name: &'static str, call: impl FnOnce(&mut Driver, CUcontext) -> Answer) -> CUresult {
    guarded(|| {
        locked(name, |driver| {
            let context = current_context(driver)?;
            call(driver, context)
        })
    })
}

pub(crate) fn context(name: &'static str, call: impl FnOnce(&mut Driver, CUcontext) -> Answer) -> CUresult {
    guarded(|| with_context(name, call))
}

/// Writes a result through a pointer that must not be null.
///
/// # Safety
/// The pointer is null or valid for a write.
pub(crate) unsafe fn put<T>(out: *mut T, value: T) -> Answer {
    if out.is_null() {
        return Err(error::INVALID_VALUE);
    }
    unsafe { out.write_unaligned(value) };
    Ok(())
}

/// Writes a result through a pointer that may be null.
///
/// # Safety
/// The pointer is null or valid for a write.
pub(crate) unsafe fn put_if<T>(out: *mut T, value: T) {
    if !out.is_null() {
        unsafe { out.write_unaligned(value) };
    }
}

/// Reads a structure through a pointer that must not be null.
///
/// # Safety
/// The pointer is null or valid for a read.
pub(crate) unsafe fn get<T: Copy>(from: *const T) -> Answer<T> {
    if from.is_null() {
        return Err(error::INVALID_VALUE);
    }
    Ok(unsafe { from.read_unaligned() })
}

/// Reads `count` elements; none for a count of 0, whatever the pointer.
///
/// # Safety
/// The pointer is null or valid for `count` reads.
pub(crate) unsafe fn get_many<T: Copy>(from: *const T, count: usize) -> Answer<Vec<T>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if from.is_null() || count > isize::MAX as usize / std::mem::size_of::<T>().max(1) {
        return Err(error::INVALID_VALUE);
    }
    Ok((0..count).map(|i| unsafe { from.add(i).read_unaligned() }).collect())
}

/// Reads a C string.
///
/// # Safety
/// The pointer is null or at a string with a zero behind it.
pub(crate) unsafe fn string(from: *const std::ffi::c_char) -> Answer<String> {
    if from.is_null() {
        return Err(error::INVALID_VALUE);
    }
    Ok(unsafe { std::ffi::CStr::from_ptr(from) }.to_string_lossy().into_owned())
}
