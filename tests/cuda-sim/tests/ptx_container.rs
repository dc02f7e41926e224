//! Images as programs pass them: PTX, fatbins that NVIDIA's tools and this test made, and cubins.

#[path = "common/cases.rs"]
mod cases;

use cuda::ptx::container::{ImageError, gather, text};
use proptest::prelude::*;

const PTX_75: &str = include_str!("ptx/scale.sm_75.ptx");
const PTX_80: &str = include_str!("ptx/scale.sm_80.ptx");
const CUBIN: &[u8] = include_bytes!("ptx/scale.cubin");
const CUBIN_LINES: &[u8] = include_bytes!("ptx/scale.lineinfo.cubin");
const LZ4: &[u8] = include_bytes!("ptx/scale.lz4.fatbin");
const ZSTD: &[u8] = include_bytes!("ptx/scale.zstd.fatbin");
const GROUP: &[u8] = include_bytes!("ptx/scale.group.fatbin");
const FATBINS: [(&str, &[u8]); 5] = [
    ("plain", include_bytes!("ptx/scale.plain.fatbin")),
    ("lz4", LZ4),
    ("zstd", ZSTD),
    ("group", GROUP),
    ("nvFatbin 12.4", include_bytes!("ptx/scale.nvfatbin-12.4.fatbin")),
];

/// The code in one form: the tools drop comments, blanks and, in a cubin, the places in the source.
fn code(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty() && !line.starts_with(".loc") && !line.starts_with(".file")).collect()
}

fn invalid(result: Result<String, ImageError>) -> bool {
    matches!(result, Err(ImageError::Invalid(_)))
}

/// An entry of a fatbin: header and padded payload.
fn entry(kind: u16, architecture: u32, flags: u64, payload: &[u8], uncompressed: u64) -> Vec<u8> {
    let padded = payload.len().next_multiple_of(8);
    let mut entry = Vec::new();
    entry.extend(kind.to_le_bytes());
    entry.extend(0x0101_u16.to_le_bytes());
    entry.extend(64_u32.to_le_bytes());
    entry.extend((padded as u64).to_le_bytes());
    entry.extend((payload.len() as u32).to_le_bytes());
    entry.extend([0; 8]);
    entry.extend(architecture.to_le_bytes());
    entry.extend([0; 8]);
    entry.extend(flags.to_le_bytes());
    entry.extend([0; 8]);
    entry.extend(uncompressed.to_le_bytes());
    assert_eq!(entry.len(), 64);
    entry.extend(payload);
    entry.resize(64 + padded, 0);
    entry
}

fn fatbin(entries: &[Vec<u8>]) -> Vec<u8> {
    let entries = entries.concat();
    let mut fatbin = 0xBA55ED50_u32.to_le_bytes().to_vec();
    fatbin.extend([1, 0, 16, 0]);
    fatbin.extend((entries.len() as u64).to_le_bytes());
    fatbin.extend(entries);
    fatbin
}

fn ptx(architecture: u32) -> Vec<u8> {
    format!(".version 8.0\n.target sm_{architecture}\n\0").into_bytes()
}

#[test]
fn plain_text() {
    assert_eq!(text(PTX_80.as_bytes(), 80).unwrap(), PTX_80);
    assert_eq!(text(b"// a\n.version 8.0\0.rest", 80).unwrap(), "// a\n.version 8.0");
    assert_eq!(text(b"\xEF\xBB\xBF.version 8.0", 80).unwrap(), ".version 8.0");
    // What is newer than the device is for whoever loads it to refuse, with a better message.
    assert!(text(PTX_80.as_bytes(), 75).is_ok());
    for image in [&b""[..], b"\0", b"\0.version", b"hello", b"\x7fEL", b"PK\x03\x04"] {
        assert!(invalid(text(image, 80)), "{image:?}");
    }
    for image in [&b"BC\xC0\xDE....."[..], b"!<arch>\n", b"\xED\x43\x4E\x7F...."] {
        assert!(matches!(text(image, 80), Err(ImageError::Unsupported(_))), "{image:?}");
    }
}

/// The best PTX for each device, out of what the tools made of the same two texts.
#[test]
fn fatbins_of_the_tools() {
    for (tool, image) in FATBINS {
        assert_eq!(text(image, 70), Err(ImageError::NoBinary), "{tool}");
        for (sm, expected) in [(75, PTX_75), (79, PTX_75), (80, PTX_80), (86, PTX_80), (90, PTX_80), (120, PTX_80)] {
            let found = text(image, sm).unwrap_or_else(|e| panic!("{tool}: {e}"));
            assert_eq!(code(&found), code(expected), "{tool} sm_{sm}");
            cuda::ptx::parse(&found).unwrap();
        }
    }
}

#[test]
fn fatbins_by_hand() {
    let image =
        fatbin(&[entry(1, 80, 0x11, &ptx(80), 0), entry(1, 90, 0x11, &ptx(90), 0), entry(1, 75, 0x11, &ptx(75), 0)]);
    assert_eq!(text(&image, 89).unwrap(), ".version 8.0\n.target sm_80\n");
    assert_eq!(text(&image, 90).unwrap(), ".version 8.0\n.target sm_90\n");
    // What is for one architecture or family goes before what is for all, and suits no other.
    let special = |architecture, suffix: &str| {
        let text = format!(".version 8.8\n.target sm_{architecture}{suffix}, debug\n");
        entry(1, architecture, 0x11, text.as_bytes(), 0)
    };
    let special = fatbin(&[entry(1, 75, 0x11, &ptx(75), 0), special(90, "a"), special(100, "f")]);
    for (sm, target) in
        [(89, "sm_75\n"), (90, "sm_90a,"), (99, "sm_75\n"), (100, "sm_100f,"), (103, "sm_100f,"), (120, "sm_75\n")]
    {
        assert!(text(&special, sm).unwrap().contains(target), "{sm}");
    }
    // Bytes behind the end do not belong to it.
    let longer = [&image[..], &[0xFF; 100]].concat();
    assert_eq!(text(&longer, 75).unwrap(), ".version 8.0\n.target sm_75\n");
    assert_eq!(text(&fatbin(&[]), 80), Err(ImageError::NoBinary));
    assert_eq!(text(&fatbin(&[entry(2, 80, 0x11, CUBIN, 0)]), 80), Err(ImageError::NoBinary));
    assert_eq!(text(&fatbin(&[entry(8, 80, 0x11, b"NVVM", 0)]), 80), Err(ImageError::NoBinary));
    // PTX goes before what a cubin carries, even if the cubin is for a newer device.
    let cubin = entry(2, 86, 0x11, CUBIN_LINES, 0);
    assert!(text(&fatbin(std::slice::from_ref(&cubin)), 86).unwrap().contains(".entry scale"));
    assert_eq!(text(&fatbin(std::slice::from_ref(&cubin)), 80), Err(ImageError::NoBinary));
    assert_eq!(text(&fatbin(&[cubin, entry(1, 75, 0x11, &ptx(75), 0)]), 86).unwrap(), ".version 8.0\n.target sm_75\n");
}

#[test]
fn damaged_fatbins() {
    let whole = fatbin(&[entry(1, 80, 0x11, &ptx(80), 0)]);
    for length in 4..whole.len() {
        assert!(invalid(text(&whole[..length], 80)), "{length} bytes");
    }
    let with = |at: usize, value: u64| {
        let mut image = whole.clone();
        image[at..at + 8].copy_from_slice(&value.to_le_bytes());
        text(&image, 80)
    };
    // The size of the fatbin, then that of the payload.
    for value in [u64::MAX, 1 << 63, 1 << 40, whole.len() as u64] {
        assert!(invalid(with(8, value)) && invalid(with(24, value)), "{value}");
    }
    // The size of the entry's header.
    for value in [0, 1, 63, 0xFFFF_FFFF] {
        assert!(invalid(with(16, 0x0101_0001 | value << 32)), "{value}");
    }
    // Sizes and payloads of compressed entries; 2^13 is LZ4 and 2^15 zstd.
    for (flags, payload, uncompressed) in [
        (1 << 13, &b""[..], 100),
        (1 << 13, b"\xFF\xFF\xFF\xFF", 1000),
        (1 << 13, b"\x50abcde", 6),
        (1 << 13, b"\x50abcde", 4),
        (1 << 13, b"\x50abcde", u64::MAX),
        (1 << 13, b"\x50abcde", 1 << 28),
        (1 << 15, b"", 100),
        (1 << 15, b"\x28\xB5\x2F\xFD", 100),
        (1 << 15, b"\x28\xB5\x2F\xFD\x60\x9C\x01\xB5\x0A\x00", 668),
        (1 << 15, b"not zstd at all", 100),
        (1 << 15, b"\x28\xB5\x2F\xFD", u64::MAX),
    ] {
        let image = fatbin(&[entry(1, 80, flags, payload, uncompressed)]);
        assert!(invalid(text(&image, 80)), "{flags:x} {payload:?} {uncompressed}");
    }
    let twice = fatbin(&[entry(1, 80, 1 << 13 | 1 << 15, b"x", 1)]);
    assert!(matches!(text(&twice, 80), Err(ImageError::Unsupported(_))));
    // One run of 2^28 zeros in 16 blocks of a frame is more than the entry says.
    let mut bomb = b"\x28\xB5\x2F\xFD\x00\x88".to_vec();
    (0..2048).for_each(|_| bomb.extend([0x02, 0x00, 0x10, 0x00]));
    assert!(invalid(text(&fatbin(&[entry(1, 80, 1 << 15, &bomb, 1000)]), 80)));
}

#[test]
fn cubins() {
    assert_eq!(text(CUBIN, 80), Err(ImageError::NoBinary));
    let found = text(CUBIN_LINES, 80).unwrap();
    assert_eq!(code(&found), code(include_str!("ptx/scale.lineinfo.ptx")));
    assert_eq!(cuda::ptx::parse(&found).unwrap().functions.len(), 1);
    let mut other = CUBIN.to_vec();
    other[0x12] = 62; // EM_X86_64
    assert!(invalid(text(&other, 80)));
    for length in [4, 20, 63, 64, CUBIN_LINES.len() / 2, CUBIN_LINES.len() - 400] {
        assert!(text(&CUBIN_LINES[..length], 80).is_err(), "{length}");
    }
    assert!(invalid(text(&CUBIN_LINES[..64], 80)));
}

/// Memory with an image at an address, and nothing else.
fn memory<'m>(parts: &'m [(u64, &'m [u8])]) -> impl FnMut(u64, &mut [u8]) -> bool + 'm {
    move |address, to| {
        parts.iter().any(|(base, bytes)| {
            let start = address.checked_sub(*base).map(|start| start as usize);
            let part = start.and_then(|start| bytes.get(start..start.checked_add(to.len())?));
            part.inspect(|part| to.copy_from_slice(part)).is_some()
        })
    }
}

#[test]
fn images_by_address() {
    let terminated = format!("{PTX_80}\0");
    assert_eq!(gather(4096, memory(&[(4096, terminated.as_bytes())])).unwrap(), PTX_80.as_bytes());
    assert_eq!(gather(4096, memory(&[(4096, b"a\0")])).unwrap(), b"a");
    assert_eq!(gather(4096, memory(&[(4096, b"\0")])).unwrap(), b"");
    // What lies behind is not read.
    for (_, image) in FATBINS.iter().chain(&[("", CUBIN), ("", CUBIN_LINES)]) {
        assert_eq!(gather(4096, memory(&[(4096, image)])).unwrap(), *image);
        let longer = [image, &[0xAA; 1000][..]].concat();
        assert_eq!(gather(4096, memory(&[(4096, &longer)])).unwrap(), *image);
        let shorter = &image[..image.len() - 1];
        assert!(gather(4096, memory(&[(4096, shorter)])).is_err());
    }
    assert!(gather(0, memory(&[(0, b"a\0")])).is_err());
    assert!(gather(4096, memory(&[])).is_err());
    assert!(gather(4096, memory(&[(4096, b"endless")])).is_err());
    assert!(gather(u64::MAX - 2, memory(&[(u64::MAX - 2, b"ab")])).is_err());
}

#[test]
fn wrappers_are_followed() {
    let wrapper =
        |to: u64| [&0x466243B1_u32.to_le_bytes()[..], &1_u32.to_le_bytes(), &to.to_le_bytes(), &[0; 8]].concat();
    let good = wrapper(8192);
    assert_eq!(gather(4096, memory(&[(4096, &good), (8192, ZSTD)])).unwrap(), ZSTD);
    assert!(gather(4096, memory(&[(4096, &good), (8192, CUBIN)])).is_err());
    // No chain and no circle of wrappers.
    assert!(gather(4096, memory(&[(4096, &good), (8192, &good)])).is_err());
    for to in [0, 4096, u64::MAX] {
        assert!(gather(4096, memory(&[(4096, &wrapper(to))])).is_err());
    }
    assert!(invalid(text(&good, 80)));
}

#[test]
fn lengths_are_not_believed() {
    // 4 GiB and more, or sums that overflow.
    for value in [1_u64 << 32, 1 << 63, u64::MAX, u64::MAX - 15] {
        let mut image = ZSTD.to_vec();
        image[8..16].copy_from_slice(&value.to_le_bytes());
        assert!(gather(4096, memory(&[(4096, &image)])).is_err(), "{value}");
        for at in [0x20, 0x28] {
            let mut image = CUBIN.to_vec();
            image[at..at + 8].copy_from_slice(&value.to_le_bytes());
            assert!(gather(4096, memory(&[(4096, &image)])).is_err(), "{at} {value}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases::cases(2000), failure_persistence: None, ..ProptestConfig::default() })]

    /// No image makes us panic.
    #[test]
    fn damaged_images(
        which in 0..7_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        words in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 0..2),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut image = match which {
            5 => CUBIN.to_vec(),
            6 => CUBIN_LINES.to_vec(),
            which => FATBINS[which].1.to_vec(),
        };
        for (index, byte) in changes {
            // Most bytes that matter are in the first headers.
            let length = image.len().min(if byte & 1 == 0 { 200 } else { usize::MAX });
            image[index.index(length)] ^= byte;
        }
        for (index, word) in words {
            let at = index.index(image.len() - 8);
            image[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        if let Some(end) = end {
            image.truncate(end.index(image.len()));
        }
        let _ = text(&image, 80);
        if let Ok(copy) = gather(4096, memory(&[(4096, &image)])) {
            prop_assert!(image.starts_with(&copy));
        }
    }

    /// Nor does a payload that is damaged behind intact headers.
    #[test]
    fn damaged_payloads(zstd in any::<bool>(), changes in prop::collection::vec((80..400_usize, any::<u8>()), 1..6)) {
        let mut image = if zstd { ZSTD } else { LZ4 }.to_vec();
        changes.iter().for_each(|(at, byte)| image[*at + 16] ^= byte);
        let _ = text(&image, 75);
    }
}
