//! How work is divided: how many threads take part in a step, all of the pool or this one alone, and in which pieces.

use std::cell::Cell;

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Threads that share a step which this thread begins.
pub(super) fn count() -> usize {
    if ALONE.get() { 1 } else { rayon::current_num_threads() }
}

/// Steps that are under way at once, while this thread is at one.
pub(super) fn at_once() -> usize {
    if ALONE.get() { rayon::current_num_threads() } else { 1 }
}

/// Calls `f`, whose steps this thread takes alone.
pub(super) fn alone<R>(f: impl FnOnce() -> R) -> R {
    /// Restores what was, also after a panic: the pool's threads live on.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }
    let _restore = Restore(ALONE.replace(true));
    f()
}

/// The `i`-th of `parts` nearly equal pieces of 0..n, the larger ones first.
pub(super) fn piece(n: usize, parts: usize, i: usize) -> std::ops::Range<usize> {
    let (base, extra) = (n / parts, n % parts);
    let start = i * base + i.min(extra);
    start..start + base + usize::from(i < extra)
}
