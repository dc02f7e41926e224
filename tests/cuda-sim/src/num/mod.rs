//! Scalar arithmetic as the PTX ISA defines it: rounding modes, formats, approximations. No lanes, no registers.
