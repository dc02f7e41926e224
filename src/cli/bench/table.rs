//! What a comparison found, as a table and as JSON.

use super::check::Agreement;
use super::median;
use super::rows::{MEMORY_AIM, MEMORY_MOST, Row};
use serde_json::{Value, json};
use std::fmt::Write;

/// Version of the JSON.
const SCHEMA_VERSION: u32 = 1;

/// A row that was run, or why it was not.
pub struct Compared {
    /// The row, as it was run.
    pub row: Row,
    /// What came of it.
    pub outcome: Result<Measured, String>,
}

/// What two sides did.
pub struct Measured {
    /// Seconds of the runs of each of our turns, and of the peer's turn behind it.
    pub ours: Vec<Vec<f64>>,
    /// See `ours`.
    pub theirs: Vec<Vec<f64>>,
    /// Peak memory of both, where the system says it.
    pub peaks: [Option<u64>; 2],
    /// Bytes of the weights, which both have to hold.
    pub weights: u64,
    /// What each said when it was ready.
    pub ready: [Value; 2],
    /// Share of our sweep's variants that were run.
    pub live_share: Option<f64>,
    /// Whether both found the same.
    pub agreement: Agreement,
}

impl Measured {
    /// The peer's time over ours, of each pair of neighbours: what the machine does meanwhile meets both.
    fn ratios(&self) -> Vec<f64> {
        let (ours, theirs) = (turns(&self.ours), turns(&self.theirs));
        let mut ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| theirs / ours).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    /// Peaks beyond the weights.
    fn beyond(&self) -> Option<[f64; 2]> {
        match self.peaks {
            [Some(ours), Some(theirs)] => {
                // a mapped file may never have been in memory whole
                Some([ours, theirs].map(|peak| peak.saturating_sub(self.weights).max(1) as f64))
            }
            _ => None,
        }
    }

    /// Whether both did the same work and found the same.
    fn same(&self) -> bool {
        self.agreement.same && self.live_share.is_none_or(|share| share == 1.0)
    }

    fn words(&self) -> String {
        match self.live_share {
            Some(share) if share != 1.0 => {
                format!("we ran {:.1} % of the variants; {}", share * 100.0, self.agreement.words)
            }
            _ => self.agreement.words.clone(),
        }
    }
}

/// The interval of the median that sorted `values` give: between the order statistics that hold it with a probability of at
/// least 95 % whatever the distribution (by the sign test), or, of fewer than six values, all of them.
fn around_median(values: &[f64]) -> [f64; 2] {
    let n = values.len();
    let (mut tail, mut term, mut drop) = (0.0, 0.5f64.powi(n as i32), 0);
    // 2 P(Bin(n, 1/2) <= drop) stays within 5 %
    while drop + 1 < n.div_ceil(2) {
        tail += term;
        if 2.0 * tail > 0.05 {
            break;
        }
        term *= (n - drop) as f64 / (drop + 1) as f64;
        drop += 1;
    }
    let cut = drop.saturating_sub(1);
    match (values.get(cut), values.get(n.saturating_sub(1 + cut))) {
        (Some(lo), Some(hi)) => [*lo, *hi],
        _ => [f64::NAN; 2],
    }
}

/// How many of the rows are there, and how many of those are as asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows.
    pub rows: usize,
    /// Rows that were run.
    pub ran: usize,
    /// At least as fast as asked.
    pub fast: usize,
    /// At most as large as asked.
    pub small: usize,
    /// Whose results differ.
    pub differ: usize,
}

/// Counts.
pub fn tally(rows: &[Compared]) -> Tally {
    let mut tally = Tally { rows: rows.len(), ..Tally::default() };
    for compared in rows {
        let Ok(m) = &compared.outcome else { continue };
        tally.ran += 1;
        tally.fast += usize::from(median(&mut m.ratios()) >= compared.row.least);
        tally.small += usize::from(m.beyond().is_some_and(|[ours, theirs]| ours / theirs <= MEMORY_MOST));
        tally.differ += usize::from(!m.same());
    }
    tally
}

/// The median of each turn's runs.
fn turns(seconds: &[Vec<f64>]) -> Vec<f64> {
    seconds.iter().map(|runs| median(&mut runs.clone())).collect()
}

fn milliseconds(seconds: &[Vec<f64>]) -> f64 {
    1e3 * median(&mut turns(seconds))
}

/// For people.
pub fn text(rows: &[Compared], peer: &str) -> String {
    let mut text = format!(
        "{:<30} {:>10} {:>10} {:>6} {:>15} {:>5} {:>4}  {:>7} {:>7} {:>6} {:>4}  result\n",
        "", "ours ms", "theirs ms", "ratio", "interval", "least", "", "MiB", "theirs", "share", ""
    );
    let met = |met: bool| if met { "met" } else { "no" };
    for Compared { row, outcome } in rows {
        let _ = write!(text, "{:<30} ", row.name());
        let m = match outcome {
            Ok(measured) => measured,
            Err(why) => {
                let _ = writeln!(text, "not run: {why}");
                continue;
            }
        };
        let mut ratios = m.ratios();
        let [lo, hi] = around_median(&ratios);
        let ratio = median(&mut ratios);
        let _ = write!(
            text,
            "{:>10.2} {:>10.2} {ratio:>6.2} {:>15} {:>5.1} {:>4}  ",
            milliseconds(&m.ours),
            milliseconds(&m.theirs),
            format!("[{lo:.2}, {hi:.2}]"),
            row.least,
            met(ratio >= row.least),
        );
        let _ = match m.beyond() {
            Some([ours, theirs]) => {
                let mib = |bytes: f64| bytes / f64::from(1 << 20);
                let share = ours / theirs;
                write!(text, "{:>7.0} {:>7.0} {share:>6.2} {:>4}", mib(ours), mib(theirs), met(share <= MEMORY_MOST))
            }
            None => write!(text, "{:>27}", "not known here"),
        };
        let same = if m.same() { "same" } else { "DIFFERS" };
        let _ = writeln!(text, "  {same}: {} ({})", m.words(), m.ready[1]["variant"].as_str().unwrap_or("?"));
        for (variant, why) in m.ready[1]["not_run"].as_object().into_iter().flatten() {
            let _ = writeln!(text, "{:<30} {variant} not run: {}", "", why.as_str().unwrap_or_default());
        }
    }
    let Tally { rows, ran, fast, small, differ } = tally(rows);
    let _ = writeln!(
        text,
        "{ran} of {rows} rows run beside {peer}: {fast} as fast as asked, {small} as small (at most {MEMORY_MOST} of its memory \
         beyond the weights), {differ} with another result"
    );
    text
}

/// For programs: one row.
pub fn row_json(Compared { row, outcome }: &Compared) -> Value {
    let mut out = json!({ "name": row.name(), "job": row.job.name(), "model": row.model, "tap": row.tap, "images": row.images,
        "least": row.least, "aim": row.aim });
    match outcome {
        Err(why) => out["not_run"] = json!(why),
        Ok(m) => {
            let mut ratios = m.ratios();
            let interval = around_median(&ratios);
            let ratio = median(&mut ratios);
            let share = m.beyond().map(|[ours, theirs]| ours / theirs);
            let measured = json!({ "seconds_ours": m.ours, "seconds_theirs": m.theirs, "ratio": ratio, "interval": interval,
                "met": ratio >= row.least, "aim_met": ratio >= row.aim, "peak_bytes": m.peaks, "weights_bytes": m.weights,
                "memory_share": share, "memory_most": MEMORY_MOST, "memory_aim": MEMORY_AIM,
                "memory_met": share.map(|share| share <= MEMORY_MOST), "same": m.same(), "result": m.words(),
                "live_share": m.live_share, "ours": m.ready[0], "theirs": m.ready[1] });
            if let (Value::Object(out), Value::Object(measured)) = (&mut out, measured) {
                out.extend(measured);
            }
        }
    }
    out
}

/// For programs: all of it.
pub fn json(rows: &[Compared], peer: &str) -> Value {
    let Tally { rows: all, ran, fast, small, differ } = tally(rows);
    json!({ "schema_version": SCHEMA_VERSION, "peer": peer, "rows": rows.iter().map(row_json).collect::<Vec<_>>(),
        "tally": { "rows": all, "ran": ran, "fast": fast, "small": small, "differ": differ } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_of_the_median_leaves_out_what_the_sign_test_allows() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        // 2 / 2^5 = 6.3 %: nothing can be left out; 2 / 2^6 = 3.1 %: the ends are the interval
        assert_eq!(around_median(&values[..5]), [1.0, 5.0]);
        assert_eq!(around_median(&values[..6]), [1.0, 6.0]);
        // 2 (1 + 9) / 2^9 = 3.9 %
        assert_eq!(around_median(&values[..9]), [2.0, 8.0]);
        // the usual table: the 6th and the 15th of 20
        assert_eq!(around_median(&values), [6.0, 15.0]);
        assert_eq!(around_median(&values[..1]), [1.0, 1.0]);
        assert!(around_median(&[])[0].is_nan());
    }
}
