//! `intervene`: which concept inside a trained vision network causes which answer.

pub mod atomic;
pub mod backend;
pub mod causal;
pub mod cli;
pub mod data;
pub mod digest;
pub mod error;
pub mod graph;
pub mod model;
pub mod random;
pub mod report;
pub mod tensor;
pub mod text;
pub mod train;
pub mod weights;
