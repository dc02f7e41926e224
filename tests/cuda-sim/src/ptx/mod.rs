//! PTX text and the containers that carry it.

pub mod ast;
