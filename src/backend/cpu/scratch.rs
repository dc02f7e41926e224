//! Reused, cache-line aligned scratch memory and the shared output pointer of the parallel kernels.
//!
//! Each thread keeps the buffers it once needed. A buffer is taken out while in use, so a thread that steals another
//! kernel's task while it waits gets a second one instead of a borrow error. Called by every kernel of this folder.

use crate::backend::memory::Zeroed;
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

/// An output that tasks write in disjoint pieces which `chunks_mut` cannot express.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    start: *mut f32,
    len: usize,
}

// SAFETY: the pointer is only turned into slices by `slice`, whose contract forbids two tasks the same floats.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(slice: &mut [f32]) -> Self {
        Shared { start: slice.as_mut_ptr(), len: slice.len() }
    }

    /// The address of float `offset`.
    pub(super) fn at(self, offset: usize) -> *mut f32 {
        debug_assert!(offset <= self.len);
        self.start.wrapping_add(offset)
    }

    /// `len` floats from `offset`.
    ///
    /// # Safety
    /// The range lies inside the output, the output is still borrowed by the caller of `new`, and nobody else uses
    /// the range meanwhile.
    pub(super) unsafe fn slice<'a>(self, offset: usize, len: usize) -> &'a mut [f32] {
        debug_assert!(offset + len <= self.len);
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}

/// Calls `f(0..tasks)` on the current rayon pool; a single task stays on this thread (a wake-up costs 5-20 us).
pub(super) fn parallel(tasks: usize, f: impl Fn(usize) + Sync + Send) {
    use rayon::prelude::*;
    if tasks <= 1 || rayon::current_num_threads() == 1 {
        (0..tasks).for_each(f);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(f);
    }
}

/// The `i`-th of `parts` nearly equal pieces of 0..n, the larger ones first.
pub(super) fn piece(n: usize, parts: usize, i: usize) -> std::ops::Range<usize> {
    let (base, extra) = (n / parts, n % parts);
    let start = i * base + i.min(extra);
    start..start + base + usize::from(i < extra)
}
