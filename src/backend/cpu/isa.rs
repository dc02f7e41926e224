//! Which instruction set the kernels use, chosen at run time, and the wrapper that compiles a loop once for each.
//!
//! An [`Isa`] can only be made on a CPU that has the instructions: holding one is the proof that every later
//! `unsafe` call into a `#[target_feature]` function rests on. Called by every kernel of this folder.

/// `compiled!(isa, body)` runs `body` compiled with that instruction set: loops inlined into it are vectorised for it.
/// The attribute is why this is a macro: the compiler leaves a long closure a call, compiled for the baseline.
macro_rules! compiled {
    ($isa:expr, $body:expr) => {
        $isa.run(
            #[inline(always)]
            || $body,
        )
    };
}
pub(super) use compiled;

/// The instruction sets with kernels of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// 16 lanes, 32 registers: tiles of 14 pixels x 32 channels.
    Avx512,
    /// 8 lanes, 16 registers: tiles of 6 pixels x 16 channels.
    Avx2,
    /// Arrays of 8 floats, left to the compiler's own vectoriser: tiles of 4 pixels x 16 channels.
    Portable,
}

/// An instruction set this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Level);

impl Isa {
    /// The widest instruction set of this CPU.
    pub fn detect() -> Isa {
        [Level::Avx512, Level::Avx2].into_iter().find_map(Isa::new).unwrap_or(Isa(Level::Portable))
    }

    /// `level`, if this CPU has it: how tests run all kernels on one machine.
    pub fn new(level: Level) -> Option<Isa> {
        #[cfg(target_arch = "x86_64")]
        let has = match level {
            // dq, vl and bw only serve the vectoriser of the pointwise loops; no CPU since 2017 has f without them.
            Level::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
            }
            Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Level::Portable => true,
        };
        #[cfg(not(target_arch = "x86_64"))]
        let has = level == Level::Portable;
        has.then_some(Isa(level))
    }

    /// Every instruction set of this CPU, the widest first.
    pub fn available() -> Vec<Isa> {
        [Level::Avx512, Level::Avx2, Level::Portable].into_iter().filter_map(Isa::new).collect()
    }

    /// `avx512`, `avx2` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Avx512 => "avx512",
            Level::Avx2 => "avx2",
            Level::Portable => "portable",
        }
    }

    /// What was detected.
    pub fn level(self) -> Level {
        self.0
    }

    /// Floats in a vector.
    pub(super) fn lanes(self) -> usize {
        match self.0 {
            Level::Avx512 => 16,
            Level::Avx2 | Level::Portable => 8,
        }
    }

    /// Output channels of a register tile, and of a block of packed weights.
    pub(super) fn block(self) -> usize {
        2 * self.lanes()
    }

    /// The most pixels (or, in a weight gradient, input channels) of a register tile: with two vectors of outputs
    /// 28 of 32 zmm or 12 of 16 ymm registers accumulate, and the weights and one broadcast take 3 more.
    pub(super) fn pixels(self) -> usize {
        match self.0 {
            Level::Avx512 => 14,
            Level::Avx2 => 6,
            Level::Portable => 4,
        }
    }

    /// The most outputs of a dot kernel, by 4 rows, and rows of a turned one, by 4 vectors.
    pub(super) fn dots(self) -> usize {
        match self.0 {
            Level::Avx512 => 6,
            Level::Avx2 => 3,
            Level::Portable => 2,
        }
    }

    /// For [`compiled`] only.
    #[inline(always)]
    pub(super) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an Isa of this level exists only where `new` found every feature named at `avx512`.
            Level::Avx512 => unsafe { avx512(f) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, for `avx2`.
            Level::Avx2 => unsafe { avx2(f) },
            _ => f(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
fn avx512<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<R>(f: impl FnOnce() -> R) -> R {
    f()
}
