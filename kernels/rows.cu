// Sums of columns: the gradient of a bias (over pixels), reductions over rows, and the broadcast that is their gradient.
//
// x (height, width): y[column] = sum over the height of x[.][column]. A block adds a chunk of the height in f64: its threads
// lie along the columns, so that a warp reads neighbours, and the rest of them takes every blockDim.y-th line; a tree over
// these gives the chunk's sum. Where the height is more than one chunk, the sums of the chunks pass through the workspace and
// are added by the same code. Floor: 4 bytes an element of x.
// The order of a sum is fixed by height and width alone: chunks and block shape follow from them, never from the chip.

struct ColumnArguments {
    const void *x;
    void *y;
    double divisor;
    u32 height, width;
    u32 chunk;     // lines that a block adds
    u32 positions; // the result's order is channels, positions, that of the columns positions, channels
};
static_assert(sizeof(ColumnArguments) == 40, "as in launch/rows.rs");

// The sum of a block's chunk in one column; valid at threadIdx.y 0.
template <class X> __device__ __forceinline__ double chunk_sum(const ColumnArguments &a, u32 column) {
    const u64 first = (u64)blockIdx.y * a.chunk;
    const u64 end = first + a.chunk < a.height ? first + a.chunk : a.height;
    const X *x = (const X *)a.x + column;
    double sum = 0;
    if (column < a.width)
#pragma unroll 4
        for (u64 line = first + threadIdx.y; line < end; line += blockDim.y) sum += x[line * a.width];
    return combine_column(sum, [](double a, double b) { return a + b; });
}

// grid (tiles of the width, chunks), block (columns of a tile, 256 / them)
extern "C" __global__ void __launch_bounds__(256) column_chunks(const ColumnArguments a) {
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    const double sum = chunk_sum<float>(a, column);
    if (threadIdx.y == 0 && column < a.width) ((double *)a.y)[(u64)blockIdx.y * a.width + column] = sum;
}

template <class X> __device__ __forceinline__ void column_total(const ColumnArguments &a) {
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    const double sum = chunk_sum<X>(a, column);
    if (threadIdx.y == 0 && column < a.width) {
        const u32 channels = a.width / a.positions;
        ((float *)a.y)[column % channels * a.positions + column / channels] = (float)(sum / a.divisor);
    }
}

// grid (tiles of the width), one chunk
extern "C" __global__ void __launch_bounds__(256) column_sums(const ColumnArguments a) { column_total<float>(a); }

// The same over the chunks' sums.
extern "C" __global__ void __launch_bounds__(256) column_sums_of_chunks(const ColumnArguments a) { column_total<double>(a); }

struct BroadcastArguments {
    const float *x; // (channels, positions)
    float *y;       // (rows, positions, channels)
    double divisor;
    u32 rows, width; // width = channels * positions
    u32 positions;
    u32 unused;
};
static_assert(sizeof(BroadcastArguments) == 40, "as in launch/rows.rs");

// y = x / divisor in every row. One division a column, in f64; a thread then writes every gridDim.y-th row.
extern "C" __global__ void __launch_bounds__(256) broadcast_rows(const BroadcastArguments a) {
    const u32 column = blockIdx.x * 256 + threadIdx.x;
    if (column >= a.width) return;
    const u32 channels = a.width / a.positions;
    const float value = (float)(a.x[column % channels * a.positions + column / channels] / a.divisor);
    for (u32 row = blockIdx.y; row < a.rows; row += gridDim.y) a.y[(u64)row * a.width + column] = value;
}
