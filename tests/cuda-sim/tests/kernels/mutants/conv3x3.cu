// 3 x 3 convolution with zero padding, channels added up: a tile with its halo in shared memory. Blocks of 16 x 8.

constexpr int TW = 16, TH = 8, CHANNELS = 3;

__constant__ float weights[CHANNELS * 9];

extern "C" __global__ void conv3x3(int height, int width, const float *__restrict__ in, float *__restrict__ out) {
    __shared__ float tile[TH + 2][TW + 2];
    int x0 = blockIdx.x * TW, y0 = blockIdx.y * TH;
    int x = x0 + threadIdx.x, y = y0 + threadIdx.y;
    float sum = 0.0f;
    for (int ch = 0; ch < CHANNELS; ch++) {
        const float *plane = in + ch * height * width;
        for (int i = threadIdx.y; i < TH + 2; i += TH)
            for (int j = threadIdx.x; j < TW + 2; j += TW) {
                int row = y0 + i - 1, col = x0 + j - 1;
                bool inside = row >= 0 && row < height && col >= 0 && col < width;
                tile[i][j] = inside ? plane[row * width + col] : 0.0f;
            }
        __syncthreads(); // the tile is there
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++)
                sum += weights[ch * 9 + i * 3 + j] * tile[threadIdx.y + i][threadIdx.x + j];
        __syncthreads(); // the tile has been used
    }
    if (x < width && y < height)
        out[y * width + x] = sum;
}
