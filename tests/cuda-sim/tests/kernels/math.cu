// The CUDA math library, which the compiler inlines: whole functions in a few dozen instructions each.
#define MAP1(NAME, T, CALL) \
  extern "C" __global__ void NAME(T *out, const T *x, int n) { \
    int i = blockIdx.x * blockDim.x + threadIdx.x; \
    if (i < n) { T a = x[i]; out[i] = CALL; } \
  }
#define MAP2(NAME, T, CALL) \
  extern "C" __global__ void NAME(T *out, const T *x, const T *y, int n) { \
    int i = blockIdx.x * blockDim.x + threadIdx.x; \
    if (i < n) { T a = x[i], b = y[i]; out[i] = CALL; } \
  }
MAP1(sin_d, double, sin(a))
MAP1(cos_d, double, cos(a))
MAP1(tan_d, double, tan(a))
MAP1(exp_d, double, exp(a))
MAP1(log_d, double, log(fabs(a)))
MAP1(sqrt_d, double, sqrt(fabs(a)))
MAP1(cbrt_d, double, cbrt(a))
MAP1(tanh_d, double, tanh(a))
MAP1(atan_d, double, atan(a))
MAP1(floor_d, double, floor(a) + rint(a) + trunc(a) + ceil(a))
MAP2(div_d, double, a / b)
MAP2(pow_d, double, pow(fabs(a), b))
MAP2(atan2_d, double, atan2(a, b))
MAP2(fmod_d, double, fmod(a, b))
MAP2(hypot_d, double, hypot(a, b))
MAP2(fma_d, double, fma(a, b, a))
MAP1(sin_f, float, sinf(a))
MAP1(cos_f, float, cosf(a))
MAP1(exp_f, float, expf(a))
MAP1(log_f, float, logf(fabsf(a)))
MAP1(tanh_f, float, tanhf(a))
MAP1(sqrt_f, float, sqrtf(fabsf(a)))
MAP1(cbrt_f, float, cbrtf(a))
MAP1(rsqrt_f, float, rsqrtf(fabsf(a)))
MAP1(sin_fast, float, __sinf(a))
MAP1(exp_fast, float, __expf(a))
MAP1(log_fast, float, __logf(fabsf(a)))
MAP2(div_f, float, a / b)
MAP2(div_fast, float, __fdividef(a, b))
MAP2(pow_f, float, powf(fabsf(a), b))
MAP2(fmod_f, float, fmodf(a, b))
