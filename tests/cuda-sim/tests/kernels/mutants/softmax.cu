// Softmax over rows, a warp each, in one pass for maximum and sum.

extern "C" __global__ void softmax(int rows, int cols, const float *__restrict__ in, float *__restrict__ out) {
    int lane = threadIdx.x % 32;
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= rows)
        return;
    const float *x = in + row * cols;
    float *y = out + row * cols;
    float most = -1e30f, sum = 0.0f;
    for (int i = lane; i < cols; i += 32) {
        float old = most;
        most = fmaxf(most, x[i]);
        sum = sum * expf(old - most) + expf(x[i] - most);
    }
    for (int d = 16; d > 0; d /= 2) {
        float other = __shfl_xor_sync(0xffffffff, most, d);
        float more = __shfl_xor_sync(0xffffffff, sum, d);
        float both = fmaxf(most, other);
        sum = sum * expf(most - both) + more * expf(other - both);
        most = both;
    }
    for (int i = lane; i < cols; i += 32)
        y[i] = expf(x[i] - most) / sum;
}
