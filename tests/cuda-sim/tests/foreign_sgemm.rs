//! The SGEMM ladder, matrix times vector, and integer dot products.

mod common;

use common::{Random, args, close, compile, equal, product, same};

/// (kernel, grid, block, dynamic shared memory) for an m x n product.
type Shape = ([usize; 2], [usize; 2], usize);

fn gemm(kernel: &str, [m, n, k]: [usize; 3], shape: Shape) {
    let mut random = Random::new(7);
    let (a, b, c) = (random.units(m * k), random.units(k * n), random.units(m * n));
    let (alpha, beta) = (1.5f32, -0.25f32);
    let (grid, block, shared) = shape;
    let got = same(&compile("sgemm.cu"), |gpu| {
        let (a, b, c) = (gpu.upload(&a), gpu.upload(&b), gpu.upload(&c));
        let args = args![m as i32, n as i32, k as i32, alpha, &a, &b, beta, &c];
        gpu.launch(kernel, grid, block, shared, args);
        gpu.read(&c)
    });
    let (sum, size) = product(&a, &b, [m, n, k]);
    // Every order of k fused or separate multiply-adds is within (k + 1) roundings of the exact sum; three more at the end.
    let u = f64::from(f32::EPSILON) / 2.0;
    let want = (0..m * n).map(|i| {
        let (ab, c) = (alpha as f64 * sum[i], beta as f64 * c[i] as f64);
        (ab + c, (k + 4) as f64 * u * (1.01 * alpha as f64 * size[i] + c.abs()))
    });
    close(kernel, &got, want);
}

#[test]
fn naive() {
    gemm("sgemm_naive", [65, 70, 37], ([3, 5], [32, 16], 0));
}

#[test]
fn coalesced() {
    gemm("sgemm_coalesced", [65, 70, 37], ([5, 5], [256, 1], 0));
}

#[test]
fn shared() {
    gemm("sgemm_shared", [65, 70, 37], ([5, 5], [16, 16], 0));
}

#[test]
fn block_tiles_of_columns() {
    gemm("sgemm_1d_blocktiling", [128, 64, 40], ([1, 2], [512, 1], 0));
}

#[test]
fn block_tiles_of_squares() {
    gemm("sgemm_2d_blocktiling", [65, 70, 37], ([2, 3], [64, 1], 0));
}

#[test]
fn vectorised() {
    gemm("sgemm_vectorized", [128, 64, 32], ([1, 2], [128, 1], 0));
}

#[test]
fn warp_tiles() {
    gemm("sgemm_warptiling", [64, 128, 48], ([2, 1], [128, 1], 0));
}

#[test]
fn double_buffered_with_asynchronous_copies() {
    gemm("sgemm_double_buffered", [65, 72, 36], ([2, 2], [256, 1], 16384));
}

#[test]
fn three_stages_of_asynchronous_copies() {
    gemm("sgemm_three_stages", [33, 47, 100], ([3, 3], [256, 1], 0));
}

#[test]
fn int8_product_is_exact() {
    let [m, n, k] = [17, 33, 64];
    let mut random = Random::new(8);
    let (a, b) = (random.words(m * k / 4), random.words(n * k / 4));
    let got = same(&compile("sgemm.cu"), |gpu| {
        let (a, b, c) = (gpu.upload(&a), gpu.upload(&b), gpu.empty::<i32>(m * n));
        gpu.launch("igemm_dp4a", [2, 3], [32, 8], 0, args![m as i32, n as i32, k as i32, &a, &b, &c]);
        gpu.read(&c)
    });
    let byte = |x: &[u32], i: usize| (x[i / 4] >> (i % 4 * 8)) as i8 as i32;
    let want: Vec<i32> =
        (0..m * n).map(|i| (0..k).map(|l| byte(&a, i / n * k + l) * byte(&b, i % n * k + l)).sum()).collect();
    equal("igemm_dp4a", &got, &want);
}

#[test]
fn integer_dots_wrap() {
    let n = 77;
    let mut random = Random::new(9);
    let (a, b, c) = (random.words(n), random.words(n), random.words(n));
    let got = same(&compile("sgemm.cu"), |gpu| {
        let (a, b, c, out) = (gpu.upload(&a), gpu.upload(&b), gpu.upload(&c), gpu.empty::<u32>(4 * n));
        gpu.launch("dots", 1, 96, 0, args![&a, &b, &c, &out, n as i32]);
        gpu.read(&out)
    });
    let mut want = Vec::new();
    for i in 0..n {
        let (a, b, c) = (a[i], b[i], c[i]);
        let (x, y) = (a.to_le_bytes(), b.to_le_bytes());
        let signed = |i: usize| (x[i] as i8 as i32).wrapping_mul(y[i] as i8 as i32);
        let unsigned: u32 = (0..4).map(|i| x[i] as u32 * y[i] as u32).sum();
        want.push(c.wrapping_add(unsigned));
        // dp2a: the two 16-bit halves of a with the low or high two bytes of b.
        let lo = (a as i16 as i32) * (y[0] as i8 as i32) + ((a >> 16) as i16 as i32) * (y[1] as i8 as i32);
        want.push((c as i32).wrapping_add(lo) as u32);
        want.push(c.wrapping_add((a & 0xffff) * y[2] as u32).wrapping_add((a >> 16) * y[3] as u32));
        want.push((c as i32).wrapping_add((0..4).map(signed).sum()) as u32);
    }
    equal("dots", &got, &want);
}

#[test]
fn matrix_times_vector() {
    let (m, n) = (19, 131);
    let mut random = Random::new(10);
    let (a, x) = (random.units(m * n), random.units(n));
    let got = same(&compile("sgemm.cu"), |gpu| {
        let (a, x, y) = (gpu.upload(&a), gpu.upload(&x), gpu.empty::<f32>(m));
        gpu.launch("sgemv_warp", 5, 128, 0, args![m as i32, n as i32, &a, &x, &y]);
        gpu.read(&y)
    });
    let (sum, size) = product(&a, &x, [m, 1, n]);
    close("sgemv_warp", &got, (0..m).map(|i| (sum[i], 12.0 * f64::from(f32::EPSILON) * size[i])));
}

#[test]
fn sparse_matrix_times_vector() {
    let (rows, columns) = (75usize, 64usize);
    let mut random = Random::new(11);
    let (mut start, mut index) = (vec![0i32], Vec::new());
    for row in 0..rows {
        // Some rows are empty, some longer than a half-warp.
        let count = if row % 7 == 3 { 0 } else { random.below(40) as usize };
        index.extend((0..count).map(|_| random.below(columns as u64) as i32));
        start.push(index.len() as i32);
    }
    let (value, x) = (random.units(index.len()), random.units(columns));
    for kernel in ["spmv_csr_scalar", "spmv_csr_vector"] {
        let got = same(&compile("sgemm.cu"), |gpu| {
            let (p, i, v) = (gpu.upload(&start), gpu.upload(&index), gpu.upload(&value));
            let (x, y) = (gpu.upload(&x), gpu.empty::<f32>(rows));
            let grid = if kernel == "spmv_csr_scalar" { 1 } else { 10 };
            gpu.launch(kernel, grid, 128, 0, args![rows as i32, &p, &i, &v, &x, &y]);
            gpu.read(&y)
        });
        let want = (0..rows).map(|row| {
            let terms = (start[row] as usize..start[row + 1] as usize).map(|j| {
                let product = value[j] as f64 * x[index[j] as usize] as f64;
                (product, product.abs())
            });
            let (sum, size) = terms.fold((0.0, 0.0), |t, x| (t.0 + x.0, t.1 + x.1));
            (sum, 42.0 * f64::from(f32::EPSILON) / 2.0 * size)
        });
        close(kernel, &got, want);
    }
}
