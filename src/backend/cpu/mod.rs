//! The CPU backend's kernels: pure functions over `f32` slices, activations dense NHWC ("channels last").
//!
//! Nothing here knows of graphs. Callers validate lengths (the functions only `debug_assert!` them); every result is
//! the same to the bit whatever the thread count, and an image's result whatever its neighbours in the batch.

pub mod conv;
mod conv_narrow;
pub mod conv_weight;
pub mod gemm;
pub mod intervene;
pub mod isa;
pub mod packed;
pub mod pointwise;
pub mod pool;
mod program;
mod rows;
mod scratch;
mod tile;
mod vector;

pub use program::Cpu;
