//! Judging: what a framework expected against what we computed, one line a tensor, and the report of them all. A NaN on
//! our side fails every rule.

use super::quantity::{Quantity, Rule};
use serde::Serialize;
use std::fmt::Write;

/// How a comparison ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Within its tolerance.
    Pass,
    /// Outside of it.
    Fail,
    /// The folder does not hold what a comparison needs.
    NotChecked,
}

/// One tensor's comparison. Numbers that a rule does not make are NaN, null in JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The tensor, without `expect.`.
    pub name: String,
    /// Largest expected magnitude.
    pub largest: f64,
    /// Largest difference.
    pub difference: f64,
    /// What is compared with the tolerance: mostly the difference over the magnitude.
    pub relative: f64,
    /// The tolerance.
    pub tolerance: f64,
    /// Relative over tolerance.
    pub used: f64,
    /// How it ended.
    pub verdict: Verdict,
    /// What the numbers do not say: flipped switches, steps, what is missing.
    pub note: Option<String>,
}

/// All comparisons of a folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// In the order of [`Quantity`].
    pub tensors: Vec<Line>,
    /// How many were compared.
    pub checked: usize,
    /// How many expectations the folder has.
    pub of: usize,
    /// The first tensor outside of its tolerance: up to there the two runs agree.
    pub parted_at: Option<String>,
}

/// Largest of the magnitudes, NaN where one is.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.map(f64::abs).fold(0.0, |most: f64, v| if most.is_nan() || v <= most { most } else { v })
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

/// Rounding a probability near 1 to f32, twice: what is left of an effect that is 0.
const ZERO_EFFECT: f64 = 1.2e-7;

/// Compares `got` with `want` by the quantity's rule, widened by `factor`.
pub fn close(quantity: Quantity, want: &[f32], got: &[f64], factor: f64) -> Line {
    let pairs = || want.iter().zip(got).map(|(&w, &g)| (f64::from(w), g));
    let magnitude = largest(want.iter().map(|&w| f64::from(w)));
    // a number that is missing is as wrong as one that is not a number
    let difference = if want.len() == got.len() { largest(pairs().map(|(w, g)| g - w)) } else { f64::NAN };
    let relative = if difference == 0.0 { 0.0 } else { difference / magnitude };
    let tolerance = match quantity.rule().widened(factor) {
        Rule::Close(close) | Rule::Gradient { close, .. } => close,
        Rule::Steps { share, .. } => share,
        Rule::FreeRun(loss) => loss,
    };
    let line = |relative: f64, tolerance: f64, note: Option<String>| Line {
        name: quantity.name(),
        largest: magnitude,
        difference,
        relative,
        tolerance,
        used: if relative == 0.0 { 0.0 } else { relative / tolerance },
        verdict: if relative <= tolerance { Verdict::Pass } else { Verdict::Fail },
        note,
    };
    let plain = line(relative, tolerance, None);
    if plain.verdict == Verdict::Pass || want.len() != got.len() {
        return plain;
    }
    match quantity.rule().widened(factor) {
        Rule::Gradient { norm: within, .. } => {
            let apart = norm(pairs().map(|(w, g)| g - w)) / norm(pairs().map(|(w, _)| w));
            let note = format!("largest {relative:.1e}: switches flipped, so relative L2 norm");
            line(apart, within, Some(note))
        }
        Rule::Close(_) if magnitude == 0.0 && matches!(quantity, Quantity::Effect | Quantity::Ece) => {
            let note = "all that is expected is 0: the difference itself".to_string();
            line(difference, ZERO_EFFECT * factor, Some(note))
        }
        _ => plain,
    }
}

/// Share of pixels that a step puts elsewhere than `want`; `None` of a quantity that is no attack's steps.
pub fn elsewhere(quantity: Quantity, want: &[f32], got: &[f64], factor: f64) -> Option<f64> {
    let Rule::Steps { pixel, .. } = quantity.rule().widened(factor) else { return None };
    let there = want.iter().zip(got).filter(|(w, g)| (*g - f64::from(**w)).abs() <= pixel).count();
    Some((want.len() - there) as f64 / want.len() as f64)
}

/// Steps from each iterate of `path` against the next one: `stepped` holds what a step from every iterate but the last
/// gives. `start_off` is the share of pixels of the first iterate that are not where an attack may begin.
pub fn steps(quantity: Quantity, path: &[f32], stepped: &[f64], start_off: f64, factor: f64) -> Line {
    let image = path.len().saturating_sub(stepped.len());
    let after = path.get(image..).unwrap_or_default();
    let Rule::Steps { pixel, share } = quantity.rule().widened(factor) else {
        return close(quantity, after, stepped, factor);
    };
    let apart = |(&w, &g): (&f32, &f64)| g - f64::from(w);
    let off = |(want, got): (&[f32], &[f64])| elsewhere(quantity, want, got, factor).unwrap_or(f64::NAN);
    let shares: Vec<f64> = after.chunks(image.max(1)).zip(stepped.chunks(image.max(1))).map(off).collect();
    let worst = largest(shares.iter().copied().chain([start_off]));
    let count = shares.len();
    let start = if start_off > 0.0 {
        format!("; {:.3} % of the start is not where it may be", 100.0 * start_off)
    } else {
        String::new()
    };
    Line {
        name: quantity.name(),
        largest: largest(path.iter().map(|&w| f64::from(w))),
        difference: largest(after.iter().zip(stepped).map(apart)),
        relative: worst,
        tolerance: share,
        used: if worst == 0.0 { 0.0 } else { worst / share },
        verdict: if worst <= share { Verdict::Pass } else { Verdict::Fail },
        note: Some(format!(
            "share of pixels more than {pixel:.0e} off after a step from a given iterate, the worst of {count}{start}"
        )),
    }
}

/// A free run judged by its final loss: `want` and `got` are losses an image.
pub fn free_run(quantity: Quantity, want: &[f64], got: &[f64], factor: f64, note: String) -> Line {
    let want: Vec<f32> = want.iter().map(|&v| v as f32).collect();
    Line { note: Some(note), ..close(quantity, &want, got, factor) }
}

/// A tensor that cannot be compared, and why.
pub fn not_checked(quantity: Quantity, why: String) -> Line {
    let nothing = f64::NAN;
    Line {
        name: quantity.name(),
        largest: nothing,
        difference: nothing,
        relative: nothing,
        tolerance: nothing,
        used: nothing,
        verdict: Verdict::NotChecked,
        note: Some(why),
    }
}

impl Line {
    /// The same with one more thing that the numbers do not say.
    pub fn noted(self, what: &str) -> Line {
        let note = self.note.map_or_else(|| what.to_owned(), |note| format!("{note}; {what}"));
        Line { note: Some(note), ..self }
    }
}

impl Report {
    /// The report of `lines`, in their order.
    pub fn new(tensors: Vec<Line>) -> Report {
        let checked = tensors.iter().filter(|l| l.verdict != Verdict::NotChecked).count();
        let parted_at = tensors.iter().find(|l| l.verdict == Verdict::Fail).map(|l| l.name.clone());
        Report { checked, of: tensors.len(), parted_at, tensors }
    }

    /// Names of the tensors outside of their tolerance.
    pub fn failed(&self) -> Vec<&str> {
        self.tensors.iter().filter(|l| l.verdict == Verdict::Fail).map(|l| l.name.as_str()).collect()
    }

    /// The table, with `checked n of m` as its last line.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<24}{:>12}{:>12}{:>12}{:>12}{:>9}\n",
            "tensor", "largest", "difference", "relative", "tolerance", "used"
        );
        for line in &self.tensors {
            let verdict = match line.verdict {
                Verdict::Pass => "pass",
                Verdict::Fail => "FAIL",
                Verdict::NotChecked => "not checked",
            };
            let number = |v: f64| {
                if v.is_nan() && line.verdict == Verdict::NotChecked { "-".into() } else { format!("{v:.2e}") }
            };
            let used = match line.verdict {
                Verdict::NotChecked => "-".to_string(),
                _ => format!("{:.1} %", 100.0 * line.used),
            };
            let note = line.note.as_ref().map_or(String::new(), |n| format!("   {n}"));
            let cells = [line.largest, line.difference, line.relative, line.tolerance].map(number);
            // writing to a String cannot fail
            let _ = writeln!(
                text,
                "{:<24}{:>12}{:>12}{:>12}{:>12}{used:>9}  {verdict}{note}",
                line.name, cells[0], cells[1], cells[2], cells[3]
            );
        }
        if let Some(at) = &self.parted_at {
            let before =
                self.tensors.iter().take_while(|l| l.name != *at).filter(|l| l.verdict == Verdict::Pass).last();
            let agreed = before.map_or("nothing before it agrees".into(), |l| format!("up to {} they agree", l.name));
            let _ = writeln!(text, "the two runs part at {at} ({agreed})");
        }
        let _ = writeln!(text, "checked {} of {}", self.checked, self.of);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::quantity::Attack;
    use super::*;

    #[test]
    fn a_difference_is_judged_by_the_largest_expected_magnitude() {
        let line = close(Quantity::Logits, &[-4.0, 0.001], &[-4.0, 0.001 + 3.9e-5], 1.0);
        assert_eq!(line.verdict, Verdict::Pass);
        assert!((line.used - 0.975).abs() < 1e-3, "{line:?}");
        assert_eq!(close(Quantity::Logits, &[-4.0, 0.0], &[-4.0, 4.1e-5], 1.0).verdict, Verdict::Fail);
        assert_eq!(close(Quantity::Logits, &[-4.0, 0.0], &[-4.0, 4.1e-5], 10.0).verdict, Verdict::Pass);
    }

    #[test]
    fn a_nan_or_a_missing_number_fails_every_rule() {
        for quantity in Quantity::all() {
            assert_eq!(
                close(quantity, &[1.0, 2.0], &[1.0, f64::NAN], 1.0).verdict,
                Verdict::Fail,
                "{}",
                quantity.name()
            );
            assert_eq!(close(quantity, &[1.0, 2.0], &[1.0], 1.0).verdict, Verdict::Fail, "{}", quantity.name());
        }
        let line = steps(Quantity::Path(Attack::Bim), &[0.5; 4], &[0.5, f64::NAN], 0.0, 1.0);
        assert_eq!(line.verdict, Verdict::Fail);
    }

    #[test]
    fn a_flipped_switch_is_judged_by_the_norm_and_said() {
        let want: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
        let mut got: Vec<f64> = want.iter().map(|&v| f64::from(v)).collect();
        got[7] += 0.02;
        let line = close(Quantity::InputGradient, &want, &got, 1.0);
        assert_eq!(line.verdict, Verdict::Pass);
        assert!(line.note.unwrap().contains("flipped"));
        got[7] += 2.0;
        assert_eq!(close(Quantity::InputGradient, &want, &got, 1.0).verdict, Verdict::Fail);
    }

    #[test]
    fn effects_that_are_all_zero_are_judged_by_the_difference_itself() {
        assert_eq!(close(Quantity::Effect, &[0.0; 3], &[0.0, 1e-9, 0.0], 1.0).verdict, Verdict::Pass);
        assert_eq!(close(Quantity::Effect, &[0.0; 3], &[0.0, 1e-6, 0.0], 1.0).verdict, Verdict::Fail);
        assert_eq!(close(Quantity::Logits, &[0.0; 3], &[0.0, 1e-9, 0.0], 1.0).verdict, Verdict::Fail);
    }

    #[test]
    fn a_report_names_where_two_runs_part_and_ends_with_what_was_checked() {
        let good = close(Quantity::Tap, &[1.0], &[1.0], 1.0);
        let bad = close(Quantity::Code, &[1.0], &[2.0], 1.0);
        let worse = close(Quantity::Logits, &[1.0], &[3.0], 1.0);
        let none = not_checked(Quantity::Cam, "no start".into());
        let report = Report::new(vec![good, bad, worse, none]);
        assert_eq!(report.failed(), ["code", "logits"]);
        let table = report.table();
        assert!(table.contains("part at code (up to tap they agree)"), "{table}");
        assert_eq!(table.lines().last(), Some("checked 3 of 4"));
    }
}
