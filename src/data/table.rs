//! Reading tables and lists of a data set: bounded, with the line in every error. Called by [`super::manifest`] and
//! [`super::nih`].

use std::io::Read;
use std::path::Path;

use super::DataError;
use crate::text::nearest;

/// Longest table that is read, in bytes: NIH's has 8 MB.
const TABLE_BYTES_MAX: u64 = 1 << 28;

/// A table's text, in UTF-8, without the mark that some editors put in front.
///
/// # Errors
/// [`DataError::Io`]; [`DataError::Layout`] for one that is too long or no text.
pub fn text(file: &Path) -> Result<String, DataError> {
    let io = |doing: &'static str| move |reason| DataError::Io { file: file.to_owned(), doing, reason };
    let wrong = |reason: String| DataError::Layout { path: file.to_owned(), reason };
    let about = std::fs::metadata(file).map_err(io("find it"))?;
    if !about.is_file() {
        return Err(wrong("it is not a regular file".into()));
    }
    let mut bytes = Vec::new();
    let open = std::fs::File::open(file).map_err(io("open it"))?;
    open.take(TABLE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io("read it"))?;
    if bytes.len() as u64 > TABLE_BYTES_MAX {
        return Err(wrong(format!("it has more than {TABLE_BYTES_MAX} bytes, which no table of images has")));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        wrong(format!("line {line} is not UTF-8: save it as UTF-8"))
    })?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

/// A row: its line, from 1, and its fields.
pub type Row = (u64, Vec<String>);

/// The rows of a CSV, the header first; fields without the blanks around them. Rows may differ in length: the caller
/// judges that.
///
/// # Errors
/// [`DataError::Row`] where the text is no CSV, or empty.
pub fn csv_rows(file: &Path) -> Result<Vec<Row>, DataError> {
    let text = text(file)?;
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| {
            let line = e.position().map_or(0, csv::Position::line);
            DataError::Row { file: file.to_owned(), line, reason: format!("it is no CSV ({e})") }
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        rows.push((line, record.iter().map(str::to_owned).collect()));
    }
    if rows.is_empty() {
        return Err(DataError::Row { file: file.to_owned(), line: 1, reason: "it is empty".into() });
    }
    Ok(rows)
}

/// Position of the column called `name` in a header.
///
/// # Errors
/// [`DataError::Row`] names the columns there are, and the nearest.
pub fn column(file: &Path, (line, header): &Row, name: &str) -> Result<usize, DataError> {
    header.iter().position(|h| h == name).ok_or_else(|| {
        let hint = nearest(name, header.iter().map(String::as_str))
            .map_or_else(String::new, |n| format!(" (or is it `{n}`?)"));
        let there: String = header.join(", ").chars().take(300).collect();
        let reason = format!("there is no column `{name}`{hint}; the columns are {there}");
        DataError::Row { file: file.to_owned(), line: *line, reason }
    })
}
