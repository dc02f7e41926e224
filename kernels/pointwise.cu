// Elementwise operations over values, some of windows of their channels: affine maps of channels, copies and sums of windows, ReLU and its gradient, scaling, square root, arithmetic.
//
// Floor: every operand is read once and the result written once, 4 bytes an element each. A thread takes four neighbours (16
// bytes) where the addresses allow it.
// Every element is computed by itself, and products and sums are rounded one by one (no FMA), as on the CPU: both devices give
// the same bits.

struct UnaryArguments {
    const float *x;
    float *y;
    u32 quads, tail;
    float number; // factor or epsilon
    u32 unused;
};
static_assert(sizeof(UnaryArguments) == 32, "as in launch/pointwise.rs");

extern "C" __global__ void __launch_bounds__(256) relu_forward(const UnaryArguments a) {
    map(a.quads, a.tail, a.y, [](float x) { return relu(x); }, a.x);
}

extern "C" __global__ void __launch_bounds__(256) scale(const UnaryArguments a) {
    const float factor = a.number;
    map(a.quads, a.tail, a.y, [=](float x) { return x * factor; }, a.x);
}

extern "C" __global__ void __launch_bounds__(256) square_root(const UnaryArguments a) {
    const float epsilon = a.number;
    map(a.quads, a.tail, a.y, [=](float x) { return sqrtf(x + epsilon); }, a.x);
}

struct BinaryArguments {
    const float *a, *b;
    float *y;
    u32 quads, tail;
    u32 operation;
    u32 unused;
};
static_assert(sizeof(BinaryArguments) == 40, "as in launch/pointwise.rs");

enum Operation : u32 { ADD, SUB, MUL, DIV };

extern "C" __global__ void __launch_bounds__(256) binary(const BinaryArguments a) {
    switch (a.operation) {
    case ADD: return map(a.quads, a.tail, a.y, [](float x, float y) { return x + y; }, a.a, a.b);
    case SUB: return map(a.quads, a.tail, a.y, [](float x, float y) { return x - y; }, a.a, a.b);
    case MUL: return map(a.quads, a.tail, a.y, [](float x, float y) { return x * y; }, a.a, a.b);
    case DIV: return map(a.quads, a.tail, a.y, [](float x, float y) { return x / y; }, a.a, a.b);
    }
}

// a = y, b = gy: gy where y > 0, else 0, so 0 at 0. Where y is NaN, gy passes, as in PyTorch.
extern "C" __global__ void __launch_bounds__(256) relu_grad(const BinaryArguments a) {
    map(a.quads, a.tail, a.y, [](float y, float gy) { return y <= 0.0f ? 0.0f : gy; }, a.a, a.b);
}

struct AffineArguments {
    const float *x, *scale, *shift; // (pixels, channels), (channels), (channels) or null
    float *y;
    u64 items;
    u32 lanes;  // channels of a thread: 4 or 1
    u32 groups; // channels / lanes
    u32 pixel;  // floats from one pixel of x to the next; 0 where they lie dense
    u32 relu;   // whether max(0, .) comes last
};
static_assert(sizeof(AffineArguments) == 56, "as in launch/pointwise.rs");

template <int V> __device__ __forceinline__ void affine_item(const AffineArguments &a) {
    const u64 t = (u64)blockIdx.x * 256 + threadIdx.x;
    if (t >= a.items) return;
    // t % groups without a division of 64 bits
    const u32 group = (blockIdx.x % a.groups * 256 + threadIdx.x) % a.groups;
    // items of pixels that lie apart are below 2^32
    const float *from = a.pixel ? a.x + (u64)((u32)t / a.groups) * a.pixel + V * group : a.x + V * t;
    Vector<V> x = load<V>(from);
    const Vector<V> scale = load<V>(a.scale + V * group);
#pragma unroll
    for (int k = 0; k < V; k++) x.v[k] = __fmul_rn(x.v[k], scale.v[k]);
    if (a.shift) {
        const Vector<V> shift = load<V>(a.shift + V * group);
#pragma unroll
        for (int k = 0; k < V; k++) x.v[k] = __fadd_rn(x.v[k], shift.v[k]);
    }
#pragma unroll
    for (int k = 0; k < V; k++) x.v[k] = a.relu ? relu(x.v[k]) : x.v[k];
    store<V>(a.y + V * t, x);
}

// y = x · scale + shift, a channel, and perhaps ReLU
extern "C" __global__ void __launch_bounds__(256) affine(const AffineArguments a) {
    if (a.lanes == 4) affine_item<4>(a);
    else affine_item<1>(a);
}

struct ViewsArguments {
    const float *a, *b; // pixels that lie apart; b null for a copy
    float *y;
    u32 items;
    u32 lanes;  // channels of a thread: 4 or 1
    u32 groups; // channels / lanes
    u32 a_pixel, b_pixel, y_pixel; // floats from one pixel to the next
};
static_assert(sizeof(ViewsArguments) == 48, "as in launch/pointwise.rs");

template <int V> __device__ __forceinline__ void views_item(const ViewsArguments &a) {
    const u32 t = blockIdx.x * 256 + threadIdx.x;
    if (t >= a.items) return;
    const u32 pixel = t / a.groups, channel = V * (t % a.groups);
    Vector<V> x = load<V>(a.a + (u64)pixel * a.a_pixel + channel);
    if (a.b) {
        const Vector<V> b = load<V>(a.b + (u64)pixel * a.b_pixel + channel);
#pragma unroll
        for (int k = 0; k < V; k++) x.v[k] = __fadd_rn(x.v[k], b.v[k]);
    }
    store<V>(a.y + (u64)pixel * a.y_pixel + channel, x);
}

// y = a, or a + b, of windows of channels: concats and slices that could not be made in place, sums of gradients
extern "C" __global__ void __launch_bounds__(256) views(const ViewsArguments a) {
    if (a.lanes == 4) views_item<4>(a);
    else views_item<1>(a);
}
