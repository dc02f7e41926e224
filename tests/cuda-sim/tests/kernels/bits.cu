// Bits and bytes of a word: the integer intrinsics, their inline PTX, and SIMD inside a word.

extern "C" __global__ void bits(unsigned *out, const unsigned *a, const unsigned *b, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  unsigned x = a[i], y = b[i];
  unsigned long long w = (unsigned long long)x << 32 | y;
  unsigned *o = out + i;
  o[0] = __popc(x), o += n;
  o[0] = __clz(x), o += n;
  o[0] = __ffs(x), o += n;
  o[0] = __brev(x), o += n;
  o[0] = __popcll(w) | __clzll(w) << 8 | __ffsll(w) << 16, o += n;
  o[0] = (unsigned)(__brevll(w) >> 16), o += n;
  o[0] = __byte_perm(x, y, x ^ y), o += n;
  o[0] = __funnelshift_l(x, y, x & 63), o += n;
  o[0] = __funnelshift_rc(x, y, x & 63), o += n;
  o[0] = __mulhi((int)x, (int)y), o += n;
  o[0] = __umulhi(x, y), o += n;
  o[0] = (unsigned)(__mul64hi((long long)w, (long long)y) >> 7), o += n;
  o[0] = __sad((int)x, (int)y, x), o += n;
  o[0] = __usad(x, y, y), o += n;
  o[0] = __mul24((int)x, (int)y), o += n;
  o[0] = __umul24(x, y), o += n;
  o[0] = __hadd((int)x, (int)y), o += n;
  o[0] = __urhadd(x, y), o += n;
  o[0] = abs((int)x), o += n;
  unsigned r;
  asm("bfe.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(x), "r"(y & 31), "r"(y >> 8 & 31));
  o[0] = r, o += n;
  asm("bfi.b32 %0, %1, %2, %3, %4;" : "=r"(r) : "r"(x), "r"(y), "r"(y & 31), "r"(x & 31));
  o[0] = r, o += n;
  asm("lop3.b32 %0, %1, %2, %3, 0x96;" : "=r"(r) : "r"(x), "r"(y), "r"(x >> 5));
  o[0] = r, o += n;
  asm("prmt.b32.f4e %0, %1, %2, %3;" : "=r"(r) : "r"(x), "r"(y), "r"(y & 3));
  o[0] = r, o += n;
  asm("bfind.u32 %0, %1;" : "=r"(r) : "r"(x));
  o[0] = r, o += n;
  asm("add.sat.s32 %0, %1, %2;" : "=r"(r) : "r"(x), "r"(y));
  o[0] = r, o += n;
  asm("{ .reg .u32 lo, hi; add.cc.u32 lo, %1, %2; addc.u32 hi, %1, 0; xor.b32 %0, lo, hi; }" : "=r"(r) : "r"(x), "r"(y));
  o[0] = r, o += n;
  asm("mad.hi.u32 %0, %1, %2, %1;" : "=r"(r) : "r"(x), "r"(y));
  o[0] = r;
}
extern "C" __global__ void simd_in_word(unsigned *out, const unsigned *a, const unsigned *b, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  unsigned x = a[i], y = b[i];
  out[i] = __vadd4(x, y), out[n + i] = __vsub2(x, y), out[2 * n + i] = __vmaxs2(x, y), out[3 * n + i] = __vminu4(x, y);
  out[4 * n + i] = __vabsdiffu4(x, y), out[5 * n + i] = __vcmpgts4(x, y), out[6 * n + i] = __vavgu4(x, y);
  out[7 * n + i] = __vaddus4(x, y), out[8 * n + i] = __vsadu4(x, y), out[9 * n + i] = __vaddss2(x, y);
}
