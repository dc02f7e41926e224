//! `diff`: whether two runs say the same, effect by effect.

use super::ui;
use crate::error::Error;
use crate::report::diff::{Difference, compare};
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;

/// Flags of `diff`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory of a run
    a: PathBuf,
    /// Directory of the other
    b: PathBuf,
    /// Largest difference of a mean that is none, as a part of the largest mean of its estimand
    #[arg(long, value_name = "SHARE", default_value_t = 1e-4, allow_negative_numbers = true)]
    tolerance: f64,
    /// Results as JSON
    #[arg(long)]
    json: bool,
}

/// Differences that are shown.
const SHOWN: usize = 10;

/// `diff`.
pub fn run(args: Args) -> Result<(), Error> {
    if !(args.tolerance >= 0.0 && args.tolerance.is_finite()) {
        return Err(Error::Usage(format!("--tolerance {}: it is a share, 0 or more", args.tolerance)));
    }
    let found = compare(&args.a, &args.b)?;
    let apart = |d: &&Difference| !(d.size() <= found.limit(d, args.tolerance));
    let beyond: Vec<&Difference> = found.differences.iter().filter(apart).collect();
    let same = beyond.is_empty() && found.only_a.is_empty() && found.only_b.is_empty();
    if args.json {
        let out = json!({ "same": same, "compared": found.differences.len(), "largest": found.largest,
            "tolerance": args.tolerance, "beyond": beyond, "only_a": found.only_a, "only_b": found.only_b });
        ui::print(&format!("{out}\n"))?;
    } else {
        let worst = found.differences.first().map_or(0.0, Difference::size);
        let mut text = format!(
            "compared {} means: largest difference {worst:.1e}, {} beyond {:e} of the largest of their estimand\n",
            found.differences.len(),
            beyond.len(),
            args.tolerance
        );
        for d in beyond.iter().take(SHOWN) {
            let _ = writeln!(text, "  {}: {} and {}", d.what, told(d.a), told(d.b));
        }
        if beyond.len() > SHOWN {
            let _ = writeln!(text, "  and {} more", beyond.len() - SHOWN);
        }
        for (only, run) in [(&found.only_a, &args.a), (&found.only_b, &args.b)] {
            if let Some(first) = only.first() {
                let _ = writeln!(text, "only in {}: {} rows, the first {first}", run.display(), only.len());
            }
        }
        ui::print(&text)?;
    }
    if same { Ok(()) } else { Err(Error::Validation("the runs differ".into())) }
}

fn told(mean: Option<f64>) -> String {
    mean.map_or("not a number".into(), |mean| format!("{mean:+.6e}"))
}
