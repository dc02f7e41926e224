//! The bytes of a weights file: mapped, in memory or compiled in; opening them, giving pages back, and elements read
//! from them as f32. Called by every reader of `weights`.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use super::WeightsError;

/// The bytes of a whole file.
pub(super) enum Bytes {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
    Static(&'static [u8]),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
            Bytes::Static(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl Bytes {
    /// Maps a file; nothing of it is read. It must not be shortened while it is open; our own writers never do that,
    /// they replace files whole.
    pub(super) fn open(path: &Path) -> Result<Bytes, WeightsError> {
        let io = |reason: io::Error| WeightsError::Io { file: path.display().to_string(), reason };
        // Before opening: a named pipe would block the open for ever.
        let kind = std::fs::metadata(path).map_err(io)?;
        if kind.is_dir() {
            let reason = "it is a directory; name the file in it that holds the weights";
            return Err(io(io::Error::new(io::ErrorKind::IsADirectory, reason)));
        }
        if !kind.is_file() {
            return Err(io(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
        }
        let mut file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only and private to this process; shortening the file meanwhile is excluded by the
        // contract above, and any other change alters numbers, never memory safety, as every type read is plain data.
        match unsafe { memmap2::Mmap::map(&file) } {
            Ok(map) => Ok(Bytes::Mapped(map)),
            // An empty file, or a file system without maps.
            Err(_) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map_err(io)?;
                Ok(Bytes::Owned(bytes))
            }
        }
    }

    /// Gives the memory of the pages that lie wholly in `range` back to the system; they are read from the file again
    /// when somebody looks. Nothing happens where the bytes are no map or the system knows no such thing.
    pub(super) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = self {
            /// The largest page size in use: a smaller one divides it.
            const PAGE: usize = 1 << 16;
            let base = map.as_ptr() as usize;
            let start = (base + range.start.min(map.len())).next_multiple_of(PAGE) - base;
            let end = (base + range.end.min(map.len())) / PAGE * PAGE;
            let Some(length) = end.checked_sub(base + start).filter(|&n| n > 0) else { return };
            // SAFETY: the map is of a file, read-only and never written through: dropped pages come back with the
            // file's content, so no reference into the map sees other bytes than before.
            let advised = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, length) };
            let _ = advised; // advice only: where it is refused, the pages stay
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

/// The elements in `bytes` (a whole number of them, checked by the caller), in place where aligned.
pub(super) fn aligned<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(slice) => Cow::Borrowed(slice),
        Err(_) => Cow::Owned(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()),
    }
}

/// A type of float that files hold and f32 is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Float {
    F32,
    F16,
    Bf16,
    F64,
}

impl Float {
    /// As logs call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Float::F32 => "f32",
            Float::F16 => "f16",
            Float::Bf16 => "bf16",
            Float::F64 => "f64",
        }
    }

    /// Bytes of an element.
    pub(super) fn size(self) -> usize {
        match self {
            Float::F32 => 4,
            Float::F16 | Float::Bf16 => 2,
            Float::F64 => 8,
        }
    }

    /// Element `index` of `bytes`, as f32; 0 behind their end, which callers have excluded.
    pub(super) fn at(self, bytes: &[u8], index: usize) -> f32 {
        let element = |size: usize| index.checked_mul(size).and_then(|start| bytes.get(start..)?.get(..size));
        match self {
            Float::F32 => element(4).map_or(0.0, bytemuck::pod_read_unaligned),
            Float::F16 => element(2).map_or(0.0, |b| half::f16::from_bits(bytemuck::pod_read_unaligned(b)).to_f32()),
            Float::Bf16 => element(2).map_or(0.0, |b| half::bf16::from_bits(bytemuck::pod_read_unaligned(b)).to_f32()),
            Float::F64 => element(8).map_or(0.0, |b| bytemuck::pod_read_unaligned::<f64>(b) as f32),
        }
    }

    /// All elements of `bytes` as f32.
    pub(super) fn all(self, bytes: &[u8]) -> Vec<f32> {
        let count = bytes.len() / self.size();
        if self == Float::F32 {
            let mut data = vec![0.0; count];
            bytemuck::cast_slice_mut(&mut data).copy_from_slice(&bytes[..4 * count]);
            return data;
        }
        (0..count).map(|i| self.at(bytes, i)).collect()
    }
}

/// Whether elements with these strides lie row-major, without gaps.
pub(super) fn in_order(dims: &[usize], strides: &[usize]) -> bool {
    let mut run: usize = 1;
    dims.iter().zip(strides).rev().all(|(&d, &s)| {
        let fits = d == 1 || s == run;
        run = run.saturating_mul(d);
        fits
    })
}

/// The elements of a tensor whose memory is in another order, row-major. All lie inside `bytes`, checked by the caller.
pub(super) fn gathered(
    bytes: &[u8],
    float: Float,
    first: usize,
    dims: &[usize],
    strides: &[usize],
    count: usize,
) -> Vec<f32> {
    let mut index = vec![0; dims.len()];
    let mut at = first;
    let mut data = Vec::with_capacity(count);
    for _ in 0..count {
        data.push(float.at(bytes, at));
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            // wrapping: the stride of an axis of length 1 means nothing and can be anything
            at = at.wrapping_add(strides[axis]);
            if index[axis] < dims[axis] {
                break;
            }
            at = at.wrapping_sub(strides[axis].wrapping_mul(dims[axis]));
            index[axis] = 0;
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_type_gives_the_nearest_f32() {
        assert_eq!(Float::F32.all(&1.5f32.to_le_bytes()), [1.5]);
        assert_eq!(Float::F16.all(&[0x00, 0x3c, 0x01, 0x00, 0x00, 0xfc]), [1.0, 2f32.powi(-24), f32::NEG_INFINITY]);
        assert_eq!(Float::Bf16.all(&[0x80, 0x3f, 0x00, 0xc0]), [1.0, -2.0]);
        assert_eq!(Float::F64.all(&0.1f64.to_le_bytes()), [0.1f32]);
        assert_eq!(Float::F64.at(&[0; 8], 1), 0.0);
    }

    #[test]
    fn released_pages_are_read_again_from_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..1 << 18).map(|i| (i % 251) as u8).collect();
        std::fs::write(file.path(), &content).unwrap();
        let bytes = Bytes::open(file.path()).unwrap();
        assert!(bytes[..] == content[..]);
        for range in [0..content.len(), 5..70_000, 70_000..70_001, 0..0, 1 << 17..1 << 30, 1 << 30..1 << 31] {
            bytes.release(range);
            assert!(bytes[..] == content[..]);
        }
    }
}
