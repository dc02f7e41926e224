//! Happens-before inside a launch.

/// The global bytes that a launch read and wrote: disjoint, sorted ranges `[start, end)` of device addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Read.
    pub reads: Vec<(u64, u64)>,
    /// Written, by stores or atomics.
    pub writes: Vec<(u64, u64)>,
}
