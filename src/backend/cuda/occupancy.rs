//! How many blocks of a kernel a multiprocessor holds at once, by the published limits of each compute capability (CUDA C++
//! Programming Guide, "Technical Specifications per Compute Capability").

/// What a multiprocessor has.
struct Chip {
    sm: u32,
    warps: u32,
    blocks: u32,
    /// Kilobytes of shared memory.
    shared: u32,
}

/// 32-bit registers, of any of these chips: a quarter for each of its four schedulers.
const REGISTERS: u32 = 65_536;
const SCHEDULERS: u32 = 4;
/// Registers are given to warps in multiples of so many.
const REGISTER_UNIT: u32 = 256;

const fn chip(sm: u32, warps: u32, blocks: u32, shared: u32) -> Chip {
    Chip { sm, warps, blocks, shared }
}

const CHIPS: [Chip; 7] = [
    chip(75, 32, 16, 64),
    chip(80, 64, 32, 164),
    chip(86, 48, 16, 100),
    chip(87, 48, 16, 164),
    chip(89, 48, 24, 100),
    chip(90, 64, 32, 228),
    chip(100, 64, 32, 228),
];

/// What keeps more blocks away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Warps that a multiprocessor holds.
    Warps,
    /// Blocks that it holds.
    Blocks,
    /// Registers.
    Registers,
    /// Shared memory.
    Shared,
}

impl Limit {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Warps => "warps",
            Limit::Blocks => "blocks",
            Limit::Registers => "registers",
            Limit::Shared => "shared",
        }
    }
}

/// How full a kernel makes a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Blocks at once.
    pub blocks: u32,
    /// Their warps.
    pub warps: u32,
    /// Warps that the multiprocessor can hold.
    pub warps_max: u32,
    /// What more blocks would exceed.
    pub limit: Limit,
}

/// That of blocks of so many threads, with so many registers a thread and bytes of shared memory a block.
pub(super) fn of(sm: u32, threads: u32, registers: u32, shared: u32) -> Option<Occupancy> {
    let chip = CHIPS.iter().find(|c| c.sm == sm)?;
    let warps = threads.div_ceil(32).max(1);
    let of_warp = (registers.max(1) * 32).next_multiple_of(REGISTER_UNIT);
    let held = REGISTERS / SCHEDULERS / of_warp * SCHEDULERS;
    // sm_80 and later keep a kilobyte of each block's for themselves
    let (reserved, unit) = if sm == 75 { (0, 256) } else { (1024, 128) };
    let of_block = (shared + reserved).next_multiple_of(unit);
    let limits = [
        (chip.warps / warps, Limit::Warps),
        (chip.blocks, Limit::Blocks),
        (held / warps, Limit::Registers),
        ((chip.shared << 10).checked_div(of_block).unwrap_or(u32::MAX), Limit::Shared),
    ];
    let (blocks, limit) = limits.into_iter().min_by_key(|l| l.0)?;
    Some(Occupancy { blocks, warps: blocks * warps, warps_max: chip.warps, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_those_of_nvidias_calculator() {
        // sm, threads, registers, shared memory; blocks by the cuda_occupancy.h of CUDA 13
        let known = [
            (86, 128, 96, 128, 5),
            (87, 96, 63, 1024, 10),
            (89, 256, 96, 32768, 2),
            (80, 128, 16, 1, 16),
            (89, 384, 32, 1, 4),
            (90, 96, 80, 1, 8),
            (86, 192, 63, 24000, 4),
            (80, 192, 80, 32768, 4),
            (90, 32, 40, 24000, 9),
            (75, 256, 40, 65536, 1),
        ];
        for (sm, threads, registers, shared, blocks) in known {
            let got = of(sm, threads, registers, shared).map(|o| o.blocks);
            assert_eq!(got, Some(blocks), "sm_{sm}, {threads} threads, {registers} registers, {shared} bytes");
        }
        assert_eq!(of(61, 32, 32, 0), None);
        let [warps, blocks, registers, shared] = [(1024, 32, 0), (32, 32, 0), (256, 128, 0), (128, 32, 49152)]
            .map(|(threads, registers, shared)| of(80, threads, registers, shared).map(|o| o.limit));
        assert_eq!(
            [warps, blocks, registers, shared].map(Option::unwrap),
            [Limit::Warps, Limit::Blocks, Limit::Registers, Limit::Shared]
        );
    }
}
