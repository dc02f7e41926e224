// Layers of neural networks in FP32, forward and backward, in the manner of small training programs.
#include <math_constants.h>
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
namespace cg = cooperative_groups;
#define WARP_SIZE 32
#define INFINITY CUDART_INF_F

__device__ float warpReduceSum(float val) {
  for (int offset = 16; offset > 0; offset >>= 1) val += __shfl_xor_sync(0xffffffff, val, offset);
  return val;
}
__device__ float warpReduceMax(float val) {
  for (int offset = 16; offset > 0; offset /= 2) val = fmaxf(val, __shfl_down_sync(0xFFFFFFFF, val, offset));
  return val;
}

// ---- Softmax over rows of C.
extern "C" __global__ void softmax_naive(float *out, const float *inp, int N, int C) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < N) {
    const float *inp_row = inp + i * C;
    float *out_row = out + i * C;
    float maxval = -INFINITY;
    for (int j = 0; j < C; j++)
      if (inp_row[j] > maxval) maxval = inp_row[j];
    double sum = 0.0;
    for (int j = 0; j < C; j++) {
      out_row[j] = expf(inp_row[j] - maxval);
      sum += out_row[j];
    }
    float norm = 1.f / (float)sum;
    for (int j = 0; j < C; j++) out_row[j] *= norm;
  }
}
// One pass for maximum and sum together.
extern "C" __global__ void softmax_online(float *out, const float *inp, int N, int C) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < N) {
    const float *inp_row = inp + i * C;
    float maxval = -INFINITY;
    float sum = 0.0f;
    for (int j = 0; j < C; j++) {
      float maxval_prev = maxval;
      if (inp_row[j] > maxval) {
        maxval = inp_row[j];
        sum = sum * expf(maxval_prev - maxval) + expf(inp_row[j] - maxval);
      } else {
        sum += expf(inp_row[j] - maxval);
      }
    }
    for (int j = 0; j < C; j++) out[i * C + j] = expf(inp_row[j] - maxval) / sum;
  }
}
// A warp a row.
extern "C" __global__ void softmax_warp(float *out, const float *inp, int N, int C) {
  cg::thread_block block = cg::this_thread_block();
  cg::thread_block_tile<32> warp = cg::tiled_partition<32>(block);
  int idx = blockIdx.x * warp.meta_group_size() + warp.meta_group_rank();
  if (idx >= N) return;
  const float *x = inp + idx * C;
  float maxval = -INFINITY;
  for (int i = warp.thread_rank(); i < C; i += warp.size()) maxval = fmaxf(maxval, x[i]);
  maxval = cg::reduce(warp, maxval, cg::greater<float>{});
  float sum = 0.0f;
  for (int i = warp.thread_rank(); i < C; i += warp.size()) {
    float v = __expf(x[i] - maxval);
    out[idx * C + i] = v;
    sum += v;
  }
  sum = cg::reduce(warp, sum, cg::plus<float>{});
  for (int i = warp.thread_rank(); i < C; i += warp.size()) out[idx * C + i] /= sum;
}
// A block a row.
extern "C" __global__ void softmax_block(float *out, const float *inp, int N, int C) {
  extern __shared__ float shared[];
  int idx = blockIdx.x, tid = threadIdx.x, warpId = tid / 32, laneId = tid % 32;
  int warpsPerBlock = blockDim.x / 32;
  float *maxvals = shared;
  float *sumvals = &shared[warpsPerBlock];
  const float *x = inp + idx * C;
  float maxval = -INFINITY;
  for (int i = tid; i < C; i += blockDim.x) maxval = fmaxf(maxval, x[i]);
  maxval = warpReduceMax(maxval);
  if (laneId == 0) maxvals[warpId] = maxval;
  __syncthreads();
  if (tid == 0) {
    float val = maxvals[tid];
    for (int i = 1; i < warpsPerBlock; i++) val = fmaxf(val, maxvals[i]);
    maxvals[0] = val;
  }
  __syncthreads();
  float offset = maxvals[0];
  float sumval = 0.0f;
  for (int i = tid; i < C; i += blockDim.x) {
    out[idx * C + i] = expf(x[i] - offset);
    sumval += out[idx * C + i];
  }
  sumval = warpReduceSum(sumval);
  if (laneId == 0) sumvals[warpId] = sumval;
  __syncthreads();
  if (tid == 0) {
    float val = sumvals[tid];
    for (int i = 1; i < warpsPerBlock; ++i) val += sumvals[i];
    sumvals[0] = val;
  }
  __syncthreads();
  float sum = sumvals[0];
  for (int i = tid; i < C; i += blockDim.x) out[idx * C + i] = out[idx * C + i] / sum;
}

// ---- Layer normalisation.
extern "C" __global__ void layernorm_forward(float *__restrict__ out, float *__restrict__ mean, float *__restrict__ rstd,
                                             const float *__restrict__ inp, const float *__restrict__ weight,
                                             const float *__restrict__ bias, int N, int C) {
  int lane_id = threadIdx.x % WARP_SIZE;
  int warp_id = threadIdx.x / WARP_SIZE;
  int num_warps = blockDim.x / WARP_SIZE;
  int idx = blockIdx.x * num_warps + warp_id;
  if (idx >= N) return;
  const float *x = inp + idx * C;
  float sum = 0.0f;
  for (int i = lane_id; i < C; i += WARP_SIZE) sum += x[i];
  sum = warpReduceSum(sum);
  float m = sum / C;
  if (lane_id == 0 && mean != nullptr) __stcs(mean + idx, m);
  sum = 0.0f;
  for (int i = lane_id; i < C; i += WARP_SIZE) {
    float diff = x[i] - m;
    sum += diff * diff;
  }
  sum = warpReduceSum(sum);
  float s = rsqrtf(sum / C + 1e-5f);
  if (lane_id == 0 && rstd != nullptr) __stcs(rstd + idx, s);
  float *o = out + idx * C;
  for (int c = lane_id; c < C; c += WARP_SIZE) {
    float n = s * (__ldcs(x + c) - m);
    __stcs(o + c, n * weight[c] + bias[c]);
  }
}
extern "C" __global__ void layernorm_backward(float *dinp, float *dweight, float *dbias, const float *dout,
                                              const float *inp, const float *weight, const float *mean,
                                              const float *rstd, int N, int C) {
  extern __shared__ float shared[];
  cg::thread_block block = cg::this_thread_block();
  cg::thread_block_tile<32> warp = cg::tiled_partition<32>(block);
  int idx = blockIdx.x * warp.meta_group_size() + warp.meta_group_rank();
  float *dbias_shared = shared;
  float *dweight_shared = shared + C;
  for (int i = threadIdx.x; i < C; i += blockDim.x) {
    dbias_shared[i] = 0.0f;
    dweight_shared[i] = 0.0f;
  }
  __syncthreads();
  if (idx < N) {
    const float *dout_bt = dout + idx * C;
    const float *inp_bt = inp + idx * C;
    float *dinp_bt = dinp + idx * C;
    const float mean_bt = mean[idx];
    const float rstd_bt = rstd[idx];
    float dnorm_mean = 0.0f;
    float dnorm_norm_mean = 0.0f;
    for (int i = warp.thread_rank(); i < C; i += warp.size()) {
      float norm_bti = (inp_bt[i] - mean_bt) * rstd_bt;
      float dnorm_i = weight[i] * dout_bt[i];
      dnorm_mean += dnorm_i;
      dnorm_norm_mean += dnorm_i * norm_bti;
    }
    dnorm_mean = cg::reduce(warp, dnorm_mean, cg::plus<float>{});
    dnorm_norm_mean = cg::reduce(warp, dnorm_norm_mean, cg::plus<float>{});
    dnorm_mean = dnorm_mean / C;
    dnorm_norm_mean = dnorm_norm_mean / C;
    for (int i = warp.thread_rank(); i < C; i += warp.size()) {
      float norm_bti = (inp_bt[i] - mean_bt) * rstd_bt;
      float dnorm_i = weight[i] * dout_bt[i];
      atomicAdd(&dbias_shared[i], dout_bt[i]);
      atomicAdd(&dweight_shared[i], norm_bti * dout_bt[i]);
      float dval = 0.0f;
      dval += dnorm_i;
      dval -= dnorm_mean;
      dval -= norm_bti * dnorm_norm_mean;
      dval *= rstd_bt;
      dinp_bt[i] += dval;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < C; i += blockDim.x) {
    atomicAdd(&dbias[i], dbias_shared[i]);
    atomicAdd(&dweight[i], dweight_shared[i]);
  }
}

// ---- Activations.
#define GELU_SCALING_FACTOR sqrtf(2.0f / CUDART_PI_F)
extern "C" __global__ void gelu_forward(float *out, const float *inp, int N) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < N) {
    float xi = inp[i];
    float cube = 0.044715f * xi * xi * xi;
    out[i] = 0.5f * xi * (1.0f + tanhf(GELU_SCALING_FACTOR * (xi + cube)));
  }
}
extern "C" __global__ void gelu_backward(float *dinp, const float *inp, const float *dout, const int N) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < N) {
    float x = inp[i];
    float cube = 0.044715f * x * x * x;
    float tanh_arg = GELU_SCALING_FACTOR * (x + cube);
    float tanh_out = tanhf(tanh_arg);
    float coshf_out = coshf(tanh_arg);
    float sech_out = 1.0f / (coshf_out * coshf_out);
    float local_grad =
        0.5f * (1.0f + tanh_out) + x * 0.5f * sech_out * GELU_SCALING_FACTOR * (1.0f + 3.0f * 0.044715f * x * x);
    dinp[i] = local_grad * dout[i];
  }
}
extern "C" __global__ void gelu_erf(float4 *out, const float4 *inp, int N4) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < N4) {
    float4 x = __ldg(&inp[i]);
    x.x *= normcdff(x.x);
    x.y *= 0.5f * (1.0f + erff(x.y * CUDART_SQRT_HALF_F));
    x.z = x.z > 0.0f ? x.z : 0.0f;
    x.w = x.w / (1.0f + expf(-x.w));
    out[i] = x;
  }
}

// ---- Attention, one head a block row.
// preatt, softmax and value as three simple kernels in one: a warp computes one query.
extern "C" __global__ void attention_naive(float *out, const float *q, const float *k, const float *v, int T, int D,
                                           float scale) {
  extern __shared__ float scores[];
  int t = blockIdx.x, h = blockIdx.y;
  q += (h * T + t) * D;
  k += h * T * D;
  v += h * T * D;
  for (int s = threadIdx.x; s <= t; s += blockDim.x) {
    float dot = 0.0f;
    for (int d = 0; d < D; d++) dot += q[d] * k[s * D + d];
    scores[s] = dot * scale;
  }
  __syncwarp();
  float m = -INFINITY;
  for (int s = threadIdx.x; s <= t; s += 32) m = fmaxf(m, scores[s]);
  m = __shfl_sync(0xffffffff, warpReduceMax(m), 0);
  float sum = 0.0f;
  for (int s = threadIdx.x; s <= t; s += 32) sum += scores[s] = expf(scores[s] - m);
  sum = warpReduceSum(sum);
  __syncwarp();
  for (int d = threadIdx.x; d < D; d += 32) {
    float acc = 0.0f;
    for (int s = 0; s <= t; s++) acc += scores[s] * v[s * D + d];
    out[(h * T + t) * D + d] = acc / sum;
  }
}
// The flash-attention recurrence over tiles of keys and values in shared memory; Br = Bc = 32 = blockDim.x.
extern "C" __global__ void flash_attention(const float *Q, const float *K, const float *V, int N, int d, int Tc, int Tr,
                                           float softmax_scale, float *l, float *m, float *O) {
  const int Bc = 32, Br = 32;
  int tx = threadIdx.x;
  int bx = blockIdx.x, by = blockIdx.y;
  int qkv_offset = (bx * gridDim.y * N * d) + (by * N * d);
  int lm_offset = (bx * gridDim.y * N) + (by * N);
  extern __shared__ float sram[];
  int tile_size = Bc * d;
  float *Qi = sram;
  float *Kj = &sram[tile_size];
  float *Vj = &sram[tile_size * 2];
  float *S = &sram[tile_size * 3];
  for (int j = 0; j < Tc; j++) {
    for (int x = 0; x < d; x++) {
      bool inside = j * Bc + tx < N;
      Kj[(tx * d) + x] = inside ? K[qkv_offset + (tile_size * j) + (tx * d) + x] : 0.f;
      Vj[(tx * d) + x] = inside ? V[qkv_offset + (tile_size * j) + (tx * d) + x] : 0.f;
    }
    __syncthreads();
    for (int i = 0; i < Tr; i++) {
      if (Br * i + tx < N) {
        for (int x = 0; x < d; x++) Qi[(tx * d) + x] = Q[qkv_offset + (tile_size * i) + (tx * d) + x];
        float row_m_prev = m[lm_offset + (Br * i) + tx];
        float row_l_prev = l[lm_offset + (Br * i) + tx];
        float row_m = -INFINITY;
        for (int y = 0; y < Bc && j * Bc + y < N; y++) {
          float sum = 0;
          for (int x = 0; x < d; x++) sum += Qi[(tx * d) + x] * Kj[(y * d) + x];
          sum *= softmax_scale;
          S[(Bc * tx) + y] = sum;
          if (sum > row_m) row_m = sum;
        }
        float row_l = 0;
        for (int y = 0; y < Bc && j * Bc + y < N; y++) {
          S[(Bc * tx) + y] = __expf(S[(Bc * tx) + y] - row_m);
          row_l += S[(Bc * tx) + y];
        }
        float row_m_new = max(row_m_prev, row_m);
        float row_l_new = (__expf(row_m_prev - row_m_new) * row_l_prev) + (__expf(row_m - row_m_new) * row_l);
        for (int x = 0; x < d; x++) {
          float pv = 0;
          for (int y = 0; y < Bc && j * Bc + y < N; y++) pv += S[(Bc * tx) + y] * Vj[(y * d) + x];
          O[qkv_offset + (tile_size * i) + (tx * d) + x] =
              (1 / row_l_new) *
              ((row_l_prev * __expf(row_m_prev - row_m_new) * O[qkv_offset + (tile_size * i) + (tx * d) + x]) +
               (__expf(row_m - row_m_new) * pv));
        }
        m[lm_offset + (Br * i) + tx] = row_m_new;
        l[lm_offset + (Br * i) + tx] = row_l_new;
      }
    }
    __syncthreads();
  }
}

// ---- The rest of a training step.
extern "C" __global__ void encoder_forward(float4 *out, const int *inp, const float4 *wte, const float4 *wpe, int B, int T,
                                           int C4) {
  int idx = blockIdx.x * blockDim.x + threadIdx.x;
  int N = B * T * C4;
  if (idx < N) {
    int bt = idx / C4;
    int b = bt / T;
    int t = bt % T;
    int c4 = idx % C4;
    int ix = inp[b * T + t];
    float4 a = wte[ix * C4 + c4], p = wpe[t * C4 + c4];
    out[b * T * C4 + t * C4 + c4] = make_float4(a.x + p.x, a.y + p.y, a.z + p.z, a.w + p.w);
  }
}
extern "C" __global__ void encoder_backward(float *dwte, float *dwpe, const float *dout, const int *inp, int B, int T,
                                            int C) {
  int idx = blockIdx.x * blockDim.x + threadIdx.x;
  if (idx < B * T * C) {
    int bt = idx / C, t = bt % T, c = idx % C;
    atomicAdd(dwte + inp[bt] * C + c, dout[idx]);
    atomicAdd(dwpe + t * C + c, dout[idx]);
  }
}
extern "C" __global__ void crossentropy_forward_backward(float *losses, float *dlogits, const float *logits,
                                                         const int *targets, int V) {
  __shared__ float part[32];
  const float *x = logits + (size_t)blockIdx.x * V;
  int tid = threadIdx.x, lane = tid % 32, warp = tid / 32, warps = blockDim.x / 32;
  float m = -INFINITY, s = 0.f;
  for (int i = tid; i < V; i += blockDim.x) {
    float v = x[i], big = fmaxf(m, v);
    s = s * expf(m - big) + expf(v - big);
    m = big;
  }
  float all = m;
  for (int o = 16; o > 0; o /= 2) all = fmaxf(all, __shfl_xor_sync(~0u, all, o));
  if (lane == 0) part[warp] = all;
  __syncthreads();
  all = part[0];
  for (int i = 1; i < warps; i++) all = fmaxf(all, part[i]);
  __syncthreads();
  s = m == -INFINITY ? 0.f : s * expf(m - all);
  s = warpReduceSum(s);
  if (lane == 0) part[warp] = s;
  __syncthreads();
  s = 0.f;
  for (int i = 0; i < warps; i++) s += part[i];
  int target = targets[blockIdx.x];
  if (tid == 0) losses[blockIdx.x] = logf(s) + all - x[target];
  for (int i = tid; i < V; i += blockDim.x)
    dlogits[(size_t)blockIdx.x * V + i] = expf(x[i] - all) / s - (i == target ? 1.f : 0.f);
}
__device__ inline float lerp(float start, float end, float weight) { return fma(weight, end, fma(-weight, start, start)); }
extern "C" __global__ void adamw(float *params, const float *grads, float *m_memory, float *v_memory, long num_parameters,
                                 float learning_rate, float beta1, float beta2, float beta1_correction,
                                 float beta2_correction, float eps, float weight_decay) {
  size_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= num_parameters) return;
  float grad = grads[i];
  float m = m_memory[i];
  float v = v_memory[i];
  m = lerp(grad, m, beta1);
  m_memory[i] = m;
  v = lerp(grad * grad, v, beta2);
  v_memory[i] = v;
  m /= beta1_correction;
  v /= beta2_correction;
  params[i] -= learning_rate * (m / (sqrtf(v) + eps) + weight_decay * params[i]);
}
// A convolution whose filter lies in constant memory, with a halo in shared memory.
#define RADIUS 4
__constant__ float filter[2 * RADIUS + 1];
extern "C" __global__ void convolution_row(float *out, const float *in, int width) {
  __shared__ float tile[128 + 2 * RADIUS];
  const float *row = in + blockIdx.y * width;
  int x = blockIdx.x * 128 + threadIdx.x;
  for (int i = threadIdx.x; i < 128 + 2 * RADIUS; i += 128) {
    int at = (int)(blockIdx.x * 128) + i - RADIUS;
    tile[i] = at >= 0 && at < width ? row[at] : 0.f;
  }
  __syncthreads();
  if (x >= width) return;
  float sum = 0.f;
#pragma unroll
  for (int j = -RADIUS; j <= RADIUS; j++) sum += filter[RADIUS + j] * tile[threadIdx.x + RADIUS + j];
  out[blockIdx.y * width + x] = sum;
}
// Any channels, any radius: the filter is read with an index that only the run knows.
extern "C" __global__ void depthwise(float *out, const float *in, int channels, int taps, int width) {
  int x = blockIdx.x * blockDim.x + threadIdx.x, c = threadIdx.y + blockIdx.y * blockDim.y;
  if (x >= width || c >= channels) return;
  float sum = 0.f;
  for (int t = 0; t < taps && x + t < width; t++) sum += filter[(c + t) % (2 * RADIUS + 1)] * in[c * width + x + t];
  out[c * width + x] = sum;
}
// A seven-point stencil in three dimensions.
extern "C" __global__ void stencil3d(float *out, const float *in, int nx, int ny, int nz) {
  int x = blockIdx.x * blockDim.x + threadIdx.x;
  int y = blockIdx.y * blockDim.y + threadIdx.y;
  int z = blockIdx.z * blockDim.z + threadIdx.z;
  if (x >= nx || y >= ny || z >= nz) return;
  auto at = [&](int i, int j, int k) {
    i = min(max(i, 0), nx - 1), j = min(max(j, 0), ny - 1), k = min(max(k, 0), nz - 1);
    return in[(k * ny + j) * nx + i];
  };
  out[(z * ny + y) * nx + x] = -6.f * at(x, y, z) + at(x - 1, y, z) + at(x + 1, y, z) + at(x, y - 1, z) +
                               at(x, y + 1, z) + at(x, y, z - 1) + at(x, y, z + 1);
}
