// Node interventions: channels of a code z (images, H, W, C) set to zero, and the decoder's first convolution kept up to date.
// Row r of a result takes image images[r]; channel c of it is cleared where keep[sets[r]][c] is 0.
//
// Rows of a launch differ in image and set only; what a row's threads do follows from the layer's shape, its image and its set,
// so its bits do not depend on the other rows.

struct InterveneArguments {
    const float *z;
    const u32 *images, *sets; // (rows)
    const float *keep;        // (sets, channels)
    float *y;                 // (rows, positions, channels)
    u32 items;
    u32 lanes;  // channels of a thread: 4 or 1
    u32 groups; // channels / lanes
    u32 positions;
};
static_assert(sizeof(InterveneArguments) == 56, "as in launch/intervene.rs");

template <int V> __device__ __forceinline__ void intervene_item(const InterveneArguments &a, u32 t) {
    const u32 row_items = a.positions * a.groups, row = t / row_items, within = t % row_items, group = within % a.groups;
    const Vector<V> keep = load<V>(a.keep + ((u64)a.sets[row] * a.groups + group) * V);
    Vector<V> x = load<V>(a.z + ((u64)a.images[row] * row_items + within) * V);
#pragma unroll
    for (int k = 0; k < V; k++) x.v[k] = keep.v[k] != 0.0f ? x.v[k] : 0.0f; // a select: a cleared NaN is cleared
    store<V>(a.y + (u64)t * V, x);
}

// y[r] = z[image] with the cleared channels at zero. Floor: 8 bytes an element; the reads of an image's later rows come from
// the caches.
extern "C" __global__ void __launch_bounds__(256) intervene(const InterveneArguments a) {
    const u32 t = blockIdx.x * 256 + threadIdx.x;
    if (t >= a.items) return;
    if (a.lanes == 4) intervene_item<4>(a, t);
    else intervene_item<1>(a, t);
}

struct InterveneConvArguments {
    const float *pre;         // (images, OH, OW, O): the convolution of the whole code with its bias, no activation
    const float *z;           // (images, H, W, C)
    const float *weight;      // ((kernel row, kernel column, C), weight_stride), the first O of a line
    const u32 *images, *sets; // (rows)
    const float *keep;        // (sets, C)
    float *y;                 // (rows, OH, OW, O)
    u32 channels;             // C
    u32 height, width;        // of z
    u32 outputs;              // O
    u32 out_height, out_width;
    u32 kernel_height, kernel_width;
    u32 pad;
    u32 weight_stride;
    u32 lanes;      // output channels of a thread: 4 or 1
    u32 groups;     // O / lanes
    u32 segments;   // of 4 columns in an output line
    u32 row_blocks; // blocks of a row
    u32 activation; // 0 none, 1 ReLU
    u32 unused;
};
static_assert(sizeof(InterveneConvArguments) == 120, "as in launch/intervene.rs");

constexpr int COLUMNS = 4;       // of a thread
constexpr u32 OUTSIDE = ~0u; // no cell's place

// Adds one kernel line of a channel to a thread's shares. line = the channel in the code's line, columns = where the thread's
// cells are in it, weight = the first tap's. Returns the bits of the cells, but for signs; where there are none there is nothing
// to add. W is the kernel's width.
template <int V, int W>
__device__ __forceinline__ u32 add_line(const float *line, const u32 (&columns)[W + COLUMNS - 1], const float *weight,
                                        u32 tap_step, float (&share)[COLUMNS][V]) {
    float under[W + COLUMNS - 1];
    u32 bits = 0;
#pragma unroll
    for (int m = 0; m < W + COLUMNS - 1; m++) {
        under[m] = columns[m] != OUTSIDE ? line[columns[m]] : 0.0f;
        bits |= __float_as_uint(under[m]);
    }
    bits <<= 1;
    if (!bits) return 0;
#pragma unroll
    for (int l = 0; l < W; l++) {
        const Vector<V> w = load<V>(weight + l * tap_step);
#pragma unroll
        for (int m = 0; m < COLUMNS; m++)
#pragma unroll
            for (int v = 0; v < V; v++) share[m][v] = fmaf(under[l + m], w.v[v], share[m][v]);
    }
    return bits;
}

// W divides the kernel's width.
template <int V, int W> __device__ __forceinline__ void intervene_conv_item(const InterveneConvArguments &a) {
    const u32 row = blockIdx.x / a.row_blocks;
    const u32 t = blockIdx.x % a.row_blocks * 128 + threadIdx.x;
    const bool active = t < a.out_height * a.segments * a.groups; // idle threads stay for the votes
    const u32 output = t % a.groups * V, segment = t / a.groups;
    const u32 p = segment / a.segments, q = segment % a.segments * COLUMNS;
    const u32 image = a.images[row];
    const float *keep = a.keep + (u64)a.sets[row] * a.channels;
    const float *z = a.z + (u64)image * a.height * a.width * a.channels;

    float share[COLUMNS][V] = {}; // of the cleared channels
    u32 seen = 0;
    for (u32 l = 0; l < a.kernel_width; l += W) {
        u32 columns[W + COLUMNS - 1];
#pragma unroll
        for (int m = 0; m < W + COLUMNS - 1; m++) {
            const u32 j = q + l + m - a.pad; // wraps left of the first, and is then beyond the width
            columns[m] = j < a.width ? j * a.channels : OUTSIDE;
        }
        for (u32 base = 0; base < a.channels; base += 32) {
            const u32 lane = base + threadIdx.x % 32;
            u32 cleared = __ballot_sync(FULL_WARP, lane < a.channels && keep[lane] == 0.0f);
            for (; cleared && active; cleared &= cleared - 1) {
                const u32 c = base + __ffs(cleared) - 1;
                for (u32 k = 0; k < a.kernel_height; k++) {
                    const u32 i = p + k - a.pad;
                    if (i >= a.height) continue;
                    const u32 tap = k * a.kernel_width + l;
                    seen |= add_line<V, W>(z + (u64)(i * a.width) * a.channels + c, columns,
                                           a.weight + (u64)(tap * a.channels + c) * a.weight_stride + output,
                                           a.channels * a.weight_stride, share);
                }
            }
        }
    }
    if (!active) return;
    const u64 at = ((u64)p * a.out_width + q) * a.outputs + output, plane = (u64)a.out_height * a.out_width * a.outputs;
    const float *pre = a.pre + image * plane + at;
    float *y = a.y + row * plane + at;
#pragma unroll
    for (int m = 0; m < COLUMNS; m++)
        if (q + m < a.out_width) {
            Vector<V> x = load<V>(pre + (u64)m * a.outputs);
#pragma unroll
            for (int v = 0; v < V; v++) {
                // unchanged bits, also those of a NaN, where nothing was cleared
                if (seen) x.v[v] -= share[m][v];
                if (a.activation) x.v[v] = relu(x.v[v]);
            }
            store<V>(y + (u64)m * a.outputs, x);
        }
}

// y[r] = activation(pre[image] - the cleared channels' share), share[p][q][o] = sum over the cleared channels c, kernel rows k and
// columns l of z[p + k - pad][q + l - pad][c] · weight[k][l][c][o]. Kernel columns are taken W at a time; for these W the sum
// runs over c, then k, then l, all ascending.
// A thread has 4 columns of 4 output channels and reads W + 3 cells for 16 W products; neighbours in a warp are neighbours in
// channels, so that all but z is read and written in runs, and what the warps of a row read of z and of the weight lies in the
// caches. A warp votes which channels are cleared, 32 at a time. Lines of cells without activity are skipped.
// Floor: 4 bytes an output written and 4 read (an image's later rows: from the caches), 2 · kernel · cleared channels FLOPs.
// A share of zero cells is +0 (it begins as +0, and +0 with ±0 added is +0), and x - (+0) is x: an output that no cleared cell
// reaches keeps the bits of `pre`, for finite weights; where all of a thread's cells are zero, whatever the weights and `pre`.
extern "C" __global__ void __launch_bounds__(128, 4) intervene_conv(const InterveneConvArguments a) {
    if (a.lanes == 4) intervene_conv_item<4, 1>(a);
    else intervene_conv_item<1, 1>(a);
}

// For kernels of 3 columns, or 6, or 9.
extern "C" __global__ void __launch_bounds__(128, 4) intervene_conv_3(const InterveneConvArguments a) {
    if (a.lanes == 4) intervene_conv_item<4, 3>(a);
    else intervene_conv_item<1, 3>(a);
}
