// The paper's pixel mask (grid10: 10 of 100 cells) and random signs, drawn and applied on the device: pixels (N, H, W, C).
//
// Both draw from Philox4x32-10 as src/random.rs does: key = seed (low, high word), counter = (index, image's low word, its high
// word, FNV-1a-32 of the stream's name), and the first word of the block. So a pixel depends on seed, dataset index, draw and
// place alone, and has the bits that src/causal/intervention.rs gives it on the host.
// Floor: 8 bytes an element. A mask's ten draws are made once in each block, for 4096 elements.

struct Draw {
    u32 key[2];
    u32 name; // the stream's
    u32 first; // index of the first draw
};
static_assert(sizeof(Draw) == 16, "as in launch/mask.rs");

// The word of draw `index`; `image` points to the low and the high word of a dataset index.
__device__ __forceinline__ u32 philox(const Draw &draw, const u32 *image, u32 index) {
    u32 c0 = index, c1 = image[0], c2 = image[1], c3 = draw.name, k0 = draw.key[0], k1 = draw.key[1];
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u64 a = (u64)c0 * 0xD2511F53u, b = (u64)c2 * 0xCD9E8D57u;
        c0 = (u32)(b >> 32) ^ c1 ^ k0, c1 = (u32)b;
        c2 = (u32)(a >> 32) ^ c3 ^ k1, c3 = (u32)a;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return c0;
}

struct MaskArguments {
    const float *x;
    float *y;
    const u32 *images; // (rows, 2): dataset index, low word first
    Draw draw;
    float fill;
    u32 channels, height, width;
    u32 row;        // elements of an image
    u32 row_blocks; // blocks of an image
    u32 lanes;      // elements that a thread takes at once: 4 or 1
    u32 unused;
};
static_assert(sizeof(MaskArguments) == 72, "as in launch/mask.rs");

constexpr u32 SIDE = 10, CELLS = SIDE * SIDE, TAKEN = 10;

template <int V> __device__ __forceinline__ void fill_cells(const MaskArguments &a, u64 low, u64 high) {
    const u64 image = (u64)(blockIdx.x / a.row_blocks) * a.row;
    const u32 first = blockIdx.x % a.row_blocks * 4096;
    const u32 end = a.row - first < 4096 ? a.row : first + 4096;
    for (u32 at = first + threadIdx.x * V; at < end; at += 256 * V) {
        Vector<V> v = load<V>(a.x + image + at);
        u32 channel = at % a.channels, column = at / a.channels % a.width, line = at / a.channels / a.width;
#pragma unroll
        for (int k = 0; k < V; k++) {
            // the cell whose edges floor(i · size / 10) enclose a place
            const u32 cell = (SIDE * line + SIDE - 1) / a.height * SIDE + (SIDE * column + SIDE - 1) / a.width;
            if ((cell < 64 ? low >> cell : high >> (cell - 64)) & 1) v.v[k] = a.fill;
            if (++channel == a.channels) {
                channel = 0;
                if (++column == a.width) column = 0, line++;
            }
        }
        store<V>(a.y + image + at, v);
    }
}

// y = fill in the image's cells, else x. Cells are the first ten of a Fisher-Yates shuffle: draw d picks among the 100 - d left
// by multiply-and-shift.
extern "C" __global__ void __launch_bounds__(256) grid_mask(const MaskArguments a) {
    __shared__ u32 order[CELLS], pick[TAKEN];
    __shared__ u64 cells[2]; // a bit a cell, 64 in the first
    const u32 *image = a.images + 2 * (u64)(blockIdx.x / a.row_blocks);
    const u32 t = threadIdx.x;
    if (t < CELLS) order[t] = t;
    if (t < TAKEN) pick[t] = __umulhi(philox(a.draw, image, a.draw.first + t), CELLS - t);
    __syncthreads();
    if (t == 0) {
        u64 low = 0, high = 0;
        for (u32 d = 0; d < TAKEN; d++) {
            const u32 cell = order[d + pick[d]];
            order[d + pick[d]] = order[d];
            if (cell < 64) low |= 1ull << cell;
            else high |= 1ull << (cell - 64);
        }
        cells[0] = low, cells[1] = high;
    }
    __syncthreads();
    if (a.lanes == 4) fill_cells<4>(a, cells[0], cells[1]);
    else fill_cells<1>(a, cells[0], cells[1]);
}

struct SignsArguments {
    const float *x;
    float *y;
    const u32 *images; // (rows, 2): dataset index, low word first
    Draw draw;
    float eps;
    u32 channels, positions;
    u32 items;
};
static_assert(sizeof(SignsArguments) == 56, "as in launch/mask.rs");

// y = clip(x ± eps, 0, 1), minus where the top bit of a pixel's word is set; its index counts in (C, H, W) order. A NaN stays.
extern "C" __global__ void __launch_bounds__(256) random_signs(const SignsArguments a) {
    const u32 t = blockIdx.x * 256 + threadIdx.x;
    if (t >= a.items) return;
    const u32 pixel = t / a.channels, row = pixel / a.positions;
    const u32 index = t % a.channels * a.positions + pixel % a.positions;
    const bool minus = philox(a.draw, a.images + 2 * (u64)row, index) >> 31;
    const float x = a.x[t] + (minus ? -a.eps : a.eps);
    a.y[t] = x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x;
}
