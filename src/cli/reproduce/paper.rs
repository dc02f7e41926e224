//! What the paper prints (C.-H. H. Yang et al., ICIP 2019): expected causal effects of setting node N of the autoencoder at
//! level L to 0. Each is of one image or of a few, of autoencoders and images that nobody has; node numbers do not carry over
//! between autoencoders. So they stand beside ours for their sign and size.

use crate::attack::Attack;
use crate::causal::mask::Region;
use crate::causal::study::Input;

/// A row of its tables.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// L, the number of children of `features` in front.
    pub tap: usize,
    /// N.
    pub node: usize,
    /// Z0.
    z0: f64,
    /// F_i = PWM.
    pwm: Option<f64>,
    /// F_j = FGSM.
    fgsm: Option<f64>,
    /// F_j = BIM, JSMA (printed JBSM), PGD.
    iterated: Option<[f64; 3]>,
}

impl Row {
    /// Its number in our column.
    pub fn under(&self, input: &Input) -> Option<f64> {
        match input {
            Input::None => Some(self.z0),
            Input::Pwm { region: Region::Grid10, .. } => self.pwm,
            Input::Attack(Attack::Fgsm { .. }) => self.fgsm,
            Input::Attack(Attack::Bim(_)) => self.iterated.map(|[bim, ..]| bim),
            Input::Attack(Attack::Jsma(_)) => self.iterated.map(|[_, jsma, _]| jsma),
            Input::Attack(Attack::Pgd { .. }) => self.iterated.map(|[.., pgd]| pgd),
            Input::Pwm { .. } | Input::Jpeg { .. } | Input::Noise { .. } => None,
        }
    }
}

const fn row(tap: usize, node: usize, z0: f64, pwm: Option<f64>, fgsm: Option<f64>) -> Row {
    Row { tap, node, z0, pwm, fgsm, iterated: None }
}

/// Table 3, Fashion-MNIST.
pub const FASHION: [Row; 2] = [
    row(2, 3, 4.9543e-4, Some(-1.8947e-5), Some(-8.0042e-6)),
    row(2, 7, 2.4600e-4, Some(-4.1068e-5), Some(-2.5742e-5)),
];

/// Table 4, ImageNet, VGG16.
pub const VGG16: [Row; 3] = [
    row(3, 2, 4.2027e-4, Some(6.0993e-5), Some(-5.1834e-5)),
    row(9, 10, 8.9322e-3, Some(7.2438e-5), Some(-2.8862e-4)),
    row(13, 6, 6.7643e-4, Some(2.3943e-6), Some(-6.8749e-5)),
];

/// VGG19 on birds, "feature 2" at level 18 (text of section 4).
pub const VGG19: [Row; 1] = [row(18, 2, 7.6341e-3, None, None)];

/// Table 1, CheXNet; attacks are Table 2's.
pub const CHEXNET: [Row; 5] = [
    row(3, 4, 4.5076e-3, Some(7.2356e-7), None),
    row(6, 5, 2.843e-3, Some(1.2154e-5), None),
    row(6, 10, 3.1939e-3, Some(9.0066e-6), None),
    row(8, 5, 3.1939e-3, Some(1.1536e-5), None),
    Row {
        iterated: Some([4.3435e-5, 7.7548e-5, -3.9605e-6]),
        ..row(10, 7, 1.3775e-2, Some(-1.1506e-5), Some(-5.6129e-6))
    },
];
