//! `intervene`: which concept inside a trained vision network causes which answer.

pub mod causal;
pub mod random;
pub mod tensor;
