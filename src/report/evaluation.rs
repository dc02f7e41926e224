//! What an evaluation leaves: `auc.csv` (a row a finding), `predictions.csv` (a row an image), and the same in words. Numbers in
//! shortest round-trip form; a value that is not a number is empty, with a flag.

use super::run::SCHEMA_VERSION;
use super::table::{number, optional, quoted};
use crate::answer::Head;
use crate::atomic::write_atomic;
use crate::data::{Labels, Part};
use crate::error::Error;
use crate::interval::{Interval, Share};
use crate::train::evaluation::auroc::Lack;
use crate::train::evaluation::{Answers, Evaluation, Finding, Found, LEVEL, mean_area, published};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// What stands beside one's own areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing: the network is one's own.
    Nothing,
    /// What others report of CheXNet ([`published`]): the network is a CheXNet.
    Published,
}

impl Beside {
    /// One figure a source, as the finding of that name has them; none where nothing stands beside.
    fn figures(self, finding: &str) -> [Option<f64>; published::SOURCES.len()] {
        match self {
            Beside::Nothing => [None; published::SOURCES.len()],
            Beside::Published => published::auroc(finding).map_or([None; _], |areas| areas.map(Some)),
        }
    }
}

const AUC: &str = "schema_version,run_id,label,auc,ci_lo,ci_hi,n_pos,n,n_patients,se,threshold,sensitivity,sensitivity_lo,\
                   sensitivity_hi,specificity,specificity_lo,specificity_hi,flag";

/// Writes `auc.csv`: 26 columns. `label` is the finding; `ci_*` as [`crate::train::evaluation::auroc`] has it, `se` for other
/// intervals; `threshold` is a probability that validation images chose, and `sensitivity`, `specificity` what it does on the test
/// images, with Wilson's intervals over images; `flag` says what is missing and why, joined by `|`; `published_*` is filled
/// [`Beside::Published`] only. `auprc` is the average precision as [`crate::train::evaluation::precision`] has it, `auprc_*` its
/// interval, and `prevalence` the share of test images with the finding, which scores that know nothing have for `auprc`.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn auc(path: &Path, run_id: &str, findings: &[Finding], beside: Beside) -> Result<(), Error> {
    Ok(write_atomic(path, |file| {
        let sources = published::SOURCES.map(|source| format!(",published_{source}")).concat();
        writeln!(file, "{AUC}{sources},auprc,auprc_lo,auprc_hi,prevalence")?;
        for f in findings {
            let a = &f.auroc;
            let [sensitivity, specificity] = shares(f).map(|share| {
                let interval = share.and_then(|s| s.wilson(LEVEL));
                format!("{},{}", optional(share.and_then(Share::value)), ends(interval))
            });
            let precision = [optional(f.auprc), ends(f.auprc_interval), optional(f.prevalence())].join(",");
            let figures = beside.figures(&f.name).map(|figure| format!(",{}", optional(figure))).concat();
            writeln!(
                file,
                "{SCHEMA_VERSION},{run_id},{},{},{},{},{},{},{},{},{sensitivity},{specificity},{}{figures},{precision}",
                quoted(&f.name),
                optional(a.area),
                ends(a.interval),
                a.positives,
                a.positives + a.negatives,
                a.patients,
                optional(a.se),
                optional(f.threshold),
                f.flags().join("|"),
            )?;
        }
        Ok(())
    })?)
}

/// Sensitivity and specificity.
fn shares(finding: &Finding) -> [Option<Share>; 2] {
    let operating = finding.operating;
    [operating.map(|o| o.sensitivity), operating.map(|o| o.specificity)]
}

fn ends(interval: Option<Interval>) -> String {
    format!("{},{}", optional(interval.map(|i| i.lo)), optional(interval.map(|i| i.hi)))
}

/// Writes `predictions.csv`, validation images first: a row an image, because that is what metrics of several labels and a join
/// with one's own table of images take. `image_id` is that of the table of effects, `path` lies below the data's directory. Of a network of
/// findings three columns each: `probability_<finding>`, `label_<finding>` (1 or 0) and `predicted_<finding>`, 1 where the
/// probability reaches the threshold of `auc.csv`, empty without one. Of a network of classes `label` and `predicted`, numbers as in
/// the table of effects, and `probability_<class>` each in their order. `flag` is `nan` where a probability is not a number.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn predictions(path: &Path, run_id: &str, evaluation: &Evaluation<'_>) -> Result<(), Error> {
    let Evaluation { validation, test, found } = evaluation;
    let thresholds: Vec<Option<f64>> = match found {
        Found::Findings(findings) => findings.iter().map(|f| f.threshold).collect(),
        Found::Classes(_) => Vec::new(),
    };
    let names: Vec<String> = test.names().iter().map(|name| quoted(name).into_owned()).collect();
    Ok(write_atomic(path, |file| {
        let column = |prefix: &str, name: &str| match name.strip_prefix('"') {
            Some(rest) => format!("\"{prefix}_{rest}"),
            None => format!("{prefix}_{name}"),
        };
        let of = |prefixes: &[&str]| -> String {
            names.iter().flat_map(|name| prefixes.iter().map(|p| format!(",{}", column(p, name)))).collect()
        };
        let columns = match test.head() {
            Head::Sigmoid => of(&["probability", "label", "predicted"]),
            Head::Softmax => format!(",label,predicted{}", of(&["probability"])),
        };
        writeln!(file, "schema_version,run_id,image_id,path,patient_id,split{columns},flag")?;
        let parts = validation.iter().map(|v| (v, Part::Validation)).chain([(test, Part::Test)]);
        for (answers, part) in parts {
            for i in 0..answers.data().len() {
                writeln!(file, "{}", row(answers, i, part, run_id, &thresholds))?;
            }
        }
        Ok(())
    })?)
}

fn row(answers: &Answers<'_>, i: usize, part: Part, run_id: &str, thresholds: &[Option<f64>]) -> String {
    let data = answers.data();
    let probabilities = answers.probabilities(i);
    let text = |field: Option<&str>| quoted(field.unwrap_or_default()).into_owned();
    let mut row = format!(
        "{SCHEMA_VERSION},{run_id},{},{},{},{}",
        data.ids()[i],
        text(data.path(i)),
        text(data.patient(i)),
        part.name()
    );
    // writing to a String cannot fail
    let _ = match data.targets() {
        Labels::Findings(all) => probabilities.iter().enumerate().try_for_each(|(k, &p)| {
            let cut = thresholds.get(k).copied().flatten();
            let predicted = cut.filter(|_| !p.is_nan()).map_or("", |cut| if p >= cut { "1" } else { "0" });
            write!(row, ",{},{},{predicted}", number(p), u8::from(all[i].contains(k)))
        }),
        Labels::Classes(_) => {
            let shown = |class: Option<String>| class.unwrap_or_default();
            let label = shown(data.label(i).map(|label| label.to_string()));
            let predicted = shown(answers.class(i).map(|class| class.to_string()));
            write!(row, ",{label},{predicted}")
                .and_then(|()| probabilities.iter().try_for_each(|&p| write!(row, ",{}", number(p))))
        }
    };
    row + if probabilities.iter().any(|p| p.is_nan()) { ",nan" } else { "," }
}

/// What was found as JSON: of findings a list of objects with the columns of `auc.csv`, of classes the share of right answers.
pub fn json(found: &Found) -> Value {
    let findings = match found {
        Found::Classes(right) => {
            let interval = right.wilson(LEVEL);
            return json!({ "accuracy": right.value(), "ci_lo": interval.map(|i| i.lo), "ci_hi": interval.map(|i| i.hi) });
        }
        Found::Findings(findings) => findings,
    };
    let one = |f: &Finding| {
        let [sensitivity, specificity] = shares(f).map(|share| share.and_then(Share::value));
        json!({
            "label": f.name, "auc": f.auroc.area, "ci_lo": f.auroc.interval.map(|i| i.lo),
            "ci_hi": f.auroc.interval.map(|i| i.hi), "n_pos": f.auroc.positives, "threshold": f.threshold,
            "sensitivity": sensitivity, "specificity": specificity, "flag": f.flags().join("|"),
            "auprc": f.auprc, "auprc_lo": f.auprc_interval.map(|i| i.lo), "auprc_hi": f.auprc_interval.map(|i| i.hi),
            "prevalence": f.prevalence(),
        })
    };
    findings.iter().map(one).collect()
}

/// What was found, as a table to read.
pub fn describe(found: &Found, beside: Beside) -> String {
    match found {
        Found::Classes(right) => {
            let interval = right.wilson(LEVEL).map(|i| Interval { lo: 100.0 * i.lo, hi: 100.0 * i.hi });
            let interval = interval.map_or(String::new(), |i| format!(" {i}"));
            let share = right.value().map_or("unknown".into(), |share| format!("{:.2} %", 100.0 * share));
            format!("accuracy {share}{interval} on {} labelled images\n", right.of)
        }
        Found::Findings(findings) => table(findings, beside),
    }
}

/// Why an area or its interval is missing, in words.
fn remark(finding: &Finding) -> &'static str {
    match finding.auroc.lack {
        None => "",
        Some(Lack::Nan) => "a probability is not a number",
        Some(Lack::OneSided) if finding.auroc.positives == 0 => "no image has it",
        Some(Lack::OneSided) => "every image has it",
        Some(Lack::FewPatients) => "too few patients for an interval",
        Some(Lack::NoSpread) => "no spread, so no interval",
    }
}

fn table(findings: &[Finding], beside: Beside) -> String {
    let shown = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.4}"));
    let sources: &[&str] = if beside == Beside::Published { &published::SOURCES } else { &[] };
    let cells = |figures: &[Option<f64>]| -> String {
        figures.iter().take(sources.len()).map(|&figure| format!(" {:>9}", shown(figure))).collect()
    };
    let mut text = format!(
        "{:<19} {:>6} {:<16} {:>6} {:>10} {:>6} {:>9} {:>11} {:>11}{}\n",
        "finding",
        "AUROC",
        "95 % interval",
        "AUPRC",
        "prevalence",
        "n_pos",
        "threshold",
        "sensitivity",
        "specificity",
        sources.iter().map(|source| format!(" {source:>9}")).collect::<String>()
    );
    for f in findings {
        let a = &f.auroc;
        let interval = a.interval.map_or("-".into(), |i| format!("{i:.4}"));
        let [sensitivity, specificity] = shares(f).map(|share| shown(share.and_then(Share::value)));
        let line = format!(
            "{:<19} {:>6} {interval:<16} {:>6} {:>10} {:>6} {:>9} {sensitivity:>11} {specificity:>11}{}  {}",
            f.name,
            shown(a.area),
            shown(f.auprc),
            shown(f.prevalence()),
            a.positives,
            shown(f.threshold),
            cells(&beside.figures(&f.name)),
            remark(f),
        );
        text += line.trim_end();
        text.push('\n');
    }
    let known = findings.iter().filter(|f| f.auroc.area.is_some()).count();
    let (images, patients) =
        findings.first().map_or((0, 0), |f| (f.auroc.positives + f.auroc.negatives, f.auroc.patients));
    let _ = writeln!(
        text,
        "mean AUROC {} over {known} of {} findings; {images} images of {patients} patients",
        shown(mean_area(findings)),
        findings.len()
    );
    if beside == Beside::Published {
        let _ = writeln!(
            text,
            "{} report theirs on another test set ({} images): a difference is not the network's alone",
            published::SOURCES.join(", "),
            published::TEST_IMAGES
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::train::evaluation::fixture::x_rays;

    fn classes() -> Dataset {
        Dataset::new(vec![0; 12], vec![0, 1, 1], [1, 2, 2], vec!["cat, grey".into(), "dog".into()]).unwrap()
    }

    fn written(write: impl FnOnce(&Path) -> Result<(), Error>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        write(&path).unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn predictions_of_classes_have_a_column_a_class_and_a_nan_is_empty_and_flagged() {
        let data = classes();
        let nan = f32::NAN;
        let answers = |logits| Answers::new(&data, Head::Softmax, 2, logits).unwrap();
        let evaluation = Evaluation::new(None, answers(vec![0.0, 0.0, -800.0, 0.0, nan, 1.0])).unwrap();
        let text = written(|path| predictions(path, "id", &evaluation));
        let head = "schema_version,run_id,image_id,path,patient_id,split,label,predicted,\"probability_cat, grey\",probability_dog,flag";
        let rows = ["1,id,0,,,test,0,0,0.5,0.5,", "1,id,1,,,test,1,1,0.0,1.0,", "1,id,2,,,test,1,,,,nan"];
        assert_eq!(text.lines().collect::<Vec<_>>(), [&[head][..], &rows].concat());
        assert_eq!(evaluation.found, Found::Classes(Share { count: 2, of: 3 }));
        assert_eq!(
            describe(&evaluation.found, Beside::Nothing),
            "accuracy 66.67 % [20.77, 93.85] on 3 labelled images\n"
        );
        // the same images twice choose nothing
        let same = Evaluation::new(Some(answers(vec![0.0; 6])), answers(vec![0.0; 6])).unwrap();
        assert!(same.validation.is_none());
    }

    #[test]
    fn predictions_of_findings_have_three_columns_each_and_a_row_an_image() {
        let chosen = x_rays(&[("Mass", Some("p,1")), ("No Finding", None)]);
        let judged = x_rays(&[("Mass|Hernia", Some("q")), ("No Finding", None)]);
        let answers = |data, scores: [f32; 2]| {
            let logits = scores.iter().flat_map(|&s| (0..14).map(move |k| if k == 4 { s } else { 0.0 })).collect();
            Answers::new(data, Head::Sigmoid, 14, logits).unwrap()
        };
        let chosen = answers(&chosen, [0.0, -1.0]);
        let evaluation = Evaluation::new(Some(chosen), answers(&judged, [-800.0, f32::NAN])).unwrap();
        let text = written(|path| predictions(path, "id", &evaluation));
        let lines: Vec<&str> = text.lines().collect();
        let start = "schema_version,run_id,image_id,path,patient_id,split,probability_Atelectasis,label_Atelectasis,predicted_Atelectasis,";
        assert!(lines[0].starts_with(start) && lines[0].ends_with(",predicted_Hernia,flag"), "{}", lines[0]);
        assert_eq!(lines.len(), 5);
        let mass = |line: usize, fields: &str| lines[line].contains(&format!(",0.5,0,,{fields},0.5,"));
        assert!(lines[1].contains(",0.png,\"p,1\",val,") && mass(1, "0.5,1,1"), "{}", lines[1]);
        assert!(lines[2].contains(",1.png,,val,") && mass(2, "0.2689414213699951,0,0"), "{}", lines[2]);
        assert!(mass(3, "0.0,1,0") && lines[3].ends_with(",0.5,1,,"), "{}", lines[3]);
        assert!(lines[4].contains(",1.png,,test,") && mass(4, ",0,") && lines[4].ends_with(",nan"), "{}", lines[4]);
        // the same in JSON and in words
        let found = json(&evaluation.found);
        assert_eq!(
            (&found[4]["label"], &found[4]["auc"], &found[4]["flag"]),
            (&"Mass".into(), &Value::Null, &"nan".into())
        );
        assert_eq!(found[4]["threshold"], 0.5);
        let text = describe(&evaluation.found, Beside::Nothing);
        assert!(text.contains("mean AUROC 0.5000 over 1 of 14 findings; 2 images of 2 patients"), "{text}");
    }

    #[test]
    fn published_areas_stand_beside_ones_own_where_they_are_asked_for() {
        let auroc = crate::train::evaluation::auroc::auroc(&[0.9, 0.8], &[true, false], &[0, 1], LEVEL);
        let mass = Finding {
            name: "Mass".into(),
            auroc,
            auprc: Some(1.0),
            auprc_interval: None,
            threshold: None,
            operating: None,
        };
        let rows = |beside| written(|path| auc(path, "id", std::slice::from_ref(&mass), beside));
        let plain = rows(Beside::Nothing);
        let (head, row) = plain.trim_end().split_once('\n').unwrap();
        assert!(
            head.starts_with("schema_version,run_id,label,auc,ci_lo,ci_hi,n_pos,")
                && head.ends_with("_jrzech,auprc,auprc_lo,auprc_hi,prevalence")
        );
        assert_eq!(row, "1,id,Mass,1.0,,,1,2,2,,,,,,,,,few_patients|no_threshold,,,,,1.0,,,0.5");
        assert_eq!(row.split(',').count(), head.split(',').count());
        let figures = "few_patients|no_threshold,0.8676,0.8597,0.8653,0.8377,1.0,,,0.5\n";
        assert!(rows(Beside::Published).ends_with(figures));
        let found = Found::Findings(vec![mass.clone()]);
        assert!(!describe(&found, Beside::Nothing).contains("0.86"));
        let shown = describe(&found, Beside::Published);
        assert!(shown.contains("0.8676    0.8597    0.8653    0.8377  too few patients"), "{shown}");
        assert!(shown.contains("another test set (22433 images)"), "{shown}");
    }
}
