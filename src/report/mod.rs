//! Outputs of a run: its directory, its manifest, its tables.

pub mod evaluation;
pub mod maps;
pub mod run;
pub mod shards;
pub mod table;
