// Weights (O,C,KH,KW) into the order in which conv_gemm.cu reads them: K down, output channels across, so that a tile's rows
// are runs of float4. What a tile has beyond the weights, in K and in channels, is zero.
//
//   forward:        packed[(r * KW + s) * C + c][o] = w[o, c, r, s]
//   input gradient: packed[(i * KW' + j) * O + o][c] = w[o, c, r, s], a problem for each residue of (r, s) modulo the stride S:
//                   r = r0 + S * (KH' - 1 - i), KH' taps from r0 on; s likewise. At stride 1 these are the weights rotated by
//                   half a turn.
//
// Floor: 8 bytes of traffic a weight. A training step packs every weight anew.

// packed: (problems, k_padded, n_padded); units: tiles across K, of the forward order.
#include "conv_pack.cuh"

// Forward is a transposition of (O, C * KH * KW) with lines put in another order: through a tile in shared memory, so that
// reads and writes are both runs of 128 bytes. grid tiles of K * tiles of n_padded, block (32, 8).
extern "C" __global__ void __launch_bounds__(256) conv_pack_forward(const PackArguments a) {
    __shared__ float tile[32][33];
    const u32 taps = a.kh * a.kw, k = a.c * taps;
    const u32 left = blockIdx.x % a.units * 32, top = blockIdx.x / a.units * 32;
    for (u32 i = threadIdx.y; i < 32; i += 8) {
        const bool inside = top + i < a.o && left + threadIdx.x < k;
        tile[i][threadIdx.x] = inside ? a.weight[(u64)(top + i) * k + left + threadIdx.x] : 0.0f;
    }
    __syncthreads();
    for (u32 i = threadIdx.y; i < 32; i += 8) {
        const u32 from = left + i; // c * taps + tap, or behind the last
        const u32 to = from < k ? from % taps * a.c + from / taps : from;
        if (to < a.k_padded && top + threadIdx.x < a.n_padded)
            a.packed[(u64)to * a.n_padded + top + threadIdx.x] = tile[threadIdx.x][i];
    }
}

// Input gradient: the runs of c are KH * KW floats apart in w, and the sectors that a warp touches serve its neighbours of the
// other taps. grid (lines of K in all problems * blocks of 128 channels).
extern "C" __global__ void __launch_bounds__(128) conv_pack_grad_input(const PackArguments a) {
    const u32 blocks = (a.n_padded + 127) / 128;
    const u32 line = blockIdx.x / blocks, c = blockIdx.x % blocks * 128 + threadIdx.x;
    if (c >= a.n_padded) return;
    a.packed[(u64)line * a.n_padded + c] = grad_input_weight(a, line / a.k_padded, line % a.k_padded, c);
}
