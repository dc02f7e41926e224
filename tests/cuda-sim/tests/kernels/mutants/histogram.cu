// A histogram of bytes: one in shared memory for each block, then all added up in global memory.

constexpr int BINS = 256;

extern "C" __global__ void histogram(int n, const unsigned char *in, unsigned *out) {
    __shared__ unsigned counts[BINS];
    for (int b = threadIdx.x; b < BINS; b += blockDim.x)
        counts[b] = 0;
    __syncthreads(); // all zero
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&counts[in[i]], 1);
    __syncthreads(); // all counted
    for (int b = threadIdx.x; b < BINS; b += blockDim.x)
        atomicAdd(&out[b], counts[b]);
}
