//! `kernels/optimizer.cu`: Adam an op at a time, and for many tensors in one launch.

use super::{Elements, Floats, FloatsMut, Grid, Queue, THREADS, expect, narrow};
use crate::backend::BackendError;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct AdamArguments {
    p: u64,
    m: u64,
    v: u64,
    g: u64,
    rate: u64,
    y: u64,
    quads: u32,
    tail: u32,
    keep: f32,
    mix: f32,
    epsilon: f32,
    unused: u32,
}
const _: () = assert!(size_of::<AdamArguments>() == 72, "as in optimizer.cu");

/// beta and 1 - beta as the kernels take them: 1 - beta is rounded once, as PyTorch does it.
fn betas(beta: f64) -> (f32, f32) {
    (beta as f32, (1.0 - beta) as f32)
}

/// y = m + (1 - beta)(g - m).
pub(in crate::backend::cuda) fn adam_mean(
    q: &Queue,
    beta: f64,
    m: Floats<'_>,
    g: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "adam_mean";
    let (keep, mix) = betas(beta);
    let arguments = AdamArguments { m: m.pointer(), g: g.pointer(), keep, mix, ..Default::default() };
    // SAFETY: this kernel reads m and g.
    unsafe { elementwise(q, KERNEL, &[("m", m), ("g", g)], y, arguments) }
}

/// y = beta v + (1 - beta) g².
pub(in crate::backend::cuda) fn adam_square(
    q: &Queue,
    beta: f64,
    v: Floats<'_>,
    g: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "adam_square";
    let (keep, mix) = betas(beta);
    let arguments = AdamArguments { v: v.pointer(), g: g.pointer(), keep, mix, ..Default::default() };
    // SAFETY: this kernel reads v and g.
    unsafe { elementwise(q, KERNEL, &[("v", v), ("g", g)], y, arguments) }
}

/// y = p - rate\[0\] / rate\[1\] · m / (sqrt(v) / sqrt(rate\[2\]) + epsilon).
pub(in crate::backend::cuda) fn adam_step(
    q: &Queue,
    epsilon: f64,
    p: Floats<'_>,
    m: Floats<'_>,
    v: Floats<'_>,
    rate: Floats<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "adam_step";
    expect(KERNEL, "rate", rate.len(), 3)?;
    let arguments = AdamArguments {
        p: p.pointer(),
        m: m.pointer(),
        v: v.pointer(),
        rate: rate.pointer(),
        epsilon: epsilon as f32,
        ..Default::default()
    };
    // SAFETY: this kernel reads p, m, v and the rate.
    unsafe { elementwise(q, KERNEL, &[("p", p), ("m", m), ("v", v)], y, arguments) }
}

/// # Safety
/// Of the elementwise operands `kernel` reads those in `inputs` alone, and `arguments` has their addresses.
unsafe fn elementwise(
    q: &Queue,
    kernel: &'static str,
    inputs: &[(&str, Floats<'_>)],
    y: FloatsMut<'_>,
    arguments: AdamArguments,
) -> Result<(), BackendError> {
    for (name, input) in inputs {
        expect(kernel, name, input.len(), y.len())?;
    }
    let pointers = [arguments.p, arguments.m, arguments.v, arguments.g, y.pointer()];
    let elements = Elements::new(kernel, y.len(), &pointers)?;
    let Elements { quads, tail } = elements;
    let arguments = AdamArguments { y: y.pointer(), quads, tail, ..arguments };
    // SAFETY: the argument is the kernel's; what it reads has the elements of y, the rest is the caller's.
    unsafe { q.launch(kernel, elements.grid(), [THREADS as u32, 1], 0, arguments) }
}

/// A parameter with its moments and gradient, and where their successors go.
pub(in crate::backend::cuda) struct AdamTensor<'a> {
    pub p: Floats<'a>,
    pub m: Floats<'a>,
    pub v: Floats<'a>,
    pub g: Floats<'a>,
    pub next_p: FloatsMut<'a>,
    pub next_m: FloatsMut<'a>,
    pub next_v: FloatsMut<'a>,
}

/// Tensors of one launch: as many as 4 KB of kernel parameters hold.
const TENSORS: usize = 59;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct AdamTensorArguments {
    p: u64,
    m: u64,
    v: u64,
    g: u64,
    next_p: u64,
    next_m: u64,
    next_v: u64,
    quads: u32,
    tail: u32,
}
const _: () = assert!(size_of::<AdamTensorArguments>() == 64, "as in optimizer.cu");

#[repr(C)]
#[derive(Clone, Copy)]
struct AdamFusedArguments {
    rate: u64,
    mean_mix: f32,
    square_keep: f32,
    square_fresh: f32,
    epsilon: f32,
    tensors: u32,
    first_block: [u32; TENSORS],
    tensor: [AdamTensorArguments; TENSORS],
}
const _: () = assert!(size_of::<AdamFusedArguments>() == 4040, "as in optimizer.cu");

/// [`adam_mean`], [`adam_square`] and [`adam_step`] of all tensors, to the bit, in one launch for every 59 of them.
pub(in crate::backend::cuda) fn adam_fused(
    q: &Queue,
    tensors: &[AdamTensor<'_>],
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    rate: Floats<'_>,
) -> Result<(), BackendError> {
    const KERNEL: &str = "adam_fused";
    expect(KERNEL, "rate", rate.len(), 3)?;
    let ((_, mean_mix), (square_keep, square_fresh)) = (betas(beta1), betas(beta2));
    for chunk in tensors.chunks(TENSORS) {
        let mut arguments = AdamFusedArguments {
            rate: rate.pointer(),
            mean_mix,
            square_keep,
            square_fresh,
            epsilon: epsilon as f32,
            tensors: chunk.len() as u32,
            first_block: [0; TENSORS],
            tensor: [AdamTensorArguments::default(); TENSORS],
        };
        let mut grid: Grid = [0, 1, 1];
        for (i, tensor) in chunk.iter().enumerate() {
            let entry = tensor.arguments(KERNEL)?;
            arguments.first_block[i] = narrow(KERNEL, "a number of blocks", grid[0])?;
            arguments.tensor[i] = entry;
            grid[0] += Elements { quads: entry.quads, tail: entry.tail }.grid()[0];
        }
        // SAFETY: the argument is the kernel's; all seven values of a tensor have 4 · quads + tail elements.
        unsafe { q.launch(KERNEL, grid, [THREADS as u32, 1], 0, arguments)? }
    }
    Ok(())
}

impl AdamTensor<'_> {
    fn arguments(&self, kernel: &'static str) -> Result<AdamTensorArguments, BackendError> {
        let n = self.p.len();
        let read = [("m", self.m.len()), ("v", self.v.len()), ("g", self.g.len())];
        let written = [("p'", self.next_p.len()), ("m'", self.next_m.len()), ("v'", self.next_v.len())];
        for (name, len) in read.into_iter().chain(written) {
            expect(kernel, name, len, n)?;
        }
        let [p, m, v, g] = [self.p, self.m, self.v, self.g].map(|x| x.pointer());
        let [next_p, next_m, next_v] = [&self.next_p, &self.next_m, &self.next_v].map(|y| y.pointer());
        let Elements { quads, tail } = Elements::new(kernel, n, &[p, m, v, g, next_p, next_m, next_v])?;
        Ok(AdamTensorArguments { p, m, v, g, next_p, next_m, next_v, quads, tail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::isa::Isa;
    use crate::backend::cpu::pointwise;
    use crate::random::Stream;
    use cudarc::driver::CudaSlice;

    /// The values of one tensor: p, m, v, g and room for p', m', v'.
    type Values<T> = [T; 7];

    fn values(n: usize, tensor: usize) -> Values<Vec<f32>> {
        let stream = Stream::new(tensor as u64, "adam");
        std::array::from_fn(|which| {
            let value = |i: u32| stream.uniform(which as u64, i) * 2.0 - 1.0;
            // v is a mean of squares
            (0..n as u32).map(|i| if which == 2 { value(i).powi(2) } else { value(i) }).collect()
        })
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn the_fused_step_has_the_bits_of_the_separate_ones_and_of_the_cpu() {
        let q = Queue::for_tests();
        let (beta1, beta2, epsilon) = (0.9, 0.999, 1e-8);
        let rate = [1e-3f32, 1.0 - 0.9f32.powi(3), 1.0 - 0.999f32.powi(3)];
        let rate_there = q.upload(&rate);
        // one launch, a full one, several
        for count in [1, 2, TENSORS, TENSORS + 1, 2 * TENSORS + 7] {
            let lengths: Vec<usize> = (0..count).map(|i| [1, 1024, 3, 2049, 4, 1023, 70][i % 7] + i / 7).collect();
            let host: Vec<Values<Vec<f32>>> = lengths.iter().enumerate().map(|(i, &n)| values(n, i)).collect();
            let mut there: Vec<Values<CudaSlice<f32>>> =
                host.iter().map(|t| t.each_ref().map(|x| q.upload(x))).collect();
            let mut table = Vec::new();
            for [p, m, v, g, next_p, next_m, next_v] in &mut there {
                let [p, m, v, g] = [&*p, m, v, g].map(|x| q.floats(x));
                let [next_p, next_m, next_v] = [next_p, next_m, next_v].map(|x| q.floats_mut(x));
                table.push(AdamTensor { p, m, v, g, next_p, next_m, next_v });
            }
            adam_fused(&q, &table, beta1, beta2, epsilon, q.floats(&rate_there)).unwrap();
            drop(table);
            for ([p, m, v, g, ..], there) in host.iter().zip(&mut there) {
                let fused: Vec<Vec<u32>> = there[4..].iter().map(|x| bits(&q.download(x))).collect();
                let [tp, tm, tv, tg, next_p, next_m, next_v] = there;
                adam_mean(&q, beta1, q.floats(tm), q.floats(tg), q.floats_mut(next_m)).unwrap();
                adam_square(&q, beta2, q.floats(tv), q.floats(tg), q.floats_mut(next_v)).unwrap();
                let (m2, v2, rate2) = (q.floats(next_m), q.floats(next_v), q.floats(&rate_there));
                adam_step(&q, epsilon, q.floats(tp), m2, v2, rate2, q.floats_mut(next_p)).unwrap();
                let separate: Vec<Vec<u32>> = [next_p, next_m, next_v].iter().map(|x| bits(&q.download(x))).collect();
                assert_eq!(fused, separate, "{} elements", p.len());

                let isa = Isa::available()[0];
                let (mut cpu_p, mut cpu_m, mut cpu_v) = (p.clone(), m.clone(), v.clone());
                pointwise::adam_mean(isa, beta1, m, g, &mut cpu_m);
                pointwise::adam_square(isa, beta2, v, g, &mut cpu_v);
                let step = pointwise::AdamRate {
                    learning_rate: rate[0],
                    correction_mean: rate[1],
                    correction_square: rate[2],
                    epsilon: epsilon as f32,
                };
                pointwise::adam_step(isa, step, p, &cpu_m, &cpu_v, &mut cpu_p);
                let cpu: Vec<Vec<u32>> = [cpu_p, cpu_m, cpu_v].iter().map(|x| bits(x)).collect();
                assert_eq!(fused, cpu, "{} elements", p.len());
            }
        }
    }
}
