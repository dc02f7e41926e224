// Sums of sliding windows, 32 of each chunk of 64 numbers: one warp loads the chunks, another adds up. They hand two buffers
// to and fro with named barriers. A block of 64 threads for each row of chunks.

constexpr int CHUNK = 64;

// Barriers of a pair of warps: 1 and 2 say that a buffer is full, 3 and 4 that it is empty.
__device__ __forceinline__ void wait(int barrier) { asm volatile("bar.sync %0, 64;" ::"r"(barrier) : "memory"); }
__device__ __forceinline__ void signal(int barrier) { asm volatile("bar.arrive %0, 64;" ::"r"(barrier) : "memory"); }

extern "C" __global__ void pipeline(int chunks, const float *in, float *out) {
    __shared__ float buffers[2][CHUNK];
    int lane = threadIdx.x % 32;
    const float *x = in + blockIdx.x * chunks * CHUNK;
    float *y = out + blockIdx.x * chunks * 32;
    if (threadIdx.x < 32) { // the producer
        for (int i = 0; i < chunks; i++) {
            int s = i % 2;
            if (i >= 2)
                wait(3 + s);
            for (int j = lane; j < CHUNK; j += 32)
                buffers[s][j] = x[i * CHUNK + j];
            signal(1 + s);
        }
    } else { // the consumer
        for (int i = 0; i < chunks; i++) {
            int s = i % 2;
            wait(1 + s);
            float sum = 0.0f;
            for (int j = 1; j <= 32; j++)
                sum += buffers[s][lane + j];
            if (i + 2 < chunks)
                signal(3 + s);
            y[i * 32 + lane] = sum;
        }
    }
}
