//! The table of effects, a row an image, node and input: `effects.parquet`, `effects.csv`, or both, the same cells in either.

mod columns;
mod text;

use super::run::SCHEMA_VERSION;
use super::table::Labels;
use crate::causal::CausalError;
use crate::causal::analysis::responses;
use crate::causal::intervention::NodeSet;
use crate::causal::study::Shard;
use crate::data::NO_LABEL;
use crate::error::Error;
use crate::model::Head;
use crate::tensor::argmax;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The table in Parquet.
pub const PARQUET: &str = "effects.parquet";
/// The table in CSV.
pub const CSV: &str = "effects.csv";

/// Which files hold the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// [`PARQUET`]: typed columns, a tenth of the other's size.
    #[default]
    Parquet,
    /// [`CSV`].
    Csv,
    /// Both.
    Both,
}

impl Form {
    /// Left out of configurations, which say what is usual nowhere.
    pub fn is_parquet(&self) -> bool {
        *self == Form::Parquet
    }
}

/// What the cells of a column are, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U32,
    U64,
    F32,
    F64,
    /// Of texts and numbers that many rows share.
    Text,
}

/// What stands in a row under a column: nothing where it does not apply, is unknown, or is not a number.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell<'a> {
    Nothing,
    U32(u32),
    U64(u64),
    F32(f32),
    F64(f64),
    Text(&'a str),
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        if text.is_empty() { Cell::Nothing } else { Cell::Text(text) }
    }
}

impl From<Option<f32>> for Cell<'_> {
    fn from(number: Option<f32>) -> Self {
        number.map_or(Cell::Nothing, Cell::F32)
    }
}

impl From<f64> for Cell<'_> {
    fn from(number: f64) -> Self {
        if number.is_finite() { Cell::F64(number) } else { Cell::Nothing }
    }
}

const WIDTH: usize = 24;

/// The columns. `predicted` is the host's class on that input; `ece_*` are weighted with p_idle, so total = recon + node; `flag`
/// is `dead` where the node is all zero on the image (its effect is exactly 0), `nan` where a number is missing.
const COLUMNS: [(&str, Kind); WIDTH] = [
    ("schema_version", Kind::U32),
    ("run_id", Kind::Text),
    ("image_id", Kind::U64),
    ("patient_id", Kind::Text),
    ("split", Kind::Text),
    ("condition", Kind::Text),
    ("input", Kind::Text),
    ("eps", Kind::F32),
    ("mask_fraction", Kind::F32),
    ("mask_index", Kind::U32),
    ("tap", Kind::Text),
    ("node", Kind::Text),
    ("label", Kind::U32),
    ("predicted", Kind::U32),
    ("p_orig_label", Kind::F64),
    ("p_idle_label", Kind::F64),
    ("p_do_label", Kind::F64),
    ("p_orig_predicted", Kind::F64),
    ("p_idle_predicted", Kind::F64),
    ("p_do_predicted", Kind::F64),
    ("ece_node", Kind::F64),
    ("ece_recon", Kind::F64),
    ("ece_total", Kind::F64),
    ("flag", Kind::Text),
];

/// What the rows of a shard are made with.
struct Table<'a> {
    head: Head,
    classes: usize,
    labels: &'a Labels,
    /// Names of the sets of nodes.
    nodes: Vec<String>,
}

/// Writes the table into `directory`, of shards that hold outcomes of `sets` each, as files of that form.
///
/// # Errors
/// [`Error::Write`] with the path, also when shards are inconsistent.
pub fn write(
    directory: &Path,
    form: Form,
    shards: &[Shard],
    sets: &[NodeSet],
    (head, classes): (Head, usize),
    labels: &Labels,
) -> Result<(), Error> {
    let nodes = sets.iter().map(|set| labels.node(set)).collect();
    let table = Table { head, classes, labels, nodes };
    let groups = groups(shards, sets.len());
    if form != Form::Csv {
        columns::write(&directory.join(PARQUET), &table, &groups)?;
    }
    if form != Form::Parquet {
        text::write(&directory.join(CSV), &table, &groups)?;
    }
    Ok(())
}

/// Rows from which on a group of shards is written: some 60 MB at once in memory, here and in who reads Parquet.
const GROUP_ROWS: usize = 1 << 17;

/// Shards in groups, by their rows alone: the same run has the same groups, and with them the same bytes.
fn groups(mut shards: &[Shard], sets: usize) -> Vec<&[Shard]> {
    let mut groups = Vec::new();
    while !shards.is_empty() {
        let mut rows = 0;
        let more = |shard: &&Shard| {
            let goes_on = rows < GROUP_ROWS;
            rows += shard.ids.len() * shard.answers.len() * sets;
            goes_on
        };
        let (group, rest) = shards.split_at(shards.iter().take_while(more).count());
        groups.push(group);
        shards = rest;
    }
    groups
}

impl Table<'_> {
    /// Hands every row of a shard to `take`, in the order of the table.
    fn rows(&self, shard: &Shard, take: &mut dyn FnMut([Cell<'_>; WIDTH])) -> Result<(), CausalError> {
        let Table { head, classes, labels, nodes } = self;
        for (i, (&id, &label)) in shard.ids.iter().zip(&shard.labels).enumerate() {
            let patient = labels.patients.get(shard.first + i).map_or("", String::as_str);
            for a in &shard.answers {
                let r = responses(a, i, nodes.len(), *head, *classes)?;
                let predicted = argmax(r.p_orig());
                // no class is past the last
                let class = predicted.unwrap_or(usize::MAX);
                let at = |p: &[f64], c: usize| Cell::from(p.get(c).copied().unwrap_or(f64::NAN));
                for (n, node) in nodes.iter().enumerate() {
                    let split = r.split(n)?;
                    let q = r.p_zeroed(n)?;
                    let flag = if !(split.node.is_finite() && split.recon.is_finite()) {
                        "nan"
                    } else if a.logits.live.get(i * nodes.len() + n) == Some(&false) {
                        "dead"
                    } else {
                        ""
                    };
                    take([
                        Cell::U32(SCHEMA_VERSION),
                        labels.run_id.as_str().into(),
                        Cell::U64(id),
                        patient.into(),
                        labels.split.as_str().into(),
                        a.input.condition().into(),
                        a.input.name().into(),
                        a.input.eps().into(),
                        a.fraction.get(i).copied().into(),
                        Cell::U32(a.mask),
                        labels.tap.as_str().into(),
                        node.as_str().into(),
                        if label == NO_LABEL { Cell::Nothing } else { Cell::U32(label) },
                        predicted.map_or(Cell::Nothing, |class| Cell::U32(class as u32)),
                        at(r.p_orig(), label as usize),
                        at(r.p_idle(), label as usize),
                        at(&q, label as usize),
                        at(r.p_orig(), class),
                        at(r.p_idle(), class),
                        at(&q, class),
                        split.node.into(),
                        split.recon.into(),
                        split.total.into(),
                        flag.into(),
                    ]);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::fill::Fill;
    use crate::causal::mask::Region;
    use crate::causal::study::{Answers, Input};
    use crate::causal::sweep::Logits;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{Field, Row};

    /// One image, clean and masked, of two classes and two nodes; of the second node an outcome is not a number.
    fn shard(first: usize, id: u64, label: u32) -> Shard {
        let answers = [
            (Input::None, vec![]),
            (Input::Pwm { masks: 1, fill: Fill::Value(0.0), region: Region::Grid10 }, vec![0.1]),
        ]
        .map(|(input, fraction)| {
            let logits = Logits {
                orig: vec![1.0, -0.5],
                idle: vec![0.7, 0.3 + first as f32],
                done: vec![0.25, 1e-3, f32::NAN, 0.0],
                live: vec![false, true],
            };
            Answers { input, mask: 0, fraction, logits }
        });
        Shard { first, ids: vec![id], labels: vec![label], answers: answers.into() }
    }

    fn labels() -> Labels {
        Labels {
            run_id: "0123".into(),
            arch: "net".into(),
            tap: "features.1".into(),
            ae_hash8: "89abcdef".into(),
            split: "test".into(),
            patients: vec!["a, \"b\"".into(), String::new()],
        }
    }

    fn written(cell: Field) -> String {
        match cell {
            Field::Null => String::new(),
            Field::UInt(x) => x.to_string(),
            Field::ULong(x) => x.to_string(),
            Field::Float(x) => x.to_string(),
            Field::Double(x) => format!("{x:?}"),
            Field::Str(x) => x,
            other => panic!("no column is of that type: {other:?}"),
        }
    }

    #[test]
    fn both_files_have_the_same_cells_and_the_same_rows_are_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let shards = [shard(0, u64::MAX, NO_LABEL), shard(1, 7, 1)];
        let labels = labels();
        let table = Table { head: Head::Softmax, classes: 2, labels: &labels, nodes: vec!["n0".into(), "n1".into()] };
        let [parquet, again, csv] = ["a.parquet", "b.parquet", "a.csv"].map(|name| dir.path().join(name));
        let groups = [&shards[..1], &shards[1..]];
        columns::write(&parquet, &table, &groups).unwrap();
        columns::write(&again, &table, &groups).unwrap();
        text::write(&csv, &table, &groups).unwrap();
        assert!(std::fs::read(&parquet).unwrap() == std::fs::read(&again).unwrap());

        let file = SerializedFileReader::new(std::fs::File::open(&parquet).unwrap()).unwrap();
        assert_eq!((file.num_row_groups(), file.metadata().file_metadata().num_rows()), (2, 8));
        let cells = |row: Row| row.into_columns().into_iter().map(|(_, cell)| written(cell)).collect::<Vec<_>>();
        let ours: Vec<Vec<String>> = file.get_row_iter(None).unwrap().map(|row| cells(row.unwrap())).collect();
        let mut reader = csv::Reader::from_path(&csv).unwrap();
        let head: Vec<&str> = file.metadata().file_metadata().schema().get_fields().iter().map(|f| f.name()).collect();
        assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), head);
        let text: Vec<Vec<String>> =
            reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
        assert_eq!(ours, text);
        assert_eq!(&ours[0][2..4], ["18446744073709551615", "a, \"b\""]);
        assert_eq!((ours[0][12].as_str(), ours[0][23].as_str(), ours[2][8].as_str()), ("", "dead", "0.1"));
        assert_eq!((ours[5][20].as_str(), ours[5][23].as_str(), ours[5][12].as_str()), ("", "nan", "1"));
    }

    #[test]
    fn a_group_ends_with_the_shard_that_fills_it() {
        let shards: Vec<Shard> = (0..5).map(|i| shard(i, 0, 0)).collect();
        let sizes = |sets: usize| groups(&shards, sets).iter().map(|group| group.len()).collect::<Vec<_>>();
        // two rows a set and shard
        assert_eq!(sizes(1), [5]);
        assert_eq!(sizes(GROUP_ROWS / 4), [2, 2, 1]);
        assert_eq!(sizes(GROUP_ROWS), [1; 5]);
        assert!(groups(&[], 1).is_empty());
    }

    #[test]
    fn shards_that_do_not_hold_what_is_asked_for_are_an_error_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let sets = [NodeSet::of(&[0], 4).unwrap()];
        for form in [Form::Parquet, Form::Csv] {
            let classes = (Head::Softmax, 3);
            let found = write(dir.path(), form, &[shard(0, 0, 0)], &sets, classes, &labels());
            assert!(matches!(found, Err(Error::Write(_))), "{found:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
