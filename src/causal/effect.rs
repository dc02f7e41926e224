//! What an intervention changed: effects per class from two rows of logits, and the numbers made of them.
//!
//! Holds the probabilities of a [`Head`], [`effects`] (q - p without cancellation), the estimands E1, E3, E4, the
//! potential outcomes of one image ([`Responses`], [`Outcomes`]) with the readings Z0, R1..R6, and the artefacts of the
//! paper's released code ([`Artefact`]). Called by the sweep (one `Outcomes` an image) and by `claims`.
//!
//! Rows of logits are f32 of length `classes`; everything after them is f64, for effects are differences of
//! near-equal numbers: the same forms in f32 lose a factor 20 to 70.

use super::{CausalError, named, same_length};
use crate::answer::{Head, difference, widen};
use crate::tensor::argmax;

named!(Head, "head", { Softmax => "softmax", Sigmoid => "sigmoid" });

/// The number made of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Estimand {
    /// sum_c w_c (q_c - p_c): what the paper's released code computes as "expected causal effect" (for a sigmoid head:
    /// the option `dot`).
    E1,
    /// mean_j (2 w_j - 1)(q_j - p_j): E1 of each label's Bernoulli pair, the form for a sigmoid head.
    Bernoulli,
    /// mean of q_c - p_c over the images labelled c (average treatment effect per class).
    E3,
    /// change of the margin o_c - max_{j != c} o_j, on logits.
    E4,
}

named!(Estimand, "estimand", { E1 => "e1", Bernoulli => "bernoulli", E3 => "e3", E4 => "e4" });

/// Which two potential outcomes P\[a\]\[b\] are compared (a: input clean 0 or perturbed a; b: node idle 0 or zeroed 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reading {
    /// P\[0\]\[1\] - P\[0\]\[0\], weights P\[0\]\[0\]: the node's effect on the clean input.
    Z0,
    /// P\[a\]\[1\] - P\[a\]\[0\], weights P\[a\]\[0\]: the node's effect on the perturbed input (the default for the
    /// paper's columns PWM and FGSM).
    R1,
    /// P\[a\]\[1\] - P\[0\]\[0\], weights P\[0\]\[0\]: both interventions at once; no effect of the node alone.
    R2,
    /// (P\[a\]\[1\] - P\[a\]\[0\]) - (P\[0\]\[1\] - P\[0\]\[0\]), weights P\[0\]\[0\]: the interaction.
    R3,
    /// P\[a\]\[1\] - P\[0\]\[1\], weights P\[0\]\[1\]: the perturbation's effect with the node zeroed.
    R4,
    /// P_ae\[a\] - P_orig\[a\], weights P_orig\[a\]: the autoencoder's gap on the perturbed input; no node in it.
    R5,
    /// P\[a\]\[0\] - P\[0\]\[0\], weights P\[0\]\[0\]: the perturbation's effect with the node idle; no node in it. What
    /// the two do by themselves and what they do only together add up: R2 = Z0 + R6 + R3.
    R6,
}

named!(Reading, "reading", { Z0 => "Z0", R1 => "R1", R2 => "R2", R3 => "R3", R4 => "R4", R5 => "R5", R6 => "R6" });

/// Arithmetic of the paper's released notebooks that can make its claims by itself; used on the perturbed row (R1)
/// only, which is how the notebooks have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Artefact {
    /// Correct arithmetic.
    None,
    /// p and q pass the softmax twice: shrinks |ECE1| 5.5 (C = 2), 34.45 (C = 10), 59.4 (C = 14), 215,000 (C = 1000)
    /// times in the limit of a one-hot p. Softmax head only.
    DoubleSoftmax,
    /// p is the network without the autoencoder, so the autoencoder's own error counts as the node's effect.
    BaselineOrig,
}

named!(Artefact, "artefact", { None => "none", DoubleSoftmax => "double-softmax", BaselineOrig => "baseline-orig" });

impl Head {
    /// The class-weighted estimand of this head: E1 for a softmax, `bernoulli` for a sigmoid.
    pub fn estimand(self) -> Estimand {
        match self {
            Head::Softmax => Estimand::E1,
            Head::Sigmoid => Estimand::Bernoulli,
        }
    }
}

/// Effect per class of an intervention: Effect_c = q_c - p_c (ICIP 2019, eq. (1)), p from `idle`, q from `intervened`.
///
/// See [`difference`] for the form, which keeps the digits of small effects. Identical rows give exactly 0.0. NaN logits give NaN.
///
/// # Errors
/// [`CausalError::Length`] when the rows differ in length.
pub fn effects(head: Head, idle: &[f32], intervened: &[f32]) -> Result<Vec<f64>, CausalError> {
    same_length("logits under the intervention", idle.len(), intervened.len())?;
    let idle = widen(idle);
    Ok(difference(head, &head.of(&idle), &idle, &widen(intervened)))
}

/// As [`effects`] for logits that are f64 already (the reference device's).
///
/// # Errors
/// [`CausalError::Length`] when the rows differ in length.
pub fn effects_f64(head: Head, idle: &[f64], intervened: &[f64]) -> Result<Vec<f64>, CausalError> {
    same_length("logits under the intervention", idle.len(), intervened.len())?;
    Ok(difference(head, &head.of(idle), idle, intervened))
}

/// The class-weighted effect of one image: E1 = sum_c w_c e_c, or for [`Estimand::Bernoulli`] mean_j (2 w_j - 1) e_j,
/// with weights w = the p of the reading and e = the effects per class.
///
/// # Errors
/// [`CausalError::Length`] when the lengths differ; [`CausalError::Name`] for E3 and E4, which are not class-weighted
/// (means over images, [`margin_effect`]).
pub fn class_weighted(estimand: Estimand, weights: &[f64], effects: &[f64]) -> Result<f64, CausalError> {
    same_length("effects per class", weights.len(), effects.len())?;
    match estimand {
        Estimand::E1 => Ok(Head::Softmax.weighted(weights, effects)),
        Estimand::Bernoulli => Ok(Head::Sigmoid.weighted(weights, effects)),
        Estimand::E3 | Estimand::E4 => Err(CausalError::Name {
            what: "class-weighted estimand",
            text: estimand.name().to_owned(),
            nearest: Estimand::E1.name().to_owned(),
        }),
    }
}

/// E4: the change of the margin o_c - max_{j != c} o_j of `class`, intervened minus idle, in units of logits.
///
/// # Errors
/// [`CausalError::Length`] when the rows differ in length, [`CausalError::Index`] for a class past them,
/// [`CausalError::Range`] when there is no second class.
pub fn margin_effect(idle: &[f32], intervened: &[f32], class: usize) -> Result<f64, CausalError> {
    same_length("logits under the intervention", idle.len(), intervened.len())?;
    if class >= idle.len() {
        return Err(CausalError::Index { what: "class", index: class, count: idle.len() });
    }
    if idle.len() < 2 {
        let value = idle.len() as f64;
        return Err(CausalError::Range { what: "the number of classes of a margin", value, range: "at least 2" });
    }
    let margin = |logits: &[f32]| {
        let others = logits.iter().enumerate().filter(|&(j, _)| j != class).map(|(_, &o)| f64::from(o));
        // f64::max would drop a NaN
        let best = others.fold(f64::NEG_INFINITY, |m, o| if o.is_nan() || o > m { o } else { m });
        if logits.iter().any(|o| o.is_nan()) { f64::NAN } else { f64::from(logits[class]) - best }
    };
    Ok(margin(intervened) - margin(idle))
}

/// How sure a row of probabilities is; |ECE1| is bounded by it (min p - |p|^2 <= ECE1 <= max p - |p|^2).
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Confidence {
    /// sum_c p_c^2.
    pub squared_norm: f64,
    /// max_c p_c; NaN when a probability is.
    pub max: f64,
}

impl Confidence {
    /// Of one row of probabilities.
    pub fn of(p: &[f64]) -> Self {
        let squared_norm: f64 = p.iter().map(|v| v * v).sum();
        let max = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Confidence { squared_norm, max: if squared_norm.is_nan() { f64::NAN } else { max } }
    }
}

/// ECE of one image and node split at the autoencoder, all three weighted with p_idle: total = recon + node.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Split {
    /// Network without autoencoder to node zeroed (p_orig to q).
    pub total: f64,
    /// Network without autoencoder to autoencoder in place (p_orig to p_idle): no intervention in it.
    pub recon: f64,
    /// Autoencoder in place to node zeroed (p_idle to q): the effect of the node.
    pub node: f64,
}

/// What the network answered to one input: logits of the plain network, with the autoencoder in place (idle), and with
/// each node zeroed. The f32 of the device, widened; the probabilities of the two baselines are kept with them.
#[derive(Clone, Debug)]
pub struct Responses {
    head: Head,
    orig: Vec<f64>,
    idle: Vec<f64>,
    zeroed: Vec<Vec<f64>>,
    p_orig: Vec<f64>,
    p_idle: Vec<f64>,
}

impl Responses {
    /// From logits of length `classes`: `orig`, `idle`, and `zeroed`, (nodes x classes) row-major: logits under
    /// do(N = 0) for each node N.
    ///
    /// # Errors
    /// [`CausalError::Length`] when `idle` is not as long as `orig` or `zeroed` is no whole number of rows;
    /// [`CausalError::Range`] without classes.
    pub fn new(head: Head, orig: &[f32], idle: &[f32], zeroed: &[f32]) -> Result<Self, CausalError> {
        let classes = orig.len();
        if classes == 0 {
            return Err(CausalError::Range { what: "the number of classes", value: 0.0, range: "at least 1" });
        }
        same_length("idle logits", classes, idle.len())?;
        let whole = zeroed.len() / classes * classes;
        same_length("logits with nodes zeroed (nodes x classes)", whole, zeroed.len())?;
        let (orig, idle) = (widen(orig), widen(idle));
        let (p_orig, p_idle) = (head.of(&orig), head.of(&idle));
        Ok(Responses { head, orig, idle, zeroed: zeroed.chunks(classes).map(widen).collect(), p_orig, p_idle })
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.zeroed.len()
    }

    /// Number of classes or labels.
    pub fn classes(&self) -> usize {
        self.orig.len()
    }

    /// How logits become probabilities.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Logits of the network without the autoencoder, per class.
    pub fn orig(&self) -> &[f64] {
        &self.orig
    }

    /// Logits with the autoencoder in place and nothing intervened on, per class.
    pub fn idle(&self) -> &[f64] {
        &self.idle
    }

    /// Logits with node `node` zeroed, per class.
    ///
    /// # Errors
    /// [`CausalError::Index`] when there is no such node.
    pub fn zeroed(&self, node: usize) -> Result<&[f64], CausalError> {
        self.row(node)
    }

    /// p of the network without the autoencoder, per class.
    pub fn p_orig(&self) -> &[f64] {
        &self.p_orig
    }

    /// p with the autoencoder in place and nothing intervened on, per class.
    pub fn p_idle(&self) -> &[f64] {
        &self.p_idle
    }

    /// q with node `node` zeroed, per class.
    ///
    /// # Errors
    /// [`CausalError::Index`] when there is no such node.
    pub fn p_zeroed(&self, node: usize) -> Result<Vec<f64>, CausalError> {
        Ok(self.head.of(self.row(node)?))
    }

    /// How sure p_idle is.
    pub fn confidence(&self) -> Confidence {
        Confidence::of(&self.p_idle)
    }

    /// Effect per class of zeroing `node`, q - p_idle.
    ///
    /// # Errors
    /// [`CausalError::Index`] when there is no such node.
    pub fn node_effects(&self, node: usize) -> Result<Vec<f64>, CausalError> {
        Ok(difference(self.head, &self.p_idle, &self.idle, self.row(node)?))
    }

    /// Effect per class of putting the autoencoder in, p_idle - p_orig.
    pub fn recon_effects(&self) -> Vec<f64> {
        difference(self.head, &self.p_orig, &self.orig, &self.idle)
    }

    /// ECE split at the autoencoder, every part weighted with p_idle (softmax: E1, sigmoid: `bernoulli`).
    ///
    /// # Errors
    /// [`CausalError::Index`] when there is no such node.
    pub fn split(&self, node: usize) -> Result<Split, CausalError> {
        let total = difference(self.head, &self.p_orig, &self.orig, self.row(node)?);
        let weigh = |effects: &[f64]| class_weighted(self.head.estimand(), &self.p_idle, effects);
        Ok(Split { total: weigh(&total)?, recon: self.recon()?, node: weigh(&self.node_effects(node)?)? })
    }

    /// The autoencoder's own part of [`Split`], the same for every node: p_orig to p_idle, weighted with p_idle.
    ///
    /// # Errors
    /// None that [`Responses::new`] has not excluded.
    pub fn recon(&self) -> Result<f64, CausalError> {
        class_weighted(self.head.estimand(), &self.p_idle, &self.recon_effects())
    }

    /// Whether zeroing `node` changes the predicted class; `None` when logits are not numbers.
    ///
    /// # Errors
    /// [`CausalError::Index`] when there is no such node.
    pub fn flips(&self, node: usize) -> Result<Option<bool>, CausalError> {
        Ok(argmax(&self.idle).zip(argmax(self.row(node)?)).map(|(a, b)| a != b))
    }

    fn row(&self, node: usize) -> Result<&[f64], CausalError> {
        let row = self.zeroed.get(node).map(Vec::as_slice);
        row.ok_or(CausalError::Index { what: "node", index: node, count: self.zeroed.len() })
    }
}

/// The potential outcomes of one image: the clean input, and where there is one the same image perturbed (masked or
/// attacked). Every reading is derived from these.
#[derive(Clone, Debug)]
pub struct Outcomes {
    clean: Responses,
    perturbed: Option<Responses>,
}

impl Outcomes {
    /// Of a clean input only: reading Z0.
    pub fn new(clean: Responses) -> Self {
        Outcomes { clean, perturbed: None }
    }

    /// With the same image perturbed: all readings.
    ///
    /// # Errors
    /// [`CausalError::Length`] when classes or nodes differ, [`CausalError::Name`] when the heads do.
    pub fn with_perturbed(clean: Responses, perturbed: Responses) -> Result<Self, CausalError> {
        same_length("classes of the perturbed input", clean.classes(), perturbed.classes())?;
        same_length("nodes of the perturbed input", clean.nodes(), perturbed.nodes())?;
        if clean.head != perturbed.head {
            return Err(CausalError::Name {
                what: "head of the clean input",
                text: perturbed.head.to_string(),
                nearest: clean.head.to_string(),
            });
        }
        Ok(Outcomes { clean, perturbed: Some(perturbed) })
    }

    /// The answers to the clean input.
    pub fn clean(&self) -> &Responses {
        &self.clean
    }

    /// The answers to the perturbed input, where there is one.
    pub fn perturbed(&self) -> Option<&Responses> {
        self.perturbed.as_ref()
    }

    fn perturbed_for(&self, reading: Reading) -> Result<&Responses, CausalError> {
        self.perturbed.as_ref().ok_or(CausalError::NoPerturbedInput { reading })
    }

    /// Effects per class under `reading`; R5 has no node in it and is the same for all.
    ///
    /// # Errors
    /// [`CausalError::Index`] without such a node, [`CausalError::NoPerturbedInput`] for R1..R6 of a clean input.
    pub fn effects(&self, reading: Reading, node: usize) -> Result<Vec<f64>, CausalError> {
        let clean = &self.clean;
        let zeroed = clean.row(node)?;
        match reading {
            Reading::Z0 => clean.node_effects(node),
            Reading::R1 => self.perturbed_for(reading)?.node_effects(node),
            Reading::R2 => {
                Ok(difference(clean.head, &clean.p_idle, &clean.idle, self.perturbed_for(reading)?.row(node)?))
            }
            Reading::R3 => {
                let perturbed = self.perturbed_for(reading)?.node_effects(node)?;
                Ok(perturbed.iter().zip(&clean.node_effects(node)?).map(|(a, b)| a - b).collect())
            }
            Reading::R4 => {
                let perturbed = self.perturbed_for(reading)?;
                Ok(difference(clean.head, &clean.head.of(zeroed), zeroed, perturbed.row(node)?))
            }
            Reading::R5 => Ok(self.perturbed_for(reading)?.recon_effects()),
            Reading::R6 => Ok(difference(clean.head, &clean.p_idle, &clean.idle, &self.perturbed_for(reading)?.idle)),
        }
    }

    /// The p of `reading`, its class weights: P\[0\]\[0\] for Z0, R2, R3, R6; P\[a\]\[0\] for R1; P\[0\]\[1\] for R4;
    /// P_orig\[a\] for R5.
    ///
    /// # Errors
    /// As [`Outcomes::effects`].
    pub fn weights(&self, reading: Reading, node: usize) -> Result<Vec<f64>, CausalError> {
        match reading {
            Reading::Z0 | Reading::R2 | Reading::R3 | Reading::R6 => Ok(self.clean.p_idle.clone()),
            Reading::R1 => Ok(self.perturbed_for(reading)?.p_idle.clone()),
            Reading::R4 => self.clean.p_zeroed(node),
            Reading::R5 => Ok(self.perturbed_for(reading)?.p_orig.clone()),
        }
    }

    /// The class-weighted effect of this image under `reading` (softmax: E1, sigmoid: `bernoulli`), with the arithmetic
    /// of `artefact`.
    ///
    /// # Errors
    /// As [`Outcomes::effects`]; [`CausalError::Artefact`] for an artefact on another reading than R1, or for the
    /// double softmax on a sigmoid head.
    pub fn ece(&self, reading: Reading, node: usize, artefact: Artefact) -> Result<f64, CausalError> {
        let head = self.clean.head;
        if artefact != Artefact::None && reading != Reading::R1 {
            return Err(CausalError::Artefact {
                artefact,
                why: "it is defined on the perturbed row alone, reading R1",
            });
        }
        match artefact {
            Artefact::None => {
                class_weighted(head.estimand(), &self.weights(reading, node)?, &self.effects(reading, node)?)
            }
            Artefact::BaselineOrig => {
                let a = self.perturbed_for(reading)?;
                let effects = difference(head, &a.p_orig, &a.orig, a.row(node)?);
                class_weighted(head.estimand(), &a.p_orig, &effects)
            }
            Artefact::DoubleSoftmax if head == Head::Sigmoid => {
                Err(CausalError::Artefact { artefact, why: "a sigmoid head has no softmax to apply twice" })
            }
            Artefact::DoubleSoftmax => {
                let a = self.perturbed_for(reading)?;
                // The second softmax takes probabilities for logits; their change is the first one's effect, so it
                // goes in as it is instead of being subtracted again from rounded probabilities.
                let p = head.of(&a.p_idle);
                let effects = softmax_change(&p, &a.node_effects(node)?);
                class_weighted(Estimand::E1, &p, &effects)
            }
        }
    }
}

/// Change of softmax probabilities p when the logits change by d, |d| <= 1 (so -.64 < S < 1.72 and log1p(S) is well behaved).
pub(super) fn softmax_change(p: &[f64], d: &[f64]) -> Vec<f64> {
    let s: f64 = p.iter().zip(d).map(|(p, d)| p * d.exp_m1()).sum();
    p.iter().zip(d).map(|(p, d)| p * (d - s.ln_1p()).exp_m1()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Double-double arithmetic (about 106 bits), the oracle of the stable forms.
    #[derive(Clone, Copy)]
    struct Dd(f64, f64);

    impl Dd {
        fn sum(a: f64, b: f64) -> Dd {
            let s = a + b;
            let t = s - a;
            Dd(s, (a - (s - t)) + (b - t))
        }
        fn add(self, o: Dd) -> Dd {
            let (s, t) = (Dd::sum(self.0, o.0), Dd::sum(self.1, o.1));
            let u = Dd::sum(s.0, s.1 + t.0);
            Dd::sum(u.0, u.1 + t.1)
        }
        fn neg(self) -> Dd {
            Dd(-self.0, -self.1)
        }
        fn mul(self, o: Dd) -> Dd {
            let p = self.0 * o.0;
            let e = self.0.mul_add(o.0, -p);
            Dd::sum(p, e + (self.0 * o.1 + self.1 * o.0))
        }
        fn div(self, o: Dd) -> Dd {
            let first = self.0 / o.0;
            let rest = self.add(o.mul(Dd(first, 0.0)).neg());
            let second = rest.0 / o.0;
            let rest = rest.add(o.mul(Dd(second, 0.0)).neg());
            Dd::sum(first, second).add(Dd(rest.0 / o.0, 0.0))
        }
        fn exp(self) -> Dd {
            let k = (self.0 / std::f64::consts::LN_2).round();
            let ln2 = Dd(std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17);
            let r = self.add(ln2.mul(Dd(-k, 0.0)));
            let r = Dd(r.0 / 256.0, r.1 / 256.0);
            let (mut sum, mut term) = (Dd(1.0, 0.0), Dd(1.0, 0.0));
            for i in 1..14 {
                term = term.mul(r).div(Dd(f64::from(i), 0.0));
                sum = sum.add(term);
            }
            for _ in 0..8 {
                sum = sum.mul(sum);
            }
            let scale = 2f64.powi(k as i32);
            Dd(sum.0 * scale, sum.1 * scale)
        }
    }

    fn oracle(head: Head, logits: &[f64]) -> Vec<Dd> {
        let one = Dd(1.0, 0.0);
        match head {
            Head::Softmax => {
                let max = logits.iter().copied().fold(f64::MIN, f64::max);
                let e: Vec<Dd> = logits.iter().map(|&o| Dd::sum(o, -max).exp()).collect();
                let sum = e.iter().fold(Dd(0.0, 0.0), |s, &v| s.add(v));
                e.iter().map(|v| v.div(sum)).collect()
            }
            Head::Sigmoid => logits.iter().map(|&o| one.div(one.add(Dd(-o, 0.0).exp()))).collect(),
        }
    }

    fn oracle_effects(head: Head, idle: &[f64], intervened: &[f64]) -> Vec<f64> {
        let (p, q) = (oracle(head, idle), oracle(head, intervened));
        q.iter().zip(&p).map(|(q, p)| q.add(p.neg()).0).collect()
    }

    fn uniform(stream: &crate::random::Stream, image: u64, index: u32) -> f64 {
        f64::from(stream.uniform(image, index)) * 2.0 - 1.0
    }

    #[test]
    fn the_stable_form_keeps_the_digits_of_small_effects() {
        let s = crate::random::Stream::new(1, "test");
        for head in [Head::Softmax, Head::Sigmoid] {
            for (trial, exponent) in (0..900u64).zip((0..9).cycle()) {
                let scale = 10f64.powi(-exponent);
                let idle: Vec<f64> = (0..10).map(|c| 10.0 * uniform(&s, trial, c)).collect();
                let moved: Vec<f64> =
                    idle.iter().enumerate().map(|(c, o)| o + scale * uniform(&s, trial, 100 + c as u32)).collect();
                let p = head.of(&idle);
                let (got, want) = (difference(head, &p, &idle, &moved), oracle_effects(head, &idle, &moved));
                let mut naive_max = 0f64;
                for c in 0..10 {
                    // relative to the most this class can move: p (1-p for a sigmoid) times the change
                    let tolerance = 8.0 * f64::EPSILON * p[c] * (scale + scale * scale);
                    let tolerance = tolerance + 4.0 * f64::EPSILON * want[c].abs();
                    assert!((got[c] - want[c]).abs() <= tolerance, "{head} {scale:e}: {} not {}", got[c], want[c]);
                    naive_max = naive_max.max((head.of(&moved)[c] - p[c] - want[c]).abs() / scale);
                }
                if exponent == 8 {
                    assert!(naive_max > 1e-10, "the plain difference would do: {naive_max:e}");
                }
            }
        }
    }

    #[test]
    fn large_effects_are_right_up_to_a_sum_of_minus_one() {
        let s = crate::random::Stream::new(2, "test");
        for trial in 0..500u64 {
            // idle certain of class 0, intervened takes it away: S = p_0 expm1(-d) + ... goes from -.3 to -1
            let mut idle: Vec<f64> = (0..6).map(|c| 3.0 * uniform(&s, trial, c)).collect();
            idle[0] += 12.0;
            let mut moved: Vec<f64> =
                idle.iter().enumerate().map(|(c, o)| o + uniform(&s, trial, 50 + c as u32)).collect();
            moved[0] -= 0.05 * trial as f64;
            for head in [Head::Softmax, Head::Sigmoid] {
                let want = oracle_effects(head, &idle, &moved);
                let got = difference(head, &head.of(&idle), &idle, &moved);
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() <= 1e-15, "{head} {trial}: {got} not {want}");
                }
            }
        }
    }

    #[test]
    fn logits_eighty_apart_cost_no_digits() {
        // the expm1 form alone is off by 3e-14 here: q_c = p_c e^148 takes |d| ulps
        let e = effects(Head::Softmax, &[80.0, 0.0, -67.893654, 0.0], &[0.0, 47.99758, 80.0, 0.0]).unwrap();
        assert!(e.iter().sum::<f64>().abs() < 1e-15 && (e[2] - 1.0).abs() < 2e-14, "{e:?}");
    }

    #[test]
    fn extreme_logits_give_numbers_and_nan_gives_nan() {
        let huge = [f32::MAX, -f32::MAX, 0.0];
        for head in [Head::Softmax, Head::Sigmoid] {
            let e = effects(head, &[0.0, 800.0, -800.0], &[0.0, -800.0, 800.0]).unwrap();
            assert_eq!(e[1..], [-1.0, 1.0], "{head}");
            assert!(effects(head, &[0.0; 3], &huge).unwrap().iter().all(|e| e.is_finite()));
            assert_eq!(effects(head, &huge, &huge).unwrap(), [0.0; 3]);
            assert!(effects(head, &[0.0; 3], &[0.0, f32::NAN, 0.0]).unwrap()[1].is_nan());
            assert!(Confidence::of(&head.probabilities(&[1.0, f32::NAN])).max.is_nan());
        }
        assert!(effects(Head::Softmax, &[f32::NAN; 2], &[0.0; 2]).unwrap().iter().all(|e| e.is_nan()));
        assert!(effects(Head::Softmax, &[0.0; 2], &[0.0; 3]).is_err());
        // 1 - p survives where p rounds to 1
        let e = effects(Head::Sigmoid, &[80.0], &[79.0]).unwrap()[0];
        assert!((e / -((-79f64).exp() - (-80f64).exp()) - 1.0).abs() < 1e-14, "{e:e}");
    }

    fn logit() -> impl Strategy<Value = f32> {
        prop_oneof![4 => -5f32..5.0, 3 => -80f32..80.0, 1 => Just(80f32), 1 => Just(-80f32), 1 => Just(0f32)]
    }

    fn pair() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
        (2usize..20).prop_flat_map(|n| (prop::collection::vec(logit(), n), prop::collection::vec(logit(), n)))
    }

    fn e1(idle: &[f32], moved: &[f32]) -> f64 {
        let p = Head::Softmax.probabilities(idle);
        class_weighted(Estimand::E1, &p, &effects(Head::Softmax, idle, moved).unwrap()).unwrap()
    }

    fn squares(v: impl Iterator<Item = f64>) -> f64 {
        v.map(|x| x * x).sum()
    }

    proptest! {
        #[test]
        fn an_idle_intervention_has_effect_exactly_zero((idle, _) in pair()) {
            for head in [Head::Softmax, Head::Sigmoid] {
                let e = effects(head, &idle, &idle).unwrap();
                prop_assert!(e.iter().all(|e| e.to_bits() == 0));
                let r = Responses::new(head, &idle, &idle, &idle).unwrap();
                let o = Outcomes::with_perturbed(r.clone(), r).unwrap();
                for &reading in Reading::ALL {
                    prop_assert_eq!(o.ece(reading, 0, Artefact::None).unwrap(), 0.0);
                }
            }
        }

        #[test]
        fn softmax_effects_sum_to_zero((idle, moved) in pair()) {
            prop_assert!(effects(Head::Softmax, &idle, &moved).unwrap().iter().sum::<f64>().abs() < 1e-14);
        }

        #[test]
        fn e1_keeps_its_bounds_and_identities((idle, moved) in pair()) {
            let (p, q) = (Head::Softmax.probabilities(&idle), Head::Softmax.probabilities(&moved));
            let (e1, pp) = (e1(&idle, &moved), squares(p.iter().copied()));
            let min = p.iter().copied().fold(1.0, f64::min);
            let max = p.iter().copied().fold(0.0, f64::max);
            prop_assert!(e1 >= min - pp - 1e-14 && e1 <= max - pp + 1e-14);
            prop_assert!((-1.0 - 1e-14..=0.25 + 1e-14).contains(&e1));
            let identity = (squares(q.iter().copied()) - pp - squares(q.iter().zip(&p).map(|(q, p)| q - p))) / 2.0;
            prop_assert!((e1 - identity).abs() < 1e-14);
            let tv: f64 = q.iter().zip(&p).map(|(q, p)| (q - p).abs()).sum::<f64>() / 2.0;
            let log_sum = |o: &[f32]| {
                let m: f64 = o.iter().copied().fold(f32::MIN, f32::max).into();
                o.iter().map(|&v| (f64::from(v) - m).exp()).sum::<f64>().ln() + m
            };
            let (a, b) = (log_sum(&idle), log_sum(&moved));
            let kl: f64 = (0..p.len()).map(|c| p[c] * (f64::from(idle[c]) - a - f64::from(moved[c]) + b)).sum();
            prop_assert!(e1.abs() <= tv + 1e-14);
            prop_assert!(tv <= (kl.max(0.0) / 2.0).sqrt() + 1e-7);
        }

        #[test]
        fn a_uniform_p_has_no_e1_and_a_one_hot_p_only_loses((_, moved) in pair(), level in -80f32..80.0) {
            let n = moved.len();
            prop_assert!(e1(&vec![level; n], &moved).abs() < 1e-15);
            let mut one_hot = vec![-80f32; n];
            one_hot[n - 1] = 80.0;
            let q = Head::Softmax.probabilities(&moved);
            let e = e1(&one_hot, &moved);
            prop_assert!(e <= 1e-16 && (e - (q[n - 1] - 1.0)).abs() < 1e-14);
        }

        #[test]
        fn two_softmax_classes_are_one_bernoulli_label(o in prop::array::uniform4(-5000i32..5000)) {
            let [a, b, c, d] = o.map(|v| v as f32 / 64.0);
            let p = Head::Sigmoid.probabilities(&[a - b]);
            let e = effects(Head::Sigmoid, &[a - b], &[c - d]).unwrap();
            let bernoulli = class_weighted(Estimand::Bernoulli, &p, &e).unwrap();
            prop_assert!((e1(&[a, b], &[c, d]) - bernoulli).abs() < 1e-14);
        }

        #[test]
        fn permuting_classes_leaves_e1((idle, moved) in pair(), shift in 0usize..20) {
            let turn = |v: &[f32]| { let mut v = v.to_vec(); let n = v.len(); v.rotate_left(shift % n); v };
            prop_assert!((e1(&idle, &moved) - e1(&turn(&idle), &turn(&moved))).abs() < 1e-15);
        }

        #[test]
        fn total_is_recon_plus_node((orig, idle) in pair(), seed in 0u64..1000) {
            let s = crate::random::Stream::new(seed, "test");
            let zeroed: Vec<f32> = (0..idle.len()).map(|c| 20.0 * uniform(&s, 0, c as u32) as f32).collect();
            for head in [Head::Softmax, Head::Sigmoid] {
                let split = Responses::new(head, &orig, &idle, &zeroed).unwrap().split(0).unwrap();
                prop_assert!((split.total - split.recon - split.node).abs() < 1e-14);
            }
        }

        #[test]
        fn joint_effects_telescope((p00, p01) in pair(), seed in 0u64..1000) {
            let s = crate::random::Stream::new(seed, "test");
            let n = p00.len();
            let draw = |k: u64| (0..n).map(|c| 20.0 * uniform(&s, k, c as u32) as f32).collect::<Vec<_>>();
            let (pa0, pa1) = (draw(1), draw(2));
            for head in [Head::Softmax, Head::Sigmoid] {
                // f32 probabilities on a grid of 2^-20: differences in f64 are exact, so the sum is too
                let stored = |o: &[f32]| head.probabilities(o).iter().map(|&p| f64::from((p * 1e6).round() as f32 * 2f32.powi(-20))).collect::<Vec<_>>();
                let (a, b, c) = (stored(&p00), stored(&p01), stored(&pa1));
                prop_assert!((0..n).all(|k| c[k] - a[k] == (b[k] - a[k]) + (c[k] - b[k])));
                let clean = Responses::new(head, &p00, &p00, &p01).unwrap();
                let o = Outcomes::with_perturbed(clean, Responses::new(head, &pa0, &pa0, &pa1).unwrap()).unwrap();
                let of = |reading| o.effects(reading, 0).unwrap();
                let (z0, r1, r2, r3, r4) = (of(Reading::Z0), of(Reading::R1), of(Reading::R2), of(Reading::R3), of(Reading::R4));
                let r6 = of(Reading::R6);
                for k in 0..n {
                    prop_assert!((r2[k] - z0[k] - r6[k] - r3[k]).abs() < 1e-14);
                    prop_assert!((r2[k] - z0[k] - r4[k]).abs() < 1e-14);
                    prop_assert_eq!(r3[k], r1[k] - z0[k]);
                }
            }
        }

        #[test]
        fn a_perturbation_of_nothing_reduces_every_reading((orig, idle) in pair(), seed in 0u64..1000) {
            let s = crate::random::Stream::new(seed, "test");
            let zeroed: Vec<f32> = (0..idle.len()).map(|c| 20.0 * uniform(&s, 0, c as u32) as f32).collect();
            for head in [Head::Softmax, Head::Sigmoid] {
                let r = Responses::new(head, &orig, &idle, &zeroed).unwrap();
                let o = Outcomes::with_perturbed(r.clone(), r.clone()).unwrap();
                let ece = |reading| o.ece(reading, 0, Artefact::None).unwrap();
                let z0 = ece(Reading::Z0);
                prop_assert_eq!(ece(Reading::R1).to_bits(), z0.to_bits());
                prop_assert_eq!(ece(Reading::R2).to_bits(), z0.to_bits());
                prop_assert_eq!(ece(Reading::R3), 0.0);
                prop_assert_eq!(ece(Reading::R4), 0.0);
                prop_assert_eq!(ece(Reading::R6), 0.0);
                prop_assert_eq!(o.effects(Reading::R5, 0).unwrap(), r.recon_effects());
            }
        }
    }

    #[test]
    fn a_double_softmax_shrinks_a_one_hot_ece_to_its_known_limit() {
        for (classes, limit, tolerance) in
            [(2usize, 5.5, 0.01), (10, 34.45, 0.01), (14, 59.4, 0.05), (1000, 215_000.0, 500.0)]
        {
            let mut idle = vec![0f32; classes];
            idle[0] = 60.0;
            let mut moved = idle.clone();
            moved[1] = 20.0;
            let r = Responses::new(Head::Softmax, &idle, &idle, &moved).unwrap();
            let o = Outcomes::with_perturbed(r.clone(), r).unwrap();
            let once = o.ece(Reading::R1, 0, Artefact::None).unwrap();
            let twice = o.ece(Reading::R1, 0, Artefact::DoubleSoftmax).unwrap();
            assert!((once / twice - limit).abs() < tolerance, "{classes}: {}", once / twice);
            // the algebra: p = (a, b, .., b), ratio 1 / ((a - b)(a + b - |p|^2))
            let (e, rest) = (1f64.exp(), classes as f64 - 1.0);
            let (a, b) = (e / (e + rest), 1.0 / (e + rest));
            let exact = 1.0 / ((a - b) * (a + b - a * a - rest * b * b));
            assert!((once / twice / exact - 1.0).abs() < 1e-9, "{classes}: {} not {exact}", once / twice);
        }
    }

    #[test]
    fn an_artefact_is_defined_on_the_perturbed_row_alone() {
        let r = Responses::new(Head::Softmax, &[2.0, 0.0], &[1.0, 0.0], &[1.0, 0.0]).unwrap();
        let o = Outcomes::with_perturbed(r.clone(), r.clone()).unwrap();
        // a dead node reads the autoencoder's error when the baseline is p_orig
        assert_eq!(o.ece(Reading::R1, 0, Artefact::None).unwrap(), 0.0);
        assert!(o.ece(Reading::R1, 0, Artefact::BaselineOrig).unwrap() < -0.05);
        assert!(o.ece(Reading::Z0, 0, Artefact::DoubleSoftmax).is_err());
        let clean = Outcomes::new(r.clone());
        assert!(matches!(clean.ece(Reading::R1, 0, Artefact::None), Err(CausalError::NoPerturbedInput { .. })));
        assert!(clean.ece(Reading::Z0, 1, Artefact::None).is_err());
        let sigmoid = Responses::new(Head::Sigmoid, &[2.0, 0.0], &[1.0, 0.0], &[1.0, 0.0]).unwrap();
        assert!(Outcomes::with_perturbed(r, sigmoid.clone()).is_err());
        let o = Outcomes::with_perturbed(sigmoid.clone(), sigmoid).unwrap();
        assert!(o.ece(Reading::R1, 0, Artefact::DoubleSoftmax).is_err());
    }

    #[test]
    fn the_weights_are_the_p_of_the_reading() {
        let a = Responses::new(Head::Softmax, &[2.0, 0.0], &[1.0, 0.0], &[0.5, 0.0]).unwrap();
        let b = Responses::new(Head::Softmax, &[0.0, 3.0], &[0.0, 2.0], &[0.0, 1.0]).unwrap();
        let o = Outcomes::with_perturbed(a, b).unwrap();
        let p = |x: f32| Head::Softmax.probabilities(&[x, 0.0]);
        let of = |reading| o.weights(reading, 0).unwrap();
        assert_eq!([of(Reading::Z0), of(Reading::R2), of(Reading::R3)], [p(1.0), p(1.0), p(1.0)]);
        assert_eq!(of(Reading::R1), Head::Softmax.probabilities(&[0.0, 2.0]));
        assert_eq!(of(Reading::R4), p(0.5));
        assert_eq!(of(Reading::R5), Head::Softmax.probabilities(&[0.0, 3.0]));
    }

    #[test]
    fn margins_and_flips_by_hand() {
        assert_eq!(margin_effect(&[3.0, 1.0, 2.0], &[1.0, 1.5, 0.0], 0).unwrap(), -1.5);
        assert!(margin_effect(&[3.0, 1.0], &[1.0, f32::NAN], 0).unwrap().is_nan());
        assert!(margin_effect(&[3.0], &[1.0], 0).is_err() && margin_effect(&[3.0, 1.0], &[1.0, 2.0], 2).is_err());
        let r = Responses::new(Head::Softmax, &[0.0; 2], &[1.0, 0.0], &[0.0, 1.0, 2.0, 0.0, f32::NAN, 0.0]).unwrap();
        assert_eq!([0, 1, 2].map(|n| r.flips(n).unwrap()), [Some(true), Some(false), None]);
        assert!(r.flips(3).is_err());
        assert_eq!(argmax(&[1.0, 2.0, 2.0]), Some(1));
    }

    #[test]
    fn names_are_read_back_and_a_wrong_one_is_told_the_nearest() {
        assert!(Reading::ALL.iter().all(|r| r.name().parse() == Ok(*r)));
        assert_eq!("double-softmax".parse(), Ok(Artefact::DoubleSoftmax));
        let Err(CausalError::Name { nearest, .. }) = "softmx".parse::<Head>() else { panic!() };
        assert_eq!(nearest, "softmax");
    }
}
