//! Condition III, Z <- X -> Y: one cause of two tasks. Y are the fourteen findings; Z is a second head on the fourteen
//! probabilities, a linear layer of two outputs and a softmax, which tells images of five findings ("not lung related", as the
//! paper's code groups them) from images of the other nine. It learns from images with exactly one finding, by the log loss with
//! a ridge penalty, so its minimum is one; two softmax outputs are one logistic regression.
//!
//! Two interventions: a node to 0 inside the network, and the outputs [`OUTPUTS`] to 0, as the paper's code has it. Effects on both
//! tasks are class-weighted: on Y the mean over findings of (2 p - 1)(q - p), on Z the same of its two classes, which is what E1
//! comes to for two. The paper's claim (f) is that the joint effect "is not obvious".

use super::{Judge, Measured, UNITS_MIN, told};
use crate::causal::analysis::responses;
use crate::causal::claims::LIVE_MIN;
use crate::causal::statistics::{Likeness, holm, pearson, spearman};
use crate::causal::study::Shard;
use crate::causal::{CausalError, intervention::NodeSet, named_nodes};
use crate::detect::DetectError;
use crate::detect::logistic::{Logistic, PENALTY};
use crate::model::Head;
use serde::Serialize;
use std::fmt;

/// Findings the network must have.
pub const FINDINGS: usize = 14;
/// The findings of the second head's class 1: Cardiomegaly, Effusion, Infiltration, Pleural_Thickening, Hernia.
pub const GROUP: [usize; 5] = [1, 2, 3, 12, 13];
/// The outputs that are set to 0: Effusion, Infiltration, Pleural_Thickening, Hernia.
pub const OUTPUTS: [usize; 4] = [2, 3, 12, 13];

/// The second head: from the probabilities of fourteen findings to that of class 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SecondHead {
    /// The layer.
    regression: Logistic,
    /// Images it learnt from.
    pub images: usize,
    /// Of those of class 1.
    pub of_class_1: usize,
}

impl SecondHead {
    /// From rows of fourteen probabilities, and the one finding of each image.
    ///
    /// # Errors
    /// [`DetectError`] without images of both classes, or for rows of another length.
    pub fn fit(rows: &[&[f64]], findings: &[usize]) -> Result<SecondHead, DetectError> {
        let class: Vec<bool> = findings.iter().map(|finding| GROUP.contains(finding)).collect();
        let regression = Logistic::fit(rows, &class, PENALTY)?;
        Ok(SecondHead { regression, images: rows.len(), of_class_1: class.iter().filter(|c| **c).count() })
    }

    /// Probability of class 1.
    pub fn probability(&self, findings: &[f64]) -> f64 {
        crate::answer::sigmoid(self.regression.score(findings))
    }

    /// Share of images with one finding that it puts into the right class; `None` without any.
    pub fn accuracy<'a>(&self, images: impl Iterator<Item = (&'a [f64], usize)>) -> Option<(f64, usize)> {
        let (mut right, mut n) = (0usize, 0usize);
        for (row, finding) in images {
            right += usize::from((self.probability(row) > 0.5) == GROUP.contains(&finding));
            n += 1;
        }
        (n > 0).then(|| (right as f64 / n as f64, n))
    }
}

/// The joint effect of one intervention.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Joint {
    /// Which nodes (`3`); `outputs` for [`OUTPUTS`].
    pub node: String,
    /// Effect on the findings.
    pub y: Measured,
    /// Effect on the second head.
    pub z: Measured,
    /// Pearson's correlation of both over images; none where one is constant.
    pub pearson: Option<f64>,
    /// Spearman's.
    pub spearman: Option<f64>,
    /// p of "not both within the margin" (intersection-union: the larger one).
    pub p_joint: Option<f64>,
    /// Whether a single node, with an effect on either task above the threshold of live ones.
    pub live: bool,
}

/// What condition III came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Multitask {
    /// The second head.
    pub head: SecondHead,
    /// Its accuracy on the study's images of one finding, and their number.
    pub accuracy: Option<(f64, usize)>,
    /// Images of the study.
    pub images: usize,
    /// Patients, each one unit of the intervals.
    pub patients: usize,
    /// How far from 0 is as good as 0.
    pub margin: f64,
    /// A joint effect an intervention, nodes first.
    pub joint: Vec<Joint>,
    /// Claim (f), that joint effects are not to be told from 0: over live nodes, equivalent where each is within the margin on both
    /// tasks; different where one is not 0 on one of them (Holm over nodes and tasks) and not shown to lie within. None below
    /// [`UNITS_MIN`] images or without live nodes.
    pub verdict: Option<Likeness>,
}

/// Class-weighted effect of two classes, or a finding: (2 p - 1)(q - p).
fn weighted(p: f64, q: f64) -> f64 {
    (2.0 * p - 1.0) * (q - p)
}

impl Multitask {
    /// Of a study of fourteen findings; `single` says for each image which finding it has, where it has exactly one.
    ///
    /// # Errors
    /// [`CausalError`] for a network of other answers, or when shards and judge are not of the same images.
    pub fn of(
        shards: &[Shard],
        sets: &[NodeSet],
        (head, classes): (Head, usize),
        second: SecondHead,
        single: &[Option<usize>],
        judge: &Judge,
    ) -> Result<Multitask, CausalError> {
        if (head, classes) != (Head::Sigmoid, FINDINGS) {
            let what = "the number of findings of a network with a second head";
            return Err(CausalError::Range { what, value: classes as f64, range: "14" });
        }
        // effects on Y and Z, one column an intervention: the sets, then the outputs
        let (mut y, mut z) = (vec![Vec::new(); sets.len() + 1], vec![Vec::new(); sets.len() + 1]);
        let mut rows = Vec::new();
        for shard in shards {
            for i in 0..shard.ids.len() {
                let clean = responses(&shard.answers[0], i, sets.len(), head, classes)?;
                let p = clean.p_idle();
                let first = second.probability(p);
                let mut add = |at: usize, effect: f64, q: &[f64]| {
                    y[at].push(effect);
                    z[at].push(weighted(first, second.probability(q)));
                };
                for set in 0..sets.len() {
                    add(set, clean.split(set)?.node, &clean.p_zeroed(set)?);
                }
                let mut q = p.to_vec();
                OUTPUTS.iter().for_each(|&finding| q[finding] = 0.0);
                let effect = p.iter().zip(&q).map(|(p, q)| weighted(*p, *q)).sum::<f64>() / FINDINGS as f64;
                add(sets.len(), effect, &q);
                rows.push(clean.p_orig().to_vec());
            }
        }
        let known = rows.iter().zip(single).filter_map(|(row, finding)| Some((row.as_slice(), (*finding)?)));
        let accuracy = second.accuracy(known);
        let mut joint = Vec::new();
        for (at, (y, z)) in y.iter().zip(&z).enumerate() {
            let node = sets.get(at).map_or("outputs".into(), named_nodes);
            let (on_y, on_z) = (judge.measure("effect on Y", &node, y)?, judge.measure("effect on Z", &node, z)?);
            joint.push(Joint {
                pearson: pearson(y, z)?,
                spearman: spearman(y, z)?,
                p_joint: on_y.p_margin.zip(on_z.p_margin).map(|(a, b)| a.max(b)),
                // an effect that is no number is not none
                live: sets.get(at).is_some_and(|s| s.len() == 1)
                    && [&on_y, &on_z].iter().any(|m| m.mean.is_none_or(|mean| mean.abs() > LIVE_MIN)),
                y: on_y,
                z: on_z,
                node,
            });
        }
        let patients = judge.bootstrap.clusters().count();
        let verdict = verdict(&joint, 1.0 - judge.level).filter(|_| patients >= UNITS_MIN);
        Ok(Multitask { head: second, accuracy, images: rows.len(), patients, margin: judge.margin, joint, verdict })
    }

    /// Claim (f) in the words of the other claims' verdicts.
    pub fn claim(&self) -> &'static str {
        match self.verdict {
            Some(Likeness::Equivalent) => "holds",
            Some(Likeness::Different) => "fails",
            Some(Likeness::Undecided) => "undecided",
            None => "no verdict",
        }
    }
}

/// Claim (f) over live nodes.
fn verdict(joint: &[Joint], alpha: f64) -> Option<Likeness> {
    let live: Vec<&Joint> = joint.iter().filter(|j| j.live).collect();
    if live.is_empty() || live.iter().any(|j| j.y.mean.is_none() || j.z.mean.is_none()) {
        return None;
    }
    if live.iter().all(|j| j.p_joint.is_some_and(|p| p <= alpha)) {
        return Some(Likeness::Equivalent);
    }
    let tests: Vec<&Measured> = live.iter().flat_map(|j| [&j.y, &j.z]).collect();
    let adjusted = holm(&tests.iter().map(|t| t.p_zero).collect::<Vec<_>>());
    let differs = tests.iter().zip(adjusted).any(|(test, p)| {
        let within = test.p_margin.is_some_and(|p| p <= alpha);
        !within && p.is_some_and(|p| p <= alpha)
    });
    Some(if differs { Likeness::Different } else { Likeness::Undecided })
}

impl fmt::Display for Multitask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let learnt = format!("{} images of one finding ({} of class 1)", self.head.images, self.head.of_class_1);
        write!(f, "Condition III (Z <- X -> Y), two tasks: a second head learnt from {learnt}")?;
        match self.accuracy {
            Some((share, n)) => writeln!(f, "; right on {:.1} % of {n} images that it has not seen.", 100.0 * share)?,
            None => writeln!(f, "; no image to judge it on.")?,
        }
        let live = self.joint.iter().filter(|j| j.live).count();
        let line = |j: &Joint| {
            let r = j.spearman.map_or("-".into(), |r| format!("{r:+.2}"));
            format!("on Y {}, on Z {}, rank correlation {r}", told(&j.y), told(&j.z))
        };
        for j in self.joint.iter().filter(|j| j.live || j.node == "outputs") {
            let what = if j.node == "outputs" { "outputs 2, 3, 12, 13".into() } else { format!("node {}", j.node) };
            writeln!(f, "  {what} at 0: {}", line(j))?;
        }
        match self.verdict {
            None if self.patients < UNITS_MIN => {
                writeln!(f, "  No verdict: {} patients or images are fewer than {UNITS_MIN}.", self.patients)
            }
            None if live > 0 => writeln!(f, "  No verdict: an effect is no number."),
            None => writeln!(f, "  No verdict: no node has an effect above {LIVE_MIN:e}."),
            Some(_) => {
                let within = self.joint.iter().filter(|j| j.live && j.y.verdict == Some(Likeness::Equivalent));
                let both = within.filter(|j| j.z.verdict == Some(Likeness::Equivalent)).count();
                writeln!(
                    f,
                    "  Claim (f), that joint effects are not to be told from 0 (within {}): {}. Of {live} live nodes {both} are within the \
                     margin on both tasks.",
                    self.margin,
                    self.claim()
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::statistics::{Bootstrap, Clusters};
    use crate::causal::study::{Answers, Input};
    use crate::causal::sweep::Logits;
    use crate::random::Stream;

    /// Images whose findings 2 and 5 answer by two nodes: node 0 moves finding 2, node 1 moves nothing.
    fn study(n: usize, by: f32) -> (Vec<Shard>, Vec<NodeSet>) {
        let stream = Stream::new(5, "test");
        let mut logits = Logits { orig: vec![], idle: vec![], done: vec![], live: vec![] };
        for i in 0..n {
            let row: Vec<f32> = (0..14).map(|c| 4.0 * stream.uniform(i as u64, c) - 2.0).collect();
            let mut changed = row.clone();
            changed[2] += by;
            logits.orig.extend(&row);
            logits.idle.extend(&row);
            logits.done.extend(changed.iter().chain(&row));
            logits.live.extend([true, true]);
        }
        let answers = vec![Answers { input: Input::None, mask: 0, fraction: vec![], logits }];
        let shard = Shard { first: 0, ids: (0..n as u64).collect(), labels: vec![0; n], answers };
        (vec![shard], [[0], [1]].iter().map(|nodes| NodeSet::of(nodes, 2).unwrap()).collect())
    }

    fn judge(n: usize) -> Judge {
        let bootstrap = Bootstrap::of_clusters(&Clusters::single(n).unwrap(), 200, 0).unwrap();
        Judge { bootstrap, level: 0.95, margin: 0.01 }
    }

    /// Learns that a high finding 2 is class 1 and a high finding 5 is class 0.
    fn second() -> SecondHead {
        let rows: Vec<Vec<f64>> = (0..40)
            .map(|i| {
                let mut row = vec![0.2; 14];
                row[if i % 2 == 0 { 2 } else { 5 }] = 0.6 + 0.01 * f64::from(i);
                row
            })
            .collect();
        let views: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        let findings: Vec<usize> = (0..40).map(|i| if i % 2 == 0 { 2 } else { 5 }).collect();
        SecondHead::fit(&views, &findings).unwrap()
    }

    #[test]
    fn a_second_head_tells_the_groups_apart_and_needs_both() {
        let head = second();
        assert_eq!((head.images, head.of_class_1), (40, 20));
        let (mut one, mut other) = (vec![0.2; 14], vec![0.2; 14]);
        (one[2], other[5]) = (0.9, 0.9);
        assert!(head.probability(&one) > 0.9 && head.probability(&other) < 0.1);
        let seen = [(one.as_slice(), 2), (other.as_slice(), 5), (other.as_slice(), 2)];
        assert_eq!(head.accuracy(seen.into_iter()), Some((2.0 / 3.0, 3)));
        assert_eq!(head.accuracy(std::iter::empty()), None);
        assert!(SecondHead::fit(&[&one, &other], &[2, 3]).is_err());
    }

    #[test]
    fn a_node_that_moves_a_finding_moves_both_tasks_and_one_that_moves_none_neither() {
        let n = 200;
        let (shards, sets) = study(n, -3.0);
        let single = vec![Some(2); n];
        let of = Multitask::of(&shards, &sets, (Head::Sigmoid, 14), second(), &single, &judge(n)).unwrap();
        let [moved, still, outputs] = &of.joint[..] else { panic!("{:?}", of.joint.len()) };
        assert!(moved.live && !still.live && outputs.node == "outputs");
        assert_eq!((still.y.mean, still.z.mean), (Some(0.0), Some(0.0)));
        assert_eq!(still.p_joint, Some(0.0));
        // by hand: finding 2 alone changes
        let p = shards[0].answers[0].logits.idle.chunks_exact(14).map(|row| f64::from(row[2]));
        let sigmoid = |o: f64| 1.0 / (1.0 + (-o).exp());
        let want = p.map(|o| (2.0 * sigmoid(o) - 1.0) * (sigmoid(o - 3.0) - sigmoid(o)) / 14.0).sum::<f64>() / n as f64;
        assert!((moved.y.mean.unwrap() - want).abs() < 1e-7, "{:?} {want}", moved.y);
        assert_eq!((of.verdict, of.claim()), (Some(Likeness::Different), "fails"));
        assert!(of.to_string().contains("Claim (f)") && of.to_string().contains("fails"), "{of}");
        // a hundredth of that is within the margin on both
        let (shards, _) = study(n, -0.03);
        let of = Multitask::of(&shards, &sets, (Head::Sigmoid, 14), second(), &single, &judge(n)).unwrap();
        assert_eq!((of.verdict, of.claim()), (Some(Likeness::Equivalent), "holds"), "{of}");
    }

    #[test]
    fn few_images_and_other_networks_get_no_verdict() {
        let (shards, sets) = study(29, -3.0);
        let of = Multitask::of(&shards, &sets, (Head::Sigmoid, 14), second(), &[], &judge(29)).unwrap();
        assert_eq!((of.verdict, of.accuracy), (None, None));
        assert!(of.to_string().contains("29 patients or images are fewer than 30"), "{of}");
        assert!(Multitask::of(&shards, &sets, (Head::Softmax, 14), second(), &[], &judge(29)).is_err());
        assert!(Multitask::of(&shards, &sets, (Head::Sigmoid, 14), second(), &[], &judge(30)).is_err());
    }
}
