// The sum of an array in one launch: the last block to finish adds up what all have left. Blocks of 128 threads.

__device__ unsigned finished;

__device__ float block_sum(float x, float *scratch) {
    scratch[threadIdx.x] = x;
    __syncthreads(); // all values are there
    for (int d = blockDim.x / 2; d > 0; d /= 2) {
        if (threadIdx.x < d)
            scratch[threadIdx.x] += scratch[threadIdx.x + d];
        __syncthreads(); // this level is done
    }
    return scratch[0];
}

extern "C" __global__ void grid_sum(int n, const float *in, float *partial, float *out) {
    __shared__ float scratch[128];
    __shared__ bool last;
    float x = 0.0f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        x += in[i];
    float sum = block_sum(x, scratch);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
        __threadfence();
        unsigned ticket = atomicInc(&finished, gridDim.x - 1); // back to zero for the next launch
        last = ticket == gridDim.x - 1;
    }
    __syncthreads(); // whether this is the last block
    if (last) {
        float y = 0.0f;
        for (int i = threadIdx.x; i < gridDim.x; i += blockDim.x)
            y += partial[i];
        float total = block_sum(y, scratch);
        if (threadIdx.x == 0)
            *out = total;
    }
}
