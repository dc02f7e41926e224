//! What this machine can do at most, measured: fused multiply-adds and copying, on the threads of rayon's current pool.
//!
//! Beside these a kernel's rate says something: on a shared machine, or one that lowers its clock, published figures do not.

use std::hint::black_box;
use std::time::Instant;

use super::isa::{Isa, Level};
use rayon::prelude::*;

/// Independent chains of multiply-adds, counted in vectors of 16: twelve registers, twice.
const CHAINS: usize = 24;
const STEPS: usize = 40_000;
/// Rounds of a third of a millisecond.
const ROUNDS: usize = 60;

/// Floats of each of two buffers: 128 MB, beyond most caches.
const FLOATS: usize = 32 << 20;
const COPIES: usize = 6;
/// Floats that a thread copies at once: 1 MB, by the ordinary stores that kernels write with.
const CHUNK: usize = 256 << 10;

/// The ceilings of a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Floating-point operations a second, in fused multiply-adds.
    pub flops: f64,
    /// Bytes a second, read and written, from memory to memory. What lies in a cache is faster.
    pub bandwidth: f64,
}

impl Peak {
    /// Best of repeats, some tenths of a second in all: the minimum time is what other processes disturb least. Where there is no memory for the
    /// buffers, the bandwidth is not known (NaN).
    pub fn measure(isa: Isa) -> Peak {
        let flops = (0..ROUNDS).map(|_| fma_rate(isa)).fold(0.0, f64::max);
        Peak { flops, bandwidth: bandwidth() }
    }
}

/// Floating-point operations a second of one round of multiply-adds on every thread.
pub fn fma_rate(isa: Isa) -> f64 {
    let start = Instant::now();
    let done: f64 = rayon::broadcast(|_| chains(isa)).iter().sum();
    done / start.elapsed().as_secs_f64()
}

fn bandwidth() -> f64 {
    let (mut from, mut to) = (Vec::new(), Vec::new());
    if from.try_reserve_exact(FLOATS).and_then(|()| to.try_reserve_exact(FLOATS)).is_err() {
        return f64::NAN;
    }
    // written, or all its pages would be the one page of zeros
    from.resize(FLOATS, 1.0f32);
    to.resize(FLOATS, 2.0f32);
    let copy = |_| {
        let start = Instant::now();
        to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&mut to);
        (2 * size_of::<f32>() * FLOATS) as f64 / start.elapsed().as_secs_f64()
    };
    (0..COPIES).map(copy).fold(0.0, f64::max)
}

/// `STEPS` rounds of FMAs on independent registers, in assembly: the compiler's own allocation of 24 chains spilled and
/// showed half the peak. Twelve chains per ymm/zmm set exceed latency 4 x 2 ports.
#[cfg(target_arch = "x86_64")]
macro_rules! chains {
    ($kind:literal, $rounds:expr, $($n:literal)*) => {
        // SAFETY: register arithmetic only, every register declared; the caller checked the instruction set.
        unsafe {
            std::arch::asm!(
                "2:",
                $(concat!("vfmadd231ps ", $kind, $n, ", ", $kind, "14, ", $kind, "15"),)*
                "dec {rounds}",
                "jnz 2b",
                rounds = inout(reg) $rounds => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                inout("xmm14") 0.999f32 => _, inout("xmm15") 0.001f32 => _,
                options(nomem, nostack),
            )
        }
    };
}

/// Runs independent FMA chains on one thread; returns the floating point operations done.
fn chains(isa: Isa) -> f64 {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => chains!("zmm", 2 * STEPS, "0" "1" "2" "3" "4" "5" "6" "7" "8" "9" "10" "11"),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => chains!("ymm", 4 * STEPS, "0" "1" "2" "3" "4" "5" "6" "7" "8" "9" "10" "11"),
        _ => {
            let (mut acc, x, y) = ([1.0f32; 32], black_box(0.999f32), black_box(0.001f32));
            for _ in 0..12 * STEPS {
                acc.iter_mut().for_each(|a| *a = *a * x + y);
            }
            black_box(acc);
        }
    }
    2.0 * (CHAINS * STEPS * 16) as f64
}
