// Adam (PyTorch's order of operations), an op at a time and for many tensors in one launch.
//     m' = m + (g - m)(1 - beta1)    v' = beta2 v + (1 - beta2) g²    p' = p - lr / c1 · m' / (sqrt(v') / sqrt(c2) + epsilon)
// rate = (lr, c1, c2) with the bias corrections c = 1 - beta^t.
//
// Floor: 12 bytes an element for m' and for v', 16 for p'; fused 28 (p, m, v, g in; p', m', v' out). Elementwise; every operation
// is rounded by itself (no FMA), as on the CPU, so the fused kernel, the separate ones and the CPU give the same bits.

__device__ __forceinline__ float next_mean(float mix, float m, float g) {
    return __fadd_rn(m, __fmul_rn(__fsub_rn(g, m), mix));
}

__device__ __forceinline__ float next_square(float keep, float fresh, float v, float g) {
    return __fadd_rn(__fmul_rn(v, keep), __fmul_rn(__fmul_rn(fresh, g), g));
}

struct Step {
    float size, root, epsilon;

    __device__ __forceinline__ Step(const float *rate, float epsilon)
        : size(__fdiv_rn(rate[0], rate[1])), root(__fsqrt_rn(rate[2])), epsilon(epsilon) {}

    __device__ __forceinline__ float next(float p, float m, float v) const {
        const float spread = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), root), epsilon);
        return __fsub_rn(p, __fmul_rn(size, __fdiv_rn(m, spread)));
    }
};

struct AdamArguments {
    const float *p, *m, *v, *g; // those that the kernel reads
    const float *rate;
    float *y;
    u32 quads, tail;
    float keep, mix; // beta and 1 - beta
    float epsilon;
    u32 unused;
};
static_assert(sizeof(AdamArguments) == 72, "as in launch/optimizer.rs");

extern "C" __global__ void __launch_bounds__(256) adam_mean(const AdamArguments a) {
    const float mix = a.mix;
    map(a.quads, a.tail, a.y, [=](float m, float g) { return next_mean(mix, m, g); }, a.m, a.g);
}

extern "C" __global__ void __launch_bounds__(256) adam_square(const AdamArguments a) {
    const float keep = a.keep, fresh = a.mix;
    map(a.quads, a.tail, a.y, [=](float v, float g) { return next_square(keep, fresh, v, g); }, a.v, a.g);
}

extern "C" __global__ void __launch_bounds__(256) adam_step(const AdamArguments a) {
    const Step step(a.rate, a.epsilon);
    map(a.quads, a.tail, a.y, [=](float p, float m, float v) { return step.next(p, m, v); }, a.p, a.m, a.v);
}

// One tensor of the fused kernel.
struct AdamTensor {
    const float *p, *m, *v, *g;
    float *next_p, *next_m, *next_v;
    u32 quads, tail;
};
static_assert(sizeof(AdamTensor) == 64, "as in launch/optimizer.rs");

constexpr u32 ADAM_TENSORS = 59; // as many as fit into 4 KB of parameters

struct AdamFusedArguments {
    const float *rate;
    float mean_mix, square_keep, square_fresh, epsilon;
    u32 tensors;
    u32 first_block[ADAM_TENSORS]; // of each tensor
    AdamTensor tensor[ADAM_TENSORS];
};
static_assert(sizeof(AdamFusedArguments) == 4040, "as in launch/optimizer.rs");

template <int V> __device__ __forceinline__ void adam_item(const AdamFusedArguments &a, const AdamTensor &t, u64 at) {
    const Step step(a.rate, a.epsilon);
    const Vector<V> g = load<V>(t.g + at);
    Vector<V> p = load<V>(t.p + at), m = load<V>(t.m + at), v = load<V>(t.v + at);
#pragma unroll
    for (int k = 0; k < V; k++) {
        m.v[k] = next_mean(a.mean_mix, m.v[k], g.v[k]);
        v.v[k] = next_square(a.square_keep, a.square_fresh, v.v[k], g.v[k]);
        p.v[k] = step.next(p.v[k], m.v[k], v.v[k]);
    }
    store<V>(t.next_m + at, m);
    store<V>(t.next_v + at, v);
    store<V>(t.next_p + at, p);
}

// A block belongs to the last tensor that begins at it or before; a tensor's threads are as in `map`.
extern "C" __global__ void __launch_bounds__(256) adam_fused(const __grid_constant__ AdamFusedArguments a) {
    u32 low = 0, high = a.tensors; // the tensor is in low..high
    while (high - low > 1) {
        const u32 middle = (low + high) / 2;
        if (a.first_block[middle] <= blockIdx.x) low = middle;
        else high = middle;
    }
    const AdamTensor &tensor = a.tensor[low];
    const u64 t = (u64)(blockIdx.x - a.first_block[low]) * 256 + threadIdx.x;
    if (t < tensor.quads) adam_item<4>(a, tensor, 4 * t);
    else if (t - tensor.quads < tensor.tail) adam_item<1>(a, tensor, 3 * (u64)tensor.quads + t);
}
