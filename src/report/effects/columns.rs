//! `effects.parquet`: a row group for each group of shards, every column typed, null where there is nothing, compressed with
//! Snappy (in Rust alone, and every reader has it). What many rows share is a dictionary. The same rows are the same bytes: no
//! time and no version of a library is in the file.

use super::{COLUMNS, Cell, Kind, Table};
use crate::atomic::{WriteError, write_atomic};
use crate::causal::CausalError;
use crate::causal::study::Shard;
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, Type};
use rayon::prelude::*;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Columns in which nearly every row has a number of its own: a dictionary of them would be as long as they are.
const OWN: [&str; 4] = ["p_do_label", "p_do_predicted", "ece_node", "ece_total"];

/// Writes the table, a group of shards at a time.
pub fn write(path: &Path, table: &Table<'_>, groups: &[&[Shard]]) -> Result<(), WriteError> {
    write_atomic(path, |file| {
        let schema = Arc::new(schema().map_err(reason)?);
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties())).map_err(reason)?;
        for group in groups {
            let shards: Result<Vec<Vec<Column>>, CausalError> = group.par_iter().map(|s| columns(table, s)).collect();
            row_group(&mut writer, &shards.map_err(io::Error::other)?).map_err(reason)?;
        }
        writer.close().map(|_| ()).map_err(reason)
    })
}

/// The system's own error where there is one, as of a full disk.
fn reason(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(inner) => io::Error::other(inner),
        },
        other => io::Error::other(other),
    }
}

fn properties() -> WriterProperties {
    let usual = WriterProperties::builder()
        .set_created_by(concat!("intervene version ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(Compression::SNAPPY);
    let own = |properties: parquet::file::properties::WriterPropertiesBuilder, name: &&str| {
        properties.set_column_dictionary_enabled(ColumnPath::from(*name), false)
    };
    OWN.iter().fold(usual, own).build()
}

fn schema() -> Result<Type, ParquetError> {
    let fields = COLUMNS.iter().map(|&(name, kind)| {
        let (physical, logical) = match kind {
            Kind::U32 => (Physical::INT32, Some(LogicalType::integer(32, false))),
            Kind::U64 => (Physical::INT64, Some(LogicalType::integer(64, false))),
            Kind::F32 => (Physical::FLOAT, None),
            Kind::F64 => (Physical::DOUBLE, None),
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let field = Type::primitive_type_builder(name, physical).with_logical_type(logical);
        field.with_repetition(Repetition::OPTIONAL).build().map(Arc::new)
    });
    Type::group_type_builder("effects").with_fields(fields.collect::<Result<_, _>>()?).build()
}

fn row_group<W: io::Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    shards: &[Vec<Column>],
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    for k in 0..COLUMNS.len() {
        let Some(mut column) = group.next_column()? else { break };
        shards.iter().filter_map(|columns| columns.get(k)).try_for_each(|part| part.write(column.untyped()))?;
        column.close()?;
    }
    group.close().map(|_| ())
}

/// A column of some rows.
struct Column {
    values: Values,
    /// 1 for a row with a value, 0 for one without: Parquet's definition levels.
    present: Vec<i16>,
}

enum Values {
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Text(Vec<ByteArray>),
}

fn columns(table: &Table<'_>, shard: &Shard) -> Result<Vec<Column>, CausalError> {
    let mut columns = COLUMNS.map(|(_, kind)| Column::new(kind));
    table.rows(shard, &mut |row| columns.iter_mut().zip(row).for_each(|(column, cell)| column.push(cell)))?;
    Ok(columns.into())
}

impl Column {
    fn new(kind: Kind) -> Column {
        let values = match kind {
            Kind::U32 => Values::I32(Vec::new()),
            Kind::U64 => Values::I64(Vec::new()),
            Kind::F32 => Values::F32(Vec::new()),
            Kind::F64 => Values::F64(Vec::new()),
            Kind::Text => Values::Text(Vec::new()),
        };
        Column { values, present: Vec::new() }
    }

    /// Adds a row. A cell that is not the column's kind leaves a row without its value, which no writer takes.
    fn push(&mut self, cell: Cell<'_>) {
        self.present.push(i16::from(cell != Cell::Nothing));
        match (&mut self.values, cell) {
            // an unsigned number has the bits of the signed one that Parquet stores
            (Values::I32(values), Cell::U32(x)) => values.push(x as i32),
            (Values::I64(values), Cell::U64(x)) => values.push(x as i64),
            (Values::F32(values), Cell::F32(x)) => values.push(x),
            (Values::F64(values), Cell::F64(x)) => values.push(x),
            (Values::Text(values), Cell::Text(x)) => {
                // most rows have the text of the row before, and share it
                let same = values.last().filter(|last| last.data() == x.as_bytes()).cloned();
                values.push(same.unwrap_or_else(|| x.into()));
            }
            _ => {}
        }
    }

    fn write(&self, writer: &mut ColumnWriter<'_>) -> Result<(), ParquetError> {
        let present = Some(&self.present[..]);
        match (&self.values, writer) {
            (Values::I32(values), ColumnWriter::Int32ColumnWriter(writer)) => writer.write_batch(values, present, None),
            (Values::I64(values), ColumnWriter::Int64ColumnWriter(writer)) => writer.write_batch(values, present, None),
            (Values::F32(values), ColumnWriter::FloatColumnWriter(writer)) => writer.write_batch(values, present, None),
            (Values::F64(values), ColumnWriter::DoubleColumnWriter(writer)) => {
                writer.write_batch(values, present, None)
            }
            (Values::Text(values), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                writer.write_batch(values, present, None)
            }
            _ => return Err(ParquetError::General("a column is not of the type that the schema says".into())),
        }
        .map(|_| ())
    }
}
