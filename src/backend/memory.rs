//! Zeroed memory straight from the system: pages that nobody wrote take none, and large pieces ask for huge pages, without which
//! a pass over packed weights misses the TLB every 4 KB. And memory that several threads write, each its own part.

use bytemuck::Pod;
use memmap2::MmapMut;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// From here on huge pages are asked for: some of them.
#[cfg(target_os = "linux")]
const LARGE: usize = 4 << 20;

/// Elements that start as zero, on a page boundary.
#[derive(Debug)]
pub(super) struct Zeroed<T> {
    /// None for no elements.
    map: Option<MmapMut>,
    len: usize,
    of: PhantomData<T>,
}

impl<T> Default for Zeroed<T> {
    fn default() -> Self {
        Zeroed { map: None, len: 0, of: PhantomData }
    }
}

impl<T: Pod> Zeroed<T> {
    /// `len` zeros; `None` where the system has no room for them.
    pub fn new(len: usize) -> Option<Zeroed<T>> {
        let bytes = len.checked_mul(size_of::<T>())?;
        if bytes == 0 {
            return Some(Zeroed::default());
        }
        let map = MmapMut::map_anon(bytes).ok()?;
        #[cfg(target_os = "linux")]
        if bytes >= LARGE {
            // a wish: a kernel without huge pages refuses it, and nothing is lost
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Some(Zeroed { map: Some(map), len, of: PhantomData })
    }
}

impl<T: Pod> Deref for Zeroed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.map {
            Some(map) => &bytemuck::cast_slice(map)[..self.len],
            None => &[],
        }
    }
}

impl<T: Pod> DerefMut for Zeroed<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.map {
            Some(map) => &mut bytemuck::cast_slice_mut(map)[..self.len],
            None => &mut [],
        }
    }
}

/// Memory that tasks write in disjoint pieces which `chunks_mut` cannot express.
#[derive(Debug)]
pub(super) struct Shared<T = f32> {
    start: *mut T,
    len: usize,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: the pointer is only turned into slices by methods whose contracts forbid two tasks the same elements.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(slice: &mut [T]) -> Self {
        Shared { start: slice.as_mut_ptr(), len: slice.len() }
    }

    pub fn len(self) -> usize {
        self.len
    }

    /// The address of element `offset`.
    pub fn at(self, offset: usize) -> *mut T {
        debug_assert!(offset <= self.len);
        self.start.wrapping_add(offset)
    }

    /// `len` elements from `offset`.
    ///
    /// # Safety
    /// The range lies inside, the memory is still borrowed by the caller of `new`, and nobody else uses
    /// the range meanwhile.
    pub unsafe fn slice<'a>(self, offset: usize, len: usize) -> &'a mut [T] {
        debug_assert!(offset + len <= self.len);
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }

    /// `len` elements from `offset`, to read.
    ///
    /// # Safety
    /// As [`Shared::slice`], but others may read the range, too.
    pub unsafe fn read<'a>(self, offset: usize, len: usize) -> &'a [T] {
        debug_assert!(offset + len <= self.len);
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(offset), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_start_as_zero_and_too_many_are_refused() {
        let mut some = Zeroed::<f32>::new(5000).unwrap();
        assert!(some.len() == 5000 && some.iter().all(|x| *x == 0.0));
        some[4999] = 1.0;
        assert_eq!(some[4999], 1.0);
        assert!(Zeroed::<f64>::new(0).unwrap().is_empty());
        assert!(Zeroed::<f64>::new(usize::MAX / 8).is_none() && Zeroed::<f64>::new(usize::MAX).is_none());
    }
}
