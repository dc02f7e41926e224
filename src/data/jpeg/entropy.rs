//! JPEG's entropy coding: bits out of a byte-stuffed segment, Huffman tables, and the coefficients of one 8x8 block in
//! each of the five kinds of scan. Called by [`super::scan`].

use super::super::decode::Damage;

/// Natural position of the k-th coefficient in zigzag order.
pub const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Coefficients of a block in natural (row-major) order, not yet multiplied by the quantisation table.
pub type Block = [i16; 64];

const DAMAGED: Damage = Damage::Damaged("its compressed data make no sense");

/// Bits of an entropy-coded segment, most significant first. Ends at the first marker.
pub struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    /// Bits from byte `at` on.
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Bits { bytes, at, held: 0, count: 0 }
    }

    /// Position of the first byte not taken, a marker's once all data before it are.
    pub fn position(&self) -> usize {
        self.at
    }

    fn byte(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if byte != 0xff {
                self.at += 1;
                return Some(byte);
            }
            match self.bytes.get(self.at + 1)? {
                0 => {
                    self.at += 2;
                    return Some(0xff);
                }
                0xff => self.at += 1, // fill
                _ => return None,
            }
        }
    }

    fn fill(&mut self) {
        while self.count <= 56 {
            let Some(byte) = self.byte() else { return };
            self.held = (self.held << 8) | u64::from(byte);
            self.count += 8;
        }
    }

    /// The next 16 bits without taking them; zeros behind the end.
    fn peek16(&mut self) -> u32 {
        if self.count < 16 {
            self.fill();
        }
        let wide = if self.count >= 16 { self.held >> (self.count - 16) } else { self.held << (16 - self.count) };
        (wide & 0xffff) as u32
    }

    fn take(&mut self, bits: u32) -> Result<(), Damage> {
        match self.count.checked_sub(bits) {
            Some(left) => {
                self.count = left;
                Ok(())
            }
            None => Err(Damage::CutShort),
        }
    }

    /// The next `bits` (at most 16) as a number.
    fn get(&mut self, bits: u32) -> Result<i32, Damage> {
        let value = self.peek16() >> (16 - bits.min(16));
        self.take(bits)?;
        Ok(value as i32)
    }

    /// A number of `size` bits (at most 15) with JPEG's sign rule: a leading 0 means negative.
    fn signed(&mut self, size: u32) -> Result<i32, Damage> {
        if size == 0 {
            return Ok(0);
        }
        let value = self.get(size)?;
        Ok(if value < 1 << (size - 1) { value - (1 << size) + 1 } else { value })
    }

    /// Leaves the bits before a restart marker and steps over it; `number` is the one that must come.
    pub fn restart(&mut self, number: u8) -> Result<(), Damage> {
        (self.held, self.count) = (0, 0);
        self.at = marker_after(self.bytes, self.at).ok_or(Damage::CutShort)?;
        if self.bytes.get(self.at + 1) != Some(&(0xd0 + number)) {
            return Err(Damage::Damaged("a restart marker is missing or out of order"));
        }
        self.at += 2;
        Ok(())
    }
}

/// Position of the next marker's 0xff at or after `at`; bytes in between, which some cameras write, are passed over.
pub fn marker_after(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += bytes.get(at..)?.iter().position(|&b| b == 0xff)?;
        match bytes.get(at + 1)? {
            0 => at += 2,
            0xff => at += 1,
            _ => return Some(at),
        }
    }
}

/// Bits that one look-up decides; nearly all codes are that short.
const LOOKUP_BITS: u32 = 9;

/// A Huffman table.
#[derive(Clone)]
pub struct Huffman {
    /// For each 9-bit start: length and symbol, length 0 where the code is longer.
    lookup: Vec<(u8, u8)>,
    /// For lengths 1 to 16: one more than the largest code, aligned to 16 bits; 0 where there is none.
    end: [u32; 17],
    /// For each length: what turns a code into a position in `symbols`.
    offset: [i32; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    /// From the number of codes of each length and their symbols in order.
    pub fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Huffman, Damage> {
        let wrong = Damage::Damaged("a Huffman table makes no sense");
        let mut table = Huffman {
            lookup: vec![(0, 0); 1 << LOOKUP_BITS],
            end: [0; 17],
            offset: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut first) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = u32::from(counts[length as usize - 1]);
            if code + count > 1 << length || first + count as usize > symbols.len() {
                return Err(wrong);
            }
            table.offset[length as usize] = first as i32 - code as i32;
            for i in 0..count {
                if length <= LOOKUP_BITS {
                    let start = ((code + i) << (LOOKUP_BITS - length)) as usize;
                    let symbol = symbols[first + i as usize];
                    table.lookup[start..start + (1 << (LOOKUP_BITS - length))].fill((length as u8, symbol));
                }
            }
            code += count;
            first += count as usize;
            if count > 0 {
                table.end[length as usize] = code << (16 - length);
            }
            code <<= 1;
        }
        Ok(table)
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Result<u32, Damage> {
        let peeked = bits.peek16();
        let (length, symbol) = self.lookup[(peeked >> (16 - LOOKUP_BITS)) as usize];
        if length > 0 {
            bits.take(u32::from(length))?;
            return Ok(u32::from(symbol));
        }
        for length in LOOKUP_BITS + 1..=16 {
            if peeked < self.end[length as usize] {
                let index = (peeked >> (16 - length)) as i32 + self.offset[length as usize];
                let symbol = usize::try_from(index).ok().and_then(|i| self.symbols.get(i)).ok_or(DAMAGED)?;
                bits.take(length)?;
                return Ok(u32::from(*symbol));
            }
        }
        // zeros behind the end may be no code: then the end is the reason
        Err(if bits.count < 16 { Damage::CutShort } else { DAMAGED })
    }

    /// A DC difference.
    fn difference(&self, bits: &mut Bits<'_>) -> Result<i32, Damage> {
        match self.symbol(bits)? {
            size @ 0..=15 => bits.signed(size),
            _ => Err(DAMAGED),
        }
    }
}

/// A block of a sequential scan.
pub fn sequential(
    bits: &mut Bits<'_>,
    dc: &Huffman,
    ac: &Huffman,
    before: &mut i32,
    block: &mut Block,
) -> Result<(), Damage> {
    *before = before.wrapping_add(dc.difference(bits)?);
    block[0] = *before as i16;
    let mut k = 1;
    while k < 64 {
        let symbol = ac.symbol(bits)?;
        let (run, size) = (symbol >> 4, symbol & 15);
        if size == 0 {
            if run != 15 {
                return Ok(());
            }
            k += 16;
            continue;
        }
        k += run as usize;
        let place = *ZIGZAG.get(k).ok_or(DAMAGED)?;
        block[usize::from(place)] = bits.signed(size)? as i16;
        k += 1;
    }
    Ok(())
}

/// The part of a progressive scan's parameters that its blocks need.
#[derive(Clone, Copy, Debug)]
pub struct Band {
    /// First coefficient, in zigzag order.
    pub start: usize,
    /// Last coefficient.
    pub end: usize,
    /// Lowest bit of this scan.
    pub low: u32,
}

/// First scan of DC.
pub fn dc_first(
    bits: &mut Bits<'_>,
    dc: &Huffman,
    band: Band,
    before: &mut i32,
    block: &mut Block,
) -> Result<(), Damage> {
    *before = before.wrapping_add(dc.difference(bits)?);
    block[0] = before.wrapping_shl(band.low) as i16;
    Ok(())
}

/// One more bit of DC.
pub fn dc_refine(bits: &mut Bits<'_>, band: Band, block: &mut Block) -> Result<(), Damage> {
    if bits.get(1)? == 1 {
        block[0] |= 1i16.wrapping_shl(band.low);
    }
    Ok(())
}

/// Reads how many blocks, this one included, end here.
fn end_of_band(bits: &mut Bits<'_>, run: u32) -> Result<u32, Damage> {
    Ok((1 << run) + bits.get(run)? as u32)
}

/// First scan of a band of AC; `skip` counts blocks that still have nothing in it.
pub fn ac_first(
    bits: &mut Bits<'_>,
    ac: &Huffman,
    band: Band,
    skip: &mut u32,
    block: &mut Block,
) -> Result<(), Damage> {
    if *skip > 0 {
        *skip -= 1;
        return Ok(());
    }
    let mut k = band.start;
    while k <= band.end {
        let symbol = ac.symbol(bits)?;
        let (run, size) = (symbol >> 4, symbol & 15);
        if size == 0 {
            if run != 15 {
                *skip = end_of_band(bits, run)? - 1;
                return Ok(());
            }
            k += 16;
            continue;
        }
        k += run as usize;
        let place = *ZIGZAG.get(k).ok_or(DAMAGED)?;
        block[usize::from(place)] = bits.signed(size)?.wrapping_shl(band.low) as i16;
        k += 1;
    }
    Ok(())
}

/// One more bit of a band of AC: of every coefficient that is not zero, and new ones of size 1.
pub fn ac_refine(
    bits: &mut Bits<'_>,
    ac: &Huffman,
    band: Band,
    skip: &mut u32,
    block: &mut Block,
) -> Result<(), Damage> {
    let one = 1i16.wrapping_shl(band.low);
    let refine = |bits: &mut Bits<'_>, value: &mut i16| -> Result<(), Damage> {
        if bits.get(1)? == 1 && *value & one == 0 {
            *value = value.wrapping_add(if *value >= 0 { one } else { one.wrapping_neg() });
        }
        Ok(())
    };
    let mut k = band.start;
    if *skip == 0 {
        while k <= band.end {
            let symbol = ac.symbol(bits)?;
            let (mut run, size) = (symbol >> 4, symbol & 15);
            let new = match size {
                0 if run != 15 => {
                    *skip = end_of_band(bits, run)?;
                    break;
                }
                0 => 0,
                // any other size is damage that libjpeg, too, reads as 1
                _ if bits.get(1)? == 1 => one,
                _ => one.wrapping_neg(),
            };
            while k <= band.end {
                let value = &mut block[usize::from(ZIGZAG[k])];
                if *value != 0 {
                    refine(bits, value)?;
                } else if run == 0 {
                    *value = new;
                    k += 1;
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
        }
    }
    if *skip > 0 {
        while k <= band.end {
            let value = &mut block[usize::from(ZIGZAG[k])];
            if *value != 0 {
                refine(bits, value)?;
            }
            k += 1;
        }
        *skip -= 1;
    }
    Ok(())
}
