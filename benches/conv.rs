//! GFLOP/s of the convolution kernels, forward and both gradients, as a share of the FMA peak of the same process.
//!
//! `cargo bench --bench conv [-- FILTER]`. Best of repeats, kernels and peak measured in turn: on a shared machine the
//! minimum time is the one figure that other processes disturb least. Weights are packed beforehand.

use std::hint::black_box;
use std::time::Instant;

use intervene::backend::cpu::conv;
use intervene::backend::cpu::conv_weight;
use intervene::backend::cpu::isa::{self, Isa};
use intervene::backend::layout::ConvShape;
use intervene::backend::problems::LAYERS;
use intervene::graph::op::Activation;

const CHAINS: usize = 24;
const STEPS: usize = 40_000;

/// `STEPS` rounds of FMAs on independent registers, in assembly: the compiler's own allocation of 24 chains spilled and
/// showed half the peak. Twelve chains per ymm/zmm set exceed latency 4 x 2 ports.
#[cfg(target_arch = "x86_64")]
macro_rules! chains {
    ($kind:literal, $rounds:expr, $($n:literal)*) => {
        // SAFETY: register arithmetic only, every register declared; the caller checked the instruction set.
        unsafe {
            std::arch::asm!(
                "2:",
                $(concat!("vfmadd231ps ", $kind, $n, ", ", $kind, "14, ", $kind, "15"),)*
                "dec {rounds}",
                "jnz 2b",
                rounds = inout(reg) $rounds => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                inout("xmm14") 0.999f32 => _, inout("xmm15") 0.001f32 => _,
                options(nomem, nostack),
            )
        }
    };
}

/// Runs independent FMA chains on one thread; returns the floating point operations done.
fn chains(isa: Isa) -> f64 {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        isa::Level::Avx512 => chains!("zmm", 2 * STEPS, "0" "1" "2" "3" "4" "5" "6" "7" "8" "9" "10" "11"),
        #[cfg(target_arch = "x86_64")]
        isa::Level::Avx2 => chains!("ymm", 4 * STEPS, "0" "1" "2" "3" "4" "5" "6" "7" "8" "9" "10" "11"),
        _ => {
            let (mut acc, x, y) = ([1.0f32; 32], black_box(0.999f32), black_box(0.001f32));
            for _ in 0..12 * STEPS {
                acc.iter_mut().for_each(|a| *a = *a * x + y);
            }
            black_box(acc);
        }
    }
    2.0 * (CHAINS * STEPS * 16) as f64
}

fn seconds(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}

struct Case {
    shape: ConvShape,
    rows: usize,
    x: Vec<f32>,
    gy: Vec<f32>,
    w: Vec<f32>,
}

/// Best GFLOP/s of [forward, input gradient, weight gradient] and of the peak.
fn measure(isa: Isa, case: &Case, pool: &rayon::ThreadPool) -> [f64; 4] {
    let s = &case.shape;
    let (mut y, mut gx, mut dw) = (case.gy.clone(), case.x.clone(), case.w.clone());
    let (packed, back) = (conv::pack_forward(isa, s, &case.w), conv::pack_grad_input(isa, s, &case.w));
    let flops = (s.flops() * case.rows) as f64;
    // At least 5 repeats and about a quarter of a second of each kernel at 100 GFLOP/s.
    let repeats = ((2.5e10 / flops) as usize).clamp(5, 200);
    let mut best = [0.0f64; 4];
    for _ in 0..repeats {
        pool.install(|| {
            let forward = seconds(|| conv::forward(s, case.rows, &case.x, &packed, None, Activation::Relu, &mut y));
            let grad = seconds(|| conv::grad_input(s, case.rows, &case.gy, &back, &mut gx));
            let weight = seconds(|| conv_weight::grad_weight(isa, s, case.rows, &case.x, &case.gy, &mut dw));
            let mut done = 0.0;
            let peak = seconds(|| done = rayon::broadcast(|_| chains(isa)).iter().sum());
            let rates = [flops / forward, flops / grad, flops / weight, done / peak];
            best.iter_mut().zip(rates).for_each(|(best, rate)| *best = best.max(rate / 1e9));
        });
    }
    best
}

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let isas = if filter.is_empty() { vec![Isa::detect()] } else { Isa::available() };
    for isa in isas {
        println!("{:?}; GFLOP/s (share of FMA peak), best of repeats", isa.level());
        println!(
            "{:<32} {:>4} {:>3}  {:>12} {:>12} {:>12} {:>7}",
            "layer", "rows", "thr", "forward", "grad x", "grad w", "peak"
        );
        for layer in LAYERS.iter().filter(|l| l.name.contains(&filter)) {
            let (shape, rows) = (layer.shape, layer.cpu_rows);
            let ramp = |n: usize| (0..n).map(|i| ((i * 37) % 101) as f32 * 0.01 - 0.5).collect::<Vec<f32>>();
            let case = Case {
                shape,
                rows,
                x: ramp(rows * shape.x_len()),
                gy: ramp(rows * shape.y_len()),
                w: ramp(shape.w_len()),
            };
            for threads in [1, 2] {
                let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(threads).build() else { continue };
                let [forward, grad, weight, peak] = measure(isa, &case, &pool);
                let show = |rate: f64| format!("{rate:.0} ({:.0} %)", 100.0 * rate / peak);
                println!(
                    "{:<32} {:>4} {:>3}  {:>12} {:>12} {:>12} {:>7.0}",
                    layer.name,
                    rows,
                    threads,
                    show(forward),
                    show(grad),
                    show(weight),
                    peak
                );
            }
        }
    }
}
