// What every kernel file begins with (it is put in front of each; nothing includes it).
//
// Conventions of all kernels:
// - One argument: a struct by value, the same as the #[repr(C)] struct of that name in src/backend/cuda/launch/. Its size is
//   asserted on both sides.
// - Values with rows and positions lie channels-last (N, H, W, C), everything else in logical order.
// - A result has the same bits whatever the number of rows, the grid or the chip: what is summed is summed in a fixed order,
//   and there are no atomics on floats.
// - NaN is never swallowed: comparisons are written so that it passes through.
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define FULL_WARP 0xffffffffu

// max(0, x) that lets a NaN through (fmaxf drops it).
__device__ __forceinline__ float relu(float x) { return x <= 0.0f ? 0.0f : x; }

// -1, 0 or 1; NaN stays NaN.
__device__ __forceinline__ float sign(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x == 0.0f ? 0.0f : x; }

// V floats that are moved at once; V is 4 (at a multiple of 16 bytes) or 1.
template <int V> struct alignas(4 * V) Vector { float v[V]; };

template <int V> __device__ __forceinline__ Vector<V> load(const float *x) { return *(const Vector<V> *)x; }

template <int V> __device__ __forceinline__ void store(float *y, const Vector<V> &x) { *(Vector<V> *)y = x; }

// y[i] = f(x[i]...) for one thread's elements of 4 * quads + tail: the first `quads` threads take four each, the next `tail`
// one each. Blocks are one-dimensional.
template <class F, class... X>
__device__ __forceinline__ void map(u32 quads, u32 tail, float *y, F f, const X *...x) {
    const u64 t = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (t < quads) {
        const auto each = [&](const auto &...of) {
            Vector<4> r;
#pragma unroll
            for (int k = 0; k < 4; k++) r.v[k] = f(of.v[k]...);
            return r;
        };
        store<4>(y + 4 * t, each(load<4>(x + 4 * t)...));
    } else if (t - quads < tail) {
        const u64 i = 3 * (u64)quads + t;
        y[i] = f(x[i]...);
    }
}

// Four floats at once, and surely so: a plain store of a float4 may be taken apart to share its parts with another branch.
__device__ __forceinline__ void store_quad(float *y, float4 x) {
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(y)), "f"(x.x), "f"(x.y), "f"(x.z),
                 "f"(x.w)
                 : "memory");
}

// Asynchronous copies from global to shared memory exist from sm_80 on.
#if __CUDA_ARCH__ >= 800
[[maybe_unused]] constexpr bool HAS_ASYNC = true;
#else
[[maybe_unused]] constexpr bool HAS_ASYNC = false;
#endif

// Begins to copy the first `bytes` of V floats to shared memory, zeros behind them; `from` must be an address even for none.
// Through L1, where neighbouring threads or the next taps of a window find them again.
template <int V> __device__ __forceinline__ void copy_async(float *to, const float *from, u32 bytes) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from),
                 "n"(4 * V), "r"(bytes)
                 : "memory");
#endif
}

// Waits for this thread's copies; a barrier makes them visible to the others.
__device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Keeps the compiler from computing a value anew in every turn of a loop, which it takes for cheaper than a register.
__device__ __forceinline__ void keep(u32 &value) { asm volatile("" : "+r"(value)); }

// The sum of 32 lanes in the same order on every lane's side: lane 0's is the result.
template <class T> __device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_down_sync(FULL_WARP, x, offset);
    return x;
}

// The sum over a block of THREADS threads, valid in thread 0. Every thread of the block must call it.
template <int THREADS, class T> __device__ __forceinline__ T block_sum(T x) {
    static_assert(THREADS % 32 == 0 && THREADS <= 1024, "whole warps");
    __shared__ T sums[THREADS / 32];
    x = warp_sum(x);
    __syncthreads(); // the sums of an earlier call have been read
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    if (threadIdx.x < 32) {
        x = threadIdx.x < THREADS / 32 ? sums[threadIdx.x] : T(0);
        x = warp_sum(x);
    }
    return x;
}

// Combines the values of a column (one threadIdx.x) of a block of at most 256 threads along threadIdx.y, in a tree that
// blockDim.y (a power of two) fixes; valid at threadIdx.y 0. Every thread of the block must call it, once.
template <class T, class F> __device__ __forceinline__ T combine_column(T x, F combine) {
    __shared__ T values[256];
    T *own = values + threadIdx.y * blockDim.x + threadIdx.x;
    *own = x;
    for (u32 half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) *own = x = combine(x, own[half * blockDim.x]);
    }
    return x;
}
