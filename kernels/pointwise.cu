// Elementwise operations over dense values: affine maps of channels, ReLU and its gradient, scaling, square root, arithmetic.
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
};
static_assert(sizeof(AffineArguments) == 48, "as in launch/pointwise.rs");

template <int V> __device__ __forceinline__ void affine_item(const AffineArguments &a) {
    const u64 t = (u64)blockIdx.x * 256 + threadIdx.x;
    if (t >= a.items) return;
    // t % groups without a division of 64 bits
    const u32 group = (blockIdx.x % a.groups * 256 + threadIdx.x) % a.groups;
    Vector<V> x = load<V>(a.x + V * t);
    const Vector<V> scale = load<V>(a.scale + V * group);
#pragma unroll
    for (int k = 0; k < V; k++) x.v[k] = __fmul_rn(x.v[k], scale.v[k]);
    if (a.shift) {
        const Vector<V> shift = load<V>(a.shift + V * group);
#pragma unroll
        for (int k = 0; k < V; k++) x.v[k] = __fadd_rn(x.v[k], shift.v[k]);
    }
    store<V>(a.y + V * t, x);
}

// y = x · scale + shift, a channel
extern "C" __global__ void __launch_bounds__(256) affine(const AffineArguments a) {
    if (a.lanes == 4) affine_item<4>(a);
    else affine_item<1>(a);
}
