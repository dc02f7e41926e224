//! y = a x + y with cudarc: compiled at run time, launched, and compared with the host's arithmetic.
//!
//! Runs on whatever device the loader's `libcuda.so.1` has.

use std::error::Error;

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::compile_ptx;

const SOURCE: &str = r#"
extern "C" __global__ void saxpy(float *y, const float *x, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}
"#;

pub fn main() -> Result<(), Box<dyn Error>> {
    let context = CudaContext::new(0)?;
    let stream = context.default_stream();
    let module = context.load_module(compile_ptx(SOURCE)?)?;
    let saxpy = module.load_function("saxpy")?;

    let (a, n) = (2.5f32, 100_000);
    let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let y: Vec<f32> = (0..n).map(|i| (n - i) as f32).collect();
    let device_x = stream.clone_htod(&x)?;
    let mut device_y = stream.clone_htod(&y)?;

    let mut launch = stream.launch_builder(&saxpy);
    launch.arg(&mut device_y).arg(&device_x).arg(&a).arg(&n);
    // SAFETY: the arguments are those of the kernel, which stays within n elements.
    unsafe { launch.launch(LaunchConfig::for_num_elems(n as u32)) }?;

    let sum = stream.clone_dtoh(&device_y)?;
    stream.synchronize()?;
    let wrong = (0..n as usize).filter(|&i| sum[i] != a.mul_add(x[i], y[i])).count();
    println!("{}: {wrong} of {n} elements are wrong", context.name()?);
    if wrong > 0 { Err("saxpy is wrong".into()) } else { Ok(()) }
}
