//! The paper's claims (a), (b) and (c), judged on a study's columns.

use super::Config;
use crate::attack::Attack;
use crate::attack::method::sized;
use crate::causal::analysis::{Columns, Quantity};
use crate::causal::claims::{Claim, Condition, Judgement, MostNegative, judge, most_negative};
use crate::causal::effect::Reading;
use crate::causal::intervention::NodeSet;
use crate::causal::statistics::{Bootstrap, Clusters};
use crate::causal::study::Input;
use crate::error::Error;
use crate::model::Head;
use serde::Serialize;

/// `claims.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Verdicts {
    /// Version of this file's layout.
    pub schema_version: u32,
    /// Whose claims.
    pub run_id: String,
    /// (a) and (b), and the control, for every perturbed input.
    pub claims: Vec<Judgement>,
    /// (c), where there are FGSM and another attack of its size.
    pub most_negative: Option<MostNegative>,
}

/// What an input is called in a verdict.
fn words(input: &Input) -> String {
    match input {
        Input::None => "the clean input".into(),
        Input::Pwm { masks, region, .. } => {
            let what = if region.is_grid() { "pixel masking" } else { input.name() };
            format!("{what} ({masks} mask{} an image)", if *masks == 1 { "" } else { "s" })
        }
        Input::Jpeg { quality } => format!("JPEG of quality {quality}"),
        Input::Attack(attack) => attack.to_string(),
        Input::Noise { eps, norm } => format!("random signs of {}", sized(*norm, *eps)),
    }
}

impl Verdicts {
    /// Of the single nodes of a study's columns, whose sets are `sets`; images of one unit (a patient) are resampled together.
    ///
    /// # Errors
    /// [`Error::Causal`] for a level outside 0..1.
    pub fn of(
        (c, sets): (&Columns, &[NodeSet]),
        config: &Config,
        (head, units): (Head, &Clusters),
        run_id: &str,
    ) -> Result<Verdicts, Error> {
        let bootstrap = Bootstrap::of_clusters(units, config.resamples, config.seed)?;
        // a claim is about nodes: what several do together is none of it
        let node = |(s, set): (usize, &NodeSet)| set.iter().next().filter(|_| set.len() == 1).map(|node| (s, node));
        let singles: Vec<(usize, usize)> = sets.iter().enumerate().filter_map(node).collect();
        let row = |input, quantity| singles.iter().map(|&(s, _)| c.get(input, s, quantity)).collect::<Vec<_>>();
        let mut claims = Vec::new();
        for (k, input) in c.inputs.iter().enumerate().skip(1) {
            let claim = match input {
                // the claim is about a tenth of the image wherever that is
                Input::Pwm { region, .. } if region.is_tenth() => Claim::Masking,
                Input::Attack(_) => Claim::Attack,
                Input::None | Input::Pwm { .. } | Input::Jpeg { .. } | Input::Noise { .. } => Claim::Control,
            };
            let condition = Condition {
                claim,
                name: &words(input),
                clean: row(0, Quantity::Ece(Reading::Z0)),
                perturbed: row(k, Quantity::Ece(Reading::R1)),
                double_softmax: (head == Head::Softmax).then(|| row(k, Quantity::DoubleSoftmax)),
                baseline_orig: Some(row(k, Quantity::BaselineOrig)),
                confidence_clean: c.get(0, 0, Quantity::Confidence),
                confidence_perturbed: c.get(k, 0, Quantity::Confidence),
            };
            let mut judged = judge(&condition, &bootstrap, config.level)?;
            judged.nodes.iter_mut().zip(&singles).for_each(|(verdict, (_, node))| verdict.node = *node);
            claims.push(judged);
        }
        let fgsm = c.inputs.iter().position(|input| matches!(input, Input::Attack(Attack::Fgsm { .. })));
        let most_negative = fgsm.map(|fgsm| -> Result<MostNegative, Error> {
            let size = c.inputs[fgsm].eps();
            // jsma has no size to differ in
            let rival = |k: usize| {
                let other = &c.inputs[k];
                k != fgsm && matches!(other, Input::Attack(_)) && (other.eps() == size || other.eps().is_none())
            };
            let others: Vec<(String, Vec<&[f64]>)> = (1..c.inputs.len())
                .filter(|&k| rival(k))
                .map(|k| (words(&c.inputs[k]), row(k, Quantity::Ece(Reading::R1))))
                .collect();
            let others: Vec<(&str, Vec<&[f64]>)> =
                others.iter().map(|(name, row)| (name.as_str(), row.clone())).collect();
            let clean = row(0, Quantity::Ece(Reading::Z0));
            let own = row(fgsm, Quantity::Ece(Reading::R1));
            Ok(most_negative(&clean, &own, &others, &bootstrap, config.level)?)
        });
        let most_negative = most_negative.transpose()?.filter(|judged| !judged.rivals.is_empty());
        Ok(Verdicts {
            schema_version: crate::report::run::SCHEMA_VERSION,
            run_id: run_id.into(),
            claims,
            most_negative,
        })
    }

    /// Claim (c) in words, where it was judged.
    pub fn most_negative_told(&self) -> Option<String> {
        let judged = self.most_negative.as_ref()?;
        let rivals = judged.rivals.iter().map(|r| {
            let value = r.difference.map_or("not a number".into(), |d| format!("{d:+.1e}"));
            let interval = r.interval.map_or(String::new(), |i| format!(" [{:+.1e}, {:+.1e}]", i.lo, i.hi));
            let name = r.condition.split(' ').next().unwrap_or_default();
            format!("less {name}: {value}{interval} (lower at {} nodes, higher at {})", r.lower, r.higher)
        });
        Some(format!(
            "Claim (c), that FGSM makes effects most negative: {}. Mean effect over {} live nodes under FGSM, {}.",
            judged.verdict,
            judged.live,
            rivals.collect::<Vec<_>>().join(", ")
        ))
    }
}
