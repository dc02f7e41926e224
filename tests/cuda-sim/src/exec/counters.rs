//! What is counted in a launch, without a clock: it repeats to the digit.

use std::collections::BTreeMap;

use crate::lanes::Class;

/// The counts of one launch.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Counters {
    /// Warp instructions and lane instructions (those of active lanes) by class.
    pub instructions: BTreeMap<Class, Count>,
    /// Fused multiply-adds of lanes, in any precision but tensor cores.
    pub fma: u64,
    /// Multiply-accumulates of `mma` and `wmma`.
    pub tensor_macs: u64,
    /// Warp-wide requests to global memory, and the 32-byte sectors that they touch.
    pub global_load: Traffic,
    /// As for loads; atomics and reductions count as stores.
    pub global_store: Traffic,
    /// Warp-wide requests to shared memory, and the wavefronts (passes over the banks) that they need.
    pub shared_load: Banks,
    /// As for loads.
    pub shared_store: Banks,
    /// Barriers that whole blocks passed.
    pub barriers: u64,
    /// Branches that a warp's lanes took different ways.
    pub divergent_branches: u64,
    /// All branches, by warps.
    pub branches: u64,
}

/// Instructions of a class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub struct Count {
    pub warps: u64,
    pub lanes: u64,
}

/// Global traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traffic {
    /// Warp instructions.
    pub requests: u64,
    /// 32-byte sectors.
    pub sectors: u64,
    /// Bytes that lanes asked for.
    pub bytes: u64,
}

/// Shared traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Banks {
    /// Warp instructions.
    pub requests: u64,
    /// Passes over the 32 banks; `wavefronts - ideal` is what conflicts cost.
    pub wavefronts: u64,
    /// Wavefronts that the same bytes need at best.
    pub ideal: u64,
    /// Bytes that lanes asked for.
    pub bytes: u64,
}
impl Counters {
    /// tmp
    pub fn merge(&mut self, o: &Counters) {
        for (k, v) in &o.instructions {
            let e = self.instructions.entry(*k).or_default();
            e.warps += v.warps;
            e.lanes += v.lanes;
        }
        self.fma += o.fma;
        self.tensor_macs += o.tensor_macs;
    }
}
/// tmp
pub fn sectors(_m: u32, _a: &[u64; 32], _b: u32) -> u32 {
    0
}
/// tmp
pub fn wavefronts(_m: u32, _a: &[u64; 32], _b: u32) -> (u32, u32) {
    (0, 0)
}
