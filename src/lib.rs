//! `intervene`: which concept inside a trained vision network causes which answer.

pub mod atomic;
pub mod data;
pub mod digest;
pub mod random;
pub mod tensor;
pub mod weights;
