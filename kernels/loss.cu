// Losses of rows and their gradients: cross-entropy, also binary, KL divergence of softmaxes and of sigmoids, mean |x|, mean x², total variation.
//
// Softmaxes: a warp a row of K logits, all in f64; with K classes they cost nothing beside the network. Means: a block a row,
// f64 sums; floor 4 bytes an element of x. Gradients: a thread 4 elements where rows are multiples of 4, floor 8 bytes an
// element. Maps are channels-last.
// A row is summed by its own warp or block, lanes in order and then a fixed tree, so a result knows neither the other rows nor
// their number.

// ---- Softmaxes

struct SoftmaxArguments {
    const float *target; // (rows, classes), for the KL divergence
    const float *x;      // (rows, classes)
    const u32 *label;    // (rows), for cross-entropy
    const float *g;      // (rows), for gradients
    float *y;            // (rows), or the gradient (rows, classes)
    const float *weight; // (2, classes) of absent and present findings, or null: binary cross-entropy
    u32 rows, classes;
};
static_assert(sizeof(SoftmaxArguments) == 56, "as in launch/loss.rs");

// What log softmax subtracts from a row's logits, on every lane of its warp.
struct Logarithm {
    double max, sum;

    // log softmax of a logit
    __device__ __forceinline__ double of(float x) const { return x - max - sum; }
};

__device__ __forceinline__ Logarithm logarithm(const float *x, u32 classes) {
    float max = -__int_as_float(0x7f800000);
    for (u32 c = threadIdx.x % 32; c < classes; c += 32) max = fmaxf(max, x[c]); // a NaN shows in the sum
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, offset));
    double sum = 0;
    for (u32 c = threadIdx.x % 32; c < classes; c += 32) sum += exp((double)x[c] - max);
    sum = __shfl_sync(FULL_WARP, warp_sum(sum), 0);
    return {max, log(sum)};
}

// The row of a warp; blocks have 8 of them.
__device__ __forceinline__ u32 row_of_warp() { return blockIdx.x * 8 + threadIdx.x / 32; }

// y = -log softmax(x)[label]
extern "C" __global__ void __launch_bounds__(256) cross_entropy(const SoftmaxArguments a) {
    const u32 row = row_of_warp();
    if (row >= a.rows) return;
    const float *x = a.x + (u64)row * a.classes;
    const Logarithm log = logarithm(x, a.classes);
    if (threadIdx.x % 32 == 0) a.y[row] = (float)-log.of(x[a.label[row]]);
}

// gx = g · p, at the label -g · (sum of the others): p - 1 would lose the sign where p rounds to 1.
extern "C" __global__ void __launch_bounds__(256) cross_entropy_grad(const SoftmaxArguments a) {
    const u32 row = row_of_warp();
    if (row >= a.rows) return;
    const float *x = a.x + (u64)row * a.classes;
    float *gx = a.y + (u64)row * a.classes;
    const Logarithm log = logarithm(x, a.classes);
    const u32 label = a.label[row];
    const double g = a.g[row];
    double others = 0;
    for (u32 c = threadIdx.x % 32; c < a.classes; c += 32)
        if (c != label) {
            const double p = exp(log.of(x[c]));
            others += p;
            gx[c] = (float)(g * p);
        }
    others = warp_sum(others);
    if (threadIdx.x % 32 == 0) gx[label] = (float)(-g * others);
}

// y = sum p log(p / q), p the target's softmax and q that of x; where p is 0 the term is.
extern "C" __global__ void __launch_bounds__(256) softmax_kl(const SoftmaxArguments a) {
    const u32 row = row_of_warp();
    if (row >= a.rows) return;
    const float *target = a.target + (u64)row * a.classes, *x = a.x + (u64)row * a.classes;
    const Logarithm log_p = logarithm(target, a.classes), log_q = logarithm(x, a.classes);
    double sum = 0;
    for (u32 c = threadIdx.x % 32; c < a.classes; c += 32) {
        const double l = log_p.of(target[c]), p = exp(l);
        if (p != 0.0) sum += p * (l - log_q.of(x[c]));
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) a.y[row] = (float)sum;
}

// gx = g · (q - p)
extern "C" __global__ void __launch_bounds__(256, 4) softmax_kl_grad(const SoftmaxArguments a) {
    const u32 row = row_of_warp();
    if (row >= a.rows) return;
    const float *target = a.target + (u64)row * a.classes, *x = a.x + (u64)row * a.classes;
    float *gx = a.y + (u64)row * a.classes;
    const Logarithm log_p = logarithm(target, a.classes), log_q = logarithm(x, a.classes);
    const double g = a.g[row];
    for (u32 c = threadIdx.x % 32; c < a.classes; c += 32)
        gx[c] = (float)(g * (exp(log_q.of(x[c])) - exp(log_p.of(target[c]))));
}

// ---- Sigmoids: a warp a row of K independent labels

__device__ __forceinline__ double sigmoid(double x) {
    const double e = exp(-fabs(x));
    return x >= 0 ? 1 / (1 + e) : e / (1 + e); // a NaN goes through e
}

// log(1 + exp(x)) without overflow
__device__ __forceinline__ double softplus(double x) { return log1p(exp(-fabs(x))) + (x > 0 ? x : 0); }

// What a label's loss is multiplied by: absent, present.
__device__ __forceinline__ double absent_weight(const SoftmaxArguments &a, u32 c) { return a.weight ? a.weight[c] : 1; }
__device__ __forceinline__ double present_weight(const SoftmaxArguments &a, u32 c) {
    return a.weight ? a.weight[a.classes + c] : 1;
}

// y = f(row's target, row's x, label) summed over labels, in f64.
template <class F> __device__ __forceinline__ void sum_labels(const SoftmaxArguments &a, F f) {
    const u32 row = row_of_warp();
    if (row >= a.rows) return;
    const u64 first = (u64)row * a.classes;
    double sum = 0;
    for (u32 c = threadIdx.x % 32; c < a.classes; c += 32) sum += f((double)a.target[first + c], (double)a.x[first + c], c);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) a.y[row] = (float)sum;
}

// gx = g · f(target, x, label)
template <class F> __device__ __forceinline__ void each_label(const SoftmaxArguments &a, F f) {
    const u32 row = row_of_warp();
    if (row >= a.rows) return;
    const u64 first = (u64)row * a.classes;
    const double g = a.g[row];
    for (u32 c = threadIdx.x % 32; c < a.classes; c += 32)
        a.y[first + c] = (float)(g * f((double)a.target[first + c], (double)a.x[first + c], c));
}

// y = -sum(w1 · t · log sigmoid(x) + w0 · (1 - t) · log(1 - sigmoid(x)))
extern "C" __global__ void __launch_bounds__(256) binary_cross_entropy(const SoftmaxArguments a) {
    sum_labels(a, [&](double t, double x, u32 c) {
        return present_weight(a, c) * t * softplus(-x) + absent_weight(a, c) * (1 - t) * softplus(x);
    });
}

extern "C" __global__ void __launch_bounds__(256) binary_cross_entropy_grad(const SoftmaxArguments a) {
    each_label(a, [&](double t, double x, u32 c) {
        return absent_weight(a, c) * (1 - t) * sigmoid(x) - present_weight(a, c) * t * sigmoid(-x);
    });
}

// One side of a label's divergence, p = sigmoid(t); where p is 0 the term is.
__device__ __forceinline__ double divergence(double t, double x) {
    const double p = sigmoid(t);
    return p != 0 ? p * (softplus(-x) - softplus(-t)) : 0;
}

// y = sum p log(p/q) + (1-p) log((1-p)/(1-q)), p and q the sigmoids of target and x
extern "C" __global__ void __launch_bounds__(256) sigmoid_kl(const SoftmaxArguments a) {
    sum_labels(a, [](double t, double x, u32) { return divergence(t, x) + divergence(-t, -x); });
}

// gx = g · (q - p)
extern "C" __global__ void __launch_bounds__(256) sigmoid_kl_grad(const SoftmaxArguments a) {
    each_label(a, [](double t, double x, u32) { return sigmoid(x) - sigmoid(t); });
}

// ---- Means and total variation

struct RowArguments {
    const float *x; // (rows, row)
    const float *g; // (rows), for gradients
    float *y;       // (rows), or the gradient (rows, row)
    u32 items;      // threads of a gradient
    u32 row;        // elements of a row
    u32 lanes;      // elements that a thread takes at once: 4 or 1
    u32 line, step; // total variation: elements from a cell to the one below and to the right
    u32 unused;
};
static_assert(sizeof(RowArguments) == 48, "as in launch/loss.rs");

// y[row] = sum over the row's elements / row, the sum f(V elements, their place in the row) in f64.
template <int V, class F> __device__ __forceinline__ void mean(const RowArguments &a, F f) {
    const float *x = a.x + (u64)blockIdx.x * a.row;
    double sum = 0;
#pragma unroll 2
    for (u32 i = threadIdx.x; i < a.row / V; i += 512) sum = f(x, load<V>(x + (u64)i * V), i * V, sum);
    sum = block_sum<512>(sum);
    if (threadIdx.x == 0) a.y[blockIdx.x] = (float)(sum / a.row);
}

template <int V> __device__ __forceinline__ double add_abs(const Vector<V> &x, double sum) {
#pragma unroll
    for (int k = 0; k < V; k++) sum += fabsf(x.v[k]);
    return sum;
}

extern "C" __global__ void __launch_bounds__(512) mean_abs(const RowArguments a) {
    const auto f = [](const float *, const auto &x, u32, double sum) { return add_abs(x, sum); };
    if (a.lanes == 4) mean<4>(a, f);
    else mean<1>(a, f);
}

template <int V> __device__ __forceinline__ double add_squares(const Vector<V> &x, double sum) {
#pragma unroll
    for (int k = 0; k < V; k++) sum = fma((double)x.v[k], (double)x.v[k], sum);
    return sum;
}

extern "C" __global__ void __launch_bounds__(512) mean_square(const RowArguments a) {
    const auto f = [](const float *, const auto &x, u32, double sum) { return add_squares(x, sum); };
    if (a.lanes == 4) mean<4>(a, f);
    else mean<1>(a, f);
}

// Adds |down - here| and |right - here| where there is such a cell. `x` is the row, `here` its elements from `at` on.
template <int V>
__device__ __forceinline__ double add_variation(const RowArguments &a, const float *x, const Vector<V> &here, u32 at,
                                                double sum) {
    const bool neighbours[2] = {a.row - at > a.line, at % a.line + a.step < a.line};
    const u32 offsets[2] = {a.line, a.step};
#pragma unroll
    for (int n = 0; n < 2; n++)
        if (neighbours[n]) {
            const Vector<V> next = load<V>(x + at + offsets[n]);
#pragma unroll
            for (int k = 0; k < V; k++) sum += fabsf(next.v[k] - here.v[k]);
        }
    return sum;
}

// y = (sum |down - here| + sum |right - here|) / row
extern "C" __global__ void __launch_bounds__(512) total_variation(const RowArguments a) {
    const auto f = [&](const float *x, const auto &here, u32 at, double sum) { return add_variation(a, x, here, at, sum); };
    if (a.lanes == 4) mean<4>(a, f);
    else mean<1>(a, f);
}

// gx = f(unit, x) for one thread's elements, unit = factor · g[row] / row.
template <int V, class F> __device__ __forceinline__ void row_grad(const RowArguments &a, float factor, F f) {
    const u32 t = blockIdx.x * 256 + threadIdx.x;
    if (t >= a.items) return;
    const float unit = factor * a.g[t / (a.row / V)] / (float)a.row;
    Vector<V> x = load<V>(a.x + (u64)t * V);
#pragma unroll
    for (int k = 0; k < V; k++) x.v[k] = unit * f(x.v[k]);
    store<V>(a.y + (u64)t * V, x);
}

// gx = g · sign(x) / row, 0 at 0
extern "C" __global__ void __launch_bounds__(256) mean_abs_grad(const RowArguments a) {
    const auto f = [](float x) { return sign(x); };
    if (a.lanes == 4) row_grad<4>(a, 1.0f, f);
    else row_grad<1>(a, 1.0f, f);
}

// gx = 2 · g · x / row
extern "C" __global__ void __launch_bounds__(256) mean_square_grad(const RowArguments a) {
    const auto f = [](float x) { return x; };
    if (a.lanes == 4) row_grad<4>(a, 2.0f, f);
    else row_grad<1>(a, 2.0f, f);
}

template <int V> __device__ __forceinline__ void variation_grad(const RowArguments &a, u32 t) {
    const u32 row = t / (a.row / V), at = t % (a.row / V) * V;
    const float unit = a.g[row] / (float)a.row;
    const float *x = a.x + (u64)row * a.row + at;
    const Vector<V> here = load<V>(x);
    Vector<V> sum;
#pragma unroll
    for (int k = 0; k < V; k++) sum.v[k] = 0.0f;
    // |next - here| pulls here down and next up
    const auto add = [&](bool exists, i64 offset, float pull) {
        if (!exists) return;
        const Vector<V> other = load<V>(x + offset);
#pragma unroll
        for (int k = 0; k < V; k++) sum.v[k] += unit * (pull * sign(pull * (here.v[k] - other.v[k])));
    };
    const u32 along = at % a.line;
    add(at >= a.line, -(i64)a.line, 1.0f);
    add(a.row - at > a.line, a.line, -1.0f);
    add(along + a.step < a.line, a.step, -1.0f);
    add(along >= a.step, -(i64)a.step, 1.0f);
    store<V>(a.y + (u64)t * V, sum);
}

// Gathered: each cell collects from its neighbours above, below, right and left, in this order. Floor: 8 bytes an element; the
// neighbours come from the caches.
extern "C" __global__ void __launch_bounds__(256) total_variation_grad(const RowArguments a) {
    const u32 t = blockIdx.x * 256 + threadIdx.x;
    if (t >= a.items) return;
    if (a.lanes == 4) variation_grad<4>(a, t);
    else variation_grad<1>(a, t);
}
