//! `intervene`: which concept inside a trained vision network causes which answer.

pub mod backend;
pub mod causal;
pub mod graph;
pub mod model;
pub mod random;
pub mod tensor;
pub mod text;
