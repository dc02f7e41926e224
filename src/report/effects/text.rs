//! `effects.csv`: numbers in shortest round-trip form, nothing where there is none.

use super::{COLUMNS, Cell, Table};
use crate::atomic::{WriteError, write_atomic};
use crate::causal::CausalError;
use crate::causal::study::Shard;
use crate::report::table::{number, quoted};
use rayon::prelude::*;
use std::fmt::Write;
use std::path::Path;

/// Writes the table, a group of shards at a time.
pub fn write(path: &Path, table: &Table<'_>, groups: &[&[Shard]]) -> Result<(), WriteError> {
    write_atomic(path, |file| {
        writeln!(file, "{}", COLUMNS.map(|(name, _)| name).join(","))?;
        for group in groups {
            let texts: Result<Vec<String>, CausalError> = group.par_iter().map(|shard| rows(table, shard)).collect();
            texts.map_err(std::io::Error::other)?.iter().try_for_each(|text| file.write_all(text.as_bytes()))?;
        }
        Ok(())
    })
}

fn rows(table: &Table<'_>, shard: &Shard) -> Result<String, CausalError> {
    let mut text = String::new();
    table.rows(shard, &mut |row| {
        for (k, cell) in row.into_iter().enumerate() {
            if k > 0 {
                text.push(',');
            }
            // writing to a String cannot fail
            let _ = match cell {
                Cell::Nothing => Ok(()),
                Cell::U32(x) => write!(text, "{x}"),
                Cell::U64(x) => write!(text, "{x}"),
                Cell::F32(x) => write!(text, "{x}"),
                Cell::F64(x) => text.write_str(&number(x)),
                Cell::Text(x) => text.write_str(&quoted(x)),
            };
        }
        text.push('\n');
    })?;
    Ok(text)
}
