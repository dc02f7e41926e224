//! The shapes in which the lanes of a warp touch memory, so that the common ones are handled as one.

use super::Access;
use super::clock::ones;

/// Cells of a row that is put together from runs.
const ROW: usize = 128;

/// How an access touches memory.
pub(super) struct Shape<'a> {
    a: &'a Access<'a>,
    /// All 32 lanes are there, each behind the one before, in one page.
    row: bool,
    /// The different addresses that neighbouring lanes have, with their lanes; none are collected for a row. Two half warps
    /// with the same addresses count as neighbours too.
    runs: [(u64, u32); 32],
    count: usize,
    /// All executing lanes' addresses and the size are multiples of `1 << granule`, at most 16.
    pub granule: u32,
}

impl<'a> Shape<'a> {
    #[inline]
    pub fn of(a: &'a Access<'a>, page_bits: u32) -> Shape<'a> {
        let mut it = Shape { a, row: false, runs: [(0, 0); 32], count: 0, granule: 0 };
        let first = a.addresses[0];
        let mut bits = a.bytes as u64 | 16;
        if a.mask == u32::MAX {
            let (mut apart, mut bent) = (0, 0);
            for (next, address) in a.addresses[1..].iter().zip(a.addresses) {
                let step = next.wrapping_sub(*address);
                apart |= step;
                bent |= step ^ a.bytes as u64;
            }
            bits |= first | apart;
            let last = first.wrapping_add(32 * a.bytes as u64 - 1);
            it.row = bent == 0 && pattern(a.bytes as usize).is_some() && first >> page_bits == last >> page_bits;
            if apart == 0 {
                (it.runs[0], it.count) = ((first, a.mask), 1);
            } else if !it.row {
                it.collect();
            }
        } else {
            bits |= ones(a.mask).fold(0, |d, lane| d | a.addresses[lane as usize]);
            it.collect();
        }
        it.granule = bits.trailing_zeros();
        it
    }

    #[inline(never)]
    fn collect(&mut self) {
        let addresses = self.a.addresses;
        let twice = self.a.mask == u32::MAX && addresses[..16] == addresses[16..];
        let (lanes, bits) = if twice { (0xffff, 0x1_0001) } else { (self.a.mask, 1) };
        let mut count = 0;
        for lane in ones(lanes) {
            let address = addresses[lane as usize];
            if count > 0 && self.runs[count - 1].0 == address {
                self.runs[count - 1].1 |= bits << lane;
            } else {
                self.runs[count] = (address, bits << lane);
                count += 1;
            }
        }
        self.count = count;
    }

    /// The addresses, each with the lanes that have it; none if the access is one row.
    pub fn part(&self) -> &[(u64, u32)] {
        &self.runs[..self.count]
    }

    /// The same, with runs even if it is a row.
    pub fn collected(mut self) -> Shape<'a> {
        if self.row {
            self.row = false;
            self.collect();
        }
        self
    }

    /// Whether all rows satisfy `f`, which is given the address and the lanes that touch each cell of `1 << shift` bytes
    /// from there on. The rows are those of `part`, which is some of [`Shape::part`]; if the access is one row, that one.
    #[inline]
    pub fn rows(&self, part: &[(u64, u32)], shift: u32, mut f: impl FnMut(u64, &[u32]) -> bool) -> bool {
        let cells = (self.a.bytes >> shift) as usize;
        if self.row
            && let Some(lanes) = pattern(cells)
        {
            return f(self.a.addresses[0], lanes);
        }
        if let [(address, lanes)] = part
            && cells == 1
        {
            return f(*address, &[*lanes]);
        }
        let mut buffer = [0; ROW];
        let most = (ROW / cells.max(1)).max(1);
        let mut part = part;
        while let [first, rest @ ..] = part {
            let mut length = 1;
            for next in rest {
                let end = first.0.wrapping_add(length as u64 * self.a.bytes as u64);
                if next.0 != end || length == most {
                    break;
                }
                length += 1;
            }
            let (row, behind) = part.split_at(length);
            part = behind;
            let used = (length * cells).min(ROW);
            match cells {
                1 => buffer.iter_mut().zip(row).for_each(|(l, r)| *l = r.1),
                _ => buffer.chunks_mut(cells.max(1)).zip(row).for_each(|(l, r)| l.fill(r.1)),
            }
            if !f(first.0, &buffer[..used]) {
                return false;
            }
        }
        true
    }

    /// Whether the access is one row.
    pub fn is_row(&self) -> bool {
        self.row
    }

    /// Puts runs of one page next to each other.
    pub fn by_page(&mut self, page_bits: u32) {
        let runs = &mut self.runs[..self.count];
        if !runs.is_sorted_by_key(|r| r.0 >> page_bits) {
            runs.sort_by_key(|r| r.0 >> page_bits);
        }
    }

    /// Makes the addresses of runs different from each other.
    pub fn distinct(&mut self) {
        let runs = &mut self.runs[..self.count];
        if runs.is_sorted_by(|a, b| a.0 < b.0) {
            return;
        }
        runs.sort_unstable();
        let mut last = 0;
        for i in 1..runs.len() {
            if runs[i].0 == runs[last].0 {
                runs[last].1 |= runs[i].1;
            } else {
                last += 1;
                runs[last] = runs[i];
            }
        }
        self.count = last + 1;
    }
}

const fn repeat<const N: usize>() -> [u32; N] {
    let mut lanes = [0; N];
    let mut i = 0;
    while i < N {
        lanes[i] = 1 << (i * 32 / N);
        i += 1;
    }
    lanes
}

static BY_1: [u32; 32] = repeat();
static BY_2: [u32; 64] = repeat();
static BY_4: [u32; 128] = repeat();
static BY_8: [u32; 256] = repeat();
static BY_16: [u32; 512] = repeat();

/// The lane that touches each cell of a row, if it has so many cells a lane.
#[inline]
fn pattern(cells: usize) -> Option<&'static [u32]> {
    match cells {
        1 => Some(&BY_1),
        2 => Some(&BY_2),
        4 => Some(&BY_4),
        8 => Some(&BY_8),
        16 => Some(&BY_16),
        _ => None,
    }
}
