//! What the tests over foreign kernels share: NVRTC, a device to launch on, random data and comparisons.
//!
//! A test describes its work once, as a closure over a [`Gpu`]; [`same`] does it in strict mode with one and with two host
//! threads and once without checks, and wants the same bytes every time. With `CUDA_SIM_TEST_DRIVER=1` the same tests go
//! through the `libcuda.so.1` that the loader finds instead, simulated or real: that is how the kernels and their
//! references are checked on hardware.
#![allow(dead_code)] // each test binary uses its part

pub mod driver;
pub mod gpu;
pub mod nvrtc;

#[allow(unused_imports)]
pub(crate) use gpu::args;
#[allow(unused_imports)]
pub use gpu::{Arg, Buffer, Gpu, Plain, same, same_results};
#[allow(unused_imports)]
pub use nvrtc::{compile, compile_source, compile_with};

/// A fixed sequence of random numbers (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    /// Uniform in [-1, 1), a multiple of 2^-23.
    pub fn unit(&mut self) -> f32 {
        ((self.bits() >> 40) as i64 - (1 << 23)) as f32 / (1 << 23) as f32
    }

    /// `count` times `unit`.
    pub fn units(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.unit()).collect()
    }

    /// `count` times 32 bits.
    pub fn words(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| (self.bits() >> 32) as u32).collect()
    }
}

/// `x` rounded to the nearest tf32, ties away from zero, as `cvt.rna.tf32.f32` does it (finite `x`).
pub fn tf32(x: f32) -> f32 {
    f32::from_bits(x.to_bits().wrapping_add(0x1000) & !0x1fff)
}

/// Fails unless every element is within its own tolerance of what is wanted.
#[track_caller]
pub fn close(what: &str, got: &[f32], want: impl Iterator<Item = (f64, f64)>) {
    let got: Vec<f64> = got.iter().map(|&x| x as f64).collect();
    close64(what, &got, want);
}

/// As `close`, for f64.
#[track_caller]
pub fn close64(what: &str, got: &[f64], want: impl Iterator<Item = (f64, f64)>) {
    let mut count = 0;
    for (i, (want, tolerance)) in want.enumerate() {
        count += 1;
        let got = *got.get(i).unwrap_or_else(|| panic!("{what}: only {i} elements"));
        let same = got == want || got.is_nan() && want.is_nan();
        assert!(
            same || (got - want).abs() <= tolerance,
            "{what}: element {i} is {got:e}, not {want:e} (off by {:e}, allowed {tolerance:e})",
            (got - want).abs()
        );
    }
    assert_eq!(count, got.len(), "{what}: number of elements");
}

/// Fails unless all elements are equal, and says which is not.
#[track_caller]
pub fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: &[T], want: &[T]) {
    assert_eq!(got.len(), want.len(), "{what}: number of elements");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(g == w, "{what}: element {i} is {g:?}, not {w:?}");
    }
}

/// The product of `a` (m x k) and `b` (k x n), row-major, and the sum of the absolute products: what rounding errors are
/// measured by.
pub fn product(a: &[f32], b: &[f32], [m, n, k]: [usize; 3]) -> (Vec<f64>, Vec<f64>) {
    let (mut sum, mut size) = (vec![0.0; m * n], vec![0.0; m * n]);
    for i in 0..m {
        for l in 0..k {
            let x = a[i * k + l] as f64;
            for j in 0..n {
                let p = x * b[l * n + j] as f64;
                sum[i * n + j] += p;
                size[i * n + j] += p.abs();
            }
        }
    }
    (sum, size)
}
