//! Tensor cores through inline PTX and `mma.h`, asynchronous copies, and arithmetic in half and bfloat16.
//!
//! A product of two 8- to 11-bit mantissas is exact in f32; what is allowed on top is two units in the last place of the sum
//! of absolute values for every accumulation, since the hardware truncates.

mod common;

use common::{Plain, Random, args, close, close64, compile, equal, product, same, tf32};
use half::{bf16, f16};

/// Half a unit in the last place of 1 in f32.
const U: f64 = 1.0 / (1 << 24) as f64;

fn transposed<T: Copy>(x: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect()
}

fn halves(n: usize, seed: u64) -> Vec<f16> {
    Random::new(seed).units(n).into_iter().map(f16::from_f32).collect()
}

fn bfloats(n: usize, seed: u64) -> Vec<bf16> {
    Random::new(seed).units(n).into_iter().map(bf16::from_f32).collect()
}

/// Runs a GEMM of 64 x 64 tiles and compares.
fn gemm<T: Plain>(kernel: &str, [m, n, k]: [usize; 3], a: &[T], b: &[T], value: fn(&T) -> f32) {
    let got = same(&compile("tensor.cu"), |gpu| {
        let (a, b, c) = (gpu.upload(a), gpu.upload(b), gpu.empty::<f32>(m * n));
        gpu.launch(kernel, [n / 64, m / 64], 128, 0, args![m as i32, n as i32, k as i32, &a, &b, &c]);
        gpu.read(&c)
    });
    let plain = |x: &[T]| x.iter().map(value).collect::<Vec<f32>>();
    let (sum, size) = product(&plain(a), &plain(b), [m, n, k]);
    close(kernel, &got, (0..m * n).map(|i| (sum[i], 2.0 * (k + 2) as f64 * U * size[i])));
}

#[test]
fn mma_of_tf32() {
    let size = [64, 128, 48];
    // The kernel rounds; here the value that the tensor core gets.
    let (a, b) = (Random::new(1).units(64 * 48), Random::new(2).units(48 * 128));
    gemm("gemm_mma_tf32", size, &a, &b, |x| tf32(*x));
}

#[test]
fn mma_of_halves_with_ldmatrix() {
    gemm("gemm_mma_f16", [128, 64, 64], &halves(128 * 64, 3), &halves(64 * 64, 4), |x| x.to_f32());
}

#[test]
fn mma_of_bf16_with_ldmatrix() {
    gemm("gemm_mma_bf16", [64, 128, 96], &bfloats(64 * 96, 5), &bfloats(96 * 128, 6), |x| x.to_f32());
}

#[test]
fn mma_that_accumulates_in_half() {
    let (a, b, c) = (halves(256, 7), halves(128, 8), halves(128, 9));
    let got = same(&compile("tensor.cu"), |gpu| {
        let (a, b, c) = (gpu.upload(&a), gpu.upload(&b), gpu.upload(&c));
        gpu.launch("mma_f16_f16", 1, 32, 0, args![&a, &b, &c]);
        gpu.read(&c)
    });
    let plain = |x: &[f16]| x.iter().map(|x| x.to_f32()).collect::<Vec<f32>>();
    let (sum, size) = product(&plain(&a), &plain(&b), [16, 8, 16]);
    // The sum is rounded to half once or twice: 11 bits.
    let want = (0..128).map(|i| (sum[i] + c[i].to_f64(), (size[i] + c[i].to_f64().abs()) / 1024.0));
    close("mma_f16_f16", &plain(&got), want);
}

#[test]
fn mma_of_bytes_is_exact() {
    let [m, n, k] = [32, 24, 96];
    let byte = |seed, n| Random::new(seed).words(n).into_iter().map(|x| x as i8).collect::<Vec<_>>();
    let (a, b) = (byte(10, m * k), byte(11, n * k));
    let got = same(&compile("tensor.cu"), |gpu| {
        let (a, b, c) = (gpu.upload(&a), gpu.upload(&b), gpu.empty::<i32>(m * n));
        gpu.launch("gemm_mma_s8", [n / 8, m / 16], 32, 0, args![m as i32, n as i32, k as i32, &a, &b, &c]);
        gpu.read(&c)
    });
    let dot = |i: usize| (0..k).map(|l| a[i / n * k + l] as i32 * b[i % n * k + l] as i32).sum::<i32>();
    equal("gemm_mma_s8", &got, &(0..m * n).map(dot).collect::<Vec<_>>());
}

fn doubles(n: usize, seed: u64) -> Vec<f64> {
    Random::new(seed).units(n).into_iter().map(|x| x as f64 / 3.0).collect()
}

/// The product of `a` (m x k) and the transpose of `b` (n x k), with its tolerance in f64.
fn product64(a: &[f64], b: &[f64], [m, n, k]: [usize; 3]) -> Vec<(f64, f64)> {
    let term = |i: usize, l: usize| a[i / n * k + l] * b[i % n * k + l];
    let sums = (0..m * n).map(|i| (0..k).map(|l| term(i, l)).fold((0.0, 0.0), |s, t| (s.0 + t, s.1 + t.abs())));
    sums.map(|(sum, size)| (sum, 2.0 * k as f64 * f64::EPSILON * size)).collect()
}

#[test]
fn mma_of_doubles() {
    let [m, n, k] = [16, 24, 20];
    let (a, b) = (doubles(m * k, 12), doubles(n * k, 13));
    let (big, (c, d), small) = same(&compile("tensor.cu"), |gpu| {
        let (a, b, c) = (gpu.upload(&a), gpu.upload(&b), gpu.empty::<f64>(m * n));
        gpu.launch("gemm_mma_f64", [n / 8, m / 8], 32, 0, args![m as i32, n as i32, k as i32, &a, &b, &c]);
        let (x, y) = (doubles(8 * 16, 14), doubles(8 * 16, 15));
        let (p, q, r) = (gpu.upload(&x), gpu.upload(&y), gpu.empty::<f64>(64));
        gpu.launch("wmma_f64", 1, 32, 0, args![&p, &q, &r]);
        (gpu.read(&c), (x, y), gpu.read(&r))
    });
    close64("gemm_mma_f64", &big, product64(&a, &b, [m, n, k]).into_iter());
    close64("wmma_f64", &small, product64(&c, &d, [8, 8, 16]).into_iter());
}

#[test]
fn wmma_as_in_its_documentation() {
    let [m, n, k] = [48, 32, 64];
    let (a, b, c) = (halves(m * k, 16), halves(n * k, 17), Random::new(18).units(m * n));
    let got = same(&compile("tensor.cu"), |gpu| {
        let (a, b, c) = (gpu.upload(&a), gpu.upload(&b), gpu.upload(&c));
        let args = args![&a, &b, &c, m as i32, n as i32, k as i32, 2.0f32, -0.5f32];
        gpu.launch("wmma_f16", [2, 1], [64, 4], 0, args);
        gpu.read(&c)
    });
    let plain = |x: &[f16]| x.iter().map(|x| x.to_f32()).collect::<Vec<f32>>();
    let (sum, size) = product(&plain(&a), &transposed(&plain(&b), n, k), [m, n, k]);
    let want = (0..m * n).map(|i| {
        let (ab, c) = (2.0 * sum[i], -0.5 * c[i] as f64);
        (ab + c, 2.0 * (k + 4) as f64 * U * (2.0 * size[i] + c.abs()))
    });
    close("wmma_f16", &got, want);
}

/// Runs a kernel of one warp on two matrices.
fn tile<T: Plain, D: Plain>(kernel: &str, a: &[T], b: &[T], elements: usize) -> Vec<D> {
    same(&compile("tensor.cu"), |gpu| {
        let (a, b, c) = (gpu.upload(a), gpu.upload(b), gpu.empty::<D>(elements));
        gpu.launch(kernel, 1, 32, 0, args![&a, &b, &c]);
        gpu.read(&c)
    })
}

#[test]
fn wmma_in_other_shapes_and_layouts() {
    let near = |what: &str, got: &[f32], a: &[f32], b: &[f32], size: [usize; 3]| {
        let (sum, abs) = product(a, b, size);
        close(what, got, sum.into_iter().zip(abs).map(|(s, a)| (s, 2.0 * (size[2] + 2) as f64 * U * a)));
    };
    let plain = |x: &[f16]| x.iter().map(|x| x.to_f32()).collect::<Vec<f32>>();
    let (a, b) = (halves(32 * 32, 19), halves(32 * 8, 20));
    near("wmma_f16_32x8", &tile("wmma_f16_32x8", &a, &b, 256), &plain(&a), &plain(&b), [32, 8, 32]);

    let plain = |x: &[bf16]| x.iter().map(|x| x.to_f32()).collect::<Vec<f32>>();
    let (a, b) = (bfloats(8 * 32, 21), bfloats(32 * 32, 22));
    let rows = transposed(&plain(&a), 32, 8);
    near("wmma_bf16_8x32", &tile("wmma_bf16_8x32", &a, &b, 256), &rows, &plain(&b), [8, 32, 32]);

    let (a, b) = (Random::new(23).units(16 * 32), Random::new(24).units(32 * 16));
    let got = transposed(&tile::<f32, f32>("wmma_tf32", &a, &b, 256), 16, 16);
    let round = |x: &[f32]| x.iter().map(|x| tf32(*x)).collect::<Vec<f32>>();
    near("wmma_tf32", &got, &round(&a), &round(&b), [16, 16, 32]);

    let bytes = |seed| Random::new(seed).words(512).into_iter().map(|x| x as u8).collect::<Vec<_>>();
    let (a, b) = (bytes(25), bytes(26));
    let got: Vec<i32> = tile("wmma_u8", &a, &b, 256);
    let dot = |i: usize| (0..32).map(|l| a[i / 16 * 32 + l] as i32 * b[l * 16 + i % 16] as i32).sum::<i32>();
    equal("wmma_u8", &got, &(0..256).map(dot).collect::<Vec<_>>());
    let signed = |x: &[u8]| x.iter().map(|x| *x as i8).collect::<Vec<_>>();
    let (a, b) = (signed(&a), signed(&b));
    let got: Vec<i32> = tile("wmma_s8", &a, &b, 256);
    let dot = |i: usize| (0..32).map(|l| a[i / 16 * 32 + l] as i32 * b[i % 16 * 32 + l] as i32).sum::<i32>();
    equal("wmma_s8", &got, &(0..256).map(dot).collect::<Vec<_>>());
}

#[test]
fn a_ring_filled_by_pipeline_primitives() {
    for rows in [1, 2, 9] {
        let x = Random::new(27).units(rows * 256);
        let got = same(&compile("tensor.cu"), |gpu| {
            let (input, out) = (gpu.upload(&x), gpu.empty::<f32>(rows * 256));
            gpu.launch("pipeline_smooth", 1, 64, 0, args![&input, &out, rows as i32]);
            gpu.read(&out)
        });
        let want = |i: usize| x[i] + x[i / 256 * 256 + (i + 4) % 256];
        equal("pipeline_smooth", &got, &(0..rows * 256).map(want).collect::<Vec<_>>());
    }
}

/// `x` rounded to a format of `bits` bits of mantissa (the hidden one included) and smallest normal exponent `low`.
fn rounded(x: f64, bits: i32, low: i32, round: fn(f64) -> f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let exponent = ((x.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(low);
    let quantum = 2f64.powi(exponent - (bits - 1));
    round(x / quantum) * quantum
}

/// To half, to nearest even.
fn to_half(x: f64) -> f16 {
    let x = rounded(x, 11, -14, f64::round_ties_even);
    if x.abs() > 65504.0 { f16::INFINITY.copysign(f16::from_f64(x)) } else { f16::from_f64(x) }
}

/// To bfloat16, to nearest even, for numbers far from its limits.
fn to_bf16(x: f64) -> bf16 {
    bf16::from_f64(rounded(x, 8, -126, f64::round_ties_even))
}

fn equal_or_nan(what: &str, got: &[f16], want: &[f16]) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        // The sign of a zero that was clamped is nowhere promised.
        let clamped = w.to_bits() == 0 && (what.contains("relu") || what.contains("sat"));
        let same = g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan() || clamped && *g == f16::ZERO;
        assert!(same, "{what}: element {i} is {g:?}, not {w:?}");
    }
}

#[test]
fn operations_on_halves() {
    let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 65504.0, -65504.0, 6e-8, -6.1e-5, 1.0];
    let pairs = special.iter().flat_map(|x| special.iter().map(move |y| (*x, *y)));
    let mut random = Random::new(28);
    let pairs = pairs.chain((0..400).map(|_| (4.0 * random.unit(), 4.0 * random.unit())));
    let (a, b): (Vec<f16>, Vec<f16>) = pairs.map(|(x, y)| (f16::from_f32(x), f16::from_f32(y))).unzip();
    let n = a.len();
    let got = same(&compile("tensor.cu"), |gpu| {
        let (x, y, out) = (gpu.upload(&a), gpu.upload(&b), gpu.empty::<f16>(10 * n));
        gpu.launch("half_operations", n.div_ceil(128), 128, 0, args![&x, &y, &out, n as i32]);
        gpu.read(&out)
    });
    let max = |x: f16, y: f16| match (x.is_nan(), y.is_nan()) {
        (true, _) => y,
        (_, true) => x,
        _ if x == y => {
            if x.is_sign_negative() {
                y
            } else {
                x
            }
        }
        _ => {
            if x > y {
                x
            } else {
                y
            }
        }
    };
    let min_nan = |x: f16, y: f16| match x.is_nan() || y.is_nan() {
        true => f16::NAN,
        _ if x == y => {
            if x.is_sign_negative() {
                x
            } else {
                y
            }
        }
        _ => {
            if x < y {
                x
            } else {
                y
            }
        }
    };
    let toward_zero = |x: f16| {
        let x = (x.to_f32() * 1.0001) as f64;
        let short = rounded(x, 11, -14, f64::trunc);
        f16::from_f64(if x.is_finite() { short.clamp(-65504.0, 65504.0) } else { short })
    };
    // What `fma` adds up is exact in f64 for all random pairs, and for the special ones it is far from a tie.
    let relu = |x: f64| {
        if x.is_nan() {
            f16::NAN
        } else if x <= 0.0 {
            f16::ZERO
        } else {
            to_half(x)
        }
    };
    let saturated = |x: f64| if x.is_nan() || x <= 0.0 { f16::ZERO } else { to_half(x.min(1.0)) };
    type Operation<'a> = (&'a str, &'a dyn Fn(f16, f16) -> f16);
    let operations: [Operation; 10] = [
        ("hadd", &|x, y| to_half(x.to_f64() + y.to_f64())),
        ("hsub", &|x, y| to_half(x.to_f64() - y.to_f64())),
        ("hmul", &|x, y| to_half(x.to_f64() * y.to_f64())),
        ("hmax", &max),
        ("hmin_nan", &min_nan),
        ("hneg, habs", &|x, y| if x < y { -x } else { f16::from_bits(y.to_bits() & 0x7fff) }),
        ("float2half_rz", &|x, _| toward_zero(x)),
        ("half2int_rd", &|x, _| to_half(x.to_f64().floor() as i32 as f64)),
        ("hfma_relu", &|x, y| relu(x.to_f64().mul_add(y.to_f64(), y.to_f64()))),
        ("hadd_sat", &|x, y| saturated(x.to_f64() + y.to_f64())),
    ];
    for (i, (name, f)) in operations.iter().enumerate() {
        let want: Vec<f16> = a.iter().zip(&b).map(|(x, y)| f(*x, *y)).collect();
        equal_or_nan(name, &got[i * n..(i + 1) * n], &want);
    }
}

#[test]
fn saxpy_in_halves() {
    let (n, a) = (203, f16::from_f32(0.7));
    let (x, y) = (halves(2 * n, 29), halves(2 * n, 30));
    let got = same(&compile("tensor.cu"), |gpu| {
        let (gx, gy) = (gpu.upload(&x), gpu.upload(&y));
        gpu.launch("half_saxpy", 2, 128, 0, args![&gy, &gx, a, n as i32]);
        gpu.read(&gy)
    });
    let want: Vec<f16> = x.iter().zip(&y).map(|(x, y)| to_half(a.to_f64().mul_add(x.to_f64(), y.to_f64()))).collect();
    equal("half_saxpy", &got, &want);
}

#[test]
fn operations_on_bf16_pairs() {
    let n = 150;
    let (a, b) = (bfloats(2 * n, 31), bfloats(2 * n, 32));
    let got = same(&compile("tensor.cu"), |gpu| {
        let (x, y, out) = (gpu.upload(&a), gpu.upload(&b), gpu.empty::<bf16>(12 * n));
        gpu.launch("bf16_operations", 2, 96, 0, args![&x, &y, &out, n as i32]);
        gpu.read(&out)
    });
    let part = |i: usize| &got[2 * i * n..2 * (i + 1) * n];
    let each =
        |f: &dyn Fn(f64, f64) -> bf16| a.iter().zip(&b).map(|(x, y)| f(x.to_f64(), y.to_f64())).collect::<Vec<bf16>>();
    equal("hadd2", part(0), &each(&|x, y| to_bf16(x + y)));
    equal("hmul2", part(1), &each(&|x, y| to_bf16(x * y)));
    equal("hfma2", part(2), &each(&|x, y| to_bf16(x.mul_add(y, x))));
    equal("hmax2", part(3), &each(&|x, y| bf16::from_f64(x.max(y))));
    let single = |i: usize| if i.is_multiple_of(2) { a[i].to_f32() * 1.7 } else { a[i].to_f32() / 3.0 };
    equal("floats2bfloat162", part(4), &(0..2 * n).map(|i| to_bf16(single(i) as f64)).collect::<Vec<_>>());
    equal("lowhigh2highlow", part(5), &(0..2 * n).map(|i| b[i ^ 1]).collect::<Vec<_>>());
}

#[test]
fn dot_product_and_shuffles_of_pairs() {
    let n = 333;
    let (a, b) = (halves(2 * n, 33), halves(2 * n, 34));
    let (dot, moved) = same(&compile("tensor.cu"), |gpu| {
        let (x, y, out) = (gpu.upload(&a), gpu.upload(&b), gpu.empty::<f32>(1));
        gpu.launch("half_dot", 1, 128, 0, args![&x, &y, &out, n as i32]);
        let moved = gpu.empty::<f16>(64);
        gpu.launch("half_shuffle", 1, 32, 0, args![&x, &moved]);
        (gpu.read(&out), gpu.read(&moved))
    });
    let terms = a.iter().zip(&b).map(|(x, y)| x.to_f64() * y.to_f64());
    let (sum, size) = terms.fold((0.0, 0.0), |s: (f64, f64), t| (s.0 + t, s.1 + t.abs()));
    close("half_dot", &dot, std::iter::once((sum, 20.0 * U * size)));
    // A lane keeps one half and takes the other from its neighbour.
    let want = (0..64).map(|i| {
        let (lane, high) = (i / 2, i % 2);
        match (lane % 2, high) {
            (0, 0) => a[2 * lane],
            (0, _) => a[2 * (lane + 1) + 1],
            (_, 0) => a[2 * (lane - 1)],
            (_, _) => a[2 * lane + 1],
        }
    });
    equal("half_shuffle", &moved, &want.collect::<Vec<_>>());
}

#[test]
fn atomic_additions_of_pairs() {
    let n = 100;
    // Small integers: exact in any order.
    let mut random = Random::new(35);
    let x: Vec<f16> = (0..2 * n).map(|_| f16::from_f32(random.below(21) as f32 - 10.0)).collect();
    let got = same(&compile("tensor.cu"), |gpu| {
        let (sums, x) = (gpu.zeros::<f16>(6), gpu.upload(&x));
        gpu.launch("half_atomics", 2, 64, 0, args![&sums, &x, n as i32]);
        gpu.read(&sums)
    });
    let mut want = [0.0; 6];
    (0..2 * n).for_each(|i| want[i / 2 % 3 * 2 + i % 2] += x[i].to_f64());
    equal("half_atomics", &got, &want.map(f16::from_f64));
}
