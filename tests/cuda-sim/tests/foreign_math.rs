//! The CUDA math library against Rust's, in units in the last place. The bounds are those of the CUDA C++ Programming
//! Guide's tables, plus one for the reference.

mod common;

use common::{Plain, Random, args, close, close64, compile, same};

fn numbers(seed: u64, n: usize) -> Vec<f64> {
    let mut random = Random::new(seed);
    // From thousandths to hundreds.
    (0..n).map(|_| random.unit() as f64 * 2f64.powi(random.below(16) as i32 - 8)).collect()
}

fn run<T: Plain>(kernel: &str, x: &[T], y: Option<&[T]>) -> Vec<T> {
    same(&compile("math.cu"), |gpu| {
        let (out, a) = (gpu.empty::<T>(x.len()), gpu.upload(x));
        match y {
            None => gpu.launch(kernel, 4, 64, 0, args![&out, &a, x.len() as i32]),
            Some(y) => gpu.launch(kernel, 4, 64, 0, args![&out, &a, &gpu.upload(y), x.len() as i32]),
        }
        gpu.read(&out)
    })
}

#[test]
fn functions_in_double_precision() {
    let (x, y) = (numbers(1, 250), numbers(2, 250));
    type One = fn(f64) -> f64;
    let one: [(&str, f64, One); 10] = [
        ("sin_d", 3.0, f64::sin),
        ("cos_d", 3.0, f64::cos),
        ("tan_d", 3.0, f64::tan),
        ("exp_d", 2.0, f64::exp),
        ("log_d", 2.0, |a| a.abs().ln()),
        ("sqrt_d", 0.0, |a| a.abs().sqrt()),
        ("cbrt_d", 2.0, f64::cbrt),
        ("tanh_d", 3.0, f64::tanh),
        ("atan_d", 3.0, f64::atan),
        ("floor_d", 0.0, |a| a.floor() + a.round_ties_even() + a.trunc() + a.ceil()),
    ];
    for (kernel, ulps, f) in one {
        let want = x.iter().map(|a| f(*a));
        close64(kernel, &run(kernel, &x, None), want.map(|w| (w, ulps * f64::EPSILON * w.abs())));
    }
    type Two = fn(f64, f64) -> f64;
    let two: [(&str, f64, Two); 6] = [
        ("div_d", 0.0, |a, b| a / b),
        ("pow_d", 3.0, |a, b| a.abs().powf(b)),
        ("atan2_d", 3.0, f64::atan2),
        ("fmod_d", 0.0, |a, b| a % b),
        ("hypot_d", 3.0, f64::hypot),
        ("fma_d", 0.0, |a, b| a.mul_add(b, a)),
    ];
    for (kernel, ulps, f) in two {
        let want = x.iter().zip(&y).map(|(a, b)| f(*a, *b));
        close64(kernel, &run(kernel, &x, Some(&y)), want.map(|w| (w, ulps * f64::EPSILON * w.abs())));
    }
}

#[test]
fn functions_in_single_precision() {
    let single = |seed| numbers(seed, 250).into_iter().map(|x| (x / 8.0) as f32).collect::<Vec<f32>>();
    let (x, y) = (single(3), single(4));
    let ulp = f32::EPSILON as f64;
    type One = fn(f64) -> f64;
    // The second number: an absolute error, of the fast functions.
    let one: [(&str, f64, f64, One); 11] = [
        ("sin_f", 3.0, 0.0, f64::sin),
        ("cos_f", 3.0, 0.0, f64::cos),
        ("exp_f", 3.0, 0.0, f64::exp),
        ("log_f", 2.0, 0.0, |a| a.abs().ln()),
        ("tanh_f", 3.0, 0.0, f64::tanh),
        ("sqrt_f", 0.5, 0.0, |a| a.abs().sqrt()),
        ("cbrt_f", 2.0, 0.0, f64::cbrt),
        ("rsqrt_f", 3.0, 0.0, |a| 1.0 / a.abs().sqrt()),
        ("sin_fast", 0.0, 2e-5, f64::sin), // 2^-21 within pi, and more beyond, here up to 16
        ("exp_fast", 22.0, 0.0, f64::exp),
        ("log_fast", 3.0, 5e-7, |a| a.abs().ln()),
    ];
    for (kernel, ulps, absolute, f) in one {
        let want = x.iter().map(|a| f(*a as f64));
        close(kernel, &run(kernel, &x, None), want.map(|w| (w, ulps * ulp * w.abs() + absolute)));
    }
    type Two = fn(f64, f64) -> f64;
    let two: [(&str, f64, Two); 4] = [
        ("div_f", 0.5, |a, b| a / b),
        ("div_fast", 3.0, |a, b| a / b),
        ("pow_f", 5.0, |a, b| a.abs().powf(b)),
        ("fmod_f", 0.0, |a, b| a % b),
    ];
    for (kernel, ulps, f) in two {
        let want = x.iter().zip(&y).map(|(a, b)| f(*a as f64, *b as f64));
        // What overflows single precision is infinite; what is subnormal has an absolute error.
        let want = want.map(|w| if w.abs() > f32::MAX as f64 { f64::INFINITY.copysign(w) } else { w });
        let tolerance = |w: f64| if w.is_finite() { ulps * ulp * w.abs() + ulps * 1.5e-45 } else { 0.0 };
        close(kernel, &run(kernel, &x, Some(&y)), want.map(|w| (w, tolerance(w))));
    }
}
