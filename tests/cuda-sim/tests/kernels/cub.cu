// NVIDIA's own block algorithms, as anybody would call them: code that is known to be right on hardware and was not written
// for this test. (Merge sorts are not here: they read one element past what they have written, and throw it away. The
// device reports that, as it must: it cannot know that the value is not used.)
#include <cub/block/block_exchange.cuh>
#include <cub/block/block_histogram.cuh>
#include <cub/block/block_load.cuh>
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/block/block_store.cuh>
#include <cub/block/block_discontinuity.cuh>
#include <cub/warp/warp_reduce.cuh>
#include <cub/warp/warp_scan.cuh>

template <cub::BlockReduceAlgorithm ALGORITHM>
__device__ void reduce(const int *in, int *out) {
  using Reduce = cub::BlockReduce<int, 128, ALGORITHM>;
  __shared__ typename Reduce::TempStorage storage;
  int sum = Reduce(storage).Sum(in[threadIdx.x]);
  if (threadIdx.x == 0) *out = sum;
}
extern "C" __global__ void reduces(const int *in, int *out) {
  reduce<cub::BLOCK_REDUCE_WARP_REDUCTIONS>(in, out);
  __syncthreads();
  reduce<cub::BLOCK_REDUCE_RAKING>(in, out + 1);
  __syncthreads();
  reduce<cub::BLOCK_REDUCE_RAKING_COMMUTATIVE_ONLY>(in, out + 2);
}

template <cub::BlockScanAlgorithm ALGORITHM>
__device__ void scan(const int *in, int *out) {
  using Scan = cub::BlockScan<int, 96, ALGORITHM>;
  __shared__ typename Scan::TempStorage storage;
  int items[3];
  for (int i = 0; i < 3; i++) items[i] = in[threadIdx.x * 3 + i];
  Scan(storage).InclusiveSum(items, items);
  for (int i = 0; i < 3; i++) out[threadIdx.x * 3 + i] = items[i];
}
extern "C" __global__ void scans(const int *in, int *out) {
  scan<cub::BLOCK_SCAN_RAKING>(in, out);
  __syncthreads();
  scan<cub::BLOCK_SCAN_RAKING_MEMOIZE>(in, out + 288);
  __syncthreads();
  scan<cub::BLOCK_SCAN_WARP_SCANS>(in, out + 576);
}

// Loads by transposition, sorts by radix, marks where runs begin, stores by transposition.
extern "C" __global__ void sorts(const unsigned *in, unsigned *out, int *heads) {
  using Load = cub::BlockLoad<unsigned, 128, 4, cub::BLOCK_LOAD_WARP_TRANSPOSE>;
  using Sort = cub::BlockRadixSort<unsigned, 128, 4>;
  using Flag = cub::BlockDiscontinuity<unsigned, 128>;
  using Store = cub::BlockStore<unsigned, 128, 4, cub::BLOCK_STORE_TRANSPOSE>;
  __shared__ union {
    typename Load::TempStorage load;
    typename Sort::TempStorage sort;
    typename Flag::TempStorage flag;
    typename Store::TempStorage store;
  } storage;
  unsigned keys[4];
  int flags[4];
  Load(storage.load).Load(in + blockIdx.x * 512, keys);
  __syncthreads();
  Sort(storage.sort).Sort(keys);
  __syncthreads();
  Flag(storage.flag).FlagHeads(flags, keys, [](unsigned a, unsigned b) { return a != b; });
  __syncthreads();
  Store(storage.store).Store(out + blockIdx.x * 512, keys);
  for (int i = 0; i < 4; i++) heads[blockIdx.x * 512 + threadIdx.x * 4 + i] = flags[i];
}

extern "C" __global__ void histograms(const unsigned char *in, unsigned *sorted, unsigned *atomic) {
  using Sorted = cub::BlockHistogram<unsigned char, 64, 4, 32, cub::BLOCK_HISTO_SORT>;
  using Atomic = cub::BlockHistogram<unsigned char, 64, 4, 32, cub::BLOCK_HISTO_ATOMIC>;
  __shared__ union {
    typename Sorted::TempStorage sorted;
    typename Atomic::TempStorage atomic;
  } storage;
  __shared__ unsigned bins[32];
  unsigned char data[4];
  for (int i = 0; i < 4; i++) data[i] = in[threadIdx.x * 4 + i];
  Sorted(storage.sorted).Histogram(data, bins);
  __syncthreads();
  if (threadIdx.x < 32) sorted[threadIdx.x] = bins[threadIdx.x];
  __syncthreads();
  for (int i = 0; i < 4; i++) data[i] = in[threadIdx.x * 4 + i];
  Atomic(storage.atomic).Histogram(data, bins);
  __syncthreads();
  if (threadIdx.x < 32) atomic[threadIdx.x] = bins[threadIdx.x];
}

// Groups of 8 lanes each on their own, and whole warps.
extern "C" __global__ void warps(const int *in, int *maxima, int *prefix) {
  using Reduce = cub::WarpReduce<int, 8>;
  using Scan = cub::WarpScan<int>;
  __shared__ typename Reduce::TempStorage reduce[8];
  __shared__ typename Scan::TempStorage scan[2];
  const int thread = threadIdx.x, warp = thread / 32;
  int most = Reduce(reduce[thread / 8]).Reduce(in[thread], [](int a, int b) { return a > b ? a : b; });
  if (thread % 8 == 0) maxima[thread / 8] = most;
  int before;
  Scan(scan[warp]).ExclusiveSum(in[thread], before);
  prefix[thread] = before;
}
