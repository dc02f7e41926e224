//! Zeroed memory straight from the system: pages that nobody wrote take none, and large pieces ask for huge pages, without which
//! a pass over packed weights misses the TLB every 4 KB.

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
