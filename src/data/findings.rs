//! The fourteen findings of chest X-rays and sets of them, [`Findings`]. Mapped by name, never by position in a file; the
//! order is CheXNet's. Called by [`super::nih`], [`super::manifest`] and whoever trains or judges fourteen outputs.

use crate::text::nearest;

/// The findings in CheXNet's order; an output's number is a position here.
pub const FINDINGS: [&str; 14] = [
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
];

/// What an image without any finding is labelled with.
pub const NO_FINDING: &str = "No Finding";

/// The findings of one image: bit `i` for `FINDINGS[i]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Findings(u16);

impl Findings {
    /// The set with these bits; those beyond the fourteen are dropped.
    pub fn from_bits(bits: u16) -> Findings {
        Findings(bits & ((1 << FINDINGS.len()) - 1))
    }

    /// Its bits.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Whether finding `number` is among them.
    pub fn contains(self, number: usize) -> bool {
        number < FINDINGS.len() && self.0 >> number & 1 == 1
    }

    /// True for "No Finding".
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their numbers, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..FINDINGS.len()).filter(move |&i| self.contains(i))
    }

    /// What a sigmoid head is trained towards: fourteen zeros and ones.
    pub fn targets(self) -> [f32; 14] {
        std::array::from_fn(|i| if self.contains(i) { 1.0 } else { 0.0 })
    }

    /// The set that NIH's text names: names joined by `|`, or `No Finding`.
    ///
    /// # Errors
    /// A reason without the file and line, which the caller adds.
    pub fn parse(text: &str) -> Result<Findings, String> {
        if text.trim() == NO_FINDING {
            return Ok(Findings::default());
        }
        text.split('|').try_fold(Findings::default(), |set, name| Ok(Findings(set.0 | 1 << number(name.trim())?)))
    }
}

/// Position of the finding called `name`. The list of boxes writes `Infiltrate`.
///
/// # Errors
/// A reason with the nearest name.
pub fn number(name: &str) -> Result<usize, String> {
    let name = if name == "Infiltrate" { "Infiltration" } else { name };
    FINDINGS.iter().position(|&f| f == name).ok_or_else(|| {
        let shown: String = name.chars().take(60).collect();
        let hint = nearest(name, FINDINGS.iter().copied().chain([NO_FINDING])).map_or_else(
            || format!("there are {} and `{NO_FINDING}`", FINDINGS.join(", ")),
            |n| format!("did you mean `{n}`?"),
        );
        format!("`{shown}` is no finding; {hint}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_read_by_name_and_unknown_ones_name_the_nearest() {
        assert_eq!(Findings::parse("No Finding"), Ok(Findings::default()));
        let both = Findings::parse("Hernia|Atelectasis").unwrap();
        assert_eq!((both.bits(), both.iter().collect::<Vec<_>>()), (1 | 1 << 13, vec![0, 13]));
        assert_eq!(both.targets().iter().sum::<f32>(), 2.0);
        assert_eq!(number("Infiltrate"), Ok(3));
        let error = Findings::parse("Mass|Pleural Thickening").unwrap_err();
        assert!(error.contains("`Pleural_Thickening`"), "{error}");
        assert!(Findings::parse("").is_err() && Findings::parse("No Finding|Mass").is_err());
        assert_eq!(Findings::from_bits(u16::MAX).iter().count(), 14);
    }
}
