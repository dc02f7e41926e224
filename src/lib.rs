//! `intervene`: which concept inside a trained vision network causes which answer.

pub mod backend;
pub mod random;
pub mod tensor;
