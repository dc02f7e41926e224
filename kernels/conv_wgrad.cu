// The gradient of a convolution's weights as an implicit GEMM over pixels:
//
//   gw[o, c, r, s] = sum over m of gy[m, o] * x[pixel(m, r, s), c]
//
// m runs over the output pixels of all images, up to millions, and the result is small: so m is split into at most 64 parts, each
// with partial sums of its own, and a second kernel adds the parts in order. Both operands lie with pixels down and channels
// across, as their tiles do; a column of the right one is j = (r * KW + s) * C + c.
//
// Floor: 2 * pixels * O * C * KH * KW operations, 4 bytes for each element of x, gy and gw once, and 8 for each partial sum.
// The Fashion network's second convolution, 128 images: 0.57 GFLOP, 9 us at 67 TFLOP/s; 7 MB, 2 us at 3.35 TB/s; the sums of its
// 61 parts, written and read, 3 us.
//
// Deterministic: parts follow from the layer's shape and the number of rows; in a part a thread adds in the order of pixels, or
// (Small) four threads do, each its quarter of every tile, and their sums are added in order. No atomics.
//
// History. No GPU was at hand, so nothing here is timed. Counted on the simulated device (sm_80): lane instructions for a
// multiply-add, all of a launch, for 64 to 64 channels 3x3 at 20x20 (Wide) and 32 to 32 at 26x26 (Narrow).
//   v1  windows with addresses of 64 bits; a single part wrote gw itself     1.28  1.44
//   v2  offsets of 32 bits, one load a window; gw always through the sums    1.25  1.39   (this one)
// Global sectors are the least possible where channels are whole quads, and no load of the main loop meets a bank conflict.
// Tiles on tensor cores, in tf32 and bf16, have their own words below.

struct WeightArguments {
    const float *x;  // (images, h, w, c)
    const float *gy; // (images, p, q, o)
    float *sums;     // (parts, o, kh * kw * c)
    u32 pixels;      // images * p * q
    u32 part;        // pixels of a part: whole tiles
    int h, w, c;
    int p, q, o;
    int kh, kw;
    int stride, pad;
    u32 tiles_o, tiles_j; // tiles of the result, down and across
    u32 options;
};
static_assert(sizeof(WeightArguments) == 88, "as in launch/conv.rs");

enum { STORE_QUADS = 1 };

// A tile of BO output channels x BJ columns of gw: GROUPS slices of each tile of BK pixels, a slice's sums over WO x WJ warps,
// a warp's over 4 x 8 lanes. A lane has TO x TJ: quads, 16 channels and 32 columns apart. PAD floats lie between the rows of
// a tile in shared memory.
template <int GROUPS_, int WO_, int WJ_, int TO_, int TJ_, int BK_, int PAD_ = 0> struct Tiling {
    static constexpr int GROUPS = GROUPS_, WO = WO_, WJ = WJ_, TO = TO_, TJ = TJ_, BK = BK_, PAD = PAD_;
    static constexpr int BO = WO * 4 * TO, BJ = WJ * 8 * TJ, THREADS = 32 * GROUPS * WO * WJ;
    static constexpr int LEFT_SIZE = BK * (BO + PAD), STAGE = LEFT_SIZE + BK * (BJ + PAD);
    static_assert(TO % 4 == 0 && TJ % 4 == 0 && BK % GROUPS == 0, "whole float4 and whole slices");
};

using Wide = Tiling<1, 2, 2, 8, 8, 16>;   // 64 x 128
using Narrow = Tiling<1, 1, 4, 8, 4, 16>; // 32 x 128
using Small = Tiling<4, 1, 1, 8, 4, 32>;  // 32 x 32, the pixels of a tile over four warps

// An output pixel's window: where it begins in the part's images, in floats, and in its image; that may lie in the padding.
struct __align__(16) Window {
    int x, row, column, unused;
};

// The row of a window that lies in the padding as a whole: what is behind the part.
constexpr int NOWHERE = -0x40000000;

// The output pixel of a thread that keeps the table of windows, and how it moves by a tile. One thread a pixel of a tile does.
template <class T> struct Walk {
    const WeightArguments &a;
    int behind; // pixels of the part from this one on
    int image, p, q, step_image, step_p, step_q;

    // Images count from that of the part's first pixel.
    __device__ __forceinline__ Walk(const WeightArguments &a, u32 first, u32 count) : a(a) {
        const int plane = a.p * a.q, m = first % plane + threadIdx.x;
        behind = (int)count - (int)threadIdx.x;
        image = m / plane, p = m % plane / a.q, q = m % plane % a.q;
        step_image = T::BK / plane, step_p = T::BK % plane / a.q, step_q = T::BK % plane % a.q;
    }

    // Writes this thread's window and goes on to its next.
    __device__ __forceinline__ void write(Window *windows) {
        if (threadIdx.x >= T::BK) return;
        Window window;
        window.row = p * a.stride - a.pad;
        window.column = q * a.stride - a.pad;
        window.x = ((image * a.h + window.row) * a.w + window.column) * a.c;
        if (behind <= 0) window.row = NOWHERE;
        window.unused = 0;
        windows[threadIdx.x] = window;
        behind -= T::BK;
        image += step_image;
        if ((q += step_q) >= a.q) q -= a.q, ++p;
        if ((p += step_p) >= a.p) p -= a.p, ++image;
    }
};

// One thread's share of filling the two tiles of a stage, V floats at once.
template <class T, int V> struct Loader {
    static constexpr int O_ACROSS = T::BO / V, O_DOWN = T::THREADS / O_ACROSS, LEFT = T::BK / O_DOWN;
    static constexpr int J_ACROSS = T::BJ / V, J_DOWN = T::THREADS / J_ACROSS, RIGHT = T::BK / J_DOWN;
    static_assert(T::THREADS % O_ACROSS == 0 && T::BK % O_DOWN == 0, "a thread keeps its output channels");
    static_assert(T::THREADS % J_ACROSS == 0 && T::BK % J_DOWN == 0, "a thread keeps its columns");

    const WeightArguments &a;
    const float *gy, *x;
    u32 left_place, right_place; // of its first parts in the tiles
    int pixels;       // of the part, from this thread's first row of the tile on; none without output channels
    int r, s, offset; // of its columns: tap, and its channel of that tap's pixel; a row that no image has without columns
    Vector<V> left[HAS_ASYNC ? 1 : LEFT], right[HAS_ASYNC ? 1 : RIGHT];

    __device__ __forceinline__ Loader(const WeightArguments &a, u32 first, u32 count, int first_o, int first_j)
        : a(a), x(a.x + (u64)(first / (u32)(a.p * a.q)) * (a.h * a.w * a.c)) {
        left_place = threadIdx.x * V + threadIdx.x / O_ACROSS * T::PAD;
        keep(left_place);
        right_place = left_place;
        if (T::PAD) {
            right_place = threadIdx.x * V + threadIdx.x / J_ACROSS * T::PAD;
            keep(right_place);
        }
        const int row = threadIdx.x / O_ACROSS, o = first_o + threadIdx.x % O_ACROSS * V;
        pixels = o < a.o ? (int)count - row : 0;
        gy = a.gy + (u64)(first + row) * a.o + o;
        const int j = first_j + threadIdx.x % J_ACROSS * V, tap = j / a.c;
        r = tap / a.kw;
        s = tap - r * a.kw;
        offset = (r * a.w + s) * a.c + (j - tap * a.c);
        if (r >= a.kh) r = NOWHERE;
    }

    // Begins to load the next tile of pixels, into `stage` if it copies asynchronously. Padding is not read, its address is that
    // of some pixel.
    __device__ __forceinline__ void begin(float *stage, const Window *windows) {
#pragma unroll
        for (int i = 0; i < LEFT; ++i) {
            const bool in = i * O_DOWN < pixels;
            const float *from = in ? gy + (u64)(i * O_DOWN) * a.o : a.gy;
            if (HAS_ASYNC) {
                copy_async<V>(stage + left_at(i), from, in ? 4 * V : 0);
            } else {
                left[i] = in ? load<V>(from) : Vector<V>{};
            }
        }
        gy += (u64)T::BK * a.o;
        pixels -= T::BK;
#pragma unroll
        for (int i = 0; i < RIGHT; ++i) {
            const Window window = windows[threadIdx.x / J_ACROSS + i * J_DOWN];
            const bool in = ((u32)(window.row + r) < (u32)a.h) & ((u32)(window.column + s) < (u32)a.w);
            const float *from = x + (in ? window.x + offset : 0);
            if (HAS_ASYNC) {
                copy_async<V>(stage + right_at(i), from, in ? 4 * V : 0);
            } else {
                right[i] = in ? load<V>(from) : Vector<V>{};
            }
        }
    }

    // Puts into `stage` what is still in registers.
    __device__ __forceinline__ void end(float *stage) const {
#pragma unroll
        for (int i = 0; i < (HAS_ASYNC ? 0 : LEFT); ++i) store<V>(stage + left_at(i), left[i]);
#pragma unroll
        for (int i = 0; i < (HAS_ASYNC ? 0 : RIGHT); ++i) store<V>(stage + right_at(i), right[i]);
    }

    __device__ __forceinline__ int left_at(int i) const { return left_place + i * O_DOWN * (T::BO + T::PAD); }
    __device__ __forceinline__ int right_at(int i) const { return T::LEFT_SIZE + right_place + i * J_DOWN * (T::BJ + T::PAD); }
};

// N floats in quads that are `apart` floats apart.
template <int N> __device__ __forceinline__ void load_quads(float (&v)[N], const float *from, int apart) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
        const float4 f = *(const float4 *)(from + i / 4 * apart);
        v[i] = f.x, v[i + 1] = f.y, v[i + 2] = f.z, v[i + 3] = f.w;
    }
}

// Stores the sums of output channel o and columns j to j + 3.
__device__ __forceinline__ void finish(const WeightArguments &a, float *sums, int o, int j, float4 sum) {
    const int columns = a.kh * a.kw * a.c, there = o < a.o ? columns - j : 0;
    float *to = sums + (u64)o * columns + j;
    if (a.options & STORE_QUADS) {
        if (there > 0) store_quad(to, sum);
    } else {
        if (there > 0) to[0] = sum.x;
        if (there > 1) to[1] = sum.y;
        if (there > 2) to[2] = sum.z;
        if (there > 3) to[3] = sum.w;
    }
}

// grid: parts * tiles of the result
template <class T, int V> __device__ __forceinline__ void grad_weight(const WeightArguments &a) {
    constexpr int STAGE = T::STAGE, SLICE = T::BK / T::GROUPS;
    static_assert(T::PAD == 0, "rows without gaps");
    __shared__ __align__(128) float stages[2 * STAGE];
    __shared__ Window windows[2 * T::BK];

    const u32 tiles_of_part = a.tiles_o * a.tiles_j;
    const u32 part = blockIdx.x / tiles_of_part, at = blockIdx.x % tiles_of_part;
    const int first_o = at / a.tiles_j * T::BO, first_j = at % a.tiles_j * T::BJ;
    const u32 first = part * a.part, count = min(a.part, a.pixels - first);
    const int tiles = (count + T::BK - 1) / T::BK;

    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int group = warp / (T::WO * T::WJ);
    const int own_o = warp / T::WJ % T::WO * (4 * T::TO) + lane / 8 * 4;
    const int own_j = warp % T::WJ * (8 * T::TJ) + lane % 8 * 4;
    u32 left = group * SLICE * T::BO + own_o, right = T::BK * T::BO + group * SLICE * T::BJ + own_j;
    keep(left), keep(right);

    Walk<T> walk(a, first, count);
    walk.write(windows);
    walk.write(windows + T::BK);
    __syncthreads();
    float sum[T::TO][T::TJ] = {};
    Loader<T, V> loader(a, first, count, first_o, first_j);
    loader.begin(stages, windows);
    loader.end(stages);
    int now = 0; // the stage of this tile
    for (int tile = 1; tile <= tiles; ++tile) {
        wait_for_copies();
        // This tile and the next one's windows are there for all, and all have done with the tile before, whose place the next
        // one takes.
        __syncthreads();
        const int next = 1 - now;
        if (tile < tiles) loader.begin(stages + next * STAGE, windows + next * T::BK);
        walk.write(windows + now * T::BK); // of the tile after that
        const float *stage = stages + now * STAGE;
        // 512 multiply-adds a turn are 8 KB of code: twice that would leave the innermost instruction cache
#pragma unroll 8
        for (int k = 0; k < SLICE; ++k) {
            float g[T::TO], x[T::TJ];
            load_quads(g, stage + left + k * T::BO, 16);
            load_quads(x, stage + right + k * T::BJ, 32);
#pragma unroll
            for (int i = 0; i < T::TO; ++i)
#pragma unroll
                for (int j = 0; j < T::TJ; ++j) sum[i][j] = fmaf(g[i], x[j], sum[i][j]);
        }
        if (tile < tiles) loader.end(stages + next * STAGE);
        now = next;
    }

    float *sums = a.sums + (u64)part * a.o * (a.kh * a.kw * a.c);
    if (T::GROUPS == 1) {
#pragma unroll
        for (int i = 0; i < T::TO; ++i)
#pragma unroll
            for (int j = 0; j < T::TJ; j += 4)
                finish(a, sums, first_o + own_o + i / 4 * 16 + i % 4, first_j + own_j + j * 8,
                       make_float4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]));
    } else {
        static_assert(T::GROUPS == 1 || (T::WO * T::WJ == 1 && T::GROUPS * T::BO * T::BJ <= 2 * STAGE), "room for the sums");
        __syncthreads(); // the last stage has been read
#pragma unroll
        for (int i = 0; i < T::TO; ++i)
#pragma unroll
            for (int j = 0; j < T::TJ; j += 4)
                *(float4 *)(stages + (group * T::BO + own_o + i / 4 * 16 + i % 4) * T::BJ + own_j + j * 8) =
                    make_float4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]);
        __syncthreads();
        for (int quad = threadIdx.x; quad < T::BO * T::BJ / 4; quad += T::THREADS) {
            float4 total = *(const float4 *)(stages + 4 * quad);
#pragma unroll
            for (int g = 1; g < T::GROUPS; ++g) {
                const float4 other = *(const float4 *)(stages + g * T::BO * T::BJ + 4 * quad);
                total.x += other.x, total.y += other.y, total.z += other.z, total.w += other.w;
            }
            finish(a, sums, first_o + quad / (T::BJ / 4), first_j + quad % (T::BJ / 4) * 4, total);
        }
    }
}

extern "C" __global__ void __launch_bounds__(128) conv_wgrad_wide(const WeightArguments a) { grad_weight<Wide, 4>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_wgrad_wide_scalar(const WeightArguments a) {
    grad_weight<Wide, 1>(a);
}
extern "C" __global__ void __launch_bounds__(128) conv_wgrad_narrow(const WeightArguments a) { grad_weight<Narrow, 4>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_wgrad_narrow_scalar(const WeightArguments a) {
    grad_weight<Narrow, 1>(a);
}
extern "C" __global__ void __launch_bounds__(128) conv_wgrad_small(const WeightArguments a) { grad_weight<Small, 4>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_wgrad_small_scalar(const WeightArguments a) {
    grad_weight<Small, 1>(a);
}

// The same on tensor cores, operands rounded to nearest as in conv_mma.cu, for channels in whole quads.
//
// Both operands lie with K, the pixels, down, where fragments want it across. With g = lane / 4 and t = lane % 4, a lane takes
// the quad 4g of row t of K (and of rows t + 4 ...) in one load, and its four floats for the same place in four fragments: row
// g of the left fragment's half h of tile i is output channel 4g + 2i + h, column g of the right one of tile j is column
// 4g + j (PTX ISA, "Matrix Fragments for mma.m16n8k8" and ".m16n8k16"). The rows' pad of 8 floats puts the 8 lanes of each
// quarter of a warp in different banks. Of the result a lane has, for each of its channels, columns 8t to 8t + 7: two quads.
//
// Parts, tiles and the order of parts are those above; within a part the tiles of pixels are added in order, and what is added
// within a multiplication is the hardware's affair and depends on the operands alone.
//
// Counted on the simulated device (sm_80), all of a launch: warp instructions, and passes of loads over shared memory, for a
// multiplication, for 64 to 64 channels 3x3 at 20x20 (Wide) and 32 to 32 at 26x26 (Narrow).
//   tf32  8.9  1.6   13.4  2.3
//   bf16 15.3  3.3   23.9  4.5
// No load of the main loop meets a bank conflict. A multiplication's floor on an SM of the A100 is 2 clocks, so that bf16 is bound
// by shared memory, where its operands are twice as wide as they need to be.
#if __CUDA_ARCH__ >= 800

using WideTensor = Tiling<1, 2, 2, 8, 8, 16, 8>;   // 64 x 128
using NarrowTensor = Tiling<1, 1, 4, 8, 4, 16, 8>; // 32 x 128

// A format: from a lane's floats `rows` of K, t + 4 * r for r in 0 to STEP / 4, registers of fragments, and the multiplication.
struct Tf32 {
    static constexpr int STEP = 8;
    __device__ static u32 low(const float (&rows)[2]) { return rounded(rows[0]); }
    __device__ static u32 high(const float (&rows)[2]) { return rounded(rows[1]); }
    __device__ static u32 rounded(float x) {
        u32 y;
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
        return y;
    }
    __device__ static void multiply(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
        asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
};

struct Bf16 {
    static constexpr int STEP = 16;
    __device__ static u32 low(const float (&rows)[4]) { return pair(rows[0], rows[1]); }
    __device__ static u32 high(const float (&rows)[4]) { return pair(rows[2], rows[3]); }
    __device__ static u32 pair(float low, float high) {
        u32 y;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
        return y;
    }
    __device__ static void multiply(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
};

// One quad of each of a lane's ROWS rows of K, 4 apart, as four columns.
template <int ROWS> __device__ __forceinline__ void load_columns(float (&columns)[4][ROWS], const float *from, int pitch) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const Vector<4> quad = load<4>(from + 4 * r * pitch);
#pragma unroll
        for (int e = 0; e < 4; ++e) columns[e][r] = quad.v[e];
    }
}

template <int LEFT> __device__ __forceinline__ void wait_for_all_but() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}
__device__ __forceinline__ void end_of_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// grid: parts * tiles of the result
template <class T, class F> __device__ __forceinline__ void grad_weight_on_tensor_cores(const WeightArguments &a) {
    constexpr int STAGES = 3, O_PITCH = T::BO + T::PAD, J_PITCH = T::BJ + T::PAD, ROWS = F::STEP / 4;
    constexpr int QUADS = T::TJ / 4; // groups of 32 columns of a warp
    static_assert(T::GROUPS == 1 && T::TO == 8 && T::PAD == 8 && T::BK % F::STEP == 0, "a warp has 32 channels");
    extern __shared__ __align__(128) float stages[]; // STAGES * T::STAGE
    __shared__ Window windows[2 * T::BK];

    const u32 tiles_of_part = a.tiles_o * a.tiles_j;
    const u32 part = blockIdx.x / tiles_of_part, at = blockIdx.x % tiles_of_part;
    const int first_o = at / a.tiles_j * T::BO, first_j = at % a.tiles_j * T::BJ;
    const u32 first = part * a.part, count = min(a.part, a.pixels - first);
    const int tiles = (count + T::BK - 1) / T::BK;

    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warp_o = warp / T::WJ * 32, warp_j = warp % T::WJ * (32 * QUADS);
    u32 left = lane % 4 * O_PITCH + warp_o + lane / 4 * 4, right = T::LEFT_SIZE + lane % 4 * J_PITCH + warp_j + lane / 4 * 4;
    keep(left), keep(right);

    Walk<T> walk(a, first, count);
    walk.write(windows);
    walk.write(windows + T::BK);
    __syncthreads();
    float sum[2][QUADS][4][4] = {};
    Loader<T, 4> loader(a, first, count, first_o, first_j);
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        if (stage < tiles) loader.begin(stages + stage * T::STAGE, windows + stage * T::BK);
        end_of_copies();
    }
    __syncthreads(); // both tables have been read
    walk.write(windows);
    int now = 0, next = (STAGES - 1) * T::STAGE; // the stage of this tile and the one to be filled, in floats
    for (int tile = 0; tile < tiles; ++tile) {
        wait_for_all_but<STAGES - 2>();
        // This tile and the windows of the one to be loaded are there for all, and all have done with the tile before, whose
        // place that one takes.
        __syncthreads();
        if (tile + STAGES - 1 < tiles) loader.begin(stages + next, windows + tile % 2 * T::BK);
        end_of_copies();
        walk.write(windows + (tile + 1) % 2 * T::BK); // of the tile after that
#pragma unroll
        for (int k = 0; k < T::BK; k += F::STEP) {
            float g[4][ROWS];
            load_columns(g, stages + now + left + k * O_PITCH, O_PITCH);
            u32 fragments[2][4];
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int h = 0; h < 2; ++h)
                    fragments[i][h] = F::low(g[2 * i + h]), fragments[i][h + 2] = F::high(g[2 * i + h]);
#pragma unroll
            for (int q = 0; q < QUADS; ++q) {
                float x[4][ROWS];
                load_columns(x, stages + now + right + k * J_PITCH + 32 * q, J_PITCH);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const u32 b[2] = {F::low(x[j]), F::high(x[j])};
#pragma unroll
                    for (int i = 0; i < 2; ++i) F::multiply(sum[i][q][j], fragments[i], b);
                }
            }
        }
        next = now;
        now = now == (STAGES - 1) * T::STAGE ? 0 : now + T::STAGE;
    }

    float *sums = a.sums + (u64)part * a.o * (a.kh * a.kw * a.c);
    const int own_o = first_o + warp_o + lane / 4 * 4, own_j = first_j + warp_j + lane % 4 * 8;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int q = 0; q < QUADS; ++q)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const auto &s = sum[i][q];
                    finish(a, sums, own_o + 2 * i + h, own_j + 32 * q + 4 * e,
                           make_float4(s[0][2 * h + e], s[1][2 * h + e], s[2][2 * h + e], s[3][2 * h + e]));
                }
}

// Three blocks an SM: left alone, ptxas makes room for a fourth and spills.
extern "C" __global__ void __launch_bounds__(128, 3) conv_wgrad_wide_tf32(const WeightArguments a) {
    grad_weight_on_tensor_cores<WideTensor, Tf32>(a);
}
extern "C" __global__ void __launch_bounds__(128) conv_wgrad_narrow_tf32(const WeightArguments a) {
    grad_weight_on_tensor_cores<NarrowTensor, Tf32>(a);
}
extern "C" __global__ void __launch_bounds__(128, 3) conv_wgrad_wide_bf16(const WeightArguments a) {
    grad_weight_on_tensor_cores<WideTensor, Bf16>(a);
}
extern "C" __global__ void __launch_bounds__(128) conv_wgrad_narrow_bf16(const WeightArguments a) {
    grad_weight_on_tensor_cores<NarrowTensor, Bf16>(a);
}

#endif

struct WeightSumArguments {
    const float *sums; // (parts, o, taps * c)
    float *gw;         // (o, c, taps)
    u32 parts;
    u32 o, c, taps;
};
static_assert(sizeof(WeightSumArguments) == 32, "as in launch/conv.rs");

// The parts in order, into logical order. There are many more reads than writes: so the reads are the runs.
// grid: elements of gw / 256
extern "C" __global__ void __launch_bounds__(256) conv_wgrad_sum(const WeightSumArguments a) {
    const u32 columns = a.c * a.taps;
    const u64 at = (u64)blockIdx.x * 256 + threadIdx.x, size = (u64)a.o * columns;
    if (at >= size) return;
    float sum = a.sums[at];
#pragma unroll 4
    for (u32 part = 1; part < a.parts; ++part) sum += a.sums[part * size + at];
    const u32 o = at / columns, j = at % columns, tap = j / a.c, c = j % a.c;
    a.gw[((u64)o * a.c + c) * a.taps + tap] = sum;
}
