//! Scalar arithmetic as the PTX ISA defines it: rounding modes, formats, approximations. No lanes, no registers.
//!
//! Everything here gives the same bits on every machine: the native operations that are used are those which IEEE 754
//! fixes to the last bit (`+ - * /`, square root, fused multiply-add to nearest), and the rest is integer arithmetic.

pub mod approx;
pub mod exact;
pub mod format;
pub mod integer;
pub mod native;
pub mod small;

#[cfg(test)]
pub(crate) mod reference;

/// A rounding mode of a floating-point result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Round {
    /// `.rn`: to nearest, ties to even.
    Nearest,
    /// `.rna`: to nearest, ties away from zero.
    Away,
    /// `.rz`
    Zero,
    /// `.rm`: towards negative infinity.
    Down,
    /// `.rp`: towards positive infinity.
    Up,
}
