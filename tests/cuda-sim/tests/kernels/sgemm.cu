// The ladder of SGEMM kernels that tutorials climb: C = alpha * A * B + beta * C, all row-major, in plain FP32.
#define CEIL_DIV(m, n) (((m) + (n) - 1) / (n))

// 1: one thread an element, and neighbouring threads in neighbouring rows.
extern "C" __global__ void sgemm_naive(int M, int N, int K, float alpha, const float *A, const float *B, float beta,
                                       float *C) {
  const unsigned x = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x < M && y < N) {
    float tmp = 0.0;
    for (int i = 0; i < K; ++i) {
      tmp += A[x * K + i] * B[i * N + y];
    }
    C[x * N + y] = alpha * tmp + beta * C[x * N + y];
  }
}

// 2: neighbouring threads in neighbouring columns.
template <const unsigned BLOCKSIZE>
__global__ void sgemm_coalesced(int M, int N, int K, float alpha, const float *A, const float *B, float beta,
                                float *C) {
  const int row = blockIdx.x * BLOCKSIZE + (threadIdx.x / BLOCKSIZE);
  const int col = blockIdx.y * BLOCKSIZE + (threadIdx.x % BLOCKSIZE);
  if (row < M && col < N) {
    float tmp = 0.0;
    for (int i = 0; i < K; ++i) {
      tmp += A[row * K + i] * B[i * N + col];
    }
    C[row * N + col] = alpha * tmp + beta * C[row * N + col];
  }
}
template __global__ void sgemm_coalesced<16>(int, int, int, float, const float *, const float *, float, float *);

// 3: tiles of both matrices in shared memory, zero-filled at the edges.
#define TILE 16
extern "C" __global__ void sgemm_shared(int M, int N, int K, float alpha, const float *__restrict__ A,
                                        const float *__restrict__ B, float beta, float *__restrict__ C) {
  __shared__ float As[TILE][TILE];
  __shared__ float Bs[TILE][TILE];
  int row = blockIdx.y * TILE + threadIdx.y;
  int col = blockIdx.x * TILE + threadIdx.x;
  float acc = 0.0f;
  for (int t = 0; t < CEIL_DIV(K, TILE); t++) {
    int ka = t * TILE + threadIdx.x;
    int kb = t * TILE + threadIdx.y;
    As[threadIdx.y][threadIdx.x] = (row < M && ka < K) ? A[row * K + ka] : 0.0f;
    Bs[threadIdx.y][threadIdx.x] = (kb < K && col < N) ? B[kb * N + col] : 0.0f;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TILE; k++) acc += As[threadIdx.y][k] * Bs[k][threadIdx.x];
    __syncthreads();
  }
  if (row < M && col < N) C[row * N + col] = alpha * acc + beta * C[row * N + col];
}

// 4: a thread computes TM elements of a column.
template <const int BM, const int BN, const int BK, const int TM>
__global__ void sgemm_1d_blocktiling(int M, int N, int K, float alpha, const float *A, const float *B, float beta,
                                     float *C) {
  const unsigned cRow = blockIdx.y;
  const unsigned cCol = blockIdx.x;
  const int threadCol = threadIdx.x % BN;
  const int threadRow = threadIdx.x / BN;
  __shared__ float As[BM * BK];
  __shared__ float Bs[BK * BN];
  A += cRow * BM * K;
  B += cCol * BN;
  C += cRow * BM * N + cCol * BN;
  const unsigned innerColA = threadIdx.x % BK;
  const unsigned innerRowA = threadIdx.x / BK;
  const unsigned innerColB = threadIdx.x % BN;
  const unsigned innerRowB = threadIdx.x / BN;
  float threadResults[TM] = {0.0};
  for (unsigned bkIdx = 0; bkIdx < K; bkIdx += BK) {
    As[innerRowA * BK + innerColA] = A[innerRowA * K + innerColA];
    Bs[innerRowB * BN + innerColB] = B[innerRowB * N + innerColB];
    __syncthreads();
    A += BK;
    B += BK * N;
    for (unsigned dotIdx = 0; dotIdx < BK; ++dotIdx) {
      float tmpB = Bs[dotIdx * BN + threadCol];
      for (unsigned resIdx = 0; resIdx < TM; ++resIdx) {
        threadResults[resIdx] += As[(threadRow * TM + resIdx) * BK + dotIdx] * tmpB;
      }
    }
    __syncthreads();
  }
  for (unsigned resIdx = 0; resIdx < TM; ++resIdx) {
    C[(threadRow * TM + resIdx) * N + threadCol] =
        alpha * threadResults[resIdx] + beta * C[(threadRow * TM + resIdx) * N + threadCol];
  }
}
template __global__ void sgemm_1d_blocktiling<64, 64, 8, 8>(int, int, int, float, const float *, const float *, float,
                                                           float *);

// 5: a thread computes TM x TN elements, with guards for any size.
template <const int BM, const int BN, const int BK, const int TM, const int TN>
__global__ void __launch_bounds__((BM * BN) / (TM * TN), 1)
    sgemm_2d_blocktiling(int M, int N, int K, float alpha, const float *A, const float *B, float beta, float *C) {
  constexpr int threads = (BM * BN) / (TM * TN);
  __shared__ float As[BM][BK];
  __shared__ float Bs[BK][BN];
  const int row0 = blockIdx.y * BM;
  const int col0 = blockIdx.x * BN;
  const int tr = threadIdx.x / (BN / TN);
  const int tc = threadIdx.x % (BN / TN);
  float results[TM][TN] = {};
  float regM[TM];
  float regN[TN];
  for (int k0 = 0; k0 < K; k0 += BK) {
    for (int i = threadIdx.x; i < BM * BK; i += threads) {
      int r = row0 + i / BK, k = k0 + i % BK;
      As[i / BK][i % BK] = r < M && k < K ? A[r * K + k] : 0.f;
    }
    for (int i = threadIdx.x; i < BK * BN; i += threads) {
      int k = k0 + i / BN, c = col0 + i % BN;
      Bs[i / BN][i % BN] = k < K && c < N ? B[k * N + c] : 0.f;
    }
    __syncthreads();
    for (int dot = 0; dot < BK; dot++) {
      for (int i = 0; i < TM; i++) regM[i] = As[tr * TM + i][dot];
      for (int j = 0; j < TN; j++) regN[j] = Bs[dot][tc * TN + j];
      for (int i = 0; i < TM; i++)
        for (int j = 0; j < TN; j++) results[i][j] += regM[i] * regN[j];
    }
    __syncthreads();
  }
  for (int i = 0; i < TM; i++) {
    for (int j = 0; j < TN; j++) {
      int r = row0 + tr * TM + i, c = col0 + tc * TN + j;
      if (r < M && c < N) C[r * N + c] = alpha * results[i][j] + beta * C[r * N + c];
    }
  }
}
template __global__ void sgemm_2d_blocktiling<32, 64, 8, 4, 8>(int, int, int, float, const float *, const float *,
                                                              float, float *);

// 6: 16-byte loads, and the tile of A transposed on its way into shared memory.
template <const int BM, const int BN, const int BK, const int TM, const int TN>
__global__ void sgemm_vectorized(int M, int N, int K, float alpha, float *A, float *B, float beta, float *C) {
  const unsigned cRow = blockIdx.y;
  const unsigned cCol = blockIdx.x;
  const int threadCol = threadIdx.x % (BN / TN);
  const int threadRow = threadIdx.x / (BN / TN);
  __shared__ float As[BM * BK];
  __shared__ float Bs[BK * BN];
  A += cRow * BM * K;
  B += cCol * BN;
  C += cRow * BM * N + cCol * BN;
  const unsigned innerRowA = threadIdx.x / (BK / 4);
  const unsigned innerColA = threadIdx.x % (BK / 4);
  const unsigned innerRowB = threadIdx.x / (BN / 4);
  const unsigned innerColB = threadIdx.x % (BN / 4);
  float threadResults[TM * TN] = {0.0};
  float regM[TM] = {0.0};
  float regN[TN] = {0.0};
  for (unsigned bkIdx = 0; bkIdx < K; bkIdx += BK) {
    float4 tmp = reinterpret_cast<float4 *>(&A[innerRowA * K + innerColA * 4])[0];
    As[(innerColA * 4 + 0) * BM + innerRowA] = tmp.x;
    As[(innerColA * 4 + 1) * BM + innerRowA] = tmp.y;
    As[(innerColA * 4 + 2) * BM + innerRowA] = tmp.z;
    As[(innerColA * 4 + 3) * BM + innerRowA] = tmp.w;
    reinterpret_cast<float4 *>(&Bs[innerRowB * BN + innerColB * 4])[0] =
        reinterpret_cast<float4 *>(&B[innerRowB * N + innerColB * 4])[0];
    __syncthreads();
    A += BK;
    B += BK * N;
    for (unsigned dotIdx = 0; dotIdx < BK; ++dotIdx) {
      for (unsigned i = 0; i < TM; ++i) regM[i] = As[dotIdx * BM + threadRow * TM + i];
      for (unsigned i = 0; i < TN; ++i) regN[i] = Bs[dotIdx * BN + threadCol * TN + i];
      for (unsigned resIdxM = 0; resIdxM < TM; ++resIdxM)
        for (unsigned resIdxN = 0; resIdxN < TN; ++resIdxN)
          threadResults[resIdxM * TN + resIdxN] += regM[resIdxM] * regN[resIdxN];
    }
    __syncthreads();
  }
  for (unsigned resIdxM = 0; resIdxM < TM; resIdxM += 1) {
    for (unsigned resIdxN = 0; resIdxN < TN; resIdxN += 4) {
      float4 tmp = reinterpret_cast<float4 *>(&C[(threadRow * TM + resIdxM) * N + threadCol * TN + resIdxN])[0];
      tmp.x = alpha * threadResults[resIdxM * TN + resIdxN] + beta * tmp.x;
      tmp.y = alpha * threadResults[resIdxM * TN + resIdxN + 1] + beta * tmp.y;
      tmp.z = alpha * threadResults[resIdxM * TN + resIdxN + 2] + beta * tmp.z;
      tmp.w = alpha * threadResults[resIdxM * TN + resIdxN + 3] + beta * tmp.w;
      reinterpret_cast<float4 *>(&C[(threadRow * TM + resIdxM) * N + threadCol * TN + resIdxN])[0] = tmp;
    }
  }
}
template __global__ void sgemm_vectorized<64, 64, 8, 8, 4>(int, int, int, float, float *, float *, float, float *);

// 7: block tile, warp tile, thread tile.
namespace wt {
template <const int BM, const int BN, const int BK, const int rowStrideA, const int rowStrideB>
__device__ void loadFromGmem(int N, int K, const float *A, const float *B, float *As, float *Bs, int innerRowA,
                             int innerColA, int innerRowB, int innerColB) {
  for (unsigned offset = 0; offset + rowStrideA <= BM; offset += rowStrideA) {
    const float4 tmp = reinterpret_cast<const float4 *>(&A[(innerRowA + offset) * K + innerColA * 4])[0];
    As[(innerColA * 4 + 0) * BM + innerRowA + offset] = tmp.x;
    As[(innerColA * 4 + 1) * BM + innerRowA + offset] = tmp.y;
    As[(innerColA * 4 + 2) * BM + innerRowA + offset] = tmp.z;
    As[(innerColA * 4 + 3) * BM + innerRowA + offset] = tmp.w;
  }
  for (unsigned offset = 0; offset + rowStrideB <= BK; offset += rowStrideB) {
    reinterpret_cast<float4 *>(&Bs[(innerRowB + offset) * BN + innerColB * 4])[0] =
        reinterpret_cast<const float4 *>(&B[(innerRowB + offset) * N + innerColB * 4])[0];
  }
}
template <const int BM, const int BN, const int BK, const int WM, const int WN, const int WMITER, const int WNITER,
          const int WSUBM, const int WSUBN, const int TM, const int TN>
__device__ void processFromSmem(float *regM, float *regN, float *threadResults, const float *As, const float *Bs,
                                const unsigned warpRow, const unsigned warpCol, const unsigned threadRowInWarp,
                                const unsigned threadColInWarp) {
  for (unsigned dotIdx = 0; dotIdx < BK; ++dotIdx) {
    for (unsigned wSubRowIdx = 0; wSubRowIdx < WMITER; ++wSubRowIdx)
      for (unsigned i = 0; i < TM; ++i)
        regM[wSubRowIdx * TM + i] =
            As[(dotIdx * BM) + warpRow * WM + wSubRowIdx * WSUBM + threadRowInWarp * TM + i];
    for (unsigned wSubColIdx = 0; wSubColIdx < WNITER; ++wSubColIdx)
      for (unsigned i = 0; i < TN; ++i)
        regN[wSubColIdx * TN + i] =
            Bs[(dotIdx * BN) + warpCol * WN + wSubColIdx * WSUBN + threadColInWarp * TN + i];
    for (unsigned wSubRowIdx = 0; wSubRowIdx < WMITER; ++wSubRowIdx)
      for (unsigned wSubColIdx = 0; wSubColIdx < WNITER; ++wSubColIdx)
        for (unsigned resIdxM = 0; resIdxM < TM; ++resIdxM)
          for (unsigned resIdxN = 0; resIdxN < TN; ++resIdxN)
            threadResults[(wSubRowIdx * TM + resIdxM) * (WNITER * TN) + (wSubColIdx * TN) + resIdxN] +=
                regM[wSubRowIdx * TM + resIdxM] * regN[wSubColIdx * TN + resIdxN];
  }
}
}  // namespace wt

template <const int BM, const int BN, const int BK, const int WM, const int WN, const int WNITER, const int TM,
          const int TN, const int NUM_THREADS>
__global__ void __launch_bounds__(NUM_THREADS)
    sgemm_warptiling(int M, int N, int K, float alpha, const float *A, const float *B, float beta, float *C) {
  const unsigned cRow = blockIdx.y;
  const unsigned cCol = blockIdx.x;
  const unsigned warpIdx = threadIdx.x / 32;
  const unsigned warpCol = warpIdx % (BN / WN);
  const unsigned warpRow = warpIdx / (BN / WN);
  constexpr unsigned WMITER = (WM * WN) / (32 * TM * TN * WNITER);
  constexpr unsigned WSUBM = WM / WMITER;
  constexpr unsigned WSUBN = WN / WNITER;
  const unsigned threadIdxInWarp = threadIdx.x % 32;
  const unsigned threadColInWarp = threadIdxInWarp % (WSUBN / TN);
  const unsigned threadRowInWarp = threadIdxInWarp / (WSUBN / TN);
  __shared__ float As[BM * BK];
  __shared__ float Bs[BK * BN];
  A += cRow * BM * K;
  B += cCol * BN;
  C += (cRow * BM + warpRow * WM) * N + cCol * BN + warpCol * WN;
  const unsigned innerRowA = threadIdx.x / (BK / 4);
  const unsigned innerColA = threadIdx.x % (BK / 4);
  constexpr unsigned rowStrideA = (NUM_THREADS * 4) / BK;
  const unsigned innerRowB = threadIdx.x / (BN / 4);
  const unsigned innerColB = threadIdx.x % (BN / 4);
  constexpr unsigned rowStrideB = NUM_THREADS / (BN / 4);
  float threadResults[WMITER * TM * WNITER * TN] = {0.0};
  float regM[WMITER * TM] = {0.0};
  float regN[WNITER * TN] = {0.0};
  for (unsigned bkIdx = 0; bkIdx < K; bkIdx += BK) {
    wt::loadFromGmem<BM, BN, BK, rowStrideA, rowStrideB>(N, K, A, B, As, Bs, innerRowA, innerColA, innerRowB,
                                                         innerColB);
    __syncthreads();
    wt::processFromSmem<BM, BN, BK, WM, WN, WMITER, WNITER, WSUBM, WSUBN, TM, TN>(
        regM, regN, threadResults, As, Bs, warpRow, warpCol, threadRowInWarp, threadColInWarp);
    A += BK;
    B += BK * N;
    __syncthreads();
  }
  for (unsigned wSubRowIdx = 0; wSubRowIdx < WMITER; ++wSubRowIdx) {
    for (unsigned wSubColIdx = 0; wSubColIdx < WNITER; ++wSubColIdx) {
      float *C_interim = C + (wSubRowIdx * WSUBM) * N + wSubColIdx * WSUBN;
      for (unsigned resIdxM = 0; resIdxM < TM; resIdxM += 1) {
        for (unsigned resIdxN = 0; resIdxN < TN; resIdxN += 4) {
          float4 *at = reinterpret_cast<float4 *>(
              &C_interim[(threadRowInWarp * TM + resIdxM) * N + threadColInWarp * TN + resIdxN]);
          float4 tmp = *at;
          const int i = (wSubRowIdx * TM + resIdxM) * (WNITER * TN) + wSubColIdx * TN + resIdxN;
          tmp.x = alpha * threadResults[i + 0] + beta * tmp.x;
          tmp.y = alpha * threadResults[i + 1] + beta * tmp.y;
          tmp.z = alpha * threadResults[i + 2] + beta * tmp.z;
          tmp.w = alpha * threadResults[i + 3] + beta * tmp.w;
          *at = tmp;
        }
      }
    }
  }
}
template __global__ void sgemm_warptiling<64, 64, 16, 32, 32, 2, 4, 4, 128>(int, int, int, float, const float *,
                                                                           const float *, float, float *);

// 8: two stages in dynamic shared memory, filled by asynchronous copies while the other is multiplied.
__device__ __forceinline__ void cp_async16(void *smem, const void *gmem, bool valid) {
  unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(smem));
  int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(at), "l"(gmem), "r"(bytes) : "memory");
}
__device__ __forceinline__ void cp_async4(void *smem, const void *gmem) {
  unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(smem));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;\n" ::"r"(at), "l"(gmem) : "memory");
}
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

// K and N are multiples of 4; M is anything.
extern "C" __global__ void __launch_bounds__(256)
    sgemm_double_buffered(int M, int N, int K, float alpha, const float *__restrict__ A, const float *__restrict__ B,
                          float beta, float *__restrict__ C) {
  constexpr int BM = 64, BN = 64, BK = 16, TM = 4, TN = 4;
  extern __shared__ __align__(16) float smem[];
  float *As[2] = {smem, smem + BM * BK};
  float *Bs[2] = {smem + 2 * BM * BK, smem + 2 * BM * BK + BK * BN};
  const int tid = threadIdx.x;
  const int row0 = blockIdx.y * BM, col0 = blockIdx.x * BN;
  const int tr = tid / 16, tc = tid % 16;
  auto load = [&](int stage, int k0) {
    {
      int r = tid / 4, k = (tid % 4) * 4;
      bool valid = row0 + r < M && k0 + k < K;
      cp_async16(&As[stage][r * BK + k], valid ? &A[(row0 + r) * K + k0 + k] : A, valid);
    }
    {
      int k = tid / 16, c = (tid % 16) * 4;
      bool valid = k0 + k < K && col0 + c < N;
      cp_async16(&Bs[stage][k * BN + c], valid ? &B[(k0 + k) * N + col0 + c] : B, valid);
    }
    asm volatile("cp.async.commit_group;\n" ::: "memory");
  };
  float acc[TM][TN] = {};
  const int tiles = CEIL_DIV(K, BK);
  load(0, 0);
  for (int t = 0; t < tiles; t++) {
    if (t + 1 < tiles) {
      load((t + 1) & 1, (t + 1) * BK);
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncthreads();
    const float *a = As[t & 1], *b = Bs[t & 1];
#pragma unroll
    for (int k = 0; k < BK; k++) {
      float4 y = *reinterpret_cast<const float4 *>(&b[k * BN + tc * TN]);
#pragma unroll
      for (int i = 0; i < TM; i++) {
        float x = a[(tr * TM + i) * BK + k];
        acc[i][0] = fmaf(x, y.x, acc[i][0]);
        acc[i][1] = fmaf(x, y.y, acc[i][1]);
        acc[i][2] = fmaf(x, y.z, acc[i][2]);
        acc[i][3] = fmaf(x, y.w, acc[i][3]);
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < TM; i++) {
    for (int j = 0; j < TN; j++) {
      int r = row0 + tr * TM + i, c = col0 + tc * TN + j;
      if (r < M && c < N) C[r * N + c] = alpha * acc[i][j] + beta * C[r * N + c];
    }
  }
}

// The same with 4-byte copies for A, which may then begin anywhere, and a ring of three stages.
extern "C" __global__ void __launch_bounds__(256)
    sgemm_three_stages(int M, int N, int K, float alpha, const float *__restrict__ A, const float *__restrict__ B,
                       float beta, float *__restrict__ C) {
  constexpr int T = 16, STAGES = 3;
  __shared__ float As[STAGES][T][T + 1];
  __shared__ float Bs[STAGES][T][T];
  const int tx = threadIdx.x % T, ty = threadIdx.x / T;
  const int row = blockIdx.y * T + ty, col = blockIdx.x * T + tx;
  const int tiles = CEIL_DIV(K, T);
  auto load = [&](int t) {
    if (t < tiles) {
      int s = t % STAGES, ka = t * T + tx, kb = t * T + ty;
      if (row < M && ka < K) cp_async4(&As[s][ty][tx], &A[row * K + ka]);
      else As[s][ty][tx] = 0.f;
      if (kb < K && col < N) cp_async4(&Bs[s][ty][tx], &B[kb * N + col]);
      else Bs[s][ty][tx] = 0.f;
    }
    asm volatile("cp.async.commit_group;\n" ::: "memory");
  };
  float acc = 0.f;
  for (int s = 0; s < STAGES - 1; s++) load(s);
  for (int t = 0; t < tiles; t++) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    load(t + STAGES - 1);
    for (int k = 0; k < T; k++) acc += As[t % STAGES][ty][k] * Bs[t % STAGES][k][tx];
  }
  if (row < M && col < N) C[row * N + col] = alpha * acc + beta * C[row * N + col];
}

// int8 with dp4a: A row-major, B column-major, K a multiple of 4.
extern "C" __global__ void igemm_dp4a(int M, int N, int K, const int *A, const int *B, int *C) {
  int row = blockIdx.y * blockDim.y + threadIdx.y;
  int col = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= M || col >= N) return;
  int acc = 0;
  for (int k = 0; k < K / 4; k++) acc = __dp4a(A[row * (K / 4) + k], B[col * (K / 4) + k], acc);
  C[row * N + col] = acc;
}

// Unsigned, and the 16-bit by 8-bit forms.
extern "C" __global__ void dots(const unsigned *a, const unsigned *b, const unsigned *c, unsigned *out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  out[i * 4 + 0] = __dp4a(a[i], b[i], c[i]);
  out[i * 4 + 1] = (unsigned)__dp2a_lo((int)a[i], (int)b[i], (int)c[i]);
  out[i * 4 + 2] = __dp2a_hi(a[i], b[i], c[i]);
  out[i * 4 + 3] = (unsigned)__dp4a((int)a[i], (int)b[i], (int)c[i]);
}

// y = A x, one warp a row.
extern "C" __global__ void sgemv_warp(int M, int N, const float *__restrict__ A, const float *__restrict__ x,
                                      float *__restrict__ y) {
  int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
  int lane = threadIdx.x % 32;
  if (row >= M) return;
  float sum = 0.f;
  for (int i = lane; i < N; i += 32) sum += __ldg(&A[row * N + i]) * __ldg(&x[i]);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffff, sum, offset);
  if (lane == 0) y[row] = sum;
}

// y = A x in CSR, one thread a row; with long rows shared by a half-warp.
extern "C" __global__ void spmv_csr_scalar(int rows, const int *ptr, const int *idx, const float *val, const float *x,
                                           float *y) {
  int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row < rows) {
    float dot = 0;
    for (int j = ptr[row]; j < ptr[row + 1]; j++) dot += val[j] * x[idx[j]];
    y[row] = dot;
  }
}
extern "C" __global__ void spmv_csr_vector(int rows, const int *ptr, const int *idx, const float *val, const float *x,
                                           float *y) {
  int row = (blockIdx.x * blockDim.x + threadIdx.x) / 16;
  int lane = threadIdx.x & 15;
  float dot = 0;
  if (row < rows)
    for (int j = ptr[row] + lane; j < ptr[row + 1]; j += 16) dot += val[j] * x[idx[j]];
  for (int mask = 8; mask > 0; mask >>= 1) dot += __shfl_xor_sync(0xffffffffu, dot, mask, 16);
  if (row < rows && lane == 0) y[row] = dot;
}
