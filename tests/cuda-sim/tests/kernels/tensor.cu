// Tensor cores by inline PTX and by mma.h, and arithmetic in half and bfloat16. C = A * B, A row-major (M x K); sizes are
// multiples of the block's tile unless said otherwise.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#include <mma.h>
using namespace nvcuda;

__device__ __forceinline__ unsigned smem_u32(const void *p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void *p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(smem_u32(p)));
}
__device__ __forceinline__ void ldmatrix_x2_trans(unsigned (&r)[2], const void *p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];\n"
               : "=r"(r[0]), "=r"(r[1]) : "r"(smem_u32(p)));
}
__device__ __forceinline__ void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ unsigned to_tf32(float x) {
  unsigned y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ void cp_async16(void *smem, const void *gmem) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;\n" ::"r"(smem_u32(smem)), "l"(gmem) : "memory");
}

// TF32, four warps of 32 x 32 each, two stages. A tile rows are padded, B is read transposed by hand.
extern "C" __global__ void __launch_bounds__(128) gemm_mma_tf32(int M, int N, int K, const float *A, const float *B, float *C) {
  constexpr int BM = 64, BN = 64, BK = 16;
  __shared__ __align__(16) float As[2][BM][BK + 4];
  __shared__ __align__(16) float Bs[2][BK][BN + 8];
  const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32, g = lane / 4, t = lane % 4;
  const int wm = warp / 2 * 32, wn = warp % 2 * 32, row0 = blockIdx.y * BM, col0 = blockIdx.x * BN;
  auto load = [&](int s, int k0) {
    for (int i = tid; i < BM * BK / 4; i += 128)
      cp_async16(&As[s][i / 4][i % 4 * 4], &A[(row0 + i / 4) * K + k0 + i % 4 * 4]);
    for (int i = tid; i < BK * BN / 4; i += 128)
      cp_async16(&Bs[s][i / 16][i % 16 * 4], &B[(k0 + i / 16) * N + col0 + i % 16 * 4]);
    asm volatile("cp.async.commit_group;\n" ::: "memory");
  };
  float acc[2][4][4] = {};
  load(0, 0);
  for (int k0 = 0, s = 0; k0 < K; k0 += BK, s ^= 1) {
    asm volatile("cp.async.wait_all;\n" ::: "memory");
    __syncthreads();
    if (k0 + BK < K) load(s ^ 1, k0 + BK);
#pragma unroll
    for (int k = 0; k < BK; k += 8) {
      unsigned a[2][4], b[4][2];
      for (int i = 0; i < 2; i++) {
        int r = wm + i * 16 + g;
        a[i][0] = to_tf32(As[s][r][k + t]);
        a[i][1] = to_tf32(As[s][r + 8][k + t]);
        a[i][2] = to_tf32(As[s][r][k + t + 4]);
        a[i][3] = to_tf32(As[s][r + 8][k + t + 4]);
      }
      for (int j = 0; j < 4; j++) {
        b[j][0] = to_tf32(Bs[s][k + t][wn + j * 8 + g]);
        b[j][1] = to_tf32(Bs[s][k + t + 4][wn + j * 8 + g]);
      }
      for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++) mma_tf32(acc[i][j], a[i], b[j]);
    }
  }
  for (int i = 0; i < 2; i++) {
    for (int j = 0; j < 4; j++) {
      int r = row0 + wm + i * 16 + g, c = col0 + wn + j * 8 + 2 * t;
      *reinterpret_cast<float2 *>(&C[r * N + c]) = make_float2(acc[i][j][0], acc[i][j][1]);
      *reinterpret_cast<float2 *>(&C[(r + 8) * N + c]) = make_float2(acc[i][j][2], acc[i][j][3]);
    }
  }
}

// 16-bit inputs through ldmatrix, with an XOR swizzle of 16-byte chunks instead of padding.
template <class T, bool BF16>
__device__ __forceinline__ void gemm_mma_16(int M, int N, int K, const T *A, const T *B, float *C) {
  constexpr int BM = 64, BN = 64, BK = 32;
  __shared__ __align__(128) T As[BM * BK];
  __shared__ __align__(128) T Bs[BK * BN];
  const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
  const int wm = warp / 2 * 32, wn = warp % 2 * 32, row0 = blockIdx.y * BM, col0 = blockIdx.x * BN;
  // Chunk c (8 elements) of row r.
  auto at_a = [&](int r, int c) { return &As[r * BK + ((c ^ (r >> 1 & 3)) * 8)]; };
  auto at_b = [&](int r, int c) { return &Bs[r * BN + ((c ^ (r & 7)) * 8)]; };
  float acc[2][4][4] = {};
  for (int k0 = 0; k0 < K; k0 += BK) {
    for (int i = tid; i < BM * BK / 8; i += 128) cp_async16(at_a(i / 4, i % 4), &A[(row0 + i / 4) * K + k0 + i % 4 * 8]);
    for (int i = tid; i < BK * BN / 8; i += 128) cp_async16(at_b(i / 8, i % 8), &B[(k0 + i / 8) * N + col0 + i % 8 * 8]);
    asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;\n" ::: "memory");
    __syncthreads();
    for (int k = 0; k < BK; k += 16) {
      unsigned a[2][4], b[4][2];
      for (int i = 0; i < 2; i++) ldmatrix_x4(a[i], at_a(wm + i * 16 + lane % 16, k / 8 + lane / 16));
      for (int j = 0; j < 4; j++) ldmatrix_x2_trans(b[j], at_b(k + lane % 16, wn / 8 + j));
      for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 4; j++) {
          if (BF16) mma_bf16(acc[i][j], a[i], b[j]);
          else mma_f16(acc[i][j], a[i], b[j]);
        }
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 2; i++) {
    for (int j = 0; j < 4; j++) {
      int r = row0 + wm + i * 16 + lane / 4, c = col0 + wn + j * 8 + lane % 4 * 2;
      C[r * N + c] = acc[i][j][0];
      C[r * N + c + 1] = acc[i][j][1];
      C[(r + 8) * N + c] = acc[i][j][2];
      C[(r + 8) * N + c + 1] = acc[i][j][3];
    }
  }
}
extern "C" __global__ void __launch_bounds__(128) gemm_mma_f16(int M, int N, int K, const half *A, const half *B, float *C) {
  gemm_mma_16<half, false>(M, N, K, A, B, C);
}
extern "C" __global__ void __launch_bounds__(128)
    gemm_mma_bf16(int M, int N, int K, const __nv_bfloat16 *A, const __nv_bfloat16 *B, float *C) {
  gemm_mma_16<__nv_bfloat16, true>(M, N, K, A, B, C);
}
// Accumulating in half: one warp, one 16 x 8 tile, K = 16.
extern "C" __global__ void mma_f16_f16(const half *A, const half *B, half *C) {
  int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  auto pair = [](half x, half y) { half2 h = __halves2half2(x, y); return *reinterpret_cast<unsigned *>(&h); };
  unsigned a[4], b[2], d[2];
  for (int i = 0; i < 4; i++) {
    int r = g + i % 2 * 8, c = 2 * t + i / 2 * 8;
    a[i] = pair(A[r * 16 + c], A[r * 16 + c + 1]);
  }
  for (int i = 0; i < 2; i++) b[i] = pair(B[(2 * t + i * 8) * 8 + g], B[(2 * t + i * 8 + 1) * 8 + g]);
  d[0] = pair(C[g * 8 + 2 * t], C[g * 8 + 2 * t + 1]);
  d[1] = pair(C[(g + 8) * 8 + 2 * t], C[(g + 8) * 8 + 2 * t + 1]);
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%0,%1};\n"
               : "+r"(d[0]), "+r"(d[1]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  *reinterpret_cast<unsigned *>(&C[g * 8 + 2 * t]) = d[0];
  *reinterpret_cast<unsigned *>(&C[(g + 8) * 8 + 2 * t]) = d[1];
}
// int8: one warp a 16 x 8 tile; B is given column by column (N x K).
extern "C" __global__ void gemm_mma_s8(int M, int N, int K, const signed char *A, const signed char *B, int *C) {
  int lane = threadIdx.x, g = lane / 4, t = lane % 4, row = blockIdx.y * 16 + g, col = blockIdx.x * 8;
  int d[4] = {};
  for (int k = 0; k < K; k += 32) {
    auto word = [&](const signed char *p) { return *reinterpret_cast<const unsigned *>(p); };
    unsigned a0 = word(&A[row * K + k + 4 * t]), a1 = word(&A[(row + 8) * K + k + 4 * t]);
    unsigned a2 = word(&A[row * K + k + 4 * t + 16]), a3 = word(&A[(row + 8) * K + k + 4 * t + 16]);
    unsigned b0 = word(&B[(col + g) * K + k + 4 * t]), b1 = word(&B[(col + g) * K + k + 4 * t + 16]);
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
  for (int i = 0; i < 4; i++) C[(row + i / 2 * 8) * N + col + 2 * t + i % 2] = d[i];
}
// Double precision: one warp an 8 x 8 tile; B is given column by column (N x K).
extern "C" __global__ void gemm_mma_f64(int M, int N, int K, const double *A, const double *B, double *C) {
  int lane = threadIdx.x, g = lane / 4, t = lane % 4, row = blockIdx.y * 8 + g, col = blockIdx.x * 8;
  double d0 = 0, d1 = 0;
  for (int k = 0; k < K; k += 4)
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};\n"
                 : "+d"(d0), "+d"(d1) : "d"(A[row * K + k + t]), "d"(B[(col + g) * K + k + t]));
  C[row * N + col + 2 * t] = d0;
  C[row * N + col + 2 * t + 1] = d1;
}

// ---- mma.h: one warp a 16 x 16 tile of alpha * A * B + beta * C, in the manner of its documentation.
extern "C" __global__ void wmma_f16(const half *a, const half *b, float *c, int M, int N, int K, float alpha, float beta) {
  int warpM = (blockIdx.x * blockDim.x + threadIdx.x) / warpSize;
  int warpN = (blockIdx.y * blockDim.y + threadIdx.y);
  if (warpM * 16 >= M || warpN * 16 >= N) return;
  wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> a_frag;
  wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> b_frag;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> acc_frag;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> c_frag;
  wmma::fill_fragment(acc_frag, 0.0f);
  for (int i = 0; i < K; i += 16) {
    wmma::load_matrix_sync(a_frag, a + warpM * 16 * K + i, K);
    wmma::load_matrix_sync(b_frag, b + warpN * 16 * K + i, K);
    wmma::mma_sync(acc_frag, a_frag, b_frag, acc_frag);
  }
  float *at = c + warpM * 16 * N + warpN * 16;
  wmma::load_matrix_sync(c_frag, at, N, wmma::mem_row_major);
  for (int i = 0; i < c_frag.num_elements; i++) c_frag.x[i] = alpha * acc_frag.x[i] + beta * c_frag.x[i];
  wmma::store_matrix_sync(at, c_frag, N, wmma::mem_row_major);
}
// Other shapes and layouts, through shared memory.
template <class T, int M, int N, int K, class LA, class LB, class D>
__device__ void wmma_tile(const T *a, int lda, const T *b, int ldb, D *c, int ldc, int depth, int step_a, int step_b) {
  wmma::fragment<wmma::matrix_a, M, N, K, T, LA> fa;
  wmma::fragment<wmma::matrix_b, M, N, K, T, LB> fb;
  wmma::fragment<wmma::accumulator, M, N, K, D> acc;
  wmma::fill_fragment(acc, D(0));
  for (int k = 0; k < depth; k += K) {
    wmma::load_matrix_sync(fa, a + k * step_a, lda);
    wmma::load_matrix_sync(fb, b + k * step_b, ldb);
    wmma::mma_sync(acc, fa, fb, acc);
  }
  wmma::store_matrix_sync(c, acc, ldc, wmma::mem_row_major);
}
extern "C" __global__ void wmma_f16_32x8(const half *a, const half *b, float *c) {  // 32 x 32 times 32 x 8
  __shared__ __align__(32) half sa[32 * 40];
  __shared__ __align__(32) half sb[32 * 8];
  for (int i = threadIdx.x; i < 32 * 32; i += 32) sa[i / 32 * 40 + i % 32] = a[i];
  for (int i = threadIdx.x; i < 32 * 8; i += 32) sb[i] = b[i];
  __syncwarp();
  wmma_tile<half, 32, 8, 16, wmma::row_major, wmma::row_major>(sa, 40, sb, 8, c, 8, 32, 1, 8);
}
extern "C" __global__ void wmma_bf16_8x32(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *c) {  // A column-major
  wmma_tile<__nv_bfloat16, 8, 32, 16, wmma::col_major, wmma::row_major>(a, 8, b, 32, c, 32, 32, 8, 32);
}
extern "C" __global__ void wmma_s8(const signed char *a, const signed char *b, int *c) {  // 16 x 32 times 32 x 16
  wmma_tile<signed char, 16, 16, 16, wmma::row_major, wmma::col_major>(a, 32, b, 32, c, 16, 32, 1, 1);
}
extern "C" __global__ void wmma_u8(const unsigned char *a, const unsigned char *b, int *c) {
  wmma_tile<unsigned char, 16, 16, 16, wmma::row_major, wmma::row_major>(a, 32, b, 16, c, 16, 32, 1, 16);
}
extern "C" __global__ void wmma_tf32(const float *a, const float *b, float *c) {  // 16 x 32 times 32 x 16
  wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major> fa;
  wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::row_major> fb;
  wmma::fragment<wmma::accumulator, 16, 16, 8, float> acc;
  wmma::fill_fragment(acc, 0.f);
  for (int k = 0; k < 32; k += 8) {
    wmma::load_matrix_sync(fa, a + k, 32);
    wmma::load_matrix_sync(fb, b + k * 16, 16);
    for (int i = 0; i < fa.num_elements; i++) fa.x[i] = wmma::__float_to_tf32(fa.x[i]);
    for (int i = 0; i < fb.num_elements; i++) fb.x[i] = wmma::__float_to_tf32(fb.x[i]);
    wmma::mma_sync(acc, fa, fb, acc);
  }
  wmma::store_matrix_sync(c, acc, 16, wmma::mem_col_major);
}
extern "C" __global__ void wmma_f64(const double *a, const double *b, double *c) {  // 8 x 16 times 16 x 8
  wmma_tile<double, 8, 8, 4, wmma::row_major, wmma::col_major>(a, 16, b, 16, c, 8, 16, 1, 1);
}

// ---- The pipeline primitives of cuda_pipeline.h: rows are smoothed while the next ones arrive.
extern "C" __global__ void pipeline_smooth(const float4 *in, float4 *out, int rows) {
  constexpr int STAGES = 3;
  __shared__ float4 ring[STAGES][64];
  int t = threadIdx.x;
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < rows) __pipeline_memcpy_async(&ring[s][t], &in[s * 64 + t], sizeof(float4));
    __pipeline_commit();
  }
  for (int r = 0; r < rows; r++) {
    int next = r + STAGES - 1;
    __pipeline_wait_prior(STAGES - 2);
    __syncthreads();
    if (next < rows) __pipeline_memcpy_async(&ring[next % STAGES][t], &in[next * 64 + t], sizeof(float4));
    __pipeline_commit();
    float4 a = ring[r % STAGES][t], b = ring[r % STAGES][(t + 1) % 64];
    out[r * 64 + t] = make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
  }
}

// ---- Arithmetic in 16 bits.
extern "C" __global__ void half_saxpy(half2 *y, const half2 *x, half a, int n2) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n2) y[i] = __hfma2(__half2half2(a), x[i], y[i]);
}
extern "C" __global__ void half_operations(const half *a, const half *b, half *out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  half x = a[i], y = b[i];
  out[i] = __hadd(x, y);
  out[n + i] = __hsub(x, y);
  out[2 * n + i] = __hmul(x, y);
  out[3 * n + i] = __hmax(x, y);
  out[4 * n + i] = __hmin_nan(x, y);
  out[5 * n + i] = __hlt(x, y) ? __hneg(x) : __habs(y);
  out[6 * n + i] = __float2half_rz(__half2float(x) * 1.0001f);
  out[7 * n + i] = __int2half_rn(__half2int_rd(x));
  out[8 * n + i] = __hfma_relu(x, y, y);
  out[9 * n + i] = __hadd_sat(x, y);
}
extern "C" __global__ void bf16_operations(const __nv_bfloat162 *a, const __nv_bfloat162 *b, __nv_bfloat162 *out, int n2) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n2) return;
  __nv_bfloat162 x = a[i], y = b[i];
  out[i] = __hadd2(x, y);
  out[n2 + i] = __hmul2(x, y);
  out[2 * n2 + i] = __hfma2(x, y, x);
  out[3 * n2 + i] = __hmax2(x, y);
  float2 f = __bfloat1622float2(x);
  out[4 * n2 + i] = __floats2bfloat162_rn(f.x * 1.7f, f.y / 3.f);
  out[5 * n2 + i] = __lowhigh2highlow(y);
}
extern "C" __global__ void half_dot(const half2 *a, const half2 *b, float *out, int n2) {
  __shared__ float sums[8];
  float sum = 0.f;
  for (int i = threadIdx.x; i < n2; i += blockDim.x) {
    float2 x = __half22float2(a[i]), y = __half22float2(b[i]);
    sum = fmaf(x.x, y.x, fmaf(x.y, y.y, sum));
  }
  for (int o = 16; o > 0; o /= 2) sum += __shfl_down_sync(~0u, sum, o);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < blockDim.x / 32; i++) sum += sums[i];
    *out = sum;
  }
}
// Half of a packed pair is moved between lanes, and bytes become floats by the usual trick.
extern "C" __global__ void half_shuffle(const half2 *in, half2 *out) {
  half2 v = in[threadIdx.x];
  half2 w = __shfl_xor_sync(~0u, v, 1);
  out[threadIdx.x] = threadIdx.x & 1 ? __halves2half2(__low2half(w), __high2half(v)) : __halves2half2(__low2half(v), __high2half(w));
}
extern "C" __global__ void half_atomics(half2 *sums, const half2 *in, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(&sums[i % 3], in[i]);
}
