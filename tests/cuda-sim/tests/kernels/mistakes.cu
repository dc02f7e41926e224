// One mistake of each kind that the simulated device reports. y has 64 elements; blocks have 64 threads.

extern "C" __device__ void __assertfail(const char *message, const char *file, unsigned line, const char *function, size_t size);

__constant__ int table[64];
extern __shared__ int dynamic[];

extern "C" __global__ void out_of_bounds(int *y) { y[threadIdx.x + 1] = 1; }

extern "C" __global__ void use_after_free(int *y) { y[threadIdx.x] = 1; }

extern "C" __global__ void misaligned(int *y) { *(int *)((char *)y + 2) = 1; }

extern "C" __global__ void read_only(int *y) { y[threadIdx.x] = 1; }

extern "C" __global__ void not_accessible(int *y) { y[threadIdx.x] = 1; }

extern "C" __global__ void reads_table(int *y) { y[threadIdx.x] = table[threadIdx.x]; }

extern "C" __global__ void uninitialised(int *y) { y[threadIdx.x] = dynamic[threadIdx.x]; }

extern "C" __global__ void unwritten(int *y) { y[threadIdx.x] += 1; }

extern "C" __global__ void race(int *y) {
    dynamic[threadIdx.x] = threadIdx.x;
    y[threadIdx.x] = dynamic[threadIdx.x ^ 1];
}

extern "C" __global__ void divergence(int *y) {
    if (threadIdx.x % 2) y[threadIdx.x] = __shfl_sync(0xffffffff, 1, 0);
    else __syncwarp(0x55555555);
}

extern "C" __global__ void barrier(int *y) {
    if (threadIdx.x < 32) asm volatile("barrier.sync 1, 96;");
    y[threadIdx.x] = 1;
}

extern "C" __global__ void deadlock(int *y) {
    if (threadIdx.x < 32) asm volatile("barrier.sync 1, 64;");
    else asm volatile("barrier.sync 2, 64;");
    y[threadIdx.x] = 1;
}

extern "C" __global__ void async_copy(int *y) {
    unsigned to = __cvta_generic_to_shared(dynamic + threadIdx.x);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(to), "l"(y + threadIdx.x) : "memory");
    y[threadIdx.x] = dynamic[threadIdx.x];
}

extern "C" __global__ void trap(int *y) { if (y[threadIdx.x] == 0) __trap(); }

extern "C" __global__ void assertion(int *y) {
    // as assert() expands; assert.h belongs to a host compiler
    if (y[threadIdx.x] != 1) __assertfail("y[threadIdx.x] == 1", __FILE__, __LINE__, __func__, 1);
}

extern "C" __global__ void timeout(int *y) { while (*(volatile int *)y == 0) {} }

__device__ __noinline__ int deeper(int *y, int depth) {
    volatile int frame[256];
    frame[depth % 256] = depth;
    return y[0] ? 0 : deeper(y, depth + 1) + frame[depth % 256];
}
extern "C" __global__ void stack_overflow(int *y) { y[threadIdx.x] = deeper(y, 1); }

extern "C" __global__ void illegal_instruction(int *y) {
    auto function = (int (*)(int))(unsigned long long)(y[0] + 4096);
    y[1] = function(1);
}
