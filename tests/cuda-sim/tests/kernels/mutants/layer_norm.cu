// Layer normalisation of rows, a block each, four elements at a time (columns a multiple of 4). Blocks of 64 threads.

__device__ float block_sum(float x, float *parts) {
    for (int d = 16; d > 0; d /= 2)
        x += __shfl_xor_sync(0xffffffff, x, d);
    __syncthreads(); // the parts of the sum before have been read
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = x;
    __syncthreads(); // the parts of this sum are there
    return parts[0] + parts[1];
}

extern "C" __global__ void layer_norm(int cols, float epsilon, const float *__restrict__ in,
                                      const float *__restrict__ gamma, const float *__restrict__ beta,
                                      float *__restrict__ out) {
    extern __shared__ float4 row[];
    __shared__ float parts[2];
    const float4 *x = (const float4 *)(in + blockIdx.x * cols);
    float4 *y = (float4 *)(out + blockIdx.x * cols);
    const float4 *g = (const float4 *)gamma, *b = (const float4 *)beta;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < cols / 4; i += blockDim.x) {
        float4 v = x[i];
        row[i] = v;
        sum += v.x + v.y + v.z + v.w;
    }
    float mean = block_sum(sum, parts) / cols;
    float squares = 0.0f;
    for (int i = threadIdx.x; i < cols / 4; i += blockDim.x) {
        float4 v = row[i];
        v.x -= mean, v.y -= mean, v.z -= mean, v.w -= mean;
        squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    float scale = rsqrtf(block_sum(squares, parts) / cols + epsilon);
    for (int i = threadIdx.x; i < cols / 4; i += blockDim.x) {
        float4 v = row[i], s = g[i], t = b[i];
        v.x = (v.x - mean) * scale * s.x + t.x;
        v.y = (v.y - mean) * scale * s.y + t.y;
        v.z = (v.z - mean) * scale * s.z + t.z;
        v.w = (v.w - mean) * scale * s.w + t.w;
        y[i] = v;
    }
}
