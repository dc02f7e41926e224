//! Condition II, X <- Y: the known symptom is masked. Y is the finding whose box is on the image; the mask takes that box
//! ([`Region::Box`]), its control as much beside it ([`Region::OutsideBox`]).
//!
//! Three things are asked, each of the box, of the control, and of the box less the control (paired): what the mask does to the
//! host's probability of Y; what it does to that of the net with the autoencoder; and, node by node, what it does to the node's
//! effect (class-weighted, and on Y): effect under the mask less effect without.

use super::{Judge, Measured, UNITS_MIN, told};
use crate::causal::analysis::responses;
use crate::causal::effect::Responses;
use crate::causal::mask::Region;
use crate::causal::statistics::holm;
use crate::causal::study::{Answers, Input, Shard};
use crate::causal::{CausalError, intervention::NodeSet, named_nodes};
use crate::model::Head;
use serde::Serialize;
use std::fmt;

/// What condition II came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Symptoms {
    /// Images with a box.
    pub images: usize,
    /// Patients, each one unit of the intervals.
    pub patients: usize,
    /// Images a finding, in the network's order.
    pub findings: Vec<(u32, usize)>,
    /// Every quantity.
    pub measured: Vec<Measured>,
    /// What the mask does to effects of nodes; none below [`UNITS_MIN`] patients.
    pub nodes: Option<Counts>,
}

/// Nodes by what the mask does to their effect (beyond what as much beside it does, where that was measured), of those whose effect
/// it changes at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Nodes whose effect changes on some image.
    pub touched: usize,
    /// Of those: not 0 after Holm over them, and not shown to lie within the margin.
    pub different: usize,
    /// Within the margin.
    pub equivalent: usize,
}

impl Counts {
    fn of(measured: &[Measured], alpha: f64) -> Counts {
        let of = |quantity: &str| -> Vec<&Measured> {
            let still = |m: &Measured| m.mean == Some(0.0) && m.interval.is_some_and(|i| i.lo == 0.0 && i.hi == 0.0);
            measured.iter().filter(|m| m.quantity == quantity && !m.node.contains('+') && !still(m)).collect()
        };
        let mut nodes = of("change of ece: box less beside");
        if !measured.iter().any(|m| m.quantity == "change of ece: box less beside") {
            nodes = of("change of ece: box");
        }
        let adjusted = holm(&nodes.iter().map(|m| m.p_zero).collect::<Vec<_>>());
        let within = |m: &Measured| m.p_margin.is_some_and(|p| p <= alpha);
        let differs = |(m, p): &(&&Measured, Option<f64>)| !within(m) && p.is_some_and(|p| p <= alpha);
        Counts {
            touched: nodes.len(),
            different: nodes.iter().zip(adjusted).filter(differs).count(),
            equivalent: nodes.iter().filter(|m| within(m)).count(),
        }
    }
}

/// One image's numbers under one mask, in the order of [`quantities`].
fn values(clean: &Responses, masked: &Responses, finding: usize, sets: usize) -> Result<Vec<f64>, CausalError> {
    let of = |p: &[f64]| p.get(finding).copied().unwrap_or(f64::NAN);
    let mut all = vec![of(masked.p_orig()) - of(clean.p_orig()), of(masked.p_idle()) - of(clean.p_idle())];
    for set in 0..sets {
        let weighted = |r: &Responses| Ok::<f64, CausalError>(r.split(set)?.node);
        all.push(weighted(masked)? - weighted(clean)?);
        all.push(of(&masked.node_effects(set)?) - of(&clean.node_effects(set)?));
    }
    Ok(all)
}

/// Names and nodes of what [`values`] holds.
fn quantities(sets: &[NodeSet]) -> Vec<(&'static str, String)> {
    let nodes = sets.iter().flat_map(|set| {
        let node = named_nodes(set);
        [("change of ece", node.clone()), ("change of effect on Y", node)]
    });
    [("p_orig of Y", String::new()), ("p_idle of Y", String::new())].into_iter().chain(nodes).collect()
}

impl Symptoms {
    /// Of a study with an input that masks boxes, on images whose marked findings are `findings`; `None` for a study without.
    ///
    /// # Errors
    /// [`CausalError`] when shards, findings and judge are not of the same images.
    pub fn of(
        shards: &[Shard],
        sets: &[NodeSet],
        (head, classes): (Head, usize),
        findings: &[u32],
        judge: &Judge,
    ) -> Result<Option<Symptoms>, CausalError> {
        let under = |wanted: fn(&Region) -> bool| move |a: &Answers| matches!(a.input, Input::Pwm { region, .. } if wanted(&region));
        let boxes = under(|region| matches!(region, Region::Box(_)));
        let beside = under(|region| matches!(region, Region::OutsideBox(_)));
        if !shards.iter().all(|shard| shard.answers.iter().any(boxes)) || shards.is_empty() {
            return Ok(None);
        }
        let controlled = shards.iter().all(|shard| shard.answers.iter().any(beside));
        let names = quantities(sets);
        let (mut inside, mut outside) = (vec![Vec::new(); names.len()], vec![Vec::new(); names.len()]);
        let mut images = 0;
        for shard in shards {
            for i in 0..shard.ids.len() {
                let finding = findings.get(images).copied().unwrap_or(u32::MAX) as usize;
                images += 1;
                let clean = responses(&shard.answers[0], i, sets.len(), head, classes)?;
                let mean_under = |which: &dyn Fn(&Answers) -> bool, columns: &mut [Vec<f64>]| {
                    let mut sums = vec![0.0; names.len()];
                    let masks: Vec<&Answers> = shard.answers.iter().filter(|a| which(a)).collect();
                    for answers in &masks {
                        let masked = responses(answers, i, sets.len(), head, classes)?;
                        let values = values(&clean, &masked, finding, sets.len())?;
                        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                    }
                    columns.iter_mut().zip(sums).for_each(|(column, sum)| column.push(sum / masks.len() as f64));
                    Ok::<(), CausalError>(())
                };
                mean_under(&boxes, &mut inside)?;
                if controlled {
                    mean_under(&beside, &mut outside)?;
                }
            }
        }
        let mut measured = Vec::new();
        for ((name, node), (inside, outside)) in names.iter().zip(inside.iter().zip(&outside)) {
            measured.push(judge.measure(&format!("{name}: box"), node, inside)?);
            if controlled {
                measured.push(judge.measure(&format!("{name}: beside"), node, outside)?);
                let paired: Vec<f64> = inside.iter().zip(outside).map(|(a, b)| a - b).collect();
                measured.push(judge.measure(&format!("{name}: box less beside"), node, &paired)?);
            }
        }
        let mut counts = vec![0usize; classes];
        for &finding in findings {
            if let Some(count) = counts.get_mut(finding as usize) {
                *count += 1;
            }
        }
        let findings = counts.into_iter().enumerate().filter(|(_, n)| *n > 0).map(|(f, n)| (f as u32, n)).collect();
        let patients = judge.bootstrap.clusters().count();
        let nodes = (patients >= UNITS_MIN).then(|| Counts::of(&measured, 1.0 - judge.level));
        Ok(Some(Symptoms { images, patients, findings, measured, nodes }))
    }

    fn row(&self, quantity: &str) -> Option<&Measured> {
        self.measured.iter().find(|m| m.quantity == quantity)
    }
}

impl fmt::Display for Symptoms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Condition II (X <- Y), the known symptom masked: {} images with a box, of {} patients, {} findings.",
            self.images,
            self.patients,
            self.findings.len()
        )?;
        for (what, quantity) in [("host", "p_orig of Y"), ("net with the autoencoder", "p_idle of Y")] {
            let part = |place: &str| self.row(&format!("{quantity}: {place}")).map(told);
            let Some(inside) = part("box") else { continue };
            write!(f, "  change of the {what}'s probability of the finding: {inside} under its box")?;
            match part("beside").zip(part("box less beside")) {
                Some((beside, less)) => writeln!(f, ", {beside} under as much beside it; box less beside {less}")?,
                None => writeln!(f)?,
            }
        }
        let nodes: Vec<&Measured> =
            self.measured.iter().filter(|m| m.quantity == "change of ece: box" && !m.node.contains('+')).collect();
        let largest = nodes.iter().max_by(|a, b| {
            let size = |m: &Measured| m.mean.map_or(0.0, f64::abs);
            size(a).total_cmp(&size(b))
        });
        if let Some(largest) = largest {
            writeln!(
                f,
                "  change of a node's effect, the largest of {}: node {} {}",
                nodes.len(),
                largest.node,
                told(largest)
            )?;
        }
        let Some(Counts { touched, different, equivalent }) = self.nodes else {
            return writeln!(f, "  No verdict: {} patients or images are fewer than {UNITS_MIN}.", self.patients);
        };
        let beyond = if self.row("p_orig of Y: beside").is_some() { " beyond what as much beside it does" } else { "" };
        writeln!(
            f,
            "  Of {touched} nodes whose effect the mask touches it changes {different}{beyond} (Holm over nodes), leaves {equivalent} within \
             the margin, and {} are undecided.",
            touched.saturating_sub(different + equivalent)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::fill::Fill;
    use crate::causal::statistics::{Bootstrap, Clusters, Likeness};
    use crate::causal::sweep::Logits;

    const PWM: fn(Region) -> Input = |region| Input::Pwm { masks: 1, fill: Fill::Value(1.0), region };

    /// Two findings, one node: under its box finding 1 loses `drop`, and beside it nothing; the node's effect does not change.
    fn study(n: usize, drop: f32) -> Vec<Shard> {
        let answers = |input: Input, by: f32| {
            let rows: Vec<[f32; 2]> = (0..n).map(|i| [0.5, 1.0 + 0.01 * i as f32 - by]).collect();
            let idle: Vec<f32> = rows.concat();
            let done = rows.iter().flat_map(|[a, b]| [a - 0.25, *b]).collect();
            let logits = Logits { orig: idle.clone(), idle, done, live: vec![true; n] };
            Answers { input, mask: 0, fraction: vec![0.1; n], logits }
        };
        let answers = vec![
            answers(Input::None, 0.0),
            answers(PWM(Region::Box(None)), drop),
            answers(PWM(Region::OutsideBox(None)), 0.0),
        ];
        vec![Shard { first: 0, ids: (0..n as u64).collect(), labels: vec![1; n], answers }]
    }

    fn of(n: usize, drop: f32) -> Symptoms {
        let bootstrap = Bootstrap::of_clusters(&Clusters::single(n).unwrap(), 100, 0).unwrap();
        let judge = Judge { bootstrap, level: 0.95, margin: 0.01 };
        let sets = [NodeSet::of(&[0], 1).unwrap()];
        Symptoms::of(&study(n, drop), &sets, (Head::Sigmoid, 2), &vec![1; n], &judge)
            .unwrap()
            .expect("a study of boxes")
    }

    #[test]
    fn masking_the_symptom_is_told_from_masking_as_much_beside_it() {
        let found = of(40, 1.5);
        assert_eq!((found.images, found.patients, &found.findings), (40, 40, &vec![(1, 40)]));
        let sigmoid = |o: f64| 1.0 / (1.0 + (-o).exp());
        let own = |i: i32| f64::from(1.0f32 + 0.01 * i as f32);
        let want = (0..40).map(|i| sigmoid(own(i) - 1.5) - sigmoid(own(i))).sum::<f64>() / 40.0;
        for (quantity, want, verdict) in [
            ("p_orig of Y: box", want, Likeness::Different),
            ("p_orig of Y: beside", 0.0, Likeness::Equivalent),
            ("p_idle of Y: box less beside", want, Likeness::Different),
            ("change of ece: box", 0.0, Likeness::Equivalent),
            ("change of effect on Y: box", 0.0, Likeness::Equivalent),
        ] {
            let row = found.row(quantity).unwrap_or_else(|| panic!("{quantity}"));
            assert!((row.mean.unwrap() - want).abs() < 1e-7, "{row:?} {want}");
            assert_eq!(row.verdict, Some(verdict), "{row:?}");
        }
        assert!(
            found.to_string().contains("Condition II")
                && found.to_string().contains("Of 0 nodes whose effect the mask touches")
        );
    }

    #[test]
    fn few_images_get_no_verdict_and_a_study_without_boxes_none_at_all() {
        let found = of(9, 1.5);
        assert!(found.measured.iter().all(|row| row.verdict.is_none() && row.n == 9));
        assert!(found.to_string().contains("9 patients or images are fewer than 30"), "{found}");
        let bootstrap = Bootstrap::of_clusters(&Clusters::single(9).unwrap(), 100, 0).unwrap();
        let judge = Judge { bootstrap, level: 0.95, margin: 0.01 };
        let mut plain = study(9, 0.0);
        plain[0].answers.truncate(1);
        let sets = [NodeSet::of(&[0], 1).unwrap()];
        assert_eq!(Symptoms::of(&plain, &sets, (Head::Sigmoid, 2), &[1; 9], &judge).unwrap(), None);
    }
}
