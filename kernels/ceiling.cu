// What a device can do at most: the ceilings that `intervene bench kernels` measures and compares with. No network runs these.

struct CeilingFmaArguments {
    float *y; // a float a thread
    float factor, addend;
    u32 rounds;
    u32 unused;
};
static_assert(sizeof(CeilingFmaArguments) == 24, "as in launch/ceiling.rs");

// 128 fused multiply-adds a round and thread, in 16 independent chains: more than the latency of 4 cycles can hold up. Floor: none
// but the arithmetic. grid any, block 256.
extern "C" __global__ void __launch_bounds__(256) ceiling_fma(const CeilingFmaArguments a) {
    float chain[16];
#pragma unroll
    for (int i = 0; i < 16; i++) chain[i] = (float)(threadIdx.x + i);
    for (u32 round = 0; round < a.rounds; round++)
#pragma unroll
        for (int step = 0; step < 8; step++)
#pragma unroll
            for (int i = 0; i < 16; i++) chain[i] = fmaf(chain[i], a.factor, a.addend);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 16; i++) sum += chain[i];
    a.y[(u64)blockIdx.x * 256 + threadIdx.x] = sum;
}

struct CeilingCopyArguments {
    const float *x;
    float *y;
    u64 quads;
};
static_assert(sizeof(CeilingCopyArguments) == 24, "as in launch/ceiling.rs");

// y = x. Four quads a thread, a block's runs one behind the other, so that four reads are under way before the first write.
// Floor: 8 bytes an element. grid quads / 1024, block 256.
extern "C" __global__ void __launch_bounds__(256) ceiling_copy(const CeilingCopyArguments a) {
    const u64 first = (u64)blockIdx.x * 1024 + threadIdx.x;
    Vector<4> v[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (first + i * 256 < a.quads) v[i] = load<4>(a.x + 4 * (first + i * 256));
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (first + i * 256 < a.quads) store<4>(a.y + 4 * (first + i * 256), v[i]);
}
