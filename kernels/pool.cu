// Max-pooling, averages of cells, global averages, channel maxima and weighted sums of channels over maps x (N, H, W, C), and
// the gradients of the first three.
//
// A thread takes one output cell and 4 channels (1 where C is no multiple of 4); neighbours in a warp are neighbours in
// channels, so that reads and writes are runs. Floors: max_pool reads x and writes y; its gradient reads x and gy and writes
// gx; overlapping windows are read again, from the caches.
// The maximum of a window is its first in row-major order, as in PyTorch; NaN counts as a maximum (of several NaNs the last,
// also as there); padding never wins. The gradient is a gather: every cell of x finds the winners of the windows that hold it
// again and adds in the windows' row-major order, so there are no atomics and no index buffer.

// Whether v replaces the maximum so far.
__device__ __forceinline__ bool wins(float v, float max) { return v > max || v != v; }

struct PoolArguments {
    const float *x, *gy;
    float *y; // or gx
    u32 items;
    u32 lanes;  // channels of a thread: 4 or 1
    u32 groups; // channels / lanes
    u32 height, width;          // of x
    u32 out_height, out_width;  // of y
    u32 size, stride, pad;
    u32 pixel; // floats from one pixel of y to the next, forward
    u32 unused;
};
static_assert(sizeof(PoolArguments) == 72, "as in launch/pool.rs");

// Cells or windows from `first` up to `end`.
struct Span {
    u32 first, end;
};

// The real cells of window o, of n.
__device__ __forceinline__ Span cells(const PoolArguments &a, u32 o, u32 n) {
    const u32 low = o * a.stride, high = low + a.size - a.pad; // pad < size
    return {low > a.pad ? low - a.pad : 0, high < n ? high : n};
}

// The windows, of n, that hold cell i.
__device__ __forceinline__ Span windows(const PoolArguments &a, u32 i, u32 n) {
    const u32 end = (i + a.pad) / a.stride + 1;
    const u32 low = i + a.pad + 1 > a.size ? i + a.pad + 1 - a.size : 0;
    return {(low + a.stride - 1) / a.stride, end < n ? end : n};
}

// A thread's place in (rows, height, width, groups).
struct Place {
    u32 row, i, j, group;
};

__device__ __forceinline__ Place place(u32 t, u32 height, u32 width, u32 groups) {
    const u32 cell = t / groups, line = cell / width;
    return {line / height, line % height, cell % width, t % groups};
}

template <int V> __device__ __forceinline__ void max_pool_item(const PoolArguments &a, u32 t) {
    const Place at = place(t, a.out_height, a.out_width, a.groups);
    const Span rows = cells(a, at.i, a.height), columns = cells(a, at.j, a.width);
    const u32 step = a.groups * V;
    const float *x = a.x + (u64)at.row * a.height * a.width * step + at.group * V;
    Vector<V> max;
#pragma unroll
    for (int k = 0; k < V; k++) max.v[k] = -__int_as_float(0x7f800000);
    for (u32 i = rows.first; i < rows.end; i++)
        for (u32 j = columns.first; j < columns.end; j++) {
            const Vector<V> v = load<V>(x + (u64)(i * a.width + j) * step);
#pragma unroll
            for (int k = 0; k < V; k++) max.v[k] = wins(v.v[k], max.v[k]) ? v.v[k] : max.v[k];
        }
    store<V>(a.y + (u64)(t / a.groups) * a.pixel + at.group * V, max);
}

extern "C" __global__ void __launch_bounds__(256) max_pool(const PoolArguments a) {
    const u32 t = blockIdx.x * 256 + threadIdx.x;
    if (t >= a.items) return;
    if (a.lanes == 4) max_pool_item<4>(a, t);
    else max_pool_item<1>(a, t);
}

template <int V> __device__ __forceinline__ void max_pool_grad_item(const PoolArguments &a, u32 t) {
    const Place at = place(t, a.height, a.width, a.groups);
    const Span down = windows(a, at.i, a.out_height), right = windows(a, at.j, a.out_width);
    const u32 step = a.groups * V, own = at.i * a.width + at.j;
    const float *x = a.x + (u64)at.row * a.height * a.width * step + at.group * V;
    const float *gy = a.gy + (u64)at.row * a.out_height * a.out_width * step + at.group * V;
    Vector<V> sum;
#pragma unroll
    for (int k = 0; k < V; k++) sum.v[k] = 0.0f;
    for (u32 p = down.first; p < down.end; p++)
        for (u32 q = right.first; q < right.end; q++) {
            const Span rows = cells(a, p, a.height), columns = cells(a, q, a.width);
            Vector<V> max;
            u32 mine = 0; // bit k: this thread's cell holds the maximum so far in channel k
#pragma unroll
            for (int k = 0; k < V; k++) max.v[k] = 0.0f;
            bool first = true;
            for (u32 i = rows.first; i < rows.end; i++)
                for (u32 j = columns.first; j < columns.end; j++) {
                    const u32 cell = i * a.width + j;
                    const Vector<V> v = load<V>(x + (u64)cell * step);
#pragma unroll
                    for (int k = 0; k < V; k++)
                        if (first || wins(v.v[k], max.v[k])) {
                            max.v[k] = v.v[k];
                            mine = cell == own ? mine | 1u << k : mine & ~(1u << k);
                        }
                    first = false;
                }
            const Vector<V> g = load<V>(gy + (u64)(p * a.out_width + q) * step);
#pragma unroll
            for (int k = 0; k < V; k++) sum.v[k] += mine >> k & 1 ? g.v[k] : 0.0f;
        }
    store<V>(a.y + (u64)t * V, sum);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool_grad(const PoolArguments a) {
    const u32 t = blockIdx.x * 256 + threadIdx.x;
    if (t >= a.items) return;
    if (a.lanes == 4) max_pool_grad_item<4>(a, t);
    else max_pool_grad_item<1>(a, t);
}

// Windows of 2 x 2 that do not overlap: a thread owns a whole window, or the odd rest in the last line or column.
template <int V> __device__ __forceinline__ void halving_grad_item(const PoolArguments &a, u32 t) {
    const Place at = place(t, (a.height + 1) / 2, (a.width + 1) / 2, a.groups);
    const u32 step = a.groups * V;
    const u64 corner = (((u64)at.row * a.height + 2 * at.i) * a.width + 2 * at.j) * step + at.group * V;
    const u64 below = (u64)a.width * step;
    Vector<V> gx[4] = {};
    if (at.i < a.out_height && at.j < a.out_width) {
        const float *from = a.x + corner;
        const Vector<V> x[4] = {load<V>(from), load<V>(from + step), load<V>(from + below), load<V>(from + below + step)};
        const u64 window = ((u64)at.row * a.out_height + at.i) * a.out_width + at.j;
        const Vector<V> g = load<V>(a.gy + window * step + at.group * V);
#pragma unroll
        for (int k = 0; k < V; k++) {
            float max = x[0].v[k];
            u32 winner = 0;
#pragma unroll
            for (u32 cell = 1; cell < 4; cell++)
                if (wins(x[cell].v[k], max)) {
                    max = x[cell].v[k];
                    winner = cell;
                }
#pragma unroll
            for (u32 cell = 0; cell < 4; cell++) gx[cell].v[k] = winner == cell ? g.v[k] : 0.0f;
        }
    }
    const bool right = 2 * at.j + 1 < a.width, low = 2 * at.i + 1 < a.height;
    float *to = a.y + corner;
    store<V>(to, gx[0]);
    if (right) store<V>(to + step, gx[1]);
    if (low) store<V>(to + below, gx[2]);
    if (right && low) store<V>(to + below + step, gx[3]);
}

extern "C" __global__ void __launch_bounds__(256) max_pool_halving_grad(const PoolArguments a) {
    const u32 t = blockIdx.x * 256 + threadIdx.x;
    if (t >= a.items) return;
    if (a.lanes == 4) halving_grad_item<4>(a, t);
    else halving_grad_item<1>(a, t);
}

// Cells under each output position along one axis: p has those from p·advance/over up to (p·advance + reach)/over, rounded up.
struct Spans {
    u32 advance, over, reach;
};

struct AverageArguments {
    const float *x; // or gy
    float *y;       // or gx
    u32 items;
    u32 lanes;  // channels of a thread: 4 or 1
    u32 groups; // channels / lanes
    u32 height, width;         // of x
    u32 out_height, out_width; // of y
    Spans down, right;
    u32 pixel; // floats from one pixel of y to the next, forward
};
static_assert(sizeof(AverageArguments) == 72, "as in launch/pool.rs");

__device__ __forceinline__ Span cells_of(const Spans &s, u32 p, u32 n) {
    const u32 end = (p * s.advance + s.reach + s.over - 1) / s.over;
    return {p * s.advance / s.over, end < n ? end : n};
}

// The positions, of n, that average cell i.
__device__ __forceinline__ Span positions_of(const Spans &s, u32 i, u32 n) {
    const u32 end = ((i + 1) * s.over + s.advance - 1) / s.advance;
    return {i * s.over < s.reach ? 0 : (i * s.over - s.reach) / s.advance + 1, end < n ? end : n};
}

template <int V> __device__ __forceinline__ void average_item(const AverageArguments &a, u32 t) {
    const Place at = place(t, a.out_height, a.out_width, a.groups);
    const Span rows = cells_of(a.down, at.i, a.height), columns = cells_of(a.right, at.j, a.width);
    const u32 step = a.groups * V;
    const float *x = a.x + (u64)at.row * a.height * a.width * step + at.group * V;
    Vector<V> sum = {};
    for (u32 i = rows.first; i < rows.end; i++)
        for (u32 j = columns.first; j < columns.end; j++) {
            const Vector<V> v = load<V>(x + (u64)(i * a.width + j) * step);
#pragma unroll
            for (int k = 0; k < V; k++) sum.v[k] += v.v[k];
        }
    const float count = (float)((rows.end - rows.first) * (columns.end - columns.first));
#pragma unroll
    for (int k = 0; k < V; k++) sum.v[k] /= count;
    store<V>(a.y + (u64)(t / a.groups) * a.pixel + at.group * V, sum);
}

// y = means of the cells under each position, summed in row-major order. Floor: x once and y once; windows that overlap are
// read again, from the caches.
extern "C" __global__ void __launch_bounds__(256, 4) average_cells(const AverageArguments a) {
    const u32 t = blockIdx.x * 256 + threadIdx.x;
    if (t >= a.items) return;
    if (a.lanes == 4) average_item<4>(a, t);
    else average_item<1>(a, t);
}

template <int V> __device__ __forceinline__ void average_grad_item(const AverageArguments &a, u32 t) {
    const Place at = place(t, a.height, a.width, a.groups);
    const Span down = positions_of(a.down, at.i, a.out_height), right = positions_of(a.right, at.j, a.out_width);
    const u32 step = a.groups * V;
    const float *gy = a.x + (u64)at.row * a.out_height * a.out_width * step + at.group * V;
    Vector<V> sum = {};
    for (u32 p = down.first; p < down.end; p++)
        for (u32 q = right.first; q < right.end; q++) {
            const Span rows = cells_of(a.down, p, a.height), columns = cells_of(a.right, q, a.width);
            const float count = (float)((rows.end - rows.first) * (columns.end - columns.first));
            const Vector<V> g = load<V>(gy + (u64)(p * a.out_width + q) * step);
#pragma unroll
            for (int k = 0; k < V; k++) sum.v[k] += g.v[k] / count;
        }
    store<V>(a.y + (u64)t * V, sum);
}

// gx: every cell gathers its share of the positions that average it, in row-major order. Floor: gy once and gx once.
extern "C" __global__ void __launch_bounds__(256, 4) average_cells_grad(const AverageArguments a) {
    const u32 t = blockIdx.x * 256 + threadIdx.x;
    if (t >= a.items) return;
    if (a.lanes == 4) average_grad_item<4>(a, t);
    else average_grad_item<1>(a, t);
}

struct ChannelSumArguments {
    const float *x;      // (rows, positions, channels)
    const float *weight; // (rows, channels)
    float *y;            // (rows, positions)
    u32 positions, channels;
    u32 items; // rows * positions
    u32 unused;
};
static_assert(sizeof(ChannelSumArguments) == 40, "as in launch/pool.rs");

// y = sum over channels of weight · x, in f64: a warp a position. Floor: 4 bytes an element of x.
extern "C" __global__ void __launch_bounds__(256) channel_sum(const ChannelSumArguments a) {
    const u32 at = blockIdx.x * 8 + threadIdx.x / 32;
    if (at >= a.items) return;
    const float *x = a.x + (u64)at * a.channels, *weight = a.weight + (u64)(at / a.positions) * a.channels;
    double sum = 0;
    for (u32 c = threadIdx.x % 32; c < a.channels; c += 32) sum = fma((double)x[c], (double)weight[c], sum);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) a.y[at] = (float)sum;
}

struct PositionsArguments {
    const float *x; // (rows, positions, channels), or gy (rows, channels)
    float *y;
    u32 positions, channels;
    u32 tiles; // of the channels, each as wide as a block
    u32 lanes; // channels of a thread
    u32 items;
    u32 unused;
};
static_assert(sizeof(PositionsArguments) == 40, "as in launch/pool.rs");

// Combines f(x) over the positions of a row in an order that positions and channels fix.
// grid (rows * tiles), block (channels of a tile, 256 / them)
template <class T, class F, class Combine, class End>
__device__ __forceinline__ void over_positions(const PositionsArguments &a, T start, F f, Combine combine, End end) {
    const u32 row = blockIdx.x / a.tiles, channel = blockIdx.x % a.tiles * blockDim.x + threadIdx.x;
    const float *x = a.x + (u64)row * a.positions * a.channels + channel;
    T value = start;
    if (channel < a.channels)
#pragma unroll 4
        for (u32 i = threadIdx.y; i < a.positions; i += blockDim.y) value = combine(value, f(x[(u64)i * a.channels]));
    value = combine_column(value, combine);
    if (threadIdx.y == 0 && channel < a.channels) a.y[(u64)row * a.channels + channel] = end(value);
}

// y (rows, channels) = mean of x over positions, summed in f64. Floor: 4 bytes an element of x.
extern "C" __global__ void __launch_bounds__(256) global_average(const PositionsArguments a) {
    const double positions = a.positions;
    over_positions(
        a, 0.0, [](float x) { return (double)x; }, [](double a, double b) { return a + b; },
        [=](double sum) { return (float)(sum / positions); });
}

// y (rows, channels) = max |x| over positions, NaN if one is. Floor: 4 bytes an element of x.
extern "C" __global__ void __launch_bounds__(256) channel_max(const PositionsArguments a) {
    over_positions(
        a, 0.0f, [](float x) { return fabsf(x); }, [](float a, float b) { return b <= a || a != a ? a : b; },
        [](float max) { return max; });
}

template <int V> __device__ __forceinline__ void global_average_grad_item(const PositionsArguments &a, u32 t) {
    const u32 groups = a.channels / V, row = t / groups / a.positions;
    Vector<V> g = load<V>(a.x + (u64)row * a.channels + t % groups * V);
#pragma unroll
    for (int k = 0; k < V; k++) g.v[k] /= (float)a.positions;
    store<V>(a.y + (u64)t * V, g);
}

// y (rows, positions, channels) = gy / positions. Floor: 4 bytes an element of y.
extern "C" __global__ void __launch_bounds__(256) global_average_grad(const PositionsArguments a) {
    const u32 t = blockIdx.x * 256 + threadIdx.x;
    if (t >= a.items) return;
    if (a.lanes == 4) global_average_grad_item<4>(a, t);
    else global_average_grad_item<1>(a, t);
}
