//! Tiles: what is in a register of a fragment over the warp, as values, and the product of two of them.

use super::element::{e4m3_to_f32, e5m2_to_f32, f16_to_f32, f32_to_f16};
use crate::lanes::{Lane, Unit};

/// Elements of A or B, of which a register holds a tile.
///
/// Tiles are unpacked in whatever order needs no moves between lanes. With `g = lane / 4`, `t = lane % 4` and element `j`
/// of a register: one of A lies as `[j][lane]`, one of B as `[t * PACKED + j][column(g)]`. A row of C is in the order of
/// [`column`] as well: first the even elements, which are in one register, then the odd ones.
pub trait Multiplicand {
    type Value: Factor;
    /// Elements in a register.
    const PACKED: usize;
    const F16: bool = false;
    /// `[[Value; 32]; PACKED]`
    type A: AsRef<[[Self::Value; 32]]>;
    /// `[[Value; 8]; 4 * PACKED]`
    type B: AsRef<[[Self::Value; 8]]>;

    /// A tile of A. `variant` tells formats apart that only differ in how they are decoded.
    /// # Safety
    /// As for [`Lane::read`].
    unsafe fn a(file: *const Unit, slot: u16, variant: bool) -> Self::A;
    /// A tile of B.
    /// # Safety
    /// As for [`Lane::read`].
    unsafe fn b<const WIDE: bool>(file: *const Unit, slot: u16, variant: bool) -> Self::B;
}

/// Where column `g` of a tile stands in a row of sums.
const fn column(g: usize) -> usize {
    g / 2 + g % 2 * 4
}

/// Lanes by `t`, then by the column of `g`.
#[inline(always)]
fn transposed<T: Copy + Default>(lanes: &[T; 32]) -> [[T; 8]; 4] {
    let mut rows = [[T::default(); 8]; 4];
    for g in 0..8 {
        for t in 0..4 {
            rows[t][column(g)] = lanes[g * 4 + t];
        }
    }
    rows
}

/// What a register is read as.
trait Word: Lane {
    /// See [`transposed`].
    fn transposed<const WIDE: bool>(lanes: &[Self; 32]) -> [[Self; 8]; 4];
}
impl Word for f64 {
    #[inline(always)]
    fn transposed<const WIDE: bool>(lanes: &[f64; 32]) -> [[f64; 8]; 4] {
        transposed(lanes)
    }
}
impl Word for u32 {
    #[inline(always)]
    fn transposed<const WIDE: bool>(lanes: &[u32; 32]) -> [[u32; 8]; 4] {
        #[cfg(target_arch = "x86_64")]
        if WIDE {
            // SAFETY: only instructions for processors with AVX2 are wide.
            return unsafe { avx2::transposed(lanes) };
        }
        transposed(lanes)
    }
}

/// What the compiler does not find by itself. The results are those of the portable code to the bit.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::Tile;
    use std::arch::x86_64::*;
    use std::mem::transmute;

    /// As [`super::transposed`]: a 4 x 4 transposition in both halves of the vectors.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn transposed(lanes: &[u32; 32]) -> [[u32; 8]; 4] {
        // SAFETY: plain bits on both sides.
        let [a, b, c, d] = unsafe { transmute::<[u32; 32], [__m256i; 4]>(*lanes) };
        let (x, y) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
        let (z, w) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
        let rows = [
            _mm256_unpacklo_epi64(x, y),
            _mm256_unpackhi_epi64(x, y),
            _mm256_unpacklo_epi64(z, w),
            _mm256_unpackhi_epi64(z, w),
        ];
        // SAFETY: as above.
        unsafe { transmute::<[__m256i; 4], [[u32; 8]; 4]>(rows) }
    }

    /// As [`super::accumulate`].
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn accumulate(sums: &mut Tile<f32>, a: &[[f32; 32]], b: &[[f32; 8]]) {
        // In memory an element is broadcast by a load alone; decoded in a register it would take two shuffles.
        let a = std::hint::black_box(a);
        // SAFETY: plain bits on both sides, here and below.
        let mut rows = unsafe { transmute::<Tile<f32>, [__m256; 8]>(*sums) };
        for (t, b) in b.chunks_exact(a.len()).enumerate() {
            for (a, b) in a.iter().zip(b) {
                let b = unsafe { transmute::<[f32; 8], __m256>(*b) };
                for g in 0..8 {
                    rows[g] = _mm256_fmadd_ps(_mm256_set1_ps(a[g * 4 + t]), b, rows[g]);
                }
            }
        }
        *sums = unsafe { transmute::<[__m256; 8], Tile<f32>>(rows) };
    }
}

macro_rules! multiplicands {
    ($($name:ident($raw:ty, $packed:literal) -> $value:ty:
        |$word:ident, $j:ident, $variant:ident| $decode:expr $(, f16 $f16:literal)?;)*) => {$(
        pub struct $name;
        impl Multiplicand for $name {
            type Value = $value;
            const PACKED: usize = $packed;
            $(const F16: bool = $f16;)?
            type A = [[$value; 32]; $packed];
            type B = [[$value; 8]; 4 * $packed];
            #[inline(always)]
            unsafe fn a(file: *const Unit, slot: u16, $variant: bool) -> Self::A {
                let words = unsafe { <$raw as Lane>::read(file, slot) };
                let mut tile = [[<$value>::default(); 32]; $packed];
                for ($j, plane) in tile.iter_mut().enumerate() {
                    for l in 0..32 {
                        let $word = words[l];
                        plane[l] = $decode;
                    }
                }
                tile
            }
            #[inline(always)]
            unsafe fn b<const WIDE: bool>(file: *const Unit, slot: u16, $variant: bool) -> Self::B {
                let words = <$raw as Word>::transposed::<WIDE>(&unsafe { <$raw as Lane>::read(file, slot) });
                let mut tile = [[<$value>::default(); 8]; 4 * $packed];
                for (rows, words) in tile.chunks_exact_mut($packed).zip(&words) {
                    for ($j, row) in rows.iter_mut().enumerate() {
                        for n in 0..8 {
                            let $word = words[n];
                            row[n] = $decode;
                        }
                    }
                }
                tile
            }
        }
    )*};
}
multiplicands! {
    Tf32(u32, 1) -> f32: |word, _j, _v| f32::from_bits(word & !0x1fff);
    F16(u32, 2) -> f32: |word, j, _v| f16_to_f32((word >> (16 * j)) as u16), f16 true;
    Bf16(u32, 2) -> f32: |word, j, _v| f32::from_bits(word >> (16 * j) << 16);
    Fp8(u32, 4) -> f32: |word, j, e5m2| {
        let byte = (word >> (8 * j)) as u8;
        if e5m2 { e5m2_to_f32(byte) } else { e4m3_to_f32(byte) }
    };
    F64(f64, 1) -> f64: |word, _j, _v| word;
    Int8(u32, 4) -> i32: |word, j, signed| {
        let byte = (word >> (8 * j)) as u8;
        if signed { byte as i8 as i32 } else { byte as i32 }
    };
    Int4(u32, 8) -> i32: |word, j, signed| {
        let nibble = word >> (4 * j) & 15;
        if signed { (nibble << 28) as i32 >> 28 } else { nibble as i32 }
    };
    // 32 elements of k at a time.
    Bits(u32, 1) -> u32: |word, _j, _v| word;
}

/// A tile of C or D: rows, each in the order of [`column`].
pub type Tile<S> = [[S; 8]; 8];

/// Elements of C or D.
pub trait Accumulator {
    type Value: Copy + Default;
    /// Registers of a tile.
    const REGISTERS: usize;

    /// # Safety
    /// As for [`Lane::read`].
    unsafe fn read(file: *const Unit, slots: &[u16]) -> Tile<Self::Value>;
    /// Writes the lanes of the mask.
    /// # Safety
    /// As for [`Lane::write`].
    unsafe fn write(file: *mut Unit, slots: &[u16], tile: &Tile<Self::Value>, mask: u32);
}

/// A tile from its even and odd columns.
#[inline(always)]
fn join<S: Copy + Default>(even: &[S; 32], odd: &[S; 32]) -> Tile<S> {
    let mut tile = [[S::default(); 8]; 8];
    for g in 0..8 {
        for t in 0..4 {
            tile[g][t] = even[g * 4 + t];
            tile[g][4 + t] = odd[g * 4 + t];
        }
    }
    tile
}

#[inline(always)]
fn split<S: Copy + Default>(tile: &Tile<S>) -> [[S; 32]; 2] {
    let mut halves = [[S::default(); 32]; 2];
    for g in 0..8 {
        for t in 0..4 {
            halves[0][g * 4 + t] = tile[g][t];
            halves[1][g * 4 + t] = tile[g][4 + t];
        }
    }
    halves
}

macro_rules! accumulators {
    ($($name:ident: $value:ty;)*) => {$(
        impl Accumulator for $name {
            type Value = $value;
            const REGISTERS: usize = 2;
            #[inline(always)]
            unsafe fn read(file: *const Unit, slots: &[u16]) -> Tile<$value> {
                unsafe { join(&<$value>::read(file, slots[0]), &<$value>::read(file, slots[1])) }
            }
            #[inline(always)]
            unsafe fn write(file: *mut Unit, slots: &[u16], tile: &Tile<$value>, mask: u32) {
                let [even, odd] = split(tile);
                unsafe {
                    <$value>::write(file, slots[0], &even, mask);
                    <$value>::write(file, slots[1], &odd, mask);
                }
            }
        }
    )*};
}
pub struct F32;
pub struct S32;
accumulators! { F32: f32; S32: i32; F64: f64; }

impl Accumulator for F16 {
    type Value = f32;
    const REGISTERS: usize = 1;
    #[inline(always)]
    unsafe fn read(file: *const Unit, slots: &[u16]) -> Tile<f32> {
        let [even, odd] = unsafe { F16::a(file, slots[0], false) };
        join(&even, &odd)
    }
    #[inline(always)]
    unsafe fn write(file: *mut Unit, slots: &[u16], tile: &Tile<f32>, mask: u32) {
        let [even, odd] = split(tile);
        let mut words = [0u32; 32];
        for l in 0..32 {
            words[l] = f32_to_f16(even[l]) | f32_to_f16(odd[l]) << 16;
        }
        unsafe { u32::write(file, slots[0], &words, mask) };
    }
}

/// What is multiplied, and how the products are summed. `variant` is `.satfinite` of integers and `.and` of bits.
pub trait Factor: Copy + Default {
    type Sum: Copy + Default;
    /// What the products are added to.
    fn begin(c: Self::Sum) -> Self::Sum;
    fn add(sum: Self::Sum, a: Self, b: Self, variant: bool) -> Self::Sum;
    /// The element of D.
    fn end(sum: Self::Sum, c: Self::Sum, variant: bool) -> Self::Sum;

    /// Adds the product of a tile of A and one of B.
    #[inline(always)]
    fn accumulate<const WIDE: bool>(sums: &mut Tile<Self::Sum>, a: &[[Self; 32]], b: &[[Self; 8]], variant: bool) {
        accumulate(sums, a, b, variant);
    }
}

/// Adds the product of a tile of A and one of B.
#[inline(always)]
fn accumulate<V: Factor>(sums: &mut Tile<V::Sum>, a: &[[V; 32]], b: &[[V; 8]], variant: bool) {
    // Row by row, so that a row of sums is one vector in a register.
    for (g, sums) in sums.iter_mut().enumerate() {
        let mut row = *sums;
        for (t, b) in b.chunks_exact(a.len()).enumerate() {
            for (a, b) in a.iter().zip(b) {
                for n in 0..8 {
                    row[n] = V::add(row[n], a[g * 4 + t], b[n], variant);
                }
            }
        }
        *sums = row;
    }
}

macro_rules! floats {
    ($($t:ty: $nan:expr $(, $wide:ident)?;)*) => {$(
        impl Factor for $t {
            type Sum = $t;
            #[inline(always)]
            fn begin(c: $t) -> $t {
                c
            }
            #[inline(always)]
            fn add(sum: $t, a: $t, b: $t, _: bool) -> $t {
                a.mul_add(b, sum)
            }
            #[inline(always)]
            fn end(sum: $t, _: $t, _: bool) -> $t {
                if sum.is_nan() { <$t>::from_bits($nan) } else { sum }
            }
            $(
                #[inline(always)]
                fn accumulate<const WIDE: bool>(sums: &mut Tile<$t>, a: &[[$t; 32]], b: &[[$t; 8]], variant: bool) {
                    #[cfg(target_arch = "x86_64")]
                    if WIDE {
                        // SAFETY: only instructions for processors with AVX2 and FMA are wide.
                        return unsafe { $wide::accumulate(sums, a, b) };
                    }
                    accumulate(sums, a, b, variant);
                }
            )?
        }
    )*};
}
floats! {
    f32: 0x7fff_ffff, avx2;
    // `CUDART_NAN`
    f64: 0xfff8_0000_0000_0000;
}

impl Factor for i32 {
    type Sum = i32;
    #[inline(always)]
    fn begin(_: i32) -> i32 {
        0
    }
    #[inline(always)]
    fn add(sum: i32, a: i32, b: i32, _: bool) -> i32 {
        sum.wrapping_add(a.wrapping_mul(b))
    }
    /// The products of one instruction cannot overflow a sum of their own, so C is added to it last.
    #[inline(always)]
    fn end(sum: i32, c: i32, saturate: bool) -> i32 {
        if saturate { c.saturating_add(sum) } else { c.wrapping_add(sum) }
    }
}

/// 32 elements of one bit.
impl Factor for u32 {
    type Sum = i32;
    #[inline(always)]
    fn begin(c: i32) -> i32 {
        c
    }
    #[inline(always)]
    fn add(sum: i32, a: u32, b: u32, and: bool) -> i32 {
        sum.wrapping_add((if and { a & b } else { a ^ b }).count_ones() as i32)
    }
    #[inline(always)]
    fn end(sum: i32, _: i32, _: bool) -> i32 {
        sum
    }
}
