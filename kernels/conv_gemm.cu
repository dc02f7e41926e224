// Convolution as an implicit GEMM: forward, and the gradient of its input.
//
//   y[m, n] = bias[n] + sum over r, s, c of x[pixel(m, r, s), c] * w[(r * KW + s) * C + c, n]   (then ReLU)
//
// m runs over the pixels of all images, n over output channels. The matrix on the left never exists: a block gathers its
// tiles from x (channels-last) and fills with zeros what lies in the padding. Weights come packed (conv_pack.cu).
// Input gradients are the same with x = gy and the weights turned round and transposed. A stride S there makes S * S problems
// of stride 1, one for each residue of the input's row and column modulo S, over the taps that hit it, writing every S-th
// pixel (launch/conv.rs): no product with an inserted zero, no atomics. A linear layer is a 1x1 convolution of one pixel.
//
// Floor: 2 M N K operations, and 4 bytes for each element of x, w and y once. VGG16's 512 to 512 channels at 14x14, 32 images:
// 30 GFLOP, 0.44 ms at 67 TFLOP/s, and 35 MB, 0.01 ms at 3.35 TB/s. The first layer of a network, 1 to 32 channels: 132 bytes
// and 576 operations a pixel, where memory takes four times as long.
// A block reads BM + BN floats for BM * BN multiply-adds: Wide 0.09 bytes each, which is 3 TB/s from L2 at that peak.
//
// Sums of more than 576 terms a thread are cut in pieces of 192, as on the CPU (backend/cpu/conv.rs): as one chain a sum of n terms is
// wrong by some sqrt(n / 2) roundings of it (VGG's 4608: 48), in pieces by 10. A piece is added to what y holds of those before it,
// by the thread that left it there, so totals need neither registers, which would be 64 more of a thread's 150 or so, nor shared
// memory. A GPU pays for each piece but the first 2 BM BN floats to and from L2 beside its 192 (BM + BN) (Wide: 44 %, which makes
// 4.3 TB/s from L2 at that peak), one instruction for every 170 multiply-adds, and one wait for the first tile of a piece, which
// the other blocks of a multiprocessor cover. Shorter sums pay nothing.
//
// Deterministic: a thread adds a piece's products in the order of K, whatever the tile, or (Deep) eight threads do, each its
// eighth of every K tile, and their sums are added in order; pieces too. The tile follows from the layer's shape. No atomics.
//
// History. No GPU was at hand, so nothing here is timed. Counted on the simulated device (sm_80): lane instructions for a
// multiply-add, all of a launch, in a layer of 64 to 64 channels 3x3 at 20x20 (Wide), 32 to 32 at 26x26 (Narrow) and a linear
// one of 1600 to 256 (Deep).
//   v1  validity tested for every quad that is copied                   1.28  1.54  1.68
//   v2  found once a tap; rows of the table of pixels as one load       1.23  1.46  1.51
//   v3  indices held that the compiler computed anew in each turn       1.19  1.38  1.37
//   v4  sizes of copies held, not bits (this one)                       1.18  1.36  1.36
// A row of the left tile is a pixel's run of K, as copies of 16 bytes want it, and not a run of pixels, which would need four
// stores or asynchronous copies of 4 bytes for each. With whole quads of channels global sectors are the least possible, and no
// load of the main loop meets a bank conflict. In machine code (sm_80) its innermost loop has 1.10 (Wide) and 1.16 (Narrow)
// instructions for a multiply-add.
// What only a GPU can decide: a third stage, and 128 x 128 tiles for 128 channels and more.

// Weights: (k_tiles * BK, n_padded), packed by conv_pack.cu.
#include "conv.cuh"

// How a block works on its tile of BM pixels x BN channels: GROUPS slices of each K tile of BK, a slice's outputs over
// WM x WN warps, a warp's over LM x LN lanes. A lane has TM pixels, LM apart, and TN channels: quads, 4 * LN apart.
template <int GROUPS_, int WM_, int WN_, int LM_, int TM_, int TN_, int BK_> struct Tiling {
    static constexpr int GROUPS = GROUPS_, WM = WM_, WN = WN_, LM = LM_, LN = 32 / LM_, TM = TM_, TN = TN_, BK = BK_;
    static constexpr int BM = WM * LM * TM, BN = WN * LN * TN, THREADS = 32 * GROUPS * WM * WN;
    static constexpr int CHAIN_MAX = 576 * GROUPS / BK; // K tiles of the longest sum that is one chain a thread
    static constexpr int PIECE = 192 * GROUPS / BK;     // K tiles of a piece of a longer one
    static_assert(TN % 4 == 0 && BK % (4 * GROUPS) == 0, "whole float4 of channels and of K");
    static_assert(BK == 16 || BK % 32 == 0, "`swizzle` knows these rows");

    // Where quad q of K lies in row `row` of the left tile: a row is BK floats without a gap, so that a copy of 16 bytes
    // stays one, and the quads are permuted so that neighbouring rows have theirs in other banks. As the bits of a
    // lane's own row and of LM * i are disjoint, swizzle(own + LM * i) = swizzle(own) ^ swizzle(LM * i): one is known to
    // the compiler, the other is fixed for a lane.
    __device__ static constexpr int swizzle(int row) { return BK == 16 ? row / 2 % 4 : row % 8; }
};

using Wide = Tiling<1, 4, 1, 4, 8, 8, 16>;   // 128 x 64
using Narrow = Tiling<1, 4, 1, 4, 8, 4, 16>; // 128 x 32
using Thin = Tiling<1, 4, 1, 32, 2, 4, 16>;  // 256 x 4
using Deep = Tiling<8, 1, 1, 4, 8, 4, 64>;   // 32 x 32, each K tile over eight warps

// One thread's share of filling the two tiles of a stage. V: floats that it moves at once on the left, 4 where a pixel's
// channels are whole quads, else 1. It copies asynchronously where it can, and through registers where the chip has no such
// copies or, on the left, the values change on the way.
template <class T, int V, bool PROLOGUE> struct Loader {
    static constexpr bool LEFT_ASYNC = HAS_ASYNC && !PROLOGUE;
    static constexpr int ACROSS = T::BK / V, DOWN = T::THREADS / ACROSS, LEFT = T::BM / DOWN;
    static constexpr int QUADS = T::BK * T::BN / 4, RIGHT = (QUADS + T::THREADS - 1) / T::THREADS;
    static_assert(T::THREADS % ACROSS == 0 && T::BM % DOWN == 0, "a thread keeps its place in K");
    static_assert(QUADS % T::THREADS == 0 || RIGHT == 1, "only a single round may be a partial one");

    // Where a pixel's channel lies, from `here` on, and how many bytes to read there: none in the padding.
    struct Source {
        int offset;
        u32 bytes;
    };

    const ConvArguments &a;
    const Pixel *pixels; // from this thread's first row on
    const float *x, *weight;
    u32 left_place, right_place; // of its first parts in the tiles
    int r, s, channel;           // its place in K: tap and channel
    const float *here;           // x, from that channel on
    // With quads a tap lasts for several tiles, so its pixels are kept. Single floats are many, and their tap soon over.
    Source sources[V == 1 ? 1 : LEFT];
    Vector<V> left[LEFT_ASYNC ? 1 : LEFT];
    Vector<4> right[HAS_ASYNC ? 1 : RIGHT];
    Vector<V> scale, shift;
    u32 present; // bit j: left[j] is no padding

    __device__ __forceinline__ Loader(const ConvArguments &a, const Pixel *pixels, const float *x, const float *weight)
        : a(a), pixels(pixels + threadIdx.x / ACROSS), x(x),
          weight(weight + threadIdx.x / (T::BN / 4) * a.n_padded + threadIdx.x % (T::BN / 4) * 4) {
        const int row = threadIdx.x / ACROSS, k = threadIdx.x % ACROSS * V, tap = k / a.c;
        left_place = row * T::BK + (k / 4 ^ T::swizzle(row)) * 4 + k % 4;
        right_place = T::BM * T::BK + 4 * threadIdx.x;
        keep(left_place), keep(right_place);
        channel = k - tap * a.c;
        r = tap / a.kw;
        s = tap - r * a.kw;
        begin_tap();
    }

    __device__ __forceinline__ void begin_tap() {
        here = x + channel;
#pragma unroll
        for (int j = 0; j < (V == 1 ? 0 : LEFT); ++j) sources[j] = find(j);
    }

    // The source of row j. Behind the last tap there is padding, too. Padding is not read, but its address is one.
    __device__ __forceinline__ Source find(int j) const {
        const Pixel at = pixels[j * DOWN];
        const bool in = (r < a.kh) & ((u32)(at.row + r) < (u32)a.h) & ((u32)(at.column + s) < (u32)a.w);
        return {in ? at.x + (r * a.w + s) * a.x_pixel : 0, in ? 4u * V : 0u};
    }

    // Begins to load the next K tile, into `stage` if it copies asynchronously.
    __device__ __forceinline__ void begin(float *stage) {
        present = 0;
#pragma unroll
        for (int j = 0; j < LEFT; ++j) {
            const Source source = V == 1 ? find(j) : sources[V == 1 ? 0 : j];
            const float *from = here + source.offset;
            if (LEFT_ASYNC) {
                copy_async<V>(stage + left_at(j), from, source.bytes);
            } else if (source.bytes) {
                left[j] = load<V>(from);
                present |= 1u << j;
            } else {
                left[j] = {};
            }
        }
        if (PROLOGUE && present) {
            scale = load<V>(a.scale + channel);
            shift = load<V>(a.shift + channel);
        }
#pragma unroll
        for (int j = 0; j < RIGHT; ++j) {
            if (QUADS % T::THREADS == 0 || threadIdx.x < QUADS) {
                const float *from = weight + j * (T::THREADS / (T::BN / 4)) * a.n_padded;
                if (HAS_ASYNC) {
                    copy_async<4>(stage + right_at(j), from, 16);
                } else {
                    right[j] = load<4>(from);
                }
            }
        }
        weight += T::BK * a.n_padded;
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

    // Puts into `stage` what is still in registers.
    __device__ __forceinline__ void end(float *stage) {
#pragma unroll
        for (int j = 0; j < (LEFT_ASYNC ? 0 : LEFT); ++j) {
            if (PROLOGUE && present >> j & 1) {
#pragma unroll
                for (int e = 0; e < V; ++e) left[j].v[e] = relu(fmaf(left[j].v[e], scale.v[e], shift.v[e]));
            }
            store<V>(stage + left_at(j), left[j]);
        }
#pragma unroll
        for (int j = 0; j < (HAS_ASYNC ? 0 : RIGHT); ++j)
            if (QUADS % T::THREADS == 0 || threadIdx.x < QUADS) store<4>(stage + right_at(j), right[j]);
    }

    // The place of row j * DOWN further down: its own bits and theirs are disjoint, see `swizzle`.
    __device__ __forceinline__ int left_at(int j) const {
        return (left_place ^ T::swizzle(j * DOWN) * 4) + j * DOWN * T::BK;
    }
    __device__ __forceinline__ int right_at(int j) const { return right_place + 4 * j * T::THREADS; }
};

__device__ __forceinline__ float4 quad_at(const float *floats, u32 bytes) {
    return *(const float4 *)((const char *)floats + bytes);
}

// Adds the products of a stage for the first LIVE of a lane's TM pixels. `left` and `right` are where its first row and its
// columns begin, in bytes; `left` has the row's swizzle in it, so that another quad of K is an exclusive or away.
template <class T, int LIVE>
__device__ __forceinline__ void multiply(const float *stages, u32 left, u32 right, float (&sum)[T::TM][T::TN]) {
    // 512 multiply-adds a turn are 8 KB of code: twice that would leave the innermost instruction cache
#pragma unroll 2
    for (int q = 0; q < T::BK / T::GROUPS / 4; ++q) {
        float4 x[LIVE];
#pragma unroll
        for (int i = 0; i < LIVE; ++i)
            x[i] = quad_at(stages, (left ^ (q ^ T::swizzle(T::LM * i)) * 16) + i * T::LM * T::BK * 4);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            float w[T::TN];
#pragma unroll
            for (int j = 0; j < T::TN; j += 4) {
                const float4 f = quad_at(stages, right + ((4 * q + e) * T::BN + j * T::LN) * 4);
                w[j] = f.x, w[j + 1] = f.y, w[j + 2] = f.z, w[j + 3] = f.w;
            }
#pragma unroll
            for (int i = 0; i < LIVE; ++i) {
                const float v = e == 0 ? x[i].x : e == 1 ? x[i].y : e == 2 ? x[i].z : x[i].w;
#pragma unroll
                for (int j = 0; j < T::TN; ++j) sum[i][j] = fmaf(v, w[j], sum[i][j]);
            }
        }
    }
}

// Which piece of a sum it is.
struct Piece {
    bool first, last;
};

// Stores up to four channels of a pixel, of which `there` are left, with what the pieces before have left there.
__device__ __forceinline__ void finish(const ConvArguments &a, float *to, int there, float4 sum, Piece piece) {
    if (!piece.first && a.options & STORE_QUADS && there > 0) {
        const float4 before = *(const float4 *)to;
        sum.x += before.x, sum.y += before.y, sum.z += before.z, sum.w += before.w;
    } else if (!piece.first) {
        if (there > 0) sum.x += to[0];
        if (there > 1) sum.y += to[1];
        if (there > 2) sum.z += to[2];
        if (there > 3) sum.w += to[3];
    }
    if (piece.last && a.options & RELU) sum = make_float4(relu(sum.x), relu(sum.y), relu(sum.z), relu(sum.w));
    if (a.options & STORE_QUADS) {
        if (there > 0) store_quad(to, sum);
    } else {
        if (there > 0) to[0] = sum.x;
        if (there > 1) to[1] = sum.y;
        if (there > 2) to[2] = sum.z;
        if (there > 3) to[3] = sum.w;
    }
}

// Where a thread's sums lie in the block's tile.
template <class T> struct Own {
    int group, row, column;

    // Found anew wherever it is used, which costs little beside registers that hold it while a piece is summed.
    __device__ __forceinline__ Own() {
        u32 thread = threadIdx.x;
        keep(thread);
        const u32 warp = thread / 32, lane = thread % 32;
        group = warp / (T::WM * T::WN);
        row = warp / T::WN % T::WM * (T::LM * T::TM) + lane / T::LN;
        column = warp % T::WN * (T::LN * T::TN) + lane % T::LN * 4;
    }
};

// grid: tiles of the pixels * tiles of the channels; the latter run fastest, so that neighbours share x
template <class T, int V, bool PROLOGUE> __device__ __forceinline__ void convolve(const ConvArguments &a) {
    constexpr int LEFT_SIZE = T::BM * T::BK, STAGE = LEFT_SIZE + T::BK * T::BN, SLICE = T::BK / T::GROUPS;
    static_assert(STAGE % T::BK == 0, "a row's quads of K begin at a multiple of their length");
    __shared__ __align__(128) float stages[2 * STAGE];
    __shared__ Pixel pixels[T::BM];

    const u32 tiles = (u32)a.n_padded / T::BN, plane = a.p * a.q;
    const u32 first = blockIdx.x / tiles * T::BM, image = first / plane;
    const int first_column = blockIdx.x % tiles * T::BN;
#pragma unroll
    for (int i = 0; i < (T::BM + T::THREADS - 1) / T::THREADS; ++i) {
        const int row = threadIdx.x + i * T::THREADS;
        if (T::BM % T::THREADS != 0 && row >= T::BM) break;
        pixels[row] = find_pixel(a, first, image, row);
    }
    __syncthreads();

    const int live = min(a.pixels - first, (u32)T::BM);

    Loader<T, V, PROLOGUE> loader(a, pixels, a.x + (u64)image * a.x_image, a.weight + first_column);
    const Own<T> own;
    u32 left = (own.row * T::BK + ((own.group * SLICE / 4) ^ T::swizzle(own.row)) * 4) * 4;
    u32 right = (LEFT_SIZE + own.group * SLICE * T::BN + own.column) * 4;
    keep(left), keep(right);

    int tile = 0;
    do {
        const int end = a.k_tiles <= T::CHAIN_MAX ? a.k_tiles : min(tile + T::PIECE, a.k_tiles);
        const Piece piece = {tile == 0, end == a.k_tiles};
        // The first sums begin with the bias, those of one group.
        float sum[T::TM][T::TN] = {};
        if (piece.first && a.bias) {
            const Own<T> own;
#pragma unroll
            for (int j = 0; j < T::TN; ++j) {
                const int column = first_column + own.column + j / 4 * 4 * T::LN + j % 4;
                const float bias = own.group == 0 && column < a.n ? a.bias[column] : 0.0f;
#pragma unroll
                for (int i = 0; i < T::TM; ++i) sum[i][j] = bias;
            }
        }
        if (!piece.first) {
            __syncthreads();    // the stages have been read
            loader.begin_tap(); // so that sources need no registers from piece to piece
        }
        if (tile < end) loader.begin(stages), loader.end(stages);
        int now = 0; // the stage of this tile, in floats
        while (tile < end) {
            wait_for_copies();
            // This tile is there for all, and all have done with the one before, whose place the next one takes.
            __syncthreads();
            const int next = STAGE - now;
            if (++tile < end) loader.begin(stages + next);
            if (T::GROUPS > 1 && live <= T::LM) {
                multiply<T, 1>(stages, left + now * 4, right + now * 4, sum);
            } else {
                multiply<T, T::TM>(stages, left + now * 4, right + now * 4, sum);
            }
            if (tile < end) loader.end(stages + next);
            now = next;
        }

        const Own<T> own;
        float *y = a.y + (u64)image * a.y_image + first_column;
        const int columns = a.n - first_column;
        if (T::GROUPS == 1) {
#pragma unroll
            for (int i = 0; i < T::TM; ++i) {
                const int row = own.row + i * T::LM;
                if (row < live) {
#pragma unroll
                    for (int j = 0; j < T::TN; j += 4)
                        finish(a, y + pixels[row].y + own.column + j * T::LN, columns - own.column - j * T::LN,
                               make_float4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]), piece);
                }
            }
        } else {
            static_assert(T::GROUPS == 1 || (T::WM * T::WN == 1 && T::GROUPS * T::BM * T::BN <= 2 * STAGE),
                          "room for the sums");
            __syncthreads(); // the last stage has been read
#pragma unroll
            for (int i = 0; i < T::TM; ++i)
#pragma unroll
                for (int j = 0; j < T::TN; j += 4)
                    *(float4 *)(stages + (own.group * T::BM + own.row + i * T::LM) * T::BN + own.column + j * T::LN) =
                        make_float4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]);
            __syncthreads();
            for (int quad = threadIdx.x; quad < T::BM * T::BN / 4; quad += T::THREADS) {
                const int row = quad / (T::BN / 4), column = quad % (T::BN / 4) * 4;
                if (row < live) {
                    float4 total = *(const float4 *)(stages + 4 * quad);
#pragma unroll
                    for (int g = 1; g < T::GROUPS; ++g) {
                        const float4 part = *(const float4 *)(stages + g * T::BM * T::BN + 4 * quad);
                        total.x += part.x, total.y += part.y, total.z += part.z, total.w += part.w;
                    }
                    finish(a, y + pixels[row].y + column, columns - column, total, piece);
                }
            }
        }
    } while (tile < a.k_tiles);
}

extern "C" __global__ void __launch_bounds__(128) conv_wide(const ConvArguments a) { convolve<Wide, 4, false>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_wide_scalar(const ConvArguments a) { convolve<Wide, 1, false>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_narrow(const ConvArguments a) { convolve<Narrow, 4, false>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_narrow_scalar(const ConvArguments a) {
    convolve<Narrow, 1, false>(a);
}
extern "C" __global__ void __launch_bounds__(128) conv_thin(const ConvArguments a) { convolve<Thin, 4, false>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_thin_scalar(const ConvArguments a) { convolve<Thin, 1, false>(a); }
extern "C" __global__ void __launch_bounds__(256) conv_deep(const ConvArguments a) { convolve<Deep, 4, false>(a); }
extern "C" __global__ void __launch_bounds__(256) conv_deep_scalar(const ConvArguments a) { convolve<Deep, 1, false>(a); }

// The same on relu(x * scale + shift).
extern "C" __global__ void __launch_bounds__(128) conv_wide_prologue(const ConvArguments a) { convolve<Wide, 4, true>(a); }
extern "C" __global__ void __launch_bounds__(128) conv_narrow_prologue(const ConvArguments a) {
    convolve<Narrow, 4, true>(a);
}
extern "C" __global__ void __launch_bounds__(256) conv_deep_prologue(const ConvArguments a) { convolve<Deep, 4, true>(a); }
