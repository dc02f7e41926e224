//! Reused, cache-line aligned scratch memory and the parallel loop of the kernels.
//!
//! Each thread keeps the buffers it once needed. A buffer is taken out while in use, so a thread that steals another
//! kernel's task while it waits gets a second one instead of a borrow error. Called by every kernel of this folder.

pub(super) use crate::backend::memory::Shared;
use crate::backend::memory::Zeroed;
use crate::backend::threads;
pub(super) use crate::backend::threads::piece;
use std::alloc::{Layout, handle_alloc_error};
use std::cell::RefCell;

/// 64 bytes: a zmm load that crosses a cache line costs two accesses, so panels and weights start on one.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([f32; 16]);

/// `floats` zeros on a page boundary, rounded up to whole lines. Aborts where there is no memory for them, as a `Vec` does.
pub(super) fn lines(floats: usize) -> Zeroed<Line> {
    let count = floats.div_ceil(16);
    let layout = || Layout::array::<Line>(count).unwrap_or(Layout::new::<Line>());
    Zeroed::new(count).unwrap_or_else(|| handle_alloc_error(layout()))
}

thread_local! {
    static FREE: RefCell<Vec<Zeroed<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `floats` floats of aligned scratch. Their content is what the last user left: write before reading.
pub(super) fn with<R>(floats: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let need = floats.div_ceil(16);
    if buffer.len() < need {
        // Not resize: the old content would be copied.
        buffer = lines(floats);
    }
    let result = f(&mut bytemuck::cast_slice_mut(&mut buffer)[..floats]);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}

/// Calls `f(0..tasks)` on the threads that take part; a single task stays on this thread (a wake-up costs 5-20 us).
pub(super) fn parallel(tasks: usize, f: impl Fn(usize) + Sync + Send) {
    use rayon::prelude::*;
    if tasks <= 1 || threads::count() == 1 {
        (0..tasks).for_each(f);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(f);
    }
}
