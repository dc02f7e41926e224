// Functions that stay functions: called directly, recursively, through pointers and through tables of virtual ones.

__device__ __noinline__ float polynomial(float x, int degree, const float *coefficients) {
  float y = 0.f;
  for (int i = degree; i >= 0; i--) y = fmaf(y, x, coefficients[i]);
  return y;
}
extern "C" __global__ void device_functions(float *out, const float *x, const float *coefficients, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = polynomial(x[i], i % 4, coefficients);
}
__device__ int ackermann(int m, int n) {
  if (m == 0) return n + 1;
  if (n == 0) return ackermann(m - 1, 1);
  return ackermann(m - 1, ackermann(m, n - 1));
}
__device__ void quicksort(int *data, int left, int right) {
  if (left >= right) return;
  int pivot = data[(left + right) / 2], i = left, j = right;
  while (i <= j) {
    while (data[i] < pivot) i++;
    while (data[j] > pivot) j--;
    if (i <= j) {
      int t = data[i];
      data[i++] = data[j];
      data[j--] = t;
    }
  }
  quicksort(data, left, j);
  quicksort(data, i, right);
}
extern "C" __global__ void recursion(int *out, int *data, int each) {
  int i = threadIdx.x;
  out[i] = ackermann(i % 3, i % 5);
  quicksort(data, i * each, i * each + each - 1);
}
typedef int (*binary)(int, int);
__device__ int op_add(int a, int b) { return a + b; }
__device__ int op_sub(int a, int b) { return a - b; }
__device__ int op_mul(int a, int b) { return a * b; }
__device__ int op_max(int a, int b) { return max(a, b); }
__device__ binary operations[4] = {op_add, op_sub, op_mul, op_max};
extern "C" __global__ void function_pointers(int *out, const int *a, const int *b, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = operations[(unsigned)a[i] % 4](a[i], b[i]);
}
struct Shape {
  __device__ virtual float area() const = 0;
};
struct Square : Shape {
  float side;
  __device__ Square(float s) : side(s) {}
  __device__ float area() const override { return side * side; }
};
struct Circle : Shape {
  float radius;
  __device__ Circle(float r) : radius(r) {}
  __device__ float area() const override { return 3.f * radius * radius; }
};
extern "C" __global__ void virtual_functions(float *out, const float *in) {
  int i = threadIdx.x;
  Square square(in[i]);
  Circle circle(in[i]);
  const Shape *shape = i % 3 == 0 ? static_cast<const Shape *>(&square) : &circle;
  out[i] = shape->area();
}


// Shared arrays of several types in one dynamic allocation, and a pointer that is generic.
__device__ __noinline__ int gather(const int *p, int i) { return p[i]; }
extern "C" __global__ void spaces(int *out, const int *in) {
  extern __shared__ __align__(16) char raw[];
  int *ints = (int *)raw;
  double *doubles = (double *)(raw + 64 * sizeof(int));
  unsigned char *bytes = (unsigned char *)(raw + 64 * sizeof(int) + 64 * sizeof(double));
  int t = threadIdx.x;
  int own[2] = {t, in[t]};
  ints[t] = in[t] * 2;
  doubles[t] = in[t] * 0.5;
  bytes[t] = in[t];
  __syncthreads();
  int u = 63 - t;
  const int *p = t % 3 == 0 ? in : t % 3 == 1 ? ints : own;
  out[t] = gather(p, t % 3 == 2 ? t & 1 : u) + (int)doubles[u] + bytes[u];
}
