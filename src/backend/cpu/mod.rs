//! The CPU backend's kernels: pure functions over `f32` slices, activations dense NHWC ("channels last").
//!
//! Only `program` knows of graphs: it puts each step of a plan onto a kernel. The register tiles read and write through
//! raw pointers, so every public function asserts the lengths of its slices (a planned graph cannot break them). Every
//! result is the same to the bit whatever the thread count, and an image's result whatever its neighbours in the batch.

pub mod conv;
mod conv_narrow;
pub mod conv_weight;
pub mod gemm;
pub mod intervene;
pub mod isa;
mod norm;
pub mod packed;
pub mod peak;
pub mod pointwise;
pub mod pool;
mod program;
mod rows;
mod scratch;
mod tile;
mod vector;

pub use program::Cpu;
