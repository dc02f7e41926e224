//! `mma` (PTX ISA 9.7.14.5.14) and `wmma.mma` (9.7.14.4.5).
//!
//! The ISA leaves the order of accumulation, its rounding and subnormal inputs unspecified for f16, bf16, tf32 and the
//! 8-bit formats, and asks for single precision at least. Here: every product is exact, they are added to C in f32 one
//! after the other in ascending k (a fused multiply-add each), subnormal numbers are kept, f16 results are rounded once at
//! the end, NaN results are canonical. tf32 operands lose their lower 13 bits, f64 is a chain of fused multiply-adds in
//! ascending k, integers are summed exactly and then wrap or saturate.

use std::mem::MaybeUninit;

use super::element::{Element, e4m3_to_f32, e5m2_to_f32, f16_to_f32, f32_to_f16};
use super::layout::{Fragment, Matrix, Shape, multiplicand, only_wmma};
use super::{quad, refused, registers, shape};
use crate::lanes::{Class, Form, Lane, Run, Sync, Unit, Unsupported, input, output, pick};
use crate::ptx::ast::{Instruction, Type};

/// Elements of A or B, of which a register holds a tile.
///
/// Tiles are unpacked in whatever order needs no moves between lanes. With `g = lane / 4`, `t = lane % 4` and element `j`
/// of a register: one of A lies as `[j][lane]`, one of B as `[t * PACKED + j][column(g)]`. A row of C is in the order of
/// [`column`] as well: first the even elements, which are in one register, then the odd ones.
trait Multiplicand {
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
        struct $name;
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
                for (k, row) in tile.iter_mut().enumerate() {
                    let $j = k % $packed;
                    for n in 0..8 {
                        let $word = words[k / $packed][n];
                        row[n] = $decode;
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
type Tile<S> = [[S; 8]; 8];

/// Elements of C or D.
trait Accumulator {
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
struct F32;
struct S32;
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
            words[l] = f32_to_f16(even[l]) as u32 | (f32_to_f16(odd[l]) as u32) << 16;
        }
        unsafe { u32::write(file, slots[0], &words, mask) };
    }
}

/// What is multiplied, and how the products are summed. `variant` is `.satfinite` of integers and `.and` of bits.
trait Factor: Copy + Default {
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

/// Most registers that a multiplicand has, and most tiles that an accumulator has.
const MOST: (usize, usize) = (8, 4);

type Sum<X> = <<X as Multiplicand>::Value as Factor>::Sum;

/// `variants` are those of A, of B and of the sum.
#[inline(always)]
unsafe fn multiply<X, C, D, const WIDE: bool>(
    file: *mut Unit,
    operands: &[u16],
    mask: u32,
    shape: Shape,
    variants: [bool; 3],
) where
    X: Multiplicand,
    C: Accumulator<Value = Sum<X>>,
    D: Accumulator<Value = Sum<X>>,
{
    let [m, n, k] = shape;
    let [a_variant, b_variant, sum_variant] = variants;
    let (rows, columns, depth) = (m / 8, n / 8, k / (4 * X::PACKED));
    let tiles = rows * columns;
    let (a_registers, _) = multiplicand(shape, m * k, X::PACKED, X::F16);
    let (b_registers, b_distinct) = multiplicand(shape, k * n, X::PACKED, X::F16);
    let (d_slots, rest) = operands.split_at(tiles * D::REGISTERS);
    let (a_slots, rest) = rest.split_at(a_registers);
    let (b_slots, c_slots) = rest.split_at(b_registers);

    let mut b_tiles = [const { MaybeUninit::<X::B>::uninit() }; MOST.0];
    for (tile, &slot) in b_tiles.iter_mut().zip(&b_slots[..b_distinct]) {
        tile.write(unsafe { X::b::<WIDE>(file, slot, b_variant) });
    }
    // D may be in the registers of the others: it is written when everything is read.
    let mut d_tiles = [const { MaybeUninit::<Tile<Sum<X>>>::uninit() }; MOST.1];
    for column in 0..columns {
        for row in 0..rows {
            let at = column * rows + row;
            let c = unsafe { C::read(file, &c_slots[at * C::REGISTERS..][..C::REGISTERS]) };
            let mut sums = c;
            for g in 0..8 {
                for n in 0..8 {
                    sums[g][n] = X::Value::begin(c[g][n]);
                }
            }
            for block in 0..depth {
                let a = unsafe { X::a(file, a_slots[block * rows + row], a_variant) };
                // All tiles below `b_distinct = columns * depth` are written.
                let b = unsafe { b_tiles[column * depth + block].assume_init_ref() };
                X::Value::accumulate::<WIDE>(&mut sums, a.as_ref(), b.as_ref(), sum_variant);
            }
            for g in 0..8 {
                for n in 0..8 {
                    sums[g][n] = X::Value::end(sums[g][n], c[g][n], sum_variant);
                }
            }
            d_tiles[at].write(sums);
        }
    }
    for (at, d) in d_tiles[..tiles].iter().enumerate() {
        unsafe { D::write(file, &d_slots[at * D::REGISTERS..][..D::REGISTERS], d.assume_init_ref(), mask) };
    }
}

/// The function for a shape and variants.
fn run<X, C, D, const M: usize, const N: usize, const K: usize, const A: bool, const B: bool, const S: bool>() -> Run
where
    X: Multiplicand,
    C: Accumulator<Value = Sum<X>>,
    D: Accumulator<Value = Sum<X>>,
{
    let [wide, plain] = both::<X, C, D, M, N, K, A, B, S>();
    pick(wide, plain)
}

/// It for processors with AVX2 and for all.
fn both<X, C, D, const M: usize, const N: usize, const K: usize, const A: bool, const B: bool, const S: bool>()
-> [Run; 2]
where
    X: Multiplicand,
    C: Accumulator<Value = Sum<X>>,
    D: Accumulator<Value = Sum<X>>,
{
    // One copy of the body for all shapes and variants.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt"))]
    #[inline(never)]
    unsafe fn wide<X, C, D>(file: *mut Unit, operands: &[u16], mask: u32, shape: Shape, variants: [bool; 3])
    where
        X: Multiplicand,
        C: Accumulator<Value = Sum<X>>,
        D: Accumulator<Value = Sum<X>>,
    {
        unsafe { multiply::<X, C, D, true>(file, operands, mask, shape, variants) }
    }
    #[inline(never)]
    unsafe fn plain<X, C, D>(file: *mut Unit, operands: &[u16], mask: u32, shape: Shape, variants: [bool; 3])
    where
        X: Multiplicand,
        C: Accumulator<Value = Sum<X>>,
        D: Accumulator<Value = Sum<X>>,
    {
        unsafe { multiply::<X, C, D, false>(file, operands, mask, shape, variants) }
    }
    [
        |file, operands, mask| unsafe { wide::<X, C, D>(file, operands, mask, [M, N, K], [A, B, S]) },
        |file, operands, mask| unsafe { plain::<X, C, D>(file, operands, mask, [M, N, K], [A, B, S]) },
    ]
}

/// What an instruction multiplies: types in the order D, A, B, C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Multiplication {
    shape: Shape,
    types: [Element; 4],
    saturate: bool,
    and: bool,
}

impl Multiplication {
    /// The function of a multiplication that the ISA has.
    fn run(&self) -> Option<Run> {
        let [m, n, k] = self.shape;
        let of_sum = self.saturate || self.and;
        // Single bits are counted in words.
        let unit = if self.types[1] == Element::B1 { 32 } else { 1 };
        macro_rules! find {
            ($($d:ident $a:ident $b:ident $c:ident, $x:ident $va:literal $vb:literal $vs:literal:
                $($m:literal $n:literal $k:literal),+;)*) => {$(
                if self.types == [Element::$d, Element::$a, Element::$b, Element::$c] && of_sum == $vs {
                    return match [m, n, k] {
                        $([$m, $n, k] if k == $k * unit => Some(run::<$x, $c, $d, $m, $n, $k, $va, $vb, $vs>()),)+
                        _ => None,
                    };
                }
            )*};
        }
        macro_rules! integers {
            ($($a:ident $b:ident, $x:ident $va:literal $vb:literal: $($m:literal $n:literal $k:literal),+;)*) => {$(
                find! {
                    S32 $a $b S32, $x $va $vb false: $($m $n $k),+;
                    S32 $a $b S32, $x $va $vb true: $($m $n $k),+;
                }
            )*};
        }
        macro_rules! bytes {
            ($($a:ident $b:ident, $va:literal $vb:literal;)*) => {$(
                find! {
                    F32 $a $b F32, Fp8 $va $vb false: 16 8 16, 16 8 32;
                    F16 $a $b F16, Fp8 $va $vb false: 16 8 16, 16 8 32;
                }
            )*};
        }
        find! {
            F32 Tf32 Tf32 F32, Tf32 false false false: 16 8 4, 16 8 8, 16 16 8;
            F32 Bf16 Bf16 F32, Bf16 false false false: 16 8 8, 16 8 16, 16 16 16, 8 32 16, 32 8 16;
            F32 F16 F16 F32, F16 false false false: 16 8 8, 16 8 16, 16 16 16, 8 32 16, 32 8 16;
            F16 F16 F16 F16, F16 false false false: 16 8 8, 16 8 16, 16 16 16, 8 32 16, 32 8 16;
            F16 F16 F16 F32, F16 false false false: 16 16 16, 8 32 16, 32 8 16;
            F32 F16 F16 F16, F16 false false false: 16 16 16, 8 32 16, 32 8 16;
            F64 F64 F64 F64, F64 false false false: 8 8 4, 16 8 4, 16 8 8, 16 8 16;
            S32 B1 B1 S32, Bits false false false: 8 8 4, 16 8 4, 16 8 8;
            S32 B1 B1 S32, Bits false false true: 8 8 4, 16 8 4, 16 8 8;
        }
        bytes! {
            E4m3 E4m3, false false;
            E4m3 E5m2, false true;
            E5m2 E4m3, true false;
            E5m2 E5m2, true true;
        }
        integers! {
            S8 S8, Int8 true true: 8 8 16, 16 8 16, 16 8 32, 16 16 16, 8 32 16, 32 8 16;
            U8 U8, Int8 false false: 8 8 16, 16 8 16, 16 8 32, 16 16 16, 8 32 16, 32 8 16;
            S8 U8, Int8 true false: 8 8 16, 16 8 16, 16 8 32;
            U8 S8, Int8 false true: 8 8 16, 16 8 16, 16 8 32;
            S4 S4, Int4 true true: 8 8 32, 16 8 32, 16 8 64;
            U4 U4, Int4 false false: 8 8 32, 16 8 32, 16 8 64;
            S4 U4, Int4 true false: 8 8 32, 16 8 32, 16 8 64;
            U4 S4, Int4 false true: 8 8 32, 16 8 32, 16 8 64;
        }
        None
    }

    /// Registers of D, A, B and C.
    fn registers(&self) -> [usize; 4] {
        let [d, a, b, c] = self.types;
        let fragment = |element, matrix| Fragment::new(self.shape, element, matrix).registers;
        [
            fragment(d, Matrix::Accumulator),
            fragment(a, Matrix::A),
            fragment(b, Matrix::B),
            fragment(c, Matrix::Accumulator),
        ]
    }
}

/// As which type a register of elements is read.
pub(super) fn register_type(element: Element) -> Type {
    match element {
        Element::F32 => Type::F32,
        Element::F64 => Type::F64,
        Element::S32 => Type::S32,
        _ => Type::B32,
    }
}

/// The form of a multiplication, if the instruction's operands have as many registers as it wants.
pub(super) fn form(
    i: &Instruction,
    run: Run,
    types: [Element; 4],
    counts: [usize; 4],
    fma: u32,
) -> Result<Form, Unsupported> {
    if i.operands.len() != 4 {
        return Err(Unsupported(format!("{} with {} operands", i.form(), i.operands.len())));
    }
    let mut slots = Vec::new();
    for (at, (&element, count)) in types.iter().zip(counts).enumerate() {
        let given = registers(i.operands.get(at));
        if given != count {
            let name = ["d", "a", "b", "c"][at];
            return Err(Unsupported(format!("{} with {given} registers for {name} in place of {count}", i.form())));
        }
        let slot = if at == 0 { output(register_type(element)) } else { input(register_type(element)) };
        slots.extend(std::iter::repeat_n(slot, count));
    }
    Ok(Form { run, slots, class: Class::Tensor, fma, sync: Sync::Warp })
}

/// What the modifiers say, whatever their order.
struct Modifiers {
    shape: Shape,
    types: Vec<Element>,
    /// `.row` or `.col` of A and B, as `true` for rows.
    rows: Vec<bool>,
    saturate: bool,
    /// `.xor` or `.and`
    and: Option<bool>,
}

impl Modifiers {
    fn read(i: &Instruction, modifiers: &[String]) -> Option<Modifiers> {
        let mut found = Modifiers { shape: [0; 3], types: Vec::new(), rows: Vec::new(), saturate: false, and: None };
        let (mut rounding, mut popc) = (false, false);
        for modifier in modifiers {
            match modifier.as_str() {
                "sync" | "aligned" => {}
                "row" | "col" => found.rows.push(modifier == "row"),
                "satfinite" => found.saturate = true,
                "xor" | "and" => found.and = Some(modifier == "and"),
                "popc" => popc = true,
                "rn" => rounding = true,
                other => match (Element::named(other), shape(other)) {
                    (Some(element), _) => found.types.push(element),
                    (_, Some(shape)) if found.shape == [0; 3] => found.shape = shape,
                    _ => return None,
                },
            }
        }
        let bits = found.types.contains(&Element::B1);
        let double = found.types.contains(&Element::F64);
        (bits == popc
            && bits == found.and.is_some()
            && !(bits && found.saturate)
            && (double || !rounding)
            && i.has("sync")
            && found.rows.len() == 2)
            .then_some(found)
    }

    fn multiplication(&self, types: [Element; 4]) -> Multiplication {
        Multiplication { shape: self.shape, types, saturate: self.saturate, and: self.and == Some(true) }
    }
}

/// `mma.sync`
pub(super) fn mma(i: &Instruction) -> Result<Form, Unsupported> {
    let refuse = || refused(i);
    let modifiers = Modifiers::read(i, &i.modifiers).ok_or_else(refuse)?;
    let types: [Element; 4] = modifiers.types.as_slice().try_into().map_err(|_| refuse())?;
    if modifiers.shape == [8, 8, 4] && types[1..3] == [Element::F16; 2] && !modifiers.saturate {
        let rows = [modifiers.rows[0], modifiers.rows[1]];
        return quad::form(i, types, rows);
    }
    let multiplication = modifiers.multiplication(types);
    if modifiers.rows != [true, false] || only_wmma(modifiers.shape) {
        return Err(refuse());
    }
    let run = multiplication.run().ok_or_else(refuse)?;
    form(i, run, types, multiplication.registers(), modifiers.shape.iter().product::<usize>() as u32)
}

/// `wmma.mma`
pub(super) fn wmma(i: &Instruction) -> Result<Form, Unsupported> {
    let refuse = || refused(i);
    let modifiers = Modifiers::read(i, i.modifiers.get(1..).unwrap_or_default()).ok_or_else(refuse)?;
    let types = match modifiers.types[..] {
        [d, c] => [d, Element::F16, Element::F16, c],
        [d, a, b, c] if a == b && a != Element::F16 => [d, a, b, c],
        _ => return Err(refuse()),
    };
    let whole_words = matches!(types[1], Element::S4 | Element::U4 | Element::B1);
    if whole_words && modifiers.rows != [true, false] || !wmma_has(modifiers.shape, types[1]) {
        return Err(refuse());
    }
    let multiplication = modifiers.multiplication(types);
    let run = multiplication.run().ok_or_else(refuse)?;
    form(i, run, types, multiplication.registers(), modifiers.shape.iter().product::<usize>() as u32)
}

/// Whether `wmma` has the shape for multiplicands of a type.
pub(super) fn wmma_has(shape: Shape, element: Element) -> bool {
    use Element::*;
    match shape {
        [16, 16, 16] | [8, 32, 16] | [32, 8, 16] => matches!(element, F16 | Bf16 | S8 | U8),
        [16, 16, 8] => element == Tf32,
        [8, 8, 4] => element == F64,
        [8, 8, 32] => matches!(element, S4 | U4),
        [8, 8, 128] => element == B1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random bits, among them NaN, infinities and subnormal numbers of all formats.
    fn file(units: usize, seed: u64) -> Vec<Unit> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 32) as u32
        };
        let special = [0x7f80_0000, 0xff80_7c00, 0x7fc0_0001, 0x0001_8001, 0x0000_2000, 0x8000_0000, 0x7bff_7bff];
        let mut file = vec![Unit([0; 32]); units];
        for word in file.iter_mut().flat_map(|unit| &mut unit.0) {
            // Mostly numbers whose products and sums stay finite.
            *word = match next() {
                r if r % 64 == 0 => special[(next() % 7) as usize],
                r => next() & 0x83ff_83ff | 0x3c00_3800 ^ (r & 0x0400_0400),
            };
        }
        file
    }

    fn same<X, C, D, const M: usize, const N: usize, const K: usize>(slots: usize)
    where
        X: Multiplicand,
        C: Accumulator<Value = Sum<X>>,
        D: Accumulator<Value = Sum<X>>,
    {
        let [wide, plain] = both::<X, C, D, M, N, K, true, false, false>();
        let operands: Vec<u16> = (0..slots as u16).map(|slot| slot * 2).collect();
        for seed in 0..50 {
            let (mut x, mut y) = (file(2 * slots, seed), file(2 * slots, seed));
            let mask = if seed % 2 == 0 { u32::MAX } else { 0x1234_5678 };
            unsafe {
                wide(x.as_mut_ptr(), &operands, mask);
                plain(y.as_mut_ptr(), &operands, mask);
            }
            assert!(x.iter().zip(&y).all(|(x, y)| x.0 == y.0), "{M}x{N}x{K}, seed {seed}");
        }
    }

    #[test]
    fn both_variants_have_the_same_bits() {
        if !crate::lanes::wide() {
            return;
        }
        same::<Tf32, F32, F32, 16, 8, 8>(14);
        same::<F16, F32, F32, 16, 8, 16>(14);
        same::<F16, F16, F16, 16, 8, 16>(10);
        same::<F16, F32, F16, 32, 8, 16>(28);
        same::<Bf16, F32, F32, 16, 8, 16>(14);
        same::<Fp8, F32, F32, 16, 8, 32>(14);
        same::<F64, F64, F64, 16, 8, 16>(20);
        same::<Int8, S32, S32, 16, 16, 16>(20);
        same::<Int4, S32, S32, 16, 8, 64>(14);
        same::<Bits, S32, S32, 16, 8, 8>(14);
    }
}
