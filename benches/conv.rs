//! GFLOP/s of the convolution kernels, forward and both gradients, as a share of the FMA peak of the same process.
//!
//! `cargo bench --bench conv [-- FILTER]`. Best of repeats, kernels and peak measured in turn: on a shared machine the
//! minimum time is the one figure that other processes disturb least. Weights are packed beforehand.

use std::time::Instant;

use intervene::backend::cpu::conv;
use intervene::backend::cpu::conv_weight;
use intervene::backend::cpu::isa::Isa;
use intervene::backend::cpu::peak;
use intervene::backend::layout::ConvShape;
use intervene::backend::problems::LAYERS;
use intervene::graph::op::Activation;

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
            let rates = [flops / forward, flops / grad, flops / weight, peak::fma_rate(isa)];
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
