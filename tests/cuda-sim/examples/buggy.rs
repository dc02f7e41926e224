//! A sum of each block's elements in shared memory, with a mistake: between the steps nobody waits.
//!
//! The result is often right all the same. A checker tells why it need not be.

use std::error::Error;

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};

const SOURCE: &str = r#"
extern "C" __global__ void block_sums(float *sums, const float *x) {
    __shared__ float part[256];
    part[threadIdx.x] = x[blockIdx.x * 256 + threadIdx.x];
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        // __syncthreads() is missing here
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = part[0];
}
"#;

pub fn main() -> Result<(), Box<dyn Error>> {
    let context = CudaContext::new(0)?;
    let stream = context.default_stream();
    // Line information, so that a report can name lines of the source.
    let options = CompileOptions {
        name: Some("block_sums.cu".into()),
        options: vec!["--generate-line-info".into()],
        ..Default::default()
    };
    let module = context.load_module(compile_ptx_with_opts(SOURCE, options)?)?;
    let block_sums = module.load_function("block_sums")?;

    let blocks = 4;
    let x = stream.clone_htod(&vec![1.0f32; 256 * blocks as usize])?;
    let mut sums = stream.alloc_zeros::<f32>(blocks as usize)?;

    let mut launch = stream.launch_builder(&block_sums);
    launch.arg(&mut sums).arg(&x);
    let shape = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the arguments are those of the kernel, and the shape is the one that it is written for.
    unsafe { launch.launch(shape) }?;

    let sums = stream.clone_dtoh(&sums)?;
    stream.synchronize()?;
    println!("{sums:?}");
    Ok(())
}
