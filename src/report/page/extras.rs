//! Tables of one figure a node that a run was asked for beside its effects: `screen.csv`, `shapley.csv`, `interactions.csv`.

use super::chart;
use super::files::{Run, node_number};
use super::shown::{bracketed, ends, short};
use crate::error::Error;
use crate::text::escaped;
use std::fmt::Write;
use std::path::Path;

/// Rows of a table on the page: of more, those with the largest figures.
const ROWS: usize = 20;

/// What is known of such a table.
struct Kind {
    file: &'static str,
    /// Columns of the figure and of what stands beside it.
    columns: [&'static str; 2],
    /// Their heads on the page.
    heads: [&'static str; 2],
    title: &'static str,
    told: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind {
        file: "screen.csv",
        columns: ["first_order", "exact"],
        heads: ["first order", "exact"],
        title: "First-order effects beside exact ones",
        told: "What the gradient at the code says that zeroing the node would do (attribution patching), and what it does.",
    },
    Kind {
        file: "shapley.csv",
        columns: ["shapley", "ece_alone"],
        heads: ["Shapley value", "effect alone"],
        title: "Shapley values",
        told: "Each node's share of the effect of zeroing all, over many orders of zeroing them; beside it the effect of zeroing the \
               node alone.",
    },
    Kind {
        file: "interactions.csv",
        columns: ["interaction", "ece_together"],
        heads: ["only together", "effect together"],
        title: "Pairs of nodes",
        told: "What zeroing two nodes together does beyond what zeroing each does; beside it the whole effect of the pair.",
    },
];

/// A row of such a table.
struct Figure {
    node: String,
    value: Option<f64>,
    ends: Option<(f64, f64)>,
    n: String,
    beside: Option<f64>,
}

/// A table as it was read.
pub struct Extra {
    kind: &'static Kind,
    rows: Vec<Figure>,
}

/// Those of the tables that are in `directory`.
///
/// # Errors
/// [`Error::Input`] for one that is not what it should be.
pub fn read(directory: &Path) -> Result<Vec<Extra>, Error> {
    let mut found = Vec::new();
    for kind in &KINDS {
        let path = directory.join(kind.file);
        if !path.exists() {
            continue;
        }
        let wrong = |reason: String| Error::Input { path: path.clone(), reason: format!("cannot be read: {reason}") };
        let mut reader = csv::Reader::from_path(&path).map_err(|e| wrong(e.to_string()))?;
        let head = reader.headers().map_err(|e| wrong(e.to_string()))?.clone();
        let column = |name: &str| {
            head.iter().position(|own| own == name).ok_or_else(|| wrong(format!("it has no column {name}")))
        };
        let [node, lo, hi, n] = [column("node")?, column("ci_lo")?, column("ci_hi")?, column("n")?];
        let [value, beside] = [column(kind.columns[0])?, column(kind.columns[1])?];
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|e| wrong(e.to_string()))?;
            let text = |at: usize| record.get(at).unwrap_or_default();
            // empty where there is none
            let number = |at: usize| text(at).parse::<f64>().ok().filter(|v| v.is_finite());
            rows.push(Figure {
                node: text(node).into(),
                value: number(value),
                ends: ends(number(lo), number(hi)),
                n: text(n).into(),
                beside: number(beside),
            });
        }
        found.push(Extra { kind, rows });
    }
    Ok(found)
}

/// The sections of those tables.
pub fn extras(run: &Run) -> String {
    run.extras.iter().map(section).collect()
}

fn section(extra: &Extra) -> String {
    let Extra { kind, rows } = extra;
    let size = |row: &Figure| row.value.map_or(0.0, f64::abs);
    let mut shown: Vec<&Figure> = rows.iter().collect();
    let mut left = String::new();
    if rows.len() > ROWS {
        shown.sort_by(|a, b| size(b).total_cmp(&size(a)));
        shown.truncate(ROWS);
        left = format!(" Of {} rows these are the {ROWS} largest; {} has all.", rows.len(), kind.file);
    }
    let edge = |row: &&Figure| row.ends.map_or(size(row), |(lo, hi)| lo.abs().max(hi.abs()));
    let largest = shown.iter().map(edge).fold(1e-12, f64::max);
    let mut body = String::new();
    for row in shown {
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{} <small>{}</small></td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(node_number(&row.node)),
            row.value.map_or("not a number".into(), short),
            bracketed(row.ends),
            chart::interval(row.value, row.ends, (-largest, largest), 0.0),
            row.beside.map_or("-".into(), short),
            escaped(&row.n)
        );
    }
    format!(
        "<section>\n<h2>{}</h2>\n<p>{} Means over clean images.{left}</p>\n<div class=\"scroll\"><table><thead><tr><th>node</th>\
         <th>{}</th><th>{} to {}</th><th>{}</th><th>n</th></tr></thead><tbody>{body}</tbody></table></div>\n</section>\n",
        kind.title,
        kind.told,
        kind.heads[0],
        short(-largest),
        short(largest),
        kind.heads[1]
    )
}
