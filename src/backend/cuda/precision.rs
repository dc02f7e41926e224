//! How precisely convolutions and linear layers multiply.

use super::library::unavailable;
use crate::backend::{BackendError, ConvPath};

/// What the operands of convolutions and linear layers are rounded to; sums, and everything else, stay in fp32.
///
/// Below fp32 they run on tensor cores, their gradients too, where the layer's shape fits those: inputs in whole quads of
/// channels, at least 16 outputs. The others, and interventions fused into a convolution, stay in fp32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Not rounded.
    #[default]
    Fp32,
    /// 11 bits, the range of fp32.
    Tf32,
    /// 11 bits, up to 65504. Gradients run as [`Precision::Tf32`]: the least ones would vanish.
    Fp16,
    /// 8 bits, the range of fp32.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 4] = [Precision::Fp32, Precision::Tf32, Precision::Fp16, Precision::Bf16];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Tf32 => "tf32",
            Precision::Fp16 => "fp16",
            Precision::Bf16 => "bf16",
        }
    }

    /// Whether a chip of compute capability `sm` / 10 has the tensor cores for it.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`].
    pub fn check(self, sm: u32) -> Result<(), BackendError> {
        if self == Precision::Fp32 || sm >= 80 {
            return Ok(());
        }
        Err(unavailable(
            format!("the device is of sm_{sm}, and {} needs the tensor cores of sm_80 or newer", self.name()),
            "use --precision fp32",
        ))
    }
}

/// How convolutions and linear layers are computed: one choice, for tensor cores and Winograd's tiles exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// By exact convolution, in that precision.
    In(Precision),
    /// In fp32, 3x3 layers forward by Winograd's tiles where they serve.
    Winograd,
}

impl Arithmetic {
    /// What operands are rounded to.
    pub fn precision(self) -> Precision {
        match self {
            Arithmetic::In(precision) => precision,
            Arithmetic::Winograd => Precision::Fp32,
        }
    }

    /// By which path 3x3 layers run forward.
    pub fn conv(self) -> ConvPath {
        match self {
            Arithmetic::In(_) => ConvPath::Exact,
            Arithmetic::Winograd => ConvPath::Winograd,
        }
    }
}

impl From<Precision> for Arithmetic {
    fn from(precision: Precision) -> Arithmetic {
        Arithmetic::In(precision)
    }
}
