//! `mma` (PTX ISA 9.7.14.5.14) and `wmma.mma` (9.7.14.4.5).
//!
//! The ISA leaves the order of accumulation, its rounding and subnormal inputs unspecified for f16, bf16, tf32 and the
//! 8-bit formats, and asks for single precision at least. Here: every product is exact, they are added to C in f32 one
//! after the other in ascending k (a fused multiply-add each), subnormal numbers are kept, f16 results are rounded once at
//! the end, NaN results are canonical. tf32 operands lose their lower 13 bits, f64 is a chain of fused multiply-adds in
//! ascending k, integers are summed exactly and then wrap or saturate.

use std::mem::MaybeUninit;

use super::element::Element;
use super::layout::{Fragment, Matrix, Shape, multiplicand, only_wmma};
use super::tile::*;
use super::{quad, refused, registers, shape};
use crate::lanes::{Class, Form, Run, Sync, Unit, Unsupported, input, output, pick};
use crate::ptx::ast::{Instruction, Type};

/// Most registers that a multiplicand has, and most tiles that an accumulator has.
const MOST: (usize, usize) = (8, 4);

type Sum<X> = <<X as Multiplicand>::Value as Factor>::Sum;

/// `mma` for any shape: operands in the order D, A, B, C; `variants` are those of A, of B and of the sum.
///
/// # Safety
/// As for [`Run`], for a form made by [`form`].
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
