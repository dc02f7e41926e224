//! What published figures of a chip let a kernel reach at best: an estimate, never a measurement.

use super::sass::MainLoop;
use crate::backend::problems::Cost;

/// A chip as its maker describes it.
#[derive(Clone, Copy, Debug)]
pub struct Chip {
    /// Its name.
    pub name: &'static str,
    /// Peak of f32 outside of tensor cores, floating-point operations a second.
    pub flops: f64,
    /// Peak of tensor cores in tf32, without sparsity.
    pub tf32: f64,
    /// The same in f16 and bf16 with sums in f32.
    pub half: f64,
    /// Bytes of memory a second.
    pub bandwidth: f64,
    /// FFMA lanes of a scheduler, which issues one warp instruction a cycle.
    lanes: usize,
    /// Where the figures are from.
    pub source: &'static str,
}

/// The chips of the estimates.
pub const CHIPS: [Chip; 3] = [
    Chip {
        name: "A100",
        flops: 19.5e12,
        tf32: 156e12,
        half: 312e12,
        bandwidth: 1555e9,
        lanes: 16,
        source: "NVIDIA A100 40 GB data sheet; 64 FP32 lanes an SM: GA100 white paper",
    },
    Chip {
        name: "H100",
        flops: 67e12,
        tf32: 494.5e12,
        half: 989.5e12,
        bandwidth: 3350e9,
        lanes: 32,
        source: "NVIDIA H100 SXM data sheet; 128 FP32 lanes an SM: GH100 white paper",
    },
    Chip {
        name: "RTX 4090",
        flops: 82.6e12,
        tf32: 82.6e12,
        half: 165.2e12,
        bandwidth: 1008e9,
        lanes: 32,
        source: "NVIDIA Ada white paper, appendix A; 128 FP32 lanes an SM",
    },
];

/// What a problem's time cannot be below, and for which reason.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Seconds.
    pub seconds: f64,
    /// `memory`, `FFMA`, `HMMA`, or `issue`: the other instructions of the loop.
    pub bound: &'static str,
}

impl Chip {
    /// The larger of the times that memory and arithmetic take. The main loop's other instructions take issue slots, which
    /// FFMAs leave free on a chip with 16 lanes a scheduler and not with 32. Of tensor cores it knows the peak alone.
    pub fn estimate(&self, cost: Cost, main_loop: Option<&MainLoop>) -> Estimate {
        let memory = Estimate { seconds: cost.bytes as f64 / self.bandwidth, bound: "memory" };
        let mut arithmetic = Estimate { seconds: cost.flops as f64 / self.flops, bound: "FFMA" };
        if let Some(main_loop) = main_loop.filter(|_| cost.flops > 0) {
            let busy = main_loop.count(&["FFMA"]) * 32 / self.lanes;
            let tensor = [("HMMA.TF32", self.tf32), ("HMMA", self.half)];
            if let Some((_, peak)) = tensor.into_iter().find(|(opcode, _)| main_loop.count(&[opcode]) > 0) {
                arithmetic = Estimate { seconds: cost.flops as f64 / peak, bound: "HMMA" };
            } else if busy > 0 && main_loop.instructions() > busy {
                arithmetic.seconds *= main_loop.instructions() as f64 / busy as f64;
                arithmetic.bound = "issue";
            }
        }
        if arithmetic.seconds > memory.seconds { arithmetic } else { memory }
    }

    /// Of launches that follow each other, of which the main loop is that of those which multiply: the sum of their times,
    /// and the bound of the longest.
    pub fn estimate_all(&self, launches: &[Cost], main_loop: Option<&MainLoop>) -> Option<Estimate> {
        let each: Vec<Estimate> = launches.iter().map(|&cost| self.estimate(cost, main_loop)).collect();
        let longest = each.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds))?;
        Some(Estimate { seconds: each.iter().map(|e| e.seconds).sum(), bound: longest.bound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::problems::{LAYERS, Pass, Problem, Work};
    use crate::backend::winograd::{OPERATIONS_A_BYTE, Winograd};

    #[test]
    fn the_slower_of_memory_and_arithmetic_decides() {
        let [a100, h100, _] = CHIPS;
        let mix = |ffma: usize, lds: usize| MainLoop {
            mix: [("FFMA".to_string(), ffma), ("LDS".to_string(), lds)].into_iter().collect(),
        };
        let work = Cost { flops: 19_500_000_000, bytes: 1_555_000 };
        let rounded = |e: Estimate| (e.bound, (e.seconds * 1e6).round());
        let of = |chip: Chip, mix: &MainLoop| rounded(chip.estimate(work, Some(mix)));
        assert_eq!(of(a100, &mix(100, 50)), ("FFMA", 1000.0));
        assert_eq!(of(a100, &mix(100, 200)), ("issue", 1500.0));
        assert_eq!(of(h100, &mix(100, 100)), ("issue", 582.0));
        let copy = Cost { flops: 0, bytes: 1_555_000_000 };
        assert_eq!(a100.estimate(copy, None), Estimate { seconds: 1e-3, bound: "memory" });
        let tensor = |opcode: &str| MainLoop { mix: [(opcode.to_string(), 8)].into_iter().collect() };
        assert_eq!(of(a100, &tensor("HMMA.TF32")), ("HMMA", 125.0));
        assert_eq!(rounded(a100.estimate(Cost { bytes: 0, ..work }, Some(&tensor("HMMA")))), ("HMMA", 63.0));
        let both = a100.estimate_all(&[work, copy], Some(&mix(100, 50))).map(|e| (e.bound, (e.seconds * 1e6).round()));
        assert!(both.is_some_and(|(_, microseconds)| microseconds == 2000.0), "{both:?}");
    }

    /// What decides for Winograd's tiles is the first chip's.
    #[test]
    fn the_choice_of_a_convolutions_path_is_by_a_published_chip() {
        let [a100, _, _] = CHIPS;
        assert!((a100.flops / a100.bandwidth - OPERATIONS_A_BYTE).abs() < 0.05);
    }

    /// By published peaks and memory alone: a gain on an A100 where it serves, and on an H100 from 256 channels on.
    #[test]
    fn tiles_are_estimated_to_be_faster_where_they_serve() {
        for layer in LAYERS {
            let Some(tiles) = Winograd::of(&layer.shape) else { continue };
            let plain = Problem::new("", layer.gpu_rows, Work::Conv(Pass::Forward, layer.shape)).cost();
            for chip in CHIPS {
                let of = |launches: &[Cost]| chip.estimate_all(launches, None).map_or(f64::NAN, |e| e.seconds);
                let gain = of(&[plain]) / of(&tiles.costs(&layer.shape, layer.gpu_rows));
                println!("{} on {}: estimated {gain:.2} times as fast", layer.name, chip.name);
                let expected = chip.name == "A100" || (layer.shape.c.min(layer.shape.o) >= 256 && chip.name == "H100");
                assert!(gain > 1.0 || !expected, "{} on {}: {gain}", layer.name, chip.name);
            }
        }
    }
}
