// What an intervention changed: probabilities of two rows of logits and their difference, fused, in f64.
//
//   effects[r, c] = q_c - p_c,  p = head(idle[image_r]), q = head(done[r])
//   weighted_effect[r] = sum_c p_c (q_c - p_c)  (softmax: E1)  or  mean_c (2 p_c - 1)(q_c - p_c)  (sigmoid)
//
// The arithmetic is that of src/answer.rs: with d = done - idle the difference is taken before the exponential, so that small
// effects keep their digits (softmax: p_c expm1(d_c - log1p(S)), S = sum_k p_k expm1(d_k), where -1/2 < S < 1 and
// |d_c - log1p(S)| <= 1, else the plain difference). Identical rows give exactly 0; a NaN takes the plain form.
//
// One warp a row: lane l takes the classes l, l + 32, ... in ascending order, lanes are added in the fixed order of warp_sum, so
// the bits do not depend on rows or grid. Floor: 8 bytes read and 4 written a class (effects) or a row (weighted_effect);
// about 4 exponentials in f64 a class, 10 classes: nothing beside the tail that made the logits.

struct EffectArguments {
    const float *done; // (rows, classes)
    const float *idle; // (images, classes)
    const u32 *images; // (rows)
    float *y;          // (rows, classes), or (rows)
    u64 rows;
    u32 classes;
    u32 sigmoid;
};
static_assert(sizeof(EffectArguments) == 48, "as in launch/effect.rs");

// Logit changes beyond this take the plain difference (src/answer.rs).
#define STABLE_CHANGE_MAX 600.0

// Every lane's value of lane 0 after a sum.
__device__ __forceinline__ double sum_all(double x) { return __shfl_sync(FULL_WARP, warp_sum(x), 0); }

// The largest of the lanes' values, on every lane; a NaN is dropped, as by f64::max.
__device__ __forceinline__ double max_all(double x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x = fmax(x, __shfl_xor_sync(FULL_WARP, x, offset));
    return x;
}

// 1 / (1 + exp(-o)) without overflow, and without rounding to 1 - tiny for negative o.
__device__ double sigmoid(double o) {
    if (o >= 0.0) return 1.0 / (1.0 + exp(-o));
    const double e = exp(o);
    return e / (1.0 + e);
}

// What a softmax needs of a row of logits: p_c = exp(o_c - max) / sum.
struct Softmax {
    double max, sum;
    __device__ double operator()(double o) const { return exp(o - max) / sum; }
};

__device__ Softmax softmax_of(const float *o, u32 classes) {
    double m = -__longlong_as_double(0x7ff0000000000000LL);
    for (u32 c = threadIdx.x; c < classes; c += 32) m = fmax(m, (double)o[c]);
    m = max_all(m);
    double s = 0.0;
    for (u32 c = threadIdx.x; c < classes; c += 32) s += exp((double)o[c] - m);
    return {m, sum_all(s)};
}

// The effect on one label of a sigmoid head.
__device__ double label_effect(double idle, double done) {
    const double d = done - idle, p = sigmoid(idle);
    if (!(fabs(d) <= STABLE_CHANGE_MAX)) return sigmoid(done) - p;
    const double not_p = sigmoid(-idle);
    // 1 + p expm1(d) = (1-p) + p e^d has no cancellation; for d > 0 both sides are scaled by e^-d
    return d <= 0.0 ? p * not_p * expm1(d) / (not_p + p * exp(d)) : p * not_p * -expm1(-d) / (not_p * exp(-d) + p);
}

// Calls take(c, p_c, effect_c) for this lane's classes.
template <class Take> __device__ void each_effect(const EffectArguments &a, u64 row, Take take) {
    const float *done = a.done + row * a.classes;
    const float *idle = a.idle + (u64)a.images[row] * a.classes;
    if (a.sigmoid) {
        for (u32 c = threadIdx.x; c < a.classes; c += 32) take(c, sigmoid(idle[c]), label_effect(idle[c], done[c]));
        return;
    }
    bool near = true;
    for (u32 c = threadIdx.x; c < a.classes; c += 32) near = near && fabs((double)done[c] - (double)idle[c]) <= STABLE_CHANGE_MAX;
    near = __all_sync(FULL_WARP, near);
    const Softmax p = softmax_of(idle, a.classes), q = softmax_of(done, a.classes);
    double s = 0.0;
    for (u32 c = threadIdx.x; c < a.classes; c += 32) s += p(idle[c]) * expm1((double)done[c] - (double)idle[c]);
    s = sum_all(s);
    // written so that a NaN takes the plain form
    const bool stable = near && s > -0.5 && s < 1.0;
    const double shift = log1p(s);
    for (u32 c = threadIdx.x; c < a.classes; c += 32) {
        const double pc = p(idle[c]), change = (double)done[c] - (double)idle[c] - shift;
        take(c, pc, stable && fabs(change) <= 1.0 ? pc * expm1(change) : q(done[c]) - pc);
    }
}

// grid (rows / 4), block (32, 4). Without a bound on the blocks, 48 registers make the compiler for sm_100 spill three of them.
extern "C" __global__ void __launch_bounds__(128, 8) effects(const EffectArguments a) {
    const u64 row = (u64)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= a.rows) return;
    float *y = a.y + row * a.classes;
    each_effect(a, row, [=](u32 c, double, double effect) { y[c] = (float)effect; });
}

// grid (rows / 4), block (32, 4)
extern "C" __global__ void __launch_bounds__(128) weighted_effect(const EffectArguments a) {
    const u64 row = (u64)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= a.rows) return;
    double sum = 0.0;
    const bool labels = a.sigmoid;
    each_effect(a, row, [&](u32, double p, double effect) { sum += (labels ? 2.0 * p - 1.0 : p) * effect; });
    sum = warp_sum(sum);
    if (threadIdx.x == 0) a.y[row] = (float)(labels ? sum / a.classes : sum);
}
