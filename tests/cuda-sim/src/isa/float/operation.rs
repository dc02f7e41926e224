//! Instructions as types: what one lane computes, generic in rounding and modifiers, and the loop over the lanes.
//!
//! The macro `lanes!` wants a name for each function; the variants here are too many for that.

use crate::lanes::{Lane, Run, Unit, Unsupported, pick};
use crate::num::Round;
use crate::ptx::ast::{Instruction, Type};

/// What one lane computes: `N` operands of one type to a result. Implementations are `#[inline(always)]`.
pub trait Operation<const N: usize>: 'static {
    /// The type as which the operands are read.
    type In: Raw;
    /// The type as which the result is written.
    type Out: Raw;
    /// From operands to result.
    fn apply(operands: [Self::In; N]) -> Self::Out;
}

/// All lanes of all operands. A loop, because closures are not inlined into the wide variant reliably.
#[inline(always)]
unsafe fn read<T: Lane + Default, const N: usize>(file: *const Unit, operands: &[u16]) -> [[T; 32]; N] {
    let mut all = [[T::default(); 32]; N];
    for n in 0..N {
        all[n] = unsafe { T::read(file, operands[n + 1]) };
    }
    all
}

/// The operands of one lane.
#[inline(always)]
fn lane<T: Lane + Default, const N: usize>(all: &[[T; 32]; N], l: usize) -> [T; N] {
    let mut one = [T::default(); N];
    for n in 0..N {
        one[n] = all[n][l];
    }
    one
}

/// A register type as its lane holds it.
pub trait Raw: Lane + Default + 'static {
    /// `u32`, or `u64` for 64 bits.
    type Bits: Copy + Default;
    /// From the lane.
    fn from_lane(bits: Self::Bits) -> Self;
    /// To the lane: zero-extended.
    fn to_lane(self) -> Self::Bits;
}

macro_rules! raw {
    ($($t:ty as $bits:ty: $from:expr, $to:expr;)*) => {$(
        impl Raw for $t {
            type Bits = $bits;
            #[inline(always)]
            fn from_lane(bits: $bits) -> $t {
                $from(bits)
            }
            #[inline(always)]
            fn to_lane(self) -> $bits {
                $to(self)
            }
        }
    )*};
}
raw! {
    u8 as u32: |x| x as u8, |x| x as u32;
    u16 as u32: |x| x as u16, |x| x as u32;
    u32 as u32: |x| x, |x| x;
    f32 as u32: f32::from_bits, f32::to_bits;
    u64 as u64: |x| x, |x| x;
    f64 as u64: f64::from_bits, f64::to_bits;
}

/// Lanes that are worked on together: few enough that all operands stay in vector registers.
const GROUP: usize = 8;

/// Group by group. A result may take the place of an operand, because registers are the same or do not overlap.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // one index for all registers
unsafe fn body<O: Operation<N>, const N: usize>(file: *mut Unit, operands: &[u16], mask: u32) {
    let mut from = [std::ptr::null::<<O::In as Raw>::Bits>(); N];
    for n in 0..N {
        from[n] = unsafe { file.add(operands[n + 1] as usize) } as *const _;
    }
    let to = unsafe { file.add(operands[0] as usize) } as *mut <O::Out as Raw>::Bits;
    for group in 0..32 / GROUP {
        let lanes = mask >> (group * GROUP) & ((1 << GROUP) - 1);
        if lanes == 0 {
            continue;
        }
        let mut input = [[<O::In as Raw>::Bits::default(); GROUP]; N];
        for n in 0..N {
            input[n] = unsafe { *(from[n].add(group * GROUP) as *const [_; GROUP]) };
        }
        let target = unsafe { &mut *(to.add(group * GROUP) as *mut [_; GROUP]) };
        let mut out = [<O::Out as Raw>::Bits::default(); GROUP];
        for l in 0..GROUP {
            let mut one = [O::In::default(); N];
            for n in 0..N {
                one[n] = O::In::from_lane(input[n][l]);
            }
            out[l] = O::apply(one).to_lane();
        }
        if lanes == (1 << GROUP) - 1 {
            *target = out;
        } else {
            // All lanes are stored, so that this is a blend and not a branch a lane.
            let before = *target;
            for l in 0..GROUP {
                out[l] = if lanes >> l & 1 != 0 { out[l] } else { before[l] };
            }
            *target = out;
        }
    }
}

/// The vectorised loop over all lanes, for branch-free operations.
pub fn vector<O: Operation<N>, const N: usize>() -> Run {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn wide<O: Operation<N>, const N: usize>(file: *mut Unit, operands: &[u16], mask: u32) {
        unsafe { body::<O, N>(file, operands, mask) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    use body as wide;
    unsafe fn plain<O: Operation<N>, const N: usize>(file: *mut Unit, operands: &[u16], mask: u32) {
        unsafe { body::<O, N>(file, operands, mask) }
    }
    pick(wide::<O, N>, plain::<O, N>)
}

/// The loop over the lanes of the mask one by one, for operations that call integer arithmetic and for rare ones: there are
/// many variants, and each is small.
pub fn scalar<O: Operation<N>, const N: usize>() -> Run {
    #[inline(never)]
    unsafe fn gather<T: Lane + Default, const N: usize>(file: *const Unit, operands: &[u16]) -> [[T; 32]; N] {
        unsafe { read(file, operands) }
    }
    #[inline(never)]
    unsafe fn write<T: Lane>(file: *mut Unit, slot: u16, value: &[T; 32], mask: u32) {
        unsafe { T::write(file, slot, value, mask) }
    }
    unsafe fn run<O: Operation<N>, const N: usize>(file: *mut Unit, operands: &[u16], mask: u32) {
        let input = unsafe { gather::<O::In, N>(file, operands) };
        let mut out = [O::Out::default(); 32];
        let mut left = mask;
        while left != 0 {
            let l = left.trailing_zeros() as usize;
            out[l] = O::apply(lane(&input, l));
            left &= left - 1;
        }
        unsafe { write(file, operands[0], &out, mask) };
    }
    run::<O, N>
}

/// A rounding mode as a type.
pub trait Rounding: 'static {
    /// It as a value.
    const MODE: Round;
}
macro_rules! roundings {
    ($($name:ident $mode:ident;)*) => {$(
        #[derive(Debug)]
        #[allow(missing_docs)]
        pub struct $name;
        impl Rounding for $name {
            const MODE: Round = Round::$mode;
        }
    )*};
}
roundings! {
    Rz Zero;
    Rm Down;
    Rp Up;
}

/// The modifiers of an instruction, crossed off one by one; one that nobody asked about makes the form unsupported.
pub struct Modifiers<'a> {
    form: String,
    left: Vec<&'a str>,
}

impl<'a> Modifiers<'a> {
    /// All of them.
    pub fn new(i: &'a Instruction) -> Modifiers<'a> {
        Modifiers { form: i.form(), left: i.modifiers.iter().map(String::as_str).collect() }
    }

    /// Whether it is there.
    pub fn take(&mut self, name: &str) -> bool {
        let at = self.left.iter().position(|&m| m == name);
        at.map(|at| self.left.remove(at)).is_some()
    }

    /// The first of the type names.
    pub fn take_type(&mut self) -> Option<Type> {
        let at = self.left.iter().position(|m| Type::named(m).is_some())?;
        Type::named(self.left.remove(at))
    }

    /// The value of the first of the names that is there.
    pub fn take_one<T: Copy>(&mut self, names: &[(&str, T)]) -> Option<T> {
        names.iter().find(|(name, _)| self.take(name)).map(|&(_, value)| value)
    }

    /// `.rn`, `.rz`, `.rm`, `.rp`
    pub fn take_round(&mut self) -> Option<Round> {
        self.take_one(&[("rn", Round::Nearest), ("rz", Round::Zero), ("rm", Round::Down), ("rp", Round::Up)])
    }

    /// That this form is not known.
    pub fn unsupported<T>(&self) -> Result<T, Unsupported> {
        Err(Unsupported(self.form.clone()))
    }

    /// Checks that none is left over.
    pub fn done(&self) -> Result<(), Unsupported> {
        if self.left.is_empty() { Ok(()) } else { self.unsupported() }
    }

    /// A rounding modifier where it has no default.
    pub fn need_round(&mut self) -> Result<Round, Unsupported> {
        match self.take_round() {
            Some(round) => Ok(round),
            None => self.unsupported(),
        }
    }
}
