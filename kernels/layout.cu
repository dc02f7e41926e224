// Between logical order (N, C, S) and channels-last (N, S, C), S = H·W: what enters and leaves a slot, and reshapes.
//
// A tile of 32 x 32 elements passes through shared memory, so that reads and writes are both runs of 128 bytes; a row of the
// tile is 33 floats wide, so that its columns lie in 32 banks. Floor: 8 bytes of traffic an element.
// Called by layout.rs for both directions: they are the same transposition with the extents exchanged.

struct TransposeArguments {
    const float *x; // (rows, height, width)
    float *y;       // (rows, width, height)
    u32 height, width;
};
static_assert(sizeof(TransposeArguments) == 24, "as in launch/layout.rs");

// grid (rows * tiles of the width, tiles of the height), block (32, 8)
extern "C" __global__ void __launch_bounds__(256) transpose(const TransposeArguments a) {
    __shared__ float tile[32][33];
    const u32 tiles = (a.width + 31) / 32;
    const u64 row = (u64)(blockIdx.x / tiles) * a.height * a.width;
    const u32 left = blockIdx.x % tiles * 32, top = blockIdx.y * 32;
    for (u32 i = threadIdx.y; i < 32; i += 8)
        if (top + i < a.height && left + threadIdx.x < a.width)
            tile[i][threadIdx.x] = a.x[row + (u64)(top + i) * a.width + left + threadIdx.x];
    __syncthreads();
    for (u32 i = threadIdx.y; i < 32; i += 8)
        if (left + i < a.width && top + threadIdx.x < a.height)
            a.y[row + (u64)(left + i) * a.height + top + threadIdx.x] = tile[threadIdx.x][i];
}
