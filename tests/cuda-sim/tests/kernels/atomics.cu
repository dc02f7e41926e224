// Atomics, votes and what blocks say to each other.

// ---- Every integer atomic, on global memory: out[op] is what remains, old[op] what each thread saw (in any order).
extern "C" __global__ void integer_atomics(int *s, unsigned *u, unsigned long long *w, const int *in, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int v = in[i];
  atomicAdd(&s[0], v);
  atomicSub(&s[1], v);
  atomicMin(&s[2], v);
  atomicMax(&s[3], v);
  atomicAnd(&s[4], v);
  atomicOr(&s[5], v);
  atomicXor(&s[6], v);
  atomicMin(&u[0], (unsigned)v);
  atomicMax(&u[1], (unsigned)v);
  atomicInc(&u[2], 6u);
  atomicDec(&u[3], 6u);
  atomicAdd(&w[0], (unsigned long long)(long long)v);
  atomicMin(&w[1], (unsigned long long)(long long)v);
  atomicMax(reinterpret_cast<long long *>(&w[2]), (long long)v << 20);
  atomicXor(&w[3], (unsigned long long)(unsigned)v << 16);
  atomicAnd(&w[4], ~((unsigned long long)(unsigned)v & 0xffull));
  atomicOr(&w[5], 1ull << (v & 63));
}
// Every ticket is drawn once.
extern "C" __global__ void tickets(int *counter, int *owner, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) owner[atomicAdd(counter, 1)] = i;
}
extern "C" __global__ void exchange_chain(unsigned *slot, unsigned *seen) {
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x + 1;
  seen[i - 1] = atomicExch(slot, i);
}

// ---- Compare and swap.
__device__ double atomicAddCas(double *address, double val) {
  unsigned long long int *address_as_ull = (unsigned long long int *)address;
  unsigned long long int old = *address_as_ull, assumed;
  do {
    assumed = old;
    old = atomicCAS(address_as_ull, assumed, __double_as_longlong(val + __longlong_as_double(assumed)));
  } while (assumed != old);
  return __longlong_as_double(old);
}
__device__ float atomicMaxFloat(float *address, float val) {
  int *address_as_i = (int *)address;
  int old = *address_as_i, assumed;
  do {
    assumed = old;
    old = atomicCAS(address_as_i, assumed, __float_as_int(fmaxf(val, __int_as_float(assumed))));
  } while (assumed != old);
  return __int_as_float(old);
}
// The trick without a loop: floats order like integers of their sign.
__device__ void atomicMinFloat(float *address, float value) {
  if (value >= 0) atomicMin((int *)address, __float_as_int(value));
  else atomicMax((unsigned *)address, __float_as_uint(value));
}
extern "C" __global__ void cas_loops(double *sum, double *native, float *largest, float *smallest, unsigned short *small,
                                     const float *in, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  atomicAddCas(sum, (double)in[i]);
  atomicAdd(native, (double)in[i]);
  atomicMaxFloat(largest, in[i]);
  atomicMinFloat(smallest, in[i]);
  unsigned short old = *small, assumed;
  do {
    assumed = old;
    old = atomicCAS(small, assumed, (unsigned short)(assumed + 3));
  } while (assumed != old);
}
// A lock around a counter that is not atomic: one thread a block takes it.
extern "C" __global__ void spin_lock(int *lock, volatile int *counter) {
  __syncthreads();
  if (threadIdx.x == 0) {
    while (atomicCAS(lock, 0, 1) != 0) __nanosleep(20);
    __threadfence();
    *counter = *counter + 1;
    __threadfence();
    atomicExch(lock, 0);
  }
}
// Block i waits for block i - 1: a chain of flags, as decoupled scans have it.
extern "C" __global__ void flag_chain(volatile int *flag, volatile unsigned *prefix, const unsigned *in, unsigned *out) {
  __shared__ unsigned base;
  __shared__ unsigned sums[64];
  int t = threadIdx.x, b = blockIdx.x;
  sums[t] = in[b * 64 + t];
  __syncthreads();
  for (int d = 1; d < 64; d *= 2) {
    unsigned add = t >= d ? sums[t - d] : 0;
    __syncthreads();
    sums[t] += add;
    __syncthreads();
  }
  if (t == 0) {
    unsigned before = 0;
    if (b > 0) {
      while (flag[b - 1] == 0) {}
      __threadfence();
      before = prefix[b - 1];
    }
    prefix[b] = before + sums[63];
    __threadfence();
    flag[b] = 1;
    base = before;
  }
  __syncthreads();
  out[b * 64 + t] = base + sums[t];
}
// The same by the memory model's own words, in inline PTX.
extern "C" __global__ void release_acquire(int *flag, int *data, int *out) {
  if (threadIdx.x != 0) return;
  int *f = &flag[blockIdx.x / 2], *d = &data[blockIdx.x / 2];
  if (blockIdx.x % 2 == 0) {
    *d = 41 + blockIdx.x;
    asm volatile("st.release.gpu.global.s32 [%0], 1;" ::"l"(f) : "memory");
  } else {
    int ready;
    do {
      asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(ready) : "l"(f) : "memory");
    } while (!ready);
    out[blockIdx.x / 2] = *d;
  }
}

// ---- Shared memory.
extern "C" __global__ void shared_atomics(unsigned long long *out64, int *out32, const int *in) {
  __shared__ unsigned long long sum, least;
  __shared__ int count, best;
  __shared__ float total;
  if (threadIdx.x == 0) {
    sum = 0;
    least = ~0ull;
    count = 0;
    best = -1;
    total = 0.f;
  }
  __syncthreads();
  int v = in[blockIdx.x * blockDim.x + threadIdx.x];
  atomicAdd(&sum, (unsigned long long)v * v);
  atomicMin(&least, (unsigned long long)v << 32 | threadIdx.x);
  if (v & 1) atomicAdd(&count, 1);
  atomicMax(&best, v);
  atomicAdd(&total, (float)(v & 15));
  __syncthreads();
  if (threadIdx.x == 0) {
    out64[blockIdx.x * 2] = sum;
    out64[blockIdx.x * 2 + 1] = least;
    out32[blockIdx.x * 3] = count;
    out32[blockIdx.x * 3 + 1] = best;
    out32[blockIdx.x * 3 + 2] = (int)total;
  }
}

// ---- Votes and matches.
// One atomic a warp for all lanes that pass ("filtering with warp aggregation").
__device__ int atomicAggInc(int *ctr) {
  unsigned active = __activemask();
  int leader = __ffs(active) - 1;
  int lane = threadIdx.x & 31;
  int warp_res;
  if (lane == leader) warp_res = atomicAdd(ctr, __popc(active));
  warp_res = __shfl_sync(active, warp_res, leader);
  return warp_res + __popc(active & ((1u << lane) - 1));
}
extern "C" __global__ void filter_aggregated(int *dst, int *nres, const int *src, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    if (src[i] > 0) dst[atomicAggInc(nres)] = src[i];
  }
}
// One atomic for all lanes of a warp with the same key.
extern "C" __global__ void histogram_match(unsigned *bins, const unsigned *keys, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned mask = __ballot_sync(0xffffffff, i < n);
  if (i < n) {
    unsigned key = keys[i];
    unsigned peers = __match_any_sync(mask, key);
    if ((threadIdx.x & 31) == __ffs(peers) - 1) atomicAdd(&bins[key], __popc(peers));
  }
}
extern "C" __global__ void votes(unsigned *out, const int *in, const unsigned long long *keys) {
  int lane = threadIdx.x;
  int v = in[lane];
  int same;
  out[lane] = __all_sync(0xffffffff, v > -100);
  out[32 + lane] = __any_sync(0xffffffff, v == 7);
  out[64 + lane] = __ballot_sync(0xffffffff, v > 0);
  out[96 + lane] = __match_any_sync(0xffffffff, keys[lane]);
  out[128 + lane] = __match_all_sync(0xffffffff, v >> 8, &same);
  out[160 + lane] = same;
  out[192 + lane] = __reduce_max_sync(0xffffffff, v);
  out[224 + lane] = __reduce_xor_sync(0xffffffff, (unsigned)v);
  if (lane < 20) out[256 + lane] = __ballot_sync(0xfffff, v & 1);
  else out[256 + lane] = __reduce_min_sync(0xfff00000, (unsigned)v);
  // Barriers that also count and vote.
  out[288 + lane] = __syncthreads_count(v > 0);
  out[320 + lane] = __syncthreads_and(v > 0) | __syncthreads_or(v > 0) << 1;
}
// Two warps hand a value back and forth through named barriers.
extern "C" __global__ void named_barriers(const int *in, int *out) {
  __shared__ int box[32];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int i = 0; i < 4; i++) {
    if (warp == 0) {
      box[lane] = in[i * 32 + lane] * 3;
      asm volatile("bar.arrive 1, 64;" ::: "memory");
      asm volatile("bar.sync 2, 64;" ::: "memory");
    } else {
      asm volatile("bar.sync 1, 64;" ::: "memory");
      out[i * 32 + lane] = box[31 - lane];
      asm volatile("bar.arrive 2, 64;" ::: "memory");
    }
  }
}
