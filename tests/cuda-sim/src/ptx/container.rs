//! What a program may pass to `cuModuleLoadData`: PTX text, a fatbin that holds PTX, or a cubin that carries its PTX.
//!
//! The layout of a fatbin is not documented; this is what `fatbinary` of CUDA 13.5 and `nvFatbin` of CUDA 12.4 write.
//! A header of 16 bytes (magic, version, bytes of the header, bytes behind it) is followed by entries:
//!
//! ```text
//!  0 u16 kind: 1 PTX, 2 cubin, 256 a group   16 u32 bytes of the compressed payload   40 u64 flags
//!  2 u16 version 0x0101                      24 u16 version, minor                    56 u64 bytes uncompressed
//!  4 u32 bytes of this header                26 u16 version, major                    64 of a group: u32 records,
//!  8 u64 bytes of the payload, padded        28 u32 architecture                         u32 bytes from here on
//! ```
//!
//! The records of a group are such headers too, with the offset in the uncompressed payload at byte 4.

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use std::io::Read;

/// No image and nothing uncompressed is larger.
const LIMIT: usize = 1 << 28;
/// Of `__fatBinC_Wrapper_t`, `fatbinary_section.h`: magic, version, pointer to the fatbin, pointer to a file name.
const WRAPPER: u32 = 0x466243B1;
const FATBIN: u32 = 0xBA55ED50;
const FATBIN_HEADER: usize = 16;
const ENTRY_HEADER: usize = 64;
const ELF: u32 = u32::from_le_bytes(*b"\x7fELF");
const ELF_HEADER: usize = 64;
/// `EM_CUDA`
const MACHINE: u16 = 190;
/// `SHT_NOBITS`
const NO_BITS: u32 = 8;
/// Where `-lineinfo` and `-G` leave the PTX in a cubin, its lines ended by NUL.
const CUBIN_TEXT: &[u8] = b".nv_debug_ptx_txt";

const KIND_PTX: u16 = 1;
const KIND_CUBIN: u16 = 2;
const KIND_GROUP: u16 = 256;

const COMPRESSED_LZ4: u64 = 1 << 13;
const COMPRESSED_ZSTD: u64 = 1 << 15;

/// Why an image has no PTX for the device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A well-formed image without PTX that the device could run: `CUDA_ERROR_NO_BINARY_FOR_GPU`.
    #[error("the image holds no PTX for this device")]
    NoBinary,
    /// Not an image at all, or a damaged one: `CUDA_ERROR_INVALID_IMAGE`.
    #[error("{0}")]
    Invalid(String),
    /// An image of a kind that is known, but not to us.
    #[error("{0} is not supported")]
    Unsupported(String),
}

fn invalid(what: impl Into<String>) -> ImageError {
    ImageError::Invalid(what.into())
}

fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    bytes(data, at).map(u16::from_le_bytes)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    bytes(data, at).map(u32::from_le_bytes)
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    bytes(data, at).map(u64::from_le_bytes)
}

/// A length or an offset of 64 bits in the image.
fn size_at(data: &[u8], at: usize) -> Option<usize> {
    u64_at(data, at).and_then(|size| usize::try_from(size).ok())
}

/// `length` bytes from `start` on.
fn part(data: &[u8], start: usize, length: usize) -> Option<&[u8]> {
    data.get(start..start.checked_add(length)?)
}

/// Copies an image that is known by its address only. `read` fills the buffer from an address, or returns false where
/// nothing can be read. The wrapper around a fatbin is followed.
pub fn gather(address: u64, mut read: impl FnMut(u64, &mut [u8]) -> bool) -> Result<Vec<u8>, ImageError> {
    let mut source = Source { address, read: &mut read, image: Vec::new() };
    if source.magic()? == Some(WRAPPER) {
        source.extend(16)?;
        source.address = u64_at(&source.image, 8).unwrap_or(0);
        source.image.clear();
        if source.magic()? != Some(FATBIN) {
            return Err(invalid("the fatbin wrapper does not point to a fatbin"));
        }
    }
    match source.magic()? {
        Some(FATBIN) => {
            source.extend(FATBIN_HEADER)?;
            let length = fatbin_length(&source.image);
            source.extend(length.ok_or_else(|| invalid("a fatbin of impossible size"))?)?;
        }
        Some(ELF) => {
            source.extend(ELF_HEADER)?;
            let sections = Sections::of(&source.image).ok_or_else(|| invalid("an ELF header of impossible values"))?;
            let mut table = vec![0; sections.bytes()];
            source.read(sections.offset, &mut table)?;
            let length = sections.length(&source.image, &table);
            source.extend(length.ok_or_else(|| invalid("an ELF file of impossible size"))?)?;
        }
        _ => while !source.next_is_nul()? {},
    }
    Ok(source.image)
}

/// An image that is being copied.
struct Source<'r> {
    address: u64,
    read: &'r mut dyn FnMut(u64, &mut [u8]) -> bool,
    image: Vec<u8>,
}

impl Source<'_> {
    fn read(&mut self, offset: usize, to: &mut [u8]) -> Result<(), ImageError> {
        let address = self.address.checked_add(offset as u64).filter(|_| self.address != 0);
        match address {
            Some(address) if to.is_empty() || (self.read)(address, to) => Ok(()),
            _ => Err(invalid("the image ends in memory that cannot be read")),
        }
    }

    /// Copies until there are `length` bytes.
    fn extend(&mut self, length: usize) -> Result<(), ImageError> {
        let old = self.image.len();
        if length > LIMIT {
            return Err(invalid(format!("an image of {length} bytes")));
        }
        if length > old {
            let mut more = vec![0; length - old];
            self.read(old, &mut more)?;
            self.image.append(&mut more);
        }
        Ok(())
    }

    /// Copies one more byte of a text, unless it is the NUL.
    fn next_is_nul(&mut self) -> Result<bool, ImageError> {
        let mut byte = [0];
        if self.image.len() >= LIMIT {
            return Err(invalid("a text without end"));
        }
        self.read(self.image.len(), &mut byte)?;
        if byte != [0] {
            self.image.extend(byte);
        }
        Ok(byte == [0])
    }

    /// The first four bytes, without reading behind the NUL of a short text.
    fn magic(&mut self) -> Result<Option<u32>, ImageError> {
        while self.image.len() < 4 {
            if self.next_is_nul()? {
                return Ok(None);
            }
        }
        Ok(u32_at(&self.image, 0))
    }
}

/// The PTX in an image that suits a device of compute capability `sm` (80) best: the newest that is not newer.
pub fn text(image: &[u8], sm: u32) -> Result<String, ImageError> {
    match u32_at(image, 0) {
        Some(FATBIN) => fatbin_text(image, sm),
        Some(ELF) => cubin_text(image),
        Some(WRAPPER) => Err(invalid("a fatbin wrapper in place of what it points to")),
        _ => plain_text(image),
    }
}

/// Up to the first NUL. Whether it is well formed is for the parser to say.
fn plain_text(image: &[u8]) -> Result<String, ImageError> {
    let text = image.split(|b| *b == 0).next().unwrap_or_default();
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    for (magic, name) in
        [(&b"BC\xC0\xDE"[..], "LLVM bitcode"), (b"!<arch>", "a library"), (b"\xED\x43\x4E\x7F", "LTO-IR")]
    {
        if image.starts_with(magic) {
            return Err(ImageError::Unsupported(format!("{name} as an image")));
        }
    }
    if !text.windows(8).any(|window| window == b".version") {
        return Err(invalid("neither PTX, a fatbin nor a cubin"));
    }
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn fatbin_length(image: &[u8]) -> Option<usize> {
    usize::from(u16_at(image, 6)?).checked_add(size_at(image, 8)?)
}

/// An entry of a fatbin, or a record of a group.
struct Entry<'i> {
    kind: u16,
    architecture: u32,
    flags: u64,
    payload: &'i [u8],
    uncompressed: u64,
}

fn fatbin_text(image: &[u8], sm: u32) -> Result<String, ImageError> {
    let damaged = || invalid("a damaged fatbin");
    let image = fatbin_length(image).and_then(|length| image.get(..length)).ok_or_else(damaged)?;
    let mut at = usize::from(u16_at(image, 6).ok_or_else(damaged)?).max(FATBIN_HEADER);
    let mut best = Best { sm, found: None };
    while at < image.len() {
        let (entry, header, end) = entry(image, at).ok_or_else(damaged)?;
        match entry.kind {
            KIND_GROUP => {
                // One payload that the records have in common.
                let payload = uncompress(&entry)?;
                for record in records(header, &payload).ok_or_else(damaged)? {
                    best.offer(&record)?;
                }
            }
            _ => best.offer(&entry)?,
        }
        at = end;
    }
    best.found.map(|(_, text)| text).ok_or(ImageError::NoBinary)
}

/// The entry at an offset, its whole header, and where it ends.
fn entry(image: &[u8], at: usize) -> Option<(Entry<'_>, &[u8], usize)> {
    let rest = image.get(at..)?;
    let header = rest.get(..u32_at(rest, 4)? as usize).filter(|header| header.len() >= ENTRY_HEADER)?;
    let padded = size_at(header, 8)?;
    let payload = part(rest, header.len(), padded)?;
    let end = at + header.len() + padded;
    let flags = u64_at(header, 40)?;
    let payload = match u32_at(header, 16)? as usize {
        compressed if flags & (COMPRESSED_LZ4 | COMPRESSED_ZSTD) != 0 => payload.get(..compressed)?,
        _ => payload,
    };
    let (kind, architecture) = (u16_at(header, 0)?, u32_at(header, 28)?);
    Some((Entry { kind, architecture, flags, payload, uncompressed: u64_at(header, 56)? }, header, end))
}

fn records<'p>(header: &[u8], payload: &'p [u8]) -> Option<Vec<Entry<'p>>> {
    let count = u32_at(header, ENTRY_HEADER)? as usize;
    let index = part(header, ENTRY_HEADER, u32_at(header, ENTRY_HEADER + 4)? as usize)?.get(8..)?;
    let size = index.len().checked_div(count).filter(|size| *size >= ENTRY_HEADER && size * count == index.len())?;
    let record = |record: &[u8]| {
        let payload = part(payload, u32_at(record, 4)? as usize, size_at(record, 8)?)?;
        let (kind, architecture) = (u16_at(record, 0)?, u32_at(record, 28)?);
        // The group was compressed, its records are not.
        Some(Entry { kind, architecture, flags: 0, payload, uncompressed: 0 })
    };
    index.chunks_exact(size).map(record).collect()
}

/// The text found so far: PTX goes before what cubins carry, then the newer architecture before the older.
struct Best {
    sm: u32,
    found: Option<((bool, u32), String)>,
}

impl Best {
    fn offer(&mut self, entry: &Entry<'_>) -> Result<(), ImageError> {
        let rank = (entry.kind == KIND_PTX, entry.architecture);
        let better = self.found.as_ref().is_none_or(|(found, _)| *found < rank);
        if entry.architecture > self.sm || !better {
            return Ok(());
        }
        let text = match entry.kind {
            KIND_PTX => {
                let text = plain_text(&uncompress(entry)?)?;
                if !runs_on(&text, self.sm) {
                    return Ok(());
                }
                text
            }
            KIND_CUBIN => match cubin_text(&uncompress(entry)?) {
                Err(ImageError::NoBinary) => return Ok(()),
                text => text?,
            },
            // Host objects, LTO-IR and the like are no code for a device.
            _ => return Ok(()),
        };
        self.found = Some((rank, text));
        Ok(())
    }
}

/// Whether PTX for an older architecture runs on `sm`: `sm_90a` is for 90 alone, `sm_100f` for its family (PTX ISA, `.target`).
fn runs_on(text: &str, sm: u32) -> bool {
    let target = text.split_once(".target").and_then(|(_, rest)| rest.trim_start().strip_prefix("sm_"));
    let target =
        target.and_then(|target| target.split(|c: char| !c.is_ascii_alphanumeric()).next()).unwrap_or_default();
    let number = |suffix| target.strip_suffix(suffix).and_then(|digits| digits.parse::<u32>().ok());
    number('a').is_none_or(|own| own == sm) && number('f').is_none_or(|own| own / 10 == sm / 10)
}

fn uncompress<'i>(entry: &Entry<'i>) -> Result<std::borrow::Cow<'i, [u8]>, ImageError> {
    let size = usize::try_from(entry.uncompressed).ok().filter(|size| *size <= LIMIT);
    let size = size.ok_or_else(|| invalid(format!("{} uncompressed bytes", entry.uncompressed)))?;
    let damaged = |error: &dyn std::fmt::Display| invalid(format!("compressed data is damaged: {error}"));
    let data = match entry.flags & (COMPRESSED_LZ4 | COMPRESSED_ZSTD) {
        0 => return Ok(entry.payload.into()),
        COMPRESSED_LZ4 => {
            // A byte of an LZ4 block stands for 255 at most: a larger size is not worth an allocation.
            if size / 255 > entry.payload.len() {
                return Err(damaged(&"it is too short"));
            }
            let mut data = vec![0; size];
            let length = lz4_flex::block::decompress_into(entry.payload, &mut data).map_err(|e| damaged(&e))?;
            data.truncate(length);
            data
        }
        COMPRESSED_ZSTD => {
            let mut decoder = FrameDecoder::new();
            decoder.set_max_window_size(LIMIT as u64);
            let decoder = StreamingDecoder::new_with_decoder(entry.payload, decoder).map_err(|e| damaged(&e))?;
            let mut data = Vec::new();
            decoder.take(size as u64 + 1).read_to_end(&mut data).map_err(|e| damaged(&e))?;
            data
        }
        _ => return Err(ImageError::Unsupported("a fatbin entry compressed twice".to_owned())),
    };
    if data.len() != size {
        return Err(damaged(&format!("{} bytes in place of {size}", data.len())));
    }
    Ok(data.into())
}

/// An ELF file's section table.
struct Sections {
    offset: usize,
    count: usize,
    names: usize,
}

/// Bytes of an `Elf64_Shdr`.
const SECTION: usize = 64;

impl Sections {
    /// From the header of a 64-bit little-endian ELF file.
    fn of(header: &[u8]) -> Option<Sections> {
        let sections = Sections {
            offset: size_at(header, 0x28)?,
            count: usize::from(u16_at(header, 0x3c)?),
            names: usize::from(u16_at(header, 0x3e)?),
        };
        let sized = sections.count == 0 || usize::from(u16_at(header, 0x3a)?) == SECTION;
        (header.get(4..6)? == [2, 1] && sized).then_some(sections)
    }

    fn bytes(&self) -> usize {
        self.count * SECTION
    }

    /// Bytes of the file: everything that a table or a section reaches.
    fn length(&self, header: &[u8], table: &[u8]) -> Option<usize> {
        let segments = usize::from(u16_at(header, 0x36)?) * usize::from(u16_at(header, 0x38)?);
        let mut length = ELF_HEADER.max(self.offset.checked_add(self.bytes())?);
        if segments > 0 {
            length = length.max(size_at(header, 0x20)?.checked_add(segments)?);
        }
        for section in table.chunks_exact(SECTION) {
            if u32_at(section, 4)? != NO_BITS {
                length = length.max(size_at(section, 0x18)?.checked_add(size_at(section, 0x20)?)?);
            }
        }
        Some(length)
    }
}

fn section<'i>(image: &'i [u8], header: &[u8]) -> Option<&'i [u8]> {
    part(image, size_at(header, 0x18)?, size_at(header, 0x20)?)
}

/// A cubin's code is for real hardware; what it was made from is there if it was compiled with `-lineinfo` or `-G`.
fn cubin_text(image: &[u8]) -> Result<String, ImageError> {
    let damaged = || invalid("a damaged ELF file");
    let sections = Sections::of(image).ok_or_else(damaged)?;
    if u16_at(image, 0x12) != Some(MACHINE) {
        return Err(invalid("an ELF file that is no cubin"));
    }
    let table = part(image, sections.offset, sections.bytes()).ok_or_else(damaged)?;
    let headers = || table.chunks_exact(SECTION);
    if sections.count == 0 {
        return Err(ImageError::NoBinary);
    }
    let names = headers().nth(sections.names).and_then(|header| section(image, header)).ok_or_else(damaged)?;
    for header in headers() {
        let name = u32_at(header, 0).and_then(|at| names.get(at as usize..)).ok_or_else(damaged)?;
        if name.split(|b| *b == 0).next() == Some(CUBIN_TEXT) {
            let lines = section(image, header).ok_or_else(damaged)?;
            let text: Vec<u8> = lines.iter().map(|b| if *b == 0 { b'\n' } else { *b }).collect();
            return plain_text(&text);
        }
    }
    Err(ImageError::NoBinary)
}
