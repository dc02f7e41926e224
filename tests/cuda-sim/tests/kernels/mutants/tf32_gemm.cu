// C = A B (m x k, k x n, row-major, n and k multiples of 4) with tf32 tensor cores: tiles of 32 x 32 by four warps, brought
// by asynchronous copies into two buffers.

constexpr int BM = 32, BN = 32, BK = 16;
constexpr int AS = BK + 4, BS = BN + 8; // row strides without bank conflicts, multiples of 16 bytes

__device__ __forceinline__ void copy16(float *to, const float *from, bool there) {
    unsigned shared = (unsigned)__cvta_generic_to_shared(to);
    int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(bytes) : "memory");
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int N> __device__ __forceinline__ void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

__device__ __forceinline__ unsigned tf32(float x) {
    unsigned y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

extern "C" __global__ void __launch_bounds__(128)
    tf32_gemm(int m, int n, int k, const float *__restrict__ a, const float *__restrict__ b, float *__restrict__ c) {
    __shared__ alignas(16) float as[2][BM * AS];
    __shared__ alignas(16) float bs[2][BK * BS];
    int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    int row0 = blockIdx.y * BM, col0 = blockIdx.x * BN;

    auto load = [&](int buffer, int k0) {
        int i = thread / 4, j = thread % 4 * 4;
        bool there = row0 + i < m && k0 + j < k;
        copy16(&as[buffer][i * AS + j], there ? &a[(row0 + i) * k + k0 + j] : a, there);
        int p = thread / 8, q = thread % 8 * 4;
        bool inside = k0 + p < k && col0 + q < n;
        copy16(&bs[buffer][p * BS + q], inside ? &b[(k0 + p) * n + col0 + q] : b, inside);
    };

    int wm = warp / 2 * 16, wn = warp % 2 * 16; // the warp's 16 x 16
    int group = lane / 4, in = lane % 4;
    float d[2][4] = {};
    int tiles = (k + BK - 1) / BK;
    load(0, 0);
    commit(); // the first
    for (int t = 0; t < tiles; t++) {
        if (t + 1 < tiles)
            load((t + 1) % 2, (t + 1) * BK);
        commit(); // the next one, or nothing
        wait<1>();
        __syncthreads(); // all copies of this tile are there
        const float *at = as[t % 2], *bt = bs[t % 2];
        for (int kk = 0; kk < BK; kk += 8) {
            unsigned fa[4];
            fa[0] = tf32(at[(wm + group) * AS + kk + in]);
            fa[1] = tf32(at[(wm + group + 8) * AS + kk + in]);
            fa[2] = tf32(at[(wm + group) * AS + kk + in + 4]);
            fa[3] = tf32(at[(wm + group + 8) * AS + kk + in + 4]);
            for (int h = 0; h < 2; h++) {
                unsigned fb0 = tf32(bt[(kk + in) * BS + wn + h * 8 + group]);
                unsigned fb1 = tf32(bt[(kk + in + 4) * BS + wn + h * 8 + group]);
                asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                             "{%8, %9}, {%0, %1, %2, %3};"
                             : "+f"(d[h][0]), "+f"(d[h][1]), "+f"(d[h][2]), "+f"(d[h][3])
                             : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb0), "r"(fb1));
            }
        }
        __syncthreads(); // the next turn fills this buffer again
    }
    for (int h = 0; h < 2; h++)
        for (int e = 0; e < 4; e++) {
            int row = row0 + wm + group + e / 2 * 8, col = col0 + wn + h * 8 + in * 2 + e % 2;
            if (row < m && col < n)
                c[row * n + col] = d[h][e];
        }
}
