// Winograd convolution F(M x M, 3 x 3), M = 2 or 4, in fp32: forward, 3x3 at stride 1, by choice (`--conv winograd`).
//
//   Y = A^T [ sum over c of (G g_c G^T) * (B^T d_c B) ] A        (* element by element)
//
// makes M x M outputs of a channel from a tile d of T x T inputs, T = M + 2, with T * T multiplications for each pair of
// channels where the sum over nine taps has 9 M * M: F(2x2) 2.25 times fewer, F(4x4) 4 times. Four kernels:
//
//   pack      U[T*T][c_padded][o_padded]    = G g G^T, in f64, rounded once; what is beyond the weights is zero
//   input     V[T*T][tiles][c]              = B^T d B
//   product   M[T*T][tiles][line]           = V U, T * T products of matrices; line: o in whole quads
//   output    y                             = A^T M A, plus bias, then ReLU
//
// Tiles are numbered over all images, row by row in an image; a launch does `tiles` of them from number `first` on, so that V
// and M of a chunk stay in a workspace of a bounded size (backend/winograd.rs). Only 3x3, stride 1, channels in whole quads.
// Gradients never come here: the sign of a gradient is the attack, and a true zero must stay 0. (The CPU's tiles serve them: it
// masks outputs whose window is all zero.)
//
// The points, and the matrices that follow from them (Toom and Cook): B^T has a row of coefficients of prod (x - q) over the
// other finite points q for each point p, and of the product over all for infinity; G the powers 1, p, p^2 over prod (p - q);
// A^T the powers 0 to M - 1 of each point.
//   F(2x2)  0, 1, -1, inf                      B^T  1  0 -1  0     G   1    0   0     A^T  1  1  1  0
//                                                   0  1  1  0        1/2  1/2 1/2         0  1 -1 -1
//                                                   0 -1  1  0        1/2 -1/2 1/2    (rows of B^T and G with signs turned)
//                                                   0  1  0 -1         0    0   1
//   F(4x4)  0, a, -a, b, -b, inf with a = 1/sqrt2 = 0.70710678118654752, b = sqrt2 = 1.41421356237309505
//     B^T  1  0 -5/2  0  1  0     G    1      0      0        A^T  1   1   1    1    1   0
//          0 -b  -2   a  1  0        -2/3  -2a/3  -1/3             0   a  -a    b   -b   0
//          0  b  -2  -a  1  0        -2/3   2a/3  -1/3             0  1/2 1/2   2    2   0
//          0 -a -1/2  b  1  0         1/6   b/6    1/3             0  a^3 -a^3 b^3 -b^3  1
//          0  a -1/2 -b  1  0         1/6  -b/6    1/3        a^3 = a/2 = 0.35355339059327376,
//          0  1   0 -5/2 0  1         0      0      1         b^3 = 2b  = 2.82842712474619010
// The usual points 0, +-1, +-2, inf err four times as much: their G and A^T have entries from 1/24 to 8.
//
// Numerics. Largest error over the largest output, against f64, weights by He and inputs behind a ReLU: F(2x2) at most 1e-6,
// as the plain sum; F(4x4) 1e-6 to 4e-6, the most at 512 channels. launch/conv/tests/winograd.rs and tests/winograd.rs assert
// 1.5e-6 and 1e-5. A sum over channels is one chain of fused multiply-adds in the order of c; transforms are written out, in a
// fixed order. A NaN may reach its whole tile, and infinity become NaN there: more than in a plain sum, never less.
// Deterministic, no atomics. A tile's numbers depend on the tile alone, so an image has the same bits in any batch or chunk.
//
// Floor, an estimate from published peaks. VGG16's 512 to 512 channels at 28x28, 32 images: the plain sum has 118 GFLOP, 1.77
// ms at 67 TFLOP/s. F(4x4): 49 tiles an image, 1568; products of 29.6 GFLOP, 0.44 ms; V and M, 116 MB each, are written and
// read once around x and y of 51 MB each, 566 MB, of which the transformations wait for 334 MB, 0.10 ms at 3.35 TB/s. Each of
// 13 chunks reads U's 38 MB again, beside its products. One after the other 0.54 ms: 3.3 times as fast, and 3.5 times on an
// A100. 64 to 64 at 224x224: 118 GFLOP again, 29.6 GFLOP and 4.6 GB. An A100 takes 3.2 ms for 6.1 ms, an H100 1.4 ms for 1.8
// ms, and an RTX 4090, with 82 operations a byte, 4.5 ms for 1.4 ms: there it gains only if chunks of 32 MB stay in L2.
// `bench kernels` lists all. A transformation has 0.7 operations a byte moved: memory decides.
//
// History. No GPU was at hand, so nothing here is timed. Counted on the simulated device (sm_80): lane instructions for a
// multiply-add, of a product of 128 to 128 channels on 18 tiles, and warp instructions in all.
//   v1  a thread has a tile's row or column, four channels of it; halves of a transform meet in shared memory    1.18  1.24 M
//   v2  a warp whose rows are all behind the last tile loads and does not multiply (this one)                    1.43  0.38 M
// Whole tiles in registers would be 36 float4, 144 registers and a third of the warps. The product is conv_gemm.cu's with a
// plain left matrix: the same tiles, swizzle and stages. Three blocks a multiprocessor are asked for: without, NVRTC keeps to
// 128 registers on sm_86 and spills. Global sectors are the least possible, and no access to shared memory meets a bank
// conflict. What only a GPU can decide: the size of chunks (L2 or full waves of blocks), and 128 x 128 tiles.

// ---- transforms, each of one row or column ----

template <int M> struct Transform;

template <> struct Transform<2> {
    __device__ static __forceinline__ void input(const float (&d)[4], float (&t)[4]) {
        t[0] = d[0] - d[2];
        t[1] = d[1] + d[2];
        t[2] = d[2] - d[1];
        t[3] = d[1] - d[3];
    }
    __device__ static __forceinline__ void output(const float (&m)[4], float (&y)[2]) {
        y[0] = m[0] + m[1] + m[2];
        y[1] = m[1] - m[2] - m[3];
    }
    __device__ static __forceinline__ void weight(const double (&g)[3], double (&u)[4]) {
        const double even = 0.5 * (g[0] + g[2]), odd = 0.5 * g[1];
        u[0] = g[0];
        u[1] = even + odd;
        u[2] = even - odd;
        u[3] = g[2];
    }
};

template <> struct Transform<4> {
    __device__ static __forceinline__ void input(const float (&d)[6], float (&t)[6]) {
        constexpr float a = 0.70710678118654752f, b = 1.41421356237309505f;
        t[0] = fmaf(-2.5f, d[2], d[0]) + d[4];
        const float even_a = fmaf(-2.0f, d[2], d[4]), odd_a = fmaf(-2.0f, d[1], d[3]);
        t[1] = fmaf(a, odd_a, even_a);
        t[2] = fmaf(-a, odd_a, even_a);
        const float even_b = fmaf(-0.5f, d[2], d[4]), odd_b = fmaf(-0.5f, d[1], d[3]);
        t[3] = fmaf(b, odd_b, even_b);
        t[4] = fmaf(-b, odd_b, even_b);
        t[5] = fmaf(-2.5f, d[3], d[1]) + d[5];
    }
    __device__ static __forceinline__ void output(const float (&m)[6], float (&y)[4]) {
        constexpr float a = 0.70710678118654752f, b = 1.41421356237309505f;
        const float even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
        y[0] = m[0] + even_a + even_b;
        y[1] = fmaf(a, odd_a, b * odd_b);
        y[2] = fmaf(0.5f, even_a, 2.0f * even_b);
        y[3] = fmaf(0.35355339059327376f, odd_a, 2.82842712474619010f * odd_b) + m[5];
    }
    __device__ static __forceinline__ void weight(const double (&g)[3], double (&u)[6]) {
        constexpr double a = 0.70710678118654752, b = 1.41421356237309505;
        const double even_a = g[0] + 0.5 * g[2], even_b = g[0] + 2.0 * g[2];
        u[0] = g[0];
        u[1] = (even_a + a * g[1]) * (-2.0 / 3.0);
        u[2] = (even_a - a * g[1]) * (-2.0 / 3.0);
        u[3] = (even_b + b * g[1]) * (1.0 / 6.0);
        u[4] = (even_b - b * g[1]) * (1.0 / 6.0);
        u[5] = g[2];
    }
};

// ---- weights ----

struct WinogradPackArguments {
    const float *weight; // (o, c, 3, 3)
    float *packed;       // (T * T, c_padded, o_padded)
    u32 o, c;
    u32 c_padded, o_padded;
};
static_assert(sizeof(WinogradPackArguments) == 32, "as in launch/winograd.rs");

// A block has 8 channels of 32 outputs: runs of 72 weights come in, a warp each, and runs of 32 outputs go out.
// grid blocks of outputs * blocks of channels; the former run fastest.
template <int M> __device__ __forceinline__ void pack(const WinogradPackArguments &a) {
    constexpr int T = M + 2;
    __shared__ float taps[32][73]; // one more than there are, so that 32 outputs lie in 32 banks
    const u32 blocks = a.o_padded / 32, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 first_o = blockIdx.x % blocks * 32, first_c = blockIdx.x / blocks * 8;
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        const u32 row = warp + 8 * i;
#pragma unroll
        for (u32 j = 0; j < 3; ++j) {
            const u32 at = lane + 32 * j;
            if (at < 72) {
                const bool inside = first_o + row < a.o && 9 * first_c + at < 9 * a.c;
                taps[row][at] = inside ? a.weight[(u64)(first_o + row) * a.c * 9 + 9 * first_c + at] : 0.0f;
            }
        }
    }
    __syncthreads();
    double half[3][T];
#pragma unroll
    for (int s = 0; s < 3; ++s) {
        double g[3];
#pragma unroll
        for (int r = 0; r < 3; ++r) g[r] = taps[lane][9 * warp + 3 * r + s];
        Transform<M>::weight(g, half[s]);
    }
    float *to = a.packed + (u64)(first_c + warp) * a.o_padded + first_o + lane;
    const u64 problem = (u64)a.c_padded * a.o_padded;
#pragma unroll
    for (int i = 0; i < T; ++i) {
        const double g[3] = {half[0][i], half[1][i], half[2][i]};
        double u[T];
        Transform<M>::weight(g, u);
#pragma unroll
        for (int j = 0; j < T; ++j) to[(T * i + j) * problem] = (float)u[j];
    }
}

extern "C" __global__ void __launch_bounds__(256) winograd_pack_2(const WinogradPackArguments a) { pack<2>(a); }
extern "C" __global__ void __launch_bounds__(256) winograd_pack_4(const WinogradPackArguments a) { pack<4>(a); }

// Transforms a line of a tile, four channels of it at once, each by itself: from N elements to K.
template <int N, int K, class F>
__device__ __forceinline__ void each_channel(const Vector<4> (&from)[N], Vector<4> (&to)[K], F transform) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
        float x[N], y[K];
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = from[i].v[e];
        transform(x, y);
#pragma unroll
        for (int i = 0; i < K; ++i) to[i].v[e] = y[i];
    }
}

// ---- input ----

struct WinogradInputArguments {
    const float *x; // (images, h, w) pixels of c channels
    float *v;       // (T * T, tiles, c)
    u32 first, tiles;
    int h, w, c;
    int x_pixel, x_image; // floats from one pixel, image to the next
    int across, plane;    // tiles of a line, of an image
    int pad;
};
static_assert(sizeof(WinogradInputArguments) == 56, "as in launch/winograd.rs");

// A lane has four channels of a tile; warp i of T the tile's column i, and then its row i.
// grid tiles * quads of channels, in blocks of 32; the quads run fastest
template <int M> __device__ __forceinline__ void transform_input(const WinogradInputArguments &a) {
    constexpr int T = M + 2;
    __shared__ Vector<4> half[T][T][32];
    const u32 lane = threadIdx.x % 32, own = threadIdx.x / 32;
    const u32 quads = a.c / 4, at = blockIdx.x * 32 + lane, tile = at / quads, channel = at % quads * 4;
    const bool live = tile < a.tiles;
    Vector<4> from[T];
    if (live) {
        const u32 number = a.first + tile, image = number / a.plane, place = number % a.plane;
        const int row = (int)(place / a.across) * M - a.pad, column = (int)(place % a.across) * M - a.pad + (int)own;
        const float *x = a.x + (u64)image * a.x_image + channel;
#pragma unroll
        for (int i = 0; i < T; ++i) {
            const bool inside = ((u32)(row + i) < (u32)a.h) & ((u32)column < (u32)a.w);
            from[i] = {};
            if (inside) from[i] = load<4>(x + ((row + i) * a.w + column) * a.x_pixel);
        }
        Vector<4> to[T];
        each_channel(from, to, [](const auto &d, auto &t) { Transform<M>::input(d, t); });
#pragma unroll
        for (int i = 0; i < T; ++i) half[i][own][lane] = to[i];
    }
    __syncthreads();
    if (live) {
#pragma unroll
        for (int i = 0; i < T; ++i) from[i] = half[own][i][lane];
        float *v = a.v + ((u64)(own * T) * a.tiles + tile) * a.c + channel;
        const u64 problem = (u64)a.tiles * a.c;
        Vector<4> to[T];
        each_channel(from, to, [](const auto &d, auto &t) { Transform<M>::input(d, t); });
#pragma unroll
        for (int i = 0; i < T; ++i) store_quad(v + i * problem, make_float4(to[i].v[0], to[i].v[1], to[i].v[2], to[i].v[3]));
    }
}

extern "C" __global__ void __launch_bounds__(128) winograd_input_2(const WinogradInputArguments a) {
    transform_input<2>(a);
}
extern "C" __global__ void __launch_bounds__(192) winograd_input_4(const WinogradInputArguments a) {
    transform_input<4>(a);
}

// ---- products ----

struct WinogradProductArguments {
    const float *v; // (T * T, tiles, c)
    const float *u; // (T * T, c_padded, o_padded)
    float *m;       // (T * T, tiles, line)
    u32 tiles;
    int c, c_padded; // the latter whole tiles of K
    int line;        // outputs in whole quads
    int o_padded;    // whole tiles of the columns
};
static_assert(sizeof(WinogradProductArguments) == 48, "as in launch/winograd.rs");

// How a block works on its tile of BM rows x BN columns: four warps of 32 rows, 4 x 8 lanes each. A lane has 8 rows, 4 apart,
// and TN columns: quads, 32 apart.
template <int TN_> struct Tiling {
    static constexpr int TN = TN_, TM = 8, LM = 4, LN = 8, BK = 16, BM = 128, BN = LN * TN, THREADS = 128;
    static constexpr int LEFT = BM * BK / 4 / THREADS, RIGHT = BK * BN / 4 / THREADS, STAGE = BM * BK + BK * BN;
    static_assert(RIGHT * THREADS * 4 == BK * BN, "whole rounds");

    // Quad q of K lies in row `row` of the left tile at q ^ swizzle(row), so that neighbouring rows have theirs in other
    // banks.
    __device__ static constexpr int swizzle(int row) { return row / 2 % 4; }
};

// One thread's share of filling the two tiles of a stage.
template <class T> struct Loader {
    const WinogradProductArguments &a;
    const float *left, *right; // the next tile's
    int offsets[T::LEFT];      // of its rows; those behind the last tile repeat it, and nobody stores what they give
    int channel;
    u32 left_place, right_place;
    Vector<4> left_values[HAS_ASYNC ? 1 : T::LEFT], right_values[HAS_ASYNC ? 1 : T::RIGHT];

    __device__ __forceinline__ Loader(const WinogradProductArguments &a, u32 first, int first_column) : a(a) {
        const u32 row = threadIdx.x / (T::BK / 4), quad = threadIdx.x % (T::BK / 4);
        channel = 4 * quad;
        left = a.v + (u64)blockIdx.y * a.tiles * a.c + (u64)first * a.c + channel;
        right = a.u + (u64)blockIdx.y * a.c_padded * a.o_padded + threadIdx.x / (T::BN / 4) * a.o_padded +
                threadIdx.x % (T::BN / 4) * 4 + first_column;
#pragma unroll
        for (int j = 0; j < T::LEFT; ++j) offsets[j] = min(row + 32 * j, a.tiles - 1 - first) * a.c;
        // rows 32 apart have one swizzle
        left_place = row * T::BK + (quad ^ T::swizzle(row)) * 4;
        right_place = T::BM * T::BK + 4 * threadIdx.x;
        keep(left_place), keep(right_place);
    }

    // Begins to load the next K tile, into `stage` if it copies asynchronously. Behind the last channel there are zeros.
    __device__ __forceinline__ void begin(float *stage) {
        const bool inside = channel < a.c;
#pragma unroll
        for (int j = 0; j < T::LEFT; ++j) {
            const float *from = inside ? left + offsets[j] : a.v;
            if (HAS_ASYNC) {
                copy_async<4>(stage + left_place + 32 * j * T::BK, from, inside ? 16 : 0);
            } else {
                left_values[j] = {};
                if (inside) left_values[j] = load<4>(from);
            }
        }
#pragma unroll
        for (int j = 0; j < T::RIGHT; ++j) {
            const float *from = right + j * (T::THREADS / (T::BN / 4)) * a.o_padded;
            if (HAS_ASYNC) {
                copy_async<4>(stage + right_place + 4 * j * T::THREADS, from, 16);
            } else {
                right_values[j] = load<4>(from);
            }
        }
        left += T::BK;
        right += T::BK * a.o_padded;
        channel += T::BK;
    }

    // Puts into `stage` what is still in registers.
    __device__ __forceinline__ void end(float *stage) {
#pragma unroll
        for (int j = 0; j < (HAS_ASYNC ? 0 : T::LEFT); ++j) store<4>(stage + left_place + 32 * j * T::BK, left_values[j]);
#pragma unroll
        for (int j = 0; j < (HAS_ASYNC ? 0 : T::RIGHT); ++j)
            store<4>(stage + right_place + 4 * j * T::THREADS, right_values[j]);
    }
};

__device__ __forceinline__ float4 quad_at(const float *floats, u32 bytes) {
    return *(const float4 *)((const char *)floats + bytes);
}

// Adds the products of a stage. `left` and `right` are where the lane's first row and its columns begin, in bytes; `left` has
// the row's swizzle in it, so that another quad of K is an exclusive or away.
template <class T>
__device__ __forceinline__ void multiply(const float *stages, u32 left, u32 right, float (&sum)[T::TM][T::TN]) {
    // as in conv_gemm.cu: 8 KB of code a turn
#pragma unroll 2
    for (int q = 0; q < T::BK / 4; ++q) {
        float4 x[T::TM];
#pragma unroll
        for (int i = 0; i < T::TM; ++i)
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
            for (int i = 0; i < T::TM; ++i) {
                const float v = e == 0 ? x[i].x : e == 1 ? x[i].y : e == 2 ? x[i].z : x[i].w;
#pragma unroll
                for (int j = 0; j < T::TN; ++j) sum[i][j] = fmaf(v, w[j], sum[i][j]);
            }
        }
    }
}

// grid (tiles of the rows * tiles of the columns, T * T); the columns run fastest, so that neighbours share V
template <class T> __device__ __forceinline__ void product(const WinogradProductArguments &a) {
    __shared__ __align__(128) float stages[2 * T::STAGE];
    const u32 across = (u32)a.o_padded / T::BN, first = blockIdx.x / across * T::BM;
    const int first_column = blockIdx.x % across * T::BN;
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int own_row = warp * (T::LM * T::TM) + lane / T::LN, own_column = lane % T::LN * 4;
    const bool live = first + warp * (T::LM * T::TM) < a.tiles; // else the warp loads for the others and has nothing to add
    float sum[T::TM][T::TN] = {};

    Loader<T> loader(a, first, first_column);
    loader.begin(stages), loader.end(stages);
    u32 left = (own_row * T::BK + T::swizzle(own_row) * 4) * 4, right = (T::BM * T::BK + own_column) * 4;
    keep(left), keep(right);
    int now = 0; // the stage of this tile, in floats
    for (int k = T::BK; k <= a.c_padded; k += T::BK) {
        wait_for_copies();
        // This tile is there for all, and all have done with the one before, whose place the next one takes.
        __syncthreads();
        const int next = T::STAGE - now;
        if (k < a.c_padded) loader.begin(stages + next);
        if (live) multiply<T>(stages, left + now * 4, right + now * 4, sum);
        if (k < a.c_padded) loader.end(stages + next);
        now = next;
    }

    float *m = a.m + (u64)blockIdx.y * a.tiles * a.line + (u64)first * a.line + first_column;
#pragma unroll
    for (int i = 0; i < T::TM; ++i) {
        const u32 row = own_row + i * T::LM;
        if (first + row < a.tiles) {
#pragma unroll
            for (int j = 0; j < T::TN; j += 4) {
                const int column = own_column + j * T::LN;
                if (first_column + column < a.line)
                    store_quad(m + row * a.line + column,
                               make_float4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]));
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(128, 3) winograd_product_wide(const WinogradProductArguments a) {
    product<Tiling<8>>(a);
}
extern "C" __global__ void __launch_bounds__(128, 3) winograd_product_narrow(const WinogradProductArguments a) {
    product<Tiling<4>>(a);
}

// ---- output ----

struct WinogradOutputArguments {
    const float *m;    // (T * T, tiles, line)
    const float *bias; // (n), or null
    float *y;          // (images, p, q) pixels of n channels
    u32 first, tiles;
    int line, n;
    int p, q;
    int y_pixel, y_image; // floats from one pixel, image to the next
    int across, plane;    // tiles of a line, of an image
    u32 options;
};
static_assert(sizeof(WinogradOutputArguments) == 72, "as in launch/winograd.rs");

enum { RELU = 1, STORE_QUADS = 2 };

// A lane has four channels of a tile; warp i of T the tile's column i, and then, of the first M, the output's row i.
// grid tiles * quads of channels, in blocks of 32; the quads run fastest
template <int M> __device__ __forceinline__ void transform_output(const WinogradOutputArguments &a) {
    constexpr int T = M + 2;
    __shared__ Vector<4> half[M][T][32];
    const u32 lane = threadIdx.x % 32, own = threadIdx.x / 32;
    const u32 quads = a.line / 4, at = blockIdx.x * 32 + lane, tile = at / quads;
    const int channel = at % quads * 4;
    const bool live = tile < a.tiles;
    Vector<4> from[T], to[M];
    if (live) {
        const float *m = a.m + ((u64)own * a.tiles + tile) * a.line + channel;
        const u64 row = (u64)T * a.tiles * a.line;
#pragma unroll
        for (int i = 0; i < T; ++i) from[i] = load<4>(m + i * row);
        each_channel(from, to, [](const auto &t, auto &y) { Transform<M>::output(t, y); });
#pragma unroll
        for (int i = 0; i < M; ++i) half[i][own][lane] = to[i];
    }
    __syncthreads();
    if (!live || own >= M) return;
    const u32 number = a.first + tile, image = number / a.plane, place = number % a.plane;
    const int p = (int)(place / a.across) * M + (int)own, q = (int)(place % a.across) * M;
    if (p >= a.p) return;
    Vector<4> bias = {};
    if (a.bias && a.options & STORE_QUADS) {
        bias = load<4>(a.bias + channel);
    } else if (a.bias) {
#pragma unroll
        for (int e = 0; e < 4; ++e)
            if (channel + e < a.n) bias.v[e] = a.bias[channel + e];
    }
#pragma unroll
    for (int i = 0; i < T; ++i) from[i] = half[own][i][lane];
    each_channel(from, to, [](const auto &t, auto &y) { Transform<M>::output(t, y); });
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) to[i].v[e] = a.options & RELU ? relu(to[i].v[e] + bias.v[e]) : to[i].v[e] + bias.v[e];
    float *y = a.y + (u64)image * a.y_image + (p * a.q + q) * a.y_pixel + channel;
#pragma unroll
    for (int i = 0; i < M; ++i) {
        if (q + i < a.q) {
            float *pixel = y + i * a.y_pixel;
            if (a.options & STORE_QUADS) {
                store_quad(pixel, make_float4(to[i].v[0], to[i].v[1], to[i].v[2], to[i].v[3]));
            } else {
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    if (channel + e < a.n) pixel[e] = to[i].v[e];
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(128) winograd_output_2(const WinogradOutputArguments a) {
    transform_output<2>(a);
}
extern "C" __global__ void __launch_bounds__(192) winograd_output_4(const WinogradOutputArguments a) {
    transform_output<4>(a);
}
