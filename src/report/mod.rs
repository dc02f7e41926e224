//! Outputs of a run: its directory, its manifest, its tables.

pub mod adversarial;
pub mod breakdown;
pub mod claim;
pub mod diff;
pub mod effects;
pub mod evaluation;
pub mod gallery;
pub mod maps;
pub mod nodes;
pub mod page;
pub mod part;
pub mod refuters;
pub mod run;
pub mod scores;
pub mod seeds;
pub mod shards;
pub mod table;
