//! What a reference folder may expect: the closed list of `expect.*` names, in the order in which values flow through a
//! run, what each needs of the folder, and how closely it is compared.

use crate::text::nearest;

/// An attack that a folder may replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attack {
    /// One step of size eps.
    Fgsm,
    /// Steps from the image itself.
    Bim,
    /// Steps from a random start.
    Pgd,
}

impl Attack {
    /// Every attack.
    pub const ALL: [Attack; 3] = [Attack::Fgsm, Attack::Bim, Attack::Pgd];

    /// Its name in `reference.json`.
    pub fn name(self) -> &'static str {
        match self {
            Attack::Fgsm => "fgsm",
            Attack::Bim => "bim",
            Attack::Pgd => "pgd",
        }
    }
}

/// Keys of an autoencoder's parameters behind `ae.`, in the order of [`crate::model::autoencoder::Autoencoder::parameters`].
pub const AE_KEYS: [&str; 10] = [
    "enc1.weight",
    "enc1.bias",
    "enc2.weight",
    "enc2.bias",
    "code.weight",
    "code.bias",
    "dec1.weight",
    "dec1.bias",
    "dec2.weight",
    "dec2.bias",
];

/// Losses of an autoencoder's training, the sum behind its parts: where a part differs, it is named first.
pub const LOSSES: [&str; 4] = ["interpretability", "shallow", "deep", TOTAL];
/// Number of L_deep among them.
const DEEP: usize = 2;
/// Their weighted sum.
pub const TOTAL: &str = "total";

/// One `expect.*`. Their order is that of the values in a run: the first of them that differs is where two runs part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// The host's values at the tap.
    Tap,
    /// The autoencoder's code.
    Code,
    /// What the decoder makes of it.
    Decoded,
    /// The host's logits.
    Logits,
    /// The host's answer.
    Orig,
    /// The answer with the autoencoder inserted.
    Idle,
    /// The answer with one node set to 0, node by node.
    Done,
    /// What that changes.
    Effect,
    /// Its class-weighted sum.
    Ece,
    /// Gradient of the attack's loss for the pixels.
    InputGradient,
    /// Every iterate of an attack.
    Path(Attack),
    /// Its last iterate.
    Attacked(Attack),
    /// Its loss there.
    AttackLoss(Attack),
    /// Grad-CAM of the label.
    GradCam,
    /// CAM of the label.
    Cam,
    /// A loss of the autoencoder's training, by its number in [`LOSSES`].
    Loss(usize),
    /// The total's gradient for a parameter, by its number in [`AE_KEYS`].
    AeGradient(usize),
}

/// How closely a quantity is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Largest difference over largest expected magnitude.
    Close(f64),
    /// The same, or, where a ReLU, max or |.| switched the other way, the relative L2 norm of the difference.
    Gradient {
        /// Largest difference over largest expected magnitude.
        close: f64,
        /// L2 norm of the difference over that of what is expected.
        norm: f64,
    },
    /// Share of pixels that one step from a given iterate puts elsewhere than the next iterate.
    Steps {
        /// What counts as elsewhere.
        pixel: f64,
        /// That share.
        share: f64,
    },
    /// Final loss of a run of our own, over the largest expected loss.
    FreeRun(f64),
}

/// Magnitudes, activations to maps.
const CLOSE: Rule = Rule::Close(1e-5);
/// Differences of near-equal numbers; L_deep too, a sum of p (log p - log q) of near-equal p and q: PyTorch's own float32 and
/// float64 were 1.4e-5 of it apart in 2 of 16 folders.
const EFFECT: Rule = Rule::Close(1e-4);
const GRADIENT: Rule = Rule::Gradient { close: 1e-4, norm: 1e-2 };

impl Rule {
    /// The same rule, `factor` times as wide. A pixel's distance is none of a tolerance's business and stays.
    pub fn widened(self, factor: f64) -> Rule {
        match self {
            Rule::Close(close) => Rule::Close(close * factor),
            Rule::Gradient { close, norm } => Rule::Gradient { close: close * factor, norm: norm * factor },
            Rule::Steps { pixel, share } => Rule::Steps { pixel, share: share * factor },
            Rule::FreeRun(loss) => Rule::FreeRun(loss * factor),
        }
    }
}

impl Quantity {
    /// Every quantity, in order.
    pub fn all() -> Vec<Quantity> {
        use Quantity::*;
        let mut all = vec![Tap, Code, Decoded, Logits, Orig, Idle, Done, Effect, Ece, InputGradient, GradCam, Cam];
        all.extend(Attack::ALL.into_iter().flat_map(|a| [Path(a), Attacked(a), AttackLoss(a)]));
        all.extend((0..LOSSES.len()).map(Loss));
        all.extend((0..AE_KEYS.len()).map(AeGradient));
        all.sort();
        all
    }

    /// The name behind `expect.`.
    pub fn name(self) -> String {
        match self {
            Quantity::Tap => "tap".into(),
            Quantity::Code => "code".into(),
            Quantity::Decoded => "decoded".into(),
            Quantity::Logits => "logits".into(),
            Quantity::Orig => "p_orig".into(),
            Quantity::Idle => "p_idle".into(),
            Quantity::Done => "p_do".into(),
            Quantity::Effect => "effect_node".into(),
            Quantity::Ece => "ece".into(),
            Quantity::InputGradient => "input_gradient".into(),
            Quantity::Path(attack) => format!("attack_path.{}", attack.name()),
            Quantity::Attacked(attack) => format!("attack.{}", attack.name()),
            Quantity::AttackLoss(attack) => format!("attack_loss.{}", attack.name()),
            Quantity::GradCam => "grad_cam".into(),
            Quantity::Cam => "cam".into(),
            Quantity::Loss(i) => format!("loss.{}", LOSSES[i]),
            Quantity::AeGradient(i) => format!("ae_gradient.{}", AE_KEYS[i]),
        }
    }

    /// The quantity of that name, or the nearest name there is. A parameter's key may have its `ae.` in front.
    ///
    /// # Errors
    /// The nearest name, where one is near.
    pub fn named(name: &str) -> Result<Quantity, Option<String>> {
        let all: Vec<(String, Quantity)> = Quantity::all().into_iter().map(|q| (q.name(), q)).collect();
        let short = name.replacen("ae_gradient.ae.", "ae_gradient.", 1);
        let found = all.iter().find(|(own, _)| *own == short).map(|(_, quantity)| *quantity);
        found.ok_or_else(|| nearest(name, all.iter().map(|(own, _)| own.as_str())).map(str::to_owned))
    }

    /// How closely it is compared.
    pub fn rule(self) -> Rule {
        match self {
            Quantity::Effect | Quantity::Ece | Quantity::Loss(DEEP) => EFFECT,
            Quantity::InputGradient | Quantity::AeGradient(_) => GRADIENT,
            Quantity::Path(_) => Rule::Steps { pixel: 1e-5, share: 1e-3 },
            Quantity::Attacked(_) | Quantity::AttackLoss(_) => Rule::FreeRun(0.02),
            Quantity::Tap
            | Quantity::Code
            | Quantity::Decoded
            | Quantity::Logits
            | Quantity::Orig
            | Quantity::Idle
            | Quantity::Done
            | Quantity::GradCam
            | Quantity::Cam
            | Quantity::Loss(_) => CLOSE,
        }
    }

    /// Whether an autoencoder has to be in the folder.
    pub fn needs_autoencoder(self) -> bool {
        use Quantity::*;
        matches!(self, Code | Decoded | Idle | Done | Effect | Ece | Loss(_) | AeGradient(_))
    }

    /// The attack that it is of.
    pub fn attack(self) -> Option<Attack> {
        match self {
            Quantity::Path(attack) | Quantity::Attacked(attack) | Quantity::AttackLoss(attack) => Some(attack),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_a_misspelt_one_names_the_nearest() {
        for quantity in Quantity::all() {
            assert_eq!(Quantity::named(&quantity.name()), Ok(quantity));
        }
        assert_eq!(Quantity::named("ae_gradient.ae.enc1.bias"), Ok(Quantity::AeGradient(1)));
        assert_eq!(Quantity::named("attack_pth.bim"), Err(Some("attack_path.bim".into())));
        assert_eq!(Quantity::named("zzzzzzzz"), Err(None));
    }

    #[test]
    fn values_are_ordered_as_they_flow() {
        let names: Vec<String> = Quantity::all().into_iter().map(Quantity::name).collect();
        assert_eq!(names[..4], ["tap", "code", "decoded", "logits"]);
        assert_eq!(names.len(), 12 + 9 + 4 + 10);
    }

    #[test]
    fn the_keys_are_those_of_an_autoencoder() {
        let tap = crate::model::Model::named("fashion").unwrap().tap("2").unwrap();
        let parameters = crate::model::autoencoder::Autoencoder::at(&tap, 2, 2).parameters();
        let keys: Vec<&str> = parameters.iter().filter_map(|(key, _)| key.strip_prefix("ae.")).collect();
        assert_eq!(keys, AE_KEYS);
    }
}
