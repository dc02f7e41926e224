// The rest of the language: control flow, memory spaces, integers of all sizes, traps.

// ---- Control flow.
extern "C" __global__ void switch_table(int *out, const int *op, const int *x, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int v = x[i];
  switch (op[i]) {
    case 0: v = v + 17; break;
    case 1: v = v * v; break;
    case 2: v = v ^ (v >> 3); break;
    case 3: v = -v;  // falls through
    case 4: v = v - 1000; break;
    case 5: v = __popc(v); break;
    case 6: v = v / 7; break;
    case 7: v = v % 13; break;
    case 8: return;
    case 9: while (v & 1) v = v / 2 + v % 3; break;
    case 10: v = __clz(v); break;
    case 11: v = v << 5 | v >> 27; break;
    default: v = 0x7fffffff;
  }
  out[i] = v;
}
extern "C" __global__ void collatz(int *steps, const unsigned long long *start, int n, int limit) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += blockDim.x * gridDim.x) {
    unsigned long long x = start[i];
    int count = 0;
    for (; x != 1; count++) {
      if (count == limit) goto give_up;
      if (x % 2 == 0) {
        x /= 2;
        continue;
      }
      x = 3 * x + 1;
    }
    steps[i] = count;
    continue;
  give_up:
    steps[i] = -1;
  }
}
extern "C" __global__ void mandelbrot(unsigned char *image, int width, int height, int limit) {
  int px = blockIdx.x * blockDim.x + threadIdx.x, py = blockIdx.y * blockDim.y + threadIdx.y;
  if (px >= width || py >= height) return;
  // Multiples of powers of two, and every product written out: the same on every machine.
  float cx = __fadd_rn(__fmul_rn(px, 0.03125f), -2.f), cy = __fadd_rn(__fmul_rn(py, 0.0625f), -1.f), x = 0, y = 0;
  int i = 0;
  while (i < limit) {
    float xx = __fmul_rn(x, x), yy = __fmul_rn(y, y);
    if (__fadd_rn(xx, yy) > 4.f) break;
    y = __fadd_rn(__fmul_rn(__fmul_rn(2.f, x), y), cy);
    x = __fadd_rn(__fadd_rn(xx, -yy), cx);
    i++;
  }
  image[py * width + px] = i;
}
// Launched with 3D grids and blocks: every thread once.
extern "C" __global__ void coordinates(uint4 *out, int nx, int ny, int nz) {
  unsigned x = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned y = blockIdx.y * blockDim.y + threadIdx.y;
  unsigned z = blockIdx.z * blockDim.z + threadIdx.z;
  if (x >= nx || y >= ny || z >= nz) return;
  unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  unsigned lane;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane));
  out[(z * ny + y) * nx + x] = make_uint4(x, y, z, thread % 32 == lane);
}

// ---- Memory.
__device__ int device_counter = 40;
__device__ float table[4] = {1.5f, -2.f, 3.25f};
__constant__ int constants[8] = {2, 3, 5, 7, 11, 13, 17, 19};
__constant__ struct { float scale; int shift; double bias; } settings = {0.5f, 3, -1.25};
__device__ const char *const words[3] = {"zero", "one", "two"};
__device__ int *pointer_to_counter = &device_counter;
extern "C" __global__ void variables(int *out, float *fout, int n) {
  int i = threadIdx.x;
  if (i == 0) {
    *pointer_to_counter += 2;
    table[3] = table[0] * 2;
  }
  __syncthreads();
  if (i < n) {
    out[i] = device_counter + constants[i % 8] + words[i % 3][i % 3];
    fout[i] = (table[i % 4] * settings.scale + (float)settings.bias) + (float)(i << settings.shift);
  }
}
extern "C" __global__ void local_arrays(int *out, const int *in, const int *index, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int stack[24];
  short small[10];
  for (int k = 0; k < 24; k++) stack[k] = in[(i + k) % n];
  for (int k = 0; k < 10; k++) small[k] = (short)(stack[k] >> 3);
  int at = index[i] % 24;
  stack[at] ^= 0x55;
  int sum = 0;
  for (int k = 0; k < 24; k++) sum = sum * 31 + stack[(k * 7 + index[i]) % 24];
  out[i] = sum + small[index[i] % 10];
}
struct __align__(16) Particle {
  float x, y, z;
  unsigned short kind;
  signed char charge;
  bool alive;
};
struct Matrix { float m[3][3]; };
extern "C" __global__ void structures(Particle *out, const Particle *in, Matrix rotate, char flag, short count) {
  int i = threadIdx.x;
  if (i >= count) return;
  Particle p = in[i];
  Particle q = p;
  q.x = rotate.m[0][0] * p.x + rotate.m[0][1] * p.y + rotate.m[0][2] * p.z;
  q.y = rotate.m[1][0] * p.x + rotate.m[1][1] * p.y + rotate.m[1][2] * p.z;
  q.z = rotate.m[2][0] * p.x + rotate.m[2][1] * p.y + rotate.m[2][2] * p.z;
  q.kind += 1000;
  q.charge = -q.charge;
  q.alive = p.alive != (flag == 'x');
  out[i] = q;
}
extern "C" __global__ void nbody(float4 *acceleration, const float4 *bodies, int n) {
  extern __shared__ float4 tile[];
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  float4 me = i < n ? bodies[i] : make_float4(0, 0, 0, 0);
  float3 acc = {0, 0, 0};
  for (int start = 0; start < n; start += blockDim.x) {
    int j = start + threadIdx.x;
    tile[threadIdx.x] = j < n ? bodies[j] : make_float4(0, 0, 0, 0);
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < blockDim.x; k++) {
      float4 b = tile[k];
      float3 r = {b.x - me.x, b.y - me.y, b.z - me.z};
      float d2 = r.x * r.x + r.y * r.y + r.z * r.z + 0.01f;
      float inv = rsqrtf(d2);
      float s = b.w * inv * inv * inv;
      acc.x += r.x * s;
      acc.y += r.y * s;
      acc.z += r.z * s;
    }
    __syncthreads();
  }
  if (i < n) acceleration[i] = make_float4(acc.x, acc.y, acc.z, 0);
}

// ---- Random numbers.
__device__ unsigned xorshift(unsigned &state) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}
extern "C" __global__ void monte_carlo_pi(int *inside, int rounds) {
  unsigned state = (blockIdx.x * blockDim.x + threadIdx.x) * 2654435761u + 1u;
  int count = 0;
  for (int i = 0; i < rounds; i++) {
    unsigned x = xorshift(state) >> 17, y = xorshift(state) >> 17;
    count += x * x + y * y < 1u << 30;
  }
  inside[blockIdx.x * blockDim.x + threadIdx.x] = count;
}
__device__ uint4 philox_round(uint4 c, uint2 k) {
  unsigned hi0 = __umulhi(0xD2511F53u, c.x), lo0 = 0xD2511F53u * c.x;
  unsigned long long wide = (unsigned long long)0xCD9E8D57u * c.z;
  return make_uint4((unsigned)(wide >> 32) ^ c.y ^ k.x, (unsigned)wide, hi0 ^ c.w ^ k.y, lo0);
}
extern "C" __global__ void philox(uint4 *out, uint4 counter, uint2 key) {
  counter.x += blockIdx.x * blockDim.x + threadIdx.x;
  for (int i = 0; i < 10; i++) {
    counter = philox_round(counter, key);
    key.x += 0x9E3779B9u;
    key.y += 0xBB67AE85u;
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = counter;
}

// ---- Integers.
template <class T>
__device__ void each(T *out, const T *a, const T *b, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  T x = a[i], y = b[i];
  bool undefined = y == 0 || (T(-1) < T(0) && y == T(-1));
  out[i] = x + y;
  out[n + i] = x - y;
  out[2 * n + i] = x * y;
  out[3 * n + i] = undefined ? T(0) : T(x / y);
  out[4 * n + i] = undefined ? T(0) : T(x % y);
  out[5 * n + i] = x >> (y & 7);
  out[6 * n + i] = x < y ? x : y;
  out[7 * n + i] = (x & y) | (~x ^ y);
}
#define INTEGERS(NAME, T) \
  extern "C" __global__ void NAME(T *out, const T *a, const T *b, int n) { each(out, a, b, n); }
INTEGERS(integers_s8, signed char)
INTEGERS(integers_u8, unsigned char)
INTEGERS(integers_s16, short)
INTEGERS(integers_u16, unsigned short)
INTEGERS(integers_s32, int)
INTEGERS(integers_u32, unsigned)
INTEGERS(integers_s64, long long)
INTEGERS(integers_u64, unsigned long long)
extern "C" __global__ void constants_divide(int *out, unsigned *uout, long long *lout, const int *in, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int v = in[i];
  out[i] = v / 3, out[n + i] = v % 10, out[2 * n + i] = v / -7, out[3 * n + i] = v / 16;
  uout[i] = (unsigned)v / 1000u, uout[n + i] = (unsigned)v % 641u;
  lout[i] = (long long)v * 1000003 / 99, lout[n + i] = (long long)v * v % 1000000007;
}
// 128-bit products by carries, and the compiler's own __int128.
extern "C" __global__ void wide(unsigned long long *out, const unsigned long long *a, const unsigned long long *b, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  unsigned __int128 p = (unsigned __int128)a[i] * b[i] + a[i];
  out[2 * i] = (unsigned long long)p;
  out[2 * i + 1] = (unsigned long long)(p >> 64);
}
// ---- What goes wrong, and what is printed.
extern "C" __global__ void prints(int x, double y) {
  if (threadIdx.x == 1) printf("block %d of %u: %5.2f|%-6s|%c%%\n", blockIdx.x, gridDim.x, y, "text", 'a' + x);
  if (threadIdx.x == 2) printf("%lld %llx %p %08.3e %+d\n", -5000000000ll, 0xfeedfacecafeull, (void *)0xbeef00, y, x);
}
extern "C" __global__ void asserts(const int *x) {
  assert(x[threadIdx.x] != 7 && "no sevens");
}
extern "C" __global__ void traps(const int *x) {
  if (x[threadIdx.x] == 7) __trap();
}
extern "C" __global__ void clocks(long long *out, unsigned *ids) {
  long long start = clock64();
  int a = clock();
  __nanosleep(100);
  unsigned long long t;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
  long long end = clock64();
  out[threadIdx.x] = end - start;
  unsigned sm, nsm, warp;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
  asm volatile("mov.u32 %0, %%nsmid;" : "=r"(nsm));
  asm volatile("mov.u32 %0, %%warpid;" : "=r"(warp));
  ids[threadIdx.x] = sm < nsm && warp < 64 && t != 0 && a == a;
}
