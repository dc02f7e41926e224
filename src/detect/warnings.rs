//! What the reader of a report should know before believing a number, in sentences. Called by [`super::report`].

use super::features::Family;
use super::matrix::{Cell, FalseAlarms, JUDGED_MIN, Line};
use super::report::Judged;
use super::table::{Purpose, Table};
use crate::causal::study::Input;

/// A detector's name with what it learnt from.
pub(super) fn called(detector: &str, attack: Option<&str>) -> String {
    attack.map_or(detector.to_owned(), |attack| format!("{detector} of {attack}"))
}

/// What is known before anything is judged.
pub(super) fn of_images(table: &Table) -> Vec<String> {
    let mut warnings = Vec::new();
    let unknown = table.images.iter().filter(|image| image.right.is_none()).count();
    if unknown > 0 {
        let of = table.images.len();
        warnings.push(format!(
            "whether the host is right is not known of {unknown} of {of} images; they are taken as right"
        ));
    }
    for (k, label) in table.labels().iter().enumerate() {
        let lost = table.not_numbers(k);
        if lost > 0 {
            warnings
                .push(format!("{lost} images are left out of {label}: a number of theirs is none (NaN or infinite)"));
        }
    }
    if table.nodes < 2 {
        warnings.push("one set of nodes has no dispersion: claim (d) is not judged".into());
    }
    warnings
}

/// Attacks that too few images judge.
pub(super) fn few(all: &[Judged]) -> Vec<String> {
    let mut warnings: Vec<String> = Vec::new();
    for Judged { row, .. } in all.iter().filter(|j| !j.row.judged && j.row.purpose == Purpose::Attack) {
        let (pos, neg) = (row.roc.n_pos, row.roc.n_neg);
        let warning = format!(
            "{pos} successful attacks and {neg} clean images judge {}: below {JUDGED_MIN} of either there is no verdict",
            row.input
        );
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings
}

/// Cuts that cry wolf on clean test images more often than they were chosen for.
pub(super) fn alarmed(alarms: &[FalseAlarms]) -> Vec<String> {
    let clean = alarms.iter().filter(|a| a.input == "clean");
    let above = clean.flat_map(|a| a.at.iter().map(move |at| (a, at))).filter_map(|(a, at)| {
        let (share, interval) = (at.share?, at.interval?);
        (interval.lo > f64::from(at.fpr_percent) / 100.0).then(|| {
            let name = called(&a.detector, a.attack.as_deref());
            format!("{name} flags {share:.3} of the clean test images at its cut for {} %", at.fpr_percent)
        })
    });
    above.collect()
}

/// Directions that are right for one attack and upside down for another.
pub(super) fn inverted(lines: &[Line]) -> Vec<String> {
    let mut warnings = Vec::new();
    for line in lines {
        let attacks = || line.cells.iter().filter(|c| c.purpose == Purpose::Attack && c.judged());
        let ends = |c: &Cell| c.auroc.zip(c.interval);
        let right = attacks().filter_map(|c| ends(c).filter(|(_, i)| i.lo > 0.5).map(|(a, _)| (a, &c.input)));
        let turned: Vec<String> = attacks()
            .filter_map(|c| ends(c).filter(|(_, i)| i.hi < 0.5).map(|(area, _)| format!("{} ({area:.3})", c.input)))
            .collect();
        if let (Some((area, input)), false) = (right.reduce(|a, b| if b.0 > a.0 { b } else { a }), turned.is_empty()) {
            let name = called(&line.detector, line.attack.as_deref());
            let turned = turned.join(", ");
            warnings.push(format!("{name} is upside down for {turned}, where it finds {input} ({area:.3})"));
        }
    }
    warnings
}

/// Detectors that take noise no larger than an attack for as suspicious as the attack.
pub(super) fn noisy(lines: &[Line], table: &Table, labels: &[String]) -> Vec<String> {
    let mut warnings = Vec::new();
    let eps = |name: &String| labels.iter().position(|l| l == name).and_then(|k| table.inputs.get(k)?.eps());
    let is_noise = |name: &String| {
        let input = labels.iter().position(|l| l == name).and_then(|k| table.inputs.get(k));
        matches!(input, Some(Input::Noise { .. }))
    };
    for line in lines {
        for noise in line.cells.iter().filter(|c| is_noise(&c.input)) {
            let Some(level) = noise.auroc else { continue };
            let fooled = |attack: &&Cell| {
                let own = line.attack.as_ref().is_none_or(|learnt| *learnt == attack.input);
                // an attack without an eps may change pixels by all there is
                let smaller = eps(&attack.input).zip(eps(&noise.input)).is_none_or(|(attack, noise)| noise <= attack);
                let found = attack.auroc.is_some_and(|area| area > 0.5 && level >= area);
                attack.purpose == Purpose::Attack && own && smaller && found && attack.judged()
            };
            let shown = |c: &Cell| format!("{} ({:.3})", c.input, c.auroc.unwrap_or(f64::NAN));
            let attacks: Vec<String> = line.cells.iter().filter(fooled).map(shown).collect();
            if !attacks.is_empty() {
                let name = called(&line.detector, line.attack.as_deref());
                let attacks = attacks.join(", ");
                warnings.push(format!("{name} scores harmless {} as high as {attacks}", shown(noise)));
            }
        }
    }
    warnings
}

/// Attacks that a detector without interventions finds better than every one with them.
pub(super) fn beaten(all: &[Judged], level: f64) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for Judged { row, .. } in all.iter().filter(|j| j.row.judged && j.row.purpose == Purpose::Attack) {
        if seen.contains(&row.input.as_str()) {
            continue;
        }
        seen.push(&row.input);
        let best = |family: Family| {
            let here = all.iter().filter(|j| j.row.input == row.input && j.row.family == family);
            let areas = here.filter_map(|j| j.row.roc.auroc.map(|area| (area, j)));
            areas.reduce(|best, next| if next.0 > best.0 { next } else { best })
        };
        let (Some((area, baseline)), Some((below, causal))) = (best(Family::Baseline), best(Family::Causal)) else {
            continue;
        };
        if area > below {
            let (_, interval) = baseline.less(causal, level);
            let interval = interval.map_or(String::new(), |i| format!(" {i:.3}"));
            warnings.push(format!(
                "{} finds {} better than every causal statistic: {area:.3} against {below:.3} of {}, by {:.3}{interval}",
                baseline.row.statistic,
                row.input,
                causal.row.statistic,
                area - below
            ));
        }
    }
    warnings
}
