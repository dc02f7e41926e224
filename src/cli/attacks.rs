//! Flags that say how images are attacked, for every command that attacks some.

use super::common::radius;
use crate::attack::jsma::Jsma;
use crate::attack::{Attack, Attacked, Norm, Steps};
use crate::error::Error;

/// Attack on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AttackArg {
    /// Fast gradient sign method: one step
    Fgsm,
    /// Basic iterative method
    Bim,
    /// Projected gradient descent: BIM from a random start
    Pgd,
    /// Jacobian-based saliency map attack, towards the second most likely class
    Jsma,
    /// No attack
    None,
}

/// All that there are, in the paper's order.
pub const ALL: [AttackArg; 4] = [AttackArg::Fgsm, AttackArg::Bim, AttackArg::Pgd, AttackArg::Jsma];

/// Whose defaults attacks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Preset {
    /// eps 0.3, 10 steps of 0.05
    Paper,
    /// foolbox 1.8: eps 0.3; bim 10 steps of 0.05, pgd 40 of 0.01
    Foolbox,
    /// eps 8/255, 10 steps of 2/255; in l2 eps 1, 10 steps of 0.2
    Torchattacks,
    /// Adversarial robustness toolbox: eps 0.3, 100 steps of 0.1
    Art,
}

impl Preset {
    fn steps(self, attack: AttackArg, norm: Norm) -> Steps {
        let (eps, step, steps) = match (self, attack, norm) {
            (Preset::Foolbox, AttackArg::Pgd, _) => (0.3, 0.01, 40),
            (Preset::Paper | Preset::Foolbox, _, _) => (0.3, 0.05, 10),
            (Preset::Torchattacks, _, Norm::Linf) => (8.0 / 255.0, 2.0 / 255.0, 10),
            (Preset::Torchattacks, _, Norm::L2) => (1.0, 0.2, 10),
            (Preset::Art, _, _) => (0.3, 0.1, 100),
        };
        Steps { eps, step, steps, norm }
    }
}

/// Norm of the ball on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum NormArg {
    /// Largest change of a pixel
    Linf,
    /// Root of the sum of squared changes
    L2,
}

/// Which network is attacked, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum VictimArg {
    /// The network alone
    Host,
    /// The network with the autoencoder in it: an adversary who knows it
    Inserted,
}

impl From<VictimArg> for Attacked {
    fn from(victim: VictimArg) -> Attacked {
        match victim {
            VictimArg::Host => Attacked::Host,
            VictimArg::Inserted => Attacked::Inserted,
        }
    }
}

/// How images are attacked.
#[derive(Clone, Debug, clap::Args)]
pub struct AttackArgs {
    /// Attacks, by comma; default: fgsm (ce, map, reproduce imagenet), fgsm,bim,pgd (attack, reproduce chest), all four (reproduce
    /// fashion)
    #[arg(long, value_enum, value_delimiter = ',')]
    attack: Vec<AttackArg>,
    /// Whose eps and steps attacks have, where no flag says otherwise
    #[arg(long, value_enum, default_value = "paper")]
    preset: Preset,
    /// Largest pixel change of attacks and noise: `0.3` or `8/255`; several by comma; default the preset's
    #[arg(long, value_name = "EPS", value_parser = radius, value_delimiter = ',')]
    eps: Vec<f32>,
    /// How eps and step are measured
    #[arg(long, value_enum, default_value = "linf")]
    norm: NormArg,
    /// Pixel change in one step of bim and pgd; default the preset's, or the same part of another --eps
    #[arg(long, value_name = "EPS", value_parser = radius)]
    step: Option<f32>,
    /// Steps of bim and pgd; default the preset's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: Option<u32>,
    /// What jsma adds to a pixel, -1 to 1
    #[arg(long, value_name = "THETA", default_value_t = 1.0, allow_negative_numbers = true)]
    theta: f32,
    /// Largest share of pixels that jsma changes
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    gamma: f32,
    /// Random starts of pgd, of which the one that raises the loss most is taken
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    restarts: u32,
    /// Which network is attacked
    #[arg(long, value_enum, default_value = "host")]
    pub victim: VictimArg,
}

impl AttackArgs {
    /// Checks what clap cannot.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn checked(&self) -> Result<(), Error> {
        if self.attack.len() > 1 && self.attack.contains(&AttackArg::None) {
            return Err(Error::Usage("--attack none goes with no other attack".into()));
        }
        if self.theta == 0.0 || !(-1.0..=1.0).contains(&self.theta) {
            return Err(Error::Usage(format!("--theta {}: it is a change of pixels, -1 to 1 and not 0", self.theta)));
        }
        if !(self.gamma > 0.0 && self.gamma <= 1.0) {
            return Err(Error::Usage(format!(
                "--gamma {}: it is a share of pixels, above 0 and at most 1",
                self.gamma
            )));
        }
        let of_pixels = self.eps.iter().map(|eps| ("--eps", *eps)).chain(self.step.map(|step| ("--step", step)));
        for (flag, value) in of_pixels {
            if self.norm() == Norm::Linf && value > 1.0 {
                return Err(Error::Usage(format!(
                    "{flag} {value} is outside of 0 to 1 (pixels are in [0, 1]: write 8/255, not 8)"
                )));
            }
        }
        Ok(())
    }

    fn norm(&self) -> Norm {
        match self.norm {
            NormArg::Linf => Norm::Linf,
            NormArg::L2 => Norm::L2,
        }
    }

    /// The attacks that are asked for, or `usual` where none is; each at every eps, and none twice.
    pub fn attacks(&self, usual: &[AttackArg]) -> Vec<Attack> {
        let asked = if self.attack.is_empty() { usual } else { &self.attack };
        let sizes: Vec<Option<f32>> =
            if self.eps.is_empty() { vec![None] } else { self.eps.iter().copied().map(Some).collect() };
        let mut attacks = Vec::new();
        for &attack in asked {
            for &eps in &sizes {
                let steps = self.steps(attack, eps);
                let attack = match attack {
                    AttackArg::Fgsm => Attack::Fgsm { eps: steps.eps, norm: steps.norm },
                    AttackArg::Bim => Attack::Bim(steps),
                    AttackArg::Pgd => Attack::Pgd { steps, restarts: self.restarts },
                    AttackArg::Jsma => Attack::Jsma(Jsma { theta: self.theta, gamma: self.gamma }),
                    AttackArg::None => continue,
                };
                if !attacks.contains(&attack) {
                    attacks.push(attack);
                }
            }
        }
        attacks
    }

    fn steps(&self, attack: AttackArg, eps: Option<f32>) -> Steps {
        let preset = self.preset.steps(attack, self.norm());
        let size = eps.unwrap_or(preset.eps);
        let step = self.step.unwrap_or(if eps.is_some() { preset.step * (size / preset.eps) } else { preset.step });
        Steps { eps: size, step, steps: self.steps.unwrap_or(preset.steps), ..preset }
    }
}
