//! A report as a terminal shows it: tables of at most 100 columns, the verdict, what to beware of. The numbers behind it, with
//! their intervals, are in `detector.json`.

use super::detector::Recipe;
use super::features::{Family, Statistic};
use super::matrix::Flagged;
use super::report::{DetectorReport, StatisticRow};
use super::table::Purpose;
use super::warnings::called;
use std::fmt;

/// Columns of inputs in one table.
const ACROSS: usize = 6;
const NAME_WIDTH: usize = 24;
const CELL_WIDTH: usize = 12;

impl fmt::Display for DetectorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (images, split) = (&self.images, &self.split);
        writeln!(
            f,
            "{} images: {} answered rightly, {} wrongly and left out, {} unknown; {} fit, {} test",
            images.all, images.right, images.wrong, images.unknown, split.fit_images, split.test_images
        )?;
        let inputs: Vec<&str> = self.inputs.iter().skip(1).map(|input| input.name.as_str()).collect();
        let area = |row: &StatisticRow| row.roc.auroc;
        self.statistics_table(
            f,
            "AUROC, clean test images against successful attacks (controls: against all)",
            &inputs,
            area,
        )?;
        self.statistics_table(f, "share found at 5 % false alarms", &inputs, |row| row.roc.found[1].tpr)?;
        self.statistics_table(f, "AUROC among images of which the host is equally sure", &inputs, |row| {
            row.roc.matched.auroc
        })?;
        self.matrix_table(f, &inputs)?;
        self.alarms_table(f)?;
        writeln!(f)?;
        wrapped(f, "", &self.claim.words)?;
        self.adaptive.iter().try_for_each(|adaptive| wrapped(f, "", &adaptive.words))?;
        for warning in &self.warnings {
            wrapped(f, "warning: ", warning)?;
        }
        Ok(())
    }
}

/// A title and the names of columns.
fn head(f: &mut fmt::Formatter<'_>, title: &str, names: &[&str]) -> fmt::Result {
    writeln!(f, "\n{title}")?;
    write!(f, "{:<NAME_WIDTH$}", "")?;
    names.iter().try_for_each(|name| write!(f, "{:>CELL_WIDTH$}", cut(name, CELL_WIDTH - 1)))?;
    writeln!(f)
}

/// At most `width` characters, the last of more being a dot.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['.']).collect()
}

fn value(f: &mut fmt::Formatter<'_>, value: Option<f64>) -> fmt::Result {
    match value {
        Some(value) => write!(f, "{:>CELL_WIDTH$}", format!("{value:.3}")),
        None => write!(f, "{:>CELL_WIDTH$}", "-"),
    }
}

/// Words in lines of at most 96 columns, what follows the first indented by two.
fn wrapped(f: &mut fmt::Formatter<'_>, start: &str, text: &str) -> fmt::Result {
    write!(f, "{start}")?;
    let mut column = start.len();
    for (k, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if k > 0 && column + 1 + width > 96 {
            write!(f, "\n  {word}")?;
            column = 2 + width;
        } else {
            let space = if k > 0 { " " } else { "" };
            write!(f, "{space}{word}")?;
            column += space.len() + width;
        }
    }
    writeln!(f)
}

impl DetectorReport {
    /// Rows of the scalar statistics and what is learnt from the same attack; the single nodes' are in the file.
    fn statistics_table(
        &self,
        f: &mut fmt::Formatter<'_>,
        title: &str,
        inputs: &[&str],
        of: impl Fn(&StatisticRow) -> Option<f64>,
    ) -> fmt::Result {
        let learnt = [Recipe::BestEce, Recipe::LOGISTIC, Recipe::MAHALANOBIS].map(Recipe::name);
        let scalars = |family: Family| {
            Statistic::SCALARS.into_iter().filter(move |s| s.family() == family).map(|s| s.to_string())
        };
        let names: Vec<String> = scalars(Family::Causal).chain(learnt).chain(scalars(Family::Baseline)).collect();
        for inputs in inputs.chunks(ACROSS) {
            head(f, title, inputs)?;
            for name in &names {
                let find = |input: &str| self.statistics.iter().find(|r| r.statistic == *name && r.input == input);
                if inputs.iter().all(|input| find(input).is_none()) {
                    continue;
                }
                write!(f, "{name:<NAME_WIDTH$}")?;
                inputs.iter().try_for_each(|input| value(f, find(input).and_then(&of)))?;
                writeln!(f)?;
            }
        }
        Ok(())
    }

    /// What is learnt from one attack on the others, with the worst.
    fn matrix_table(&self, f: &mut fmt::Formatter<'_>, inputs: &[&str]) -> fmt::Result {
        let learnt = || self.matrix.iter().filter(|line| line.attack.is_some());
        if learnt().next().is_none() {
            return Ok(());
        }
        for (block, inputs) in inputs.chunks(ACROSS - 1).enumerate() {
            let columns: Vec<&str> = inputs.iter().copied().chain((block == 0).then_some("worst")).collect();
            head(f, "AUROC of what is learnt from one attack", &columns)?;
            for line in learnt() {
                let name = called(&line.detector, line.attack.as_deref());
                write!(f, "{:<NAME_WIDTH$}", cut(&name, NAME_WIDTH))?;
                let cells = line.cells.iter().skip(block * (ACROSS - 1)).take(inputs.len());
                cells.into_iter().try_for_each(|cell| value(f, cell.auroc))?;
                if block == 0 {
                    value(f, line.worst.as_ref().map(|worst| worst.auroc))?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }

    /// Alarms at the cuts for 5 % on images without an adversary.
    fn alarms_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quiet = self.inputs.iter().filter(|input| input.purpose != Purpose::Attack);
        let quiet: Vec<&str> = quiet.map(|input| input.name.as_str()).collect();
        for inputs in quiet.chunks(ACROSS) {
            head(f, "false alarms at the cut for 5 %, test images without an adversary", inputs)?;
            for line in &self.matrix {
                let name = called(&line.detector, line.attack.as_deref());
                write!(f, "{:<NAME_WIDTH$}", cut(&name, NAME_WIDTH))?;
                for input in inputs {
                    let own = |a: &&super::matrix::FalseAlarms| {
                        a.detector == line.detector && a.attack == line.attack && a.input == *input
                    };
                    let alarms: Option<&Flagged> = self.false_alarms.iter().find(own).map(|a| &a.at[1]);
                    value(f, alarms.and_then(|flagged| flagged.share))?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::answer::Head;
    use crate::detect::detector::Subject;
    use crate::detect::fixture::{Planted, shards};
    use crate::detect::{DetectorReport, Plan, Table};

    #[test]
    fn a_terminal_of_a_hundred_columns_shows_everything() {
        let mut planted = Planted { images: 300, ..Planted::default() };
        let more = planted.shifts.clone();
        planted.shifts.extend(more.iter().take(3).copied());
        let table = Table::of(&shards(&planted, &[300]), Head::Softmax, planted.classes, &[]).unwrap();
        let subject = Subject { nodes: (0..5).map(|k| k.to_string()).collect(), ..Subject::default() };
        let report = DetectorReport::of(&table, &Plan { resamples: 20, ..Plan::new(subject) });
        let text = report.unwrap().to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        for part in ["effect-std", "max-p", "mahalanobis", "logistic of", "false alarms", "claim (d)", "pwm", "worst"] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        println!("{text}");
    }
}
