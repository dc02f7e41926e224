//! PTX that Triton's compiler wrote (through LLVM, not NVIDIA's front end) from kernels like those of its tutorials: another
//! way of using tensor cores, asynchronous copies and swizzled shared memory than ours, known to be right on hardware.
//! `triton/make.py` made it.

mod common;

use std::path::Path;

use common::{Arg, Gpu, Plain, Random, args, close, equal, product, same, tf32};
use half::{bf16, f16};

/// Half a unit in the last place of 1 in f32.
const U: f64 = 1.0 / (1 << 24) as f64;

/// A compiled kernel and how it is launched.
struct Kernel {
    ptx: String,
    name: String,
    params: Vec<String>,
    threads: usize,
    shared: usize,
}

fn kernel(file: &str) -> Kernel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/triton");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let launches: serde_json::Value = serde_json::from_str(&read("launches.json")).unwrap();
    let all = launches["kernels"].as_array().unwrap();
    let about = all.iter().find(|k| k["file"] == file).unwrap_or_else(|| panic!("no {file} in launches.json"));
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_string();
    let number = |v: &serde_json::Value| v.as_u64().unwrap() as usize;
    Kernel {
        ptx: read(file),
        name: text(&about["kernel"]),
        params: about["params"].as_array().unwrap().iter().map(text).collect(),
        threads: number(&about["threads"]),
        shared: number(&about["dynamic_shared"]),
    }
}

impl Kernel {
    /// Launches with these arguments, by name, and null for the scratch memory that is not used.
    fn launch(&self, gpu: &Gpu, grid: [usize; 2], names: &str, args: &[Arg]) {
        let given: Vec<&str> = names.split(' ').collect();
        let mut all = Vec::new();
        for param in &self.params {
            let (name, kind) = param.split_once(": ").unwrap();
            let arg = given.iter().position(|g| *g == name).map(|i| args[i].0.clone());
            let bytes = kind[1..].parse::<usize>().unwrap() / 8;
            let arg = match arg {
                None if name.starts_with("scratch") => vec![0; bytes],
                None => panic!("{}: no {name}", self.name),
                Some(arg) => arg,
            };
            assert_eq!(arg.len(), bytes, "{}: bytes of {name}", self.name);
            all.push(Arg(arg));
        }
        assert_eq!(given.len(), args.len());
        gpu.launch(&self.name, grid, [self.threads, 1], self.shared, &all);
    }
}

#[test]
fn vector_addition() {
    let k = kernel("add.ptx");
    let n = 2512;
    let (x, y) = (Random::new(1).units(n), Random::new(2).units(n));
    let got = same(&k.ptx, |gpu| {
        let (x, y, out) = (gpu.upload(&x), gpu.upload(&y), gpu.empty::<f32>(n));
        k.launch(gpu, [3, 1], "x_ptr y_ptr output_ptr n_elements", args![&x, &y, &out, n as i32]);
        gpu.read(&out)
    });
    equal("add", &got, &x.iter().zip(&y).map(|(x, y)| x + y).collect::<Vec<_>>());
}

#[test]
fn fused_softmax() {
    let k = kernel("softmax.ptx");
    let (rows, columns, stride) = (7, 181, 190);
    let x: Vec<f32> = Random::new(3).units(rows * stride).into_iter().map(|x| 10.0 * x).collect();
    let got = same(&k.ptx, |gpu| {
        let (x, out) = (gpu.upload(&x), gpu.empty::<f32>(rows * columns));
        let names = "output_ptr input_ptr input_row_stride output_row_stride n_rows n_cols";
        let sizes = [stride, columns, rows, columns].map(|s| s as i32);
        k.launch(gpu, [3, 1], names, args![&out, &x, sizes[0], sizes[1], sizes[2], sizes[3]]);
        gpu.read(&out)
    });
    let want = x.chunks(stride).flat_map(|row| {
        let row = &row[..columns];
        let max = row.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b)) as f64;
        let exp: Vec<f64> = row.iter().map(|&x| (x as f64 - max).exp()).collect();
        let sum: f64 = exp.iter().sum();
        exp.into_iter().map(move |e| e / sum).collect::<Vec<_>>()
    });
    // ex2.approx of an argument below 29, rounded twice; 181 terms; div.full.
    close("softmax", &got, want.map(|p| (p, (181.0 + 100.0) * U * p + 1e-38)));
}

#[test]
fn layer_norm_of_halves() {
    let k = kernel("layer_norm.ptx");
    let (rows, n, stride) = (5, 300, 304);
    let half = |v: Vec<f32>| v.into_iter().map(|x| f16::from_f32(3.0 * x)).collect::<Vec<_>>();
    let x = half(Random::new(4).units(rows * stride));
    let (w, b) = (Random::new(5).units(n), Random::new(6).units(n));
    let (y, mean, rstd) = same(&k.ptx, |gpu| {
        // The gap between rows of the output stays as it was.
        let (x, y) = (gpu.upload(&x), gpu.upload(&vec![f16::ONE; rows * stride]));
        let (w, b) = (gpu.upload(&w), gpu.upload(&b));
        let (mean, rstd) = (gpu.empty::<f32>(rows), gpu.empty::<f32>(rows));
        let args = args![&x, &y, &w, &b, &mean, &rstd, stride as i32, n as i32, 1e-5f32];
        k.launch(gpu, [rows, 1], "X Y W B Mean Rstd stride N eps", args);
        (gpu.read(&y), gpu.read(&mean), gpu.read(&rstd))
    });
    let (mut means, mut rstds, mut want) = (vec![], vec![], vec![]);
    for row in x.chunks(stride) {
        let mean = row[..n].iter().map(|x| x.to_f64()).sum::<f64>() / n as f64;
        let variance = row[..n].iter().map(|x| (x.to_f64() - mean).powi(2)).sum::<f64>() / n as f64;
        let rstd = 1.0 / (variance + 1e-5f32 as f64).sqrt();
        means.push((mean, 100.0 * U));
        rstds.push((rstd, 100.0 * U));
        want.extend((0..stride).map(|i| {
            if i >= n {
                return (1.0, 0.0);
            }
            let y = (row[i].to_f64() - mean) * rstd * w[i] as f64 + b[i] as f64;
            (y, 100.0 * U + y.abs() / 2048.0) // one rounding to half
        }));
    }
    close("mean", &mean, means.into_iter());
    close("rstd", &rstd, rstds.into_iter());
    close("layer_norm", &y.iter().map(|y| y.to_f32()).collect::<Vec<_>>(), want.into_iter());
}

/// `steps`: how many roundings the tensor cores are allowed for a product and its addition. What they do is not documented;
/// measurements on hardware found truncation after aligning the summands of one instruction, below one unit each.
fn matmul<A: Plain, C: Plain>(file: &str, [m, n, k]: [usize; 3], from: fn(f32) -> A, to: fn(&C) -> f32, rounding: f64) {
    let kernel = kernel(file);
    let (a, b) = (Random::new(7).units(m * k), Random::new(8).units(k * n));
    let rounded = |v: &[f32], f: fn(f32) -> A| v.iter().map(|x| f(*x)).collect::<Vec<A>>();
    let got = same(&kernel.ptx, |gpu| {
        let (a, b) = (gpu.upload(&rounded(&a, from)), gpu.upload(&rounded(&b, from)));
        let c = gpu.empty::<C>(m * n);
        let [mi, ni, ki] = [m as i32, n as i32, k as i32];
        let names = "a_ptr b_ptr c_ptr M N K stride_am stride_bk stride_cm";
        let grid = m.div_ceil(64) * n.div_ceil(64);
        kernel.launch(gpu, [grid, 1], names, args![&a, &b, &c, mi, ni, ki, ki, ni, ni]);
        gpu.read(&c)
    });
    // Every format here is narrower than f32 and can be read back through `half` or as itself.
    let exact = |v: &[f32]| v.iter().map(|x| narrow(file, *x)).collect::<Vec<f32>>();
    let (sum, size) = product(&exact(&a), &exact(&b), [m, n, k]);
    let want = (0..m * n).map(|i| (sum[i], (k + 2) as f64 * 2.0 * U * size[i] + rounding * sum[i].abs()));
    close(file, &got.iter().map(to).collect::<Vec<_>>(), want);
}

/// What the multiplier sees of a number.
fn narrow(file: &str, x: f32) -> f32 {
    match file {
        "matmul_fp16.ptx" => f16::from_f32(x).to_f32(),
        "matmul_bf16.ptx" => bf16::from_f32(x).to_f32(),
        _ => tf32(x),
    }
}

#[test]
fn matmul_in_tf32() {
    // Inputs are tf32 already: then it does not matter how the tensor core shortens them.
    matmul::<f32, f32>("matmul_tf32.ptx", [70, 96, 80], tf32, |c| *c, 0.0);
}

#[test]
fn matmul_in_halves() {
    matmul::<f16, f16>("matmul_fp16.ptx", [70, 80, 144], f16::from_f32, |c| c.to_f32(), 1.0 / 2048.0);
}

#[test]
fn matmul_in_bf16() {
    matmul::<bf16, f32>("matmul_bf16.ptx", [70, 80, 112], bf16::from_f32, |c| *c, 0.0);
}

#[test]
fn flash_attention() {
    let k = kernel("attention.ptx");
    let (heads, t, d) = (2, 100, 64);
    let half = |seed| Random::new(seed).units(heads * t * d).into_iter().map(f16::from_f32).collect::<Vec<_>>();
    let [q, key, v] = [9, 10, 11].map(half);
    let scale = 0.3f32;
    let got = same(&k.ptx, |gpu| {
        let (q, key, v, out) = (gpu.upload(&q), gpu.upload(&key), gpu.upload(&v), gpu.empty::<f16>(heads * t * d));
        k.launch(gpu, [t.div_ceil(64), heads], "Q K V Out sm_scale N_CTX", args![&q, &key, &v, &out, scale, t as i32]);
        gpu.read(&out)
    });
    let mut want = Vec::new();
    for h in 0..heads {
        let at = |x: &[f16], s: usize, c: usize| x[(h * t + s) * d + c].to_f64();
        for i in 0..t {
            let score = |s: usize| scale as f64 * (0..d).map(|c| at(&q, i, c) * at(&key, s, c)).sum::<f64>();
            let score: Vec<f64> = (0..=i).map(score).collect();
            let max = score.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
            let p: Vec<f64> = score.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = p.iter().sum();
            for c in 0..d {
                let x = (0..=i).map(|s| p[s] * at(&v, s, c)).sum::<f64>() / sum;
                // The weights are rounded to half before they meet the values (below 1), the result once more. The sum
                // starts at one instead of zero; the first rescaling forgets that, for it multiplies by 2^-inf.
                want.push((x, 1.0 / 2048.0 + x.abs() / 2048.0 + 1e-5));
            }
        }
    }
    close("attention", &got.iter().map(|x| x.to_f32()).collect::<Vec<_>>(), want.into_iter());
}

#[test]
fn reductions_and_scans() {
    let k = kernel("reduce.ptx");
    let (rows, n) = (6, 203);
    let x: Vec<i32> = Random::new(12).words(rows * n).into_iter().map(|x| x as i32).collect();
    let ((sum, max), arg, scan, total) = same(&k.ptx, |gpu| {
        let x = gpu.upload(&x);
        let [sum, max, arg] = [(); 3].map(|_| gpu.empty::<i32>(rows));
        let (scan, total) = (gpu.empty::<i32>(rows * n), gpu.zeros::<i32>(1));
        let args = args![&x, &sum, &max, &arg, &scan, &total, n as i32];
        k.launch(gpu, [rows, 1], "X Sum Max ArgMax Scan Total N", args);
        ((gpu.read(&sum), gpu.read(&max)), gpu.read(&arg), gpu.read(&scan), gpu.read(&total))
    });
    let running = |row: &[i32]| {
        row.iter()
            .scan(0i32, |s, x| {
                *s = s.wrapping_add(*x);
                Some(*s)
            })
            .collect::<Vec<_>>()
    };
    let scans: Vec<i32> = x.chunks(n).flat_map(running).collect();
    let last: Vec<i32> = scans.chunks(n).map(|s| s[n - 1]).collect();
    equal("scan", &scan, &scans);
    equal("sum", &sum, &last);
    equal("total", &total, &[last.iter().fold(0i32, |a, b| a.wrapping_add(*b))]);
    let maxima: Vec<i32> = x.chunks(n).map(|row| *row.iter().max().unwrap()).collect();
    equal("max", &max, &maxima);
    let first = |(row, max): (&[i32], &i32)| row.iter().position(|x| x == max).unwrap() as i32;
    equal("argmax", &arg, &x.chunks(n).zip(&maxima).map(first).collect::<Vec<_>>());
}

/// The first word of Philox 4x32-10 (Salmon et al., 2011) with the counter in the first word and the seed as key.
fn philox(counter: u32, seed: u32) -> u32 {
    let (mut c, mut key) = ([counter, 0, 0, 0], [seed, 0u32]);
    for _ in 0..10 {
        let (a, b) = (0xD251_1F53u64 * c[0] as u64, 0xCD9E_8D57u64 * c[2] as u64);
        c = [(b >> 32) as u32 ^ c[1] ^ key[0], b as u32, (a >> 32) as u32 ^ c[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    c[0]
}

#[test]
fn dropout_by_philox() {
    let k = kernel("dropout.ptx");
    let (n, p, seed) = (1000, 0.25f32, 1234);
    let x = Random::new(13).units(n);
    let got = same(&k.ptx, |gpu| {
        let (x, out) = (gpu.upload(&x), gpu.empty::<f32>(n));
        k.launch(gpu, [2, 1], "x_ptr output_ptr n_elements p seed", args![&x, &out, n as i32, p, seed]);
        gpu.read(&out)
    });
    // As Triton makes a number in [0, 1) of an integer.
    let random = |i: usize| {
        let x = philox(i as u32, seed as u32) as i32;
        (if x < 0 { -x - 1 } else { x }) as f32 * 4.656_612_7e-10
    };
    let want = (0..n).map(|i| {
        let kept = x[i] as f64 / 0.75;
        if random(i) > p { (kept, 2.0 * U * kept.abs()) } else { (0.0, 0.0) }
    });
    close("dropout", &got, want);
}
