// C = A B^T in tf32 on tensor cores, all row-major, M and N multiples of 128, K of 32: the form of a fast kernel for sm_80.
// A block of 8 warps has a tile of 128 x 128 and three stages of 32 columns of A and of B in flight; a warp has 64 x 32.
#define TILE 128
#define DEPTH 32
#define STAGES 3
#define PITCH (DEPTH + 4)  // 16 bytes of padding: the 8 rows of an ldmatrix begin in different banks

extern __shared__ __align__(16) float tiles[];

__device__ __forceinline__ unsigned shared_address(const void *p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void ldmatrix(unsigned (&r)[4], const float *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)));
}
__device__ __forceinline__ unsigned rounded(unsigned x) {
  unsigned y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(__uint_as_float(x)));
  return y;
}

extern "C" __global__ void __launch_bounds__(256) gemm_tf32(const float *__restrict__ A, const float *__restrict__ B,
                                                            float *__restrict__ C, int M, int N, int K) {
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int row0 = blockIdx.y * TILE, col0 = blockIdx.x * TILE, steps = K / DEPTH;
  const int wrow = warp / 4 * 64, wcol = warp % 4 * 32;
  float *const a_tiles = tiles, *const b_tiles = tiles + STAGES * TILE * PITCH;
  auto load = [&](int step) {
    if (step < steps) {
      const int stage = step % STAGES;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int row = (thread + i * 256) / 8, col = thread % 8 * 4;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(
                         shared_address(a_tiles + (stage * TILE + row) * PITCH + col)),
                     "l"(A + (size_t)(row0 + row) * K + step * DEPTH + col));
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(
                         shared_address(b_tiles + (stage * TILE + row) * PITCH + col)),
                     "l"(B + (size_t)(col0 + row) * K + step * DEPTH + col));
      }
    }
    asm volatile("cp.async.commit_group;\n");
  };
  float sum[4][4][4] = {};
  for (int s = 0; s < STAGES - 1; s++) load(s);
  for (int step = 0; step < steps; step++) {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(STAGES - 2));
    __syncthreads();
    load(step + STAGES - 1);
    const float *a_tile = a_tiles + step % STAGES * TILE * PITCH, *b_tile = b_tiles + step % STAGES * TILE * PITCH;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 8) {
      unsigned a[4][4], b[2][4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        ldmatrix(a[i], a_tile + (wrow + i * 16 + lane % 16) * PITCH + k + lane / 16 * 4);
#pragma unroll
        for (int j = 0; j < 4; j++) a[i][j] = rounded(a[i][j]);
      }
#pragma unroll
      for (int j = 0; j < 2; j++) {
        ldmatrix(b[j], b_tile + (wcol + j * 16 + lane % 8 + lane / 16 * 8) * PITCH + k + lane / 8 % 2 * 4);
#pragma unroll
        for (int q = 0; q < 4; q++) b[j][q] = rounded(b[j][q]);
      }
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const unsigned b0 = b[j / 2][j % 2 * 2], b1 = b[j / 2][j % 2 * 2 + 1];
          float(&d)[4] = sum[i][j];
          asm volatile(
              "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
              : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
              : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(b0), "r"(b1));
        }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int row = row0 + wrow + i * 16 + lane / 4 + h * 8, col = col0 + wcol + j * 8 + lane % 4 * 2;
        *reinterpret_cast<float2 *>(C + (size_t)row * N + col) = make_float2(sum[i][j][h * 2], sum[i][j][h * 2 + 1]);
      }
}
