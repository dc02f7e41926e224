// Convolution as an implicit GEMM on tensor cores: forward, and the gradient of its input, in tf32, f16 or bf16.
//
//   y[m, n] = bias[n] + sum over r, s, c of round(x[pixel(m, r, s), c]) * round(w[(r * KW + s) * C + c, n])   (then ReLU)
//
// m, n, padding and the problems of an input gradient are those of conv_gemm.cu, and so is the gathering of x, whose channels
// are whole quads here. x and y stay f32 in memory. Operands are rounded to nearest (tf32: ties away from zero; f16 and bf16:
// ties to even): weights when they are packed, x when a fragment is made of it. Products are exact, sums are f32. f16 has no
// range beyond 65504, where a value becomes infinite; tf32 and bf16 have f32's.
//
// Layouts, with g = lane / 4 and t = lane % 4 (PTX ISA, "Matrix Fragments for mma.m16n8k8" and ".m16n8k16"):
// - Left, in shared memory: rows of BK floats, the quads of a row permuted (`swizzle`). An ldmatrix takes a row's quad for
//   eight halves, so lane (g, t) gets float t of row g: four such matrices are the tf32 fragment of 16 x 8.
// - A 16-bit fragment wants neighbours of K in one register, slots 2t, 2t + 1, 2t + 8, 2t + 9, where ldmatrix brings floats
//   t, t + 4, t + 8, t + 12. The order of K within a step is free as long as both sides have the same: slot 2t holds float t,
//   2t + 1 t + 4, 2t + 8 t + 8, 2t + 9 t + 12, and nothing is shuffled.
// - Right: packed in the order of the fragments, (step of K, 16 channels, lane, 4 registers), so that a lane's registers of two
//   multiplications are one load of 16 bytes, and a tile in shared memory is a copy of runs of memory.
//
// Floor: 2 M N K operations, and 4 bytes for each element of x and y, 4 or 2 of w, once. VGG16's 512 to 512 channels at 14x14,
// 32 images: 30 GFLOP, 0.19 ms in tf32 at 156 TFLOP/s (A100), 0.09 ms in 16 bits at 312, and 35 MB, 0.02 ms at 1.6 TB/s. In
// shared memory, at 128 bytes a clock, fragments take 1 clock (Large) or 1.5 (Wide) a multiplication in tf32, whose own floor
// is 2 on an SM of that chip, and 1.5 or 2 in 16 bits, whose floor is 2 as well.
//
// Deterministic: an output is the sum of its steps of K in order, or (Deep) of four warps' sums, each of its quarter of every
// K tile, in order. What is added within a step is the hardware's affair and depends on the operands alone. The tile follows
// from the layer's shape. No atomics.
//
// History. No GPU was at hand, so nothing here is timed. Counted on the simulated device (sm_80), all of a launch: warp
// instructions, and passes of loads over shared memory, for a multiplication (1024 multiply-adds in tf32, 2048 in 16 bits), in
// a layer of 32 to 128 channels 3x3 at 13x13 (Large), 64 to 64 at 20x20 (Wide) and 32 to 32 at 26x26 (Narrow).
//   v1  tf32     5.6  1.2    5.6  1.6    10.9  2.6
//       16 bits  9.4  2.1    8.9  2.6    20.3  5.3   (this one)
// No load, store or copy of the main loop meets a bank conflict. Registers on sm_80: 199 (Large, tf32), 234 (Large, 16 bits), at
// most 128 in the others; no spills.
// What only a GPU can decide: Wide and Narrow in 16 bits, which shared memory bounds (a left tile that is rounded once, or kept
// in 16 bits between layers, would halve that); more stages; wgmma on sm_90.

// Weights: (k_tiles * BK / STEP, n_padded / 16, 32) uint4; scale and shift are null.
#include "conv.cuh"

// packed: (problems, k_padded / STEP, n_padded / 16, 32) uint4; units: of those.
#include "conv_pack.cuh"

// A weight's element, rounded. In integers where sm_75, which has these kernels too, lacks the conversion.
__device__ __forceinline__ u32 rounded_tf32(float x) {
    const u32 bits = __float_as_uint(x);
    return x != x ? 0x7fffffff : (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & 0xffffe000;
}
__device__ __forceinline__ u32 rounded_bf16(float x) {
    const u32 bits = __float_as_uint(x);
    return x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
__device__ __forceinline__ u32 rounded_f16(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// The registers of a lane for one multiplication: w(k) is its weight in line k of the step, from its first on.
struct PackTf32 {
    static constexpr int STEP = 8;
    template <class W> __device__ static uint2 registers(W w) { return make_uint2(rounded_tf32(w(0)), rounded_tf32(w(4))); }
};
template <u32 (*ROUNDED)(float)> struct PackPairs {
    static constexpr int STEP = 16;
    template <class W> __device__ static uint2 registers(W w) {
        return make_uint2(ROUNDED(w(0)) | ROUNDED(w(4)) << 16, ROUNDED(w(8)) | ROUNDED(w(12)) << 16);
    }
};
using PackF16 = PackPairs<rounded_f16>;
using PackBf16 = PackPairs<rounded_bf16>;

// Weights (O,C,KH,KW) as the right operand; which of them a line and a column are is said in conv_pack.cu. A thread packs the
// 16 bytes of one lane. grid blocks of 256 quads.
template <class F, bool GRAD_INPUT> __device__ __forceinline__ void pack(const PackArguments &a) {
    const u32 quad = blockIdx.x * 256 + threadIdx.x;
    if (quad >= a.units) return;
    const u32 lane = quad % 32, units = a.n_padded / 16, unit = quad / 32 % units, line = quad / 32 / units;
    const u32 steps = a.k_padded / F::STEP, problem = line / steps, first = line % steps * F::STEP + lane % 4;
    const auto weight = [&](u32 k, u32 n) {
        if (GRAD_INPUT) return grad_input_weight(a, problem, k, n);
        const u32 taps = a.kh * a.kw, tap = k / a.c;
        return tap < taps && n < a.o ? a.weight[((u64)n * a.c + k % a.c) * taps + tap] : 0.0f;
    };
    const u32 n = unit * 16 + lane / 4;
    const uint2 left = F::registers([&](u32 k) { return weight(first + k, n); });
    const uint2 right = F::registers([&](u32 k) { return weight(first + k, n + 8); });
    ((uint4 *)a.packed)[quad] = make_uint4(left.x, left.y, right.x, right.y);
}

extern "C" __global__ void __launch_bounds__(256) conv_mma_pack_forward_tf32(const PackArguments a) {
    pack<PackTf32, false>(a);
}
extern "C" __global__ void __launch_bounds__(256) conv_mma_pack_forward_f16(const PackArguments a) {
    pack<PackF16, false>(a);
}
extern "C" __global__ void __launch_bounds__(256) conv_mma_pack_forward_bf16(const PackArguments a) {
    pack<PackBf16, false>(a);
}
extern "C" __global__ void __launch_bounds__(256) conv_mma_pack_grad_input_tf32(const PackArguments a) {
    pack<PackTf32, true>(a);
}
extern "C" __global__ void __launch_bounds__(256) conv_mma_pack_grad_input_bf16(const PackArguments a) {
    pack<PackBf16, true>(a);
}

// What follows needs instructions of sm_80.
#if __CUDA_ARCH__ >= 800

// How a block works on its tile of BM pixels x BN channels: GROUPS slices of each K tile of BK, a slice's outputs over WM x WN
// warps, each with MT x NT tiles of 16 pixels x 16 channels. STAGES K tiles are in shared memory, all but one on their way.
template <int GROUPS_, int WM_, int WN_, int MT_, int NT_, int BK_, int STAGES_> struct Tiling {
    static constexpr int GROUPS = GROUPS_, WM = WM_, WN = WN_, MT = MT_, NT = NT_, BK = BK_, STAGES = STAGES_;
    static constexpr int BM = WM * MT * 16, BN = WN * NT * 16, THREADS = 32 * GROUPS * WM * WN;

    // Where quad q of K lies in row `row` of the left tile: at q ^ swizzle(row), so that the eight rows of an ldmatrix, or of
    // the copies of a quarter of a warp, are in different banks. Rows 8 apart have the same.
    static_assert(BK == 16 || BK % 32 == 0, "`swizzle` knows these rows");
    __device__ static constexpr int swizzle(int row) { return BK == 16 ? row / 2 % 4 : row % 8; }
};

// The same tiles as in launch/conv_mma.rs, for steps of 8 and of 16.
template <int STEP> using Large = Tiling<1, 2, 2, 4, 4, 2 * STEP, STEP == 8 ? 4 : 3>;  // 128 x 128
template <int STEP> using Wide = Tiling<1, 4, 1, 2, 4, 2 * STEP, STEP == 8 ? 4 : 3>;   // 128 x 64
template <int STEP> using Narrow = Tiling<1, 4, 1, 2, 2, 2 * STEP, STEP == 8 ? 4 : 3>; // 128 x 32
template <int STEP> using Deep = Tiling<4, 1, 1, 2, 2, 64, 4>;                         // 32 x 32, each K tile over four warps

// Four matrices of 8 rows of 16 bytes; lane l names row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(u32 (&r)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

// A format of operands: the left fragment of 16 pixels x STEP at `row`, where the step's first quad is this lane's, and the
// multiplication. Matrices 0 to 3 of a load are rows 0-7 and 8-15 of a quad, then of the next.
struct Tf32 {
    static constexpr int STEP = 8, BYTES = 4;

    __device__ static void left(u32 (&a)[4], u32 row) {
        load_matrices(a, row);
#pragma unroll
        for (int i = 0; i < 4; ++i) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(a[i]) : "f"(__uint_as_float(a[i])));
    }
    __device__ static void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
};

template <class F> struct Pairs {
    static constexpr int STEP = 16, BYTES = 2;

    __device__ static void left(u32 (&a)[4], u32 row) {
        u32 x[4], y[4];
        load_matrices(x, row);
        load_matrices(y, row ^ 32); // two quads further on
        a[0] = F::pair(x[0], x[2]);
        a[1] = F::pair(x[1], x[3]);
        a[2] = F::pair(y[0], y[2]);
        a[3] = F::pair(y[1], y[3]);
    }
};

struct F16 : Pairs<F16> {
    __device__ static u32 pair(u32 low, u32 high) {
        u32 pair;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(__uint_as_float(high)), "f"(__uint_as_float(low)));
        return pair;
    }
    __device__ static void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
};

struct Bf16 : Pairs<Bf16> {
    __device__ static u32 pair(u32 low, u32 high) {
        u32 pair;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(__uint_as_float(high)), "f"(__uint_as_float(low)));
        return pair;
    }
    __device__ static void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
};

// 16 bytes past L1: a block reads its weights once.
__device__ __forceinline__ void copy_async_past_l1(void *to, const uint4 *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
__device__ __forceinline__ void end_of_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most LEFT groups of this thread's copies are on their way.
template <int LEFT> __device__ __forceinline__ void wait_for_all_but() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// One thread's share of filling the two tiles of a stage.
template <class T, class F> struct Loader {
    static constexpr int ACROSS = T::BK / 4, DOWN = T::THREADS / ACROSS, LEFT = T::BM / DOWN;
    static_assert(T::THREADS % ACROSS == 0 && DOWN % 8 == 0 && T::BM % DOWN == 0, "a thread keeps its place in K and swizzle");
    // Quads of a step's right operand, those of one thread: WIDE a step, or one each TALL steps.
    static constexpr int STEPS = T::BK / F::STEP, LINE = T::BN * 2, RIGHT = STEPS * LINE / T::THREADS;
    static constexpr int WIDE = LINE > T::THREADS ? LINE / T::THREADS : 1, TALL = LINE < T::THREADS ? T::THREADS / LINE : 1;
    static_assert(WIDE * T::THREADS == LINE * TALL && RIGHT * T::THREADS == STEPS * LINE, "whole rounds");

    // Where a pixel's quad lies, from `here` on, and how many bytes to read there: none in the padding.
    struct Source {
        int offset;
        u32 bytes;
    };

    const ConvArguments &a;
    const Pixel *pixels; // from this thread's first row on
    const float *x;
    const uint4 *weight;
    u32 left_place;     // of its first quad in the left tile, in floats
    int r, s, channel;  // its place in K: tap and channel
    const float *here;  // x, from that channel on
    Source sources[LEFT]; // of the tap

    __device__ __forceinline__ Loader(const ConvArguments &a, const Pixel *pixels, const float *x, const uint4 *weight)
        : a(a), pixels(pixels + threadIdx.x / ACROSS), x(x),
          weight(weight + threadIdx.x / LINE * (2 * a.n_padded) + threadIdx.x % LINE) {
        const int row = threadIdx.x / ACROSS, quad = threadIdx.x % ACROSS, tap = quad * 4 / a.c;
        left_place = row * T::BK + (quad ^ T::swizzle(row)) * 4;
        keep(left_place);
        channel = quad * 4 - tap * a.c;
        r = tap / a.kw;
        s = tap - r * a.kw;
        begin_tap();
    }

    // Behind the last tap there is padding, too. Padding is not read, but its address is one.
    __device__ __forceinline__ void begin_tap() {
        here = x + channel;
#pragma unroll
        for (int j = 0; j < LEFT; ++j) {
            const Pixel at = pixels[j * DOWN];
            const bool in = (r < a.kh) & ((u32)(at.row + r) < (u32)a.h) & ((u32)(at.column + s) < (u32)a.w);
            sources[j] = {in ? at.x + (r * a.w + s) * a.x_pixel : 0, in ? 16u : 0u};
        }
    }

    // Begins to load the next K tile into `stage`.
    __device__ __forceinline__ void begin(float *stage) {
#pragma unroll
        for (int j = 0; j < LEFT; ++j)
            copy_async<4>(stage + left_place + j * DOWN * T::BK, here + sources[j].offset, sources[j].bytes);
        float *right = stage + T::BM * T::BK + 4 * threadIdx.x;
#pragma unroll
        for (int j = 0; j < RIGHT; ++j)
            copy_async_past_l1(right + 4 * j * T::THREADS,
                               weight + j / WIDE * TALL * (2 * a.n_padded) + j % WIDE * T::THREADS);
        weight += STEPS * 2 * a.n_padded;
        here += T::BK;
        channel += T::BK;
        if (channel >= a.c) {
            do {
                channel -= a.c;
                if (++s == a.kw) s = 0, ++r;
            } while (channel >= a.c);
            begin_tap();
        }
    }
};

// Adds the products of a stage. `left` is the shared address of this lane's row and first quad, with the row's swizzle in it,
// so that another quad of K is an exclusive or away; `right` points to its first registers.
template <class T, class F>
__device__ __forceinline__ void multiply(u32 left, const uint4 *right, float (&sum)[T::MT][2 * T::NT][4]) {
#pragma unroll
    for (int step = 0; step < T::BK / F::STEP / T::GROUPS; ++step) {
        u32 a[T::MT][4];
#pragma unroll
        for (int i = 0; i < T::MT; ++i) F::left(a[i], (left ^ step * F::STEP * 4) + i * 16 * T::BK * 4);
#pragma unroll
        for (int j = 0; j < T::NT; ++j) {
            const uint4 b = right[(step * (T::BN / 16) + j) * 32];
#pragma unroll
            for (int i = 0; i < T::MT; ++i) {
                F::multiply(sum[i][2 * j], a[i], b.x, b.y);
                F::multiply(sum[i][2 * j + 1], a[i], b.z, b.w);
            }
        }
    }
}

// Writes the outputs at `to` of which `there` exist: two (V 2, at a multiple of 8 bytes where options say so) or four.
template <int V> __device__ __forceinline__ void finish(const ConvArguments &a, float *to, int there, const float (&sum)[V]) {
    float v[V];
#pragma unroll
    for (int e = 0; e < V; ++e) v[e] = a.options & RELU ? relu(sum[e]) : sum[e];
    if (V == 4 ? a.options & STORE_QUADS : a.options & STORE_PAIRS) {
        if (there > 0) {
            if (V == 4) {
                store_quad(to, make_float4(v[0], v[1], v[V - 2], v[V - 1]));
            } else {
                asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)), "f"(v[0]), "f"(v[1])
                             : "memory");
            }
        }
    } else {
#pragma unroll
        for (int e = 0; e < V; ++e)
            if (there > e) to[e] = v[e];
    }
}

// grid: tiles of the pixels * tiles of the channels; the latter run fastest, so that neighbours share x
template <class T, class F> __device__ __forceinline__ void convolve(const ConvArguments &a) {
    constexpr int LEFT_SIZE = T::BM * T::BK, STAGE = LEFT_SIZE + T::BN * T::BK * F::BYTES / 4; // in floats
    constexpr int STEPS = T::BK / F::STEP / T::GROUPS;
    static_assert(STAGE % T::BK == 0, "a row's quads of K begin at a multiple of their length");
    static_assert((STEPS & (STEPS - 1)) == 0, "quads of a slice are an exclusive or apart");
    extern __shared__ __align__(256) float stages[]; // STAGES * STAGE
    __shared__ Pixel pixels[T::BM];

    const u32 tiles = (u32)a.n_padded / T::BN, plane = a.p * a.q;
    const u32 first = blockIdx.x / tiles * T::BM, image = first / plane;
    const int first_column = blockIdx.x % tiles * T::BN;
    for (int row = threadIdx.x; row < T::BM; row += T::THREADS) {
        pixels[row] = find_pixel(a, first, image, row);
    }
    __syncthreads();

    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int group = warp / (T::WM * T::WN);
    const int warp_row = warp / T::WN % T::WM * (T::MT * 16), warp_column = warp % T::WN * (T::NT * 16);
    const int live = min(a.pixels - first, (u32)T::BM);

    float sum[T::MT][2 * T::NT][4];
#pragma unroll
    for (int i = 0; i < T::MT; ++i)
#pragma unroll
        for (int j = 0; j < 2 * T::NT; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) sum[i][j][e] = 0.0f;

    Loader<T, F> loader(a, pixels, a.x + (u64)image * a.x_image, (const uint4 *)a.weight + first_column * 2);
#pragma unroll
    for (int stage = 0; stage < T::STAGES - 1; ++stage) {
        if (stage < a.k_tiles) loader.begin(stages + stage * STAGE);
        end_of_copies();
    }
    const int load_row = warp_row + lane % 16, load_quad = group * (STEPS * F::STEP / 4) + lane / 16;
    u32 left = (u32)__cvta_generic_to_shared(stages) + (load_row * T::BK + (load_quad ^ T::swizzle(load_row)) * 4) * 4;
    const float *right = stages + LEFT_SIZE + (group * STEPS * (T::BN / 16) + warp_column / 16) * 128 + lane * 4;
    keep(left);
    int now = 0, next = (T::STAGES - 1) * STAGE; // the stage of this tile and the one to be filled, in floats
    for (int tile = 0; tile < a.k_tiles; ++tile) {
        wait_for_all_but<T::STAGES - 2>();
        // This tile is there for all, and all have done with the one before, whose place the next one takes.
        __syncthreads();
        if (tile + T::STAGES - 1 < a.k_tiles) loader.begin(stages + next);
        end_of_copies();
        multiply<T, F>(left + now * 4, (const uint4 *)(right + now), sum);
        next = now;
        now = now == (T::STAGES - 1) * STAGE ? 0 : now + STAGE;
    }

    float *y = a.y + (u64)image * a.y_image + first_column;
    const int columns = a.n - first_column;
    const auto bias = [&](int column) { return a.bias && column < columns ? a.bias[first_column + column] : 0.0f; };
    // of an accumulator: row g or g + 8, columns 2t and 2t + 1
    const int own_row = warp_row + lane / 4, own_column = warp_column + lane % 4 * 2;
    if (T::GROUPS == 1) {
        int places[2 * T::MT];
#pragma unroll
        for (int i = 0; i < 2 * T::MT; ++i) places[i] = pixels[own_row + 8 * i].y;
#pragma unroll
        for (int j = 0; j < 2 * T::NT; ++j) {
            const int column = own_column + 8 * j;
            const float b0 = bias(column), b1 = bias(column + 1);
#pragma unroll
            for (int i = 0; i < 2 * T::MT; ++i) {
                const float pair[2] = {sum[i / 2][j][i % 2 * 2] + b0, sum[i / 2][j][i % 2 * 2 + 1] + b1};
                if (own_row + 8 * i < live) finish(a, y + places[i] + column, columns - column, pair);
            }
        }
    } else {
        // 8 floats between rows: a half warp's four rows are then in different banks
        constexpr int PITCH = T::BN + 8;
        static_assert(T::GROUPS == 1 || (T::WM * T::WN == 1 && T::GROUPS * T::BM * PITCH <= T::STAGES * STAGE), "room for the sums");
        wait_for_all_but<0>();
        __syncthreads(); // the last stage has been read
#pragma unroll
        for (int i = 0; i < 2 * T::MT; ++i)
#pragma unroll
            for (int j = 0; j < 2 * T::NT; ++j)
                *(float2 *)(stages + (group * T::BM + own_row + 8 * i) * PITCH + own_column + 8 * j) =
                    make_float2(sum[i / 2][j][i % 2 * 2], sum[i / 2][j][i % 2 * 2 + 1]);
        __syncthreads();
        for (int quad = threadIdx.x; quad < T::BM * T::BN / 4; quad += T::THREADS) {
            const int row = quad / (T::BN / 4), column = quad % (T::BN / 4) * 4;
            if (row < live) {
                float total[4] = {};
#pragma unroll
                for (int g = 0; g < T::GROUPS; ++g) {
                    const Vector<4> part = load<4>(stages + (g * T::BM + row) * PITCH + column);
#pragma unroll
                    for (int e = 0; e < 4; ++e) total[e] += part.v[e];
                }
#pragma unroll
                for (int e = 0; e < 4; ++e) total[e] += bias(column + e);
                finish(a, y + pixels[row].y + column, columns - column, total);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(128) conv_mma_tf32_large(const ConvArguments a) { convolve<Large<8>, Tf32>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_mma_tf32_wide(const ConvArguments a) { convolve<Wide<8>, Tf32>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_mma_tf32_narrow(const ConvArguments a) { convolve<Narrow<8>, Tf32>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_mma_tf32_deep(const ConvArguments a) { convolve<Deep<8>, Tf32>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_mma_f16_large(const ConvArguments a) { convolve<Large<16>, F16>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_mma_f16_wide(const ConvArguments a) { convolve<Wide<16>, F16>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_mma_f16_narrow(const ConvArguments a) { convolve<Narrow<16>, F16>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_mma_f16_deep(const ConvArguments a) { convolve<Deep<16>, F16>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_mma_bf16_large(const ConvArguments a) { convolve<Large<16>, Bf16>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_mma_bf16_wide(const ConvArguments a) { convolve<Wide<16>, Bf16>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_mma_bf16_narrow(const ConvArguments a) { convolve<Narrow<16>, Bf16>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_mma_bf16_deep(const ConvArguments a) { convolve<Deep<16>, Bf16>(a); }

#endif
