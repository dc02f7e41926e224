// C = A B (m x k, k x n, row-major, binary16 in, f32 out; n and k multiples of 8) with ldmatrix and mma.sync: tiles of
// 32 x 32 by four warps, in dynamic shared memory.

constexpr int BM = 32, BN = 32, BK = 32;
constexpr int PAD = 8; // keeps rows at 16 bytes and apart by banks
constexpr int AS = BK + PAD, BS = BN + PAD;

extern __shared__ __align__(16) unsigned short tiles[];

extern "C" __global__ void __launch_bounds__(128)
    hgemm(int m, int n, int k, const unsigned short *__restrict__ a, const unsigned short *__restrict__ b,
          float *__restrict__ c) {
    unsigned short *as = tiles, *bs = tiles + BM * AS;
    int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    int row0 = blockIdx.y * BM, col0 = blockIdx.x * BN;
    int wm = warp / 2 * 16, wn = warp % 2 * 16;
    float d[2][4] = {};
    for (int k0 = 0; k0 < k; k0 += BK) {
        int i = thread / 4, j = thread % 4 * 8;
        uint4 x = make_uint4(0, 0, 0, 0), y = make_uint4(0, 0, 0, 0);
        if (row0 + i < m && k0 + j < k)
            x = *(const uint4 *)&a[(row0 + i) * k + k0 + j];
        if (k0 + i < k && col0 + j < n)
            y = *(const uint4 *)&b[(k0 + i) * n + col0 + j];
        *(uint4 *)&as[i * AS + j] = x;
        *(uint4 *)&bs[i * BS + j] = y;
        __syncthreads(); // the tiles are there
        for (int kk = 0; kk < BK; kk += 16) {
            unsigned fa[4], fb[4];
            unsigned pa = (unsigned)__cvta_generic_to_shared(&as[(wm + lane % 16) * AS + kk + lane / 16 * 8]);
            unsigned pb = (unsigned)__cvta_generic_to_shared(&bs[(kk + lane % 16) * BS + wn + lane / 16 * 8]);
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3])
                         : "r"(pa)
                         : "memory");
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(fb[0]), "=r"(fb[1]), "=r"(fb[2]), "=r"(fb[3])
                         : "r"(pb)
                         : "memory");
            for (int h = 0; h < 2; h++)
                asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                             "{%8, %9}, {%0, %1, %2, %3};"
                             : "+f"(d[h][0]), "+f"(d[h][1]), "+f"(d[h][2]), "+f"(d[h][3])
                             : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[2 * h]), "r"(fb[2 * h + 1]));
        }
        __syncthreads(); // the tiles have been used
    }
    for (int h = 0; h < 2; h++)
        for (int e = 0; e < 2; e++) {
            int row = row0 + wm + lane / 4 + e * 8, col = col0 + wn + h * 8 + lane % 4 * 2;
            if (row < m && col < n)
                *(float2 *)&c[row * n + col] = make_float2(d[h][2 * e], d[h][2 * e + 1]);
        }
}
