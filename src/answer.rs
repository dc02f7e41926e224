//! Logits to probabilities, and the change of probabilities between two rows of logits without cancellation, in f64: effects
//! are differences of near-equal numbers, and the same forms in f32 lose a factor 20 to 70. Used by the estimands of `causal`
//! and by the devices that make them where the logits are.

/// Logit changes beyond this leave the expm1 form for the plain difference: probabilities below 1e-300 lose bits,
/// e^600 = 4e260 cannot lift such a one above 1e-40.
const STABLE_CHANGE_MAX: f64 = 600.0;

/// How logits become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Head {
    /// One answer out of C classes: p = softmax(o).
    Softmax,
    /// C independent yes/no labels: p_j = 1 / (1 + exp(-o_j)).
    Sigmoid,
}

impl Head {
    /// Probabilities of one row of logits, in f64. The largest logit is subtracted first, so nothing overflows. A NaN
    /// logit makes the whole softmax row NaN (a sigmoid: its label), as do infinite logits that leave no ratio.
    pub fn probabilities(self, logits: &[f32]) -> Vec<f64> {
        self.of(&widen(logits))
    }

    /// The same for logits in f64.
    pub fn of(self, logits: &[f64]) -> Vec<f64> {
        match self {
            Head::Softmax => {
                let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let mut p: Vec<f64> = logits.iter().map(|o| (o - max).exp()).collect();
                let sum: f64 = p.iter().sum();
                p.iter_mut().for_each(|v| *v /= sum);
                p
            }
            Head::Sigmoid => logits.iter().map(|&o| sigmoid(o)).collect(),
        }
    }

    /// The class-weighted effect of one image, with weights `p` and effects per class: sum_c p_c e_c for a softmax (E1),
    /// mean_j (2 p_j - 1) e_j for a sigmoid.
    pub fn weighted(self, p: &[f64], effects: &[f64]) -> f64 {
        let pairs = p.iter().zip(effects);
        match self {
            Head::Softmax => pairs.map(|(p, e)| p * e).sum(),
            Head::Sigmoid => pairs.map(|(p, e)| (2.0 * p - 1.0) * e).sum::<f64>() / effects.len() as f64,
        }
    }
}

/// The same numbers in f64.
pub fn widen(logits: &[f32]) -> Vec<f64> {
    logits.iter().map(|&o| f64::from(o)).collect()
}

/// log(1 + exp(o)) without overflow.
pub fn softplus(o: f64) -> f64 {
    // a NaN goes through the logarithm
    let tail = (-o.abs()).exp().ln_1p();
    if o > 0.0 { o + tail } else { tail }
}

/// p log(p/q) + (1-p) log((1-p)/(1-q)), p and q the sigmoids of two logits.
pub fn bernoulli_kl(target: f64, logit: f64) -> f64 {
    let term = |p: f64, log_p: f64, log_q: f64| if p == 0.0 { 0.0 } else { p * (log_p - log_q) };
    term(sigmoid(target), -softplus(-target), -softplus(-logit))
        + term(sigmoid(-target), -softplus(target), -softplus(logit))
}

/// 1 / (1 + exp(-o)) without overflow, and without rounding to 1 - tiny for negative o.
pub fn sigmoid(o: f64) -> f64 {
    if o >= 0.0 {
        1.0 / (1.0 + (-o).exp())
    } else {
        let e = o.exp();
        e / (1.0 + e)
    }
}

/// q_c - p_c with p = head(idle) already known and q = head(intervened); rows of one length.
///
/// With d = o' - o the difference is taken before the exponential, so small effects keep their digits: softmax
/// q_c - p_c = p_c expm1(d_c - log1p(S)), S = sum_k p_k expm1(d_k), where -1/2 < S < 1 and |d_c - log1p(S)| <= 1, else
/// the plain difference, which is as good for changes that large (near S = -1 log1p cancels; at logits of 80 the form
/// costs |d| ulps, 3e-14); sigmoid q - p = p(1-p) expm1(d) / (1 + p expm1(d)), p(1-p) from both signs of o. Identical rows
/// give exactly 0.0. NaN logits give NaN.
pub fn difference(head: Head, p: &[f64], idle: &[f64], intervened: &[f64]) -> Vec<f64> {
    let change: Vec<f64> = intervened.iter().zip(idle).map(|(a, b)| a - b).collect();
    let plain = || -> Vec<f64> { head.of(intervened).iter().zip(p).map(|(q, p)| q - p).collect() };
    match head {
        Head::Softmax => {
            // Written so that a NaN takes the plain form, where it makes exactly its own classes NaN.
            if !change.iter().all(|d| d.abs() <= STABLE_CHANGE_MAX) {
                return plain();
            }
            let s: f64 = p.iter().zip(&change).map(|(p, d)| p * d.exp_m1()).sum();
            if !(s > -0.5 && s < 1.0) {
                return plain();
            }
            let shift = s.ln_1p();
            let stable = p.iter().zip(&change).map(|(p, d)| p * (d - shift).exp_m1());
            if change.iter().all(|d| (d - shift).abs() <= 1.0) {
                return stable.collect();
            }
            // Classes that rise or fall more than e-fold: rounding d - shift would cost |d| ulps of q.
            let far = change.iter().zip(plain()).map(|(d, plain)| ((d - shift).abs() > 1.0).then_some(plain));
            stable.zip(far).map(|(stable, far)| far.unwrap_or(stable)).collect()
        }
        Head::Sigmoid => {
            // every label by itself: what happens to one does not change another's form
            let one = |((&o, &d), &moved): ((&f64, &f64), &f64)| {
                let (p, not_p) = (sigmoid(o), sigmoid(-o));
                if !(d.abs() <= STABLE_CHANGE_MAX) {
                    return sigmoid(moved) - p;
                }
                // 1 + p expm1(d) = (1-p) + p e^d has no cancellation; for d > 0 both sides are scaled by e^-d.
                if d <= 0.0 {
                    p * not_p * d.exp_m1() / (not_p + p * d.exp())
                } else {
                    p * not_p * -(-d).exp_m1() / (not_p * (-d).exp() + p)
                }
            };
            idle.iter().zip(&change).zip(intervened).map(one).collect()
        }
    }
}
