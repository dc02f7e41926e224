// What conv_pack.cu and conv_mma.cu share: the argument of kernels that pack a weight, and which weight an input gradient reads.

struct PackArguments {
    const float *weight; // (o, c, kh, kw)
    float *packed;       // as the file says, of k_padded by n_padded for each problem
    u32 o, c, kh, kw;
    u32 k_padded, n_padded;
    u32 step;  // the stride, of an input gradient
    u32 units; // what the kernel numbers, as it says
};
static_assert(sizeof(PackArguments) == 48, "as in launch/conv.rs");

// Line k and column c of the weight of an input gradient's problem (conv_pack.cu), 0 beyond it.
__device__ __forceinline__ float grad_input_weight(const PackArguments &a, u32 problem, u32 k, u32 c) {
    const u32 across = min(a.step, a.kw), r0 = problem / across, s0 = problem % across;
    const u32 high = (a.kh - r0 + a.step - 1) / a.step, wide = (a.kw - s0 + a.step - 1) / a.step;
    const u32 tap = k / a.o, o = k % a.o;
    if (tap >= high * wide || c >= a.c) return 0.0f;
    const u32 r = r0 + a.step * (high - 1 - tap / wide), s = s0 + a.step * (wide - 1 - tap % wide);
    return a.weight[(((u64)o * a.c + c) * a.kh + r) * a.kw + s];
}
