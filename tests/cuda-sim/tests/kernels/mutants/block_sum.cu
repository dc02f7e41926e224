// One sum a block: shuffles inside a warp, shared memory between warps. Blocks of 64 threads or more.

extern "C" __global__ void block_sum(int n, const float *in, float *out) {
    __shared__ float parts[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float sum = 0.0f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        sum += in[i];
    for (int d = 16; d > 0; d /= 2)
        sum += __shfl_down_sync(0xffffffff, sum, d); // of the warp
    if (lane == 0)
        parts[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        sum = lane < blockDim.x / 32 ? parts[lane] : 0.0f;
        for (int d = 16; d > 0; d /= 2)
            sum += __shfl_down_sync(~0u, sum, d); // of the block
        if (threadIdx.x == 0)
            out[blockIdx.x] = sum;
    }
}
