// What the corpus is compiled from: every construct that makes a compiler write something new.
struct __align__(16) Pack { int count; double weight; char tag[5]; };
struct Shape { __device__ virtual int area(int x) = 0; };
struct Square : Shape { __device__ int area(int x) override { return x * x; } };
struct Double : Shape { __device__ int area(int x) override { return x + x; } };

__device__ int table[2][3] = {{1, 2, 3}, {4, 5, 6}};
__device__ int *inside = &table[1][1];
__device__ short small = -5;
__device__ long long large = -1;
__device__ double doubles[3] = {1e-300, -2.5, 1.0 / 3};
__constant__ float coefficients[4] = {1.f, 2.5f, -3e-8f};
__device__ const char message[] = "hello";
__device__ Pack pack = {1, 2.0, "abc"};
extern __shared__ float dynamic[];

__device__ __noinline__ float accumulate(float x, Pack p) {
    for (int i = 0; i < p.count; i++) x = x * x + (float)p.weight;
    return x;
}
__device__ __noinline__ int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
typedef float (*Function)(float, Pack);
__device__ Function functions[2] = {accumulate, accumulate};

extern "C" __global__ void __launch_bounds__(128, 2)
branches(float *out, Pack p, int n, const float *__restrict__ in) {
    __shared__ int tile[32];
    int i = threadIdx.x;
    tile[i] = i;
    dynamic[i] = in[i];
    __syncthreads();
    switch (n) {
    case 0: out[i] = 1; break;
    case 1: out[i] = accumulate(2, p); break;
    case 2: out[i] = functions[i & 1](3, p); break;
    case 3: out[i] = tile[31 - i]; break;
    case 4: out[i] = coefficients[i & 3]; break;
    case 5: out[i] = inside[i]; break;
    case 6: printf("%d %s\n", i, message); break;
    case 7: out[i] = dynamic[i ^ 1]; break;
    }
    asm volatile("{ .reg .pred p; .reg .b32 r; setp.eq.u32 p, %0, 1; @p bra L; mov.u32 r, 1; L: }" ::"r"(n));
    asm volatile("{ .reg .pred p; .reg .b32 r; setp.eq.u32 p, %0, 2; @p bra L; mov.u32 r, 1; L: }" ::"r"(n));
    out[i] += __shfl_xor_sync(~0u, out[i], 1);
    float4 v = *(float4 *)(in + 4 * i);
    out[i] += v.x + v.y + v.z + v.w;
}

extern "C" __global__ void calls(int *out, double *d, int which) {
    Square square;
    Double twice;
    Shape *shape = which ? (Shape *)&square : (Shape *)&twice;
    out[threadIdx.x] = shape->area(fibonacci(out[1])) + pack.count;
    d[0] = sqrt(d[1]) / doubles[0] + small + large;
}

#ifndef WITHOUT_ATOMICS // NVRTC 13.5 with -G: "unsupported operation"
extern "C" __global__ void atomics(int *a, unsigned long long *u, float *f) {
    atomicAdd(u, 1ull);
    atomicCAS(a, 1, 2);
    atomicExch(f, 2.f);
    atomicAdd(f, 1.f);
    a[1] = __ballot_sync(~0u, a[2] > 3) + __popc(a[3]) + __dp4a(a[4], a[5], a[6]) + __brev(a[7]);
    __threadfence();
    if (a[1] == 77) __trap();
}
#endif

#if __CUDA_ARCH__ >= 800
extern "C" __global__ void tensor(float *out, const void *in) {
    __shared__ __align__(16) unsigned char s[1024];
    unsigned p = __cvta_generic_to_shared(s), r[4];
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n@p cp.async.cg.shared.global [%1], [%2], 16;\n}\n" ::"r"(p), "r"(p), "l"(in));
    asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(p));
    float d[4] = {};
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%4,%5}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]));
    out[threadIdx.x] = d[0] + __reduce_add_sync(~0u, r[0]);
}
#endif

#if __CUDA_ARCH__ >= 900
struct alignas(64) Map { unsigned long long x[16]; };
extern "C" __global__ void __cluster_dims__(2, 1, 1) bulk(const __grid_constant__ Map map, int *out) {
    __shared__ alignas(128) char s[4096];
    __shared__ alignas(8) unsigned long long bar;
    unsigned sp = __cvta_generic_to_shared(s), bp = __cvta_generic_to_shared(&bar);
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bp), "r"(1));
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(sp), "l"(&map), "r"(0), "r"(0), "r"(bp) : "memory");
    asm volatile("{\n.reg .pred P1;\nWAIT:\nmbarrier.try_wait.parity.shared::cta.b64 P1, [%0], %1;\n@P1 bra DONE;\nbra WAIT;\nDONE:\n}" ::"r"(bp), "r"(0));
    asm volatile("{\n.reg .pred P1;\nWAIT:\nmbarrier.try_wait.parity.shared::cta.b64 P1, [%0], %1;\n@P1 bra DONE;\nbra WAIT;\nDONE:\n}" ::"r"(bp), "r"(1));
    out[0] = s[0];
}
#endif
