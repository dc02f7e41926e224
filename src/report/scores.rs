//! `scores.csv`: what a detector says of images, a row an image. Called by `detect`.

use super::run::SCHEMA_VERSION;
use super::table::{number, optional, quoted};
use crate::atomic::write_atomic;
use crate::error::Error;
use crate::interval::Share;
use std::path::Path;

const COLUMNS: &str =
    "schema_version,run_id,image_id,path,label,predicted,p_predicted,detector,score,threshold,flagged,flag\n";

/// What a detector says of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The image's id.
    pub id: u64,
    /// Its path below the data set's directory; empty of a set in one file.
    pub path: String,
    /// Its label.
    pub label: Option<u32>,
    /// The host's class, or its likeliest finding; none where its logits are not numbers.
    pub predicted: Option<u32>,
    /// The host's probability of that.
    pub p_predicted: Option<f64>,
    /// The higher, the more it looks attacked; NaN where a number of the image's is none.
    pub score: f64,
}

impl Score {
    /// Whether the score lies above the cut; none where it is no number.
    pub fn flagged(&self, threshold: f64) -> Option<bool> {
        (!self.score.is_nan()).then_some(self.score > threshold)
    }
}

/// Flagged images, of those that have a score.
pub fn flagged(scores: &[Score], threshold: f64) -> Share {
    let known: Vec<bool> = scores.iter().filter_map(|score| score.flagged(threshold)).collect();
    Share { count: known.iter().filter(|flagged| **flagged).count(), of: known.len() }
}

/// Writes `scores.csv`: 12 columns. `flagged` is 1 above the threshold and 0 at or below it; where the score is no number, it and
/// `score` are empty and `flag` is `nan`.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn write(path: &Path, run_id: &str, (detector, threshold): (&str, f64), scores: &[Score]) -> Result<(), Error> {
    let whole = |value: Option<u32>| value.map_or(String::new(), |value| value.to_string());
    Ok(write_atomic(path, |file| {
        file.write_all(COLUMNS.as_bytes())?;
        for s in scores {
            let (flagged, flag) = match s.flagged(threshold) {
                Some(flagged) => (u8::from(flagged).to_string(), ""),
                None => (String::new(), "nan"),
            };
            writeln!(
                file,
                "{SCHEMA_VERSION},{run_id},{},{},{},{},{},{},{},{},{flagged},{flag}",
                s.id,
                quoted(&s.path),
                whole(s.label),
                whole(s.predicted),
                optional(s.p_predicted),
                quoted(detector),
                number(s.score),
                number(threshold),
            )?;
        }
        Ok(())
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_at_the_cut_is_not_flagged_and_one_without_a_score_is_neither() {
        let score = |id, score| Score {
            id,
            path: "a,b.png".into(),
            label: None,
            predicted: Some(3),
            p_predicted: Some(0.5),
            score,
        };
        let scores = [score(1, 0.25), score(2, 0.5), score(3, f64::NAN)];
        assert_eq!(flagged(&scores, 0.25), Share { count: 1, of: 2 });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.csv");
        write(&path, "id", ("kl", 0.25), &scores).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let rows: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            rows,
            [
                r#"1,id,1,"a,b.png",,3,0.5,kl,0.25,0.25,0,"#,
                r#"1,id,2,"a,b.png",,3,0.5,kl,0.5,0.25,1,"#,
                r#"1,id,3,"a,b.png",,3,0.5,kl,,0.25,,nan"#
            ]
        );
    }
}
