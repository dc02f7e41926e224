//! What the simulated device counts in launches: it has no clock, and these numbers repeat to the digit.

use super::device::device_error;
use crate::backend::BackendError;
use cudarc::driver::sys::{self, CUresult};
use serde_json::Value;
use std::collections::BTreeMap;

/// Counts of all launches of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Launches.
    pub launches: u64,
    /// Instructions of warps.
    pub warp_instructions: u64,
    /// Instructions of active lanes.
    pub lane_instructions: u64,
    /// Fused multiply-adds of lanes.
    pub fma: u64,
    /// Multiply-accumulates of tensor cores.
    pub tensor_macs: u64,
    /// 32-byte sectors of global memory that warps touched, a request at a time.
    pub sectors: u64,
    /// Bytes of global memory that lanes asked for.
    pub bytes: u64,
    /// Wavefronts of shared memory that the same bytes need at least.
    pub wavefronts: u64,
    /// Those beyond: bank conflicts.
    pub conflicts: u64,
}

impl Counts {
    /// Adds another kernel's.
    pub fn add(&mut self, other: &Counts) {
        self.launches += other.launches;
        self.warp_instructions += other.warp_instructions;
        self.lane_instructions += other.lane_instructions;
        self.fma += other.fma;
        self.tensor_macs += other.tensor_macs;
        self.sectors += other.sectors;
        self.bytes += other.bytes;
        self.wavefronts += other.wavefronts;
        self.conflicts += other.conflicts;
    }

    /// Instructions of lanes for each multiply-add, in tensor cores or not.
    pub fn lanes_per_fma(&self) -> Option<f64> {
        let macs = self.fma + self.tensor_macs;
        (macs > 0).then(|| self.lane_instructions as f64 / macs as f64)
    }
}

type Answer = unsafe extern "C" fn(*mut u8, *mut usize) -> CUresult;
type Reset = unsafe extern "C" fn() -> CUresult;

/// Runs `job`, which ends with a wait for its launches, and returns what each kernel did in it; nothing where the driver is no
/// simulated one. Other threads' launches would be counted, too.
pub(super) fn counted(
    job: impl FnOnce() -> Result<(), BackendError>,
) -> Result<BTreeMap<String, Counts>, BackendError> {
    // SAFETY: the driver is loaded (the caller has a device); where the symbols exist they are these functions. The second call
    // has the room that the first asked for.
    unsafe {
        let (Ok(answer), Ok(reset)) =
            (sys::culib().get::<Answer>(b"cuSimCounters\0"), sys::culib().get::<Reset>(b"cuSimReset\0"))
        else {
            job()?;
            return Ok(BTreeMap::new());
        };
        let fail = |e| device_error("asking for counters", e);
        reset().result().map_err(fail)?;
        job()?;
        let mut length = 0;
        answer(std::ptr::null_mut(), &mut length).result().map_err(fail)?;
        let mut text = vec![0; length];
        answer(text.as_mut_ptr(), &mut length).result().map_err(fail)?;
        let record: Value = serde_json::from_slice(&text[..length.saturating_sub(1)]).unwrap_or_default();
        let kernels = record["kernels"].as_object().into_iter().flatten();
        Ok(kernels.map(|(name, total)| (name.clone(), counts(total))).collect())
    }
}

/// From the JSON of a kernel's total.
fn counts(c: &Value) -> Counts {
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    let both = |what: &str, field: &str| {
        ["load", "store"].iter().map(|way| number(&c[format!("{what}_{way}")][field])).sum::<u64>()
    };
    let instructions = |of: &str| {
        c["instructions"].as_object().into_iter().flatten().map(|(_, class)| number(&class[of])).sum::<u64>()
    };
    Counts {
        launches: number(&c["launches"]),
        warp_instructions: instructions("warps"),
        lane_instructions: instructions("lanes"),
        fma: number(&c["fma"]),
        tensor_macs: number(&c["tensor_macs"]),
        sectors: both("global", "sectors"),
        bytes: both("global", "bytes"),
        wavefronts: both("shared", "ideal"),
        conflicts: both("shared", "wavefronts") - both("shared", "ideal"),
    }
}
