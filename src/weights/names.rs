//! Names of tensors: the repairs that published files need before their keys are torchvision's, called by
//! `weights` before its keys are judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::WeightsError;

/// One of the known differences between published keys and torchvision's, in the order in which they are undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// `module.` in front: saved from `DataParallel`.
    Module,
    /// `densenet121.` in front: CheXNet's wrapper class.
    Densenet121,
    /// `denselayer1.norm.1.weight`, as PyTorch 0.3 named it, is `denselayer1.norm1.weight`.
    DenseLayer,
    /// `classifier.0.` is `classifier.`: CheXNet's head is a `Sequential` of one linear layer and a sigmoid.
    Classifier,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Module => "stripped `module.`",
            Rule::Densenet121 => "stripped `densenet121.`",
            Rule::DenseLayer => "joined `denselayerN.norm.1` to `denselayerN.norm1` (also relu, conv)",
            Rule::Classifier => "renamed `classifier.0.` to `classifier.`",
        })
    }
}

/// A tensor that got another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Its name in the file.
    pub from: String,
    /// Its name now.
    pub to: String,
    /// What was done, in order.
    pub rules: Vec<Rule>,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is read as {}", self.from, self.to)
    }
}

/// The repairs by rule, with how many names each changed: four lines at most, for the log.
pub fn summary(repairs: &[Repair]) -> Vec<String> {
    let mut counts: BTreeMap<Rule, usize> = BTreeMap::new();
    for rule in repairs.iter().flat_map(|r| &r.rules) {
        *counts.entry(*rule).or_default() += 1;
    }
    counts.iter().map(|(rule, count)| format!("{rule}: {count} names")).collect()
}

/// The repairs that `names` (of the file `file`) need so that they are names of the network that `is_expected` knows.
///
/// The rules apply in their order, each to what the one before left, and only while the name is unknown: VGG's own
/// `classifier.0.weight` stays, DenseNet's is renamed.
///
/// # Errors
/// [`WeightsError::Duplicate`] when two tensors would get one name.
pub fn repair<'a>(
    file: &str,
    names: impl IntoIterator<Item = &'a str>,
    is_expected: &dyn Fn(&str) -> bool,
) -> Result<Vec<Repair>, WeightsError> {
    let mut taken = BTreeSet::new();
    let mut repairs = Vec::new();
    for from in names {
        let (mut to, mut rules) = (from.to_owned(), Vec::new());
        for rule in [Rule::Module, Rule::Densenet121, Rule::DenseLayer, Rule::Classifier] {
            if !is_expected(&to)
                && let Some(repaired) = apply(rule, &to)
            {
                to = repaired;
                rules.push(rule);
            }
        }
        if !taken.insert(to.clone()) {
            return Err(WeightsError::Duplicate { file: file.to_owned(), tensor: to });
        }
        if !rules.is_empty() {
            repairs.push(Repair { from: from.to_owned(), to, rules });
        }
    }
    Ok(repairs)
}

/// `name` after `rule`, `None` where the rule has nothing to say.
fn apply(rule: Rule, name: &str) -> Option<String> {
    match rule {
        Rule::Module => name.strip_prefix("module.").map(str::to_owned),
        Rule::Densenet121 => name.strip_prefix("densenet121.").map(str::to_owned),
        Rule::Classifier => name.strip_prefix("classifier.0.").map(|rest| format!("classifier.{rest}")),
        // torchvision: ^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:weight|bias|running_mean|running_var))$
        Rule::DenseLayer => {
            let mut parts = name.rsplitn(4, '.');
            let (leaf, number, kind, front) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            let digits = front.rsplit_once("denselayer")?.1;
            let fits = !digits.is_empty()
                && digits.bytes().all(|b| b.is_ascii_digit())
                && matches!(kind, "norm" | "relu" | "conv")
                && matches!(number, "1" | "2")
                && matches!(leaf, "weight" | "bias" | "running_mean" | "running_var");
            fits.then(|| format!("{front}.{kind}{number}.{leaf}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(names: &[&str], expected: &[&str]) -> Vec<(String, String)> {
        let repairs = repair("f", names.iter().copied(), &|n| expected.contains(&n)).unwrap();
        repairs.into_iter().map(|r| (r.from, r.to)).collect()
    }

    #[test]
    fn chexnets_keys_become_torchvisions_and_every_change_is_told() {
        let got = repaired(
            &[
                "module.densenet121.features.denseblock1.denselayer12.norm.1.running_mean",
                "module.densenet121.classifier.0.weight",
                "features.conv0.weight",
                "features.denseblock4.denselayer2.conv.2.weight",
            ],
            &["features.conv0.weight", "classifier.weight"],
        );
        let want = [
            (
                "module.densenet121.features.denseblock1.denselayer12.norm.1.running_mean",
                "features.denseblock1.denselayer12.norm1.running_mean",
            ),
            ("module.densenet121.classifier.0.weight", "classifier.weight"),
            ("features.denseblock4.denselayer2.conv.2.weight", "features.denseblock4.denselayer2.conv2.weight"),
        ];
        assert_eq!(got, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn a_name_the_network_knows_is_left_alone() {
        assert!(repaired(&["classifier.0.weight"], &["classifier.0.weight"]).is_empty());
        assert_eq!(repaired(&["module.classifier.0.weight"], &["classifier.0.weight"])[0].1, "classifier.0.weight");
        assert!(repaired(&["module.odd"], &["module.odd"]).is_empty());
    }

    #[test]
    fn only_torchvisions_own_pattern_is_joined() {
        for name in [
            "x.denselayer.norm.1.weight",
            "x.denselayer1a.norm.1.weight",
            "x.denselayer1.norm.3.weight",
            "x.denselayer1.pool.1.weight",
            "x.denselayer1.norm.1.gamma",
            "x.layer1.norm.1.weight",
            "norm.1.weight",
        ] {
            assert!(repaired(&[name], &[]).is_empty(), "{name}");
        }
    }

    #[test]
    fn two_tensors_with_one_repaired_name_are_an_error() {
        let error = repair("f.pth", ["module.a", "a"], &|_| false).unwrap_err();
        assert!(matches!(&error, WeightsError::Duplicate { tensor, .. } if tensor == "a"), "{error}");
    }

    #[test]
    fn the_summary_counts_names_by_rule() {
        let repairs = repair("f", ["module.a", "module.classifier.0.b"], &|_| false).unwrap();
        assert_eq!(
            summary(&repairs),
            ["stripped `module.`: 2 names", "renamed `classifier.0.` to `classifier.`: 1 names"]
        );
    }
}
