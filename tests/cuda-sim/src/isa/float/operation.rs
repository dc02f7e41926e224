//! Instructions as types: what one lane computes, generic in rounding and modifiers, and the loop over the lanes.
//!
//! The macro `lanes!` wants a name for each function; the variants here are too many for that.

use crate::lanes::{Lane, Run, Unit, Unsupported, pick};
use crate::num::Round;
use crate::ptx::ast::{Instruction, Type};

/// What one lane computes: `N` operands of one type to a result. Implementations are `#[inline(always)]`.
pub trait Operation<const N: usize>: 'static {
    /// The type as which the operands are read.
    type In: Lane + Default;
    /// The type as which the result is written.
    type Out: Lane + Default;
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

#[inline(always)]
unsafe fn body<O: Operation<N>, const N: usize>(file: *mut Unit, operands: &[u16], mask: u32) {
    let input = unsafe { read::<O::In, N>(file, operands) };
    let mut out = [O::Out::default(); 32];
    for l in 0..32 {
        out[l] = O::apply(lane(&input, l));
    }
    unsafe { O::Out::write(file, operands[0], &out, mask) };
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
