//! Claim (e), that causal effect maps are sensitive to adversaries where class activation maps are not, as `claim-e.json`: the
//! verdict under every attack with what decides it, and why.

use super::told::{Done, called, shown, signed};
use crate::causal::study::Input;
use crate::explain::Method;
use crate::explain::stability::{IMAGES_MIN, Mean, Measure, Verdict};
use crate::report::claim::{ClaimFile, Judged};
use crate::report::maps::StabilityRow;

/// Its words in claims.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Yes => "holds",
        Verdict::No => "fails",
        Verdict::Undecided => "undecided",
    }
}

impl Done {
    /// The claim with its verdicts; nothing where causal maps have nothing to be compared with.
    pub fn claim(&self) -> Option<ClaimFile> {
        let mut claim = ClaimFile::new(
            &self.run_id,
            'e',
            "causal effect maps are more sensitive to attacks than class activation maps",
            "how much further causal maps move than the others (1 - Spearman, mean over images, paired)",
        );
        for row in self.first() {
            let Some((other, more)) = &row.reference else { continue };
            let control = match row.input {
                Input::Attack(_) => false,
                Input::Noise { .. } => true,
                Input::None | Input::Pwm { .. } | Input::Jpeg { .. } => continue,
            };
            let what = if control { "control, " } else { "" };
            claim.judged.push(Judged {
                condition: format!("{what}{}: {} against {}", called(&row.input), row.method.name(), other.name()),
                verdict: if control { "none" } else { word(Verdict::of(more)) }.into(),
                value: more.mean,
                interval: more.interval,
                reason: self.reason(row, *other, more, control),
            });
        }
        claim.notes.extend(self.no_cam.clone());
        claim.notes.extend(self.coarser());
        (!claim.judged.is_empty()).then_some(claim)
    }

    /// What no verdict corrects: maps of fewer cells move less for that reason alone.
    fn coarser(&self) -> Option<String> {
        let mut sizes: Vec<(Method, (usize, usize))> = Vec::new();
        for row in &self.maps {
            if !sizes.iter().any(|(method, _)| *method == row.method) {
                sizes.push((row.method, row.size));
            }
        }
        let differ = sizes.windows(2).any(|pair| pair[0].1 != pair[1].1);
        let told = sizes.iter().map(|(method, (height, width))| format!("{} {height} x {width}", method.name()));
        differ.then(|| {
            let told = told.collect::<Vec<_>>().join(", ");
            format!(
                "maps of fewer cells move less for that reason alone, which no verdict corrects: cells here are {told}"
            )
        })
    }

    /// What the verdict rests on: how far both move, what the other measures say, and what noise of the attack's size does.
    fn reason(&self, row: &StabilityRow, other: Method, more: &Mean, control: bool) -> String {
        let (own, name) = (row.method.name(), other.name());
        let change = |method| self.row(method, &row.input, row.measure).map_or("-".into(), |row| shown(&row.change));
        let mut parts = vec![format!("{own} moves by {}, {name} by {}", change(row.method), change(other))];
        if more.n < IMAGES_MIN {
            parts.push(format!("{} images, {IMAGES_MIN} are needed for a verdict", more.n));
        } else if Verdict::of(more) == Verdict::Undecided && !control {
            parts.push("the interval of the difference holds 0".into());
        }
        for &measure in Measure::ALL.iter().skip(1) {
            let found = self.row(row.method, &row.input, measure).and_then(|row| row.reference);
            if let Some((_, mean)) = found {
                let told = match Verdict::of(&mean) {
                    Verdict::Yes => "also more",
                    Verdict::No => "less",
                    Verdict::Undecided => "undecided",
                };
                parts.push(format!("by {} {told} ({})", measure.name(), signed(&mean)));
            }
        }
        for method in [row.method, other] {
            let found = self.row(method, &row.input, row.measure).and_then(|row| row.beyond_noise);
            if let Some(mean) = found {
                let name = method.name();
                parts.push(match Verdict::of(&mean) {
                    Verdict::Yes => format!("{name} moves further than under noise of that size ({})", signed(&mean)),
                    Verdict::No => format!("{name} moves less than under noise of that size ({})", signed(&mean)),
                    Verdict::Undecided => {
                        format!("{name} is not seen to move further than under noise of that size ({})", signed(&mean))
                    }
                });
            }
        }
        parts.join("; ")
    }
}
