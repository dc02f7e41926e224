// Inclusive prefix sums of rows, a block each: inside warps through shared memory, then over the warps' totals. Blocks of
// 128 threads, rows of up to 128.

extern "C" __global__ void scan(int cols, const int *in, int *out) {
    __shared__ int sums[128];
    __shared__ int totals[4];
    int t = threadIdx.x, lane = t % 32, warp = t / 32;
    int x = t < cols ? in[blockIdx.x * cols + t] : 0;
    sums[t] = x;
    __syncwarp(); // all values are there
    for (int d = 1; d < 32; d *= 2) {
        int left = lane >= d ? sums[t - d] : 0;
        __syncwarp(); // all have read
        x += left;
        sums[t] = x;
        __syncwarp(); // all have written
    }
    if (lane == 31)
        totals[warp] = x;
    __syncthreads();
    for (int w = 0; w < warp; w++)
        x += totals[w];
    if (t < cols)
        out[blockIdx.x * cols + t] = x;
}
