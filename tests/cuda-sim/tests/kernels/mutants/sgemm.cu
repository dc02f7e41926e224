// C = A B (m x k, k x n, row-major) through tiles in shared memory; any sizes.

constexpr int T = 16;

extern "C" __global__ void sgemm(int m, int n, int k, const float *__restrict__ a, const float *__restrict__ b,
                                 float *__restrict__ c) {
    __shared__ float as[T][T + 1];
    __shared__ float bs[T][T + 1];
    int tx = threadIdx.x, ty = threadIdx.y;
    int row = blockIdx.y * T + ty, col = blockIdx.x * T + tx;
    float sum = 0.0f;
    for (int k0 = 0; k0 < k; k0 += T) {
        as[ty][tx] = row < m && k0 + tx < k ? a[row * k + k0 + tx] : 0.0f;
        bs[ty][tx] = k0 + ty < k && col < n ? b[(k0 + ty) * n + col] : 0.0f;
        __syncthreads(); // the tiles are there
        for (int i = 0; i < T; i++)
            sum += as[ty][i] * bs[i][tx];
        __syncthreads(); // the tiles have been used
    }
    if (row < m && col < n)
        c[row * n + col] = sum;
}
