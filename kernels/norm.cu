// Batch norm under training: a batch's moments, the norm by moments, its gradients, running statistics.
//
// Maps are (pixels, channels); x's pixels may lie apart. Sums over pixels are those of rows.cu: a block adds a chunk of the
// height in f64, its threads along the channels, and the sums of the chunks pass through the workspace. Floors: moments read x
// once, the weight's gradient x and gy; the norm reads x and writes y, its gradient reads x and gy and writes gx.
// The order of a sum is fixed by pixels and channels alone. What is done a pixel at a time is rounded as on the CPU (no FMA).

struct MomentArguments {
    const float *x;
    const float *gy;      // null for the sums of a moment
    const float *moments; // (2, channels)
    double *sums;         // (chunks, channels), of one number or two
    float *y;             // (2, channels)
    u32 pixels, channels;
    u32 pixel; // floats from one pixel of x to the next
    u32 chunk; // pixels that a block adds
    u32 chunks;
    float epsilon;
};
static_assert(sizeof(MomentArguments) == 64, "as in launch/norm.rs");

// The sums of a block's chunk in one channel; valid at threadIdx.y 0.
template <class T, class F, class Add>
__device__ __forceinline__ T chunk_of(const MomentArguments &a, u32 channel, T zero, F f, Add add) {
    const u32 first = blockIdx.y * a.chunk;
    const u32 end = a.chunk < a.pixels - first ? first + a.chunk : a.pixels;
    T sum = zero;
    if (channel < a.channels)
#pragma unroll 4
        for (u32 pixel = first + threadIdx.y; pixel < end; pixel += blockDim.y) sum = add(sum, f(pixel));
    return combine_column(sum, add);
}

__device__ __forceinline__ double2 add_pair(double2 a, double2 b) { return make_double2(a.x + b.x, a.y + b.y); }

// Sums of x and of its square, as distances from the channel's first value: a mean far from 0 costs no digits.
// grid (tiles of the channels, chunks), block (channels of a tile, 256 / them)
extern "C" __global__ void __launch_bounds__(256) moment_chunks(const MomentArguments a) {
    const u32 channel = blockIdx.x * blockDim.x + threadIdx.x;
    const double origin = channel < a.channels ? a.x[channel] : 0.0f;
    const double2 sum = chunk_of(
        a, channel, make_double2(0, 0),
        [&](u32 pixel) {
            const double distance = (double)a.x[(u64)pixel * a.pixel + channel] - origin;
            return make_double2(distance, distance * distance);
        },
        add_pair);
    if (threadIdx.y == 0 && channel < a.channels) ((double2 *)a.sums)[(u64)blockIdx.y * a.channels + channel] = sum;
}

// Mean and variance from the sums of the chunks.
// grid (tiles of the channels), block (channels of a tile, 256 / them)
extern "C" __global__ void __launch_bounds__(256) moments_of_chunks(const MomentArguments a) {
    const u32 channel = blockIdx.x * blockDim.x + threadIdx.x;
    double2 sum = make_double2(0, 0);
    if (channel < a.channels)
        for (u32 i = threadIdx.y; i < a.chunks; i += blockDim.y)
            sum = add_pair(sum, ((const double2 *)a.sums)[(u64)i * a.channels + channel]);
    sum = combine_column(sum, add_pair);
    if (threadIdx.y != 0 || channel >= a.channels) return;
    const double shift = sum.x / a.pixels, variance = sum.y / a.pixels - shift * shift;
    a.y[channel] = (float)((double)a.x[channel] + shift);
    // rounding may leave a little below 0; a NaN stays
    a.y[a.channels + channel] = variance < 0 ? 0.0f : (float)variance;
}

// 1/sqrt(variance + epsilon)
__device__ __forceinline__ float unit_of(float variance, float epsilon) { return 1.0f / sqrtf(__fadd_rn(variance, epsilon)); }

// Sums of gy · (x - mean) / sqrt(variance + epsilon); they are added by rows.cu.
// grid (tiles of the channels, chunks), block (channels of a tile, 256 / them)
extern "C" __global__ void __launch_bounds__(256) normalise_weight_chunks(const MomentArguments a) {
    const u32 channel = blockIdx.x * blockDim.x + threadIdx.x;
    const bool real = channel < a.channels;
    const double mean = real ? a.moments[channel] : 0.0f;
    const double sum = chunk_of(
        a, channel, 0.0,
        [&](u32 pixel) {
            const double distance = (double)a.x[(u64)pixel * a.pixel + channel] - mean;
            return (double)a.gy[(u64)pixel * a.channels + channel] * distance;
        },
        [](double a, double b) { return a + b; });
    if (threadIdx.y == 0 && real)
        a.sums[(u64)blockIdx.y * a.channels + channel] = sum * unit_of(a.moments[a.channels + channel], a.epsilon);
}

struct NormaliseArguments {
    const float *x, *gy;              // gy for the gradient alone
    const float *moments;             // (2, channels)
    const float *weight, *bias;       // (channels); the bias forward alone
    const float *weight_grad, *bias_grad; // (channels), for the gradient alone
    float *y;                         // or gx
    u32 pixels;
    u32 lanes;  // channels of a thread: 4 or 1
    u32 groups; // channels / lanes
    u32 pixel;  // floats from one pixel of x to the next
    u32 chunk;  // pixels of a block
    u32 relu;   // whether max(0, .) comes last, forward
    float epsilon;
    float count; // values of a channel: the pixels
};
static_assert(sizeof(NormaliseArguments) == 96, "as in launch/norm.rs");

// Calls f(pixel) for this thread's pixels.
template <class F> __device__ __forceinline__ void pixels_of(const NormaliseArguments &a, F f) {
    const u32 first = blockIdx.y * a.chunk;
    const u32 end = a.chunk < a.pixels - first ? first + a.chunk : a.pixels;
    for (u32 pixel = first + threadIdx.y; pixel < end; pixel += blockDim.y) f(pixel);
}

template <int V> __device__ __forceinline__ void normalise_chunk(const NormaliseArguments &a) {
    const u32 group = blockIdx.x * blockDim.x + threadIdx.x, channel = V * group, channels = V * a.groups;
    if (group >= a.groups) return;
    const Vector<V> mean = load<V>(a.moments + channel), bias = load<V>(a.bias + channel);
    const Vector<V> variance = load<V>(a.moments + channels + channel);
    Vector<V> scale = load<V>(a.weight + channel);
#pragma unroll
    for (int k = 0; k < V; k++) scale.v[k] = __fmul_rn(unit_of(variance.v[k], a.epsilon), scale.v[k]);
    pixels_of(a, [&](u32 pixel) {
        Vector<V> x = load<V>(a.x + (u64)pixel * a.pixel + channel);
#pragma unroll
        for (int k = 0; k < V; k++) {
            const float y = __fadd_rn(__fmul_rn(__fsub_rn(x.v[k], mean.v[k]), scale.v[k]), bias.v[k]);
            x.v[k] = a.relu ? relu(y) : y;
        }
        store<V>(a.y + (u64)pixel * channels + channel, x);
    });
}

// y = (x - mean) / sqrt(variance + epsilon) · weight + bias, and perhaps ReLU. A thread keeps its channels' numbers and goes
// down a chunk of pixels.
// grid (tiles of the groups, chunks), block (groups of a tile, 256 / them)
extern "C" __global__ void __launch_bounds__(256) normalise(const NormaliseArguments a) {
    if (a.lanes == 4) normalise_chunk<4>(a);
    else normalise_chunk<1>(a);
}

template <int V> __device__ __forceinline__ void normalise_grad_chunk(const NormaliseArguments &a) {
    const u32 group = blockIdx.x * blockDim.x + threadIdx.x, channel = V * group, channels = V * a.groups;
    if (group >= a.groups) return;
    const Vector<V> mean = load<V>(a.moments + channel), variance = load<V>(a.moments + channels + channel);
    Vector<V> scale = load<V>(a.weight + channel), slope = load<V>(a.weight_grad + channel);
    Vector<V> level = load<V>(a.bias_grad + channel);
#pragma unroll
    for (int k = 0; k < V; k++) {
        const float unit = unit_of(variance.v[k], a.epsilon);
        scale.v[k] = __fmul_rn(unit, scale.v[k]);
        slope.v[k] = __fmul_rn(unit, slope.v[k] / a.count);
        level.v[k] = level.v[k] / a.count;
    }
    pixels_of(a, [&](u32 pixel) {
        const Vector<V> x = load<V>(a.x + (u64)pixel * a.pixel + channel);
        Vector<V> g = load<V>(a.gy + (u64)pixel * channels + channel);
#pragma unroll
        for (int k = 0; k < V; k++) {
            const float along = __fmul_rn(__fsub_rn(x.v[k], mean.v[k]), slope.v[k]);
            g.v[k] = __fmul_rn(__fsub_rn(__fsub_rn(g.v[k], level.v[k]), along), scale.v[k]);
        }
        store<V>(a.y + (u64)pixel * channels + channel, g);
    });
}

// gx = weight · unit · (gy - gb / n - (x - mean) · unit · gw / n), unit = 1 / sqrt(variance + epsilon).
// grid and block as for the norm
extern "C" __global__ void __launch_bounds__(256) normalise_grad_input(const NormaliseArguments a) {
    if (a.lanes == 4) normalise_grad_chunk<4>(a);
    else normalise_grad_chunk<1>(a);
}

struct RunningArguments {
    const float *running, *value; // (channels)
    float *y;
    double keep, mix;
    u32 channels;
    u32 unused;
};
static_assert(sizeof(RunningArguments) == 48, "as in launch/norm.rs");

// y = keep · running + mix · value in f64, rounded once. Floor: three numbers a channel.
extern "C" __global__ void __launch_bounds__(256) running_statistic(const RunningArguments a) {
    const u32 channel = blockIdx.x * 256 + threadIdx.x;
    if (channel >= a.channels) return;
    const double kept = __dmul_rn(a.keep, a.running[channel]);
    a.y[channel] = (float)__dadd_rn(kept, __dmul_rn(a.mix, a.value[channel]));
}
