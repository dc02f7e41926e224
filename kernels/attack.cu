// One step of a sign attack: y = clip(x + step · sign(g), max(0, x0 - eps), min(1, x0 + eps)). sign(0) = 0; a NaN in any operand
// gives NaN: it must be seen, not mistaken for "no direction".
//
// Floor: 16 bytes an element (x, g, x0 in, y out). A thread takes four neighbours. Every element is computed by itself.

struct SignStepArguments {
    const float *x, *g, *x0;
    const float *limits; // step, eps
    float *y;
    u32 quads, tail;
};
static_assert(sizeof(SignStepArguments) == 48, "as in launch/attack.rs");

extern "C" __global__ void __launch_bounds__(256) sign_step(const SignStepArguments a) {
    const float step = a.limits[0], eps = a.limits[1];
    const auto f = [=](float x, float g, float x0) {
        const float top = x0 + eps;
        // comparisons, not fmaxf: that would turn a NaN into the bound
        const float low = x0 - eps < 0.0f ? 0.0f : x0 - eps, high = top > 1.0f ? 1.0f : top;
        float moved = x + step * sign(g);
        moved = moved < low ? low : moved;
        moved = moved > high ? high : moved;
        // a NaN bound clips nothing
        return top != top ? top : moved;
    };
    map(a.quads, a.tail, a.y, f, a.x, a.g, a.x0);
}
