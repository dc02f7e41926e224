//! PTX text and the containers that carry it.

pub mod ast;
mod constant;
pub mod container;
mod declaration;
mod function;
mod lexer;
mod operand;
mod parser;
mod scope;

pub use parser::{parse, parse_bytes};

/// Text that is not PTX, or says something that has no place in the syntax tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SyntaxError {
    /// Line of the text, from 1.
    pub line: u32,
    /// What was expected, or what is not supported.
    pub what: String,
}
