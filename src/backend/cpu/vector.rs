//! A vector register behind one trait, so that `tile.rs` writes each micro-kernel once for three instruction sets.
//!
//! All methods are `#[inline(always)]`: they must vanish into the `#[target_feature]` wrappers of `tile.rs`, the only
//! callers; anywhere else the intrinsics would become calls.

/// Floats in one register.
///
/// # Safety
/// Every method requires the implementor's instruction set; pointers must be valid for the lanes touched.
pub(super) trait Vector: Copy {
    const LANES: usize;
    unsafe fn zero() -> Self;
    /// `x` in every lane.
    unsafe fn of(x: f32) -> Self;
    /// `*p` in every lane.
    unsafe fn splat(p: *const f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// The first `n` lanes, the others zero; reads no further. `n` may exceed the lanes.
    unsafe fn load_first(p: *const f32, n: usize) -> Self;
    /// Writes the first `n` lanes only. `n` may exceed the lanes.
    unsafe fn store_first(self, p: *mut f32, n: usize);
    /// Asks for the cache line of `p`, which may be any address: it will be written.
    unsafe fn prefetch(p: *const f32);
    /// The same into the L2 cache: it will be read, but not at once.
    unsafe fn prefetch_far(p: *const f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// Whether a lane is not 0; NaN is not.
    unsafe fn any(self) -> bool;
    /// Whether a lane differs in a bit.
    unsafe fn differs(self, other: Self) -> bool;
    /// Their lanes by turns: the first halves, the second halves.
    unsafe fn zip(self, other: Self) -> [Self; 2];
    /// `self * b + c`, fused where the instruction set can.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    /// max(0, x); NaN stays NaN.
    unsafe fn relu(self) -> Self;
    /// The sum of all lanes, halves first.
    unsafe fn sum(self) -> f32;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Array8, Vector};
    use std::arch::x86_64::*;

    #[inline(always)]
    fn mask16(n: usize) -> __mmask16 {
        if n >= 16 { 0xffff } else { (1u16 << n).wrapping_sub(1) }
    }

    impl Vector for __m512 {
        const LANES: usize = 16;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the trait's contract, here and below.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn of(x: f32) -> Self {
            // SAFETY: see zero.
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: see zero.
            unsafe { _mm512_storeu_ps(p, self) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: see zero.
            unsafe { _mm512_sub_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see zero.
            unsafe { _mm512_mul_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn any(self) -> bool {
            // SAFETY: see zero.
            unsafe { _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(self, _mm512_setzero_ps()) != 0 }
        }
        #[inline(always)]
        unsafe fn differs(self, other: Self) -> bool {
            // SAFETY: see zero.
            unsafe { _mm512_cmpneq_epi32_mask(_mm512_castps_si512(self), _mm512_castps_si512(other)) != 0 }
        }
        #[inline(always)]
        unsafe fn zip(self, other: Self) -> [Self; 2] {
            // SAFETY: see zero.
            unsafe {
                let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
                let second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
                [first, second].map(|lanes| _mm512_permutex2var_ps(self, lanes, other))
            }
        }
        #[inline(always)]
        unsafe fn splat(p: *const f32) -> Self {
            // SAFETY: see zero.
            unsafe { _mm512_set1_ps(*p) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: see zero.
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn load_first(p: *const f32, n: usize) -> Self {
            // SAFETY: see zero; masked lanes are not read.
            unsafe { _mm512_maskz_loadu_ps(mask16(n), p) }
        }
        #[inline(always)]
        unsafe fn store_first(self, p: *mut f32, n: usize) {
            // SAFETY: see zero; masked lanes are not written.
            unsafe { _mm512_mask_storeu_ps(p, mask16(n), self) }
        }
        #[inline(always)]
        unsafe fn prefetch(p: *const f32) {
            // SAFETY: a prefetch of any address does nothing worse than nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn prefetch_far(p: *const f32) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see zero.
            unsafe { _mm512_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn fma(self, b: Self, c: Self) -> Self {
            // SAFETY: see zero.
            unsafe { _mm512_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: see zero.
            unsafe { _mm512_reduce_add_ps(self) }
        }
        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // SAFETY: see zero. vmaxps returns its second operand when either is NaN, hence the order.
            unsafe { _mm512_max_ps(_mm512_setzero_ps(), self) }
        }
    }

    /// Lanes `8 - n ..` of this table mask the first `n` lanes.
    static MASK8: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    #[inline(always)]
    unsafe fn mask8(n: usize) -> __m256i {
        // SAFETY: 8 - n lies in 0..=8, so eight entries follow; AVX2 by the trait's contract.
        unsafe { _mm256_loadu_si256(MASK8.as_ptr().add(8 - n.min(8)).cast()) }
    }

    impl Vector for __m256 {
        const LANES: usize = 8;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the trait's contract, here and below.
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn of(x: f32) -> Self {
            // SAFETY: see zero.
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: see zero.
            unsafe { _mm256_storeu_ps(p, self) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: see zero.
            unsafe { _mm256_sub_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see zero.
            unsafe { _mm256_mul_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn any(self) -> bool {
            // SAFETY: see zero.
            unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(self, _mm256_setzero_ps())) != 0 }
        }
        #[inline(always)]
        unsafe fn differs(self, other: Self) -> bool {
            // SAFETY: see zero.
            unsafe {
                let same = _mm256_cmpeq_epi32(_mm256_castps_si256(self), _mm256_castps_si256(other));
                _mm256_movemask_epi8(same) != -1
            }
        }
        #[inline(always)]
        unsafe fn zip(self, other: Self) -> [Self; 2] {
            // SAFETY: see zero.
            unsafe {
                let (low, high) = (_mm256_unpacklo_ps(self, other), _mm256_unpackhi_ps(self, other));
                [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
            }
        }
        #[inline(always)]
        unsafe fn splat(p: *const f32) -> Self {
            // SAFETY: see zero.
            unsafe { _mm256_set1_ps(*p) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: see zero.
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn load_first(p: *const f32, n: usize) -> Self {
            // SAFETY: see zero; masked lanes are not read.
            unsafe { _mm256_maskload_ps(p, mask8(n)) }
        }
        #[inline(always)]
        unsafe fn store_first(self, p: *mut f32, n: usize) {
            // SAFETY: see zero; masked lanes are not written.
            unsafe { _mm256_maskstore_ps(p, mask8(n), self) }
        }
        #[inline(always)]
        unsafe fn prefetch(p: *const f32) {
            // SAFETY: a prefetch of any address does nothing worse than nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn prefetch_far(p: *const f32) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see zero.
            unsafe { _mm256_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn fma(self, b: Self, c: Self) -> Self {
            // SAFETY: see zero.
            unsafe { _mm256_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: see zero.
            unsafe { Array8(std::mem::transmute::<__m256, [f32; 8]>(self)).sum() }
        }
        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // SAFETY: see zero; operand order as for __m512.
            unsafe { _mm256_max_ps(_mm256_setzero_ps(), self) }
        }
    }
}

/// Eight floats in an array: two SSE or NEON registers after vectorisation.
#[derive(Clone, Copy)]
pub(super) struct Array8([f32; 8]);

impl Vector for Array8 {
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Array8([0.0; 8])
    }
    #[inline(always)]
    unsafe fn of(x: f32) -> Self {
        Array8([x; 8])
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: see splat.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Array8(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Array8(std::array::from_fn(|i| self.0[i] * other.0[i]))
    }
    #[inline(always)]
    unsafe fn any(self) -> bool {
        self.0.iter().any(|x| *x != 0.0)
    }
    #[inline(always)]
    unsafe fn differs(self, other: Self) -> bool {
        self.0.map(f32::to_bits) != other.0.map(f32::to_bits)
    }
    #[inline(always)]
    unsafe fn zip(self, other: Self) -> [Self; 2] {
        let half = |first: usize| {
            Array8(std::array::from_fn(|i| if i % 2 == 0 { self.0[first + i / 2] } else { other.0[first + i / 2] }))
        };
        [half(0), half(4)]
    }
    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: the trait's contract, here and below.
        Array8([unsafe { *p }; 8])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: see splat.
        Array8(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        // SAFETY: see splat; lane i is read only below n.
        Array8(std::array::from_fn(|i| if i < n { unsafe { *p.add(i) } } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        for (i, v) in self.0.into_iter().enumerate().take(n) {
            // SAFETY: see splat; i < n.
            unsafe { *p.add(i) = v }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(_p: *const f32) {}
    #[inline(always)]
    unsafe fn prefetch_far(_p: *const f32) {}
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Array8(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // mul_add without hardware FMA is a library call per lane, some 20 times slower than the two roundings.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            Array8(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
        } else {
            Array8(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Array8(std::array::from_fn(|i| if self.0[i] < 0.0 { 0.0 } else { self.0[i] }))
    }
}
