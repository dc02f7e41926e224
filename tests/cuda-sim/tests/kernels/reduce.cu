// Reductions, scans, histograms, sorting and transposition, as the samples and the textbooks have them.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
namespace cg = cooperative_groups;

extern __shared__ __align__(16) unsigned char dynamic_shared[];
template <class T>
__device__ T *shared_array() {
  return reinterpret_cast<T *>(dynamic_shared);
}

// ---- The seven steps of "Optimizing Parallel Reduction in CUDA": one partial sum a block.

// 1: interleaved addressing with divergent branches.
extern "C" __global__ void reduce0(const int *g_idata, int *g_odata, unsigned n) {
  int *sdata = shared_array<int>();
  unsigned tid = threadIdx.x;
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  sdata[tid] = (i < n) ? g_idata[i] : 0;
  __syncthreads();
  for (unsigned s = 1; s < blockDim.x; s *= 2) {
    if ((tid % (2 * s)) == 0) sdata[tid] += sdata[tid + s];
    __syncthreads();
  }
  if (tid == 0) g_odata[blockIdx.x] = sdata[0];
}
// 2: interleaved addressing with bank conflicts.
extern "C" __global__ void reduce1(const int *g_idata, int *g_odata, unsigned n) {
  int *sdata = shared_array<int>();
  unsigned tid = threadIdx.x;
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  sdata[tid] = (i < n) ? g_idata[i] : 0;
  __syncthreads();
  for (unsigned s = 1; s < blockDim.x; s *= 2) {
    unsigned index = 2 * s * tid;
    if (index < blockDim.x) sdata[index] += sdata[index + s];
    __syncthreads();
  }
  if (tid == 0) g_odata[blockIdx.x] = sdata[0];
}
// 3: sequential addressing.
extern "C" __global__ void reduce2(const int *g_idata, int *g_odata, unsigned n) {
  int *sdata = shared_array<int>();
  unsigned tid = threadIdx.x;
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  sdata[tid] = (i < n) ? g_idata[i] : 0;
  __syncthreads();
  for (unsigned s = blockDim.x / 2; s > 0; s >>= 1) {
    if (tid < s) sdata[tid] += sdata[tid + s];
    __syncthreads();
  }
  if (tid == 0) g_odata[blockIdx.x] = sdata[0];
}
// 4: the first addition while loading.
extern "C" __global__ void reduce3(const int *g_idata, int *g_odata, unsigned n) {
  int *sdata = shared_array<int>();
  unsigned tid = threadIdx.x;
  unsigned i = blockIdx.x * (blockDim.x * 2) + threadIdx.x;
  int mySum = (i < n) ? g_idata[i] : 0;
  if (i + blockDim.x < n) mySum += g_idata[i + blockDim.x];
  sdata[tid] = mySum;
  __syncthreads();
  for (unsigned s = blockDim.x / 2; s > 0; s >>= 1) {
    if (tid < s) sdata[tid] = mySum = mySum + sdata[tid + s];
    __syncthreads();
  }
  if (tid == 0) g_odata[blockIdx.x] = mySum;
}
// 5: the last warp unrolled. The original relied on volatile and implicit synchronisation; this is how it is written since
// lanes are scheduled independently.
__device__ void warp_reduce(int *sdata, unsigned tid) {
  int v = sdata[tid];
  v += sdata[tid + 32]; __syncwarp();
  sdata[tid] = v; __syncwarp();
  v += sdata[tid + 16]; __syncwarp();
  sdata[tid] = v; __syncwarp();
  v += sdata[tid + 8]; __syncwarp();
  sdata[tid] = v; __syncwarp();
  v += sdata[tid + 4]; __syncwarp();
  sdata[tid] = v; __syncwarp();
  v += sdata[tid + 2]; __syncwarp();
  sdata[tid] = v; __syncwarp();
  v += sdata[tid + 1]; __syncwarp();
  sdata[tid] = v;
}
extern "C" __global__ void reduce4(const int *g_idata, int *g_odata, unsigned n) {
  int *sdata = shared_array<int>();
  unsigned tid = threadIdx.x;
  unsigned i = blockIdx.x * (blockDim.x * 2) + threadIdx.x;
  sdata[tid] = (i < n ? g_idata[i] : 0) + (i + blockDim.x < n ? g_idata[i + blockDim.x] : 0);
  __syncthreads();
  for (unsigned s = blockDim.x / 2; s > 32; s >>= 1) {
    if (tid < s) sdata[tid] += sdata[tid + s];
    __syncthreads();
  }
  if (tid < 32) warp_reduce(sdata, tid);
  if (tid == 0) g_odata[blockIdx.x] = sdata[0];
}
// 6: completely unrolled, with the last warp in registers.
template <unsigned blockSize>
__global__ void reduce5(const int *__restrict__ g_idata, int *__restrict__ g_odata, unsigned n) {
  __shared__ int sdata[blockSize];
  unsigned tid = threadIdx.x;
  unsigned i = blockIdx.x * (blockSize * 2) + tid;
  int mySum = (i < n) ? g_idata[i] : 0;
  if (i + blockSize < n) mySum += g_idata[i + blockSize];
  sdata[tid] = mySum;
  __syncthreads();
  if (blockSize >= 512) { if (tid < 256) sdata[tid] = mySum = mySum + sdata[tid + 256]; __syncthreads(); }
  if (blockSize >= 256) { if (tid < 128) sdata[tid] = mySum = mySum + sdata[tid + 128]; __syncthreads(); }
  if (blockSize >= 128) { if (tid < 64) sdata[tid] = mySum = mySum + sdata[tid + 64]; __syncthreads(); }
  if (tid < 32) {
    if (blockSize >= 64) mySum += sdata[tid + 32];
    for (int offset = 16; offset > 0; offset /= 2) mySum += __shfl_down_sync(0xffffffff, mySum, offset);
  }
  if (tid == 0) g_odata[blockIdx.x] = mySum;
}
template __global__ void reduce5<256>(const int *, int *, unsigned);
// 7: many elements a thread, two a step.
template <unsigned blockSize, bool nIsPow2>
__global__ void reduce6(const int *__restrict__ g_idata, int *__restrict__ g_odata, unsigned n) {
  __shared__ int sdata[blockSize];
  unsigned tid = threadIdx.x;
  unsigned gridSize = blockSize * 2 * gridDim.x;
  int mySum = 0;
  unsigned i = blockIdx.x * blockSize * 2 + tid;
  while (i < n) {
    mySum += g_idata[i];
    if (nIsPow2 || i + blockSize < n) mySum += g_idata[i + blockSize];
    i += gridSize;
  }
  sdata[tid] = mySum;
  __syncthreads();
#pragma unroll
  for (unsigned s = blockSize / 2; s > 32; s >>= 1) {
    if (tid < s) sdata[tid] = mySum = mySum + sdata[tid + s];
    __syncthreads();
  }
  if (tid < 32) {
    mySum += sdata[tid + 32];
    mySum = __reduce_add_sync(0xffffffff, mySum);
  }
  if (tid == 0) g_odata[blockIdx.x] = mySum;
}
template __global__ void reduce6<128, false>(const int *, int *, unsigned);

// ---- Whole sums.

// Warps by shuffles, the block's warps through shared memory, blocks by an atomic.
__inline__ __device__ int warpReduceSum(int val) {
  for (int offset = warpSize / 2; offset > 0; offset /= 2) val += __shfl_down_sync(0xffffffffu, val, offset);
  return val;
}
__inline__ __device__ int blockReduceSum(int val) {
  static __shared__ int shared[32];
  int lane = threadIdx.x % warpSize;
  int wid = threadIdx.x / warpSize;
  val = warpReduceSum(val);
  if (lane == 0) shared[wid] = val;
  __syncthreads();
  val = (threadIdx.x < blockDim.x / warpSize) ? shared[lane] : 0;
  if (wid == 0) val = warpReduceSum(val);
  return val;
}
extern "C" __global__ void device_reduce_atomic(const int *in, int *out, int N) {
  int sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < N; i += blockDim.x * gridDim.x) sum += in[i];
  sum = blockReduceSum(sum);
  if (threadIdx.x == 0) atomicAdd(out, sum);
}
extern "C" __global__ void device_reduce_two_pass(const int *in, int *out, int N) {
  int sum = 0;
  const int4 *in4 = reinterpret_cast<const int4 *>(in);
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < N / 4; i += blockDim.x * gridDim.x) {
    int4 v = in4[i];
    sum += v.x + v.y + v.z + v.w;
  }
  int i = blockIdx.x * blockDim.x + threadIdx.x + N / 4 * 4;
  if (i < N) sum += in[i];
  sum = blockReduceSum(sum);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// One pass: the last block that arrives adds up what the others left ("threadFenceReduction").
__device__ unsigned retirementCount = 0;
extern "C" __global__ void reduce_single_pass(const float *g_idata, volatile float *partial, float *g_odata, unsigned n) {
  __shared__ float sdata[128];
  __shared__ bool amLast;
  unsigned tid = threadIdx.x;
  float sum = 0;
  for (unsigned i = blockIdx.x * blockDim.x + tid; i < n; i += gridDim.x * blockDim.x) sum += g_idata[i];
  sdata[tid] = sum;
  __syncthreads();
  for (unsigned s = blockDim.x / 2; s > 0; s >>= 1) {
    if (tid < s) sdata[tid] += sdata[tid + s];
    __syncthreads();
  }
  if (tid == 0) {
    partial[blockIdx.x] = sdata[0];
    __threadfence();
    unsigned ticket = atomicInc(&retirementCount, gridDim.x);
    amLast = (ticket == gridDim.x - 1);
  }
  __syncthreads();
  if (amLast) {
    float mySum = 0;
    for (unsigned i = tid; i < gridDim.x; i += blockDim.x) mySum += partial[i];
    sdata[tid] = mySum;
    __syncthreads();
    for (unsigned s = blockDim.x / 2; s > 0; s >>= 1) {
      if (tid < s) sdata[tid] += sdata[tid + s];
      __syncthreads();
    }
    if (tid == 0) {
      *g_odata = sdata[0];
      retirementCount = 0;
    }
  }
}

// ---- Cooperative groups.
extern "C" __global__ void cg_reduce(const int *in, int *out, int n) {
  __shared__ int warps[32];
  cg::thread_block block = cg::this_thread_block();
  cg::thread_block_tile<32> tile = cg::tiled_partition<32>(block);
  int sum = 0;
  for (int i = blockIdx.x * block.size() + block.thread_rank(); i < n; i += gridDim.x * block.size()) sum += in[i];
  for (int offset = tile.size() / 2; offset > 0; offset /= 2) sum += tile.shfl_down(sum, offset);
  if (tile.thread_rank() == 0) warps[tile.meta_group_rank()] = sum;
  block.sync();
  if (tile.meta_group_rank() == 0) {
    sum = tile.thread_rank() < tile.meta_group_size() ? warps[tile.thread_rank()] : 0;
    for (int offset = tile.size() / 2; offset > 0; offset /= 2) sum += tile.shfl_xor(sum, offset);
    if (tile.thread_rank() == 0) atomicAdd(out, sum);
  }
}
// Tiles of four lanes, and the lanes that happen to be together.
extern "C" __global__ void cg_tiles(const int *in, int *quads, int *odd, int n) {
  cg::thread_block_tile<4> quad = cg::tiled_partition<4>(cg::this_thread_block());
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  int v = i < n ? in[i] : 0;
  int sum = v;
  sum += quad.shfl_xor(sum, 1);
  sum += quad.shfl_xor(sum, 2);
  if (quad.thread_rank() == 0 && i < n) quads[i / 4] = sum;
  if (v & 1) {
    cg::coalesced_group active = cg::coalesced_threads();
    int at;
    if (active.thread_rank() == 0) at = atomicAdd(odd, active.size());
    at = active.shfl(at, 0) + active.thread_rank();
    odd[1 + at] = i;
  }
}
// Tiles of several warps, whose barriers and scratch are in shared memory that the system reserves (from sm_80 on).
extern "C" __global__ void cg_large_tiles(const int *in, int *sums, int *most, int *mirrored) {
  __shared__ cg::block_tile_memory<256> scratch;
  __shared__ int values[256];
  cg::thread_block block = cg::this_thread_block(scratch);
  cg::thread_block_tile<128> tile = cg::tiled_partition<128>(block);
  cg::thread_block_tile<64> half = cg::tiled_partition<64>(tile);
  int i = block.thread_rank(), v = in[blockIdx.x * 256 + i];
  int sum = cg::reduce(tile, v, cg::plus<int>());
  most[blockIdx.x * 256 + i] = cg::reduce(half, v, cg::greater<int>());
  sums[blockIdx.x * 256 + i] = sum + tile.shfl(v, 77);
  values[i] = v;
  tile.sync();
  mirrored[blockIdx.x * 256 + i] = values[i ^ 127];
}
// A barrier over the whole grid: every block adds its neighbours' sums after it.
extern "C" __global__ void cg_grid(const int *in, int *sums, int *out, int n) {
  cg::grid_group grid = cg::this_grid();
  int sum = 0;
  for (int i = grid.thread_rank(); i < n; i += grid.size()) sum += in[i];
  sum = blockReduceSum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
  grid.sync();
  if (threadIdx.x == 0) {
    int total = 0;
    for (int i = 0; i < gridDim.x; i++) total += sums[i];
    out[blockIdx.x] = total;
  }
}

// ---- Scans.
// Exclusive, work-efficient: a block scans 2 * blockDim.x elements.
extern "C" __global__ void scan_blelloch(unsigned *data, int n) {
  unsigned *temp = shared_array<unsigned>();
  int thid = threadIdx.x, offset = 1, size = 2 * blockDim.x;
  data += blockIdx.x * size;
  n -= blockIdx.x * size;
  temp[2 * thid] = 2 * thid < n ? data[2 * thid] : 0;
  temp[2 * thid + 1] = 2 * thid + 1 < n ? data[2 * thid + 1] : 0;
  for (int d = size >> 1; d > 0; d >>= 1) {
    __syncthreads();
    if (thid < d) {
      int ai = offset * (2 * thid + 1) - 1, bi = offset * (2 * thid + 2) - 1;
      temp[bi] += temp[ai];
    }
    offset *= 2;
  }
  if (thid == 0) temp[size - 1] = 0;
  for (int d = 1; d < size; d *= 2) {
    offset >>= 1;
    __syncthreads();
    if (thid < d) {
      int ai = offset * (2 * thid + 1) - 1, bi = offset * (2 * thid + 2) - 1;
      unsigned t = temp[ai];
      temp[ai] = temp[bi];
      temp[bi] += t;
    }
  }
  __syncthreads();
  if (2 * thid < n) data[2 * thid] = temp[2 * thid];
  if (2 * thid + 1 < n) data[2 * thid + 1] = temp[2 * thid + 1];
}
// Inclusive, in steps of doubling distance between two buffers.
extern "C" __global__ void scan_hillis_steele(const unsigned *in, unsigned *out, int n) {
  unsigned *temp = shared_array<unsigned>();
  int thid = threadIdx.x, pout = 0, pin = 1, size = blockDim.x;
  int i = blockIdx.x * size + thid;
  temp[thid] = i < n ? in[i] : 0;
  __syncthreads();
  for (int offset = 1; offset < size; offset <<= 1) {
    pout = 1 - pout;
    pin = 1 - pout;
    temp[pout * size + thid] = temp[pin * size + thid] + (thid >= offset ? temp[pin * size + thid - offset] : 0);
    __syncthreads();
  }
  if (i < n) out[i] = temp[pout * size + thid];
}
// Inclusive over a block, by shuffles.
extern "C" __global__ void scan_shfl(const unsigned *in, unsigned *out, int n) {
  __shared__ unsigned sums[32];
  int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  unsigned value = i < n ? in[i] : 0;
#pragma unroll
  for (int d = 1; d <= 16; d *= 2) {
    unsigned v = __shfl_up_sync(0xffffffff, value, d);
    if (lane >= d) value += v;
  }
  if (lane == 31) sums[warp] = value;
  __syncthreads();
  if (warp == 0) {
    unsigned sum = lane < blockDim.x / 32 ? sums[lane] : 0;
    for (int d = 1; d <= 16; d *= 2) {
      unsigned v = __shfl_up_sync(0xffffffff, sum, d);
      if (lane >= d) sum += v;
    }
    sums[lane] = sum;
  }
  __syncthreads();
  if (warp > 0) value += sums[warp - 1];
  if (i < n) out[i] = value;
}

// ---- Histograms, sorting, compaction.
extern "C" __global__ void histogram256(const uchar4 *data, unsigned *histogram, int n) {
  __shared__ unsigned local[256];
  for (int i = threadIdx.x; i < 256; i += blockDim.x) local[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += blockDim.x * gridDim.x) {
    uchar4 v = data[i];
    atomicAdd(&local[v.x], 1u);
    atomicAdd(&local[v.y], 1u);
    atomicAdd(&local[v.z], 1u);
    atomicAdd(&local[v.w], 1u);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 256; i += blockDim.x)
    if (local[i]) atomicAdd(&histogram[i], local[i]);
}
// One step of a radix sort inside a block: a stable split by each of the low bits.
extern "C" __global__ void radix_sort_block(unsigned *keys, int bits) {
  __shared__ unsigned data[256];
  __shared__ unsigned warps[9];
  int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  unsigned key = keys[blockIdx.x * 256 + tid];
  for (int bit = 0; bit < bits; bit++) {
    bool one = key >> bit & 1;
    unsigned zeros = __ballot_sync(0xffffffff, !one);
    unsigned before = __popc(zeros & ((1u << lane) - 1));
    if (lane == 0) warps[warp] = __popc(zeros);
    __syncthreads();
    if (tid == 0) {
      unsigned sum = 0;
      for (int i = 0; i < 8; i++) {
        unsigned count = warps[i];
        warps[i] = sum;
        sum += count;
      }
      warps[8] = sum;
    }
    __syncthreads();
    unsigned rank = warps[warp] + before;
    data[one ? warps[8] + tid - rank : rank] = key;
    __syncthreads();
    key = data[tid];
    __syncthreads();
  }
  keys[blockIdx.x * 256 + tid] = key;
}
extern "C" __global__ void bitonic_sort(float *values, int *index) {
  __shared__ float key[512];
  __shared__ int at[512];
  for (int i = threadIdx.x; i < 512; i += blockDim.x) {
    key[i] = values[blockIdx.x * 512 + i];
    at[i] = i;
  }
  for (int k = 2; k <= 512; k <<= 1) {
    for (int j = k >> 1; j > 0; j >>= 1) {
      __syncthreads();
      int pos = 2 * threadIdx.x - (threadIdx.x & (j - 1));
      bool up = (pos & k) == 0;
      if ((key[pos] > key[pos + j]) == up) {
        float t = key[pos]; key[pos] = key[pos + j]; key[pos + j] = t;
        int s = at[pos]; at[pos] = at[pos + j]; at[pos + j] = s;
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 512; i += blockDim.x) {
    values[blockIdx.x * 512 + i] = key[i];
    index[blockIdx.x * 512 + i] = at[i];
  }
}

// ---- Transposition.
#define TILE_DIM 32
#define BLOCK_ROWS 8
extern "C" __global__ void transpose_padded(float *odata, const float *idata, int width, int height) {
  __shared__ float tile[TILE_DIM][TILE_DIM + 1];
  int x = blockIdx.x * TILE_DIM + threadIdx.x;
  int y = blockIdx.y * TILE_DIM + threadIdx.y;
  for (int j = 0; j < TILE_DIM; j += BLOCK_ROWS)
    if (x < width && y + j < height) tile[threadIdx.y + j][threadIdx.x] = idata[(y + j) * width + x];
  __syncthreads();
  x = blockIdx.y * TILE_DIM + threadIdx.x;
  y = blockIdx.x * TILE_DIM + threadIdx.y;
  for (int j = 0; j < TILE_DIM; j += BLOCK_ROWS)
    if (x < height && y + j < width) odata[(y + j) * height + x] = tile[threadIdx.x][threadIdx.y + j];
}
extern "C" __global__ void transpose_swizzled(double *odata, const double *idata, int width, int height) {
  __shared__ double tile[TILE_DIM][TILE_DIM];
  int x = blockIdx.x * TILE_DIM + threadIdx.x;
  int y = blockIdx.y * TILE_DIM + threadIdx.y;
  for (int j = 0; j < TILE_DIM; j += BLOCK_ROWS)
    if (x < width && y + j < height)
      tile[threadIdx.y + j][threadIdx.x ^ (threadIdx.y + j)] = idata[(y + j) * width + x];
  __syncthreads();
  x = blockIdx.y * TILE_DIM + threadIdx.x;
  y = blockIdx.x * TILE_DIM + threadIdx.y;
  for (int j = 0; j < TILE_DIM; j += BLOCK_ROWS)
    if (x < height && y + j < width)
      odata[(y + j) * height + x] = tile[threadIdx.x][(threadIdx.y + j) ^ threadIdx.x];
}
