//! How many blocks of a kernel a streaming multiprocessor holds: the limits of each compute capability (CUDA Programming
//! Guide, "Technical Specifications per Compute Capability") and the calculation of NVIDIA's `cuda_occupancy.h`.

use serde::Serialize;

/// What a streaming multiprocessor of a compute capability has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Compute capability times ten.
    pub sm: u32,
    /// Resident warps.
    pub warps: u32,
    /// Resident blocks.
    pub blocks: u32,
    /// Bytes of shared memory.
    pub shared: usize,
    /// Bytes of shared memory that a block may have if the kernel asks for it with
    /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
    pub shared_optin: usize,
    /// Bytes of shared memory that the driver takes of each block's.
    pub shared_reserved: usize,
    /// Shared memory is given to blocks in multiples of so many bytes.
    pub shared_unit: usize,
}

impl Limits {
    /// 32-bit registers.
    pub const REGISTERS: u32 = 65536;
    /// Registers are given to warps in multiples of so many.
    pub const REGISTER_UNIT: u32 = 256;
    /// Registers of a thread.
    pub const THREAD_REGISTERS: u32 = 255;
    /// Each has its own registers, a quarter of all.
    pub const PARTITIONS: u32 = 4;
    /// Threads of a block.
    pub const BLOCK_THREADS: u32 = 1024;
    /// Bytes of shared memory that a block may have without asking.
    pub const SHARED_DEFAULT: usize = 48 << 10;

    /// Those of a compute capability, times ten: 75, 80, 86, 87, 89 or 90.
    pub fn of(sm: u32) -> Option<Limits> {
        let row = |warps, blocks, shared: usize, reserved: usize, unit| Limits {
            sm,
            warps,
            blocks,
            shared: shared << 10,
            shared_optin: (shared - reserved) << 10,
            shared_reserved: reserved << 10,
            shared_unit: unit,
        };
        Some(match sm {
            75 => row(32, 16, 64, 0, 256),
            80 => row(64, 32, 164, 1, 128),
            86 => row(48, 16, 100, 1, 128),
            87 => row(48, 16, 164, 1, 128),
            89 => row(48, 24, 100, 1, 128),
            90 => row(64, 32, 228, 1, 128),
            _ => return None,
        })
    }
}

/// What keeps more blocks from being resident; the first of these, if several do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitedBy {
    /// Resident warps.
    Warps,
    /// Resident blocks.
    Blocks,
    /// Registers.
    Registers,
    /// Shared memory.
    SharedMemory,
}

/// How full a kernel can make a multiprocessor: the theoretical occupancy, with all memory that can be shared memory used
/// as such.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Occupancy {
    /// Blocks a multiprocessor; 0 if not even one can be launched.
    pub active_blocks: u32,
    /// Their warps.
    pub active_warps: u32,
    /// Of the warps that a multiprocessor can hold.
    pub fraction: f64,
    /// What more blocks would exceed.
    pub limited_by: LimitedBy,
}

impl Occupancy {
    /// That of blocks with so many threads, registers a thread and bytes of shared memory, static and dynamic together.
    /// `None` for a compute capability that [`Limits::of`] does not know, and for no threads.
    pub fn of(sm: u32, threads: u32, registers: u32, shared: usize) -> Option<Occupancy> {
        let limits = Limits::of(sm)?;
        if threads == 0 {
            return None;
        }
        let warps = threads.div_ceil(32);
        let by_warps = if threads > Limits::BLOCK_THREADS { 0 } else { limits.warps / warps };
        let by_registers = if registers > Limits::THREAD_REGISTERS || threads > Limits::BLOCK_THREADS {
            0
        } else if registers == 0 {
            u32::MAX
        } else {
            let of_warp = (registers * 32).next_multiple_of(Limits::REGISTER_UNIT);
            let held = Limits::REGISTERS / Limits::PARTITIONS / of_warp * Limits::PARTITIONS;
            // A launch is refused as if every partition took as many warps of a block as the fullest one.
            let fits = of_warp * warps.next_multiple_of(Limits::PARTITIONS) <= Limits::REGISTERS;
            if fits { held / warps } else { 0 }
        };
        let by_shared = if shared > limits.shared_optin {
            0
        } else {
            let of_block = (shared + limits.shared_reserved).next_multiple_of(limits.shared_unit);
            limits.shared.checked_div(of_block).map_or(u32::MAX, |n| n as u32)
        };
        let (active_blocks, limited_by) = [
            (by_warps, LimitedBy::Warps),
            (limits.blocks, LimitedBy::Blocks),
            (by_registers, LimitedBy::Registers),
            (by_shared, LimitedBy::SharedMemory),
        ]
        .into_iter()
        .min_by_key(|l| l.0)?;
        let active_warps = active_blocks * warps;
        let fraction = f64::from(active_warps) / f64::from(limits.warps);
        Some(Occupancy { active_blocks, active_warps, fraction, limited_by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_nvidias_own() {
        // (sm, threads, registers, shared, blocks): drawn at random and computed with the cuda_occupancy.h of CUDA 13.
        let known = [
            (86, 128, 96, 128, 5),
            (87, 96, 63, 1024, 10),
            (87, 96, 16, 24000, 6),
            (86, 192, 64, 100000, 1),
            (89, 256, 96, 32768, 2),
            (86, 768, 168, 24000, 0),
            (80, 384, 0, 16384, 5),
            (90, 96, 80, 1, 8),
            (87, 128, 80, 128, 6),
            (89, 32, 96, 0, 20),
            (90, 128, 64, 1, 8),
            (89, 384, 32, 32768, 3),
            (75, 256, 128, 166912, 0),
            (80, 512, 255, 49152, 0),
            (80, 1, 40, 49152, 3),
            (87, 768, 0, 49152, 2),
            (87, 384, 64, 128, 2),
            (87, 192, 255, 128, 1),
            (86, 32, 64, 0, 16),
            (86, 192, 63, 24000, 4),
            (90, 1, 32, 49152, 4),
            (86, 96, 16, 65536, 1),
            (87, 128, 63, 16384, 8),
            (89, 1, 255, 232448, 0),
            (86, 256, 40, 100000, 1),
            (86, 1024, 64, 0, 1),
            (86, 192, 80, 65536, 1),
            (86, 768, 0, 1, 2),
            (89, 192, 0, 8192, 8),
            (80, 128, 16, 1, 16),
            (89, 512, 128, 32768, 1),
            (89, 384, 32, 1, 4),
            (89, 512, 80, 1024, 1),
            (90, 768, 168, 16384, 0),
            (89, 96, 32, 16384, 5),
            (89, 96, 32, 32768, 3),
            (89, 512, 255, 0, 0),
            (80, 1, 32, 1024, 32),
            (89, 192, 168, 128, 2),
            (86, 1, 168, 24000, 4),
            (90, 1, 40, 101376, 2),
            (90, 32, 40, 1, 32),
            (80, 512, 64, 128, 2),
            (87, 192, 255, 24000, 1),
            (87, 1024, 16, 232448, 0),
            (75, 256, 40, 65536, 1),
            (86, 96, 16, 232448, 0),
            (89, 192, 80, 101376, 1),
            (89, 768, 96, 32768, 0),
            (86, 192, 63, 1024, 5),
            (80, 128, 168, 101376, 1),
            (87, 384, 40, 232448, 0),
            (75, 96, 168, 65536, 1),
            (80, 192, 64, 100000, 1),
            (90, 32, 40, 24000, 9),
            (86, 768, 64, 100000, 1),
            (75, 32, 0, 101376, 0),
            (80, 256, 168, 232448, 0),
            (80, 1, 64, 0, 32),
            (90, 96, 64, 232448, 1),
            (75, 1, 96, 1024, 16),
            (89, 256, 63, 128, 4),
            (90, 32, 63, 65536, 3),
            (89, 768, 63, 166912, 0),
            (87, 1024, 40, 24000, 1),
            (75, 96, 40, 166912, 0),
            (75, 96, 128, 232448, 0),
            (90, 192, 128, 8192, 2),
            (87, 256, 255, 32768, 1),
            (90, 96, 64, 128, 10),
            (80, 192, 80, 32768, 4),
            (90, 96, 63, 1, 10),
        ];
        for (sm, threads, registers, shared, blocks) in known {
            let got = Occupancy::of(sm, threads, registers, shared).unwrap();
            assert_eq!(got.active_blocks, blocks, "sm_{sm}, {threads} threads, {registers} registers, {shared} bytes");
        }
    }

    #[test]
    fn tells_what_limits() {
        let of = |threads, registers, shared| {
            let o = Occupancy::of(80, threads, registers, shared).unwrap();
            (o.active_warps, o.fraction, o.limited_by)
        };
        assert_eq!(of(1024, 32, 0), (64, 1.0, LimitedBy::Warps));
        assert_eq!(of(32, 32, 0), (32, 0.5, LimitedBy::Blocks));
        assert_eq!(of(256, 128, 0), (16, 0.25, LimitedBy::Registers));
        assert_eq!(of(128, 32, 49152), (12, 0.1875, LimitedBy::SharedMemory));
        assert_eq!(of(1024, 65, 0), (0, 0.0, LimitedBy::Registers));
        assert_eq!(of(32, 32, (163 << 10) + 1), (0, 0.0, LimitedBy::SharedMemory));
        assert_eq!(of(1025, 32, 0).1, 0.0);
    }

    #[test]
    fn anything_can_be_asked() {
        assert_eq!(Occupancy::of(61, 32, 32, 0), None);
        assert_eq!(Occupancy::of(80, 0, 32, 0), None);
        for sm in [75, 90] {
            assert_eq!(Occupancy::of(sm, u32::MAX, u32::MAX, usize::MAX).map(|o| o.active_blocks), Some(0));
        }
    }
}
